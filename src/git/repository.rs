//! The repository: where it is, and who works in it.

use std::path::{Path, PathBuf};

use gix::bstr::ByteSlice;

use super::GitError;
use crate::path::ProjectPath;

/// A git repository and, unless it is bare, one working tree of it.
///
/// Can be shared between threads; each call makes its own cheap handle.
/// Configuration is read once, when the repository is opened.
pub struct Repository {
    inner: gix::ThreadSafeRepository,
    work_directory: Option<PathBuf>,
    git_directory: PathBuf,
    common_directory: PathBuf,
}

/// Who makes commits and tags.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The name.
    pub name: String,
    /// The email address.
    pub email: String,
}

impl Repository {
    /// Returns the repository that `from` lies in, as git would find it; `None` if there is none.
    ///
    /// `GIT_DIR`, `GIT_WORK_TREE`, `GIT_INDEX_FILE` and `GIT_CEILING_DIRECTORIES`
    /// count, so this is right inside hooks. Costs the reading of git's configuration.
    ///
    /// # Errors
    ///
    /// [`GitError::Reftable`] if its references cannot be read, [`GitError::Git`]
    /// if `from` is not there or the repository is damaged.
    pub fn discover(from: &Path) -> Result<Option<Self>, GitError> {
        let action = || format!("open the git repository of `{}`", from.display());
        let from = from.canonicalize().map_err(GitError::on(action()))?;
        // Like git: a ceiling that does not lie above the start is no obstacle.
        let options = gix::discover::upwards::Options { match_ceiling_dir_or_error: false, ..Default::default() };
        let trust = trust_map(gix::open::Permissions::default());
        match gix::ThreadSafeRepository::discover_with_environment_overrides_opts(&from, options, trust) {
            Ok(inner) => Self::new(&inner).map(Some),
            Err(error) if error.downcast_any_ref::<gix::discover::upwards::Error>().is_some() => Ok(None),
            Err(error) => Err(GitError::on(action())(error)),
        }
    }

    /// Returns the repository whose git directory is `git_directory`, whatever the variables of this process say.
    ///
    /// # Errors
    ///
    /// [`GitError::Reftable`] if its references cannot be read, [`GitError::Git`] if it is not there or damaged.
    pub fn at(git_directory: &Path) -> Result<Self, GitError> {
        let mut permissions = gix::open::Permissions::default();
        // Variables such as GIT_INDEX_FILE speak of the repository that the user works in.
        permissions.env.git_prefix = gix::sec::Permission::Deny;
        let action = || format!("open the git repository `{}`", git_directory.display());
        let options = open_options(permissions).open_path_as_is(true);
        Self::new(&options.open(git_directory).map_err(GitError::on(action()))?)
    }

    /// As [`Repository::discover`], whatever the variables of this process and the user's configuration say.
    #[cfg(test)]
    pub(super) fn discover_isolated(from: &Path) -> Result<Self, GitError> {
        let trust = trust_map(gix::open::Permissions::isolated());
        let options = gix::discover::upwards::Options::default();
        Self::new(&gix::ThreadSafeRepository::discover_opts(from, options, trust).unwrap())
    }

    /// Returns the repository checked out in the directory `path` of this one's working tree; `None` if there is none.
    pub(super) fn nested(&self, path: &ProjectPath) -> Result<Option<Self>, GitError> {
        let directory = path.under(self.require_work_directory()?);
        if crate::disk::look(&directory.join(".git"))?.is_none() {
            return Ok(None);
        }
        let mut permissions = self.local().open_options().permissions;
        // Variables such as GIT_INDEX_FILE speak of the outer repository.
        permissions.env.git_prefix = gix::sec::Permission::Deny;
        let action = || format!("open the git repository `{}`", directory.display());
        let inner = open_options(permissions).open(&directory).map_err(GitError::on(action()))?;
        Self::new(&inner).map(Some)
    }

    fn new(inner: &gix::ThreadSafeRepository) -> Result<Self, GitError> {
        let mut local = inner.to_thread_local();
        if let Some(format) = local.config_snapshot().string("extensions.refStorage")
            && !format.eq_ignore_ascii_case(b"files")
        {
            return Err(GitError::Reftable { git_directory: local.git_dir().to_owned() });
        }
        local.make_paths_absolute().map_err(GitError::on("find the working directory of this process"))?;
        let canonical = |path: &Path| {
            path.canonicalize().map_err(GitError::on(format!("open the git repository `{}`", path.display())))
        };
        let work_directory = local.workdir().map(canonical).transpose()?;
        let git_directory = canonical(local.git_dir())?;
        let common_directory = canonical(local.common_dir())?;
        let mut inner = local.into_sync();
        inner.work_tree.clone_from(&work_directory);
        Ok(Self { inner, work_directory, git_directory, common_directory })
    }

