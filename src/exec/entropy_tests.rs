//! Jobs whose entropy is pinned: what programs get that were not made for it, twice, from one seed and from another.

use std::collections::BTreeMap;

use super::isolated_tests::{Bench, compile, compiled, not_tested, say_untested};
use super::*;

/// Everything by which a program in C comes to entropy, each on a line: what it is, and what came of it.
const PROGRAM: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static void tell(const char *what, const unsigned char *bytes, long count) {
    uint64_t sum = 1469598103934665603u;
    for (long i = 0; i < count; i++) sum = (sum ^ bytes[i]) * 1099511628211u;
    printf("%s: %ld %016llx\n", what, count, (unsigned long long)sum);
    fflush(stdout);
}
static unsigned char large[1 << 20];
static unsigned char of_threads[4][8];
static void *ask(void *into) { if (getrandom(into, 8, 0) != 8) abort(); return 0; }

int main(int count, char **words) {
    unsigned char bytes[64] = {0};
    /* The kernel's library, which may know an answer without asking. */
    if (getenv("PINNED") && getauxval(AT_SYSINFO_EHDR)) abort();
    tell("at random", (unsigned char *)getauxval(AT_RANDOM), 16);
    tell("getrandom", bytes, getrandom(bytes, 16, 0));
    tell("getrandom without waiting", bytes, getrandom(bytes, 16, GRND_NONBLOCK | GRND_RANDOM));
    tell("a large getrandom", large, getrandom(large, sizeof large, 0));
    if (getrandom(bytes, 16, 0x1000) != -1 || errno != EINVAL) abort();
#ifdef __x86_64__
    /* A call by the old gate has the numbers and pointers of 32-bit programs, whoever makes it. */
    unsigned char *low = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    long asked = 355;
    __asm__ volatile("int $0x80" : "+a"(asked) : "b"((long)low), "c"(16L), "d"(0L) : "memory", "r8", "r9", "r10", "r11");
    tell("by the old gate", low, asked);
#endif
    int file = open("/dev/urandom", O_RDONLY);
    for (int i = 0; i < 8; i++) if (read(file, bytes + i, 1) != 1) abort();
    tell("single bytes", bytes, 8);
    tell("a megabyte", large, read(file, large, sizeof large));
    if (lseek(file, 0, SEEK_SET) != 0) abort();
    tell("after a seek", bytes, read(file, bytes, 16));
    tell("at an offset", bytes, pread(file, bytes, 16, 1000));
    struct iovec parts[2] = {{bytes, 5}, {bytes + 5, 11}};
    tell("into two", bytes, readv(file, parts, 2));
    if (read(file, (void *)8, 16) != -1 || errno != EFAULT) printf("a bad address is none\n");
    struct stat stat;
    if (fstat(file, &stat) || !S_ISCHR(stat.st_mode)) abort();
    int copy = dup(file), other = open("/dev/../dev/random", O_RDONLY | O_CLOEXEC);
    tell("a copy", bytes, read(copy, bytes, 16));
    tell("another device", bytes, read(other, bytes, 16));
    int null = open("/dev/null", O_WRONLY);
    if (getenv("PINNED") && (sendfile(null, file, 0, 16) != -1 || errno != EINVAL)) abort();
    FILE *buffered = fopen("/dev/urandom", "rb");
    tell("buffered", bytes, fread(bytes, 1, 7, buffered));
    for (int i = 0; i < 2; i++) {
        int uuid = open("/proc/sys/kernel/random/uuid", i ? O_RDONLY : O_RDONLY | O_CLOEXEC);
        if ((fcntl(uuid, F_GETFD) & FD_CLOEXEC) != (i ? 0 : FD_CLOEXEC)) abort();
        tell("uuid", bytes, read(uuid, bytes, 64));
        if (bytes[36] != '\n' || bytes[14] != '4') abort();
    }
    int ends[2];
    pid_t children[3];
    for (int i = 0; i < 3; i++) {
        if (pipe(ends)) abort();
        if (!(children[i] = fork())) { getrandom(bytes, 8, 0); if (write(ends[1], bytes, 8) != 8) abort(); _exit(0); }
        if (read(ends[0], bytes, 8) != 8) abort();
        tell("a child", bytes, 8);
    }
    for (int i = 0; i < 3; i++) waitpid(children[i], 0, 0);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) pthread_create(threads + i, 0, ask, of_threads[i]);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], 0);
    for (int i = 0; i < 4; i++) tell("a thread", of_threads[i], 8);
    if (count > 1) return 0;
    execl(words[0], words[0], "again", (char *)0);
    abort();
}
"#;

