//! Where the bytes of an object come from: memory, or a file that must hold still.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

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
            Self::File(path) => steady(path, |_| digest_of_file(kind, path).map(Some)),
        }
    }

    /// Returns all the bytes.
    pub(super) fn bytes(self) -> Result<Cow<'a, [u8]>, StoreError> {
        match self {
            Self::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
            Self::File(path) => steady(path, |_| read(path).map(Some)).map(Cow::Owned),
        }
    }
}

/// Returns what `act` makes of the file at `path`, provided that the file did not change meanwhile.
///
/// `act` is given the length in bytes and returns `None` if it saw a change
/// itself; it is called again after a change, [`RETRIES_MAX`] times at most.
pub(super) fn steady<T>(
    path: &Path,
    mut act: impl FnMut(u64) -> Result<Option<T>, StoreError>,
) -> Result<T, StoreError> {
    for _ in 0..=RETRIES_MAX {
        let before = Stamp::of(path)?;
        let outcome = act(before.size_bytes)?;
        if let Some(outcome) = outcome
            && Stamp::of(path)? == before
        {
            return Ok(outcome);
        }
    }
    Err(StoreError::Changed { path: path.to_owned() })
}

/// Returns the digest and the length of the file at `path` as an object of this kind.
///
/// Reads it in pieces and not from a memory map: the file may be shortened at
/// any moment, which would kill a process that has it mapped.
pub(super) fn digest_of_file(kind: Kind, path: &Path) -> Result<(Digest, u64), StoreError> {
    let mut hasher = kind.hasher();
    pass_on(
        open(path)?,
        |source| unreadable(path, source),
        |piece| {
            hasher.update(piece);
            Ok(())
        },
    )?;
    Ok(hasher.finish())
}

/// Opens the source file at `path`.
pub(super) fn open(path: &Path) -> Result<File, StoreError> {
    File::open(path).map_err(|source| unreadable(path, source))
}

/// Reads the whole source file at `path`.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    fs::read(path).map_err(|source| unreadable(path, source))
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
    file: (u64, u64),
}

impl Stamp {
    fn of(path: &Path) -> Result<Self, StoreError> {
        let metadata = fs::metadata(path).map_err(|source| unreadable(path, source))?;
        // Opening a pipe would wait for its other end for ever.
        if !metadata.is_file() {
            return Err(unreadable(path, io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
        }
        Ok(Self {
            size_bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            file: (metadata.dev(), metadata.ino()),
        })
    }
}
