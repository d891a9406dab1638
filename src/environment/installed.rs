//! What is installed in an image, as far as it says so itself: packages of Debian and of Python.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::object::{DecodeError, Entry, Kind, Node, TreeId};
use crate::store::{Store, StoreError};

/// Where Debian notes what is installed.
const STATUS: [&str; 4] = ["var", "lib", "dpkg", "status"];
/// The ends of the names of what describes a distribution of Python: a directory, and with the older one perhaps a file.
const DISTRIBUTION: &str = ".dist-info";
const OLD_DISTRIBUTION: &str = ".egg-info";

/// Something installed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Package {
    /// Who installed it: `debian` or `python`.
    pub manager: &'static str,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Why it cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum InstalledError {
    /// A directory hashes right and makes no sense.
    #[error("a directory of the image cannot be understood")]
    NotUnderstood(#[from] DecodeError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Returns what is installed in the image whose files are `tree`, sorted.
///
/// Costs a read of every distinct directory in it.
///
/// # Errors
///
/// [`InstalledError`] if a directory is missing or damaged.
pub fn installed(store: &dyn Store, tree: TreeId) -> Result<Vec<Package>, InstalledError> {
    let mut packages = Vec::new();
    let mut at = Some(Entry::Directory { id: tree, sized: crate::object::Sized::default() });
    for name in STATUS {
        at = match at {
            Some(Entry::Directory { id, .. }) => entries(store, id)?.remove(name.as_bytes()),
            _ => None,
        };
    }
    if let Some(Entry::File { id, .. }) = at {
        packages.extend(of_debian(&String::from_utf8_lossy(&store.get(Kind::Blob, id.digest())?)));
    }
    let mut todo = vec![tree];
    let mut seen = std::collections::BTreeSet::new();
    while let Some(directory) = todo.pop() {
        if !seen.insert(directory) {
            continue;
        }
        for (name, entry) in entries(store, directory)? {
            match (distribution(&String::from_utf8_lossy(&name)), entry) {
                (Some((name, version)), Entry::Directory { .. } | Entry::File { .. }) => {
                    packages.push(Package { manager: "python", name, version });
                }
                (None, Entry::Directory { id, .. }) => todo.push(id),
                _ => {}
            }
        }
    }
    packages.sort();
    packages.dedup();
    Ok(packages)
}

/// Returns the name and the version of the distribution that something of this name describes.
fn distribution(name: &str) -> Option<(String, String)> {
    let (name, version) = match name.strip_suffix(DISTRIBUTION) {
        Some(named) => named.rsplit_once('-')?,
        None => {
            let (name, rest) = name.strip_suffix(OLD_DISTRIBUTION)?.split_once('-')?;
            // The version of Python that it was installed for may be there too.
            (name, rest.split_once("-py").map_or(rest, |(version, _)| version))
        }
    };
    Some((name.replace('_', "-").to_lowercase(), version.to_owned()))
}

/// Returns what is in a directory, its nodes together.
fn entries(store: &dyn Store, tree: TreeId) -> Result<BTreeMap<Vec<u8>, Entry>, InstalledError> {
    match Node::decode(&store.get(Kind::Tree, tree.digest())?)? {
        Node::Leaf(found) => Ok(found.into_iter().collect()),
        Node::Inner(children) => {
            let mut all = BTreeMap::new();
            for child in children {
                all.extend(entries(store, child.id)?);
            }
            Ok(all)
        }
    }
}

/// Returns the packages that are wholly installed by the notes of Debian.
fn of_debian(status: &str) -> Vec<Package> {
    let field = |paragraph: &str, name: &str| {
        paragraph.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned()))
    };
    let package = |paragraph: &str| {
        let is_there = field(paragraph, "Status")?.ends_with(" installed");
        let (name, version) = (field(paragraph, "Package")?, field(paragraph, "Version")?);
        is_there.then_some(Package { manager: "debian", name, version })
    };
    status.split("\n\n").filter_map(package).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::TreeBuilder;
    use crate::store::MemoryStore;

    fn directory(store: &MemoryStore, entries: &[(&str, Entry)]) -> Entry {
        let mut builder =
            TreeBuilder::new(|bytes: &[u8]| store.put_bytes(Kind::Tree, bytes).map(|put| put.digest.into()));
        entries.iter().for_each(|(name, entry)| builder.push(name.as_bytes(), entry).unwrap());
        let (id, sized) = builder.finish().unwrap();
        Entry::Directory { sized, id }
    }

    #[test]
    fn a_distribution_is_told_by_its_name_of_either_kind() {
        let told = |name| distribution(name).map(|(name, version)| format!("{name} {version}"));
        assert_eq!(told("scikit_learn-1.4.0.dist-info").unwrap(), "scikit-learn 1.4.0");
        assert_eq!(told("scikit_learn-1.2.1.egg-info").unwrap(), "scikit-learn 1.2.1");
        assert_eq!(told("PyYAML-6.0-py3.11.egg-info").unwrap(), "pyyaml 6.0");
        assert_eq!(["own.egg-info", "numpy", "x.dist-info"].map(told), [const { None }; 3]);
    }

    #[test]
    fn packages_of_debian_and_python_are_told_and_removed_ones_are_not() {
        let store = MemoryStore::default();
        let status = "Package: base\nStatus: install ok installed\nVersion: 1-2\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 3\n";
        let put = store.put_bytes(Kind::Blob, status.as_bytes()).unwrap();
        let file = Entry::File { executable: false, size: put.size, id: put.digest.into() };
        let empty = directory(&store, &[]);
        let python = directory(&store, &[("numpy", empty.clone()), ("scikit_learn-1.4.0.dist-info", empty)]);
        let above =
            |names: &[&str], entry| names.iter().rev().fold(entry, |entry, name| directory(&store, &[(*name, entry)]));
        let var = above(&["lib", "dpkg", "status"], file);
        let usr = above(&["lib", "python3.11", "site-packages"], python);
        let Entry::Directory { id, .. } = directory(&store, &[("usr", usr), ("var", var)]) else { unreachable!() };
        let told: Vec<_> = installed(&store, id).unwrap().into_iter().map(|p| (p.manager, p.name, p.version)).collect();
        let expected = [("debian", "base", "1-2"), ("python", "scikit-learn", "1.4.0")];
        assert_eq!(told, expected.map(|(manager, name, version)| (manager, name.to_owned(), version.to_owned())));
    }
}
