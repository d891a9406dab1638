//! What is left of a [`LocalStore`] that stops between any two effects, by a kill or by a power cut.
//!
//! Every prefix of what a scenario does is played, and for each the ways in
//! which a power cut may leave what was not flushed.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::contract::{long, names};
use super::{LocalStore, Source, Store, StoreError};
use crate::disk::recorder::{Cut, Done, Recorder, play};
use crate::disk::{self, Change, Disk, Durability, Flush};
use crate::hash::Digest;
use crate::object::Kind;

/// Batches of more than this are flushed at once, so that the scenario has both sorts.
const FLUSH_EACH_MAX: usize = 6;
/// The batches of the scenario; the second repeats an object of the first. Longer ones are kept in pieces.
fn batches() -> [Vec<Vec<u8>>; 3] {
    let texts = |all: &[&str]| all.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
    let mut second = texts(&["c", "d", "e", "f", "g", "h", "i", "a"]);
    second.push(long(200_000));
    [texts(&["a", "b"]), second, texts(&["j"])]
}

fn open(disk: Arc<Recorder>, directory: &Path) -> LocalStore {
    LocalStore::open_on(disk, directory).unwrap().flushing_each(FLUSH_EACH_MAX)
}

#[test]
fn nothing_partial_is_visible_and_nothing_acknowledged_is_lost_wherever_it_stops() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("store");
    let disk = Arc::new(Recorder::new());
    let mut acknowledged = vec![(0, BTreeSet::new())];
    let store = open(Arc::clone(&disk), &directory);
    for batch in batches() {
        let digests = batch.iter().map(|bytes| store.put_bytes(Kind::Blob, bytes).unwrap().digest);
        let so_far = &acknowledged.last().unwrap().1 | &digests.collect();
        store.sync().unwrap();
        acknowledged.push((disk.log().len(), so_far));
    }
    let log = disk.log();
    assert!(log.len() > 20, "the scenario has only {} effects", log.len());
    for count in 0..=log.len() {
        let (_, safe) = acknowledged.iter().rev().find(|(at, _)| *at <= count).unwrap();
        for cut in Cut::ALL {
            let left = root.path().join(format!("left-{count}-{cut:?}"));
            play(&log[..count], cut, &directory, &left);
            check(&left, safe, &format!("{cut:?} after {count} effects"));
            disk::remove_tree(&left).unwrap();
        }
    }
}

/// Checks that the store is whole, has what was acknowledged, and goes on to work.
fn check(directory: &Path, acknowledged: &BTreeSet<Digest>, case: &str) {
    let store = LocalStore::open(directory).unwrap_or_else(|error| panic!("{case}: {error}"));
    let visible = store.find(Kind::Blob, "").unwrap();
    for digest in &visible {
        assert!(store.get(Kind::Blob, *digest).is_ok(), "{case}: an object is visible but not whole");
    }
    let lost: Vec<_> = acknowledged.iter().filter(|digest| !visible.contains(digest)).collect();
    assert!(lost.is_empty(), "{case}: {lost:?} was acknowledged and is lost");
    let put = |bytes: &Vec<u8>| store.put_bytes(Kind::Blob, bytes).unwrap().digest;
    let session = b"to start a session in any case".to_vec();
    let all: BTreeSet<_> = batches().concat().iter().chain([&session]).map(put).collect();
    assert_eq!(
        names(&directory.join("tmp")).len(),
        3,
        "{case}: the leftovers are gone, the lock and this session with its own stay"
    );
    store.sync().unwrap();
    drop(store);
    assert_eq!(names(&directory.join("tmp")), ["lock"], "{case}");
    let reopened = LocalStore::open(directory).unwrap();
    assert_eq!(reopened.find(Kind::Blob, "").unwrap(), all.into_iter().collect::<Vec<_>>(), "{case}");
}

#[test]
fn a_sync_flushes_as_often_for_many_objects_as_for_one() {
    let flushes = |count: u32| {
        let root = tempfile::tempdir().unwrap();
        let disk = Arc::new(Recorder::new());
        let store = LocalStore::open_on(Arc::clone(&disk) as _, &root.path().join("store")).unwrap();
        store.put_bytes(Kind::Blob, b"first").unwrap();
        store.sync().unwrap();
        let before = disk.log().len();
        for number in 0..count {
            store.put_bytes(Kind::Blob, &number.to_le_bytes()).unwrap();
        }
        store.sync().unwrap();
        disk.log()[before..].iter().filter(|done| done.is_flush()).cloned().collect::<Vec<_>>().len()
    };
    assert_eq!(flushes(1), 3, "the pack, its directory, the store's");
    assert_eq!(flushes(10_000), flushes(1));
}

