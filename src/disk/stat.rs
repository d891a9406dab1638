//! What tells the state of a file without reading it, and the listing of directories with it.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::{DiskError, Found};

/// A directory is listed in pieces of this size.
const LISTING_BYTES: usize = 32 * 1024;

/// What tells one state of a file from another. Two that are equal are the same file in the same state, but for writes
/// so close to each other that they have the same times.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stat {
    /// Length in bytes.
    pub size: u64,
    /// When its content was last modified, in nanoseconds since 1970; a program can set it.
    pub modified_ns: i64,
    /// When anything of it was last changed, in nanoseconds since 1970; nobody can set it.
    pub changed_ns: i64,
    /// Its number in the file system.
    pub inode: u64,
    /// Its file system.
    pub device: u64,
    /// Its kind and mode bits.
    pub mode: u32,
}

impl Stat {
    fn of(stat: &rustix::fs::Stat) -> Self {
        // The types of these differ between systems.
        let time = |seconds: i64, nanoseconds: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds);
        Self {
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            modified_ns: time(signed(stat.st_mtime), signed(stat.st_mtime_nsec)),
            changed_ns: time(signed(stat.st_ctime), signed(stat.st_ctime_nsec)),
            inode: stat.st_ino,
            device: stat.st_dev,
            mode: stat.st_mode,
        }
    }

    /// Returns what it is.
    pub fn found(&self) -> Found {
        match FileType::from_raw_mode(self.mode) {
            FileType::RegularFile => Found::File { executable: self.mode & 0o100 != 0, size: self.size },
            FileType::Symlink => Found::Symlink,
            FileType::Directory => Found::Directory,
            _ => Found::Other,
        }
    }
}

/// Returns a number of the system, which has one type here and another there.
fn signed<T: TryInto<i64>>(number: T) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// Returns the state of what is at `path` itself, not followed; `None` if nothing is.
///
/// # Errors
///
/// [`DiskError`] for any failure but absence.
pub fn stat(path: &Path) -> Result<Option<Stat>, DiskError> {
    match rustix::fs::lstat(path) {
        Ok(stat) => Ok(Some(Stat::of(&stat))),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        Err(error) => Err(DiskError::on("look at", path)(error.into())),
    }
}

/// A directory that is open, so that what is in it is reached without going through all that is above it.
#[derive(Debug)]
pub struct OpenDirectory(OwnedFd);

/// The names in a directory.
#[derive(Default, Debug)]
pub struct Listing {
    /// All of them, one after the other.
    names: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Listing {
    /// Returns the names, sorted by their bytes.
    pub fn names(&self) -> Vec<&[u8]> {
        let mut start = 0;
        let one = |end: &usize| &self.names[std::mem::replace(&mut start, *end)..*end];
        let mut names: Vec<_> = self.ends.iter().map(one).collect();
        names.sort_unstable();
        names
    }
}

impl OpenDirectory {
    /// Opens the directory at `path`, which may be a link to one.
    ///
    /// # Errors
    ///
    /// [`DiskError`] if it cannot be opened.
    pub fn at(path: &Path) -> Result<Self, DiskError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(path, flags, Mode::empty());
        opened.map(Self).map_err(|error| DiskError::on("look at", path)(error.into()))
    }

    /// Opens a directory in it, which may be no link. `path` is where that is, for errors.
    ///
    /// # Errors
    ///
    /// As [`OpenDirectory::at`].
    pub fn below(&self, name: &[u8], path: &Path) -> Result<Self, DiskError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = rustix::fs::openat(&self.0, OsStr::from_bytes(name), flags, Mode::empty());
        opened.map(Self).map_err(|error| DiskError::on("look at", path)(error.into()))
    }

    /// Returns what is in it. `path` is where it is, for errors.
    ///
    /// # Errors
    ///
    /// [`DiskError`] if it cannot be read.
    pub fn list(&self, path: &Path) -> Result<Listing, DiskError> {
        let failed = |error: rustix::io::Errno| DiskError::on("look at", path)(error.into());
        let mut found = Listing::default();
        let mut buffer = Vec::with_capacity(LISTING_BYTES);
        let mut listing = rustix::fs::RawDir::new(self.0.as_fd(), buffer.spare_capacity_mut());
        while let Some(entry) = listing.next() {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                found.names.extend_from_slice(name);
                found.ends.push(found.names.len());
            }
        }
        Ok(found)
    }

    /// Returns the state of what has this name in it, not followed.
    ///
    /// # Errors
    ///
    /// [`DiskError`] naming it below `path`, also if it is not there any more.
    pub fn stat(&self, name: &[u8], path: &Path) -> Result<Stat, DiskError> {
        let name = OsStr::from_bytes(name);
        let found = rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW);
        found.map(|stat| Stat::of(&stat)).map_err(|error| DiskError::on("look at", &path.join(name))(error.into()))
    }
}
