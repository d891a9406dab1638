//! Results that contradict each other: one key, different outputs.

use std::collections::BTreeMap;

use serde::Serialize;

use super::RunError;
use crate::object::{RecordId, StepKey};
use crate::record::{Journal, Output, StepResult};

/// One key under which more than one result is known.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Conflict {
    /// The step.
    pub step: String,
    /// The key.
    pub key: StepKey,
    /// The results that differ, oldest first.
    pub results: Vec<Side>,
}

/// One of the results that contradict each other.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Side {
    /// The record of the result.
    pub result: RecordId,
    /// What was written.
    pub outputs: Vec<Output>,
    /// The runs that had these outputs, newest first.
    pub runs: Vec<RecordId>,
}

/// Returns all results that contradict each other, by step and key.
///
/// Costs a read of every result and every run.
///
/// # Errors
///
/// [`RunError::Record`] if records cannot be read.
pub fn conflicts(journal: &Journal) -> Result<Vec<Conflict>, RunError> {
    let mut by_key: BTreeMap<(String, StepKey), Vec<(RecordId, StepResult)>> = BTreeMap::new();
    for (id, result) in journal.all_results()? {
        by_key.entry((result.recipe.step.clone(), result.key)).or_default().push((id, result));
    }
    let mut conflicts = Vec::new();
    for ((step, key), mut known) in by_key {
        known.sort_by_key(|(id, result)| (result.started, *id));
        let mut results: Vec<Side> = Vec::new();
        for (id, result) in known {
            if results.iter().all(|other| other.outputs != result.outputs) {
                results.push(Side { result: id, outputs: result.outputs, runs: Vec::new() });
            }
        }
        if results.len() > 1 {
            conflicts.push(Conflict { step, key, results });
        }
    }
    if !conflicts.is_empty() {
        add_runs(journal, &mut conflicts)?;
    }
    Ok(conflicts)
}

fn add_runs(journal: &Journal, conflicts: &mut [Conflict]) -> Result<(), RunError> {
    for run in journal.runs()? {
        let (id, run) = run?;
        for step in &run.steps {
            let same = |conflict: &&mut Conflict| Some(conflict.key) == step.key && conflict.step == step.step;
            let Some(conflict) = conflicts.iter_mut().find(same) else { continue };
            let sides = conflict.results.iter_mut().filter(|side| side.outputs == step.outputs);
            sides.for_each(|side| side.runs.push(id));
        }
    }
    Ok(())
}
