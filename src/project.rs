//! A project: its root, its repository, and the parts that work on it.
//!
//! Finds them, opens them, hands them out. What is done with them is the matter of the rooms below.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{self, Disk, DiskError, RealDisk};
use crate::environment::Rules;
use crate::git::{GitError, Repository};
use crate::host::{self, Time};
use crate::path::ProjectPath;
use crate::pipeline::{DefinitionError, SETTINGS, SETTINGS_NAME, Settings, read_settings};
use crate::record::Journal;
use crate::retention::User;
use crate::revision::Names;
use crate::run::Named;
use crate::snapshot::Site;
use crate::stat_cache::StatCache;
use crate::store::{LocalStore, StoreError};

#[cfg(test)]
mod crash;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod model;
#[cfg(test)]
mod move_crash;
mod remotes;
mod users;

pub use remotes::{Edit, RemoteSetting, Remotes};
pub use users::MovedStore;

/// The directory that makes a directory a project.
pub const DEFINITIONS: &str = ".pipeline";

/// The key in git's configuration that says where the store lies, if not in the repository.
pub const STORE_KEY: &str = "pv.storePath";
/// The directory in the common git directory where everything is, or all but the objects.
const DIRECTORY: &str = "pv";
const KEPT_SINCE: &str = "kept-since";
/// The directory with the pins of images.
const PINS: &str = "environments";

