//! SHA-256, by which images name everything that they consist of.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::object::is_image_digest;

const PREFIX: &str = "sha256:";

/// The SHA-256 of a manifest, config or layer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageDigest([u8; 32]);

/// A text that is no digest of an image.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[error("a digest is `sha256:` and 64 hexadecimal digits")]
pub struct NotAnImageDigest;

impl ImageDigest {
    /// Returns the digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Returns its 64 hex digits.
    pub fn hex(&self) -> String {
        let digits = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
    }

    /// Returns the first of its hex digits, for people.
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }
}

impl fmt::Display for ImageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.hex())
    }
}

impl fmt::Debug for ImageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for ImageDigest {
    type Err = NotAnImageDigest;

    fn from_str(text: &str) -> Result<Self, NotAnImageDigest> {
        let hex = text.strip_prefix(PREFIX).filter(|_| is_image_digest(text)).ok_or(NotAnImageDigest)?;
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).map_err(|_| NotAnImageDigest)?;
        }
        Ok(Self(bytes))
    }
}

/// Passes on what it reads, and knows the digest and the number of those bytes.
pub(super) struct Hashing<R> {
    inner: R,
    hasher: Sha256,
    bytes: u64,
}

impl<R: Read> Hashing<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, hasher: Sha256::new(), bytes: 0 }
    }

    /// Reads what is left, of which no more than `most_bytes` may be; returns the digest and the number of all bytes.
    ///
    /// `None` is what it returns if there is more.
    pub(super) fn finish(mut self, most_bytes: u64) -> io::Result<Option<(ImageDigest, u64)>> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match self.read(&mut buffer) {
                Ok(0) => return Ok(Some((ImageDigest(self.hasher.finalize().into()), self.bytes))),
                Ok(_) if self.bytes > most_bytes => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl<R> Hashing<R> {
    /// Returns the digest of what was read so far.
    pub(super) fn digest(&self) -> ImageDigest {
        ImageDigest(self.hasher.clone().finalize().into())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}

/// Takes in what is written, for its digest.
pub(super) struct HashingWriter<W> {
    inner: W,
    hasher: Sha256,
    bytes: u64,
}

impl<W> HashingWriter<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, hasher: Sha256::new(), bytes: 0 }
    }

    /// Returns the digest and the number of the bytes that were written.
    pub(super) fn finish(self) -> (ImageDigest, u64) {
        (ImageDigest(self.hasher.finalize().into()), self.bytes)
    }
}

impl<W: io::Write> io::Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_the_published_one_and_comes_back_from_its_text() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(ImageDigest::of(b"").to_string(), empty);
        assert_eq!(empty.parse(), Ok(ImageDigest::of(b"")));
        assert_eq!("sha256:12".parse::<ImageDigest>(), Err(NotAnImageDigest));
    }

    #[test]
    fn what_was_not_read_counts_too_and_too_much_is_noticed() {
        let mut reader = Hashing::new(&b"some bytes"[..]);
        reader.read_exact(&mut [0; 4]).unwrap();
        assert_eq!(reader.finish(10).unwrap(), Some((ImageDigest::of(b"some bytes"), 10)));
        assert_eq!(Hashing::new(&b"some bytes"[..]).finish(9).unwrap(), None);
    }
}
