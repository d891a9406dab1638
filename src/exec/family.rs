//! Who belongs to a job: its first process and everything that came of it.
//!
//! Several jobs run at once in one process, and their processes may leave
//! their parents, their group and their session. So this process takes in the
//! orphans of all its jobs (on Linux it is their subreaper) and tells them
//! apart. An orphan belongs to a job if
//!
//! - it was seen among the job's descendants while its parents lived, or it
//!   descends from one that was;
//! - its process group or its session was begun by such a process;
//! - it prints into the job's output; or
//! - its environment agrees with the one this job was given in more variables
//!   than with that of any other job that runs now, or of this process itself.
//!   (In more, not in all: tools change and copy variables.)
//!
//! Whatever shows none of this is nobody's, and is left alone: killing a
//! stranger is worse than leaving a stray. The children of this process that
//! are no job (those of `git`) are in its own group, and what they leave behind
//! has its environment; so neither is taken for an orphan of a job.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{self, PipeReader};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use super::table::{self, Process};
use crate::host::Stopwatch;

/// How long killed processes may take to vanish; one that hangs in the kernel may never.
const PATIENCE: Duration = Duration::from_secs(5);

/// In so short a time the system cannot have given out all its numbers once around.
const SHORT: Duration = Duration::from_millis(500);

/// Variables that shells set by themselves; they say nothing about a job.
const SHELL_VARIABLES: [&str; 4] = ["PWD", "OLDPWD", "SHLVL", "_"];

/// The jobs that run now, numbered as they come.
///
/// Starting a process and telling processes apart exclude each other: else a
/// job that has just been started could be taken for an orphan of its twin.
static RUNNING: Mutex<BTreeMap<u64, Identity>> = Mutex::new(BTreeMap::new());

/// What a process of a job can be known by when its parents are gone.
#[derive(Debug)]
pub(super) struct Identity {
    /// Its first process, the leader of its group; 0 before that is started.
    first: i32,
    /// The variables it was given, as `NAME=value`.
    environment: BTreeSet<Vec<u8>>,
    /// What its output is called in `/proc`.
    output: PathBuf,
}

impl Identity {
    /// Returns the identity of a job with this environment whose output is read at `output`.
    pub(super) fn new(environment: &BTreeMap<String, OsString>, output: &PipeReader) -> Self {
        let number = rustix::fs::fstat(output).map_or(0, |stat| stat.st_ino);
        let pair = |(name, value): (&String, &OsString)| [name.as_bytes(), b"=", value.as_bytes()].concat();
        Self {
            first: 0,
            environment: environment.iter().map(pair).collect(),
            output: PathBuf::from(format!("pipe:[{number}]")),
        }
    }
}

/// The first process of a job, a child of this one.
#[derive(Debug)]
pub(super) struct First(pub(super) Pid);

impl First {
    fn pid(&self) -> Pid {
        self.0
    }

    fn number(&self) -> i32 {
        self.0.as_raw_nonzero().get()
    }

    /// Returns how it ended, once it has.
    fn try_wait(&self) -> io::Result<Option<ExitStatus>> {
        let ended = rustix::process::waitpid(Some(self.0), rustix::process::WaitOptions::NOHANG)?;
        Ok(ended.map(|(_, status)| ExitStatus::from_raw(status.as_raw())))
    }
}

/// A job's processes. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Family {
    /// Its number among the running jobs.
    job: u64,
    first: First,
    /// Becomes readable when the first process ends; `None` where the system has no such thing.
    handle: Option<OwnedFd>,
    age: Stopwatch,
    /// Every process that was seen, with the time of its start, for as long as it or its group or session is there.
    known: BTreeMap<i32, u64>,
    status: Option<ExitStatus>,
    ended: bool,
}

impl Family {
    /// Starts the first process with `spawn`, which must put it in a process group of its own. One at a time in this process.
    ///
    /// # Errors
    ///
    /// What `spawn` says.
    pub(super) fn start(mut identity: Identity, spawn: impl FnOnce() -> io::Result<First>) -> io::Result<Self> {
        adopt_orphans();
        let mut running = running();
        let first = spawn()?;
        identity.first = first.number();
        let job = running.last_key_value().map_or(0, |(last, _)| last + 1);
        running.insert(job, identity);
        let handle = open_handle(first.pid());
        Ok(Self { job, first, handle, age: Stopwatch::start(), known: BTreeMap::new(), status: None, ended: false })
    }

