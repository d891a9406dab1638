//! Bringing outputs back into the working tree, without ever losing what a user wrote there.
//!
//! An output in the working tree may be replaced if its content is known: `pv`
//! put it there, a step is on record to have written it, or Git has it in the
//! current commit. Anything else was made by hand and stays until the user says otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rayon::prelude::*;

use super::RunError;
use super::leftovers::Leftovers;
use crate::disk::{self, DiskError, Durability};
use crate::hash::Digest;
use crate::object::Entry;
use crate::path::ProjectPath;
use crate::record::{Journal, Output};
use crate::snapshot::{CheckoutMode, Progress, SnapshotError, capture_path, place_entry, place_file};
use crate::stat_cache::StatCache;
use crate::store::{DryStore, Store};

/// What is needed to restore outputs.
pub struct Restoring<'a> {
    /// Where outputs come from, and where they go.
    pub placing: Placing<'a>,
    /// What is known.
    pub journal: &'a Journal,
    /// A file of this worktree that remembers what was put where.
    pub memory: &'a Path,
    /// The digest of what the current commit has at a path.
    pub committed: &'a dyn Fn(&ProjectPath) -> Option<Digest>,
}

/// How outputs are put in place.
#[derive(Clone, Copy)]
pub struct Placing<'a> {
    /// The project's directory.
    pub root: &'a Path,
    /// Where outputs are.
    pub store: &'a dyn Store,
    /// What files there hashed to before.
    pub seen: Option<&'a StatCache>,
    /// How large files come out of the store.
    pub mode: CheckoutMode,
    /// What a run has left: files that need not come out of the store again.
    pub left: Option<&'a Leftovers>,
    /// Told of files and bytes as they are put in place.
    pub progress: Progress<'a>,
}

/// What was done in the working tree.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Outputs that were written.
    pub written: Vec<ProjectPath>,
    /// How many were right already.
    pub unchanged: usize,
}

/// Returns those of `paths` whose content in the working tree is not known: edited, or made by hand.
///
/// Costs one read of each output that is there.
///
/// # Errors
///
/// [`RunError`] if a file or the records cannot be read.
pub fn edited_outputs(restoring: &Restoring<'_>, paths: &BTreeSet<ProjectPath>) -> Result<Vec<ProjectPath>, RunError> {
    let found =
        paths.iter().map(|path| Ok((path, here(restoring.placing, path)?))).collect::<Result<Vec<_>, RunError>>()?;
    unknown(restoring, &found, &remembered(restoring.memory)?)
}

/// Puts `outputs` into the working tree where they are not there already.
///
/// Costs one read of each output that is there.
///
/// # Errors
///
/// [`RunError::Edited`] before anything is written, unless `force`; otherwise
/// [`RunError`] if a file cannot be written or an object is missing.
pub fn restore(restoring: &Restoring<'_>, outputs: &[Output], force: bool) -> Result<Restored, RunError> {
    let blocking = in_the_way(restoring, outputs)?;
    if !force && !blocking.is_empty() {
        return Err(RunError::Edited { paths: blocking.into_iter().collect() });
    }
    let placing = restoring.placing;
    let mut restored = Restored::default();
    let before = remembered(restoring.memory)?;
    let mut memory = before.clone();
    let mut other = Vec::new();
    let found: Vec<_> = outputs.par_iter().map(|output| here(placing, &output.path)).collect::<Result<_, _>>()?;
    for (output, found) in outputs.iter().zip(found) {
        let entry = output.entry();
        memory.insert(output.path.clone(), output.digest);
        if found.as_ref() == Some(&entry) {
            restored.unchanged += 1;
        } else {
            other.push((output, entry, found));
        }
    }
    if !force {
        let found: Vec<_> = other.iter().map(|(output, _, found)| (&output.path, found.clone())).collect();
        let paths = unknown(restoring, &found, &before)?;
        if !paths.is_empty() {
            return Err(RunError::Edited { paths });
        }
    }
    // Only with `force` is there any left.
    for path in &blocking {
        disk::remove_tree(&path.under(restoring.placing.root))?;
    }
    restored.written = other.iter().map(|(output, ..)| output.path.clone()).collect();
    put_all(placing, other)?;
    if memory != before {
        remember(restoring.memory, &memory)?;
    }
    Ok(restored)
}

