//! Objects that outlast a power cut.
//!
//! What git itself writes here is not flushed: after a cut there may be names
//! of objects without their bytes. This writes objects before the reference
//! that needs them, and heals what a cut left.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use gix::ObjectId;
use gix::objs::WriteTo;

use crate::disk::{self, DiskError, OpenDirectory};

/// The names of files that are to become objects, as `gix` makes them: six random characters after this.
const TEMPORARY_PREFIX: &[u8] = b".tmp";
const TEMPORARY_LENGTH: usize = 10;
/// A day: nobody writes one object for so long.
const LEFT_AFTER_NS: i64 = 86_400_000_000_000;

/// Writes an object, also where its name is there without its bytes; it is durable after [`flush`].
///
/// # Errors
///
/// What the library or the disk says.
pub(super) fn write(local: &gix::Repository, object: &impl WriteTo) -> gix::Result<ObjectId> {
    let id = local.write_object(object)?.detach();
    // The library takes a name for the object, whoever left it there.
    if local.find_object(id).is_err() {
        disk::remove_tree(&loose_path(local, id)).map_err(gix::Error::from_error)?;
        local.write_object(object)?;
    }
    Ok(id)
}

/// Flushes all objects that were written, and whatever else was written to that file system.
///
/// One call, where the least of moves would need nine: one for each object, and one for each directory.
///
/// # Errors
///
/// [`DiskError`] if they cannot be flushed.
pub(super) fn flush(local: &gix::Repository) -> Result<(), DiskError> {
    disk::sync_file_system(&objects(local))
}

/// Removes what writers of objects left that were killed a day or longer before `now_ns`, in nanoseconds since 1970.
///
/// Git removes what its own left, and knows nothing of these. Costs one listing
/// of a directory with some 260 names. What cannot be removed only takes up room.
pub(super) fn sweep(local: &gix::Repository, now_ns: i64) {
    let directory = objects(local);
    let Ok(opened) = OpenDirectory::at(&directory) else { return };
    for name in opened.list(&directory).unwrap_or_default().names() {
        let is_temporary = name.len() == TEMPORARY_LENGTH && name.starts_with(TEMPORARY_PREFIX);
        if is_temporary
            && let Ok(stat) = opened.stat(name, &directory)
            && stat.modified_ns.saturating_add(LEFT_AFTER_NS) <= now_ns
        {
            let _ = disk::remove_tree(&directory.join(OsStr::from_bytes(name)));
        }
    }
}

fn objects(local: &gix::Repository) -> PathBuf {
    local.common_dir().join("objects")
}

fn loose_path(local: &gix::Repository, id: ObjectId) -> PathBuf {
    let hex = id.to_string();
    objects(local).join(&hex[..2]).join(&hex[2..])
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
            // The time is in the commit: a later second makes another one.
            if id != first.to_string() {
                scratch.write(&path, "");
            }
        }
        scratch.repository().add_to_set(META, &[file("a/1", "one")], "first").unwrap();
        assert_eq!(scratch.line(&["show", &format!("{META}:a/1")]), "one");
        scratch.git(&["fsck", "--strict"]);
    }

    #[test]
    fn what_a_writer_of_objects_left_long_ago_is_removed() {
        let scratch = Scratch::new();
        let left =
            [".tmpAb3dE6", ".tmpAb3dE7", ".tmpAb3dE678", "info/.tmpAb3dE6"].map(|name| format!(".git/objects/{name}"));
        for (name, days) in left.iter().zip([2, 0, 2, 2]) {
            scratch.write_aged(name, "half an object", days * 86_400 + 1);
        }
        scratch.repository().add_to_set(META, &[file("a/1", "one")], "first").unwrap();
        let there = left.map(|name| crate::disk::look(&scratch.root.join(name)).unwrap().is_some());
        assert_eq!(there, [false, true, true, true]);
    }
}
