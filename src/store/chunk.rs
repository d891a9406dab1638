//! Where a large file is cut, so that an edit changes few of its chunks.
//!
//! `FastCDC`: the bytes themselves say where to cut, so a cut moves along with
//! the bytes around it, and what lies beyond an edit is cut as before. Taken
//! from Xia et al., "`FastCDC`: a Fast and Efficient Content-Defined Chunking
//! Approach for Data Deduplication" (USENIX ATC 2016): the gear hash (3.2),
//! nothing is looked at below the minimum (3.3), and normalised chunking with
//! a rarer cut before the average and a commoner one behind it (3.4, level 2);
//! and from "The Design of Fast Content-Defined Chunking for Data
//! Deduplication Based Storage Systems" (TPDS 2020): rolling two bytes a step.
//!
//! Two things differ, both so that a cut depends on nothing but the 64 bytes
//! before it and on the distance to the last one: the hash starts 64 bytes
//! before the minimum rather than empty at it, and a cut is where the *highest*
//! bits of the hash are zero, because only they are reached by all 64 bytes.
//! Cuts are a promise: another table, bound or rule would keep every large
//! file a second time. They are pure, and cost about half a nanosecond a byte.

use std::sync::LazyLock;

use crate::hash::Digest;

/// No chunk is shorter, but for the last one of a file.
pub(super) const MIN_BYTES: usize = 64 * 1024;
/// Up to this length a cut is rare, from here on it is common.
pub(super) const AVERAGE_BYTES: usize = 256 * 1024;
/// No chunk is longer.
pub(super) const MAX_BYTES: usize = 1024 * 1024;

/// How many bytes the hash remembers: each step shifts it by one bit.
const WINDOW_BYTES: usize = u64::BITS as usize;
/// Below the average, one position in `2^20` is a cut; the logarithm of the average is 18.
const RARE: u64 = u64::MAX >> 20;
/// From the average on, one position in `2^16` is a cut.
const COMMON: u64 = u64::MAX >> 16;

/// The gear table is derived under this name.
const GEAR_CONTEXT: &str = "pv 2026 gear table v1";
static GEAR: LazyLock<Gear> = LazyLock::new(Gear::derived);

/// Returns the length of the first chunk of `bytes`; 0 only if there are none.
///
/// What is passed must reach to the end of the file or be at least
/// [`MAX_BYTES`] long, or its end passes for a cut. Never looks further than
/// [`MAX_BYTES`].
pub(super) fn first_cut(bytes: &[u8]) -> usize {
    found_cut(bytes).unwrap_or(bytes.len())
}

/// Returns the length of the first chunk of `bytes`, or `None` if it takes more bytes to say.
///
/// Never `None` for [`MAX_BYTES`] or more, and never another length than with more bytes.
pub(super) fn found_cut(bytes: &[u8]) -> Option<usize> {
    let bytes = &bytes[..bytes.len().min(MAX_BYTES)];
    // The shortest chunk is cut by its last byte, so the hash stops one before it.
    let window = bytes.get(MIN_BYTES - WINDOW_BYTES..MIN_BYTES - 1)?;
    let hash = window.iter().fold(0, |hash, byte| GEAR.roll(hash, *byte));
    let (unlikely, likely) = bytes[MIN_BYTES - 1..].split_at(bytes.len().min(AVERAGE_BYTES) + 1 - MIN_BYTES);
    let (hash, cut) = GEAR.first_reaching(RARE, hash, unlikely);
    let cut = cut.or_else(|| GEAR.first_reaching(COMMON, hash, likely).1.map(|length| unlikely.len() + length));
    cut.map(|length| MIN_BYTES - 1 + length).or((bytes.len() == MAX_BYTES).then_some(MAX_BYTES))
}

/// The number of each byte.
struct Gear {
    single: [u64; 256],
    /// The same numbers, shifted by the step of a second byte.
    doubled: [u64; 256],
}

impl Gear {
    /// Returns the frozen table: of each byte the first eight bytes, little-endian, of its digest under [`GEAR_CONTEXT`].
    fn derived() -> Self {
        let single = std::array::from_fn(|byte| {
            let digest = Digest::derived(GEAR_CONTEXT, &byte.to_le_bytes()[..1]);
            let (first, _) = digest.as_bytes().split_first_chunk().expect("a digest has 32 bytes");
            u64::from_le_bytes(*first)
        });
        Self { single, doubled: single.map(|number| number << 1) }
    }

    /// Returns the hash one byte further.
    fn roll(&self, hash: u64, byte: u8) -> u64 {
        (hash << 1).wrapping_add(self.single[usize::from(byte)])
    }

    /// Returns how many of `bytes` it takes for the hash to be `limit` or less, or the hash after all of them.
    ///
    /// Two bytes a step: the second hash is computed from the one before
    /// the first, so it need not wait for it. Half as fast again as byte by byte.
    fn first_reaching(&self, limit: u64, mut hash: u64, bytes: &[u8]) -> (u64, Option<usize>) {
        let (pairs, last) = bytes.as_chunks();
        for (index, [first, second]) in pairs.iter().enumerate() {
            let (first, second) = (usize::from(*first), usize::from(*second));
            let between = (hash << 1).wrapping_add(self.single[first]);
            hash = (hash << 2).wrapping_add(self.doubled[first].wrapping_add(self.single[second]));
            if between <= limit {
                return (between, Some(2 * index + 1));
            }
            if hash <= limit {
                return (hash, Some(2 * index + 2));
            }
        }
        for byte in last {
            hash = self.roll(hash, *byte);
        }
        (hash, (!last.is_empty() && hash <= limit).then_some(bytes.len()))
    }
}
