//! Real commands, run to their end in every way that there is.

use std::os::unix::fs::PermissionsExt;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use super::table::Process;
use super::*;
use crate::disk::Durability;
use crate::host;

/// A directory with a log, and an environment that no other test has.
struct Bench {
    root: TempDir,
    environment: BTreeMap<String, OsString>,
    time_limit: Option<Duration>,
    stop: Stop,
}

impl Bench {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut environment = BTreeMap::from([
            ("PV_STEP".to_owned(), format!("test-{number}").into()),
            ("PV_VERSION".to_owned(), format!("v{number}").into()),
            ("PV_SEED".to_owned(), number.to_string().into()),
        ]);
        for name in ["PATH", "HOME"] {
            environment.extend(host::variable_os(name).map(|value| (name.to_owned(), value)));
        }
        Self { root: tempfile::tempdir().unwrap(), environment, time_limit: None, stop: Stop::new() }
    }

    fn run_with(&self, command: &Command, on_line: &mut (dyn FnMut(&[u8]) + Send)) -> Result<Outcome, ExecError> {
        let job = Job {
            command,
            directory: self.root.path(),
            environment: &self.environment,
            time_limit: self.time_limit,
            memory: None,
            log: &self.root.path().join("log"),
            world: None,
            observe: true,
            permission: None,
            pins: None,
        };
        run(&job, on_line, &self.stop)
    }

    fn run(&self, command: &Command) -> Result<Outcome, ExecError> {
        self.run_with(command, &mut |_| {})
    }

    fn shell(&self, text: &str) -> End {
        self.run(&Command::Shell(text.to_owned())).unwrap().end
    }

    fn direct(&self, words: &[&str]) -> Result<End, ExecError> {
        let command = Command::Direct(words.iter().map(|word| (*word).to_owned()).collect());
        self.run(&command).map(|outcome| outcome.end)
    }

    fn file(&self, name: &str) -> Option<Vec<u8>> {
        disk::read_if_there(&self.root.path().join(name)).unwrap()
    }

    fn log(&self) -> String {
        String::from_utf8(self.file("log").unwrap()).unwrap()
    }

    /// Waits for the process whose number a job writes into the file `name`.
    fn process(&self, name: &str) -> Process {
        loop {
            let text = String::from_utf8(self.file(name).unwrap_or_default()).unwrap();
            if let Some(number) = text.strip_suffix('\n') {
                return Process::read(number.parse().unwrap()).unwrap();
            }
            std::thread::yield_now();
        }
    }

    /// Returns whether the process whose number is in the file `name` is there, if only as a zombie.
    fn is_there(&self, name: &str) -> bool {
        let text = String::from_utf8(self.file(name).unwrap()).unwrap();
        Process::read(text.trim().parse().unwrap()).is_some()
    }
}

fn is_living(process: &Process) -> bool {
    Process::read(process.pid).is_some_and(|now| now.started == process.started && now.living)
}

/// Returns a text that starts a daemon, which writes its number into `file`, and waits until that has happened.
fn daemon(prefix: &str, file: &str) -> String {
    format!("{prefix} sh -c 'echo $$ > {file}; exec sleep 300' & while [ ! -s {file} ]; do sleep 0.01; done")
}

#[test]
fn exit_codes_and_signals_are_told_apart() {
    let bench = Bench::new();
    assert_eq!(bench.shell("exit 0"), End::Exited(0));
    assert_eq!(bench.shell("exit 42"), End::Exited(42));
    assert_eq!(bench.shell("kill -KILL $$"), End::Signalled(9));
    assert_eq!(bench.shell("no-such-program-anywhere"), End::Exited(127));
    assert_eq!(bench.direct(&["sh", "-c", "exit 127"]).unwrap(), End::Exited(127));
}

#[test]
fn a_program_that_is_not_there_is_no_exit_code() {
    let bench = Bench::new();
    for program in ["no-such-program-anywhere", "./no-such-program", "/no/such/program"] {
        let error = bench.direct(&[program]).unwrap_err();
        assert_eq!(error.to_string(), format!("program `{program}` is not found"));
    }
    assert!(matches!(bench.direct(&[]), Err(ExecError::Empty)));
}

