//! The base checkout: the files of a snapshot, laid out once and kept, that steps see below their own layers.
//!
//! No step can write to it, so it stays what it is; the next run changes only
//! what differs between its snapshot and that one. What a base holds is
//! written beside it, and taken away while it is being changed: one without is begun anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::RunError;
use crate::disk::{self, Durability, Lock};
use crate::exec::Stop;
use crate::host::Time;
use crate::object::{DataRoot, Snapshot, SnapshotId};
use crate::path::ProjectPath;
use crate::snapshot::{Change, View, changes, data_entry, lay_out, place_entry};

/// The directory of a base with the files.
const TREE: &str = "tree";
/// The file of a base that says what it holds.
const HOLDS: &str = "holds";
/// Held by everybody who uses a base, alone by who changes it.
const LOCK: &str = "lock";
const PREFIX: &str = "base-";
/// How many bases that nobody uses are kept.
const IDLE_MAX: usize = 2;

/// A base that holds the files of a snapshot for as long as this is alive.
pub(super) struct Base {
    directory: PathBuf,
    _lock: Lock,
}

impl Base {
    /// Returns a base below `places` that holds the files of `view`: one that does, one that is changed, or a new one.
    ///
    /// The caller holds the lock under which places are made. Costs as much as differs from the best base at hand.
    ///
    /// # Errors
    ///
    /// [`RunError`] if it cannot be laid out or `stop` is requested.
    pub(super) fn take(view: &View<'_>, places: &Path, stop: &Stop) -> Result<Self, RunError> {
        let wanted = view.snapshot();
        let bases = list(places)?;
        for directory in &bases {
            if holds(directory).is_some_and(|held| is_same(&held, wanted))
                && let Some(lock) = Lock::try_shared(&directory.join(LOCK))?
            {
                lock.note(now().as_bytes())?;
                return Ok(Self { directory: directory.clone(), _lock: lock });
            }
        }
        let mut free = None;
        for directory in bases {
            if let Some(lock) = Lock::try_exclusive(&directory.join(LOCK))? {
                free = Some((directory, lock));
                break;
            }
        }
        let (directory, lock) = match free {
            Some(free) => free,
            None => {
                let directory = new_directory(places)?;
                let lock = Lock::exclusive(&directory.join(LOCK))?;
                (directory, lock)
            }
        };
        bring_to(&directory, view, stop)?;
        // Nobody else can take it in between: they would need the lock under which places are made.
        drop(lock);
        let lock = Lock::try_shared(&directory.join(LOCK))?;
        let lock = lock.ok_or_else(|| RunError::Place {
            path: directory.clone(),
            source: disk::DiskError::on("lock", &directory)(std::io::ErrorKind::WouldBlock.into()),
        })?;
        lock.note(now().as_bytes())?;
        Ok(Self { directory, _lock: lock })
    }

    /// Returns a base below `places` that holds the files of this very snapshot, if there is one. Neither needs the store.
    ///
    /// The caller holds the lock under which places are made.
    ///
    /// # Errors
    ///
    /// [`RunError::Disk`] if the bases cannot be listed or locked.
    pub(super) fn of(snapshot: SnapshotId, places: &Path) -> Result<Option<Self>, RunError> {
        for directory in list(places)? {
            if holds(&directory).is_some_and(|held| held.encode().0 == snapshot)
                && let Some(lock) = Lock::try_shared(&directory.join(LOCK))?
            {
                return Ok(Some(Self { directory, _lock: lock }));
            }
        }
        Ok(None)
    }

    /// Returns the directory with the files.
    pub(super) fn tree(&self) -> PathBuf {
        self.directory.join(TREE)
    }
}

/// Removes bases that are of no use, and all but a few that nobody uses. What cannot be removed is left for the next time.
pub(super) fn sweep(places: &Path) {
    let Ok(bases) = list(places) else { return };
    let mut idle = Vec::new();
    for directory in bases {
        let Ok(Some(_free)) = Lock::try_exclusive(&directory.join(LOCK)) else { continue };
        match fs::metadata(directory.join(HOLDS)).and_then(|metadata| metadata.modified()) {
            Ok(time) => idle.push((time, directory)),
            Err(_) => drop(disk::remove_tree(&directory)),
        }
    }
    idle.sort();
    let surplus = idle.len().saturating_sub(IDLE_MAX);
    for (_, directory) in idle.drain(..surplus) {
        drop(disk::remove_tree(&directory));
    }
}

/// Returns the bases that nobody uses, each with the lock that keeps it so and the time when somebody last began to.
///
/// The caller holds the lock under which places are made.
///
/// # Errors
///
/// [`RunError::Disk`] if they cannot be listed or locked.
pub(super) fn idle(places: &Path) -> Result<Vec<(PathBuf, Lock, Time)>, RunError> {
    let mut idle = Vec::new();
    for directory in list(places)? {
        if let Some(lock) = Lock::try_exclusive(&directory.join(LOCK))? {
            let since = time_in(&lock.noted()?);
            idle.push((directory, lock, since));
        }
    }
    Ok(idle)
}

