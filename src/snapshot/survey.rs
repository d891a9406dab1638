//! What a snapshot or an output needs and the store does not have.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::SnapshotError;
use super::tree::data_entry;
use crate::hash::Digest;
use crate::object::{Entry, Kind, Node, Snapshot, SnapshotId, TreeId, pins_of_environment};
use crate::path::ProjectPath;
use crate::store::{Store, StoreError};

/// Something that should be in the store and is not there, or not whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gap {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub digest: Digest,
    /// Its length in bytes, where that is known: of files.
    pub size: Option<u64>,
    /// The file or directory that it is, or is a part of. Parts of a snapshot that lie at no path have none.
    pub path: Option<ProjectPath>,
}

/// A look through any number of snapshots and outputs, in which equal directories are looked through once.
///
/// Costs a read of every distinct node, a lookup of every file in them, and memory for their names and for every gap.
pub struct Survey<'a> {
    store: &'a dyn Store,
    lost: &'a BTreeMap<(Kind, Digest), u64>,
    /// What is missing below each directory that was seen, by the path from there.
    nodes: BTreeMap<TreeId, Arc<Vec<Gap>>>,
}

impl<'a> Survey<'a> {
    /// Returns a look into `store`; objects among the `lost` count as missing, whatever it says.
    pub fn new(store: &'a dyn Store, lost: &'a BTreeMap<(Kind, Digest), u64>) -> Self {
        Self { store, lost, nodes: BTreeMap::new() }
    }

    /// Returns what of a snapshot is missing.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Store`] if the store cannot be asked.
    pub fn of_snapshot(&mut self, id: SnapshotId) -> Result<Vec<Gap>, SnapshotError> {
        let whole = |kind: Kind, digest: Digest| Gap { kind, digest, size: None, path: None };
        let bytes = self.read(Kind::Snapshot, id.digest())?;
        let Some(snapshot) = bytes.and_then(|bytes| Snapshot::decode(&bytes).ok()) else {
            return Ok(vec![whole(Kind::Snapshot, id.digest())]);
        };
        let mut gaps = Vec::new();
        let parts = [(Kind::Definition, snapshot.definition.digest()), (Kind::Params, snapshot.params.digest())];
        for (kind, digest) in parts {
            if !self.has(kind, digest, None)? {
                gaps.push(whole(kind, digest));
            }
        }
        match self.read(Kind::Environment, snapshot.environment.digest())?.map(|bytes| pins_of_environment(&bytes)) {
            Some(Ok(pins)) => {
                for pin in pins.values() {
                    // They lie at no path of the snapshot.
                    gaps.extend(self.below(pin.tree)?.iter().map(|gap| Gap { path: None, ..gap.clone() }));
                }
            }
            _ => gaps.push(whole(Kind::Environment, snapshot.environment.digest())),
        }
        gaps.extend(self.below(snapshot.tree)?.iter().cloned());
        for (path, root) in &snapshot.data {
            gaps.extend(self.of_entry(path, &data_entry(root))?);
        }
        Ok(gaps)
    }

    /// Returns what is missing of the file or directory at `path`.
    ///
    /// # Errors
    ///
    /// As [`Survey::of_snapshot`].
    pub fn of_entry(&mut self, path: &ProjectPath, entry: &Entry) -> Result<Vec<Gap>, SnapshotError> {
        Ok(match entry {
            Entry::File { size, id, .. } => {
                let digest = id.digest();
                let is_there = self.has(Kind::Blob, digest, Some(*size))?;
                let gap = || Gap { kind: Kind::Blob, digest, size: Some(*size), path: Some(path.clone()) };
                if is_there { Vec::new() } else { vec![gap()] }
            }
            Entry::Directory { id, .. } => self.below(*id)?.iter().map(|gap| moved_below(path, gap)).collect(),
            Entry::Symlink { .. } | Entry::Submodule { .. } => Vec::new(),
        })
    }

    /// Returns the blob if it is missing: a log, which lies at no path.
    ///
    /// # Errors
    ///
    /// As [`Survey::of_snapshot`].
    pub fn of_blob(&self, digest: Digest) -> Result<Option<Gap>, SnapshotError> {
        let is_there = self.has(Kind::Blob, digest, None)?;
        Ok((!is_there).then_some(Gap { kind: Kind::Blob, digest, size: None, path: None }))
    }

    fn below(&mut self, tree: TreeId) -> Result<Arc<Vec<Gap>>, SnapshotError> {
        if let Some(known) = self.nodes.get(&tree) {
            return Ok(Arc::clone(known));
        }
        let bytes = self.read(Kind::Tree, tree.digest())?;
        let mut gaps = Vec::new();
        match bytes.and_then(|bytes| Node::decode(&bytes).ok()) {
            None => gaps.push(Gap { kind: Kind::Tree, digest: tree.digest(), size: None, path: None }),
            Some(Node::Inner(children)) => {
                for child in children {
                    gaps.extend(self.below(child.id)?.iter().cloned());
                }
            }
            Some(Node::Leaf(entries)) => {
                for (name, entry) in entries {
                    let path = ProjectPath::new(name).expect("a node holds names only");
                    gaps.extend(self.of_entry(&path, &entry)?);
                }
            }
        }
        let gaps = Arc::new(gaps);
        self.nodes.insert(tree, Arc::clone(&gaps));
        Ok(gaps)
    }

