//! Moving a store to another directory, or into the store that is there.
//!
//! First everything is copied and compared, then the owner says so where
//! others look for it, then it is removed here. A crash in between leaves a
//! whole store at the old place, the new one, or both; the next try goes on.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::layout::Layout;
use super::{BUFFER_BYTES, LocalStore, StoreError, session};
use crate::disk::{self, Change, Disk, DiskError, Flush, Found, Lock};
use crate::hash::Digest;

/// Told of each file and its bytes when it is copied and compared.
type Progress<'a> = &'a dyn Fn(u64, u64);

/// How the names of files begin that are being copied.
const HALF: &str = ".copy-";

/// A store of which everything is in another directory as well, and in which nobody can begin to write.
pub struct Moving {
    disk: Arc<dyn Disk>,
    from: Layout,
    files: Vec<(PathBuf, u64)>,
    copied: u64,
    copied_bytes: u64,
    _locks: Vec<Lock>,
}

impl LocalStore {
    /// Copies everything in the store to the directory `to` and compares it, byte for byte.
    ///
    /// What is there already is only compared. `to` becomes a store, see [`is_free`]; if it is one already, it has
    /// everything of both then. Until the value that is returned is dropped, nobody begins to write here.
    /// Costs two reads and a write of everything.
    ///
    /// # Errors
    ///
    /// [`StoreError::InUse`] while others write to this store,
    /// [`StoreError::Differs`] if two files of one name are not equal, [`StoreError::Disk`] if something cannot be
    /// read or written.
    pub fn copy_to(&self, to: &Path, progress: Progress<'_>) -> Result<Moving, StoreError> {
        let target = Layout::new(to);
        // Also one that is not there yet: somebody may be about to begin it.
        self.layout.establish(&*self.disk)?;
        // Before anything is made at the new place; whether it is still so is seen again under all locks.
        drop(self.resting()?);
        target.establish_again(&*self.disk)?;
        let mut locks = Vec::new();
        // Always in the same order, so that two who move in opposite directions do not wait for each other.
        for lock in BTreeSet::from([self.layout.collecting(), target.collecting()]) {
            locks.push(Lock::exclusive(&lock)?);
        }
        locks.push(self.resting()?);
        let files = contents(&self.layout)?;
        let mut moving = Moving {
            disk: Arc::clone(&self.disk),
            from: Layout::new(self.layout.root()),
            files,
            copied: 0,
            copied_bytes: 0,
            _locks: locks,
        };
        moving.copy(&target, progress)?;
        Ok(moving)
    }

    /// Returns a lock in whose time no session starts here, if none is alive.
    fn resting(&self) -> Result<Lock, StoreError> {
        disk::make_directories(&*self.disk, &self.layout.sessions())?;
        let starting = session::starting(&self.layout.sessions())?;
        match session::living(&self.layout.sessions())?.into_iter().next() {
            Some(session) => Err(StoreError::InUse { path: self.layout.root().to_owned(), session }),
            None => Ok(starting),
        }
    }
}

impl Moving {
    /// Returns how many files were copied, and their bytes; what was there already does not count.
    pub fn copied(&self) -> (u64, u64) {
        (self.copied, self.copied_bytes)
    }

    /// Removes the store here, after its new place is known to all who use it.
    ///
    /// What is left says that the store was moved. Costs one change a file.
    ///
    /// # Errors
    ///
    /// [`StoreError::Disk`] if something cannot be removed; it only takes room.
    pub fn remove_old(self) -> Result<(), StoreError> {
        self.from.mark_moved(&*self.disk)?;
        sweep(&*self.disk, &self.from)
    }

