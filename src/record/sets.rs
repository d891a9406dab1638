//! Known read sets: what each task was seen to read, kept so that a thousand of them are asked in a moment.
//!
//! The truth is in the records. Beside them, `sets/<task>` remembers for each result which names it read and a
//! short sum over names and values; it is checked against the list of records, completed from those that it
//! misses, and made anew if it is damaged. A sum only finds candidates: two that agree may still differ.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::error::RecordError;
use super::fact::StepResult;
use super::journal::Journal;
use super::sets_format::{decode, encode};
use crate::disk::{self, Durability};
use crate::hash::Digest;
use crate::host::Time;
use crate::object::{RecordId, StepKey, TaskKey};

/// A task with fewer results has its records read: that costs no more than the memory.
const REMEMBERED_MIN: usize = 4;

/// What stands for a thing that is not there, as the value of a name.
pub const ABSENT: &str = "absent";

/// Something that a result depended on, without its value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Name {
    /// An aspect of a path, as in [`Reads`](super::Reads).
    Read(Aspect, String),
    /// A fact about the environment, as in a recipe.
    Fact(String),
}

/// What of a path was seen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Aspect {
    /// What is in it; of a directory, all that is below.
    Content,
    /// What is in a data root.
    Data,
    /// The names and kinds directly in a directory.
    Listing,
    /// What is told without opening it, also that it is not there.
    Status,
    /// Whether a file can be put there, which a directory does not let.
    Place,
}

/// The known read sets of one task.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ReadSets {
    /// Every name in any of the sets, once.
    pub names: Vec<Name>,
    /// The sets, that with the newest result first.
    pub sets: Vec<ReadSet>,
    /// Results of executions that were not observed, newest first.
    pub unobserved: Vec<KnownResult>,
    /// Whether a memory of it would be worth writing.
    pub(super) is_new: bool,
    /// The results that were read to find this out.
    pub(super) read: Vec<(RecordId, StepResult)>,
}

/// One set of names, and the results that are known to have read it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadSet {
    /// Whether it is all that the results depended on.
    pub is_whole: bool,
    /// Which names, as places in [`ReadSets::names`], rising.
    pub names: Vec<u32>,
    /// Its results, newest first.
    pub results: Vec<KnownResult>,
}

/// A result that is on record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KnownResult {
    /// Its step key.
    pub key: StepKey,
    /// The id of its record.
    pub id: RecordId,
    /// When its execution began.
    pub started: Time,
    /// The sum of [`sum`] over its names and values.
    pub sum: u64,
}

/// Returns a short number for a value of a name. Equal sums are a hint, never a proof.
pub fn sum(name: &Name, value: &str) -> u64 {
    let text = format!("{}\0{value}", name.text());
    let first: [u8; 8] = Digest::of(text.as_bytes()).as_bytes()[..8].try_into().expect("a digest has 32 bytes");
    u64::from_le_bytes(first)
}

impl Name {
    /// Returns the name under which a recipe has `value` for `path`.
    pub fn of_read(path: &str, value: &str) -> Self {
        let aspect = match value.split_once(' ').map_or(value, |(kind, _)| kind) {
            "listing" => Aspect::Listing,
            "status" | ABSENT => Aspect::Status,
            "data" => Aspect::Data,
            "place" => Aspect::Place,
            _ => Aspect::Content,
        };
        Self::Read(aspect, path.to_owned())
    }

    pub(super) fn text(&self) -> String {
        match self {
            Self::Read(aspect, path) => format!("{}{path}", aspect.letter()),
            Self::Fact(name) => format!("f{name}"),
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let rest = || text.get(1..).map(str::to_owned);
        if text.starts_with('f') {
            return Some(Self::Fact(rest()?));
        }
        let aspect = Aspect::ALL.into_iter().find(|aspect| text.starts_with(aspect.letter()))?;
        Some(Self::Read(aspect, rest()?))
    }
}

impl Aspect {
    /// Every aspect.
    pub const ALL: [Self; 5] = [Self::Content, Self::Data, Self::Listing, Self::Status, Self::Place];

