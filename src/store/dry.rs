//! A store that only says what would be stored.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Mutex;

use super::verified::Verified;
use super::{MemoryStore, Put, Source, Store, StoreError, source};
use crate::hash::Digest;
use crate::object::Kind;

/// A store over another one, into which nothing is written.
///
/// The bytes of files stay where they are, and are read from there if they are
/// asked for; everything else that is put is kept in memory. All else is read
/// from the store below.
pub struct DryStore<'a> {
    below: &'a dyn Store,
    kept: MemoryStore,
    files: Mutex<BTreeMap<Digest, PathBuf>>,
    names_only: bool,
}

impl<'a> DryStore<'a> {
    /// Returns a store that reads from `below`.
    pub fn over(below: &'a dyn Store) -> Self {
        Self { below, kept: MemoryStore::default(), files: Mutex::default(), names_only: false }
    }

    /// Returns a store that reads from `below`, for whoever wants to know what things are called and not what is in them.
    ///
    /// It never asks for the bytes of an object whose name is known, so what `below` lost cannot be read from it either.
    pub fn of_names(below: &'a dyn Store) -> Self {
        Self { names_only: true, ..Self::over(below) }
    }
}

impl Store for DryStore<'_> {
    /// Hashes the bytes. `new` says whether the store below lacks them, however often they were put here.
    fn put(&self, kind: Kind, source: Source<'_>) -> Result<Put, StoreError> {
        let (digest, size) = match (kind, source) {
            (Kind::Blob, Source::File(path)) => {
                let (digest, size) = source.digest(kind)?;
                self.files.lock().expect("no holder panics").insert(digest, path.to_owned());
                (digest, size)
            }
            _ => {
                let kept = self.kept.put(kind, source)?;
                (kept.digest, kept.size)
            }
        };
        let new = self.below.length(kind, digest)? != Some(size);
        Ok(Put { digest, size, new })
    }

    fn open(&self, kind: Kind, digest: Digest) -> Result<Box<dyn Read + Send>, StoreError> {
        match self.kept.open(kind, digest) {
            Err(StoreError::Missing { .. }) => {}
            opened => return opened,
        }
        let file = match kind {
            Kind::Blob => self.files.lock().expect("no holder panics").get(&digest).cloned(),
            _ => None,
        };
        match file {
            // It may have been changed since; then the reader says so.
            Some(path) => Ok(Box::new(Verified::new(source::open(&path)?, kind, digest))),
            None => self.below.open(kind, digest),
        }
    }

    fn length(&self, kind: Kind, digest: Digest) -> Result<Option<u64>, StoreError> {
        // Most of what is asked for is below, and many threads ask.
        match self.below.length(kind, digest)? {
            None => self.kept.length(kind, digest),
            length => Ok(length),
        }
    }

    fn is_kept(&self, kind: Kind, digest: Digest, length: u64) -> Result<bool, StoreError> {
        Ok(self.names_only || self.length(kind, digest)? == Some(length))
    }

    fn find(&self, kind: Kind, hex_prefix: &str) -> Result<Vec<Digest>, StoreError> {
        let mut found: BTreeSet<_> = self.below.find(kind, hex_prefix)?.into_iter().collect();
        found.extend(self.kept.find(kind, hex_prefix)?);
        Ok(found.into_iter().collect())
    }

    /// Does nothing: nothing was written.
    fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_store_below() {
        let below = MemoryStore::default();
        let there = below.put_bytes(Kind::Blob, b"there").unwrap();
        below.fail_after(1);
        let dry = DryStore::over(&below);
        assert!(!dry.put_bytes(Kind::Blob, b"there").unwrap().new);
        assert!(dry.put_bytes(Kind::Blob, b"fresh").unwrap().new);
        assert!(dry.put_bytes(Kind::Tree, b"tree").unwrap().new);
        assert!(dry.put_bytes(Kind::Tree, b"tree").unwrap().new, "the store below still lacks it");
        dry.sync().unwrap();
        assert_eq!(below.find(Kind::Blob, "").unwrap(), [there.digest]);
        assert_eq!(below.find(Kind::Tree, "").unwrap(), []);
    }

    #[test]
    fn structure_can_be_read_back_and_file_bytes_come_from_below() {
        let below = MemoryStore::default();
        let there = below.put_bytes(Kind::Blob, b"there").unwrap().digest;
        let old = below.put_bytes(Kind::Tree, b"old").unwrap().digest;
        let dry = DryStore::over(&below);
        let fresh = dry.put_bytes(Kind::Blob, b"fresh").unwrap().digest;
        let tree = dry.put_bytes(Kind::Tree, b"tree").unwrap().digest;
        assert_eq!(dry.get(Kind::Tree, tree).unwrap(), b"tree");
        assert_eq!(dry.length(Kind::Tree, tree).unwrap(), Some(4));
        assert_eq!(dry.get(Kind::Tree, old).unwrap(), b"old");
        assert_eq!(dry.get(Kind::Blob, there).unwrap(), b"there");
        assert_eq!(dry.get(Kind::Blob, fresh).unwrap(), b"fresh");
        let mut both = vec![old, tree];
        both.sort();
        assert_eq!(dry.find(Kind::Tree, "").unwrap(), both);
    }

    #[test]
    fn who_asks_for_names_only_need_not_put_what_the_store_below_lost() {
        let below = MemoryStore::default();
        let lost = Kind::Blob.digest(b"lost");
        assert!(!DryStore::over(&below).is_kept(Kind::Blob, lost, 4).unwrap());
        assert!(DryStore::of_names(&below).is_kept(Kind::Blob, lost, 4).unwrap());
        assert_eq!(DryStore::of_names(&below).length(Kind::Blob, lost).unwrap(), None);
    }

    #[test]
    fn a_file_is_read_from_where_it_is_and_a_change_is_told() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        crate::disk::write_whole(&path, b"in a file", crate::disk::Durability::Deferred).unwrap();
        let below = MemoryStore::default();
        let dry = DryStore::over(&below);
        let put = dry.put(Kind::Blob, Source::File(&path)).unwrap();
        assert_eq!(put, Put { digest: Kind::Blob.digest(b"in a file"), size: 9, new: true });
        assert_eq!(dry.get(Kind::Blob, put.digest).unwrap(), b"in a file");
        assert!(matches!(below.get(Kind::Blob, put.digest), Err(StoreError::Missing { .. })));
        crate::disk::write_whole(&path, b"not now!!", crate::disk::Durability::Deferred).unwrap();
        assert!(matches!(dry.get(Kind::Blob, put.digest), Err(StoreError::Corrupt { .. })));
    }
}
