//! The published packs of a store, opened as they are found.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use super::pack::{BadPack, Entry, Pack, Tag, file_name, is_pack};
use crate::disk::DiskError;
use crate::hash::Digest;

/// All packs that this process knows of.
pub(super) struct Packs {
    directory: PathBuf,
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    /// Newest last, because what was written last is asked for most.
    packs: Vec<Arc<Pack>>,
    /// Files that are named as packs and are none: `fsck` deals with them.
    bad: BTreeSet<OsString>,
    is_listed: bool,
}

/// Where a record is: a file and a place in it.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) file: Arc<File>,
    pub(super) entry: Entry,
}

impl Packs {
    /// Returns the packs in `directory`, which may not exist. Reads nothing yet.
    pub(super) fn of(directory: PathBuf) -> Self {
        Self { directory, known: RwLock::default() }
    }

    /// Returns where the record of this digest and tag is, by what is known.
    pub(super) fn find(&self, digest: Digest, tag: Tag) -> Result<Option<Place>, DiskError> {
        self.list_once()?;
        Ok(self.find_known(digest, tag))
    }

    /// Looks for packs that have come since. Returns whether there are any.
    pub(super) fn refresh(&self) -> Result<bool, DiskError> {
        let listed = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            listed => listed.map_err(DiskError::on("read", &self.directory))?,
        };
        let mut paths = listed.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
        let paths = paths
            .as_mut()
            .map_err(|error| DiskError::on("read", &self.directory)(io::Error::new(error.kind(), error.to_string())))?;
        paths.retain(|path| is_pack(path));
        paths.sort_unstable();
        let mut has_new = false;
        for path in paths {
            has_new |= self.open(path)?;
        }
        self.write().is_listed = true;
        Ok(has_new)
    }

    /// Adds a pack of this process, or names it anew after it was published.
    pub(super) fn add(&self, pack: Arc<Pack>) {
        let mut known = self.write();
        known.packs.retain(|other| other.name() != pack.name());
        known.packs.push(pack);
    }

    /// Uses the pack at `path` no more: it is damaged.
    pub(super) fn forget(&self, path: &Path) {
        let mut known = self.write();
        known.packs.retain(|pack| pack.path() != path);
        known.bad.extend(path.file_name().map(OsString::from));
    }

    /// Returns all packs that are known.
    pub(super) fn all(&self) -> Result<Vec<Arc<Pack>>, DiskError> {
        self.list_once()?;
        Ok(self.read().packs.clone())
    }

    fn list_once(&self) -> Result<(), DiskError> {
        if !self.read().is_listed {
            self.refresh()?;
        }
        Ok(())
    }

    fn find_known(&self, digest: Digest, tag: Tag) -> Option<Place> {
        let known = self.read();
        known.packs.iter().rev().find_map(|pack| {
            let entry = pack.find(digest, tag)?;
            Some(Place { file: Arc::clone(pack.file()), entry })
        })
    }

    /// Opens the pack at `path` unless it is known. Returns whether it is new.
    fn open(&self, path: &Path) -> Result<bool, DiskError> {
        let is_known = {
            let known = self.read();
            path.file_name().is_some_and(|name| {
                known.bad.contains(name) || known.packs.iter().any(|pack| name == file_name(pack.name()).as_str())
            })
        };
        if is_known {
            return Ok(false);
        }
        match Pack::open(path) {
            Ok(pack) => {
                self.add(Arc::new(pack));
                Ok(true)
            }
            Err(BadPack::Damaged) => {
                self.write().bad.extend(path.file_name().map(OsString::from));
                Ok(false)
            }
            // It was merged into another one, which the listing that comes next finds.
            Err(BadPack::Disk(error)) if error.is_missing() => Ok(true),
            Err(BadPack::Disk(error)) => Err(error),
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}