    const fn letter(self) -> char {
        match self {
            Self::Content => 'c',
            Self::Data => 'd',
            Self::Listing => 'l',
            Self::Status => 's',
            Self::Place => 'p',
        }
    }
}

impl Journal {
    /// Returns what is known to have been read by `task`. Writes nothing.
    ///
    /// Costs a look at the directory of its records and one read of the memory; and a read of each record that the memory misses.
    ///
    /// # Errors
    ///
    /// [`RecordError`] if the records cannot be listed or read. A damaged memory is no error.
    pub fn read_sets(&self, task: TaskKey) -> Result<ReadSets, RecordError> {
        let there = self.result_names(task)?;
        if there.is_empty() {
            return Ok(ReadSets::default());
        }
        let is_remembered = there.len() >= REMEMBERED_MIN;
        let remembered = is_remembered.then(|| disk::read_if_there(&self.sets_file(task)).ok().flatten()).flatten();
        let mut sets = remembered.and_then(|bytes| decode(&bytes)).unwrap_or_default();
        sets.is_new = sets.retain(&|known| there.contains(&(known.key, known.id)));
        let mut missing = there;
        for known in sets.results() {
            missing.remove(&(known.key, known.id));
        }
        let mut places: BTreeMap<Name, u32> = sets.names.iter().cloned().zip(0..).collect();
        for (key, id) in missing {
            if let Some(result) = self.result(task, key, id)? {
                sets.add(&mut places, id, &result);
                sets.is_new = is_remembered;
                sets.read.push((id, result));
            }
        }
        sets.sort();
        Ok(sets)
    }

    /// Remembers what is known of `task`, where that saves something and is not remembered yet. A memory that cannot be
    /// written only costs time.
    ///
    /// # Errors
    ///
    /// [`RecordError`] if the records cannot be listed or read.
    pub fn remember_read_sets(&self, task: TaskKey) -> Result<(), RecordError> {
        if self.result_names(task)?.len() >= REMEMBERED_MIN {
            let sets = self.read_sets(task)?;
            if sets.is_new {
                let _ = disk::write_whole_on(&*self.disk, &self.sets_file(task), &encode(&sets), Durability::Deferred);
            }
        }
        Ok(())
    }

    fn sets_file(&self, task: TaskKey) -> PathBuf {
        self.directory.join("sets").join(task.to_string())
    }
}

impl ReadSets {
    /// Returns whether this is more than what is remembered.
    pub const fn is_new(&self) -> bool {
        self.is_new
    }

    /// Returns the result with this id if it was read already.
    pub fn result(&self, id: RecordId) -> Option<&StepResult> {
        self.read.iter().find(|(other, _)| *other == id).map(|(_, result)| result)
    }

    /// Returns every result of the task that is known, in no particular order.
    pub fn results(&self) -> impl Iterator<Item = &KnownResult> {
        self.sets.iter().flat_map(|set| &set.results).chain(&self.unobserved)
    }

    /// Returns the newest result of the task.
    pub fn newest(&self) -> Option<&KnownResult> {
        self.results().max_by_key(|known| (known.started, known.id))
    }

    /// Adds one result. `places` has the place of each name, and grows with them.
    fn add(&mut self, places: &mut BTreeMap<Name, u32>, id: RecordId, result: &StepResult) {
        let mut known = KnownResult { key: result.key, id, started: result.started, sum: 0 };
        if result.observed.as_ref().is_none_or(|observed| observed.rung == crate::exec::Rung::None) {
            self.unobserved.push(known);
            return;
        }
        let recipe = &result.recipe;
        let reads = recipe.reads.iter().map(|(path, value)| (Name::of_read(path, value), value));
        let facts = recipe.environment.iter().map(|(name, value)| (Name::Fact(name.clone()), value));
        let mut names = Vec::new();
        for (name, value) in reads.chain(facts) {
            known.sum = known.sum.wrapping_add(sum(&name, value));
            let place = *places.entry(name).or_insert_with_key(|name| {
                self.names.push(name.clone());
                u32::try_from(self.names.len() - 1).expect("fewer names than memory holds")
            });
            names.push(place);
        }
        names.sort_unstable();
        let is_whole = result.is_seen_whole();
        match self.sets.iter_mut().find(|set| set.is_whole == is_whole && set.names == names) {
            Some(set) => set.results.push(known),
            None => self.sets.push(ReadSet { is_whole, names, results: vec![known] }),
        }
    }

    /// Keeps the results that `stays`. Returns whether any was dropped.
    fn retain(&mut self, stays: &dyn Fn(&KnownResult) -> bool) -> bool {
        let before = self.results().count();
        self.sets.iter_mut().for_each(|set| set.results.retain(stays));
        self.unobserved.retain(stays);
        self.sets.retain(|set| !set.results.is_empty());
        before != self.results().count()
    }

