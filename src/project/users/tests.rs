use std::collections::BTreeMap;
use std::fs;

use super::super::fixture::{begin, snapshot};
use super::*;
use crate::disk::Found;
use crate::object::{Kind, SnapshotId};
use crate::store::Store;

/// Two projects beside each other, each with a snapshot in a store of its own.
struct Two {
    root: tempfile::TempDir,
    ids: [SnapshotId; 2],
}

impl Two {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let ids = ["a", "b"].map(|name| {
            let tree = root.path().join(name);
            begin(&tree, name);
            snapshot(&Project::open(&tree, "pipeline").unwrap(), Time::now(), None).unwrap()
        });
        Self { root, ids }
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.root.path().canonicalize().unwrap().join(relative)
    }

    fn project(&self, name: &str) -> Project {
        Project::open(&self.path(name), "pipeline").unwrap()
    }

    fn moves(&self, name: &str, to: &str) -> Result<MovedStore, ProjectError> {
        self.project(name).move_store(&self.path(to), &|_, _| ())
    }

    /// Checks that both projects have what they had.
    fn verify(&self) {
        for (name, id) in ["a", "b"].into_iter().zip(self.ids) {
            self.project(name).store.get(Kind::Snapshot, id.digest()).unwrap();
        }
    }

    /// Returns all that is there but empty directories and what is only locked.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let files = disk::walk(self.root.path()).map(Result::unwrap);
        let files = files.filter(|(path, found)| matches!(found, Found::File { .. }) && !path.ends_with("lock"));
        files.map(|(path, _)| (path.clone(), fs::read(path).unwrap())).collect()
    }
}

#[test]
fn a_store_that_is_written_to_is_not_moved_and_everything_stays_as_it_was() {
    let two = Two::new();
    let writer = two.project("a").store;
    writer.hold().unwrap();
    let before = two.files();
    for _ in 0..2 {
        let refused = two.moves("a", "new/shared");
        assert!(matches!(refused, Err(ProjectError::Store(StoreError::InUse { .. }))), "{refused:?}");
        assert_eq!(two.files(), before);
        assert!(!two.path("new").exists());
    }
    // Who writes to the new place is in nobody's way.
    let there = LocalStore::open(&two.path("new/shared")).unwrap();
    there.hold().unwrap();
    drop(writer);
    two.moves("a", "new/shared").unwrap();
    two.verify();
}

#[test]
fn a_store_that_others_use_stays_for_them_however_often_it_is_left() {
    // The second of two equal moves took away what the other project had in the store of the first.
    let two = Two::new();
    let home = two.path("a/.git/pv");
    assert_eq!(two.moves("b", "a/.git/pv").unwrap().stays_at, None);
    assert_eq!(two.moves("a", "shared").unwrap().stays_at, Some(home.clone()));
    two.verify();
    assert_eq!(two.moves("a", "shared").unwrap().stays_at, Some(home.clone()));
    two.verify();
    assert_eq!(two.project("b").other_users().unwrap(), [two.path("a/.git")]);
    assert_eq!(two.project("a").other_users().unwrap(), [] as [PathBuf; 0]);
    assert_eq!(two.moves("b", "shared").unwrap().stays_at, Some(home));
    assert_eq!(two.project("a").other_users().unwrap(), [two.path("b/.git")]);
    assert_eq!(two.moves("b", "b/.git/pv").unwrap().stays_at, Some(two.path("shared")));
    assert_eq!(two.project("a").other_users().unwrap(), [] as [PathBuf; 0]);
    assert_eq!(two.moves("a", "a/.git/pv").unwrap().stays_at, None);
    two.verify();
    assert!(!two.path("shared/packs").exists() && !two.path("shared/users").exists());
}

#[test]
fn who_comes_while_a_store_is_copied_keeps_it() {
    let two = Two::new();
    let (home, other) = (two.path("a/.git/pv"), two.path("b/.git"));
    let comes = |_, _| LocalStore::open(&home).unwrap().used_by(&other).register().unwrap();
    let moved = two.project("a").move_store(&two.path("shared"), &comes).unwrap();
    assert_eq!(moved.stays_at, Some(home.clone()));
    two.verify();
    assert_eq!(LocalStore::open(&home).unwrap().users().unwrap(), [other].into());
}

