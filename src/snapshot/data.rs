//! Data roots: what Git ignores and a snapshot carries all the same.
//!
//! A pointer file a root lies in the project and is committed: one line that
//! says what the root holds. One line, because Git merges files line by line,
//! and half a pointer of one branch with half of another would name data that never was.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::{Site, SnapshotError};
use crate::disk::{self, DiskError, Durability};
use crate::git::CommitId;
use crate::object::{DataRoot, Sized};
use crate::path::ProjectPath;
use crate::pipeline;

/// The directory of the pointer files, relative to the project.
pub const POINTERS: &str = ".pipeline/data";
const MAGIC: &str = "pv-data-1";
/// Another process can only get in between so often: it sweeps once in its life.
const WRITE_TRIES: u32 = 16;

/// The content of a pointer file: kind, digest, files, bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pointer(pub DataRoot);

impl Pointer {
    /// Returns where the pointer of the root at `path` lies.
    pub fn place(path: &ProjectPath) -> ProjectPath {
        ProjectPath::new(POINTERS).expect("a constant relative path").join(path.as_bytes())
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.0 {
            DataRoot::File { executable: false, .. } => "file",
            DataRoot::File { executable: true, .. } => "executable",
            DataRoot::Directory { .. } => "directory",
        };
        let Sized { files, bytes } = self.0.sized();
        writeln!(f, "{MAGIC} {kind} {} {files} {bytes}", self.0.digest())
    }
}

/// A text that is no pointer.
#[derive(Debug, PartialEq, Eq)]
pub struct NotAPointer;

impl FromStr for Pointer {
    type Err = NotAPointer;

    fn from_str(text: &str) -> Result<Self, NotAPointer> {
        let pointer = Self::read(text).ok_or(NotAPointer)?;
        // One pointer has one text; a number with a sign or zeros in front is none that `pv` writes.
        let line = text.strip_suffix('\n').unwrap_or(text);
        if pointer.to_string().strip_suffix('\n') == Some(line) { Ok(pointer) } else { Err(NotAPointer) }
    }
}

impl Pointer {
    fn read(text: &str) -> Option<Self> {
        let words: Vec<_> = text.strip_suffix('\n').unwrap_or(text).split(' ').collect();
        let [MAGIC, kind, digest, files, bytes] = words[..] else { return None };
        let digest = digest.parse::<crate::hash::Digest>().ok()?;
        let sized = Sized { files: files.parse().ok()?, bytes: bytes.parse().ok()? };
        match kind {
            "file" | "executable" if sized.files == 1 => {
                Some(Self(DataRoot::File { executable: kind == "executable", size: sized.bytes, id: digest.into() }))
            }
            "directory" => Some(Self(DataRoot::Directory { sized, id: digest.into() })),
            _ => None,
        }
    }
}

/// Returns what the pointers in the bytes of a pointer file say, also in one that a merge left half done.
///
/// # Errors
///
/// [`NotAPointer`] if a line begins as a pointer does and is none that this version knows.
pub fn pointers_in(bytes: &[u8]) -> Result<Vec<DataRoot>, NotAPointer> {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().map(|line| line.trim_end_matches('\r'));
    let lines = lines.filter(|line| line.starts_with(MAGIC.trim_end_matches(|digit: char| digit.is_ascii_digit())));
    lines.map(|line| line.parse().map(|pointer: Pointer| pointer.0)).collect()
}

/// Writes the pointers of `roots` and removes those of roots that are no more, unless another
/// pipeline of the project has them. Returns the pointer files that changed, sorted.
///
/// Writes nothing that is already right, so times of files stay.
///
/// # Errors
///
/// [`SnapshotError::Disk`] if one cannot be written or removed.
pub fn write_pointers(site: Site<'_>, roots: &[(ProjectPath, DataRoot)]) -> Result<Vec<ProjectPath>, SnapshotError> {
    let others = roots_of_others(site)?;
    write(site.root, roots, &|place| others.as_ref().is_none_or(|others| others.contains(place)))
}

/// Returns the pointer files that are not the same in the working tree and in `commit`, also those that only one of them has.
///
/// # Errors
///
/// [`SnapshotError`] if the commit or a file cannot be read.
pub fn differing_pointers(site: Site<'_>, commit: &CommitId) -> Result<Vec<ProjectPath>, SnapshotError> {
    let (here, there) = (pointers_on_disk(site.root)?, pointers_of(site, commit)?);
    let places: BTreeSet<&ProjectPath> = here.keys().chain(there.keys()).collect();
    Ok(places.into_iter().filter(|place| here.get(*place) != there.get(*place)).cloned().collect())
}

/// Returns the pointer files that are the same in the working tree and in `commit`.
///
/// # Errors
///
/// As [`differing_pointers`].
pub fn same_pointers(site: Site<'_>, commit: &CommitId) -> Result<Vec<ProjectPath>, SnapshotError> {
    let here = pointers_on_disk(site.root)?;
    if here.is_empty() {
        return Ok(Vec::new());
    }
    let there = pointers_of(site, commit)?;
    Ok(here.into_iter().filter(|(place, text)| there.get(place) == Some(text)).map(|(place, _)| place).collect())
}

fn pointers_on_disk(root: &Path) -> Result<BTreeMap<ProjectPath, Vec<u8>>, SnapshotError> {
    let mut pointers = BTreeMap::new();
    let directory = root.join(POINTERS);
    if disk::look(&directory)?.is_some() {
        for entry in disk::walk(&directory) {
            let (path, found) = match entry {
                // A temporary file of another `pv`, finished meanwhile.
                Err(error) if error.is_missing() => continue,
                entry => entry?,
            };
            if let (Some(place), disk::Found::File { .. }) = (ProjectPath::below(root, &path), found) {
                pointers.insert(place, disk::read_if_there(&path)?.unwrap_or_default());
            }
        }
    }
    Ok(pointers)
}

