//! Who starts whom among a job's threads, where something is pinned that depends on it.
//!
//! A thread of its own traces the job and stops it when somebody starts a process or a thread, and when a program is
//! executed; in between everything goes at its own speed, unless the schedule says otherwise. A new thread does not begin before
//! its lineage is known. A program that begins is given 16 bytes of entropy by the kernel itself, which are replaced before it can
//! look at them; and the kernel's library, where that answers calls within the process, is hidden from it. Where programs would ask
//! the processor, they are stopped too.
//! Source: ptrace(2), getauxval(3), vdso(7).

#![expect(unsafe_code, reason = "calls of Linux that have no safe form; each block says why it is sound")]

use std::collections::BTreeSet;
use std::ffi::c_int;
use std::io;
use std::ptr;
use std::sync::{Arc, mpsc};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use super::clocks::Clocks;
use super::entropy::Streams;
use super::memory::Memory;
use super::pins::Pins;
use super::processor;
use super::schedule::{Held, delays};
use super::threads::Threads;
use super::tracer::{EVENT_STOP, ask, is_stop, next_traced, traced_now};

/// Those who are started are traced too; nobody outlives the tracer.
const OPTIONS: c_int = libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_TRACESECCOMP
    | libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_EXITKILL;
/// A thread has come out of a call at whose end it was to stop.
const SYSCALL_STOP: c_int = libc::SIGTRAP | 0x80;

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
    thread: ScopedJoinHandle<'scope, Followed>,
    threads: Arc<Threads>,
}

/// What is known of a job that was followed to its end.
#[derive(Default)]
pub(super) struct Followed {
    /// Whether nobody got what is the system's own.
    pub(super) is_whole: bool,
    /// How many processes and threads it started after its first.
    pub(super) started: u64,
    /// How often it was given random bits in place of the processor's own.
    pub(super) processor_draws: u64,
    /// Whether it was told another count of cycles than the processor's, other than while a program was loaded.
    pub(super) counts_cycles: bool,
}

impl<'scope> Kin<'scope> {
    /// Follows the process `command`, the first of `threads`, which has not executed its program.
    ///
    /// # Errors
    ///
    /// What the system says if it may not be traced.
    pub(super) fn attach(
        command: i32,
        pins: &Pins,
        threads: &Arc<Threads>,
        scope: &'scope Scope<'scope, '_>,
    ) -> io::Result<Self> {
        let (attached, is_attached) = mpsc::sync_channel(1);
        let theirs = Arc::clone(threads);
        let pins = pins.clone();
        let follow = move || {
            let seized = ask(libc::PTRACE_SEIZE, command, 0, OPTIONS as usize);
            let go_on = seized.is_ok();
            let _ = attached.send(seized);
            if !go_on {
                return Followed::default();
            }
            let streams = |seed: Option<u64>| seed.map(|seed| Streams::new(seed, Arc::clone(&theirs)));
            let mut follow = Follow {
                threads: &theirs,
                streams: streams(pins.entropy),
                processor: streams(pins.processor_entropy),
                pins: &pins,
                unborn: BTreeSet::new(),
                held: Held::default(),
                clocks: Clocks::new(&pins, Arc::clone(&theirs)),
                followed: Followed::default(),
            };
            follow.follow();
            follow.followed
        };
        let thread = Builder::new().name("kin".to_owned()).spawn_scoped(scope, follow)?;
        is_attached.recv().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))?;
        Ok(Self { thread, threads: Arc::clone(threads) })
    }

    /// Waits until the job is gone; returns what is known of it.
    pub(super) fn finish(self) -> Followed {
        let joined = self.thread.join();
        let is_whole = joined.is_ok() && self.threads.is_whole();
        Followed { is_whole, ..joined.unwrap_or_default() }
    }
}

struct Follow<'f> {
    threads: &'f Threads,
    streams: Option<Streams>,
    /// What is given in place of the processor's random bits.
    processor: Option<Streams>,
    pins: &'f Pins,
    /// New threads of which we have not been told yet who started them.
    unborn: BTreeSet<i32>,
    /// Those that do not go on yet.
    held: Held,
    clocks: Clocks,
    /// What is known so far.
    followed: Followed,
}

