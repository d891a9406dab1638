//! The union of two sets, where the other one may come from anybody.
//!
//! Both sides come to the same tree, whoever unites them: what both have, and of what only one has the files that are
//! sound. So whatever a stranger puts there besides does not spread.

use std::collections::BTreeMap;

use gix::ObjectId;
use gix::bstr::BString;
use gix::objs::tree::{Entry, EntryKind, EntryMode};

use super::GitError;
use super::durable::write;

/// So many directories may lie in each other. Nobody can make this go on without an end.
const DEPTH_MAX: u8 = 8;

/// Tells of a file, by its path in the set and its content, whether it may be taken in.
pub type IsSound<'a> = &'a dyn Fn(&[u8], &[u8]) -> bool;

type Sides<T> = [Option<T>; 2];

/// Returns the tree that is the union of two, written.
///
/// Costs the reading of what differs; equal directories are not opened. If both have a sound file under one path, the
/// one with the lower id counts, and a directory counts before a file.
pub(super) fn union_tree(
    local: &gix::Repository,
    trees: [ObjectId; 2],
    is_sound: IsSound<'_>,
) -> Result<ObjectId, GitError> {
    let union = Union { local, is_sound };
    let tree = union.of(trees.map(Some), &mut Vec::new(), 0)?;
    Ok(tree.unwrap_or_else(|| ObjectId::empty_tree(local.object_hash())))
}

struct Union<'a> {
    local: &'a gix::Repository,
    is_sound: IsSound<'a>,
}

