//! The index of a pack: where each record lies, sorted by digest.

use std::ops::Range;

use super::record::Tag;
use crate::hash::{Digest, Hasher};

/// How many bytes an entry has.
pub(in crate::store) const ENTRY_BYTES: usize = 56;
/// How many bytes the table of first digest bytes has.
pub(in crate::store) const FANOUT_BYTES: usize = 256 * 4;
/// How many bytes the trailer has.
pub(in crate::store) const TRAILER_BYTES: usize = 64;
/// A digest is seldom further than this from where it should be, in a pack of 100,000 records.
const NEAR: usize = 16;
const END: [u8; 8] = *b"pvPACK1\n";
const CONTEXT: &str = "pv pack v1";

/// Where a record lies, and what it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::store) struct Entry {
    pub(in crate::store) digest: Digest,
    pub(in crate::store) tag: Tag,
    pub(in crate::store) codec: u8,
    /// Where the header begins in the pack.
    pub(in crate::store) offset: u64,
    /// How many bytes are stored behind the header.
    pub(in crate::store) stored: u32,
    /// The length of the object in bytes; for a recipe, that of the whole blob.
    pub(in crate::store) length: u64,
}

impl Entry {
    /// Returns what entries are sorted by.
    pub(in crate::store) fn key(&self) -> (Digest, u8) {
        (self.digest, self.tag.number())
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.digest.as_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.length.to_le_bytes());
        out.extend_from_slice(&self.stored.to_le_bytes());
        out.extend_from_slice(&[self.tag.number(), self.codec, 0, 0]);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; ENTRY_BYTES] = bytes.try_into().ok()?;
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        Some(Self {
            digest: Digest::from_bytes(bytes[..32].try_into().expect("32 bytes")),
            offset: long(32),
            length: long(40),
            stored: u32::from_le_bytes(bytes[48..52].try_into().expect("four bytes")),
            tag: Tag::from_number(bytes[52])?,
            codec: bytes[53],
        })
    }
}

/// Returns index and trailer of a pack whose records end at `at`, and the digest that names the pack.
///
/// `entries` must be sorted by digest and tag.
pub(in crate::store) fn encode(entries: &[Entry], at: u64) -> (Vec<u8>, Digest) {
    let mut bytes = Vec::with_capacity(FANOUT_BYTES + entries.len() * ENTRY_BYTES + TRAILER_BYTES);
    let mut counts = [0_u32; 256];
    entries.iter().for_each(|entry| counts[usize::from(entry.digest.as_bytes()[0])] += 1);
    let mut total = 0;
    for count in counts {
        total += count;
        bytes.extend_from_slice(&total.to_le_bytes());
    }
    entries.iter().for_each(|entry| entry.encode(&mut bytes));
    let name = Digest::derived(CONTEXT, &bytes);
    bytes.extend_from_slice(&at.to_le_bytes());
    bytes.extend_from_slice(&(entries.len() as u64).to_le_bytes());
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&END);
    (bytes, name)
}

/// The trailer of a pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::store) struct Trailer {
    /// Where the index begins, which is where the records end.
    pub(in crate::store) at: u64,
    pub(in crate::store) count: usize,
    pub(in crate::store) name: Digest,
}

impl Trailer {
    /// Returns the trailer that a file of `file_bytes` bytes ends with, if these are its last bytes and they agree.
    pub(in crate::store) fn decode(last: &[u8], file_bytes: u64) -> Option<Self> {
        let last: &[u8; TRAILER_BYTES] = last.try_into().ok()?;
        let long = |at: usize| u64::from_le_bytes(last[at..at + 8].try_into().expect("eight bytes"));
        let (at, count) = (long(0), long(8));
        let index_bytes = count.checked_mul(ENTRY_BYTES as u64)?.checked_add((FANOUT_BYTES + TRAILER_BYTES) as u64)?;
        let agrees = last[48..56] == [0; 8] && last[56..] == END && at.checked_add(index_bytes)? == file_bytes;
        let name = Digest::from_bytes(last[16..48].try_into().expect("32 bytes"));
        agrees.then_some(Self { at, count: usize::try_from(count).ok()?, name })
    }
}

/// An index in memory: the table of first bytes, then the entries.
pub(in crate::store) struct Index<'a>(pub(in crate::store) &'a [u8]);

