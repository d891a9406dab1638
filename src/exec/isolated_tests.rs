//! Tests of isolated and observed jobs, on this machine's kernel.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::*;
use crate::disk::{Durability, make_directory, write_whole};
use crate::host;

/// A directory with what a world needs.
pub(super) struct Bench {
    root: tempfile::TempDir,
    pub(super) environment: BTreeMap<String, OsString>,
    pub(super) offline: bool,
    pub(super) pins: Option<Pins>,
    /// How many jobs have run; an overlay takes no scratch directory that another has used.
    jobs: AtomicU32,
}

pub(super) struct Ran {
    pub(super) outcome: Outcome,
    pub(super) printed: String,
}

impl Bench {
    pub(super) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for name in ["base", "upper", "room/work", "room/home", "room/tmp", "root"] {
            make_directory(&root.path().join(name)).unwrap();
        }
        let environment = BTreeMap::from([
            ("PATH".to_owned(), host::variable_os("PATH").unwrap()),
            ("HOME".to_owned(), "/pv/home".into()),
            ("TMPDIR".to_owned(), "/pv/tmp".into()),
            ("LC_ALL".to_owned(), "C.UTF-8".into()),
        ]);
        Self { root, environment, offline: false, pins: None, jobs: AtomicU32::new(0) }
    }

    pub(super) fn file(&self, path: &str, text: &str) {
        write_whole(&self.root.path().join("base").join(path), text.as_bytes(), Durability::Deferred).unwrap();
    }

    pub(super) fn world(&self) -> World {
        let scratch = format!("scratch-{}", self.jobs.fetch_add(1, Ordering::Relaxed));
        make_directory(&self.root.path().join(&scratch)).unwrap();
        World {
            base: self.root.path().to_owned(),
            lower: vec!["base".into()],
            upper: ("upper".into(), scratch.into()),
            room: "room".into(),
            root: "root".into(),
            workplace: WORKPLACE.into(),
            offline: self.offline,
            image: None,
            read_only: Vec::new(),
        }
    }

    pub(super) fn run(&self, text: &str) -> Ran {
        self.run_for(text, None, &Stop::new())
    }

    /// Runs words without a shell between and without being observed.
    pub(super) fn run_unseen(&self, words: &[&str]) -> Ran {
        let command = Command::Direct(words.iter().map(|word| (*word).to_owned()).collect());
        self.start(&command, None, &Stop::new(), Some(&self.world()), false)
    }

    /// Runs a command, observed, in this world.
    pub(super) fn run_in(&self, command: &Command, world: &World) -> Ran {
        self.start(command, None, &Stop::new(), Some(world), true)
    }

    /// Returns why a command cannot be started in this world, if so.
    pub(super) fn try_in(&self, command: &Command, world: &World) -> Result<Outcome, ExecError> {
        let job = Job {
            command,
            directory: Path::new(WORKPLACE),
            environment: &self.environment,
            time_limit: None,
            memory: None,
            log: &self.root.path().join("log"),
            world: Some(world),
            observe: true,
            permission: None,
            pins: self.pins.as_ref(),
        };
        run(&job, &mut |_| {}, &Stop::new())
    }

    /// Runs a text without a world.
    pub(super) fn run_in_the_open(&self, text: &str) -> Ran {
        self.start(&Command::Shell(text.to_owned()), None, &Stop::new(), None, true)
    }

    fn run_for(&self, text: &str, time_limit: Option<Duration>, stop: &Stop) -> Ran {
        self.start(&Command::Shell(text.to_owned()), time_limit, stop, Some(&self.world()), true)
    }

    fn start(
        &self,
        command: &Command,
        time_limit: Option<Duration>,
        stop: &Stop,
        world: Option<&World>,
        observe: bool,
    ) -> Ran {
        let base = self.root.path().join("base");
        let job = Job {
            command,
            directory: if world.is_some() { Path::new(WORKPLACE) } else { &base },
            environment: &self.environment,
            time_limit,
            memory: None,
            log: &self.root.path().join("log"),
            world,
            observe,
            permission: None,
            pins: self.pins.as_ref(),
        };
        let mut printed = String::new();
        let outcome = run(&job, &mut |line| printed += &(String::from_utf8_lossy(line) + "\n"), stop).unwrap();
        Ran { outcome, printed }
    }

    /// Makes a file in the job's own directory, not its working place.
    pub(super) fn room(&self, path: &str) -> PathBuf {
        self.root.path().join("room").join(path)
    }

    pub(super) fn base(&self) -> PathBuf {
        self.root.path().join("base")
    }

    fn upper(&self, path: &str) -> PathBuf {
        self.root.path().join("upper").join(path)
    }
}

