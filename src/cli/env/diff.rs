//! `pv env diff`: what of the environment changed between two versions, and which steps used it.

use std::fmt;

use serde::Serialize;

use crate::cli::Global;
use crate::cli::answer::fact;
use crate::cli::diff::{side, working_side};
use crate::cli::fail::CliError;
use crate::cli::open;
use crate::cli::reach::{Reach, Reaching};
use crate::cli::ui::{FAINT, NAME, Ui, paint};
use crate::diff::{FactChange, diff};
use crate::store::DryStore;

/// Show which packages, libraries and facts of the machine differ between two versions
///
/// First what a step loaded whose output differs, then what some step loaded, then the rest. Packages are told from
/// the locks of Python environments and from what is installed in images, and, where both versions have been run, from
/// what their steps were seen to load.
#[derive(clap::Args)]
pub(in crate::cli) struct Args {
    /// The old side: a version, a Git revision, a snapshot or a run
    from: String,
    /// The new side [default: the working tree]
    to: Option<String>,
    #[command(flatten)]
    reaching: Reaching,
}

pub(in crate::cli) fn run(ui: &mut Ui, global: &Global, args: &Args) -> Result<u8, CliError> {
    let project = open::project(ui, global)?;
    let fetched = ui.progress_of("Fetching", "objects");
    let reach = Reach::new(&project, args.reaching.offline, &fetched)?;
    let dry = DryStore::over(reach.store());
    let from = side(&project, &reach, &args.from)?;
    let to = match &args.to {
        Some(text) => side(&project, &reach, text)?,
        None => working_side(ui, &project, &dry)?,
    };
    let changes = diff(&dry, &from.side(), &to.side())?.environment;
    reach.tell(ui);
    let are_run = from.is_run() && to.is_run();
    ui.show(&Answer::new(changes, are_run))?;
    Ok(0)
}

#[derive(Serialize)]
struct Answer {
    packages: Vec<Part>,
    libraries: Vec<Part>,
    facts: Vec<Fact>,
    /// Whether both sides have been run, so that it is known what their steps loaded.
    #[serde(skip)]
    are_run: bool,
}

/// A package or a library.
#[derive(Serialize)]
struct Part {
    name: String,
    old: Option<String>,
    new: Option<String>,
    loaded_by: Vec<String>,
    /// The steps in whose image it is installed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    in_image_of: Vec<String>,
    #[serde(skip)]
    may_explain: bool,
}

#[derive(Serialize)]
struct Fact {
    name: String,
    old: Option<String>,
    new: Option<String>,
}

impl Answer {
    fn new(changes: Vec<FactChange>, are_run: bool) -> Self {
        let mut answer = Self { packages: Vec::new(), libraries: Vec::new(), facts: Vec::new(), are_run };
        for FactChange { name, old, new, steps: loaded_by, in_image_of, may_explain } in changes {
            let loaded = |name: &str| {
                let (name, old, new) = (name.to_owned(), old.clone(), new.clone());
                Part { name, old, new, loaded_by, in_image_of, may_explain }
            };
            if let Some(package) = name.strip_prefix("package ") {
                answer.packages.push(loaded(package));
            } else if let Some(library) = name.strip_prefix("library ") {
                answer.libraries.push(loaded(library));
            } else {
                answer.facts.push(Fact { name, old, new });
            }
        }
        answer
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.are_run {
            let text = "one side has not been run: only what locks and images have is compared";
            writeln!(f, "{}", paint(FAINT, text))?;
        }
        if self.packages.is_empty() && self.libraries.is_empty() && self.facts.is_empty() {
            return writeln!(f, "No difference.");
        }
        for (title, all) in [("Packages", &self.packages), ("Libraries", &self.libraries)] {
            if !all.is_empty() {
                writeln!(f, "{}", paint(NAME, title))?;
            }
            for one in all {
                let by = match (one.loaded_by.as_slice(), one.in_image_of.as_slice()) {
                    ([], []) => "loaded by no step".to_owned(),
                    ([], steps) => format!("in the image of {}", steps.join(", ")),
                    (steps, _) => format!("loaded by {}", steps.join(", ")),
                };
                let differs = if one.may_explain { ", whose output differs" } else { "" };
                let by = paint(FAINT, format!("({by}{differs})"));
                writeln!(f, "  {}  {} -> {}  {by}", one.name, fact(one.old.as_ref()), fact(one.new.as_ref()))?;
            }
        }
        if !self.facts.is_empty() {
            writeln!(f, "{}", paint(NAME, "Facts"))?;
        }
        for one in &self.facts {
            writeln!(f, "  {}  {} -> {}", one.name, fact(one.old.as_ref()), fact(one.new.as_ref()))?;
        }
        Ok(())
    }
}
