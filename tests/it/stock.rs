//! The Python environments that were made: they are not changed by the steps that use them, and go when nobody needs them.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::cloud::servers;
use crate::fault::needs;
use crate::python::{Bench, wait_for};
use crate::stored::{LATER, files};

const FOO: &str = "  foo: {run: python foo.step.py out/foo, outputs: [out/foo]}\n";
/// Loads the module, says that it is there and waits for the gate.
const WAITING: &str = "  foo:\n    outputs: [out/foo]\n    env: [GATE]\n    run: python foo.step.py out/foo; touch $GATE.is-there; \
                       while [ ! -e $GATE ]; do sleep 0.05; done\n";

/// Returns what a collection says of what lies beside the store, a year later.
fn gc_later(bench: &Bench, arguments: &[&str]) -> Value {
    let output = bench.pv(&[&["--json", "gc"], arguments].concat()).env("PV_NOW", LATER).output().unwrap();
    assert!(output.status.success(), "{}", bench.project.tell(&output));
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["places"].clone()
}

/// Writes a lock, which is not committed.
fn lock(bench: &Bench, line: &str) {
    let text = format!("--no-index\n--find-links {}\n{line}", bench.wheels.display());
    bench.project.write("requirements.lock", text);
}

/// Begins a run whose step waits for the gate.
fn begin(bench: &Bench, gate: &Path) -> Child {
    let child = bench.pv(&["--quiet", "run"]).env("GATE", gate).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the step begins", || gate.with_extension("is-there").exists());
    child
}

/// Returns the locks of the environments that are listed, and the steps that run in them.
fn listed(bench: &Bench) -> Vec<(String, Vec<String>)> {
    let steps = |line: &Value| -> Vec<String> { serde_json::from_value(line["steps"].clone()).unwrap() };
    let listed = bench.json(&["env", "list"]);
    let lines = listed["pythons"].as_array().unwrap().iter();
    lines.map(|line| (line["lock"].as_str().unwrap().to_owned(), steps(line))).collect()
}

#[test]
fn an_environment_goes_when_no_kept_snapshot_needs_it_and_nobody_has_used_it_for_some_days() {
    let bench = Bench::new(FOO);
    let [one, two] = [("1.0", "one"), ("2.0", "two")].map(|(version, value)| bench.wheel("foo", version, value));
    lock(&bench, &one);
    assert_eq!(bench.run(), "foo ran");
    bench.lock(&[&two]);
    bench.json(&["snapshot"]);
    assert_eq!(bench.run(), "foo ran");
    let both = bench.made();
    assert_eq!(both.len(), 2);
    assert_eq!(bench.json(&["gc", "--keep-days", "0"])["places"]["python_environments"], 0, "both are too new");
    let told = gc_later(&bench, &["--dry-run"]);
    assert_eq!(told["python_environments"], 1, "{told}");
    assert!(told["bytes"].as_u64().unwrap() > 10_000, "{told}");
    assert_eq!(bench.made().len(), 2, "a dry run removes nothing");
    let output = bench.pv(&["gc"]).env("PV_NOW", LATER).output().unwrap();
    let told = bench.project.tell(&output);
    assert!(told.contains("gone for good beside the store:") && told.contains("1 Python environment"), "{told}");
    // The committed lock is that of a snapshot that is kept.
    assert_eq!(listed(&bench), [("requirements.lock".to_owned(), vec!["foo".to_owned()])]);
    assert_eq!(
        files(&bench.environments()).iter().filter(|path| path.extension().is_some_and(|e| e == "lock")).count(),
        1
    );
    assert_eq!(gc_later(&bench, &["--undo-days", "0"])["python_environments"], 0);
    lock(&bench, &one);
    assert_eq!(bench.run(), "foo reused");
    assert_eq!(bench.made().len(), 2, "it is made again");
    assert!(bench.project.read("out/foo").starts_with("one "));
}

#[test]
fn an_environment_that_a_run_or_a_shell_is_using_stays() {
    let bench = Bench::new(WAITING);
    lock(&bench, &bench.wheel("foo", "1.0", "one"));
    let gate = bench.project.beside("gate");
    let mut running = begin(&bench, &gate);
    let all = ["--keep-days", "0", "--undo-days", "0"];
    assert_eq!(gc_later(&bench, &all)["python_environments"], 0);
    let environment = bench.json(&["env", "list"])["pythons"][0]["environment"].as_str().unwrap().to_owned();
    let told = bench.told(&["env", "remove", "--force", &environment[..12]], 2);
    assert!(told.contains("error: the Python environment of `requirements.lock` is in use\n"), "{told}");
    fs::write(&gate, "").unwrap();
    assert!(running.wait().unwrap().success());
    let definition = bench.project.read(".pipeline/pipeline.yaml");
    bench.project.write(".pipeline/pipeline.yaml", definition.replace("done", "done; exit 1"));
    assert!(!bench.pv(&["run"]).env("GATE", &gate).output().unwrap().status.success());
    let second = bench.project.beside("second");
    let there = second.with_extension("is-there");
    let wait = format!(
        "touch {}; while [ ! -e {} ]; do sleep 0.05; done; python -c 'import foo'",
        there.display(),
        second.display()
    );
    let mut shell = bench.pv(&["shell", "foo", "--", "sh", "-c", &wait]).spawn().unwrap();
    wait_for("the shell begins", || there.exists());
    assert_eq!(gc_later(&bench, &all)["python_environments"], 0);
    fs::write(second, "").unwrap();
    assert!(shell.wait().unwrap().success());
    assert_eq!(gc_later(&bench, &all)["python_environments"], 1);
    assert_eq!(bench.made(), Vec::<PathBuf>::new());
}

