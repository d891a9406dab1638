//! `pv audit`: what it tells of an observation, and what `--fix` writes.

use std::collections::BTreeSet;

use pv::exec::Rung;
use pv::path::ProjectPath;
use pv::project::Project;
use pv::record::{Observed, Recipe, Record};

use crate::sandbox::Sandbox;

const DEFINITION: &str = "\
# What we run.
steps:
  prepare:
    run: sort raw.csv > sorted.csv   # by name
    inputs: [raw.csv]
    outputs: [sorted.csv]

  train:
    run: wc -l sorted.csv > model
    inputs:
      - sorted.csv   # all of it
      - old.csv
    outputs: [model]
";

fn project() -> Sandbox {
    let project = Sandbox::new();
    project.write(".pipeline/pipeline.yaml", DEFINITION);
    for name in ["raw.csv", "old.csv", "lib/util.py"] {
        project.write(name, "b\na\n");
    }
    project.commit("first");
    project.pv_ok(&["run"]);
    project
}

/// Puts on record that a step was seen to do more than it did: what an observer tells differs from machine to machine.
fn observe(sandbox: &Sandbox, step: &str, change: impl Fn(&mut Observed, &mut Recipe)) {
    let project = Project::open(&sandbox.path("."), "pipeline").unwrap();
    let (_, mut run) = project.journal.runs().unwrap().next().unwrap().unwrap();
    let done = run.steps.iter_mut().find(|done| done.step == step).unwrap();
    let (_, mut result) = project.journal.results(done.task, done.key.unwrap()).unwrap().pop().unwrap();
    let mut observed = Observed { rung: Rung::Notify, isolated: true, ..Observed::default() };
    change(&mut observed, &mut result.recipe);
    result.observed = Some(observed);
    result.key = result.recipe.key();
    done.key = Some(result.key);
    run.started.epoch_ms += 1000;
    project.journal.add(&[Record::Step(result), Record::Run(run)]).unwrap();
}

fn read(observed: &mut Observed, recipe: &mut Recipe, path: &str, by: &str) {
    observed.readers.insert(path.to_owned(), by.to_owned());
    recipe.reads.insert(path.to_owned(), "file 00".to_owned());
}

/// As a careless pipeline was seen: an undeclared module and file, a file left behind, the network.
fn careless() -> Sandbox {
    let project = project();
    observe(&project, "prepare", |_, _| {});
    observe(&project, "train", |observed, recipe| {
        read(observed, recipe, "lib/util.py", "python3");
        read(observed, recipe, "/srv/shared/limits.txt", "python3");
        observed.unread.insert(ProjectPath::new("old.csv").unwrap());
        observed.writes.insert("cache.bin".to_owned());
        observed.network.insert("example.org:443".to_owned(), "curl".to_owned());
        recipe.environment.insert("variable LD_LIBRARY_PATH".to_owned(), "/opt".to_owned());
    });
    project
}