fn pointers_of(site: Site<'_>, commit: &CommitId) -> Result<BTreeMap<ProjectPath, Vec<u8>>, SnapshotError> {
    let directory = ProjectPath::new(POINTERS).expect("a constant relative path");
    let listed = site.repository.commit_files(commit, site.prefix)?;
    let mut reader = listed.reader()?;
    let files = listed.files().iter().filter(|(path, _)| path.is_within(&directory));
    files.map(|(path, file)| Ok((path.clone(), reader.bytes(path, file)?))).collect()
}

/// Returns where the pointers of the project's other pipelines lie; `None` if one of them cannot be understood.
fn roots_of_others(site: Site<'_>) -> Result<Option<Vec<ProjectPath>>, SnapshotError> {
    let mut places = Vec::new();
    let directory = site.root.join(".pipeline");
    let listed = std::fs::read_dir(&directory).map_err(DiskError::on("list", &directory))?;
    for entry in listed {
        let path = entry.map_err(DiskError::on("list", &directory))?.path();
        let is_definition = path.extension().is_some_and(|extension| extension == "yaml");
        if !is_definition || path.file_stem().is_some_and(|stem| stem == site.pipeline) {
            continue;
        }
        let Some(text) = disk::read_if_there(&path)? else { continue };
        let Ok(definition) = pipeline::read(&text, &path.to_string_lossy()) else { return Ok(None) };
        places.extend(definition.pipeline.data.iter().map(Pointer::place));
    }
    Ok(Some(places))
}

fn write(
    root: &Path,
    roots: &[(ProjectPath, DataRoot)],
    is_of_others: &dyn Fn(&ProjectPath) -> bool,
) -> Result<Vec<ProjectPath>, SnapshotError> {
    let mut changed = Vec::new();
    let mut wanted = Vec::new();
    for (path, data) in roots {
        let place = Pointer::place(path);
        let text = Pointer(*data).to_string();
        if disk::read_if_there(&place.under(root))?.as_deref() != Some(text.as_bytes()) {
            put(&place.under(root), &text)?;
            changed.push(place.clone());
        }
        wanted.push(place);
    }
    for place in pointers_on_disk(root)?.into_keys() {
        if !wanted.contains(&place) && !is_of_others(&place) {
            disk::remove_tree(&place.under(root))?;
            changed.push(place);
        }
    }
    changed.sort_unstable();
    Ok(changed)
}

/// Writes a pointer, durably: an empty one, which a power cut may leave, would stand in the way of every command.
fn put(path: &Path, text: &str) -> Result<(), DiskError> {
    let mut tries = 0;
    loop {
        match disk::write_whole(path, text.as_bytes(), Durability::Synced) {
            // Another `pv` has taken the temporary file for the pointer of a root that is no more.
            Err(error) if error.is_missing() && tries < WRITE_TRIES => tries += 1,
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{BlobId, empty_tree_id};

    #[test]
    fn a_pointer_reads_as_it_prints() {
        let roots = [
            DataRoot::File { executable: false, size: 12, id: BlobId::of(b"x") },
            DataRoot::File { executable: true, size: 0, id: BlobId::of(b"") },
            DataRoot::Directory { sized: Sized { files: 3, bytes: 1 << 40 }, id: empty_tree_id() },
        ];
        for root in roots {
            let text = Pointer(root).to_string();
            assert_eq!(text.lines().count(), 1);
            assert_eq!(text.parse(), Ok(Pointer(root)));
        }
    }

    #[test]
    fn what_a_merge_may_leave_is_no_pointer() {
        let one = Pointer(DataRoot::Directory { sized: Sized::default(), id: empty_tree_id() }).to_string();
        for text in ["", "pv-data-1", &format!("<<<<<<< HEAD\n{one}=======\n{one}>>>>>>> x\n"), &format!("{one}{one}")]
        {
            assert_eq!(text.parse::<Pointer>(), Err(NotAPointer), "{text}");
        }
    }

    #[test]
    fn what_a_merge_left_half_done_still_keeps_both_sides() {
        let one = DataRoot::Directory { sized: Sized::default(), id: empty_tree_id() };
        let two = DataRoot::File { executable: false, size: 1, id: BlobId::of(b"x") };
        let text = format!("<<<<<<< HEAD\n{}=======\n{}>>>>>>> x\n", Pointer(one), Pointer(two));
        assert_eq!(pointers_in(text.as_bytes()), Ok(vec![one, two]));
        assert_eq!(pointers_in(b"a note\n"), Ok(vec![]));
        assert_eq!(pointers_in(b"pv-data-2 of a later version\n"), Err(NotAPointer));
        assert_eq!(pointers_in(b"pv-data-1 file"), Err(NotAPointer));
    }

    #[test]
    fn pointers_follow_the_roots_and_what_is_right_is_not_touched() {
        let project = tempfile::tempdir().unwrap();
        let path = |text: &str| ProjectPath::new(text).unwrap();
        let root = DataRoot::File { executable: false, size: 1, id: BlobId::of(b"x") };
        let two = [(path("a"), root), (path("data/raw"), root)];
        let nobody = |_: &ProjectPath| false;
        assert_eq!(
            write(project.path(), &two, &nobody).unwrap(),
            [path(".pipeline/data/a"), path(".pipeline/data/data/raw")]
        );
        assert_eq!(write(project.path(), &two, &nobody).unwrap(), []);
        assert_eq!(write(project.path(), &two[..1], &nobody).unwrap(), [path(".pipeline/data/data/raw")]);
    }
}
