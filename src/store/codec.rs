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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hash::Digest;

    fn noise(length: usize) -> Vec<u8> {
        (0_u64..).flat_map(|index| *Digest::of(&index.to_le_bytes()).as_bytes()).take(length).collect()
    }

    fn table(rows: u32) -> Vec<u8> {
        (0..rows).flat_map(|row| format!("{row},sensor-{},{}\n", row % 7, row % 311 * 37).into_bytes()).collect()
    }

    /// Each byte is one of 16 values, so the half of every byte is superfluous and nothing repeats.
    fn half_noise(length: usize) -> Vec<u8> {
        noise(length).into_iter().map(|byte| byte & 0xf0).collect()
    }

    #[test]
    fn text_and_tables_shrink_and_come_back() {
        for bytes in [table(30), table(20_000), half_noise(100_000), vec![0; 300_000]] {
            let (codec, stored) = encode(&bytes);
            assert_eq!(codec, Codec::Zstd);
            assert!(stored.len() * 10 < bytes.len() * 6, "{} of {}", stored.len(), bytes.len());
            assert!(decode(codec, &stored, bytes.len()).unwrap() == bytes);
        }
    }

    #[test]
    fn what_would_not_shrink_is_borrowed_as_it_is() {
        // The last one shrinks, but by less than 6 %.
        let nearly_noise = [noise(100_000), vec![0; 3000]].concat();
        for bytes in [&b""[..], b"x", b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", &noise(5000), &noise(1_000_000), &nearly_noise]
        {
            let (codec, stored) = encode(bytes);
            assert!(codec == Codec::Raw && matches!(stored, Cow::Borrowed(same) if same == bytes), "{}", bytes.len());
            assert!(decode(codec, &stored, bytes.len()).unwrap() == bytes);
        }
    }

    #[test]
    fn noise_is_told_from_everything_that_could_shrink() {
        let tensor = noise(4 * 50_000).chunks(4).flat_map(|number| [number[0], number[1], number[2], 0x3f]).collect();
        let skewed = noise(200_000).into_iter().map(|byte| if byte < 90 { 7 } else { byte }).collect();
        // 7.3 bits a byte: it shrinks by 8 %, which is hardly worth it and still is.
        let barely = noise(200_000).into_iter().map(|byte| byte % 170).collect();
        for bytes in [table(5000), half_noise(5000), tensor, skewed, barely] {
            assert!(!looks_random(&bytes) && encode(&bytes).0 == Codec::Zstd, "{}", bytes.len());
        }
        for length in [1024, 4096, 300_000, 1_000_000] {
            assert!(looks_random(&noise(length)), "{length}");
        }
    }

    #[test]
    fn equal_bytes_are_stored_equally_whatever_came_before_and_on_any_thread() {
        let bytes = table(3000);
        let first = encode(&bytes).1.into_owned();
        encode(&half_noise(1_000_000));
        encode(&noise(100));
        assert!(encode(&bytes).1 == first);
        assert!(std::thread::scope(|scope| scope.spawn(|| encode(&bytes).1.into_owned()).join().unwrap()) == first);
    }

    #[test]
    fn a_reused_buffer_holds_the_last_object_alone_and_does_not_grow_for_a_shorter_one() {
        let mut buffer = Vec::new();
        let mut most = 0;
        for bytes in [table(3000), noise(700), table(10), Vec::new(), table(2000)] {
            let (codec, stored) = encode(&bytes);
            decode_into(codec, &stored, bytes.len(), &mut buffer).unwrap();
            assert!(buffer == bytes);
            most = most.max(bytes.len());
            assert!(buffer.capacity() <= most, "{} for {most}", buffer.capacity());
        }
    }

    #[test]
    fn another_length_than_the_expected_one_is_an_error_and_leaves_nothing() {
        for bytes in [table(3000), noise(700)] {
            let (codec, stored) = encode(&bytes);
            for wrong in [0, bytes.len() - 1, bytes.len() + 1] {
                // A buffer with room to spare must not let a longer object through.
                let mut buffer = Vec::with_capacity(2 * bytes.len());
                assert!(decode_into(codec, &stored, wrong, &mut buffer).is_err(), "{wrong}");
                assert!(buffer.is_empty());
                assert!(decode(codec, &stored, wrong).is_err(), "{wrong}");
            }
        }
    }

    #[test]
    fn nothing_is_allocated_for_a_length_that_cannot_be() {
        let mut buffer = Vec::new();
        for codec in [Codec::Raw, Codec::Zstd] {
            let error = decode_into(codec, b"short", usize::MAX, &mut buffer).unwrap_err();
            assert!(matches!(error, DecodeError::TooLong { raw_len: usize::MAX }));
        }
        let error = decode_into(Codec::Raw, b"short", MAX_RAW_BYTES, &mut buffer).unwrap_err();
        assert!(matches!(error, DecodeError::Length { expected: MAX_RAW_BYTES, actual: 5 }));
        assert_eq!(buffer.capacity(), 0);
    }

    #[test]
    fn a_frame_of_more_than_was_promised_never_gets_more_memory() {
        // They take some hundred bytes of disk.
        let zeros = vec![0; 15 * 1024 * 1024];
        let (codec, stored) = encode(&zeros);
        assert!(codec == Codec::Zstd && stored.len() < 2000);
        let mut buffer = Vec::new();
        assert!(matches!(decode_into(codec, &stored, 1000, &mut buffer), Err(DecodeError::Frame(_))));
        assert_eq!(buffer.capacity(), 1000);
    }

    #[test]
    fn the_numbers_of_codecs_are_the_stored_ones() {
        for (codec, number) in [(Codec::Raw, 0), (Codec::Zstd, 1)] {
            assert_eq!(codec as u8, number);
            assert_eq!(Codec::try_from(number).unwrap(), codec);
        }
        assert_eq!(Codec::try_from(2).unwrap_err().to_string(), "there is no codec `2`");
    }

    /// Bytes between noise and nothing but repetition.
    fn anything() -> impl Strategy<Value = Vec<u8>> {
        (proptest::collection::vec(any::<u8>(), 0..300), 0..40_usize, any::<u8>()).prop_map(|(piece, count, mask)| {
            let piece: Vec<u8> = piece.into_iter().map(|byte| byte & mask).collect();
            piece.repeat(count)
        })
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(bytes in anything()) {
            let (codec, stored) = encode(&bytes);
            prop_assert!(stored.len() <= bytes.len());
            prop_assert_eq!(decode(codec, &stored, bytes.len()).unwrap(), bytes);
        }

        #[test]
        fn arbitrary_bytes_are_an_object_of_the_promised_length_or_an_error(
            stored in proptest::collection::vec(any::<u8>(), 0..600),
            // Without the magic number of a frame hardly any bytes get past the first four.
            magic in any::<bool>(),
            raw_len in 0..2000_usize,
        ) {
            let stored = if magic { [&[0x28, 0xb5, 0x2f, 0xfd], &stored[..]].concat() } else { stored };
            if let Ok(bytes) = decode(Codec::Zstd, &stored, raw_len) {
                prop_assert_eq!(bytes.len(), raw_len);
            }
        }

        #[test]
        fn a_damaged_frame_is_an_object_of_the_promised_length_or_an_error(
            bytes in anything(),
            at in any::<prop::sample::Index>(),
            flip in 1..=255_u8,
            cut in any::<bool>(),
        ) {
            let (codec, stored) = encode(&bytes);
            let mut stored = stored.into_owned();
            if !stored.is_empty() {
                let at = at.index(stored.len());
                stored[at] ^= flip;
                stored.truncate(if cut { at } else { stored.len() });
            }
            if let Ok(decoded) = decode(codec, &stored, bytes.len()) {
                prop_assert_eq!(decoded.len(), bytes.len());
            }
        }
    }
}
