//! The index of a pack that lies elsewhere.

use std::fs::File;
use std::io::Read as _;
use std::ops::Range;
use std::path::Path;

use super::Part;
use crate::disk::{self, DiskError, Mapped};
use crate::hash::Digest;
use crate::store::pack::{Entry, FANOUT_BYTES, HEADER_BYTES, Index, RECORD_MAX_BYTES, START, TRAILER_BYTES, Trailer};

/// No index is longer: a pack has at most some 262,144 records.
pub const INDEX_MAX_BYTES: u64 = 32 << 20;

/// What is in a pack, and where: the bytes at the end of the pack, as they are.
#[derive(Debug)]
pub struct PackIndex {
    bytes: Bytes,
    trailer: Trailer,
}

enum Bytes {
    Read(Vec<u8>),
    Mapped(Mapped),
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.as_slice().len())
    }
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Read(bytes) => bytes,
            Self::Mapped(mapped) => mapped,
        }
    }
}

/// Where a record lies in its pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placed(pub(super) Entry);

impl Placed {
    /// Returns what the record is.
    pub fn part(&self) -> Part {
        Part::of(&self.0)
    }

    /// Returns which bytes of the pack the record is, at most 16 MiB and a header.
    pub fn span(&self) -> Range<u64> {
        self.0.offset..self.0.offset + HEADER_BYTES as u64 + u64::from(self.0.stored)
    }

    /// Returns the length of what it holds in bytes; for a list of pieces, that of the whole blob.
    pub fn length(&self) -> u64 {
        self.0.length
    }
}

impl PackIndex {
    /// Returns the index with these bytes; `None` if they are none.
    pub fn read(bytes: Vec<u8>) -> Option<Self> {
        let index = Self::of(Bytes::Read(bytes))?;
        (index.index().name() == index.trailer.name).then_some(index)
    }

    /// Returns the index in the file at `path`; `None` if there is no file, or another.
    ///
    /// The file is read once, to be hashed, and then mapped: what is not looked at takes no memory. It must not change.
    ///
    /// # Errors
    ///
    /// [`DiskError`] if the file cannot be read.
    pub fn open(path: &Path) -> Result<Option<Self>, DiskError> {
        let Some(index) = disk::map_file(path)?.and_then(|mapped| Self::of(Bytes::Mapped(mapped))) else {
            return Ok(None);
        };
        let body_bytes = (index.bytes().len() - TRAILER_BYTES) as u64;
        let name = File::open(path).and_then(|file| Index::name_of(file.take(body_bytes)));
        Ok((name.map_err(DiskError::on("read", path))? == index.trailer.name).then_some(index))
    }

    /// Returns the index with these bytes, if they are one as far as their end tells.
    fn of(bytes: Bytes) -> Option<Self> {
        let all = bytes.as_slice();
        let (body, last) = all.split_at_checked(all.len().checked_sub(TRAILER_BYTES)?)?;
        let records = u64::from_le_bytes(*last.first_chunk()?);
        let trailer = Trailer::decode(last, records.checked_add(all.len() as u64)?)?;
        (body.len() >= FANOUT_BYTES).then_some(Self { bytes, trailer })
    }

    /// Returns the digest that names the pack. It is that of the index, so it tells whether the index is whole.
    pub fn name(&self) -> Digest {
        self.trailer.name
    }

    /// Returns the bytes of the index.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// Returns the length in bytes of the whole pack, this index included.
    pub fn pack_bytes(&self) -> u64 {
        self.trailer.at + self.bytes.as_slice().len() as u64
    }

    /// Returns how many records are in the pack.
    pub fn count(&self) -> usize {
        self.trailer.count
    }

    /// Returns where a record lies. An entry that leads out of the records counts as absent.
    pub fn find(&self, part: Part) -> Option<Placed> {
        self.index().find(part.digest, part.tag).map(Placed).filter(|placed| self.holds(placed))
    }

    /// Returns every record and where it lies, sorted by digest.
    pub fn records(&self) -> impl Iterator<Item = Placed> {
        self.index().entries().map(Placed).filter(|placed| self.holds(placed)).collect::<Vec<_>>().into_iter()
    }

    fn holds(&self, placed: &Placed) -> bool {
        let entry = &placed.0;
        let end = entry.offset.checked_add(HEADER_BYTES as u64 + u64::from(entry.stored));
        entry.stored <= RECORD_MAX_BYTES
            && entry.offset >= START.len() as u64
            && end.is_some_and(|end| end <= self.trailer.at)
    }

    fn index(&self) -> Index<'_> {
        let all = self.bytes.as_slice();
        Index(&all[..all.len() - TRAILER_BYTES])
    }
}
