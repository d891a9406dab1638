//! The data: the same bytes on every machine, from nothing but a number.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

/// Bytes of each small file.
pub(crate) const FILE_BYTES: usize = 4096;
pub(crate) const MIB: usize = 1 << 20;
const FILES_A_DIRECTORY: usize = 250;
/// Of so many small files, one repeats the content of an earlier one.
const ONE_REPEATED_OF: usize = 20;
const ROWS_A_BLOCK: usize = 10_000;
const WORDS: [&str; 24] = [
    "batch", "sensor", "model", "layer", "weight", "epoch", "loss", "train", "sample", "north", "river", "value",
    "mean", "error", "window", "signal", "filter", "count", "index", "total", "label", "class", "split", "score",
];

/// A stream of numbers that look random and are the same each time.
struct Numbers(u64);

impl Numbers {
    /// Streams of different seeds have nothing in common.
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xd134_2543_de82_ef95) ^ 0x2545_f491_4f6c_dd1d)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

/// Makes `count` files of 4 KiB, 250 a directory: half of them text, half random, one of twenty a repetition.
pub(crate) fn make_files(root: &Path, count: usize) {
    (0..count.div_ceil(FILES_A_DIRECTORY)).into_par_iter().for_each(|directory| {
        let first = directory * FILES_A_DIRECTORY;
        std::fs::create_dir_all(path_of(root, first).parent().unwrap()).unwrap();
        for number in first..count.min(first + FILES_A_DIRECTORY) {
            std::fs::write(path_of(root, number), content(number)).unwrap();
        }
    });
}

/// Makes `count` files of 1 to 8 KiB, 250 a directory, half of them text, half random.
pub(crate) fn make_mixed_files(root: &Path, count: usize) {
    (0..count.div_ceil(FILES_A_DIRECTORY)).into_par_iter().for_each(|directory| {
        let first = directory * FILES_A_DIRECTORY;
        std::fs::create_dir_all(path_of(root, first).parent().unwrap()).unwrap();
        for number in first..count.min(first + FILES_A_DIRECTORY) {
            let length = 1024 + Numbers::new(u64::try_from(number).unwrap()).below(7 * 1024);
            let bytes = content(number).into_iter().cycle().take(length).collect::<Vec<_>>();
            std::fs::write(path_of(root, number), bytes).unwrap();
        }
    });
}

/// Gives so many of `count` files other content of the same length, evenly spread. Each round chooses others.
pub(crate) fn change_files(root: &Path, count: usize, changes: usize, round: usize) {
    for change in 0..changes {
        let number = (change * (count / changes) + round) % count;
        let (path, seed) = (path_of(root, number), u64::try_from(count + round * changes + change).unwrap());
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, Numbers::new(seed).bytes(FILE_BYTES)).unwrap();
        std::fs::rename(&fresh, &path).unwrap();
    }
}

fn path_of(root: &Path, number: usize) -> PathBuf {
    root.join(format!("d{:04}/f{number:07}", number / FILES_A_DIRECTORY))
}

fn content(number: usize) -> Vec<u8> {
    let is_repeated = |number: usize| number % ONE_REPEATED_OF == ONE_REPEATED_OF - 1;
    let origin = match number {
        number if !is_repeated(number) => number,
        number if is_repeated(number / 2) => number / 2 - 1,
        number => number / 2,
    };
    let mut numbers = Numbers::new(u64::try_from(origin).unwrap());
    if origin % 2 == 1 {
        return numbers.bytes(FILE_BYTES);
    }
    let mut text = Vec::with_capacity(FILE_BYTES + 80);
    while text.len() < FILE_BYTES {
        let word = WORDS[numbers.below(WORDS.len())];
        let other = WORDS[numbers.below(WORDS.len())];
        writeln!(text, "{word}_{other} = {}.{:03}", numbers.below(100), numbers.below(1000)).unwrap();
    }
    text.truncate(FILE_BYTES);
    text
}

/// Makes one file that cannot be compressed.
pub(crate) fn make_random(path: &Path, bytes: usize) {
    const AT_ONCE: usize = 16;
    let mut file = File::create(path).unwrap();
    let blocks: Vec<usize> = (0..bytes.div_ceil(MIB)).collect();
    for group in blocks.chunks(AT_ONCE) {
        let made: Vec<_> = group
            .par_iter()
            .map(|block| Numbers::new(u64::try_from(*block).unwrap() | 1 << 40).bytes(MIB.min(bytes - block * MIB)))
            .collect();
        made.iter().for_each(|block| file.write_all(block).unwrap());
    }
}

/// Makes a table whose rows differ in each column but the last.
pub(crate) fn make_table(path: &Path, bytes: usize) {
    const AT_ONCE: usize = 16;
    let mut file = File::create(path).unwrap();
    let mut left = bytes;
    let mut header = b"id,time,device,temperature,pressure,state,comment\n".to_vec();
    header.truncate(left);
    file.write_all(&header).unwrap();
    left -= header.len();
    for group in 0.. {
        let made: Vec<_> = (group * AT_ONCE..(group + 1) * AT_ONCE).into_par_iter().map(table_rows).collect();
        for mut rows in made {
            rows.truncate(left);
            file.write_all(&rows).unwrap();
            left -= rows.len();
        }
        if left == 0 {
            break;
        }
    }
}

fn table_rows(block: usize) -> Vec<u8> {
    let mut numbers = Numbers::new(u64::try_from(block).unwrap() | 1 << 41);
    let mut text = Vec::with_capacity(ROWS_A_BLOCK * 80);
    for row in block * ROWS_A_BLOCK..(block + 1) * ROWS_A_BLOCK {
        // The sum of a few is spread like a measured value: most are near the middle.
        let temperature = (0..6).map(|_| numbers.below(5000)).sum::<usize>();
        let pressure = 95_000 + (0..6).map(|_| numbers.below(2000)).sum::<usize>();
        let state = ["ok", "ok", "ok", "warn", "fail"][numbers.below(5)];
        writeln!(
            text,
            "{row},2026-01-{:02}T{:02}:{:02}:{:02}Z,sensor-{:03},{}.{:03},{}.{:02},{state},batch {}",
            row / 86_400 % 28 + 1,
            row / 3600 % 24,
            row / 60 % 60,
            row % 60,
            numbers.below(200),
            temperature / 1000,
            temperature % 1000,
            pressure / 100,
            pressure % 100,
            row / 5000,
        )
        .unwrap();
    }
    text
}

/// Overwrites so many blocks of a file with random bytes, evenly spread. Its length stays.
pub(crate) fn edit_blocks(path: &Path, blocks: usize, block_bytes: usize) {
    let mut file = File::options().write(true).open(path).unwrap();
    let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
    for block in 0..blocks {
        let offset = block * (length / blocks) + length / blocks / 3;
        file.seek(SeekFrom::Start(u64::try_from(offset).unwrap())).unwrap();
        let bytes = Numbers::new(u64::try_from(block).unwrap() | 1 << 42).bytes(block_bytes.min(length - offset));
        file.write_all(&bytes).unwrap();
    }
}

/// Puts random bytes before the first byte of a file.
pub(crate) fn insert_at_start(path: &Path, bytes: usize) {
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh).unwrap();
    file.write_all(&Numbers::new(1 << 43).bytes(bytes)).unwrap();
    std::io::copy(&mut File::open(path).unwrap(), &mut file).unwrap();
    drop(file);
    std::fs::rename(&fresh, path).unwrap();
}
