//! The store and who else uses it: what all of them need, and how a project moves from one store to another.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{DIRECTORY, KEPT_SINCE, PINS, Project, ProjectError, STORE_KEY};
use crate::disk::{self, Change, DiskError, Durability, Flush};
use crate::environment;
use crate::git::Repository;
use crate::host::Time;
use crate::object::{DataRoot, Pin};
use crate::record::Journal;
use crate::retention::{self, RetentionError, Roots, User};
use crate::store::{LocalStore, StoreError, is_free, sweep_moved};

/// The file that says which store is being left, until nothing of this project is there any more.
const LEAVING: &str = "leaving";

/// Told of files and bytes while a store is moved.
type Progress<'a> = &'a dyn Fn(u64, u64);

#[cfg(test)]
mod tests;

/// What became of a store that was moved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MovedStore {
    /// Where it is now.
    pub path: PathBuf,
    /// How many files were copied; what was there already does not count.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Where it is still, because others use it there.
    pub stays_at: Option<PathBuf>,
}

impl Project {
    /// Returns the common git directories of all others that use the store of this project.
    ///
    /// # Errors
    ///
    /// [`StoreError::Disk`] if the list cannot be read.
    pub fn other_users(&self) -> Result<Vec<PathBuf>, StoreError> {
        self.others_of(&self.store)
    }

    fn others_of(&self, store: &LocalStore) -> Result<Vec<PathBuf>, StoreError> {
        let mut users = store.users()?;
        // A store inside a repository belongs to it, and has it on no list.
        users.extend(owner(store.directory()));
        users.remove(self.repository.common_directory());
        Ok(users.into_iter().collect())
    }

    /// Returns where everything begins that this project and every other user of its store must keep.
    ///
    /// Costs what [`retention::roots`] costs, for each user.
    ///
    /// # Errors
    ///
    /// [`RetentionError::User`] if another user cannot be read, and as [`retention::roots`]: nobody knows then what is needed.
    pub fn roots(&self, since: Time) -> Result<Roots, RetentionError> {
        self.roots_with(since, &|_| true)
    }

    /// Returns what [`Project::roots`] does, as if this project had no pin of an image.
    ///
    /// # Errors
    ///
    /// As [`Project::roots`].
    pub fn roots_without(&self, since: Time, image: &str) -> Result<Roots, RetentionError> {
        self.roots_with(since, &|pin| pin.image != image)
    }

    fn roots_with(&self, since: Time, is_pinned: &dyn Fn(&Pin) -> bool) -> Result<Roots, RetentionError> {
        let mut roots = retention::roots(self.user(&self.commits()), since)?;
        roots.data.extend(pinned(&self.pins(), is_pinned)?);
        for path in self.other_users()? {
            match roots_of(&path, since) {
                Ok(of_user) => roots.add(of_user),
                Err(source) => return Err(RetentionError::User { path, source: Box::new(source) }),
            }
        }
        Ok(roots)
    }

