//! The seam under everything that must survive a crash: effects, one at a time.
//!
//! What the store and the journal write goes through a [`Disk`], so that a test
//! can record every effect, stop before any of them, and play what a power cut
//! may leave. The order of effects is decided above; here each is only done.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::group::{Made, share};
use super::{DiskError, Durability, new_beside, parent, sync_directory, sync_file, sync_file_system, umask};

/// Nobody may write to what never changes.
const PROTECTED_MODE: u32 = 0o444;

/// Does effects on files. A method returns when its effect is done, durable or not.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Returns a new, empty file at `path`, where nothing may be yet, opened for reading and writing.
    ///
    /// # Errors
    ///
    /// [`DiskError`] if something is there or it cannot be made.
    fn create(&self, path: &Path) -> Result<File, DiskError>;

    /// Writes all of `bytes` at the offset `at` of `file`, which was made at `path`.
    ///
    /// # Errors
    ///
    /// [`DiskError`] if not all could be written.
    fn write(&self, file: &File, path: &Path, at: u64, bytes: &[u8]) -> Result<(), DiskError>;

    /// Lets `file`, which was made at `path`, share the bytes of `source`. Returns `false`
    /// where the file system cannot do that, or not for these two.
    ///
    /// # Errors
    ///
    /// [`DiskError`] for any other failure.
    fn share(&self, source: &File, file: &File, path: &Path) -> Result<bool, DiskError>;

    /// Makes durable what was done before.
    ///
    /// # Errors
    ///
    /// [`DiskError`] if the system reports a failed write.
    fn flush(&self, what: Flush<'_>) -> Result<(), DiskError>;

    /// Changes names or modes.
    ///
    /// # Errors
    ///
    /// [`DiskError`] if it cannot be done.
    fn change(&self, change: Change<'_>) -> Result<(), DiskError>;
}

/// What is made durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flush<'a> {
    /// The bytes of a file.
    File(&'a Path),
    /// The entries of a directory.
    Directory(&'a Path),
    /// All that was written to the file system that holds this path.
    FileSystem(&'a Path),
}

/// A change of names or modes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change<'a> {
    /// Makes one directory, whose parent is there; no error if it is there already. In the directory of a
    /// group, it is for the group.
    MakeDirectory(&'a Path),
    /// Moves a file or directory, replacing a file that is at `to`.
    Rename {
        /// From here,
        from: &'a Path,
        /// to there, on the same file system.
        to: &'a Path,
    },
    /// Gives a file one more name on the same file system, where nothing may be yet.
    Link {
        /// The name that it has,
        from: &'a Path,
        /// and the one that it gets.
        to: &'a Path,
    },
    /// Removes a file; no error if there is none.
    Remove(&'a Path),
    /// Removes a directory that is empty; no error if it is not, or is not there.
    RemoveDirectory(&'a Path),
    /// Makes a file read-only.
    Protect(&'a Path),
    /// Gives a file the mode of any new file. In the directory of a group, the group may read it.
    Open(&'a Path),
}

/// The disk itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> Result<File, DiskError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        options.open(path).map_err(DiskError::on("write", path))
    }

    fn write(&self, file: &File, path: &Path, at: u64, bytes: &[u8]) -> Result<(), DiskError> {
        file.write_all_at(bytes, at).map_err(DiskError::on("write", path))
    }

    fn share(&self, source: &File, file: &File, path: &Path) -> Result<bool, DiskError> {
        #[cfg(target_os = "linux")]
        {
            use rustix::io::Errno;
            match rustix::fs::ioctl_ficlone(file, source) {
                Ok(()) => Ok(true),
                // Not this file system, not these two, or not a file that can be shared.
                Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS | Errno::PERM) => {
                    Ok(false)
                }
                Err(error) => Err(DiskError::on("write", path)(error.into())),
            }
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (source, file, path);
            Ok(false)
        }
    }

    fn flush(&self, what: Flush<'_>) -> Result<(), DiskError> {
        match what {
            Flush::File(path) => sync_file(path),
            Flush::Directory(path) => sync_directory(path),
            Flush::FileSystem(path) => sync_file_system(path),
        }
    }

    fn change(&self, change: Change<'_>) -> Result<(), DiskError> {
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(DiskError::on("set the mode of", path))
        };
        match change {
            Change::MakeDirectory(path) => match fs::create_dir(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
                made => made.map(|()| share(path, Made::Directory)).map_err(DiskError::on("make the directory", path)),
            },
            Change::Rename { from, to } => super::rename(from, to),
            Change::Link { from, to } => fs::hard_link(from, to).map_err(DiskError::on("link", to)),
            Change::Remove(path) => match fs::remove_file(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed.map_err(DiskError::on("remove", path)),
            },
            Change::RemoveDirectory(path) => match fs::remove_dir(path) {
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
                    Ok(())
                }
                removed => removed.map_err(DiskError::on("remove", path)),
            },
            Change::Protect(path) => mode(path, PROTECTED_MODE),
            Change::Open(path) => mode(path, 0o666 & !umask()).map(|()| share(path, Made::File)),
        }
    }
}

/// Makes `path` and the directories above it that are missing. Flushes nothing.
///
/// # Errors
///
/// [`DiskError`] if one cannot be made.
pub fn make_directories(disk: &dyn Disk, path: &Path) -> Result<(), DiskError> {
    missing(path).into_iter().try_for_each(|directory| disk.change(Change::MakeDirectory(directory)))
}

/// Returns which of `path` and the directories above it are missing, the topmost first.
fn missing(path: &Path) -> Vec<&Path> {
    let mut missing: Vec<_> =
        path.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.is_dir()).collect();
    missing.reverse();
    missing
}

/// Does what [`super::write_whole`] does, through `disk`.
///
/// # Errors
///
/// [`DiskError`] if any step fails; the old file is then still there, whole.
pub fn write_whole_on(disk: &dyn Disk, path: &Path, bytes: &[u8], durability: Durability) -> Result<(), DiskError> {
    let directory = parent(path);
    let made = missing(directory);
    made.iter().try_for_each(|directory| disk.change(Change::MakeDirectory(directory)))?;
    let create = |temporary: &Path| disk.create(temporary).map_err(|error| error.source);
    let (file, temporary) = new_beside(path, create).map_err(DiskError::on("write", path))?;
    let write = || {
        disk.write(&file, &temporary, 0, bytes)?;
        disk.change(Change::Open(&temporary))?;
        if durability == Durability::Synced {
            disk.flush(Flush::File(&temporary))?;
        }
        disk.change(Change::Rename { from: &temporary, to: path })
    };
    if let Err(error) = write() {
        // The first error is the one to report.
        let _ = disk.change(Change::Remove(&temporary));
        return Err(error);
    }
    match durability {
        // The file is only as safe as the names of the directories on the way to it.
        Durability::Synced => std::iter::once(directory)
            .chain(made.into_iter().rev().map(parent))
            .try_for_each(|directory| disk.flush(Flush::Directory(directory))),
        Durability::Deferred => Ok(()),
    }
}
