//! Taking in records that come from elsewhere. Nothing counts as here before it was hashed.

use super::pack::digest_of;
use super::{Part, Placed};
use crate::store::pack::{Entry, HEADER_BYTES, Header, Record, Tag, is_record};
use crate::store::recipe::Recipe;
use crate::store::{LocalStore, StoreError};

/// What became of a record that came from elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// It is staged; the next sync keeps it.
    New,
    /// It was here already.
    Known,
    /// It is not what its name says, and was not taken.
    Wrong,
}

impl LocalStore {
    /// Returns whether the record is here, staged or not.
    ///
    /// # Errors
    ///
    /// [`StoreError::Disk`] if the store cannot be asked.
    pub fn has_part(&self, part: Part) -> Result<bool, StoreError> {
        Ok(self.length_of_record(part.digest, part.tag)?.is_some())
    }

    /// Takes in one record whose bytes, as they lie in a pack elsewhere, are `bytes`.
    ///
    /// They are decoded and hashed first; a list of pieces only counts if the pieces, which must be here, make what it is
    /// named by. Costs that, and memory for the record twice.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if it cannot be written, or a piece not be read.
    pub fn take_record(&self, placed: &Placed, bytes: &[u8]) -> Result<Taken, StoreError> {
        let Placed(entry) = placed;
        if self.has_part(placed.part())? {
            return Ok(Taken::Known);
        }
        let Some(raw) = raw_bytes(entry, bytes) else { return Ok(Taken::Wrong) };
        let stored = &bytes[HEADER_BYTES..];
        let Entry { digest, tag, codec, length, .. } = *entry;
        let is_it = match tag {
            Tag::Recipe => match Recipe::decode(stored) {
                Some(recipe) if recipe.length == length => self.makes(&recipe, digest),
                _ => false,
            },
            _ => length == u64::from(raw) && digest_of(tag, digest, codec, stored, raw) == Some(digest),
        };
        if !is_it {
            return Ok(Taken::Wrong);
        }
        let record = Record { tag, digest, codec, stored, raw, length };
        let is_new = self.staging.append(&record, &self.packs, || self.session_directory())?;
        Ok(if is_new { Taken::New } else { Taken::Known })
    }
}

/// Returns the pieces that a list of pieces, as it lies in a pack elsewhere, names; `None` if it is
/// no such list.
pub fn pieces_of(placed: &Placed, bytes: &[u8]) -> Option<Vec<Part>> {
    raw_bytes(&placed.0, bytes).filter(|_| placed.0.tag == Tag::Recipe)?;
    let recipe = Recipe::decode(&bytes[HEADER_BYTES..])?;
    Some(recipe.chunks.into_iter().map(|(piece, _)| Part::piece(piece)).collect())
}

/// Returns whether `bytes` are the record that should lie there. Of a list of pieces it is only seen that it adds up.
///
/// Costs a decoding and a hash.
pub fn is_whole(placed: &Placed, bytes: &[u8]) -> bool {
    let Placed(Entry { digest, tag, codec, .. }) = placed;
    raw_bytes(&placed.0, bytes)
        .is_some_and(|raw| digest_of(*tag, *digest, *codec, &bytes[HEADER_BYTES..], raw) == Some(*digest))
}

/// Returns how many bytes a record stands for, if it is the one of the entry as far as its header tells.
fn raw_bytes(entry: &Entry, bytes: &[u8]) -> Option<u32> {
    is_record(bytes, entry).then(|| Header::decode(bytes).map(|header| header.raw))?
}
