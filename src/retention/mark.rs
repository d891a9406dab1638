//! Following what must be kept through the store, and naming what goes.

use std::collections::BTreeMap;

use super::{RetentionError, Roots};
use crate::hash::Digest;
use crate::object::{DataRoot, Entry, Kind, Node, Snapshot, SnapshotId, TreeId, pins_of_environment};
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
            Kind::Environment => marking.environment(*digest)?,
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
        self.environment(snapshot.environment.digest())?;
        self.trees.push((snapshot.tree, Need::Must));
        snapshot.data.iter().for_each(|(_, data)| self.data(data));
        Ok(())
    }

    /// Takes in the files of all images that the environment of a snapshot names.
    fn environment(&mut self, digest: Digest) -> Result<(), RetentionError> {
        if !self.live.insert((Kind::Environment, digest)) {
            return Ok(());
        }
        let Some(bytes) = self.get(Kind::Environment, digest, Need::IfThere)? else { return Ok(()) };
        let understood = pins_of_environment(&bytes);
        let pins = understood.map_err(|source| RetentionError::NotUnderstood { kind: Kind::Environment, source })?;
        self.trees.extend(pins.values().map(|pin| (pin.tree, Need::IfThere)));
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

    fn get(&self, kind: Kind, digest: Digest, need: Need) -> Result<Option<Vec<u8>>, StoreError> {
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
pub fn name(store: &dyn Store, objects: &[(Kind, Digest, u64)]) -> Vec<Lost> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    use crate::object::{Pin, PinConfig, TreeBuilder, encode_environment};
    use crate::store::{MemoryStore, Source};

    /// Puts a snapshot into `store` whose environment is an image with one file; returns it, and that file.
    fn in_an_image(store: &MemoryStore) -> (SnapshotId, TreeId, Digest) {
        let put = |kind, bytes: &[u8]| store.put(kind, Source::Bytes(bytes)).unwrap().digest;
        let file = put(Kind::Blob, b"a program");
        let directory = |entries: &[(&[u8], Entry)]| {
            let mut builder = TreeBuilder::new(|bytes: &[u8]| Ok::<_, Infallible>(put(Kind::Tree, bytes).into()));
            entries.iter().for_each(|(name, entry)| builder.push(name, entry).unwrap());
            builder.finish().unwrap().0
        };
        let tree = directory(&[(b"tool", Entry::File { executable: true, size: 9, id: file.into() })]);
        let image = format!("sha256:{}", "a".repeat(64));
        let pin = Pin { image, tree, config: PinConfig::default(), files: 1, bytes: 9 };
        let snapshot = Snapshot {
            definition: put(Kind::Definition, b"{}").into(),
            tree: directory(&[]),
            data: Vec::new(),
            params: put(Kind::Params, b"{}").into(),
            seed: None,
            environment: put(Kind::Environment, &encode_environment("host".into(), &[pin])).into(),
        };
        let (id, bytes) = snapshot.encode();
        put(Kind::Snapshot, &bytes);
        (id, tree, file)
    }

    #[test]
    fn a_snapshot_leads_to_the_files_of_its_images() {
        let store = MemoryStore::default();
        let (id, tree, file) = in_an_image(&store);
        let roots = Roots { snapshots: [id].into(), ..Roots::default() };
        let also: Live = [(Kind::Snapshot, id.digest())].into();
        let found = [
            mark(&store, &roots, &Live::new()).unwrap(),
            reachable(&store, &roots).unwrap(),
            mark(&store, &Roots::default(), &also).unwrap(),
        ];
        for live in found {
            assert!(live.contains(&(Kind::Tree, tree.digest())) && live.contains(&(Kind::Blob, file)));
        }
    }

    #[test]
    fn an_image_that_is_elsewhere_alone_is_named_and_keeps_nothing_back() {
        let store = MemoryStore::default();
        let (id, tree, file) = in_an_image(&store);
        store.remove(Kind::Tree, tree.digest());
        let roots = Roots { snapshots: [id].into(), ..Roots::default() };
        let live = mark(&store, &roots, &Live::new()).unwrap();
        assert!(live.contains(&(Kind::Tree, tree.digest())) && !live.contains(&(Kind::Blob, file)));
        let lost = BTreeMap::new();
        let gaps = crate::snapshot::Survey::new(&store, &lost).of_snapshot(id).unwrap();
        let told: Vec<_> = gaps.into_iter().map(|gap| (gap.kind, gap.digest, gap.path)).collect();
        assert_eq!(told, [(Kind::Tree, tree.digest(), None)]);
    }
}
