//! Carrying a run out: steps in parallel, each as soon as those before it are done.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use super::RunError;
use super::commit::Committer;
use super::judge::{Before, Judged, Verdict, Work};
use super::place::Place;
use super::reason::Reason;
use super::recipe::{Finished, ancestors};
use super::settle::{Settled, settle};
use super::step::{Executed, Failure, execute};
use crate::disk::Lock;
use crate::exec::{Rung, Stop};
use crate::hash::Digest;
use crate::host::Time;
use crate::object::{BlobId, StepKey, TaskKey};
use crate::path::ProjectPath;
use crate::record::{By, Output, StepResult, StepVerdict};
use crate::snapshot::SnapshotError;

/// How long a run waits before it looks again whether another one has left a result.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How known results are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// A known result is taken.
    Reuse,
    /// Every step is executed.
    Replay,
}

/// How a run is to be carried out.
pub struct Request<'a> {
    /// Whether known results are taken.
    pub mode: Mode,
    /// How many steps may be executed at once.
    pub jobs: usize,
    /// Whether steps that do not need a failed one still run.
    pub keep_going: bool,
    /// Where clean places are made.
    pub places: &'a Path,
    /// Where the locks of steps lie.
    pub locks: &'a Path,
    /// Who is behind it.
    pub by: By,
    /// Whether the user asked to stop.
    pub stop: &'a Stop,
}

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
    /// A step waits for another run that executes it.
    Waiting {
        /// The step.
        step: &'a str,
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
    /// What it wrote.
    pub outputs: Vec<Output>,
    /// What it printed, in the store.
    pub log: Option<BlobId>,
    /// How long it took.
    pub elapsed: Duration,
    /// How it failed, if it did.
    pub failure: Option<Failure>,
    /// The outputs that were on record under its key before it was executed again.
    pub recorded: Vec<Output>,
}

/// What a run did.
#[derive(Debug)]
pub struct Performed {
    /// Each step, in the order of the definition.
    pub steps: Vec<StepDone>,
    /// Whether the user stopped it.
    pub interrupted: bool,
}

