//! The clean place of a run: a directory of its own, outside the project.
//!
//! Outside, because tools look for their settings in the directories above: a
//! place inside the project would find the project's files again, as they are
//! now. It is made when the first step is executed; a run that reuses everything makes none.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::RunError;
use super::recipe::Finished;
use crate::disk::{self, DiskError, Durability, Lock};
use crate::exec::Stop;
use crate::snapshot::{View, lay_out, place_entry};

/// How many places of failed runs are kept.
const KEPT_MAX: usize = 3;
const KEPT: &str = "kept";
const LOCK: &str = "lock";
/// Held while a place gets its lock, so that one without is known to be left behind.
const MAKING: &str = "making";

/// A directory in which the steps of one run are executed.
pub(super) struct Place<'a> {
    view: &'a View<'a>,
    base: &'a Path,
    stop: &'a Stop,
    made: Mutex<Option<Made>>,
    spare: Mutex<Spare>,
}

/// What a step has for itself in the place of a run.
pub(super) struct Room {
    /// The snapshot's files and the outputs of the steps before, which all steps share.
    pub(super) tree: PathBuf,
    /// Its home directory, empty.
    pub(super) home: PathBuf,
    /// Its directory for temporary files, empty.
    pub(super) temporary: PathBuf,
    /// The file that takes what it prints.
    pub(super) log: PathBuf,
}

/// What steps that have ended leave for others under another name.
///
/// Making a directory and removing it costs a file system more than many a step takes.
#[derive(Default)]
struct Spare {
    directories: Vec<PathBuf>,
    logs: Vec<PathBuf>,
}

struct Made {
    directory: PathBuf,
    /// Tells others that this place is in use; the kernel takes it back if this process dies.
    _lock: Lock,
    /// Steps whose outputs are already there.
    placed: BTreeSet<usize>,
}

impl<'a> Place<'a> {
    /// Returns a place below `base` that will hold the files of `view`.
    pub(super) fn new(view: &'a View<'a>, base: &'a Path, stop: &'a Stop) -> Self {
        Self { view, base, stop, made: Mutex::new(None), spare: Mutex::default() }
    }

    /// Returns what `step` has for itself, with the snapshot's files and the outputs of the steps `before` in the tree.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the place cannot be made or an object is missing.
    pub(super) fn prepare(&self, step: &str, before: &BTreeSet<usize>, finished: &Finished) -> Result<Room, RunError> {
        let directory = self.fill(before, finished)?;
        let inside = |kind: &str| directory.join(kind).join(step);
        let room =
            Room { tree: directory.join("tree"), home: inside("home"), temporary: inside("tmp"), log: inside("log") };
        let mut spare = self.spare.lock().expect("no holder panics");
        for path in [&room.home, &room.temporary] {
            match spare.directories.pop() {
                Some(other) => disk::rename(&other, path)?,
                None => disk::make_directory(path)?,
            }
        }
        if let Some(other) = spare.logs.pop() {
            disk::rename(&other, &room.log)?;
        }
        Ok(room)
    }

    /// Takes back what a step had that succeeded: its temporary files are removed, and what is empty is for another step.
    ///
    /// # Errors
    ///
    /// [`RunError::Disk`] if something cannot be removed.
    pub(super) fn take_back(&self, room: Room) -> Result<(), RunError> {
        if !is_as_made(&room.temporary) {
            disk::remove_tree(&room.temporary)?;
        }
        let mut spare = self.spare.lock().expect("no holder panics");
        for path in [room.home, room.temporary] {
            if is_as_made(&path) {
                spare.directories.push(path);
            }
        }
        spare.logs.push(room.log);
        Ok(())
    }

    /// Removes what an attempt that failed left in the step's own directories, so that the next one begins with empty ones.
    ///
    /// # Errors
    ///
    /// [`RunError::Disk`] if something cannot be removed.
    pub(super) fn forget(&self, step: &str) -> Result<(), RunError> {
        let made = self.made.lock().expect("no holder panics");
        let Some(made) = made.as_ref() else { return Ok(()) };
        for kind in ["home", "tmp", "log"] {
            disk::remove_tree(&made.directory.join(kind).join(step))?;
        }
        Ok(())
    }

