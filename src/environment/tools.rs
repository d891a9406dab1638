//! The programs that a command names, and what identifies each.
//!
//! Steps of one pipeline may run in several environments, and each has tools of its own. What lies in a Python environment
//! that is provided is told by where steps find it, [`VENV`], wherever it is on this machine.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::python::{self, Foretold, Packages, Wanted};
use super::rules::Rules;
use crate::hash::Digest;
use crate::host;
use crate::path::ProjectPath;
use crate::pipeline::{Environment, Python};

/// A longer file is no script that an installer wrote.
const SCRIPT_MAX_BYTES: u64 = 64 * 1024;

/// Where an isolated step finds the Python environment that is provided for it.
pub const VENV: &str = "/pv/venv";
/// The name of the fact that identifies that environment, where nobody saw what a step used of it.
pub const ENVIRONMENT: &str = "environment python";
/// Stands between a program and a distribution in the name of the fact that tells its contents.
pub const BUILD: &str = " build ";

/// The tools of each environment that steps of a pipeline run in.
pub struct Toolboxes {
    host: Tools,
    pythons: Vec<(Python, Tools)>,
}

impl Toolboxes {
    /// Returns the tools of the host, and none of other environments yet.
    pub fn new(host: Tools) -> Self {
        Self { host, pythons: Vec::new() }
    }

    /// Adds the tools of a Python environment that is provided at `directory`; `None` if it is not there yet.
    pub fn add(&mut self, python: &Python, wanted: &Wanted, directory: Option<PathBuf>) {
        let foretold = directory.is_none().then(|| wanted.foretold());
        let venv = Venv { directory, identity: wanted.identity(), foretold };
        let search_path = match &venv.directory {
            Some(directory) => format!("{}:{}", directory.join("bin").display(), self.host.search_path),
            None => self.host.search_path.clone(),
        };
        let tools = Tools { venv: Some(venv), ..Tools::new(search_path).with_rules(self.host.rules.clone()) };
        self.pythons.retain(|(known, _)| known != python);
        self.pythons.push((python.clone(), tools));
    }

    /// Returns the tools of `environment`; those of the host if nothing is known of it.
    pub fn of(&self, environment: &Environment) -> &Tools {
        let found = match environment {
            Environment::Python(python) => self.pythons.iter().find(|(known, _)| known == python),
            _ => None,
        };
        found.map_or(&self.host, |(_, tools)| tools)
    }

    /// Returns the locks of the environments that are not there yet.
    pub fn unmade(&self) -> impl Iterator<Item = &ProjectPath> {
        let unmade = self.pythons.iter().filter(|(_, tools)| tools.venv().is_none());
        unmade.map(|(python, _)| &python.lock)
    }
}

/// Programs found on the search path, each looked at once.
#[derive(Default)]
pub struct Tools {
    search_path: String,
    venv: Option<Venv>,
    known: Mutex<BTreeMap<String, Facts>>,
    found: Mutex<BTreeMap<String, Option<Program>>>,
    packages: Packages,
    rules: Rules,
}

/// A Python environment that is provided for steps.
struct Venv {
    /// Where it lies; `None` if it is not there yet.
    directory: Option<PathBuf>,
    identity: String,
    /// What the lock tells of it while it is not there.
    foretold: Option<Foretold>,
}

/// What is known of a fact about a Python environment that is not there yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Foresight {
    /// It will be this; `None` if there will be no such thing.
    WillBe(Option<String>),
    /// Nothing tells before the environment is made.
    Unknown,
}

/// A program, and what is installed for it if it is a Python.
#[derive(Clone)]
struct Program {
    path: PathBuf,
    packages: Arc<BTreeMap<String, String>>,
}

/// What identifies a program: named facts, such as `python3` and `python3 package numpy`.
type Facts = BTreeMap<String, String>;

impl Tools {
    /// Returns the tools on `search_path`, written as in `PATH`.
    pub fn new(search_path: String) -> Self {
        Self { search_path, ..Self::default() }
    }

