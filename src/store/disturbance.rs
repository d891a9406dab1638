//! How a [`LocalStore`] fares among other processes, damaged directories and files that do not hold still.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Barrier, Mutex};

use proptest::prelude::*;

use super::contract::{long, names};
use super::{LocalStore, Source, Store, StoreError};
use crate::disk::{self, Durability};
use crate::hash::Digest;
use crate::object::Kind;

fn write(path: &Path, bytes: &[u8]) {
    disk::write_whole(path, bytes, Durability::Deferred).unwrap();
}

#[test]
fn objects_lie_where_the_format_says() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("a/b/store");
    let store = LocalStore::open(&directory).unwrap();
    store.put_bytes(Kind::Blob, b"").unwrap();
    store.sync().unwrap();
    drop(store);
    let found: Vec<_> = disk::walk(&directory)
        .map(|entry| entry.unwrap().0.strip_prefix(&directory).unwrap().display().to_string())
        .collect();
    let pack = "packs/2742564266bfac11da3bd9763e082249237bed863cbf95a86384b46ab4c26740.pack";
    assert_eq!(found, ["FORMAT", "packs", pack, "tmp", "tmp/lock"]);
    assert_eq!(fs::read(directory.join("FORMAT")).unwrap(), b"pv-store 2\n");
    assert_eq!(fs::metadata(directory.join(pack)).unwrap().mode() & 0o777, 0o444);
}

#[test]
fn a_store_of_loose_objects_is_read_and_becomes_one_of_packs_with_the_first_write() {
    let root = tempfile::tempdir().unwrap();
    let digest = Kind::Tree.digest(b"old");
    write(&LocalStore::open(root.path()).unwrap().path_of(Kind::Tree, digest), b"old");
    let large = vec![b'x'; 100_000];
    let large_digest = Digest::of(&large);
    write(&LocalStore::open(root.path()).unwrap().path_of(Kind::Blob, large_digest), &large);
    write(&root.path().join("FORMAT"), b"pv-store 1\n");
    let store = LocalStore::open(root.path()).unwrap();
    assert_eq!(store.get(Kind::Tree, digest).unwrap(), b"old");
    assert_eq!(store.find(Kind::Tree, "").unwrap(), [digest]);
    assert_eq!(fs::read(root.path().join("FORMAT")).unwrap(), b"pv-store 1\n", "reading changes nothing");
    assert!(!store.put_bytes(Kind::Tree, b"old").unwrap().new);
    let source = root.path().join("source");
    write(&source, &large);
    assert!(!store.put(Kind::Blob, Source::File(&source)).unwrap().new, "a large file is not kept twice");
    assert!(store.put_bytes(Kind::Tree, b"new").unwrap().new);
    store.sync().unwrap();
    assert_eq!(fs::read(root.path().join("FORMAT")).unwrap(), b"pv-store 2\n");
    let reopened = LocalStore::open(root.path()).unwrap();
    assert_eq!(reopened.get(Kind::Tree, digest).unwrap(), b"old");
    assert_eq!(reopened.get(Kind::Blob, large_digest).unwrap(), large);
    assert_eq!(reopened.find(Kind::Tree, "").unwrap().len(), 2);
}

#[test]
fn a_pack_that_lost_its_end_counts_as_absent_and_the_next_put_heals_it() {
    let root = tempfile::tempdir().unwrap();
    let digest = {
        let store = LocalStore::open(root.path()).unwrap();
        let digest = store.put_bytes(Kind::Blob, b"weights").unwrap().digest;
        store.sync().unwrap();
        digest
    };
    let pack = root.path().join("packs").join(&names(&root.path().join("packs"))[0]);
    let bytes = fs::read(&pack).unwrap();
    for kept in [0, 10, 100, bytes.len() - 1] {
        fs::remove_file(&pack).unwrap();
        write(&pack, &bytes[..kept]);
        let store = LocalStore::open(root.path()).unwrap();
        assert!(matches!(store.get(Kind::Blob, digest), Err(StoreError::Missing { .. })), "{kept}");
        assert!(store.put_bytes(Kind::Blob, b"weights").unwrap().new);
        store.sync().unwrap();
        assert_eq!(LocalStore::open(root.path()).unwrap().get(Kind::Blob, digest).unwrap(), b"weights");
    }
}