impl Index<'_> {
    /// Returns the entry of this digest and tag.
    ///
    /// Digests are spread evenly, so the search begins where the digest should be and
    /// mostly ends after a few comparisons near there, whatever the number of records.
    pub(in crate::store) fn find(&self, digest: Digest, tag: Tag) -> Option<Entry> {
        let bytes = digest.as_bytes();
        let wanted = (bytes.as_slice(), tag.number());
        let key = |at: usize| self.bytes_of(at).map(|entry| (&entry[..32], entry[52]));
        let bucket = self.bucket(bytes[0]);
        let share = u64::from(u32::from_be_bytes(bytes[1..5].try_into().expect("four bytes")));
        let guess = bucket.start + usize::try_from((share * bucket.len() as u64) >> 32).unwrap_or_default();
        let mut width = NEAR;
        let (mut low, mut high) = (guess.saturating_sub(width).max(bucket.start), (guess + width).min(bucket.end));
        while low > bucket.start && key(low)? > wanted {
            (high, width) = (low, width * 2);
            low = low.saturating_sub(width).max(bucket.start);
        }
        while high < bucket.end && key(high - 1)? < wanted {
            (low, width) = (high, width * 2);
            high = (high + width).min(bucket.end);
        }
        while low < high {
            let middle = low + (high - low) / 2;
            match key(middle)?.cmp(&wanted) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return self.get(middle),
            }
        }
        None
    }

    /// Returns every entry, in order; one that cannot be understood is left out.
    pub(in crate::store) fn entries(&self) -> impl Iterator<Item = Entry> {
        (0..self.count()).filter_map(|at| self.get(at))
    }

    /// Returns every entry whose digest begins with this byte.
    pub(in crate::store) fn starting_with(&self, byte: u8) -> impl Iterator<Item = Entry> {
        self.bucket(byte).filter_map(|at| self.get(at))
    }

    /// Returns the digest that names the pack whose index `reader` yields. Holds little of it in memory.
    pub(in crate::store) fn name_of(mut reader: impl std::io::Read) -> std::io::Result<Digest> {
        let mut hasher = Hasher::derived(CONTEXT);
        let mut buffer = vec![0; 1 << 16];
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(hasher.finish().0),
                count => hasher.update(&buffer[..count]),
            }
        }
    }

    /// Returns the digest that names the pack with this index.
    pub(in crate::store) fn name(&self) -> Digest {
        Digest::derived(CONTEXT, self.0)
    }

    fn count(&self) -> usize {
        self.0.len().saturating_sub(FANOUT_BYTES) / ENTRY_BYTES
    }

    fn bucket(&self, byte: u8) -> Range<usize> {
        let until = |byte: usize| {
            let bytes = self.0.get(byte * 4..byte * 4 + 4).map(|bytes| bytes.try_into().expect("four bytes"));
            (bytes.map_or(0, u32::from_le_bytes) as usize).min(self.count())
        };
        let byte = usize::from(byte);
        (if byte == 0 { 0 } else { until(byte - 1) })..until(byte)
    }

    fn get(&self, at: usize) -> Option<Entry> {
        Entry::decode(self.bytes_of(at)?)
    }

    fn bytes_of(&self, at: usize) -> Option<&[u8]> {
        let start = FANOUT_BYTES + at * ENTRY_BYTES;
        self.0.get(start..start + ENTRY_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Kind;
    use proptest::prelude::*;

    fn entries(count: u32) -> Vec<Entry> {
        let mut entries: Vec<_> = (0..count)
            .map(|number| Entry {
                digest: Digest::of(&number.to_le_bytes()),
                tag: if number % 3 == 0 { Tag::Chunk } else { Tag::Object(Kind::Tree) },
                codec: 0,
                offset: u64::from(number) * 100,
                stored: number,
                length: u64::from(number),
            })
            .collect();
        entries.sort_by_key(Entry::key);
        entries
    }

    proptest! {
        #[test]
        fn every_entry_is_found_and_no_other(count in 0_u32..700) {
            let entries = entries(count);
            let (bytes, name) = encode(&entries, 16);
            let (body, last) = bytes.split_at(bytes.len() - TRAILER_BYTES);
            let trailer = Trailer::decode(last, 16 + bytes.len() as u64).unwrap();
            prop_assert_eq!(trailer, Trailer { at: 16, count: entries.len(), name });
            let index = Index(body);
            prop_assert_eq!(index.name(), name);
            prop_assert_eq!(index.entries().collect::<Vec<_>>(), entries.clone());
            for entry in &entries {
                prop_assert_eq!(index.find(entry.digest, entry.tag), Some(*entry));
                prop_assert_eq!(index.find(entry.digest, Tag::Recipe), None);
            }
            prop_assert_eq!(index.find(Digest::of(b"another"), Tag::Chunk), None);
            let by_byte: usize = (0..=255).map(|byte| index.starting_with(byte).count()).sum();
            prop_assert_eq!(by_byte, entries.len());
        }

        #[test]
        fn any_bytes_are_an_index_that_answers(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            let index = Index(&bytes);
            for byte in 0..=255 {
                index.find(Digest::from_bytes([byte; 32]), Tag::Chunk);
                index.starting_with(byte).for_each(drop);
            }
            index.entries().for_each(drop);
            Trailer::decode(&bytes[bytes.len().saturating_sub(TRAILER_BYTES)..], bytes.len() as u64);
        }
    }
}
