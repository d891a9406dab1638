//! A store of every released format must open for ever.

use std::path::{Path, PathBuf};

use super::{LocalStore, Source, Store};
use crate::disk::{self, Durability, Found};
use crate::object::{Kind, Node, Snapshot};

/// Returns a copy of a frozen store, which a test may write to.
fn copy(format: &str) -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/stores").join(format);
    let to = root.path().join("store");
    for entry in disk::walk(&from) {
        let (path, found) = entry.unwrap();
        if let Found::File { .. } = found {
            let bytes = std::fs::read(&path).unwrap();
            disk::write_whole(&to.join(path.strip_prefix(&from).unwrap()), &bytes, Durability::Deferred).unwrap();
        }
    }
    (root, to)
}

/// Reads everything in a store; returns how many objects there are of each kind.
fn read_all(store: &LocalStore) -> Vec<usize> {
    let count = |kind: Kind| {
        let digests = store.find(kind, "").unwrap();
        for digest in &digests {
            let bytes = store.get(kind, *digest).unwrap();
            match kind {
                Kind::Tree => drop(Node::decode(&bytes).unwrap()),
                Kind::Snapshot => drop(Snapshot::decode(&bytes).unwrap()),
                _ => {}
            }
        }
        digests.len()
    };
    Kind::ALL.into_iter().map(count).collect()
}

#[test]
fn every_frozen_store_opens_reads_and_takes_more() {
    for format in ["1", "2"] {
        let (root, directory) = copy(format);
        let store = LocalStore::open(&directory).unwrap();
        let counts = read_all(&store);
        assert_eq!(counts, [17, 5, 1, 1, 1, 1], "format {format}");
        let large: Vec<u8> = store
            .find(Kind::Blob, "")
            .unwrap()
            .into_iter()
            .find_map(|digest| {
                let bytes = store.get(Kind::Blob, digest).unwrap();
                (bytes.len() == 80_000).then_some(bytes)
            })
            .unwrap();
        let source = root.path().join("source");
        disk::write_whole(&source, &large, Durability::Deferred).unwrap();
        assert!(!store.put(Kind::Blob, Source::File(&source)).unwrap().new, "format {format}");
        assert!(store.put_bytes(Kind::Blob, b"new").unwrap().new);
        store.sync().unwrap();
        let reopened = read_all(&LocalStore::open(&directory).unwrap());
        assert_eq!((reopened[0], &reopened[1..]), (counts[0] + 1, &counts[1..]), "format {format}");
    }
}
