//! The fuzz targets, run over their corpus and seeded mutations of it, with any toolchain.
//!
//! A coverage-guided run of the same functions needs `cargo fuzz` and a nightly
//! toolchain, see `fuzz/Cargo.toml`; what it finds goes into the corpus.

use std::path::Path;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 8] = [
    ("tree", pv::object::fuzz::tree),
    ("snapshot", pv::object::fuzz::snapshot),
    ("pointer", pv::snapshot::fuzz::pointer),
    ("record", pv::store::fuzz::record),
    ("index", pv::store::fuzz::index),
    ("scan", pv::store::fuzz::scanned),
    ("recipe", pv::store::fuzz::recipe),
    ("codec", pv::store::fuzz::decoded),
];
/// How many mutated inputs each target gets.
const MUTATIONS: u32 = 3000;

/// A small generator (xorshift64*, Vigna 2016): the same inputs in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).unwrap()
    }
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut paths: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "`{target}` has no corpus");
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Changes a few things of the sort that files suffer.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1).min(bytes.len().saturating_sub(1));
        match random.below(6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 => bytes.truncate(at),
            2 => bytes.insert(at.min(bytes.len()), u8::try_from(random.below(256)).unwrap()),
            3 if !bytes.is_empty() => {
                // Numbers are where lengths hide: the largest, the smallest, and what is near.
                let number = [0, 1, u64::MAX, 1 << 31, 1 << 24, u64::from(u32::MAX)][random.below(6)];
                let end = (at + 1 + random.below(8)).min(bytes.len());
                let count = end - at;
                bytes[at..end].copy_from_slice(&number.to_le_bytes()[..count]);
            }
            4 if !bytes.is_empty() => {
                let end = (at + random.below(64)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, copy);
            }
            _ => bytes.extend((0..random.below(16)).map(|_| u8::try_from(random.next() >> 56).unwrap())),
        }
    }
}

#[test]
fn no_bytes_break_a_law_of_what_reads_them() {
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        corpus.iter().for_each(|bytes| target(bytes));
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for _ in 0..MUTATIONS {
            let mut bytes = corpus[random.below(corpus.len())].clone();
            mutate(&mut bytes, &mut random);
            target(&bytes);
        }
    }
}

#[test]
fn every_target_of_the_fuzzer_is_one_of_these() {
    let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/Cargo.toml")).unwrap();
    let there: Vec<_> = manifest.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).collect();
    let expected: Vec<_> = std::iter::once("pv-fuzz").chain(TARGETS.iter().map(|(name, _)| *name)).collect();
    assert_eq!(there, expected);
}
