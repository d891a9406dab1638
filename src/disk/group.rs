//! What is made in the directory of a group is for that group.
//!
//! The directory says so by its own mode: its group may write to it, and others may not. What is made in it then
//! belongs to the same group and gives it the same rights, whatever the umask of the user, so that several users
//! work in one store. As the directories of a store pass that on, it is enough to prepare the first.

use std::fs::{self, Metadata, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use super::parent;

/// What was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Made {
    /// A directory, in which the group can do what it can do above.
    Directory,
    /// A file that never changes, or is replaced as a whole.
    File,
    /// A file that is only locked, for which some file systems want the right to write.
    Lock,
}

/// Gives the group of the directory above its rights on what this process just made at `path`.
///
/// Costs a look at the directory above, and little more where it is for a group. What cannot be given is
/// not: then the others are refused, and told so.
pub(super) fn share(path: &Path, made: Made) {
    let Ok(above) = fs::metadata(parent(path)) else { return };
    if !is_for_a_group(&above) {
        return;
    }
    let Ok(own) = fs::symlink_metadata(path) else { return };
    // Another group gets no rights that the one above was meant to have. Only its members can change that.
    if own.gid() != above.gid() && chown(path, None, Some(above.gid())).is_err() {
        return;
    }
    let before = own.mode() & 0o7777;
    let after = before | given(above.mode(), made);
    if before != after {
        let _ = fs::set_permissions(path, Permissions::from_mode(after));
    }
}

fn is_for_a_group(directory: &Metadata) -> bool {
    directory.mode() & 0o022 == 0o020
}

/// Returns which of the rights that a directory gives to its group are passed on.
fn given(above: u32, made: Made) -> u32 {
    above
        & match made {
            Made::Directory => 0o2070,
            Made::File => 0o0040,
            Made::Lock => 0o0060,
        }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::{Change, Disk, Durability, Lock, RealDisk, make_directories, write_whole};
    use super::*;

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    /// Makes everything that a store consists of in a directory of this mode; returns the modes.
    fn modes_in(mode: u32) -> [u32; 4] {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(mode)).unwrap();
        let [deep, file, lock, protected] =
            ["a/b", "a/b/file", "a/b/c/lock", "a/b/pack"].map(|name| root.path().join(name));
        make_directories(&RealDisk, &deep).unwrap();
        write_whole(&file, b"x", Durability::Deferred).unwrap();
        drop(Lock::exclusive(&lock).unwrap());
        drop(RealDisk.create(&protected).unwrap());
        RealDisk.change(Change::Protect(&protected)).unwrap();
        assert_eq!(mode_of(&deep), mode_of(&lock.parent().map(PathBuf::from).unwrap()));
        [deep, file, lock, protected].map(|path| mode_of(&path))
    }

    #[test]
    fn what_is_made_in_the_directory_of_a_group_is_for_the_group_and_else_as_the_umask_has_it() {
        let umask = super::super::umask();
        let [directory, file] = [0o777 & !umask, 0o666 & !umask];
        for mode in [0o700, 0o755, 0o777, 0o1777, 0o2755] {
            // The system passes on this bit by itself.
            let inherited = mode & 0o2000;
            assert_eq!(modes_in(mode), [directory | inherited, file, file, 0o444], "{mode:o}");
        }
        for mode in [0o770, 0o775, 0o2770, 0o2775] {
            let expected = [directory | mode & 0o2070, file | mode & 0o040, file | mode & 0o060, 0o444];
            assert_eq!(modes_in(mode), expected, "{mode:o}");
        }
    }
}
