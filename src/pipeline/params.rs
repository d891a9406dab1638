//! The values of params, from all their sources.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use crate::path::ProjectPath;
use crate::yaml::{self, TEXT_MAX_BYTES};

use super::json;
use super::model::{ParamsSource, Pipeline};
use super::problem::{DefinitionError, Finding};

/// The values of all params of a pipeline.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Params {
    values: Map<String, Value>,
    /// What gave each top-level key.
    sources: BTreeMap<String, String>,
}

/// Why params cannot be had. `Display` is one line; [`ParamsError::render`] shows the place.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum ParamsError {
    /// A file is not there.
    #[error("params file `{path}` is missing")]
    Missing {
        /// The file.
        path: ProjectPath,
    },
    /// A file is of a kind that is not read.
    #[error("`{path}` is no params file: its name must end in {ENDINGS}")]
    Kind {
        /// The file.
        path: ProjectPath,
    },
    /// Two sources give one top-level key.
    #[error("the param `{key}` is given by {} and again by {}", .names.0, .names.1)]
    GivenTwice {
        /// The key.
        key: String,
        /// The two sources, counted as in [`Pipeline::params`].
        sources: (usize, usize),
        /// Their names.
        names: (String, String),
    },
    /// What a file holds cannot be used.
    #[error("{0}")]
    Content(Box<DefinitionError>),
}

/// The endings of params files, for people.
pub(super) const ENDINGS: &str = "`.yaml`, `.yml` or `.json`";

impl Params {
    /// Returns the params of `pipeline`, each file's bytes taken from `read`, which returns `None` for a file that is not there.
    ///
    /// The order of the sources makes no difference: no top-level key may come
    /// from two of them. A file without any value gives no params.
    ///
    /// # Errors
    ///
    /// [`ParamsError`] if a file is missing, of another kind or not a map, or if
    /// a key is given twice.
    pub fn load(pipeline: &Pipeline, read: &dyn Fn(&ProjectPath) -> Option<Vec<u8>>) -> Result<Self, ParamsError> {
        let mut params = Self::default();
        let mut givers = BTreeMap::new();
        for (index, source) in pipeline.params.iter().enumerate() {
            let values = match source {
                ParamsSource::Inline(values) => values.clone(),
                ParamsSource::File(path) => read_file(path, read)?,
            };
            for (key, value) in values {
                if let Some(first) = givers.insert(key.clone(), index) {
                    let names = (pipeline.params[first].to_string(), source.to_string());
                    return Err(ParamsError::GivenTwice { key, sources: (first, index), names });
                }
                params.sources.insert(key.clone(), source.name());
                params.values.insert(key, value);
            }
        }
        Ok(params)
    }

    /// Returns the value under a dotted key such as `train.rate` or `layers.0`.
    ///
    /// A key that itself contains dots is found as it is written; the longest
    /// such key comes first.
    pub fn get(&self, key: &str) -> Option<&Value> {
        in_map(&self.values, key)
    }

    /// Returns the dotted keys of everything that is not a map with something in it, sorted.
    pub fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        self.values.iter().for_each(|(key, value)| leaves(key, value, &mut keys));
        keys.sort_unstable();
        keys
    }

    /// Returns what gives the value under a dotted key: the path of a file, or `inline params`.
    pub fn source_of(&self, key: &str) -> Option<&str> {
        self.get(key)?;
        let top = splits(key).map(|(top, _)| top).find(|top| self.sources.contains_key(*top))?;
        Some(&self.sources[top])
    }

    /// Returns all values as one JSON map.
    pub fn to_value(&self) -> Value {
        Value::Object(self.values.clone())
    }
}

impl ParamsError {
    /// Returns the error for people: with its line, if it is about a place in a params file.
    ///
    /// Where the definition is at hand, [`Definition::locate`](super::Definition::locate) shows more.
    pub fn render(&self, colour: bool) -> String {
        match self {
            Self::Content(error) => error.render(colour),
            _ => format!("error: {self}"),
        }
    }
}

