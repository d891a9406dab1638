//! Moving references, so that nobody waits for the dead.
//!
//! Git holds a reference by a file beside it, which stays if the process that made it is killed:
//! all who come later wait for it in vain. So processes of `pv` wait for each
//! other on a lock of the kernel, which ends with its holder, and note in it
//! what they are about to do. Who holds it next knows by the note which file a
//! dead one left, and removes it. `packed-refs` is read, and never locked.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gix::ObjectId;
use gix::lock::acquire::Fail;
use gix::refs::store::WriteReflog;
use gix::refs::transaction::{Change, LogChange, PreviousValue, RefEdit, RefLog};
use gix::refs::{FullName, Target};

use super::GitError;
use super::durable::flush;
use crate::disk::{self, DiskError, Lock};
use crate::host::Stopwatch;

/// For how long one waits for others, all in all.
pub(super) const WAIT_AT_MOST: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// The lock of the kernel, in the git directory that all working trees share.
const LOCK: &str = "pv/references";
/// Git holds a reference for moments. What is this old was left by the dead.
const LEFT_AFTER: Duration = Duration::from_mins(1);

/// Waits in growing pauses, up to a limit for all of them.
pub(super) struct Patience {
    watch: Stopwatch,
    limit: Duration,
    pause: Duration,
}

impl Patience {
    pub(super) fn of(limit: Duration) -> Self {
        Self { watch: Stopwatch::start(), limit, pause: FIRST_PAUSE }
    }

    /// Waits a little, or returns `false` if that has been done for long enough.
    pub(super) fn wait(&mut self) -> bool {
        if self.watch.elapsed() >= self.limit {
            return false;
        }
        std::thread::sleep(self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }
}

/// What is written down when a reference is moved.
pub(super) struct Entry<'a> {
    pub(super) signature: &'a gix::actor::Signature,
    pub(super) message: &'a str,
}

/// The right to move one reference, as far as processes of `pv` are concerned.
pub(super) struct Held<'a> {
    local: &'a gix::Repository,
    name: FullName,
    path: PathBuf,
    lock: Lock,
    /// The clock of the file system when the lock was taken, in nanoseconds since 1970.
    taken_ns: i64,
}

impl<'a> Held<'a> {
    /// Takes the right to move `reference`, and removes what a dead process left that had it.
    ///
    /// # Errors
    ///
    /// [`GitError::Busy`] if another process keeps it for longer than `patience` lasts,
    /// [`GitError::Git`] if `reference` is no full name.
    pub(super) fn take(local: &'a gix::Repository, reference: &str, patience: &mut Patience) -> Result<Self, GitError> {
        let name = full_name(reference)?;
        let file = local.common_dir().join(LOCK);
        let lock = loop {
            if let Some(lock) = Lock::try_exclusive(&file)? {
                break lock;
            }
            if !patience.wait() {
                return Err(GitError::Busy { reference: reference.to_owned() });
            }
        };
        let path = local.common_dir().join(reference);
        let mut held = Self { local, name, path, lock, taken_ns: 0 };
        let noted = held.lock.noted()?;
        held.note(None)?;
        held.taken_ns = disk::stat(&file)?.map(|stat| stat.modified_ns).unwrap_or_default();
        held.remove_left_by_the_dead(&noted)?;
        Ok(held)
    }

    /// Returns the clock of the file system when the right was taken, in nanoseconds since 1970.
    pub(super) fn taken_ns(&self) -> i64 {
        self.taken_ns
    }

    /// Moves the reference from one value to another, and returns whether it was still there. It is durable
    /// afterwards, with all objects that were written before.
    ///
    /// Costs three flushes. Waits for others that hold it by git's own file, as long as `patience` lasts.
    ///
    /// # Errors
    ///
    /// [`GitError::Locked`] if others keep holding it, [`GitError::Git`] or [`GitError::Disk`] if it cannot be read or written.
    pub(super) fn move_it(
        &self,
        from: Option<ObjectId>,
        to: ObjectId,
        entry: &Entry<'_>,
        patience: &mut Patience,
    ) -> Result<bool, GitError> {
        self.note(Some(to))?;
        // With the objects goes the note: it has to outlast what it speaks of.
        flush(self.local)?;
        let moved = self.move_noted(from, to, entry, patience);
        self.note(None)?;
        moved
    }