    /// Returns the root of the working tree, absolute and without links; `None` in a bare repository.
    pub fn work_directory(&self) -> Option<&Path> {
        self.work_directory.as_deref()
    }

    /// Returns the git directory of this working tree: `.git`, or `.git/worktrees/<name>` of the main one.
    pub fn git_directory(&self) -> &Path {
        &self.git_directory
    }

    /// Returns the git directory that all working trees share.
    pub fn common_directory(&self) -> &Path {
        &self.common_directory
    }

    /// Returns where git looks for hooks: `core.hooksPath`, relative to the working tree, or `hooks` in the shared git directory.
    ///
    /// The directory need not be there.
    ///
    /// # Errors
    ///
    /// [`GitError::Git`] if `core.hooksPath` speaks of a home directory that is not known.
    pub fn hooks_directory(&self) -> Result<PathBuf, GitError> {
        let local = self.local();
        let configured =
            local.config_snapshot().trusted_path("core.hooksPath").map_err(GitError::on("read `core.hooksPath`"))?;
        Ok(match configured {
            Some(path) => self.work_directory().unwrap_or(self.git_directory()).join(path),
            None => self.common_directory().join("hooks"),
        })
    }

    /// Returns who git would name as the committer, from `GIT_COMMITTER_*`, `committer.*`, `user.*` and `EMAIL`.
    ///
    /// Unlike git, never guesses from the login name.
    pub fn identity(&self) -> Option<Identity> {
        let local = self.local();
        let config = local.config_snapshot();
        // `gix` has this as a signature with the time, for which it reads the database of all time zones.
        let first = |keys: &[&str]| keys.iter().find_map(|key| config.string(*key));
        let name = first(&["committer.name", "user.name", "gitoxide.committer.nameFallback"])?;
        let email = first(&[
            "committer.email",
            "user.email",
            "gitoxide.user.emailFallback",
            "gitoxide.committer.emailFallback",
        ])?;
        Some(Identity { name: name.to_str_lossy().into_owned(), email: email.to_str_lossy().into_owned() })
    }

    /// Returns a handle for this thread.
    pub(super) fn local(&self) -> gix::Repository {
        self.inner.to_thread_local()
    }

    pub(super) fn require_work_directory(&self) -> Result<&Path, GitError> {
        self.work_directory().ok_or_else(|| GitError::Bare { git_directory: self.git_directory.clone() })
    }

    /// Returns the index, empty if there is none yet.
    pub(super) fn index(&self, local: &gix::Repository) -> Result<gix::worktree::Index, GitError> {
        let index = local.index_or_empty().map_err(GitError::on("read the index"))?;
        if index.is_sparse() {
            return Err(GitError::SparseIndex { git_directory: self.git_directory.clone() });
        }
        Ok(index)
    }
}

fn trust_map(permissions: gix::open::Permissions) -> gix::sec::trust::Mapping<gix::open::Options> {
    gix::sec::trust::Mapping { full: open_options(permissions), reduced: open_options(permissions) }
}

