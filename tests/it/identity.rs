//! Ids never change: golden ones, and an independent program that finds the same.

use pv::object::Kind;
use pv::store::{LocalStore, Store};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::sandbox::Sandbox;

/// What snapshot `revision` is by the script, which knows only docs/format.md and the directory.
fn by_the_script(project: &Sandbox, revision: &str) -> String {
    let has_package = Command::new("python3").args(["-c", "import blake3"]).output().unwrap();
    assert!(
        has_package.status.success(),
        "python3 on PATH has no module `blake3`, which tests/snapshot_id.py needs: run `make test`, which installs it"
    );
    let (shown, code) = project.json(&["show", revision]);
    assert_eq!(code, 0, "{shown}");
    let definition = &shown["definition"];
    let given = |name: &str| {
        let path = project.beside(&format!("{name}.json"));
        std::fs::write(&path, shown[name].to_string()).unwrap();
        path
    };
    let mut command = Command::new("python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshot_id.py")).arg(project.path(""));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    for name in ["definition", "params", "environment"] {
        command.arg(format!("--{name}")).arg(given(name));
    }
    command.arg("--seed").arg(shown["seed"].as_u64().map_or_else(|| "none".to_owned(), |seed| seed.to_string()));
    let texts = |value: &serde_json::Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    command.arg("--exclude");
    for step in definition["steps"].as_array().unwrap() {
        command.args(texts(&step["outputs"])).args(texts(&step["metrics"]));
    }
    command.arg("--data").args(texts(&definition["data"]));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    for line in text.lines() {
        // Where they differ, the first part that does is told.
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["tree", id] => assert_eq!(shown["tree"], id, "the tree"),
            ["data", path, id] => assert_eq!(shown["data"][path]["digest"], id, "data root {path}"),
            ["snapshot", id] => return id.to_owned(),
            _ => {}
        }
    }
    panic!("the script names no snapshot: {text}");
}

fn taken(project: &Sandbox) -> String {
    project.json(&["snapshot"]).0["snapshot"].as_str().unwrap().to_owned()
}

#[test]
fn the_lesson_has_its_golden_id_and_the_script_finds_it_too() {
    let project = Sandbox::with_fixture("lesson");
    let id = taken(&project);
    assert_eq!(id, "21dd9fe9c6ad180bdb214f2e2fcc9c362e924cf1814e8d4c80be7831f0d7c76a");
    assert_eq!(by_the_script(&project, &id), id);
    project.pv_ok(&["run"]);
    assert_eq!(taken(&project), id, "its outputs change nothing");
}

#[test]
fn a_project_with_everything_has_its_golden_id_and_the_script_finds_it_too() {
    let project = Sandbox::new();
    project.write(
        ".pipeline/pipeline.yaml",
        "\
data: [raw, model.bin]
steps:
  all:
    run: [cat, raw/x]
    inputs: [raw/x]
    outputs: [out, deep/out.txt]
    metrics: [metrics.json]
    env: {A: \"1\", B: text}
",
    );
    project.write(".gitignore", "/raw/\n/model.bin\n");
    project.write("raw/x", "x\n");
    project.write("raw/run", "#!/bin/sh\n");
    std::fs::set_permissions(project.path("raw/run"), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::create_dir_all(project.path("raw/empty/deeper")).unwrap();
    symlink("x", project.path("raw/link")).unwrap();
    project.write("model.bin", [0, 1, 2, 255]);
    std::fs::create_dir(project.path("names")).unwrap();
    for name in [&b"latin-\xe9"[..], b"two\nlines", b"-dash", b" blank ", "größer".as_bytes(), b"a\\b"] {
        std::fs::write(project.path("names").join(OsStr::from_bytes(name)), name).unwrap();
    }
    project.write("empty.txt", "");
    project.write("tool.sh", "#!/bin/sh\n");
    std::fs::set_permissions(project.path("tool.sh"), PermissionsExt::from_mode(0o755)).unwrap();
    symlink("nowhere", project.path("dangling")).unwrap();
    symlink("/etc", project.path("absolute")).unwrap();
    project.write("out/ignored-as-an-output", "o");
    project.write("deep/out.txt", "o");
    let id = taken(&project);
    assert_eq!(id, "7fb30f1fb8e7d8eaa8e55f7ca2346d84bddd6ca3a366523c048a3da0418e03ac");
    assert_eq!(by_the_script(&project, &id), id);
}

#[test]
fn a_directory_of_5000_files_is_split_and_the_script_finds_the_same_id() {
    let project = Sandbox::new();
    project
        .write(".pipeline/pipeline.yaml", "seed: 7\nparams: {a: 1.5, b: [x, true, null]}\nsteps: {a: {run: 'true'}}\n");
    for number in 0..5000 {
        project.write(&format!("many/{number}.txt"), number.to_string());
    }
    let id = taken(&project);
    assert_eq!(id, "9a03f8b387163214753ea4a6bee35780720db1f9b3992c5059a57fae1ec34716");
    assert_eq!(by_the_script(&project, &id), id);
    // It is really more than one node.
    let store = LocalStore::open(&project.path(".git/pv")).unwrap();
    let nodes = store.find(Kind::Tree, "").unwrap().len();
    assert!(nodes > 3, "root, .pipeline and the parts of `many`: {nodes}");
}

#[test]
fn what_has_no_meaning_is_no_part_of_the_id() {
    let project = Sandbox::with_fixture("lesson");
    let id = taken(&project);
    let other = Sandbox::with_fixture("lesson");
    other.git(&[
        "commit",
        "--quiet",
        "--amend",
        "--message=other",
        "--author=B <b@example.org>",
        "--date=2001-01-01T00:00:00Z",
    ]);
    let file = std::fs::File::options().write(true).open(other.path("params.yaml")).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    std::fs::set_permissions(other.path("params.yaml"), PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::create_dir(other.path("empty")).unwrap();
    let mut command = other.pv_command(&["--json", "snapshot", "--message", "words"]);
    let output = command.env("PV_NOW", "2030-01-01T00:00:00Z").env("GIT_COMMITTER_NAME", "B").output().unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["snapshot"], id.as_str());
}
