//! Commits: their ids, what they say, and which ones have names.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use gix::bstr::ByteSlice;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{GitError, Identity, Repository};
use crate::hash::SHORT_DIGITS;
use crate::host::Time;

/// The id of a commit: SHA-1 or SHA-256, as the repository has it. Printed as hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(pub(super) gix::ObjectId);

/// A text that is no id of a commit.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is not a commit id of 40 or 64 hex digits")]
pub struct NotACommitId {
    /// What was given.
    pub text: String,
}

/// What is checked out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// The commit; `None` in a repository without commits.
    pub commit: Option<CommitId>,
    /// The branch, without `refs/heads/`; `None` if HEAD is detached.
    pub branch: Option<String>,
}

/// What a commit says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Commit {
    /// Its id.
    pub id: CommitId,
    /// Its parents. In a shallow clone they need not be there.
    pub parents: Vec<CommitId>,
    /// The first paragraph of its message, on one line.
    pub subject: String,
    /// Who wrote it.
    pub author: Identity,
    /// When the author wrote it.
    pub time: Time,
}

impl Repository {
    /// Returns what is checked out. Costs the reading of two small files.
    ///
    /// # Errors
    ///
    /// [`GitError::Git`] if HEAD is damaged.
    pub fn head(&self) -> Result<Head, GitError> {
        let local = self.local();
        let mut head = local.head().map_err(GitError::on("read HEAD"))?;
        let branch = head.referent_name().map(|name| name.shorten().to_str_lossy().into_owned());
        let commit = head.try_peel_to_id().map_err(GitError::on("read HEAD"))?.map(|id| CommitId(id.detach()));
        Ok(Head { commit, branch })
    }

    /// Returns what the commit says.
    ///
    /// # Errors
    ///
    /// [`GitError::MissingCommit`] if it is not there, [`GitError::ShallowHistory`]
    /// if that is because the repository is a shallow clone, [`GitError::Git`] if it is damaged.
    pub fn commit(&self, id: &CommitId) -> Result<Commit, GitError> {
        let local = self.local();
        let commit = find(&local, id)?;
        let action = || format!("read commit {id}");
        let author = commit.author().map_err(GitError::on(action()))?.trim();
        let time = author.time().map_err(GitError::on(action()))?;
        let message = commit.message().map_err(GitError::on(action()))?;
        let text = |bytes: &gix::bstr::BStr| bytes.to_str_lossy().into_owned();
        Ok(Commit {
            id: *id,
            parents: commit.parent_ids().map(|parent| CommitId(parent.detach())).collect(),
            subject: text(message.summary().as_bstr()),
            author: Identity { name: text(author.name), email: text(author.email) },
            time: Time { epoch_ms: time.seconds.saturating_mul(1000) },
        })
    }

    /// Returns HEAD, if it has a commit, then all tags, branches and remote branches that name commits, sorted by name.
    ///
    /// Names are short: `v1.0`, `main`, `origin/main`. Where a tag and a branch
    /// share one, the tag has it, as for git. Names of trees and files, broken
    /// ones, and aliases such as `origin/HEAD` are left out.
    ///
    /// # Errors
    ///
    /// [`GitError::Git`] if the references cannot be listed.
    pub fn tips(&self) -> Result<Vec<(String, CommitId)>, GitError> {
        let local = self.local();
        let failed = || GitError::on("list the references");
        let platform = local.references().map_err(failed())?;
        let mut names = BTreeMap::new();
        for references in [platform.tags(), platform.local_branches(), platform.remote_branches()] {
            for reference in references.map_err(failed())?.flatten() {
                if let Some((name, commit)) = named_commit(&local, reference) {
                    names.entry(name).or_insert(commit);
                }
            }
        }
        let head = self.head()?.commit.map(|commit| ("HEAD".to_owned(), commit));
        Ok(head.into_iter().chain(names).collect())
    }
}

fn named_commit(local: &gix::Repository, mut reference: gix::Reference<'_>) -> Option<(String, CommitId)> {
    if reference.target().try_name().is_some() {
        return None;
    }
    let id = reference.peel_to_id().ok()?.detach();
    let is_commit = local.try_find_header(id).ok()??.kind() == gix::objs::Kind::Commit;
    let name = reference.name().shorten().to_str().ok()?.to_owned();
    is_commit.then_some((name, CommitId(id)))
}

/// Returns the commit, or the reason why it is not there.
pub(super) fn find<'repo>(local: &'repo gix::Repository, id: &CommitId) -> Result<gix::Commit<'repo>, GitError> {
    let action = || format!("read commit {id}");
    match local.try_find_object(id.0).map_err(GitError::on(action()))? {
        Some(object) => object.try_into_commit().map_err(GitError::on(action())),
        None if local.is_shallow().unwrap_or(false) => Err(GitError::ShallowHistory { commit: *id }),
        None => Err(GitError::MissingCommit { commit: *id }),
    }
}

impl CommitId {
    /// Returns the first 12 hex digits, for people.
    pub fn short(&self) -> String {
        self.0.to_hex_with_len(SHORT_DIGITS).to_string()
    }

