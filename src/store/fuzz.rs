//! What a fuzzer may throw bytes at. Each panics if a law is broken.

use super::codec::{self, Codec};
use super::pack::{Header, Index, Trailer, scan};
use super::recipe::Recipe;

/// Bytes that begin with a header begin with the bytes of that header; no others claim to fit.
pub fn record(bytes: &[u8]) {
    let Some(header) = Header::decode(bytes) else { return };
    let end = super::pack::HEADER_BYTES.saturating_add(header.stored as usize);
    if let Some(record) = bytes.get(..end)
        && header.fits(record)
    {
        assert_eq!(header.encode(&record[super::pack::HEADER_BYTES..])[..], record[..super::pack::HEADER_BYTES]);
    }
}

/// Any bytes are an index that answers, and what it answers is in it.
pub fn index(bytes: &[u8]) {
    let index = Index(bytes);
    for entry in index.entries().take(1000) {
        if let Some(found) = index.find(entry.digest, entry.tag) {
            assert_eq!((found.digest, found.tag), (entry.digest, entry.tag));
        }
    }
    for byte in 0..=u8::MAX {
        index.starting_with(byte).take(1000).for_each(drop);
    }
    let last = &bytes[bytes.len().saturating_sub(super::pack::TRAILER_BYTES)..];
    if let Some(trailer) = Trailer::decode(last, bytes.len() as u64) {
        assert!(trailer.at <= bytes.len() as u64);
    }
}

/// A scan of any bytes finds records that lie in them, one behind the other.
pub fn scanned(bytes: &[u8]) {
    let mut end = 0;
    for found in scan(bytes) {
        assert!(found.entry.offset >= end, "records overlap");
        end = found.entry.offset + super::pack::HEADER_BYTES as u64 + u64::from(found.entry.stored);
        assert!(end <= bytes.len() as u64);
    }
}

/// Bytes that are a recipe are the bytes of that recipe.
pub fn recipe(bytes: &[u8]) {
    if let Some(recipe) = Recipe::decode(bytes) {
        assert_eq!(recipe.encode(), bytes);
    }
}

/// Any stored bytes are decoded to the length that was asked for, or refused.
pub fn decoded(bytes: &[u8]) {
    let Some((first, stored)) = bytes.split_first() else { return };
    let length = usize::from(*first) * 64;
    for codec in [Codec::Raw, Codec::Zstd] {
        if let Ok(decoded) = codec::decode(codec, stored, length) {
            assert_eq!(decoded.len(), length);
        }
    }
    let (codec, encoded) = codec::encode(bytes);
    assert_eq!(codec::decode(codec, &encoded, bytes.len()).expect("what was encoded"), bytes);
}
