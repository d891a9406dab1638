//! What `pv verify` tells, what it leaves behind, and what becomes of it when it is stopped.

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fault::needs;
use crate::plain::confined;
use crate::sandbox::Sandbox;

/// Nothing here takes this long unless it hangs.
const HANGS_AFTER: Duration = Duration::from_secs(120);

/// A project of three steps that were run once. The second writes down the date; each tells outside how often it was executed.
struct Dated {
    project: Sandbox,
}

impl Dated {
    fn new() -> Self {
        let project = Sandbox::new();
        let count = |step: &str| format!("echo >> {}/{step}.count", project.beside("").display());
        let definition = json!({"steps": {
            "first": {"run": count("first") + "; echo 1 > a.txt", "inputs": [], "outputs": ["a.txt"]},
            "second": {
                "run": count("second") + "; (cat a.txt; date -u +%F) > b.txt",
                "inputs": ["a.txt"],
                "outputs": ["b.txt"],
            },
            "third": {"run": count("third") + "; head -1 b.txt > c.txt", "inputs": ["b.txt"], "outputs": ["c.txt"]},
        }});
        project.write(".pipeline/pipeline.yaml", definition.to_string());
        project.write(".gitignore", "/*.txt\n");
        project.commit("first");
        project.pv_ok(&["run"]);
        Self { project }
    }

    /// Returns how often each step was executed since this was asked the last time.
    fn executed(&self) -> [usize; 3] {
        ["first", "second", "third"].map(|step| {
            let path = self.project.beside(&format!("{step}.count"));
            let lines = std::fs::read_to_string(&path).unwrap_or_default().lines().count();
            let _ = std::fs::remove_file(path);
            lines
        })
    }
}

/// Returns nothing where `answer` says that not everything could be pinned, after saying so.
fn pinned(test: &str, answer: &Value) -> Option<()> {
    let rung = &answer["engine"]["rung"];
    needs(
        test,
        "a machine on which everything can be pinned",
        if rung == "full" { Ok(()) } else { Err(rung.to_string()) },
    )
}

