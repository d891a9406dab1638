//! The working directories of a job's threads, remembered while nobody can have changed them.
//!
//! Whoever goes to another directory says so before, but not when it has arrived, and may take others along: threads
//! share their directory, and a renamed one is another for everybody in it. Until then nothing is remembered.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, c_long};
use std::io;
use std::path::Path;

use super::filter::{Calls, Deed};
use super::witness::link;

/// So many threads are remembered; fewer than the system has numbers.
const REMEMBERED_MAX: usize = 4096;

/// Where the threads of a job work.
pub(super) struct Directories {
    ways: Vec<Calls>,
    known: BTreeMap<i32, Vec<u8>>,
    /// Threads whose call was let go, and may still be changing the directory of anybody.
    moving: BTreeSet<i32>,
}

impl Directories {
    /// Returns the directories of a job that makes its calls in these ways; none is known.
    pub(super) fn new(ways: Vec<Calls>) -> Self {
        Self { ways, known: BTreeMap::new(), moving: BTreeSet::new() }
    }

    /// Returns the directory of a thread that waits for us; `None` if it cannot be found out.
    ///
    /// Costs nothing while nobody moves, and otherwise a look at each of those who do.
    pub(super) fn of(&mut self, pid: i32) -> Option<Vec<u8>> {
        if let Some(directory) = self.known.get(&pid) {
            return Some(directory.clone());
        }
        // Only what is looked up after everybody has arrived stays true.
        let ways = &self.ways;
        self.moving.retain(|pid| is_still_moving(ways, *pid));
        let directory = link(&format!("/proc/{pid}/cwd"))?;
        if self.moving.is_empty() {
            if self.known.len() >= REMEMBERED_MAX {
                self.known.clear();
            }
            self.known.insert(pid, directory.clone());
        }
        Some(directory)
    }

    /// Takes note that a thread's call, which may change the directory of anybody, is let go now.
    pub(super) fn begins_to_move(&mut self, pid: i32) {
        self.known.clear();
        self.moving.insert(pid);
    }

    /// Takes note that a thread has made another call: it has arrived.
    pub(super) fn has_arrived(&mut self, pid: i32) {
        self.moving.remove(&pid);
    }

    /// Forgets every directory. Numbers of threads are given out again, so none is remembered for long.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }
}

/// Returns whether a thread may still be in the call that it was let go with.
///
/// It is not if it is gone, or waits in another call. Where nothing is told, it may be.
fn is_still_moving(ways: &[Calls], pid: i32) -> bool {
    let process = format!("/proc/{pid}");
    match std::fs::read_to_string(format!("{process}/syscall")) {
        Ok(text) => may_move(ways, &text),
        // There is no such file for one that is gone, nor on some kernels for anybody.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Path::new(OsStr::new(&process)).exists(),
        Err(error) => error.raw_os_error() != Some(libc::ESRCH),
    }
}

/// Returns whether a thread of which the kernel tells this may be changing directories: it runs, or waits in such a call.
///
/// The number alone does not tell in which way the call was made, so that of any way counts.
fn may_move(ways: &[Calls], told: &str) -> bool {
    let Some(number) = told.split_ascii_whitespace().next().and_then(|word| word.parse::<c_long>().ok()) else {
        return true;
    };
    let moves = |way: &Calls| matches!(way.deed(number), Some(Deed::Enter { .. } | Deed::Move { .. }));
    // Outside of any call it waits somewhere in the middle of what it computes, or of one that is begun again.
    number < 0 || ways.iter().any(moves)
}

#[cfg(test)]
mod tests {
    use super::super::filter::ways;
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn own_number() -> i32 {
        let own = std::fs::read_link("/proc/thread-self").unwrap();
        own.file_name().and_then(OsStr::to_str).and_then(|name| name.parse().ok()).unwrap()
    }

    #[test]
    fn only_who_waits_in_a_call_that_changes_no_directory_has_arrived() {
        let number = |number: c_long| format!("{number} 0x3 0x7ffd 0x0 0x0 0x0 0x0 0x7ffd1 0x7f2\n");
        assert!(!may_move(&ways(), &number(libc::SYS_wait4)));
        assert!(!may_move(&ways(), &number(libc::SYS_read)));
        for moves in [libc::SYS_chdir, libc::SYS_fchdir, libc::SYS_renameat2] {
            assert!(may_move(&ways(), &number(moves)), "{moves}");
        }
        assert!(may_move(&ways(), "running\n"));
        assert!(may_move(&ways(), "-1 0x7ffd1 0x7f2\n"));
        assert!(may_move(&ways(), ""));
    }

    #[test]
    fn a_directory_is_remembered_once_everybody_has_arrived_and_forgotten_when_somebody_moves() {
        let (tell, told) = std::sync::mpsc::channel();
        let is_over = Arc::new(AtomicBool::new(false));
        let is_seen_to_be_over = Arc::clone(&is_over);
        let computing = std::thread::spawn(move || {
            tell.send(own_number()).unwrap();
            while !is_seen_to_be_over.load(Ordering::Acquire) {
                std::hint::spin_loop();
            }
        });
        let computes = told.recv().unwrap();
        while !is_still_moving(&ways(), computes) {
            // It has not come back from telling its number.
            std::thread::yield_now();
        }
        let mut directories = Directories::new(ways());
        let (own, here) = (own_number(), link("/proc/self/cwd"));
        directories.begins_to_move(computes);
        assert_eq!(directories.of(own), here);
        assert!(directories.known.is_empty());
        directories.has_arrived(computes);
        assert_eq!(directories.of(own), here);
        assert_eq!(directories.known.len(), 1);
        directories.begins_to_move(computes);
        assert!(directories.known.is_empty());
        is_over.store(true, Ordering::Release);
        computing.join().unwrap();
        // Who is gone is on the way to nowhere, but joining a thread does not wait until the kernel has forgotten it.
        while directories.known.is_empty() {
            assert_eq!(directories.of(own), here);
        }
        directories.forget();
        assert!(directories.known.is_empty());
    }

    #[test]
    fn a_thread_that_waits_has_arrived_also_without_another_word() {
        let (tell, told) = std::sync::mpsc::channel();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let waiting = std::thread::spawn(move || {
            tell.send(own_number()).unwrap();
            wait.recv().unwrap_err();
        });
        let pid = told.recv().unwrap();
        while is_still_moving(&ways(), pid) {
            std::thread::yield_now();
        }
        drop(go);
        waiting.join().unwrap();
        while is_still_moving(&ways(), pid) {
            std::thread::yield_now();
        }
    }
}