#[test]
fn a_program_is_searched_on_the_path_of_the_job_and_relative_to_its_directory() {
    let mut bench = Bench::new();
    let tool = bench.root.path().join("bin/tool");
    disk::write_whole(&tool, b"#!/bin/sh\necho \"$1\"\n", Durability::Deferred).unwrap();
    assert!(matches!(bench.direct(&["bin/tool"]), Err(ExecError::NotExecutable { program }) if program == "bin/tool"));
    assert!(matches!(bench.direct(&["./bin"]), Err(ExecError::NotExecutable { .. })));

    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(bench.direct(&["bin/tool", "a b; c"]).unwrap(), End::Exited(0));
    assert_eq!(bench.log(), "a b; c\n");
    assert!(matches!(bench.direct(&["tool"]), Err(ExecError::NotFound { .. })));
    bench.environment.insert("PATH".to_owned(), "/nowhere:bin".into());
    assert_eq!(bench.direct(&["tool"]).unwrap(), End::Exited(0));
    bench.environment.remove("PATH");
    assert!(matches!(bench.direct(&["tool"]), Err(ExecError::NotFound { .. })));
}

#[test]
fn a_script_whose_interpreter_is_missing_is_refused_with_the_word_of_the_system() {
    let bench = Bench::new();
    let tool = bench.root.path().join("tool");
    disk::write_whole(&tool, b"#!/no/such/interpreter\n", Durability::Deferred).unwrap();
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = bench.direct(&["./tool"]).unwrap_err();
    assert_eq!(error.to_string(), "cannot start `./tool`");
    assert!(matches!(error, ExecError::Start { source, .. } if source.kind() == io::ErrorKind::NotFound));
}

#[test]
fn a_missing_directory_is_named() {
    let bench = Bench::new();
    let missing = bench.root.path().join("missing");
    let command = Command::Shell("true".to_owned());
    let log = bench.root.path().join("log");
    let job = Job {
        command: &command,
        directory: &missing,
        environment: &bench.environment,
        time_limit: None,
        memory: None,
        log: &log,
        world: None,
        observe: false,
        permission: None,
        pins: None,
    };
    let error = run(&job, &mut |_| {}, &Stop::new()).unwrap_err();
    assert!(matches!(error, ExecError::NoDirectory { path } if path == missing));
}

#[test]
fn a_log_that_cannot_be_made_is_an_error() {
    let bench = Bench::new();
    let command = Command::Shell("touch started".to_owned());
    let directory = bench.root.path();
    let job = Job {
        command: &command,
        directory,
        environment: &bench.environment,
        time_limit: None,
        memory: None,
        log: directory,
        world: None,
        observe: false,
        permission: None,
        pins: None,
    };
    assert!(matches!(run(&job, &mut |_| {}, &Stop::new()), Err(ExecError::Log(_))));
    assert_eq!(bench.file("started"), None);
}

#[cfg(target_os = "linux")]
#[test]
fn a_log_that_cannot_be_written_ends_the_command() {
    let bench = Bench::new();
    let command = Command::Shell("echo $$ > pid; echo full; exec sleep 300".to_owned());
    let (directory, log) = (bench.root.path(), Path::new("/dev/full"));
    let job = Job {
        command: &command,
        directory,
        environment: &bench.environment,
        time_limit: None,
        memory: None,
        log,
        world: None,
        observe: false,
        permission: None,
        pins: None,
    };
    assert!(matches!(run(&job, &mut |_| {}, &Stop::new()), Err(ExecError::Log(_))));
    assert!(!bench.is_there("pid"));
}

#[test]
fn the_environment_is_exactly_as_given() {
    let mut bench = Bench::new();
    let path = bench.environment["PATH"].clone();
    bench.environment = BTreeMap::from([
        ("PATH".to_owned(), path.clone()),
        ("B".to_owned(), "two words\nand a line".into()),
        ("A".to_owned(), OsString::new()),
    ]);
    assert_eq!(bench.direct(&["env", "-0"]).unwrap(), End::Exited(0));
    let mut seen: Vec<String> = bench.log().split_terminator('\0').map(str::to_owned).collect();
    seen.sort_unstable();
    assert_eq!(seen, ["A=", "B=two words\nand a line", &format!("PATH={}", path.display())]);
}

#[test]
fn standard_input_is_empty_and_the_directory_is_the_jobs() {
    let bench = Bench::new();
    assert_eq!(bench.shell("cat; pwd -P"), End::Exited(0));
    assert_eq!(bench.log(), format!("{}\n", bench.root.path().canonicalize().unwrap().display()));
}

#[test]
fn the_umask_is_fixed() {
    let bench = Bench::new();
    assert_eq!(bench.shell("umask"), End::Exited(0));
    assert_eq!(bench.log(), "0022\n");
}

