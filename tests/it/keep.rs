//! What a step keeps between its attempts.

use crate::sandbox::Sandbox;

/// Comes to its end in the third attempt, if it finds again what the two before left.
const TRAIN: &str = "mkdir -p state/ck; echo x >> state/ck/n; \
                     test $(wc -l < state/ck/n) -ge 3; echo done > model";

fn training(keys: &str) -> String {
    format!(
        "steps:\n  train:\n    run: set -e; {TRAIN}\n    inputs: []\n    outputs: [model]\n    keep: [state/ck/]\n{keys}"
    )
}

#[test]
fn checkpoints_survive_attempts_and_the_record_says_that_the_step_resumed() {
    let project = Sandbox::with_pipeline(&training("    retries: 2\n"));
    let (answer, code) = project.json(&["run"]);
    assert_eq!((code, &answer["steps"][0]["attempts"]), (0, &3.into()), "{answer}");
    let (run, _) = project.json(&["show", answer["run"].as_str().unwrap()]);
    assert_eq!(run["steps"][0]["resumed"], true, "{run}");
    assert!(!project.path("state").exists(), "what is kept reaches no tree");
}

#[test]
fn checkpoints_survive_runs_that_fail_and_go_with_the_first_success() {
    let project = Sandbox::with_pipeline(&training(""));
    assert_eq!(project.json(&["run"]).1, 3);
    assert_eq!(project.json(&["run"]).1, 3);
    let (answer, code) = project.json(&["run"]);
    assert_eq!(code, 0, "{answer}");
    let (audit, code) = project.json(&["audit"]);
    assert_eq!(code, 0, "what is kept is neither read nor written undeclared: {audit}");
    // It begins without anything again, so its first attempt fails as at first.
    assert_eq!(project.json(&["run", "--again"]).1, 3);
}

#[test]
fn checkpoints_survive_a_run_that_is_killed() {
    let run = "mkdir -p ck; test -e ck/half && cp ck/half model && exit; echo half > ck/half; touch $MEET; sleep 60";
    let project = Sandbox::with_pipeline(&format!(
        "steps:\n  train: {{run: '{run}', inputs: [], outputs: [model], keep: ck, env: [MEET]}}\n"
    ));
    let meet = project.beside("meet");
    let mut killed = project.pv_command(&["--quiet", "run"]).env("MEET", &meet).spawn().unwrap();
    while !meet.exists() {
        assert!(killed.try_wait().unwrap().is_none(), "the run ended before it was killed");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    let output = project.pv_command(&["run"]).env("MEET", &meet).output().unwrap();
    assert!(output.status.success(), "{}", project.tell(&output));
    assert_eq!(std::fs::read_to_string(project.path("model")).unwrap(), "half\n");
}

#[test]
fn what_the_snapshot_has_cannot_be_kept_and_nothing_runs() {
    let project = Sandbox::with_pipeline(
        "steps:\n  before:\n    inputs: []\n    outputs: [early]\n    run: touch early $RAN\n    env: [RAN]\n  \
         train:\n    needs: [before]\n    inputs: []\n    outputs: [model]\n    keep: [state/ck]\n    run: touch model\n",
    );
    let ran = project.beside("ran");
    let run = || project.pv_command(&["run"]).env("RAN", &ran).output().unwrap();
    let refused = || project.tell(&run()).split_once("--- stderr\n").unwrap().1.to_owned();
    project.write("state/ck/epoch-1", "x\n");
    insta::assert_snapshot!(refused(), @"
    error: step `train` keeps `state/ck`, which is in the snapshot
    hint: what is kept begins with nothing: keep another path, or, if that is no part of the project, add it to `.gitignore`, and `git rm -r --cached state/ck` if Git has it
    --- exit 2
    ");
    std::fs::remove_dir_all(project.path("state")).unwrap();
    // A file where a directory should be.
    project.write("state", "x\n");
    insta::assert_snapshot!(refused(), @"
    error: step `train` keeps `state/ck`, but `state` is a file in the snapshot
    hint: what is kept begins with nothing: keep another path, or, if that is no part of the project, add it to `.gitignore`, and `git rm -r --cached state` if Git has it
    --- exit 2
    ");
    assert!(!ran.exists(), "nothing ran");
    // What Git ignores is not in the snapshot, and what lies beside is none of it.
    std::fs::remove_file(project.path("state")).unwrap();
    project.write(".gitignore", "/state/ck/\n");
    project.write("state/ck/epoch-1", "x\n");
    project.write("state/read-me", "x\n");
    let output = run();
    assert!(output.status.success(), "{}", project.tell(&output));
    assert_eq!(project.read("state/ck/epoch-1"), "x\n", "the user's own is left alone");
}
