//! What a commit in the making says, by the `git` program, from hooks that it runs anyway.

use std::process::{Command, Stdio};

use super::{CommitId, GitError, Repository};
use crate::host;

impl Repository {
    /// Writes the index as a commit on top of HEAD that no reference names, and returns it.
    ///
    /// It has the files of the commit that is being made, so it has the same snapshot.
    ///
    /// # Errors
    ///
    /// [`GitError::Program`] if git refuses, as with unmerged files; [`GitError::Git`] if it cannot be started.
    pub fn commit_of_index(&self) -> Result<CommitId, GitError> {
        const ACTION: &str = "write the index as a commit";
        let tree = self.in_hook(ACTION, &["write-tree"])?;
        let text = self.in_hook(ACTION, &["commit-tree", "-m", "pv: the index", tree.trim()])?;
        text.trim().parse().map_err(|_| GitError::Program { action: ACTION, message: text })
    }

    /// Adds a trailer to the commit message in `file`, in place of one with the same name.
    ///
    /// # Errors
    ///
    /// As [`Repository::commit_of_index`].
    pub fn add_trailer(&self, file: &str, name: &str, value: &str) -> Result<(), GitError> {
        let trailer = format!("{name}: {value}");
        let arguments =
            ["interpret-trailers", "--in-place", "--if-exists", "replace", "--trailer", trailer.as_str(), file];
        self.in_hook("add a trailer to the commit message", &arguments).map(drop)
    }

    /// Runs git on the index that the hook was given, and returns what it prints.
    fn in_hook(&self, action: &'static str, arguments: &[&str]) -> Result<String, GitError> {
        #[expect(clippy::disallowed_methods, reason = "only the `git` program knows the index of a running commit")]
        let mut command = Command::new("git");
        command
            .args(arguments)
            .current_dir(self.require_work_directory()?)
            // What git handed to its hook may be relative to another directory.
            .env("GIT_DIR", self.git_directory())
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        if host::variable_os("GIT_INDEX_FILE").is_some() {
            command.env("GIT_INDEX_FILE", self.local().index_path());
        }
        let output = command.output().map_err(GitError::on(action))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(GitError::Program { action, message: String::from_utf8_lossy(&output.stderr).trim_end().to_owned() })
    }
}
