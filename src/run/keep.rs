//! What a step finds again when it is tried again: checkpoints.
//!
//! It lies beside the places of runs, one directory for each step of a pipeline, and is moved into the step's tree
//! before the step is executed and out of it afterwards, so that no other step sees it. A note in the place says where
//! it is meanwhile: if `pv` is killed, the next run that makes a place moves it out. After a success it
//! is removed, or a training that has ended would be taken up again for ever.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::RunError;
use crate::disk::{self, Durability, Lock};
use crate::hash::Digest;
use crate::host::Time;
use crate::object::Entry;
use crate::path::ProjectPath;
use crate::pipeline::Step;
use crate::snapshot::View;

/// The directory beside the places that holds what is kept.
const KEEP: &str = "keep";
/// What the names of files beside what is kept end with: whose it is, and the lock.
const OWNER: &str = "json";
const LOCK: &str = "lock";
/// What notes in a place end with.
const NOTE: &str = "checkpoints";

/// What one step keeps, in use by one execution.
#[derive(Debug)]
pub(super) struct Keep {
    /// Where it lies while the step is not executed.
    directory: PathBuf,
    note: PathBuf,
    tree: PathBuf,
    paths: Vec<ProjectPath>,
    /// `None` if another execution of the step has it; then this one begins without, and leaves nothing.
    lock: Option<Lock>,
    /// Whether there was something from an earlier attempt.
    pub(super) resumed: bool,
}

/// Whose something kept is, in a file beside it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Owner {
    pub(super) pipeline: String,
    pub(super) step: String,
    /// When it was last executed, in milliseconds since 1970.
    pub(super) used_ms: i64,
}

/// Where something kept is while its step is executed.
#[derive(Serialize, Deserialize)]
struct Note {
    directory: PathBuf,
    tree: PathBuf,
    paths: Vec<ProjectPath>,
}

impl Keep {
    /// Moves what the step called `step` kept into `tree`, and notes that in `place`. Costs a rename for each path.
    ///
    /// # Errors
    ///
    /// [`RunError::Disk`] if it cannot be moved.
    pub(super) fn move_in(
        places: &Path,
        place: &Path,
        tree: &Path,
        pipeline: &str,
        step: &str,
        paths: &[ProjectPath],
    ) -> Result<Self, RunError> {
        let name = name_of(pipeline, step);
        let directory = places.join(KEEP).join(&name);
        let note = place.join(format!("{name}.{NOTE}"));
        let lock = Lock::try_exclusive(&directory.with_extension(LOCK))?;
        let mut keep = Self { directory, note, tree: tree.to_owned(), paths: paths.to_vec(), lock, resumed: false };
        for path in paths {
            disk::remove_tree(&path.under(tree))?;
            if let Some(parent) = path.parent() {
                disk::make_directory(&parent.under(tree))?;
            }
        }
        if keep.lock.is_some() {
            let used_ms = Time::now().epoch_ms;
            let owner = Owner { pipeline: pipeline.to_owned(), step: step.to_owned(), used_ms };
            let text = serde_json::to_vec(&owner).expect("an owner has text keys only");
            disk::write_whole(&keep.directory.with_extension(OWNER), &text, Durability::Deferred)?;
            let (directory, tree, paths) = (keep.directory.clone(), keep.tree.clone(), keep.paths.clone());
            let text = serde_json::to_vec(&Note { directory, tree, paths }).expect("a note has text keys only");
            // Before anything moves: what the note names and is not there does no harm.
            disk::write_whole(&keep.note, &text, Durability::Deferred)?;
            for path in paths_in(&keep.directory, &keep.paths) {
                disk::rename(&path.under(&keep.directory), &path.under(&keep.tree))?;
                keep.resumed = true;
            }
        }
        Ok(keep)
    }

    /// Moves what the step has left out of its tree, and the directories made for it if they are empty.
    ///
    /// # Errors
    ///
    /// [`RunError::Disk`] if it cannot be moved.
    pub(super) fn move_out(&self) -> Result<(), RunError> {
        if self.lock.is_some() {
            carry(&self.tree, &self.directory, &self.paths)?;
        }
        for path in &self.paths {
            disk::remove_tree(&path.under(&self.tree))?;
            let mut above = path.parent();
            while let Some(parent) = above.filter(|parent| fs::remove_dir(parent.under(&self.tree)).is_ok()) {
                above = parent.parent();
            }
        }
        Ok(disk::remove_tree(&self.note)?)
    }

