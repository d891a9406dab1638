//! Editing a definition as a person would: what is added is added, and every other byte stays.
//!
//! An edit changes the text at places that the parsed tree knows. Then the new text is parsed again: it counts only
//! if it means exactly what the old one meant, with the additions. So a style that is not understood here costs an
//! edit by hand, never a comment, an anchor or a meaning.

pub(super) mod spell;
pub(super) mod text;

use std::collections::BTreeSet;
use std::fmt;

use super::tolerance::path_of;
use crate::yaml::{self, Key, Node, Value, YamlError};

/// Something to add to a definition.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Addition {
    /// Items to a list of a step, or of the pipeline if there is no step.
    Items {
        /// The step; `None` is the top of the definition.
        step: Option<String>,
        /// The key of the list, such as `inputs`.
        key: &'static str,
        /// What is added, in this order.
        items: Vec<String>,
    },
    /// An image to a step, or to the pipeline if there is no step, in place of the environment that is there.
    Image {
        /// The step; `None` is the top of the definition.
        step: Option<String>,
        /// The image, as `name@sha256:...`.
        image: String,
    },
    /// `true` to a step.
    Flag {
        /// The step.
        step: String,
        /// The key, such as `network`.
        key: &'static str,
    },
}

/// A definition with additions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Edited {
    /// The new text.
    pub text: String,
    /// What could not be added without changing something else; it has to be done by hand.
    pub by_hand: Vec<Addition>,
}

/// Returns `text` with the additions.
///
/// Comments, blank lines, quotes, line ends, anchors and the style of lists stay as they are. What is there already
/// is not added again. Costs a few passes over the text for each addition.
///
/// # Errors
///
/// [`YamlError`] if the text cannot be read to begin with.
pub fn edit(text: &str, additions: &[Addition]) -> Result<Edited, YamlError> {
    let mut edited = Edited { text: text.to_owned(), by_hand: Vec::new() };
    for addition in additions {
        let root = yaml::read_spanned(edited.text.as_bytes())?;
        match add(&edited.text, &root, addition) {
            Some(text) => edited.text = text,
            None => edited.by_hand.push(addition.clone()),
        }
    }
    Ok(edited)
}

/// Returns the text with one addition, or `None` if none of the ways to write it has exactly its meaning.
fn add(text: &str, root: &Node, addition: &Addition) -> Option<String> {
    let mut intended = root.clone();
    let map = addition.step().map_or(Some(root), |step| step_of(root, step))?;
    let goal = addition.apply(step_of_mut(&mut intended, addition.step())?)?;
    if matches!(&goal, Goal::Items(missing) if missing.is_empty()) {
        return Some(text.to_owned());
    }
    let candidates = text::candidates(text, root, map, addition.key(), &goal);
    candidates
        .into_iter()
        .find(|candidate| yaml::read_spanned(candidate.as_bytes()).is_ok_and(|new| means_the_same(&new, &intended)))
}

/// What a key shall hold beyond what it holds.
enum Goal {
    /// These items more.
    Items(Vec<String>),
    /// This image, and what else is said of how images are run.
    Image(String),
    /// `true`.
    Flag,
}

impl Addition {
    /// Returns the step that it is for; `None` is the top of the definition.
    pub fn step(&self) -> Option<&str> {
        match self {
            Self::Items { step, .. } | Self::Image { step, .. } => step.as_deref(),
            Self::Flag { step, .. } => Some(step),
        }
    }

