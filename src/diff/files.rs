//! What changed in the files and in the data roots.

use std::collections::BTreeMap;

use serde::Serialize;
use similar::TextDiff;

use crate::hash::Digest;
use crate::object::{BlobId, DataRoot, Entry, Kind, Snapshot, TreeId};
use crate::path::{ProjectPath, escape};
use crate::snapshot::{self, Change, SnapshotError};
use crate::store::Store;

/// Files larger than this are not compared line by line.
const PATCH_BYTES_MAX: u64 = 1 << 20;
/// Lines of context around a change.
const CONTEXT_LINES: usize = 3;

/// A file that differs.
#[derive(Debug, Serialize, PartialEq, Eq, Clone)]
pub struct FileChange {
    /// Where; the new place if it was renamed.
    pub path: ProjectPath,
    /// What happened to it.
    pub change: How,
    /// The digest of what was there.
    pub old: Option<Digest>,
    /// The digest of what is there.
    pub new: Option<Digest>,
    /// Where it was, if it was renamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<ProjectPath>,
    /// Its size in bytes before.
    pub old_size: Option<u64>,
    /// Its size in bytes after.
    pub new_size: Option<u64>,
    /// What it named, for people, if it was a link or a submodule.
    #[serde(skip)]
    pub old_target: Option<String>,
    /// What it names, for people, if it is a link or a submodule.
    #[serde(skip)]
    pub new_target: Option<String>,
}

/// What happened to a file.
#[derive(Debug, Serialize, PartialEq, Eq, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// Its content differs.
    Modified,
    /// It has another path and the same content.
    Renamed,
    /// Only its kind differs: the executable bit, or link instead of file.
    Mode,
}

/// A data root that differs.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub struct DataChange {
    /// Where.
    pub path: ProjectPath,
    /// The digest of what was there.
    pub old: Option<Digest>,
    /// The digest of what is there.
    pub new: Option<Digest>,
    /// Files before.
    pub old_files: u64,
    /// Files after.
    pub new_files: u64,
    /// Bytes before.
    pub old_bytes: u64,
    /// Bytes after.
    pub new_bytes: u64,
    /// How many files are new in it; `None` if the content of one side is not here.
    pub added: Option<u64>,
    /// How many are gone.
    pub removed: Option<u64>,
    /// How many differ.
    pub modified: Option<u64>,
}

/// The text diff of one file.
#[derive(Debug, PartialEq, Eq)]
pub struct Patch {
    /// Where.
    pub path: ProjectPath,
    /// A unified diff, or one line that says why there is none.
    pub text: String,
}

/// Returns the files that differ, by path, with exact renames told as such.
pub(super) fn changes(store: &dyn Store, old: &Snapshot, new: &Snapshot) -> Result<Vec<FileChange>, SnapshotError> {
    let mut all = Vec::new();
    snapshot::changes(store, Some(old.tree), Some(new.tree), None, &mut |change| all.push(file_change(&change)))?;
    let mut gone: BTreeMap<Digest, Vec<ProjectPath>> = BTreeMap::new();
    for change in all.iter().filter(|change| change.change == How::Removed) {
        // An empty file says nothing about where it went.
        if let (Some(digest), Some(1..)) = (change.old, change.old_size) {
            gone.entry(digest).or_default().push(change.path.clone());
        }
    }
    let mut moved = Vec::new();
    for change in all.iter_mut().filter(|change| change.change == How::Added) {
        if let Some(from) = change.new.and_then(|digest| gone.get_mut(&digest)).and_then(Vec::pop) {
            change.change = How::Renamed;
            change.old = change.new;
            change.old_size = change.new_size;
            change.old_target.clone_from(&change.new_target);
            moved.push(from.clone());
            change.from = Some(from);
        }
    }
    all.retain(|change| change.change != How::Removed || !moved.contains(&change.path));
    Ok(all)
}

fn file_change(change: &Change) -> FileChange {
    let size = |entry: &Option<Entry>| entry.as_ref().map(|entry| entry.sized().bytes);
    let (old, new) = (change.old.as_ref().map(Entry::digest), change.new.as_ref().map(Entry::digest));
    let how = match (old, new) {
        (None, _) => How::Added,
        (_, None) => How::Removed,
        (old, new) if old == new => How::Mode,
        _ => How::Modified,
    };
    FileChange {
        path: change.path.clone(),
        change: how,
        old,
        new,
        from: None,
        old_size: size(&change.old),
        new_size: size(&change.new),
        old_target: change.old.as_ref().and_then(target),
        new_target: change.new.as_ref().and_then(target),
    }
}

fn target(entry: &Entry) -> Option<String> {
    match entry {
        Entry::Symlink { target } => Some(format!("link to {}", escape(target))),
        Entry::Submodule { commit } => {
            let hex: Vec<_> = commit.iter().map(|byte| format!("{byte:02x}")).collect();
            Some(format!("commit {}", hex.concat()))
        }
        _ => None,
    }
}

