//! `pv run` with steps: which are executed, which are told of, and what a matrix is to its user.

use serde_json::Value;

use crate::sandbox::Sandbox;

/// `get` is read by both `train` steps, those by `report`; `other` stands apart.
const GRID: &str = "steps:
  get:
    inputs: [raw.csv]
    outputs: [data.csv]
    run: cp raw.csv data.csv
  train:
    description: Train at ${matrix.rate}
    inputs: [data.csv]
    outputs: ['out/${matrix.rate}/m.txt']
    env: {RATE: '${matrix.rate}'}
    run: echo \"$(cat data.csv) $RATE $PV_STEP\" > out/$RATE/m.txt
    matrix: {rate: [0.10, b]}
  report:
    inputs: ['out/${matrix.*}/m.txt']
    outputs: [report.txt]
    run: find out -name m.txt | sort | xargs cat > report.txt
  other:
    inputs: []
    outputs: [other.txt]
    run: echo other > other.txt
";

fn grid() -> Sandbox {
    let project = Sandbox::with_pipeline(GRID);
    project.write("raw.csv", "1\n");
    project.commit("data");
    project
}

/// Returns `step verdict` of each step that a run told of.
fn verdicts(answer: &Value) -> Vec<String> {
    let text = |step: &Value| format!("{} {}", step["step"].as_str().unwrap(), step["verdict"].as_str().unwrap());
    answer["steps"].as_array().unwrap().iter().map(text).collect()
}

fn run(project: &Sandbox, arguments: &[&str]) -> Vec<String> {
    let (answer, code) = project.json(&[&["run"], arguments].concat());
    assert_eq!(code, 0, "{answer}");
    verdicts(&answer)
}

#[test]
fn a_matrix_is_one_step_for_each_combination_and_another_step_gathers_what_they_write() {
    let project = grid();
    assert_eq!(
        project.pv_ok(&["run", "--jobs", "1"]).lines().take(6).collect::<Vec<_>>(),
        [
            "Running pipeline version: 848eade0dee9",
            "Step: get",
            "Step: train@rate=0.10 - Train at 0.10",
            "Step: train@rate=b - Train at b",
            "Step: report",
            "Step: other",
        ]
    );
    assert_eq!(project.read("report.txt"), "1 0.10 train@rate=0.10\n1 b train@rate=b\n");
    let text = project.read(".pipeline/pipeline.yaml").replace("[0.10, b]", "[0.10, c, b]");
    project.write(".pipeline/pipeline.yaml", text);
    let all = [
        "get reused",
        "train@rate=0.10 reused",
        "train@rate=c ran",
        "train@rate=b reused",
        "report ran",
        "other reused",
    ];
    assert_eq!(run(&project, &[]), all);
}

#[test]
fn a_step_is_run_with_what_it_needs_and_nothing_else_is_told_of() {
    let project = grid();
    assert_eq!(run(&project, &["train@rate=b"]), ["get ran", "train@rate=b ran"]);
    assert!(!project.exists("out/0.10") && !project.exists("other.txt"), "only what was chosen is put in place");
    assert_eq!(run(&project, &["+train"]), ["get reused", "train@rate=0.10 ran", "train@rate=b reused"]);
    project.write("raw.csv", "2\n");
    assert_eq!(run(&project, &["--step", "get"]), ["get ran"]);
    let after = ["get reused", "train@rate=0.10 ran", "train@rate=b ran", "report ran"];
    assert_eq!(run(&project, &["get+"]), after);
    assert_eq!(project.read("report.txt"), "2 0.10 train@rate=0.10\n2 b train@rate=b\n");
    assert_eq!(run(&project, &["other", "get"]), ["get reused", "other ran"]);
}

