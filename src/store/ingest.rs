//! A file of any size in one pass: read, hashed as a whole, cut, and its chunks hashed and kept.
//!
//! Every byte is read once, into a buffer that all stages share, and handed
//! to the keeper from there. Two things must go in order: reading and
//! cutting, which the caller's thread does, and the hash of the whole, which
//! whoever is free takes a buffer further. Chunks are hashed and kept in any
//! order by every thread. When no buffer is free, the caller's thread works
//! on chunks too, so that nobody waits while there is work. The threads are
//! this pass's own: one lent from a pool might, instead of waiting, begin to
//! take in the next file, and the bound on memory would be lost.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::{panic, thread};

use super::{StoreError, chunk};
use crate::hash::{Digest, Hasher};

/// How many bytes are read, hashed and cut at a time.
const BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// How many buffers there are at the most: one is read into while others are worked on.
const MAX_BUFFERS: usize = 5;
/// More threads than these wait for the one that reads and cuts.
const MAX_THREADS: usize = 4;
/// Why the lock is never poisoned: whatever may panic is done without it.
const NO_HOLDER_PANICS: &str = "no holder panics";

/// What a file was found to be.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Ingested {
    /// The digest of all its bytes.
    pub(super) digest: Digest,
    /// Its length in bytes.
    pub(super) size: u64,
    /// The digest and the length in bytes of each of its chunks, in order.
    pub(super) chunks: Vec<(Digest, u32)>,
}

/// Where the bytes of a chunk go, with their digest; called by several threads at once.
pub(super) type Keep<'a> = dyn Fn(Digest, &[u8]) -> Result<(), StoreError> + Sync + 'a;

/// Returns what `source` yields, after `keep` was called once for each of its chunks, in any order.
///
/// Chunks end where [`chunk::first_cut`] says, however `source` yields its
/// bytes. Costs one read, two hashes and one look for cuts, overlapped on up
/// to four threads, and at most 20 MiB of memory beside what `keep` uses, and
/// 40 bytes a chunk. A file of less than 4 MiB is worked on by the caller's
/// thread alone.
///
/// # Errors
///
/// What `failed` makes of an error of `source`, or the first error of
/// `keep`; it ends the pass at once, with some chunks kept and others not.
///
/// # Panics
///
/// If `keep` or `source` panics, once all threads have stopped.
pub(super) fn ingest(
    source: &mut (dyn Read + Send),
    failed: impl FnOnce(io::Error) -> StoreError,
    keep: &Keep<'_>,
) -> Result<Ingested, StoreError> {
    let filled = match Filled::read(source, Vec::with_capacity(BUFFER_BYTES), &[]) {
        Ok(filled) => filled,
        Err(error) => return Err(failed(error)),
    };
    let helpers = if filled.is_last() { 0 } else { rayon::current_num_threads().min(MAX_THREADS) - 1 };
    let pass = Pass { keep, state: Mutex::new(State::new()), changed: Condvar::new() };
    let read = thread::scope(|scope| {
        let helpers: Vec<_> = (0..helpers).map(|_| scope.spawn(|| pass.work_to_the_end())).collect();
        let read = pass.feed(source, filled);
        // The first panic is passed on as it was, not as "a scoped thread panicked".
        for panicked in helpers.into_iter().filter_map(|helper| helper.join().err()) {
            panic::resume_unwind(panicked);
        }
        read
    });
    read.map_err(failed)?;
    pass.state.into_inner().expect(NO_HOLDER_PANICS).into_result()
}

/// A buffer after it was read into.
struct Filled {
    /// Less than [`BUFFER_BYTES`] only at the end of the file.
    bytes: Vec<u8>,
    /// How many of its first bytes were in the buffer before, left there by the last cut.
    carried: usize,
}

