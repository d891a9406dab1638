//! Every kind of damage is found, what can be saved is saved, and the next check is clean.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Checked, Flaw};
use crate::disk::recorder::{Cut, Recorder, play};
use crate::disk::{self, Durability};
use crate::hash::Digest;
use crate::object::Kind;
use crate::store::contract::{long, names};
use crate::store::pack::{Entry, HEADER_BYTES, Pack, Tag};
use crate::store::{LocalStore, Store, StoreError};

/// Objects by what they are, with their bytes.
type Objects = BTreeMap<(Kind, Digest), Vec<u8>>;

/// A large blob and small objects of several kinds.
fn objects() -> Objects {
    let small = [(Kind::Blob, b"weights".to_vec()), (Kind::Tree, b"tree".to_vec()), (Kind::Snapshot, b"all".to_vec())];
    let all = small.into_iter().chain([(Kind::Blob, long(70_000))]);
    all.map(|(kind, bytes)| ((kind, kind.digest(&bytes)), bytes)).collect()
}

/// A store with one pack that holds `objects`. Returns the pack.
fn packed(directory: &Path, objects: &Objects) -> PathBuf {
    let store = LocalStore::open(directory).unwrap();
    for ((kind, _), bytes) in objects {
        store.put_bytes(*kind, bytes).unwrap();
    }
    store.sync().unwrap();
    pack_of(directory)
}

fn pack_of(directory: &Path) -> PathBuf {
    let packs = names(&directory.join("packs"));
    assert_eq!(packs.len(), 1, "{packs:?}");
    directory.join("packs").join(&packs[0])
}

fn check(directory: &Path) -> Checked {
    LocalStore::open(directory).unwrap().check(&|_, _| true).unwrap()
}

fn mend(directory: &Path) -> Checked {
    let store = LocalStore::open(directory).unwrap();
    let mut checked = store.check(&|_, _| true).unwrap();
    store.settle(&mut checked).unwrap();
    checked
}

/// Returns which objects of `objects` a fresh store reads well.
fn readable(directory: &Path, objects: &Objects) -> BTreeSet<(Kind, Digest)> {
    let store = LocalStore::open(directory).unwrap();
    let is_there = |(kind, digest): &(Kind, Digest)| match store.get(*kind, *digest) {
        Ok(bytes) => bytes == objects[&(*kind, *digest)],
        Err(_) => false,
    };
    objects.keys().filter(|key| is_there(key)).copied().collect()
}

fn assert_clean(directory: &Path, case: &str) {
    assert_eq!(check(directory).lost, BTreeMap::new(), "{case}");
    assert_undamaged(directory, case);
}

/// Blobs of which a piece is lost may still be told: their recipes and their other pieces stay.
fn assert_undamaged(directory: &Path, case: &str) {
    let checked = check(directory);
    assert_eq!((&checked.damaged, checked.left), (&Vec::new(), 0), "{case}");
}

fn flip(path: &Path, at: u64, mask: u8) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ mask], at).unwrap();
}

fn entries(pack: &Path) -> Vec<Entry> {
    let mut entries: Vec<_> = Pack::open(pack).unwrap().entries().collect();
    entries.sort_by_key(|entry| entry.offset);
    entries
}

/// Mends a damaged store and holds it to: found, nothing readable lost, exactly `lost` lost, and then clean.
fn assert_mended(directory: &Path, objects: &Objects, lost: &BTreeSet<(Kind, Digest)>, case: &str) -> Checked {
    let checked = mend(directory);
    assert!(!checked.damaged.is_empty(), "{case}: nothing was found");
    let told: BTreeSet<_> = checked.lost.keys().copied().collect();
    let left = readable(directory, objects);
    let expected: BTreeSet<_> = objects.keys().filter(|key| !lost.contains(key)).copied().collect();
    assert_eq!(left, expected, "{case}");
    assert!(told.is_subset(lost), "{case}: {told:?} was told as lost and is not");
    for damaged in &checked.damaged {
        let aside = damaged.quarantined.as_ref().unwrap_or_else(|| panic!("{case}: {damaged:?} is where it was"));
        assert!(aside.starts_with("quarantine") && directory.join(aside).is_file(), "{case}: {aside:?}");
    }
    assert_undamaged(directory, case);
    checked
}

