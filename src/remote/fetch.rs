//! Fetching: what is lacking here, out of the packs of a remote.
//!
//! What is no file comes first, directories level by level, because they tell what else there
//! is. They are synced together: a directory that is here has everything below
//! it that is a directory, as everybody expects. Then come the files, each pack
//! read from its begin to its end, in spans of what is wanted: as few as there are
//! ways, for some servers read a whole file for any part of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::bucket::Bucket;
use super::catalog::{self, Catalog};
use super::{Progress, RemoteError};
use crate::hash::Digest;
use crate::object::Kind;
use crate::store::{Live, LocalStore, Part, Placed, Store, Taken, pieces_of};

/// What is not wanted between two records is read too if it is shorter than a request is worth.
const GAP_BYTES: u64 = 256 << 10;
/// No span that is read at once is longer by more than one record.
pub(super) const SPAN_BYTES: u64 = 32 << 20;
/// After so many bytes, what has come is kept, so that an interruption costs no more than that.
const KEPT_EVERY_BYTES: u64 = 64 << 20;

/// What is to be kept of a set of objects: told anew as more of them is here.
pub type Closure<'a, E> = &'a dyn Fn(&LocalStore) -> Result<Live, E>;

/// What was fetched.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fetched {
    /// How many objects were asked for.
    pub objects: u64,
    /// How many of them were here already.
    pub skipped: u64,
    /// How many are here now and were not before.
    pub received: u64,
    /// Objects that are neither here nor in the remote.
    pub missing: BTreeSet<(Kind, Digest)>,
}

/// A way to a remote, with what it is known to hold.
#[derive(Clone, Copy)]
pub struct Way<'a> {
    /// The files of the remote.
    pub bucket: &'a dyn Bucket,
    /// What is in them.
    pub catalog: &'a Catalog,
    /// So many ways are used at once.
    pub jobs: usize,
    /// Told of what has come.
    pub progress: Progress<'a>,
}

/// What is lacking here of a set of objects. Directories that were lacking are staged, not synced.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lacking {
    /// How many objects there are in all.
    pub objects: u64,
    /// What is to be fetched, directories not counted.
    pub files: BTreeSet<(Kind, Digest)>,
    /// About how many bytes that is on the wire.
    pub bytes: u64,
    /// What was fetched to find that out.
    pub directories: Fetched,
}

impl Way<'_> {
    /// Returns what is lacking here of all that `closure` leads to, after fetching the directories that tell.
    ///
    /// Costs a few requests for each level of directories. They are kept by the next sync of `store`.
    ///
    /// # Errors
    ///
    /// As [`Way::fetch`], and what `closure` says.
    pub fn survey<E: From<RemoteError>>(&self, store: &LocalStore, closure: Closure<'_, E>) -> Result<Lacking, E> {
        let trip = Trip::new(*self, store);
        let mut directories = Fetched::default();
        let mut asked = BTreeSet::new();
        let live = loop {
            let live = closure(store)?;
            let lacking = lacking(store, &live, is_telling)?;
            let new: BTreeSet<_> = lacking.difference(&asked).copied().collect();
            if new.is_empty() {
                directories.missing = lacking;
                break live;
            }
            directories.received += trip.fetch_objects(&new)?;
            asked.extend(new);
        };
        let files = lacking(store, &live, |kind| !is_telling(kind))?;
        let bytes = files.iter().map(|(kind, digest)| self.bytes_of(*kind, *digest)).sum();
        Ok(Lacking { objects: live.len() as u64, files, bytes, directories })
    }

    /// Fetches what is lacking, and keeps all of it.
    ///
    /// Costs one request for some MiB of what lies near each other. Takes memory for two records on each way.
    ///
    /// # Errors
    ///
    /// [`RemoteError::Wrong`] if the remote holds something else than it says: nothing of it was taken. Else what the
    /// remote or the store says; what had come before is kept.
    pub fn fetch(&self, store: &LocalStore, lacking: &Lacking) -> Result<Fetched, RemoteError> {
        let trip = Trip::new(*self, store);
        let mut fetched = lacking.directories.clone();
        store.sync()?;
        let received = trip.fetch_objects(&lacking.files);
        // What came whole before something failed need not come again.
        store.sync()?;
        fetched.received += received?;
        for (kind, digest) in &lacking.files {
            if store.length(*kind, *digest)?.is_none() {
                fetched.missing.insert((*kind, *digest));
            }
        }
        fetched.objects = lacking.objects;
        fetched.skipped = fetched.objects.saturating_sub(fetched.received + fetched.missing.len() as u64);
        Ok(fetched)
    }

    /// Returns about how many bytes an object is on the wire.
    fn bytes_of(&self, kind: Kind, digest: Digest) -> u64 {
        let bytes = |part| self.catalog.find(part).map(|(_, placed)| placed.span().end - placed.span().start);
        let list = || self.catalog.find(Part::list(digest)).map(|(_, placed)| placed.length());
        bytes(Part::object(kind, digest)).or_else(list).unwrap_or_default()
    }
}

