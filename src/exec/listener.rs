//! The kernel's reports of a job's calls, and the answers to them.
//!
//! A reported call waits until it is answered, so all that it names can be
//! read meanwhile. What is read counts only if the answer arrives: then
//! the process was still waiting, and nobody else had got its number.
//! A thread of its own does nothing else: whoever waits for one thing only is woken soonest.
//! Source: `seccomp_unotify(2)`.

#![expect(unsafe_code, reason = "calls of Linux that have no safe form; each block says why it is sound")]

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;
use std::sync::Arc;
use std::thread::{Builder, Scope, ScopedJoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use super::answers::Answers;
use super::filter::{Asked, Calls, Deed, ways};
use super::line::{self, Line};
use super::memory::Memory;
use super::observation::{Observation, Rung};
use super::witness::{Answer, Call, Seen, Witness};
use crate::host::Stopwatch;

const RECEIVE: libc::Ioctl = 0xc050_2100_u32 as libc::Ioctl;
const SEND: libc::Ioctl = 0xc018_2101_u32 as libc::Ioctl;
const IS_VALID: libc::Ioctl = 0x4008_2102_u32 as libc::Ioctl;
const ADD_DESCRIPTOR: libc::Ioctl = 0x4018_2103_u32 as libc::Ioctl;
const SET_FLAGS: libc::Ioctl = 0x4008_2104_u32 as libc::Ioctl;
/// The descriptor that is added is also the answer.
const AND_SEND: u32 = 2;
/// Wakes the other side on the same processor, which is what it waits for.
const SYNCHRONOUS: u64 = 1;
const CONTINUE: u32 = 1;

/// From this version on the kernel wakes whoever waits for a report when there is nobody left to make one.
const WAKES_AT_THE_END: (u32, u32) = (6, 11);

/// Threads are remembered for no longer than that. No system gives out all its numbers in this time.
const MEMORY_OF_THREADS: Duration = Duration::from_millis(20);

/// As `struct seccomp_notif`.
#[repr(C)]
#[derive(Default)]
struct Report {
    id: u64,
    pid: u32,
    flags: u32,
    number: i32,
    architecture: u32,
    instruction: u64,
    arguments: [u64; 6],
}

/// As `struct seccomp_notif_resp`.
#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

impl Response {
    /// Returns the answer that the kernel is to do what it does.
    fn go_on(id: u64) -> Self {
        Self { id, value: 0, error: 0, flags: CONTINUE }
    }

    /// Returns an answer in place of the kernel's: a number, or an error.
    fn new(id: u64, answer: Result<i64, i32>) -> Self {
        let (value, error) = answer.map_or_else(|error| (0, -error), |value| (value, 0));
        Self { id, value, error, flags: 0 }
    }
}

/// As `struct seccomp_notif_addfd`.
#[repr(C)]
struct Added {
    id: u64,
    flags: u32,
    ours: u32,
    theirs: u32,
    their_flags: u32,
}

/// A thread that answers a job's reports. Dropping it stops it.
pub(super) struct Reporter<'scope> {
    thread: Option<ScopedJoinHandle<'scope, Witness<'scope>>>,
    /// Once this is closed, reports are not waited for any more.
    going: Option<PipeWriter>,
}

impl<'scope> Reporter<'scope> {
    /// Lets a thread answer what is reported at `descriptor`, and `witness` see it.
    ///
    /// `ends_surely` says that no process of the job outlives it; with `answers` it is given what is pinned, and
    /// its connections lead through `line`.
    ///
    /// # Errors
    ///
    /// What the system says if there can be no thread.
    pub(super) fn start(
        descriptor: OwnedFd,
        mut witness: Witness<'scope>,
        ends_surely: bool,
        answers: Option<Answers>,
        line: Option<Arc<Line>>,
        scope: &'scope Scope<'scope, '_>,
    ) -> io::Result<Self> {
        // SAFETY: the call takes its argument by value. Kernels before 6.6 refuse it, which only costs time.
        unsafe { libc::ioctl(descriptor.as_raw_fd(), SET_FLAGS, SYNCHRONOUS) };
        let (stopped, going) = io::pipe()?;
        // Polling costs one more call for each report.
        let polled = (!ends_surely || kernel_version() < WAKES_AT_THE_END).then_some(stopped);
        let listener = Listener { descriptor: Arc::new(descriptor), polled, ways: ways(), answers, line };
        let answer = move || {
            listener.serve(&mut witness);
            witness
        };
        let thread = Builder::new().name("observer".to_owned()).spawn_scoped(scope, answer)?;
        Ok(Self { thread: Some(thread), going: Some(going) })
    }

