//! Objects that are files of their own.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use rayon::prelude::*;

use super::{Checked, Damaged, Flaw, Progress, Unit};
use crate::disk::{self, DiskError};
use crate::hash::Digest;
use crate::object::Kind;
use crate::store::pack::Tag;
use crate::store::{LocalStore, StoreError, source};

impl LocalStore {
    /// Returns the directories of objects that are files.
    pub(super) fn loose_units(&self) -> Result<Vec<Unit>, StoreError> {
        let mut units = Vec::new();
        for kind in Kind::ALL {
            let shards = self.layout.shards(kind)?;
            units.extend(shards.into_iter().map(|path| Unit::Loose(kind, path)));
        }
        Ok(units)
    }

    /// Hashes every object of this kind in one directory. A file whose name is no digest is no object.
    pub(super) fn check_loose(
        &self,
        kind: Kind,
        directory: &Path,
        progress: Progress<'_>,
        checked: &mut Checked,
    ) -> Result<(), StoreError> {
        let shard = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let objects: Vec<_> = self.layout.find(kind, shard)?.into_iter().collect();
        let check = |digest: &Digest| {
            let path = self.layout.object(kind, *digest);
            let found = hash_of(kind, &path)?;
            progress(1, found.map_or(0, |(_, size)| size));
            Ok((*digest, path, found))
        };
        let all: Vec<(Digest, PathBuf, Option<(Digest, u64)>)> =
            objects.par_iter().map(check).collect::<Result<_, DiskError>>()?;
        for (digest, path, found) in all {
            checked.objects += 1;
            checked.bytes += found.map_or(0, |(_, size)| size);
            if found.is_some_and(|(actual, _)| actual == digest) || disk::look(&path)?.is_none() {
                continue;
            }
            self.unusable.write().unwrap_or_else(PoisonError::into_inner).insert((kind, digest));
            let path = self.relative(&path);
            checked.damaged.push(Damaged { path, flaw: Flaw::Content, saved: 0, bad: 1, quarantined: None });
            checked.note_bad(Tag::Object(kind), digest, found.map_or(0, |(_, size)| size));
        }
        Ok(())
    }
}

/// Returns what the bytes of the file hash to, and their number; `None` if it is no file, or has bytes that cannot be read.
fn hash_of(kind: Kind, path: &Path) -> Result<Option<(Digest, u64)>, DiskError> {
    let Some(disk::Found::File { .. }) = disk::look(path)? else { return Ok(None) };
    match File::open(path) {
        // What another user protects is not damaged.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(DiskError::on("read", path)(error)),
        Err(_) => Ok(None),
        Ok(file) => Ok(source::digest_of(kind, &file, path).ok()),
    }
}
