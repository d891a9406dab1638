//! Jobs of which something is pinned, and programs that were not made for it.

use std::collections::BTreeSet;

use super::isolated_tests::{Bench, compiled, is_reported, is_there};
use super::*;

fn printed(pins: &Pins, text: &str) -> String {
    printed_in(&mut Bench::new(), pins, text)
}

fn printed_in(bench: &mut Bench, pins: &Pins, text: &str) -> String {
    bench.pins = Some(pins.clone());
    let ran = bench.run(text);
    assert_eq!(ran.outcome.end, End::Exited(0), "{text}: {}", ran.printed);
    ran.printed
}

fn can_pin() -> bool {
    is_reported("pins")
}

fn has(program: &str) -> bool {
    is_there(program, "pins of")
}

/// Whatever can be pinned to one value.
fn all() -> Pins {
    Pins {
        entropy: Some(1),
        clock: Some(WallClock { start: 1_700_000_000, tick: 1_000_000 }),
        timer: Some(1_000_000),
        listing: Some(Listing::Sorted),
        processors: Some(3),
        hostname: Some("somewhere".to_owned()),
        first_pid: Some(700),
        umask: Some(0o027),
        fixed_layout: true,
        ..Pins::default()
    }
}

#[test]
fn the_clock_on_the_wall_says_what_it_is_told_to_and_goes_on_with_looks_and_sleep() {
    if !can_pin() {
        return;
    }
    let pins = Pins { clock: Some(WallClock { start: 1_700_000_000, tick: 1_000_000 }), ..Pins::default() };
    assert_eq!(printed(&pins, "date -u +%Y-%m-%dT%H:%M:%S"), "2023-11-14T22:13:20\n");
    if has("python3") {
        let text = "python3 -c 'import time, datetime
a = time.time_ns(); time.sleep(0.5); b = time.time_ns(); print(round((b - a) / 1e6), datetime.datetime.utcnow().isoformat())'";
        let first = printed(&pins, text);
        assert!(first.starts_with("501 2023-11-14T22:13:2"), "{first}");
        assert_eq!(printed(&pins, text), first);
    }
    if has("perl") {
        assert!(printed(&pins, "perl -e 'print time'").starts_with("1700000000"));
    }
}