/// Returns the verifications on record in a repository, oldest first.
fn recorded(directory: &Path) -> Vec<Value> {
    let directory = directory.join(".git/pv/records/verification");
    let mut paths: Vec<_> =
        std::fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()).collect()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < HANGS_AFTER, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_does_not_repeat_is_told_with_its_place_and_nothing_of_it_is_taken_for_a_result() {
    let dated = Dated::new();
    let project = &dated.project;
    let (answer, code) = project.json(&["verify", "second"]);
    assert_eq!(code, 1, "{answer}");
    if pinned("what_does_not_repeat_is_told", &answer).is_none() {
        return;
    }
    insta::with_settings!({filters => vec![
        (r"\d{4}-\d\d-\d\d", "[DATE]"),
        (r"(?m)^[0-9a-f]{12} ", "[SNAPSHOT] "),
    ]}, {
        insta::assert_snapshot!(project.pv(&["verify"]), @"
        identical  first  2 runs, [TIME]
        different  second  2 runs, [TIME]
                   b.txt: line 2 [DATE] -> [DATE]
        identical  third  2 runs, [TIME]
        [SNAPSHOT] does not repeat, 6 runs
        varied: clock, cpu-count, dir-order, input-mtime, schedule
        `pv verify --why` searches for the cause
        --- exit 1
        ");
    });
    let status = project.json(&["status"]).0;
    assert!(status["steps"].as_array().unwrap().iter().all(|step| step["verdict"] == "current"), "{status}");
    let _ = dated.executed();
    std::fs::remove_file(project.path("b.txt")).unwrap();
    project.pv_ok(&["run"]);
    assert_eq!(dated.executed(), [0, 0, 0], "what is on record is good");
    let today = project.read("b.txt");
    project.pv_ok(&["run", "--again"]);
    assert_eq!(project.read("b.txt"), today, "it was the date of the run, none of a trial");
}

#[test]
fn the_answer_has_the_same_keys_for_machines_whatever_comes_of_it() {
    let dated = Dated::new();
    let (answer, code) = dated.project.json(&["verify", "--runs", "3"]);
    if pinned("the_answer_has_the_same_keys", &answer).is_none() {
        return;
    }
    let _ = dated.executed();
    let (why, _) = dated.project.json(&["verify", "--why", "second"]);
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    for answer in [&answer, &why] {
        assert_eq!(keys(answer), "allowed engine level snapshot steps");
        assert_eq!(keys(&answer["engine"]), "rung varied");
        for step in answer["steps"].as_array().unwrap() {
            assert_eq!(keys(step), "allowed causes elapsed_ms level notes outputs runs step");
            step["outputs"].as_array().unwrap().iter().for_each(|output| assert_eq!(keys(output), "detail level path"));
        }
    }
    let levels = |answer: &Value| -> Vec<Value> {
        answer["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|step| json!([step["step"], step["level"], step["runs"]]))
            .collect()
    };
    assert_eq!(code, 1);
    assert_eq!(
        levels(&answer),
        [json!(["first", "identical", 3]), json!(["second", "different", 3]), json!(["third", "identical", 3])]
    );
    assert_eq!(answer["engine"]["varied"], json!(["clock", "cpu-count", "dir-order", "input-mtime", "schedule"]));
    let causes = why["steps"][0]["causes"].as_array().unwrap();
    assert_eq!(causes.len(), 1, "{why}");
    assert_eq!(keys(&causes[0]), "cause confirmed evidence fix places");
    assert_eq!((&causes[0]["cause"], &causes[0]["confirmed"]), (&json!("clock"), &json!(true)));
    assert!(causes[0]["places"][0].as_str().unwrap().starts_with("b.txt: line 2 "), "{why}");
    let runs = usize::try_from(why["steps"][0]["runs"].as_u64().unwrap()).unwrap();
    assert_eq!(dated.executed(), [0, runs, 0], "a step in the middle alone is executed again");
}

#[test]
fn steps_and_a_revision_are_chosen_by_their_names_and_the_working_tree_stays() {
    let dated = Dated::new();
    let project = &dated.project;
    project.pv_ok(&["snapshot", "--tag", "v1"]);
    project.write(".pipeline/pipeline.yaml", "steps:\n  other:\n    run: date > other.txt\n    outputs: [other.txt]\n");
    let _ = dated.executed();
    let told = project.pv(&["verify", "v1", "first", "third"]);
    assert!(!told.contains("--- exit"), "{told}");
    assert!(told.contains("v1 repeats, bit for bit, 4 runs"), "{told}");
    assert_eq!(dated.executed(), [2, 0, 2]);
    assert_eq!(project.json(&["verify", "v1", "second"]).1, 1);
    assert_eq!(dated.executed(), [0, 2, 0]);
    assert!(!project.exists("other.txt"));
    let told = project.pv(&["verify", "v1", "fourth"]);
    assert!(told.contains("error: ") && told.contains("`fourth`") && told.ends_with("--- exit 2\n"), "{told}");
}

#[test]
fn a_search_ends_with_its_budget_and_says_so() {
    let dated = Dated::new();
    let _ = dated.executed();
    let (answer, code) = dated.project.json(&["verify", "--why", "first", "--budget", "3"]);
    assert_eq!((code, &answer["steps"][0]["level"]), (0, &json!("identical")), "{answer}");
    assert_eq!(dated.executed(), [3, 0, 0]);
    let notes = &answer["steps"][0]["notes"];
    assert_eq!(*notes, json!(["the budget of 3 runs was used up before everything was tried"]));
    let (answer, code) = dated.project.json(&["verify", "--why", "first", "--budget", "0s"]);
    assert_eq!((code, &answer["steps"][0]["runs"]), (0, &json!(1)), "what began before goes on: {answer}");
    assert_eq!(answer["steps"][0]["notes"], json!(["the budget of 0 s was used up before everything was tried"]));
    assert_eq!(dated.project.json(&["verify", "--why", "first", "--budget", "600s"]).0["steps"][0]["notes"], json!([]));
    for wrong in [&["--why", "--budget", "1"][..], &["--why", "--budget", "3w"], &["--budget", "3"], &["--runs", "0"]] {
        let told = dated.project.pv(&[&["verify"], wrong].concat());
        assert!(told.ends_with("--- exit 2\n"), "{wrong:?}: {told}");
    }
}

#[test]
fn a_tolerance_in_the_definition_lets_numbers_be_close() {
    let project = Sandbox::new();
    let define = |output: Value| {
        let step = json!({"run": "echo \"{\\\"loss\\\": 0.5000000$(date -u +%Y)}\" > x.json", "inputs": [], "outputs": [output]});
        project.write(".pipeline/pipeline.yaml", json!({"steps": {"fit": step}}).to_string());
    };
    project.write(".gitignore", "/x.json\n");
    define(json!("x.json"));
    project.commit("first");
    project.pv_ok(&["run"]);
    let (answer, code) = project.json(&["verify"]);
    if pinned("a_tolerance_in_the_definition", &answer).is_none() {
        return;
    }
    assert_eq!((code, &answer["allowed"]), (1, &json!(false)), "{answer}");
    define(json!({"path": "x.json", "compare": {"level": "close", "rtol": 1e-6}}));
    let (answer, code) = project.json(&["verify"]);
    assert_eq!((code, &answer["level"], &answer["allowed"]), (0, &json!("close"), &json!(true)), "{answer}");
    assert_eq!(answer["steps"][0]["outputs"][0]["detail"]["errors"]["elements"], 1);
    define(json!({"path": "x.json", "compare": {"level": "close", "rtol": 1e-12}}));
    assert_eq!(project.json(&["verify"]).1, 1, "it is not as close as that");
}

#[test]
fn a_step_that_fails_is_told_as_one() {
    let project = Sandbox::new();
    let gate = project.beside("gate");
    let step = json!({
        // Who makes something depends on nothing, so it is not noticed that the second one cannot.
        "run": format!("mkdir {} || {{ echo there is a gate; exit 7; }}; echo 1 > a.txt", gate.display()),
        "inputs": [],
        "outputs": ["a.txt"],
    });
    project.write(".pipeline/pipeline.yaml", json!({"steps": {"step": step}}).to_string());
    project.write(".gitignore", "/a.txt\n");
    project.commit("first");
    std::fs::create_dir(&gate).unwrap();
    let told = project.pv(&["verify"]);
    assert!(told.contains("step `step` is executed first: it has not run before\n"), "{told}");
    assert!(told.contains("  there is a gate\n"), "{told}");
    assert!(told.ends_with("error: step `step` failed: it exited with code 7\n--- exit 3\n"), "{told}");
    let (answer, code) = project.json(&["verify"]);
    assert_eq!((code, &answer["error"]), (3, &json!("step `step` failed: it exited with code 7")), "{answer}");
    assert_eq!(recorded(&project.path("")), [] as [Value; 0], "there was nothing to verify");
    std::fs::remove_dir(&gate).unwrap();
    project.pv_ok(&["run"]);
    for arguments in [&["verify"][..], &["verify", "--why"]] {
        let (answer, code) = project.json(arguments);
        let step = &answer["steps"][0];
        assert_eq!((code, &step["level"], &step["allowed"]), (1, &json!("different"), &json!(false)), "{answer}");
        assert!(step["notes"][0].as_str().unwrap().ends_with("it exited with code 7"), "{answer}");
    }
    std::fs::remove_dir(&gate).unwrap();
    let (answer, code) = project.json(&["verify", "--runs", "1"]);
    assert_eq!(
        answer["engine"]["rung"], "full",
        "one execution alone varies nothing, and that is no limit of the machine"
    );
    assert_eq!((code, &answer["level"]), (0, &json!("identical")), "that it failed then is on no record: {answer}");
}

#[test]
fn a_step_that_cannot_bear_a_pinned_clock_is_explained_without() {
    let project = Sandbox::with_pipeline(
        // What the system says of its own files has the system's time.
        "steps:\n  step:\n    run: test $(($(date +%s) - $(stat -c %Y /proc/self))) -lt 86400 || exit 9; printf %s \"$TZ\" > a.txt\n    inputs: []\n    outputs: [a.txt]\n",
    );
    project.write(".gitignore", "/a.txt\n");
    project.pv_ok(&["run"]);
    let (answer, code) = project.json(&["verify", "--why"]);
    if answer["engine"]["rung"] == "variables" {
        return pinned("a_step_that_cannot_bear_a_pinned_clock", &answer).unwrap_or_default();
    }
    assert_eq!(answer["engine"]["rung"], "untimed", "{answer}");
    assert_eq!((code, &answer["steps"][0]["causes"][0]["cause"]), (1, &json!("timezone")), "{answer}");
    assert_eq!(answer["steps"][0]["causes"].as_array().unwrap().len(), 1, "{answer}");
    let varied = answer["engine"]["varied"].as_array().unwrap();
    assert!(!varied.contains(&json!("clock")) && varied.contains(&json!("entropy")), "{answer}");
}

#[test]
fn where_nothing_can_be_pinned_variables_are_varied_and_that_is_told() {
    let test = "where_nothing_can_be_pinned_variables_are_varied_and_that_is_told";
    let project = Sandbox::with_pipeline(
        "steps:\n  step:\n    run: (date -u +%F; printf %s \"$TZ\") > a.txt\n    inputs: []\n    outputs: [a.txt]\n",
    );
    project.write(".gitignore", "/a.txt\n");
    let Some(mut run) = confined(test, &project, &["--quiet", "run"]) else { return };
    assert!(run.status().unwrap().success());
    let answer = |arguments: &[&str]| {
        let output = confined(test, &project, &[&["--json", "verify"], arguments].concat()).unwrap().output().unwrap();
        let answer: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", project.tell(&output)));
        assert_eq!(answer["engine"]["rung"], "variables", "{answer}");
        (answer, output.status.code())
    };
    let (repeated, code) = answer(&[]);
    assert_eq!((code, &repeated["steps"][0]["runs"]), (Some(0), &json!(2)), "{repeated}");
    assert_eq!(repeated["engine"]["varied"], json!([]), "{repeated}");
    let (explained, code) = answer(&["--why"]);
    let causes: Vec<_> =
        explained["steps"][0]["causes"].as_array().unwrap().iter().map(|cause| &cause["cause"]).collect();
    assert_eq!((code, causes), (Some(1), vec![&json!("timezone")]), "{explained}");
    let output = confined(test, &project, &["verify"]).unwrap().output().unwrap();
    let told = project.tell(&output);
    assert!(told.contains("only variables, directories and files could be varied"), "{told}");
}

#[test]
fn a_verification_is_on_record_and_travels_with_the_records() {
    let dated = Dated::new();
    let project = &dated.project;
    let (answer, _) = project.json(&["verify", "--why", "second", "--budget", "9"]);
    let here = recorded(&project.path(""));
    assert_eq!(here.len(), 1);
    assert_eq!((&here[0]["kind"], &here[0]["snapshot"]), (&json!("verification"), &answer["snapshot"]));
    assert_eq!((&here[0]["explained"], &here[0]["rung"]), (&json!(true), &answer["engine"]["rung"]));
    let step = &here[0]["steps"][0];
    assert_eq!((&step["step"], &step["level"]), (&json!("second"), &answer["steps"][0]["level"]));
    assert_eq!(step["runs"], answer["steps"][0]["runs"]);
    let causes = |step: &Value| -> Vec<Value> {
        step["causes"].as_array().map(|all| all.iter().map(|one| one["cause"].clone()).collect()).unwrap_or_default()
    };
    assert_eq!(causes(step), causes(&answer["steps"][0]));
    let clone = project.beside("clone");
    project.git(&["clone", "--quiet", ".", clone.to_str().unwrap()]);
    project.git_in(&clone, &["fetch", "--quiet", "origin", "refs/pv/meta:refs/pv/meta"]);
    let told = project.pv_in(&clone, &["snapshot"]);
    assert_eq!(recorded(&clone), here, "{told}");
}

/// A project whose step, once it was run, does not end any more: it says `began` outside and sleeps.
fn sleepy() -> Sandbox {
    let project = Sandbox::new();
    let root = project.beside("");
    let quick = json!({"run": "echo 1 > a.txt", "inputs": [], "outputs": ["a.txt"]});
    let slow = json!({
        "run": format!("mkdir {0}/gate || {{ echo > {0}/began; sh -c 'while sleep 0.05; do :; done' {0}; }}; cp a.txt b.txt", root.display()),
        "inputs": ["a.txt"],
        "outputs": ["b.txt"],
    });
    project.write(".pipeline/pipeline.yaml", json!({"steps": {"quick": quick, "slow": slow}}).to_string());
    project.write(".gitignore", "/*.txt\n");
    project.commit("first");
    project.pv_ok(&["run"]);
    project
}

/// Starts verifying and returns when the step that does not end is at work.
fn begin(project: &Sandbox, arguments: &[&str]) -> Child {
    let mut child = project
        .pv_command(arguments)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let began = project.beside("began");
    wait_until("the step", || {
        assert!(child.try_wait().unwrap().is_none(), "it ended before its step began");
        began.exists()
    });
    child
}

/// Returns the command lines of what is at work for a project, other than `pv` itself.
fn at_work(project: &Sandbox) -> Vec<String> {
    let root = project.beside("").display().to_string();
    let lines = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(root.trim_end_matches('/'))).collect()
}

/// Returns the places of steps in the cache.
fn places(project: &Sandbox) -> Vec<String> {
    let names = walkdir::WalkDir::new(project.beside("cache")).into_iter().flatten();
    names
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("run-"))
        .map(|entry| entry.path().display().to_string())
        .collect()
}

