//! What every Python of an isolated step is given: a module that lets it probe the project's directories for other modules,
//! and that seeds the global generators of modules if the step has a seed.
//!
//! Python lists a directory to find a module in it, so a step would depend on every name beside its script. With this it
//! asks for each module by name, and depends on the names that it asked for, found or not. It reaches Python and
//! all that it starts by `PYTHONPATH`; where that is ignored the listing stays in what the step depends on.

use std::fs;
use std::path::{Path, PathBuf};

use crate::disk::{self, DiskError, Durability};
use crate::exec::PLACE;

/// The directory of the module in a step's place.
const DIRECTORY: &str = "python";
/// The link to the Python environment in a step's place; as the environment's [`crate::environment::VENV`] says.
const VENV_NAME: &str = "venv";
/// The module, under the name of the first that Python loads, and of one that it loads before it runs a program.
const FILES: [&str; 2] = ["encodings.py", "sitecustomize.py"];
/// It depends on where it lies: beside the working place.
const MODULE: &str = include_str!("python/probe.py");

/// The variable that leads Python to it.
pub(super) const VARIABLE: &str = "PYTHONPATH";

/// Puts the module into what becomes the place of a step, unless it is there already. Costs one look if it is.
///
/// # Errors
///
/// [`DiskError`] if it cannot be written.
pub(super) fn lay(room: &Path) -> Result<(), DiskError> {
    let directory = room.join(DIRECTORY);
    if directory.is_dir() {
        return Ok(());
    }
    FILES.iter().try_for_each(|name| disk::write_whole(&directory.join(name), MODULE.as_bytes(), Durability::Deferred))
}

/// Lets a step find the Python environment at `venv` at its one place, or no longer if there is none.
///
/// A link in the place of the step: it leads to the environment where that lies on this machine, and a step that has no
/// view of its own of the machine's files needs none.
///
/// # Errors
///
/// [`DiskError`] if the link cannot be made.
pub(super) fn link(room: &Path, venv: Option<&Path>) -> Result<(), DiskError> {
    let link = room.join(VENV_NAME);
    disk::remove_tree(&link)?;
    let Some(venv) = venv else { return Ok(()) };
    std::os::unix::fs::symlink(venv, &link).map_err(DiskError::on("make", &link))
}

/// Returns the Python environment that [`link`] lets the steps of a room find, if there is one.
pub(super) fn linked(room: &Path) -> Option<PathBuf> {
    fs::read_link(room.join(VENV_NAME)).ok()
}

/// Returns what a step may not change of the machine that it sees: the Python environment, which other steps use as well.
///
/// # Errors
///
/// [`DiskError`] if the environment is not there any more.
pub(super) fn only_read(venv: Option<&Path>) -> Result<Vec<PathBuf>, DiskError> {
    venv.into_iter().map(|venv| fs::canonicalize(venv).map_err(DiskError::on("find", venv))).collect()
}

/// Returns whether what was put there is there as it was, and nothing beside it. A place of which this is not true is used by one step only.
pub(super) fn is_as_laid(room: &Path) -> bool {
    let directory = room.join(DIRECTORY);
    let is_whole = |name: &str| {
        fs::symlink_metadata(directory.join(name)).is_ok_and(|found| found.is_file())
            && fs::read(directory.join(name)).is_ok_and(|bytes| bytes == MODULE.as_bytes())
    };
    fs::read_dir(&directory).is_ok_and(|entries| entries.count() == FILES.len())
        && FILES.iter().all(|name| is_whole(name))
}

/// Returns where the module lies, as a step sees it.
pub(super) fn directory() -> PathBuf {
    Path::new(PLACE).join(DIRECTORY)
}

/// Returns the path that the module looks at, as a step sees it, once it is to seed the modules that are loaded.
pub(super) fn seeded() -> PathBuf {
    directory().join("seeded")
}

/// Returns the directory of the paths that it looks at when it could not seed a module; the last name is the module's.
pub(super) fn unseeded() -> PathBuf {
    directory().join("unseeded")
}

/// Returns the search path of Python that has the module first, and then what the step's definition says.
pub(super) fn search_path(given: Option<&str>) -> String {
    let own = directory().display().to_string();
    match given {
        // An empty path is none; as a part of a longer one it would be the present directory.
        None | Some("") => own,
        Some(given) => format!("{own}:{given}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_comes_before_what_the_definition_says() {
        assert_eq!(search_path(None), "/pv/python");
        assert_eq!(search_path(Some("")), "/pv/python");
        assert_eq!(search_path(Some("src::lib")), "/pv/python:src::lib");
    }

    #[test]
    fn a_changed_module_or_another_file_beside_it_is_noticed() {
        let room = tempfile::tempdir().unwrap();
        lay(room.path()).unwrap();
        assert!(is_as_laid(room.path()));
        disk::write_whole(&room.path().join("python/other.py"), b"", Durability::Deferred).unwrap();
        assert!(!is_as_laid(room.path()));
        fs::remove_file(room.path().join("python/other.py")).unwrap();
        disk::write_whole(&room.path().join("python/sitecustomize.py"), b"#", Durability::Deferred).unwrap();
        assert!(!is_as_laid(room.path()));
    }
}
