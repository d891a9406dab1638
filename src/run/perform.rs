//! Carrying a run out: steps in parallel, each as soon as those before it are done.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use super::RunError;
use super::commit::Committer;
use super::earlier::Finished;
use super::event::{Event, StepDone, differing};
use super::grant::Grant;
use super::image::{image_of, refuse_unprovided, runtime_of};
use super::judge::{Before, Judged, Verdict, Work, plan};
use super::keep::{self, Keep};
use super::kept::{self, Failed};
use super::leftovers::Leftovers;
use super::missing::Hint;
use super::place::{Left, Place, Provided, Room};
use super::python;
use super::reason::Reason;
use super::schedule::{Capacity, Schedule};
use super::select::{Role, Selection, refuse_unknown};
use super::settle::{Settled, Sighting, settle};
use super::shown::{Around, hints, may_read, shown};
use super::step::{Executed, execute, variables};
use super::turns::{Results, Shared, Turn};
use crate::disk::Claim;
use crate::exec::{Observation, Permission, Stop};
use crate::host::Time;
use crate::path::ProjectPath;
use crate::pipeline::Step;
use crate::record::{By, Output, StepResult, StepVerdict};

/// How long a run waits before it looks again whether another one has left a result.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The file among the locks in which tasks are claimed that are executed.
const CLAIMS: &str = "claims";

/// Where an isolated step has its shared memory.
const SHARED_MEMORY: &str = "/dev/shm";

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
    /// The user's working tree, if the run is of what lies there.
    pub tree: Option<&'a Path>,
    /// Where clean places are made.
    pub places: &'a Path,
    /// Where the locks of steps lie.
    pub locks: &'a Path,
    /// Who is behind it.
    pub by: By,
    /// Whether the user asked to stop.
    pub stop: &'a Stop,
}

/// What a run did.
#[derive(Debug)]
pub struct Performed {
    /// Each step that was selected, in the order of the definition.
    pub steps: Vec<StepDone>,
    /// Whether the user stopped it.
    pub interrupted: bool,
    /// The files of the steps that were executed, until this is dropped.
    pub leftovers: Leftovers,
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
    let place = Place::new(&work.view, work.name, request.places, request.stop);
    let committer = Committer::new(work.store, work.journal);
    let run = Running { work, request, observer, place: &place, committer: &committer, strays: Mutex::default() };
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
    let Results { mut done, error, told } = shared.into_results();
    let is_failed = |(index, done): (&usize, &StepDone)| (done.verdict == StepVerdict::Failed).then_some(*index);
    let failed: BTreeSet<usize> = done.iter().filter_map(is_failed).collect();
    let interrupted = request.stop.is_requested();
    let ran = done.iter().filter(|(_, done)| done.verdict == StepVerdict::Ran);
    let ran: Vec<(usize, &[Output])> = ran.map(|(index, done)| (*index, done.outputs.as_slice())).collect();
    let leftovers = place.close(!failed.is_empty(), &ran)?;
    if !ran.is_empty() {
        let ran = ran.iter().map(|(index, _)| work.pipeline.steps[*index].name.as_str()).collect();
        kept::forget(request.places, work.name, &ran);
    }
    committed?;
    work.remember()?;
    if let Some(error) = error {
        return Err(error);
    }
    let steps = work
        .pipeline
        .steps
        .iter()
        .enumerate()
        .filter(|(index, _)| told.contains(index))
        .map(|(index, step)| match done.remove(&index) {
            Some(done) => done,
            None => StepDone::skipped(&step.name, why_skipped(work, index, &failed)),
        })
        .collect();
    Ok(Performed { steps, interrupted, leftovers })
}

fn why_skipped(work: &Work<'_>, index: usize, failed: &BTreeSet<usize>) -> Reason {
    let before = work.ancestors(index);
    match failed.iter().find(|other| before.contains(**other)) {
        Some(failed) => Reason::Needs(work.pipeline.steps[*failed].name.clone()),
        None => Reason::Stopped,
    }
}

pub(super) struct Running<'a> {
    pub(super) work: &'a Work<'a>,
    pub(super) request: &'a Request<'a>,
    pub(super) observer: &'a (dyn Fn(Event<'_>) + Sync),
    place: &'a Place<'a>,
    committer: &'a Committer<'a>,
    /// What steps of this run wrote without declaring it, and which.
    strays: Mutex<BTreeMap<ProjectPath, String>>,
}

