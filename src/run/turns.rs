//! Whose turn it is: steps in parallel, each as soon as those before it are done and what it asks for is free.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex};

use super::RunError;
use super::earlier::Finished;
use super::event::{Event, StepDone};
use super::judge::Work;
use super::perform::{Outcome, Running};
use super::reason::Reason;
use super::schedule::Schedule;
use super::select::{Role, Selection};
use crate::record::StepVerdict;
use crate::snapshot::SnapshotError;

/// What became of the steps of a run.
pub(super) struct Results {
    /// Each step that was taken up and came to an end.
    pub(super) done: BTreeMap<usize, StepDone>,
    /// What went wrong beside them.
    pub(super) error: Option<RunError>,
    /// The steps that the run was about.
    pub(super) told: BTreeSet<usize>,
}

pub(super) struct Shared<'a> {
    state: Mutex<State<'a>>,
    /// What the steps wrote that are done with.
    finished: Finished,
    changed: Condvar,
}

struct State<'a> {
    /// Positions in the order, of steps that nobody has taken up although all before them are done with.
    ready: BTreeSet<usize>,
    /// How many of the steps before each step are not done with.
    waits_for: Vec<usize>,
    /// The steps that wait for each step.
    dependents: Vec<Vec<usize>>,
    /// Where each step stands in the order.
    positions: Vec<usize>,
    /// How many steps have not been taken up.
    open: usize,
    /// What is done with each step; one that was left out comes in when another turns out to read what it writes.
    roles: Vec<Role>,
    /// What the role of such a step is.
    role_of_late: Role,
    /// Steps whose turn has come; one that comes again is not told again.
    reached: BTreeSet<usize>,
    schedule: Schedule<'a>,
    done: BTreeMap<usize, StepDone>,
    error: Option<RunError>,
    /// No further step is taken up.
    halted: bool,
}

/// A step whose turn has come.
pub(super) struct Turn {
    pub(super) index: usize,
    pub(super) role: Role,
    /// The GPUs that it has for itself.
    pub(super) gpus: Vec<String>,
}

impl<'a> Shared<'a> {
    pub(super) fn new(work: &Work<'_>, selection: &Selection, schedule: Schedule<'a>) -> Self {
        let finished = Finished::none_of(work.pipeline.steps.len());
        Self { state: Mutex::new(State::new(work, selection, schedule)), finished, changed: Condvar::new() }
    }

    /// Returns what became of the steps.
    pub(super) fn into_results(self) -> Results {
        let state = self.state.into_inner().expect("no holder panics");
        let told = (0..state.roles.len()).filter(|index| is_told(state.roles[*index])).collect();
        Results { done: state.done, error: state.error, told }
    }
}

/// Returns whether the user is told of a step with this role.
fn is_told(role: Role) -> bool {
    matches!(role, Role::Selected | Role::Again)
}

impl<'a> State<'a> {
    fn new(work: &Work<'_>, selection: &Selection, schedule: Schedule<'a>) -> Self {
        let count = work.pipeline.steps.len();
        let mut positions = vec![0; count];
        work.graph.order.iter().enumerate().for_each(|(position, index)| positions[*index] = position);
        let mut state = Self {
            ready: BTreeSet::new(),
            waits_for: vec![0; count],
            dependents: vec![Vec::new(); count],
            positions,
            open: 0,
            roles: (0..count).map(|index| selection.role(index)).collect(),
            role_of_late: if selection.relies_on_known() { Role::Known } else { Role::Selected },
            reached: BTreeSet::new(),
            schedule,
            done: BTreeMap::new(),
            error: None,
            halted: false,
        };
        for index in (0..count).filter(|index| selection.role(*index) != Role::Out) {
            state.admit(work, index);
        }
        state
    }

    /// Lets a step wait for those before it that are not done with.
    fn admit(&mut self, work: &Work<'_>, index: usize) {
        let mut before = work.dependencies(index);
        before.retain(|other| !self.done.contains_key(other));
        self.waits_for[index] = before.len();
        before.iter().for_each(|other| self.dependents[*other].push(index));
        self.open += 1;
        if before.is_empty() {
            self.ready.insert(self.positions[index]);
        }
    }

