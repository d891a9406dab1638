//! Where a large file is cut, so that an edit changes few of its chunks.
//!
//! `FastCDC`: the bytes themselves say where to cut, so a cut moves along with
//! the bytes around it, and what lies beyond an edit is cut as before. Taken
//! from Xia et al., "`FastCDC`: a Fast and Efficient Content-Defined Chunking
//! Approach for Data Deduplication" (USENIX ATC 2016): the gear hash (3.2),
//! nothing is looked at below the minimum (3.3), and normalised chunking with
//! a rarer cut before the average and a commoner one behind it (3.4, level 2).
//!
//! Two things differ, both so that a cut depends on nothing but the 64 bytes
//! before it and on the distance to the last one: the hash starts 64 bytes
//! before the minimum rather than empty at it, and a cut is where the *highest*
//! bits of the hash are zero, because only they are reached by all 64 bytes.
//! It also lets two stretches be hashed side by side. That is a quarter faster
//! than the two bytes a step of the later paper ("The Design of Fast
//! Content-Defined Chunking for Data Deduplication Based Storage Systems",
//! TPDS 2020), and cuts at the same places.
//!
//! Cuts are a promise: another table, bound or rule would keep every large
//! file a second time. They are pure, and cost about 0.4 ns a byte.

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

/// How many bytes are hashed beside as many others. Those of a pair with a cut are hashed again, so they are few.
const STRETCH_BYTES: usize = 2048;

/// The gear table is derived under this name.
const GEAR_CONTEXT: &str = "pv 2026 gear table v1";
static GEAR: LazyLock<Gear> = LazyLock::new(Gear::derived);

/// Returns the length of the first chunk of `bytes`; 0 only if there are none.
///
/// What is passed must reach to the end of the file or be at least
/// [`MAX_BYTES`] long, or its end passes for a cut. Never looks further than
/// [`MAX_BYTES`].
#[cfg(test)]
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
struct Gear([u64; 256]);

impl Gear {
    /// Returns the frozen table: of each byte the first eight bytes, little-endian, of its digest under [`GEAR_CONTEXT`].
    fn derived() -> Self {
        Self(std::array::from_fn(|byte| {
            let digest = Digest::derived(GEAR_CONTEXT, &byte.to_le_bytes()[..1]);
            let (first, _) = digest.as_bytes().split_first_chunk().expect("a digest has 32 bytes");
            u64::from_le_bytes(*first)
        }))
    }

    /// Returns the hash one byte further.
    fn roll(&self, hash: u64, byte: u8) -> u64 {
        (hash << 1).wrapping_add(self.0[usize::from(byte)])
    }

    /// Returns the hash after all of `bytes`, or after as many as it takes for it to be `limit` or less.
    fn first_reaching(&self, limit: u64, mut hash: u64, bytes: &[u8]) -> (u64, Option<usize>) {
        let (stretches, _) = bytes.as_chunks::<STRETCH_BYTES>();
        let (pairs, _) = stretches.as_chunks();
        let mut done = 0;
        for pair in pairs {
            let Some(end) = self.passing_over(limit, hash, pair) else { break };
            hash = end;
            done += pair.as_flattened().len();
        }
        for (index, byte) in bytes.iter().enumerate().skip(done) {
            hash = self.roll(hash, *byte);
            if hash <= limit {
                return (hash, Some(index + 1));
            }
        }
        (hash, None)
    }

