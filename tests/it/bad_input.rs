//! Bad definitions and bad usage: always a message that helps, never a panic, nothing written.

use std::path::Path;

use crate::sandbox::Sandbox;

#[test]
fn every_bad_definition_is_refused_at_a_place_in_the_file() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/bad");
    let mut names: Vec<_> = std::fs::read_dir(fixtures).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert!(names.len() >= 30, "only {} fixtures", names.len());
    let project = Sandbox::new();
    // What some of them refer to.
    project.write("params.yaml", "train: {rate: 0.1}\n");
    project.write("params.toml", "");
    project.write("data/raw/orders.csv", "id\n1\n");
    let mut without_place = Vec::new();
    for file in &names {
        let name = file.file_name().unwrap().to_string_lossy();
        project.write(".pipeline/pipeline.yaml", std::fs::read(file).unwrap());
        let output = project.pv_command(&["status"]).output().unwrap();
        let told = project.tell(&output);
        assert_eq!(output.status.code(), Some(2), "{name}: {told}");
        assert!(output.stdout.is_empty(), "{name}: {told}");
        assert!(told.contains("error: ") && told.contains(".pipeline/pipeline.yaml"), "{name}: {told}");
        assert!(!told.contains("panicked"), "{name}: {told}");
        if !points_into_the_file(&told) {
            without_place.push(name.into_owned());
        }
    }
    // Where there is nothing, there is no line to point at.
    assert_eq!(without_place, ["001-empty.yaml", "002-only-comments.yaml"]);
    assert!(!project.path(".git/pv").exists(), "a refusal leaves no trace");
}

/// Returns whether some line names `.pipeline/pipeline.yaml:LINE:COLUMN`.
fn points_into_the_file(told: &str) -> bool {
    told.split(".yaml:").skip(1).any(|rest| {
        let number = |text: Option<&str>| text.is_some_and(|text| !text.is_empty() && text.parse::<u32>().is_ok());
        let mut parts = rest.split([':', ' ', '\n', '\r']);
        number(parts.next()) && number(parts.next())
    })
}

