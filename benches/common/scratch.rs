//! A directory to work in, with a home of its own, where nothing small is deleted while something is measured.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::child::{self, Cost};

/// Files above this are removed with what is thrown away: they are few, and the disk is not endless.
const LARGE_BYTES: u64 = 64 << 20;

/// How many remove at once. On some file systems each removed file is a request to the disk that is waited for.
const REMOVERS: usize = 16;

const PV: &str = env!("CARGO_BIN_EXE_pv");

/// Where this project's builds lie, as an absolute path.
pub(crate) fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_owned()
}

/// A directory that is removed at the end, and not before.
pub(crate) struct Scratch {
    pub(crate) root: PathBuf,
    directory: tempfile::TempDir,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let entries = || walkdir::WalkDir::new(self.directory.path()).into_iter().filter_map(Result::ok);
        let directories: Vec<_> = entries().filter(|entry| entry.file_type().is_dir()).collect();
        let next = AtomicUsize::new(0);
        let remove = || {
            while let Some(directory) = directories.get(next.fetch_add(1, Ordering::Relaxed)) {
                let files = std::fs::read_dir(directory.path()).into_iter().flatten().filter_map(Result::ok);
                // What cannot be removed here is tried again, or left, by the directory itself.
                files.for_each(|file| _ = std::fs::remove_file(file.path()));
            }
        };
        std::thread::scope(|scope| (0..REMOVERS).for_each(|_| _ = scope.spawn(remove)));
    }
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
        std::fs::create_dir_all(temporary).unwrap();
        let directory = tempfile::tempdir_in(temporary).unwrap();
        let root = directory.path().to_owned();
        std::fs::create_dir_all(root.join("home")).unwrap();
        std::fs::create_dir_all(root.join("thrown-away")).unwrap();
        Self { root, directory }
    }

    /// Returns a program in a directory, with nothing of the user's but the `PATH`.
    pub(crate) fn command(&self, directory: &Path, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(directory)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.root.join("home"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .envs([("GIT_AUTHOR_NAME", "Ada"), ("GIT_AUTHOR_EMAIL", "ada@example.org")])
            .envs([("GIT_COMMITTER_NAME", "Ada"), ("GIT_COMMITTER_EMAIL", "ada@example.org")]);
        command
    }

    /// Runs a program, which must succeed.
    pub(crate) fn run(&self, directory: &Path, program: &str, arguments: &[&str]) -> Cost {
        child::run(self.command(directory, program).args(arguments)).0
    }

    /// Runs the program that is measured, which must succeed.
    pub(crate) fn pv(&self, directory: &Path, arguments: &[&str]) -> Cost {
        self.pv_answer(directory, arguments).0
    }

    /// Does the same and returns what it answers, too.
    pub(crate) fn pv_answer(&self, directory: &Path, arguments: &[&str]) -> (Cost, Vec<u8>) {
        child::run(self.command(directory, PV).args(arguments))
    }

    /// Makes a directory of files a repository with one commit.
    pub(crate) fn commit(&self, place: &Path) {
        self.run(place, "git", &["init", "--quiet"]);
        self.run(place, "git", &["add", "--all"]);
        self.run(place, "git", &["commit", "--quiet", "--message", "steps"]);
    }

    /// Puts something out of the way. Some file systems look at each name that was removed lately before they make a
    /// new one, so that whoever is measured next would pay for a tree that is deleted now.
    pub(crate) fn throw_away(&self, path: &Path) {
        let thrown_away = self.root.join("thrown-away");
        let number = std::fs::read_dir(&thrown_away).unwrap().count();
        let place = thrown_away.join(number.to_string());
        std::fs::rename(path, &place).unwrap();
        for entry in walkdir::WalkDir::new(&place) {
            let entry = entry.unwrap();
            if entry.file_type().is_file() && entry.metadata().unwrap().len() > LARGE_BYTES {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
    }
}