    /// Returns the hash after both stretches, or `None` if it is `limit` or less somewhere.
    ///
    /// Each step of a hash waits for the one before; those of the other stretch fill the pause.
    fn passing_over(&self, limit: u64, mut hash: u64, [near, far]: &[[u8; STRETCH_BYTES]; 2]) -> Option<u64> {
        let before_far = &near[STRETCH_BYTES - WINDOW_BYTES..];
        let mut far_hash = before_far.iter().fold(0, |hash, byte| self.roll(hash, *byte));
        for (near, far) in near.as_chunks::<8>().0.iter().zip(far.as_chunks::<8>().0) {
            let mut reached = false;
            for (near, far) in near.iter().zip(far) {
                hash = self.roll(hash, *near);
                far_hash = self.roll(far_hash, *far);
                reached |= hash <= limit || far_hash <= limit;
            }
            if reached {
                return None;
            }
        }
        Some(far_hash)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Bytes that no rule can foresee, and the same on every machine: xorshift64*.
    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed;
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    /// A table of numbered rows.
    fn table(rows: u32) -> Vec<u8> {
        (0..rows).flat_map(|row| format!("{row},sensor-{},{}\n", row % 7, row % 311 * 37).into_bytes()).collect()
    }

    fn chunks(mut bytes: &[u8]) -> Vec<&[u8]> {
        let mut chunks = Vec::new();
        while !bytes.is_empty() {
            let (chunk, rest) = bytes.split_at(first_cut(bytes));
            chunks.push(chunk);
            bytes = rest;
        }
        chunks
    }

    fn lengths(bytes: &[u8]) -> Vec<usize> {
        chunks(bytes).into_iter().map(<[u8]>::len).collect()
    }

    /// The rule in its plainest words: the last 64 bytes are hashed anew at each position.
    fn plain_rule(bytes: &[u8]) -> usize {
        let numbers: Vec<u64> = (0..=255_u8)
            .map(|byte| Digest::derived("pv 2026 gear table v1", &[byte]))
            .map(|digest| u64::from_le_bytes(*digest.as_bytes().first_chunk().unwrap()))
            .collect();
        let hash = |window: &[u8]| {
            window.iter().fold(0_u64, |hash, byte| hash.wrapping_mul(2).wrapping_add(numbers[usize::from(*byte)]))
        };
        let is_cut = |end: &usize| {
            let zeros = if *end <= 256 * 1024 { 20 } else { 16 };
            hash(&bytes[end - 64..*end]).leading_zeros() >= zeros
        };
        (64 * 1024..bytes.len().min(1024 * 1024)).find(is_cut).unwrap_or(bytes.len().min(1024 * 1024))
    }

    #[test]
    fn the_gear_table_is_the_frozen_one() {
        let numbers: Vec<u8> = GEAR.0.iter().flat_map(|number| number.to_le_bytes()).collect();
        insta::assert_snapshot!(Digest::of(&numbers), @"22811ebb5f1a31d3e9e8ad6986db00812c2993dd079011d1da25f7cd63eb7620");
    }

    #[test]
    fn the_cuts_of_known_bytes_are_the_frozen_ones() {
        let inputs = [
            noise(1, 2_000_000),
            noise(2, 2_000_000),
            table(80_000),
            vec![0; 2_500_000],
            vec![b'x'; MIN_BYTES],
            b"x".to_vec(),
            Vec::new(),
        ];
        let lines: Vec<_> = inputs.iter().map(|bytes| format!("{:?}", lengths(bytes))).collect();
        insta::assert_snapshot!(lines.join("\n"), @"
        [311115, 268055, 437897, 410476, 272616, 299841]
        [85122, 267612, 153090, 411220, 272721, 293328, 438275, 78632]
        [280431, 276905, 315863, 345838, 88180, 243324, 40373]
        [1048576, 1048576, 402848]
        [65536]
        [1]
        []
        ");
    }

    #[test]
    fn two_stretches_at_once_are_cut_where_the_plain_rule_says() {
        let bytes = noise(3, 3_000_000);
        let chunks = chunks(&bytes);
        let is_early = |chunk: &&[u8]| chunk.len() <= AVERAGE_BYTES;
        // The last one ends with the bytes, whatever the rule.
        let (last, cut) = chunks.split_last().unwrap();
        let early = cut.iter().find(|chunk| is_early(chunk)).expect("a chunk that is cut before the average");
        let late = cut.iter().find(|chunk| !is_early(chunk)).expect("a chunk that is cut after it");
        for chunk in [early, late, last] {
            let from = &bytes[chunk.as_ptr().addr() - bytes.as_ptr().addr()..];
            assert_eq!(chunk.len(), plain_rule(from));
        }
    }

    #[test]
    fn a_cut_at_an_odd_and_at_the_last_byte_is_found() {
        let bytes = noise(4, 3_000_000);
        let all = lengths(&bytes);
        assert!(all.iter().any(|length| length % 2 == 1) && all.iter().any(|length| length % 2 == 0), "{all:?}");
        let mut done = 0;
        for length in &all[..all.len() - 1] {
            let chunk = &bytes[done..];
            assert_eq!(found_cut(&chunk[..*length]), Some(*length), "its last byte is enough");
            assert_eq!(found_cut(&chunk[..length - 1]), None, "one less is not");
            done += length;
        }
    }

    #[test]
    fn an_insertion_changes_few_chunks() {
        let base = noise(5, 8 * MAX_BYTES);
        let before: BTreeSet<_> = chunks(&base).into_iter().collect();
        let law = |(at, inserted): (usize, Vec<u8>)| {
            let edited = [&base[..at], &inserted, &base[at..]].concat();
            let after = chunks(&edited);
            prop_assert_eq!(after.concat().len(), edited.len());
            let new = after.iter().filter(|chunk| !before.contains(*chunk)).count();
            prop_assert!(new <= 6, "{} chunks of {} are new", new, after.len());
            Ok(())
        };
        let insertion = (0..=base.len(), proptest::collection::vec(any::<u8>(), 1..2000));
        let config = ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() };
        proptest::test_runner::TestRunner::new(config).run(&insertion, law).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn chunks_cover_the_bytes_and_keep_their_bounds(
            seed in 1_u64..,
            length in 0..3 * MAX_BYTES,
            period in 1_usize..100_000,
        ) {
            // Short periods are data that repeats, which may have no cut at all.
            let bytes: Vec<u8> = noise(seed, period).into_iter().cycle().take(length).collect();
            let chunks = chunks(&bytes);
            prop_assert!(chunks.concat() == bytes);
            prop_assert!(chunks.iter().all(|chunk| chunk.len() <= MAX_BYTES));
            let bounded = chunks.split_last().map_or(&chunks[..], |(_, bounded)| bounded);
            prop_assert!(bounded.iter().all(|chunk| chunk.len() >= MIN_BYTES));
        }
    }
}
