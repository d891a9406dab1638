//! The whole store held against a model in memory, in orders that nobody thought of.
//!
//! A working tree is edited, snapshots are taken, named, collected, put back
//! and laid out, writers stay open meanwhile, and anything may stop at any
//! effect. After each act all that was acknowledged and not let go must be
//! there to the bit, nothing may be half visible, and a check finds no damage.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::Project;
use super::fixture::{Failed, acknowledge, git, snapshot};
use crate::disk::recorder::{Cut, Recorder, play};
use crate::disk::{self, Disk, Durability, Found};
use crate::hash::Digest;
use crate::host::{self, Time};
use crate::object::{Entry, Kind, Node, SnapshotId};
use crate::retention::{self, RetentionError};
use crate::snapshot::{capture_working, lay_out, read_snapshot};
use crate::store::{self, Collected, LocalStore, Store, Terms};

/// So often, unless `PROPTEST_CASES` says otherwise.
const CASES: u32 = 24;
const ACTS_MAX: usize = 24;
/// The first must always be there, the last two are data that Git ignores.
const PATHS: [&str; 5] = ["in", "code/a.py", "note", "data/raw", "data/deep/table"];
const NAMES: [&str; 2] = ["v1", "v2"];
const DEFINITION: &str = "data: [data]
steps:
  one:
    inputs: [in, data]
    outputs: [out]
    run: cat in > out
";
/// Later than anything a test does.
const ALWAYS_SECONDS: i64 = 1_000_000;
const FIRST_SECOND: i64 = 2_000_000;

/// One thing that somebody does.
#[derive(Clone, Debug)]
enum Act {
    /// Writes a file of the working tree.
    Write { path: usize, content: usize },
    /// Removes one.
    Remove { path: usize },
    /// Takes a snapshot, perhaps names it; the process may stay open afterwards, or stop after so many effects.
    Snapshot { name: Option<usize>, stays: bool, stop: Option<usize> },
    /// A writer puts everything of the working tree, and has not synced yet.
    Begin,
    /// The writer that began goes on to the end.
    Finish,
    /// Collects garbage, may stop after so many effects.
    Collect { keep_seconds: i64, undo_seconds: i64, all: bool, stop: Option<usize> },
    /// Puts back what is in the trash, may stop after so many effects.
    PutBack { stop: Option<usize> },
    /// Makes the working tree what an earlier snapshot was.
    CheckOut { which: usize },
    /// Every process ends.
    Restart,
    /// The power is cut, so many effects ago.
    PowerCut { cut: usize, before: usize },
}

fn act() -> impl Strategy<Value = Act> {
    let stop = || proptest::option::weighted(0.3, 0..30_usize);
    let name = proptest::option::weighted(0.3, 0..NAMES.len());
    let keep = prop_oneof![Just(0), Just(5), Just(ALWAYS_SECONDS)];
    let undo = prop_oneof![Just(0), Just(4), Just(ALWAYS_SECONDS)];
    prop_oneof![
        5 => (0..PATHS.len(), 0..contents().len()).prop_map(|(path, content)| Act::Write { path, content }),
        1 => (1..PATHS.len()).prop_map(|path| Act::Remove { path }),
        5 => (name, proptest::bool::weighted(0.2), stop())
            .prop_map(|(name, stays, stop)| Act::Snapshot { name, stays, stop }),
        1 => Just(Act::Begin),
        1 => Just(Act::Finish),
        5 => (keep, undo, any::<bool>(), stop()).prop_map(|(keep_seconds, undo_seconds, all, stop)| {
            Act::Collect { keep_seconds, undo_seconds, all, stop }
        }),
        2 => stop().prop_map(|stop| Act::PutBack { stop }),
        2 => (0..8_usize).prop_map(|which| Act::CheckOut { which }),
        1 => Just(Act::Restart),
        1 => (0..Cut::ALL.len(), 0..60_usize).prop_map(|(cut, before)| Act::PowerCut { cut, before }),
    ]
}

