//! Deciding about a step: reuse what is known, or run, and why.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock};

use super::RunError;
use super::earlier::{Earlier, Finished, Steps, Writers};
use super::image::Images;
use super::known::{Ground, compose, holding, names_of};
use super::machine::{Machine, Seen};
use super::peers::Peers;
use super::reads::TOP;
use super::reason::{self, Reason};
use super::recipe::{Base, asked, declared, guessed, outputs_of};
use super::world::World;
use crate::environment::{Toolboxes, Tools};
use crate::exec::Rung;
use crate::object::{Entry, Kind, RecordId, TaskKey};
use crate::path::{ProjectPath, unescape};
use crate::pipeline::{Graph, Params, Pipeline, Step};
use crate::record::{ABSENT, By, Journal, KnownResult, Name, Output, ReadSets, Recipe, StepResult, StepVerdict};
use crate::snapshot::{View, for_each_file};
use crate::stat_cache::StatCache;
use crate::store::Store;

/// How many earlier runs are searched for the last result of a step.
const RUNS_SEARCHED: usize = 50;
/// So many results of a step are compared with what its lock foretells, the newest first.
const FORESEEN_MAX: usize = 50;

/// The facts that decisions are made from.
pub struct Work<'a> {
    /// The definition.
    pub pipeline: &'a Pipeline,
    /// The pipeline's name.
    pub name: &'a str,
    /// In which order its steps run.
    pub graph: &'a Graph,
    /// The values of all params.
    pub params: &'a Params,
    /// The snapshot's files.
    pub view: View<'a>,
    /// The version's name, for steps that ask for it.
    pub version: Option<&'a str>,
    /// The programs on this machine, in each environment that steps run in.
    pub tools: &'a Toolboxes,
    /// What files of this machine hashed to: the memory of the tree at `/`.
    pub machine: &'a StatCache,
    /// What is known.
    pub journal: &'a Journal,
    /// Where recorded outputs are.
    pub store: &'a dyn Store,
    /// The images that its steps run in.
    pub images: &'a Images,
    /// Whose results count.
    pub peers: &'a Peers,
    /// What was found out already.
    pub memory: Memory,
}

/// What is found out once in a run.
#[derive(Default)]
pub struct Memory {
    /// The last known result of each step, by name, and the run that it is from.
    last: OnceLock<BTreeMap<String, Last>>,
    /// Files and programs of the machine.
    seen: Seen,
    /// Which step writes what.
    writers: OnceLock<Writers>,
    /// The steps before each step, directly or not. Held while something is learnt.
    before: Mutex<BTreeMap<usize, Arc<Steps>>>,
    /// Steps that were seen to need others, beyond what the graph tells.
    learnt: Mutex<BTreeMap<usize, BTreeSet<usize>>>,
    /// Tasks of which more is known than is remembered beside the records.
    behind: Mutex<BTreeSet<TaskKey>>,
    /// What was known of tasks when the order was made.
    sets: Mutex<BTreeMap<TaskKey, ReadSets>>,
    /// What each step is asked to do.
    asked: Mutex<BTreeMap<usize, (Recipe, TaskKey)>>,
}

impl Memory {
    /// Returns which step of the one pipeline that this is about writes what.
    pub(super) fn writers(&self, pipeline: &Pipeline) -> &Writers {
        self.writers.get_or_init(|| Writers::of(pipeline))
    }

    /// Returns what a step is asked to do, and the key of that.
    ///
    /// # Errors
    ///
    /// [`RunError::Variable`] if a passed variable is not text.
    pub(super) fn asked(
        &self,
        pipeline: &Pipeline,
        params: &Params,
        version: Option<&str>,
        index: usize,
    ) -> Result<(Recipe, TaskKey), RunError> {
        if let Some(known) = self.asked.lock().expect("no holder panics").get(&index) {
            return Ok(known.clone());
        }
        let asked = asked(pipeline, params, version, index)?;
        let known = (asked.clone(), asked.task());
        Ok(self.asked.lock().expect("no holder panics").entry(index).or_insert(known).clone())
    }

