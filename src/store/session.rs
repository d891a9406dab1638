//! A place of its own for the temporary files of one open store.
//!
//! `tmp/<process>-<number>/` holds them, and a file `lock` that is locked as
//! long as the session lives. The kernel drops the lock with the process, so
//! a directory whose lock is free is a leftover and is removed when the next
//! session starts. No one ever has to do that by hand.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::disk::{self, Change, Disk, DiskError, Found, Lock};

/// What the files are called that are only locked, and always empty.
pub(super) const LOCK_NAME: &str = "lock";

/// A directory for temporary files that no other session touches.
pub(super) struct Session {
    directory: PathBuf,
    /// How many names were given out.
    names: AtomicU64,
    _alive: Lock,
}

impl Session {
    /// Starts a session below `directory`, and removes the leftovers of dead ones.
    pub(super) fn start(disk: &dyn Disk, directory: &Path) -> Result<Self, DiskError> {
        disk::make_directories(disk, directory)?;
        // Without this lock, a session could be taken for dead between making its directory and locking it.
        let _starting = starting(directory)?;
        remove_dead(directory)?;
        let own = make_new(disk, directory)?;
        let alive = Lock::exclusive(&own.join(LOCK_NAME))?;
        Ok(Self { directory: own, names: AtomicU64::new(0), _alive: alive })
    }

    /// Returns the directory for temporary files.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns a name for a temporary file that no other has.
    pub(super) fn next_name(&self) -> String {
        format!("{}.file", self.names.fetch_add(1, Ordering::Relaxed))
    }

    /// Removes the directory and all that is left in it.
    pub(super) fn end(self) -> Result<(), DiskError> {
        disk::remove_tree(&self.directory)
    }
}

/// Returns a lock in whose time no session starts, so that what is done meanwhile comes before or after each start.
pub(super) fn starting(directory: &Path) -> Result<Lock, DiskError> {
    Lock::exclusive(&directory.join(LOCK_NAME))
}

/// Returns the names of the sessions that are alive. Whoever asks holds the lock on [`starting`].
///
/// One that cannot be looked at (another user's) counts as alive.
pub(super) fn living(directory: &Path) -> Result<BTreeSet<String>, DiskError> {
    let listed = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        listed => listed.map_err(DiskError::on("read", directory))?,
    };
    let mut names = BTreeSet::new();
    for entry in listed {
        let path = entry.map_err(DiskError::on("read", directory))?.path();
        if matches!(disk::look(&path)?, Some(Found::Directory)) && !is_dead(&path) {
            names.extend(path.file_name().and_then(|name| name.to_str()).map(str::to_owned));
        }
    }
    Ok(names)
}

/// Removes the leftovers of dead sessions. One that cannot be removed (another user's) only takes room.
fn remove_dead(directory: &Path) -> Result<(), DiskError> {
    let listed = fs::read_dir(directory).map_err(DiskError::on("read", directory))?;
    for path in listed.flatten().map(|entry| entry.path()) {
        if matches!(disk::look(&path), Ok(Some(Found::Directory))) && is_dead(&path) {
            let _ = disk::remove_tree(&path);
        }
    }
    Ok(())
}

fn is_dead(session: &Path) -> bool {
    let lock = session.join(LOCK_NAME);
    match disk::look(&lock) {
        Ok(Some(_)) => matches!(Lock::try_exclusive(&lock), Ok(Some(_))),
        // It died before it could lock, or is just removing itself.
        Ok(None) => true,
        Err(_) => false,
    }
}

/// Makes a directory named after the process and a number that this process gives out once: a session
/// that is just ending must not take the directory of the next one with it.
fn make_new(disk: &dyn Disk, directory: &Path) -> Result<PathBuf, DiskError> {
    static NUMBERS: AtomicU64 = AtomicU64::new(0);
    let process = std::process::id();
    loop {
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!("{process}-{number}"));
        // Nobody else makes directories here now: the lock on starting is held.
        if disk::look(&path)?.is_none() {
            disk.change(Change::MakeDirectory(&path))?;
            return Ok(path);
        }
    }
}
