//! Stopping a job at each of its calls, where the kernel's reports are taken by somebody else already.
//!
//! A thread of its own attaches to the command before that begins, follows whatever it starts, and asks at the
//! entry and the exit of each call what it is. It waits only for processes that it traces itself, so
//! that nobody else misses an end. Source: ptrace(2).

#![expect(unsafe_code, reason = "calls of Linux that have no safe form; each block says why it is sound")]

use std::collections::BTreeMap;
use std::ffi::{c_int, c_long, c_uint};
use std::io;
use std::ptr;
use std::sync::mpsc;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use super::filter::{Calls, ways};
use super::memory::Memory;
use super::observation::{Gap, Observation, Rung};
use super::witness::{Answer, Call, Seen, Witness};

/// New processes and threads are traced too; a stop at a call is told from a signal; nobody outlives the tracer.
const OPTIONS: c_int = libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_EXITKILL;
const SYSCALL_STOP: c_int = libc::SIGTRAP | 0x80;
pub(super) const EVENT_STOP: c_int = 128;
const GET_SYSCALL_INFO: c_uint = 0x420e;

/// A thread that traces a job.
pub(super) struct Tracer<'scope> {
    thread: ScopedJoinHandle<'scope, Witness<'scope>>,
}

impl<'scope> Tracer<'scope> {
    /// Attaches to the process `command`, which waits for word to begin.
    ///
    /// # Errors
    ///
    /// What the system says if it may not be traced.
    pub(super) fn attach(
        command: i32,
        mut witness: Witness<'scope>,
        scope: &'scope Scope<'scope, '_>,
    ) -> io::Result<Self> {
        let (attached, is_attached) = mpsc::sync_channel(1);
        let trace = move || {
            let seized = seize(command);
            let go_on = seized.is_ok();
            let _ = attached.send(seized);
            if go_on {
                Trace { ways: ways(), witness: &mut witness, calls: BTreeMap::new() }.follow();
            }
            witness
        };
        let thread = Builder::new().name("tracer".to_owned()).spawn_scoped(scope, trace)?;
        is_attached.recv().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))?;
        Ok(Self { thread })
    }

    /// Waits until the job is gone, and returns what was seen.
    pub(super) fn finish(self) -> Option<Observation> {
        self.thread.join().ok().map(|witness| witness.finish(Rung::Ptrace))
    }
}

/// Attaches, and stops the process so that it can be followed from call to call.
fn seize(pid: i32) -> io::Result<()> {
    ask(libc::PTRACE_SEIZE, pid, 0, OPTIONS as usize)?;
    ask(libc::PTRACE_INTERRUPT, pid, 0, 0).map(drop)
}

/// Asks for something to be done with a thread that is traced, or is to be.
///
/// # Errors
///
/// What the system says; most often that the thread is gone.
pub(super) fn ask(request: c_uint, pid: i32, address: usize, data: usize) -> io::Result<c_long> {
    // SAFETY: requests made through here take numbers, or write into a buffer of the caller as long as it says.
    let answer = unsafe { libc::ptrace(request, pid, address, data) };
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// Returns whether a signal stops whoever gets it.
pub(super) fn is_stop(signal: c_int) -> bool {
    matches!(signal, libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU)
}

struct Trace<'t, 'w> {
    ways: Vec<Calls>,
    witness: &'t mut Witness<'w>,
    /// What each thread is about to do, between the entry and the exit of its call.
    calls: BTreeMap<i32, (Call, Seen)>,
}

/// Waits until something is to be said of a thread that this one traces; returns its number and its status, or `None` if
/// there is none left.
pub(super) fn next_traced() -> Option<(i32, c_int)> {
    loop {
        let mut status: c_int = 0;
        // SAFETY: the status is written into a variable of this function.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
        if pid != -1 {
            return Some((pid, status));
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return None;
        }
    }
}

/// Returns what is to be said of a thread that this one traces; `None` if that is nothing yet.
///
/// # Errors
///
/// What the system says if there is no such thread left.
pub(super) fn traced_now() -> io::Result<Option<(i32, c_int)>> {
    let mut status: c_int = 0;
    // SAFETY: the status is written into a variable of this function.
    match unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD | libc::WNOHANG) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Some((pid, status))),
    }
}

impl Trace<'_, '_> {
    fn follow(mut self) {
        while let Some((pid, status)) = next_traced() {
            if libc::WIFSTOPPED(status) {
                self.stopped(pid, libc::WSTOPSIG(status), status >> 16);
            } else {
                self.calls.remove(&pid);
            }
        }
    }

