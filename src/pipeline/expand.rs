//! Steps with a matrix become one step for each combination, before they are read.
//!
//! It happens to the tree of the file, so that every rule for a step holds
//! for each combination, and every error points at the place in the file.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::yaml::{Key, Node, VALUE_COST_BYTES, Value};

use super::field::{Reader, items};
use super::matrix::{self, COMBINATIONS_MAX, Combination, name_of};
use super::problem::{Finding, quoted};
use super::template::{self, Part};
use super::tolerance::path_of;

pub(super) const MATRIX: &str = "matrix";
/// The keys of a step in whose texts the values of a matrix may stand.
const FILLED: [&str; 11] =
    ["description", "run", "inputs", "outputs", "metrics", "needs", "env", "params", "seed", "workdir", "keep"];
/// The keys whose paths `${matrix.*}` of other steps stands for.
const WRITTEN: [&str; 2] = ["outputs", "metrics"];
/// How much the steps of all matrices may come to, in bytes of text plus [`VALUE_COST_BYTES`] a value.
const EXPANDED_MAX_BYTES: usize = 64 * 1024 * 1024;

/// A step as it stands in the file, with the combinations that it is there for.
struct Family<'node> {
    key: &'node Key,
    node: &'node Node,
    /// `None` for a step without a matrix.
    combinations: Option<Vec<Combination>>,
}

/// Returns the steps of the file, each with its name, in the place of a step with a matrix one for each combination.
///
/// What is wrong is noted; then what is returned is not complete.
pub(super) fn expand(reader: &mut Reader<'_>, entries: &[(Key, Node)]) -> Vec<(Key, Node)> {
    let before = reader.findings.len();
    let families: Vec<_> = entries.iter().filter_map(|(key, node)| family(reader, key, node)).collect();
    if reader.findings.len() > before {
        return Vec::new();
    }
    let count = families.iter().filter_map(|family| family.combinations.as_ref()).map(Vec::len).sum::<usize>();
    if count > COMBINATIONS_MAX {
        let finding = Finding::new(format_args!("the matrices have {count} combinations"));
        let last = families.iter().rev().find(|family| family.combinations.is_some());
        let place = last.map_or(0..0, |family| family.key.span.clone());
        reader.note(finding.at(&place, format_args!("a definition has at most {COMBINATIONS_MAX}")));
        return Vec::new();
    }
    let with_matrix = |family: &Family<'_>| Some((family.key.text.clone(), family.combinations.clone()?));
    let matrices = families.iter().filter_map(with_matrix).collect();
    let mut expander = Expander { reader, matrices, written: BTreeMap::new(), cost_bytes: 0 };
    expander.collect_written(&families);
    let mut steps = Vec::new();
    let mut size_above = 1;
    for family in &families {
        let size = family.combinations.as_ref().map_or(1, Vec::len);
        // A step that says nothing of its order waits for every combination above it.
        expander.cost_bytes += size * size_above * VALUE_COST_BYTES;
        size_above = size;
        expander.family(family, &mut steps);
        if expander.cost_bytes > EXPANDED_MAX_BYTES {
            let finding =
                Finding::new(format_args!("the combinations of step {} come to too much", quoted(&family.key.text)));
            let label = "with its texts for each of them, the definition would be too large";
            expander.reader.note(finding.at(&family.key.span, label));
            return Vec::new();
        }
    }
    steps
}

fn family<'node>(reader: &mut Reader<'_>, key: &'node Key, node: &'node Node) -> Option<Family<'node>> {
    let given = match &node.value {
        Value::Map(entries) => entries.iter().find(|(key, _)| key.text == MATRIX),
        _ => None,
    };
    let combinations = match given {
        None => None,
        Some((matrix_key, matrix)) => {
            let what = format!("`{MATRIX}` of step {}", quoted(&key.text));
            if !reader.is_given(matrix_key, matrix, &what) {
                return None;
            }
            Some(matrix::read(reader, matrix_key, matrix, &what)?)
        }
    };
    Some(Family { key, node, combinations })
}

struct Expander<'a, 'text> {
    reader: &'a mut Reader<'text>,
    /// The combinations of each step that has a matrix.
    matrices: BTreeMap<String, Vec<Combination>>,
    /// What steps with a matrix write, as it is written in the file and as it is for each combination.
    written: BTreeMap<&'a str, Vec<String>>,
    cost_bytes: usize,
}

