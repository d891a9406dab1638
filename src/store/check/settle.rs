//! Putting what was saved in place, and damaged files out of the way.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::Checked;
use crate::disk::{self, Change, DiskError, Flush, Lock};
use crate::store::pack::file_name;
use crate::store::{LocalStore, Store, StoreError};

/// A damaged file that cannot be moved is copied in pieces of this size.
const BUFFER_BYTES: usize = 1 << 20;

impl LocalStore {
    /// Publishes what was staged, then moves every damaged file to `quarantine/`.
    ///
    /// What was saved is durable and visible before the file that it was saved
    /// from goes; a crash in between leaves both.
    ///
    /// # Errors
    ///
    /// [`StoreError::Disk`] if anything cannot be written or moved. The next check finds again what is left.
    pub fn settle(&self, checked: &mut Checked) -> Result<(), StoreError> {
        if checked.damaged.is_empty() {
            return self.sync();
        }
        // Whoever takes packs away must not take one for whole that is about to go.
        let _collecting = Lock::exclusive(&self.layout.collecting())?;
        self.make_quarantine()?;
        self.staging.seal(&self.packs, false)?;
        let sealed: Vec<_> = self.staging.work()?.packs.iter().map(|pack| file_name(pack.name())).collect();
        for damaged in &mut checked.damaged {
            let path = self.layout.root().join(&damaged.path);
            // A new pack with the same records takes the same name, and the place of the damaged one.
            if path.file_name().is_some_and(|name| sealed.iter().any(|sealed| name == sealed.as_str())) {
                let to = self.free_place(&path)?;
                self.copy_aside(&path, &to)?;
                damaged.quarantined = Some(self.relative(&to));
            }
        }
        self.disk.flush(Flush::Directory(&self.layout.quarantine()))?;
        self.sync()?;
        for damaged in &mut checked.damaged {
            if damaged.quarantined.is_none() {
                let path = self.layout.root().join(&damaged.path);
                damaged.quarantined = self.move_aside(&path)?;
            }
        }
        Ok(())
    }

    /// Makes the quarantine, and its name durable: what is moved there must be found there.
    fn make_quarantine(&self) -> Result<(), StoreError> {
        disk::make_directories(&*self.disk, &self.layout.quarantine())?;
        Ok(self.disk.flush(Flush::Directory(self.layout.root()))?)
    }

    /// Moves a damaged file to the quarantine. Returns where it is now; `None` if it went meanwhile.
    fn move_aside(&self, path: &Path) -> Result<Option<PathBuf>, StoreError> {
        let to = self.free_place(path)?;
        match self.disk.change(Change::Rename { from: path, to: &to }) {
            Err(error) if error.is_missing() => return Ok(None),
            moved => moved?,
        }
        // The new name first: a crash in between leaves two, not none.
        for directory in [&*self.layout.quarantine(), disk::parent(path)] {
            self.disk.flush(Flush::Directory(directory))?;
        }
        Ok(Some(self.relative(&to)))
    }

    /// Returns where in the quarantine a damaged file can go: `<name>-<n>`.
    fn free_place(&self, path: &Path) -> Result<PathBuf, DiskError> {
        let name = self.name_aside(path);
        let mut number = 1_u32;
        loop {
            let to = self.layout.quarantine().join(format!("{name}-{number}"));
            if disk::look(&to)?.is_none() {
                return Ok(to);
            }
            number += 1;
        }
    }

    /// Returns the name of a pack's file, or kind and digest of an object: its path has them in parts.
    fn name_aside(&self, path: &Path) -> String {
        let relative = self.relative(path);
        let parts: Vec<_> = relative.iter().map(|part| part.to_string_lossy()).collect();
        match parts.as_slice() {
            [_, kind, shard, rest] => format!("{kind}-{shard}{rest}"),
            parts => parts.last().map(ToString::to_string).unwrap_or_default(),
        }
    }

    fn copy_aside(&self, path: &Path, to: &Path) -> Result<(), StoreError> {
        let source = File::open(path).map_err(DiskError::on("read", path))?;
        let file = self.disk.create(to)?;
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut at = 0;
        loop {
            let count = source.read_at(&mut buffer, at).map_err(DiskError::on("read", path))?;
            if count == 0 {
                break;
            }
            self.disk.write(&file, to, at, &buffer[..count])?;
            at += count as u64;
        }
        self.disk.change(Change::Protect(to))?;
        Ok(self.disk.flush(Flush::File(to))?)
    }
}
