//! The JSON schema of a definition, for editors.
//!
//! Derived from the model and its docstrings; the functions here describe the
//! shorter forms that the YAML file offers. It cannot say what concerns two
//! places at once (a circle, two writers of one path): the reader does.

use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator, json_schema};

use crate::object::SEED_MAX;

use super::model::{NAME_MAX_CHARS, Pipeline, Step, TIMEOUT_MAX_S};

/// A relative path without a `..` part. A leading `./` and a trailing `/` are accepted.
const PATH_PATTERN: &str = r"^(?!/)(?!(?:.*/)?\.\.(?:/|$))(?!(?:\./*)+$).+$";
const STEP_NAME_PATTERN: &str = "^[A-Za-z0-9_][A-Za-z0-9_.-]*$";
const VARIABLE_PATTERN: &str = "^(?!PV_)[A-Za-z_][A-Za-z0-9_]*$";
const VARIABLE_ITEM_PATTERN: &str = "^(?!PV_)[A-Za-z_][A-Za-z0-9_]*(?:=[\\s\\S]*)?$";

/// Returns the JSON schema (draft 2020-12) of the YAML file that [`read`](super::read) accepts.
pub fn schema() -> serde_json::Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<Pipeline>();
    schema.insert("title".to_owned(), "Pipeline of pv".into());
    schema.to_value()
}

fn one_or_many(item: &Schema) -> Schema {
    json_schema!({ "anyOf": [item, { "type": "array", "items": item, "uniqueItems": true }] })
}

pub(super) fn name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 1, "maxLength": NAME_MAX_CHARS, "pattern": r"^\S+$" })
}

fn step_name() -> Schema {
    json_schema!({ "type": "string", "maxLength": NAME_MAX_CHARS, "pattern": STEP_NAME_PATTERN })
}

pub(super) fn seed(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "minimum": 0, "maximum": SEED_MAX })
}

pub(super) fn path(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": PATH_PATTERN })
}

pub(super) fn workdir(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": PATH_PATTERN.replace(r"(?!(?:\./*)+$)", "") })
}

pub(super) fn paths(generator: &mut SchemaGenerator) -> Schema {
    one_or_many(&path(generator))
}

pub(super) fn names(_: &mut SchemaGenerator) -> Schema {
    one_or_many(&step_name())
}

pub(super) fn keys(_: &mut SchemaGenerator) -> Schema {
    one_or_many(&json_schema!({ "type": "string", "minLength": 1 }))
}

pub(super) fn params(generator: &mut SchemaGenerator) -> Schema {
    let file = json_schema!({ "allOf": [path(generator), { "pattern": r"\.(?:yaml|yml|json)$" }] });
    one_or_many(&json_schema!({ "anyOf": [file, { "type": "object" }] }))
}

pub(super) fn steps(generator: &mut SchemaGenerator) -> Schema {
    let step = generator.subschema_for::<Step>();
    json_schema!({ "type": "object", "minProperties": 1, "propertyNames": step_name(), "additionalProperties": step })
}

pub(super) fn run(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "anyOf": [
            { "type": "string", "pattern": r"\S" },
            { "type": "array", "items": { "type": ["string", "integer"] }, "minItems": 1 },
        ]
    })
}

pub(super) fn env(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "anyOf": [
            {
                "type": "object",
                "propertyNames": { "pattern": VARIABLE_PATTERN },
                "additionalProperties": { "type": ["string", "integer"] },
            },
            { "type": "array", "items": { "type": "string", "pattern": VARIABLE_ITEM_PATTERN }, "uniqueItems": true },
        ]
    })
}

pub(super) fn timeout(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "anyOf": [
            { "type": "integer", "minimum": 1, "maximum": TIMEOUT_MAX_S },
            { "type": "string", "pattern": "^[0-9]*[1-9][0-9]*[smhd]$" },
        ]
    })
}
