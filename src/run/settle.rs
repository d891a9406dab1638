//! What a step that has run depended on, and so under which key its result is known.

use std::collections::BTreeSet;
use std::path::Path;

use super::RunError;
use super::image::image_of;
use super::judge::{Before, Work, vouches};
use super::known::compose;
use super::order::too_early;
use super::reads::{Seen, Standing, seen};
use super::recipe::outputs_of;
use super::seeding::seeding;
use crate::exec::{Observation, Rung};
use crate::path::ProjectPath;
use crate::pipeline::ParamsSource;
use crate::record::{Observed, Recipe};

/// What a step was seen to do, and where it was then.
#[derive(Clone, Copy)]
pub(super) struct Sighting<'a> {
    /// What it did.
    pub(super) observation: &'a Observation,
    /// Where its project was, as its processes mean it.
    pub(super) workplace: &'a Path,
    /// Directories of its own, as its processes mean them: home, temporary files.
    pub(super) private: &'a [&'a Path],
}

/// What a result is known by.
#[derive(Debug)]
pub(super) struct Settled {
    /// All that it depended on.
    pub(super) recipe: Recipe,
    /// What is recorded beside.
    pub(super) observed: Option<Observed>,
    /// Steps of which it looked for outputs without having waited for them. If there are any, its result is worth nothing.
    pub(super) too_early: BTreeSet<usize>,
}

/// Returns what the step at `index` is known by, after it has run in the world `before`.
///
/// Without a sighting, and where something could not be seen, all that it may depend on counts as well.
///
/// # Errors
///
/// [`RunError`] if a tree cannot be read.
pub(super) fn settle(
    work: &Work<'_>,
    index: usize,
    before: &Before<'_, '_>,
    sighting: Option<Sighting<'_>>,
) -> Result<Settled, RunError> {
    let Some(Sighting { observation, workplace, private }) = sighting else {
        return Ok(Settled { recipe: before.guess()?, observed: None, too_early: BTreeSet::new() });
    };
    let step = &work.pipeline.steps[index];
    let own: Vec<ProjectPath> = outputs_of(step).chain(&step.keep).cloned().collect();
    let params: Vec<ProjectPath> = work.pipeline.params.iter().filter_map(file_of).collect();
    let standing = Standing {
        workplace,
        private,
        inputs: before.inputs(),
        own: &own,
        params: if step.params.is_empty() { &[] } else { &params },
        search_path: work.tools_of(index).search_path(),
        vouched: vouches(step),
        in_image: image_of(work.pipeline, step).is_some(),
    };
    let Seen { names, looked, mut observed } = seen(&before.world, &before.machine, &standing, observation)?;
    let is_whole = observation.is_complete();
    let is_outside = |path: &&String| path.starts_with('/');
    for path in observed.readers.keys().filter(is_outside).filter(|path| !observed.writes.contains(*path)) {
        // Nearer to what the step read than what was there when it was judged.
        before.machine.forget(path);
    }
    let recipe = if observation.rung == Rung::None {
        before.guess()?
    } else {
        compose(&before.ground(!is_whole)?, is_whole, &names, &mut |name| before.value(name))?
    };
    // Later steps find what this one wrote.
    observed.writes.iter().filter(is_outside).for_each(|path| before.machine.forget(path));
    let too_early = too_early(work, index, &looked);
    observed.seeding = seeding(&before.asked, observation);
    Ok(Settled { recipe, observed: Some(observed), too_early })
}

fn file_of(source: &ParamsSource) -> Option<ProjectPath> {
    match source {
        ParamsSource::File(path) => Some(path.clone()),
        ParamsSource::Inline(_) => None,
    }
}
