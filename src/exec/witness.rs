//! From a job's calls to what it did: whose path is meant, and what came before what.
//!
//! A call is looked at while its process waits, because only then its working
//! directory and descriptors are what they were ([`Witness::look`]), and noted once
//! it is known that it was still waiting ([`Witness::note`]). Whoever is reporting does not matter.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::Permission;
use super::filter::Deed;
use super::memory::Memory;
use super::observation::{Gap, Observation, Rung, Touch};
use super::peers::{self, Contact};
use super::view::{Lies, View};

/// More paths of one job than this are not kept, so that a job that makes up names cannot fill the memory.
const PATHS_MAX: usize = 1_000_000;
/// Of more addresses than this nobody wants to know.
const PEERS_MAX: usize = 10_000;
/// So many threads are remembered with their working directory; fewer than the system has numbers.
const DIRECTORIES_MAX: usize = 4096;
/// How much of a script is read to find its interpreter, in bytes: what the kernel looks at.
const HEAD_BYTES: usize = 256;
/// Scripts whose interpreters are scripts may be this deep, as for the kernel.
const INTERPRETERS_MAX: usize = 5;
/// The kernel gives up a path that leads through more links.
const LINKS_MAX: usize = 40;

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
    /// Changed, but what is in it need not be the job's own.
    Changed(Vec<u8>),
    /// A link was made, and where it leads.
    Linked(Vec<u8>, Vec<u8>),
    /// Something got another name, where what was there before is of no account.
    Renamed(Vec<u8>, Vec<u8>),
    Talked(Contact),
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
    /// Links that the job made itself, and where they lead: what lies behind them need not be its own.
    links: BTreeMap<Vec<u8>, Vec<u8>>,
    peers: BTreeMap<String, String>,
    /// What was said to a port of the loopback where nobody listened yet: the address, and the program.
    unheard: BTreeMap<u16, (String, String)>,
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
            links: BTreeMap::new(),
            peers: BTreeMap::new(),
            unheard: BTreeMap::new(),
            gaps: BTreeSet::new(),
            directories: BTreeMap::new(),
            moving: BTreeSet::new(),
            programs: BTreeMap::new(),
        }
    }

    /// Returns everything that was noted.
    pub(super) fn finish(self, rung: Rung) -> Observation {
        let path = |(path, touch)| (PathBuf::from(OsString::from_vec(path)), touch);
        let mut peers = self.peers;
        // That nobody is there may decide as much as what somebody says.
        peers.extend(self.unheard.into_values());
        Observation {
            rung,
            isolated: self.isolated,
            touched: self.touched.into_iter().map(path).collect(),
            peers,
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
        self.straighten(call.pid, &mut facts);
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
                    self.reads(call.pid, path, |touch| (touch.read, touch.executed) = (true, true));
                    // What it does from now on is the new program's doing.
                    self.programs.remove(&call.pid);
                }
                Fact::Written(path) => {
                    self.touch(call.pid, path.clone(), |touch| touch.written = true);
                    self.links.remove(&path);
                    self.owns(path);
                }
                Fact::Changed(path) => self.touch(call.pid, path, |touch| touch.written = true),
                Fact::Linked(path, target) => {
                    self.touch(call.pid, path.clone(), |touch| touch.written = true);
                    self.links.insert(path.clone(), target);
                    self.owns(path);
                }
                Fact::Renamed(from, to) => {
                    self.links.remove(&to);
                    self.rename_links(&from, &to);
                    self.touch(call.pid, to.clone(), |touch| touch.written = true);
                    self.owns(to);
                }
                Fact::Talked(contact) => self.talks(call.pid, contact),
                Fact::Gap(gap) => drop(self.gaps.insert(gap)),
                Fact::Moves => {
                    self.directories.clear();
                    self.moving.insert(call.pid);
                }
            }
        }
    }

    fn talks(&mut self, pid: i32, contact: Contact) {
        match contact {
            Contact::Other(peer) if self.peers.len() < PEERS_MAX => {
                let by = self.program(pid);
                self.peers.entry(peer.to_string()).or_insert(by);
            }
            Contact::Nobody(peer) if self.unheard.len() < PEERS_MAX => {
                let by = self.program(pid);
                self.unheard.entry(contact.port()).or_insert((peer.to_string(), by));
            }
            // Who waits for a server of its own tries until it is there.
            Contact::Own(_) => drop(self.unheard.remove(&contact.port())),
            Contact::Other(_) | Contact::Nobody(_) => {}
        }
    }

    /// Keeps that something could not be seen.
    pub(super) fn gap(&mut self, gap: Gap) {
        self.gaps.insert(gap);
    }

    fn gather(&mut self, call: &Call, memory: &Memory, facts: &mut Vec<Fact>) {
        let place = |index: u8| call.arguments[usize::from(index)];
        let job = peers::Job { pid: call.pid, isolated: self.isolated };
        let lies = |path: &[u8], follow| View::of(call.pid).lies(path, follow);
        let mut named = |directory, path, facts: &mut Vec<Fact>| self.named(call, memory, directory, path, facts);
        match call.deed {
            Deed::Open { directory, path, flags } => {
                if let Some(path) = named(directory, path, facts) {
                    opened(path, place(flags), |path| lies(path, true), facts);
                }
            }
            Deed::OpenHow => match (named(Some(0), 1, facts), memory.long(place(2))) {
                (Some(path), Some(flags)) => opened(path, flags, |path| lies(path, true), facts),
                (_, None) => facts.push(Fact::Gap(Gap::Unreadable)),
                _ => {}
            },
            Deed::Create { path } => {
                let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC;
                if let Some(path) = named(None, path, facts) {
                    opened(path, u64::from(flags.unsigned_abs()), |path| lies(path, true), facts);
                }
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
            Deed::Make { directory, path } => {
                if let Some(path) = named(directory, path, facts) {
                    made(path, |path| lies(path, false), facts);
                }
            }
            Deed::Remove { directory, path } => {
                if let Some(path) = named(directory, path, facts) {
                    removed(path, |path| lies(path, false), facts);
                }
            }
            Deed::Change { directory, path } => {
                if let Some(path) = named(directory, path, facts) {
                    changed(path, |path| lies(path, true), facts);
                }
            }
            Deed::Move { from, to } => {
                let (from, to) = (named(from.0, from.1, facts), named(to.0, to.1, facts));
                if let (Some(from), Some(to)) = (from, to) {
                    let is_own = self.is_own(&from);
                    if !self.isolated && !is_own {
                        below(call.pid, &from, facts);
                    }
                    moved(from, to, is_own, |path| lies(path, false), facts);
                }
            }
            Deed::Link { from, to } => {
                let path = named(from.0, from.1, facts);
                facts.extend(path.map(Fact::Read));
                if let Some(path) = named(to.0, to.1, facts) {
                    made(path, |path| lies(path, false), facts);
                }
            }
            Deed::Symlink { target, directory, path } => {
                let target = memory.text(place(target));
                if let (Some(path), Some(target)) = (named(directory, path, facts), target) {
                    linked(path, &target, |path| lies(path, false), facts);
                }
            }
            Deed::Enter { path } => {
                let path = path.and_then(|path| named(None, path, facts));
                facts.extend(path.map(Fact::Examined));
                facts.push(Fact::Moves);
            }
            Deed::ChangeView => facts.push(Fact::Gap(Gap::OtherView)),
            Deed::Connect => {
                facts.extend(peers::connected(job, place(0), memory, place(1), place(2)).map(Fact::Talked));
            }
            Deed::SendTo => facts.extend(peers::connected(job, place(0), memory, place(4), place(5)).map(Fact::Talked)),
            Deed::SendMessage => facts.extend(peers::sent(job, place(0), memory, place(1), 1).map(Fact::Talked)),
            Deed::SendMessages => {
                facts.extend(peers::sent(job, place(0), memory, place(1), place(2)).map(Fact::Talked));
            }
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
            _ => {
                let Some(directory) = self.directory(call.pid) else {
                    facts.push(Fact::Gap(Gap::Unreadable));
                    return None;
                };
                directory
            }
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
            // Numbers of threads are given out again, so none is remembered for long.
            if self.directories.len() >= DIRECTORIES_MAX {
                self.directories.clear();
            }
            self.directories.insert(pid, directory.clone());
        }
        Some(directory)
    }

    fn reads(&mut self, pid: i32, path: Vec<u8>, mark: impl FnOnce(&mut Touch)) {
        let path = self.behind_links(path);
        if !self.is_own(&path) {
            self.touch(pid, path, mark);
        }
    }

    /// Follows `..` as the kernel does where that decides whether something is the job's own.
    fn straighten(&self, pid: i32, facts: &mut Vec<Fact>) {
        let resolved = |path: &[u8]| View::of(pid).without_dots(path);
        let straight = |path: &mut Vec<u8>| {
            if has_dots(path) {
                *path = resolved(path).unwrap_or_else(|| lexically(path));
            }
        };
        facts.retain_mut(|fact| match fact {
            Fact::Read(path) | Fact::Listed(path) | Fact::Examined(path) | Fact::Executed(path) => {
                !has_dots(path) || resolved(path).is_none_or(|path| !self.is_own(&self.behind_links(path)))
            }
            Fact::Written(path) | Fact::Changed(path) | Fact::Linked(path, _) => {
                straight(path);
                true
            }
            Fact::Renamed(from, to) => {
                straight(from);
                straight(to);
                true
            }
            _ => true,
        });
    }

    /// Returns what a path means without the links that the job made itself.
    fn behind_links(&self, mut path: Vec<u8>) -> Vec<u8> {
        for _ in 0..if self.links.is_empty() { 0 } else { LINKS_MAX } {
            let mut ends =
                path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end).chain([path.len()]);
            let Some((end, target)) = ends.find_map(|end| Some((end, self.links.get(&path[..end])?))) else {
                break;
            };
            path = [target, &path[end..]].concat();
        }
        path
    }

    fn rename_links(&mut self, from: &[u8], to: &[u8]) {
        let is_below =
            |path: &Vec<u8>| path.strip_prefix(from).is_some_and(|rest| matches!(rest.first(), None | Some(b'/')));
        let paths: Vec<_> = self.links.keys().filter(|path| is_below(path)).cloned().collect();
        let moved: Vec<_> = paths.into_iter().filter_map(|path| self.links.remove_entry(&path)).collect();
        self.links.extend(moved.into_iter().map(|(path, target)| ([to, &path[from.len()..]].concat(), target)));
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

    fn owns(&mut self, path: Vec<u8>) {
        if self.own.len() < PATHS_MAX {
            self.own.insert(path);
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

impl Seen {
    /// Returns what is left of it if the call failed: what it depended on, and nothing that it did.
    pub(super) fn failed(self) -> Self {
        let mut facts = Vec::new();
        for fact in self.facts {
            match fact {
                Fact::Written(path) | Fact::Changed(path) | Fact::Executed(path) => facts.push(Fact::Examined(path)),
                Fact::Renamed(_, to) => facts.push(Fact::Examined(to)),
                Fact::Linked(..) | Fact::Moves => {}
                fact => facts.push(fact),
            }
        }
        Self { answer: self.answer, facts }
    }
}

/// What opening a path means, by the flags and, where something is to be written, by what lies there.
///
/// Whether the call succeeds is not known yet, so what would make it fail is looked for: what the job could
/// not write is not its own.
fn opened(path: Vec<u8>, flags: u64, lies: impl FnOnce(&[u8]) -> Lies, facts: &mut Vec<Fact>) {
    let flag = |flag: i32| flags & u64::from(flag.unsigned_abs()) != 0;
    let (writes, creates) = (flags & 3 != 0, flag(libc::O_CREAT));
    if flag(libc::O_PATH) || flag(libc::O_DIRECTORY) {
        // What is in a directory is asked for by listing it; a file without a name in it is nobody's.
        facts.push(Fact::Examined(path));
        return;
    }
    if !writes && !creates {
        facts.push(Fact::Read(path));
        return;
    }
    let reads = flags & 3 != 1;
    let found = lies(&path);
    let exclusive = flag(libc::O_EXCL) && creates;
    match found {
        Lies::Nothing if creates => {
            // Emptied, it would have been the same had there been something.
            let is_begun = exclusive || flag(libc::O_TRUNC);
            if exclusive || (reads && !is_begun) {
                facts.push(Fact::Examined(path.clone()));
            }
            // Who only adds to it makes nothing of what is there, but who reads it later depends on there having been nothing.
            facts.push(if is_begun || reads { Fact::Written(path) } else { Fact::Changed(path) });
        }
        Lies::Nothing | Lies::Nowhere | Lies::Directory => facts.push(Fact::Examined(path)),
        _ if exclusive => facts.push(Fact::Examined(path)),
        _ if !writes => facts.push(Fact::Read(path)),
        Lies::File { writable: true } if flag(libc::O_TRUNC) => {
            if !creates {
                facts.push(Fact::Examined(path.clone()));
            }
            facts.push(Fact::Written(path));
        }
        Lies::File { writable: true } if !reads => {
            // Who adds to a file does not see what is in it; who reads it later does.
            if !creates {
                facts.push(Fact::Examined(path.clone()));
            }
            facts.push(Fact::Changed(path));
        }
        Lies::File { writable: true } => {
            // What is there already is gone on with.
            facts.push(Fact::Read(path.clone()));
            facts.push(Fact::Written(path));
        }
        Lies::File { writable: false } | Lies::Unknown => {
            facts.push(Fact::Read(path.clone()));
            facts.push(Fact::Changed(path));
        }
    }
}

/// What making a path means that must not be there yet.
fn made(path: Vec<u8>, lies: impl FnOnce(&[u8]) -> Lies, facts: &mut Vec<Fact>) {
    let found = lies(&path);
    facts.push(Fact::Examined(path.clone()));
    if found == Lies::Nothing {
        facts.push(Fact::Written(path));
    }
}

/// What making a link means.
fn linked(path: Vec<u8>, target: &[u8], lies: impl FnOnce(&[u8]) -> Lies, facts: &mut Vec<Fact>) {
    let found = lies(&path);
    facts.push(Fact::Examined(path.clone()));
    if found == Lies::Nothing {
        let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or_default();
        let target = if target.first() == Some(&b'/') { target.to_vec() } else { [&path[..=end], target].concat() };
        facts.push(Fact::Linked(path, lexically(&target)));
    }
}

/// What removing a path means: a file's content is of no account, and a directory that goes was empty.
fn removed(path: Vec<u8>, lies: impl FnOnce(&[u8]) -> Lies, facts: &mut Vec<Fact>) {
    let found = lies(&path);
    facts.push(Fact::Examined(path.clone()));
    match found {
        Lies::Nothing | Lies::Nowhere => {}
        Lies::File { .. } => facts.push(Fact::Written(path)),
        Lies::Directory | Lies::Unknown => facts.push(Fact::Changed(path)),
    }
}

/// What changing something at a path means that leaves its content, or a part of it.
fn changed(path: Vec<u8>, lies: impl FnOnce(&[u8]) -> Lies, facts: &mut Vec<Fact>) {
    match lies(&path) {
        Lies::Nothing | Lies::Nowhere => facts.push(Fact::Examined(path)),
        Lies::Directory => {
            facts.push(Fact::Examined(path.clone()));
            facts.push(Fact::Changed(path));
        }
        Lies::File { .. } | Lies::Unknown => {
            facts.push(Fact::Read(path.clone()));
            facts.push(Fact::Changed(path));
        }
    }
}

/// What giving another name means.
///
/// A directory that is not the job's own is not moved by an overlay: whoever wanted that copies what is in it,
/// which is seen file by file.
fn moved(from: Vec<u8>, to: Vec<u8>, is_own: bool, lies: impl Fn(&[u8]) -> Lies, facts: &mut Vec<Fact>) {
    let (source, target) = (lies(&from), lies(&to));
    let is_file = matches!(source, Lies::File { .. });
    if matches!(source, Lies::Nothing | Lies::Nowhere) {
        facts.push(Fact::Examined(from));
        return;
    }
    facts.push(Fact::Read(from.clone()));
    if target == Lies::Nowhere {
        facts.push(Fact::Examined(to));
        return;
    }
    if matches!(target, Lies::Nothing | Lies::File { .. }) && (is_file || is_own) {
        facts.push(Fact::Renamed(from.clone(), to));
    } else {
        facts.push(Fact::Examined(to.clone()));
        facts.push(Fact::Changed(to));
    }
    facts.push(if is_file { Fact::Written(from) } else { Fact::Changed(from) });
}

/// Adds that everything below a directory is read, up to a limit that no reasonable one has.
fn below(pid: i32, directory: &[u8], facts: &mut Vec<Fact>) {
    const MOST: usize = 100_000;
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let mut open = vec![directory.to_vec()];
    while let Some(directory) = open.pop() {
        let inside = Path::new(std::ffi::OsStr::from_bytes(&directory));
        let Ok(entries) = fs::read_dir(root.join(inside.strip_prefix("/").unwrap_or(inside))) else { continue };
        for entry in entries.flatten() {
            let path = [directory.as_slice(), b"/", entry.file_name().as_bytes()].concat();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(path);
            } else {
                facts.push(Fact::Read(path));
            }
            if facts.len() > MOST {
                facts.push(Fact::Gap(Gap::TooMany));
                return;
            }
        }
    }
}

/// What executing a path means: it is read, and so is its interpreter, which the kernel opens without being asked.
fn executed(pid: i32, path: Vec<u8>, facts: &mut Vec<Fact>) {
    let view = View::of(pid);
    let mut next = Some(path);
    for _ in 0..INTERPRETERS_MAX {
        let Some(path) = next.take() else { return };
        let mut head = [0; HEAD_BYTES];
        match view.head(&path, &mut head) {
            Ok(length) => {
                next = interpreter(&head[..length]).map(clean);
                facts.push(Fact::Executed(path));
            }
            // A program that may be executed need not be readable; one that is not there was only looked for.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => facts.push(Fact::Executed(path)),
            Err(_) => facts.push(Fact::Examined(path)),
        }
    }
}

/// Returns the interpreter that the first line of a script names, as the kernel reads it.
fn interpreter(head: &[u8]) -> Option<&[u8]> {
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?.trim_ascii();
    line.split(u8::is_ascii_whitespace).next().filter(|path| path.first() == Some(&b'/'))
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

fn has_dots(path: &[u8]) -> bool {
    path.windows(3).any(|part| part == b"/..")
}

/// Returns the path with each `..` taking back the name before it.
fn lexically(path: &[u8]) -> Vec<u8> {
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".") {
        if name == b".." {
            names.pop();
        } else {
            names.push(name);
        }
    }
    [b"/", names.join(&b'/').as_slice()].concat()
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

    const FILE: Lies = Lies::File { writable: true };

    fn told(facts: &[Fact]) -> String {
        let text = |path: &Vec<u8>| String::from_utf8_lossy(path).into_owned();
        let word = |fact: &Fact| match fact {
            Fact::Read(path) => format!("read {}", text(path)),
            Fact::Examined(path) => format!("examined {}", text(path)),
            Fact::Written(path) => format!("written {}", text(path)),
            Fact::Changed(path) => format!("changed {}", text(path)),
            Fact::Linked(path, target) => format!("linked {} to {}", text(path), text(target)),
            Fact::Renamed(..) => "renamed".to_owned(),
            _ => "else".to_owned(),
        };
        facts.iter().map(word).collect::<Vec<_>>().join(", ")
    }

    fn flags(flags: i32, found: Lies) -> String {
        let mut facts = Vec::new();
        opened(b"x".to_vec(), u64::from(flags.unsigned_abs()), |_| found, &mut facts);
        told(&facts).replace(" x", "")
    }

    #[test]
    fn what_an_opening_depends_on_follows_from_its_flags_and_what_lies_there() {
        use Lies::{Directory, Nothing, Nowhere};
        use libc::{O_APPEND, O_CREAT, O_DIRECTORY, O_EXCL, O_PATH, O_RDONLY, O_RDWR, O_TMPFILE, O_TRUNC, O_WRONLY};
        let locked = Lies::File { writable: false };
        assert_eq!(flags(O_RDONLY, FILE), "read");
        assert_eq!(flags(O_PATH, FILE), "examined");
        assert_eq!(flags(O_DIRECTORY, Directory), "examined");
        assert_eq!(flags(O_TMPFILE | O_RDWR, Directory), "examined");
        let afresh = O_WRONLY | O_CREAT | O_TRUNC;
        assert_eq!(flags(afresh, FILE), "written");
        assert_eq!(flags(afresh, Nothing), "written");
        assert_eq!(flags(afresh, Directory), "examined");
        assert_eq!(flags(afresh, Nowhere), "examined");
        assert_eq!(flags(O_WRONLY | O_CREAT | O_APPEND, Nowhere), "examined");
        assert_eq!(flags(afresh, locked), "read, changed");
        assert_eq!(flags(O_WRONLY | O_TRUNC, FILE), "examined, written");
        assert_eq!(flags(O_WRONLY | O_TRUNC, Nothing), "examined");
        assert_eq!(flags(O_RDWR | O_CREAT | O_EXCL, Nothing), "examined, written");
        assert_eq!(flags(O_RDWR | O_CREAT | O_EXCL, FILE), "examined");
        assert_eq!(flags(O_WRONLY | O_CREAT | O_APPEND, FILE), "changed");
        assert_eq!(flags(O_WRONLY | O_CREAT | O_APPEND, Nothing), "changed");
        assert_eq!(flags(O_RDWR, FILE), "read, written");
        assert_eq!(flags(O_RDONLY | O_CREAT, FILE), "read");
        assert_eq!(flags(O_RDONLY | O_CREAT, Nothing), "examined, written");
    }

    #[test]
    fn what_cannot_be_made_removed_or_moved_does_not_become_the_jobs_own() {
        let of = |what: &dyn Fn(&mut Vec<Fact>)| {
            let mut facts = Vec::new();
            what(&mut facts);
            told(&facts)
        };
        let a = || b"/d/a".to_vec();
        assert_eq!(of(&|facts| made(a(), |_| Lies::Directory, facts)), "examined /d/a");
        assert_eq!(of(&|facts| made(a(), |_| Lies::Nothing, facts)), "examined /d/a, written /d/a");
        assert_eq!(of(&|facts| made(a(), |_| Lies::Nowhere, facts)), "examined /d/a");
        assert_eq!(of(&|facts| removed(a(), |_| Lies::Directory, facts)), "examined /d/a, changed /d/a");
        assert_eq!(of(&|facts| removed(a(), |_| FILE, facts)), "examined /d/a, written /d/a");
        assert_eq!(of(&|facts| changed(a(), |_| FILE, facts)), "read /d/a, changed /d/a");
        assert_eq!(of(&|facts| linked(a(), b"../e", |_| FILE, facts)), "examined /d/a");
        assert_eq!(of(&|facts| linked(a(), b"../e", |_| Lies::Nothing, facts)), "examined /d/a, linked /d/a to /e");
        let moves = |from: Lies, to: Lies, is_own: bool| {
            of(&|facts| moved(a(), b"/b".to_vec(), is_own, |path| if path == b"/b" { to } else { from }, facts))
        };
        let (file, nothing, directory) = (FILE, Lies::Nothing, Lies::Directory);
        assert_eq!(moves(file, nothing, false), "read /d/a, renamed, written /d/a");
        assert_eq!(moves(nothing, file, false), "examined /d/a");
        assert_eq!(moves(file, Lies::Nowhere, false), "read /d/a, examined /b");
        assert_eq!(moves(directory, nothing, false), "read /d/a, examined /b, changed /b, changed /d/a");
        assert_eq!(moves(directory, nothing, true), "read /d/a, renamed, changed /d/a");
        assert_eq!(moves(file, directory, true), "read /d/a, examined /b, changed /b, written /d/a");
    }

    #[test]
    fn what_lies_behind_a_link_of_the_jobs_own_is_still_read() {
        let mut witness = Witness::new(true, None);
        let call = Call { pid: i32::MAX, deed: Deed::List, arguments: [0; 6] };
        let mut note = |facts: Vec<Fact>| witness.note(&call, Seen { answer: Answer::Go, facts });
        note(vec![Fact::Written(b"/w/d".to_vec()), Fact::Linked(b"/w/d/l".to_vec(), b"/data".to_vec())]);
        note(vec![Fact::Renamed(b"/w/d/l".to_vec(), b"/w/m".to_vec()), Fact::Written(b"/w/d/l".to_vec())]);
        note(vec![Fact::Linked(b"/w/k".to_vec(), b"/w/m/x".to_vec())]);
        note(vec![Fact::Read(b"/w/k/y".to_vec()), Fact::Read(b"/w/d/own".to_vec())]);
        let touched = witness.finish(Rung::Notify).touched;
        let read: Vec<PathBuf> = touched.into_iter().filter(|(_, touch)| touch.read).map(|(path, _)| path).collect();
        assert_eq!(read, [Path::new("/data/x/y")]);
    }

    #[test]
    fn of_a_call_that_failed_only_what_it_depended_on_is_kept() {
        let path = || b"/a".to_vec();
        let facts = vec![Fact::Read(path()), Fact::Written(path()), Fact::Linked(path(), path()), Fact::Moves];
        assert_eq!(told(&Seen { answer: Answer::Go, facts }.failed().facts), "read /a, examined /a");
    }
}
