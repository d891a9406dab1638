//! Git: revisions, trees, working files, references, tags, and where hooks live.
//!
//! The one door to `gix`; the `git` program is started only to stage files, and to fetch, push and clone.
//! Nothing here decides what belongs in a snapshot: this room says what git
//! knows, with paths relative to the project and sorted by their bytes.
//! Index, HEAD, stash and the user's files are never changed, except by
//! [`Repository::stage`]; the configuration only by [`Repository::configure`].

mod changes;
mod commit;
mod commit_files;
mod conversion;
mod durable;
mod encoding;
mod error;
mod everywhere;
mod heads;
pub mod hooks;
mod ident;
mod message;
mod program;
mod reference;
mod repository;
mod revision;
mod set;
mod set_tree;
mod set_union;
mod settings;
mod stage;
mod tag;
mod travel;
mod working_files;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod laws;

pub use commit::{Commit, CommitId, Head, NotACommitId};
pub use commit_files::{CommitFiles, CommitReader, ObjectName, Tracked};
pub use error::GitError;
pub use hooks::{HOOKS, HookState};
pub use repository::{Identity, Repository};
pub use set_union::IsSound;
pub use travel::{Asking, Pushed, clone_repository};
pub use working_files::{WorkingFile, WorkingFiles, WorkingReader};

/// What git can keep under a path.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FileKind {
    /// A regular file.
    File {
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A symbolic link.
    Symlink,
    /// Another repository, by the commit that is checked out in it.
    Submodule(CommitId),
}
