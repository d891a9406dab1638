//! Entropy that comes from a seed, in place of the system's.
//!
//! Each thread of a job has a stream of its own. It is keyed by the seed and by the thread's lineage, its number among the
//! children of its parent and the parent's own lineage, and each time that the thread asks it gets the next part. So what it is
//! given depends on what it did itself and on nothing that happens beside. A thread is a child like a process; a program
//! goes on with the stream of the thread that executed it.
//!
//! Whoever opens `/dev/urandom` or `/dev/random` gets the device itself, and what is read from it is answered here. A file
//! in its place would have an end, and a pipe would give as much as happens to be in it: a program that reads a
//! megabyte, seeks, or asks what it has open finds what it finds elsewhere.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FileType, MemfdFlags};

use super::filter::Draw;
use super::memory::Memory;
use crate::hash::{Digest, Stream};

/// What a file of this name says is another in each reading.
pub(super) const UUID: &[u8] = b"/proc/sys/kernel/random/uuid";

/// The most that one call is given, in bytes: what the manual says of the system's.
const MOST: u64 = (1 << 25) - 1;
/// So much is made at a time, in bytes.
const PART: usize = 64 * 1024;
/// As many buffers as one call may name.
const BUFFERS_MAX: u64 = 1024;
/// `GRND_NONBLOCK`, `GRND_RANDOM` and `GRND_INSECURE`: none of them makes a difference.
const FLAGS: u64 = 1 | 2 | 4;
/// The devices are of this kind, with these numbers: `/dev/random` and `/dev/urandom`.
const MEMORY_DEVICES: u32 = 1;
const RANDOM_DEVICES: [u32; 2] = [8, 9];

/// The streams of a job's threads.
pub(super) struct Streams {
    seed: u64,
    threads: Mutex<BTreeMap<i32, Thread>>,
    /// Whether somebody got what is the system's own.
    escaped: AtomicBool,
}

struct Thread {
    lineage: Digest,
    children: u64,
    draws: u64,
}

impl Thread {
    fn new(lineage: Digest) -> Self {
        Self { lineage, children: 0, draws: 0 }
    }
}

impl Streams {
    /// Returns the streams of a job that begins as the thread `first`.
    pub(super) fn new(seed: u64, first: i32) -> Self {
        let first = (first, Thread::new(Digest::derived("pv lineage v1", b"")));
        Self { seed, threads: Mutex::new(BTreeMap::from([first])), escaped: AtomicBool::new(false) }
    }

