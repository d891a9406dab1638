//! Staging files, by the `git` program, from hooks that it runs anyway.

use std::io::Write;
use std::process::Stdio;

use super::program::said;
use super::{GitError, Repository};
use crate::host;
use crate::path::ProjectPath;

impl Repository {
    /// Stages the files at `paths`, from the root of the repository, even ignored ones: `git add -f`.
    ///
    /// Inside a hook, this changes the index that is about to be committed.
    ///
    /// # Errors
    ///
    /// [`GitError::Bare`] without a working tree, [`GitError::Program`] if git
    /// refuses, as when a file is not there, [`GitError::Git`] if it cannot be started.
    pub fn stage(&self, paths: &[ProjectPath]) -> Result<(), GitError> {
        const ACTION: &str = "stage files";
        self.require_work_directory()?;
        if paths.is_empty() {
            return Ok(());
        }
        let mut command = self.program();
        command
            .args(["--literal-pathspecs", "add", "--force", "--pathspec-from-file=-", "--pathspec-file-nul"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        if host::variable_os("GIT_INDEX_FILE").is_some() {
            command.env("GIT_INDEX_FILE", self.local().index_path());
        }
        let mut child = command.spawn().map_err(GitError::on(ACTION))?;
        let list: Vec<u8> = paths.iter().flat_map(|path| [path.as_bytes(), b"\0"].concat()).collect();
        // Git reads the whole list before it says anything. If it died, its message tells more than a broken pipe.
        let _ = child.stdin.take().map(|mut stdin| stdin.write_all(&list));
        let output = child.wait_with_output().map_err(GitError::on(ACTION))?;
        if output.status.success() {
            return Ok(());
        }
        Err(GitError::Program { action: ACTION, message: said(&output.stderr) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Scratch, is_rerun, path, records, rerun_script};
    use super::*;

    #[test]
    fn files_are_staged_by_their_literal_names_even_ignored_ones() {
        let scratch = Scratch::new();
        scratch.write(".gitignore", "*.tmp\n");
        for name in ["a/b.tmp", "*", "odd\nname", "other"] {
            scratch.write(name, name);
        }
        let repository = scratch.repository();
        repository.stage(&[path("a/b.tmp"), path("*"), path("odd\nname")]).unwrap();
        repository.stage(&[]).unwrap();
        let staged = scratch.git(&["ls-files", "-z"]);
        assert_eq!(records(&staged), [&b"*"[..], b"a/b.tmp", b"odd\nname"]);
    }

    #[test]
    fn what_git_says_against_it_is_passed_on() {
        let scratch = Scratch::new();
        let error = scratch.repository().stage(&[path("none")]).unwrap_err();
        let GitError::Program { message, .. } = error else { panic!("{error}") };
        assert_eq!(message, "fatal: pathspec 'none' did not match any files");
    }

    #[test]
    fn a_file_staged_by_a_hook_is_in_the_commit_that_runs_it() {
        let test = "git::stage::tests::a_file_staged_by_a_hook_is_in_the_commit_that_runs_it";
        if is_rerun() {
            let repository = Repository::discover(&crate::host::current_directory().unwrap()).unwrap().unwrap();
            let changed = repository.changed_paths(None).unwrap();
            assert_eq!(changed, [path("by-hook"), path("by-user")], "the hook sees what is about to be committed");
            return repository.stage(&[path("by-hook")]).unwrap();
        }
        let scratch = Scratch::new();
        scratch.write("by-user", "1");
        scratch.commit("first");
        let linked = scratch.beside("linked");
        scratch.git(&["worktree", "add", "--quiet", linked.to_str().unwrap(), "-b", "side"]);
        scratch.write(".git/hooks/pre-commit", rerun_script(test));
        scratch.make_executable(".git/hooks/pre-commit");
        for root in [&scratch.root, &linked] {
            for (name, content) in [("by-user", "2"), ("by-hook", "x")] {
                crate::disk::write_whole(&root.join(name), content.as_bytes(), crate::disk::Durability::Deferred)
                    .unwrap();
            }
            // Commits from a temporary index, beside what is staged.
            scratch.git_in(root, &["commit", "--quiet", "--all", "--message=second"]);
            let files = scratch.git_in(root, &["show", "--format=", "--name-only", "HEAD"]);
            assert_eq!(String::from_utf8(files).unwrap(), "by-hook\nby-user\n");
        }
    }
}