    /// Keeps what is known of `task` for when its step is judged.
    pub(super) fn keep(&self, task: TaskKey, sets: ReadSets) {
        self.sets.lock().expect("no holder panics").insert(task, sets);
    }
}

/// The last known result of a step.
#[derive(Clone, Debug)]
pub(super) struct Last {
    /// The run that it is from.
    pub(super) run: RecordId,
    /// The result.
    pub(super) result: StepResult,
}

/// What to do with a step.
#[derive(Clone, PartialEq, Debug)]
pub enum Verdict {
    /// Take the recorded outputs.
    Reuse(Box<StepResult>),
    /// Execute it.
    Run,
}

/// A verdict and its reason.
#[derive(Clone, PartialEq, Debug)]
pub struct Judged {
    /// What to do.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// What it depends on as far as that can be told before it runs; unknown while steps before it have yet to run.
    pub recipe: Option<Recipe>,
}

/// One step in the world as it is before it runs.
pub(super) struct Before<'w, 'a> {
    work: &'w Work<'a>,
    index: usize,
    earlier: Earlier<'w>,
    pub(super) task: TaskKey,
    pub(super) asked: Recipe,
    declared: Base,
    guessed: OnceLock<Base>,
    pub(super) world: World<'w, 'a>,
    pub(super) machine: Machine<'w>,
}