/// Lets effect number `failing` fail, all others happen. Returns the store, where it lives, and its disk.
fn failing_once(failing: usize) -> (tempfile::TempDir, LocalStore, Arc<Mutex<Option<Done>>>) {
    let root = tempfile::tempdir().unwrap();
    let failed: Arc<Mutex<Option<Done>>> = Arc::default();
    let told = Arc::clone(&failed);
    let disk = Recorder::guarded(Box::new(move |number, done| {
        let mut told = told.lock().unwrap();
        if number == failing && told.is_none() {
            *told = Some(done.clone());
            return Err(io::Error::other("it failed"));
        }
        Ok(())
    }));
    let store = open(Arc::new(disk), &root.path().join("store"));
    (root, store, failed)
}

/// Returns whether effect number `failing` comes after the first pack was begun.
fn failed_in_a_commit(failing: usize) -> bool {
    let root = tempfile::tempdir().unwrap();
    let disk = Arc::new(Recorder::new());
    let store = open(Arc::clone(&disk), &root.path().join("store"));
    store.put_bytes(Kind::Blob, b"a").unwrap();
    store.sync().unwrap();
    let is_pack =
        |done: &Done| matches!(done, Done::Create(path) if path.extension().is_some_and(|end| end == "segment"));
    disk.log().iter().position(is_pack).unwrap() < failing
}

#[test]
fn a_failed_sync_can_be_tried_again_unless_a_write_or_a_flush_failed() {
    let texts: [&[u8]; 2] = [b"a", b"b"];
    let mut outcomes = BTreeSet::new();
    for failing in 0.. {
        let (root, store, failed) = failing_once(failing);
        let put_all = || texts.iter().try_for_each(|text| store.put_bytes(Kind::Blob, text).map(drop));
        let first = put_all().and_then(|()| store.sync());
        if first.is_ok() {
            break;
        }
        assert!(matches!(first, Err(StoreError::Disk(_))));
        let again = put_all().and_then(|()| store.sync());
        let failed = failed.lock().unwrap().clone().unwrap();
        let store_directory = root.path().join("store");
        let is_final = match &failed {
            Done::Write { path, .. } | Done::FlushFile(path) => path.starts_with(store_directory.join("tmp")),
            // Before the first pack is begun, the directory is only being made, which starts again from the beginning.
            Done::FlushDirectory(_) | Done::Mode => failed_in_a_commit(failing),
            _ => false,
        };
        assert_eq!(again.is_err(), is_final, "effect {failing}: {failed:?}");
        outcomes.insert(is_final);
        if again.is_ok() {
            let other = LocalStore::open(&root.path().join("store")).unwrap();
            assert_eq!(other.find(Kind::Blob, "").unwrap().len(), texts.len(), "effect {failing}");
        }
    }
    assert_eq!(outcomes, BTreeSet::from([false, true]), "both sorts of effect failed once");
}

#[test]
fn a_retried_sync_flushes_what_the_failed_one_had_published() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("store");
    let renames = Mutex::new(0);
    let disk = Arc::new(Recorder::guarded(Box::new(move |_, done| {
        if matches!(done, Done::Rename { to, .. } if to.extension().is_some_and(|ending| ending == "pack")) {
            let mut renames = renames.lock().unwrap();
            *renames += 1;
            if *renames == 2 {
                return Err(io::Error::other("it failed"));
            }
        }
        Ok(())
    })));
    let store = open(Arc::clone(&disk), &directory);
    let first = store.put_bytes(Kind::Blob, b"a").unwrap().digest;
    store.sync().unwrap();
    let second = store.put_bytes(Kind::Blob, b"b").unwrap().digest;
    store.sync().unwrap_err();
    let before = disk.log().len();
    store.sync().unwrap();
    assert!(disk.log()[before..].contains(&Done::FlushDirectory(directory.join("packs"))));
    for digest in [first, second] {
        assert!(LocalStore::open(&directory).unwrap().get(Kind::Blob, digest).is_ok());
    }
}

