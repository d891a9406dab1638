//! Clocks that move on by what a thread does, in place of the system's.
//!
//! A look at a clock moves it on, and sleep does by its length, for the thread that looked or slept and for those that it
//! starts afterwards. So what a thread is told depends on what it did itself. The kernel knows nothing of such a clock: where a
//! thread waits until a point in time, that is told to the kernel as the point in its own time that is as far away.
//! Sources: `clock_gettime(2)`, `clock_nanosleep(2)`, `futex(2)`, `timerfd_create(2)`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::filter::Time;
use super::memory::Memory;
use super::pins::Pins;
use super::threads::{Clock, Threads};
use crate::host::Stopwatch;

/// What a clock that only counts says when the job begins, in nanoseconds: a day.
const STEADY_START: u64 = 86_400 * SECOND;
const SECOND: u64 = 1_000_000_000;
const MILLISECOND: u64 = 1_000_000;
/// A wait at least as long as this moves clocks on. Shorter ones are an interpreter's own: how often its threads wait for
/// each other is decided by nobody.
const LONG_WAIT: u64 = 20 * MILLISECOND;
/// Whoever waits for others for at least as long as this means to wait no longer than he must: it moves clocks on only if nobody came.
const PATIENCE: u64 = SECOND;
/// Who counts cycles often waits for so many to go by, so a look moves them on at least by that, in nanoseconds.
const CYCLES_TICK_MIN: u64 = 100_000;
/// `times` counts in hundredths of a second.
const HUNDREDTH: u64 = SECOND / 100;
/// The bytes of `struct rusage`.
const USAGE_BYTES: usize = 144;
/// `FUTEX_CLOCK_REALTIME`.
const BY_THE_WALL: u64 = 256;
/// `TIMER_ABSTIME` and `TFD_TIMER_ABSTIME`.
const UNTIL: u64 = 1;

/// Answers what has to do with time.
pub(super) struct Clocks {
    threads: Arc<Threads>,
    /// What the clock on the wall says when the job begins, in nanoseconds since 1970.
    wall: Option<u64>,
    /// By how much a look at it moves it on, in nanoseconds.
    wall_tick: u64,
    /// By how much a look at another clock moves it on, in nanoseconds.
    tick: Option<u64>,
    /// Threads that wait for others, or did: for how long at most, and since when.
    patient: Mutex<BTreeMap<i32, (u64, Stopwatch)>>,
    /// What is told is a multiple of this, in nanoseconds.
    step: u64,
}

impl Clocks {
    pub(super) fn new(pins: &Pins, threads: Arc<Threads>) -> Self {
        let wall = pins.clock.and_then(|clock| u64::try_from(clock.start).ok()?.checked_mul(SECOND));
        let wall_tick = pins.clock.map(|clock| clock.tick).unwrap_or_default();
        let step = if pins.coarse_clocks { SECOND / 10 } else { 1 };
        Self { threads, wall, wall_tick, tick: pins.timer, step, patient: Mutex::default() }
    }

