//! A machine of a team: a store, and what it remembers of a remote.

use pv::hash::Digest;
use pv::object::Kind;
use pv::remote::{Bucket, Catalog, Fetched, RemoteError, Sent, Shipment, Way};
use pv::store::{Live, LocalStore, Store};
use tempfile::TempDir;

use super::contract::noise;

pub(super) struct Machine {
    pub(super) store: LocalStore,
    pub(super) objects: Live,
    directory: TempDir,
}

impl Machine {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = LocalStore::open(&directory.path().join("store")).unwrap();
        Self { store, objects: Live::new(), directory }
    }

    /// Returns a machine with many small objects and a large one; another `seed` makes others.
    pub(super) fn with_objects(seed: u64, large_bytes: usize) -> Self {
        let mut machine = Self::new();
        for number in 0..40 {
            machine.put(&noise(1 + 700 * number, seed * 1000 + number as u64));
        }
        machine.put(&noise(large_bytes, seed));
        machine.store.sync().unwrap();
        machine
    }

    fn put(&mut self, bytes: &[u8]) -> Digest {
        let digest = self.store.put_bytes(Kind::Blob, bytes).unwrap().digest;
        self.objects.insert((Kind::Blob, digest));
        digest
    }

    pub(super) fn push(&self, bucket: &dyn Bucket) -> Result<Sent, RemoteError> {
        let mut catalog = self.catalog(bucket)?;
        let shipment = Shipment::plan(&self.store, bucket, &catalog, &self.objects)?;
        shipment.send(&self.store, bucket, &mut catalog, 3, &|_| true)
    }

    pub(super) fn pull(&self, bucket: &dyn Bucket, objects: &Live) -> Result<Fetched, RemoteError> {
        let catalog = self.catalog(bucket)?;
        let way = Way { bucket, catalog: &catalog, jobs: 3, progress: &|_| true };
        let lacking = way.survey(&self.store, &|_: &LocalStore| Ok::<_, RemoteError>(objects.clone()))?;
        way.fetch(&self.store, &lacking)
    }

    fn catalog(&self, bucket: &dyn Bucket) -> Result<Catalog, RemoteError> {
        Catalog::open(bucket, &self.directory.path().join("remote"))
    }

    /// Panics unless this machine has every object of the other, bit by bit.
    pub(super) fn assert_has_all_of(&self, other: &Self) {
        for (kind, digest) in &other.objects {
            assert!(self.store.get(*kind, *digest).unwrap() == other.store.get(*kind, *digest).unwrap(), "{digest}");
        }
    }

    /// Panics if something is in the store of this machine that is not what it is called.
    pub(super) fn assert_is_sound(&self) {
        for digest in self.store.find(Kind::Blob, "").unwrap() {
            self.store.get(Kind::Blob, digest).unwrap();
        }
    }
}
