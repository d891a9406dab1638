//! A collection against real files: what goes, what stays, wherever it stops and whoever writes meanwhile.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::super::contract::{long, names};
use super::super::{Store, put_back};
use super::*;
use crate::disk::recorder::{Cut, Recorder, play};
use std::path::Path;

const TERMS: Terms = Terms { all: false, wait: false, now_seconds: 1000, undo_seconds: 100 };

fn open(directory: &Path) -> LocalStore {
    LocalStore::open(directory).unwrap()
}

/// Puts these and syncs, in a process of its own as it were.
fn put(directory: &Path, objects: &[&[u8]]) -> Vec<Digest> {
    let store = open(directory);
    let digests = objects.iter().map(|bytes| store.put_bytes(Kind::Blob, bytes).unwrap().digest).collect();
    store.sync().unwrap();
    digests
}

fn blobs(digests: &[Digest]) -> Live {
    digests.iter().map(|digest| (Kind::Blob, *digest)).collect()
}

/// Collects when these alone live.
fn collect_but(directory: &Path, live: &[Digest], terms: Terms) -> Collected {
    let live = blobs(live);
    collect::<StoreError>(&open(directory), terms, &|_| Ok(live.clone()), &mut |_| ()).unwrap()
}

fn has(directory: &Path, digest: Digest) -> bool {
    open(directory).length(Kind::Blob, digest).unwrap().is_some()
}

#[test]
fn what_lives_stays_and_the_rest_goes_and_its_space_comes_back() {
    let root = tempfile::tempdir().unwrap();
    let large = [long(300_000), long(400_000).into_iter().rev().collect()];
    let kept = put(root.path(), &[b"kept", &large[0]]);
    let gone = put(root.path(), &[b"gone", &large[1]]);
    let mixed = put(root.path(), &[b"small and kept", &[7; 4000]]);
    let live = [kept[0], kept[1], mixed[0]];
    let preview = preview(&open(root.path()), &blobs(&live), false).unwrap();
    let collected = collect_but(root.path(), &live, TERMS);
    assert_eq!(preview, collected, "the preview tells what is done");
    let objects: BTreeSet<_> = collected.objects.iter().map(|(_, digest, _)| *digest).collect();
    assert_eq!(objects, BTreeSet::from([gone[0], gone[1], mixed[1]]));
    for digest in live {
        assert!(open(root.path()).get(Kind::Blob, digest).is_ok());
    }
    for digest in objects {
        assert!(!has(root.path(), digest));
        assert!(open(root.path()).get(Kind::Blob, digest).is_ok(), "a reader finds it in the trash");
    }
    let again = collect_but(root.path(), &live, TERMS);
    assert_eq!(again, Collected::default(), "there is nothing left to do");
    let emptied = collect_but(root.path(), &live, Terms { now_seconds: 1100, ..TERMS });
    assert!(emptied.removed_bytes > 400_000 / 2, "{emptied:?}");
    assert!(matches!(open(root.path()).get(Kind::Blob, gone[0]), Err(StoreError::Missing { .. })));
    assert_eq!(names(&root.path().join("trash")), Vec::<String>::new());
}

#[test]
fn what_went_can_be_put_back() {
    let root = tempfile::tempdir().unwrap();
    let digests = put(root.path(), &[b"a", &long(200_000)]);
    assert_eq!(collect_but(root.path(), &[], TERMS).packs, 1);
    assert_eq!(put_back(&open(root.path())).unwrap(), 1);
    for digest in &digests {
        assert!(has(root.path(), *digest));
    }
    assert_eq!(put_back(&open(root.path())).unwrap(), 0);
}

#[test]
fn the_trash_keeps_what_lives_again_when_it_is_emptied() {
    let root = tempfile::tempdir().unwrap();
    let digests = put(root.path(), &[b"a", &long(200_000)]);
    collect_but(root.path(), &[], TERMS);
    let emptied = collect_but(root.path(), &digests, Terms { now_seconds: 5000, ..TERMS });
    assert_eq!((emptied.put_back, emptied.removed_bytes), (1, 0));
    assert!(digests.iter().all(|digest| has(root.path(), *digest)));
}

