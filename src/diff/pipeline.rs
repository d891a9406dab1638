//! What changed in the definition, step by step and field by field.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use crate::pipeline::{Pipeline, Run, Step};

/// A step that differs.
#[derive(Debug, Serialize, PartialEq)]
pub struct StepChange {
    /// Its name; the new one if it was renamed.
    pub step: String,
    /// What happened to it.
    pub change: StepHow,
    /// What differs in it; the field `name` if it was renamed in place.
    pub fields: Vec<FieldChange>,
}

/// What happened to a step.
#[derive(Debug, Serialize, PartialEq, Eq, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub enum StepHow {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is in both and differs.
    Modified,
}

/// A field that differs.
#[derive(Debug, Serialize, PartialEq)]
pub struct FieldChange {
    /// Which, as it is spelled in the definition.
    pub field: &'static str,
    /// Its value before, spelled as in a definition; null if it was not there.
    pub old: Value,
    /// Its value after.
    pub new: Value,
}

/// The fields of a step, in the order in which people read them.
const FIELDS: [&str; 12] = [
    "description",
    "run",
    "inputs",
    "outputs",
    "metrics",
    "compare",
    "needs",
    "env",
    "params",
    "seed",
    "timeout_s",
    "workdir",
];

/// Returns the steps that differ, in the order of the new definition; removed ones follow the step they stood after.
pub(super) fn changes(old: &Pipeline, new: &Pipeline) -> Vec<StepChange> {
    let names = |pipeline: &Pipeline| pipeline.steps.iter().map(|s| s.name.clone()).collect::<BTreeSet<_>>();
    let (old_names, new_names) = (names(old), names(new));
    let gone: Vec<&Step> = old.steps.iter().filter(|step| !new_names.contains(&step.name)).collect();
    let come: Vec<&Step> = new.steps.iter().filter(|step| !old_names.contains(&step.name)).collect();
    let renamed: Vec<(&Step, &Step)> = renames(&gone, &come);
    let mut changes = Vec::new();
    let mut told: BTreeSet<&str> = BTreeSet::new();
    let mut tell_removed_before = |place: usize, changes: &mut Vec<StepChange>| {
        for step in &old.steps[..place] {
            let is_renamed = renamed.iter().any(|(before, _)| before.name == step.name);
            if !new_names.contains(&step.name) && !is_renamed && told.insert(&step.name) {
                changes.push(StepChange {
                    step: step.name.clone(),
                    change: StepHow::Removed,
                    fields: fields(Some(step), None),
                });
            }
        }
    };
    for step in &new.steps {
        let before = old
            .steps
            .iter()
            .find(|other| other.name == step.name)
            .or_else(|| renamed.iter().find(|(_, after)| after.name == step.name).map(|(before, _)| *before));
        match before {
            Some(before) => {
                let place = old.steps.iter().position(|other| other.name == before.name).unwrap_or_default();
                tell_removed_before(place, &mut changes);
                let fields = fields(Some(before), Some(step));
                if !fields.is_empty() {
                    changes.push(StepChange { step: step.name.clone(), change: StepHow::Modified, fields });
                }
            }
            None => {
                let fields = fields(None, Some(step));
                changes.push(StepChange { step: step.name.clone(), change: StepHow::Added, fields });
            }
        }
    }
    tell_removed_before(old.steps.len(), &mut changes);
    changes
}

/// Pairs steps that went with steps that came and do the same: equal but for the name, or with the same outputs.
fn renames<'a>(gone: &[&'a Step], come: &[&'a Step]) -> Vec<(&'a Step, &'a Step)> {
    let mut pairs: Vec<(&Step, &Step)> = Vec::new();
    let same_but_name = |a: &Step, b: &Step| fields(Some(a), Some(b)).iter().all(|field| field.field == "name");
    let same_outputs = |a: &Step, b: &Step| !a.outputs.is_empty() && a.outputs == b.outputs;
    let tests: [&dyn Fn(&Step, &Step) -> bool; 2] = [&same_but_name, &same_outputs];
    for test in tests {
        for before in gone {
            let free = |step: &&&'a Step| !pairs.iter().any(|(_, after)| after.name == step.name);
            let paired = pairs.iter().any(|(other, _)| other.name == before.name);
            if let Some(after) = come.iter().filter(free).find(|after| test(before, after)).filter(|_| !paired) {
                pairs.push((before, after));
            }
        }
    }
    pairs
}

fn fields(old: Option<&Step>, new: Option<&Step>) -> Vec<FieldChange> {
    let as_map = |step: Option<&Step>| step.map(spelled).unwrap_or_default();
    let (old_map, new_map) = (as_map(old), as_map(new));
    let mut changes = Vec::new();
    if let (Some(old), Some(new)) = (old, new)
        && old.name != new.name
    {
        changes.push(FieldChange { field: "name", old: old.name.clone().into(), new: new.name.clone().into() });
    }
    for field in FIELDS {
        let value = |map: &Value| map.get(field).cloned().filter(|value| !is_nothing(value)).unwrap_or_default();
        let (before, after) = (value(&old_map), value(&new_map));
        if before != after {
            let field = if field == "timeout_s" { "timeout" } else { field };
            changes.push(FieldChange { field, old: before, new: after });
        }
    }
    changes
}

/// Returns the fields of a step as people spell them: the command as text or list, variables as `NAME=value` or `NAME`.
fn spelled(step: &Step) -> Value {
    let mut fields = serde_json::to_value(step).unwrap_or_default();
    fields["run"] = match &step.run {
        Run::Shell(line) => line.as_str().into(),
        Run::Program(words) => words.as_slice().into(),
    };
    let fixed = step.env.fixed.iter().map(|(name, value)| (name, format!("{name}={value}")));
    let passed = step.env.passed.iter().map(|name| (name, name.clone()));
    let env: BTreeMap<&String, String> = fixed.chain(passed).collect();
    fields["env"] = if env.is_empty() { Value::Null } else { env.into_values().collect() };
    fields
}

/// An empty list says the same as none, except for `inputs`, where it is a statement.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map
            .values()
            .all(|v| matches!(v, Value::Object(m) if m.is_empty()) || matches!(v, Value::Array(a) if a.is_empty())),
        _ => false,
    }
}
