//! Files on disk: whole or not at all, locked by the kernel, walked in order.
//!
//! The one place that writes files and the one door to `walkdir`. Every error
//! names the path and what was tried.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::Timespec;

mod claim;
mod effect;
mod group;
mod lock;
mod map;
#[cfg(test)]
pub(crate) mod recorder;
mod stat;

pub use claim::Claim;
pub use effect::{Change, Disk, Flush, RealDisk, make_directories, write_whole_on};
pub use lock::Lock;
pub use map::{Mapped, map_file};
pub use stat::{Listing, OpenDirectory, Stat, stat};

/// Something that could not be done to a file or a directory.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`", path.display())]
pub struct DiskError {
    /// What was tried: a verb, such as `read`.
    pub action: &'static str,
    /// To what.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl DiskError {
    /// Returns a function that makes a [`DiskError`] from what the system said.
    pub fn on(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { action, path, source }
    }

    /// Returns whether this user may not do it, or nobody on this file system.
    pub fn is_refused(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
    }

    /// Returns whether the file or directory is simply not there.
    pub fn is_missing(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Whether a write must survive a power cut before it is reported as done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// File and directory are flushed before the call returns.
    Synced,
    /// The caller flushes later ([`sync_file_system`]), or can do without.
    Deferred,
}

/// Writes `bytes` to `path`, replacing what is there: a reader sees the old or the new, never a part.
///
/// Makes missing parent directories. The temporary file lies in the same directory.
///
/// # Errors
///
/// [`DiskError`] if any step fails; the old file is then still there, whole.
pub fn write_whole(path: &Path, bytes: &[u8], durability: Durability) -> Result<(), DiskError> {
    write_whole_on(&RealDisk, path, bytes, durability)
}

/// Writes what `fill` gives it to a new file and moves that to `path`, replacing a file or link that is there.
///
/// The file appears whole or not at all; a link at `path` is replaced, never
/// followed. Makes missing directories above. Its mode is that of any new file,
/// with the right to execute it for those who may read it if it is `executable`. Flushes nothing.
///
/// # Errors
///
/// What `fill` says, or a [`DiskError`]; what was at `path` is then still there.
pub fn write_out<E: From<DiskError>>(
    path: &Path,
    executable: bool,
    fill: impl FnOnce(&mut File) -> Result<(), E>,
) -> Result<(), E> {
    // The system takes the umask from the mode, which saves a call for each file.
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(if executable { 0o777 } else { 0o666 });
    let open = || new_beside(path, |temporary| options.open(temporary));
    let opened = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_directory(parent(path))?;
            open()
        }
        opened => opened,
    };
    let (mut file, temporary) = opened.map_err(DiskError::on("write", path))?;
    let written = fill(&mut file).and_then(|()| Ok(rename(&temporary, path)?));
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Lets `path` be another name of the file at `from`, replacing a file or link that is there. Returns whether
/// the file system could: it must be one for both, and have such names.
///
/// Makes missing directories above. Flushes nothing.
///
/// # Errors
///
/// [`DiskError`] for any failure that is not of that sort.
pub fn link_out(from: &Path, path: &Path) -> Result<bool, DiskError> {
    make_directory(parent(path))?;
    match new_beside(path, |temporary| fs::hard_link(from, temporary)) {
        Ok(((), temporary)) => rename(&temporary, path).map(|()| {
            // Two names of one file are not exchanged by a rename, which then does nothing.
            let _ = fs::remove_file(&temporary);
            true
        }),
        Err(error) => match error.kind() {
            io::ErrorKind::CrossesDevices
            | io::ErrorKind::Unsupported
            | io::ErrorKind::TooManyLinks
            | io::ErrorKind::PermissionDenied => Ok(false),
            _ => Err(DiskError::on("link", path)(error)),
        },
    }
}

