//! Why commands cannot be isolated here: what the system said, understood.
//!
//! The decision is a pure function of where making a world stopped, the
//! system's error, and what the system says of itself.

use std::fmt;
use std::io;

/// Why a command cannot be isolated here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Obstacle {
    /// What is in the way.
    pub cause: Cause,
    /// What the system said.
    said: String,
}

/// What is in the way of isolating a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// Only Linux has what it takes.
    System,
    /// The kernel is built without namespaces for users.
    Kernel,
    /// A setting of the system, by its name, forbids namespaces for users with this value.
    Setting(&'static str, u64),
    /// There are as many namespaces as the system allows, or they are nested too deep.
    UsedUp,
    /// This process is watched by a filter of system calls that forbids it, as in a container.
    Filter,
    /// The system does not permit it, and does not say why.
    Forbidden,
    /// Namespaces can be had, but no overlay in the directory where jobs run.
    Overlay,
    /// Something else.
    Other,
}

/// Settings that forbid namespaces for users, and with which value.
const SETTINGS: [(&str, u64); 3] = [
    ("user.max_user_namespaces", 0),
    ("kernel.unprivileged_userns_clone", 0),
    ("kernel.apparmor_restrict_unprivileged_userns", 1),
];

/// Where making a world stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stopped {
    /// When namespaces were made or their users were given numbers.
    Namespaces,
    /// When the view of the file system was made.
    Mounts,
    /// When the overlay was laid.
    Overlay,
    /// Anywhere else.
    Elsewhere,
}

impl Obstacle {
    /// Returns what stood in the way at `stopped`. Costs a few small reads of what the system says of itself.
    pub(super) fn new(stopped: Stopped, error: &io::Error) -> Self {
        Self { cause: cause(stopped, error, &setting, is_filtered()), said: error.to_string() }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            Cause::System => f.write_str("only Linux has namespaces"),
            Cause::Kernel => f.write_str("this kernel has no user namespaces"),
            Cause::Setting(name, value) => write!(f, "user namespaces are switched off, `{name}` being {value}"),
            Cause::UsedUp => f.write_str("there may be no more user namespaces, or none nested as deep"),
            Cause::Filter => f.write_str("a filter of system calls, such as that of a container, forbids namespaces"),
            Cause::Forbidden => f.write_str("the system does not permit namespaces"),
            Cause::Overlay => f.write_str("no overlay can be mounted in the directory where steps run"),
            Cause::Other => f.write_str("namespaces cannot be made"),
        }?;
        write!(f, " ({})", self.said)
    }
}

fn cause(stopped: Stopped, error: &io::Error, setting: &dyn Fn(&str) -> Option<u64>, is_filtered: bool) -> Cause {
    use io::ErrorKind;

    let forbidding = || SETTINGS.into_iter().find(|(name, value)| setting(name) == Some(*value));
    let is_refused = error.kind() == ErrorKind::PermissionDenied;
    match (stopped, error.kind()) {
        (_, ErrorKind::Unsupported) if cfg!(not(target_os = "linux")) => Cause::System,
        (Stopped::Elsewhere, _) => Cause::Other,
        (Stopped::Overlay, _) if !is_refused => Cause::Overlay,
        // A full disk is told by the same error, but writes nothing here.
        (Stopped::Namespaces, ErrorKind::StorageFull) => {
            forbidding().map_or(Cause::UsedUp, |(name, value)| Cause::Setting(name, value))
        }
        (Stopped::Namespaces, ErrorKind::InvalidInput) => Cause::Kernel,
        (_, ErrorKind::PermissionDenied) => match forbidding() {
            Some((name, value)) => Cause::Setting(name, value),
            None if is_filtered => Cause::Filter,
            None => Cause::Forbidden,
        },
        // Some filters claim that there is no such call.
        (Stopped::Namespaces, ErrorKind::Unsupported) if is_filtered => Cause::Filter,
        _ => Cause::Other,
    }
}

/// Returns the value of a setting of the system, by its name; `None` if it has none of that name.
fn setting(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
    text.trim().parse().ok()
}

/// Returns whether this process is subject to a filter of system calls.
fn is_filtered() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::Stopped::{Elsewhere, Mounts, Namespaces, Overlay};
    use super::*;

    #[test]
    fn what_is_in_the_way_follows_from_where_it_stopped_the_error_and_the_settings() {
        let is = |stopped, errno, settings: &[(&str, u64)], filtered, wanted: Cause| {
            let error = io::Error::from_raw_os_error(errno);
            let setting = |name: &str| settings.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
            assert_eq!(cause(stopped, &error, &setting, filtered), wanted, "{stopped:?} {error} {settings:?}");
        };
        let none = ("user.max_user_namespaces", 0);
        let debian = ("kernel.unprivileged_userns_clone", 0);
        let ubuntu = ("kernel.apparmor_restrict_unprivileged_userns", 1);
        let free = [("user.max_user_namespaces", 15_000), ("kernel.unprivileged_userns_clone", 1)];
        is(Namespaces, libc::ENOSPC, &[none], false, Cause::Setting(none.0, 0));
        is(Namespaces, libc::ENOSPC, &free, false, Cause::UsedUp);
        is(Namespaces, libc::EPERM, &[free[0], debian], true, Cause::Setting(debian.0, 0));
        // There the namespaces are made, and what is done in them is refused.
        is(Mounts, libc::EACCES, &[free[0], ubuntu], false, Cause::Setting(ubuntu.0, 1));
        is(Namespaces, libc::EPERM, &free, true, Cause::Filter);
        is(Namespaces, libc::ENOSYS, &free, true, Cause::Filter);
        is(Namespaces, libc::EPERM, &free, false, Cause::Forbidden);
        is(Mounts, libc::EPERM, &[], false, Cause::Forbidden);
        is(Namespaces, libc::EINVAL, &[], false, Cause::Kernel);
        is(Overlay, libc::EINVAL, &free, true, Cause::Overlay);
        is(Overlay, libc::ENODEV, &[], false, Cause::Overlay);
        is(Overlay, libc::EPERM, &[], true, Cause::Filter);
        is(Elsewhere, libc::EPERM, &[none], true, Cause::Other);
        is(Mounts, libc::EIO, &[], false, Cause::Other);
    }

    #[test]
    fn settings_are_read_by_their_names() {
        assert!(setting("user.max_user_namespaces").is_some());
        assert_eq!(setting("user.no_such_setting"), None);
    }
}
