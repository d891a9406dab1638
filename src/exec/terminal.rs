//! The terminal of the user, lent to a command.
//!
//! A terminal belongs to one process group of its session at a time: that one is stopped by Ctrl-Z and ended by
//! Ctrl-C, and others are stopped when they read from it. The command has a
//! group of its own, as a job of a shell has, because in its table of processes ours cannot be named.
//!
//! Sources: `credentials(7)`, `tcsetpgrp(3)`, "Implementing a Job Control Shell" of the GNU C library.

use std::cell::Cell;
use std::fs::File;

use rustix::process::{Pid, getpgrp};
use rustix::termios::{tcgetpgrp, tcsetpgrp};

/// The terminal that this process was started from, if it was.
pub(super) struct Terminal {
    device: Option<File>,
    /// Whether it is lent.
    is_lent: Cell<bool>,
}

impl Terminal {
    /// Returns the terminal of this process; without one nothing is ever lent.
    pub(super) fn own() -> Self {
        let device = File::options().read(true).write(true).open("/dev/tty").ok();
        Self { device, is_lent: Cell::new(false) }
    }

    /// Returns whether there is one at all.
    pub(super) fn is_there(&self) -> bool {
        self.device.is_some()
    }

    /// Lends it to the process group with this number, if it is ours to lend: not where we run in the background.
    pub(super) fn give(&self, group: i32) {
        if let (Some(device), Some(group)) = (&self.device, Pid::from_raw(group))
            && tcgetpgrp(device).is_ok_and(|owner| owner == getpgrp())
        {
            self.is_lent.set(set_owner(device, group));
        }
    }

    /// Takes it back if it is lent, whoever has it now.
    pub(super) fn take_back(&self) {
        if let Some(device) = self.device.as_ref().filter(|_| self.is_lent.replace(false)) {
            set_owner(device, getpgrp());
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.take_back();
    }
}

/// Makes the terminal belong to a group; returns whether the system did.
#[cfg(target_os = "linux")]
fn set_owner(device: &File, group: Pid) -> bool {
    // Whoever does this from the background is stopped, unless the signal cannot reach it.
    let before = super::spawn::block_signals();
    let is_set = tcsetpgrp(device, group).is_ok();
    super::spawn::restore_signals(before);
    is_set
}

#[cfg(not(target_os = "linux"))]
fn set_owner(device: &File, group: Pid) -> bool {
    tcsetpgrp(device, group).is_ok()
}
