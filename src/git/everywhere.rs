//! What lies in a directory of this name in all that git still knows: commits, indexes, working trees.
//!
//! For whoever may only take away what nobody can come back to. Reflogs count:
//! what `git reset` left behind can be had back as long as they name it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};

use gix::ObjectId;
use gix::bstr::ByteSlice;
use gix::objs::Kind;

use super::commit::find;
use super::{CommitId, GitError, Repository};
use crate::disk::{self, DiskError, Found};

/// Files in the top of a git directory that name commits which a command under way will come back to.
const SPECIAL: [&str; 7] =
    ["HEAD", "ORIG_HEAD", "MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "REBASE_HEAD", "FETCH_HEAD"];

impl Repository {
    /// Returns whether git still has this commit, reachable or not.
    ///
    /// # Errors
    ///
    /// [`GitError::Git`] if the objects cannot be read.
    pub fn has_commit(&self, id: &str) -> Result<bool, GitError> {
        let Ok(id) = id.parse::<CommitId>() else { return Ok(false) };
        Ok(self.local().try_find_object(id.0).map_err(GitError::on(format!("read commit {id}")))?.is_some())
    }

    /// Returns the content of every file below a directory `outer/inner` at any depth, each with where it is from:
    /// of the commits that a ref or reflog of any working tree leads to, of every index, and of every working tree.
    ///
    /// `but_not` begins the names of refs that do not count. Costs one look at each distinct tree in the history, and
    /// a listing of the working trees.
    ///
    /// # Errors
    ///
    /// [`GitError`] if anything of it cannot be read; what was pruned from under a reflog is none of it.
    pub fn files_everywhere(
        &self,
        (outer, inner): (&str, &str),
        but_not: &str,
    ) -> Result<BTreeMap<String, Vec<u8>>, GitError> {
        let local = self.local();
        let mut walk = Everywhere { local: &local, outer, inner, seen: BTreeSet::new(), blobs: BTreeSet::new() };
        let mut files = BTreeMap::new();
        for directory in self.git_directories()? {
            let (named, remembered) = tips(&directory, but_not)?;
            named.into_iter().try_for_each(|id| walk.history(id))?;
            for id in remembered {
                if local.has_object(id) {
                    walk.history(id)?;
                }
            }
            walk.index(&directory.join("index"))?;
        }
        for directory in self.working_directories()? {
            in_working_tree(&directory, (outer, inner), true, &mut files)?;
        }
        for id in walk.blobs {
            let failed = GitError::on(format!("read `{outer}/{inner}` from the git repository"));
            files.insert(format!("git object {id}"), local.find_object(id).map_err(failed)?.detach().data);
        }
        Ok(files)
    }

    /// Returns the git directories of all working trees; the common one is the first.
    fn git_directories(&self) -> Result<Vec<PathBuf>, GitError> {
        let mut directories = vec![self.common_directory().to_owned()];
        directories.extend(list(&self.common_directory().join("worktrees"))?);
        Ok(directories)
    }

    /// Returns all working trees that are there.
    pub(super) fn working_directories(&self) -> Result<BTreeSet<PathBuf>, GitError> {
        let mut directories: BTreeSet<_> = self.work_directory().map(Path::to_owned).into_iter().collect();
        let local = self.local();
        let main = local.main_repo().map_err(GitError::on("open the main working tree"))?;
        directories.extend(main.workdir().and_then(|path| path.canonicalize().ok()));
        for directory in list(&self.common_directory().join("worktrees"))? {
            let pointer = disk::read_if_there(&directory.join("gitdir"))?.unwrap_or_default();
            let pointer = directory.join(PathBuf::from(pointer.trim().to_str_lossy().into_owned()));
            // One whose directory is gone has no files; its index and its reflog count all the same.
            directories.extend(disk::parent(&pointer).canonicalize().ok());
        }
        Ok(directories)
    }
}

/// Everything that was looked at so far.
struct Everywhere<'a> {
    local: &'a gix::Repository,
    outer: &'a str,
    inner: &'a str,
    seen: BTreeSet<ObjectId>,
    blobs: BTreeSet<ObjectId>,
}

