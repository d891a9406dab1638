//! `pv gc`: what goes, what stays, how it comes back, and how it is told.

use std::process::Output;

use serde_json::json;

use crate::sandbox::Sandbox;
use crate::stored;

fn project() -> Sandbox {
    let project = stored::project();
    project.write("data/x", "one\n");
    project
}

/// Takes a snapshot of what is there and returns its id.
fn snapshot(project: &Sandbox, arguments: &[&str]) -> String {
    stored::snapshot_in(project, &project.path(""), arguments)
}

fn output_later(project: &Sandbox, arguments: &[&str]) -> Output {
    stored::later_in(project, &project.path(""), arguments).output().unwrap()
}

fn later(project: &Sandbox, arguments: &[&str]) -> String {
    project.tell(&output_later(project, arguments))
}

/// A project with a version, a snapshot that nothing leads to a year later, and what is there now.
fn with_garbage() -> (Sandbox, String, String) {
    let project = project();
    let named = snapshot(&project, &["--tag", "v1"]);
    project.write("data/x", "two\n".repeat(100));
    project.write("data/deep/y", "only here\n");
    project.write("code.py", "print(2)\n");
    let forgotten = snapshot(&project, &[]);
    project.write("data/x", "three\n");
    std::fs::remove_dir_all(project.path("data/deep")).unwrap();
    std::fs::remove_file(project.path("code.py")).unwrap();
    snapshot(&project, &[]);
    (project, named, forgotten)
}

