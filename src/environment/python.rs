//! The distributions that are installed for a Python interpreter.
//!
//! Read from the names of their metadata directories, without starting the
//! interpreter. Source: the specification "Recording installed projects"
//! (`{name}-{version}.dist-info`) and `site`'s documentation for where
//! site-packages lies, in a virtual environment and without.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

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
            let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".dist-info")) else { continue };
            if let Some((distribution, version)) = stem.rsplit_once('-') {
                let normal = distribution.to_lowercase().replace(['_', '.'], "-");
                // The first directory on the path wins, as it does for imports.
                found.entry(normal).or_insert_with(|| version.to_owned());
            }
        }
    }
    found
}

/// Returns name → version of the distributions in the directory `site` that own any of `files`.
///
/// By the records of what each installed; costs a read of each record.
pub fn loaded(site: &Path, files: &BTreeSet<PathBuf>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let Ok(entries) = fs::read_dir(site) else { return found };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".dist-info")) else { continue };
        let Some((distribution, version)) = stem.rsplit_once('-') else { continue };
        let record = fs::read_to_string(entry.path().join("RECORD")).unwrap_or_default();
        let owns = |line: &str| line.split(',').next().is_some_and(|path| files.contains(&site.join(path)));
        if record.lines().any(owns) {
            found.insert(distribution.to_lowercase().replace(['_', '.'], "-"), version.to_owned());
        }
    }
    found
}

fn is_python(program: &Path) -> bool {
    let name = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.strip_prefix("python").is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '.'))
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
