//! From YAML to a pipeline: the steps.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::object::SEED_MAX;
use crate::yaml::{Key, Node, Value};

use super::claims;
use super::definition::StepSpans;
use super::environment;
use super::expand::expand;
use super::field::{Placed, Reader, subject};
use super::model::{
    Determinism, Home, Isolate, RETRIES_MAX, Resources, Run, Step, StepEnv, TIMEOUT_MAX_S, VERSION_VARIABLE,
};
use super::problem::{Finding, quoted};
use super::reader::{check_step_name, unknown_key};
use super::tolerance;

/// The keys of a step.
pub(super) const KEYS: [&str; 21] = [
    "description",
    "run",
    "inputs",
    "outputs",
    "needs",
    "env",
    "params",
    "metrics",
    "environment",
    "seed",
    "timeout",
    "workdir",
    "matrix",
    "network",
    "home",
    "isolate",
    "determinism",
    "cache",
    "retries",
    "resources",
    "keep",
];

/// What other tools call the same thing.
const ELSEWHERE: [(&str, &str); 21] = [
    ("cmd", "run"),
    ("command", "run"),
    ("script", "run"),
    ("shell", "run"),
    ("deps", "inputs"),
    ("dependencies", "inputs"),
    ("input", "inputs"),
    ("outs", "outputs"),
    ("output", "outputs"),
    ("depends_on", "needs"),
    ("after", "needs"),
    ("wdir", "workdir"),
    ("cwd", "workdir"),
    ("desc", "description"),
    ("foreach", "matrix"),
    ("strategy", "matrix"),
    ("retry", "retries"),
    ("checkpoints", "keep"),
    ("isolation", "isolate"),
    ("container", "environment"),
    ("image", "environment"),
];

const HOMES: [(&str, Home); 2] = [("own", Home::Own), ("host", Home::Host)];
pub(super) const ISOLATES: [(&str, Isolate); 2] = [("observe", Isolate::Observe), ("strict", Isolate::Strict)];

pub(super) const DETERMINISMS: [(&str, Determinism); 2] =
    [("free", Determinism::Free), ("pinned", Determinism::Pinned)];

/// Returns the steps in the order of the file, with their places.
pub(super) fn steps(reader: &mut Reader<'_>, key: &Key, node: &Node, hint: &str) -> (Vec<Step>, Vec<StepSpans>) {
    let is_empty = match &node.value {
        Value::Null => true,
        Value::Map(entries) => entries.is_empty(),
        Value::List(items) => items.is_empty(),
        _ => false,
    };
    if is_empty {
        reader.note(Finding::new("the pipeline has no steps").at(&key.span, "no step follows").hint(hint));
        return Default::default();
    }
    if matches!(node.value, Value::List(_)) {
        let finding = Finding::new("`steps` must be a map from names to steps, found a list");
        reader.note(
            finding.at(&key.span, "a list follows").hint("write each step as `name:` with its keys below, without `-`"),
        );
        return Default::default();
    }
    let Some(entries) = reader.map(node, "`steps`", "a map from names to steps") else { return Default::default() };
    let mut steps = Vec::new();
    let mut spans = Vec::new();
    for (key, _) in entries {
        check_step_name(reader, &key.text, &key.span);
    }
    for (key, node) in &expand(reader, entries) {
        if let Some((step, places)) = step(reader, key, node) {
            steps.push(step);
            spans.push(places);
        }
    }
    (steps, spans)
}

fn step(reader: &mut Reader<'_>, name: &Key, node: &Node) -> Option<(Step, StepSpans)> {
    let owner = format!("step {}", quoted(&name.text));
    if node.value == Value::Null {
        reader.note(nothing_to_run(&owner, name));
        return None;
    }
    if let Value::Text(_) = &node.value {
        let finding = Finding::new(format_args!("{owner} must be a map with the key `run`, found text"));
        reader.note(
            finding.at(&node.span, "expected keys").hint("write `run:` in front of the command, on a line of its own"),
        );
        return None;
    }
    let entries = reader.map(node, &owner, "a map with the key `run`")?;
    let mut spans = StepSpans { name: name.span.clone(), ..StepSpans::default() };
    let mut step = Step {
        name: name.text.clone(),
        description: None,
        run: Run::Program(Vec::new()),
        inputs: None,
        outputs: Vec::new(),
        metrics: Vec::new(),
        compare: BTreeMap::new(),
        needs: Vec::new(),
        env: StepEnv::default(),
        params: Vec::new(),
        environment: None,
        seed: None,
        timeout_s: None,
        workdir: None,
        network: false,
        home: Home::Own,
        isolate: Isolate::Observe,
        determinism: Determinism::Free,
        cache: true,
        retries: 0,
        resources: Resources::default(),
        keep: Vec::new(),
    };
    for (key, node) in entries {
        if !KEYS.contains(&key.text.as_str()) {
            unknown_key(reader, key, &owner, "no step has such a key", &KEYS, &ELSEWHERE);
            continue;
        }
        let what = format!("`{}` of {owner}", key.text);
        if reader.is_given(key, node, &what) {
            field(reader, &key.text, node, &what, &mut step, &mut spans);
        }
    }
    if !entries.iter().any(|(key, _)| key.text == "run") {
        let is_misnamed = entries.iter().any(|(key, _)| ELSEWHERE.contains(&(key.text.as_str(), "run")));
        if !is_misnamed {
            reader.note(nothing_to_run(&owner, name));
        }
    }
    Some((step, spans))
}