    fn copy(&mut self, target: &Layout, progress: Progress<'_>) -> Result<(), StoreError> {
        let mut directories = BTreeSet::new();
        for (path, size) in &self.files {
            let from = self.from.root().join(path);
            let to = place_for(&from, target.root().join(path), &target.quarantine())?;
            match disk::look(&to)? {
                Some(Found::File { size: there, .. }) if there == *size => {
                    // Also what an earlier try left behind is durable before anything is removed.
                    self.disk.flush(Flush::File(&to))?;
                }
                Some(_) => return Err(StoreError::Differs { path: from, other: to }),
                None => {
                    copy_file(&*self.disk, &from, &to)?;
                    self.copied += 1;
                    self.copied_bytes += size;
                }
            }
            if digest_of(&from)? != digest_of(&to)? {
                return Err(StoreError::Differs { path: from, other: to });
            }
            let above = to.ancestors().skip(1).take_while(|above| above.starts_with(target.root()));
            directories.extend(above.map(Path::to_owned));
            progress(1, *size);
        }
        // The deepest first: a crash in between leaves nothing that leads nowhere.
        directories.iter().rev().try_for_each(|directory| self.disk.flush(Flush::Directory(directory)))?;
        Ok(())
    }
}

/// Returns `to`, or in the `quarantine` the first of the names after it that has no other file: two damaged files are two.
fn place_for(from: &Path, to: PathBuf, quarantine: &Path) -> Result<PathBuf, StoreError> {
    let name = to.file_name().and_then(|name| name.to_str()).and_then(|name| name.rsplit_once('-'));
    let numbered = name.and_then(|(name, number)| Some((name, number.parse::<u64>().ok()?)));
    let Some((name, first)) = numbered.filter(|_| to.parent() == Some(quarantine)) else { return Ok(to) };
    for number in first.. {
        let place = quarantine.join(format!("{name}-{number}"));
        if disk::look(&place)?.is_none() || digest_of(&place)? == digest_of(from)? {
            return Ok(place);
        }
    }
    Ok(to)
}

