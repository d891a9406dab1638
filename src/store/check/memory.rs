//! Remembering what was found whole, and when: a line for each unit, the one that is due first comes first.
//!
//! It decides in which order units are checked, never whether they are whole,
//! and may be deleted at any time.

use std::collections::BTreeMap;

use super::Unit;
use crate::disk::{self, Disk, Durability};
use crate::host::Time;
use crate::store::layout::Layout;

/// What is remembered, in the order of the file: each unit's name, and the line that tells of it.
pub(super) struct Memory {
    lines: Vec<(String, String)>,
    layout_root: std::path::PathBuf,
}

impl Memory {
    /// Returns what is remembered of the store. What cannot be read counts as forgotten.
    pub(super) fn read(layout: &Layout) -> Self {
        let bytes = disk::read_if_there(&layout.verified()).ok().flatten().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let line = |line: &str| Some((line.split_once(' ')?.1.to_owned(), line.to_owned()));
        Self { lines: text.lines().filter_map(line).collect(), layout_root: layout.root().to_owned() }
    }

    /// Sorts units: first those that were never found whole, then those that were not for the longest time.
    pub(super) fn sort(&self, units: &mut [Unit]) {
        let places: BTreeMap<&str, usize> =
            self.lines.iter().enumerate().map(|(place, (name, _))| (name.as_str(), place)).collect();
        units.sort_by_key(|unit| (places.get(self.name(unit).as_str()).copied(), unit.path().to_owned()));
    }

    /// Remembers that `clean` units were found whole just now, and forgets those that are not among `all`.
    pub(super) fn note(&mut self, clean: &[Unit], all: &[Unit]) {
        let names: Vec<_> = clean.iter().map(|unit| self.name(unit)).collect();
        let there: std::collections::BTreeSet<_> = all.iter().map(|unit| self.name(unit)).collect();
        self.lines.retain(|(name, _)| there.contains(name) && !names.contains(name));
        let now = Time::now();
        self.lines.extend(names.into_iter().map(|name| (name.clone(), format!("{now} {name}"))));
    }

    /// Writes it. What cannot be written, in a store that is only read, is done without.
    pub(super) fn write(&self, disk: &dyn Disk, layout: &Layout) {
        let text: String = self.lines.iter().flat_map(|(_, line)| [line.as_str(), "\n"]).collect();
        if disk::look(layout.root()).is_ok_and(|found| found.is_some()) {
            let _ = disk::write_whole_on(disk, &layout.verified(), text.as_bytes(), Durability::Deferred);
        }
    }

    fn name(&self, unit: &Unit) -> String {
        unit.path().strip_prefix(&self.layout_root).unwrap_or(unit.path()).to_string_lossy().into_owned()
    }
}
