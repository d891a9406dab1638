//! Finding the newest observation of each step.

use std::collections::BTreeMap;

use super::Seen;
use crate::path::ProjectPath;
use crate::pipeline::{Run as Command, Step};
use crate::record::{Journal, Observed, Reads, Recipe, RecordError, StepResult, StepVerdict};

/// How many runs are searched, the newest first.
const RUNS_SEARCHED: usize = 50;
const VARIABLE: &str = "variable ";

/// The newest observation of a step.
#[derive(Clone, Debug)]
pub struct Found {
    /// What it was seen to do.
    pub seen: Seen,
    /// What was executed then.
    pub command: Command,
}

/// Returns the newest observation of each of `steps` in runs of the pipeline `name`, by the step's name.
///
/// Of a step that was never observed, the newest result counts, and a step without any is left out. Costs a read of up
/// to 50 runs and of the results in them that are asked for.
///
/// # Errors
///
/// [`RecordError`] if records cannot be read.
pub fn newest<'s>(
    journal: &Journal,
    name: &str,
    steps: impl IntoIterator<Item = &'s Step>,
) -> Result<BTreeMap<String, Found>, RecordError> {
    let mut missing: BTreeMap<&str, &Step> = steps.into_iter().map(|step| (step.name.as_str(), step)).collect();
    let mut found: BTreeMap<String, Found> = BTreeMap::new();
    for run in journal.runs()?.take(RUNS_SEARCHED) {
        let (_, run) = run?;
        if missing.is_empty() {
            break;
        }
        if run.pipeline != name {
            continue;
        }
        for step in run.steps {
            let is_good = matches!(step.verdict, StepVerdict::Ran | StepVerdict::Reused);
            let (Some(key), true) = (step.key.filter(|_| is_good), missing.contains_key(step.step.as_str())) else {
                continue;
            };
            for (_, result) in journal.results(step.task, key)?.into_iter().rev() {
                let is_observed = result.observed.is_some();
                if is_observed || !found.contains_key(&step.step) {
                    found.insert(step.step.clone(), Found::of(result));
                }
                if is_observed {
                    missing.remove(step.step.as_str());
                    break;
                }
            }
        }
    }
    Ok(found)
}

impl Found {
    fn of(result: StepResult) -> Self {
        let observed = result.observed.unwrap_or_default();
        let Recipe { reads, environment, command, .. } = result.recipe;
        Self { seen: Self::seen_by(reads, &environment, observed), command }
    }

    /// Returns what a step was seen to do that read this in this environment.
    pub(in crate::run) fn seen_by(reads: Reads, environment: &BTreeMap<String, String>, observed: Observed) -> Seen {
        let variable = |name: &String| name.strip_prefix(VARIABLE).map(str::to_owned);
        let is_complete = observed.is_complete();
        let Observed { rung, readers, unread, writes, network, .. } = observed;
        Seen {
            rung,
            is_complete,
            reads: reads.into_iter().filter(|(path, _)| readers.contains_key(path)).collect(),
            readers,
            unread: unread.iter().map(ProjectPath::to_string).collect(),
            writes,
            network: network.into_keys().collect(),
            variables: environment.keys().filter_map(variable).collect(),
        }
    }
}
