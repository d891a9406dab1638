//! What the arguments of `pv run` name: a revision, steps, or both.

use super::Args;
use crate::cli::fail::CliError;
use crate::disk;
use crate::pipeline::{self, Definition, Graph, Pipeline};
use crate::project::Project;
use crate::revision::{self, RevisionError};
use crate::run::{Selection, Wish};
use crate::snapshot::definition_path;

/// What is to be run, before anything is read for it.
pub(in crate::cli) struct Target {
    /// The revision; without one it is the working tree.
    pub(in crate::cli) revision: Option<String>,
    /// The steps; without any it is all of them.
    wishes: Vec<Wish>,
}

impl Target {
    /// Tells revision and steps apart: the first argument is a revision if it names one, all others are steps.
    ///
    /// # Errors
    ///
    /// [`CliError`] if the first argument could be both, or if an option needs a revision and there is none.
    pub(super) fn of(project: &Project, args: &Args) -> Result<Self, CliError> {
        let target = Self::parse(project, &args.targets, &args.step)?;
        let needs_revision = [("--reuse", args.reuse), ("--restore", args.restore)];
        if let Some((option, _)) = needs_revision.iter().find(|(_, is_given)| *is_given && target.revision.is_none()) {
            return Err(CliError::usage(format!("`{option}` is for a revision, and none is named")));
        }
        if args.only && target.wishes.is_empty() {
            return Err(CliError::usage("`--only` is for steps, and none is named").hint("`pv run --only STEP`"));
        }
        Ok(target)
    }

    /// Tells revision and steps apart: the first of `targets` is a revision if it names one, all others are steps, as are `steps`.
    ///
    /// # Errors
    ///
    /// [`CliError`] if the first one could be both, or is neither.
    pub(in crate::cli) fn parse(project: &Project, targets: &[String], steps: &[String]) -> Result<Self, CliError> {
        let mut rest = targets;
        let mut target = Self { revision: None, wishes: Vec::new() };
        if let Some((first, others)) = rest.split_first() {
            match revision::resolve(&project.names(&project.commits()), first) {
                Err(error @ RevisionError::Unknown { .. }) => refuse_if_nothing(project, first, error)?,
                // Whether it can be had is told when it is opened.
                _ if is_step(project, first) => return Err(both(first)),
                _ => {
                    target.revision = Some(first.clone());
                    rest = others;
                }
            }
        }
        target.wishes = rest.iter().chain(steps).map(|text| Wish::parse(text)).collect();
        Ok(target)
    }

    /// Returns which steps of `pipeline` are named; all of them if none is.
    ///
    /// # Errors
    ///
    /// [`CliError`] if one of them is not there.
    pub(in crate::cli) fn named(&self, pipeline: &Pipeline, graph: &Graph) -> Result<Vec<usize>, CliError> {
        let is_named = |index: &usize| {
            let step = &pipeline.steps[*index];
            self.wishes.iter().any(|wish| wish.named(pipeline).contains(index))
                || (self.wishes.is_empty() && !step.name.is_empty())
        };
        self.select(pipeline, graph, false, false)?;
        Ok(graph.order.iter().copied().filter(is_named).collect())
    }

    /// Returns the steps that are named and those before them, none of them to be executed though its result is known.
    ///
    /// # Errors
    ///
    /// [`CliError`] if one of them is not there.
    pub(in crate::cli) fn up_to(&self, pipeline: &Pipeline, graph: &Graph) -> Result<Selection, CliError> {
        self.select(pipeline, graph, false, false)
    }

    /// Returns which steps of `pipeline` are meant.
    ///
    /// # Errors
    ///
    /// [`CliError`] if one of them is not there.
    pub(super) fn selection(&self, pipeline: &Pipeline, graph: &Graph, args: &Args) -> Result<Selection, CliError> {
        self.select(pipeline, graph, args.only, args.again)
    }

    fn select(&self, pipeline: &Pipeline, graph: &Graph, only: bool, again: bool) -> Result<Selection, CliError> {
        if self.wishes.is_empty() {
            return Ok(Selection::everything(pipeline, again));
        }
        Selection::of(pipeline, graph, &self.wishes, only, again).map_err(|error| {
            let hint = slip(pipeline, &error.name).unwrap_or_else(|| listed(pipeline));
            CliError::usage(error.to_string()).hint(hint)
        })
    }
}

/// Refuses a text that names neither a revision nor a step.
///
/// A definition that cannot be read has to be put right first, so it is no reason to refuse.
fn refuse_if_nothing(project: &Project, text: &str, error: RevisionError) -> Result<(), CliError> {
    let like_a_revision = matches!(&error, RevisionError::Unknown { similar, .. } if !similar.is_empty());
    let definition = definition(project);
    match &definition {
        Some(definition) if !Wish::parse(text).named(&definition.pipeline).is_empty() => Ok(()),
        None if !like_a_revision => Ok(()),
        Some(definition) if !like_a_revision => match slip(&definition.pipeline, &Wish::parse(text).name) {
            Some(hint) => Err(CliError::from(error).hint(hint)),
            None => Err(error.into()),
        },
        _ => Err(error.into()),
    }
}

/// Returns the working tree's definition, if it can be read.
fn definition(project: &Project) -> Option<Definition> {
    let path = definition_path(&project.pipeline)?.under(&project.root);
    pipeline::read(&disk::read_if_there(&path).ok()??, "").ok()
}

fn is_step(project: &Project, text: &str) -> bool {
    definition(project).is_some_and(|definition| !Wish::parse(text).named(&definition.pipeline).is_empty())
}

fn slip(pipeline: &Pipeline, name: &str) -> Option<String> {
    let slip = pipeline::closest(name, pipeline.steps.iter().map(pipeline::Step::family))?;
    Some(format!("did you mean `{slip}`?"))
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