/// Returns what files may hold: nothing, two of one length, one that compresses, and two large ones that share pieces.
fn contents() -> [Vec<u8>; 6] {
    let blocks = (0..3200_u32).flat_map(|number| *Digest::of(&number.to_le_bytes()).as_bytes());
    let large: Vec<u8> = blocks.collect();
    let mut edited = large.clone();
    edited[90_000] ^= 1;
    [Vec::new(), b"a\n".to_vec(), b"b\n".to_vec(), vec![b'x'; 3000], large, edited]
}

/// The files of a tree by path; the number tells what they hold.
type Files = BTreeMap<&'static str, usize>;

/// What is known of a snapshot that was acknowledged and has to be somewhere.
#[derive(Clone, Debug)]
struct Taken {
    files: Files,
    /// Since when it may be in the trash.
    released: Option<i64>,
}

/// What must be true of the store.
#[derive(Clone, Debug, Default)]
struct Model {
    files: Files,
    taken: BTreeMap<SnapshotId, Taken>,
    /// When each was put on record last, also those that were let go since: records stay.
    linked: BTreeMap<SnapshotId, i64>,
    names: BTreeMap<usize, SnapshotId>,
}

impl Model {
    fn acknowledged(&mut self, id: SnapshotId, files: Files, second: i64, name: Option<usize>) {
        self.taken.insert(id, Taken { files, released: None });
        self.linked.insert(id, second);
        self.names.extend(name.map(|name| (name, id)));
    }

    fn must_be_kept(&self, since: i64) -> BTreeSet<SnapshotId> {
        let recent = self.linked.iter().filter(|(_, second)| **second >= since).map(|(id, _)| *id);
        recent.chain(self.names.values().copied()).collect()
    }

    /// Lets go what a collection may take away and what it may empty out of the trash.
    fn collected(&mut self, now: i64, keep_seconds: i64, undo_seconds: i64) {
        let kept = self.must_be_kept(now - keep_seconds);
        self.taken.retain(|id, taken| {
            if kept.contains(id) {
                return true;
            }
            let released = *taken.released.get_or_insert(now);
            released > now - undo_seconds
        });
    }

    /// Returns what must lie in the store itself.
    fn whole(&self) -> BTreeMap<SnapshotId, Files> {
        let whole = self.taken.iter().filter(|(_, taken)| taken.released.is_none());
        whole.map(|(id, taken)| (*id, taken.files.clone())).collect()
    }
}

/// The real thing, and the model beside it.
struct World {
    root: tempfile::TempDir,
    tree: PathBuf,
    recorder: Arc<Recorder>,
    limit: Arc<AtomicUsize>,
    /// Processes that did something and have not ended.
    open: Vec<Project>,
    /// A writer that has not synced yet, and what it saw.
    writer: Option<(Project, SnapshotId, Files)>,
    now: i64,
    model: Model,
    /// After so many effects, this must have been in the store.
    history: Vec<(usize, BTreeMap<SnapshotId, Files>)>,
}