#[test]
fn a_bad_definition_is_shown_with_the_place_underlined_and_as_json() {
    let project = Sandbox::with_pipeline("steps:\n  a:\n    run: echo a\n    ouputs: [a.txt]\n");
    insta::assert_snapshot!(project.pv(&["status"]), @"
--- stderr
error: unknown key `ouputs` in step `a`
 --> .pipeline/pipeline.yaml:4:5
  |
4 |     ouputs: [a.txt]
  |     ^^^^^^ no step has such a key
  |
help: did you mean `outputs`?
--- exit 2
");
    let (error, code) = project.json(&["run"]);
    assert_eq!((code, &error["exit"]), (2, &serde_json::json!(2)), "{error}");
    assert!(error["error"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
}

#[test]
fn every_verb_refuses_a_bad_definition_and_changes_nothing() {
    let project = Sandbox::with_pipeline("steps: {a: {run: [], inputs: ['..']}}\n");
    let before = project.git(&["status", "--porcelain", "--ignored"]);
    for verb in [
        &["status"][..],
        &["run"],
        &["run", "HEAD"],
        &["snapshot", "--tag", "v1"],
        &["diff", "HEAD"],
        &["show", "HEAD"],
        &["checkout", "HEAD"],
    ] {
        let told = project.pv(verb);
        assert!(told.contains("error") && told.ends_with("--- exit 2\n"), "pv {verb:?}: {told}");
    }
    assert_eq!(project.git(&["status", "--porcelain", "--ignored"]), before);
    assert_eq!(project.git(&["tag"]), "");
}

#[test]
fn outside_of_a_repository_the_way_in_is_shown() {
    let project = Sandbox::new();
    let outside = project.beside("outside");
    std::fs::create_dir(&outside).unwrap();
    let bare = project.beside("bare.git");
    project.git(&["init", "--quiet", "--bare", &bare.to_string_lossy()]);
    insta::assert_snapshot!(project.pv_in(&outside, &["status"]) + &project.pv_in(&bare, &["status"]) + &project.pv(&["status"]) + &project.pv(&["--pipeline", "train", "run"]), @"
--- stderr
error: `[ROOT]/outside` is in no git repository
hint: `git init` makes one
--- exit 2
--- stderr
error: git repository `[ROOT]/bare.git` has no working tree
hint: work in a checkout: `git worktree add`
--- exit 2
--- stderr
error: the working tree has no pipeline `.pipeline/pipeline.yaml`
hint: `pv init` makes a first pipeline; `--pipeline NAME` chooses another
--- exit 2
--- stderr
error: the working tree has no pipeline `.pipeline/train.yaml`
hint: `pv init` makes a first pipeline; `--pipeline NAME` chooses another
--- exit 2
");
}

#[test]
fn a_directory_that_is_not_there_and_a_file_in_its_place_are_told() {
    let project = Sandbox::with_pipeline("steps: {a: {run: echo}}\n");
    insta::assert_snapshot!(project.pv(&["-C", "no/such", "status"]) + &project.pv(&["-C", ".pipeline/pipeline.yaml", "status"]), @"
--- stderr
error: directory `[ROOT]/project/no/such` does not exist
  because: No such file or directory (os error 2)
--- exit 2
--- stderr
error: `[ROOT]/project/.pipeline/pipeline.yaml` is not a directory
--- exit 2
");
}

#[test]
fn a_pipeline_is_a_name_and_not_a_path() {
    let project = Sandbox::with_pipeline("steps: {a: {run: echo}}\n");
    for name in ["../x", "a/b", "", ".hidden", "/etc/passwd"] {
        for verb in [&["status"][..], &["init"], &["run"], &["log"]] {
            let told = project.pv(&[&["--pipeline", name], verb].concat());
            assert_eq!(
                told,
                format!(
                    "--- stderr\nerror: `{name}` is no name for a pipeline\nhint: the name `train` stands for the file `.pipeline/train.yaml`\n--- exit 2\n"
                )
            );
        }
    }
    insta::assert_snapshot!(project.pv(&["--pipeline", "pipelin", "status"]), @"
--- stderr
error: the working tree has no pipeline `.pipeline/pipelin.yaml`
hint: `pv init` makes a first pipeline; `--pipeline NAME` chooses another
--- exit 2
");
}

#[test]
fn a_slip_in_a_revision_gets_a_guess_and_nonsense_does_not() {
    let project = Sandbox::with_pipeline("steps: {a: {run: echo}}\n");
    for name in ["v1.0", "v1.1", "A"] {
        project.pv_ok(&["snapshot", "--tag", name]);
    }
    let told = ["v1.2", "V1.0", "b", "", "HEAD~99", "v1.0..v1.1", "-x", "deadbeef", "HEAD:.pipeline"]
        .map(|revision| format!("$ pv run {revision}\n{}", project.pv(&["run", "--", revision])));
    insta::assert_snapshot!(told.concat(), @"
$ pv run v1.2
--- stderr
error: nothing is called `v1.2`
hint: did you mean `v1.1` or `v1.0`?
--- exit 2
$ pv run V1.0
--- stderr
error: nothing is called `V1.0`
hint: did you mean `v1.0`?
--- exit 2
$ pv run b
--- stderr
error: nothing is called `b`
hint: a revision is a version, a Git revision, or the first digits of a snapshot or run; `pv log` lists them
--- exit 2
$ pv run 
--- stderr
error: nothing is called ``
hint: a revision is a version, a Git revision, or the first digits of a snapshot or run; `pv log` lists them
--- exit 2
$ pv run HEAD~99
--- stderr
error: nothing is called `HEAD~99`
hint: a revision is a version, a Git revision, or the first digits of a snapshot or run; `pv log` lists them
--- exit 2
$ pv run v1.0..v1.1
--- stderr
error: revision `v1.0..v1.1` does not name one commit
hint: name one commit, not a range, a file or a directory
--- exit 2
$ pv run -x
--- stderr
error: nothing is called `-x`
hint: a revision is a version, a Git revision, or the first digits of a snapshot or run; `pv log` lists them
--- exit 2
$ pv run deadbeef
--- stderr
error: nothing is called `deadbeef`
hint: a revision is a version, a Git revision, or the first digits of a snapshot or run; `pv log` lists them
--- exit 2
$ pv run HEAD:.pipeline
--- stderr
error: revision `HEAD:.pipeline` does not name one commit
hint: name one commit, not a range, a file or a directory
--- exit 2
");
}

#[test]
fn wrong_arguments_end_with_2_and_say_what_is_expected() {
    let project = Sandbox::with_pipeline("steps: {a: {run: echo}}\n");
    let cases: [&[&str]; 14] = [
        &["frobnicate"],
        &["snapshto"],
        &["status", "--frob"],
        &["status", "extra"],
        &["diff"],
        &["checkout"],
        &["show"],
        &["run", "--jobs", "0"],
        &["run", "--reuse"],
        &["run", "--restore"],
        &["diff", "HEAD", "--stat", "--patch"],
        &["log", "-n", "0"],
        &["log", "-n", "5", "--all"],
        &["completions", "nosh"],
    ];
    let told: Vec<_> = cases
        .iter()
        .map(|arguments| {
            let told = project.pv(arguments);
            assert!(told.starts_with("--- stderr\nerror: ") && told.ends_with("--- exit 2\n"), "{arguments:?}: {told}");
            let first = told.lines().nth(1).unwrap();
            format!("pv {}\n    {first}\n", arguments.join(" "))
        })
        .collect();
    insta::assert_snapshot!(told.concat(), @"
pv frobnicate
    error: unrecognized subcommand 'frobnicate'
pv snapshto
    error: unrecognized subcommand 'snapshto'
pv status --frob
    error: unexpected argument '--frob' found
pv status extra
    error: unexpected argument 'extra' found
pv diff
    error: the following required arguments were not provided:
pv checkout
    error: the following required arguments were not provided:
pv show
    error: the following required arguments were not provided:
pv run --jobs 0
    error: invalid value '0' for '--jobs <N>': 0 is not in 1..=65535
pv run --reuse
    error: `--reuse` is for a revision, and none is named
pv run --restore
    error: `--restore` is for a revision, and none is named
pv diff HEAD --stat --patch
    error: the argument '--stat' cannot be used with '--patch'
pv log -n 0
    error: invalid value '0' for '--limit <N>': 0 is not in 1..=4294967295
pv log -n 5 --all
    error: the argument '--limit <N>' cannot be used with '--all'
pv completions nosh
    error: invalid value 'nosh' for '<SHELL>'
");
}

#[test]
fn a_version_needs_a_name_that_git_takes_too() {
    let project = Sandbox::with_pipeline("steps: {a: {run: echo}}\n");
    for name in ["a b", "-x", "", "a..b", "a~1", "x.lock", "/a", "a/", "a//b", ".a", "a^", "a:b", "a\nb", "@{"] {
        let told = project.pv(&["snapshot", &format!("--tag={name}")]);
        assert!(told.contains("is no name for a version") && told.ends_with("--- exit 2\n"), "{name:?}: {told}");
    }
    assert_eq!(project.git(&["tag"]), "");
    assert!(!project.path(".git/pv/records").exists(), "nothing is recorded of what was refused");
}

#[test]
fn a_name_that_is_taken_stays_where_it_is() {
    let project = Sandbox::with_pipeline("steps: {a: {run: echo a}}\n");
    project.pv_ok(&["snapshot", "--tag", "v1"]);
    let tag = project.git(&["rev-parse", "v1"]);
    project.write(".pipeline/pipeline.yaml", "steps: {a: {run: echo b}}\n");
    project.commit("second");
    insta::assert_snapshot!(project.pv(&["snapshot", "--tag", "v1"]), @"
--- stderr
error: version `v1` already names snapshot e022da6f496c
hint: choose another name, or move this one with `--force`
--- exit 2
");
    assert_eq!(project.git(&["rev-parse", "v1"]), tag);
}