/// Writes `bytes` to `path`, durably, unless something is there. Returns whether nothing was.
///
/// Of several that do so at once, one does. A reader sees all or nothing; on a file system without hard links it may
/// see a part for a moment. Makes missing directories above, and flushes their names no further than the parent's.
///
/// # Errors
///
/// [`DiskError`] if it cannot be written.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<bool, DiskError> {
    make_directory(parent(path))?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o666);
    let failed = || DiskError::on("write", path);
    let fill = |mut file: File| file.write_all(bytes).and_then(|()| file.sync_all());
    let (file, temporary) = new_beside(path, |temporary| options.open(temporary)).map_err(failed())?;
    let linked = fill(file).and_then(|()| fs::hard_link(&temporary, path));
    // Once it is linked this is one name too many, and else it is of no use.
    let _ = fs::remove_file(&temporary);
    let written = match linked {
        Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied) => {
            options.open(path).and_then(fill)
        }
        linked => linked,
    };
    match written {
        Ok(()) => sync_directory(parent(path)).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed()(error)),
    }
}

/// Opens a new temporary file in the directory of `path` with `open`, and returns it with its name.
///
/// The name begins with a dot, so that whoever lists the directory knows it for what it is.
fn new_beside<T>(path: &Path, mut open: impl FnMut(&Path) -> io::Result<T>) -> io::Result<(T, PathBuf)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let temporary = parent(path).join(format!(".pv-{}-{number}.tmp", std::process::id()));
        match open(&temporary) {
            // Left behind by a dead process of the same number, or by one that counts from another namespace.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            opened => return Ok((opened?, temporary)),
        }
    }
}

/// Returns whether `path` is a file as this process would make it now: its own, under one name, with the mode of any new
/// file and nothing attached to it.
pub fn is_as_new(path: &Path, executable: bool) -> bool {
    let Ok(found) = fs::symlink_metadata(path) else { return false };
    let mode = (if executable { 0o777 } else { 0o666 }) & !umask();
    let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let is_usual = found.is_file() && found.nlink() == 1 && found.mode() & 0o7777 == mode;
    let mut none: [u8; 0] = [];
    is_usual && (found.uid(), found.gid()) == owner && matches!(rustix::fs::llistxattr(path, &mut none), Ok(0))
}

/// Moves the file at `from` to `path`, replacing a file or link that is there. Returns whether the file system could:
/// it must be one for both, and a directory that gives what is made in it to a group gives it nothing that is moved there.
/// The file counts as written now, as if it had been copied.
///
/// # Errors
///
/// [`DiskError`] if it cannot be moved for another reason.
pub fn move_out(from: &Path, path: &Path) -> Result<bool, DiskError> {
    if fs::metadata(parent(path)).is_ok_and(|above| above.mode() & 0o2000 != 0) {
        return Ok(false);
    }
    let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
    let touched = rustix::fs::utimensat(rustix::fs::CWD, from, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
    match touched.map_err(io::Error::from).and_then(|()| fs::rename(from, path)) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::CrossesDevices | io::ErrorKind::NotFound) => Ok(false),
        Err(error) => Err(DiskError::on("replace", path)(error)),
    }
}

/// Returns whether a file of this name is one that is written to before it is moved to the name that it is for.
pub fn is_temporary(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b".pv-") && name.ends_with(b".tmp")
}

/// Returns a new, empty file at `path`, replacing what is there: for what is watched while it grows, such as a log.
///
/// Makes missing parent directories.
///
/// # Errors
///
/// [`DiskError`] if it cannot be made.
pub fn create(path: &Path) -> Result<File, DiskError> {
    make_directory(parent(path))?;
    File::create(path).map_err(DiskError::on("write", path))
}

/// Reads the whole file at `path`, or returns `None` if there is none.
///
/// # Errors
///
/// [`DiskError`] for any failure but absence.
pub fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, DiskError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(DiskError::on("read", path)(error)),
    }
}

/// Makes `path` and the directories above it, if they are missing.
///
/// # Errors
///
/// [`DiskError`] if one cannot be made.
pub fn make_directory(path: &Path) -> Result<(), DiskError> {
    fs::create_dir_all(path).map_err(DiskError::on("make the directory", path))
}

