//! Taking in: small objects as one record, large blobs in pieces, or as files where the file system can share them.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::sync::atomic::Ordering;

use super::{LocalStore, SMALL_MAX_BYTES};
use crate::disk::{Change, DiskError};
use crate::hash::Digest;
use crate::object::Kind;
use crate::store::codec::{self, Codec};
use crate::store::flusher::Flusher;
use crate::store::pack::{RECORD_MAX_BYTES, Record, Tag};
use crate::store::recipe::Recipe;
use crate::store::source::{self, steady};
use crate::store::staging::Loose;
use crate::store::{Put, Source, StoreError, ingest};

/// Files from this size on are flushed while they are taken in.
const HUGE_MIN_BYTES: u64 = 64 << 20;

impl LocalStore {
    /// Takes in what `source` yields; the caller holds.
    pub(super) fn take_in(&self, kind: Kind, source: Source<'_>) -> Result<Put, StoreError> {
        match source {
            Source::File(path) => self.put_file(kind, path),
            Source::Bytes(mut bytes) if kind == Kind::Blob && bytes.len() as u64 >= SMALL_MAX_BYTES => {
                let failed = |error| self.unreadable(error);
                self.put_in_pieces(&mut bytes, &failed, &|_| ())
            }
            Source::Bytes(bytes) => self.put_small(kind, bytes),
        }
    }

    /// Takes in what `reader` yields, of which no more is held than some pieces; the caller holds.
    pub(super) fn take_in_stream(&self, reader: &mut (dyn Read + Send)) -> Result<Put, StoreError> {
        let mut begin = Vec::new();
        let failed = |source| StoreError::Stream { source };
        reader.take(SMALL_MAX_BYTES).read_to_end(&mut begin).map_err(failed)?;
        if (begin.len() as u64) < SMALL_MAX_BYTES {
            return self.put_small(Kind::Blob, &begin);
        }
        self.put_in_pieces(&mut begin.as_slice().chain(reader), &failed, &|_| ())
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

    /// Keeps a file by letting the file system share its bytes, which costs no space and no copy.
    ///
    /// Returns `None` where it cannot.
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
}

/// A source file, taken in.
enum Taken {
    /// All its bytes, not kept yet.
    Bytes(Vec<u8>),
    /// Kept; if it changed meanwhile, what was kept is of no use and does no harm.
    Kept(Put),
}
