//! YAML and TOML as trees.

use std::borrow::Cow;

use super::tree::Value;
use crate::yaml;

/// Longer texts are compared as text: what is read of them takes many times their length.
const TOML_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Returns the value that the text is, or `None` if it is no single YAML document that means the same to all readers.
pub(super) fn read_yaml(text: &str) -> Option<Value<'static>> {
    yaml::read_spanned(text.as_bytes()).ok().map(|node| of_yaml(node.value))
}

fn of_yaml(value: yaml::Value) -> Value<'static> {
    match value {
        yaml::Value::Null => Value::Null,
        yaml::Value::Bool(value) => Value::Bool(value),
        yaml::Value::Int(value) => Value::Number(Cow::Owned(value.to_string())),
        yaml::Value::Float(value) => Value::Number(Cow::Owned(format!("{value:?}"))),
        yaml::Value::Text(text) => Value::Text(Cow::Owned(text)),
        yaml::Value::List(items) => Value::List(items.into_iter().map(|item| of_yaml(item.value)).collect()),
        yaml::Value::Map(entries) => {
            Value::Map(entries.into_iter().map(|(key, node)| (Cow::Owned(key.text), of_yaml(node.value))).collect())
        }
    }
}

/// Returns the value that the text is, or `None` if it is no TOML.
pub(super) fn read_toml(text: &str) -> Option<Value<'static>> {
    if text.len() > TOML_MAX_BYTES {
        return None;
    }
    toml::from_str::<toml::Table>(text).ok().map(|table| of_toml(toml::Value::Table(table)))
}

fn of_toml(value: toml::Value) -> Value<'static> {
    match value {
        toml::Value::Boolean(value) => Value::Bool(value),
        toml::Value::Integer(value) => Value::Number(Cow::Owned(value.to_string())),
        toml::Value::Float(value) => Value::Number(Cow::Owned(format!("{value:?}"))),
        toml::Value::Datetime(moment) => Value::Text(Cow::Owned(moment.to_string())),
        toml::Value::String(text) => Value::Text(Cow::Owned(text)),
        toml::Value::Array(items) => Value::List(items.into_iter().map(of_toml).collect()),
        toml::Value::Table(table) => {
            Value::Map(table.into_iter().map(|(name, value)| (Cow::Owned(name), of_toml(value))).collect())
        }
    }
}
