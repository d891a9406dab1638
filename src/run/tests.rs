//! What steps were seen to read, and which of their results hold afterwards, without a process.
//!
//! Observations are made by hand; everything that is decided from them is real.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::earlier::Finished;
use super::judge::{Memory, Verdict, Work};
use super::order::learnt_order;
use super::peers::Peers;
use super::settle::{Settled, Sighting, settle};
use super::{pythons, wanted};
use crate::disk::{self, Durability};
use crate::environment::{Toolboxes, Tools};
use crate::exec::{Gap, Observation, Rung, Touch};
use crate::host::Time;
use crate::object::{Entry, Kind, Snapshot, TreeBuilder};
use crate::path::ProjectPath;
use crate::pipeline::{self, Params, Trust};
use crate::record::{By, Journal, Output, Record, StepResult};
use crate::snapshot::View;
use crate::stat_cache::StatCache;
use crate::store::{MemoryStore, Store};

const WORKPLACE: &str = "/pv/work";

/// A project of which the files can be edited, and what is on record of it.
pub(super) struct Bed {
    pub(super) root: tempfile::TempDir,
    store: MemoryStore,
    pub(super) journal: Journal,
    /// A text that begins with `-> ` is a link.
    files: BTreeMap<String, String>,
    definition: String,
    pub(super) search_path: String,
    clock: i64,
}

impl Bed {
    pub(super) fn new(definition: &str, files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let journal = Journal::new(root.path().join("records"));
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        let (definition, search_path) = (definition.to_owned(), "/nowhere".to_owned());
        Self { root, store: MemoryStore::default(), journal, files, definition, search_path, clock: 0 }
    }

    fn edit(&mut self, path: &str, text: &str) {
        self.files.insert(path.to_owned(), text.to_owned());
    }

    fn write_outside(&self, path: &str, text: &str) -> PathBuf {
        let path = self.root.path().join(path);
        disk::write_whole(&path, text.as_bytes(), Durability::Deferred).unwrap();
        path
    }

    fn file(&self, text: &str) -> Entry {
        match text.strip_prefix("-> ") {
            Some(target) => Entry::Symlink { target: target.as_bytes().to_vec() },
            None => {
                let put = self.store.put_bytes(Kind::Blob, text.as_bytes()).unwrap();
                Entry::File { executable: false, size: put.size, id: put.digest.into() }
            }
        }
    }

    fn tree(&self, prefix: &str) -> Entry {
        let mut names: BTreeMap<&str, Option<&str>> = BTreeMap::new();
        for (path, text) in &self.files {
            let Some(rest) = path.strip_prefix(prefix) else { continue };
            match rest.split_once('/') {
                Some((directory, _)) => drop(names.insert(directory, None)),
                None => drop(names.insert(rest, Some(text))),
            }
        }
        let put = |bytes: &[u8]| self.store.put_bytes(Kind::Tree, bytes).map(|put| put.digest.into());
        let mut builder = TreeBuilder::new(put);
        for (name, text) in names {
            let entry = text.map_or_else(|| self.tree(&format!("{prefix}{name}/")), |text| self.file(text));
            builder.push(name.as_bytes(), &entry).unwrap();
        }
        let (id, sized) = builder.finish().unwrap();
        Entry::Directory { id, sized }
    }

