//! What steps ask of the machine, failed attempts, and what a terminal shows of running steps.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::sandbox::Sandbox;

/// Runs with a variable that names a place outside, where steps meet.
fn run_meeting(project: &Sandbox, arguments: &[&str]) -> (Value, i32, String) {
    let arguments = [&["--json", "run"], arguments].concat();
    let output = project.pv_command(&arguments).env("MEET", project.beside("meet")).output().unwrap();
    let answer = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", project.tell(&output)));
    (answer, output.status.code().unwrap(), project.redact(&String::from_utf8_lossy(&output.stderr)))
}

/// Only one process at a time can hold this; a second fails at once.
const ALONE: &str = "mkdir $MEET || exit 9; sleep 0.1; rmdir $MEET";
/// Ends only when two processes are in it at once.
const TOGETHER: &str =
    "mkdir -p $MEET; touch $MEET/$PV_STEP; while test $(ls $MEET | wc -l) -lt 2; do sleep 0.01; done";

fn steps(keys: &str, run: &str) -> String {
    let one = |name: &str| format!("  {name}:\n    inputs: []\n    env: [MEET]\n    {keys}\n    run: {run}\n");
    format!("steps:\n{}{}{}", one("a"), one("b"), one("c"))
}

#[test]
fn steps_that_share_a_lock_never_run_at_once() {
    let project = Sandbox::with_pipeline(&steps("resources: {locks: db}", ALONE));
    let (answer, code, said) = run_meeting(&project, &["--jobs", "3"]);
    assert_eq!(code, 0, "{answer} {said}");
}

#[test]
fn steps_that_keep_all_processors_busy_never_run_at_once() {
    let project = Sandbox::with_pipeline(&steps("resources: {cpus: 2}", ALONE));
    let (answer, code, said) = run_meeting(&project, &["--jobs", "3"]);
    assert_eq!(code, 0, "{answer} {said}");
}

#[test]
fn steps_with_room_for_both_run_at_once() {
    let project = Sandbox::with_pipeline(&steps("resources: {cpus: 2}", TOGETHER));
    let (answer, code, said) = run_meeting(&project, &["--jobs", "4"]);
    assert_eq!(code, 0, "{answer} {said}");
}

#[test]
fn memory_is_shared_out_like_processors() {
    let total = std::fs::read_to_string("/proc/meminfo").unwrap();
    let total: u64 = total.lines().next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    let most = total / 1024 * 2 / 3;
    let project = Sandbox::with_pipeline(&steps(&format!("resources: {{memory: {most}MiB}}"), ALONE));
    let (answer, code, said) = run_meeting(&project, &["--jobs", "3"]);
    assert_eq!(code, 0, "{answer} {said}");
}

#[test]
fn a_lock_holds_between_two_runs_of_one_repository() {
    let project = Sandbox::with_pipeline(&steps("resources: {locks: db}", ALONE));
    project.write(".pipeline/other.yaml", steps("resources: {locks: [db, net]}", &format!("true; {ALONE}")));
    let start = |arguments: &[&str]| {
        let mut command = project.pv_command(arguments);
        command.env("MEET", project.beside("meet")).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let both = [start(&["run", "--jobs", "3"]), start(&["run", "--jobs", "3", "--pipeline", "other"])];
    for one in both {
        let output = one.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", project.tell(&output));
    }
}

#[test]
fn a_run_that_waits_for_a_lock_says_so_and_can_be_stopped() {
    let project = Sandbox::with_pipeline(&steps(
        "resources: {locks: db}",
        "touch $MEET; while test -e $MEET; do sleep 0.01; done",
    ));
    project.write(".pipeline/other.yaml", "steps: {z: {inputs: [], run: 'true', resources: {locks: db}}}\n");
    let meet = project.beside("meet");
    let mut first = project.pv_command(&["run", "a"]);
    let mut first = first.env("MEET", &meet).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !meet.exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let mut second = project.pv_command(&["run", "--pipeline", "other"]);
    let mut second = second.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = std::io::BufReader::new(second.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("waits for the lock") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut said, &mut line).unwrap() > 0, "it ended without a word");
    }
    assert_eq!(line, "z: waits for the lock `db`, which another run has\n");
    rustix::process::kill_process(rustix::process::Pid::from_child(&second), rustix::process::Signal::INT).unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(130));
    std::fs::remove_file(&meet).unwrap();
    assert!(first.wait().unwrap().success());
}

