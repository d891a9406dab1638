//! From a job's calls to what it did: whose path is meant, and what came before what.
//!
//! A call is looked at while its process waits, because only then its working
//! directory and descriptors are what they were ([`Witness::look`]), and noted once
//! it is known that it was still waiting ([`Witness::note`]). Whoever is reporting does not matter.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::Permission;
use super::filter::Deed;
use super::memory::Memory;
use super::observation::{Gap, Observation, Rung, Touch};
use super::peers::{self, Peer};

/// More paths of one job than this are not kept, so that a job that makes up names cannot fill the memory.
const PATHS_MAX: usize = 1_000_000;
/// How much of a script is read to find its interpreter, in bytes: what the kernel looks at.
const HEAD_BYTES: usize = 256;

/// One call of a process of the job.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    /// The thread that made it.
    pub(super) pid: i32,
    pub(super) deed: Deed,
    pub(super) arguments: [u64; 6],
}

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// It goes on as if nobody had looked.
    Go,
    /// It fails with this error.
    Refuse(i32),
}

/// What a call was found to do.
pub(super) struct Seen {
    pub(super) answer: Answer,
    facts: Vec<Fact>,
}

enum Fact {
    Read(Vec<u8>),
    Listed(Vec<u8>),
    Examined(Vec<u8>),
    Executed(Vec<u8>),
    /// What was there before is of no account.
    Written(Vec<u8>),
    Talked(Peer),
    Gap(Gap),
    Moves,
}

/// Gathers what a job does.
pub(super) struct Witness<'a> {
    isolated: bool,
    permission: Option<&'a Permission<'a>>,
    touched: BTreeMap<Vec<u8>, Touch>,
    /// What the job made or emptied itself; whatever is in it later is its own.
    own: BTreeSet<Vec<u8>>,
    peers: BTreeMap<String, String>,
    gaps: BTreeSet<Gap>,
    /// The working directory of each thread, as long as nobody can have changed it.
    directories: BTreeMap<i32, Vec<u8>>,
    /// Threads that are on their way to another directory.
    moving: BTreeSet<i32>,
    programs: BTreeMap<i32, String>,
}

impl<'a> Witness<'a> {
    pub(super) fn new(isolated: bool, permission: Option<&'a Permission<'a>>) -> Self {
        Self {
            isolated,
            permission,
            touched: BTreeMap::new(),
            own: BTreeSet::new(),
            peers: BTreeMap::new(),
            gaps: BTreeSet::new(),
            directories: BTreeMap::new(),
            moving: BTreeSet::new(),
            programs: BTreeMap::new(),
        }
    }

    /// Returns everything that was noted.
    pub(super) fn finish(self, rung: Rung) -> Observation {
        let path = |(path, touch)| (PathBuf::from(OsString::from_vec(path)), touch);
        Observation {
            rung,
            isolated: self.isolated,
            touched: self.touched.into_iter().map(path).collect(),
            peers: self.peers,
            gaps: self.gaps,
        }
    }

    /// Returns what the call is about to do. Its process is waiting.
    pub(super) fn look(&mut self, call: &Call, memory: &Memory) -> Seen {
        if self.moving.remove(&call.pid) {
            // It has arrived, and with it every thread that shares its directory.
            self.directories.clear();
        }
        let mut facts = Vec::new();
        self.gather(call, memory, &mut facts);
        let refused = |fact: &Fact| match (fact, self.permission) {
            (Fact::Read(path) | Fact::Listed(path) | Fact::Examined(path) | Fact::Executed(path), Some(may)) => {
                !self.is_own(path) && !may(Path::new(std::ffi::OsStr::from_bytes(path)))
            }
            _ => false,
        };
        let answer = if facts.iter().any(refused) { Answer::Refuse(libc::ENOENT) } else { Answer::Go };
        Seen { answer, facts }
    }

