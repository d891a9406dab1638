//! How the bytes of an object are kept: as they are, or compressed lightly.
//!
//! Names are digests of the bytes themselves, so how they are kept is part of
//! no identity: a later version may compress better, and both are the same
//! object. Within one version equal bytes are kept equally, whatever was
//! encoded before them by the same thread.
//!
//! [`encode`] never fails; [`decode`] takes whatever a disk may hold, uses no
//! more memory than it was told to expect, and says so if the bytes are not
//! what they should be. It is not a check of content: that is the digest's part.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;

use zstd::bulk::{Compressor, Decompressor};

/// No object is encoded in one piece that is longer than this.
pub(super) const MAX_RAW_BYTES: usize = 16 * 1024 * 1024;

/// Measured on text in pieces of 4 KiB and on tables in pieces of 256 KiB: a quarter less time than level 3
/// for about the same size, and a fifth shorter than level -1 for a tenth more time.
const LEVEL: i32 = 1;
/// Shorter objects are kept as they are: a frame costs about as much as it could save.
const SHORTEST_TRIED_BYTES: usize = 64;
/// How many bytes are looked at before an attempt, and in how many places.
const SAMPLE_BYTES: usize = 1024;
const SAMPLE_PIECES: usize = 16;
/// Up to this share of the equal pairs that noise has, bytes pass for noise.
///
/// To save 6 % by the frequency of bytes alone takes an entropy of 7.52 bits,
/// and that takes at least 139 % of the pairs; the rest allows for the sample.
const NOISE_PERCENT: u64 = 125;

thread_local! {
    // Setting one up costs more than compressing a small object.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Decompressor<'static>> = RefCell::default();
}

/// How the stored bytes of an object are to be read. The numbers are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Codec {
    /// They are the object.
    Raw = 0,
    /// They are frames of Zstandard (RFC 8878).
    Zstd = 1,
}

/// Why stored bytes are no object.
#[derive(Debug, thiserror::Error)]
pub(super) enum DecodeError {
    /// The number of a codec that this version does not know.
    #[error("there is no codec `{0}`")]
    UnknownCodec(u8),
    /// The object would be longer than any can be.
    #[error("a length of `{raw_len}` bytes is more than {MAX_RAW_BYTES}")]
    TooLong {
        /// How long it would be.
        raw_len: usize,
    },
    /// The stored bytes make an object of another length.
    #[error("the stored bytes make `{actual}` bytes, not `{expected}`")]
    Length {
        /// How long it should be.
        expected: usize,
        /// How long it is.
        actual: usize,
    },
    /// The stored bytes are no frame, or one of a longer object.
    #[error("the stored bytes cannot be decompressed")]
    Frame(#[source] io::Error),
}

impl TryFrom<u8> for Codec {
    type Error = DecodeError;

    fn try_from(number: u8) -> Result<Self, DecodeError> {
        match number {
            0 => Ok(Self::Raw),
            1 => Ok(Self::Zstd),
            _ => Err(DecodeError::UnknownCodec(number)),
        }
    }
}

/// Returns the bytes to store for `bytes`, and how to read them.
///
/// They are never longer than `bytes`, and borrowed if they are the same:
/// when they are few, look random, or would not shrink by 6 %. Costs a look
/// at 1 KiB in the first case; else about 2 ns a byte, and memory for the result.
pub(super) fn encode(bytes: &[u8]) -> (Codec, Cow<'_, [u8]>) {
    let most = bytes.len() - bytes.len().div_ceil(16);
    match compressed(bytes) {
        Some(stored) if stored.len() <= most => (Codec::Zstd, Cow::Owned(stored)),
        _ => (Codec::Raw, Cow::Borrowed(bytes)),
    }
}

/// Returns the object that is kept as `stored`, which must be `raw_len` bytes long.
///
/// Never allocates more than `raw_len`, which is at most [`MAX_RAW_BYTES`].
///
/// # Errors
///
/// [`DecodeError`] if `stored` is not the encoding of `raw_len` bytes.
pub(super) fn decode(codec: Codec, stored: &[u8], raw_len: usize) -> Result<Vec<u8>, DecodeError> {
    let mut bytes = Vec::new();
    decode_into(codec, stored, raw_len, &mut bytes)?;
    Ok(bytes)
}

/// Replaces the content of `bytes` by the object that is kept as `stored`, as [`decode`] does.
///
/// Allocates only if the capacity of `bytes` is less than `raw_len`.
///
/// # Errors
///
/// As [`decode`]; `bytes` is then empty.
pub(super) fn decode_into(codec: Codec, stored: &[u8], raw_len: usize, bytes: &mut Vec<u8>) -> Result<(), DecodeError> {
    bytes.clear();
    if raw_len > MAX_RAW_BYTES {
        return Err(DecodeError::TooLong { raw_len });
    }
    // A length that the stored bytes do not have is not worth an allocation.
    if codec == Codec::Raw && stored.len() != raw_len {
        return Err(DecodeError::Length { expected: raw_len, actual: stored.len() });
    }
    bytes.reserve_exact(raw_len);
    match codec {
        Codec::Raw => bytes.extend_from_slice(stored),
        Codec::Zstd => decompress(stored, bytes).inspect_err(|_| bytes.clear())?,
    }
    let actual = bytes.len();
    if actual != raw_len {
        bytes.clear();
        return Err(DecodeError::Length { expected: raw_len, actual });
    }
    Ok(())
}

/// Returns a compressed form that is 6 % shorter than `bytes`, unless there is no hope of one or it cannot be had.
fn compressed(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() < SHORTEST_TRIED_BYTES || bytes.len() > MAX_RAW_BYTES || looks_random(bytes) {
        return None;
    }
    COMPRESSOR.with_borrow_mut(|slot| {
        let compressor = match slot {
            Some(compressor) => compressor,
            None => slot.insert(Compressor::new(LEVEL).ok()?),
        };
        // What does not fit is not worth keeping, so that the attempt ends there.
        let mut stored = Vec::with_capacity(bytes.len() - bytes.len().div_ceil(16));
        compressor.compress_to_buffer(bytes, &mut stored).ok()?;
        Some(stored)
    })
}

/// Fills the capacity of `bytes` with what the frames in `stored` decompress to.
fn decompress(stored: &[u8], bytes: &mut Vec<u8>) -> Result<(), DecodeError> {
    DECOMPRESSOR
        .with_borrow_mut(|decompressor| decompressor.decompress_to_buffer(stored, bytes))
        .map_err(DecodeError::Frame)?;
    Ok(())
}

/// Returns whether a sample of `bytes` has its byte values spread as evenly as noise has.
///
/// Compressed images, archives and encrypted files do; text, tables and
/// tensors do not. Pairs of equal bytes are counted: among `n` bytes of noise
/// there are `n(n-1)/256` of them, and more by as much as the bytes say less.
fn looks_random(bytes: &[u8]) -> bool {
    let mut counts = [0_u64; 256];
    let mut looked_at = 0;
    let stride = (bytes.len() / SAMPLE_PIECES).max(SAMPLE_BYTES / SAMPLE_PIECES);
    for piece in bytes.chunks(stride) {
        let piece = &piece[..piece.len().min(SAMPLE_BYTES / SAMPLE_PIECES)];
        piece.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        looked_at += piece.len() as u64;
    }
    let pairs: u64 = counts.iter().map(|count| count * count.saturating_sub(1)).sum();
    pairs * 256 * 100 < looked_at * looked_at.saturating_sub(1) * NOISE_PERCENT
}