#[test]
fn an_interrupted_verification_leaves_what_it_learnt_on_record_and_nothing_else() {
    for why in [&[][..], &["--why"]] {
        let project = sleepy();
        let child = begin(&project, &[&["--json", "verify"], why].concat());
        assert_ne!(at_work(&project), Vec::<String>::new());
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
        let output = child.wait_with_output().unwrap();
        let told = project.tell(&output);
        assert_eq!(output.status.code(), Some(130), "{told}");
        assert_eq!(at_work(&project), Vec::<String>::new());
        assert_eq!(places(&project), Vec::<String>::new());
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{told}"));
        assert_eq!(answer["interrupted"], true);
        let recorded = recorded(&project.path(""));
        assert_eq!(recorded.len(), 1);
        assert_eq!(recorded[0]["interrupted"], true);
        let known =
            json!([{"step": "quick", "level": "identical", "allowed": true, "runs": recorded[0]["steps"][0]["runs"]}]);
        assert_eq!(recorded[0]["steps"], known, "of the step that did not end nothing is known");
        assert_eq!(answer["steps"].as_array().unwrap().len(), 1);
    }
    let project = sleepy();
    let child = begin(&project, &["verify", "slow"]);
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
    let told = project.tell(&child.wait_with_output().unwrap());
    assert!(told.contains(" interrupted, 0 runs\n") && told.ends_with("--- exit 130\n"), "{told}");
    assert_eq!(recorded(&project.path("")), [] as [Value; 0], "nothing was learnt");
}

