//! Edits by hand-picked cases, and of random definitions in random styles.

use proptest::prelude::*;

use super::*;
use crate::path::ProjectPath;
use crate::pipeline::read;

fn items(step: &str, key: &'static str, items: &[&str]) -> Addition {
    let step = (!step.is_empty()).then(|| step.to_owned());
    Addition::Items { step, key, items: items.iter().map(|item| (*item).to_owned()).collect() }
}

fn inputs(text: &str, new: &[&str]) -> String {
    let edited = edit(text, &[items("a", "inputs", new)]).unwrap();
    assert_eq!(edited.by_hand, [], "{text}");
    edited.text
}

#[test]
fn a_list_grows_in_its_own_style() {
    for (before, after) in [
        ("inputs: [x]  # why", "inputs: [x, n]  # why"),
        ("inputs: []", "inputs: [n]"),
        ("inputs: [ 'x' ]", "inputs: [ 'x', 'n' ]"),
        ("inputs: x # why", "inputs: [x, n] # why"),
        ("inputs: \"x\"", "inputs: [\"x\", \"n\"]"),
        (
            "inputs:\n      - x  # first\n      # second\n      - y\n",
            "inputs:\n      - x  # first\n      # second\n      - y\n      - n\n",
        ),
        ("inputs:\n    -   x # first", "inputs:\n    -   x # first\n    -   n"),
        (
            "inputs: [\n      x,  # first\n      y  # second\n    ]",
            "inputs: [\n      x,  # first\n      y,  # second\n      n\n    ]",
        ),
        ("inputs: [\n      x,\n      y,\n    ]", "inputs: [\n      x,\n      y,\n      n,\n    ]"),
    ] {
        let around = |middle: &str| format!("# top\nsteps:\n  a:\n    run: go\n    {middle}\n    outputs: [o]\n");
        assert_eq!(inputs(&around(before), &["n"]), around(after));
        let windows = |middle: &str| around(middle).replace('\n', "\r\n");
        assert_eq!(inputs(&windows(before), &["n"]), windows(after));
    }
}