/// Returns what is at `path` in the working tree.
fn here(placing: Placing<'_>, path: &ProjectPath) -> Result<Option<Entry>, RunError> {
    let seen = placing.seen.map(|cache| (cache, path));
    Ok(capture_path(&path.under(placing.root), seen, &DryStore::over(placing.store))?)
}

/// Returns the paths of those that are neither what `pv` put there, nor what Git or any step is known to have.
fn unknown(
    restoring: &Restoring<'_>,
    found: &[(&ProjectPath, Option<Entry>)],
    remembered: &BTreeMap<ProjectPath, Digest>,
) -> Result<Vec<ProjectPath>, RunError> {
    let mut recorded: Option<BTreeSet<(ProjectPath, Digest)>> = None;
    let mut unknown = Vec::new();
    for (path, entry) in found {
        let Some(entry) = entry else { continue };
        let digest = entry.digest();
        let path = *path;
        if remembered.get(path) == Some(&digest)
            || is_empty_directory(entry)
            || (restoring.committed)(path) == Some(digest)
        {
            continue;
        }
        // The rare and costly question last: did any step ever write this?
        if recorded.is_none() {
            recorded = Some(all_outputs(restoring.journal)?);
        }
        if !recorded.as_ref().is_some_and(|recorded| recorded.contains(&(path.clone(), digest))) {
            unknown.push(path.clone());
        }
    }
    unknown.sort_unstable();
    Ok(unknown)
}

/// Returns the files that stand where an output needs a directory. A link to a directory is none.
fn in_the_way(restoring: &Restoring<'_>, outputs: &[Output]) -> Result<BTreeSet<ProjectPath>, RunError> {
    let mut above = BTreeSet::new();
    for output in outputs {
        let mut directory = output.path.parent();
        while let Some(path) = directory {
            directory = path.parent();
            if !above.insert(path) {
                break;
            }
        }
    }
    let mut blocking = BTreeSet::new();
    for path in above {
        let behind = blocking.iter().any(|other| path.is_within(other));
        let place = path.under(restoring.placing.root);
        if !behind && disk::look(&place)?.is_some() && !place.is_dir() {
            blocking.insert(path);
        }
    }
    Ok(blocking)
}

/// Returns the paths at which `pv` has put outputs in this worktree.
///
/// # Errors
///
/// [`RunError::Disk`] if the memory cannot be read.
pub fn remembered_paths(memory: &Path) -> Result<BTreeSet<ProjectPath>, RunError> {
    Ok(remembered(memory)?.into_keys().collect())
}

/// What is put at one path, and what is there.
type Wanted<'a> = (&'a Output, Entry, Option<Entry>);

/// Puts entries in their places, directory by directory: two threads in one directory would wait for each other.
fn put_all(placing: Placing<'_>, wanted: Vec<Wanted<'_>>) -> Result<(), RunError> {
    let mut by_directory: BTreeMap<Option<ProjectPath>, Vec<Wanted<'_>>> = BTreeMap::new();
    for one in wanted {
        by_directory.entry(one.0.path.parent()).or_default().push(one);
    }
    let directories: Vec<_> = by_directory.into_iter().collect();
    let put_into = |(directory, wanted): &(Option<ProjectPath>, Vec<Wanted<'_>>)| -> Result<(), RunError> {
        let target = directory.as_ref().map_or_else(|| placing.root.to_owned(), |path| path.under(placing.root));
        // A user may keep outputs on another disk, behind a link: that is theirs to decide.
        disk::make_directory(&target)?;
        let real = std::fs::canonicalize(&target).map_err(DiskError::on("look at", &target))?;
        wanted.iter().try_for_each(|wanted| put(placing, &real, wanted))
    };
    if directories.len() == 1 { put_into(&directories[0]) } else { directories.par_iter().try_for_each(put_into) }
}

/// Puts one entry into its directory, whose real path is `parent`.
fn put(placing: Placing<'_>, parent: &Path, (output, entry, found): &Wanted<'_>) -> Result<(), RunError> {
    let name = ProjectPath::new(output.path.name()).expect("a name in a path is a path");
    match (entry, found) {
        (Entry::File { id, executable, .. }, None | Some(Entry::File { .. } | Entry::Symlink { .. })) => {
            let to = name.under(parent);
            if !take_over(placing, &output.path, *executable, &to)? {
                place_file(placing.store, *id, *executable, &to, placing.mode).map_err(SnapshotError::from)?;
            }
        }
        _ => place_entry(placing.store, parent, &name, entry, &|_, _| true)?,
    }
    let told = entry.sized();
    if (placing.progress)(told.files, told.bytes) { Ok(()) } else { Err(SnapshotError::Stopped.into()) }
}