    fn fill(&self, before: &BTreeSet<usize>, finished: &Finished) -> Result<PathBuf, RunError> {
        let mut slot = self.made.lock().expect("no holder panics");
        if slot.is_none() {
            *slot = Some(self.make()?);
        }
        let made = slot.as_mut().expect("it has just been made");
        for index in before {
            if made.placed.insert(*index) {
                for output in finished.get(index).into_iter().flatten() {
                    let tree = made.directory.join("tree");
                    place_entry(self.view.store(), &tree, &output.path, &output.entry(), &|_, _| true)?;
                }
            }
        }
        Ok(made.directory.clone())
    }

    /// Notes that a step has been executed here, so its outputs are in place.
    pub(super) fn executed(&self, index: usize) {
        if let Some(made) = self.made.lock().expect("no holder panics").as_mut() {
            made.placed.insert(index);
        }
    }

    /// Removes the place, or marks it as kept for the user to look at.
    ///
    /// # Errors
    ///
    /// [`RunError::Disk`] if it cannot be removed or marked.
    pub(super) fn close(self, keep: bool) -> Result<(), RunError> {
        let made = self.made.into_inner().expect("no holder panics");
        let Some(made) = made else { return Ok(()) };
        if keep {
            disk::write_whole(&made.directory.join(KEPT), b"", Durability::Deferred)?;
            Ok(())
        } else {
            Ok(disk::remove_tree(&made.directory)?)
        }
    }

    fn make(&self) -> Result<Made, RunError> {
        let failed = |source: DiskError| RunError::Place { path: self.base.to_owned(), source };
        disk::make_directory(self.base).map_err(failed)?;
        let making = Lock::exclusive(&self.base.join(MAKING)).map_err(failed)?;
        sweep(self.base);
        let directory = tempfile::Builder::new()
            .prefix("run-")
            .tempdir_in(self.base)
            .map_err(DiskError::on("make a directory in", self.base))
            .map_err(failed)?
            .keep();
        // Nothing but a lock tells a place in use from one left behind.
        let lock = Lock::exclusive(&directory.join(LOCK)).map_err(failed)?;
        drop(making);
        let made = Made { directory, _lock: lock, placed: BTreeSet::new() };
        for name in ["tree", "home", "tmp", "log"] {
            disk::make_directory(&made.directory.join(name))?;
        }
        let tree = made.directory.join("tree");
        let laid_out = lay_out(self.view.store(), self.view.snapshot(), &tree, &|_, _| !self.stop.is_requested());
        if let Err(error) = laid_out {
            // The error that matters is the first one.
            drop(disk::remove_tree(&made.directory));
            return Err(error.into());
        }
        Ok(made)
    }
}

/// Returns whether this is an empty directory with the rights of the one that it was made in.
fn is_as_made(path: &Path) -> bool {
    let mode = |path: &Path| fs::symlink_metadata(path).ok().filter(Metadata::is_dir).map(|found| found.mode());
    let own = mode(path);
    own.is_some()
        && own == mode(disk::parent(path))
        && fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// Removes the places of runs that died, and all but the newest that were kept.
///
/// What cannot be removed now is left for the next time. The caller holds the lock [`MAKING`].
fn sweep(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    let mut kept = Vec::new();
    for entry in entries.flatten() {
        let directory = entry.path();
        if !matches!(disk::look(&directory), Ok(Some(disk::Found::Directory))) {
            continue;
        }
        let Ok(Some(_free)) = Lock::try_exclusive(&directory.join(LOCK)) else { continue };
        match fs::metadata(directory.join(KEPT)).and_then(|metadata| metadata.modified()) {
            Ok(time) => kept.push((time, directory)),
            Err(_) => drop(disk::remove_tree(&directory)),
        }
    }
    kept.sort();
    let surplus = kept.len().saturating_sub(KEPT_MAX);
    for (_, directory) in kept.drain(..surplus) {
        drop(disk::remove_tree(&directory));
    }
}
