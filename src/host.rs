//! The machine and the moment: clock, environment variables, names, processors.
//!
//! The only room that reads the clock or the environment of the process.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The variable that replaces the clock's time in records, for repeatable tests and demos.
const NOW_VARIABLE: &str = "PV_NOW";

/// A point in time, to the millisecond. Printed as RFC 3339 in UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Time {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub epoch_ms: i64,
}

/// A text that is no point in time.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is not a time such as 2026-01-31T09:30:00Z")]
pub struct NotATime {
    /// What was given.
    pub text: String,
}

impl Time {
    /// Returns the time now, or the one in the variable `PV_NOW` (RFC 3339) if it is set and valid.
    pub fn now() -> Self {
        if let Some(fixed) = variable(NOW_VARIABLE).and_then(|text| text.parse().ok()) {
            return fixed;
        }
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { epoch_ms: i64::try_from(since.as_millis()).unwrap_or(i64::MAX) }
    }

    /// Returns the time in the local time zone, to the minute, for people.
    pub fn local(self) -> String {
        let zone = jiff::tz::TimeZone::system();
        self.timestamp().to_zoned(zone).strftime("%Y-%m-%d %H:%M").to_string()
    }

    fn timestamp(self) -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(self.epoch_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.timestamp().strftime("%Y-%m-%dT%H:%M:%S%.3fZ"))
    }
}

impl FromStr for Time {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        let timestamp: jiff::Timestamp = text.parse().map_err(|_| NotATime { text: text.to_owned() })?;
        Ok(Self { epoch_ms: timestamp.as_millisecond() })
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Measures how long something takes; not moved by `PV_NOW`.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(std::time::Instant);

impl Stopwatch {
    /// Starts measuring.
    pub fn start() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
        Self(std::time::Instant::now())
    }

    /// Returns the time since the start.
    pub fn elapsed(&self) -> std::time::Duration {
        self.0.elapsed()
    }
}

/// Returns between half of `pause` and all of it, another part for each process and moment, so that those who were in each
/// other's way do not meet again.
pub fn jittered(pause: std::time::Duration) -> std::time::Duration {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = (u64::from(std::process::id()) << 32) ^ u64::from(since.subsec_nanos());
    // Neighbouring seeds give numbers that are far apart.
    let part = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
    pause / 2 + (pause / 2).mul_f64(f64::from(u16::try_from(part).unwrap_or_default()) / f64::from(u16::MAX))
}

/// Returns how much processor time this thread has used.
///
/// What tests bound instead of elapsed time: a busy machine does not change it.
#[cfg(test)]
pub(crate) fn processor_time() -> std::time::Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells it");
    let nanoseconds = text.split(' ').next().and_then(|text| text.parse().ok()).expect("the first number");
    std::time::Duration::from_nanos(nanoseconds)
}

/// Returns how much processor time this thread has used since `before`.
#[cfg(test)]
pub(crate) fn processor_time_since(before: std::time::Duration) -> std::time::Duration {
    processor_time().saturating_sub(before)
}

/// Returns an environment variable of this process, if it is set to UTF-8 text.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Returns an environment variable of this process as the system holds it.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub fn variable_os(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Returns all environment variables of this process that have a name in UTF-8.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub fn variables() -> BTreeMap<String, OsString> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect()
}

/// Returns how many processors this process may use.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Returns how much memory the machine has; no bound is known where the system does not tell.
pub fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kibibytes.map_or(u64::MAX, |kibibytes| kibibytes << 10)
}

/// Returns the GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them: those in the variable, else all of the machine.
pub fn gpus() -> Vec<String> {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    if let Some(listed) = std::env::var_os("CUDA_VISIBLE_DEVICES") {
        return listed_gpus(&listed.to_string_lossy());
    }
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let is_gpu = |name: &OsString| {
        let number = name.to_str().and_then(|name| name.strip_prefix("nvidia"));
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let count = entries.filter(|entry| is_gpu(&entry.file_name())).count();
    (0..count).map(|gpu| gpu.to_string()).collect()
}

/// An empty list says that there is none, and so does `-1`: what follows it is not used either.
fn listed_gpus(listed: &str) -> Vec<String> {
    listed.split(',').map(str::trim).take_while(|gpu| !gpu.is_empty() && *gpu != "-1").map(str::to_owned).collect()
}

/// Returns the machine's name.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Returns the user's login name, as the environment tells it.
pub fn user() -> String {
    variable("USER")
        .or_else(|| variable("LOGNAME"))
        .unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}

/// Returns the operating system and the processor architecture: `linux x86_64`.
pub fn platform() -> String {
    format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)
}

/// Returns the kernel's name and release: `Linux 6.1.0`.
pub fn kernel() -> String {
    let uname = rustix::system::uname();
    format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy())
}

/// Returns the directory for things that can be made again: `$XDG_CACHE_HOME/pv`,
/// `$HOME/.cache/pv`, or a directory of the user's own in the system's temporary one.
pub fn cache_directory() -> PathBuf {
    let absolute = |name: &str| variable_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(cache) = absolute("XDG_CACHE_HOME") {
        return cache.join("pv");
    }
    match absolute("HOME") {
        Some(home) => home.join(".cache/pv"),
        None => std::env::temp_dir().join(format!("pv-{}", rustix::process::getuid().as_raw())),
    }
}

/// Returns the directory this process was started in.
///
/// # Errors
///
/// What the system says if it has been removed.
pub fn current_directory() -> std::io::Result<PathBuf> {
    std::env::current_dir()
}

/// Returns the path of the running program, links resolved where the system allows.
pub fn own_program() -> Option<PathBuf> {
    std::env::current_exe().ok()
}

/// Returns the executable file that `name` stands for when `search_path` (as in `PATH`) is searched.
///
/// A name with a `/` is not searched for.
pub fn find_program(name: &str, search_path: &str) -> Option<PathBuf> {
    if name.is_empty() || name.contains('/') {
        return None;
    }
    std::env::split_paths(search_path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_prints_as_it_reads() {
        let time: Time = "2026-01-31T09:30:00.125Z".parse().unwrap();
        assert_eq!(time.to_string(), "2026-01-31T09:30:00.125Z");
        assert_eq!("2026-01-31T10:30:00.125+01:00".parse(), Ok(time));
        assert!("yesterday".parse::<Time>().is_err());
    }

    #[test]
    fn a_pause_with_jitter_is_half_of_it_to_all_of_it() {
        let pause = std::time::Duration::from_millis(100);
        let pauses: Vec<_> = (0..1000).map(|_| jittered(pause)).collect();
        assert!(pauses.iter().all(|some| (pause / 2..=pause).contains(some)));
        assert!(pauses.iter().any(|some| *some != pauses[0]));
    }

    #[test]
    fn gpus_are_those_that_the_variable_lists() {
        assert_eq!(listed_gpus("2, GPU-8f1"), ["2", "GPU-8f1"]);
        assert_eq!(listed_gpus("0,-1,1"), ["0"]);
        assert!(listed_gpus("").is_empty() && listed_gpus("-1").is_empty());
    }

    #[test]
    fn a_program_is_found_on_the_search_path_only() {
        let shell = find_program("sh", "/nowhere:/bin:/usr/bin").unwrap();
        assert!(shell.ends_with("sh"));
        assert_eq!(find_program("/bin/sh", "/bin"), None);
        assert_eq!(find_program("sh", ""), None);
    }
}
