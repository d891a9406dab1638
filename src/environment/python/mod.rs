//! Python environments: making one that a lock asks for, and what is installed for an interpreter.
//!
//! What is installed is read from the names of their metadata directories, without starting the
//! interpreter. Source: the specification "Recording installed projects"
//! (`{name}-{version}.dist-info`) and `site`'s documentation for where
//! site-packages lies, in a virtual environment and without.

mod lock;
mod make_lock;
mod provide;
mod site;
mod stock;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::hash::Digest;

pub use lock::LockError;
pub use make_lock::{Locked, ToLock};
pub(super) use provide::Foretold;
pub use provide::{Held, Making, PythonError, Wanted};
pub use site::{Loaded, Packages};
pub use stock::{Made, Unneeded, hold, made, reclaim, remove};

/// Returns name → version of every distribution installed for the interpreter
/// at `program`; nothing if it is no Python. Links are followed only to find
/// the installation, not to leave a virtual environment.
pub(super) fn packages(program: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    if !is_python(program) {
        return found;
    }
    for directory in site_directories(program) {
        let Ok(entries) = fs::read_dir(directory) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if let Some((distribution, version)) = name.to_str().and_then(site::named) {
                // The first directory on the path wins, as it does for imports.
                found.entry(distribution).or_insert(version);
            }
        }
    }
    found
}

/// Returns what the files of a distribution are that the interpreter at `program` would load; `None` if nothing tells.
///
/// Told from its `RECORD`: the hashes of the files that came with it. Left out is what the installer adds, which differs between
/// installers and places: scripts, byte code, notes on where it came from.
pub(super) fn build(program: &Path, distribution: &str) -> Option<Digest> {
    const NOTES: [&str; 6] =
        ["/RECORD", "/INSTALLER", "/REQUESTED", "/direct_url.json", "/uv_cache.json", "/uv_build.json"];
    let place = is_python(program).then(|| site_directories(program))?.into_iter().find_map(|directory| {
        let entries = fs::read_dir(directory).ok()?;
        let is_it = |entry: &fs::DirEntry| {
            let name = entry.file_name();
            name.to_str().and_then(site::named).is_some_and(|(name, _)| name == distribution)
        };
        entries.flatten().find(is_it).map(|entry| entry.path())
    })?;
    let record = fs::read_to_string(place.join("RECORD")).ok()?;
    let is_installed = |line: &&str| {
        let path = line.split(',').next().unwrap_or_default();
        let is_noted = line.rsplit(',').nth(1).is_some_and(|hash| !hash.is_empty());
        let is_note = NOTES.iter().any(|note| path.ends_with(note))
            || Path::new(path).extension().is_some_and(|ending| ending == "pyc");
        is_noted && !is_note && !path.starts_with("../") && !path.starts_with('/')
    };
    let mut lines: Vec<&str> = record.lines().filter(is_installed).collect();
    lines.sort_unstable();
    (!lines.is_empty()).then(|| Digest::derived("pv python-build v1", lines.join("\n").as_bytes()))
}

pub(super) fn is_python(program: &Path) -> bool {
    let name = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.strip_prefix("python").is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '.'))
}

/// Returns the version in the name of a Python: `3.11` of `python3.11`; `None` if that has none.
pub(super) fn version_in_name(program: &str) -> Option<&str> {
    let name = Path::new(program).file_name()?.to_str()?;
    name.strip_prefix("python").filter(|version| !version.is_empty())
}

fn site_directories(program: &Path) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    let prefix = |program: &Path| program.parent().and_then(Path::parent).map(Path::to_owned);
    let own = prefix(program);
    let in_venv = own.as_deref().filter(|prefix| prefix.join("pyvenv.cfg").is_file());
    if let Some(venv) = in_venv {
        add_below(venv, &mut directories);
        let settings = fs::read_to_string(venv.join("pyvenv.cfg")).unwrap_or_default().to_lowercase();
        let sees_system = settings
            .lines()
            .filter_map(|line| line.split_once('='))
            .any(|(key, value)| key.trim() == "include-system-site-packages" && value.trim() == "true");
        if !sees_system {
            return directories;
        }
    }
    for prefix in [own, fs::canonicalize(program).ok().as_deref().and_then(prefix)].into_iter().flatten() {
        add_below(&prefix, &mut directories);
    }
    directories
}

/// Adds `lib/python3*/site-packages`, and Debian's `dist-packages`.
fn add_below(prefix: &Path, directories: &mut Vec<PathBuf>) {
    for library in ["lib", "lib64", "local/lib"] {
        let Ok(entries) = fs::read_dir(prefix.join(library)) else { continue };
        let mut versions: Vec<_> =
            entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("python3")).collect();
        versions.sort_by_key(fs::DirEntry::file_name);
        for version in versions {
            for site in ["site-packages", "dist-packages"] {
                let path = version.path().join(site);
                if path.is_dir() && !directories.contains(&path) {
                    directories.push(path);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Durability, write_whole};

    #[test]
    fn a_virtual_environment_shows_its_own_packages_and_not_those_of_the_system() {
        let root = tempfile::tempdir().unwrap();
        let touch = |path: &str, text: &str| {
            write_whole(&root.path().join(path), text.as_bytes(), Durability::Deferred).unwrap();
        };
        touch("usr/bin/python3.11", "interpreter");
        touch("usr/lib/python3.11/site-packages/numpy-1.0.dist-info/METADATA", "");
        touch("usr/lib/python3/dist-packages/Six_Thing-2.dist-info/METADATA", "");
        touch("venv/pyvenv.cfg", "include-system-site-packages = false\n");
        touch("venv/lib/python3.11/site-packages/scikit_learn-1.7.2.dist-info/METADATA", "");
        fs::create_dir_all(root.path().join("venv/bin")).unwrap();
        std::os::unix::fs::symlink("../../usr/bin/python3.11", root.path().join("venv/bin/python3")).unwrap();
        let of = |path: &str| {
            packages(&root.path().join(path)).into_iter().map(|(n, v)| format!("{n} {v}")).collect::<Vec<_>>()
        };
        assert_eq!(of("venv/bin/python3"), ["scikit-learn 1.7.2"]);
        assert_eq!(of("usr/bin/python3.11"), ["numpy 1.0", "six-thing 2"]);
        touch("venv/pyvenv.cfg", "include-system-site-packages = true\n");
        assert_eq!(of("venv/bin/python3"), ["numpy 1.0", "scikit-learn 1.7.2", "six-thing 2"]);
        assert_eq!(of("venv/pyvenv.cfg"), Vec::<String>::new());
    }
}
