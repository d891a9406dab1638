//! What a definition leaves out: the difference between what steps say and what they were seen to do.
//!
//! A decision from the definition and an observation; nothing is looked at again. The aim is twofold: to tell every
//! real omission, and to tell nothing about a definition that omits nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use serde::Serialize;

use super::recipe::{outputs_of, words};
use crate::environment::{Class, Rules, classify};
use crate::exec::Rung;
use crate::hash::Digest;
use crate::path::{ProjectPath, unescape};
use crate::pipeline::{Addition, COMBINATION_MARK, ParamsSource, Pipeline, Step};

mod declare;
mod find;
mod fix;

pub use declare::declare;
pub use find::{Found, newest};
pub use fix::{Fixed, fix};

/// What a step was seen to do. Paths are those of the project, or absolute ones outside.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// How it was observed.
    pub rung: Rung,
    /// Whether nothing escaped the observer.
    pub is_complete: bool,
    /// What it read, with what was found there, as in a recipe.
    pub reads: BTreeMap<String, String>,
    /// Which program read a path first, where that is known.
    pub readers: BTreeMap<String, String>,
    /// What it declares and did not read.
    pub unread: BTreeSet<String>,
    /// What it wrote beside its outputs.
    pub writes: BTreeSet<String>,
    /// Whom it talked to, as `host:port`.
    pub network: BTreeSet<String>,
    /// Variables that were passed on to it and decide, without being asked for.
    pub variables: BTreeSet<String>,
}

/// What a step leaves out. All lists are sorted.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Audited {
    /// The step.
    pub step: String,
    /// How it was observed; with `none` nothing is known, and all lists are empty.
    pub rung: Rung,
    /// What it read without declaring it.
    pub undeclared: Vec<Undeclared>,
    /// What it declares and did not read.
    pub unused: Vec<String>,
    /// What it wrote without declaring it.
    pub writes: Vec<String>,
    /// Whom it talked to without `network: true`.
    pub network: Vec<String>,
    /// Variables that decide its result without being in its `env`.
    pub env: Vec<String>,
}

/// A path that was read and not declared.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Undeclared {
    /// The path: of the project, or an absolute one outside.
    pub path: String,
    /// The program that read it first.
    pub by: String,
}

impl Audited {
    /// Returns whether there is nothing to tell.
    pub fn is_clean(&self) -> bool {
        let paths = self.undeclared.is_empty() && self.unused.is_empty() && self.writes.is_empty();
        paths && self.network.is_empty() && self.env.is_empty()
    }

    /// Returns what would have to be added to the definition for all of this to be declared, as far as that can be.
    ///
    /// What lies outside the project cannot be declared, and what is not used is no matter of additions.
    pub fn additions(&self) -> Vec<Addition> {
        let family = self.step.split(COMBINATION_MARK).next().unwrap_or(&self.step).to_owned();
        let own = |paths: Vec<&String>| declare(paths.into_iter().filter(|path| !path.starts_with('/')));
        let lists = [
            ("inputs", own(self.undeclared.iter().map(|read| &read.path).collect())),
            ("outputs", own(self.writes.iter().collect())),
            ("env", self.env.clone()),
        ];
        let mut additions: Vec<Addition> = lists
            .into_iter()
            .filter(|(_, items)| !items.is_empty())
            .map(|(key, items)| Addition::Items { step: Some(family.clone()), key, items })
            .collect();
        if !self.network.is_empty() {
            additions.push(Addition::Flag { step: family, key: "network" });
        }
        additions
    }
}

/// Returns what `step` leaves out, by what it was `seen` to do. Paths outside are judged by `rules`.
pub fn audit(pipeline: &Pipeline, step: &Step, seen: &Seen, rules: &Rules) -> Audited {
    if seen.rung == Rung::None {
        return Audited { step: step.name.clone(), ..Audited::default() };
    }
    let declared = Declared::of(pipeline, step);
    let program = first_program(step);
    let by = |path: &String| seen.readers.get(path).cloned().unwrap_or_else(|| program.clone());
    let is_input = |path: &str| classify(Path::new(&OsString::from_vec(unescape(path))), rules) == Class::Input;
    let is_undeclared = |path: &str, value: &str| {
        if path.starts_with('/') { is_looked_into(value) && is_input(path) } else { declared.misses_read(path, value) }
    };
    let is_undeclared_write = |path: &str| {
        if path.starts_with('/') { is_input(path) } else { declared.misses_write(path) }
    };
    let reads = seen.reads.iter().filter(|(path, value)| is_undeclared(path, value));
    let undeclared = without_listings(reads.map(|(path, value)| (path, value.as_str())).collect());
    let is_declared = |path: &&String| project_path(path).is_some_and(|path| declared.inputs.contains(&path));
    let is_asked_for =
        |name: &&String| step.env.fixed.contains_key(name.as_str()) || step.env.passed.contains(name.as_str());
    Audited {
        step: step.name.clone(),
        rung: seen.rung,
        undeclared: undeclared.into_iter().map(|path| Undeclared { path: path.clone(), by: by(path) }).collect(),
        // What escaped the observer may have been read.
        unused: seen.unread.iter().filter(|_| seen.is_complete).filter(is_declared).cloned().collect(),
        writes: seen.writes.iter().filter(|path| is_undeclared_write(path)).cloned().collect(),
        network: if step.network { Vec::new() } else { seen.network.iter().cloned().collect() },
        env: seen.variables.iter().filter(|name| !is_asked_for(name)).cloned().collect(),
    }
}