fn bench(entropy: Option<u64>) -> Bench {
    let mut bench = Bench::new();
    bench.pins = entropy.map(|seed| Pins { entropy: Some(seed), ..Pins::default() });
    bench
}

/// Returns what a text printed, which was given entropy from this seed.
fn printed(entropy: Option<u64>, text: &str) -> String {
    let ran = bench(entropy).run(text);
    assert_eq!(ran.outcome.end, End::Exited(0), "{text}: {}", ran.printed);
    assert_eq!(ran.outcome.observation.pinned, entropy.is_some(), "{text}");
    ran.printed
}

fn is_pinned_here() -> bool {
    let ran = Bench::new().run("true").outcome.observation;
    let is_pinned = ran.isolated && ran.rung == Rung::Notify;
    if !is_pinned {
        not_tested("pinned entropy", "jobs are not isolated, or their calls are reported to somebody else");
    }
    is_pinned
}

#[test]
fn every_way_of_a_program_to_entropy_repeats_with_the_seed_and_only_with_it() {
    if !is_pinned_here() {
        return;
    }
    for options in [&[][..], &["-static"], &["-m32"]] {
        let tell = |entropy| {
            let bench = bench(entropy);
            compile(&bench, "program", &[&["-pthread"], options].concat(), PROGRAM).map(|program| {
                let ran = bench.run(&format!("{}exec {program}", entropy.map_or("", |_| "export PINNED=1; ")));
                assert_eq!(ran.outcome.end, End::Exited(0), "{options:?}: {}", ran.printed);
                assert_eq!(ran.outcome.observation.pinned, entropy.is_some(), "{options:?}: {}", ran.printed);
                ran.printed.lines().map(str::to_owned).collect::<Vec<_>>()
            })
        };
        let first = match tell(Some(1)) {
            Ok(first) => first,
            Err(why) if options == ["-m32"] => {
                // Its way of calling is tested without a compiler for it too.
                say_untested("entropy of a whole 32-bit program", &why);
                continue;
            }
            Err(why) => {
                not_tested("entropy of a program in C", &why);
                return;
            }
        };
        let lines = if cfg!(target_arch = "x86_64") { 22 } else { 21 };
        assert_eq!(first.len(), 2 * lines, "{first:?}");
        assert_eq!(tell(Some(1)).unwrap(), first, "{options:?}");
        for other in [tell(Some(2)).unwrap(), tell(None).unwrap(), tell(None).unwrap()] {
            let repeated: Vec<_> = first.iter().filter(|line| other.contains(line)).collect();
            assert_eq!(repeated, Vec::<&String>::new(), "{options:?}");
        }
        let different: std::collections::BTreeSet<_> = first.iter().map(|line| line.rsplit(' ').next()).collect();
        assert_eq!(different.len(), first.len(), "nobody is given anything twice: {first:?}");
    }
}

