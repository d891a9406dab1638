use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::host::{processor_time, processor_time_since};

fn text_at<'text>(text: &'text str, span: &Range<usize>) -> &'text str {
    &text[span.clone()]
}

fn value(text: &str) -> Value {
    read_spanned(text.as_bytes()).unwrap().value
}

fn entries(node: &Node) -> &[(Key, Node)] {
    match &node.value {
        Value::Map(entries) => entries,
        other => panic!("a map, not {other:?}"),
    }
}

fn error(text: impl AsRef<[u8]>) -> YamlError {
    read_spanned(text.as_ref()).unwrap_err()
}

/// A second in the program that users have; an unoptimised build is several times slower.
const HARM_MAX: Duration = Duration::from_secs(if cfg!(debug_assertions) { 5 } else { 1 });

#[test]
fn every_value_and_key_knows_its_bytes() {
    let text = "steps:\n  bürste:\n    run: \"a b\"\n    inputs: [x, é]\n    more:\n      - |\n        one\n        two\n\nlast: {a: 1}\n";
    let root = read_spanned(text.as_bytes()).unwrap();
    assert_eq!(root.span, 0..text.trim_end().len());
    let (steps, inner) = &entries(&root)[0];
    assert_eq!(text_at(text, &steps.span), "steps");
    let (name, step) = &entries(inner)[0];
    assert_eq!(text_at(text, &name.span), "bürste");
    let fields: Vec<_> =
        entries(step).iter().map(|(key, node)| (key.text.as_str(), text_at(text, &node.span))).collect();
    assert_eq!(fields[0], ("run", "\"a b\""));
    assert_eq!(fields[1], ("inputs", "[x, é]"));
    let Value::List(inputs) = &entries(step)[1].1.value else { panic!() };
    assert_eq!(text_at(text, &inputs[1].span), "é");
    assert_eq!(text_at(text, &entries(&root)[1].1.span), "{a: 1}");
}

#[test]
fn a_byte_order_mark_is_skipped_and_counted() {
    let plain = read_spanned(b"key: value\n").unwrap();
    let marked = read_spanned(b"\xef\xbb\xbfkey: value\n").unwrap();
    assert_eq!(entries(&marked)[0].0.span, 3..6);
    assert_eq!(entries(&marked)[0].1.value, entries(&plain)[0].1.value);
    assert_eq!(error(b"\xef\xbb\xbfkey: \"x").span.map(|span| span.start), Some(8));
    assert_eq!(read_plain(b"\xef\xbb\xbfkey: value\n").unwrap(), json!({"key": "value"}));
}

#[test]
fn only_what_yaml_1_2_calls_so_is_a_boolean_or_a_number() {
    for text in
        ["no", "yes", "on", "off", "y", "017", "1_000", "2024-01-01", "1:30", "v1.0", "+", ".", "0x", "1e999", "nan"]
    {
        assert_eq!(value(text), Value::Text(text.to_owned()), "{text}");
    }
    assert_eq!(value("True"), Value::Bool(true));
    assert_eq!(value("0x1F"), Value::Int(31));
    assert_eq!(value("-0o17"), Value::Int(-15));
    assert_eq!(value("1.0"), Value::Float(1.0));
    assert_eq!(value("'1'"), Value::Text("1".to_owned()));
    assert_eq!(value("~"), Value::Null);
    assert_eq!(value("# nothing\n"), Value::Null);
    assert_eq!(value("!!str 1"), Value::Text("1".to_owned()));
}

#[test]
fn merge_keys_and_aliases_work_also_through_each_other() {
    let text = b"a: &a {x: 1, y: 1}\nb: &b {<<: *a, y: 2, z: 2}\nc: {<<: [*b, *a], z: 3}\n";
    let c = read_spanned(text).unwrap().to_json().unwrap()["c"].clone();
    assert_eq!(c, json!({"x": 1, "y": 2, "z": 3}));
    assert_eq!(read_plain(text).unwrap()["c"], c);
    assert_eq!(
        value("'<<': 1"),
        Value::Map(vec![(Key { text: "<<".into(), span: 0..4 }, Node { value: Value::Int(1), span: 6..7 })])
    );
}

#[test]
fn a_key_given_twice_is_refused_with_both_places() {
    let text = "a:\n  k: 1\n  j: 2\n  k: 3\n";
    let error = error(text);
    assert_eq!(error.message, "the key `k` is given twice");
    assert_eq!(error.span, Some(19..20));
    assert_eq!(error.related, Some((5..6, "first given here".to_owned())));
    assert_eq!(read_plain(text.as_bytes()).unwrap_err(), error);
}