#[test]
fn what_nothing_leads_to_is_named_then_goes_and_can_be_had_back() {
    let (project, named, forgotten) = with_garbage();
    insta::assert_snapshot!(project.pv(&["gc"]), @"
    nothing to give back
    ");
    insta::assert_snapshot!(later(&project, &["gc", "--dry-run"]), @"
    would go: 2 snapshots, 3 files (419 B), 1.2 KiB on disk
      snapshot 28c0b8ece12c  0 files, 0 B
      snapshot 2e2ed5134137  3 files, 419 B
        data/x  400 B
        data/deep/y  10 B
        code.py  9 B
    ");
    assert!(project.pv(&["show", &forgotten]).starts_with("snapshot"), "a dry run removes nothing");
    insta::assert_snapshot!(later(&project, &["gc"]), @"
    gone: 2 snapshots, 3 files (419 B), 1.2 KiB on disk
      snapshot 28c0b8ece12c  0 files, 0 B
      snapshot 2e2ed5134137  3 files, 419 B
        data/x  400 B
        data/deep/y  10 B
        code.py  9 B
    `pv gc --undo` brings it back for 7 days
    ");
    assert!(project.pv(&["show", &forgotten]).contains("is not in the store"));
    assert!(project.pv(&["show", &named]).starts_with("snapshot"));
    project.pv_ok(&["run", "v1"]);
    insta::assert_snapshot!(project.pv(&["gc", "--undo"]), @"2 files back from the trash");
    assert!(project.pv(&["show", &forgotten]).starts_with("snapshot"));
    insta::assert_snapshot!(project.pv(&["gc", "--undo"]), @"
    nothing is in the trash
    ");
}

#[test]
fn what_was_collected_is_no_damage_to_fsck() {
    let (project, named, _) = with_garbage();
    later(&project, &["gc", "--all", "--undo-days", "0"]);
    later(&project, &["gc", "--all", "--undo-days", "0"]);
    let output = output_later(&project, &["fsck"]);
    assert_eq!(output.status.code(), Some(0), "{}", project.tell(&output));
    assert_eq!(project.json(&["show", &named]).1, 0);
}

#[test]
fn the_answer_for_programs_has_every_file() {
    let (project, _, forgotten) = with_garbage();
    let output = output_later(&project, &["gc", "--dry-run", "--json"]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let snapshots = answer["snapshots"].as_array().unwrap();
    let gone = snapshots.iter().find(|snapshot| snapshot["id"] == json!(forgotten)).unwrap();
    assert_eq!(
        gone["files"],
        json!([
            {"path": "data/x", "bytes": 400},
            {"path": "data/deep/y", "bytes": 10},
            {"path": "code.py", "bytes": 9},
        ])
    );
    assert_eq!((answer["dry_run"].clone(), answer["waiting_for"].clone()), (json!(true), json!([])));
    assert!(answer["freed_bytes"].as_u64().unwrap() > 0);
}

#[test]
fn what_git_can_come_back_to_stays_however_old_it_is() {
    let project = project();
    snapshot(&project, &[]);
    project.commit("one");
    project.write("data/x", "two\n");
    snapshot(&project, &[]);
    project.commit("two");
    project.git(&["reset", "--quiet", "--hard", "HEAD~1"]);
    insta::assert_snapshot!(later(&project, &["gc", "--all", "--undo-days", "0"]), @"
    gone: 2 snapshots, 2 files (117 B), 1.2 KiB on disk
      snapshot 6c0f5709df76  2 files, 117 B
        .pipeline/pipeline.yaml  101 B
        .gitignore  16 B
      snapshot 9c2e62354545  0 files, 0 B
    removed for good: 4.4 KiB of the trash
    ");
    project.git(&["reset", "--quiet", "--hard", "HEAD@{1}"]);
    project.pv_ok(&["run", "HEAD"]);
    // Once even the reflog forgets it, it may go.
    project.git(&["reset", "--quiet", "--hard", "HEAD~1"]);
    project.git(&["reflog", "expire", "--expire=now", "--all"]);
    project.git(&["gc", "--quiet", "--prune=now"]);
    assert!(later(&project, &["gc", "--all", "--dry-run"]).contains("data/x"));
}

#[test]
fn a_pointer_or_a_tree_that_cannot_be_read_lets_nothing_go() {
    let (project, ..) = with_garbage();
    project.write(".pipeline/data/data", "pv-data-9 of a later version\n");
    insta::assert_snapshot!(later(&project, &["gc"]), @"
    --- stderr
    error: data pointer in `[ROOT]/project/.pipeline/data/data` cannot be understood
    hint: nothing was taken away; put the pointer right, or use a newer `pv`
    --- exit 4
    ");
    std::fs::remove_file(project.path(".pipeline/data/data")).unwrap();
    for pack in stored::packs(&project) {
        stored::damage(&pack, |bytes| bytes.truncate(bytes.len() - 100));
    }
    let told = later(&project, &["gc"]);
    assert!(told.contains("is damaged") && told.contains("exit 4"), "{told}");
    assert!(!project.exists(".git/pv/trash"));
}

#[test]
fn snapshots_and_runs_beside_collections_lose_nothing() {
    let project = project();
    let mut taken = Vec::new();
    for round in 0..6 {
        project.write("data/x", format!("round {}\n", round % 3));
        project.write("code.py", format!("print({round})\n"));
        let mut collection =
            project.pv_command(&["gc", "--keep-days", "0", "--all", "--undo-days", "0"]).spawn().unwrap();
        let (answer, code) = project.json(&["snapshot", "--tag", &format!("v{round}")]);
        assert_eq!(code, 0, "{answer}");
        assert!(collection.wait().unwrap().success());
        taken.push(format!("v{round}"));
    }
    project.pv_ok(&["gc", "--keep-days", "0", "--all", "--undo-days", "0", "--wait"]);
    for version in taken {
        project.pv_ok(&["run", &version]);
    }
}

#[test]
fn the_help_says_what_is_kept_and_how_to_keep_more() {
    let help = project().pv_ok(&["gc", "--help"]);
    for said in ["every version", "reflog", "`pv snapshot --tag NAME`", "[default: 90]", "[default: 7]", "--undo"] {
        assert!(help.contains(said), "{said}: {help}");
    }
}