impl Filled {
    /// Returns `buffer`, holding what is `carried` over and as much of `source` behind it as fits.
    fn read(source: &mut (dyn Read + Send), mut buffer: Vec<u8>, carried: &[u8]) -> io::Result<Self> {
        buffer.clear();
        buffer.extend_from_slice(carried);
        // Reads into the capacity, which need not be cleared for it, and tries again when interrupted.
        source.take((BUFFER_BYTES - carried.len()) as u64).read_to_end(&mut buffer)?;
        Ok(Self { bytes: buffer, carried: carried.len() })
    }

    fn is_last(&self) -> bool {
        self.bytes.len() < BUFFER_BYTES
    }
}

/// A chunk that is to be hashed and kept.
struct Piece {
    /// Where it starts in the file.
    start: u64,
    /// Where it lies in the buffer.
    range: Range<usize>,
    buffer: Arc<Filled>,
}

/// What can be done without the lock.
enum Work {
    /// Take the hash of the whole over what is new in a buffer.
    Whole(Hasher, Arc<Filled>),
    /// Hash a chunk and keep it.
    Chunk(Piece),
}

/// What is to be done, and what was.
struct State {
    /// Buffers that nobody uses.
    free: Vec<Vec<u8>>,
    /// How many more buffers may be made.
    unmade: usize,
    /// Buffers in the order of the file, for the hash of the whole.
    unhashed: VecDeque<Arc<Filled>>,
    /// The hash of the whole so far; whoever takes it further has it meanwhile.
    whole: Option<Hasher>,
    unkept: VecDeque<Piece>,
    /// The chunks that were kept, by where they start.
    kept: Vec<(u64, Digest, u32)>,
    /// Whether no more buffers will come.
    complete: bool,
    /// Whether work that is left is to be left; the reason, if it was an error of the keeper.
    stopped: bool,
    error: Option<StoreError>,
}

impl State {
    fn new() -> Self {
        Self {
            free: Vec::new(),
            // The first one is made before the pass begins.
            unmade: MAX_BUFFERS - 1,
            unhashed: VecDeque::new(),
            whole: Some(Hasher::default()),
            unkept: VecDeque::new(),
            kept: Vec::new(),
            complete: false,
            stopped: false,
            error: None,
        }
    }

    /// Returns work that can be begun now. The whole comes first: it is in order, so it must not fall behind.
    fn next_work(&mut self) -> Option<Work> {
        if !self.unhashed.is_empty()
            && let Some(whole) = self.whole.take()
        {
            return self.unhashed.pop_front().map(|buffer| Work::Whole(whole, buffer));
        }
        self.unkept.pop_front().map(Work::Chunk)
    }

    fn next_buffer(&mut self) -> Option<Vec<u8>> {
        self.free.pop().or_else(|| {
            self.unmade = self.unmade.checked_sub(1)?;
            Some(Vec::with_capacity(BUFFER_BYTES))
        })
    }

    /// Frees the buffer if nobody else uses it.
    fn give_back(&mut self, buffer: Arc<Filled>) {
        self.free.extend(Arc::into_inner(buffer).map(|filled| filled.bytes));
    }

    fn stop(&mut self) {
        self.stopped = true;
        self.unhashed.clear();
        self.unkept.clear();
    }

    fn into_result(mut self) -> Result<Ingested, StoreError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        self.kept.sort_unstable_by_key(|(start, ..)| *start);
        let (digest, size) = self.whole.expect("whoever had the hash gave it back or panicked").finish();
        Ok(Ingested {
            digest,
            size,
            chunks: self.kept.into_iter().map(|(_, digest, length)| (digest, length)).collect(),
        })
    }
}

/// One pass over one file, shared by its threads.
struct Pass<'a> {
    keep: &'a Keep<'a>,
    state: Mutex<State>,
    /// Told whenever there may be work, a free buffer or a reason to end.
    changed: Condvar,
}