/// Executes the steps of a pipeline, or takes what is known, and commits the results.
///
/// When this returns, every result is durable. Steps that fail are in the answer, not an error.
///
/// # Errors
///
/// [`RunError`] if something other than a step fails; what was finished before is committed all the same.
pub fn perform(
    work: &Work<'_>,
    request: &Request<'_>,
    observer: &(dyn Fn(Event<'_>) + Sync),
) -> Result<Performed, RunError> {
    let place = Place::new(&work.view, request.places, request.stop);
    let committer = Committer::new(work.store, work.journal);
    let run = Running { work, request, observer, place: &place, committer: &committer };
    let shared = Shared { state: Mutex::new(State::new(work)), changed: Condvar::new() };
    let jobs = request.jobs.clamp(1, work.pipeline.steps.len().max(1));
    let committed = std::thread::scope(|scope| {
        let serving = scope.spawn(|| committer.serve());
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(|| run.take_steps(&shared))).collect();
        for worker in workers {
            if let Err(panic) = worker.join() {
                committer.close();
                std::panic::resume_unwind(panic);
            }
        }
        committer.close();
        serving.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    let state = shared.state.into_inner().expect("no holder panics");
    let is_failed = |(index, done): (&usize, &StepDone)| (done.verdict == StepVerdict::Failed).then_some(*index);
    let failed: BTreeSet<usize> = state.done.iter().filter_map(is_failed).collect();
    let interrupted = request.stop.is_requested();
    place.close(!failed.is_empty())?;
    committed?;
    work.remember()?;
    if let Some(error) = state.error {
        return Err(error);
    }
    let mut done = state.done;
    let steps = work
        .pipeline
        .steps
        .iter()
        .enumerate()
        .map(|(index, step)| match done.remove(&index) {
            Some(done) => done,
            None => StepDone::skipped(&step.name, why_skipped(work, index, &failed)),
        })
        .collect();
    Ok(Performed { steps, interrupted })
}

fn why_skipped(work: &Work<'_>, index: usize, failed: &BTreeSet<usize>) -> Reason {
    match ancestors(work, index).intersection(failed).next() {
        Some(failed) => Reason::Needs(work.pipeline.steps[*failed].name.clone()),
        None => Reason::Stopped,
    }
}

impl StepDone {
    fn skipped(step: &str, reason: Reason) -> Self {
        Self {
            step: step.to_owned(),
            verdict: StepVerdict::Skipped,
            reason,
            key: None,
            task: None,
            rung: None,
            isolated: false,
            outputs: Vec::new(),
            log: None,
            elapsed: Duration::ZERO,
            failure: None,
            recorded: Vec::new(),
        }
    }
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Positions in the order, of steps that nobody has taken up.
    open: BTreeSet<usize>,
    /// Steps whose turn has come; one that comes again is not told again.
    reached: BTreeSet<usize>,
    done: BTreeMap<usize, StepDone>,
    error: Option<RunError>,
    /// No further step is taken up.
    halted: bool,
}

impl State {
    fn new(work: &Work<'_>) -> Self {
        Self {
            open: (0..work.graph.order.len()).collect(),
            reached: BTreeSet::new(),
            done: BTreeMap::new(),
            error: None,
            halted: false,
        }
    }

    /// Returns the first step whose predecessors are all done with, and the one among them that did not succeed.
    fn next(&mut self, work: &Work<'_>) -> Option<(usize, Option<String>)> {
        let ready = self.open.iter().copied().find(|position| {
            work.dependencies(work.graph.order[*position]).iter().all(|other| self.done.contains_key(other))
        })?;
        self.open.remove(&ready);
        let index = work.graph.order[ready];
        let failed = work
            .dependencies(index)
            .iter()
            .map(|other| &self.done[other])
            .find(|done| matches!(done.verdict, StepVerdict::Failed | StepVerdict::Skipped))
            .map(|done| done.step.clone());
        Some((index, failed))
    }

    /// Returns the outputs of the steps `before`, all of which are done with.
    fn finished(&self, before: &BTreeSet<usize>) -> Finished {
        let outputs = |index: &usize| Some((*index, self.done.get(index)?.outputs.clone()));
        before.iter().filter_map(outputs).collect()
    }
}

struct Running<'a> {
    work: &'a Work<'a>,
    request: &'a Request<'a>,
    observer: &'a (dyn Fn(Event<'_>) + Sync),
    place: &'a Place<'a>,
    committer: &'a Committer<'a>,
}

