//! The kernel's reports of a job's calls, and the answers to them.
//!
//! A reported call waits until it is answered, so all that it names can be
//! read meanwhile. What is read counts only if the answer arrives: then
//! the process was still waiting, and nobody else had got its number.
//! Source: `seccomp_unotify(2)`.

#![expect(unsafe_code, reason = "calls of Linux that have no safe form; each block says why it is sound")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::filter::{Calls, Deed, ways};
use super::memory::Memory;
use super::witness::{Answer, Call, Witness};

const RECEIVE: libc::Ioctl = 0xc050_2100_u32 as libc::Ioctl;
const SEND: libc::Ioctl = 0xc018_2101_u32 as libc::Ioctl;
const SET_FLAGS: libc::Ioctl = 0x4008_2104_u32 as libc::Ioctl;
/// Wakes the other side on the same processor, which is what it waits for.
const SYNCHRONOUS: u64 = 1;
const CONTINUE: u32 = 1;

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

/// The end at which a job's calls are reported.
pub(super) struct Listener {
    descriptor: OwnedFd,
    ways: Vec<Calls>,
}

impl Listener {
    pub(super) fn new(descriptor: OwnedFd) -> Self {
        // SAFETY: the call takes its argument by value. Kernels before 6.6 refuse it, which only costs time.
        unsafe { libc::ioctl(descriptor.as_raw_fd(), SET_FLAGS, SYNCHRONOUS) };
        Self { descriptor, ways: ways() }
    }

    /// Returns what to poll for reports.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Takes one report, lets `witness` see it, and answers. Returns false if there is none: the job is over.
    pub(super) fn serve(&self, witness: &mut Witness<'_>) -> bool {
        let mut report = Report::default();
        // SAFETY: the structure has the length that is part of the call's number, and is zeroed as asked.
        if unsafe { libc::ioctl(self.descriptor.as_raw_fd(), RECEIVE, &raw mut report) } != 0 {
            // A process that was killed meanwhile has taken its report back.
            return io::Error::last_os_error().raw_os_error() != Some(libc::EBADF);
        }
        let (mut seen, mut answer) = (None, Answer::Go);
        if let Some((call, memory)) = self.understand(&report) {
            let what = witness.look(&call, &memory);
            answer = what.answer;
            seen = Some((call, what));
        }
        let response = match answer {
            Answer::Go => Response { id: report.id, value: 0, error: 0, flags: CONTINUE },
            Answer::Refuse(error) => Response { id: report.id, value: 0, error: -error, flags: 0 },
        };
        // SAFETY: the structure has the length that is part of the call's number.
        let sent = unsafe { libc::ioctl(self.descriptor.as_raw_fd(), SEND, &raw const response) } == 0;
        if let Some((call, what)) = seen.filter(|_| sent) {
            witness.note(&call, what);
        }
        true
    }

    fn understand(&self, report: &Report) -> Option<(Call, Memory)> {
        let way = self.ways.iter().find(|way| way.is(report.architecture))?;
        let deed: Deed = way.deed(report.number.into())?;
        let pid = i32::try_from(report.pid).ok()?;
        Some((Call { pid, deed, arguments: report.arguments }, Memory::new(pid, way.is_short())))
    }
}
