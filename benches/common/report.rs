//! The rows of one job and what must be known to read them, as a file below the target directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::facts;
use super::row::Row;
use super::scratch::target;
use super::size::Size;

/// What one benchmark found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// `full` or `quick`.
    pub(crate) size: String,
    /// The day on which it was measured, in UTC.
    pub(crate) day: String,
    pub(crate) took_s: u64,
    /// What it ran on, one fact a line of text.
    pub(crate) machine: Vec<String>,
    /// Each program that took part, and its version.
    pub(crate) versions: BTreeMap<String, String>,
    /// What was not measured, and why.
    pub(crate) not_measured: Vec<String>,
    pub(crate) rows: Vec<Row>,
}

impl Report {
    /// Returns a report of rows that were measured on this machine, today.
    pub(crate) fn of(rows: Vec<Row>, size: Size, took_s: u64) -> Self {
        Self {
            size: size.name().to_owned(),
            day: facts::today(),
            took_s,
            machine: facts::machine(),
            versions: BTreeMap::from([("pv".to_owned(), facts::measured_version())]),
            not_measured: Vec::new(),
            rows,
        }
    }

    /// Writes it and returns the file.
    pub(crate) fn keep(&self, directory: &Path, name: &str) -> PathBuf {
        let file = directory.join(format!("{name}.json"));
        std::fs::create_dir_all(directory).unwrap();
        std::fs::write(&file, serde_json::to_string_pretty(self).unwrap() + "\n").unwrap();
        file
    }
}

/// Where the reports of runs of this size lie.
pub(crate) fn directory(size: Size) -> PathBuf {
    target().join("bench").join(size.name())
}
