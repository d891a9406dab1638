//! Other programs that keep versions of data, where they are installed, on the same data in the same job.
//!
//! Each is measured as it comes, with what it needs to be quiet. None of them but
//! `pv` promises that the data has reached the disk when the command ends.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::floors::{digests, occupied_mib, warm};
use super::ground::{DATA, Ground};
use crate::common::child::{self, Cost};
use crate::common::facts::first_line;

/// Rounds of what changes nothing.
const STATUS_ROUNDS: usize = 3;

/// One other program: how it is told what to do. A command is a program and its arguments.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    version: &'static [&'static str],
    prepare: &'static [&'static [&'static str]],
    snapshot: &'static [&'static [&'static str]],
    /// The later ones, where they are made differently.
    snapshot_again: &'static [&'static [&'static str]],
    /// None where it has no such operation.
    status: Option<&'static [&'static str]>,
    restore: &'static [&'static str],
}

const PEERS: [Peer; 4] = [
    Peer {
        name: "git",
        version: &["git", "--version"],
        prepare: &[&["git", "init", "--quiet"], &["git", "config", "gc.auto", "0"]],
        snapshot: &[&["git", "add", "--all"], &["git", "commit", "--quiet", "--message", "data"]],
        snapshot_again: &[&["git", "add", "--all"], &["git", "commit", "--quiet", "--message", "data"]],
        status: Some(&["git", "status", "--porcelain"]),
        restore: &["git", "checkout", "--quiet", "--", DATA],
    },
    Peer {
        name: "dvc",
        version: &["dvc", "--version"],
        prepare: &[&["git", "init", "--quiet"], &["dvc", "init", "--quiet"]],
        snapshot: &[
            &["dvc", "add", "--quiet", DATA],
            &["git", "add", "--all"],
            &["git", "commit", "--quiet", "--message", "data"],
        ],
        snapshot_again: &[
            &["dvc", "add", "--quiet", DATA],
            &["git", "add", "--all"],
            &["git", "commit", "--quiet", "--message", "data"],
        ],
        status: Some(&["dvc", "status"]),
        restore: &["dvc", "checkout", "--quiet"],
    },
    Peer {
        name: "restic",
        version: &["restic", "version"],
        prepare: &[&["restic", "init", "--quiet"]],
        snapshot: &[&["restic", "backup", "--quiet", DATA]],
        snapshot_again: &[&["restic", "backup", "--quiet", DATA]],
        status: None,
        restore: &["restic", "restore", "--quiet", "latest", "--target", "."],
    },
    Peer {
        name: "xvc",
        version: &["xvc", "--version"],
        prepare: &[
            &["git", "init", "--quiet"],
            &["git", "commit", "--quiet", "--allow-empty", "--message", "first"],
            &["xvc", "init"],
        ],
        snapshot: &[&["xvc", "file", "track", DATA]],
        snapshot_again: &[&["xvc", "file", "carry-in", DATA]],
        // It can list files and their states, which took minutes for 100,000 of them.
        status: None,
        restore: &["xvc", "file", "recheck", DATA],
    },
];

/// What a peer needed for many small files.
pub(crate) struct OnFiles {
    pub(crate) name: &'static str,
    pub(crate) snapshot: Cost,
    pub(crate) growth_mib: f64,
    pub(crate) status: Vec<Cost>,
    pub(crate) restore: Cost,
}

/// What a peer needed for a table: at first, after an edit, after an insertion. Each is what it cost and the growth in MiB.
pub(crate) struct OnTable {
    pub(crate) name: &'static str,
    pub(crate) snapshots: [(Cost, f64); 3],
}

/// Returns the peers that are installed, each with its version, and the names of those that are not.
pub(crate) fn installed() -> (Vec<(Peer, String)>, Vec<&'static str>) {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for peer in PEERS {
        let mut command = Command::new(peer.version[0]);
        match first_line(command.args(&peer.version[1..]).env("PATH", path())) {
            Some(version) => found.push((peer, version)),
            None => missing.push(peer.name),
        }
    }
    (found, missing)
}

/// Where peers are looked for: first in the directories of `PV_BENCH_PEERS_PATH`, which only they see.
fn path() -> OsString {
    let own = std::env::var_os("PATH").unwrap();
    let Some(mut path) = std::env::var_os("PV_BENCH_PEERS_PATH") else { return own };
    path.push(":");
    path.push(own);
    path
}

impl Peer {
    pub(crate) fn on_files(&self, ground: &Ground, files: &Path) -> OnFiles {
        let place = self.prepared(ground);
        let data = place.join(DATA);
        ground.copy(files, &data);
        let before = occupied_mib(&place, &[DATA]);
        let snapshot = self.timed(ground, &place, self.snapshot);
        ground.settle();
        let growth_mib = occupied_mib(&place, &[DATA]) - before;
        let rounds = ground.size.rounds(STATUS_ROUNDS);
        let status = self.status.iter().flat_map(|command| std::iter::repeat_n(command, rounds));
        let status = status.map(|command| self.timed(ground, &place, &[command])).collect();
        ground.scratch.throw_away(&data);
        let restore = self.timed(ground, &place, &[self.restore]);
        assert!(digests(&data) == digests(files), "{} did not bring back what it was given", self.name);
        ground.scratch.throw_away(&place);
        OnFiles { name: self.name, snapshot, growth_mib, status, restore }
    }

    /// Measures three snapshots of one table, changed between them by the given acts.
    pub(crate) fn on_table(&self, ground: &Ground, table: &Path, changes: [&dyn Fn(&Path); 2]) -> OnTable {
        let place = self.prepared(ground);
        std::fs::create_dir(place.join(DATA)).unwrap();
        let own = place.join(DATA).join("table.csv");
        ground.copy(table, &own);
        let measure = |commands: &[&[&str]]| {
            let before = occupied_mib(&place, &[DATA]);
            warm(&own);
            let cost = self.timed(ground, &place, commands);
            ground.settle();
            (cost, occupied_mib(&place, &[DATA]) - before)
        };
        let first = measure(self.snapshot);
        changes[0](&own);
        let edited = measure(self.snapshot_again);
        changes[1](&own);
        let inserted = measure(self.snapshot_again);
        ground.scratch.throw_away(&place);
        OnTable { name: self.name, snapshots: [first, edited, inserted] }
    }

    fn prepared(&self, ground: &Ground) -> PathBuf {
        let place = ground.fresh_directory(self.name);
        self.timed(ground, &place, self.prepare);
        place
    }

    fn timed(&self, ground: &Ground, place: &Path, commands: &[&[&str]]) -> Cost {
        ground.settle();
        let run = |command: &&[&str]| {
            let mut prepared = ground.scratch.command(place, command[0]);
            // What they keep outside of their own directories goes there, too.
            prepared
                .args(&command[1..])
                .env("PATH", path())
                .env("LC_ALL", "C.UTF-8")
                .env("DVC_NO_ANALYTICS", "1")
                .env("DVC_SITE_CACHE_DIR", place.join("site"))
                .env("RESTIC_REPOSITORY", place.join("repository"))
                .env("RESTIC_PASSWORD", "benchmark")
                .env("RESTIC_CACHE_DIR", place.join("cache"));
            child::run(&mut prepared).0
        };
        commands.iter().map(run).reduce(Cost::and).expect("every operation is at least one command")
    }
}