#[test]
fn what_is_staged_is_seen_by_nobody_else_and_goes_with_the_store() {
    let root = tempfile::tempdir().unwrap();
    let (first, second) = (LocalStore::open(root.path()).unwrap(), LocalStore::open(root.path()).unwrap());
    let digest = first.put_bytes(Kind::Blob, b"staged").unwrap().digest;
    assert_eq!(second.length(Kind::Blob, digest).unwrap(), None);
    assert!(matches!(second.get(Kind::Blob, digest), Err(StoreError::Missing { .. })));
    drop(first);
    assert_eq!(names(&root.path().join("tmp")), ["lock"]);
    assert_eq!(second.find(Kind::Blob, "").unwrap(), []);
}

#[test]
fn two_stores_that_put_the_same_object_at_once_both_succeed() {
    let root = tempfile::tempdir().unwrap();
    let stores = [0, 1].map(|_| LocalStore::open(&root.path().join("store")).unwrap());
    std::thread::scope(|scope| {
        for store in &stores {
            scope.spawn(|| {
                for number in 0..20_u8 {
                    store.put_bytes(Kind::Blob, &[number % 10]).unwrap();
                    store.sync().unwrap();
                }
            });
        }
    });
    let fresh = LocalStore::open(&root.path().join("store")).unwrap();
    for number in 0..10_u8 {
        assert_eq!(fresh.get(Kind::Blob, Digest::of(&[number])).unwrap(), [number]);
    }
}

#[test]
fn threads_that_put_and_sync_and_read_at_once_always_find_what_they_put() {
    let root = tempfile::tempdir().unwrap();
    let store = LocalStore::open(root.path()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let store = &store;
            scope.spawn(move || {
                for number in 0..30_u8 {
                    let digest = store.put_bytes(Kind::Blob, &[thread, number]).unwrap().digest;
                    assert_eq!(store.get(Kind::Blob, digest).unwrap(), [thread, number]);
                    if number % 5 == thread {
                        store.sync().unwrap();
                    }
                    assert_eq!(store.length(Kind::Blob, digest).unwrap(), Some(2));
                }
            });
        }
    });
}

#[test]
fn threads_that_ask_at_once_for_what_another_store_has_just_published_all_find_it() {
    const ROUNDS: u32 = 60;
    const THREADS: u32 = 4;
    let root = tempfile::tempdir().unwrap();
    let [writer, reader] = [0, 1].map(|_| LocalStore::open(root.path()).unwrap());
    let start = Barrier::new(THREADS as usize + 1);
    let missed = Mutex::new(Vec::new());
    let put = |round: u32| {
        writer.put_bytes(Kind::Blob, &round.to_le_bytes()).unwrap();
        writer.sync().unwrap();
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (start, reader, missed) = (&start, &reader, &missed);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    start.wait();
                    let digest = Digest::of(&round.to_le_bytes());
                    let is_found = match thread % 2 {
                        0 => reader.get(Kind::Blob, digest).is_ok(),
                        _ => reader.length(Kind::Blob, digest).unwrap().is_some(),
                    };
                    if !is_found {
                        missed.lock().unwrap().push((thread, round));
                    }
                    start.wait();
                }
            });
        }
        for round in 0..ROUNDS {
            put(round);
            start.wait();
            start.wait();
        }
    });
    assert_eq!(missed.into_inner().unwrap(), [], "threads and rounds");
}

