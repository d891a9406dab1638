//! What came of verifying a snapshot.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::fact::By;
use crate::host::Time;
use crate::object::SnapshotId;
use crate::pipeline::Level;

/// A snapshot was verified: steps of it were executed again and compared.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Verification {
    /// What was verified.
    pub snapshot: SnapshotId,
    /// The pipeline's name.
    pub pipeline: String,
    /// When it ended.
    pub time: Time,
    /// By whom, and where.
    pub by: By,
    /// Whether causes were searched for.
    pub explained: bool,
    /// Whether the user stopped it, so that steps may be missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interrupted: bool,
    /// How much of the world around the steps could be pinned: `full`, `untimed` or `variables`, the least of all steps.
    pub rung: String,
    /// What was varied in some step.
    pub varied: BTreeSet<String>,
    /// What came of each step that was verified, in the order in which they run.
    pub steps: Vec<VerifiedStep>,
}

/// What came of verifying a step.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VerifiedStep {
    /// The step's name.
    pub step: String,
    /// What all executions have in common.
    pub level: Level,
    /// Whether that is as much as the definition asked for.
    pub allowed: bool,
    /// How often it was executed.
    pub runs: u32,
    /// What its result depends on besides what is declared, and whether an experiment showed that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<VerifiedCause>,
}

/// Something that a result was found to depend on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VerifiedCause {
    /// Its name, such as `hash-seed` or `env:MODE`.
    pub cause: String,
    /// Whether it was varied alone, and the result was another.
    pub confirmed: bool,
}

impl Verification {
    /// Returns the worst level of the steps; identical if there are none.
    pub fn level(&self) -> Level {
        self.steps.iter().map(|step| step.level).max().unwrap_or_default()
    }

    /// Returns how often steps were executed.
    pub fn runs(&self) -> u32 {
        self.steps.iter().map(|step| step.runs).sum()
    }

    /// Returns whether every step came out as its definition asks for.
    pub fn is_allowed(&self) -> bool {
        self.steps.iter().all(|step| step.allowed)
    }
}
