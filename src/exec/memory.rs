//! Reading what a call of another process points at.

#![expect(unsafe_code, reason = "calls of Linux that have no safe form; each block says why it is sound")]

use std::ffi::c_void;

/// The longest path that the kernel takes, in bytes, with the zero at its end.
const PATH_MAX: usize = 4096;
const PAGE: usize = 4096;

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
        let mut buffer = [0_u8; PATH_MAX];
        let address = usize::try_from(address).ok().filter(|address| *address != 0)?;
        let mut filled = 0;
        while filled < PATH_MAX {
            // Never beyond the page, for the next one may not be there. Most paths are short.
            let start = address.checked_add(filled)?;
            let length = (PAGE - start % PAGE).min(PATH_MAX - filled);
            let read = self.read(start, &mut buffer[filled..filled + length])?;
            if let Some(end) = buffer[filled..filled + read].iter().position(|byte| *byte == 0) {
                return Some(buffer[..filled + end].to_vec());
            }
            filled += read;
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

    fn read(&self, address: usize, into: &mut [u8]) -> Option<usize> {
        let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
        let remote = libc::iovec { iov_base: address as *mut c_void, iov_len: into.len() };
        // SAFETY: the kernel writes at most `into.len()` bytes into `into`; the other side is only read.
        let read = unsafe { libc::process_vm_readv(self.pid, &raw const local, 1, &raw const remote, 1, 0) };
        usize::try_from(read).ok().filter(|read| *read > 0)
    }
}
