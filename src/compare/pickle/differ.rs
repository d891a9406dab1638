//! Where the pictures of two pickles differ.

use std::collections::{BTreeMap, BTreeSet};

use super::super::number::{Difference, Spelled};
use super::super::report::{Finding, Report, hex};
use super::super::shape::Shape;
use super::super::{array, compare as compare_bytes};
use super::{Id, Made, Node, Picture};

/// So many pairs of things are compared.
const PAIRS_MAX: usize = 16_000_000;
/// How deep a key of a map, or an item of a set, may be nested to be told apart from others.
const KEY_DEPTH_MAX: usize = 6;
/// A longer key is not told apart.
const KEY_MAX_BYTES: usize = 4096;
/// When so many bytes of arrays were compared, further tensors are compared by what they are made of, each storage once.
const VIEWED_MAX_BYTES: usize = 1024 * 1024 * 1024;
/// What a tensor is called with, behind where its elements lie.
const TENSOR: [&str; 3] = [" requires_grad", " hooks", " metadata"];
/// With what well-known functions are called.
const ARGUMENTS: [(&str, &[&str]); 3] = [
    ("torch._utils._rebuild_parameter", &["", " requires_grad", " hooks"]),
    ("pandas._libs.internals._unpickle_block", &["", " placement", " dimensions"]),
    (FRAME, &[" blocks", " axes"]),
];
/// The columns of a table of pandas, those of one type in one block.
const FRAME: &str = "pandas.core.internals.managers.BlockManager";
/// A table in more blocks, or with more columns, is compared as any other thing.
const BLOCKS_MAX: usize = 1024;
/// So many columns of a block are named.
const COLUMNS_TOLD: usize = 6;
/// What keeps its keys in an order that counts.
const ORDERED: &str = "collections.OrderedDict";
/// So many keys of those are told.
const KEYS_TOLD: usize = 8;
/// What the parts of well-known states are, of things that are no arrays of numbers.
const STATES: [(&str, &[&str]); 2] = [
    ("numpy._core.multiarray._reconstruct", &[" version", " shape", " dtype", " order", ""]),
    ("pandas._libs.arrays.__pyx_unpickle_NDArrayBacked", &[" dtype", "", " attributes"]),
];
/// Calls with more arguments, and states of more parts, are none of those that are well known.
const PARTS_MAX: usize = 8;
/// What pandas has computed of what it has.
const COMPUTED: &str = "_cache";
/// How deep a place is told.
const PLACE_MAX: usize = 24;

/// Compares two pictures; `None` if they are too large to be compared.
pub(super) fn compare(report: &mut Report, old: &Picture<'_>, new: &Picture<'_>) -> Option<()> {
    if old.roots.len() != new.roots.len() {
        let count = |side: &Picture<'_>| Some(format!("{} pickles", side.roots.len()));
        report.differ(|| Finding::of("length", count(old), count(new)));
        return Some(());
    }
    let mut walk = Walk {
        old,
        new,
        places: Vec::new(),
        open: Vec::new(),
        seen: BTreeSet::new(),
        viewed_bytes: 0,
        of_pandas: BTreeSet::new(),
    };
    let is_single = old.roots.len() == 1;
    for (index, (old, new)) in old.roots.iter().zip(&new.roots).enumerate().rev() {
        walk.push(None, if is_single { String::new() } else { format!("[{index}]") }, *old, *new);
    }
    while let Some((place, old, new)) = walk.open.pop() {
        if walk.seen.insert((old, new)) {
            if walk.seen.len() > PAIRS_MAX {
                return None;
            }
            walk.pair(report, place, old, new);
        }
    }
    Some(())
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Old,
    New,
}

struct Walk<'a> {
    old: &'a Picture<'a>,
    new: &'a Picture<'a>,
    /// The last part of each place, and the place that it is a part of.
    places: Vec<(Option<usize>, String)>,
    /// What is still to be compared, the next at the end.
    open: Vec<(usize, Id, Id)>,
    seen: BTreeSet<(Id, Id)>,
    /// How many bytes of arrays were compared.
    viewed_bytes: usize,
    /// States of things of pandas, on both sides.
    of_pandas: BTreeSet<(Side, Id)>,
}

