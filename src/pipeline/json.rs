//! Reading JSON in which no key stands twice.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::problem::{Finding, quoted};

const BOM: &[u8] = b"\xef\xbb\xbf";

/// Returns the JSON value in `bytes`, a byte order mark skipped. Blank text is `null`.
///
/// Nesting is bounded by `serde_json` (128). Whole numbers beyond 64 bits are read as floats, as JSON readers do.
pub(super) fn read(bytes: &[u8]) -> Result<Value, Finding> {
    let rest = bytes.strip_prefix(BOM).unwrap_or(bytes);
    let skipped = bytes.len() - rest.len();
    let text = std::str::from_utf8(rest).map_err(|error| {
        let at = error.valid_up_to() + skipped;
        Finding::new(format_args!("the file is not UTF-8 at byte {at}")).at(&(at..at + 1), "").hint("save it as UTF-8")
    })?;
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str::<Strict>(text).map(|strict| strict.0).map_err(|error| explain(text, skipped, &error))
}

fn explain(text: &str, skipped: usize, error: &serde_json::Error) -> Finding {
    let line_start = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum::<usize>();
    let end = (line_start + error.column()).min(text.len());
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    if let Some(key) = message.strip_prefix(TWICE) {
        // The reader stands behind the key.
        let start = text.get(..end.saturating_sub(1)).and_then(|before| before.rfind('"')).unwrap_or(end);
        let finding = Finding::new(format_args!("the key {key} is given twice"));
        return finding.at(&(start + skipped..end + skipped), "");
    }
    let start = text[..end].char_indices().next_back().map_or(end, |(index, _)| index);
    Finding::new(format_args!("this is not JSON: {message}")).at(&(start + skipped..end + skipped), "")
}

/// Marks the one error that is not `serde_json`'s own.
const TWICE: &str = "twice: ";

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number is too large"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(value)) = items.next_element()? {
            list.push(value);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format_args!("{TWICE}{}", quoted(&key))));
            }
            let Strict(value) = entries.next_value()?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}
