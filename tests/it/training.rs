//! A real training: scikit-learn, a pickled model, metrics. And the environment that it runs in.

use serde_json::Value;

use crate::lesson::{clone, digests, equal_what_was_recorded, fetch_records};
use crate::sandbox::Sandbox;

/// Returns the fixture in a repository of its own, on a machine that can run it.
fn training() -> Sandbox {
    let project = Sandbox::with_fixture("training");
    let found = project.command_in(&project.path(""), "python3").args(["-c", "import sklearn"]).output();
    let can = found.is_ok_and(|output| output.status.success());
    assert!(can, "the first `python3` on PATH has no scikit-learn: run the tests with `make test`, which installs it");
    project
}

fn verdicts(answer: &Value) -> Vec<(&str, &str, &str)> {
    let steps = answer["steps"].as_array().unwrap().iter();
    steps
        .map(|s| (s["step"].as_str().unwrap(), s["verdict"].as_str().unwrap(), s["reason"].as_str().unwrap()))
        .collect()
}

#[test]
fn a_model_comes_out_of_a_fresh_clone_bit_for_bit() {
    let project = training();
    let (snapshot, _) = project.json(&["snapshot", "--tag", "v1.0"]);
    let (here, code) = project.json(&["run", "v1.0"]);
    assert_eq!((code, &here["verdict"]), (0, &Value::from("done")), "{here}");
    let id = snapshot["snapshot"].as_str().unwrap();
    let elsewhere = clone(&project, "elsewhere/copy");
    let (there, code) = project.json_in(&elsewhere, &["run", &id[..12]]);
    assert_eq!((code, &there["verdict"], &there["snapshot"]), (0, &Value::from("done"), &snapshot["snapshot"]));
    assert_eq!(digests(&there), digests(&here));
    assert!(digests(&there).contains_key("work/model.pkl"), "{there}");
    let informed = clone(&project, "informed");
    fetch_records(&project, &informed);
    let (there, code) = project.json_in(&informed, &["run", &id[..12]]);
    assert_eq!((code, &there["verdict"]), (0, &Value::from("reproduced")));
    assert!(equal_what_was_recorded(&there), "{there}");
    assert_eq!(digests(&there), digests(&here));
}

#[test]
fn a_helper_that_nobody_declared_reruns_exactly_the_steps_that_import_it() {
    let project = training();
    project.pv_ok(&["run"]);
    // Imported by `prepare` and `train`, not by `evaluate`; the results stay the same.
    project.write("steps/settings.py", project.read("steps/settings.py") + "\n# a remark\n");
    let (status, _) = project.json(&["status"]);
    assert_eq!(
        verdicts(&status),
        [
            ("prepare", "stale", "`steps/settings.py` changed"),
            ("train", "stale", "it runs after `prepare`"),
            ("evaluate", "stale", "it runs after `prepare`, `train`"),
        ]
    );
    let (run, _) = project.json(&["run"]);
    assert_eq!(
        verdicts(&run),
        [
            ("prepare", "ran", "`steps/settings.py` changed"),
            ("train", "ran", "`steps/settings.py` changed"),
            ("evaluate", "reused", "nothing it depends on changed"),
        ]
    );
    // Imported by all three. Both runs were at the same moment of the sandbox's clock, so either may be the last one.
    project.write("steps/features.py", project.read("steps/features.py") + "\n# a remark\n");
    let (run, _) = project.json(&["run"]);
    let verdicts = verdicts(&run);
    for (step, (name, verdict, reason)) in ["prepare", "train", "evaluate"].into_iter().zip(verdicts) {
        assert_eq!((name, verdict), (step, "ran"));
        assert!(reason.contains("`steps/features.py` changed"), "{reason}");
    }
}