    /// Returns the bytes of an object; `None` if it is missing or damaged.
    fn read(&self, kind: Kind, digest: Digest) -> Result<Option<Vec<u8>>, SnapshotError> {
        if self.lost.contains_key(&(kind, digest)) {
            return Ok(None);
        }
        match self.store.get(kind, digest) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StoreError::Missing { .. } | StoreError::Corrupt { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn has(&self, kind: Kind, digest: Digest, size: Option<u64>) -> Result<bool, SnapshotError> {
        let found = self.store.length(kind, digest)?;
        let is_right = found.is_some_and(|found| size.is_none_or(|size| size == found));
        Ok(is_right && !self.lost.contains_key(&(kind, digest)))
    }
}

fn moved_below(directory: &ProjectPath, gap: &Gap) -> Gap {
    let path = match &gap.path {
        Some(path) => path.names().fold(directory.clone(), |path, name| path.join(name)),
        None => directory.clone(),
    };
    Gap { path: Some(path), ..gap.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{BlobId, TreeBuilder};
    use crate::store::MemoryStore;

    fn path(text: &str) -> ProjectPath {
        ProjectPath::new(text).unwrap()
    }

    fn file(store: &MemoryStore, text: &str) -> Entry {
        let put = store.put_bytes(Kind::Blob, text.as_bytes()).unwrap();
        Entry::File { executable: false, size: put.size, id: put.digest.into() }
    }

    fn directory(store: &MemoryStore, entries: Vec<(&str, Entry)>) -> Entry {
        let mut builder =
            TreeBuilder::new(|bytes: &[u8]| store.put_bytes(Kind::Tree, bytes).map(|put| put.digest.into()));
        for (name, entry) in entries {
            builder.push(name.as_bytes(), &entry).unwrap();
        }
        let (id, sized) = builder.finish().unwrap();
        Entry::Directory { sized, id }
    }

    fn missing(text: &str) -> Entry {
        Entry::File { executable: false, size: text.len() as u64, id: BlobId::of(text.as_bytes()) }
    }

    fn told(gaps: &[Gap]) -> Vec<String> {
        gaps.iter().map(|gap| format!("{} {}", gap.kind, gap.path.as_ref().unwrap())).collect()
    }

    #[test]
    fn what_is_missing_is_named_by_its_path_wherever_it_lies() {
        let store = MemoryStore::default();
        let inner = directory(&store, vec![("gone", missing("gone")), ("here", file(&store, "here"))]);
        let lost_tree = directory(&store, vec![("x", file(&store, "x"))]);
        let all =
            vec![("a", inner.clone()), ("b", directory(&store, vec![("again", inner)])), ("c", lost_tree.clone())];
        let root = directory(&store, all);
        let lost = BTreeMap::from([((Kind::Tree, lost_tree.digest()), 0)]);
        let gaps = Survey::new(&store, &lost).of_entry(&path("out"), &root).unwrap();
        assert_eq!(told(&gaps), ["blob out/a/gone", "blob out/b/again/gone", "tree out/c"]);
        assert_eq!(gaps[0].size, Some(4));
        let gaps = Survey::new(&store, &BTreeMap::new()).of_entry(&path("c"), &lost_tree).unwrap();
        assert_eq!(gaps, []);
    }

    #[test]
    fn a_file_of_another_length_counts_as_missing() {
        let store = MemoryStore::default();
        let digest = store.put_bytes(Kind::Blob, b"four").unwrap().digest;
        let entry = Entry::File { executable: true, size: 5, id: digest.into() };
        let gaps = Survey::new(&store, &BTreeMap::new()).of_entry(&path("f"), &entry).unwrap();
        assert_eq!(told(&gaps), ["blob f"]);
    }

    #[test]
    fn equal_directories_are_read_once() {
        let store = MemoryStore::default();
        let inner = directory(&store, vec![("f", file(&store, "f"))]);
        let names: Vec<String> = (0..50).map(|number| format!("d{number:02}")).collect();
        let root = directory(&store, names.iter().map(|name| (name.as_str(), inner.clone())).collect());
        let nothing = BTreeMap::new();
        let mut survey = Survey::new(&store, &nothing);
        survey.of_entry(&path("a"), &root).unwrap();
        survey.of_entry(&path("b"), &root).unwrap();
        assert_eq!(survey.nodes.len(), 2, "the root and the one directory in it");
    }
}
