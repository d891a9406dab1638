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
const MAX_BUFFERS: usize = 4;
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
/// to four threads, and at most 16 MiB of memory beside what `keep` uses, and
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
        if let Some(panicked) = helpers.into_iter().find_map(|helper| helper.join().err()) {
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
    Whole(Box<Hasher>, Arc<Filled>),
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
    whole: Option<Box<Hasher>>,
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
            whole: Some(Box::default()),
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
        self.work_until(|state| if state.stopped { Some(None) } else { state.next_buffer().map(Some) })
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
mod tests;
