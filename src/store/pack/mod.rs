//! Packs: many small objects in one file, found through an index at its end.
//!
//! A pack is records one after the other, then an index sorted by digest, then a
//! trailer. Records describe themselves, so a pack whose index is lost is
//! rebuilt by reading it, and every prefix of one is a valid set of complete
//! records. A published pack never changes. `docs/format.md` has every byte.

mod index;
mod read;
mod record;
mod scan;
mod write;

pub(super) use index::{Entry, FANOUT_BYTES, Index, TRAILER_BYTES, Trailer};
pub(super) use read::{BadPack, Pack, is_record, read_record, read_stored};
pub(super) use record::{HEADER_BYTES, Header, RECORD_MAX_BYTES, Tag};
pub(super) use scan::scan;
pub(super) use write::{Building, Record, Segment, file_name, is_pack};

/// What a pack begins with.
pub(super) const START: [u8; 16] = *b"pv-pack 1\n\0\0\0\0\0\0";
