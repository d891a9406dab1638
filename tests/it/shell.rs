//! Looking around where a step has failed: the same world, the same variables, what it had written; and nothing comes out of it.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use crate::plain::confined;
use crate::sandbox::Sandbox;

/// Longer than anything here takes; a test that waits for so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

const PIPELINE: &str = "steps:
  make:
    inputs: []
    outputs: [made]
    run: echo made > made
  fit:
    inputs: [made, in]
    outputs: [out]
    workdir: sub
    seed: 7
    env: {SPACED: '1 2', TOKEN: }
    run: env > variables; cat ../made ../in > half; echo t > $TMPDIR/t; echo h > ~/h; exit 4
";

/// A project whose step `fit` has failed.
fn failed() -> Sandbox {
    let project = Sandbox::with_pipeline(&PIPELINE.replace("TOKEN: ", "TOKEN: abc"));
    project.write("in", "in\n");
    project.write("sub/x", "x\n");
    project.commit("all");
    assert_eq!(project.pv_command(&["run"]).output().unwrap().status.code(), Some(3));
    project
}

/// Runs a command where `step` was left: what it printed, and the exit code.
fn inside(project: &Sandbox, step: &str, command: &[&str]) -> (String, i32) {
    let output = project.pv_command(&[&["shell", step, "--"], command].concat()).output().unwrap();
    (project.tell(&output), output.status.code().unwrap())
}

#[track_caller]
fn prints(project: &Sandbox, step: &str, text: &str) -> String {
    let (told, code) = inside(project, step, &["sh", "-c", text]);
    assert_eq!(code, 0, "{told}");
    told
}

#[test]
fn a_run_says_how_to_look_around_and_one_finds_what_the_step_had_and_wrote() {
    let project = failed();
    let told = project.pv(&["run"]);
    assert!(told.contains("  look around in it: pv shell fit\n"), "{told}");
    let seen = prints(&project, "fit", "pwd; umask; cat half; ls ..; cat ~/h $TMPDIR/t; hostname");
    assert_eq!(seen, "/pv/work/sub\n0022\nmade\nin\nin\nmade\nsub\nh\nt\nlocalhost\n");
    project.write(".pipeline/other.yaml", "steps: {bad: {run: exit 1}}\n");
    let told = project.pv(&["run", "--pipeline", "other"]);
    assert!(told.contains("  look around in it: pv --pipeline other shell bad\n"), "{told}");
    assert_eq!(inside(&project, "bad", &["true"]).1, 2, "it is of another pipeline");
}

#[test]
fn the_variables_are_those_of_the_step_and_named_additions() {
    let project = failed();
    // What shells add by themselves comes from the shell that the step was started by.
    let pairs = |text: &str| {
        let mut pairs: Vec<String> = text.lines().map(str::to_owned).collect();
        pairs.retain(|pair| !["PWD=", "OLDPWD=", "SHLVL=", "_="].iter().any(|own| pair.starts_with(own)));
        pairs.sort();
        pairs
    };
    let of_step = pairs(&prints(&project, "fit", "cat variables"));
    assert!(of_step.contains(&"SPACED=1 2".to_owned()) && of_step.contains(&"PV_SEED=7".to_owned()), "{of_step:?}");
    let output = project.pv_command(&["shell", "fit", "--", "env"]).env("TERM", "xterm").output().unwrap();
    let mut expected = of_step.clone();
    expected.extend(["PV_SHELL=fit", "TERM=xterm"].map(str::to_owned));
    expected.sort();
    assert_eq!(pairs(&String::from_utf8(output.stdout).unwrap()), expected);
    let (answer, code) = project.json(&["shell", "fit"]);
    let variables = answer["variables"].as_object().unwrap();
    let told: Vec<String> =
        variables.iter().map(|(name, value)| format!("{name}={}", value.as_str().unwrap())).collect();
    assert_eq!((pairs(&told.join("\n")), code), (of_step, 0));
    assert_eq!(answer["directory"], "/pv/work/sub");
    assert_eq!(answer["how"], "it exited with code 4");
    assert_eq!((&answer["step"], &answer["isolated"]), (&Value::from("fit"), &Value::from(true)));
    let wrote = std::fs::read_to_string(Path::new(answer["wrote"].as_str().unwrap()).join("sub/half")).unwrap();
    assert_eq!(wrote, "made\nin\n");
    assert_eq!(project.json(&["shell", "fit", "--", "true"]).1, 2);
}