impl Pass<'_> {
    /// Reads and cuts `source` from `filled` on, and works until all is done or the pass has stopped.
    fn feed(&self, source: &mut (dyn Read + Send), mut filled: Filled) -> io::Result<()> {
        let _stop = StopOnPanic(self);
        let mut start = 0;
        loop {
            let is_last = filled.is_last();
            let shared = Arc::new(filled);
            let rest = self.cut(start, &shared);
            start += rest as u64;
            if is_last {
                self.change(|state| state.complete = true);
                break;
            }
            let Some(buffer) = self.free_buffer() else { break };
            filled = Filled::read(source, buffer, &shared.bytes[rest..]).inspect_err(|_| self.change(State::stop))?;
            self.change(|state| state.give_back(shared));
        }
        self.work_to_the_end();
        Ok(())
    }

    /// Hands out the work on `buffer`, which starts at `start` in the file; returns what part of it is cut.
    fn cut(&self, start: u64, buffer: &Arc<Filled>) -> usize {
        self.change(|state| state.unhashed.push_back(Arc::clone(buffer)));
        let mut done = 0;
        while done < buffer.bytes.len() {
            let left = &buffer.bytes[done..];
            let found = chunk::found_cut(left).or(buffer.is_last().then_some(left.len()));
            let Some(length) = found else { break };
            let range = done..done + length;
            let piece = Piece { start: start + done as u64, range, buffer: Arc::clone(buffer) };
            self.change(|state| state.unkept.push_back(piece));
            done += length;
        }
        done
    }

    /// Returns a buffer, after working until one was free; `None` if the pass has stopped.
    fn free_buffer(&self) -> Option<Vec<u8>> {
        self.work_until(|state| match state.stopped {
            true => Some(None),
            false => state.next_buffer().map(Some),
        })
    }

    /// Works until there is no work, and none will come.
    fn work_to_the_end(&self) {
        let _stop = StopOnPanic(self);
        self.work_until(|state| {
            let idle = state.unhashed.is_empty() && state.unkept.is_empty();
            (state.stopped || (state.complete && idle)).then_some(())
        });
    }

    /// Works, or waits for work, until `answer` has one.
    fn work_until<T>(&self, mut answer: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut state = self.state();
        loop {
            if let Some(answer) = answer(&mut state) {
                return answer;
            }
            state = match state.next_work() {
                Some(work) => {
                    drop(state);
                    self.perform(work);
                    self.state()
                }
                None => self.changed.wait(state).expect(NO_HOLDER_PANICS),
            };
        }
    }

    fn perform(&self, work: Work) {
        match work {
            Work::Whole(mut whole, buffer) => {
                whole.update(&buffer.bytes[buffer.carried..]);
                self.change(|state| {
                    state.whole = Some(whole);
                    state.give_back(buffer);
                });
            }
            Work::Chunk(Piece { start, range, buffer }) => {
                let bytes = &buffer.bytes[range];
                let digest = Digest::of(bytes);
                let length = u32::try_from(bytes.len()).expect("a chunk is at most 1 MiB long");
                let kept = (self.keep)(digest, bytes);
                self.change(|state| {
                    state.give_back(buffer);
                    match kept {
                        Ok(()) => state.kept.push((start, digest, length)),
                        Err(error) => {
                            state.error.get_or_insert(error);
                            state.stop();
                        }
                    }
                });
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(NO_HOLDER_PANICS)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }
}

/// Stops the pass if its thread unwinds, lest the others wait for it.
struct StopOnPanic<'a>(&'a Pass<'a>);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.change(State::stop);
        }
    }
}

#[cfg(test)]
mod tests {
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
        lengths: std::iter::Cycle<std::vec::IntoIter<usize>>,
        error: Option<ErrorKind>,
        reads: usize,
    }

    impl<'a> Pieces<'a> {
        fn of(bytes: &'a [u8], lengths: &[usize]) -> Self {
            Self { bytes, lengths: lengths.to_vec().into_iter().cycle(), error: None, reads: 0 }
        }
    }

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.reads += 1;
            match self.lengths.next().unwrap() {
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
        let sizes =
            [0, 1, chunk::MIN_BYTES, chunk::MAX_BYTES, BUFFER_BYTES - 1, BUFFER_BYTES, BUFFER_BYTES + 1, all.len()];
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
        assert_eq!(ingested.size, 60 * 1024 * 1024);
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
}