/// Moves the file at `from` to `to` on the same file system, replacing what is there. Flushes nothing.
///
/// # Errors
///
/// [`DiskError`] if it cannot be moved; both are then as they were.
pub fn rename(from: &Path, to: &Path) -> Result<(), DiskError> {
    fs::rename(from, to).map_err(DiskError::on("write", to))
}

/// Returns how many bytes the files below a directory have, as far as they can be seen. Costs a listing of it.
pub fn bytes_below(directory: &Path) -> u64 {
    let size = |found| if let Found::File { size, .. } = found { size } else { 0 };
    walk(directory).flatten().map(|(_, found)| size(found)).sum()
}

/// Flushes the bytes of a file that was written and closed before.
///
/// # Errors
///
/// [`DiskError`] if the file cannot be opened or flushed.
pub fn sync_file(path: &Path) -> Result<(), DiskError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(DiskError::on("flush", path))
}

/// Flushes the entries of a directory.
///
/// # Errors
///
/// [`DiskError`] if the directory cannot be opened or flushed.
pub fn sync_directory(path: &Path) -> Result<(), DiskError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(DiskError::on("flush", path))
}

/// Flushes everything that was written to the file system that holds `path`.
///
/// One call for any number of files; far cheaper than one flush each.
///
/// # Errors
///
/// [`DiskError`] if `path` cannot be opened or the system reports a failed write.
pub fn sync_file_system(path: &Path) -> Result<(), DiskError> {
    let flush = || -> io::Result<()> {
        let directory = File::open(path)?;
        #[cfg(target_os = "linux")]
        rustix::fs::syncfs(directory.as_fd())?;
        #[cfg(not(target_os = "linux"))]
        {
            let _ = directory;
            rustix::fs::sync();
        }
        Ok(())
    };
    flush().map_err(DiskError::on("flush", path))
}

/// Lets the system drop from memory what it has cached of a file and what is safe on disk.
///
/// Advice, which may be ignored: for files so large that they would only push
/// others out. Where a disk is written faster than memory is found for the
/// cache, this also makes writing faster.
pub fn forget_cached(file: &File) {
    #[cfg(target_os = "linux")]
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// Lets the system begin to write a part of a file to the disk, so that less is left to flush. Waits for nothing.
///
/// Advice, which may be ignored. Given right after the part was written: of one that is on the disk already it would
/// also drop what is cached.
pub fn begin_flush(file: &File, at: u64, length: usize) {
    #[cfg(target_os = "linux")]
    let _ = rustix::fs::fadvise(file, at, std::num::NonZeroU64::new(length as u64), rustix::fs::Advice::DontNeed);
    #[cfg(not(target_os = "linux"))]
    let _ = (file, at, length);
}

/// Removes `path` and everything below it, also read-only directories. Absence is no error.
///
/// # Errors
///
/// [`DiskError`] if something cannot be removed.
pub fn remove_tree(path: &Path) -> Result<(), DiskError> {
    let result = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path).or_else(|error| {
            // Somebody else removed it, and what is there by now may be another's.
            if error.kind() == io::ErrorKind::NotFound {
                return Err(error);
            }
            open_up(path);
            fs::remove_dir_all(path)
        }),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DiskError::on("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Asks the file system to put the directories in `path`, with all that is in them, far from each other. It may not know how.
///
/// ext4 steps over every file that was removed nearby within some minutes when it makes one, so a
/// directory that comes where another has just been removed would be slow to fill.
pub fn spread(path: &Path) {
    #[cfg(target_os = "linux")]
    if let Ok(directory) = File::open(path)
        && let Ok(flags) = rustix::fs::ioctl_getflags(&directory)
        && !flags.contains(rustix::fs::IFlags::TOPDIR)
    {
        let _ = rustix::fs::ioctl_setflags(&directory, flags | rustix::fs::IFlags::TOPDIR);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = path;
}

/// Gives the owner back the right to empty `path` and every directory below it.
fn open_up(path: &Path) {
    // What still cannot be removed is reported by the caller's second try.
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    // Only now can be seen what is in it.
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

/// What a walk came across.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// A regular file.
    File {
        /// Whether its owner may execute it.
        executable: bool,
        /// Length in bytes.
        size: u64,
    },
    /// A symbolic link.
    Symlink,
    /// A directory.
    Directory,
    /// A socket, pipe or device.
    Other,
}

impl Found {
    /// Returns what the metadata (not followed) describes.
    pub fn from_metadata(metadata: &fs::Metadata) -> Self {
        let kind = metadata.file_type();
        if kind.is_file() {
            Self::File { executable: metadata.mode() & 0o100 != 0, size: metadata.len() }
        } else if kind.is_symlink() {
            Self::Symlink
        } else if kind.is_dir() {
            Self::Directory
        } else {
            Self::Other
        }
    }
}

/// Returns what is at `path` itself, not followed; `None` if nothing is.
///
/// # Errors
///
/// [`DiskError`] for any failure but absence.
pub fn look(path: &Path) -> Result<Option<Found>, DiskError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(Found::from_metadata(&metadata))),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(DiskError::on("look at", path)(error)),
    }
}

