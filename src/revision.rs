//! What a revision argument means: a version, a Git revision, a snapshot, a run.
//!
//! Looked up in this order; the first kind that knows the text decides.
//! Whatever it names ends as a snapshot whose objects are in the store: what a
//! clone does not have yet is taken from the commit that determines it.

use std::path::Path;

use crate::disk::{self, DiskError, Durability};
use crate::git::{CommitId, GitError};
use crate::object::{Kind, RecordId, SnapshotId};
use crate::record::{Journal, RecordError, Run};
use crate::snapshot::{Site, SnapshotError, capture_commit};
use crate::store::{DryStore, Store, StoreError};

/// Fewer hex digits than this name nothing.
const PREFIX_MIN: usize = 4;
/// How many branches and tags are tried for a snapshot that only a commit can give.
const TIPS_TRIED: usize = 200;

/// Where names are looked up.
#[derive(Clone, Copy)]
pub struct Names<'a> {
    /// The repository and the pipeline.
    pub site: Site<'a>,
    /// What is known.
    pub journal: &'a Journal,
    /// Where objects are.
    pub store: &'a dyn Store,
    /// A directory that remembers which snapshot a commit has; it may be deleted at any time.
    pub memory: &'a Path,
}

/// What a revision argument names.
#[derive(Clone, PartialEq, Debug)]
pub struct Named {
    /// What was given.
    pub text: String,
    /// The snapshot; its own object is in the store.
    pub snapshot: SnapshotId,
    /// The version's name, if it was named so or has a name.
    pub version: Option<String>,
    /// The commit, if it was named so or is on record.
    pub commit: Option<String>,
    /// Whether the snapshot differs from the commit.
    pub dirty: bool,
    /// The run, if a run was named.
    pub run: Option<(RecordId, Box<Run>)>,
}