#[test]
fn a_whole_store_is_found_whole_and_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let objects = objects();
    let pack = packed(root.path(), &objects);
    let checked = mend(root.path());
    assert_eq!((checked.packs, checked.damaged.len(), checked.left), (1, 0, 0));
    assert_eq!(checked.objects, Pack::open(&pack).unwrap().count() as u64);
    assert_eq!(names(root.path()), ["FORMAT", "packs", "tmp", "verified"]);
    assert_eq!(pack_of(root.path()), pack);
}

#[test]
fn a_flipped_bit_is_found_wherever_it_is_and_costs_only_the_object_it_is_in() {
    let root = tempfile::tempdir().unwrap();
    let objects = objects();
    let original = fs::read(packed(&root.path().join("original"), &objects)).unwrap();
    let all = entries(&pack_of(&root.path().join("original")));
    let recipe = all.iter().find(|entry| entry.tag == Tag::Recipe).unwrap();
    let end = all.last().map(|entry| entry.offset + (HEADER_BYTES as u64) + u64::from(entry.stored)).unwrap();
    let total = original.len() as u64;
    let in_payload = |entry: &Entry| entry.offset + HEADER_BYTES as u64;
    // Start, each part of the headers, first and last bytes of the payloads, table of first bytes, entries, trailer.
    let mut places: Vec<u64> = vec![0, 9, 15, end, end + 511, end + 1023, end + 1024, end + 1024 + 40, end + 1024 + 53];
    places.extend((total - 64..total).step_by(4));
    for entry in &all {
        places.extend([0, 4, 5, 7, 8, 12, 16, 47, 48, 55].map(|at| entry.offset + at));
        places.extend([in_payload(entry), in_payload(entry) + u64::from(entry.stored) - 1]);
    }
    for (number, place) in places.into_iter().enumerate() {
        let directory = root.path().join(number.to_string());
        let pack = packed(&directory, &objects);
        flip(&pack, place, 1 << (number % 8));
        let hit =
            all.iter().find(|entry| in_payload(entry) <= place && place < in_payload(entry) + u64::from(entry.stored));
        let lost = match hit.map(|entry| (entry.tag, entry.digest)) {
            Some((Tag::Object(kind), digest)) => BTreeSet::from([(kind, digest)]),
            Some(_) => BTreeSet::from([(Kind::Blob, recipe.digest)]),
            None => BTreeSet::new(),
        };
        let checked = assert_mended(&directory, &objects, &lost, &format!("a bit of byte {place} of {total}"));
        assert_eq!(checked.lost.keys().copied().collect::<BTreeSet<_>>(), lost, "byte {place}: what is lost is told");
        disk::remove_tree(&directory).unwrap();
    }
}