    /// Answers a call of a thread that waits; `None` if the system is to answer it.
    pub(super) fn answer(
        &self,
        time: Time,
        thread: i32,
        arguments: &[u64; 6],
        memory: &Memory,
    ) -> Option<Result<i64, i32>> {
        if memory.is_short() {
            return None;
        }
        self.has_waited(thread);
        match time {
            Time::Clock => self.clock(thread, arguments, memory),
            Time::Day => {
                let now = self.look(thread, Clock::Wall)?;
                let zone = [0; 8];
                let told = arguments[0] == 0 || write(memory, arguments[0], &pair(now / SECOND, now % SECOND / 1000));
                Some(answered(told && (arguments[1] == 0 || write(memory, arguments[1], &zone)), 0))
            }
            Time::Seconds => {
                let seconds = self.look(thread, Clock::Wall)? / SECOND;
                let told = arguments[0] == 0 || write(memory, arguments[0], &seconds.to_ne_bytes());
                Some(answered(told, i64::try_from(seconds).ok()?))
            }
            Time::Used => {
                let now = self.look(thread, Clock::Steady)?;
                let used = (now - STEADY_START) / HUNDREDTH;
                let told = arguments[0] == 0 || write(memory, arguments[0], &[pair(used, 0), pair(0, 0)].concat());
                Some(answered(told, i64::try_from(now / HUNDREDTH).ok()?))
            }
            Time::Usage => {
                let used = self.look(thread, Clock::Steady)? - STEADY_START;
                let mut usage = pair(used / SECOND, used % SECOND / 1000).to_vec();
                usage.resize(USAGE_BYTES, 0);
                Some(answered(write(memory, arguments[1], &usage), 0))
            }
            Time::Sleep => self.sleeps(thread, timespec(memory, arguments[0])?),
            Time::SleepOn if arguments[1] & UNTIL == 0 => self.sleeps(thread, timespec(memory, arguments[2])?),
            Time::SleepOn => {
                let clock = clock_of(arguments[0])?;
                let rest = self.tell(thread, clock, memory, arguments[2])?;
                self.sleeps(thread, rest)
            }
            Time::Wait => {
                let clock = if arguments[1] & BY_THE_WALL == 0 { Clock::Steady } else { Clock::Wall };
                let rest = self.tell(thread, clock, memory, arguments[3])?;
                self.waits(thread, rest)
            }
            Time::Alarm => {
                // The interval comes first.
                let until = arguments[2].checked_add(16).filter(|_| arguments[1] & UNTIL != 0)?;
                // Whose clock it goes by only the one who made it knows; the two are decades apart.
                let decades = 1_000_000_000 * SECOND;
                let clock = if timespec(memory, until)? < decades { Clock::Steady } else { Clock::Wall };
                self.tell(thread, clock, memory, until)?;
                None
            }
            #[expect(clippy::cast_possible_truncation, reason = "an int, whatever fills the register")]
            Time::Poll { milliseconds } => {
                let wait = u64::try_from(arguments[usize::from(milliseconds)] as i32).ok()?;
                self.polls(thread, wait * MILLISECOND)
            }
            Time::Select { timeval } => {
                let [seconds, rest] = two(memory, arguments[usize::from(timeval)])?;
                self.polls(thread, seconds.saturating_mul(SECOND).saturating_add(rest.saturating_mul(1000)))
            }
            Time::PollFor { timespec: place } => self.polls(thread, timespec(memory, arguments[usize::from(place)])?),
        }
    }

    /// Returns how many cycles a thread that looks is told that there were since the machine began: one each nanosecond.
    pub(super) fn cycles(&self, thread: i32) -> Option<u64> {
        self.look(thread, Clock::Cycles)
    }

    fn clock(&self, thread: i32, arguments: &[u64; 6], memory: &Memory) -> Option<Result<i64, i32>> {
        let mut now = self.look(thread, clock_of(arguments[0])?)?;
        if is_of_the_processor(arguments[0]) {
            now -= STEADY_START;
        }
        Some(answered(write(memory, arguments[1], &pair(now / SECOND, now % SECOND)), 0))
    }

    /// Returns what a clock says to a thread that looks at it.
    fn look(&self, thread: i32, clock: Clock) -> Option<u64> {
        let (start, tick) = match clock {
            Clock::Wall => (self.wall?, self.wall_tick),
            Clock::Steady => (STEADY_START, self.tick?),
            Clock::Cycles => (STEADY_START, self.tick?.max(CYCLES_TICK_MIN)),
        };
        let moved = self.threads.moves(thread, clock, tick)?;
        Some(start + moved / self.step * self.step)
    }

    /// Moves the clocks of a thread on that sleeps so long.
    fn sleeps<T>(&self, thread: i32, length: u64) -> Option<T> {
        for clock in [Clock::Wall, Clock::Steady, Clock::Cycles] {
            self.threads.moves(thread, clock, length);
        }
        None
    }

    /// Moves the clocks of a thread on that waits at most so long.
    fn waits<T>(&self, thread: i32, length: u64) -> Option<T> {
        if length >= LONG_WAIT { self.sleeps(thread, length) } else { None }
    }

