//! Arrays of numbers in memory order: what they are made of, and where two of them differ.

use std::borrow::Cow;

use super::Precision::{self, Brain, Double, Half, Single};
use super::number::Difference;
use super::report::{Finding, Report, hex};
use super::shape::Shape;

/// Elements that are equal are passed over in blocks of so many.
const BLOCK_ELEMENTS: usize = 1024;
/// Whether elements only changed places is not asked of longer arrays.
const SORTED_MAX_ELEMENTS: usize = 16 * 1024 * 1024;
/// So many bytes of an element are told.
const BYTES_TOLD: usize = 32;
/// So many fields of one element are told apart.
const FIELDS_MAX: usize = 4096;

/// What one element is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Element {
    /// True or false, in one byte.
    Bool,
    /// A whole number of so many bytes.
    Whole { bytes: usize, signed: bool },
    /// A number.
    Float(Precision),
    /// Two numbers, a real and an imaginary part.
    Complex(Precision),
    /// Text of so many characters of four bytes.
    Wide(usize),
    /// Bytes of any meaning.
    Bytes(usize),
    /// Named fields at their offsets, in so many bytes.
    Fields { fields: Vec<(String, usize, Type)>, bytes: usize },
}

/// What one element is, and in which order its bytes are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Type {
    pub(super) element: Element,
    pub(super) is_big_endian: bool,
    /// How many of them make one element; more than one in a field that is an array.
    pub(super) count: usize,
}

/// An array.
#[derive(Debug)]
pub(super) struct Array<'a> {
    pub(super) kind: Type,
    pub(super) shape: Vec<u64>,
    /// Whether the first index changes fastest.
    pub(super) is_fortran: bool,
    /// At least as many bytes as the elements take.
    pub(super) data: Cow<'a, [u8]>,
}

impl Type {
    /// A type whose elements stand alone.
    pub(super) const fn of(element: Element) -> Self {
        Self { element, is_big_endian: false, count: 1 }
    }

    /// Returns the type that a code of `NumPy` names, such as `<f8`.
    pub(super) fn of_code(code: &str) -> Option<Self> {
        let (order, rest) = match code.as_bytes().first()? {
            b'<' | b'>' | b'|' | b'=' => code.split_at(1),
            _ => ("<", code),
        };
        let kind = rest.chars().next()?;
        let digits = rest[kind.len_utf8()..].split('[').next()?;
        let size: usize = if digits.is_empty() { 1 } else { digits.parse().ok()? };
        let float = |size| match size {
            2 => Some(Half),
            4 => Some(Single),
            8 => Some(Double),
            _ => None,
        };
        let element = match (kind, size) {
            ('b', 1) | ('?', _) => Element::Bool,
            ('i' | 'u', 1 | 2 | 4 | 8) => Element::Whole { bytes: size, signed: kind == 'i' },
            ('f', _) => float(size).map_or(Element::Bytes(size), Element::Float),
            ('c', _) => float(size / 2).map_or(Element::Bytes(size), Element::Complex),
            // Moments and lengths of time are counted in a unit.
            ('M' | 'm', 8) => Element::Whole { bytes: 8, signed: true },
            ('U', _) => Element::Wide(size),
            ('S' | 'V' | 'a', _) => Element::Bytes(size),
            _ => return None,
        };
        Some(Self { element, is_big_endian: order == ">", count: 1 })
    }

    /// Returns how many bytes one element takes; `None` if no memory could hold them.
    pub(super) fn bytes(&self) -> Option<usize> {
        let one = match &self.element {
            Element::Bool => 1,
            Element::Whole { bytes, .. } | Element::Bytes(bytes) | Element::Fields { bytes, .. } => *bytes,
            Element::Float(precision) => width(*precision),
            Element::Complex(precision) => 2 * width(*precision),
            Element::Wide(characters) => characters.checked_mul(4)?,
        };
        one.checked_mul(self.count)
    }

    /// Returns whether elements are kept alike, but for the order of bytes.
    fn is_like(&self, other: &Self) -> bool {
        self.count == other.count
            && match (&self.element, &other.element) {
                (Element::Fields { fields: old, .. }, Element::Fields { fields: new, .. }) => {
                    old.len() == new.len()
                        && old.iter().zip(new).all(|(old, new)| old.0 == new.0 && old.2.is_like(&new.2))
                }
                (old, new) => old == new,
            }
    }

