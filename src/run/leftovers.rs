//! What a run leaves when it is over: the directories of its steps, with the files that they wrote.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::RunError;
use crate::disk::{self, DiskError, Lock};
use crate::path::ProjectPath;

/// The place of a run that is over, with what its steps wrote. It is removed when this is dropped, which takes a while.
///
/// Whoever wants one of the files may take it away, which for a large one saves writing it again.
#[derive(Debug, Default)]
pub struct Leftovers {
    place: Option<(PathBuf, Lock)>,
    files: BTreeMap<ProjectPath, PathBuf>,
}

impl Leftovers {
    pub(super) fn new(place: PathBuf, lock: Lock, files: BTreeMap<ProjectPath, PathBuf>) -> Self {
        Self { place: Some((place, lock)), files }
    }

    /// Returns where the file lies that a step wrote to `path`. Its content is what is on record.
    pub fn file(&self, path: &ProjectPath) -> Option<&Path> {
        self.files.get(path).map(PathBuf::as_path)
    }

    /// Removes all of it, with all processors: a run of many short steps leaves more directories than files.
    fn clear(&mut self) -> Result<(), RunError> {
        let Some((place, _lock)) = self.place.take() else { return Ok(()) };
        let entries = fs::read_dir(&place).map_err(DiskError::on("list", &place))?;
        let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>();
        // Its lock goes last: without one a place counts as left behind.
        let paths = paths.map_err(DiskError::on("list", &place))?;
        paths.par_iter().filter(|path| path.is_dir()).try_for_each(|path| disk::remove_tree(path))?;
        Ok(disk::remove_tree(&place)?)
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        // What cannot be removed now is left for the next run.
        let _ = self.clear();
    }
}