impl World {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().canonicalize().unwrap().join("project");
        disk::make_directory(&tree).unwrap();
        git(&tree, &["init", "--quiet"]);
        let limit = Arc::new(AtomicUsize::new(usize::MAX));
        let asked = Arc::clone(&limit);
        let recorder = Arc::new(Recorder::guarded(Box::new(move |number, _| {
            let goes_on = number < asked.load(Ordering::SeqCst);
            if goes_on { Ok(()) } else { Err(std::io::Error::other("stopped")) }
        })));
        let (open, writer, history) = (Vec::new(), None, vec![(0, BTreeMap::new())]);
        let mut world =
            Self { root, tree, recorder, limit, open, writer, now: FIRST_SECOND, model: Model::default(), history };
        world.write(".gitignore", b"/data/\n");
        world.write(".pipeline/pipeline.yaml", DEFINITION.as_bytes());
        PATHS.iter().for_each(|path| world.set(path, 1));
        git(&world.tree, &["add", "."]);
        git(&world.tree, &["commit", "--quiet", "--message", "first"]);
        world
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        disk::write_whole(&self.tree.join(path), bytes, Durability::Deferred).unwrap();
    }

    fn set(&mut self, path: &'static str, content: usize) {
        self.write(path, &contents()[content]);
        self.model.files.insert(path, content);
    }

    fn remove(&mut self, path: &'static str) {
        disk::remove_tree(&self.tree.join(path)).unwrap();
        self.model.files.remove(path);
    }

    /// Opens the project as a process of its own would.
    fn project(&self) -> Project {
        Project::open_on(&(Arc::clone(&self.recorder) as Arc<dyn Disk>), &self.tree, "pipeline").unwrap()
    }

    fn time(&self) -> Time {
        Time { epoch_ms: self.now * 1000 }
    }

    /// Lets a new process do something that stops after so many effects. Returns what came of it, and the process.
    fn stopping<T>(
        &self,
        stop: Option<usize>,
        act: impl FnOnce(&Project) -> Result<T, Failed>,
    ) -> (Option<T>, Project) {
        let project = self.project();
        let limit = stop.map_or(usize::MAX, |stop| self.recorder.log().len() + stop);
        self.limit.store(limit, Ordering::SeqCst);
        let done = act(&project);
        self.limit.store(usize::MAX, Ordering::SeqCst);
        let done = match done {
            Err(error) if stop.is_none() => panic!("{error}: {error:?}"),
            done => done.ok(),
        };
        (done, project)
    }

    fn act(&mut self, act: &Act) {
        self.now += 1;
        match *act {
            Act::Write { path, content } => self.set(PATHS[path], content),
            Act::Remove { path } => self.remove(PATHS[path]),
            Act::Snapshot { name, stays, stop } => self.snapshot(name, stays, stop),
            Act::Begin => self.begin(),
            Act::Finish => self.finish(),
            Act::Collect { keep_seconds, undo_seconds, all, stop } => {
                self.collect(keep_seconds, undo_seconds, all, stop);
            }
            Act::PutBack { stop } => {
                let (done, _project) = self.stopping(stop, |project| Ok(store::put_back(&project.store)?));
                if done.is_some() {
                    self.model.taken.values_mut().for_each(|taken| taken.released = None);
                }
            }
            Act::CheckOut { which } => self.check_out(which),
            Act::Restart => {
                self.open.clear();
                self.writer = None;
            }
            Act::PowerCut { cut, before } => self.power_cut(Cut::ALL[cut], before),
        }
        self.history.push((self.recorder.log().len(), self.model.whole()));
    }

    fn snapshot(&mut self, name: Option<usize>, stays: bool, stop: Option<usize>) {
        let (time, named) = (self.time(), name.map(|name| NAMES[name]));
        let (done, project) = self.stopping(stop, |project| snapshot(project, time, named));
        let files = self.model.files.clone();
        if let Some(id) = done {
            self.model.acknowledged(id, files, self.now, name);
            if stays {
                self.open.push(project);
            }
            return;
        }
        // What it put on record before it stopped can be seen, so it counts.
        for (_, link) in project.journal.links().unwrap().into_iter().filter(|(_, link)| link.time == time) {
            self.model.acknowledged(link.snapshot, files.clone(), self.now, None);
        }
        for (_, version) in project.journal.versions().unwrap().into_iter().filter(|(_, other)| other.time == time) {
            // Of a name alone, without a link, only the name keeps it.
            self.model.taken.insert(version.snapshot, Taken { files: files.clone(), released: None });
            self.model.names.extend(name.map(|name| (name, version.snapshot)));
        }
    }

    fn begin(&mut self) {
        if self.writer.is_none() {
            let project = self.project();
            let id = capture_working(project.site(), &project.store, &|_, _| true).unwrap().id;
            self.writer = Some((project, id, self.model.files.clone()));
        }
    }

    fn finish(&mut self) {
        if let Some((project, id, files)) = self.writer.take() {
            acknowledge(&project, id, self.time(), None).unwrap();
            self.model.acknowledged(id, files, self.now, None);
        }
    }

    fn collect(&mut self, keep_seconds: i64, undo_seconds: i64, all: bool, stop: Option<usize>) {
        let since = Time { epoch_ms: (self.now - keep_seconds) * 1000 };
        let terms = Terms { all, wait: false, now_seconds: self.now, undo_seconds };
        let goes_on = self.store_directory().join("gc/condemned").exists();
        let (done, project) = self.stopping(stop, |project| Ok(collect(project, terms, since)?));
        self.model.collected(self.now, keep_seconds, undo_seconds);
        let kept = self.model.must_be_kept(self.now - keep_seconds);
        if let Some(collected) = done {
            let alone = self.open.is_empty() && self.writer.is_none();
            assert!(!alone || collected.waiting_for.is_empty(), "nobody is there to wait for: {collected:?}");
            // What came while another collection was under way may stay for the next one.
            if all && !goes_on && collected.waiting_for.is_empty() {
                let there = project.store.find(Kind::Snapshot, "").unwrap();
                let garbage: Vec<_> = there.into_iter().filter(|id| !kept.contains(&(*id).into())).collect();
                assert_eq!(garbage, [], "nobody keeps these: {collected:?}");
            }
        }
    }

    /// Lays a snapshot out at an empty place, and makes the working tree the same.
    fn check_out(&mut self, which: usize) {
        let whole: Vec<_> = self.model.whole().into_values().collect();
        if let Some(files) = whole.get(which % whole.len().max(1)) {
            for path in PATHS {
                match files.get(path) {
                    Some(content) => self.set(path, *content),
                    None => self.remove(path),
                }
            }
        }
    }

    fn store_directory(&self) -> PathBuf {
        self.tree.join(".git/pv")
    }

    /// Looks at what a power cut `before` so many effects would have left.
    fn power_cut(&self, cut: Cut, before: usize) {
        let log = self.recorder.log();
        let count = log.len().saturating_sub(before);
        let case = format!("{cut:?} after {count} of {} effects", log.len());
        let left = self.root.path().join("left");
        play(&log[..count], cut, &self.store_directory(), &left);
        let last = self.history.iter().rposition(|(at, _)| *at <= count).unwrap();
        let next = self.history.get(last + 1);
        let store = LocalStore::open(&left).unwrap_or_else(|error| panic!("{case}: {error}"));
        let is_kept = |id: &SnapshotId| next.is_none_or(|(_, after)| after.contains_key(id));
        for (id, files) in self.history[last].1.iter().filter(|(id, _)| is_kept(id)) {
            self.lays_out(&store, *id, files, &case);
        }
        only_whole_ones(&store, &case);
        let checked = store.check(&|_, _| true).unwrap();
        assert!(checked.lost.is_empty(), "{case}: {checked:?}");
        drop(store);
        disk::remove_tree(&left).unwrap();
    }

    /// Lays a snapshot out and compares every file.
    fn lays_out(&self, store: &LocalStore, id: SnapshotId, files: &Files, case: &str) {
        let snapshot = read_snapshot(store, id).unwrap_or_else(|error| panic!("{case}: {error}"));
        let place = self.root.path().join("place");
        lay_out(store, &snapshot, &place, &|_, _| true).unwrap_or_else(|error| panic!("{case}: {id}: {error}"));
        let known = contents();
        let mut expected: BTreeMap<String, &[u8]> =
            files.iter().map(|(path, content)| ((*path).to_owned(), &known[*content][..])).collect();
        expected.insert(".gitignore".to_owned(), b"/data/\n");
        expected.insert(".pipeline/pipeline.yaml".to_owned(), DEFINITION.as_bytes());
        let found = files_below(&place);
        assert!(found.keys().eq(expected.keys()), "{case}: {id} has {:?}, not {files:?}", found.keys());
        for (path, bytes) in &found {
            assert!(bytes.as_slice() == expected[path.as_str()], "{case}: `{path}` of {id} is not what it was");
        }
        disk::remove_tree(&place).unwrap();
    }

    /// Everything that must hold between any two acts, as a process sees it that starts now.
    fn verify(&self, case: &str) {
        let reader = Project::open(&self.tree, "pipeline").unwrap();
        for (id, taken) in &self.model.taken {
            if taken.released.is_none() {
                self.lays_out(&reader.store, *id, &taken.files, case);
            } else {
                // What lies in the trash can be read, but does not count as there.
                reachable(&reader.store, *id, case);
            }
        }
        only_whole_ones(&reader.store, case);
        let linked: BTreeSet<_> = reader.journal.links().unwrap().into_iter().map(|(_, link)| link.snapshot).collect();
        assert_eq!(linked, self.model.linked.keys().copied().collect(), "{case}: links");
        let named: BTreeSet<_> =
            reader.journal.versions().unwrap().into_iter().map(|(_, version)| version.snapshot).collect();
        assert_eq!(named, self.model.names.values().copied().collect(), "{case}: names");
        drop(reader);
        let checked = LocalStore::open(&self.store_directory()).unwrap().check(&|_, _| true).unwrap();
        assert!(checked.damaged.is_empty() && checked.lost.is_empty(), "{case}: {checked:?}");
    }
}

