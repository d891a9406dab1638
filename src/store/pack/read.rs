//! Reading a pack: through its index, one record at a time.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::START;
use super::index::{Entry, FANOUT_BYTES, Index, TRAILER_BYTES, Trailer};
use super::record::{HEADER_BYTES, Header, Tag};
use crate::disk::{self, DiskError, Mapped};
use crate::hash::Digest;

/// A sealed pack.
pub(in crate::store) struct Pack {
    file: Arc<File>,
    path: PathBuf,
    trailer: Trailer,
    mapped: Mapped,
}

/// Why a file cannot be used as a pack.
#[derive(Debug, thiserror::Error)]
pub(in crate::store) enum BadPack {
    /// It is no pack, or not all of one.
    #[error("it is damaged")]
    Damaged,
    /// It cannot be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl Pack {
    /// Opens the pack at `path`. Reads only its ends: that the index is whole is told by [`Pack::index_is_whole`].
    pub(in crate::store) fn open(path: &Path) -> Result<Self, BadPack> {
        let file = File::open(path).map_err(DiskError::on("read", path))?;
        let gone = || DiskError::on("read", path)(io::ErrorKind::NotFound.into());
        let mapped = disk::map_file(path)?.ok_or_else(gone)?;
        let bytes: &[u8] = &mapped;
        let is_pack = bytes.len() >= START.len() + FANOUT_BYTES + TRAILER_BYTES && bytes.starts_with(&START);
        let last = is_pack.then(|| &bytes[bytes.len() - TRAILER_BYTES..]).ok_or(BadPack::Damaged)?;
        let trailer = Trailer::decode(last, bytes.len() as u64).ok_or(BadPack::Damaged)?;
        Ok(Self { file: Arc::new(file), path: path.to_owned(), trailer, mapped })
    }

    /// Returns the digest that names it.
    pub(in crate::store) fn name(&self) -> Digest {
        self.trailer.name
    }

    /// Returns where it lies, or lay when it was opened.
    pub(in crate::store) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns its length in bytes.
    pub(in crate::store) fn bytes(&self) -> u64 {
        self.mapped.len() as u64
    }

    /// Returns where the records end and the index begins.
    pub(in crate::store) fn records_end(&self) -> u64 {
        self.trailer.at
    }

    /// Returns how many records it has.
    pub(in crate::store) fn count(&self) -> usize {
        self.trailer.count
    }

    /// Returns where the record of this digest and tag lies. Entries that lead out of the records count as absent.
    pub(in crate::store) fn find(&self, digest: Digest, tag: Tag) -> Option<Entry> {
        self.index().find(digest, tag).filter(|entry| self.holds(entry))
    }

    /// Returns every entry, sorted by digest.
    pub(in crate::store) fn entries(&self) -> impl Iterator<Item = Entry> {
        self.index().entries().collect::<Vec<_>>().into_iter()
    }

    /// Returns every entry whose digest begins with this byte.
    pub(in crate::store) fn starting_with(&self, byte: u8) -> Vec<Entry> {
        self.index().starting_with(byte).collect()
    }

    /// Returns whether the index is what was written. Costs a hash of all of it.
    pub(in crate::store) fn index_is_whole(&self) -> bool {
        self.index().name() == self.trailer.name
    }

    /// Returns the file, for reading records.
    pub(in crate::store) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Returns whether the entry leads to where records are.
    pub(in crate::store) fn holds(&self, entry: &Entry) -> bool {
        let end = entry.offset.checked_add(HEADER_BYTES as u64 + u64::from(entry.stored));
        entry.offset >= START.len() as u64 && end.is_some_and(|end| end <= self.trailer.at)
    }

    fn index(&self) -> Index<'_> {
        let at = usize::try_from(self.trailer.at).expect("it was mapped");
        Index(&self.mapped[at..self.mapped.len() - TRAILER_BYTES])
    }
}

/// A record as it lies in a pack.
pub(in crate::store) struct Stored {
    /// How many bytes the stored ones stand for.
    pub(in crate::store) raw: u32,
    /// The bytes behind the header.
    pub(in crate::store) bytes: Vec<u8>,
}

/// Returns the record at `entry` of `file` as it is stored; `None` if another record lies there, or none.
///
/// What it decodes to is not verified, except that a recipe is what was written.
pub(in crate::store) fn read_record(file: &File, entry: &Entry) -> io::Result<Option<Stored>> {
    let mut header = [0; HEADER_BYTES];
    match file.read_exact_at(&mut header, entry.offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let raw = Header::decode(&header).map(|header| header.raw);
    let stored = if raw.is_some() { read_stored(file, entry)?.ok() } else { None };
    Ok(raw.zip(stored).map(|(raw, bytes)| Stored { raw, bytes }))
}

/// Returns the stored bytes of the record at `entry` of `file`; `Err` with what lies there if that is another record, or none.
///
/// What they decode to is not verified yet, except that a recipe is what was written.
pub(in crate::store) fn read_stored(file: &File, entry: &Entry) -> io::Result<Result<Vec<u8>, Vec<u8>>> {
    let mut record = vec![0; HEADER_BYTES + entry.stored as usize];
    match file.read_exact_at(&mut record, entry.offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Err(Vec::new())),
        read => read?,
    }
    let is_it = is_record(&record, entry);
    record.drain(..HEADER_BYTES);
    Ok(if is_it { Ok(record) } else { Err(record) })
}

/// Returns whether `record`, header and stored bytes, is the one that should lie at `entry`, as far as its header tells.
pub(in crate::store) fn is_record(record: &[u8], entry: &Entry) -> bool {
    Header::decode(record).is_some_and(|header| {
        let expected = (entry.tag, entry.codec, entry.stored, entry.digest);
        (header.tag, header.codec, header.stored, header.digest) == expected && header.fits(record)
    })
}
