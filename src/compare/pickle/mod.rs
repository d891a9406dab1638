//! Pickles: what they would build, without building it.
//!
//! A pickle is a program for a small machine with a stack. Here that machine makes a picture of what would come about:
//! which things by which calls with which arguments. Nothing is called or imported. So the numbers of a memo, frames, and the
//! version of the protocol make no difference, and a set may be written in any order.

mod differ;
mod machine;
mod numpy;
pub(super) mod older;
mod spelled;
mod tensors;

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::compare as compare_bytes;
use super::report::{Finding, Report};

/// The place of a node in [`Picture::nodes`].
type Id = usize;

/// What a pickle would build.
#[derive(Debug)]
struct Picture<'a> {
    nodes: Vec<Node<'a>>,
    /// What was built; more than one if several pickles stand behind each other.
    roots: Vec<Id>,
    /// What is kept beside the pickle.
    storages: Storages<'a>,
}

/// A thing that would be built.
#[derive(Clone, Debug)]
enum Node<'a> {
    None,
    Bool(bool),
    Whole(i128),
    /// A whole number of more than 128 bits, the least significant byte first.
    Large(Cow<'a, [u8]>),
    Float(f64),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Set(Vec<Id>),
    Map(Vec<(Id, Id)>),
    /// A class or a function, by module and name.
    Global(String),
    /// Something that is kept elsewhere, by what it is called there.
    Elsewhere(Id),
    /// Anything that comes about by a call.
    Made(Made),
    /// The elements of an array of joblib, which stand between instructions.
    Raw {
        wrapper: Made,
        data: &'a [u8],
    },
}

/// Something that comes about by a call, and what happens to it then.
#[derive(Clone, Debug, Default)]
struct Made {
    /// What is called, and with what.
    parts: Vec<Id>,
    /// What it is given as its state.
    states: Vec<Id>,
    /// What is appended to it.
    items: Vec<Id>,
    /// What is set in it.
    pairs: Vec<(Id, Id)>,
}

/// Longer maps are not looked into.
const PAIRS_MAX: usize = 256;

/// What is kept beside a pickle, by the name that the pickle has for it.
pub(super) type Storages<'a> = BTreeMap<String, Cow<'a, [u8]>>;

/// Returns whether bytes begin and end as a pickle does.
///
/// Those of protocol 0 and 1 have no mark, and may be made of readable characters alone; that they are pickles is only known when
/// their instructions have been followed to the end.
pub(super) fn may_be_it(bytes: &[u8]) -> bool {
    const FIRST: &[u8] = b"(c]}ILFSVGJKMTUX";
    match bytes {
        [0x80, 2..=5, .., b'.'] => true,
        [first, inner @ .., b'.'] => FIRST.contains(first) && inner.iter().any(u8::is_ascii_control),
        _ => false,
    }
}

/// Compares two pickles; `None` if one of them cannot be followed.
pub(super) fn compare(report: &mut Report, old: &[u8], new: &[u8]) -> Option<()> {
    compare_with(report, "", (old, Storages::new()), (new, Storages::new()))
}

/// Compares two pickles together with what is kept beside them in a directory, whether they name it or not.
pub(super) fn compare_with<'a>(
    report: &mut Report,
    directory: &str,
    (old, old_storages): (&'a [u8], Storages<'a>),
    (new, new_storages): (&'a [u8], Storages<'a>),
) -> Option<()> {
    let old = Picture { storages: old_storages, ..machine::run(old)? };
    let new = Picture { storages: new_storages, ..machine::run(new)? };
    differ::compare(report, &old, &new)?;
    let (old, new) = (old.unnamed(), new.unnamed());
    let place = |key: &str| format!("member {directory}/{key}");
    for (key, before) in &old {
        match new.get(key) {
            Some(after) => {
                report.inside(place(key), |report| compare_bytes(report, key, before, after));
            }
            None => report.differ(|| Finding::of(place(key), Some(bytes_told(before)), None)),
        }
    }
    for (key, after) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
        report.differ(|| Finding::of(place(key), None, Some(bytes_told(after))));
    }
    Some(())
}

fn bytes_told(bytes: &[u8]) -> String {
    format!("{} bytes", bytes.len())
}

