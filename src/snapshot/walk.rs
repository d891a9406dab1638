//! Taking a directory of the disk: every file is looked at, only those that may have changed are read.
//!
//! Each directory is listed, compared with what is remembered of it, and
//! becomes a tree at once; nothing is held of a directory but its names, and of
//! what is known of its files nothing but the entries. Directories are walked on every core.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rayon::prelude::*;

use super::SnapshotError;
use super::gather::{Meter, PARALLEL_FROM_FILES, link_entry};
use crate::disk::{self, Found, OpenDirectory, Stat};
use crate::hash::Digest;
use crate::object::{Entry, Kind, Sized, TreeBuilder, TreeId};
use crate::stat_cache::{Known, StatCache};
use crate::store::Source;

/// So many names of a directory are worked on at a time, so that a large one takes little memory.
const BATCH_NAMES: usize = 8192;
/// From this many on, looking at files is worth a second thread.
const PARALLEL_FROM_STATS: usize = 2048;

/// A directory to be taken.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// Where it is on disk.
    path: &'a Path,
    /// What it is called in the memory; `None` if it is not remembered.
    remembered: Option<&'a [u8]>,
}

/// What a name in a directory turned out to be.
enum Item {
    /// Taken.
    Done(Taken),
    /// A file of which nothing is known in this state.
    Unknown(Stat),
    /// A directory, not taken yet.
    Directory,
}

/// What was taken.
struct Taken {
    entry: Entry,
    /// `Some` if it is a file whose state may be remembered.
    known: Option<Known>,
    /// Whether it was read.
    is_new: bool,
}

impl Taken {
    const fn of(entry: Entry) -> Self {
        Self { entry, known: None, is_new: false }
    }
}

/// Takes the directory at `path` with all that is below it, also empty directories.
///
/// `remembered` is what it is called in the memory of the meter, its path in the working tree.
///
/// Costs one look at each file, and one read of each that is not known to be unchanged.
///
/// # Errors
///
/// [`SnapshotError`] if something cannot be read, changes while it is read, or is no file, link or directory.
pub(super) fn take_directory(
    meter: &Meter<'_>,
    path: &Path,
    remembered: Option<&[u8]>,
) -> Result<(TreeId, Sized), SnapshotError> {
    if let Some((cache, root)) = meter.seen.zip(remembered) {
        cache.walk(root);
    }
    walk(meter, &OpenDirectory::at(path)?, Place { path, remembered })
}

fn walk(meter: &Meter<'_>, open: &OpenDirectory, place: Place<'_>) -> Result<(TreeId, Sized), SnapshotError> {
    let listing = open.list(place.path)?;
    let names = listing.names();
    let cache = meter.seen.zip(place.remembered);
    let known_before = cache.map_or(0, |(cache, path)| cache.directory(path).len());
    let mut builder = TreeBuilder::new(|bytes: &[u8]| meter.object(Kind::Tree, bytes).map(TreeId::from));
    let (mut files, mut is_changed) = (Vec::new(), false);
    let learns = cache.filter(|(cache, _)| cache.learns());
    for batch in names.chunks(BATCH_NAMES) {
        let items = take_batch(meter, open, place, batch)?;
        let mut told = Sized::default();
        for (name, item) in batch.iter().zip(items) {
            let Item::Done(taken) = item else { unreachable!("a batch is taken as a whole") };
            is_changed |= taken.is_new;
            if !taken.is_new && matches!(taken.entry, Entry::File { .. }) {
                told += taken.entry.sized();
            }
            if learns.is_some()
                && let Some(known) = taken.known
            {
                files.push((*name, known));
            }
            builder.push(name, &taken.entry)?;
        }
        if told.files > 0 && !(meter.progress)(told.files, told.bytes) {
            return Err(SnapshotError::Stopped);
        }
    }
    if let Some((cache, path)) = learns
        && (is_changed || files.len() != known_before)
    {
        cache.remember(path, files);
    }
    builder.finish()
}

