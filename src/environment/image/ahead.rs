//! The bytes of a layer, fetched, hashed and decompressed on a thread of their own while those before are taken in.
//!
//! Neither waits for the other while there is work for both, and the one that is ahead is so by a few pieces only.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::{panic, thread};

use flate2::bufread::MultiGzDecoder;
use zstd::stream::read::Decoder;

use super::digest::{Hashing, ImageDigest};

/// Bytes are handed over in pieces of this size.
const PIECE_BYTES: usize = 256 << 10;
/// So many pieces may wait for whoever takes them in.
const PIECES_AHEAD: usize = 8;
const BUFFER_BYTES: usize = 128 << 10;
/// The largest window that zstd uses without being asked to: 128 MiB.
const WINDOW_LOG_MAX: u32 = 27;

/// What is known of the bytes of a layer after they were passed on, or as many of them as were wanted.
pub(super) struct Passed<R> {
    /// The bytes as they came, of which not all need have been read.
    pub(super) stored: Hashing<R>,
    /// Why they broke off, if they did.
    pub(super) failure: Option<io::Error>,
    /// The digest of all that was passed on, if that is not what came.
    pub(super) unpacked: Option<ImageDigest>,
}

/// Calls `take` with what `stored` unpacks to, be it compressed or not; returns what it returns, and what came of the bytes.
///
/// Holds two MiB of unpacked bytes at the most. If `take` ends before the bytes do, no more are read than those.
///
/// # Panics
///
/// If `take` or `stored` does.
pub(super) fn unpacked<R: Read + Send, T>(
    stored: Hashing<R>,
    take: impl FnOnce(&mut (dyn Read + Send)) -> T,
) -> (T, Passed<R>) {
    thread::scope(|scope| {
        let (sender, receiver) = sync_channel(PIECES_AHEAD);
        let passing = scope.spawn(move || pass(stored, &sender));
        let taken = take(&mut Pieces { receiver, piece: Vec::new(), at: 0 });
        (taken, passing.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked)))
    })
}

type Sender = SyncSender<io::Result<Vec<u8>>>;

fn pass<R: Read>(stored: Hashing<R>, sender: &Sender) -> Passed<R> {
    let mut stored = Caught { inner: BufReader::with_capacity(BUFFER_BYTES, stored), failure: None };
    let begin =
        stored.fill_buf().map(|begin| (begin.starts_with(&[0x1f, 0x8b]), begin.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])));
    let unpacked = match begin {
        Ok((true, _)) => Ok(Some(hashed(MultiGzDecoder::new(&mut stored), sender))),
        Ok((_, true)) => zstd_decoder(&mut stored).map(|decoder| Some(hashed(decoder, sender))),
        Ok(_) => {
            hand_over(&mut stored, sender);
            Ok(None)
        }
        Err(error) => Err(error),
    };
    let unpacked = unpacked.unwrap_or_else(|error| {
        tell(sender, Err(error));
        None
    });
    Passed { stored: stored.inner.into_inner(), failure: stored.failure, unpacked }
}

fn zstd_decoder<B: BufRead>(stored: B) -> io::Result<Decoder<'static, B>> {
    let mut decoder = Decoder::with_buffer(stored)?;
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    Ok(decoder)
}

/// Hands over what there is, and returns its digest.
fn hashed(from: impl Read, sender: &Sender) -> ImageDigest {
    let mut from = Hashing::new(from);
    hand_over(&mut from, sender);
    from.digest()
}

/// Hands over what there is for as long as it is wanted, the error behind it included.
fn hand_over(mut from: impl Read, sender: &Sender) {
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let read = from.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece);
        let is_last = piece.len() < PIECE_BYTES;
        if !tell(sender, Ok(piece)) {
            return;
        }
        match read {
            Ok(_) if is_last => return,
            Ok(_) => {}
            Err(error) => {
                tell(sender, Err(error));
                return;
            }
        }
    }
}

/// Returns whether anybody still wants to know.
fn tell(sender: &Sender, piece: io::Result<Vec<u8>>) -> bool {
    sender.send(piece).is_ok()
}

