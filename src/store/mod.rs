//! Immutable objects, named by their content.
//!
//! A [`Store`] knows kinds, digests and bytes, not what the bytes mean. It
//! promises three things: bytes that do not hash to their name are never
//! returned as if they did; what was put before [`Store::sync`] returned
//! survives a crash; nothing partial is ever visible. [`LocalStore`] keeps
//! objects on disk, [`MemoryStore`] is for trouble in tests, [`DryStore`]
//! answers "what would be stored" without writing.

mod check;
mod chunk;
mod codec;
mod collect;
mod commit;
mod condemned;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod disturbance;
mod dry;
mod flusher;
#[cfg(test)]
mod frozen;
mod garbage;
mod ingest;
mod layout;
mod local;
mod memory;
mod merge;
#[cfg(test)]
mod model;
mod pack;
mod packs;
mod pieces;
mod recipe;
mod relocate;
mod rewrite;
mod session;
mod source;
mod staging;
mod transfer;
mod trash;
mod usage;
mod users;
mod verified;
mod wanted;

#[doc(hidden)]
pub mod fuzz;

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::disk::{self, DiskError};
use crate::hash::Digest;
use crate::object::{BlobId, Kind};

pub use check::{Checked, Damaged, Flaw};
pub use collect::{Collected, Terms, collect, preview};
pub use dry::DryStore;
pub use garbage::Live;
pub use local::LocalStore;
pub use memory::MemoryStore;
pub use relocate::{Moving, is_free, sweep_moved};
pub use source::Source;
#[cfg(test)]
pub(crate) use transfer::forge_list;
pub use transfer::{
    INDEX_MAX_BYTES, PARCEL_BYTES, PART_BYTES, PackIndex, Parcel, Part, Parts, Placed, Taken, is_whole, pieces_of,
};
pub use trash::put_back;
pub use usage::{OfKind, Room, Usage};
pub use wanted::WantedStore;

/// Bytes are passed on in pieces of this size, whatever the size of the object.
const BUFFER_BYTES: usize = 64 * 1024;

/// Where objects live.
///
/// Every method can be called from many threads at once.
pub trait Store: Send + Sync {
    /// Keeps the bytes of `source` as an object of this kind.
    ///
    /// It can be read through this value at once, and by others after
    /// [`Store::sync`]. An object that is there with the right length is not
    /// written again; one with a wrong length is replaced.
    ///
    /// # Errors
    ///
    /// [`StoreError::Source`] or [`StoreError::Changed`] if a source file
    /// cannot be read or does not hold still, [`StoreError::Disk`] if the
    /// object cannot be written.
    fn put(&self, kind: Kind, source: Source<'_>) -> Result<Put, StoreError>;

    /// Returns a reader of the object, which re-hashes what it reads.
    ///
    /// At the end of bytes that do not match `digest`, every read fails with
    /// [`io::ErrorKind::InvalidData`] carrying [`StoreError::Corrupt`]; it never says
    /// that all is read. Bytes before the end are not verified yet.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] if absent, [`StoreError::Disk`] if it cannot be opened.
    fn open(&self, kind: Kind, digest: Digest) -> Result<Box<dyn Read + Send>, StoreError>;

    /// Returns the length in bytes of the object, or `None` if it is absent. Reads nothing of it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Disk`] if the store cannot be asked.
    fn length(&self, kind: Kind, digest: Digest) -> Result<Option<u64>, StoreError>;

    /// Returns whether the object of this name and length need not be put again.
    ///
    /// # Errors
    ///
    /// As [`Store::length`].
    fn is_kept(&self, kind: Kind, digest: Digest, length: u64) -> Result<bool, StoreError> {
        Ok(self.length(kind, digest)? == Some(length))
    }

    /// Returns the digests of this kind that start with `hex_prefix`, sorted; the empty prefix lists all.
    ///
    /// A prefix that is not made of hex digits matches nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError::Disk`] if the store cannot be listed.
    fn find(&self, kind: Kind, hex_prefix: &str) -> Result<Vec<Digest>, StoreError>;

    /// Makes everything that was put before survive a crash, and visible to other processes.
    ///
    /// Costs a fixed number of flushes for many objects; call it once for a batch.
    ///
    /// # Errors
    ///
    /// [`StoreError::Disk`] if anything cannot be flushed or moved into place.
    /// What was put since the last success is then not acknowledged.
    fn sync(&self) -> Result<(), StoreError>;

    /// Keeps `bytes` as an object of this kind, as [`Store::put`] does.
    ///
    /// # Errors
    ///
    /// As [`Store::put`].
    fn put_bytes(&self, kind: Kind, bytes: &[u8]) -> Result<Put, StoreError> {
        self.put(kind, Source::Bytes(bytes))
    }

    /// Keeps what `reader` yields as a blob, as [`Store::put`] does.
    ///
    /// # Errors
    ///
    /// [`StoreError::Stream`] if it cannot be read to its end; else as [`Store::put`].
    fn put_stream(&self, reader: &mut (dyn Read + Send)) -> Result<Put, StoreError> {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map_err(|source| StoreError::Stream { source })?;
        self.put_bytes(Kind::Blob, &bytes)
    }

    /// Returns all bytes of the object, verified.
    ///
    /// Costs one read and one hash, and memory for the whole object: meant
    /// for the small kinds; use [`Store::open`] or [`Store::export`] for files.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] if absent, [`StoreError::Corrupt`] if the bytes
    /// no longer match their name, [`StoreError::Disk`] if they cannot be read.
    fn get(&self, kind: Kind, digest: Digest) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        let mut reader = self.open(kind, digest)?;
        reader.read_to_end(&mut bytes).map_err(|error| StoreError::from_read(error, kind, digest))?;
        Ok(bytes)
    }

