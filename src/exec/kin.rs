//! Who starts whom among a job's threads, where entropy is pinned.
//!
//! A thread of its own traces the job and stops it when somebody starts a process or a thread, and when a program is
//! executed; in between everything goes at its own speed. A new thread does not begin before its lineage is known. A program
//! that begins is given 16 bytes of entropy by the kernel itself, which are replaced before it can look at them; and the
//! kernel's library, where that answers calls for entropy within the process, is hidden from it. Source: ptrace(2), getauxval(3), vdso(7).

#![expect(unsafe_code, reason = "calls of Linux that have no safe form; each block says why it is sound")]

use std::collections::BTreeSet;
use std::ffi::c_int;
use std::io;
use std::ptr;
use std::sync::{Arc, mpsc};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use super::entropy::Streams;
use super::memory::Memory;
use super::tracer::{EVENT_STOP, ask, is_stop, next_traced};

/// Those who are started are traced too; nobody outlives the tracer.
const OPTIONS: c_int = libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_EXITKILL;

const AT_NULL: u64 = 0;
const AT_IGNORE: u64 = 1;
/// Where the 16 bytes lie.
const AT_RANDOM: u64 = 25;
/// Where the kernel's library lies.
const AT_SYSINFO_EHDR: u64 = 33;
/// More words before the ones that we look for no program is given: the kernel bounds them.
const WORDS_MAX: u64 = 1 << 22;

/// A thread that follows who starts whom.
pub(super) struct Kin<'scope> {
    thread: ScopedJoinHandle<'scope, ()>,
    streams: Arc<Streams>,
}

impl<'scope> Kin<'scope> {
    /// Follows the process `command`, which has not executed its program, and gives entropy from `seed`.
    ///
    /// # Errors
    ///
    /// What the system says if it may not be traced.
    pub(super) fn attach(command: i32, seed: u64, scope: &'scope Scope<'scope, '_>) -> io::Result<Self> {
        let streams = Arc::new(Streams::new(seed, command));
        let (attached, is_attached) = mpsc::sync_channel(1);
        let theirs = Arc::clone(&streams);
        let follow = move || {
            let seized = ask(libc::PTRACE_SEIZE, command, 0, OPTIONS as usize);
            let go_on = seized.is_ok();
            let _ = attached.send(seized);
            if go_on {
                Follow { streams: &theirs, unborn: BTreeSet::new() }.follow();
            }
        };
        let thread = Builder::new().name("kin".to_owned()).spawn_scoped(scope, follow)?;
        is_attached.recv().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))?;
        Ok(Self { thread, streams })
    }

    /// Returns the streams that the job's threads are given.
    pub(super) fn streams(&self) -> Arc<Streams> {
        Arc::clone(&self.streams)
    }

    /// Waits until the job is gone; returns whether all entropy that it was given came from the seed.
    pub(super) fn finish(self) -> bool {
        self.thread.join().is_ok() && self.streams.is_whole()
    }
}

struct Follow<'f> {
    streams: &'f Streams,
    /// New threads of which we have not been told yet who started them.
    unborn: BTreeSet<i32>,
}