#[test]
fn what_only_the_system_can_give_is_given_by_it_and_the_job_is_not_said_to_be_pinned() {
    if !is_pinned_here() {
        return;
    }
    let head = "#define _GNU_SOURCE\n#include <sched.h>\n#include <signal.h>\n#include <stdlib.h>\n#include <sys/random.h>\n\
                #include <sys/wait.h>\n#include <unistd.h>\n";
    // Room on the stack that not even a call of the library has touched, and a child that nobody is told of.
    let stack = "int main() { unsigned char room[600000]; long asked = 318;
        __asm__ volatile(\"syscall\" : \"+a\"(asked) : \"D\"(room), \"S\"(5000L), \"d\"(0L) : \"rcx\", \"r11\", \"memory\");
        return asked != 5000; }";
    let untraced = "static char stack[65536];
        static int child(void *none) { char byte[8]; return getrandom(byte, 8, 0) != 8; }
        int main() { int status; clone(child, stack + 65536, CLONE_UNTRACED | SIGCHLD, 0); wait(&status); return status; }";
    for (name, text) in [("stack", stack), ("untraced", untraced)] {
        if name == "stack" && cfg!(not(target_arch = "x86_64")) {
            say_untested("entropy on a stack that grows", "another architecture");
            continue;
        }
        let bench = bench(Some(1));
        let flags = ["-O0", "-fno-stack-clash-protection", "-fno-stack-protector"];
        let Some(program) = compiled(&bench, name, &flags, &format!("{head}{text}")) else { return };
        let ran = bench.run(&format!("exec {program}"));
        assert_eq!((ran.outcome.end, ran.outcome.observation.pinned), (End::Exited(0), false), "{name}");
    }
}

/// Programs, and whether what they print repeats if entropy is pinned. It never does otherwise.
const TOOLS: &[(&str, &str, bool)] = &[
    ("head", "head -c 8 /dev/urandom | od -An -tx1", true),
    ("dd", "dd if=/dev/urandom bs=1M count=40 2>/dev/null | cksum", true),
    ("tr", "tr -dc a-z < /dev/urandom | head -c 20", true),
    ("cat", "cat /proc/sys/kernel/random/uuid", true),
    ("shuf", "shuf -i 1-1000000 -n 3", true),
    ("mktemp", "mktemp -u XXXXXXXXXXXX", true),
    ("busybox", "busybox head -c 8 /dev/urandom | busybox od -An -tx1", true),
    ("python3", "python3 -I -c 'import uuid, random; print(uuid.uuid4(), random.random(), hash(\"a\"))'", true),
    ("perl", "perl -e 'print rand, join(\",\", keys %{{map {$_ => 1} 1..20}})'", true),
    ("children", "for i in 1 2 3; do head -c 4 /dev/urandom | od -An -tx1 & done; wait", true),
    ("bash", "bash -c 'echo $RANDOM$RANDOM$RANDOM'", false),
    ("bash's other", "bash -c 'echo $SRANDOM'", true),
    ("openssl", "openssl rand -hex 8", false),
    ("openssl's keys", "openssl genpkey -algorithm ed25519", false),
    ("uuidgen", "uuidgen -r", false),
    ("uuidgen of the time", "uuidgen -t", false),
    ("python3 of the time", "python3 -I -c 'import uuid; print(uuid.uuid1())'", false),
    ("node", "node -e 'console.log(Math.random(), crypto.randomUUID())'", false),
];

