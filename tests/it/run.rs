//! `pv run`: what a step is given, what it leaves, what is reused, what is said.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::sandbox::Sandbox;

/// Runs `pv` at another minute, where the order of runs matters.
fn output_at(project: &Sandbox, minute: u32, arguments: &[&str]) -> Output {
    project.pv_command(arguments).env("PV_NOW", format!("2026-01-31T10:{minute:02}:00Z")).output().unwrap()
}

fn pv_at(project: &Sandbox, minute: u32, arguments: &[&str]) -> String {
    project.tell(&output_at(project, minute, arguments))
}

fn json_at(project: &Sandbox, minute: u32, arguments: &[&str]) -> (Value, i32) {
    let output = output_at(project, minute, &[&["--json", "--quiet"], arguments].concat());
    let value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", project.tell(&output)));
    (value, output.status.code().unwrap())
}

/// Returns `step verdict` of each step, separated by commas.
fn verdicts(answer: &Value) -> String {
    let text = |step: &Value| format!("{} {}", step["step"].as_str().unwrap(), step["verdict"].as_str().unwrap());
    answer["steps"].as_array().unwrap().iter().map(text).collect::<Vec<_>>().join(", ")
}

fn reason(answer: &Value, index: usize) -> String {
    answer["steps"][index]["reason"].as_str().unwrap().to_owned()
}

/// Returns every file below a directory with its content.
pub(crate) fn everything_below(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    walkdir::WalkDir::new(directory)
        .into_iter()
        .map(|entry| {
            let entry = entry.unwrap();
            let content = if entry.file_type().is_file() { std::fs::read(entry.path()).unwrap() } else { Vec::new() };
            (entry.path().display().to_string(), content)
        })
        .collect()
}

