//! What was taken away and can still be put back: `trash/<second>/`, laid out as the store itself.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::garbage::Live;
use super::layout::Layout;
use super::pack::{Pack, Tag, is_pack};
use super::packs::Place;
use super::{LocalStore, StoreError};
use crate::disk::{self, Change, DiskError, Flush, Found, Lock};
use crate::hash::Digest;
use crate::object::Kind;

/// What became of the trash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Emptied {
    pub(super) removed_bytes: u64,
    pub(super) put_back: u64,
}

/// What is in the trash, opened.
pub(super) struct Trash {
    packs: Vec<Arc<Pack>>,
    bins: Vec<PathBuf>,
}

impl Trash {
    /// Opens what is in the trash. Costs a look into each of its directories, and into the ends of its packs.
    pub(super) fn open(layout: &Layout) -> Result<Self, DiskError> {
        let bins = bins(layout)?;
        let mut packs = Vec::new();
        for (_, bin) in &bins {
            for path in list(bin)?.into_iter().filter(|path| is_pack(path)) {
                // One that cannot be opened holds nothing for a reader, who then misses what he looks for.
                packs.extend(Pack::open(&path).ok().map(Arc::new));
            }
        }
        Ok(Self { packs, bins: bins.into_iter().map(|(_, bin)| bin).collect() })
    }

    /// Returns where the record is, if the trash has it.
    pub(super) fn find(&self, digest: Digest, tag: Tag) -> Option<Place> {
        self.packs.iter().find_map(|pack| {
            let entry = pack.find(digest, tag)?;
            Some(Place { file: Arc::clone(pack.file()), entry })
        })
    }

    /// Returns where an object that is a file of its own lies in the trash.
    pub(super) fn files<'a>(
        &'a self,
        layout: &Layout,
        kind: Kind,
        digest: Digest,
    ) -> impl Iterator<Item = PathBuf> + 'a {
        let object = layout.object(kind, digest);
        let below = object.strip_prefix(layout.root()).map(Path::to_owned).unwrap_or_default();
        self.bins.iter().map(move |bin| bin.join(&below)).filter(|path| path.is_file())
    }
}

/// Puts everything back that is in the trash, and lets nothing be condemned any more. Returns how many packs and files came back.
///
/// Waits for a collection. What a new one finds to be garbage goes again.
///
/// # Errors
///
/// [`StoreError::Disk`] if something cannot be moved; what is still in the trash comes back with the next try.
pub fn put_back(store: &LocalStore) -> Result<u64, StoreError> {
    if disk::look(&store.layout.trash())?.is_none() {
        return Ok(0);
    }
    let _collecting = Lock::exclusive(&store.layout.collecting())?;
    store.disk.change(Change::Remove(&store.layout.condemned()))?;
    let mut moves = Vec::new();
    for (_, bin) in bins(&store.layout)? {
        moves.extend(files(&bin)?.into_iter().map(|(from, _)| (from.clone(), home(&store.layout, &bin, &from))));
    }
    move_all(store, &moves)?;
    for (_, bin) in bins(&store.layout)? {
        disk::remove_tree(&bin)?;
    }
    store.packs.refresh()?;
    Ok(moves.len() as u64)
}

/// Removes for good what was taken away at `until_seconds` or before. What only the trash has and lives again is put back.
pub(super) fn empty(store: &LocalStore, live: &Live, until_seconds: i64) -> Result<Emptied, StoreError> {
    let mut emptied = Emptied::default();
    for (seconds, bin) in bins(&store.layout)? {
        if seconds > until_seconds {
            continue;
        }
        let (mut moves, mut gone) = (Vec::new(), Vec::new());
        for (path, bytes) in files(&bin)? {
            if is_needed(store, live, &path)? {
                let to = home(&store.layout, &bin, &path);
                moves.push((path, to));
            } else {
                gone.push(path);
                emptied.removed_bytes += bytes;
            }
        }
        move_all(store, &moves)?;
        emptied.put_back += moves.len() as u64;
        gone.iter().try_for_each(|path| store.disk.change(Change::Remove(path)))?;
        disk::remove_tree(&bin)?;
    }
    Ok(emptied)
}

