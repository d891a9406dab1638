//! Digests: BLAKE3-256 and its text forms.
//!
//! The one door to `blake3`. A file's digest is the plain BLAKE3 of its bytes,
//! the same that `b3sum` prints; everything structured hashes under
//! `derive_key` with a context string of its own, so that no two kinds of
//! object can ever share a name by accident.
//! Source: the BLAKE3 specification, sections 2 (hash) and 2.3 (`derive_key`).

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How many bytes a digest has.
pub const DIGEST_BYTES: usize = 32;
/// How many hex digits a digest has when it is printed in full.
pub const HEX_DIGITS: usize = 64;
/// How many hex digits an abbreviated digest has at the least.
pub const SHORT_DIGITS: usize = 12;

/// Files from this size on are hashed from a memory map on all cores.
const PARALLEL_FROM_BYTES: u64 = 256 * 1024;
const BUFFER_BYTES: usize = 64 * 1024;

/// A BLAKE3-256 digest. Ordered by its bytes; printed as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; DIGEST_BYTES]);

/// A text that is no digest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is not a digest of {HEX_DIGITS} hex digits")]
pub struct NotADigest {
    /// What was given.
    pub text: String,
}

impl Digest {
    /// Returns the plain BLAKE3 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Returns the BLAKE3 of `bytes` under the key derived from `context`.
    pub fn derived(context: &str, bytes: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(bytes);
        Self(*hasher.finalize().as_bytes())
    }

    /// Returns the digest and the length in bytes of the file at `path`.
    ///
    /// Costs one read of the file; large files use every core.
    ///
    /// # Errors
    ///
    /// Any error of opening or reading the file.
    pub fn of_file(path: &Path) -> io::Result<(Self, u64)> {
        let mut file = File::open(path)?;
        let mut hasher = Hasher::default();
        if file.metadata()?.len() >= PARALLEL_FROM_BYTES {
            hasher.0.update_mmap_rayon(path)?;
        } else {
            let mut buffer = Vec::new();
            file.read_to_end(&mut buffer)?;
            hasher.update(&buffer);
        }
        Ok(hasher.finish())
    }

    /// Returns the digest and the length of everything that `reader` yields.
    ///
    /// Holds one buffer of 64 KiB, whatever the length.
    ///
    /// # Errors
    ///
    /// Any error of the reader.
    pub fn of_reader(mut reader: impl Read) -> io::Result<(Self, u64)> {
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(hasher.finish()),
                Ok(count) => hasher.update(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the digest with these 32 bytes.
    pub const fn from_bytes(bytes: [u8; DIGEST_BYTES]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; DIGEST_BYTES] {
        &self.0
    }

    /// Returns its first 64 bits as a number.
    pub fn number(&self) -> u64 {
        let first: [u8; 8] = self.0[..8].try_into().expect("a digest has 32 bytes");
        u64::from_be_bytes(first)
    }

    /// Returns the first 12 hex digits, for people.
    pub fn short(&self) -> String {
        self.to_string()[..SHORT_DIGITS].to_owned()
    }
}

/// Bytes without end that follow from a key.
pub struct Stream(blake3::OutputReader);

impl Stream {
    /// Returns the extended output of BLAKE3 for `bytes` under the key derived from `context`; it begins with [`Digest::derived`].
    pub fn derived(context: &str, bytes: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(bytes);
        Self(hasher.finalize_xof())
    }

    /// Fills `into` with the next bytes.
    pub fn fill(&mut self, into: &mut [u8]) {
        self.0.fill(into);
    }
}

/// Hashes bytes as they come by.
#[derive(Default, Clone)]
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// Returns a hasher under the key derived from `context`; it ends in the same digest as [`Digest::derived`].
    pub fn derived(context: &str) -> Self {
        Self(blake3::Hasher::new_derive_key(context))
    }

    /// Takes in `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the digest and the number of the bytes taken in.
    pub fn finish(&self) -> (Digest, u64) {
        (Digest(*self.0.finalize().as_bytes()), self.0.count())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| NotADigest { text: text.to_owned() })?;
        Ok(Self(*hash.as_bytes()))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_nothing_is_the_published_one() {
        // First vector of the BLAKE3 test vectors.
        let expected = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(Digest::of(b"").to_string(), expected);
    }

    #[test]
    fn a_derived_digest_differs_from_the_plain_one_and_between_contexts() {
        let plain = Digest::of(b"x");
        let first = Digest::derived("pv test one", b"x");
        let second = Digest::derived("pv test two", b"x");
        assert!(plain != first && first != second);
    }

    #[test]
    fn a_derived_digest_is_the_same_in_one_piece_and_in_many() {
        let mut hasher = Hasher::derived("pv test one");
        hasher.update(b"some ");
        hasher.update(b"bytes");
        assert_eq!(hasher.finish(), (Digest::derived("pv test one", b"some bytes"), 10));
    }

    #[test]
    fn a_stream_begins_with_the_digest_and_is_the_same_in_one_piece_and_in_many() {
        let (mut whole, mut pieces) = ([0; 100], [0; 100]);
        Stream::derived("pv test one", b"x").fill(&mut whole);
        let mut stream = Stream::derived("pv test one", b"x");
        pieces.chunks_mut(7).for_each(|piece| stream.fill(piece));
        assert_eq!(whole, pieces);
        assert_eq!(whole[..32], *Digest::derived("pv test one", b"x").as_bytes());
    }

    #[test]
    fn bytes_reader_and_file_agree_on_both_sides_of_the_parallel_threshold() {
        for length in [0, 1, 5000, 256 * 1024 + 7] {
            let bytes: Vec<u8> = (0..length).map(|index: u32| index.to_le_bytes()[0]).collect();
            let mut file = tempfile::NamedTempFile::new().unwrap();
            io::Write::write_all(&mut file, &bytes).unwrap();
            let expected = (Digest::of(&bytes), u64::from(length));
            assert_eq!(Digest::of_file(file.path()).unwrap(), expected);
            assert_eq!(Digest::of_reader(bytes.as_slice()).unwrap(), expected);
        }
    }

    #[test]
    fn text_that_is_no_digest_is_refused() {
        for text in ["", "12ab", &"g".repeat(64), &"a".repeat(65)] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
        let digest = Digest::of(b"x");
        assert_eq!(digest.to_string().parse(), Ok(digest));
    }
}
