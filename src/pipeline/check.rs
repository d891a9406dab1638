//! What concerns two places at once: writers of one path, data, needs, circles.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::path::ProjectPath;

use super::definition::Spans;
use super::graph::{Circle, Graph, Reason, order};
use super::model::{Determinism, ParamsSource, Pipeline};
use super::overlap::PathMap;
use super::problem::{Finding, SHOWN_MAX, quoted};
use super::suggest::did_you_mean;

/// Directories that belong to Git and to this tool.
const RESERVED: [&str; 2] = [".git", ".pipeline"];

/// Returns the order of the steps, or everything that does not fit together.
pub(super) fn check(pipeline: &Pipeline, spans: &Spans) -> Result<Graph, Vec<Finding>> {
    let mut findings = Vec::new();
    let outputs = outputs(pipeline, spans);
    check_needs(pipeline, spans, &mut findings);
    check_data(pipeline, spans, &mut findings);
    check_writers(&outputs, &mut findings);
    check_places(pipeline, spans, &outputs, &mut findings);
    check_own_inputs(pipeline, spans, &outputs, &mut findings);
    check_kept(pipeline, spans, &outputs, &mut findings);
    check_pinned(pipeline, spans, &mut findings);
    match order(pipeline) {
        Ok(graph) if findings.is_empty() => Ok(graph),
        Ok(_) => Err(findings),
        Err(circle) => {
            findings.push(explain_circle(pipeline, spans, &circle));
            Err(findings)
        }
    }
}

/// A path that a step writes.
#[derive(Clone)]
struct Output<'a> {
    step: usize,
    name: &'a str,
    path: &'a ProjectPath,
    span: &'a Range<usize>,
    key: &'static str,
}

fn outputs<'a>(pipeline: &'a Pipeline, spans: &'a Spans) -> Vec<Output<'a>> {
    let mut all = Vec::new();
    for (index, (step, places)) in pipeline.steps.iter().zip(&spans.steps).enumerate() {
        let outputs = step.outputs.iter().zip(&places.outputs).map(|(path, span)| (path, span, "outputs"));
        let metrics = step.metrics.iter().zip(&places.metrics).map(|(path, span)| (path, span, "metrics"));
        all.extend(outputs.chain(metrics).map(|(path, span, key)| Output {
            step: index,
            name: &step.name,
            path,
            span,
            key,
        }));
    }
    all.sort_by_key(|output| output.span.start);
    all
}

fn show(path: &ProjectPath) -> String {
    quoted(&path.display())
}

fn check_needs(pipeline: &Pipeline, spans: &Spans, findings: &mut Vec<Finding>) {
    let names: BTreeMap<_, _> =
        pipeline.steps.iter().enumerate().map(|(index, step)| (step.name.as_str(), index)).collect();
    for (index, (step, places)) in pipeline.steps.iter().zip(&spans.steps).enumerate() {
        for (needed, span) in step.needs.iter().zip(&places.needs) {
            match names.get(needed.as_str()) {
                None => {
                    let finding =
                        Finding::new(format_args!("step `{}` needs the unknown step {}", step.name, quoted(needed)));
                    let names = pipeline.steps.iter().map(|step| step.name.as_str());
                    let slip = (findings.len() < SHOWN_MAX).then(|| did_you_mean(needed, names)).flatten();
                    findings.push(finding.at(span, "no step has this name").maybe_hint(slip));
                }
                Some(other) if *other == index => {
                    let finding = Finding::new(format_args!("step `{}` needs itself", step.name));
                    findings.push(finding.at(span, "it would wait forever").hint("remove it from `needs`"));
                }
                Some(_) => {}
            }
        }
    }
}

/// A pinned step needs a seed, from which everything follows that it gets. One definition for many steps is told once.
fn check_pinned(pipeline: &Pipeline, spans: &Spans, findings: &mut Vec<Finding>) {
    let mut told = Vec::new();
    for (step, places) in pipeline.steps.iter().zip(&spans.steps) {
        let is_lacking = step.determinism == Determinism::Pinned && step.seed.or(pipeline.seed).is_none();
        let Some(span) = places.determinism.as_ref().or(spans.determinism.as_ref()).filter(|_| is_lacking) else {
            continue;
        };
        if !told.contains(&span) {
            let finding = Finding::new(format_args!("step `{}` is pinned and has no seed", step.name));
            let label = "its entropy cannot follow from a seed";
            findings.push(
                finding.at(span, label).hint("give the pipeline a seed, such as `seed: 42`, or the step its own"),
            );
            told.push(span);
        }
    }
}

