//! Whether results repeat, and if not, why.
//!
//! [`Verification::repeat`] executes a step again and compares. [`Verification::explain`] searches, by experiments, for
//! what its result depends on besides what is declared: everything is pinned, then varied, and what was varied alone when the
//! result was another is a cause. Nothing is concluded from how code looks; that only says what to try.

mod candidates;
mod cause;
mod dimension;
mod page;
mod page_graph;
mod search;
mod step;
mod verdict;

use std::fmt;
use std::time::Duration;

use crate::compare::CompareError;
use crate::run::{Laboratory, RunError, StepDone, Work};

pub use cause::Cause;
pub use page::{Node, Page, Used};
pub use verdict::{CauseNamed, OutputVerdict, Rung, StepVerdict};

/// How many executions a search may take that has no other bound.
pub const RUNS_MAX: u32 = 60;

/// How long a search may go on for one step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Budget {
    /// So many executions.
    Runs(u32),
    /// So much time: no execution begins after it.
    Time(Duration),
}

/// What is being tried.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The step.
    pub step: &'a str,
    /// Which execution of it this is, from 1.
    pub run: u32,
    /// What is varied in it.
    pub varied: &'a [Cause],
}

/// Why a step cannot be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It cannot be executed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Its outputs cannot be compared.
    #[error(transparent)]
    Compare(#[from] CompareError),
}

/// Steps that are verified, each alone.
pub struct Verification<'a, 'w> {
    /// The pipeline.
    pub work: &'a Work<'w>,
    /// Where steps are executed.
    pub laboratory: &'a Laboratory<'a>,
    /// What is on record of each step.
    pub done: &'a [StepDone],
    /// How long a search may go on for one step.
    pub budget: Budget,
    /// Is told of each execution before it begins.
    pub progress: &'a dyn Fn(Progress<'_>),
}

impl Verification<'_, '_> {
    /// Executes the step at `index` `runs` times and compares with what is on record. The first time it is executed as ever; then
    /// what an ordinary execution does not fix is varied, such as the date and the order of listings.
    ///
    /// # Errors
    ///
    /// [`VerifyError`] if it cannot be executed or compared.
    pub fn repeat(&self, index: usize, runs: u32) -> Result<StepVerdict, VerifyError> {
        self.subject(index)?.repeat(runs)
    }

    /// Searches for what the result of the step at `index` depends on besides what is declared.
    ///
    /// # Errors
    ///
    /// [`VerifyError`] if it cannot be executed or compared.
    pub fn explain(&self, index: usize) -> Result<StepVerdict, VerifyError> {
        self.subject(index)?.explain()
    }

    fn subject(&self, index: usize) -> Result<step::Subject<'_, '_>, VerifyError> {
        let name = &self.work.pipeline.steps[index].name;
        let done = self.done.iter().find(|done| done.step == *name);
        Ok(step::Subject {
            work: self.work,
            laboratory: self.laboratory,
            index,
            recorded: done.map(|done| done.outputs.as_slice()).unwrap_or_default(),
            elapsed: self.laboratory.elapsed_on_record(index)?,
            budget: self.budget,
            progress: self.progress,
        })
    }
}

impl Budget {
    fn is_used_up(self, runs: u32, elapsed: Duration) -> bool {
        match self {
            Self::Runs(most) => runs >= most,
            Self::Time(most) => elapsed >= most,
        }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runs(1) => f.write_str("1 run"),
            Self::Runs(runs) => write!(f, "{runs} runs"),
            Self::Time(time) => write!(f, "{} s", time.as_secs()),
        }
    }
}
