//! `pv env lock`: make the lock of a Python environment.

use std::fmt;

use serde::Serialize;

use crate::cli::Global;
use crate::cli::answer::count;
use crate::cli::fail::CliError;
use crate::cli::open;
use crate::cli::run::provide::{Telling, stop_on_signals};
use crate::cli::ui::{NAME, Ui, paint};
use crate::disk;
use crate::environment::ToLock;
use crate::path::ProjectPath;
use crate::pipeline::{self, Environment, Pipeline, Python};
use crate::project::Project;

/// The lock that is made if neither the definition nor the user names one.
const USUAL: &str = "requirements.lock";

/// Make the lock of a Python environment: every package in one version, by hash
///
/// From `requirements.in`, `pyproject.toml` or `requirements.txt` beside the lock, by uv, or by pip-tools if there is no uv. What
/// the lock pins already stays, unless you say `--upgrade`. Only the lock is written; the definition stays as it is.
#[derive(clap::Args)]
pub(in crate::cli) struct Args {
    /// Make the lock of the environment of this step, not of the pipeline
    #[arg(long, value_name = "STEP")]
    step: Option<String>,
    /// The version of Python [default: that of the definition]
    #[arg(long, value_name = "VERSION")]
    python: Option<String>,
    /// The lock [default: that of the definition, else `requirements.lock`]
    #[arg(long, value_name = "PATH")]
    lock: Option<String>,
    /// The file that says what is needed [default: what is found beside the lock]
    #[arg(long, value_name = "PATH")]
    from: Option<String>,
    /// Take the newest versions, also of what the lock pins already
    #[arg(long)]
    upgrade: bool,
}

pub(in crate::cli) fn run(ui: &mut Ui, global: &Global, args: &Args) -> Result<u8, CliError> {
    let project = open::project(ui, global)?;
    let pipeline = definition(&project, global)?;
    let known = environment(&pipeline, args.step.as_deref())?;
    let version = args.python.clone().or_else(|| known.map(|python| python.version.clone())).ok_or_else(no_version)?;
    let lock = match &args.lock {
        Some(text) => path(text)?,
        None => known.map_or_else(|| path(USUAL), |python| Ok(python.lock.clone()))?,
    };
    if lock.name() == b"uv.lock" {
        return Err(CliError::usage(format!("`{lock}` is the lock of uv itself")).hint("`uv lock` makes it"));
    }
    let source = match &args.from {
        Some(text) => path(text)?,
        None => ToLock::source_beside(&project.root, &lock).ok_or_else(|| no_source(&lock))?,
    };
    let wanted = ToLock { version: version.clone(), source, lock, upgrade: args.upgrade };
    let stop = stop_on_signals()?;
    let name = format!("Python {version}");
    let mut telling = Telling::new(ui, &name, format!("makes `{}` of `{}`", wanted.lock, wanted.source));
    let made = wanted.make(&project.root, &mut |making| telling.tell(making), &stop);
    let made = telling.end(made)?;
    let ToLock { lock, source, .. } = wanted;
    let is_named = known.is_some_and(|python| python.lock == lock && python.version == version);
    let add = (!is_named).then(|| format!("environment: {{python: {{version: \"{version}\", lock: {lock}}}}}"));
    ui.show(&Answer {
        lock,
        source,
        python: version,
        packages: made.packages,
        changed: made.changed,
        by: made.made_by,
        add,
    })?;
    Ok(0)
}

fn definition(project: &Project, global: &Global) -> Result<Pipeline, CliError> {
    let path = open::definition(global)?;
    let text = disk::read_if_there(&path.under(&project.root))?;
    let text = text.ok_or_else(|| CliError::usage(format!("there is no `{path}`")).hint("`pv init` makes one"))?;
    Ok(pipeline::read(&text, &path.to_string())?.pipeline)
}

/// Returns the Python environment of a step, or of the pipeline, if that is one.
fn environment<'p>(pipeline: &'p Pipeline, step: Option<&str>) -> Result<Option<&'p Python>, CliError> {
    let environment = match step {
        None => &pipeline.environment,
        Some(name) => {
            let found = pipeline.steps.iter().find(|step| step.name == name || step.family() == name);
            pipeline.environment_of(found.ok_or_else(|| CliError::usage(format!("there is no step `{name}`")))?)
        }
    };
    Ok(match environment {
        Environment::Python(python) => Some(python),
        _ => None,
    })
}

fn path(text: &str) -> Result<ProjectPath, CliError> {
    ProjectPath::new(text).map_err(|error| CliError::usage(error.to_string()))
}

fn no_version() -> CliError {
    CliError::usage("the definition asks for no Python environment here")
        .hint("name the version that the lock is for: `pv env lock --python 3.11`")
}

fn no_source(lock: &ProjectPath) -> CliError {
    CliError::usage(format!("nothing beside `{lock}` says what is needed"))
        .hint("write a `requirements.in` with the names of the packages, or name a file with `--from`")
}

#[derive(Serialize)]
struct Answer {
    lock: ProjectPath,
    source: ProjectPath,
    python: String,
    packages: usize,
    changed: bool,
    by: &'static str,
    /// What the definition takes to use it, if it does not say that already.
    #[serde(skip_serializing_if = "Option::is_none")]
    add: Option<String>,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let packages = count(self.packages as u64, "package");
        let how = if self.changed { "written" } else { "as it was" };
        writeln!(f, "{}  {packages} by hash, of `{}`, {how}", paint(NAME, &self.lock), self.source)?;
        self.add.iter().try_for_each(|line| writeln!(f, "add to the definition: {}", paint(NAME, line)))
    }
}
