//! Looking into trees, and telling two apart, without reading what is equal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use super::SnapshotError;
use crate::object::{Child, DataRoot, Entry, Kind, Node, Snapshot, SnapshotId, TreeId};
use crate::path::ProjectPath;
use crate::store::{Store, StoreError};

/// Returns the snapshot with this id.
///
/// # Errors
///
/// [`SnapshotError`] if the store does not have it or it is damaged.
pub fn read_snapshot(store: &dyn Store, id: SnapshotId) -> Result<Snapshot, SnapshotError> {
    let bytes = store.get(Kind::Snapshot, id.digest())?;
    Snapshot::decode(&bytes).map_err(SnapshotError::undecodable(Kind::Snapshot))
}

fn read_node(store: &dyn Store, id: TreeId) -> Result<Node, SnapshotError> {
    let bytes = store.get(Kind::Tree, id.digest())?;
    Node::decode(&bytes).map_err(SnapshotError::undecodable(Kind::Tree))
}

/// A snapshot that can be asked what lies at a path. Nodes are read once and kept.
pub struct View<'a> {
    store: &'a dyn Store,
    snapshot: &'a Snapshot,
    nodes: Mutex<BTreeMap<TreeId, Arc<Node>>>,
}

impl<'a> View<'a> {
    /// Returns a view of `snapshot`, whose objects are in `store`.
    pub fn new(store: &'a dyn Store, snapshot: &'a Snapshot) -> Self {
        Self { store, snapshot, nodes: Mutex::default() }
    }

