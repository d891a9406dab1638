//! What came of verifying a snapshot.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::fact::By;
use crate::host::Time;
use crate::object::SnapshotId;
use crate::pipeline::Level;

/// So many causes have room in a badge.
const BADGE_CAUSES_MAX: usize = 3;

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
    /// Returns it in a few characters: `identical, 2 runs`, or on what results depend, `different: clock`.
    pub fn badge(&self) -> String {
        let level = self.level();
        let causes: BTreeSet<&str> =
            self.steps.iter().flat_map(|step| &step.causes).map(|named| named.cause.as_str()).collect();
        let causes: Vec<&str> = causes.into_iter().collect();
        let stopped = if self.interrupted { ", interrupted" } else { "" };
        match (causes.len(), self.runs()) {
            (0, 1) => format!("{level}, 1 run{stopped}"),
            (0, runs) => format!("{level}, {runs} runs{stopped}"),
            (1..=BADGE_CAUSES_MAX, _) => format!("{level}: {}{stopped}", causes.join(", ")),
            (all, _) => {
                let told = causes[..BADGE_CAUSES_MAX].join(", ");
                format!("{level}: {told} and {} more{stopped}", all - BADGE_CAUSES_MAX)
            }
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    fn verification(causes: &[&str], level: Level) -> Verification {
        let cause = |name: &&str| VerifiedCause { cause: (*name).to_owned(), confirmed: true };
        let step = |causes: &[&str], level| VerifiedStep {
            step: "any".to_owned(),
            level,
            allowed: level == Level::Identical,
            runs: 2,
            causes: causes.iter().map(cause).collect(),
        };
        Verification {
            snapshot: crate::hash::Digest::of(b"any").into(),
            pipeline: "pipeline".to_owned(),
            time: "2026-01-31T09:30:00Z".parse().unwrap(),
            by: By { who: String::new(), host: String::new(), platform: String::new(), pv: String::new() },
            explained: !causes.is_empty(),
            interrupted: false,
            rung: "full".to_owned(),
            varied: BTreeSet::new(),
            steps: vec![step(&[], Level::Identical), step(causes, level)],
        }
    }

    #[test]
    fn a_badge_tells_the_level_and_the_causes_or_how_much_was_executed() {
        assert_eq!(verification(&[], Level::Identical).badge(), "identical, 4 runs");
        assert_eq!(verification(&[], Level::Close).badge(), "close, 4 runs");
        assert_eq!(verification(&["clock"], Level::Different).badge(), "different: clock");
        let many = verification(&["pid", "clock", "entropy", "home", "clock"], Level::Different);
        assert_eq!(many.badge(), "different: clock, entropy, home and 1 more");
        let stopped = Verification { interrupted: true, ..verification(&[], Level::Identical) };
        assert_eq!(stopped.badge(), "identical, 4 runs, interrupted");
    }
}