    /// Returns what becomes readable when the first process ends, if the system has such a thing.
    pub(super) fn handle(&self) -> Option<BorrowedFd<'_>> {
        self.handle.as_ref().map(AsFd::as_fd)
    }

    /// Returns the number of the first process.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn number(&self) -> i32 {
        self.first.number()
    }

    /// Returns whether the first process has ended. It keeps its number until [`Family::end`].
    pub(super) fn first_has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // An error means that somebody else has taken note of its end.
        self.status.is_some()
            || rustix::process::waitid(WaitId::Pid(self.group()), options).map_or(true, |end| end.is_some())
    }

    /// Asks the process group to end.
    pub(super) fn terminate(&self) {
        // A stopped process hears of it only when it goes on. A failure means that nobody is left to ask.
        let _ = rustix::process::kill_process_group(self.group(), Signal::TERM);
        let _ = rustix::process::kill_process_group(self.group(), Signal::CONT);
    }

    /// Looks who belongs to the job now, remembers it, and returns those that live.
    ///
    /// Costs one reading of the table of processes; nothing can be started meanwhile.
    pub(super) fn look(&mut self) -> Vec<Process> {
        let running = running();
        let table = table::all();
        let living = self.look_at(&table, &running);
        self.forget(&table);
        living
    }

    /// Looks for the last time, and not at the whole table while nothing else can have become of the job.
    fn last_look(&mut self) -> Vec<Process> {
        if self.age.elapsed() > SHORT {
            return self.look();
        }
        let running = running();
        self.look_at(&table::after(self.first.number()), &running)
    }

    fn look_at(&mut self, table: &[Process], running: &BTreeMap<u64, Identity>) -> Vec<Process> {
        let members = self.members(table, running);
        self.known.extend(members.iter().map(|process| (process.pid, process.started)));
        let first = self.first.number();
        for process in table.iter().filter(|process| !process.living && process.parent == own_number()) {
            if process.pid != first
                && (self.known.contains_key(&process.pid) || is_foreign(process, |process| process.session))
            {
                process.reap();
            }
        }
        members.into_iter().filter(|process| process.living).collect()
    }

    /// Kills all that belongs to the job, waits until it is gone, and returns how the first process ended.
    ///
    /// # Errors
    ///
    /// What the system says if it does not tell the end of the first process;
    /// a timeout if that hangs in the kernel.
    pub(super) fn end(mut self) -> io::Result<ExitStatus> {
        self.kill_all()?;
        self.status.ok_or_else(|| io::Error::from(io::ErrorKind::TimedOut))
    }

    fn kill_all(&mut self) -> io::Result<()> {
        self.ended = true;
        let clock = Stopwatch::start();
        let mut pause = Duration::from_millis(1);
        // Before the first process gives up its number: until then the group is surely ours.
        let _ = rustix::process::kill_process_group(self.group(), Signal::KILL);
        loop {
            if self.status.is_none() {
                self.status = self.first.try_wait()?;
            }
            // Most jobs leave nobody behind, and then the table need not be read.
            let is_gone = has_no_children() || (self.kill_living() == 0 && self.status.is_some());
            if is_gone || clock.elapsed() > PATIENCE {
                return Ok(());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    fn kill_living(&mut self) -> usize {
        let living = self.last_look();
        living.iter().for_each(Process::kill);
        living.len()
    }

    fn members(&self, table: &[Process], running: &BTreeMap<u64, Identity>) -> Vec<Process> {
        let mut by_parent: BTreeMap<i32, Vec<&Process>> = BTreeMap::new();
        for process in table {
            by_parent.entry(process.parent).or_default().push(process);
        }
        let mut queue: Vec<&Process> = table.iter().filter(|process| self.is_root(process, running)).collect();
        let mut members = BTreeMap::new();
        while let Some(process) = queue.pop() {
            if members.insert(process.pid, *process).is_none() {
                queue.extend(by_parent.get(&process.pid).into_iter().flatten());
            }
        }
        members.into_values().collect()
    }

    /// Returns whether a process is the first of the job, a known one, or an orphan that shows where it belongs.
    fn is_root(&self, process: &Process, running: &BTreeMap<u64, Identity>) -> bool {
        let others: Vec<&Identity> =
            running.iter().filter(|(job, _)| **job != self.job).map(|(_, other)| other).collect();
        let is_theirs = |leader: i32| others.iter().any(|other| other.first == leader);
        if is_theirs(process.pid) {
            return false;
        }
        let first = self.first.number();
        if process.pid == first {
            return self.status.is_none();
        }
        if self.known.get(&process.pid) == Some(&process.started) {
            return true;
        }
        if process.parent != own_number() || !is_foreign(process, |process| process.group) {
            return false;
        }
        let is_ours = |leader: i32| !is_theirs(leader) && (leader == first || self.known.contains_key(&leader));
        is_ours(process.group)
            || is_ours(process.session)
            || running.get(&self.job).is_some_and(|identity| {
                let own = table::own_environment().into_iter().collect();
                let strangers: Vec<_> = others.iter().map(|other| &other.environment).chain([&own]).collect();
                process.prints_to(&identity.output)
                    || agrees_most(&process.environment(), &identity.environment, &strangers)
            })
    }

    /// Forgets the processes whose number the system may give out again.
    fn forget(&mut self, table: &[Process]) {
        let living: BTreeMap<i32, u64> = table.iter().map(|process| (process.pid, process.started)).collect();
        let leaders: BTreeSet<i32> = table.iter().flat_map(|process| [process.group, process.session]).collect();
        self.known.retain(|pid, started| match living.get(pid) {
            Some(now) => now == started,
            None => leaders.contains(pid),
        });
    }

    fn group(&self) -> Pid {
        self.first.pid()
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        if !self.ended {
            // Only on the way out of another failure, which is the one to report.
            let _ = self.kill_all();
        }
        running().remove(&self.job);
    }
}

/// Returns whether an environment agrees with `ours` in more variables than with each of `strangers`.
fn agrees_most(environment: &[Vec<u8>], ours: &BTreeSet<Vec<u8>>, strangers: &[&BTreeSet<Vec<u8>>]) -> bool {
    let agreement = |given: &BTreeSet<Vec<u8>>| {
        environment.iter().filter(|pair| !is_set_by_shells(pair) && given.contains(*pair)).count()
    };
    let most = agreement(ours);
    most > 0 && strangers.iter().all(|stranger| agreement(stranger) < most)
}

fn is_set_by_shells(pair: &[u8]) -> bool {
    let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
    SHELL_VARIABLES.iter().any(|variable| variable.as_bytes() == name)
}

/// Returns whether a child of this process differs from it in its group or session, and so is no helper that it started itself.
fn is_foreign(process: &Process, part: impl Fn(&Process) -> i32) -> bool {
    Process::own().is_some_and(|own| part(&own) != part(process))
}

fn running() -> MutexGuard<'static, BTreeMap<u64, Identity>> {
    // The map is whole after every change, so a panic elsewhere does not make it wrong.
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes this process the parent of every process below it that loses its own.
fn adopt_orphans() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Refused only by kernels that do not know it; orphans then go to the system, and only the group is ours.
        #[cfg(target_os = "linux")]
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    });
}

