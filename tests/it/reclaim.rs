//! What `pv gc` gives back beside the store: checkouts, places of failed runs, what steps kept. Never what is in use.

use std::fs;
use std::path::Path;
use std::process::Child;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use crate::sandbox::Sandbox;
use crate::stored::later_in;

/// Leaves a checkpoint, waits for the gate and fails.
const TRAIN: &str = "steps:\n  train:\n    inputs: []\n    outputs: [model]\n    keep: [ck]\n    env: [GATE]\n    \
                     run: mkdir -p ck; echo x >> ck/n; touch $GATE.is-there; while [ ! -e $GATE ]; do sleep 0.05; done; exit 1\n";

fn project() -> Sandbox {
    let project = Sandbox::with_pipeline(TRAIN);
    project.write(".gitignore", "/model\n");
    project.commit("all");
    project
}

/// Runs the step that fails.
fn fail(project: &Sandbox) {
    let gate = project.beside("open");
    fs::write(&gate, "").unwrap();
    assert_eq!(project.pv_command(&["run"]).env("GATE", gate).output().unwrap().status.code(), Some(3));
}

/// Begins a run whose step waits for the gate.
fn begin(project: &Sandbox, gate: &Path) -> Child {
    let mut child = project.pv_command(&["--quiet", "run"]).env("GATE", gate).spawn().unwrap();
    let there = gate.with_extension("is-there");
    while !there.exists() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before its step began");
        sleep(Duration::from_millis(10));
    }
    child
}

fn gc_later(project: &Sandbox, arguments: &[&str]) -> Value {
    let all = [&["--json", "gc"], arguments].concat();
    let output = later_in(project, &project.path(""), &all).output().unwrap();
    assert!(output.status.success(), "{}", project.tell(&output));
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["places"].clone()
}

/// Returns the names of what lies beside the store, without what differs from run to run.
fn left(project: &Sandbox) -> Vec<String> {
    let work = fs::read_dir(project.beside("cache/pv/work")).unwrap().next().unwrap().unwrap().path();
    let names = |directory: &Path| -> Vec<String> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    };
    let mut left: Vec<_> = names(&work).iter().filter_map(|name| Some(name.split_once('-')?.0.to_owned())).collect();
    left.extend(names(&work.join("keep")).iter().filter(|name| !name.contains('.')).map(|_| "kept".to_owned()));
    left.sort();
    left
}

fn nothing() -> Value {
    json!({"checkouts": 0, "failed_runs": 0, "kept": [], "python_environments": 0, "bytes": 0})
}

#[test]
fn what_runs_left_goes_when_nobody_has_used_it_for_some_days() {
    let project = project();
    fail(&project);
    assert_eq!(left(&project), ["base", "kept", "run"]);
    assert_eq!(project.json(&["gc"]).0["places"], nothing(), "it is too new");
    let files = project.read(".pipeline/pipeline.yaml").len() + project.read(".gitignore").len();
    let told = gc_later(&project, &["--dry-run"]);
    assert_eq!((&told["checkouts"], &told["failed_runs"], &told["kept"]), (&json!(1), &json!(1), &json!([])), "{told}");
    assert!(told["bytes"].as_u64().unwrap() >= files as u64, "{told}");
    assert_eq!(left(&project), ["base", "kept", "run"], "a dry run removes nothing");
    let output = later_in(&project, &project.path(""), &["gc"]).output().unwrap();
    let told = project.tell(&output);
    assert!(told.contains("\ngone for good beside the store: 1 idle checkout, what 1 failed run left ("), "{told}");
    assert_eq!(left(&project), ["kept"], "the step is still there, and finds again what it kept");
    fail(&project);
    assert_eq!(left(&project), ["base", "kept", "run"]);
    assert_eq!(project.json(&["gc", "--undo-days", "0"]).0["places"]["checkouts"], 1, "no days are kept");
}

#[test]
fn what_a_step_kept_goes_when_no_branch_and_no_working_tree_names_the_step() {
    let project = project();
    fail(&project);
    gc_later(&project, &[]);
    project.git(&["branch", "old"]);
    project.write(".pipeline/pipeline.yaml", TRAIN.replace("train", "fit"));
    assert_eq!(gc_later(&project, &[]), nothing(), "it is at the head of both branches");
    project.commit("renamed");
    assert_eq!(gc_later(&project, &[]), nothing(), "it is at the head of the other branch");
    let linked = project.beside("linked");
    project.git(&["worktree", "add", "--quiet", linked.to_str().unwrap(), "old"]);
    project.git_in(&linked, &["checkout", "--quiet", "--detach"]);
    project.git(&["branch", "-D", "old"]);
    assert_eq!(gc_later(&project, &[]), nothing(), "it is in the other working tree");
    fs::write(linked.join(".pipeline/pipeline.yaml"), "steps: [").unwrap();
    assert_eq!(gc_later(&project, &[]), nothing(), "nobody knows which steps the broken definition has");
    project.git(&["worktree", "remove", "--force", linked.to_str().unwrap()]);
    let kept = json!([{"pipeline": "pipeline", "step": "train", "bytes": 2}]);
    assert_eq!(gc_later(&project, &["--dry-run"])["kept"], kept);
    assert_eq!(left(&project), ["kept"]);
    let output = later_in(&project, &project.path(""), &["gc"]).output().unwrap();
    assert!(project.tell(&output).contains("gone for good beside the store: what step `train` kept (2 B)\n"));
    assert_eq!(left(&project), [""; 0]);
    let work = fs::read_dir(project.beside("cache/pv/work")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(fs::read_dir(work.join("keep")).unwrap().count(), 0, "nothing is beside it either");
}

#[test]
fn nothing_goes_that_a_run_is_using() {
    let project = project();
    fail(&project);
    let gate = project.beside("gate");
    let mut running = begin(&project, &gate);
    // As if the step had long been renamed, everywhere.
    project.write(".pipeline/pipeline.yaml", TRAIN.replace("train", "fit"));
    project.commit("renamed");
    let told = gc_later(&project, &["--undo-days", "0"]);
    assert_eq!(told["checkouts"], 0, "{told}");
    assert_eq!((&told["failed_runs"], &told["kept"]), (&json!(1), &json!([])), "only what failed before goes: {told}");
    fs::write(&gate, "").unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(3));
    assert_eq!(left(&project), ["base", "kept", "run"]);
    let told = gc_later(&project, &[]);
    assert_eq!(
        told["kept"],
        json!([{"pipeline": "pipeline", "step": "train", "bytes": 4}]),
        "both attempts left a line"
    );
}

#[test]
fn of_a_run_that_was_killed_what_the_step_kept_stays() {
    let project = project();
    let mut killed = begin(&project, &project.beside("gate"));
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(left(&project), ["base", "run"]);
    // It goes though it is new: nobody was to look at it.
    assert_eq!(project.json(&["gc"]).0["places"]["failed_runs"], 1);
    assert_eq!(left(&project), ["base", "kept"]);
}
