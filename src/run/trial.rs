//! Trials: one step executed alone, under conditions that somebody chose, to see what comes of it.
//!
//! A step is given what the steps before it wrote on record, so a trial of the seventh costs that of the seventh alone. What it
//! writes is put into the store so that it can be compared, and nothing is recorded: no run ever takes the result of a trial.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::RunError;
use super::audit::{Audited, Found, audit};
use super::earlier::Finished;
use super::event::{Event, StepDone};
use super::grant::Grant;
use super::judge::Work;
use super::place::{Left, Place, Room};
use super::python;
use super::settle::{Settled, Sighting, settle};
use super::shown::{may_read, shown};
use super::step::{Executed, execute};
use crate::disk::{self, DiskError};
use crate::exec::{Observation, Permission, Pins, Rung, Stop};
use crate::object::BlobId;
use crate::path::ProjectPath;
use crate::record::Output;

/// A file larger than this is not given another time, in bytes: that takes a copy of it.
const TIMED_BYTES_MAX: u64 = 64 << 20;
/// Where what a trial left behind is kept for others to find, in the place of trials.
const LEFT_BEHIND: &str = "left-behind";

/// The conditions of one trial: how it differs from an ordinary execution.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// What the step is given in place of what the system happens to give; `None` where nothing can be.
    pub pins: Option<Pins>,
    /// Variables that are another for it, or not there.
    pub variables: BTreeMap<String, Option<String>>,
    /// The name of the directory that it works in, below `/pv`.
    pub workplace: Option<String>,
    /// The name of its home directory, below `/pv`.
    pub home: Option<String>,
    /// The name of its directory for temporary files, below `/pv`.
    pub temporary: Option<String>,
    /// When files were changed last, in seconds since 1970.
    pub times: BTreeMap<ProjectPath, i64>,
    /// What is in files instead, or in those that are not there.
    pub files: BTreeMap<ProjectPath, Vec<u8>>,
    /// Files that look as if they were not there.
    pub hidden: BTreeSet<PathBuf>,
    /// Whether it finds what a trial before left behind, its outputs and all else.
    pub finds_state: bool,
    /// Whether what it leaves behind is kept for others to find.
    pub leaves_state: bool,
    /// Whether the network is cut off.
    pub offline: bool,
    /// How long it may take.
    pub time_limit: Option<Duration>,
}

/// What came of a trial.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What it wrote of its outputs, by path.
    pub outputs: Vec<Output>,
    /// How it failed, if it did: `it exited with code 1`.
    pub failure: Option<String>,
    /// The last lines that it printed, if it failed.
    pub tail: Vec<String>,
    /// Whether it was ended because the user wants to stop.
    pub interrupted: bool,
    /// How long it took.
    pub elapsed: Duration,
    /// What it printed.
    pub log: Option<BlobId>,
    /// What it was seen to do.
    pub observation: Observation,
    /// What it read and did without declaring it.
    pub audited: Audited,
    /// Files of the project that it read and that are there, whether it declares them or not.
    pub read: BTreeSet<ProjectPath>,
    /// Paths of the project that it looked for in vain, each with the program that did so first.
    pub missed: BTreeMap<ProjectPath, String>,
}

/// A place for trials of the steps of a pipeline.
pub struct Laboratory<'a> {
    work: &'a Work<'a>,
    place: Place<'a>,
    finished: Finished,
    locks: &'a Path,
    stop: &'a Stop,
}

impl<'a> Laboratory<'a> {
    /// Returns a place below `places` in which each step finds what the steps before it wrote as `done` tells.
    pub fn new(work: &'a Work<'a>, done: &[StepDone], places: &'a Path, locks: &'a Path, stop: &'a Stop) -> Self {
        let finished = Finished::none_of(work.pipeline.steps.len());
        for step in done {
            if let Some((index, _)) = work.pipeline.step(&step.step) {
                finished.note(index, step.outputs.clone());
            }
        }
        Self { work, place: Place::new(&work.view, work.name, places, stop), finished, locks, stop }
    }

    /// Returns the variables that the step at `index` gets in an ordinary execution, and the names of those that its definition fixes.
    ///
    /// # Errors
    ///
    /// [`RunError`] if a passed variable is not text.
    pub fn declared_variables(&self, index: usize) -> Result<BTreeSet<String>, RunError> {
        let before = self.work.before(index, &self.finished)?;
        Ok(before.asked.env.keys().cloned().collect())
    }

    /// Returns the seed of the step at `index`, if it has one.
    ///
    /// # Errors
    ///
    /// [`RunError`] if a passed variable is not text.
    pub fn seed(&self, index: usize) -> Result<Option<u64>, RunError> {
        Ok(self.work.before(index, &self.finished)?.asked.seed)
    }

