//! What was put and is not published yet: records in packs that are being written, and large files.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::commit::Publication;
use super::layout::Layout;
use super::pack::{Entry, Pack, Record, Segment, Tag, file_name};
use super::packs::{Packs, Place};
use crate::disk::{self, Disk, DiskError, Flush};
use crate::hash::Digest;
use crate::object::Kind;

/// So many threads can look records up at once without waiting for each other, mostly.
const SHARDS: usize = 64;

/// Everything that the next sync publishes. Callable from many threads.
pub(super) struct Staging {
    disk: Arc<dyn Disk>,
    /// The records of the open segment, by what they are. Locked after `open`, where both are.
    shards: Vec<Mutex<BTreeMap<(Digest, Tag), Entry>>>,
    open: Mutex<Open>,
    /// Held for reading by whoever writes a piece of the open segment, for writing by whoever needs all of it written.
    in_flight: RwLock<()>,
    rest: Mutex<Rest>,
}

#[derive(Default)]
struct Open {
    segment: Option<Segment>,
    /// How many segments were started; their names.
    started: u32,
}

#[derive(Default)]
struct Rest {
    sealed: Vec<Arc<Pack>>,
    loose: BTreeMap<(Kind, Digest), Loose>,
    touched: BTreeSet<PathBuf>,
    /// The first write or flush that failed.
    broken: Option<Broken>,
}

/// A failure after which nothing that was put can be relied on.
struct Broken {
    path: PathBuf,
    /// What the system said, by its number, because an error cannot be told twice.
    number: Option<i32>,
}

/// A large file that was taken in.
#[derive(Clone)]
pub(super) struct Loose {
    /// The temporary file with its bytes.
    pub(super) path: PathBuf,
    /// Its length in bytes.
    pub(super) size: u64,
}

/// What a sync has to do.
pub(super) struct Work {
    pub(super) packs: Vec<Arc<Pack>>,
    pub(super) loose: BTreeMap<(Kind, Digest), Loose>,
    pub(super) touched: BTreeSet<PathBuf>,
}

impl Staging {
    pub(super) fn new(disk: Arc<dyn Disk>) -> Self {
        Self {
            disk,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            open: Mutex::default(),
            in_flight: RwLock::default(),
            rest: Mutex::default(),
        }
    }

    /// Appends a record, unless it is here already. `directory` tells where temporary files go.
    ///
    /// After a failure nothing can be put or published any more: what was lost is not known.
    pub(super) fn append(
        &self,
        record: &Record<'_>,
        packs: &Packs,
        directory: impl FnOnce() -> Result<PathBuf, super::StoreError>,
    ) -> Result<bool, super::StoreError> {
        self.check()?;
        let mut open = lock(&self.open);
        let mut shard = lock(self.shard(record.digest));
        if shard.contains_key(&(record.digest, record.tag)) {
            return Ok(false);
        }
        if open.segment.is_none() {
            let path = directory()?.join(format!("{}.segment", open.started));
            open.segment = Some(Segment::start(&*self.disk, path)?);
            open.started += 1;
        }
        let segment = open.segment.as_mut().expect("it was just started");
        let (entry, piece) = segment.append(record);
        shard.insert((record.digest, record.tag), entry);
        drop(shard);
        let is_full = segment.is_full();
        if let Some(piece) = piece {
            // Taken before others can append, so that nobody believes that all is written.
            let _writing = self.in_flight.read().unwrap_or_else(PoisonError::into_inner);
            drop(open);
            self.or_break(piece.write(&*self.disk))?;
        } else {
            drop(open);
        }
        if is_full {
            self.seal(packs, true)?;
        }
        Ok(true)
    }

    /// Returns the entry of a record that is not in a pack yet.
    pub(super) fn entry(&self, digest: Digest, tag: Tag) -> Option<Entry> {
        lock(self.shard(digest)).get(&(digest, tag)).copied()
    }

    /// Returns where a record that is not in a pack yet can be read.
    pub(super) fn place(&self, digest: Digest, tag: Tag) -> Result<Option<Place>, DiskError> {
        let mut open = lock(&self.open);
        let (Some(segment), Some(entry)) = (open.segment.as_mut(), self.entry(digest, tag)) else { return Ok(None) };
        // After a failed write, what is in the file is not what was appended.
        self.check()?;
        let piece = segment.take_piece();
        let _all_written = self.in_flight.write().unwrap_or_else(PoisonError::into_inner);
        self.or_break(piece.write(&*self.disk))?;
        Ok(Some(Place { file: Arc::clone(segment.file()), entry }))
    }

    /// Returns the digests of this tag that begin with a byte and are not in a pack yet.
    pub(super) fn digests(&self, tag: Tag) -> Vec<Digest> {
        let of = |shard: &Mutex<BTreeMap<(Digest, Tag), Entry>>| -> Vec<Digest> {
            lock(shard).keys().filter(|(_, other)| *other == tag).map(|(digest, _)| *digest).collect()
        };
        self.shards.iter().flat_map(of).collect()
    }

