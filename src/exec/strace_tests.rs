//! What is observed of programs, beside what `strace` tells of the same programs at the same place.

#![expect(unsafe_code, reason = "one call of Linux that has no safe form; its block says why it is sound")]

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;

use super::isolated_tests::{Bench, not_tested};
use super::*;
use crate::disk::{Durability, write_whole};

/// The programs: a name, what must be there to run it, how it is prepared, and the program itself.
const PROGRAMS: &[(&str, &str, &str, &str)] = &[
    ("a shell pipeline", "true", "", "cat in.txt | tr a b | sort > out.txt; test -e none || wc -l < out.txt; ls sub"),
    (
        "python with numpy and scikit-learn",
        "python3 -c 'import sklearn'",
        "",
        "python3 -c 'import numpy, sklearn.linear_model as m; import sys; sys.path.insert(0, \"sub\"); import own
numpy.savetxt(\"out.csv\", numpy.loadtxt(\"n.csv\"))'",
    ),
    ("python with sqlite", "python3 -c 'import sqlite3'", "", SQLITE),
    ("python with threads", "python3 -c 0", "", THREADS),
    (
        "git",
        "git --version",
        "export GIT_AUTHOR_DATE=@1000000000 GIT_COMMITTER_DATE=@1000000000; touch -d @1000000000 in.txt sub/* && git init -q . && git config core.checkStat minimal && git add in.txt sub && git -c user.name=a -c user.email=b@c commit -q -m one && touch -d @1100000000 .git/index && echo x >> in.txt",
        "export GIT_OPTIONAL_LOCKS=0; git status --short; git log --oneline; git diff --stat",
    ),
    ("a compiler", "gcc --version", "", "gcc -I sub -O1 -o program main.c && ./program"),
    ("tar", "tar --version", "", "tar -cf all.tar sub in.txt; mkdir -p sub out; tar -xf all.tar -C out; rm -r out/sub"),
    (
        "a static busybox",
        "busybox true",
        "",
        "busybox cat in.txt; busybox ls -l sub; busybox grep -r a sub; busybox cp in.txt new",
    ),
    ("a rust program", "rustc --version", "rustc -O -o rusty main.rs", "./rusty in.txt out.txt; rm out.txt"),
    ("posix_spawn", "gcc --version", "gcc -o spawns spawns.c", "./spawns"),
    ("vfork", "gcc --version", "gcc -o vforks vforks.c", "./vforks"),
    (
        "perl",
        "perl -e 0",
        "",
        "perl -ne 'print uc' in.txt > up.txt; perl -e 'rename \"up.txt\", \"sub/up.txt\"; mkdir \"sub\"; open F, \">>\", \"in.txt\"; unlink \"none\"'",
    ),
    (
        "find and xargs",
        "find --version",
        "",
        "find . -name '*.txt' | sort | xargs -n 1 cat; find sub -type f -exec wc -c {} +",
    ),
    ("make", "make --version", "", "make -s; make -s"),
    (
        "links and moves",
        "true",
        "",
        "ln -s in.txt l; cat l; mv l k; mv in.txt moved.txt; cp -r sub sub2; mv sub sub3; chmod +x run.sh; ./run.sh",
    ),
];

const SQLITE: &str = "python3 -c '
import sqlite3
base = sqlite3.connect(\"b.db\")
base.execute(\"create table t (x)\"); base.execute(\"insert into t values (1)\"); base.commit(); base.close()
print(sqlite3.connect(\"b.db\").execute(\"select * from t\").fetchall())'";

const THREADS: &str = "python3 -c '
import threading, os
def work(n):
    open(f\"sub/{n}.txt\").read() if n < 2 else os.path.exists(f\"sub/{n}.txt\")
all = [threading.Thread(target=work, args=(n,)) for n in range(8)]
[t.start() for t in all]; [t.join() for t in all]'";

const FILES: &[(&str, &str)] = &[
    ("in.txt", "a\nc\nb\n"),
    ("n.csv", "1 2\n3 4\n"),
    ("sub/0.txt", "a"),
    ("sub/1.txt", "b"),
    ("sub/own.py", "import json\n"),
    ("sub/own.h", "#define ANSWER 0\n"),
    ("main.c", "#include <own.h>\n#include <stdio.h>\nint main() { printf(\"%d\", ANSWER); return 0; }\n"),
    (
        "main.rs",
        "fn main() { let a: Vec<String> = std::env::args().collect();
         let t = std::thread::spawn(|| std::fs::metadata(\"none\").is_ok()); let _ = t.join();
         std::fs::write(&a[2], std::fs::read(&a[1]).unwrap()).unwrap(); }\n",
    ),
    (
        "spawns.c",
        "#include <spawn.h>\n#include <sys/wait.h>\nextern char **environ; int main() { pid_t p; int s;
         char *a[] = {\"cat\", \"in.txt\", 0}; posix_spawnp(&p, \"cat\", 0, 0, a, environ); waitpid(p, &s, 0); return s; }\n",
    ),
    (
        "vforks.c",
        "#include <unistd.h>\n#include <sys/wait.h>\nint main() { int s; pid_t p = vfork();
         if (!p) { execlp(\"cat\", \"cat\", \"sub/0.txt\", (char *)0); _exit(9); } waitpid(p, &s, 0); return s; }\n",
    ),
    ("Makefile", "all: out.o\nout.o: in.txt sub/0.txt\n\tcat in.txt sub/0.txt > out.o\n"),
    ("run.sh", "#!/bin/sh\ncat sub3/0.txt\n"),
];

fn prepared(preparation: &str) -> Bench {
    let mut bench = Bench::new();
    bench.environment.insert("PYTHONDONTWRITEBYTECODE".to_owned(), "1".into());
    for name in ["HOME", "CARGO_HOME", "RUSTUP_HOME"] {
        // Where the compilers find their own.
        bench.environment.extend(crate::host::variable_os(name).map(|value| (name.to_owned(), value)));
    }
    for (path, text) in FILES {
        bench.file(path, text);
    }
    #[expect(clippy::disallowed_methods, reason = "what is there before the job")]
    let output =
        std::process::Command::new("sh").args(["-ec", preparation]).current_dir(bench.base()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let script = bench.base().join("run.sh");
    write_whole(&script, b"#!/bin/sh\ncat sub3/0.txt\n", Durability::Deferred).unwrap();
    bench
}

/// What was done with the files below the working place.
#[derive(Default, PartialEq, Eq, Debug)]
struct Sets {
    read: BTreeSet<String>,
    examined: BTreeSet<String>,
    listed: BTreeSet<String>,
    written: BTreeSet<String>,
}

fn observed(observation: &Observation) -> Sets {
    let mut sets = Sets::default();
    for (path, touch) in &observation.touched {
        let Ok(path) = path.strip_prefix(WORKPLACE) else { continue };
        let path = lexically(Path::new(WORKPLACE).join(path).to_str().unwrap());
        for (yes, set) in [
            (touch.read, &mut sets.read),
            (touch.examined, &mut sets.examined),
            (touch.listed, &mut sets.listed),
            (touch.written, &mut sets.written),
        ] {
            if yes {
                set.extend(path.clone());
            }
        }
    }
    sets
}

/// Returns the path below the working place that an absolute path means, as far as its text tells.
fn lexically(path: &str) -> Option<String> {
    let mut names = Vec::new();
    for name in path.split('/').filter(|name| !name.is_empty() && *name != ".") {
        if name == ".." {
            names.pop();
        } else {
            names.push(name);
        }
    }
    let path = format!("/{}", names.join("/"));
    if path == WORKPLACE {
        return Some(".".to_owned());
    }
    path.strip_prefix(WORKPLACE)?.strip_prefix('/').map(str::to_owned)
}

/// One line of `strace -f -y`: who, which call, its arguments, and what came of it.
struct Line<'a> {
    pid: &'a str,
    call: &'a str,
    arguments: Vec<&'a str>,
    answer: &'a str,
}

/// Cuts arguments at commas outside of quotes and brackets.
fn arguments(text: &str) -> Vec<&str> {
    let (mut depth, mut quoted, mut escaped, mut start, mut found) = (0, false, false, 0, Vec::new());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'[' | b'{' | b'(' => depth += 1,
            b']' | b'}' | b')' => depth -= 1,
            b',' if depth == 0 => {
                found.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(text[start..].trim());
    found
}

fn line(text: &str) -> Option<Line<'_>> {
    let (pid, rest) = text.split_once(' ')?;
    let (call, rest) = rest.trim_start().split_once('(')?;
    let (inside, answer) = rest.rsplit_once(" = ")?;
    let inside = inside.trim_end().strip_suffix(')')?;
    Some(Line { pid, call, arguments: arguments(inside), answer: answer.trim() })
}

/// Puts the two halves of a call together between which another one was told.
fn whole(trace: &str) -> Vec<String> {
    let (mut begun, mut lines) = (BTreeMap::new(), Vec::new());
    for text in trace.lines() {
        let pid = text.split(' ').next().unwrap_or_default();
        if let Some(first) = text.strip_suffix("<unfinished ...>") {
            begun.insert(pid.to_owned(), first.to_owned());
        } else if let Some((_, rest)) = text.split_once(" resumed>") {
            lines.extend(begun.remove(pid).map(|first| format!("{first}{rest}")));
        } else {
            lines.push(text.to_owned());
        }
    }
    lines
}

/// What `strace` tells, by rules of its own: which calls there are, and what came of them.
#[derive(Default)]
struct Told {
    sets: Sets,
    /// What the program made itself.
    own: BTreeSet<String>,
    links: BTreeSet<String>,
    cwd: BTreeMap<String, String>,
}

impl Told {
    fn of(trace: &str) -> Sets {
        let mut told = Self::default();
        for text in whole(trace) {
            if let Some(line) = line(&text) {
                told.add(&line);
            }
        }
        told.sets
    }

    fn path(&mut self, line: &Line<'_>, directory: Option<usize>, path: usize) -> Option<String> {
        let text = line.arguments.get(path)?.strip_prefix('"')?.strip_suffix('"')?;
        let between = |text: &str| Some(text.split_once('<')?.1.strip_suffix('>')?.to_owned());
        let base = match directory {
            Some(directory) => between(line.arguments.get(directory)?)?,
            None => self.cwd.get(line.pid).cloned().unwrap_or_else(|| WORKPLACE.to_owned()),
        };
        if directory.is_some() && line.arguments[directory?].starts_with("AT_FDCWD") {
            self.cwd.insert(line.pid.to_owned(), base.clone());
        }
        if text.is_empty() {
            return None;
        }
        lexically(&if text.starts_with('/') { text.to_owned() } else { format!("{base}/{text}") })
    }

    fn is_own(&self, path: &str) -> bool {
        let above = path.char_indices().filter(|(_, next)| *next == '/').map(|(end, _)| &path[..end]);
        let mut all = above.chain([path]);
        all.any(|path| self.own.contains(path)) && !self.links.contains(path)
    }

    fn reads(&mut self, path: Option<String>, set: fn(&mut Sets) -> &mut BTreeSet<String>) {
        if let Some(path) = path.filter(|path| !self.is_own(path)) {
            set(&mut self.sets).insert(path);
        }
    }

    fn writes(&mut self, path: Option<String>, is_own: bool) {
        if let Some(path) = path {
            self.sets.written.insert(path.clone());
            if is_own {
                self.own.insert(path);
            }
        }
    }

    fn add(&mut self, line: &Line<'_>) {
        let done = !line.answer.starts_with("-1");
        let at =
            (line.call.ends_with("at") && line.call != "creat") || line.call.ends_with("at2") || line.call == "statx";
        match line.call {
            "open" | "openat" | "creat" => {
                let path = if at { self.path(line, Some(0), 1) } else { self.path(line, None, 0) };
                let flags = line.arguments.get(if at { 2 } else { 1 }).copied().unwrap_or_default();
                self.opens(path, if line.call == "creat" { "O_WRONLY|O_CREAT|O_TRUNC" } else { flags }, done);
            }
            "stat" | "lstat" | "access" | "statfs" | "getxattr" | "lgetxattr" => {
                let path = self.path(line, None, 0);
                self.reads(path, |sets| &mut sets.examined);
            }
            "newfstatat" | "statx" | "faccessat" | "faccessat2" => {
                let path = self.path(line, Some(0), 1);
                self.reads(path, |sets| &mut sets.examined);
            }
            "readlink" | "readlinkat" => {
                let path = if at { self.path(line, Some(0), 1) } else { self.path(line, None, 0) };
                self.reads(path, |sets| &mut sets.read);
            }
            "chdir" => {
                let path = self.path(line, None, 0);
                if let Some(path) = path.clone().filter(|_| done) {
                    self.cwd.insert(line.pid.to_owned(), format!("{WORKPLACE}/{path}"));
                }
                self.reads(path, |sets| &mut sets.examined);
            }
            "getdents64" => {
                let path = line.arguments[0].split_once('<').and_then(|(_, path)| lexically(path.strip_suffix('>')?));
                self.reads(path, |sets| &mut sets.listed);
            }
            "execve" => {
                let path = self.path(line, None, 0);
                self.reads(path, if done { |sets| &mut sets.read } else { |sets| &mut sets.examined });
            }
            "mkdir" | "mkdirat" | "mknod" | "mknodat" => {
                let path = if at { self.path(line, Some(0), 1) } else { self.path(line, None, 0) };
                self.reads(path.clone(), |sets| &mut sets.examined);
                self.writes(path.filter(|_| done), true);
            }
            "unlink" | "unlinkat" | "rmdir" => {
                let path = if at { self.path(line, Some(0), 1) } else { self.path(line, None, 0) };
                let is_directory = line.call == "rmdir" || line.arguments.get(2) == Some(&"AT_REMOVEDIR");
                self.reads(path.clone(), |sets| &mut sets.examined);
                self.writes(path.filter(|_| done), !is_directory);
            }
            "chmod" | "fchmodat" | "fchmodat2" | "utimensat" | "truncate" | "chown" | "lchown" | "fchownat" => {
                let path = if at { self.path(line, Some(0), 1) } else { self.path(line, None, 0) };
                self.reads(path.clone(), |sets| &mut sets.read);
                self.writes(path.filter(|_| done), false);
            }
            "symlink" | "symlinkat" => {
                let path = if at { self.path(line, Some(1), 2) } else { self.path(line, None, 1) };
                self.reads(path.clone(), |sets| &mut sets.examined);
                self.links.extend(path.clone().filter(|_| done));
                self.writes(path.filter(|_| done), true);
            }
            "rename" | "renameat" | "renameat2" | "link" | "linkat" => self.moves(line, done),
            "clone" | "clone3" | "fork" | "vfork" => {
                let child = line.answer.split(' ').next().unwrap_or_default().to_owned();
                if let Some(cwd) = self.cwd.get(line.pid).cloned() {
                    self.cwd.entry(child).or_insert(cwd);
                }
            }
            _ => {}
        }
    }

    fn opens(&mut self, path: Option<String>, flags: &str, done: bool) {
        let has = |flag: &str| flags.split('|').any(|word| word == flag);
        if has("O_DIRECTORY") || has("O_PATH") || has("O_TMPFILE") {
            return self.reads(path, |sets| &mut sets.examined);
        }
        if has("O_RDONLY") {
            return self.reads(path, |sets| &mut sets.read);
        }
        if has("O_EXCL") || (has("O_TRUNC") && !has("O_CREAT")) {
            self.reads(path.clone(), |sets| &mut sets.examined);
        } else if !has("O_TRUNC") {
            self.reads(path.clone(), |sets| &mut sets.read);
        }
        self.writes(path.filter(|_| done), true);
    }

    fn moves(&mut self, line: &Line<'_>, done: bool) {
        let (from, to) = if line.call.contains("at") {
            (self.path(line, Some(0), 1), self.path(line, Some(2), 3))
        } else {
            (self.path(line, None, 0), self.path(line, None, 1))
        };
        let is_link = line.call.starts_with("link");
        self.reads(from.clone(), |sets| &mut sets.read);
        if done {
            if !is_link {
                self.writes(from, true);
            }
            self.writes(to, true);
        }
    }
}

/// Runs each program twice, and returns what differs. What is only examined matters where nothing else is told of the path.
fn differences(rung: Rung) -> Vec<String> {
    let mut differences = Vec::new();
    for (name, need, preparation, program) in PROGRAMS {
        let able = prepared("true").run_in_the_open(need).outcome.end == End::Exited(0);
        if !able {
            not_tested(name, "it is not installed");
            continue;
        }
        let bench = prepared(preparation);
        let seen = bench.run(program);
        let observation = &seen.outcome.observation;
        assert_eq!(observation.rung, rung, "{name}");
        assert!(observation.gaps.is_empty(), "{name}: {:?}", observation.gaps);
        let bench = prepared(preparation);
        let kinds = "trace=file,getdents64,process,fchdir";
        let words = ["strace", "-f", "-y", "-s", "4096", "-o", "/pv/tmp/trace", "-e", kinds, "/bin/sh", "-c", program];
        let told = bench.run_unseen(&words);
        assert_eq!(seen.outcome.end, told.outcome.end, "{name}: {}\n{}", seen.printed, told.printed);
        let trace =
            String::from_utf8_lossy(&disk::read_if_there(&bench.room("tmp/trace")).unwrap().unwrap()).into_owned();
        let (ours, theirs) = (observed(observation), Told::of(&trace));
        differences.extend(compare(name, &ours, &theirs));
    }
    differences
}

fn compare(name: &str, ours: &Sets, theirs: &Sets) -> Option<String> {
    let all = |sets: &Sets| -> BTreeSet<String> {
        [&sets.read, &sets.examined, &sets.listed].into_iter().flatten().cloned().collect()
    };
    let pairs = [
        ("depended on", all(ours), all(theirs)),
        ("listed", ours.listed.clone(), theirs.listed.clone()),
        ("written", ours.written.clone(), theirs.written.clone()),
    ];
    let mut text = String::new();
    for (what, ours, theirs) in pairs {
        // Names that are made up differ from run to run.
        let known = |path: &&String| !path.contains("tmp_obj") && !path.contains(".lock");
        let (ours, theirs): (BTreeSet<_>, BTreeSet<_>) =
            (ours.iter().filter(known).collect(), theirs.iter().filter(known).collect());
        if ours != theirs {
            text += &format!(
                "\n  {what}\n    seen by us alone: {:?}\n    by strace alone: {:?}\n    ours: {ours:?}\n    its: {theirs:?}",
                ours.difference(&theirs).collect::<Vec<_>>(),
                theirs.difference(&ours).collect::<Vec<_>>()
            );
        }
    }
    (!text.is_empty()).then(|| format!("{name}{text}"))
}

fn has_strace() -> bool {
    let there = Bench::new().run_in_the_open("strace -V").outcome.end == End::Exited(0);
    if !there {
        not_tested("what is observed beside what strace tells", "strace is not installed");
    }
    there
}

#[test]
fn reports_tell_of_every_program_what_strace_tells() {
    if has_strace() {
        let differences = differences(Rung::Notify);
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }
}

/// Puts a filter on this thread and what it starts; returns what the kernel answers.
fn filter(code: &[libc::sock_filter], flags: libc::c_ulong) -> libc::c_long {
    let program = libc::sock_fprog { len: u16::try_from(code.len()).unwrap(), filter: code.as_ptr().cast_mut() };
    // SAFETY: the filter lives until the calls return, and binds this thread alone.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::syscall(libc::SYS_seccomp, 1, flags, &raw const program)
    }
}

const ALLOW: libc::sock_filter = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 };

/// Makes this thread and what it starts get this error from one call.
pub(super) fn refuse(call: libc::c_long, error: i32) {
    let (call, error) = (u32::try_from(call).unwrap(), u32::try_from(error).unwrap());
    let code = [
        libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 },
        libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: call },
        libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x0005_0000 | error },
        ALLOW,
    ];
    assert_eq!(filter(&code, 0), 0);
}

/// Makes this thread's children ones whose calls are reported to somebody else already. Returns where.
fn occupied() -> Option<OwnedFd> {
    let listener = filter(&[ALLOW], 1 << 3);
    // SAFETY: the kernel has just opened it for us.
    (listener >= 0).then(|| unsafe { OwnedFd::from_raw_fd(i32::try_from(listener).unwrap()) })
}

/// Does something on a thread of its own where only tracing is left.
fn where_reports_are_taken(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let there = scope.spawn(|| {
            let Some(_taken) = occupied() else { return not_tested("the second rung", "no listener is to be had") };
            test();
        });
        if let Err(panic) = there.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn where_reports_go_elsewhere_tracing_tells_of_every_program_what_strace_tells() {
    if has_strace() {
        where_reports_are_taken(|| {
            let differences = differences(Rung::Ptrace);
            assert!(differences.is_empty(), "{}", differences.join("\n"));
        });
    }
}

#[test]
fn a_traced_job_ends_as_it_would_and_stops_go_through() {
    where_reports_are_taken(|| {
        let bench = Bench::new();
        bench.file("in.txt", "x\n");
        assert_eq!(bench.run("exit 7").outcome.end, End::Exited(7));
        assert_eq!(bench.run("kill -9 $$").outcome.end, End::Signalled(libc::SIGKILL));
        let ran = bench.run(
            "(kill -STOP $BASHPID 2>/dev/null; sh -c 'kill -STOP $$; cat in.txt') & sleep 0.3; kill -CONT -1; wait",
        );
        assert!(ran.printed.contains('x'), "{}", ran.printed);
        let ran = bench.run("trap 'echo got' USR1; kill -USR1 $$; setsid sleep 300 & exit 3");
        assert_eq!((ran.outcome.end, ran.printed.as_str()), (End::Exited(3), "got\n"));
        let ran = bench.run("exec strace -f true");
        assert_ne!(ran.outcome.end, End::Exited(0), "a traced process cannot be traced: {}", ran.printed);
    });
}

#[test]
fn a_traced_job_does_not_find_what_it_may_not_read() {
    where_reports_are_taken(|| {
        let bench = Bench::new();
        bench.file("in.txt", "x\n");
        bench.file("secret.txt", "y\n");
        let command = Command::Shell("cat in.txt; cat secret.txt; test -e secret.txt || echo none".to_owned());
        let may = |path: &Path| !path.ends_with("secret.txt");
        let world = bench.world();
        let job = Job {
            command: &command,
            directory: Path::new(WORKPLACE),
            environment: &bench.environment,
            time_limit: None,
            log: &bench.base().join("log"),
            memory: None,
            world: Some(&world),
            observe: true,
            permission: Some(&may),
            pins: None,
        };
        let mut printed = String::new();
        let outcome = run(&job, &mut |line| printed += &(String::from_utf8_lossy(line) + "\n"), &Stop::new()).unwrap();
        assert_eq!(outcome.observation.rung, Rung::Ptrace);
        assert!(
            printed.starts_with("x\n") && printed.contains("No such file") && printed.ends_with("none\n"),
            "{printed}"
        );
    });
}