/// Collects garbage as `pv gc` does.
fn collect(project: &Project, terms: Terms, since: Time) -> Result<Collected, RetentionError> {
    let memory = project.commits();
    let mark = |also: &store::Live| {
        let roots = retention::roots(project.user(&memory), since)?;
        retention::mark(&project.store, &roots, also)
    };
    store::collect(&project.store, terms, &mark, &mut |_| ())
}

/// Reads every object that a snapshot leads to.
fn reachable(store: &LocalStore, id: SnapshotId, case: &str) {
    let roots = retention::Roots { snapshots: BTreeSet::from([id]), ..retention::Roots::default() };
    let live = retention::mark(store, &roots, &store::Live::new()).unwrap();
    for (kind, digest) in live {
        store.get(kind, digest).unwrap_or_else(|error| panic!("{case}: of {id} in the trash: {error}"));
    }
}

/// What the store lists can be read, and what a listed snapshot leads to makes sense.
fn only_whole_ones(store: &LocalStore, case: &str) {
    for kind in Kind::ALL {
        for digest in store.find(kind, "").unwrap() {
            let bytes = store.get(kind, digest).unwrap_or_else(|error| panic!("{case}: listed: {error}"));
            assert_eq!(kind.digest(&bytes), digest, "{case}");
            if kind == Kind::Tree {
                let node = Node::decode(&bytes).unwrap_or_else(|error| panic!("{case}: {error}"));
                let entries = if let Node::Leaf(entries) = node { entries } else { Vec::new() };
                let sizes = entries.iter().filter_map(|(_, entry)| match entry {
                    Entry::File { size, id, .. } => Some((*size, store.length(Kind::Blob, id.digest()).unwrap()?)),
                    _ => None,
                });
                sizes.for_each(|(said, there)| assert_eq!(said, there, "{case}"));
            }
        }
    }
}

