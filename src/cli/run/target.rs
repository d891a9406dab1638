//! What the arguments of `pv run` name: a revision, steps, or both.

use super::Args;
use crate::cli::fail::CliError;
use crate::disk;
use crate::pipeline::{self, Graph, Pipeline};
use crate::project::Project;
use crate::revision::{self, RevisionError};
use crate::run::{Selection, Wish};
use crate::snapshot::definition_path;

/// What is to be run, before anything is read for it.
pub(super) struct Target {
    /// The revision; without one it is the working tree.
    pub(super) revision: Option<String>,
    /// The steps; without any it is all of them.
    wishes: Vec<Wish>,
    /// A first argument that is no revision, so that it must be a step.
    not_a_revision: Option<String>,
}

impl Target {
    /// Tells revision and steps apart: the first argument is a revision if it names one, all others are steps.
    ///
    /// # Errors
    ///
    /// [`CliError`] if the first argument could be both, or if an option needs a revision and there is none.
    pub(super) fn of(project: &Project, args: &Args) -> Result<Self, CliError> {
        let mut rest = args.targets.as_slice();
        let mut target = Self { revision: None, wishes: Vec::new(), not_a_revision: None };
        if let Some((first, others)) = rest.split_first() {
            if !is_revision(project, first) {
                target.not_a_revision = Some(first.clone());
            } else if is_step(project, first) {
                return Err(both(first));
            } else {
                target.revision = Some(first.clone());
                rest = others;
            }
        }
        target.wishes = rest.iter().chain(&args.step).map(|text| Wish::parse(text)).collect();
        let needs_revision = [("--reuse", args.reuse), ("--restore", args.restore)];
        if let Some((option, _)) = needs_revision.iter().find(|(_, is_given)| *is_given && target.revision.is_none()) {
            return Err(CliError::usage(format!("`{option}` is for a revision, and none is named")));
        }
        if args.only && target.wishes.is_empty() {
            return Err(CliError::usage("`--only` is for steps, and none is named").hint("`pv run --only STEP`"));
        }
        Ok(target)
    }

    /// Returns which steps of `pipeline` are meant.
    ///
    /// # Errors
    ///
    /// [`CliError`] if one of them is not there.
    pub(super) fn selection(&self, pipeline: &Pipeline, graph: &Graph, args: &Args) -> Result<Selection, CliError> {
        if self.wishes.is_empty() {
            return Ok(Selection::everything(pipeline, args.again));
        }
        Selection::of(pipeline, graph, &self.wishes, args.only, args.again).map_err(|error| {
            let could_be_a_revision =
                self.not_a_revision.as_ref().is_some_and(|text| Wish::parse(text).name == error.name);
            let names = pipeline.steps.iter().map(pipeline::Step::family);
            let slip = pipeline::closest(&error.name, names);
            let hint = slip.map_or_else(|| listed(pipeline), |slip| format!("did you mean `{slip}`?"));
            let message = if could_be_a_revision {
                format!("nothing is called `{}`: no revision and no step", error.name)
            } else {
                error.to_string()
            };
            CliError::usage(message).hint(hint)
        })
    }
}

/// Returns whether a text names a revision, or more than one.
fn is_revision(project: &Project, text: &str) -> bool {
    let named = revision::resolve(&project.names(&project.commits()), text);
    !matches!(named, Err(RevisionError::Unknown { .. }))
}

/// Returns whether a step of the working tree's definition has this name; a definition that cannot be read has none.
fn is_step(project: &Project, text: &str) -> bool {
    let read = || {
        let path = definition_path(&project.pipeline)?.under(&project.root);
        let text = disk::read_if_there(&path).ok()??;
        pipeline::read(&text, "").ok()
    };
    read().is_some_and(|definition| !Wish::parse(text).named(&definition.pipeline).is_empty())
}

fn both(text: &str) -> CliError {
    CliError::usage(format!("`{text}` names a revision and a step"))
        .hint(format!("`pv run --step {text}` runs the step; for the revision, name the commit by its digits"))
}

fn listed(pipeline: &Pipeline) -> String {
    const LISTED_MAX: usize = 8;
    let mut names: Vec<_> = pipeline.steps.iter().map(|step| format!("`{}`", step.family())).collect();
    names.dedup();
    let rest = if names.len() > LISTED_MAX { ", ..." } else { "" };
    names.truncate(LISTED_MAX);
    format!("the steps are {}{rest}; `pv log` lists revisions", names.join(", "))
}
