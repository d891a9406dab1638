//! Reading records: one at a time, or those of a large blob one after the other.

use std::io::{self, Cursor, Read};
use std::vec;

use super::codec::{self, Codec};
use super::pack::read_stored;
use super::packs::Place;

impl Place {
    /// Returns the stored bytes; `Err` with what lies there if it is not the record that should.
    pub(super) fn stored(&self) -> io::Result<Result<Vec<u8>, Vec<u8>>> {
        read_stored(&self.file, &self.entry)
    }

    /// Returns the bytes that the record stands for. Bytes that are damaged are returned as
    /// they are: that they do not hash to their name is for the reader to find out.
    pub(super) fn bytes(&self) -> io::Result<Vec<u8>> {
        let stored = match self.stored()? {
            Ok(stored) => stored,
            Err(damaged) => return Ok(damaged),
        };
        // A piece is as long as its entry says; so is every object that is one record.
        let raw = usize::try_from(self.entry.length).unwrap_or(usize::MAX);
        let decoded = Codec::try_from(self.entry.codec).and_then(|codec| codec::decode(codec, &stored, raw));
        Ok(decoded.unwrap_or(stored))
    }

    /// Returns a reader of the bytes, not verified.
    pub(super) fn reader<E>(&self, failed: impl FnOnce(io::Error) -> E) -> Result<Cursor<Vec<u8>>, E> {
        self.bytes().map(Cursor::new).map_err(failed)
    }
}

/// The bytes of several records, one after the other. Holds one of them.
pub(super) struct Pieces {
    places: vec::IntoIter<Place>,
    current: Cursor<Vec<u8>>,
}

impl Pieces {
    /// Returns a reader of these records, in this order, not verified.
    pub(super) fn new(places: Vec<Place>) -> Self {
        Self { places: places.into_iter(), current: Cursor::default() }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.current.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            match self.places.next() {
                Some(place) => self.current = Cursor::new(place.bytes()?),
                None => return Ok(0),
            }
        }
    }
}