#[test]
fn only_a_step_runs_if_what_it_needs_is_known() {
    let project = grid();
    assert_eq!(
        project.pv(&["run", "--only", "report"]),
        "Running pipeline version: 848eade0dee9\n--- stderr\n\
         error: no result of step `get` is known\n\
         hint: without `--only`, `get` and what it needs are executed as well\n--- exit 2\n"
    );
    assert!(project.pv(&["run", "--only", "-n", "report"]).contains("error: no result of step `get` is known"));
    run(&project, &["train"]);
    assert_eq!(run(&project, &["--only", "report"]), ["report ran"]);
    assert_eq!(run(&project, &["--only", "report", "--again"]), ["report ran"]);
    assert_eq!(run(&project, &["report", "--again"])[3], "report ran");
    assert_eq!(run(&project, &["report"])[3], "report reused");
    assert!(project.pv(&["run", "--only"]).contains("error: `--only` is for steps, and none is named"));
}

#[test]
fn again_executes_what_is_known_and_the_plan_says_so() {
    let project = grid();
    run(&project, &[]);
    assert_eq!(run(&project, &["--again", "train"]), ["get reused", "train@rate=0.10 ran", "train@rate=b ran"]);
    assert!(run(&project, &["--again"]).iter().all(|step| step.ends_with(" ran")));
    insta::assert_snapshot!(project.pv(&["run", "--dry-run", "--again", "train@rate=b"]), @"
    reuse  get           nothing it depends on changed
    run    train@rate=b  it is executed again, as asked for
    ");
}

#[test]
fn the_first_argument_is_a_revision_if_it_names_one() {
    let project = grid();
    project.pv_ok(&["run"]);
    project.pv_ok(&["snapshot", "--tag", "v1"]);
    project.write("raw.csv", "2\n");
    let (answer, code) = project.json(&["run", "v1", "train@rate=b"]);
    assert_eq!((code, verdicts(&answer)), (0, vec!["get ran".to_owned(), "train@rate=b ran".to_owned()]));
    assert_eq!(answer["verdict"], "reproduced");
    let (answer, code) = project.json(&["run", "v1", "--only", "train@rate=b"]);
    assert_eq!((code, verdicts(&answer)), (0, vec!["train@rate=b ran".to_owned()]));
    assert_eq!(answer["verdict"], "reproduced", "its input is the recorded output of `get`");

    project.git(&["tag", "train"]);
    insta::assert_snapshot!(project.pv(&["run", "train"]), @"
    --- stderr
    error: `train` names a revision and a step
    hint: `pv run --step train` runs the step; for the revision, name the commit by its digits
    --- exit 2
    ");
    assert_eq!(run(&project, &["--step", "train"]).len(), 3);
    insta::assert_snapshot!(project.pv(&["run", "trian"]), @"
    --- stderr
    error: nothing is called `trian`
    hint: did you mean `train`?
    --- exit 2
    ");
    insta::assert_snapshot!(project.pv(&["run", "get", "nothing"]), @"
    --- stderr
    error: no step is called `nothing`
    hint: the steps are `get`, `train`, `report`, `other`; `pv log` lists revisions
    --- exit 2
    ");
    insta::assert_snapshot!(project.pv(&["run", "--reuse", "get"]), @"
    --- stderr
    error: `--reuse` is for a revision, and none is named
    --- exit 2
    ");
}

#[test]
fn a_result_that_is_not_to_be_reused_is_made_in_every_run() {
    let project = Sandbox::with_pipeline(
        "steps:\n  ask:\n    cache: false\n    inputs: []\n    outputs: [a]\n    env: [COUNT]\n    \
         run: echo x >> $COUNT; cat $COUNT > a\n  use:\n    inputs: [a]\n    outputs: [b]\n    run: cp a b\n",
    );
    let count = project.beside("count");
    let at = |minute: u32| {
        let mut command = project.pv_command(&["--json", "run"]);
        command.env("COUNT", &count).env("PV_NOW", format!("2026-01-31T10:{minute:02}:00Z"));
        let output = command.output().unwrap();
        verdicts(&serde_json::from_slice(&output.stdout).unwrap())
    };
    assert_eq!(at(1), ["ask ran", "use ran"]);
    assert_eq!(at(2), ["ask ran", "use ran"]);
    assert_eq!(project.read("b"), "x\nx\n");
    let plan = project.pv_command(&["run", "--dry-run"]).env("COUNT", &count).output().unwrap();
    insta::assert_snapshot!(project.tell(&plan), @"
    run    ask  its result is never reused, as `cache: false` says
    run    use  it runs after `ask`
    ");
}