/// Returns whether what else is needed is told by objects of this kind.
pub const fn leads_on(kind: Kind) -> bool {
    matches!(kind, Kind::Snapshot | Kind::Tree | Kind::Environment)
}

/// Returns whether objects of this kind tell of others, or are as small: all but files.
pub(super) const fn is_telling(kind: Kind) -> bool {
    !matches!(kind, Kind::Blob)
}

impl<'a> Trip<'a> {
    fn new(way: Way<'a>, store: &'a LocalStore) -> Self {
        Self { store, way, stop: AtomicBool::new(false), unkept: AtomicU64::new(0) }
    }
}

fn lacking(
    store: &LocalStore,
    live: &Live,
    of: impl Fn(Kind) -> bool,
) -> Result<BTreeSet<(Kind, Digest)>, RemoteError> {
    let mut lacking = BTreeSet::new();
    for (kind, digest) in live.iter().filter(|(kind, _)| of(*kind)) {
        if store.length(*kind, *digest)?.is_none() {
            lacking.insert((*kind, *digest));
        }
    }
    Ok(lacking)
}

/// One fetch, from begin to end.
struct Trip<'a> {
    store: &'a LocalStore,
    way: Way<'a>,
    stop: AtomicBool,
    /// How many bytes have come since they were kept last.
    unkept: AtomicU64,
}

/// Some records of one pack that lie near each other, in their order.
pub(super) struct Stretch {
    pub(super) pack: Digest,
    pub(super) span: Range<u64>,
    pub(super) records: Vec<Placed>,
}

impl Stretch {
    /// Returns the bytes of one of its records out of those of the stretch; `None` if they are too few.
    pub(super) fn record<'b>(&self, placed: &Placed, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let span = placed.span();
        let within = |at: u64| usize::try_from(at.checked_sub(self.span.start)?).ok();
        bytes.get(within(span.start)?..within(span.end)?)
    }
}

