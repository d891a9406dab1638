//! Checking every record, and having those that are damaged back from where the same record is whole.
//!
//! A record is here as a file of its own, and again in a bundle on [`META_REF`] or in `pending/`. Damaged
//! files are moved to `quarantine/`, never deleted; then an exchange that believes to know nothing makes
//! this set and that on the ref the union of both, which brings back what is whole on either side.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use super::error::RecordError;
use super::exchange::{META_REF, bundles, lines};
use super::fact::Record;
use super::journal::Journal;
use super::place::{KINDS, list, place};
use crate::disk::{self, Change, Flush, Found};
use crate::git::Repository;
use crate::object::RecordId;

/// What a check of the records found.
#[derive(Debug, Default)]
pub struct CheckedRecords {
    /// How many files were checked.
    pub count: u64,
    /// Files that are not the record that their name says.
    pub damaged: Vec<DamagedRecord>,
    /// How many records were on the ref alone: their files were gone.
    pub returned: u64,
    /// Damaged files of earlier checks whose record is still nowhere whole.
    pub lost_before: Vec<LostRecord>,
    /// Why the ref could not be asked.
    pub unreadable: Option<RecordError>,
}

/// A file that is not the record that its name says.
#[derive(Debug)]
pub struct DamagedRecord {
    /// Where it lies, from the directory that holds the records.
    pub path: PathBuf,
    /// What it was: `link`, `version`, `run` or `step`.
    pub kind: &'static str,
    /// What is wrong with it.
    pub flaw: RecordFlaw,
    /// Where the same record is whole; `None` if it is lost, or never was one.
    pub copy: Option<RecordCopy>,
    /// Where the damaged file is now, from the directory that holds the records.
    pub quarantined: Option<PathBuf>,
    /// The bytes of the whole record.
    whole: Option<Vec<u8>>,
}

/// A record of which only a damaged file is left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LostRecord {
    /// What it was.
    pub kind: &'static str,
    /// Where the damaged file is, from the directory that holds the records.
    pub path: PathBuf,
}

/// What can be wrong with the file of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordFlaw {
    /// There is nothing in it.
    Empty,
    /// Its bytes are not those of the record.
    Content,
    /// The system does not give its bytes out.
    Unreadable,
    /// Its name is not that of a record, so nothing is lost with it.
    NoRecord,
}

impl fmt::Display for RecordFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "it is empty",
            Self::Content => "its bytes do not match its name",
            Self::Unreadable => "it cannot be read",
            Self::NoRecord => "it is no record",
        })
    }
}

/// Where a record is whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordCopy {
    /// On [`META_REF`].
    Ref,
    /// Among what is to be put there.
    Pending,
}

impl DamagedRecord {
    /// Returns whether this was a record that is nowhere whole.
    pub fn is_lost(&self) -> bool {
        self.copy.is_none() && self.flaw != RecordFlaw::NoRecord
    }
}

impl CheckedRecords {
    /// Returns whether the records are as they were written, and all of them.
    pub fn is_good(&self) -> bool {
        self.damaged.is_empty() && self.returned == 0
    }
}

/// The records that are whole outside of files of their own.
type Copies = BTreeMap<RecordId, (RecordCopy, Vec<u8>)>;

impl Journal {
    /// Checks every record, and repairs them unless it `is_dry`: moves damaged files away, and has records back.
    ///
    /// Costs a read of each record, here and on the ref.
    ///
    /// # Errors
    ///
    /// [`RecordError`] if the records cannot be listed, or nothing can be moved or written. What is damaged then stays
    /// where it is, or is gone from there and comes back with the next check.
    pub fn check(&self, repository: &Repository, is_dry: bool) -> Result<CheckedRecords, RecordError> {
        let mut checked = CheckedRecords::default();
        let copies = match self.copies(repository) {
            Ok(copies) => copies,
            Err(error) => {
                checked.unreadable = Some(error);
                self.pending_copies()?
            }
        };
        let mut whole = BTreeSet::new();
        for kind in KINDS {
            for path in self.files(kind)? {
                checked.count += 1;
                match judge(&path) {
                    Ok(id) => drop(whole.insert(id)),
                    Err((flaw, id)) => {
                        let (copy, bytes) = id.and_then(|id| copies.get(&id)).cloned().unzip();
                        let path = self.relative(&path);
                        checked.damaged.push(DamagedRecord { path, kind, flaw, copy, quarantined: None, whole: bytes });
                    }
                }
            }
        }
        for (id, (_, bytes)) in &copies {
            if let Ok(Some(record)) = Record::decode(bytes)
                && disk::look(&self.directory.join(place(&record, *id)))?.is_none()
            {
                checked.returned += 1;
            }
        }
        checked.lost_before = self.lost_before(&whole, &copies)?;
        let is_here_alone = whole.iter().any(|id| !copies.contains_key(id));
        let needs_repair = !checked.is_good() || is_here_alone;
        if needs_repair && !is_dry {
            self.repair(repository, &mut checked)?;
        }
        Ok(checked)
    }

    /// Returns a journal that tells what this one would after the repair of what was found.
    pub fn as_if_repaired(&self, checked: &CheckedRecords) -> Self {
        let instead = checked.damaged.iter().map(|damaged| (self.above().join(&damaged.path), damaged.whole.clone()));
        Self { instead: instead.collect::<BTreeMap<_, _>>().into(), ..self.clone() }
    }

