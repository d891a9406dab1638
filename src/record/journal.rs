//! The set of records: durable files, and the same set on a Git ref.
//!
//! A record is one file below `records/`, at a place that its content
//! determines, so that it is found without an index: step results by key,
//! links by commit, versions and runs by time. Adding is the commit point of
//! everything that `pv` acknowledges: the call returns after the files are flushed.
//!
//! On `refs/pv/meta` the set travels as bundles: a file of one or more
//! records, one a line, named by the digest of its bytes. What has been added here but
//! is not on the ref yet lies in `pending/`, so a crash between the two loses
//! nothing: the next exchange finishes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fact::{Link, Record, Run, StepResult, Version};
use crate::disk::{self, Change, Disk, DiskError, Durability, Flush, RealDisk};
use crate::git::{CommitId, GitError, Repository};
use crate::hash::Digest;
use crate::object::{RecordId, StepKey};

/// The ref that carries the records.
pub const META_REF: &str = "refs/pv/meta";

/// The kinds of records, which are also the names of the directories that they lie in.
pub(super) const KINDS: [&str; 4] = ["link", "run", "step", "version"];
/// Up to this many files are flushed one by one; more by one flush of the file system.
const SINGLE_FLUSHES_MAX: usize = 4;
const UNCOMMITTED: &str = "none";

/// Why records could not be read or added.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A record's bytes do not match its name any more.
    #[error("record `{}` is corrupt", path.display())]
    Corrupt {
        /// Where it lies.
        path: PathBuf,
    },
    /// A record's bytes are those that were written, yet they make no sense.
    #[error("record `{}` cannot be understood", path.display())]
    NotUnderstood {
        /// Where it lies.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The ref could not be read or written.
    #[error(transparent)]
    Git(#[from] GitError),
}

/// The set of records of one repository.
#[derive(Debug, Clone)]
pub struct Journal {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) directory: PathBuf,
    /// What is read in place of the files at these paths; `None` if nothing.
    pub(super) instead: Arc<BTreeMap<PathBuf, Option<Vec<u8>>>>,
}

impl Journal {
    /// Returns the journal in `directory`, which need not exist yet.
    pub fn new(directory: PathBuf) -> Self {
        Self::on(Arc::new(RealDisk), directory)
    }

    /// Returns the journal in `directory`, which writes through `disk`.
    pub fn on(disk: Arc<dyn Disk>, directory: PathBuf) -> Self {
        Self { disk, directory, instead: Arc::default() }
    }

    /// Adds `records` and returns their ids. When this returns, they survive a power cut.
    ///
    /// Costs one flush a record, or one flush of the file system for many.
    ///
    /// # Errors
    ///
    /// [`RecordError::Disk`]; what was written of them so far stays, which does no harm.
    pub fn add(&self, records: &[Record]) -> Result<Vec<RecordId>, RecordError> {
        let encoded: Vec<_> = records.iter().map(|record| (record, record.encode())).collect();
        let mut bundle = Vec::new();
        for (_, (_, bytes)) in &encoded {
            bundle.extend_from_slice(bytes);
            bundle.push(b'\n');
        }
        let mut files = vec![(self.pending().join(Digest::of(&bundle).to_string()), bundle.as_slice())];
        for (record, (id, bytes)) in &encoded {
            files.push((self.directory.join(place(record, *id)), bytes));
        }
        self.write_durably(&files)?;
        Ok(encoded.into_iter().map(|(_, (id, _))| id).collect())
    }

