//! What files hashed to when they were last looked at, so that unchanged ones need not be read again.
//!
//! An entry counts only while size, both times, inode, device and mode are all
//! what they were, and only if the file was not written so close to its
//! hashing that a later write could have left the same times (such files are
//! not remembered, as Git smudges them). The change time is what makes this
//! safe: a program can set the modification time back, but not that one.
//!
//! It is a memory, not a truth: it may be deleted at any time, a damaged one is
//! passed over, and no answer depends on it.

mod format;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::disk::{self, DiskError, Durability, Stat};
use crate::hash::Digest;

use format::{Section, Table, write};

/// Writes closer than this to the start of hashing may leave the same times, on systems whose clock ticks slowly.
const SLACK_NANOSECONDS: i64 = 20_000_000;
/// The same where times have whole seconds only.
const COARSE_SLACK_NANOSECONDS: i64 = 2_000_000_000;
/// A file modified within this time may have pages that a program still writes to through a memory map.
const RECENT_NANOSECONDS: i64 = 60_000_000_000;
/// Up to this many recent files are flushed one by one, then all at once.
const SINGLE_FLUSHES_MAX: u32 = 4;

/// Files from this size on are waited for if they were written a moment ago: hashing them again costs more.
const WAIT_FROM_BYTES: u64 = 16 << 20;

/// What is remembered of one file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known {
    /// What tells its state.
    pub stat: Stat,
    /// What it hashed to.
    pub digest: Digest,
}

/// The memory of one working tree. Paths are those of directories, relative to it, as bytes.
#[derive(Debug)]
pub struct StatCache {
    path: PathBuf,
    root: PathBuf,
    table: OnceLock<Table>,
    /// Of each directory of the table, whether it was looked at since.
    visited: OnceLock<Vec<AtomicBool>>,
    /// Directories of which something is to be remembered anew, with all that is known of them.
    changed: Mutex<BTreeMap<Vec<u8>, Section>>,
    /// Single files that are to be remembered beside what is known of their directories.
    single: Mutex<BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Known>>>,
    /// Whether anything is to be remembered: a command that only looks writes nothing.
    learns: AtomicBool,
    /// Directories of which all that is below was looked at.
    walked: Mutex<Vec<Vec<u8>>>,
    /// The file system's time when the first file was looked at.
    began: OnceLock<Option<i64>>,
    flushes: AtomicU32,
    flushed_all: OnceLock<()>,
    waited: OnceLock<()>,
    clocks: AtomicU32,
}

/// What is remembered of one directory, to be asked in the order of names.
pub struct Directory<'a> {
    table: Option<&'a Table>,
    next: usize,
    end: usize,
}

impl StatCache {
    /// Returns the memory in the file at `path` of the tree at `root`. Reads nothing yet; a missing file is an empty memory.
    pub fn at(path: PathBuf, root: PathBuf) -> Self {
        Self {
            path,
            root,
            table: OnceLock::new(),
            visited: OnceLock::new(),
            changed: Mutex::default(),
            single: Mutex::default(),
            learns: AtomicBool::new(false),
            walked: Mutex::default(),
            began: OnceLock::new(),
            flushes: AtomicU32::new(0),
            flushed_all: OnceLock::new(),
            waited: OnceLock::new(),
            clocks: AtomicU32::new(0),
        }
    }

    /// Lets what is found out from now on be remembered.
    pub fn learn(&self) {
        self.learns.store(true, Ordering::Relaxed);
    }

    /// Returns whether anything is remembered.
    pub fn learns(&self) -> bool {
        self.learns.load(Ordering::Relaxed)
    }

    /// Tells that all that is below the directory at `path` is looked at.
    pub fn walk(&self, path: &[u8]) {
        lock(&self.walked).push(path.to_vec());
    }

