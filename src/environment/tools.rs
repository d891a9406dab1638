//! The programs that a command names, and what identifies each.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::python;
use crate::hash::Digest;
use crate::host;

/// Programs found on the search path, each looked at once.
#[derive(Default)]
pub struct Tools {
    search_path: String,
    known: Mutex<BTreeMap<String, Facts>>,
}

/// What identifies a program: named facts, such as `python3` and `python3 package numpy`.
type Facts = BTreeMap<String, String>;

impl Tools {
    /// Returns the tools on `search_path`, written as in `PATH`.
    pub fn new(search_path: String) -> Self {
        Self { search_path, known: Mutex::default() }
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
            let found = known.entry(word.to_owned()).or_insert_with(|| look_at(word, &self.search_path));
            facts.extend(found.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        facts
    }
}

fn look_at(name: &str, search_path: &str) -> Facts {
    let Some(found) = host::find_program(name, search_path) else { return Facts::new() };
    let program = behind_shim(&found, name).unwrap_or(found);
    let mut facts = Facts::new();
    // A program that may be executed but not read is identified by its place.
    let identity = match Digest::of_file(&program) {
        Ok((digest, _)) => digest.to_string(),
        Err(_) => format!("unreadable {}", program.display()),
    };
    facts.insert(name.to_owned(), identity);
    for (distribution, version) in python::packages(&program) {
        facts.insert(format!("{name} package {distribution}"), version);
    }
    facts
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
}