#[test]
fn a_pack_that_was_cut_off_anywhere_gives_back_what_is_left_of_it() {
    let root = tempfile::tempdir().unwrap();
    let objects = objects();
    let original = fs::read(packed(&root.path().join("original"), &objects)).unwrap();
    let all = entries(&pack_of(&root.path().join("original")));
    let end = |entry: &Entry| usize::try_from(entry.offset).unwrap() + HEADER_BYTES + entry.stored as usize;
    let ends: Vec<_> = all.iter().map(end).collect();
    let mut cuts = vec![0, 1, 16, 40, original.len() - 1, original.len() - 64, original.len() - 65];
    cuts.extend(ends.iter().flat_map(|end| [end - 1, *end]));
    for cut in cuts {
        let directory = root.path().join(cut.to_string());
        let pack = packed(&directory, &objects);
        fs::remove_file(&pack).unwrap();
        disk::write_whole(&pack, &original[..cut], Durability::Deferred).unwrap();
        let is_left = |entry: &Entry, end: &usize| (*end <= cut).then_some((entry.tag, entry.digest));
        let left: BTreeSet<_> = all.iter().zip(&ends).filter_map(|(entry, end)| is_left(entry, end)).collect();
        let is_lost = |(kind, digest): &&(Kind, Digest)| {
            let pieces_left = all.iter().filter(|e| e.tag == Tag::Chunk).all(|e| left.contains(&(e.tag, e.digest)));
            let is_left = left.contains(&(Tag::Object(*kind), *digest));
            !(is_left || left.contains(&(Tag::Recipe, *digest)) && pieces_left)
        };
        let lost = objects.keys().filter(is_lost).copied().collect();
        let checked = assert_mended(&directory, &objects, &lost, &format!("cut after {cut} bytes"));
        assert_eq!(checked.damaged[0].flaw, Flaw::NoPack);
        let aside = directory.join(checked.damaged[0].quarantined.as_ref().unwrap());
        assert_eq!(fs::read(aside).unwrap(), &original[..cut], "the damaged bytes are kept");
        disk::remove_tree(&directory).unwrap();
    }
}

#[test]
fn a_foreign_file_among_the_packs_is_set_aside_and_one_without_their_ending_is_passed_over() {
    let root = tempfile::tempdir().unwrap();
    let objects = objects();
    packed(root.path(), &objects);
    for name in ["notes.pack", "notes.txt"] {
        disk::write_whole(&root.path().join("packs").join(name), b"notes", Durability::Deferred).unwrap();
    }
    let checked = assert_mended(root.path(), &objects, &BTreeSet::new(), "a foreign file");
    assert_eq!(checked.damaged[0].path, Path::new("packs/notes.pack"));
    assert_eq!((checked.damaged[0].saved, checked.damaged[0].bad), (0, 0));
    assert!(root.path().join("packs/notes.txt").is_file());
}

#[test]
fn a_pack_under_another_name_gets_its_own_back() {
    let root = tempfile::tempdir().unwrap();
    let objects = objects();
    let pack = packed(root.path(), &objects);
    let wrong = pack.with_file_name(format!("{}.pack", Digest::of(b"another")));
    fs::rename(&pack, &wrong).unwrap();
    let checked = assert_mended(root.path(), &objects, &BTreeSet::new(), "another name");
    assert_eq!(checked.damaged[0].flaw, Flaw::Name);
    assert_eq!(pack_of(root.path()), pack);
}

#[test]
fn a_new_pack_that_takes_the_name_of_the_damaged_one_does_not_take_its_bytes() {
    let root = tempfile::tempdir().unwrap();
    let objects = objects();
    let pack = packed(root.path(), &objects);
    let last = *entries(&pack).last().unwrap();
    flip(&pack, last.offset + 49, 1);
    let damaged_bytes = fs::read(&pack).unwrap();
    let checked = assert_mended(root.path(), &objects, &BTreeSet::new(), "a damaged header");
    assert_eq!(pack_of(root.path()), pack, "the same records make the same name");
    let aside = root.path().join(checked.damaged[0].quarantined.as_ref().unwrap());
    assert_eq!(fs::read(aside).unwrap(), damaged_bytes);
}

#[test]
fn a_damaged_object_of_which_another_pack_has_a_copy_is_not_lost() {
    let root = tempfile::tempdir().unwrap();
    let objects = objects();
    let pack = packed(root.path(), &objects);
    packed(&root.path().join("other"), &BTreeMap::from([((Kind::Blob, Digest::of(b"weights")), b"weights".to_vec())]));
    let copy = pack_of(&root.path().join("other"));
    fs::rename(&copy, pack.with_file_name(copy.file_name().unwrap())).unwrap();
    disk::remove_tree(&root.path().join("other")).unwrap();
    let entry = entries(&pack).into_iter().find(|entry| entry.digest == Digest::of(b"weights")).unwrap();
    flip(&pack, entry.offset + HEADER_BYTES as u64, 4);
    let checked = assert_mended(root.path(), &objects, &BTreeSet::new(), "a copy");
    assert_eq!((checked.damaged[0].bad, checked.lost.len()), (1, 0));
}