impl<'a> Work<'a> {
    /// Returns the step at `index` in its world, given the outputs of all steps before it.
    ///
    /// # Errors
    ///
    /// [`RunError`] if trees cannot be read, or a passed variable is not text.
    pub(super) fn before<'w>(&'w self, index: usize, finished: &'w Finished) -> Result<Before<'w, 'a>, RunError> {
        let (asked, task) = self.memory.asked(self.pipeline, self.params, self.version, index)?;
        let earlier = Earlier { writers: self.memory.writers(self.pipeline), before: self.ancestors(index), finished };
        Ok(Before {
            work: self,
            index,
            task,
            asked,
            declared: declared(self, index, &earlier)?,
            guessed: OnceLock::new(),
            world: World::new(&self.view, earlier.clone(), outputs_of(&self.pipeline.steps[index])),
            machine: Machine::new(self.tools_of(index), self.machine, &self.memory.seen),
            earlier,
        })
    }

    /// Returns the programs that the step at `index` finds.
    pub(super) fn tools_of(&self, index: usize) -> &'a Tools {
        self.tools.of(self.pipeline.environment_of(&self.pipeline.steps[index]))
    }

    /// Returns what to do with the step at `index`, given the outputs of all steps before it.
    ///
    /// # Errors
    ///
    /// [`RunError`] if records or trees cannot be read.
    pub(super) fn judge(&self, index: usize, finished: &Finished) -> Result<Judged, RunError> {
        self.judge_in(&self.before(index, finished)?)
    }

    /// Returns what to do with a step in its world.
    ///
    /// # Errors
    ///
    /// [`RunError`] if records or trees cannot be read.
    pub(super) fn judge_in(&self, before: &Before<'_, '_>) -> Result<Judged, RunError> {
        if !self.pipeline.steps[before.index].cache {
            return Ok(Judged { verdict: Verdict::Run, reason: Reason::NotCached, recipe: Some(before.guess()?) });
        }
        let looked_at = self.memory.sets.lock().expect("no holder panics").remove(&before.task);
        let sets = match looked_at {
            Some(sets) => sets,
            None => self.journal.read_sets(before.task)?,
        };
        if sets.is_new() {
            self.note_behind(before.task);
        }
        let refused = match self.known(before, &sets)? {
            Known::Good(result) => {
                let (recipe, reason) = (Some(result.recipe.clone()), self.unchanged(&result));
                return Ok(Judged { verdict: Verdict::Reuse(result), reason, recipe });
            }
            Known::Refused(reason) => Some(reason),
            Known::Nothing => None,
        };
        let refused = match refused {
            None => match self.foreseen(before, &sets)? {
                Known::Good(result) => {
                    let (recipe, reason) = (Some(result.recipe.clone()), self.unchanged(&result));
                    return Ok(Judged { verdict: Verdict::Reuse(result), reason, recipe });
                }
                Known::Refused(reason) => Some(reason),
                Known::Nothing => None,
            },
            refused => refused,
        };
        let reason = match refused {
            Some(reason) => reason,
            None => self.why(before, &sets)?,
        };
        Ok(Judged { verdict: Verdict::Run, reason, recipe: Some(before.guess()?) })
    }

    /// Returns the result of a step that can be taken as it is now, if there is one.
    ///
    /// # Errors
    ///
    /// [`RunError`] if records or trees cannot be read.
    pub(super) fn reusable(&self, before: &Before<'_, '_>) -> Result<Option<Box<StepResult>>, RunError> {
        let sets = self.journal.read_sets(before.task)?;
        Ok(match self.known(before, &sets)? {
            Known::Good(result) => Some(result),
            Known::Refused(_) | Known::Nothing => None,
        })
    }

    fn known(&self, before: &Before<'_, '_>, sets: &ReadSets) -> Result<Known, RunError> {
        let mut refused = Known::Nothing;
        for known in before.holding(sets)? {
            let result = match sets.result(known.id) {
                Some(result) => result.clone(),
                None => match self.journal.result(before.task, known.key, known.id)? {
                    Some(result) => result,
                    None => continue,
                },
            };
            match self.refusal(before.index, &result)? {
                None => return Ok(Known::Good(Box::new(result))),
                Some(reason) => refused = Known::Refused(reason),
            }
        }
        Ok(refused)
    }

    /// Returns the result that will be taken if the Python environment of a step comes out as its lock says; nothing if it is there.
    fn foreseen(&self, before: &Before<'_, '_>, sets: &ReadSets) -> Result<Known, RunError> {
        let mut refused = Known::Nothing;
        if !before.machine.tools().is_unmade() {
            return Ok(refused);
        }
        let mut all: Vec<&KnownResult> =
            sets.sets.iter().flat_map(|set| &set.results).chain(&sets.unobserved).collect();
        all.sort_by_key(|known| std::cmp::Reverse(known.started));
        for known in all.into_iter().take(FORESEEN_MAX) {
            let result = match sets.result(known.id) {
                Some(result) => Some(result.clone()),
                None => self.journal.result(before.task, known.key, known.id)?,
            };
            let Some(result) = result else { continue };
            if before.now(&result)?.key() == result.key {
                match self.refusal(before.index, &result)? {
                    None => return Ok(Known::Good(Box::new(result))),
                    Some(reason) => refused = Known::Refused(reason),
                }
            }
        }
        Ok(refused)
    }

    /// Returns why a result that holds is not taken all the same; `None` if it is.
    fn refusal(&self, index: usize, result: &StepResult) -> Result<Option<Reason>, RunError> {
        if !self.peers.count(&result.by) {
            return Ok(Some(Reason::Untrusted { who: result.by.who.clone() }));
        }
        if !available(self.store, &result.outputs)? {
            return Ok(Some(Reason::OutputsGone));
        }
        let step = &self.pipeline.steps[index];
        let talked = result.observed.iter().flat_map(|observed| observed.network.keys()).cloned();
        let talked: Vec<String> = if vouches(step) { Vec::new() } else { talked.collect() };
        Ok((!talked.is_empty()).then_some(Reason::Talked(talked)))
    }

    /// Returns why a result is taken.
    pub(super) fn unchanged(&self, result: &StepResult) -> Reason {
        let By { who, host, .. } = &result.by;
        if self.peers.is_shared(&result.by) {
            Reason::Shared { who: who.clone(), host: host.clone() }
        } else {
            Reason::Unchanged
        }
    }

    /// Returns what changed since the nearest result of this step.
    fn why(&self, before: &Before<'_, '_>, sets: &ReadSets) -> Result<Reason, RunError> {
        let Some((_, nearest)) = self.nearest(before, sets)? else { return Ok(Reason::FirstTime) };
        Ok(Reason::Changed(self.differences(before, &nearest)?))
    }

    /// Returns what differs between a result and what its step would find now.
    pub(super) fn differences(
        &self,
        before: &Before<'_, '_>,
        nearest: &StepResult,
    ) -> Result<Vec<reason::Difference>, RunError> {
        let now = before.now(nearest)?;
        let source_of = |key: &str| self.params.source_of(key).map(str::to_owned);
        let loaded_by = nearest.is_seen_whole().then_some(nearest.recipe.step.as_str());
        Ok(reason::differences(self.store, &nearest.recipe, &now, loaded_by, &source_of))
    }

    /// Returns the result to explain a difference with, and the run that it is from: that of the last run, else the newest.
    pub(super) fn nearest(
        &self,
        before: &Before<'_, '_>,
        sets: &ReadSets,
    ) -> Result<Option<(Option<RecordId>, StepResult)>, RunError> {
        if let Some(last) = self.last()?.get(&before.asked.step) {
            return Ok(Some((Some(last.run), last.result.clone())));
        }
        let Some(newest) = sets.newest() else { return Ok(None) };
        let results = self.journal.results(Some(before.task), newest.key)?;
        Ok(results.into_iter().find(|(id, _)| *id == newest.id).map(|(_, result)| (None, result)))
    }

    /// Returns what the step at `index` wrote last, if that is known from an earlier run.
    ///
    /// # Errors
    ///
    /// [`RunError::Record`] if records cannot be read.
    pub(super) fn last_outputs(&self, index: usize) -> Result<Option<Vec<Output>>, RunError> {
        Ok(self.last()?.get(&self.pipeline.steps[index].name).map(|last| last.result.outputs.clone()))
    }

    /// Returns whether a result of the step is known from an earlier run.
    fn is_known(&self, step: &str) -> Result<bool, RunError> {
        Ok(self.last()?.contains_key(step))
    }

    fn last(&self) -> Result<&BTreeMap<String, Last>, RunError> {
        if let Some(last) = self.memory.last.get() {
            return Ok(last);
        }
        let last = last_results(self.pipeline, self.name, self.journal)?;
        Ok(self.memory.last.get_or_init(|| last))
    }

    /// Returns the steps that the one at `index` waits for directly.
    pub(super) fn dependencies(&self, index: usize) -> BTreeSet<usize> {
        let mut all = self.graph.dependencies[index].clone();
        let learnt = self.memory.learnt.lock().expect("no holder panics");
        all.extend(learnt.get(&index).into_iter().flatten());
        all
    }

    /// Returns the steps that the one at `index` waits for, directly or not. Costs a step for each that was not asked about yet.
    pub(super) fn ancestors(&self, index: usize) -> Arc<Steps> {
        self.ancestors_in(&mut self.memory.before.lock().expect("no holder panics"), index)
    }

    fn ancestors_in(&self, known: &mut BTreeMap<usize, Arc<Steps>>, index: usize) -> Arc<Steps> {
        let mut open = vec![index];
        while let Some(step) = open.last().copied() {
            let direct = self.dependencies(step);
            let unknown = direct.iter().filter(|other| !known.contains_key(other));
            let count = open.len();
            open.extend(unknown);
            if open.len() == count {
                let mut before = Steps::default();
                for other in direct {
                    before.insert(other);
                    before.extend(&known[&other]);
                }
                known.insert(step, Arc::new(before));
                open.pop();
            }
        }
        Arc::clone(&known[&index])
    }

    /// Notes that more is known of `task` than is remembered.
    pub(super) fn note_behind(&self, task: TaskKey) {
        self.memory.behind.lock().expect("no holder panics").insert(task);
    }

    /// Remembers what is known of tasks beside their records, so that the next look costs less.
    ///
    /// # Errors
    ///
    /// [`RunError::Record`] if records cannot be read.
    pub(super) fn remember(&self) -> Result<(), RunError> {
        for task in std::mem::take(&mut *self.memory.behind.lock().expect("no holder panics")) {
            self.journal.remember_read_sets(task)?;
        }
        Ok(())
    }

    /// Returns the names of the steps that the one at `index` was made to wait for in this run.
    pub(super) fn learnt(&self, index: usize) -> Vec<String> {
        let learnt = self.memory.learnt.lock().expect("no holder panics");
        let others = learnt.get(&index).into_iter().flatten();
        others.map(|other| self.pipeline.steps[*other].name.clone()).collect()
    }

    /// Lets the step at `index` wait for `others` from now on, except those that have meanwhile come to wait for it.
    pub(super) fn learn(&self, index: usize, others: &BTreeSet<usize>) {
        let mut before = self.memory.before.lock().expect("no holder panics");
        for other in others {
            if !self.ancestors_in(&mut before, *other).contains(index) {
                self.memory.learnt.lock().expect("no holder panics").entry(index).or_default().insert(*other);
                before.clear();
            }
        }
    }
}

