//! Finding records in any bytes: what is left of a damaged pack, or of one that was never sealed.

use super::START;
use super::index::Entry;
use super::record::{HEADER_BYTES, Header, MAGIC};

/// A complete record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::store) struct Found {
    /// Where it lies. The length of a recipe's blob is not known here: it is that of the recipe.
    pub(in crate::store) entry: Entry,
    /// How many bytes it stands for.
    pub(in crate::store) raw: u32,
}

/// Returns every complete record in `bytes`, in order.
///
/// After damage it goes on at the next header. What a record decodes to is for
/// the caller to verify. Costs one pass where nothing is damaged.
pub(in crate::store) fn scan(bytes: &[u8]) -> Vec<Found> {
    let mut found = Vec::new();
    let mut at = if bytes.starts_with(&START) { START.len() } else { 0 };
    while at + HEADER_BYTES <= bytes.len() {
        let header = Header::decode(&bytes[at..]);
        let record = header.and_then(|header| {
            let end = at + HEADER_BYTES + header.stored as usize;
            let record = bytes.get(at..end)?;
            header.fits(record).then_some((header, end))
        });
        match record {
            Some((header, end)) => {
                let Header { tag, codec, stored, raw, digest } = header;
                let entry = Entry { digest, tag, codec, offset: at as u64, stored, length: u64::from(raw) };
                found.push(Found { entry, raw });
                at = end;
            }
            None => match next_magic(&bytes[at + 1..]) {
                Some(distance) => at += 1 + distance,
                None => break,
            },
        }
    }
    found
}

fn next_magic(bytes: &[u8]) -> Option<usize> {
    bytes.windows(MAGIC.len()).position(|window| window == MAGIC)
}

#[cfg(test)]
mod tests {
    use super::super::record::Tag;
    use super::*;
    use crate::hash::Digest;
    use crate::object::Kind;
    use proptest::prelude::*;

    /// Returns a pack without index, and where its records end.
    fn pack(payloads: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut ends) = (START.to_vec(), Vec::new());
        for (number, payload) in payloads.iter().enumerate() {
            let tag = if number % 4 == 3 { Tag::Recipe } else { Tag::Object(Kind::Blob) };
            let stored = u32::try_from(payload.len()).unwrap();
            let header = Header { tag, codec: 0, stored, raw: stored, digest: Digest::of(payload) };
            bytes.extend_from_slice(&header.encode(payload));
            bytes.extend_from_slice(payload);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..12)
    }

    proptest! {
        #[test]
        fn every_prefix_holds_its_complete_records(payloads in payloads(), cut in any::<prop::sample::Index>()) {
            let (bytes, ends) = pack(&payloads);
            let cut = cut.index(bytes.len() + 1);
            let complete = ends.iter().filter(|end| **end <= cut).count();
            let found = scan(&bytes[..cut]);
            prop_assert_eq!(found.len(), complete);
            for (found, payload) in found.iter().zip(&payloads) {
                prop_assert_eq!(found.entry.digest, Digest::of(payload));
            }
        }

        #[test]
        fn damage_costs_only_the_records_it_touches(payloads in payloads(), hit in any::<prop::sample::Index>(), length in 1_usize..40) {
            let (mut bytes, ends) = pack(&payloads);
            let start = hit.index(bytes.len());
            let end = (start + length).min(bytes.len());
            bytes[start..end].iter_mut().for_each(|byte| *byte ^= 0xff);
            let found = scan(&bytes);
            let mut begin = START.len();
            for (payload, record_end) in payloads.iter().zip(&ends) {
                let is_whole = *record_end <= start || begin >= end;
                let is_found = found.iter().any(|found| found.entry.offset == begin as u64 && found.entry.digest == Digest::of(payload));
                prop_assert!(!is_whole || is_found, "an untouched record at {} is lost", begin);
                begin = *record_end;
            }
        }

        #[test]
        fn any_bytes_can_be_scanned(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            for found in scan(&bytes) {
                prop_assert!(found.entry.offset + u64::from(found.entry.stored) <= bytes.len() as u64);
            }
        }
    }
}