/// Returns the data roots that differ, by path.
pub(super) fn data_changes(
    store: &dyn Store,
    old: &Snapshot,
    new: &Snapshot,
) -> Result<Vec<DataChange>, SnapshotError> {
    let by_path = |snapshot: &Snapshot| snapshot.data.iter().cloned().collect::<BTreeMap<ProjectPath, DataRoot>>();
    let (old, new) = (by_path(old), by_path(new));
    let mut paths: Vec<&ProjectPath> = old.keys().chain(new.keys()).collect();
    paths.sort_unstable();
    paths.dedup();
    let mut changes = Vec::new();
    for path in paths {
        let (before, after) = (old.get(path), new.get(path));
        if before == after {
            continue;
        }
        let sized = |root: Option<&DataRoot>| root.map(DataRoot::sized).unwrap_or_default();
        let counts = counts(store, before, after)?;
        changes.push(DataChange {
            path: path.clone(),
            old: before.map(DataRoot::digest),
            new: after.map(DataRoot::digest),
            old_files: sized(before).files,
            new_files: sized(after).files,
            old_bytes: sized(before).bytes,
            new_bytes: sized(after).bytes,
            added: counts.map(|[added, _, _]| added),
            removed: counts.map(|[_, removed, _]| removed),
            modified: counts.map(|[_, _, modified]| modified),
        });
    }
    Ok(changes)
}

fn counts(
    store: &dyn Store,
    before: Option<&DataRoot>,
    after: Option<&DataRoot>,
) -> Result<Option<[u64; 3]>, SnapshotError> {
    let tree = |root: Option<&DataRoot>| -> Option<TreeId> {
        match root {
            Some(DataRoot::Directory { id, .. }) => Some(*id),
            _ => None,
        }
    };
    match (before, after) {
        (Some(DataRoot::File { .. }), Some(DataRoot::File { .. })) => return Ok(Some([0, 0, 1])),
        (Some(DataRoot::File { .. }), Some(_)) | (Some(_), Some(DataRoot::File { .. })) => return Ok(None),
        (None, Some(root)) => return Ok(Some([root.sized().files, 0, 0])),
        (Some(root), None) => return Ok(Some([0, root.sized().files, 0])),
        _ => {}
    }
    let mut counts = [0; 3];
    let counted = snapshot::changes(store, tree(before), tree(after), None, &mut |change| {
        let index = match (change.old, change.new) {
            (None, _) => 0,
            (_, None) => 1,
            _ => 2,
        };
        counts[index] += 1;
    });
    match counted {
        Ok(()) => Ok(Some(counts)),
        // A clone may know older data by its pointer only.
        Err(SnapshotError::Store(crate::store::StoreError::Missing { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the text diffs of the files that were added, removed or modified.
///
/// # Errors
///
/// [`SnapshotError`] if a file cannot be read from the store.
pub fn patches(store: &dyn Store, changes: &[FileChange]) -> Result<Vec<Patch>, SnapshotError> {
    let textual = changes.iter().filter(|change| matches!(change.change, How::Added | How::Removed | How::Modified));
    textual.map(|change| patch(store, change)).collect()
}

fn patch(store: &dyn Store, change: &FileChange) -> Result<Patch, SnapshotError> {
    let path = change.path.clone();
    let large = [change.old_size, change.new_size].into_iter().flatten().any(|size| size > PATCH_BYTES_MAX);
    if large {
        let text = format!("{path}: too large to compare line by line\n");
        return Ok(Patch { path, text });
    }
    if change.old_target.is_some() || change.new_target.is_some() {
        let side = |target: &Option<String>, bytes| target.clone().unwrap_or_else(|| size(bytes));
        let (old, new) = (side(&change.old_target, change.old_size), side(&change.new_target, change.new_size));
        let text = format!("{path}: {old} -> {new}\n");
        return Ok(Patch { path, text });
    }
    let read = |digest: Option<Digest>| -> Result<Option<String>, SnapshotError> {
        let Some(digest) = digest else { return Ok(Some(String::new())) };
        let bytes = store.get(Kind::Blob, BlobId::from(digest).digest())?;
        Ok(String::from_utf8(bytes).ok().filter(|text| !text.contains('\0')))
    };
    let (Some(old), Some(new)) = (read(change.old)?, read(change.new)?) else {
        let text = format!("{path}: binary, {} -> {}\n", size(change.old_size), size(change.new_size));
        return Ok(Patch { path, text });
    };
    let name = |side: &str, there: bool| if there { format!("{side}/{path}") } else { "/dev/null".to_owned() };
    let text = TextDiff::from_lines(&old, &new)
        .unified_diff()
        .context_radius(CONTEXT_LINES)
        .header(&name("a", change.old.is_some()), &name("b", change.new.is_some()))
        .to_string();
    Ok(Patch { path, text })
}

fn size(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "nothing".to_owned(), |bytes| format!("{bytes} bytes"))
}
