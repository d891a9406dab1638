//! One program from start to end: how long it took, and how much memory it held at most.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often the memory of a running program is looked at. What it takes for less than that may be missed.
const SAMPLE_EVERY: Duration = Duration::from_millis(5);

/// What one run of something cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cost {
    pub(crate) ms: f64,
    /// The most memory that the program held; none where nothing was to be seen of it, or it was no program.
    pub(crate) peak_mib: Option<f64>,
}

impl Cost {
    /// Returns what an act of this process took. Its memory is not told from the rest of this process.
    pub(crate) fn of(act: impl FnOnce()) -> Self {
        let start = Instant::now();
        act();
        Self { ms: start.elapsed().as_secs_f64() * 1000.0, peak_mib: None }
    }

    /// Returns the cost of both, one after the other.
    pub(crate) fn and(self, next: Self) -> Self {
        Self { ms: self.ms + next.ms, peak_mib: largest(self.peak_mib, next.peak_mib) }
    }
}

/// Runs a program, which must succeed. Returns its cost and what it printed.
pub(crate) fn run(command: &mut Command) -> (Cost, Vec<u8>) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let start = Instant::now();
    let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (peak_kib, output, ms) = watched(child, start);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    #[expect(clippy::cast_precision_loss, reason = "no program holds so much memory that it mattered")]
    let peak_mib = (peak_kib > 0).then_some(peak_kib as f64 / 1024.0);
    (Cost { ms, peak_mib }, output.stdout)
}

/// Waits for a child, looking at its memory meanwhile. The kernel keeps the highest mark for as long as the child
/// lives, and counts from the start of the program, not from the fork: so this is nothing of the parent's.
fn watched(child: Child, start: Instant) -> (u64, std::process::Output, f64) {
    let (status, ended, peak_kib) = (format!("/proc/{}/status", child.id()), AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            while !ended.load(Ordering::Acquire) {
                if let Some(kib) = high_water_kib(&status) {
                    peak_kib.store(kib, Ordering::Relaxed);
                }
                std::thread::park_timeout(SAMPLE_EVERY);
            }
        });
        let output = child.wait_with_output().unwrap();
        let ms = start.elapsed().as_secs_f64() * 1000.0;
        ended.store(true, Ordering::Release);
        sampler.thread().unpark();
        sampler.join().unwrap();
        (peak_kib.load(Ordering::Relaxed), output, ms)
    })
}

fn high_water_kib(status: &str) -> Option<u64> {
    let text = std::fs::read_to_string(status).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

pub(crate) fn largest(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.max(other)),
        (one, other) => one.or(other),
    }
}

/// Measures two things in turns, after one round that does not count. Rounds are numbered from 0.
pub(crate) fn in_turns(
    rounds: usize,
    mut subject: impl FnMut(usize) -> Cost,
    mut floor: impl FnMut(usize) -> Cost,
) -> (Vec<Cost>, Vec<Cost>) {
    let (mut subjects, mut floors) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        floors.push(floor(round));
        subjects.push(subject(round));
    }
    (subjects.split_off(1), floors.split_off(1))
}
