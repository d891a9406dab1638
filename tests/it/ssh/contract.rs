//! What every place for a remote must do, whatever it is made of.

use pv::remote::{Bucket, BucketError, Trouble};

use super::{Long, long};

const MIB: u64 = 1 << 20;
const THREADS: usize = 8;

/// Checks that an empty bucket does what it should.
pub(crate) fn holds(bucket: &dyn Bucket) {
    what_is_not_there_is_absent(bucket);
    what_is_written_is_read_and_listed(bucket);
    spans_are_exact(bucket);
    only_the_first_creates(bucket);
    what_is_removed_is_gone(bucket);
    large_files_come_back(bucket);
    many_threads_do_not_meet(bucket);
}

fn trouble<T: std::fmt::Debug>(result: Result<T, BucketError>) -> Trouble {
    result.unwrap_err().trouble
}

fn listed(bucket: &dyn Bucket, directory: &str) -> Vec<(String, u64)> {
    let mut listed: Vec<_> = bucket.list(directory).unwrap().into_iter().map(|file| (file.name, file.bytes)).collect();
    listed.sort();
    listed
}

fn what_is_not_there_is_absent(bucket: &dyn Bucket) {
    assert_eq!(bucket.read("FORMAT", 100).unwrap(), None);
    assert_eq!(listed(bucket, ""), []);
    assert_eq!(listed(bucket, "index"), []);
    bucket.remove("packs/ab/none").unwrap();
    assert_eq!(trouble(bucket.read_span("packs/ab/none", 0..1)), Trouble::Missing);
}

fn what_is_written_is_read_and_listed(bucket: &dyn Bucket) {
    bucket.write("top", &b"1".as_slice()).unwrap();
    bucket.write("index/0123-a.b", &b"first".as_slice()).unwrap();
    bucket.write("index/below/other", &b"x".as_slice()).unwrap();
    bucket.write("index/empty", &b"".as_slice()).unwrap();
    assert_eq!(bucket.read("index/0123-a.b", 5).unwrap().unwrap(), b"first");
    assert_eq!(bucket.read("index/empty", 0).unwrap().unwrap(), b"");
    assert_eq!(trouble(bucket.read("index/0123-a.b", 4)), Trouble::Garbled);
    bucket.write("index/0123-a.b", &b"second!".as_slice()).unwrap();
    assert_eq!(bucket.read("index/0123-a.b", 100).unwrap().unwrap(), b"second!");
    assert_eq!(listed(bucket, "index"), [("0123-a.b".to_owned(), 7), ("empty".to_owned(), 0)]);
    assert_eq!(listed(bucket, ""), [("top".to_owned(), 1)]);
}

fn spans_are_exact(bucket: &dyn Bucket) {
    bucket.write("spans", &b"0123456789".as_slice()).unwrap();
    for (span, wanted) in [(0..10, "0123456789"), (3..5, "34"), (9..10, "9")] {
        assert_eq!(bucket.read_span("spans", span).unwrap(), wanted.as_bytes());
    }
    bucket.read_span("spans", 5..11).unwrap_err();
    bucket.read_span("spans", 10..11).unwrap_err();
}

fn only_the_first_creates(bucket: &dyn Bucket) {
    assert!(bucket.create("created", b"first").unwrap());
    assert!(!bucket.create("created", b"second").unwrap());
    assert_eq!(bucket.read("created", 100).unwrap().unwrap(), b"first");
    let firsts: usize = std::thread::scope(|scope| {
        let create = |own: usize| bucket.create("race", own.to_string().as_bytes()).unwrap();
        let threads: Vec<_> = (0..THREADS).map(|own| scope.spawn(move || create(own))).collect();
        threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
    });
    assert_eq!(firsts, 1);
}

fn what_is_removed_is_gone(bucket: &dyn Bucket) {
    bucket.remove("created").unwrap();
    bucket.remove("created").unwrap();
    assert_eq!(bucket.read("created", 100).unwrap(), None);
    assert!(bucket.create("created", b"again").unwrap());
}

fn large_files_come_back(bucket: &dyn Bucket) {
    let whole = long(20 * MIB + 3);
    bucket.write("packs/ab/large", &Long { bytes: whole.len() as u64 }).unwrap();
    let read = bucket.read("packs/ab/large", 100 * MIB).unwrap().unwrap();
    assert!(read == whole, "{} bytes came back", read.len());
    let span = bucket.read_span("packs/ab/large", MIB - 1..9 * MIB + 7).unwrap();
    assert!(span == whole[(1 << 20) - 1..(9 << 20) + 7]);
}

fn many_threads_do_not_meet(bucket: &dyn Bucket) {
    std::thread::scope(|scope| {
        for own in 0..THREADS * 3 {
            scope.spawn(move || {
                let name = format!("packs/{own:02}/own");
                let bytes = 1000 * own as u64 + 300_000;
                bucket.write(&name, &Long { bytes }).unwrap();
                let read = bucket.read(&name, bytes).unwrap().unwrap();
                assert!(read == long(bytes), "{name}");
                assert_eq!(bucket.read_span(&name, 7..9).unwrap(), read[7..9]);
                assert_eq!(bucket.list(&format!("packs/{own:02}")).unwrap().len(), 1);
            });
        }
    });
}