/// What the processor draws, and where the kernel puts things.
#[test]
fn what_is_not_asked_of_the_system_escapes() {
    if !is_pinned_here() {
        return;
    }
    let draw = "#include <stdio.h>\nint main() { unsigned long drawn = 0; unsigned char is_drawn = 0; int tries = 0;
        if (!__builtin_cpu_supports(\"rdrnd\")) { puts(\"none\"); return 0; }
        while (!is_drawn && tries++ < 100)
            __asm__ volatile(\"rdrand %0; setc %1\" : \"=r\"(drawn), \"=qm\"(is_drawn) : : \"cc\");
        printf(\"%lx\\n\", drawn); return !is_drawn; }";
    let place = "#include <stdio.h>\nint main() { int place; printf(\"%p\\n\", (void *)&place); return 0; }";
    for (name, text) in [("draw", draw), ("place", place)] {
        if name == "draw" && cfg!(not(target_arch = "x86_64")) {
            say_untested("instructions of the processor", "another architecture");
            continue;
        }
        let bench = bench(Some(1));
        let Some(program) = compiled(&bench, name, &[], text) else { return };
        let printed = || {
            let ran = bench.run(&format!("exec {program}"));
            assert_eq!((ran.outcome.end, ran.outcome.observation.pinned), (End::Exited(0), true), "{name}");
            ran.printed
        };
        let [one, again] = [printed(), printed()];
        if one.trim() == "none" {
            say_untested("instructions of the processor", "it has none of these");
            continue;
        }
        assert_ne!(one, again, "{name}");
    }
}

#[test]
fn of_the_tools_of_every_day_those_repeat_that_ask_the_system_alone() {
    if !is_pinned_here() {
        return;
    }
    let mut found = BTreeMap::new();
    for (tool, text, repeats) in TOOLS {
        let program = text.split(' ').next().unwrap_or_default();
        if Bench::new().run(&format!("command -v {program}")).outcome.end != End::Exited(0) {
            not_tested(&format!("pinned entropy of `{tool}`"), "it is not here");
            continue;
        }
        // Whose order is not told by the seed is told apart by what it says.
        let sorted = |entropy| {
            let mut lines: Vec<_> = printed(entropy, text).lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let [one, again] = [sorted(Some(1)), sorted(Some(1))];
        found.insert(tool, (one == again, *repeats));
        assert_ne!(one, sorted(Some(2)), "{tool}: another seed");
        assert_ne!(sorted(None), sorted(None), "{tool}: the system's own");
    }
    let wrong: BTreeMap<_, _> = found.iter().filter(|(_, (found, expected))| found != expected).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(found.len() > 6, "{found:?}");
}

#[test]
fn what_is_observed_of_a_pinned_job_is_what_is_observed_of_any() {
    if !is_pinned_here() {
        return;
    }
    let text = "cat in.txt > out.txt; (head -c 4 /dev/urandom; cat /proc/sys/kernel/random/uuid) > /dev/null; test -e none; ls sub";
    let [pinned, free] = [Some(1), None].map(|entropy| {
        let bench = bench(entropy);
        bench.file("in.txt", "text");
        bench.file("sub/a", "");
        let observation = bench.run(text).outcome.observation;
        let mut touched = observation.touched;
        // Who ends at once may be gone before it is asked for its name.
        touched.values_mut().for_each(|touch| touch.by.clear());
        Observation { pinned: false, started: None, touched, ..observation }
    });
    assert_eq!(pinned, free);
}

#[test]
fn a_pinned_job_that_is_stopped_or_leaves_processes_behind_comes_to_its_end() {
    if !is_pinned_here() {
        return;
    }
    let ran = bench(Some(1)).run(
        "sleep 300 & (sleep 300 & kill -STOP $!) ; kill -STOP $! ; kill -CONT $! ; kill -TERM $!; wait $!; echo $?",
    );
    assert_eq!((ran.outcome.end, ran.printed.lines().last()), (End::Exited(0), Some("143")));
    assert_eq!(bench(Some(1)).run("kill -9 $$").outcome.end, End::Signalled(9));
}

#[test]
fn a_job_without_a_world_is_not_pinned_and_not_begun() {
    let root = tempfile::tempdir().unwrap();
    let command = Command::Shell("echo > begun".to_owned());
    let job = Job {
        command: &command,
        directory: root.path(),
        environment: &BTreeMap::new(),
        time_limit: None,
        memory: None,
        log: &root.path().join("log"),
        world: None,
        observe: true,
        permission: None,
        pins: Some(&Pins { entropy: Some(1), ..Pins::default() }),
    };
    let refused = run(&job, &mut |_| {}, &Stop::new());
    assert!(matches!(refused, Err(ExecError::NotPinned(Unpinned::InTheOpen))), "{refused:?}");
    assert!(!root.path().join("begun").exists());
}
