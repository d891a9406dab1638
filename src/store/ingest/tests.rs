//! One pass over files of every size, over sources and keepers that fail, and over those that are slow.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;

/// Bytes without repetition; as many as asked for.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
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

fn unreadable(source: io::Error) -> StoreError {
    StoreError::Source { path: PathBuf::from("source"), source }
}

/// What the pass is about, done in the simplest way.
fn expected(bytes: &[u8]) -> Ingested {
    let mut chunks = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at(chunk::first_cut(rest));
        chunks.push((Digest::of(chunk), u32::try_from(chunk.len()).unwrap()));
        rest = behind;
    }
    Ingested { digest: Digest::of(bytes), size: bytes.len() as u64, chunks }
}

/// Yields bytes in pieces of these lengths, in turn; 0 stands for an interruption, the end for an error if there is one.
struct Pieces<'a> {
    bytes: &'a [u8],
    lengths: std::iter::Cycle<std::slice::Iter<'a, usize>>,
    error: Option<ErrorKind>,
    reads: usize,
}

impl<'a> Pieces<'a> {
    fn of(bytes: &'a [u8], lengths: &'a [usize]) -> Self {
        Self { bytes, lengths: lengths.iter().cycle(), error: None, reads: 0 }
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reads += 1;
        match *self.lengths.next().unwrap() {
            0 => Err(ErrorKind::Interrupted.into()),
            _ if self.bytes.is_empty()
                && let Some(kind) = self.error =>
            {
                Err(kind.into())
            }
            length => (&mut self.bytes).take(length as u64).read(buffer),
        }
    }
}

#[test]
fn every_size_is_taken_in_whole_and_each_chunk_is_kept_once() {
    let all = noise(2 * BUFFER_BYTES + 300_000);
    let sizes = [0, 1, chunk::MIN_BYTES, chunk::MAX_BYTES, BUFFER_BYTES - 1, BUFFER_BYTES, BUFFER_BYTES + 1, all.len()];
    for size in sizes {
        let kept = Mutex::new(BTreeMap::new());
        let keep = |digest, bytes: &[u8]| {
            assert!(kept.lock().unwrap().insert(digest, bytes.to_vec()).is_none(), "kept twice");
            Ok(())
        };
        let ingested = ingest(&mut &all[..size], unreadable, &keep).unwrap();
        assert_eq!(ingested, expected(&all[..size]));
        let kept = kept.into_inner().unwrap();
        let chunks = ingested.chunks.iter().flat_map(|(digest, _)| &kept[digest]);
        assert!(chunks.eq(&all[..size]) && kept.len() == ingested.chunks.len());
    }
}

#[test]
fn a_buffer_keeps_its_turn_while_the_hash_of_the_whole_is_taken_over_another() {
    let mut state = State::new();
    for _ in 0..2 {
        state.unhashed.push_back(Arc::new(Filled { bytes: Vec::new(), carried: 0 }));
    }
    let Some(Work::Whole(whole, _)) = state.next_work() else { panic!("the first buffer can be hashed") };
    assert!(state.next_work().is_none() && state.unhashed.len() == 1, "nobody else has the hash");
    state.whole = Some(whole);
    assert!(matches!(state.next_work(), Some(Work::Whole(..))) && state.unhashed.is_empty());
}

#[test]
fn a_chunk_that_comes_again_is_kept_again() {
    let zeros = vec![0; 3 * BUFFER_BYTES];
    let count = AtomicUsize::new(0);
    let keep = |digest, bytes: &[u8]| {
        assert_eq!(digest, Digest::of(bytes));
        count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    };
    let ingested = ingest(&mut &zeros[..], unreadable, &keep).unwrap();
    assert_eq!((count.into_inner(), ingested.chunks.len()), (12, 12));
    assert_eq!(ingested, expected(&zeros));
}