fn open_options(permissions: gix::open::Permissions) -> gix::open::Options {
    gix::open::Options::default().permissions(permissions).lossy_config(true)
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Repository").field(&self.git_directory).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Scratch, is_rerun, path};
    use super::*;

    #[test]
    fn outside_of_any_repository_there_is_none() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Repository::discover(directory.path()).unwrap().is_none());
        assert!(matches!(Repository::discover(&directory.path().join("gone")), Err(GitError::Git { .. })));
    }

    #[test]
    fn a_repository_is_found_from_below_and_its_places_are_absolute() {
        let scratch = Scratch::new();
        scratch.write("a/b/file", "x");
        let repository = Repository::discover_isolated(&scratch.root.join("a/b")).unwrap();
        assert_eq!(repository.work_directory(), Some(scratch.root.as_path()));
        assert_eq!(repository.git_directory(), scratch.root.join(".git"));
        assert_eq!(repository.common_directory(), scratch.root.join(".git"));
    }

    #[test]
    fn a_linked_work_tree_of_a_bare_repository_knows_its_places() {
        let scratch = Scratch::new();
        scratch.commit("first");
        let (bare, linked) = (scratch.beside("bare.git"), scratch.beside("linked"));
        scratch.git(&["clone", "--quiet", "--bare", ".", bare.to_str().unwrap()]);
        scratch.git_in(&bare, &["worktree", "add", "--quiet", linked.to_str().unwrap(), "main"]);
        let repository = Repository::discover_isolated(&linked).unwrap();
        assert_eq!(repository.work_directory(), Some(linked.as_path()));
        assert_eq!(repository.git_directory(), bare.join("worktrees/linked"));
        assert_eq!(repository.common_directory(), bare);
        assert_eq!(repository.head().unwrap().commit, Some(scratch.id("HEAD")));
        assert_eq!(repository.changed_paths(None).unwrap(), []);

        let repository = Repository::discover_isolated(&bare).unwrap();
        assert_eq!(repository.work_directory(), None);
        assert!(matches!(repository.working_files(None), Err(GitError::Bare { .. })));
        assert_eq!(repository.commit_files(&scratch.id("HEAD"), None).unwrap().files().len(), 0);
    }

    #[test]
    fn a_reftable_repository_is_refused_by_name() {
        let scratch = Scratch::with(&["--ref-format=reftable"]);
        let error = Repository::discover_isolated(&scratch.root).unwrap_err();
        assert!(matches!(error, GitError::Reftable { .. }), "{error}");
        assert!(error.to_string().ends_with("/project/.git` keeps its references in the reftable format"), "{error}");
    }

    #[test]
    fn hooks_are_where_git_would_run_them() {
        let scratch = Scratch::new();
        scratch.commit("first");
        let linked = scratch.beside("linked");
        scratch.git(&["worktree", "add", "--quiet", linked.to_str().unwrap(), "-b", "side"]);
        let hooks = |from: &Path| Repository::discover_isolated(from).unwrap().hooks_directory().unwrap();
        let by_git = |from: &Path| {
            let answer = String::from_utf8(scratch.git_in(from, &["rev-parse", "--git-path", "hooks"])).unwrap();
            from.join(answer.trim_end())
        };
        for setting in [None, Some("tools/hooks"), Some("/opt/hooks")] {
            if let Some(setting) = setting {
                scratch.git(&["config", "core.hooksPath", setting]);
            }
            for from in [&scratch.root, &linked] {
                assert_eq!(hooks(from), by_git(from), "{setting:?} in {}", from.display());
            }
        }
    }

    #[test]
    fn the_identity_is_read() {
        let scratch = Scratch::new();
        let identity = Identity { name: "Ada".to_owned(), email: "ada@example.org".to_owned() };
        assert_eq!(scratch.repository().identity(), Some(identity));
        scratch.git(&["config", "--unset", "user.name"]);
        assert_eq!(scratch.repository().identity(), None);
    }

    #[test]
    fn variables_choose_the_repository_the_work_tree_and_the_identity() {
        if is_rerun() {
            let here = crate::host::current_directory().unwrap();
            let repository = Repository::discover(&here).unwrap().unwrap();
            println!("> {}", repository.git_directory().display());
            println!("> {}", repository.work_directory().unwrap().display());
            println!("> {}", repository.hooks_directory().unwrap().display());
            println!("> {:?}", repository.identity().map(|identity| identity.name));
            println!("> {:?}", repository.working_files(Some(&path("sub"))).unwrap().files().len());
            return;
        }
        let scratch = Scratch::new();
        scratch.git(&["config", "core.hooksPath", "~/hooks"]);
        let elsewhere = scratch.beside("elsewhere");
        std::fs::create_dir_all(elsewhere.join("sub")).unwrap();
        let file = elsewhere.join("sub/file");
        crate::disk::write_whole(&file, b"x", crate::disk::Durability::Deferred).unwrap();
        let git_directory = scratch.root.join(".git");
        let variables = [
            ("GIT_DIR", git_directory.as_os_str()),
            ("GIT_WORK_TREE", "..".as_ref()),
            ("GIT_COMMITTER_NAME", "Grace".as_ref()),
        ];
        let test = "git::repository::tests::variables_choose_the_repository_the_work_tree_and_the_identity";
        let report = scratch.rerun(test, &elsewhere.join("sub"), &variables);
        let home = scratch.beside("hooks");
        let places = [git_directory.as_path(), &elsewhere, &home].map(|path| path.display().to_string());
        assert_eq!(report, [&places[..], &["Some(\"Grace\")".to_owned(), "1".to_owned()]].concat());
    }

    #[test]
    fn a_repository_can_be_shared_between_threads() {
        fn assert_shared<T: Send + Sync>() {}
        assert_shared::<Repository>();
    }
}
