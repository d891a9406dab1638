//! Where it is measured: data that is made once, projects that hold it, and the peers.

use std::cell::{Cell, OnceCell};
use std::path::{Path, PathBuf};

use super::data::{self, MIB};
use super::floors::warm;
use super::peers::{OnFiles, Peer};
use crate::common::child::Cost;
use crate::common::scratch::Scratch;
use crate::common::size::Size;

/// The data root of every project, which Git ignores.
pub(crate) const DATA: &str = "data";

pub(crate) const FILES: usize = 100_000;
pub(crate) const MANY_FILES: usize = 1_000_000;
pub(crate) const CHANGED_FILES: usize = 100;
const RANDOM_MIB: usize = 4096;
const TABLE_MIB: usize = 1024;

/// Data and projects, made when they are first asked for.
pub(crate) struct Ground {
    pub(crate) scratch: Scratch,
    pub(crate) size: Size,
    pub(crate) peers: Vec<(Peer, String)>,
    /// Whether the floor of the table can be measured.
    pub(crate) has_zstd: bool,
    number: Cell<usize>,
    files: OnceCell<PathBuf>,
    settled: OnceCell<PathBuf>,
    peers_on_files: OnceCell<Vec<OnFiles>>,
}

impl Ground {
    pub(crate) fn new(size: Size, peers: Vec<(Peer, String)>, has_zstd: bool) -> Self {
        Self {
            scratch: Scratch::new(),
            size,
            peers,
            has_zstd,
            number: Cell::new(0),
            files: OnceCell::new(),
            settled: OnceCell::new(),
            peers_on_files: OnceCell::new(),
        }
    }

    /// Returns the many small files. Nobody may change them.
    pub(crate) fn files(&self) -> &Path {
        self.files.get_or_init(|| {
            let place = self.fresh_directory("files");
            data::make_files(&place, self.size.of(FILES));
            place
        })
    }

    /// Makes the large file that cannot be compressed.
    pub(crate) fn make_random(&self) -> PathBuf {
        let place = self.fresh_directory("random").join("random.bin");
        data::make_random(&place, self.size.of(RANDOM_MIB * MIB));
        place
    }

    /// Makes the table.
    pub(crate) fn make_table(&self) -> PathBuf {
        let place = self.fresh_directory("table").join("table.csv");
        data::make_table(&place, self.size.of(TABLE_MIB * MIB));
        place
    }

    /// Returns the project that holds a copy of the small files and a version `first` of it. Whoever changes its
    /// data also makes a snapshot of that.
    pub(crate) fn settled(&self) -> &Path {
        self.settled.get_or_init(|| {
            let project = self.project();
            self.copy(self.files(), &project.join(DATA));
            self.settle();
            self.scratch.pv(&project, &["snapshot", "--tag", "first"]);
            project
        })
    }

    /// Returns how many microseconds it takes to create one small file, on average.
    pub(crate) fn creation_us(&self) -> f64 {
        const PROBED_FILES: u16 = 1000;
        let place = self.fresh_directory("probe");
        let cost = self.act(|| {
            for number in 0..PROBED_FILES {
                std::fs::write(place.join(number.to_string()), [0; data::FILE_BYTES]).unwrap();
            }
        });
        cost.ms * 1000.0 / f64::from(PROBED_FILES)
    }

    /// Returns the space that is free where it is measured.
    pub(crate) fn free_mib(&self) -> usize {
        let facts = rustix::fs::statvfs(&self.scratch.root).unwrap();
        usize::try_from((facts.f_bavail * facts.f_frsize) >> 20).unwrap()
    }

    /// Returns what the peers needed for the small files.
    pub(crate) fn peers_on_files(&self) -> &[OnFiles] {
        self.peers_on_files
            .get_or_init(|| self.peers.iter().map(|(peer, _)| peer.on_files(self, self.files())).collect())
    }

    /// Makes a project with one step and an empty store. Its data root is not there yet.
    pub(crate) fn project(&self) -> PathBuf {
        let place = self.fresh_directory("project");
        let definition = "data: [data]\nsteps:\n  count:\n    run: ls data\n    inputs: [data]\n";
        std::fs::create_dir(place.join(".pipeline")).unwrap();
        std::fs::write(place.join(".pipeline/pipeline.yaml"), definition).unwrap();
        std::fs::write(place.join(".gitignore"), format!("/{DATA}/\n")).unwrap();
        self.scratch.commit(&place);
        place
    }

    /// Runs `pv`, after what others wrote has reached the disk.
    pub(crate) fn pv(&self, project: &Path, arguments: &[&str]) -> Cost {
        self.settle();
        self.scratch.pv(project, arguments)
    }

    /// Makes sure that `pv diff` of two versions finds so many changed files, before its time is taken.
    pub(crate) fn assert_diff(&self, project: &Path, [from, to]: [&str; 2], changes: usize) {
        let (_, answer) = self.scratch.pv_answer(project, &["--json", "diff", from, to]);
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        let data = answer["data"].as_array().unwrap();
        let modified: Option<u64> = data.iter().map(|root| root["modified"].as_u64()).sum();
        assert_eq!(modified, u64::try_from(changes).ok(), "{answer:#}");
    }

    /// Runs an act of this process, after what others wrote has reached the disk.
    pub(crate) fn act(&self, act: impl FnOnce()) -> Cost {
        self.settle();
        Cost::of(act)
    }

    /// Waits until all that was written has reached the disk. Only where times mean something: whoever else writes
    /// to the disk is waited for, too.
    pub(crate) fn settle(&self) {
        if self.size.is_full() {
            rustix::fs::sync();
        }
    }

    /// Copies a file or a tree to a path that is not there yet.
    pub(crate) fn copy(&self, from: &Path, to: &Path) {
        warm(from);
        self.scratch.run(&self.scratch.root, "cp", &["-r", text(from), text(to)]);
    }

    pub(crate) fn fresh_directory(&self, name: &str) -> PathBuf {
        self.number.set(self.number.get() + 1);
        let place = self.scratch.root.join(format!("{name}-{}", self.number.get()));
        std::fs::create_dir(&place).unwrap();
        place
    }
}

/// A path as an argument. Those here are made of names that are text.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("the target directory has a name that is text")
}
