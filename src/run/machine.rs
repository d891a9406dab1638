//! What of the machine a step may depend on: files outside the project, programs, packages.
//!
//! Everything is looked at once in a run; what files hashed to is remembered from run to run.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::world::listing;
use crate::disk;
use crate::environment::{self, BUILD, ENVIRONMENT, Foresight, Packages, Rules, Tools};
use crate::hash::Digest;
use crate::path::unescape;
use crate::record::{ABSENT, Aspect, Name, Recipe};
use crate::stat_cache::{Known, StatCache};

/// Begins the name of a library among the facts about the environment.
pub(super) const LIBRARY: &str = "library ";
/// Stands between a program and a package of its environment.
pub(super) const PACKAGE: &str = " package ";
/// Begins the name of a variable.
pub(super) const VARIABLE: &str = "variable ";
const UNREADABLE: &str = "unreadable";

/// The machine as it is in this run.
pub(super) struct Machine<'a> {
    tools: &'a Tools,
    memory: &'a StatCache,
    seen: Arc<SeenIn>,
}

/// What was looked at already, in each environment.
#[derive(Default)]
pub(super) struct Seen {
    environments: Mutex<BTreeMap<Option<PathBuf>, Arc<SeenIn>>>,
}

/// What was looked at in one environment.
#[derive(Default)]
struct SeenIn {
    paths: Mutex<BTreeMap<(Aspect, String), String>>,
    programs: Mutex<BTreeMap<String, BTreeMap<String, String>>>,
}

impl<'a> Machine<'a> {
    /// Returns the machine with the programs that `tools` finds. `memory` is that of the tree at `/`.
    pub(super) fn new(tools: &'a Tools, memory: &'a StatCache, seen: &Seen) -> Self {
        let mut environments = seen.environments.lock().expect("no holder panics");
        let seen = Arc::clone(environments.entry(tools.venv().map(Path::to_owned)).or_default());
        Self { tools, memory, seen }
    }

