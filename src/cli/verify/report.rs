//! The report of `pv verify`, in a file of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Answer, Args};
use crate::cli::Global;
use crate::cli::fail::CliError;
use crate::cli::run::Subject;
use crate::disk::{self, Durability};
use crate::environment::machine_facts;
use crate::pipeline::{Graph, Pipeline};
use crate::project::Project;
use crate::record::Verification as Recorded;
use crate::run::StepDone;
use crate::verify::{Node, Page, StepVerdict, Used};

/// Returns where the report is written to.
///
/// # Errors
///
/// [`CliError`] if there is a directory, so that nobody waits for an answer that nobody can keep.
pub(super) fn place(global: &Global, given: &Path) -> Result<PathBuf, CliError> {
    let place = crate::cli::open::directory(global)?.join(given);
    if place.is_dir() {
        let told = format!("`{}` is a directory: a report is one file", given.display());
        return Err(CliError::usage(told).hint(format!("`--report {}`", given.join("report.html").display())));
    }
    Ok(place)
}

/// What the report tells besides the answer.
pub(super) struct Around<'a> {
    pub(super) project: &'a Project,
    pub(super) subject: &'a Subject,
    pub(super) graph: &'a Graph,
    pub(super) done: &'a [StepDone],
    pub(super) recorded: &'a Recorded,
    pub(super) args: &'a Args,
}

/// Writes the report, whole or not at all.
///
/// # Errors
///
/// [`CliError`] if what is on record cannot be read, or the file cannot be written; what was there is then still there.
pub(super) fn write(place: &Path, answer: &Answer, around: &Around<'_>) -> Result<(), CliError> {
    let Around { project, subject, graph, done, recorded, args } = around;
    let pipeline = &subject.opened.pipeline;
    let page = Page {
        verdict: answer.verdict(),
        is_good: answer.allowed && !answer.interrupted,
        snapshot: subject.snapshot,
        version: subject.version.as_deref(),
        commit: subject.commit.as_deref(),
        dirty: subject.dirty,
        pipeline: &project.pipeline,
        time: recorded.time,
        by: &recorded.by,
        explained: answer.explained,
        interrupted: answer.interrupted,
        graph: nodes(pipeline, graph),
        steps: &answer.steps,
        machine: machine_facts(),
        used: used(project, done, &answer.steps)?,
        commands: commands(project, subject, args),
    };
    Ok(disk::write_whole(place, page.to_string().as_bytes(), Durability::Synced)?)
}

/// Returns the steps in their order, each with the places of those that it waits for.
fn nodes<'p>(pipeline: &'p Pipeline, graph: &Graph) -> Vec<Node<'p>> {
    let places: BTreeMap<usize, usize> = graph.order.iter().enumerate().map(|(place, index)| (*index, place)).collect();
    let node = |index: &usize| Node {
        name: &pipeline.steps[*index].name,
        waits_for: graph.dependencies[*index].iter().map(|other| places[other]).collect(),
    };
    graph.order.iter().map(node).collect()
}

/// Returns what the steps were seen to use of the machine when what is on record was made.
fn used(project: &Project, done: &[StepDone], steps: &[StepVerdict]) -> Result<BTreeMap<String, Used>, CliError> {
    let mut all = BTreeMap::new();
    for step in steps {
        let Some(done) = done.iter().find(|done| done.step == step.step) else { continue };
        let Some(key) = done.key else { continue };
        let Some((_, result)) = project.journal.results(done.task, key)?.pop() else { continue };
        all.insert(step.step.clone(), Used::of(&result));
    }
    Ok(all)
}

/// Returns what to type to have the same again.
fn commands(project: &Project, subject: &Subject, args: &Args) -> Vec<String> {
    let mut line = "pv".to_owned();
    if project.pipeline != "pipeline" {
        line += &format!(" --pipeline {}", quoted(&project.pipeline));
    }
    line += " verify";
    line += &if args.why { " --why".to_owned() } else { format!(" --runs {}", args.runs) };
    line += &format!(" {}", subject.version.as_deref().map_or_else(|| subject.snapshot.short(), quoted));
    let steps = &subject.opened.pipeline.steps;
    let is_step =
        |name: &&String| steps.iter().any(|step| step.name == **name || step.name.starts_with(&format!("{name}@")));
    for step in args.targets.iter().chain(&args.step).filter(is_step) {
        line += &format!(" --step {}", quoted(step));
    }
    let mut commands = Vec::new();
    if let (Some(commit), false) = (&subject.commit, subject.dirty) {
        commands.push(format!("git checkout {commit}"));
    }
    commands.push(line);
    commands
}

/// Returns `text` as one word of a shell.
fn quoted(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./@=,:".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}
