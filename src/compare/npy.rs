//! `NumPy`'s files of one array.

use std::borrow::Cow;

use super::array::{self, Array, Element, Type};
use super::literal::Literal;
use super::pickle;
use super::report::Report;

const MAGIC: &[u8] = b"\x93NUMPY";

/// Returns whether bytes begin as such a file does.
pub(super) fn is_it(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Compares two files; `None` if one of them cannot be understood. Objects are compared as the pickles that they are.
pub(super) fn compare(report: &mut Report, old: &[u8], new: &[u8]) -> Option<()> {
    if let (Some((old_header, old)), Some((new_header, new))) = (objects(old), objects(new)) {
        if old_header == new_header {
            return pickle::compare(report, old, new);
        }
        return None;
    }
    array::compare(report, &read(old)?, &read(new)?)
}

/// Returns the header and the pickle of an array of objects.
fn objects(bytes: &[u8]) -> Option<(Literal, &[u8])> {
    let (header, data) = parts(bytes)?;
    let is_objects = matches!(header.get("descr")?, Literal::Text(code) if code == "|O");
    is_objects.then_some((header, data))
}

/// Returns the array, or `None` if it holds objects or cannot be understood.
fn read(bytes: &[u8]) -> Option<Array<'_>> {
    let (header, data) = parts(bytes)?;
    let kind = kind_of(header.get("descr")?, 0)?;
    let is_fortran = header.get("fortran_order")? == &Literal::Bool(true);
    let shape = header.get("shape")?.lengths()?;
    let array = Array { kind, shape, is_fortran, data: Cow::Borrowed(data) };
    // What goes on behind the elements is no part of the array.
    let bytes = array.elements()?.checked_mul(array.kind.bytes()?)?;
    (bytes == array.data.len()).then_some(array)
}

/// Returns the header, and what follows it.
fn parts(bytes: &[u8]) -> Option<(Literal, &[u8])> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (length, rest) = match rest {
        [1, _, a, b, rest @ ..] => (usize::from(u16::from_le_bytes([*a, *b])), rest),
        [2 | 3, _, a, b, c, d, rest @ ..] => (usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])).ok()?, rest),
        _ => return None,
    };
    Some((Literal::read(std::str::from_utf8(rest.get(..length)?).ok()?)?, &rest[length..]))
}

/// Returns the type that a description means: a code, or a list of fields with a name, a description, and maybe a shape.
fn kind_of(description: &Literal, depth: usize) -> Option<Type> {
    let fields = match description {
        Literal::Text(code) => return Type::of_code(code),
        Literal::Items(fields) if depth < 8 => fields,
        _ => return None,
    };
    let mut all = Vec::new();
    let mut at = 0_usize;
    for field in fields {
        let Literal::Items(parts) = field else { return None };
        let (name, description, shape) = match parts.as_slice() {
            [name, description] => (name, description, Vec::new()),
            [name, description, shape] => (name, description, shape.lengths()?),
            _ => return None,
        };
        let name = match name {
            Literal::Text(name) => name.clone(),
            Literal::Items(titled) => match titled.as_slice() {
                [_, Literal::Text(name)] => name.clone(),
                _ => return None,
            },
            _ => return None,
        };
        let mut kind = kind_of(description, depth + 1)?;
        let count = shape.iter().try_fold(1_u64, |all, length| all.checked_mul(*length))?;
        kind.count = kind.count.checked_mul(usize::try_from(count).ok()?)?;
        let bytes = kind.bytes()?;
        // A field without a name fills a gap.
        if !name.is_empty() {
            all.push((name, at, kind));
        }
        at = at.checked_add(bytes)?;
    }
    Some(Type::of(Element::Fields { fields: all, bytes: at }))
}