impl Trip<'_> {
    /// Fetches what the remote has of these objects; returns how many that were.
    fn fetch_objects(&self, objects: &BTreeSet<(Kind, Digest)>) -> Result<u64, RemoteError> {
        let mut parts = BTreeSet::new();
        let mut lists = BTreeSet::new();
        for (kind, digest) in objects {
            let (object, list) = (Part::object(*kind, *digest), Part::list(*digest));
            if self.way.catalog.has(object) {
                parts.insert(object);
            } else if *kind == Kind::Blob && self.way.catalog.has(list) {
                lists.insert(list);
            }
        }
        // Lists of pieces tell which pieces there are; they are taken once those are here.
        let listed = self.read_lists(&lists)?;
        for (_, _, pieces) in &listed {
            for piece in pieces {
                if !self.store.has_part(*piece)? {
                    parts.insert(*piece);
                }
            }
        }
        let objects = parts.iter().filter(|part| part.as_object().is_some()).count() + listed.len();
        self.take_all(&parts)?;
        let mut received = objects as u64;
        for (placed, bytes, pieces) in listed {
            let is_whole = pieces.iter().map(|piece| self.store.has_part(*piece)).collect::<Result<Vec<_>, _>>()?;
            if is_whole.contains(&false) {
                // The remote does not have all of it; that is for whoever needs the object to tell.
                received -= 1;
            } else if self.store.take_record(&placed, &bytes)? == Taken::Wrong {
                return Err(self.wrong(placed.part()));
            }
        }
        Ok(received)
    }

    fn read_lists(&self, lists: &BTreeSet<Part>) -> Result<Vec<(Placed, Vec<u8>, Vec<Part>)>, RemoteError> {
        let listed = Mutex::new(Vec::new());
        self.visit(lists, &|placed, bytes| {
            let pieces = pieces_of(placed, bytes).ok_or_else(|| self.wrong(placed.part()))?;
            listed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((*placed, bytes.to_vec(), pieces));
            Ok(())
        })?;
        Ok(listed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn take_all(&self, parts: &BTreeSet<Part>) -> Result<(), RemoteError> {
        self.visit(parts, &|placed, bytes| match self.store.take_record(placed, bytes)? {
            Taken::Wrong => Err(self.wrong(placed.part())),
            Taken::New | Taken::Known => Ok(()),
        })
    }

    fn wrong(&self, part: Part) -> RemoteError {
        let pack = self.way.catalog.find(part).map(|(pack, _)| catalog::pack_file(pack));
        RemoteError::Wrong { file: pack.unwrap_or_default() }
    }

    /// Reads records, those of one pack in their order, over several ways at once.
    fn visit(
        &self,
        parts: &BTreeSet<Part>,
        visit: &(dyn Fn(&Placed, &[u8]) -> Result<(), RemoteError> + Sync),
    ) -> Result<(), RemoteError> {
        let mut by_pack: BTreeMap<Digest, Vec<Placed>> = BTreeMap::new();
        for part in parts {
            if let Some((pack, placed)) = self.way.catalog.find(*part) {
                by_pack.entry(pack).or_default().push(placed);
            }
        }
        let may_keep = !parts.iter().any(|part| part.as_object().is_some_and(|(kind, _)| is_telling(kind)));
        let jobs = self.way.jobs.max(1);
        let bytes: u64 = by_pack.values().flatten().map(|placed| placed.span().end - placed.span().start).sum();
        let most_bytes = bytes.div_ceil(jobs as u64).max(SPAN_BYTES);
        let stretches: Vec<Stretch> =
            by_pack.into_iter().flat_map(|(pack, records)| stretches(pack, records, most_bytes)).collect();
        let next = Mutex::new(stretches.into_iter());
        std::thread::scope(|scope| {
            let work = || -> Result<(), RemoteError> {
                loop {
                    let stretch = next.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
                    let Some(stretch) = stretch else { return Ok(()) };
                    if self.stop.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    self.visit_stretch(&stretch, visit, may_keep)
                        .inspect_err(|_| self.stop.store(true, Ordering::Relaxed))?;
                }
            };
            let workers: Vec<_> = (1..jobs).map(|_| scope.spawn(work)).collect();
            let own = work();
            let others = workers
                .into_iter()
                .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            others.fold(own, Result::and)
        })
    }

    fn visit_stretch(
        &self,
        stretch: &Stretch,
        visit: &(dyn Fn(&Placed, &[u8]) -> Result<(), RemoteError> + Sync),
        may_keep: bool,
    ) -> Result<(), RemoteError> {
        let file = catalog::pack_file(stretch.pack);
        let mut gathering = Gathering::of(stretch);
        let mut taken = Ok(());
        self.way.bucket.stream_span(&file, stretch.span.clone(), &mut |piece| {
            taken = gathering.take(piece, visit).and_then(|()| self.account(piece.len() as u64, may_keep));
            taken.is_ok() && !self.stop.load(Ordering::Relaxed)
        })?;
        taken?;
        // Another way failed, and tells why.
        let is_stopped = self.stop.load(Ordering::Relaxed);
        if is_stopped || gathering.is_whole() { Ok(()) } else { Err(RemoteError::Wrong { file }) }
    }

    /// Tells of bytes that have come, and keeps what has come if that is much.
    fn account(&self, bytes: u64, may_keep: bool) -> Result<(), RemoteError> {
        if !(self.way.progress)(bytes) {
            return Err(RemoteError::Interrupted);
        }
        let before = self.unkept.fetch_add(bytes, Ordering::Relaxed);
        if may_keep && before + bytes >= KEPT_EVERY_BYTES && self.unkept.swap(0, Ordering::Relaxed) > 0 {
            self.store.sync()?;
        }
        Ok(())
    }
}

/// Puts the records of a stretch together out of the pieces in which it comes.
struct Gathering<'a> {
    left: std::slice::Iter<'a, Placed>,
    next: Option<&'a Placed>,
    /// Where in the pack the next piece begins.
    at: u64,
    /// What has come of the next record.
    begun: Vec<u8>,
}

