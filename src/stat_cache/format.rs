//! The file of the memory: a header, directories, records, names. All sorted, read in place.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::ops::Range;
use std::path::Path;

use super::Known;
use crate::disk::{self, Mapped, Stat};
use crate::hash::{DIGEST_BYTES, Digest, Hasher};

const MAGIC: [u8; 16] = *b"pv-stat-cache 1\n";
const HEADER_BYTES: usize = 16 + 3 * 8 + DIGEST_BYTES;
/// Of a directory: where its path is and how long, its first record and how many.
const DIRECTORY_BYTES: usize = 4 * 8;
/// Of a file: size, times, inode, device, mode, digest, how long its name is and where.
const RECORD_BYTES: usize = STATE_BYTES + 4 + 8;
/// Of a file, what does not depend on where its name is.
const STATE_BYTES: usize = 5 * 8 + 4 + DIGEST_BYTES;

/// A memory that was read, or an empty one.
#[derive(Debug, Default)]
pub(super) struct Table {
    mapped: Option<Mapped>,
    directories: usize,
    records: usize,
}

impl Table {
    /// Returns the memory in the file at `path`. One that is missing, of another version or damaged is empty.
    pub(super) fn load(path: &Path) -> Self {
        match disk::map_file(path) {
            Ok(Some(mapped)) => match check(&mapped) {
                Some((directories, records)) => Self { mapped: Some(mapped), directories, records },
                None => Self::default(),
            },
            _ => Self::default(),
        }
    }

    pub(super) fn directories(&self) -> usize {
        self.directories
    }

    /// Returns the number of the directory at `path` and its records.
    pub(super) fn directory(&self, path: &[u8]) -> Option<(usize, Range<usize>)> {
        let (mut low, mut high) = (0, self.directories);
        while low < high {
            let middle = low + (high - low) / 2;
            let (other, records) = self.at(middle)?;
            match other.cmp(path) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some((middle, records)),
            }
        }
        None
    }

    /// Returns the path and the records of a directory.
    pub(super) fn at(&self, index: usize) -> Option<(&[u8], Range<usize>)> {
        let entry = self.slice(HEADER_BYTES + index * DIRECTORY_BYTES, DIRECTORY_BYTES)?;
        let [path, length, first, count] = [0, 8, 16, 24].map(|at| number(entry, at));
        let end = first.checked_add(count)?;
        (end <= self.records).then_some((self.name(path, length)?, first..end))
    }

    /// Returns the name of a file and what is known of it.
    pub(super) fn record(&self, index: usize) -> Option<(&[u8], Known)> {
        let start = HEADER_BYTES + self.directories * DIRECTORY_BYTES + index * RECORD_BYTES;
        let bytes = self.slice(start, RECORD_BYTES)?;
        let length = u32::from_le_bytes(bytes[STATE_BYTES..STATE_BYTES + 4].try_into().expect("four bytes"));
        let name = self.name(number(bytes, STATE_BYTES + 4), length as usize)?;
        Some((name, decode(&bytes[..STATE_BYTES])))
    }

    fn name(&self, at: usize, length: usize) -> Option<&[u8]> {
        let start = HEADER_BYTES + self.directories * DIRECTORY_BYTES + self.records * RECORD_BYTES;
        self.slice(start.checked_add(at)?, length)
    }

    fn slice(&self, start: usize, length: usize) -> Option<&[u8]> {
        self.mapped.as_ref()?.get(start..start.checked_add(length)?)
    }
}

/// Returns how many directories and records there are, if the bytes are what was written.
fn check(bytes: &[u8]) -> Option<(usize, usize)> {
    let (header, body) = bytes.split_at_checked(HEADER_BYTES)?;
    let [directories, records, names] = [16, 24, 32].map(|at| number(header, at));
    let expected = directories
        .checked_mul(DIRECTORY_BYTES)?
        .checked_add(records.checked_mul(RECORD_BYTES)?)?
        .checked_add(names)?;
    let is_whole = header.starts_with(&MAGIC)
        && body.len() == expected
        && Digest::of(body).as_bytes()[..] == header[HEADER_BYTES - DIGEST_BYTES..];
    is_whole.then_some((directories, records))
}

