//! The order in which new files of a store become durable and visible.
//!
//! First the bytes are flushed, then they get their names, then the names are
//! flushed. So a name never shows before its bytes are safe, and a power cut
//! cannot leave a well-named empty file. Planning is pure; [`Step::perform`] acts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::disk::{self, Change, Disk, DiskError, Flush};

/// A finished temporary file and the name that it shall have.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Publication {
    pub(super) from: PathBuf,
    pub(super) to: PathBuf,
}

/// One effect of a commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step<'a> {
    /// Flushes the bytes of a temporary file.
    FlushFile(&'a Path),
    /// Flushes everything there is.
    FlushFileSystem,
    /// Makes a directory that is missing, and those above it.
    MakeDirectory(&'a Path),
    /// Moves a temporary file to its name.
    Publish(&'a Publication),
    /// Flushes the entries of a directory.
    FlushDirectory(&'a Path),
}

/// Returns the steps that publish `files` below the directory `root`, and also flush the entries of `touched`.
///
/// In a touched directory something was found that its writer may not have flushed yet.
pub(super) fn plan<'a>(
    root: &'a Path,
    files: &'a [Publication],
    touched: &'a BTreeSet<PathBuf>,
    flush_each_max: usize,
) -> Vec<Step<'a>> {
    let mut steps = flushes(files.iter().map(|file| Step::FlushFile(&file.from)).collect(), flush_each_max);
    let parents: BTreeSet<&Path> = files.iter().map(|file| disk::parent(&file.to)).collect();
    steps.extend(parents.iter().filter(|parent| **parent != root).map(|parent| Step::MakeDirectory(parent)));
    steps.extend(files.iter().map(Step::Publish));
    let named: BTreeSet<&Path> = parents.into_iter().chain(touched.iter().map(PathBuf::as_path)).collect();
    let below_root = |path: &Path| path.starts_with(root);
    let directories: BTreeSet<&Path> =
        named.into_iter().flat_map(|path| path.ancestors().take_while(|above| below_root(above))).collect();
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
    pub(super) fn perform(&self, disk: &dyn Disk, root: &Path) -> Result<(), DiskError> {
        match self {
            Self::FlushFile(path) => disk.flush(Flush::File(path)),
            Self::FlushFileSystem => disk.flush(Flush::FileSystem(root)),
            Self::MakeDirectory(path) => disk::make_directories(disk, path),
            Self::Publish(Publication { from, to }) => disk.change(Change::Rename { from, to }),
            Self::FlushDirectory(path) => disk.flush(Flush::Directory(path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(count: u8) -> Vec<Publication> {
        let one = |number| Publication {
            from: PathBuf::from(format!("store/tmp/{number}")),
            to: PathBuf::from(format!("store/objects/blob/{number:02x}/x")),
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn a_small_batch_is_flushed_one_by_one_and_a_large_one_at_once() {
        let flushes = |count, each_max| {
            let (files, nothing) = (files(count), BTreeSet::new());
            let steps = plan(Path::new("store"), &files, &nothing, each_max);
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
        let touched = BTreeSet::from([PathBuf::from("store/packs")]);
        let steps = plan(Path::new("store"), &[], &touched, 64);
        assert_eq!(steps, ["store/packs", "store"].map(|path| Step::FlushDirectory(Path::new(path))));
    }
}
