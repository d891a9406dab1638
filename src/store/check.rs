//! Checking everything that a store holds, and saving what damage has left.
//!
//! The structure of every pack is looked at first. Then units (a pack, or one
//! directory of objects that are files) are read and hashed, those first that
//! were not for the longest time. What is whole in a damaged pack is staged
//! for a new one at once; [`LocalStore::settle`] publishes that, and only then
//! moves the damaged file to `quarantine/`. Nothing is ever deleted.

mod blobs;
mod loose;
mod memory;
mod packed;
mod records;
mod settle;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::pack::{Entry, Tag};
use super::{LocalStore, StoreError};
use crate::hash::Digest;
use crate::object::Kind;
use memory::Memory;

/// Told of each object and its bytes as they are checked. Once it returns `false`, no further unit is begun.
type Progress<'a> = &'a (dyn Fn(u64, u64) -> bool + Sync);

/// What a check found.
#[derive(Debug, Default)]
pub struct Checked {
    /// How many packs were checked.
    pub packs: u64,
    /// How many objects and pieces were checked.
    pub objects: u64,
    /// How many bytes they take in the store.
    pub bytes: u64,
    /// How many packs and directories of objects were left for the next time.
    pub left: u64,
    /// Files that are not what was written.
    pub damaged: Vec<Damaged>,
    /// Objects of which the store had a copy and has no whole one, with their length in bytes.
    pub lost: BTreeMap<(Kind, Digest), u64>,
    /// Pieces that are damaged: what becomes of the blobs that need them is looked at in the end.
    bad_pieces: BTreeSet<Digest>,
}

/// A file of the store that is not what was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damaged {
    /// Where it lies in the directory of the store.
    pub path: PathBuf,
    /// What is wrong with it.
    pub flaw: Flaw,
    /// How many of its objects and pieces are whole, and are kept elsewhere now.
    pub saved: u64,
    /// How many of its objects and pieces are not.
    pub bad: u64,
    /// Where it lies now, in the directory of the store; `None` if it was not moved.
    pub quarantined: Option<PathBuf>,
}

/// What is wrong with a file of the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    /// A pack that is not all of one, or none at all.
    NoPack,
    /// The index of a pack is not what was written.
    Index,
    /// A pack has the name of another.
    Name,
    /// Records of a pack are not what was written.
    Records,
    /// An object in a file of its own is not what was written.
    Content,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoPack => "it is not a whole pack",
            Self::Index => "its index is damaged",
            Self::Name => "it has the name of another pack",
            Self::Records => "it holds damaged objects",
            Self::Content => "its bytes do not match its name",
        })
    }
}

impl LocalStore {
    /// Checks the structure of all packs and the content of as many units as `progress` lets it, at least of one.
    ///
    /// What is whole in a damaged file is staged for a new pack, where the store can be written, so it can be
    /// read through this value; nothing is moved before [`LocalStore::settle`]. Without
    /// that, dropping the store leaves everything as it was.
    ///
    /// Costs one read, one decoding and one hash of everything, on all processors, and a second
    /// one of what is kept in pieces. Holds 4 MiB a thread, and the entries of one pack.
    ///
    /// # Errors
    ///
    /// [`StoreError::Disk`] if the store cannot be listed, or nothing be staged. A file that cannot be read is damaged.
    pub fn check(&self, progress: Progress<'_>) -> Result<Checked, StoreError> {
        let mut checked = Checked::default();
        let packs = self.check_structure(progress, &mut checked)?;
        let mut units = packs;
        units.extend(self.loose_units()?);
        let mut memory = Memory::read(&self.layout);
        memory.sort(&mut units);
        let mut clean = Vec::new();
        let mut goes_on = true;
        for unit in &units {
            if !goes_on {
                checked.left += 1;
                continue;
            }
            let damaged_before = checked.damaged.len();
            match unit {
                Unit::Pack(path) => self.check_pack(path, progress, &mut checked)?,
                Unit::Loose(kind, path) => self.check_loose(*kind, path, progress, &mut checked)?,
            }
            if checked.damaged.len() == damaged_before {
                clean.push(unit.clone());
            }
            goes_on = progress(0, 0);
        }
        self.find_lost(&mut checked)?;
        memory.note(&clean, &units);
        memory.write(&*self.disk, &self.layout);
        Ok(checked)
    }

    /// Returns whether anything can be written into the store: one on a medium that is only read can be checked, too.
    ///
    /// # Errors
    ///
    /// [`StoreError::Disk`] if that fails for another reason than a lack of rights.
    pub fn is_writable(&self) -> Result<bool, StoreError> {
        match self.session_directory() {
            Ok(_) => Ok(true),
            Err(StoreError::Disk(error)) => match error.source.kind() {
                ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => Ok(false),
                _ => Err(error.into()),
            },
            Err(error) => Err(error),
        }
    }

    fn relative(&self, path: &Path) -> PathBuf {
        path.strip_prefix(self.layout.root()).unwrap_or(path).to_owned()
    }
}

impl Checked {
    /// Notes a pack of which `bad` records are damaged.
    fn note_damage(&mut self, path: PathBuf, flaw: Flaw, saved: u64, bad: &[Entry]) {
        self.damaged.push(Damaged { path, flaw, saved, bad: bad.len() as u64, quarantined: None });
        bad.iter().for_each(|entry| self.note_bad(entry.tag, entry.digest, entry.length));
    }

    /// Notes that a record is damaged.
    fn note_bad(&mut self, tag: Tag, digest: Digest, length: u64) {
        match tag {
            Tag::Object(kind) => drop(self.lost.insert((kind, digest), length)),
            Tag::Recipe => drop(self.lost.insert((Kind::Blob, digest), length)),
            Tag::Chunk => drop(self.bad_pieces.insert(digest)),
        }
    }
}

/// What is checked at once.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Unit {
    /// A pack.
    Pack(PathBuf),
    /// A directory of objects of one kind that are files.
    Loose(Kind, PathBuf),
}

impl Unit {
    fn path(&self) -> &Path {
        match self {
            Self::Pack(path) | Self::Loose(_, path) => path,
        }
    }
}
