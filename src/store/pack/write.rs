//! Writing a pack: records are appended, then the index seals it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::index::{self, Entry};
use super::record::{HEADER_BYTES, Header, Tag};
use super::{BadPack, Pack, START};
use crate::disk::{self, Change, Disk, DiskError};
use crate::hash::Digest;
use crate::object::Kind;

/// Records are gathered up to this size before they are written.
const BUFFER_BYTES: usize = 4 << 20;
/// A pack is sealed when it has this many bytes of records,
const RECORDS_MAX_BYTES: u64 = 512 << 20;
/// or this many records, so that what is known of them stays small in memory.
const RECORDS_MAX: usize = 1 << 18;

/// A pack that is being written. Nobody else sees it before it is sealed and published.
pub(in crate::store) struct Segment {
    file: Arc<File>,
    path: PathBuf,
    entries: Vec<Entry>,
    /// What is appended and not yet written.
    buffer: Vec<u8>,
    /// Where the buffer begins in the file.
    written: u64,
}

/// Bytes of a segment that are to be written, so that this can be done while others append.
pub(in crate::store) struct Piece {
    file: Arc<File>,
    path: PathBuf,
    at: u64,
    bytes: Vec<u8>,
}

/// What is appended: the stored bytes of a record and what they stand for.
#[derive(Clone, Copy)]
pub(in crate::store) struct Record<'a> {
    pub(in crate::store) tag: Tag,
    pub(in crate::store) digest: Digest,
    pub(in crate::store) codec: u8,
    pub(in crate::store) stored: &'a [u8],
    /// How many bytes the stored ones stand for.
    pub(in crate::store) raw: u32,
    /// See [`Entry::length`].
    pub(in crate::store) length: u64,
}

impl Record<'_> {
    /// Appends header and stored bytes to `buffer`, which begins at `before` in the pack; returns where they lie.
    fn append_to(&self, buffer: &mut Vec<u8>, before: u64) -> Entry {
        let Record { tag, digest, codec, stored, raw, length } = *self;
        let offset = before + buffer.len() as u64;
        let stored_bytes = u32::try_from(stored.len()).expect("records are at most 16 MiB");
        let header = Header { tag, codec, stored: stored_bytes, raw, digest }.encode(stored);
        buffer.reserve(HEADER_BYTES + stored.len());
        buffer.extend_from_slice(&header);
        buffer.extend_from_slice(stored);
        Entry { digest, tag, codec, offset, stored: stored_bytes, length }
    }
}

/// A pack that is made in memory.
pub(in crate::store) struct Building {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

impl Default for Building {
    fn default() -> Self {
        Self { bytes: START.to_vec(), entries: Vec::new() }
    }
}

impl Building {
    /// Appends a record.
    pub(in crate::store) fn append(&mut self, record: &Record<'_>) {
        let entry = record.append_to(&mut self.bytes, 0);
        self.entries.push(entry);
    }

    /// Returns how many bytes it has, without its index.
    pub(in crate::store) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Returns how many records it has.
    pub(in crate::store) fn count(&self) -> usize {
        self.entries.len()
    }

    /// Returns the whole pack, its index alone, and its name, which is none that `is_taken`: see [`Segment::seal`].
    pub(in crate::store) fn finish(mut self, is_taken: &dyn Fn(Digest) -> bool) -> (Vec<u8>, Vec<u8>, Digest) {
        loop {
            self.entries.sort_unstable_by_key(Entry::key);
            let (index, name) = index::encode(&self.entries, self.bytes.len() as u64);
            if !is_taken(name) {
                self.bytes.extend_from_slice(&index);
                return (self.bytes, index, name);
            }
            self.append(&filler(name.as_bytes()));
        }
    }
}

impl Segment {
    /// Starts a pack in a new file at `path`.
    pub(in crate::store) fn start(disk: &dyn Disk, path: PathBuf) -> Result<Self, DiskError> {
        let file = Arc::new(disk.create(&path)?);
        let mut buffer = Vec::with_capacity(BUFFER_BYTES);
        buffer.extend_from_slice(&START);
        Ok(Self { file, path, entries: Vec::new(), buffer, written: 0 })
    }

