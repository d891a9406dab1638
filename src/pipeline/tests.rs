//! Every fixture is read as a user's file would be: bad ones fail with a message worth reading, good ones are taken.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::disk;
use crate::host::Stopwatch;
use crate::path::ProjectPath;

/// What lies in the project around a fixture.
const FILES: [(&str, &str); 5] = [
    ("params.yaml", "train: {rate: 0.1, epochs: 3}\nmin_amount: 5\n"),
    ("more.json", r#"{"deep": {"er": [1, 2]}}"#),
    ("data/raw/orders.csv", "id\n1\n"),
    ("データ/生.csv", "1\n"),
    ("lib/util.py", ""),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn fixtures(kind: &str) -> Vec<(String, Vec<u8>)> {
    let directory = root().join("fixtures").join(kind);
    let files = disk::walk(&directory)
        .map(|entry| entry.unwrap().0)
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"));
    let read = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, disk::read_if_there(&path).unwrap().unwrap())
    };
    files.map(read).collect()
}

fn exists(path: &ProjectPath) -> bool {
    FILES.iter().any(|(name, _)| ProjectPath::new(name).unwrap().is_within(path))
}

fn content(path: &ProjectPath) -> Option<Vec<u8>> {
    FILES.iter().find(|(name, _)| name.as_bytes() == path.as_bytes()).map(|(_, text)| text.as_bytes().to_vec())
}

/// Reads a definition and all that can be wrong with it, as a command does before a run.
fn read_all(text: &[u8]) -> Result<Definition, DefinitionError> {
    let definition = read(text, ".pipeline/pipeline.yaml")?;
    definition.check_inputs(&exists)?;
    let params = Params::load(&definition.pipeline, &content).map_err(|error| definition.locate(error))?;
    definition.check_params(&params)?;
    Ok(definition)
}

/// Returns what a bad text's user sees. It must come soon and be fit for a terminal.
fn complaint(name: &str, text: &[u8]) -> String {
    let watch = Stopwatch::start();
    let error = read_all(text).expect_err(name);
    let shown = error.render(false);
    let elapsed = watch.elapsed();
    assert!(elapsed < Duration::from_secs(5), "{name} took {elapsed:?}");
    for line in shown.lines().chain([error.to_string().as_str()]) {
        assert!(line.chars().count() <= 240, "{name}: a line is too long: {line}");
        assert!(!line.chars().any(char::is_control), "{name}: a control character reaches the terminal: {line:?}");
    }
    assert!(!error.render(true).is_empty());
    format!("{shown}\n\n{error}")
}

fn assert_complaint(name: &str, text: &[u8]) {
    let complaint = complaint(name, text);
    insta::with_settings!({ snapshot_path => "snapshots/bad", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, complaint);
    });
}

#[test]
fn every_bad_definition_is_refused_with_place_reason_and_way_out() {
    let fixtures = fixtures("bad");
    assert!(fixtures.len() >= 35, "{} fixtures", fixtures.len());
    fixtures.iter().for_each(|(name, text)| assert_complaint(name, text));
}

#[test]
fn definitions_made_to_do_harm_are_refused_at_once() {
    let bomb = (1..12).fold("l0: &l0 [x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, level| {
        let alias = format!("*l{}, ", level - 1).repeat(9);
        format!("{text}l{level}: &l{level} [{alias}]\n")
    });
    let waiting = |n: usize| format!("  s{n}: {{run: x, needs: s{}}}\n", (n + 1) % 20_000);
    let circle = (0..20_000).map(waiting).collect::<Vec<_>>().concat();
    let writers = (0..20_000).map(|n| format!("  s{n}: {{run: x, outputs: out}}\n")).collect::<Vec<_>>().concat();
    for (name, text) in [
        ("large-nested-brackets", format!("steps: {}", "[".repeat(100_000))),
        ("large-alias-bomb", bomb),
        ("large-one-line", format!("steps: {{train: {{run: {}, imputs: x}}}}", "x".repeat(1_000_000))),
        ("large-many-unknown-keys", (0..20_000).map(|n| format!("key{n}: x\n")).collect::<Vec<_>>().concat()),
        ("large-circle", format!("steps:\n{circle}")),
        ("large-many-writers", format!("steps:\n{writers}")),
        ("large-file", "#".repeat(4 * 1024 * 1024 + 1)),
    ] {
        assert_complaint(name, text.as_bytes());
    }
}

#[test]
fn every_good_definition_is_taken_and_comes_back_from_its_json() {
    let fixtures = fixtures("good");
    assert!(fixtures.len() >= 8, "{} fixtures", fixtures.len());
    for (name, text) in fixtures {
        let definition = read_all(&text).unwrap_or_else(|error| panic!("{name}: {}", error.render(false)));
        let json = serde_json::to_string_pretty(&definition.pipeline).unwrap();
        assert_eq!(serde_json::from_str::<Pipeline>(&json).unwrap(), definition.pipeline, "{name}");
        insta::with_settings!({ snapshot_path => "snapshots/good", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(name, format!("{json}\n\n{}", definition.pipeline.id()));
        });
    }
}