    fn sort(&mut self) {
        let newest_first = |known: &KnownResult| std::cmp::Reverse((known.started, known.id));
        self.sets.iter_mut().for_each(|set| set.results.sort_by_key(newest_first));
        self.sets.sort_by_key(|set| set.results.first().map(newest_first));
        self.unobserved.sort_by_key(newest_first);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fact::{By, Observed, Reads, Recipe, Record};
    use super::*;
    use crate::exec::Rung;

    fn result(reads: &[(&str, &str)], epoch_ms: i64, rung: Rung) -> StepResult {
        let recipe = Recipe {
            recipe: Recipe::VERSION,
            step: "a".to_owned(),
            command: crate::pipeline::Run::Shell("true".to_owned()),
            workdir: None,
            env: BTreeMap::new(),
            params: BTreeMap::new(),
            seed: None,
            environment: BTreeMap::from([("sh".to_owned(), "1".to_owned())]),
            reads: reads.iter().map(|(path, value)| ((*path).to_owned(), (*value).to_owned())).collect::<Reads>(),
            outputs: Vec::new(),
            home: None,
            strict: None,
            seeding: None,
        };
        let by = By { who: "Ada".to_owned(), host: "h".to_owned(), platform: "p".to_owned(), pv: "0".to_owned() };
        let observed = Some(Observed { rung, ..Observed::default() });
        let (key, started) = (recipe.key(), Time { epoch_ms });
        StepResult { key, recipe, outputs: Vec::new(), log: None, started, elapsed_ms: 1, by, observed }
    }

    /// Journal with three results of one task: two of one set, one of another.
    fn filled() -> (tempfile::TempDir, Journal, TaskKey) {
        let root = tempfile::tempdir().unwrap();
        let journal = Journal::new(root.path().to_owned());
        let all = [
            result(&[("a", "file 1"), ("b", "absent")], 1, Rung::Notify),
            result(&[("a", "file 2"), ("b", "absent")], 3, Rung::Notify),
            result(&[("a", "file 2"), ("c", "listing 9")], 2, Rung::Ptrace),
            result(&[(".", "directory 9")], 4, Rung::None),
        ];
        let task = all[0].task().unwrap();
        journal.add(&all.map(Record::Step)).unwrap();
        (root, journal, task)
    }

    #[test]
    fn results_of_one_set_of_names_stand_together_newest_first() {
        let (_root, journal, task) = filled();
        let sets = journal.read_sets(task).unwrap();
        let times: Vec<Vec<_>> =
            sets.sets.iter().map(|set| set.results.iter().map(|known| known.started.epoch_ms).collect()).collect();
        assert_eq!(times, [vec![3, 1], vec![2]]);
        assert_eq!(sets.unobserved.len(), 1);
        assert_eq!(sets.names.len(), 4, "{:?}", sets.names);
    }

    #[test]
    fn the_memory_tells_what_the_records_tell_and_is_made_anew_when_it_is_damaged_or_behind() {
        let (root, journal, task) = filled();
        let fresh = journal.read_sets(task).unwrap();
        journal.remember_read_sets(task).unwrap();
        let path = root.path().join("sets").join(task.to_string());
        let good = disk::read_if_there(&path).unwrap().unwrap();
        assert_eq!(journal.read_sets(task).unwrap(), ReadSets { is_new: false, read: Vec::new(), ..fresh.clone() });
        for place in 0..good.len() {
            let mut bad = good.clone();
            bad[place] ^= 1;
            assert_eq!(decode(&bad), None, "byte {place}");
            assert_eq!(decode(&good[..place]), None, "cut at {place}");
        }
        disk::write_whole(&path, b"nonsense", Durability::Deferred).unwrap();
        assert_eq!(journal.read_sets(task).unwrap(), fresh);
        journal.remember_read_sets(task).unwrap();
        let later = result(&[("a", "file 7"), ("b", "absent")], 9, Rung::Notify);
        journal.add(&[Record::Step(later.clone())]).unwrap();
        let grown = journal.read_sets(task).unwrap();
        assert_eq!(grown.newest().map(|known| known.key), Some(later.key));
        assert_eq!(grown.results().count(), 5);
        // What is no longer on record is not known.
        disk::remove_tree(&root.path().join("step")).unwrap();
        assert_eq!(journal.read_sets(task).unwrap(), ReadSets::default());
    }

    #[test]
    fn a_name_reads_as_it_was_written() {
        for value in ["file 1", "data 1", "listing 1", "status file 1", "absent", "directory 1"] {
            let name = Name::of_read("dir/é", value);
            assert_eq!(Name::parse(&name.text()), Some(name));
        }
        assert_eq!(Name::parse("fpython3 package numpy"), Some(Name::Fact("python3 package numpy".to_owned())));
        assert_eq!(Name::parse("?x"), None);
        assert_eq!(Name::parse(""), None);
    }
}
