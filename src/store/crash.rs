//! What is left of a [`LocalStore`] that stops between any two effects, by a kill or by a power cut.
//!
//! A kill keeps everything that was done. A power cut also takes what was not
//! flushed: bytes of files turn to nothing, names vanish. Both are played on
//! the real directory, for every place where the store can stop.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::commit::Step;
use super::contract::names;
use super::local::{Moment, Watch};
use super::{LocalStore, Store, StoreError};
use crate::disk::{self, Durability};
use crate::hash::Digest;
use crate::object::Kind;

/// Batches of more than this are flushed at once, so that the scenario has both sorts.
const FLUSH_EACH_MAX: usize = 6;
/// The batches of the scenario; the second is large, and repeats an object of the first.
const BATCHES: [&[&str]; 3] = [&["a", "b"], &["c", "d", "e", "f", "g", "h", "i", "a"], &["j"]];

/// An effect that was done.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Done {
    Write,
    Flush(PathBuf),
    FlushAll,
    Publish { from: PathBuf, to: PathBuf },
    Other,
}

/// How a store stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stop {
    /// The process dies: what was done stays.
    Kill,
    /// Bytes that were not flushed are lost; all names stay.
    BytesLost,
    /// Bytes and names that were not flushed are lost.
    NamesLost,
}

#[test]
fn nothing_partial_is_visible_and_nothing_acknowledged_is_lost_wherever_it_stops() {
    for stop in [Stop::Kill, Stop::BytesLost, Stop::NamesLost] {
        let mut count = 0;
        while !stopped_before(count, stop) {
            count += 1;
        }
        assert!(count > 30, "the scenario has only {count} effects");
    }
}

/// Plays the scenario with only the first `count` effects done, and checks what is left. Returns whether it came to its end.
fn stopped_before(count: usize, stop: Stop) -> bool {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("store");
    let log = Arc::default();
    let store = LocalStore::open_watched(&directory, FLUSH_EACH_MAX, stop_after(count, &directory, &log)).unwrap();
    let acknowledged = play(&store);
    // The watch forbids the clean-up too, as a kill would; the kernel takes the lock.
    drop(store);
    if stop != Stop::Kill {
        lose(&directory, &log.lock().unwrap(), stop);
    }
    check(&directory, &acknowledged, &format!("{stop:?} after {count} effects"));
    acknowledged.len() == BATCHES.concat().iter().collect::<BTreeSet<_>>().len()
}

/// Puts and syncs the batches until something fails; returns what was acknowledged.
fn play(store: &LocalStore) -> BTreeSet<Digest> {
    let mut acknowledged = BTreeSet::new();
    for batch in BATCHES {
        let put = |text: &&str| store.put_bytes(Kind::Blob, text.as_bytes()).map(|put| put.digest);
        let Ok(digests) = batch.iter().map(put).collect::<Result<Vec<_>, _>>() else { break };
        if store.sync().is_err() {
            break;
        }
        acknowledged.extend(digests);
    }
    acknowledged
}

/// Lets the first `count` effects happen and logs them; all later ones fail.
fn stop_after(count: usize, directory: &Path, log: &Arc<Mutex<Vec<Done>>>) -> Watch {
    let (directory, log) = (directory.to_owned(), Arc::clone(log));
    Box::new(move |moment| {
        let mut log = log.lock().unwrap();
        if log.len() >= count {
            return Err(io::Error::other("stopped"));
        }
        log.push(match moment {
            Moment::Commit(Step::FlushFile(path)) => Done::Flush(path.to_path_buf()),
            Moment::Commit(Step::FlushDirectory(path)) => Done::Flush(path.clone()),
            Moment::Commit(Step::FlushFileSystem) => Done::FlushAll,
            Moment::Commit(Step::Publish { kind, digest, from }) => {
                let to = LocalStore::open(&directory).unwrap().path_of(*kind, *digest);
                Done::Publish { from: from.to_path_buf(), to }
            }
            Moment::Write => Done::Write,
            _ => Done::Other,
        });
        Ok(())
    })
}

/// Takes from the directory what a power cut may take.
fn lose(directory: &Path, log: &[Done], stop: Stop) {
    for (index, done) in log.iter().enumerate() {
        let Done::Publish { from, to } = done else { continue };
        let flushed =
            |path: &Path, log: &[Done]| log.contains(&Done::FlushAll) || log.contains(&Done::Flush(path.to_owned()));
        // Flushing all covers what was written before it, so only after the last write does it count.
        let written = log[..index].iter().rposition(|done| *done == Done::Write).expect("it was written");
        let bytes_are_safe = flushed(from, &log[written..index]);
        let mut way = to.ancestors().skip(1).take_while(|above| above.starts_with(directory));
        let name_is_safe = way.all(|above| flushed(above, &log[index..]));
        if stop == Stop::NamesLost && !name_is_safe {
            disk::remove_tree(to).unwrap();
        } else if !bytes_are_safe {
            disk::write_whole(to, b"", Durability::Deferred).unwrap();
        }
    }
}

