//! Merging small packs into one, so that a store of many small commits stays quick to look things up in.
//!
//! Everything of the small packs is in the new one before they go, so neither
//! readers nor writers take notice. Never while garbage is being collected:
//! what is condemned is named by the pack that it is in.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::condemned;
use super::pack::{Pack, file_name};
use super::rewrite::copy_records;
use super::{LocalStore, StoreError};
use crate::disk::{Change, Flush, Lock};

/// Packs below this size are small.
const SMALL_BYTES: u64 = 8 << 20;
/// More small packs than this are merged.
const SMALL_MAX: usize = 16;

/// Merges the small packs of the store if there are too many, and nobody else takes packs away just now.
///
/// Returns how many were merged. Costs one read and one write of what they hold, at most
/// [`SMALL_BYTES`] each, once in [`SMALL_MAX`] syncs; else nothing but a look at what is known.
///
/// # Errors
///
/// [`StoreError::Disk`] if something cannot be read or written. Every object is then still there.
pub(super) fn merge_small(store: &LocalStore) -> Result<usize, StoreError> {
    if small(store)?.len() <= SMALL_MAX {
        return Ok(0);
    }
    let Some(_collecting) = Lock::try_exclusive(&store.layout.collecting())? else { return Ok(0) };
    if condemned::is_under_way(&store.layout)? {
        return Ok(0);
    }
    // A value of its own: what `store` has staged meanwhile is not to be published here.
    let merging = LocalStore::open_on(Arc::clone(&store.disk), store.layout.root())?;
    merging.hold()?;
    let packs = small(&merging)?;
    let merged = if packs.len() > SMALL_MAX { merge(&merging, packs)? } else { 0 };
    store.packs.forget_gone()?;
    Ok(merged)
}

fn small(store: &LocalStore) -> Result<Vec<Arc<Pack>>, StoreError> {
    Ok(store.packs.all()?.into_iter().filter(|pack| pack.bytes() < SMALL_BYTES).collect())
}

fn merge(store: &LocalStore, packs: Vec<Arc<Pack>>) -> Result<usize, StoreError> {
    let mut merged = Vec::new();
    for pack in packs {
        // One that is not whole stays as it is for whoever repairs the store.
        if pack.index_is_whole() && copy_records(store, &pack, |_| true)?.damaged.is_empty() {
            merged.push(pack);
        }
    }
    // One that holds all that the others hold may be equal to the new one, and have its name.
    let new: BTreeSet<_> = store.publish()?.iter().map(|pack| pack.name()).collect();
    for pack in merged.iter().filter(|pack| !new.contains(&pack.name())) {
        store.disk.change(Change::Remove(&store.layout.packs().join(file_name(pack.name()))))?;
    }
    store.disk.flush(Flush::Directory(&store.layout.packs()))?;
    Ok(merged.len())
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::super::contract::names;
    use super::*;
    use crate::disk::recorder::{Cut, Recorder, play};
    use crate::disk::{self};
    use crate::hash::Digest;
    use crate::object::Kind;
    use std::path::Path;

    /// Puts so many objects, each with a sync of its own; returns their names.
    fn put_one_by_one(store: &LocalStore, numbers: std::ops::Range<u32>) -> Vec<Digest> {
        let put = |number: u32| {
            let digest = store.put_bytes(Kind::Blob, &number.to_le_bytes()).unwrap().digest;
            store.sync().unwrap();
            digest
        };
        numbers.map(put).collect()
    }

    fn assert_all_there(directory: &Path, digests: &[Digest], case: &str) {
        let store = LocalStore::open(directory).unwrap();
        for digest in digests {
            assert!(store.get(Kind::Blob, *digest).is_ok(), "{case}: {digest} is lost");
        }
    }

    #[test]
    fn many_small_commits_leave_few_packs_and_every_object() {
        let root = tempfile::tempdir().unwrap();
        let reader = LocalStore::open(root.path()).unwrap();
        let store = LocalStore::open(root.path()).unwrap();
        let mut digests = Vec::new();
        for start in (0..100).step_by(10) {
            digests.extend(put_one_by_one(&store, start..start + 10));
            for digest in &digests {
                assert!(reader.get(Kind::Blob, *digest).is_ok(), "a reader that was there before");
                assert!(store.get(Kind::Blob, *digest).is_ok(), "the writer");
            }
            assert!(names(&root.path().join("packs")).len() <= SMALL_MAX);
        }
        assert!(store.packs.all().unwrap().len() <= SMALL_MAX + 1, "packs that are gone are forgotten");
        assert_all_there(root.path(), &digests, "at the end");
    }

    #[test]
    fn a_pack_that_holds_all_that_the_others_hold_is_not_lost() {
        let root = tempfile::tempdir().unwrap();
        let all: Vec<Digest> = {
            let store = LocalStore::open(root.path()).unwrap();
            let all = (0..20_u32).map(|number| store.put_bytes(Kind::Blob, &number.to_le_bytes()).unwrap().digest);
            let all = all.collect();
            store.sync().unwrap();
            all
        };
        let elsewhere = tempfile::tempdir().unwrap();
        for number in 0..17_u32 {
            let other = LocalStore::open(&elsewhere.path().join(number.to_string())).unwrap();
            other.put_bytes(Kind::Blob, &number.to_le_bytes()).unwrap();
            other.sync().unwrap();
            for name in names(&elsewhere.path().join(number.to_string()).join("packs")) {
                let from = elsewhere.path().join(number.to_string()).join("packs").join(&name);
                disk::rename(&from, &root.path().join("packs").join(&name)).unwrap();
            }
        }
        let store = LocalStore::open(root.path()).unwrap();
        assert_eq!(merge_small(&store).unwrap(), 18);
        assert_all_there(root.path(), &all, "after the merge");
    }

    #[test]
    fn nothing_is_lost_wherever_a_merge_stops() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("store");
        let disk = Arc::new(Recorder::new());
        let store = LocalStore::open_on(Arc::clone(&disk) as _, &directory).unwrap();
        let count = u32::try_from(SMALL_MAX).unwrap() + 1;
        let mut digests = put_one_by_one(&store, 0..count - 1);
        let before = disk.log().len();
        digests.extend(put_one_by_one(&store, count - 1..count));
        let log = disk.log();
        assert_eq!(names(&directory.join("packs")).len(), 1, "they were merged");
        for length in before..=log.len() {
            for cut in Cut::ALL {
                let left = root.path().join("left");
                play(&log[..length], cut, &directory, &left);
                let safe = if length == log.len() { digests.len() } else { digests.len() - 1 };
                assert_all_there(&left, &digests[..safe], &format!("{cut:?} after {length} effects"));
                disk::remove_tree(&left).unwrap();
            }
        }
    }
}