#[test]
fn threads_of_two_stores_that_put_sync_merge_and_read_at_once_lose_nothing() {
    const ROUNDS: u32 = 24;
    const THREADS: u32 = 3;
    let root = tempfile::tempdir().unwrap();
    let stores = [0, 1].map(|_| LocalStore::open(root.path()).unwrap());
    let acknowledged: Mutex<BTreeMap<Digest, Vec<u8>>> = Mutex::default();
    std::thread::scope(|scope| {
        for (number, store) in (0_u32..).zip(&stores) {
            for thread in 0..THREADS {
                let acknowledged = &acknowledged;
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        // One that all threads put at once, one of its own, and sometimes a large one that is edited.
                        let mut objects = vec![
                            format!("shared {}", round / 2).into_bytes(),
                            format!("own {number} {thread} {round}").into_bytes(),
                        ];
                        if round % 8 == thread {
                            let mut large = long(150_000);
                            large[usize::try_from(round).unwrap() * 1000] ^= 1;
                            objects.push(large);
                        }
                        let put = |bytes: Vec<u8>| (store.put_bytes(Kind::Blob, &bytes).unwrap().digest, bytes);
                        let put: Vec<_> = objects.into_iter().map(put).collect();
                        for (digest, bytes) in &put {
                            assert_eq!(store.get(Kind::Blob, *digest).unwrap(), *bytes, "staged or published");
                        }
                        store.sync().unwrap();
                        acknowledged.lock().unwrap().extend(put);
                    }
                });
            }
            let acknowledged = &acknowledged;
            scope.spawn(move || {
                let all = (ROUNDS * THREADS * 2) as usize;
                let mut read = 0;
                while read < all {
                    let known = acknowledged.lock().unwrap().clone();
                    for (digest, bytes) in &known {
                        assert_eq!(store.get(Kind::Blob, *digest).unwrap(), *bytes, "acknowledged");
                    }
                    read = known.values().filter(|bytes| bytes.starts_with(b"own ")).count();
                }
            });
        }
    });
    drop(stores);
    assert!(names(&root.path().join("packs")).len() < 40, "small packs were merged meanwhile");
    let acknowledged = acknowledged.into_inner().unwrap();
    let store = LocalStore::open(root.path()).unwrap();
    for (digest, bytes) in &acknowledged {
        assert_eq!(store.get(Kind::Blob, *digest).unwrap(), *bytes);
    }
    assert_eq!(store.find(Kind::Blob, "").unwrap(), acknowledged.into_keys().collect::<Vec<_>>());
    let checked = store.check(&|_, _| true).unwrap();
    assert!(checked.damaged.is_empty() && checked.lost.is_empty(), "{checked:?}");
}

#[test]
fn a_read_only_directory_is_read_and_a_known_object_can_be_put() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("store");
    let digest = {
        let store = LocalStore::open(&directory).unwrap();
        let digest = store.put_bytes(Kind::Blob, b"x").unwrap().digest;
        store.sync().unwrap();
        digest
    };
    fs::remove_file(directory.join("tmp/lock")).unwrap();
    fs::remove_dir(directory.join("tmp")).unwrap();
    let directories = || -> Vec<PathBuf> {
        let walked = disk::walk(root.path()).map(|entry| entry.unwrap().0).filter(|path| path.is_dir());
        walked.collect()
    };
    let set_mode = |mode| {
        for path in directories() {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    set_mode(0o555);
    let store = LocalStore::open(&directory).unwrap();
    assert_eq!(store.get(Kind::Blob, digest).unwrap(), b"x");
    assert_eq!(store.find(Kind::Blob, "").unwrap(), [digest]);
    assert!(!store.put_bytes(Kind::Blob, b"x").unwrap().new);
    store.sync().unwrap();
    drop(store);
    set_mode(0o755);
    // The administrator may write whatever the mode says, but has nothing to write but a lock.
    assert_eq!(names(&directory.join("packs")).len(), 1);
}

#[test]
fn a_directory_that_does_not_exist_is_an_empty_store_and_stays_away() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("store");
    let store = LocalStore::open(&directory).unwrap();
    assert!(matches!(store.get(Kind::Blob, Digest::of(b"x")), Err(StoreError::Missing { .. })));
    assert_eq!(store.find(Kind::Blob, "").unwrap(), []);
    store.sync().unwrap();
    assert!(!directory.exists());
}

