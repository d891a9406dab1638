//! What a job was seen to do: the paths it touched and the addresses it talked to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How a job was observed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rung {
    /// The kernel reported each call and waited for the answer (seccomp user notification).
    Notify,
    /// Each call was stopped at (ptrace).
    Ptrace,
    /// Not at all.
    #[default]
    None,
}

/// What a job was seen to do.
///
/// Paths are absolute, as the job's processes mean them, without `.` and doubled slashes; `..` and
/// links are as they were given, because only the file system knows where they lead.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Observation {
    /// How it was observed; with [`Rung::None`] everything else is empty.
    pub rung: Rung,
    /// Whether it ran in namespaces of its own, over an overlay.
    pub isolated: bool,
    /// Whether all entropy that it was given came from its seed.
    pub pinned: bool,
    /// How many processes and threads it started after its first, if somebody followed that.
    pub started: Option<u64>,
    /// How often it was given random bits in place of the processor's own.
    pub processor_draws: u64,
    /// Whether it asked the processor for its count of cycles and was told another, other than while a program was loaded.
    pub counts_cycles: bool,
    /// Every path that it touched.
    pub touched: BTreeMap<PathBuf, Touch>,
    /// Whom it talked to, as `host:port`, with the program that did so first. What the job itself listens on is left out.
    pub peers: BTreeMap<String, String>,
    /// Whom it talked to in a way that is not kept, or for real although there is a record, as `host:port`; only where what
    /// others answer is kept or given again.
    pub anew: BTreeSet<String>,
    /// What could not be seen; if there is anything, the job may depend on more than is told.
    pub gaps: BTreeSet<Gap>,
}

/// What was done with one path. What was read after the job had written it itself is no reading.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Touch {
    /// Its bytes were read, or it was asked where it points.
    pub read: bool,
    /// The names in it were listed.
    pub listed: bool,
    /// It was asked whether it is there, or what it is.
    pub examined: bool,
    /// It was executed.
    pub executed: bool,
    /// It was written, made, renamed or removed.
    pub written: bool,
    /// The program that touched it first: the last name of its path.
    pub by: String,
}

/// Something of a job that could not be seen.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gap {
    /// A path could not be read from the memory of a process.
    Unreadable,
    /// A process took another view of the file system (its own mounts or root).
    OtherView,
    /// More paths than are kept were touched.
    TooMany,
}

impl Observation {
    /// Returns whether everything that the job depended on is told.
    pub fn is_complete(&self) -> bool {
        self.rung != Rung::None && self.gaps.is_empty()
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Notify => "notify",
            Self::Ptrace => "ptrace",
            Self::None => "none",
        })
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unreadable => "a process whose memory could not be read",
            Self::OtherView => "a process with mounts or a root of its own",
            Self::TooMany => "more paths than are kept",
        })
    }
}
