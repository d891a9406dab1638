//! A store in a directory: small objects in packs, large ones in pieces or as files of their own.
//!
//! What is put is staged in temporary files of this process and readable
//! through this value only; [`Store::sync`] commits all of it in the order
//! that `commit` plans. Dropping the store before that drops what is staged.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use super::codec::{self, Codec};
use super::commit::{self, Publication, Step};
use super::condemned::Condemned;
use super::flusher::Flusher;
use super::layout::Layout;
use super::pack::{Pack, RECORD_MAX_BYTES, Record, Tag};
use super::packs::{Packs, Place};
use super::pieces::Pieces;
use super::recipe::Recipe;
use super::session::Session;
use super::source::{self, steady};
use super::staging::{Loose, Staging, lock, publications};
use super::trash::Trash;
use super::verified::Verified;
use super::{Put, Source, Store, StoreError, export_by_reading, has_prefix, ingest, merge, pass_on};
use crate::disk::{self, Change, Disk, DiskError, Found, RealDisk};
use crate::hash::Digest;
use crate::object::{BlobId, Kind};

/// Blobs below this size are one record; larger ones are kept in pieces, or as files where the file system can share them.
const SMALL_MAX_BYTES: u64 = 64 * 1024;
/// Files from this size on are flushed while they are taken in.
const HUGE_MIN_BYTES: u64 = 64 << 20;
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
    /// Held during a commit, so that no sync returns while another is committing what it waits for.
    committing: Mutex<()>,
    flush_each_max: usize,
    /// Cleared when the file system turns out to share no bytes between files.
    may_share: AtomicBool,
    /// Whether any object lies in a file of its own; looked up when it is first asked.
    has_loose: OnceLock<bool>,
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
            committing: Mutex::default(),
            flush_each_max: FLUSH_EACH_MAX,
            may_share: AtomicBool::new(true),
            has_loose: OnceLock::new(),
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

    fn put_small(&self, kind: Kind, bytes: &[u8]) -> Result<Put, StoreError> {
        let digest = kind.digest(bytes);
        let size = bytes.len() as u64;
        let new = !self.has(kind, digest, size)? && self.append(Tag::Object(kind), digest, bytes, size)?;
        Ok(Put { digest, size, new })
    }

    /// Compresses and appends a record. Returns whether it was not there already.
    fn append(&self, tag: Tag, digest: Digest, bytes: &[u8], length: u64) -> Result<bool, StoreError> {
        let raw = u32::try_from(bytes.len()).ok().filter(|raw| *raw <= RECORD_MAX_BYTES).ok_or_else(|| {
            let source = io::Error::new(io::ErrorKind::FileTooLarge, "one object of more than 16 MiB");
            DiskError { action: "write into", path: self.layout.root().to_owned(), source }
        })?;
        let (codec, stored) =
            if tag == Tag::Recipe { (Codec::Raw, Cow::Borrowed(bytes)) } else { codec::encode(bytes) };
        let record = Record { tag, digest, codec: codec as u8, stored: &stored, raw, length };
        self.staging.append(&record, &self.packs, || self.session_directory())
    }

    /// Keeps a large blob that `reader` yields in pieces.
    fn put_in_pieces(
        &self,
        reader: &mut (dyn Read + Send),
        failed: &(dyn Fn(io::Error) -> StoreError + Sync),
        wrote: &(dyn Fn(u64) + Sync),
    ) -> Result<Put, StoreError> {
        let keep = |digest: Digest, bytes: &[u8]| -> Result<(), StoreError> {
            let length = bytes.len() as u64;
            if self.length_of_record(digest, Tag::Chunk)? != Some(length) {
                self.append(Tag::Chunk, digest, bytes, length)?;
                wrote(length);
            }
            Ok(())
        };
        let ingest::Ingested { digest, size, chunks } = ingest::ingest(reader, failed, &keep)?;
        let recipe = Recipe { length: size, chunks };
        let new = !self.has(Kind::Blob, digest, size)? && self.append(Tag::Recipe, digest, &recipe.encode(), size)?;
        Ok(Put { digest, size, new })
    }

    fn put_file(&self, kind: Kind, path: &Path) -> Result<Put, StoreError> {
        let taken = steady(path, |file, size| {
            let taken = if size < SMALL_MAX_BYTES || kind != Kind::Blob {
                Taken::Bytes(source::read(file, size, path)?)
            } else {
                Taken::Kept(self.put_large(file, size, path)?)
            };
            let read = match &taken {
                Taken::Bytes(bytes) => bytes.len() as u64,
                Taken::Kept(put) => put.size,
            };
            Ok((read == size).then_some(taken))
        })?;
        match taken {
            Taken::Bytes(bytes) => self.put_small(kind, &bytes),
            Taken::Kept(put) => Ok(put),
        }
    }

    fn put_large(&self, file: &File, size: u64, path: &Path) -> Result<Put, StoreError> {
        if let Some(put) = self.put_shared(file, path)? {
            return Ok(put);
        }
        if self.has_loose()? {
            // A store that once kept it as a file must not keep it twice.
            let (digest, size) = source::digest_of(Kind::Blob, file, path)?;
            if self.has(Kind::Blob, digest, size)? {
                return Ok(Put { digest, size, new: false });
            }
            (&*file).rewind().map_err(|error| source::unreadable(path, error))?;
        }
        let failed = |error| source::unreadable(path, error);
        if size < HUGE_MIN_BYTES {
            return self.put_in_pieces(&mut &*file, &failed, &|_| ());
        }
        let flush = || Ok(self.staging.flush_written()?);
        Flusher::beside(flush, |wrote| self.put_in_pieces(&mut &*file, &failed, wrote))
    }

    /// Keeps a file by letting the file system share its bytes, which costs no space and no copy. `None` where it cannot.
    fn put_shared(&self, source: &File, path: &Path) -> Result<Option<Put>, StoreError> {
        if !self.may_share.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let to = self.session_file()?;
        let file = self.disk.create(&to)?;
        let shared = self.disk.share(source, &file, &to);
        if !matches!(shared, Ok(true)) {
            self.disk.change(Change::Remove(&to))?;
            self.may_share.store(false, Ordering::Relaxed);
            return Ok(shared.map(|_| None)?);
        }
        // The name must be that of what is kept, not of what was read before.
        let (digest, size) = source::digest_of(Kind::Blob, &file, path)?;
        if self.has(Kind::Blob, digest, size)? {
            self.disk.change(Change::Remove(&to))?;
            return Ok(Some(Put { digest, size, new: false }));
        }
        if self.packs.condemned().loose.contains(&(Kind::Blob, digest)) {
            // The file of this name is about to be taken away, and another in its place would be taken for it.
            self.disk.change(Change::Remove(&to))?;
            return Ok(None);
        }
        self.disk.change(Change::Protect(&to))?;
        let new = self.staging.keep(Kind::Blob, digest, Loose { path: to, size });
        Ok(Some(Put { digest, size, new }))
    }

    /// Returns whether the object is here in full length, and sees to it that the next sync makes it stay.
    fn has(&self, kind: Kind, digest: Digest, size: u64) -> Result<bool, StoreError> {
        let mut tags = vec![Tag::Object(kind)];
        if kind == Kind::Blob && size >= SMALL_MAX_BYTES {
            tags.push(Tag::Recipe);
        }
        for tag in tags {
            if self.staging.entry(digest, tag).is_some_and(|entry| entry.length == size) {
                return Ok(true);
            }
            if self.packs.find(digest, tag)?.is_some_and(|place| place.entry.length == size)
                && (tag != Tag::Recipe || self.has_all_pieces(digest)?)
            {
                self.staging.touch(&self.layout.packs());
                return Ok(true);
            }
        }
        if self.staging.loose(kind, digest).is_some() {
            return Ok(true);
        }
        let is_loose = self.has_loose()? && self.loose_length(kind, digest)? == Some(size);
        if is_loose {
            self.staging.touch(disk::parent(&self.layout.object(kind, digest)));
        }
        Ok(is_loose)
    }

    fn has_all_pieces(&self, digest: Digest) -> Result<bool, StoreError> {
        let Some(recipe) = self.recipe(digest)? else { return Ok(false) };
        for (chunk, length) in recipe.chunks {
            if self.length_of_record(chunk, Tag::Chunk)? != Some(u64::from(length)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the recipe of a large blob; `None` if there is none, or only a damaged one.
    pub(super) fn recipe(&self, digest: Digest) -> Result<Option<Recipe>, StoreError> {
        match self.place(digest, Tag::Recipe)? {
            Some(place) => self.recipe_at(&place),
            None => Ok(None),
        }
    }

    fn recipe_at(&self, place: &Place) -> Result<Option<Recipe>, StoreError> {
        let bytes = place.stored().map_err(|error| self.unreadable(error))?;
        Ok(bytes.ok().and_then(|bytes| Recipe::decode(&bytes)))
    }

    pub(super) fn place(&self, digest: Digest, tag: Tag) -> Result<Option<Place>, StoreError> {
        if let Some(place) = self.packs.find(digest, tag)? {
            return Ok(Some(place));
        }
        // In this order: what is sealed between the two looks is in a pack at the second.
        match self.staging.place(digest, tag)? {
            Some(place) => Ok(Some(place)),
            None => Ok(self.packs.find(digest, tag)?),
        }
    }

    fn length_of_record(&self, digest: Digest, tag: Tag) -> Result<Option<u64>, StoreError> {
        if let Some(length) = self.packs.length(digest, tag)? {
            return Ok(Some(length));
        }
        // In this order: what is sealed between the two looks is in a pack at the last.
        match self.staging.entry(digest, tag) {
            Some(entry) => Ok(Some(entry.length)),
            None => Ok(self.packs.length(digest, tag)?),
        }
    }

    /// Opens an object by what is known of the packs.
    fn open_known(&self, kind: Kind, digest: Digest) -> Result<Option<Box<dyn Read + Send>>, StoreError> {
        match self.open_records(kind, digest, &|digest, tag| self.place(digest, tag))? {
            Some(reader) => Ok(Some(reader)),
            None => self.open_loose(kind, digest),
        }
    }

    /// Opens an object that was taken away while somebody was about to read it. What is written never relies on that.
    fn open_in_trash(&self, kind: Kind, digest: Digest) -> Result<Option<Box<dyn Read + Send>>, StoreError> {
        let trash = Trash::open(&self.layout)?;
        let place = |digest, tag| match self.place(digest, tag)? {
            Some(place) => Ok(Some(place)),
            None => Ok(trash.find(digest, tag)),
        };
        if let Some(reader) = self.open_records(kind, digest, &place)? {
            return Ok(Some(reader));
        }
        let Some(path) = trash.files(&self.layout, kind, digest).next() else { return Ok(None) };
        let file = File::open(&path).map_err(DiskError::on("read", &path))?;
        Ok(Some(Box::new(Verified::new(ObjectFile { file, path }, kind, digest))))
    }

    /// Opens an object that is one record or several; `place` tells where each is.
    fn open_records(
        &self,
        kind: Kind,
        digest: Digest,
        place: &dyn Fn(Digest, Tag) -> Result<Option<Place>, StoreError>,
    ) -> Result<Option<Box<dyn Read + Send>>, StoreError> {
        if let Some(place) = place(digest, Tag::Object(kind))? {
            let reader = place.reader(|error| self.unreadable(error))?;
            return Ok(Some(Box::new(Verified::new(reader, kind, digest))));
        }
        if kind == Kind::Blob
            && let Some(found) = place(digest, Tag::Recipe)?
            && let Some(recipe) = self.recipe_at(&found)?
        {
            let places = recipe.chunks.iter().map(|(chunk, _)| place(*chunk, Tag::Chunk).transpose());
            let places: Option<Vec<_>> = places.map(Option::transpose).collect::<Result<_, _>>()?;
            if let Some(places) = places {
                return Ok(Some(Box::new(Verified::new(Pieces::new(places), kind, digest))));
            }
        }
        Ok(None)
    }

    /// Returns whether the object is published, whole, in a pack or as a file of its own.
    pub(super) fn has_published(&self, kind: Kind, digest: Digest) -> Result<bool, StoreError> {
        let has_record = self.packs.find(digest, Tag::Object(kind))?.is_some()
            || (kind == Kind::Blob
                && self.packs.find(digest, Tag::Recipe)?.is_some()
                && self.has_all_pieces(digest)?);
        Ok(has_record || self.loose_length(kind, digest)?.is_some())
    }

    fn open_loose(&self, kind: Kind, digest: Digest) -> Result<Option<Box<dyn Read + Send>>, StoreError> {
        let staged = self.staging.loose(kind, digest).map(|loose| loose.path);
        // In this order: what is committed between the two looks is in its place at the second.
        let published = (!self.is_unusable(kind, digest)).then(|| self.layout.object(kind, digest));
        for path in staged.into_iter().chain(published) {
            match File::open(&path) {
                Ok(file) => {
                    return Ok(Some(Box::new(Verified::new(ObjectFile { file, path }, kind, digest))));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(DiskError::on("read", &path)(error).into()),
            }
        }
        Ok(None)
    }

    fn length_known(&self, kind: Kind, digest: Digest) -> Result<Option<u64>, StoreError> {
        if let Some(length) = self.length_of_record(digest, Tag::Object(kind))? {
            return Ok(Some(length));
        }
        if kind == Kind::Blob
            && let Some(length) = self.length_of_record(digest, Tag::Recipe)?
        {
            return Ok(Some(length));
        }
        match self.staging.loose(kind, digest) {
            Some(loose) => Ok(Some(loose.size)),
            None => self.loose_length(kind, digest),
        }
    }

    fn is_unusable(&self, kind: Kind, digest: Digest) -> bool {
        self.unusable.read().unwrap_or_else(PoisonError::into_inner).contains(&(kind, digest))
    }

    fn loose_length(&self, kind: Kind, digest: Digest) -> Result<Option<u64>, StoreError> {
        if self.is_unusable(kind, digest) || self.packs.condemned().loose.contains(&(kind, digest)) {
            return Ok(None);
        }
        Ok(match disk::look(&self.layout.object(kind, digest))? {
            // An empty file under another name is what a power cut can leave on some systems; it holds nothing.
            Some(Found::File { size: 0, .. }) if digest != kind.digest(b"") => None,
            Some(Found::File { size, .. }) => Some(size),
            _ => None,
        })
    }

    fn has_loose(&self) -> Result<bool, StoreError> {
        if let Some(known) = self.has_loose.get() {
            return Ok(*known);
        }
        let has = disk::look(&self.layout.objects())?.is_some();
        Ok(*self.has_loose.get_or_init(|| has))
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
        match source {
            Source::File(path) => self.put_file(kind, path),
            Source::Bytes(mut bytes) if kind == Kind::Blob && bytes.len() as u64 >= SMALL_MAX_BYTES => {
                let failed = |error| self.unreadable(error);
                self.put_in_pieces(&mut bytes, &failed, &|_| ())
            }
            Source::Bytes(bytes) => self.put_small(kind, bytes),
        }
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

    fn length(&self, kind: Kind, digest: Digest) -> Result<Option<u64>, StoreError> {
        if let Some(length) = self.length_known(kind, digest)? {
            return Ok(Some(length));
        }
        self.packs.refresh_if_changed()?;
        self.length_known(kind, digest)
    }

    fn find(&self, kind: Kind, hex_prefix: &str) -> Result<Vec<Digest>, StoreError> {
        self.packs.refresh()?;
        let is_wanted = |digest: &Digest| has_prefix(&digest.to_string(), hex_prefix);
        let mut found = self.layout.find(kind, hex_prefix)?;
        let tags: &[Tag] = if kind == Kind::Blob { &[Tag::Object(kind), Tag::Recipe] } else { &[Tag::Object(kind)] };
        for tag in tags {
            found.extend(self.staging.digests(*tag).into_iter().filter(is_wanted));
        }
        found.extend(self.staging.loose_digests(kind).into_iter().filter(is_wanted));
        let bytes = match hex_prefix.get(..2).map(|start| u8::from_str_radix(start, 16)) {
            Some(Ok(byte)) => byte..=byte,
            Some(Err(_)) => return Ok(Vec::new()),
            None => 0..=u8::MAX,
        };
        for pack in self.packs.all()? {
            let entries = bytes.clone().flat_map(|byte| pack.starting_with(byte));
            found.extend(entries.filter(|entry| tags.contains(&entry.tag)).map(|entry| entry.digest).filter(is_wanted));
        }
        Ok(found.into_iter().collect())
    }

    /// A small object is written at once; a file of its own shares its bytes where the file system can.
    fn export(&self, id: BlobId, to: &Path, executable: bool) -> Result<(), StoreError> {
        let digest = id.digest();
        if let Some(place) = self.place(digest, Tag::Object(Kind::Blob))? {
            let bytes = place.bytes().map_err(|error| self.unreadable(error))?;
            let actual = Kind::Blob.digest(&bytes);
            if actual != digest {
                return Err(StoreError::Corrupt { kind: Kind::Blob, expected: digest, actual });
            }
            return disk::write_out(to, executable, |file| {
                Ok(file.write_all(&bytes).map_err(DiskError::on("write", to))?)
            });
        }
        if self.has_loose()?
            && let Some((loose, _)) = self.loose_file(digest)?
            && self.export_shared(&loose, id, to, executable)?
        {
            return Ok(());
        }
        export_by_reading(self.open(Kind::Blob, digest)?, id, to, executable)
    }

    /// Only files of their own can be linked: a large blob in pieces is made one, and then takes its room twice.
    fn link(&self, id: BlobId, to: &Path) -> Result<bool, StoreError> {
        let digest = id.digest();
        if self.length(Kind::Blob, digest)?.is_some_and(|length| length < SMALL_MAX_BYTES) {
            return Ok(false);
        }
        let path = match self.loose_file(digest)? {
            Some((_, path)) => path,
            None => self.unpack(id)?,
        };
        let file = source::open(&path)?;
        let (actual, _) = source::digest_of(Kind::Blob, &file, &path)?;
        if actual != digest {
            return Err(StoreError::Corrupt { kind: Kind::Blob, expected: digest, actual });
        }
        Ok(disk::link_out(&path, to)?)
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

    /// Lets the file system share the bytes of an object that is a file of its own; verified. Returns whether it could.
    fn export_shared(&self, loose: &File, id: BlobId, to: &Path, executable: bool) -> Result<bool, StoreError> {
        if !self.may_share.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let exported = disk::write_out(to, executable, |file| {
            if !self.disk.share(loose, file, to)? {
                return Err(NotExported::CannotShare);
            }
            let (actual, _) = source::digest_of(Kind::Blob, file, to)?;
            if actual == id.digest() {
                return Ok(());
            }
            Err(StoreError::Corrupt { kind: Kind::Blob, expected: id.digest(), actual }.into())
        });
        match exported {
            Ok(()) => Ok(true),
            Err(NotExported::CannotShare) => Ok(false),
            Err(NotExported::Failed(error)) => Err(error),
        }
    }

    fn loose_file(&self, digest: Digest) -> Result<Option<(File, PathBuf)>, StoreError> {
        let path = self.layout.object(Kind::Blob, digest);
        match File::open(&path) {
            Ok(file) => Ok(Some((file, path))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DiskError::on("read", &path)(error).into()),
        }
    }

    /// Makes a large blob a file of its own, and publishes it; returns where it lies.
    fn unpack(&self, id: BlobId) -> Result<PathBuf, StoreError> {
        let mut reader = self.open(Kind::Blob, id.digest())?;
        let path = self.session_file()?;
        let file = self.disk.create(&path)?;
        let mut size = 0;
        let unread = |error| StoreError::from_read(error, Kind::Blob, id.digest());
        pass_on(&mut reader, unread, |piece| {
            self.disk.write(&file, &path, size, piece)?;
            size += piece.len() as u64;
            Ok(())
        })?;
        self.disk.change(Change::Protect(&path))?;
        self.staging.keep(Kind::Blob, id.digest(), Loose { path, size });
        self.sync()?;
        Ok(self.layout.object(Kind::Blob, id.digest()))
    }
}

/// Why a file did not come out by sharing.
enum NotExported {
    CannotShare,
    Failed(StoreError),
}

impl<E: Into<StoreError>> From<E> for NotExported {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
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

/// A source file, taken in.
enum Taken {
    /// All its bytes, not kept yet.
    Bytes(Vec<u8>),
    /// Kept; if it changed meanwhile, what was kept is of no use and does no harm.
    Kept(Put),
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
