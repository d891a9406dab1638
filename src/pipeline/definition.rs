//! A definition: the pipeline together with the places of its parts in the file.

use std::ops::Range;

use crate::path::ProjectPath;
use crate::yaml;

use super::check;
use super::graph::Graph;
use super::model::{ParamsSource, Pipeline, Step};
use super::overlap::PathMap;
use super::params::{Params, ParamsError};
use super::problem::{DefinitionError, Finding, SHOWN_MAX, quoted, told_once};
use super::reader;
use super::suggest::did_you_mean;

/// A pipeline that was read from a file.
#[derive(Clone, Debug)]
pub struct Definition {
    /// The pipeline in its normalised form.
    pub pipeline: Pipeline,
    /// The order of its steps.
    pub graph: Graph,
    file: String,
    text: String,
    spans: Spans,
}

/// Where the parts of a pipeline stand; each list goes with the list of the same name in the model.
#[derive(Clone, Debug, Default)]
pub(super) struct Spans {
    /// Where `determinism` stands at the top, if it does.
    pub(super) determinism: Option<Range<usize>>,
    pub(super) data: Vec<Range<usize>>,
    pub(super) params: Vec<Range<usize>>,
    pub(super) steps: Vec<StepSpans>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct StepSpans {
    pub(super) name: Range<usize>,
    pub(super) inputs: Vec<Range<usize>>,
    pub(super) outputs: Vec<Range<usize>>,
    pub(super) metrics: Vec<Range<usize>>,
    pub(super) needs: Vec<Range<usize>>,
    pub(super) params: Vec<Range<usize>>,
    pub(super) keep: Vec<Range<usize>>,
    /// Where `isolate` stands, if it does.
    pub(super) isolate: Option<Range<usize>>,
    /// Where `determinism` stands, if it does.
    pub(super) determinism: Option<Range<usize>>,
}

/// Returns the definition in `text`, shown as `file` in errors.
///
/// Costs one pass over the text and one over the paths; touches no other file.
///
/// # Errors
///
/// [`DefinitionError`] with every independent problem that can be seen in the
/// file alone.
pub fn read(text: &[u8], file: &str) -> Result<Definition, DefinitionError> {
    let root = yaml::read_spanned(text).map_err(|error| DefinitionError::from_yaml(file, text, error))?;
    // The reader accepts UTF-8 only, so nothing is lost.
    let text = String::from_utf8_lossy(text).into_owned();
    let failed = |findings| DefinitionError::new(file, &text, told_once(findings));
    let (pipeline, spans) = reader::read(&text, &root).map_err(failed)?;
    let graph = check::check(&pipeline, &spans).map_err(failed)?;
    Ok(Definition { pipeline, graph, file: file.to_owned(), text, spans })
}

impl Definition {
    /// Checks that every input is there: written by a step, in the project, or part of a data root that is there.
    ///
    /// `exists` says whether a path is in the project.
    ///
    /// # Errors
    ///
    /// [`DefinitionError`] with each input that is missing.
    pub fn check_inputs(&self, exists: &dyn Fn(&ProjectPath) -> bool) -> Result<(), DefinitionError> {
        let mut known = PathMap::default();
        let written = self.pipeline.steps.iter().flat_map(Step::written);
        written.for_each(|path| known.insert(path.clone(), ()));
        self.pipeline.data.iter().filter(|root| exists(root)).for_each(|root| known.insert(root.clone(), ()));
        let mut findings = Vec::new();
        for (step, spans) in self.pipeline.steps.iter().zip(&self.spans.steps) {
            for (input, span) in step.inputs.iter().flatten().zip(&spans.inputs) {
                if known.overlapping(input).next().is_none() && !exists(input) {
                    let finding = Finding::new(format_args!(
                        "input {} of step `{}` is missing",
                        quoted(&input.display()),
                        step.name
                    ));
                    let finding = finding.at(span, "no step writes it, and it is not in the project");
                    let hint = (findings.len() < SHOWN_MAX).then(|| self.input_hint(step, input)).flatten();
                    findings.push(finding.maybe_hint(hint));
                }
            }
        }
        self.result(findings)
    }

