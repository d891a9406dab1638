//! What is told of a run: while it goes on, and of each step when it is done with.

use std::time::Duration;

use super::reason::Reason;
use super::step::Failure;
use crate::exec::{Obstacle, Rung};
use crate::hash::Digest;
use crate::object::{BlobId, StepKey, TaskKey};
use crate::path::ProjectPath;
use crate::record::{Output, Seeding, StepVerdict};

/// What an observer is told while a run goes on; called from several threads.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step's turn has come. Told in the order in which steps are taken up.
    Reached {
        /// The step.
        step: &'a str,
        /// Its description.
        description: Option<&'a str>,
    },
    /// A step is executed.
    Started {
        /// The step.
        step: &'a str,
        /// Why.
        reason: &'a Reason,
    },
    /// Steps cannot be isolated from one another here. Told once in a run.
    NotIsolated {
        /// Why not.
        why: &'a Obstacle,
    },
    /// A step waits for another run that executes it.
    Waiting {
        /// The step.
        step: &'a str,
    },
    /// A step waits for a lock that a step of another run has.
    WaitingForLock {
        /// The step.
        step: &'a str,
        /// The lock's name.
        lock: &'a str,
    },
    /// The memory of a step cannot be bounded here.
    NotBounded {
        /// The step.
        step: &'a str,
        /// Why not.
        why: &'a std::io::Error,
    },
    /// A step failed and is tried again.
    Retrying {
        /// The step.
        step: &'a str,
        /// How many times it has been tried.
        attempt: u32,
        /// How many times it is tried at the most.
        attempts_max: u32,
        /// How it failed.
        failure: &'a Failure,
    },
    /// A step printed a line.
    Line {
        /// The step.
        step: &'a str,
        /// The line, without its end.
        line: &'a [u8],
    },
    /// A step looked for what others write without having waited for them. It is executed again after them.
    TooEarly {
        /// The step.
        step: &'a str,
        /// The others.
        others: Vec<&'a str>,
    },
    /// A step has written something else than what is known under the same key. Both results are kept.
    Contradiction {
        /// The step.
        step: &'a str,
        /// The key.
        key: StepKey,
        /// The outputs that differ, with their digests on record and now.
        outputs: Vec<Differing>,
    },
    /// A step is done with.
    Finished(&'a StepDone),
}

/// An output that is not what is known under the same key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differing {
    /// The output.
    pub path: ProjectPath,
    /// The digest on record.
    pub old: Digest,
    /// The digest now.
    pub new: Digest,
}

/// What happened to a step.
#[derive(Debug, Clone)]
pub struct StepDone {
    /// The step's name.
    pub step: String,
    /// What happened.
    pub verdict: StepVerdict,
    /// Why.
    pub reason: Reason,
    /// Its key, where it was reached.
    pub key: Option<StepKey>,
    /// What it was asked to do, where it was reached.
    pub task: Option<TaskKey>,
    /// How it was observed when it was executed; `None` if it was not.
    pub rung: Option<Rung>,
    /// Whether it was executed in namespaces of its own.
    pub isolated: bool,
    /// Whether it went on from what an attempt before had left in the paths that it keeps.
    pub resumed: bool,
    /// How its seed reached it, if it has one and was executed.
    pub seeding: Option<Seeding>,
    /// What it wrote.
    pub outputs: Vec<Output>,
    /// What it printed, in the store.
    pub log: Option<BlobId>,
    /// How long it took, the last attempt alone.
    pub elapsed: Duration,
    /// How many times it was executed.
    pub attempts: u32,
    /// Whom it talked to without its definition saying so. Then its result is not reused.
    pub talked: Vec<String>,
    /// How it failed, if it did.
    pub failure: Option<Failure>,
    /// The outputs that were on record under its key before it was executed again.
    pub recorded: Vec<Output>,
}

impl StepDone {
    pub(super) fn skipped(step: &str, reason: Reason) -> Self {
        Self {
            step: step.to_owned(),
            verdict: StepVerdict::Skipped,
            reason,
            key: None,
            task: None,
            rung: None,
            isolated: false,
            resumed: false,
            seeding: None,
            talked: Vec::new(),
            outputs: Vec::new(),
            log: None,
            elapsed: Duration::ZERO,
            attempts: 0,
            failure: None,
            recorded: Vec::new(),
        }
    }
}

/// Returns the outputs of both that are not the same.
pub(super) fn differing(old: &[Output], new: &[Output]) -> Vec<Differing> {
    let pairs = new.iter().filter_map(|new| Some((old.iter().find(|old| old.path == new.path)?, new)));
    pairs
        .filter(|(old, new)| old != new)
        .map(|(old, new)| Differing { path: new.path.clone(), old: old.digest, new: new.digest })
        .collect()
}