    /// Keeps what was seen of a call.
    pub(super) fn note(&mut self, call: &Call, seen: Seen) {
        for fact in seen.facts {
            match fact {
                Fact::Read(path) => self.reads(call.pid, path, |touch| touch.read = true),
                Fact::Listed(path) => self.reads(call.pid, path, |touch| touch.listed = true),
                Fact::Examined(path) => self.reads(call.pid, path, |touch| touch.examined = true),
                Fact::Executed(path) => {
                    self.programs.remove(&call.pid);
                    self.reads(call.pid, path, |touch| (touch.read, touch.executed) = (true, true));
                }
                Fact::Written(path) => {
                    self.touch(call.pid, path.clone(), |touch| touch.written = true);
                    self.own.insert(path);
                }
                Fact::Talked(peer) => {
                    let by = self.program(call.pid);
                    self.peers.entry(peer.to_string()).or_insert(by);
                }
                Fact::Gap(gap) => drop(self.gaps.insert(gap)),
                Fact::Moves => {
                    self.directories.clear();
                    self.moving.insert(call.pid);
                }
            }
        }
    }

    fn gather(&mut self, call: &Call, memory: &Memory, facts: &mut Vec<Fact>) {
        let place = |index: u8| call.arguments[usize::from(index)];
        let job = peers::Job { pid: call.pid, isolated: self.isolated };
        let mut named = |directory, path, facts: &mut Vec<Fact>| self.named(call, memory, directory, path, facts);
        match call.deed {
            Deed::Open { directory, path, flags } => {
                if let Some(path) = named(directory, path, facts) {
                    opened(path, place(flags), facts);
                }
            }
            Deed::OpenHow => match (named(Some(0), 1, facts), memory.long(place(2))) {
                (Some(path), Some(flags)) => opened(path, flags, facts),
                (_, None) => facts.push(Fact::Gap(Gap::Unreadable)),
                _ => {}
            },
            Deed::Create { path } => {
                let path = named(None, path, facts);
                facts.extend(path.map(Fact::Written));
            }
            Deed::Examine { directory, path } => {
                let path = named(directory, path, facts);
                facts.extend(path.map(Fact::Examined));
            }
            Deed::ReadLink { directory, path } => {
                let path = named(directory, path, facts);
                facts.extend(path.map(Fact::Read));
            }
            Deed::List => facts.extend(descriptor(call.pid, place(0)).map(Fact::Listed)),
            Deed::Execute { directory, path } => {
                if let Some(path) = named(directory, path, facts) {
                    executed(call.pid, path, facts);
                }
            }
            Deed::Write { directory, path } => {
                if let Some(path) = named(directory, path, facts) {
                    // Whether it succeeds depends on what is there.
                    facts.push(Fact::Examined(path.clone()));
                    facts.push(Fact::Written(path));
                }
            }
            Deed::Move { from, to } => {
                if let Some(path) = named(from.0, from.1, facts) {
                    facts.push(Fact::Read(path.clone()));
                    facts.push(Fact::Written(path));
                }
                let path = named(to.0, to.1, facts);
                facts.extend(path.map(Fact::Written));
            }
            Deed::Link { from, to } => {
                let path = named(from.0, from.1, facts);
                facts.extend(path.map(Fact::Read));
                let path = named(to.0, to.1, facts);
                facts.extend(path.map(Fact::Written));
            }
            Deed::Symlink { directory, path } => {
                let path = named(directory, path, facts);
                facts.extend(path.map(Fact::Written));
            }
            Deed::Enter => facts.push(Fact::Moves),
            Deed::ChangeView => facts.push(Fact::Gap(Gap::OtherView)),
            Deed::Connect => facts.extend(peers::connected(job, memory, place(1), place(2)).map(Fact::Talked)),
            Deed::SendTo => facts.extend(peers::connected(job, memory, place(4), place(5)).map(Fact::Talked)),
            Deed::SendMessage => facts.extend(peers::sent(job, memory, place(1), 1).map(Fact::Talked)),
            Deed::SendMessages => facts.extend(peers::sent(job, memory, place(1), place(2)).map(Fact::Talked)),
        }
    }

