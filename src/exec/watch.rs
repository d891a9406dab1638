//! Following a job until it has ended, or has to.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

use super::members::Members;
use super::output::Output;
use super::{End, ExecError, Stop};
use crate::host::Stopwatch;

/// How long a job that has to end may take to do so by itself.
pub const GRACE: Duration = Duration::from_secs(2);

/// How soon a stop, and the end of a process without a handle, is noticed.
const TICK: Duration = Duration::from_millis(20);

/// A look at the job's processes is followed by this many times its own duration without one.
const REST: u32 = 100;

/// Looks are never further apart than this.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// Follows a job until its first process has ended (`None`), or returns why all of it has to be killed.
///
/// # Errors
///
/// [`ExecError::Log`] if what it prints cannot be kept.
pub(super) fn watch(
    members: &mut Members,
    output: &mut Output<'_>,
    time_limit: Option<Duration>,
    stop: &Stop,
    clock: Stopwatch,
) -> Result<Option<End>, ExecError> {
    let mut ending: Option<(End, Duration)> = None;
    let mut next_look = TICK;
    loop {
        let now = clock.elapsed();
        let has_ended = members.first_has_ended();
        match ending {
            None if has_ended => return Ok(None),
            None => {
                if let Some(end) = must_end(now, time_limit, stop) {
                    members.terminate();
                    ending = Some((end, now + GRACE));
                }
            }
            // Children of a shell that ends at once get their time too.
            Some((end, deadline)) if now >= deadline || stop.is_urgent() || (has_ended && members.look()) => {
                return Ok(Some(end));
            }
            Some(_) => {}
        }
        if now >= next_look {
            members.look();
            let cost = clock.elapsed().saturating_sub(now);
            next_look = now + (cost * REST).clamp(TICK, LONGEST_REST);
        }
        // A handle is readable for good once the process has ended; polling it again would not wait.
        let handle = members.handle().filter(|_| !has_ended);
        if wait(output.descriptor(), handle) {
            output.take()?;
        }
    }
}

fn must_end(now: Duration, time_limit: Option<Duration>, stop: &Stop) -> Option<End> {
    if stop.is_requested() {
        Some(End::Interrupted)
    } else if time_limit.is_some_and(|limit| now >= limit) {
        Some(End::TimedOut)
    } else {
        None
    }
}

/// Waits until something happens, at most for a [`TICK`]. Returns whether there is output.
fn wait(output: Option<BorrowedFd<'_>>, handle: Option<BorrowedFd<'_>>) -> bool {
    let timeout = Timespec::try_from(TICK).ok();
    let polled = |descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN);
    let mut all: Vec<PollFd<'_>> = [output, handle].into_iter().flatten().map(polled).collect();
    // A signal to this process cuts the wait short, which is as good as a tick.
    let is_ready = rustix::event::poll(&mut all, timeout.as_ref()).is_ok_and(|ready| ready > 0);
    is_ready && output.is_some() && !all[0].revents().is_empty()
}
