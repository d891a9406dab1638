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
use super::directories::Directories;
use super::facts::{Fact, below, changed, clean, executed, has_dots, lexically, linked, made, moved, opened, removed};
use super::filter::{Deed, ways};
use super::memory::Memory;
use super::observation::{Gap, Observation, Rung, Touch};
use super::peers::{self, Contact};
use super::view::View;

/// More paths of one job than this are not kept, so that a job that makes up names cannot fill the memory.
const PATHS_MAX: usize = 1_000_000;
/// Of more addresses than this nobody wants to know.
const PEERS_MAX: usize = 10_000;
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
    /// What was said to a port of this machine where nobody listened yet: the address, and the program.
    unheard: BTreeMap<u16, (String, String)>,
    gaps: BTreeSet<Gap>,
    directories: Directories,
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
            directories: Directories::new(ways()),
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
            pinned: false,
            started: None,
            processor_draws: 0,
            counts_cycles: false,
            touched: self.touched.into_iter().map(path).collect(),
            peers,
            anew: BTreeSet::new(),
            gaps: self.gaps,
        }
    }

    /// Returns what the call is about to do. Its process is waiting.
    pub(super) fn look(&mut self, call: &Call, memory: &Memory) -> Seen {
        self.directories.has_arrived(call.pid);
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
                Fact::Moves => self.directories.begins_to_move(call.pid),
            }
        }
    }

    /// Forgets what may silently have become another's: threads end without a word, and their numbers are given out again.
    pub(super) fn forget_threads(&mut self) {
        self.directories.forget();
        self.programs.clear();
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
                let Some(directory) = self.directories.of(call.pid) else {
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
    /// Returns whom the call is about to talk to.
    pub(super) fn contact(&self) -> Option<Contact> {
        self.facts.iter().find_map(|fact| if let Fact::Talked(contact) = fact { Some(*contact) } else { None })
    }

    /// Returns whether the call is about to read this path.
    pub(super) fn reads(&self, path: &[u8]) -> bool {
        self.facts.iter().any(|fact| matches!(fact, Fact::Read(read) if read == path))
    }

    /// Returns the paths that the call is about to look at or to read.
    pub(super) fn looked_at(&self) -> impl Iterator<Item = &[u8]> {
        self.facts.iter().filter_map(|fact| match fact {
            Fact::Examined(path) | Fact::Read(path) => Some(path.as_slice()),
            _ => None,
        })
    }

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

/// Returns what a descriptor of a process has open, if it has a path.
#[expect(clippy::cast_possible_truncation, reason = "a descriptor is an int, whatever fills the register")]
fn descriptor(pid: i32, number: u64) -> Option<Vec<u8>> {
    link(&format!("/proc/{pid}/fd/{}", number as i32))
}

/// Returns where a link leads, if that is an absolute path.
pub(super) fn link(path: &str) -> Option<Vec<u8>> {
    let target = fs::read_link(path).ok()?.into_os_string().into_vec();
    (target.first() == Some(&b'/')).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::super::facts::tests::told;
    use super::*;

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