    /// Returns what is remembered of the directory at `path`.
    pub fn directory(&self, path: &[u8]) -> Directory<'_> {
        let table = self.table();
        match table.directory(path) {
            Some((index, range)) => {
                self.visited.get_or_init(|| (0..table.directories()).map(|_| AtomicBool::new(false)).collect())[index]
                    .store(true, Ordering::Relaxed);
                Directory { table: Some(table), next: range.start, end: range.end }
            }
            None => Directory { table: None, next: 0, end: 0 },
        }
    }

    /// Returns what one file hashed to, if it is still in the state it was in then.
    pub fn digest(&self, directory: &[u8], name: &[u8], stat: &Stat) -> Option<Digest> {
        let mut directory = self.directory(directory);
        directory.seek(name);
        directory.find(name).filter(|known| known.stat == *stat).map(|known| known.digest)
    }

    /// Prepares the hashing of a file in the state `stat`, and returns whether it may be remembered if it still has that state then.
    ///
    /// Makes sure that a later change shows in its times. While a page of it is dirty, a program that has it mapped
    /// can write to it without a trace; flushing makes the system notice the next write. (Where nothing is ever
    /// written back, as on tmpfs, it does not, and such a write stays unseen until the next one.) What was written
    /// without a trace before the flush is there when the file is read after it.
    /// A large file is worth a moment of waiting, too, until a change has another time than the last one.
    pub fn settle(&self, path: &Path, stat: &Stat) -> bool {
        let Some(began) = self.began() else { return false };
        if stat.modified_ns + RECENT_NANOSECONDS > began {
            self.flush(path);
        }
        if is_settled(stat, began) || stat.size < WAIT_FROM_BYTES {
            return is_settled(stat, began);
        }
        self.waited.get_or_init(|| std::thread::sleep(Duration::from_nanos(SLACK_NANOSECONDS.unsigned_abs())));
        // All may have been flushed at once before this file was written.
        let _ = disk::sync_file(path);
        // A write while we waited has another time than the one that is compared here.
        self.clock().is_some_and(|now| is_settled(stat, now))
    }

    fn flush(&self, path: &Path) {
        // What cannot be flushed is not opened for writing by anybody on this machine, or is lost anyway.
        if self.flushes.fetch_add(1, Ordering::Relaxed) < SINGLE_FLUSHES_MAX {
            let _ = disk::sync_file(path);
        } else {
            self.flushed_all.get_or_init(|| drop(disk::sync_file_system(&self.root)));
        }
    }

    /// Remembers everything that is known of the directory at `path`: `files` in the order of their names.
    pub fn remember<'f>(&self, path: &[u8], files: impl IntoIterator<Item = (&'f [u8], Known)>) {
        let section = files.into_iter().collect();
        lock(&self.single).remove(path);
        lock(&self.changed).insert(path.to_vec(), section);
    }

    /// Remembers one file beside what is known of its directory.
    pub fn remember_one(&self, directory: &[u8], name: &[u8], known: Known) {
        let mut single = lock(&self.single);
        match single.get_mut(directory) {
            Some(files) => drop(files.insert(name.to_vec(), known)),
            None => drop(single.insert(directory.to_vec(), BTreeMap::from([(name.to_vec(), known)]))),
        }
    }

    /// Puts the single files beside what is known of their directories.
    fn join_single(&self, changed: &mut BTreeMap<Vec<u8>, Section>) {
        for (directory, files) in std::mem::take(&mut *lock(&self.single)) {
            let before = changed.remove(&directory).unwrap_or_else(|| self.directory(&directory).all().collect());
            let mut all: BTreeMap<&[u8], Known> = before.iter().collect();
            all.extend(files.iter().map(|(name, known)| (name.as_slice(), *known)));
            let section = all.into_iter().collect();
            changed.insert(directory, section);
        }
    }

    /// Writes what was learnt. Directories below walked ones that were not seen are forgotten.
    ///
    /// Costs a write of all of it if there is anything new, else nothing.
    ///
    /// # Errors
    ///
    /// [`DiskError`] if it cannot be written; the old memory is then still there.
    pub fn save(&self) -> Result<(), DiskError> {
        let mut changed = lock(&self.changed);
        self.join_single(&mut changed);
        if changed.is_empty() {
            return Ok(());
        }
        let (table, walked) = (self.table(), lock(&self.walked));
        let is_walked = |path: &[u8]| walked.iter().any(|root| is_within(path, root));
        let is_visited =
            |index: usize| self.visited.get().is_some_and(|visited| visited[index].load(Ordering::Relaxed));
        let stays = |index: &usize| {
            let Some((path, _)) = table.at(*index) else { return false };
            !changed.contains_key(path) && (is_visited(*index) || !is_walked(path))
        };
        let kept: Vec<usize> = (0..table.directories()).filter(stays).collect();
        disk::write_out(&self.path, false, |file| {
            write(file, table, &kept, &changed).map_err(DiskError::on("write", &self.path))
        })
    }

    /// Returns the file system's own time when the first file was looked at; `None` where nothing can be written.
    fn began(&self) -> Option<i64> {
        *self.began.get_or_init(|| self.clock())
    }

    /// Returns the file system's own time, from a file that is made for it; `None` where nothing can be written.
    fn clock(&self) -> Option<i64> {
        let turn = self.clocks.fetch_add(1, Ordering::Relaxed);
        let probe = self.path.with_extension(format!("clock{turn}"));
        disk::write_whole(&probe, b"", Durability::Deferred).ok()?;
        let stat = disk::stat(&probe).ok()??;
        disk::remove_tree(&probe).ok()?;
        Some(stat.changed_ns)
    }

    fn table(&self) -> &Table {
        self.table.get_or_init(|| Table::load(&self.path))
    }
}

impl<'a> Directory<'a> {
    /// Returns what is remembered of the file with this name. Names must be asked for in rising order.
    pub fn find(&mut self, name: &[u8]) -> Option<Known> {
        let table = self.table?;
        while self.next < self.end {
            let (other, known) = table.record(self.next)?;
            match other.cmp(name) {
                std::cmp::Ordering::Less => self.next += 1,
                std::cmp::Ordering::Equal => return Some(known),
                std::cmp::Ordering::Greater => return None,
            }
        }
        None
    }

