//! What may influence a step: its recipe.

use std::collections::{BTreeMap, BTreeSet};

use super::earlier::Earlier;
use super::image;
use super::imports::{self, Sources};
use super::{RunError, Work};
use crate::environment::{self, ENVIRONMENT};
use crate::exec;
use crate::hash::Digest;
use crate::host;
use crate::object::{Entry, canonical_value};
use crate::path::ProjectPath;
use crate::pipeline::{
    Determinism, Home, Isolate, Params, ParamsSource, Pipeline, Run as Command, Step, VERSION_VARIABLE,
};
use crate::record::{Reads, Recipe, SeedRules, Strict};
use crate::snapshot::View;

/// Stands for the whole tree in what a step reads.
pub(super) const WHOLE_TREE: &str = ".";

/// What counts for a step whatever it is seen to do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Base {
    /// What it reads.
    pub(super) reads: Reads,
    /// Facts about the environment.
    pub(super) environment: BTreeMap<String, String>,
}

/// Returns what a step is asked to do: its recipe without what it reads and without its environment.
///
/// # Errors
///
/// [`RunError::Variable`] if a passed variable is not text.
pub(super) fn asked(
    pipeline: &Pipeline,
    params: &Params,
    version: Option<&str>,
    index: usize,
) -> Result<Recipe, RunError> {
    let step = &pipeline.steps[index];
    Ok(Recipe {
        recipe: Recipe::VERSION,
        step: step.name.clone(),
        command: step.run.clone(),
        workdir: step.workdir.clone(),
        env: env(version, step)?,
        params: named_params(params, step),
        seed: seed(pipeline.seed, step),
        environment: BTreeMap::new(),
        reads: Reads::new(),
        outputs: outputs_of(step).cloned().collect::<BTreeSet<_>>().into_iter().collect(),
        home: (step.home == Home::Host).then(|| "host".to_owned()),
        strict: strict(step),
        seeding: seed(pipeline.seed, step).map(|_| SeedRules::present(step.determinism == Determinism::Pinned)),
    })
}

/// Returns what decides what a strict step is shown; `None` for one that sees everything.
///
/// What is hidden from it reads as it is in the snapshot, so only this tells a look in vain from one that found.
fn strict(step: &Step) -> Option<Strict> {
    let inputs = || step.inputs.iter().flatten().cloned().collect::<BTreeSet<_>>().into_iter().collect();
    (step.isolate == Isolate::Strict).then(|| Strict { inputs: inputs(), network: step.network })
}

/// Returns what counts for a step beside what it was seen to read, if it was seen whole: its declared inputs.
///
/// # Errors
///
/// [`RunError::Snapshot`] if a tree cannot be read.
pub(super) fn declared(work: &Work<'_>, index: usize, before: &Earlier<'_>) -> Result<Base, RunError> {
    let mut reads = Reads::new();
    for path in work.pipeline.steps[index].inputs.iter().flatten() {
        read_path(&work.view, path, before, &mut reads)?;
    }
    let environment = match image::image_of(work.pipeline, &work.pipeline.steps[index]) {
        Some(digest) => image::facts(digest),
        None => environment::deciding_variables(),
    };
    Ok(Base { reads, environment })
}

/// Returns what a step may depend on as far as that can be told without having seen it run.
///
/// # Errors
///
/// [`RunError::Snapshot`] if a tree cannot be read.
pub(super) fn guessed(work: &Work<'_>, index: usize, before: &Earlier<'_>) -> Result<Base, RunError> {
    let step = &work.pipeline.steps[index];
    let words = words(&step.run);
    let environment = if let Some(digest) = image::image_of(work.pipeline, step) {
        image::facts(digest)
    } else {
        let tools = work.tools_of(index);
        let mut environment = tools.identify(words.iter().map(String::as_str));
        environment.extend(tools.identity().map(|identity| (ENVIRONMENT.to_owned(), identity.to_owned())));
        environment.extend(environment::deciding_variables());
        environment
    };
    let reads = reads(work, step, &words, before)?;
    Ok(Base { reads, environment })
}

/// Returns everything that a step must leave: outputs, then metrics.
pub(super) fn outputs_of(step: &Step) -> impl Iterator<Item = &ProjectPath> {
    step.outputs.iter().chain(&step.metrics)
}

/// Returns the seed of a step: its own, or one derived from the pipeline's and the step's name.
///
/// A derived seed has 31 bits, because that is what every random generator in
/// use takes (R's `set.seed` takes no more).
pub(super) fn seed(pipeline: Option<u64>, step: &Step) -> Option<u64> {
    step.seed.or_else(|| {
        let mut bytes = pipeline?.to_le_bytes().to_vec();
        bytes.extend_from_slice(step.name.as_bytes());
        let digest = Digest::derived("pv step-seed v1", &bytes);
        let first: [u8; 4] = digest.as_bytes()[..4].try_into().expect("a digest has 32 bytes");
        Some(u64::from(u32::from_le_bytes(first) >> 1))
    })
}

