//! What is compressed, and archives: what is in them counts, not how it was packed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read;

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use lzma_rust2::{LzmaReader, XzReader};

use super::foreign::foreign;
use super::report::{Finding, Report};
use super::{bytes, compare, say_unreadable, text};

/// How much of one thing is unpacked at most, in bytes.
pub(super) const MEMBER_MAX_BYTES: u64 = 256 * 1024 * 1024;
/// How deep archives in archives are looked into.
pub(super) const DEPTH_MAX: usize = 8;
/// The largest window of a zstd frame, as a power of two; what asks for more is not unpacked.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// How much memory xz and its predecessor may take for their window.
const XZ_MAX_KIB: u32 = 160 * 1024;

/// How bytes are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Method {
    /// Not at all.
    Stored,
    /// As in a zip archive, without a frame.
    Deflate,
    /// As a gzip file, with any number of parts.
    Gzip,
    /// With a frame of two bytes in front, as joblib does.
    Zlib,
    /// As a zstd file.
    Zstd,
    /// As a bzip2 file, with any number of parts.
    Bzip2,
    /// As an xz file, with any number of parts.
    Xz,
    /// As its predecessor, which joblib writes too.
    Lzma,
    /// By means that are not known here.
    Unknown,
}

impl Method {
    /// Returns how a whole file is compressed, by its first bytes.
    pub(super) fn of_file(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0x1f, 0x8b, 8, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31 | 0x17, 0x41 | 0x72, ..] => Some(Self::Bzip2),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            // It has no mark: the usual settings, a window of whole 64 KiB, and a length that is unknown or can be.
            [0x5d, 0, 0, _, _, length @ ..] if length.starts_with(&[0xff; 8]) || length.get(5..8) == Some(&[0; 3]) => {
                Some(Self::Lzma)
            }
            [first @ (0x58 | 0x68 | 0x78), second, ..] if (u32::from(*first) * 256 + u32::from(*second)) % 31 == 0 => {
                Some(Self::Zlib)
            }
            _ => None,
        }
    }

    /// Returns the word for it.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Lzma => "lzma",
            Self::Zlib => "zlib",
            Self::Stored | Self::Deflate | Self::Unknown => "packed",
        }
    }
}

/// Why something is not unpacked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Obstacle {
    /// It would be too much.
    TooLarge,
    /// It is damaged, or packed by means that are not known here.
    Unreadable,
}

/// Returns what was packed, unless it is more than may be made of it.
pub(super) fn unpack<'a>(report: &Report, method: Method, packed: &'a [u8]) -> Result<Cow<'a, [u8]>, Obstacle> {
    foreign(|| Some(unpack_within(report, method, packed))).unwrap_or(Err(Obstacle::Unreadable))
}

fn unpack_within<'a>(report: &Report, method: Method, packed: &'a [u8]) -> Result<Cow<'a, [u8]>, Obstacle> {
    let limit = report.budget_bytes().min(MEMBER_MAX_BYTES);
    let read = |reader: &mut dyn Read| {
        let mut out = Vec::new();
        let read = reader.take(limit + 1).read_to_end(&mut out);
        match read {
            _ if out.len() as u64 > limit => Err(Obstacle::TooLarge),
            Err(_) => Err(Obstacle::Unreadable),
            Ok(_) => Ok(Cow::Owned(out)),
        }
    };
    match method {
        Method::Stored => Ok(Cow::Borrowed(packed)),
        Method::Deflate => read(&mut DeflateDecoder::new(packed)),
        Method::Gzip => read(&mut MultiGzDecoder::new(packed)),
        Method::Zlib => read(&mut ZlibDecoder::new(packed)),
        Method::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(|_| Obstacle::Unreadable)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|_| Obstacle::Unreadable)?;
            read(&mut decoder)
        }
        Method::Bzip2 => read(&mut MultiBzDecoder::new(packed)),
        Method::Xz => read(&mut XzReader::new_mem_limit(packed, true, XZ_MAX_KIB)),
        Method::Lzma => {
            let decoder = LzmaReader::new_mem_limit(packed, XZ_MAX_KIB, None);
            read(&mut decoder.map_err(|_| Obstacle::Unreadable)?)
        }
        Method::Unknown => Err(Obstacle::Unreadable),
    }
}

