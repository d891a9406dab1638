//! One record: a header of 56 bytes, then the bytes as they are stored.

use crate::hash::Digest;
use crate::object::Kind;

/// How many bytes a header has.
pub(in crate::store) const HEADER_BYTES: usize = 56;
/// What a header begins with: a scan finds its way back to a record by it.
pub(in crate::store) const MAGIC: [u8; 4] = *b"pvR\x01";
/// No record holds more than this, stored or not; what is larger is kept in pieces.
pub(in crate::store) const RECORD_MAX_BYTES: u32 = 1 << 24;
const CHECKED_BYTES: usize = 48;

/// What a record holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::store) enum Tag {
    /// An object.
    Object(Kind),
    /// A piece of a large blob, named by the plain hash of its bytes.
    Chunk,
    /// The list of the pieces of a large blob, under the name of that blob.
    Recipe,
}

impl Tag {
    /// Returns the number that stands for it.
    pub(in crate::store) const fn number(self) -> u8 {
        match self {
            Self::Object(Kind::Blob) => 1,
            Self::Object(Kind::Tree) => 2,
            Self::Object(Kind::Definition) => 3,
            Self::Object(Kind::Params) => 4,
            Self::Object(Kind::Environment) => 5,
            Self::Object(Kind::Snapshot) => 6,
            Self::Chunk => 16,
            Self::Recipe => 17,
        }
    }

    /// Returns what the number stands for.
    pub(in crate::store) fn from_number(number: u8) -> Option<Self> {
        let objects = Kind::ALL.into_iter().map(Self::Object);
        objects.chain([Self::Chunk, Self::Recipe]).find(|tag| tag.number() == number)
    }
}

/// The header of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::store) struct Header {
    pub(in crate::store) tag: Tag,
    /// How the bytes are stored, a number that `codec` knows.
    pub(in crate::store) codec: u8,
    /// How many bytes are stored.
    pub(in crate::store) stored: u32,
    /// How many bytes they stand for.
    pub(in crate::store) raw: u32,
    pub(in crate::store) digest: Digest,
}

impl Header {
    /// Returns the bytes of the header of a record with these stored bytes.
    pub(in crate::store) fn encode(&self, payload: &[u8]) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = self.tag.number();
        bytes[5] = self.codec;
        bytes[8..12].copy_from_slice(&self.stored.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.raw.to_le_bytes());
        bytes[16..CHECKED_BYTES].copy_from_slice(self.digest.as_bytes());
        let check = check(&bytes, self.tag, payload);
        bytes[CHECKED_BYTES..].copy_from_slice(&check);
        bytes
    }

    /// Returns the header that `bytes` begin with, unless they are no header.
    ///
    /// The check of a recipe also covers its stored bytes: see [`Header::fits`].
    pub(in crate::store) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES] = bytes.get(..HEADER_BYTES)?.try_into().ok()?;
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let digest: [u8; 32] = bytes[16..CHECKED_BYTES].try_into().expect("32 bytes");
        let header = Self {
            tag: Tag::from_number(bytes[4])?,
            codec: bytes[5],
            stored: number(8),
            raw: number(12),
            digest: Digest::from_bytes(digest),
        };
        let is_sound = bytes[..4] == MAGIC
            && bytes[6..8] == [0, 0]
            && header.stored <= RECORD_MAX_BYTES
            && header.raw <= RECORD_MAX_BYTES
            && (header.tag == Tag::Recipe || bytes[CHECKED_BYTES..] == check(bytes, header.tag, &[]));
        is_sound.then_some(header)
    }

    /// Returns whether `record`, header and stored bytes, is what was written, as far as the check tells.
    ///
    /// The stored bytes of all but recipes are told by the digest alone.
    pub(in crate::store) fn fits(&self, record: &[u8]) -> bool {
        record.len() == HEADER_BYTES + self.stored as usize
            && record[CHECKED_BYTES..HEADER_BYTES]
                == check(record[..HEADER_BYTES].try_into().expect("a header"), self.tag, &record[HEADER_BYTES..])
    }
}

/// Returns the check of a header: a recipe is named by what its pieces make, so its own bytes are checked here.
fn check(header: &[u8; HEADER_BYTES], tag: Tag, payload: &[u8]) -> [u8; 8] {
    let checked = &header[..CHECKED_BYTES];
    let digest = match tag {
        Tag::Recipe => Digest::of(&[checked, payload].concat()),
        _ => Digest::of(checked),
    };
    digest.as_bytes()[..8].try_into().expect("a digest has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tags() -> impl Strategy<Value = Tag> {
        let all: Vec<_> = Kind::ALL.into_iter().map(Tag::Object).chain([Tag::Chunk, Tag::Recipe]).collect();
        proptest::sample::select(all)
    }

    proptest! {
        #[test]
        fn a_header_comes_back(tag in tags(), codec in 0_u8..2, payload in prop::collection::vec(any::<u8>(), 0..64), raw in 0_u32..1000) {
            let header = Header { tag, codec, stored: u32::try_from(payload.len()).unwrap(), raw, digest: Digest::of(&payload) };
            let record = [&header.encode(&payload)[..], &payload].concat();
            prop_assert_eq!(Header::decode(&record), Some(header));
            prop_assert!(header.fits(&record));
        }

        #[test]
        fn any_bytes_are_a_header_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(header) = Header::decode(&bytes) {
                prop_assert_eq!(Tag::from_number(header.tag.number()), Some(header.tag));
            }
        }

        #[test]
        fn a_changed_bit_of_a_header_is_noticed(tag in tags(), bit in 0_usize..HEADER_BYTES * 8) {
            let header = Header { tag, codec: 1, stored: 3, raw: 9, digest: Digest::of(b"x") };
            let mut record = [&header.encode(b"abc")[..], b"abc"].concat();
            record[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Header::decode(&record).is_none_or(|header| !header.fits(&record)));
        }
    }
}