/// Returns the time now as it is noted.
pub(super) fn now() -> String {
    Time::now().epoch_ms.to_string()
}

/// Returns the time that was noted; where none was, one long ago.
pub(super) fn time_in(noted: &[u8]) -> Time {
    let epoch_ms = std::str::from_utf8(noted).ok().and_then(|text| text.parse().ok());
    Time { epoch_ms: epoch_ms.unwrap_or(i64::MIN) }
}

/// Returns the bases, the one that was brought up to date last first.
fn list(places: &Path) -> Result<Vec<PathBuf>, RunError> {
    let entries = fs::read_dir(places).map_err(disk::DiskError::on("list", places))?;
    let mut bases = Vec::new();
    for entry in entries {
        let entry = entry.map_err(disk::DiskError::on("list", places))?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            let time = fs::metadata(entry.path().join(HOLDS)).and_then(|metadata| metadata.modified()).ok();
            bases.push((time, entry.path()));
        }
    }
    bases.sort();
    Ok(bases.into_iter().rev().map(|(_, path)| path).collect())
}

fn new_directory(places: &Path) -> Result<PathBuf, RunError> {
    let made = tempfile::Builder::new().prefix(PREFIX).tempdir_in(places);
    Ok(made.map_err(disk::DiskError::on("make a directory in", places))?.keep())
}

/// Returns the snapshot whose files a base holds.
fn holds(directory: &Path) -> Option<Snapshot> {
    Snapshot::decode(&disk::read_if_there(&directory.join(HOLDS)).ok()??).ok()
}

fn is_same(one: &Snapshot, other: &Snapshot) -> bool {
    one.tree == other.tree && one.data == other.data
}

/// Makes the base at `directory` hold what is wanted. The caller has it alone.
fn bring_to(directory: &Path, view: &View<'_>, stop: &Stop) -> Result<(), RunError> {
    let before = holds(directory);
    disk::remove_tree(&directory.join(HOLDS))?;
    let changed = before.is_some_and(|before| change(directory, view, &before, stop).is_ok());
    if !changed {
        // What cannot be changed, because what it held is no longer known or somebody has meddled, is laid out anew.
        let tree = directory.join(TREE);
        disk::remove_tree(&tree)?;
        lay_out(view.store(), view.snapshot(), &tree, &|_, _| !stop.is_requested())?;
    }
    Ok(disk::write_whole(&directory.join(HOLDS), &view.snapshot().encode().1, Durability::Deferred)?)
}

/// Changes a base that holds the files of `before` to those of `view`.
fn change(directory: &Path, view: &View<'_>, before: &Snapshot, stop: &Stop) -> Result<(), RunError> {
    let store = view.store();
    let tree = directory.join(TREE);
    let mut found: Vec<Change> = Vec::new();
    changes(store, Some(before.tree), Some(view.snapshot().tree), None, &mut |change| found.push(change))?;
    let roots = |snapshot: &Snapshot| -> BTreeMap<ProjectPath, DataRoot> { snapshot.data.iter().cloned().collect() };
    let (old, new) = (roots(before), roots(view.snapshot()));
    for (path, data) in &old {
        match (data, new.get(path)) {
            (_, now) if now == Some(data) => {}
            (DataRoot::Directory { id: old, .. }, Some(DataRoot::Directory { id: new, .. })) => {
                changes(store, Some(*old), Some(*new), Some(path), &mut |change| found.push(change))?;
            }
            (_, now) => found.push(Change { path: path.clone(), old: None, new: now.map(data_entry) }),
        }
    }
    for (path, data) in new.iter().filter(|(path, _)| !old.contains_key(*path)) {
        found.push(Change { path: path.clone(), old: None, new: Some(data_entry(data)) });
    }
    // First what goes, so that a file may come where a directory was, and the other way round.
    let (gone, come): (Vec<_>, Vec<_>) = found.iter().partition(|change| change.new.is_none());
    for change in &gone {
        disk::remove_tree(&change.path.under(&tree))?;
    }
    for change in come {
        if let Some(entry) = &change.new {
            place_entry(store, &tree, &change.path, entry, &|_, _| !stop.is_requested())?;
        }
    }
    gone.into_iter().try_for_each(|change| prune(view, &tree, &change.path))
}

/// Removes the directories above `path` that are empty and that the snapshot does not have.
fn prune(view: &View<'_>, tree: &Path, path: &ProjectPath) -> Result<(), RunError> {
    let mut directory = path.parent();
    while let Some(path) = directory {
        let wanted = view.entry(&path)?.is_some() || view.data_below(&path).next().is_some();
        if wanted || fs::remove_dir(path.under(tree)).is_err() {
            return Ok(());
        }
        directory = path.parent();
    }
    Ok(())
}