/// Compares two compressed files by what is in them; `None` if one of them cannot be unpacked.
pub(super) fn compare_files(report: &mut Report, method: Method, name: &str, old: &[u8], new: &[u8]) -> Option<()> {
    let (old, new) = match (unpack(report, method, old), unpack(report, method, new)) {
        (Ok(old), Ok(new)) => (old, new),
        (Err(Obstacle::TooLarge), _) | (_, Err(Obstacle::TooLarge)) => {
            report.note("too large to unpack");
            return None;
        }
        (old, new) => {
            // Others than these begin with bytes that anything may begin with.
            if !matches!(method, Method::Zlib | Method::Lzma) {
                say_unreadable(report, method.word(), old.is_ok(), new.is_ok());
            }
            return None;
        }
    };
    report.spend(old.len().max(new.len()) as u64);
    let inner = inner_name(name);
    report.inside(String::new(), |report| compare(report, &inner, &old, &new));
    Some(())
}

/// Returns the name of what is in a compressed file.
fn inner_name(name: &str) -> String {
    match name.rsplit_once('.') {
        Some((inner, ending)) => match ending.to_ascii_lowercase().as_str() {
            "tgz" | "tbz" | "tbz2" | "txz" => format!("{inner}.tar"),
            "gz" | "z" | "zst" | "bz2" | "xz" | "lzma" => inner.to_owned(),
            _ => name.to_owned(),
        },
        None => name.to_owned(),
    }
}

/// One thing in an archive.
#[derive(Debug)]
pub(super) struct Member<'a> {
    /// Its name.
    pub(super) name: String,
    /// What else it is: its kind, its rights, where a link leads.
    pub(super) about: String,
    /// What is in it.
    pub(super) content: &'a [u8],
    /// How that is compressed.
    pub(super) method: Method,
}

/// Compares two archives by their members, whatever their order.
pub(super) fn compare_members(report: &mut Report, old: &[Member<'_>], new: &[Member<'_>]) {
    let (old, new) = (by_name(old), by_name(new));
    for (key, before) in &old {
        match new.get(key) {
            Some(after) => members(report, key, before, after),
            None => report.differ(|| Finding::of(place(key), Some(describe(before)), None)),
        }
    }
    for (key, after) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
        report.differ(|| Finding::of(place(key), None, Some(describe(after))));
    }
}

/// A name, and how many members before have it as well.
type Key<'a> = (&'a str, usize);

fn by_name<'a>(members: &'a [Member<'a>]) -> BTreeMap<Key<'a>, &'a Member<'a>> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let keyed = members.iter().map(|member| {
        let count = counts.entry(&member.name).or_default();
        *count += 1;
        ((member.name.as_str(), *count - 1), member)
    });
    keyed.collect()
}

fn place((name, before): &Key<'_>) -> String {
    if *before == 0 { format!("member {name}") } else { format!("member {name} ({})", before + 1) }
}

fn describe(member: &Member<'_>) -> String {
    let packed = if member.method == Method::Stored { "" } else { " packed" };
    let size = format!("{} bytes{packed}", member.content.len());
    if member.about.is_empty() { size } else { format!("{}, {size}", member.about) }
}

fn members(report: &mut Report, key: &Key<'_>, old: &Member<'_>, new: &Member<'_>) {
    if old.about != new.about {
        report.differ(|| Finding::of_texts(place(key), &old.about, &new.about));
    }
    if (old.method, old.content) == (new.method, new.content) {
        return;
    }
    let unpacked = (unpack(report, old.method, old.content), unpack(report, new.method, new.content));
    report.inside(place(key), |report| match unpacked {
        (Ok(before), Ok(after)) => {
            report.spend(before.len().max(after.len()) as u64);
            compare(report, &old.name, &before, &after);
        }
        (before, after) => {
            let is_large = [before.err(), after.err()].contains(&Some(Obstacle::TooLarge));
            report.note(if is_large { "too large to unpack" } else { "cannot be unpacked" });
            if old.content == new.content {
                report.differ(|| {
                    Finding::of("packed", Some(format!("{:?}", old.method)), Some(format!("{:?}", new.method)))
                });
            } else {
                bytes::compare(report, old.content, new.content);
            }
        }
    });
}

