//! Files become entries, entries become trees.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::SnapshotError;
use super::capture::{Progress, Site};
use super::walk::known_or_read;
use crate::disk::DiskError;
use crate::git::{CommitReader, FileKind, GitError, Tracked, WorkingFile, WorkingFiles, WorkingReader};
use crate::object::{Entry, Kind, Sized, TreeBuilder, TreeId};
use crate::path::ProjectPath;
use crate::stat_cache::StatCache;
use crate::store::{Source, Store, StoreError};

/// Fewer files than this are hashed by one thread: starting more would cost more.
pub(super) const PARALLEL_FROM_FILES: usize = 64;

pub(super) type Listed<T> = Vec<(ProjectPath, T)>;

/// Puts what it is given into the store, and counts.
pub(super) struct Meter<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) progress: Progress<'a>,
    /// What files hashed to before.
    pub(super) seen: Option<&'a StatCache>,
    pub(super) new_bytes: AtomicU64,
}

impl<'a> Meter<'a> {
    pub(super) fn new(store: &'a dyn Store, seen: Option<&'a StatCache>, progress: Progress<'a>) -> Self {
        Self { store, progress, seen, new_bytes: AtomicU64::new(0) }
    }

    pub(super) fn put(&self, kind: Kind, source: Source<'_>) -> Result<crate::store::Put, StoreError> {
        let put = self.store.put(kind, source)?;
        if put.new {
            self.new_bytes.fetch_add(put.size, Ordering::Relaxed);
        }
        Ok(put)
    }

    pub(super) fn file(&self, source: Source<'_>, executable: bool) -> Result<Entry, SnapshotError> {
        let put = self.put(Kind::Blob, source)?;
        if !(self.progress)(1, put.size) {
            return Err(SnapshotError::Stopped);
        }
        Ok(Entry::File { executable, size: put.size, id: put.digest.into() })
    }

    pub(super) fn object(&self, kind: Kind, bytes: &[u8]) -> Result<crate::hash::Digest, SnapshotError> {
        Ok(self.put(kind, Source::Bytes(bytes))?.digest)
    }
}

/// Makes an entry of every file. Each thread gets a reader of its own from `start`.
pub(super) fn in_parallel<T: Sync, R>(
    files: &[&(ProjectPath, T)],
    start: &(dyn Fn() -> Result<R, GitError> + Sync),
    to_entry: &(dyn Fn(&mut R, &ProjectPath, &T) -> Result<Entry, SnapshotError> + Sync),
) -> Result<Listed<Entry>, SnapshotError> {
    let one = |slot: &mut Option<R>, (path, file): &(ProjectPath, T)| {
        let reader = match slot {
            Some(reader) => reader,
            None => slot.insert(start()?),
        };
        Ok((path.clone(), to_entry(reader, path, file)?))
    };
    if files.len() < PARALLEL_FROM_FILES {
        let mut slot = None;
        files.iter().map(|file| one(&mut slot, file)).collect()
    } else {
        files.par_iter().map_init(|| None, |slot, file| one(slot, file)).collect()
    }
}

pub(super) fn working_entry(
    site: Site<'_>,
    listed: &WorkingFiles<'_>,
    reader: &mut Option<WorkingReader>,
    path: &ProjectPath,
    file: &WorkingFile,
    meter: &Meter<'_>,
) -> Result<Entry, SnapshotError> {
    let on_disk = path.under(site.root);
    match file.kind {
        FileKind::File { executable } => {
            if file.normalised {
                // Most files are not converted, so a reader is made when the first one is.
                let reader = match reader {
                    Some(reader) => reader,
                    None => reader.insert(listed.reader()?),
                };
                if let Some(bytes) = reader.converted(path)? {
                    return meter.file(Source::Bytes(&bytes), executable);
                }
            }
            let known = meter.seen.map(|cache| known_or_read(meter, cache, &on_disk, path.as_bytes())).transpose()?;
            match known.flatten() {
                // Git may have been told that the bit on disk does not count.
                Some(Entry::File { size, id, .. }) => Ok(Entry::File { executable, size, id }),
                _ => meter.file(Source::File(&on_disk), executable),
            }
        }
        FileKind::Symlink => link_entry(&on_disk),
        FileKind::Submodule(commit) => Ok(Entry::Submodule { commit: commit.as_bytes().to_vec() }),
    }
}

pub(super) fn committed_entry(
    reader: &mut CommitReader,
    path: &ProjectPath,
    file: &Tracked,
    meter: &Meter<'_>,
) -> Result<Entry, SnapshotError> {
    match file.kind {
        FileKind::File { executable } => meter.file(Source::Bytes(&reader.bytes(path, file)?), executable),
        FileKind::Symlink => Ok(Entry::Symlink { target: reader.bytes(path, file)? }),
        FileKind::Submodule(commit) => Ok(Entry::Submodule { commit: commit.as_bytes().to_vec() }),
    }
}

pub(super) fn link_entry(path: &Path) -> Result<Entry, SnapshotError> {
    let target = fs::read_link(path).map_err(DiskError::on("read the link", path))?;
    Ok(Entry::Symlink { target: target.as_os_str().as_bytes().to_vec() })
}

/// A directory on its way to becoming a tree.
#[derive(Default)]
pub(super) struct Directory(BTreeMap<Vec<u8>, Item>);

pub(super) enum Item {
    Entry(Entry),
    Directory(Directory),
}

impl Directory {
    /// Returns the directory with these entries; `None` stands for an empty directory.
    pub(super) fn from_entries(entries: Vec<(ProjectPath, Option<Entry>)>) -> Result<Self, SnapshotError> {
        let mut root = Self::default();
        for (path, entry) in entries {
            let conflict = || SnapshotError::Conflict { path: path.clone() };
            let mut directory = &mut root;
            let mut names = path.names();
            let last = names.next_back().unwrap_or_default().to_vec();
            for name in names {
                let item = directory.0.entry(name.to_vec()).or_insert_with(|| Item::Directory(Self::default()));
                match item {
                    Item::Directory(below) => directory = below,
                    Item::Entry(_) => return Err(conflict()),
                }
            }
            match entry {
                Some(entry) => {
                    if directory.0.insert(last, Item::Entry(entry)).is_some() {
                        return Err(conflict());
                    }
                }
                None => {
                    directory.0.entry(last).or_insert_with(|| Item::Directory(Self::default()));
                }
            }
        }
        Ok(root)
    }

    pub(super) fn build(self, meter: &Meter<'_>) -> Result<(TreeId, Sized), SnapshotError> {
        let mut builder = TreeBuilder::new(|bytes: &[u8]| meter.object(Kind::Tree, bytes).map(TreeId::from));
        for (name, item) in self.0 {
            let entry = match item {
                Item::Entry(entry) => entry,
                Item::Directory(directory) => {
                    let (id, sized) = directory.build(meter)?;
                    Entry::Directory { sized, id }
                }
            };
            builder.push(&name, &entry)?;
        }
        builder.finish()
    }
}