fn has_no_children() -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    matches!(rustix::process::waitid(WaitId::All, options), Err(rustix::io::Errno::CHILD))
}

#[cfg(target_os = "linux")]
fn open_handle(pid: Pid) -> Option<OwnedFd> {
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

#[cfg(not(target_os = "linux"))]
fn open_handle(_: Pid) -> Option<OwnedFd> {
    None
}

fn own_number() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::{ChildStdin, Command, Stdio};

    /// Starts a shell that nothing but descent tells from others; it goes on once its input is dropped.
    fn family(text: &str, directory: &std::path::Path) -> (Family, Option<ChildStdin>) {
        #[expect(clippy::disallowed_methods, reason = "a family without a job")]
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", text]).current_dir(directory).process_group(0).stdin(Stdio::piped()).stdout(Stdio::null());
        let identity = Identity { first: 0, environment: BTreeSet::new(), output: PathBuf::new() };
        let mut input = None;
        let spawn = || {
            let mut child = shell.spawn()?;
            input = child.stdin.take();
            Ok(First(Pid::from_child(&child)))
        };
        (Family::start(identity, spawn).unwrap(), input)
    }

    fn number_in(path: &std::path::Path) -> i32 {
        loop {
            let text = crate::disk::read_if_there(path).unwrap().unwrap_or_default();
            if let Some(number) = std::str::from_utf8(&text).unwrap().strip_suffix('\n') {
                return number.parse().unwrap();
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn an_environment_belongs_to_the_one_it_agrees_with_most() {
        let pairs = |pairs: &[&str]| pairs.iter().map(|pair| pair.as_bytes().to_vec()).collect::<Vec<_>>();
        let given = |given: &[&str]| pairs(given).into_iter().collect::<BTreeSet<_>>();
        let ours = given(&["STEP=a", "SEED=1", "LC_ALL=C", "SHLVL=1"]);
        let (other, own) = (given(&["STEP=b", "SEED=1", "LC_ALL=C"]), given(&["HOME=/home/user", "TERM=xterm"]));
        let is_ours = |environment: &[&str]| agrees_most(&pairs(environment), &ours, &[&other, &own]);
        assert!(is_ours(&["X=1", "STEP=a"]));
        assert!(is_ours(&["STEP=a", "SEED=1", "TERM=xterm"]), "a tool set what this process has too");
        assert!(!is_ours(&["STEP=b", "SEED=1", "LC_ALL=C"]), "it comes from the other job");
        assert!(!is_ours(&["HOME=/home/user", "TERM=xterm", "LC_ALL=C"]), "it comes from this process itself");
        assert!(!is_ours(&["SEED=1"]), "it could be either");
        assert!(!is_ours(&["STEP=a", "STEP=b"]), "it could be either");
        assert!(!is_ours(&["SHLVL=1"]), "any shell sets its level");
        assert!(!is_ours(&[]));
        assert!(agrees_most(&pairs(&["SEED=1"]), &ours, &[&own]), "the other job is over");
    }

    #[test]
    fn a_process_once_seen_is_known_when_it_has_left_everything() {
        let root = tempfile::tempdir().unwrap();
        // Waits on its standard input, so that the test says when the parent goes.
        let text = "setsid env -i /bin/sh -c 'echo $$ > pid; exec sleep 300' >/dev/null 2>&1 & read line";
        let (mut family, input) = family(text, root.path());
        let daemon = number_in(&root.path().join("pid"));
        let seen: Vec<i32> = family.look().iter().map(|process| process.pid).collect();
        assert!(seen.contains(&daemon), "{seen:?}");

        drop(input);
        while !family.first_has_ended() {
            std::thread::yield_now();
        }
        assert_eq!(Process::read(daemon).unwrap().parent, own_number(), "its parent is gone");
        family.end().unwrap();
        assert_eq!(Process::read(daemon), None);
    }

    #[test]
    fn what_comes_of_a_session_that_was_seen_is_known_without_having_been_seen_itself() {
        let root = tempfile::tempdir().unwrap();
        let child = "read line; sleep 300 & echo $! > pid";
        let text = format!(
            "mkfifo go; setsid /bin/sh -c '{child}' <go >/dev/null 2>&1 & exec 9>go; echo $! > leader; read line; echo >&9; wait"
        );
        let (mut family, input) = family(&text, root.path());
        let leader = number_in(&root.path().join("leader"));
        while Process::read(leader).is_none_or(|process| process.session != leader) {
            std::thread::yield_now();
        }
        family.look();
        drop(input);
        let grandchild = number_in(&root.path().join("pid"));
        family.end().unwrap();
        assert_eq!(Process::read(leader), None);
        assert_eq!(Process::read(grandchild), None);
    }
}
