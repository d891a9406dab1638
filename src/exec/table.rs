//! The system's table of processes, as `/proc` tells it.
//!
//! Where there is no `/proc` the table is empty. Every answer may be out of
//! date as soon as it is given: a process is named by its number *and* the
//! time of its start, because numbers are given out again.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

/// As many numbers as cost less to try than the whole table to read.
const MOST_READ_SINGLY: i32 = 40;

/// One process as it was when the table was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) parent: i32,
    pub(super) group: i32,
    pub(super) session: i32,
    /// When it started, in the kernel's ticks since the machine did.
    pub(super) started: u64,
    /// Whether it still runs, and is not only waiting for its parent to take note of its end.
    pub(super) living: bool,
}

/// Returns all processes that can be seen, in the order of their numbers.
///
/// Costs about 10 µs for each process on the machine.
pub(super) fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let mut processes: Vec<_> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(Process::read)
        .collect();
    processes.sort_by_key(|process| process.pid);
    processes
}

/// Returns at least the processes that were started after number `first` was given out, a short time ago.
///
/// Numbers rise until they begin anew, so these are mostly few, and each is
/// read by itself; if they are not, this is [`all`].
pub(super) fn after(first: i32) -> Vec<Process> {
    match newest().map(|newest| newest - first) {
        Some(count @ 0..=MOST_READ_SINGLY) => (first + 1..=first + count).filter_map(Process::read).collect(),
        _ => all(),
    }
}

/// Returns the number that was given out last.
fn newest() -> Option<i32> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split_ascii_whitespace().nth(4)?.parse().ok()
}

impl Process {
    /// Returns the process that has this number now.
    pub(super) fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Returns this process itself.
    ///
    /// Its group and session are 0 where their leaders lie outside of the pid
    /// namespace, as in most containers. The system calls say the same, but a
    /// number that may be 0 is not what their wrappers return.
    pub(super) fn own() -> Option<Self> {
        Self::parse(&fs::read("/proc/self/stat").ok()?)
    }

    /// Reads a line of the form of `/proc/<pid>/stat`.
    fn parse(stat: &[u8]) -> Option<Self> {
        // The name stands in parentheses and may itself hold any byte, also `)`.
        let name_end = stat.iter().rposition(|byte| *byte == b')')?;
        let name_start = stat.iter().position(|byte| *byte == b'(')?;
        let pid = std::str::from_utf8(&stat[..name_start]).ok()?.trim().parse().ok()?;
        let rest = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
        // Counted from the state, which is field 3 in the kernel's own account.
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let threads: i64 = fields.get(17)?.parse().ok()?;
        // A process whose first thread has ended while others go on looks dead, but is not.
        let living = !matches!(*fields.first()?, "Z" | "X" | "x") || threads > 1;
        Some(Self {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
            living,
        })
    }

    /// Returns the `NAME=value` pairs that it was started with; none if they may not be read.
    pub(super) fn environment(&self) -> Vec<Vec<u8>> {
        pairs(&format!("/proc/{}/environ", self.pid))
    }

    /// Returns whether its standard output or standard error is what `link` names, such as `pipe:[123]`.
    pub(super) fn prints_to(&self, link: &Path) -> bool {
        [1, 2].iter().any(|number| fs::read_link(format!("/proc/{}/fd/{number}", self.pid)).is_ok_and(|to| to == link))
    }

    /// Ends it with `SIGKILL`, and never another process that has got its number since.
    pub(super) fn kill(&self) {
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        // The handle holds on to whoever has the number now; only then it is safe to ask who that is.
        #[cfg(target_os = "linux")]
        let handle = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
        if Self::read(self.pid).is_none_or(|now| now.started != self.started) {
            return;
        }
        // A failure means that it has ended or is not ours to end; the next look at the table tells.
        #[cfg(target_os = "linux")]
        if let Ok(handle) = handle {
            let _ = rustix::process::pidfd_send_signal(handle, Signal::KILL);
            return;
        }
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }

    /// Takes note of the end of a child of this process, so that the system forgets it.
    pub(super) fn reap(&self) {
        if let Some(pid) = Pid::from_raw(self.pid) {
            // If it goes on after all, or was no child, nothing happens.
            let _ = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
    }
}

/// Returns the `NAME=value` pairs that this process itself was started with.
pub(super) fn own_environment() -> Vec<Vec<u8>> {
    pairs("/proc/self/environ")
}

fn pairs(path: &str) -> Vec<Vec<u8>> {
    let bytes = fs::read(path).unwrap_or_default();
    bytes.split(|byte| *byte == 0).filter(|pair| !pair.is_empty()).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let line = b"42 (a) b (c) S 7 40 30 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987 11 22\n";
        let process = Process::parse(line).unwrap();
        assert_eq!(process, Process { pid: 42, parent: 7, group: 40, session: 30, started: 987, living: true });
        assert_eq!(Process::parse(b"42 (a) S 7"), None);
        assert_eq!(Process::parse(b""), None);
    }

    #[test]
    fn only_a_dead_process_without_other_threads_is_not_living() {
        let with = |state: &str, threads: &str| {
            let line = format!("42 (a) {state} 7 40 30 0 -1 0 1 2 3 4 5 6 7 8 20 0 {threads} 0 987 11");
            Process::parse(line.as_bytes()).unwrap().living
        };
        assert!(with("S", "1"));
        assert!(!with("Z", "1"));
        assert!(with("Z", "3"));
    }

    #[test]
    fn what_was_started_last_is_found_without_reading_the_whole_table() {
        #[expect(clippy::disallowed_methods, reason = "a process to look for")]
        let mut child = std::process::Command::new("sleep").arg("300").spawn().unwrap();
        let number = Pid::from_child(&child).as_raw_nonzero().get();
        let is_among = |table: Vec<Process>| table.iter().any(|process| process.pid == number);
        assert!(is_among(after(number - 1)));
        assert!(is_among(after(1)), "too many numbers to try");
        assert!(is_among(after(i32::MAX - 1)), "numbers have begun anew");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn this_process_is_in_the_table() {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let found = all().into_iter().find(|process| process.pid == own).unwrap();
        assert!(found.living);
        assert_eq!(Process::own(), Some(found));
        assert_eq!(Some(found.parent), rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get()));
        assert_eq!(found.environment(), own_environment());
    }
}
