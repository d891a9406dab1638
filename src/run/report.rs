//! What a run came to: compared with what was recorded, and recorded itself.

use std::collections::BTreeMap;
use std::time::Duration;

use super::event::StepDone;
use super::perform::{Performed, milliseconds};
use super::{RunError, Work};
use crate::environment;
use crate::hash::Digest;
use crate::host::Time;
use crate::object::{RecordId, SnapshotId};
use crate::path::ProjectPath;
use crate::record::{By, Journal, Output, Record, Run, RunStep, RunVerdict, StepVerdict};
use crate::store::Store;

/// Where a run comes from.
pub struct Origin {
    /// The snapshot that was executed.
    pub snapshot: SnapshotId,
    /// The version that was asked for, or the definition's label.
    pub version: Option<String>,
    /// The commit that was checked out or asked for.
    pub commit: Option<String>,
    /// Whether the working tree differed from that commit.
    pub dirty: bool,
    /// Whether what comes out is compared with what was recorded of the same snapshot.
    pub compare: bool,
    /// When it began.
    pub started: Time,
    /// How long it took.
    pub elapsed: Duration,
    /// Who is behind it.
    pub by: By,
}

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// The run's id.
    pub id: RecordId,
    /// The record.
    pub run: Run,
    /// What happened to each step.
    pub steps: Vec<StepDone>,
    /// Every output that was compared, in the order of the steps.
    pub compared: Vec<Compared>,
    /// Whether the user stopped it.
    pub interrupted: bool,
}

/// An output beside the recorded one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compared {
    /// The step that wrote it.
    pub step: String,
    /// The output.
    pub path: ProjectPath,
    /// Its digest now.
    pub digest: Digest,
    /// The digest that was recorded; `None` if nothing was.
    pub recorded: Option<Digest>,
    /// What was recorded; `None` if nothing was.
    pub before: Option<Output>,
    /// What it is now.
    pub now: Output,
    /// Whether it is what was recorded, in content and in kind: a lost executable bit is a difference too.
    pub equal: bool,
}

impl Compared {
    /// Returns whether something else was recorded.
    pub fn differs(&self) -> bool {
        self.recorded.is_some() && !self.equal
    }
}

/// Compares what a run left with the recorded run of the same snapshot, records it, and returns the whole.
///
/// A run in which nothing was executed and whose results are on record for this snapshot is not recorded again.
///
/// # Errors
///
/// [`RunError`] if records cannot be read or added.
pub fn conclude(work: &Work<'_>, origin: Origin, performed: Performed) -> Result<Report, RunError> {
    let Performed { steps, interrupted, leftovers: _ } = performed;
    let reference = if origin.compare { reference(work.journal, origin.snapshot)? } else { None };
    let mut compared = Vec::new();
    if origin.compare {
        for done in &steps {
            compare(done, reference.as_ref().map(|(_, run)| run), &mut compared);
        }
    }
    let against = reference.map(|(id, _)| id);
    let verdict = verdict(&steps, &compared, interrupted);
    let mut run = Run {
        snapshot: origin.snapshot,
        pipeline: work.name.to_owned(),
        version: origin.version,
        commit: origin.commit,
        dirty: origin.dirty,
        verdict,
        against,
        started: origin.started,
        elapsed_ms: milliseconds(origin.elapsed),
        by: origin.by,
        machine: BTreeMap::new(),
        steps: steps.iter().map(step_record).collect(),
    };
    let known = if steps.iter().all(|done| done.verdict == StepVerdict::Reused) {
        same_results(work.journal, &run)?
    } else {
        None
    };
    let id = match known {
        Some(id) => id,
        None => {
            run.machine = environment::machine_facts();
            add(work.store, work.journal, &run)?
        }
    };
    Ok(Report { id, run, steps, compared, interrupted })
}

fn add(store: &dyn Store, journal: &Journal, run: &Run) -> Result<RecordId, RunError> {
    // Logs of failed steps are in no committed result yet.
    store.sync()?;
    let ids = journal.add(&[Record::Run(run.clone())])?;
    Ok(ids[0])
}

/// Returns the first run of this snapshot that came to an end: it is what others are held against.
fn reference(journal: &Journal, snapshot: SnapshotId) -> Result<Option<(RecordId, Run)>, RunError> {
    let mut first = None;
    for run in journal.runs()? {
        let (id, run) = run?;
        if run.snapshot == snapshot && run.verdict == RunVerdict::Done {
            first = Some((id, run));
        }
    }
    Ok(first)
}

/// Returns the run of the same snapshot that has exactly these results.
fn same_results(journal: &Journal, run: &Run) -> Result<Option<RecordId>, RunError> {
    for other in journal.runs()? {
        let (id, other) = other?;
        let equal = other.snapshot == run.snapshot
            && other.steps.len() == run.steps.len()
            && other.steps.iter().zip(&run.steps).all(|(a, b)| a.key == b.key && a.outputs == b.outputs);
        if equal && matches!(other.verdict, RunVerdict::Done | RunVerdict::Reproduced) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

fn compare(done: &StepDone, reference: Option<&Run>, compared: &mut Vec<Compared>) {
    let recorded = match reference.and_then(|run| run.steps.iter().find(|step| step.step == done.step)) {
        Some(step) => &step.outputs,
        // The snapshot was never run as a whole, but the step may be known by its key.
        None => &done.recorded,
    };
    for output in &done.outputs {
        let before = recorded.iter().find(|before| before.path == output.path);
        compared.push(Compared {
            step: done.step.clone(),
            path: output.path.clone(),
            digest: output.digest,
            recorded: before.map(|before| before.digest),
            before: before.cloned(),
            now: output.clone(),
            equal: before == Some(output),
        });
    }
}

fn verdict(steps: &[StepDone], compared: &[Compared], interrupted: bool) -> RunVerdict {
    let succeeded = |done: &StepDone| matches!(done.verdict, StepVerdict::Ran | StepVerdict::Reused);
    if interrupted || !steps.iter().all(succeeded) {
        return RunVerdict::Failed;
    }
    if compared.iter().any(Compared::differs) {
        return RunVerdict::Differs;
    }
    // Only what was executed again can have been reproduced.
    let executed = steps.iter().all(|done| done.verdict == StepVerdict::Ran);
    let complete = !compared.is_empty() && compared.iter().all(|output| output.recorded.is_some());
    if executed && complete { RunVerdict::Reproduced } else { RunVerdict::Done }
}

fn step_record(done: &StepDone) -> RunStep {
    let reason = match &done.failure {
        Some(failure) => failure.how.clone(),
        None => done.reason.to_string(),
    };
    RunStep {
        step: done.step.clone(),
        verdict: done.verdict,
        reason,
        key: done.key,
        task: done.task,
        rung: done.rung,
        isolated: done.isolated,
        resumed: done.resumed,
        seeding: done.seeding.clone(),
        elapsed_ms: milliseconds(done.elapsed),
        outputs: done.outputs.clone(),
        log: done.log,
    }
}
