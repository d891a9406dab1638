//! `pv env list`: the environments that are known here.

use std::fmt;

use serde::Serialize;

use super::known::{Image, Python, images, pythons};
use crate::cli::Global;
use crate::cli::answer::{bytes, count};
use crate::cli::fail::CliError;
use crate::cli::open;
use crate::cli::ui::{FAINT, NAME, Ui, paint};
use crate::disk;
use crate::hash::Digest;
use crate::object::{Kind, TreeId};
use crate::snapshot::check_definition;
use crate::store::Store;

/// List the images that were taken in here or have a pin in the working tree, and the Python environments that were made
#[derive(clap::Args)]
pub(super) struct Args {}

#[derive(Serialize)]
struct Answer {
    environments: Vec<Line>,
    pythons: Vec<PythonLine>,
}

#[derive(Serialize)]
struct Line {
    environment: TreeId,
    /// The digest alone.
    image: String,
    /// As the definition calls it.
    name: Option<String>,
    files: u64,
    bytes: u64,
    /// Whether the store has it.
    here: bool,
    /// The steps of the definition in the working tree that run in it.
    steps: Vec<String>,
}

#[derive(Serialize)]
struct PythonLine {
    environment: Digest,
    version: String,
    /// Where the lock lay that it was first made for.
    lock: String,
    bytes: u64,
    /// The steps of the definition in the working tree that run in it.
    steps: Vec<String>,
}

pub(super) fn run(ui: &mut Ui, global: &Global, _: &Args) -> Result<u8, CliError> {
    let project = open::project(ui, global)?;
    // Without a definition that can be read, nothing is known to run in any of them.
    let pipeline = check_definition(project.site()).ok().map(|definition| definition.pipeline);
    let mut environments = Vec::new();
    for Image { pin, name, steps } in images(&project, pipeline.as_ref())? {
        environments.push(Line {
            environment: pin.tree,
            image: pin.image,
            name,
            files: pin.files,
            bytes: pin.bytes,
            here: project.store.length(Kind::Tree, pin.tree.digest())?.is_some(),
            steps,
        });
    }
    let line = |Python { made, steps }| PythonLine {
        environment: made.digest,
        version: made.version,
        lock: made.lock,
        bytes: disk::bytes_below(&made.directory),
        steps,
    };
    let pythons = pythons(&project, pipeline.as_ref())?.into_iter().map(line).collect();
    ui.show(&Answer { environments, pythons })?;
    Ok(0)
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.environments.is_empty() && self.pythons.is_empty() {
            return writeln!(f, "no image was taken in; `pv env add IMAGE` does that");
        }
        for line in &self.environments {
            let name = line.name.as_ref().map(|name| format!("{name}@")).unwrap_or_default();
            writeln!(f, "{}", paint(NAME, format!("{name}{}", line.image)))?;
            let size = format!("{}, {}", count(line.files, "file"), bytes(line.bytes));
            let absent = if line.here { "" } else { ", not in the store" };
            let steps = paint(FAINT, named(&line.steps));
            writeln!(f, "  environment {}  {size}{absent}  {steps}", line.environment.short())?;
        }
        for line in &self.pythons {
            writeln!(f, "{}", paint(NAME, format!("Python {} with {}", line.version, line.lock)))?;
            let (size, steps) = (bytes(line.bytes), paint(FAINT, named(&line.steps)));
            writeln!(f, "  environment {}  {size}  {steps}", line.environment.short())?;
        }
        Ok(())
    }
}

fn named(steps: &[String]) -> String {
    if steps.is_empty() { "no step here".to_owned() } else { steps.join(", ") }
}
