//! `pv env list`: the images that are known here.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::cli::Global;
use crate::cli::answer::{bytes, count};
use crate::cli::fail::CliError;
use crate::cli::open;
use crate::cli::ui::{FAINT, NAME, Ui, paint};
use crate::environment::read_pins;
use crate::object::{Kind, Pin, TreeId};
use crate::pipeline::Environment;
use crate::snapshot::{PINS, check_definition};
use crate::store::Store;

/// List the images that were taken in here or have a pin in the working tree
#[derive(clap::Args)]
pub(super) struct Args {}

#[derive(Serialize)]
struct Answer {
    environments: Vec<Line>,
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

pub(super) fn run(ui: &mut Ui, global: &Global, _: &Args) -> Result<u8, CliError> {
    let project = open::project(ui, global)?;
    let mut pins: BTreeMap<String, Pin> = BTreeMap::new();
    for directory in [project.pins(), project.root.join(PINS)] {
        pins.extend(read_pins(&directory)?.into_iter().map(|pin| (pin.image.clone(), pin)));
    }
    // Without a definition that can be read, nothing is known to run in any of them.
    let pipeline = check_definition(project.site()).ok().map(|definition| definition.pipeline);
    let mut environments = Vec::new();
    for (image, pin) in pins {
        let mut line = Line {
            environment: pin.tree,
            image,
            name: None,
            files: pin.files,
            bytes: pin.bytes,
            here: project.store.length(Kind::Tree, pin.tree.digest())?.is_some(),
            steps: Vec::new(),
        };
        for step in pipeline.iter().flat_map(|pipeline| &pipeline.steps) {
            let environment = pipeline.as_ref().map(|pipeline| pipeline.environment_of(step));
            if let Some(Environment::Image(named)) = environment
                && named.digest == line.image
            {
                line.name = Some(named.name.clone());
                line.steps.push(step.name.clone());
            }
        }
        environments.push(line);
    }
    ui.show(&Answer { environments })?;
    Ok(0)
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.environments.is_empty() {
            return writeln!(f, "no image was taken in; `pv env add IMAGE` does that");
        }
        for line in &self.environments {
            let name = line.name.as_ref().map(|name| format!("{name}@")).unwrap_or_default();
            writeln!(f, "{}", paint(NAME, format!("{name}{}", line.image)))?;
            let size = format!("{}, {}", count(line.files, "file"), bytes(line.bytes));
            let absent = if line.here { "" } else { ", not in the store" };
            let steps = if line.steps.is_empty() { "no step here".to_owned() } else { line.steps.join(", ") };
            writeln!(f, "  environment {}  {size}{absent}  {}", line.environment.short(), paint(FAINT, steps))?;
        }
        Ok(())
    }
}
