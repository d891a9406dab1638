//! Which Python environment a definition asks for, told from the snapshot that is run and not from the working tree.

use crate::environment::Wanted;
use crate::object::{Entry, Kind};
use crate::path::ProjectPath;
use crate::pipeline::{Environment, Pipeline, Python};
use crate::snapshot::{SnapshotError, View};

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

fn file(view: &View<'_>, path: &ProjectPath) -> Result<Option<Vec<u8>>, SnapshotError> {
    match view.entry(path)? {
        Some(Entry::File { id, .. }) => Ok(Some(view.store().get(Kind::Blob, id.digest())?)),
        _ => Ok(None),
    }
}