    /// Calls `act` with everything that decisions are made from.
    pub(super) fn work<T>(&self, act: impl FnOnce(&Work<'_>) -> T) -> T {
        let definition = pipeline::read(self.definition.as_bytes(), "pipeline.yaml").unwrap();
        let read = |path: &ProjectPath| self.files.get(&path.to_string()).map(|text| text.clone().into_bytes());
        let params = Params::load(&definition.pipeline, &read).unwrap();
        let Entry::Directory { id: tree, .. } = self.tree("") else { unreachable!("a tree is a directory") };
        let snapshot = Snapshot {
            definition: definition.pipeline.id(),
            tree,
            data: Vec::new(),
            params: crate::object::ParamsId::of(b""),
            seed: None,
            environment: crate::object::EnvironmentId::of(b""),
        };
        let mut tools = Toolboxes::new(Tools::new(self.search_path.clone()));
        for python in pythons(&definition.pipeline, &|_| true) {
            let wanted = wanted(&View::new(&self.store, &snapshot), python).unwrap().unwrap();
            tools.add(python, &wanted, Some(self.root.path().join("venv")));
        }
        let machine = StatCache::at(self.root.path().join("machine"), PathBuf::from("/"));
        let memory = Memory::default();
        let graph =
            learnt_order(&definition.pipeline, "pipeline", &params, None, &self.journal, &definition.graph, &memory)
                .unwrap();
        act(&Work {
            pipeline: &definition.pipeline,
            name: "pipeline",
            graph: &graph,
            params: &params,
            view: View::new(&self.store, &snapshot),
            version: None,
            tools: &tools,
            machine: &machine,
            journal: &self.journal,
            store: &self.store,
            images: &crate::run::Images::new(),
            peers: &Peers { me: By::here(None), trust: Trust::All },
            memory,
        })
    }

    fn settle(&self, index: usize, finished: &Finished, observation: &Observation) -> Settled {
        let private = [Path::new("/pv/home"), Path::new("/pv/tmp")];
        let sighting = Sighting { observation, workplace: Path::new(WORKPLACE), private: &private };
        self.work(|work| settle(work, index, &work.before(index, finished).unwrap(), Some(sighting)).unwrap())
    }

    /// Puts on record that the first step ran and was seen like this.
    fn ran(&mut self, observation: &Observation) -> Settled {
        let settled = self.settle(0, &Finished::none_of(3), observation);
        let text = format!("{:?}", settled.recipe.reads);
        let output = Output::of(path("out"), &self.file(&text)).unwrap();
        self.clock += 1;
        let result = StepResult {
            key: settled.recipe.key(),
            recipe: settled.recipe.clone(),
            outputs: vec![output],
            log: None,
            started: Time { epoch_ms: self.clock },
            elapsed_ms: 1,
            by: By { who: "Ada".to_owned(), host: "h".to_owned(), platform: "p".to_owned(), pv: "0".to_owned() },
            observed: settled.observed.clone(),
        };
        self.journal.add(&[Record::Step(result)]).unwrap();
        settled
    }

    /// Returns whether the first step is reused, and why or why not.
    fn judge(&self) -> (bool, String) {
        self.work(|work| {
            let judged = work.judge(0, &Finished::none_of(3)).unwrap();
            (matches!(judged.verdict, Verdict::Reuse(_)), judged.reason.to_string())
        })
    }

    fn is_reused(&self) -> bool {
        self.judge().0
    }
}

fn path(text: &str) -> ProjectPath {
    ProjectPath::new(text).unwrap()
}

/// Returns an observation of touches such as `r data/a`: read, listed, examined, executed, written.
fn saw(touches: &[&str]) -> Observation {
    let mut observation = Observation { rung: Rung::Notify, isolated: true, ..Observation::default() };
    for touch in touches {
        let (how, path) = touch.split_once(' ').unwrap();
        let path = if path.starts_with('/') { PathBuf::from(path) } else { Path::new(WORKPLACE).join(path) };
        let seen = Touch {
            read: how.contains('r'),
            listed: how.contains('l'),
            examined: how.contains('e'),
            executed: how.contains('x'),
            written: how.contains('w'),
            by: "python3".to_owned(),
        };
        observation.touched.insert(path, seen);
    }
    observation
}

/// Returns what was read, with the kind of each value: `data/a file`.
fn kinds(settled: &Settled) -> Vec<String> {
    let kind = |value: &str| value.split_once(' ').map_or(value.to_owned(), |(kind, _)| kind.to_owned());
    settled.recipe.reads.iter().map(|(path, value)| format!("{path} {}", kind(value))).collect()
}

const STEP: &str = "steps:\n  train:\n    run: sh train.sh\n    outputs: [out]\n";
const DECLARED: &str = "steps:\n  train:\n    run: sh train.sh\n    inputs: [data]\n    outputs: [out]\n";

#[test]
fn paths_are_followed_through_links_to_what_they_lead_to() {
    let files =
        [("data/v1/a", "1"), ("data/now", "-> v1"), ("loop", "-> loop"), ("abs", "-> /pv/work/data/now/a"), ("b", "2")];
    let bed = Bed::new(STEP, &files);
    let seen = bed.settle(
        0,
        &Finished::none_of(3),
        &saw(&[
            "r abs",
            "r data/now/../../b",
            "e loop",
            "e data/now/none/deep",
            "e b/below",
            "r /pv/home/x",
            "e out/x",
        ]),
    );
    let wanted = ["abs link", "b file", "data/now link", "data/v1/a file", "data/v1/none absent", "loop link"];
    assert_eq!(kinds(&seen), wanted);
    assert_eq!(seen.observed.unwrap().readers["data/v1/a"], "python3");
}

#[test]
fn a_directory_counts_as_one_if_all_of_it_was_listed_and_read() {
    let mut bed = Bed::new(STEP, &[("d/a", "1"), ("d/e/b", "2"), ("f/a", "1"), ("f/b", "2"), ("g/a", "3")]);
    let touches = ["l d", "r d/a", "l d/e", "r d/e/b", "e d/absent", "l f", "r f/a", "e f/absent", "r g/a", "e g"];
    let seen = bed.ran(&saw(&touches));
    assert_eq!(kinds(&seen), ["d directory", "f listing", "f/a file", "g/a file"]);
    assert!(bed.is_reused());
    // Nobody listed this one.
    bed.edit("g/new", "1");
    assert!(bed.is_reused());
    bed.edit("f/b", "changed, yet not read");
    assert!(bed.is_reused());
    bed.edit("d/e/new", "1");
    assert_eq!(bed.judge().1, "`d/e/new` added");
}

#[test]
fn declared_inputs_cover_what_lies_in_them_and_count_though_nobody_reads_them() {
    let mut bed = Bed::new(DECLARED, &[("data/a", "1"), ("data/b", "2"), ("train.sh", "x"), ("README", "r")]);
    let seen =
        bed.ran(&saw(&["r train.sh", "r data/a", "e data/none", "l data", "w log.txt", "w out", "w /data/cache"]));
    assert_eq!(kinds(&seen), ["data directory", "log.txt place", "train.sh file"]);
    let observed = seen.observed.unwrap();
    assert_eq!(observed.readers.keys().collect::<Vec<_>>(), ["train.sh"]);
    assert_eq!(observed.writes.iter().collect::<Vec<_>>(), ["/data/cache", "log.txt"]);
    assert!(bed.is_reused());
    bed.edit("README", "other");
    assert!(bed.is_reused());
    bed.edit("data/b", "3");
    assert!(!bed.is_reused());
}

#[test]
fn a_file_that_was_looked_for_in_vain_counts() {
    let mut bed = Bed::new(STEP, &[("train.sh", "x")]);
    let seen = bed.ran(&saw(&["r train.sh", "e conf/local/settings.yaml", "e conf/local"]));
    assert_eq!(kinds(&seen), ["conf absent", "train.sh file"]);
    bed.edit("conf/other", "1");
    assert_eq!(bed.judge().1, "`conf` added");
}

#[test]
fn the_length_of_a_file_that_was_only_looked_at_counts_beside_the_names_of_its_directory() {
    let mut bed = Bed::new(STEP, &[("d/a", "1"), ("d/b", "1")]);
    let seen = bed.ran(&saw(&["l d", "e d/a", "e d/none"]));
    assert_eq!(kinds(&seen), ["d listing", "d/a status"]);
    bed.edit("d/a", "2");
    assert!(bed.is_reused(), "its length is the same, and nobody read it");
    bed.edit("d/a", "22");
    assert!(!bed.is_reused());
}

#[test]
fn a_step_keeps_all_the_sets_that_it_was_seen_to_read() {
    let mut bed = Bed::new(STEP, &[("mode", "a"), ("a", "1"), ("b", "2")]);
    bed.ran(&saw(&["r mode", "r a"]));
    bed.edit("mode", "b");
    assert!(!bed.is_reused());
    bed.ran(&saw(&["r mode", "r b"]));
    bed.edit("a", "changed");
    assert!(bed.is_reused(), "b was read, a was not");
    bed.edit("mode", "a");
    assert!(!bed.is_reused());
    bed.edit("a", "1");
    assert!(bed.is_reused());
}

#[test]
fn a_newly_declared_input_counts_from_then_on() {
    let mut bed = Bed::new(STEP, &[("train.sh", "x"), ("data/a", "1")]);
    bed.ran(&saw(&["r train.sh"]));
    assert!(bed.is_reused());
    DECLARED.clone_into(&mut bed.definition);
    assert!(!bed.is_reused());
    bed.ran(&saw(&["r train.sh"]));
    assert!(bed.is_reused());
    bed.edit("data/a", "2");
    assert!(!bed.is_reused());
}

#[test]
fn a_file_that_was_seen_and_is_declared_afterwards_makes_no_difference() {
    let definition = "steps:\n  train:\n    run: sh train.sh\n    inputs: [data/a]\n    outputs: [out]\n";
    let mut bed = Bed::new(STEP, &[("data/a", "1")]);
    bed.ran(&saw(&["r data/a"]));
    definition.clone_into(&mut bed.definition);
    assert!(bed.is_reused());
}

#[test]
fn what_could_not_be_seen_counts_as_if_nothing_had_been() {
    let mut bed = Bed::new(STEP, &[("train.sh", "x"), ("unseen", "1")]);
    let mut observation = saw(&["r train.sh"]);
    observation.gaps.insert(Gap::OtherView);
    bed.ran(&observation);
    assert!(bed.is_reused());
    bed.edit("unseen", "2");
    assert!(!bed.is_reused());
    let unobserved = Observation::default();
    bed.ran(&unobserved);
    assert!(bed.is_reused());
    bed.edit("unseen", "3");
    assert!(!bed.is_reused());
}

#[test]
fn a_step_that_talked_to_somebody_is_run_again_unless_its_definition_vouches() {
    let mut bed = Bed::new(STEP, &[("train.sh", "x")]);
    let mut observation = saw(&["r train.sh"]);
    observation.peers.insert("10.0.0.1:80".to_owned(), "curl".to_owned());
    bed.ran(&observation);
    assert_eq!(bed.judge(), (false, "it talked to `10.0.0.1:80` without `network: true`".to_owned()));
}

#[test]
fn a_file_outside_the_project_counts() {
    let mut bed = Bed::new(STEP, &[("train.sh", "x"), ("model", "-> /nowhere/model.bin")]);
    let outside = bed.write_outside("home/x.csv", "1");
    let (text, folder) = (outside.display().to_string(), outside.parent().unwrap().display().to_string());
    let touches = [format!("r {text}"), format!("e {folder}/none/y"), format!("e {folder}"), "r model".to_owned()];
    let seen = bed.ran(&saw(&touches.each_ref().map(String::as_str)));
    let wanted = [
        "/nowhere absent".to_owned(),
        format!("{folder}/none absent"),
        format!("{text} file"),
        "model link".to_owned(),
    ];
    assert_eq!(kinds(&seen), wanted);
    assert!(bed.is_reused());
    bed.write_outside("home/other.csv", "1");
    assert!(bed.is_reused());
    bed.write_outside("home/x.csv", "2");
    assert_eq!(bed.judge(), (false, format!("`{text}` changed")));
    bed.write_outside("home/x.csv", "1");
    assert!(bed.is_reused());
    bed.write_outside("home/none/z", "1");
    assert!(!bed.is_reused());
}

#[test]
fn a_file_outside_that_one_step_writes_is_looked_at_again_for_the_next() {
    let definition = "steps:\n  a: {run: a, outputs: [a]}\n  b: {run: b, outputs: [b]}\n";
    let bed = Bed::new(definition, &[]);
    let outside = bed.write_outside("state", "before");
    let text = outside.display().to_string();
    let reads = |settled: &Settled| settled.recipe.reads[&text].clone();
    bed.work(|work| {
        let settle = |index: usize, touch: &str| {
            let observation = saw(&[&format!("{touch} {text}")]);
            let sighting = Sighting { observation: &observation, workplace: Path::new(WORKPLACE), private: &[] };
            let finished = Finished::none_of(3);
            let before = work.before(index, &finished).unwrap();
            before.machine.value(crate::record::Aspect::Content, &text);
            bed.write_outside("state", "after");
            settle(work, index, &before, Some(sighting)).unwrap()
        };
        assert_eq!(reads(&settle(0, "rw")), format!("file {}", crate::hash::Digest::of(b"before")));
        assert_eq!(reads(&settle(1, "r")), format!("file {}", crate::hash::Digest::of(b"after")));
    });
}

#[test]
fn a_package_that_was_loaded_counts_and_is_named_with_its_step() {
    let mut bed = Bed::new(STEP, &[("train.py", "x")]);
    let python = bed.write_outside("venv/bin/python3", "interpreter");
    std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).unwrap();
    bed.search_path = python.parent().unwrap().display().to_string();
    let site = "venv/lib/python3.11/site-packages";
    let install = |bed: &Bed, name: &str, version: &str| {
        bed.write_outside(&format!("{site}/{name}/__init__.py"), version);
        let record = format!("{name}/__init__.py,,\n");
        bed.write_outside(&format!("{site}/{name}-{version}.dist-info/RECORD"), &record);
    };
    let remove =
        |bed: &Bed, stem: &str| disk::remove_tree(&bed.root.path().join(format!("{site}/{stem}.dist-info"))).unwrap();
    install(&bed, "scikit_learn", "1.1.3");
    install(&bed, "unused", "1");
    let loaded = bed.root.path().join(site).join("scikit_learn/__init__.py").display().to_string();
    let touches = [format!("x {}", python.display()), format!("r {loaded}"), "r train.py".to_owned()];
    let seen = bed.ran(&saw(&touches.each_ref().map(String::as_str)));
    let facts: Vec<_> = seen.recipe.environment.keys().filter(|name| !name.starts_with("variable ")).collect();
    assert_eq!(facts, ["python3", "python3 package scikit-learn"]);
    assert!(bed.is_reused());
    remove(&bed, "unused-1");
    install(&bed, "unused", "2");
    assert!(bed.is_reused());
    remove(&bed, "scikit_learn-1.1.3");
    install(&bed, "scikit_learn", "1.9.1");
    assert_eq!(bed.judge(), (false, "`scikit-learn` 1.1.3 -> 1.9.1, loaded by `train`".to_owned()));
    remove(&bed, "scikit_learn-1.9.1");
    assert_eq!(bed.judge(), (false, "`scikit-learn` 1.1.3 -> (none), loaded by `train`".to_owned()));
}

