//! Finding records: by key, by commit, by id, by time.

use std::collections::{BTreeMap, BTreeSet};

use super::error::RecordError;
use super::fact::{Link, Record, Run, StepResult, Version};
use super::journal::Journal;
use super::place::{UNCOMMITTED, link_shard, list, step_place, task_place};
use super::verification::Verification;
use crate::disk;
use crate::object::{RecordId, StepKey, TaskKey};

impl Journal {
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

    /// Returns all verifications, newest first; each is read when it is asked for.
    ///
    /// # Errors
    ///
    /// [`RecordError`] if the list, and each item if the record, cannot be read.
    pub fn verifications(
        &self,
    ) -> Result<impl Iterator<Item = Result<(RecordId, Verification), RecordError>> + '_, RecordError> {
        let mut names = list(&self.directory.join("verification"))?;
        names.reverse();
        Ok(names.into_iter().filter_map(|name| match self.read(&format!("verification/{name}")) {
            Ok(Some((id, Record::Verification(verified)))) => Some(Ok((id, verified))),
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

    /// Returns the results of `task` known under `key`, oldest first. If their outputs differ, they contradict each other.
    ///
    /// `task` is what the recipe's [`Recipe::task`](super::Recipe::task) says; `None` for a result of before tasks had keys.
    ///
    /// # Errors
    ///
    /// [`RecordError`] if one cannot be read.
    pub fn results(&self, task: Option<TaskKey>, key: StepKey) -> Result<Vec<(RecordId, StepResult)>, RecordError> {
        let (shard, rest) = step_place(task, key);
        let mut results = self.results_in(&shard, &rest)?;
        results.retain(|(_, result)| result.key == key);
        Ok(results)
    }

    /// Returns all results of `task`, oldest first. Costs a read of each.
    ///
    /// # Errors
    ///
    /// [`RecordError`] if one cannot be read.
    pub fn results_of_task(&self, task: TaskKey) -> Result<Vec<(RecordId, StepResult)>, RecordError> {
        let (shard, rest) = task_place(task);
        self.results_in(&shard, &rest)
    }

    /// Returns the keys and ids of all results of `task`, sorted, without reading them.
    pub(super) fn result_names(&self, task: TaskKey) -> Result<BTreeSet<(StepKey, RecordId)>, RecordError> {
        let (shard, rest) = task_place(task);
        let names = list(&self.directory.join(shard))?;
        let parse = |name: &String| {
            let (key, id) = name.strip_prefix(&rest)?.split_once('-')?;
            Some((key.parse().ok()?, id.parse().ok()?))
        };
        Ok(names.iter().filter_map(parse).collect())
    }

    /// Returns the result of `task` with this key and id, if it is on record. Costs one read.
    ///
    /// # Errors
    ///
    /// [`RecordError`] if it cannot be read.
    pub fn result(&self, task: TaskKey, key: StepKey, id: RecordId) -> Result<Option<StepResult>, RecordError> {
        let (shard, rest) = step_place(Some(task), key);
        Ok(match self.read(&format!("{shard}/{rest}{id}"))? {
            Some((_, Record::Step(result))) => Some(result),
            _ => None,
        })
    }

    fn results_in(&self, shard: &str, prefix: &str) -> Result<Vec<(RecordId, StepResult)>, RecordError> {
        let mut results = Vec::new();
        for name in list(&self.directory.join(shard))?.into_iter().filter(|name| name.starts_with(prefix)) {
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
        // An older `pv` puts a record under its step key, so it may be in two places.
        let mut results = BTreeMap::new();
        for shard in list(&self.directory.join("step"))? {
            for name in list(&self.directory.join("step").join(&shard))? {
                if let Some((id, Record::Step(result))) = self.read(&format!("step/{shard}/{name}"))? {
                    results.insert(id, result);
                }
            }
        }
        Ok(results.into_iter().collect())
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
}
