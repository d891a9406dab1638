//! Locks of the kernel, which end with the process that holds them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::group::{self, Made};
use super::{DiskError, RealDisk, make_directories, parent};

/// A lock on a file; the kernel releases it when this is dropped or the process dies.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock at `path` if it is free; `None` if another holds it.
    ///
    /// The file is made if it is missing and stays; only the lock on it counts.
    ///
    /// # Errors
    ///
    /// [`DiskError`] if the file cannot be made or the file system has no locks.
    pub fn try_exclusive(path: &Path) -> Result<Option<Self>, DiskError> {
        loop {
            let file = Self::open(path)?;
            match file.try_lock() {
                Ok(()) if is_still_at(&file, path) => return Ok(Some(Self { file, path: path.to_owned() })),
                // Whoever held it has removed the file: the next holder is on a new one.
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) => return Ok(None),
                Err(fs::TryLockError::Error(error)) => return Err(DiskError::on("lock", path)(error)),
            }
        }
    }

    /// Shares the lock at `path` with others who share it; `None` if somebody has it alone.
    ///
    /// # Errors
    ///
    /// As [`Lock::try_exclusive`].
    pub fn try_shared(path: &Path) -> Result<Option<Self>, DiskError> {
        loop {
            let file = Self::open(path)?;
            match file.try_lock_shared() {
                Ok(()) if is_still_at(&file, path) => return Ok(Some(Self { file, path: path.to_owned() })),
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) => return Ok(None),
                Err(fs::TryLockError::Error(error)) => return Err(DiskError::on("lock", path)(error)),
            }
        }
    }

    /// Takes the lock at `path`, waiting for it.
    ///
    /// # Errors
    ///
    /// As [`Lock::try_exclusive`].
    pub fn exclusive(path: &Path) -> Result<Self, DiskError> {
        loop {
            let file = Self::open(path)?;
            file.lock().map_err(DiskError::on("lock", path))?;
            if is_still_at(&file, path) {
                return Ok(Self { file, path: path.to_owned() });
            }
        }
    }

    /// Shares the lock at `path` with others who share it, waiting for whoever has it alone.
    ///
    /// # Errors
    ///
    /// As [`Lock::try_exclusive`].
    pub fn shared(path: &Path) -> Result<Self, DiskError> {
        loop {
            let file = Self::open(path)?;
            file.lock_shared().map_err(DiskError::on("lock", path))?;
            if is_still_at(&file, path) {
                return Ok(Self { file, path: path.to_owned() });
            }
        }
    }

    /// Gives the lock back and removes its file, for locks of which there would be ever more.
    pub fn remove(self) {
        // The file goes while the lock is held; one that cannot be removed does no harm.
        let _ = fs::remove_file(&self.path);
    }

    /// Returns what was noted in the file of the lock last, by this holder or by one before; empty if nothing was.
    ///
    /// # Errors
    ///
    /// [`DiskError`] if it cannot be read.
    pub fn noted(&self) -> Result<Vec<u8>, DiskError> {
        let mut noted = Vec::new();
        let read = (&self.file).seek(SeekFrom::Start(0)).and_then(|_| (&self.file).read_to_end(&mut noted));
        read.map_err(DiskError::on("read", &self.path))?;
        Ok(noted)
    }

    /// Notes a few bytes in the file of the lock, for whoever holds it next, and in place of what was noted before.
    ///
    /// The death of the process leaves them there, or nothing. A power cut may lose them: nothing is flushed.
    ///
    /// # Errors
    ///
    /// [`DiskError`] if they cannot be written.
    pub fn note(&self, bytes: &[u8]) -> Result<(), DiskError> {
        let written = self.file.set_len(0).and_then(|()| self.file.write_all_at(bytes, 0));
        written.map_err(DiskError::on("write", &self.path))
    }

    pub(super) fn open(path: &Path) -> Result<File, DiskError> {
        let opened = match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_directories(&RealDisk, parent(path))?;
                Self::make(path)
            }
            // Another user's, whose directory came to be for a group only later.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => File::open(path),
            opened => opened,
        };
        opened.map_err(DiskError::on("open the lock", path))
    }

    fn make(path: &Path) -> io::Result<File> {
        match OpenOptions::new().read(true).write(true).create_new(true).open(path) {
            // Another was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)
            }
            made => made.inspect(|_| group::share(path, Made::Lock)),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file would do; this makes the moment plain. It cannot fail on a lock that we hold.
        let _ = self.file.unlock();
    }
}

fn is_still_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(there)) => (held.dev(), held.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::look;
    use super::*;

    #[test]
    fn a_lock_is_held_by_one_and_freed_on_drop() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("locks/x");
        let held = Lock::try_exclusive(&path).unwrap().unwrap();
        assert!(Lock::try_exclusive(&path).unwrap().is_none());
        drop(held);
        assert!(Lock::try_exclusive(&path).unwrap().is_some());
    }

    #[test]
    fn what_is_noted_in_a_lock_is_there_for_the_next_holder() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x");
        let first = Lock::exclusive(&path).unwrap();
        assert_eq!(first.noted().unwrap(), b"");
        first.note(b"a long note").unwrap();
        first.note(b"short").unwrap();
        drop(first);
        assert_eq!(Lock::exclusive(&path).unwrap().noted().unwrap(), b"short");
    }

    #[test]
    fn a_lock_whose_file_was_removed_is_held_by_one_all_the_same() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x");
        let counter = std::sync::Mutex::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let lock = Lock::exclusive(&path).unwrap();
                        *counter.try_lock().expect("nobody else is inside") += 1;
                        lock.remove();
                    }
                });
            }
        });
        assert_eq!(*counter.lock().unwrap(), 200);
        assert!(look(&path).unwrap().is_none());
    }
}
