//! Who uses a store that lies outside of a repository: `users/<12 digits>`, one line each, a common git directory.
//!
//! Whoever takes something away asks each of them what it needs. So a user is
//! written down before it writes the first object, and is forgotten only on request.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{LocalStore, StoreError};
use crate::disk::{self, Change, DiskError, Durability, Flush, Found};
use crate::hash::Digest;

impl LocalStore {
    /// Says that the store lies outside of the repository with this common git directory, which uses it.
    ///
    /// Writes nothing yet; the first write into the store puts the user on its list.
    #[must_use]
    pub fn used_by(mut self, common_directory: &Path) -> Self {
        self.user = Some(common_directory.to_owned());
        self
    }

    /// Returns the directory of the store.
    pub fn directory(&self) -> &Path {
        self.layout.root()
    }

    /// Returns the common git directories of all users on the list; none for a store inside a repository.
    ///
    /// # Errors
    ///
    /// [`StoreError::Disk`] if the list or an entry of it cannot be read, also when it is half written: then it is
    /// not known who else needs what.
    pub fn users(&self) -> Result<BTreeSet<PathBuf>, StoreError> {
        let directory = self.layout.users();
        let mut users = BTreeSet::new();
        if disk::look(&directory)?.is_none() {
            return Ok(users);
        }
        for entry in disk::walk(&directory) {
            let (path, found) = entry?;
            let is_entry = matches!(found, Found::File { .. })
                && path.file_name().is_some_and(|name| !name.as_bytes().starts_with(b"."));
            if !is_entry {
                continue;
            }
            let bytes = disk::read_if_there(&path)?.unwrap_or_default();
            let user = bytes.strip_suffix(b"\n").map(|line| PathBuf::from(OsStr::from_bytes(line)));
            users.insert(user.filter(|user| user.is_absolute()).ok_or_else(|| {
                let source = std::io::Error::new(std::io::ErrorKind::InvalidData, "no absolute path in one line");
                DiskError { action: "read", path, source }
            })?);
        }
        Ok(users)
    }

    /// Puts the user of this value on the list, durably. Costs one look if it is there already.
    ///
    /// # Errors
    ///
    /// [`StoreError::Disk`] if that cannot be written.
    pub fn register(&self) -> Result<(), StoreError> {
        let Some(user) = &self.user else { return Ok(()) };
        let line = [user.as_os_str().as_bytes(), b"\n"].concat();
        let path = self.entry_of(user);
        if disk::read_if_there(&path)?.is_none_or(|bytes| bytes != line) {
            disk::write_whole_on(&*self.disk, &path, &line, Durability::Synced)?;
        }
        Ok(())
    }

    /// Takes a user off the list. Returns whether it was there.
    ///
    /// # Errors
    ///
    /// [`StoreError::Disk`] if that cannot be written.
    pub fn forget(&self, common_directory: &Path) -> Result<bool, StoreError> {
        let path = self.entry_of(common_directory);
        if disk::look(&path)?.is_none() {
            return Ok(false);
        }
        self.disk.change(Change::Remove(&path))?;
        self.disk.flush(Flush::Directory(&self.layout.users()))?;
        Ok(true)
    }

    fn entry_of(&self, user: &Path) -> PathBuf {
        self.layout.users().join(Digest::of(user.as_os_str().as_bytes()).short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Kind;
    use crate::store::{Source, Store};

    #[test]
    fn the_first_write_puts_the_user_on_the_list() {
        let scratch = tempfile::tempdir().unwrap();
        let open = |user: &str| LocalStore::open(scratch.path()).unwrap().used_by(Path::new(user));
        let (one, other) = (open("/one/.git"), open("/two/.git"));
        assert_eq!(one.users().unwrap(), BTreeSet::new());
        one.put(Kind::Blob, Source::Bytes(b"data")).unwrap();
        other.hold().unwrap();
        let both: BTreeSet<PathBuf> = ["/one/.git", "/two/.git"].map(PathBuf::from).into();
        assert_eq!(one.users().unwrap(), both);
        assert!(one.forget(Path::new("/two/.git")).unwrap());
        assert!(!one.forget(Path::new("/two/.git")).unwrap());
        assert_eq!(one.users().unwrap(), [PathBuf::from("/one/.git")].into());
    }

    #[test]
    fn a_user_that_is_half_written_is_an_error() {
        let scratch = tempfile::tempdir().unwrap();
        let store = LocalStore::open(scratch.path()).unwrap().used_by(Path::new("/one/.git"));
        store.register().unwrap();
        disk::write_whole(&store.entry_of(Path::new("/one/.git")), b"/on", Durability::Deferred).unwrap();
        assert!(store.users().is_err());
        store.register().unwrap();
        assert_eq!(store.users().unwrap().len(), 1);
    }
}