impl Walk<'_> {
    fn push(&mut self, above: Option<usize>, part: String, old: Id, new: Id) {
        self.places.push((above, part));
        self.open.push((self.places.len() - 1, old, new));
    }

    fn place(&self, place: usize) -> String {
        let mut parts = Vec::new();
        let mut next = Some(place);
        while let Some(at) = next.filter(|_| parts.len() < PLACE_MAX) {
            let (above, part) = &self.places[at];
            parts.push(part.as_str());
            next = *above;
        }
        parts.push("$");
        parts.reverse();
        parts.concat()
    }

    fn pair(&mut self, report: &mut Report, place: usize, old: Id, new: Id) {
        if self.arrays(report, place, old, new) || self.storages(report, place, old, new) {
            return;
        }
        let (before, after) = (&self.old.nodes[old], &self.new.nodes[new]);
        match (before, after) {
            (Node::List(a), Node::List(b)) | (Node::Tuple(a), Node::Tuple(b)) => {
                let (a, b) = (a.clone(), b.clone());
                self.sequences(report, place, "", &a, &b);
            }
            (Node::Set(a), Node::Set(b)) => {
                let (a, b) = (a.clone(), b.clone());
                self.sets(report, place, &a, &b);
            }
            (Node::Map(a), Node::Map(b)) => {
                let (a, b) = (self.told_pairs(Side::Old, old, a), self.told_pairs(Side::New, new, b));
                self.maps(report, place, &a, &b);
            }
            (Node::Made(a), Node::Made(b)) => {
                let (a, b) = (a.clone(), b.clone());
                self.things(report, place, &a, &b);
            }
            (Node::Elsewhere(a), Node::Elsewhere(b)) => self.push(Some(place), String::new(), *a, *b),
            _ => self.leaves(report, place, before, after),
        }
    }

    /// Compares two arrays or tensors, if both are.
    fn arrays(&mut self, report: &mut Report, place: usize, old: Id, new: Id) -> bool {
        let (old_about, new_about) = (self.old.about_tensor(old), self.new.about_tensor(new));
        // Any number of tensors may lie in one storage, each with all of it.
        if old_about.is_some() != new_about.is_some() || old_about.is_some() && self.viewed_bytes > VIEWED_MAX_BYTES {
            return false;
        }
        let (Some(before), Some(after)) = (self.old.array(old), self.new.array(new)) else { return false };
        self.viewed_bytes += before.data.len().max(after.data.len());
        // Their elements are there, or they would be none.
        if report.inside(self.place(place), |report| array::compare(report, &before, &after)).is_none() {
            return false;
        }
        if let (Some(old), Some(new)) = (old_about, new_about) {
            self.arguments(report, place, (old, new), &TENSOR);
        }
        true
    }

    /// Compares what is kept beside, if both are.
    fn storages(&self, report: &mut Report, place: usize, old: Id, new: Id) -> bool {
        let (Some(old), Some(new)) = (self.old.storage(old), self.new.storage(new)) else { return false };
        report.inside(self.place(place), |report| array::compare(report, &old, &new)).is_some()
    }

    /// Compares with what something is called, each under the name that it has there.
    fn arguments(&mut self, report: &mut Report, place: usize, (old, new): (&[Id], &[Id]), names: &[&str]) {
        if old.len() != new.len() {
            let count = |arguments: &[Id]| Some(format!("call with {} arguments", arguments.len()));
            report.differ(|| Finding::of(self.place(place), count(old), count(new)));
        }
        for (index, (old, new)) in old.iter().zip(new).enumerate().rev() {
            let part = names.get(index).map_or_else(|| format!("[{index}]"), |name| (*name).to_owned());
            self.push(Some(place), part, *old, *new);
        }
    }

    fn leaves(&self, report: &mut Report, place: usize, old: &Node<'_>, new: &Node<'_>) {
        match (old, new) {
            (Node::None, Node::None) => {}
            (Node::Float(a), Node::Float(b)) => {
                let finding = || Finding::of_texts(self.place(place), &format!("{a:?}"), &format!("{b:?}"));
                if a.to_bits() == b.to_bits() {
                    report.same_numbers(1);
                } else {
                    report.number(Spelled::Float(*a).difference(Spelled::Float(*b)), finding);
                }
            }
            (Node::Whole(a), Node::Whole(b)) if a == b => report.same_numbers(1),
            (Node::Whole(a), Node::Whole(b)) => {
                let finding = || Finding::of_texts(self.place(place), &a.to_string(), &b.to_string());
                report.number(Difference::whole(*a, *b), finding);
            }
            (Node::Bool(a), Node::Bool(b)) if a == b => {}
            (Node::Large(a), Node::Large(b)) if a == b => {}
            (Node::Text(a), Node::Text(b)) if a == b => {}
            (Node::Global(a), Node::Global(b)) if a == b => {}
            (Node::Bytes(a), Node::Bytes(b)) => {
                if a != b {
                    report.inside(self.place(place), |report| compare_bytes(report, "", a, b));
                }
            }
            (Node::Raw { data: a, .. }, Node::Raw { data: b, .. }) => {
                if a != b {
                    report.inside(self.place(place), |report| compare_bytes(report, "", a, b));
                }
            }
            (old, new) => {
                let told = |picture: &Picture<'_>, node: &Node<'_>| spelled(picture, node);
                let (old, new) = (told(self.old, old), told(self.new, new));
                report.differ(|| Finding::of_texts(self.place(place), &old, &new));
            }
        }
    }

    fn sequences(&mut self, report: &mut Report, place: usize, part: &str, old: &[Id], new: &[Id]) {
        if old.len() != new.len() {
            let count = |items: &[Id]| Some(format!("{} items", items.len()));
            report.differ(|| Finding::of(self.place(place) + part, count(old), count(new)));
        }
        for (index, (old, new)) in old.iter().zip(new).enumerate().rev() {
            // Steps of a pipeline and the like are pairs of a name and something.
            let part = match (named(self.old, *old), named(self.new, *new)) {
                (Some(old), Some(new)) if old == new => format!("{part}['{old}']"),
                _ => format!("{part}[{index}]"),
            };
            self.push(Some(place), part, *old, *new);
        }
    }

    fn sets(&mut self, report: &mut Report, place: usize, old: &[Id], new: &[Id]) {
        let (Some(old_keys), Some(new_keys)) = (keys(self.old, old), keys(self.new, new)) else {
            return self.sequences(report, place, "", old, new);
        };
        for key in old_keys.keys().filter(|key| !new_keys.contains_key(*key)) {
            report.differ(|| Finding::of(self.place(place) + " item", Some(key.clone()), None));
        }
        for key in new_keys.keys().filter(|key| !old_keys.contains_key(*key)) {
            report.differ(|| Finding::of(self.place(place) + " item", None, Some(key.clone())));
        }
    }

    /// Compares two maps by their keys, or in order if those cannot be told apart.
    fn maps(&mut self, report: &mut Report, place: usize, old: &[(Id, Id)], new: &[(Id, Id)]) {
        let names = |pairs: &[(Id, Id)]| pairs.iter().map(|(key, _)| *key).collect::<Vec<Id>>();
        let (Some(old_keys), Some(new_keys)) = (keys(self.old, &names(old)), keys(self.new, &names(new))) else {
            return self.pairs(report, place, old, new);
        };
        let mut both = Vec::new();
        for (key, at) in &old_keys {
            match new_keys.get(key) {
                Some(other) => both.push((at, part_of(self.old, old[*at].0, key), old[*at].1, new[*other].1)),
                None => {
                    let value = spelled(self.old, &self.old.nodes[old[*at].1]);
                    let part = part_of(self.old, old[*at].0, key);
                    report.differ(|| Finding::of(self.place(place) + &part, Some(value), None));
                }
            }
        }
        for (key, at) in new_keys.iter().filter(|(key, _)| !old_keys.contains_key(*key)) {
            let value = spelled(self.new, &self.new.nodes[new[*at].1]);
            let part = part_of(self.new, new[*at].0, key);
            report.differ(|| Finding::of(self.place(place) + &part, None, Some(value)));
        }
        both.sort_unstable_by_key(|(at, ..)| std::cmp::Reverse(**at));
        for (_, part, old, new) in both {
            self.push(Some(place), part, old, new);
        }
    }

    /// Tells whether the same keys are in another order, of maps for which that matters.
    fn order(&self, report: &mut Report, place: usize, old: &[(Id, Id)], new: &[(Id, Id)]) {
        let told = |picture: &Picture<'_>, pairs: &[(Id, Id)]| {
            pairs.iter().map(|pair| key(picture, pair.0, 0)).collect::<Option<Vec<String>>>()
        };
        let (Some(old), Some(new)) = (told(self.old, old), told(self.new, new)) else { return };
        let mut sorted = [old.clone(), new.clone()];
        sorted.iter_mut().for_each(|keys| keys.sort_unstable());
        if old == new || sorted[0] != sorted[1] {
            return;
        }
        report.note(format!("keys of {} are in another order", self.place(place)));
        let told = |keys: &[String]| Some(keys.iter().take(KEYS_TOLD).cloned().collect::<Vec<_>>().join(", "));
        report.differ(|| {
            Finding::of(self.place(place) + " keys", told(&old), told(&new)).shaped(Some(Shape::Reordering))
        });
    }

    /// Compares pairs in the order in which they are set.
    fn pairs(&mut self, report: &mut Report, place: usize, old: &[(Id, Id)], new: &[(Id, Id)]) {
        if old.len() != new.len() {
            let count = |pairs: &[(Id, Id)]| Some(format!("{} items", pairs.len()));
            report.differ(|| Finding::of(self.place(place), count(old), count(new)));
        }
        for (index, (old_pair, new_pair)) in old.iter().zip(new).enumerate().rev() {
            let part = match key(self.old, old_pair.0, 0) {
                Some(key) => part_of(self.old, old_pair.0, &key),
                None => format!("[{index}]"),
            };
            self.push(Some(place), part.clone(), old_pair.1, new_pair.1);
            self.push(Some(place), part + " key", old_pair.0, new_pair.0);
        }
    }

    fn things(&mut self, report: &mut Report, place: usize, old: &Made, new: &Made) {
        if self.old.call(old).is_some_and(|(name, _)| name == ORDERED) {
            self.order(report, place, &old.pairs, &new.pairs);
        }
        self.maps(report, place, &old.pairs, &new.pairs);
        self.sequences(report, place, "", &old.items, &new.items);
        if old.states.len() == new.states.len() {
            for (before, after) in old.states.iter().zip(&new.states) {
                self.states(report, place, (old, *before), (new, *after));
            }
        } else {
            let count = |states: &[Id]| Some(format!("{} states", states.len()));
            report.differ(|| Finding::of(self.place(place), count(&old.states), count(&new.states)));
        }
        if let (Some((name, old)), Some((new_name, new))) = (self.old.call(old), self.new.call(new))
            && name == new_name
            && let Some((_, names)) = ARGUMENTS.iter().find(|(known, _)| *known == name)
            && old.len().max(new.len()) <= PARTS_MAX
        {
            let names = *names;
            if name != FRAME || !self.frames(place, old, new) {
                self.arguments(report, place, (old, new), names);
            }
        } else if old.parts.len() == new.parts.len() {
            for (index, (old, new)) in old.parts.iter().zip(&new.parts).enumerate().rev() {
                let part = if index == 0 { " class" } else { "" };
                self.push(Some(place), part.to_owned(), *old, *new);
            }
        } else {
            let count = |parts: &[Id]| Some(format!("call of {} parts", parts.len()));
            report.differ(|| Finding::of(self.place(place), count(&old.parts), count(&new.parts)));
        }
    }
}