#[test]
fn with_no_time_to_undo_it_goes_at_once() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), &[b"a"]);
    let collected = collect_but(root.path(), &[], Terms { undo_seconds: 0, ..TERMS });
    assert!(collected.removed_bytes > 0);
    assert_eq!(names(&root.path().join("trash")), Vec::<String>::new());
}

#[test]
fn whoever_started_before_is_waited_for_and_the_next_collection_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let old = put(root.path(), &[b"old"])[0];
    let writer = open(root.path());
    assert!(!writer.put_bytes(Kind::Blob, b"old").unwrap().new, "it relies on what is there");
    let waiting = collect_but(root.path(), &[], TERMS);
    assert_eq!(waiting.waiting_for.len(), 1);
    assert!(waiting.waiting_for.first().unwrap().starts_with(&std::process::id().to_string()));
    assert!(has(root.path(), old));
    writer.sync().unwrap();
    drop(writer);
    let collected = collect_but(root.path(), &[old], TERMS);
    assert!(collected.objects.is_empty(), "what the writer recorded lives: {collected:?}");
    assert!(has(root.path(), old));
    assert_eq!(names(&root.path().join("gc")), ["lock"]);
}

#[test]
fn waiting_ends_when_the_other_does() {
    let root = tempfile::tempdir().unwrap();
    let old = put(root.path(), &[b"old"])[0];
    let writer = open(root.path());
    writer.hold().unwrap();
    std::thread::scope(|scope| {
        let collection = scope.spawn(|| collect_but(root.path(), &[], Terms { wait: true, ..TERMS }));
        while !root.path().join("gc/condemned").exists() {
            std::thread::yield_now();
        }
        drop(writer);
        assert_eq!(collection.join().unwrap().packs, 1);
    });
    assert!(!has(root.path(), old));
}

#[test]
fn what_was_found_before_a_session_and_went_is_looked_up_again_when_it_starts() {
    let root = tempfile::tempdir().unwrap();
    let large = long(200_000);
    let old = put(root.path(), &[b"old", &large]);
    let store = open(root.path());
    for digest in &old {
        assert!(store.length(Kind::Blob, *digest).unwrap().is_some(), "it knows the pack now");
    }
    // Nobody is waited for, and nothing is left on the list of what is condemned.
    assert_eq!(collect_but(root.path(), &[], TERMS).packs, 1);
    store.hold().unwrap();
    for digest in &old {
        assert_eq!(store.length(Kind::Blob, *digest).unwrap(), None);
    }
    for bytes in [&b"old"[..], &large] {
        assert!(store.put_bytes(Kind::Blob, bytes).unwrap().new);
    }
    store.sync().unwrap();
    assert!(old.iter().all(|digest| has(root.path(), *digest)));
}

#[test]
fn whoever_starts_after_something_was_condemned_writes_it_anew() {
    let root = tempfile::tempdir().unwrap();
    let large = long(200_000);
    let old = put(root.path(), &[b"old", &large]);
    let before = open(root.path());
    before.hold().unwrap();
    assert_eq!(collect_but(root.path(), &[], TERMS).waiting_for.len(), 1);
    let writer = open(root.path());
    assert!(has(root.path(), old[0]), "who only reads still finds it");
    writer.hold().unwrap();
    for digest in &old {
        assert_eq!(writer.length(Kind::Blob, *digest).unwrap(), None);
        assert!(matches!(writer.get(Kind::Blob, *digest), Err(StoreError::Missing { .. })));
    }
    // The same objects in the same order would make a pack of the same name.
    assert!(writer.put_bytes(Kind::Blob, b"old").unwrap().new);
    assert!(writer.put_bytes(Kind::Blob, &large).unwrap().new);
    writer.sync().unwrap();
    drop(before);
    // The writer has not recorded anything yet, so nobody says that it lives.
    assert_eq!(collect_but(root.path(), &[], TERMS).packs, 1);
    for digest in &old {
        assert!(writer.get(Kind::Blob, *digest).is_ok());
        assert!(has(root.path(), *digest));
    }
}

