//! `pv status` and the other verbs that only tell: `log`, `show`, `schema`, `completions`, help. And `init`.

use serde_json::{Value, json};

use crate::sandbox::Sandbox;

const PIPELINE: &str = "\
seed: 1
params: params.yaml
steps:
  prepare:
    run: sh steps/prepare.sh
    inputs: [raw.txt]
    outputs: [clean.txt]
    params: [transform.min_amount]
    env: {LEVEL: low}
  report:
    run: sh steps/report.sh
    inputs: [clean.txt]
    outputs: [report.txt]
  aside:
    run: echo 1 > aside.txt
    inputs: []
    outputs: [aside.txt]
    seed: 7
";

fn project() -> Sandbox {
    let project = Sandbox::new();
    project.write(".gitignore", "clean.txt\nreport.txt\naside.txt\n");
    project.write(".pipeline/pipeline.yaml", PIPELINE);
    project.write("params.yaml", "transform:\n  min_amount: 10\n  other: 1\n");
    project.write("raw.txt", "1\n2\n");
    project.write("steps/prepare.sh", "cat raw.txt > clean.txt\n");
    project.write("steps/report.sh", "wc -l < clean.txt | tr -d ' ' > report.txt\necho reported\n");
    project.commit("first");
    project
}

fn edit(project: &Sandbox, path: &str, from: &str, to: &str) {
    let text = project.read(path);
    assert!(text.contains(from), "{from} is not in {path}");
    project.write(path, text.replace(from, to));
}

/// Returns step → verdict and reason.
fn steps(project: &Sandbox) -> Vec<(String, String)> {
    let (status, code) = project.json(&["status"]);
    assert_eq!(code, 0);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let steps = status["steps"].as_array().unwrap().iter();
    steps.map(|step| (text(&step["verdict"]), text(&step["reason"]))).collect()
}

fn is(verdict: &str, reason: &str) -> (String, String) {
    (verdict.to_owned(), reason.to_owned())
}

fn current() -> (String, String) {
    is("current", "nothing it depends on changed")
}

