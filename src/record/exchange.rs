//! The set of records on a Git ref, and making it and the set of files the union of both.
//!
//! On [`META_REF`] the set travels as bundles: a file of one or more
//! records, one a line, named by the digest of its bytes. What has been added here but
//! is not on the ref yet lies in `pending/`, so a crash between the two loses
//! nothing: the next exchange finishes it. What came from remotes lies on refs of its own (`travel`)
//! and is united with ours here, so a fetch never takes anything away.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::error::RecordError;
use super::fact::Record;
use super::journal::Journal;
use super::place::{KINDS, list, place};
use crate::disk::{self, Change, Durability};
use crate::git::{CommitId, Repository};
use crate::hash::Digest;
use crate::object::RecordId;

/// The ref that carries the records.
pub const META_REF: &str = "refs/pv/meta";

impl Journal {
    /// Makes this set, the one on [`META_REF`] and those that were fetched from remotes the union of all, and returns how
    /// many records were new here.
    ///
    /// Costs a look at those refs when there is nothing to exchange; one read of
    /// everything if the ref was moved to where it does not hold what it held.
    ///
    /// # Errors
    ///
    /// [`RecordError`] if the refs or the files cannot be read or written. What
    /// is not exchanged stays pending. A ref from a remote that cannot be read keeps the others from nothing.
    pub fn exchange(&self, repository: &Repository) -> Result<usize, RecordError> {
        let mut arrived = self.follow_ref(repository)?;
        let (has_moved, united) = self.unite_fetched(repository);
        if has_moved {
            arrived += self.follow_ref(repository)?;
        }
        self.add_pending(repository)?;
        united.map(|()| arrived)
    }

    /// Makes this set hold what is on the ref, and what was lost on the ref pending.
    fn follow_ref(&self, repository: &Repository) -> Result<usize, RecordError> {
        let mut arrived = 0;
        let known = self.known_tip()?;
        let tip = repository.set_tip(META_REF)?;
        if known != tip {
            if let Some(tip) = &tip {
                arrived = self.import(repository, tip, known.as_ref())?;
            }
            self.put_back_lost(repository, tip.as_ref(), known.as_ref())?;
            if let Some(tip) = &tip {
                self.remember_tip(tip)?;
            }
        }
        Ok(arrived)
    }

    /// Adds to the ref what is pending.
    fn add_pending(&self, repository: &Repository) -> Result<(), RecordError> {
        let pending = list(&self.pending())?;
        if pending.is_empty() {
            return Ok(());
        }
        let mut files = Vec::new();
        for name in &pending {
            if let Some(bytes) = disk::read_if_there(&self.pending().join(name))?
                && Digest::of(&bytes).to_string() == *name
            {
                files.push((format!("{}/{}", &name[..2], &name[2..]).into_bytes(), bytes));
            }
        }
        let tip = repository.add_to_set(META_REF, &files, "pv: add records")?;
        self.remember_tip(&tip)?;
        pending.iter().try_for_each(|name| self.disk.change(Change::Remove(&self.pending().join(name))))?;
        Ok(())
    }

    fn import(&self, repository: &Repository, tip: &CommitId, known: Option<&CommitId>) -> Result<usize, RecordError> {
        self.write_missing(&bundles(repository, tip, known)?)
    }

    /// Writes the records in `bundles` that are not here, and returns how many that were.
    pub(super) fn write_missing(&self, bundles: &[Vec<u8>]) -> Result<usize, RecordError> {
        let mut files = BTreeMap::new();
        for line in lines(bundles) {
            if let Ok(Some(record)) = Record::decode(line) {
                let path = self.directory.join(place(&record, RecordId::of(line)));
                if disk::look(&path)?.is_none() {
                    files.insert(path, line);
                }
            }
        }
        let files: Vec<_> = files.into_iter().collect();
        self.write_durably(&files)?;
        Ok(files.len())
    }

    /// Makes pending again what the ref held at `known` and holds no more: a forced fetch moved it, or somebody deleted it.
    fn put_back_lost(
        &self,
        repository: &Repository,
        tip: Option<&CommitId>,
        known: Option<&CommitId>,
    ) -> Result<(), RecordError> {
        let nothing_lost = match (tip, known) {
            (Some(tip), Some(known)) => repository.set_files_since(known, Some(tip)).is_ok_and(|lost| lost.is_empty()),
            _ => false,
        };
        if nothing_lost {
            return Ok(());
        }
        let on_ref = match tip {
            Some(tip) => bundles(repository, tip, None)?,
            None => Vec::new(),
        };
        let mut held: BTreeSet<RecordId> = lines(&on_ref).map(RecordId::of).collect();
        held.extend(lines(&self.pending_bundles()?).map(RecordId::of));
        let mut lost = Vec::new();
        for kind in KINDS {
            for entry in disk::walk(&self.directory.join(kind)) {
                let Ok((path, disk::Found::File { .. })) = entry else { continue };
                let Some(bytes) = disk::read_if_there(&path)? else { continue };
                let id = RecordId::of(&bytes);
                // A temporary file, or a damaged one, which is reported when it is needed.
                let is_record = path.to_string_lossy().ends_with(&id.to_string());
                if is_record && !held.contains(&id) {
                    lost.extend_from_slice(&bytes);
                    lost.push(b'\n');
                }
            }
        }
        if lost.is_empty() {
            return Ok(());
        }
        self.write_durably(&[(self.pending().join(Digest::of(&lost).to_string()), lost.as_slice())])
    }

    pub(super) fn pending_bundles(&self) -> Result<Vec<Vec<u8>>, RecordError> {
        let read = |name: String| Ok(disk::read_if_there(&self.pending().join(name))?.unwrap_or_default());
        list(&self.pending())?.into_iter().map(read).collect()
    }

    pub(super) fn known_tip_file(&self) -> PathBuf {
        self.directory.join("known-tip")
    }

    fn known_tip(&self) -> Result<Option<CommitId>, RecordError> {
        let bytes = disk::read_if_there(&self.known_tip_file())?.unwrap_or_default();
        Ok(std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse().ok()))
    }

    /// The known tip only saves work: losing it costs one import of everything.
    fn remember_tip(&self, tip: &CommitId) -> Result<(), RecordError> {
        let text = format!("{tip}\n");
        Ok(disk::write_whole_on(&*self.disk, &self.known_tip_file(), text.as_bytes(), Durability::Deferred)?)
    }
}

/// Returns the bundles at `tip` that are not at `known`.
///
/// A bundle names itself; anything else on the ref is not ours to believe.
pub(super) fn bundles(
    repository: &Repository,
    tip: &CommitId,
    known: Option<&CommitId>,
) -> Result<Vec<Vec<u8>>, RecordError> {
    let files = repository.set_files_since(tip, known)?.into_iter();
    let named_well = files.filter(|(path, bytes)| {
        let name: Vec<u8> = path.iter().copied().filter(|byte| *byte != b'/').collect();
        Digest::of(bytes).to_string().as_bytes() == name
    });
    Ok(named_well.map(|(_, bytes)| bytes).collect())
}

/// Returns the records in bundles, one a line.
pub(super) fn lines(bundles: &[Vec<u8>]) -> impl Iterator<Item = &[u8]> {
    bundles.iter().flat_map(|bytes| bytes.split(|byte| *byte == b'\n'))
}
