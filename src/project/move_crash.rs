//! What is left of a move of a store that stops anywhere, by a kill or by a power cut.
//!
//! Two projects share stores and part again, and everything goes through one
//! recorded disk, git's configuration too. Whatever a stop leaves, both find
//! all that they had, wherever they look by then; and the move can be done again.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Project;
use super::fixture::{begin, snapshot};
use crate::disk::recorder::{Cut, Left, Recorder, lay_out, left};
use crate::disk::{self, Change, Disk, Durability, Found};
use crate::hash::Digest;
use crate::host::Time;
use crate::object::{Entry, Kind, SnapshotId};
use crate::snapshot::{for_each_file, read_snapshot};
use crate::store::Store;

/// Everything below `live`, which comes back to its beginning for each stop: what is on disk has absolute paths in it.
struct World {
    root: tempfile::TempDir,
    recorder: Arc<Recorder>,
    snapshots: Vec<(&'static str, SnapshotId)>,
}

impl World {
    /// Projects with a snapshot each.
    fn new(names: &[&'static str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let recorder = Arc::new(Recorder::new());
        let mut world = Self { root, recorder, snapshots: Vec::new() };
        for name in names {
            begin(&world.path(name), name);
        }
        copy(&world.path(""), &world.beginning());
        for name in names {
            let id = snapshot(&world.project(name), Time::now(), None).unwrap();
            world.snapshots.push((*name, id));
            // As stores were once written, which are moved as they are.
            let loose = world.path(name).join(loose(&old(name)));
            disk::write_whole_on(&*world.recorder, &loose, old(name).as_bytes(), Durability::Synced).unwrap();
            world.recorder.change(Change::Protect(&loose)).unwrap();
        }
        world
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.root.path().canonicalize().unwrap().join("live").join(relative)
    }

    fn beginning(&self) -> PathBuf {
        self.root.path().join("beginning")
    }

    fn project(&self, name: &str) -> Project {
        let disk: Arc<dyn Disk> = Arc::clone(&self.recorder) as _;
        Project::open_on(&disk, &self.path(name), "pipeline").unwrap()
    }

    /// Puts the beginning back, with what is `left` of all that was done since.
    fn go_back_to(&self, left: &Left) {
        let live = self.path("");
        disk::remove_tree(&live).unwrap();
        copy(&self.beginning(), &live);
        lay_out(left, &live, &live);
    }

    /// Checks that both projects have all that they had, and are known to those who collect garbage.
    fn verify(&self, case: &str) {
        for (name, id) in &self.snapshots {
            let failed = |error: &dyn std::fmt::Display| -> ! { panic!("{case}: project {name}: {error}") };
            let project = Project::open(&self.path(name), "pipeline").unwrap_or_else(|error| failed(&error));
            let read = read_snapshot(&project.store, *id).unwrap_or_else(|error| failed(&error));
            let mut files = 0;
            for_each_file(&project.store, read.tree, None, &mut |_, entry| {
                if let Entry::File { id, .. } = entry {
                    project.store.get(Kind::Blob, id.digest()).unwrap_or_else(|error| failed(&error));
                    files += 1;
                }
                Ok(())
            })
            .unwrap_or_else(|error| failed(&error));
            assert_eq!(files, 2, "{case}");
            let bytes = project.store.get(Kind::Blob, Digest::of(old(name).as_bytes()));
            assert_eq!(bytes.unwrap_or_else(|error| failed(&error)), old(name).as_bytes(), "{case}");
            let common = project.repository.common_directory();
            if project.store.directory() != common.join("pv") {
                assert!(project.store.users().unwrap().contains(common), "{case}: nobody asks project {name}");
            }
        }
    }

    /// Moves the store of a project, then stops that everywhere and does it again.
    fn moves(&self, name: &str, to: &str, stays_at: Option<&str>) {
        let to = self.path(to);
        let stays_at = stays_at.map(|path| self.path(path));
        let before = self.recorder.log().len();
        let old = self.project(name).store.directory().to_owned();
        let moved = self.project(name).move_store(&to, &|_, _| ()).unwrap();
        assert_eq!((&moved.path, &moved.stays_at), (&to, &stays_at));
        let log = self.recorder.log();
        assert!(log.len() - before > 20, "only {} effects", log.len() - before);
        self.verify("at the end");
        let mut seen = BTreeSet::new();
        for count in before..=log.len() {
            for cut in Cut::ALL {
                let left = left(&log[..count], cut);
                if !seen.insert(left.clone()) {
                    continue;
                }
                self.go_back_to(&left);
                let case = format!("{cut:?} after {} of {} effects", count - before, log.len() - before);
                self.verify(&case);
                let quick: Arc<dyn Disk> = Arc::new(Recorder::new());
                let project = Project::open_on(&quick, &self.path(name), "pipeline").unwrap();
                let again = project.move_store(&to, &|_, _| ()).unwrap_or_else(|error| panic!("{case}: {error}"));
                assert_eq!(again.path, to, "{case}");
                self.verify(&format!("{case}, and again"));
                let project = Project::open(&self.path(name), "pipeline").unwrap();
                assert_eq!(project.store.directory(), to, "{case}");
                let leftover = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(b"config.");
                let entries = fs::read_dir(project.repository.common_directory()).unwrap().flatten();
                assert_eq!(entries.filter(leftover).count(), 0, "{case}: beside the configuration");
                assert_eq!(has_packs(&old), stays_at.is_some(), "{case}: what is left at the old place");
            }
        }
        assert!(seen.len() > 20, "only {} states", seen.len());
    }
}

/// Returns what was kept in a file of its own.
fn old(name: &str) -> String {
    format!("kept by {name} long ago")
}

/// Returns where an object with the bytes of `text` lies in a project, as a file of its own.
fn loose(text: &str) -> String {
    let hex = Digest::of(text.as_bytes()).to_string();
    format!(".git/pv/objects/blob/{}/{}", &hex[..2], &hex[2..])
}

fn has_packs(store: &Path) -> bool {
    fs::read_dir(store.join("packs")).is_ok_and(|mut packs| packs.next().is_some())
}

/// Copies all files and directories.
fn copy(from: &Path, to: &Path) {
    disk::make_directory(to).unwrap();
    for entry in disk::walk(from) {
        let (path, found) = entry.unwrap();
        let to = to.join(path.strip_prefix(from).unwrap());
        match found {
            Found::Directory => disk::make_directory(&to).unwrap(),
            _ => drop(fs::copy(&path, &to).unwrap()),
        }
    }
}

#[test]
fn nothing_is_lost_wherever_a_move_to_a_new_place_stops() {
    let world = World::new(&["a"]);
    world.moves("a", "shared", None);
}

#[test]
fn nothing_is_lost_wherever_a_move_into_a_store_of_others_stops() {
    let world = World::new(&["a", "b"]);
    world.project("b").move_store(&world.path("shared"), &|_, _| ()).unwrap();
    world.moves("a", "shared", None);
}

#[test]
fn nothing_is_lost_wherever_a_move_away_from_others_stops() {
    let world = World::new(&["a", "b"]);
    for name in ["a", "b"] {
        world.project(name).move_store(&world.path("shared"), &|_, _| ()).unwrap();
    }
    world.moves("a", "other", Some("shared"));
}

#[test]
fn nothing_is_lost_wherever_a_move_back_home_stops() {
    let world = World::new(&["a"]);
    world.project("a").move_store(&world.path("shared"), &|_, _| ()).unwrap();
    world.moves("a", "a/.git/pv", None);
}