    /// Makes this set and the one on [`META_REF`] the union of both.
    ///
    /// Costs one look at the ref when there is nothing to exchange; one read of
    /// everything if the ref was moved to where it does not hold what it held.
    ///
    /// # Errors
    ///
    /// [`RecordError`] if the ref or the files cannot be read or written. What
    /// is not exchanged stays pending.
    pub fn exchange(&self, repository: &Repository) -> Result<(), RecordError> {
        let known = self.known_tip()?;
        let tip = repository.set_tip(META_REF)?;
        if known != tip {
            if let Some(tip) = &tip {
                self.import(repository, tip, known.as_ref())?;
            }
            self.put_back_lost(repository, tip.as_ref(), known.as_ref())?;
            if let Some(tip) = &tip {
                self.remember_tip(tip)?;
            }
        }
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

    /// Returns the links of `commit` (`None`: those made without any commit), oldest first.
    ///
    /// # Errors
    ///
    /// [`RecordError`] if one cannot be read.
    pub fn links_of(&self, commit: Option<&str>) -> Result<Vec<(RecordId, Link)>, RecordError> {
        let subject = commit.unwrap_or(UNCOMMITTED);
        let mut links = self.links_in(&link_shard(subject), &format!("{subject}-"))?;
        links.sort_by(|(a_id, a), (b_id, b)| (a.time, a_id).cmp(&(b.time, b_id)));
        Ok(links)
    }

    /// Returns all links, newest first.
    ///
    /// # Errors
    ///
    /// [`RecordError`] if one cannot be read.
    pub fn links(&self) -> Result<Vec<(RecordId, Link)>, RecordError> {
        let mut links = Vec::new();
        for shard in list(&self.directory.join("link"))? {
            links.extend(self.links_in(&format!("link/{shard}"), "")?);
        }
        links.sort_by(|(a_id, a), (b_id, b)| (b.time, b_id).cmp(&(a.time, a_id)));
        Ok(links)
    }

    /// Returns all names that were given, newest first, those that were replaced left out.
    ///
    /// # Errors
    ///
    /// [`RecordError`] if one cannot be read.
    pub fn versions(&self) -> Result<Vec<(RecordId, Version)>, RecordError> {
        let mut versions = Vec::new();
        for name in list(&self.directory.join("version"))? {
            if let Some((id, Record::Version(version))) = self.read(&format!("version/{name}"))? {
                versions.push((id, version));
            }
        }
        let replaced: BTreeSet<RecordId> =
            versions.iter().flat_map(|(_, version)| version.replaces.iter().copied()).collect();
        versions.retain(|(id, _)| !replaced.contains(id));
        versions.sort_by(|(a_id, a), (b_id, b)| (b.time, b_id).cmp(&(a.time, a_id)));
        Ok(versions)
    }

    /// Returns all runs, newest first; each is read when it is asked for.
    ///
    /// # Errors
    ///
    /// [`RecordError`] if the list, and each item if the run, cannot be read.
    pub fn runs(&self) -> Result<impl Iterator<Item = Result<(RecordId, Run), RecordError>> + '_, RecordError> {
        let mut names = list(&self.directory.join("run"))?;
        names.reverse();
        Ok(names.into_iter().filter_map(|name| match self.read(&format!("run/{name}")) {
            Ok(Some((id, Record::Run(run)))) => Some(Ok((id, run))),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        }))
    }

