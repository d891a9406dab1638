//! Deciding what must run, and running it.
//!
//! [`plan`] is a decision from facts: a step's recipe, its key, what is
//! known under that key. [`perform`] does it: a clean place, processes, results.
//! Progress leaves this room as [`Event`]s, never as text.

mod audit;
mod base;
mod commit;
mod conflicts;
mod earlier;
mod event;
mod explain;
mod grant;
mod idle;
mod image;
mod imports;
mod judge;
mod keep;
mod kept;
mod known;
mod layer;
mod leftovers;
mod machine;
mod missing;
mod order;
mod peers;
mod perform;
mod place;
mod python;
mod reads;
mod reason;
mod recipe;
mod report;
mod resolve;
mod restore;
mod runtime;
mod schedule;
mod seeding;
mod select;
mod settle;
mod shown;
mod step;
mod trial;
mod turns;
mod wanted;
mod world;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod trial_tests;

use std::path::PathBuf;

use crate::disk::DiskError;
use crate::exec::{ExecError, Obstacle, Unpinned};
use crate::path::ProjectPath;
use crate::record::RecordError;
use crate::snapshot::SnapshotError;
use crate::store::StoreError;

pub use audit::{Audited, Fixed, Found, Seen, Undeclared, audit, declare, fix, newest};
pub use conflicts::{Conflict, Side, conflicts};
pub use event::{Differing, Event, StepDone};
pub use explain::{Change, ChangeKind, Explanation, Foreseen, explain};
pub use idle::{Idle, Named, Orphan, reclaim};
pub use image::{Images, images};
pub use judge::{Judged, Memory, Verdict, Work, plan};
pub use kept::{Entered, Kept, kept};
pub use leftovers::Leftovers;
pub use missing::{Hint, Scene, missing};
pub use order::learnt_order;
pub use peers::Peers;
pub use perform::{Mode, Performed, Request, perform};
pub use reason::{Difference, Reason};
pub use recipe::describe;
pub use report::{Compared, Origin, Report, conclude};
pub use restore::{Placing, Restored, Restoring, edited_outputs, remembered_paths, restore};
pub use schedule::{Capacity, Shortage};
pub use select::{Role, Selection, UnknownStep, Wish, refuse_unknown};
pub use step::Failure;
pub use trial::{Conditions, Laboratory, Trial};
pub use wanted::{needed_pythons, pythons, wanted};

/// Why a run could not be carried out. A step that fails is no such error.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Outputs in the working tree are neither what was recorded nor what Git has.
    #[error("{} in the working tree {} changed since `pv` wrote {}", names(paths), if paths.len() == 1 { "was" } else { "were" }, if paths.len() == 1 { "it" } else { "them" })]
    Edited {
        /// The outputs, sorted.
        paths: Vec<ProjectPath>,
    },
    /// The step's working directory is not in the snapshot.
    #[error("step `{step}` runs in `{workdir}`, which does not exist")]
    NoWorkdir {
        /// The step.
        step: String,
        /// Its `workdir`.
        workdir: ProjectPath,
    },
    /// A step keeps between its attempts what the snapshot has.
    #[error("step `{step}` keeps `{kept}`, {} the snapshot", if kept == found { "which is in".to_owned() } else { format!("but `{found}` is a file in") })]
    Kept {
        /// The step.
        step: String,
        /// One of the paths in its `keep`.
        kept: ProjectPath,
        /// What is there: that, or a file where a directory on the way to it should be.
        found: ProjectPath,
    },
    /// A variable that a step passes through cannot be passed.
    #[error("variable `{name}` of step `{step}` is not UTF-8 text")]
    Variable {
        /// The step.
        step: String,
        /// The variable.
        name: String,
    },
    /// A step asks for more than there is.
    #[error("step `{step}` asks for {shortage}")]
    Shortage {
        /// The step.
        step: String,
        /// For more of what.
        shortage: Shortage,
    },
    /// The result of a step that is not to be executed is not known.
    #[error("no result of step `{step}` is known")]
    NotKnown {
        /// The step.
        step: String,
    },
    /// A step was asked for that is not there.
    #[error(transparent)]
    UnknownStep(#[from] UnknownStep),
    /// A step must not see more than it declares, and nothing here can see to that.
    #[error("step `{step}` is strict, but steps cannot be isolated here: {why}")]
    NotStrict {
        /// The step.
        step: String,
        /// Why not.
        why: Obstacle,
    },
    /// A step's entropy must come from its seed, and nothing here can see to that.
    #[error("step `{step}` is pinned, but entropy cannot be pinned here")]
    NotPinned {
        /// The step.
        step: String,
        /// Why not.
        #[source]
        why: Unpinned,
    },
    /// What a step is to run in cannot be provided here.
    #[error("step `{step}` cannot have its environment: {why}")]
    NoEnvironment {
        /// The step.
        step: String,
        /// Why not.
        why: String,
    },
    /// The program that is to run a step in its image does not.
    #[error("step `{step}` cannot have its environment: {why}")]
    NoRuntime {
        /// The step.
        step: String,
        /// What is wrong with it, or what it said.
        why: String,
    },
    /// The Python environment of a step that is kept has gone.
    #[error("the Python environment of step `{step}` is not there any more")]
    NoPython {
        /// The step.
        step: String,
    },
    /// Nothing is kept of the step.
    #[error("nothing is kept of step `{step}`")]
    NotKept {
        /// The step, as it was asked for.
        step: String,
        /// The steps of which something is kept, sorted.
        kept: Vec<String>,
    },
    /// Something is kept of several combinations of a matrix.
    #[error("several combinations of step `{step}` are kept")]
    KeptSeveral {
        /// The step, as it was asked for.
        step: String,
        /// The combinations, sorted.
        combinations: Vec<String>,
    },
    /// Somebody else looks around in what the step left.
    #[error("what step `{step}` left is in use")]
    KeptInUse {
        /// The step.
        step: String,
        /// Whether by the run in which it failed, which goes on.
        by_run: bool,
    },
    /// What is written of what the step left is not understood.
    #[error("`{}` is not understood: {why}", path.display())]
    KeptUnknown {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The clean place could not be made.
    #[error("no place to run in at `{}`", path.display())]
    Place {
        /// Where it should have been.
        path: PathBuf,
        /// Why not.
        #[source]
        source: DiskError,
    },
    /// The snapshot could not be read or laid out.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Records could not be read or added.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A process could not be started or watched.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// A file could not be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

fn names(paths: &[ProjectPath]) -> String {
    paths.iter().map(|path| format!("`{path}`")).collect::<Vec<_>>().join(", ")
}