    /// Returns what was seen of the job, which is over.
    pub(super) fn finish(mut self) -> Option<Observation> {
        self.stop().map(|witness| witness.finish(Rung::Notify))
    }

    fn stop(&mut self) -> Option<Witness<'scope>> {
        drop(self.going.take());
        self.thread.take()?.join().ok()
    }
}

impl Drop for Reporter<'_> {
    fn drop(&mut self) {
        drop(self.stop());
    }
}

/// Returns the first two numbers of the kernel's version; zeros if it has none.
fn kernel_version() -> (u32, u32) {
    let named = rustix::system::uname();
    let mut numbers = named.release().to_str().unwrap_or_default().split(['.', '-']).map(|part| part.parse().ok());
    let mut next = || numbers.next().flatten().unwrap_or_default();
    (next(), next())
}

/// The end at which a job's calls are reported.
struct Listener {
    descriptor: Arc<OwnedFd>,
    /// What is closed when nothing is to be waited for any more; `None` if the kernel tells that by itself.
    polled: Option<PipeReader>,
    ways: Vec<Calls>,
    /// What answers in place of the kernel, if something does.
    answers: Option<Answers>,
    /// Where connections lead, if not to whom the job means.
    line: Option<Arc<Line>>,
}

impl Listener {
    /// Answers reports until nobody is left to make one, or nobody wants them.
    fn serve(&self, witness: &mut Witness<'_>) {
        let mut clock = Stopwatch::start();
        while self.polled.as_ref().is_none_or(|stopped| self.is_there_one(stopped)) {
            let mut report = Report::default();
            // SAFETY: the structure has the length that is part of the call's number, and is zeroed as asked.
            if unsafe { libc::ioctl(self.descriptor.as_raw_fd(), RECEIVE, &raw mut report) } == 0 {
                if clock.elapsed() >= MEMORY_OF_THREADS {
                    witness.forget_threads();
                    clock = Stopwatch::start();
                }
                self.answer(&report, witness);
                continue;
            }
            match io::Error::last_os_error().raw_os_error() {
                Some(libc::EINTR) => {}
                // A process that was killed meanwhile has taken its report back, if it was not the last one.
                Some(libc::ENOENT) if !self.is_over() => {}
                _ => return,
            }
        }
    }

