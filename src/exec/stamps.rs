//! Times of files that a job makes itself, where the clock on the wall is pinned.
//!
//! The file system gives a file the system's time whenever it is written, whatever the job is told of the time. So whoever looks at
//! a file that has been written since the job began, or opens it to read it, finds it changed at the moment when the job's clock
//! began. All such files are of that moment: which of two came first depends on nothing but how fast they were written.
//! What a file's owner cannot set, the time at which its place in the file system was changed, stays as it is.
//! Sources: stat(2), utimensat(2).

use std::time::Duration;

use rustix::fs::{Timespec, Timestamps};
use rustix::time::{ClockId, clock_gettime};

use super::view::View;
use super::witness::Seen;
use super::world::PLACE;

/// What a job may write is its own below these: its place, and memory that it shares with itself alone.
const OWN: [&str; 2] = [PLACE, "/dev/shm"];
/// How long is waited at a time for the clock of files to go on.
const MOMENT: Duration = Duration::from_micros(500);
/// And how often: a second, for which no such clock stands still.
const MOMENTS_MAX: u32 = 2000;

/// Sets the times of what a job made.
pub(super) struct Stamps {
    /// Whatever the job writes is of this time or a later one by the system's clock, and whatever lies there already of an earlier one.
    since: (i64, i64),
    /// When the job begins by its own clock, in seconds since 1970.
    start: i64,
}

impl Stamps {
    /// Returns what stamps the files of a job that has not begun, and begins at `start` by its own clock.
    ///
    /// Waits until the clock of files goes on, a few milliseconds, so that they are told from all that was there before.
    pub(super) fn new(start: i64) -> Self {
        let before = now();
        let mut since = before;
        for _ in 0..MOMENTS_MAX {
            if since != before {
                break;
            }
            std::thread::sleep(MOMENT);
            since = now();
        }
        Self { since, start }
    }

    /// Sets the times of whatever a waiting thread looks at, if the job has written it.
    pub(super) fn set(&self, thread: i32, seen: &Seen) {
        for path in seen.looked_at().filter(|path| is_own(path)) {
            View::of(thread).change_times(path, |changed| {
                let time = Timespec { tv_sec: self.start, tv_nsec: 0 };
                let is_new = changed >= self.since && changed != (self.start, 0);
                is_new.then_some(Timestamps { last_access: time, last_modification: time })
            });
        }
    }
}

/// Returns what time files are given that are written now, as seconds and nanoseconds.
fn now() -> (i64, i64) {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    (now.tv_sec, now.tv_nsec)
}

fn is_own(path: &[u8]) -> bool {
    OWN.iter().any(|own| path.strip_prefix(own.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'/')))
}