impl Picture<'_> {
    /// Returns what lies beside the pickle without being named in it.
    fn unnamed(&self) -> BTreeMap<&str, &[u8]> {
        let mut all: BTreeMap<&str, &[u8]> =
            self.storages.iter().map(|(key, bytes)| (key.as_str(), &**bytes)).collect();
        for kept in self.all_kept() {
            all.remove(kept.key);
        }
        all
    }

    /// Returns the name of what is called to make this, and the arguments.
    fn call(&self, made: &Made) -> Option<(&str, &[Id])> {
        let Node::Global(name) = &self.nodes[*made.parts.first()?] else { return None };
        let arguments = match made.parts.get(1).map(|id| &self.nodes[*id]) {
            Some(Node::Tuple(arguments)) => arguments.as_slice(),
            _ => &[],
        };
        Some((name, arguments))
    }

    fn bytes(&self, id: Id) -> Option<&[u8]> {
        match &self.nodes[id] {
            Node::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    fn text(&self, id: Id) -> Option<&str> {
        match &self.nodes[id] {
            Node::Text(text) => Some(text),
            // Programs of Python 2 have texts that are bytes.
            Node::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    fn whole(&self, id: Id) -> Option<i128> {
        match &self.nodes[id] {
            Node::Whole(whole) => Some(*whole),
            Node::Bool(value) => Some((*value).into()),
            _ => None,
        }
    }

    fn items(&self, id: Id) -> Option<&[Id]> {
        match &self.nodes[id] {
            Node::Tuple(items) | Node::List(items) => Some(items),
            _ => None,
        }
    }

    /// Returns what a map has under a text.
    fn get(&self, map: Id, name: &str) -> Option<Id> {
        // What libraries tell of their arrays is short; looking for it in something long takes long, once for each array.
        let Node::Map(pairs) = &self.nodes[map] else { return None };
        if pairs.len() > PAIRS_MAX {
            return None;
        }
        pairs.iter().rev().find(|(key, _)| self.text(*key) == Some(name)).map(|(_, value)| *value)
    }
}

#[cfg(test)]
mod tests {
    use crate::compare::compare_bytes;
    use crate::pipeline::Level;

    /// A list of twice the list before, and so on: few bytes that stand for more than any memory holds.
    fn laughs(first: u8, levels: u8) -> Vec<u8> {
        let mut bytes = vec![0x80, 2, b']', b'q', 0, b'K', first, b'a', b'0'];
        for level in 1..levels {
            bytes.extend([b']', b'q', level, b'(', b'h', level - 1, b'h', level - 1, b'e', b'0']);
        }
        bytes.extend([b'h', levels - 1, b'.']);
        bytes
    }

    #[test]
    fn what_is_said_once_is_compared_once() {
        let comparison = compare_bytes("x.pkl", &laughs(1, 200), &laughs(2, 200));
        assert_eq!((comparison.level, comparison.format, comparison.more), (Level::Different, "pickle", 0));
        assert_eq!(comparison.findings.len(), 1, "{comparison}");
    }

    #[test]
    fn a_thing_that_holds_itself_has_an_end() {
        // x = [x, 1]
        let own = |number| [&[0x80, 2, b']', b'q', 0, b'h', 0, b'a', b'K'][..], &[number, b'a', b'.']].concat();
        assert_eq!(compare_bytes("x.pkl", &own(1), &own(1)).level, Level::Identical);
        assert_eq!(compare_bytes("x.pkl", &own(1), &own(2)).level, Level::Different);
    }

    #[test]
    fn an_instruction_to_do_harm_is_read_and_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let harm = |name: &str| {
            let command = format!("touch {}", root.path().join(name).display());
            let length = u8::try_from(command.len()).unwrap();
            [b"\x80\x02cposix\nsystem\nU", &[length][..], command.as_bytes(), b"\x85R."].concat()
        };
        let comparison = compare_bytes("x.pkl", &harm("one"), &harm("two"));
        assert_eq!((comparison.level, comparison.format), (Level::Different, "pickle"));
        assert!(!root.path().join("one").exists() && !root.path().join("two").exists());
    }

    #[test]
    fn a_text_that_begins_and_ends_as_an_old_pickle_is_a_text() {
        for (old, new) in
            [("I think\nso.", "I think\nnot."), ("(see\nthere).", "(see\nhere)."), ("So\nN.", "So\nI1\n.")]
        {
            let comparison = compare_bytes("x", old.as_bytes(), new.as_bytes());
            assert_eq!((comparison.level, comparison.format), (Level::Different, "text"), "{old}");
        }
    }

    #[test]
    fn what_pandas_has_computed_counts_in_things_of_others() {
        let own = |number: u8| [&b"\x80\x02}X\x06\0\0\0_cacheK"[..], &[number], b"s."].concat();
        let comparison = compare_bytes("x.pkl", &own(1), &own(2));
        assert_eq!((comparison.level, comparison.format), (Level::Different, "pickle"));
        // A thing of a class, with that as its state.
        let of = |module: &str, number: u8| {
            let state = [&b"}X\x06\0\0\0_cacheK"[..], &[number], b"sb."].concat();
            [b"\x80\x02c", module.as_bytes(), b"\nThing\n)\x81", &state].concat()
        };
        let level = |module| compare_bytes("x.pkl", &of(module, 1), &of(module, 2)).level;
        assert_eq!((level("pandas.core"), level("own")), (Level::Canonical, Level::Different));
    }

    #[test]
    fn what_is_copied_over_and_over_has_an_end() {
        // One list of 100,000 items, made into 10,000 sets.
        let copies = |first: &[u8]| {
            let list = [b"\x80\x02c__builtin__\nset\nq\x000](", first, &b"N".repeat(100_000), b"eq\x010"].concat();
            [list, b"h\x00h\x01\x85R0".repeat(10_000), b"N.".to_vec()].concat()
        };
        let comparison = compare_bytes("x.pkl", &copies(b"N"), &copies(b"]"));
        assert_eq!((comparison.level, comparison.format), (Level::Different, "bytes"));
    }

    #[test]
    fn memos_and_protocols_make_no_difference() {
        // (1, "ab", "ab") with a text that is said twice, and with one that is remembered.
        let twice = b"\x80\x02(K\x01X\x02\0\0\0abX\x02\0\0\0abt.";
        let once = b"\x80\x04\x95\x0c\0\0\0\0\0\0\0K\x01\x8c\x02ab\x94h\0\x87\x94.";
        let comparison = compare_bytes("x.pkl", twice, once);
        assert_eq!((comparison.level, comparison.format), (Level::Canonical, "pickle"), "{comparison}");
    }
}