    /// Returns how long the step at `index` took on record; zero if nothing is known.
    ///
    /// # Errors
    ///
    /// [`RunError`] if records or trees cannot be read.
    pub fn elapsed_on_record(&self, index: usize) -> Result<Duration, RunError> {
        let known = self.work.reusable(&self.work.before(index, &self.finished)?)?;
        Ok(known.map(|result| Duration::from_millis(result.elapsed_ms)).unwrap_or_default())
    }

    /// Executes the step at `index` under these conditions. Waits for its named locks.
    ///
    /// # Errors
    ///
    /// [`RunError::NotPinned`] if something cannot be pinned here, else as a run. That the step fails is no error.
    pub fn run(&self, index: usize, conditions: &Conditions) -> Result<Trial, RunError> {
        let work = self.work;
        let step = &work.pipeline.steps[index];
        let silent = |_: Event<'_>| {};
        let Some(mut grant) = Grant::get(step, Vec::new(), self.locks, self.stop, &silent)? else {
            return Ok(Trial::stopped(&step.name));
        };
        grant.bound_memory(step, &silent);
        let before = work.before(index, &self.finished)?;
        let earlier: BTreeSet<usize> = work.ancestors(index).iter().collect();
        let (shown, provided) = (shown(step), super::perform::provided(work, index));
        let mut room = self.place.prepare(index, step, &earlier, &self.finished, shown.as_ref(), provided)?;
        self.arrange(&mut room, conditions)?;
        let rules = before.machine.rules();
        let is_strict = shown.is_some() && provided.image.is_none();
        let tree = room.tree.clone();
        let allows = |path: &Path| {
            let is_hidden = conditions.hidden.iter().any(|hidden| match path.strip_prefix(&tree) {
                Ok(inside) => inside == hidden,
                Err(_) => path == hidden,
            });
            !is_hidden && (!is_strict || may_read(path, rules))
        };
        let is_restricted = is_strict || !conditions.hidden.is_empty();
        let permission = is_restricted.then_some(&allows as &Permission<'_>);
        let keep_all = || Ok(BTreeSet::new());
        let executed = execute(
            work.store,
            step,
            &before.asked,
            &room,
            &grant,
            permission,
            &keep_all,
            &mut |_| {},
            self.stop,
            Some(conditions),
        )?;
        let Executed { outputs, log, elapsed, failure, interrupted, observation, .. } = executed;
        let private = [&*room.home, &*room.temporary, Path::new("/dev/shm"), &*python::directory()];
        let sighting = Sighting { observation: &observation, workplace: &room.tree, private: &private };
        let Settled { recipe, observed, .. } = settle(work, index, &before, Some(sighting))?;
        let found = Found::seen_by(recipe.reads, &recipe.environment, observed.unwrap_or_default());
        let audited = audit(work.pipeline, step, &found, rules);
        let (read, missed) = self.touched(&observation, &room.tree, &before.world)?;
        if conditions.leaves_state && room.world.is_some() {
            let (layer, left) = (room.written.clone(), self.left_behind()?);
            disk::remove_tree(&left)?;
            disk::rename(&layer, &left)?;
        }
        self.clear(&room, conditions)?;
        self.place.take_back(room, Left::Unknown)?;
        Ok(Trial {
            outputs,
            tail: failure.as_ref().map(|failure| failure.tail.clone()).unwrap_or_default(),
            failure: failure.map(|failure| failure.how),
            interrupted,
            elapsed,
            log,
            observation,
            audited,
            read,
            missed,
        })
    }

    /// Removes the place.
    ///
    /// # Errors
    ///
    /// [`RunError::Disk`] if it cannot be removed.
    pub fn close(self) -> Result<(), RunError> {
        self.place.close(false, &[]).map(drop)
    }

    /// Changes a room that was made for an ordinary execution so that it meets the conditions.
    fn arrange(&self, room: &mut Room, conditions: &Conditions) -> Result<(), RunError> {
        room.rename(conditions.workplace.as_deref(), conditions.home.as_deref(), conditions.temporary.as_deref())?;
        let base = self.place.base();
        let below: Vec<PathBuf> = match &mut room.world {
            Some(world) => {
                world.offline |= conditions.offline;
                if conditions.finds_state {
                    // Above, as if it had been written just now: what stays as it is counts as written too.
                    copy_tree(&self.left_behind()?, &room.written)?;
                }
                world.lower.iter().map(|layer| base.join(layer)).collect()
            }
            None => vec![room.written.clone()],
        };
        let lies = |path: &ProjectPath| below.iter().map(|layer| path.under(layer)).find(|path| path.exists());
        for (path, content) in &conditions.files {
            let target = path.under(&room.written);
            let mode = lies(path).and_then(|found| fs::metadata(found).ok()).map(|found| found.permissions().mode());
            put(&target, content, mode.unwrap_or(0o644))?;
        }
        for (path, seconds) in &conditions.times {
            let Some(found) = lies(path) else { continue };
            let target = path.under(&room.written);
            let size = fs::metadata(&found).map_err(DiskError::on("read", &found))?.len();
            if size > TIMED_BYTES_MAX || !found.is_file() {
                continue;
            }
            if found != target && !target.exists() {
                disk::make_directory(disk::parent(&target))?;
                fs::copy(&found, &target).map_err(DiskError::on("copy", &found))?;
            }
            let time = UNIX_EPOCH + Duration::from_secs(u64::try_from(*seconds).unwrap_or_default());
            let file = fs::File::options().write(true).open(&target).map_err(DiskError::on("open", &target))?;
            file.set_times(fs::FileTimes::new().set_modified(time).set_accessed(time))
                .map_err(DiskError::on("change", &target))?;
        }
        Ok(())
    }

    /// Takes back what was arranged.
    fn clear(&self, room: &Room, conditions: &Conditions) -> Result<(), RunError> {
        for name in [&conditions.workplace, &conditions.home, &conditions.temporary].into_iter().flatten() {
            disk::remove_tree(&room.own_directory(name))?;
        }
        Ok(())
    }

    fn left_behind(&self) -> Result<PathBuf, RunError> {
        Ok(self.place.directory()?.join(LEFT_BEHIND))
    }

    /// Returns the files of the project that a step read, and the paths that it looked for in vain.
    fn touched(
        &self,
        observation: &Observation,
        tree: &Path,
        world: &super::world::World<'_, '_>,
    ) -> Result<(BTreeSet<ProjectPath>, BTreeMap<ProjectPath, String>), RunError> {
        let (mut read, mut missed) = (BTreeSet::new(), BTreeMap::new());
        // An interpreter looks for each module here too, before it finds it where it is.
        let modules: BTreeSet<&std::ffi::OsStr> = observation
            .touched
            .iter()
            .filter(|(path, touch)| touch.read && !path.starts_with(tree))
            .filter_map(|(path, _)| match path.file_stem()? {
                stem if stem == "__init__" => path.parent()?.file_name(),
                stem => Some(stem),
            })
            .collect();
        let is_module = |name: &[u8]| modules.contains(std::ffi::OsStr::from_bytes(name));
        for (path, touch) in &observation.touched {
            let Ok(inside) = path.strip_prefix(tree) else { continue };
            let Ok(path) = ProjectPath::new(inside.as_os_str().as_encoded_bytes()) else { continue };
            match world.find(Some(&path))? {
                super::world::Found::Absent if !touch.written && !is_module(path.name()) => {
                    missed.insert(path, touch.by.clone());
                }
                super::world::Found::Absent => {}
                _ if touch.read && !touch.listed => drop(read.insert(path)),
                _ => {}
            }
        }
        Ok((read, missed))
    }
}

impl Trial {
    fn stopped(step: &str) -> Self {
        Self {
            outputs: Vec::new(),
            failure: None,
            tail: Vec::new(),
            interrupted: true,
            elapsed: Duration::ZERO,
            log: None,
            observation: Observation::default(),
            audited: Audited { step: step.to_owned(), rung: Rung::None, ..Audited::default() },
            read: BTreeSet::new(),
            missed: BTreeMap::new(),
        }
    }
}

/// Copies files, links and directories with their modes and times into a directory that may be there.
fn copy_tree(from: &Path, to: &Path) -> Result<(), RunError> {
    let found = fs::symlink_metadata(from).map_err(DiskError::on("read", from))?;
    if found.is_dir() {
        disk::make_directory(to)?;
        for entry in fs::read_dir(from).map_err(DiskError::on("list", from))? {
            let entry = entry.map_err(DiskError::on("list", from))?;
            copy_tree(&entry.path(), &to.join(entry.file_name()))?;
        }
    } else if found.is_symlink() {
        let target = fs::read_link(from).map_err(DiskError::on("read", from))?;
        disk::remove_tree(to)?;
        std::os::unix::fs::symlink(target, to).map_err(DiskError::on("link", to))?;
    } else if found.is_file() {
        disk::remove_tree(to)?;
        fs::copy(from, to).map_err(DiskError::on("copy", from))?;
        let times = fs::FileTimes::new().set_modified(found.modified().map_err(DiskError::on("read", from))?);
        let file = fs::File::options().append(true).open(to).map_err(DiskError::on("open", to))?;
        file.set_times(times).map_err(DiskError::on("change", to))?;
    }
    Ok(())
}

/// Writes a file whole, with the directories that it lies in.
fn put(target: &Path, content: &[u8], mode: u32) -> Result<(), RunError> {
    disk::make_directory(disk::parent(target))?;
    disk::remove_tree(target)?;
    let mut file = fs::File::create_new(target).map_err(DiskError::on("make", target))?;
    file.write_all(content).map_err(DiskError::on("write", target))?;
    file.set_permissions(fs::Permissions::from_mode(mode & 0o7777)).map_err(DiskError::on("change", target))?;
    Ok(())
}
