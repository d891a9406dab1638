//! What damage of the store means: what can be mended, and which snapshots are hit by the rest.
//!
//! The store and the set of records tell which of their files are not what was written. Here is known
//! what needs the objects in them (snapshots, outputs, logs) and what may still
//! have their bytes: files of the working tree, and commits.

mod hits;
mod mend;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::hash::Digest;
use crate::object::Kind;
use crate::record::{CheckedRecords, Journal, RecordError};
use crate::snapshot::{Site, SnapshotError};
use crate::store::{Checked, Live, LocalStore, StoreError};

pub use hits::{Hit, Subject};
pub use mend::{Mended, Origin};

/// Why damage could not be looked into.
#[derive(Debug, thiserror::Error)]
pub enum DamageError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The records cannot be read, so what needs an object is not known.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A snapshot cannot be looked through.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// Where damage is looked for, and what it may be mended from.
#[derive(Clone, Copy)]
pub struct Subjects<'a> {
    /// The store that is checked.
    pub store: &'a LocalStore,
    /// What tells which snapshots, runs and results there are.
    pub journal: &'a Journal,
    /// The pipeline whose working tree and commits may have what is lost.
    pub site: Site<'a>,
    /// Directories in which files are looked at.
    pub directories: &'a [PathBuf],
    /// Asked last for what is lost; puts what it has into the store, and returns that.
    pub elsewhere: Option<&'a dyn Fn(&Live) -> Live>,
}

/// What was found and what was done about it.
#[derive(Debug)]
pub struct Report {
    /// What the check of the records found.
    pub records: CheckedRecords,
    /// What the check of the store found.
    pub checked: Checked,
    /// What was lost and is found again.
    pub mended: Vec<Mended>,
    /// What is on record and not whole any more, the newest first.
    pub hits: Vec<Hit>,
}

impl Report {
    /// Returns what is lost for good and nothing on record needs.
    pub fn needless(&self) -> BTreeMap<(Kind, Digest), u64> {
        let needed: BTreeSet<_> =
            self.hits.iter().flat_map(|hit| &hit.gaps).map(|gap| (gap.kind, gap.digest)).collect();
        self.checked.lost.iter().filter(|(name, _)| !needed.contains(name)).map(|(name, size)| (*name, *size)).collect()
    }
}

/// Checks the records and the store, mends what can be mended, and tells what is hit by the rest. Changes nothing if it `is_dry`.
///
/// In a store that cannot be written nothing can be mended, not even on trial.
///
/// `progress` is told of objects and bytes; once it returns `false`, no further part of the store is begun.
///
/// Costs a read of what is checked, a read of every distinct directory on record, and a lookup of every file in
/// them; where something is lost also a look at every file of the directories, and in the worst case a hash of each.
///
/// # Errors
///
/// [`DamageError`] if the store cannot be listed or written, or a record cannot be read.
pub fn examine(
    subjects: Subjects<'_>,
    is_dry: bool,
    progress: &(dyn Fn(u64, u64) -> bool + Sync),
) -> Result<Report, DamageError> {
    let Subjects { store, journal, site, .. } = subjects;
    // First: the records tell what is needed.
    let records = journal.check(site.repository, is_dry)?;
    let journal = &journal.as_if_repaired(&records);
    let mut checked = store.check(progress)?;
    let mut mended: Vec<Mended> = Vec::new();
    let mut tried = BTreeSet::new();
    let hits = loop {
        let hits = hits::hits(journal, store, &checked.lost)?;
        let mut wanted = wanted(&checked, &hits);
        wanted.retain(|name, _| !tried.contains(name));
        let found =
            if wanted.is_empty() || !store.is_writable()? { Vec::new() } else { mend::mend(subjects, &wanted, &hits)? };
        if found.is_empty() {
            break hits;
        }
        // A directory that is there again may lead to more that is missing.
        tried.extend(found.iter().map(|found| (found.kind, found.digest)));
        mended.extend(found);
        store.find_whole(&mut checked);
    };
    mended.retain(|mended| !checked.lost.contains_key(&(mended.kind, mended.digest)));
    if !is_dry {
        store.settle(&mut checked)?;
    }
    Ok(Report { records, checked, mended, hits })
}

/// Returns what is to be looked for, with the length that whoever needs it says it has.
fn wanted(checked: &Checked, hits: &[Hit]) -> mend::Wanted {
    let mut wanted: mend::Wanted = checked.lost.iter().map(|(name, size)| (*name, Some(*size))).collect();
    for gap in hits.iter().flat_map(|hit| &hit.gaps) {
        let size = wanted.entry((gap.kind, gap.digest)).or_insert(gap.size);
        *size = gap.size.or(*size);
    }
    wanted
}