    fn move_noted(
        &self,
        from: Option<ObjectId>,
        to: ObjectId,
        entry: &Entry<'_>,
        patience: &mut Patience,
    ) -> Result<bool, GitError> {
        // Git logs a move before it makes it, too.
        if self.is_logged()? && self.is_at(from)? {
            self.log(to, entry).map_err(GitError::on(format!("log the move of `{}`", self.name.as_bstr())))?;
        }
        let directory = disk::parent(&self.path);
        let is_new_directory = disk::look(directory)?.is_none();
        let mut file = self.hold_for_git(patience)?;
        if !self.is_at(from)? {
            return Ok(false);
        }
        // Flushed before it has its name: a power cut cannot leave a reference without a value.
        let value = format!("{to}\n");
        let written = file.with_mut(|file| file.write_all(value.as_bytes()).and_then(|()| file.sync_all()));
        written.map_err(DiskError::on("write", &lock_file(&self.path)))?;
        file.commit().map_err(|error| DiskError::on("write", &self.path)(error.error))?;
        let named = directory.ancestors().take_while(|above| above.starts_with(self.local.common_dir()));
        for directory in named.take(if is_new_directory { usize::MAX } else { 1 }) {
            disk::sync_directory(directory)?;
        }
        Ok(true)
    }

    /// Removes the reference if a power cut left it without a value, and returns whether it did.
    ///
    /// # Errors
    ///
    /// As [`Held::move_it`].
    pub(super) fn remove_blank(&self, patience: &mut Patience) -> Result<bool, GitError> {
        if !has_no_value(&self.path)? {
            return Ok(false);
        }
        let _file = self.hold_for_git(patience)?;
        let is_still = has_no_value(&self.path)?;
        if is_still {
            disk::remove_tree(&self.path)?;
        }
        Ok(is_still)
    }

    /// Makes the file by which git holds the reference. It is removed when what this returns is dropped.
    fn hold_for_git(&self, patience: &mut Patience) -> Result<gix::lock::File, GitError> {
        let reference = self.name.as_bstr();
        let boundary = self.local.common_dir().join("refs");
        loop {
            let boundary = Some(boundary.clone());
            match gix::lock::File::acquire_to_update_resource(&self.path, Fail::Immediately, boundary, 0) {
                Ok(file) => return Ok(file),
                Err(error) if !error.is_retryable() => {
                    return Err(GitError::on(format!("lock `{reference}`"))(error));
                }
                Err(_) => {}
            }
            let file = lock_file(&self.path);
            if !self.remove_if_left(&file, None)? && !patience.wait() {
                return Err(GitError::Locked { reference: reference.to_string(), file });
            }
        }
    }

    /// Removes the file by which one held a reference for git who noted so and died.
    fn remove_left_by_the_dead(&self, noted: &[u8]) -> Result<(), GitError> {
        let Some((name, to)) = read_note(noted) else { return Ok(()) };
        let path = self.local.common_dir().join(name.as_bstr().to_string());
        self.remove_if_left(&lock_file(&path), Some(to))?;
        Ok(())
    }

    /// Removes git's file for a lock if the dead left it, and returns whether there is none any more.
    fn remove_if_left(&self, file: &Path, noted: Option<ObjectId>) -> Result<bool, DiskError> {
        let Some(stat) = disk::stat(file)? else { return Ok(true) };
        let Some(content) = disk::read_if_there(file)? else { return Ok(true) };
        let age_ns = self.taken_ns.saturating_sub(stat.modified_ns);
        let is_left = is_left(&content, Duration::from_nanos(u64::try_from(age_ns).unwrap_or_default()), noted);
        if is_left {
            disk::remove_tree(file)?;
        }
        Ok(is_left)
    }

    /// Notes which reference is going to be moved where, for those who come after a sudden death.
    fn note(&self, to: Option<ObjectId>) -> Result<(), DiskError> {
        let name = self.name.as_bstr();
        // The name alone says no more than when the lock was taken, by the time of the file.
        let note = to.map_or_else(|| format!("{name}\n"), |to| format!("{name} {to}\n"));
        self.lock.note(note.as_bytes())
    }

    fn is_at(&self, value: Option<ObjectId>) -> Result<bool, GitError> {
        let failed = GitError::on(format!("read `{}`", self.name.as_bstr()));
        let found = self.local.try_find_reference(self.name.as_ref()).map_err(failed)?;
        Ok(found.map(|found| found.target().into_owned()) == value.map(Target::Object))
    }

    fn is_logged(&self) -> Result<bool, DiskError> {
        let log = self.local.common_dir().join("logs").join(self.name.as_bstr().to_string());
        Ok(self.local.refs.write_reflog == WriteReflog::Always || disk::look(&log)?.is_some())
    }

    fn log(&self, to: ObjectId, entry: &Entry<'_>) -> gix::Result<()> {
        let log = LogChange { mode: RefLog::Only, force_create_reflog: false, message: entry.message.into() };
        let change = Change::Update { log, expected: PreviousValue::Any, new: Target::Object(to) };
        let edit = RefEdit { change, name: self.name.clone(), deref: false };
        let mut buffer = gix::date::parse::TimeBuf::default();
        self.local.edit_references_as([edit], Some(entry.signature.to_ref(&mut buffer)))?;
        Ok(())
    }
}

