//! What changed in the values of metrics files.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::Side;
use crate::object::Kind;
use crate::path::ProjectPath;
use crate::record::OutputKind;
use crate::snapshot::SnapshotError;
use crate::store::Store;
use crate::yaml;

/// A metrics file larger than this holds no handful of values.
const METRICS_BYTES_MAX: u64 = 4 << 20;

/// A value in a metrics file that differs.
#[derive(Debug, Serialize, PartialEq)]
pub struct MetricChange {
    /// The file.
    pub path: ProjectPath,
    /// The dotted key of the value.
    pub key: String,
    /// The value before.
    pub old: Option<Value>,
    /// The value after.
    pub new: Option<Value>,
    /// The difference, if both are numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<f64>,
}

/// Returns the values that differ, by file and key. Files that are no JSON or YAML have no values.
pub(super) fn changes(store: &dyn Store, from: &Side<'_>, to: &Side<'_>) -> Result<Vec<MetricChange>, SnapshotError> {
    let mut changes = Vec::new();
    let (old, new) = (values(store, from)?, values(store, to)?);
    for place in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
        let (before, after) = (old.get(place), new.get(place));
        if before != after {
            let number = |value: Option<&Value>| value.and_then(Value::as_f64);
            changes.push(MetricChange {
                path: place.0.clone(),
                key: place.1.clone(),
                old: before.cloned(),
                new: after.cloned(),
                delta: number(after).zip(number(before)).map(|(after, before)| after - before),
            });
        }
    }
    Ok(changes)
}

type Values = BTreeMap<(ProjectPath, String), Value>;

fn values(store: &dyn Store, side: &Side<'_>) -> Result<Values, SnapshotError> {
    let mut values = Values::new();
    let Some((_, run)) = side.run else { return Ok(values) };
    let declared: BTreeSet<&ProjectPath> = side.pipeline.steps.iter().flat_map(|step| &step.metrics).collect();
    for output in run.steps.iter().flat_map(|step| &step.outputs) {
        let is_file = matches!(output.kind, OutputKind::File | OutputKind::Executable);
        if !declared.contains(&output.path) || !is_file || output.size > METRICS_BYTES_MAX {
            continue;
        }
        if store.length(Kind::Blob, output.digest)?.is_none() {
            continue;
        }
        let bytes = store.get(Kind::Blob, output.digest)?;
        let parsed = serde_json::from_slice(&bytes).ok().or_else(|| yaml::read_plain(&bytes).ok());
        if let Some(value) = parsed {
            flatten(&output.path, String::new(), value, &mut values);
        }
    }
    Ok(values)
}

fn flatten(path: &ProjectPath, key: String, value: Value, values: &mut Values) {
    let below = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                flatten(path, below(&name), value, values);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.into_iter().enumerate() {
                flatten(path, below(&index.to_string()), value, values);
            }
        }
        value => {
            values.insert((path.clone(), key), value);
        }
    }
}
