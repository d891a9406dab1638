//! What every bucket promises, held against each of them.
//!
//! The tests of the program hold the same against real servers: this file is a module of theirs too.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use super::{Body, Bucket, BucketError, Trouble};

/// So many at once ask one bucket.
const THREADS: u8 = 8;

/// Panics if the bucket, which has to be empty, breaks a promise.
pub(super) fn holds(bucket: &dyn Bucket) {
    what_is_written_is_read(bucket);
    what_is_not_there_is_missing(bucket);
    one_directory_is_listed(bucket);
    who_is_first_creates(bucket);
    what_is_removed_is_gone(bucket);
    what_does_not_fit_is_an_error(bucket);
    a_large_file_goes_in_parts(bucket);
    what_fails_midway_is_not_there(bucket);
    many_ask_at_once(bucket);
}

/// Returns bytes in which no two places look alike.
pub(super) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn what_is_written_is_read(bucket: &dyn Bucket) {
    for (name, length) in [("whole/empty", 0), ("whole/a.b-c/0", 1), ("whole/large", 100_000)] {
        let bytes = noise(length, 1);
        bucket.write(name, &bytes.as_slice()).unwrap();
        assert_eq!(bucket.read(name, 100_000).unwrap(), Some(bytes.clone()), "{name}");
        assert_eq!(bucket.read_span(name, 0..bytes.len() as u64).unwrap(), bytes, "{name}");
    }
    spans_are_exact(bucket, "whole/large", &noise(100_000, 1));
    bucket.write("whole/large", &b"shorter".as_slice()).unwrap();
    assert_eq!(bucket.read("whole/large", 7).unwrap().unwrap(), b"shorter");
}

/// Panics if a part of a file is not what it is in the whole.
pub(super) fn spans_are_exact(bucket: &dyn Bucket, name: &str, bytes: &[u8]) {
    let end = bytes.len();
    for span in [0..1, 0..end, end - 1..end, end / 3..end / 2, 17..17] {
        let read = bucket.read_span(name, span.start as u64..span.end as u64).unwrap();
        assert_eq!(read, bytes[span.clone()], "{span:?}");
        let mut streamed = Vec::new();
        let mut take = |piece: &[u8]| {
            streamed.extend_from_slice(piece);
            true
        };
        bucket.stream_span(name, span.start as u64..span.end as u64, &mut take).unwrap();
        assert_eq!(streamed, bytes[span.clone()], "{span:?}");
    }
    let mut first = Vec::new();
    let mut take = |piece: &[u8]| {
        first.extend_from_slice(piece);
        false
    };
    bucket.stream_span(name, 1..end as u64, &mut take).unwrap();
    assert!(!first.is_empty() && bytes[1..].starts_with(&first), "no more than one piece");
}

fn what_is_not_there_is_missing(bucket: &dyn Bucket) {
    assert_eq!(bucket.read("nowhere/file", 10).unwrap(), None);
    let streamed = bucket.stream_span("nowhere/file", 0..1, &mut |_| true).unwrap_err();
    for error in [bucket.read_span("nowhere/file", 0..1).unwrap_err(), streamed] {
        assert_eq!((error.trouble, error.name.as_str()), (Trouble::Missing, "nowhere/file"));
    }
    bucket.remove("nowhere/file").unwrap();
    assert_eq!(bucket.list("nowhere").unwrap(), []);
}

fn one_directory_is_listed(bucket: &dyn Bucket) {
    for name in ["list/a", "list/b/c", "list/d", "list-e"] {
        bucket.write(name, &name.as_bytes()).unwrap();
    }
    let mut listed = bucket.list("list").unwrap();
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    let names: Vec<_> = listed.iter().map(|file| (file.name.as_str(), file.bytes)).collect();
    assert_eq!(names, [("a", 6), ("d", 6)]);
    // A clock that is off by years is none.
    let year_2020_ms = 1_577_836_800_000;
    assert!(listed.iter().all(|file| file.written.is_none_or(|time| time.epoch_ms > year_2020_ms)), "{listed:?}");
    let top: Vec<_> = bucket.list("").unwrap().into_iter().map(|file| file.name).collect();
    assert_eq!(top, ["list-e"]);
    assert_eq!(names_in(bucket, "list/b"), ["c"]);
}

