//! What came of a verification.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::cause::Cause;
use crate::compare::{Comparison, Level};

/// How much of the world around a step could be pinned.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rung {
    /// Everything that the engine knows.
    Full,
    /// Everything but clocks: the step does not bear them pinned.
    Untimed,
    /// Variables, directories and files alone.
    Variables,
}

impl Rung {
    /// Returns the word for it, as JSON has it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Untimed => "untimed",
            Self::Variables => "variables",
        }
    }
}

/// What came of verifying one step.
#[derive(Clone, Debug)]
pub struct StepVerdict {
    /// The step.
    pub step: String,
    /// What all executions have in common.
    pub level: Level,
    /// Whether that is as much as the definition asks for.
    pub is_allowed: bool,
    /// How often it was executed.
    pub runs: u32,
    /// How long that took.
    pub elapsed: Duration,
    /// How each output came out, the worst of all executions.
    pub outputs: Vec<OutputVerdict>,
    /// What its result depends on besides what is declared.
    pub causes: Vec<CauseNamed>,
    /// What is to be said besides.
    pub notes: Vec<String>,
    /// How much could be pinned.
    pub rung: Rung,
    /// What was varied.
    pub varied: Vec<Cause>,
    /// Whether the user stopped it.
    pub interrupted: bool,
}

/// How one output came out.
#[derive(Clone, Debug)]
pub struct OutputVerdict {
    /// How it differs where it differs most.
    pub comparison: Comparison,
    /// Whether the definition allows that.
    pub is_allowed: bool,
}

/// Something that a result depends on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct CauseNamed {
    /// What.
    pub cause: Cause,
    /// Whether it was varied alone, with everything else pinned, and the result was another.
    pub confirmed: bool,
    /// What was done, and what came of it.
    pub evidence: String,
    /// What a person can do.
    pub fix: String,
    /// Where it bites, a line each.
    pub places: Vec<String>,
}

impl CauseNamed {
    /// Returns that nobody knows the cause, and why not.
    pub(super) fn undetermined(why: &str) -> Self {
        let cause = Cause::Undetermined;
        Self { fix: cause.fix(), cause, confirmed: false, evidence: why.to_owned(), places: Vec::new() }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl Serialize for OutputVerdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.comparison.serialize(serializer)
    }
}

impl Serialize for StepVerdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut fields = serializer.serialize_struct("StepVerdict", 8)?;
        fields.serialize_field("step", &self.step)?;
        fields.serialize_field("level", &self.level)?;
        fields.serialize_field("allowed", &self.is_allowed)?;
        fields.serialize_field("runs", &self.runs)?;
        fields.serialize_field("elapsed_ms", &u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX))?;
        fields.serialize_field("outputs", &self.outputs)?;
        fields.serialize_field("causes", &self.causes)?;
        fields.serialize_field("notes", &self.notes)?;
        fields.end()
    }
}
