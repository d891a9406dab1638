//! The matrix of a step: which combinations of values there are, and what they are called.

use std::collections::{BTreeMap, BTreeSet};

use crate::hash::Digest;
use crate::yaml::{Key, Node, Value};

use super::field::{Reader, subject};
use super::model::COMBINATION_MARK;
use super::problem::{Finding, quoted};
use super::suggest::did_you_mean;

/// How many combinations the matrices of one definition have at most, together.
pub(super) const COMBINATIONS_MAX: usize = 10_000;
/// How many times a combination is held against an entry of `include` or `exclude` at most.
const COMPARISONS_MAX: usize = 10_000_000;
/// How long the name of a combination gets before its end is replaced by a digest: it is also the name of a file.
const NAME_MAX_BYTES: usize = 200;

const INCLUDE: &str = "include";
const EXCLUDE: &str = "exclude";
const A_VALUE: &str = "a text, a number or a boolean";

/// One choice of values, each as it is spelled in the file.
pub(super) type Combination = BTreeMap<String, String>;

/// Returns whether a text can name the values of a matrix.
pub(super) fn is_name(text: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && text.chars().all(is_inner)
}

/// Returns the combinations: those of all values, without those that `exclude` names, with what `include` adds.
///
/// The values of the first name (in the order of the alphabet) change slowest.
/// An entry of `exclude` removes every combination that has all its values. An
/// entry of `include` is added to every combination of the lists of which it
/// changes no value that came from those lists; values that an earlier entry
/// added it may change. If there is none, it is a combination of its own,
/// to which later entries add nothing.
pub(super) fn combine(
    lists: &BTreeMap<String, Vec<String>>,
    exclude: &[Combination],
    include: &[Combination],
) -> Vec<Combination> {
    let mut all = if lists.is_empty() { Vec::new() } else { vec![Combination::new()] };
    for (name, values) in lists {
        let with = |one: &Combination, value: &String| {
            let mut one = one.clone();
            one.insert(name.clone(), value.clone());
            one
        };
        all = all.iter().flat_map(|one| values.iter().map(move |value| with(one, value))).collect();
    }
    all.retain(|one| !exclude.iter().any(|entry| has(one, entry)));
    let mut further = Vec::new();
    for entry in include {
        let from_lists: Combination =
            entry.iter().filter(|(name, _)| lists.contains_key(*name)).map(|(n, v)| (n.clone(), v.clone())).collect();
        let mut found = false;
        for one in all.iter_mut().filter(|one| has(one, &from_lists)) {
            one.extend(entry.clone());
            found = true;
        }
        if !found {
            further.push(entry.clone());
        }
    }
    all.append(&mut further);
    all
}

/// Returns whether a combination has all these values.
fn has(one: &Combination, values: &Combination) -> bool {
    values.iter().all(|(name, value)| one.get(name) == Some(value))
}

/// Returns the name of a step for one combination: `train@model=a,rate=0.1`.
///
/// Characters that no name of a step has are written as `%` and their
/// bytes in hexadecimal, so different combinations have different names. The end of a
/// name that is too long for a file is replaced by a digest of the whole.
pub(super) fn name_of(step: &str, one: &Combination) -> String {
    let pairs: Vec<_> = one.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    let name = format!("{step}{COMBINATION_MARK}{}", pairs.join(","));
    if name.len() <= NAME_MAX_BYTES {
        return name;
    }
    // All of it is ASCII, so it may be cut anywhere.
    let digest = Digest::of(name.as_bytes()).to_string();
    format!("{}~{}", &name[..NAME_MAX_BYTES - 17], &digest[..16])
}

