//! The order in which staged objects become durable and visible.
//!
//! First the bytes are flushed, then they get their names, then the names are
//! flushed. So a name never shows before its bytes are safe, and a power cut
//! cannot leave a well-named empty file. Planning is pure; [`Step::perform`] acts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::layout::{Layout, Shard};
use crate::disk::{self, DiskError};
use crate::hash::Digest;
use crate::object::Kind;

/// An object that was put and not yet committed.
#[derive(Clone, Debug)]
pub(super) struct Staged {
    /// The temporary file with its bytes.
    pub(super) path: PathBuf,
    /// Its length in bytes.
    pub(super) size: u64,
}

/// Staged objects by kind and name.
pub(super) type Batch = BTreeMap<(Kind, Digest), Staged>;

/// One effect of a commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step<'a> {
    /// Flushes the bytes of a temporary file.
    FlushFile(&'a Path),
    /// Flushes everything there is.
    FlushFileSystem,
    /// Makes the directory of a shard.
    MakeDirectory(PathBuf),
    /// Moves a temporary file to the place of its object.
    Publish {
        /// The kind of the object.
        kind: Kind,
        /// Its name.
        digest: Digest,
        /// The temporary file.
        from: &'a Path,
    },
    /// Flushes the entries of a directory.
    FlushDirectory(PathBuf),
}

/// Returns the steps that commit `batch`, and also flush the entries of the shards in `touched`.
///
/// Up to `flush_each_max` things are flushed one by one; from there on, one
/// flush of the file system is cheaper, although it waits for other programs' data too.
pub(super) fn plan<'a>(
    layout: &Layout,
    batch: &'a Batch,
    touched: &BTreeSet<Shard>,
    flush_each_max: usize,
) -> Vec<Step<'a>> {
    let shards: BTreeSet<_> = batch.keys().map(|(kind, digest)| Shard::of(*kind, *digest)).collect();
    let files = batch.values().map(|staged| Step::FlushFile(&staged.path)).collect();
    let mut steps = flushes(files, flush_each_max);
    steps.extend(shards.iter().map(|shard| Step::MakeDirectory(layout.shard(*shard))));
    steps.extend(batch.iter().map(|((kind, digest), staged)| Step::Publish {
        kind: *kind,
        digest: *digest,
        from: &staged.path,
    }));
    let directories: BTreeSet<_> = shards.union(touched).flat_map(|shard| layout.way_to(*shard)).collect();
    // The deepest first: a crash in between leaves nothing that leads nowhere.
    let directories = directories.into_iter().rev().map(Step::FlushDirectory).collect();
    steps.extend(flushes(directories, flush_each_max));
    steps
}

fn flushes(each: Vec<Step<'_>>, each_max: usize) -> Vec<Step<'_>> {
    if each.len() <= each_max { each } else { vec![Step::FlushFileSystem] }
}

impl Step<'_> {
    /// Returns whether this makes something durable.
    pub(super) fn is_flush(&self) -> bool {
        matches!(self, Self::FlushFile(_) | Self::FlushFileSystem | Self::FlushDirectory(_))
    }

    /// Does it.
    pub(super) fn perform(&self, layout: &Layout) -> Result<(), DiskError> {
        match self {
            Self::FlushFile(path) => disk::sync_file(path),
            Self::FlushFileSystem => disk::sync_file_system(layout.root()),
            Self::MakeDirectory(path) => disk::make_directory(path),
            Self::Publish { kind, digest, from } => disk::rename(from, &layout.object(*kind, *digest)),
            Self::FlushDirectory(path) => disk::sync_directory(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(count: u8) -> Batch {
        let staged = |number: u8| {
            let path = PathBuf::from(format!("tmp/{number}"));
            ((Kind::Blob, Digest::of(&[number])), Staged { path, size: 1 })
        };
        (0..count).map(staged).collect()
    }

    #[test]
    fn a_small_batch_is_flushed_one_by_one_and_a_large_one_at_once() {
        let layout = Layout::new(Path::new("store"));
        let flushes = |count, each_max| {
            let batch = batch(count);
            let steps = plan(&layout, &batch, &BTreeSet::new(), each_max);
            let of_files = steps.iter().filter(|step| matches!(step, Step::FlushFile(_))).count();
            let of_all = steps.iter().filter(|step| matches!(step, Step::FlushFileSystem)).count();
            (of_files, of_all)
        };
        assert_eq!(flushes(10, 64), (10, 0));
        assert_eq!(flushes(200, 64), (0, 2));
        assert_eq!(flushes(0, 64), (0, 0));
    }

    #[test]
    fn a_touched_directory_is_flushed_though_nothing_is_published_in_it() {
        let layout = Layout::new(Path::new("store"));
        let shard = Shard::of(Kind::Tree, Digest::of(b""));
        let nothing = Batch::new();
        let steps = plan(&layout, &nothing, &BTreeSet::from([shard]), 64);
        let expected = ["store/objects/tree/af", "store/objects/tree", "store/objects", "store"];
        assert_eq!(steps, expected.map(|path| Step::FlushDirectory(PathBuf::from(path))));
    }
}