/// Returns the result that each step of the pipeline had last, by name, as far as one of the newest runs tells it.
///
/// # Errors
///
/// [`RunError::Record`] if records cannot be read.
pub(super) fn last_results(
    pipeline: &Pipeline,
    name: &str,
    journal: &Journal,
) -> Result<BTreeMap<String, Last>, RunError> {
    let mut missing: BTreeSet<_> = pipeline.steps.iter().map(|step| step.name.clone()).collect();
    let mut last = BTreeMap::new();
    for run in journal.runs()?.take(RUNS_SEARCHED) {
        let (id, run) = run?;
        if missing.is_empty() {
            break;
        }
        if run.pipeline != name {
            continue;
        }
        for step in run.steps {
            let good = matches!(step.verdict, StepVerdict::Ran | StepVerdict::Reused);
            if let Some(key) = step.key.filter(|_| good)
                && missing.contains(&step.step)
                && let Some((_, result)) = journal.results(step.task, key)?.pop()
            {
                missing.remove(&step.step);
                last.insert(step.step, Last { run: id, result });
            }
        }
    }
    Ok(last)
}

/// What is known of a step as it is now.
enum Known {
    /// A result that can be taken.
    Good(Box<StepResult>),
    /// Only results that hold, yet cannot be taken.
    Refused(Reason),
    /// No result that holds.
    Nothing,
}

