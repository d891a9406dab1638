//! Starting a job: finding its program and giving it exactly its world.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{self, PipeReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Stdio};

use rustix::fs::{Access, Mode};

use super::family::{Family, Identity};
use super::{Command, ExecError, Job, Limit, table};
use crate::disk;

/// The shell that every system with a POSIX shell has at this place.
pub(super) const SHELL: &str = "/bin/sh";

/// What new files of a job are masked with, whatever the user's own mask is.
const UMASK: Mode = Mode::from_raw_mode(0o022);

/// Starts `job`; returns its processes and what they print.
///
/// # Errors
///
/// [`ExecError`] if it cannot be started; then nothing of it runs.
pub(super) fn start(job: &Job<'_>) -> Result<(Family, PipeReader), ExecError> {
    let program = job.command.program();
    let failed = |source| ExecError::Start { program: program.to_owned(), source };
    if !job.directory.is_dir() {
        return Err(ExecError::NoDirectory { path: job.directory.to_owned() });
    }
    let directory = std::path::absolute(job.directory).map_err(failed)?;
    let path = locate(program, &directory, job.environment.get("PATH").map(OsString::as_os_str))?;

    // One pipe for both, so that the order of arrival is the order of writing.
    let (reader, writer) = io::pipe().map_err(failed)?;
    let identity = Identity::new(job.environment, &reader);

    #[expect(clippy::disallowed_methods, reason = "the one place that starts the commands of users")]
    let mut command = process::Command::new(path);
    command
        .arg0(program)
        .args(arguments(job.command))
        .current_dir(&directory)
        .env_clear()
        .envs(job.environment)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(writer.try_clone().map_err(failed)?)
        .stderr(writer);
    let bounded = || {
        let child = spawn(&mut command)?;
        if let Some(limit) = job.memory {
            bound(limit, &child);
        }
        Ok(child)
    };
    let family = Family::start(identity, bounded).map_err(failed)?;
    // `command` holds our ends of the pipe; it goes here, so that the pipe ends with the job.
    Ok((family, reader))
}

/// Spawns with the job's umask; a mask belongs to the whole process, so callers take turns.
///
/// For this moment files that other threads make get that mask too. What must
/// be private does not depend on it: temporary files are made private.
fn spawn(command: &mut process::Command) -> io::Result<Child> {
    // Known from here on, whoever asks while it is another.
    disk::umask();
    let own = rustix::process::umask(UMASK);
    let child = command.spawn();
    rustix::process::umask(own);
    child
}

/// Puts a job that has just begun under a bound: its first process and those that this one may have started meanwhile.
///
/// One that left the process group in this moment is not found. A bound that cannot be kept says so itself.
fn bound(limit: &Limit, child: &Child) {
    let group = i32::try_from(child.id()).unwrap_or(i32::MAX);
    let mut added = BTreeSet::new();
    loop {
        let news = |process: &table::Process| process.group == group && !added.contains(&process.pid);
        let found: Vec<_> = table::after(group - 1).into_iter().filter(news).map(|process| process.pid).collect();
        if found.is_empty() {
            return;
        }
        for pid in found {
            drop(limit.add(pid));
            added.insert(pid);
        }
    }
}

fn arguments(command: &Command) -> Vec<&str> {
    match command {
        Command::Shell(text) => vec!["-c", text],
        Command::Direct(words) => words.iter().skip(1).map(String::as_str).collect(),
    }
}

/// Returns the file that `program` stands for, as the system itself would find it.
fn locate(program: &str, directory: &Path, search_path: Option<&OsStr>) -> Result<PathBuf, ExecError> {
    if program.is_empty() {
        return Err(ExecError::Empty);
    }
    let mut exists = false;
    for candidate in candidates(program, directory, search_path) {
        if !candidate.is_file() {
            // A directory of this name is there, but on a search path it is passed over.
            exists |= program.contains('/') && candidate.exists();
        } else if rustix::fs::access(&candidate, Access::EXEC_OK).is_ok() {
            return Ok(candidate);
        } else {
            exists = true;
        }
    }
    let program = program.to_owned();
    Err(if exists { ExecError::NotExecutable { program } } else { ExecError::NotFound { program } })
}

/// Returns where `program` may lie, in the order of the search.
fn candidates(program: &str, directory: &Path, search_path: Option<&OsStr>) -> Vec<PathBuf> {
    if program.contains('/') {
        return vec![directory.join(program)];
    }
    // An empty part of the path means the directory itself, as joining gives it.
    let parts = search_path.into_iter().flat_map(std::env::split_paths);
    parts.map(|part| directory.join(part).join(program)).collect()
}