    /// Returns the path that two arguments name: a directory (the working directory if there is none) and a path below it.
    ///
    /// An empty path means the directory's own descriptor, about which nothing new is asked.
    fn named(
        &mut self,
        call: &Call,
        memory: &Memory,
        directory: Option<u8>,
        path: u8,
        facts: &mut Vec<Fact>,
    ) -> Option<Vec<u8>> {
        let Some(text) = memory.text(call.arguments[usize::from(path)]) else {
            // A null pointer names nothing; what else cannot be read is something that is not known.
            if call.arguments[usize::from(path)] != 0 {
                facts.push(Fact::Gap(Gap::Unreadable));
            }
            return None;
        };
        if text.first() == Some(&b'/') {
            return Some(clean(&text));
        }
        let mut base = match directory.map(|index| call.arguments[usize::from(index)]) {
            #[expect(clippy::cast_possible_truncation, reason = "a descriptor is an int, whatever fills the register")]
            Some(number) if number as i32 != libc::AT_FDCWD => descriptor(call.pid, number)?,
            _ => self.directory(call.pid)?,
        };
        if text.is_empty() {
            return directory.is_some().then_some(base);
        }
        base.push(b'/');
        base.extend_from_slice(&text);
        Some(clean(&base))
    }

    fn directory(&mut self, pid: i32) -> Option<Vec<u8>> {
        if let Some(directory) = self.directories.get(&pid) {
            return Some(directory.clone());
        }
        let directory = link(&format!("/proc/{pid}/cwd"))?;
        if self.moving.is_empty() {
            self.directories.insert(pid, directory.clone());
        }
        Some(directory)
    }

    fn reads(&mut self, pid: i32, path: Vec<u8>, mark: impl FnOnce(&mut Touch)) {
        if !self.is_own(&path) {
            self.touch(pid, path, mark);
        }
    }

    fn touch(&mut self, pid: i32, path: Vec<u8>, mark: impl FnOnce(&mut Touch)) {
        if let Some(touch) = self.touched.get_mut(&path) {
            mark(touch);
        } else if self.touched.len() < PATHS_MAX {
            let mut touch = Touch { by: self.program(pid), ..Touch::default() };
            mark(&mut touch);
            self.touched.insert(path, touch);
        } else {
            self.gaps.insert(Gap::TooMany);
        }
    }

    /// Returns whether the job has made this itself, or something above it.
    fn is_own(&self, path: &[u8]) -> bool {
        !self.own.is_empty()
            && path
                .iter()
                .enumerate()
                .filter(|(_, byte)| **byte == b'/')
                .map(|(end, _)| &path[..end])
                .chain([path])
                .any(|above| self.own.contains(above))
    }

    /// Returns the name of the program that a thread executes.
    fn program(&mut self, pid: i32) -> String {
        if let Some(program) = self.programs.get(&pid) {
            return program.clone();
        }
        let path = link(&format!("/proc/{pid}/exe")).unwrap_or_default();
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let program = String::from_utf8_lossy(name).into_owned();
        self.programs.insert(pid, program.clone());
        program
    }
}

/// What opening a path means, by the flags.
fn opened(path: Vec<u8>, flags: u64, facts: &mut Vec<Fact>) {
    let flag = |flag: i32| flags & u64::from(flag.unsigned_abs()) != 0;
    let writes = flags & 3 != 0;
    if flag(libc::O_PATH) || (flag(libc::O_DIRECTORY) && !writes) {
        // What is in a directory is asked for by listing it.
        facts.push(Fact::Examined(path));
        return;
    }
    if !writes {
        facts.push(Fact::Read(path));
        return;
    }
    if flag(libc::O_TRUNC) {
        if !flag(libc::O_CREAT) {
            facts.push(Fact::Examined(path.clone()));
        }
    } else if flag(libc::O_EXCL) && flag(libc::O_CREAT) {
        facts.push(Fact::Examined(path.clone()));
    } else {
        // What is there already is gone on with.
        facts.push(Fact::Read(path.clone()));
    }
    facts.push(Fact::Written(path));
}