#[test]
fn what_refers_to_others_and_came_since_keeps_them() {
    let root = tempfile::tempdir().unwrap();
    let child = put(root.path(), &[b"child"])[0];
    let before = open(root.path());
    before.hold().unwrap();
    assert_eq!(collect_but(root.path(), &[], TERMS).waiting_for.len(), 1);
    // It relies on the child, and dies before it says so.
    let tree = before.put_bytes(Kind::Tree, b"tree").unwrap().digest;
    before.sync().unwrap();
    drop(before);
    let asked = Cell::new(0);
    let mark = |roots: &Live| {
        asked.set(asked.get() + 1);
        let reached = roots.contains(&(Kind::Tree, tree)).then_some((Kind::Blob, child));
        Ok::<_, StoreError>(reached.into_iter().collect())
    };
    let collected = collect(&open(root.path()), TERMS, &mark, &mut |_| ()).unwrap();
    assert_eq!(collected.objects, []);
    assert!(has(root.path(), child));
    assert_eq!(asked.get(), 2);
}

#[test]
fn a_damaged_pack_lets_nothing_go() {
    let root = tempfile::tempdir().unwrap();
    let digest = put(root.path(), &[b"a"])[0];
    disk::write_whole(&root.path().join("packs/x.pack"), b"no pack", disk::Durability::Deferred).unwrap();
    let failed = collect::<StoreError>(&open(root.path()), TERMS, &|_| Ok(Live::new()), &mut |_| ());
    assert!(matches!(failed, Err(StoreError::BadPack { .. })));
    assert!(has(root.path(), digest));
}

#[test]
fn a_loose_object_that_is_put_anew_stays_and_goes_when_nobody_needs_it() {
    let root = tempfile::tempdir().unwrap();
    let large = long(100_000);
    let digest = Digest::of(&large);
    let path = open(root.path()).path_of(Kind::Blob, digest);
    disk::write_whole(&path, &large, disk::Durability::Deferred).unwrap();
    let before = open(root.path());
    before.hold().unwrap();
    assert_eq!(collect_but(root.path(), &[], TERMS).waiting_for.len(), 1);
    let writer = open(root.path());
    let source = root.path().join("source");
    disk::write_whole(&source, &large, disk::Durability::Deferred).unwrap();
    assert!(writer.put(Kind::Blob, super::super::Source::File(&source)).unwrap().new);
    writer.sync().unwrap();
    drop(before);
    assert_eq!(collect_but(root.path(), &[], TERMS).waiting_for.len(), 0);
    assert_eq!(writer.get(Kind::Blob, digest).unwrap(), large);
    assert!(has(root.path(), digest));
    drop(writer);
    let collected = collect_but(root.path(), &[], TERMS);
    assert_eq!((collected.packs, collected.objects.len()), (1, 1));
    assert!(!path.exists() && !has(root.path(), digest));
    assert_eq!(open(root.path()).get(Kind::Blob, digest).unwrap(), large, "in the trash");
    assert_eq!(put_back(&open(root.path())).unwrap(), 2);
    assert!(path.exists() && has(root.path(), digest));
}

#[test]
fn nothing_that_lives_is_lost_wherever_a_collection_stops_and_the_next_one_finishes() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("store");
    let disk = Arc::new(Recorder::new());
    let open_on = |disk: &Arc<Recorder>| LocalStore::open_on(Arc::clone(disk) as _, &directory).unwrap();
    let put = |objects: &[&[u8]]| {
        let store = open_on(&disk);
        let put = |bytes: &&[u8]| store.put_bytes(Kind::Blob, bytes).unwrap().digest;
        let digests: Vec<_> = objects.iter().map(put).collect();
        store.sync().unwrap();
        digests
    };
    let large = long(100_000);
    let kept = put(&[b"kept"])[0];
    let mixed = put(&[b"kept too", &large, &[1; 3000]]);
    let gone = put(&[b"gone"])[0];
    let live = blobs(&[kept, mixed[0]]);
    let before = disk.log().len();
    let terms = Terms { undo_seconds: 0, ..TERMS };
    let collected = collect::<StoreError>(&open_on(&disk), terms, &|_| Ok(live.clone()), &mut |_| ()).unwrap();
    assert_eq!(collected.packs, 2);
    let log = disk.log();
    assert!(log.len() > before + 15, "only {} effects", log.len() - before);
    for length in before..=log.len() {
        for cut in Cut::ALL {
            let (left, case) = (root.path().join("left"), format!("{cut:?} after {length} effects"));
            play(&log[..length], cut, &directory, &left);
            for digest in [kept, mixed[0]] {
                assert!(open(&left).get(Kind::Blob, digest).is_ok(), "{case}: {digest} is lost");
            }
            let again = collect::<StoreError>(&open(&left), terms, &|_| Ok(live.clone()), &mut |_| ());
            again.unwrap_or_else(|error| panic!("{case}: {error}"));
            for digest in [kept, mixed[0]] {
                assert!(has(&left, digest), "{case}: {digest} is lost by the next collection");
            }
            for digest in [gone, mixed[1], mixed[2]] {
                assert!(!has(&left, digest), "{case}: {digest} is still there");
            }
            assert_eq!(names(&left.join("gc")), ["lock"], "{case}");
            disk::remove_tree(&left).unwrap();
        }
    }
}