#[test]
fn what_no_two_people_read_alike_is_refused() {
    for (text, message) in [
        ("1: x", "a key must be text, found the number `1`"),
        ("true: x", "a key must be text, found the boolean `true`"),
        ("~: x", "a key must be text, found nothing"),
        ("[a]: x", "a key must be text, found a list"),
        ("a: !secret x", "the tag `!secret` is not understood here"),
        ("a: !!int x", "the tag `!!int` is not understood here"),
        ("a: !!set {x}", "the tag `!!set` is not understood here"),
        ("a: 1\n---\nb: 2\n", "a second document starts here"),
        ("a:\n\tb: 1\n", "a line is indented with a tab"),
        ("a: *b", "`*b` refers to an anchor that is not defined above"),
        ("a: [*.csv]", "`*.csv` refers to an anchor that is not defined above"),
        ("a: &a [*a]", "`*a` refers to a value that it is part of"),
        ("a: \"x", "a quote is opened and never closed"),
        ("a: [x", "the bracket `[` is never closed"),
        ("a: x: y", "a `:` is not allowed here"),
        ("a: @x", "text cannot start with `@`"),
        ("a: 1\n b: 2\n", "a `:` is not allowed here"),
        ("<<: 1", "`<<` merges maps, found the number `1`"),
        ("<<: {a: 1}\n<<: {b: 1}", "the key `<<` is given twice"),
        (
            "a: 170141183460469231731687303715884105728",
            "the number `170141183460469231731687303715884105728` is too large",
        ),
    ] {
        let error = error(text);
        assert_eq!(error.message, message, "{text}");
        assert!(error.span.is_some(), "{text}");
    }
}

#[test]
fn bytes_that_are_no_utf_8_are_named_by_their_offset() {
    let error = error(b"a: 1\nb: \xff\xfe\n");
    assert_eq!(error.message, "the file is not UTF-8 at byte 8");
    assert_eq!(error.span, Some(8..9));
    assert_eq!(
        super::read_spanned(b"\xff\xfea\0").unwrap_err().hint.unwrap(),
        "it looks like UTF-16; save it as UTF-8"
    );
}

/// Texts made to be slow or to exhaust the stack.
fn hostile() -> Vec<(&'static str, String)> {
    let bomb = (1..9).fold("l0: &l0 [x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, level| {
        let alias = format!("*l{}, ", level - 1).repeat(9);
        format!("{text}l{level}: &l{level} [{alias}]\n")
    });
    let chain = (1..2_000).fold(format!("- &a0 {}{}\n", "[".repeat(50), "]".repeat(50)), |text, level| {
        format!("{text}- &a{level} {}*a{}{}\n", "[".repeat(50), level - 1, "]".repeat(50))
    });
    vec![
        ("nested brackets", "[".repeat(100_000)),
        ("nested braces", "{a: ".repeat(100_000)),
        ("nested dashes", "- ".repeat(100_000)),
        ("nested questions", "? ".repeat(100_000)),
        ("an alias bomb", bomb),
        ("a chain of deep aliases", chain),
        ("a large text repeated", format!("a: &a {}\nb: [{}]\n", "x".repeat(1_000_000), "*a, ".repeat(100_000))),
        ("many values", format!("[{}]", "a,".repeat(1_000_000))),
        ("too many bytes", "a".repeat(TEXT_MAX_BYTES + 1)),
    ]
}

#[test]
fn hostile_texts_are_refused_at_once_by_both_readers() {
    for (name, text) in hostile() {
        for reader in [|text: &[u8]| read_spanned(text).map(drop), |text: &[u8]| read_plain(text).map(drop)] {
            let before = processor_time();
            let error = reader(text.as_bytes()).expect_err(name);
            let used = processor_time_since(before);
            assert!(used < HARM_MAX, "{name}: {used:?}: {error}");
            assert!(error.message.len() < 200, "{name}");
        }
    }
}

