//! The virtual environment that a lock asks for: made once on a machine, outside of every project, and kept.
//!
//! Which one it is follows from what decides about it: the version of Python, the bytes of the lock, the platform. It is made by
//! `uv` where that is on the search path, else by `venv` and `pip`. Programs in a virtual environment know where it
//! lies, so it is made in place: in a new directory at every attempt, and a file that is written last says which attempt came to
//! its end. What an attempt that was killed still writes, if it left a child, is in a directory that nobody uses.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::lock::{self, LockError};
use super::stock;
use crate::disk::{self, DiskError, Durability, Lock};
use crate::exec::{self, Command, End, ExecError, Job, Stop};
use crate::hash::Digest;
use crate::host;
use crate::object::canonical;
use crate::path::ProjectPath;

/// The file that names the attempt that came to its end.
pub(super) const COMPLETE: &str = "complete";
/// How long one waits before it looks again whether another has made the environment.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How many of a tool's last lines are kept for when it fails.
const TAIL_LINES: usize = 12;
/// What `venv` puts into an environment to fill it, and no lock asked for.
const FILLERS: [&str; 3] = ["pip", "setuptools", "wheel"];
/// Variables that would lead the tools that make an environment to another one.
const LEADING: [&str; 12] = [
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONSTARTUP",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_ROOT",
    "PIP_USER",
    "PIP_REQUIREMENT",
    "PIP_CONSTRAINT",
    "UV_PROJECT_ENVIRONMENT",
];
/// Says which version a Python is, and whether it can make environments.
const WHICH: &str = "import sys\nversion = '%d.%d.%d' % sys.version_info[:3]\n\
                     try:\n    import venv, ensurepip\nexcept ImportError:\n    version += ' bare'\nprint('python', version)\n";

/// A Python environment that a definition asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    version: String,
    lock: ProjectPath,
    text: Vec<u8>,
    /// The `pyproject.toml` beside a lock of uv, without which that is not read.
    project: Option<Vec<u8>>,
}

/// What a lock tells of an environment.
#[derive(Debug)]
pub(in crate::environment) struct Foretold {
    version: String,
    /// Name → version of what it pins.
    pub(in crate::environment) pins: BTreeMap<String, String>,
    /// Whether nothing else can be in the environment.
    pub(in crate::environment) is_all: bool,
}

impl Foretold {
    /// Returns whether its Python may be one of this version, which may leave the last parts open.
    pub(in crate::environment) fn may_be(&self, version: &str) -> bool {
        is_of(&self.version, version) || is_of(version, &self.version)
    }
}

/// Why a Python environment is not there.
#[derive(Debug, thiserror::Error)]
pub enum PythonError {
    /// The snapshot has no such lock.
    #[error("the lock `{lock}` is not in the snapshot")]
    NoLock {
        /// The lock.
        lock: ProjectPath,
    },
    /// The lock does not pin everything.
    #[error("the lock `{lock}` cannot be used")]
    Lock {
        /// The lock.
        lock: ProjectPath,
        /// What is wrong with it.
        source: LockError,
    },
    /// It would have to be made, and that is not to be done.
    #[error("the Python environment of `{lock}` is not on this machine")]
    Offline {
        /// The lock.
        lock: ProjectPath,
    },
    /// No such Python is on the search path.
    #[error("Python {version} is not found")]
    NoPython {
        /// The version that was asked for.
        version: String,
    },
    /// There is such a Python, but it cannot make environments.
    #[error("Python {version} at `{}` has no `venv` with `ensurepip`", program.display())]
    Bare {
        /// The version that was asked for.
        version: String,
        /// The interpreter.
        program: PathBuf,
    },
    /// Only uv reads its locks.
    #[error("the lock `{lock}` is one of uv, which is not found")]
    NoUv {
        /// The lock.
        lock: ProjectPath,
    },
    /// Nothing here makes locks.
    #[error("neither uv nor pip-tools for Python {version} is found")]
    NoLocker {
        /// The version that was asked for.
        version: String,
    },
    /// A tool that makes environments failed.
    #[error("`{tool}` {how}")]
    Tool {
        /// The tool: `pip install`.
        tool: &'static str,
        /// How it ended: `exited with code 1`.
        how: String,
        /// What it printed last.
        tail: Vec<String>,
    },
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// A tool could not be started.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// A file could not be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// What is told while an environment is made.
#[derive(Clone, Copy, Debug)]
pub enum Making<'a> {
    /// Another process makes it.
    Waiting,
    /// It is made by this tool: `uv`, `pip`.
    Begun(&'static str),
    /// The tool printed a line.
    Line(&'a str),
}

/// What is noted of an environment that is whole.
#[derive(Serialize, Deserialize)]
pub(super) struct Complete {
    /// The name of the directory that it lies in.
    directory: String,
    pub(super) version: String,
    pub(super) lock: String,
    platform: String,
    made_by: String,
}

/// A Python environment that is there for as long as this is alive.
#[derive(Debug)]
pub struct Held {
    /// Where it lies.
    pub directory: PathBuf,
    /// None where this user may not lock it, and so cannot keep another from removing it.
    _lock: Option<Lock>,
}

/// Something that makes environments, and how it tells of it.
struct Maker<'a> {
    scratch: &'a Path,
    stop: &'a Stop,
    tell: &'a mut (dyn FnMut(Making<'_>) + Send),
}