fn who_is_first_creates(bucket: &dyn Bucket) {
    assert!(bucket.create("create/one", b"first").unwrap());
    assert!(!bucket.create("create/one", b"second").unwrap());
    assert!(!bucket.create("create/one", b"first").unwrap(), "nor does who writes the same");
    assert_eq!(bucket.read("create/one", 100).unwrap().unwrap(), b"first");
    let first = AtomicU32::new(0);
    thread::scope(|scope| {
        for number in 0..THREADS {
            let first = &first;
            scope.spawn(move || {
                first.fetch_add(bucket.create("create/race", &[number]).unwrap().into(), Ordering::Relaxed)
            });
        }
    });
    assert_eq!(first.into_inner(), 1);
}

fn what_is_removed_is_gone(bucket: &dyn Bucket) {
    bucket.write("remove/file", &b"x".as_slice()).unwrap();
    bucket.remove("remove/file").unwrap();
    assert_eq!(bucket.read("remove/file", 10).unwrap(), None);
    assert_eq!(bucket.list("remove").unwrap(), []);
    bucket.remove("remove/file").unwrap();
}

fn what_does_not_fit_is_an_error(bucket: &dyn Bucket) {
    bucket.write("fit/ten", &b"0123456789".as_slice()).unwrap();
    assert_eq!(bucket.read("fit/ten", 10).unwrap().unwrap(), b"0123456789");
    let error = bucket.read("fit/ten", 9).unwrap_err();
    assert_eq!((error.trouble, error.source.to_string()), (Trouble::Garbled, "it is longer than 9 bytes".to_owned()));
    for span in [9..11, 10..11, 100..110] {
        assert_eq!(bucket.read_span("fit/ten", span.clone()).unwrap_err().trouble, Trouble::Garbled, "{span:?}");
        let streamed = bucket.stream_span("fit/ten", span.clone(), &mut |_| true);
        assert_eq!(streamed.unwrap_err().trouble, Trouble::Garbled, "{span:?}");
    }
}

fn a_large_file_goes_in_parts(bucket: &dyn Bucket) {
    let bytes = noise((20 << 20) + 1, 2);
    bucket.write("large/file", &bytes.as_slice()).unwrap();
    assert!(bucket.read("large/file", bytes.len() as u64).unwrap().unwrap() == bytes);
    let part = 8 << 20;
    for span in [part - 1..part + 1, 2 * part - 10..2 * part + 10, bytes.len() - 5..bytes.len()] {
        let read = bucket.read_span("large/file", span.start as u64..span.end as u64).unwrap();
        assert_eq!(read, bytes[span]);
    }
    let listed = bucket.list("large").unwrap();
    assert_eq!((listed.len(), listed[0].bytes), (1, bytes.len() as u64));
}

/// Fails after some of its bytes.
struct Failing {
    bytes: u64,
    fails_at: u64,
}

struct FailingReader {
    left: u64,
}

impl Body for Failing {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn reader(&self) -> Box<dyn Read + Send + '_> {
        Box::new(FailingReader { left: self.fails_at })
    }
}

impl Read for FailingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::other("the disk is on fire"));
        }
        let count = buffer.len().min(usize::try_from(self.left).unwrap());
        buffer[..count].fill(7);
        self.left -= count as u64;
        Ok(count)
    }
}

fn what_fails_midway_is_not_there(bucket: &dyn Bucket) {
    for (bytes, fails_at) in [(1000, 500), (20 << 20, 17 << 20)] {
        bucket.write("midway/kept", &b"kept".as_slice()).unwrap();
        for name in ["midway/kept", "midway/new"] {
            let error: BucketError = bucket.write(name, &Failing { bytes, fails_at }).unwrap_err();
            assert_eq!(error.source.to_string(), "the disk is on fire");
        }
        assert_eq!(names_in(bucket, "midway"), ["kept"]);
        assert_eq!(bucket.read("midway/kept", 100).unwrap().unwrap(), b"kept");
    }
}

fn many_ask_at_once(bucket: &dyn Bucket) {
    thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for file in 0..5 {
                    let (name, bytes) =
                        (format!("many/{thread}-{file}"), noise(10_000, u64::from(thread) * 100 + file));
                    bucket.write(&name, &bytes.as_slice()).unwrap();
                    assert_eq!(bucket.read(&name, 10_000).unwrap().as_ref(), Some(&bytes));
                    assert_eq!(bucket.read_span(&name, 5000..5100).unwrap(), bytes[5000..5100]);
                }
            });
        }
    });
    assert_eq!(bucket.list("many").unwrap().len(), usize::from(THREADS) * 5);
}

fn names_in(bucket: &dyn Bucket, directory: &str) -> Vec<String> {
    let mut names: Vec<_> = bucket.list(directory).unwrap().into_iter().map(|file| file.name).collect();
    names.sort();
    names
}