impl Ran {
    /// Returns what was read below the working place, each with what was done.
    pub(super) fn inside(&self) -> Vec<String> {
        let word = |yes: bool, word: &'static str| if yes { word } else { "" };
        let touched = self.outcome.observation.touched.iter();
        touched
            .filter_map(|(path, touch)| {
                let path = path.strip_prefix(WORKPLACE).ok()?.display().to_string();
                let words = [
                    word(touch.read, "read"),
                    word(touch.listed, "listed"),
                    word(touch.examined, "examined"),
                    word(touch.executed, "executed"),
                    word(touch.written, "written"),
                ];
                let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
                Some(format!("{path}: {}", words.join(" ")))
            })
            .collect()
    }
}

#[test]
fn an_isolated_job_works_at_a_fixed_place_over_layers_that_it_cannot_change() {
    let bench = Bench::new();
    bench.file("in.txt", "one\n");
    let ran = bench.run("pwd; cat in.txt; echo two >> in.txt; echo three > out.txt; hostname; echo $HOME $$; ls /pv");
    assert_eq!(ran.outcome.end, End::Exited(0), "{}", ran.printed);
    assert_eq!(ran.printed, "/pv/work\none\nlocalhost\n/pv/home 2\nhome\ntmp\nwork\n");
    let read = |path: PathBuf| String::from_utf8(crate::disk::read_if_there(&path).unwrap().unwrap()).unwrap();
    assert_eq!(read(bench.root.path().join("base/in.txt")), "one\n");
    assert_eq!(read(bench.upper("in.txt")), "one\ntwo\n");
    assert_eq!(read(bench.upper("out.txt")), "three\n");
    let observation = &ran.outcome.observation;
    assert!(observation.isolated);
    assert_eq!((observation.rung, &observation.gaps), (Rung::Notify, &std::collections::BTreeSet::new()));
    assert_eq!(ran.inside(), ["in.txt: read written", "out.txt: written"]);
    assert_eq!(observation.touched[Path::new("/pv/work/in.txt")].by, "cat");
}

/// Says that a test, or a part of it, cannot be done here. Where everything must be tested, that is a failure.
pub(super) fn not_tested(what: &str, why: &str) {
    let is_set = |name| host::variable_os(name).is_some_and(|value| !value.is_empty());
    assert!(
        !is_set("CI") || is_set("PV_ALLOW_UNTESTED"),
        "NOT TESTED (PV_ALLOW_UNTESTED=1 lets it pass): {what}: {why}"
    );
    say_untested(what, why);
}

/// Says that something is not tested here which need not be had everywhere.
pub(super) fn say_untested(what: &str, why: &str) {
    {
        eprintln!("NOT TESTED: {what}: {why}");
    }
}

