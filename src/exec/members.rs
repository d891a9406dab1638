//! The processes of a job, whichever way they are held together.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use super::family::Family;
#[cfg(target_os = "linux")]
use super::spawn::{self, Stage, Started};

/// What became of a job's first process.
pub(super) enum Ended {
    /// The command ended in this way.
    By(ExitStatus),
    /// It was never executed.
    NotExecuted(io::Error),
}

/// The processes of a job. Dropping them ends them.
pub(super) struct Members {
    /// Kept together by what they are seen to have in common; `None` if they have a table of processes of their own.
    family: Option<Family>,
    #[cfg(target_os = "linux")]
    started: Started,
    #[cfg(target_os = "linux")]
    ended: bool,
}

impl Members {
    #[cfg(target_os = "linux")]
    pub(super) fn new(family: Option<Family>, started: Started) -> Self {
        Self { family, started, ended: false }
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn new(family: Family) -> Self {
        Self { family: Some(family) }
    }

    /// Lets the command begin, if nobody has reports of it to answer.
    #[cfg(target_os = "linux")]
    pub(super) fn go(&mut self) {
        self.started.go();
    }

    /// Returns what becomes readable when the first process ends, if the system has such a thing.
    pub(super) fn handle(&self) -> Option<BorrowedFd<'_>> {
        match &self.family {
            Some(family) => family.handle(),
            #[cfg(target_os = "linux")]
            None => Some(self.started.process.as_fd()),
            #[cfg(not(target_os = "linux"))]
            None => None,
        }
    }

    /// Returns whether the first process has ended.
    pub(super) fn first_has_ended(&self) -> bool {
        match &self.family {
            Some(family) => family.first_has_ended(),
            #[cfg(target_os = "linux")]
            None => {
                use rustix::process::{WaitId, WaitIdOptions, waitid};
                let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
                self.ended
                    || waitid(WaitId::PidFd(self.started.process.as_fd()), options).map_or(true, |end| end.is_some())
            }
            #[cfg(not(target_os = "linux"))]
            None => true,
        }
    }

    /// Returns whether the command was stopped, by the user or by the terminal, since this was asked last.
    #[cfg(target_os = "linux")]
    pub(super) fn takes_a_stop(&self) -> bool {
        use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
        if self.family.is_none() {
            return self.started.takes_a_stop();
        }
        let command = Pid::from_raw(self.started.command).map(WaitId::Pid);
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        command.is_some_and(|command| waitid(command, options).is_ok_and(|stop| stop.is_some()))
    }

    /// Returns whether the command was stopped, since this was asked last, and we were not: here we are in one group.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn takes_a_stop(&self) -> bool {
        false
    }

    /// Returns the number of the command and of its group.
    pub(super) fn command(&self) -> i32 {
        #[cfg(target_os = "linux")]
        return self.started.command;
        #[cfg(not(target_os = "linux"))]
        return self.family.as_ref().map_or(0, Family::number);
    }

    /// Asks all of them to end.
    pub(super) fn terminate(&self) {
        match &self.family {
            Some(family) => family.terminate(),
            #[cfg(target_os = "linux")]
            None => {
                // The init passes it on.
                let _ = rustix::process::pidfd_send_signal(&self.started.process, rustix::process::Signal::TERM);
            }
            #[cfg(not(target_os = "linux"))]
            None => {}
        }
    }

    /// Looks who belongs to the job now; returns whether nobody does. Where the kernel keeps them together nobody need look.
    pub(super) fn look(&mut self) -> bool {
        match &mut self.family {
            Some(family) => family.look().is_empty(),
            None => self.first_has_ended(),
        }
    }

    /// Kills all that are left, waits until they are gone, and returns how the first process ended.
    ///
    /// # Errors
    ///
    /// What the system says if it does not tell.
    #[cfg(target_os = "linux")]
    pub(super) fn end(mut self) -> io::Result<Ended> {
        self.ended = true;
        let status = match self.family.take() {
            Some(family) => family.end()?,
            None => {
                spawn::kill_and_wait(self.started.process.as_fd());
                // Without word from the init, it was killed from outside, and the command with it.
                ExitStatus::from_raw(self.started.status().unwrap_or(libc::SIGKILL))
            }
        };
        Ok(match self.started.failure() {
            Some((Stage::Execute, error)) => Ended::NotExecuted(error),
            _ => Ended::By(status),
        })
    }

    /// Kills all that are left, waits until they are gone, and returns how the first process ended.
    ///
    /// # Errors
    ///
    /// What the system says if it does not tell.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn end(self) -> io::Result<Ended> {
        self.family.expect("there is no other way here").end().map(Ended::By)
    }
}

#[cfg(target_os = "linux")]
impl Drop for Members {
    fn drop(&mut self) {
        // What was prepared for the processes must stay until the last of them is gone.
        drop(self.family.take());
        if !self.ended {
            spawn::kill_and_wait(self.started.process.as_fd());
        }
    }
}
