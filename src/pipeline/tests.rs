//! Every fixture is read as a user's file would be: bad ones fail with a message worth reading, good ones are taken.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::disk;
use crate::host::{processor_time, processor_time_since};
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
    let params = Params::load(&definition.pipeline, &content).map_err(|error| definition.locate(&error))?;
    definition.check_params(&params)?;
    Ok(definition)
}

/// Returns what a bad text's user sees. It must come soon and be fit for a terminal.
fn complaint(name: &str, text: &[u8]) -> String {
    let before = processor_time();
    let error = read_all(text).expect_err(name);
    let shown = error.render(false);
    let used = processor_time_since(before);
    assert!(used < HARM_MAX, "{name} used {used:?} of a processor");
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

/// A second in the program that users have; an unoptimised build is several times slower.
const HARM_MAX: Duration = Duration::from_secs(if cfg!(debug_assertions) { 5 } else { 1 });

#[test]
fn every_bad_definition_is_refused_with_place_reason_and_way_out() {
    let fixtures = fixtures("bad");
    assert!(fixtures.len() >= 35, "{} fixtures", fixtures.len());
    for (name, text) in &fixtures {
        assert_complaint(name, text);
    }
}

#[test]
fn definitions_made_to_do_harm_are_refused_at_once() {
    let bomb = (1..12).fold("l0: &l0 [x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, level| {
        let alias = format!("*l{}, ", level - 1).repeat(9);
        format!("{text}l{level}: &l{level} [{alias}]\n")
    });
    let waiting = |n: usize| format!("  s{n}: {{run: x, needs: s{}}}\n", (n + 1) % 20_000);
    let many = |of: &str| (0..100).map(|n| format!("{of}{n}")).collect::<Vec<_>>().join(", ");
    let grid = format!("{{a: [{0}], b: [{0}], c: [{0}]}}", many("v"));
    let square = format!("{{a: [{0}], b: [{1}]}}", many("v"), many("w"));
    let half =
        format!("{{a: [{}], b: [{}]}}", many("v"), (0..49).map(|n| format!("w{n}")).collect::<Vec<_>>().join(", "));
    let circle = (0..20_000).map(waiting).collect::<Vec<_>>().concat();
    let writers = (0..20_000).map(|n| format!("  s{n}: {{run: x, outputs: out}}\n")).collect::<Vec<_>>().concat();
    for (name, text) in [
        ("large-nested-brackets", format!("steps: {}", "[".repeat(100_000))),
        ("large-alias-bomb", bomb),
        ("large-one-line", format!("steps: {{train: {{run: {}, imputs: x}}}}", "x".repeat(1_000_000))),
        ("large-many-unknown-keys", (0..20_000).map(|n| format!("key{n}: x\n")).collect::<Vec<_>>().concat()),
        ("large-circle", format!("steps:\n{circle}")),
        ("large-matrix-too-many", format!("steps: {{a: {{run: x, matrix: {grid}}}}}")),
        ("large-matrix-too-much", format!("steps: {{a: {{run: '{}', matrix: {square}}}}}", "x".repeat(1_000_000))),
        (
            "large-matrix-too-many-needs",
            format!("steps: {{a: {{run: x, matrix: {half}}}, b: {{run: x, matrix: {half}, needs: a}}}}"),
        ),
        (
            "large-matrix-too-many-edges",
            format!("steps: {{a: {{run: x, matrix: {half}}}, b: {{run: x, matrix: {half}}}}}"),
        ),
        ("large-matrix-one-output", format!("steps: {{a: {{run: x, matrix: {square}, outputs: out, imputs: y}}}}")),
        ("large-matrix-one-output-only", format!("steps: {{a: {{run: x, matrix: {square}, outputs: out}}}}")),
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

/// Returns the graph of a definition, by names.
fn edges(text: &str) -> (Vec<String>, BTreeMap<String, Vec<String>>) {
    let definition = read(text.as_bytes(), "p.yaml").unwrap_or_else(|error| panic!("{}", error.render(false)));
    let name = |index: &usize| definition.pipeline.steps[*index].name.clone();
    let order = definition.graph.order.iter().map(name).collect();
    let waits = definition.graph.dependencies.iter().enumerate();
    (order, waits.map(|(index, needed)| (name(&index), needed.iter().map(name).collect())).collect())
}

#[test]
fn a_step_waits_for_what_writes_at_above_and_below_its_inputs() {
    let (order, waits) = edges(
        "steps:
  reads_below: {run: x, inputs: [out/a/deep.csv]}
  reads_above: {run: x, inputs: out}
  reads_equal: {run: x, inputs: [other/m.json]}
  writes_a: {run: x, inputs: [], outputs: [out/a]}
  writes_b: {run: x, inputs: [], outputs: [out/b], metrics: [other/m.json]}
  not_a_prefix: {run: x, inputs: [out/ab]}
",
    );
    assert_eq!(waits["reads_below"], ["writes_a"]);
    assert_eq!(waits["reads_above"], ["writes_a", "writes_b"]);
    assert_eq!(waits["reads_equal"], ["writes_b"]);
    assert!(waits["not_a_prefix"].is_empty());
    assert_eq!(order, ["writes_a", "reads_below", "writes_b", "reads_above", "reads_equal", "not_a_prefix"]);
}

#[test]
fn only_a_step_that_says_nothing_waits_for_the_one_above() {
    let (order, waits) = edges(
        "steps:
  first: {run: x}
  says_nothing: {run: x, outputs: [b]}
  reads_nothing: {run: x, inputs: []}
  needs_one: {run: x, needs: first}
  says_nothing_either: {run: x}
",
    );
    assert!(waits["first"].is_empty() && waits["reads_nothing"].is_empty());
    assert_eq!(waits["says_nothing"], ["first"]);
    assert_eq!(waits["needs_one"], ["first"]);
    assert_eq!(waits["says_nothing_either"], ["needs_one"]);
    assert_eq!(order, ["first", "says_nothing", "reads_nothing", "needs_one", "says_nothing_either"]);
}

#[test]
fn combinations_wait_for_what_stands_above_their_step_and_not_for_each_other() {
    let (order, waits) = edges(
        "steps:
  first: {run: x}
  grid: {run: 'x ${matrix.n}', matrix: {n: [1, 2]}}
  other: {run: x, matrix: {m: [a, b]}}
  last: {run: x}
  after: {run: x, needs: grid}
  after_one: {run: x, needs: grid@n=1}
  gather: {run: x, inputs: 'o/${matrix.*}'}
  writes: {run: x, inputs: [], outputs: ['o/${matrix.k}'], matrix: {k: [a, b]}}
",
    );
    assert_eq!(waits["grid@n=1"], ["first"]);
    assert_eq!(waits["grid@n=2"], ["first"]);
    assert_eq!(waits["other@m=a"], ["grid@n=1", "grid@n=2"]);
    assert_eq!(waits["last"], ["other@m=a", "other@m=b"]);
    assert_eq!(waits["after"], ["grid@n=1", "grid@n=2"]);
    assert_eq!(waits["after_one"], ["grid@n=1"]);
    assert_eq!(waits["gather"], ["writes@k=a", "writes@k=b"]);
    assert_eq!(order[..3], ["first", "grid@n=1", "grid@n=2"]);
}

#[test]
fn a_matrix_is_the_same_as_its_steps_written_out() {
    let matrix = "isolate: strict
steps:
  train:
    description: Train ${matrix.model} at ${matrix.rate}
    run: [python, train.py, '${matrix.model}', '${matrix.rate}']
    inputs: ['data/${matrix.model}.csv']
    outputs: ['models/${matrix.model}-${matrix.rate}']
    env: {RATE: '${matrix.rate}'}
    params: ['rates.${matrix.model}']
    workdir: '${matrix.model}'
    seed: ${matrix.seed}
    keep: ['ckpt/${matrix.model}-${matrix.rate}']
    matrix: {rate: [0.10], model: [a, b], include: [{seed: 7}]}
";
    let one = |model: &str| {
        serde_json::json!({
            "name": format!("train@model={model},rate=0.10,seed=7"),
            "description": format!("Train {model} at 0.10"),
            "run": {"program": ["python", "train.py", model, "0.10"]},
            "inputs": [format!("data/{model}.csv")],
            "outputs": [format!("models/{model}-0.10")],
            "env": {"fixed": {"RATE": "0.10"}},
            "params": [format!("rates.{model}")],
            "seed": 7,
            "workdir": model,
            "isolate": "strict",
            "keep": [format!("ckpt/{model}-0.10")],
        })
    };
    let definition = read(matrix.as_bytes(), "p.yaml").unwrap_or_else(|error| panic!("{}", error.render(false)));
    let json = serde_json::to_value(&definition.pipeline).unwrap();
    assert_eq!(json, serde_json::json!({"steps": [one("a"), one("b")]}));
}

#[test]
fn what_an_output_may_differ_by_is_kept_beside_the_paths_and_what_it_must_be_anyway_is_not_kept() {
    let text = b"steps: {a: {run: x, outputs: [p, {path: q, compare: {level: close, rtol: 1e-9}}, {path: r, compare: identical}], \
                 metrics: {path: ./s/, compare: canonical}}}";
    let definition = read(text, "p.yaml").unwrap_or_else(|error| panic!("{}", error.render(false)));
    let step = serde_json::json!({
        "name": "a",
        "run": {"shell": "x"},
        "outputs": ["p", "q", "r"],
        "metrics": ["s"],
        "compare": {"q": {"level": "close", "rtol": 1e-9}, "s": {"level": "canonical"}},
    });
    assert_eq!(serde_json::to_value(&definition.pipeline).unwrap(), serde_json::json!({"steps": [step]}));
    let step = &definition.pipeline.steps[0];
    let level = |path: &str| step.tolerance(&ProjectPath::new(path).unwrap()).level;
    assert_eq!([level("p"), level("q"), level("s/of/a/directory")], [Level::Identical, Level::Close, Level::Canonical]);
    // And it is the same when it comes back from the store.
    let bytes = definition.pipeline.canonical();
    let back: Pipeline = serde_json::from_value(crate::object::from_canonical(&bytes).unwrap()).unwrap();
    assert_eq!(back, definition.pipeline);
}

#[test]
fn what_says_the_same_as_its_absence_is_not_part_of_the_id() {
    let plain = read(b"steps: {a: {run: x}}", "p.yaml").unwrap().pipeline;
    let spelled =
        b"isolate: observe\nsteps: {a: {run: x, network: false, home: own, isolate: observe, cache: true, retries: 0, \
                    keep: [], resources: {cpus: 1, gpus: 0, locks: []}}}";
    assert_eq!(read(spelled, "p.yaml").unwrap().pipeline.id(), plain.id());
    let own = read(b"isolate: strict\nsteps: {a: {run: x, isolate: observe}}", "p.yaml").unwrap().pipeline;
    assert_eq!(own.id(), plain.id());
    let output = read(b"steps: {a: {run: x, outputs: p}}", "p.yaml").unwrap().pipeline;
    let spelled = b"steps: {a: {run: x, outputs: [{path: p, compare: {level: identical}}]}}";
    assert_eq!(read(spelled, "p.yaml").unwrap().pipeline.id(), output.id());
}

#[test]
fn an_input_is_there_if_a_step_writes_it_or_the_project_or_a_data_root_has_it() {
    let text = b"data: [raw, gone]\nsteps:\n  a: {run: x, inputs: [raw/x, src], outputs: [out/a]}\n  b: {run: x, inputs: [out, gone/y, nowhere]}\n";
    let definition = read(text, "p.yaml").unwrap();
    let there = |path: &ProjectPath| [&b"raw"[..], b"src"].contains(&path.as_bytes());
    let error = definition.check_inputs(&there).unwrap_err();
    let missing: Vec<_> = error.problems.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(missing, ["input `gone/y` of step `b` is missing", "input `nowhere` of step `b` is missing"]);
    assert_eq!((error.problems[0].places[0].line, error.problems[0].places[0].column), (4, 29));
    definition.check_inputs(&|_| true).unwrap();
}

#[test]
fn a_colour_terminal_gets_colours_and_a_pipe_gets_none() {
    let error = read(b"sed: 1\nsteps: {a: {run: x}}\n", "p.yaml").unwrap_err();
    assert!(error.render(true).contains("\u{1b}["));
    assert!(!error.render(false).contains('\u{1b}'));
    assert_eq!(error.to_string(), "p.yaml:1:1: unknown key `sed` in the pipeline");
}

#[test]
fn the_normalised_form_has_no_further_keys() {
    let json = r#"{"steps": [{"name": "a", "run": {"shell": "x"}, "matrix": {}}]}"#;
    assert!(serde_json::from_str::<Pipeline>(json).is_err());
    assert!(serde_json::from_str::<Pipeline>(r#"{"steps": [], "stages": []}"#).is_err());
}

/// The ids of definitions are a promise: this one must never change.
#[test]
fn the_id_of_the_lesson_is_the_golden_one() {
    let lesson = fixtures("good").into_iter().find(|(name, _)| name == "lesson").unwrap().1;
    let id = read(&lesson, "p.yaml").unwrap().pipeline.id();
    assert_eq!(id.to_string(), "16fc7e083480049649c090d403fe6fd6c954247a170c7a0f3c4c296b199c1ecf");
}

#[test]
fn the_schema_knows_the_keys_of_the_reader_and_says_what_each_is() {
    let schema = schema();
    let step = &schema["$defs"]["Step"];
    for (object, keys) in [(&schema, &reader::KEYS[..]), (step, &step::KEYS[..])] {
        let properties = object["properties"].as_object().unwrap();
        let known: std::collections::BTreeSet<_> = properties.keys().map(String::as_str).collect();
        assert_eq!(known, keys.iter().copied().collect());
        assert!(properties.values().all(|property| property["description"].is_string()));
        assert_eq!(object["additionalProperties"], false);
    }
    assert_eq!((&schema["required"], &step["required"]), (&serde_json::json!(["steps"]), &serde_json::json!(["run"])));
    insta::assert_snapshot!(serde_json::to_string_pretty(&schema).unwrap());
}

/// Every complete definition in the documentation works as it stands there.
#[test]
fn every_example_in_the_documentation_is_a_definition() {
    let docs = root().join("docs");
    let pages = disk::walk(&docs).map(|entry| entry.unwrap().0);
    let pages = pages.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let mut examples = 0;
    for page in pages.chain([root().join("README.md")]) {
        let Some(bytes) = disk::read_if_there(&page).unwrap() else { continue };
        let text = String::from_utf8(bytes).unwrap();
        for block in text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()) {
            if block.lines().any(|line| line.starts_with("steps:")) {
                read(block.as_bytes(), &page.display().to_string())
                    .unwrap_or_else(|error| panic!("{}", error.render(false)));
                examples += 1;
            }
        }
    }
    assert!(examples >= 8, "{examples} examples");
}

/// Writes a value as flow YAML, the keys of every map in an order of its own.
fn emit(node: &crate::yaml::Node, is_steps: bool, turn: usize, out: &mut String) {
    use crate::yaml::Value;
    match &node.value {
        Value::Null => out.push('~'),
        Value::Bool(value) => out.push_str(&value.to_string()),
        Value::Int(value) => out.push_str(&value.to_string()),
        Value::Float(value) => out.push_str(&value.to_string()),
        Value::Text(text) => out.push_str(&serde_json::to_string(text).unwrap()),
        Value::List(items) => {
            out.push('[');
            for item in items {
                emit(item, false, turn, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::Map(entries) => {
            let mut entries: Vec<_> = entries.iter().collect();
            if !is_steps && !entries.is_empty() {
                let middle = turn % entries.len();
                entries.rotate_left(middle);
                entries[..middle].reverse();
            }
            out.push('{');
            for (key, node) in entries {
                // The key may be longer than a key without `?` may be.
                out.push_str("? ");
                out.push_str(&serde_json::to_string(&key.text).unwrap());
                out.push_str(" : ");
                emit(node, key.text == "steps", turn, out);
                out.push(',');
            }
            out.push('}');
        }
    }
}

fn any_pipeline() -> impl Strategy<Value = String> {
    let paths = || proptest::collection::vec("[abc](/[ab])?", 0..3);
    let step = (proptest::option::of(paths()), paths(), proptest::collection::vec(0..6_usize, 0..2));
    proptest::collection::vec(step, 1..6).prop_map(|steps| {
        let mut text = "steps:\n".to_owned();
        for (index, (inputs, outputs, needs)) in steps.into_iter().enumerate() {
            let inputs = inputs.map_or(String::new(), |inputs| format!("inputs: [{}], ", inputs.join(", ")));
            let needs = needs.iter().map(|need| format!("s{need}")).collect::<Vec<_>>().join(", ");
            let outputs = outputs.join(", ");
            text.extend([format!("  s{index}: {{run: x, {inputs}outputs: [{outputs}], needs: [{needs}]}}\n")]);
        }
        text
    })
}

proptest! {
    #[test]
    fn the_order_of_keys_does_not_matter(turn in 0..40_usize) {
        for (name, text) in fixtures("good") {
            let mut shuffled = String::new();
            emit(&crate::yaml::read_spanned(&text).unwrap(), false, turn, &mut shuffled);
            let expected = read(&text, "p.yaml").unwrap().pipeline;
            let found = read(shuffled.as_bytes(), "p.yaml").unwrap_or_else(|error| panic!("{name}: {}", error.render(false)));
            prop_assert_eq!(found.pipeline.canonical(), expected.canonical(), "{}: {}", name, shuffled);
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        if let Err(error) = read_all(&bytes) {
            prop_assert!(!error.problems.is_empty());
            error.render(false);
        }
    }

    #[test]
    fn no_change_to_a_definition_makes_the_reader_panic(
        which in any::<prop::sample::Index>(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0..4_u8, prop::sample::select(b"\0\t\n\r\"'#&*-./:<>?@[]{}|~\xff0aZ ".to_vec())), 1..4),
    ) {
        let fixtures: Vec<_> = fixtures("good").into_iter().chain(fixtures("bad")).filter(|(_, text)| !text.is_empty()).collect();
        let mut text = which.get(&fixtures).1.clone();
        for (place, kind, byte) in edits {
            let at = place.index(text.len());
            match kind {
                0 => text[at] = byte,
                1 => text.insert(at, byte),
                2 if text.len() > 1 => drop(text.remove(at)),
                _ => text.truncate(at.max(1)),
            }
        }
        if let Err(error) = read_all(&text) {
            let shown = error.render(false);
            prop_assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{:?}", shown);
            for place in error.problems.iter().flat_map(|problem| &problem.places) {
                prop_assert!(place.line >= 1 && place.column >= 1);
            }
        }
    }

    #[test]
    fn steps_are_put_in_an_order_that_respects_every_wait_or_a_true_circle_is_named(text in any_pipeline()) {
        let Ok(root) = crate::yaml::read_spanned(text.as_bytes()) else { return Ok(()) };
        let Ok((pipeline, _)) = reader::read(&text, &root) else { return Ok(()) };
        match order(&pipeline) {
            Ok(graph) => {
                let place: BTreeMap<_, _> = graph.order.iter().enumerate().map(|(place, step)| (*step, place)).collect();
                prop_assert_eq!(place.len(), pipeline.steps.len());
                for (step, needed) in graph.dependencies.iter().enumerate() {
                    prop_assert!(needed.iter().all(|needed| place[needed] < place[&step]));
                }
            }
            Err(circle) => {
                prop_assert!(circle.steps.len() >= 2);
                for ((step, next), reason) in circle.steps.iter().zip(circle.steps.iter().cycle().skip(1)).zip(&circle.reasons) {
                    let (waiting, other) = (&pipeline.steps[*step], &pipeline.steps[*next]);
                    match reason {
                        Reason::Needs => prop_assert!(waiting.needs.contains(&other.name)),
                        Reason::Follows => prop_assert!(waiting.follows_the_one_above() && *step == next + 1),
                        Reason::Reads { input, output } => {
                            prop_assert!(waiting.inputs.iter().flatten().any(|path| path == input));
                            prop_assert!(other.written().any(|path| path == output) && input.overlaps(output));
                        }
                    }
                }
            }
        }
    }
}
