//! The seam to where a remote lies: named files that are written whole, and little else.

use std::error::Error;
use std::fmt;
use std::io::Read;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::host::Time;
use crate::store::Part;

/// A bucket that hands on pieces asks for so much at once.
const PIECE_BYTES: u64 = 8 << 20;

/// Named files, somewhere else. Names are made of `/`, letters, digits, `-` and `.`; no part begins with a `.`.
///
/// Every method can be called from many threads at once, and tries again by itself what a moment later may succeed.
pub trait Bucket: Send + Sync {
    /// Returns the files in a directory, which need not exist, in no order. What lies in directories below is left out.
    ///
    /// # Errors
    ///
    /// [`BucketError`] if it cannot be listed.
    fn list(&self, directory: &str) -> Result<Vec<Listed>, BucketError>;

    /// Returns a whole file; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`BucketError`] if it cannot be read, or is longer than `most_bytes`, of which no more is kept in memory.
    fn read(&self, name: &str, most_bytes: u64) -> Result<Option<Vec<u8>>, BucketError>;

    /// Returns these bytes of a file, all of them.
    ///
    /// # Errors
    ///
    /// [`BucketError`] if they cannot be read, or the file is missing or shorter.
    fn read_span(&self, name: &str, span: Range<u64>) -> Result<Vec<u8>, BucketError>;

    /// Hands on these bytes of a file in pieces, as they come and in their order, until `take` returns `false`.
    ///
    /// Takes memory for some MiB at most, however long the span is.
    ///
    /// # Errors
    ///
    /// As [`Bucket::read_span`]. What was handed on before is right all the same.
    fn stream_span(
        &self,
        name: &str,
        span: Range<u64>,
        take: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<(), BucketError> {
        let mut start = span.start;
        while start < span.end {
            let end = span.end.min(start + PIECE_BYTES);
            if !take(&self.read_span(name, start..end)?) {
                break;
            }
            start = end;
        }
        Ok(())
    }

    /// Writes a file, replacing one of the same name. It appears whole, and survives a crash of the other side.
    ///
    /// # Errors
    ///
    /// [`BucketError`] if it cannot be written.
    fn write(&self, name: &str, body: &dyn Body) -> Result<(), BucketError>;

    /// Writes a small file unless there is one of the same name. Returns whether there was none.
    ///
    /// # Errors
    ///
    /// [`BucketError`] if it cannot be written, or the other side cannot tell who was first.
    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, BucketError>;

    /// Removes a file; no error if there is none.
    ///
    /// # Errors
    ///
    /// [`BucketError`] if it cannot be removed.
    fn remove(&self, name: &str) -> Result<(), BucketError>;

    /// Returns which of these records are there, one answer each, if the other side can tell that by itself.
    ///
    /// # Errors
    ///
    /// [`BucketError`] if it cannot be asked.
    fn known(&self, parts: &[Part]) -> Result<Option<Vec<bool>>, BucketError> {
        let _ = parts;
        Ok(None)
    }
}

/// A file that is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Its name in the directory, without the directory's.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// When it was written, by the clock of the other side, where that tells.
    pub written: Option<Time>,
}

/// What is written: bytes that can be read more than once.
pub trait Body: Sync {
    /// Returns how many there are.
    fn bytes(&self) -> u64;

    /// Returns a reader that yields them from the first one on.
    fn reader(&self) -> Box<dyn Read + Send + '_>;
}

impl Body for &[u8] {
    fn bytes(&self) -> u64 {
        self.len() as u64
    }

    fn reader(&self) -> Box<dyn Read + Send + '_> {
        Box::new(*self)
    }
}

/// Something that could not be done on the other side.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", Subject(name))]
pub struct BucketError {
    /// What was tried: a verb, such as `read`.
    pub action: &'static str,
    /// The name of the file or directory; empty for all of it.
    pub name: String,
    /// What sort of failure it is.
    pub trouble: Trouble,
    /// What the other side, or the way there, said.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

struct Subject<'a>(&'a str);

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("its files") } else { write!(f, "`{}`", self.0) }
    }
}

/// What sort of failure it is, for advice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// What was asked for is not there.
    Missing,
    /// This user may not do it, or nobody knows who this user is.
    Refused,
    /// The other side cannot do such a thing at all.
    Unsupported,
    /// The other side was not reached, or gave up, after several attempts.
    Unreachable,
    /// The other side, or the way there, gave something else than was asked for.
    Garbled,
    /// Anything else.
    Other,
}

impl BucketError {
    /// Returns a function that makes an error of this sort from its cause.
    pub fn on<E: Into<Box<dyn Error + Send + Sync>>>(
        action: &'static str,
        name: &str,
        trouble: Trouble,
    ) -> impl FnOnce(E) -> Self {
        let name = name.to_owned();
        move |source| Self { action, name, trouble, source: source.into() }
    }
}

/// Counts what is asked of a bucket and how many bytes go either way.
pub struct Counted {
    bucket: Box<dyn Bucket>,
    requests: AtomicU64,
    moved_bytes: AtomicU64,
}

impl Counted {
    /// Returns a bucket that counts what is asked of `bucket`.
    pub fn new(bucket: Box<dyn Bucket>) -> Self {
        Self { bucket, requests: AtomicU64::new(0), moved_bytes: AtomicU64::new(0) }
    }

    /// Returns how many requests there were.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Returns how many bytes of files went either way.
    pub fn moved_bytes(&self) -> u64 {
        self.moved_bytes.load(Ordering::Relaxed)
    }

    fn count(&self, bytes: u64) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.moved_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Bucket for Counted {
    fn list(&self, directory: &str) -> Result<Vec<Listed>, BucketError> {
        self.count(0);
        self.bucket.list(directory)
    }

    fn read(&self, name: &str, most_bytes: u64) -> Result<Option<Vec<u8>>, BucketError> {
        let read = self.bucket.read(name, most_bytes)?;
        self.count(read.as_ref().map_or(0, |bytes| bytes.len() as u64));
        Ok(read)
    }

    fn read_span(&self, name: &str, span: Range<u64>) -> Result<Vec<u8>, BucketError> {
        self.count(span.end - span.start);
        self.bucket.read_span(name, span)
    }

    fn stream_span(
        &self,
        name: &str,
        span: Range<u64>,
        take: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<(), BucketError> {
        self.count(0);
        self.bucket.stream_span(name, span, &mut |bytes| {
            self.moved_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            take(bytes)
        })
    }

    fn write(&self, name: &str, body: &dyn Body) -> Result<(), BucketError> {
        self.count(body.bytes());
        self.bucket.write(name, body)
    }

    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, BucketError> {
        self.count(bytes.len() as u64);
        self.bucket.create(name, bytes)
    }

    fn remove(&self, name: &str) -> Result<(), BucketError> {
        self.count(0);
        self.bucket.remove(name)
    }

    fn known(&self, parts: &[Part]) -> Result<Option<Vec<bool>>, BucketError> {
        self.count(0);
        self.bucket.known(parts)
    }
}