impl Walk<'_> {
    /// Compares two tables of pandas block by block, by the names of their columns; returns whether it could.
    fn frames(&mut self, place: usize, old: &[Id], new: &[Id]) -> bool {
        let ([old_blocks, old_axes], [new_blocks, new_axes]) = (old, new) else { return false };
        let (Some(old), Some(new)) = (self.old.items(*old_blocks), self.new.items(*new_blocks)) else { return false };
        if old.len() > BLOCKS_MAX || self.seen.contains(&(*old_blocks, *new_blocks)) {
            return false;
        }
        let parts = |picture: &Picture<'_>, blocks: &[Id], axes: Id| {
            let labels = picture.labels(axes).unwrap_or_default();
            blocks.iter().map(|block| picture.columns(*block, &labels)).collect::<Option<Vec<String>>>()
        };
        let old_parts = parts(self.old, old, *old_axes);
        if old_parts.is_none() || old_parts != parts(self.new, new, *new_axes) {
            return false;
        }
        self.seen.insert((*old_blocks, *new_blocks));
        self.push(Some(place), " axes".to_owned(), *old_axes, *new_axes);
        for ((old, new), part) in old.iter().zip(new).zip(old_parts.unwrap_or_default()).rev() {
            self.push(Some(place), part, *old, *new);
        }
        true
    }

    /// Returns the pairs of a map that count: what pandas keeps of what it has computed is there or not as things were asked before.
    fn told_pairs(&self, side: Side, map: Id, pairs: &[(Id, Id)]) -> Vec<(Id, Id)> {
        if !self.of_pandas.contains(&(side, map)) {
            return pairs.to_owned();
        }
        let picture = if side == Side::Old { self.old } else { self.new };
        pairs.iter().filter(|(key, _)| picture.text(*key) != Some(COMPUTED)).copied().collect()
    }

    /// Compares what two things are given as their states, by names where libraries give a state without any.
    fn states(&mut self, report: &mut Report, place: usize, (old, before): (&Made, Id), (new, after): (&Made, Id)) {
        let name = self.old.call(old).map(|(name, _)| name);
        for (side, picture, made, state) in [(Side::Old, self.old, old, before), (Side::New, self.new, new, after)] {
            if picture.call(made).is_some_and(|(name, _)| name.starts_with("pandas.")) {
                let parts = picture.items(state).unwrap_or_default().iter().take(PARTS_MAX);
                self.of_pandas.extend(parts.chain([&state]).map(|id| (side, *id)));
            }
        }
        if let Some(name) = name.filter(|name| Some(*name) == self.new.call(new).map(|(name, _)| name))
            && let (Some(old), Some(new)) = (self.old.items(before), self.new.items(after))
            && let Some((_, names)) = STATES.iter().find(|(known, _)| *known == name)
            && names.len() == old.len()
            && names.len() == new.len()
        {
            return self.arguments(report, place, (old, new), names);
        }
        self.push(Some(place), String::new(), before, after);
    }
}

