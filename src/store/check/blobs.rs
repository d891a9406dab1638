//! Blobs in pieces: whether the pieces are there and make the blob, and which blobs need a damaged one.

use std::collections::BTreeSet;
use std::io;

use rayon::prelude::*;

use super::{Checked, Progress};
use crate::hash::{Digest, Hasher};
use crate::object::Kind;
use crate::store::pack::{Entry, Tag};
use crate::store::pieces::Pieces;
use crate::store::recipe::Recipe;
use crate::store::{LocalStore, Store, StoreError, pass_on};

impl LocalStore {
    /// Notes every blob of these recipes that its pieces do not make.
    pub(super) fn check_blobs(
        &self,
        recipes: &[Entry],
        progress: Progress<'_>,
        checked: &mut Checked,
    ) -> Result<(), StoreError> {
        let check = |entry: &Entry| {
            let is_whole = self.recipe(entry.digest)?.is_some_and(|recipe| self.makes(&recipe, entry.digest));
            progress(0, entry.length);
            Ok((*entry, is_whole))
        };
        let all: Vec<_> = recipes.par_iter().map(check).collect::<Result<_, StoreError>>()?;
        for (entry, _) in all.into_iter().filter(|(_, is_whole)| !is_whole) {
            checked.note_bad(Tag::Recipe, entry.digest, entry.length);
        }
        Ok(())
    }

    /// Returns whether the pieces of `recipe` are there and make the blob of this name.
    pub(in crate::store) fn makes(&self, recipe: &Recipe, digest: Digest) -> bool {
        let places = recipe.chunks.iter().map(|(chunk, _)| self.place(*chunk, Tag::Chunk).ok().flatten());
        let Some(places) = places.collect::<Option<Vec<_>>>() else { return false };
        let mut hasher = Hasher::default();
        let hashed = pass_on(
            Pieces::new(places),
            |error| self.unreadable(error),
            |piece| {
                hasher.update(piece);
                Ok(())
            },
        );
        hashed.is_ok() && hasher.finish() == (digest, recipe.length)
    }

    /// Keeps of what is noted as lost only that of which no whole copy is left, and adds the blobs that need lost pieces.
    pub(super) fn find_lost(&self, checked: &mut Checked) -> Result<(), StoreError> {
        let gone: BTreeSet<_> =
            checked.bad_pieces.iter().filter(|piece| !self.has_whole_piece(**piece)).copied().collect();
        if !gone.is_empty() {
            for (digest, length) in self.blobs_with(&gone)? {
                checked.lost.insert((Kind::Blob, digest), length);
            }
        }
        self.find_whole(checked);
        Ok(())
    }

    /// Notes no longer as lost what can be read again, because it was put since. Costs a read of what is noted.
    pub fn find_whole(&self, checked: &mut Checked) {
        let candidates = std::mem::take(&mut checked.lost);
        let lost = candidates.into_par_iter().filter(|((kind, digest), _)| !self.reads_well(*kind, *digest));
        checked.lost = lost.collect();
    }

    /// Returns whether the object is here and its bytes match its name. Costs a read of it.
    fn reads_well(&self, kind: Kind, digest: Digest) -> bool {
        let Ok(mut reader) = self.open(kind, digest) else { return false };
        io::copy(&mut reader, &mut io::sink()).is_ok()
    }

    fn has_whole_piece(&self, digest: Digest) -> bool {
        let place = self.place(digest, Tag::Chunk).ok().flatten();
        place.and_then(|place| place.bytes().ok()).is_some_and(|bytes| Digest::of(&bytes) == digest)
    }

    /// Returns the blobs that have one of these pieces, with their lengths.
    fn blobs_with(&self, pieces: &BTreeSet<Digest>) -> Result<Vec<(Digest, u64)>, StoreError> {
        let mut blobs = Vec::new();
        for pack in self.packs.all()? {
            for entry in pack.entries().filter(|entry| entry.tag == Tag::Recipe) {
                let needs = |recipe: Recipe| recipe.chunks.iter().any(|(chunk, _)| pieces.contains(chunk));
                if self.recipe(entry.digest)?.is_some_and(needs) {
                    blobs.push((entry.digest, entry.length));
                }
            }
        }
        for digest in self.staging.digests(Tag::Recipe) {
            if let Some(recipe) = self.recipe(digest)?
                && recipe.chunks.iter().any(|(chunk, _)| pieces.contains(chunk))
            {
                blobs.push((digest, recipe.length));
            }
        }
        Ok(blobs)
    }
}
