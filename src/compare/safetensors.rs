//! Tensors by name, as safetensors files have them: a header in JSON, and the bytes of all.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::Precision::{Brain, Double, Half, Single};
use super::array::{self, Array, Element, Type};
use super::json;
use super::report::{Finding, Report};
use super::tree::Value;

/// The header may be so long.
const HEADER_MAX_BYTES: u64 = 100_000_000;

type Tensors<'a> = BTreeMap<String, Array<'a>>;

/// Returns whether bytes begin as such a file does: with the length of a header that is a map.
pub(super) fn is_it(bytes: &[u8]) -> bool {
    bytes.first_chunk().is_some_and(|length| {
        let length = u64::from_le_bytes(*length);
        length <= HEADER_MAX_BYTES && length + 8 <= bytes.len() as u64 && bytes.get(8) == Some(&b'{')
    })
}

/// Compares two files by their tensors; `None` if one of them cannot be understood. What else the header says is left aside.
pub(super) fn compare(report: &mut Report, old: &[u8], new: &[u8]) -> Option<()> {
    let (old, new) = (read(old)?, read(new)?);
    for (name, before) in &old {
        match new.get(name) {
            Some(after) => report.inside(format!("tensor {name}"), |report| array::compare(report, before, after))?,
            None => report.differ(|| Finding::of(format!("tensor {name}"), Some(told(before)), None)),
        }
    }
    for (name, after) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        report.differ(|| Finding::of(format!("tensor {name}"), None, Some(told(after))));
    }
    Some(())
}

fn told(array: &Array<'_>) -> String {
    format!("shape {:?}", array.shape)
}

fn read(bytes: &[u8]) -> Option<Tensors<'_>> {
    let length = usize::try_from(u64::from_le_bytes(*bytes.first_chunk()?)).ok()?;
    let header = std::str::from_utf8(bytes.get(8..length.checked_add(8)?)?).ok()?;
    let data = &bytes[8 + length..];
    let Value::Map(entries) = json::read(header.trim_end())? else { return None };
    let tensors = entries.iter().filter(|(name, _)| *name != "__metadata__");
    tensors.map(|(name, tensor)| Some((name.clone().into_owned(), array_of(tensor, data)?))).collect()
}

fn array_of<'a>(tensor: &Value<'_>, data: &'a [u8]) -> Option<Array<'a>> {
    let Value::Map(tensor) = tensor else { return None };
    let Value::Text(code) = tensor.get("dtype")? else { return None };
    let numbers = |name: &str| {
        let Value::List(items) = tensor.get(name)? else { return None };
        let number = |item: &Value<'_>| if let Value::Number(text) = item { text.parse::<u64>().ok() } else { None };
        items.iter().map(number).collect::<Option<Vec<u64>>>()
    };
    let shape = numbers("shape")?;
    let [start, end] = numbers("data_offsets")?.try_into().ok()?;
    let data = data.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)?;
    let array = Array { kind: kind_of(code)?, shape, is_fortran: false, data: Cow::Borrowed(data) };
    array.elements().is_some().then_some(array)
}

fn kind_of(code: &str) -> Option<Type> {
    let whole = |signed, bits: &str| Some(Element::Whole { bytes: bits.parse::<usize>().ok()? / 8, signed });
    let element = match code {
        "BOOL" => Element::Bool,
        "F64" => Element::Float(Double),
        "F32" => Element::Float(Single),
        "F16" => Element::Float(Half),
        "BF16" => Element::Float(Brain),
        "I8" | "I16" | "I32" | "I64" => whole(true, &code[1..])?,
        "U8" | "U16" | "U32" | "U64" => whole(false, &code[1..])?,
        code if code.starts_with("F8") => Element::Bytes(1),
        _ => return None,
    };
    Some(Type::of(element))
}
