//! A reference that holds a set of small files, in the tree of its commit, which only grows.
//!
//! Any number of processes may add at once: they wait for each other. Git may
//! move the reference beside them, so each adds to the tip it sees and moves
//! the reference only if it is still there, else tries again on the new tip.
//! What was added is never changed or removed.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use gix::ObjectId;
use gix::bstr::ByteSlice;
use gix::objs::tree::EntryKind;

use super::commit::find;
use super::commit_files::project_path;
use super::durable::{sweep, write};
use super::reference::{Entry, Held, Patience, WAIT_AT_MOST, full_name, has_no_value};
use super::set_tree::{Place, SetFiles, collect_new, look_up};
use super::set_union::{IsSound, union_tree};
use super::{CommitId, GitError, Identity, Repository};
use crate::host::Time;
use crate::path::escape;

/// What the commit says that unites two sets.
const UNION: &str = "pv: unite records";

impl Repository {
    /// Returns the commit that the reference is at; `None` if there is no such reference.
    ///
    /// One that a power cut left without a value is removed, and counts as none.
    ///
    /// # Errors
    ///
    /// [`GitError::Git`] if the reference is damaged or has no proper full name, and as
    /// [`Repository::add_to_set`] if it has to be removed and is held by others.
    pub fn set_tip(&self, reference: &str) -> Result<Option<CommitId>, GitError> {
        let local = self.local();
        match tip(&local, reference) {
            Err(_) if has_no_value(&local.common_dir().join(reference))? => {
                let mut patience = Patience::of(WAIT_AT_MOST);
                Held::take(&local, reference, &mut patience)?.remove_blank(&mut patience)?;
                tip(&local, reference)
            }
            tip => tip,
        }
    }

    /// Returns the files in the tree of `tip` that are not in the tree of `known`, sorted by path.
    ///
    /// Costs the reading of what differs; equal directories are not opened. If
    /// `known` is no longer there, everything counts as new.
    ///
    /// # Errors
    ///
    /// [`GitError::MissingCommit`] if `tip` is not there, [`GitError::Git`] if something is damaged.
    pub fn set_files_since(&self, tip: &CommitId, known: Option<&CommitId>) -> Result<SetFiles, GitError> {
        let local = self.local();
        let failed = || GitError::on(format!("read the files of commit {tip}"));
        let tree = find(&local, tip)?.tree_id().map_err(failed())?.detach();
        let known = known.and_then(|known| Some(find(&local, known).ok()?.tree_id().ok()?.detach()));
        let mut files = Vec::new();
        collect_new(&local, tree, known, &mut Vec::new(), &mut files)?;
        Ok(files)
    }

    /// Adds files to the set and returns the commit that holds them; if all are in it, that is the tip.
    ///
    /// The committer is the user, or `pv` if git knows none; the time is now, in
    /// UTC. If others add at the same time, nobody's files are lost: this waits
    /// and tries again for up to five seconds. When this returns, what was added survives a power cut.
    ///
    /// # Errors
    ///
    /// [`GitError::Conflict`] if a path is taken by other content,
    /// [`GitError::UnsupportedPath`] for a path that git does not take,
    /// [`GitError::Busy`] if other processes of `pv` hold the reference, or it keeps moving,
    /// [`GitError::Locked`] if a file of git's holds it that is less than a minute old,
    /// [`GitError::Git`] if something cannot be written.
    pub fn add_to_set(
        &self,
        reference: &str,
        files: &[(Vec<u8>, Vec<u8>)],
        message: &str,
    ) -> Result<CommitId, GitError> {
        self.add_within(WAIT_AT_MOST, reference, files, message)
    }

