//! Finding lost objects again: in files of the working tree, in what a snapshot of it is made of, and in commits.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::disk::{self, Found};
use crate::git::CommitId;
use crate::hash::Digest;
use crate::object::Kind;
use crate::snapshot::{Site, capture_commit, capture_working};
use crate::store::{LocalStore, Source, Store, WantedStore};

use super::{DamageError, Hit, Subject, Subjects};

/// What is looked for, with its length in bytes where that is known.
pub(super) type Wanted = BTreeMap<(Kind, Digest), Option<u64>>;

/// An object that was lost and is found again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mended {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub digest: Digest,
    /// Where it was found.
    pub origin: Origin,
}

/// Where a lost object was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// In this file, whose bytes still hash to its name.
    File(PathBuf),
    /// It was made again from the working tree.
    WorkingTree,
    /// It was made again from this commit.
    Commit(String),
    /// A remote had it.
    Remote,
}

/// Puts what is wanted into the store again, as far as its bytes are found. Call the store's `sync` before relying on it.
pub(super) fn mend(subjects: Subjects<'_>, wanted: &Wanted, hits: &[Hit]) -> Result<Vec<Mended>, DamageError> {
    let mut mended = from_files(subjects.store, wanted, subjects.directories)?;
    let mut left: BTreeSet<_> = wanted.keys().copied().collect();
    left.retain(|(kind, digest)| !mended.iter().any(|found| (found.kind, found.digest) == (*kind, *digest)));
    for source in sources(subjects.site, hits) {
        if left.is_empty() {
            break;
        }
        let store = WantedStore::over(subjects.store, &left);
        // What cannot be captured any more has nothing to offer; the next source may have.
        let _ = match &source {
            (site, Some(commit)) => capture_commit(*site, commit, &store, &|_, _| true),
            (site, None) => capture_working(*site, &store, &|_, _| true),
        };
        let found = store.into_found();
        left.retain(|name| !found.contains(name));
        let origin = source.1.map_or(Origin::WorkingTree, |commit| Origin::Commit(commit.to_string()));
        mended.extend(found.into_iter().map(|(kind, digest)| Mended { kind, digest, origin: origin.clone() }));
    }
    if let (Some(ask), false) = (subjects.elsewhere, left.is_empty()) {
        let found = ask(&left).into_iter();
        mended.extend(found.map(|(kind, digest)| Mended { kind, digest, origin: Origin::Remote }));
    }
    Ok(mended)
}

/// Looks at every file of the directories: first its size must fit, then its hash.
fn from_files(store: &LocalStore, wanted: &Wanted, directories: &[PathBuf]) -> Result<Vec<Mended>, DamageError> {
    let mut sizes: BTreeMap<u64, BTreeSet<Digest>> = BTreeMap::new();
    for ((kind, digest), size) in wanted {
        if let (Kind::Blob, Some(size)) = (kind, size) {
            sizes.entry(*size).or_default().insert(*digest);
        }
    }
    let mut mended = Vec::new();
    for directory in directories {
        // What cannot be looked at is no source.
        for (path, found) in disk::walk(directory).flatten() {
            let Found::File { size, .. } = found else { continue };
            let Some(names) = sizes.get_mut(&size).filter(|_| !is_git(directory, &path)) else { continue };
            let Ok((digest, _)) = Digest::of_file(&path) else { continue };
            // In full, whatever was lost of it: that brings all its pieces back.
            if names.contains(&digest) && store.put(Kind::Blob, Source::File(&path))?.digest == digest {
                names.remove(&digest);
                mended.push(Mended { kind: Kind::Blob, digest, origin: Origin::File(path) });
            }
            if names.is_empty() {
                sizes.remove(&size);
            }
        }
    }
    Ok(mended)
}

/// Returns whether a file is Git's or the store's own.
fn is_git(directory: &Path, path: &Path) -> bool {
    path.strip_prefix(directory).is_ok_and(|inside| inside.iter().any(|name| name == ".git"))
}

/// Returns what may make lost objects again: the working tree, and the commits of the snapshots that are hit.
fn sources<'a>(site: Site<'a>, hits: &'a [Hit]) -> Vec<(Site<'a>, Option<CommitId>)> {
    let mut sources = vec![(site, None)];
    for hit in hits {
        if let Subject::Snapshot { commit: Some(commit), pipeline, .. } = &hit.subject
            && let Ok(commit) = commit.parse()
        {
            sources.push((Site { pipeline, ..site }, Some(commit)));
        }
    }
    sources
}
