//! Deciding about a step: reuse what is known, or run, and why.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::RunError;
use super::reason::{self, Reason};
use super::recipe::{Finished, recipe};
use crate::environment::Tools;
use crate::object::{Entry, Kind, StepKey};
use crate::pipeline::{Graph, Params, Pipeline};
use crate::record::{Journal, Output, Recipe, StepResult, StepVerdict};
use crate::snapshot::{View, for_each_file};
use crate::store::Store;

/// How many earlier runs are searched for the last result of a step.
const RUNS_SEARCHED: usize = 50;

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
    /// The programs on this machine.
    pub tools: &'a Tools,
    /// What is known.
    pub journal: &'a Journal,
    /// Where recorded outputs are.
    pub store: &'a dyn Store,
    /// The last known recipe of each step, by name; found when it is first needed.
    pub last: OnceLock<BTreeMap<String, Recipe>>,
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
    /// What its key is made of; unknown while steps before it have yet to run.
    pub recipe: Option<Recipe>,
}

impl Work<'_> {
    /// Returns what to do with the step at `index`, given the outputs of all steps before it.
    ///
    /// # Errors
    ///
    /// [`RunError`] if records or trees cannot be read.
    pub(super) fn judge(&self, index: usize, finished: &Finished) -> Result<Judged, RunError> {
        let recipe = recipe(self, index, finished)?;
        if !self.pipeline.steps[index].cache {
            return Ok(Judged { verdict: Verdict::Run, reason: Reason::NotCached, recipe: Some(recipe) });
        }
        let known = self.journal.results(recipe.key())?;
        let gone = !known.is_empty();
        for (_, result) in known {
            if available(self.store, &result.outputs)? {
                let verdict = Verdict::Reuse(Box::new(result));
                return Ok(Judged { verdict, reason: Reason::Unchanged, recipe: Some(recipe) });
            }
        }
        let reason = if gone { Reason::OutputsGone } else { self.why(&recipe)? };
        Ok(Judged { verdict: Verdict::Run, reason, recipe: Some(recipe) })
    }

    /// Returns the known result under `key` whose outputs are all in the store.
    pub(super) fn known(&self, key: StepKey) -> Result<Option<StepResult>, RunError> {
        for (_, result) in self.journal.results(key)? {
            if available(self.store, &result.outputs)? {
                return Ok(Some(result));
            }
        }
        Ok(None)
    }

    /// Returns what changed since the last result of this step.
    fn why(&self, recipe: &Recipe) -> Result<Reason, RunError> {
        let Some(last) = self.last()?.get(&recipe.step) else { return Ok(Reason::FirstTime) };
        let differences =
            reason::differences(self.store, last, recipe, &|key| self.params.source_of(key).map(str::to_owned));
        Ok(Reason::Changed(differences))
    }

    fn last(&self) -> Result<&BTreeMap<String, Recipe>, RunError> {
        if let Some(last) = self.last.get() {
            return Ok(last);
        }
        let mut missing: std::collections::BTreeSet<_> = self.pipeline.steps.iter().map(|s| s.name.clone()).collect();
        let mut last = BTreeMap::new();
        for run in self.journal.runs()?.take(RUNS_SEARCHED) {
            let (_, run) = run?;
            if missing.is_empty() {
                break;
            }
            if run.pipeline != self.name {
                continue;
            }
            for step in run.steps {
                let good = matches!(step.verdict, StepVerdict::Ran | StepVerdict::Reused);
                if let Some(key) = step.key.filter(|_| good)
                    && missing.contains(&step.step)
                    && let Some((_, result)) = self.journal.results(key)?.pop()
                {
                    missing.remove(&step.step);
                    last.insert(step.step, result.recipe);
                }
            }
        }
        Ok(self.last.get_or_init(|| last))
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
    let mut finished = Finished::new();
    let mut judged: BTreeMap<usize, Judged> = BTreeMap::new();
    for index in &work.graph.order {
        let running: Vec<usize> =
            work.graph.dependencies[*index].iter().copied().filter(|other| !finished.contains_key(other)).collect();
        let verdict = if running.is_empty() {
            work.judge(*index, &finished)?
        } else {
            let names = running.iter().map(|other| work.pipeline.steps[*other].name.clone()).collect();
            let name = &work.pipeline.steps[*index].name;
            let reason = if work.last()?.contains_key(name) { Reason::After(names) } else { Reason::FirstTime };
            Judged { verdict: Verdict::Run, reason, recipe: None }
        };
        if let Verdict::Reuse(result) = &verdict.verdict {
            finished.insert(*index, result.outputs.clone());
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