/// Returns the full name of a reference.
///
/// # Errors
///
/// [`GitError::Git`] if it is none.
pub(super) fn full_name(reference: &str) -> Result<FullName, GitError> {
    FullName::try_from(reference).map_err(GitError::on(format!("read `{reference}`")))
}

/// Returns whether a power cut left the reference at `path` without a value.
///
/// # Errors
///
/// [`DiskError`] if it cannot be read.
pub(super) fn has_no_value(path: &Path) -> Result<bool, DiskError> {
    Ok(disk::read_if_there(path)?.is_some_and(|bytes| is_blank(&bytes)))
}

/// Returns whether git's file for a lock was left by the dead, when nobody else of `pv` can be at work.
///
/// `noted` is where the last holder was going to move the reference: a file that says so, or nothing yet, is its own.
fn is_left(content: &[u8], age: Duration, noted: Option<ObjectId>) -> bool {
    let is_noted = noted.is_some_and(|to| is_blank(content) || content == format!("{to}\n").as_bytes());
    is_noted || age >= LEFT_AFTER
}

fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0 || byte.is_ascii_whitespace())
}

/// Returns what was noted before a move that did not come to its end.
fn read_note(noted: &[u8]) -> Option<(FullName, ObjectId)> {
    let (name, to) = std::str::from_utf8(noted).ok()?.strip_suffix('\n')?.split_once(' ')?;
    Some((FullName::try_from(name).ok()?, to.parse().ok()?))
}