impl Everywhere<'_> {
    /// Looks at everything that `start` leads to.
    fn history(&mut self, start: ObjectId) -> Result<(), GitError> {
        let failed = |id| GitError::on(format!("read git object {id}"));
        let mut next = vec![start];
        while let Some(id) = next.pop() {
            if !self.seen.insert(id) {
                continue;
            }
            let object = self.local.find_object(id).map_err(failed(id))?;
            match object.kind {
                Kind::Tag => next.push(object.into_tag().target_id().map_err(failed(id))?.detach()),
                Kind::Tree => self.tree(id, 0)?,
                Kind::Blob => {}
                Kind::Commit => {
                    let commit = find(self.local, &CommitId(id))?;
                    let tree = commit.tree_id().map_err(failed(id))?.detach();
                    if self.seen.insert(tree) {
                        self.tree(tree, 0)?;
                    }
                    let parents = commit.parent_ids().map(gix::Id::detach);
                    // Where a shallow history ends, there is nothing to come back to.
                    let is_shallow = self.local.is_shallow().unwrap_or(false);
                    next.extend(parents.filter(|parent| !is_shallow || self.local.has_object(*parent)));
                }
            }
        }
        Ok(())
    }

    /// Looks at a tree. `depth` is 1 in a directory `outer`, 2 in or below `outer/inner`.
    fn tree(&mut self, id: ObjectId, depth: u8) -> Result<(), GitError> {
        let failed = || GitError::on(format!("read git tree {id}"));
        let object = self.local.find_object(id).map_err(failed())?;
        let mut below = Vec::new();
        for entry in gix::objs::TreeRefIter::from_bytes(&object.data, id.kind()) {
            let entry = entry.map_err(failed())?;
            let within = match depth {
                0 if entry.filename == self.outer => 1,
                1 if entry.filename == self.inner => 2,
                2 => 2,
                _ => 0,
            };
            if entry.mode.is_tree() {
                below.push((entry.oid.to_owned(), within));
            } else if depth == 2 && entry.mode.is_blob() {
                self.blobs.insert(entry.oid.to_owned());
            }
        }
        for (id, within) in below {
            // A tree that was seen elsewhere may mean something else below `outer`.
            if self.seen.insert(id) || within > 0 {
                self.tree(id, within)?;
            }
        }
        Ok(())
    }

    fn index(&mut self, path: &Path) -> Result<(), GitError> {
        if disk::look(path)?.is_none() {
            return Ok(());
        }
        let failed = GitError::on(format!("read the index `{}`", path.display()));
        let index = gix::index::File::at(path, self.local.object_hash(), true, gix::index::decode::Options::default());
        let index = index.map_err(failed)?;
        for entry in index.entries() {
            let directories: Vec<_> = entry.path(&index).split_str("/").collect();
            let is_within = directories[..directories.len() - 1]
                .windows(2)
                .any(|pair| pair == [self.outer.as_bytes(), self.inner.as_bytes()]);
            if entry.mode == gix::index::entry::Mode::DIR && self.seen.insert(entry.id) {
                self.tree(entry.id, 0)?;
            } else if is_within && !entry.id.is_empty_blob() {
                self.blobs.insert(entry.id);
            }
        }
        Ok(())
    }
}

/// Returns the ids that refs and the like in a git directory name, and those that are only remembered.
fn tips(directory: &Path, but_not: &str) -> Result<(BTreeSet<ObjectId>, BTreeSet<ObjectId>), GitError> {
    let (mut named, mut remembered) = (BTreeSet::new(), BTreeSet::new());
    for (top, into) in [("refs", &mut named), ("logs", &mut remembered)] {
        if disk::look(&directory.join(top))?.is_none() {
            continue;
        }
        for entry in disk::walk(&directory.join(top)) {
            let (path, found) = entry?;
            let below = path.strip_prefix(directory).map(|path| path.to_string_lossy().into_owned());
            let name = below.unwrap_or_default();
            if matches!(found, Found::File { .. }) && !name.trim_start_matches("logs/").starts_with(but_not) {
                into.extend(ids(&disk::read_if_there(&path)?.unwrap_or_default()));
            }
        }
    }
    let packed = disk::read_if_there(&directory.join("packed-refs"))?.unwrap_or_default();
    let counted = |line: &&[u8]| !line.rsplit_str(" ").next().is_some_and(|name| name.starts_with_str(but_not));
    packed.lines().filter(counted).for_each(|line| named.extend(ids(line)));
    for name in SPECIAL {
        remembered.extend(ids(&disk::read_if_there(&directory.join(name))?.unwrap_or_default()));
    }
    Ok((named, remembered))
}

