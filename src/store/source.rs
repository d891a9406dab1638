//! Where the bytes of an object come from: memory, or a file that must hold still.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use super::{StoreError, pass_on};
use crate::hash::Digest;
use crate::object::Kind;

/// A file that changed while it was read is read this many times more.
const RETRIES_MAX: u32 = 3;

/// Where the bytes of an object come from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// The bytes of the file at this path. A link is followed.
    File(&'a Path),
}

impl<'a> Source<'a> {
    /// Returns the digest that names the bytes as an object of this kind, and their number. Holds no more than a buffer.
    pub(super) fn digest(self, kind: Kind) -> Result<(Digest, u64), StoreError> {
        match self {
            Self::Bytes(bytes) => Ok((kind.digest(bytes), bytes.len() as u64)),
            Self::File(path) => steady(path, |file, _| digest_of(kind, file, path).map(Some)),
        }
    }

    /// Returns all the bytes.
    pub(super) fn bytes(self) -> Result<Cow<'a, [u8]>, StoreError> {
        match self {
            Self::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
            Self::File(path) => steady(path, |file, size| read(file, size, path).map(Some)).map(Cow::Owned),
        }
    }
}

/// Returns what `act` makes of the file at `path`, provided that the file did not change meanwhile.
///
/// `act` is given the open file and its length in bytes, and returns `None` if it saw a change
/// itself; it is called again after a change, [`RETRIES_MAX`] times at most.
pub(super) fn steady<T>(
    path: &Path,
    mut act: impl FnMut(&File, u64) -> Result<Option<T>, StoreError>,
) -> Result<T, StoreError> {
    for _ in 0..=RETRIES_MAX {
        let file = open(path)?;
        let before = Stamp::of(&file, path)?;
        let outcome = act(&file, before.size_bytes)?;
        if let Some(outcome) = outcome
            && Stamp::of(&file, path)? == before
        {
            return Ok(outcome);
        }
    }
    Err(StoreError::Changed { path: path.to_owned() })
}

/// Returns the digest and the length of `file` as an object of this kind.
///
/// Reads it in pieces and not from a memory map: the file may be shortened at
/// any moment, which would kill a process that has it mapped.
pub(super) fn digest_of(kind: Kind, file: &File, path: &Path) -> Result<(Digest, u64), StoreError> {
    let mut hasher = kind.hasher();
    pass_on(
        file,
        |source| unreadable(path, source),
        |piece| {
            hasher.update(piece);
            Ok(())
        },
    )?;
    Ok(hasher.finish())
}

/// Opens the source file at `path`. A pipe is opened without waiting for its other end.
///
/// Reading does not count as an access where the file is the user's own: else the first
/// reading of every file that was written would write to the disk, too.
pub(super) fn open(path: &Path) -> Result<File, StoreError> {
    let open = |flags: OFlags| {
        let flags = i32::try_from(flags.bits()).expect("flags of the system");
        OpenOptions::new().read(true).custom_flags(flags).open(path)
    };
    #[cfg(target_os = "linux")]
    match open(OFlags::NONBLOCK | OFlags::NOATIME) {
        // Only the owner may ask for that.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        opened => return opened.map_err(|source| unreadable(path, source)),
    }
    open(OFlags::NONBLOCK).map_err(|source| unreadable(path, source))
}

/// Reads `size` bytes of `file`, or fewer if it ends before; whether it goes on behind them, its [`Stamp`] tells.
///
/// Costs one call to the system where the file is what it says.
pub(super) fn read(file: &File, size: u64, path: &Path) -> Result<Vec<u8>, StoreError> {
    // What claims to be empty is read all the same: some file systems make up their files as they are read.
    let wanted = size.max(1);
    let mut bytes = Vec::with_capacity(usize::try_from(wanted).unwrap_or_default());
    // Behind the limit it needs no call to see the end.
    file.take(wanted).read_to_end(&mut bytes).map_err(|source| unreadable(path, source))?;
    Ok(bytes)
}

/// Returns the error of a source file that cannot be read.
pub(super) fn unreadable(path: &Path, source: io::Error) -> StoreError {
    StoreError::Source { path: path.to_owned(), source }
}

/// What tells one state of a file from another without reading it.
///
/// The change time is in it because a program can set the modification time
/// back, but not this one.
#[derive(PartialEq, Eq)]
struct Stamp {
    size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &File, path: &Path) -> Result<Self, StoreError> {
        let metadata = file.metadata().map_err(|source| unreadable(path, source))?;
        if !metadata.is_file() {
            return Err(unreadable(path, io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
        }
        Ok(Self {
            size_bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// Reads a file that grows by a byte during each of the first `changes` readings.
    fn read_restless(changes: usize) -> (Result<Vec<u8>, StoreError>, Vec<u8>) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("source");
        crate::disk::write_whole(&path, b"x", crate::disk::Durability::Deferred).unwrap();
        let mut left = changes;
        let taken = steady(&path, |file, size| {
            let bytes = read(file, size, &path)?;
            if left > 0 {
                left -= 1;
                OpenOptions::new().append(true).open(&path).unwrap().write_all(b"!").unwrap();
            }
            Ok(Some(bytes))
        });
        (taken, std::fs::read(&path).unwrap())
    }

    #[test]
    fn reading_is_no_access() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("source");
        crate::disk::write_whole(&path, b"x", crate::disk::Durability::Deferred).unwrap();
        let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        let times = std::fs::FileTimes::new().set_accessed(long_ago);
        File::options().write(true).open(&path).unwrap().set_times(times).unwrap();
        assert_eq!(*Source::File(&path).bytes().unwrap(), *b"x");
        assert_eq!(std::fs::metadata(&path).unwrap().accessed().unwrap(), long_ago);
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_read_again_and_given_up_in_the_end() {
        let (calmed_down, now) = read_restless(3);
        assert_eq!(calmed_down.unwrap(), now);
        assert!(matches!(read_restless(usize::MAX).0, Err(StoreError::Changed { .. })));
    }
}