fn variables(text: &str) -> BTreeMap<String, String> {
    text.lines().filter_map(|line| line.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

#[test]
fn a_step_gets_exactly_the_variables_that_are_promised() {
    let project = Sandbox::with_pipeline(
        "version: v7\nseed: 3\nsteps:\n  look:\n    inputs: []\n    outputs: [env.txt]\n    \
         env: [FIXED=a b, PASSED, ABSENT, PV_VERSION]\n    \
         run: env | sort > env.txt; test -d \"$HOME\" && touch \"$HOME/x\" && touch \"$TMPDIR/x\"; umask >> env.txt\n",
    );
    let output = project
        .pv_command(&["run"])
        .env("PASSED", "yes, with = and spaces")
        .env("SECRET", "no")
        .env("LANG", "de_DE.UTF-8")
        .env("PYTHONPATH", "/somewhere")
        .env("VIRTUAL_ENV", "/venv")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", project.tell(&output));
    let text = project.read("env.txt");
    assert!(text.ends_with("\n0022\n"), "the umask is fixed: {text}");
    let mut given = variables(&text);
    let home = given.remove("HOME").unwrap();
    let temporary = given.remove("TMPDIR").unwrap();
    let place = given.remove("PWD").unwrap();
    assert_eq!([&*home, &*temporary, &*place], ["/pv/home", "/pv/tmp", "/pv/work"]);
    assert!(!Path::new("/pv/work").exists(), "nothing of it is there for others");
    assert_eq!(given.remove("PATH").unwrap(), std::env::var("PATH").unwrap());
    for shells_own in ["SHLVL", "_", "OLDPWD"] {
        given.remove(shells_own);
    }
    let lines: Vec<String> = given.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    insta::assert_snapshot!(lines.join("\n"), @"
    CUBLAS_WORKSPACE_CONFIG=:4096:8
    FIXED=a b
    GIT_CEILING_DIRECTORIES=/
    LANG=C.UTF-8
    LC_ALL=C.UTF-8
    MKL_NUM_THREADS=1
    NUMEXPR_NUM_THREADS=1
    OMP_NUM_THREADS=1
    OPENBLAS_NUM_THREADS=1
    PASSED=yes, with = and spaces
    PV_SEED=983085955
    PV_STEP=look
    PV_VERSION=v7
    PYTHONDONTWRITEBYTECODE=1
    PYTHONHASHSEED=983085955
    PYTHONPATH=/pv/python
    PYTHONUNBUFFERED=1
    TF_CUDNN_DETERMINISTIC=1
    TF_DETERMINISTIC_OPS=1
    TZ=UTC
    VIRTUAL_ENV=/venv
    XLA_FLAGS=--xla_gpu_deterministic_ops=true
    ");
}

#[test]
fn without_a_seed_there_is_no_seed_variable_but_a_fixed_hash_seed_and_no_version_unasked() {
    let project =
        Sandbox::with_pipeline("version: v7\nsteps:\n  look:\n    outputs: [env.txt]\n    run: env > env.txt\n");
    project.pv_ok(&["run"]);
    let given = variables(&project.read("env.txt"));
    assert!(!given.contains_key("PV_SEED"));
    assert!(!given.contains_key("PV_VERSION"));
    assert_eq!(given["PYTHONHASHSEED"], "0");
}

#[test]
fn a_step_that_asks_for_the_version_runs_again_under_another_and_status_agrees() {
    // `PV_VERSION` in `env` was refused, although it is the documented way to get it.
    let project = Sandbox::with_pipeline(
        "version: v1\nsteps:\n  say:\n    inputs: []\n    outputs: [v.txt]\n    env: [PV_VERSION]\n    run: echo $PV_VERSION > v.txt\n",
    );
    project.pv_ok(&["run"]);
    assert_eq!(project.read("v.txt"), "v1\n");
    assert_eq!(project.json(&["status"]).0["steps"][0]["verdict"], "current");
    project.pv_ok(&["snapshot", "--tag", "v2"]);
    assert_eq!(project.json(&["status"]).0["steps"][0]["reason"], "`PV_VERSION` v1 -> v2");
    project.pv_ok(&["run"]);
    assert_eq!(project.read("v.txt"), "v2\n");
}

#[test]
fn each_step_has_a_home_of_its_own() {
    // What one step leaves in its home must not reach the next: it would depend on what was reused.
    let project = Sandbox::with_pipeline(
        "steps:\n  one:\n    inputs: []\n    outputs: [a]\n    run: echo x > $HOME/left && echo 1 > a\n  \
         two:\n    inputs: [a]\n    outputs: [b]\n    run: ls -A $HOME $TMPDIR > b\n",
    );
    project.pv_ok(&["run"]);
    assert!(!project.read("b").contains("left"), "{}", project.read("b"));
}

#[test]
fn whatever_a_step_does_to_its_home_the_next_one_has_an_empty_one_of_its_own() {
    for deed in [
        "true",
        "chmod 500 $HOME $TMPDIR",
        "chmod 777 $HOME $TMPDIR",
        "rmdir $HOME $TMPDIR",
        "rmdir $HOME && ln -s / $HOME",
        "rmdir $TMPDIR && echo x > $TMPDIR",
        "mkdir -p $TMPDIR/deep/er && touch $TMPDIR/deep/er/x $HOME/.hidden",
    ] {
        let look = "for d in \"$HOME\" \"$TMPDIR\"; do basename \"$d\"; ls -Al \"$d\"; stat -c '%a %F' \"$d\"; done";
        let project = Sandbox::with_pipeline(&format!(
            "steps:\n  one: {{inputs: [], outputs: [a], run: '{deed} && echo {{deed}} > a'}}\n  \
             two:\n    inputs: [a]\n    outputs: [b]\n    run: |\n      {look} > b\n"
        ));
        project.pv_ok(&["run", "--jobs", "1"]);
        let mode = "755 directory";
        assert_eq!(project.read("b"), format!("home\ntotal 0\n{mode}\ntmp\ntotal 0\n{mode}\n"), "{deed}");
    }
}

#[test]
fn the_list_form_has_no_shell_and_workdir_is_where_it_starts() {
    let project = Sandbox::new();
    project.write("sub/dir/show.py", "import os, sys\nopen('out.txt', 'w').write(repr(sys.argv[1:]) + os.getcwd())\n");
    project.write(
        ".pipeline/pipeline.yaml",
        "steps:\n  show:\n    workdir: sub/dir\n    inputs: []\n    outputs: [sub/dir/out.txt]\n    \
         run: [python3, show.py, \"$HOME\", \"*\", \"a b\", \"; touch x\"]\n",
    );
    project.commit("first");
    project.pv_ok(&["run"]);
    let text = project.read("sub/dir/out.txt");
    assert!(text.starts_with("['$HOME', '*', 'a b', '; touch x']"), "{text}");
    assert!(text.ends_with("/pv/work/sub/dir"), "{text}");
    // The script is named relative to the workdir, and counts although it is not declared.
    project.write("sub/dir/show.py", "open('out.txt', 'w').write('other')\n");
    assert_eq!(reason(&project.json(&["run"]).0, 0), "`sub/dir/show.py` changed");
    assert_eq!(project.read("sub/dir/out.txt"), "other");
}

#[test]
fn seeds_differ_by_step_are_the_same_in_every_run_and_an_own_seed_wins() {
    let project = Sandbox::with_pipeline(
        "seed: 42\nsteps:\n  a:\n    outputs: [a.txt]\n    run: echo $PV_SEED $PYTHONHASHSEED > a.txt\n  \
         b:\n    outputs: [b.txt]\n    run: echo $PV_SEED $PYTHONHASHSEED > b.txt\n  \
         c:\n    seed: 4294967301\n    outputs: [c.txt]\n    run: echo $PV_SEED $PYTHONHASHSEED > c.txt\n",
    );
    project.pv_ok(&["run"]);
    insta::assert_snapshot!(project.read("a.txt") + &project.read("b.txt") + &project.read("c.txt"), @"
    142295079 142295079
    221918225 221918225
    4294967301 5
    ");
    let (again, code) = project.json(&["run", "HEAD"]);
    assert_eq!((again["verdict"].as_str(), code), (Some("reproduced"), 0));
}

const MEET: &str = "steps:
  a:
    inputs: []
    outputs: [a]
    env: [MEETING]
    run: 'touch $MEETING/a; for i in $(seq 500); do test -e $MEETING/b && echo met > a && exit 0; sleep 0.01; done; exit 1'
  b:
    inputs: []
    outputs: [b]
    env: [MEETING]
    run: 'touch $MEETING/b; for i in $(seq 500); do test -e $MEETING/a && echo met > b && exit 0; sleep 0.01; done; exit 1'
";

#[test]
fn two_steps_that_need_nothing_of_each_other_run_at_once() {
    let project = Sandbox::with_pipeline(MEET);
    let meeting = project.beside("meeting");
    std::fs::create_dir(&meeting).unwrap();
    let output = project.pv_command(&["run", "--jobs", "2"]).env("MEETING", &meeting).output().unwrap();
    assert!(output.status.success(), "{}", project.tell(&output));
    assert_eq!((project.read("a"), project.read("b")), ("met\n".to_owned(), "met\n".to_owned()));
}

#[test]
fn with_one_job_never_two_steps_run_at_once() {
    let step = |name: &str| {
        format!(
            "  {name}:\n    inputs: []\n    outputs: [{name}]\n    env: [MEETING]\n    \
             run: mkdir $MEETING/busy && sleep 0.05 && rmdir $MEETING/busy && touch {name}\n"
        )
    };
    let project = Sandbox::with_pipeline(&format!("steps:\n{}{}{}", step("a"), step("b"), step("c")));
    let meeting = project.beside("meeting");
    std::fs::create_dir(&meeting).unwrap();
    let output = project.pv_command(&["run", "--jobs", "1"]).env("MEETING", &meeting).output().unwrap();
    assert!(output.status.success(), "{}", project.tell(&output));
}

#[test]
fn the_lines_of_the_steps_come_in_an_order_that_respects_what_they_need() {
    let project = Sandbox::with_pipeline(
        "steps:\n  last:\n    description: Put together\n    inputs: [b, c]\n    outputs: [d]\n    run: cat b c > d\n  \
         left:\n    inputs: [a]\n    outputs: [b]\n    run: cp a b\n  right:\n    inputs: [a]\n    outputs: [c]\n    run: cp a c\n  \
         first:\n    inputs: []\n    outputs: [a]\n    run: echo 1 > a\n",
    );
    let text = project.pv_ok(&["run", "--jobs", "1"]);
    let steps: Vec<_> = text.lines().filter(|line| line.starts_with("Step:")).collect();
    assert_eq!(steps, ["Step: first", "Step: left", "Step: right", "Step: last - Put together"]);
    let text = project.pv_ok(&["run", "--jobs", "4"]);
    assert_eq!(text.lines().filter(|line| line.starts_with("Step:")).collect::<Vec<_>>(), steps, "reused, same order");
}

#[test]
fn what_a_step_prints_is_streamed_with_its_name_and_kept_byte_for_byte() {
    let project = Sandbox::with_pipeline(
        "steps:\n  talk:\n    inputs: []\n    outputs: [o]\n    \
         run: \"printf 'to out\\\\n'; printf 'to err\\\\n' >&2; printf '\\\\377\\\\0no end'; touch o\"\n",
    );
    let output = project.pv_command(&["run"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("talk | to out\ntalk | to err\ntalk | "), "{told}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("to out"), "the answer is not mixed with it");
    let answer = project.json(&["run"]).0;
    let run = answer["run"].as_str().unwrap();
    for revision in [run, &run[..12], "HEAD"] {
        let shown = project.pv_command(&["show", revision, "--log", "talk"]).output().unwrap();
        assert_eq!(shown.stdout, b"to out\nto err\n\xff\0no end", "{revision}: {}", project.tell(&shown));
    }
    insta::assert_snapshot!(project.pv(&["show", run, "--log", "tlak"]), @"
    --- stderr
    error: there is no step `tlak`
    hint: its steps are `talk`
    --- exit 2
    ");
}

#[test]
fn a_step_over_its_time_is_ended_with_all_that_it_started() {
    let project = Sandbox::with_pipeline(
        "steps:\n  slow:\n    inputs: []\n    outputs: [o]\n    timeout: 1\n    env: [OUT]\n    \
         run: '(sleep 300 & echo $! > $OUT; wait) & echo started; wait'\n",
    );
    let out = project.beside("pid");
    let output = project.pv_command(&["run"]).env("OUT", &out).output().unwrap();
    insta::assert_snapshot!(project.tell(&output), @"
    Running pipeline version: f46d50205412
    Step: slow
    Run [RUN]: failed in `slow`, [TIME]
    --- stderr
    slow: runs, it has not run before
    slow | started
    error: step `slow` failed: it took longer than [TIME]
      what it wrote is kept: [ROOT]/cache/pv/work/[PLACE]/shelf-0/0
      look around in it: pv shell slow
    the last lines of `slow`:
      started
    --- exit 3
    ");
    assert!(out.exists(), "it came so far");
    assert!(!is_anybody_given("OUT", &out), "a grandchild lives on");
}

/// Returns whether a process lives that was given this path in this variable.
pub(crate) fn is_anybody_given(variable: &str, path: &Path) -> bool {
    let wanted = format!("{variable}={}", path.display());
    let is_given = |environment: Vec<u8>| environment.split(|byte| *byte == 0).any(|pair| pair == wanted.as_bytes());
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.filter_map(|entry| std::fs::read(entry.path().join("environ")).ok()).any(is_given)
}

const FAILING: &str = "steps:
  before:
    inputs: []
    outputs: [a]
    run: echo 1 > a
  bad:
    inputs: [a]
    outputs: [b]
    run: echo trying; echo half > b; echo 'it broke' >&2; exit 7
  after:
    inputs: [b]
    outputs: [c]
    run: cp b c
  beside:
    inputs: []
    outputs: [d]
    run: echo d > d
";

#[test]
fn a_failed_step_is_told_with_its_last_lines_and_its_directory_and_the_rest_is_skipped() {
    let project = Sandbox::with_pipeline(FAILING);
    let output = project.pv_command(&["run", "--jobs", "1"]).output().unwrap();
    insta::assert_snapshot!(project.tell(&output), @"
    Running pipeline version: d910279a7c78
    Step: before
    Step: bad
    Run [RUN]: failed in `bad`, [TIME]
    --- stderr
    before: runs, it has not run before
    before: done in [TIME]
    bad: runs, it has not run before
    bad | trying
    bad | it broke
    error: step `bad` failed: it exited with code 7
      what it wrote is kept: [ROOT]/cache/pv/work/[PLACE]/shelf-1/1
      look around in it: pv shell bad
    the last lines of `bad`:
      trying
      it broke
    --- exit 3
    ");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let kept = told.lines().find_map(|line| line.trim().strip_prefix("what it wrote is kept: ")).unwrap();
    assert_eq!(std::fs::read_to_string(Path::new(kept).join("b")).unwrap(), "half\n", "as the step left it");
    assert!(project.exists("a"), "what succeeded is brought into the working tree");
    assert!(!project.exists("b"), "and what failed is not");
    // The next try goes on where this one stopped.
    let (answer, code) = project.json(&["run", "--jobs", "1"]);
    assert_eq!((verdicts(&answer).as_str(), code), ("before reused, bad failed, after skipped, beside skipped", 3));
}

#[test]
fn keep_going_runs_all_that_does_not_need_the_failed_step() {
    let project = Sandbox::with_pipeline(FAILING);
    let (answer, code) = project.json(&["run", "--jobs", "1", "--keep-going"]);
    assert_eq!((verdicts(&answer).as_str(), code), ("before ran, bad failed, after skipped, beside ran", 3));
    assert_eq!(answer["verdict"], "failed");
    assert_eq!(reason(&answer, 2), "`bad` did not succeed");
    assert_eq!(answer["steps"][1]["failure"]["how"], "it exited with code 7");
    assert_eq!(answer["steps"][1]["failure"]["log"], json!(["trying", "it broke"]));
    assert_eq!(answer["steps"][1]["outputs"], json!([]));
    assert_eq!(project.read("d"), "d\n");
    let run = answer["run"].as_str().unwrap();
    let log = project.pv_command(&["show", run, "--log", "bad"]).output().unwrap();
    assert_eq!(log.stdout, b"trying\nit broke\n");
}

#[test]
fn a_program_that_is_not_there_fails_its_step_and_no_other() {
    // It ended the whole run without a record, also with `--keep-going`.
    let project = Sandbox::with_pipeline(
        "steps:\n  lost:\n    inputs: []\n    outputs: [a]\n    run: [no-such-program-here, a]\n  \
         good:\n    inputs: []\n    outputs: [b]\n    run: touch b\n",
    );
    let (answer, code) = project.json(&["run", "--jobs", "1", "--keep-going"]);
    assert_eq!((verdicts(&answer).as_str(), code), ("lost failed, good ran", 3));
    assert_eq!(answer["steps"][0]["failure"]["how"], "program `no-such-program-here` is not found");
}

#[test]
fn a_step_that_exits_with_zero_but_leaves_an_output_out_has_failed() {
    let project = Sandbox::with_pipeline(
        "steps:\n  lazy:\n    inputs: []\n    outputs: [made, not/made]\n    metrics: [m.json]\n    run: touch made\n",
    );
    // What lies there from before proves nothing.
    project.write("m.json", "{}");
    insta::assert_snapshot!(project.pv(&["run"]), @"
    Running pipeline version: d3f9bf6b4776
    Step: lazy
    Run [RUN]: failed in `lazy`, [TIME]
    --- stderr
    lazy: runs, it has not run before
    error: step `lazy` failed: it did not write `m.json`, `not/made`
      what it wrote is kept: [ROOT]/cache/pv/work/[PLACE]/shelf-0/0
      look around in it: pv shell lazy
    --- exit 3
    ");
    assert_eq!(project.json(&["run"]).0["steps"][0]["verdict"], "failed", "not reused");
}

const KINDS: &str = "steps:
  make:
    inputs: []
    outputs: [out/file, out/dir, out/tool, out/link, out/empty]
    metrics: [out/metrics.json]
    run: |
      cd out
      printf content > file
      mkdir -p dir/deep dir/hollow && echo x > dir/deep/x && ln -s deep/x dir/inner
      printf '#!/bin/sh\\necho hello\\n' > tool && chmod +x tool
      ln -s dir/deep/x link
      : > empty
      echo '{\"accuracy\": 0.5}' > metrics.json
";

#[test]
fn every_kind_of_output_comes_into_the_working_tree_and_comes_back_without_being_executed() {
    let project = Sandbox::with_pipeline(KINDS);
    let (answer, code) = project.json(&["run"]);
    assert_eq!((verdicts(&answer).as_str(), code), ("make ran", 0));
    let check = || {
        assert_eq!(project.read("out/file"), "content");
        assert_eq!(project.read("out/dir/deep/x"), "x\n");
        assert_eq!(std::fs::read_link(project.path("out/dir/inner")).unwrap(), Path::new("deep/x"));
        assert_eq!(std::fs::read_link(project.path("out/link")).unwrap(), Path::new("dir/deep/x"));
        assert_ne!(project.path("out/tool").metadata().unwrap().permissions().mode() & 0o111, 0);
        assert_eq!(project.path("out/file").metadata().unwrap().permissions().mode() & 0o111, 0);
        assert_eq!(project.read("out/empty"), "");
        assert_eq!(project.read("out/metrics.json"), "{\"accuracy\": 0.5}\n");
    };
    check();
    let outputs = answer["steps"][0]["outputs"].as_array().unwrap();
    let paths: Vec<_> = outputs.iter().map(|output| output["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["out/dir", "out/empty", "out/file", "out/link", "out/metrics.json", "out/tool"]);
    assert_eq!(outputs[2]["digest"], "3fba5250be9ac259c56e7250c526bc83bacb4be825f2799d3d59e5b4878dd74e");
    std::fs::remove_dir_all(project.path("out")).unwrap();
    let (answer, _) = project.json(&["run"]);
    assert_eq!(verdicts(&answer), "make reused");
    check();
    let (answer, code) = project.json(&["run", "HEAD"]);
    assert_eq!((answer["verdict"].as_str(), code), (Some("reproduced"), 0));
}

const ONE: &str =
    "steps:\n  one:\n    inputs: [in]\n    outputs: [out, dir]\n    run: cp in out && mkdir dir && cp in dir/x\n";

#[test]
fn an_output_edited_by_hand_is_refused_and_nothing_is_lost_until_forced() {
    let project = Sandbox::with_pipeline(ONE);
    project.write("in", "1\n");
    project.commit("in");
    project.pv_ok(&["run"]);
    project.write("out", "mine\n");
    project.write("dir/added", "mine too\n");
    for arguments in [&["run"][..], &["run", "HEAD", "--restore"]] {
        insta::allow_duplicates! {
            insta::assert_snapshot!(project.pv(arguments), @"
            --- stderr
            error: `dir`, `out` in the working tree were changed since `pv` wrote them
            hint: keep your version elsewhere, or let it be overwritten with `--force`
            --- exit 2
            ");
        }
        assert_eq!(project.read("out"), "mine\n");
        assert_eq!(project.read("dir/added"), "mine too\n");
    }
    project.write("in", "2\n");
    assert!(project.pv(&["run"]).ends_with("--- exit 2\n"));
    assert_eq!(project.read("out"), "mine\n");
    project.pv_ok(&["run", "--force"]);
    assert_eq!((project.read("out"), project.exists("dir/added")), ("2\n".to_owned(), false));
}

#[test]
fn an_output_made_by_hand_before_any_run_is_safe_unless_it_equals_the_result() {
    let project = Sandbox::with_pipeline(ONE);
    project.write("in", "1\n");
    project.write("out", "made by hand\n");
    let text = project.pv(&["run"]);
    assert!(text.contains("`out` in the working tree") && text.ends_with("--- exit 2\n"), "{text}");
    assert_eq!(project.read("out"), "made by hand\n");
    assert!(!project.exists("dir"), "all or nothing");
    project.write("out", "1\n");
    project.pv_ok(&["run"]);
    assert_eq!(project.read("dir/x"), "1\n");
}

#[test]
fn an_output_that_git_has_as_it_is_may_be_replaced_but_not_one_changed_since() {
    let project = Sandbox::with_pipeline(ONE);
    project.write("in", "1\n");
    project.write("out", "committed\n");
    project.commit("an output in git");
    project.write("out", "changed since\n");
    assert!(project.pv(&["run"]).ends_with("--- exit 2\n"));
    assert_eq!(project.read("out"), "changed since\n");
    project.write("out", "committed\n");
    project.pv_ok(&["run"]);
    assert_eq!(project.read("out"), "1\n");
}

const THREE: &str = "params: {a: {x: 1, y: 2}, b: 3}
steps:
  first:
    inputs: [in]
    outputs: [mid]
    params: [a.x]
    run: grep -v '^#' in > mid
  second:
    inputs: [mid]
    outputs: [out]
    run: cp mid out
  other:
    inputs: []
    outputs: [o]
    params: [b]
    run: echo o > o
";

#[test]
fn a_dry_run_tells_verdict_and_reason_and_changes_nothing() {
    // It copied the working tree into the store's waiting room, and made a store for that.
    let project = Sandbox::with_pipeline(THREE);
    project.write("in", "1\n");
    insta::assert_snapshot!(project.pv(&["run", "--dry-run"]), @"
    run    first   it has not run before
    run    second  it has not run before
    run    other   it has not run before
    ");
    assert!(!project.exists(".git/pv"), "nothing is made");
    pv_at(&project, 1, &["run"]);
    project.write("in", "2\n");
    project.write(".pipeline/pipeline.yaml", THREE.replace("b: 3", "b: 4"));
    let before = everything_below(&project.path(".git/pv"));
    let tree = everything_below(&project.path("."));
    insta::assert_snapshot!(pv_at(&project, 2, &["run", "-n"]), @"
    run    first   `in` changed
    run    second  it runs after `first`
    run    other   `inline params` `b` 3 -> 4
    ");
    insta::assert_snapshot!(pv_at(&project, 2, &["--json", "run", "-n"]), @r#"
    {
      "snapshot": "da6ac5b3d01b3b999990874119178d9c4184c9d3d6a5a8fb8799110c331953bb",
      "version": null,
      "steps": [
        {
          "step": "first",
          "verdict": "run",
          "reason": "`in` changed"
        },
        {
          "step": "second",
          "verdict": "run",
          "reason": "it runs after `first`"
        },
        {
          "step": "other",
          "verdict": "run",
          "reason": "`inline params` `b` 3 -> 4"
        }
      ]
    }
    "#);
    assert!(everything_below(&project.path(".git/pv")) == before);
    assert!(everything_below(&project.path(".")) == tree);
}

#[test]
fn only_what_changed_runs_and_equal_results_cut_the_rest_off() {
    let project = Sandbox::with_pipeline(THREE);
    project.write("in", "1\n");
    assert_eq!(verdicts(&json_at(&project, 1, &["run"]).0), "first ran, second ran, other ran");
    assert_eq!(verdicts(&json_at(&project, 2, &["run"]).0), "first reused, second reused, other reused");
    project.write("in", "1\n# a comment that the step drops\n");
    let (answer, _) = json_at(&project, 3, &["run"]);
    assert_eq!(verdicts(&answer), "first ran, second reused, other reused");
    assert_eq!(reason(&answer, 0), "`in` changed");
    project.write(".pipeline/pipeline.yaml", THREE.replace("y: 2", "y: 5"));
    assert_eq!(verdicts(&json_at(&project, 4, &["run"]).0), "first reused, second reused, other reused");
    project.write(".pipeline/pipeline.yaml", THREE.replace("x: 1", "x: 5"));
    let (answer, _) = json_at(&project, 5, &["run"]);
    assert_eq!(verdicts(&answer), "first ran, second reused, other reused");
    assert_eq!(reason(&answer, 0), "`inline params` `a.x` 1 -> 5");
    // Back to what was: known.
    project.write(".pipeline/pipeline.yaml", THREE);
    project.write("in", "1\n");
    assert_eq!(verdicts(&json_at(&project, 6, &["run"]).0), "first reused, second reused, other reused");
}

#[test]
fn a_step_that_declares_nothing_runs_again_when_what_it_looked_at_changes() {
    let project = Sandbox::with_pipeline("steps:\n  all:\n    outputs: [o]\n    run: ls | grep -v '^o$' > o\n");
    project.write("a", "1\n");
    pv_at(&project, 1, &["run"]);
    assert_eq!(verdicts(&json_at(&project, 2, &["run"]).0), "all reused", "its own output is not among what it reads");
    project.write("sub/new", "x");
    let (answer, _) = json_at(&project, 3, &["run"]);
    assert_eq!((verdicts(&answer).as_str(), reason(&answer, 0).as_str()), ("all ran", "`.` lists other names"));
    project.write("sub/new", "y");
    project.write("sub/newer", "y");
    assert_eq!(verdicts(&json_at(&project, 4, &["run"]).0), "all reused", "it looked only at the top");
}

#[test]
fn a_changed_python_helper_runs_the_step_that_imports_it_again_though_nobody_declared_it() {
    let project = Sandbox::with_pipeline(
        "steps:\n  script:\n    inputs: []\n    outputs: [s]\n    run: python3 steps/main.py\n  \
         module:\n    inputs: []\n    outputs: [m]\n    run: python3 -m tool.cli\n  \
         text:\n    inputs: []\n    outputs: [t]\n    run: [python3, -c, \"x = 1; import short; open('t', 'w').write(short.VALUE)\"]\n",
    );
    project.write(
        "steps/main.py",
        "import helper\nfrom pkg import deep\nopen('s', 'w').write(helper.VALUE + deep.VALUE)\n",
    );
    project.write("steps/helper.py", "VALUE = 'h'\n");
    project.write("steps/pkg/__init__.py", "from . import base\n");
    project.write("steps/pkg/base.py", "VALUE = 'b'\n");
    project.write("steps/pkg/deep.py", "from .base import VALUE\n");
    project.write("tool/__init__.py", "");
    project.write("tool/cli.py", "from .inner import VALUE\nopen('m', 'w').write(VALUE)\n");
    project.write("tool/inner.py", "VALUE = 'i'\n");
    project.write("short.py", "VALUE = 'x'\n");
    project.write("steps/unused.py", "VALUE = 'u'\n");
    assert_eq!(verdicts(&json_at(&project, 0, &["run"]).0), "script ran, module ran, text ran");
    let all = "script reused, module reused, text reused";
    for (minute, (file, step)) in [
        ("steps/helper.py", "script"),
        ("steps/pkg/__init__.py", "script"),
        ("steps/pkg/base.py", "script"),
        ("steps/pkg/deep.py", "script"),
        ("tool/__init__.py", "module"),
        ("tool/inner.py", "module"),
        ("short.py", "text"),
        ("steps/unused.py", "none"),
    ]
    .into_iter()
    .enumerate()
    {
        project.write(file, project.read(file) + "# changed\n");
        let (answer, code) = json_at(&project, u32::try_from(minute).unwrap() + 1, &["run"]);
        assert_eq!(code, 0);
        assert_eq!(verdicts(&answer), all.replace(&format!("{step} reused"), &format!("{step} ran")), "{file}");
    }
}

#[test]
fn a_replay_executes_again_in_a_clean_place_and_leaves_the_working_tree_alone() {
    let project = Sandbox::with_fixture("lesson");
    project.pv_ok(&["snapshot", "--tag", "v1.0"]);
    project.pv_ok(&["run"]);
    project.write("work/summary.json", "mine");
    project.write("params.yaml", "changed: true\n");
    std::fs::remove_file(project.path("work/orders.db")).unwrap();
    insta::assert_snapshot!(project.pv(&["--quiet", "run", "v1.0"]), @"
    Running pipeline version: v1.0
    Step: extract - Extract data from source
    Step: transform - Clean and transform data
    Step: load - Load data into database
    Run [RUN]: reproduced, bit for bit, 5 outputs, [TIME]
    ");
    assert_eq!(project.read("work/summary.json"), "mine");
    assert!(!project.exists("work/orders.db"));
    let (answer, code) = project.json(&["run", "v1.0", "--reuse"]);
    assert_eq!((verdicts(&answer).as_str(), code), ("extract reused, transform reused, load reused", 0));
    assert!(!project.exists("work/orders.db"));
    project.pv_ok(&["run", "v1.0", "--reuse", "--restore", "--force"]);
    assert!(project.exists("work/orders.db"));
}

#[test]
fn what_does_not_come_out_again_is_named_and_the_exit_code_is_1() {
    let project = Sandbox::with_pipeline(
        "steps:\n  chance:\n    inputs: []\n    outputs: [random.bin, same]\n    \
         run: [python3, -c, \"import os; open('random.bin', 'wb').write(os.urandom(8)); open('same', 'w').write('s')\"]\n",
    );
    project.pv_ok(&["snapshot", "--tag", "v1"]);
    let first = json_at(&project, 1, &["run"]).0;
    let (answer, code) = json_at(&project, 2, &["run", "v1"]);
    assert_eq!((answer["verdict"].as_str(), code), (Some("differs"), 1));
    let outputs = &answer["steps"][0]["outputs"];
    assert_eq!(outputs[0]["path"], "random.bin");
    assert_eq!(outputs[0]["recorded"], first["steps"][0]["outputs"][0]["digest"]);
    assert_ne!(outputs[0]["recorded"], outputs[0]["digest"]);
    assert_eq!(outputs[1]["recorded"], outputs[1]["digest"]);
    let text = pv_at(&project, 3, &["--quiet", "run", "v1"]);
    assert!(text.contains("differs from the recorded run in `random.bin`, "), "{text}");
    assert!(text.ends_with("--- exit 1\n"), "{text}");
}

#[test]
fn how_a_replay_differs_is_told_with_what_that_is_consistent_with() {
    let project = Sandbox::with_pipeline(
        "steps:\n  \
         tell:\n    inputs: []\n    outputs: [m.json]\n    env: [MODE]\n    run: tool > m.json\n  \
         copy:\n    inputs: [m.json]\n    outputs: [d]\n    run: mkdir d && cp m.json d && echo same > d/same\n",
    );
    project.write(".gitignore", "/m.json\n/d\n");
    project.commit("all");
    let tool = |value: &str| {
        let path = project.beside("bin/tool");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("#!/bin/sh\necho '{{\"loss\": {value}, \"mode\": \"'$MODE'\"}}'\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    };
    let run = |mode: &str, arguments: &[&str]| {
        let path = format!("{}:{}", project.beside("bin").display(), std::env::var("PATH").unwrap());
        project.pv_command(arguments).env("PATH", path).env("MODE", mode).output().unwrap()
    };
    tool("0.5");
    assert!(run("fast", &["run"]).status.success());
    project.pv_ok(&["snapshot", "--tag", "v1"]);
    tool("0.25");
    let output = run("slow", &["run", "v1"]);
    assert_eq!(output.status.code(), Some(1));
    let told = project.tell(&output);
    let told: Vec<_> = told.lines().skip_while(|line| !line.starts_with("`m.json`")).collect();
    insta::with_settings!({filters => vec![
        (r"recorded [0-9a-f]{12}, now [0-9a-f]{12}", "recorded [OLD], now [NEW]"),
        (r"run [0-9a-f]{12}", "run [RUN]"),
        (r"tool  [0-9a-f]{12} -> [0-9a-f]{12}", "tool  [OLD] -> [NEW]"),
    ]}, {
        insta::assert_snapshot!(told.join("\n"), @"
        `m.json` of step `tell`: recorded [OLD], now [NEW]
          m.json: 100 % of 1 numbers differ, at most by 0.25, 0.5 of the number
          m.json: $.loss 0.5 -> 0.25
          m.json: $.mode fast -> slow
        `d` of step `copy`: recorded [OLD], now [NEW]
          d/m.json: 100 % of 1 numbers differ, at most by 0.25, 0.5 of the number
          d/m.json: $.loss 0.5 -> 0.25
          d/m.json: $.mode fast -> slow
        this is consistent with what changed in the environment since run [RUN], the likeliest first:
          variable MODE  fast -> slow  (used by tell, whose output differs)
          program tool  [OLD] -> [NEW]  (used by tell, whose output differs)
        hint: `pv verify v1 tell --why` finds out by experiment what the result depends on
        --- exit 1
        ");
    });
    let output = run("slow", &["--json", "run", "v1"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names = |list: &Value, key: &str| -> Vec<String> {
        list.as_array().unwrap().iter().map(|one| one[key].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&answer["consistent_with"], "name")[..2], ["variable MODE", "program tool"]);
    assert_eq!(answer["consistent_with"][0]["steps"], json!(["tell"]));
    let differences = &answer["steps"][1]["outputs"][0]["differences"];
    assert_eq!(names(differences, "path"), ["d/m.json"]);
    assert_eq!(names(&differences[0]["detail"]["findings"], "place"), ["$.loss", "$.mode"]);
    // Where nothing differs there is nothing to explain.
    tool("0.5");
    let output = run("fast", &["--json", "run", "v1"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((answer.get("consistent_with"), answer["steps"][1]["outputs"][0].get("differences")), (None, None));
    // What was recorded may be out of reach: that it differs is known all the same.
    let clone = project.beside("clone");
    project.git(&["clone", "--quiet", ".", clone.to_str().unwrap()]);
    project.git_in(&clone, &["fetch", "--quiet", "origin", "refs/pv/meta:refs/pv/meta"]);
    tool("0.125");
    let mut run = project.pv_command_in(&clone, &["run", "v1"]);
    let path = format!("{}:{}", project.beside("bin").display(), std::env::var("PATH").unwrap());
    let output = run.env("PATH", path).env("MODE", "fast").output().unwrap();
    let told = project.tell(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert_eq!(told.matches("  it cannot be told how: ").count(), 2, "{told}");
}

#[test]
fn a_replay_of_what_was_never_run_says_so_and_the_next_one_compares_with_it() {
    let project = Sandbox::with_fixture("lesson");
    project.pv_ok(&["snapshot", "--tag", "v1.0"]);
    insta::assert_snapshot!(pv_at(&project, 1, &["--quiet", "run", "v1.0"]), @"
    Running pipeline version: v1.0
    Step: extract - Extract data from source
    Step: transform - Clean and transform data
    Step: load - Load data into database
    Run [RUN]: done, 3 steps: 3 ran, [TIME], no earlier run is on record to compare with
    ");
    assert_eq!(json_at(&project, 2, &["run", "v1.0"]).0["verdict"], "reproduced");
}

#[test]
fn the_json_of_a_run_has_exactly_the_fields_that_were_promised() {
    let project = Sandbox::with_pipeline(FAILING);
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    for arguments in [&["run", "-k"][..], &["run", "HEAD", "-k"]] {
        let (answer, code) = project.json(arguments);
        assert_eq!(code, 3);
        assert_eq!(keys(&answer), set(&["run", "snapshot", "version", "verdict", "steps"]));
        assert_eq!(answer["version"], Value::Null);
        assert_eq!(answer["run"].as_str().unwrap().len(), 64);
        assert_eq!(answer["snapshot"].as_str().unwrap().len(), 64);
        for step in answer["steps"].as_array().unwrap() {
            let mut have = keys(step);
            assert_eq!(have.remove("failure"), step["verdict"] == "failed", "{step}");
            assert_eq!(have, set(&["step", "verdict", "reason", "seconds", "outputs"]));
            assert!(step["seconds"].is_f64());
            for output in step["outputs"].as_array().unwrap() {
                assert_eq!(keys(output), set(&["path", "digest", "size", "recorded"]));
            }
        }
        let a = &answer["steps"][0]["outputs"][0];
        assert_eq!((a["path"].as_str(), a["size"].as_u64()), (Some("a"), Some(2)));
        assert_eq!(a["digest"], "50cc1102b1c612e6962547aacdcef9a400d4416ef8dd9388e885991853c400c9");
    }
    let output = project.pv_command(&["--json", "run", "HEAD", "-k"]).output().unwrap();
    assert!(serde_json::from_slice::<Value>(&output.stdout).is_ok(), "one object and nothing else");
}

#[test]
fn a_broken_definition_is_shown_where_it_breaks() {
    let project = Sandbox::with_pipeline("steps:\n  one:\n    run: echo 1\n    outptus: [a]\n");
    insta::assert_snapshot!(project.pv(&["run"]), @"
    --- stderr
    error: unknown key `outptus` in step `one`
     --> .pipeline/pipeline.yaml:4:5
      |
    4 |     outptus: [a]
      |     ^^^^^^^ no step has such a key
      |
    help: did you mean `outputs`?
    --- exit 2
    ");
    let (answer, code) = project.json(&["run"]);
    assert_eq!((answer["exit"].as_u64(), code), (Some(2), 2));
}

#[test]
fn an_unknown_revision_suggests_the_version_that_was_meant() {
    let project = Sandbox::with_fixture("lesson");
    project.pv_ok(&["snapshot", "--tag", "v1.0"]);
    insta::assert_snapshot!(project.pv(&["run", "v1.1"]), @"
    --- stderr
    error: nothing is called `v1.1`
    hint: did you mean `v1.0`?
    --- exit 2
    ");
    insta::assert_snapshot!(project.pv(&["run", "something-else"]), @"
    --- stderr
    error: nothing is called `something-else`
    hint: a revision is a version, a Git revision, or the first digits of a snapshot or run; `pv log` lists them
    --- exit 2
    ");
}

#[test]
fn a_file_that_a_step_leaves_undeclared_does_not_reach_the_working_tree() {
    let project = Sandbox::with_pipeline(
        "steps:\n  one:\n    inputs: []\n    outputs: [o]\n    run: touch o stray; mkdir d; touch d/x\n",
    );
    project.pv_ok(&["run"]);
    assert_eq!((project.exists("o"), project.exists("stray"), project.exists("d")), (true, false, false));
    assert_eq!(project.git(&["status", "--short"]), "?? o");
}

#[test]
fn a_long_chain_sees_what_all_steps_before_it_wrote_and_nothing_else_of_them() {
    let step = |number: u32| {
        let before: Vec<String> = (0..number).map(|number| format!("out/{number}")).collect();
        let before = before.join(" ");
        let inputs = if number == 0 { "[]".to_owned() } else { format!("[out/{}]", number - 1) };
        format!(
            "  s{number}:\n    inputs: {inputs}\n    outputs: [out/{number}]\n    \
             run: cat {before} /dev/null | wc -l > out/{number} && echo x > stray-{number} && ! test -e stray-{inputs_stray}\n",
            inputs_stray = number.wrapping_sub(1)
        )
    };
    let project = Sandbox::with_pipeline(&format!("steps:\n{}", (0..140).map(step).collect::<String>()));
    let (answer, code) = project.json(&["run"]);
    assert_eq!((answer["verdict"].as_str(), code), (Some("done"), 0));
    assert_eq!(project.read("out/139").trim(), "139", "one line of each step before");
}
