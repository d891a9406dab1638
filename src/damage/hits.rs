//! Which snapshots, runs and results need what is lost.

use std::collections::{BTreeMap, BTreeSet};

use crate::hash::Digest;
use crate::host::Time;
use crate::object::{Kind, RecordId, SnapshotId, StepKey, TaskKey};
use crate::record::{Journal, Output};
use crate::snapshot::{Gap, Survey};
use crate::store::Store;

use super::DamageError;

/// Something on record that is not whole any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hit {
    /// What it is.
    pub subject: Subject,
    /// What of it is missing.
    pub gaps: Vec<Gap>,
}

/// What can be hit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Subject {
    /// A snapshot.
    Snapshot {
        /// Its id.
        id: SnapshotId,
        /// The newest of its names.
        version: Option<String>,
        /// The newest commit that it was taken of, without changes.
        commit: Option<String>,
        /// The pipeline's name.
        pipeline: String,
        /// The machine on which it was first put on record.
        host: String,
    },
    /// Outputs or logs of a run.
    Run {
        /// Its id.
        id: RecordId,
        /// When it began.
        started: Time,
    },
    /// Outputs or the log of a step's result that belongs to no run.
    Result {
        /// The step's name.
        step: String,
        /// The key that it is reused under.
        key: StepKey,
        /// What the step was asked to do; `None` if that was not recorded.
        task: Option<TaskKey>,
    },
}

/// Returns everything on record that is not whole, the newest first: snapshots, then runs, then results.
pub(super) fn hits(
    journal: &Journal,
    store: &dyn Store,
    lost: &BTreeMap<(Kind, Digest), u64>,
) -> Result<Vec<Hit>, DamageError> {
    let mut survey = Survey::new(store, lost);
    let mut hits = Vec::new();
    for (subject, id) in snapshots(journal)? {
        let gaps = survey.of_snapshot(id)?;
        if !gaps.is_empty() {
            hits.push(Hit { subject, gaps });
        }
    }
    let mut told = BTreeSet::new();
    for run in journal.runs()? {
        let (id, run) = run?;
        let mut gaps = Vec::new();
        for step in &run.steps {
            let found = of_step(&mut survey, &step.outputs, step.log.map(|log| log.digest()))?;
            if !found.is_empty() {
                told.extend(step.key);
                gaps.extend(found);
            }
        }
        if !gaps.is_empty() {
            hits.push(Hit { subject: Subject::Run { id, started: run.started }, gaps });
        }
    }
    let mut results = journal.all_results()?;
    results.sort_by_key(|(id, result)| std::cmp::Reverse((result.started, *id)));
    for (_, result) in results.into_iter().filter(|(_, result)| !told.contains(&result.key)) {
        let gaps = of_step(&mut survey, &result.outputs, result.log.map(|log| log.digest()))?;
        if !gaps.is_empty() {
            let (task, key) = (result.task(), result.key);
            hits.push(Hit { subject: Subject::Result { step: result.recipe.step, key, task }, gaps });
        }
    }
    Ok(hits)
}

fn of_step(survey: &mut Survey<'_>, outputs: &[Output], log: Option<Digest>) -> Result<Vec<Gap>, DamageError> {
    let mut gaps = Vec::new();
    for output in outputs {
        gaps.extend(survey.of_entry(&output.path, &output.entry())?);
    }
    if let Some(log) = log {
        gaps.extend(survey.of_blob(log)?);
    }
    Ok(gaps)
}

/// What a record says of a snapshot.
struct Mention {
    time: Time,
    id: SnapshotId,
    version: Option<String>,
    commit: Option<String>,
    pipeline: String,
    host: String,
}

/// Returns every snapshot on record, the one that was mentioned last first.
fn snapshots(journal: &Journal) -> Result<Vec<(Subject, SnapshotId)>, DamageError> {
    let mut mentions = Vec::new();
    for (_, link) in journal.links()? {
        let commit = link.commit.filter(|_| !link.dirty);
        let (pipeline, host) = (link.pipeline, link.by.host);
        mentions.push(Mention { time: link.time, id: link.snapshot, version: None, commit, pipeline, host });
    }
    for (_, version) in journal.versions()? {
        let commit = version.commit.filter(|_| !version.dirty);
        let (pipeline, host, name) = (version.pipeline, version.by.host, Some(version.name));
        mentions.push(Mention { time: version.time, id: version.snapshot, version: name, commit, pipeline, host });
    }
    for run in journal.runs()? {
        let (_, run) = run?;
        let (pipeline, host) = (run.pipeline, run.by.host);
        mentions.push(Mention { time: run.started, id: run.snapshot, version: None, commit: None, pipeline, host });
    }
    mentions.sort_by_key(|mention| std::cmp::Reverse(mention.time));
    let mut order = Vec::new();
    let mut known: BTreeMap<SnapshotId, Subject> = BTreeMap::new();
    for Mention { id, version, commit, pipeline, host, .. } in mentions {
        match known.get_mut(&id) {
            Some(Subject::Snapshot { version: old_version, commit: old_commit, host: first_host, .. }) => {
                *old_version = old_version.take().or(version);
                *old_commit = old_commit.take().or(commit);
                *first_host = host;
            }
            _ => {
                order.push(id);
                known.insert(id, Subject::Snapshot { id, version, commit, pipeline, host });
            }
        }
    }
    Ok(order.into_iter().filter_map(|id| known.remove(&id).map(|subject| (subject, id))).collect())
}
