//! The set of records, as durable files.
//!
//! A record is one file below `records/`, at a place that its content
//! determines, so that it is found without an index: step results by key,
//! links by commit, versions and runs by time. Adding is the commit point of
//! everything that `pv` acknowledges: the call returns after the files are flushed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::RecordError;
use super::fact::Record;
use super::place::place;
use crate::disk::{self, Disk, Durability, Flush, RealDisk};
use crate::hash::Digest;
use crate::object::RecordId;

/// Up to this many files are flushed one by one; more by one flush of the file system.
const SINGLE_FLUSHES_MAX: usize = 4;

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

    /// Writes files below the directory; they survive a power cut afterwards.
    pub(super) fn write_durably(&self, files: &[(PathBuf, &[u8])]) -> Result<(), RecordError> {
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

    /// Returns the directory of the bundles that are not on the ref yet.
    pub(super) fn pending(&self) -> PathBuf {
        self.directory.join("pending")
    }
}

#[cfg(test)]
mod tests {
    use super::super::fact::{By, Link, Reads, Recipe, StepResult, Strict, Version};
    use super::super::place::list;
    use super::*;
    use crate::host::Time;
    use crate::object::SnapshotId;
    use crate::path::ProjectPath;

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
            home: None,
            strict: None,
            seeding: None,
        };
        let key = recipe.key();
        let started = Time { epoch_ms };
        StepResult { key, recipe, outputs: Vec::new(), log: None, started, elapsed_ms: 1, by: by(), observed: None }
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
        assert_eq!(journal.results(a.task(), a.key).unwrap(), [(ids[2], a)]);
        assert_eq!(journal.results(b.task(), b.key).unwrap(), [(ids[3], b)]);
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
        let mut bytes = std::fs::read(&path).unwrap();
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
    fn a_recipe_has_its_golden_keys() {
        let recipe = result("a", 1).recipe;
        let old = Recipe { recipe: 1, ..recipe.clone() };
        let golden = "59f9ec2c1e7138a704debf66414d476fe499bacf63541c7e09fe3efc507cabd6";
        assert_eq!(old.key().to_string(), golden);
        assert_eq!(recipe.key().to_string(), "3aabb814610e430052cd225ddc93076ca69b86f86edcb7cf1c551ff4c1cc4828");
        assert_eq!(recipe.task().to_string(), "9ed85a8aefdfab7742854b57fbb2233bcbb45cd89b08cf9733d9a5fa85ac2f2e");
        let strict = strict(&recipe, &["a", "b"], true);
        assert_eq!(strict.task().to_string(), "3e2c6dc724094e74768399a6c55dc74483e11393e0b89437f656cd4c12d16591");
    }

    fn strict(recipe: &Recipe, inputs: &[&str], network: bool) -> Recipe {
        let inputs = inputs.iter().map(|path| ProjectPath::new(path).unwrap()).collect();
        Recipe { strict: Some(Strict { inputs, network }), ..recipe.clone() }
    }

    #[test]
    fn how_much_a_strict_step_is_shown_makes_another_task() {
        let recipe = result("a", 1).recipe;
        let shown = [strict(&recipe, &[], false), strict(&recipe, &["a"], false), strict(&recipe, &["a"], true)];
        let tasks: std::collections::BTreeSet<_> = shown.iter().chain([&recipe]).map(Recipe::task).collect();
        assert_eq!(tasks.len(), 4);
    }

    #[test]
    fn a_task_is_the_same_whatever_the_step_finds() {
        let recipe = result("a", 1).recipe;
        let mut other = recipe.clone();
        other.reads.insert("x".to_owned(), "absent".to_owned());
        other.environment.insert("sh".to_owned(), "1".to_owned());
        assert_eq!(other.task(), recipe.task());
        assert_ne!(other.key(), recipe.key());
        for asked in [
            Recipe { home: Some("host".to_owned()), ..recipe.clone() },
            Recipe { seed: None, ..recipe.clone() },
            Recipe { step: "b".to_owned(), ..recipe.clone() },
        ] {
            assert_ne!(asked.task(), recipe.task());
        }
    }

    #[test]
    fn a_result_of_before_tasks_had_keys_is_found_by_its_key_alone() {
        let root = tempfile::tempdir().unwrap();
        let journal = Journal::new(root.path().to_owned());
        let mut old = result("a", 1);
        old.recipe.recipe = 1;
        old.key = old.recipe.key();
        let id = journal.add(&[Record::Step(old.clone())]).unwrap()[0];
        let hex = old.key.to_string();
        assert!(root.path().join(format!("step/{}/{}-{id}", &hex[..2], &hex[2..])).is_file());
        assert_eq!(journal.results(None, old.key).unwrap(), [(id, old.clone())]);
        assert_eq!(journal.all_results().unwrap(), [(id, old)]);
    }
}