    /// Lets a step come again after others that it has turned out to need, also if they were left out until now.
    fn admit_again(&mut self, work: &Work<'_>, index: usize) {
        let mut late = vec![index];
        while let Some(step) = late.pop() {
            for other in work.dependencies(step) {
                if self.roles[other] == Role::Out {
                    self.roles[other] = self.role_of_late;
                    late.push(other);
                }
            }
            self.admit(work, step);
        }
    }

    /// Returns the step that starts now, if there is one.
    fn next(&mut self, work: &'a Work<'_>) -> Option<Turn> {
        let order = &work.graph.order;
        let wanted = |index: usize| &work.pipeline.steps[index].resources;
        let ready = self.ready.iter().map(|position| (order[*position], wanted(order[*position])));
        let decision = self.schedule.next(ready);
        let given_to = decision.start.or(decision.waiting)?;
        let gpus = self.schedule.follow(decision, wanted(given_to));
        let index = decision.start?;
        self.ready.remove(&self.positions[index]);
        self.open -= 1;
        Some(Turn { index, role: self.roles[index], gpus })
    }

    /// Returns the step before this one that did not succeed.
    fn failed_before(&self, work: &Work<'_>, index: usize) -> Option<String> {
        work.dependencies(index)
            .iter()
            .map(|other| &self.done[other])
            .find(|done| matches!(done.verdict, StepVerdict::Failed | StepVerdict::Skipped))
            .map(|done| done.step.clone())
    }

    fn done_with(&mut self, index: usize, done: StepDone) {
        self.done.insert(index, done);
        for dependent in &self.dependents[index] {
            self.waits_for[*dependent] -= 1;
            if self.waits_for[*dependent] == 0 {
                self.ready.insert(self.positions[*dependent]);
            }
        }
    }
}

impl Running<'_> {
    /// Takes up one step after the other until none is left.
    pub(super) fn take_steps<'a>(&'a self, shared: &Shared<'a>) {
        let mut state = shared.state.lock().expect("no holder panics");
        loop {
            if state.halted || state.open == 0 || self.request.stop.is_requested() {
                shared.changed.notify_all();
                return;
            }
            let Some(turn) = state.next(self.work) else {
                // Every open step waits for one that another thread has, or for what that takes.
                state = shared.changed.wait(state).expect("no holder panics");
                continue;
            };
            let index = turn.index;
            let step = &self.work.pipeline.steps[index];
            if let Some(failed) = state.failed_before(self.work, index) {
                state.schedule.ended(index);
                state.done_with(index, StepDone::skipped(&step.name, Reason::Needs(failed)));
                shared.changed.notify_all();
                continue;
            }
            let is_told = is_told(turn.role);
            if is_told && state.reached.insert(index) {
                // Told under the lock, so that the order of the lines is the order of the steps.
                (self.observer)(Event::Reached { step: &step.name, description: step.description.as_deref() });
            }
            drop(state);
            let result = self.one(&turn, &shared.finished);
            state = shared.state.lock().expect("no holder panics");
            state.schedule.ended(index);
            match result {
                Ok(Outcome::TooEarly) => state.admit_again(self.work, index),
                Ok(Outcome::Done(done)) => {
                    if is_told {
                        (self.observer)(Event::Finished(&done));
                    }
                    state.halted |= done.verdict == StepVerdict::Failed && !self.request.keep_going;
                    // Before any step may start that waits for it.
                    shared.finished.note(index, done.outputs.clone());
                    state.done_with(index, *done);
                }
                // Being asked to stop is no error: the run tells how far it came.
                Err(RunError::Snapshot(SnapshotError::Stopped)) => state.halted = true,
                Err(error) => {
                    state.halted = true;
                    state.error.get_or_insert(error);
                }
            }
            // The one step that may be ready is taken up here in a moment; waking somebody for it would cost more than many a step.
            if state.ready.len() > 1 || state.open == 0 || state.halted {
                shared.changed.notify_all();
            }
        }
    }
}