    /// Takes note that `parent` has started `child`, which has not begun.
    pub(super) fn born(&self, parent: i32, child: i32) {
        let mut threads = self.threads();
        if let Some(parent) = threads.get_mut(&parent) {
            let place = [parent.lineage.as_bytes().as_slice(), &parent.children.to_le_bytes()].concat();
            parent.children += 1;
            threads.insert(child, Thread::new(Digest::derived("pv lineage v1", &place)));
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

    /// Returns what a thread is given next; `None` if nobody knows who started it.
    pub(super) fn draw(&self, thread: i32) -> Option<Stream> {
        let mut threads = self.threads();
        let thread = threads.get_mut(&thread)?;
        let seed = self.seed.to_le_bytes();
        let key = [seed.as_slice(), thread.lineage.as_bytes(), &thread.draws.to_le_bytes()].concat();
        thread.draws += 1;
        Some(Stream::derived("pv entropy v1", &key))
    }

    /// Takes note that somebody got what is the system's own.
    pub(super) fn escapes(&self) {
        self.escaped.store(true, Ordering::Release);
    }

    /// Returns whether nobody got what is the system's own.
    pub(super) fn is_whole(&self) -> bool {
        !self.escaped.load(Ordering::Acquire)
    }

    /// Answers a call of a thread that waits, with a number or an error; `None` if the system is to answer it.
    pub(super) fn answer(
        &self,
        draw: Draw,
        thread: i32,
        arguments: &[u64; 6],
        memory: &Memory,
    ) -> Option<Result<i64, i32>> {
        let buffers = match draw {
            // What the system refuses gives nothing away.
            Draw::Ask if arguments[2] & !FLAGS != 0 => return None,
            Draw::Ask => vec![(arguments[0], arguments[1])],
            _ if !is_random(thread, arguments[usize::from(draw.descriptor())]) => return None,
            // As kernels from 5.17 to 5.19 do; who wants to carry bytes so can read them too.
            Draw::Carry { .. } => return Some(Err(libc::EINVAL)),
            Draw::Read => vec![(arguments[1], arguments[2])],
            Draw::ReadInto => buffers(memory, arguments[1], arguments[2])?,
        };
        let Some(stream) = self.draw(thread) else {
            // Somebody who took care that nobody follows it.
            self.escapes();
            return None;
        };
        match fill(memory, &buffers, stream) {
            None if buffers.iter().any(|(address, _)| is_below_the_stack(thread, *address)) => {
                // The system alone makes a stack longer.
                self.escapes();
                None
            }
            given => Some(given.ok_or(libc::EFAULT)),
        }
    }

    /// Returns a file that says what [`UUID`] would say to a thread.
    ///
    /// # Errors
    ///
    /// What the system says if there can be no such file.
    pub(super) fn uuid(&self, thread: i32) -> io::Result<OwnedFd> {
        let mut bytes = [0; 16];
        self.draw(thread).ok_or(io::ErrorKind::NotFound)?.fill(&mut bytes);
        let file = rustix::fs::memfd_create("uuid", MemfdFlags::CLOEXEC)?;
        let text = uuid(bytes);
        let written = rustix::io::pwrite(&file, text.as_bytes(), 0)?;
        if written == text.len() { Ok(file) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn threads(&self) -> MutexGuard<'_, BTreeMap<i32, Thread>> {
        // The map is whole after every change, so a panic elsewhere does not make it wrong.
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Draw {
    /// Returns which argument names the descriptor that is read from.
    fn descriptor(self) -> u8 {
        match self {
            Self::Carry { from } => from,
            Self::Ask | Self::Read | Self::ReadInto => 0,
        }
    }
}

/// Returns whether a descriptor of a thread is one of the devices that give entropy.
#[expect(clippy::cast_possible_truncation, reason = "a descriptor is an int, whatever fills the register")]
fn is_random(thread: i32, descriptor: u64) -> bool {
    let found = rustix::fs::stat(format!("/proc/{thread}/fd/{}", descriptor as i32));
    found.is_ok_and(|found| {
        FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice
            && rustix::fs::major(found.st_rdev) == MEMORY_DEVICES
            && RANDOM_DEVICES.contains(&rustix::fs::minor(found.st_rdev))
    })
}

/// Returns whether there is nothing at an address but the room into which the stack of a process may grow.
fn is_below_the_stack(thread: i32, address: u64) -> bool {
    let maps = std::fs::read_to_string(format!("/proc/{thread}/maps")).unwrap_or_default();
    let start = |line: &str| u64::from_str_radix(line.split('-').next()?, 16).ok();
    let end = |line: &str| u64::from_str_radix(line.split(['-', ' ']).nth(1)?, 16).ok();
    let above = maps.lines().find(|line| end(line).is_some_and(|end| address < end));
    above.is_some_and(|line| line.ends_with("[stack]") && start(line).is_some_and(|start| address < start))
}

/// Returns the buffers that a list names, each with its length; `None` if the list cannot be read.
fn buffers(memory: &Memory, list: u64, count: u64) -> Option<Vec<(u64, u64)>> {
    let buffer = |place| Some((memory.word(list, 2 * place)?, memory.word(list, 2 * place + 1)?));
    (0..count.min(BUFFERS_MAX)).map(buffer).collect()
}

/// Writes a stream into the buffers of a thread that waits; returns how much, or `None` if nothing can be written.
fn fill(memory: &Memory, buffers: &[(u64, u64)], mut stream: Stream) -> Option<i64> {
    let mut given = 0;
    let mut part = vec![0; PART];
    for (address, length) in buffers {
        let end = address.checked_add((*length).min(MOST - given))?;
        let mut next = *address;
        while next < end {
            let part = &mut part[..PART.min(usize::try_from(end - next).unwrap_or(PART))];
            stream.fill(part);
            let written = memory.write(next, part);
            let written = u64::try_from(written.unwrap_or_default()).unwrap_or_default();
            next += written;
            given += written;
            if written < part.len() as u64 {
                // A part is as good as the whole; of nothing the system is to say what is wrong.
                return i64::try_from(given).ok().filter(|given| *given > 0);
            }
        }
    }
    i64::try_from(given).ok()
}

/// Returns a line with a random identifier of version 4, as the kernel writes it.
fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::new();
    for (place, byte) in bytes.iter().enumerate() {
        let dash = if matches!(place, 4 | 6 | 8 | 10) { "-" } else { "" };
        // Writing to a text cannot fail.
        let _ = write!(text, "{dash}{byte:02x}");
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(streams: &Streams, thread: i32) -> [u8; 8] {
        let mut bytes = [0; 8];
        streams.draw(thread).unwrap().fill(&mut bytes);
        bytes
    }

    #[test]
    fn what_a_thread_is_given_depends_on_its_lineage_and_not_on_its_number_or_on_others() {
        let [one, other] = [10, 500].map(|first| {
            let streams = Streams::new(7, first);
            streams.born(first, first + 3);
            streams.born(first, first + 1);
            streams.born(first + 1, first + 2);
            streams
        });
        let family = |streams: &Streams, order: [i32; 4]| {
            let mut all: Vec<_> = order.iter().map(|thread| (*thread, next(streams, *thread))).collect();
            all.sort_unstable();
            all.into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>()
        };
        let first = family(&one, [10, 11, 12, 13]);
        assert_eq!(first, family(&other, [502, 501, 503, 500]));
        let different: std::collections::BTreeSet<_> =
            first.iter().chain(&family(&one, [10, 11, 12, 13])).copied().collect();
        assert_eq!(different.len(), 8, "nobody is given anything twice");
        assert_ne!(next(&Streams::new(8, 10), 10), first[0], "another seed");
    }

    #[test]
    fn these_are_the_bytes_that_the_format_promises() {
        let streams = Streams::new(42, 1);
        streams.born(1, 2);
        assert_eq!(
            [next(&streams, 1), next(&streams, 1), next(&streams, 2)].map(u64::from_be_bytes),
            [2_847_233_932_965_511_447, 11_398_026_394_465_044_264, 4_481_843_959_959_786_298]
        );
    }

    #[test]
    fn a_program_goes_on_with_the_stream_of_the_thread_that_executed_it() {
        let [plain, executing] = [(); 2].map(|()| {
            let streams = Streams::new(7, 1);
            streams.born(1, 2);
            streams
        });
        executing.executed(2, 1);
        assert_eq!(next(&executing, 1), next(&plain, 2));
        assert!(!executing.knows(2));
        executing.ended(1);
        assert!(executing.draw(1).is_none());
    }

    #[test]
    fn an_identifier_is_written_as_the_kernel_does() {
        assert_eq!(uuid([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff\n");
        assert_eq!(uuid([0; 16]), "00000000-0000-4000-8000-000000000000\n");
    }
}
