//! Scratch repositories for the tests of this room, made by the real `git` program.
#![expect(clippy::disallowed_methods, reason = "tests start the real `git` program")]

use std::cell::Cell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{CommitId, Repository};
use crate::disk::{Durability, write_whole};
use crate::path::ProjectPath;

/// The reference of the sets that tests add to.
pub(super) const META: &str = "refs/pv/meta";

/// Returns a file of a set.
pub(super) fn file(path: &str, content: &str) -> (Vec<u8>, Vec<u8>) {
    (path.into(), content.into())
}

/// A repository in a directory of its own, with pinned identity and clock and no configuration but its own.
pub(super) struct Scratch {
    directory: tempfile::TempDir,
    pub(super) root: PathBuf,
    seconds: Cell<u32>,
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self::with(&[])
    }

    /// Makes a repository with more options to `git init`.
    pub(super) fn with(options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap().join("project");
        let scratch = Self { root, directory, seconds: Cell::new(0) };
        std::fs::create_dir(&scratch.root).unwrap();
        scratch.git(&[&["init", "--quiet", "--initial-branch=main"], options].concat());
        scratch.git(&["config", "user.name", "Ada"]);
        scratch.git(&["config", "user.email", "ada@example.org"]);
        scratch
    }

    /// A directory beside the repository.
    pub(super) fn beside(&self, name: &str) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join(name)
    }

    pub(super) fn command(&self, program: &OsStr, directory: &Path) -> Command {
        let seconds = self.seconds.get() + 1;
        self.seconds.set(seconds);
        let date = format!("{} +0100", 1_700_000_000 + seconds);
        let mut command = Command::new(program);
        command
            .current_dir(directory)
            .env_clear()
            .env("PATH", crate::host::variable_os("PATH").unwrap())
            .env("HOME", self.directory.path())
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .env("GIT_AUTHOR_DATE", &date)
            .env("GIT_COMMITTER_DATE", &date);
        command
    }

    /// Runs git in the root; it must succeed. Returns its output.
    pub(super) fn git(&self, arguments: &[&str]) -> Vec<u8> {
        self.git_in(&self.root, arguments)
    }

    pub(super) fn git_in(&self, directory: &Path, arguments: &[&str]) -> Vec<u8> {
        let mut command = self.command("git".as_ref(), directory);
        succeed(command.args(["-c", "protocol.file.allow=always"]).args(arguments).output().unwrap())
    }

    /// Returns what git prints as text, without the line end.
    pub(super) fn line(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.git(arguments)).unwrap().trim_end().to_owned()
    }

    pub(super) fn write(&self, path: impl AsRef<OsStr>, bytes: impl AsRef<[u8]>) {
        write_whole(&self.root.join(path.as_ref()), bytes.as_ref(), Durability::Deferred).unwrap();
    }

    /// Writes a file as if that had been so many seconds ago.
    pub(super) fn write_aged(&self, path: &str, bytes: &str, seconds: u64) {
        self.write(path, bytes);
        let file = std::fs::File::options().write(true).open(self.root.join(path)).unwrap();
        let written = file.metadata().unwrap().modified().unwrap();
        file.set_modified(written - std::time::Duration::from_secs(seconds)).unwrap();
    }

    pub(super) fn make_executable(&self, path: &str) {
        std::fs::set_permissions(self.root.join(path), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(super) fn link(&self, target: &str, path: &str) {
        std::os::unix::fs::symlink(target, self.root.join(path)).unwrap();
    }

    pub(super) fn remove(&self, path: &str) {
        crate::disk::remove_tree(&self.root.join(path)).unwrap();
    }

    /// Commits everything and returns the commit.
    pub(super) fn commit(&self, message: &str) -> CommitId {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message]);
        self.id("HEAD")
    }

    pub(super) fn id(&self, revision: &str) -> CommitId {
        // In two steps: what follows `:/` is all text to look for.
        let object = self.line(&["rev-parse", "--verify", revision]);
        self.line(&["rev-parse", "--verify", &format!("{object}^{{commit}}")]).parse().unwrap()
    }

    pub(super) fn repository(&self) -> Repository {
        Repository::discover_isolated(&self.root).unwrap()
    }

    /// Runs one test of this binary in a process of its own, in the root, that has to end by being killed.
    pub(super) fn rerun_killed(&self, test: &str) {
        let program = crate::host::own_program().unwrap();
        let mut command = self.command(program.as_os_str(), &self.root);
        let status = command.args(["--exact", test, "--nocapture"]).env(RERUN, "1").status().unwrap();
        assert_eq!(status.code(), None, "{status}");
    }

    /// Runs one test of this binary in a process of its own, in `directory` and with more variables; returns what it printed on lines that start with `> `.
    pub(super) fn rerun(&self, test: &str, directory: &Path, variables: &[(&str, &OsStr)]) -> Vec<String> {
        let program = crate::host::own_program().unwrap();
        let mut command = self.command(program.as_os_str(), directory);
        command.args(["--exact", test, "--nocapture"]).envs(variables.iter().copied()).env(RERUN, "1");
        reported(&succeed(command.output().unwrap()))
    }
}

/// The variable that tells a test that it runs in a process of its own.
const RERUN: &str = "PV_TEST_RERUN";

pub(super) fn is_rerun() -> bool {
    crate::host::variable(RERUN).is_some()
}

/// Returns a shell script that runs one test of this binary as [`Scratch::rerun`] does.
pub(super) fn rerun_script(test: &str) -> String {
    let program = crate::host::own_program().unwrap();
    format!("#!/bin/sh\n{RERUN}=1 exec '{}' --exact {test} --nocapture\n", program.display())
}

fn reported(output: &[u8]) -> Vec<String> {
    // The test harness prints the name of the test before the first line, and does not end that line.
    let text = String::from_utf8(output.to_vec()).unwrap();
    text.lines().filter_map(|line| line.split_once("> ")).map(|(_, report)| report.to_owned()).collect()
}

#[track_caller]
fn succeed(output: Output) -> Vec<u8> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

pub(super) fn path(bytes: impl AsRef<[u8]>) -> ProjectPath {
    ProjectPath::new(bytes).unwrap()
}

/// Returns the records of an output of `git ... -z`.
pub(super) fn records(output: &[u8]) -> Vec<&[u8]> {
    output.split(|byte| *byte == 0).filter(|record| !record.is_empty()).collect()
}

/// A name that is no UTF-8 and has a line break.
pub(super) fn odd_name() -> &'static OsStr {
    OsStr::from_bytes(b"odd\n\xff\\name")
}
