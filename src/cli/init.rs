//! `pv init`: make a first pipeline.

use std::fmt;

use serde::Serialize;

use super::Global;
use super::fail::CliError;
use super::open;
use super::travel;
use super::ui::{NAME, Ui, paint};
use crate::disk::{self, Durability};
use crate::path::ProjectPath;
use crate::project::Project;

/// Make a first pipeline in this repository
///
/// Writes `.pipeline/pipeline.yaml` with one step to start from, unless there
/// is one. Objects and records will live in the Git directory, where `git status` does not see them.
/// Git remotes are set up so that `git fetch` brings records, too; of files, nothing else is touched.
#[derive(clap::Args)]
pub(super) struct Args {}

const STARTER: &str = r#"# What `pv` versions and runs; every key is described by `pv schema`.
seed: 42                      # every step gets a seed of its own, derived from this, as PV_SEED
steps:
  hello:
    description: Say hello
    run: echo "hello, the seed is $PV_SEED" > hello.txt
    inputs: []                # the files it reads; left out, the step depends on everything
    outputs: [hello.txt]
"#;

#[derive(Serialize)]
struct Answer {
    root: String,
    pipeline: ProjectPath,
    created: bool,
    /// The remotes from which `git fetch` brings records, from now on.
    remotes: Vec<String>,
}

pub(super) fn run(ui: &mut Ui, global: &Global, _args: &Args) -> Result<u8, CliError> {
    let path = open::definition(global)?;
    let project = Project::open(&open::directory(global)?, &global.pipeline)?;
    let place = path.under(&project.root);
    let created = disk::look(&place)?.is_none();
    if created {
        disk::write_whole(&place, STARTER.as_bytes(), Durability::Deferred)?;
    }
    let remotes = travel::follow(&project)?;
    ui.show(&Answer { root: project.root.display().to_string(), pipeline: path, created, remotes })?;
    Ok(0)
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.created {
            writeln!(f, "Wrote {}, a pipeline of one step to start from.", paint(NAME, &self.pipeline))?;
            writeln!(f, "Next: `pv run` executes it, `pv snapshot --tag v1.0` keeps and names it.")?;
        } else if self.remotes.is_empty() {
            writeln!(f, "{} is there already; nothing was changed.", paint(NAME, &self.pipeline))?;
        } else {
            writeln!(f, "{} is there already; it was not changed.", paint(NAME, &self.pipeline))?;
        }
        for remote in &self.remotes {
            writeln!(f, "`git fetch` from {} brings records from now on.", paint(NAME, remote))?;
        }
        Ok(())
    }
}
