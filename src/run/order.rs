//! What steps were seen to need of each other, beyond what the definition tells.

use std::collections::{BTreeMap, BTreeSet};

use super::RunError;
use super::judge::{Work, last_results};
use super::known::names_of;
use super::reads::TOP;
use super::recipe::{ancestors, asked, outputs_of};
use crate::path::{ProjectPath, unescape};
use crate::pipeline::{Graph, Params, Pipeline};
use crate::record::{Aspect, Journal, Name};

/// Returns `graph` with what earlier executions of its steps were seen to need: outputs of steps that stand earlier in the file.
///
/// Never makes a circle: what would close one is left out. Costs a look at what is known of each task.
///
/// # Errors
///
/// [`RunError`] if records cannot be read, or a passed variable is not text.
pub fn learnt_order(
    pipeline: &Pipeline,
    name: &str,
    params: &Params,
    version: Option<&str>,
    journal: &Journal,
    graph: &Graph,
) -> Result<Graph, RunError> {
    let mut learnt: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    let mut last = None;
    // The first step has none before it.
    for index in 1..pipeline.steps.len() {
        let task = asked(pipeline, params, version, index)?.task();
        let mut names = journal.read_sets(task)?.names;
        if names.is_empty() {
            // Asked for something new, a step needs most likely what it needed before.
            let last = match &mut last {
                Some(last) => last,
                none => none.insert(last_results(pipeline, name, journal)?),
            };
            let before = last.get(&pipeline.steps[index].name).filter(|last| last.result.is_seen_whole());
            names = before.map(|last| names_of(&last.result.recipe)).unwrap_or_default();
        }
        let needed: BTreeSet<usize> = (0..index).filter(|other| needs(pipeline, *other, &names)).collect();
        if !needed.is_empty() {
            learnt.insert(index, needed);
        }
    }
    Ok(graph.with(&learnt))
}

/// Returns the steps whose outputs the one at `index` looked for, that stand earlier in the file, and that it did not wait for.
pub(super) fn too_early(work: &Work<'_>, index: usize, names: &BTreeSet<Name>) -> BTreeSet<usize> {
    let waited = ancestors(work, index);
    // One that waits for this step itself cannot have come before it.
    let is_open = |other: &usize| !waited.contains(other) && !ancestors(work, *other).contains(&index);
    (0..index).filter(is_open).filter(|other| needs(work.pipeline, *other, names)).collect()
}

/// Returns whether one that depends on `names` needs what the step `writer` writes.
fn needs<'n>(pipeline: &Pipeline, writer: usize, names: impl IntoIterator<Item = &'n Name>) -> bool {
    let outputs: Vec<&ProjectPath> = outputs_of(&pipeline.steps[writer]).collect();
    names.into_iter().any(|name| match name {
        Name::Fact(_) => false,
        Name::Read(_, path) if path.starts_with('/') || path == TOP => false,
        Name::Read(aspect, path) => ProjectPath::new(unescape(path)).is_ok_and(|path| {
            outputs.iter().any(|output| match aspect {
                // Names alone depend on what is directly in a directory.
                Aspect::Listing => output.parent().as_ref() == Some(&path) || path.is_within(output),
                _ => path.overlaps(output),
            })
        }),
    })
}