#[test]
fn a_sync_flushes_the_name_of_an_object_that_another_process_published() {
    let root = tempfile::tempdir().unwrap();
    let other = LocalStore::open(root.path()).unwrap();
    other.put_bytes(Kind::Blob, b"a").unwrap();
    other.sync().unwrap();
    let disk = Arc::new(Recorder::new());
    let store = open(Arc::clone(&disk), root.path());
    assert!(!store.put_bytes(Kind::Blob, b"a").unwrap().new);
    store.sync().unwrap();
    let flushed: Vec<_> = disk.log().into_iter().filter(Done::is_flush).collect();
    assert_eq!(flushed.first(), Some(&Done::FlushDirectory(root.path().join("packs"))));
}

#[test]
fn leftovers_of_the_dead_go_and_the_files_of_the_living_stay() {
    let root = tempfile::tempdir().unwrap();
    let living = LocalStore::open(root.path()).unwrap();
    let digest = living.put_bytes(Kind::Blob, b"living").unwrap().digest;
    let dead = root.path().join("tmp/4000000-0");
    disk::write_whole(&dead.join("half written"), b"ha", Durability::Deferred).unwrap();
    disk::write_whole(&root.path().join("tmp/4000000-0.lock"), b"", Durability::Deferred).unwrap();
    let half_removed = root.path().join("tmp/4000001-0");
    fs::create_dir(&half_removed).unwrap();
    let died_at_birth = root.path().join("tmp/4000002-0.lock");
    disk::write_whole(&died_at_birth, b"", Durability::Deferred).unwrap();

    let other = LocalStore::open(root.path()).unwrap();
    assert!(dead.exists(), "opening writes nothing");
    other.put_bytes(Kind::Blob, b"other").unwrap();
    assert!(!dead.exists() && !half_removed.exists() && !died_at_birth.exists());
    assert!(!root.path().join("tmp/4000000-0.lock").exists());
    assert_eq!(living.get(Kind::Blob, digest).unwrap(), b"living");
    living.sync().unwrap();
    let source = root.path().join("source");
    disk::write_whole(&source, &long(100_000), Durability::Deferred).unwrap();
    other.put(Kind::Blob, Source::File(&source)).unwrap();
    assert_eq!(other.get(Kind::Blob, digest).unwrap(), b"living");
}

/// A snapshot relies on what the memory of files names, and a run on the outputs of another, and both only ask for
/// lengths: what they recorded was lost with the name that another process had not flushed yet.
#[test]
fn a_sync_flushes_the_names_of_what_was_only_asked_for() {
    let bytes = long(100_000);
    for is_loose in [false, true] {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("store");
        let stopped = Arc::new(AtomicBool::new(false));
        let is_stopped = Arc::clone(&stopped);
        let disk = Arc::new(Recorder::guarded(Box::new(move |_, done| match done {
            Done::FlushDirectory(_) if is_stopped.load(Ordering::Relaxed) => Err(io::Error::other("not yet")),
            _ => Ok(()),
        })));
        let other = open(Arc::clone(&disk), &directory);
        other.hold().unwrap();
        let digest = Kind::Blob.digest(&bytes);
        stopped.store(true, Ordering::Relaxed);
        if is_loose {
            let staged = directory.join("tmp/whole");
            let path = other.path_of(Kind::Blob, digest);
            let file = disk.create(&staged).unwrap();
            disk.write(&file, &staged, 0, &bytes).unwrap();
            disk.flush(Flush::File(&staged)).unwrap();
            disk::make_directories(&*disk, disk::parent(&path)).unwrap();
            disk.change(Change::Rename { from: &staged, to: &path }).unwrap();
        } else {
            other.put_bytes(Kind::Blob, &bytes).unwrap();
            other.sync().unwrap_err();
        }
        stopped.store(false, Ordering::Relaxed);
        let store = open(Arc::clone(&disk), &directory);
        store.hold().unwrap();
        assert_eq!(store.length(Kind::Blob, digest).unwrap(), Some(bytes.len() as u64));
        store.sync().unwrap();
        let acknowledged = disk.log();
        for cut in Cut::ALL {
            let left = root.path().join(format!("{cut:?}"));
            play(&acknowledged, cut, &directory, &left);
            let found = LocalStore::open(&left).unwrap().get(Kind::Blob, digest);
            assert!(found.is_ok_and(|found| found == bytes), "{cut:?}, in a file of its own: {is_loose}");
        }
    }
}
