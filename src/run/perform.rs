//! Carrying a run out: what is known is taken, the rest executed, and every result committed.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::RunError;
use super::commit::Committer;
use super::grant::Grant;
use super::judge::{Judged, Verdict, Work, plan};
use super::place::Place;
use super::reason::Reason;
use super::recipe::{Finished, ancestors};
use super::schedule::{Capacity, Schedule};
use super::select::{Role, Selection, refuse_unknown};
use super::step::{Executed, Failure, execute};
use super::turns::Shared;
use crate::disk::Lock;
use crate::exec::Stop;
use crate::host::Time;
use crate::object::{BlobId, StepKey};
use crate::record::{By, Output, Recipe, StepResult, StepVerdict};

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
    /// Which steps it is about.
    pub selection: &'a Selection,
    /// What there is for steps that are executed at once.
    pub capacity: &'a Capacity,
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
    /// A step is done with.
    Finished(&'a StepDone),
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
    /// What it wrote.
    pub outputs: Vec<Output>,
    /// What it printed, in the store.
    pub log: Option<BlobId>,
    /// How long it took, the last attempt alone.
    pub elapsed: Duration,
    /// How many times it was executed.
    pub attempts: u32,
    /// How it failed, if it did.
    pub failure: Option<Failure>,
    /// The outputs that were on record under its key before it was executed again.
    pub recorded: Vec<Output>,
}

/// What a run did.
#[derive(Debug)]
pub struct Performed {
    /// Each step that was selected, in the order of the definition.
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
    refuse_impossible(work, request)?;
    let place = Place::new(&work.view, request.places, request.stop);
    let committer = Committer::new(work.store, work.journal);
    let run = Running { work, request, observer, place: &place, committer: &committer };
    let shared = Shared::new(work, request.selection, Schedule::new(request.capacity));
    let jobs = (request.capacity.cpus as usize).clamp(1, work.pipeline.steps.len().max(1));
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
    let (mut done, error) = shared.into_results();
    let is_failed = |(index, done): (&usize, &StepDone)| (done.verdict == StepVerdict::Failed).then_some(*index);
    let failed: BTreeSet<usize> = done.iter().filter_map(is_failed).collect();
    let interrupted = request.stop.is_requested();
    place.close(!failed.is_empty())?;
    committed?;
    if let Some(error) = error {
        return Err(error);
    }
    let steps = work
        .pipeline
        .steps
        .iter()
        .enumerate()
        .filter(|(index, _)| request.selection.is_told(*index))
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
    pub(super) fn skipped(step: &str, reason: Reason) -> Self {
        Self {
            step: step.to_owned(),
            verdict: StepVerdict::Skipped,
            reason,
            key: None,
            outputs: Vec::new(),
            log: None,
            elapsed: Duration::ZERO,
            attempts: 0,
            failure: None,
            recorded: Vec::new(),
        }
    }
}

pub(super) struct Running<'a> {
    pub(super) work: &'a Work<'a>,
    pub(super) request: &'a Request<'a>,
    pub(super) observer: &'a (dyn Fn(Event<'_>) + Sync),
    place: &'a Place<'a>,
    committer: &'a Committer<'a>,
}

