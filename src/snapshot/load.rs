//! Reading the pipeline and the params back out of a snapshot.

use super::{SnapshotError, View};
use crate::object::{Entry, Kind, Snapshot, from_canonical};
use crate::path::ProjectPath;
use crate::pipeline::{Params, Pipeline};
use crate::store::Store;

/// Returns the definition of a snapshot: the normalised one.
///
/// # Errors
///
/// [`SnapshotError`] if it is missing, damaged, or not understood.
pub fn load_definition(store: &dyn Store, snapshot: &Snapshot) -> Result<Pipeline, SnapshotError> {
    let bytes = store.get(Kind::Definition, snapshot.definition.digest())?;
    from_canonical(&bytes)
        .and_then(serde_json::from_value)
        .map_err(|source| SnapshotError::NotUnderstood { kind: Kind::Definition, source: Box::new(source) })
}

/// Returns the definition and the values of all params of a snapshot.
///
/// The definition is the normalised one, so an old snapshot means the same to
/// every later version of the reader.
///
/// # Errors
///
/// [`SnapshotError`] if an object is missing or damaged, or a params file is not in the snapshot.
pub fn load_pipeline(store: &dyn Store, snapshot: &Snapshot) -> Result<(Pipeline, Params), SnapshotError> {
    let pipeline = load_definition(store, snapshot)?;
    let view = View::new(store, snapshot);
    let failed = std::cell::RefCell::new(None);
    let read = |path: &ProjectPath| -> Result<Option<Vec<u8>>, SnapshotError> {
        match view.entry(path)? {
            Some(Entry::File { id, .. }) => Ok(Some(store.get(Kind::Blob, id.digest())?)),
            _ => Ok(None),
        }
    };
    let params = Params::load(&pipeline, &|path| {
        read(path).unwrap_or_else(|error| {
            failed.replace(Some(error));
            None
        })
    });
    match failed.into_inner() {
        Some(error) => Err(error),
        None => Ok((pipeline, params?)),
    }
}
