//! Several runs at once, and runs that are stopped: by a signal, or by death.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use pv::object::Kind;
use pv::store::{LocalStore, Store};

use crate::run::is_anybody_given;
use crate::sandbox::Sandbox;

/// A step that leaves a trace each time it is executed, and then waits for a gate to open.
const TRACED: &str = "steps:
  quick:
    inputs: []
    outputs: [q]
    env: [TRACE]
    run: echo quick >> $TRACE; echo q > q
  slow:
    inputs: [q]
    outputs: [s]
    env: [TRACE]
    run: |
      echo slow >> $TRACE
      test -e $TRACE.open || { sleep 300 & echo $! >> $TRACE.pids; (setsid sleep 300 & echo $! >> $TRACE.pids; wait) & echo half > s; }
      while ! test -e $TRACE.open; do sleep 0.01; done
      echo s > s
";

/// Waits until `done`; says what it waited for in vain.
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("waited in vain for: {what}");
}

fn count_of(path: &Path, line: &str) -> usize {
    std::fs::read_to_string(path).unwrap_or_default().lines().filter(|other| *other == line).count()
}

/// Whoever started the tests may have had signals ignored, and `pv` would honour that.
const WITH_DEFAULT_SIGNALS: &str = "import os, signal, sys
for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(name, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])";

fn start(project: &Sandbox, directory: &Path) -> Child {
    project
        .command_in(directory, "python3")
        .args(["-c", WITH_DEFAULT_SIGNALS, env!("CARGO_BIN_EXE_pv"), "run"])
        .env("TRACE", project.beside("trace"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Starts a run and returns when its slow step is at work and its quick one is on record.
fn start_and_wait(project: &Sandbox) -> Child {
    let child = start(project, &project.path("."));
    let pids = project.beside("trace.pids");
    wait_until("the slow step", || std::fs::read_to_string(&pids).unwrap_or_default().lines().count() == 2);
    wait_until("the record of the quick step", || {
        let files = walkdir::WalkDir::new(project.path(".git/pv/records/step")).into_iter().flatten();
        // A name that begins with a dot is of a file that is not finished.
        files
            .filter(|entry| entry.file_type().is_file())
            .any(|file| !file.file_name().as_encoded_bytes().starts_with(b"."))
    });
    child
}

fn open_the_gate(project: &Sandbox) {
    std::fs::write(project.beside("trace.open"), "").unwrap();
}

/// Returns what is left in the cache directory of places of runs.
fn places(project: &Sandbox) -> Vec<String> {
    walkdir::WalkDir::new(project.beside("cache"))
        .into_iter()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("run-"))
        .map(|entry| entry.path().display().to_string())
        .collect()
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
}

fn finish_next_run(project: &Sandbox) {
    open_the_gate(project);
    let output = project.pv_command(&["--json", "run"]).env("TRACE", project.beside("trace")).output().unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &answer["verdict"]), (Some(0), &"done".into()), "{}", project.tell(&output));
    assert_eq!(answer["steps"][0]["verdict"], "reused", "what was finished before is not executed again");
    assert_eq!(answer["steps"][1]["verdict"], "ran");
    assert_eq!(count_of(&project.beside("trace"), "quick"), 1);
    assert_eq!((project.read("q"), project.read("s")), ("q\n".to_owned(), "s\n".to_owned()));
    assert_eq!(places(project), Vec::<String>::new());
}

#[test]
fn of_two_runs_at_once_one_executes_a_step_and_the_other_takes_the_result() {
    let project = Sandbox::with_pipeline(TRACED);
    side_by_side(&project, &project.path("."));
}

#[test]
fn two_runs_in_two_worktrees_share_a_step_too() {
    let project = Sandbox::with_pipeline(TRACED);
    let other = project.beside("other");
    project.git(&["worktree", "add", "--quiet", "-b", "other", &other.to_string_lossy()]);
    side_by_side(&project, &other);
    assert_eq!(std::fs::read_to_string(other.join("s")).unwrap(), "s\n");
}

fn side_by_side(project: &Sandbox, directory: &Path) {
    let trace = project.beside("trace");
    // No processes in the background here: the gate opens before long.
    let first = start(project, &project.path("."));
    wait_until("the slow step", || count_of(&trace, "slow") == 1);
    let mut second = start(project, directory);
    let mut told = BufReader::new(second.stderr.take().unwrap()).lines();
    let waits = told.any(|line| line.unwrap() == "slow: waits for another run that executes it");
    assert!(waits, "the second run says why nothing happens");
    open_the_gate(project);
    let rest: Vec<String> = told.map(Result::unwrap).collect();
    let (first, second) = (first.wait_with_output().unwrap(), second.wait_with_output().unwrap());
    assert!(first.status.success(), "{}", project.tell(&first));
    assert!(second.status.success(), "{} {rest:?}", project.tell(&second));
    assert!(rest.contains(&"slow: reused, another run has just executed it".to_owned()), "{rest:?}");
    assert_eq!((count_of(&trace, "quick"), count_of(&trace, "slow")), (1, 1));
    assert_eq!(project.read("s"), "s\n");
    assert_eq!(places(project), Vec::<String>::new());
}

#[test]
fn an_interrupt_ends_every_process_of_the_step_and_leaves_nothing_behind() {
    // The place of an interrupted run was kept as if a step had failed.
    stopped_by("-INT");
}

