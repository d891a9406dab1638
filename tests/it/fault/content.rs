//! Files that differ from round to round, and what the program said that it keeps of them.

use std::collections::BTreeMap;
use std::time::Duration;

/// Files of a working tree: path and content.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// A snapshot that was acknowledged.
pub(super) struct Kept {
    /// By what, for whoever reads a failure.
    pub(super) what: String,
    /// Its id.
    pub(super) snapshot: String,
    /// What it holds, kept where no fault reaches.
    pub(super) files: Files,
}

/// Numbers that look random and are the same in every run.
pub(super) struct Numbers(u64);

impl Numbers {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Returns bytes that nothing makes smaller.
    pub(super) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let words = (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes());
        words.take(length).collect()
    }

    /// Returns a part of `whole`, or up to a tenth more.
    pub(super) fn part_of(&mut self, whole: Duration) -> Duration {
        whole * u32::try_from(self.next() % 1100).unwrap() / 1000
    }
}

/// Returns the files of one round: a large one, small ones, some of them as in the round before.
pub(super) fn files_of(round: u64, large_bytes: usize, small_count: u64) -> Files {
    let mut files = Files::new();
    files.insert("in".to_owned(), format!("{round}\n").repeat(500).into_bytes());
    files.insert("data/large".to_owned(), Numbers::new(1_000 + round).bytes(large_bytes));
    for number in 0..small_count {
        let seed = if number % 2 == 0 { number } else { number + 7_000 * (round + 1) };
        files.insert(format!("data/{}/part-{number}", number % 3), Numbers::new(seed).bytes(3_000));
    }
    files
}

/// Returns `files` and the output that the step makes of them.
pub(super) fn with_output(mut files: Files) -> Files {
    let input = files["in"].clone();
    files.insert("out".to_owned(), input);
    files
}