impl Union<'_> {
    /// Returns the union of two directories at `path`; `None` if nothing is in it.
    fn of(&self, trees: Sides<ObjectId>, path: &mut Vec<u8>, depth: u8) -> Result<Option<ObjectId>, GitError> {
        if trees[0] == trees[1] {
            return Ok(trees[0]);
        }
        if depth == DEPTH_MAX {
            return Ok(None);
        }
        let mut names: BTreeMap<BString, Sides<(EntryMode, ObjectId)>> = BTreeMap::new();
        for (side, tree) in trees.into_iter().enumerate() {
            for (name, found) in tree.map(|tree| self.entries(tree)).transpose()?.unwrap_or_default() {
                names.entry(name).or_default()[side] = Some(found);
            }
        }
        let mut entries = Vec::new();
        for (filename, sides) in names {
            let parent_bytes = path.len();
            path.extend_from_slice(&filename);
            if let Some((mode, oid)) = self.entry(sides, path, depth)? {
                entries.push(Entry { mode, filename, oid });
            }
            path.truncate(parent_bytes);
        }
        if entries.is_empty() {
            return Ok(None);
        }
        entries.sort();
        let written = write(self.local, &gix::objs::Tree { entries });
        written.map(Some).map_err(GitError::on("write the union of two sets"))
    }

    fn entry(
        &self,
        sides: Sides<(EntryMode, ObjectId)>,
        path: &mut Vec<u8>,
        depth: u8,
    ) -> Result<Option<(EntryMode, ObjectId)>, GitError> {
        if sides[0] == sides[1] {
            return Ok(sides[0]);
        }
        let mut files = Vec::new();
        for (_, id) in sides.iter().flatten().filter(|(mode, _)| mode.is_blob()) {
            let blob = self.local.find_object(*id).map_err(GitError::on(format!("read git blob {id}")))?;
            if (self.is_sound)(path, &blob.data) {
                files.push(*id);
            }
        }
        let trees = sides.map(|side| side.filter(|(mode, _)| mode.is_tree()).map(|(_, id)| id));
        path.push(b'/');
        let directory = self.of(trees, path, depth + 1)?;
        let file = files.into_iter().min().map(|id| (EntryKind::Blob.into(), id));
        Ok(directory.map(|id| (EntryKind::Tree.into(), id)).or(file))
    }

    fn entries(&self, tree: ObjectId) -> Result<Vec<(BString, (EntryMode, ObjectId))>, GitError> {
        let failed = || GitError::on(format!("read git tree {tree}"));
        let object = self.local.find_object(tree).map_err(failed())?;
        let mut entries = Vec::new();
        for entry in gix::objs::TreeRefIter::from_bytes(&object.data, tree.kind()) {
            let entry = entry.map_err(failed())?;
            // Only a forger makes such a name, which would look like a path.
            if !entry.filename.contains(&b'/') {
                entries.push((entry.filename.to_owned(), (entry.mode, entry.oid.to_owned())));
            }
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{META, Scratch, file};
    use super::super::{CommitId, Repository};
    use super::*;

    const OTHER: &str = "refs/pv/other";

    /// Sound is what says its own name.
    fn names_itself(path: &[u8], bytes: &[u8]) -> bool {
        path.ends_with(bytes)
    }

    fn merge(repository: &Repository, into: &str, other: &CommitId) -> Option<CommitId> {
        repository.merge_set(into, other, false, &names_itself).unwrap()
    }

    fn names(scratch: &Scratch, revision: &str) -> String {
        scratch.line(&["ls-tree", "-r", "--name-only", revision]).replace('\n', " ")
    }

    #[test]
    fn a_union_has_both_parents_and_is_the_same_whoever_makes_it() {
        for options in [&["--object-format=sha1"], &["--object-format=sha256"]] {
            let scratch = Scratch::with(options);
            let repository = scratch.repository();
            let ours = repository.add_to_set(META, &[file("a/one", "one"), file("b/two", "two")], "x").unwrap();
            let theirs = repository.add_to_set(OTHER, &[file("a/three", "three"), file("b/two", "two")], "x").unwrap();
            let union = merge(&repository, META, &theirs).unwrap();
            assert_eq!(scratch.line(&["log", "-1", "--format=%P", META]), format!("{ours} {theirs}"));
            assert_eq!(names(&scratch, META), "a/one a/three b/two");
            let other_way = merge(&repository, OTHER, &ours).unwrap();
            let tree = |commit: &CommitId| scratch.line(&["rev-parse", &format!("{commit}^{{tree}}")]);
            assert_ne!(union, other_way);
            assert_eq!(tree(&union), tree(&other_way));
            assert_eq!(merge(&repository, META, &other_way), Some(union), "nothing new, nothing moves");
            scratch.git(&["fsck", "--full", "--strict"]);
        }
    }

    #[test]
    fn a_set_moves_forward_where_it_can_and_stays_where_nothing_is_new() {
        let scratch = Scratch::new();
        let repository = scratch.repository();
        let first = repository.add_to_set(OTHER, &[file("a/one", "one")], "x").unwrap();
        assert_eq!(merge(&repository, META, &first), Some(first), "there was none before");
        let second = repository.add_to_set(OTHER, &[file("a/two", "two")], "x").unwrap();
        assert_eq!(merge(&repository, META, &second), Some(second));
        assert_eq!(merge(&repository, META, &first), Some(second), "an old tip is known");
        let gone: CommitId = "ce013625030ba8dba906f756967f9e9ca394464a".parse().unwrap();
        let error = repository.merge_set(META, &gone, false, &names_itself).unwrap_err();
        assert!(matches!(error, GitError::MissingCommit { .. }), "{error}");
    }

    #[test]
    fn a_tip_follows_one_that_has_less_only_if_it_must() {
        let scratch = Scratch::new();
        let repository = scratch.repository();
        let ours = repository.add_to_set(META, &[file("a/one", "one"), file("a/two", "two")], "x").unwrap();
        let less = repository.add_to_set(OTHER, &[file("a/one", "one")], "x").unwrap();
        assert_eq!(merge(&repository, META, &less), Some(ours));
        let followed = repository.merge_set(META, &less, true, &names_itself).unwrap().unwrap();
        assert_eq!(scratch.line(&["log", "-1", "--format=%P", META]), format!("{ours} {less}"));
        assert_eq!(scratch.line(&["diff-tree", &ours.to_string(), &followed.to_string()]), "");
    }

    #[test]
    fn what_is_not_sound_is_left_out_wherever_it_stands() {
        let scratch = Scratch::new();
        let repository = scratch.repository();
        repository.add_to_set(META, &[file("a/one", "one"), file("taken", "other")], "x").unwrap();
        let deep = format!("{}deep", "d/".repeat(20));
        let bad = [file("a/two", "bad"), file("taken/three", "three"), file(&deep, "deep"), file("b", "bad")];
        repository.add_to_set(OTHER, &bad, "x").unwrap();
        scratch.write("link", "link");
        let blob = scratch.line(&["hash-object", "-w", "link"]);
        scratch.git(&["read-tree", OTHER]);
        scratch.git(&["update-index", "--add", "--cacheinfo", &format!("120000,{blob},link")]);
        scratch.git(&["update-index", "--add", "--cacheinfo", &format!("100755,{blob},x/link")]);
        let tree = scratch.line(&["write-tree"]);
        let theirs = scratch.line(&["commit-tree", &tree, "-m", "x"]).parse().unwrap();
        merge(&repository, META, &theirs).unwrap();
        assert_eq!(names(&scratch, META), "a/one taken/three x/link", "a file in the way of a sound one goes, too");
        assert!(scratch.line(&["ls-tree", "-r", META, "x/link"]).starts_with("100644 "));

        let scratch = Scratch::new();
        let repository = scratch.repository();
        let junk = repository.add_to_set(OTHER, &[file("b", "bad")], "x").unwrap();
        assert_eq!(merge(&repository, META, &junk), None, "nothing of it makes a set");
        assert_eq!(repository.set_tip(META).unwrap(), None);
    }
}
