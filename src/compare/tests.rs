//! Laws that hold for all formats, and each format by hand.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;
use crate::disk;

/// What is told of two files, with the level in front.
fn told(name: &str, old: impl AsRef<[u8]>, new: impl AsRef<[u8]>) -> String {
    let comparison = compare_bytes(name, old.as_ref(), new.as_ref());
    format!("{} as {}\n{comparison}", comparison.level, comparison.format)
}

fn level(name: &str, old: impl AsRef<[u8]>, new: impl AsRef<[u8]>) -> Level {
    compare_bytes(name, old.as_ref(), new.as_ref()).level
}

#[test]
fn a_value_in_json_is_told_by_its_place() {
    let old = r#"{"created_at": "2023-11-14T22:13:20", "scores": [0.5, 0.25], "n": 3, "gone": 1}"#;
    let new = r#"{"scores": [0.5, 0.75], "created_at": "2025-01-20T09:00:00", "n": 3, "come": {"a b": null}}"#;
    insta::assert_snapshot!(told("metrics.json", old, new), @"
    different as json
    metrics.json: 33.3 % of 3 numbers differ, at most by 0.5, 0.6667 of the number
    metrics.json: $.created_at 2023-11-14T22:13:20 -> 2025-01-20T09:00:00
    metrics.json: $.gone 1 -> nothing
    metrics.json: $.scores[1] 0.25 -> 0.75
    metrics.json: $.come nothing -> {a b: null}
    ");
}

#[test]
fn the_order_of_keys_and_the_spelling_of_values_are_canonical() {
    assert_eq!(level("a.json", r#"{"a": 1.0, "b": ["x"]}"#, r#"{"b":["\u0078"],"a":1e0}"#), Level::Canonical);
    assert_eq!(level("noname", "[1, 2]", "[1,2]\n"), Level::Canonical);
    assert_eq!(level("a.jsonl", "{\"a\":1,\"b\":2}\n[]\n", "{\"b\":2,\"a\":1}\n[ ]"), Level::Canonical);
    assert_eq!(level("a.yaml", "a: 1\nb: [x]\n", "b:\n- 'x'\na: 1 # one\n"), Level::Canonical);
    assert_eq!(level("a.toml", "a = 1\n[t]\nb = 'x'\n", "a = 1\nt.b = \"x\"\n"), Level::Canonical);
    assert_eq!(level("a.csv", "a,b\n1,x\n", "a,b\r\n1.0,\"x\"\r\n"), Level::Canonical);
    // What only looks alike is not the same.
    assert_eq!(level("a.json", "[1]", "[\"1\"]"), Level::Different);
    assert_eq!(level("a.json", "[1]", "[true]"), Level::Different);
    assert_eq!(level("a.yaml", "a: no\n", "a: false\n"), Level::Different);
    assert_eq!(level("a.json", "[9007199254740993]", "[9007199254740992]"), Level::Different);
}

#[test]
fn the_last_bit_of_a_number_is_close_by_one_ulp() {
    for (name, old, new) in [
        ("a.json", "{\"x\": 0.1}", "{\"x\": 0.10000000000000002}"),
        ("a.yaml", "x: 0.1\n", "x: 0.10000000000000002\n"),
        ("a.toml", "x = 0.1\n", "x = 0.10000000000000002\n"),
        ("a.csv", "x\n0.1\n", "x\n0.10000000000000002\n"),
        ("a.txt", "x 0.1\n", "x 0.10000000000000002\n"),
    ] {
        let comparison = compare_bytes(name, old.as_bytes(), new.as_bytes());
        assert_eq!(comparison.level, Level::Close, "{comparison}");
        let errors = comparison.errors.unwrap();
        assert_eq!((errors.max_ulps, errors.elements), (1, 1), "{name}");
        assert_eq!(comparison.findings[0].shape, Some(Shape::LastBits), "{name}");
    }
}

#[test]
fn the_tolerance_of_an_output_says_what_is_close() {
    let within = |tolerance: Tolerance| compare_within("a.json", b"[10, 0.5]", b"[11, 0.6]", &tolerance).level;
    let close = Tolerance { level: Level::Close, rtol: None, atol: None };
    assert_eq!(within(close), Level::Different);
    assert_eq!(within(Tolerance { rtol: Some(0.2), ..close }), Level::Close);
    assert_eq!(within(Tolerance { rtol: Some(0.1), ..close }), Level::Different);
    assert_eq!(within(Tolerance { rtol: Some(0.1), atol: Some(0.1), ..close }), Level::Close);
    assert_eq!(within(Tolerance { atol: Some(1.0), ..close }), Level::Close);
    assert!(close.allows(Level::Close) && close.allows(Level::Identical) && !close.allows(Level::Different));
    assert!(!Tolerance::default().allows(Level::Canonical));
}

#[test]
fn a_table_is_told_by_row_and_column() {
    let old = "id,price,made\n1,10.5,2023-11-14\n2,20.25,2023-11-14\n3,30,\"a, \"\"b\"\"\n c\"\n";
    let new = "id,price,made\n1,10.5,2025-01-20\n2,20.250000000001,2023-11-14\n3,40,\"a, b\n c\"\n";
    insta::assert_snapshot!(told("prices.csv", old, new), @r#"
    different as csv
    prices.csv: 33.3 % of 6 numbers differ, at most by 10, 0.25 of the number, 281 ulps
    prices.csv: row 1, column made 2023-11-14 -> 2025-01-20
    prices.csv: row 3, column price 30 -> 40
    prices.csv: row 3, column made a, "b"\n c -> a, b\n c
    prices.csv: row 2, column price 20.25 -> 20.250000000001
    "#);
    insta::assert_snapshot!(told("prices.csv", old, "id,price,made\n1,10.5,2023-11-14\n4,5,x\n"), @r#"
    different as csv
    prices.csv: length 3 rows -> 2 rows
    prices.csv: row 2 2, 20.25, 2023-11-14 -> nothing
    prices.csv: row 3 3, 30, a, "b"\n c -> nothing
    prices.csv: row 2 nothing -> 4, 5, x
    "#);
    insta::assert_snapshot!(told("prices.csv", "a;b\n1;2\n3;4\n", "b;a\n2;1\n4;3\n"), @"
    different as csv
    prices.csv: columns are in another order
    prices.csv: columns a, b -> b, a
    ");
    insta::assert_snapshot!(told("numbers.tsv", "1\t2\n3\t4\n", "1\t2\n3\t5\n"), @"
    different as tsv
    numbers.tsv: 25.0 % of 4 numbers differ, at most by 1, 0.2 of the number
    numbers.tsv: row 2, column 2 4 -> 5
    ");
}

#[test]
fn another_order_is_told_as_such_and_is_no_small_thing() {
    let csv = compare_bytes("a.csv", b"k,v\na,1\nb,2\nc,3\n", b"k,v\nc,3\na,1\nb,2\n");
    assert_eq!((csv.level, csv.note.as_deref()), (Level::Different, Some("rows are in another order")));
    assert_eq!(csv.findings[0].shape, Some(Shape::Reordering));
    let text = compare_bytes("a.txt", b"a\nb\nc\n", b"c\nb\na\n");
    assert_eq!((text.level, text.note.as_deref()), (Level::Different, Some("lines are in another order")));
    let json = compare_bytes("a.json", b"{\"k\": [1, 2, 3]}", b"{\"k\": [3, 1, 2]}");
    assert_eq!((json.level, json.note.as_deref()), (Level::Different, Some("items of $.k are in another order")));
}

#[test]
fn lines_are_told_by_their_number() {
    insta::assert_snapshot!(told("log", "start\ntook 0.5 s\nend\n", "start\ntook 0.75 s\nfinish\n"), @"
    different as text
    log: 100 % of 1 numbers differ, at most by 0.25, 0.3333 of the number
    log: line 2 took 0.5 s -> took 0.75 s
    log: line 3 end -> finish
    ");
    insta::assert_snapshot!(told("log", "a\nb\nc\nd\n", "a\nc\nd\ne\nf\n"), @"
    different as text
    log: length 4 lines -> 5 lines
    log: line 2 b -> nothing
    log: line 4 nothing -> e
    log: line 5 nothing -> f
    ");
    insta::assert_snapshot!(told("log", "a\n", "a"), @"
    different as text
    log: end a line end -> nothing
    ");
    insta::assert_snapshot!(told("log", "x\n".repeat(30), "y\n".repeat(30)), @"
    different as text
    log: line 1 x -> y
    log: line 2 x -> y
    log: line 3 x -> y
    log: line 4 x -> y
    log: line 5 x -> y
    log: line 6 x -> y
    log: line 7 x -> y
    log: line 8 x -> y
    log: line 9 x -> y
    log: line 10 x -> y
    log: line 11 x -> y
    log: line 12 x -> y
    log: line 13 x -> y
    log: line 14 x -> y
    log: line 15 x -> y
    log: line 16 x -> y
    log: line 17 x -> y
    log: line 18 x -> y
    log: line 19 x -> y
    log: line 20 x -> y
    log: 10 more places
    ");
}

#[test]
fn bytes_are_told_by_their_offset() {
    let mut old = vec![0_u8; 4096];
    let mut new = old.clone();
    old[1024..1028].copy_from_slice(&1_700_000_000_u32.to_le_bytes());
    new[1024..1028].copy_from_slice(&1_737_363_600_u32.to_le_bytes());
    new.push(1);
    insta::assert_snapshot!(told("blob", &old, &new), @"
    different as bytes
    blob: 5 of 4097 bytes differ (0.1 %)
    blob: length 4096 bytes -> 4097 bytes
    blob: byte 1024 00f15365 -> 90108e67
    ");
}

#[test]
fn the_json_of_a_comparison_has_every_key() {
    let comparison = compare_bytes("a.json", b"[0.5]", b"[0.75]");
    insta::assert_snapshot!(serde_json::to_string_pretty(&comparison).unwrap(), @r#"
    {
      "path": "a.json",
      "level": "different",
      "detail": {
        "format": "json",
        "findings": [
          {
            "place": "$[0]",
            "old": "0.5",
            "new": "0.75",
            "shape": null
          }
        ],
        "more": 0,
        "errors": {
          "max_absolute": 0.25,
          "max_relative": 0.3333333333333333,
          "max_ulps": 2251799813685248,
          "share": 1.0,
          "elements": 1
        },
        "note": null
      }
    }
    "#);
    insta::assert_snapshot!(serde_json::to_string(&compare_bytes("a", b"", b"")).unwrap(), @r#"
    {"path":"a","level":"identical","detail":{"format":"file","findings":[],"more":0,"errors":null,"note":null}}
    "#);
}

/// Pairs of files that real libraries wrote: what has changed in them, the ending, and both.
fn fixtures() -> Vec<(String, String, Vec<u8>, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/compare");
    let mut pairs = Vec::new();
    for path in disk::walk(&root).map(|entry| entry.unwrap().0) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let Some(ending) = name.strip_prefix("old.") else { continue };
        let case = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
        let read = |path: &Path| disk::read_if_there(path).unwrap().unwrap();
        let new = read(&path.with_file_name(format!("new.{ending}")));
        pairs.push((case.to_owned(), ending.to_owned(), read(&path), new));
    }
    pairs.sort();
    assert!(pairs.len() > 40, "{} pairs", pairs.len());
    pairs
}

#[test]
fn files_that_real_libraries_wrote_are_told_by_what_is_in_them() {
    let (mut all, mut wrong) = (String::new(), String::new());
    for (case, ending, old, new) in fixtures() {
        let name = format!("{case}.{ending}");
        let comparison = compare_bytes(&name, &old, &new);
        let expected = match case.as_str() {
            "canonical" | "set" | "byte-order" => Level::Canonical,
            "last-bit" => Level::Close,
            _ => Level::Different,
        };
        let ulps = comparison.errors.as_ref().map(|errors| errors.max_ulps);
        if comparison.level != expected || expected == Level::Close && ulps != Some(1) {
            wrong += &format!("{name}: {} as {}, {ulps:?} ulps\n{comparison}\n", comparison.level, comparison.format);
        }
        let back = compare_bytes(&name, &new, &old);
        assert_eq!(
            (back.level, back.format, &back.errors),
            (comparison.level, comparison.format, &comparison.errors),
            "{back}"
        );
        all += &format!("{} as {}\n{comparison}\n\n", comparison.level, comparison.format);
    }
    assert!(wrong.is_empty(), "{wrong}");
    insta::assert_snapshot!(all);
}

#[test]
fn a_damaged_table_is_told_as_such_and_shows_no_panic_of_its_decoder() {
    // These bytes made the decoder stop with a panic, whose text stood between the lines of the answer.
    static TOLD: AtomicUsize = AtomicUsize::new(0);
    std::panic::set_hook(Box::new(|_| {
        TOLD.fetch_add(1, Ordering::Relaxed);
    }));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/compare/canonical/old.parquet");
    let old = disk::read_if_there(&root).unwrap().unwrap();
    for (at, byte) in [(131, 0), (358, 0x7f), (754, 1), (1031, 0xff)] {
        let mut new = old.clone();
        new[at] = byte;
        let comparison = compare_bytes("x.parquet", &old, &new);
        assert_eq!((comparison.level, comparison.format), (Level::Different, "bytes"), "{at}: {comparison}");
        let note = comparison.note.as_deref().unwrap();
        assert!(note.starts_with("the new one cannot be read as parquet; 1 of "), "{at}: {note}");
    }
    assert_eq!(TOLD.load(Ordering::Relaxed), 0);
}

#[test]
fn which_of_two_files_is_damaged_is_said() {
    let mut wrong = String::new();
    for (case, ending, old, _) in fixtures().into_iter().filter(|(case, ..)| case == "value") {
        let name = format!("{case}.{ending}");
        let cut = &old[..old.len() - old.len() / 4];
        // Of text every part is whole, tables are known by their end too, pickles may have no mark, and the end of a tar archive is
        // nothing but room.
        let comparison = compare_bytes(&name, cut, &old);
        let is_marked =
            !["csv", "json", "parquet", "feather", "pkl", "joblib", "tar"].iter().any(|ending| name.ends_with(ending));
        let note = comparison.note.clone().unwrap_or_default();
        if note.starts_with("the old one cannot be read as ") != is_marked {
            wrong += &format!("{name} as {}\n{comparison}\n", comparison.format);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn corpus() -> Vec<(&'static str, Vec<u8>)> {
    let texts = [
        ("a.json", "{\"a\": [1, 2.5, \"x\", null, {\"b\": NaN}], \"c\": \"2023-11-14T22:13:20\"}"),
        ("a.jsonl", "{\"a\": 1}\n[2]\n"),
        ("a.yaml", "a: [1, 2.5]\nb:\n  c: x # y\n"),
        ("a.toml", "a = 1\n[b]\nc = [1.5, 2.5]\nd = 2023-11-14T22:13:20Z\n"),
        ("a.csv", "id,x\n1,2.5\n2,\"a\"\"b\"\n3,\n"),
        ("a.tsv", "1\t2\n3\t4\n"),
        ("a.txt", "one 0.5\ntwo 1e-3\n\nthree\n"),
        ("a.bin", "\0\u{1}\u{2}binary 2023-11-14 22:13:20\0\0\0"),
    ];
    texts.into_iter().map(|(name, text)| (name, text.as_bytes().to_vec())).collect()
}

#[derive(Clone, Debug)]
enum Change {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Cut(prop::sample::Index),
    Swap(prop::sample::Index, prop::sample::Index),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        match self {
            Self::Set(at, byte) => bytes[at.index(length)] = *byte,
            Self::Insert(at, byte) => bytes.insert(at.index(length), *byte),
            Self::Remove(at) => drop(bytes.remove(at.index(length))),
            Self::Cut(at) => bytes.truncate(at.index(length)),
            Self::Swap(a, b) => bytes.swap(a.index(length), b.index(length)),
        }
    }
}

fn any_change() -> impl Strategy<Value = Change> {
    let byte =
        || prop_oneof![any::<u8>(), prop::sample::select(b"\0\x01\x7f\x80\xff019.eE-+,;\"'[]{}()\n\r\t ".to_vec())];
    let at = any::<prop::sample::Index>;
    prop_oneof![
        8 => (at(), byte()).prop_map(|(at, byte)| Change::Set(at, byte)),
        2 => (at(), byte()).prop_map(|(at, byte)| Change::Insert(at, byte)),
        2 => at().prop_map(Change::Remove),
        1 => at().prop_map(Change::Cut),
        1 => (at(), at()).prop_map(|(a, b)| Change::Swap(a, b)),
    ]
}

proptest! {
    #[test]
    fn every_two_files_have_an_answer_that_is_the_same_both_ways(
        which in any::<prop::sample::Index>(),
        old_changes in proptest::collection::vec(any_change(), 0..4),
        new_changes in proptest::collection::vec(any_change(), 0..4),
    ) {
        let corpus = corpus();
        let (name, bytes) = which.get(&corpus);
        let (mut old, mut new) = (bytes.clone(), bytes.clone());
        old_changes.iter().for_each(|change| change.apply(&mut old));
        new_changes.iter().for_each(|change| change.apply(&mut new));
        let (there, back) = (compare_bytes(name, &old, &new), compare_bytes(name, &new, &old));
        prop_assert_eq!(there.level == Level::Identical, old == new, "{}", there);
        prop_assert_eq!((there.level, there.format, there.findings.len(), there.more), (back.level, back.format, back.findings.len(), back.more), "{}\n{}", there, back);
        prop_assert_eq!(&there.errors, &back.errors);
        prop_assert!(there.findings.len() <= FINDINGS_MAX);
        prop_assert!(there.level != Level::Different || !there.findings.is_empty(), "{:?}", there);
        prop_assert!(!there.to_string().chars().any(|c| c.is_control() && c != '\n'), "{:?}", there);
        prop_assert_eq!(compare_bytes(name, &old, &old).level, Level::Identical);
    }

    #[test]
    fn damaged_files_have_an_answer_that_is_the_same_both_ways(
        which in any::<prop::sample::Index>(),
        side in any::<bool>(),
        changes in proptest::collection::vec(any_change(), 1..4),
    ) {
        let fixtures = fixtures();
        let (_, ending, old, new) = which.get(&fixtures);
        let (mut old, mut new) = (old.clone(), new.clone());
        changes.iter().for_each(|change| change.apply(if side { &mut old } else { &mut new }));
        let name = format!("x.{ending}");
        let (there, back) = (compare_bytes(&name, &old, &new), compare_bytes(&name, &new, &old));
        prop_assert_eq!((there.level, there.format, &there.errors), (back.level, back.format, &back.errors), "{}\n{}", there, back);
        prop_assert_eq!(there.level == Level::Identical, old == new);
        prop_assert!(there.level != Level::Different || !there.findings.is_empty(), "{:?}", there);
        prop_assert!(!there.to_string().chars().any(|c| c.is_control() && c != '\n'), "{:?}", there);
    }
}
