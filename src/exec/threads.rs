//! The threads of a job, known by who started them and not by their numbers.
//!
//! A thread's lineage is its number among the children of its parent, and the parent's own lineage. A thread is a child
//! like a process; a program goes on as the thread that executed it. What is counted for a thread depends on
//! what it did itself, and on nothing that happens beside.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::hash::Digest;

/// A clock of a thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Clock {
    /// The one on the wall.
    Wall,
    /// One that only counts.
    Steady,
    /// The processor's cycles.
    Cycles,
}

/// The threads of a job.
pub(super) struct Threads {
    threads: Mutex<BTreeMap<i32, Thread>>,
    /// Whether somebody got what is the system's own.
    escaped: AtomicBool,
}

struct Thread {
    lineage: Digest,
    children: u64,
    draws: u64,
    /// By how much its clocks have moved on since the job began, in nanoseconds.
    moved: [u64; 3],
    /// Where it keeps a point in time that was told in the system's way, and that time.
    told: Option<(u64, [u8; 16])>,
}

impl Thread {
    fn new(lineage: Digest, moved: [u64; 3]) -> Self {
        Self { lineage, children: 0, draws: 0, moved, told: None }
    }
}

impl Threads {
    /// Returns the threads of a job that begins as the thread `first`.
    pub(super) fn new(first: i32) -> Self {
        let first = (first, Thread::new(Digest::derived("pv lineage v1", b""), [0; 3]));
        Self { threads: Mutex::new(BTreeMap::from([first])), escaped: AtomicBool::new(false) }
    }

    /// Takes note that `parent` has started `child`, which has not begun.
    pub(super) fn born(&self, parent: i32, child: i32) {
        let mut threads = self.threads();
        if let Some(parent) = threads.get_mut(&parent) {
            let place = [parent.lineage.as_bytes().as_slice(), &parent.children.to_le_bytes()].concat();
            parent.children += 1;
            let born = Thread::new(Digest::derived("pv lineage v1", &place), parent.moved);
            threads.insert(child, born);
        }
    }

    /// Returns whether it is known who started a thread.
    pub(super) fn knows(&self, thread: i32) -> bool {
        self.threads().contains_key(&thread)
    }

    /// Takes note that the thread `former` executes a program, and has become the only one of its process under this number.
    pub(super) fn executed(&self, former: i32, process: i32) {
        let mut threads = self.threads();
        if let Some(thread) = threads.remove(&former) {
            threads.insert(process, thread);
        }
    }

    /// Takes note that a thread has ended.
    pub(super) fn ended(&self, thread: i32) {
        self.threads().remove(&thread);
    }

    /// Returns the lineage of a thread.
    pub(super) fn lineage(&self, thread: i32) -> Option<Digest> {
        self.threads().get(&thread).map(|thread| thread.lineage)
    }

    /// Returns the lineage of a thread, and how often it has drawn before.
    pub(super) fn draw(&self, thread: i32) -> Option<(Digest, u64)> {
        let mut threads = self.threads();
        let thread = threads.get_mut(&thread)?;
        thread.draws += 1;
        Some((thread.lineage, thread.draws - 1))
    }

    /// Moves a clock of a thread on; returns by how much that has moved since the job began, in nanoseconds.
    pub(super) fn moves(&self, thread: i32, clock: Clock, by: u64) -> Option<u64> {
        let mut threads = self.threads();
        let moved = &mut threads.get_mut(&thread)?.moved[clock as usize];
        *moved = moved.saturating_add(by);
        Some(*moved)
    }

    /// Takes note that a thread keeps at `address` a point in time that was told in the system's way.
    pub(super) fn tell(&self, thread: i32, address: u64, time: [u8; 16]) {
        if let Some(thread) = self.threads().get_mut(&thread) {
            thread.told = Some((address, time));
        }
    }

    /// Returns whether what a thread keeps at `address` was told in the system's way.
    pub(super) fn was_told(&self, thread: i32, address: u64, time: [u8; 16]) -> bool {
        self.threads().get(&thread).is_some_and(|thread| thread.told == Some((address, time)))
    }

    /// Takes note that somebody got what is the system's own.
    pub(super) fn escapes(&self) {
        self.escaped.store(true, Ordering::Release);
    }

    /// Returns whether nobody got what is the system's own.
    pub(super) fn is_whole(&self) -> bool {
        !self.escaped.load(Ordering::Acquire)
    }

    fn threads(&self) -> MutexGuard<'_, BTreeMap<i32, Thread>> {
        // The map is whole after every change, so a panic elsewhere does not make it wrong.
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