    /// Waits for a report. Returns false if there is none: the job is over, or nobody waits for its end.
    fn is_there_one(&self, stopped: &PipeReader) -> bool {
        loop {
            let polled = |descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN);
            let mut both = [polled(self.descriptor.as_fd()), polled(stopped.as_fd())];
            match rustix::event::poll(&mut both, None) {
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
                // Whoever is left over is answered for as long as it is waited for.
                Ok(_) => return both[0].revents().contains(PollFlags::IN) && both[1].revents().is_empty(),
            }
        }
    }

    /// Returns whether nobody is left who could report.
    fn is_over(&self) -> bool {
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut polled = [PollFd::from_borrowed_fd(self.descriptor.as_fd(), PollFlags::IN)];
        rustix::event::poll(&mut polled, Some(&now)).is_ok() && polled[0].revents().contains(PollFlags::HUP)
    }

    /// Lets `witness` see a report, and answers it.
    fn answer(&self, report: &Report, witness: &mut Witness<'_>) {
        if let Some(answer) = self.asked(report) {
            // A failure means that whoever waited for it has been killed.
            self.send(&Response::new(report.id, answer));
            return;
        }
        if self.asks(report) {
            return;
        }
        let (mut seen, mut answer) = (None, Answer::Go);
        if let Some((call, memory)) = self.understand(report) {
            let what = witness.look(&call, &memory);
            if let Some(answers) = self.answers.as_ref().filter(|_| what.answer == Answer::Go) {
                answers.stamp(call.pid, &what);
            }
            if self.give_file(report, &call, &memory, &what) {
                witness.note(&call, what);
                return;
            }
            if let Some(listed) = self.list(report, &call, &memory, &what) {
                if self.send(&Response::new(report.id, listed)) {
                    witness.note(&call, what);
                }
                return;
            }
            if self.connects(report, &call, &what) {
                witness.note(&call, what);
                return;
            }
            answer = what.answer;
            seen = Some((call, what));
        }
        let response = match answer {
            Answer::Go => Response::go_on(report.id),
            Answer::Refuse(error) => Response::new(report.id, Err(error)),
        };
        let sent = self.send(&response);
        if let Some((call, what)) = seen.filter(|_| sent) {
            witness.note(&call, what);
        }
    }

    fn send(&self, response: &Response) -> bool {
        send(&self.descriptor, response)
    }

    /// Lets a connection lead elsewhere than the job means, if it has such a line. Returns whether it will be answered by that.
    fn connects(&self, report: &Report, call: &Call, what: &Seen) -> bool {
        let (Some(line), Some(contact), Answer::Go) = (&self.line, what.contact(), what.answer) else { return false };
        if call.deed != Deed::Connect {
            line.passes_by(contact);
            return false;
        }
        let id = report.id;
        // SAFETY: the call reads one number.
        let is_waiting = || unsafe { libc::ioctl(self.descriptor.as_raw_fd(), IS_VALID, &raw const id) == 0 };
        line.connects(call.pid, call.arguments[0], contact, is_waiting, self.later(id))
    }

    /// Lets the line answer what is asked of one of its sockets. Returns whether it does.
    fn asks(&self, report: &Report) -> bool {
        let Some(line) = &self.line else { return false };
        let way = self.ways.iter().find(|way| way.is(report.architecture));
        let asked = way.and_then(|way| Some((way.asked(report.number.into())?, way.is_short())));
        let (Some((Asked::Network(asked), is_short)), Ok(thread)) = (asked, i32::try_from(report.pid)) else {
            return false;
        };
        line.asks(asked, thread, report.arguments, Memory::new(thread, is_short), self.later(report.id))
    }

    /// Returns what answers a report, from whatever thread.
    fn later(&self, id: u64) -> impl FnOnce(line::Answer) + Send + use<> {
        let descriptor = Arc::clone(&self.descriptor);
        move |answer| {
            let response = answer.map_or_else(|| Response::go_on(id), |answer| Response::new(id, answer));
            // A failure means that whoever waited for it has been killed.
            send(&descriptor, &response);
        }
    }

    /// Returns the answer to what a call asks for, if it is not the system's to give.
    fn asked(&self, report: &Report) -> Option<Result<i64, i32>> {
        let answers = self.answers.as_ref()?;
        let way = self.ways.iter().find(|way| way.is(report.architecture))?;
        let asked = way.asked(report.number.into())?;
        let pid = i32::try_from(report.pid).ok()?;
        answers.answer(asked, pid, &report.arguments, &Memory::new(pid, way.is_short()))
    }

    /// Returns the answer to the listing of a directory, if it is not the system's to give.
    fn list(&self, report: &Report, call: &Call, memory: &Memory, what: &Seen) -> Option<Result<i64, i32>> {
        let is_ours = call.deed == Deed::List && what.answer == Answer::Go && !memory.is_short();
        let answers = self.answers.as_ref().filter(|_| is_ours && i64::from(report.number) == libc::SYS_getdents64)?;
        answers.list(call.pid, &call.arguments, memory)
    }

    /// Answers the opening of a file in whose place the job gets another. Returns whether that was done.
    fn give_file(&self, report: &Report, call: &Call, memory: &Memory, what: &Seen) -> bool {
        let given = self.answers.as_ref().filter(|_| what.answer == Answer::Go);
        let Some((answers, given)) = given.and_then(|answers| Some((answers, answers.file(call.pid, what)?))) else {
            return false;
        };
        let flags = match call.deed {
            Deed::Open { flags, .. } => call.arguments[usize::from(flags)],
            Deed::OpenHow => memory.long(call.arguments[2]).unwrap_or_default(),
            _ => return false,
        };
        let given = given.is_ok_and(|file| self.add(report.id, &file, flags));
        if !given {
            answers.escapes();
        }
        given
    }

    /// Gives a copy of a descriptor to whoever waits, as the answer to an opening with these flags.
    fn add(&self, id: u64, file: &OwnedFd, flags: u64) -> bool {
        let close_on_exec = libc::O_CLOEXEC.unsigned_abs();
        let their_flags = if flags & u64::from(close_on_exec) == 0 { 0 } else { close_on_exec };
        let added = Added { id, flags: AND_SEND, ours: file.as_raw_fd().unsigned_abs(), theirs: 0, their_flags };
        // SAFETY: the structure has the length that is part of the call's number.
        unsafe { libc::ioctl(self.descriptor.as_raw_fd(), ADD_DESCRIPTOR, &raw const added) >= 0 }
    }

    fn understand(&self, report: &Report) -> Option<(Call, Memory)> {
        let way = self.ways.iter().find(|way| way.is(report.architecture))?;
        let deed: Deed = way.deed(report.number.into())?;
        let pid = i32::try_from(report.pid).ok()?;
        Some((Call { pid, deed, arguments: report.arguments }, Memory::new(pid, way.is_short())))
    }
}