#[test]
fn a_store_of_another_format_is_refused_and_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let opened_before = LocalStore::open(root.path()).unwrap();
    write(&root.path().join("FORMAT"), b"pv-store 3\nmore\n");
    let refused = |error: StoreError| matches!(error, StoreError::Version { found, .. } if found == "pv-store 3");
    assert!(refused(LocalStore::open(root.path()).err().unwrap()));
    assert!(refused(opened_before.put_bytes(Kind::Blob, b"x").unwrap_err()));
    assert_eq!(names(root.path()), ["FORMAT"]);
}

#[test]
fn an_empty_file_with_the_name_of_an_object_is_not_trusted() {
    let root = tempfile::tempdir().unwrap();
    let store = LocalStore::open(root.path()).unwrap();
    let digest = Kind::Blob.digest(b"x");
    write(&root.path().join("FORMAT"), b"pv-store 1\n");
    write(&store.path_of(Kind::Blob, digest), b"");
    assert_eq!(store.length(Kind::Blob, digest).unwrap(), None);
    assert!(matches!(store.get(Kind::Blob, digest), Err(StoreError::Corrupt { .. })));
    assert!(store.put_bytes(Kind::Blob, b"x").unwrap().new);
    store.sync().unwrap();
    assert_eq!(LocalStore::open(root.path()).unwrap().get(Kind::Blob, digest).unwrap(), b"x");
}

#[test]
fn foreign_files_among_the_objects_are_not_taken_for_objects() {
    let root = tempfile::tempdir().unwrap();
    let store = LocalStore::open(root.path()).unwrap();
    let digest = store.put_bytes(Kind::Blob, b"x").unwrap().digest;
    store.sync().unwrap();
    let old = Kind::Blob.digest(b"old");
    let path = store.path_of(Kind::Blob, old);
    write(&path, b"old");
    write(&path.with_extension("bak"), b"x");
    write(&path.parent().unwrap().with_file_name("README"), b"x");
    write(&root.path().join("packs/README"), b"x");
    write(&root.path().join("packs/README.pack"), b"x");
    let mut both = vec![digest, old];
    both.sort();
    let store = LocalStore::open(root.path()).unwrap();
    assert_eq!(store.find(Kind::Blob, "").unwrap(), both);
    assert_eq!(store.find(Kind::Blob, &old.to_string()[..2]).unwrap(), [old]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_was_put_and_synced_is_there_when_the_store_is_opened_again(
        puts in proptest::collection::vec((0..Kind::ALL.len(), 0..4000_usize, any::<u8>(), any::<bool>(), any::<bool>()), 1..12)
    ) {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("store");
        let mut expected = Vec::new();
        {
            let store = LocalStore::open(&directory).unwrap();
            for (index, length, byte, from_file, sync) in puts {
                let (kind, bytes) = (Kind::ALL[index], vec![byte; length]);
                let path = root.path().join("source");
                write(&path, &bytes);
                let source = if from_file { Source::File(&path) } else { Source::Bytes(&bytes) };
                let put = store.put(kind, source).unwrap();
                prop_assert_eq!(put.digest, kind.digest(&bytes));
                expected.push((kind, put.digest, bytes));
                if sync {
                    store.sync().unwrap();
                }
            }
            store.sync().unwrap();
        }
        let store = LocalStore::open(&directory).unwrap();
        for (kind, digest, bytes) in expected {
            prop_assert_eq!(store.get(kind, digest).unwrap(), bytes);
        }
    }
}