impl Wanted {
    /// Returns the environment for a `lock` with this `text`. `project` is the `pyproject.toml` beside it, if there is one.
    pub fn new(version: &str, lock: ProjectPath, text: Vec<u8>, project: Option<Vec<u8>>) -> Self {
        let project = project.filter(|_| is_uv(&lock));
        Self { version: version.to_owned(), lock, text, project }
    }

    /// Returns the environment for the lock that lies in the project at `root`; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`DiskError`] if a file cannot be read.
    pub fn in_directory(root: &Path, version: &str, lock: &ProjectPath) -> Result<Option<Self>, DiskError> {
        let Some(text) = disk::read_if_there(&lock.under(root))? else { return Ok(None) };
        let project = disk::read_if_there(&disk::parent(&lock.under(root)).join("pyproject.toml"))?;
        Ok(Some(Self::new(version, lock.clone(), text, project)))
    }

    /// Returns the lock's path in the project.
    pub fn lock(&self) -> &ProjectPath {
        &self.lock
    }

    /// Returns the version of Python that is asked for.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Returns what decides about the environment, as one digest: version, lock and platform.
    pub fn digest(&self) -> Digest {
        let project = self.project.as_deref().map(Digest::of);
        let parts = (&self.version, Digest::of(&self.text), project, host::platform());
        Digest::derived("pv python-environment v1", &canonical(&parts).expect("texts only"))
    }

    /// Returns what identifies the environment where nobody saw what a step used of it.
    pub fn identity(&self) -> String {
        let project = self.project.as_deref().map(|text| format!(" project {}", Digest::of(text))).unwrap_or_default();
        format!("{} lock {}{project}", self.version, Digest::of(&self.text))
    }

    /// Returns name → version of what the lock pins.
    ///
    /// # Errors
    ///
    /// [`PythonError::Lock`] if it does not pin everything by hash.
    pub fn pins(&self) -> Result<BTreeMap<String, String>, PythonError> {
        if is_uv(&self.lock) {
            return Ok(lock::read_uv(&self.text));
        }
        lock::read_requirements(&self.text).map_err(|source| PythonError::Lock { lock: self.lock.clone(), source })
    }

    /// Returns what the lock tells of the environment before it is made.
    pub(in crate::environment) fn foretold(&self) -> Foretold {
        let pins = self.pins();
        // What is named by an address has no version in a lock.
        let is_all = pins.is_ok() && (is_uv(&self.lock) || !String::from_utf8_lossy(&self.text).contains(" @ "));
        Foretold { version: self.version.clone(), pins: pins.unwrap_or_default(), is_all }
    }

    /// Returns where the environment lies below `base` if it is there, whole.
    ///
    /// Costs a read of a small file. An environment whose Python has gone from the machine is none.
    pub fn made(&self, base: &Path) -> Option<PathBuf> {
        let home = base.join(self.digest().to_string());
        let noted: Complete = serde_json::from_slice(&disk::read_if_there(&home.join(COMPLETE)).ok()??).ok()?;
        directory_of(&home, &noted)
    }