/// What a step declares, by itself or by what its command names.
struct Declared {
    /// Its `inputs`.
    inputs: BTreeSet<ProjectPath>,
    /// Whether it has any; without, what it reads in the project is its declaration.
    has_inputs: bool,
    /// What its command names, which declares a file, but nothing below a directory.
    named: BTreeSet<ProjectPath>,
    /// The params files, if it says what it uses of them.
    params: BTreeSet<ProjectPath>,
    /// Its outputs, and what it keeps between attempts.
    written: BTreeSet<ProjectPath>,
    workdir: Option<ProjectPath>,
}

impl Declared {
    fn of(pipeline: &Pipeline, step: &Step) -> Self {
        let file =
            |source: &ParamsSource| if let ParamsSource::File(path) = source { Some(path.clone()) } else { None };
        let params = pipeline.params.iter().filter(|_| !step.params.is_empty()).filter_map(file);
        Self {
            inputs: step.inputs.iter().flatten().cloned().collect(),
            has_inputs: step.inputs.is_some(),
            named: named_by_command(step),
            params: params.collect(),
            written: outputs_of(step).chain(&step.keep).cloned().collect(),
            workdir: step.workdir.clone(),
        }
    }

    fn misses_read(&self, path: &str, value: &str) -> bool {
        let Some(path) = project_path(path) else { return false };
        if !self.has_inputs || !is_looked_into(value) || is_noise(&path) {
            return false;
        }
        let is_whole_directory = value.starts_with("directory ");
        let is_named = !is_whole_directory && (self.named.contains(&path) || self.params.contains(&path));
        let is_declared = self.inputs.iter().chain(&self.written).any(|other| path.is_within(other));
        let is_empty_package = path.name() == b"__init__.py" && value == format!("file {}", Digest::of(b""));
        let is_on_the_way = ["listing ", "status ", "link "].iter().any(|aspect| value.starts_with(aspect))
            && self.everything().any(|other| other.is_within(&path));
        !(is_named || is_declared || is_empty_package || is_on_the_way)
    }

    fn misses_write(&self, path: &str) -> bool {
        let Some(path) = project_path(path) else { return false };
        !is_noise(&path) && !self.written.iter().any(|other| path.overlaps(other))
    }

    fn everything(&self) -> impl Iterator<Item = &ProjectPath> {
        self.inputs.iter().chain(&self.named).chain(&self.params).chain(&self.written).chain(&self.workdir)
    }
}

/// Returns the path of the project that a recipe writes so; `.`, its top, is none.
fn project_path(text: &str) -> Option<ProjectPath> {
    ProjectPath::new(unescape(text)).ok()
}

/// Returns whether a value tells of something that is there: what is absent was only looked for, and directories are
/// passed through on the way to others.
fn is_looked_into(value: &str) -> bool {
    value != "absent" && value != "status directory"
}

/// Names that tools make for themselves wherever they work. What is in them decides nothing.
const NOISE: [&str; 8] =
    [".git", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".ipynb_checkpoints", ".venv", ".DS_Store"];

pub(super) fn is_noise(path: &ProjectPath) -> bool {
    let first = path.names().next().unwrap_or_default();
    first == b".pipeline"
        || path.name().ends_with(b".pyc")
        || path.names().any(|name| NOISE.iter().any(|noise| name == noise.as_bytes()))
}

/// Returns the paths that a command names, as words and as values of options, and the modules that it starts.
pub(super) fn named_by_command(step: &Step) -> BTreeSet<ProjectPath> {
    let words = words(&step.run);
    let from_workdir = |text: &str| {
        let path = ProjectPath::new(text).ok()?;
        Some(match &step.workdir {
            Some(workdir) => workdir.join(path.as_bytes()),
            None => path,
        })
    };
    let mut named: BTreeSet<ProjectPath> = BTreeSet::new();
    for word in &words {
        let texts = [Some(word.as_str()), word.split_once('=').map(|(_, value)| value)];
        named.extend(texts.into_iter().flatten().filter_map(from_workdir));
    }
    for pair in words.windows(2).filter(|pair| pair[0] == "-m") {
        let module = pair[1].replace('.', "/");
        let mut packages = module.as_str();
        named.extend(
            [format!("{module}.py"), format!("{module}/__main__.py")].iter().filter_map(|path| from_workdir(path)),
        );
        named.extend(from_workdir(&format!("{module}/__init__.py")));
        while let Some((above, _)) = packages.rsplit_once('/') {
            named.extend(from_workdir(&format!("{above}/__init__.py")));
            packages = above;
        }
    }
    named
}

/// Returns the last name of the first word of the command.
fn first_program(step: &Step) -> String {
    let first = words(&step.run).into_iter().next().unwrap_or_default();
    first.rsplit('/').next().unwrap_or_default().to_owned()
}

/// Leaves out the directories that were listed and whose files are told anyway.
fn without_listings<'a>(reads: Vec<(&'a String, &str)>) -> Vec<&'a String> {
    let paths: BTreeSet<&str> = reads.iter().map(|(path, _)| path.as_str()).collect();
    let is_told = |path: &str| {
        let start = format!("{path}/");
        paths.range(start.as_str()..).next().is_some_and(|next| next.starts_with(&start))
    };
    let is_listing = |value: &str| value.starts_with("listing ");
    reads.iter().filter(|(path, value)| !(is_listing(value) && is_told(path))).map(|(path, _)| *path).collect()
}

#[cfg(test)]
mod tests;