#[test]
fn a_recipe_whose_piece_went_with_another_pack_is_a_lost_blob() {
    let root = tempfile::tempdir().unwrap();
    let blob = long(3_000_000);
    let digest = Digest::of(&blob);
    let pack = packed(root.path(), &BTreeMap::from([((Kind::Blob, digest), blob)]));
    let store = LocalStore::open(root.path()).unwrap();
    let kept = Pack::open(&pack).unwrap();
    let piece = kept.entries().find(|entry| entry.tag == Tag::Chunk).unwrap().digest;
    crate::store::rewrite::copy_records(&store, &kept, |entry| entry.digest != piece).unwrap();
    store.sync().unwrap();
    drop(store);
    fs::remove_file(&pack).unwrap();
    let checked = mend(root.path());
    assert_eq!(checked.damaged, [], "every file is what was written");
    assert_eq!(checked.lost, BTreeMap::from([((Kind::Blob, digest), 3_000_000)]));
}

#[test]
fn a_piece_that_two_blobs_share_is_lost_to_both_and_comes_back_with_one_of_their_files() {
    let root = tempfile::tempdir().unwrap();
    let shared = long(3_000_000);
    let blobs = [b"one", b"two"].map(|end| [&shared[..], end].concat());
    let names = blobs.each_ref().map(|bytes| (Kind::Blob, Digest::of(bytes)));
    let pack = packed(root.path(), &names.into_iter().zip(blobs.clone()).collect());
    // The piece that the first of them begins with: the last one, which differs, ends long after it.
    let first = Digest::of(&shared[..crate::store::chunk::first_cut(&shared)]);
    let entry = entries(&pack).into_iter().find(|entry| entry.digest == first).unwrap();
    flip(&pack, entry.offset + HEADER_BYTES as u64 + 7, 1);
    let store = LocalStore::open(root.path()).unwrap();
    let mut checked = store.check(&|_, _| true).unwrap();
    assert_eq!(checked.lost, names.map(|name| (name, 3_000_003)).into());
    let file = root.path().join("one");
    disk::write_whole(&file, &blobs[0], Durability::Deferred).unwrap();
    store.put(Kind::Blob, crate::store::Source::File(&file)).unwrap();
    store.find_whole(&mut checked);
    assert_eq!(checked.lost, BTreeMap::new());
    store.settle(&mut checked).unwrap();
    drop(store);
    assert_clean(root.path(), "a shared piece");
    for ((kind, digest), bytes) in names.into_iter().zip(blobs) {
        assert_eq!(LocalStore::open(root.path()).unwrap().get(kind, digest).unwrap(), bytes);
    }
}

#[test]
fn an_object_in_a_file_of_its_own_is_checked_whatever_its_mode() {
    let root = tempfile::tempdir().unwrap();
    let store = LocalStore::open(root.path()).unwrap();
    let good = store.path_of(Kind::Tree, Kind::Tree.digest(b"good"));
    disk::write_whole(&good, b"good", Durability::Deferred).unwrap();
    let cases: [(&[u8], &[u8]); 3] = [(b"flipped", b"flippee"), (b"cut off", b"cut"), (b"emptied", b"")];
    for (right, wrong) in cases {
        let digest = Digest::of(right);
        let path = store.path_of(Kind::Blob, digest);
        disk::write_whole(&path, wrong, Durability::Deferred).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        let checked = mend(root.path());
        let damaged = &checked.damaged[..];
        assert_eq!((damaged.len(), damaged[0].flaw), (1, Flaw::Content));
        assert_eq!(checked.lost.keys().copied().collect::<Vec<_>>(), [(Kind::Blob, digest)]);
        let aside = PathBuf::from(format!("quarantine/blob-{digest}-1"));
        assert_eq!(damaged[0].quarantined.as_ref(), Some(&aside));
        assert_eq!(fs::read(root.path().join(aside)).unwrap(), wrong);
        assert_clean(root.path(), "a loose object");
    }
    assert_eq!(fs::read(good).unwrap(), b"good");
}