fn files_below(place: &Path) -> BTreeMap<String, Vec<u8>> {
    let walked = disk::walk(place).map(Result::unwrap).filter(|(_, found)| matches!(found, Found::File { .. }));
    let read = |(path, _): (PathBuf, Found)| {
        let name = path.strip_prefix(place).unwrap().to_str().unwrap().to_owned();
        (name, disk::read_if_there(&path).unwrap().unwrap())
    };
    walked.map(read).collect()
}

fn config() -> ProptestConfig {
    let asked = host::variable("PROPTEST_CASES").and_then(|count| count.parse().ok());
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(asked.unwrap_or(CASES)) }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_was_acknowledged_and_not_let_go_is_there_to_the_bit_whatever_happens(
        acts in proptest::collection::vec(act(), 1..ACTS_MAX)
    ) {
        play_all(&acts);
    }
}

/// Chance hardly ever has a writer rely on what nobody keeps while that is collected.
#[test]
fn a_writer_who_relies_on_garbage_is_waited_for() {
    let collect = Act::Collect { keep_seconds: 0, undo_seconds: 0, all: true, stop: None };
    let snapshot = Act::Snapshot { name: None, stays: false, stop: None };
    let edit = |content| Act::Write { path: 0, content };
    let before = [snapshot.clone(), edit(2), snapshot, edit(1)];
    let beside = [Act::Begin, collect.clone(), Act::Finish, collect];
    play_all(&[&before[..], &beside].concat());
}

fn play_all(acts: &[Act]) {
    let mut world = World::new();
    for (number, act) in acts.iter().enumerate() {
        world.act(act);
        world.verify(&format!("after act {number}, {act:?}"));
    }
}