/// Checks that the store is whole, has what was acknowledged, and goes on to work.
fn check(directory: &Path, acknowledged: &BTreeSet<Digest>, case: &str) {
    let store = LocalStore::open(directory).unwrap();
    let visible = store.find(Kind::Blob, "").unwrap();
    for digest in &visible {
        assert!(store.get(Kind::Blob, *digest).is_ok(), "{case}: an object is visible but not whole");
    }
    let lost: Vec<_> = acknowledged.iter().filter(|digest| !visible.contains(digest)).collect();
    assert!(lost.is_empty(), "{case}: {lost:?} was acknowledged and is lost");
    let put = |text: &&str| store.put_bytes(Kind::Blob, text.as_bytes()).unwrap().digest;
    let all: BTreeSet<_> = BATCHES.concat().iter().chain(&["to start a session in any case"]).map(put).collect();
    assert_eq!(names(&directory.join("tmp")).len(), 2, "{case}: the leftover is gone, the lock and this session stay");
    store.sync().unwrap();
    drop(store);
    assert_eq!(names(&directory.join("tmp")), ["lock"], "{case}");
    let reopened = LocalStore::open(directory).unwrap();
    assert_eq!(reopened.find(Kind::Blob, "").unwrap(), all.into_iter().collect::<Vec<_>>(), "{case}");
}

/// Lets effect number `failing` fail, all others happen. Returns the store and where it lives.
fn failing_once(failing: usize) -> (tempfile::TempDir, LocalStore, Arc<Mutex<Vec<bool>>>) {
    let root = tempfile::tempdir().unwrap();
    let flushes: Arc<Mutex<Vec<bool>>> = Arc::default();
    let log = Arc::clone(&flushes);
    let watch: Watch = Box::new(move |moment| {
        let mut log = log.lock().unwrap();
        log.push(matches!(moment, Moment::Commit(step) if step.is_flush()));
        if log.len() == failing { Err(io::Error::other("it failed")) } else { Ok(()) }
    });
    let store = LocalStore::open_watched(&root.path().join("store"), FLUSH_EACH_MAX, watch).unwrap();
    (root, store, flushes)
}

#[test]
fn a_failed_sync_can_be_tried_again_unless_a_flush_failed() {
    let texts: [&[u8]; 2] = [b"a", b"b"];
    let mut outcomes = BTreeSet::new();
    for failing in 1.. {
        let (root, store, flushes) = failing_once(failing);
        let put_all = || texts.iter().try_for_each(|text| store.put_bytes(Kind::Blob, text).map(drop));
        let first = put_all().and_then(|()| store.sync());
        if first.is_ok() {
            break;
        }
        assert!(matches!(first, Err(StoreError::Disk(_))));
        let again = put_all().and_then(|()| store.sync());
        let flush_failed = flushes.lock().unwrap()[failing - 1];
        assert_eq!(again.is_err(), flush_failed, "effect {failing}");
        outcomes.insert(flush_failed);
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
    let log = Arc::default();
    let (record, publications) = (stop_after(usize::MAX, &directory, &log), Mutex::new(0));
    let fail_the_second_publication: Watch = Box::new(move |moment| {
        if matches!(moment, Moment::Commit(Step::Publish { .. })) {
            let mut publications = publications.lock().unwrap();
            *publications += 1;
            if *publications == 2 {
                return Err(io::Error::other("it failed"));
            }
        }
        record(moment)
    });
    let store = LocalStore::open_watched(&directory, usize::MAX, fail_the_second_publication).unwrap();
    let digests = ["a", "b"].map(|text| store.put_bytes(Kind::Blob, text.as_bytes()).unwrap().digest);
    store.sync().unwrap_err();
    assert_eq!(LocalStore::open(&directory).unwrap().find(Kind::Blob, "").unwrap().len(), 1, "one is published");
    store.sync().unwrap();
    for digest in digests {
        let shard = store.path_of(Kind::Blob, digest).parent().unwrap().to_owned();
        assert!(log.lock().unwrap().contains(&Done::Flush(shard)), "{digest} is published but not flushed");
    }
}

#[test]
fn a_sync_flushes_the_name_of_an_object_that_another_process_published() {
    let root = tempfile::tempdir().unwrap();
    let other = LocalStore::open(root.path()).unwrap();
    let digest = other.put_bytes(Kind::Blob, b"a").unwrap().digest;
    other.sync().unwrap();
    let log = Arc::default();
    let store = LocalStore::open_watched(root.path(), usize::MAX, stop_after(usize::MAX, root.path(), &log)).unwrap();
    assert!(!store.put_bytes(Kind::Blob, b"a").unwrap().new);
    store.sync().unwrap();
    let shard = store.path_of(Kind::Blob, digest).parent().unwrap().to_owned();
    assert_eq!(log.lock().unwrap().first(), Some(&Done::Flush(shard)));
}

#[test]
fn leftovers_of_the_dead_go_and_the_files_of_the_living_stay() {
    let root = tempfile::tempdir().unwrap();
    let living = LocalStore::open(root.path()).unwrap();
    let digest = living.put_bytes(Kind::Blob, b"living").unwrap().digest;
    let dead = root.path().join("tmp/4000000-0");
    disk::write_whole(&dead.join("half written"), b"ha", Durability::Deferred).unwrap();
    disk::write_whole(&dead.join("lock"), b"", Durability::Deferred).unwrap();
    let died_at_birth = root.path().join("tmp/4000001-0");
    fs::create_dir(&died_at_birth).unwrap();

    let other = LocalStore::open(root.path()).unwrap();
    assert!(dead.exists(), "opening writes nothing");
    other.put_bytes(Kind::Blob, b"other").unwrap();
    assert!(!dead.exists() && !died_at_birth.exists());
    assert_eq!(living.get(Kind::Blob, digest).unwrap(), b"living");
    living.sync().unwrap();
    assert_eq!(other.get(Kind::Blob, digest).unwrap(), b"living");
}