    fn spelled(&self) -> String {
        let one = match &self.element {
            Element::Bool => "bool".to_owned(),
            Element::Whole { bytes, signed } => format!("{}int{}", if *signed { "" } else { "u" }, bytes * 8),
            Element::Float(Brain) => "bfloat16".to_owned(),
            Element::Float(precision) => format!("float{}", width(*precision) * 8),
            Element::Complex(precision) => format!("complex{}", width(*precision) * 16),
            Element::Wide(characters) => format!("text of {characters} characters"),
            Element::Bytes(bytes) => format!("{bytes} bytes"),
            Element::Fields { fields, .. } => {
                let fields = fields.iter().take(8).map(|(name, _, kind)| format!("{name}: {}", kind.spelled()));
                format!("({})", fields.collect::<Vec<_>>().join(", "))
            }
        };
        if self.count == 1 { one } else { format!("{} x {one}", self.count) }
    }
}

const fn width(precision: Precision) -> usize {
    match precision {
        Precision::Whole | Double => 8,
        Single => 4,
        Half | Brain => 2,
    }
}

impl Array<'_> {
    /// Returns how many elements there are, if `data` has them all.
    pub(super) fn elements(&self) -> Option<usize> {
        let count = self.shape.iter().try_fold(1_u64, |all, length| all.checked_mul(*length))?;
        let count = usize::try_from(count).ok()?;
        let bytes = count.checked_mul(self.kind.bytes()?)?;
        (bytes <= self.data.len()).then_some(count)
    }

    /// Returns where the element is that comes at `index` if the last index changes fastest.
    fn at(&self, index: usize) -> usize {
        if !self.is_fortran || self.shape.len() < 2 {
            return index;
        }
        let (mut rest, mut place) = (index as u64, 0);
        let mut stride: u64 = self.shape.iter().product();
        for length in self.shape.iter().rev() {
            stride /= length;
            place += rest % length * stride;
            rest /= length;
        }
        usize::try_from(place).unwrap_or(usize::MAX)
    }

    fn element(&self, index: usize, bytes: usize) -> &[u8] {
        let start = self.at(index) * bytes;
        &self.data[start..start + bytes]
    }

    /// Returns the indices of the element at `index`, as they are written.
    fn indices(&self, index: usize) -> String {
        let mut rest = index as u64;
        let mut indices: Vec<String> = Vec::new();
        for length in self.shape.iter().rev() {
            indices.push((rest % length).to_string());
            rest /= length;
        }
        indices.reverse();
        format!("[{}]", indices.join(", "))
    }
}

/// Compares two arrays; `None` if one of them has fewer bytes than it says.
pub(super) fn compare(report: &mut Report, old: &Array<'_>, new: &Array<'_>) -> Option<()> {
    report.elements(|report| compare_elements(report, old, new))
}

fn compare_elements(report: &mut Report, old: &Array<'_>, new: &Array<'_>) -> Option<()> {
    let (count, new_count) = (old.elements()?, new.elements()?);
    if !old.kind.is_like(&new.kind) {
        report.differ(|| Finding::of("type", Some(old.kind.spelled()), Some(new.kind.spelled())));
        return Some(());
    }
    if old.shape != new.shape {
        let told = |array: &Array<'_>| Some(format!("{:?}", array.shape));
        report.differ(|| Finding::of("shape", told(old), told(new)));
        return Some(());
    }
    let (old_bytes, new_bytes) = (old.kind.bytes()?, new.kind.bytes()?);
    if old_bytes == 0 || new_bytes == 0 || count != new_count {
        return Some(());
    }
    let is_direct = old.is_fortran == new.is_fortran && old.kind == new.kind;
    if is_direct && count <= SORTED_MAX_ELEMENTS && is_permutation(old, new, count, old_bytes) {
        report.note("elements are in another order");
        let told = |array: &Array<'_>| {
            let shown = (0..count.min(6)).map(|index| spelled(&array.kind, array.element(index, old_bytes)));
            Some(shown.collect::<Vec<_>>().join(", "))
        };
        let finding = || Finding::of("elements", told(old), told(new)).shaped(Some(Shape::Reordering));
        report.differ(finding);
        return Some(());
    }
    let numbers = numbers_in(&old.kind);
    let mut index = 0;
    while index < count {
        let block = BLOCK_ELEMENTS.min(count - index);
        let range = index * old_bytes..(index + block) * old_bytes;
        // In memory order: which elements those are does not matter while they are equal.
        if is_direct && !old.is_fortran && old.data[range.clone()] == new.data[range] {
            report.same_numbers(block as u64 * numbers);
        } else {
            for index in index..index + block {
                let (before, after) = (old.element(index, old_bytes), new.element(index, new_bytes));
                values(report, &|| old.indices(index), (&old.kind, before), (&new.kind, after));
            }
        }
        index += block;
    }
    Some(())
}