/// Returns the variables that the definition sets or passes through, with their values.
fn env(version: Option<&str>, step: &Step) -> Result<BTreeMap<String, String>, RunError> {
    let mut env = step.env.fixed.clone();
    for name in &step.env.passed {
        if name == VERSION_VARIABLE {
            env.extend(version.map(|version| (name.clone(), version.to_owned())));
        } else if let Some(value) = host::variable_os(name) {
            let value =
                value.into_string().map_err(|_| RunError::Variable { step: step.name.clone(), name: name.clone() })?;
            env.insert(name.clone(), value);
        }
    }
    Ok(env)
}

fn named_params(params: &Params, step: &Step) -> BTreeMap<String, String> {
    let text = |value| String::from_utf8(canonical_value(value)).expect("canonical JSON is UTF-8");
    step.params.iter().filter_map(|key| Some((key.clone(), text(params.get(key)?)))).collect()
}

/// Returns the plain words of a command.
pub(super) fn words(run: &Command) -> Vec<String> {
    match run {
        Command::Shell(line) => exec::words(line).into_iter().map(|word| word.text).collect(),
        Command::Program(words) => words.clone(),
    }
}

/// What a step reads, as far as it can be told before it has been observed:
/// its declared inputs, the project files that its command names, and the project's
/// Python modules that those import. Without declared inputs: everything.
fn reads(work: &Work<'_>, step: &Step, words: &[String], before: &Earlier<'_>) -> Result<Reads, RunError> {
    let mut reads = Reads::new();
    let Some(inputs) = &step.inputs else {
        reads.insert(WHOLE_TREE.to_owned(), format!("directory {}", work.view.snapshot().tree));
        for (path, data) in &work.view.snapshot().data {
            reads.insert(path.to_string(), format!("data {}", data.digest()));
        }
        reads.extend(before.below(None).map(|output| (output.path.to_string(), describe(Some(&output.entry())))));
        return Ok(reads);
    };
    for path in inputs {
        read_path(&work.view, path, before, &mut reads)?;
    }
    for path in named_files(work, step, words, before)? {
        read_path(&work.view, &path, before, &mut reads)?;
    }
    Ok(reads)
}

/// Adds what lies at `path`: in the snapshot, in the data below it, and in what earlier steps wrote.
fn read_path(view: &View<'_>, path: &ProjectPath, before: &Earlier<'_>, reads: &mut Reads) -> Result<(), RunError> {
    let mut found = false;
    for output in before.at(path).into_iter().chain(before.below(Some(path))) {
        reads.insert(output.path.to_string(), describe(Some(&output.entry())));
        found = true;
    }
    if let Some(output) = before.above(path)
        && let Some(rest) = path.strip(&output.path)
        && let Entry::Directory { id, .. } = output.entry()
    {
        reads.insert(path.to_string(), describe(view.below(id, &rest)?.as_ref()));
        return Ok(());
    }
    for (root, data) in view.data_below(path) {
        reads.insert(root.to_string(), format!("data {}", data.digest()));
        found = true;
    }
    let entry = view.entry(path)?;
    if entry.is_some() || !found {
        reads.insert(path.to_string(), describe(entry.as_ref()));
    }
    Ok(())
}

/// Returns kind and digest as text, for a recipe.
pub fn describe(entry: Option<&Entry>) -> String {
    match entry {
        None => "absent".to_owned(),
        Some(entry) => {
            let kind = match entry {
                Entry::File { executable: false, .. } => "file",
                Entry::File { executable: true, .. } => "executable",
                Entry::Directory { .. } => "directory",
                Entry::Symlink { .. } => "link",
                Entry::Submodule { .. } => "submodule",
            };
            format!("{kind} {}", entry.digest())
        }
    }
}

/// Returns the project files that a command names, and the modules that they import.
///
/// A params file counts only for a step that does not say which keys it uses.
fn named_files(
    work: &Work<'_>,
    step: &Step,
    words: &[String],
    before: &Earlier<'_>,
) -> Result<BTreeSet<ProjectPath>, RunError> {
    let params_file = |path: &ProjectPath| {
        work.pipeline.params.iter().any(|source| matches!(source, ParamsSource::File(file) if file == path))
    };
    let own = |path: &ProjectPath| outputs_of(step).any(|output| path.is_within(output));
    let mut named = BTreeSet::new();
    for word in words {
        // `--config=conf/a.yaml` names a file as well.
        for text in [Some(word.as_str()), word.split_once('=').map(|(_, value)| value)].into_iter().flatten() {
            let Some(path) = from_workdir(step, text) else { continue };
            let written = before.overlaps(&path);
            let skipped = own(&path) || (params_file(&path) && !step.params.is_empty());
            if !skipped && (written || work.view.entry(&path)?.is_some()) {
                named.insert(path);
            }
        }
    }
    let python_path = step.env.fixed.get("PYTHONPATH").map(String::as_str).unwrap_or_default();
    let sources = Sources {
        view: &work.view,
        roots: python_path.split(':').filter_map(|text| from_workdir(step, text)).collect(),
        workdir: step.workdir.clone(),
    };
    let modules = imports::modules(&sources, words, &named)?;
    named.extend(modules);
    Ok(named)
}

fn from_workdir(step: &Step, text: &str) -> Option<ProjectPath> {
    let path = ProjectPath::new(text).ok()?;
    Some(match &step.workdir {
        Some(workdir) => workdir.join(path.as_bytes()),
        None => path,
    })
}