/// Data roots may not lie in each other, in `.git` or in `.pipeline`.
fn check_data(pipeline: &Pipeline, spans: &Spans, findings: &mut Vec<Finding>) {
    let mut roots: PathMap<&Range<usize>> = PathMap::default();
    for (root, span) in pipeline.data.iter().zip(&spans.data) {
        if let Some((other, first)) = roots.overlapping(root).next() {
            let finding = Finding::new(format_args!("data root {} lies in data root {}", show(root), show(other)));
            findings.push(
                finding
                    .at(span, "already part of the other")
                    .at(first, "the other root")
                    .hint("keep only the outer one"),
            );
        }
        if let Some(reserved) = reserved(root) {
            let finding = Finding::new(format_args!("data root {} lies in `{reserved}`", show(root)));
            findings.push(finding.at(span, format_args!("`{reserved}` is kept for other things")));
        }
        roots.insert(root.clone(), span);
    }
}

fn reserved(path: &ProjectPath) -> Option<&'static str> {
    let first = path.names().next()?;
    RESERVED.into_iter().find(|name| name.as_bytes() == first)
}

fn check_writers(outputs: &[Output<'_>], findings: &mut Vec<Finding>) {
    let mut written: PathMap<&Output<'_>> = PathMap::default();
    for output in outputs {
        if let Some((_, first)) = written.overlapping(output.path).next() {
            findings.push(two_writers(first, output));
        }
        written.insert(output.path.clone(), output);
    }
}

fn two_writers(first: &Output<'_>, second: &Output<'_>) -> Finding {
    if first.span == second.span {
        let finding =
            Finding::new(format_args!("steps `{}` and `{}` both write {}", first.name, second.name, show(second.path)));
        let label = "each combination of the matrix writes this";
        return finding.at(second.span, label).hint("let the values of the matrix be part of it: `${matrix.NAME}`");
    }
    let (one, two) = (show(first.path), show(second.path));
    let message = match (first.step == second.step, first.path == second.path) {
        (true, true) => format!("step `{}` lists {two} under `{}` and under `{}`", second.name, first.key, second.key),
        (true, false) => format!("step `{}` lists {two} and {one}, which overlap", second.name),
        (false, true) => format!("steps `{}` and `{}` both write {two}", first.name, second.name),
        (false, false) => format!("step `{}` writes {two}, which overlaps {one} of step `{}`", second.name, first.name),
    };
    let hint = match (first.step == second.step, first.key == second.key) {
        (true, false) => "metrics are outputs, too: list each path once, and a directory not beside what lies in it",
        (true, true) => "a directory stands for everything in it: list only one of them",
        (false, _) => "each path has one writer: give every step a file or directory of its own",
    };
    Finding::new(message).at(second.span, "written again here").at(first.span, "first written here").hint(hint)
}

/// Outputs may not be mixed with data, params files, Git's files or the definition.
fn check_places(pipeline: &Pipeline, spans: &Spans, outputs: &[Output<'_>], findings: &mut Vec<Finding>) {
    let mut roots: PathMap<&Range<usize>> = PathMap::default();
    pipeline.data.iter().zip(&spans.data).for_each(|(root, span)| roots.insert(root.clone(), span));
    let mut files: PathMap<&Range<usize>> = PathMap::default();
    for (source, span) in pipeline.params.iter().zip(&spans.params) {
        if let ParamsSource::File(path) = source {
            files.insert(path.clone(), span);
        }
    }
    for output in outputs {
        let subject = format!("output {} of step `{}`", show(output.path), output.name);
        if let Some(reserved) = reserved(output.path) {
            let finding = Finding::new(format_args!("{subject} lies in `{reserved}`"));
            findings.push(finding.at(output.span, format_args!("no step may write into `{reserved}`")));
        }
        if let Some((root, span)) = roots.overlapping(output.path).next() {
            let relation = if output.path.is_within(root) { "lies in" } else { "contains" };
            let finding = Finding::new(format_args!("{subject} {relation} the data root {}", show(root)));
            let finding = finding.at(output.span, "written here").at(span, "data that steps only read");
            findings.push(finding.hint("data is what steps start from: write outputs somewhere else"));
        }
        if let Some((file, span)) = files.overlapping(output.path).next() {
            let finding = Finding::new(format_args!("{subject} would overwrite the params file {}", show(file)));
            findings.push(finding.at(output.span, "written here").at(span, "read before any step runs"));
        }
    }
}

/// A step that reads what it writes would have to run before itself.
fn check_own_inputs(pipeline: &Pipeline, spans: &Spans, outputs: &[Output<'_>], findings: &mut Vec<Finding>) {
    let mut written: PathMap<&Output<'_>> = PathMap::default();
    for output in outputs {
        written.insert(output.path.clone(), output);
    }
    for (index, (step, places)) in pipeline.steps.iter().zip(&spans.steps).enumerate() {
        for (input, span) in step.inputs.iter().flatten().zip(&places.inputs) {
            let Some((path, output)) = written.overlapping(input).find(|(_, output)| output.step == index) else {
                continue;
            };
            let message = if input == path {
                format!("step `{}` lists {} as input and as output", step.name, show(input))
            } else {
                format!("step `{}` reads {} and writes {}, which overlap", step.name, show(input), show(path))
            };
            let finding = Finding::new(message).at(output.span, "written here").at(span, "read here");
            findings.push(finding.hint("write to another path, so that the input stays what it was"));
        }
    }
}

/// What a step keeps for its next attempt is no input and no output of any step, and no other step's to keep.
fn check_kept(pipeline: &Pipeline, spans: &Spans, outputs: &[Output<'_>], findings: &mut Vec<Finding>) {
    let mut taken: PathMap<(&str, &'static str, &Range<usize>)> = PathMap::default();
    for output in outputs {
        taken.insert(output.path.clone(), (output.name, "writes", output.span));
    }
    for (step, places) in pipeline.steps.iter().zip(&spans.steps) {
        for (input, span) in step.inputs.iter().flatten().zip(&places.inputs) {
            taken.insert(input.clone(), (&step.name, "reads", span));
        }
    }
    for (root, span) in pipeline.data.iter().zip(&spans.data) {
        taken.insert(root.clone(), ("", "reads", span));
    }
    for (step, places) in pipeline.steps.iter().zip(&spans.steps) {
        for (kept, span) in step.keep.iter().zip(&places.keep) {
            let subject = format!("step `{}` keeps {}", step.name, show(kept));
            if let Some(reserved) = reserved(kept) {
                let finding = Finding::new(format_args!("{subject}, which lies in `{reserved}`"));
                findings.push(finding.at(span, format_args!("`{reserved}` is kept for other things")));
            }
            if let Some((path, (name, verb, first))) = taken.overlapping(kept).next() {
                let who =
                    if name.is_empty() { "every step may read".to_owned() } else { format!("step `{name}` {verb}") };
                let which = if path == kept { "it".to_owned() } else { show(path) };
                let finding = Finding::new(format_args!("{subject}, and {who} {which}"));
                let finding = finding.at(span, "kept here").at(first, "it belongs to this already");
                findings.push(finding.hint("what is kept says nothing about the result: give it a place of its own"));
            }
            taken.insert(kept.clone(), (&step.name, "keeps", span));
        }
    }
}

fn explain_circle(pipeline: &Pipeline, spans: &Spans, circle: &Circle) -> Finding {
    let mut finding = Finding::new(circle);
    let next = circle.steps.iter().cycle().skip(1);
    for ((step, next), reason) in circle.steps.iter().zip(next).zip(&circle.reasons) {
        let (waiting, places) = (&pipeline.steps[*step], &spans.steps[*step]);
        let (name, other) = (&waiting.name, &pipeline.steps[*next].name);
        let place = |list: Option<usize>, places: &[Range<usize>]| list.and_then(|index| places.get(index).cloned());
        let (span, label) = match reason {
            Reason::Reads { input, output } => {
                let index = waiting.inputs.iter().flatten().position(|path| path == input);
                (place(index, &places.inputs), format!("`{name}` reads this; `{other}` writes {}", show(output)))
            }
            Reason::Needs => {
                let index = waiting.needs.iter().position(|needed| needed == other);
                (place(index, &places.needs), format!("`{name}` needs `{other}`"))
            }
            Reason::Follows => {
                (None, format!("`{name}` has no `inputs` and no `needs`, so it runs after `{other}` above it"))
            }
        };
        finding = finding.at(&span.unwrap_or_else(|| places.name.clone()), label);
    }
    finding.hint("break the circle at one of these places, so that some step can start first")
}
