//! Reading single values of a definition: text, lists, paths, numbers.
//!
//! Each function notes what is wrong and returns what can be used, so that one
//! pass finds every independent problem.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::path::{PathError, ProjectPath};
use crate::yaml::{Key, Node, Value};

use super::model::NAME_MAX_CHARS;
use super::problem::{Finding, quoted};
use super::suggest::did_you_mean;

/// What has been found wrong so far, in the text of one file.
pub(super) struct Reader<'text> {
    text: &'text str,
    pub(super) findings: Vec<Finding>,
}

/// A value and where it stands.
pub(super) type Placed<T> = (T, Range<usize>);

impl<'text> Reader<'text> {
    pub(super) fn new(text: &'text str) -> Self {
        Self { text, findings: Vec::new() }
    }

    pub(super) fn note(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Returns how a value is spelled in the file; an alias by what it stands for.
    pub(super) fn spelled(&self, node: &Node) -> String {
        let slice = self.text.get(node.span.clone()).unwrap_or_default();
        match &node.value {
            Value::Text(text) => text.clone(),
            Value::Int(value) if slice.starts_with('*') => value.to_string(),
            Value::Float(value) if slice.starts_with('*') => value.to_string(),
            Value::Bool(value) if slice.starts_with('*') => value.to_string(),
            _ => slice.to_owned(),
        }
    }

    /// Returns what was found, for people.
    fn found(&self, node: &Node) -> String {
        match &node.value {
            Value::Int(_) | Value::Float(_) => format!("the number {}", quoted(&self.spelled(node))),
            value => value.describe(),
        }
    }

    /// Notes that `what` should have been `expected`.
    pub(super) fn wrong(&mut self, node: &Node, what: &str, expected: &str) {
        let finding = Finding::new(format_args!("{what} must be {expected}, found {}", self.found(node)));
        self.note(
            finding.at(&node.span, format_args!("expected {expected}")).maybe_hint(self.quoting_hint(node, expected)),
        );
    }

    fn quoting_hint(&self, node: &Node, expected: &str) -> Option<String> {
        let is_number = matches!(node.value, Value::Int(_) | Value::Float(_));
        let is_boolean = matches!(node.value, Value::Bool(_));
        if is_boolean && expected == A_PATH_OR_PATHS {
            return Some("write `[]` to say that there are none".to_owned());
        }
        let wants_text =
            ["text", "a path", "a command", "a name", "a dotted key"].iter().any(|word| expected.starts_with(word));
        ((is_number || is_boolean) && wants_text).then(|| format!("write it in quotes: `\"{}\"`", self.spelled(node)))
    }

    /// Returns whether there is a value; notes the key if there is none.
    pub(super) fn is_given(&mut self, key: &Key, node: &Node, what: &str) -> bool {
        if node.value != Value::Null {
            return true;
        }
        let finding = Finding::new(format_args!("{what} has no value")).at(&key.span, "nothing follows");
        self.note(finding.hint("give it a value or remove the key"));
        false
    }

    /// Returns the entries of a map.
    pub(super) fn map<'node>(&mut self, node: &'node Node, what: &str, expected: &str) -> Option<&'node [(Key, Node)]> {
        if let Value::Map(entries) = &node.value {
            return Some(entries);
        }
        self.wrong(node, what, expected);
        None
    }

    /// Returns a text that says something.
    pub(super) fn text(&mut self, node: &Node, what: &str, expected: &str) -> Option<String> {
        let Value::Text(text) = &node.value else {
            self.wrong(node, what, expected);
            return None;
        };
        if text.trim().is_empty() {
            self.note(
                Finding::new(format_args!("{what} is empty")).at(&node.span, format_args!("expected {expected}")),
            );
            return None;
        }
        if text.contains('\0') {
            let finding = Finding::new(format_args!("{what} contains a NUL character"));
            self.note(finding.at(&node.span, "no program can be given such a text"));
            return None;
        }
        Some(text.clone())
    }

    /// Returns one or many values of a kind, sorted; a value that stands twice is noted.
    pub(super) fn set<T: Ord + Clone>(
        &mut self,
        node: &Node,
        what: &str,
        mut read: impl FnMut(&mut Self, &Node) -> Option<T>,
        show: impl Fn(&T) -> String,
    ) -> (Vec<T>, Vec<Range<usize>>) {
        let mut seen: BTreeMap<T, Range<usize>> = BTreeMap::new();
        for item in items(node) {
            let Some(value) = read(self, item) else { continue };
            if let Some(first) = seen.get(&value) {
                let finding = Finding::new(format_args!("{} is listed twice in {what}", quoted(&show(&value))));
                self.note(finding.at(&item.span, "listed again here").at(first, "first listed here"));
            } else {
                seen.insert(value, item.span.clone());
            }
        }
        seen.into_iter().unzip()
    }

    /// Returns one or many paths, sorted.
    pub(super) fn paths(&mut self, node: &Node, what: &str) -> (Vec<ProjectPath>, Vec<Range<usize>>) {
        let is_list = matches!(node.value, Value::List(_));
        let expected = if is_list { "a path" } else { A_PATH_OR_PATHS };
        let subject = subject(node, what);
        self.set(node, what, |reader, item| reader.path(item, &subject, expected), |path| path.display().into_owned())
    }

    /// Returns a path inside the project.
    pub(super) fn path(&mut self, node: &Node, what: &str, expected: &str) -> Option<ProjectPath> {
        let text = self.text(node, what, expected)?;
        let error = match ProjectPath::new(&text) {
            Ok(path) => return Some(path),
            Err(error) => error,
        };
        let (message, label, hint) = match error {
            PathError::Empty => {
                ("is the project itself", "the whole project cannot stand here", "name a file or directory in it")
            }
            PathError::Absolute => ("is an absolute path", "a path must be relative to the project", ROOT_HINT),
            PathError::Parent => ("leads out of a directory", "a path must not contain `..`", ROOT_HINT),
            PathError::Nul => ("is no path", "a path must not contain a NUL byte", "remove the NUL byte"),
        };
        let list = what.strip_prefix(ITEM_OF).unwrap_or(what);
        let finding = Finding::new(format_args!("{} in {list} {message}", quoted(&text)));
        self.note(finding.at(&node.span, label).hint(hint));
        None
    }

    /// Returns why a text that looks like a number is none.
    fn number_hint(&self, node: &Node) -> Option<String> {
        let Value::Text(text) = &node.value else { return None };
        text.parse::<u64>().ok()?;
        let is_quoted = self.text.get(node.span.clone())?.starts_with(['"', '\'']);
        let hint = if is_quoted { "remove the quotes" } else { "a whole number is written without zeros in front" };
        Some(hint.to_owned())
    }

    /// Returns a whole number of the range.
    pub(super) fn integer(&mut self, node: &Node, what: &str, minimum: u64, maximum: u64) -> Option<u64> {
        let Value::Int(value) = &node.value else {
            let hint = self.number_hint(node);
            let finding = Finding::new(format_args!("{what} must be a whole number, found {}", self.found(node)));
            self.note(finding.at(&node.span, "expected a whole number").maybe_hint(hint));
            return None;
        };
        match u64::try_from(*value) {
            Ok(value) if (minimum..=maximum).contains(&value) => Some(value),
            _ => {
                let bound = if *value < i128::from(minimum) {
                    format!("at least {minimum}")
                } else {
                    format!("at most {maximum}")
                };
                self.note(
                    Finding::new(format_args!("{what} must be {bound}, found {value}")).at(&node.span, "out of range"),
                );
                None
            }
        }
    }
}

