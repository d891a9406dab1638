//! The ways in which an addition can be written, the most natural first.
//!
//! None of them need be right: whoever asks tries each, and takes one only if it means what it should.

use std::ops::Range;

use super::spell::{Quotes, flow, spell};
use super::{Goal, entry};
use crate::yaml::{Key, Node, Value};

/// No line is made longer than this by a list.
const LINE_MAX_CHARS: usize = 100;

/// Behind which keys a new one is put, the best first.
const BEHIND: [(&str, &[&str]); 4] = [
    ("environment", &["seed", "version", "workdir", "run"]),
    ("inputs", &["run", "workdir"]),
    ("outputs", &["inputs", "run", "workdir"]),
    ("data", &["data", "params", "environment", "seed", "version"]),
];

/// Returns the texts to try for adding `goal` to `key` of `map`, which lies in `root`.
pub(super) fn candidates(text: &str, root: &Node, map: &Node, key: &str, goal: &Goal) -> Vec<String> {
    let mut found = Vec::new();
    let own = own_entries(map);
    match (own.iter().find(|(other, _)| other.text == key), goal) {
        (Some((_, node)), Goal::Items(items)) => {
            found.extend(longer_list(text, node, items));
            return found;
        }
        (Some((_, node)), Goal::Image(image)) => return vec![other_image(text, node, image)],
        (Some((_, node)), Goal::Flag) => return vec![spliced(text, node.span.clone(), "true")],
        (None, _) => {}
    }
    let quotes = own.first().map_or(Quotes::Plain, |(key, _)| Quotes::of(&text[key.span.clone()]));
    let name = spell(key, quotes);
    // What a merge key brings is hidden by a key of its own, so that one has to repeat it.
    let merged = entry(map, key).map(|(_, node)| items_of(node)).unwrap_or_default();
    let values = match goal {
        Goal::Flag => vec!["true".to_owned()],
        Goal::Image(image) => vec![image_in(image, quotes)],
        Goal::Items(items) => merged.into_iter().chain(items.iter().cloned()).collect(),
    };
    let is_list = matches!(goal, Goal::Items(_));
    let value = if is_list { flow_in(&values, quotes) } else { values.concat() };
    if is_in_flow(text, map) {
        let at = own.iter().map(|(_, node)| node.span.end).max();
        let inserted = |at| spliced(text, at..at, &format!(", {name}: {value}"));
        found.extend(at.map(inserted));
        return found;
    }
    let Some((first, _)) = own.iter().min_by_key(|(key, _)| key.span.start) else { return found };
    let indent = &text[line_start(text, first.span.start)..first.span.start];
    if !indent.chars().all(|c| c == ' ') {
        return found;
    }
    let is_long = indent.len() + name.len() + 2 + value.chars().count() > LINE_MAX_CHARS;
    let as_block = is_list && (is_long || prefers_blocks(text, root));
    let eol = line_end(text, first.span.start);
    let lines = if as_block {
        let items = joined(&values, |item| format!("{indent}  - {}{eol}", spell(item, Quotes::Plain)));
        format!("{indent}{name}:{eol}{items}")
    } else {
        format!("{indent}{name}: {value}{eol}")
    };
    found.extend(anchors(&own, key).into_iter().map(|(_, node)| after_line(text, node.span.end, &lines, eol)));
    // Before the first key it is right whatever comes behind.
    let start = line_start(text, first.span.start);
    found.push(spliced(text, start..start, &lines));
    found
}

/// Returns the text in which the environment at `node` is this image.
fn other_image(text: &str, node: &Node, image: &str) -> String {
    match own_entries(node).into_iter().find(|(key, _)| key.text == "image") {
        Some((_, old)) => {
            let quotes = Quotes::of(&text[old.span.clone()]);
            spliced(text, old.span.clone(), &spell(image, quotes))
        }
        None => spliced(text, node.span.clone(), &image_in(image, Quotes::of(&text[node.span.clone()]))),
    }
}

fn image_in(image: &str, quotes: Quotes) -> String {
    format!("{{{}: {}}}", spell("image", quotes), spell(image, quotes))
}

/// Returns the entries behind which a new key may stand, the best first.
fn anchors<'a>(own: &[&'a (Key, Node)], key: &str) -> Vec<&'a (Key, Node)> {
    let behind = BEHIND.iter().find(|(other, _)| *other == key).map_or(&[] as &[&str], |(_, behind)| *behind);
    let wanted = behind.iter().filter_map(|name| own.iter().find(|(key, _)| key.text == *name).copied());
    // The top of a definition ends with its steps, which nothing should follow.
    let last = own.iter().filter(|(key, _)| key.text != "steps").max_by_key(|(_, node)| node.span.end).copied();
    wanted.chain(last).collect()
}

/// Returns the entries of a map that stand in it, not those that a merge key brings.
pub(in crate::pipeline) fn own_entries(map: &Node) -> Vec<&(Key, Node)> {
    let Value::Map(entries) = &map.value else { return Vec::new() };
    entries.iter().filter(|(key, _)| map.span.start <= key.span.start && key.span.end <= map.span.end).collect()
}

