//! Decoders of others, which may stop with a panic.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// Whether this thread is inside a decoder whose panics are an answer.
    static IS_DECODING: Cell<bool> = const { Cell::new(false) };
}

static QUIET: Once = Once::new();

/// Returns what the decoder of somebody else makes of bytes that may be anything; `None` if it fails, in whatever way.
///
/// Such decoders promise errors for damaged files, and now and then one stops with a panic instead. That is no reason to
/// leave the user without an answer, nor to show what is meant for its authors: such a panic is told to nobody, all others are
/// told as before.
pub(super) fn foreign<T>(decode: impl FnOnce() -> Option<T>) -> Option<T> {
    QUIET.call_once(|| {
        let told = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !IS_DECODING.get() {
                told(panic);
            }
        }));
    });
    let was_decoding = IS_DECODING.replace(true);
    let decoded = panic::catch_unwind(AssertUnwindSafe(decode));
    IS_DECODING.set(was_decoding);
    decoded.ok().flatten()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_panic_of_a_decoder_is_no_answer_and_is_told_to_nobody() {
        // The first to be there before anything is decoded: each test is a process of its own.
        static TOLD: AtomicUsize = AtomicUsize::new(0);
        panic::set_hook(Box::new(|_| {
            TOLD.fetch_add(1, Ordering::Relaxed);
        }));
        let stopped = || -> Option<u8> { panic!("index out of bounds") };
        assert_eq!(foreign(stopped), None);
        assert_eq!(foreign(|| foreign(stopped).or_else(stopped)), None);
        assert_eq!(foreign(|| Some(1)), Some(1));
        assert_eq!(TOLD.load(Ordering::Relaxed), 0);
        // Those of others are told as before.
        assert!(panic::catch_unwind(|| panic!("not in a decoder")).is_err());
        assert_eq!(TOLD.load(Ordering::Relaxed), 1);
    }
}
