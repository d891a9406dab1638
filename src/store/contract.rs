//! What every store promises, held against each of them.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::{LocalStore, MemoryStore, Put, Source, Store, StoreError};
use crate::disk::{self, Durability};
use crate::hash::Digest;
use crate::object::{BlobId, Kind};

/// A change to the stored bytes of an object.
type Damage = Box<dyn Fn(Kind, Digest)>;

/// A fresh store and the means to damage it.
struct Subject {
    name: &'static str,
    store: Arc<dyn Store>,
    flip_bit: Damage,
    /// Missing where an object cannot be shortened alone.
    truncate: Option<Damage>,
    /// For source and target files.
    root: TempDir,
}

impl Subject {
    /// Keeps the bytes for good, so that they can be damaged.
    fn keep(&self, kind: Kind, bytes: &[u8]) -> Digest {
        let put = self.store.put_bytes(kind, bytes).unwrap();
        self.store.sync().unwrap();
        put.digest
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.root.path().join(name);
        disk::write_whole(&path, bytes, Durability::Deferred).unwrap();
        path
    }
}

fn local() -> Subject {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(LocalStore::open(&root.path().join("store")).unwrap());
    let damaged = Arc::clone(&store);
    let flip_bit: Damage = Box::new(move |kind, digest| {
        damaged.damage(kind, digest, |bytes| *bytes.last_mut().unwrap() ^= 1);
    });
    Subject { name: "LocalStore", store, flip_bit, truncate: None, root }
}

fn memory() -> Subject {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::default());
    let (flipped, truncated) = (Arc::clone(&store), Arc::clone(&store));
    let flip_bit = Box::new(move |kind, digest| flipped.flip_bit(kind, digest));
    let truncate: Damage = Box::new(move |kind, digest| truncated.truncate(kind, digest));
    Subject { name: "MemoryStore", store, flip_bit, truncate: Some(truncate), root }
}

/// Holds `law` against a fresh store of each sort.
fn every_store(law: impl Fn(&Subject)) {
    for subject in [local(), memory()] {
        println!("store under test: {}", subject.name);
        law(&subject);
    }
}

/// Bytes that neither repeat nor compress.
pub(super) fn long(count: usize) -> Vec<u8> {
    let blocks = (0..=count as u64 / 32).map(|number| *Digest::of(&number.to_le_bytes()).as_bytes());
    blocks.flatten().take(count).collect()
}

fn corrupt_as(error: &StoreError) -> Option<(Digest, Digest)> {
    match error {
        StoreError::Corrupt { expected, actual, .. } => Some((*expected, *actual)),
        _ => None,
    }
}

#[test]
fn what_is_put_comes_back_before_and_after_a_sync() {
    every_store(|Subject { store, .. }| {
        let cases = Kind::ALL.map(|kind| (kind, format!("a {kind}")));
        let check = || {
            for (kind, text) in &cases {
                let digest = kind.digest(text.as_bytes());
                assert_eq!(store.get(*kind, digest).unwrap(), text.as_bytes());
                assert_eq!(store.length(*kind, digest).unwrap(), Some(text.len() as u64));
                assert_eq!(store.find(*kind, "").unwrap(), [digest]);
            }
        };
        for (kind, text) in &cases {
            let put = store.put_bytes(*kind, text.as_bytes()).unwrap();
            let expected = Put { digest: kind.digest(text.as_bytes()), size: text.len() as u64, new: true };
            assert_eq!(put, expected);
        }
        check();
        store.sync().unwrap();
        check();
    });
}

#[test]
fn the_second_put_of_the_same_bytes_is_not_new() {
    every_store(|Subject { store, .. }| {
        assert!(store.put_bytes(Kind::Blob, b"x").unwrap().new);
        assert!(!store.put_bytes(Kind::Blob, b"x").unwrap().new, "staged");
        store.sync().unwrap();
        assert!(!store.put_bytes(Kind::Blob, b"x").unwrap().new, "committed");
        assert!(store.put_bytes(Kind::Tree, b"x").unwrap().new, "another kind is another object");
    });
}

#[test]
fn an_object_that_was_never_put_is_missing() {
    every_store(|Subject { store, root, .. }| {
        let digest = Kind::Blob.digest(b"never");
        let target = root.path().join("target");
        let missing = |error| matches!(error, StoreError::Missing { kind: Kind::Blob, digest: of } if of == digest);
        assert!(missing(store.get(Kind::Blob, digest).unwrap_err()));
        assert!(missing(store.open(Kind::Blob, digest).err().unwrap()));
        assert!(missing(store.export(BlobId::from(digest), &target, false).unwrap_err()));
        assert_eq!(store.length(Kind::Blob, digest).unwrap(), None);
        assert!(!target.exists());
    });
}