#[test]
fn a_store_is_not_moved_into_itself() {
    let two = Two::new();
    let refused = |to: &str| {
        let before = two.files();
        let refused = two.moves("a", to);
        assert!(matches!(refused, Err(ProjectError::Store(StoreError::Occupied { .. }))), "{to}: {refused:?}");
        assert_eq!(two.files(), before);
    };
    refused("a/.git/pv/packs/new");
    refused("a/.git/pv/new");
    two.moves("a", "shared").unwrap();
    refused("shared/packs/new");
    refused("a/.git/pv/packs/new");
    refused("a");
    two.verify();
}

#[test]
fn a_store_that_is_where_it_should_be_is_left_alone() {
    let two = Two::new();
    let nothing = |to: &str| Some(MovedStore { path: two.path(to), files: 0, bytes: 0, stays_at: None });
    let before = two.files();
    assert_eq!(two.moves("a", "a/.git/pv").ok(), nothing("a/.git/pv"));
    assert_eq!(two.files(), before);
    two.moves("a", "shared").unwrap();
    let before = two.files();
    assert_eq!(two.moves("a", "shared").ok(), nothing("shared"));
    assert_eq!(two.files(), before);
    // A move that died had left a store that somebody removed since, or wrote half of where it was.
    for left in ["/gone/since\n", "no path", ""] {
        let leaving = two.path("a/.git/pv").join(LEAVING);
        disk::write_whole(&leaving, left.as_bytes(), Durability::Deferred).unwrap();
        assert_eq!(two.moves("a", "shared").ok(), nothing("shared"), "{left:?}");
        assert_eq!(two.files(), before, "{left:?}");
    }
    two.verify();
}

#[test]
fn what_a_move_that_died_left_at_any_old_place_is_found_again() {
    let two = Two::new();
    two.moves("a", "old").unwrap();
    let old = two.path("old");
    let packs: Vec<_> = two.files().into_iter().filter(|(path, _)| path.starts_with(old.join("packs"))).collect();
    two.moves("a", "new").unwrap();
    let put_back = |format: &str| {
        for (path, bytes) in &packs {
            disk::write_whole(path, bytes, Durability::Deferred).unwrap();
        }
        disk::write_whole(&old.join("FORMAT"), format.as_bytes(), Durability::Deferred).unwrap();
        let left = format!("{}\n", old.display());
        disk::write_whole(&two.path("a/.git/pv").join(LEAVING), left.as_bytes(), Durability::Deferred).unwrap();
    };
    // It had not yet said there that it was moved, or not yet removed everything.
    for format in ["pv-store 2\n", "pv-store moved\n"] {
        put_back(format);
        let moved = two.moves("a", "new").unwrap();
        assert_eq!((moved.files, moved.stays_at), (0, None));
        assert!(!old.join("packs").exists() && matches!(LocalStore::open(&old), Err(StoreError::Moved { .. })));
        two.verify();
    }
}

#[test]
fn a_place_that_is_only_begun_is_free_and_one_with_anything_in_it_is_not() {
    let two = Two::new();
    let place = two.path("place");
    for begun in ["packs", "gc", "tmp"] {
        disk::make_directory(&place.join(begun)).unwrap();
    }
    for begun in ["gc/lock", "tmp/lock", ".pv-1-0.tmp"] {
        disk::write_whole(&place.join(begun), b"", Durability::Deferred).unwrap();
    }
    assert!(is_free(&place).unwrap());
    for (top, other) in [("packs/notes", ""), ("lock", "x"), ("file", ""), ("packs/deep", "lock")] {
        let top = place.join(top);
        let path = if other.is_empty() { top.clone() } else { top.join(other) };
        disk::write_whole(&path, b"", Durability::Deferred).unwrap();
        assert!(!is_free(&place).unwrap(), "{}", path.display());
        disk::remove_tree(&top).unwrap();
        assert!(is_free(&place).unwrap());
    }
    assert_eq!(two.moves("a", "place").unwrap().path, place);
    two.verify();
}