impl Reader<'_> {
    /// Returns a whole number of the range, whose end fits into 32 bits.
    pub(super) fn small(&mut self, node: &Node, what: &str, minimum: u64, maximum: u64) -> Option<u32> {
        self.integer(node, what, minimum, maximum).and_then(|value| u32::try_from(value).ok())
    }

    /// Returns a number that is not negative.
    pub(super) fn share(&mut self, node: &Node, what: &str) -> Option<f64> {
        let value = match &node.value {
            Value::Float(value) => *value,
            #[expect(clippy::cast_precision_loss, reason = "a tolerance needs no more digits")]
            Value::Int(value) => *value as f64,
            _ => {
                self.wrong(node, what, "a number");
                return None;
            }
        };
        if value.is_finite() && value >= 0.0 {
            // Not negative zero, which would be another definition.
            return Some(value.abs());
        }
        let spelled = quoted(&self.spelled(node));
        let finding = Finding::new(format_args!("{what} must be a finite number and at least 0, found {spelled}"));
        self.note(finding.at(&node.span, "out of range"));
        None
    }

    /// Returns `true` or `false`.
    pub(super) fn boolean(&mut self, node: &Node, what: &str) -> Option<bool> {
        if let Value::Bool(value) = node.value {
            return Some(value);
        }
        self.wrong(node, what, "`true` or `false`");
        None
    }

    /// Returns what one of a few words stands for.
    pub(super) fn choice<T: Copy>(&mut self, node: &Node, what: &str, words: &[(&str, T)]) -> Option<T> {
        let listed: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        let expected = listed.join(" or ");
        let Value::Text(text) = &node.value else {
            self.wrong(node, what, &expected);
            return None;
        };
        if let Some((_, value)) = words.iter().find(|(word, _)| word == text) {
            return Some(*value);
        }
        let finding = Finding::new(format_args!("{what} must be {expected}, found {}", quoted(text)));
        let hint = did_you_mean(text, words.iter().map(|(word, _)| *word));
        self.note(finding.at(&node.span, format_args!("expected {expected}")).maybe_hint(hint));
        None
    }
}

const ITEM_OF: &str = "an item of ";
const A_PATH_OR_PATHS: &str = "a path or a list of paths";

/// Returns the items of a list, or the value itself if it is no list.
pub(super) fn items(node: &Node) -> &[Node] {
    match &node.value {
        Value::List(items) => items,
        _ => std::slice::from_ref(node),
    }
}

/// Returns what an item is called of a node that may be a list: the node itself, if it is none.
pub(super) fn subject(node: &Node, what: &str) -> String {
    if matches!(node.value, Value::List(_)) { format!("{ITEM_OF}{what}") } else { what.to_owned() }
}

const ROOT_HINT: &str = "paths start at the project's root, the directory that holds `.pipeline`";

/// Returns why `name` cannot name a step; `None` if it can.
pub(super) fn step_name_fault(name: &str) -> Option<String> {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() {
        return Some("a name must not be empty".to_owned());
    }
    if name.chars().count() > NAME_MAX_CHARS {
        return Some(format!("a name has at most {NAME_MAX_CHARS} characters"));
    }
    if let Some(other) = name.chars().find(|c| !is_inner(*c)) {
        return Some(format!("a name has letters a-z, digits, `_`, `-` and `.`, not {}", quoted(&other.to_string())));
    }
    name.starts_with(['-', '.']).then(|| "a name must not start with `-` or `.`".to_owned())
}
