//! Saying how what came out differs from what is on record, and which changes of the environment that is consistent with.

use std::collections::{BTreeMap, BTreeSet};

use crate::cli::DEFAULT_PIPELINE;
use crate::cli::answer::{count, fact};
use crate::cli::diff::side;
use crate::cli::fail::CliError;
use crate::cli::reach::Reach;
use crate::cli::ui::{FAINT, GOOD, Ui, paint};
use crate::compare::{self, Comparison, FILE_MAX_BYTES};
use crate::diff::{FactChange, diff};
use crate::path::ProjectPath;
use crate::project::Project;
use crate::record::Recipe;
use crate::run::{Compared, Report, Work};
use crate::store::DryStore;

/// Of so many outputs it is found out how they differ.
const OUTPUTS_MAX: usize = 100;
/// So many places of an output are told to people.
const PLACES_MAX: usize = 5;
/// So many changes of the environment are told to people.
const CHANGES_MAX: usize = 5;

/// How the outputs of a run differ from those of the run that they were compared with.
#[derive(Default)]
pub(super) struct Differences {
    /// By output; one that could not be compared is not there.
    outputs: BTreeMap<ProjectPath, Vec<Comparison>>,
    /// Outputs that could not be compared, and why not.
    unread: BTreeMap<ProjectPath, String>,
    /// What of the environment differs between the two runs, first what a step was given or used whose output differs.
    pub(super) environment: Vec<FactChange>,
}

impl Differences {
    /// Compares the outputs that differ, and the environments of the two runs.
    ///
    /// What cannot be read any more is no error: that it differs is known all the same.
    ///
    /// # Errors
    ///
    /// [`CliError`] if records cannot be read.
    pub(super) fn of(project: &Project, reach: &Reach<'_>, work: &Work<'_>, report: &Report) -> Result<Self, CliError> {
        let mut differences = Self::default();
        for output in report.compared.iter().filter(|output| output.differs()).take(OUTPUTS_MAX) {
            match compared(work, output) {
                Ok(found) => drop(differences.outputs.insert(output.path.clone(), found)),
                Err(why) => drop(differences.unread.insert(output.path.clone(), why)),
            }
        }
        let is_empty = differences.outputs.is_empty() && differences.unread.is_empty();
        if let Some(against) = report.run.against.filter(|_| !is_empty) {
            let dry = DryStore::over(reach.store());
            let from = side(project, reach, &against.to_string())?;
            let to = side(project, reach, &report.id.to_string())?;
            let mut changes = variables(from.side().recipes, to.side().recipes, report);
            changes.extend(diff(&dry, &from.side(), &to.side())?.environment);
            changes.sort_by_key(|change| (!change.may_explain, change.steps.is_empty()));
            differences.environment = changes;
        }
        Ok(differences)
    }

    /// Returns how an output differs: one comparison for a file, for a directory one for each path in it that differs.
    pub(super) fn at(&self, path: &ProjectPath) -> &[Comparison] {
        self.outputs.get(path).map(Vec::as_slice).unwrap_or_default()
    }

    /// Says where an output differs, a line each.
    pub(super) fn tell_output(&self, ui: &Ui, path: &ProjectPath) {
        if let Some(why) = self.unread.get(path) {
            ui.say(format!("  {}", paint(FAINT, format!("it cannot be told how: {why}"))));
        }
        let texts: Vec<String> = self.at(path).iter().map(Comparison::to_string).collect();
        let lines: Vec<&str> = texts.iter().flat_map(|text| text.lines()).collect();
        lines.iter().take(PLACES_MAX).for_each(|line| ui.say(format!("  {line}")));
        if let Some(more) = lines.len().checked_sub(PLACES_MAX).filter(|more| *more > 0) {
            ui.say(format!("  {}", paint(FAINT, format!("and {} more", count(more as u64, "line")))));
        }
    }

    /// Says which changes of the environment that is consistent with, and how to go on.
    pub(super) fn tell_rest(&self, ui: &Ui, report: &Report, revision: &str) {
        let Some(first) = report.compared.iter().find(|output| output.differs()) else { return };
        if let Some(against) = report.run.against {
            let run = against.short();
            if self.environment.is_empty() {
                ui.say(format!("the environment is the same as that of run {run}, as far as it is on record"));
            } else {
                ui.say(format!(
                    "this is consistent with what changed in the environment since run {run}, the likeliest first:"
                ));
            }
            for change in self.environment.iter().take(CHANGES_MAX) {
                ui.say(format!("  {}", told(change)));
            }
            if let Some(more) = self.environment.len().checked_sub(CHANGES_MAX).filter(|more| *more > 0) {
                let all = format!("`pv env diff {run} {}` shows all", report.id.short());
                ui.say(format!("  {}", paint(FAINT, format!("and {}; {all}", count(more as u64, "change")))));
            }
        }
        let pipeline = &report.run.pipeline;
        let named = if pipeline == DEFAULT_PIPELINE { String::new() } else { format!("--pipeline {pipeline} ") };
        ui.say(format!(
            "{} `pv {named}verify {revision} {} --why` finds out by experiment what the result depends on",
            paint(GOOD, "hint:"),
            first.step
        ));
    }
}

/// Returns how an output differs from what is on record, or why that cannot be told.
fn compared(work: &Work<'_>, output: &Compared) -> Result<Vec<Comparison>, String> {
    let before = output.before.as_ref().ok_or("nothing is on record")?;
    if before.size.max(output.now.size) > FILE_MAX_BYTES {
        return Err("it is too large to be compared on the way".to_owned());
    }
    let step = work.pipeline.step(&output.step);
    let tolerance = step.and_then(|(_, step)| step.compare.get(&output.path)).copied().unwrap_or_default();
    let (old, new) = (before.entry(), output.now.entry());
    compare::compare_outputs(work.store, &output.path, Some(&old), Some(&new), &tolerance)
        .map_err(|error| error.to_string())
}

/// Returns the variables that steps were given with another value: in a replay they come from whoever runs it.
fn variables(old: &BTreeMap<String, Recipe>, new: &BTreeMap<String, Recipe>, report: &Report) -> Vec<FactChange> {
    let mut found: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for (step, after) in new {
        let Some(before) = old.get(step) else { continue };
        for name in before.env.keys().chain(after.env.keys()).collect::<BTreeSet<_>>() {
            let (old, new) = (before.env.get(name).cloned(), after.env.get(name).cloned());
            if old != new {
                found.entry((format!("variable {name}"), old, new)).or_default().push(step.clone());
            }
        }
    }
    let differs = |step: &String| report.compared.iter().any(|output| output.step == *step && output.differs());
    let changes = found.into_iter().map(|((name, old, new), steps)| {
        let may_explain = steps.iter().any(differs);
        FactChange { name, old, new, steps, may_explain, in_image_of: Vec::new() }
    });
    changes.collect()
}

fn told(change: &FactChange) -> String {
    let differs = if change.may_explain { ", whose output differs" } else { "" };
    let by = match change.steps.as_slice() {
        [] => String::new(),
        steps => format!("  {}", paint(FAINT, format!("(used by {}{differs})", steps.join(", ")))),
    };
    format!("{}  {} -> {}{by}", change.name, fact(change.old.as_ref()), fact(change.new.as_ref()))
}
