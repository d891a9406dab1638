//! The JSON schema of a definition, for editors.
//!
//! Derived from the model and its docstrings; the functions here describe the
//! shorter forms that the YAML file offers. It cannot say what concerns two
//! places at once (a circle, two writers of one path): the reader does.

use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator, json_schema};

use crate::object::SEED_MAX;

use super::model::{
    MEMORY_MAX_BYTES, MEMORY_MIN_BYTES, NAME_MAX_CHARS, Pipeline, RETRIES_MAX, SLOTS_MAX, Step, TIMEOUT_MAX_S,
};

/// A relative path without a `..` part. A leading `./` and a trailing `/` are accepted.
const PATH_PATTERN: &str = r"^(?!/)(?!(?:.*/)?\.\.(?:/|$))(?!(?:\./*)+$).+$";
const STEP_NAME_PATTERN: &str = "^[A-Za-z0-9_][A-Za-z0-9_.-]*$";
const MATRIX_NAME_PATTERN: &str = "^[A-Za-z_][A-Za-z0-9_-]*$";
const SEED_OF_MATRIX_PATTERN: &str = r"^\$\{matrix\.[A-Za-z_][A-Za-z0-9_-]*\}$";
const IMAGE_PATTERN: &str = r"^[^@\s]+@sha256:[0-9a-f]{64}$";
const PYTHON_PATTERN: &str = r"^[0-9]{1,3}\.[0-9]{1,3}(?:\.[0-9]{1,3})?$";
const VARIABLE_PATTERN: &str = "^(?!PV_)[A-Za-z_][A-Za-z0-9_]*$";
const VARIABLE_ITEM_PATTERN: &str = "^(?!PV_)[A-Za-z_][A-Za-z0-9_]*(?:=[\\s\\S]*)?$";

/// Returns the JSON schema (draft 2020-12) of the YAML file that [`read`](super::read) accepts.
pub fn schema() -> serde_json::Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<Pipeline>();
    schema.insert("title".to_owned(), "Pipeline of pv".into());
    let mut schema = schema.to_value();
    // Keys of the file that the normalised form has no place for: reading has done what they ask for.
    schema["properties"]["isolate"] = described(isolate_values(), ISOLATE_FOR_ALL);
    schema["properties"]["determinism"] = described(determinism_values(), DETERMINISM_FOR_ALL);
    schema["$defs"]["Step"]["properties"]["matrix"] = described(matrix(), MATRIX);
    schema
}

const ISOLATE_FOR_ALL: &str = "The `isolate` of every step that has none of its own.";
const DETERMINISM_FOR_ALL: &str = "The `determinism` of every step that has none of its own.";
const MATRIX: &str = "Makes one step for each combination of values: a map from names to lists of values, where \
                      `include` and `exclude` are lists of maps from names to values.";

fn described(schema: Schema, description: &str) -> serde_json::Value {
    let mut schema = schema;
    schema.insert("description".to_owned(), description.into());
    schema.to_value()
}

fn matrix() -> Schema {
    let value = json_schema!({ "type": ["string", "number", "boolean"] });
    let names = json_schema!({ "pattern": MATRIX_NAME_PATTERN });
    let maps = json_schema!({
        "type": "array",
        "items": { "type": "object", "minProperties": 1, "propertyNames": names, "additionalProperties": value },
    });
    json_schema!({
        "type": "object",
        "minProperties": 1,
        "propertyNames": names,
        "properties": { "include": maps, "exclude": maps },
        "additionalProperties": { "type": "array", "items": value, "minItems": 1, "uniqueItems": true },
    })
}

fn isolate_values() -> Schema {
    json_schema!({ "enum": ["observe", "strict"], "default": "observe" })
}

pub(super) fn isolate(_: &mut SchemaGenerator) -> Schema {
    isolate_values()
}

fn determinism_values() -> Schema {
    json_schema!({ "enum": ["free", "pinned"], "default": "free" })
}

pub(super) fn determinism(_: &mut SchemaGenerator) -> Schema {
    determinism_values()
}

pub(super) fn home(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "enum": ["own", "host"], "default": "own" })
}

pub(super) fn environment(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "anyOf": [
            { "const": "host" },
            {
                "type": "object",
                "required": ["image"],
                "additionalProperties": false,
                "properties": {
                    "image": { "type": "string", "pattern": IMAGE_PATTERN },
                    "runtime": { "enum": ["pv", "podman", "docker", "apptainer"], "default": "pv" },
                },
            },
            {
                "type": "object",
                "required": ["python"],
                "additionalProperties": false,
                "properties": {
                    "python": {
                        "type": "object",
                        "required": ["version", "lock"],
                        "additionalProperties": false,
                        "properties": {
                            "version": { "type": "string", "pattern": PYTHON_PATTERN },
                            "lock": path(generator),
                        },
                    },
                },
            },
        ]
    })
}

pub(super) fn retries(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "minimum": 0, "maximum": RETRIES_MAX, "default": 0 })
}

pub(super) fn cpus(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "minimum": 1, "maximum": SLOTS_MAX, "default": 1 })
}

pub(super) fn gpus(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "minimum": 0, "maximum": SLOTS_MAX, "default": 0 })
}

pub(super) fn memory(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "anyOf": [
            { "type": "integer", "minimum": MEMORY_MIN_BYTES, "maximum": MEMORY_MAX_BYTES },
            { "type": "string", "pattern": "^[0-9]*[1-9][0-9]* ?[KMGT]iB$" },
        ]
    })
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

/// The seed of a step may come from its matrix.
pub(super) fn step_seed(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "anyOf": [seed(generator), { "type": "string", "pattern": SEED_OF_MATRIX_PATTERN }] })
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

/// An output may say how far it may differ between two runs.
pub(super) fn outputs(generator: &mut SchemaGenerator) -> Schema {
    let level = json_schema!({ "enum": ["identical", "canonical", "close"] });
    let bound = json_schema!({ "type": "number", "minimum": 0 });
    let compare = json_schema!({
        "anyOf": [
            level,
            {
                "type": "object",
                "required": ["level"],
                "additionalProperties": false,
                "properties": { "level": level, "rtol": bound, "atol": bound },
                "if": { "properties": { "level": { "not": { "const": "close" } } } },
                "then": { "properties": { "rtol": false, "atol": false } },
            },
        ]
    });
    let path = path(generator);
    one_or_many(&json_schema!({
        "anyOf": [
            path,
            {
                "type": "object",
                "required": ["path"],
                "additionalProperties": false,
                "properties": { "path": path, "compare": compare },
            },
        ]
    }))
}

pub(super) fn names(_: &mut SchemaGenerator) -> Schema {
    // A name of `needs` may also be one combination of a matrix: `train@rate=0.1`.
    one_or_many(&json_schema!({ "type": "string", "minLength": 1 }))
}

pub(super) fn locks(_: &mut SchemaGenerator) -> Schema {
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