fn decode(bytes: &[u8]) -> Known {
    let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let time = |at: usize| i64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let stat = Stat {
        size: long(0),
        modified_ns: time(8),
        changed_ns: time(16),
        inode: long(24),
        device: long(32),
        mode: u32::from_le_bytes(bytes[40..44].try_into().expect("four bytes")),
    };
    Known { stat, digest: Digest::from_bytes(bytes[44..].try_into().expect("32 bytes")) }
}

fn encode(Known { stat, digest }: &Known) -> [u8; STATE_BYTES] {
    let mut bytes = [0; STATE_BYTES];
    bytes[..8].copy_from_slice(&stat.size.to_le_bytes());
    bytes[8..16].copy_from_slice(&stat.modified_ns.to_le_bytes());
    bytes[16..24].copy_from_slice(&stat.changed_ns.to_le_bytes());
    bytes[24..32].copy_from_slice(&stat.inode.to_le_bytes());
    bytes[32..40].copy_from_slice(&stat.device.to_le_bytes());
    bytes[40..44].copy_from_slice(&stat.mode.to_le_bytes());
    bytes[44..].copy_from_slice(digest.as_bytes());
    bytes
}

/// What is known of a directory, in as little memory as it takes: there may be a million files.
#[derive(Debug, Default)]
pub(super) struct Section {
    bytes: Vec<u8>,
    count: usize,
}

impl Section {
    /// Returns each file, in the order in which they were collected.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], Known)> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let (length, after) = rest.split_at_checked(4)?;
            let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
            let (name, after) = after.split_at_checked(length)?;
            let (state, after) = after.split_at_checked(STATE_BYTES)?;
            rest = after;
            Some((name, decode(state)))
        })
    }
}

impl<'a> FromIterator<(&'a [u8], Known)> for Section {
    fn from_iter<I: IntoIterator<Item = (&'a [u8], Known)>>(files: I) -> Self {
        let mut section = Self::default();
        for (name, known) in files {
            let length = u32::try_from(name.len()).expect("a name has at most 255 bytes");
            section.bytes.extend_from_slice(&length.to_le_bytes());
            section.bytes.extend_from_slice(name);
            section.bytes.extend_from_slice(&encode(&known));
            section.count += 1;
        }
        section.bytes.shrink_to_fit();
        section
    }
}

/// One directory on its way to the file: kept as it was, or changed.
enum Source<'a> {
    Kept(&'a Table, Range<usize>),
    Changed(&'a Section),
}

impl Source<'_> {
    fn count(&self) -> usize {
        match self {
            Self::Kept(_, range) => range.len(),
            Self::Changed(section) => section.count,
        }
    }

    fn each(&self, each: &mut dyn FnMut(&[u8], &Known) -> io::Result<()>) -> io::Result<()> {
        match self {
            Self::Kept(table, range) => range
                .clone()
                .try_for_each(|index| table.record(index).map_or(Ok(()), |(name, known)| each(name, &known))),
            Self::Changed(section) => section.iter().try_for_each(|(name, known)| each(name, &known)),
        }
    }
}