/// Returns whether the definition vouches for what the step gets over the network.
pub(super) const fn vouches(step: &Step) -> bool {
    step.network
}

impl<'w> Before<'w, '_> {
    /// Returns what decides about a set of names. Guesses only if that `is_guessed`.
    ///
    /// # Errors
    ///
    /// [`RunError`] if a tree cannot be read.
    pub(super) fn ground(&self, is_guessed: bool) -> Result<Ground<'_>, RunError> {
        let guessed = if is_guessed { self.guessed()? } else { &self.declared };
        Ok(Ground { asked: &self.asked, declared: &self.declared, guessed, inputs: self.inputs() })
    }

    /// Returns the step's declared inputs.
    pub(super) fn inputs(&self) -> &'w [ProjectPath] {
        self.work.pipeline.steps[self.index].inputs.as_deref().unwrap_or_default()
    }

    fn guessed(&self) -> Result<&Base, RunError> {
        if let Some(guessed) = self.guessed.get() {
            return Ok(guessed);
        }
        let guessed = guessed(self.work, self.index, &self.earlier)?;
        Ok(self.guessed.get_or_init(|| guessed))
    }

    /// Returns the present value of a name.
    ///
    /// # Errors
    ///
    /// [`RunError`] if a tree cannot be read.
    pub(super) fn value(&self, name: &Name) -> Result<String, RunError> {
        match name {
            Name::Fact(name) => Ok(self.machine.fact(name)),
            Name::Read(aspect, path) if path.starts_with('/') => Ok(self.machine.value(*aspect, path)),
            Name::Read(aspect, path) if path == TOP => self.world.value(*aspect, None),
            Name::Read(aspect, path) => match ProjectPath::new(unescape(path)) {
                Ok(path) => self.world.value(*aspect, Some(&path)),
                // No step can have read what is no path.
                Err(_) => Ok(ABSENT.to_owned()),
            },
        }
    }

    /// Returns the recipe of the step if nothing of it is observed.
    ///
    /// # Errors
    ///
    /// [`RunError`] if a tree cannot be read.
    pub(super) fn guess(&self) -> Result<Recipe, RunError> {
        let Base { reads, environment } = self.guessed()?.clone();
        Ok(Recipe { environment, reads, ..self.asked.clone() })
    }

    /// Returns the results that hold now, the newest first.
    fn holding(&self, sets: &ReadSets) -> Result<Vec<KnownResult>, RunError> {
        let is_guessed = !sets.unobserved.is_empty() || sets.sets.iter().any(|set| !set.is_whole);
        let ground = self.ground(is_guessed)?;
        let mut found = holding(&ground, sets, &mut |name| self.value(name))?;
        if !sets.unobserved.is_empty() {
            let guess = self.guess()?.key();
            found.extend(sets.unobserved.iter().filter(|known| known.key == guess));
        }
        Ok(found)
    }

    /// Returns what the recipe of `earlier` would be now, or will be once its Python environment is made.
    pub(super) fn now(&self, earlier: &StepResult) -> Result<Recipe, RunError> {
        let is_seen = earlier.observed.as_ref().is_some_and(|observed| observed.rung != Rung::None);
        if !is_seen {
            let mut guess = self.guess()?;
            for name in earlier.recipe.environment.keys() {
                let foreseen = self.machine.foreseen(&Name::Fact(name.clone()), &earlier.recipe);
                guess.environment.extend(foreseen.filter(|value| value != ABSENT).map(|value| (name.clone(), value)));
            }
            return Ok(guess);
        }
        let names = names_of(&earlier.recipe);
        let is_whole = earlier.is_seen_whole();
        let mut value = |name: &Name| match self.machine.foreseen(name, &earlier.recipe) {
            Some(foreseen) => Ok(foreseen),
            None => self.value(name),
        };
        compose(&self.ground(!is_whole)?, is_whole, &names, &mut value)
    }
}

