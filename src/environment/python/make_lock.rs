//! Making the lock of a Python environment: every package that is needed, in one version, by hash.

use std::path::{Path, PathBuf};

use super::lock::{self, LockError};
use super::provide::{Making, PythonError, interpreter, run};
use crate::disk::{self, DiskError, Durability};
use crate::exec::Stop;
use crate::host;
use crate::path::ProjectPath;

/// What stands in a lock as the command that makes it.
const COMMAND: &str = "pv env lock";
/// Names of files that say what a project needs, the more telling first.
const SOURCES: [&str; 3] = ["requirements.in", "pyproject.toml", "requirements.txt"];
/// Ends well if pip-tools is there.
const HAS_PIP_TOOLS: &str = "import piptools";

/// What a lock is to be made of.
#[derive(Clone, Debug)]
pub struct ToLock {
    /// The version of Python that it is for.
    pub version: String,
    /// The file that says what is needed.
    pub source: ProjectPath,
    /// The lock.
    pub lock: ProjectPath,
    /// Whether to take newer versions than those in the lock that is there.
    pub upgrade: bool,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Locked {
    /// How many packages the lock pins.
    pub packages: usize,
    /// Whether there was no lock, or another one.
    pub changed: bool,
    /// What made it: `uv`, `pip-tools`.
    pub made_by: &'static str,
}

impl ToLock {
    /// Returns the file below `root` that says what is needed, beside the lock; `None` if there is none.
    pub fn source_beside(root: &Path, lock: &ProjectPath) -> Option<ProjectPath> {
        let beside = |name: &str| match lock.parent() {
            Some(directory) => Some(directory.join(name.as_bytes())),
            None => ProjectPath::new(name).ok(),
        };
        let is_there = |path: &ProjectPath| path != lock && path.under(root).is_file();
        SOURCES.into_iter().filter_map(beside).find(is_there)
    }

    /// Makes the lock in the project at `root`, by uv or else by pip-tools; whole, or not at all.
    ///
    /// What the lock that is there pins stays as it is where that is possible. Costs what the tools take, which ask a
    /// package index.
    ///
    /// # Errors
    ///
    /// [`PythonError`] if it cannot be made; a lock that was there stays.
    pub fn make(
        &self,
        root: &Path,
        tell: &mut (dyn FnMut(Making<'_>) + Send),
        stop: &Stop,
    ) -> Result<Locked, PythonError> {
        let scratch = tempfile::tempdir().map_err(DiskError::on("make a directory in", Path::new("/tmp")))?;
        let target = self.lock.under(root);
        let before = disk::read_if_there(&target)?;
        let made = scratch.path().join("requirements.txt");
        if let Some(before) = before.as_ref().filter(|_| !self.upgrade) {
            disk::write_whole(&made, before, Durability::Deferred)?;
        }
        let (output, source) = (made.to_string_lossy().into_owned(), self.source.to_string());
        let search_path = super::super::search_path();
        let mut run = |tool, program: &Path, arguments: &[&str]| {
            run(
                tool,
                program,
                arguments,
                &[("CUSTOM_COMPILE_COMMAND", COMMAND)],
                root,
                &scratch.path().join("log"),
                tell,
                stop,
            )
        };
        let made_by = if let Some(uv) = host::find_program("uv", &search_path) {
            let compile = ["pip", "compile", "--generate-hashes", "--custom-compile-command", COMMAND];
            let about = ["--python-version", &self.version, "--output-file", &output, &source];
            run("uv pip compile", &uv, &[&compile[..], &about].concat())?;
            "uv"
        } else {
            let python: PathBuf =
                interpreter(&self.version, &search_path, &mut |program, arguments| run("python", program, arguments))?;
            let no_tool = |error| match error {
                PythonError::Tool { .. } => PythonError::NoLocker { version: self.version.clone() },
                error => error,
            };
            run("python", &python, &["-I", "-c", HAS_PIP_TOOLS]).map_err(no_tool)?;
            let compile = ["-I", "-m", "piptools", "compile", "--generate-hashes", "--allow-unsafe", "--output-file"];
            run("pip-compile", &python, &[&compile[..], &[&output, &source]].concat())?;
            "pip-tools"
        };
        let text = disk::read_if_there(&made)?.unwrap_or_default();
        let unusable = |source: LockError| PythonError::Lock { lock: self.lock.clone(), source };
        let pins = lock::read_requirements(&text).map_err(unusable)?;
        let changed = before.as_deref() != Some(&text);
        if changed {
            disk::write_whole(&target, &text, Durability::Synced)?;
        }
        Ok(Locked { packages: pins.len(), changed, made_by })
    }
}
