//! Why a step would run or not: everything that its key is made of and that is not what it was.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::RunError;
use super::earlier::Finished;
use super::image;
use super::judge::{Verdict, Work};
use super::machine::{LIBRARY, PACKAGE, VARIABLE, is_told_by_version};
use super::reads::TOP;
use super::reason::{Reason, readable, sights};
use crate::environment::BUILD;
use crate::object::{Entry, RecordId, TreeId};
use crate::path::ProjectPath;
use crate::pipeline::Run as Command;
use crate::record::{ABSENT, Recipe};
use crate::snapshot::changes;
use crate::store::Store;

/// Why a step would run or not.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Explanation {
    /// The step.
    pub step: String,
    /// What a run would do with it.
    pub verdict: Foreseen,
    /// Why.
    pub reason: Reason,
    /// Steps before it that would run, so that what it reads may still change.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// The run that it is compared with; `None` if its last result is from no run on record, or there is none.
    pub against: Option<RecordId>,
    /// What is not what it was.
    pub changes: Vec<Change>,
}

/// What a run would do with a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Foreseen {
    /// Take its recorded outputs.
    Reuse,
    /// Execute it.
    Run,
    /// Decide when the steps before it are done.
    Wait,
}

/// One thing that is not what it was.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Change {
    /// What sort of thing.
    pub kind: ChangeKind,
    /// Which.
    pub name: String,
    /// What it was: a digest, a value, a version; `None` if it was not there.
    pub old: Option<String>,
    /// What it is now.
    pub new: Option<String>,
}

/// What sort of thing changed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// The command, where it runs, what it is shown, or what it must leave.
    Command,
    /// A param.
    Param,
    /// The seed.
    Seed,
    /// A variable.
    Env,
    /// A file or directory.
    File,
    /// A package that was loaded.
    Package,
    /// A library that was loaded.
    Library,
    /// A program, or another part of the environment.
    Environment,
}

/// Returns why the step at `index` would run or not, compared with its last result. Changes nothing.
///
/// Where steps before it would run, what they wrote last stands for what they will write.
///
/// # Errors
///
/// [`RunError`] if records or trees cannot be read.
pub fn explain(work: &Work<'_>, index: usize) -> Result<Explanation, RunError> {
    let step = work.pipeline.steps[index].name.clone();
    let finished = Finished::none_of(work.pipeline.steps.len());
    let mut running = BTreeSet::new();
    let before = work.ancestors(index);
    for other in work.graph.order.iter().filter(|other| before.contains(**other)) {
        let waits = work.dependencies(*other).iter().any(|other| running.contains(other));
        let verdict = if waits { Verdict::Run } else { work.judge(*other, &finished)?.verdict };
        match verdict {
            Verdict::Reuse(result) => finished.note(*other, result.outputs),
            Verdict::Run => {
                running.insert(*other);
                if let Some(outputs) = work.last_outputs(*other)? {
                    finished.note(*other, outputs);
                }
            }
        }
    }
    let after: Vec<String> = running.iter().map(|other| work.pipeline.steps[*other].name.clone()).collect();
    let judged = work.judge(index, &finished)?;
    let before = work.before(index, &finished)?;
    let sets = work.journal.read_sets(before.task)?;
    let nearest = work.nearest(&before, &sets)?;
    let is_reused = matches!(judged.verdict, Verdict::Reuse(_));
    let verdict = match (is_reused, after.is_empty()) {
        (_, false) => Foreseen::Wait,
        (true, true) => Foreseen::Reuse,
        (false, true) => Foreseen::Run,
    };
    let against = nearest.as_ref().and_then(|(run, _)| *run);
    let changes = match &nearest {
        Some((_, result)) if !is_reused => differing(work.store, &result.recipe, &before.now(result)?),
        _ => Vec::new(),
    };
    let reason = if after.is_empty() { judged.reason } else { Reason::After(after.clone()) };
    Ok(Explanation { step, verdict, reason, after, against, changes })
}