/// Returns the name of a member as text; names in archives may be any bytes.
pub(super) fn name_of(bytes: &[u8]) -> String {
    text::read(bytes).map_or_else(|| crate::path::escape(bytes).into_owned(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;

    use super::*;
    use crate::compare::compare_bytes;
    use crate::disk;
    use crate::pipeline::{Level, Tolerance};

    fn gzip(content: &[u8], level: u32) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn compared(ending: &str, budget_bytes: u64, old: &[u8], new: &[u8]) -> crate::compare::Comparison {
        let mut report = Report::new(Tolerance::default(), budget_bytes);
        let name = format!("x.{ending}");
        let format = compare(&mut report, &name, old, new);
        report.finish(&name, format)
    }

    #[test]
    fn what_would_become_too_much_is_not_unpacked() {
        let content = vec![b'x'; 100_000];
        let (old, new) = (gzip(&content, 1), gzip(&content, 9));
        assert!(old != new && old.len() < 2000, "{} bytes", old.len());
        assert_eq!(compared("gz", 100_000, &old, &new).level, Level::Canonical);
        let bomb = compared("gz", 99_999, &old, &new);
        assert_eq!((bomb.level, bomb.format), (Level::Different, "bytes"));
        assert!(bomb.note.as_deref().unwrap().starts_with("too large to unpack; "), "{bomb}");
    }

    /// Two files with the same content that others compressed differently, and the length of that.
    fn fixtures() -> Vec<(&'static str, Vec<u8>, Vec<u8>, u64)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/compare/canonical");
        let read = |name: String| disk::read_if_there(&root.join(name)).unwrap().unwrap();
        let endings = [("csv.gz", 10), ("csv.bz2", 10), ("json.xz", 34), ("txt.lzma", 8)];
        endings
            .map(|(ending, length)| (ending, read(format!("old.{ending}")), read(format!("new.{ending}")), length))
            .into()
    }

    #[test]
    fn no_format_is_unpacked_beyond_what_may_be_made_of_it() {
        for (ending, old, new, length) in fixtures() {
            assert_eq!(compared(ending, length, &old, &new).level, Level::Canonical, "{ending}");
            let bomb = compared(ending, length - 3, &old, &new);
            assert_eq!((bomb.level, bomb.format), (Level::Different, "bytes"), "{ending}");
            assert!(bomb.note.as_deref().unwrap().starts_with("too large to unpack; "), "{ending}: {bomb}");
        }
    }

    #[test]
    fn a_compressed_file_that_is_broken_off_is_not_taken_for_a_whole_one() {
        for (ending, old, new, _) in fixtures() {
            for length in 0..old.len() {
                let cut = compared(ending, 1000, &old[..length], &new);
                assert_eq!((cut.level, cut.format), (Level::Different, "bytes"), "{ending} cut at {length}");
            }
        }
    }

    #[test]
    fn what_asks_for_more_memory_than_there_may_be_is_not_unpacked() {
        // The window of the older format is told in the second to fifth byte; that of the newer in one behind its header.
        let (_, mut old, new, _) = fixtures().remove(3);
        old[1..5].copy_from_slice(&0x2000_0000_u32.to_le_bytes());
        assert!(Method::of_file(&old) == Some(Method::Lzma) && Method::of_file(&new) == Some(Method::Lzma));
        assert_eq!(compared("lzma", 1000, &old, &new).format, "bytes");
    }

    #[test]
    fn what_is_packed_in_itself_many_times_has_an_end() {
        let nested = |content: &[u8], level| (0..20).fold(content.to_owned(), |inner, _| gzip(&inner, level));
        let (old, new) = (nested(b"text", 1), nested(b"other", 1));
        assert_eq!(compare_bytes("x.gz", &old, &new).level, Level::Different);
    }

    #[test]
    fn zlib_and_zstd_are_unpacked_too() {
        let zlib = |level| {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(level));
            encoder.write_all(&[7; 1000]).unwrap();
            encoder.finish().unwrap()
        };
        let comparison = compare_bytes("x.z", &zlib(1), &zlib(9));
        assert_eq!((comparison.level, comparison.format), (Level::Canonical, "zlib"));
        let zstd = |level| zstd::encode_all(&b"a,b\n1,2\n1,2\n1,2\n1,2\n1,2\n".repeat(50)[..], level).unwrap();
        let (old, new) = (zstd(1), zstd(19));
        assert_ne!(old, new);
        let comparison = compare_bytes("x.csv.zst", &old, &new);
        assert_eq!((comparison.level, comparison.format), (Level::Canonical, "zstd"));
    }
}
