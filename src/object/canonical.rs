//! Canonical JSON: one text for one value.
//!
//! Keys are sorted by their bytes, there is no white space, integers are exact
//! decimals. A float is written as the 16 hex digits of its IEEE 754 bits
//! under the key `$float`, because decimal spellings differ between languages;
//! a key that itself starts with `$` gets one more `$`. RFC 8785 was not taken:
//! it rounds integers beyond 2^53.

use serde::Serialize;
use serde_json::Value;

/// A value that has no canonical JSON.
#[derive(Debug, thiserror::Error)]
#[error("a value has no canonical form")]
pub struct NotCanonical(#[from] serde_json::Error);

/// Returns the canonical JSON of `value`.
///
/// # Errors
///
/// [`NotCanonical`] if it cannot be JSON at all (a map with keys that are not text).
pub fn canonical(value: &impl Serialize) -> Result<Vec<u8>, NotCanonical> {
    Ok(canonical_value(&serde_json::to_value(value)?))
}

/// Returns the canonical JSON of `value`.
pub fn canonical_value(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write(value, &mut out);
    out
}

/// Returns the value of which `bytes` are the canonical JSON.
///
/// # Errors
///
/// What is wrong with the JSON.
pub fn from_canonical(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    Ok(restore(serde_json::from_slice(bytes)?))
}

fn restore(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(restore).collect()),
        Value::Object(map) => {
            if let (1, Some(Value::String(bits))) = (map.len(), map.get("$float"))
                && let Ok(bits) = u64::from_str_radix(bits, 16)
            {
                return Value::from(f64::from_bits(bits));
            }
            let plain = |key: String| key.strip_prefix("$$").map_or_else(|| key.clone(), |rest| format!("${rest}"));
            Value::Object(map.into_iter().map(|(key, value)| (plain(key), restore(value))).collect())
        }
        other => other,
    }
}

fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => {
                out.extend_from_slice(format!("{{\"$float\":\"{:016x}\"}}", float.to_bits()).as_bytes());
            }
            _ => out.extend_from_slice(number.to_string().as_bytes()),
        },
        Value::String(text) => write_text(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(item, out);
            }
            out.push(b']');
        }
        Value::Object(map) => {
            let mut keys: Vec<_> = map.keys().collect();
            keys.sort_unstable();
            out.push(b'{');
            for (index, key) in keys.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                if key.starts_with('$') {
                    write_text(&format!("${key}"), out);
                } else {
                    write_text(key, out);
                }
                out.push(b':');
                write(&map[key], out);
            }
            out.push(b'}');
        }
    }
}

/// Escapes `"`, `\` and control characters (as `\u00xx`); all else stays UTF-8.
fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..0x20 | 0x7f => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn text(value: &Value) -> String {
        String::from_utf8(canonical_value(value)).unwrap()
    }

    #[test]
    fn keys_are_sorted_and_integers_are_exact() {
        let value = json!({"b": [1, -2, 18_446_744_073_709_551_615_u64], "a": null, "é": true, "Z": "x\n\"\\"});
        assert_eq!(text(&value), r#"{"Z":"x\u000a\"\\","a":null,"b":[1,-2,18446744073709551615],"é":true}"#);
    }

    #[test]
    fn a_float_is_its_bits_and_never_meets_an_integer_or_a_map() {
        assert_eq!(text(&json!(0.1)), r#"{"$float":"3fb999999999999a"}"#);
        assert_ne!(text(&json!(1.0)), text(&json!(1)));
        assert_eq!(text(&json!({"$float": "x"})), r#"{"$$float":"x"}"#);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(".{0,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn different_values_have_different_texts(a in any_value(), b in any_value()) {
            prop_assert_eq!(text(&a) == text(&b), a == b);
        }

        #[test]
        fn a_value_comes_back_from_its_text(value in any_value()) {
            prop_assert_eq!(from_canonical(&canonical_value(&value)).unwrap(), value);
        }
    }
}
