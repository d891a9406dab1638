//! Objects and references that outlast a power cut.
//!
//! What git itself writes here is not flushed: after a cut there may be names
//! of objects without their bytes, and references without a value. This writes
//! objects before the reference that needs them, and heals what a cut left.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use gix::ObjectId;
use gix::lock::acquire::Fail;
use gix::objs::WriteTo;

use super::GitError;
use crate::disk::{self, DiskError};

/// Writes objects, and remembers which are still to be flushed.
pub(super) struct Writer<'a> {
    local: &'a gix::Repository,
    written: RefCell<BTreeSet<PathBuf>>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(local: &'a gix::Repository) -> Self {
        Self { local, written: RefCell::default() }
    }

    /// Writes an object, also where its name is there without its bytes; it is durable after [`Writer::flush`].
    pub(super) fn write(&self, object: &impl WriteTo) -> gix::Result<ObjectId> {
        let id = self.local.write_object(object)?.detach();
        let path = loose_path(self.local, id);
        // The writer takes a name for the object, whoever left it there.
        if self.local.find_object(id).is_err() {
            disk::remove_tree(&path).map_err(gix::Error::from_error)?;
            self.local.write_object(object)?;
        }
        self.written.borrow_mut().insert(path);
        Ok(id)
    }

    /// Flushes what was written since the last time: two calls to the system an object, one for each directory.
    ///
    /// # Errors
    ///
    /// [`DiskError`] if a file or directory cannot be flushed.
    pub(super) fn flush(&self) -> Result<(), DiskError> {
        let mut directories = BTreeSet::new();
        for path in self.written.take() {
            // One that is not there is in a pack, which git flushes.
            if disk::look(&path)?.is_some() {
                disk::sync_file(&path)?;
                directories.extend(path.ancestors().skip(1).take(2).map(Path::to_owned));
            }
        }
        directories.iter().rev().try_for_each(|directory| disk::sync_directory(directory))
    }
}

fn loose_path(local: &gix::Repository, id: ObjectId) -> PathBuf {
    let hex = id.to_string();
    local.common_dir().join("objects").join(&hex[..2]).join(&hex[2..])
}

/// Flushes the value of a reference.
///
/// # Errors
///
/// [`DiskError`] if it cannot be flushed.
pub(super) fn flush_reference(local: &gix::Repository, reference: &str) -> Result<(), DiskError> {
    let path = local.common_dir().join(reference);
    // Others may have packed it since.
    if disk::look(&path)?.is_none() {
        return Ok(());
    }
    disk::sync_file(&path)?;
    disk::sync_directory(disk::parent(&path))
}

/// Removes a reference that a power cut left without a value, and returns whether there was one.
///
/// # Errors
///
/// [`GitError`] if it is locked, or cannot be read or removed.
pub(super) fn remove_blank(local: &gix::Repository, reference: &str) -> Result<bool, GitError> {
    let path = local.common_dir().join(reference);
    let is_blank = || -> Result<bool, DiskError> {
        let bytes = disk::read_if_there(&path)?;
        Ok(bytes.is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0 || byte.is_ascii_whitespace())))
    };
    if !is_blank()? {
        return Ok(false);
    }
    let failed = GitError::on(format!("lock `{reference}`"));
    let lock = gix::lock::Marker::acquire_to_hold_resource(&path, Fail::Immediately, None, 0).map_err(failed)?;
    let was_blank = is_blank()?;
    if was_blank {
        disk::remove_tree(&path)?;
    }
    drop(lock);
    Ok(was_blank)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{META, Scratch, file};

    #[test]
    fn a_reference_that_a_power_cut_left_without_a_value_is_made_anew() {
        // After a cut on XFS, `refs/pv/meta` was an empty file: records were never exchanged
        // again, and `git gc` refused the repository.
        for left in ["", "\0\0\0\0", "\n"] {
            let scratch = Scratch::new();
            scratch.repository().add_to_set(META, &[file("a/1", "one")], "first").unwrap();
            scratch.write(".git/refs/pv/meta", left);
            let repository = scratch.repository();
            assert_eq!(repository.set_tip(META).unwrap(), None);
            repository.add_to_set(META, &[file("a/2", "two")], "second").unwrap();
            assert_eq!(scratch.line(&["show", &format!("{META}:a/2")]), "two");
            scratch.git(&["fsck", "--strict"]);
        }
    }

    #[test]
    fn an_object_that_a_power_cut_left_without_bytes_is_written_again() {
        let scratch = Scratch::new();
        let first = scratch.repository().add_to_set(META, &[file("a/1", "one")], "first").unwrap();
        let objects = scratch.line(&["rev-list", "--objects", "--no-object-names", &first.to_string()]);
        scratch.git(&["update-ref", "-d", META]);
        for id in objects.lines() {
            let path = format!(".git/objects/{}/{}", &id[..2], &id[2..]);
            scratch.remove(&path);
            scratch.write(&path, "");
        }
        scratch.repository().add_to_set(META, &[file("a/1", "one")], "first").unwrap();
        assert_eq!(scratch.line(&["show", &format!("{META}:a/1")]), "one");
        scratch.git(&["fsck", "--strict"]);
    }
}