#[test]
fn a_collection_that_is_killed_leaves_an_environment_whole_or_not_at_all() {
    let test = "a_collection_that_is_killed_leaves_an_environment_whole_or_not_at_all";
    let Some(strace) = needs(test, "strace", servers::program("strace")) else { return };
    let bench = Bench::new(FOO);
    lock(&bench, &bench.wheel("foo", "1.0", "one"));
    bench.run();
    let many = bench.made()[0].join("1/many");
    fs::create_dir(&many).unwrap();
    (0..500).for_each(|number| drop(fs::File::create(many.join(number.to_string())).unwrap()));
    let mut traced = bench.project.command_in(&bench.project.path(""), strace.to_str().unwrap());
    traced.env("PATH", bench.path()).env("PV_NOW", LATER);
    traced.args([
        "-f",
        "-o",
        "/dev/null",
        "-e",
        "trace=unlinkat,unlink",
        "-e",
        "inject=unlinkat,unlink:signal=KILL:when=300",
    ]);
    let gc = traced.args([env!("CARGO_BIN_EXE_pv"), "gc", "--keep-days", "0", "--undo-days", "0"]).output().unwrap();
    assert_eq!(gc.status.signal(), Some(9), "it was killed: {}", bench.project.tell(&gc));
    let aside = || -> Vec<PathBuf> {
        let entries = fs::read_dir(bench.environments()).unwrap().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.join("it").exists()).collect()
    };
    assert_eq!(aside().len(), 1, "in the middle");
    assert_eq!(listed(&bench), []);
    assert_eq!(bench.json(&["run", "--again"])["steps"][0]["verdict"], "ran");
    assert!(bench.project.read("out/foo").starts_with("one "));
    bench.json(&["gc"]);
    assert_eq!(aside(), Vec::<PathBuf>::new(), "what was left goes the next time");
    assert_eq!(bench.made().len(), 1);
}

#[test]
fn an_environment_can_be_removed_unless_the_definition_names_it() {
    let bench = Bench::new(FOO);
    let [one, two] = [("1.0", "one"), ("2.0", "two")].map(|(version, value)| bench.wheel("foo", version, value));
    lock(&bench, &one);
    bench.run();
    let told = bench.told(&["env", "remove", "requirements.lock"], 2);
    assert!(told.contains("error: `requirements.lock` is named by the definition, for foo\n"), "{told}");
    lock(&bench, &two);
    bench.run();
    let told = bench.told(&["env", "remove", "requirements.lock"], 2);
    assert!(told.contains("error: `requirements.lock` may be `") && told.contains("` or `"), "{told}");
    let lines = bench.json(&["env", "list"])["pythons"].clone();
    let unused = lines.as_array().unwrap().iter().find(|line| line["steps"] == json!([])).unwrap();
    let answer = bench.json(&["env", "remove", &unused["environment"].as_str().unwrap()[..8]]);
    assert_eq!((&answer["environment"], &answer["lock"]), (&unused["environment"], &json!("requirements.lock")));
    assert!(answer["freed_bytes"].as_u64() >= unused["bytes"].as_u64(), "{answer} {unused}");
    assert_eq!(listed(&bench), [("requirements.lock".to_owned(), vec!["foo".to_owned()])]);
    let told = bench.told(&["env", "remove", "--force", "requirements.lock"], 0);
    assert!(told.starts_with("removed: Python environment of requirements.lock  "), "{told}");
    assert_eq!(listed(&bench), []);
    let told = bench.told(&["env", "remove", "requirements.lock"], 2);
    assert!(told.contains("error: no environment here is called `requirements.lock`\nhint: `pv env list`"), "{told}");
    assert_eq!(bench.json(&["run", "--again"])["steps"][0]["verdict"], "ran");
}

#[test]
fn a_step_cannot_change_what_other_steps_find_in_their_environment() {
    let bench = Bench::new(
        "  install: {run: pip --python $VIRTUAL_ENV install -q --no-index --find-links WHEELS bar, outputs: []}\n  \
         write: {run: 'python -c \"import os, sys; open(os.path.realpath(sys.prefix) + \\\"/new\\\", \\\"w\\\")\"', outputs: [], inputs: []}\n  \
         foo: {inputs: [foo.step.py], run: python foo.step.py out/foo; python -c 'import bar' || echo none >> out/foo, outputs: [out/foo]}\n",
    );
    let definition = bench.project.read(".pipeline/pipeline.yaml").replace("WHEELS", bench.wheels.to_str().unwrap());
    bench.project.write(".pipeline/pipeline.yaml", definition);
    bench.wheel("bar", "1.0", "one");
    bench.lock(&[&bench.wheel("foo", "1.0", "one")]);
    let told = bench.told(&["run", "--keep-going"], 3);
    if told.contains("not isolated") {
        eprintln!("NOT TESTED: a Python environment that cannot be written to: steps are not isolated here");
        assert!(std::env::var_os("CI").is_none(), "CI can isolate");
        return;
    }
    for said in ["install | ERROR: Could not install packages due to an OSError: ", "write | OSError: "] {
        assert!(told.contains(&format!("{said}[Errno 30] Read-only file system")), "{told}");
    }
    bench.told(&["run", "foo"], 0);
    assert!(bench.project.read("out/foo").starts_with("one ") && bench.project.read("out/foo").ends_with("none\n"));
    let environment = bench.made()[0].join("1");
    assert!(!environment.join("new").exists());
    let told = bench.told(&["shell", "write", "--", "sh", "-c", "touch $VIRTUAL_ENV/new || echo refused"], 0);
    assert!(told.contains("refused") && !environment.join("new").exists(), "{told}");
}
