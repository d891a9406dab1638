//! Holding threads back, so that they go on in another order than they would by themselves, or in one that repeats.

use std::collections::BTreeMap;
use std::time::Duration;

use super::pins::Schedule;
use crate::hash::{Digest, Stream};
use crate::host::Stopwatch;

/// The longest that a thread is held back to change the order, in milliseconds.
const DELAY_MAX_MS: u64 = 24;
/// How long is waited before those that are held are looked at again.
const TICK: Duration = Duration::from_millis(1);
/// Whoever sleeps at so many looks, and has hardly used a processor meanwhile, waits for something. An interpreter's threads
/// that wait for each other wake up every few milliseconds to look.
const IDLE_LOOKS: u32 = 25;
/// What it may have used meanwhile, in nanoseconds.
const IDLE_USE: u64 = 2_000_000;

/// What somebody who is held back waits for.
#[derive(Debug)]
pub(super) enum Until {
    /// Some time is over.
    Later(Stopwatch, Duration),
    /// A thread has ended, or waits for something itself.
    Settled {
        thread: i32,
        /// How long it had used a processor when it was first found asleep, in nanoseconds.
        used: u64,
        /// How often it was found asleep since.
        idle: u32,
    },
}

/// Those who are held back.
#[derive(Default)]
pub(super) struct Held {
    threads: BTreeMap<i32, Until>,
}

/// Returns until when a new thread of this lineage is held back, and until when the one who started it.
pub(super) fn delays(schedule: Schedule, lineage: Option<Digest>, child: i32) -> (Option<Until>, Option<Until>) {
    match (schedule, lineage) {
        (Schedule::Free, _) | (_, None) => (None, None),
        (Schedule::Serial, _) => (None, Some(Until::Settled { thread: child, used: 0, idle: 0 })),
        (Schedule::Delayed(number), Some(lineage)) => {
            let key = [number.to_le_bytes().as_slice(), lineage.as_bytes()].concat();
            let mut bytes = [0; 8];
            Stream::derived("pv schedule v1", &key).fill(&mut bytes);
            let drawn = u64::from_le_bytes(bytes);
            let delay = Duration::from_millis(drawn / 4 % (DELAY_MAX_MS + 1));
            let later = Some(Until::Later(Stopwatch::start(), delay));
            // The first waits, the other one waits, or neither does.
            match drawn % 4 {
                0 | 1 => (later, None),
                2 => (None, later),
                _ => (None, None),
            }
        }
    }
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.threads.is_empty()
    }

    pub(super) fn has(&self, thread: i32) -> bool {
        self.threads.contains_key(&thread)
    }

    /// Holds a thread back, which is stopped or about to stop.
    pub(super) fn hold(&mut self, thread: i32, until: Until) {
        self.threads.insert(thread, until);
    }

    /// Takes note that a thread has ended; returns those that are not held back any more.
    pub(super) fn ended(&mut self, ended: i32) -> Vec<i32> {
        self.threads.remove(&ended);
        self.release(|until| matches!(until, Until::Settled { thread, .. } if *thread == ended))
    }

    /// Takes note that a thread has another number now.
    pub(super) fn executed(&mut self, former: i32, now: i32) {
        for until in self.threads.values_mut() {
            match until {
                Until::Settled { thread, .. } if *thread == former => *thread = now,
                _ => {}
            }
        }
    }

    /// Waits a moment, and returns those that are not held back any more.
    pub(super) fn due(&mut self) -> Vec<i32> {
        std::thread::sleep(TICK);
        self.release(|until| match until {
            Until::Later(clock, delay) => clock.elapsed() >= *delay,
            Until::Settled { thread, used, idle } => {
                let Some(now) = asleep(*thread) else {
                    *idle = 0;
                    return false;
                };
                if *idle == 0 || now - *used > IDLE_USE {
                    (*used, *idle) = (now, 0);
                }
                *idle += 1;
                *idle >= IDLE_LOOKS
            }
        })
    }

    fn release(&mut self, is_due: impl Fn(&mut Until) -> bool) -> Vec<i32> {
        let mut due = Vec::new();
        self.threads.retain(|thread, until| {
            let is_due = is_due(until);
            if is_due {
                due.push(*thread);
            }
            !is_due
        });
        due
    }
}

/// Returns how long a thread has used a processor, in nanoseconds, if it sleeps now and not because of us.
fn asleep(thread: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/stat")).ok()?;
    // The name may have parentheses of its own.
    let state = status.rsplit_once(") ")?.1.bytes().next()?;
    let used = std::fs::read_to_string(format!("/proc/{thread}/schedstat")).unwrap_or_default();
    let used = used.split(' ').next()?.parse().unwrap_or_default();
    matches!(state, b'S' | b'T').then_some(used)
}
