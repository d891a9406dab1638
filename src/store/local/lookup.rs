//! Looking up: whether an object is here, how long it is, and where its records lie.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::{LocalStore, SMALL_MAX_BYTES};
use crate::disk::{self, Found};
use crate::hash::Digest;
use crate::object::Kind;
use crate::store::pack::Tag;
use crate::store::packs::Place;
use crate::store::recipe::Recipe;
use crate::store::{StoreError, has_prefix};

impl LocalStore {
    /// Returns whether the object is here in full length, and sees to it that the next sync makes it stay.
    pub(super) fn has(&self, kind: Kind, digest: Digest, size: u64) -> Result<bool, StoreError> {
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
                self.rely_on_packs();
                return Ok(true);
            }
        }
        if self.staging.loose(kind, digest).is_some() {
            return Ok(true);
        }
        let is_loose = self.has_loose()? && self.loose_length(kind, digest)? == Some(size);
        if is_loose {
            self.rely_on_loose(kind, digest);
        }
        Ok(is_loose)
    }

    /// Lets the next sync flush the names of packs.
    fn rely_on_packs(&self) {
        // Asked first: a store that is only looked into would make the threads wait for each other.
        if !self.relies_on_packs.load(Ordering::Relaxed) {
            self.relies_on_packs.store(true, Ordering::Relaxed);
        }
    }

    /// Lets the next sync flush the name of an object that is a file of its own.
    fn rely_on_loose(&self, kind: Kind, digest: Digest) {
        self.staging.touch(disk::parent(&self.layout.object(kind, digest)));
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
    pub(in crate::store) fn recipe(&self, digest: Digest) -> Result<Option<Recipe>, StoreError> {
        match self.place(digest, Tag::Recipe)? {
            Some(place) => self.recipe_at(&place),
            None => Ok(None),
        }
    }

    pub(super) fn recipe_at(&self, place: &Place) -> Result<Option<Recipe>, StoreError> {
        let bytes = place.stored().map_err(|error| self.unreadable(error))?;
        Ok(bytes.ok().and_then(|bytes| Recipe::decode(&bytes)))
    }

    /// Returns where a record lies, published or not.
    pub(in crate::store) fn place(&self, digest: Digest, tag: Tag) -> Result<Option<Place>, StoreError> {
        if let Some(place) = self.packs.find(digest, tag)? {
            return Ok(Some(place));
        }
        // In this order: what is sealed between the two looks is in a pack at the second.
        match self.staging.place(digest, tag)? {
            Some(place) => Ok(Some(place)),
            None => Ok(self.packs.find(digest, tag)?),
        }
    }

    pub(in crate::store) fn length_of_record(&self, digest: Digest, tag: Tag) -> Result<Option<u64>, StoreError> {
        if let Some(length) = self.packs.length(digest, tag)? {
            return Ok(Some(length));
        }
        // In this order: what is sealed between the two looks is in a pack at the last.
        match self.staging.entry(digest, tag) {
            Some(entry) => Ok(Some(entry.length)),
            None => Ok(self.packs.length(digest, tag)?),
        }
    }

    /// Returns whether the object is published, whole, in a pack or as a file of its own.
    pub(in crate::store) fn has_published(&self, kind: Kind, digest: Digest) -> Result<bool, StoreError> {
        let has_record = self.packs.find(digest, Tag::Object(kind))?.is_some()
            || (kind == Kind::Blob
                && self.packs.find(digest, Tag::Recipe)?.is_some()
                && self.has_all_pieces(digest)?);
        Ok(has_record || self.loose_length(kind, digest)?.is_some())
    }

    /// Returns the length of an object by what is known of the packs, and sees to it that the next sync makes it stay.
    pub(super) fn length_known(&self, kind: Kind, digest: Digest) -> Result<Option<u64>, StoreError> {
        let mut length = self.length_of_record(digest, Tag::Object(kind))?;
        if length.is_none() && kind == Kind::Blob {
            length = self.length_of_record(digest, Tag::Recipe)?;
        }
        if length.is_some() {
            self.rely_on_packs();
            return Ok(length);
        }
        if let Some(loose) = self.staging.loose(kind, digest) {
            return Ok(Some(loose.size));
        }
        let length = self.loose_length(kind, digest)?;
        if length.is_some() {
            self.rely_on_loose(kind, digest);
        }
        Ok(length)
    }

    pub(super) fn is_unusable(&self, kind: Kind, digest: Digest) -> bool {
        self.unusable.read().unwrap_or_else(PoisonError::into_inner).contains(&(kind, digest))
    }

    /// Returns the length of an object that is a published file of its own, and whole as far as its length tells.
    pub(super) fn loose_length(&self, kind: Kind, digest: Digest) -> Result<Option<u64>, StoreError> {
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

    /// Returns whether any object lies in a file of its own. Looks once.
    pub(super) fn has_loose(&self) -> Result<bool, StoreError> {
        if let Some(known) = self.has_loose.get() {
            return Ok(*known);
        }
        let has = disk::look(&self.layout.objects())?.is_some();
        Ok(*self.has_loose.get_or_init(|| has))
    }

    /// Returns the digests of this kind that start with `hex_prefix`, by what is known of the packs.
    pub(super) fn find_known(&self, kind: Kind, hex_prefix: &str) -> Result<Vec<Digest>, StoreError> {
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
}
