//! A place where everything is pinned: clock, home, git identity, locale.
//!
//! So outputs can be compared to the letter, exact digests included. Only what
//! differs from run to run is replaced: temporary paths, durations, and the ids of runs,
//! which hold durations themselves.

use std::fmt::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// The clock of every sandbox.
pub(crate) const NOW: &str = "2026-01-31T09:30:00Z";

/// A git repository with a home of its own; removed when dropped.
pub(crate) struct Sandbox {
    root: tempfile::TempDir,
    project: PathBuf,
}

impl Sandbox {
    /// Returns an empty repository without commits.
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let project = root.path().join("project");
        std::fs::create_dir_all(&project).unwrap();
        std::fs::create_dir_all(root.path().join("home")).unwrap();
        let sandbox = Self { root, project };
        sandbox.git(&["init", "--quiet", "--initial-branch=main"]);
        sandbox
    }

    /// Returns a repository with one pipeline, committed.
    pub(crate) fn with_pipeline(definition: &str) -> Self {
        let sandbox = Self::new();
        sandbox.write(".pipeline/pipeline.yaml", definition);
        sandbox.commit("first");
        sandbox
    }

    /// Returns a repository with the files of `fixtures/<name>`, committed.
    pub(crate) fn with_fixture(name: &str) -> Self {
        let sandbox = Self::new();
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name), &sandbox.project);
        sandbox.commit("first");
        sandbox
    }

    /// Returns the project's directory.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.project.join(relative)
    }

    /// Returns a path beside the project, for clones and the like.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Returns the same sandbox (home, clock) at work in another directory, such as a clone or a worktree.
    pub(crate) fn command_in(&self, directory: &Path, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(directory)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.root.path().join("home"))
            .env("XDG_CACHE_HOME", self.root.path().join("cache"))
            .env("TZ", "UTC")
            .env("PV_NOW", NOW)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_AUTHOR_NAME", "Ada")
            .env("GIT_AUTHOR_EMAIL", "ada@example.org")
            .env("GIT_AUTHOR_DATE", "2026-01-30T08:00:00Z")
            .env("GIT_COMMITTER_NAME", "Ada")
            .env("GIT_COMMITTER_EMAIL", "ada@example.org")
            .env("GIT_COMMITTER_DATE", "2026-01-30T08:00:00Z")
            .stdin(Stdio::null());
        command
    }

    /// Returns a `pv` command in the project, to be changed or spawned.
    pub(crate) fn pv_command(&self, arguments: &[&str]) -> Command {
        self.pv_command_in(&self.project, arguments)
    }

    /// Returns a `pv` command in another directory.
    pub(crate) fn pv_command_in(&self, directory: &Path, arguments: &[&str]) -> Command {
        let mut command = self.command_in(directory, env!("CARGO_BIN_EXE_pv"));
        command.args(arguments);
        command
    }

    /// Runs `pv` in the project: standard output, then standard error and exit code if there is something to tell.
    pub(crate) fn pv(&self, arguments: &[&str]) -> String {
        self.tell(&self.pv_command(arguments).output().unwrap())
    }

    /// Runs `pv` in another directory.
    pub(crate) fn pv_in(&self, directory: &Path, arguments: &[&str]) -> String {
        self.tell(&self.pv_command_in(directory, arguments).output().unwrap())
    }

    /// Runs `pv --quiet`, which must succeed, and returns its standard output as it is.
    pub(crate) fn pv_ok(&self, arguments: &[&str]) -> String {
        let output = self.pv_command(&[&["--quiet"], arguments].concat()).output().unwrap();
        assert!(output.status.success(), "pv {arguments:?}: {}", self.tell(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs `pv --json` and returns the object and the exit code.
    pub(crate) fn json(&self, arguments: &[&str]) -> (Value, i32) {
        self.json_in(&self.project, arguments)
    }

    /// Runs `pv --json` in another directory.
    pub(crate) fn json_in(&self, directory: &Path, arguments: &[&str]) -> (Value, i32) {
        let output = self.pv_command_in(directory, &[&["--json"], arguments].concat()).output().unwrap();
        let value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("pv --json {arguments:?}: {error}: {}", self.tell(&output)));
        (value, output.status.code().unwrap_or(-1))
    }

    /// Runs the `git` program, which must succeed, and returns its standard output without the last line end.
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        self.git_in(&self.project, arguments)
    }

    /// Runs the `git` program in another directory.
    pub(crate) fn git_in(&self, directory: &Path, arguments: &[&str]) -> String {
        let output = self.command_in(directory, "git").args(arguments).output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned()
    }

    /// Commits everything in the project.
    pub(crate) fn commit(&self, message: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Writes a file of the project.
    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Reads a file of the project.
    pub(crate) fn read(&self, path: &str) -> String {
        String::from_utf8(std::fs::read(self.path(path)).unwrap()).unwrap()
    }

    /// Returns whether there is something at a path of the project.
    pub(crate) fn exists(&self, path: &str) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }

    /// Returns what a program printed, with what differs from run to run replaced.
    pub(crate) fn tell(&self, output: &Output) -> String {
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.stderr.is_empty() {
            let _ = write!(text, "--- stderr\n{}", String::from_utf8_lossy(&output.stderr));
        }
        match (output.status.code(), output.status.signal()) {
            (Some(0), _) => {}
            (Some(code), _) => text += &format!("--- exit {code}\n"),
            (None, signal) => text += &format!("--- signal {signal:?}\n"),
        }
        self.redact(&text)
    }

    pub(crate) fn redact(&self, text: &str) -> String {
        let root = self.root.path().canonicalize().unwrap();
        let text =
            text.replace(&*root.to_string_lossy(), "[ROOT]").replace(&*self.root.path().to_string_lossy(), "[ROOT]");
        let mut lines: Vec<String> = Vec::new();
        for line in text.split('\n') {
            lines.push(redact_words(line));
        }
        lines.join("\n")
    }
}

/// Replaces `0.12 s` by `[TIME]`, the id after `Run` or `run` by `[RUN]`, and names of temporary places.
fn redact_words(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let mut out: Vec<String> = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let previous = words[..index].iter().rev().find(|word| !word.is_empty()).copied().unwrap_or_default();
        let bare = word.trim_end_matches([':', ',', ')']);
        let is_hex = bare.len() >= 12 && bare.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hex && (previous == "Run" || previous == "run") {
            out.push(word.replace(bare, "[RUN]"));
        } else if matches!(bare, "s" | "s.") && previous.parse::<f64>().is_ok() {
            out.pop();
            out.push(word.replacen('s', "[TIME]", 1));
        } else if let Some(at) = word.find("/run-").or_else(|| word.find("/base-")) {
            let rest = &word[at + 1..];
            let end = rest.find('/').unwrap_or(rest.len());
            let before = word[..at].rfind('/').map_or(&word[..at], |cut| &word[..cut]);
            out.push(format!("{before}/[PLACE]{}", &rest[end..]));
        } else {
            out.push((*word).to_owned());
        }
    }
    out.join(" ")
}

fn copy(from: &Path, to: &Path) {
    for entry in walkdir::WalkDir::new(from).min_depth(1) {
        let entry = entry.unwrap();
        let target = to.join(entry.path().strip_prefix(from).unwrap());
        if entry.file_type().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}
