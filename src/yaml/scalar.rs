//! What a plain scalar is: the core schema of YAML 1.2, section 10.3.2, as `serde_yaml` reads it.
//!
//! It differs from the specification in three points: a number that starts
//! with zeros is text (`017` is octal to some readers and decimal to others),
//! `0b` numbers are whole numbers, and a float beyond the largest is text.

use super::Value;

/// A whole number that no reader would keep exactly.
pub(super) struct TooLarge;

/// Returns what the plain scalar `text` is.
pub(super) fn resolve(text: &str) -> Result<Value, TooLarge> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Ok(Value::Float(f64::INFINITY)),
        "-.inf" | "-.Inf" | "-.INF" => return Ok(Value::Float(f64::NEG_INFINITY)),
        ".nan" | ".NaN" | ".NAN" => return Ok(Value::Float(f64::NAN)),
        _ => {}
    }
    let (sign, magnitude) = match text.as_bytes() {
        [b'+', ..] => ("", &text[1..]),
        [b'-', ..] => ("-", &text[1..]),
        _ => ("", text),
    };
    if !magnitude.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Ok(Value::Text(text.to_owned()));
    }
    let digits = magnitude.bytes().all(|byte| byte.is_ascii_digit());
    if digits && magnitude.len() > 1 && magnitude.starts_with('0') {
        return Ok(Value::Text(text.to_owned()));
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        let Some(rest) = magnitude.strip_prefix(prefix) else { continue };
        if rest.starts_with(['+', '-']) {
            break;
        }
        if let Ok(value) = i128::from_str_radix(&format!("{sign}{rest}"), radix) {
            return Ok(Value::Int(value));
        }
    }
    if digits {
        return text.parse().map(Value::Int).map_err(|_| TooLarge);
    }
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(Value::Float(value)),
        _ => Ok(Value::Text(text.to_owned())),
    }
}