#[test]
fn a_flipped_bit_is_reported_not_returned() {
    every_store(|subject| {
        for kind in Kind::ALL {
            let digest = subject.keep(kind, b"weights");
            (subject.flip_bit)(kind, digest);
            let error = subject.store.get(kind, digest).unwrap_err();
            assert_eq!(corrupt_as(&error), Some((digest, kind.digest(b"weightr"))));
        }
    });
}

#[test]
fn a_truncated_object_is_reported_and_the_next_put_heals_it() {
    every_store(|subject| {
        let Some(truncate) = &subject.truncate else { return };
        let digest = subject.keep(Kind::Blob, b"weights!");
        truncate(Kind::Blob, digest);
        let error = subject.store.get(Kind::Blob, digest).unwrap_err();
        assert_eq!(corrupt_as(&error), Some((digest, Kind::Blob.digest(b"weig"))));
        assert!(subject.store.put_bytes(Kind::Blob, b"weights!").unwrap().new);
        subject.store.sync().unwrap();
        assert_eq!(subject.store.get(Kind::Blob, digest).unwrap(), b"weights!");
    });
}

#[test]
fn a_reader_never_ends_well_on_bytes_that_do_not_match() {
    every_store(|subject| {
        let digest = subject.keep(Kind::Blob, &long(1000));
        (subject.flip_bit)(Kind::Blob, digest);
        let mut reader = subject.store.open(Kind::Blob, digest).unwrap();
        let mut buffer = [0; 300];
        let mut total = 0;
        let error = loop {
            match reader.read(&mut buffer) {
                Ok(0) => panic!("the end was reported after {total} bytes"),
                Ok(count) => total += count,
                Err(error) => break error,
            }
        };
        assert_eq!((total, error.kind()), (1000, io::ErrorKind::InvalidData));
        let error = StoreError::from_read(error, Kind::Blob, digest);
        assert_eq!(corrupt_as(&error).map(|(expected, _)| expected), Some(digest));
        assert_eq!(reader.read(&mut []).unwrap(), 0, "an empty buffer asks for nothing");
        assert_eq!(reader.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::InvalidData, "and it stays so");
    });
}

#[test]
fn objects_are_found_by_any_prefix_in_order() {
    every_store(|Subject { store, .. }| {
        let put = |number: u32| store.put_bytes(Kind::Tree, &number.to_le_bytes()).unwrap().digest;
        let mut all: Vec<_> = (0..40).map(put).collect();
        all.sort();
        // Half of the checks see a store that is partly committed, partly staged.
        store.sync().unwrap();
        all.extend((40..80).map(put));
        all.sort();
        assert_eq!(store.find(Kind::Tree, "").unwrap(), all);
        assert_eq!(store.find(Kind::Blob, "").unwrap(), []);
        let hex = all[17].to_string();
        for digits in [1, 2, 3, 12, 64] {
            let prefix = &hex[..digits];
            let expected: Vec<_> =
                all.iter().copied().filter(|digest| digest.to_string().starts_with(prefix)).collect();
            assert_eq!(store.find(Kind::Tree, prefix).unwrap(), expected);
            assert_eq!(store.find(Kind::Tree, &prefix.to_uppercase()).unwrap(), expected);
        }
        for nonsense in ["g", "..", "../", "é", &format!("{hex}0")] {
            assert_eq!(store.find(Kind::Tree, nonsense).unwrap(), [], "{nonsense}");
        }
    });
}

#[test]
fn a_file_is_kept_whatever_its_size_and_kind() {
    every_store(|subject| {
        for size in [0, 1, 64 * 1024 - 1, 64 * 1024, 3 * 1024 * 1024] {
            let bytes = long(size);
            let path = subject.file("source", &bytes);
            for kind in [Kind::Blob, Kind::Tree] {
                let expected = Put { digest: kind.digest(&bytes), size: size as u64, new: true };
                assert_eq!(subject.store.put(kind, Source::File(&path)).unwrap(), expected);
                assert_eq!(
                    subject.store.put(kind, Source::File(&path)).unwrap(),
                    Put { new: false, ..expected },
                    "staged"
                );
                subject.store.sync().unwrap();
                assert!(!subject.store.put(kind, Source::File(&path)).unwrap().new, "committed");
                assert_eq!(subject.store.get(kind, expected.digest).unwrap(), bytes);
            }
        }
    });
}