impl Running<'_> {
    pub(super) fn one(&self, index: usize, finished: &Finished, gpus: Vec<String>) -> Result<StepDone, RunError> {
        let step = &self.work.pipeline.steps[index];
        let role = self.request.selection.role(index);
        if role == Role::Again || (role == Role::Selected && self.request.mode == Mode::Replay) {
            let reason = if self.request.mode == Mode::Replay { Reason::Replay } else { Reason::Again };
            return self.anew(index, finished, reason, gpus);
        }
        if role == Role::Known {
            let key = super::recipe::recipe(self.work, index, finished)?.key();
            let known = self.work.known(key)?.ok_or_else(|| RunError::NotKnown { step: step.name.clone() })?;
            return Ok(self.reused(index, known, Reason::Unchanged));
        }
        let Judged { verdict, reason, recipe } = self.work.judge(index, finished)?;
        let recipe = recipe.expect("every step before this one is finished");
        match verdict {
            Verdict::Reuse(result) => Ok(self.reused(index, *result, reason)),
            Verdict::Run if !step.cache => self.anew(index, finished, reason, gpus),
            Verdict::Run => match self.grant(index, gpus)? {
                None => Ok(StepDone::skipped(&step.name, Reason::Stopped)),
                Some(mut grant) => match self.claim(index, recipe.key())? {
                    Claim::Mine(lock) => self.attempts(index, finished, &recipe, reason, Some(lock), &mut grant),
                    Claim::Known(result) => Ok(self.reused(index, *result, Reason::TakenFromOther)),
                    Claim::Stopped => Ok(StepDone::skipped(&recipe.step, Reason::Stopped)),
                },
            },
        }
    }

    /// Executes a step whether or not its result is known.
    fn anew(&self, index: usize, finished: &Finished, reason: Reason, gpus: Vec<String>) -> Result<StepDone, RunError> {
        let recipe = super::recipe::recipe(self.work, index, finished)?;
        let known = self.work.journal.results(recipe.key())?.into_iter().next();
        let Some(mut grant) = self.grant(index, gpus)? else {
            return Ok(StepDone::skipped(&recipe.step, Reason::Stopped));
        };
        let done = self.attempts(index, finished, &recipe, reason, None, &mut grant)?;
        Ok(StepDone { recorded: known.map(|(_, result)| result.outputs).unwrap_or_default(), ..done })
    }

    /// Gets what a step asks for of the machine; `None` if the run is to stop.
    fn grant(&self, index: usize, gpus: Vec<String>) -> Result<Option<Grant>, RunError> {
        let step = &self.work.pipeline.steps[index];
        if let Some(shortage) = self.request.capacity.shortage(&step.resources) {
            return Err(RunError::Shortage { step: step.name.clone(), shortage });
        }
        Grant::get(step, gpus, self.request.locks, self.request.stop, self.observer)
    }

    /// Executes a step, and again after it failed as often as its `retries` say.
    fn attempts(
        &self,
        index: usize,
        finished: &Finished,
        recipe: &Recipe,
        reason: Reason,
        mut lock: Option<Lock>,
        grant: &mut Grant,
    ) -> Result<StepDone, RunError> {
        let step = &self.work.pipeline.steps[index];
        let is_claimed = lock.is_some();
        let attempts_max = step.retries + 1;
        let mut attempt = 1;
        loop {
            grant.bound_memory(step, self.observer);
            let mut done = self.execute(index, finished, recipe, reason.clone(), lock.take(), grant)?;
            done.attempts = attempt;
            grant.tell_if_unbounded(step, self.observer);
            let Some(failure) = done.failure.as_ref().filter(|_| attempt < attempts_max) else { return Ok(done) };
            if self.request.stop.is_requested() {
                return Ok(done);
            }
            (self.observer)(Event::Retrying { step: &step.name, attempt, attempts_max, failure });
            attempt += 1;
            self.place.forget(&step.name)?;
            if is_claimed {
                match self.claim(index, recipe.key())? {
                    Claim::Mine(mine) => lock = Some(mine),
                    Claim::Known(result) => return Ok(self.reused(index, *result, Reason::TakenFromOther)),
                    Claim::Stopped => return Ok(done),
                }
            }
        }
    }

    fn reused(&self, index: usize, result: StepResult, reason: Reason) -> StepDone {
        StepDone {
            step: self.work.pipeline.steps[index].name.clone(),
            verdict: StepVerdict::Reused,
            reason,
            key: Some(result.key),
            outputs: result.outputs,
            log: result.log,
            elapsed: Duration::ZERO,
            attempts: 0,
            failure: None,
            recorded: Vec::new(),
        }
    }

    /// Gets the right to execute the step with this key, or the result that another run leaves meanwhile.
    fn claim(&self, index: usize, key: StepKey) -> Result<Claim, RunError> {
        let path = self.request.locks.join(key.to_string());
        let mut told = false;
        loop {
            if let Some(lock) = Lock::try_exclusive(&path)? {
                // It may have been committed between our look and our lock.
                return Ok(match self.work.known(key)? {
                    Some(result) => {
                        lock.remove();
                        Claim::Known(Box::new(result))
                    }
                    None => Claim::Mine(lock),
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
        recipe: &Recipe,
        reason: Reason,
        lock: Option<Lock>,
        grant: &Grant,
    ) -> Result<StepDone, RunError> {
        let step = &self.work.pipeline.steps[index];
        (self.observer)(Event::Started { step: &step.name, reason: &reason });
        let room = self.place.prepare(&step.name, &ancestors(self.work, index), finished)?;
        let started = Time::now();
        let mut on_line = |line: &[u8]| (self.observer)(Event::Line { step: &step.name, line });
        let Executed { outputs, log, elapsed, failure, interrupted } =
            execute(self.work.store, step, recipe, &room, grant, &mut on_line, self.request.stop)?;
        if interrupted {
            return Ok(StepDone { log, elapsed, ..StepDone::skipped(&step.name, Reason::Interrupted) });
        }
        self.place.executed(index);
        if failure.is_none() {
            self.place.take_back(room)?;
        }
        let key = recipe.key();
        let verdict = if failure.is_some() { StepVerdict::Failed } else { StepVerdict::Ran };
        if failure.is_none() {
            let result = StepResult {
                key,
                recipe: recipe.clone(),
                outputs: outputs.clone(),
                log,
                started,
                elapsed_ms: milliseconds(elapsed),
                by: self.request.by.clone(),
            };
            self.keep(result, lock)?;
        }
        Ok(StepDone {
            step: step.name.clone(),
            verdict,
            reason,
            key: Some(key),
            outputs,
            log,
            elapsed,
            attempts: 1,
            failure,
            recorded: Vec::new(),
        })
    }

    /// Commits a result, unless the same outputs are known under its key already.
    fn keep(&self, result: StepResult, lock: Option<Lock>) -> Result<(), RunError> {
        // Without a lock it is executed although its result may be known.
        let on_record = lock.is_none()
            && self.work.journal.results(result.key)?.iter().any(|(_, known)| known.outputs == result.outputs);
        if !on_record {
            self.committer.push(result, lock);
        }
        Ok(())
    }
}

/// Refuses a run that cannot come to its end, before anything is executed.
///
/// A step whose result is known needs nothing of the machine.
fn refuse_impossible(work: &Work<'_>, request: &Request<'_>) -> Result<(), RunError> {
    let (selection, capacity) = (request.selection, request.capacity);
    let steps = work.pipeline.steps.iter().enumerate().filter(|(index, _)| selection.is_told(*index));
    let short: Vec<_> = steps.filter_map(|(index, step)| Some((index, capacity.shortage(&step.resources)?))).collect();
    if short.is_empty() && !selection.relies_on_known() {
        return Ok(());
    }
    let judged = plan(work)?;
    refuse_unknown(work.pipeline, selection, &judged)?;
    for (index, shortage) in short {
        let anyway = request.mode == Mode::Replay || selection.role(index) == Role::Again;
        if anyway || judged[index].verdict == Verdict::Run {
            return Err(RunError::Shortage { step: work.pipeline.steps[index].name.clone(), shortage });
        }
    }
    Ok(())
}

/// Returns an amount of memory as a definition would say it: `50 MiB`.
pub(super) fn memory_text(bytes: u64) -> String {
    let unit = [("GiB", 30), ("MiB", 20), ("KiB", 10)].into_iter().find(|(_, shift)| bytes.trailing_zeros() >= *shift);
    unit.map_or_else(|| format!("{bytes} bytes"), |(unit, shift)| format!("{} {unit}", bytes >> shift))
}

enum Claim {
    Mine(Lock),
    Known(Box<StepResult>),
    Stopped,
}

pub(super) fn milliseconds(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