    /// Writes the bytes of a file to `to`, verified, replacing a file or link that is there.
    ///
    /// The file appears whole under its name or not at all; a link at `to` is
    /// replaced, never followed. Makes missing directories. Nothing is
    /// flushed: what came out of a store can be brought out again.
    ///
    /// # Errors
    ///
    /// As [`Store::get`], and [`StoreError::Disk`] if `to` cannot be written;
    /// what was at `to` is then still there.
    fn export(&self, id: BlobId, to: &Path, executable: bool) -> Result<(), StoreError> {
        export_by_reading(self.open(Kind::Blob, id.digest())?, id, to, executable)
    }

    /// Puts a file at `to` that shares the disk space of the object and that nobody may write to.
    ///
    /// Replaces what [`Store::export`] would. The bytes are verified first. Returns whether it was
    /// done; where it cannot be, nothing is, and the caller exports instead.
    ///
    /// # Errors
    ///
    /// As [`Store::export`].
    fn link(&self, id: BlobId, to: &Path) -> Result<bool, StoreError> {
        let _ = (id, to);
        Ok(false)
    }
}

/// Writes what `reader` yields to `to`, as [`Store::export`] promises.
fn export_by_reading(mut reader: impl Read, id: BlobId, to: &Path, executable: bool) -> Result<(), StoreError> {
    let unread = |error| StoreError::from_read(error, Kind::Blob, id.digest());
    disk::write_out(to, executable, |file| {
        pass_on(&mut reader, unread, |piece| Ok(file.write_all(piece).map_err(DiskError::on("write", to))?))
    })
}

/// What became of a put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Put {
    /// The name of the object: the digest of the bytes that were stored.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Whether it was written; `false` if the store had it already.
    pub new: bool,
}

/// What a store could not do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such object.
    #[error("{kind} `{digest}` is not in the store")]
    Missing {
        /// Its kind.
        kind: Kind,
        /// Its name.
        digest: Digest,
    },
    /// The bytes of an object no longer match its name.
    #[error("{kind} `{expected}` is corrupt: its bytes now hash to `{actual}`")]
    Corrupt {
        /// The kind of the object.
        kind: Kind,
        /// Its name.
        expected: Digest,
        /// What its bytes hash to.
        actual: Digest,
    },
    /// A pack is damaged, so it is not known what it holds.
    #[error("pack `{}` is damaged", path.display())]
    BadPack {
        /// The file.
        path: PathBuf,
    },
    /// A source file was written to whenever it was read.
    #[error("`{}` changed while it was read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A source file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Source {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is to be stored broke off on its way here.
    #[error("what is to be stored cannot be read to its end")]
    Stream {
        /// What whoever sends it says.
        source: io::Error,
    },
    /// The store has a format that this version does not know.
    #[error("the store `{}` has the format `{found}`", path.display())]
    Version {
        /// The directory of the store.
        path: PathBuf,
        /// What its `FORMAT` file says.
        found: String,
    },
    /// There is no store where one should be.
    #[error("there is no store in `{}`", path.display())]
    Absent {
        /// The directory.
        path: PathBuf,
    },
    /// A directory that should become a store holds something else.
    #[error("`{}` is neither empty nor a store", path.display())]
    Occupied {
        /// The directory.
        path: PathBuf,
    },
    /// A store that is to be moved is being written to.
    #[error("the store `{}` is in use by process {}", path.display(), session.split('-').next().unwrap_or_default())]
    InUse {
        /// The directory of the store.
        path: PathBuf,
        /// One of the sessions in it.
        session: String,
    },
    /// Two stores have different files of one name.
    #[error("`{}` differs from `{}`", path.display(), other.display())]
    Differs {
        /// The file of one store.
        path: PathBuf,
        /// That of the other.
        other: PathBuf,
    },
    /// The store lies elsewhere now.
    #[error("the store was moved away from `{}`", path.display())]
    Moved {
        /// The directory in which it was.
        path: PathBuf,
    },
    /// The store itself cannot be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl StoreError {
    /// Returns the store's error that a reader from [`Store::open`] failed with.
    ///
    /// An error that carries none is one of reading the object of this kind and name.
    pub fn from_read(error: io::Error, kind: Kind, digest: Digest) -> Self {
        error.downcast().unwrap_or_else(|source| {
            let path = Path::new(kind.name()).join(digest.to_string());
            Self::Disk(DiskError { action: "read", path, source })
        })
    }
}

/// Gives everything that `reader` yields to `take`, in pieces of at most [`BUFFER_BYTES`].
fn pass_on(
    mut reader: impl Read,
    failed: impl FnOnce(io::Error) -> StoreError,
    mut take: impl FnMut(&[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => take(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Returns whether `hex` starts with `prefix`, whatever the case of the prefix.
fn has_prefix(hex: &str, prefix: &str) -> bool {
    hex.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}
