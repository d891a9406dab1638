//! Flushing behind the writer's back, so that little is left to flush at the end.
//!
//! A disk that idles while a large file is read and hashed has all of its work
//! still to do when the sync comes. One thread that flushes what is written so
//! far keeps both busy; the writer itself never waits for it.

use std::sync::{Condvar, Mutex, PoisonError};

use super::StoreError;

/// How many bytes are written between two flushes.
const EVERY_BYTES: u64 = 32 << 20;

/// Tells a flushing thread what was written.
#[derive(Default)]
pub(super) struct Flusher {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    unflushed_bytes: u64,
    is_over: bool,
}

impl Flusher {
    /// Does `act`, which says how much it writes through the given function, while another thread calls `flush` now and then.
    ///
    /// # Errors
    ///
    /// What `act` says, or else what a flush said.
    pub(super) fn beside<T>(
        flush: impl Fn() -> Result<(), StoreError> + Send,
        act: impl FnOnce(&(dyn Fn(u64) + Sync)) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let flusher = Self::default();
        std::thread::scope(|scope| {
            let flushing = scope.spawn(|| flusher.serve(flush));
            let over = Over(&flusher);
            let done = act(&|bytes| flusher.wrote(bytes));
            drop(over);
            let flushed = flushing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let done = done?;
            flushed.map(|()| done)
        })
    }

    fn wrote(&self, bytes: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.unflushed_bytes += bytes;
        if state.unflushed_bytes >= EVERY_BYTES {
            self.changed.notify_one();
        }
    }

    fn serve(&self, flush: impl Fn() -> Result<(), StoreError>) -> Result<(), StoreError> {
        loop {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let waits = |state: &mut State| !state.is_over && state.unflushed_bytes < EVERY_BYTES;
            let mut state = self.changed.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner);
            if state.is_over {
                return Ok(());
            }
            state.unflushed_bytes = 0;
            drop(state);
            flush()?;
        }
    }
}

/// Ends the flushing, also when the writer panics.
struct Over<'a>(&'a Flusher);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).is_over = true;
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn it_flushes_while_the_writer_writes_and_ends_with_it() {
        let flushes = AtomicU64::new(0);
        let count = || {
            flushes.fetch_add(1, Ordering::SeqCst);
            Ok(())
        };
        let done = Flusher::beside(count, |wrote| {
            wrote(EVERY_BYTES - 1);
            assert_eq!(flushes.load(Ordering::SeqCst), 0);
            wrote(1);
            while flushes.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            Ok(7)
        });
        assert_eq!(done.unwrap(), 7);
    }

    #[test]
    fn a_failed_flush_is_told_and_a_failed_writer_first() {
        let fail = || Err(StoreError::Changed { path: "flush".into() });
        let told = |result: Result<(), StoreError>| match result {
            Err(StoreError::Changed { path }) => path.display().to_string(),
            other => panic!("{other:?}"),
        };
        let tried = AtomicU64::new(0);
        let fail_and_say = || {
            tried.fetch_add(1, Ordering::SeqCst);
            fail()
        };
        let write = |wrote: &(dyn Fn(u64) + Sync)| {
            wrote(EVERY_BYTES);
            while tried.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            Ok(())
        };
        assert_eq!(told(Flusher::beside(fail_and_say, write)), "flush");
        let writer = told(Flusher::beside(fail, |_| Err(StoreError::Changed { path: "writer".into() })));
        assert_eq!(writer, "writer");
    }
}