    /// Lets a stopped thread go on. A failure means that it has been killed, which the next wait tells.
    fn stopped(&mut self, pid: i32, signal: c_int, event: c_int) {
        let mut pass_on = 0;
        match (event, signal) {
            (0, SYSCALL_STOP) => self.at_call(pid),
            (0, _) => pass_on = signal,
            (EVENT_STOP, signal) if is_stop(signal) => {
                // It has been stopped by a signal and stays so until the next.
                let _ = ask(libc::PTRACE_LISTEN, pid, 0, 0);
                return;
            }
            (libc::PTRACE_EVENT_EXEC, _) => self.executed(pid),
            _ => {}
        }
        let _ = ask(libc::PTRACE_SYSCALL, pid, 0, usize::try_from(pass_on).unwrap_or_default());
    }

    /// A thread that executes takes over the number of its process.
    fn executed(&mut self, pid: i32) {
        let mut former: libc::c_ulong = 0;
        if ask(libc::PTRACE_GETEVENTMSG, pid, 0, &raw mut former as usize).is_ok()
            && let Some(begun) = i32::try_from(former).ok().and_then(|former| self.calls.remove(&former))
        {
            self.calls.insert(pid, begun);
        }
    }

    fn at_call(&mut self, pid: i32) {
        // As `struct ptrace_syscall_info`: kind and architecture, two addresses, then the number or answer, and the arguments.
        let mut info = [0_u64; 11];
        let length = size_of_val(&info);
        if ask(GET_SYSCALL_INFO, pid, length, info.as_mut_ptr() as usize).is_err() {
            return;
        }
        match info[0].to_ne_bytes()[0] {
            1 => self.enters(pid, &info),
            2 => self.leaves(pid, info[3].cast_signed()),
            _ => {}
        }
    }

    fn enters(&mut self, pid: i32, info: &[u64; 11]) {
        let [_, _, _, _, architecture @ ..] = info[0].to_ne_bytes();
        let architecture = u32::from_ne_bytes(architecture);
        let Some(way) = self.ways.iter().find(|way| way.is(architecture)) else { return };
        let mut arguments = [0; 6];
        arguments.copy_from_slice(&info[4..10]);
        let deed = c_long::try_from(info[3]).ok().and_then(|number| way.deed_of(number, &arguments));
        let Some(deed) = deed else { return };
        let call = Call { pid, deed, arguments };
        let seen = self.witness.look(&call, &Memory::new(pid, way.is_short()));
        if seen.answer != Answer::Go && skip(pid).is_err() {
            // It will find what it was not to find.
            self.witness.gap(Gap::Unreadable);
        }
        self.calls.insert(pid, (call, seen));
    }

    fn leaves(&mut self, pid: i32, answer: i64) {
        let Some((call, seen)) = self.calls.remove(&pid) else { return };
        if let Answer::Refuse(error) = seen.answer {
            let _ = answer_with(pid, error);
        }
        // Between these two the kernel says what went wrong; above, that the call will be made again.
        let is_refused = (-4095..0).contains(&answer);
        self.witness.note(&call, if is_refused { seen.failed() } else { seen });
    }
}

/// Makes the kernel forget the call that a thread is about to make.
#[cfg(target_arch = "x86_64")]
fn skip(pid: i32) -> io::Result<()> {
    change(pid, |registers| registers.orig_rax = u64::MAX)
}

/// Makes the call that was forgotten answer with this error.
#[cfg(target_arch = "x86_64")]
fn answer_with(pid: i32, error: i32) -> io::Result<()> {
    change(pid, |registers| registers.rax = i64::from(-error).cast_unsigned())
}

/// Makes the kernel forget the call that a thread is about to make.
#[cfg(target_arch = "aarch64")]
fn skip(pid: i32) -> io::Result<()> {
    const NT_ARM_SYSTEM_CALL: usize = 0x404;
    let mut number: c_int = -1;
    let part = libc::iovec { iov_base: (&raw mut number).cast(), iov_len: size_of::<c_int>() };
    ask(libc::PTRACE_SETREGSET, pid, NT_ARM_SYSTEM_CALL, &raw const part as usize).map(drop)
}

/// Makes the call that was forgotten answer with this error.
#[cfg(target_arch = "aarch64")]
fn answer_with(pid: i32, error: i32) -> io::Result<()> {
    change(pid, |registers| registers.regs[0] = i64::from(-error).cast_unsigned())
}

fn change(pid: i32, with: impl FnOnce(&mut libc::user_regs_struct)) -> io::Result<()> {
    const NT_PRSTATUS: usize = 1;
    // SAFETY: these are numbers, of which all are valid.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    let part =
        libc::iovec { iov_base: ptr::from_mut(&mut registers).cast(), iov_len: size_of::<libc::user_regs_struct>() };
    ask(libc::PTRACE_GETREGSET, pid, NT_PRSTATUS, &raw const part as usize)?;
    with(&mut registers);
    let part =
        libc::iovec { iov_base: ptr::from_mut(&mut registers).cast(), iov_len: size_of::<libc::user_regs_struct>() };
    ask(libc::PTRACE_SETREGSET, pid, NT_PRSTATUS, &raw const part as usize).map(drop)
}