impl Running<'_> {
    /// Takes up one step after the other until none is left.
    fn take_steps(&self, shared: &Shared) {
        let mut state = shared.state.lock().expect("no holder panics");
        loop {
            if state.halted || state.open.is_empty() || self.request.stop.is_requested() {
                shared.changed.notify_all();
                return;
            }
            let Some((index, failed)) = state.next(self.work) else {
                // Every open step waits for one that another thread has.
                state = shared.changed.wait(state).expect("no holder panics");
                continue;
            };
            let step = &self.work.pipeline.steps[index];
            if let Some(failed) = failed {
                state.done.insert(index, StepDone::skipped(&step.name, Reason::Needs(failed)));
                shared.changed.notify_all();
                continue;
            }
            // Told under the lock, so that the order of the lines is the order of the steps.
            if state.reached.insert(index) {
                (self.observer)(Event::Reached { step: &step.name, description: step.description.as_deref() });
            }
            let finished = state.finished(&ancestors(self.work, index));
            drop(state);
            let result = self.one(index, &finished);
            state = shared.state.lock().expect("no holder panics");
            match result {
                Ok(Outcome::TooEarly) => drop(state.open.insert(position(self.work, index))),
                Ok(Outcome::Done(done)) => {
                    (self.observer)(Event::Finished(&done));
                    state.halted |= done.verdict == StepVerdict::Failed && !self.request.keep_going;
                    state.done.insert(index, *done);
                }
                // Being asked to stop is no error: the run tells how far it came.
                Err(RunError::Snapshot(SnapshotError::Stopped)) => state.halted = true,
                Err(error) => {
                    state.halted = true;
                    state.error.get_or_insert(error);
                }
            }
            shared.changed.notify_all();
        }
    }

    fn one(&self, index: usize, finished: &Finished) -> Result<Outcome, RunError> {
        let Judged { verdict, reason, .. } = self.work.judge(index, finished)?;
        if self.request.mode == Mode::Replay {
            return Ok(match self.execute(index, finished, Reason::Replay, None)? {
                Outcome::Done(done) if done.recorded.is_empty() => {
                    let known = if let Verdict::Reuse(result) = verdict { result.outputs } else { Vec::new() };
                    Outcome::done(StepDone { recorded: known, ..*done })
                }
                outcome => outcome,
            });
        }
        match verdict {
            Verdict::Reuse(result) => Ok(Outcome::done(self.reused(index, *result, reason))),
            Verdict::Run => match self.claim(index, finished)? {
                Claim::Mine(lock) => self.execute(index, finished, reason, Some(lock)),
                Claim::Known(result) => Ok(Outcome::done(self.reused(index, *result, Reason::TakenFromOther))),
                Claim::Stopped => {
                    Ok(Outcome::done(StepDone::skipped(&self.work.pipeline.steps[index].name, Reason::Stopped)))
                }
            },
        }
    }

    fn reused(&self, index: usize, result: StepResult, reason: Reason) -> StepDone {
        StepDone {
            step: self.work.pipeline.steps[index].name.clone(),
            verdict: StepVerdict::Reused,
            reason,
            key: Some(result.key),
            task: result.task(),
            rung: result.observed.as_ref().map(|observed| observed.rung),
            isolated: result.observed.as_ref().is_some_and(|observed| observed.isolated),
            outputs: result.outputs,
            log: result.log,
            elapsed: Duration::ZERO,
            failure: None,
            recorded: Vec::new(),
        }
    }

    /// Gets the right to execute the step, or the result that another run leaves meanwhile.
    ///
    /// What is locked is what the step is asked to do: its key is known only after it has run.
    fn claim(&self, index: usize, finished: &Finished) -> Result<Claim, RunError> {
        let task = self.work.before(index, finished)?.task;
        let path = self.request.locks.join(task.to_string());
        let mut told = false;
        loop {
            if let Some(lock) = Lock::try_exclusive(&path)? {
                // It may have been committed between our look and our lock.
                return Ok(match self.work.judge(index, finished)?.verdict {
                    Verdict::Reuse(result) => {
                        lock.remove();
                        Claim::Known(result)
                    }
                    Verdict::Run => Claim::Mine(lock),
                });
            }
            if !told {
                (self.observer)(Event::Waiting { step: &self.work.pipeline.steps[index].name });
                told = true;
            }
            if self.request.stop.wait(LOOK_AGAIN) {
                return Ok(Claim::Stopped);
            }
        }
    }

    fn execute(
        &self,
        index: usize,
        finished: &Finished,
        reason: Reason,
        lock: Option<Lock>,
    ) -> Result<Outcome, RunError> {
        let step = &self.work.pipeline.steps[index];
        (self.observer)(Event::Started { step: &step.name, reason: &reason });
        let before = self.work.before(index, finished)?;
        let room = self.place.prepare(&step.name, &ancestors(self.work, index), finished)?;
        let started = Time::now();
        let mut on_line = |line: &[u8]| (self.observer)(Event::Line { step: &step.name, line });
        let Executed { outputs, log, elapsed, failure, interrupted } =
            execute(self.work.store, step, &before.asked, &room, &mut on_line, self.request.stop)?;
        if interrupted {
            return Ok(Outcome::done(StepDone { log, elapsed, ..StepDone::skipped(&step.name, Reason::Interrupted) }));
        }
        let Settled { recipe, observed, too_early } = settle(self.work, index, &before, None)?;
        if !too_early.is_empty() {
            self.again_after(index, too_early);
            return Ok(Outcome::TooEarly);
        }
        self.place.executed(index);
        if failure.is_none() {
            self.place.take_back(room)?;
        }
        let mut done = StepDone {
            step: step.name.clone(),
            verdict: if failure.is_some() { StepVerdict::Failed } else { StepVerdict::Ran },
            reason,
            key: Some(recipe.key()),
            task: Some(before.task),
            rung: observed.as_ref().map(|observed| observed.rung),
            isolated: observed.as_ref().is_some_and(|observed| observed.isolated),
            outputs,
            log,
            elapsed,
            failure,
            recorded: Vec::new(),
        };
        if done.failure.is_none() {
            let result = StepResult {
                key: recipe.key(),
                recipe,
                outputs: done.outputs.clone(),
                log,
                started,
                elapsed_ms: milliseconds(elapsed),
                by: self.request.by.clone(),
                observed,
            };
            done.recorded = self.keep(&before, result, lock)?;
        }
        Ok(Outcome::done(done))
    }

    /// Lets a step wait for `others` whose outputs it looked for.
    fn again_after(&self, index: usize, others: BTreeSet<usize>) {
        let name = |index: usize| self.work.pipeline.steps[index].name.as_str();
        let names = others.iter().map(|other| name(*other)).collect();
        (self.observer)(Event::TooEarly { step: name(index), others: names });
        self.work.learn(index, others);
    }

    /// Commits a result, unless the same outputs are known under its key already. Returns the outputs that were on record in a replay.
    fn keep(&self, before: &Before<'_, '_>, result: StepResult, lock: Option<Lock>) -> Result<Vec<Output>, RunError> {
        let known = self.work.journal.results(Some(before.task), result.key)?;
        let is_on_record = known.iter().any(|(_, known)| known.outputs == result.outputs);
        if let Some((_, other)) = known.last().filter(|_| !is_on_record) {
            let outputs = differing(&other.outputs, &result.outputs);
            (self.observer)(Event::Contradiction { step: &result.recipe.step, key: result.key, outputs });
        }
        // What was reused before is worth committing again: its outputs were gone, or it was refused.
        if !is_on_record || self.request.mode == Mode::Reuse {
            self.committer.push(result, lock);
            self.work.note_behind(before.task);
        }
        let is_compared = self.request.mode == Mode::Replay;
        Ok(known.into_iter().next().filter(|_| is_compared).map(|(_, first)| first.outputs).unwrap_or_default())
    }
}

fn differing(old: &[Output], new: &[Output]) -> Vec<Differing> {
    let pairs = new.iter().filter_map(|new| Some((old.iter().find(|old| old.path == new.path)?, new)));
    pairs
        .filter(|(old, new)| old != new)
        .map(|(old, new)| Differing { path: new.path.clone(), old: old.digest, new: new.digest })
        .collect()
}

/// Returns where a step stands in the order.
fn position(work: &Work<'_>, index: usize) -> usize {
    work.graph.order.iter().position(|other| *other == index).expect("every step is in the order")
}

/// What came of a step's turn.
enum Outcome {
    /// It is done with.
    Done(Box<StepDone>),
    /// It looked for what others write, and comes again after them.
    TooEarly,
}

impl Outcome {
    fn done(done: StepDone) -> Self {
        Self::Done(Box::new(done))
    }
}

enum Claim {
    Mine(Lock),
    Known(Box<StepResult>),
    Stopped,
}

pub(super) fn milliseconds(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
