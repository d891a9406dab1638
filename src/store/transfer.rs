//! Passing objects on to another store and taking them in, record by record.
//!
//! What travels are packs: those of this store as they lie where all of one is
//! wanted, else new ones made for the journey. The index of a pack, without
//! its records, tells what is in it and where. Everything is verified twice:
//! before it is sent, and by whoever takes it in. Where the other store is, and
//! how bytes get there, is not this room's concern.

mod index;
mod pack;
mod take;

use std::collections::BTreeSet;

use super::pack::{Entry, HEADER_BYTES, Tag};
use super::recipe::Recipe;
use super::{LocalStore, Store, StoreError, ingest};
use crate::hash::{DIGEST_BYTES, Digest};
use crate::object::Kind;

pub use index::{INDEX_MAX_BYTES, PackIndex, Placed};
pub use pack::{PARCEL_BYTES, Parcel};
pub use take::{Taken, is_whole, pieces_of};

/// How many bytes [`Part::to_bytes`] returns.
pub const PART_BYTES: usize = DIGEST_BYTES + 1;

/// One record, by what it holds: an object, a piece of a large blob, or the list of the pieces of one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Part {
    digest: Digest,
    tag: Tag,
}

impl Part {
    /// Returns the record that is a whole object.
    pub fn object(kind: Kind, digest: Digest) -> Self {
        Self { digest, tag: Tag::Object(kind) }
    }

    /// Returns the record that lists the pieces of a large blob.
    pub fn list(digest: Digest) -> Self {
        Self { digest, tag: Tag::Recipe }
    }

    /// Returns whether it lists the pieces of a large blob.
    pub fn is_list(&self) -> bool {
        self.tag == Tag::Recipe
    }

    /// Returns the object that it is, or lists the pieces of; `None` for a piece.
    pub fn as_object(&self) -> Option<(Kind, Digest)> {
        match self.tag {
            Tag::Object(kind) => Some((kind, self.digest)),
            Tag::Recipe => Some((Kind::Blob, self.digest)),
            Tag::Chunk => None,
        }
    }

    /// Returns the bytes that stand for it.
    pub fn to_bytes(self) -> [u8; PART_BYTES] {
        let mut bytes = [self.tag.number(); PART_BYTES];
        bytes[..DIGEST_BYTES].copy_from_slice(self.digest.as_bytes());
        bytes
    }

    /// Returns what the bytes stand for; `None` for a sort of record that this version does not know.
    pub fn from_bytes(bytes: &[u8; PART_BYTES]) -> Option<Self> {
        let (digest, tag) = bytes.split_first_chunk().expect("a digest comes first");
        Some(Self { digest: Digest::from_bytes(*digest), tag: Tag::from_number(tag[0])? })
    }

    fn piece(digest: Digest) -> Self {
        Self { digest, tag: Tag::Chunk }
    }

    fn of(entry: &Entry) -> Self {
        Self { digest: entry.digest, tag: entry.tag }
    }
}

/// What an object consists of in this store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Parts {
    /// It is not here.
    Absent,
    /// These records.
    Records(Vec<Part>),
    /// It is a file of its own, which would be these records.
    File(Vec<Part>),
}

impl LocalStore {
    /// Returns what an object consists of. What is staged and not synced yet is not looked at.
    ///
    /// Costs a look at the packs, and for a blob in pieces the reading of their list. A large blob that is a file of its
    /// own is read whole.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if such a file is damaged, [`StoreError::Disk`] if something cannot be read.
    pub fn parts_of(&self, kind: Kind, digest: Digest) -> Result<Parts, StoreError> {
        if self.packs.find(digest, Tag::Object(kind))?.is_some() {
            return Ok(Parts::Records(vec![Part::object(kind, digest)]));
        }
        if kind == Kind::Blob
            && let Some(recipe) = self.recipe(digest)?
        {
            let pieces = recipe.chunks.iter().map(|(chunk, _)| Part::piece(*chunk));
            return Ok(Parts::Records(pieces.chain([Part::list(digest)]).collect()));
        }
        let Some(length) = self.length(kind, digest)? else { return Ok(Parts::Absent) };
        if kind != Kind::Blob || length < super::local::SMALL_MAX_BYTES {
            return Ok(Parts::File(vec![Part::object(kind, digest)]));
        }
        let pieces = self.cut_up(digest)?.chunks.into_iter().map(|(piece, _)| Part::piece(piece));
        Ok(Parts::File(pieces.chain([Part::list(digest)]).collect()))
    }

    /// Returns whether the object is one record of a pack with one of these names.
    ///
    /// # Errors
    ///
    /// [`StoreError::Disk`] if the packs cannot be listed.
    pub fn is_in_packs(&self, kind: Kind, digest: Digest, names: &BTreeSet<Digest>) -> Result<bool, StoreError> {
        Ok(!names.is_empty() && self.packs.has_in(digest, Tag::Object(kind), names)?)
    }

    /// Returns how many bytes these records take in packs, as far as they are in packs here.
    ///
    /// # Errors
    ///
    /// [`StoreError::Disk`] if the store cannot be asked.
    pub fn stored_bytes(&self, parts: &BTreeSet<Part>) -> Result<u64, StoreError> {
        let mut bytes = 0;
        for part in parts {
            let place = self.packs.find(part.digest, part.tag)?;
            bytes += place.map_or(0, |place| HEADER_BYTES as u64 + u64::from(place.entry.stored));
        }
        Ok(bytes)
    }

    /// Returns the pieces that a blob which is a file of its own would be in.
    fn cut_up(&self, digest: Digest) -> Result<Recipe, StoreError> {
        let mut reader = self.open(Kind::Blob, digest)?;
        let failed = |error| StoreError::from_read(error, Kind::Blob, digest);
        let ingest::Ingested { size, chunks, .. } = ingest::ingest(&mut reader, failed, &|_, _| Ok(()))?;
        Ok(Recipe { length: size, chunks })
    }
}

/// Gives out a pack in which the pieces of `pack` are listed as if they made the blob `named`, for tests of who takes it.
#[cfg(test)]
pub(crate) fn forge_list(pack: &[u8], named: Digest, give: &mut dyn FnMut(Digest, Vec<u8>, Vec<u8>)) {
    use super::pack::{Building, Record, scan};
    let chunks: Vec<_> = scan(pack)
        .into_iter()
        .filter(|found| found.entry.tag == Tag::Chunk)
        .map(|found| (found.entry.digest, found.raw))
        .collect();
    let recipe = Recipe { length: chunks.iter().map(|(_, length)| u64::from(*length)).sum(), chunks };
    let stored = recipe.encode();
    let mut building = Building::default();
    let raw = u32::try_from(stored.len()).unwrap();
    building.append(&Record { tag: Tag::Recipe, digest: named, codec: 0, stored: &stored, raw, length: recipe.length });
    let (pack, index, name) = building.finish(&|_| false);
    give(name, pack, index);
}
