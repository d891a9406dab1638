//! The lesson: what its pipeline prints is part of the contract, and so is what comes out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::sandbox::Sandbox;

const LINES: &str = "\
Running pipeline version: v1.0
Step: extract - Extract data from source
Step: transform - Clean and transform data
Step: load - Load data into database
";

/// The snapshot of `fixtures/lesson`, on every machine.
const SNAPSHOT: &str = "21dd9fe9c6ad180bdb214f2e2fcc9c362e924cf1814e8d4c80be7831f0d7c76a";

/// What the steps write. The database is missing: its bytes depend on the version of the library.
const OUTPUTS: [(&str, &str); 4] = [
    ("work/clean.csv", "3f1bd4c5b63136cf3138b0bbe5abfda1df98a0572811af90020ca52f81161e7c"),
    ("work/dropped.csv", "ae29bc50b79e503d93d133e64b2e782469c057a3cfd7b29f2104eb628db93d09"),
    ("work/orders.csv", "81ee50fc07985fda819c4e9f118df81d4ea1b7f22aac1c62c4fa35d4ec43646d"),
    ("work/summary.json", "c28f702c6eec38bb265385443a1105578ad815c9e54b2df99225bf60c25f5fd9"),
];

/// Returns path → digest of every output in the answer of a run.
pub(crate) fn digests(run: &Value) -> BTreeMap<String, String> {
    let steps = run["steps"].as_array().unwrap();
    let outputs = steps.iter().flat_map(|step| step["outputs"].as_array().unwrap());
    outputs.map(|output| (text(&output["path"]), text(&output["digest"]))).collect()
}

