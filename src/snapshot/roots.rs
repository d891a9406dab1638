//! Taking data roots and outputs: one file, or a directory with everything in it.

use std::fs;
use std::path::Path;

use super::SnapshotError;
use super::capture::Site;
use super::data::Pointer;
use super::gather::{Directory, Listed, Meter, committed_entry, in_parallel, link_entry, working_entry};
use super::walk::{known_or_read, take_directory};
use crate::disk::{self, DiskError, Found};
use crate::git::{CommitFiles, WorkingFiles};
use crate::object::{DataRoot, Entry};
use crate::path::ProjectPath;
use crate::pipeline::Pipeline;
use crate::stat_cache::StatCache;
use crate::store::{Source, Store};

/// Takes the data roots that need a pointer, and nothing else. Their content goes to `store`.
///
/// # Errors
///
/// [`SnapshotError`] if data is neither there nor pointed at, or cannot be read.
pub fn capture_data(site: Site<'_>, pipeline: &Pipeline, store: &dyn Store) -> Result<Listed<DataRoot>, SnapshotError> {
    let listed = site.repository.working_files(site.prefix)?;
    let meter = Meter::new(store, site.seen, &|_, _| true);
    let mut pointed = Vec::new();
    for path in &pipeline.data {
        let (root, needs_pointer) = working_root(site, &listed, path, &meter)?;
        if needs_pointer {
            pointed.push((path.clone(), root));
        }
    }
    Ok(pointed)
}

/// Returns the data roots that have a pointer in the working tree, with what it says.
///
/// # Errors
///
/// [`SnapshotError`] if a pointer cannot be read or understood.
pub fn read_pointers(site: Site<'_>, pipeline: &Pipeline) -> Result<Listed<DataRoot>, SnapshotError> {
    let mut pointers = Vec::new();
    for path in &pipeline.data {
        let bytes = disk::read_if_there(&Pointer::place(path).under(site.root))?;
        pointers.extend(read_pointer(path, bytes)?.map(|root| (path.clone(), root)));
    }
    Ok(pointers)
}

/// Takes what lies at `path` on disk: a file, a link, or a directory with all below it. `None` if nothing is there.
///
/// `seen` is the memory of a working tree and the path in it that this is, if it is in one.
///
/// # Errors
///
/// [`SnapshotError`] if something cannot be read, or is no file, link or directory.
pub fn capture_path(
    path: &Path,
    seen: Option<(&StatCache, &ProjectPath)>,
    store: &dyn Store,
) -> Result<Option<Entry>, SnapshotError> {
    let meter = Meter::new(store, seen.map(|(cache, _)| cache), &|_, _| true);
    Ok(match disk::look(path)? {
        None => None,
        Some(Found::Symlink) => Some(link_entry(path)?),
        Some(_) => {
            let remembered = seen.map(|(_, path)| path.as_bytes());
            Some(super::tree::data_entry(&capture_root(path, remembered, &meter)?))
        }
    })
}

/// Takes one data root of the working tree, and tells whether it needs a pointer: Git does not see all of it.
///
/// A root that Git sees the whole of is taken as a commit has it: without empty directories, and with
/// the line endings of a checkout. A root that is not on this disk is what its pointer says.
pub(super) fn working_root(
    site: Site<'_>,
    listed: &WorkingFiles<'_>,
    path: &ProjectPath,
    meter: &Meter<'_>,
) -> Result<(DataRoot, bool), SnapshotError> {
    let on_disk = path.under(site.root);
    if !on_disk.exists() {
        let bytes = disk::read_if_there(&Pointer::place(path).under(site.root))?;
        let root = read_pointer(path, bytes)?
            .ok_or_else(|| SnapshotError::NoData { place: "the working tree".to_owned(), path: path.clone() })?;
        return Ok((root, true));
    }
    let seen: Vec<_> = listed.files().iter().filter(|(file, _)| file.is_within(path)).collect();
    // Of a root that is a link, Git sees the link and not what lies behind it.
    if seen.is_empty() || on_disk.is_symlink() || seen.len() != count_files(&on_disk)? {
        return Ok((capture_root(&on_disk, Some(path.as_bytes()), meter)?, true));
    }
    let entries =
        in_parallel(&seen, &|| Ok(None), &|reader, path, file| working_entry(site, listed, reader, path, file, meter))?;
    match root_of_entries(path, entries, meter)? {
        Some(root) => Ok((root, false)),
        None => Ok((capture_root(&on_disk, Some(path.as_bytes()), meter)?, true)),
    }
}

