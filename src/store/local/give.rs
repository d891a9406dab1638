//! Giving out: as a copy, as a file that shares its bytes, or as a link.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::{LocalStore, SMALL_MAX_BYTES};
use crate::disk::{self, Change, DiskError};
use crate::hash::Digest;
use crate::object::{BlobId, Kind};
use crate::store::pack::Tag;
use crate::store::staging::{Loose, lock};
use crate::store::{Store, StoreError, export_by_reading, pass_on, source};

impl LocalStore {
    /// Does what [`Store::export`] says.
    ///
    /// A small object is written at once; a file of its own shares its bytes where the file system can.
    pub(super) fn give_copy(&self, id: BlobId, to: &Path, executable: bool) -> Result<(), StoreError> {
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

    /// Does what [`Store::link`] says.
    ///
    /// Only files of their own can be linked: a large blob in pieces is made one, and then takes its room twice.
    /// [`LocalStore::unpacked_bytes`] counts that.
    pub(super) fn give_link(&self, id: BlobId, to: &Path) -> Result<bool, StoreError> {
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
        let mut unpacked_bytes = lock(&self.unpacked_bytes);
        // Another thread may have made it one while this one waited.
        if let Some((_, path)) = self.loose_file(id.digest())? {
            return Ok(path);
        }
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
        *unpacked_bytes += size;
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