    fn key(&self) -> &'static str {
        match self {
            Self::Items { key, .. } | Self::Flag { key, .. } => key,
            Self::Image { .. } => "environment",
        }
    }

    /// Changes the tree as intended, and returns what is new; `None` if the value there cannot take it.
    fn apply(&self, map: &mut Node) -> Option<Goal> {
        let Value::Map(entries) = &mut map.value else { return None };
        let at = entries.iter().position(|(key, _)| key.text == self.key());
        let added = |value| (Key { text: self.key().to_owned(), span: 0..0 }, unplaced(value));
        match self {
            Self::Flag { .. } => {
                match at {
                    Some(at) => entries[at].1.value = Value::Bool(true),
                    None => entries.push(added(Value::Bool(true))),
                }
                Some(Goal::Flag)
            }
            Self::Image { image, .. } => {
                let image = unplaced(Value::Text(image.clone()));
                let alone = || vec![(Key { text: "image".to_owned(), span: 0..0 }, image.clone())];
                match at.map(|at| &mut entries[at].1.value) {
                    Some(Value::Map(there)) => match there.iter_mut().find(|(key, _)| key.text == "image") {
                        Some((_, old)) => old.value = image.value.clone(),
                        None => *there = alone(),
                    },
                    Some(other) => *other = Value::Map(alone()),
                    None => entries.push(added(Value::Map(alone()))),
                }
                match image.value {
                    Value::Text(text) => Some(Goal::Image(text)),
                    _ => None,
                }
            }
            Self::Items { items, .. } => {
                let at = at.unwrap_or_else(|| {
                    entries.push(added(Value::List(Vec::new())));
                    entries.len() - 1
                });
                let node = &mut entries[at].1;
                if matches!(node.value, Value::Text(_)) {
                    node.value = Value::List(vec![node.clone()]);
                }
                let Value::List(list) = &mut node.value else { return None };
                let known: BTreeSet<&String> = list
                    .iter()
                    .filter_map(path_of)
                    .filter_map(|node| if let Value::Text(text) = &node.value { Some(text) } else { None })
                    .collect();
                let missing: Vec<String> = items.iter().filter(|item| !known.contains(item)).cloned().collect();
                list.extend(missing.iter().map(|item| unplaced(Value::Text(item.clone()))));
                Some(Goal::Items(missing))
            }
        }
    }
}

fn unplaced(value: Value) -> Node {
    Node { value, span: 0..0 }
}

fn entry<'node>(map: &'node Node, name: &str) -> Option<&'node (Key, Node)> {
    let Value::Map(entries) = &map.value else { return None };
    entries.iter().find(|(key, _)| key.text == name)
}

fn step_of<'node>(root: &'node Node, step: &str) -> Option<&'node Node> {
    entry(&entry(root, "steps")?.1, step).map(|(_, node)| node)
}

fn step_of_mut<'node>(root: &'node mut Node, step: Option<&str>) -> Option<&'node mut Node> {
    let below = |node: &'node mut Node, name: &str| {
        let Value::Map(entries) = &mut node.value else { return None };
        entries.iter_mut().find(|(key, _)| key.text == name).map(|(_, node)| node)
    };
    match step {
        None => Some(root),
        Some(step) => below(below(root, "steps")?, step),
    }
}

/// Returns whether two trees hold the same: the maps with the same keys, those of both in the same order.
fn means_the_same(new: &Node, intended: &Node) -> bool {
    match (&new.value, &intended.value) {
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| means_the_same(a, b)),
        (Value::Map(a), Value::Map(b)) => {
            // A key that is added is the one without a place in the old text.
            let old = |entries: &[(Key, Node)], among: &[(Key, Node)]| -> Vec<String> {
                let is_new = |text: &str| among.iter().any(|(key, _)| key.text == text && key.span == (0..0));
                entries.iter().map(|(key, _)| key.text.clone()).filter(|text| !is_new(text)).collect()
            };
            let find = |text: &str| b.iter().find(|(key, _)| key.text == text);
            a.len() == b.len()
                && old(a, b) == old(b, b)
                && a.iter().all(|(key, node)| find(&key.text).is_some_and(|(_, other)| means_the_same(node, other)))
        }
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        (a, b) => a == b,
    }
}

impl fmt::Display for Addition {
    /// The line to write by hand.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Items { key, items, .. } => write!(f, "{key}: {}", spell::flow(items)),
            Self::Image { image, .. } => write!(f, "environment: {{image: \"{image}\"}}"),
            Self::Flag { key, .. } => write!(f, "{key}: true"),
        }
    }
}

#[cfg(test)]
mod tests;