impl Picture<'_> {
    /// Returns the names of the columns of a table, if they are texts.
    fn labels(&self, axes: Id) -> Option<Vec<&str>> {
        let Node::Made(index) = &self.nodes[*self.items(axes)?.first()?] else { return None };
        let [_, about] = self.call(index)?.1 else { return None };
        let Node::Made(array) = &self.nodes[self.get(*about, "data")?] else { return None };
        let labels = self.items(*self.items(*array.states.last()?)?.last()?)?;
        if labels.len() > BLOCKS_MAX {
            return None;
        }
        labels.iter().map(|label| self.text(*label)).collect()
    }

    /// Returns which columns are in a block, as a place.
    fn columns(&self, block: Id, labels: &[&str]) -> Option<String> {
        let Node::Made(block) = &self.nodes[block] else { return None };
        let [_, placement, _] = self.call(block)?.1 else { return None };
        let Node::Made(placement) = &self.nodes[*placement] else { return None };
        let ("builtins.slice", [start, stop, step]) = self.call(placement)? else { return None };
        let [start, stop, step] = [start, stop, step].map(|id| self.whole(*id).and_then(|at| usize::try_from(at).ok()));
        let all = (start?..stop?).step_by(step.filter(|step| *step > 0)?);
        let told = all
            .clone()
            .take(COLUMNS_TOLD)
            .map(|at| labels.get(at).map_or_else(|| at.to_string(), |name| (*name).to_owned()));
        let told = told.collect::<Vec<_>>().join(", ");
        Some(match all.len() {
            1 => format!(" column {told}"),
            count if count <= COLUMNS_TOLD => format!(" columns {told}"),
            count => format!(" columns {told} and {} more", count - COLUMNS_TOLD),
        })
    }
}

