//! What is left of a snapshot and a run that stop anywhere, by a kill or by a power cut.
//!
//! Store and journal write through one recorded disk. For every prefix of what
//! was done, and every way in which a power cut may leave it, what was
//! acknowledged by then must be there and verify.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Project;
use super::fixture::{by, git, snapshot};
use crate::disk::recorder::{Cut, Recorder, play};
use crate::disk::{self, Disk, Durability};
use crate::environment::{self, Tools};
use crate::exec::Stop;
use crate::host::Time;
use crate::object::{Entry, Kind, SnapshotId};
use crate::pipeline::{self, Trust};
use crate::record::Journal;
use crate::run::{Capacity, Memory, Mode, Origin, Peers, Request, Selection, Work, conclude, perform};
use crate::snapshot::{View, for_each_file, load_pipeline, read_snapshot};
use crate::store::{LocalStore, Store};

const DEFINITION: &str = "steps:
  one:
    inputs: [in]
    outputs: [out]
    run: cat in in > out; echo said
";

/// Runs a snapshot and records it, as `pv run` does.
fn run(project: &Project, id: SnapshotId, places: &Path) {
    let snapshot = read_snapshot(&project.store, id).unwrap();
    let (pipeline, params) = load_pipeline(&project.store, &snapshot).unwrap();
    let graph = pipeline::order(&pipeline).unwrap();
    let tools = Tools::new(environment::search_path());
    let work = Work {
        pipeline: &pipeline,
        name: &project.pipeline,
        graph: &graph,
        params: &params,
        view: View::new(&project.store, &snapshot),
        version: None,
        tools: &tools,
        machine: &project.machine,
        journal: &project.journal,
        store: &project.store,
        images: &crate::run::Images::new(),
        peers: &Peers { me: by(), trust: Trust::All },
        memory: Memory::default(),
    };
    let stop = Stop::new();
    let locks = project.locks();
    let selection = Selection::everything(&pipeline, false);
    let capacity = Capacity { cpus: 1, memory_bytes: 0, gpus: Vec::new() };
    let request = Request {
        tree: None,
        mode: Mode::Reuse,
        selection: &selection,
        capacity: &capacity,
        keep_going: false,
        places,
        locks: &locks,
        by: by(),
        stop: &stop,
    };
    let performed = perform(&work, &request, &|_| ()).unwrap();
    let origin = Origin {
        snapshot: id,
        version: None,
        commit: None,
        dirty: true,
        compare: false,
        started: Time::now(),
        elapsed: std::time::Duration::ZERO,
        by: by(),
    };
    let report = conclude(&work, origin, performed).unwrap();
    assert_eq!(report.steps[0].outputs.len(), 1, "{report:?}");
}

/// Everything that a journal names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Named {
    snapshots: BTreeSet<SnapshotId>,
    blobs: BTreeSet<crate::hash::Digest>,
}

fn named(journal: &Journal) -> Named {
    let mut named = Named::default();
    named.snapshots.extend(journal.links().unwrap().into_iter().map(|(_, link)| link.snapshot));
    for run in journal.runs().unwrap() {
        let (_, run) = run.unwrap();
        named.snapshots.insert(run.snapshot);
        named.blobs.extend(run.steps.iter().flat_map(|step| &step.outputs).map(|output| output.digest));
        named.blobs.extend(run.steps.iter().filter_map(|step| step.log).map(|log| log.digest()));
    }
    for (_, result) in journal.all_results().unwrap() {
        named.blobs.extend(result.outputs.iter().map(|output| output.digest));
        named.blobs.extend(result.log.map(|log| log.digest()));
    }
    named
}

