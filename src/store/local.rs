//! A store in a directory: one file an object.
//!
//! What is put is staged in temporary files of this process and readable
//! through this value only; [`Store::sync`] commits all of it in the order
//! that `commit` plans. Dropping the store before that drops what is staged.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::NamedTempFile;

use super::commit::{self, Batch, Staged, Step};
use super::layout::{Layout, Shard};
use super::session::Session;
use super::source::{self, steady};
use super::verified::Verified;
use super::{Put, Source, Store, StoreError, has_prefix, pass_on};
use crate::disk::{self, DiskError, Found};
use crate::hash::Digest;
use crate::object::Kind;

/// Files up to this size are read once, into memory; larger ones are hashed, and copied only if they are new.
const IN_MEMORY_MAX_BYTES: u64 = 256 * 1024;
/// Up to this many things are flushed one by one.
const FLUSH_EACH_MAX: usize = 64;
/// Objects never change, so nobody may write to them.
const OBJECT_MODE: u32 = 0o444;

/// A store in a directory of the local file system.
///
/// Any number of processes and threads may use one directory at once.
pub struct LocalStore {
    layout: Layout,
    session: Mutex<Option<Session>>,
    pending: Mutex<Pending>,
    /// Held during a commit, so that no sync returns while another is committing what it waits for.
    committing: Mutex<()>,
    flush_each_max: usize,
    watch: Option<Watch>,
}

/// What the next sync has to do.
#[derive(Default)]
struct Pending {
    staged: Batch,
    /// Where puts found the object there: another process may not have flushed its name yet.
    touched: BTreeSet<Shard>,
    /// Set when a flush failed. The system may forget such a failure, so no later flush proves anything.
    broken: bool,
}

/// Called before each effect; an error is returned in its place. Tests stop a store with it between any two effects.
pub(super) type Watch = Box<dyn Fn(&Moment<'_>) -> io::Result<()> + Send + Sync>;

/// What a store is about to do.
#[cfg_attr(not(test), expect(dead_code, reason = "only the tests watch"))]
pub(super) enum Moment<'a> {
    /// Start the session, and make the directory a store if it is none.
    StartSession,
    /// Look whether a source file changed while it was read.
    Recheck,
    /// Write a temporary file.
    Write,
    /// Do a step of a commit.
    Commit(&'a Step<'a>),
    /// Remove what is left of the session.
    EndSession,
}

