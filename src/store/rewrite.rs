//! Taking records of a pack over into a new one, as they are stored.
//!
//! Nothing is decoded and nothing is compressed again. The copies are staged
//! like everything that is put: the next sync makes them durable and then
//! visible, and only after that may the old pack go.

use std::fs::File;

use super::pack::{Entry, Pack, Record, read_record};
use super::{LocalStore, StoreError};

/// What became of the records that were to be copied.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// How many records are in the new pack now, those included that were staged already.
    pub(super) records: u64,
    /// How many bytes of them are stored, without headers.
    pub(super) stored_bytes: u64,
    /// Where no record lies that fits its entry, so nothing was copied.
    pub(super) damaged: Vec<Entry>,
}

/// Stages a copy of every record of `pack` whose entry `keep` picks. The next sync publishes them.
///
/// Costs one read and one write of what is copied, and memory for one record.
/// Only headers are checked, and recipes as a whole: a record whose stored
/// bytes were damaged is damaged in the copy, too, and is told by its digest.
///
/// # Errors
///
/// [`StoreError::Disk`] if the pack cannot be read or the copy not be written.
pub(super) fn copy_records(
    store: &LocalStore,
    pack: &Pack,
    keep: impl Fn(&Entry) -> bool,
) -> Result<Copied, StoreError> {
    // In the order in which they lie, so that the old pack is read from its begin to its end.
    let mut entries: Vec<_> = pack.entries().filter(|entry| keep(entry)).collect();
    entries.sort_unstable_by_key(|entry| entry.offset);
    copy_entries(store, pack.file(), entries)
}

/// Stages a copy of the records at `entries` of `file`, as [`copy_records`] does.
pub(super) fn copy_entries(
    store: &LocalStore,
    file: &File,
    entries: impl IntoIterator<Item = Entry>,
) -> Result<Copied, StoreError> {
    let mut copied = Copied::default();
    for entry in entries {
        let Some(stored) = read_record(file, &entry).map_err(|error| store.unreadable(error))? else {
            copied.damaged.push(entry);
            continue;
        };
        let Entry { digest, tag, codec, length, .. } = entry;
        let record = Record { tag, digest, codec, stored: &stored.bytes, raw: stored.raw, length };
        store.staging.append(&record, &store.packs, || store.session_directory())?;
        copied.records += 1;
        copied.stored_bytes += stored.bytes.len() as u64;
    }
    Ok(copied)
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::super::contract::long;
    use super::*;
    use crate::disk;
    use crate::object::Kind;

    fn only_pack(store: &LocalStore) -> std::sync::Arc<Pack> {
        let packs = store.packs.all().unwrap();
        assert_eq!(packs.len(), 1);
        std::sync::Arc::clone(&packs[0])
    }

    #[test]
    fn what_is_copied_outlives_the_pack_that_it_came_from() {
        let root = tempfile::tempdir().unwrap();
        let (small, large) = (b"small".to_vec(), long(300_000));
        let (old, kept, dropped) = {
            let store = LocalStore::open(root.path()).unwrap();
            let kept = [&small, &large].map(|bytes| store.put_bytes(Kind::Blob, bytes).unwrap().digest);
            let dropped = store.put_bytes(Kind::Tree, b"dropped").unwrap().digest;
            store.sync().unwrap();
            let old = only_pack(&store);
            let copied = copy_records(&store, &old, |entry| entry.digest != dropped).unwrap();
            assert_eq!((copied.records, copied.damaged.len()), (old.count() as u64 - 1, 0));
            store.sync().unwrap();
            (root.path().join("packs").join(super::super::pack::file_name(old.name())), kept, dropped)
        };
        disk::remove_tree(&old).unwrap();
        let store = LocalStore::open(root.path()).unwrap();
        for (digest, bytes) in kept.into_iter().zip([small, large]) {
            assert_eq!(store.get(Kind::Blob, digest).unwrap(), bytes);
            assert_eq!(store.length(Kind::Blob, digest).unwrap(), Some(bytes.len() as u64));
        }
        assert!(matches!(store.get(Kind::Tree, dropped), Err(StoreError::Missing { .. })));
        assert!(only_pack(&store).index_is_whole());
    }

    #[test]
    fn a_record_whose_header_is_damaged_is_told_and_not_copied() {
        use std::os::unix::fs::FileExt;
        let root = tempfile::tempdir().unwrap();
        let store = LocalStore::open(root.path()).unwrap();
        let digest = store.put_bytes(Kind::Blob, b"weights").unwrap().digest;
        store.put_bytes(Kind::Blob, b"others").unwrap();
        store.sync().unwrap();
        let pack = only_pack(&store);
        let entry = pack.entries().find(|entry| entry.digest == digest).unwrap();
        let path = root.path().join("packs").join(super::super::pack::file_name(pack.name()));
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(b"?", entry.offset + 20).unwrap();
        let copied = copy_records(&store, &pack, |_| true).unwrap();
        assert_eq!((copied.records, copied.damaged), (1, vec![entry]));
    }
}
