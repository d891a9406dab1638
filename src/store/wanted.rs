//! A store that keeps only what is wanted of all that is put.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::{Mutex, PoisonError};

use super::{DryStore, Put, Source, Store, StoreError};
use crate::hash::Digest;
use crate::object::Kind;

/// A store over another one, into which nothing is written but objects that are wanted.
///
/// All else that is put stays where it is or in memory, as in a [`DryStore`].
/// So whatever makes objects again can be asked for the few that were lost.
pub struct WantedStore<'a> {
    dry: DryStore<'a>,
    below: &'a dyn Store,
    wanted: &'a BTreeSet<(Kind, Digest)>,
    found: Mutex<BTreeSet<(Kind, Digest)>>,
}

impl<'a> WantedStore<'a> {
    /// Returns a store that puts what is `wanted` into `below`.
    pub fn over(below: &'a dyn Store, wanted: &'a BTreeSet<(Kind, Digest)>) -> Self {
        Self { dry: DryStore::over(below), below, wanted, found: Mutex::default() }
    }

    /// Returns what was put of all that was wanted.
    pub fn into_found(self) -> BTreeSet<(Kind, Digest)> {
        self.found.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for WantedStore<'_> {
    fn put(&self, kind: Kind, source: Source<'_>) -> Result<Put, StoreError> {
        let put = self.dry.put(kind, source)?;
        if self.wanted.contains(&(kind, put.digest)) {
            // A file may have changed between the two readings; then it is not the one.
            let kept = self.below.put(kind, source)?;
            if kept.digest == put.digest {
                self.found.lock().unwrap_or_else(PoisonError::into_inner).insert((kind, put.digest));
            }
        }
        Ok(put)
    }

    fn open(&self, kind: Kind, digest: Digest) -> Result<Box<dyn Read + Send>, StoreError> {
        self.dry.open(kind, digest)
    }

    fn length(&self, kind: Kind, digest: Digest) -> Result<Option<u64>, StoreError> {
        self.dry.length(kind, digest)
    }

    fn find(&self, kind: Kind, hex_prefix: &str) -> Result<Vec<Digest>, StoreError> {
        self.dry.find(kind, hex_prefix)
    }

    /// Does nothing: the store below is synced by whoever has it.
    fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    #[test]
    fn only_what_is_wanted_reaches_the_store_below_and_all_can_be_read_back() {
        let below = MemoryStore::default();
        let (wanted, other) = (Kind::Tree.digest(b"wanted"), Kind::Tree.digest(b"other"));
        let all_wanted = BTreeSet::from([(Kind::Tree, wanted), (Kind::Blob, Digest::of(b"never put"))]);
        let store = WantedStore::over(&below, &all_wanted);
        for bytes in [&b"wanted"[..], b"other"] {
            store.put_bytes(Kind::Tree, bytes).unwrap();
            store.put_bytes(Kind::Blob, bytes).unwrap();
        }
        assert_eq!(store.get(Kind::Tree, other).unwrap(), b"other");
        assert_eq!(store.into_found(), BTreeSet::from([(Kind::Tree, wanted)]));
        assert_eq!(below.find(Kind::Tree, "").unwrap(), [wanted]);
        assert_eq!(below.find(Kind::Blob, "").unwrap(), []);
    }
}
