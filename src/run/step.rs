//! Executing one step in its clean place.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::RunError;
use super::grant::Grant;
use super::missing::Hint;
use super::place::Room;
use super::python;
use super::recipe::outputs_of;
use super::runtime::Elsewhere;
use super::trial::Conditions;
use crate::disk::DiskError;
use crate::environment;
use crate::exec::{self, Command, End, ExecError, Job, Observation, PLACE, Permission, Pins, Stop};
use crate::host;
use crate::object::BlobId;
use crate::path::ProjectPath;
use crate::pipeline::{Run, Step};
use crate::record::{Output, Recipe};
use crate::snapshot::capture_path;
use crate::store::{Source, Store};

/// How many lines of the log of a failed step are shown.
const TAIL_LINES: usize = 20;
const TAIL_BYTES: u64 = 64 * 1024;

/// How a step failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What happened: `it exited with code 1`.
    pub how: String,
    /// The last lines that it printed.
    pub tail: Vec<String>,
    /// What it wrote, kept.
    pub kept: PathBuf,
    /// What it looked for in vain and its author has.
    pub hints: Vec<Hint>,
}

/// What became of a step that was executed.
pub(super) struct Executed {
    pub(super) outputs: Vec<Output>,
    pub(super) log: Option<BlobId>,
    pub(super) elapsed: Duration,
    pub(super) failure: Option<Failure>,
    /// Whether it was ended because the run was to stop. That is no failure.
    pub(super) interrupted: bool,
    /// What it was seen to do.
    pub(super) observation: Observation,
    /// What it wrote in the project besides its outputs, as far as that is known.
    pub(super) writes: BTreeSet<ProjectPath>,
}

/// Executes `step` in its `room` and puts its outputs and its log into the store.
///
/// `strip` takes away what it wrote besides its outputs, and tells. With `conditions` it is a trial and no ordinary execution.
///
/// # Errors
///
/// [`RunError`] if the room, a process or the store cannot be used. A step that fails is no error.
#[expect(clippy::too_many_arguments, reason = "the parts of one execution, used once")]
pub(super) fn execute<'r>(
    store: &dyn Store,
    step: &Step,
    recipe: &Recipe,
    room: &'r Room,
    grant: &Grant,
    permission: Option<&Permission<'_>>,
    strip: &dyn Fn() -> Result<BTreeSet<ProjectPath>, RunError>,
    on_line: &mut (dyn FnMut(&[u8]) + Send),
    stop: &Stop,
    conditions: Option<&Conditions>,
) -> Result<Executed, RunError> {
    let Room { tree, written, log, world, .. } = room;
    let directory = if room.elsewhere.is_some() { tree.clone() } else { directory(step, tree) };
    let command = match &step.run {
        Run::Shell(line) => Command::Shell(line.clone()),
        Run::Program(words) => Command::Direct(words.clone()),
    };
    let mut environment = variables(recipe, grant, room);
    for (name, value) in conditions.into_iter().flat_map(|conditions| &conditions.variables) {
        match value {
            Some(value) => drop(environment.insert(name.clone(), value.clone())),
            None => drop(environment.remove(name)),
        }
    }
    let environment: BTreeMap<_, OsString> =
        environment.into_iter().map(|(name, value)| (name, value.into())).collect();
    let begin = |elsewhere: &'r Elsewhere| elsewhere.begin(step, &environment, grant.gpus(), stop);
    let begun = room.elsewhere.as_ref().map(begin).transpose()?;
    let (command, environment) =
        begun.as_ref().map_or((&command, &environment), |begun| (&begun.command, &begun.variables));
    let seed = recipe.seed.filter(|_| recipe.seeding.is_some_and(|rules| rules.entropy.is_some()));
    let pins = match conditions {
        Some(conditions) => conditions.pins.clone(),
        None => seed.map(|seed| Pins { entropy: Some(seed), ..Pins::default() }),
    };
    let own_limit = step.timeout_s.map(Duration::from_secs);
    let time_limit = conditions.map_or(own_limit, |conditions| conditions.time_limit);
    let job = Job {
        command,
        directory: &directory,
        environment,
        time_limit,
        memory: grant.memory(),
        log,
        world: world.as_ref(),
        observe: room.elsewhere.is_none(),
        permission,
        pins: pins.as_ref(),
    };
    let outcome = match exec::run(&job, on_line, stop) {
        Err(ExecError::NoDirectory { .. }) if step.workdir.is_some() => {
            let workdir = step.workdir.clone().expect("it has just been asked");
            return Err(RunError::NoWorkdir { step: step.name.clone(), workdir });
        }
        Err(ExecError::NotPinned(why)) => return Err(RunError::NotPinned { step: step.name.clone(), why }),
        Err(error) if is_the_commands_own(&error) => return Ok(not_started(&error, written.clone())),
        outcome => outcome?,
    };
    let of_runtime = match outcome.end {
        End::Exited(code) => begun.as_ref().and_then(|begun| begun.failure(code, log)),
        _ => None,
    };
    // What is left of a container may still write.
    drop(begun);
    let mut outputs = Vec::new();
    let mut how = match outcome.end {
        End::Exited(0) | End::Interrupted => None,
        End::Exited(code) => Some(of_runtime.unwrap_or_else(|| format!("it exited with code {code}"))),
        End::Signalled(signal) => Some(format!("it was killed by signal {signal}")),
        End::TimedOut => Some(format!("it took longer than {} s", time_limit.unwrap_or_default().as_secs())),
    };
    let interrupted = outcome.end == End::Interrupted;
    // Also if it ended well: what a part of it would have done is not in the result.
    how = grant.excess().filter(|_| !interrupted).or(how);
    let mut writes = BTreeSet::new();
    if how.is_none() && !interrupted {
        // What it wrote in place of an output is left for its author to see.
        if outputs_of(step).all(|path| fs::symlink_metadata(path.under(written)).is_ok()) {
            writes = strip()?;
        }
        let mut missing = Vec::new();
        for path in outputs_of(step).collect::<BTreeSet<_>>() {
            match capture_path(&path.under(written), None, store)?.and_then(|entry| Output::of(path.clone(), &entry)) {
                Some(output) => outputs.push(output),
                None => missing.push(format!("`{path}`")),
            }
        }
        if !missing.is_empty() {
            how = Some(format!("it did not write {}", missing.join(", ")));
            outputs.clear();
        }
    }
    let stored = store.put(crate::object::Kind::Blob, Source::File(log))?;
    let failure = match how {
        None => None,
        Some(how) => Some(Failure { how, tail: tail(log)?, kept: written.clone(), hints: Vec::new() }),
    };
    let observation = outcome.observation;
    let log = Some(stored.digest.into());
    Ok(Executed { outputs, log, elapsed: outcome.elapsed, failure, interrupted, observation, writes })
}

