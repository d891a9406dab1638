//! What steps were seen to need of each other, beyond what the definition tells.

use std::collections::{BTreeMap, BTreeSet};

use super::RunError;
use super::judge::{Memory, Work, last_results};
use super::known::names_of;
use crate::pipeline::{Graph, Params, Pipeline};
use crate::record::{Journal, Name};

/// Returns `graph` with what earlier executions of its steps were seen to need: outputs of steps that stand earlier in the file.
///
/// What is found out about the tasks is kept in `memory`, which [`Work`] takes.
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
    memory: &Memory,
) -> Result<Graph, RunError> {
    let mut learnt: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    let mut last = None;
    let writers = memory.writers(pipeline);
    // The first step has none before it.
    for index in 1..pipeline.steps.len() {
        let (_, task) = memory.asked(pipeline, params, version, index)?;
        let sets = journal.read_sets(task)?;
        let mut names = sets.names.clone();
        if sets.newest().is_none() {
            // Asked for something new, a step needs most likely what it needed before.
            let last = match &mut last {
                Some(last) => last,
                none => none.insert(last_results(pipeline, name, journal)?),
            };
            let before = last.get(&pipeline.steps[index].name).filter(|last| last.result.is_seen_whole());
            names = before.map(|last| names_of(&last.result.recipe)).unwrap_or_default();
        }
        let needed: BTreeSet<usize> = writers.needed_by(&names).iter().filter(|other| *other < index).collect();
        memory.keep(task, sets);
        if !needed.is_empty() {
            learnt.insert(index, needed);
        }
    }
    Ok(graph.with(&learnt))
}

/// Returns the steps whose outputs the one at `index` looked for, that stand earlier in the file, and that it did not wait for.
pub(super) fn too_early(work: &Work<'_>, index: usize, names: &BTreeSet<Name>) -> BTreeSet<usize> {
    let waited = work.ancestors(index);
    // One that waits for this step itself cannot have come before it.
    let is_open = |other: &usize| !waited.contains(*other) && !work.ancestors(*other).contains(index);
    let needed = work.memory.writers(work.pipeline).needed_by(names);
    needed.iter().filter(|other| *other < index).filter(is_open).collect()
}