/// Returns, in the order of the definition, what a run would do and why. Changes nothing.
///
/// A step after one that runs is judged to run too; in the run itself it is
/// reused if what it reads comes out equal.
///
/// # Errors
///
/// [`RunError`] if records or trees cannot be read.
pub fn plan(work: &Work<'_>) -> Result<Vec<Judged>, RunError> {
    let finished = Finished::none_of(work.pipeline.steps.len());
    let mut judged: BTreeMap<usize, Judged> = BTreeMap::new();
    for index in &work.graph.order {
        let running: Vec<usize> =
            work.dependencies(*index).into_iter().filter(|other| finished.get(*other).is_none()).collect();
        let verdict = if running.is_empty() {
            work.judge(*index, &finished)?
        } else {
            let names = running.iter().map(|other| work.pipeline.steps[*other].name.clone()).collect();
            let name = &work.pipeline.steps[*index].name;
            let reason = if work.is_known(name)? { Reason::After(names) } else { Reason::FirstTime };
            Judged { verdict: Verdict::Run, reason, recipe: None }
        };
        if let Verdict::Reuse(result) = &verdict.verdict {
            finished.note(*index, result.outputs.clone());
        }
        judged.insert(*index, verdict);
    }
    Ok(judged.into_values().collect())
}

/// Returns whether every byte of these outputs is in the store.
pub(super) fn available(store: &dyn Store, outputs: &[Output]) -> Result<bool, RunError> {
    outputs.iter().try_fold(true, |so_far, output| Ok(so_far && entry_available(store, &output.entry())?))
}

fn entry_available(store: &dyn Store, entry: &Entry) -> Result<bool, RunError> {
    match entry {
        Entry::File { size, id, .. } => Ok(store.length(Kind::Blob, id.digest())? == Some(*size)),
        Entry::Symlink { .. } | Entry::Submodule { .. } => Ok(true),
        Entry::Directory { id, .. } => {
            let mut all = true;
            let walked = for_each_file(store, *id, None, &mut |_, entry| {
                if let Entry::File { size, id, .. } = entry {
                    all &= store.length(Kind::Blob, id.digest())? == Some(*size);
                }
                Ok(())
            });
            match walked {
                Ok(()) => Ok(all),
                Err(crate::snapshot::SnapshotError::Store(crate::store::StoreError::Missing { .. })) => Ok(false),
                Err(error) => Err(error.into()),
            }
        }
    }
}
