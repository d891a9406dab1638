//! `pv diff`: what changed, in which order it is told, and what that did to the results.

use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::{Value, json};

use crate::sandbox::Sandbox;

const OLD: &str = "\
seed: 1
params: params.yaml
data: [data/raw]
steps:
  first:
    description: Gather
    run: sh steps/gather.sh
    inputs: [data/raw]
    outputs: [out.txt]
    metrics: [m.json]
    params: [a]
    env: {LEVEL: low}
  second:
    run: sh steps/count.sh
    inputs: [out.txt]
    outputs: [lines.txt]
    timeout: 10
  third:
    run: sh steps/last.sh third.txt
    inputs: [lines.txt]
    outputs: [third.txt]
  same:
    run: sh steps/last.sh same.txt
    inputs: [lines.txt]
    outputs: [same.txt]
";

const NEW: &str = "\
seed: 2
params: params.yaml
data: [data/raw]
steps:
  first:
    description: Gather everything
    run: [sh, steps/gather.sh]
    inputs: [data/raw]
    outputs: [out.txt]
    metrics: [m.json]
    params: [a, b.c]
    env: [LEVEL=high, EXTRA]
  count:
    run: sh steps/count.sh
    inputs: [out.txt]
    outputs: [lines.txt]
    timeout: 20
  fourth:
    needs: count
    run: |
      sh steps/last.sh fifth.txt
      cp fifth.txt fourth.txt
    inputs: [lines.txt]
    outputs: [fourth.txt]
";