    /// Moves the clocks of a thread on that waits for others, at most so long.
    fn polls<T>(&self, thread: i32, length: u64) -> Option<T> {
        if length < PATIENCE {
            return self.waits(thread, length);
        }
        let mut patient = self.patient.lock().unwrap_or_else(PoisonError::into_inner);
        patient.insert(thread, (length, Stopwatch::start()));
        None
    }

    /// Moves the clocks of a thread on that has waited for others in vain.
    fn has_waited(&self, thread: i32) {
        let waited = self.patient.lock().unwrap_or_else(PoisonError::into_inner).remove(&thread);
        if let Some((length, since)) = waited
            && since.elapsed() >= Duration::from_nanos(length)
        {
            self.sleeps::<()>(thread, length);
        }
    }

    /// Tells the kernel in its own time until when a thread waits, if that was told by a clock that is ours. Returns how far away it is.
    fn tell(&self, thread: i32, clock: Clock, memory: &Memory, address: u64) -> Option<u64> {
        let (ours, theirs) = match clock {
            Clock::Wall => (self.wall, ClockId::Realtime),
            Clock::Steady | Clock::Cycles => (self.tick.map(|_| STEADY_START), ClockId::Monotonic),
        };
        if self.threads.was_told(thread, address, memory.bytes(address)?) {
            return None;
        }
        let until = timespec(memory, address)?;
        let system = clock_gettime(theirs);
        let system = u64::try_from(system.tv_sec).ok()? * SECOND + u64::try_from(system.tv_nsec).ok()?;
        let Some(ours) = ours else {
            // As long as was meant, without the moments until it came here.
            return Some(until.saturating_sub(system).next_multiple_of(10 * MILLISECOND));
        };
        let now = ours.checked_add(self.threads.moves(thread, clock, 0)?)?;
        let rest = until.saturating_sub(now);
        let until = system.saturating_add(rest);
        let told = pair(until / SECOND, until % SECOND);
        if write(memory, address, &told) {
            self.threads.tell(thread, address, told);
        }
        Some(rest)
    }
}

/// Returns which clock a number means; `None` for those that are not ours to answer.
#[expect(clippy::cast_possible_truncation, reason = "an int, whatever fills the register")]
fn clock_of(id: u64) -> Option<Clock> {
    match id as i32 {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE | libc::CLOCK_REALTIME_ALARM | libc::CLOCK_TAI => {
            Some(Clock::Wall)
        }
        libc::CLOCK_MONOTONIC
        | libc::CLOCK_MONOTONIC_RAW
        | libc::CLOCK_MONOTONIC_COARSE
        | libc::CLOCK_BOOTTIME
        | libc::CLOCK_BOOTTIME_ALARM
        | libc::CLOCK_PROCESS_CPUTIME_ID
        | libc::CLOCK_THREAD_CPUTIME_ID => Some(Clock::Steady),
        _ => None,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "an int, whatever fills the register")]
fn is_of_the_processor(id: u64) -> bool {
    matches!(id as i32, libc::CLOCK_PROCESS_CPUTIME_ID | libc::CLOCK_THREAD_CPUTIME_ID)
}

fn answered(is_told: bool, value: i64) -> Result<i64, i32> {
    if is_told { Ok(value) } else { Err(libc::EFAULT) }
}

/// Returns two numbers as they lie in memory.
fn pair(first: u64, second: u64) -> [u8; 16] {
    let mut pair = [0; 16];
    pair[..8].copy_from_slice(&first.to_ne_bytes());
    pair[8..].copy_from_slice(&second.to_ne_bytes());
    pair
}

fn two(memory: &Memory, address: u64) -> Option<[u64; 2]> {
    Some([memory.word(address, 0)?, memory.word(address, 1)?]).filter(|_| address != 0)
}

/// Returns the nanoseconds of a `struct timespec`; `None` if there is none, or none that the kernel would take.
fn timespec(memory: &Memory, address: u64) -> Option<u64> {
    let [seconds, rest] = two(memory, address)?;
    i64::try_from(seconds).ok()?;
    Some(seconds.saturating_mul(SECOND).saturating_add(rest)).filter(|_| rest < SECOND)
}

fn write(memory: &Memory, address: u64, bytes: &[u8]) -> bool {
    memory.write(address, bytes) == Some(bytes.len())
}
