//! Reading what a call of another process points at, and writing it where the call is answered for the kernel.

#![expect(unsafe_code, reason = "calls of Linux that have no safe form; each block says why it is sound")]

use std::ffi::c_void;
use std::os::fd::{AsRawFd, OwnedFd};

/// The longest path that the kernel takes, in bytes, with the zero at its end.
const PATH_MAX: usize = 4096;
const PAGE: usize = 4096;
/// So much of a path is read at first, in bytes: most are shorter.
const SHORT: usize = 256;

/// Returns the process that a thread belongs to.
pub(super) fn leader(thread: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// Returns a copy of a descriptor of a process.
#[expect(clippy::cast_possible_truncation, reason = "a descriptor is an int, whatever fills the register")]
pub(super) fn descriptor(process: i32, number: u64) -> Option<OwnedFd> {
    let process = rustix::process::Pid::from_raw(process)?;
    let handle = rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty()).ok()?;
    rustix::process::pidfd_getfd(handle, number as i32, rustix::process::PidfdGetfdFlags::empty()).ok()
}

/// Returns whether a socket of a process is one for a stream; also if that cannot be found out.
pub(super) fn is_stream(pid: i32, socket: u64) -> bool {
    let kind = || -> Option<i32> {
        // Only a leader of threads has a handle, and all of them have the same descriptors.
        let copy = descriptor(leader(pid)?, socket)?;
        let (mut kind, mut length) = (0_i32, 4_u32);
        // SAFETY: the answer is an int, and there is room for one.
        let asked = unsafe {
            let answer = (&raw mut kind).cast();
            libc::getsockopt(copy.as_raw_fd(), libc::SOL_SOCKET, libc::SO_TYPE, answer, &raw mut length)
        };
        (asked == 0).then_some(kind)
    };
    kind().is_none_or(|kind| kind != libc::SOCK_DGRAM)
}

/// The memory of a process.
pub(super) struct Memory {
    pid: i32,
    /// Whether its pointers have 32 bits.
    short: bool,
}

impl Memory {
    pub(super) fn new(pid: i32, short: bool) -> Self {
        Self { pid, short }
    }

    /// Returns the text at `address`, up to its zero byte; `None` if it cannot be read or is too long for a path.
    pub(super) fn text(&self, address: u64) -> Option<Vec<u8>> {
        let address = usize::try_from(address).ok().filter(|address| *address != 0)?;
        let mut text = Vec::new();
        while text.len() < PATH_MAX {
            let filled = text.len();
            let start = address.checked_add(filled)?;
            // Never beyond the page, for the next one may not be there. Most paths are short.
            let some = if filled == 0 { SHORT } else { PATH_MAX - filled };
            text.resize(filled + some.min(PAGE - start % PAGE), 0);
            let read = self.read(start, &mut text[filled..])?;
            text.truncate(filled + read);
            if let Some(end) = text[filled..].iter().position(|byte| *byte == 0) {
                text.truncate(filled + end);
                return Some(text);
            }
        }
        None
    }

    /// Returns as many bytes as fit `N`, at `address`.
    pub(super) fn bytes<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        let read = self.read(usize::try_from(address).ok()?, &mut bytes)?;
        (read == N).then_some(bytes)
    }

    /// Returns up to `length` bytes at `address`, at most 128.
    pub(super) fn some(&self, address: u64, length: u64) -> Option<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length).ok()?.min(128)];
        let read = self.read(usize::try_from(address).ok()?, &mut bytes)?;
        bytes.truncate(read);
        Some(bytes)
    }

    /// Returns the number at place `index` of a list of words at `address`.
    pub(super) fn word(&self, address: u64, index: u64) -> Option<u64> {
        if self.short {
            self.bytes(address + 4 * index).map(|bytes| u32::from_ne_bytes(bytes).into())
        } else {
            self.bytes(address + 8 * index).map(u64::from_ne_bytes)
        }
    }

    /// Returns the first number of 64 bits at `address`.
    pub(super) fn long(&self, address: u64) -> Option<u64> {
        self.bytes(address).map(u64::from_ne_bytes)
    }

    /// Returns how many words of this process a structure field of that place lies behind.
    pub(super) fn is_short(&self) -> bool {
        self.short
    }

    /// Writes `bytes` at `address`; returns how many of them, or `None` if that is none.
    ///
    /// What the kernel would make room for first, below the end of a stack, cannot be written.
    pub(super) fn write(&self, address: u64, bytes: &[u8]) -> Option<usize> {
        let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let address = usize::try_from(address).ok()?;
        let remote = libc::iovec { iov_base: address as *mut c_void, iov_len: bytes.len() };
        // SAFETY: the kernel only reads the `bytes.len()` bytes of `bytes`; the other side is memory of another process.
        let written = unsafe { libc::process_vm_writev(self.pid, &raw const local, 1, &raw const remote, 1, 0) };
        usize::try_from(written).ok().filter(|written| *written > 0)
    }

    /// Reads what lies from `address` on; returns how much that is, or `None` if it is nothing.
    pub(super) fn fill(&self, address: u64, into: &mut [u8]) -> Option<usize> {
        self.read(usize::try_from(address).ok()?, into)
    }

    fn read(&self, address: usize, into: &mut [u8]) -> Option<usize> {
        let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
        let remote = libc::iovec { iov_base: address as *mut c_void, iov_len: into.len() };
        // SAFETY: the kernel writes at most `into.len()` bytes into `into`; the other side is only read.
        let read = unsafe { libc::process_vm_readv(self.pid, &raw const local, 1, &raw const remote, 1, 0) };
        usize::try_from(read).ok().filter(|read| *read > 0)
    }
}