    fn repair(&self, repository: &Repository, checked: &mut CheckedRecords) -> Result<(), RecordError> {
        // First, so that a stop after this lets the next exchange bring back what is moved away now.
        let known_tip = self.known_tip_file();
        if disk::look(&known_tip)?.is_some() {
            self.disk.change(Change::Remove(&known_tip))?;
            self.disk.flush(Flush::Directory(&self.directory))?;
        }
        for damaged in &mut checked.damaged {
            damaged.quarantined = self.move_aside(&self.above().join(&damaged.path), damaged.kind)?;
        }
        match self.exchange(repository) {
            Err(error @ RecordError::Git(_)) => {
                // What is only pending is here all the same.
                checked.unreadable = Some(error);
                let pending: Vec<_> = self.pending_copies()?.into_values().map(|(_, bytes)| bytes).collect();
                self.write_missing(&pending).map(drop)
            }
            exchanged => exchanged.map(drop),
        }
    }

    /// Moves a damaged file to the quarantine. Returns where it is now; `None` if it went meanwhile.
    fn move_aside(&self, path: &Path, kind: &str) -> Result<Option<PathBuf>, RecordError> {
        let quarantine = self.quarantine();
        disk::make_directories(&*self.disk, &quarantine)?;
        self.disk.flush(Flush::Directory(&self.directory))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut number = 1;
        let to = loop {
            let to = quarantine.join(format!("{kind}-{name}-{number}"));
            if disk::look(&to)?.is_none() {
                break to;
            }
            number += 1;
        };
        match self.disk.change(Change::Rename { from: path, to: &to }) {
            Err(error) if error.is_missing() => return Ok(None),
            moved => moved?,
        }
        for directory in [&*quarantine, disk::parent(path)] {
            self.disk.flush(Flush::Directory(directory))?;
        }
        Ok(Some(self.relative(&to)))
    }

    /// Returns the records in the quarantine that are nowhere whole.
    fn lost_before(&self, whole: &BTreeSet<RecordId>, copies: &Copies) -> Result<Vec<LostRecord>, RecordError> {
        let mut lost = Vec::new();
        for name in list(&self.quarantine())? {
            let Some(kind) = KINDS.into_iter().find(|kind| name.starts_with(kind)) else { continue };
            let id = name.rsplit_once('-').and_then(|(name, _)| id_of(name));
            if id.is_some_and(|id| !whole.contains(&id) && !copies.contains_key(&id)) {
                lost.push(LostRecord { kind, path: self.relative(&self.quarantine().join(name)) });
            }
        }
        Ok(lost)
    }

    /// Returns the records that are on the ref or to be put there.
    fn copies(&self, repository: &Repository) -> Result<Copies, RecordError> {
        let mut copies = self.pending_copies()?;
        if let Some(tip) = repository.set_tip(META_REF)? {
            let on_ref = bundles(repository, &tip, None)?;
            copies.extend(lines(&on_ref).filter_map(|line| copy(line, RecordCopy::Ref)));
        }
        Ok(copies)
    }

    fn pending_copies(&self) -> Result<Copies, RecordError> {
        let pending = self.pending_bundles()?;
        Ok(lines(&pending).filter_map(|line| copy(line, RecordCopy::Pending)).collect())
    }

    /// Returns the files of one kind of record, sorted.
    fn files(&self, kind: &str) -> Result<Vec<PathBuf>, RecordError> {
        let directory = self.directory.join(kind);
        if disk::look(&directory)?.is_none() {
            return Ok(Vec::new());
        }
        let mut files = Vec::new();
        for entry in disk::walk(&directory) {
            let (path, found) = entry?;
            let is_temporary = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if matches!(found, Found::File { .. }) && !is_temporary {
                files.push(path);
            }
        }
        Ok(files)
    }

    /// Returns the directory that holds the records: paths are told from there.
    fn above(&self) -> &Path {
        disk::parent(&self.directory)
    }

    fn relative(&self, path: &Path) -> PathBuf {
        path.strip_prefix(self.above()).unwrap_or(path).to_owned()
    }

    fn quarantine(&self) -> PathBuf {
        self.directory.join("quarantine")
    }
}

/// Returns the id of a file that is the record that its name says.
///
/// # Errors
///
/// What is wrong with it, and the id that it should have.
fn judge(path: &Path) -> Result<RecordId, (RecordFlaw, Option<RecordId>)> {
    let Some(id) = path.file_name().and_then(|name| id_of(name.to_str()?)) else {
        return Err((RecordFlaw::NoRecord, None));
    };
    let flaw = match disk::read_if_there(path) {
        Ok(Some(bytes)) if RecordId::of(&bytes) == id => return Ok(id),
        Ok(Some(bytes)) if bytes.is_empty() => RecordFlaw::Empty,
        Ok(Some(_)) => RecordFlaw::Content,
        // Nobody removes a record while it is checked, so a file that is not there was not listed either.
        Ok(None) | Err(_) => RecordFlaw::Unreadable,
    };
    Err((flaw, Some(id)))
}

fn id_of(name: &str) -> Option<RecordId> {
    name.rsplit_once('-')?.1.parse().ok()
}

fn copy(line: &[u8], from: RecordCopy) -> Option<(RecordId, (RecordCopy, Vec<u8>))> {
    Record::decode(line).ok()?.map(|_| (RecordId::of(line), (from, line.to_vec())))
}