/// Checks that all that the records in `left` name is there and whole; returns it.
fn verified(left: &Path, case: &str) -> Named {
    let store = LocalStore::open(left).unwrap_or_else(|error| panic!("{case}: {error}"));
    let named = named(&Journal::new(left.join("records")));
    for id in &named.snapshots {
        let snapshot = read_snapshot(&store, *id).unwrap_or_else(|error| panic!("{case}: {error}"));
        load_pipeline(&store, &snapshot).unwrap_or_else(|error| panic!("{case}: {error}"));
        for_each_file(&store, snapshot.tree, None, &mut |path, entry| {
            if let Entry::File { id, .. } = entry {
                store.get(Kind::Blob, id.digest()).unwrap_or_else(|error| panic!("{case}: {path}: {error}"));
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{case}: {error}"));
    }
    for digest in &named.blobs {
        store.get(Kind::Blob, *digest).unwrap_or_else(|error| panic!("{case}: {error}"));
    }
    named
}

fn write(tree: &Path, path: &str, bytes: &[u8]) {
    disk::write_whole(&tree.join(path), bytes, Durability::Deferred).unwrap();
}

/// Makes a project with a definition and an input below `root`; returns where it is.
fn make_project(root: &Path) -> PathBuf {
    let tree = root.join("project");
    disk::make_directory(&tree).unwrap();
    git(&tree, &["init", "--quiet"]);
    write(&tree, ".pipeline/pipeline.yaml", DEFINITION.as_bytes());
    write(&tree, "in", b"in\n");
    tree
}

#[test]
fn what_a_snapshot_and_a_run_acknowledged_is_there_wherever_they_stop() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    let tree = make_project(&root);
    let large: Vec<u8> =
        (0..20_000_u32).flat_map(|number| *crate::hash::Digest::of(&number.to_le_bytes()).as_bytes()).collect();
    write(&tree, "large", &large[..150_000]);

    let recorder = Arc::new(Recorder::new());
    let project = Project::open_on(&(Arc::clone(&recorder) as Arc<dyn Disk>), &tree, "pipeline").unwrap();
    let mut acknowledged = vec![(0, Named::default())];
    let first = snapshot(&project, Time::now(), None).unwrap();
    acknowledged.push((recorder.log().len(), named(&project.journal)));
    run(&project, first, &root.join("places"));
    acknowledged.push((recorder.log().len(), named(&project.journal)));
    write(&tree, "in", b"other\n");
    snapshot(&project, Time::now(), None).unwrap();
    acknowledged.push((recorder.log().len(), named(&project.journal)));
    assert_eq!(acknowledged.last().unwrap().1.snapshots.len(), 2);

    let log = recorder.log();
    let directory = tree.join(".git/pv");
    for count in 0..=log.len() {
        let (_, safe) = acknowledged.iter().rev().find(|(at, _)| *at <= count).unwrap();
        for cut in Cut::ALL {
            let case = format!("{cut:?} after {count} of {} effects", log.len());
            let left = root.join(format!("left-{count}-{cut:?}"));
            play(&log[..count], cut, &directory, &left);
            let there = verified(&left, &case);
            assert!(there.snapshots.is_superset(&safe.snapshots), "{case}");
            assert!(there.blobs.is_superset(&safe.blobs), "{case}");
            disk::remove_tree(&left).unwrap();
        }
    }
}

/// Everything in a journal, by what it is about.
fn all(journal: &Journal) -> (usize, Named, Vec<String>) {
    let names = journal.versions().unwrap().into_iter().map(|(_, version)| version.name).collect();
    (journal.links().unwrap().len(), named(journal), names)
}

#[test]
fn damaged_records_come_back_and_their_bytes_are_kept_wherever_their_repair_stops() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    let tree = make_project(&root);
    let recorder = Arc::new(Recorder::new());
    let project = Project::open_on(&(Arc::clone(&recorder) as Arc<dyn Disk>), &tree, "pipeline").unwrap();
    snapshot(&project, Time::now(), Some("v1")).unwrap();
    project.journal.exchange(&project.repository).unwrap();
    let whole = all(&project.journal);
    assert_eq!((whole.0, whole.2.len()), (1, 1));
    let directory = tree.join(".git/pv");
    let records = directory.join("records");
    let files = |directory: &Path| -> Vec<_> {
        let walked = disk::walk(directory).map(|entry| entry.unwrap());
        let files = walked.filter(|(_, found)| matches!(found, disk::Found::File { .. })).map(|(path, _)| path);
        // Those that begin with a dot are half written ones.
        files.filter(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.')).collect()
    };
    for (kind, bad) in [("link", &b"damaged"[..]), ("version", b"also damaged")] {
        let path = files(&records.join(kind)).remove(0);
        disk::write_whole_on(&*recorder, &path, bad, Durability::Synced).unwrap();
    }
    let before = recorder.log().len();
    assert_eq!(project.journal.check(&project.repository, false).unwrap().damaged.len(), 2);
    let log = recorder.log();
    assert!(log.len() > before + 4, "the repair has only {} effects", log.len() - before);
    for count in before..=log.len() {
        for cut in Cut::ALL {
            let case = format!("{cut:?} after {} of {} effects", count - before, log.len() - before);
            let left = root.join("left");
            play(&log[..count], cut, &directory, &left);
            let journal = Journal::new(left.join("records"));
            // The next command does this: what was moved away is there again without another check.
            journal.exchange(&project.repository).unwrap_or_else(|error| panic!("{case}: {error}"));
            let there = ["link", "version"].map(|kind| files(&left.join("records").join(kind)).len());
            assert_eq!(there, [1, 1], "{case}: a record is missing, and nobody is told");
            journal.check(&project.repository, false).unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_eq!(all(&journal), whole, "{case}");
            let aside: BTreeSet<Vec<u8>> = files(&left.join("records/quarantine"))
                .iter()
                .map(|path| disk::read_if_there(path).unwrap().unwrap())
                .collect();
            assert_eq!(aside, BTreeSet::from([b"damaged".to_vec(), b"also damaged".to_vec()]), "{case}");
            disk::remove_tree(&left).unwrap();
        }
    }
}