/// Compiles a C program into the job's own directory; the reason why not if it cannot be had here.
/// Compiles a C program into the job's own directory; returns the command that runs it, or what the compiler says.
pub(super) fn compile(bench: &Bench, name: &str, flags: &[&str], text: &str) -> Result<String, String> {
    let (source, target) = (bench.room(&format!("{name}.c")), bench.room(name));
    write_whole(&source, text.as_bytes(), Durability::Deferred).unwrap();
    #[expect(clippy::disallowed_methods, reason = "a program for the job")]
    let output = std::process::Command::new("gcc").args(flags).arg("-o").arg(&target).arg(&source).output();
    match output {
        Ok(output) if output.status.success() => Ok(format!("/pv/{name}")),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Returns whether calls of isolated jobs are reported to us, without which nothing can be pinned; that they are not is said of `what`.
pub(super) fn is_reported(what: &str) -> bool {
    let ran = Bench::new().run("true").outcome.observation;
    let is_reported = ran.isolated && ran.rung == Rung::Notify;
    if !is_reported {
        not_tested(what, "jobs are not isolated, or their calls are reported to somebody else");
    }
    is_reported
}

/// Returns whether a job finds a program; that it does not is said of `what`.
pub(super) fn is_there(program: &str, what: &str) -> bool {
    let is_there = Bench::new().run(&format!("command -v {program}")).outcome.end == End::Exited(0);
    if !is_there {
        not_tested(&format!("{what} `{program}`"), "it is not here");
    }
    is_there
}

/// Compiles a C program into the job's own directory; `None` if it cannot be had here, which is said.
pub(super) fn compiled(bench: &Bench, name: &str, flags: &[&str], text: &str) -> Option<String> {
    compile(bench, name, flags, text).map_err(|why| not_tested(name, &why)).ok()
}

#[test]
fn exit_codes_signals_and_the_order_of_output_are_those_of_the_command() {
    let bench = Bench::new();
    let end = |text: &str| bench.run(text).outcome.end;
    assert_eq!(end("exit 42"), End::Exited(42));
    assert_eq!(end("kill -9 $$"), End::Signalled(libc::SIGKILL));
    assert_eq!(end("kill -ABRT $$"), End::Signalled(libc::SIGABRT));
    assert_eq!(bench.run("echo a; echo b >&2; echo c; printf d >&2").printed, "a\nb\nc\nd\n");
}

#[test]
fn the_user_inside_is_the_user_outside() {
    let bench = Bench::new();
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    assert_eq!(bench.run("id -u; id -g; stat -c %u .").printed, format!("{user}\n{group}\n{user}\n"));
}

#[test]
fn what_this_process_knows_is_closed_to_the_job() {
    // The init of a job lives in the memory of this process, in which the variables of its caller lie, and with them
    // tokens and passwords.
    let look = "for place in /proc/[0-9]* /proc/self/../1 /proc/1/task/1; do
        test $(readlink /proc/self/../$$/exe) = \"$(readlink $place/exe)\" && continue
        for name in environ mem maps smaps auxv pagemap; do : < $place/$name && echo $place/$name; done
        for name in cwd root exe fd/0 map_files; do readlink $place/$name > /dev/null && echo $place/$name; done
        ls $place/fd $place/map_files > /dev/null && echo $place/fd
    done 2> /dev/null; true";
    let bench = Bench::new();
    assert_eq!(bench.run(look).printed, "");
    // Seen by a process that has taken all rights over users of its own, where that is possible.
    let printed = bench.run("unshare --user --map-root-user sh -c 'cat /proc/1/environ' 2> /dev/null").printed;
    assert_eq!(printed, "");
    // Its own processes stay open to it: this reads what the shell above it was given.
    let ran = bench.run("tr '\\0' '\\n' < /proc/$$/environ | grep ^HOME");
    assert_eq!(ran.printed, "HOME=/pv/home\n");
}

#[test]
fn a_time_limit_and_a_stop_end_everything_below_the_init() {
    let bench = Bench::new();
    let daemon = "setsid sh -c 'trap \"\" TERM; while :; do sleep 0.05; done' & ";
    let ran = bench.run_for(&format!("{daemon} sleep 300"), Some(Duration::from_millis(300)), &Stop::new());
    assert_eq!(ran.outcome.end, End::TimedOut);
    let stop = Stop::new();
    let (begun, world) = (bench.upper("begun"), bench.world());
    let text = Command::Shell(format!("touch begun; {daemon} sleep 300"));
    std::thread::scope(|scope| {
        let running = scope.spawn(|| bench.start(&text, None, &stop, Some(&world), true));
        while !begun.exists() {
            assert!(!running.is_finished(), "it cannot even begin");
            std::thread::yield_now();
        }
        stop.request();
        assert_eq!(running.join().unwrap().outcome.end, End::Interrupted);
    });
    assert_eq!(marked(&bench), [0; 0]);
}

/// Returns the processes that have the bench's mark in their environment.
fn marked(bench: &Bench) -> Vec<i32> {
    let mark = format!("MARK={}", bench.root.path().display()).into_bytes();
    let processes = super::table::all().into_iter();
    processes.filter(|process| process.environment().contains(&mark)).map(|process| process.pid).collect()
}

fn mark(bench: &mut Bench) {
    let path = bench.root.path().to_owned();
    bench.environment.insert("MARK".to_owned(), path.into());
}

#[test]
fn what_daemonises_ends_with_the_job_and_a_bounded_fork_bomb_leaves_nothing() {
    let mut bench = Bench::new();
    mark(&mut bench);
    let python = "
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.close(0); os.close(1); os.close(2)
        open('/pv/work/daemon', 'w').close()
        time.sleep(300)
    os._exit(0)
os.wait()
while not os.path.exists('daemon'): time.sleep(0.01)
for generation in range(7):
    os.fork()
if os.getpid() != 2: time.sleep(300)
";
    bench.file("bomb.py", python);
    let ran = bench.run("exec python3 bomb.py");
    assert_eq!(ran.outcome.end, End::Exited(0), "{}", ran.printed);
    assert_eq!(marked(&bench), [0; 0]);
    assert!(ran.outcome.observation.is_complete());
    bench.file("endless.sh", "f() { f & f & wait; }; ulimit -u 200 2>/dev/null; f");
    let ran = bench.run_for("exec timeout -s KILL 2 sh endless.sh", Some(Duration::from_secs(1)), &Stop::new());
    assert!(matches!(ran.outcome.end, End::TimedOut | End::Exited(_)), "{:?}", ran.outcome.end);
    assert_eq!(marked(&bench), [0; 0]);
}

#[test]
fn directories_that_were_there_before_do_not_hide_what_is_read_in_them() {
    let bench = Bench::new();
    bench.file("data/raw.csv", "1\n");
    bench.file("data/more.csv", "2\n");
    bench.file("other/x", "3\n");
    let ran = bench.run(
        "mkdir -p data out; cat data/raw.csv > out/a; ln -s ../data out/link; cat out/link/more.csv; rmdir data 2>/dev/null;
         rm data 2>/dev/null; (echo > data) 2>/dev/null; mv other moved; cat out/../data/raw.csv out/a moved/x",
    );
    assert_eq!(ran.outcome.end, End::Exited(0), "{}", ran.printed);
    let read: Vec<String> =
        ran.inside().into_iter().filter(|line| line.split(' ').skip(1).any(|word| word == "read")).collect();
    let named = |path: &str| read.iter().any(|line| line.split(':').next() == Some(path));
    assert!(named("data/raw.csv") && named("data/more.csv") && named("other/x"), "{read:#?}");
    assert!(!named("out/a") && !named("moved/x"), "{read:#?}");
}

#[test]
fn static_threaded_spawned_and_32_bit_programs_are_seen() {
    let bench = Bench::new();
    for name in ["static.in", "thread.in", "spawn.in", "vfork.in", "old.in"] {
        bench.file(name, "x");
    }
    let include = "
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
extern char **environ;
static void *reads(void *path) { char b[1]; int f = open(path, O_RDONLY); return (void *)(read(f, b, 1) == 1 ? 0L : 1L); }
";
    let programs = [
        ("static", "-static", "int main() { return (int)(long)reads(\"static.in\"); }"),
        (
            "thread",
            "-pthread",
            "int main() { pthread_t t; void *r; pthread_create(&t, 0, reads, \"thread.in\"); pthread_join(t, &r); return (int)(long)r; }",
        ),
        (
            "spawn",
            "-O1",
            "int main() { pid_t p; int s; char *a[] = {\"cat\", \"spawn.in\", 0};
             if (posix_spawnp(&p, \"cat\", 0, 0, a, environ)) return 9; waitpid(p, &s, 0); return s; }",
        ),
        (
            "vfork",
            "-O1",
            "int main() { int s; pid_t p = vfork(); if (!p) { execlp(\"cat\", \"cat\", \"vfork.in\", (char *)0); _exit(9); }
             waitpid(p, &s, 0); return s; }",
        ),
        // A call by the old gate has the numbers and pointers of 32-bit programs, whoever makes it.
        (
            "old",
            "-O1",
            "int main() { char *p = mmap(0, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_32BIT, -1, 0);
             strcpy(p, \"old.in\"); long f = 5;
             __asm__ volatile(\"int $0x80\" : \"+a\"(f) : \"b\"((long)p), \"c\"(0L), \"d\"(0L) : \"memory\", \"r8\", \"r9\", \"r10\", \"r11\");
             return f < 0; }",
        ),
    ];
    for (name, flag, text) in programs {
        if name == "old" && cfg!(not(target_arch = "x86_64")) {
            say_untested("32-bit calls", "another architecture");
            continue;
        }
        let Some(program) = compiled(&bench, name, &[flag], &format!("{include}{text}")) else { continue };
        let ran = bench.run(&program);
        assert_eq!(ran.outcome.end, End::Exited(0), "{name}: {}", ran.printed);
        assert!(ran.inside().contains(&format!("{name}.in: read")), "{name}: {:?}", ran.inside());
    }
}

#[test]
fn a_static_busybox_and_a_real_32_bit_program_are_seen() {
    let bench = Bench::new();
    bench.file("in.txt", "x");
    if bench.run("busybox true").outcome.end == End::Exited(0) {
        let ran = bench.run("exec busybox cat in.txt");
        assert!(ran.inside().contains(&"in.txt: read".to_owned()), "{:?}", ran.inside());
    } else {
        not_tested("busybox", "it is not installed");
    }
    let text = "#include <fcntl.h>\n#include <sys/stat.h>\n#include <unistd.h>\n
int main() { struct stat s; char b[1]; return read(open(\"in.txt\", O_RDONLY), b, 1) != 1 || stat(\"none\", &s) != -1; }";
    // Its way of calling is tested without a compiler for it too.
    match compile(&bench, "short", &["-m32"], text) {
        Err(why) => say_untested("a whole 32-bit program", &why),
        Ok(program) => {
            let ran = bench.run(&program);
            assert_eq!(ran.outcome.end, End::Exited(0), "{}", ran.printed);
            assert_eq!(ran.inside(), ["in.txt: read", "none: examined"]);
        }
    }
}

#[test]
fn calls_that_no_filter_sees_do_not_exist_and_a_second_listener_is_refused() {
    let bench = Bench::new();
    bench.file("in.txt", "x");
    let text = "
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
int main() {
    char room[256] = {0};
    long ring = syscall(425, 1, room); int ring_error = errno;
    struct sock_filter allow = {0x06, 0, 0, 0x7fff0000};
    struct sock_fprog one = {1, &allow};
    long plain = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &one);
    long second = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 8, &one); int second_error = errno;
    printf(\"%ld %d %ld %ld %d\\n\", ring, ring_error == ENOSYS, plain, second, second_error == EBUSY);
    return open(\"in.txt\", O_RDONLY) < 0;
}";
    let Some(program) = compiled(&bench, "filters", &["-O1"], text) else { return };
    let ran = bench.run(&program);
    assert_eq!(ran.printed, "-1 1 0 -1 1\n");
    assert_eq!(ran.inside(), ["in.txt: read"]);
}

#[test]
fn a_step_may_trace_its_own_processes() {
    let bench = Bench::new();
    bench.file("in.txt", "x");
    let ran = bench.run("exec strace -f -o /pv/tmp/trace cat in.txt");
    if ran.outcome.end == End::Exited(127) {
        return not_tested("a step that traces", "strace is not installed");
    }
    assert_eq!(ran.outcome.end, End::Exited(0), "{}", ran.printed);
    assert!(ran.inside().contains(&"in.txt: read".to_owned()), "{:?}", ran.inside());
}

#[test]
fn everything_dies_when_this_process_is_killed() {
    const TEST: &str = "exec::isolated_tests::everything_dies_when_this_process_is_killed";
    if let Some(root) = host::variable_os("PV_TEST_MARK") {
        let mut bench = Bench::new();
        bench.environment.insert("MARK".to_owned(), root.clone());
        let gate = PathBuf::from(root).join("begun");
        let sleep = format!("setsid sleep 300 & touch {}; sleep 300", gate.display());
        bench.run(&sleep);
        return;
    }
    let mut bench = Bench::new();
    mark(&mut bench);
    #[expect(clippy::disallowed_methods, reason = "this test as a process of its own, to be killed")]
    let mut child = std::process::Command::new(host::own_program().unwrap())
        .args(["--exact", TEST])
        .env("PV_TEST_MARK", bench.root.path())
        .spawn()
        .unwrap();
    while !bench.root.path().join("begun").exists() {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::yield_now();
    }
    while marked(&bench).len() < 2 {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // The kernel is told before, but takes its time.
    let clock = crate::host::Stopwatch::start();
    while !marked(&bench).is_empty() {
        assert!(clock.elapsed() < Duration::from_secs(20), "{:?}", marked(&bench));
        std::thread::yield_now();
    }
}

#[test]
fn a_descriptor_that_somebody_forgot_to_mark_is_not_left_to_the_job() {
    let bench = Bench::new();
    let file = std::fs::File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    let list = "ls /proc/self/fd | wc -l";
    // Three, and that of the listing.
    assert_eq!(bench.run(list).printed.trim(), "4");
    assert_eq!(bench.run_in_the_open(list).printed.trim(), "4");
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::CLOEXEC).unwrap();
}

#[test]
fn a_directory_that_is_not_in_the_world_and_a_variable_with_a_zero_byte_are_errors() {
    let bench = Bench::new();
    let command = Command::Shell("true".to_owned());
    let (world, log) = (bench.world(), bench.root.path().join("log"));
    let job = |directory, environment| Job {
        command: &command,
        directory,
        environment,
        time_limit: None,
        log: &log,
        memory: None,
        world: Some(&world),
        observe: true,
        permission: None,
        pins: None,
    };
    let none = Path::new("/pv/work/none");
    let error = run(&job(none, &bench.environment), &mut |_| {}, &Stop::new()).unwrap_err();
    assert!(matches!(error, ExecError::NoDirectory { path } if path == none));
    let mut with_zero = bench.environment.clone();
    with_zero.insert("ZERO".to_owned(), "a\0b".into());
    let error = run(&job(Path::new(WORKPLACE), &with_zero), &mut |_| {}, &Stop::new()).unwrap_err();
    assert!(matches!(error, ExecError::Start { source, .. } if source.kind() == io::ErrorKind::InvalidInput));
}

#[test]
fn a_pipe_that_is_executed_does_not_hold_the_observer_up() {
    let bench = Bench::new();
    let ran = bench.run("mkfifo pipe; chmod +x pipe; ./pipe; echo $?");
    assert!(ran.printed.ends_with("126\n"), "{}", ran.printed);
}

#[test]
fn what_is_not_permitted_looks_as_if_it_were_not_there() {
    let bench = Bench::new();
    bench.file("in.txt", "x");
    bench.file("secret.txt", "y");
    let command =
        Command::Shell("cat in.txt; cat secret.txt; cat ../work/secret.txt; test -e secret.txt; echo $?".to_owned());
    let may = |path: &Path| !path.ends_with("secret.txt");
    let world = bench.world();
    let job = Job {
        command: &command,
        directory: Path::new(WORKPLACE),
        environment: &bench.environment,
        time_limit: None,
        log: &bench.root.path().join("log"),
        memory: None,
        world: Some(&world),
        observe: true,
        permission: Some(&may),
        pins: None,
    };
    let mut printed = String::new();
    run(&job, &mut |line| printed += &(String::from_utf8_lossy(line) + "\n"), &Stop::new()).unwrap();
    assert_eq!(printed.matches("No such file").count(), 2, "{printed}");
    assert!(printed.starts_with('x') && printed.ends_with("1\n"), "{printed}");
}