    /// Makes the set the union of what it is and what is in the tree of `other`, and returns the commit that holds it;
    /// `None` if there is no set, and nothing of `other` comes into one.
    ///
    /// Of what only one of the two has, what `is_sound` refuses is left out. The set moves forward to `other` itself
    /// where that is the union, and else to a commit that has both as parents. It does not move for nothing new, unless it
    /// `must_follow` and its tip does not descend from `other` yet, which somebody needs to push it there.
    ///
    /// Costs the reading of what differs, and a walk to where the two parted. Waits and tries again as [`Repository::add_to_set`].
    ///
    /// # Errors
    ///
    /// [`GitError::MissingCommit`] if `other` is not there, [`GitError::Busy`], [`GitError::Locked`] and
    /// [`GitError::Git`] as for [`Repository::add_to_set`].
    pub fn merge_set(
        &self,
        reference: &str,
        other: &CommitId,
        must_follow: bool,
        is_sound: IsSound<'_>,
    ) -> Result<Option<CommitId>, GitError> {
        let local = self.local();
        let mut patience = Patience::of(WAIT_AT_MOST);
        let held = Held::take(&local, reference, &mut patience)?;
        sweep(&local, held.taken_ns());
        held.remove_blank(&mut patience)?;
        let merge = Merge { local: &local, held, reference, other: *other, must_follow, is_sound };
        let identity = self.identity();
        loop {
            if let ControlFlow::Break(tip) = merge.attempt(identity.as_ref(), &mut patience)? {
                return Ok(tip);
            }
            if !patience.wait() {
                return Err(GitError::Busy { reference: reference.to_owned() });
            }
        }
    }

    pub(super) fn add_within(
        &self,
        limit: Duration,
        reference: &str,
        files: &[(Vec<u8>, Vec<u8>)],
        message: &str,
    ) -> Result<CommitId, GitError> {
        let local = self.local();
        let mut patience = Patience::of(limit);
        let held = Held::take(&local, reference, &mut patience)?;
        sweep(&local, held.taken_ns());
        let files = write_files(&local, reference, files)?;
        held.remove_blank(&mut patience)?;
        let addition = Addition { local: &local, held, reference, files, message };
        let identity = self.identity();
        loop {
            if let Some(commit) = addition.attempt(identity.as_ref(), &mut patience)? {
                return Ok(commit);
            }
            if !patience.wait() {
                return Err(GitError::Busy { reference: reference.to_owned() });
            }
        }
    }
}

/// Files on their way into a set.
struct Addition<'a> {
    local: &'a gix::Repository,
    held: Held<'a>,
    reference: &'a str,
    files: BTreeMap<&'a [u8], ObjectId>,
    message: &'a str,
}

impl Addition<'_> {
    /// Adds to the tip as it is now; `None` if somebody else moved the reference.
    fn attempt(&self, identity: Option<&Identity>, patience: &mut Patience) -> Result<Option<CommitId>, GitError> {
        let failed = || GitError::on(format!("add to `{}`", self.reference));
        let tip = tip(self.local, self.reference)?;
        let tree = match &tip {
            Some(tip) => find(self.local, tip)?.tree_id().map_err(failed())?.detach(),
            None => ObjectId::empty_tree(self.local.object_hash()),
        };
        let new = self.missing_from(tree)?;
        if new.is_empty()
            && let Some(tip) = tip
        {
            return Ok(Some(tip));
        }
        let tree = self.grown_tree(tree, &new).map_err(failed())?;
        let parents = tip.iter().map(|tip| tip.0).collect();
        let commit = write_commit(self.local, tree, parents, identity, self.message).map_err(failed())?;
        let signature = signature(identity);
        let summary = self.message.lines().next().unwrap_or_default();
        let entry = Entry { signature: &signature, message: summary };
        let moved = self.held.move_it(tip.map(|tip| tip.0), commit, &entry, patience)?;
        Ok(moved.then_some(CommitId(commit)))
    }

    /// Returns the files that the tree does not hold yet.
    fn missing_from(&self, tree: ObjectId) -> Result<Vec<(&[u8], ObjectId)>, GitError> {
        let mut new = Vec::new();
        for (path, blob) in &self.files {
            match look_up(self.local, tree, path)? {
                Place::Free => new.push((*path, *blob)),
                Place::Taken(id) if id == *blob => {}
                Place::Taken(_) => return Err(conflict(self.reference, path)),
            }
        }
        Ok(new)
    }

    fn grown_tree(&self, tree: ObjectId, new: &[(&[u8], ObjectId)]) -> gix::Result<ObjectId> {
        // The inner editor writes what it is told; the outer one would look for every object in each changed directory.
        let mut editor = self.local.edit_tree(tree)?.detach();
        for (path, blob) in new {
            editor.upsert(path.split(|byte| *byte == b'/').map(ByteSlice::as_bstr), EntryKind::Blob, *blob)?;
        }
        editor.write(|tree| write(self.local, tree))
    }
}

