//! A store in a directory: small objects in packs, large ones in pieces or as files of their own.
//!
//! What is put is staged in temporary files of this process and readable
//! through this value only; [`Store::sync`] commits all of it in the order
//! that `commit` plans. Dropping the store before that drops what is staged.

mod give;
mod lookup;
mod put;
mod read;

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use super::commit::{self, Publication, Step};
use super::condemned::Condemned;
use super::layout::Layout;
use super::pack::Pack;
#[cfg(test)]
use super::pack::Tag;
use super::packs::Packs;
use super::session::Session;
use super::staging::{Staging, lock, publications};
use super::{Put, Source, Store, StoreError, merge};
use crate::disk::{self, Disk, DiskError, RealDisk};
use crate::hash::Digest;
use crate::object::{BlobId, Kind};

/// Blobs below this size are one record; larger ones are kept in pieces, or as files where the file system can share them.
pub(super) const SMALL_MAX_BYTES: u64 = 64 * 1024;
/// Up to this many things are flushed one by one.
const FLUSH_EACH_MAX: usize = 64;

/// A store in a directory of the local file system.
///
/// Any number of processes and threads may use one directory at once.
pub struct LocalStore {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) layout: Layout,
    pub(super) packs: Packs,
    /// Who is put on the list of users with the first write.
    pub(super) user: Option<PathBuf>,
    session: Mutex<Option<Session>>,
    pub(super) staging: Staging,
    /// Whether anything was found in a pack whose name its writer may not have flushed: the next sync does.
    relies_on_packs: AtomicBool,
    /// Held during a commit, so that no sync returns while another is committing what it waits for.
    committing: Mutex<()>,
    flush_each_max: usize,
    /// Cleared when the file system turns out to share no bytes between files.
    may_share: AtomicBool,
    /// Whether any object lies in a file of its own; looked up when it is first asked.
    has_loose: OnceLock<bool>,
    /// How many bytes became files of their own to be linked. Held while one is made, so that none is made twice.
    unpacked_bytes: Mutex<u64>,
    /// Objects in files of their own that were found damaged, and count as absent.
    pub(super) unusable: RwLock<BTreeSet<(Kind, Digest)>>,
}

impl LocalStore {
    /// Opens the store in `directory`. Writes nothing: the directory may be read-only, or not exist yet.
    ///
    /// # Errors
    ///
    /// [`StoreError::Version`] if the directory holds a store of another format,
    /// [`StoreError::Disk`] if it cannot be read.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        Self::open_on(Arc::new(RealDisk), directory)
    }

    /// Opens the store in `directory`, and writes to it through `disk`.
    ///
    /// # Errors
    ///
    /// As [`LocalStore::open`].
    pub fn open_on(disk: Arc<dyn Disk>, directory: &Path) -> Result<Self, StoreError> {
        let layout = Layout::new(directory);
        layout.check()?;
        Ok(Self {
            packs: Packs::of(layout.packs()),
            staging: Staging::new(Arc::clone(&disk)),
            disk,
            layout,
            user: None,
            session: Mutex::default(),
            relies_on_packs: AtomicBool::new(false),
            committing: Mutex::default(),
            flush_each_max: FLUSH_EACH_MAX,
            may_share: AtomicBool::new(true),
            has_loose: OnceLock::new(),
            unpacked_bytes: Mutex::default(),
            unusable: RwLock::default(),
        })
    }

    /// Opens the store in `directory`, which must be there, and writes to it through `disk`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Absent`] if there is none, and as [`LocalStore::open`].
    pub fn open_existing_on(disk: Arc<dyn Disk>, directory: &Path) -> Result<Self, StoreError> {
        let store = Self::open_on(disk, directory)?;
        if !store.layout.is_there()? {
            return Err(StoreError::Absent { path: directory.to_owned() });
        }
        Ok(store)
    }

    /// Lets nothing that is found from now on be taken away as long as this value lives.
    ///
    /// Whoever is going to record that something is in the store calls this first, then looks. What is about to be
    /// taken away already counts as absent from then on. [`Store::put`] does it too. Makes the store if there is none.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be written to.
    pub fn hold(&self) -> Result<(), StoreError> {
        self.session_directory().map(drop)
    }

    /// Returns by how many bytes [`Store::link`] of this value has made the store grow.
    ///
    /// Only a file of its own can be linked, so a blob in pieces becomes one beside its pieces.
    pub fn unpacked_bytes(&self) -> u64 {
        *lock(&self.unpacked_bytes)
    }

    /// Returns where the object of this kind and name would lie as a file of its own.
    #[cfg(test)]
    pub(super) fn path_of(&self, kind: Kind, digest: Digest) -> PathBuf {
        self.layout.object(kind, digest)
    }

    /// Changes the stored bytes of an object that is one record of a pack.
    #[cfg(test)]
    pub(super) fn damage(&self, kind: Kind, digest: Digest, change: fn(&mut Vec<u8>)) {
        use std::os::unix::fs::FileExt;
        for pack in self.packs.all().unwrap() {
            let Some(entry) = pack.find(digest, Tag::Object(kind)) else { continue };
            let path = self.layout.packs().join(super::pack::file_name(pack.name()));
            let mut stored = super::pack::read_stored(pack.file(), &entry).unwrap().unwrap_or_else(|damaged| damaged);
            change(&mut stored);
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(&stored, entry.offset + super::pack::HEADER_BYTES as u64).unwrap();
            return;
        }
        panic!("{kind} {digest} is in no pack");
    }

    /// Lets a batch of more than `flush_each_max` files be flushed at once.
    #[cfg(test)]
    pub(super) fn flushing_each(mut self, flush_each_max: usize) -> Self {
        self.flush_each_max = flush_each_max;
        self
    }

    /// Returns the directory for temporary files of this process; makes the store and a session where there is none.
    pub(super) fn session_directory(&self) -> Result<PathBuf, StoreError> {
        let mut session = lock(&self.session);
        if session.is_none() {
            self.layout.establish(&*self.disk)?;
            // Before the session: a collection that does not see the user waits for the session, and looks again.
            self.register()?;
            let started = Session::start(&*self.disk, &self.layout.sessions())?;
            // Who moved the store meanwhile kept all sessions from starting.
            self.layout.check()?;
            *session = Some(started);
            // In this order: what was condemned and is gone from the list is gone from the packs, too. What was found
            // before this session may have been taken away since, so it is looked up again.
            let condemned = Condemned::read(&self.layout)?.unwrap_or_default();
            self.packs.start_over(condemned)?;
        }
        Ok(session.as_ref().expect("it was just started").directory().to_owned())
    }

    fn session_file(&self) -> Result<PathBuf, StoreError> {
        let directory = self.session_directory()?;
        let session = lock(&self.session);
        Ok(directory.join(session.as_ref().map_or_else(String::new, Session::next_name)))
    }

    /// Returns the error of a pack that cannot be read.
    pub(super) fn unreadable(&self, error: io::Error) -> StoreError {
        DiskError::on("read", &self.layout.packs())(error).into()
    }

    /// Does the steps in order, and forgets what is staged as it is published.
    fn commit(&self, files: &[Publication], touched: &BTreeSet<PathBuf>) -> Result<(), StoreError> {
        for step in commit::plan(self.layout.root(), files, touched, self.flush_each_max) {
            if let Err(error) = step.perform(&*self.disk, self.layout.root()) {
                if step.is_flush() {
                    self.staging.break_down(&error);
                }
                return Err(error.into());
            }
            if let Step::Publish(Publication { from, .. }) = step {
                self.staging.published(from);
            }
        }
        Ok(())
    }
}

