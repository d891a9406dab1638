//! The Python environments that were made here: which there are, who uses one, and taking those away that nobody needs.
//!
//! Whoever uses one holds its lock together with others, whoever makes or removes one holds it alone; the kernel gives it back when
//! a process dies. What goes is first moved aside, at once: it is there whole or not at all, and what a removal that was killed
//! leaves is nobody's environment, and goes the next time.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::provide::{COMPLETE, Complete, directory_of};
use crate::disk::{self, DiskError, Lock};
use crate::hash::Digest;
use crate::host::Time;

/// What the names of things begin with that were moved aside.
const GONE: &str = "gone-";
const LOCK_ENDING: &str = "lock";

/// A Python environment that is here, whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Made {
    /// What decides about it.
    pub digest: Digest,
    /// The version of Python that was asked for.
    pub version: String,
    /// The lock's path in the project that it was first made for.
    pub lock: String,
    /// Where it lies.
    pub directory: PathBuf,
}

/// What nobody needs and goes, or went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Unneeded {
    /// How many environments; what attempts left that did not come to their end counts as one each.
    pub environments: u64,
    /// The bytes of their files.
    pub bytes: u64,
}

/// Returns the file of the lock of an environment.
pub(super) fn lock_of(base: &Path, digest: &Digest) -> PathBuf {
    base.join(digest.to_string()).with_extension(LOCK_ENDING)
}

/// Holds the environment at `venv` against its removal; `None` if this user may not lock it.
///
/// Waits for whoever makes or removes it. Whether it is there is to be asked afterwards.
///
/// # Errors
///
/// [`DiskError`] if the file system has no locks.
pub fn hold(venv: &Path) -> Result<Option<Lock>, DiskError> {
    match Lock::shared(&disk::parent(venv).with_extension(LOCK_ENDING)) {
        Err(error) if error.is_refused() => Ok(None),
        held => held.map(Some),
    }
}

/// Notes that somebody begins to use an environment. Where it cannot be noted, only its removal comes earlier.
pub(super) fn note_use(held: &Lock) {
    drop(held.note(Time::now().epoch_ms.to_string().as_bytes()));
}

/// Returns the environments below `base` that are whole, sorted.
///
/// Costs a read of a small file for each.
///
/// # Errors
///
/// [`DiskError`] if they cannot be listed.
pub fn made(base: &Path) -> Result<Vec<Made>, DiskError> {
    let mut all: Vec<Made> = homes(base)?.into_iter().filter_map(|digest| whole(base, digest)).collect();
    all.sort_by(|a, b| (&a.lock, &a.version, a.digest).cmp(&(&b.lock, &b.version, b.digest)));
    Ok(all)
}

/// Removes an environment, for good, and returns how many bytes its files had; `None` if somebody uses it.
///
/// # Errors
///
/// [`DiskError`] if it cannot be moved aside or removed.
pub fn remove(base: &Path, digest: &Digest) -> Result<Option<u64>, DiskError> {
    let Some(lock) = Lock::try_exclusive(&lock_of(base, digest))? else { return Ok(None) };
    let home = base.join(digest.to_string());
    let bytes = disk::bytes_below(&home);
    take_away(base, &home, lock)?;
    Ok(Some(bytes))
}

/// Removes the environments below `base` that nobody uses, has used since `until`, or needs, and what attempts left that did not
/// come to their end. With `dry_run` only tells it.
///
/// `needed` is asked only if it matters. Costs a listing of what goes.
///
/// # Errors
///
/// [`DiskError`] if something cannot be read or removed, and what `needed` says; what is whole and stays can be used all the same.
pub fn reclaim<E: From<DiskError>>(
    base: &Path,
    until: Time,
    dry_run: bool,
    needed: &dyn Fn() -> Result<BTreeSet<Digest>, E>,
) -> Result<Unneeded, E> {
    let mut unneeded = Unneeded::default();
    let mut known = None;
    if !dry_run {
        left(base)?.iter().try_for_each(|path| disk::remove_tree(path))?;
    }
    for digest in homes(base)? {
        let Some(lock) = Lock::try_exclusive(&lock_of(base, &digest))? else { continue };
        if whole(base, digest).is_some() {
            let used = std::str::from_utf8(&lock.noted()?).ok().and_then(|text| text.parse().ok());
            if used.unwrap_or(i64::MIN) > until.epoch_ms {
                continue;
            }
            let needed = match &mut known {
                Some(needed) => needed,
                none => none.insert(needed()?),
            };
            if needed.contains(&digest) {
                continue;
            }
        }
        let home = base.join(digest.to_string());
        unneeded.environments += 1;
        unneeded.bytes += disk::bytes_below(&home);
        if !dry_run {
            take_away(base, &home, lock)?;
        }
    }
    Ok(unneeded)
}