/// Two versions that differ in every way there is. `v1` was run; the working tree is at what will be `v2`.
fn changed() -> Sandbox {
    let project = Sandbox::new();
    project.write(".gitignore", "/data/\n/*.out\nout.txt\nm.json\nlines.txt\nthird.txt\nfourth.txt\nsame.txt\n");
    project.write(".pipeline/pipeline.yaml", OLD);
    project.write("params.yaml", "a: 1\nb: {c: 2, d: [1, 2]}\nt: text\ngone: true\n");
    project.write(
        "steps/gather.sh",
        "cat data/raw/* > out.txt\necho '{\"n\": 5, \"deep\": {\"x\": 0.1}, \"s\": \"a\"}' > m.json\n",
    );
    project.write("steps/count.sh", "wc -l < out.txt | tr -d ' ' > lines.txt\n");
    project.write("steps/last.sh", "cat lines.txt > \"$1\"\n");
    project.write("data/raw/a.csv", "1\n2\n3\n");
    project.write("data/raw/b.csv", "4\n");
    project.write("notes/no-end.txt", "one\ntwo\nthree");
    project.write("notes/binary.dat", b"bin\0ary");
    project.write("notes/large.txt", "x".repeat((1 << 20) + 1));
    project.write("notes/old-name.txt", "the same content\n");
    project.write("notes/gone.txt", "gone\n");
    project.write("notes/empty.txt", "");
    project.write("tool.sh", "echo\n");
    symlink("tool.sh", project.path("link")).unwrap();
    project.pv_ok(&["snapshot"]);
    project.commit("first");
    project.pv_ok(&["snapshot", "--tag", "v1"]);
    project.pv_ok(&["run"]);
    project.write(".pipeline/pipeline.yaml", NEW);
    project.write("params.yaml", "a: 1\nb: {c: 3, e: [1, 2]}\nt: other\n");
    project.write(
        "steps/gather.sh",
        project.read("steps/gather.sh").replace('5', "7").replace("0.1", "0.3").replace("\"a\"", "\"b\""),
    );
    project.write("data/raw/a.csv", "1\n2\n3\n30\n");
    std::fs::remove_file(project.path("data/raw/b.csv")).unwrap();
    project.write("data/raw/c.csv", "5\n6\n");
    project.write("notes/no-end.txt", "one\nTWO\nthree\n");
    project.write("notes/binary.dat", b"bin\0bry");
    project.write("notes/large.txt", "y".repeat((1 << 20) + 1));
    std::fs::rename(project.path("notes/old-name.txt"), project.path("notes/new-name.txt")).unwrap();
    std::fs::remove_file(project.path("notes/gone.txt")).unwrap();
    project.write("notes/added.txt", "added, no end of line");
    std::fs::set_permissions(project.path("tool.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::remove_file(project.path("link")).unwrap();
    symlink("params.yaml", project.path("link")).unwrap();
    project
}

/// As [`changed`], with `v2` named and run.
fn two_versions() -> Sandbox {
    let project = changed();
    project.pv_ok(&["snapshot"]);
    project.commit("second");
    project.pv_ok(&["snapshot", "--tag", "v2"]);
    project.pv_ok(&["run"]);
    project
}

/// A project of one step that turns `in.txt` into `out.txt`.
fn small() -> Sandbox {
    let project = Sandbox::new();
    project.write(".gitignore", "out.txt\n");
    project.write(
        ".pipeline/pipeline.yaml",
        "steps: {copy: {run: cat in.txt > out.txt, inputs: [in.txt], outputs: [out.txt]}}\n",
    );
    project.write("in.txt", "1\n");
    project.commit("first");
    project.pv_ok(&["snapshot", "--tag", "v1"]);
    project
}

/// Programs of the system are other bytes on other machines.
macro_rules! assert_told {
    ($text:expr, @$expected:literal) => {
        insta::with_settings!({filters => vec![(r"program (\w+)  (\S+) -> (\S+)", "program $1  [PROGRAM]"), (r"  library \S+  .*\n", "")]}, {
            insta::assert_snapshot!($text, @$expected);
        });
    };
}

#[test]
fn everything_that_changed_is_told_steps_first_and_results_last() {
    let project = two_versions();
    assert_told!(project.pv(&["diff", "v1", "v2"]), @r#"
from v1  snapshot c9a931069641  commit 48c795aa5b
to   v2  snapshot c44e29e3565a  commit a9b89acc75
Steps
  ~ first
      - description: Gather
      + description: Gather everything
      - run: sh steps/gather.sh
      + run: [sh, steps/gather.sh]
      - env: [LEVEL=low]
      + env: [EXTRA, LEVEL=high]
      - params: [a]
      + params: [a, b.c]
  ~ count
      - name: second
      + name: count
      - timeout: 10
      + timeout: 20
  + fourth
      + run: sh steps/last.sh fifth.txt
      + run: cp fifth.txt fourth.txt
      + inputs: [lines.txt]
      + outputs: [fourth.txt]
      + needs: [count]
  - third
      - run: sh steps/last.sh third.txt
      - inputs: [lines.txt]
      - outputs: [third.txt]
  - same
      - run: sh steps/last.sh same.txt
      - inputs: [lines.txt]
      - outputs: [same.txt]
Params
  b.c   2 -> 3
  b.d   [1,2] -> (none)
  b.e   (none) -> [1,2]
  gone  true -> (none)
  t     "text" -> "other"
Files
  ~ .pipeline/pipeline.yaml  504 B -> 495 B
  ~ link  link to tool.sh -> link to params.yaml
  + notes/added.txt  21 B
  ~ notes/binary.dat  7 B -> 7 B
  - notes/gone.txt
  ~ notes/large.txt  1.0 MiB -> 1.0 MiB
  ~ notes/new-name.txt  (renamed from notes/old-name.txt)
  ~ notes/no-end.txt  13 B -> 14 B
  ~ params.yaml  45 B -> 35 B
  ~ steps/gather.sh  80 B -> 80 B
  ~ tool.sh  (mode only)
Data
  data/raw  2 files, 8 B -> 2 files, 13 B  (1 added, 1 removed, 1 modified)
Environment
  program cp  [PROGRAM]  (used by fourth)
Seed
  1 -> 2
Outputs
  fourth.txt  (none) -> 1fad12e6bdb0 (2 B)
  lines.txt  0051fb8f5c82 (2 B) -> 1fad12e6bdb0 (2 B)
  m.json  eb1cb89bfc4f (39 B) -> 1ff2a9a6bb26 (39 B)
  out.txt  0e63e5cf4c70 (8 B) -> 0ae2aca7890f (13 B)
  same.txt  0051fb8f5c82 (2 B) -> (none)
  third.txt  0051fb8f5c82 (2 B) -> (none)
Metrics
  m.json  deep.x  0.1 -> 0.3  (+0.2)
  m.json  n  5 -> 7  (+2)
  m.json  s  "a" -> "b"
"#);
}

#[test]
fn a_patch_shows_lines_where_there_are_lines_and_says_why_where_not() {
    let project = two_versions();
    let told = project.pv(&["diff", "v1", "v2", "--patch"]);
    let plain = project.pv(&["diff", "v1", "v2"]);
    // The patches stand between the list of files and the data; the rest is the same.
    let (before, after) = plain.split_once("Data\n").unwrap();
    let patches = told.strip_prefix(before).unwrap().strip_suffix(after).unwrap();
    insta::assert_snapshot!(patches, @r#"
--- a/.pipeline/pipeline.yaml
+++ b/.pipeline/pipeline.yaml
@@ -1,25 +1,24 @@
-seed: 1
+seed: 2
 params: params.yaml
 data: [data/raw]
 steps:
   first:
-    description: Gather
-    run: sh steps/gather.sh
+    description: Gather everything
+    run: [sh, steps/gather.sh]
     inputs: [data/raw]
     outputs: [out.txt]
     metrics: [m.json]
-    params: [a]
-    env: {LEVEL: low}
-  second:
+    params: [a, b.c]
+    env: [LEVEL=high, EXTRA]
+  count:
     run: sh steps/count.sh
     inputs: [out.txt]
     outputs: [lines.txt]
-    timeout: 10
-  third:
-    run: sh steps/last.sh third.txt
-    inputs: [lines.txt]
-    outputs: [third.txt]
-  same:
-    run: sh steps/last.sh same.txt
+    timeout: 20
+  fourth:
+    needs: count
+    run: |
+      sh steps/last.sh fifth.txt
+      cp fifth.txt fourth.txt
     inputs: [lines.txt]
-    outputs: [same.txt]
+    outputs: [fourth.txt]
link: link to tool.sh -> link to params.yaml
--- /dev/null
+++ b/notes/added.txt
@@ -0,0 +1 @@
+added, no end of line
\ No newline at end of file
notes/binary.dat: binary, 7 bytes -> 7 bytes
--- a/notes/gone.txt
+++ /dev/null
@@ -1 +0,0 @@
-gone
notes/large.txt: too large to compare line by line
--- a/notes/no-end.txt
+++ b/notes/no-end.txt
@@ -1,3 +1,3 @@
 one
-two
-three
\ No newline at end of file
+TWO
+three
--- a/params.yaml
+++ b/params.yaml
@@ -1,4 +1,3 @@
 a: 1
-b: {c: 2, d: [1, 2]}
-t: text
-gone: true
+b: {c: 3, e: [1, 2]}
+t: other
--- a/steps/gather.sh
+++ b/steps/gather.sh
@@ -1,2 +1,2 @@
 cat data/raw/* > out.txt
-echo '{"n": 5, "deep": {"x": 0.1}, "s": "a"}' > m.json
+echo '{"n": 7, "deep": {"x": 0.3}, "s": "b"}' > m.json
Data
"#);
    let (object, _) = project.json(&["diff", "v1", "v2", "--patch"]);
    assert_eq!(object["patches"]["notes/gone.txt"], "--- a/notes/gone.txt\n+++ /dev/null\n@@ -1 +0,0 @@\n-gone\n");
    let (object, _) = project.json(&["diff", "v1", "v2"]);
    assert!(object.get("patches").is_none(), "only on request");
}

#[test]
fn statistics_are_one_line() {
    let project = two_versions();
    let told = project.pv(&["diff", "v1", "v2", "--stat"]);
    // Which libraries a program loads differs between machines.
    insta::with_settings!({filters => vec![(r"\d+ environment facts?", "[N] environment facts")]}, {
    insta::assert_snapshot!(told, @"
from v1  snapshot c9a931069641  commit 48c795aa5b
to   v2  snapshot c44e29e3565a  commit a9b89acc75
5 steps, 5 params, 11 files, 1 data root, [N] environment facts, 1 seed, 6 outputs, 3 metrics changed
");
    });
}

#[test]
fn the_other_direction_is_told_the_other_way_round() {
    let project = two_versions();
    let (there, _) = project.json(&["diff", "v1", "v2"]);
    let (back, _) = project.json(&["diff", "v2", "v1"]);
    assert_eq!((&there["from"], &there["to"]), (&back["to"], &back["from"]));
    for list in ["params", "outputs", "metrics", "environment"] {
        let sides = |diff: &Value, old: &str, new: &str| -> Vec<(Value, Value)> {
            diff[list].as_array().unwrap().iter().map(|item| (item[old].clone(), item[new].clone())).collect()
        };
        assert_eq!(sides(&there, "old", "new"), sides(&back, "new", "old"), "{list}");
        assert!(!there[list].as_array().unwrap().is_empty() || list == "environment", "{list}");
    }
    assert_eq!((&there["seed"], &back["seed"]), (&json!([1, 2]), &json!([2, 1])));
}

#[test]
fn the_object_for_programs_has_the_promised_shape() {
    let project = two_versions();
    let (diff, code) = project.json(&["diff", "v1", "v2"]);
    assert_eq!(code, 0, "a difference is no failure unless asked for");
    let keys: Vec<_> = diff.as_object().unwrap().keys().map(String::as_str).collect();
    for key in ["from", "to", "steps", "params", "files", "outputs", "metrics", "environment", "seed"] {
        assert!(keys.contains(&key), "{key} is missing in {keys:?}");
    }
    for side in ["from", "to"] {
        assert_eq!(diff[side]["snapshot"].as_str().unwrap().len(), 64);
        assert_eq!(diff[side]["commit"].as_str().unwrap().len(), 40);
        assert_eq!(diff[side]["dirty"], false);
    }
    let step = |name: &str| diff["steps"].as_array().unwrap().iter().find(|step| step["step"] == name).unwrap();
    assert_eq!(
        step("first"),
        &json!({"step": "first", "change": "modified", "fields": [
            {"field": "description", "old": "Gather", "new": "Gather everything"},
            {"field": "run", "old": "sh steps/gather.sh", "new": ["sh", "steps/gather.sh"]},
            {"field": "env", "old": ["LEVEL=low"], "new": ["EXTRA", "LEVEL=high"]},
            {"field": "params", "old": ["a"], "new": ["a", "b.c"]},
        ]})
    );
    assert_eq!(
        step("count")["fields"],
        json!([{"field": "name", "old": "second", "new": "count"}, {"field": "timeout", "old": 10, "new": 20}])
    );
    assert_eq!((&step("fourth")["change"], &step("third")["change"]), (&json!("added"), &json!("removed")));
    assert_eq!(
        diff["params"],
        json!([
            {"key": "b.c", "old": 2, "new": 3},
            {"key": "b.d", "old": [1, 2], "new": null},
            {"key": "b.e", "old": null, "new": [1, 2]},
            {"key": "gone", "old": true, "new": null},
            {"key": "t", "old": "text", "new": "other"},
        ])
    );
    let file = |path: &str| diff["files"].as_array().unwrap().iter().find(|file| file["path"] == path).unwrap();
    let of = |content: &str| Value::from(blake3::hash(content.as_bytes()).to_hex().to_string());
    assert_eq!((&file("notes/added.txt")["change"], &file("notes/added.txt")["old"]), (&json!("added"), &json!(null)));
    assert_eq!(file("notes/added.txt")["new"], of("added, no end of line"));
    assert_eq!((&file("notes/gone.txt")["change"], &file("notes/gone.txt")["old"]), (&json!("removed"), &of("gone\n")));
    assert_eq!((&file("tool.sh")["change"], &file("link")["change"]), (&json!("mode"), &json!("modified")));
    assert_eq!(
        (&file("notes/new-name.txt")["change"], &file("notes/new-name.txt")["from"]),
        (&json!("renamed"), &json!("notes/old-name.txt"))
    );
    // The delta is that of binary fractions, and is written with all their digits.
    let mut metrics = diff["metrics"].clone();
    let delta = metrics[0]["delta"].take().as_f64().unwrap();
    assert!((delta - 0.2).abs() < 1e-12, "{delta}");
    assert_eq!(
        metrics,
        json!([
            {"path": "m.json", "key": "deep.x", "old": 0.1, "new": 0.3, "delta": null},
            {"path": "m.json", "key": "n", "old": 5, "new": 7, "delta": 2.0},
            {"path": "m.json", "key": "s", "old": "a", "new": "b"},
        ])
    );
    assert_eq!(diff["data"][0]["path"], "data/raw");
    let outputs: Vec<_> = diff["outputs"].as_array().unwrap().iter().map(|o| o["path"].as_str().unwrap()).collect();
    assert_eq!(outputs, ["fourth.txt", "lines.txt", "m.json", "out.txt", "same.txt", "third.txt"]);
    assert_eq!(diff["seed"], json!([1, 2]));
}

#[test]
fn without_a_second_side_the_working_tree_is_meant_and_nothing_is_written() {
    let project = changed();
    let listing = |project: &Sandbox| {
        let files = walkdir::WalkDir::new(project.path(".git/pv")).sort_by_file_name().into_iter().map(Result::unwrap);
        files.map(|entry| (entry.path().to_owned(), entry.metadata().unwrap().len())).collect::<Vec<_>>()
    };
    let (before, git) = (listing(&project), project.git(&["status", "--porcelain"]));
    let told = project.pv(&["diff", "v1", "--stat"]);
    insta::assert_snapshot!(told, @"
from v1  snapshot c9a931069641  commit 48c795aa5b
to   the working tree  snapshot c44e29e3565a  commit 48c795aa5b  with changes
5 steps, 5 params, 11 files, 1 data root, 1 seed changed
");
    // Also what is only in the working tree can be shown line by line.
    let told = project.pv(&["diff", "v1", "--patch"]);
    assert!(told.contains("+added, no end of line\n\\ No newline at end of file\n"), "{told}");
    assert_eq!(listing(&project), before, "the store is as it was");
    assert_eq!(project.git(&["status", "--porcelain"]), git);
    let told = project.pv(&["diff", "v1"]);
    assert!(told.ends_with("Outputs\n  not compared: the working tree has not been run\n"), "{told}");
}

#[test]
fn a_version_does_not_differ_from_itself() {
    let project = small();
    project.pv_ok(&["run"]);
    insta::assert_snapshot!(project.pv(&["diff", "v1", "v1", "--exit-code"]) + &project.pv(&["diff", "v1", "--exit-code"]), @"
from v1  snapshot d82ec40b9209  commit 98c02a8c3a
to   v1  snapshot d82ec40b9209  commit 98c02a8c3a
No difference.
from v1  snapshot d82ec40b9209  commit 98c02a8c3a
to   the working tree  snapshot d82ec40b9209  commit 98c02a8c3a
No difference.
");
    let (diff, code) = project.json(&["diff", "v1", "HEAD", "--exit-code"]);
    assert_eq!(code, 0);
    for list in ["steps", "params", "files", "data", "environment", "outputs", "metrics"] {
        assert_eq!(diff[list], json!([]), "{list}");
    }
    assert_eq!(diff["seed"], json!(null));
}

#[test]
fn a_difference_ends_with_1_only_if_asked() {
    let project = small();
    project.write("in.txt", "2\n");
    for arguments in [&["diff", "v1"][..], &["diff", "v1", "--stat"], &["--json", "diff", "v1"]] {
        let plain = project.pv_command(arguments).output().unwrap();
        let asked = project.pv_command(&[arguments, &["--exit-code"]].concat()).output().unwrap();
        assert_eq!((plain.status.code(), asked.status.code()), (Some(0), Some(1)), "{arguments:?}");
        assert_eq!(plain.stdout, asked.stdout);
    }
}

#[test]
fn sides_that_were_not_run_are_named() {
    let project = small();
    project.write("in.txt", "2\n");
    project.commit("second");
    project.pv_ok(&["snapshot", "--tag", "v2"]);
    let last = || project.pv(&["diff", "v1", "v2"]).lines().last().unwrap().to_owned();
    assert_eq!(last(), "  not compared: v1 and v2 have not been run");
    project.pv_ok(&["run", "v2"]);
    assert_eq!(last(), "  not compared: v1 has not been run");
    let (diff, _) = project.json(&["diff", "v1", "v2"]);
    assert_eq!((&diff["from"]["run"], &diff["outputs"]), (&json!(null), &json!([])));
    project.pv_ok(&["run", "v1"]);
    insta::assert_snapshot!(project.pv(&["diff", "v1", "v2"]), @"
from v1  snapshot d82ec40b9209  commit 98c02a8c3a
to   v2  snapshot 1319648dceee  commit c5cdd6babc
Files
  ~ in.txt  2 B -> 2 B
Outputs
  out.txt  50cc1102b1c6 (2 B) -> b9a1a3183dd3 (2 B)
");
}

#[test]
fn a_change_without_effect_is_told_as_such() {
    let project = small();
    project.pv_ok(&["run"]);
    project.write("README", "words\n");
    project.commit("second");
    project.pv_ok(&["snapshot", "--tag", "v2"]);
    project.pv_ok(&["run"]);
    insta::assert_snapshot!(project.pv(&["diff", "v1", "v2"]), @"
from v1  snapshot d82ec40b9209  commit 98c02a8c3a
to   v2  snapshot b591d1c170b3  commit 3c34f09260
Files
  + README  6 B
Outputs
  all equal
");
}

#[test]
fn a_step_that_was_renamed_in_place_is_one_step() {
    let project = small();
    let renamed = project.read(".pipeline/pipeline.yaml").replace("copy:", "duplicate:");
    project.write(".pipeline/pipeline.yaml", renamed);
    let (diff, _) = project.json(&["diff", "v1"]);
    assert_eq!(
        diff["steps"],
        json!([{"step": "duplicate", "change": "modified", "fields": [{"field": "name", "old": "copy", "new": "duplicate"}]}])
    );
}

#[test]
fn of_a_long_command_only_the_lines_that_changed_are_shown() {
    let lines = |word: &str| {
        format!(
            "steps:\n  a:\n    run: |\n      echo 1\n      echo 2\n      echo {word}\n      echo 4\n    inputs: []\n    env: [A=1]\n"
        )
    };
    let project = Sandbox::with_pipeline(&lines("three"));
    project.pv_ok(&["snapshot", "--tag", "v1"]);
    project.write(".pipeline/pipeline.yaml", lines("3") + "    needs: []\n");
    let told = project.pv(&["diff", "v1"]);
    let steps = &told[told.find("Steps").unwrap()..told.find("Files").unwrap()];
    insta::assert_snapshot!(steps, @"
Steps
  ~ a
      - run: echo three
      + run: echo 3
");
}

#[test]
fn a_tool_that_changed_is_told_for_two_runs_of_one_snapshot() {
    // The snapshot is the same and the outputs are the same; the machine is not.
    let project = Sandbox::with_pipeline("steps: {fit: {run: fit > out.txt, inputs: [], outputs: [out.txt]}}\n");
    let bin = project.beside("bin");
    std::fs::create_dir(&bin).unwrap();
    let run = |script: &str| {
        std::fs::write(bin.join("fit"), script).unwrap();
        std::fs::set_permissions(bin.join("fit"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let output = project.pv_command(&["--json", "run"]).env("PATH", path).output().unwrap();
        assert!(output.status.success(), "{}", project.tell(&output));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        answer["run"].as_str().unwrap().to_owned()
    };
    let (first, second) = (run("#!/bin/sh\necho 1\n"), run("#!/bin/sh\n# faster\necho 1\n"));
    assert_ne!(first, second);
    insta::assert_snapshot!(project.pv(&["diff", &first, &second, "--exit-code"]), @"
from 19c5ec2b7c91  commit 646f5f29fb
to   19c5ec2b7c91  commit 646f5f29fb
Environment
  program fit  f637748e7bdc -> d3be83fbbe77  (used by fit)
Outputs
  all equal
--- exit 1
");
    insta::assert_snapshot!(project.pv(&["diff", &first, &first, "--exit-code"]), @"
from 19c5ec2b7c91  commit 646f5f29fb
to   19c5ec2b7c91  commit 646f5f29fb
No difference.
");
}

#[test]
fn many_files_are_listed_up_to_a_number_and_counted_beyond_it() {
    let project = small();
    for number in 0..60 {
        project.write(&format!("many/{number:02}.txt"), number.to_string());
    }
    let told = project.pv(&["diff", "v1"]);
    assert!(told.contains("  + many/49.txt  2 B\n  and 10 more files\n"), "{told}");
    let (diff, _) = project.json(&["diff", "v1"]);
    assert_eq!(diff["files"].as_array().unwrap().len(), 60);
}
