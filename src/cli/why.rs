//! `pv why`: what made a step's key differ.

use std::fmt;

use serde::Serialize;

use super::Global;
use super::fail::CliError;
use super::open;
use super::ui::{FAINT, NAME, Ui, paint};
use crate::project::Project;
use crate::run::{Change, ChangeKind, Explanation, Foreseen, explain};
use crate::snapshot::capture_working;
use crate::store::DryStore;

/// Show why a step would run: everything that is not what it was
///
/// Compares the working tree with the last result of the step, down to the file, the
/// param, the variable and the package. Writes nothing.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The step
    step: String,
}

pub(super) fn run(ui: &mut Ui, global: &Global, args: &Args) -> Result<u8, CliError> {
    let project = open::project(ui, global)?;
    // As for `pv status`: the names of what is in the store are enough, unless a file has to be read.
    let explanation = explanation(ui, &project, &DryStore::of_names(&project.store), &args.step)
        .or_else(|_| explanation(ui, &project, &DryStore::over(&project.store), &args.step))?;
    ui.show(&Answer(explanation))?;
    Ok(0)
}

fn explanation(ui: &Ui, project: &Project, dry: &DryStore<'_>, step: &str) -> Result<Explanation, CliError> {
    let captured = {
        let progress = ui.progress("Hashing");
        capture_working(project.site(), dry, &|files, bytes| progress.count(files, bytes))?
    };
    let pipeline = captured.pipeline();
    let Some((index, _)) = pipeline.step(step) else {
        let names: Vec<_> = pipeline.steps.iter().map(|step| format!("`{}`", step.name)).collect();
        return Err(
            CliError::usage(format!("there is no step `{step}`")).hint(format!("the steps are {}", names.join(", ")))
        );
    };
    let version = crate::revision::version_of(&project.names(&project.commits()), captured.id)?;
    let version = version.or_else(|| pipeline.version.clone());
    let mut steps = open::Steps::new(project, pipeline, &captured.params, version.as_deref())?;
    Ok(explain(&steps.work(&captured.snapshot, dry)?, index)?)
}

#[derive(Serialize)]
#[serde(transparent)]
struct Answer(Explanation);

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Explanation { step, verdict, reason, against, changes, .. } = &self.0;
        let does = match verdict {
            Foreseen::Reuse => "would be reused",
            Foreseen::Run => "would run",
            Foreseen::Wait => "would be decided later",
        };
        let against = match against {
            Some(run) if !changes.is_empty() => format!("; compared with run {}", run.short()),
            _ => String::new(),
        };
        let is_listed = *verdict == Foreseen::Run && !changes.is_empty();
        let reason = if is_listed { String::new() } else { format!(": {reason}") };
        writeln!(f, "{} {does}{reason}{}", paint(NAME, step), paint(FAINT, against))?;
        let kinds = changes.iter().map(|change| change.kind.to_string().len()).max().unwrap_or_default();
        let names = changes.iter().map(|change| change.name.chars().count()).max().unwrap_or_default();
        for change in changes {
            let (old, new) = (value(change, change.old.as_ref()), value(change, change.new.as_ref()));
            let kind = change.kind.to_string();
            writeln!(f, "  {}  {:names$}  {old} -> {new}", paint(FAINT, format!("{kind:kinds$}")), change.name)?;
        }
        Ok(())
    }
}

/// Returns a value for people: of a digest the first digits.
fn value(change: &Change, value: Option<&String>) -> String {
    let Some(value) = value else { return "(none)".to_owned() };
    let is_digest = matches!(change.kind, ChangeKind::File | ChangeKind::Library | ChangeKind::Environment);
    let short = |word: &str| match word.len() {
        64 if word.bytes().all(|byte| byte.is_ascii_hexdigit()) => word[..12].to_owned(),
        _ => word.to_owned(),
    };
    if is_digest { value.split(' ').map(short).collect::<Vec<_>>().join(" ") } else { value.clone() }
}
