//! Entropy that comes from a seed, in place of the system's.
//!
//! Each thread of a job has a stream of its own. It is keyed by the seed and by the thread's lineage, and each time that the
//! thread asks it gets the next part. So what it is given depends on what it did itself and on nothing that happens beside.
//!
//! Whoever opens `/dev/urandom` or `/dev/random` gets the device itself, and what is read from it is answered here. A file
//! in its place would have an end, and a pipe would give as much as happens to be in it: a program that reads a
//! megabyte, seeks, or asks what it has open finds what it finds elsewhere.

use std::fmt::Write as _;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::FileType;

use super::answers::file_of;
use super::filter::Draw;
use super::memory::Memory;
use super::threads::Threads;
use crate::hash::Stream;

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
    threads: Arc<Threads>,
}

impl Streams {
    /// Returns the streams of these threads.
    pub(super) fn new(seed: u64, threads: Arc<Threads>) -> Self {
        Self { seed, threads }
    }

    /// Returns what a thread is given next; `None` if nobody knows who started it.
    pub(super) fn draw(&self, thread: i32) -> Option<Stream> {
        let (lineage, draws) = self.threads.draw(thread)?;
        let key = [self.seed.to_le_bytes().as_slice(), lineage.as_bytes(), &draws.to_le_bytes()].concat();
        Some(Stream::derived("pv entropy v1", &key))
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
            self.threads.escapes();
            return None;
        };
        match fill(memory, &buffers, stream) {
            None if buffers.iter().any(|(address, _)| is_below_the_stack(thread, *address)) => {
                // The system alone makes a stack longer.
                self.threads.escapes();
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
        file_of(uuid(bytes).as_bytes())
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
            let threads = Arc::new(Threads::new(first));
            threads.born(first, first + 3);
            threads.born(first, first + 1);
            threads.born(first + 1, first + 2);
            Streams::new(7, threads)
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
        assert_ne!(next(&Streams::new(8, Arc::new(Threads::new(10))), 10), first[0], "another seed");
    }

    #[test]
    fn these_are_the_bytes_that_the_format_promises() {
        let threads = Arc::new(Threads::new(1));
        threads.born(1, 2);
        let streams = Streams::new(42, threads);
        assert_eq!(
            [next(&streams, 1), next(&streams, 1), next(&streams, 2)].map(u64::from_be_bytes),
            [2_847_233_932_965_511_447, 11_398_026_394_465_044_264, 4_481_843_959_959_786_298]
        );
    }

    #[test]
    fn a_program_goes_on_with_the_stream_of_the_thread_that_executed_it() {
        let [plain, executing] = [(); 2].map(|()| {
            let threads = Arc::new(Threads::new(1));
            threads.born(1, 2);
            Streams::new(7, threads)
        });
        executing.threads.executed(2, 1);
        assert_eq!(next(&executing, 1), next(&plain, 2));
        assert!(!executing.threads.knows(2));
        executing.threads.ended(1);
        assert!(executing.draw(1).is_none());
    }

    #[test]
    fn an_identifier_is_written_as_the_kernel_does() {
        assert_eq!(uuid([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff\n");
        assert_eq!(uuid([0; 16]), "00000000-0000-4000-8000-000000000000\n");
    }
}