/// Returns everything below `root`, `root` itself left out, each directory before what is in it, names in the order of their bytes.
///
/// Links are not followed, except that `root` itself may be one.
///
/// # Errors
///
/// Each item is a [`DiskError`] where a directory or file cannot be looked at.
pub fn walk(root: &Path) -> impl Iterator<Item = Result<(PathBuf, Found), DiskError>> {
    walkdir::WalkDir::new(root).min_depth(1).follow_root_links(true).sort_by_file_name().into_iter().map(|entry| {
        let failed = |error: walkdir::Error| DiskError {
            action: "look at",
            path: error.path().unwrap_or(Path::new("")).to_owned(),
            source: error.into(),
        };
        let entry = entry.map_err(failed)?;
        let found = Found::from_metadata(&entry.metadata().map_err(failed)?);
        Ok((entry.into_path(), found))
    })
}

/// Returns the directory that `path` lies in.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Returns the process's umask. Read once from the kernel's own account of the process where there is one.
///
/// What changes the mask for a moment calls this first, so that nobody learns the changed one.
pub fn umask() -> u32 {
    use std::sync::OnceLock;
    static UMASK: OnceLock<u32> = OnceLock::new();
    *UMASK.get_or_init(|| {
        fs::read_to_string("/proc/self/status")
            .ok()
            .and_then(|status| {
                let line = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
                u32::from_str_radix(line.trim(), 8).ok()
            })
            .unwrap_or(0o022)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_replaces_the_whole_file_and_makes_its_directory() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b/file");
        write_whole(&path, b"long first content", Durability::Synced).unwrap();
        write_whole(&path, b"short", Durability::Deferred).unwrap();
        assert_eq!(read_if_there(&path).unwrap().unwrap(), b"short");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
        assert_eq!(read_if_there(&root.path().join("none")).unwrap(), None);
    }

    #[test]
    fn a_walk_is_in_order_and_does_not_follow_links() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("b/deep")).unwrap();
        for name in ["b/z", "b/deep/y", "a", "c"] {
            write_whole(&root.path().join(name), name.as_bytes(), Durability::Deferred).unwrap();
        }
        std::os::unix::fs::symlink("b", root.path().join("l")).unwrap();
        let seen: Vec<_> = walk(root.path())
            .map(|entry| entry.unwrap().0.strip_prefix(root.path()).unwrap().display().to_string())
            .collect();
        assert_eq!(seen, ["a", "b", "b/deep", "b/deep/y", "b/z", "c", "l"]);
    }

    #[test]
    fn a_tree_with_read_only_directories_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("t/locked");
        fs::create_dir_all(&inner).unwrap();
        write_whole(&inner.join("f"), b"x", Durability::Deferred).unwrap();
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o500)).unwrap();
        remove_tree(&root.path().join("t")).unwrap();
        remove_tree(&root.path().join("t")).unwrap();
        assert!(look(&root.path().join("t")).unwrap().is_none());
    }
}
