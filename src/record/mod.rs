//! Records: immutable facts about the world, named by their content.
//!
//! A run that took place, a commit that was linked to a snapshot, a version
//! name that was given, a step's result under a key. Records only accumulate;
//! two sets merge by union. This room knows what they say ([`Record`]) and how
//! the set is kept and exchanged with Git ([`Journal`]).

mod check;
mod error;
mod exchange;
mod fact;
mod journal;
mod lookup;
mod place;
mod sets;
mod sets_format;
mod travel;
mod verification;

pub use check::{CheckedRecords, DamagedRecord, LostRecord, RecordCopy, RecordFlaw};
pub use error::RecordError;
pub use exchange::META_REF;
pub use fact::{
    By, Layer, Link, Observed, Output, OutputKind, Reads, Recipe, Record, Run, RunStep, RunVerdict, SeedRules, Seeding,
    StepResult, StepVerdict, Strict, Version,
};
pub use journal::Journal;
pub use sets::{ABSENT, Aspect, KnownResult, Name, ReadSet, ReadSets, sum};
pub use travel::{META_BRANCH, Sent, carries_records};
pub use verification::{Verification, VerifiedCause, VerifiedStep};
