//! A project on a file system of its own, which can be cut, filled and locked without harm to the machine.
//!
//! The file system is mounted in a mount namespace that a waiting process keeps
//! open. With that process everything goes: the mounts, and the loop devices below them.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::content::{Files, Kept};
use crate::sandbox::Sandbox;

/// Nothing here takes this long unless it hangs.
const HANGS_AFTER: Duration = Duration::from_secs(60);
/// All loop devices may be taken for a moment.
const MOUNT_TRIES: u32 = 5;

const DEFINITION: &str = "data: [data]\nsteps:\n  copy:\n    inputs: [in]\n    outputs: [out]\n    run: cp in out\n";

/// A project, and the process that keeps its mounts.
pub(super) struct Place {
    keeper: Option<Child>,
    sandbox: Sandbox,
    image: tempfile::TempDir,
}

impl Place {
    /// Returns a project in an ordinary directory.
    pub(super) fn plain() -> Self {
        let place = Self { keeper: None, sandbox: Sandbox::new(), image: tempfile::tempdir().unwrap() };
        place.begin();
        place
    }

    /// Returns a project in memory, where that is allowed: for what does not depend on the disk, which would only be slow.
    pub(super) fn in_memory() -> Self {
        Self::mounted("mount -t tmpfs -o size=256m none $ROOT").unwrap_or_else(|_| Self::plain())
    }

    /// Returns a project below `$ROOT`, on which the shell's `script` mounts a file system; `$IMAGE` is a file it may use.
    ///
    /// Fails with what was said where this machine does not allow that.
    pub(super) fn mounted(script: &str) -> Result<Self, String> {
        let mut why = String::new();
        for _ in 0..MOUNT_TRIES {
            match Self::try_mounted(script) {
                Ok(place) => return Ok(place),
                Err(reason) => why = reason,
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Err(why)
    }

    fn try_mounted(script: &str) -> Result<Self, String> {
        let mut place = Self { keeper: None, sandbox: Sandbox::new(), image: tempfile::tempdir().unwrap() };
        let mut keeper = place
            .sandbox
            .command_in(&PathBuf::from("/"), "unshare")
            .args(["--mount", "--propagation", "private", "sh", "-ec"])
            .arg(format!("exec 2>&1; PATH=$PATH:/usr/sbin:/sbin; {script}\necho mounted; exec cat"))
            .env("ROOT", place.sandbox.beside(""))
            .env("IMAGE", place.image())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("`unshare`: {error}"))?;
        let mut told = Vec::new();
        for line in BufReader::new(keeper.stdout.take().unwrap()).lines().map_while(Result::ok) {
            if line == "mounted" {
                place.keeper = Some(keeper);
                place.sh("mkdir -p \"$ROOT/project\" \"$ROOT/home\"");
                place.begin();
                return Ok(place);
            }
            told.push(line);
        }
        let _ = keeper.wait();
        Err(told.join("; "))
    }

    /// Makes the first commit, on disk for good.
    fn begin(&self) {
        self.write(".pipeline/pipeline.yaml", DEFINITION.as_bytes());
        self.write(".gitignore", b"/data\n/out\n");
        self.write("in", b"first\n");
        for arguments in [
            &["init", "--quiet", "--initial-branch=main"][..],
            &["add", "--all"],
            &["commit", "--quiet", "--message", "first"],
        ] {
            let output = self.command("git", arguments).output().unwrap();
            assert!(output.status.success(), "git {arguments:?}: {}", text_of(&output));
        }
        if self.keeper.is_some() {
            self.sh("sync -f \"$ROOT\"");
        }
    }

    /// Returns the file that a loop device may be on.
    fn image(&self) -> PathBuf {
        self.image.path().join("image")
    }

    /// Returns the way to a path of the project, from outside of the mounts.
    pub(super) fn path(&self, relative: &str) -> PathBuf {
        let path = self.sandbox.path(relative);
        match &self.keeper {
            Some(keeper) => PathBuf::from(format!("/proc/{}/root{}", keeper.id(), path.display())),
            None => path,
        }
    }

    /// Returns a command in the project, inside of the mounts.
    pub(super) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = match &self.keeper {
            Some(keeper) => {
                let mut command = self.sandbox.command_in(&PathBuf::from("/"), "nsenter");
                command
                    .arg(format!("--mount=/proc/{}/ns/mnt", keeper.id()))
                    .args(["sh", "-c", "cd \"$0\" 2> /dev/null; exec \"$@\""])
                    .arg(self.sandbox.path(""))
                    .arg(program);
                command
            }
            None => self.sandbox.command_in(&self.sandbox.path("."), program),
        };
        command.args(arguments).env("ROOT", self.sandbox.beside("")).env("IMAGE", self.image());
        command
    }