#[test]
fn the_exit_code_is_that_of_the_command() {
    let project = failed();
    let code = |command: &[&str]| inside(&project, "fit", command).1;
    assert_eq!([code(&["true"]), code(&["false"]), code(&["sh", "-c", "exit 42"])], [0, 1, 42]);
    assert_eq!(code(&["sh", "-c", "kill -9 $$"]), 137);
    assert_eq!([code(&["no-such-program"]), code(&["./x"])], [127, 126]);
    // Without a terminal and a command, a shell reads its input.
    let mut command = project.pv_command(&["shell", "fit"]);
    let mut shell = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    shell.stdin.take().unwrap().write_all(b"cat half\nexit 9\n").unwrap();
    let output = shell.wait_with_output().unwrap();
    assert_eq!((output.stdout.as_slice(), output.status.code()), (b"made\nin\n".as_slice(), Some(9)));
}

#[test]
fn what_is_changed_there_stays_there_and_the_next_run_begins_without() {
    let project = failed();
    prints(&project, "fit", "echo shell > out; echo mine > extra; rm half; echo changed > ../in");
    assert_eq!(prints(&project, "fit", "cat out extra ../in; test ! -e half"), "shell\nmine\nchanged\n");
    assert!(!project.exists("sub/extra") && !project.exists("out"));
    assert_eq!(project.read("in"), "in\n");
    let definition = project.read(".pipeline/pipeline.yaml");
    let seeing = definition.replace("exit 4", "ls > ../out; cat ../in >> ../out");
    project.write(".pipeline/pipeline.yaml", seeing);
    project.pv_ok(&["run"]);
    assert_eq!(project.read("out"), "half\nvariables\nx\nin\n");
    // It has succeeded, so there is nothing to look at any more.
    let told = project.pv(&["shell", "fit"]);
    insta::assert_snapshot!(told, @"
    --- stderr
    error: nothing is kept of step `fit`
    hint: a step is kept when it fails, until it succeeds; `pv run fit` executes it
    --- exit 2
    ");
}

#[test]
fn what_a_step_wrote_in_place_of_an_output_can_be_looked_at() {
    let project = Sandbox::with_pipeline("steps:\n  fit:\n    outputs: [right]\n    run: echo here > wrong\n");
    assert_eq!(project.pv_command(&["run"]).output().unwrap().status.code(), Some(3));
    assert_eq!(prints(&project, "fit", "cat wrong"), "here\n");
}

#[test]
fn one_sees_the_snapshot_that_was_run_though_the_base_has_changed_since() {
    let project = failed();
    let (answer, _) = project.json(&["shell", "fit"]);
    project.write("in", "other\n");
    project.write("sub/new", "new\n");
    project
        .write(".pipeline/pipeline.yaml", project.read(".pipeline/pipeline.yaml").replace("echo made", "echo again"));
    project.commit("second");
    // It changes the base, and fails before it comes to `fit`.
    project.write(".pipeline/other.yaml", "steps: {a: {run: cat in > a, outputs: [a]}}\n");
    project.commit("third");
    project.pv_ok(&["run", "--pipeline", "other"]);
    assert_eq!(project.json(&["shell", "fit"]).0["snapshot"], answer["snapshot"]);
    assert_eq!(prints(&project, "fit", "cat half ../in ../made; ls"), "made\nin\nin\nmade\nhalf\nvariables\nx\n");
}

#[test]
fn a_combination_of_a_matrix_is_entered_by_its_name_or_by_that_of_the_step() {
    let project = Sandbox::with_pipeline(
        "steps:\n  fit:\n    inputs: []\n    matrix: {n: [1, 2, 3]}\n    outputs: ['o-${matrix.n}']\n    \
         run: 'echo ${matrix.n} > o-${matrix.n}; test ${matrix.n} = 1'\n",
    );
    assert_eq!(project.pv_command(&["run", "--keep-going"]).output().unwrap().status.code(), Some(3));
    assert_eq!(prints(&project, "fit@n=3", "cat o-3; ls"), "3\no-3\n");
    insta::assert_snapshot!(project.pv(&["shell", "fit", "--", "true"]), @"
    --- stderr
    error: several combinations of step `fit` are kept
    hint: name one: `fit@n=2`, `fit@n=3`
    --- exit 2
    ");
    insta::assert_snapshot!(project.pv(&["shell", "fit@n=1", "--", "true"]), @"
    --- stderr
    error: nothing is kept of step `fit@n=1`
    hint: a step is kept when it fails, until it succeeds; kept are `fit@n=2`, `fit@n=3`
    --- exit 2
    ");
    let pipeline = project.read(".pipeline/pipeline.yaml");
    project.write(".pipeline/pipeline.yaml", pipeline.replace("3; test", "3; false; test").replace("= 1'", "-lt 3'"));
    assert_eq!(project.pv_command(&["run", "--keep-going"]).output().unwrap().status.code(), Some(3));
    assert_eq!(prints(&project, "fit", "cat o-3"), "3\n", "the others have succeeded");
}

#[test]
fn a_strict_step_is_shown_what_it_declares_and_no_network() {
    let project = Sandbox::with_pipeline(
        "steps:\n  count:\n    isolate: strict\n    inputs: [in]\n    outputs: [out]\n    run: sh count.sh\n",
    );
    project.write("in", "in\n");
    project.write("hidden", "hidden\n");
    project.write("count.sh", "cat in hidden > out\n");
    project.commit("all");
    assert_eq!(project.pv_command(&["run"]).output().unwrap().status.code(), Some(3));
    assert_eq!(
        prints(&project, "count", "ls; cat out; tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '"),
        "count.sh\nin\nout\nin\nlo\n"
    );
}

#[test]
fn a_step_with_the_home_of_the_user_has_it_there_too() {
    let project = Sandbox::with_pipeline("steps: {fit: {home: host, run: exit 1}}\n");
    assert_eq!(project.pv_command(&["run"]).output().unwrap().status.code(), Some(3));
    let home = prints(&project, "fit", "echo $HOME");
    assert_eq!(home, format!("{}\n", project.redact(&project.beside("home").display().to_string())));
}

#[test]
fn a_step_that_was_not_isolated_is_entered_where_it_was() {
    let project = Sandbox::with_pipeline(PIPELINE.replace("TOKEN: ", "TOKEN: abc").as_str());
    project.write("in", "in\n");
    project.write("sub/x", "x\n");
    project.commit("all");
    let test = "looking around in a step that was not isolated";
    let Some(mut run) = confined(test, &project, &["run"]) else { return };
    assert_eq!(run.output().unwrap().status.code(), Some(3));
    let (answer, _) = project.json(&["shell", "fit"]);
    assert_eq!((&answer["isolated"], &answer["how"]), (&false.into(), &"it exited with code 4".into()));
    let text = "pwd; cat half; cat ~/h $TMPDIR/t; (sleep 300 & echo $!); exit 5";
    let output = confined(test, &project, &["shell", "fit", "--", "sh", "-c", text]).unwrap().output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[..5], [answer["directory"].as_str().unwrap(), "made", "in", "h", "t"], "{printed}");
    assert_eq!(output.status.code(), Some(5));
    assert!(!Path::new("/proc").join(lines[5]).exists(), "what was started there is ended");
    // Nor does the command outlive a `pv` that is killed.
    let mut killed =
        ready(confined(test, &project, &["shell", "fit", "--", "sh", "-c", "echo ready; exec sleep 300"]).unwrap());
    killed.kill().unwrap();
    is_over(killed);
}

#[test]
fn an_ordinary_user_looks_around_like_root() {
    let test = "looking around as an ordinary user";
    let project = Sandbox::new();
    let own = project.beside("own");
    std::fs::create_dir(&own).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_pv"), project.beside("pv")).unwrap();
    let is_root = std::os::unix::fs::chown(&own, Some(61_003), Some(61_003)).is_ok();
    std::fs::set_permissions(project.beside(""), PermissionsExt::from_mode(0o755)).unwrap();
    let ordinary = |text: &str| {
        let mut command = project.command_in(&own, "setpriv");
        command.args(["--reuid=61003", "--regid=61003", "--clear-groups", "sh", "-c", text]);
        command.arg(project.beside("pv")).env("HOME", &own).env("XDG_CACHE_HOME", own.join("cache"));
        command
    };
    if !is_root || !ordinary("\"$0\" --version").output().is_ok_and(|end| end.status.success()) {
        println!("NOT TESTED: {test}: needs root and `setpriv`");
        return;
    }
    let text = "mkdir -p p/.pipeline && cd p && git init -q && echo in > in && \
                echo 'steps: {fit: {run: \"cat in > half; mkdir d; chmod 0 d; exit 1\"}}' > .pipeline/pipeline.yaml && \
                git add . && git commit -q -m a && \"$0\" run; \
                for n in 1 2; do \"$0\" shell fit -- sh -c 'id -u; pwd; cat half'; done";
    let output = ordinary(text).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.ends_with("61003\n/pv/work\nin\n61003\n/pv/work\nin\n"), "{}", project.tell(&output));
}

/// A command on a terminal, and what has been read from it.
struct Typist {
    child: Child,
    arriving: Receiver<Vec<u8>>,
    seen: Vec<u8>,
}

impl Typist {
    /// Starts a command line on a terminal of its own; `None`, after saying so, where there is no program that makes one.
    #[expect(clippy::print_stderr, reason = "what is not tested must be seen")]
    fn start(test: &str, project: &Sandbox, line: &str) -> Option<Self> {
        let mut script: Command = project.command_in(&project.path(""), "script");
        script.args(["--quiet", "--return", "--flush", "--command", line, "/dev/null"]).env("TERM", "dumb");
        script.env("PS1", "outer% ").env("PV", env!("CARGO_BIN_EXE_pv"));
        script.stdin(Stdio::piped()).stdout(Stdio::piped());
        let Ok(mut child) = script.spawn() else {
            eprintln!("NOT TESTED: {test}, for there is no program `script`");
            return None;
        };
        let mut output = child.stdout.take().unwrap();
        let (sender, arriving) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Some(Self { child, arriving, seen: Vec::new() })
    }

    /// Waits until `text` has been printed after everything that was waited for before.
    #[track_caller]
    fn sees(&mut self, text: &str) -> &mut Self {
        loop {
            if let Some(at) = self.seen.windows(text.len()).position(|part| part == text.as_bytes()) {
                self.seen.drain(..at + text.len());
                return self;
            }
            match self.arriving.recv_timeout(PATIENCE) {
                Ok(more) => self.seen.extend(more),
                Err(error) => panic!("`{text}` does not come ({error}): {}", String::from_utf8_lossy(&self.seen)),
            }
        }
    }

    fn types(&mut self, text: &str) -> &mut Self {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
        self
    }

    /// Waits for the end, and returns the exit code.
    fn code(&mut self) -> i32 {
        // It must not be closed before: the terminal would hang up.
        while self.arriving.recv_timeout(PATIENCE).is_ok() {}
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Typist {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const CTRL_C: &str = "\u{3}";
const CTRL_Z: &str = "\u{1a}";

#[test]
fn a_shell_on_a_terminal_has_it_for_itself_and_ctrl_c_ends_only_what_it_runs() {
    let project = failed();
    for (shell, prompt) in [("/bin/sh", "(pv fit) $ "), ("/bin/bash", "(pv fit) /pv/work/sub ")] {
        if !Path::new(shell).exists() {
            println!("NOT TESTED: `pv shell` with {shell}, which is not here");
            continue;
        }
        let line = format!("SHELL={shell} $PV shell fit");
        let Some(mut user) = Typist::start("`pv shell` on a terminal", &project, &line) else { return };
        user.sees("failed: it exited with code 4").sees("exit 4").sees(prompt);
        user.types("cat half && tty\n").sees("made\r\nin\r\n/dev/pts/").sees(prompt);
        user.types("sh -c 'echo go; exec sleep 300'\n").sees("go\r\n").types(CTRL_C).sees(prompt);
        user.types("sh -c 'echo go; read line; echo got $line'\n").sees("go\r\n");
        user.types(CTRL_Z).sees("topped").sees(prompt).types("fg\n").sees("fg\r\n").types("$PV_SHELL\n");
        user.sees("got $PV_SHELL\r\n").sees(prompt).types("echo in $PV_SHELL\n").sees("in fit\r\n").sees(prompt);
        user.types("exit 6\n");
        assert_eq!(user.code(), 6, "{shell}");
    }
}

#[test]
fn a_command_is_stopped_and_goes_on_with_pv_as_a_job_of_the_users_shell() {
    let test = "stopping `pv shell`";
    let project = failed();
    let Some(mut user) = Typist::start(test, &project, "bash --norc --noprofile -i") else { return };
    user.sees("outer% ").types("$PV shell fit -- sh -c 'echo go; read line; echo got $line'\n").sees("go\r\n");
    user.types(CTRL_Z).sees("topped").sees("outer% ").types("fg\n").sees("got $line'\r\n");
    user.types("this\n").sees("got this\r\n").sees("outer% ");
    user.types("$PV shell fit -- sh -c 'echo go; exec sleep 300'\n").sees("go\r\n").types(CTRL_C).sees("outer% ");
    user.types("echo code $?\n").sees("code 130\r\n").sees("outer% ");
    // The terminal is the outer shell's again.
    user.types("exit 3\n");
    assert_eq!(user.code(), 3);
}

/// Starts a command where `fit` was left that says `ready` and then waits for its input to end.
fn waiting(project: &Sandbox, text: &str) -> Child {
    ready(project.pv_command(&["shell", "fit", "--", "sh", "-c", &format!("{text}; echo ready; cat")]))
}

/// Starts a command, and waits until it has said `ready`.
fn ready(mut command: Command) -> Child {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let output = child.stdout.as_mut().unwrap();
    let (mut seen, mut byte) = (Vec::new(), [0]);
    while !seen.ends_with(b"ready\n") {
        assert_eq!(output.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&seen));
        seen.push(byte[0]);
    }
    child
}

/// Waits until nobody has the output of what was killed any more.
fn is_over(mut killed: Child) {
    killed.wait().unwrap();
    killed.stdout.take().unwrap().read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn only_one_can_be_there_at_a_time_and_runs_meanwhile_take_nothing_away() {
    let project = failed();
    let mut first = waiting(&project, "true");
    insta::assert_snapshot!(project.pv(&["shell", "fit", "--", "true"]), @"
    --- stderr
    error: what step `fit` left is in use
    hint: another `pv shell` is in it; leave that one first
    --- exit 2
    ");
    // So many that it would be swept if nobody were in it.
    for _ in 0..5 {
        assert_eq!(project.pv_command(&["run"]).output().unwrap().status.code(), Some(3));
    }
    assert_eq!(prints(&project, "fit", "cat half"), "made\nin\n", "the newest is another place");
    drop(first.stdin.take());
    assert!(first.wait().unwrap().success());
}

#[test]
fn a_place_in_use_is_not_swept_and_all_in_it_ends_with_pv() {
    let project = failed();
    let (answer, _) = project.json(&["shell", "fit"]);
    let wrote = Path::new(answer["wrote"].as_str().unwrap());
    let mut first = waiting(&project, "sleep 300 & echo left > left");
    for _ in 0..5 {
        assert_eq!(project.pv_command(&["run"]).output().unwrap().status.code(), Some(3));
    }
    assert!(wrote.join("sub/left").exists(), "it is in use");
    first.kill().unwrap();
    is_over(first);
    project.pv(&["run"]);
    assert!(!wrote.exists(), "it is one of the older ones, and nobody is in it");
}

#[test]
fn a_request_to_end_ends_what_is_inside_and_is_told_as_shells_tell_it() {
    let project = failed();
    let mut ended = waiting(&project, "true");
    let killed = Command::new("kill").arg(ended.id().to_string()).status().unwrap();
    assert!(killed.success());
    assert_eq!(ended.wait().unwrap().code(), Some(143));
    assert_eq!(prints(&project, "fit", "cat half"), "made\nin\n");
}

#[test]
fn one_can_come_back_after_pv_was_killed_in_a_run_or_in_a_shell() {
    let project = failed();
    let mut killed = waiting(&project, "echo more >> half");
    killed.kill().unwrap();
    is_over(killed);
    assert_eq!(prints(&project, "fit", "cat half"), "made\nin\nmore\n");
    // A run of which one step has failed goes on with another, and is killed there.
    let definition = "steps:\n  bad: {inputs: [], run: echo x > x; exit 1}\n  \
                      long: {inputs: [], env: [MEET], run: touch $MEET; while test -e $MEET; do sleep 0.01; done}\n";
    project.write(".pipeline/pipeline.yaml", definition);
    let meet = project.beside("meet");
    let mut run = project.pv_command(&["run", "--keep-going", "--jobs", "1"]).env("MEET", &meet).spawn().unwrap();
    while !meet.exists() {
        std::thread::yield_now();
    }
    insta::assert_snapshot!(project.pv(&["shell", "bad", "--", "true"]), @"
    --- stderr
    error: what step `bad` left is in use
    hint: the run in which it failed still goes on; wait for its end
    --- exit 2
    ");
    run.kill().unwrap();
    run.wait().unwrap();
    assert_eq!(prints(&project, "bad", "cat x"), "x\n");
}

#[test]
fn a_note_that_is_not_understood_is_refused() {
    let project = failed();
    let (answer, _) = project.json(&["shell", "fit"]);
    let place = Path::new(answer["wrote"].as_str().unwrap()).ancestors().nth(2).unwrap();
    let note = place.join("1.kept.json");
    let text = std::fs::read_to_string(&note).unwrap();
    for (old, new, why) in [
        ("\"version\":1", "\"version\":2", "it has version 2, and known is 1"),
        ("\"pipeline\"", "\"pipelines\"", "unknown field `pipelines`"),
        ("\"room-", "\"../room-", "is no path in a place"),
        ("{\"version\"", "{\"version", "is not understood"),
    ] {
        assert!(text.contains(old), "{text}");
        std::fs::write(&note, text.replacen(old, new, 1)).unwrap();
        let (told, code) = inside(&project, "fit", &["true"]);
        assert!(told.contains(why) && code == 2, "{told}");
    }
    std::fs::write(&note, &text).unwrap();
    assert_eq!(inside(&project, "fit", &["true"]).1, 0);
}