fn escaped(value: &str) -> String {
    let mut out = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"_-.".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Returns the combinations that a matrix says; `None` if it cannot be used, which has been noted then.
pub(super) fn read(reader: &mut Reader<'_>, key: &Key, node: &Node, what: &str) -> Option<Vec<Combination>> {
    const EXPECTED: &str = "a map from names to lists of values";
    let before = reader.findings.len();
    let entries = reader.map(node, what, EXPECTED)?;
    let mut lists = BTreeMap::new();
    let mut include = Vec::new();
    let mut exclude = Vec::new();
    for (name, node) in entries {
        let what = format!("{} in {what}", quoted(&name.text));
        match name.text.as_str() {
            INCLUDE => include = maps(reader, node, &what),
            EXCLUDE => exclude = maps(reader, node, &what),
            _ => {
                check_name(reader, name, &what);
                lists.insert(name.text.clone(), list(reader, node, &what));
            }
        }
    }
    check_exclude(reader, &lists, &exclude, what);
    let count = lists.values().try_fold(1_usize, |all, values| all.checked_mul(values.len()));
    let count = count.filter(|count| *count <= COMBINATIONS_MAX);
    let compared = count.and_then(|count| count.checked_mul(include.len() + exclude.len()));
    if compared.is_none_or(|compared| compared > COMPARISONS_MAX) {
        let finding = Finding::new(format_args!("{what} has too many combinations"));
        let label = format!("a definition has at most {COMBINATIONS_MAX}");
        reader.note(finding.at(&key.span, label).hint("choose fewer values, or name the combinations under `include`"));
    }
    if reader.findings.len() > before {
        return None;
    }
    let places: Vec<_> = exclude.iter().map(|(span, _)| span.clone()).collect();
    let exclude: Vec<_> = exclude.into_iter().map(|(_, entry)| entry).collect();
    let include: Vec<_> = include.into_iter().map(|(_, entry)| entry).collect();
    let unhindered = combine(&lists, &[], &[]);
    for (entry, place) in exclude.iter().zip(&places) {
        if !unhindered.iter().any(|one| has(one, entry)) {
            let finding = Finding::new(format_args!("`{EXCLUDE}` in {what} excludes nothing"));
            reader.note(finding.at(place, "no combination has these values"));
        }
    }
    let all = combine(&lists, &exclude, &include);
    if all.is_empty() {
        let finding = Finding::new(format_args!("{what} has no combination")).at(&key.span, "nothing is left to run");
        reader.note(finding.hint("give it values: `matrix: {rate: [0.1, 0.2]}`"));
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = all.iter().find(|one| !seen.insert(*one)) {
        let name = name_of("", twice);
        let finding = Finding::new(format_args!("{what} has the combination {} twice", quoted(&name[1..])));
        reader.note(finding.at(&key.span, format_args!("two entries of `{INCLUDE}` are equal")));
    }
    (reader.findings.len() == before).then_some(all)
}

fn check_name(reader: &mut Reader<'_>, name: &Key, what: &str) {
    if !is_name(&name.text) {
        let finding = Finding::new(format_args!("{what} is no name"));
        let label = "a name has letters, digits, `_` and `-`, and does not start with a digit";
        reader.note(finding.at(&name.span, label));
    }
}

/// Every name that is excluded must be one of the lists: a misspelled one would exclude nothing.
fn check_exclude(
    reader: &mut Reader<'_>,
    lists: &BTreeMap<String, Vec<String>>,
    exclude: &[(std::ops::Range<usize>, Combination)],
    what: &str,
) {
    for (place, entry) in exclude {
        for name in entry.keys().filter(|name| !lists.contains_key(*name)) {
            let finding = Finding::new(format_args!("`{EXCLUDE}` in {what} has the unknown name {}", quoted(name)));
            let hint = did_you_mean(name, lists.keys().map(String::as_str));
            reader.note(finding.at(place, "no list of this matrix is called so").maybe_hint(hint));
        }
    }
}

/// Returns a list of values, at least one, none twice.
fn list(reader: &mut Reader<'_>, node: &Node, what: &str) -> Vec<String> {
    let Value::List(items) = &node.value else {
        reader.wrong(node, what, "a list of values");
        return Vec::new();
    };
    if items.is_empty() {
        reader.note(Finding::new(format_args!("{what} is empty")).at(&node.span, "expected at least one value"));
    }
    let item_of = subject(node, what);
    let mut seen: BTreeMap<String, std::ops::Range<usize>> = BTreeMap::new();
    let mut values = Vec::new();
    for item in items {
        let Some(text) = value(reader, item, &item_of) else { continue };
        if let Some(first) = seen.insert(text.clone(), item.span.clone()) {
            let finding = Finding::new(format_args!("{} is listed twice in {what}", quoted(&text)));
            reader.note(finding.at(&item.span, "listed again here").at(&first, "first listed here"));
        }
        values.push(text);
    }
    values
}

/// Returns a list of maps from names to values, each with its place.
fn maps(reader: &mut Reader<'_>, node: &Node, what: &str) -> Vec<(std::ops::Range<usize>, Combination)> {
    let Value::List(items) = &node.value else {
        reader.wrong(node, what, "a list of maps from names to values");
        return Vec::new();
    };
    let item_of = subject(node, what);
    let mut maps = Vec::new();
    for item in items {
        let Some(entries) = reader.map(item, &item_of, "a map from names to values") else { continue };
        if entries.is_empty() {
            reader.note(Finding::new(format_args!("{item_of} is empty")).at(&item.span, "expected names and values"));
        }
        let mut one = Combination::new();
        for (name, node) in entries {
            let what = format!("{} in {what}", quoted(&name.text));
            check_name(reader, name, &what);
            one.extend(value(reader, node, &what).map(|value| (name.text.clone(), value)));
        }
        maps.push((item.span.clone(), one));
    }
    maps
}

/// Returns a value as it is spelled.
fn value(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<String> {
    match &node.value {
        Value::Text(text) if text.contains('\0') => reader.text(node, what, A_VALUE),
        Value::Text(_) | Value::Int(_) | Value::Float(_) | Value::Bool(_) => Some(reader.spelled(node)),
        _ => {
            reader.wrong(node, what, A_VALUE);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(pairs: &[(&str, &str)]) -> Combination {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn lists(lists: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
        lists
            .iter()
            .map(|(name, values)| ((*name).to_owned(), values.iter().map(|v| (*v).to_owned()).collect()))
            .collect()
    }

    #[test]
    fn entries_of_include_are_added_as_the_well_known_example_has_it() {
        let lists = lists(&[("fruit", &["apple", "pear"]), ("animal", &["cat", "dog"])]);
        let include = [
            one(&[("color", "green")]),
            one(&[("color", "pink"), ("animal", "cat")]),
            one(&[("fruit", "apple"), ("shape", "circle")]),
            one(&[("fruit", "banana")]),
            one(&[("fruit", "banana"), ("animal", "cat")]),
        ];
        let expected = [
            one(&[("animal", "cat"), ("color", "pink"), ("fruit", "apple"), ("shape", "circle")]),
            one(&[("animal", "cat"), ("color", "pink"), ("fruit", "pear")]),
            one(&[("animal", "dog"), ("color", "green"), ("fruit", "apple"), ("shape", "circle")]),
            one(&[("animal", "dog"), ("color", "green"), ("fruit", "pear")]),
            one(&[("fruit", "banana")]),
            one(&[("animal", "cat"), ("fruit", "banana")]),
        ];
        assert_eq!(combine(&lists, &[], &include), expected);
    }

    #[test]
    fn what_is_excluded_can_be_included_again() {
        let lists = lists(&[("a", &["1", "2"]), ("b", &["x", "y"])]);
        let left = combine(&lists, &[one(&[("a", "1")])], &[one(&[("a", "1"), ("b", "x")])]);
        let expected = [one(&[("a", "2"), ("b", "x")]), one(&[("a", "2"), ("b", "y")]), one(&[("a", "1"), ("b", "x")])];
        assert_eq!(left, expected);
    }

    #[test]
    fn names_are_readable_and_what_does_not_suit_a_name_is_escaped() {
        assert_eq!(name_of("train", &one(&[("rate", "0.1"), ("model", "a")])), "train@model=a,rate=0.1");
        assert_eq!(name_of("s", &one(&[("p", "x/y,z=%+é")])), "s@p=x%2Fy%2Cz%3D%25%2B%C3%A9");
        let long = name_of("s", &one(&[("p", &"x".repeat(1000))]));
        assert_eq!(long.len(), NAME_MAX_BYTES);
        assert_ne!(long, name_of("s", &one(&[("p", &"x".repeat(1001))])));
    }

    fn any_values() -> impl Strategy<Value = Combination> {
        proptest::collection::btree_map("[abc]", "[xyz]", 1..3)
    }

    proptest! {
        #[test]
        fn combinations_are_a_function_of_the_matrix_and_have_names_of_their_own(
            lists in proptest::collection::btree_map("[abc]", proptest::collection::btree_set("[ -~é]{0,3}", 1..4), 0..4),
            exclude in proptest::collection::vec(any_values(), 0..3),
            include in proptest::collection::vec(any_values(), 0..4),
        ) {
            let lists: BTreeMap<_, Vec<_>> = lists.into_iter().map(|(name, set)| (name, set.into_iter().collect())).collect();
            let all = combine(&lists, &exclude, &include);
            prop_assert_eq!(&all, &combine(&lists, &exclude, &include));
            let combinations: BTreeSet<_> = all.iter().collect();
            let names: BTreeSet<_> = all.iter().map(|one| name_of("s", one)).collect();
            prop_assert_eq!(names.len(), combinations.len());
            prop_assert!(names.iter().all(|name| !name.contains('/') && name.len() <= NAME_MAX_BYTES));
            // Whatever the lists combine to is there, unless it was excluded.
            let plain = combine(&lists, &[], &[]);
            prop_assert_eq!(plain.len(), if lists.is_empty() { 0 } else { lists.values().map(Vec::len).product() });
            for one in plain.iter().filter(|one| !exclude.iter().any(|entry| has(one, entry))) {
                prop_assert!(all.iter().any(|other| has(other, one)));
            }
        }
    }
}