/// What is handed over, put together again.
struct Pieces {
    receiver: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    /// How much of the piece is read.
    at: usize,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            let Ok(piece) = self.receiver.recv() else { return Ok(0) };
            (self.piece, self.at) = (piece?, 0);
        }
        let count = buffer.len().min(self.piece.len() - self.at);
        buffer[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// Keeps the first error of what it reads from, which whoever unpacks it would take for one of the layer.
struct Caught<R> {
    inner: R,
    failure: Option<io::Error>,
}

impl<R: Read> Read for Caught<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|error| caught(&mut self.failure, error))
    }
}

impl<R: BufRead> BufRead for Caught<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf().map_err(|error| caught(&mut self.failure, error))
    }

    fn consume(&mut self, count: usize) {
        self.inner.consume(count);
    }
}

fn caught(failure: &mut Option<io::Error>, error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::Interrupted {
        return error;
    }
    let kind = error.kind();
    *failure = Some(error);
    io::Error::new(kind, "the layer cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn noise(bytes: u32) -> Vec<u8> {
        (0..bytes).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn all(bytes: &mut dyn Read) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        bytes.read_to_end(&mut all).map(|_| all)
    }

    #[test]
    fn what_comes_out_is_what_went_in_however_it_is_compressed() {
        for length in [0, 1, 5_000, u32::try_from(PIECE_BYTES).unwrap(), 3_000_001] {
            let content = noise(length);
            for stored in [content.clone(), gzip(&content), zstd::encode_all(content.as_slice(), 1).unwrap()] {
                let (taken, passed) = unpacked(Hashing::new(stored.as_slice()), |bytes| all(bytes));
                assert!(taken.unwrap() == content, "{length}");
                assert_eq!(passed.stored.digest(), ImageDigest::of(&stored));
                let digest = passed.unpacked.unwrap_or_else(|| passed.stored.digest());
                assert_eq!((digest, passed.failure.is_none()), (ImageDigest::of(&content), true), "{length}");
            }
        }
    }

    /// Zeros without an end, and how many of them were read.
    struct Endless(Arc<AtomicU64>);

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            buffer.fill(0);
            self.0.fetch_add(buffer.len() as u64, Ordering::Relaxed);
            Ok(buffer.len())
        }
    }

    #[test]
    fn whoever_ends_early_ends_the_other_too_which_was_not_far_ahead() {
        let read = Arc::new(AtomicU64::new(0));
        let endless = Hashing::new(Endless(Arc::clone(&read)));
        let least = (PIECE_BYTES * PIECES_AHEAD) as u64;
        let most = least + (3 * PIECE_BYTES + BUFFER_BYTES) as u64;
        let (is_taken, _) = unpacked(endless, |bytes| {
            let is_taken = bytes.read_exact(&mut [0; 10]).is_ok();
            while read.load(Ordering::Relaxed) < least {
                thread::yield_now();
            }
            // Whoever would not stop by itself is here soon.
            (0..1000).take_while(|_| read.load(Ordering::Relaxed) <= most).for_each(|_| thread::yield_now());
            is_taken
        });
        assert!(is_taken);
        assert!(read.load(Ordering::Relaxed) <= most, "{read:?} bytes were read");
    }

    struct Broken;

    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::new(io::ErrorKind::ConnectionReset, "gone"))
        }
    }

    #[test]
    fn what_breaks_off_or_is_damaged_is_told_behind_what_was_good() {
        let content = noise(1_000_000);
        let (taken, passed) = unpacked(Hashing::new(content.as_slice().chain(Broken)), |bytes| {
            let mut good = vec![0; content.len()];
            bytes.read_exact(&mut good).unwrap();
            assert!(good == content);
            all(bytes)
        });
        assert_eq!(taken.unwrap_err().to_string(), "the layer cannot be read");
        assert_eq!(passed.failure.unwrap().to_string(), "gone");
        let mut stored = gzip(&content);
        let middle = stored.len() / 2;
        stored[middle..middle + 100].fill(0xff);
        let (taken, passed) = unpacked(Hashing::new(stored.as_slice()), |bytes| all(bytes));
        assert!(taken.is_err() && passed.failure.is_none());
    }
}