fn nothing_to_run(owner: &str, name: &Key) -> Finding {
    let finding = Finding::new(format_args!("{owner} has no `run`")).at(&name.span, "nothing says what to run");
    finding.hint("add `run:` with the command")
}

fn field(reader: &mut Reader<'_>, key: &str, node: &Node, what: &str, step: &mut Step, spans: &mut StepSpans) {
    match key {
        "description" => step.description = reader.text(node, what, "text").map(|text| text.trim().to_owned()),
        "run" => step.run = run(reader, node, what).unwrap_or(Run::Program(Vec::new())),
        "inputs" => {
            let (inputs, places) = reader.paths(node, what);
            step.inputs = Some(inputs);
            spans.inputs = places;
        }
        "outputs" | "metrics" => {
            let (paths, places, tolerances) = tolerance::outputs(reader, node, what);
            step.compare.extend(tolerances);
            if key == "outputs" {
                (step.outputs, spans.outputs) = (paths, places);
            } else {
                (step.metrics, spans.metrics) = (paths, places);
            }
        }
        "needs" => (step.needs, spans.needs) = names(reader, node, what, "a name of a step"),
        "params" => (step.params, spans.params) = names(reader, node, what, "a dotted key as text"),
        "env" => step.env = env(reader, node, what),
        "environment" => step.environment = environment::read(reader, node, what),
        "seed" => step.seed = reader.integer(node, what, 0, SEED_MAX),
        "timeout" => step.timeout_s = timeout_s(reader, node, what),
        // The project's root is where a command starts anyway.
        "workdir" if matches!(&node.value, Value::Text(text) if is_root(text)) => {}
        "workdir" => step.workdir = reader.path(node, what, "a path"),
        "network" => step.network = reader.boolean(node, what).unwrap_or(false),
        "home" => step.home = reader.choice(node, what, &HOMES).unwrap_or_default(),
        "isolate" => {
            spans.isolate = Some(node.span.clone());
            step.isolate = reader.choice(node, what, &ISOLATES).unwrap_or_default();
        }
        "determinism" => {
            spans.determinism = Some(node.span.clone());
            step.determinism = reader.choice(node, what, &DETERMINISMS).unwrap_or_default();
        }
        "cache" => step.cache = reader.boolean(node, what).unwrap_or(true),
        "retries" => step.retries = reader.small(node, what, 0, RETRIES_MAX).unwrap_or_default(),
        "resources" => step.resources = claims::resources(reader, node, what),
        "keep" => (step.keep, spans.keep) = reader.paths(node, what),
        _ => unreachable!("only known keys come here"),
    }
}

fn is_root(text: &str) -> bool {
    text.starts_with('.') && text.split('/').all(|part| matches!(part, "" | "."))
}

fn names(reader: &mut Reader<'_>, node: &Node, what: &str, expected: &str) -> (Vec<String>, Vec<Range<usize>>) {
    let subject = subject(node, what);
    reader.set(node, what, |reader, item| reader.text(item, &subject, expected), Clone::clone)
}