    fn input_hint(&self, step: &Step, input: &ProjectPath) -> Option<String> {
        // What another combination of the same matrix reads is no slip.
        let others =
            self.pipeline.steps.iter().filter(|other| other.name == step.name || other.family() != step.family());
        let written = others.flat_map(|other| other.written().chain(other.inputs.iter().flatten()));
        let known: Vec<_> =
            written.chain(&self.pipeline.data).filter(|path| *path != input).map(|path| path.display()).collect();
        let slip = did_you_mean(&input.display(), known.iter().map(AsRef::as_ref));
        let is_pattern = input.as_bytes().iter().any(|byte| b"*?".contains(byte));
        slip.or_else(|| is_pattern.then(|| "patterns are not expanded; name the directory instead".to_owned()))
    }

    /// Checks that every param that a step uses is given.
    ///
    /// # Errors
    ///
    /// [`DefinitionError`] with each param that is not.
    pub fn check_params(&self, params: &Params) -> Result<(), DefinitionError> {
        let keys = params.keys();
        let mut findings = Vec::new();
        for (step, spans) in self.pipeline.steps.iter().zip(&self.spans.steps) {
            for (key, span) in step.params.iter().zip(&spans.params) {
                if params.get(key).is_none() {
                    let finding =
                        Finding::new(format_args!("step `{}` uses the unknown param {}", step.name, quoted(key)));
                    let slip = (findings.len() < SHOWN_MAX)
                        .then(|| did_you_mean(key, keys.iter().map(String::as_str)))
                        .flatten();
                    findings.push(
                        finding.at(span, self.where_params_are()).maybe_hint(slip.or_else(|| self.params_hint(&keys))),
                    );
                }
            }
        }
        self.result(findings)
    }

    fn where_params_are(&self) -> String {
        let names: Vec<_> = self.pipeline.params.iter().map(ParamsSource::to_string).collect();
        match names.as_slice() {
            [] => "this pipeline has no params".to_owned(),
            [name] => format!("{name} has no such key"),
            names => format!("none of {} has such a key", names.join(", ")),
        }
    }

    fn params_hint(&self, keys: &[String]) -> Option<String> {
        const LISTED_MAX: usize = 8;
        if self.pipeline.params.is_empty() {
            return Some("say where params come from: `params: params.yaml` beside `steps`".to_owned());
        }
        let listed: Vec<_> = keys.iter().take(LISTED_MAX).map(|key| quoted(key)).collect();
        let rest = if keys.len() > LISTED_MAX { ", ..." } else { "" };
        (!listed.is_empty()).then(|| format!("the known params are {}{rest}", listed.join(", ")))
    }

    /// Returns what is wrong with the params, shown where this definition names their source.
    pub fn locate(&self, error: &ParamsError) -> DefinitionError {
        let place = |source: usize| self.spans.params.get(source).cloned();
        let place_of = |path: &ProjectPath| {
            let is_it = |source: &ParamsSource| matches!(source, ParamsSource::File(file) if file == path);
            self.pipeline.params.iter().position(is_it).and_then(place)
        };
        let finding = match error {
            ParamsError::Content(content) => return (**content).clone(),
            ParamsError::Missing { path } => {
                place_of(path).map(|span| Finding::new(error).at(&span, "no such file in the project"))
            }
            ParamsError::Kind { path } => place_of(path).map(|span| Finding::new(error).at(&span, "")),
            ParamsError::GivenTwice { sources: (first, second), .. } => {
                place(*first).zip(place(*second)).map(|(first, second)| {
                    let finding = Finding::new(error).at(&second, "given again here").at(&first, "first given here");
                    finding.hint("give each top-level key in one source only")
                })
            }
        };
        let finding = finding.unwrap_or_else(|| Finding::new(error));
        DefinitionError::new(&self.file, &self.text, vec![finding])
    }

    fn result(&self, findings: Vec<Finding>) -> Result<(), DefinitionError> {
        if findings.is_empty() {
            Ok(())
        } else {
            Err(DefinitionError::new(&self.file, &self.text, told_once(findings)))
        }
    }
}