/// Returns everything that differs between two recipes, sort by sort.
fn differing(store: &dyn Store, old: &Recipe, new: &Recipe) -> Vec<Change> {
    let mut found = Vec::new();
    let mut one = |kind, name: &str, old: Option<String>, new: Option<String>| {
        if old != new {
            found.push(Change { kind, name: name.to_owned(), old, new });
        }
    };
    let command = |command: &Command| match command {
        Command::Shell(line) => line.clone(),
        Command::Program(words) => words.join(" "),
    };
    one(ChangeKind::Command, "run", Some(command(&old.command)), Some(command(&new.command)));
    let workdir = |recipe: &Recipe| recipe.workdir.as_ref().map(ToString::to_string);
    one(ChangeKind::Command, "workdir", workdir(old), workdir(new));
    let listed = |paths: &[ProjectPath]| {
        Some(paths.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")).filter(|all| !all.is_empty())
    };
    one(ChangeKind::Command, "outputs", listed(&old.outputs), listed(&new.outputs));
    let seed = |recipe: &Recipe| recipe.seed.map(|seed| seed.to_string());
    one(ChangeKind::Seed, "seed", seed(old), seed(new));
    for (key, old, new) in sights(old, new) {
        one(ChangeKind::Environment, key, Some(old.to_owned()), Some(new.to_owned()));
    }
    if let (Some(old), Some(new)) = (&old.strict, &new.strict) {
        one(ChangeKind::Command, "inputs", listed(&old.inputs), listed(&new.inputs));
    }
    for (name, old, new) in pairs(&old.params, &new.params) {
        one(ChangeKind::Param, name, old.map(readable), new.map(readable));
    }
    for (name, old, new) in pairs(&old.env, &new.env) {
        one(ChangeKind::Env, name, old, new);
    }
    let is_elsewhere = old.environment.get(image::FACT) != new.environment.get(image::FACT);
    let differs = |name: &str| old.environment.get(name) != new.environment.get(name);
    let facts = pairs(&old.environment, &new.environment);
    for (name, old, new) in facts.filter(|(name, ..)| !is_told_by_version(name, differs)) {
        if is_elsewhere && name != image::FACT {
            continue;
        }
        let (kind, name) = sort_of(name);
        one(kind, name, old.filter(|old| old != ABSENT), new.filter(|new| new != ABSENT));
    }
    let is_explained = !found.is_empty();
    for (path, old, new) in pairs(&old.reads, &new.reads).filter(|(_, old, new)| old != new) {
        files(store, path, old, new, &mut found);
    }
    let hook = |recipe: &Recipe| recipe.seeding.map(|rules| rules.hook.to_string());
    if !is_explained && found.is_empty() && hook(old) != hook(new) {
        let name = "the rules by which a seed reaches a step".to_owned();
        found.push(Change { kind: ChangeKind::Environment, name, old: hook(old), new: hook(new) });
    }
    if !is_explained && found.is_empty() && old.recipe != new.recipe {
        let number = |recipe: &Recipe| Some(recipe.recipe.to_string());
        found.push(Change {
            kind: ChangeKind::Environment,
            name: "the rules by which keys are made".to_owned(),
            old: number(old),
            new: number(new),
        });
    }
    found.sort_by_key(|change| change.kind);
    found
}

/// Adds what differs at a path that a step read: the files of a directory, as far as both states of it are still known.
fn files(store: &dyn Store, path: &str, old: Option<String>, new: Option<String>, found: &mut Vec<Change>) {
    let tree = |text: &Option<String>| -> Option<TreeId> {
        text.as_deref()?.split_once(' ').filter(|(kind, _)| matches!(*kind, "directory" | "data"))?.1.parse().ok()
    };
    if let (Some(old), Some(new)) = (tree(&old), tree(&new)) {
        let above = if path == TOP { None } else { ProjectPath::new(crate::path::unescape(path)).ok() };
        let mut inside = Vec::new();
        let digest = |entry: Option<Entry>| entry.map(|entry| entry.digest().to_string());
        let told = changes(store, Some(old), Some(new), above.as_ref(), &mut |change| {
            let (old, new) = (digest(change.old), digest(change.new));
            inside.push(Change { kind: ChangeKind::File, name: change.path.to_string(), old, new });
        });
        if told.is_ok() && !inside.is_empty() {
            return found.extend(inside);
        }
    }
    let there = |text: Option<String>| text.filter(|text| text != ABSENT);
    let bare = |text: &Option<String>| {
        text.as_deref().map(|text| text.split_once(' ').map_or(text, |(_, rest)| rest).to_owned())
    };
    let (old, new) = (there(old), there(new));
    // The kind is told only where it is what differs.
    let (old, new) = if bare(&old) == bare(&new) { (old, new) } else { (bare(&old), bare(&new)) };
    found.push(Change { kind: ChangeKind::File, name: path.to_owned(), old, new });
}

/// Returns the sort of a fact about the environment, and its name for people.
fn sort_of(fact: &str) -> (ChangeKind, &str) {
    if let Some(path) = fact.strip_prefix(LIBRARY) {
        (ChangeKind::Library, path)
    } else if let Some(name) = fact.strip_prefix(VARIABLE) {
        (ChangeKind::Env, name)
    } else if let Some((_, package)) = fact.split_once(PACKAGE).or_else(|| fact.split_once(BUILD)) {
        (ChangeKind::Package, package)
    } else {
        (ChangeKind::Environment, fact)
    }
}

type Pair<'a> = (&'a str, Option<String>, Option<String>);

fn pairs<'a>(old: &'a BTreeMap<String, String>, new: &'a BTreeMap<String, String>) -> impl Iterator<Item = Pair<'a>> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    names.into_iter().map(|name| (name.as_str(), old.get(name).cloned(), new.get(name).cloned()))
}

impl fmt::Display for Foreseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Reuse => "reuse",
            Self::Run => "run",
            Self::Wait => "wait",
        })
    }
}

impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Command => "command",
            Self::Param => "param",
            Self::Seed => "seed",
            Self::Env => "env",
            Self::File => "file",
            Self::Package => "package",
            Self::Library => "library",
            Self::Environment => "environment",
        })
    }
}