    /// Returns the environment below `base`, and makes it if it is not there, unless `offline`. Nobody removes it while it is held.
    ///
    /// Of several processes one makes it, and the others wait. `tell` is told what happens meanwhile. Costs a look if it is
    /// there, else what the tools take.
    ///
    /// # Errors
    ///
    /// [`PythonError`] if it cannot be made; what there is of it is not used by anybody.
    pub fn provide(
        &self,
        base: &Path,
        offline: bool,
        tell: &mut (dyn FnMut(Making<'_>) + Send),
        stop: &Stop,
    ) -> Result<Held, PythonError> {
        let lock_path = stock::lock_of(base, &self.digest());
        let mut is_told = false;
        loop {
            if let Some(held) = self.hold(base)? {
                return Ok(held);
            }
            if self.made(base).is_none() {
                let pins = self.pins()?;
                if offline {
                    return Err(PythonError::Offline { lock: self.lock.clone() });
                }
                if let Some(alone) = Lock::try_exclusive(&lock_path)? {
                    if self.made(base).is_none() {
                        self.make(base, &pins, tell, stop)?;
                    }
                    drop(alone);
                    continue;
                }
                if !std::mem::replace(&mut is_told, true) {
                    tell(Making::Waiting);
                }
            }
            if stop.wait(LOOK_AGAIN) {
                return Err(PythonError::Interrupted);
            }
        }
    }

    /// Returns the environment below `base` if it is there and nobody is making or removing it. Nobody removes it while it is held.
    ///
    /// # Errors
    ///
    /// [`PythonError::Disk`] if the file system has no locks.
    pub fn hold(&self, base: &Path) -> Result<Option<Held>, PythonError> {
        // Where nothing was made there is no lock to make either.
        if self.made(base).is_none() {
            return Ok(None);
        }
        // Looked for again once it is held: it may just have been removed.
        let lock = match Lock::try_shared(&stock::lock_of(base, &self.digest())) {
            Err(error) if error.is_refused() => None,
            Ok(None) => return Ok(None),
            held => held?.inspect(stock::note_use),
        };
        Ok(self.made(base).map(|directory| Held { directory, _lock: lock }))
    }

    /// Makes the environment, whose lock the caller has alone.
    fn make(
        &self,
        base: &Path,
        pins: &BTreeMap<String, String>,
        tell: &mut (dyn FnMut(Making<'_>) + Send),
        stop: &Stop,
    ) -> Result<(), PythonError> {
        let home = base.join(self.digest().to_string());
        // What an attempt left that did not come to its end. What cannot be removed is in nobody's way.
        let number = last_attempt(&home) + 1;
        drop(disk::remove_tree(&home));
        let directory = home.join(number.to_string());
        let scratch = home.join(format!("{number}.making"));
        disk::make_directory(&scratch)?;
        let made_by = Maker { scratch: &scratch, stop, tell }.make(self, pins, &directory)?;
        drop(disk::remove_tree(&scratch));
        // After a power cut a package may not be empty where this says that it is whole.
        disk::sync_file_system(&directory)?;
        let noted = Complete {
            directory: number.to_string(),
            version: self.version.clone(),
            lock: self.lock.to_string(),
            platform: host::platform(),
            made_by: made_by.to_owned(),
        };
        let text = serde_json::to_vec(&noted).expect("texts only");
        Ok(disk::write_whole(&home.join(COMPLETE), &text, Durability::Synced)?)
    }
}

impl Maker<'_> {
    /// Makes the environment in `directory`, which is not there yet, and returns the name of the tool.
    fn make(
        &mut self,
        wanted: &Wanted,
        pins: &BTreeMap<String, String>,
        directory: &Path,
    ) -> Result<&'static str, PythonError> {
        let search_path = super::super::search_path();
        let lock = self.scratch.join("requirements.txt");
        let uv = host::find_program("uv", &search_path);
        if is_uv(&wanted.lock) {
            let Some(uv) = &uv else { return Err(PythonError::NoUv { lock: wanted.lock.clone() }) };
            (self.tell)(Making::Begun("uv"));
            self.export(uv, wanted, &lock)?;
        } else {
            disk::write_whole(&lock, &wanted.text, Durability::Deferred)?;
        }
        let (target, python, lock) = (text(directory), text(&directory.join("bin/python")), text(&lock));
        if let Some(uv) = uv {
            if !is_uv(&wanted.lock) {
                (self.tell)(Making::Begun("uv"));
            }
            self.run("uv venv", &uv, &["venv", "--no-project", "--python", &wanted.version, &target])?;
            // Copies, since links would lead into the cache of uv, which others use. Compiled once, since steps write no byte code.
            let sync = ["pip", "sync", "--require-hashes", "--allow-empty-requirements", "--link-mode", "copy"];
            self.run("uv pip sync", &uv, &[&sync[..], &["--compile-bytecode", "--python", &python, &lock]].concat())?;
            return Ok("uv");
        }
        (self.tell)(Making::Begun("pip"));
        let interpreter =
            interpreter(&wanted.version, &search_path, &mut |program, words| self.run("python", program, words))?;
        self.run("python -m venv", &interpreter, &["-I", "-m", "venv", &target])?;
        let pip = ["-I", "-m", "pip", "--disable-pip-version-check", "--no-input"];
        let install = ["install", "--require-hashes", "--no-deps", "--no-warn-script-location", "-r", &lock];
        let python = Path::new(&python);
        self.run("pip install", python, &[&pip[..], &install].concat())?;
        let unasked: Vec<&str> = FILLERS.into_iter().filter(|name| !pins.contains_key(*name)).collect();
        if !unasked.is_empty() {
            self.run("pip uninstall", python, &[&pip[..], &["uninstall", "--yes", "--quiet"], &unasked].concat())?;
        }
        Ok("pip")
    }

    /// Writes what a lock of uv asks for in the format of requirements files.
    fn export(&mut self, uv: &Path, wanted: &Wanted, to: &Path) -> Result<(), PythonError> {
        let project = self.scratch.join("project");
        disk::write_whole(&project.join("uv.lock"), &wanted.text, Durability::Deferred)?;
        let about = wanted.project.as_deref().unwrap_or_default();
        disk::write_whole(&project.join("pyproject.toml"), about, Durability::Deferred)?;
        let (project, to_text) = (text(&project), text(to));
        let export = ["export", "--frozen", "--no-emit-project", "--format", "requirements-txt"];
        self.run("uv export", uv, &[&export[..], &["--project", &project, "--output-file", &to_text]].concat())?;
        let exported = disk::read_if_there(to)?.unwrap_or_default();
        let unusable = |source| PythonError::Lock { lock: wanted.lock.clone(), source };
        lock::read_requirements(&exported).map(drop).map_err(unusable)
    }

    /// Runs a tool to its good end and returns the last lines that it printed.
    fn run(&mut self, tool: &'static str, program: &Path, arguments: &[&str]) -> Result<Vec<String>, PythonError> {
        run(tool, program, arguments, &[], self.scratch, &self.scratch.join("log"), self.tell, self.stop)
    }
}

/// Returns a Python of this version that can make environments; `ask` runs one and returns what it says.
///
/// # Errors
///
/// [`PythonError::NoPython`] or [`PythonError::Bare`] if there is none.
pub(super) fn interpreter(
    version: &str,
    search_path: &str,
    ask: &mut dyn FnMut(&Path, &[&str]) -> Result<Vec<String>, PythonError>,
) -> Result<PathBuf, PythonError> {
    let mut bare = None;
    let minor = version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
    for directory in std::env::split_paths(search_path) {
        for name in [format!("python{minor}"), "python3".to_owned(), "python".to_owned()] {
            let Some(program) = host::find_program(&name, &directory.to_string_lossy()) else { continue };
            let said = match ask(&program, &["-I", "-c", WHICH]) {
                Ok(said) => said,
                Err(PythonError::Interrupted) => return Err(PythonError::Interrupted),
                // One that does not run, such as a shim of a version that is not chosen, is none.
                Err(_) => continue,
            };
            let Some(said) = said.iter().find_map(|line| line.strip_prefix("python ")) else { continue };
            let (found, is_bare) = said.strip_suffix(" bare").map_or((said, false), |found| (found, true));
            match is_of(found, version) {
                true if is_bare => drop(bare.get_or_insert(program)),
                true => return Ok(program),
                false => {}
            }
        }
    }
    let version = version.to_owned();
    Err(match bare {
        Some(program) => PythonError::Bare { version, program },
        None => PythonError::NoPython { version },
    })
}

/// Runs a tool with the user's variables, and a few `more`, to its good end, and returns the last lines that it printed.
///
/// # Errors
///
/// [`PythonError::Tool`] if it fails.
#[expect(clippy::too_many_arguments, reason = "the parts of one execution")]
pub(super) fn run(
    tool: &'static str,
    program: &Path,
    arguments: &[&str],
    more: &[(&str, &str)],
    directory: &Path,
    log: &Path,
    tell: &mut (dyn FnMut(Making<'_>) + Send),
    stop: &Stop,
) -> Result<Vec<String>, PythonError> {
    let words = std::iter::once(text(program)).chain(arguments.iter().map(|word| (*word).to_owned()));
    let command = Command::Direct(words.collect());
    let mut environment = host::variables();
    LEADING.iter().for_each(|name| drop(environment.remove(*name)));
    for (name, value) in more.iter().chain(&[("PYTHONUNBUFFERED", "1")]) {
        environment.insert((*name).to_owned(), OsString::from(value));
    }
    let job = Job {
        command: &command,
        directory,
        environment: &environment,
        time_limit: None,
        memory: None,
        log,
        world: None,
        observe: false,
        permission: None,
        pins: None,
    };
    let mut tail: Vec<String> = Vec::new();
    let mut on_line = |line: &[u8]| {
        let line = String::from_utf8_lossy(line).trim_end().to_owned();
        if !line.is_empty() {
            tell(Making::Line(&line));
            tail.push(line);
            let more = tail.len().saturating_sub(TAIL_LINES);
            tail.drain(..more);
        }
    };
    let how = match exec::run(&job, &mut on_line, stop)?.end {
        End::Exited(0) => return Ok(tail),
        End::Interrupted => return Err(PythonError::Interrupted),
        End::Exited(code) => format!("exited with code {code}"),
        End::Signalled(signal) => format!("was killed by signal {signal}"),
        End::TimedOut => "took too long".to_owned(),
    };
    Err(PythonError::Tool { tool, how, tail })
}

/// Returns the directory of an environment, of which this is noted; `None` if its Python has gone, or the note is not one of ours.
pub(super) fn directory_of(home: &Path, noted: &Complete) -> Option<PathBuf> {
    let is_name = noted.directory.bytes().all(|byte| byte.is_ascii_digit());
    let directory = home.join(&noted.directory);
    (is_name && directory.join("bin/python").is_file()).then_some(directory)
}

/// Returns whether a version is the one that was asked for, or one of those if that leaves its last parts open.
fn is_of(found: &str, wanted: &str) -> bool {
    found.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn is_uv(lock: &ProjectPath) -> bool {
    lock.name() == b"uv.lock"
}

fn last_attempt(home: &Path) -> u64 {
    let entries = fs::read_dir(home).into_iter().flatten().flatten();
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.split('.').next()?.parse().ok();
    entries.filter_map(number).max().unwrap_or_default()
}

/// Paths here are those of the repository and of programs; one that is no text is not found by the tools either.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(version: &str, lock: &str, text: &str, project: Option<&str>) -> Wanted {
        let project = project.map(|text| text.as_bytes().to_vec());
        Wanted::new(version, ProjectPath::new(lock).unwrap(), text.as_bytes().to_vec(), project)
    }

    #[test]
    fn an_environment_is_another_if_version_or_lock_are_and_not_if_the_lock_only_lies_elsewhere() {
        let one = wanted("3.11", "requirements.lock", "a==1 --hash=sha256:aa\n", None);
        assert_eq!(one.digest(), wanted("3.11", "b/x.lock", "a==1 --hash=sha256:aa\n", Some("x")).digest());
        assert_ne!(one.digest(), wanted("3.12", "requirements.lock", "a==1 --hash=sha256:aa\n", None).digest());
        assert_ne!(one.digest(), wanted("3.11", "requirements.lock", "a==2 --hash=sha256:aa\n", None).digest());
        let uv = |project| wanted("3.11", "uv.lock", "x", Some(project)).digest();
        assert_ne!(uv("[project]"), uv("[tool]"), "what a lock of uv means is told by the project beside it");
    }

    #[test]
    fn a_version_is_met_by_one_that_says_more() {
        assert!(is_of("3.11.7", "3.11") && is_of("3.11.7", "3.11.7") && is_of("3.11.7", "3"));
        assert!(!is_of("3.11.7", "3.1") && !is_of("3.1.7", "3.11") && !is_of("3.11.7", "3.11.70"));
    }

    #[test]
    fn an_environment_is_there_only_if_it_came_to_its_end_and_still_has_a_python() {
        let base = tempfile::tempdir().unwrap();
        let wanted = wanted("3.11", "requirements.lock", "", None);
        let home = base.path().join(wanted.digest().to_string());
        let python = home.join("2/bin/python");
        disk::write_whole(&python, b"", Durability::Deferred).unwrap();
        assert_eq!(wanted.made(base.path()), None, "nothing says that it is whole");
        let note = |directory: &str| {
            let text = format!(
                "{{\"directory\":\"{directory}\",\"version\":\"3.11\",\"lock\":\"l\",\"platform\":\"p\",\"made_by\":\"pip\"}}"
            );
            disk::write_whole(&home.join(COMPLETE), text.as_bytes(), Durability::Deferred).unwrap();
        };
        note("2");
        assert_eq!(wanted.made(base.path()), Some(home.join("2")));
        assert_eq!(last_attempt(&home), 2);
        note("../2");
        assert_eq!(wanted.made(base.path()), None);
        note("2");
        fs::remove_file(python).unwrap();
        assert_eq!(wanted.made(base.path()), None, "its Python has gone");
    }
}