impl LocalStore {
    /// Opens the store in `directory`. Writes nothing: the directory may be read-only, or not exist yet.
    ///
    /// # Errors
    ///
    /// [`StoreError::Version`] if the directory holds a store of another format,
    /// [`StoreError::Disk`] if it cannot be read.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let layout = Layout::new(directory);
        layout.check()?;
        Ok(Self {
            layout,
            session: Mutex::default(),
            pending: Mutex::default(),
            committing: Mutex::default(),
            flush_each_max: FLUSH_EACH_MAX,
            watch: None,
        })
    }

    /// Opens the store in `directory` with every effect told to `watch`, and a batch of more than `flush_each_max` flushed at once.
    #[cfg(test)]
    pub(super) fn open_watched(directory: &Path, flush_each_max: usize, watch: Watch) -> Result<Self, StoreError> {
        let mut store = Self::open(directory)?;
        store.flush_each_max = flush_each_max;
        store.watch = Some(watch);
        Ok(store)
    }

    /// Returns where the object of this kind and name lies once it is committed.
    #[cfg(test)]
    pub(super) fn path_of(&self, kind: Kind, digest: Digest) -> PathBuf {
        self.layout.object(kind, digest)
    }

    /// Returns what is known of the file at `path` as an object, having copied it if that takes a copy.
    fn take_in(&self, kind: Kind, path: &Path) -> Result<Intake<'static>, StoreError> {
        steady(path, |size_bytes| {
            let intake = if size_bytes <= IN_MEMORY_MAX_BYTES {
                Some(Intake::Bytes(Cow::Owned(source::read(path)?)))
            } else {
                let (digest, size) = source::digest_of_file(kind, path)?;
                if self.has(kind, digest, size)? {
                    Some(Intake::Known(digest, size))
                } else {
                    // The name must be that of what was stored, not of what was read before.
                    let (file, stored) = self.copy(kind, path)?;
                    (stored == (digest, size)).then_some(Intake::Copied(file, digest, size))
                }
            };
            self.about_to(&Moment::Recheck)?;
            Ok(intake)
        })
    }

    /// Copies the file at `path` to a temporary one; returns it, and the digest and length of what was written to it.
    fn copy(&self, kind: Kind, path: &Path) -> Result<(NamedTempFile, (Digest, u64)), StoreError> {
        let mut file = self.temporary()?;
        let to = file.path().to_owned();
        let mut hasher = kind.hasher();
        pass_on(
            source::open(path)?,
            |error| source::unreadable(path, error),
            |piece| {
                hasher.update(piece);
                Ok(file.write_all(piece).map_err(DiskError::on("write", &to))?)
            },
        )?;
        Ok((file, hasher.finish()))
    }

    fn temporary(&self) -> Result<NamedTempFile, StoreError> {
        let mut session = lock(&self.session);
        let started = if let Some(started) = session.take() { started } else { self.start_session()? };
        let directory = session.insert(started).directory().to_owned();
        drop(session);
        self.about_to(&Moment::Write)?;
        Ok(disk::temporary_in(&directory)?)
    }

    fn start_session(&self) -> Result<Session, StoreError> {
        self.about_to(&Moment::StartSession)?;
        self.layout.establish()?;
        Ok(Session::start(&self.layout.sessions())?)
    }

    /// Keeps a finished temporary file until the next sync.
    fn stage(&self, kind: Kind, digest: Digest, size: u64, file: NamedTempFile) -> Result<Put, StoreError> {
        let mode = fs::Permissions::from_mode(OBJECT_MODE);
        file.as_file().set_permissions(mode).map_err(DiskError::on("set the mode of", file.path()))?;
        let mut pending = lock(&self.pending);
        // Another thread may have been faster; the file then goes as it came.
        let new = !pending.staged.contains_key(&(kind, digest));
        if new {
            let path = file.path().to_owned();
            file.keep().map_err(|error| DiskError::on("keep", &path)(error.error))?;
            pending.staged.insert((kind, digest), Staged { path, size });
        }
        Ok(Put { digest, size, new })
    }

    /// Returns whether the object is here in full length, and sees to it that the next sync makes it stay.
    fn has(&self, kind: Kind, digest: Digest, size: u64) -> Result<bool, StoreError> {
        if lock(&self.pending).staged.contains_key(&(kind, digest)) {
            return Ok(true);
        }
        let has = self.committed_length(kind, digest)? == Some(size);
        if has {
            lock(&self.pending).touched.insert(Shard::of(kind, digest));
        }
        Ok(has)
    }

    fn committed_length(&self, kind: Kind, digest: Digest) -> Result<Option<u64>, StoreError> {
        Ok(match disk::look(&self.layout.object(kind, digest))? {
            // An empty file under another name is what a power cut can leave on some systems; it holds nothing.
            Some(Found::File { size: 0, .. }) if digest != kind.digest(b"") => None,
            Some(Found::File { size, .. }) => Some(size),
            _ => None,
        })
    }

    /// Does the steps in order, and forgets what is staged as it is published.
    fn commit(&self, batch: &Batch, touched: &BTreeSet<Shard>) -> Result<(), DiskError> {
        for step in commit::plan(&self.layout, batch, touched, self.flush_each_max) {
            let done = self.about_to(&Moment::Commit(&step)).and_then(|()| step.perform(&self.layout));
            if let Err(error) = done {
                lock(&self.pending).broken |= step.is_flush();
                return Err(error);
            }
            if let Step::Publish { kind, digest, .. } = step {
                lock(&self.pending).staged.remove(&(kind, digest));
            }
        }
        Ok(())
    }

    fn about_to(&self, moment: &Moment<'_>) -> Result<(), DiskError> {
        match &self.watch {
            Some(watch) => watch(moment).map_err(DiskError::on("write", self.layout.root())),
            None => Ok(()),
        }
    }
}

