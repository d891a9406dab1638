//! Sending: what the remote lacks, in packs, each followed by its index.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::bucket::{Body, Bucket};
use super::catalog::{self, Catalog};
use super::lease::Lease;
use super::{Progress, RemoteError};
use crate::hash::Digest;
use crate::object::Kind;
use crate::store::{Live, LocalStore, Parcel, Part, Parts};

/// So many records are asked for at once where the other side tells what it has.
const ASKED_AT_ONCE: usize = 100_000;

/// What is to be sent, and what need not be.
#[derive(Debug, Default)]
pub struct Shipment {
    /// How many objects it is about.
    pub objects: u64,
    /// How many of them the remote has already, as far as it has all of them.
    pub skipped: u64,
    /// Objects that are not in this store, nor in the remote.
    pub missing: BTreeSet<(Kind, Digest)>,
    wanted: BTreeSet<Part>,
    files: BTreeSet<(Kind, Digest)>,
}

/// What was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sent {
    /// How many objects the remote has now and had not before.
    pub objects: u64,
    /// How many records they were, pieces of large files counted each.
    pub records: u64,
    /// How many packs they went in.
    pub packs: u64,
}

impl Shipment {
    /// Returns what of `live` the remote lacks.
    ///
    /// Costs a look at each object here, and at what is remembered of the remote; no request, unless the other side
    /// tells by itself what it has.
    ///
    /// # Errors
    ///
    /// [`RemoteError`] if the store cannot be read, or the remote not be asked.
    pub fn plan(store: &LocalStore, bucket: &dyn Bucket, catalog: &Catalog, live: &Live) -> Result<Self, RemoteError> {
        let mut shipment = Self { objects: live.len() as u64, ..Self::default() };
        // What lies in a pack that the remote has as well is there, and its index need not be looked into.
        let kept: BTreeSet<Digest> = catalog.kept_packs().collect();
        for (kind, digest) in live {
            if store.is_in_packs(*kind, *digest, &kept)? {
                shipment.skipped += 1;
                continue;
            }
            let (parts, is_file) = match store.parts_of(*kind, *digest)? {
                Parts::Records(parts) => (parts, false),
                Parts::File(parts) => (parts, true),
                Parts::Absent => {
                    let is_there = catalog.keeps(Part::object(*kind, *digest)) || catalog.keeps(Part::list(*digest));
                    if is_there {
                        shipment.skipped += 1;
                    } else {
                        shipment.missing.insert((*kind, *digest));
                    }
                    continue;
                }
            };
            let before = shipment.wanted.len();
            let lacking = parts.into_iter().filter(|part| !catalog.keeps(*part));
            shipment.wanted.extend(lacking);
            if shipment.wanted.len() == before {
                shipment.skipped += 1;
            } else if is_file {
                shipment.files.insert((*kind, *digest));
            }
        }
        shipment.ask(bucket)?;
        Ok(shipment)
    }

    /// Returns these records, to be sent whether or not the remote has them.
    pub(super) fn of(wanted: BTreeSet<Part>) -> Self {
        let objects = wanted.iter().filter(|part| part.as_object().is_some()).count() as u64;
        Self { objects, wanted, ..Self::default() }
    }

    /// Leaves out what the other side says that it has.
    fn ask(&mut self, bucket: &dyn Bucket) -> Result<(), RemoteError> {
        let parts: Vec<Part> = self.wanted.iter().copied().collect();
        for parts in parts.chunks(ASKED_AT_ONCE) {
            let Some(known) = bucket.known(parts)? else { return Ok(()) };
            for (part, _) in parts.iter().zip(known).filter(|(_, is_known)| *is_known) {
                self.wanted.remove(part);
            }
        }
        Ok(())
    }

    /// Returns whether the remote has everything.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Returns how many records are to be sent.
    pub fn records(&self) -> u64 {
        self.wanted.len() as u64
    }

    /// Returns about how many bytes that is on the wire.
    ///
    /// # Errors
    ///
    /// [`RemoteError::Store`] if the store cannot be asked.
    pub fn bytes(&self, store: &LocalStore) -> Result<u64, RemoteError> {
        Ok(store.stored_bytes(&self.wanted)?)
    }