fn items_of(node: &Node) -> Vec<String> {
    let items = match &node.value {
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    items
        .iter()
        .filter_map(|node| if let Value::Text(text) = &node.value { Some(text.clone()) } else { None })
        .collect()
}

/// Returns the texts in which the list at `node`, or the one text there, has these items more.
fn longer_list(text: &str, node: &Node, items: &[String]) -> Vec<String> {
    let spelled = &text[node.span.clone()];
    let Value::List(old) = &node.value else {
        let quotes = Quotes::of(spelled);
        let new = joined(items, |item| format!(", {}", spell(item, quotes)));
        let requoted = if let Value::Text(text) = &node.value { spell(text, quotes) } else { return Vec::new() };
        let as_it_is = spliced(text, node.span.clone(), &format!("[{spelled}{new}]"));
        return vec![as_it_is, spliced(text, node.span.clone(), &format!("[{requoted}{new}]"))];
    };
    let Some(last) = old.last() else {
        let at = node.span.start + spelled.find('[').map_or(0, |at| at + 1);
        let new: Vec<_> = items.iter().map(|item| spell(item, Quotes::Plain)).collect();
        return vec![spliced(text, at..at, &new.join(", "))];
    };
    let quotes = Quotes::of(&text[last.span.clone()]);
    let start = line_start(text, last.span.start);
    let before = &text[start..last.span.start];
    let eol = line_end(text, last.span.start);
    if spelled.ends_with(']') {
        let new = joined(items, |item| format!(", {}", spell(item, quotes)));
        let on_the_line = spliced(text, last.span.end..last.span.end, &new);
        let fits = on_the_line[start..].lines().next().is_none_or(|line| line.chars().count() <= LINE_MAX_CHARS);
        let is_alone = before.trim().is_empty() && old.len() > 1;
        let on_lines = if is_alone { on_own_lines(text, last, before, items, eol) } else { None };
        return if is_alone || fits { on_lines.into_iter().chain([on_the_line]).collect() } else { vec![on_the_line] };
    }
    // `    - item`: what stands before the item is repeated.
    if !before.trim_start().starts_with('-') {
        return Vec::new();
    }
    let dash = before.find('-').unwrap_or_default();
    let gap = before[dash + 1..].chars().take_while(|c| *c == ' ').count().max(1);
    let line = |item: &String| format!("{}-{}{}{eol}", &before[..dash], " ".repeat(gap), spell(item, quotes));
    vec![after_line(text, last.span.end, &joined(items, line), eol)]
}

/// Returns the text in which new items of a list in brackets stand on lines of their own, as the old ones do.
fn on_own_lines(text: &str, last: &Node, before: &str, items: &[String], eol: &str) -> Option<String> {
    let rest_end = text[last.span.end..].find('\n').map(|at| last.span.end + at + 1)?;
    let rest = text[last.span.end..rest_end].trim();
    let has_comma = rest.starts_with(',');
    let behind = rest.trim_start_matches(',').trim();
    if !(behind.is_empty() || behind.starts_with('#')) {
        return None;
    }
    let quotes = Quotes::of(&text[last.span.clone()]);
    let mut lines = String::new();
    for (index, item) in items.iter().enumerate() {
        let comma = if has_comma || index + 1 < items.len() { "," } else { "" };
        lines.push_str(&format!("{before}{}{comma}{eol}", spell(item, quotes)));
    }
    let with_lines = spliced(text, rest_end..rest_end, &lines);
    Some(if has_comma { with_lines } else { spliced(&with_lines, last.span.end..last.span.end, ",") })
}

fn joined(items: &[String], written: impl Fn(&String) -> String) -> String {
    items.iter().map(written).collect::<Vec<_>>().concat()
}

fn flow_in(values: &[String], quotes: Quotes) -> String {
    if quotes == Quotes::Plain {
        return flow(values);
    }
    let items: Vec<_> = values.iter().map(|item| spell(item, quotes)).collect();
    format!("[{}]", items.join(", "))
}

/// Returns whether a map is written in braces.
pub(in crate::pipeline) fn is_in_flow(text: &str, map: &Node) -> bool {
    text[map.span.clone()].ends_with('}') && text[map.span.start..].trim_start().starts_with('{')
}

/// Returns whether the lists of paths in the definition are written one item a line.
fn prefers_blocks(text: &str, root: &Node) -> bool {
    let mut counts = (0_usize, 0_usize);
    count_lists(text, root, &mut counts);
    counts.0 > counts.1
}

fn count_lists(text: &str, node: &Node, (blocks, flows): &mut (usize, usize)) {
    let Value::Map(entries) = &node.value else { return };
    for (key, node) in entries {
        if matches!(key.text.as_str(), "inputs" | "outputs" | "data" | "metrics" | "env")
            && matches!(node.value, Value::List(_))
        {
            *(if text[node.span.clone()].ends_with(']') { &mut *flows } else { &mut *blocks }) += 1;
        }
        let mut below = (*blocks, *flows);
        count_lists(text, node, &mut below);
        (*blocks, *flows) = below;
    }
}

/// Returns the text with `lines` behind the line in which the last character before `end` stands.
pub(in crate::pipeline) fn after_line(text: &str, end: usize, lines: &str, eol: &str) -> String {
    let end = text[..end].trim_end().len();
    match text[end..].find('\n') {
        Some(at) => spliced(text, end + at + 1..end + at + 1, lines),
        None => format!("{text}{eol}{}", lines.trim_end_matches(['\r', '\n'])),
    }
}

pub(in crate::pipeline) fn spliced(text: &str, range: Range<usize>, new: &str) -> String {
    format!("{}{new}{}", &text[..range.start], &text[range.end..])
}

pub(in crate::pipeline) fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

/// Returns how the line at `at` ends, or the one above it if it is the last.
pub(in crate::pipeline) fn line_end(text: &str, at: usize) -> &'static str {
    let newline = text[at..].find('\n').map(|end| at + end).or_else(|| text[..at].rfind('\n'));
    if newline.is_some_and(|newline| text[..newline].ends_with('\r')) { "\r\n" } else { "\n" }
}