/// Returns every word that is an id, but not that which stands for nothing.
fn ids(text: &[u8]) -> impl Iterator<Item = ObjectId> + '_ {
    let words = text.split(|byte| byte.is_ascii_whitespace() || *byte == b'^');
    words.filter_map(|word| ObjectId::from_hex(word).ok()).filter(|id| !id.is_null())
}

/// Returns what lies in a directory of a working tree, and whether it is a directory: nothing of another repository in it,
/// and nothing of git's own.
pub(super) fn own_entries(directory: &Path, is_top: bool) -> Result<Vec<(DirEntry, bool)>, DiskError> {
    let failed = || DiskError::on("list", directory);
    let listed = match fs::read_dir(directory) {
        // A directory can go while others are listed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.map_err(failed())?,
    };
    let mut entries = listed.collect::<io::Result<Vec<_>>>().map_err(failed())?;
    if !is_top && entries.iter().any(|entry| entry.file_name() == ".git") {
        return Ok(Vec::new());
    }
    entries.retain(|entry| entry.file_name() != ".git");
    let with_kind = |entry: DirEntry| entry.file_type().map(|kind| (entry, kind.is_dir()));
    entries.into_iter().map(with_kind).collect::<io::Result<_>>().map_err(failed())
}

/// Reads the files below `outer/inner` of a working tree, not of repositories in it.
fn in_working_tree(
    directory: &Path,
    (outer, inner): (&str, &str),
    is_top: bool,
    files: &mut BTreeMap<String, Vec<u8>>,
) -> Result<(), GitError> {
    for (entry, is_directory) in own_entries(directory, is_top)? {
        let path = entry.path();
        if !is_directory {
            continue;
        }
        if entry.file_name() == outer && path.join(inner).is_dir() {
            for found in disk::walk(&path.join(inner)) {
                if let (path, Found::File { .. }) = found? {
                    files.insert(path.display().to_string(), disk::read_if_there(&path)?.unwrap_or_default());
                }
            }
        } else {
            in_working_tree(&path, (outer, inner), false, files)?;
        }
    }
    Ok(())
}

fn list(directory: &Path) -> Result<Vec<PathBuf>, DiskError> {
    match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
            .map_err(DiskError::on("list", directory)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Scratch;

    #[test]
    fn nothing_that_git_can_still_come_back_to_is_left_out() {
        let scratch = Scratch::new();
        let put = |text: &str| scratch.write("sub/.pipeline/data/deep/root", text);
        put("first");
        scratch.write(".pipeline/other", "no");
        scratch.write("data/file", "no");
        scratch.commit("first");
        put("reset away");
        scratch.commit("second");
        scratch.git(&["reset", "--quiet", "--hard", "HEAD~1"]);
        put("stashed");
        scratch.git(&["stash", "--quiet"]);
        put("on a branch that is not checked out");
        scratch.git(&["checkout", "--quiet", "-b", "side"]);
        scratch.commit("side");
        scratch.git(&["checkout", "--quiet", "main"]);
        let linked = scratch.beside("linked");
        scratch.git(&["worktree", "add", "--quiet", "--detach", linked.to_str().unwrap()]);
        let other = linked.join("sub/.pipeline/data/deep/root");
        crate::disk::write_whole(&other, b"in another work tree", crate::disk::Durability::Deferred).unwrap();
        put("in the index");
        scratch.git(&["add", "--all"]);
        put("in the work tree");
        let found = scratch.repository().files_everywhere((".pipeline", "data"), "refs/pv/").unwrap();
        let mut texts: Vec<_> = found.into_values().map(|bytes| String::from_utf8(bytes).unwrap()).collect();
        texts.sort();
        let expected = [
            "first",
            "in another work tree",
            "in the index",
            "in the work tree",
            "on a branch that is not checked out",
            "reset away",
            "stashed",
        ];
        assert_eq!(texts, expected);
        let head = scratch.id("HEAD").to_string();
        assert!(scratch.repository().has_commit(&head).unwrap());
        assert!(!scratch.repository().has_commit(&"1".repeat(40)).unwrap());
    }
}
