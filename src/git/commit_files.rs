//! The files of a commit, and their bytes as a neutral checkout writes them.

use std::fmt;

use gix::ObjectId;
use gix::bstr::{BStr, ByteSlice};
use gix::objs::tree::{EntryKind, EntryMode};
use gix::worktree::stack::state::attributes::Source;

use super::commit::find;
use super::conversion::{self, Conversion, Settings};
use super::{CommitId, FileKind, GitError, Repository};
use crate::path::{ProjectPath, escape};

/// No system that we run on takes longer paths.
const PATH_BYTES_MAX: usize = 4096;
const ATTRIBUTES_FILE: &[u8] = b".gitattributes";

/// The files of a commit below one directory.
pub struct CommitFiles<'repo> {
    repository: &'repo Repository,
    prefix: Vec<u8>,
    files: Vec<(ProjectPath, Tracked)>,
    /// The `.gitattributes` that can speak of `files`, by path from the root of the repository.
    attributes: Vec<(Vec<u8>, ObjectId)>,
}

/// A file as a commit holds it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Tracked {
    /// What it is.
    pub kind: FileKind,
    /// Git's name for its bytes.
    pub object: ObjectName,
}

/// Git's name for the bytes of a file. Equal names, equal bytes in the repository.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectName(ObjectId);

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Repository {
    /// Returns the files of the commit below `prefix` (all, if there is none), which need not be in it.
    ///
    /// Costs the reading of the trees, not of the files.
    ///
    /// # Errors
    ///
    /// [`GitError::MissingCommit`] or [`GitError::ShallowHistory`] if the commit is not there,
    /// [`GitError::UnsupportedPath`] if it holds a name such as `..`, [`GitError::Git`] if it is damaged.
    pub fn commit_files(&self, id: &CommitId, prefix: Option<&ProjectPath>) -> Result<CommitFiles<'_>, GitError> {
        let local = self.local();
        let failed = || GitError::on(format!("read the files of commit {id}"));
        let root = find(&local, id)?.tree_id().map_err(failed())?.detach();
        let mut walk =
            Walk { local: &local, path: Vec::new(), prefix_bytes: 0, files: Vec::new(), attributes: Vec::new() };
        if let Some(tree) = walk.descend(root, prefix)? {
            walk.tree(tree)?;
        }
        Ok(CommitFiles {
            repository: self,
            prefix: prefix.map(|prefix| prefix.as_bytes().to_vec()).unwrap_or_default(),
            files: walk.files,
            attributes: walk.attributes,
        })
    }
}

impl CommitFiles<'_> {
    /// Returns the files, paths relative to the prefix, sorted by the bytes of their paths.
    pub fn files(&self) -> &[(ProjectPath, Tracked)] {
        &self.files
    }

    /// Returns a reader of these files. Each thread needs one of its own.
    ///
    /// # Errors
    ///
    /// [`GitError::Git`] if the attributes of files cannot be read.
    pub fn reader(&self) -> Result<CommitReader, GitError> {
        let local = self.repository.local();
        let conversion = if self.attributes.is_empty() && !conversion::has_global_attributes(&local)? {
            None
        } else {
            let mut index = gix::index::State::new(local.object_hash());
            for (path, id) in &self.attributes {
                let (stat, flags) = (gix::index::entry::Stat::default(), gix::index::entry::Flags::empty());
                index.dangerously_push_entry(stat, *id, flags, gix::index::entry::Mode::FILE, path.as_bstr());
            }
            index.sort_entries();
            Some(Conversion::new(&local, &index, Source::IdMapping)?)
        };
        Ok(CommitReader { local, conversion, prefix: self.prefix.clone() })
    }
}

/// Reads files of a commit.
pub struct CommitReader {
    local: gix::Repository,
    /// `None` if no attribute file can speak of any file.
    conversion: Option<Conversion>,
    prefix: Vec<u8>,
}

impl CommitReader {
    /// Returns the bytes of a file as a neutral checkout writes them, or the target of a symbolic link.
    ///
    /// Costs one read of the object, and a conversion where an attribute asks
    /// for one; cheapest in the order of the paths. Runs the filter programs
    /// that the user has configured.
    ///
    /// # Errors
    ///
    /// [`GitError::NotAFile`] for a submodule, [`GitError::Git`] if the object
    /// is missing or damaged, or a filter failed.
    pub fn bytes(&mut self, path: &ProjectPath, file: &Tracked) -> Result<Vec<u8>, GitError> {
        if matches!(file.kind, FileKind::Submodule(_)) {
            return Err(GitError::NotAFile { path: path.clone() });
        }
        let failed = GitError::on(format!("read `{path}` from the git repository"));
        let blob = self.local.find_object(file.object.0).map_err(failed)?.detach().data;
        match &mut self.conversion {
            Some(conversion) if file.kind != FileKind::Symlink => {
                let path = join(&self.prefix, path.as_bytes());
                conversion.check_out(&self.local, Settings::Neutral, path.as_bstr(), blob)
            }
            _ => Ok(blob),
        }
    }
}

