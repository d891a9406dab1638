//! One command in a prepared world.
//!
//! [`run`] starts a [`Job`] with exactly the environment it is given, keeps
//! what it prints, waits for it, and leaves nothing of it alive; [`enter`] gives
//! it the streams and the terminal of this process instead. It decides
//! nothing about steps and knows nothing of snapshots; apart from `git` and
//! `remote`, each of which starts one program, this is the only room that starts processes.
//!
//! What it does not promise, on any system:
//!
//! - A process that gets away in a moment between two looks (it leaves its
//!   parents, its session, its output *and* its environment behind) is not
//!   known for the job's own and stays alive; `family` says how they are told
//!   apart. Elsewhere than on Linux only the process group is ended.
//! - If this process is itself ended by `SIGKILL`, jobs without a world live on; with one, the kernel ends them.
//! - A job belongs to the session of this process: it may ask for the terminal
//!   (and is then stopped by the system until its time limit).
//! - Processes that took on another user's rights may refuse to be ended.

#[cfg(target_os = "linux")]
mod answers;
mod cgroup;
#[cfg(target_os = "linux")]
mod clocks;
#[cfg(target_os = "linux")]
mod datagrams;
#[cfg(target_os = "linux")]
mod directories;
mod enter;
#[cfg(target_os = "linux")]
mod entropy;
#[cfg(target_os = "linux")]
mod facts;
mod family;
#[cfg(target_os = "linux")]
mod filter;
#[cfg(target_os = "linux")]
mod kin;
#[cfg(target_os = "linux")]
mod line;
#[cfg(target_os = "linux")]
mod listener;
#[cfg(target_os = "linux")]
mod listings;
mod members;
#[cfg(target_os = "linux")]
mod memory;
#[cfg(target_os = "linux")]
mod mounts;
#[cfg(target_os = "linux")]
mod names;
mod network;
mod observation;
mod observer;
mod obstacle;
mod output;
#[cfg(target_os = "linux")]
mod peers;
mod pins;
#[cfg(target_os = "linux")]
#[cfg_attr(not(target_arch = "x86_64"), path = "processor_elsewhere.rs")]
mod processor;
#[cfg(target_os = "linux")]
mod raw;
#[cfg(target_os = "linux")]
mod relay;
#[cfg(target_os = "linux")]
mod schedule;
#[cfg(target_os = "linux")]
mod spawn;
#[cfg(target_os = "linux")]
mod stamps;
mod start;
mod stop;
mod table;
mod terminal;
#[cfg(target_os = "linux")]
mod threads;
#[cfg(target_os = "linux")]
mod tracer;
#[cfg(target_os = "linux")]
mod view;
mod watch;
#[cfg(target_os = "linux")]
mod witness;
mod words;
mod world;

#[cfg(test)]
#[cfg(target_os = "linux")]
mod call_tests;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod elsewhere_tests;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod entropy_tests;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod image_tests;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod isolated_tests;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod line_tests;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod network_tests;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod pins_tests;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod strace_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use members::Ended;

use crate::disk::{self, DiskError};
use crate::host::Stopwatch;

pub use cgroup::Limit;
pub use enter::enter;
pub use network::{Network, Record, Recorder};
pub use observation::{Gap, Observation, Rung, Touch};
pub use obstacle::{Cause, Obstacle};
pub use output::MAX_LINE_BYTES;
pub use pins::{Listing, Pins, Schedule, WallClock};
pub use stop::Stop;
pub use watch::GRACE;
pub use words::{Word, words};
pub use world::{Image, PLACE, WORKPLACE, World};

/// What to start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// A text that `/bin/sh -c` understands.
    Shell(String),
    /// A program and its arguments, with no shell between.
    ///
    /// A name without `/` is searched for on the `PATH` of the job itself; one
    /// with `/` is relative to the job's directory.
    Direct(Vec<String>),
}

/// One command and the world it is to run in.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// What to start.
    pub command: &'a Command,
    /// Where it starts.
    pub directory: &'a Path,
    /// All its environment variables; nothing is inherited.
    pub environment: &'a BTreeMap<String, OsString>,
    /// How long it may take; no limit if `None`.
    pub time_limit: Option<Duration>,
    /// How much memory it may use; no bound if `None`.
    pub memory: Option<&'a Limit>,
    /// The file that gets everything it prints, standard output and standard error in the order of arrival.
    pub log: &'a Path,
    /// The view of the file system that it gets; `None` is this process's own.
    pub world: Option<&'a World>,
    /// Whether it is observed, as far as the system lets us.
    pub observe: bool,
    /// What it may read, if not everything; the rest looks as if it were not there. Holds only where it is observed.
    pub permission: Option<&'a Permission<'a>>,
    /// What it is given in place of what the system happens to give; `None` gives it the system's own.
    pub pins: Option<&'a Pins>,
}

/// Says whether a path may be read.
pub type Permission<'a> = dyn Fn(&Path) -> bool + Sync + 'a;

