//! Reading tar files, of which every byte may be meant to do harm.
//!
//! Knows what image builders write: ustar, and the extensions of POSIX and of GNU for
//! long names, large sizes and sparse files. Nothing is
//! believed before it is checked, and no more is held of an entry than its header.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};

const BLOCK_BYTES: usize = 512;
/// A name or an extended header is not longer than this.
const EXTENSION_MAX_BYTES: u64 = 1 << 20;
/// So many parts of a sparse file are stored at the most. In GNU's form there are four in its header and 21 in each block
/// behind it; in that of POSIX they are a list of numbers before its bytes.
const SPANS_MAX: usize = 1 << 20;

/// No number of 64 bits has more.
const NUMBER_MAX_DIGITS: usize = 20;

/// What a tar file is read from.
pub(super) trait Input: Read + Sized {
    /// Goes over so many bytes.
    ///
    /// # Errors
    ///
    /// What the system says; that there are not so many may be told by the next read only.
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.by_ref().take(bytes), &mut io::sink())?;
        if skipped == bytes { Ok(()) } else { Err(bad("it ends in the middle")) }
    }
}

/// A stream, which can only be read.
pub(super) struct Stream<R>(pub(super) R);

impl<R: Read> Read for Stream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read> Input for Stream<R> {}

/// A file, in which what is not wanted need not be read.
pub(super) struct Seekable<F>(pub(super) F);

impl<F: Read> Read for Seekable<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<F: Read + Seek> Input for Seekable<F> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let bytes = i64::try_from(bytes).map_err(|_| bad("an entry is too large"))?;
        self.0.seek(SeekFrom::Current(bytes)).map(drop)
    }
}

/// What an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum EntryKind {
    File,
    HardLink,
    Symlink,
    Directory,
    /// A character or block device.
    Device,
    Pipe,
}

/// The header of an entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) kind: EntryKind,
    /// The name as it is written there.
    pub(super) path: Vec<u8>,
    /// Where a link leads.
    pub(super) target: Vec<u8>,
    pub(super) mode: u32,
    /// The length of the file, holes included.
    pub(super) size: u64,
    /// Where its bytes begin in the tar file.
    pub(super) offset: u64,
}