#[test]
fn a_lost_object_that_is_put_between_check_and_settle_is_there_again() {
    for kind in [Kind::Blob, Kind::Tree] {
        let root = tempfile::tempdir().unwrap();
        let store = LocalStore::open(root.path()).unwrap();
        let digest = kind.digest(b"weights");
        disk::write_whole(&store.path_of(kind, digest), b"weightr", Durability::Deferred).unwrap();
        let mut checked = store.check(&|_, _| true).unwrap();
        assert_eq!(store.length(kind, digest).unwrap(), None, "what is damaged counts as absent");
        assert!(store.put_bytes(kind, b"weights").unwrap().new);
        store.settle(&mut checked).unwrap();
        assert_eq!(LocalStore::open(root.path()).unwrap().get(kind, digest).unwrap(), b"weights");
        assert_clean(root.path(), "put again");
    }
}

#[test]
fn a_check_that_is_not_settled_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let objects = objects();
    let pack = packed(root.path(), &objects);
    flip(&pack, 20, 1);
    let before = fs::read(&pack).unwrap();
    let store = LocalStore::open(root.path()).unwrap();
    let checked = store.check(&|_, _| true).unwrap();
    assert_eq!(checked.damaged.len(), 1);
    drop(store);
    assert_eq!(fs::read(pack_of(root.path())).unwrap(), before);
    assert!(!root.path().join("quarantine").exists());
    assert_eq!(names(&root.path().join("tmp")), ["lock"]);
}

#[test]
fn a_check_that_must_stop_covers_one_pack_and_goes_on_with_the_others() {
    let root = tempfile::tempdir().unwrap();
    for number in 0..4_u8 {
        let store = LocalStore::open(root.path()).unwrap();
        store.put_bytes(Kind::Blob, &[number]).unwrap();
        store.sync().unwrap();
    }
    disk::write_whole(
        &LocalStore::open(root.path()).unwrap().path_of(Kind::Blob, Digest::of(b"x")),
        b"x",
        Durability::Deferred,
    )
    .unwrap();
    let verified = || fs::read_to_string(root.path().join("verified")).unwrap();
    let in_order = || verified().lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect::<Vec<_>>();
    let mut seen = Vec::new();
    for _ in 0..5 {
        let checked = LocalStore::open(root.path()).unwrap().check(&|_, _| false).unwrap();
        assert_eq!((checked.objects, checked.left), (1, 4));
        seen.push(in_order().pop().unwrap());
    }
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 5, "each time another: {seen:?}");
    LocalStore::open(root.path()).unwrap().check(&|_, _| false).unwrap();
    assert_eq!(in_order().pop().unwrap(), seen[0], "then the one that was checked first");
    fs::remove_file(root.path().join("verified")).unwrap();
    assert_eq!(check(root.path()).left, 0);
    assert_eq!(in_order().len(), 5);
}

#[test]
fn what_is_remembered_is_not_trusted() {
    let root = tempfile::tempdir().unwrap();
    let objects = objects();
    let pack = packed(root.path(), &objects);
    assert_clean(root.path(), "whole");
    let entry = entries(&pack)[0];
    flip(&pack, entry.offset + HEADER_BYTES as u64, 1);
    assert_eq!(check(root.path()).damaged.len(), 1, "verified before, and read again all the same");
    disk::write_whole(&root.path().join("verified"), b"\xff\x00 nonsense\n\n", Durability::Deferred).unwrap();
    assert_eq!(check(root.path()).damaged.len(), 1);
}