    /// Appends a record; returns where it lies, and what must be written now if that is due.
    pub(in crate::store) fn append(&mut self, record: &Record<'_>) -> (Entry, Option<Piece>) {
        let entry = record.append_to(&mut self.buffer, self.written);
        self.entries.push(entry);
        let piece = (self.buffer.len() >= BUFFER_BYTES).then(|| self.take_piece());
        (entry, piece)
    }

    /// Returns what is appended and not yet written.
    pub(in crate::store) fn take_piece(&mut self) -> Piece {
        let bytes = std::mem::replace(&mut self.buffer, Vec::with_capacity(BUFFER_BYTES));
        let at = self.written;
        self.written += bytes.len() as u64;
        Piece { file: Arc::clone(&self.file), path: self.path.clone(), at, bytes }
    }

    /// Returns what is left to be written, the index, and the name of the pack.
    fn finish(&mut self) -> (Piece, (Vec<u8>, Digest)) {
        let piece = self.take_piece();
        self.entries.sort_unstable_by_key(Entry::key);
        (piece, index::encode(&self.entries, self.written))
    }

    /// Returns whether the pack should be sealed before more is appended.
    pub(in crate::store) fn is_full(&self) -> bool {
        self.written + self.buffer.len() as u64 >= RECORDS_MAX_BYTES || self.entries.len() >= RECORDS_MAX
    }

    /// Returns where it is written.
    pub(in crate::store) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the file, in which every written record can be read.
    pub(in crate::store) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Returns what was appended.
    pub(in crate::store) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Writes what is left and the index, and opens the finished pack. All earlier pieces must have been written.
    ///
    /// A name that `is_taken` is not given: an older pack of that name is about to be taken away, and the new one in
    /// its place would go with it. A small record more makes it another one.
    ///
    /// # Errors
    ///
    /// [`DiskError`] if it cannot be written or read back.
    pub(in crate::store) fn seal(
        mut self,
        disk: &dyn Disk,
        is_taken: &dyn Fn(Digest) -> bool,
    ) -> Result<Pack, DiskError> {
        let (mut piece, mut index) = self.finish();
        while is_taken(index.1) {
            self.append(&filler(index.1.as_bytes()));
            let (more, longer) = self.finish();
            piece.bytes.extend_from_slice(&more.bytes);
            index = longer;
        }
        let (index, _) = index;
        piece.bytes.extend_from_slice(&index);
        piece.write(disk)?;
        disk.change(Change::Protect(&self.path))?;
        Pack::open(&self.path).map_err(|error| match error {
            BadPack::Disk(error) => error,
            BadPack::Damaged => {
                DiskError::on("read back", &self.path)(std::io::Error::other("it is not what was written"))
            }
        })
    }
}

impl Piece {
    /// Writes it.
    pub(in crate::store) fn write(&self, disk: &dyn Disk) -> Result<(), DiskError> {
        disk.write(&self.file, &self.path, self.at, &self.bytes)?;
        // A small pack is flushed so soon that it would only be another call.
        if self.bytes.len() >= BUFFER_BYTES {
            disk::begin_flush(&self.file, self.at, self.bytes.len());
        }
        Ok(())
    }
}

/// Returns a record that nobody needs, so that a pack gets another name.
fn filler(bytes: &[u8]) -> Record<'_> {
    let (tag, digest) = (Tag::Object(Kind::Blob), Kind::Blob.digest(bytes));
    let raw = u32::try_from(bytes.len()).expect("a digest has 32 bytes");
    Record { tag, digest, codec: 0, stored: bytes, raw, length: u64::from(raw) }
}

/// Returns the name of a pack's file.
pub(in crate::store) fn file_name(name: Digest) -> String {
    format!("{name}.pack")
}

/// Returns whether a file is named as a pack.
pub(in crate::store) fn is_pack(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "pack")
}
