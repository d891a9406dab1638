//! Remotes on other machines: over a plain pipe, and over a real `sshd` on this one.

pub(crate) mod contract;
mod pipe;
mod serve;
mod sshd;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pv::remote::{Body, Directory, Programs, Ssh};

/// In the place of `ssh`: forgets where to go, notes its number, and becomes what was to be started there.
const STAY_HERE: &str = "while test $# -gt 1; do shift; done; echo $$ >> \"$NOTES\"; exec sh -c \"exec $1\"";

/// A directory that is served over a pipe.
struct Pipe {
    root: PathBuf,
    /// Removes all of it in the end; none if that is another's business.
    _scratch: Option<tempfile::TempDir>,
}

impl Pipe {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let pipe = Self::below(scratch.path());
        Self { _scratch: Some(scratch), ..pipe }
    }

    /// Returns one that another process has made.
    fn below(root: &Path) -> Self {
        lay(root, "stay-here", STAY_HERE);
        Self { root: root.to_owned(), _scratch: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Returns the directory as another machine sees it.
    fn ssh(&self) -> Ssh {
        self.ssh_to(self.path("remote").to_str().unwrap())
    }

    fn ssh_to(&self, path: &str) -> Ssh {
        let (notes, script) = (self.path("notes"), self.path("stay-here"));
        let ssh = format!("NOTES='{}' sh '{}'", notes.display(), script.display());
        let programs = Programs { ssh: Some(ssh), pv: program() };
        Ssh::connect_by(programs, "ada@host".to_owned(), Some(22), path.to_owned())
    }

    /// Returns the directory as this machine sees it.
    fn directory(&self) -> Directory {
        Directory::new(self.path("remote"))
    }

    /// Returns the numbers of the servers that were started, the newest last.
    fn servers(&self) -> Vec<u32> {
        let notes = std::fs::read_to_string(self.path("notes")).unwrap_or_default();
        notes.lines().map(|line| line.parse().unwrap()).collect()
    }

    /// Waits until no server is left.
    fn wait_for_the_end(&self) {
        for server in self.servers() {
            wait_until("the end of the server", || !is_alive(server));
        }
    }

    /// Returns the names of files that were begun and are no files of the remote.
    fn begun(&self) -> Vec<String> {
        let all = walkdir::WalkDir::new(self.path("remote")).into_iter().flatten();
        let names = all.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with('.')).collect()
    }
}

/// Returns the program under test as a word of a shell.
fn program() -> String {
    format!("'{}'", env!("CARGO_BIN_EXE_pv"))
}

/// Waits until `done`; says what it waited for in vain.
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("waited in vain for: {what}");
}

/// Returns whether a process does anything. One that ended counts as dead before somebody asks how.
fn is_alive(process: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z') && !line.contains('X'))
}

fn signal(signal: &str, whom: &str) {
    let status = Command::new("kill").args([signal, "--", whom]).status().unwrap();
    assert!(status.success(), "kill {signal} {whom}");
}

/// Many bytes, no two stretches of which are alike, made as they are read.
struct Long {
    bytes: u64,
}

impl Body for Long {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn reader(&self) -> Box<dyn Read + Send + '_> {
        Box::new(LongReader { at: 0, end: self.bytes })
    }
}

struct LongReader {
    at: u64,
    end: u64,
}

impl Read for LongReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut count = 0;
        for byte in buffer {
            if self.at == self.end {
                break;
            }
            *byte = byte_at(self.at);
            (self.at, count) = (self.at + 1, count + 1);
        }
        Ok(count)
    }
}

fn byte_at(at: u64) -> u8 {
    let mixed = (at ^ (at >> 12)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed.to_le_bytes()[6]
}

fn long(bytes: u64) -> Vec<u8> {
    (0..bytes).map(byte_at).collect()
}

/// A body in the middle of which something happens, so many times at most.
struct Eventful<F> {
    body: Long,
    at: u64,
    times: AtomicUsize,
    event: F,
}

impl<F: Fn() + Sync> Eventful<F> {
    fn new(bytes: u64, at: u64, times: usize, event: F) -> Self {
        Self { body: Long { bytes }, at, times: AtomicUsize::new(times), event }
    }
}

impl<F: Fn() + Sync> Body for Eventful<F> {
    fn bytes(&self) -> u64 {
        self.body.bytes
    }

    fn reader(&self) -> Box<dyn Read + Send + '_> {
        Box::new(EventfulReader { reader: self.body.reader(), passed: 0, body: self })
    }
}

struct EventfulReader<'a, F> {
    reader: Box<dyn Read + Send + 'a>,
    passed: u64,
    body: &'a Eventful<F>,
}

impl<F: Fn() + Sync> Read for EventfulReader<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.reader.read(buffer)? as u64;
        let is_now = self.passed <= self.body.at && self.body.at < self.passed + count;
        self.passed += count;
        let take = |left: usize| left.checked_sub(1);
        if is_now && self.body.times.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
            (self.body.event)();
        }
        Ok(usize::try_from(count).unwrap())
    }
}

/// Returns the most memory that a process had at once, in bytes.
fn peak_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

/// Writes the files that a script or a setting is made of.
fn lay(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path
}