#[test]
fn progress_counts_every_object_from_more_than_one_thread() {
    let root = tempfile::tempdir().unwrap();
    packed(root.path(), &objects());
    let counted = AtomicU64::new(0);
    let store = LocalStore::open(root.path()).unwrap();
    let checked = store
        .check(&|objects, _| {
            counted.fetch_add(objects, Ordering::Relaxed);
            true
        })
        .unwrap();
    assert_eq!(counted.into_inner(), checked.objects);
}

/// Checks and settles; in between, what is lost is put again, as if a file had it.
fn mend_and_put(store: &LocalStore, objects: &Objects) {
    let mut checked = store.check(&|_, _| true).unwrap();
    for (kind, digest) in checked.lost.keys() {
        store.put_bytes(*kind, &objects[&(*kind, *digest)]).unwrap();
    }
    store.find_whole(&mut checked);
    assert_eq!(checked.lost, BTreeMap::new());
    store.settle(&mut checked).unwrap();
}

/// Mends a damaged store of one pack through a recorded disk, and looks at what is left wherever that stops.
fn replayed(damage: impl Fn(&Path, &[Entry])) {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("store");
    let objects: Objects = objects().into_iter().filter(|(_, bytes)| bytes.len() < 100).collect();
    let before_mending = root.path().join("before");
    let pack = packed(&directory, &objects);
    damage(&pack, &entries(&pack));
    let readable_before = readable(&directory, &objects);
    copy(&directory, &before_mending);
    let disk = Arc::new(Recorder::new());
    adopt(&disk, &before_mending, &directory);
    let adopted = disk.log().len();
    let store = LocalStore::open_on(Arc::clone(&disk) as _, &directory).unwrap();
    mend_and_put(&store, &objects);
    drop(store);
    let log = disk.log();
    assert!(log.len() > adopted + 8, "the scenario has only {} effects", log.len() - adopted);
    let all: BTreeSet<_> = objects.keys().copied().collect();
    assert_eq!(readable(&directory, &objects), all);
    let mut seen = BTreeSet::new();
    for count in adopted..=log.len() {
        for cut in Cut::ALL {
            let case = format!("{cut:?} after {} effects", count - adopted);
            let left = root.path().join("left");
            play(&log[..count], cut, &directory, &left);
            // Many stops leave the same.
            if !seen.insert(state(&left)) && count < log.len() {
                disk::remove_tree(&left).unwrap();
                continue;
            }
            let readable_now = readable(&left, &objects);
            assert!(readable_before.is_subset(&readable_now), "{case}: something that was readable is not");
            mend_and_put(&LocalStore::open(&left).unwrap(), &objects);
            assert!(count < log.len() || readable_now == all, "{case}: what was acknowledged is lost");
            assert_eq!(readable(&left, &objects), all, "{case}: not all is saved by the next try");
            assert_clean(&left, &case);
            let kept = disk::walk(&left).any(|entry| entry.unwrap().0.to_string_lossy().contains("quarantine/"));
            assert!(kept, "{case}: the damaged bytes are gone");
            disk::remove_tree(&left).unwrap();
        }
    }
}

/// Returns every path below a directory, with its bytes.
fn state(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = disk::walk(directory).map(|entry| entry.unwrap().0);
    paths.map(|path| (path.strip_prefix(directory).unwrap().to_owned(), fs::read(path).unwrap_or_default())).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in disk::walk(from) {
        let (path, found) = entry.unwrap();
        let to = to.join(path.strip_prefix(from).unwrap());
        match found {
            disk::Found::Directory => fs::create_dir(to).unwrap(),
            _ => drop(fs::copy(path, to).unwrap()),
        }
    }
}