/// Another set on its way into one.
struct Merge<'a> {
    local: &'a gix::Repository,
    held: Held<'a>,
    reference: &'a str,
    other: CommitId,
    must_follow: bool,
    is_sound: IsSound<'a>,
}

impl Merge<'_> {
    /// Unites the tip as it is now with the other, and returns the tip; goes on if somebody else moved the reference.
    fn attempt(
        &self,
        identity: Option<&Identity>,
        patience: &mut Patience,
    ) -> Result<ControlFlow<Option<CommitId>>, GitError> {
        let tip = tip(self.local, self.reference)?;
        let Some(to) = self.union(tip, identity)? else { return Ok(ControlFlow::Break(tip)) };
        let signature = signature(identity);
        let entry = Entry { signature: &signature, message: UNION };
        let moved = self.held.move_it(tip.map(|tip| tip.0), to.0, &entry, patience)?;
        Ok(if moved { ControlFlow::Break(Some(to)) } else { ControlFlow::Continue(()) })
    }

    /// Returns where the tip has to move; `None` if it may stay.
    fn union(&self, tip: Option<CommitId>, identity: Option<&Identity>) -> Result<Option<CommitId>, GitError> {
        let failed = || GitError::on(format!("unite `{}` with commit {}", self.reference, self.other));
        let tree_of = |id: &CommitId| -> Result<ObjectId, GitError> {
            Ok(find(self.local, id)?.tree_id().map_err(failed())?.detach())
        };
        let theirs = tree_of(&self.other)?;
        let empty = ObjectId::empty_tree(self.local.object_hash());
        let ours = tip.as_ref().map_or(Ok(empty), tree_of)?;
        // In a shallow history the place where they parted is not to be found, and need not be.
        let parted = tip.and_then(|tip| self.local.merge_base(tip.0, self.other.0).ok().flatten());
        let parted = parted.map(|commit| CommitId(commit.detach()));
        if parted == Some(self.other) || (tip.is_some() && ours == theirs) {
            return Ok(None);
        }
        let tree = union_tree(self.local, [ours, theirs], self.is_sound)?;
        if tree == ours && !(self.must_follow && tip.is_some()) {
            return Ok(None);
        }
        if tree == theirs && parted == tip {
            return Ok(Some(self.other));
        }
        let parents = tip.iter().chain([&self.other]).map(|parent| parent.0).collect();
        write_commit(self.local, tree, parents, identity, UNION).map(|commit| Some(CommitId(commit))).map_err(failed())
    }
}

/// Writes a commit by the user, made now.
fn write_commit(
    local: &gix::Repository,
    tree: ObjectId,
    parents: Vec<ObjectId>,
    identity: Option<&Identity>,
    message: &str,
) -> gix::Result<ObjectId> {
    let signature = signature(identity);
    let commit = gix::objs::Commit {
        tree,
        parents: parents.into(),
        author: signature.clone(),
        committer: signature,
        encoding: None,
        message: message.into(),
        extra_headers: Vec::new(),
    };
    write(local, &commit)
}