/// Returns the file by which git holds the reference at `path`.
fn lock_file(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::super::fixture::{META, Scratch, file, is_rerun};
    use super::super::{GitError, Repository};
    use super::*;

    const BRIEFLY: Duration = Duration::from_millis(20);
    const LOCK_FILE: &str = ".git/refs/pv/meta.lock";

    fn is_there(scratch: &Scratch, path: &str) -> bool {
        disk::look(&scratch.root.join(path)).unwrap().is_some()
    }

    #[test]
    fn one_that_was_killed_in_the_middle_of_a_move_is_not_waited_for() {
        // A file `refs/pv/meta.lock` that a dead process left made every later command wait
        // for five seconds and fail, until somebody removed it by hand.
        if is_rerun() {
            let repository = Repository::discover(&crate::host::current_directory().unwrap()).unwrap().unwrap();
            let (local, mut patience) = (repository.local(), Patience::of(BRIEFLY));
            let held = Held::take(&local, META, &mut patience).unwrap();
            let to = local.head_id().unwrap().detach();
            held.note(Some(to)).unwrap();
            let mut file = held.hold_for_git(&mut patience).unwrap();
            file.with_mut(|file| writeln!(file, "{to}")).unwrap();
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
        }
        let scratch = Scratch::new();
        scratch.commit("first");
        scratch.repository().add_to_set(META, &[file("a", "1")], "first").unwrap();
        let test = "git::reference::tests::one_that_was_killed_in_the_middle_of_a_move_is_not_waited_for";
        scratch.rerun_killed(test);
        assert!(is_there(&scratch, LOCK_FILE), "the dead leave the file by which git holds a reference");
        scratch.repository().add_within(Duration::ZERO, META, &[file("b", "2")], "second").unwrap();
        assert!(!is_there(&scratch, LOCK_FILE));
        scratch.git(&["fsck", "--strict"]);
    }

    #[test]
    fn what_one_left_that_was_killed_moving_another_reference_is_removed_too() {
        let scratch = Scratch::new();
        let commit = scratch.commit("first");
        let left = ".git/refs/tags/v1.0.lock";
        // Before it is written, and as a power cut leaves it, such a file says nothing.
        for (number, content) in [format!("{commit}\n"), String::new(), "\0\0".to_owned()].iter().enumerate() {
            scratch.write(left, content);
            scratch.write(".git/pv/references", format!("refs/tags/v1.0 {commit}\n"));
            scratch.repository().add_to_set(META, &[file(&format!("a/{number}"), "1")], "add").unwrap();
            assert!(!is_there(&scratch, left), "{content:?}");
        }
    }

    #[test]
    fn an_old_file_is_removed_and_a_fresh_one_is_named() {
        let scratch = Scratch::new();
        let repository = scratch.repository();
        repository.add_to_set(META, &[file("a", "1")], "first").unwrap();
        for (name, content) in [("b", ""), ("c", "0123456789\n")] {
            scratch.write_aged(LOCK_FILE, content, 61);
            repository.add_within(Duration::ZERO, META, &[file(name, "2")], "second").unwrap();
            assert!(!is_there(&scratch, LOCK_FILE));
        }
        scratch.write_aged(LOCK_FILE, "", 30);
        let error = repository.add_within(BRIEFLY, META, &[file("d", "3")], "third").unwrap_err();
        let path = scratch.root.join(LOCK_FILE);
        assert_eq!(error.to_string(), format!("reference `{META}` is held by the file `{}`", path.display()));
        assert!(is_there(&scratch, LOCK_FILE));
    }

    #[test]
    fn a_living_git_that_holds_the_reference_is_respected() {
        let scratch = Scratch::new();
        let repository = scratch.repository();
        let first = repository.add_to_set(META, &[file("a", "1")], "first").unwrap();
        let commit = scratch.commit("another");
        let mut git = scratch.command("git".as_ref(), &scratch.root);
        let mut git = git.args(["update-ref", "--stdin"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut orders = git.stdin.take().unwrap();
        write!(orders, "start\nupdate {META} {commit} {first}\nprepare\n").unwrap();
        let mut said = std::io::BufRead::lines(std::io::BufReader::new(git.stdout.take().unwrap()));
        assert_eq!(said.next().unwrap().unwrap(), "start: ok");
        assert_eq!(said.next().unwrap().unwrap(), "prepare: ok");
        let error = repository.add_within(BRIEFLY, META, &[file("b", "2")], "second").unwrap_err();
        assert!(matches!(error, GitError::Locked { .. }), "{error}");
        writeln!(orders, "commit").unwrap();
        drop(orders);
        assert!(git.wait().unwrap().success());
        assert_eq!(repository.set_tip(META).unwrap(), Some(commit));
        repository.add_to_set(META, &[file("b", "2")], "second").unwrap();
        assert_eq!(scratch.line(&["rev-parse", &format!("{META}^")]), commit.to_string());
    }

    #[test]
    fn packed_references_are_moved_though_git_holds_the_file_that_they_are_in() {
        // Where `packed-refs` was there, it was locked for each move, and a dead process left it locked for git, too.
        let scratch = Scratch::new();
        let first = scratch.repository().add_to_set(META, &[file("a", "1")], "first").unwrap();
        scratch.git(&["pack-refs", "--all"]);
        assert!(!is_there(&scratch, ".git/refs/pv/meta"));
        scratch.write(".git/packed-refs.lock", "");
        let second = scratch.repository().add_within(Duration::ZERO, META, &[file("b", "2")], "second").unwrap();
        assert_eq!(scratch.line(&["rev-list", META]), format!("{second}\n{first}"));
        assert!(is_there(&scratch, ".git/packed-refs.lock"));
    }

    #[test]
    fn moves_are_logged_where_git_would_log_them() {
        let scratch = Scratch::new();
        scratch.repository().add_to_set(META, &[file("a", "1")], "first").unwrap();
        assert_eq!(scratch.line(&["reflog", "show", META]), "");
        scratch.git(&["config", "core.logAllRefUpdates", "always"]);
        let second = scratch.repository().add_to_set(META, &[file("b", "2")], "second\n\nmore").unwrap();
        let short = &second.to_string()[..7];
        assert_eq!(scratch.line(&["reflog", "show", META]), format!("{short} {META}@{{0}}: second"));
    }

    #[test]
    fn one_that_is_at_work_is_waited_for_but_not_for_ever() {
        let scratch = Scratch::new();
        let repository = scratch.repository();
        let local = repository.local();
        let held = Held::take(&local, META, &mut Patience::of(BRIEFLY)).unwrap();
        let error = repository.add_within(BRIEFLY, META, &[file("a", "1")], "first").unwrap_err();
        assert!(matches!(error, GitError::Busy { reference } if reference == META));
        std::thread::scope(|scope| {
            let adding = scope.spawn(|| repository.add_to_set(META, &[file("a", "1")], "first"));
            drop(held);
            assert!(adding.join().unwrap().is_ok());
        });
    }

    #[test]
    fn a_note_that_makes_no_sense_removes_nothing() {
        let scratch = Scratch::new();
        let repository = scratch.repository();
        let id = repository.add_to_set(META, &[file("a", "1")], "first").unwrap();
        let victim = ".git/refs/heads/main.lock";
        scratch.write(victim, format!("{id}\n"));
        for note in
            ["\0\0\0", "\n", "no name\n", &format!("../refs/heads/main {id}\n"), &format!("refs/heads/main {id}")]
        {
            scratch.write(".git/pv/references", note);
            repository.add_to_set(META, &[file("b", "2")], "second").unwrap();
            assert!(is_there(&scratch, victim), "{note:?}");
        }
    }
}