/// Returns whether every output in the answer of a run equals what was recorded.
pub(crate) fn equal_what_was_recorded(run: &Value) -> bool {
    let steps = run["steps"].as_array().unwrap();
    steps
        .iter()
        .flat_map(|step| step["outputs"].as_array().unwrap())
        .all(|output| output["digest"] == output["recorded"])
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Returns a fresh clone of the project in another directory.
pub(crate) fn clone(project: &Sandbox, name: &str) -> PathBuf {
    let place = project.beside(name);
    project.git(&["clone", "--quiet", &project.path("").to_string_lossy(), &place.to_string_lossy()]);
    place
}

/// Brings the records of the project into a clone.
pub(crate) fn fetch_records(project: &Sandbox, clone: &Path) {
    project.git_in(clone, &["fetch", "--quiet", "origin", "refs/pv/meta:refs/pv/meta"]);
}

/// Makes the second version of the lesson: another setting, another script.
fn second_version(project: &Sandbox) {
    let params = project.read("params.yaml").replace("min_amount: 10 ", "min_amount: 20 ");
    project.write("params.yaml", params);
    let script = project.read("steps/load.py").replace(", in the order of the\ninput", ", in the input's\norder");
    project.write("steps/load.py", script);
    project.commit("second");
}

#[test]
fn a_version_runs_with_the_four_lines_to_the_letter_and_is_reproduced_bit_for_bit() {
    let project = Sandbox::with_fixture("lesson");
    project.pv_ok(&["snapshot", "--tag", "v1.0"]);
    let first = project.pv_ok(&["run", "v1.0"]);
    assert!(first.starts_with(LINES), "{first}");
    assert_eq!(first.lines().count(), 5, "one more line for the run: {first}");
    let again = project.pv_ok(&["run", "v1.0"]);
    assert!(again.starts_with(LINES), "{again}");
    assert!(again.contains("reproduced, bit for bit, 5 outputs"), "{again}");
}

#[test]
fn its_snapshot_and_its_outputs_have_the_same_digests_on_every_machine() {
    let project = Sandbox::with_fixture("lesson");
    let (snapshot, _) = project.json(&["snapshot", "--tag", "v1.0"]);
    assert_eq!(snapshot["snapshot"], SNAPSHOT);
    let (run, code) = project.json(&["run", "v1.0"]);
    assert_eq!((code, &run["verdict"]), (0, &Value::from("done")));
    let mut digests = digests(&run);
    assert!(digests.remove("work/orders.db").is_some());
    let digests: Vec<_> = digests.iter().map(|(path, digest)| (&**path, &**digest)).collect();
    assert_eq!(digests, OUTPUTS);
}

#[test]
fn a_plain_clone_in_another_directory_replays_it_by_its_hash_to_the_same_digests() {
    let project = Sandbox::with_fixture("lesson");
    project.pv_ok(&["snapshot", "--tag", "v1.0"]);
    let (here, _) = project.json(&["run", "v1.0"]);
    let elsewhere = clone(&project, "far/away/copy");
    let (there, code) = project.json_in(&elsewhere, &["run", &SNAPSHOT[..12]]);
    // The clone has no records yet, so there is nothing to compare with, and it must not claim so.
    assert_eq!((code, &there["verdict"]), (0, &Value::from("done")));
    assert_eq!(there["snapshot"], SNAPSHOT);
    assert_eq!(digests(&there), digests(&here));
    let by_name = project.pv_in(&elsewhere, &["--quiet", "run", "v1.0"]);
    assert!(by_name.starts_with(LINES), "{by_name}");
    assert!(by_name.contains("reproduced, bit for bit, 5 outputs"), "{by_name}");
}

#[test]
fn a_clone_with_the_records_says_that_it_is_reproduced_bit_for_bit() {
    let project = Sandbox::with_fixture("lesson");
    project.pv_ok(&["snapshot", "--tag", "v1.0"]);
    let (here, _) = project.json(&["run", "v1.0"]);
    let elsewhere = clone(&project, "copy");
    fetch_records(&project, &elsewhere);
    let (there, code) = project.json_in(&elsewhere, &["run", &SNAPSHOT[..12]]);
    assert_eq!((code, &there["verdict"]), (0, &Value::from("reproduced")));
    assert_eq!((&there["snapshot"], &there["version"]), (&here["snapshot"], &Value::from("v1.0")));
    assert_eq!(digests(&there), digests(&here));
    assert!(equal_what_was_recorded(&there), "{there}");
    let told = project.pv_in(&elsewhere, &["--quiet", "run", "v1.0"]);
    assert!(told.starts_with(LINES) && told.contains("reproduced, bit for bit, 5 outputs"), "{told}");
}

#[test]
fn what_changed_between_two_versions_is_told_down_to_the_metrics() {
    let project = Sandbox::with_fixture("lesson");
    project.pv_ok(&["snapshot", "--tag", "v1.0"]);
    project.pv_ok(&["run"]);
    second_version(&project);
    project.pv_ok(&["snapshot", "--tag", "v1.1"]);
    project.pv_ok(&["run"]);
    insta::with_settings!({filters => vec![(r"(work/orders.db +).*", "$1[DATABASE]")]}, {
        insta::assert_snapshot!(project.pv(&["diff", "v1.0", "v1.1", "--patch"]), @r#"
from v1.0  snapshot 21dd9fe9c6ad  commit dc63418462
to   v1.1  snapshot cd58c8771880  commit cd2de61dee
Params
  transform.min_amount  10 -> 20
Files
  ~ params.yaml  74 B -> 74 B
  ~ steps/load.py  2.2 KiB -> 2.2 KiB
--- a/params.yaml
+++ b/params.yaml
@@ -1,3 +1,3 @@
 transform:
-  min_amount: 10    # in units of the currency
+  min_amount: 20    # in units of the currency
   currency: EUR
--- a/steps/load.py
+++ b/steps/load.py
@@ -1,7 +1,7 @@
 """Load: put the clean orders into an SQLite database, and sum up what happened.
 
-The database is written from scratch, in one transaction, in the order of the
-input, so that the same orders give the same file, byte for byte.
+The database is written from scratch, in one transaction, in the input's
+order, so that the same orders give the same file, byte for byte.
 
 usage: load.py CLEAN.csv DROPPED.csv ORDERS.db SUMMARY.json
 """
Outputs
  work/clean.csv  3f1bd4c5b631 (5.9 KiB) -> 18375677795d (4.8 KiB)
  work/dropped.csv  ae29bc50b79e (2.0 KiB) -> a2b2d27cf20b (2.6 KiB)
  work/orders.db  [DATABASE]
  work/summary.json  c28f702c6eec (243 B) -> 2353453dc4e9 (243 B)
Metrics
  work/summary.json  rows_dropped.below_the_minimum  6 -> 27  (+21)
  work/summary.json  rows_loaded  114 -> 93  (-21)
  work/summary.json  total_amount  16145.24 -> 15816.46  (-328.78)
"#);
    });
}

#[test]
fn the_old_version_still_runs_from_the_middle_of_new_work() {
    let project = Sandbox::with_fixture("lesson");
    project.pv_ok(&["snapshot", "--tag", "v1.0"]);
    let (first, _) = project.json(&["run", "v1.0"]);
    second_version(&project);
    project.write("steps/transform.py", "raise SystemExit('half-written')\n");
    let (again, code) = project.json(&["run", "v1.0"]);
    assert_eq!((code, &again["verdict"]), (0, &Value::from("reproduced")));
    assert_eq!(digests(&again), digests(&first));
    assert_eq!(project.read("steps/transform.py"), "raise SystemExit('half-written')\n");
    assert!(!project.exists("work"), "a replay leaves the working tree alone");
}
