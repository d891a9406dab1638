//! `pv why` and `pv show --conflicts`: what made a key differ, and what one key should not have done.

use serde_json::{Value, json};

use crate::sandbox::Sandbox;

const DEFINITION: &str = "params: params.yaml
data: [data]
steps:
  clean:
    inputs: [data]
    outputs: [clean.txt]
    run: cat data/* > clean.txt
  train:
    inputs: [clean.txt, train.sh]
    outputs: [model.txt]
    params: [train.rate]
    seed: 1
    env: [MODE=fast]
    run: sh train.sh > model.txt
";

fn project() -> Sandbox {
    let project = Sandbox::with_pipeline(DEFINITION);
    project.write(".gitignore", "/data/\n/clean.txt\n/model.txt\n");
    project.write("params.yaml", "train: {rate: 0.1, depth: 3}\n");
    project.write("data/a", "1\n");
    project.write("data/b", "2\n");
    project.write("train.sh", "cat clean.txt\n");
    project.commit("first");
    project
}

fn named(answer: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| "-".to_owned(), |text| text.chars().take(8).collect());
    let change = |change: &Value| {
        let [kind, name] = ["kind", "name"].map(|key| change[key].as_str().unwrap());
        format!("{kind} {name} {} {}", text(&change["old"]), text(&change["new"]))
    };
    answer["changes"].as_array().unwrap().iter().map(change).collect()
}

#[test]
fn everything_that_made_a_key_differ_is_told_with_its_old_and_its_new_value() {
    let project = project();
    insta::assert_snapshot!(project.pv(&["why", "train"]), @"train would be decided later: it runs after `clean`");
    project.pv_ok(&["run"]);
    let (first, _) = project.json(&["log"]);
    let run = first["entries"].as_array().unwrap().iter().find(|entry| entry["kind"] == "run").unwrap()["run"].clone();
    insta::assert_snapshot!(project.pv(&["why", "train"]), @"train would be reused: nothing it depends on changed");
    project.write("train.sh", "cat clean.txt clean.txt\n");
    project.write("params.yaml", "train: {rate: 0.2, depth: 9}\n");
    let definition = DEFINITION.replace("MODE=fast", "MODE=slow").replace("seed: 1", "seed: 2");
    project.write(".pipeline/pipeline.yaml", definition);
    let (answer, code) = project.json(&["why", "train"]);
    assert_eq!((answer["step"].as_str(), answer["verdict"].as_str(), code), (Some("train"), Some("run"), 0));
    assert_eq!(answer["against"], run);
    assert_eq!(
        named(&answer)[..],
        ["param train.rate 0.1 0.2", "seed seed 1 2", "env MODE fast slow", "file train.sh 2b83ad86 cd51abb1",]
    );
    insta::assert_snapshot!(project.pv(&["why", "train"]), @"
    train would run; compared with run [RUN]
      param  train.rate  0.1 -> 0.2
      seed   seed        1 -> 2
      env    MODE        fast -> slow
      file   train.sh    2b83ad867c5e -> cd51abb1bb5f
    ");
}

#[test]
fn a_changed_file_deep_in_the_data_is_named_and_the_steps_after_it_wait() {
    let project = project();
    project.pv_ok(&["run"]);
    project.write("data/b", "3\n");
    project.write("data/c", "4\n");
    let (answer, _) = project.json(&["why", "clean"]);
    let names: Vec<_> = answer["changes"].as_array().unwrap().iter().map(|change| change["name"].clone()).collect();
    assert_eq!(names, ["data/b", "data/c"]);
    assert_eq!(answer["changes"][1]["old"], Value::Null);
    let (later, _) = project.json(&["why", "train"]);
    assert_eq!(
        (&later["verdict"], &later["after"], &later["changes"]),
        (&json!("wait"), &json!(["clean"]), &json!([]))
    );
    insta::assert_snapshot!(project.pv(&["why", "trian"]), @"
    --- stderr
    error: there is no step `trian`
    hint: the steps are `clean`, `train`
    --- exit 2
    ");
}

#[test]
fn asking_why_writes_nothing() {
    let project = project();
    project.pv_ok(&["run"]);
    project.write("train.sh", "cat clean.txt clean.txt\n");
    let before = crate::run::everything_below(&project.path("."));
    project.pv_ok(&["why", "train"]);
    assert_eq!(crate::run::everything_below(&project.path(".")), before);
}

#[test]
fn one_key_with_two_outputs_is_told_at_once_and_both_are_kept() {
    let project = Sandbox::with_pipeline(
        "steps:\n  clock:\n    inputs: []\n    outputs: [now]\n    run: date +%s%N > now\n  same:\n    inputs: []\n    \
         outputs: [same]\n    run: echo 1 > same\n",
    );
    project.commit("first");
    project.pv_ok(&["run"]);
    let (none, code) = project.json(&["show", "--conflicts"]);
    assert_eq!((none, code), (json!({"conflicts": []}), 0));
    let told = project.pv(&["run", "HEAD"]);
    assert!(told.contains("warning: step `clock` depended on the same as before (key "), "{told}");
    assert!(told.contains("yet wrote another `now`; both are kept"), "{told}");
    assert!(!told.contains("step `same` depended"), "{told}");
    let (answer, code) = project.json(&["show", "--conflicts"]);
    assert_eq!(code, 1);
    let conflicts = answer["conflicts"].as_array().unwrap();
    assert_eq!(conflicts.len(), 1);
    assert_eq!(conflicts[0]["step"], "clock");
    let sides = conflicts[0]["results"].as_array().unwrap();
    assert_eq!(sides.len(), 2);
    for side in sides {
        assert_eq!(side["runs"].as_array().unwrap().len(), 1, "{side}");
        let digest = side["outputs"][0]["digest"].as_str().unwrap();
        assert!(!project.pv_ok(&["show", digest]).is_empty(), "both are kept");
    }
    let told = project.pv(&["show", "--conflicts"]);
    assert_eq!(told.lines().filter(|line| line.contains(" now ")).count(), 2, "{told}");
    // The contradiction does not keep what is known from being used.
    assert!(project.pv_ok(&["run"]).contains("reused"));
}