    /// Returns the programs that it finds.
    pub(super) fn tools(&self) -> &'a Tools {
        self.tools
    }

    /// Returns the rules that tell the environment from inputs.
    pub(super) fn rules(&self) -> &'a Rules {
        self.tools.rules()
    }

    /// Returns what is known of the directories of Python packages.
    pub(super) fn packages(&self) -> &'a Packages {
        self.tools.packages()
    }

    /// Returns the value of an aspect of an absolute path, links followed, as recipes have it.
    ///
    /// Costs a look at it, and a read of a file that changed since it was hashed last. What cannot be read
    /// is told as such: it cannot have been read by the step either.
    pub(super) fn value(&self, aspect: Aspect, path: &str) -> String {
        let key = (aspect, path.to_owned());
        if let Some(known) = self.seen.paths.lock().expect("no holder panics").get(&key) {
            return known.clone();
        }
        let value = self.look(aspect, Path::new(&OsString::from_vec(unescape(path))));
        self.seen.paths.lock().expect("no holder panics").insert(key, value.clone());
        value
    }

    /// Lets `path` be looked at again.
    pub(super) fn forget(&self, path: &str) {
        let mut paths = self.seen.paths.lock().expect("no holder panics");
        for aspect in Aspect::ALL {
            paths.remove(&(aspect, path.to_owned()));
        }
    }

    /// Returns the value of a fact about the environment.
    pub(super) fn fact(&self, name: &str) -> String {
        if let Some(path) = name.strip_prefix(LIBRARY) {
            return self.bytes_of(path);
        }
        if name.starts_with(VARIABLE) {
            return environment::deciding_variables().remove(name).unwrap_or_else(|| ABSENT.to_owned());
        }
        if name == ENVIRONMENT {
            return self.tools.identity().unwrap_or(ABSENT).to_owned();
        }
        if let Some((program, distribution)) = name.split_once(BUILD) {
            let mut programs = self.seen.programs.lock().expect("no holder panics");
            let facts = programs.entry(name.to_owned()).or_insert_with(|| {
                let build = self.tools.build(program, distribution);
                build.map(|build| (name.to_owned(), build)).into_iter().collect()
            });
            return facts.get(name).cloned().unwrap_or_else(|| ABSENT.to_owned());
        }
        let program = name.split_once(PACKAGE).map_or(name, |(program, _)| program);
        if program.starts_with('/') && program == name {
            return self.bytes_of(program);
        }
        let mut programs = self.seen.programs.lock().expect("no holder panics");
        let facts = programs.entry(program.to_owned()).or_insert_with(|| self.tools.identify([program]));
        facts.get(name).cloned().unwrap_or_else(|| ABSENT.to_owned())
    }

    /// Returns what a name will be for a step whose Python environment is not made yet, if that decides it; what nothing tells
    /// before is taken to be what `recorded` has.
    pub(super) fn foreseen(&self, name: &Name, recorded: &Recipe) -> Option<String> {
        match name {
            Name::Fact(name) => match self.tools.foresee(name)? {
                Foresight::WillBe(value) => Some(value.unwrap_or_else(|| ABSENT.to_owned())),
                Foresight::Unknown => recorded.environment.get(name).cloned(),
            },
            Name::Read(_, path) => {
                let is_in_it = self.tools.is_in_unmade(Path::new(&OsString::from_vec(unescape(path))));
                recorded.reads.get(path).filter(|_| is_in_it).cloned()
            }
        }
    }

    /// Returns the digest of the file, as a fact has it.
    fn bytes_of(&self, path: &str) -> String {
        let value = self.value(Aspect::Content, path);
        value.split_once(' ').map_or(value.clone(), |(_, digest)| digest.to_owned())
    }

    fn look(&self, aspect: Aspect, path: &Path) -> String {
        let path = &*self.tools.real(path);
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return ABSENT.to_owned();
            }
            Err(_) => return UNREADABLE.to_owned(),
        };
        if metadata.is_dir() {
            return match aspect {
                Aspect::Listing => names(path).unwrap_or_else(|_| UNREADABLE.to_owned()),
                _ => "status directory".to_owned(),
            };
        }
        if !metadata.is_file() {
            return "status special".to_owned();
        }
        let kind = if metadata.permissions().mode() & 0o100 == 0 { "file" } else { "executable" };
        match aspect {
            Aspect::Content | Aspect::Data => match self.digest(path) {
                Ok(digest) => format!("{kind} {digest}"),
                Err(_) => UNREADABLE.to_owned(),
            },
            Aspect::Listing | Aspect::Status | Aspect::Place => format!("status {kind} {}", metadata.len()),
        }
    }

    /// Returns the digest of the file at `path` on this machine, from memory if its state is what it was.
    fn digest(&self, path: &Path) -> io::Result<Digest> {
        if self.tools.venv().is_some_and(|venv| path.starts_with(venv.join("bin"))) {
            return self.tools.digest(path).ok_or_else(|| io::ErrorKind::NotFound.into());
        }
        let real = fs::canonicalize(path)?;
        let directory = disk::parent(&real).as_os_str().as_bytes();
        let directory = directory.strip_prefix(b"/").unwrap_or(directory);
        let name = real.file_name().unwrap_or_default().as_bytes();
        let state = || disk::stat(&real).ok().flatten();
        let before = state();
        if let Some(digest) = before.and_then(|stat| self.memory.digest(directory, name, &stat)) {
            return Ok(digest);
        }
        let settled = self.memory.learns() && before.is_some_and(|stat| self.memory.settle(&real, &stat));
        let (digest, _) = Digest::of_file(&real)?;
        if let Some(stat) = before.filter(|_| settled && state() == before) {
            self.memory.remember_one(directory, name, Known { stat, digest });
        }
        Ok(digest)
    }
}

/// Returns whether a fact is about the contents of a distribution whose version differs too, so that it tells nothing new.
pub(super) fn is_told_by_version(name: &str, differs: impl Fn(&str) -> bool) -> bool {
    name.split_once(BUILD).is_some_and(|(program, package)| differs(&format!("{program}{PACKAGE}{package}")))
}

/// Returns the names in a directory with the letters of their kinds.
fn names(path: &Path) -> io::Result<String> {
    let mut names = BTreeMap::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let letter = match (kind.is_dir(), kind.is_symlink()) {
            (true, _) => b'd',
            (_, true) => b'l',
            _ => b'f',
        };
        names.insert(entry.file_name().as_bytes().to_vec(), letter);
    }
    Ok(listing(names.iter().map(|(name, letter)| (name.as_slice(), *letter))))
}