/// Entries of a tar file in their order, and the bytes of the one that was told last.
pub(super) struct Tar<R> {
    input: R,
    /// How many bytes of the tar file were read.
    position: u64,
    /// How much of the entry is still to be read of the input, padding not counted.
    stored_left: u64,
    padding: u64,
    /// What is left of the file: bytes that are stored, or a hole.
    spans: std::collections::VecDeque<Span>,
    /// What the header said that is read now, for whoever tells what is wrong with it.
    last_name: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Span {
    Stored(u64),
    Hole(u64),
}

pub(super) fn bad(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl<R: Input> Tar<R> {
    pub(super) fn new(input: R) -> Self {
        let (spans, last_name) = (std::collections::VecDeque::new(), Vec::new());
        Self { input, position: 0, stored_left: 0, padding: 0, spans, last_name }
    }

    /// Returns the name in the last header that was understood.
    pub(super) fn last_name(&self) -> &[u8] {
        &self.last_name
    }

    pub(super) fn into_inner(self) -> R {
        self.input
    }

    /// Returns the next entry; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidData`] if it is no tar file that is known here, and what the input says.
    pub(super) fn next(&mut self) -> io::Result<Option<Entry>> {
        self.skip_rest()?;
        let (mut long_name, mut long_target, mut extended) = (None, None, BTreeMap::new());
        loop {
            let Some(block) = self.header()? else {
                let is_loose = long_name.is_some() || long_target.is_some() || !extended.is_empty();
                return if is_loose { Err(bad("it ends behind an extended header")) } else { Ok(None) };
            };
            match block[156] {
                b'L' => long_name = Some(until_nul(&self.extension(&block)?).to_vec()),
                b'K' => long_target = Some(until_nul(&self.extension(&block)?).to_vec()),
                b'x' => extended = records(&self.extension(&block)?)?,
                // What it says is for all entries, and nobody puts there what matters.
                b'g' => drop(self.extension(&block)?),
                _ => return self.entry(&block, long_name, long_target, &extended).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        block: &[u8; BLOCK_BYTES],
        long_name: Option<Vec<u8>>,
        long_target: Option<Vec<u8>>,
        extended: &BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> io::Result<Entry> {
        let said = |key: &str| extended.get(key.as_bytes()).cloned();
        let name = said("GNU.sparse.name").or_else(|| said("path"));
        let path = name.or(long_name).unwrap_or_else(|| name_in(block));
        self.last_name.clone_from(&path);
        let is_posix_sparse = extended.keys().any(|key| key.starts_with(b"GNU.sparse."));
        let stored = match said("size") {
            Some(text) => decimal(&text).ok_or_else(|| bad("its size is no number"))?,
            None => number(&block[124..136])?,
        };
        let kind = match block[156] {
            b'0' | b'7' | 0 if path.ends_with(b"/") => EntryKind::Directory,
            b'0' | b'7' | 0 | b'S' => EntryKind::File,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'3' | b'4' => EntryKind::Device,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Pipe,
            _ => return Err(bad("it is of a kind that is not known here")),
        };
        let mode = u32::try_from(number(&block[100..108])? & 0o7777).expect("twelve bits");
        let (size, spans, list) = if is_posix_sparse {
            self.posix_sparse(extended, stored)?
        } else if block[156] == b'S' {
            self.sparse(block, stored)?
        } else {
            (stored, vec![Span::Stored(stored)], 0)
        };
        self.stored_left = stored - list;
        self.padding = padding(stored);
        self.spans = spans.into();
        let target = said("linkpath").or(long_target).unwrap_or_else(|| until_nul(&block[157..257]).to_vec());
        Ok(Entry { kind, path, target, mode, size, offset: self.position })
    }

    /// Returns the size of a sparse file, where it has holes, and how many of the stored bytes say so.
    fn sparse(&mut self, block: &[u8; BLOCK_BYTES], stored: u64) -> io::Result<(u64, Vec<Span>, u64)> {
        let mut listed = pairs(&block[386..482])?;
        let mut has_more = block[482] != 0;
        let size = number(&block[483..495])?;
        while has_more {
            let more = self.block()?.ok_or_else(|| bad("it ends in the middle"))?;
            listed.extend(pairs(&more[..504])?);
            has_more = more[504] != 0;
            if listed.len() > SPANS_MAX {
                return Err(bad("it has too many holes"));
            }
        }
        Ok((size, spans(listed, size, stored)?, 0))
    }

    /// Returns the same of a sparse file as POSIX has it in version 1.0: the list is in blocks before its bytes.
    fn posix_sparse(
        &mut self,
        extended: &BTreeMap<Vec<u8>, Vec<u8>>,
        stored: u64,
    ) -> io::Result<(u64, Vec<Span>, u64)> {
        let said = |key: &str| extended.get(key.as_bytes()).map(Vec::as_slice);
        if (said("GNU.sparse.major"), said("GNU.sparse.minor")) != (Some(b"1"), Some(b"0")) {
            return Err(bad("it is a sparse file in a form that is not known here"));
        }
        let no_number = || bad("a number in the list of its holes is none");
        let size = said("GNU.sparse.realsize").and_then(decimal).ok_or_else(|| bad("its size is no number"))?;
        let (mut numbers, mut digits, mut wanted, mut list) = (Vec::new(), Vec::new(), 1, 0);
        while numbers.len() < wanted {
            list += BLOCK_BYTES as u64;
            if list > stored {
                return Err(bad("its holes do not fit its size"));
            }
            for byte in self.block()?.ok_or_else(|| bad("it ends in the middle"))? {
                if byte != b'\n' {
                    digits.push(byte);
                    continue;
                }
                let number = decimal(&std::mem::take(&mut digits)).ok_or_else(no_number)?;
                if numbers.is_empty() {
                    let parts = usize::try_from(number).ok().filter(|parts| *parts <= SPANS_MAX);
                    wanted = 1 + 2 * parts.ok_or_else(|| bad("it has too many holes"))?;
                }
                numbers.push(number);
                if numbers.len() == wanted {
                    break;
                }
            }
            if digits.len() > NUMBER_MAX_DIGITS {
                return Err(no_number());
            }
        }
        let listed = numbers[1..].chunks_exact(2).map(|pair| (pair[0], pair[1]));
        Ok((size, spans(listed.collect(), size, stored - list)?, list))
    }

    /// Goes over what was not read of the last entry.
    fn skip_rest(&mut self) -> io::Result<()> {
        let rest = self.stored_left + self.padding;
        if rest > 0 {
            self.input.skip(rest)?;
        }
        self.position += rest;
        (self.stored_left, self.padding) = (0, 0);
        self.spans.clear();
        Ok(())
    }

    /// Returns the next header; `None` at the end, which is a block of zeros or that of the input.
    fn header(&mut self) -> io::Result<Option<[u8; BLOCK_BYTES]>> {
        let Some(block) = self.block()? else { return Ok(None) };
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let told = number(&block[148..156]).map_err(|_| bad("the header behind it is damaged"))?;
        let sum = |byte: &dyn Fn(u8) -> i64| -> i64 {
            let blanks = 8 * i64::from(b' ');
            block[..148].iter().chain(&block[156..]).map(|each| byte(*each)).sum::<i64>() + blanks
        };
        // Some old programs added the bytes up with their signs.
        let is_right = [sum(&|byte| i64::from(byte)), sum(&|byte| i64::from(byte.cast_signed()))]
            .into_iter()
            .any(|sum| u64::try_from(sum) == Ok(told));
        if is_right { Ok(Some(block)) } else { Err(bad("the header behind it is damaged")) }
    }

    fn block(&mut self) -> io::Result<Option<[u8; BLOCK_BYTES]>> {
        let mut block = [0; BLOCK_BYTES];
        let mut filled = 0;
        while filled < BLOCK_BYTES {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(bad("it ends in the middle")),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.position += BLOCK_BYTES as u64;
        Ok(Some(block))
    }

    /// Returns the content of a header that says more about the entry behind it.
    fn extension(&mut self, block: &[u8; BLOCK_BYTES]) -> io::Result<Vec<u8>> {
        let size = number(&block[124..136])?;
        if size > EXTENSION_MAX_BYTES {
            return Err(bad("an extended header is too large"));
        }
        let mut bytes = Vec::new();
        self.input.by_ref().take(size).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != size {
            return Err(bad("it ends in the middle"));
        }
        self.input.skip(padding(size))?;
        self.position += size + padding(size);
        Ok(bytes)
    }
}

impl<R: Input> Read for Tar<R> {
    /// Reads of the last entry, holes as zeros. An input that ends before it does is an error.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let (left, is_hole) = match self.spans.front_mut() {
                None => return Ok(0),
                Some(Span::Stored(left)) => (left, false),
                Some(Span::Hole(left)) => (left, true),
            };
            if *left == 0 {
                self.spans.pop_front();
                continue;
            }
            let wanted = buffer.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
            if wanted == 0 {
                return Ok(0);
            }
            let count = if is_hole {
                buffer[..wanted].fill(0);
                wanted
            } else {
                let count = self.input.read(&mut buffer[..wanted])?;
                if count == 0 {
                    return Err(bad("it ends in the middle"));
                }
                self.stored_left -= count as u64;
                self.position += count as u64;
                count
            };
            *left -= count as u64;
            return Ok(count);
        }
    }
}

/// Returns what a file of so many bytes consists of, of which these parts, and so many bytes together, are stored.
fn spans(listed: Vec<(u64, u64)>, size: u64, stored: u64) -> io::Result<Vec<Span>> {
    let (mut at, mut sum, mut spans) = (0_u64, 0_u64, Vec::new());
    for (begin, length) in listed {
        let end = begin.checked_add(length).filter(|end| begin >= at && *end <= size);
        let Some(end) = end else { return Err(bad("its holes overlap")) };
        spans.push(Span::Hole(begin - at));
        spans.push(Span::Stored(length));
        (at, sum) = (end, sum + length);
    }
    spans.push(Span::Hole(size - at));
    if sum == stored { Ok(spans) } else { Err(bad("its holes do not fit its size")) }
}

fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK_BYTES as u64) - size
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Returns the name in a header, which ustar can split in two.
fn name_in(block: &[u8; BLOCK_BYTES]) -> Vec<u8> {
    let (name, prefix) = (until_nul(&block[..100]), until_nul(&block[345..500]));
    // GNU has other things there, under another mark.
    let is_split = &block[257..263] == b"ustar\0" && !prefix.is_empty();
    if is_split { [prefix, b"/", name].concat() } else { name.to_vec() }
}

/// Returns a number in octal digits, or in base 256 if its first bit is set.
fn number(field: &[u8]) -> io::Result<u64> {
    let none = || bad("a number in its header is none");
    if field[0] & 0x80 != 0 {
        let (above, value) = field.split_at(field.len() - 8);
        if above.iter().enumerate().any(|(index, byte)| *byte != if index == 0 { 0x80 } else { 0 }) {
            return Err(none());
        }
        return Ok(u64::from_be_bytes(value.try_into().expect("eight bytes")));
    }
    let digits: Vec<u8> = until_nul(field).iter().copied().filter(|byte| *byte != b' ').collect();
    let mut value = 0_u64;
    for digit in digits {
        if !(b'0'..=b'7').contains(&digit) {
            return Err(none());
        }
        value = value.checked_mul(8).ok_or_else(none)? + u64::from(digit - b'0');
    }
    Ok(value)
}

fn decimal(text: &[u8]) -> Option<u64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
}

/// Returns pairs of offset and length, of 12 bytes each, as far as there are any.
fn pairs(field: &[u8]) -> io::Result<Vec<(u64, u64)>> {
    let mut pairs = Vec::new();
    for pair in field.chunks_exact(24).take_while(|pair| pair[0] != 0) {
        pairs.push((number(&pair[..12])?, number(&pair[12..])?));
    }
    Ok(pairs)
}

/// Returns the records of an extended header: `length key=value` and a line end each.
fn records(mut bytes: &[u8]) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let damaged = || bad("an extended header is damaged");
    let mut records = BTreeMap::new();
    while !bytes.is_empty() {
        let blank = bytes.iter().position(|byte| *byte == b' ').ok_or_else(damaged)?;
        let length = decimal(&bytes[..blank]).and_then(|length| usize::try_from(length).ok()).ok_or_else(damaged)?;
        if length <= blank + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
            return Err(damaged());
        }
        let record = &bytes[blank + 1..length - 1];
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(damaged)?;
        records.insert(record[..equals].to_vec(), record[equals + 1..].to_vec());
        bytes = &bytes[length..];
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(bytes: &[u8]) -> io::Result<Vec<(Entry, Vec<u8>)>> {
        let mut tar = Tar::new(Stream(bytes));
        let mut entries = Vec::new();
        while let Some(entry) = tar.next()? {
            let mut content = Vec::new();
            tar.by_ref().take(64 << 20).read_to_end(&mut content)?;
            entries.push((entry, content));
        }
        Ok(entries)
    }