/// Writes everything below `from` to `to` once more through `disk`, durably, so that its log holds the beginning, too.
fn adopt(disk: &Recorder, from: &Path, to: &Path) {
    use crate::disk::{Change, Disk, Flush};
    disk::remove_tree(to).unwrap();
    disk.change(Change::MakeDirectory(to)).unwrap();
    for entry in disk::walk(from) {
        let (path, found) = entry.unwrap();
        let to = to.join(path.strip_prefix(from).unwrap());
        if found == disk::Found::Directory {
            disk.change(Change::MakeDirectory(&to)).unwrap();
        } else if !path.ends_with("lock") {
            let file = disk.create(&to).unwrap();
            disk.write(&file, &to, 0, &fs::read(&path).unwrap()).unwrap();
        }
    }
    disk.flush(Flush::FileSystem(to)).unwrap();
}

#[test]
fn a_mending_that_stops_anywhere_leaves_nothing_less_than_there_was() {
    // A damaged object that is put again: the new pack has another name.
    replayed(|pack, entries| {
        let small = entries.iter().find(|entry| entry.tag == Tag::Object(Kind::Tree)).unwrap();
        flip(pack, small.offset + HEADER_BYTES as u64, 1);
    });
    // A damaged header: the new pack takes the place of the damaged one.
    replayed(|pack, entries| flip(pack, entries.last().unwrap().offset + 49, 1));
    // A damaged index.
    replayed(|pack, _| flip(pack, fs::metadata(pack).unwrap().len() - 200, 1));
}

#[test]
fn a_store_that_does_not_exist_is_whole_and_stays_away() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("store");
    assert_clean(&directory, "none");
    assert!(!directory.exists());
}

#[test]
fn a_damaged_store_that_cannot_be_written_is_checked_and_says_what_could_be_saved() {
    let root = tempfile::tempdir().unwrap();
    let objects = objects();
    let pack = packed(root.path(), &objects);
    let entry = entries(&pack).into_iter().find(|entry| entry.tag == Tag::Object(Kind::Tree)).unwrap();
    flip(&pack, entry.offset + HEADER_BYTES as u64, 1);
    let read_only = || Err(std::io::Error::from(std::io::ErrorKind::ReadOnlyFilesystem));
    let disk = Arc::new(Recorder::guarded(Box::new(move |_, _| read_only())));
    let store = LocalStore::open_on(disk, root.path()).unwrap();
    let mut checked = store.check(&|_, _| true).unwrap();
    let count = Pack::open(&pack).unwrap().count() as u64;
    assert_eq!((checked.damaged[0].saved, checked.damaged[0].bad), (count - 1, 1));
    assert_eq!(checked.lost.keys().collect::<Vec<_>>(), [&(Kind::Tree, entry.digest)]);
    assert!(!root.path().join("verified").exists());
    let error = store.settle(&mut checked).unwrap_err();
    assert!(matches!(&error, StoreError::Disk(error) if error.source.kind() == std::io::ErrorKind::ReadOnlyFilesystem));
    assert!(pack.is_file());
}

#[test]
fn a_write_that_fails_while_saving_is_an_error_and_the_damaged_pack_stays() {
    let root = tempfile::tempdir().unwrap();
    let objects = objects();
    let pack = packed(root.path(), &objects);
    flip(&pack, 20, 1);
    let before = fs::read(&pack).unwrap();
    for count in 0.. {
        let store = LocalStore::open_on(Arc::new(Recorder::stopping_after(count)), root.path()).unwrap();
        let outcome = store.check(&|_, _| true).and_then(|mut checked| store.settle(&mut checked));
        drop(store);
        match outcome {
            Ok(()) => break,
            Err(error) => assert!(matches!(error, StoreError::Disk(_)), "{error}"),
        }
        let kept = disk::walk(root.path()).any(|entry| fs::read(entry.unwrap().0).is_ok_and(|bytes| bytes == before));
        assert!(kept, "after {count} effects the damaged bytes are gone");
    }
    assert_eq!(readable(root.path(), &objects).len(), objects.len());
}
