//! What can go wrong with a git repository.

use std::path::PathBuf;

use super::CommitId;
use crate::disk::DiskError;
use crate::path::ProjectPath;

/// Something that could not be done with a git repository.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The repository keeps its references in tables, which only the `git` program reads.
    #[error("the git repository `{}` keeps its references in the reftable format", git_directory.display())]
    Reftable {
        /// The repository.
        git_directory: PathBuf,
    },
    /// The repository has no working tree.
    #[error("the git repository `{}` is bare", git_directory.display())]
    Bare {
        /// The repository.
        git_directory: PathBuf,
    },
    /// The index holds directories instead of the files in them.
    #[error("the git repository `{}` has a sparse index", git_directory.display())]
    SparseIndex {
        /// The repository.
        git_directory: PathBuf,
    },
    /// An abbreviation fits several commits.
    #[error("revision `{revision}` is ambiguous")]
    Ambiguous {
        /// What was given.
        revision: String,
        /// The commits that it fits, each with its subject, sorted by id.
        candidates: Vec<(CommitId, String)>,
    },
    /// A revision names something else: a file, a directory, a range.
    #[error("revision `{revision}` does not name one commit")]
    NotACommit {
        /// What was given.
        revision: String,
    },
    /// A commit is not in the repository.
    #[error("commit {commit} is not in the git repository")]
    MissingCommit {
        /// The commit.
        commit: CommitId,
    },
    /// A commit lies beyond the end of a shallow history.
    #[error("commit {commit} is beyond the end of the shallow history")]
    ShallowHistory {
        /// The commit.
        commit: CommitId,
    },
    /// A name that no tag can have.
    #[error("`{name}` is not a name for a tag")]
    BadTagName {
        /// What was given.
        name: String,
    },
    /// There is a tag of this name.
    #[error("tag `{name}` exists already")]
    TagExists {
        /// The name.
        name: String,
        /// The commit that it names, if it names one.
        commit: Option<CommitId>,
    },
    /// Git does not know who the user is.
    #[error("git knows no name and email of the user")]
    NoIdentity,
    /// Other processes of `pv` held the reference, or others moved it, for as long as one may wait.
    #[error("reference `{reference}` is in use")]
    Busy {
        /// The full name of the reference.
        reference: String,
    },
    /// A file beside the reference says that it is held, though no process of `pv` holds it.
    #[error("reference `{reference}` is held by the file `{}`", file.display())]
    Locked {
        /// The full name of the reference.
        reference: String,
        /// The file by which git holds it.
        file: PathBuf,
    },
    /// A set already holds other bytes under a path, or the path runs through a file.
    #[error("`{path}` is in `{reference}` with other content")]
    Conflict {
        /// The full name of the reference.
        reference: String,
        /// The path, escaped.
        path: String,
    },
    /// A path in a commit that no working tree can hold.
    #[error("`{path}` is not a path that a working tree can hold")]
    UnsupportedPath {
        /// The path, escaped.
        path: String,
    },
    /// A repository in the working tree that has no commit to record.
    #[error("the git repository `{path}` in the working tree has no commit")]
    NestedWithoutCommit {
        /// Where it lies.
        path: ProjectPath,
    },
    /// Something that has no bytes of its own.
    #[error("`{path}` is not a file")]
    NotAFile {
        /// The path.
        path: ProjectPath,
    },
    /// The `git` program failed.
    #[error("cannot {action}: git said `{message}`")]
    Program {
        /// What was tried.
        action: &'static str,
        /// The end of what it said.
        message: String,
    },
    /// The `git` program did not get to another repository, or was turned away there.
    #[error("cannot {action} `{remote}`: git said `{message}`")]
    Remote {
        /// What was tried.
        action: &'static str,
        /// The name of the remote, or its address.
        remote: String,
        /// The end of what it said.
        message: String,
    },
    /// The `git` program did not clone a repository, and has said why.
    #[error("`git clone` ended with {status}")]
    NotCloned {
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// Another process is changing the configuration, or died while it did.
    #[error("the configuration is being changed by whoever made `{}`", lock.display())]
    ConfigLocked {
        /// The file that says so.
        lock: PathBuf,
    },
    /// A file could not be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Anything else.
    #[error("cannot {action}")]
    Git {
        /// What was tried.
        action: String,
        /// What the library said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl GitError {
    /// Returns a function that makes a [`GitError::Git`] from what the library said.
    pub(super) fn on<E>(action: impl Into<String>) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        move |source| Self::Git { action: action.into(), source: source.into() }
    }
}