    /// Makes the open segment a pack. `only_full` leaves one alone that can take more.
    pub(super) fn seal(&self, packs: &Packs, only_full: bool) -> Result<(), DiskError> {
        let mut open = lock(&self.open);
        let Some(segment) = open.segment.take_if(|segment| !only_full || segment.is_full()) else { return Ok(()) };
        let entries = segment.entries().to_vec();
        let pack = {
            let _all_written = self.in_flight.write().unwrap_or_else(PoisonError::into_inner);
            let condemned = packs.condemned();
            let is_taken = |name| condemned.packs.contains_key(&name);
            Arc::new(self.or_break(segment.seal(&*self.disk, &is_taken))?)
        };
        // Found in the pack before it is no longer found here.
        packs.add(Arc::clone(&pack));
        lock(&self.rest).sealed.push(pack);
        for entry in entries {
            lock(self.shard(entry.digest)).remove(&(entry.digest, entry.tag));
        }
        Ok(())
    }

    /// Flushes what is written of the open segment, and lets the system forget it: it will hardly be read soon.
    pub(super) fn flush_written(&self) -> Result<(), DiskError> {
        let Some((path, file)) =
            lock(&self.open).segment.as_ref().map(|open| (open.path().to_owned(), Arc::clone(open.file())))
        else {
            return Ok(());
        };
        self.or_break(self.disk.flush(Flush::File(&path)))?;
        disk::forget_cached(&file);
        Ok(())
    }

    /// Keeps a large file. Returns whether it was not kept already.
    pub(super) fn keep(&self, kind: Kind, digest: Digest, file: Loose) -> bool {
        let mut rest = lock(&self.rest);
        let is_new = !rest.loose.contains_key(&(kind, digest));
        if is_new {
            rest.loose.insert((kind, digest), file);
        }
        is_new
    }

    /// Returns the large file with this name.
    pub(super) fn loose(&self, kind: Kind, digest: Digest) -> Option<Loose> {
        lock(&self.rest).loose.get(&(kind, digest)).cloned()
    }

    /// Returns the digests of the large files of this kind.
    pub(super) fn loose_digests(&self, kind: Kind) -> Vec<Digest> {
        lock(&self.rest).loose.keys().filter(|(of, _)| *of == kind).map(|(_, digest)| *digest).collect()
    }

    /// Lets the next sync flush the entries of `directory`: something was found in it that its writer may not have flushed.
    pub(super) fn touch(&self, directory: &Path) {
        let mut rest = lock(&self.rest);
        if !rest.touched.contains(directory) {
            rest.touched.insert(directory.to_owned());
        }
    }

    /// Returns what there is to publish, which stays staged until it is told to be [`Staging::published`].
    pub(super) fn work(&self) -> Result<Work, DiskError> {
        self.check()?;
        let mut rest = lock(&self.rest);
        Ok(Work { packs: rest.sealed.clone(), loose: rest.loose.clone(), touched: std::mem::take(&mut rest.touched) })
    }

    /// Forgets what was moved to its name.
    pub(super) fn published(&self, from: &Path) {
        let mut rest = lock(&self.rest);
        rest.sealed.retain(|pack| pack.path() != from);
        rest.loose.retain(|_, loose| loose.path != from);
    }

    /// Lets nothing more be acknowledged: a write or a flush failed, and the system may tell that only once.
    pub(super) fn break_down(&self, error: &DiskError) {
        let number = error.source.raw_os_error();
        lock(&self.rest).broken.get_or_insert_with(|| Broken { path: error.path.clone(), number });
    }

    /// Returns the failure that came before, if there was one.
    fn check(&self) -> Result<(), DiskError> {
        let rest = lock(&self.rest);
        let Some(Broken { path, number }) = &rest.broken else { return Ok(()) };
        let unknown = || io::Error::other("an earlier write failed");
        let source = number.map_or_else(unknown, io::Error::from_raw_os_error);
        Err(DiskError { action: "write", path: path.clone(), source })
    }

    fn or_break<T>(&self, result: Result<T, DiskError>) -> Result<T, DiskError> {
        result.inspect_err(|error| self.break_down(error))
    }

    fn shard(&self, digest: Digest) -> &Mutex<BTreeMap<(Digest, Tag), Entry>> {
        &self.shards[usize::from(digest.as_bytes()[0]) % SHARDS]
    }
}

/// Returns where each staged thing is to be published.
pub(super) fn publications(layout: &Layout, work: &Work) -> Vec<Publication> {
    let packs = work
        .packs
        .iter()
        .map(|pack| Publication { from: pack.path().to_owned(), to: layout.packs().join(file_name(pack.name())) });
    let loose = work
        .loose
        .iter()
        .map(|((kind, digest), loose)| Publication { from: loose.path.clone(), to: layout.object(*kind, *digest) });
    packs.chain(loose).collect()
}

/// Takes a lock whose holder cannot have left anything half done, even in a panic.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
