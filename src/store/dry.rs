//! A store that only says what would be stored.

use std::collections::BTreeSet;
use std::io::Read;

use super::{MemoryStore, Put, Source, Store, StoreError};
use crate::hash::Digest;
use crate::object::Kind;

/// A store over another one, into which nothing is written.
///
/// The bytes of files are hashed and let go; objects of the other kinds are
/// kept in memory, so that what was put can be walked. All else is read from
/// the store below.
pub struct DryStore<'a> {
    below: &'a dyn Store,
    kept: MemoryStore,
}

impl<'a> DryStore<'a> {
    /// Returns a store that reads from `below`.
    pub fn over(below: &'a dyn Store) -> Self {
        Self { below, kept: MemoryStore::default() }
    }
}

impl Store for DryStore<'_> {
    /// Hashes the bytes. `new` says whether the store below lacks them, however often they were put here.
    fn put(&self, kind: Kind, source: Source<'_>) -> Result<Put, StoreError> {
        let (digest, size) = if kind == Kind::Blob {
            source.digest(kind)?
        } else {
            let kept = self.kept.put(kind, source)?;
            (kept.digest, kept.size)
        };
        let new = self.below.length(kind, digest)? != Some(size);
        Ok(Put { digest, size, new })
    }

    fn open(&self, kind: Kind, digest: Digest) -> Result<Box<dyn Read + Send>, StoreError> {
        match self.kept.open(kind, digest) {
            Err(StoreError::Missing { .. }) => self.below.open(kind, digest),
            opened => opened,
        }
    }

    fn length(&self, kind: Kind, digest: Digest) -> Result<Option<u64>, StoreError> {
        match self.kept.length(kind, digest)? {
            None => self.below.length(kind, digest),
            length => Ok(length),
        }
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
        assert!(matches!(dry.get(Kind::Blob, fresh), Err(StoreError::Missing { .. })));
        let mut both = vec![old, tree];
        both.sort();
        assert_eq!(dry.find(Kind::Tree, "").unwrap(), both);
    }

    #[test]
    fn a_file_is_hashed_but_not_kept() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        crate::disk::write_whole(&path, b"in a file", crate::disk::Durability::Deferred).unwrap();
        let below = MemoryStore::default();
        let put = DryStore::over(&below).put(Kind::Blob, Source::File(&path)).unwrap();
        assert_eq!(put, Put { digest: Kind::Blob.digest(b"in a file"), size: 9, new: true });
    }
}