impl Store for LocalStore {
    fn put(&self, kind: Kind, source: Source<'_>) -> Result<Put, StoreError> {
        match self.hold() {
            // Where nobody can write, a known object is put all the same; whoever records that holds first.
            Err(StoreError::Disk(error)) if error.is_refused() => {}
            held => held?,
        }
        self.take_in(kind, source)
    }

    fn put_stream(&self, reader: &mut (dyn Read + Send)) -> Result<Put, StoreError> {
        self.hold()?;
        self.take_in_stream(reader)
    }

    fn open(&self, kind: Kind, digest: Digest) -> Result<Box<dyn Read + Send>, StoreError> {
        if let Some(reader) = self.open_known(kind, digest)? {
            return Ok(reader);
        }
        // Another process may have published it since the packs were listed.
        self.packs.refresh()?;
        let found = match self.open_known(kind, digest)? {
            None if lock(&self.session).is_none() => self.open_in_trash(kind, digest)?,
            again => again,
        };
        found.ok_or(StoreError::Missing { kind, digest })
    }

    /// What is found is made to stay by the next sync: who asks may be about to record it, and asks for nothing more.
    fn length(&self, kind: Kind, digest: Digest) -> Result<Option<u64>, StoreError> {
        if let Some(length) = self.length_known(kind, digest)? {
            return Ok(Some(length));
        }
        self.packs.refresh_if_changed()?;
        self.length_known(kind, digest)
    }

    fn find(&self, kind: Kind, hex_prefix: &str) -> Result<Vec<Digest>, StoreError> {
        self.packs.refresh()?;
        self.find_known(kind, hex_prefix)
    }

    fn export(&self, id: BlobId, to: &Path, executable: bool) -> Result<(), StoreError> {
        self.give_copy(id, to, executable)
    }

    fn link(&self, id: BlobId, to: &Path) -> Result<bool, StoreError> {
        self.give_link(id, to)
    }

    /// Flushes the bytes, then moves them to their names, then flushes the names.
    ///
    /// After a write or a flush has failed, every later sync of this value fails too:
    /// open the store anew and put everything again.
    fn sync(&self) -> Result<(), StoreError> {
        if !self.publish()?.is_empty() {
            // Everything is acknowledged already; a merge that fails is done by the next one who can.
            let _ = merge::merge_small(self);
        }
        Ok(())
    }
}

impl LocalStore {
    /// Makes everything that was put before durable and visible; returns the packs that were published.
    pub(super) fn publish(&self) -> Result<Vec<Arc<Pack>>, StoreError> {
        let _committing = lock(&self.committing);
        if self.relies_on_packs.swap(false, Ordering::Relaxed) {
            self.staging.touch(&self.layout.packs());
        }
        self.staging.seal(&self.packs, false)?;
        let work = self.staging.work()?;
        let files = publications(&self.layout, &work);
        self.commit(&files, &work.touched).inspect_err(|_| {
            // What was published already is not flushed yet; the next sync must do it.
            files.iter().for_each(|file| self.staging.touch(disk::parent(&file.to)));
            work.touched.iter().for_each(|directory| self.staging.touch(directory));
        })?;
        Ok(work.packs)
    }
}

impl Drop for LocalStore {
    fn drop(&mut self) {
        if let Some(session) = lock(&self.session).take() {
            // What cannot be removed now is removed when the next session starts.
            let _ = session.end();
        }
    }
}
