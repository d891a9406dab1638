//! What a strict step is shown, and what a step that failed is told of what it was not shown.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::audit::named_by_command;
use super::judge::Before;
use super::missing::{Hint, Scene, missing};
use super::place::Room;
use super::world::Found;
use crate::environment::{Class, Rules, classify};
use crate::exec::{Observation, PLACE};
use crate::host;
use crate::path::ProjectPath;
use crate::pipeline::{Isolate, Pipeline, Step};

/// Returns all that a strict step is shown of the project: its declared inputs and the files that its command
/// names. `None` if the step is shown everything.
pub(super) fn shown(step: &Step) -> Option<BTreeSet<ProjectPath>> {
    (step.isolate == Isolate::Strict)
        .then(|| step.inputs.iter().flatten().cloned().chain(named_by_command(step)).collect())
}

/// Returns whether a strict step may read this path: one of its place, or one that belongs to the environment.
///
/// A directory outside is no input: it is looked at on the way to what is in it.
pub(super) fn may_read(path: &Path, rules: &Rules) -> bool {
    path.starts_with(PLACE) || classify(path, rules) != Class::Input || path.is_dir()
}

/// What is known around a step that failed.
pub(super) struct Around<'a> {
    pub(super) pipeline: &'a Pipeline,
    pub(super) step: &'a Step,
    pub(super) room: &'a Room,
    pub(super) tail: &'a [String],
    pub(super) rules: &'a Rules,
    /// The working tree of the user, if the run is one of it.
    pub(super) tree: Option<&'a Path>,
    pub(super) shown: Option<&'a BTreeSet<ProjectPath>>,
    /// What earlier steps of this run wrote without declaring it, and which.
    pub(super) strays: &'a BTreeMap<ProjectPath, String>,
}

/// Returns what a step that failed looked for in vain and its author has.
pub(super) fn hints(around: &Around<'_>, before: &Before<'_, '_>, observation: &Observation) -> Vec<Hint> {
    let is_there = |path: &ProjectPath| before.world.find(Some(path)).is_ok_and(|found| found != Found::Absent);
    let is_shown = |path: &ProjectPath| around.shown.is_none_or(|shown| shown.iter().any(|shown| path.overlaps(shown)));
    missing(
        observation,
        &Scene {
            pipeline: around.pipeline,
            step: around.step,
            workplace: &around.room.tree,
            home: &around.room.home,
            tail: around.tail,
            rules: around.rules,
            was_there: &is_there,
            is_hidden: &|path| is_there(path) && !is_shown(path),
            stray_of: &|path| around.strays.get(path).cloned(),
            is_in_tree: &|path| around.tree.is_some_and(|tree| path.under(tree).exists()),
            is_at_home: &|path| host::variable_os("HOME").is_some_and(|home| Path::new(&home).join(path).exists()),
            is_set: &|name| host::variable_os(name).is_some(),
        },
    )
}