#[test]
fn a_source_that_is_no_readable_file_is_named() {
    every_store(|subject| {
        for path in [subject.root.path().join("none"), subject.root.path().to_owned()] {
            let error = subject.store.put(Kind::Blob, Source::File(&path)).unwrap_err();
            assert!(matches!(&error, StoreError::Source { path: named, .. } if *named == path), "{error:?}");
        }
    });
}

#[test]
fn an_empty_object_is_an_object() {
    every_store(|subject| {
        for kind in Kind::ALL {
            let digest = subject.keep(kind, b"");
            assert_eq!(subject.store.length(kind, digest).unwrap(), Some(0));
            assert_eq!(subject.store.get(kind, digest).unwrap(), b"");
            assert!(!subject.store.put_bytes(kind, b"").unwrap().new);
        }
    });
}

#[test]
fn a_big_object_comes_back_in_pieces() {
    every_store(|subject| {
        let bytes = long(3 * 1024 * 1024);
        let digest = subject.keep(Kind::Blob, &bytes);
        let mut reader = subject.store.open(Kind::Blob, digest).unwrap();
        let mut pieces = Vec::new();
        let mut buffer = vec![0; 100_000];
        while let count @ 1.. = reader.read(&mut buffer).unwrap() {
            pieces.extend_from_slice(&buffer[..count]);
        }
        assert!(pieces == bytes);
    });
}

#[test]
fn many_threads_put_the_same_and_different_objects() {
    const THREADS: u32 = 8;
    const OBJECTS: u32 = 40;
    every_store(|Subject { store, .. }| {
        let put_all = |thread: u32| {
            let shared = (0..OBJECTS).map(|number| format!("shared {number}"));
            let own = (0..OBJECTS).map(|number| format!("own {thread} {number}"));
            let puts = shared.chain(own).map(|text| store.put_bytes(Kind::Blob, text.as_bytes()).unwrap());
            puts.filter(|put| put.new).count()
        };
        let new: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || put_all(thread))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(new, ((THREADS + 1) * OBJECTS) as usize, "each object is new exactly once");
        store.sync().unwrap();
        assert_eq!(store.find(Kind::Blob, "").unwrap().len(), new);
        for thread in 0..THREADS {
            let text = format!("own {thread} 7");
            assert_eq!(store.get(Kind::Blob, Kind::Blob.digest(text.as_bytes())).unwrap(), text.as_bytes());
        }
    });
}

#[test]
fn an_export_is_whole_and_has_the_asked_mode() {
    every_store(|subject| {
        let bytes = long(200_000);
        let id = BlobId::from(subject.keep(Kind::Blob, &bytes));
        let directory = subject.root.path().join("new/deep");
        for (name, executable) in [("plain", false), ("program", true)] {
            let target = directory.join(name);
            subject.store.export(id, &target, executable).unwrap();
            assert!(fs::read(&target).unwrap() == bytes);
            let mode = fs::metadata(&target).unwrap().permissions().mode();
            assert_eq!((mode & 0o100 != 0, mode & 0o600), (executable, 0o600));
        }
        assert_eq!(names(&directory), ["plain", "program"]);
    });
}

#[test]
fn an_export_replaces_a_link_and_never_writes_through_it() {
    every_store(|subject| {
        let id = BlobId::from(subject.keep(Kind::Blob, b"stored"));
        let precious = subject.file("precious", b"precious");
        let target = subject.root.path().join("link");
        symlink(&precious, &target).unwrap();
        subject.store.export(id, &target, false).unwrap();
        assert!(fs::symlink_metadata(&target).unwrap().is_file());
        assert_eq!(fs::read(&target).unwrap(), b"stored");
        assert_eq!(fs::read(&precious).unwrap(), b"precious");
        subject.store.export(id, &precious, false).unwrap();
        assert_eq!(fs::read(&precious).unwrap(), b"stored", "a file is replaced");
    });
}

#[test]
fn an_export_of_a_corrupt_object_leaves_the_target_as_it_was() {
    every_store(|subject| {
        let digest = subject.keep(Kind::Blob, b"weights");
        (subject.flip_bit)(Kind::Blob, digest);
        let directory = subject.root.path().join("out");
        let old = directory.join("old");
        disk::write_whole(&old, b"old", Durability::Deferred).unwrap();
        for target in [&old, &directory.join("new")] {
            let error = subject.store.export(BlobId::from(digest), target, false).unwrap_err();
            assert_eq!(corrupt_as(&error).map(|(expected, _)| expected), Some(digest));
        }
        assert_eq!(names(&directory), ["old"]);
        assert_eq!(fs::read(&old).unwrap(), b"old");
    });
}

/// The names in a directory, sorted, none if it is missing.
pub(super) fn names(directory: &Path) -> Vec<String> {
    let Ok(listed) = fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<_> = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