    /// Sends it over `jobs` ways at once. What was sent stays sent when this fails: the next time it is skipped.
    ///
    /// Takes memory for about two packs beside those on their way.
    ///
    /// # Errors
    ///
    /// [`RemoteError::Occupied`] if something else lies there, [`RemoteError::Changed`] if packs were condemned since the
    /// catalog was read: plan again with it, it is refreshed then; [`RemoteError::Interrupted`] if `progress` wants no more,
    /// [`RemoteError::Store`] if an object is damaged here or gone, else what the remote says.
    pub fn send(
        &self,
        store: &LocalStore,
        bucket: &dyn Bucket,
        catalog: &mut Catalog,
        jobs: usize,
        progress: Progress<'_>,
    ) -> Result<Sent, RemoteError> {
        let mut sent = Sent { objects: self.objects - self.skipped - self.missing.len() as u64, ..Sent::default() };
        if self.wanted.is_empty() {
            return Ok(sent);
        }
        catalog::establish(bucket)?;
        let lease = Lease::take(bucket, catalog.condemnations())?;
        let progress = &|bytes| {
            lease.renew();
            progress(bytes)
        };
        let stop = AtomicBool::new(false);
        // A pack under the name of one that is going to go would go with it.
        let taken = catalog.condemned().clone();
        let arrived = std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel::<Parcel>(0);
            // Once the last worker has ended, nobody receives, and whoever packs finds out.
            let receiver = Arc::new(Mutex::new(receiver));
            let workers: Vec<_> = (0..jobs.max(1))
                .map(|_| {
                    let (receiver, bucket, stop) = (Arc::clone(&receiver), bucket, &stop);
                    scope.spawn(move || carry(&receiver, bucket, progress, stop))
                })
                .collect();
            drop(receiver);
            let packed = self.pack_into(store, &taken, sender, &stop);
            // Each worker ends when there is nothing left, or at the first failure of any.
            let carried = workers
                .into_iter()
                .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            let carried: Result<Vec<_>, RemoteError> = carried.collect();
            let carried = carried?;
            packed?;
            Ok::<_, RemoteError>(carried.into_iter().flatten().collect::<Vec<_>>())
        })?;
        for Arrived { name, index, records } in &arrived {
            sent.packs += 1;
            sent.records += records;
            catalog.remember(*name, index)?;
        }
        catalog::write_list(bucket)?;
        Ok(sent)
    }

    fn pack_into(
        &self,
        store: &LocalStore,
        taken: &BTreeSet<Digest>,
        sender: SyncSender<Parcel>,
        stop: &AtomicBool,
    ) -> Result<(), RemoteError> {
        store.pack_up(&self.wanted, &self.files, taken, &mut |parcel| {
            // All workers have ended: one of them says why.
            if stop.load(Ordering::Relaxed) || sender.send(parcel).is_err() {
                return Err(RemoteError::Interrupted);
            }
            Ok(())
        })
    }
}

struct Arrived {
    name: Digest,
    index: Vec<u8>,
    records: u64,
}

/// Sends one pack after the other. Each counts once its index is there.
fn carry(
    receiver: &Mutex<Receiver<Parcel>>,
    bucket: &dyn Bucket,
    progress: Progress<'_>,
    stop: &AtomicBool,
) -> Result<Vec<Arrived>, RemoteError> {
    let mut arrived = Vec::new();
    loop {
        let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(parcel) = next else { return Ok(arrived) };
        if stop.load(Ordering::Relaxed) {
            return Ok(arrived);
        }
        let written = bucket
            .write(&catalog::pack_file(parcel.name), &Watched { parcel: &parcel, progress, stop })
            .and_then(|()| bucket.write(&catalog::index_file(parcel.name), &parcel.index.as_slice()));
        if let Err(error) = written {
            let is_interrupted = stop.swap(true, Ordering::Relaxed);
            return Err(if is_interrupted { RemoteError::Interrupted } else { error.into() });
        }
        arrived.push(Arrived { name: parcel.name, records: parcel.records, index: parcel.index });
    }
}

/// A pack on its way.
struct Watched<'a> {
    parcel: &'a Parcel,
    progress: Progress<'a>,
    stop: &'a AtomicBool,
}

impl Body for Watched<'_> {
    fn bytes(&self) -> u64 {
        self.parcel.bytes
    }

    fn reader(&self) -> Box<dyn Read + Send + '_> {
        Box::new(WatchedReader { reader: self.parcel.reader(), body: self })
    }
}

struct WatchedReader<'a> {
    reader: Box<dyn Read + Send + 'a>,
    body: &'a Watched<'a>,
}

impl Read for WatchedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.reader.read(buffer)?;
        if !(self.body.progress)(count as u64) {
            self.body.stop.store(true, Ordering::Relaxed);
        }
        if self.body.stop.load(Ordering::Relaxed) {
            return Err(std::io::Error::other("the transfer was interrupted"));
        }
        Ok(count)
    }
}