    /// Goes on to the first name that is not before this one.
    pub fn seek(&mut self, name: &[u8]) {
        let Some(table) = self.table else { return };
        let is_before = |index: usize| table.record(index).is_some_and(|(other, _)| other < name);
        let (mut low, mut high) = (self.next, self.end);
        while low < high {
            let middle = low + (high - low) / 2;
            if is_before(middle) { low = middle + 1 } else { high = middle }
        }
        self.next = low;
    }

    /// Returns how many files are remembered.
    pub fn len(&self) -> usize {
        self.end - self.next
    }

    /// Returns whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn all(self) -> impl Iterator<Item = (&'a [u8], Known)> {
        let table = self.table;
        (self.next..self.end).filter_map(move |index| table?.record(index))
    }
}

/// Returns whether a change after `looked_ns` gives the file other times than it has.
fn is_settled(stat: &Stat, looked_ns: i64) -> bool {
    let slack = if stat.modified_ns % 1_000_000_000 == 0 { COARSE_SLACK_NANOSECONDS } else { SLACK_NANOSECONDS };
    stat.modified_ns.max(stat.changed_ns) < looked_ns - slack
}

fn is_within(path: &[u8], root: &[u8]) -> bool {
    root.is_empty() || path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_files_are_remembered_beside_what_is_known_of_their_directory() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("memory");
        let memory = || StatCache::at(place.clone(), root.path().to_owned());
        let path = root.path().join("file");
        disk::write_whole(&path, b"x", Durability::Deferred).unwrap();
        let stat = disk::stat(&path).unwrap().unwrap();
        let known = |text: &str| Known { stat, digest: Digest::of(text.as_bytes()) };
        let before = memory();
        before.remember(b"d", [(b"b".as_slice(), known("b")), (b"m", known("old"))]);
        before.save().unwrap();
        let cache = memory();
        cache.remember_one(b"d", b"z", known("z"));
        cache.remember_one(b"d", b"a", known("a"));
        cache.remember_one(b"d", b"m", known("new"));
        cache.save().unwrap();
        let after = memory();
        for (name, text) in [("a", "a"), ("b", "b"), ("m", "new"), ("z", "z")] {
            let digest = after.digest(b"d", name.as_bytes(), &stat);
            assert_eq!(digest, Some(Digest::of(text.as_bytes())), "{name}");
        }
    }

    /// Writes a file and prepares its hashing at once.
    fn may_be_remembered(bytes: u64) -> bool {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        let cache = StatCache::at(root.path().join("memory"), root.path().to_owned());
        cache.learn();
        cache.began();
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(bytes).unwrap();
        cache.settle(&path, &disk::stat(&path).unwrap().unwrap())
    }

    /// Writes through a memory map, once at the start and once for each line that it reads.
    const WRITER: &str = "import mmap, sys
file = open(sys.argv[1], 'r+b')
map = mmap.mmap(file.fileno(), 0)
for letter in b'ab':
    map[0] = letter
    print(flush=True)
    sys.stdin.readline()
";

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a program that writes while files are hashed")]
    fn a_write_through_a_memory_map_shows_also_where_the_file_was_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let cache = StatCache::at(root.path().join("memory"), root.path().to_owned());
        let make = |name: &str, bytes: u64| {
            let path = root.path().join(name);
            std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
            path
        };
        let state = |path: &Path| disk::stat(path).unwrap().unwrap();
        // So many that all were flushed at once before the large one is written to.
        for number in 0..=SINGLE_FLUSHES_MAX {
            let path = make(&number.to_string(), 1);
            cache.settle(&path, &state(&path));
        }
        let path = make("large", WAIT_FROM_BYTES);
        let piped = std::process::Stdio::piped;
        let mut writer = std::process::Command::new("python3");
        let mut writer = writer.args(["-c", WRITER]).arg(&path).stdin(piped()).stdout(piped()).spawn().unwrap();
        let (mut tell, mut told) = (writer.stdin.take().unwrap(), writer.stdout.take().unwrap());
        let mut written = || std::io::Read::read_exact(&mut told, &mut [0]).unwrap();
        written();
        let before = state(&path);
        assert!(cache.settle(&path, &before));
        std::io::Write::write_all(&mut tell, b"\n").unwrap();
        written();
        assert_ne!(state(&path), before);
        drop(tell);
        writer.wait().unwrap();
    }

    #[test]
    fn a_large_file_that_was_written_a_moment_ago_can_be_remembered() {
        assert!(may_be_remembered(WAIT_FROM_BYTES));
        assert!(!may_be_remembered(WAIT_FROM_BYTES - 1), "it is quickly hashed again");
    }
}