#[test]
fn the_umask_is_fixed_also_when_that_of_this_process_is_another() {
    let bench = Bench::new();
    // The test above, as a process of its own.
    let program = host::own_program().unwrap();
    let test = "exec::tests::the_umask_is_fixed";
    assert_eq!(bench.shell(&format!("umask 077; exec '{}' --exact {test}", program.display())), End::Exited(0));
    assert!(bench.log().contains("1 passed"), "{}", bench.log());
}

#[test]
fn output_and_errors_are_kept_in_the_order_of_arrival() {
    let bench = Bench::new();
    let mut lines = Vec::new();
    let command = Command::Shell("echo a; echo b >&2; printf 'c\\0\\377\\nd' >&2; printf e".to_owned());
    bench.run_with(&command, &mut |line| lines.push(line.to_vec())).unwrap();
    assert_eq!(lines, [&b"a"[..], b"b", b"c\0\xff", b"de"]);
    assert_eq!(bench.file("log").unwrap(), b"a\nb\nc\0\xff\nde");
}

#[test]
fn much_output_passes_in_pieces_of_bounded_length() {
    let bench = Bench::new();
    let (mut total, mut longest) = (0, 0);
    let command = Command::Shell("head -c 10000000 /dev/zero".to_owned());
    let outcome = bench.run_with(&command, &mut |piece| {
        total += piece.len();
        longest = longest.max(piece.len());
    });
    assert_eq!(outcome.unwrap().end, End::Exited(0));
    assert_eq!((total, longest), (10_000_000, MAX_LINE_BYTES));
    assert_eq!(bench.file("log").unwrap().len(), 10_000_000);
}

#[test]
fn a_line_is_handed_on_while_the_command_runs() {
    let bench = Bench::new();
    let seen = bench.root.path().join("seen");
    let command = Command::Shell("echo go; while [ ! -e seen ]; do sleep 0.01; done".to_owned());
    let outcome = bench.run_with(&command, &mut |_| disk::write_whole(&seen, b"", Durability::Deferred).unwrap());
    assert_eq!(outcome.unwrap().end, End::Exited(0));
}

#[test]
fn a_time_limit_ends_even_what_ignores_the_request() {
    let mut bench = Bench::new();
    bench.time_limit = Some(Duration::from_millis(200));
    let clock = Stopwatch::start();
    assert_eq!(bench.shell("trap '' TERM; echo $$ > pid; while :; do sleep 0.05; done"), End::TimedOut);
    assert!(clock.elapsed() >= Duration::from_millis(200) + GRACE);
    assert!(!bench.is_there("pid"));
}

#[test]
fn what_obeys_the_time_limit_does_not_wait_for_the_grace() {
    let mut bench = Bench::new();
    bench.time_limit = Some(Duration::from_millis(100));
    let outcome = bench.run(&Command::Shell("sleep 300; true".to_owned())).unwrap();
    assert_eq!(outcome.end, End::TimedOut);
    assert!(outcome.elapsed < GRACE, "{:?}", outcome.elapsed);
}

#[test]
fn a_child_may_tidy_up_although_its_shell_ends_at_once() {
    let bench = Bench::new();
    let child = "trap 'sleep 0.1; echo saved > saved; exit' TERM; echo ready; while :; do sleep 0.01; done";
    let command = Command::Shell(format!("({child}) & wait"));
    let outcome = bench.run_with(&command, &mut |_| bench.stop.request()).unwrap();
    assert_eq!(outcome.end, End::Interrupted);
    assert_eq!(bench.file("saved").unwrap(), b"saved\n");
}

#[test]
fn an_interruption_by_another_thread_ends_all_of_it_soon() {
    let bench = Bench::new();
    let text = format!("{}; {}; exec sleep 300", daemon("", "child"), daemon("setsid", "daemon"));
    std::thread::scope(|scope| {
        let running = scope.spawn(|| bench.run(&Command::Shell(text)).unwrap());
        let daemon = bench.process("daemon");
        assert!(is_living(&daemon));
        bench.stop.request();
        let outcome = running.join().unwrap();
        assert_eq!(outcome.end, End::Interrupted);
        assert!(!is_living(&daemon));
    });
    assert!(!bench.is_there("child"));
    assert!(!bench.is_there("daemon"));
}

#[test]
fn an_urgent_stop_does_not_wait_for_the_grace() {
    let bench = Bench::new();
    let command = Command::Shell("trap '' TERM; echo ready; while :; do sleep 0.05; done".to_owned());
    let outcome = bench.run_with(&command, &mut |_| bench.stop.request_urgently()).unwrap();
    assert_eq!(outcome.end, End::Interrupted);
    assert!(outcome.elapsed < GRACE, "{:?}", outcome.elapsed);
}