/// Returns a text, or a number that is spelled as it prints; what else would change on the way is noted.
fn word(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<String> {
    match &node.value {
        Value::Int(value) if reader.spelled(node) == value.to_string() => Some(value.to_string()),
        Value::Text(text) if !text.contains('\0') => Some(text.clone()),
        Value::Text(_) => reader.text(node, what, "text"),
        _ => {
            reader.wrong(node, what, "text");
            None
        }
    }
}

fn run(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<Run> {
    const EXPECTED: &str = "a command as text, or a list of a program and its arguments";
    let Value::List(items) = &node.value else {
        let text = reader.text(node, what, EXPECTED)?;
        return Some(Run::Shell(text.trim_end_matches(['\n', '\r']).to_owned()));
    };
    let Some(program) = items.first() else {
        reader.note(Finding::new(format_args!("{what} is empty")).at(&node.span, format_args!("expected {EXPECTED}")));
        return None;
    };
    let mut words = vec![reader.text(program, &format!("the program in {what}"), "text")];
    let item_of = subject(node, what);
    words.extend(items[1..].iter().map(|item| word(reader, item, &item_of)));
    words.into_iter().collect::<Option<_>>().map(Run::Program)
}

fn timeout_s(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<u64> {
    const HINT: &str = "a timeout is a number of seconds, or a text such as `90s`, `5m`, `2h` or `1d`";
    let Value::Text(text) = &node.value else { return reader.integer(node, what, 1, TIMEOUT_MAX_S) };
    let mut letters = text.chars();
    let unit_s = match letters.next_back() {
        Some('s') => Some(1),
        Some('m') => Some(60),
        Some('h') => Some(60 * 60),
        Some('d') => Some(24 * 60 * 60),
        _ => None,
    };
    let number = letters.as_str();
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let Some(unit_s) = unit_s.filter(|_| is_number) else {
        let finding = Finding::new(format_args!("{what} is no length of time: {}", quoted(text)));
        reader.note(finding.at(&node.span, "expected a length of time").hint(HINT));
        return None;
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_s));
    match seconds {
        Some(seconds) if (1..=TIMEOUT_MAX_S).contains(&seconds) => Some(seconds),
        _ => {
            let bound = if seconds == Some(0) { "more than 0" } else { "at most 365 days" };
            let finding = Finding::new(format_args!("{what} must be {bound}, found {}", quoted(text)));
            reader.note(finding.at(&node.span, "out of range"));
            None
        }
    }
}

fn env(reader: &mut Reader<'_>, node: &Node, what: &str) -> StepEnv {
    const EXPECTED: &str = "a map from names to values, or a list of `NAME` and `NAME=value`";
    let mut variables = Variables { seen: BTreeMap::new(), env: StepEnv::default() };
    match &node.value {
        Value::Map(entries) => {
            for (key, node) in entries {
                let subject = format!("{} in {what}", quoted(&key.text));
                let value = if node.value == Value::Null {
                    let finding = Finding::new(format_args!("{subject} has no value")).at(&key.span, "nothing follows");
                    reader.note(
                        finding.hint(format_args!("to pass it through from outside, write `env: [{}]`", key.text)),
                    );
                    None
                } else {
                    word(reader, node, &subject)
                };
                variables.add(reader, what, (key.text.clone(), key.span.clone()), Some(value.unwrap_or_default()));
            }
        }
        Value::List(items) => {
            let item_of = subject(node, what);
            for item in items {
                let Some(text) = reader.text(item, &item_of, "text such as `NAME` or `NAME=value`") else { continue };
                let (name, value) = match text.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (text.as_str(), None),
                };
                variables.add(reader, what, (name.to_owned(), item.span.clone()), value);
            }
        }
        _ => reader.wrong(node, what, EXPECTED),
    }
    variables.env
}

struct Variables {
    seen: BTreeMap<String, Range<usize>>,
    env: StepEnv,
}

impl Variables {
    fn add(&mut self, reader: &mut Reader<'_>, what: &str, (name, span): Placed<String>, value: Option<String>) {
        let asks_for_version = name == VERSION_VARIABLE && value.is_none();
        if let Some(fault) = variable_fault(&name).filter(|_| !asks_for_version) {
            let finding = Finding::new(format_args!("{} in {what} cannot be set", quoted(&name)));
            return reader.note(finding.at(&span, fault));
        }
        if let Some(first) = self.seen.get(&name) {
            let finding = Finding::new(format_args!("{} is given twice in {what}", quoted(&name)));
            return reader.note(finding.at(&span, "given again here").at(first, "first given here"));
        }
        self.seen.insert(name.clone(), span);
        match value {
            Some(value) => drop(self.env.fixed.insert(name, value)),
            None => drop(self.env.passed.insert(name)),
        }
    }
}

fn variable_fault(name: &str) -> Option<&'static str> {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(is_inner) || name.starts_with(|c: char| c.is_ascii_digit()) {
        Some("a name has letters, digits and `_`, and does not start with a digit")
    } else {
        name.starts_with("PV_").then_some("pv itself sets the variables that start with `PV_`")
    }
}
