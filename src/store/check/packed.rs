//! Packs: their structure, their content, and saving what is whole in a damaged one.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::records::{State, record_bytes, states};
use super::{Checked, Flaw, Progress, Unit};
use crate::disk::{self, DiskError};
use crate::store::pack::{BadPack, Entry, HEADER_BYTES, Pack, Record, Tag, file_name, is_pack, read_stored, scan};
use crate::store::recipe::Recipe;
use crate::store::rewrite::copy_entries;
use crate::store::{LocalStore, StoreError};

impl LocalStore {
    /// Checks the structure of every pack, saves what is whole in those that have none, and returns the others.
    pub(super) fn check_structure(
        &self,
        progress: Progress<'_>,
        checked: &mut Checked,
    ) -> Result<Vec<Unit>, StoreError> {
        let mut sound = Vec::new();
        for path in self.pack_files()? {
            let flaw = match Pack::open(&path) {
                Ok(pack) if !pack.index_is_whole() => Flaw::Index,
                Ok(pack) if path.file_name().is_none_or(|name| name != file_name(pack.name()).as_str()) => Flaw::Name,
                Ok(_) => {
                    sound.push(Unit::Pack(path));
                    continue;
                }
                Err(BadPack::Damaged) => Flaw::NoPack,
                // It went meanwhile, into another one.
                Err(BadPack::Disk(error)) if error.is_missing() => continue,
                Err(BadPack::Disk(error)) => return Err(error.into()),
            };
            self.save_scanned(&path, flaw, progress, checked)?;
        }
        Ok(sound)
    }

    /// Checks the content of a pack whose index is whole, and saves what is whole if any of it is not.
    pub(super) fn check_pack(
        &self,
        path: &Path,
        progress: Progress<'_>,
        checked: &mut Checked,
    ) -> Result<(), StoreError> {
        let pack = match Pack::open(path) {
            Ok(pack) => pack,
            Err(BadPack::Disk(error)) if error.is_missing() => return Ok(()),
            Err(BadPack::Disk(error)) => return Err(error.into()),
            Err(BadPack::Damaged) => return self.save_scanned(path, Flaw::NoPack, progress, checked),
        };
        let mut entries: Vec<_> = pack.entries().collect();
        entries.sort_unstable_by_key(|entry| entry.offset);
        let found = examined(pack.file(), &entries, progress);
        count(checked, &entries);
        // An entry that cannot be understood is left out of the entries.
        let is_whole = entries.len() == pack.count() && found.iter().all(|(_, state)| *state == State::Whole);
        if is_whole {
            let recipes: Vec<_> = entries.into_iter().filter(|entry| entry.tag == Tag::Recipe).collect();
            return self.check_blobs(&recipes, progress, checked);
        }
        self.save(path, Flaw::Records, pack.file(), &found, checked)
    }

    /// Saves every whole record of a pack whose index cannot be trusted.
    fn save_scanned(
        &self,
        path: &Path,
        flaw: Flaw,
        progress: Progress<'_>,
        checked: &mut Checked,
    ) -> Result<(), StoreError> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file.map_err(DiskError::on("read", path))?,
        };
        let mapped = disk::map_file(path)?;
        let bytes = mapped.as_deref().unwrap_or_default();
        let mut entries: Vec<Entry> =
            scan(bytes).into_iter().filter_map(|found| with_length(bytes, found.entry)).collect();
        let scanned: BTreeSet<u64> = entries.iter().map(|entry| entry.offset).collect();
        // What the index says of other places may be as wrong as the index: it is a hint where a header was damaged.
        let hints: Vec<_> = Pack::open(path).map(|pack| pack.entries().collect()).unwrap_or_default();
        entries.extend(hints.into_iter().filter(|hint| !scanned.contains(&hint.offset)));
        entries.sort_unstable_by_key(|entry| entry.offset);
        let mut found = examined(&file, &entries, progress);
        // A hint that leads to nothing may name what never was.
        found.retain(|(entry, state)| *state != State::Bad || scanned.contains(&entry.offset));
        count(checked, &entries);
        self.save(path, flaw, &file, &found, checked)
    }

    /// Stages what is whole of a damaged pack for a new one, and uses the old one no more.
    fn save(
        &self,
        path: &Path,
        flaw: Flaw,
        file: &File,
        found: &[(Entry, State)],
        checked: &mut Checked,
    ) -> Result<(), StoreError> {
        if !self.is_writable()? {
            let bad: Vec<_> = found.iter().filter(|(_, state)| *state == State::Bad).map(|(entry, _)| *entry).collect();
            checked.note_damage(self.relative(path), flaw, (found.len() - bad.len()) as u64, &bad);
            return Ok(());
        }
        // First, because what is staged may become a pack of the same name.
        self.packs.forget(path);
        let of = |wanted: State| found.iter().filter(move |(_, state)| *state == wanted).map(|(entry, _)| *entry);
        let copied = copy_entries(self, file, of(State::Whole))?;
        let mut saved = copied.records;
        let mut bad: Vec<_> = of(State::Bad).chain(copied.damaged).collect();
        for entry in of(State::HeaderDamaged) {
            if self.copy_content(file, &entry)? {
                saved += 1;
            } else {
                bad.push(entry);
            }
        }
        checked.note_damage(self.relative(path), flaw, saved, &bad);
        Ok(())
    }

    /// Stages a record anew whose header is damaged; returns whether it is what was written.
    fn copy_content(&self, file: &File, entry: &Entry) -> Result<bool, StoreError> {
        let (Ok(stored) | Err(stored)) = read_stored(file, entry).map_err(|error| self.unreadable(error))?;
        if entry.tag == Tag::Recipe {
            let makes_it = |recipe: Recipe| self.makes(&recipe, entry.digest);
            if !Recipe::decode(&stored).is_some_and(makes_it) {
                return Ok(false);
            }
        }
        let raw = if entry.tag == Tag::Recipe { stored.len() as u64 } else { entry.length };
        let Ok(raw) = u32::try_from(raw) else { return Ok(false) };
        let Entry { tag, digest, codec, length, .. } = *entry;
        let record = Record { tag, digest, codec, stored: &stored, raw, length };
        self.staging.append(&record, &self.packs, || self.session_directory())?;
        Ok(true)
    }

    /// Returns the files that are named as packs, sorted.
    fn pack_files(&self) -> Result<Vec<PathBuf>, StoreError> {
        let directory = self.layout.packs();
        let listed = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed.map_err(DiskError::on("read", &directory))?,
        };
        let paths = listed.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
        let mut paths = paths.map_err(DiskError::on("read", &directory))?;
        paths.retain(|path| is_pack(path));
        paths.sort_unstable();
        Ok(paths)
    }
}

fn examined(file: &File, entries: &[Entry], progress: Progress<'_>) -> Vec<(Entry, State)> {
    entries.iter().copied().zip(states(file, entries, progress)).collect()
}

fn count(checked: &mut Checked, entries: &[Entry]) {
    checked.packs += 1;
    checked.objects += entries.len() as u64;
    checked.bytes += entries.iter().map(record_bytes).sum::<u64>();
}

/// Returns the entry of a record that was found in a pack's `bytes`, with the length of the blob if it is a recipe.
fn with_length(bytes: &[u8], entry: Entry) -> Option<Entry> {
    if entry.tag != Tag::Recipe {
        return Some(entry);
    }
    let from = usize::try_from(entry.offset).ok()? + HEADER_BYTES;
    let length = Recipe::decode(bytes.get(from..from + entry.stored as usize)?)?.length;
    Some(Entry { length, ..entry })
}
