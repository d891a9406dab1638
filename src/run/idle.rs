//! Giving back the room of what lies beside the places of runs and is of no more use.
//!
//! Nothing that anybody uses goes: what is in use is locked by its user, and no place is made meanwhile. What goes is
//! first moved aside, at once, and then removed, which takes its time and holds nobody up.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::RunError;
use super::base;
use super::image;
use super::keep::{self, Owner};
use super::place::{self, MAKING};
use super::runtime;
use crate::disk::{self, DiskError, Found, Lock};
use crate::host::Time;

/// What the names of things begin with that were moved aside.
const GONE: &str = "gone-";

/// What is idle and goes, or went.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Idle {
    /// How many checkouts that runs began from.
    pub checkouts: u64,
    /// How many places of runs that failed or died.
    pub places: u64,
    /// What steps kept between attempts.
    pub kept: Vec<Orphan>,
    /// The bytes of all their files.
    pub bytes: u64,
}

/// What a step kept that no pipeline has any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Orphan {
    /// The step and its pipeline, if that is known.
    pub owner: Option<(String, String)>,
    /// The bytes of its files.
    pub bytes: u64,
}

/// The steps that some pipeline has.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Named {
    steps: BTreeSet<String>,
    unreadable: BTreeSet<String>,
}

impl Named {
    /// Adds a step of a pipeline.
    pub fn add(&mut self, pipeline: &str, step: &str) {
        self.steps.insert(keep::name_of(pipeline, step));
    }

    /// Adds a pipeline of which somewhere nobody can tell what steps it has. All that could be theirs stays.
    pub fn add_unreadable(&mut self, pipeline: &str) {
        self.unreadable.insert(pipeline.to_owned());
    }

    fn has(&self, directory: &Path, owner: Option<&Owner>) -> bool {
        let is_of_step =
            directory.file_name().and_then(|name| name.to_str()).is_some_and(|name| self.steps.contains(name));
        let may_be = owner.map_or(!self.unreadable.is_empty(), |owner| self.unreadable.contains(&owner.pipeline));
        is_of_step || may_be
    }
}

/// Removes what lies in `places` and nobody has used since `until`: checkouts that runs begin from, places of runs
/// that failed, and what steps keep that are not `named`; and places of runs that died. With `dry_run` only tells it.
///
/// `named` is asked only if it matters. Costs a listing of what goes.
///
/// # Errors
///
/// [`RunError::Disk`] if something cannot be read or removed, and what `named` says; what is of use is there all the same.
pub fn reclaim<E: From<RunError>>(
    places: &Path,
    until: Time,
    dry_run: bool,
    named: &dyn Fn() -> Result<Named, E>,
) -> Result<Idle, E> {
    let mut idle = Idle::default();
    if !matches!(disk::look(places).map_err(RunError::from)?, Some(Found::Directory)) {
        return Ok(idle);
    }
    let mut aside = Aside { places, dry_run, moved: Vec::new() };
    {
        let _making = Lock::exclusive(&places.join(MAKING)).map_err(RunError::from)?;
        aside.find_left()?;
        aside.of_runs(until, &mut idle)?;
    }
    aside.of_steps(until, &mut idle, named)?;
    aside.remove()?;
    Ok(idle)
}

/// What is moved out of the way of others.
struct Aside<'a> {
    places: &'a Path,
    dry_run: bool,
    moved: Vec<PathBuf>,
}

impl Aside<'_> {
    /// Finds what an earlier collection moved aside and could not remove.
    fn find_left(&mut self) -> Result<(), RunError> {
        for entry in fs::read_dir(self.places).map_err(DiskError::on("list", self.places))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(GONE) {
                self.moved.push(entry.path());
            }
        }
        Ok(())
    }

    fn of_runs(&mut self, until: Time, idle: &mut Idle) -> Result<(), RunError> {
        for (directory, _lock, used) in base::idle(self.places)? {
            if used <= until {
                idle.checkouts += 1;
                idle.bytes += self.take(&directory)?;
            }
        }
        for (directory, _lock, used) in image::idle(self.places)? {
            if used <= until {
                idle.checkouts += 1;
                idle.bytes += self.take(&directory)?;
            }
        }
        for (directory, _lock, kept) in place::idle(self.places)? {
            if kept.is_none() && !self.dry_run {
                keep::save(&directory)?;
                runtime::remove_left(&directory);
            }
            if kept.is_none_or(|time| time <= until) {
                idle.places += 1;
                idle.bytes += self.take(&directory)?;
            }
        }
        Ok(())
    }

    fn of_steps<E: From<RunError>>(
        &mut self,
        until: Time,
        idle: &mut Idle,
        named: &dyn Fn() -> Result<Named, E>,
    ) -> Result<(), E> {
        let mut candidates = Vec::new();
        for kept in keep::idle(self.places)? {
            if disk::look(&kept.directory).map_err(RunError::from)?.is_some() {
                candidates.push(kept);
            } else if !self.dry_run {
                kept.close()?;
            }
        }
        candidates.retain(|kept| kept.owner.as_ref().is_none_or(|owner| owner.used_ms <= until.epoch_ms));
        if candidates.is_empty() {
            return Ok(());
        }
        let named = named()?;
        for kept in candidates {
            if named.has(&kept.directory, kept.owner.as_ref()) {
                continue;
            }
            let bytes = self.take(&kept.directory)?;
            idle.bytes += bytes;
            idle.kept.push(Orphan { owner: kept.owner.clone().map(|owner| (owner.pipeline, owner.step)), bytes });
            if !self.dry_run {
                kept.close()?;
            }
        }
        Ok(())
    }

    /// Moves a directory aside, whose lock the caller holds, and returns how many bytes its files have.
    fn take(&mut self, directory: &Path) -> Result<u64, RunError> {
        let bytes = disk::bytes_below(directory);
        if !self.dry_run {
            let aside = tempfile::Builder::new().prefix(GONE).tempdir_in(self.places);
            let aside = aside.map_err(DiskError::on("make a directory in", self.places))?.keep();
            disk::rename(directory, &aside.join("it"))?;
            self.moved.push(aside);
        }
        Ok(bytes)
    }

    fn remove(self) -> Result<(), RunError> {
        if !self.dry_run {
            self.moved.iter().try_for_each(|path| disk::remove_tree(path))?;
        }
        Ok(())
    }
}