/// Returns whether `directory` can become a store or is one: it is not there, says so, or holds nothing but a beginning.
///
/// # Errors
///
/// [`StoreError::Version`] if it is a store of a format that is not known, [`StoreError::Disk`] if it cannot be read.
pub fn is_free(directory: &Path) -> Result<bool, StoreError> {
    let layout = Layout::new(directory);
    if layout.is_moved()? {
        return Ok(true);
    }
    layout.check()?;
    if layout.is_there()? || disk::look(directory)?.is_none() {
        return Ok(true);
    }
    // What whoever died while making it a store leaves there: directories, locks, and a temporary file.
    let beginnings = [layout.packs(), layout.collection(), layout.sessions()];
    for entry in disk::walk(directory) {
        let (path, found) = entry?;
        let name = path.file_name().unwrap_or_default();
        let is_beginning = match found {
            Found::Directory => beginnings.contains(&path),
            Found::File { .. } => session::is_lock(name) || disk::is_temporary(name),
            _ => false,
        };
        if !is_beginning {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes what is left of a store that says that it was moved. Costs one change a file.
///
/// # Errors
///
/// [`StoreError::Disk`] if something cannot be removed; it only takes room.
pub fn sweep_moved(disk: &dyn Disk, directory: &Path) -> Result<(), StoreError> {
    let layout = Layout::new(directory);
    if layout.is_moved()? { sweep(disk, &layout) } else { Ok(()) }
}

fn sweep(disk: &dyn Disk, layout: &Layout) -> Result<(), StoreError> {
    let held = [layout.objects(), layout.trash(), layout.quarantine(), layout.packs()];
    // With the list of users: whoever comes here later must not ask those who left.
    for directory in held.into_iter().chain([layout.users(), layout.collection()]) {
        let Some(Found::Directory) = disk::look(&directory)? else { continue };
        let mut directories = vec![directory.clone()];
        for entry in disk::walk(&directory) {
            match entry? {
                (path, Found::Directory) => directories.push(path),
                (path, _) => disk.change(Change::Remove(&path))?,
            }
        }
        directories.iter().rev().try_for_each(|directory| disk.change(Change::RemoveDirectory(directory)))?;
    }
    Ok(disk.flush(Flush::Directory(layout.root()))?)
}

/// Returns every file that holds objects, relative to the store, and its length in bytes.
fn contents(layout: &Layout) -> Result<Vec<(PathBuf, u64)>, DiskError> {
    let mut files = Vec::new();
    for directory in [layout.packs(), layout.objects(), layout.trash(), layout.quarantine()] {
        if disk::look(&directory)?.is_none() {
            continue;
        }
        for entry in disk::walk(&directory) {
            let (path, found) = entry?;
            let below = path.strip_prefix(layout.root()).map(Path::to_owned).unwrap_or_default();
            let is_half = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(HALF.as_bytes()));
            if let Found::File { size, .. } = found
                && !is_half
            {
                files.push((below, size));
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Copies a file, durably but for its name, which appears when all is there.
fn copy_file(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), StoreError> {
    disk::make_directories(disk, disk::parent(to))?;
    // The ending is no pack's, so that no reader takes half of one for it.
    let mut name = std::ffi::OsString::from(HALF);
    name.push(to.file_name().unwrap_or_default());
    name.push(".half");
    let temporary = to.with_file_name(name);
    // The lock on collections is held: what is there is of a try that died.
    disk.change(Change::Remove(&temporary))?;
    let source = File::open(from).map_err(DiskError::on("read", from))?;
    let file = disk.create(&temporary)?;
    if !disk.share(&source, &file, &temporary)? {
        let mut at = 0;
        let mut reader = io::BufReader::with_capacity(BUFFER_BYTES, &source);
        loop {
            let piece = io::BufRead::fill_buf(&mut reader).map_err(DiskError::on("read", from))?;
            if piece.is_empty() {
                break;
            }
            disk.write(&file, &temporary, at, piece)?;
            let length = piece.len();
            at += length as u64;
            io::BufRead::consume(&mut reader, length);
        }
    }
    let mode = source.metadata().map_err(DiskError::on("read", from))?.mode();
    let is_protected = mode & 0o222 == 0;
    disk.change(if is_protected { Change::Protect(&temporary) } else { Change::Open(&temporary) })?;
    disk.flush(Flush::File(&temporary))?;
    Ok(disk.change(Change::Rename { from: &temporary, to })?)
}

fn digest_of(path: &Path) -> Result<Digest, StoreError> {
    Ok(Digest::of_file(path).map_err(DiskError::on("read", path))?.0)
}

#[cfg(test)]
mod tests {
    use super::super::{Source, Store};
    use super::*;
    use crate::disk::Durability;
    use crate::object::Kind;

    #[test]
    fn two_damaged_files_of_one_name_are_both_kept() {
        let root = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| root.path().join(name));
        for (store, text) in [(&one, "damaged here"), (&two, "damaged there")] {
            LocalStore::open(store).unwrap().put(Kind::Blob, Source::Bytes(b"whole")).unwrap();
            disk::write_whole(&store.join("quarantine/x.pack-0"), text.as_bytes(), Durability::Deferred).unwrap();
        }
        for copied in [1, 0] {
            let moving = LocalStore::open(&one).unwrap().copy_to(&two, &|_, _| ()).unwrap();
            assert_eq!(moving.copied().0, copied, "what is there is not copied again");
        }
        let kept = |number| std::fs::read(two.join(format!("quarantine/x.pack-{number}"))).unwrap();
        assert_eq!((kept(0), kept(1)), (b"damaged there".to_vec(), b"damaged here".to_vec()));
        assert!(disk::look(&two.join("quarantine/x.pack-2")).unwrap().is_none());
    }

    #[test]
    fn two_different_packs_of_one_name_are_an_error_and_both_stay() {
        let root = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| root.path().join(name));
        for (store, text) in [(&one, "a pack"), (&two, "a pick")] {
            LocalStore::open(store).unwrap().hold().unwrap();
            disk::write_whole(&store.join("packs/x.pack"), text.as_bytes(), Durability::Deferred).unwrap();
        }
        let refused = LocalStore::open(&one).unwrap().copy_to(&two, &|_, _| ()).map(drop);
        assert!(matches!(refused, Err(StoreError::Differs { .. })), "{refused:?}");
        assert_eq!(std::fs::read(one.join("packs/x.pack")).unwrap(), b"a pack");
        assert_eq!(std::fs::read(two.join("packs/x.pack")).unwrap(), b"a pick");
    }
}
