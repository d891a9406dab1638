//! What an operation costs at least: the same bytes moved with nothing kept of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

use rayon::prelude::*;

/// Directories that are read and hashed before their bytes go to the writer.
const DIRECTORIES_AT_ONCE: usize = 8;
const READ_BYTES: usize = 1 << 20;

/// Reads and hashes all files on all processors and writes their bytes to one file, synced. Returns how many bytes.
pub(crate) fn read_hash_and_write(from: &Path, to: &Path) -> u64 {
    let directories = directories(from);
    let (sender, receiver) = sync_channel::<Vec<(blake3::Hash, Vec<u8>)>>(2);
    let mut out = File::create(to).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            let mut written = 0;
            for (_, bytes) in receiver.into_iter().flatten() {
                out.write_all(&bytes).unwrap();
                written += u64::try_from(bytes.len()).unwrap();
            }
            out.sync_all().unwrap();
            written
        });
        for group in directories.chunks(DIRECTORIES_AT_ONCE) {
            let files: Vec<PathBuf> = group.iter().flat_map(|directory| files_in(directory)).collect();
            let hashed = files.par_iter().map(|path| {
                let bytes = std::fs::read(path).unwrap();
                (blake3::hash(&bytes), bytes)
            });
            sender.send(hashed.collect()).unwrap();
        }
        drop(sender);
        writer.join().unwrap()
    })
}

/// Looks at each file on all processors, without opening it. Returns how many files there are and their bytes.
pub(crate) fn walk(directory: &Path) -> (u64, u64) {
    let (mut below, mut files, mut bytes) = (Vec::new(), 0, 0);
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            below.push(entry.path());
        } else {
            files += 1;
            bytes += entry.metadata().unwrap().len();
        }
    }
    let found = below.par_iter().map(|directory| walk(directory));
    let (more, larger) = found.reduce(|| (0, 0), |one, other| (one.0 + other.0, one.1 + other.1));
    (files + more, bytes + larger)
}

/// Reads everything once, so that the one who is measured first is not the one who waits for the disk.
pub(crate) fn warm(place: &Path) {
    if place.is_dir() {
        directories(place).par_iter().flat_map(|directory| files_in(directory)).for_each(|path| read_through(&path));
    } else {
        read_through(place);
    }
}

/// Returns the digest of each file by its path below `root`.
pub(crate) fn digests(root: &Path) -> BTreeMap<PathBuf, blake3::Hash> {
    let directories = directories(root);
    let files = directories.par_iter().flat_map(|directory| files_in(directory));
    let digest = |path: PathBuf| {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open(&path).unwrap()).unwrap();
        (path.strip_prefix(root).unwrap().to_owned(), hasher.finalize())
    };
    files.map(digest).collect()
}

/// Returns the MiB that a tree occupies on disk, without the entries of `root` that are named.
#[cfg(unix)]
pub(crate) fn occupied_mib(root: &Path, without: &[&str]) -> f64 {
    use std::os::unix::fs::MetadataExt as _;
    const BLOCK_BYTES: u64 = 512;
    let is_counted = |entry: &walkdir::DirEntry| {
        entry.depth() != 1 || without.iter().all(|name| Path::new(name) != Path::new(entry.file_name()))
    };
    let blocks: u64 = walkdir::WalkDir::new(root)
        .into_iter()
        .filter_entry(is_counted)
        .map(|entry| entry.unwrap().metadata().unwrap().blocks())
        .sum();
    mib(blocks * BLOCK_BYTES)
}

pub(crate) fn mib(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "no disk holds so much that it mattered")]
    let bytes = bytes as f64;
    bytes / f64::from(1 << 20)
}

/// The directory itself and all below it, in order.
fn directories(root: &Path) -> Vec<PathBuf> {
    let entries = walkdir::WalkDir::new(root).sort_by_file_name().into_iter();
    let all = entries.filter_entry(|entry| entry.file_type().is_dir());
    all.map(|entry| entry.unwrap().into_path()).collect()
}

fn files_in(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries.filter(|entry| entry.file_type().unwrap().is_file()).map(|entry| entry.path()).collect()
}

fn read_through(path: &Path) {
    let mut file = File::open(path).unwrap();
    let mut buffer = vec![0; READ_BYTES.min(usize::try_from(file.metadata().unwrap().len()).unwrap().max(1))];
    while file.read(&mut buffer).unwrap() > 0 {}
}