#[test]
fn a_step_is_never_run_then_current_then_stale_with_the_reason() {
    let project = project();
    insta::assert_snapshot!(project.pv(&["status"]), @"
Snapshot 28603af210b2, commit 381ee9e2f1
  prepare  never-run  it has not run before
  report   never-run  it has not run before
  aside    never-run  it has not run before
");
    project.pv_ok(&["run"]);
    insta::assert_snapshot!(project.pv(&["status"]), @"
Snapshot 28603af210b2, commit 381ee9e2f1
  prepare  current    nothing it depends on changed
  report   current    nothing it depends on changed
  aside    current    nothing it depends on changed
");
    edit(&project, "params.yaml", "10", "20");
    insta::assert_snapshot!(project.pv(&["status"]), @"
Snapshot 8532418c83cb, commit 381ee9e2f1 with changes
  prepare  stale      `params.yaml` `transform.min_amount` 10 -> 20
  report   stale      it runs after `prepare`
  aside    current    nothing it depends on changed
");
    // What the reasons are worth: exactly those steps run.
    let (run, _) = project.json(&["run"]);
    let ran: Vec<_> = run["steps"].as_array().unwrap().iter().map(|step| step["verdict"].as_str().unwrap()).collect();
    assert_eq!(ran, ["ran", "reused", "reused"], "the clean file came out equal, so the report is still good");
}

#[test]
fn each_kind_of_change_has_words_of_its_own() {
    let project = project();
    project.pv_ok(&["run"]);
    let cases: [(&str, &str, &str, &str); 10] = [
        ("params.yaml", "min_amount: 10", "min_amount: 20", "`params.yaml` `transform.min_amount` 10 -> 20"),
        ("params.yaml", "min_amount: 10", "min_amount: ten", "`params.yaml` `transform.min_amount` 10 -> \"ten\""),
        ("steps/prepare.sh", "cat", "tac", "`steps/prepare.sh` changed"),
        ("raw.txt", "2", "3", "`raw.txt` changed"),
        (".pipeline/pipeline.yaml", "sh steps/prepare.sh", "sh -e steps/prepare.sh", "the command changed"),
        (".pipeline/pipeline.yaml", "LEVEL: low", "LEVEL: high", "`LEVEL` low -> high"),
        (".pipeline/pipeline.yaml", "{LEVEL: low}", "{LEVEL: low, MORE: 1}", "`MORE` (none) -> 1"),
        (".pipeline/pipeline.yaml", "{LEVEL: low}", "{LEVEL: low}\n    seed: 5", "the seed 2020844225 -> 5"),
        (
            ".pipeline/pipeline.yaml",
            "    inputs: [raw.txt]\n",
            "    inputs: [raw.txt, params.yaml]\n",
            "`params.yaml` added",
        ),
        (
            ".pipeline/pipeline.yaml",
            "outputs: [clean.txt]",
            "outputs: [clean.txt, more.txt]",
            "its list of outputs changed",
        ),
    ];
    for (path, from, to, reason) in cases {
        let before = project.read(path);
        edit(&project, path, from, to);
        assert_eq!(steps(&project), [is("stale", reason), is("stale", "it runs after `prepare`"), current()], "{to}");
        project.write(path, before);
    }
    assert_eq!(steps(&project), [current(), current(), current()], "undone is as good as never done");
}

#[test]
fn several_changes_are_all_told() {
    let project = project();
    project.pv_ok(&["run"]);
    edit(&project, "params.yaml", "10", "20");
    edit(&project, "raw.txt", "2", "3");
    edit(&project, ".pipeline/pipeline.yaml", "seed: 1", "seed: 2");
    edit(&project, ".pipeline/pipeline.yaml", "LEVEL: low", "LEVEL: high");
    insta::assert_snapshot!(project.pv(&["status"]), @"
Snapshot e4d8c2fd7da7, commit 381ee9e2f1 with changes
  prepare  stale      `params.yaml` `transform.min_amount` 10 -> 20, the seed 2020844225 -> 1513556218, `LEVEL` low -> high, `raw.txt` changed
  report   stale      it runs after `prepare`
  aside    current    nothing it depends on changed
");
}

#[test]
fn what_no_step_depends_on_makes_nothing_stale() {
    let project = project();
    project.pv_ok(&["run"]);
    edit(&project, "params.yaml", "other: 1", "other: 2");
    project.write("README", "words\n");
    edit(&project, ".pipeline/pipeline.yaml", "  report:", "  report:\n    description: Report");
    assert_eq!(steps(&project), [current(), current(), current()]);
    let touched = std::fs::File::options().append(true).open(project.path("raw.txt")).unwrap();
    touched.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(steps(&project), [current(), current(), current()], "times of files decide nothing");
}

#[test]
fn an_output_that_is_not_there_is_told_and_put_back_without_running() {
    let project = project();
    project.pv_ok(&["run"]);
    std::fs::remove_file(project.path("clean.txt")).unwrap();
    insta::assert_snapshot!(project.pv(&["status"]), @"
Snapshot 28603af210b2, commit 381ee9e2f1
  prepare  current    nothing it depends on changed
                      clean.txt is not here; `pv run` puts it back
  report   current    nothing it depends on changed
  aside    current    nothing it depends on changed
");
    let (status, _) = project.json(&["status"]);
    assert_eq!(status["steps"][0]["missing"], json!(["clean.txt"]));
    let (run, _) = project.json(&["run"]);
    assert!(run["steps"].as_array().unwrap().iter().all(|step| step["verdict"] == "reused"), "{run}");
    assert_eq!(project.read("clean.txt"), "1\n2\n");
}

#[test]
fn data_is_told_when_it_is_new_and_when_it_changed() {
    let project = Sandbox::new();
    project.write(".gitignore", "/data/\nout.txt\n");
    project.write(
        ".pipeline/pipeline.yaml",
        "data: [data]\nsteps: {a: {run: cat data/* > out.txt, inputs: [data], outputs: [out.txt]}}\n",
    );
    project.write("data/a.csv", "1\n");
    project.commit("first");
    insta::assert_snapshot!(project.pv(&["status"]), @"
Snapshot 5da59838df9e, commit 28ab0e1bbb with changes
  a  never-run  it has not run before
  data data  added  1 file, 2 B
");
    project.pv_ok(&["run"]);
    project.pv_ok(&["snapshot"]);
    project.write("data/b.csv", "2\n");
    insta::assert_snapshot!(project.pv(&["status"]), @"
Snapshot 4cddd313ad70, commit 28ab0e1bbb with changes
  a  stale      `data/b.csv` added
  data data  changed  1 file, 2 B -> 2 files, 4 B
");
    let (status, _) = project.json(&["status"]);
    assert_eq!(
        status["data"],
        json!([{"path": "data", "change": "changed", "files": 2, "bytes": 4, "old_files": 1, "old_bytes": 2}])
    );
    std::fs::remove_file(project.path("data/b.csv")).unwrap();
    assert_eq!(project.json(&["status"]).0["data"][0]["change"], "unchanged");
}

#[test]
fn the_object_for_programs_has_the_promised_shape() {
    let project = project();
    let (snapshot, _) = project.json(&["snapshot"]);
    let (status, code) = project.json(&["status"]);
    assert_eq!((code, &status["snapshot"]), (0, &snapshot["snapshot"]));
    assert_eq!(
        status["steps"][0],
        json!({"step": "prepare", "verdict": "never-run", "reason": "it has not run before"})
    );
    assert_eq!(status["data"], json!([]));
    assert_eq!((&status["dirty"], &status["version"]), (&json!(false), &json!(null)));
}

#[test]
fn looking_writes_nothing() {
    let project = project();
    project.pv_ok(&["snapshot", "--tag", "v1"]);
    project.pv_ok(&["run"]);
    edit(&project, "raw.txt", "2", "3");
    project.write("new.txt", "new\n");
    let listing = || {
        let files = walkdir::WalkDir::new(project.path("")).into_iter().map(Result::unwrap);
        let named = files.map(|entry| {
            let metadata = entry.metadata().unwrap();
            // A directory's time tells of temporary files too, which may come and go.
            let time = metadata.is_file().then(|| metadata.modified().unwrap());
            (entry.path().to_owned(), (metadata.len(), time))
        });
        named.collect::<std::collections::BTreeMap<_, _>>()
    };
    let before = listing();
    for arguments in [
        &["status"][..],
        &["log"],
        &["show", "v1"],
        &["diff", "v1"],
        &["diff", "v1", "--patch"],
        &["run", "--dry-run"],
        &["run", "v1", "--dry-run"],
        &["show", "v1", "--log", "report"],
        &["hooks", "status"],
        &["schema"],
    ] {
        project.pv_ok(arguments);
    }
    assert_eq!(listing(), before);
}

#[test]
fn the_log_is_newest_first_with_versions_commits_marks_and_verdicts() {
    let project = project();
    let at = |minute: u32, arguments: &[&str]| {
        let now = format!("2026-01-31T09:{minute:02}:00Z");
        let output = project.pv_command(arguments).env("PV_NOW", now).output().unwrap();
        project.tell(&output)
    };
    insta::assert_snapshot!(at(0, &["log"]), @"
Nothing yet. `pv snapshot` takes a snapshot, `pv run` executes the pipeline.
");
    at(1, &["snapshot", "--tag", "v1.0", "--message", "the first\nwith details"]);
    at(2, &["run"]);
    at(3, &["run", "v1.0"]);
    edit(&project, "steps/report.sh", "echo reported", "exit 3");
    at(4, &["snapshot", "--tag", "draft"]);
    at(5, &["run"]);
    edit(&project, "steps/report.sh", "exit 3", "date +%N >> report.txt");
    project.commit("a step that never repeats");
    at(6, &["snapshot"]);
    at(7, &["run"]);
    at(8, &["run", "HEAD"]);
    let told = at(9, &["log"]);
    insta::assert_snapshot!(told, @"
2026-01-31 09:08  run      [RUN]  of c229e0949792  commit a566230d24  differs  3 ran, 0 reused, [TIME]
2026-01-31 09:07  run      [RUN]  of c229e0949792  commit a566230d24  done  1 ran, 2 reused, [TIME]
2026-01-31 09:06  snapshot c229e0949792  commit a566230d24  1 differs  1 done
2026-01-31 09:05  run      [RUN]  of draft  commit 381ee9e2f1 with changes  failed in report  0 ran, 2 reused, [TIME]
2026-01-31 09:04  snapshot 499cfbc7680f  draft  commit 381ee9e2f1 with changes  1 failed
2026-01-31 09:03  run      [RUN]  of v1.0  commit 381ee9e2f1  reproduced  3 ran, 0 reused, [TIME]
2026-01-31 09:02  run      [RUN]  of v1.0  commit 381ee9e2f1  done  3 ran, 0 reused, [TIME]
2026-01-31 09:01  snapshot 28603af210b2  v1.0  commit 381ee9e2f1  1 done  1 reproduced  the first
");
    assert_eq!(at(9, &["log", "-n", "2"]).lines().collect::<Vec<_>>(), told.lines().take(2).collect::<Vec<_>>());
    for minute in 10..30 {
        edit(&project, "raw.txt", "1\n", "1\n1\n");
        at(minute, &["snapshot"]);
    }
    assert_eq!(at(40, &["log"]).lines().count(), 20, "a page by default");
    assert_eq!(at(40, &["log", "--all"]).lines().count(), 28);
    let (log, _) = project.json(&["log", "-n", "1"]);
    let entry = &log["entries"][0];
    assert_eq!((&entry["kind"], &entry["dirty"]), (&json!("snapshot"), &json!(true)));
    assert_eq!(entry["time"], "2026-01-31T09:29:00.000Z");
}

#[test]
fn a_version_is_shown_with_all_that_is_in_it_and_came_of_it() {
    let project = project();
    project.pv_ok(&["snapshot", "--tag", "v1.0", "--message", "the first\nwith details"]);
    project.pv_ok(&["run"]);
    let told = project.pv(&["show", "v1.0"]);
    insta::assert_snapshot!(told, @"
snapshot 28603af210b218dba37f4364a4221a2f1a36e89c07b023e256b845138a962d77  v1.0
taken    2026-01-31 09:30 by Ada <ada@example.org> at commit 381ee9e2f1
         the first
         with details
tree     6 files, 511 B
seed     1
param    transform.min_amount = 10
param    transform.other = 1
step     prepare
step     report
step     aside
run      [RUN]  2026-01-31 09:30  done  [TIME]
");
    assert_eq!(project.pv(&["show", "HEAD"]), told, "by commit");
    let id = project.json(&["show", "v1.0"]).0["snapshot"].as_str().unwrap().to_owned();
    assert_eq!(project.pv(&["show", &id[..12]]), told, "by the first digits");
}

#[test]
fn a_run_is_shown_step_by_step_and_so_is_what_a_step_printed() {
    let project = project();
    project.pv_ok(&["snapshot", "--tag", "v1.0"]);
    let (run, _) = project.json(&["run"]);
    let id = run["run"].as_str().unwrap().to_owned();
    let told = project.pv_ok(&["show", &id[..12]]);
    let told: Vec<_> = told.lines().map(|line| line.split("  ").collect::<Vec<_>>().join("  ")).collect();
    assert_eq!(told[0], format!("run {id}  done"));
    assert!(told.iter().any(|line| line.contains("clean.txt  4 B")), "{told:#?}");
    assert!(told.iter().any(|line| line.starts_with("step     report  ran  ")), "{told:#?}");
    assert_eq!(project.pv(&["show", &id, "--log", "report"]), "reported\n");
    assert_eq!(project.pv(&["show", "v1.0", "--log", "report"]), "reported\n", "of the newest run");
    insta::assert_snapshot!(project.pv(&["show", "v1.0", "--log", "no-step"]), @"
--- stderr
error: no run of `v1.0` has a log of step `no-step`
hint: `pv run` with the revision makes one
--- exit 2
");
}

#[test]
fn objects_are_shown_by_their_digest() {
    let project = project();
    let (snapshot, _) = project.json(&["snapshot", "--tag", "v1.0"]);
    let content = blake3::hash(b"1\n2\n").to_hex().to_string();
    assert_eq!(project.pv(&["show", &content[..12]]), "1\n2\n", "a file's content, byte for byte");
    assert_eq!(project.json(&["show", &content]).0, json!({"kind": "blob", "digest": content, "bytes": 4}));
    let (shown, _) = project.json(&["show", snapshot["snapshot"].as_str().unwrap()]);
    let tree = project.pv(&["show", shown["tree"].as_str().unwrap()]);
    insta::assert_snapshot!(tree, @"
file        cba3643d36452910881f3c098a29b7cca987c7d3cf47a75c19c45870249c6573        31 B  .gitignore
directory   50e48546bb3a59ba0d4a364ce09cff2439e37848b73f4e3b7538219e31d62fd2       356 B  .pipeline
file        8c10e03965ba9733c0572eec41f5d963f416d59db959526d907ee5ec8363a146        39 B  params.yaml
file        a37d46d908a5843627780a7ac2f63e162403e3264e712c6ef098e8a3949f7ac4         4 B  raw.txt
directory   fd611dff99c3c8a9fbb1d3d70f1b168743e4a71bb29fff8e4d5230b5ad4a5b44        81 B  steps
");
    assert_eq!(shown["definition"]["steps"][0]["name"], "prepare");
    assert_eq!((&shown["seed"], &shown["params"]["transform"]["min_amount"]), (&json!(1), &json!(10)));
}

#[test]
fn a_new_user_gets_a_pipeline_that_works_at_once() {
    let project = Sandbox::new();
    insta::assert_snapshot!(project.pv(&["init"]), @"
Wrote .pipeline/pipeline.yaml, a pipeline of one step to start from.
Next: `pv run` executes it, `pv snapshot --tag v1.0` keeps and names it.
");
    insta::assert_snapshot!(project.read(".pipeline/pipeline.yaml"), @r#"
# What `pv` versions and runs; every key is described by `pv schema`.
seed: 42                      # every step gets a seed of its own, derived from this, as PV_SEED
steps:
  hello:
    description: Say hello
    run: echo "hello, the seed is $PV_SEED" > hello.txt
    inputs: []                # the files it reads; left out, the step depends on everything
    outputs: [hello.txt]
"#);
    insta::assert_snapshot!(project.pv(&["--quiet", "run"]), @"
Running pipeline version: e1753842eb8e
Step: hello - Say hello
Run [RUN]: done, 1 step: 1 ran, [TIME]
");
    insta::assert_snapshot!(project.pv(&["status"]), @"
Snapshot e1753842eb8e, no commit yet
  hello  current    nothing it depends on changed
");
    insta::assert_snapshot!(project.pv(&["snapshot", "--tag", "v1.0"]), @"
Snapshot e1753842eb8e v1.0: 1 file, 384 B, 0 B new in the store
No commit yet
");
    assert_eq!(project.read("hello.txt").split(' ').next(), Some("hello,"));
    let (run, code) = project.json(&["run", "v1.0"]);
    assert_eq!((code, &run["verdict"]), (0, &json!("reproduced")));
    project.write(".pipeline/pipeline.yaml", "steps: {mine: {run: echo}}\n");
    insta::assert_snapshot!(project.pv(&["init"]), @"
.pipeline/pipeline.yaml is there already; nothing was changed.
");
    assert_eq!(project.read(".pipeline/pipeline.yaml"), "steps: {mine: {run: echo}}\n", "never overwritten");
    project.pv_ok(&["init", "--pipeline", "train"]);
    assert!(project.exists(".pipeline/train.yaml"));
    project.pv_ok(&["run", "--pipeline", "train"]);
}

#[test]
fn the_schema_is_json_and_knows_every_key() {
    let project = Sandbox::new();
    let schema: Value = serde_json::from_str(&project.pv_ok(&["schema"])).unwrap();
    for key in ["version", "seed", "environment", "params", "data", "steps"] {
        assert!(schema["properties"].get(key).is_some(), "{key}");
    }
}

#[test]
fn completions_are_scripts_that_the_shells_accept() {
    let project = Sandbox::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = project.pv_ok(&["completions", shell]);
        for verb in ["snapshot", "checkout", "hooks"] {
            assert!(script.contains(verb), "{shell}: {verb}");
        }
        project.write("script", &script);
        match project.command_in(&project.path(""), shell).args(["-n", "script"]).output() {
            Ok(output) => assert!(output.status.success(), "{shell}: {}", project.tell(&output)),
            Err(error) => eprintln!("the completions for {shell} were not tried in it: {error}"),
        }
    }
}

/// The part that every help has.
const SHARED: &str = "Options of every command:";

#[test]
fn help_tells_a_newcomer_what_to_do() {
    let project = Sandbox::new();
    insta::assert_snapshot!(project.pv(&["--help"]), @"
Git-backed, content-addressed versioning of data and machine-learning pipelines

Usage: pv [OPTIONS] <COMMAND>

Commands:
  init         Make a first pipeline in this repository
  clone        Clone a repository, with the records of its snapshots, runs and versions
  snapshot     Keep what determines the results (code, configuration, data, seed), and name it
  run          Bring the results of the working tree up to date, or execute a snapshot again
  status       Show which steps would run and why, and which data changed
  audit        Compare what steps declare with what they were seen to do
  why          Show why a step would run: everything that is not what it was
  verify       Execute steps again and see whether they give the same result, and if not, why
  shell        Open a shell where a step has failed, with all that it had and had written
  diff         Show what changed between two versions, and what that did to the results
  log          List snapshots and runs, newest first
  show         Show a snapshot, a run, a step's log, or an object
  env          Add, lock, list, show, compare, export and remove what steps run in
  checkout     Bring files, data or outputs of a version into the working tree
  push         Send code, data, results and logs of a version to a remote, as far as it lacks them
  pull         Get code, data, results and logs of a version from a remote, as far as they are
               missing here
  remote       Say where else objects are: add, list, look at, try and remove remotes
  check        Check that a commit can be replayed by somebody who has nothing but a clone and the
               remote
  fsck         Check that everything in the store is what was written, and repair what is not
  gc           Give back the space of what nothing leads to any more
  store        Show where the store is and who uses it; move it, or share it with other clones
  hooks        Keep snapshots in step with commits, by Git hooks
  schema       Print the JSON schema of `.pipeline/pipeline.yaml`, for editors
  completions  Print the completion script of a shell
  help         Print this message or the help of the given subcommand(s)

Options:
  -h, --help     Print help
  -V, --version  Print version

Options of every command:
  -C <DIR>               Work as if started in this directory
      --pipeline <NAME>  Work on `.pipeline/NAME.yaml` [default: pipeline]
      --json             Print one JSON object instead of text
  -q, --quiet            Print the answer only, nothing on the way

Exit codes: 0 done, 1 a difference was found, 2 bad usage or definition, 3 a step failed, 4 the
store is damaged or an object is missing, 5 an environment cannot be provided, 130 interrupted.

A first round:
  pv init                     make a first pipeline in this repository
  pv run                      bring the results up to date
  pv snapshot --tag v1.0      keep code, configuration, data and environment, and name it
  pv diff v1.0                what changed since
  pv run v1.0                 execute exactly that again, and compare
");
    assert_eq!(project.pv(&["help"]), project.pv(&["--help"]));
    let bare = project.pv(&[]);
    assert_eq!(bare, format!("--- stderr\n{}--- exit 2\n", project.pv(&["-h"])), "no arguments: help, but no success");
    assert!(project.pv(&["--version"]).starts_with("pv "));
}

/// Returns what the help of each command says of its own; the rest must be the same everywhere.
fn helps(verbs: &[&str]) -> String {
    let project = Sandbox::new();
    let mut texts = Vec::new();
    for verb in verbs {
        let help = project.pv_ok(&[verb, "--help"]);
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{verb}: too wide");
        let (own, shared) = help.split_once(SHARED).unwrap_or_else(|| panic!("{verb} has no global options"));
        // Short help aligns options in columns, long help does not.
        let shared = shared.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(
            shared,
            "-C <DIR> Work as if started in this directory --pipeline <NAME> Work on `.pipeline/NAME.yaml` \
             [default: pipeline] --json Print one JSON object instead of text -q, --quiet Print the answer only, \
             nothing on the way"
        );
        let own: Vec<_> = own.trim_end().lines().map(str::trim_end).collect();
        texts.push(format!("$ pv {verb} --help\n{}\n", own.join("\n")));
    }
    texts.join("\n")
}

#[test]
fn the_commands_of_every_day_explain_themselves() {
    insta::assert_snapshot!(helps(&["init", "snapshot", "run", "status", "diff"]), @"
$ pv init --help
Make a first pipeline in this repository

Writes `.pipeline/pipeline.yaml` with one step to start from, unless there is one. Objects and
records will live in the Git directory, where `git status` does not see them. Git remotes are set up
so that `git fetch` brings records, too; of files, nothing else is touched.

Usage: pv init [OPTIONS]

Options:
  -h, --help
          Print help (see a summary with '-h')

$ pv snapshot --help
Keep what determines the results (code, configuration, data, seed), and name it

The snapshot's id depends on content alone: the same content has the same id on every machine.
Neither the index nor HEAD nor your files are touched; for data that Git ignores, one-line pointers
are written below `.pipeline/data`.

Usage: pv snapshot [OPTIONS]

Options:
      --tag <NAME>
          Name the version; in a clean tree this also makes an annotated Git tag

  -m, --message <MESSAGE>
          Say something about it

      --force
          Let the name point here even if it pointed elsewhere before (a Git tag is never moved)

  -h, --help
          Print help (see a summary with '-h')

$ pv run --help
Bring the results of the working tree up to date, or execute a snapshot again

Without a revision: takes a snapshot of the working tree as it is, executes the steps of which no
result is known, takes the others from the store, and puts the outputs into the working tree. With a
revision: executes every step of exactly that snapshot in a clean place and compares each output
with what was recorded; the working tree is not touched.

With steps: these, and those before them where their results are not known. `STEP+` adds all steps
after it; `+STEP` is the same as `STEP`. The name of a step with a matrix means all its
combinations.

A Python environment that steps run in is made first, once for each lock, by uv or pip.

Exit codes: 1 an output differs from the recorded one, 3 a step failed, 5 a step asks for more than
the machine has, or its environment cannot be made, 130 interrupted.

Usage: pv run [OPTIONS] [REVISION | STEP]...

Arguments:
  [REVISION | STEP]...
          A revision (a version, a Git revision, or the first digits of a snapshot or run), then
          steps; each may be left out

Options:
      --step <STEP>
          A step, also if a revision is called the same

      --only
          Only the named steps; of those before them the results must be known

      --again
          Execute the named steps, or all, though their results are known

  -j, --jobs <N>
          How many processors the steps may keep busy at once, mostly one each [default: the number
          of processors]

  -k, --keep-going
          When a step fails, still run those that do not need it

  -n, --dry-run
          Only tell what would be done, and why

      --reuse
          Take known results also when a revision is given

      --restore
          Put the outputs of the revision into the working tree

  -f, --force
          Overwrite outputs in the working tree even if they were changed by hand

      --check-hits <PERCENT>
          Execute so much of what would be taken from known results all the same, to see whether
          they repeat

      --offline
          Ask no remote for what is missing here

  -h, --help
          Print help (see a summary with '-h')

$ pv status --help
Show which steps would run and why, and which data changed

Reads the working tree, writes nothing.

Usage: pv status [OPTIONS]

Options:
  -h, --help
          Print help (see a summary with '-h')

$ pv diff --help
Show what changed between two versions, and what that did to the results

Steps, params, files, data, environment and seed; and where both have been run, outputs and metrics.

Usage: pv diff [OPTIONS] <FROM> [TO]

Arguments:
  <FROM>
          The old side: a version, a Git revision, a snapshot or a run

  [TO]
          The new side [default: the working tree]

Options:
  -p, --patch
          Show the changed lines of files

      --stat
          Show only how much changed

      --exit-code
          End with 1 if there is a difference

      --offline
          Ask no remote for what is missing here

  -h, --help
          Print help (see a summary with '-h')
");
}

#[test]
fn a_shell_where_a_step_failed_explains_itself() {
    insta::assert_snapshot!(helps(&["shell"]), @"
$ pv shell --help
Open a shell where a step has failed, with all that it had and had written

The shell is in the step's directory and sees what the step saw: the files of the snapshot that was
run, what the steps before it wrote, what it had written itself. It has the same namespaces and
exactly the step's variables, and besides: `PV_SHELL` (the step's name), `TERM`, and in an
interactive shell the prompt `PS1`. What you change stays there: it reaches neither the working tree
nor the store, and the next run of the step begins without it.

The shell is the one that `SHELL` names, else `/bin/sh`; it reads no startup files of yours, which
would change the variables. With `-- COMMAND` that is executed instead. With `--json` nothing is
executed: the answer says what would be entered.

Exit codes: that of the shell or the command, 128 plus the number of the signal that ended it, 126
or 127 if the command cannot be executed or is not found, 2 if nothing is kept of the step or
another `pv shell` is in it.

Usage: pv shell [OPTIONS] <STEP> [-- <COMMAND>...]

Arguments:
  <STEP>
          The step that failed

  [COMMAND]...
          What to execute instead of a shell

Options:
  -h, --help
          Print help (see a summary with '-h')
");
}

#[test]
fn the_other_commands_explain_themselves_too() {
    insta::assert_snapshot!(helps(&["why", "log", "show", "checkout", "hooks", "schema", "completions"]), @"
$ pv why --help
Show why a step would run: everything that is not what it was

Compares the working tree with the last result of the step, down to the file, the param, the
variable and the package. Writes nothing.

Usage: pv why [OPTIONS] <STEP>

Arguments:
  <STEP>
          The step

Options:
  -h, --help
          Print help (see a summary with '-h')

$ pv log --help
List snapshots and runs, newest first

Usage: pv log [OPTIONS]

Options:
  -n, --limit <N>  How many entries to show [default: 20]
  -a, --all        Show everything
  -h, --help       Print help

$ pv show --help
Show a snapshot, a run, a step's log, or an object

Given a version, a Git revision or a snapshot: what is in it and what came of it. Given a run: what
each step did. Given the digest of a file: its content.

Usage: pv show [OPTIONS] <REVISION>
       pv show --conflicts

Arguments:
  [REVISION]
          A version, a Git revision, or the first digits of a snapshot, run or object

Options:
      --log <STEP>
          Print what this step printed in the run, or in the newest run of the snapshot

      --conflicts
          List the steps that wrote different outputs though they depended on the same; exit code 1
          if there are any

  -h, --help
          Print help (see a summary with '-h')

$ pv checkout --help
Bring files, data or outputs of a version into the working tree

Without paths: everything that the version has, its outputs where it has been run. What you changed
since is never overwritten without `--force`; files that the version does not have stay. HEAD and
the index are not touched.

Usage: pv checkout [OPTIONS] <REVISION> [PATHS]...

Arguments:
  <REVISION>
          A version, a Git revision, or the first digits of a snapshot or run

  [PATHS]...
          Files or directories, relative to where you are

Options:
  -f, --force
          Overwrite what was changed here

      --link
          Let large files be read-only links into the store, which take no room here: to edit one,
          copy it first

          Only a file that the store keeps whole can be linked. One that it keeps in pieces is made
          whole first, beside its pieces, and takes its room in the store a second time; the answer
          says by how much the store grew.

      --offline
          Ask no remote for what is missing here

  -h, --help
          Print help (see a summary with '-h')

$ pv hooks --help
Keep snapshots in step with commits, by Git hooks

Before a commit, the definition is checked and the data pointers are brought up to date; after it,
the commit is linked to its snapshot; after a checkout or merge, data follows its pointers; before a
push to a remote, records go there. With `git config pv.trailer true`, commit messages name their
snapshot.

Usage: pv hooks [OPTIONS] <COMMAND>

Commands:
  install    Install the hooks, beside those that are there
  uninstall  Take the hooks out, and put back what was there before
  status     Show which hooks are installed
  help       Print this message or the help of the given subcommand(s)

Options:
  -h, --help
          Print help (see a summary with '-h')

$ pv schema --help
Print the JSON schema of `.pipeline/pipeline.yaml`, for editors

Point your editor's YAML support at a file with this in it, and it completes and checks the
definition while you write.

Usage: pv schema [OPTIONS]

Options:
  -h, --help
          Print help (see a summary with '-h')

$ pv completions --help
Print the completion script of a shell

For bash, for example: `pv completions bash > ~/.local/share/bash-completion/completions/pv`

Usage: pv completions [OPTIONS] <SHELL>

Arguments:
  <SHELL>
          Which shell

          [possible values: bash, elvish, fish, powershell, zsh]

Options:
  -h, --help
          Print help (see a summary with '-h')
");
}

#[test]
fn colour_is_for_terminals_only() {
    let project = project();
    project.pv_ok(&["run"]);
    for arguments in [&["status"][..], &["log"], &["run"], &["diff", "HEAD"], &["run", "nosuch"]] {
        let output = project.pv_command(arguments).env("TERM", "xterm-256color").output().unwrap();
        let both = [output.stdout, output.stderr].concat();
        assert!(!both.contains(&0x1b), "{arguments:?}: {}", String::from_utf8_lossy(&both));
    }
    // `script` gives the command a terminal of its own.
    let in_terminal = |name: &str, value: &str| {
        let mut command = project.command_in(&project.path(""), "script");
        command.args(["-qec", &format!("'{}' status", env!("CARGO_BIN_EXE_pv")), "/dev/null"]);
        command.env("TERM", "xterm-256color").env(name, value).output()
    };
    match in_terminal("UNUSED", "1") {
        Ok(output) => {
            assert!(output.stdout.contains(&0x1b), "on a terminal there is colour: {}", project.tell(&output));
            let plain = in_terminal("NO_COLOR", "1").unwrap();
            assert!(!plain.stdout.contains(&0x1b), "NO_COLOR is respected: {}", project.tell(&plain));
        }
        Err(error) => eprintln!("colour on a terminal was not tried, because `script` cannot be started: {error}"),
    }
}

#[test]
fn a_pointer_that_git_ignores_is_told_so_that_it_gets_committed() {
    // `data/` in `.gitignore` means every directory of that name, also `.pipeline/data`: a clone had no data.
    let project = Sandbox::with_pipeline("data: [data]\nsteps: {a: {run: cat data/*, inputs: [data]}}\n");
    project.write("data/a.csv", "1\n");
    let note = "note: Git ignores `.pipeline/data/data`; `git add --force` commits it all the same";
    project.write(".gitignore", "data/\n");
    assert!(project.pv(&["snapshot"]).contains(note));
    assert!(!project.pv(&["snapshot"]).contains(note), "said when it is written, not every time");
    project.write(".gitignore", "/data/\n");
    project.write("data/a.csv", "2\n");
    assert!(!project.pv(&["snapshot"]).contains(note));
}