#[test]
fn of_a_step_that_nobody_observed_the_whole_lock_of_its_python_environment_counts() {
    let definition = "environment: {python: {version: '3.11', lock: requirements.lock}}\n\
                      steps:\n  a: {run: python3 a.py, inputs: [a.py], outputs: [out]}\n";
    let mut bed = Bed::new(definition, &[("a.py", "x"), ("requirements.lock", "a==1 --hash=sha256:aa\n")]);
    bed.ran(&Observation::default());
    assert!(bed.is_reused());
    bed.edit("requirements.lock", "a==2 --hash=sha256:bb\n");
    assert_eq!(bed.judge(), (false, "the lock of its Python environment changed".to_owned()));
    bed.edit("requirements.lock", "a==1 --hash=sha256:aa\n");
    bed.definition = definition.replace("3.11", "3.12");
    assert!(!bed.is_reused());
    // One that was seen whole depends on what it was seen to load.
    let mut bed = Bed::new(definition, &[("a.py", "x"), ("requirements.lock", "a==1 --hash=sha256:aa\n")]);
    bed.ran(&saw(&["r a.py"]));
    bed.edit("requirements.lock", "a==2 --hash=sha256:bb\n");
    assert!(bed.is_reused());
}

#[test]
fn steps_come_after_those_whose_outputs_they_were_seen_to_read() {
    let definition = "steps:
  make: {run: make, inputs: [], outputs: [made/a]}
  other: {run: other, inputs: [], outputs: [other]}
  use: {run: use, inputs: [], outputs: [used]}
";
    let mut bed = Bed::new(definition, &[("use.sh", "x")]);
    let early = bed.settle(2, &Finished::none_of(3), &saw(&["r use.sh", "e made/a", "l ."]));
    assert_eq!(early.too_early, BTreeSet::from([0]), "the names at the top are no reason to wait");
    let listed = bed.settle(2, &Finished::none_of(3), &saw(&["l made"]));
    assert_eq!(listed.too_early, BTreeSet::from([0]));
    assert_eq!(bed.settle(0, &Finished::none_of(3), &saw(&["e used"])).too_early, BTreeSet::new(), "that stands later");
    // Once it is on record, it is known before.
    let made = Output::of(path("made/a"), &bed.file("1")).unwrap();
    let finished = Finished::none_of(3);
    finished.note(0, vec![made]);
    let settled = bed.work(|work| {
        work.learn(2, &BTreeSet::from([0]));
        let observation = saw(&["r use.sh", "r made/a"]);
        let sighting = Sighting { observation: &observation, workplace: Path::new(WORKPLACE), private: &[] };
        settle(work, 2, &work.before(2, &finished).unwrap(), Some(sighting)).unwrap()
    });
    assert_eq!(settled.too_early, BTreeSet::new());
    assert_eq!(kinds(&settled), ["made/a file", "use.sh file"]);
    bed.clock += 1;
    let result = StepResult {
        key: settled.recipe.key(),
        recipe: settled.recipe,
        outputs: vec![Output::of(path("used"), &bed.file("2")).unwrap()],
        log: None,
        started: Time { epoch_ms: 1 },
        elapsed_ms: 1,
        by: By { who: "Ada".to_owned(), host: "h".to_owned(), platform: "p".to_owned(), pv: "0".to_owned() },
        observed: settled.observed,
    };
    bed.journal.add(&[Record::Step(result)]).unwrap();
    bed.work(|work| {
        assert_eq!(work.graph.dependencies, [BTreeSet::new(), BTreeSet::new(), BTreeSet::from([0])]);
        assert!(matches!(work.judge(2, &finished).unwrap().verdict, Verdict::Reuse(_)));
    });
}