    /// Returns the snapshot that is looked at.
    pub fn snapshot(&self) -> &'a Snapshot {
        self.snapshot
    }

    /// Returns the store that has its objects.
    pub fn store(&self) -> &'a dyn Store {
        self.store
    }

    /// Returns what lies at `path`, in a data root or in the tree.
    ///
    /// A directory that holds a data root somewhere below is returned without it.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`] if a tree cannot be read.
    pub fn entry(&self, path: &ProjectPath) -> Result<Option<Entry>, SnapshotError> {
        for (root, data) in &self.snapshot.data {
            if path == root {
                return Ok(Some(data_entry(data)));
            }
            if let Some(rest) = path.strip(root) {
                return match data {
                    DataRoot::File { .. } => Ok(None),
                    DataRoot::Directory { id, .. } => self.below(*id, &rest).map_err(|error| match error {
                        SnapshotError::Store(StoreError::Missing { .. }) => {
                            require_data(self.store, self.snapshot).err().unwrap_or(error)
                        }
                        error => error,
                    }),
                };
            }
        }
        self.below(self.snapshot.tree, path)
    }

    /// Returns what lies at `path` below the directory `tree`.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`] if a tree cannot be read.
    pub fn below(&self, tree: TreeId, path: &ProjectPath) -> Result<Option<Entry>, SnapshotError> {
        let mut directory = tree;
        let mut names = path.names().peekable();
        while let Some(name) = names.next() {
            match self.find(directory, name)? {
                Some(Entry::Directory { id, .. }) if names.peek().is_some() => directory = id,
                found if names.peek().is_none() => return Ok(found),
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Returns what is directly in the directory `tree`, in the order of names.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`] if a tree cannot be read.
    pub fn entries(&self, tree: TreeId) -> Result<Vec<(Vec<u8>, Entry)>, SnapshotError> {
        match &*self.node(tree)? {
            Node::Leaf(entries) => Ok(entries.clone()),
            Node::Inner(children) => {
                let mut entries = Vec::new();
                for child in children {
                    entries.extend(self.entries(child.id)?);
                }
                Ok(entries)
            }
        }
    }

    /// Returns the data roots that lie below `path`.
    pub fn data_below(&self, path: &ProjectPath) -> impl Iterator<Item = &'a (ProjectPath, DataRoot)> {
        self.snapshot.data.iter().filter(move |(root, _)| root.strip(path).is_some())
    }

    fn find(&self, directory: TreeId, name: &[u8]) -> Result<Option<Entry>, SnapshotError> {
        let mut id = directory;
        loop {
            match &*self.node(id)? {
                Node::Leaf(entries) => {
                    let found = entries.binary_search_by(|(other, _)| other.as_slice().cmp(name));
                    return Ok(found.ok().map(|index| entries[index].1.clone()));
                }
                Node::Inner(children) => {
                    let index = children.partition_point(|child| child.last_name.as_slice() < name);
                    match children.get(index) {
                        Some(child) => id = child.id,
                        None => return Ok(None),
                    }
                }
            }
        }
    }

    fn node(&self, id: TreeId) -> Result<Arc<Node>, SnapshotError> {
        if let Some(node) = self.nodes.lock().expect("no holder panics").get(&id) {
            return Ok(Arc::clone(node));
        }
        let node = Arc::new(read_node(self.store, id)?);
        self.nodes.lock().expect("no holder panics").insert(id, Arc::clone(&node));
        Ok(node)
    }
}

/// Sees to it that the store has all data of `snapshot`, at least its topmost objects.
///
/// # Errors
///
/// [`SnapshotError::MissingData`] with every root that is not there.
pub(super) fn require_data(store: &dyn Store, snapshot: &Snapshot) -> Result<(), SnapshotError> {
    let mut paths = Vec::new();
    for (path, root) in &snapshot.data {
        let kind = if matches!(root, DataRoot::Directory { .. }) { Kind::Tree } else { Kind::Blob };
        if store.length(kind, root.digest())?.is_none() {
            paths.push(path.clone());
        }
    }
    if paths.is_empty() { Ok(()) } else { Err(SnapshotError::MissingData { paths }) }
}

/// Returns the entry that a data root would be in a directory.
pub fn data_entry(data: &DataRoot) -> Entry {
    match *data {
        DataRoot::File { executable, size, id } => Entry::File { executable, size, id },
        DataRoot::Directory { sized, id } => Entry::Directory { sized, id },
    }
}

/// Calls `each` for everything below the directory `tree`, directories before what is in them, in the order of names.
///
/// # Errors
///
/// [`SnapshotError`] if a tree cannot be read, or what `each` returns.
pub fn for_each_file(
    store: &dyn Store,
    tree: TreeId,
    above: Option<&ProjectPath>,
    each: &mut dyn FnMut(&ProjectPath, &Entry) -> Result<(), SnapshotError>,
) -> Result<(), SnapshotError> {
    match read_node(store, tree)? {
        Node::Inner(children) => children.iter().try_for_each(|child| for_each_file(store, child.id, above, each)),
        Node::Leaf(entries) => entries.iter().try_for_each(|(name, entry)| {
            let path = join(above, name);
            each(&path, entry)?;
            match entry {
                Entry::Directory { id, .. } => for_each_file(store, *id, Some(&path), each),
                _ => Ok(()),
            }
        }),
    }
}

/// One path at which two trees differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Where.
    pub path: ProjectPath,
    /// What was there.
    pub old: Option<Entry>,
    /// What is there now.
    pub new: Option<Entry>,
}

/// Calls `each` for every file, link and submodule that differs between two directories, in the order of names.
///
/// A directory counts by what is in it; an empty one that came or went is
/// reported itself. Reads only nodes that are not equal: the cost grows with
/// the number of changes, not with the size of the trees.
///
/// # Errors
///
/// [`SnapshotError`] if a tree cannot be read.
pub fn changes(
    store: &dyn Store,
    old: Option<TreeId>,
    new: Option<TreeId>,
    above: Option<&ProjectPath>,
    each: &mut dyn FnMut(Change),
) -> Result<(), SnapshotError> {
    if old == new {
        return Ok(());
    }
    let (old, new) = differing_entries(store, old, new)?;
    let names: BTreeSet<&Vec<u8>> = old.keys().chain(new.keys()).collect();
    for name in names {
        let path = join(above, name);
        let (before, after) = (old.get(name), new.get(name));
        if before == after {
            continue;
        }
        let directory = |entry: Option<&Entry>| match entry {
            Some(Entry::Directory { id, sized }) => Some((*id, sized.files > 0)),
            _ => None,
        };
        let not_directory = |entry: Option<&Entry>| entry.filter(|e| !matches!(e, Entry::Directory { .. })).cloned();
        let (old_directory, new_directory) = (directory(before), directory(after));
        let (gone, come) = (not_directory(before), not_directory(after));
        if gone.is_some() || come.is_some() {
            each(Change { path: path.clone(), old: gone, new: come });
        }
        match (old_directory, new_directory) {
            (None, None) => {}
            (Some((_, false)), None) => each(Change { path, old: before.cloned(), new: None }),
            (None, Some((_, false))) => each(Change { path, old: None, new: after.cloned() }),
            (old, new) => changes(store, old.map(|(id, _)| id), new.map(|(id, _)| id), Some(&path), each)?,
        }
    }
    Ok(())
}

type Entries = BTreeMap<Vec<u8>, Entry>;

/// Returns the entries of both directories, those in nodes that both have left out.
fn differing_entries(
    store: &dyn Store,
    old: Option<TreeId>,
    new: Option<TreeId>,
) -> Result<(Entries, Entries), SnapshotError> {
    let mut sides = [old, new].map(|id| id.into_iter().collect::<BTreeSet<TreeId>>());
    let mut entries = [Entries::new(), Entries::new()];
    // Level by level: what both sides have is dropped before it is read.
    while sides.iter().any(|side| !side.is_empty()) {
        let common: BTreeSet<TreeId> = sides[0].intersection(&sides[1]).copied().collect();
        for (side, entries) in sides.iter_mut().zip(&mut entries) {
            let mut next = BTreeSet::new();
            for id in std::mem::take(side).difference(&common) {
                match read_node(store, *id)? {
                    Node::Leaf(found) => entries.extend(found),
                    Node::Inner(children) => next.extend(children.iter().map(|child: &Child| child.id)),
                }
            }
            *side = next;
        }
    }
    let [old, new] = entries;
    Ok((old, new))
}

pub(super) fn join(above: Option<&ProjectPath>, name: &[u8]) -> ProjectPath {
    match above {
        Some(above) => above.join(name),
        None => ProjectPath::new(name).expect("names in trees are valid names"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{BlobId, TreeBuilder};
    use crate::store::{MemoryStore, Source};

    /// Puts `directories` nested three deep with `files` files each, of which `changed` holds something else.
    fn tree(store: &MemoryStore, directories: u32, files: u32, changed: Option<(u32, u32)>) -> TreeId {
        let build = |entries: Vec<(String, Entry)>| {
            let put = |bytes: &[u8]| store.put(Kind::Tree, Source::Bytes(bytes)).map(|put| put.digest.into());
            let mut builder = TreeBuilder::new(put);
            for (name, entry) in entries {
                builder.push(name.as_bytes(), &entry).unwrap();
            }
            builder.finish().unwrap()
        };
        let mut above = Vec::new();
        for directory in 0..directories {
            let leaves = (0..files).map(|file| {
                let content = if changed == Some((directory, file)) { "new" } else { "old" };
                let id = BlobId::of(format!("{content} {directory} {file}").as_bytes());
                (format!("{file:04}"), Entry::File { executable: false, size: 1, id })
            });
            let (id, sized) = build(leaves.collect());
            let (id, sized) = build(vec![("inner".to_owned(), Entry::Directory { sized, id })]);
            above.push((format!("{directory:04}"), Entry::Directory { sized, id }));
        }
        build(above).0
    }

    /// Returns what changed, and how many nodes were read to find out.
    fn compared(directories: u32, files: u32) -> (Vec<String>, u64) {
        let store = MemoryStore::default();
        let old = tree(&store, directories, files, None);
        let new = tree(&store, directories, files, Some((directories / 2, files / 2)));
        let mut told = Vec::new();
        changes(&store, Some(old), Some(new), None, &mut |change| told.push(change.path.to_string())).unwrap();
        (told, store.reads().get(&Kind::Tree).copied().unwrap_or_default())
    }

    #[test]
    fn equal_subtrees_are_never_read() {
        let (told, reads) = compared(100, 20);
        assert_eq!(told, ["0050/inner/0010"]);
        let (told, more_directories) = compared(1000, 20);
        assert_eq!(told, ["0500/inner/0010"]);
        // Large directories are split into nodes, of which only the one on the way is read: two sides, a few levels.
        assert!(reads <= 10, "{reads} nodes were read of 2,000 files");
        assert!(more_directories <= reads + 4, "{more_directories} nodes were read of 20,000 files");
        let store = MemoryStore::default();
        let same = tree(&store, 10, 10, None);
        changes(&store, Some(same), Some(same), None, &mut |_| panic!("nothing differs")).unwrap();
        assert_eq!(store.reads(), BTreeMap::new(), "equal trees are not even opened");
    }
}