#[test]
fn each_step_sees_its_own_gpus() {
    let project = Sandbox::with_pipeline(
        "steps:
  one: {inputs: [], outputs: [one], env: [MEET], resources: {gpus: 1}, run: 'RUN; echo $CUDA_VISIBLE_DEVICES > one'}
  two: {inputs: [], outputs: [two], env: [MEET], resources: {gpus: 1}, run: 'RUN; echo $CUDA_VISIBLE_DEVICES > two'}
  both: {inputs: [one, two], outputs: [both], resources: {gpus: 2}, run: 'echo $CUDA_VISIBLE_DEVICES > both'}
"
        .replace("RUN", TOGETHER)
        .as_str(),
    );
    let output = project
        .pv_command(&["run", "--jobs", "2"])
        .env("MEET", project.beside("meet"))
        .env("CUDA_VISIBLE_DEVICES", "3,GPU-5")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", project.tell(&output));
    let mut seen = [project.read("one"), project.read("two")];
    seen.sort();
    assert_eq!(seen, ["3\n", "GPU-5\n"]);
    assert_eq!(project.read("both"), "3,GPU-5\n");
}

#[test]
fn what_no_machine_part_can_give_is_refused_before_anything_runs_unless_its_result_is_known() {
    let project = Sandbox::with_pipeline(
        "steps:\n  first: {inputs: [], outputs: [f], run: echo f > f}\n  \
         gpu: {inputs: [], outputs: [g], run: echo g > g, resources: {gpus: 2}}\n",
    );
    let with = |gpus: &str, arguments: &[&str]| {
        let output = project.pv_command(arguments).env("CUDA_VISIBLE_DEVICES", gpus).output().unwrap();
        project.tell(&output)
    };
    insta::assert_snapshot!(with("0", &["run"]), @"
    Running pipeline version: f56c68129079
    --- stderr
    error: step `gpu` asks for 2 GPUs, and there is 1
    hint: GPUs are those in `CUDA_VISIBLE_DEVICES`, else `/dev/nvidia0` and so on
    --- exit 5
    ");
    assert!(!project.exists("f"), "nothing was executed");
    let output = project.pv_command(&["run", "--jobs", "2"]).env("CUDA_VISIBLE_DEVICES", "0,1").output().unwrap();
    assert!(output.status.success(), "{}", project.tell(&output));
    // The list itself is part of the key, so what follows has the same one but asks for more.
    project.write(".pipeline/pipeline.yaml", project.read(".pipeline/pipeline.yaml").replace("gpus: 2", "gpus: 3"));
    let output = project.pv_command(&["run"]).env("CUDA_VISIBLE_DEVICES", "0,1").output().unwrap();
    assert!(output.status.success(), "its result is known: {}", project.tell(&output));
    assert!(with("0,1", &["run", "--again"]).contains("step `gpu` asks for 3 GPUs, and there are 2"));
}

#[test]
fn more_processors_than_there_are_can_be_lent_by_jobs() {
    let project = Sandbox::with_pipeline("steps: {a: {inputs: [], run: 'true', resources: {cpus: 1000}}}\n");
    assert!(project.pv(&["run", "--jobs", "4"]).ends_with(
        "error: step `a` asks for 1000 processors, and there are 4\n\
         hint: `--jobs 1000` lets it run all the same; to ask for less, change its `resources`\n--- exit 5\n"
    ));
    project.pv_ok(&["run", "--jobs", "1000"]);
}

#[test]
fn a_step_that_fails_is_tried_again_in_clean_directories_as_often_as_it_may() {
    let project = Sandbox::with_pipeline(
        "steps:
  shaky:
    inputs: []
    outputs: [o]
    env: [MEET]
    retries: 3
    run: |
      test -z \"$(ls $HOME; ls $TMPDIR)\" && test ! -e o || exit 7
      touch $HOME/x $TMPDIR/x o; echo x >> $MEET
      test $(wc -l < $MEET) -ge 3
",
    );
    let (answer, code, said) = run_meeting(&project, &[]);
    assert_eq!(code, 0, "{answer} {said}");
    assert_eq!(answer["steps"][0]["attempts"], 3);
    assert_eq!(
        said.lines().filter(|line| line.contains("attempt")).collect::<Vec<_>>(),
        [
            "shaky: attempt 1 of 4 failed: it exited with code 1; it is tried again",
            "shaky: attempt 2 of 4 failed: it exited with code 1; it is tried again",
            "shaky: done in [TIME] at attempt 3",
        ]
    );
    let (answer, _, _) = run_meeting(&project, &[]);
    assert_eq!((&answer["steps"][0]["verdict"], answer["steps"][0].get("attempts")), (&"reused".into(), None));
}

#[test]
fn a_step_that_fails_in_every_attempt_failed() {
    let project = Sandbox::with_pipeline(
        "steps:\n  never: {inputs: [], env: [MEET], retries: 1, run: 'echo x >> $MEET; exit 4'}\n",
    );
    let (answer, code, said) = run_meeting(&project, &[]);
    assert_eq!((code, &answer["steps"][0]["attempts"]), (3, &2.into()));
    assert!(said.contains("error: step `never` failed in 2 attempts: it exited with code 4\n"), "{said}");
    assert_eq!(std::fs::read_to_string(project.beside("meet")).unwrap(), "x\nx\n");
}

/// A step that wants 300 MB although it says that 50 MiB will do.
const GREEDY: &str = "steps:\n  greedy: {inputs: [], resources: {memory: 50MiB}, run: 'head -c 300000000 /dev/zero | tail -n 1 | wc -c'}\n";

#[test]
fn a_step_that_needs_more_than_its_memory_is_told_so() {
    let project = Sandbox::with_pipeline(GREEDY);
    let (answer, code, said) = run_meeting(&project, &[]);
    if said.contains("its memory cannot be bounded here") {
        assert_eq!(code, 0, "{answer}");
        println!("NOT TESTED: the bound on memory, for no control group can be made here: {said}");
        return;
    }
    assert_eq!(
        (code, answer["steps"][0]["failure"]["how"].as_str()),
        (3, Some("it needed more than its memory of 50 MiB"))
    );
    let enough = GREEDY.replace("50MiB", "1GiB");
    project.write(".pipeline/pipeline.yaml", enough);
    let (answer, code, said) = run_meeting(&project, &[]);
    assert_eq!(code, 0, "{answer} {said}");
}

/// Runs `pv` on a terminal of this many rows, and returns all that it drew.
fn on_a_terminal(project: &Sandbox, rows: u32, arguments: &str) -> String {
    let pv = env!("CARGO_BIN_EXE_pv");
    let command = format!("stty rows {rows} cols 60; {pv} {arguments}");
    let mut script = project.command_in(&project.path("."), "script");
    script
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .env("TERM", "xterm")
        .env("MEET", project.beside("meet"));
    let output = script.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    text
}

fn is_there(program: &str) -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .any(|directory| Path::new(&directory).join(program).exists())
}