impl<'a> Gathering<'a> {
    fn of(stretch: &'a Stretch) -> Self {
        let mut left = stretch.records.iter();
        Self { next: left.next(), left, at: stretch.span.start, begun: Vec::new() }
    }

    /// Returns whether all records have come.
    fn is_whole(&self) -> bool {
        self.next.is_none()
    }

    /// Takes the next piece, and visits each record that it completes.
    fn take(
        &mut self,
        mut piece: &[u8],
        visit: &(dyn Fn(&Placed, &[u8]) -> Result<(), RemoteError> + Sync),
    ) -> Result<(), RemoteError> {
        while let Some(placed) = self.next {
            let span = placed.span();
            let up_to = |end: u64| usize::try_from(end.saturating_sub(self.at)).unwrap_or(usize::MAX).min(piece.len());
            let (gap, rest) = (up_to(span.start), up_to(span.end));
            let came = &piece[gap..rest];
            self.at += rest as u64;
            piece = &piece[rest..];
            if self.at < span.end {
                self.begun.extend_from_slice(came);
                return Ok(());
            }
            // Most records are shorter than a piece, and need not be copied.
            if self.begun.is_empty() {
                visit(placed, came)?;
            } else {
                self.begun.extend_from_slice(came);
                visit(placed, &self.begun)?;
                self.begun.clear();
            }
            self.next = self.left.next();
        }
        Ok(())
    }
}

/// Returns what is read at once, so that little is read in vain and few requests are made.
/// No stretch is longer than about `most_bytes` by more than one record. Those of a long way through a pack are alike.
pub(super) fn stretches(pack: Digest, mut records: Vec<Placed>, most_bytes: u64) -> Vec<Stretch> {
    records.sort_unstable_by_key(|placed| placed.span().start);
    let bytes: u64 = records.iter().map(|placed| placed.span().end - placed.span().start).sum();
    // A short rest would be a request that costs some servers as much as all the others.
    let parts = ((bytes + most_bytes / 2) / most_bytes).max(1);
    let most_bytes = most_bytes.max(bytes.div_ceil(parts));
    let mut stretches: Vec<Stretch> = Vec::new();
    for placed in records {
        let span = placed.span();
        match stretches.last_mut() {
            Some(last)
                if span.start >= last.span.end
                    && span.start - last.span.end <= GAP_BYTES
                    && last.span.end - last.span.start < most_bytes =>
            {
                last.span.end = span.end;
                last.records.push(placed);
            }
            // Records that lie over each other are somebody's trick; each is read for itself.
            _ => stretches.push(Stretch { pack, span, records: vec![placed] }),
        }
    }
    stretches
}