#[test]
fn a_slow_keeper_is_waited_for_with_bounded_memory() {
    // A source that is far ahead of its keeper shows whether anything holds it back.
    struct Counted<'a>(&'a AtomicUsize);
    impl Read for Counted<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let left = 60 * 1024 * 1024 - self.0.load(Ordering::Relaxed);
            let count = buffer.len().min(left);
            buffer[..count].fill(1);
            self.0.fetch_add(count, Ordering::Relaxed);
            Ok(count)
        }
    }
    let (read, kept) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let most = AtomicUsize::new(0);
    let keep = |_, bytes: &[u8]| {
        for _ in 0..100 {
            thread::yield_now();
        }
        let ahead = read.load(Ordering::Relaxed) - kept.load(Ordering::Relaxed);
        most.fetch_max(ahead, Ordering::Relaxed);
        kept.fetch_add(bytes.len(), Ordering::Relaxed);
        Ok(())
    };
    let ingested = ingest(&mut Counted(&read), unreadable, &keep).unwrap();
    let digest = Digest::of(&vec![1; 60 * 1024 * 1024]);
    assert_eq!((ingested.digest, ingested.size), (digest, 60 * 1024 * 1024));
    let most = most.into_inner();
    assert!(most <= MAX_BUFFERS * BUFFER_BYTES, "{most} bytes were read and not kept");
}

#[test]
fn an_error_of_the_source_ends_the_pass_and_is_returned() {
    let all = noise(2 * BUFFER_BYTES);
    for size in [0, 1000, all.len()] {
        let mut source = Pieces { error: Some(ErrorKind::StorageFull), ..Pieces::of(&all[..size], &[1_000_000]) };
        let error = ingest(&mut source, unreadable, &|_, _| Ok(())).unwrap_err();
        assert!(
            matches!(&error, StoreError::Source { source, .. } if source.kind() == ErrorKind::StorageFull),
            "{error:?}"
        );
    }
}

#[test]
fn an_error_of_the_keeper_ends_the_pass_at_once() {
    let all = noise(1024 * 1024).repeat(60);
    for failing in [0, 5, 30] {
        let calls = AtomicUsize::new(0);
        let keep = |_, _: &[u8]| match calls.fetch_add(1, Ordering::Relaxed) {
            call if call < failing => Ok(()),
            call => Err(unreadable(io::Error::other(format!("call {call}")))),
        };
        let mut source = Pieces::of(&all, &[1024 * 1024]);
        let error = ingest(&mut source, unreadable, &keep).unwrap_err();
        let StoreError::Source { source: reason, .. } = error else { panic!("{error:?}") };
        // Calls that were under way on other threads end, and no others begin.
        let calls = calls.into_inner();
        assert!(calls <= failing + MAX_THREADS, "{calls} calls");
        assert!((failing..calls).any(|call| reason.to_string() == format!("call {call}")), "{reason}");
        assert!(!source.bytes.is_empty(), "the rest was read for nothing");
    }
}

#[test]
fn a_panic_of_the_keeper_is_passed_on_and_hangs_nobody() {
    let all = noise(1024 * 1024).repeat(30);
    for failing in [0, 1, 20] {
        let calls = AtomicUsize::new(0);
        let keep = |_, _: &[u8]| {
            assert!(calls.fetch_add(1, Ordering::Relaxed) != failing, "no more room");
            Ok(())
        };
        let pass = panic::AssertUnwindSafe(|| ingest(&mut &all[..], unreadable, &keep));
        let panicked = panic::catch_unwind(pass).unwrap_err();
        assert_eq!(panicked.downcast_ref(), Some(&"no more room"));
    }
}

#[test]
fn a_panic_of_the_source_hangs_nobody() {
    struct Panics(usize);
    impl Read for Panics {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 += buffer.len();
            assert!(self.0 < 2 * BUFFER_BYTES, "no more to read");
            buffer.fill(0);
            Ok(buffer.len())
        }
    }
    let pass = panic::AssertUnwindSafe(|| ingest(&mut Panics(0), unreadable, &|_, _| Ok(())));
    let panicked = panic::catch_unwind(pass).unwrap_err();
    assert_eq!(panicked.downcast_ref(), Some(&"no more to read"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn the_reads_and_their_interruptions_change_nothing(
        size in 0..BUFFER_BYTES + BUFFER_BYTES / 2,
        lengths in proptest::collection::vec(prop_oneof![Just(0_usize), 1..2_000_000_usize], 1..6),
    ) {
        prop_assume!(lengths.iter().any(|length| *length > 1000));
        let bytes = noise(size);
        let ingested = ingest(&mut Pieces::of(&bytes, &lengths), unreadable, &|_, _| Ok(())).unwrap();
        prop_assert_eq!(ingested, expected(&bytes));
    }
}