#[test]
fn a_changed_param_shows_what_it_did_to_the_metrics() {
    let project = training();
    project.pv_ok(&["snapshot", "--tag", "v1.0"]);
    project.pv_ok(&["run"]);
    project.write("params.yaml", project.read("params.yaml").replace("max_depth: 6", "max_depth: 1"));
    project.commit("shallow");
    project.pv_ok(&["snapshot", "--tag", "v1.1"]);
    let (run, _) = project.json(&["run"]);
    assert_eq!(
        verdicts(&run).iter().map(|(step, verdict, _)| (*step, *verdict)).collect::<Vec<_>>(),
        [("prepare", "reused"), ("train", "ran"), ("evaluate", "ran")]
    );
    let (diff, _) = project.json(&["diff", "v1.0", "v1.1"]);
    assert_eq!(diff["params"], serde_json::json!([{"key": "model.max_depth", "old": 6, "new": 1}]));
    let loss = diff["metrics"].as_array().unwrap().iter().find(|metric| metric["key"] == "log_loss").unwrap();
    let number = |field: &str| loss[field].as_f64().unwrap();
    assert!(number("new") > number("old"), "a model of depth 1 is worse: {loss}");
    assert!((number("delta") - (number("new") - number("old"))).abs() < 1e-12, "{loss}");
    // The numbers themselves are those of the machine's arithmetic.
    insta::with_settings!({filters => vec![
        (r"[0-9a-f]{12} \([0-9.]+ (B|KiB)\)", "[DIGEST] ([SIZE])"),
        (r"0\.\d+", "[NUMBER]"),
    ]}, {
        insta::assert_snapshot!(project.pv(&["diff", "v1.0", "v1.1"]), @"
from v1.0  snapshot 12ae70e5d6f3  commit 198148e9e1
to   v1.1  snapshot 77160a1fc44a  commit 03fbc5e1ac
Params
  model.max_depth  6 -> 1
Files
  ~ params.yaml  85 B -> 85 B
Outputs
  work/metrics.json  [DIGEST] ([SIZE]) -> [DIGEST] ([SIZE])
  work/model.pkl  [DIGEST] ([SIZE]) -> [DIGEST] ([SIZE])
Metrics
  work/metrics.json  accuracy  [NUMBER] -> [NUMBER]  (-[NUMBER])
  work/metrics.json  f1  [NUMBER] -> [NUMBER]  (-[NUMBER])
  work/metrics.json  log_loss  [NUMBER] -> [NUMBER]  (+[NUMBER])
");
    });
}

/// Makes a Python environment with one distribution in it, and returns its `bin`.
fn python_with(project: &Sandbox, name: &str, distribution: &str) -> String {
    let real = project
        .command_in(&project.path(""), "python3")
        .args(["-c", "import os, sys; print(os.path.realpath(sys.executable)); print('%d.%d' % sys.version_info[:2])"])
        .output()
        .unwrap();
    let real = String::from_utf8(real.stdout).unwrap();
    let (python, version) = real.trim().split_once('\n').unwrap();
    let home = python.rsplit_once('/').unwrap().0;
    let place = project.beside(name);
    let packages = place.join("lib").join(format!("python{version}")).join("site-packages");
    let information = packages.join(format!("{distribution}.dist-info"));
    let module = distribution.split('-').next().unwrap();
    std::fs::create_dir_all(&information).unwrap();
    std::fs::create_dir_all(packages.join(module)).unwrap();
    std::fs::write(packages.join(module).join("__init__.py"), "").unwrap();
    std::fs::write(information.join("RECORD"), format!("{module}/__init__.py,,\n")).unwrap();
    std::fs::create_dir_all(place.join("bin")).unwrap();
    std::fs::write(place.join("pyvenv.cfg"), format!("home = {home}\ninclude-system-site-packages = false\n")).unwrap();
    std::os::unix::fs::symlink(python, place.join("bin/python3")).unwrap();
    place.join("bin").to_string_lossy().into_owned()
}

#[test]
fn a_package_of_another_version_reruns_the_steps_and_is_named_by_the_diff() {
    // Needs no scikit-learn: any distribution will do.
    let project = Sandbox::with_fixture("lesson");
    let script = project.read("steps/extract.py");
    project.write("steps/extract.py", script.replace("import csv\n", "import csv\nimport widgets\n"));
    project.commit("uses widgets");
    let (old, new) = (python_with(&project, "old", "widgets-1.0"), python_with(&project, "new", "widgets-2.0"));
    let pv = |bin: &str, arguments: &[&str]| {
        let path = format!("{bin}:{}", std::env::var("PATH").unwrap());
        let output = project.pv_command(&[&["--json"], arguments].concat()).env("PATH", path).output().unwrap();
        assert!(output.status.success(), "{}", project.tell(&output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let first = pv(&old, &["run"]);
    assert!(verdicts(&pv(&old, &["status"])).iter().all(|(_, verdict, _)| *verdict == "current"));
    let status = pv(&new, &["status"]);
    assert_eq!(verdicts(&status)[0], ("extract", "stale", "`widgets` 1.0 -> 2.0, loaded by `extract`"));
    let second = pv(&new, &["run"]);
    let ran = verdicts(&second).iter().map(|(_, verdict, _)| *verdict).collect::<Vec<_>>();
    assert_eq!(ran, ["ran", "reused", "reused"], "only who loads it runs again, and what it writes is as before");
    let [first, second] = [first, second].map(|run| run["run"].as_str().unwrap()[..12].to_owned());
    // One snapshot, the same outputs: only the environment differs, and that is a difference.
    insta::assert_snapshot!(project.pv(&["diff", &first, &second, "--exit-code"]), @"
from 64bdd7482d3e  commit 0640b9841f
to   64bdd7482d3e  commit 0640b9841f
Environment
  package widgets  1.0 -> 2.0  (loaded by extract)
Outputs
  all equal
--- exit 1
");
    let (diff, _) = project.json(&["diff", &first, &second]);
    assert_eq!(
        diff["environment"],
        serde_json::json!([
            {"name": "package widgets", "old": "1.0", "new": "2.0", "steps": ["extract"]}
        ])
    );
}
