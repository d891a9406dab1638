//! A project to try things on, and how a snapshot of it is taken and put on record.

use std::path::Path;
use std::process::Command;

use super::Project;
use crate::disk::{self, Durability};
use crate::host::Time;
use crate::object::SnapshotId;
use crate::record::{By, Link, Record, Version};
use crate::snapshot::capture_working;
use crate::store::Store;

/// What went wrong, whichever room says so.
pub(super) type Failed = Box<dyn std::error::Error>;

/// Runs git in `directory`; it must succeed.
pub(super) fn git(directory: &Path, arguments: &[&str]) {
    #[expect(clippy::disallowed_methods, reason = "a repository to work in")]
    let mut git = Command::new("git");
    let done = git.args(["-c", "user.name=A", "-c", "user.email=a@example.org"]).args(arguments).current_dir(directory);
    assert!(done.output().unwrap().status.success(), "git {arguments:?}");
}

/// Makes a project in `tree` with one step, and a file for it to read.
pub(super) fn begin(tree: &Path, text: &str) {
    const DEFINITION: &str = "steps:\n  one: {inputs: [in], outputs: [out], run: cp in out}\n";
    disk::make_directory(tree).unwrap();
    git(tree, &["init", "--quiet", "--template="]);
    for (path, text) in [(".pipeline/pipeline.yaml", DEFINITION), ("in", text)] {
        disk::write_whole(&tree.join(path), text.as_bytes(), Durability::Deferred).unwrap();
    }
}

/// Returns who works in these tests.
pub(super) fn by() -> By {
    By { who: "A".to_owned(), host: "h".to_owned(), platform: "p".to_owned(), pv: "0".to_owned() }
}

/// Takes a snapshot, links it and names it, as `pv snapshot --tag` does.
pub(super) fn snapshot(project: &Project, time: Time, name: Option<&str>) -> Result<SnapshotId, Failed> {
    let captured = capture_working(project.site(), &project.store, &|_, _| true)?;
    acknowledge(project, captured.id, time, name)?;
    Ok(captured.id)
}

/// Makes a captured snapshot durable, then puts it on record.
pub(super) fn acknowledge(project: &Project, id: SnapshotId, time: Time, name: Option<&str>) -> Result<(), Failed> {
    project.store.sync()?;
    let mut records = Vec::new();
    if let Some(name) = name {
        let same = project.journal.versions()?.into_iter().filter(|(_, version)| version.name == name);
        records.push(Record::Version(Version {
            name: name.to_owned(),
            snapshot: id,
            pipeline: project.pipeline.clone(),
            commit: None,
            dirty: true,
            time,
            by: by(),
            message: None,
            replaces: same.map(|(record, _)| record).collect(),
        }));
    }
    records.push(Record::Link(Link {
        snapshot: id,
        pipeline: project.pipeline.clone(),
        commit: None,
        dirty: true,
        time,
        by: by(),
        message: None,
    }));
    project.journal.add(&records)?;
    project.remember();
    Ok(())
}
