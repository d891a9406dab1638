//! A place of its own for the temporary files of one open store.
//!
//! `tmp/<process>-<number>/` holds them. Beside it, `<process>-<number>.lock` is
//! locked before the directory is made and for as long as the session lives. The
//! kernel drops the lock with the process, so a directory whose lock is free is a
//! leftover and is removed when the next session starts. No one ever has to do
//! that by hand. No session waits for another, not even for one whose process is
//! stopped in the middle: what is held by somebody is left to them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::disk::{self, Change, Disk, DiskError, Found, Lock};

/// What the file is called that is locked while a session starts, and always empty.
const LOCK_NAME: &str = "lock";

/// The end of the name of a session's own lock.
const ALIVE_EXTENSION: &str = "lock";

/// A directory for temporary files that no other session touches.
pub(super) struct Session {
    directory: PathBuf,
    /// How many names were given out.
    names: AtomicU64,
    alive: Lock,
}

impl Session {
    /// Starts a session below `directory`, and removes the leftovers of dead ones.
    ///
    /// Waits for whoever keeps all sessions from [`starting`], and for no other session.
    pub(super) fn start(disk: &dyn Disk, directory: &Path) -> Result<Self, DiskError> {
        disk::make_directories(disk, directory)?;
        let _starting = Lock::shared(&directory.join(LOCK_NAME))?;
        remove_dead(directory)?;
        let (own, alive) = make_new(disk, directory)?;
        Ok(Self { directory: own, names: AtomicU64::new(0), alive })
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
        disk::remove_tree(&self.directory)?;
        self.alive.remove();
        Ok(())
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
        let session = match disk::look(&path) {
            Ok(Some(Found::Directory)) => path,
            // Its directory may be gone, or was never made.
            Ok(Some(Found::File { .. })) if path.extension() == Some(ALIVE_EXTENSION.as_ref()) => {
                path.with_extension("")
            }
            _ => continue,
        };
        // Held until all is gone: whoever gives itself this name in the meantime takes another.
        if let Ok(Some(dead)) = Lock::try_exclusive(&alive_lock(&session))
            && disk::remove_tree(&session).is_ok()
        {
            dead.remove();
        }
    }
    Ok(())
}

/// Returns whether a file of this name is one that sessions only lock.
pub(super) fn is_lock(name: &OsStr) -> bool {
    name == LOCK_NAME || Path::new(name).extension() == Some(ALIVE_EXTENSION.as_ref())
}

/// Returns where the lock of a session is that says whether it is alive.
fn alive_lock(session: &Path) -> PathBuf {
    session.with_extension(ALIVE_EXTENSION)
}

fn is_dead(session: &Path) -> bool {
    let lock = alive_lock(session);
    match disk::look(&lock) {
        Ok(Some(_)) => matches!(Lock::try_exclusive(&lock), Ok(Some(_))),
        // Removed halfway by somebody who died.
        Ok(None) => true,
        Err(_) => false,
    }
}

/// Makes a directory named after the process and a number that this process gives out once, and the lock beside it:
/// a session that is just ending must not take the directory of the next one with it.
fn make_new(disk: &dyn Disk, directory: &Path) -> Result<(PathBuf, Lock), DiskError> {
    static NUMBERS: AtomicU64 = AtomicU64::new(0);
    let process = std::process::id();
    loop {
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!("{process}-{number}"));
        // Another has it: a process of this number on another machine, or one that removes what is left of a dead one.
        let Some(alive) = Lock::try_exclusive(&alive_lock(&path))? else { continue };
        // The lock says that nobody else makes this one now.
        if disk::look(&path)?.is_none() {
            disk.change(Change::MakeDirectory(&path))?;
            return Ok((path, alive));
        }
    }
}
