//! What a reader must know about the machine to make sense of a time.

use std::path::Path;
use std::process::Command;

use super::scratch::target;

/// Returns the day in UTC: `2026-01-31`.
pub(crate) fn today() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d").to_string()
}

/// Returns what the machine is: processors, memory, kernel, file system. What cannot be found is left out.
pub(crate) fn machine() -> Vec<String> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let model = field("/proc/cpuinfo", "model name").map_or(String::new(), |model| format!(" ({model})"));
    let memory = field("/proc/meminfo", "MemTotal").and_then(|kib| kib.split(' ').next()?.parse::<u64>().ok());
    let system = first_line(Command::new("uname").arg("-sr"));
    [
        Some(format!("{processors} processors{model}")),
        memory.map(|kib| format!("{:.0} GiB of memory", kib.div_ceil(1 << 20))),
        file_system(&target()),
        system,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Returns how many programs wanted a processor in the last minute, on average; none where that is not to be had.
pub(crate) fn load() -> Option<String> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next().map(str::to_owned)
}

/// Returns what is measured: its version, and the commit where it was built from one.
pub(crate) fn measured_version() -> String {
    let commit = first_line(Command::new("git").args([
        "-C",
        env!("CARGO_MANIFEST_DIR"),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
    ]));
    let commit = commit.map_or_else(String::new, |commit| format!(", commit {commit}"));
    format!("pv {}{commit}", env!("CARGO_PKG_VERSION"))
}

/// Returns the first line that a program prints; none if it is not there or does not succeed.
pub(crate) fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout);
    // One of them sets its name between stars.
    let line = text.lines().next()?.trim_matches([' ', '*']);
    (!line.is_empty()).then(|| line.to_owned())
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let (_, value) = text.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.trim() == name)?;
    Some(value.trim().to_owned())
}

/// The type of the file system that holds a path: that of the deepest mount above it.
fn file_system(path: &Path) -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let holds = |line: &str| {
        let (mount, kind) = line.split_once(" - ")?;
        let place = Path::new(mount.split(' ').nth(4)?);
        path.starts_with(place).then(|| (place.components().count(), kind.split(' ').next().map(str::to_owned)))
    };
    mounts.lines().filter_map(holds).max_by_key(|(depth, _)| *depth)?.1
}
