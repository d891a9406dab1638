//! What changed between two snapshots, and what that did to their results.
//!
//! Pure comparison: two [`Side`]s in, one [`Diff`] out. Of the trees, only what
//! differs is read.

mod environment;
mod files;
mod images;
mod metrics;
mod pipeline;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use crate::hash::Digest;
use crate::object::{RecordId, Snapshot, SnapshotId};
use crate::path::ProjectPath;
use crate::pipeline::{Params, Pipeline};
use crate::record::{Output, Recipe, Run};
use crate::snapshot::SnapshotError;
use crate::store::Store;

pub use environment::FactChange;
pub use files::{DataChange, FileChange, How, Patch, patches};
pub use metrics::MetricChange;
pub use pipeline::{FieldChange, StepChange, StepHow};

/// One side of a comparison.
pub struct Side<'a> {
    /// The snapshot's id.
    pub id: SnapshotId,
    /// The snapshot.
    pub snapshot: &'a Snapshot,
    /// What it is called.
    pub version: Option<String>,
    /// The commit it belongs to.
    pub commit: Option<String>,
    /// Whether it differs from that commit.
    pub dirty: bool,
    /// The definition.
    pub pipeline: &'a Pipeline,
    /// The values of all params.
    pub params: &'a Params,
    /// A run of it, if there is one.
    pub run: Option<(RecordId, &'a Run)>,
    /// The recipes of the run's steps, by step.
    pub recipes: &'a BTreeMap<String, Recipe>,
    /// Name → version of what the locks of its Python environments pin.
    pub locked: &'a BTreeMap<String, String>,
}

/// What changed between two snapshots. Every list is empty where nothing did.
#[derive(Debug, Serialize, PartialEq)]
pub struct Diff {
    /// The old side.
    pub from: Head,
    /// The new side.
    pub to: Head,
    /// Steps, in the order of the new definition, removed ones where they stood.
    pub steps: Vec<StepChange>,
    /// Params, by key.
    pub params: Vec<ParamChange>,
    /// Files of the tree, by path.
    pub files: Vec<FileChange>,
    /// Data roots, by path.
    pub data: Vec<DataChange>,
    /// Programs, packages, libraries and facts of the machine; where both sides have been run, and packages of locks and images
    /// anyway.
    /// First what a step uses whose output differs.
    pub environment: Vec<FactChange>,
    /// The pipeline's seed, old and new, if it changed.
    pub seed: Option<(Option<u64>, Option<u64>)>,
    /// Outputs that differ, by path; where both sides have been run.
    pub outputs: Vec<OutputChange>,
    /// Values in metrics files that differ; where both sides have been run.
    pub metrics: Vec<MetricChange>,
}

/// What one side is.
#[derive(Debug, Serialize, PartialEq, Clone)]
pub struct Head {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// What it is called.
    pub version: Option<String>,
    /// The commit it belongs to.
    pub commit: Option<String>,
    /// Whether it differs from that commit.
    pub dirty: bool,
    /// The run whose outputs are compared.
    pub run: Option<RecordId>,
}

/// A param that differs.
#[derive(Debug, Serialize, PartialEq)]
pub struct ParamChange {
    /// The dotted key.
    pub key: String,
    /// Its value before; `None` if it was not there.
    pub old: Option<Value>,
    /// Its value after.
    pub new: Option<Value>,
}

/// An output that differs.
#[derive(Debug, Serialize, PartialEq)]
pub struct OutputChange {
    /// Where.
    pub path: ProjectPath,
    /// The step that writes it.
    pub step: String,
    /// Its digest before.
    pub old: Option<Digest>,
    /// Its digest after.
    pub new: Option<Digest>,
    /// Its size in bytes before.
    pub old_size: Option<u64>,
    /// Its size in bytes after.
    pub new_size: Option<u64>,
}

impl Diff {
    /// Returns whether the two snapshots are the same, were run in the same environment and have the same results.
    pub fn is_empty(&self) -> bool {
        self.from.snapshot == self.to.snapshot
            && self.environment.is_empty()
            && self.outputs.is_empty()
            && self.metrics.is_empty()
    }
}

/// Compares two snapshots.
///
/// Costs grow with what differs, not with the size of the trees.
///
/// # Errors
///
/// [`SnapshotError`] if a tree or a metrics file cannot be read.
pub fn diff(store: &dyn Store, from: &Side<'_>, to: &Side<'_>) -> Result<Diff, SnapshotError> {
    let runs = from.run.zip(to.run).map(|((_, old), (_, new))| (old, new));
    let (outputs, metrics) = match runs {
        Some((old, new)) => (outputs(old, new), metrics::changes(store, from, to)?),
        None => (Vec::new(), Vec::new()),
    };
    let environment = environment::changes(from, to, runs, &outputs, images::changes(store, from, to)?);
    Ok(Diff {
        from: head(from),
        to: head(to),
        steps: pipeline::changes(from.pipeline, to.pipeline),
        params: params(from.params, to.params),
        files: files::changes(store, from.snapshot, to.snapshot)?,
        data: files::data_changes(store, from.snapshot, to.snapshot)?,
        environment,
        seed: (from.snapshot.seed != to.snapshot.seed).then_some((from.snapshot.seed, to.snapshot.seed)),
        outputs,
        metrics,
    })
}

fn head(side: &Side<'_>) -> Head {
    Head {
        snapshot: side.id,
        version: side.version.clone(),
        commit: side.commit.clone(),
        dirty: side.dirty,
        run: side.run.map(|(id, _)| id),
    }
}

fn params(old: &Params, new: &Params) -> Vec<ParamChange> {
    let keys: BTreeSet<String> = old.keys().into_iter().chain(new.keys()).collect();
    let both = keys.into_iter().map(|key| {
        let (before, after) = (old.get(&key).cloned(), new.get(&key).cloned());
        ParamChange { key, old: before, new: after }
    });
    // A key whose value became a map is told by the keys below it.
    let leaf = |value: &Option<Value>| !matches!(value, Some(Value::Object(map)) if !map.is_empty());
    both.filter(|change| change.old != change.new && leaf(&change.old) && leaf(&change.new)).collect()
}

fn outputs(old: &Run, new: &Run) -> Vec<OutputChange> {
    let by_path = |run: &Run| -> BTreeMap<ProjectPath, (String, Output)> {
        run.steps
            .iter()
            .flat_map(|step| step.outputs.iter().map(|o| (o.path.clone(), (step.step.clone(), o.clone()))))
            .collect()
    };
    let (old, new) = (by_path(old), by_path(new));
    let paths: BTreeSet<&ProjectPath> = old.keys().chain(new.keys()).collect();
    let both = paths.into_iter().map(|path| (path, old.get(path), new.get(path)));
    both.filter(|(_, old, new)| old.map(|(_, o)| o.digest) != new.map(|(_, o)| o.digest))
        .map(|(path, old, new)| OutputChange {
            path: path.clone(),
            step: new.or(old).map(|(step, _)| step.clone()).unwrap_or_default(),
            old: old.map(|(_, output)| output.digest),
            new: new.map(|(_, output)| output.digest),
            old_size: old.map(|(_, output)| output.size),
            new_size: new.map(|(_, output)| output.size),
        })
        .collect()
}