impl Store for LocalStore {
    fn put(&self, kind: Kind, source: Source<'_>) -> Result<Put, StoreError> {
        let intake = match source {
            Source::Bytes(bytes) => Intake::Bytes(Cow::Borrowed(bytes)),
            Source::File(path) => self.take_in(kind, path)?,
        };
        match intake {
            Intake::Known(digest, size) => Ok(Put { digest, size, new: false }),
            Intake::Copied(file, digest, size) => self.stage(kind, digest, size, file),
            Intake::Bytes(bytes) => {
                let (digest, size) = (kind.digest(&bytes), bytes.len() as u64);
                if self.has(kind, digest, size)? {
                    return Ok(Put { digest, size, new: false });
                }
                let mut file = self.temporary()?;
                file.write_all(&bytes).map_err(DiskError::on("write", file.path()))?;
                self.stage(kind, digest, size, file)
            }
        }
    }

    fn open(&self, kind: Kind, digest: Digest) -> Result<Box<dyn Read + Send>, StoreError> {
        let staged = lock(&self.pending).staged.get(&(kind, digest)).map(|staged| staged.path.clone());
        // In this order: what is committed between the two looks is in its place at the second.
        for path in staged.into_iter().chain([self.layout.object(kind, digest)]) {
            match File::open(&path) {
                Ok(file) => return Ok(Box::new(Verified::new(ObjectFile { file, path }, kind, digest))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(DiskError::on("read", &path)(error).into()),
            }
        }
        Err(StoreError::Missing { kind, digest })
    }

    fn length(&self, kind: Kind, digest: Digest) -> Result<Option<u64>, StoreError> {
        let staged = lock(&self.pending).staged.get(&(kind, digest)).map(|staged| staged.size);
        if staged.is_some() { Ok(staged) } else { self.committed_length(kind, digest) }
    }

    fn find(&self, kind: Kind, hex_prefix: &str) -> Result<Vec<Digest>, StoreError> {
        let is_wanted = |digest: &Digest| has_prefix(&digest.to_string(), hex_prefix);
        let staged: Vec<_> =
            lock(&self.pending).staged.keys().filter(|(of, _)| *of == kind).map(|(_, digest)| *digest).collect();
        let mut found = self.layout.find(kind, hex_prefix)?;
        found.extend(staged.into_iter().filter(is_wanted));
        Ok(found.into_iter().collect())
    }

    /// Flushes the bytes, then moves them to their names, then flushes the names.
    ///
    /// After a flush has failed, every later sync of this value fails too:
    /// open the store anew and put everything again.
    fn sync(&self) -> Result<(), StoreError> {
        let _committing = lock(&self.committing);
        let (batch, touched) = {
            let mut pending = lock(&self.pending);
            if pending.broken {
                let source = io::Error::other("an earlier flush failed");
                return Err(DiskError::on("flush", self.layout.root())(source).into());
            }
            (pending.staged.clone(), std::mem::take(&mut pending.touched))
        };
        self.commit(&batch, &touched).inspect_err(|_| {
            // What was published already is not flushed yet; the next sync must do it.
            let shards = batch.keys().map(|(kind, digest)| Shard::of(*kind, *digest));
            lock(&self.pending).touched.extend(shards.chain(touched));
        })?;
        Ok(())
    }
}

impl Drop for LocalStore {
    fn drop(&mut self) {
        if let Some(session) = lock(&self.session).take()
            && self.about_to(&Moment::EndSession).is_ok()
        {
            // What cannot be removed now is removed when the next session starts.
            let _ = session.end();
        }
    }
}

/// The bytes of an object on their way in.
enum Intake<'a> {
    /// All of them.
    Bytes(Cow<'a, [u8]>),
    /// The store has them.
    Known(Digest, u64),
    /// A copy of them.
    Copied(NamedTempFile, Digest, u64),
}

/// The file of an object, whose errors name it.
struct ObjectFile {
    file: File,
    path: PathBuf,
}

impl Read for ObjectFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer).map_err(|error| {
            let kind = error.kind();
            io::Error::new(kind, StoreError::from(DiskError::on("read", &self.path)(error)))
        })
    }
}

/// Takes a lock whose holder cannot have left anything half done, even in a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