#[test]
fn large_harmless_texts_are_read_without_slowing_down() {
    for (name, text) in [
        ("open quotes", format!("a: \"{}\"", "x \\\n ".repeat(100_000))),
        ("long lines", format!("a: {}", "x ".repeat(1_000_000))),
        ("blank lines", format!("a: |\n{}", "\n".repeat(1_000_000))),
        ("comments", "# x\n".repeat(500_000)),
        ("many keys", (0..50_000).map(|n| format!("k{n}: v")).collect::<Vec<_>>().join("\n")),
    ] {
        let before = processor_time();
        read_spanned(text.as_bytes()).expect(name);
        let used = processor_time_since(before);
        assert!(used < Duration::from_secs(10), "{name}: {used:?}");
    }
}

#[test]
fn params_files_are_read_as_people_write_them() {
    let text = b"train: {lr: 1e-3, epochs: 10, name: no}\n2024: x\ntrue: y\nlist:\n- 1\n- [a, ~]\nempty:\n";
    let expected = json!({
        "train": {"lr": 0.001, "epochs": 10, "name": "no"},
        "2024": "x", "true": "y", "list": [1, ["a", null]], "empty": null,
    });
    assert_eq!(read_plain(text).unwrap(), expected);
    assert_eq!(read_plain(b"").unwrap(), json!(null));
    assert_eq!(read_plain(b"# only a comment\n").unwrap(), json!(null));
}

#[test]
fn numbers_that_json_does_not_have_are_refused_where_they_stand() {
    for (text, message, start) in [
        ("a: .nan", "`.nan` is not a number", 3),
        ("a: [1, -.inf]", "`.inf` is not a finite number", 7),
        ("a: 18446744073709551616", "`18446744073709551616` does not fit into 64 bits", 3),
        ("1.5: x", "a key must be text, found the number `1.5`", 0),
    ] {
        let error = read_plain(text.as_bytes()).unwrap_err();
        assert_eq!(error.message, message);
        assert_eq!(error.span.unwrap().start, start);
    }
    assert_eq!(read_plain(b"a: 18446744073709551615").unwrap(), json!({"a": u64::MAX}));
}

#[test]
fn a_text_that_the_two_readers_take_differently_is_refused() {
    // A quoted `<<` is an ordinary key to one of them, a merge key to the other.
    let error = read_plain(b"a: {'<<': {b: 1}}").unwrap_err();
    assert_eq!(error.message, "readers of YAML do not agree on what this means");
    assert_eq!(error.span, Some(10..16));
}

/// Texts out of pieces that matter to YAML, most of them nearly well-formed.
fn any_yaml() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("a: "),
        Just("b:"),
        Just("\n"),
        Just("\n  "),
        Just("- "),
        Just("["),
        Just("]"),
        Just("{"),
        Just("}"),
        Just(", "),
        Just("&x "),
        Just("*x"),
        Just("<<: "),
        Just("? "),
        Just("'"),
        Just("\""),
        Just("|\n  "),
        Just(">-\n  "),
        Just("# c\n"),
        Just("---\n"),
        Just("...\n"),
        Just("\t"),
        Just("!!str "),
        Just("!t "),
        Just("~"),
        Just("1"),
        Just("0x1"),
        Just("1.5"),
        Just("true"),
        Just("é"),
        Just("\\"),
        Just("%YAML 1.2\n"),
        Just("\r\n"),
        Just("\u{feff}"),
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_spanned(&bytes);
        let _ = read_plain(&bytes);
    }

    #[test]
    fn places_lie_in_the_text_and_the_readers_agree_or_refuse(text in any_yaml()) {
        match read_spanned(text.as_bytes()) {
            Ok(node) => {
                prop_assert!(text.get(node.span.clone()).is_some());
                if let (Ok(strict), Ok(plain)) = (node.to_json(), read_plain(text.as_bytes())) {
                    prop_assert_eq!(strict, plain);
                }
            }
            Err(error) => {
                let places = error.span.iter().chain(error.related.iter().map(|(span, _)| span));
                places.for_each(|span| assert!(text.get(span.clone()).is_some(), "{span:?} in {text:?}"));
            }
        }
    }

    /// Without the refusal of disagreement inside of it, `serde_yaml` and the strict reader agree on well-formed scalars.
    #[test]
    fn both_readers_type_a_plain_scalar_alike(text in "[-+0-9a-fxob._eEinfatrul~]{1,8}") {
        let strict = read_spanned(format!("k: {text}").as_bytes()).ok().and_then(|node| node.to_json().ok());
        let plain = serde_yaml::from_str::<serde_json::Value>(&format!("k: {text}")).ok();
        if let (Some(strict), Some(plain)) = (strict, plain) {
            prop_assert_eq!(strict, plain);
        }
    }
}
