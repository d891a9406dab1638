//! Directories that are listed in an order of our own.
//!
//! A directory is read whole when its listing begins, and given out in parts. How far a listing has come is kept where
//! the kernel keeps it, as the offset of the open directory: so whoever has a copy of the descriptor goes on where
//! another stopped, and going back works as ever. Source: `getdents64(2)`.

#![expect(unsafe_code, reason = "a call of Linux that has no safe form; the block says why it is sound")]

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags, SeekFrom};

use super::memory::{Memory, descriptor, leader};
use super::pins::Listing;
use crate::hash::Digest;

/// So many listings are kept that have begun and not ended.
const KEPT_MAX: usize = 256;
/// As much of a directory is read at a time, in bytes.
const PART: usize = 64 * 1024;
/// Where the offset, the length and the name lie in `struct linux_dirent64`.
const OFFSET: usize = 8;
const LENGTH: usize = 16;
const NAME: usize = 19;

/// Listings that have begun.
pub(super) struct Listings {
    order: Listing,
    /// By process and descriptor, the records of each entry in order.
    begun: BTreeMap<(i32, i32), Vec<Vec<u8>>>,
}

impl Listings {
    pub(super) fn new(order: Listing) -> Self {
        Self { order, begun: BTreeMap::new() }
    }

    /// Answers `getdents64(descriptor, buffer, length)`; `None` if the system is to answer it.
    #[expect(clippy::cast_possible_truncation, reason = "ints, whatever fills the registers")]
    pub(super) fn answer(&mut self, thread: i32, arguments: &[u64; 6], memory: &Memory) -> Option<Result<i64, i32>> {
        let process = leader(thread)?;
        let key = (process, arguments[0] as i32);
        let directory = descriptor(process, arguments[0])?;
        let from = usize::try_from(rustix::fs::tell(&directory).ok()?).ok()?;
        if from == 0 || !self.begun.contains_key(&key) {
            let entries = self.read(&directory)?;
            if self.begun.len() >= KEPT_MAX {
                self.begun.clear();
            }
            self.begun.insert(key, entries);
        }
        let left = self.begun.get(&key)?.get(from..).unwrap_or_default();
        let (mut part, mut to) = (Vec::new(), from);
        for entry in left {
            if part.len() + entry.len() > arguments[2] as u32 as usize {
                break;
            }
            part.extend_from_slice(entry);
            to += 1;
        }
        match (part.is_empty(), left.is_empty()) {
            (true, true) => {
                self.begun.remove(&key);
                return Some(Ok(0));
            }
            (true, false) => return Some(Err(libc::EINVAL)),
            _ => {}
        }
        rustix::fs::seek(&directory, SeekFrom::Start(to as u64)).ok()?;
        let written = memory.write(arguments[1], &part) == Some(part.len());
        Some(if written { i64::try_from(part.len()).map_err(|_| libc::EINVAL) } else { Err(libc::EFAULT) })
    }

    /// Returns the records of all entries in our order.
    fn read(&self, directory: &OwnedFd) -> Option<Vec<Vec<u8>>> {
        // Its directories are of processes and no data.
        if rustix::fs::fstatfs(directory).ok()?.f_type == rustix::fs::PROC_SUPER_MAGIC {
            return None;
        }
        // Its own offset, so that the other stays where it is if this fails.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let reader = rustix::fs::openat(directory, ".", flags, Mode::empty()).ok()?;
        let mut entries = Vec::new();
        let mut part = vec![0_u8; PART];
        loop {
            // SAFETY: the kernel writes at most as many bytes as are said into the buffer of this function.
            let read =
                unsafe { libc::syscall(libc::SYS_getdents64, reader.as_raw_fd(), part.as_mut_ptr(), part.len()) };
            let mut rest = match usize::try_from(read) {
                Ok(0) => break,
                Ok(read) => part.get(..read)?,
                Err(_) => return None,
            };
            while !rest.is_empty() {
                let length = usize::from(u16::from_ne_bytes(rest.get(LENGTH..LENGTH + 2)?.try_into().ok()?));
                let (entry, after) = rest.split_at_checked(length.max(1))?;
                entries.push(entry.to_vec());
                rest = after;
            }
        }
        match self.order {
            Listing::Sorted => entries.sort_by(|one, other| name(one).cmp(name(other))),
            Listing::Reversed => entries.sort_by(|one, other| name(other).cmp(name(one))),
            Listing::Shuffled(number) => entries.sort_by_cached_key(|entry| {
                let key = [number.to_le_bytes().as_slice(), name(entry)].concat();
                *Digest::derived("pv listing v1", &key).as_bytes()
            }),
        }
        for (entry, next) in entries.iter_mut().zip(1_i64..) {
            entry[OFFSET..OFFSET + 8].copy_from_slice(&next.to_ne_bytes());
        }
        Some(entries)
    }
}

/// Returns the name in a record.
fn name(entry: &[u8]) -> &[u8] {
    let name = entry.get(NAME..).unwrap_or_default();
    name.split(|byte| *byte == 0).next().unwrap_or_default()
}
