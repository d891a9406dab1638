//! How a large blob is put together: the list of its pieces.

use crate::hash::{DIGEST_BYTES, Digest};

/// The pieces of a blob, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Recipe {
    /// The length of the blob in bytes.
    pub(super) length: u64,
    /// Name and length of each piece.
    pub(super) chunks: Vec<(Digest, u32)>,
}

impl Recipe {
    /// Returns its bytes: the length, then each piece, 36 bytes long.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.length.to_le_bytes().to_vec();
        for (digest, length) in &self.chunks {
            bytes.extend_from_slice(digest.as_bytes());
            bytes.extend_from_slice(&length.to_le_bytes());
        }
        bytes
    }

    /// Returns the recipe with these bytes; `None` if it does not add up.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_at_checked(8)?;
        let length = u64::from_le_bytes(length.try_into().expect("eight bytes"));
        let (pieces, left) = rest.as_chunks::<{ DIGEST_BYTES + 4 }>();
        let chunk = |piece: &[u8; DIGEST_BYTES + 4]| {
            let (digest, length) = piece.split_at(DIGEST_BYTES);
            let digest: [u8; DIGEST_BYTES] = digest.try_into().expect("32 bytes");
            (Digest::from_bytes(digest), u32::from_le_bytes(length.try_into().expect("four bytes")))
        };
        let chunks: Vec<_> = pieces.iter().map(chunk).collect();
        let adds_up = left.is_empty()
            && chunks.iter().all(|(_, length)| *length > 0)
            && chunks.iter().map(|(_, length)| u64::from(*length)).sum::<u64>() == length;
        adds_up.then_some(Self { length, chunks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_recipe_comes_back_and_one_that_does_not_add_up_is_refused(lengths in prop::collection::vec(1_u32..9999, 0..20)) {
            let chunks: Vec<_> = lengths.iter().map(|length| (Digest::of(&length.to_le_bytes()), *length)).collect();
            let length = lengths.iter().map(|length| u64::from(*length)).sum();
            let recipe = Recipe { length, chunks };
            prop_assert_eq!(Recipe::decode(&recipe.encode()), Some(recipe.clone()));
            let wrong = Recipe { length: length + 1, ..recipe };
            prop_assert_eq!(Recipe::decode(&wrong.encode()), None);
        }

        #[test]
        fn any_bytes_are_a_recipe_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(recipe) = Recipe::decode(&bytes) {
                prop_assert_eq!(recipe.encode(), bytes);
            }
        }
    }
}
