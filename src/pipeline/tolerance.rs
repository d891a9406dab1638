//! How far the output of a step may differ between two executions and still count as repeated.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::path::ProjectPath;
use crate::yaml::{Key, Node, Value};

use super::field::{Reader, items};
use super::problem::{Finding, quoted};
use super::reader::unknown_key;

/// How much two outputs have in common, the best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The same bytes.
    #[default]
    Identical,
    /// The same content: what differs is how it was written down, such as the times in an archive or the order of keys.
    Canonical,
    /// The same but for numbers, each within the tolerance.
    Close,
    /// Anything else.
    Different,
}

/// What the definition allows for an output. By default it must be identical.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tolerance {
    /// The worst level that still counts as repeated; never [`Level::Different`].
    pub level: Level,
    /// How far a number may be from the other, as a share of the larger of the two; not negative and finite.
    /// `None` leaves it to the precision of the numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtol: Option<f64>,
    /// How far a number may be from the other in any case; not negative and finite. `None` is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub atol: Option<f64>,
}

// No tolerance holds a number that differs from itself.
impl Eq for Tolerance {}

impl Tolerance {
    /// Returns whether outputs that have this much in common count as repeated.
    pub fn allows(&self, level: Level) -> bool {
        level <= self.level
    }
}

impl Level {
    /// Returns the word for it, as definitions and JSON have it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Identical => "identical",
            Self::Canonical => "canonical",
            Self::Close => "close",
            Self::Different => "different",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

const PATH: &str = "path";
const COMPARE: &str = "compare";
const LEVELS: [(&str, Level); 3] =
    [("identical", Level::Identical), ("canonical", Level::Canonical), ("close", Level::Close)];
const KEYS_OF_OUTPUT: [&str; 2] = [PATH, COMPARE];
const KEYS: [&str; 3] = ["level", "rtol", "atol"];
const ELSEWHERE: [(&str, &str); 4] =
    [("rel_tol", "rtol"), ("abs_tol", "atol"), ("relative", "rtol"), ("absolute", "atol")];

/// Returns the path node of an item of `outputs`, which may be a map with `path`; `None` if the map has none.
pub(super) fn path_of(item: &Node) -> Option<&Node> {
    match &item.value {
        Value::Map(entries) => entries.iter().find(|(key, _)| key.text == PATH).map(|(_, node)| node),
        _ => Some(item),
    }
}

/// Returns one or many outputs, sorted, their places, and the tolerances of those that have one.
pub(super) fn outputs(
    reader: &mut Reader<'_>,
    node: &Node,
    what: &str,
) -> (Vec<ProjectPath>, Vec<Range<usize>>, Vec<(ProjectPath, Tolerance)>) {
    let mut tolerances = Vec::new();
    let mut paths = Vec::new();
    for item in items(node) {
        let Value::Map(entries) = &item.value else {
            paths.push(item.clone());
            continue;
        };
        let Some(path) = output(reader, item, entries, what) else { continue };
        let tolerance = entries.iter().find(|(key, _)| key.text == COMPARE);
        if let Some((key, node)) = tolerance
            && let Value::Text(text) = &path.value
        {
            let what = format!("`{COMPARE}` of output {}", quoted(text));
            let tolerance = if reader.is_given(key, node, &what) { tolerance_of(reader, node, &what) } else { None };
            // What is wrong with the path is noted where all are read.
            tolerances.extend(ProjectPath::new(text).ok().zip(tolerance));
        }
        paths.push(path.clone());
    }
    tolerances.retain(|(_, tolerance)| *tolerance != Tolerance::default());
    let plain = match (&node.value, paths.len()) {
        (Value::List(_), _) => Node { value: Value::List(paths), span: node.span.clone() },
        (_, 1) => paths.remove(0),
        _ => return (Vec::new(), Vec::new(), tolerances),
    };
    let (paths, places) = reader.paths(&plain, what);
    (paths, places, tolerances)
}

/// Returns the path node of a map in `outputs`.
fn output<'node>(
    reader: &mut Reader<'_>,
    item: &'node Node,
    entries: &[(Key, Node)],
    what: &str,
) -> Option<&'node Node> {
    let subject = format!("an output in {what}");
    for (key, _) in entries.iter().filter(|(key, _)| !KEYS_OF_OUTPUT.contains(&key.text.as_str())) {
        unknown_key(reader, key, &subject, "no output has such a key", &KEYS_OF_OUTPUT, &[]);
    }
    let path = path_of(item).filter(|path| path.value != Value::Null);
    if path.is_none() {
        let finding = Finding::new(format_args!("{subject} has no `{PATH}`")).at(&item.span, "nothing says which file");
        reader.note(finding.hint("write `{path: model.json, compare: {level: close}}`"));
    }
    path
}

fn tolerance_of(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<Tolerance> {
    if matches!(node.value, Value::Text(_)) {
        return reader.choice(node, what, &LEVELS).map(|level| Tolerance { level, ..Tolerance::default() });
    }
    let entries = reader.map(node, what, "a level, or a map with `level`, `rtol` and `atol`")?;
    let mut tolerance = Tolerance::default();
    let mut level = None;
    for (key, node) in entries {
        if !KEYS.contains(&key.text.as_str()) {
            unknown_key(reader, key, what, "no comparison has such a key", &KEYS, &ELSEWHERE);
            continue;
        }
        let what = format!("`{}` in {what}", key.text);
        if !reader.is_given(key, node, &what) {
            continue;
        }
        match key.text.as_str() {
            "level" => level = reader.choice(node, &what, &LEVELS),
            "rtol" => tolerance.rtol = reader.share(node, &what),
            _ => tolerance.atol = reader.share(node, &what),
        }
    }
    let Some(level) = level else {
        if !entries.iter().any(|(key, _)| key.text == "level") {
            let finding = Finding::new(format_args!("{what} has no `level`")).at(&node.span, "nothing says how close");
            reader.note(finding.hint("add `level: close`, `level: canonical` or `level: identical`"));
        }
        return None;
    };
    let bounds = entries.iter().find(|(key, _)| matches!(key.text.as_str(), "rtol" | "atol"));
    if let (true, Some((key, _))) = (level != Level::Close, bounds) {
        let finding = Finding::new(format_args!("{what} has `{}` and the level `{level}`", key.text));
        let hint = "write `level: close`, or remove it";
        reader.note(finding.at(&key.span, "it counts for `close` alone").hint(hint));
        return None;
    }
    Some(Tolerance { level, ..tolerance })
}