/// What executing a path means: it is read, and so is its interpreter, which the kernel opens without being asked.
fn executed(pid: i32, path: Vec<u8>, facts: &mut Vec<Fact>) {
    let mut inside = format!("/proc/{pid}/root").into_bytes();
    inside.extend_from_slice(&path);
    let mut head = [0; HEAD_BYTES];
    let read = File::open(Path::new(std::ffi::OsStr::from_bytes(&inside))).and_then(|mut file| file.read(&mut head));
    match read {
        Ok(length) => {
            if let Some(interpreter) = interpreter(&head[..length]) {
                facts.push(Fact::Executed(clean(interpreter)));
            }
            facts.push(Fact::Executed(path));
        }
        // A program that may be executed need not be readable; one that is not there was only looked for.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => facts.push(Fact::Executed(path)),
        Err(_) => facts.push(Fact::Examined(path)),
    }
}

/// Returns the interpreter that the first line of a script names, as the kernel reads it.
fn interpreter(head: &[u8]) -> Option<&[u8]> {
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?.trim_ascii();
    line.split(|byte| byte.is_ascii_whitespace()).next().filter(|path| path.first() == Some(&b'/'))
}

/// Returns the path without `.` and doubled slashes; `..` stays, for only the file system knows where it leads.
fn clean(path: &[u8]) -> Vec<u8> {
    let mut clean = Vec::with_capacity(path.len());
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".") {
        clean.push(b'/');
        clean.extend_from_slice(name);
    }
    if clean.is_empty() { b"/".to_vec() } else { clean }
}

/// Returns what a descriptor of a process has open, if it has a path.
#[expect(clippy::cast_possible_truncation, reason = "a descriptor is an int, whatever fills the register")]
fn descriptor(pid: i32, number: u64) -> Option<Vec<u8>> {
    link(&format!("/proc/{pid}/fd/{}", number as i32))
}

fn link(path: &str) -> Option<Vec<u8>> {
    let target = fs::read_link(path).ok()?.into_os_string().into_vec();
    (target.first() == Some(&b'/')).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_cleaned_without_being_resolved() {
        let cleaned = |path: &str| String::from_utf8(clean(path.as_bytes())).unwrap();
        assert_eq!(cleaned("/a//b/./c/"), "/a/b/c");
        assert_eq!(cleaned("/a/../b"), "/a/../b");
        assert_eq!(cleaned("//"), "/");
    }

    #[test]
    fn the_interpreter_of_a_script_is_what_the_kernel_takes() {
        assert_eq!(interpreter(b"#!/bin/sh\nexit"), Some(&b"/bin/sh"[..]));
        assert_eq!(interpreter(b"#! /usr/bin/env python3 -u\n"), Some(&b"/usr/bin/env"[..]));
        assert_eq!(interpreter(b"#!python\n"), None);
        assert_eq!(interpreter(b"\x7fELF"), None);
    }

    fn flags(flags: i32) -> String {
        let mut facts = Vec::new();
        opened(b"/x".to_vec(), u64::from(flags.unsigned_abs()), &mut facts);
        let word = |fact: &Fact| match fact {
            Fact::Read(_) => "read",
            Fact::Examined(_) => "examined",
            Fact::Written(_) => "written",
            _ => "else",
        };
        facts.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_an_opening_depends_on_follows_from_its_flags() {
        use libc::{O_APPEND, O_CREAT, O_DIRECTORY, O_EXCL, O_PATH, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY};
        assert_eq!(flags(O_RDONLY), "read");
        assert_eq!(flags(O_PATH), "examined");
        assert_eq!(flags(O_DIRECTORY), "examined");
        assert_eq!(flags(O_WRONLY | O_CREAT | O_TRUNC), "written");
        assert_eq!(flags(O_WRONLY | O_TRUNC), "examined written");
        assert_eq!(flags(O_RDWR | O_CREAT | O_EXCL), "examined written");
        assert_eq!(flags(O_WRONLY | O_CREAT | O_APPEND), "read written");
        assert_eq!(flags(O_RDWR), "read written");
    }
}
