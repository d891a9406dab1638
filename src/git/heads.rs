//! What lies in a directory of this name in what people work on: heads of branches, tags, working trees.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;

use gix::ObjectId;

use super::commit::find;
use super::everywhere::own_entries;
use super::{GitError, Repository};
use crate::disk;

impl Repository {
    /// Returns name and content of every file directly in a directory called `directory` at any depth: of the commits
    /// that branches, remote branches, tags and HEAD name, and of every working tree. Of a link in a commit, the
    /// content is where it leads.
    ///
    /// Costs one look at each distinct tree of those commits, and a listing of the working trees.
    ///
    /// # Errors
    ///
    /// [`GitError`] if anything of it cannot be read.
    pub fn files_at_heads(&self, directory: &str) -> Result<BTreeSet<(String, Vec<u8>)>, GitError> {
        let local = self.local();
        let mut heads = Heads { local: &local, directory, seen: BTreeSet::new(), files: BTreeSet::new() };
        for (_, commit) in self.tips()? {
            let tree = find(&local, &commit)?.tree_id().map_err(GitError::on(format!("read commit {commit}")))?;
            heads.tree(tree.detach(), false)?;
        }
        let mut files = BTreeSet::new();
        for (name, id) in heads.files {
            let failed = GitError::on(format!("read git object {id}"));
            files.insert((name, local.find_object(id).map_err(failed)?.detach().data));
        }
        for tree in self.working_directories()? {
            in_working_tree(&tree, directory, true, &mut files)?;
        }
        Ok(files)
    }
}

struct Heads<'a> {
    local: &'a gix::Repository,
    directory: &'a str,
    /// The trees that were looked at, and whether as the directory itself.
    seen: BTreeSet<(ObjectId, bool)>,
    files: BTreeSet<(String, ObjectId)>,
}

impl Heads<'_> {
    fn tree(&mut self, id: ObjectId, is_it: bool) -> Result<(), GitError> {
        if !self.seen.insert((id, is_it)) {
            return Ok(());
        }
        let failed = || GitError::on(format!("read git tree {id}"));
        let object = self.local.find_object(id).map_err(failed())?;
        for entry in gix::objs::TreeRefIter::from_bytes(&object.data, id.kind()) {
            let entry = entry.map_err(failed())?;
            if entry.mode.is_tree() {
                self.tree(entry.oid.to_owned(), entry.filename == self.directory)?;
            } else if is_it && (entry.mode.is_blob() || entry.mode.is_link()) {
                self.files.insert((entry.filename.to_string(), entry.oid.to_owned()));
            }
        }
        Ok(())
    }
}

/// Reads the files directly in directories called `wanted` of a working tree, not of repositories in it.
fn in_working_tree(
    directory: &Path,
    wanted: &str,
    is_top: bool,
    files: &mut BTreeSet<(String, Vec<u8>)>,
) -> Result<(), GitError> {
    let is_it = directory.file_name() == Some(OsStr::new(wanted));
    for (entry, is_directory) in own_entries(directory, is_top)? {
        let path = entry.path();
        if is_directory {
            in_working_tree(&path, wanted, false, files)?;
        } else if is_it && path.is_file() {
            let name = entry.file_name().to_string_lossy().into_owned();
            files.extend(disk::read_if_there(&path)?.map(|content| (name, content)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Scratch;

    #[test]
    fn what_heads_and_working_trees_have_is_found_and_what_only_history_has_is_not() {
        let scratch = Scratch::new();
        let put = |text: &str| scratch.write("sub/.pipeline/train.yaml", text);
        put("only in history");
        scratch.write(".pipeline/data/deep", "not directly in it");
        scratch.write("other/train.yaml", "beside it");
        scratch.commit("first");
        put("at a tag");
        scratch.commit("second");
        scratch.git(&["tag", "kept"]);
        put("on another branch");
        scratch.commit("third");
        scratch.git(&["branch", "side"]);
        put("on this branch");
        scratch.commit("fourth");
        let linked = scratch.beside("linked");
        scratch.git(&["worktree", "add", "--quiet", "--detach", linked.to_str().unwrap()]);
        let other = linked.join("sub/.pipeline/train.yaml");
        crate::disk::write_whole(&other, b"in another work tree", crate::disk::Durability::Deferred).unwrap();
        put("in the work tree");
        let found = scratch.repository().files_at_heads(".pipeline").unwrap();
        let expected = ["at a tag", "in another work tree", "in the work tree", "on another branch", "on this branch"];
        let expected = expected.map(|text| ("train.yaml".to_owned(), text.as_bytes().to_owned()));
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
    }
}
