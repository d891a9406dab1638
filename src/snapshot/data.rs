//! Data roots: what Git ignores and a snapshot carries all the same.
//!
//! A pointer file a root lies in the project and is committed: one line that
//! says what the root holds. One line, because Git merges files line by line,
//! and half a pointer of one branch with half of another would name data that never was.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::SnapshotError;
use crate::disk::{self, Durability};
use crate::object::{DataRoot, Sized};
use crate::path::ProjectPath;

/// The directory of the pointer files, relative to the project.
pub const POINTERS: &str = ".pipeline/data";
const MAGIC: &str = "pv-data-1";

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
        let words: Vec<_> = text.strip_suffix('\n').unwrap_or(text).split(' ').collect();
        let [MAGIC, kind, digest, files, bytes] = words[..] else { return Err(NotAPointer) };
        let digest = digest.parse::<crate::hash::Digest>().map_err(|_| NotAPointer)?;
        let number = |text: &str| text.parse::<u64>().map_err(|_| NotAPointer);
        let sized = Sized { files: number(files)?, bytes: number(bytes)? };
        match kind {
            "file" | "executable" if sized.files == 1 => {
                Ok(Self(DataRoot::File { executable: kind == "executable", size: sized.bytes, id: digest.into() }))
            }
            "directory" => Ok(Self(DataRoot::Directory { sized, id: digest.into() })),
            _ => Err(NotAPointer),
        }
    }
}

/// Writes the pointers of `roots` below the project's `root` and removes those
/// of roots that are no more. Returns the pointer files that changed, sorted.
///
/// Writes nothing that is already right, so times of files stay.
///
/// # Errors
///
/// [`SnapshotError::Disk`] if one cannot be written or removed.
pub fn write_pointers(root: &Path, roots: &[(ProjectPath, DataRoot)]) -> Result<Vec<ProjectPath>, SnapshotError> {
    let mut changed = Vec::new();
    let mut wanted = Vec::new();
    for (path, data) in roots {
        let place = Pointer::place(path);
        let text = Pointer(*data).to_string();
        if disk::read_if_there(&place.under(root))?.as_deref() != Some(text.as_bytes()) {
            disk::write_whole(&place.under(root), text.as_bytes(), Durability::Deferred)?;
            changed.push(place.clone());
        }
        wanted.push(place);
    }
    let directory = root.join(POINTERS);
    if disk::look(&directory)?.is_some() {
        for entry in disk::walk(&directory) {
            let (path, found) = entry?;
            if let Some(place) = ProjectPath::below(root, &path)
                && found != disk::Found::Directory
                && !wanted.contains(&place)
            {
                disk::remove_tree(&path)?;
                changed.push(place);
            }
        }
    }
    changed.sort_unstable();
    Ok(changed)
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
    fn pointers_follow_the_roots_and_what_is_right_is_not_touched() {
        let project = tempfile::tempdir().unwrap();
        let path = |text: &str| ProjectPath::new(text).unwrap();
        let root = DataRoot::File { executable: false, size: 1, id: BlobId::of(b"x") };
        let two = [(path("a"), root), (path("data/raw"), root)];
        assert_eq!(
            write_pointers(project.path(), &two).unwrap(),
            [path(".pipeline/data/a"), path(".pipeline/data/data/raw")]
        );
        assert_eq!(write_pointers(project.path(), &two).unwrap(), []);
        assert_eq!(write_pointers(project.path(), &two[..1]).unwrap(), [path(".pipeline/data/data/raw")]);
    }
}
