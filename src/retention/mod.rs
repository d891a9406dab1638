//! What must be kept: what versions, commits, recent work and data pointers lead to.
//!
//! Deciding which records count is pure; following them through the store is
//! not. What is missing at the top is none of this store's concern: records
//! travel, and objects stay where they are made. What is missing or damaged
//! further down is an error, because then nobody knows what else is needed.

mod decide;
mod mark;

use std::collections::BTreeSet;
use std::path::Path;

use crate::disk::{self, DiskError};
use crate::environment::PinsError;
use crate::git::{GitError, Repository};
use crate::host::Time;
use crate::object::{BlobId, DataRoot, DecodeError, Entry, Kind, SnapshotId};
use crate::record::{Journal, META_REF, RecordError};
use crate::snapshot::{POINTERS, SnapshotError, pointers_in};
use crate::store::StoreError;

pub use decide::{Facts, around, keep};
pub use mark::{Lost, mark, name, reachable};

/// One who uses a store: a repository with its records.
#[derive(Clone, Copy)]
pub struct User<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// What is known in it.
    pub journal: &'a Journal,
    /// The directory that remembers which snapshot a commit has.
    pub memory: &'a Path,
}

/// Where everything that must be kept begins.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Roots {
    /// Snapshots.
    pub snapshots: BTreeSet<SnapshotId>,
    /// Outputs of steps.
    pub outputs: Vec<Entry>,
    /// What steps printed.
    pub logs: BTreeSet<BlobId>,
    /// What data pointers say.
    pub data: Vec<DataRoot>,
}

/// Why it is not known what must be kept.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    /// A data pointer is not what `pv` writes.
    #[error("data pointer in `{place}` cannot be understood")]
    Pointer {
        /// The file, or git's name for it.
        place: String,
    },
    /// The pin of an image is not what `pv` writes, or cannot be read.
    #[error("it is not known which images are to be kept")]
    Pins(#[from] PinsError),
    /// An object that hashes right has bytes that make no sense.
    #[error("{kind} cannot be understood")]
    NotUnderstood {
        /// What it should be.
        kind: Kind,
        /// What is wrong with it.
        #[source]
        source: DecodeError,
    },
    /// Another user of the store cannot be asked.
    #[error("user `{}` of the store cannot be read", path.display())]
    User {
        /// Its common git directory.
        path: std::path::PathBuf,
        /// Why not.
        #[source]
        source: Box<RetentionError>,
    },
    /// A snapshot could not be looked into.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Records could not be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Git failed.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file could not be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Returns where everything begins that `user` must keep, if what is older than `since` and named by nothing may go.
///
/// Costs a read of all records, and a look at every distinct tree of the repository's history.
///
/// # Errors
///
/// [`RetentionError`] if anything of it cannot be read.
pub fn roots(user: User<'_>, since: Time) -> Result<Roots, RetentionError> {
    let facts = facts(user)?;
    let mut commits: BTreeSet<String> = facts.commits().map(str::to_owned).collect();
    let mut failed = Ok(());
    commits.retain(|commit| {
        user.repository.has_commit(commit).unwrap_or_else(|error| {
            failed = Err(error);
            true
        })
    });
    failed?;
    let mut roots = keep(&facts, since, &|commit| commits.contains(commit));
    let (outer, inner) = POINTERS.split_once('/').expect("a directory in a directory");
    let but_not = META_REF.rsplit_once('/').map_or(META_REF, |(above, _)| above);
    for (place, bytes) in user.repository.files_everywhere((outer, inner), but_not)? {
        let data = pointers_in(&bytes).map_err(|_| RetentionError::Pointer { place })?;
        roots.data.extend(data);
    }
    Ok(roots)
}

/// Returns everything that is known in the repository of `user`. Costs a read of all records.
///
/// # Errors
///
/// [`RetentionError`] if something of it cannot be read.
pub fn facts(user: User<'_>) -> Result<Facts, RetentionError> {
    Ok(Facts {
        links: user.journal.links()?.into_iter().map(|(_, link)| link).collect(),
        versions: user.journal.versions()?.into_iter().map(|(_, version)| version).collect(),
        runs: user.journal.runs()?.map(|run| run.map(|(_, run)| run)).collect::<Result<_, _>>()?,
        results: user.journal.all_results()?.into_iter().map(|(_, result)| result).collect(),
        remembered: remembered(user.memory)?,
    })
}

/// Returns each commit whose snapshot is remembered, and that snapshot.
fn remembered(memory: &Path) -> Result<Vec<(String, SnapshotId)>, DiskError> {
    let mut remembered = Vec::new();
    if disk::look(memory)?.is_some() {
        for entry in disk::walk(memory) {
            let (path, found) = entry?;
            let bytes = if let disk::Found::File { .. } = found { disk::read_if_there(&path)? } else { None };
            let snapshot = bytes.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.trim().parse().ok());
            let commit = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
            // What is half written is taken from the commit again.
            remembered.extend(commit.zip(snapshot));
        }
    }
    Ok(remembered)
}

impl Roots {
    /// Adds what another needs.
    pub fn add(&mut self, other: Self) {
        self.snapshots.extend(other.snapshots);
        self.outputs.extend(other.outputs);
        self.logs.extend(other.logs);
        self.data.extend(other.data);
    }
}