#[test]
fn clocks_that_count_repeat_and_who_waits_until_a_point_in_time_waits_no_longer_than_it_says() {
    if !can_pin() || !has("python3") {
        return;
    }
    let text = "python3 -I -c 'import time, threading, queue, subprocess, resource, os
start = time.perf_counter()
lock = threading.Lock(); lock.acquire()
print(lock.acquire(timeout=0.05), threading.Event().wait(0.05))
try: queue.Queue().get(timeout=0.05)
except queue.Empty: print(\"empty\")
condition = threading.Condition()
with condition: print(condition.wait(0.05))
time.sleep(0.05)
print(subprocess.run([\"sleep\", \"0.05\"]).returncode)
print(time.perf_counter() - start, time.process_time(), time.thread_time(), os.times(), resource.getrusage(resource.RUSAGE_SELF)[:2])'";
    for pins in [
        all(),
        Pins { timer: Some(1_000_000), ..Pins::default() },
        Pins { clock: Some(WallClock { start: 5_000_000_000, tick: 1_000_000 }), timer: Some(1000), ..Pins::default() },
    ] {
        let first = printed(&pins, text);
        assert!(first.starts_with("False False\nempty\nFalse\n0\n"), "{first}");
        assert_eq!(printed(&pins, text), first);
    }
    let other = printed(&Pins { timer: Some(1_700_000), ..Pins::default() }, text);
    assert_ne!(other, printed(&Pins { timer: Some(1_000_000), ..Pins::default() }, text));
}

#[test]
fn who_waits_for_others_and_does_not_wait_in_vain_has_not_waited_long() {
    if !can_pin() || !has("python3") {
        return;
    }
    let text = "python3 -I -c 'import os, select, time
reading, writing = os.pipe(); os.write(writing, b\"x\")
poll, epoll = select.poll(), select.epoll(); poll.register(reading, 1); epoll.register(reading, 1)
start = time.monotonic()
poll.poll(30000); epoll.poll(30); select.select([reading], [], [], 30)
print(round(time.monotonic() - start), end=\" \")
os.read(reading, 1); print(poll.poll(1100), round(time.monotonic() - start), end=\" \")
select.select([], [], [], 1.1); print(round(time.monotonic() - start))'";
    assert_eq!(printed(&all(), text), "0 [] 1 2\n");
}

#[test]
fn a_program_in_c_waits_in_every_way_until_points_in_time_of_a_clock_that_is_pinned() {
    if !can_pin() {
        return;
    }
    let text = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/select.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
static struct timespec in(clockid_t clock, long milliseconds) {
    struct timespec time;
    if (clock_gettime(clock, &time)) abort();
    time.tv_nsec += milliseconds * 1000000;
    if (time.tv_nsec >= 1000000000) { time.tv_sec++; time.tv_nsec -= 1000000000; }
    return time;
}
int main() {
    struct timespec until = in(CLOCK_MONOTONIC, 30);
    if (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, 0)) abort();
    until = in(CLOCK_REALTIME, 30);
    if (clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &until, 0)) abort();
    sem_t semaphore;
    sem_init(&semaphore, 0, 0);
    /* Twice with what is left in the same place. */
    until = in(CLOCK_REALTIME, 30);
    for (int i = 0; i < 2; i++) if (sem_timedwait(&semaphore, &until) != -1 || errno != ETIMEDOUT) abort();
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
    pthread_mutex_lock(&mutex);
    until = in(CLOCK_REALTIME, 30);
    if (pthread_cond_timedwait(&condition, &mutex, &until) != ETIMEDOUT) abort();
    for (int real = 0; real < 2; real++) {
        int timer = timerfd_create(real ? CLOCK_REALTIME : CLOCK_MONOTONIC, 0);
        struct itimerspec at = {{0, 0}, in(real ? CLOCK_REALTIME : CLOCK_MONOTONIC, 30)};
        uint64_t count;
        if (timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, 0) || read(timer, &count, 8) != 8 || count != 1) abort();
    }
    poll(0, 0, 30);
    struct timeval some = {0, 30000};
    select(0, 0, 0, 0, &some);
    struct timeval day;
    gettimeofday(&day, 0);
    time_t now = time(0);
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    printf("%ld.%06ld %ld %ld.%09ld\n", day.tv_sec, day.tv_usec, now, used.tv_sec, used.tv_nsec);
    return 0;
}
"#;
    let mut bench = Bench::new();
    let Some(program) = compiled(&bench, "waits", &["-pthread"], text) else { return };
    bench.pins = Some(all());
    let first = bench.run(&format!("exec {program}"));
    assert_eq!(first.outcome.end, End::Exited(0));
    assert!(first.printed.starts_with("1700000000."), "{}", first.printed);
    assert!(first.outcome.elapsed < Duration::from_mins(1), "it waited for what only our clock reaches");
    assert_eq!(bench.run(&format!("exec {program}")).printed, first.printed);
}

#[test]
fn directories_are_listed_in_the_order_that_is_asked_for_however_large_and_by_whomever() {
    if !can_pin() {
        return;
    }
    let listed = |listing, text: &str| {
        let mut bench = Bench::new();
        for number in 0..600 {
            bench.file(&format!("many/a-rather-long-name-of-one-of-very-many-files-{number:04}.txt"), "");
        }
        printed_in(&mut bench, &Pins { listing: Some(listing), ..Pins::default() }, text)
    };
    let names: Vec<String> =
        (0..600).map(|number| format!("a-rather-long-name-of-one-of-very-many-files-{number:04}.txt")).collect();
    let sorted = names.join("\n") + "\n";
    let dots = format!(".\n..\n{sorted}");
    assert_eq!(listed(Listing::Sorted, "ls -f many"), dots);
    let reversed = dots.lines().rev().collect::<Vec<_>>().join("\n") + "\n";
    assert_eq!(listed(Listing::Reversed, "ls -f many"), reversed);
    let shuffled = listed(Listing::Shuffled(1), "ls -f many");
    assert_ne!(shuffled, dots);
    assert_eq!(listed(Listing::Shuffled(1), "ls -f many"), shuffled);
    assert_ne!(listed(Listing::Shuffled(2), "ls -f many"), shuffled);
    let names = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(names(&shuffled), names(&dots));
    // What is removed while it is listed, and what two have open at once, is listed whole all the same.
    assert_eq!(listed(Listing::Sorted, "rm -r many && ls -A"), "");
    assert_eq!(listed(Listing::Reversed, "find many many -type f | wc -l").trim(), "1200");
    if has("python3") {
        let text = "python3 -c 'import os
directory = os.open(\"many\", os.O_RDONLY)
one = [e.name for e in os.scandir(directory)]; again = [e.name for e in os.scandir(directory)]
print(one == again, len(one), one[0])'";
        assert_eq!(listed(Listing::Sorted, text), "True 600 a-rather-long-name-of-one-of-very-many-files-0000.txt\n");
    }
}

#[test]
fn the_machine_seems_to_have_as_many_processors_as_is_said() {
    if !can_pin() {
        return;
    }
    for count in [1, 3, 70] {
        let pins = Pins { processors: Some(count), ..Pins::default() };
        assert_eq!(printed(&pins, "nproc; grep -c ^processor /proc/cpuinfo"), format!("{count}\n{count}\n"));
        if has("python3") {
            let text = "python3 -c 'import os; print(os.cpu_count(), len(os.sched_getaffinity(0)))'";
            assert_eq!(printed(&pins, text), format!("{count} {count}\n"));
        }
    }
}

#[test]
fn names_numbers_and_modes_are_what_is_said() {
    if !can_pin() {
        return;
    }
    let text = "hostname; uname -n; echo $$; umask; > made; stat -c %a made";
    assert_eq!(printed(&all(), text), "somewhere\nsomewhere\n700\n0027\n640\n");
    let pins = Pins { user: Some((1, 1)), ..Pins::default() };
    assert_eq!(printed(&pins, "id -u; id -g; echo text > made; cat made"), "1\n1\ntext\n");
}

#[test]
fn programs_lie_at_the_same_addresses_where_that_is_fixed() {
    if !can_pin() {
        return;
    }
    let text = "sed -n '/stack/p;1p' /proc/self/maps";
    let fixed = Pins { fixed_layout: true, ..Pins::default() };
    assert_eq!(printed(&fixed, text), printed(&fixed, text));
    assert_ne!(printed(&Pins::default(), text), printed(&Pins::default(), text));
}

#[test]
fn a_serial_schedule_repeats_what_a_free_one_does_not() {
    if !can_pin() {
        return;
    }
    let text = "for i in 1 2 3 4 5 6; do (j=0; while [ $j -lt 3000 ]; do j=$((j+1)); done; echo $i) & done; wait";
    let serial = Pins { schedule: Schedule::Serial, ..Pins::default() };
    for _ in 0..3 {
        assert_eq!(printed(&serial, text), "1\n2\n3\n4\n5\n6\n");
    }
    let delayed = |number| printed(&Pins { schedule: Schedule::Delayed(number), ..Pins::default() }, text);
    let different: BTreeSet<String> = (0..8).map(delayed).collect();
    assert!(different.len() > 1, "{different:?}");
}

#[test]
fn a_serial_job_whose_parts_wait_for_each_other_comes_to_its_end() {
    if !can_pin() {
        return;
    }
    let serial = Pins { schedule: Schedule::Serial, ..Pins::default() };
    let text = "mkfifo pipe; (cat pipe; echo read) & (sleep 0.01; echo text > pipe; echo written) & wait; seq 100000 | sort -n | tail -1";
    let text = printed(&serial, text);
    assert!(text.contains("read") && text.contains("written") && text.ends_with("100000\n"), "{text}");
    if has("python3") {
        let text = "python3 -c 'import multiprocessing, concurrent.futures
def double(value): return 2 * value
if __name__ == \"__main__\":
    with concurrent.futures.ThreadPoolExecutor(4) as pool: print(sum(pool.map(double, range(100))))
    with multiprocessing.get_context(\"fork\").Pool(3) as pool: print(sum(pool.map(double, range(100))))'";
        assert_eq!(printed(&serial, text), "9900\n9900\n");
        assert_eq!(printed(&Pins { schedule: Schedule::Serial, ..all() }, text), "9900\n9900\n");
        assert_eq!(printed(&Pins { schedule: Schedule::Delayed(5), ..all() }, text), "9900\n9900\n");
    }
}

#[test]
fn how_many_processes_and_threads_were_started_is_told_where_that_is_followed() {
    if !can_pin() {
        return;
    }
    let mut bench = Bench::new();
    bench.pins = Some(Pins { timer: Some(1000), ..Pins::default() });
    assert_eq!(bench.run("exec true").outcome.observation.started, Some(0));
    assert_eq!(bench.run("true & wait; exec true").outcome.observation.started, Some(1));
    bench.pins = None;
    assert_eq!(bench.run("true & wait").outcome.observation.started, None);
}

#[test]
fn every_pin_at_once_lets_a_pipeline_of_tools_end_as_it_does_without() {
    if !can_pin() {
        return;
    }
    let text = "seq 1000 | awk '{s += $1} END {print s}'; tar cf - /etc/passwd 2>/dev/null | tar tf -; sort -R < /etc/passwd | wc -l | tr -d ' ' > lines; test -s lines && echo lines";
    assert_eq!(printed(&all(), text), Bench::new().run(text).printed);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn random_bits_of_the_processor_come_from_the_seed_in_programs_and_libraries_whatever_register_they_go_to() {
    if !can_pin() {
        return;
    }
    let library = "#include <stdint.h>\nuint64_t late(void) { uint64_t v; unsigned char ok;
        __asm__ volatile(\"rdseed %%r11; setc %1; mov %%r11, %0\" : \"=r\"(v), \"=r\"(ok) : : \"r11\", \"cc\"); return ok ? v : 0; }";
    let text = "#include <immintrin.h>\n#include <stdio.h>\n#include <stdint.h>\nuint64_t late(void);\nint main(void) {
        unsigned short small; unsigned middle; unsigned long long large;
        int ok = _rdrand16_step(&small) & _rdrand32_step(&middle) & _rdrand64_step(&large);
        printf(\"%d %x %x %llx %llx\\n\", ok, small, middle, large, (unsigned long long)late());
        return 0; }";
    let mut bench = Bench::new();
    let flags = ["-shared", "-fPIC", "-Wl,-soname,liblate.so"];
    let Some(_) = compiled(&bench, "liblate.so", &flags, library) else { return };
    let library = bench.room("liblate.so").display().to_string();
    let flags = ["-mrdrnd", "-Wl,--no-as-needed", "-Wl,-rpath,/pv", &library];
    let Some(program) = compiled(&bench, "draws", &flags, text) else { return };
    let text = format!("{program}; {program}");
    let mut draw = |seed: Option<u64>| {
        bench.pins = Some(Pins { entropy: Some(1), processor_entropy: seed, ..Pins::default() });
        let ran = bench.run(&text);
        assert_eq!(ran.outcome.end, End::Exited(0), "{}", ran.printed);
        assert_eq!(ran.outcome.observation.processor_draws, if seed.is_some() { 8 } else { 0 });
        ran.printed
    };
    let (once, again, other, own) = (draw(Some(1)), draw(Some(1)), draw(Some(2)), draw(None));
    assert_eq!(once, again);
    assert!(once != other && once != own && own != draw(None));
    let lines: Vec<&str> = once.lines().collect();
    assert!(lines.iter().all(|line| line.starts_with("1 ") && !line.ends_with(" 0")), "{once}");
    assert_ne!(lines[0], lines[1], "another process is given others");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_count_of_cycles_is_told_by_the_pinned_clock() {
    if !can_pin() {
        return;
    }
    let text = "#include <x86intrin.h>\n#include <stdio.h>\nint main(void) {
        unsigned which = 7; unsigned long long first = __rdtsc(), then = __rdtscp(&which);
        printf(\"%llu %llu %u\\n\", first, then - first, which); return 0; }";
    let mut bench = Bench::new();
    let Some(program) = compiled(&bench, "cycles", &[], text) else { return };
    let mut told = |tick| {
        bench.pins = Some(Pins { timer: Some(tick), cycles: true, ..Pins::default() });
        assert!(!bench.run("cat /dev/null").outcome.observation.counts_cycles, "nothing but the loader counts");
        let ran = bench.run(&program);
        assert!(ran.outcome.observation.counts_cycles);
        ran.printed
    };
    let (once, again, faster) = (told(1_000_000), told(1_000_000), told(7_000_000));
    assert_eq!(once, again);
    assert!(once.ends_with(" 1000000 0\n") && faster.ends_with(" 7000000 0\n"), "{once}{faster}");
}

#[test]
fn files_that_a_job_makes_are_as_old_as_its_clock_and_others_as_they_were() {
    if !can_pin() {
        return;
    }
    let text = "echo > a; mkdir d; echo > d/b; ln -s a l; touch -d @5000 old; echo > \"$TMPDIR/t\"
        stat -c '%n %Y' a d d/b l old /etc/passwd; stat -c %Y \"$TMPDIR/t\"; tar cf - a d | tar tvf - | cut -c 20-; echo >> a; stat -c %y a";
    let start = |start| Pins { clock: Some(WallClock { start, tick: 1_000_000 }), ..Pins::default() };
    let (once, again) = (printed(&start(1_900_000_000), text), printed(&start(1_900_000_000), text));
    assert_eq!(once, again);
    let passwd = std::os::unix::fs::MetadataExt::mtime(&std::fs::metadata("/etc/passwd").unwrap());
    for line in [
        "a 1900000000",
        "d 1900000000",
        "d/b 1900000000",
        "l 1900000000",
        "old 5000",
        "1900000000",
        "2030-03-17 17:46:40.000000000 +0000",
    ] {
        assert!(once.lines().any(|told| told == line), "{line}: {once}");
    }
    assert!(once.contains(&format!("/etc/passwd {passwd}\n")), "{once}");
    assert!(printed(&start(1_950_000_000), text).contains("a 1950000000\n"));
}