/// How many numbers are in one element.
fn numbers_in(kind: &Type) -> u64 {
    let one = match &kind.element {
        Element::Whole { .. } | Element::Float(_) => 1,
        Element::Complex(_) => 2,
        Element::Bool | Element::Wide(_) | Element::Bytes(_) => 0,
        Element::Fields { fields, .. } => fields.iter().map(|(_, _, kind)| numbers_in(kind)).sum(),
    };
    one * kind.count as u64
}

fn is_permutation(old: &Array<'_>, new: &Array<'_>, count: usize, bytes: usize) -> bool {
    let elements = |array: &Array<'_>| array.data[..count * bytes].to_owned();
    let (old, new) = (elements(old), elements(new));
    let differing = old.chunks(bytes).zip(new.chunks(bytes)).filter(|(old, new)| old != new);
    let (mut old, mut new): (Vec<&[u8]>, Vec<&[u8]>) = differing.unzip();
    old.sort_unstable();
    new.sort_unstable();
    !old.is_empty() && old == new
}

/// Compares two elements, or fields of such.
fn values(
    report: &mut Report,
    place: &dyn Fn() -> String,
    (old_kind, old): (&Type, &[u8]),
    (new_kind, new): (&Type, &[u8]),
) {
    if old_kind.count > 1 {
        let (Some(old_bytes), Some(new_bytes)) = (old_kind.bytes(), new_kind.bytes()) else { return };
        let one = |kind: &Type| Type { count: 1, ..kind.clone() };
        let (old_one, new_one) = (one(old_kind), one(new_kind));
        let pairs =
            old.chunks((old_bytes / old_kind.count).max(1)).zip(new.chunks((new_bytes / new_kind.count).max(1)));
        for (index, (old, new)) in pairs.enumerate().take(FIELDS_MAX) {
            values(report, &|| format!("{}[{index}]", place()), (&old_one, old), (&new_one, new));
        }
        return;
    }
    if let (Element::Fields { fields: old_fields, .. }, Element::Fields { fields: new_fields, .. }) =
        (&old_kind.element, &new_kind.element)
    {
        for ((name, old_at, old_kind), (_, new_at, new_kind)) in old_fields.iter().zip(new_fields) {
            let (Some(old_bytes), Some(new_bytes)) = (old_kind.bytes(), new_kind.bytes()) else { continue };
            let ranges = (old.get(*old_at..old_at + old_bytes), new.get(*new_at..new_at + new_bytes));
            let (Some(old), Some(new)) = ranges else { continue };
            values(report, &|| format!("{}.{name}", place()), (old_kind, old), (new_kind, new));
        }
        return;
    }
    if old_kind == new_kind && old == new {
        return report.same_numbers(numbers_in(old_kind));
    }
    let finding = || Finding::of_texts(place(), &spelled(old_kind, old), &spelled(new_kind, new));
    match &old_kind.element {
        Element::Whole { .. } => {
            let difference = Difference::whole(whole(old_kind, old), whole(new_kind, new));
            report.number(difference, finding);
        }
        Element::Float(precision) => {
            report.number(Difference::of(float(old_kind, old), float(new_kind, new), *precision), finding);
        }
        Element::Complex(precision) => {
            let half = old.len() / 2;
            let mut parts = [0..half, half..old.len()].map(|range| {
                let part = |kind: &Type, bytes: &[u8]| {
                    float(&Type { element: Element::Float(*precision), ..kind.clone() }, &bytes[range.clone()])
                };
                Difference::of(part(old_kind, old), part(new_kind, new), *precision)
            });
            // The place is told once, with the part that is further away.
            let rank = |part: &Difference| (!part.is_within(&report.tolerance), !part.is_none());
            parts.sort_by_key(|part| std::cmp::Reverse(rank(part)));
            let [first, second] = parts;
            report.number(first, finding);
            if second.is_none() {
                report.same_numbers(1);
            } else {
                report.number_at_same_place(second);
            }
        }
        _ if spelled(old_kind, old) == spelled(new_kind, new) && old_kind != new_kind => {}
        _ => report.differ(finding),
    }
}