    /// Returns a `pv` command in the project whose output is kept.
    pub(super) fn pv(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_pv"), arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a script of the shell, which must succeed, and returns what it printed.
    pub(super) fn sh(&self, script: &str) -> String {
        let output = self.command("sh", &["-ec", script]).output().unwrap();
        assert!(output.status.success(), "{script}: {}", text_of(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Writes a file of the project, flushing nothing.
    pub(super) fn write(&self, relative: &str, content: &[u8]) {
        let path = self.path(relative);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Makes the working tree hold `files`, and no others but those of the first commit.
    pub(super) fn lay(&self, files: &Files) {
        self.clear();
        for (path, content) in files {
            self.write(path, content);
        }
    }

    /// Removes the files that [`Place::lay`] makes, and the outputs.
    pub(super) fn clear(&self) {
        for name in ["data", "in", "out"] {
            let path = self.path(name);
            let _ = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
        }
    }

    /// Runs `pv --json` with these arguments, which must succeed, and returns the snapshot that it named.
    pub(super) fn keep(&self, arguments: &[&str]) -> String {
        let output = end_of(self.pv(&[&["--json"], arguments].concat()).spawn().unwrap());
        assert!(output.status.success(), "pv {arguments:?}: {}", text_of(&output));
        snapshot_in(&output)
    }

    /// Returns the regular files in which the store keeps objects, whatever they are called, sorted.
    pub(super) fn stored_files(&self) -> Vec<PathBuf> {
        let below = |name: &str| walkdir::WalkDir::new(self.path(name)).sort_by_file_name().into_iter().flatten();
        let found = below(".git/pv/objects").chain(below(".git/pv/packs"));
        found.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path).collect()
    }

    /// Checks that what was acknowledged comes out whole, into a working tree that has nothing of it.
    pub(super) fn assert_comes_out(&self, kept: &Kept) {
        self.clear();
        let output = end_of(self.pv(&["checkout", "--force", &kept.snapshot]).spawn().unwrap());
        assert!(output.status.success(), "{} of {}: {}", kept.snapshot, kept.what, text_of(&output));
        for (path, content) in &kept.files {
            let found =
                std::fs::read(self.path(path)).unwrap_or_else(|error| panic!("{path} of {}: {error}", kept.what));
            assert!(found == *content, "`{path}` of {} has other bytes than were kept", kept.what);
        }
    }

    /// Checks that `pv log` lists all that was acknowledged, and that `pv show` knows the newest that it lists.
    pub(super) fn assert_listed(&self, all: &[Kept], shown_max: usize) {
        let output = end_of(self.pv(&["--json", "log", "--all"]).spawn().unwrap());
        assert!(output.status.success(), "pv log: {}", text_of(&output));
        let log: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let entries = log["entries"].as_array().unwrap().iter();
        let mut listed: Vec<_> = entries.map(|entry| entry["snapshot"].as_str().unwrap()).collect();
        listed.dedup();
        for kept in all {
            assert!(listed.contains(&kept.snapshot.as_str()), "{} of {} is not in the log", kept.snapshot, kept.what);
        }
        for snapshot in listed.into_iter().take(shown_max) {
            let output = end_of(self.pv(&["show", snapshot]).spawn().unwrap());
            assert!(output.status.success(), "{snapshot} is listed, yet: {}", text_of(&output));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            // It ends with its input.
            keeper.stdin.take();
            let _ = keeper.wait();
        }
    }
}

/// Returns how a child ended. It must end by itself, and must not panic.
pub(super) fn end_of(mut child: Child) -> Output {
    // Little is printed here, so that no pipe fills up before it is read.
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > HANGS_AFTER {
            let _ = child.kill();
            panic!("it hangs: {}", text_of(&child.wait_with_output().unwrap()));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().unwrap();
    assert!(!text_of(&output).contains("panicked"), "{}", text_of(&output));
    output
}

/// Returns the snapshot that an answer names.
pub(super) fn snapshot_in(output: &Output) -> String {
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    answer["snapshot"].as_str().unwrap().to_owned()
}

/// Returns how a program ended, with all that it printed.
pub(super) fn text_of(output: &Output) -> String {
    let mut text = format!("{:?}\n", output.status);
    let _ = output.stdout.as_slice().read_to_string(&mut text);
    let _ = output.stderr.as_slice().read_to_string(&mut text);
    text
}