/// A store on a recorder, with a large object that is a file of its own, one in pieces and some small ones.
fn filled(directory: &Path) -> (Arc<Recorder>, Vec<Digest>) {
    let disk = Arc::new(Recorder::new());
    let store = LocalStore::open_on(Arc::clone(&disk) as _, directory).unwrap();
    let pieces: Vec<u8> = long(300_000).into_iter().rev().collect();
    let mut digests = Vec::new();
    for object in [&b"one"[..], &pieces, b"two"] {
        digests.push(store.put_bytes(Kind::Blob, object).unwrap().digest);
        store.sync().unwrap();
    }
    let loose = long(100_000);
    digests.push(Digest::of(&loose));
    let path = store.path_of(Kind::Blob, Digest::of(&loose));
    disk::make_directories(&*disk, disk::parent(&path)).unwrap();
    disk::write_whole_on(&*disk, &path, &loose, disk::Durability::Synced).unwrap();
    for above in path.ancestors().skip(1).take_while(|above| above.starts_with(directory)) {
        crate::disk::Disk::flush(&*disk, Flush::Directory(above)).unwrap();
    }
    (disk, digests)
}

/// Plays every prefix of what was done after `before` effects under every cut. What is left must hold all `digests`,
/// and `finish` must bring each of them back to its place.
fn all_come_back_wherever_it_stops(
    root: &Path,
    disk: &Recorder,
    before: usize,
    digests: &[Digest],
    finish: impl Fn(&LocalStore),
) {
    let log = disk.log();
    assert!(log.len() > before + 10, "only {} effects", log.len() - before);
    for length in before..=log.len() {
        for cut in Cut::ALL {
            let (left, case) = (root.join("left"), format!("{cut:?} after {length} of {before}..{}", log.len()));
            play(&log[..length], cut, &root.join("store"), &left);
            for digest in digests {
                let got = open(&left).get(Kind::Blob, *digest);
                assert!(got.is_ok(), "{case}: {digest} is lost: {got:?}; the last effect was {:?}", log[length - 1]);
            }
            finish(&open(&left));
            for digest in digests {
                assert!(has(&left, *digest), "{case}: {digest} did not come back");
            }
            assert_eq!(names(&left.join("trash")), Vec::<String>::new(), "{case}");
            assert_eq!(names(&left.join("gc")), ["lock"], "{case}");
            disk::remove_tree(&left).unwrap();
        }
    }
}

#[test]
fn what_is_put_back_is_all_there_wherever_that_stops_and_the_next_try_finishes() {
    let root = tempfile::tempdir().unwrap();
    let (disk, digests) = filled(&root.path().join("store"));
    let store = LocalStore::open_on(Arc::clone(&disk) as _, &root.path().join("store")).unwrap();
    let collected = collect::<StoreError>(&store, TERMS, &|_| Ok(Live::new()), &mut |_| ()).unwrap();
    assert_eq!(collected.objects.len(), digests.len());
    let before = disk.log().len();
    assert_eq!(put_back(&store).unwrap(), 4);
    all_come_back_wherever_it_stops(root.path(), &disk, before, &digests, |store| {
        put_back(store).unwrap();
    });
}