/// Returns the bytes with the least significant first, in as many as the widest number has.
fn little(kind: &Type, bytes: &[u8]) -> [u8; 8] {
    let mut out = [0; 8];
    let length = bytes.len().min(8);
    out[..length].copy_from_slice(&bytes[..length]);
    if kind.is_big_endian {
        out[..length].reverse();
    }
    out
}

fn whole(kind: &Type, bytes: &[u8]) -> i128 {
    let value = u64::from_le_bytes(little(kind, bytes));
    let unused = 64 - 8 * bytes.len().clamp(1, 8);
    match kind.element {
        Element::Whole { signed: true, .. } => i128::from((value << unused).cast_signed() >> unused),
        _ => i128::from(value),
    }
}

fn float(kind: &Type, bytes: &[u8]) -> f64 {
    let word = little(kind, bytes);
    let [a, b, c, d, ..] = word;
    match kind.element {
        Element::Float(Single) => f32::from_le_bytes([a, b, c, d]).into(),
        Element::Float(Brain) => f32::from_le_bytes([0, 0, a, b]).into(),
        Element::Float(Half) => half(u16::from_le_bytes([a, b])),
        _ => f64::from_le_bytes(word),
    }
}

/// Returns the number with these 16 bits: a sign, five of an exponent, ten of a fraction.
fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2_f64.powi(-24),
        0x1f if fraction == 0.0 => f64::INFINITY,
        0x1f => f64::NAN,
        exponent => (1024.0 + fraction) * 2_f64.powi(exponent - 25),
    }
}

fn spelled(kind: &Type, bytes: &[u8]) -> String {
    match &kind.element {
        Element::Bool => if bytes.iter().all(|byte| *byte == 0) { "false" } else { "true" }.to_owned(),
        Element::Whole { .. } => whole(kind, bytes).to_string(),
        #[expect(clippy::cast_possible_truncation, reason = "it has no more digits")]
        Element::Float(Single | Half | Brain) => format!("{:?}", float(kind, bytes) as f32),
        Element::Float(_) => format!("{:?}", float(kind, bytes)),
        Element::Complex(precision) => {
            let kind = Type { element: Element::Float(*precision), ..kind.clone() };
            let (real, imaginary) = bytes.split_at(bytes.len() / 2);
            format!("{} {}j", spelled(&kind, real), spelled(&kind, imaginary))
        }
        Element::Wide(_) => {
            let characters = bytes.chunks(4).map(|word| {
                let code = u32::from_le_bytes(little(kind, word)[..4].try_into().unwrap_or_default());
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            });
            characters.collect::<String>().trim_end_matches('\0').to_owned()
        }
        Element::Bytes(_) => match super::text::read(bytes.split(|byte| *byte == 0).next().unwrap_or_default()) {
            Some(text) if bytes[text.len()..].iter().all(|byte| *byte == 0) && !text.is_empty() => text.to_owned(),
            _ => hex(bytes, BYTES_TOLD),
        },
        Element::Fields { fields, .. } => fields.len().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_numbers_are_what_they_should_be() {
        let expected = [1.0, -2.0, 65504.0, 2_f64.powi(-24), 0.333_251_953_125];
        let found = [0x3c00, 0xc000, 0x7bff, 0x0001, 0x3555].map(half);
        assert_eq!(found.map(f64::to_bits), expected.map(f64::to_bits));
        assert!(half(0x7e00).is_nan() && half(0xfc00) == f64::NEG_INFINITY);
    }

    #[test]
    fn codes_of_types_are_understood() {
        let spelled = |code: &str| Type::of_code(code).map(|kind| (kind.spelled(), kind.bytes()));
        assert_eq!(spelled("<f8"), Some(("float64".to_owned(), Some(8))));
        assert_eq!(spelled(">u2"), Some(("uint16".to_owned(), Some(2))));
        assert_eq!(spelled("|b1"), Some(("bool".to_owned(), Some(1))));
        assert_eq!(spelled("<M8[ns]"), Some(("int64".to_owned(), Some(8))));
        assert_eq!(spelled("<U3"), Some(("text of 3 characters".to_owned(), Some(12))));
        assert_eq!(spelled("|O"), None);
    }
}
