//! What a call is about to do to the paths that it names.
//!
//! Whether it succeeds is not known yet, so what would make it fail is looked for: what a job could not
//! do does not become its own. Nothing is kept here.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::observation::Gap;
use super::peers::Contact;
use super::view::{Lies, View};

/// How much of a script is read to find its interpreter, in bytes: what the kernel looks at.
const HEAD_BYTES: usize = 256;
/// Scripts whose interpreters are scripts may be this deep, as for the kernel.
const INTERPRETERS_MAX: usize = 5;

/// One thing that a call does.
pub(super) enum Fact {
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
    /// Somebody may work in another directory, or in one of another name, once the call is done.
    Moves,
}

/// What opening a path means, by the flags and, where something is to be written, by what lies there.
///
/// Whether the call succeeds is not known yet, so what would make it fail is looked for: what the job could
/// not write is not its own.
pub(super) fn opened(path: Vec<u8>, flags: u64, lies: impl FnOnce(&[u8]) -> Lies, facts: &mut Vec<Fact>) {
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
pub(super) fn made(path: Vec<u8>, lies: impl FnOnce(&[u8]) -> Lies, facts: &mut Vec<Fact>) {
    let found = lies(&path);
    facts.push(Fact::Examined(path.clone()));
    if found == Lies::Nothing {
        facts.push(Fact::Written(path));
    }
}

/// What making a link means.
pub(super) fn linked(path: Vec<u8>, target: &[u8], lies: impl FnOnce(&[u8]) -> Lies, facts: &mut Vec<Fact>) {
    let found = lies(&path);
    facts.push(Fact::Examined(path.clone()));
    if found == Lies::Nothing {
        let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or_default();
        let target = if target.first() == Some(&b'/') { target.to_vec() } else { [&path[..=end], target].concat() };
        facts.push(Fact::Linked(path, lexically(&target)));
    }
}

/// What removing a path means: a file's content is of no account, and a directory that goes was empty.
pub(super) fn removed(path: Vec<u8>, lies: impl FnOnce(&[u8]) -> Lies, facts: &mut Vec<Fact>) {
    let found = lies(&path);
    facts.push(Fact::Examined(path.clone()));
    match found {
        Lies::Nothing | Lies::Nowhere => {}
        Lies::File { .. } => facts.push(Fact::Written(path)),
        Lies::Directory | Lies::Unknown => facts.push(Fact::Changed(path)),
    }
}

/// What changing something at a path means that leaves its content, or a part of it.
pub(super) fn changed(path: Vec<u8>, lies: impl FnOnce(&[u8]) -> Lies, facts: &mut Vec<Fact>) {
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
pub(super) fn moved(from: Vec<u8>, to: Vec<u8>, is_own: bool, lies: impl Fn(&[u8]) -> Lies, facts: &mut Vec<Fact>) {
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
    if [source, target].iter().any(|lies| matches!(lies, Lies::Directory | Lies::Unknown)) {
        // Whoever works in it is told another name from then on.
        facts.push(Fact::Moves);
    }
}

/// Adds that everything below a directory is read, up to a limit that no reasonable one has.
pub(super) fn below(pid: i32, directory: &[u8], facts: &mut Vec<Fact>) {
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
pub(super) fn executed(pid: i32, path: Vec<u8>, facts: &mut Vec<Fact>) {
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
pub(super) fn clean(path: &[u8]) -> Vec<u8> {
    let mut clean = Vec::with_capacity(path.len());
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".") {
        clean.push(b'/');
        clean.extend_from_slice(name);
    }
    if clean.is_empty() { b"/".to_vec() } else { clean }
}

pub(super) fn has_dots(path: &[u8]) -> bool {
    path.windows(3).any(|part| part == b"/..")
}

/// Returns the path with each `..` taking back the name before it.
pub(super) fn lexically(path: &[u8]) -> Vec<u8> {
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

#[cfg(test)]
pub(super) mod tests {
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

    pub(in super::super) fn told(facts: &[Fact]) -> String {
        let text = |path: &Vec<u8>| String::from_utf8_lossy(path).into_owned();
        let word = |fact: &Fact| match fact {
            Fact::Read(path) => format!("read {}", text(path)),
            Fact::Examined(path) => format!("examined {}", text(path)),
            Fact::Written(path) => format!("written {}", text(path)),
            Fact::Changed(path) => format!("changed {}", text(path)),
            Fact::Linked(path, target) => format!("linked {} to {}", text(path), text(target)),
            Fact::Renamed(..) => "renamed".to_owned(),
            Fact::Moves => "moves".to_owned(),
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
        assert_eq!(moves(directory, nothing, false), "read /d/a, examined /b, changed /b, changed /d/a, moves");
        assert_eq!(moves(directory, nothing, true), "read /d/a, renamed, changed /d/a, moves");
        assert_eq!(moves(file, directory, true), "read /d/a, examined /b, changed /b, written /d/a, moves");
    }
}
