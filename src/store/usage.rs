//! How much room a store takes, and what for.

use std::collections::BTreeMap;
use std::path::Path;

use super::garbage::{bytes_of, kind_of};
use super::pack::Tag;
use super::{LocalStore, StoreError};
use crate::disk::{self, Found};
use crate::object::Kind;

/// Files, and their bytes on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Room {
    /// How many.
    pub files: u64,
    /// The sum of their lengths.
    pub bytes: u64,
}

/// What objects of one kind take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct OfKind {
    /// How many there are; one in a pack and in a file of its own counts twice.
    pub objects: u64,
    /// The sum of their lengths in bytes.
    pub raw_bytes: u64,
    /// How many bytes they take in packs and files.
    pub stored_bytes: u64,
}

/// What is in a store.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Packs.
    pub packs: Room,
    /// Objects in files of their own.
    pub loose: Room,
    /// What was taken away and can be put back.
    pub trash: Room,
    /// Damaged files.
    pub quarantine: Room,
    /// What each kind takes, of those that are there.
    pub kinds: BTreeMap<Kind, OfKind>,
}

impl LocalStore {
    /// Returns what is in the store. Costs a listing, and the index of every pack; no object is read.
    ///
    /// # Errors
    ///
    /// [`StoreError::Disk`] if it cannot be listed. A pack that cannot be understood counts as a file only.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let mut kinds = BTreeMap::<Kind, OfKind>::new();
        for pack in self.packs.all()? {
            for entry in pack.entries() {
                let of_kind = kinds.entry(kind_of(entry.tag)).or_default();
                of_kind.stored_bytes += bytes_of(&entry);
                // A recipe has the length of the whole; its pieces are no objects.
                if entry.tag != Tag::Chunk {
                    of_kind.objects += 1;
                    of_kind.raw_bytes += entry.length;
                }
            }
        }
        for kind in Kind::ALL {
            for digest in self.layout.find(kind, "")? {
                if let Some(Found::File { size, .. }) = disk::look(&self.layout.object(kind, digest))? {
                    let of_kind = kinds.entry(kind).or_default();
                    *of_kind = OfKind {
                        objects: of_kind.objects + 1,
                        raw_bytes: of_kind.raw_bytes + size,
                        stored_bytes: of_kind.stored_bytes + size,
                    };
                }
            }
        }
        Ok(Usage {
            packs: room(&self.layout.packs())?,
            loose: room(&self.layout.objects())?,
            trash: room(&self.layout.trash())?,
            quarantine: room(&self.layout.quarantine())?,
            kinds,
        })
    }
}

fn room(directory: &Path) -> Result<Room, StoreError> {
    let mut room = Room::default();
    if disk::look(directory)?.is_some() {
        for entry in disk::walk(directory) {
            if let Found::File { size, .. } = entry?.1 {
                room.files += 1;
                room.bytes += size;
            }
        }
    }
    Ok(room)
}
