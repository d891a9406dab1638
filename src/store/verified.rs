//! A reader that does not let wrong bytes pass as an object.

use std::io::{self, Read};

use super::StoreError;
use crate::hash::{Digest, Hasher};
use crate::object::Kind;

/// Passes on what `inner` yields, and ends only if all of it hashes to the expected name.
pub(super) struct Verified<R> {
    inner: R,
    hasher: Hasher,
    kind: Kind,
    expected: Digest,
}

impl<R: Read> Verified<R> {
    /// Returns a reader of the object of this kind and name whose bytes `inner` yields.
    pub(super) fn new(inner: R, kind: Kind, expected: Digest) -> Self {
        Self { inner, hasher: kind.hasher(), kind, expected }
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        // Nothing read into an empty buffer says nothing about the end.
        if count > 0 || buffer.is_empty() {
            return Ok(count);
        }
        let (actual, _) = self.hasher.finish();
        if actual == self.expected {
            return Ok(0);
        }
        let corrupt = StoreError::Corrupt { kind: self.kind, expected: self.expected, actual };
        Err(io::Error::new(io::ErrorKind::InvalidData, corrupt))
    }
}