#[test]
fn a_step_that_was_never_run_is_told_as_such_and_is_no_finding() {
    let project = Sandbox::with_pipeline("steps: {a: {run: echo}, b: {run: echo}}\n");
    insta::assert_snapshot!(project.pv(&["audit"]), @r"
    a  not observed yet: run it with `pv run`
    b  not observed yet: run it with `pv run`
    ");
    let (answer, code) = project.json(&["audit", "b"]);
    let nothing = serde_json::json!({"steps": [{"step": "b", "rung": "none", "undeclared": [], "unused": [], "writes": [], "network": [], "env": []}]});
    assert_eq!((answer, code), (nothing, 0));
}

#[test]
fn what_a_step_leaves_out_is_told_by_kind_with_the_first_reader() {
    let project = careless();
    insta::assert_snapshot!(project.pv(&["audit"]), @r"
    prepare  declares what it does
    train    reads 2 undeclared paths, does not read 1 declared path, writes 1 undeclared path, talks to 1 undeclared address, gets 1 undeclared variable
      read, not declared
        /srv/shared/limits.txt  by python3
        lib/util.py             by python3
      declared, not read
        old.csv
      written, not declared
        cache.bin
      talked to without `network: true`
        example.org:443
      passed on from outside, not in `env`
        LD_LIBRARY_PATH
    --- exit 1
    ");
    let (answer, code) = project.json(&["audit", "train"]);
    let expected = serde_json::json!({"steps": [{
        "step": "train",
        "rung": "notify",
        "undeclared": [
            {"path": "/srv/shared/limits.txt", "by": "python3"},
            {"path": "lib/util.py", "by": "python3"},
        ],
        "unused": ["old.csv"],
        "writes": ["cache.bin"],
        "network": ["example.org:443"],
        "env": ["LD_LIBRARY_PATH"],
    }]});
    assert_eq!((answer, code), (expected, 1));
    assert_eq!(project.json(&["audit", "prepare"]).1, 0);
}

#[test]
fn a_fix_adds_what_is_missing_and_keeps_every_other_line() {
    let project = careless();
    insta::assert_snapshot!(project.pv(&["audit", "--fix"]), @r"
    added to `train` in .pipeline/pipeline.yaml: env: [LD_LIBRARY_PATH]
    added to `train` in .pipeline/pipeline.yaml: inputs: [lib/util.py]
    added to `train` in .pipeline/pipeline.yaml: outputs: [cache.bin]
    added to `train` in .pipeline/pipeline.yaml: network: true
    prepare  declares what it does
    train    reads 1 undeclared path, does not read 1 declared path
      read, not declared
        /srv/shared/limits.txt  by python3
      declared, not read
        old.csv
    --- exit 1
    ");
    let fixed = project.read(".pipeline/pipeline.yaml");
    let old: BTreeSet<&str> = DEFINITION.lines().collect();
    let new: Vec<&str> = fixed.lines().filter(|line| !old.contains(line)).collect();
    assert_eq!(
        new,
        ["      - lib/util.py", "    outputs: [model, cache.bin]", "    env: [LD_LIBRARY_PATH]", "    network: true"]
    );
    let again = project.pv(&["audit", "--fix"]);
    assert!(!again.contains("added"), "{again}");
    assert_eq!(project.read(".pipeline/pipeline.yaml"), fixed);
}

#[test]
fn the_projects_rules_overrule_the_built_in_ones_and_all_are_listed() {
    let project = careless();
    let listed = project.pv_ok(&["audit", "--rules"]);
    assert!(listed.starts_with("noise    /proc "), "{listed}");
    assert!(
        listed.contains("package  **/site-packages ") && listed.ends_with("input    everything else\n"),
        "{listed}"
    );
    project.write(".pipeline/config.yaml", "observe:\n  environment: [/srv/shared]\n  inputs: [/usr/share/dict]\n");
    let (answer, _) = project.json(&["audit"]);
    assert_eq!(answer["steps"][1]["undeclared"], serde_json::json!([{"path": "lib/util.py", "by": "python3"}]));
    let (rules, code) = project.json(&["audit", "--rules"]);
    let first = serde_json::json!({"pattern": "/usr/share/dict", "class": "input", "why": "made an input", "origin": ".pipeline/config.yaml"});
    assert_eq!((&rules["rules"][0], code), (&first, 0));
}

#[test]
fn wrong_settings_and_wrong_names_are_told_with_the_way_out() {
    let project = project();
    insta::assert_snapshot!(project.pv(&["audit", "trian"]), @r"
    --- stderr
    error: there is no step `trian`
    hint: its steps are `prepare`, `train`
    --- exit 2
    ");
    project.write(".pipeline/config.yaml", "observe: {inputs: [data]}\n");
    insta::assert_snapshot!(project.pv(&["audit"]), @r"
    --- stderr
    error: `data` in `inputs` of `observe` is no pattern
     --> .pipeline/config.yaml:1:20
      |
    1 | observe: {inputs: [data]}
      |                    ^^^^ a pattern begins with `/`, `~/` or `**/`
      |
    help: such as `/data/shared`, `~/.cache/tool` or `**/*.lic`
    --- exit 2
    ");
    let refused = project.pv(&["--pipeline", "config", "status"]);
    assert!(refused.contains("`config` is no name for a pipeline"), "{refused}");
}