impl Follow<'_> {
    fn follow(mut self) {
        while let Some((pid, status)) = next_traced() {
            if libc::WIFSTOPPED(status) {
                self.stopped(pid, libc::WSTOPSIG(status), status >> 16);
            } else {
                self.streams.ended(pid);
                self.unborn.remove(&pid);
            }
        }
    }

    /// Lets a stopped thread go on. A failure means that it has been killed, which the next wait tells.
    fn stopped(&mut self, pid: i32, signal: c_int, event: c_int) {
        let mut pass_on = 0;
        match event {
            0 => pass_on = signal,
            EVENT_STOP if is_stop(signal) => {
                // It has been stopped by a signal and stays so until the next.
                let _ = ask(libc::PTRACE_LISTEN, pid, 0, 0);
                return;
            }
            EVENT_STOP if !self.streams.knows(pid) => {
                self.unborn.insert(pid);
                return;
            }
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => self.started(pid),
            libc::PTRACE_EVENT_EXEC => self.executed(pid),
            _ => {}
        }
        go_on(pid, pass_on);
    }

    fn started(&mut self, parent: i32) {
        if let Some(child) = message(parent) {
            self.streams.born(parent, child);
            if self.unborn.remove(&child) {
                go_on(child, 0);
            }
        }
    }

    fn executed(&mut self, process: i32) {
        if let Some(former) = message(process) {
            self.streams.executed(former, process);
        }
        if self.prepare(process).is_none() {
            self.streams.escapes();
        }
    }

    /// Changes what a program that has not begun was given by the kernel. Returns nothing if it cannot be found.
    fn prepare(&self, process: i32) -> Option<()> {
        let (stack, is_short) = stack_of(process)?;
        let memory = Memory::new(process, is_short);
        let word = |place| memory.word(stack, place);
        // How many arguments, the arguments, a null, the variables, a null, and then pairs of a key and a value.
        let mut place = word(0)? + 2;
        while word(place)? != 0 {
            place = Some(place + 1).filter(|place| *place < WORDS_MAX)?;
        }
        place += 1;
        let bytes_each = if is_short { 4 } else { 8 };
        loop {
            match word(place)? {
                AT_NULL => return Some(()),
                AT_RANDOM => {
                    let mut bytes = [0; 16];
                    self.streams.draw(process)?.fill(&mut bytes);
                    memory.write(word(place + 1)?, &bytes).filter(|written| *written == bytes.len())?;
                }
                AT_SYSINFO_EHDR => {
                    // Its key is a small number in either width.
                    let key = AT_IGNORE.to_ne_bytes();
                    let key = if cfg!(target_endian = "big") { &key[8 - bytes_each..] } else { &key[..bytes_each] };
                    let address = stack + place * bytes_each as u64;
                    memory.write(address, key).filter(|written| *written == bytes_each)?;
                }
                _ => {}
            }
            place = Some(place + 2).filter(|place| *place < WORDS_MAX)?;
        }
    }
}

fn go_on(pid: i32, signal: c_int) {
    let _ = ask(libc::PTRACE_CONT, pid, 0, usize::try_from(signal).unwrap_or_default());
}

/// Returns the number that the kernel tells with an event.
fn message(pid: i32) -> Option<i32> {
    let mut message: libc::c_ulong = 0;
    ask(libc::PTRACE_GETEVENTMSG, pid, 0, &raw mut message as usize).ok()?;
    i32::try_from(message).ok()
}

/// Returns where the stack of a stopped thread ends, and whether its pointers have 32 bits.
fn stack_of(pid: i32) -> Option<(u64, bool)> {
    const NT_PRSTATUS: usize = 1;
    /// The stack's place among the registers of 32-bit programs, and how long all of them are.
    const SHORT: (usize, usize) = (15, 17 * 4);
    // SAFETY: these are numbers, of which all are valid.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    let length = size_of::<libc::user_regs_struct>();
    let mut part = libc::iovec { iov_base: ptr::from_mut(&mut registers).cast(), iov_len: length };
    ask(libc::PTRACE_GETREGSET, pid, NT_PRSTATUS, &raw mut part as usize).ok()?;
    #[cfg(target_arch = "x86_64")]
    let native = registers.rsp;
    #[cfg(target_arch = "aarch64")]
    let native = registers.sp;
    if part.iov_len == length {
        return Some((native, false));
    }
    if !cfg!(target_arch = "x86_64") || part.iov_len != SHORT.1 {
        return None;
    }
    // SAFETY: the kernel has written that many bytes, and all of them are numbers.
    let short = unsafe { ptr::from_ref(&registers).cast::<u32>().add(SHORT.0).read() };
    Some((short.into(), true))
}
