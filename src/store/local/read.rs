//! Reading: a reader over the records, the pieces or the file of an object, whichever it is kept as.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use super::LocalStore;
use crate::disk::DiskError;
use crate::hash::Digest;
use crate::object::Kind;
use crate::store::StoreError;
use crate::store::pack::Tag;
use crate::store::packs::Place;
use crate::store::pieces::Pieces;
use crate::store::trash::Trash;
use crate::store::verified::Verified;

impl LocalStore {
    /// Opens an object by what is known of the packs.
    pub(super) fn open_known(&self, kind: Kind, digest: Digest) -> Result<Option<Box<dyn Read + Send>>, StoreError> {
        match self.open_records(kind, digest, &|digest, tag| self.place(digest, tag))? {
            Some(reader) => Ok(Some(reader)),
            None => self.open_loose(kind, digest),
        }
    }

    /// Opens an object that was taken away while somebody was about to read it. What is written never relies on that.
    pub(super) fn open_in_trash(&self, kind: Kind, digest: Digest) -> Result<Option<Box<dyn Read + Send>>, StoreError> {
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
