//! `pv env show`: what each step runs in.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::cli::Global;
use crate::cli::answer::{bytes, count};
use crate::cli::fail::CliError;
use crate::cli::open;
use crate::cli::ui::{FAINT, NAME, Ui, paint};
use crate::environment::{Package, installed, read_pins};
use crate::object::{Kind, Pin};
use crate::pipeline::{Environment, Pipeline};
use crate::project::Project;
use crate::snapshot::{PINS, check_definition, pins_of};
use crate::store::Store;

/// Show what each step runs in, and what is installed there
#[derive(clap::Args)]
pub(super) struct Args {
    /// A version, commit, snapshot or run, instead of the definition in the working tree
    revision: Option<String>,
    /// List every package of an image; `--json` always does
    #[arg(long)]
    packages: bool,
}

#[derive(Serialize)]
struct Answer {
    environments: Vec<Shown>,
    #[serde(skip)]
    lists_packages: bool,
}

#[derive(Serialize)]
struct Shown {
    /// As the definition says it.
    environment: Environment,
    steps: Vec<String>,
    /// What is known of the image.
    pin: Option<Pin>,
    /// What is installed in it; `None` if the store does not have it, or it is no image.
    packages: Option<Vec<Package>>,
}

pub(super) fn run(ui: &mut Ui, global: &Global, args: &Args) -> Result<u8, CliError> {
    let project = open::project(ui, global)?;
    let (pipeline, pins) = match &args.revision {
        Some(revision) => of_revision(&project, revision)?,
        None => {
            let pins = read_pins(&project.root.join(PINS))?.into_iter().map(|pin| (pin.image.clone(), pin));
            (check_definition(project.site())?.pipeline, pins.collect())
        }
    };
    let mut environments: Vec<Shown> = Vec::new();
    for step in &pipeline.steps {
        let environment = pipeline.environment_of(step);
        match environments.iter_mut().find(|shown| shown.environment == *environment) {
            Some(shown) => shown.steps.push(step.name.clone()),
            None => environments.push(shown(&project, environment, &step.name, &pins)?),
        }
    }
    ui.show(&Answer { environments, lists_packages: args.packages })?;
    Ok(0)
}

fn of_revision(project: &Project, revision: &str) -> Result<(Pipeline, BTreeMap<String, Pin>), CliError> {
    let named = open::resolve_in(project, &project.store, revision)?;
    let opened = open::open(project, &named)?;
    let pins = pins_of(&project.store, &opened.snapshot)?;
    Ok((opened.pipeline, pins))
}

fn shown(
    project: &Project,
    environment: &Environment,
    step: &str,
    pins: &BTreeMap<String, Pin>,
) -> Result<Shown, CliError> {
    let pin = match environment {
        Environment::Image(image) => pins.get(&image.digest).cloned(),
        _ => None,
    };
    let is_here = |pin: &Pin| project.store.length(Kind::Tree, pin.tree.digest());
    let packages = match &pin {
        Some(pin) if is_here(pin)?.is_some() => Some(installed(&project.store, pin.tree)?),
        _ => None,
    };
    Ok(Shown { environment: environment.clone(), steps: vec![step.to_owned()], pin, packages })
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for shown in &self.environments {
            let name = match &shown.environment {
                Environment::Host => "host".to_owned(),
                Environment::Image(image) => image.to_string(),
                Environment::Python(python) => format!("python {} with {}", python.version, python.lock),
            };
            writeln!(f, "{}  {}", paint(NAME, name), shown.steps.join(", "))?;
            if let Some(pin) = &shown.pin {
                let size = format!("{}, {}", count(pin.files, "file"), bytes(pin.bytes));
                writeln!(f, "  environment {}  {size}", pin.tree.short())?;
                let config = &pin.config;
                for (what, value) in [("user", &config.user), ("workdir", &config.workdir)] {
                    if !value.is_empty() {
                        writeln!(f, "  {what} {value}")?;
                    }
                }
                for (name, value) in &config.env {
                    writeln!(f, "  {}", paint(FAINT, format!("{name}={value}")))?;
                }
            }
            shown.write_packages(self.lists_packages, f)?;
        }
        Ok(())
    }
}

impl Shown {
    fn write_packages(&self, lists: bool, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(packages) = &self.packages else { return Ok(()) };
        for manager in ["debian", "python"] {
            let of: Vec<_> = packages.iter().filter(|package| package.manager == manager).collect();
            if !of.is_empty() {
                writeln!(f, "  {} of {manager}", count(of.len() as u64, "package"))?;
            }
            for package in of.into_iter().filter(|_| lists) {
                writeln!(f, "    {} {}", package.name, package.version)?;
            }
        }
        Ok(())
    }
}