    /// Returns what the program tar makes of some files, in its own format.
    fn made(format: &str) -> Vec<u8> {
        let root = tempfile::tempdir().unwrap();
        let long = "l".repeat(150);
        let script = format!(
            "mkdir -p d/{long}; printf hello > d/{long}/f; chmod 755 d/{long}/f; ln d/{long}/f d/hard
             ln -s {long}/{long} d/soft; printf x > d/sparse; truncate -s 3M d/sparse; printf y >> d/sparse
             tar --sort=name --format={format} --sparse -cf - d"
        );
        #[expect(clippy::disallowed_methods, reason = "the program that others pack with")]
        let done = std::process::Command::new("sh").args(["-ec", &script]).current_dir(root.path()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        done.stdout
    }

    #[test]
    fn what_tar_packs_is_read_in_the_form_of_gnu_and_in_that_of_posix() {
        for format in ["gnu", "posix"] {
            reads_all_of(format);
        }
    }

    fn reads_all_of(format: &str) {
        let entries = all(&made(format)).unwrap();
        let long = "l".repeat(150);
        let find = |name: &str| {
            let path = format!("d/{name}");
            entries.iter().find(|(entry, _)| entry.path == path.as_bytes()).unwrap_or_else(|| panic!("{path}"))
        };
        let names = [format!("{long}/f"), "hard".to_owned()].map(|name| find(&name).clone());
        let (file, link) = if names[0].0.kind == EntryKind::File { (0, 1) } else { (1, 0) };
        assert_eq!((names[file].1.as_slice(), names[file].0.mode), (&b"hello"[..], 0o755));
        assert_eq!(names[link].0.kind, EntryKind::HardLink);
        assert_eq!(names[link].0.target, names[file].0.path);
        assert_eq!(find("soft").0.target, format!("{long}/{long}").into_bytes());
        let (sparse, content) = find("sparse");
        assert_eq!((sparse.size, content.len()), ((3 << 20) + 1, (3 << 20) + 1));
        assert_eq!((content[0], content[1], *content.last().unwrap()), (b'x', 0, b'y'));
    }

    /// Nobody writes those any more.
    #[test]
    fn older_forms_of_sparse_files_are_refused_and_not_misread() {
        for version in ["0.0", "0.1"] {
            let error = all(&made(&format!("posix --sparse-version={version}"))).unwrap_err();
            assert!(error.to_string().contains("sparse"), "{error}");
        }
    }

    #[test]
    fn what_is_cut_off_is_noticed_wherever() {
        for format in ["gnu", "posix"] {
            let whole = made(format);
            let ends = all(&whole).unwrap().iter().map(|(entry, _)| entry.offset).max().unwrap();
            for length in (1..usize::try_from(ends).unwrap()).step_by(97).filter(|length| length % BLOCK_BYTES != 0) {
                assert!(all(&whole[..length]).is_err(), "{length}");
            }
        }
    }

    /// Returns a sparse file of 1000 bytes in the form of POSIX, with a list of its parts and 512 bytes behind that.
    fn with_list(list: &str) -> Vec<u8> {
        let header = |kind: u8, size: usize| {
            let mut block = [0_u8; BLOCK_BYTES];
            block[..3].copy_from_slice(b"abc");
            block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
            block[156] = kind;
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum::<u32>() + 256;
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            block
        };
        let records = "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n28 GNU.sparse.realsize=1000\n";
        let mut list = list.as_bytes().to_vec();
        list.resize(list.len().next_multiple_of(BLOCK_BYTES), 0);
        let mut out = header(b'x', records.len()).to_vec();
        out.extend(records.as_bytes());
        out.resize(2 * BLOCK_BYTES, 0);
        out.extend(header(b'0', list.len() + BLOCK_BYTES));
        out.extend(list);
        out.extend([b'y'; BLOCK_BYTES]);
        out
    }

    #[test]
    fn a_list_of_holes_that_cannot_be_is_refused_and_never_held_whole() {
        let (entry, content) = all(&with_list("1\n100\n512\n")).unwrap().remove(0);
        assert_eq!((entry.size, content.len(), content[99], content[100], content[612]), (1000, 1000, 0, b'y', 0));
        for (list, why) in [
            ("1\n900\n512\n", "overlap"),
            ("2\n500\n256\n100\n256\n", "overlap"),
            ("1\n0\n511\n", "do not fit"),
            ("99999999999\n", "too many"),
            ("18446744073709551616\n", "is none"),
            ("1\n-1\n512\n", "is none"),
            ("3\n1\n", "is none"),
            (&"1".repeat(600), "is none"),
        ] {
            let error = all(&with_list(list)).unwrap_err().to_string();
            assert!(error.contains(why), "{list}: {error}");
        }
    }

    #[test]
    fn numbers_are_octal_or_of_base_256_and_never_overflow() {
        assert_eq!(number(b"0000644\0").unwrap(), 0o644);
        assert_eq!(number(b"   644 \0").unwrap(), 0o644);
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0x54, 0x0b, 0xe4, 0]).unwrap(), 10_000_000_000);
        assert!(number(b"77777777777777777777777").is_err());
        assert!(number(&[0xff; 12]).is_err(), "a negative size");
        assert!(number(b"0x12").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048), at in 0..512_usize, value: u8) {
            let _ = all(&bytes);
            let mut block = [0_u8; 1024];
            block[..3].copy_from_slice(b"abc");
            block[156] = b'S';
            block[at] = value;
            let sum: u32 = block[..148].iter().chain(&block[156..512]).map(|byte| u32::from(*byte)).sum::<u32>() + 256;
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            let _ = all(&block);
        }
    }
}
