//! Which Python environment a definition asks for, told from the snapshot that is run and not from the working tree.

use std::collections::BTreeSet;

use crate::environment::Wanted;
use crate::hash::Digest;
use crate::object::{Entry, Kind, SnapshotId};
use crate::path::ProjectPath;
use crate::pipeline::{Environment, Pipeline, Python};
use crate::snapshot::{SnapshotError, View, load_definition, read_snapshot};
use crate::store::{Store, StoreError};

/// Returns the Python environments that steps of a pipeline run in, each once, in the order in which they are named.
pub fn pythons<'p>(pipeline: &'p Pipeline, is_meant: &dyn Fn(usize) -> bool) -> Vec<&'p Python> {
    let mut found: Vec<&Python> = Vec::new();
    for (_, step) in pipeline.steps.iter().enumerate().filter(|(index, _)| is_meant(*index)) {
        if let Environment::Python(python) = pipeline.environment_of(step)
            && !found.contains(&python)
        {
            found.push(python);
        }
    }
    found
}

/// Returns what `python` asks for in the snapshot of `view`; `None` if its lock is no file there.
///
/// # Errors
///
/// [`SnapshotError`] if a tree or a file cannot be read.
pub fn wanted(view: &View<'_>, python: &Python) -> Result<Option<Wanted>, SnapshotError> {
    let Some(text) = file(view, &python.lock)? else { return Ok(None) };
    let beside = match python.lock.parent() {
        Some(directory) => directory.join(b"pyproject.toml"),
        None => ProjectPath::new("pyproject.toml").expect("a name is a path"),
    };
    Ok(Some(Wanted::new(&python.version, python.lock.clone(), text, file(view, &beside)?)))
}

/// Returns the Python environments that steps of these snapshots run in, as far as this store can tell.
///
/// What is elsewhere alone, or of a version of `pv` that this one does not understand, can run nothing here. Costs a read of each
/// definition, and of the locks that they name.
///
/// # Errors
///
/// [`SnapshotError`] if something of a snapshot is damaged or cannot be read.
pub fn needed_pythons<'s>(
    store: &dyn Store,
    snapshots: impl IntoIterator<Item = &'s SnapshotId>,
) -> Result<BTreeSet<Digest>, SnapshotError> {
    let mut needed = BTreeSet::new();
    for id in snapshots {
        match of_snapshot(store, *id) {
            Ok(of_snapshot) => needed.extend(of_snapshot),
            Err(
                SnapshotError::NotUnderstood { .. }
                | SnapshotError::NoContent { .. }
                | SnapshotError::Store(StoreError::Missing { .. }),
            ) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(needed)
}

fn of_snapshot(store: &dyn Store, id: SnapshotId) -> Result<Vec<Digest>, SnapshotError> {
    let snapshot = read_snapshot(store, id)?;
    let pipeline = load_definition(store, &snapshot)?;
    let view = View::new(store, &snapshot);
    let pythons = pythons(&pipeline, &|_| true).into_iter();
    let wanted = pythons.filter_map(|python| wanted(&view, python).transpose());
    wanted.map(|wanted| Ok(wanted?.digest())).collect()
}

fn file(view: &View<'_>, path: &ProjectPath) -> Result<Option<Vec<u8>>, SnapshotError> {
    match view.entry(path)? {
        Some(Entry::File { id, .. }) => Ok(Some(view.store().get(Kind::Blob, id.digest())?)),
        _ => Ok(None),
    }
}
