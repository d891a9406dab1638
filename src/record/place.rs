//! Where each record lies: its content determines the place, so that it is found without an index.

use std::fs;
use std::path::Path;

use super::error::RecordError;
use super::fact::Record;
use crate::disk::DiskError;
use crate::object::{RecordId, StepKey, TaskKey};

/// The kinds of records, which are also the names of the directories that they lie in.
pub(super) const KINDS: [&str; 5] = ["link", "run", "step", "verification", "version"];
/// What links lie under that were made without any commit.
pub(super) const UNCOMMITTED: &str = "none";

/// Returns where a record lies, relative to the journal. Times sort as text.
pub(super) fn place(record: &Record, id: RecordId) -> String {
    match record {
        Record::Step(result) => {
            let (shard, rest) = step_place(result.task(), result.key);
            format!("{shard}/{rest}{id}")
        }
        Record::Link(link) => {
            let subject = link.commit.as_deref().unwrap_or(UNCOMMITTED);
            format!("{}/{subject}-{id}", link_shard(subject))
        }
        Record::Version(version) => format!("version/{:015}-{id}", version.time.epoch_ms.max(0)),
        Record::Run(run) => format!("run/{:015}-{id}", run.started.epoch_ms.max(0)),
        Record::Verification(verified) => format!("verification/{:015}-{id}", verified.time.epoch_ms.max(0)),
    }
}

/// Returns the directory of the results of `task` under `key`, and how their names begin.
///
/// Results of before tasks had keys lie under the step key alone.
pub(super) fn step_place(task: Option<TaskKey>, key: StepKey) -> (String, String) {
    match task {
        Some(task) => {
            let (shard, rest) = task_place(task);
            (shard, format!("{rest}{key}-"))
        }
        None => shard_and_rest(&key.to_string()),
    }
}

/// Returns the directory of the results of `task`, and how their names begin; the step key and the id follow.
pub(super) fn task_place(task: TaskKey) -> (String, String) {
    shard_and_rest(&task.to_string())
}

fn shard_and_rest(hex: &str) -> (String, String) {
    (format!("step/{}", &hex[..2]), format!("{}-", &hex[2..]))
}

/// Returns the directory of the links of `subject`.
pub(super) fn link_shard(subject: &str) -> String {
    format!("link/{}", &subject[..2])
}

/// Returns the names in a directory, sorted; none if there is no such directory.
///
/// # Errors
///
/// [`RecordError::Disk`] if it cannot be read.
pub(super) fn list(directory: &Path) -> Result<Vec<String>, RecordError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(DiskError::on("list", directory)(error).into()),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(DiskError::on("list", directory))?.file_name();
        // Temporary files of a writer at work begin with a dot; names of records are hex.
        if let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}