impl<'a> Expander<'a, '_> {
    /// Collects the paths that steps with a matrix write. What is wrong with one is noted where the step itself is read.
    fn collect_written(&mut self, families: &'a [Family<'a>]) {
        for family in families {
            let (Value::Map(entries), Some(combinations)) = (&family.node.value, &family.combinations) else {
                continue;
            };
            let written = entries.iter().filter(|(key, _)| WRITTEN.contains(&key.text.as_str()));
            for item in written.flat_map(|(_, node)| items(node)).filter_map(path_of) {
                let Value::Text(text) = &item.value else { continue };
                let Ok(parts) = template::parts(text) else { continue };
                if parts.iter().any(|part| matches!(part, Part::Value(_))) {
                    let filled: Vec<_> =
                        combinations.iter().filter_map(|values| template::fill(&parts, values).ok()).collect();
                    self.cost_bytes += filled.iter().map(|text| text.len() + VALUE_COST_BYTES).sum::<usize>();
                    self.written.insert(text, filled);
                }
            }
        }
    }

    fn family(&mut self, family: &Family<'_>, steps: &mut Vec<(Key, Node)>) {
        let none = Combination::new();
        let Some(combinations) = &family.combinations else {
            steps.push((family.key.clone(), self.step(family, &none)));
            return;
        };
        for values in combinations {
            let key = Key { text: name_of(&family.key.text, values), span: family.key.span.clone() };
            steps.push((key, self.step(family, values)));
            if self.cost_bytes > EXPANDED_MAX_BYTES {
                return;
            }
        }
    }

    /// Returns the step with the values of one combination.
    fn step(&mut self, family: &Family<'_>, values: &Combination) -> Node {
        let Value::Map(entries) = &family.node.value else { return family.node.clone() };
        let mut filled = Vec::new();
        for (key, node) in entries.iter().filter(|(key, _)| key.text != MATRIX) {
            let what = format!("`{}` of step {}", key.text, quoted(&family.key.text));
            let node = match key.text.as_str() {
                "inputs" if family.combinations.is_none() => self.listed(node, &|this, item| this.every(item, &what)),
                "needs" => {
                    let node = self.filled(node, values, &what);
                    self.listed(&node, &|this, item| this.members(item))
                }
                "seed" => number(self.filled(node, values, &what)),
                known if FILLED.contains(&known) => self.filled(node, values, &what),
                _ => node.clone(),
            };
            filled.push((key.clone(), node));
        }
        let node = Node { value: Value::Map(filled), span: family.node.span.clone() };
        if family.combinations.is_some() {
            self.cost_bytes += cost_bytes(&node);
        }
        node
    }

    /// Returns a value with every text in it filled in; keys of maps stay.
    fn filled(&mut self, node: &Node, values: &Combination, what: &str) -> Node {
        let value = match &node.value {
            Value::Text(text) if template::is_template(text) => {
                let filled = template::parts(text).and_then(|parts| template::fill(&parts, values));
                match filled {
                    Ok(text) => Value::Text(text),
                    Err(fault) => {
                        self.note(&node.span, what, fault);
                        node.value.clone()
                    }
                }
            }
            Value::List(items) => Value::List(items.iter().map(|item| self.filled(item, values, what)).collect()),
            Value::Map(entries) => {
                Value::Map(entries.iter().map(|(key, node)| (key.clone(), self.filled(node, values, what))).collect())
            }
            other => other.clone(),
        };
        Node { value, span: node.span.clone() }
    }

    fn note(&mut self, span: &Range<usize>, what: &str, fault: template::Fault) {
        let finding = Finding::new(format_args!("{what} {}", fault.message));
        self.reader.note(finding.at(span, "").maybe_hint(fault.hint));
    }

    /// Returns one or many values with each item replaced by what `replace` makes of it, if it makes something else of any.
    fn listed(&mut self, node: &Node, replace: &dyn Fn(&mut Self, &Node) -> Option<Vec<String>>) -> Node {
        let mut replaced = Vec::new();
        let mut same = true;
        for item in items(node) {
            match replace(self, item) {
                None => replaced.push(item.clone()),
                Some(texts) => {
                    same = false;
                    let with = |text| Node { value: Value::Text(text), span: item.span.clone() };
                    let before = replaced.len();
                    replaced.extend(texts.into_iter().map(with));
                    self.cost_bytes += replaced[before..].iter().map(cost_bytes).sum::<usize>();
                }
            }
        }
        if same { node.clone() } else { Node { value: Value::List(replaced), span: node.span.clone() } }
    }

    /// Returns the paths that an input with `${matrix.*}` stands for; `None` if it is an input like any other.
    fn every(&mut self, item: &Node, what: &str) -> Option<Vec<String>> {
        let Value::Text(text) = &item.value else { return None };
        if !template::is_template(text) {
            return None;
        }
        let parts = match template::parts(text) {
            Ok(parts) => parts,
            Err(fault) => {
                self.note(&item.span, what, fault);
                return None;
            }
        };
        if !parts.contains(&Part::Every) {
            return match template::fill(&parts, &Combination::new()) {
                Ok(text) => Some(vec![text]),
                Err(fault) => {
                    self.note(&item.span, what, fault);
                    None
                }
            };
        }
        let fits = |template: &&str| template::parts(template).is_ok_and(|template| template::fits(&parts, &template));
        let mut found: Vec<_> =
            self.written.iter().filter(|(template, _)| fits(template)).flat_map(|(_, filled)| filled.clone()).collect();
        if found.is_empty() {
            let known: Vec<_> = self.written.keys().take(3).map(|template| quoted(template)).collect();
            let hint = match known.as_slice() {
                [] => "no step with a matrix writes a path with `${matrix.NAME}` in it".to_owned(),
                known => format!("such steps write {}", known.join(", ")),
            };
            let finding = Finding::new(format_args!("{} in {what} matches nothing", quoted(text)));
            self.reader.note(finding.at(&item.span, "no step with a matrix writes such a path").hint(hint));
        }
        // Two combinations that write one path are told where they write it.
        found.sort_unstable();
        found.dedup();
        Some(found)
    }

    /// Returns the names of all combinations, if `item` is the name of a step with a matrix.
    fn members(&mut self, item: &Node) -> Option<Vec<String>> {
        let Value::Text(name) = &item.value else { return None };
        Some(self.matrices.get(name)?.iter().map(|values| name_of(name, values)).collect())
    }
}

/// Returns a text that is a whole number as that number: a seed may come from a matrix.
fn number(node: Node) -> Node {
    let value = match &node.value {
        Value::Text(text) => text.parse::<i128>().ok().filter(|number| number.to_string() == *text).map(Value::Int),
        _ => None,
    };
    Node { value: value.unwrap_or(node.value), span: node.span }
}

fn cost_bytes(node: &Node) -> usize {
    VALUE_COST_BYTES
        + match &node.value {
            Value::Text(text) => text.len(),
            Value::List(items) => items.iter().map(cost_bytes).sum(),
            Value::Map(entries) => entries.iter().map(|(key, node)| key.text.len() + cost_bytes(node)).sum(),
            _ => 0,
        }
}
