//! Following what must be kept through the store, and naming what goes.

use std::collections::BTreeMap;

use super::{RetentionError, Roots};
use crate::object::{DataRoot, Entry, Kind, Node, Snapshot, SnapshotId, TreeId};
use crate::path::ProjectPath;
use crate::snapshot::for_each_file;
use crate::store::{Live, Store, StoreError};

/// Returns everything that `roots` lead to, and everything that the objects in `also` lead to.
///
/// Costs a read of every snapshot and tree among it, each once; files are not read.
///
/// # Errors
///
/// [`RetentionError`] if a snapshot or tree is damaged, or one below the top is missing.
pub fn mark(store: &dyn Store, roots: &Roots, also: &Live) -> Result<Live, RetentionError> {
    let mut marking = Marking { store, live: Live::new(), trees: Vec::new() };
    for id in &roots.snapshots {
        marking.snapshot(*id)?;
    }
    for output in &roots.outputs {
        marking.entry(output, Need::IfThere);
    }
    for data in &roots.data {
        marking.data(data);
    }
    marking.live.extend(roots.logs.iter().map(|log| (Kind::Blob, log.digest())));
    marking.follow()?;
    for (kind, digest) in also {
        match kind {
            Kind::Snapshot => marking.snapshot((*digest).into())?,
            Kind::Tree => marking.trees.push(((*digest).into(), Need::Perhaps)),
            _ => drop(marking.live.insert((*kind, *digest))),
        }
    }
    // Nobody vouches for these: what they refer to may never have been written.
    marking.trees.iter_mut().for_each(|(_, need)| *need = Need::Perhaps);
    marking.follow()?;
    Ok(marking.live)
}

/// Returns everything that `roots` lead to, as far as the store tells: what is missing is named, and not looked into.
///
/// Costs what [`mark`] does.
///
/// # Errors
///
/// [`RetentionError`] if a snapshot or tree is damaged, or cannot be read.
pub fn reachable(store: &dyn Store, roots: &Roots) -> Result<Live, RetentionError> {
    let mut marking = Marking { store, live: Live::new(), trees: Vec::new() };
    for id in &roots.snapshots {
        marking.snapshot(*id)?;
    }
    roots.outputs.iter().for_each(|output| marking.entry(output, Need::Perhaps));
    roots.data.iter().for_each(|data| marking.data(data));
    marking.live.extend(roots.logs.iter().map(|log| (Kind::Blob, log.digest())));
    marking.trees.iter_mut().for_each(|(_, need)| *need = Need::Perhaps);
    marking.follow()?;
    Ok(marking.live)
}

/// Whether an object must be there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// It is below something that is there.
    Must,
    /// It may be in another store alone, with all that is below it.
    IfThere,
    /// Nobody vouches for it, nor for what is below it.
    Perhaps,
}

struct Marking<'a> {
    store: &'a dyn Store,
    live: Live,
    /// What is still to be looked into.
    trees: Vec<(TreeId, Need)>,
}

impl Marking<'_> {
    fn snapshot(&mut self, id: SnapshotId) -> Result<(), RetentionError> {
        if !self.live.insert((Kind::Snapshot, id.digest())) {
            return Ok(());
        }
        let Some(bytes) = self.get(Kind::Snapshot, id.digest(), Need::IfThere)? else { return Ok(()) };
        let understood = Snapshot::decode(&bytes);
        let snapshot = understood.map_err(|source| RetentionError::NotUnderstood { kind: Kind::Snapshot, source })?;
        self.live.insert((Kind::Definition, snapshot.definition.digest()));
        self.live.insert((Kind::Params, snapshot.params.digest()));
        self.live.insert((Kind::Environment, snapshot.environment.digest()));
        self.trees.push((snapshot.tree, Need::Must));
        snapshot.data.iter().for_each(|(_, data)| self.data(data));
        Ok(())
    }

    fn data(&mut self, data: &DataRoot) {
        match data {
            DataRoot::File { id, .. } => drop(self.live.insert((Kind::Blob, id.digest()))),
            DataRoot::Directory { id, .. } => self.trees.push((*id, Need::IfThere)),
        }
    }

    fn entry(&mut self, entry: &Entry, need: Need) {
        match entry {
            Entry::File { id, .. } => drop(self.live.insert((Kind::Blob, id.digest()))),
            Entry::Directory { id, .. } => self.trees.push((*id, need)),
            Entry::Symlink { .. } | Entry::Submodule { .. } => {}
        }
    }

    fn follow(&mut self) -> Result<(), RetentionError> {
        while let Some((id, need)) = self.trees.pop() {
            if self.live.contains(&(Kind::Tree, id.digest())) {
                continue;
            }
            let bytes = self.get(Kind::Tree, id.digest(), need)?;
            self.live.insert((Kind::Tree, id.digest()));
            let Some(bytes) = bytes else { continue };
            let understood = Node::decode(&bytes);
            match understood.map_err(|source| RetentionError::NotUnderstood { kind: Kind::Tree, source })? {
                Node::Inner(children) => {
                    self.trees.extend(children.iter().map(|child| (child.id, need.below())));
                }
                Node::Leaf(entries) => entries.iter().for_each(|(_, entry)| self.entry(entry, need.below())),
            }
        }
        Ok(())
    }

    fn get(&self, kind: Kind, digest: crate::hash::Digest, need: Need) -> Result<Option<Vec<u8>>, StoreError> {
        match self.store.get(kind, digest) {
            Err(StoreError::Missing { .. }) if need != Need::Must => Ok(None),
            got => got.map(Some),
        }
    }
}

impl Need {
    /// Returns whether what is below something that is there must be there.
    fn below(self) -> Self {
        if self == Self::Perhaps { self } else { Self::Must }
    }
}

/// A snapshot that goes, with what goes with it and belongs to no snapshot named before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lost {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Each file, and its length in bytes.
    pub files: Vec<(ProjectPath, u64)>,
}

/// Returns what `objects` were, as snapshots and their files. What belongs to no snapshot, such as a log, is left out.
///
/// What of a snapshot cannot be read is left out: it is a list for people.
pub fn name(store: &dyn Store, objects: &[(Kind, crate::hash::Digest, u64)]) -> Vec<Lost> {
    let mut blobs: BTreeMap<_, u64> =
        objects.iter().filter(|(kind, ..)| *kind == Kind::Blob).map(|(_, digest, length)| (*digest, *length)).collect();
    let mut lost = Vec::new();
    for (_, digest, _) in objects.iter().filter(|(kind, ..)| *kind == Kind::Snapshot) {
        let mut files = Vec::new();
        let bytes = store.get(Kind::Snapshot, *digest).ok();
        if let Some(snapshot) = bytes.and_then(|bytes| Snapshot::decode(&bytes).ok()) {
            let mut take = |path: &ProjectPath, entry: &Entry| {
                if let Entry::File { id, .. } = entry
                    && let Some(length) = blobs.remove(&id.digest())
                {
                    files.push((path.clone(), length));
                }
                Ok(())
            };
            let _ = for_each_file(store, snapshot.tree, None, &mut take);
            for (path, data) in &snapshot.data {
                let _ = match data {
                    DataRoot::File { executable, size, id } => {
                        take(path, &Entry::File { executable: *executable, size: *size, id: *id })
                    }
                    DataRoot::Directory { id, .. } => for_each_file(store, *id, Some(path), &mut take),
                };
            }
        }
        files.sort();
        lost.push(Lost { snapshot: (*digest).into(), files });
    }
    lost
}