/// Takes everything with these names: every item is done.
fn take_batch(
    meter: &Meter<'_>,
    open: &OpenDirectory,
    place: Place<'_>,
    names: &[&[u8]],
) -> Result<Vec<Item>, SnapshotError> {
    let look = |names: &[&[u8]]| -> Result<Vec<Item>, SnapshotError> {
        let mut directory = meter.seen.zip(place.remembered).map(|(cache, path)| cache.directory(path));
        if let (Some(directory), Some(first)) = (&mut directory, names.first()) {
            directory.seek(first);
        }
        let one = |name: &&[u8]| {
            let stat = open.stat(name, place.path)?;
            let known = directory.as_mut().and_then(|directory| directory.find(name));
            classify(meter, place, name, stat, known.filter(|known| known.stat == stat).map(|known| known.digest))
        };
        names.iter().map(one).collect()
    };
    let items = if names.len() < PARALLEL_FROM_STATS {
        look(names)?
    } else {
        let parts: Vec<_> = names.par_chunks(PARALLEL_FROM_STATS / 2).map(look).collect::<Result<_, _>>()?;
        parts.into_iter().flatten().collect()
    };
    let work = items.iter().filter(|item| !matches!(item, Item::Done(..))).count();
    let has_directories = items.iter().any(|item| matches!(item, Item::Directory));
    if work == 0 {
        return Ok(items);
    }
    let finish = |(name, item): (&&[u8], Item)| -> Result<Item, SnapshotError> {
        match item {
            Item::Done(..) => Ok(item),
            Item::Unknown(stat) => read(meter, place, name, stat),
            Item::Directory => descend(meter, open, place, name),
        }
    };
    if work < PARALLEL_FROM_FILES && !has_directories {
        names.iter().zip(items).map(finish).collect()
    } else {
        names.par_iter().zip(items).map(finish).collect()
    }
}

fn classify(
    meter: &Meter<'_>,
    place: Place<'_>,
    name: &[u8],
    stat: Stat,
    known: Option<Digest>,
) -> Result<Item, SnapshotError> {
    Ok(match stat.found() {
        Found::File { executable, size } => match known {
            // What is known is of use only while the store has it, too.
            Some(digest) if meter.store.is_kept(Kind::Blob, digest, size)? => {
                let entry = Entry::File { executable, size, id: digest.into() };
                Item::Done(Taken { entry, known: Some(Known { stat, digest }), is_new: false })
            }
            _ => Item::Unknown(stat),
        },
        Found::Directory => Item::Directory,
        Found::Symlink => Item::Done(Taken::of(link_entry(&place.path.join(OsStr::from_bytes(name)))?)),
        Found::Other => return Err(SnapshotError::Special { path: place.path.join(OsStr::from_bytes(name)) }),
    })
}

fn read(meter: &Meter<'_>, place: Place<'_>, name: &[u8], stat: Stat) -> Result<Item, SnapshotError> {
    let path = place.path.join(OsStr::from_bytes(name));
    let (entry, known) = read_file(meter, &path, stat)?;
    Ok(Item::Done(Taken { entry, known, is_new: true }))
}

/// Reads a file whose state is `stat`; returns it with what may be remembered of it.
pub(super) fn read_file(meter: &Meter<'_>, path: &Path, stat: Stat) -> Result<(Entry, Option<Known>), SnapshotError> {
    let Found::File { executable, .. } = stat.found() else {
        return Err(SnapshotError::Special { path: path.to_owned() });
    };
    let is_settled = meter.seen.filter(|cache| cache.learns()).is_some_and(|cache| cache.settle(path, &stat));
    let entry = meter.file(Source::File(path), executable)?;
    let known = match entry {
        Entry::File { size, id, .. } if is_settled && stat.size == size && disk::stat(path)? == Some(stat) => {
            Some(Known { stat, digest: id.digest() })
        }
        _ => None,
    };
    Ok((entry, known))
}

fn descend(meter: &Meter<'_>, open: &OpenDirectory, place: Place<'_>, name: &[u8]) -> Result<Item, SnapshotError> {
    let path = place.path.join(OsStr::from_bytes(name));
    let remembered = place.remembered.map(|above| join(above, name));
    let below = open.below(name, &path)?;
    let (id, sized) = walk(meter, &below, Place { path: &path, remembered: remembered.as_deref() })?;
    Ok(Item::Done(Taken::of(Entry::Directory { sized, id })))
}

fn join(above: &[u8], name: &[u8]) -> Vec<u8> {
    if above.is_empty() { name.to_vec() } else { [above, b"/", name].concat() }
}

/// Returns what a file of the working tree is, from the memory if that knows its state.
pub(super) fn known_or_read(
    meter: &Meter<'_>,
    cache: &StatCache,
    path: &Path,
    remembered: &[u8],
) -> Result<Option<Entry>, SnapshotError> {
    let Some(stat) = disk::stat(path)? else { return Ok(None) };
    let Found::File { executable, size } = stat.found() else { return Ok(None) };
    let (directory, name) = match remembered.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&remembered[..at], &remembered[at + 1..]),
        None => (&remembered[..0], remembered),
    };
    if let Some(digest) = cache.digest(directory, name, &stat)
        && meter.store.is_kept(Kind::Blob, digest, size)?
    {
        if !(meter.progress)(1, size) {
            return Err(SnapshotError::Stopped);
        }
        return Ok(Some(Entry::File { executable, size, id: digest.into() }));
    }
    let (entry, known) = read_file(meter, path, stat)?;
    if let Some(known) = known {
        cache.remember_one(directory, name, known);
    }
    Ok(Some(entry))
}