/// Returns whether the command is to blame, so that other steps may well run.
fn is_the_commands_own(error: &ExecError) -> bool {
    matches!(
        error,
        ExecError::Empty | ExecError::NotFound { .. } | ExecError::NotExecutable { .. } | ExecError::Start { .. }
    )
}

fn not_started(error: &ExecError, directory: PathBuf) -> Executed {
    let because = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    let failure = Failure { how: format!("{error}{because}"), tail: Vec::new(), kept: directory, hints: Vec::new() };
    Executed {
        outputs: Vec::new(),
        log: None,
        elapsed: Duration::ZERO,
        failure: Some(failure),
        interrupted: false,
        observation: Observation::default(),
        writes: BTreeSet::new(),
    }
}

/// Returns where a step is executed, given where its project is.
pub(super) fn directory(step: &Step, tree: &Path) -> PathBuf {
    step.workdir.as_ref().map_or_else(|| tree.to_owned(), |workdir| workdir.under(tree))
}

/// Returns the step's variables: the clean set, what `pv` tells it, and what its definition says.
pub(super) fn variables(recipe: &Recipe, grant: &Grant, room: &Room) -> BTreeMap<String, String> {
    let Room { home, temporary, image, venv, .. } = room;
    let mut variables = match image {
        Some(image) => environment::image_variables(&image.config.env, home, temporary),
        None => environment::variables(home, temporary),
    };
    if let Some(venv) = venv {
        environment::lead_into(venv, &mut variables);
    }
    if let Some(home) = host::variable("HOME").filter(|_| recipe.home.is_some()) {
        variables.insert("HOME".to_owned(), home);
    }
    variables.insert("PV_STEP".to_owned(), recipe.step.clone());
    let hash_seed = recipe.seed.unwrap_or_default() % (1 << 32);
    variables.insert("PYTHONHASHSEED".to_owned(), hash_seed.to_string());
    if let Some(seed) = recipe.seed {
        variables.insert("PV_SEED".to_owned(), seed.to_string());
        variables.extend(environment::SEEDED.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    variables.extend(grant.variables());
    variables.extend(recipe.env.clone());
    if recipe.seed.is_some() {
        let given = variables.get(environment::XLA_FLAGS).map(String::as_str);
        variables.insert(environment::XLA_FLAGS.to_owned(), environment::seeded_xla_flags(given));
    }
    if temporary.parent() == Some(Path::new(PLACE)) {
        let given = recipe.env.get(python::VARIABLE).map(String::as_str);
        variables.insert(python::VARIABLE.to_owned(), python::search_path(given));
    }
    variables
}

/// Returns the last lines of a log.
fn tail(log: &PathBuf) -> Result<Vec<String>, RunError> {
    use std::io::{Read, Seek, SeekFrom};
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(DiskError::on("read", log))?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(TAIL_LINES)..].iter().map(|line| (*line).to_owned()).collect())
}