/// Returns the name of a pair that is a name and an object with a class.
fn named<'a>(picture: &'a Picture<'_>, id: Id) -> Option<&'a str> {
    let Node::Tuple(items) = &picture.nodes[id] else { return None };
    let [name, thing, ..] = items[..] else { return None };
    let Node::Made(_) = &picture.nodes[thing] else { return None };
    picture.text(name).filter(|name| is_name(name))
}

/// Returns whether a text could be the name of an attribute.
fn is_name(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || c == '_') && !text.is_empty()
}

/// Returns how a place goes on at a key of a map: names of attributes as such.
fn part_of(picture: &Picture<'_>, key: Id, spelled: &str) -> String {
    // Layers of a model are told as people write them: `encoder.0.weight`.
    match picture.text(key) {
        Some(text) if text.split('.').all(is_name) => format!(".{text}"),
        _ => format!("[{spelled}]"),
    }
}

/// Returns where each of some keys stands, by what it is; `None` if they cannot be told apart.
fn keys(picture: &Picture<'_>, ids: &[Id]) -> Option<BTreeMap<String, usize>> {
    let mut keys = BTreeMap::new();
    for (index, id) in ids.iter().enumerate() {
        if keys.insert(key(picture, *id, 0)?, index).is_some() {
            return None;
        }
    }
    Some(keys)
}