#[test]
fn nothing_is_started_after_a_stop() {
    let bench = Bench::new();
    bench.stop.request();
    assert_eq!(bench.shell("touch started"), End::Interrupted);
    assert_eq!(bench.file("started"), None);
}

#[test]
fn a_panic_of_the_listener_leaves_nothing_running() {
    let bench = Bench::new();
    let command = Command::Shell("echo $$ > pid; echo now; exec sleep 300".to_owned());
    let listen = || bench.run_with(&command, &mut |_| panic!("on purpose"));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(listen)).is_err());
    assert!(!bench.is_there("pid"));
}

#[test]
fn background_jobs_end_with_the_command() {
    let bench = Bench::new();
    assert_eq!(bench.shell(&daemon("", "child")), End::Exited(0));
    assert!(!bench.is_there("child"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_daemon_in_a_session_of_its_own_ends_with_the_command_and_leaves_no_zombie() {
    let bench = Bench::new();
    assert_eq!(bench.shell(&daemon("setsid", "loud")), End::Exited(0));
    assert!(!bench.is_there("loud"), "it holds the pipe");
    assert_eq!(bench.shell(&daemon("exec >/dev/null 2>&1; setsid", "silent")), End::Exited(0));
    assert!(!bench.is_there("silent"), "only its environment tells");
    assert_eq!(bench.shell(&daemon("setsid env -i", "bare")), End::Exited(0));
    assert!(!bench.is_there("bare"), "only its output tells");
    let ended = "setsid env -i sh -c 'echo $$ > ended' >/dev/null 2>&1 & while [ ! -s ended ]; do sleep 0.01; done";
    assert_eq!(bench.shell(ended), End::Exited(0));
    assert!(!bench.is_there("ended"), "it ended by itself");
}

#[cfg(target_os = "linux")]
#[test]
fn a_daemon_that_forked_twice_ends_with_the_command() {
    let mut bench = Bench::new();
    let python = "
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        null = os.open(os.devnull, os.O_RDWR)
        for number in 0, 1, 2:
            os.dup2(null, number)
        os.chdir('/')
        with open(os.environ['ROOT'] + '/daemon', 'w') as file:
            print(os.getpid(), file=file)
        time.sleep(300)
    os._exit(0)
os.wait()
while not os.path.exists('daemon') or not os.path.getsize('daemon'):
    time.sleep(0.01)
";
    bench.environment.insert("ROOT".to_owned(), bench.root.path().into());
    assert_eq!(bench.direct(&["python3", "-c", python]).unwrap(), End::Exited(0), "{}", bench.log());
    assert!(!bench.is_there("daemon"));
}

#[cfg(target_os = "linux")]
#[test]
fn the_end_of_one_job_leaves_the_other_alone() {
    let (long, short) = (Bench::new(), Bench::new());
    let text = format!("{}; echo $$ > main; exec sleep 300", daemon("exec 3>&1 >/dev/null 2>&1; setsid", "daemon"));
    std::thread::scope(|scope| {
        let running = scope.spawn(|| long.run(&Command::Shell(text)).unwrap());
        let (main, daemon_of_long) = (long.process("main"), long.process("daemon"));

        assert_eq!(short.shell(&daemon("setsid", "daemon")), End::Exited(0));
        assert!(!short.is_there("daemon"));
        assert!(is_living(&main) && is_living(&daemon_of_long));

        long.stop.request();
        assert_eq!(running.join().unwrap().end, End::Interrupted);
        assert!(!is_living(&main) && !is_living(&daemon_of_long));
    });
}

#[cfg(target_os = "linux")]
#[test]
fn other_children_of_this_process_are_left_alone() {
    let bench = Bench::new();
    #[expect(clippy::disallowed_methods, reason = "a child that is no job, as `git` is")]
    let mut stranger = process::Command::new("sleep");
    // Started while the job runs, and as if it belonged to it.
    stranger.arg("300").env_clear().envs(&bench.environment);
    let mut started = None;
    let command = Command::Shell(format!("echo go; {}", daemon("setsid", "daemon")));
    let outcome = bench.run_with(&command, &mut |_| started = Some(stranger.spawn().unwrap()));
    assert_eq!(outcome.unwrap().end, End::Exited(0));
    assert!(!bench.is_there("daemon"));

    let mut stranger = started.unwrap();
    assert!(stranger.try_wait().unwrap().is_none());
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}