/// How a command came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// By itself, with this exit code.
    Exited(i32),
    /// By this signal, sent by itself, by the system or by somebody else.
    Signalled(i32),
    /// It was ended because its time was over.
    TimedOut,
    /// It was ended because a stop was requested.
    Interrupted,
}

/// What came of a job that was started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// Time from the start of the command to its end.
    pub elapsed: Duration,
    /// What it was seen to do.
    pub observation: Observation,
}

/// Why a command could not be started or followed.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// There is no program in it.
    #[error("the command is empty")]
    Empty,
    /// No file of this name is where the job looks for programs.
    #[error("program `{program}` is not found")]
    NotFound {
        /// As the command names it.
        program: String,
    },
    /// There is a file of this name, but it is none that may be executed.
    #[error("program `{program}` is not executable")]
    NotExecutable {
        /// As the command names it.
        program: String,
    },
    /// The directory to start in is missing or no directory.
    #[error("`{}` is not a directory", path.display())]
    NoDirectory {
        /// As the job names it.
        path: PathBuf,
    },
    /// The system refuses to start it.
    #[error("cannot start `{program}`")]
    Start {
        /// As the command names it.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// The system does not let us make the view of the file system that it was to get.
    #[error("cannot isolate a command here: {0}")]
    World(Obstacle),
    /// The system does not let us give it something in place of its own.
    #[error("cannot pin what a command is given here: {0}")]
    NotPinned(Unpinned),
    /// It was started, but the system lost its end or its output.
    #[error("cannot follow `{program}`")]
    Follow {
        /// As the command names it.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// What it printed cannot be kept. The command has been ended.
    #[error(transparent)]
    Log(#[from] DiskError),
}

/// Why a job cannot be given something in place of what the system gives.
#[derive(Debug, thiserror::Error)]
pub enum Unpinned {
    /// It has no world of its own.
    #[error("it is not isolated")]
    InTheOpen,
    /// Nobody reports its calls to us.
    #[error("its calls are not reported to us")]
    Unreported,
    /// It may not be followed from process to process.
    #[error("its processes may not be traced: {0}")]
    Untraced(io::Error),
}

/// Runs `job` to its end and returns how it ended; nothing that it started is alive afterwards (see the limits above).
///
/// Its standard input is empty, its umask 022 if that is not pinned, its process group its own.
/// `on_line` gets what it prints, line by line without the newline; a line
/// longer than [`MAX_LINE_BYTES`] comes in pieces. It is called on this thread:
/// while it works, the command waits. When the time limit is over or `stop` is
/// requested, the group gets `SIGTERM` and [`GRACE`] to end, then all of it
/// `SIGKILL`; an urgent stop does not wait. If `stop` was requested before, the
/// command is not started and the outcome is [`End::Interrupted`].
///
/// Costs memory for one line and one buffer, and at most about a hundredth of
/// one processor for looking after the job's processes.
///
/// # Errors
///
/// [`ExecError`] if the command cannot be started or its log cannot be written. That
/// a command fails is no error but an [`Outcome`].
pub fn run(job: &Job<'_>, on_line: &mut (dyn FnMut(&[u8]) + Send), stop: &Stop) -> Result<Outcome, ExecError> {
    let log = disk::create(job.log)?;
    if stop.is_requested() {
        let observation = Observation::default();
        return Ok(Outcome { end: End::Interrupted, elapsed: Duration::ZERO, observation });
    }
    let clock = Stopwatch::start();
    let program = job.command.program();
    let follow = |source| ExecError::Follow { program: program.to_owned(), source };

    std::thread::scope(|scope| {
        // The last one is dropped first: an observer may wait for the job's end, so the members must be ended before.
        let start::Running { observer, printed, mut members } = start::start(job, scope)?;
        let mut output = output::Output::new(printed, log, job.log, on_line);
        // Every way out of here, also a panic of `on_line`, drops the members and thereby ends them.
        let forced = watch::watch(&mut members, &mut output, job.time_limit, stop, clock)?;
        let elapsed = clock.elapsed();
        let ended = members.end().map_err(follow)?;
        output.finish()?;
        let end = match ended {
            Ended::NotExecuted(error) => return Err(start::not_executed(job, error)),
            Ended::By(status) => forced.unwrap_or_else(|| natural_end(status)),
        };
        Ok(Outcome { end, elapsed, observation: observer.finish() })
    })
}

/// Returns why a job cannot have `world`, if it cannot. Makes it once and executes nothing in it.
///
/// # Errors
///
/// [`ExecError::World`] with what the system says.
pub fn try_world(world: &World) -> Result<(), ExecError> {
    start::try_world(world)
}

impl Command {
    /// Returns the program that is started: the first word, or the shell. Empty if there is none.
    fn program(&self) -> &str {
        match self {
            Self::Shell(_) => start::SHELL,
            Self::Direct(words) => words.first().map_or("", String::as_str),
        }
    }
}

fn natural_end(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exited(code),
        (None, signal) => End::Signalled(signal.unwrap_or_default()),
    }
}
