//! Following a job until it has ended, or has to.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

use super::members::Members;
use super::observer::Observer;
use super::output::Output;
use super::{End, ExecError, Stop};
use crate::host::Stopwatch;

/// How long a job that has to end may take to do so by itself.
pub const GRACE: Duration = Duration::from_secs(2);

/// How soon a stop, and the end of a process without a handle, is noticed.
const TICK: Duration = Duration::from_millis(20);

/// So many reports are answered before anything else is looked at, if they come without a pause.
const REPORTS_AT_ONCE: u32 = 64;

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
    observer: &mut Observer<'_>,
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
        for _ in 0..REPORTS_AT_ONCE {
            let ready = wait(output.descriptor(), observer.descriptor(), handle);
            if ready.observer {
                observer.serve();
            }
            if ready.unobserved {
                observer.close();
            }
            if ready.output {
                output.take()?;
            }
            if !ready.observer || ready.handle {
                break;
            }
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

/// Where something has happened.
#[derive(Default)]
struct Ready {
    output: bool,
    observer: bool,
    handle: bool,
    /// There is nobody left to observe.
    unobserved: bool,
}

/// Waits until something happens, at most for a [`TICK`].
fn wait(output: Option<BorrowedFd<'_>>, observer: Option<BorrowedFd<'_>>, handle: Option<BorrowedFd<'_>>) -> Ready {
    let timeout = Timespec::try_from(TICK).ok();
    let polled = |descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN);
    let mut all: Vec<PollFd<'_>> = [output, observer, handle].into_iter().flatten().map(polled).collect();
    // A signal to this process cuts the wait short, which is as good as a tick.
    if !rustix::event::poll(&mut all, timeout.as_ref()).is_ok_and(|ready| ready > 0) {
        return Ready::default();
    }
    let mut happened = all.iter().map(PollFd::revents);
    let mut is_ready =
        |descriptor: Option<BorrowedFd<'_>>| descriptor.and_then(|_| happened.next()).unwrap_or(PollFlags::empty());
    let output = !is_ready(output).is_empty();
    let seen = is_ready(observer);
    let (observer, unobserved) = (seen.contains(PollFlags::IN), !seen.is_empty() && !seen.contains(PollFlags::IN));
    let handle = !is_ready(handle).is_empty();
    Ready { output, observer, handle, unobserved }
}
