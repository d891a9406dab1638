//! Laying a snapshot out as files, every byte verified on its way.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::tree::{data_entry, for_each_file, require_data};
use super::{Progress, SnapshotError};
use crate::disk::{self, DiskError, Found};
use crate::object::{BlobId, Entry, Snapshot};
use crate::path::ProjectPath;
use crate::store::{Store, StoreError};

/// Fewer files than this are written by one thread: starting more would cost more.
const PARALLEL_FROM_FILES: usize = 64;

/// How files come out of the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CheckoutMode {
    /// As files that can be edited; they share disk space with the store where the file system can do that safely.
    #[default]
    Copy,
    /// Large ones as read-only names of the store's own files, which take no room; what cannot be linked is copied.
    Link,
}

/// Puts a file of a snapshot at `to`, verified, in place of a file that is there.
///
/// # Errors
///
/// As [`Store::export`].
pub fn place_file(
    store: &dyn Store,
    id: BlobId,
    executable: bool,
    to: &Path,
    mode: CheckoutMode,
) -> Result<(), StoreError> {
    // The mode of a file is that of all its names, and the store's are not executable.
    if mode == CheckoutMode::Link && !executable && store.link(id, to)? {
        return Ok(());
    }
    store.export(id, to, executable)
}

/// Lays the files and data of `snapshot` out below `place`, an empty directory that is made if it is missing.
///
/// Submodules become empty directories, as in a plain checkout: a snapshot knows
/// only their commit. Times are those of writing.
///
/// # Errors
///
/// [`SnapshotError`] if an object is missing or damaged, a file cannot be
/// written, or a path would lead through a link out of the place.
pub fn lay_out(
    store: &dyn Store,
    snapshot: &Snapshot,
    place: &Path,
    progress: Progress<'_>,
) -> Result<(), SnapshotError> {
    require_data(store, snapshot)?;
    disk::make_directory(place)?;
    let mut files = Vec::new();
    for_each_file(store, snapshot.tree, None, &mut |path, entry| prepare(place, path, entry, &mut files))?;
    write_files(store, &files, progress)?;
    for (path, data) in &snapshot.data {
        place_entry(store, place, path, &data_entry(data), progress)?;
    }
    Ok(())
}

/// Puts `entry` at `path` below `place`, in place of whatever is there.
///
/// Missing directories above are made; one that is a link is an error.
///
/// # Errors
///
/// As [`lay_out`].
pub fn place_entry(
    store: &dyn Store,
    place: &Path,
    path: &ProjectPath,
    entry: &Entry,
    progress: Progress<'_>,
) -> Result<(), SnapshotError> {
    make_parents(place, path)?;
    let target = path.under(place);
    // A file is replaced in one step by the store; anything else must go first.
    if !matches!((entry, disk::look(&target)?), (Entry::File { .. }, Some(Found::File { .. }) | None)) {
        disk::remove_tree(&target)?;
    }
    let mut files = Vec::new();
    prepare(place, path, entry, &mut files)?;
    if let Entry::Directory { id, .. } = entry {
        for_each_file(store, *id, Some(path), &mut |path, entry| prepare(place, path, entry, &mut files))?;
    }
    write_files(store, &files, progress)
}

struct ToWrite {
    id: BlobId,
    size: u64,
    executable: bool,
    path: PathBuf,
    name: ProjectPath,
}

/// Makes what is cheap (directories, links) and notes what is not (files).
fn prepare(place: &Path, path: &ProjectPath, entry: &Entry, files: &mut Vec<ToWrite>) -> Result<(), SnapshotError> {
    let target = path.under(place);
    match entry {
        Entry::File { executable, size, id } => {
            files.push(ToWrite { id: *id, size: *size, executable: *executable, path: target, name: path.clone() });
        }
        Entry::Directory { .. } | Entry::Submodule { .. } => disk::make_directory(&target)?,
        Entry::Symlink { target: points_at } => {
            std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(points_at), &target)
                .map_err(DiskError::on("link", &target))?;
        }
    }
    Ok(())
}

fn write_files(store: &dyn Store, files: &[ToWrite], progress: Progress<'_>) -> Result<(), SnapshotError> {
    let write = |file: &ToWrite| -> Result<(), SnapshotError> {
        store.export(file.id, &file.path, file.executable).map_err(|error| match error {
            source @ StoreError::Missing { .. } => SnapshotError::NoContent { path: file.name.clone(), source },
            error => error.into(),
        })?;
        if progress(1, file.size) { Ok(()) } else { Err(SnapshotError::Stopped) }
    };
    if files.len() < PARALLEL_FROM_FILES {
        files.iter().try_for_each(write)
    } else {
        files.par_iter().try_for_each(write)
    }
}

/// Makes the directories above `path`; refuses to go through a link, which could lead anywhere.
fn make_parents(place: &Path, path: &ProjectPath) -> Result<(), SnapshotError> {
    let mut directory = place.to_owned();
    let mut names = path.names();
    names.next_back();
    for name in names {
        directory.push(std::ffi::OsStr::from_bytes(name));
        match disk::look(&directory)? {
            Some(Found::Directory) => {}
            Some(Found::Symlink) => return Err(SnapshotError::BehindLink { path: path.clone() }),
            Some(_) => return Err(SnapshotError::Conflict { path: path.clone() }),
            None => match fs::create_dir(&directory) {
                // Another step of the same run may have made it just now.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                made => made.map_err(DiskError::on("make the directory", &directory))?,
            },
        }
    }
    Ok(())
}