impl ParamsSource {
    fn name(&self) -> String {
        match self {
            Self::File(path) => path.to_string(),
            Self::Inline(_) => "inline params".to_owned(),
        }
    }
}

impl fmt::Display for ParamsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "`{path}`"),
            Self::Inline(_) => f.write_str("the inline params"),
        }
    }
}

/// Returns whether params can be read from a file of this name.
pub(super) fn is_params_file(path: &ProjectPath) -> bool {
    is_yaml(path) || path.name().ends_with(b".json")
}

fn is_yaml(path: &ProjectPath) -> bool {
    path.name().ends_with(b".yaml") || path.name().ends_with(b".yml")
}

fn read_file(
    path: &ProjectPath,
    read: &dyn Fn(&ProjectPath) -> Option<Vec<u8>>,
) -> Result<Map<String, Value>, ParamsError> {
    if !is_params_file(path) {
        return Err(ParamsError::Kind { path: path.clone() });
    }
    let bytes = read(path).ok_or_else(|| ParamsError::Missing { path: path.clone() })?;
    let name = path.display();
    let value = if is_yaml(path) {
        yaml::read_plain(&bytes).map_err(|error| DefinitionError::from_yaml(&name, &bytes, error))
    } else if bytes.len() > TEXT_MAX_BYTES {
        let fact = format!("the file has {} bytes, more than the {TEXT_MAX_BYTES} that are read", bytes.len());
        Err(DefinitionError::new(&name, "", vec![Finding::new(fact)]))
    } else {
        json::read(&bytes)
            .map_err(|finding| DefinitionError::new(&name, &String::from_utf8_lossy(&bytes), vec![finding]))
    };
    match value.map_err(|error| ParamsError::Content(Box::new(error)))? {
        Value::Object(values) => Ok(values),
        Value::Null => Ok(Map::new()),
        other => {
            let found = match other {
                Value::Array(_) => "a list",
                Value::String(_) => "text",
                _ => "a single value",
            };
            let finding = Finding::new(format_args!("a params file holds a map of keys to values, found {found}"));
            let text = String::from_utf8_lossy(&bytes);
            let start = text.find(|c: char| !c.is_whitespace() && c != '\u{feff}').unwrap_or(0);
            let finding = finding.at(&(start..text.trim_end().len()), "");
            Err(ParamsError::Content(Box::new(DefinitionError::new(&name, &text, vec![finding]))))
        }
    }
}

/// Returns every way to cut a dotted key into a key and the rest below it, the longest key first.
fn splits(key: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let cuts = key.char_indices().rev().filter(|(_, c)| *c == '.');
    std::iter::once((key, None)).chain(cuts.map(|(cut, _)| (&key[..cut], Some(&key[cut + 1..]))))
}

fn in_map<'map>(map: &'map Map<String, Value>, key: &str) -> Option<&'map Value> {
    splits(key).find_map(|(top, rest)| below(map.get(top)?, rest))
}

fn below<'value>(value: &'value Value, key: Option<&str>) -> Option<&'value Value> {
    let Some(key) = key else { return Some(value) };
    match value {
        Value::Object(map) => in_map(map, key),
        Value::Array(items) => {
            let (index, rest) = key.split_once('.').map_or((key, None), |(index, rest)| (index, Some(rest)));
            let is_number = index.bytes().all(|byte| byte.is_ascii_digit());
            below(items.get(index.parse::<usize>().ok().filter(|_| is_number)?)?, rest)
        }
        _ => None,
    }
}