/// Returns a text that says what a simple thing is, another for each.
fn key(picture: &Picture<'_>, id: Id, depth: usize) -> Option<String> {
    if depth > KEY_DEPTH_MAX {
        return None;
    }
    let text = match &picture.nodes[id] {
        Node::None => "None".to_owned(),
        Node::Bool(value) => if *value { "True" } else { "False" }.to_owned(),
        Node::Whole(value) => value.to_string(),
        Node::Float(value) => format!("{value:?}"),
        Node::Text(text) => format!("'{}'", text.escape_debug()),
        Node::Bytes(bytes) => format!("b'{}'", hex(bytes, KEY_MAX_BYTES)),
        Node::Global(name) => name.clone(),
        Node::Tuple(items) => {
            let mut keys = Vec::new();
            for item in items {
                keys.push(key(picture, *item, depth + 1)?);
            }
            format!("({})", keys.join(", "))
        }
        Node::Set(items) => {
            let mut keys = Vec::new();
            for item in items {
                keys.push(key(picture, *item, depth + 1)?);
            }
            keys.sort_unstable();
            format!("{{{}}}", keys.join(", "))
        }
        Node::Large(_) | Node::List(_) | Node::Map(_) | Node::Elsewhere(_) | Node::Made(_) | Node::Raw { .. } => {
            return None;
        }
    };
    (text.len() <= KEY_MAX_BYTES).then_some(text)
}

/// Returns a thing for people.
fn spelled(picture: &Picture<'_>, node: &Node<'_>) -> String {
    match node {
        Node::None => "None".to_owned(),
        Node::Bool(value) => if *value { "True" } else { "False" }.to_owned(),
        Node::Whole(value) => value.to_string(),
        Node::Large(bytes) => hex(bytes, 16),
        Node::Raw { data, .. } => hex(data, 16),
        Node::Float(value) => format!("{value:?}"),
        Node::Text(text) => text.clone().into_owned(),
        Node::Bytes(bytes) => format!("{} bytes", bytes.len()),
        Node::List(items) => format!("list of {} items", items.len()),
        Node::Tuple(items) => format!("tuple of {} items", items.len()),
        Node::Set(items) => format!("set of {} items", items.len()),
        Node::Map(pairs) => format!("dict of {} items", pairs.len()),
        Node::Global(name) => name.clone(),
        Node::Elsewhere(_) => "something kept elsewhere".to_owned(),
        Node::Made(made) => match picture.call(made) {
            Some((name, _)) => format!("{name}(…)"),
            None => "an object".to_owned(),
        },
    }
}
