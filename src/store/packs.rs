//! The published packs of a store, opened as they are found.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use super::condemned::Condemned;
use super::pack::{BadPack, Entry, Pack, Tag, file_name, is_pack};
use crate::disk::DiskError;
use crate::hash::Digest;

/// A directory in which packs come and go all the time is listed so many times, then what was found has to do.
const LISTED_AT_MOST: usize = 8;
/// More than two ticks of the coarsest clock that Linux stamps changes with.
const TICK_MAX: Duration = Duration::from_millis(25);

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
    /// When a name in the directory had changed last, as of the last listing; `None` if that was a moment before.
    listed: Option<SystemTime>,
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

/// Returns whether a directory that changed last at `changed` would show it if it changed now.
///
/// Linux stamps a change with the time of the last tick, so that two changes within one look like one.
fn is_settled(changed: &SystemTime) -> bool {
    changed.elapsed().is_ok_and(|elapsed| elapsed > TICK_MAX)
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

    /// Returns whether a pack with one of these names has the record, by what is known.
    pub(super) fn has_in(&self, digest: Digest, tag: Tag, names: &BTreeSet<Digest>) -> Result<bool, DiskError> {
        self.list_once()?;
        let known = self.read();
        let mut packs = known.packs.iter().rev().filter(|pack| names.contains(&pack.name()));
        Ok(packs.any(|pack| known.entry(pack, digest, tag).is_some()))
    }

    /// Looks for packs that have come since.
    ///
    /// Every record that was published before is then known, unless packs come and go without a pause. Whoever found
    /// nothing looks again after this, whether or not this thread was the one to find a new pack.
    pub(super) fn refresh(&self) -> Result<(), DiskError> {
        let mut before = None;
        for _ in 0..LISTED_AT_MOST {
            before = self.changed();
            let names = self.names()?;
            // One that goes while they are listed was merged into another, which the listing may have passed already.
            if self.open_all(&names)? && self.names()? == names {
                break;
            }
        }
        let mut known = self.write();
        (known.is_listed, known.listed) = (true, before.filter(is_settled));
        Ok(())
    }

    /// Does what [`Packs::refresh`] does if a name in the directory may have changed since it was listed last.
    pub(super) fn refresh_if_changed(&self) -> Result<(), DiskError> {
        let listed = self.read().listed;
        if listed.is_some() && listed == self.changed() { Ok(()) } else { self.refresh() }
    }

    /// Returns when a name in the directory changed last; the epoch if there is no directory.
    fn changed(&self) -> Option<SystemTime> {
        match fs::metadata(&self.directory).and_then(|metadata| metadata.modified()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(SystemTime::UNIX_EPOCH),
            changed => changed.ok(),
        }
    }

    /// Returns the names of all packs in the directory.
    fn names(&self) -> Result<BTreeSet<OsString>, DiskError> {
        let failed = DiskError::on("read", &self.directory);
        let listed = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            listed => listed.map(|entries| entries.map(|entry| Ok(entry?.file_name()))),
        };
        let names = listed.and_then(Iterator::collect::<io::Result<BTreeSet<_>>>).map_err(failed)?;
        Ok(names.into_iter().filter(|name| is_pack(Path::new(name))).collect())
    }

    /// Opens every pack of these names that is not known. Returns whether all are still there.
    fn open_all(&self, names: &BTreeSet<OsString>) -> Result<bool, DiskError> {
        let mut are_there = true;
        for name in names {
            are_there &= self.open(name)?;
        }
        Ok(are_there)
    }

    /// Lists the packs anew, forgets those that are gone, and from now on finds nothing that is condemned.
    pub(super) fn start_over(&self, condemned: Condemned) -> Result<(), DiskError> {
        {
            let mut known = self.write();
            *known = Known { condemned: Arc::new(condemned), ..Known::default() };
        }
        self.refresh()
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

    /// Looks for new packs, and forgets those whose files are gone; what was found in them stays readable to who found it.
    pub(super) fn forget_gone(&self) -> Result<(), DiskError> {
        let is_there = |pack: &Arc<Pack>| pack.path().exists() || self.directory.join(file_name(pack.name())).exists();
        let gone: Vec<_> = self.all()?.into_iter().filter(|pack| !is_there(pack)).collect();
        // In this order: a pack goes after the one that it was merged into has come.
        self.refresh()?;
        self.write().packs.retain(|pack| !gone.iter().any(|gone| Arc::ptr_eq(gone, pack)));
        Ok(())
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

    /// Opens the pack of this name unless it is known. Returns whether it is still there.
    fn open(&self, name: &OsString) -> Result<bool, DiskError> {
        let is_known = {
            let known = self.read();
            known.bad.contains(name) || known.packs.iter().any(|pack| *name == *file_name(pack.name()))
        };
        if is_known {
            return Ok(true);
        }
        match Pack::open(&self.directory.join(name)) {
            Ok(pack) => self.add(Arc::new(pack)),
            Err(BadPack::Damaged) => drop(self.write().bad.insert(name.clone())),
            Err(BadPack::Disk(error)) if error.is_missing() => return Ok(false),
            Err(BadPack::Disk(error)) => return Err(error),
        }
        Ok(true)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}