/// Writes the contents, checks the paths, and returns both sorted.
fn write_files<'a>(
    local: &gix::Repository,
    reference: &str,
    files: &'a [(Vec<u8>, Vec<u8>)],
) -> Result<BTreeMap<&'a [u8], ObjectId>, GitError> {
    let mut blobs: BTreeMap<&[u8], ObjectId> = BTreeMap::new();
    for (path, content) in files {
        if project_path(path)?.names().any(|name| name.eq_ignore_ascii_case(b".git")) {
            return Err(GitError::UnsupportedPath { path: escape(path).into_owned() });
        }
        let failed = GitError::on(format!("add to `{reference}`"));
        let blob =
            write(local, &gix::objs::BlobRef::from_bytes(content).expect("any bytes are a blob")).map_err(failed)?;
        if blobs.insert(path, blob).is_some_and(|other| other != blob) {
            return Err(conflict(reference, path));
        }
    }
    for path in blobs.keys() {
        let mut parents = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(cut, _)| &path[..cut]);
        if parents.any(|parent| blobs.contains_key(parent)) {
            return Err(conflict(reference, path));
        }
    }
    Ok(blobs)
}

fn conflict(reference: &str, path: &[u8]) -> GitError {
    GitError::Conflict { reference: reference.to_owned(), path: escape(path).into_owned() }
}

pub(super) fn tip(local: &gix::Repository, reference: &str) -> Result<Option<CommitId>, GitError> {
    let failed = GitError::on(format!("read `{reference}`"));
    let found = local.try_find_reference(full_name(reference)?.as_ref()).map_err(failed)?;
    Ok(found.and_then(|found| Some(CommitId(found.try_id()?.detach()))))
}

