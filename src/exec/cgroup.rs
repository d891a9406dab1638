//! A bound on the memory of a job, kept by the kernel where it lets us make a control group.
//!
//! Both versions of control groups are tried, the unified one first. Nothing
//! here needs a privilege of its own: whoever may make a directory beside its
//! own group (root, or a user to whom the group was delegated) gets the bound, and
//! everybody else is told that there is none.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;

/// How often, and after which pause, a group whose processes are just ending is removed again.
const REMOVALS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(5);

/// Told apart from other groups of this process.
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A bound on memory that holds for the processes added to it and for all that they start; gone when this is dropped.
#[derive(Debug)]
pub struct Limit {
    group: PathBuf,
    version: Version,
    /// Whether every process could be added.
    holds: AtomicBool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Version {
    One,
    Two,
}

impl Limit {
    /// Makes a bound of `bytes`, in whole pages, for memory and swap together.
    ///
    /// # Errors
    ///
    /// What the system says if this process may make no group with such a bound.
    pub fn new(bytes: u64) -> io::Result<Self> {
        let mut refusal = io::Error::new(io::ErrorKind::Unsupported, "there is no control group for memory here");
        for (version, parent) in parents() {
            match Self::below(&parent, version, bytes) {
                Ok(limit) => return Ok(limit),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    fn below(parent: &Path, version: Version, bytes: u64) -> io::Result<Self> {
        let name = format!("pv-{}-{}", process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let group = parent.join(name);
        fs::create_dir(&group)?;
        // From here on dropping it removes the group.
        let limit = Self { group, version, holds: AtomicBool::new(true) };
        match version {
            Version::Two => {
                if !limit.file("memory.max").exists() {
                    return Err(io::Error::new(io::ErrorKind::Unsupported, "memory is not delegated to this group"));
                }
                limit.write("memory.max", &bytes.to_string())?;
                // Without swap accounting these do not exist, and the bound holds for memory alone.
                drop(limit.write("memory.swap.max", "0"));
                drop(limit.write("memory.oom.group", "1"));
            }
            Version::One => {
                limit.write("memory.limit_in_bytes", &bytes.to_string())?;
                drop(limit.write("memory.memsw.limit_in_bytes", &bytes.to_string()));
            }
        }
        Ok(limit)
    }

    /// Puts a process under the bound, and with it everything that it starts from now on. One that has ended is no error.
    ///
    /// # Errors
    ///
    /// What the system says if it may not be moved; [`Limit::holds`] is `false` from then on.
    pub fn add(&self, pid: i32) -> io::Result<()> {
        match self.write("cgroup.procs", &pid.to_string()) {
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(()),
            Err(error) => {
                self.holds.store(false, Ordering::Relaxed);
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Returns whether everything that was added is under the bound.
    pub fn holds(&self) -> bool {
        self.holds.load(Ordering::Relaxed)
    }

    /// Returns whether the kernel had to end a process because the bound was reached.
    pub fn was_exceeded(&self) -> bool {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        let text = fs::read_to_string(self.file(file)).unwrap_or_default();
        text.lines().filter_map(|line| line.strip_prefix("oom_kill ")).any(|count| count.trim() != "0")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.group.join(name)
    }

    #[expect(clippy::disallowed_methods, reason = "a setting of the kernel is no file that could be left half-written")]
    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        fs::write(self.file(name), text)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        for _ in 0..REMOVALS {
            match fs::remove_dir(&self.group) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => thread::sleep(PAUSE),
                // An empty group that stays takes nothing from anybody.
                _ => return,
            }
        }
    }
}

/// Returns the groups below which one may be made, the likeliest first.
fn parents() -> Vec<(Version, PathBuf)> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut parents = Vec::new();
    for version in [Version::Two, Version::One] {
        let Some((root, mount)) = mounts.lines().find_map(|line| mount_of(line, version)) else { continue };
        let Some(group) = own.lines().find_map(|line| group_of(line, version)) else { continue };
        // The root of the mount may itself lie deep in the hierarchy, and then our group's path begins with it.
        let inside = group.strip_prefix(root.trim_end_matches('/')).unwrap_or(group);
        let group = Path::new(&mount).join(inside.trim_start_matches('/'));
        // A group that has processes passes no memory on to groups below it; one beside it may.
        let beside =
            (version == Version::Two && group != Path::new(&mount)).then(|| group.parent().map(Path::to_owned));
        parents.push((version, group));
        parents.extend(beside.flatten().map(|parent| (version, parent)));
    }
    parents
}

/// Returns root and place of the mount that a line of `mountinfo` tells of, if it is the one for memory.
fn mount_of(line: &str, version: Version) -> Option<(String, String)> {
    let (fields, source) = line.split_once(" - ")?;
    let mut fields = fields.split(' ').skip(3);
    let (root, place) = (fields.next()?, fields.next()?);
    let mut source = source.split(' ');
    let is_it = match version {
        Version::Two => source.next()? == "cgroup2",
        Version::One => source.next()? == "cgroup" && source.nth(1)?.split(',').any(|option| option == "memory"),
    };
    is_it.then(|| (root.to_owned(), place.to_owned()))
}

/// Returns our own group, if a line of `/proc/self/cgroup` tells the one for memory.
fn group_of(line: &str, version: Version) -> Option<&str> {
    let mut fields = line.splitn(3, ':');
    let (number, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
    let is_it = match version {
        Version::Two => number == "0" && controllers.is_empty(),
        Version::One => controllers.split(',').any(|controller| controller == "memory"),
    };
    is_it.then_some(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_for_memory_is_found_in_both_versions() {
        let one = "34 30 0:29 /docker/abc /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory";
        let other = "35 30 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct";
        let two = "36 30 0:31 / /sys/fs/cgroup/unified rw,relatime - cgroup2 none rw";
        let place = |root: &str, place: &str| Some((root.to_owned(), place.to_owned()));
        assert_eq!(mount_of(one, Version::One), place("/docker/abc", "/sys/fs/cgroup/memory"));
        assert_eq!(mount_of(other, Version::One), None);
        assert_eq!(mount_of(one, Version::Two), None);
        assert_eq!(mount_of(two, Version::Two), place("/", "/sys/fs/cgroup/unified"));
        assert_eq!(group_of("4:cpu,memory:/a:b", Version::One), Some("/a:b"));
        assert_eq!(group_of("0::/user.slice", Version::Two), Some("/user.slice"));
        assert_eq!(group_of("1:name=systemd:/", Version::Two), None);
    }
}
