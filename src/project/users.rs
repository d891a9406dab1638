//! What all users of the store need, not this project alone.

use std::path::Path;

use super::{DIRECTORY, Project};
use crate::git::Repository;
use crate::host::Time;
use crate::record::Journal;
use crate::retention::{self, RetentionError, Roots, User};

impl Project {
    /// Returns where everything begins that this project and every other user of its store must keep.
    ///
    /// Costs what [`retention::roots`] costs, for each user.
    ///
    /// # Errors
    ///
    /// [`RetentionError::User`] if another user cannot be read, and as [`retention::roots`]: nobody knows then what is needed.
    pub fn roots(&self, since: Time) -> Result<Roots, RetentionError> {
        let mut roots = retention::roots(self.user(&self.commits()), since)?;
        for user in self.store.users()? {
            if user != self.repository.common_directory() {
                let of_user = roots_of(&user, since);
                roots.add(of_user.map_err(|source| RetentionError::User { path: user, source: Box::new(source) })?);
            }
        }
        Ok(roots)
    }
}

fn roots_of(common_directory: &Path, since: Time) -> Result<Roots, RetentionError> {
    let repository = Repository::at(common_directory)?;
    let directory = repository.common_directory().join(DIRECTORY);
    let journal = Journal::new(directory.join("records"));
    retention::roots(User { repository: &repository, journal: &journal, memory: &directory.join("commits") }, since)
}