/// Returns whether something in the file at `path` of the trash lives and is nowhere else.
fn is_needed(store: &LocalStore, live: &Live, path: &Path) -> Result<bool, StoreError> {
    if !is_pack(path) {
        return Ok(loose_name(path).is_some_and(|(kind, digest)| {
            live.contains(&(kind, digest)) && matches!(store.has_published(kind, digest), Ok(false))
        }));
    }
    let Ok(pack) = Pack::open(path) else { return Ok(false) };
    for entry in pack.entries() {
        let is_live = match entry.tag {
            Tag::Object(kind) => live.contains(&(kind, entry.digest)),
            Tag::Recipe => live.contains(&(Kind::Blob, entry.digest)),
            // A piece is told by its recipe, which is looked at too.
            Tag::Chunk => continue,
        };
        if is_live && !store.has_published(super::garbage::kind_of(entry.tag), entry.digest)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the kind and name of the object that lies at `path` as a file of its own.
fn loose_name(path: &Path) -> Option<(Kind, Digest)> {
    let mut names = path.iter().rev().map(|name| name.to_str());
    let (rest, shard, kind) = (names.next()??, names.next()??, names.next()??);
    let kind = Kind::ALL.into_iter().find(|known| known.name() == kind)?;
    Some((kind, format!("{shard}{rest}").parse().ok()?))
}

/// Moves files within the store, durably, and makes the directories for them.
pub(super) fn move_all(store: &LocalStore, moves: &[(PathBuf, PathBuf)]) -> Result<(), StoreError> {
    let above = |path: &Path| -> Vec<PathBuf> {
        let above = path.ancestors().skip(1).take_while(|above| above.starts_with(store.layout.root()));
        above.map(Path::to_owned).collect()
    };
    let (mut left, mut reached) = (BTreeSet::new(), BTreeSet::new());
    for (from, to) in moves {
        disk::make_directories(&*store.disk, disk::parent(to))?;
        store.disk.change(Change::Rename { from, to })?;
        left.extend(above(from));
        reached.extend(above(to));
    }
    // The new names first, or a crash could leave neither; the deepest first, or one could lead nowhere.
    let only_left: BTreeSet<_> = left.difference(&reached).collect();
    let mut order = reached.iter().rev().chain(only_left.into_iter().rev());
    order.try_for_each(|directory| store.disk.flush(Flush::Directory(directory)))?;
    Ok(())
}

/// Returns where a file of a bin belongs in the store.
fn home(layout: &Layout, bin: &Path, path: &Path) -> PathBuf {
    let below = path.strip_prefix(bin).unwrap_or(path);
    if is_pack(path) { layout.packs().join(below) } else { layout.root().join(below) }
}

/// Returns the directories of the trash with the second in which they were made, oldest first.
fn bins(layout: &Layout) -> Result<Vec<(i64, PathBuf)>, DiskError> {
    let named = list(&layout.trash())?.into_iter().filter_map(|path| {
        let seconds = path.file_name()?.to_str()?.parse().ok()?;
        Some((seconds, path))
    });
    let mut bins: Vec<_> = named.collect();
    bins.sort();
    Ok(bins)
}

/// Returns every file below `bin`, and its length in bytes.
fn files(bin: &Path) -> Result<Vec<(PathBuf, u64)>, DiskError> {
    let mut files = Vec::new();
    for entry in disk::walk(bin) {
        if let (path, Found::File { size, .. }) = entry? {
            files.push((path, size));
        }
    }
    Ok(files)
}

fn list(directory: &Path) -> Result<Vec<PathBuf>, DiskError> {
    match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
            .map_err(DiskError::on("read", directory)),
    }
}