    /// Sets the rules that tell the environment from inputs.
    #[must_use]
    pub fn with_rules(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// Returns the rules that tell the environment from inputs.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Returns what is known of the directories of Python packages.
    pub fn packages(&self) -> &Packages {
        &self.packages
    }

    /// Returns where the Python environment lies that is provided for steps, if there is one.
    pub fn venv(&self) -> Option<&Path> {
        self.venv.as_ref()?.directory.as_deref()
    }

    /// Returns what identifies the Python environment that steps run in, if they do not run in the host's.
    pub fn identity(&self) -> Option<&str> {
        Some(self.venv.as_ref()?.identity.as_str())
    }

    /// Returns whether steps are to find a Python environment that is not there yet.
    pub fn is_unmade(&self) -> bool {
        self.venv.as_ref().is_some_and(|venv| venv.foretold.is_some())
    }

    /// Returns what the fact of this name, as [`Tools::present`] has it, will be when the Python environment is there that is
    /// not; `None` if the environment does not decide that, or is there.
    pub fn foresee(&self, fact: &str) -> Option<Foresight> {
        let foretold = self.venv.as_ref()?.foretold.as_ref()?;
        let is_below = |path: &str| Path::new(path).starts_with(VENV);
        let is_its_python =
            |program: &str| python::is_python(Path::new(program)) && (!program.contains('/') || is_below(program));
        if let Some((program, distribution)) = fact.split_once(" package ") {
            return is_its_python(program).then(|| match foretold.pins.get(distribution) {
                None if !foretold.is_all => Foresight::Unknown,
                version => Foresight::WillBe(version.cloned()),
            });
        }
        if let Some((program, _)) = fact.split_once(BUILD) {
            return is_its_python(program).then_some(Foresight::Unknown);
        }
        if let Some(path) = fact.strip_prefix("library ") {
            return is_below(path).then_some(Foresight::Unknown);
        }
        if fact == ENVIRONMENT || fact.starts_with("variable ") {
            return None;
        }
        if is_its_python(fact) {
            let other = python::version_in_name(fact).is_some_and(|version| !foretold.may_be(version));
            return Some(if other { Foresight::WillBe(None) } else { Foresight::Unknown });
        }
        // What the machine does not have may be a script of a package.
        (is_below(fact) || !fact.contains('/') && self.find(fact).is_none()).then_some(Foresight::Unknown)
    }

    /// Returns whether a path lies in a Python environment that is not there yet.
    pub fn is_in_unmade(&self, path: &Path) -> bool {
        self.is_unmade() && path.starts_with(VENV)
    }

    /// Returns where a path lies on this machine that steps find below [`VENV`]; any other path as it is.
    pub fn real<'p>(&self, path: &'p Path) -> Cow<'p, Path> {
        match (self.venv(), path.strip_prefix(VENV)) {
            (Some(venv), Ok(rest)) => venv.join(rest).into(),
            _ => path.into(),
        }
    }

    /// Returns a path below the Python environment as isolated steps find it; any other path as it is.
    pub fn told<'p>(&self, path: &'p Path) -> Cow<'p, Path> {
        match self.venv().map(|venv| path.strip_prefix(venv)) {
            Some(Ok(rest)) => Path::new(VENV).join(rest).into(),
            _ => path.into(),
        }
    }

    /// Returns what the files of `distribution` are that `program`, a Python, would load, as one digest; `None` if nothing tells.
    ///
    /// Costs, the first time for a program, a search for it, and a read of what the distribution says that it installed.
    pub fn build(&self, program: &str, distribution: &str) -> Option<String> {
        python::build(&self.program(program)?.path, distribution).map(|digest| digest.to_string())
    }

    /// Returns what the fact of this name is now, as [`Tools::identify`] would tell it; `None` if there is no such thing.
    ///
    /// Facts are `<program>`, `<program> package <distribution>`, `library <path>` and `variable <name>`. A program is
    /// looked for on the search path, or is an absolute path. `digest` returns the digest of a file's bytes, if it can
    /// be read; it may remember it. Costs, the first time, a search for the program and a list of its packages.
    pub fn present(&self, fact: &str, digest: &dyn Fn(&Path) -> Option<Digest>) -> Option<String> {
        if let Some(path) = fact.strip_prefix("library ") {
            return identity(&self.real(Path::new(path)), digest);
        }
        if let Some(name) = fact.strip_prefix("variable ") {
            return host::variable(name);
        }
        match fact.split_once(" package ") {
            Some((name, distribution)) => self.program(name)?.packages.get(distribution).cloned(),
            None => identity(&self.program(fact)?.path, digest),
        }
    }

    fn program(&self, name: &str) -> Option<Program> {
        let mut found = self.found.lock().expect("no holder panics");
        let look = || {
            let path = if name.starts_with('/') { self.real(Path::new(name)).into_owned() } else { self.find(name)? };
            let packages = Arc::new(python::packages(&path));
            path.is_file().then_some(Program { path, packages })
        };
        found.entry(name.to_owned()).or_insert_with(look).clone()
    }

    /// Returns where programs are searched for, written as in `PATH`.
    pub fn search_path(&self) -> &str {
        &self.search_path
    }

    /// Returns what identifies the programs among `words`: `name` → digest of
    /// the program's bytes, and for a Python `name package <distribution>` → version.
    ///
    /// A word that is no program on the search path adds nothing. That also an
    /// argument counts (`time python3 x.py`) can only add a fact too many, never
    /// miss one. Costs one read of each program that was not asked for before.
    pub fn identify<'w>(&self, words: impl IntoIterator<Item = &'w str>) -> BTreeMap<String, String> {
        let mut facts = BTreeMap::new();
        for word in words {
            let mut known = self.known.lock().expect("no holder panics");
            let found = known.entry(word.to_owned()).or_insert_with(|| self.look_at(word));
            facts.extend(found.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        facts
    }

    fn look_at(&self, name: &str) -> Facts {
        let Some(program) = self.find(name) else { return Facts::new() };
        let mut facts = Facts::new();
        let digest = |path: &Path| self.digest(path);
        facts.extend(identity(&program, &digest).map(|identity| (name.to_owned(), identity)));
        for (distribution, version) in python::packages(&program) {
            facts.insert(format!("{name} package {distribution}"), version);
        }
        facts
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        // The host's Python is none for a step that is to have another.
        if self.venv.as_ref().is_some_and(|venv| venv.directory.is_none()) && python::is_python(Path::new(name)) {
            return None;
        }
        let found = host::find_program(name, &self.search_path)?;
        Some(behind_shim(&found, name).unwrap_or(found))
    }

    /// Returns the digest of the program at `path`.
    ///
    /// The scripts of a Python environment say where that lies; they are taken as if it lay where steps find it.
    pub fn digest(&self, path: &Path) -> Option<Digest> {
        let script = self.venv().filter(|venv| path.starts_with(venv) && path.is_file()).and_then(|venv| {
            let length = path.metadata().ok()?.len();
            let bytes = (length <= SCRIPT_MAX_BYTES).then(|| std::fs::read(path).ok())??;
            let text = String::from_utf8(bytes).ok().filter(|text| text.starts_with("#!"))?;
            Some(Digest::of(text.replace(venv.to_str()?, VENV).as_bytes()))
        });
        script.or_else(|| Some(Digest::of_file(path).ok()?.0))
    }
}

/// Returns what identifies the file at `path`, if there is one.
fn identity(path: &Path, digest: &dyn Fn(&Path) -> Option<Digest>) -> Option<String> {
    match digest(path) {
        Some(digest) => Some(digest.to_string()),
        // A program that may be executed but not read is identified by its place.
        None => path.is_file().then(|| format!("unreadable {}", path.display())),
    }
}

/// Follows the shims of pyenv, which are one script whatever version is chosen.
///
/// Source: pyenv's documentation of shims and of `PYENV_VERSION` and the global `version` file.
fn behind_shim(path: &Path, name: &str) -> Option<PathBuf> {
    let mut head = [0; 512];
    let read = File::open(path).ok()?.read(&mut head).ok()?;
    let text = std::str::from_utf8(&head[..read]).ok().filter(|text| text.starts_with("#!"))?;
    let root = text.lines().find_map(|line| line.trim().strip_prefix("export PYENV_ROOT="))?.trim_matches('"');
    let root = Path::new(root);
    let version = host::variable("PYENV_VERSION")
        .or_else(|| std::fs::read_to_string(root.join("version")).ok())?
        .split([':', '\n'])
        .next()?
        .trim()
        .to_owned();
    let program = root.join("versions").join(version).join("bin").join(name);
    program.is_file().then_some(program)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn program(directory: &Path, name: &str, text: &str) {
        let path = directory.join(name);
        crate::disk::write_whole(&path, text.as_bytes(), crate::disk::Durability::Deferred).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn a_program_is_its_bytes_wherever_it_lies_and_other_words_are_nothing() {
        let root = tempfile::tempdir().unwrap();
        let (first, second) = (root.path().join("a"), root.path().join("b"));
        program(&first, "fit", "#!/bin/sh\necho 1\n");
        program(&second, "fit", "#!/bin/sh\necho 1\n");
        let at = |path: &Path| Tools::new(path.display().to_string()).identify(["fit", "data.csv", "--flag"]);
        assert_eq!(at(&first), at(&second));
        assert_eq!(at(&first).len(), 1);
        program(&second, "fit", "#!/bin/sh\necho 2\n");
        assert_ne!(at(&first), at(&second));
    }

    #[test]
    fn a_shim_stands_for_the_version_that_it_starts() {
        let root = tempfile::tempdir().unwrap();
        let shims = root.path().join("shims");
        program(&shims, "py", &format!("#!/bin/sh\nexport PYENV_ROOT=\"{}\"\nexec pyenv\n", root.path().display()));
        program(&root.path().join("versions/1/bin"), "py", "one");
        program(&root.path().join("versions/2/bin"), "py", "two");
        let with = |version: &str| {
            program(root.path(), "version", version);
            Tools::new(shims.display().to_string()).identify(["py"])
        };
        assert_ne!(with("1\n"), with("2\n"));
        assert_eq!(with("1\n")["py"], Digest::of(b"one").to_string());
    }

    #[test]
    fn a_fact_is_told_again_by_its_name_alone() {
        let root = tempfile::tempdir().unwrap();
        program(&root.path().join("bin"), "python3", "interpreter");
        program(&root.path().join("lib/python3.11/site-packages/numpy-1.0.dist-info"), "METADATA", "");
        let tools = Tools::new(root.path().join("bin").display().to_string());
        let asked = Mutex::new(0);
        let digest = |path: &Path| {
            *asked.lock().unwrap() += 1;
            Digest::of_file(path).ok().map(|(digest, _)| digest)
        };
        let facts = tools.identify(["python3"]);
        assert_eq!(facts.keys().collect::<Vec<_>>(), ["python3", "python3 package numpy"]);
        for (name, value) in &facts {
            assert_eq!(tools.present(name, &digest).as_ref(), Some(value), "{name}");
        }
        assert_eq!(*asked.lock().unwrap(), 1, "a version is no matter of digests");
        let library = root.path().join("bin/python3").display().to_string();
        assert_eq!(tools.present(&format!("library {library}"), &digest), Some(facts["python3"].clone()));
        assert_eq!(tools.present(&library, &digest), Some(facts["python3"].clone()));
        assert_eq!(tools.present("python3 package scipy", &digest), None);
        assert_eq!(tools.present("fortran", &digest), None);
        assert_eq!(tools.present("library /nowhere/libx.so", &digest), None);
    }
}
