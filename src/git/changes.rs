//! What differs from HEAD: the question whether a working tree is clean.

use std::collections::BTreeSet;

use gix::index::entry::Mode;
use gix::status::{UntrackedFiles, tree_index::TrackRenames};

use super::commit_files::project_path;
use super::working_files::{on_disk, tracked_entries};
use super::{CommitId, GitError, Repository};
use crate::disk::{self, Found};
use crate::path::ProjectPath;

impl Repository {
    /// Returns every path below `prefix` in which index or working tree differ from HEAD, sorted; without commits, every file.
    ///
    /// These are the paths of `git status --porcelain -uall`: staged, modified,
    /// removed and untracked ones, and submodules at another commit or with
    /// changes inside. Settings that hide changes of submodules do not count:
    /// what a run sees is the truth, whatever one would like to be told.
    ///
    /// Costs about as much as `git status` of the whole repository.
    ///
    /// # Errors
    ///
    /// [`GitError::Bare`] without a working tree, [`GitError::SparseIndex`],
    /// [`GitError::Disk`] and [`GitError::Git`] if something cannot be read.
    pub fn changed_paths(&self, prefix: Option<&ProjectPath>) -> Result<Vec<ProjectPath>, GitError> {
        let local = self.local();
        let failed = || GitError::on("compare the working tree with HEAD");
        let mut changed = self.changed_submodules(&local, prefix)?;
        let items = local
            .status(gix::progress::Discard)
            .map_err(failed())?
            .untracked_files(UntrackedFiles::Files)
            .index_worktree_rewrites(None)
            .index_worktree_submodules(None)
            .tree_index_track_renames(TrackRenames::Disabled)
            .into_iter(None)
            .map_err(failed())?;
        for item in items {
            let path = project_path(item.map_err(failed())?.location())?;
            let below = match prefix {
                Some(prefix) => path.strip(prefix),
                None => Some(path),
            };
            changed.extend(below);
        }
        Ok(changed.into_iter().collect())
    }

    fn changed_submodules(
        &self,
        local: &gix::Repository,
        prefix: Option<&ProjectPath>,
    ) -> Result<BTreeSet<ProjectPath>, GitError> {
        let root = self.require_work_directory()?;
        let index = self.index(local)?;
        let prefix_bytes = prefix.map(ProjectPath::as_bytes).unwrap_or_default();
        let mut changed = BTreeSet::new();
        for (path, mode, id) in tracked_entries(&index, prefix_bytes) {
            if mode == Mode::COMMIT {
                let path = project_path(path)?;
                let is_directory = disk::look(&on_disk(root, path.as_bytes()))? == Some(Found::Directory);
                if !is_directory || self.is_submodule_changed(&path, CommitId(id))? {
                    changed.extend(prefix.map_or(Some(path.clone()), |prefix| path.strip(prefix)));
                }
            }
        }
        Ok(changed)
    }

    /// A submodule that is not checked out, or has no commit yet, counts as unchanged, as for git.
    fn is_submodule_changed(&self, path: &ProjectPath, expected: CommitId) -> Result<bool, GitError> {
        let Some(nested) = self.nested(path)? else { return Ok(false) };
        match nested.head()?.commit {
            None => Ok(false),
            Some(commit) if commit != expected => Ok(true),
            Some(_) => Ok(!nested.changed_paths(None)?.is_empty()),
        }
    }
}