/// Writes a memory: the directories `kept` of `table` and the `changed` ones. Goes over them three times instead of holding a copy.
pub(super) fn write(
    file: &mut File,
    table: &Table,
    kept: &[usize],
    changed: &BTreeMap<Vec<u8>, Section>,
) -> io::Result<()> {
    let mut all: BTreeMap<&[u8], Source<'_>> =
        changed.iter().map(|(path, section)| (path.as_slice(), Source::Changed(section))).collect();
    all.extend(
        kept.iter().filter_map(|index| table.at(*index)).map(|(path, range)| (path, Source::Kept(table, range))),
    );
    let mut out = Hashing { out: BufWriter::with_capacity(1 << 20, &mut *file), hasher: Hasher::default() };
    out.out.write_all(&[0; HEADER_BYTES])?;
    let (mut name_at, mut records) = (0_u64, 0_u64);
    for (path, source) in &all {
        for number in [name_at, path.len() as u64, records, source.count() as u64] {
            out.write(&number.to_le_bytes())?;
        }
        name_at += path.len() as u64;
        records += source.count() as u64;
    }
    for source in all.values() {
        source.each(&mut |name, known| {
            out.write(&encode(known))?;
            out.write(&u32::try_from(name.len()).expect("a name has at most 255 bytes").to_le_bytes())?;
            out.write(&name_at.to_le_bytes())?;
            name_at += name.len() as u64;
            Ok(())
        })?;
    }
    all.keys().try_for_each(|path| out.write(path))?;
    all.values().try_for_each(|source| source.each(&mut |name, _| out.write(name)))?;
    let (digest, _) = out.hasher.finish();
    out.out.flush()?;
    drop(out);
    let mut header = MAGIC.to_vec();
    for number in [all.len() as u64, records, name_at] {
        header.extend_from_slice(&number.to_le_bytes());
    }
    header.extend_from_slice(digest.as_bytes());
    file.rewind()?;
    file.write_all(&header)
}

/// Hashes what is written.
struct Hashing<W> {
    out: W,
    hasher: Hasher,
}

impl<W: Write> Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.out.write_all(bytes)
    }
}

/// Returns the number at `at`, or one that leads nowhere if it is too large for this machine.
fn number(bytes: &[u8], at: usize) -> usize {
    let number = u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Durability;
    use proptest::prelude::*;

    type Files = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, (u64, i64)>>;

    fn files() -> impl Strategy<Value = Files> {
        let name = || prop::collection::vec(1_u8..=255, 0..20);
        prop::collection::btree_map(
            name(),
            prop::collection::btree_map(name(), (any::<u64>(), any::<i64>()), 0..12),
            0..8,
        )
    }

    fn known(size: u64, time: i64) -> Known {
        let stat = Stat {
            size,
            modified_ns: time,
            changed_ns: time.wrapping_add(1),
            inode: size ^ 7,
            device: 3,
            mode: 0o100_644,
        };
        Known { stat, digest: Digest::of(&size.to_le_bytes()) }
    }

    fn encoded(files: &Files) -> Vec<u8> {
        let section = |files: &BTreeMap<Vec<u8>, (u64, i64)>| {
            files.iter().map(|(name, (size, time))| (name.as_slice(), known(*size, *time))).collect()
        };
        let all = files.iter().map(|(path, files)| (path.clone(), section(files))).collect();
        let mut file = tempfile::tempfile().unwrap();
        write(&mut file, &Table::default(), &[], &all).unwrap();
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        io::Read::read_to_end(&mut file, &mut bytes).unwrap();
        bytes
    }

    fn loaded(bytes: &[u8]) -> (tempfile::TempDir, Table) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("cache");
        disk::write_whole(&path, bytes, Durability::Deferred).unwrap();
        let table = Table::load(&path);
        (root, table)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn everything_comes_back(files in files()) {
            let (_root, table) = loaded(&encoded(&files));
            prop_assert_eq!(table.directories(), files.len());
            for (path, files) in &files {
                let (_, range) = table.directory(path).unwrap();
                let found: Vec<_> = range.map(|index| table.record(index).unwrap()).collect();
                let expected: Vec<_> = files.iter().map(|(name, (size, time))| (name.as_slice(), known(*size, *time))).collect();
                prop_assert_eq!(found, expected);
            }
            prop_assert!(table.directory(b"\0never").is_none());
        }

        #[test]
        fn a_damaged_or_shortened_memory_is_an_empty_one(files in files(), at in any::<prop::sample::Index>(), cut: bool) {
            let mut bytes = encoded(&files);
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= 1 }
            prop_assert_eq!(loaded(&bytes).1.directories(), 0);
        }

        #[test]
        fn any_bytes_are_a_memory_or_an_empty_one(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = bytes;
            let at = MAGIC.len().min(bytes.len());
            bytes[..at].copy_from_slice(&MAGIC[..at]);
            prop_assert_eq!(loaded(&bytes).1.directories(), 0);
        }
    }
}
