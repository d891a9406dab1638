//! Trees of values: what JSON, YAML and TOML say.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::number::Spelled;
use super::report::{Finding, Report};
use super::shape::Shape;

/// How deep lists and maps may be nested.
pub(super) const DEPTH_MAX: usize = 128;
/// How many values a tree may have; it takes some 50 bytes for each.
pub(super) const VALUES_MAX: usize = 4_000_000;
/// So many characters of a list or a map are spelled out.
const SPELLED_MAX: usize = 80;

/// A value in a file of text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Value<'a> {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A number as it is spelled.
    Number(Cow<'a, str>),
    /// A text.
    Text(Cow<'a, str>),
    /// Values in an order.
    List(Vec<Value<'a>>),
    /// Values by name. No name stands twice.
    Map(BTreeMap<Cow<'a, str>, Value<'a>>),
}

impl Value<'_> {
    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::Number(_) => "number",
            Self::Text(_) => "text",
            Self::List(_) => "list",
            Self::Map(_) => "map",
        }
    }

    /// Returns the value for people, cut where it is long.
    fn spelled(&self) -> String {
        let mut out = String::new();
        self.spell(&mut out);
        out
    }

    fn spell(&self, out: &mut String) {
        if out.len() > SPELLED_MAX {
            return;
        }
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Number(text) | Self::Text(text) => out.push_str(text),
            Self::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate().take(SPELLED_MAX) {
                    out.push_str(if index > 0 { ", " } else { "" });
                    item.spell(out);
                }
                out.push(']');
            }
            Self::Map(entries) => {
                out.push('{');
                for (index, (name, value)) in entries.iter().enumerate().take(SPELLED_MAX) {
                    out.push_str(if index > 0 { ", " } else { "" });
                    out.push_str(name);
                    out.push_str(": ");
                    value.spell(out);
                }
                out.push('}');
            }
        }
    }
}

/// Compares two values. The order of names in a map and the spelling of numbers do not count.
pub(super) fn compare(report: &mut Report, place: &str, old: &Value<'_>, new: &Value<'_>) {
    match (old, new) {
        (Value::Map(old), Value::Map(new)) => maps(report, place, old, new),
        (Value::List(old), Value::List(new)) => lists(report, place, old, new),
        (Value::Number(old), Value::Number(new)) => numbers(report, place, old, new),
        (Value::Text(a), Value::Text(b)) if a != b => report.differ(|| Finding::of_texts(place, a, b)),
        (old, new) if old == new => {}
        (Value::Bool(_) | Value::Null, Value::Bool(_) | Value::Null) | (Value::Text(_), Value::Text(_)) => {
            report.differ(|| Finding::of(place, Some(old.spelled()), Some(new.spelled())));
        }
        (old, new) => {
            let told = |value: &Value<'_>| Some(format!("{} {}", value.kind(), value.spelled()));
            report.differ(|| Finding::of(place, told(old), told(new)));
        }
    }
}

fn numbers(report: &mut Report, place: &str, old: &str, new: &str) {
    if old == new {
        return report.same_numbers(1);
    }
    let finding = || Finding::of_texts(place, old, new);
    match (Spelled::read(old), Spelled::read(new)) {
        (Some(a), Some(b)) => report.number(a.difference(b), finding),
        _ => report.differ(finding),
    }
}

type Entries<'a> = BTreeMap<Cow<'a, str>, Value<'a>>;

fn maps(report: &mut Report, place: &str, old: &Entries<'_>, new: &Entries<'_>) {
    let below = |name: &str| {
        let is_plain = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
        let plain = !name.is_empty() && name.chars().all(is_plain);
        if plain { format!("{place}.{name}") } else { format!("{place}[\"{}\"]", name.escape_debug()) }
    };
    for (name, before) in old {
        match new.get(name) {
            Some(after) => compare(report, &below(name), before, after),
            None => report.differ(|| Finding::of(below(name), Some(before.spelled()), None)),
        }
    }
    for (name, after) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        report.differ(|| Finding::of(below(name), None, Some(after.spelled())));
    }
}

fn lists(report: &mut Report, place: &str, old: &[Value<'_>], new: &[Value<'_>]) {
    if old.len() != new.len() {
        let count = |items: &[Value<'_>]| Some(format!("{} items", items.len()));
        report.differ(|| Finding::of(place, count(old), count(new)));
        for (index, (old, new)) in old.iter().zip(new).enumerate() {
            compare(report, &format!("{place}[{index}]"), old, new);
        }
        return;
    }
    if is_permutation(old, new) {
        report.note(format!("items of {place} are in another order"));
        let spelled = |items: &[Value<'_>]| Some(Value::List(items.iter().take(8).cloned().collect()).spelled());
        return report.differ(|| Finding::of(place, spelled(old), spelled(new)).shaped(Some(Shape::Reordering)));
    }
    for (index, (old, new)) in old.iter().zip(new).enumerate() {
        compare(report, &format!("{place}[{index}]"), old, new);
    }
}

fn is_permutation(old: &[Value<'_>], new: &[Value<'_>]) -> bool {
    let differing = old.iter().zip(new).filter(|(old, new)| old != new);
    let (mut old, mut new): (Vec<_>, Vec<_>) = differing.unzip();
    old.sort_unstable();
    new.sort_unstable();
    !old.is_empty() && old == new
}