#[test]
fn a_request_to_terminate_does_the_same() {
    stopped_by("-TERM");
}

fn stopped_by(name: &str) {
    let project = Sandbox::with_pipeline(TRACED);
    let child = start_and_wait(&project);
    signal(&child, name);
    let output = child.wait_with_output().unwrap();
    insta::allow_duplicates! {
        insta::assert_snapshot!(project.tell(&output), @"
        Running pipeline version: 25c35059f91f
        Step: quick
        Step: slow
        Run [RUN]: interrupted
        --- stderr
        quick: runs, it has not run before
        quick: done in [TIME]
        slow: runs, it has not run before
        slow: it was interrupted
        --- exit 130
        ");
    }
    assert!(!is_anybody_given("TRACE", &project.beside("trace")), "a process of the step lives on");
    assert_eq!(places(&project), Vec::<String>::new());
    assert!(!project.exists("s"), "nothing half-done comes into the working tree");
    finish_next_run(&project);
}

#[test]
fn after_the_sudden_death_of_a_run_the_next_one_sweeps_up_and_goes_on() {
    let project = Sandbox::with_pipeline(TRACED);
    let child = start_and_wait(&project);
    signal(&child, "-KILL");
    let output = child.wait_with_output();
    open_the_gate(&project);
    wait_until("the end of all that it had started", || !is_anybody_given("TRACE", &project.beside("trace")));
    assert_eq!(output.unwrap().status.code(), None);
    assert_eq!(places(&project).len(), 1, "this test is about a place that was left");
    // And one that died even before it had its lock.
    let base = Path::new(&places(&project)[0]).parent().unwrap().to_owned();
    std::fs::create_dir_all(base.join("run-early/tree")).unwrap();
    assert!(!project.exists("s") && !project.exists("q"));
    finish_next_run(&project);
}

#[test]
fn twenty_sudden_deaths_leave_a_store_that_opens_and_verifies() {
    let project = Sandbox::with_pipeline(
        "steps:\n  a:\n    inputs: [in]\n    outputs: [x, d]\n    run: cp in x; mkdir d; for i in 1 2 3; do cp in d/$i; done\n  \
         b:\n    inputs: [x]\n    outputs: [y]\n    run: cat x x > y\n",
    );
    let start =
        |arguments: &[&str]| project.pv_command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let edit = |round: u32| {
        project.write("in", format!("{round}\n").repeat(2000));
        project.write("more/file", format!("{round}"));
    };
    let commands = [&["snapshot"][..], &["run", "--force"]];
    edit(100);
    // How long each takes on this machine, so that deaths are spread over all of its work.
    let whole = commands.map(|arguments| {
        let clock = std::time::Instant::now();
        assert!(start(arguments).wait().unwrap().success());
        clock.elapsed()
    });
    let mut survived = 0;
    for round in 0..20 {
        edit(round);
        for (arguments, whole) in commands.iter().zip(whole) {
            let mut child = start(arguments);
            std::thread::sleep(whole * (round * 37 % 100) / 100);
            let _ = child.kill();
            survived += usize::from(child.wait().unwrap().success());
        }
    }
    assert!(survived < 40, "no command was killed at all");
    let last = project.json(&["run", "--force"]);
    assert_eq!(last.0["verdict"], "done", "{}", last.0);
    assert_eq!(project.read("y"), "19\n".repeat(4000));
    assert_eq!(project.json(&["run", &last.0["run"].as_str().unwrap()[..16]]).0["verdict"], "reproduced");
    project.pv_ok(&["log"]);
    project.pv_ok(&["status"]);
    project.git(&["fsck", "--strict"]);
    let store = LocalStore::open(&project.path(".git/pv")).unwrap();
    let blobs = store.find(Kind::Blob, "").unwrap();
    assert!(blobs.len() > 5, "there was something to verify");
    blobs.iter().for_each(|blob| drop(store.get(Kind::Blob, *blob).unwrap()));
    assert_eq!(places(&project), Vec::<String>::new());
    let temporary = std::fs::read_dir(project.path(".git/pv/tmp")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(temporary.collect::<Vec<_>>(), ["lock"], "temporary files of the dead are swept");
}

/// Broke for everybody whose `pv` was started from outside of its container:
/// there its own group and session are 0, which the wrapper of the system
/// call takes for impossible.
#[test]
fn in_a_pid_namespace_without_the_leader_of_its_session_a_run_ends_as_anywhere() {
    let project = Sandbox::with_pipeline(
        "steps:\n  one:\n    outputs: [o]\n    run: |\n      (setsid sleep 300 > /dev/null 2>&1 &)\n      echo o > o\n",
    );
    let apart = ["--user", "--map-root-user", "--pid", "--fork", "--mount-proc"];
    let unshare = || {
        let mut command = project.command_in(&project.path("."), "unshare");
        command.args(apart);
        command
    };
    let is_possible = unshare().arg("true").status().is_ok_and(|end| end.success());
    if !is_possible {
        eprintln!("NOT TESTED: this machine lets nobody make a pid namespace");
        return;
    }
    let output = unshare().args([env!("CARGO_BIN_EXE_pv"), "run"]).output().unwrap();
    assert!(output.status.success(), "{}", project.tell(&output));
    assert_eq!(std::fs::read_to_string(project.path("o")).unwrap(), "o\n");
}
