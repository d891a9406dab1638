//! Answers to a job's calls in place of the kernel's, where something is pinned.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::MemfdFlags;

use super::clocks::Clocks;
use super::entropy::{Streams, UUID};
use super::filter::Asked;
use super::listings::Listings;
use super::memory::Memory;
use super::pins::Pins;
use super::stamps::Stamps;
use super::threads::Threads;
use super::witness::Seen;

/// Files that say which processors there are.
const PROCESSORS: [&[u8]; 3] =
    [b"/sys/devices/system/cpu/online", b"/sys/devices/system/cpu/possible", b"/sys/devices/system/cpu/present"];
/// The file that says what the processors are.
const KINDS: &[u8] = b"/proc/cpuinfo";

/// Answers the calls of a pinned job.
pub(super) struct Answers {
    threads: Arc<Threads>,
    streams: Option<Streams>,
    clocks: Clocks,
    processors: Option<u32>,
    listings: Option<RefCell<Listings>>,
    stamps: Option<Stamps>,
}

impl Answers {
    /// Returns what answers for a job with these threads.
    pub(super) fn new(pins: &Pins, threads: &Arc<Threads>) -> Self {
        Self {
            threads: Arc::clone(threads),
            streams: pins.entropy.map(|seed| Streams::new(seed, Arc::clone(threads))),
            clocks: Clocks::new(pins, Arc::clone(threads)),
            processors: pins.processors,
            listings: pins.listing.map(|listing| RefCell::new(Listings::new(listing))),
            stamps: pins.clock.map(|clock| Stamps::new(clock.start)),
        }
    }

    /// Answers what a thread that waits asks for, with a number or an error; `None` if the system is to answer it.
    pub(super) fn answer(
        &self,
        asked: Asked,
        thread: i32,
        arguments: &[u64; 6],
        memory: &Memory,
    ) -> Option<Result<i64, i32>> {
        match asked {
            Asked::Entropy(draw) => self.streams.as_ref()?.answer(draw, thread, arguments, memory),
            Asked::Time(time) => self.clocks.answer(time, thread, arguments, memory),
            Asked::Processors => affinity(self.processors?, arguments, memory),
            Asked::Network(_) => None,
        }
    }

    /// Answers a thread that lists an open directory, in the way of `getdents64`; `None` if the system is to answer it.
    pub(super) fn list(&self, thread: i32, arguments: &[u64; 6], memory: &Memory) -> Option<Result<i64, i32>> {
        self.listings.as_ref()?.borrow_mut().answer(thread, arguments, memory)
    }

    /// Returns the file that a thread is given in place of one that it opens, or why there can be none.
    pub(super) fn file(&self, thread: i32, seen: &Seen) -> Option<io::Result<OwnedFd>> {
        if let Some(streams) = self.streams.as_ref().filter(|_| seen.reads(UUID)) {
            return Some(streams.uuid(thread));
        }
        let count = self.processors?;
        if PROCESSORS.iter().any(|path| seen.reads(path)) {
            let text = if count > 1 { format!("0-{}\n", count - 1) } else { "0\n".to_owned() };
            return Some(file_of(text.as_bytes()));
        }
        seen.reads(KINDS).then(|| file_of(kinds(&std::fs::read_to_string("/proc/cpuinfo")?, count).as_bytes()))
    }

    /// Sees to it that a thread that waits finds what it looks at as old as its clock says.
    pub(super) fn stamp(&self, thread: i32, seen: &Seen) {
        if let Some(stamps) = &self.stamps {
            stamps.set(thread, seen);
        }
    }

    /// Takes note that a thread got what is the system's own.
    pub(super) fn escapes(&self) {
        self.threads.escapes();
    }
}

/// Returns a file with this content, whose offset is at its start.
///
/// # Errors
///
/// What the system says if there can be no such file.
pub(super) fn file_of(content: &[u8]) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create("pv", MemfdFlags::CLOEXEC)?;
    let written = rustix::io::pwrite(&file, content, 0)?;
    if written == content.len() { Ok(file) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Answers `sched_getaffinity(thread, length, mask)`: it may run on each of so many processors.
fn affinity(count: u32, arguments: &[u64; 6], memory: &Memory) -> Option<Result<i64, i32>> {
    let words = u64::from(count.div_ceil(64));
    if memory.is_short() {
        return None;
    }
    if arguments[1] & u64::from(u32::MAX) < 8 * words {
        return Some(Err(libc::EINVAL));
    }
    let mask: Vec<u8> = (0..words)
        .flat_map(|word| {
            let left = u64::from(count) - 64 * word;
            (if left >= 64 { u64::MAX } else { (1 << left) - 1 }).to_ne_bytes()
        })
        .collect();
    memory.write(arguments[2], &mask).filter(|written| *written == mask.len())?;
    Some(Ok(i64::try_from(mask.len()).ok()?))
}

/// Returns what is said of the first processor, once for each of so many.
fn kinds(text: &str, count: u32) -> String {
    let first = text.split("\n\n").next().unwrap_or_default();
    (0..count)
        .map(|number| {
            let line = |line: &str| match line.split_once(':') {
                Some((name, _)) if name.trim_end() == "processor" => format!("{name}: {number}\n"),
                _ => format!("{line}\n"),
            };
            first.lines().map(line).collect::<String>() + "\n"
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_processor_is_said_to_be_as_the_first() {
        let text = "processor\t: 0\nmodel name\t: some\n\nprocessor\t: 1\nmodel name\t: other\n\n";
        let said = "processor\t: 0\nmodel name\t: some\n\nprocessor\t: 1\nmodel name\t: some\n\nprocessor\t: 2\nmodel name\t: some\n\n";
        assert_eq!(kinds(text, 3), said);
    }
}
