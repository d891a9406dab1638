//! From YAML to a pipeline: the keys at the top.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::object::SEED_MAX;
use crate::path::ProjectPath;
use crate::yaml::{Key, Node, Value};

use super::definition::Spans;
use super::environment::{self, Environment};
use super::field::{Reader, items, step_name_fault, subject};
use super::model::{Determinism, Isolate, NAME_MAX_CHARS, ParamsSource, Pipeline};
use super::params::{ENDINGS, is_params_file};
use super::problem::{Finding, quoted};
use super::step;
use super::suggest::did_you_mean;

/// The keys at the top of a definition.
pub(super) const KEYS: [&str; 8] =
    ["version", "seed", "environment", "params", "data", "isolate", "determinism", "steps"];

/// What other tools call the same thing.
const ELSEWHERE: [(&str, &str); 6] = [
    ("stages", "steps"),
    ("jobs", "steps"),
    ("tasks", "steps"),
    ("rules", "steps"),
    ("parameters", "params"),
    ("vars", "params"),
];

/// Returns the pipeline that is written in `text`, whose tree is `root`, or what is wrong with it.
pub(super) fn read(text: &str, root: &Node) -> Result<(Pipeline, Spans), Vec<Finding>> {
    let mut reader = Reader::new(text);
    let read = pipeline(&mut reader, root);
    match read {
        Some(read) if reader.findings.is_empty() => Ok(read),
        _ => Err(reader.findings),
    }
}

fn pipeline(reader: &mut Reader<'_>, root: &Node) -> Option<(Pipeline, Spans)> {
    const STEPS_HINT: &str = "a pipeline has at least one step: `steps: {hello: {run: echo hello}}`";
    if root.value == Value::Null {
        reader.note(Finding::new("the definition is empty").hint(STEPS_HINT));
        return None;
    }
    let Value::Map(entries) = &root.value else {
        let found = root.value.describe();
        let finding = Finding::new(format_args!("a definition must be a map with the key `steps`, found {found}"));
        reader.note(finding.at(&root.span, "expected `steps:`").hint(STEPS_HINT));
        return None;
    };
    let mut pipeline = Pipeline {
        version: None,
        seed: None,
        environment: Environment::Host,
        params: Vec::new(),
        data: Vec::new(),
        steps: Vec::new(),
    };
    let mut spans = Spans::default();
    let (mut isolate, mut determinism) = (Isolate::default(), Determinism::default());
    for (key, node) in entries {
        let what = format!("`{}`", key.text);
        if !KEYS.contains(&key.text.as_str()) {
            unknown_key(reader, key, "the pipeline", "no pipeline has such a key", &KEYS, &ELSEWHERE);
            continue;
        }
        // Steps that are not there are told as such.
        if key.text != "steps" && !reader.is_given(key, node, &what) {
            continue;
        }
        match key.text.as_str() {
            "version" => pipeline.version = version(reader, node),
            "seed" => pipeline.seed = reader.integer(node, &what, 0, SEED_MAX),
            "environment" => {
                pipeline.environment = environment::read(reader, node, &what).unwrap_or_default();
            }
            "params" => (pipeline.params, spans.params) = params(reader, node),
            "isolate" => isolate = reader.choice(node, &what, &step::ISOLATES).unwrap_or_default(),
            "determinism" => {
                spans.determinism = Some(node.span.clone());
                determinism = reader.choice(node, &what, &step::DETERMINISMS).unwrap_or_default();
            }
            "data" => (pipeline.data, spans.data) = reader.paths(node, &what),
            _ => (pipeline.steps, spans.steps) = step::steps(reader, key, node, STEPS_HINT),
        }
    }
    for (step, spans) in pipeline.steps.iter_mut().zip(&spans.steps) {
        if spans.isolate.is_none() {
            step.isolate = isolate;
        }
        if spans.determinism.is_none() {
            step.determinism = determinism;
        }
    }
    if !entries.iter().any(|(key, _)| key.text == "steps") {
        let start = root.span.start..root.span.start;
        let span = entries.first().map_or(start, |(key, _)| key.span.clone());
        let is_misnamed = entries.iter().any(|(key, _)| !KEYS.contains(&key.text.as_str()));
        // One of the unknown keys is probably meant to be it, and that has been said.
        if !is_misnamed {
            reader.note(Finding::new("the pipeline has no `steps`").at(&span, "").hint(STEPS_HINT));
        }
    }
    Some((pipeline, spans))
}

/// Notes a key that does not exist, with the one that was meant if it can be guessed.
pub(super) fn unknown_key(
    reader: &mut Reader<'_>,
    key: &Key,
    owner: &str,
    label: &str,
    known: &[&'static str],
    elsewhere: &[(&str, &str)],
) {
    let synonym =
        elsewhere.iter().find(|(other, _)| *other == key.text).map(|(_, own)| format!("it is called `{own}` here"));
    let hint = synonym.or_else(|| did_you_mean(&key.text, known.iter().copied()));
    let hint = hint.unwrap_or_else(|| format!("the keys are {}", listed(known)));
    reader.note(
        Finding::new(format_args!("unknown key {} in {owner}", quoted(&key.text))).at(&key.span, label).hint(hint),
    );
}

fn listed(keys: &[&str]) -> String {
    keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
}

fn version(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = reader.text(node, "`version`", "text")?;
    let fault = if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        "a version is one word"
    } else if text.chars().count() > NAME_MAX_CHARS {
        "a version has at most 100 characters"
    } else {
        return Some(text);
    };
    reader.note(Finding::new(format_args!("{} is no version", quoted(&text))).at(&node.span, fault));
    None
}

fn params(reader: &mut Reader<'_>, node: &Node) -> (Vec<ParamsSource>, Vec<Range<usize>>) {
    const EXPECTED: &str = "the path of a file or a map of values";
    let what = subject(node, "`params`");
    let mut sources = Vec::new();
    let mut files: BTreeMap<ProjectPath, Range<usize>> = BTreeMap::new();
    for item in items(node) {
        let source = match &item.value {
            Value::Map(_) => match item.to_json() {
                Ok(serde_json::Value::Object(values)) => Some(ParamsSource::Inline(values)),
                Ok(_) => None,
                Err(error) => {
                    reader.note(error.into());
                    None
                }
            },
            _ => reader.path(item, &what, EXPECTED).map(ParamsSource::File),
        };
        if let Some(ParamsSource::File(path)) = &source {
            let name = quoted(&path.display());
            if !is_params_file(path) {
                let finding = Finding::new(format_args!("{name} in `params` is no params file"));
                reader.note(finding.at(&item.span, format_args!("its name must end in {ENDINGS}")));
            } else if let Some(first) = files.insert(path.clone(), item.span.clone()) {
                let finding = Finding::new(format_args!("{name} is listed twice in `params`"));
                reader.note(finding.at(&item.span, "listed again here").at(&first, "first listed here"));
            }
        }
        sources.extend(source.map(|source| (source, item.span.clone())));
    }
    sources.into_iter().unzip()
}

/// Notes a name that no step can have. Returns whether it is fine.
pub(super) fn check_step_name(reader: &mut Reader<'_>, name: &str, span: &Range<usize>) -> bool {
    let Some(fault) = step_name_fault(name) else { return true };
    reader.note(Finding::new(format_args!("{} is no name for a step", quoted(name))).at(span, fault));
    false
}
