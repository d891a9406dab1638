//! A command that the user attends to: with the streams and the terminal of this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal, kill_current_process_group, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use super::members::{Ended, Members};
use super::start;
use super::terminal::Terminal;
use super::{End, ExecError, GRACE, Job, natural_end};
use crate::host::Stopwatch;

/// How soon it is noticed that the command was stopped, or this process was told to end.
const TICK: Duration = Duration::from_millis(50);

/// Runs `job` before the user, to its end; returns how it ended. Nothing that it started is alive afterwards, as with [`run`](super::run).
///
/// It has the standard streams of this process, and is in the foreground of the terminal if this process is; when it is
/// stopped there, this process stops with it, and goes on with it. Its umask is 022. It is not observed or pinned, has no time
/// limit and no bound on memory, and the job's `log` is not written. Meanwhile `SIGINT` and `SIGQUIT` do
/// nothing to this process, for good; `SIGTERM` and `SIGHUP` end the job, which then ended by that signal.
///
/// # Errors
///
/// [`ExecError`] if it cannot be started. That it fails is no error.
pub fn enter(job: &Job<'_>) -> Result<End, ExecError> {
    let program = job.command.program();
    let told = Told::listen().map_err(|source| ExecError::Start { program: program.to_owned(), source })?;
    let terminal = Terminal::own();
    let job = Job { observe: false, time_limit: None, memory: None, permission: None, pins: None, ..*job };
    std::thread::scope(|scope| {
        let members = start::start_attended(&job, &terminal, scope)?;
        let forced = attend(&members, &terminal, &told);
        let ended = members.end().map_err(|source| ExecError::Follow { program: program.to_owned(), source })?;
        match ended {
            Ended::NotExecuted(error) => Err(start::not_executed(&job, error)),
            Ended::By(status) => Ok(forced.unwrap_or_else(|| natural_end(status))),
        }
    })
}

/// Waits for the end of the command; returns how it is to be called if this process had to end it.
fn attend(members: &Members, terminal: &Terminal, told: &Told) -> Option<End> {
    let mut ending: Option<(End, Stopwatch)> = None;
    let tick = Timespec::try_from(TICK).ok();
    while !members.first_has_ended() {
        match &ending {
            None => {
                if let Some(signal) = told.signal() {
                    members.terminate();
                    ending = Some((End::Signalled(signal), Stopwatch::start()));
                }
            }
            Some((_, since)) if since.elapsed() >= GRACE => break,
            Some(_) => {}
        }
        if members.takes_a_stop() && terminal.is_there() {
            stop_together(members.command(), terminal);
        }
        let mut handle: Vec<_> =
            members.handle().map(|handle| PollFd::from_borrowed_fd(handle, PollFlags::IN)).into_iter().collect();
        // A signal cuts the wait short, which is as good as a tick.
        let _ = rustix::event::poll(&mut handle, tick.as_ref());
    }
    ending.map(|(end, _)| end)
}

/// Stops this process as its command has been stopped, so that whoever started it notices, and goes on when it does.
fn stop_together(command: i32, terminal: &Terminal) {
    terminal.take_back();
    // With those that were started together with us; it does nothing where no shell could let us go on again.
    let _ = kill_current_process_group(Signal::TSTP);
    terminal.give(command);
    if let Some(group) = Pid::from_raw(command) {
        let _ = kill_process_group(group, Signal::CONT);
    }
}

/// The signals that this process got.
struct Told {
    signal: Arc<AtomicUsize>,
}

impl Told {
    fn listen() -> std::io::Result<Self> {
        let signal = Arc::new(AtomicUsize::new(0));
        for number in [SIGTERM, SIGHUP] {
            let value = usize::try_from(number).expect("signals have small positive numbers");
            signal_hook::flag::register_usize(number, Arc::clone(&signal), value)?;
        }
        // Caught, not ignored: what is ignored would be so in the command as well.
        for number in [SIGINT, SIGQUIT] {
            signal_hook::flag::register(number, Arc::new(AtomicBool::new(false)))?;
        }
        Ok(Self { signal })
    }

    fn signal(&self) -> Option<i32> {
        i32::try_from(self.signal.load(Ordering::Acquire)).ok().filter(|signal| *signal != 0)
    }
}