/// Why a text names nothing, or too much.
#[derive(Debug, thiserror::Error)]
pub enum RevisionError {
    /// Nothing is called so.
    #[error("nothing is called `{text}`")]
    Unknown {
        /// What was given.
        text: String,
        /// Names of versions that look alike.
        similar: Vec<String>,
    },
    /// Several things are called so.
    #[error("`{text}` names several things: {}", candidates.join(", "))]
    Ambiguous {
        /// What was given.
        text: String,
        /// What it could be, each as kind and id.
        candidates: Vec<String>,
    },
    /// The snapshot is known by name only.
    #[error("snapshot {} of `{text}` is not in the store, and no commit determines it", snapshot.short())]
    NotHere {
        /// What was given.
        text: String,
        /// The snapshot.
        snapshot: SnapshotId,
    },
    /// The commit that should determine the snapshot gives another one.
    #[error("commit {commit} gives snapshot {}, but the record says {}", found.short(), recorded.short())]
    Mismatch {
        /// The commit.
        commit: String,
        /// What the record says.
        recorded: SnapshotId,
        /// What the commit gives.
        found: SnapshotId,
    },
    /// The snapshot of a commit could not be taken.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Git failed.
    #[error(transparent)]
    Git(#[from] GitError),
    /// Records could not be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file could not be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Returns what `text` names.
///
/// Costs one capture of a commit's files where the store does not have its snapshot yet.
///
/// # Errors
///
/// [`RevisionError`]: unknown, ambiguous, or not to be had here.
pub fn resolve(names: &Names<'_>, text: &str) -> Result<Named, RevisionError> {
    if let Some(named) = version(names, text)? {
        return Ok(named);
    }
    let by_git = names.site.repository.resolve(text);
    // Digits that begin a file or directory of Git's may still begin a snapshot or run.
    let (commit, not_a_commit) = match by_git {
        Ok(commit) => (commit, None),
        Err(error @ GitError::NotACommit { .. }) if is_prefix(text) => (None, Some(error)),
        Err(GitError::Ambiguous { revision, candidates }) => return Err(ambiguous_commits(revision, &candidates)),
        Err(error) => return Err(error.into()),
    };
    if let Some(commit) = commit {
        let snapshot = snapshot_of_commit(names, &commit)?;
        let version = version_of(names, snapshot)?;
        return Ok(Named {
            text: text.to_owned(),
            snapshot,
            version,
            commit: Some(commit.to_string()),
            dirty: false,
            run: None,
        });
    }
    if is_prefix(text) {
        if let Some(named) = snapshot_prefix(names, text)? {
            return Ok(named);
        }
        if let Some(named) = run_prefix(names, text)? {
            return Ok(named);
        }
        if let Some(named) = tips(names, text)? {
            return Ok(named);
        }
    }
    if let Some(error) = not_a_commit {
        return Err(error.into());
    }
    let similar = names.journal.versions()?.into_iter().map(|(_, version)| version.name);
    // A slip changes a letter or two of many, not all of them.
    let allowed = (text.chars().count() / 3).clamp(1, 2);
    let is_slip = |name: &String| {
        let distance = strsim::damerau_levenshtein(name, text);
        distance <= allowed && distance < name.chars().count()
    };
    let similar = similar.filter(is_slip).take(3).collect();
    Err(RevisionError::Unknown { text: text.to_owned(), similar })
}

fn ambiguous_commits(text: String, candidates: &[(CommitId, String)]) -> RevisionError {
    let candidates = candidates.iter().map(|(commit, subject)| format!("commit {} ({subject})", commit.short()));
    RevisionError::Ambiguous { text, candidates: candidates.collect() }
}

/// Returns the snapshot that a commit determines, and sees to it that the store has it.
///
/// # Errors
///
/// [`RevisionError`] if the commit has no good pipeline or cannot be read.
pub fn snapshot_of_commit(names: &Names<'_>, commit: &CommitId) -> Result<SnapshotId, RevisionError> {
    let memory = names.memory.join(names.site.pipeline).join(commit.to_string());
    let known = disk::read_if_there(&memory)?.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.trim().parse().ok());
    if let Some(known) = known
        && has(names.store, known)?
    {
        return Ok(known);
    }
    let captured = capture_commit(names.site, commit, names.store, &|_, _| true)?;
    names.store.sync()?;
    disk::write_whole(&memory, format!("{}\n", captured.id).as_bytes(), Durability::Deferred)?;
    Ok(captured.id)
}

/// Returns the newest name that was given to a snapshot.
///
/// # Errors
///
/// [`RevisionError::Record`] if records cannot be read.
pub fn version_of(names: &Names<'_>, snapshot: SnapshotId) -> Result<Option<String>, RevisionError> {
    Ok(names.journal.versions()?.into_iter().find(|(_, v)| v.snapshot == snapshot).map(|(_, v)| v.name))
}

fn version(names: &Names<'_>, text: &str) -> Result<Option<Named>, RevisionError> {
    let given: Vec<_> = names
        .journal
        .versions()?
        .into_iter()
        .map(|(_, version)| version)
        .filter(|version| version.name == text && version.pipeline == names.site.pipeline)
        .collect();
    let mut snapshots: Vec<_> = given.iter().map(|version| version.snapshot).collect();
    snapshots.sort_unstable();
    snapshots.dedup();
    if snapshots.len() > 1 {
        let candidates = given
            .iter()
            .map(|v| format!("snapshot {} (named by {} on {})", v.snapshot.short(), v.by.who, v.time))
            .collect();
        return Err(RevisionError::Ambiguous { text: text.to_owned(), candidates });
    }
    let Some(version) = given.into_iter().next() else { return Ok(None) };
    ensure(names, text, version.snapshot, version.commit.as_deref().filter(|_| !version.dirty))?;
    Ok(Some(Named {
        text: text.to_owned(),
        snapshot: version.snapshot,
        version: Some(version.name),
        commit: version.commit,
        dirty: version.dirty,
        run: None,
    }))
}

fn snapshot_prefix(names: &Names<'_>, text: &str) -> Result<Option<Named>, RevisionError> {
    let mut found: Vec<SnapshotId> =
        names.store.find(Kind::Snapshot, text)?.into_iter().map(SnapshotId::from).collect();
    let links = names.journal.links()?;
    found.extend(links.iter().map(|(_, link)| link.snapshot).filter(|id| id.to_string().starts_with(text)));
    found.sort_unstable();
    found.dedup();
    if found.len() > 1 {
        let candidates = found.iter().map(|id| format!("snapshot {}", id.short())).collect();
        return Err(RevisionError::Ambiguous { text: text.to_owned(), candidates });
    }
    let Some(snapshot) = found.pop() else { return Ok(None) };
    // The cleanest link tells most about where the snapshot comes from.
    let link = links.into_iter().map(|(_, link)| link).filter(|l| l.snapshot == snapshot).min_by_key(|l| l.dirty);
    let (commit, dirty) = link.map_or((None, false), |link| (link.commit, link.dirty));
    ensure(names, text, snapshot, commit.as_deref().filter(|_| !dirty))?;
    let version = version_of(names, snapshot)?;
    Ok(Some(Named { text: text.to_owned(), snapshot, version, commit, dirty, run: None }))
}

fn run_prefix(names: &Names<'_>, text: &str) -> Result<Option<Named>, RevisionError> {
    let found = names.journal.find_runs(text)?;
    if found.len() > 1 {
        let candidates = found.iter().map(|id| format!("run {}", id.short())).collect();
        return Err(RevisionError::Ambiguous { text: text.to_owned(), candidates });
    }
    let Some(id) = found.first() else { return Ok(None) };
    let Some(run) = names.journal.run(*id)? else { return Ok(None) };
    ensure(names, text, run.snapshot, run.commit.as_deref().filter(|_| !run.dirty))?;
    Ok(Some(Named {
        text: text.to_owned(),
        snapshot: run.snapshot,
        version: version_of(names, run.snapshot)?,
        commit: run.commit.clone(),
        dirty: run.dirty,
        run: Some((*id, Box::new(run))),
    }))
}

/// In a fresh clone neither store nor records know the snapshot, but one of the commits at hand may determine it.
fn tips(names: &Names<'_>, text: &str) -> Result<Option<Named>, RevisionError> {
    let dry = DryStore::over(names.store);
    for (_, commit) in names.site.repository.tips()?.into_iter().take(TIPS_TRIED) {
        let Ok(captured) = capture_commit(names.site, &commit, &dry, &|_, _| true) else { continue };
        if captured.id.to_string().starts_with(text) {
            let snapshot = snapshot_of_commit(names, &commit)?;
            let version = version_of(names, snapshot)?;
            let commit = Some(commit.to_string());
            return Ok(Some(Named { text: text.to_owned(), snapshot, version, commit, dirty: false, run: None }));
        }
    }
    Ok(None)
}

/// Sees to it that the store has the snapshot, from the commit that determines it if need be.
fn ensure(names: &Names<'_>, text: &str, snapshot: SnapshotId, commit: Option<&str>) -> Result<(), RevisionError> {
    if has(names.store, snapshot)? {
        return Ok(());
    }
    let commit = match commit {
        Some(commit) => names.site.repository.resolve(commit)?,
        None => None,
    };
    let Some(commit) = commit else { return Err(RevisionError::NotHere { text: text.to_owned(), snapshot }) };
    let found = snapshot_of_commit(names, &commit)?;
    if found != snapshot {
        return Err(RevisionError::Mismatch { commit: commit.short(), recorded: snapshot, found });
    }
    Ok(())
}

fn has(store: &dyn Store, snapshot: SnapshotId) -> Result<bool, StoreError> {
    Ok(store.length(Kind::Snapshot, snapshot.digest())?.is_some())
}

fn is_prefix(text: &str) -> bool {
    (PREFIX_MIN..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}