    /// Removes what is kept: the step has succeeded, or what it did is worth nothing.
    ///
    /// # Errors
    ///
    /// [`RunError::Disk`] if it cannot be removed.
    pub(super) fn forget(&self) -> Result<(), RunError> {
        if self.lock.is_some() {
            disk::remove_tree(&self.directory)?;
            disk::remove_tree(&self.directory.with_extension(OWNER))?;
        }
        Ok(())
    }
}

/// Returns the name of the directory of what a step keeps.
pub(super) fn name_of(pipeline: &str, step: &str) -> String {
    Digest::of(format!("{pipeline}\0{step}").as_bytes()).short()
}

/// Something that is kept, in nobody's use for as long as this is alive.
pub(super) struct Idle {
    /// Where it lies, if there is any.
    pub(super) directory: PathBuf,
    /// Whose it is; `None` if that is not known.
    pub(super) owner: Option<Owner>,
    lock: Lock,
}

impl Idle {
    /// Removes what is beside it, once it is gone itself.
    ///
    /// # Errors
    ///
    /// [`RunError::Disk`] if it cannot be removed.
    pub(super) fn close(self) -> Result<(), RunError> {
        disk::remove_tree(&self.directory.with_extension(OWNER))?;
        self.lock.remove();
        Ok(())
    }
}

/// Returns everything kept beside the `places` that no execution has, sorted by name.
///
/// # Errors
///
/// [`RunError::Disk`] if it cannot be listed or read.
pub(super) fn idle(places: &Path) -> Result<Vec<Idle>, RunError> {
    let keep = places.join(KEEP);
    if disk::look(&keep)?.is_none() {
        return Ok(Vec::new());
    }
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(&keep).map_err(disk::DiskError::on("list", &keep))? {
        names.extend(entry.map_err(disk::DiskError::on("list", &keep))?.path().file_stem().map(OsStr::to_owned));
    }
    let mut idle = Vec::new();
    for name in names {
        let directory = keep.join(name);
        if let Some(lock) = Lock::try_exclusive(&directory.with_extension(LOCK))? {
            let text = disk::read_if_there(&directory.with_extension(OWNER))?.unwrap_or_default();
            idle.push(Idle { directory, owner: serde_json::from_slice(&text).ok(), lock });
        }
    }
    Ok(idle)
}

/// Refuses a step that keeps what the snapshot has: that is there at every attempt, so it cannot be what an earlier one left.
///
/// Costs one look into the snapshot for each part of a path.
///
/// # Errors
///
/// [`RunError::Kept`] if it does, or [`RunError::Snapshot`] if the snapshot cannot be read.
pub(super) fn refuse_taken(view: &View<'_>, step: &Step) -> Result<(), RunError> {
    for kept in &step.keep {
        let taken =
            |found: &ProjectPath| RunError::Kept { step: step.name.clone(), kept: kept.clone(), found: found.clone() };
        if view.entry(kept)?.is_some() {
            return Err(taken(kept));
        }
        let mut above = kept.parent();
        while let Some(path) = above {
            if !matches!(view.entry(&path)?, None | Some(Entry::Directory { .. })) {
                return Err(taken(&path));
            }
            above = path.parent();
        }
    }
    Ok(())
}

/// Saves what steps kept in the place of a run that died, before that is removed. The caller holds the place's lock.
///
/// # Errors
///
/// [`RunError::Disk`] if something cannot be moved.
pub(super) fn save(place: &Path) -> Result<(), RunError> {
    let entries = fs::read_dir(place).map_err(disk::DiskError::on("list", place))?;
    for path in
        entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == NOTE))
    {
        let Some(text) = disk::read_if_there(&path)? else { continue };
        // One that was cut short was written before anything moved.
        let Ok(Note { directory, tree, paths }) = serde_json::from_slice(&text) else { continue };
        // Whoever has the lock began without it, and will leave something newer.
        if let Some(_lock) = Lock::try_exclusive(&directory.with_extension(LOCK))? {
            carry(&tree, &directory, &paths)?;
        }
    }
    Ok(())
}

fn carry(from: &Path, to: &Path, paths: &[ProjectPath]) -> Result<(), RunError> {
    for path in paths_in(from, paths) {
        let target = path.under(to);
        disk::remove_tree(&target)?;
        disk::make_directory(disk::parent(&target))?;
        disk::rename(&path.under(from), &target)?;
    }
    Ok(())
}

fn paths_in<'p>(directory: &Path, paths: &'p [ProjectPath]) -> Vec<&'p ProjectPath> {
    paths.iter().filter(|path| fs::symlink_metadata(path.under(directory)).is_ok()).collect()
}