    /// Returns the 20 bytes (SHA-1) or 32 bytes (SHA-256).
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Returns the id with these bytes; `None` unless there are 20 or 32.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        gix::ObjectId::try_from(bytes).ok().map(Self)
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for CommitId {
    type Err = NotACommitId;

    fn from_str(text: &str) -> Result<Self, NotACommitId> {
        let id = gix::ObjectId::from_hex(text.as_bytes()).map_err(|_| NotACommitId { text: text.to_owned() })?;
        Ok(Self(id))
    }
}

impl Serialize for CommitId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CommitId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Scratch;
    use super::*;

    #[test]
    fn an_id_prints_as_it_reads_and_knows_both_lengths() {
        for digits in ["ce013625030ba8dba906f756967f9e9ca394464a", &"0123456789abcdef".repeat(4)] {
            let id: CommitId = digits.parse().unwrap();
            assert_eq!(id.to_string(), digits);
            assert_eq!(id.short(), digits[..12]);
            assert_eq!(id.as_bytes().len() * 2, digits.len());
            assert_eq!(CommitId::from_bytes(id.as_bytes()), Some(id));
            let json = serde_json::to_string(&id).unwrap();
            assert_eq!(serde_json::from_str::<CommitId>(&json).unwrap(), id);
        }
        for text in ["", "ce01", &"x".repeat(40)] {
            assert!(text.parse::<CommitId>().is_err(), "{text}");
        }
        assert_eq!(CommitId::from_bytes(b"short"), None);
    }

    #[test]
    fn head_is_known_before_the_first_commit_on_a_branch_and_detached() {
        let scratch = Scratch::new();
        let repository = scratch.repository();
        let main = Some("main".to_owned());
        assert_eq!(repository.head().unwrap(), Head { commit: None, branch: main.clone() });
        let first = scratch.commit("first");
        assert_eq!(repository.head().unwrap(), Head { commit: Some(first), branch: main });
        scratch.git(&["switch", "--quiet", "--create", "topic/x"]);
        assert_eq!(repository.head().unwrap().branch.as_deref(), Some("topic/x"));
        scratch.git(&["switch", "--quiet", "--detach"]);
        assert_eq!(repository.head().unwrap(), Head { commit: Some(first), branch: None });
    }

    #[test]
    fn a_commit_says_what_git_log_says() {
        for options in [&["--object-format=sha1"], &["--object-format=sha256"]] {
            let scratch = Scratch::with(options);
            let first = scratch.commit("first");
            let second = scratch.commit("second line\ngoes on\n\nbody");
            let commit = scratch.repository().commit(&second).unwrap();
            let log = scratch.line(&["log", "-1", "--format=%H|%P|%s|%an|%ae|%at"]);
            let (author, seconds) = (&commit.author, commit.time.epoch_ms / 1000);
            let ours = format!(
                "{}|{}|{}|{}|{}|{seconds}",
                commit.id, commit.parents[0], commit.subject, author.name, author.email
            );
            assert_eq!((ours, commit.parents), (log, vec![first]));
        }
    }

    #[test]
    fn a_missing_commit_and_the_end_of_a_shallow_history_are_told_apart() {
        let scratch = Scratch::new();
        let first = scratch.commit("first");
        scratch.commit("second");
        let missing: CommitId = "ce013625030ba8dba906f756967f9e9ca394464a".parse().unwrap();
        let error = scratch.repository().commit(&missing).unwrap_err();
        assert!(matches!(error, GitError::MissingCommit { commit } if commit == missing));

        let (url, shallow) = (format!("file://{}", scratch.root.display()), scratch.beside("shallow"));
        scratch.git(&["clone", "--quiet", "--depth=1", &url, shallow.to_str().unwrap()]);
        let repository = Repository::discover_isolated(&shallow).unwrap();
        let second = repository.head().unwrap().commit.unwrap();
        assert_eq!(repository.commit(&second).unwrap().parents, [first]);
        let error = repository.commit(&first).unwrap_err();
        assert!(matches!(error, GitError::ShallowHistory { commit } if commit == first));
    }

    #[test]
    fn tips_are_head_and_all_names_of_commits() {
        let scratch = Scratch::new();
        let repository = scratch.repository();
        assert_eq!(repository.tips().unwrap(), []);
        let first = scratch.commit("first");
        scratch.git(&["tag", "--annotate", "--message=x", "v1.0"]);
        scratch.git(&["tag", "both"]);
        scratch.git(&["tag", "tree", "HEAD^{tree}"]);
        let second = scratch.commit("second");
        scratch.git(&["branch", "both"]);
        scratch.git(&["update-ref", "refs/remotes/origin/main", "HEAD"]);
        scratch.git(&["symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main"]);
        scratch.git(&["pack-refs", "--all"]);
        scratch.git(&["branch", "loose"]);
        let expected = [
            ("HEAD", second),
            ("both", first),
            ("loose", second),
            ("main", second),
            ("origin/main", second),
            ("v1.0", first),
        ];
        assert_eq!(repository.tips().unwrap(), expected.map(|(name, commit)| (name.to_owned(), commit)));
    }
}