#[test]
fn whoever_kills_a_verification_leaves_no_process_and_the_next_one_works() {
    let project = sleepy();
    let mut child = begin(&project, &["verify", "--why", "slow"]);
    assert_ne!(at_work(&project), Vec::<String>::new());
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the end of the step", || at_work(&project).is_empty());
    assert_eq!(recorded(&project.path("")), [] as [Value; 0]);
    std::fs::remove_dir(project.beside("gate")).unwrap();
    let (answer, code) = project.json(&["verify", "slow", "--runs", "1"]);
    assert_eq!((code, &answer["level"]), (0, &json!("identical")), "{answer}");
    assert_eq!(places(&project), Vec::<String>::new());
}

#[test]
fn two_verifications_at_once_come_to_the_same() {
    let dated = Dated::new();
    let verify = |second: &str| {
        let mut command = dated.project.pv_command(&["--json", "verify"]);
        command.env("PV_NOW", format!("2026-01-31T10:00:{second}Z"));
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let both = ["01", "02"].map(verify).map(|child| child.wait_with_output().unwrap());
    let levels = both.map(|output| {
        let told = dated.project.tell(&output);
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{told}"));
        let levels: Vec<_> = answer["steps"].as_array().unwrap().iter().map(|step| step["level"].to_string()).collect();
        (levels, output.status.code())
    });
    assert_eq!(levels[0], levels[1]);
    assert_eq!(recorded(&dated.project.path("")).len(), 2);
    assert_eq!(places(&dated.project), Vec::<String>::new());
}

#[test]
#[cfg(target_arch = "x86_64")]
fn what_a_step_asks_the_processor_itself_for_is_named() {
    let test = "what_a_step_asks_the_processor_itself_for_is_named";
    let project = Sandbox::with_pipeline(
        "steps:\n  bits:\n    run: ./asks bits > a.txt\n    inputs: [asks]\n    outputs: [a.txt]\n  cycles:\n    run: ./asks > b.txt\n    inputs: [asks]\n    outputs: [b.txt]\n",
    );
    project.write(".gitignore", "/a.txt\n/b.txt\n");
    project.write(
        "asks.c",
        "#include <stdio.h>\n#include <x86intrin.h>\nint main(int count, char **words) { unsigned long long bits = 0;
        if (count > 1) _rdrand64_step(&bits); else bits = __rdtsc();
        printf(\"%llu\\n\", bits); return 0; }",
    );
    let mut cc = std::process::Command::new("cc");
    let compiled = cc.args(["-mrdrnd", "-o", "asks", "asks.c"]).current_dir(project.path("")).output();
    let compiled = match compiled {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(error.to_string()),
    };
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let able = compiled.and_then(|()| flags.contains(" rdrand").then_some(()).ok_or_else(|| "no rdrand".to_owned()));
    if needs(test, "a C compiler and a processor with `rdrand`", able).is_none() {
        return;
    }
    project.pv_ok(&["run"]);
    let (answer, code) = project.json(&["verify", "--why"]);
    if answer["engine"]["rung"] == "variables" {
        return pinned(test, &answer).unwrap_or_default();
    }
    let named = |step: usize| &answer["steps"][step]["causes"];
    assert_eq!(
        (code, named(0)[0]["cause"].as_str(), named(0)[1].is_null()),
        (1, Some("hardware-entropy"), true),
        "{answer}"
    );
    assert_eq!((named(1)[0]["cause"].as_str(), named(1)[1].is_null()), (Some("timer"), true), "{answer}");
}