#[test]
fn what_lives_again_comes_out_of_the_trash_wherever_emptying_it_stops() {
    let root = tempfile::tempdir().unwrap();
    let (disk, digests) = filled(&root.path().join("store"));
    let store = LocalStore::open_on(Arc::clone(&disk) as _, &root.path().join("store")).unwrap();
    collect::<StoreError>(&store, TERMS, &|_| Ok(Live::new()), &mut |_| ()).unwrap();
    let before = disk.log().len();
    // All but the first lives again when its time to be undone is over.
    let (gone, living) = digests.split_first().unwrap();
    let late = Terms { now_seconds: 5000, ..TERMS };
    let mark = |_: &Live| Ok::<_, StoreError>(blobs(living));
    let emptied = collect(&store, late, &mark, &mut |_| ()).unwrap();
    assert_eq!(emptied.put_back, 3);
    assert!(emptied.removed_bytes > 0 && !has(&root.path().join("store"), *gone));
    all_come_back_wherever_it_stops(root.path(), &disk, before, living, |store| {
        collect(store, late, &mark, &mut |_| ()).unwrap();
    });
}

#[test]
fn what_writers_acknowledge_beside_collections_stays() {
    const WRITERS: usize = 3;
    const ROUNDS: usize = 25;
    let root = tempfile::tempdir().unwrap();
    let recorded: Mutex<Live> = Mutex::default();
    let done = AtomicBool::new(false);
    let (went, unfinished) = (Mutex::new(0), Mutex::new(0));
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let mut now_seconds = 1000;
            loop {
                let is_last = done.load(Ordering::SeqCst);
                now_seconds += 1;
                let terms = Terms { all: now_seconds % 2 == 0, wait: is_last, now_seconds, undo_seconds: 0 };
                let mark = |_: &Live| Ok::<_, StoreError>(recorded.lock().unwrap().clone());
                let collected = collect(&open(root.path()), terms, &mark, &mut |_| ()).unwrap();
                *went.lock().unwrap() += collected.objects.len();
                *unfinished.lock().unwrap() += usize::from(!collected.waiting_for.is_empty());
                if is_last {
                    break;
                }
            }
        });
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (root, recorded) = (&root, &recorded);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let store = open(root.path());
                        // Some are the same in all rounds and of all writers, some are new, some are never recorded.
                        let texts =
                            [format!("{}", round % 5), format!("{writer} {round}"), format!("not {writer} {round}")];
                        let put = |text: &String| store.put_bytes(Kind::Blob, text.as_bytes()).unwrap().digest;
                        let digests: Vec<_> = texts.iter().map(put).collect();
                        let large = store.put_bytes(Kind::Blob, &long(70_000 + round % 3)).unwrap().digest;
                        store.sync().unwrap();
                        // Of the shared ones, some are forgotten again and are garbage until they come back.
                        let mut recorded = recorded.lock().unwrap();
                        recorded.extend(blobs(&[digests[0], digests[1], large]));
                        for digest in [digests[0], digests[1], large] {
                            assert!(store.get(Kind::Blob, digest).is_ok(), "{digest} is lost");
                        }
                        if round % 4 == 3 {
                            recorded.remove(&(Kind::Blob, Digest::of(format!("{}", (round + 2) % 5).as_bytes())));
                            recorded.remove(&(Kind::Blob, Digest::of(&long(70_000 + (round + 1) % 3))));
                        }
                        drop(recorded);
                    }
                })
            })
            .collect();
        let ends: Vec<_> = writers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        // Before a failure is passed on: the collector would wait for ever.
        done.store(true, Ordering::SeqCst);
        ends.into_iter().for_each(|end| end.unwrap());
        collector.join().unwrap();
    });
    let recorded = recorded.into_inner().unwrap();
    assert!(recorded.len() > WRITERS * ROUNDS);
    for (kind, digest) in recorded {
        let store = open(root.path());
        assert!(store.length(kind, digest).unwrap().is_some() && store.get(kind, digest).is_ok(), "{digest} is lost");
    }
    assert!(*went.lock().unwrap() > 0, "garbage went");
}
