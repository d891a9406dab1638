//! A store in memory, for tests: it can be damaged, fails on demand, and counts what is read.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::verified::Verified;
use super::{Put, Source, Store, StoreError, has_prefix};
use crate::disk::DiskError;
use crate::hash::Digest;
use crate::object::Kind;

/// A store in memory. What is put is kept at once; a sync has nothing to do.
#[derive(Default)]
pub struct MemoryStore(Mutex<State>);

#[derive(Default)]
struct State {
    objects: BTreeMap<(Kind, Digest), Arc<Vec<u8>>>,
    reads: BTreeMap<Kind, u64>,
    writes_until_failure: Option<u64>,
}

impl MemoryStore {
    /// Returns how often objects of each kind were opened, there or not. Kinds never opened are left out.
    pub fn reads(&self) -> BTreeMap<Kind, u64> {
        self.state().reads.clone()
    }

    /// Flips one bit of the object. An empty object has none to flip.
    pub fn flip_bit(&self, kind: Kind, digest: Digest) {
        self.damage(kind, digest, |bytes| {
            if let Some(byte) = bytes.last_mut() {
                *byte ^= 1;
            }
        });
    }

    /// Cuts off the second half of the object.
    pub fn truncate(&self, kind: Kind, digest: Digest) {
        self.damage(kind, digest, |bytes| bytes.truncate(bytes.len() / 2));
    }

    /// Removes the object.
    pub fn remove(&self, kind: Kind, digest: Digest) {
        self.state().objects.remove(&(kind, digest));
    }

    /// Lets the `count`-th put or sync from now on fail, and no other; 1 is the next one.
    pub fn fail_after(&self, count: u64) {
        self.state().writes_until_failure = Some(count);
    }

    fn damage(&self, kind: Kind, digest: Digest, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(bytes) = self.state().objects.get_mut(&(kind, digest)) {
            change(Arc::make_mut(bytes));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts one write, and fails if it is the one that should.
    fn write(&mut self) -> Result<(), StoreError> {
        let left = self.writes_until_failure.take();
        if left == Some(1) {
            let source = io::Error::other("a failure was asked for");
            return Err(DiskError { action: "write", path: PathBuf::from("memory"), source }.into());
        }
        self.writes_until_failure = left.map(|left| left - 1);
        Ok(())
    }
}

impl Store for MemoryStore {
    fn put(&self, kind: Kind, source: Source<'_>) -> Result<Put, StoreError> {
        let bytes = source.bytes()?;
        let (digest, size) = (kind.digest(&bytes), bytes.len() as u64);
        let mut state = self.state();
        state.write()?;
        let known = state.objects.get(&(kind, digest)).is_some_and(|there| there.len() == bytes.len());
        if !known {
            state.objects.insert((kind, digest), Arc::new(bytes.into_owned()));
        }
        Ok(Put { digest, size, new: !known })
    }

    fn open(&self, kind: Kind, digest: Digest) -> Result<Box<dyn Read + Send>, StoreError> {
        let mut state = self.state();
        *state.reads.entry(kind).or_default() += 1;
        let bytes = state.objects.get(&(kind, digest)).ok_or(StoreError::Missing { kind, digest })?;
        let reader = io::Cursor::new(SharedBytes(Arc::clone(bytes)));
        Ok(Box::new(Verified::new(reader, kind, digest)))
    }

    fn length(&self, kind: Kind, digest: Digest) -> Result<Option<u64>, StoreError> {
        Ok(self.state().objects.get(&(kind, digest)).map(|bytes| bytes.len() as u64))
    }

    fn find(&self, kind: Kind, hex_prefix: &str) -> Result<Vec<Digest>, StoreError> {
        let state = self.state();
        let digests = state.objects.keys().filter(|(of, _)| *of == kind).map(|(_, digest)| *digest);
        Ok(digests.filter(|digest| has_prefix(&digest.to_string(), hex_prefix)).collect())
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.state().write()
    }
}

/// The bytes of an object, kept while they are read even if the object is removed.
struct SharedBytes(Arc<Vec<u8>>);

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_write_that_was_asked_to_fail_fails_and_no_other() {
        let store = MemoryStore::default();
        store.fail_after(2);
        let kept = store.put_bytes(Kind::Blob, b"kept").unwrap();
        assert!(matches!(store.put_bytes(Kind::Blob, b"lost"), Err(StoreError::Disk(_))));
        store.sync().unwrap();
        assert_eq!(store.find(Kind::Blob, "").unwrap(), [kept.digest]);
        store.fail_after(1);
        assert!(matches!(store.sync(), Err(StoreError::Disk(_))));
    }

    #[test]
    fn what_is_opened_is_counted_by_kind() {
        let store = MemoryStore::default();
        let digest = store.put_bytes(Kind::Tree, b"x").unwrap().digest;
        store.get(Kind::Tree, digest).unwrap();
        store.get(Kind::Tree, digest).unwrap();
        store.get(Kind::Blob, digest).unwrap_err();
        store.length(Kind::Snapshot, digest).unwrap();
        assert_eq!(store.reads(), BTreeMap::from([(Kind::Tree, 2), (Kind::Blob, 1)]));
    }

    #[test]
    fn a_removed_object_is_missing() {
        let store = MemoryStore::default();
        let digest = store.put_bytes(Kind::Blob, b"x").unwrap().digest;
        store.remove(Kind::Blob, digest);
        assert!(matches!(store.get(Kind::Blob, digest), Err(StoreError::Missing { .. })));
        assert!(store.put_bytes(Kind::Blob, b"x").unwrap().new);
    }
}