/// Why there is no project to work on.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// The directory lies in no Git repository.
    #[error("`{}` is in no git repository", path.display())]
    NoRepository {
        /// The directory.
        path: PathBuf,
    },
    /// The repository has no working tree.
    #[error("git repository `{}` has no working tree", path.display())]
    Bare {
        /// The repository.
        path: PathBuf,
    },
    /// The directory does not exist.
    #[error("directory `{}` does not exist", path.display())]
    NoDirectory {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// Git failed.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The settings of the project cannot be used.
    #[error(transparent)]
    Settings(#[from] DefinitionError),
    /// A file of the project cannot be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// A project and its parts.
pub struct Project {
    /// The repository that it lies in.
    pub repository: Repository,
    /// Its directory, absolute.
    pub root: PathBuf,
    /// Its directory inside the repository; `None` if it is the whole.
    pub prefix: Option<ProjectPath>,
    /// The name of the pipeline that is worked on.
    pub pipeline: String,
    /// Where objects are.
    pub store: LocalStore,
    /// What is known.
    pub journal: Journal,
    /// What the files of the working tree hashed to before.
    pub seen: StatCache,
    /// What files of this machine, wherever they lie, hashed to before.
    pub machine: StatCache,
    directory: PathBuf,
    disk: Arc<dyn Disk>,
}

impl Project {
    /// Returns the project that `from` lies in, and works on the pipeline with this name.
    ///
    /// The root is the nearest directory above with a `.pipeline` directory,
    /// or the top of the working tree if there is none. Nothing is written.
    ///
    /// # Errors
    ///
    /// [`ProjectError`] if there is no repository, no working tree, or no store of a known format.
    pub fn open(from: &Path, pipeline: &str) -> Result<Self, ProjectError> {
        Self::open_on(&(Arc::new(RealDisk) as Arc<dyn Disk>), from, pipeline)
    }

    /// Does what [`Project::open`] does; what must survive a crash is written through `disk`.
    ///
    /// # Errors
    ///
    /// As [`Project::open`].
    pub fn open_on(disk: &Arc<dyn Disk>, from: &Path, pipeline: &str) -> Result<Self, ProjectError> {
        let from = std::fs::canonicalize(from)
            .map_err(|source| ProjectError::NoDirectory { path: from.to_owned(), source })?;
        let repository =
            Repository::discover(&from)?.ok_or_else(|| ProjectError::NoRepository { path: from.clone() })?;
        let top = repository
            .work_directory()
            .ok_or_else(|| ProjectError::Bare { path: repository.git_directory().to_owned() })?
            .to_owned();
        let root = from
            .ancestors()
            .take_while(|directory| directory.starts_with(&top))
            .find(|directory| directory.join(DEFINITIONS).is_dir())
            .unwrap_or(&top)
            .to_owned();
        let directory = repository.common_directory().join(DIRECTORY);
        let prefix = ProjectPath::below(&top, &root);
        let seen = memory_of(&repository, prefix.as_ref(), "seen");
        Ok(Self {
            seen: StatCache::at(seen, root.clone()),
            machine: StatCache::at(directory.join("machine"), PathBuf::from("/")),
            prefix,
            root,
            pipeline: pipeline.to_owned(),
            store: open_store(disk, &repository, &directory)?,
            journal: Journal::on(Arc::clone(disk), directory.join("records")),
            directory,
            disk: Arc::clone(disk),
            repository,
        })
    }

    /// Returns where the pipeline lives, for taking snapshots.
    pub fn site(&self) -> Site<'_> {
        Site {
            repository: &self.repository,
            root: &self.root,
            prefix: self.prefix.as_ref(),
            pipeline: &self.pipeline,
            seen: Some(&self.seen),
        }
    }

    /// Returns what revisions are looked up in. `memory` is [`Project::commits`].
    pub fn names<'a>(&'a self, memory: &'a Path) -> Names<'a> {
        Names { site: self.site(), journal: &self.journal, store: &self.store, memory }
    }

    /// Returns the directory that remembers which snapshot a commit has.
    pub fn commits(&self) -> PathBuf {
        self.directory.join("commits")
    }

    /// Returns who uses the store. `memory` is [`Project::commits`].
    pub fn user<'a>(&'a self, memory: &'a Path) -> User<'a> {
        User { repository: &self.repository, journal: &self.journal, memory }
    }

    /// Returns the directory with the pins of all images that were taken in, whatever is checked out.
    pub fn pins(&self) -> PathBuf {
        self.directory.join(PINS)
    }

    /// Returns the directory of the locks of steps.
    pub fn locks(&self) -> PathBuf {
        self.directory.join("locks")
    }

    /// Returns the directory in which Python environments are made that steps run in.
    ///
    /// All worktrees share it, and none of them sees it.
    pub fn python_environments(&self) -> PathBuf {
        self.directory.join("environments").join("python")
    }

    /// Returns the directory in which clean places are made.
    ///
    /// Outside the project, see `run`; each repository has its own, so that
    /// what one leaves behind is swept by its own next run.
    pub fn places(&self) -> PathBuf {
        let name = crate::hash::Digest::of(self.directory.as_os_str().as_encoded_bytes()).short();
        host::cache_directory().join("work").join(name)
    }

    /// Returns the steps that pipelines of this repository have: at the heads of branches, at tags, in working trees.
    ///
    /// Costs a look at each tree of those.
    ///
    /// # Errors
    ///
    /// [`GitError`] if one of them cannot be read. A definition with a mistake in it is no error.
    pub fn named_steps(&self) -> Result<Named, GitError> {
        let mut named = Named::default();
        for (name, text) in self.repository.files_at_heads(DEFINITIONS)? {
            let Some(pipeline) = name.strip_suffix(".yaml").filter(|pipeline| *pipeline != SETTINGS_NAME) else {
                continue;
            };
            match crate::pipeline::read(&text, &name) {
                Ok(definition) => {
                    definition.pipeline.steps.iter().for_each(|step| named.add(pipeline, &step.name));
                }
                Err(_) => named.add_unreadable(pipeline),
            }
        }
        Ok(named)
    }

    /// Returns the file of this worktree that remembers which outputs were put where.
    pub fn restored(&self) -> PathBuf {
        memory_of(&self.repository, self.prefix.as_ref(), "restored")
    }

    /// Returns since when everything on record is still kept, as far as collections of garbage went.
    pub fn kept_since(&self) -> Option<Time> {
        let read = |directory: &Path| -> Option<Time> {
            let bytes = disk::read_if_there(&directory.join(KEPT_SINCE)).ok()??;
            let epoch_ms = std::str::from_utf8(&bytes).ok()?.trim().parse().ok()?;
            Some(Time { epoch_ms })
        };
        // What other users collected counts as well, and what was collected before the store was moved.
        read(&self.directory).max(read(self.store.directory()))
    }

    /// Remembers that a collection kept only what was put on record since then.
    ///
    /// # Errors
    ///
    /// [`DiskError`] if that cannot be written.
    pub fn keep_since(&self, since: Time) -> Result<(), DiskError> {
        let latest = self.kept_since().map_or(since.epoch_ms, |before| before.epoch_ms.max(since.epoch_ms));
        let text = format!("{latest}\n");
        disk::write_whole(&self.store.directory().join(KEPT_SINCE), text.as_bytes(), disk::Durability::Synced)
    }

    /// Returns the settings in the working tree; none if there is no such file.
    ///
    /// # Errors
    ///
    /// [`ProjectError`] if the file cannot be read, or something in it is wrong.
    pub fn settings(&self) -> Result<Settings, ProjectError> {
        match disk::read_if_there(&self.root.join(SETTINGS))? {
            Some(text) => Ok(read_settings(&text, SETTINGS)?),
            None => Ok(Settings::default()),
        }
    }

    /// Returns the rules by which what a step touches outside of the project is sorted: the built-in ones and those of the settings.
    ///
    /// # Errors
    ///
    /// As [`Project::settings`].
    pub fn rules(&self) -> Result<Rules, ProjectError> {
        let observe = self.settings()?.observe;
        Ok(Rules::of_this_user().with_own(&observe.environment, &observe.inputs, SETTINGS))
    }

    /// Writes what was learnt of the files of the working tree. A memory that cannot be written only costs time.
    pub fn remember(&self) {
        let _ = self.seen.save();
    }

    /// Writes what was learnt of other files of this machine. A memory that cannot be written only costs time.
    pub fn remember_machine(&self) {
        let _ = self.machine.save();
    }

    /// Returns the path inside the project of a path that the user gave relative to `from`.
    pub fn locate(&self, from: &Path, given: &Path) -> Option<ProjectPath> {
        let absolute = if given.is_absolute() { given.to_owned() } else { from.join(given) };
        let mut clean = PathBuf::new();
        for part in absolute.components() {
            match part {
                std::path::Component::ParentDir => {
                    clean.pop();
                }
                std::path::Component::CurDir => {}
                part => clean.push(part),
            }
        }
        // The user's way here may go through a link; the root is canonical.
        let real = clean.parent().and_then(|parent| std::fs::canonicalize(parent).ok()).zip(clean.file_name());
        let real = real.map(|(parent, name)| parent.join(name));
        ProjectPath::below(&self.root, &clean).or_else(|| ProjectPath::below(&self.root, &real?))
    }

    /// Returns whether there is any pipeline here at all.
    pub fn has_definitions(&self) -> bool {
        matches!(disk::look(&self.root.join(DEFINITIONS)), Ok(Some(disk::Found::Directory)))
    }
}

/// Opens the store where the configuration says, or else in `directory`, where it need not be there yet.
fn open_store(disk: &Arc<dyn Disk>, repository: &Repository, directory: &Path) -> Result<LocalStore, ProjectError> {
    let configured = repository.path_setting(STORE_KEY)?.filter(|path| path != directory);
    let Some(path) = configured else { return Ok(LocalStore::open_on(Arc::clone(disk), directory)?) };
    // A new, empty store in its place would look as if everything were lost.
    Ok(LocalStore::open_existing_on(Arc::clone(disk), &path)?.used_by(repository.common_directory()))
}

/// Returns a file of this worktree in which something about the project is remembered.
fn memory_of(repository: &Repository, prefix: Option<&ProjectPath>, what: &str) -> PathBuf {
    let place = prefix.map(ToString::to_string).unwrap_or_default();
    let name = format!("{what}-{}", crate::hash::Digest::of(place.as_bytes()).short());
    repository.git_directory().join("pv-worktree").join(name)
}