impl Running<'_> {
    pub(super) fn one(&self, turn: &Turn, finished: &Finished) -> Result<Outcome, RunError> {
        let index = turn.index;
        let step = &self.work.pipeline.steps[index];
        let before = self.work.before(index, finished)?;
        if turn.role == Role::Known {
            let known = self.work.reusable(&before)?.ok_or_else(|| RunError::NotKnown { step: step.name.clone() })?;
            let reason = self.work.unchanged(&known);
            return Ok(Outcome::done(self.reused(index, *known, reason)));
        }
        let is_replay = self.request.mode == Mode::Replay;
        let Judged { verdict, reason, .. } = self.work.judge_in(&before)?;
        if is_replay || turn.role == Role::Again {
            let reason = if is_replay { Reason::Replay } else { Reason::Again };
            return Ok(match self.anew(turn, finished, &before, reason)? {
                Outcome::Done(done) if done.recorded.is_empty() => {
                    let known = if let Verdict::Reuse(result) = verdict { result.outputs } else { Vec::new() };
                    Outcome::done(StepDone { recorded: known, ..*done })
                }
                outcome => outcome,
            });
        }
        // A step that comes again was not judged wrongly the first time.
        let reason =
            Some(self.work.learnt(index)).filter(|others| !others.is_empty()).map_or(reason, Reason::ReadTooEarly);
        match verdict {
            Verdict::Reuse(result) => {
                let reason = self.work.unchanged(&result);
                Ok(Outcome::done(self.reused(index, *result, reason)))
            }
            Verdict::Run if !step.cache => self.anew(turn, finished, &before, reason),
            Verdict::Run => match self.grant(turn)? {
                None => Ok(Outcome::done(StepDone::skipped(&step.name, Reason::Stopped))),
                Some(mut grant) => match self.claim(index, &before)? {
                    Claimed::Mine(claim) => self.attempts(index, finished, &before, reason, Some(claim), &mut grant),
                    Claimed::Known(result) => Ok(Outcome::done(self.reused(index, *result, Reason::TakenFromOther))),
                    Claimed::Stopped => Ok(Outcome::done(StepDone::skipped(&step.name, Reason::Stopped))),
                },
            },
        }
    }

    /// Executes a step whether or not its result is known.
    fn anew(
        &self,
        turn: &Turn,
        finished: &Finished,
        before: &Before<'_, '_>,
        reason: Reason,
    ) -> Result<Outcome, RunError> {
        match self.grant(turn)? {
            Some(mut grant) => self.attempts(turn.index, finished, before, reason, None, &mut grant),
            None => {
                let step = &self.work.pipeline.steps[turn.index];
                Ok(Outcome::done(StepDone::skipped(&step.name, Reason::Stopped)))
            }
        }
    }

    /// Gets what a step asks for of the machine; `None` if the run is to stop.
    fn grant(&self, turn: &Turn) -> Result<Option<Grant>, RunError> {
        let step = &self.work.pipeline.steps[turn.index];
        if let Some(shortage) = self.request.capacity.shortage(&step.resources) {
            return Err(RunError::Shortage { step: step.name.clone(), shortage });
        }
        Grant::get(step, turn.gpus.clone(), self.request.locks, self.request.stop, self.observer)
    }

    /// Executes a step, and again after it failed as often as its `retries` say.
    fn attempts(
        &self,
        index: usize,
        finished: &Finished,
        before: &Before<'_, '_>,
        reason: Reason,
        mut claim: Option<Claim>,
        grant: &mut Grant,
    ) -> Result<Outcome, RunError> {
        let step = &self.work.pipeline.steps[index];
        let is_claimed = claim.is_some();
        let attempts_max = step.retries + 1;
        let mut attempt = 1;
        loop {
            grant.bound_memory(step, self.observer);
            let mut done = match self.execute(index, finished, before, reason.clone(), claim.take(), grant)? {
                Outcome::Done(done) => done,
                Outcome::TooEarly => return Ok(Outcome::TooEarly),
            };
            done.attempts = attempt;
            grant.tell_if_unbounded(step, self.observer);
            let Some(failure) = done.failure.as_ref().filter(|_| attempt < attempts_max) else {
                return Ok(Outcome::Done(done));
            };
            if self.request.stop.is_requested() {
                return Ok(Outcome::Done(done));
            }
            (self.observer)(Event::Retrying { step: &step.name, attempt, attempts_max, failure });
            attempt += 1;
            if is_claimed {
                match self.claim(index, before)? {
                    Claimed::Mine(mine) => claim = Some(mine),
                    Claimed::Known(result) => {
                        return Ok(Outcome::done(self.reused(index, *result, Reason::TakenFromOther)));
                    }
                    Claimed::Stopped => return Ok(Outcome::Done(done)),
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
            task: result.task(),
            rung: result.observed.as_ref().map(|observed| observed.rung),
            isolated: result.observed.as_ref().is_some_and(|observed| observed.isolated),
            resumed: result.observed.as_ref().is_some_and(|observed| observed.resumed),
            seeding: result.observed.as_ref().and_then(|observed| observed.seeding.clone()),
            talked: Vec::new(),
            outputs: result.outputs,
            log: result.log,
            elapsed: Duration::ZERO,
            attempts: 0,
            failure: None,
            recorded: Vec::new(),
        }
    }

    /// Gets the right to execute the step, or the result that another run leaves meanwhile.
    ///
    /// What is claimed is what the step is asked to do: its key is known only after it has run.
    fn claim(&self, index: usize, before: &Before<'_, '_>) -> Result<Claimed, RunError> {
        let (path, number) = (self.request.locks.join(CLAIMS), before.task.digest().number());
        let mut told = false;
        loop {
            if let Some(claim) = Claim::try_take(&path, number)? {
                // It may have been committed between our look and our claim.
                return Ok(match self.work.reusable(before)? {
                    Some(result) => Claimed::Known(result),
                    None => Claimed::Mine(claim),
                });
            }
            if !told {
                (self.observer)(Event::Waiting { step: &self.work.pipeline.steps[index].name });
                told = true;
            }
            if self.request.stop.wait(LOOK_AGAIN) {
                return Ok(Claimed::Stopped);
            }
        }
    }

    fn execute(
        &self,
        index: usize,
        finished: &Finished,
        before: &Before<'_, '_>,
        reason: Reason,
        claim: Option<Claim>,
        grant: &Grant,
    ) -> Result<Outcome, RunError> {
        let step = &self.work.pipeline.steps[index];
        (self.observer)(Event::Started { step: &step.name, reason: &reason });
        let earlier: BTreeSet<usize> = self.work.ancestors(index).iter().collect();
        let (shown, provided) = (shown(step), provided(self.work, index));
        let room = self.place.prepare(index, step, &earlier, finished, shown.as_ref(), provided)?;
        if let Some(why) = self.place.untold_reason() {
            (self.observer)(Event::NotIsolated { why: &why });
        }
        let strip = || {
            room.keep.iter().try_for_each(Keep::move_out)?;
            self.place.strip(&room, step, &earlier)
        };
        let resumed = room.keep.as_ref().is_some_and(|keep| keep.resumed);
        let started = Time::now();
        let mut on_line = |line: &[u8]| (self.observer)(Event::Line { step: &step.name, line });
        let may_read = |path: &Path| may_read(path, before.machine.rules());
        // What an image has is environment, whatever it is called.
        let permission = shown.as_ref().filter(|_| provided.image.is_none()).map(|_| &may_read as &Permission<'_>);
        let Executed { outputs, log, elapsed, mut failure, interrupted, observation, writes } = execute(
            self.work.store,
            step,
            &before.asked,
            &room,
            grant,
            permission,
            &strip,
            &mut on_line,
            self.request.stop,
            None,
        )?;
        room.keep.iter().try_for_each(Keep::move_out)?;
        if interrupted {
            return Ok(Outcome::done(StepDone { log, elapsed, ..StepDone::skipped(&step.name, Reason::Interrupted) }));
        }
        let private = [&*room.home, &*room.temporary, Path::new(SHARED_MEMORY), &*python::directory()];
        let sighting = Sighting { observation: &observation, workplace: &room.tree, private: &private };
        let Settled { recipe, mut observed, too_early } = settle(self.work, index, before, Some(sighting))?;
        if let Some(observed) = observed.as_mut().filter(|observed| observed.isolated) {
            // Its layer tells better than its calls: what it wrote and removed again is in neither.
            observed.writes.retain(|path| path.starts_with('/'));
            observed.writes.extend(writes.iter().map(ToString::to_string));
        }
        if let Some(observed) = &mut observed {
            observed.resumed = resumed;
        }
        // What was made of other inputs is of no use, and what has come to its end is not taken up again.
        if let Some(keep) = room.keep.as_ref().filter(|_| failure.is_none() || !too_early.is_empty()) {
            keep.forget()?;
        }
        if !too_early.is_empty() {
            self.place.take_back(room, Left::Unknown)?;
            self.again_after(index, &too_early);
            return Ok(Outcome::TooEarly);
        }
        if room.elsewhere.is_none() {
            self.place.executed(index);
        }
        self.strays.lock().expect("no holder panics").extend(writes.into_iter().map(|path| (path, step.name.clone())));
        match &mut failure {
            Some(failure) => {
                failure.hints = self.hints(step, &room, &failure.tail, shown.as_ref(), before, &observation);
                self.note(step, &room, before, grant, &failure.how)?;
            }
            None => {
                let is_strange = |path: &String| !path.starts_with('/');
                let is_known = observation.is_complete()
                    && observed.as_ref().is_some_and(|observed| !observed.writes.iter().any(is_strange));
                self.place.take_back(room, if is_known { Left::Outputs(index) } else { Left::Unknown })?;
            }
        }
        let unvouched = observed.as_ref().filter(|_| !step.network);
        let mut done = StepDone {
            step: step.name.clone(),
            verdict: if failure.is_some() { StepVerdict::Failed } else { StepVerdict::Ran },
            reason,
            key: Some(recipe.key()),
            task: Some(before.task),
            rung: observed.as_ref().map(|observed| observed.rung),
            isolated: observed.as_ref().is_some_and(|observed| observed.isolated),
            resumed,
            seeding: observed.as_ref().and_then(|observed| observed.seeding.clone()),
            talked: unvouched.map(|observed| observed.network.keys().cloned().collect()).unwrap_or_default(),
            outputs,
            log,
            elapsed,
            attempts: 1,
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
            done.recorded = self.keep(before, result, claim)?;
        }
        Ok(Outcome::done(done))
    }

    /// Notes how to come back to a step that has failed.
    fn note(
        &self,
        step: &Step,
        room: &Room,
        before: &Before<'_, '_>,
        grant: &Grant,
        how: &str,
    ) -> Result<(), RunError> {
        kept::note(Failed {
            pipeline: self.work.name,
            step,
            snapshot: self.work.view.snapshot().encode().0,
            how,
            variables: variables(&before.asked, grant, room),
            room,
        })
    }

    /// Returns what a step that failed looked for in vain and its author has.
    fn hints(
        &self,
        step: &Step,
        room: &Room,
        tail: &[String],
        shown: Option<&BTreeSet<ProjectPath>>,
        before: &Before<'_, '_>,
        observation: &Observation,
    ) -> Vec<Hint> {
        let around = Around {
            pipeline: self.work.pipeline,
            step,
            room,
            tail,
            rules: before.machine.rules(),
            tree: self.request.tree,
            shown,
            strays: &self.strays.lock().expect("no holder panics"),
        };
        hints(&around, before, observation)
    }

    /// Lets a step wait for `others` whose outputs it looked for.
    fn again_after(&self, index: usize, others: &BTreeSet<usize>) {
        let name = |index: usize| self.work.pipeline.steps[index].name.as_str();
        let names = others.iter().map(|other| name(*other)).collect();
        (self.observer)(Event::TooEarly { step: name(index), others: names });
        self.work.learn(index, others);
    }

    /// Commits a result, unless the same outputs are known under its key already. Returns the outputs that were on record in a replay.
    fn keep(&self, before: &Before<'_, '_>, result: StepResult, claim: Option<Claim>) -> Result<Vec<Output>, RunError> {
        let known = self.work.journal.results(Some(before.task), result.key)?;
        let is_on_record = known.iter().any(|(_, known)| known.outputs == result.outputs);
        if let Some((_, other)) = known.last().filter(|_| !is_on_record) {
            let outputs = differing(&other.outputs, &result.outputs);
            (self.observer)(Event::Contradiction { step: &result.recipe.step, key: result.key, outputs });
        }
        // What was reused before is worth committing again: its outputs were gone, or it was refused.
        if !is_on_record || claim.is_some() {
            self.committer.push(result, claim);
            self.work.note_behind(before.task);
        }
        let is_compared = self.request.mode == Mode::Replay;
        Ok(known.into_iter().next().filter(|_| is_compared).map(|(_, first)| first.outputs).unwrap_or_default())
    }
}

/// What came of a step's turn.
pub(super) enum Outcome {
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

/// Refuses a run that cannot come to its end, before anything is executed.
///
/// A step whose result is known needs nothing of the machine.
fn refuse_impossible(work: &Work<'_>, request: &Request<'_>) -> Result<(), RunError> {
    let (selection, capacity) = (request.selection, request.capacity);
    let steps = work.pipeline.steps.iter().enumerate().filter(|(index, _)| selection.is_told(*index));
    steps.clone().try_for_each(|(_, step)| keep::refuse_taken(&work.view, step))?;
    steps.clone().try_for_each(|(index, step)| {
        refuse_unprovided(work.pipeline, step, work.images, work.tools_of(index).venv())
    })?;
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

/// Returns the environment that is provided for the step at `index`.
pub(super) fn provided<'a>(work: &Work<'a>, index: usize) -> Provided<'a> {
    let Work { pipeline, images, .. } = work;
    let step = &pipeline.steps[index];
    let image = image_of(pipeline, step).and_then(|digest| images.get_key_value(digest));
    Provided { image, runtime: runtime_of(pipeline, step), venv: work.tools_of(index).venv() }
}

enum Claimed {
    Mine(Claim),
    Known(Box<StepResult>),
    Stopped,
}

pub(super) fn milliseconds(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