pub(super) fn signature(identity: Option<&Identity>) -> gix::actor::Signature {
    let (name, email) = identity.map_or(("pv", "pv@localhost"), |identity| (&identity.name, &identity.email));
    let seconds = Time::now().epoch_ms.div_euclid(1000);
    gix::actor::Signature { name: name.into(), email: email.into(), time: gix::date::Time { seconds, offset: 0 } }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{META, Scratch, file, is_rerun};
    use super::*;

    #[test]
    fn files_are_added_and_never_changed_and_git_finds_the_repository_sound() {
        for options in [&["--object-format=sha1"], &["--object-format=sha256"]] {
            let scratch = Scratch::with(options);
            let repository = scratch.repository();
            assert_eq!(repository.set_tip(META).unwrap(), None);
            let (one, two) = (file("runs/ab/one", "1"), file("runs/ab/two", "2"));
            let first = repository.add_to_set(META, std::slice::from_ref(&one), "add one").unwrap();
            assert_eq!(repository.add_to_set(META, std::slice::from_ref(&one), "again").unwrap(), first);
            let second = repository.add_to_set(META, &[two.clone(), one.clone()], "add two").unwrap();
            assert_eq!(repository.set_tip(META).unwrap(), Some(second));
            assert_eq!(
                scratch.line(&["log", "--format=%an <%ae> %s", META]),
                "Ada <ada@example.org> add two\nAda <ada@example.org> add one"
            );
            assert_eq!(scratch.line(&["show", &format!("{META}:runs/ab/two")]), "2");

            for taken in ["runs/ab/one", "runs/ab", "runs/ab/one/deeper"] {
                let error = repository.add_to_set(META, &[file(taken, "other")], "x").unwrap_err();
                assert!(matches!(error, GitError::Conflict { path, .. } if path == taken));
            }
            assert_eq!(repository.set_tip(META).unwrap(), Some(second));
            scratch.git(&["fsck", "--full", "--strict"]);
            assert_eq!(repository.head().unwrap().commit, None, "HEAD is not touched");
            assert_eq!(scratch.line(&["status", "--porcelain"]), "");
        }
    }

    #[test]
    fn bad_paths_and_quarrelling_files_are_refused_before_anything_moves() {
        let scratch = Scratch::new();
        let repository = scratch.repository();
        for path in ["", "/a", "a//b", "a/../b", "a/.git/b", ".GIT"] {
            let error = repository.add_to_set(META, &[file(path, "x")], "x").unwrap_err();
            assert!(matches!(error, GitError::UnsupportedPath { .. }), "{path}");
        }
        for quarrel in [[file("a", "1"), file("a", "2")], [file("a", "1"), file("a/b", "1")]] {
            assert!(matches!(repository.add_to_set(META, &quarrel, "x"), Err(GitError::Conflict { .. })));
        }
        assert!(repository.add_to_set("no name", &[file("a", "1")], "x").is_err());
        assert_eq!(repository.set_tip(META).unwrap(), None);
    }

    #[test]
    fn without_an_identity_the_committer_is_pv() {
        let scratch = Scratch::new();
        scratch.git(&["config", "--unset", "user.name"]);
        scratch.repository().add_to_set(META, &[file("a", "1")], "add").unwrap();
        assert_eq!(
            scratch.line(&["log", "--format=%cn <%ce> %ad", "--date=format:%z", META]),
            "pv <pv@localhost> +0000"
        );
    }

    #[test]
    fn only_what_is_new_since_a_known_commit_is_given_out() {
        let scratch = Scratch::new();
        let repository = scratch.repository();
        let files = [file("a/1", "one"), file("a/2", "two"), file("b/3", "three")];
        let first = repository.add_to_set(META, &files, "first").unwrap();
        let more = [file("a/4", "four"), file("c", "five")];
        let second = repository.add_to_set(META, &more, "second").unwrap();
        let all = repository.set_files_since(&second, None).unwrap();
        assert_eq!(all, [&files[..2], &more[..1], &files[2..], &more[1..]].concat());
        assert_eq!(repository.set_files_since(&second, Some(&first)).unwrap(), more);
        assert_eq!(repository.set_files_since(&second, Some(&second)).unwrap(), []);
        let gone: CommitId = "ce013625030ba8dba906f756967f9e9ca394464a".parse().unwrap();
        assert_eq!(repository.set_files_since(&second, Some(&gone)).unwrap(), all);
        assert!(matches!(repository.set_files_since(&gone, None), Err(GitError::MissingCommit { .. })));

        // The equal directory is not opened: it can be missing.
        let tree = scratch.line(&["rev-parse", &format!("{second}:b")]);
        scratch.remove(&format!(".git/objects/{}/{}", &tree[..2], &tree[2..]));
        let reopened = scratch.repository();
        assert_eq!(reopened.set_files_since(&second, Some(&first)).unwrap(), more);
        assert!(matches!(reopened.set_files_since(&second, None), Err(GitError::Git { .. })));
    }

    #[test]
    fn many_threads_and_processes_add_at_once_and_nothing_is_lost() {
        const EACH: usize = 10;
        let add_all = |repository: &Repository, who: &str| {
            for number in 0..EACH {
                let name = format!("{who}/{number}");
                repository.add_to_set(META, &[file(&name, &name)], &name).unwrap();
            }
        };
        if is_rerun() {
            let here = crate::host::current_directory().unwrap();
            return add_all(&Repository::discover(&here).unwrap().unwrap(), "process");
        }
        let scratch = Scratch::new();
        let repository = scratch.repository();
        let test = "git::set::tests::many_threads_and_processes_add_at_once_and_nothing_is_lost";
        std::thread::scope(|scope| {
            for who in ["first", "second", "third"] {
                let repository = &repository;
                scope.spawn(move || add_all(repository, who));
            }
            scratch.rerun(test, &scratch.root, &[]);
        });
        let tip = repository.set_tip(META).unwrap().unwrap();
        assert_eq!(repository.set_files_since(&tip, None).unwrap().len(), 4 * EACH);
        assert_eq!(scratch.line(&["rev-list", "--count", META]), (4 * EACH).to_string());
        scratch.git(&["fsck", "--full", "--strict"]);
    }
}