#[test]
fn an_image_takes_the_place_of_the_environment_that_is_there() {
    let image = format!("debian@sha256:{}", "a".repeat(64));
    for (before, after) in [
        ("version: v1  # why\nsteps:", "version: v1  # why\nenvironment: {image: \"IMAGE\"}\nsteps:"),
        ("steps:", "environment: {image: \"IMAGE\"}\nsteps:"),
        ("environment: host  # why\nsteps:", "environment: {image: \"IMAGE\"}  # why\nsteps:"),
        (
            "environment: {image: 'x@y', runtime: podman}\nsteps:",
            "environment: {image: 'IMAGE', runtime: podman}\nsteps:",
        ),
        (
            "environment:\n  image: \"x@y\"  # old\n  runtime: podman\nsteps:",
            "environment:\n  image: \"IMAGE\"  # old\n  runtime: podman\nsteps:",
        ),
        ("environment: {python: {version: '3.11', lock: l}}\nsteps:", "environment: {image: \"IMAGE\"}\nsteps:"),
    ] {
        let around = |begin: &str| format!("# top\n{}\n  a: {{run: go}}\n", begin.replace("IMAGE", &image));
        let edited = edit(&around(before), &[Addition::Image { step: None, image: image.clone() }]).unwrap();
        assert_eq!((edited.text, edited.by_hand), (around(after), vec![]), "{before}");
    }
    let of_a_step = Addition::Image { step: Some("a".to_owned()), image: image.clone() };
    let edited = |text: &str| edit(text, std::slice::from_ref(&of_a_step)).unwrap().text.replace(&image, "IMAGE");
    assert_eq!(
        edited("steps:\n  a:\n    run: go  # it\n    inputs: [x]\n"),
        "steps:\n  a:\n    run: go  # it\n    environment: {image: \"IMAGE\"}\n    inputs: [x]\n"
    );
    assert_eq!(
        edited(r#"{"steps": {"a": {"run": "x"}}}"#),
        r#"{"steps": {"a": {"run": "x", "environment": {"image": "IMAGE"}}}}"#
    );
}

#[test]
fn a_new_key_stands_where_a_person_would_put_it() {
    let block = "steps:\n  a:\n    run: |\n      one\n      # two\n\n    outputs: [o]  # kept\n\n  b: {run: x}\n";
    assert_eq!(
        inputs(block, &["n", "m"]),
        "steps:\n  a:\n    run: |\n      one\n      # two\n    inputs: [n, m]\n\n    outputs: [o]  # kept\n\n  b: {run: x}\n"
    );
    assert_eq!(inputs("steps: {a: {run: x}}", &["n"]), "steps: {a: {run: x, inputs: [n]}}");
    assert_eq!(
        inputs(r#"{"steps": {"a": {"run": "x"}}}"#, &["n"]),
        r#"{"steps": {"a": {"run": "x", "inputs": ["n"]}}}"#
    );
    assert_eq!(inputs("steps:\n  a:\n    run: go", &["n"]), "steps:\n  a:\n    run: go\n    inputs: [n]");
    let lists = "steps:\n  a:\n    run: go\n    outputs:\n      - o\n";
    assert_eq!(inputs(lists, &["n"]), "steps:\n  a:\n    run: go\n    inputs:\n      - n\n    outputs:\n      - o\n");
    let network = edit(lists, &[Addition::Flag { step: "a".to_owned(), key: "network" }]).unwrap().text;
    assert_eq!(network, format!("{lists}    network: true\n"));
    let data = edit("seed: 1\nsteps: {a: {run: go}}\n", &[items("", "data", &["raw.csv"])]).unwrap().text;
    assert_eq!(data, "seed: 1\ndata: [raw.csv]\nsteps: {a: {run: go}}\n");
    let data = edit("steps: {a: {run: go}}\n", &[items("", "data", &["raw.csv"])]).unwrap().text;
    assert_eq!(data, "data: [raw.csv]\nsteps: {a: {run: go}}\n");
}

#[test]
fn what_is_there_is_not_added_again() {
    let text = "steps:\n  a:\n    run: go\n    inputs: [x, y]\n";
    assert_eq!(inputs(text, &["y", "x"]), text);
}

#[test]
fn outputs_that_say_how_they_are_compared_stay_as_they_are() {
    let edited = |text: &str, new: &[&str]| {
        let edited = edit(text, &[items("a", "outputs", new)]).unwrap();
        (edited.text, edited.by_hand.is_empty())
    };
    let flow = "steps: {a: {run: x, outputs: [{path: m, compare: {level: close, rtol: 1e-9}}]}}\n";
    let grown = flow.replace("}}]", "}}, n]");
    assert_eq!(edited(flow, &["m", "n"]), (grown, true));
    let block = "steps:\n  a:\n    run: x\n    outputs:\n      - path: m\n        compare: close  # enough\n";
    assert_eq!(edited(block, &["n"]), (format!("{block}      - n\n"), true));
    // A single map would have to become a list: that is left to the author.
    let single = "steps: {a: {run: x, outputs: {path: m, compare: close}}}\n";
    assert_eq!(edited(single, &["n"]), (single.to_owned(), false));
}

#[test]
fn what_is_shared_is_never_changed_for_others() {
    let anchored = "x: &common [x]\nsteps:\n  a: {run: go, inputs: *common}\n  b: {run: go, inputs: *common}\n";
    let text = anchored.replace("x: &common [x]\n", "").replace("inputs: *common}\n  b", "inputs: &common [x]}\n  b");
    let edited = edit(&text, &[items("a", "inputs", &["n"])]).unwrap();
    assert_eq!((edited.text.as_str(), edited.by_hand.len()), (text.as_str(), 1), "an anchor is for its aliases too");
    assert_eq!(edited.by_hand[0].to_string(), "inputs: [n]");
    let merged = "steps:\n  b: &b\n    run: go\n    inputs: [x]\n  a:\n    <<: *b\n    run: other\n";
    assert_eq!(inputs(merged, &["n"]), format!("{merged}    inputs: [x, n]\n"));
    let alias = "steps:\n  b: {run: go, inputs: &in [x]}\n  a: {run: other, inputs: *in}\n";
    let edited = edit(alias, &[items("a", "inputs", &["n"])]).unwrap();
    assert_eq!((edited.text.as_str(), edited.by_hand.len()), (alias, 1));
    let fixed = "steps:\n  a:\n    run: go\n    env: {B: 1}\n";
    let edited = edit(fixed, &[items("a", "env", &["TOKEN"]), items("gone", "inputs", &["n"])]).unwrap();
    assert_eq!((edited.text.as_str(), edited.by_hand.len()), (fixed, 2), "a map of values has no place for a name");
}

#[derive(Clone, Debug)]
struct Style {
    list: usize,
    quotes: usize,
    comment: bool,
    blank: bool,
}

fn style() -> impl Strategy<Value = Style> {
    (0_usize..5, 0_usize..3, any::<bool>(), any::<bool>()).prop_map(|(list, quotes, comment, blank)| Style {
        list,
        quotes,
        comment,
        blank,
    })
}

fn written(key: &str, paths: &[String], style: &Style) -> String {
    let quoted: Vec<String> = paths
        .iter()
        .map(|path| match style.quotes {
            0 => path.clone(),
            1 => format!("'{path}'"),
            _ => format!("\"{path}\""),
        })
        .collect();
    let comment = if style.comment { "  # why: [this, \"x" } else { "" };
    let mut text = match style.list {
        0 if paths.len() == 1 => format!("    {key}: {}{comment}\n", quoted[0]),
        0 | 1 => format!("    {key}: [{}]{comment}\n", quoted.join(", ")),
        2 => format!(
            "    {key}:{comment}\n{}",
            quoted.iter().map(|q| format!("    - {q}{comment}\n")).collect::<Vec<_>>().concat()
        ),
        3 => format!(
            "    {key}:\n{}",
            quoted.iter().map(|q| format!("        -  {q}{comment}\n")).collect::<Vec<_>>().concat()
        ),
        _ => format!("    {key}: [\n        {}{comment}\n    ]\n", quoted.join(&format!(",{comment}\n        "))),
    };
    if style.blank {
        text.push_str("\n    # between\n");
    }
    text
}

#[derive(Clone, Debug)]
struct Made {
    text: String,
    additions: Vec<(usize, bool, Vec<String>)>,
}

fn made() -> impl Strategy<Value = Made> {
    let paths = |letter: &'static str| {
        proptest::collection::btree_set("[a-z0-9é]{1,4}\\.[a-z]{1,2}", 1..4)
            .prop_map(move |set| set.into_iter().map(|path| format!("{letter}/{path}")).collect::<Vec<_>>())
    };
    let step = (
        proptest::option::of((paths("in"), style())),
        proptest::option::of((paths("out"), style())),
        0_usize..4,
        any::<bool>(),
    );
    let additions = proptest::collection::vec((0_usize..3, any::<bool>(), paths("new")), 0..4);
    (proptest::collection::vec(step, 1..4), additions, any::<bool>(), any::<bool>()).prop_map(
        |(steps, additions, windows, ends)| {
            let mut text = "# a definition\nversion: v1  # label\n\nsteps:\n".to_owned();
            for (index, (inputs, outputs, run, blank)) in steps.iter().enumerate() {
                let outputs = outputs.as_ref().map(|(paths, style)| {
                    (paths.iter().map(|path| format!("s{index}/{path}")).collect::<Vec<_>>(), style)
                });
                text += &format!("  s{index}:{}\n", if *blank { "  # a step" } else { "" });
                let run =
                    ["go fast", "|\n      go  # x\n\n      on\n", "[go, 'fast, er']", ">-\n      go\n      on"][*run];
                let run = format!("    run: {run}\n");
                let inputs = inputs.as_ref().map(|(paths, style)| written("inputs", paths, style)).unwrap_or_default();
                let outputs = outputs.map(|(paths, style)| written("outputs", &paths, style)).unwrap_or_default();
                text += &if *blank { inputs + &run + &outputs } else { run + &outputs + &inputs };
            }
            if !ends {
                text = text.trim_end().to_owned();
            }
            Made { text: if windows { text.replace('\n', "\r\n") } else { text }, additions }
        },
    )
}

proptest! {
    #[test]
    fn an_edit_adds_what_it_should_and_leaves_every_other_line_as_it_is(made in made()) {
        let before = read(made.text.as_bytes(), "x").unwrap();
        let mut intended = before.pipeline.clone();
        let mut additions = Vec::new();
        for (number, (step, is_input, paths)) in made.additions.iter().enumerate() {
            let index = step % intended.steps.len();
            let step = &mut intended.steps[index];
            let paths: Vec<String> = paths.iter().map(|path| format!("a{number}/{path}")).collect();
            let list = if *is_input { step.inputs.get_or_insert_default() } else { &mut step.outputs };
            list.extend(paths.iter().map(|path| ProjectPath::new(path).unwrap()));
            list.sort();
            let key = if *is_input { "inputs" } else { "outputs" };
            additions.push(Addition::Items { step: Some(step.name.clone()), key, items: paths });
        }
        let edited = edit(&made.text, &additions).unwrap();
        prop_assert_eq!(&edited.by_hand, &[]);
        let after = read(edited.text.as_bytes(), "x").unwrap();
        prop_assert_eq!(after.pipeline, intended);
        // Every old line is there in the same order, but for the one that an addition was written into.
        let mut new = edited.text.split('\n');
        let changed = made.text.split('\n').filter(|old| {
            let mut rest = new.clone();
            let found = rest.any(|line| line == *old || line.trim_end_matches('\r') == *old);
            if found { new = rest; }
            !found
        });
        prop_assert!(changed.count() <= additions.len(), "{}", edited.text);
    }
}