impl Follow<'_> {
    fn follow(&mut self) {
        while let Some((pid, status)) = self.next() {
            if libc::WIFSTOPPED(status) {
                self.stopped(pid, libc::WSTOPSIG(status), status >> 16);
            } else {
                self.threads.ended(pid);
                self.unborn.remove(&pid);
                self.held.ended(pid).into_iter().for_each(|thread| go_on(thread, 0));
            }
        }
    }

    /// Waits until something is to be said of a thread; meanwhile lets those go on whose time has come.
    fn next(&mut self) -> Option<(i32, c_int)> {
        while !self.held.is_empty() {
            match traced_now() {
                Ok(None) => self.held.due().into_iter().for_each(|thread| go_on(thread, 0)),
                Ok(next) => return next,
                Err(_) => return None,
            }
        }
        next_traced()
    }

    /// Lets a stopped thread go on. A failure means that it has been killed, which the next wait tells.
    fn stopped(&mut self, pid: i32, signal: c_int, event: c_int) {
        let mut pass_on = 0;
        match event {
            0 if signal == SYSCALL_STOP => processor::plant_new(pid),
            0 if signal == libc::SIGTRAP && self.answers_bits(pid) => self.followed.processor_draws += 1,
            0 if signal == libc::SIGSEGV && self.pins.cycles && self.answers_cycles(pid) => {}
            0 => pass_on = signal,
            libc::PTRACE_EVENT_SECCOMP => {
                // It makes something executable, which can be looked at once it is there.
                let _ = ask(libc::PTRACE_SYSCALL, pid, 0, 0);
                return;
            }
            EVENT_STOP if is_stop(signal) => {
                // It has been stopped by a signal and stays so until the next.
                let _ = ask(libc::PTRACE_LISTEN, pid, 0, 0);
                return;
            }
            EVENT_STOP if !self.threads.knows(pid) => {
                self.unborn.insert(pid);
                return;
            }
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
                self.started(pid);
                return;
            }
            libc::PTRACE_EVENT_EXEC => self.executed(pid),
            _ => {}
        }
        // Whoever was held back before it began is let go by the clock and by nothing else.
        if !self.held.has(pid) {
            go_on(pid, pass_on);
        }
    }

    /// Lets a thread and the one that it has started go on, each when its time has come.
    fn started(&mut self, parent: i32) {
        let Some(child) = message(parent) else {
            go_on(parent, 0);
            return;
        };
        self.followed.started += 1;
        self.threads.born(parent, child);
        let has_stopped = self.unborn.remove(&child);
        let lineage = self.threads.lineage(child);
        let (first, then) = delays(self.pins.schedule, lineage, child);
        match then {
            Some(until) => self.held.hold(parent, until),
            None => go_on(parent, 0),
        }
        match first {
            Some(until) => self.held.hold(child, until),
            None if has_stopped => go_on(child, 0),
            None => {}
        }
    }

    fn executed(&mut self, process: i32) {
        if let Some(former) = message(process) {
            self.threads.executed(former, process);
            self.held.executed(former, process);
        }
        if self.prepare(process).is_none() {
            self.threads.escapes();
        }
        if self.processor.is_some() {
            processor::plant(process);
        }
    }

    /// Tells a thread that has faulted how many cycles there were. Returns whether that was why it faulted.
    fn answers_cycles(&mut self, pid: i32) -> bool {
        // A program that is loaded is measured by whoever loads it, who tells nobody.
        self.followed.counts_cycles = self.followed.counts_cycles || !processor::is_in_loader(pid);
        processor::answer_cycles(pid, || self.clocks.cycles(pid))
    }

    /// Gives random bits to a thread that has stopped where it would ask the processor for them. Returns whether it has.
    fn answers_bits(&self, pid: i32) -> bool {
        self.processor.as_ref().is_some_and(|streams| processor::answer_bits(pid, streams))
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
                    if let Some(streams) = &self.streams {
                        let mut bytes = [0; 16];
                        streams.draw(process)?.fill(&mut bytes);
                        memory.write(word(place + 1)?, &bytes).filter(|written| *written == bytes.len())?;
                    }
                }
                AT_SYSINFO_EHDR if self.pins.entropy.is_some() || self.pins.tells_time() => {
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