fn send(descriptor: &OwnedFd, response: &Response) -> bool {
    // SAFETY: the structure has the length that is part of the call's number.
    unsafe { libc::ioctl(descriptor.as_raw_fd(), SEND, ptr::from_ref(response)) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::FromRawFd;
    use std::sync::mpsc;

    /// Puts a filter on this thread that lets everything through, and returns where it would report.
    fn listen() -> io::Result<OwnedFd> {
        let mut everything = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 };
        let program = libc::sock_fprog { len: 1, filter: &raw mut everything };
        // SAFETY: the first call takes numbers, and the second reads a program of one instruction.
        let descriptor = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
            libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program)
        };
        let descriptor = i32::try_from(descriptor).ok().filter(|descriptor| *descriptor >= 0);
        // SAFETY: the kernel has just given it, to nobody else.
        descriptor.map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) }).ok_or_else(io::Error::last_os_error)
    }

    /// Runs `with` while a thread lives that could report at the descriptor, which `with` gets.
    fn beside_a_reporting_thread(with: impl FnOnce(OwnedFd, mpsc::Sender<()>)) {
        let (tell, told) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let living = std::thread::spawn(move || {
            tell.send(listen()).unwrap();
            ended.recv().unwrap_err();
        });
        match told.recv().unwrap() {
            Ok(descriptor) => with(descriptor, end),
            Err(error) => {
                eprintln!("NOT TESTED: the end of a listener, for there is one already: {error}");
                drop(end);
            }
        }
        living.join().unwrap();
    }

    #[test]
    fn who_outlives_the_job_is_not_waited_for() {
        beside_a_reporting_thread(|descriptor, end| {
            std::thread::scope(|scope| {
                let reporter =
                    Reporter::start(descriptor, Witness::new(false, None), false, None, None, scope).unwrap();
                assert_eq!(reporter.finish().unwrap().rung, Rung::Notify);
            });
            drop(end);
        });
    }

    #[test]
    fn when_nobody_is_left_to_report_the_observer_ends_by_itself() {
        for ends_surely in [true, false] {
            beside_a_reporting_thread(|descriptor, end| {
                std::thread::scope(|scope| {
                    let mut reporter =
                        Reporter::start(descriptor, Witness::new(true, None), ends_surely, None, None, scope).unwrap();
                    drop(end);
                    // It has not been told to stop.
                    let thread = reporter.thread.take().unwrap();
                    assert_eq!(thread.join().unwrap().finish(Rung::Notify).rung, Rung::Notify);
                });
            });
        }
    }

    #[test]
    fn the_kernel_has_a_version() {
        assert!(kernel_version() > (4, 0));
    }
}
