//! Reading params files and foreign YAML through `serde_yaml`.

use serde_json::Value as Json;
use serde_yaml::Value as Plain;

use super::tree::{self, Keys};
use super::{Node, Value, YamlError, decode};

/// Returns the one document in `text` as JSON, merge keys applied.
///
/// Keys that are whole numbers or booleans become the text that they print
/// as. A text without any value is `null`. Costs two passes over the text: the
/// strict reader goes first, and both must find the same.
///
/// # Errors
///
/// [`YamlError`] for all that [`read_spanned`](super::read_spanned) refuses
/// (but for those keys), for numbers that are not finite or beyond 64 bits,
/// and for a value on which the two readers do not agree.
pub fn read_plain(text: &[u8]) -> Result<Json, YamlError> {
    let (text, skipped) = decode(text)?;
    agreed(text).map_err(|error| error.moved(skipped))
}

fn agreed(text: &str) -> Result<Json, YamlError> {
    let strict = tree::read(text, Keys::Scalars)?;
    // Finds the place of every number that JSON does not have.
    strict.to_json()?;
    // `serde_yaml` takes a text without a value for the end of a file that was cut off.
    let plain = if strict.value == Value::Null {
        Plain::Null
    } else {
        serde_yaml::from_str(text).map_err(|error| foreign(&error))?
    };
    let json = to_json(plain).ok_or_else(|| disagree(&strict))?;
    match difference(&strict, &json) {
        None => Ok(json),
        Some(node) => Err(disagree(node)),
    }
}

fn disagree(node: &Node) -> YamlError {
    YamlError::new("readers of YAML do not agree on what this means", node.span.clone())
        .hint("write it in a plainer form, text in quotes")
}

fn foreign(error: &serde_yaml::Error) -> YamlError {
    let message = format!("this is not YAML: {error}");
    match error.location() {
        Some(location) => YamlError::new(message, location.index()..location.index()),
        None => YamlError::whole(message),
    }
}

/// Returns the value as JSON with its merge keys applied; `None` for what the strict reader refuses.
fn to_json(plain: Plain) -> Option<Json> {
    Some(match plain {
        Plain::Null => Json::Null,
        Plain::Bool(value) => value.into(),
        Plain::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(value), _, _) => value.into(),
            (_, Some(value), _) => value.into(),
            (_, _, value) => serde_json::Number::from_f64(value?)?.into(),
        },
        Plain::String(text) => text.into(),
        Plain::Sequence(items) => items.into_iter().map(to_json).collect::<Option<Vec<_>>>()?.into(),
        Plain::Mapping(entries) => Json::Object(map_to_json(entries)?),
        Plain::Tagged(_) => return None,
    })
}

/// `serde_yaml`'s own merging leaves the merge keys of merged maps as they are.
fn map_to_json(entries: serde_yaml::Mapping) -> Option<serde_json::Map<String, Json>> {
    let mut map = serde_json::Map::new();
    let mut merged = Vec::new();
    for (key, value) in entries {
        let key = match key {
            Plain::String(text) => text,
            Plain::Bool(value) => value.to_string(),
            Plain::Number(number) if !number.is_f64() => number.to_string(),
            _ => return None,
        };
        match (key.as_str(), value) {
            ("<<", Plain::Sequence(maps)) => merged.extend(maps),
            ("<<", value) => merged.push(value),
            (_, value) => {
                map.insert(key, to_json(value)?);
            }
        }
    }
    for from in merged {
        let Plain::Mapping(entries) = from else { return None };
        for (key, value) in map_to_json(entries)? {
            map.entry(key).or_insert(value);
        }
    }
    Some(map)
}

/// Returns the first value on which the two readings differ.
fn difference<'node>(node: &'node Node, json: &Json) -> Option<&'node Node> {
    match (&node.value, json) {
        (Value::List(items), Json::Array(others)) if items.len() == others.len() => {
            items.iter().zip(others).find_map(|(item, other)| difference(item, other))
        }
        (Value::Map(entries), Json::Object(map)) if entries.len() == map.len() => {
            entries.iter().find_map(|(key, node)| match map.get(&key.text) {
                Some(other) => difference(node, other),
                None => Some(node),
            })
        }
        _ => (node.to_json().as_ref() != Ok(json)).then_some(node),
    }
}