/// Moves an environment aside, whose lock is held alone, gives the lock back, and removes it.
fn take_away(base: &Path, home: &Path, lock: Lock) -> Result<(), DiskError> {
    let aside = tempfile::Builder::new().prefix(GONE).tempdir_in(base);
    let aside = aside.map_err(DiskError::on("make a directory in", base))?.keep();
    disk::rename(home, &aside.join("it"))?;
    // A power cut must not bring back what is half removed.
    disk::sync_directory(base)?;
    lock.remove();
    disk::remove_tree(&aside)
}

/// Returns what an earlier removal moved aside and did not come to remove.
fn left(base: &Path) -> Result<Vec<PathBuf>, DiskError> {
    let names = names(base)?.into_iter();
    Ok(names.filter(|name| name.starts_with(GONE)).map(|name| base.join(name)).collect())
}

/// Returns what has a directory below `base`, whole or not.
fn homes(base: &Path) -> Result<Vec<Digest>, DiskError> {
    Ok(names(base)?.into_iter().filter_map(|name| name.parse().ok()).collect())
}

fn names(base: &Path) -> Result<Vec<String>, DiskError> {
    let entries = match fs::read_dir(base) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(DiskError::on("list", base))?,
    };
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

fn whole(base: &Path, digest: Digest) -> Option<Made> {
    let home = base.join(digest.to_string());
    let noted: Complete = serde_json::from_slice(&disk::read_if_there(&home.join(COMPLETE)).ok()??).ok()?;
    let directory = directory_of(&home, &noted)?;
    Some(Made { digest, version: noted.version, lock: noted.lock, directory })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Durability;

    /// Makes an environment that looks whole, last used at this time.
    fn make(base: &Path, name: &str, used_ms: i64) -> Digest {
        let digest = Digest::of(name.as_bytes());
        let home = base.join(digest.to_string());
        disk::write_whole(&home.join("1/bin/python"), b"12345", Durability::Deferred).unwrap();
        let text = format!(
            "{{\"directory\":\"1\",\"version\":\"3.11\",\"lock\":\"{name}\",\"platform\":\"p\",\"made_by\":\"pip\"}}"
        );
        disk::write_whole(&home.join(COMPLETE), text.as_bytes(), Durability::Deferred).unwrap();
        Lock::exclusive(&lock_of(base, &digest)).unwrap().note(used_ms.to_string().as_bytes()).unwrap();
        digest
    }

    fn gone(base: &Path, needed: &[Digest], dry_run: bool) -> u64 {
        let needed = || Ok::<_, DiskError>(needed.iter().copied().collect());
        reclaim(base, Time { epoch_ms: 50 }, dry_run, &needed).unwrap().environments
    }

    #[test]
    fn what_is_needed_used_or_new_stays_and_the_rest_goes_whole() {
        let root = tempfile::tempdir().unwrap();
        let base = root.path();
        let [needed, used, new, old] =
            [("needed", 0), ("used", 0), ("new", 51), ("old", 50)].map(|(name, used_ms)| make(base, name, used_ms));
        let held = hold(&base.join(used.to_string()).join("1")).unwrap().unwrap();
        let names = |base: &Path| made(base).unwrap().into_iter().map(|made| made.lock).collect::<Vec<_>>();
        assert_eq!(gone(base, &[needed], true), 1);
        assert_eq!(names(base), ["needed", "new", "old", "used"], "a dry run removes nothing");
        assert_eq!(gone(base, &[needed], false), 1);
        assert_eq!(names(base), ["needed", "new", "used"]);
        assert!(!lock_of(base, &old).exists() && left(base).unwrap().is_empty(), "nothing is left beside it");
        assert_eq!(remove(base, &used).unwrap(), None);
        drop(held);
        assert_eq!(gone(base, &[needed], false), 1);
        assert!(remove(base, &new).unwrap().is_some());
        assert_eq!(names(base), ["needed"]);
    }

    #[test]
    fn what_was_left_half_made_or_half_removed_goes_also_if_it_is_new() {
        let root = tempfile::tempdir().unwrap();
        let base = root.path();
        let half = make(base, "half", 100);
        disk::remove_tree(&base.join(half.to_string()).join(COMPLETE)).unwrap();
        disk::write_whole(&base.join("gone-x/it/1/lib"), b"", Durability::Deferred).unwrap();
        let making = Lock::exclusive(&lock_of(base, &half)).unwrap();
        assert_eq!(gone(base, &[half], false), 0, "somebody makes it");
        drop(making);
        assert_eq!(gone(base, &[half], false), 1);
        assert_eq!(fs::read_dir(base).unwrap().count(), 0);
    }
}