    /// Returns the ids of the runs that begin with `hex_prefix`, sorted.
    ///
    /// # Errors
    ///
    /// [`RecordError`] if the list cannot be read.
    pub fn find_runs(&self, hex_prefix: &str) -> Result<Vec<RecordId>, RecordError> {
        let mut found: Vec<RecordId> = list(&self.directory.join("run"))?
            .iter()
            .filter_map(|name| name.rsplit_once('-')?.1.parse().ok())
            .filter(|id: &RecordId| id.to_string().starts_with(hex_prefix))
            .collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Returns the run with this id, if there is one.
    ///
    /// # Errors
    ///
    /// [`RecordError`] if it cannot be read.
    pub fn run(&self, id: RecordId) -> Result<Option<Run>, RecordError> {
        let suffix = format!("-{id}");
        for name in list(&self.directory.join("run"))?.into_iter().filter(|name| name.ends_with(&suffix)) {
            if let Some((_, Record::Run(run))) = self.read(&format!("run/{name}"))? {
                return Ok(Some(run));
            }
        }
        Ok(None)
    }

    /// Returns the results known under `key`, oldest first. More than one has different outputs: a contradiction.
    ///
    /// # Errors
    ///
    /// [`RecordError`] if one cannot be read.
    pub fn results(&self, key: StepKey) -> Result<Vec<(RecordId, StepResult)>, RecordError> {
        let (shard, rest) = step_place(key);
        let mut results = Vec::new();
        for name in list(&self.directory.join(&shard))?.into_iter().filter(|name| name.starts_with(&rest)) {
            if let Some((id, Record::Step(result))) = self.read(&format!("{shard}/{name}"))? {
                results.push((id, result));
            }
        }
        results.sort_by(|(a_id, a), (b_id, b)| (a.started, a_id).cmp(&(b.started, b_id)));
        Ok(results)
    }

    /// Returns every step result. Costs a read of each: for rare questions only.
    ///
    /// # Errors
    ///
    /// [`RecordError`] if one cannot be read.
    pub fn all_results(&self) -> Result<Vec<(RecordId, StepResult)>, RecordError> {
        let mut results = Vec::new();
        for shard in list(&self.directory.join("step"))? {
            for name in list(&self.directory.join("step").join(&shard))? {
                if let Some((id, Record::Step(result))) = self.read(&format!("step/{shard}/{name}"))? {
                    results.push((id, result));
                }
            }
        }
        Ok(results)
    }

    fn links_in(&self, shard: &str, prefix: &str) -> Result<Vec<(RecordId, Link)>, RecordError> {
        let mut links = Vec::new();
        for name in list(&self.directory.join(shard))?.into_iter().filter(|name| name.starts_with(prefix)) {
            if let Some((id, Record::Link(link))) = self.read(&format!("{shard}/{name}"))? {
                links.push((id, link));
            }
        }
        Ok(links)
    }

    /// Reads the record at `place`, whose name ends in its id. Records of unknown kinds are `None`.
    fn read(&self, place: &str) -> Result<Option<(RecordId, Record)>, RecordError> {
        let path = self.directory.join(place);
        let bytes = match self.instead.get(&path) {
            Some(bytes) => bytes.clone(),
            None => disk::read_if_there(&path)?,
        };
        let Some(bytes) = bytes else { return Ok(None) };
        let id = RecordId::of(&bytes);
        if !place.ends_with(&id.to_string()) {
            return Err(RecordError::Corrupt { path });
        }
        match Record::decode(&bytes) {
            Ok(record) => Ok(record.map(|record| (id, record))),
            Err(source) => Err(RecordError::NotUnderstood { path, source }),
        }
    }

    fn import(&self, repository: &Repository, tip: &CommitId, known: Option<&CommitId>) -> Result<(), RecordError> {
        self.write_missing(&bundles(repository, tip, known)?)
    }

    /// Writes the records in `bundles` that are not here.
    pub(super) fn write_missing(&self, bundles: &[Vec<u8>]) -> Result<(), RecordError> {
        let mut files = Vec::new();
        for line in lines(bundles) {
            if let Ok(Some(record)) = Record::decode(line) {
                let path = self.directory.join(place(&record, RecordId::of(line)));
                if disk::look(&path)?.is_none() {
                    files.push((path, line));
                }
            }
        }
        self.write_durably(&files)
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

    fn write_durably(&self, files: &[(PathBuf, &[u8])]) -> Result<(), RecordError> {
        let many = files.len() > SINGLE_FLUSHES_MAX;
        let durability = if many { Durability::Deferred } else { Durability::Synced };
        for (path, bytes) in files {
            disk::write_whole_on(&*self.disk, path, bytes, durability)?;
        }
        if many {
            self.disk.flush(Flush::FileSystem(&self.directory))?;
        }
        Ok(())
    }

    fn pending(&self) -> PathBuf {
        self.directory.join("pending")
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

/// Where a record lies, relative to the journal. Times sort as text.
pub(super) fn place(record: &Record, id: RecordId) -> String {
    match record {
        Record::Step(result) => {
            let (shard, rest) = step_place(result.key);
            format!("{shard}/{rest}{id}")
        }
        Record::Link(link) => {
            let subject = link.commit.as_deref().unwrap_or(UNCOMMITTED);
            format!("{}/{subject}-{id}", link_shard(subject))
        }
        Record::Version(version) => format!("version/{:015}-{id}", version.time.epoch_ms.max(0)),
        Record::Run(run) => format!("run/{:015}-{id}", run.started.epoch_ms.max(0)),
    }
}

fn step_place(key: StepKey) -> (String, String) {
    let hex = key.to_string();
    (format!("step/{}", &hex[..2]), format!("{}-", &hex[2..]))
}

fn link_shard(subject: &str) -> String {
    format!("link/{}", &subject[..2])
}

/// Returns the names in a directory, sorted; none if there is no such directory.
pub(super) fn list(directory: &Path) -> Result<Vec<String>, RecordError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(DiskError::on("list", directory)(error).into()),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(DiskError::on("list", directory))?.file_name();
        // Temporary files of a writer at work begin with a dot; names of records are hex.
        if let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Time;
    use crate::object::SnapshotId;
    use crate::record::{By, Reads, Recipe};

    fn by() -> By {
        By { who: "Ada".to_owned(), host: "h".to_owned(), platform: "p".to_owned(), pv: "0".to_owned() }
    }

    fn link(content: &str, commit: Option<&str>, epoch_ms: i64) -> Record {
        Record::Link(Link {
            snapshot: SnapshotId::of(content.as_bytes()),
            pipeline: "pipeline".to_owned(),
            commit: commit.map(str::to_owned),
            dirty: commit.is_none(),
            time: Time { epoch_ms },
            by: by(),
            message: None,
        })
    }

    fn version(name: &str, replaces: Vec<RecordId>, epoch_ms: i64) -> Record {
        Record::Version(Version {
            name: name.to_owned(),
            snapshot: SnapshotId::of(name.as_bytes()),
            pipeline: "pipeline".to_owned(),
            commit: None,
            dirty: true,
            time: Time { epoch_ms },
            by: by(),
            message: None,
            replaces,
        })
    }

    fn result(step: &str, epoch_ms: i64) -> StepResult {
        let recipe = Recipe {
            recipe: Recipe::VERSION,
            step: step.to_owned(),
            command: crate::pipeline::Run::Shell("true".to_owned()),
            workdir: None,
            env: [("$odd".to_owned(), "1".to_owned())].into(),
            params: std::collections::BTreeMap::new(),
            seed: Some(7),
            environment: std::collections::BTreeMap::new(),
            reads: Reads::new(),
            outputs: Vec::new(),
        };
        let key = recipe.key();
        let started = Time { epoch_ms };
        StepResult { key, recipe, outputs: Vec::new(), log: None, started, elapsed_ms: 1, by: by() }
    }

    #[test]
    fn what_is_added_is_found_by_what_it_is_about() {
        let root = tempfile::tempdir().unwrap();
        let journal = Journal::new(root.path().join("records"));
        assert!(journal.links().unwrap().is_empty() && journal.runs().unwrap().next().is_none());
        let commit = "0123456789012345678901234567890123456789";
        let (a, b) = (result("a", 1), result("b", 1));
        let ids = journal
            .add(&[link("x", Some(commit), 5), link("y", None, 9), Record::Step(a.clone()), Record::Step(b.clone())])
            .unwrap();
        assert_eq!(journal.links_of(Some(commit)).unwrap()[0].0, ids[0]);
        assert_eq!(journal.links_of(None).unwrap()[0].0, ids[1]);
        assert_eq!(journal.links().unwrap().iter().map(|(id, _)| *id).collect::<Vec<_>>(), [ids[1], ids[0]]);
        assert_eq!(journal.results(a.key).unwrap(), [(ids[2], a)]);
        assert_eq!(journal.results(b.key).unwrap(), [(ids[3], b)]);
        // A second opening finds the same: nothing lives in memory.
        assert_eq!(Journal::new(root.path().join("records")).links().unwrap().len(), 2);
    }

    #[test]
    fn a_replaced_name_is_no_longer_listed() {
        let root = tempfile::tempdir().unwrap();
        let journal = Journal::new(root.path().to_owned());
        let old = journal.add(&[version("v1", Vec::new(), 1)]).unwrap();
        let new = journal.add(&[version("v1", old, 2), version("v2", Vec::new(), 3)]).unwrap();
        let listed: Vec<_> = journal.versions().unwrap().into_iter().map(|(id, _)| id).collect();
        assert_eq!(listed, [new[1], new[0]]);
    }

    #[test]
    fn a_flipped_bit_in_a_record_is_reported_with_its_place() {
        let root = tempfile::tempdir().unwrap();
        let journal = Journal::new(root.path().to_owned());
        journal.add(&[version("v1", Vec::new(), 1)]).unwrap();
        let place = root.path().join("version");
        let path = place.join(&list(&place).unwrap()[0]);
        let mut bytes = fs::read(&path).unwrap();
        bytes[10] ^= 1;
        disk::write_whole(&path, &bytes, Durability::Deferred).unwrap();
        assert!(matches!(journal.versions(), Err(RecordError::Corrupt { path: told }) if told == path));
    }

    #[test]
    fn a_record_of_a_kind_that_is_not_known_yet_is_passed_over() {
        let root = tempfile::tempdir().unwrap();
        let journal = Journal::new(root.path().to_owned());
        let bytes = br#"{"kind":"verdict","level":"identical"}"#;
        let path = root.path().join(format!("version/000000000000001-{}", RecordId::of(bytes)));
        disk::write_whole(&path, bytes, Durability::Deferred).unwrap();
        assert!(journal.versions().unwrap().is_empty());
    }

    #[test]
    fn a_record_reads_as_it_was_written_also_with_odd_keys() {
        let record = Record::Step(result("a", 1));
        let (_, bytes) = record.encode();
        assert_eq!(Record::decode(&bytes).unwrap(), Some(record));
    }

    /// The encoding is a promise: this digest must never change.
    #[test]
    fn a_recipe_has_its_golden_key() {
        let golden = "59f9ec2c1e7138a704debf66414d476fe499bacf63541c7e09fe3efc507cabd6";
        assert_eq!(result("a", 1).key.to_string(), golden);
    }
}
