//! The published packs of a store, opened as they are found.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use super::condemned::Condemned;
use super::pack::{BadPack, Entry, Pack, Tag, file_name, is_pack};
use crate::disk::DiskError;
use crate::hash::Digest;

/// A directory in which packs come and go all the time is listed so many times, then what was found has to do.
const LISTED_AT_MOST: usize = 8;

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
    /// When a name in the directory had changed last, as of the last listing; `None` if there was no directory.
    listed: Option<std::time::SystemTime>,
    /// What whoever writes must not rely on; it counts as absent.
    condemned: Arc<Condemned>,
}

impl Known {
    /// Returns the entry of a pack that counts.
    fn entry(&self, pack: &Pack, digest: Digest, tag: Tag) -> Option<Entry> {
        pack.find(digest, tag).filter(|_| !self.condemned.has_record(pack.name(), digest, tag))
    }
}

/// Where a record is: a file and a place in it.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) file: Arc<File>,
    pub(super) entry: Entry,
}

/// What became of opening a pack.
enum Opened {
    /// It was known before, or is no pack.
    Known,
    /// It was not known.
    New,
    /// There is no such file any more.
    Gone,
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

    /// Returns the length of the object or piece of this digest and tag, by what is known. Costs no more than finding it.
    pub(super) fn length(&self, digest: Digest, tag: Tag) -> Result<Option<u64>, DiskError> {
        self.list_once()?;
        let known = self.read();
        let entries = known.packs.iter().rev();
        Ok(entries.filter_map(|pack| known.entry(pack, digest, tag)).map(|entry| entry.length).next())
    }

    /// Looks for packs that have come since. Returns whether there are any.
    pub(super) fn refresh(&self) -> Result<bool, DiskError> {
        let (mut has_new, mut before) = (false, None);
        for _ in 0..LISTED_AT_MOST {
            before = self.changed();
            // A pack that goes while they are listed was merged into another, which the next listing has.
            if !self.list(&mut has_new)? && self.changed() == before {
                break;
            }
        }
        let mut known = self.write();
        (known.is_listed, known.listed) = (true, before);
        Ok(has_new)
    }

    /// Does what [`Packs::refresh`] does if a name in the directory changed since it was listed last.
    pub(super) fn refresh_if_changed(&self) -> Result<bool, DiskError> {
        let (is_listed, listed) = {
            let known = self.read();
            (known.is_listed, known.listed)
        };
        if is_listed && listed == self.changed() { Ok(false) } else { self.refresh() }
    }

    /// Returns when a name in the directory changed last.
    fn changed(&self) -> Option<std::time::SystemTime> {
        fs::metadata(&self.directory).and_then(|metadata| metadata.modified()).ok()
    }

    /// Opens every pack that is listed and not known. Returns whether one was gone before it could be opened.
    fn list(&self, has_new: &mut bool) -> Result<bool, DiskError> {
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
        let mut is_gone = false;
        for path in paths {
            match self.open(path)? {
                Opened::Known => {}
                Opened::New => *has_new = true,
                Opened::Gone => is_gone = true,
            }
        }
        Ok(is_gone)
    }

    /// Lists the packs anew, forgets those that are gone, and from now on finds nothing that is condemned.
    pub(super) fn start_over(&self, condemned: Condemned) -> Result<(), DiskError> {
        {
            let mut known = self.write();
            known.condemned = Arc::new(condemned);
            known.packs.clear();
            known.bad.clear();
        }
        self.refresh().map(drop)
    }

    /// Returns what counts as absent.
    pub(super) fn condemned(&self) -> Arc<Condemned> {
        Arc::clone(&self.read().condemned)
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

    /// Forgets the packs whose files are gone; what was found in them stays readable to who found it.
    pub(super) fn forget_gone(&self) {
        let is_there = |pack: &Arc<Pack>| pack.path().exists() || self.directory.join(file_name(pack.name())).exists();
        self.write().packs.retain(is_there);
    }

    /// Returns the files that are named as packs and are none.
    pub(super) fn bad(&self) -> Vec<OsString> {
        self.read().bad.iter().cloned().collect()
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
            let entry = known.entry(pack, digest, tag)?;
            Some(Place { file: Arc::clone(pack.file()), entry })
        })
    }

    /// Opens the pack at `path` unless it is known.
    fn open(&self, path: &Path) -> Result<Opened, DiskError> {
        let is_known = {
            let known = self.read();
            path.file_name().is_some_and(|name| {
                known.bad.contains(name) || known.packs.iter().any(|pack| name == file_name(pack.name()).as_str())
            })
        };
        if is_known {
            return Ok(Opened::Known);
        }
        match Pack::open(path) {
            Ok(pack) => {
                self.add(Arc::new(pack));
                Ok(Opened::New)
            }
            Err(BadPack::Damaged) => {
                self.write().bad.extend(path.file_name().map(OsString::from));
                Ok(Opened::Known)
            }
            Err(BadPack::Disk(error)) if error.is_missing() => Ok(Opened::Gone),
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