/// Moves the file that a step wrote to `to`, if it is one as the store would give it. Returns whether it was.
fn take_over(placing: Placing<'_>, path: &ProjectPath, executable: bool, to: &Path) -> Result<bool, RunError> {
    let file = placing.left.filter(|_| placing.mode == CheckoutMode::Copy).and_then(|left| left.file(path));
    match file {
        Some(file) if disk::is_as_new(file, executable) => Ok(disk::move_out(file, to)?),
        _ => Ok(false),
    }
}

fn is_empty_directory(entry: &Entry) -> bool {
    matches!(entry, Entry::Directory { sized, .. } if sized.files == 0)
}

fn all_outputs(journal: &Journal) -> Result<BTreeSet<(ProjectPath, Digest)>, RunError> {
    let results = journal.all_results()?;
    Ok(results.into_iter().flat_map(|(_, result)| result.outputs).map(|output| (output.path, output.digest)).collect())
}

/// A lost memory only means that `pv` asks the records, so what cannot be read is not believed.
fn remembered(path: &Path) -> Result<BTreeMap<ProjectPath, Digest>, RunError> {
    let bytes = disk::read_if_there(path)?.unwrap_or_default();
    Ok(serde_json::from_slice(&bytes).unwrap_or_default())
}

fn remember(path: &Path, memory: &BTreeMap<ProjectPath, Digest>) -> Result<(), RunError> {
    let text = serde_json::to_vec(memory).expect("paths are text keys");
    Ok(disk::write_whole(path, &text, Durability::Deferred)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::disk::Lock;
    use crate::object::Kind;
    use crate::store::{MemoryStore, Source};

    #[test]
    fn what_a_step_wrote_is_moved_if_it_is_as_a_copy_would_be_and_copied_otherwise() {
        let root = tempfile::tempdir().unwrap();
        let (place, tree) = (root.path().join("place"), root.path().join("tree"));
        disk::make_directory(&place.join("layer")).unwrap();
        disk::make_directory(&tree).unwrap();
        let store = MemoryStore::default();
        let content = b"result\n";
        let digest = store.put(Kind::Blob, Source::Bytes(content)).unwrap().digest;
        let names = ["usual", "twice", "private", "executable", "gone"].map(|name| ProjectPath::new(name).unwrap());
        let at = |name: &str| place.join("layer").join(name);
        for name in ["usual", "twice", "private", "executable"] {
            disk::write_whole(&at(name), content, Durability::Deferred).unwrap();
        }
        fs::hard_link(at("twice"), at("other name")).unwrap();
        fs::set_permissions(at("private"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(at("executable"), fs::Permissions::from_mode(0o777 & !disk::umask())).unwrap();
        let files = names.iter().map(|path| (path.clone(), path.under(&place.join("layer")))).collect();
        let left = Leftovers::new(place.clone(), Lock::exclusive(&place.join("lock")).unwrap(), files);
        let placing = Placing {
            root: &tree,
            store: &store,
            seen: None,
            mode: CheckoutMode::Copy,
            left: Some(&left),
            progress: &|_, _| true,
        };
        for path in &names {
            let executable = path.to_string() == "executable";
            let entry = Entry::File { id: digest.into(), size: content.len() as u64, executable };
            let output = Output::of(path.clone(), &entry).unwrap();
            put(placing, &tree, &(&output, entry, None)).unwrap();
            let found = fs::metadata(path.under(&tree)).unwrap();
            assert_eq!(fs::read(path.under(&tree)).unwrap(), content);
            assert_eq!(found.permissions().mode() & 0o777, if executable { 0o777 } else { 0o666 } & !disk::umask());
        }
        let is_left = |name: &str| at(name).exists();
        assert_eq!(["usual", "executable", "twice", "private"].map(is_left), [false, false, true, true]);
        drop(left);
        assert!(!place.exists());
    }
}