    /// Moves the store to the directory `to`, which is absolute, or joins the store that is there.
    ///
    /// A crash leaves the project with a whole store; calling it again goes on. Where others use the old store, it
    /// stays. Costs two reads and a write of all that is not there yet. `progress` is told files and bytes.
    ///
    /// # Errors
    ///
    /// [`StoreError::Occupied`] if `to` holds something else or lies inside the store, and as [`LocalStore::copy_to`];
    /// [`crate::git::GitError`] if the configuration cannot be changed.
    pub fn move_store(&self, to: &Path, progress: Progress<'_>) -> Result<MovedStore, ProjectError> {
        let (to, here, home) = (absolute(to), absolute(self.store.directory()), absolute(&self.directory));
        // What is removed from the old place must not be what was just copied.
        let is_inside = [&here, &home].into_iter().any(|store| to != *store && to.starts_with(store));
        if is_inside || to != home && !is_free(&to)? {
            return Err(StoreError::Occupied { path: to }.into());
        }
        if here != to {
            return self.change_store(&self.store, to, progress);
        }
        // An earlier try may have died before it removed what was at the old place.
        let old = self.leaving()?.unwrap_or_else(|| home.clone());
        let open = if old == home { LocalStore::open_on } else { LocalStore::open_existing_on };
        match open(Arc::clone(&self.disk), &old) {
            _ if old == to => {}
            Ok(store) => return self.change_store(&store, to, progress),
            Err(StoreError::Moved { .. }) => sweep_moved(&*self.disk, &old)?,
            Err(StoreError::Absent { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        self.has_left()?;
        Ok(MovedStore { path: to, files: 0, bytes: 0, stays_at: None })
    }

    fn change_store(&self, from: &LocalStore, to: PathBuf, progress: Progress<'_>) -> Result<MovedStore, ProjectError> {
        let common = self.repository.common_directory();
        let moving = from.copy_to(&to, progress)?;
        let (files, bytes) = moving.copied();
        // Not before nobody can begin to use the old store any more.
        let others = self.others_of(from)?;
        let left = [from.directory().as_os_str().as_bytes(), b"\n"].concat();
        disk::write_whole_on(&*self.disk, &self.directory.join(LEAVING), &left, Durability::Synced)?;
        if let Some(since) = self.kept_since() {
            let (path, text) = (self.directory.join(KEPT_SINCE), format!("{}\n", since.epoch_ms));
            disk::write_whole_on(&*self.disk, &path, text.as_bytes(), Durability::Synced)?;
        }
        if to == absolute(&self.directory) {
            self.repository.configure(&*self.disk, STORE_KEY, None)?;
            let repository = Repository::discover(&self.root)?;
            if repository.map(|repository| repository.path_setting(STORE_KEY)).transpose()?.flatten().is_some() {
                // Another file of git's configuration says where the stores of all repositories are.
                self.repository.configure(&*self.disk, STORE_KEY, Some(Path::new(DIRECTORY)))?;
            }
        } else {
            // In this order: who collects there from now on asks this project.
            LocalStore::open_existing_on(Arc::clone(&self.disk), &to)?.used_by(common).register()?;
            self.repository.configure(&*self.disk, STORE_KEY, Some(&to))?;
        }
        let stays_at = if others.is_empty() {
            moving.remove_old()?;
            None
        } else {
            from.forget(common)?;
            Some(from.directory().to_owned())
        };
        self.has_left()?;
        Ok(MovedStore { path: to, files, bytes, stays_at })
    }

    /// Returns the store that an earlier move was leaving when it died.
    fn leaving(&self) -> Result<Option<PathBuf>, DiskError> {
        let bytes = disk::read_if_there(&self.directory.join(LEAVING))?;
        let path = bytes.as_deref().and_then(|bytes| bytes.strip_suffix(b"\n"));
        Ok(path.map(|path| PathBuf::from(OsString::from_vec(path.to_vec()))).filter(|path| path.is_absolute()))
    }

    /// Forgets which store was being left.
    fn has_left(&self) -> Result<(), DiskError> {
        self.disk.change(Change::Remove(&self.directory.join(LEAVING)))?;
        self.disk.flush(Flush::Directory(&self.directory))
    }
}

fn roots_of(common_directory: &Path, since: Time) -> Result<Roots, RetentionError> {
    let repository = Repository::at(common_directory)?;
    let directory = repository.common_directory().join(DIRECTORY);
    let journal = Journal::new(directory.join("records"));
    let user = User { repository: &repository, journal: &journal, memory: &directory.join("commits") };
    let mut roots = retention::roots(user, since)?;
    roots.data.extend(pinned(&directory.join(PINS), &|_| true)?);
    Ok(roots)
}

/// Returns the files of all images that have a pin in this directory that counts.
fn pinned(directory: &Path, counts: &dyn Fn(&Pin) -> bool) -> Result<impl Iterator<Item = DataRoot>, RetentionError> {
    let pins = environment::read_pins(directory)?;
    Ok(pins.into_iter().filter(counts).map(|pin| DataRoot::Directory { sized: pin.sized(), id: pin.tree }))
}

/// Returns the git directory that a store at `directory` lies in.
fn owner(directory: &Path) -> Option<PathBuf> {
    let directory = absolute(directory);
    let above = directory.parent().filter(|_| directory.file_name().is_some_and(|name| name == DIRECTORY))?;
    (above.join("HEAD").is_file() && above.join("objects").is_dir()).then(|| above.to_owned())
}

/// Returns the path without links, as far as it is there.
fn absolute(path: &Path) -> PathBuf {
    for above in path.ancestors() {
        if let Ok(real) = std::fs::canonicalize(above) {
            return path
                .strip_prefix(above)
                .map_or_else(|_| path.to_owned(), |below| real.join(below).components().collect());
        }
    }
    path.to_owned()
}