/// Paths of which some are files, some directories, some not there.
const PATHS: [&str; 7] = ["a", "d", "d/a", "d/e", "d/e/a", "f", "f/a"];
/// Those of them that may be files.
const FILES: [&str; 4] = ["a", "d/a", "d/e/a", "f/a"];
/// What files hold. Two are of one length.
const TEXTS: [&str; 3] = ["0", "1", "22"];

fn touches() -> impl Strategy<Value = Vec<(usize, &'static str)>> {
    proptest::collection::vec((0..PATHS.len(), prop::sample::select(vec!["r", "l", "e", "x"])), 2..12)
}

fn files() -> impl Strategy<Value = BTreeMap<String, String>> {
    let (path, text) = (prop::sample::select(FILES.to_vec()), prop::sample::select(TEXTS.to_vec()));
    proptest::collection::btree_map(path.prop_map(str::to_owned), text.prop_map(str::to_owned), 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// An execution that could tell the difference is never skipped. Every edit of one file is tried.
    #[test]
    fn a_result_holds_while_all_that_was_seen_is_the_same_and_no_longer(files in files(), touches in touches()) {
        let mut bed = Bed::new(STEP, &[]);
        bed.files.clone_from(&files);
        let texts: Vec<String> = touches.iter().map(|(place, how)| format!("{how} {}", PATHS[*place])).collect();
        let observation = saw(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        // What a process that does exactly that gets to know.
        let answers = |files: &BTreeMap<String, String>| -> Vec<String> {
            observation.touched.iter().map(|(path, touch)| answer(files, path, touch)).collect()
        };
        bed.ran(&observation);
        prop_assert!(bed.is_reused(), "an unchanged world");
        let old = answers(&files);
        for path in FILES {
            for text in TEXTS.into_iter().map(Some).chain([None]) {
                bed.files.clone_from(&files);
                match text {
                    Some(text) => bed.edit(path, text),
                    None => drop(bed.files.remove(path)),
                }
                let is_equal = answers(&bed.files) == old;
                let (is_reused, why) = bed.judge();
                prop_assert!(is_equal || !is_reused, "{texts:?} {path} {text:?}");
                // Of what is not there the highest missing directory counts, which may come without what was looked for.
                let is_exact = !old.iter().any(|answer| answer == "absent");
                prop_assert!(!is_exact || !is_equal || is_reused, "{texts:?} {path} {text:?}: {why}");
            }
        }
    }
}

/// Returns what one touch of the model of a file system tells.
fn answer(files: &BTreeMap<String, String>, path: &Path, touch: &Touch) -> String {
    let path = path.strip_prefix(WORKPLACE).unwrap().display().to_string();
    let below = format!("{path}/");
    let inside: BTreeSet<String> = files
        .keys()
        .filter_map(|file| file.strip_prefix(&below))
        .map(|rest| rest.split_once('/').map_or(format!("f{rest}"), |(name, _)| format!("d{name}")))
        .collect();
    match files.get(&path) {
        Some(text) if touch.read || touch.executed => text.clone(),
        Some(text) => format!("file {}", text.len()),
        None if inside.is_empty() => "absent".to_owned(),
        None if touch.listed => format!("{inside:?}"),
        None => "directory".to_owned(),
    }
}