#[test]
fn a_terminal_shows_one_line_for_each_running_step_and_never_more_than_it_has() {
    if !is_there("script") {
        println!("NOT TESTED: the view of running steps, for there is no program `script`");
        return;
    }
    let one = "printf '\\033[2Jhello from %s\\n' $PV_STEP; touch $MEET.$PV_STEP; sleep 1.2";
    let names = ["a", "b", "c", "d", "e", "f"];
    let step = |name: &&str| format!("  {name}: {{inputs: [], env: [MEET], run: \"{}\"}}\n", one.replace('\\', "\\\\"));
    let project = Sandbox::with_pipeline(&format!("steps:\n{}", names.iter().map(step).collect::<String>()));
    let drawn = on_a_terminal(&project, 5, "run --jobs 6");
    assert!(drawn.contains("Step: a\r\n") && drawn.contains("Step: f\r\n"), "{drawn}");
    // Which of those that begin at once get the lines is left open.
    let told = names.iter().filter(|name| drawn.contains(&format!("hello from {name}"))).count();
    assert!(told >= 3, "{drawn:?}");
    assert!(!drawn.contains("a | "), "what a step prints is shown in its line only: {drawn}");
    assert!(!drawn.contains("\u{1b}[2J"), "a step cannot clear the screen");
    // What is drawn at once stands between two moments in which a line is cleared.
    let lines = |frame: &str| names.iter().filter(|name| frame.contains(&format!("\u{1b}[1m{name}\u{1b}[0m"))).count();
    let most = drawn.split("\u{1b}[2K").map(lines).max();
    assert_eq!(most, Some(3), "five rows have room for three lines: {drawn:?}");
    assert!(drawn.contains("a: done in"), "{drawn}");
}