/// A walk through the trees of a commit.
struct Walk<'repo> {
    local: &'repo gix::Repository,
    /// Where the walk is, from the root of the repository.
    path: Vec<u8>,
    /// How much of `path` is the prefix, with the slash after it.
    prefix_bytes: usize,
    files: Vec<(ProjectPath, Tracked)>,
    attributes: Vec<(Vec<u8>, ObjectId)>,
}

impl Walk<'_> {
    /// Goes from the root down to `prefix` and returns its tree; `None` if there is no such directory.
    fn descend(&mut self, root: ObjectId, prefix: Option<&ProjectPath>) -> Result<Option<ObjectId>, GitError> {
        let mut tree = root;
        for wanted in prefix.into_iter().flat_map(ProjectPath::names) {
            let mut below = None;
            self.entries(tree, |walk, mode, name, id| {
                walk.note_attributes(mode, name, id);
                if name == wanted && mode.is_tree() {
                    below = Some(id);
                }
                Ok(())
            })?;
            let Some(id) = below else { return Ok(None) };
            self.path.extend_from_slice(wanted);
            self.path.push(b'/');
            self.prefix_bytes = self.path.len();
            tree = id;
        }
        Ok(Some(tree))
    }

    /// Collects everything below a tree. The order of trees is the order of whole paths.
    fn tree(&mut self, tree: ObjectId) -> Result<(), GitError> {
        self.entries(tree, |walk, mode, name, id| {
            walk.note_attributes(mode, name, id);
            let parent_bytes = walk.path.len();
            walk.path.extend_from_slice(name);
            if walk.path.len() > PATH_BYTES_MAX {
                return Err(GitError::UnsupportedPath { path: escape(&walk.path).into_owned() });
            }
            if mode.is_tree() {
                walk.path.push(b'/');
                walk.tree(id)?;
            } else {
                let path = project_path(&walk.path[walk.prefix_bytes..])?;
                walk.files.push((path, Tracked { kind: kind(mode, id), object: ObjectName(id) }));
            }
            walk.path.truncate(parent_bytes);
            Ok(())
        })
    }

    fn entries(
        &mut self,
        tree: ObjectId,
        mut visit: impl FnMut(&mut Self, EntryMode, &[u8], ObjectId) -> Result<(), GitError>,
    ) -> Result<(), GitError> {
        let failed = || GitError::on(format!("read git tree {tree}"));
        let object = self.local.find_object(tree).map_err(failed())?;
        for entry in gix::objs::TreeRefIter::from_bytes(&object.data, tree.kind()) {
            let entry = entry.map_err(failed())?;
            visit(self, entry.mode, entry.filename, entry.oid.to_owned())?;
        }
        Ok(())
    }

    fn note_attributes(&mut self, mode: EntryMode, name: &[u8], id: ObjectId) {
        if name == ATTRIBUTES_FILE && mode.is_blob() {
            self.attributes.push((join(self.path.trim_end_with(|c| c == '/'), name), id));
        }
    }
}

fn kind(mode: EntryMode, id: ObjectId) -> FileKind {
    match mode.kind() {
        EntryKind::BlobExecutable => FileKind::File { executable: true },
        EntryKind::Link => FileKind::Symlink,
        EntryKind::Commit => FileKind::Submodule(CommitId(id)),
        EntryKind::Blob | EntryKind::Tree => FileKind::File { executable: false },
    }
}

/// Returns the path with these bytes, which must be proper: git itself would refuse to check the others out.
pub(super) fn project_path(bytes: &[u8]) -> Result<ProjectPath, GitError> {
    ProjectPath::new(bytes)
        .ok()
        .filter(|path| path.as_bytes() == bytes)
        .ok_or_else(|| GitError::UnsupportedPath { path: escape(bytes).into_owned() })
}

/// Returns the path of `path` from the root of the repository.
pub(super) fn join(prefix: &[u8], path: &[u8]) -> Vec<u8> {
    if prefix.is_empty() { path.to_vec() } else { [prefix, b"/", path].concat() }
}

/// Returns whether the file at `path` is one that git reads attributes from.
pub(super) fn is_attributes_file(path: &BStr) -> bool {
    path == ATTRIBUTES_FILE || path.ends_with(b"/.gitattributes")
}