pub(super) fn count_files(root: &Path) -> Result<usize, SnapshotError> {
    if disk::look(root)? != Some(Found::Directory) {
        return Ok(1);
    }
    let mut files = 0;
    for entry in disk::walk(root) {
        files += usize::from(entry?.1 != Found::Directory);
    }
    Ok(files)
}

/// Takes a data root or an output: one file, or a directory with everything in it, also empty directories.
pub(super) fn capture_root(
    path: &Path,
    remembered: Option<&[u8]>,
    meter: &Meter<'_>,
) -> Result<DataRoot, SnapshotError> {
    let metadata = fs::metadata(path).map_err(DiskError::on("look at", path))?;
    // What a link leads to is not where the memory thinks it is.
    let remembered = remembered.filter(|_| !path.is_symlink());
    match Found::from_metadata(&metadata) {
        Found::File { executable, .. } => {
            let known = match meter.seen.zip(remembered) {
                Some((cache, remembered)) => known_or_read(meter, cache, path, remembered)?,
                None => None,
            };
            let entry = known.map_or_else(|| meter.file(Source::File(path), executable), Ok)?;
            match entry {
                Entry::File { executable, size, id } => Ok(DataRoot::File { executable, size, id }),
                _ => unreachable!("a file becomes the entry of a file"),
            }
        }
        Found::Directory => {
            let (id, sized) = take_directory(meter, path, remembered)?;
            Ok(DataRoot::Directory { sized, id })
        }
        Found::Symlink | Found::Other => Err(SnapshotError::Special { path: path.to_owned() }),
    }
}

/// The content of a data root that Git tracks, from the files of a commit.
pub(super) fn tracked_root(
    listed: &CommitFiles<'_>,
    root: &ProjectPath,
    meter: &Meter<'_>,
) -> Result<Option<DataRoot>, SnapshotError> {
    let files: Vec<_> = listed.files().iter().filter(|(path, _)| path.is_within(root)).collect();
    let entries =
        in_parallel(&files, &|| listed.reader(), &|reader, path, file| committed_entry(reader, path, file, meter))?;
    root_of_entries(root, entries, meter)
}

/// Returns the data root with these files; `None` if there are none, or if it is no file or directory.
pub(super) fn root_of_entries(
    root: &ProjectPath,
    entries: Listed<Entry>,
    meter: &Meter<'_>,
) -> Result<Option<DataRoot>, SnapshotError> {
    let mut below = Vec::new();
    for (path, entry) in entries {
        match (path.strip(root), entry) {
            (Some(relative), entry) => below.push((relative, Some(entry))),
            (None, Entry::File { executable, size, id }) => {
                return Ok(Some(DataRoot::File { executable, size, id }));
            }
            (None, _) => return Ok(None),
        }
    }
    if below.is_empty() {
        return Ok(None);
    }
    let (id, sized) = Directory::from_entries(below)?.build(meter)?;
    Ok(Some(DataRoot::Directory { sized, id }))
}

pub(super) fn read_pointer(root: &ProjectPath, bytes: Option<Vec<u8>>) -> Result<Option<DataRoot>, SnapshotError> {
    let Some(bytes) = bytes else { return Ok(None) };
    let pointer: Option<Pointer> = std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok());
    pointer.map(|pointer| Some(pointer.0)).ok_or_else(|| SnapshotError::Pointer { path: Pointer::place(root) })
}