fn leaves(prefix: &str, value: &Value, keys: &mut Vec<String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            map.iter().for_each(|(key, value)| leaves(&format!("{prefix}.{key}"), value, keys));
        }
        _ => keys.push(prefix.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PIPELINE: &str = "params: [params.yaml, more.json, {inline: {a: 1}}]\nsteps: {s: {run: x}}\n";

    fn load(files: &[(&str, &str)]) -> Result<Params, ParamsError> {
        let definition = super::super::read(PIPELINE.as_bytes(), "pipeline.yaml").unwrap();
        Params::load(&definition.pipeline, &|path| {
            let file = files.iter().find(|(name, _)| path.as_bytes() == name.as_bytes());
            file.map(|(_, text)| text.as_bytes().to_vec())
        })
    }

    #[test]
    fn values_are_found_by_dotted_keys_and_keys_with_dots_come_first() {
        let yaml = "train: {rate: 0.5, layers: [8, {units: 4}]}\na: {b.c: 1, b: {c: 2, d: 3}}\na.b: {x: 4}\n";
        let params = load(&[("params.yaml", yaml), ("more.json", r#"{"json": {"deep": null}}"#)]).unwrap();
        assert_eq!(params.get("train.rate"), Some(&json!(0.5)));
        assert_eq!(params.get("train.layers.0"), Some(&json!(8)));
        assert_eq!(params.get("train.layers.1.units"), Some(&json!(4)));
        assert_eq!(params.get("train.layers.+1"), None);
        assert_eq!(params.get("a.b.c"), Some(&json!(1)), "the literal key");
        assert_eq!(params.get("a.b.d"), Some(&json!(3)), "found although `a.b` is a key, too");
        assert_eq!(params.get("a.b.x"), Some(&json!(4)));
        assert_eq!(params.get("train.rate.x"), None);
        assert_eq!(params.get(""), None);
        assert_eq!(params.source_of("a.b.x"), Some("params.yaml"));
        assert_eq!(params.source_of("json.deep"), Some("more.json"));
        assert_eq!(params.source_of("inline.a"), Some("inline params"));
        assert_eq!(params.source_of("inline.b"), None);
        let keys = ["a.b.c", "a.b.c", "a.b.d", "a.b.x", "inline.a", "json.deep", "train.layers", "train.rate"];
        assert_eq!(params.keys(), keys);
    }

    #[test]
    fn a_key_given_by_two_sources_names_both() {
        let error = load(&[("params.yaml", "x: 1"), ("more.json", r#"{"x": 1}"#)]).unwrap_err();
        assert_eq!(error.to_string(), "the param `x` is given by `params.yaml` and again by `more.json`");
        let error = load(&[("params.yaml", "inline: 1"), ("more.json", "{}")]).unwrap_err();
        assert_eq!(error.to_string(), "the param `inline` is given by `params.yaml` and again by the inline params");
    }

    #[test]
    fn what_is_wrong_with_a_params_file_is_shown_in_it() {
        let error = load(&[("params.yaml", "a: 1\na: 2\n")]).unwrap_err();
        insta::assert_snapshot!(error.render(false));
        let error = load(&[("params.yaml", ""), ("more.json", "{\n  \"a\": 1,\n  \"a\": 2\n}")]).unwrap_err();
        insta::assert_snapshot!(error.render(false));
        let error = load(&[("params.yaml", ""), ("more.json", "{\"a\": 1,}")]).unwrap_err();
        insta::assert_snapshot!(error.render(false));
        let error = load(&[("params.yaml", "- a\n- b\n")]).unwrap_err();
        insta::assert_snapshot!(error.render(false));
        let error = load(&[("params.yaml", "a: .nan\n")]).unwrap_err();
        insta::assert_snapshot!(error.render(false));
    }

    #[test]
    fn problems_with_a_source_are_shown_in_the_definition() {
        let definition = super::super::read(PIPELINE.as_bytes(), "pipeline.yaml").unwrap();
        let missing = load(&[("params.yaml", "")]).unwrap_err();
        insta::assert_snapshot!(definition.locate(&missing).render(false));
        let twice = load(&[("params.yaml", "inline: 1"), ("more.json", "{}")]).unwrap_err();
        insta::assert_snapshot!(definition.locate(&twice).render(false));
    }

    #[test]
    fn another_kind_of_file_is_refused_even_if_no_reader_checked_it() {
        let path = ProjectPath::new("params.toml").unwrap();
        let error = read_file(&path, &|_| Some(Vec::new())).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`params.toml` is no params file: its name must end in `.yaml`, `.yml` or `.json`"
        );
    }
}
