//! Numbers: how far two are from each other, and how they are spelled in texts.

use super::Precision::{self, Double, Whole};
use crate::pipeline::Tolerance;

/// How far two numbers are from each other.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Difference {
    /// The distance; infinite if one of them is no finite number.
    pub(super) absolute: f64,
    /// The distance as a share of the larger of the two.
    pub(super) relative: f64,
    /// How many representable numbers further the other is; 0 for whole numbers.
    pub(super) ulps: u64,
    /// Whether they are two spellings of one number.
    same: bool,
    larger: f64,
    precision: Precision,
}

impl Difference {
    /// Returns how far two numbers of this precision are from each other.
    #[expect(clippy::float_cmp, reason = "zeros of both signs and infinities are equal or they are not")]
    pub(super) fn of(old: f64, new: f64, precision: Precision) -> Self {
        let same = old.to_bits() == new.to_bits() || (old.is_nan() && new.is_nan());
        let larger = old.abs().max(new.abs());
        // Infinities of one sign are equal, and their difference is no number.
        let absolute = if same || old == new { 0.0 } else { (old - new).abs() };
        let absolute = if absolute.is_nan() { f64::INFINITY } else { absolute };
        let relative = if absolute == 0.0 || !absolute.is_finite() { 0.0 } else { absolute / larger };
        let ulps = if same || !absolute.is_finite() { 0 } else { precision.ulps(old, new) };
        Self { absolute, relative, ulps, same, larger, precision }
    }

    /// Returns how far two whole numbers are from each other.
    #[expect(clippy::cast_precision_loss, reason = "a distance needs few digits, and two different numbers have one")]
    pub(super) fn whole(old: i128, new: i128) -> Self {
        let larger = (old as f64).abs().max((new as f64).abs());
        let absolute = old.abs_diff(new) as f64;
        let relative = if old == new { 0.0 } else { absolute / larger };
        Self { absolute, relative, ulps: 0, same: old == new, larger, precision: Whole }
    }

    /// Returns whether the two are the same number.
    pub(super) fn is_none(&self) -> bool {
        self.same
    }

    /// Returns whether the two are as near to each other as the tolerance wants, or as what is usual for their precision.
    pub(super) fn is_within(&self, tolerance: &Tolerance) -> bool {
        if !self.absolute.is_finite() {
            return false;
        }
        let rtol = tolerance.rtol.unwrap_or(self.precision.rtol());
        // A product of 0 and infinity is no number, and then nothing is within it.
        self.absolute <= tolerance.atol.unwrap_or(0.0) + rtol * self.larger
    }
}

/// A number in a text.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Spelled {
    /// A whole number.
    Whole(i128),
    /// Any other.
    Float(f64),
}

impl Spelled {
    /// Returns the number that `text` spells, all of it; words for infinity and for what is no number are taken as well.
    pub(super) fn read(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            return match digits.to_ascii_lowercase().as_str() {
                "nan" => Some(Self::Float(f64::NAN)),
                "inf" | "infinity" if text.starts_with('-') => Some(Self::Float(f64::NEG_INFINITY)),
                "inf" | "infinity" => Some(Self::Float(f64::INFINITY)),
                _ => None,
            };
        }
        let is_whole = digits.bytes().all(|byte| byte.is_ascii_digit());
        if is_whole && digits.len() > 1 && digits.starts_with('0') {
            // `007` is a name.
            return None;
        }
        match text.parse::<i128>() {
            Ok(whole) if is_whole => Some(Self::Whole(whole)),
            // More digits than anything keeps.
            _ if is_whole => None,
            _ => text.parse().ok().map(Self::Float),
        }
    }

    /// Returns how far it is from another.
    pub(super) fn difference(self, other: Self) -> Difference {
        match (self, other) {
            (Self::Whole(old), Self::Whole(new)) => Difference::whole(old, new),
            (old, new) => Difference::of(old.value(), new.value(), Double),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "beside a float, a whole number is one")]
    pub(super) fn value(self) -> f64 {
        match self {
            Self::Whole(whole) => whole as f64,
            Self::Float(float) => float,
        }
    }
}

/// Returns the parts of a text: numbers with a point or an exponent that stand alone, and what is between them.
///
/// Whole numbers, versions, dates and digits in names belong to what is between.
pub(super) fn parts(text: &str) -> Vec<(&str, Option<f64>)> {
    let mut parts = Vec::new();
    let mut between = 0;
    let is_edge = |c: char| c.is_whitespace() || ",;=()[]{}|\"'<>".contains(c);
    let mut start = None;
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        if !is_edge(c) {
            start.get_or_insert(at);
            continue;
        }
        let Some(first) = start.take() else { continue };
        let word = &text[first..at];
        if let Some(Spelled::Float(value)) = Spelled::read(word)
            && word.ends_with(|c: char| c.is_ascii_digit() || c == '.')
        {
            parts.push((&text[between..first], None));
            parts.push((word, Some(value)));
            between = at;
        }
    }
    parts.push((&text[between..], None));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_distance_of_neighbours_is_one() {
        let above = |value: f64| f64::from_bits(value.to_bits() + 1);
        assert_eq!(Difference::of(1.0, above(1.0), Double).ulps, 1);
        assert_eq!(Difference::of(0.0, f64::from_bits(1), Double).ulps, 1);
        assert_eq!(Difference::of(-f64::from_bits(1), f64::from_bits(1), Double).ulps, 2);
        let next = f32::from_bits(0.1_f32.to_bits() + 1);
        assert_eq!(Difference::of(0.1_f32.into(), next.into(), Precision::Single).ulps, 1);
        // The smallest of 16 bits, the smallest with all digits, and one.
        let smallest = 2_f64.powi(-24);
        for (old, new, ulps) in [
            (smallest, -smallest, 2),
            (2_f64.powi(-14), 0.0, 1024),
            (1.0, 0.0, 15 << 10),
            (1.0, 1.0 + 2_f64.powi(-10), 1),
        ] {
            assert_eq!(Difference::of(old, new, Precision::Half).ulps, ulps, "{old} {new}");
        }
        assert_eq!(Difference::of(1.0, 1.0 + 2_f64.powi(-7), Precision::Brain).ulps, 1);
    }

    #[test]
    fn what_is_no_finite_number_is_equal_to_itself_and_near_to_nothing() {
        let is_close = |old, new| Difference::of(old, new, Double).is_within(&Tolerance::default());
        let (inf, nan) = (f64::INFINITY, f64::NAN);
        assert!(Difference::of(nan, -nan, Double).is_none() && Difference::of(inf, inf, Double).is_none());
        assert!(!is_close(inf, -inf) && !is_close(inf, f64::MAX) && !is_close(nan, 0.0));
        assert!(is_close(0.0, -0.0) && !Difference::of(0.0, -0.0, Double).is_none());
    }

    #[test]
    fn whole_numbers_have_to_be_equal_unless_a_tolerance_is_given() {
        let near = Difference::whole(1_700_000_000_000, 1_700_000_000_001);
        assert!(!near.is_within(&Tolerance::default()));
        assert!(near.is_within(&Tolerance { atol: Some(1.0), ..Tolerance::default() }));
        assert!(near.is_within(&Tolerance { rtol: Some(1e-9), ..Tolerance::default() }));
    }

    #[test]
    fn numbers_in_a_line_are_found_where_they_stand_alone() {
        let numbers = |text| parts(text).into_iter().filter_map(|(_, number)| number).collect::<Vec<_>>();
        assert_eq!(numbers("loss=0.5, rate 1e-3 (v1.2.3, py3.11, 12:30:45.5, 7)"), [0.5, 0.001]);
        assert_eq!(numbers("-0.25\t+1.5e+10"), [-0.25, 1.5e10]);
    }

    proptest! {
        #[test]
        fn a_distance_is_the_same_both_ways(a in any::<u64>(), b in any::<u64>()) {
            let (a, b) = (f64::from_bits(a), f64::from_bits(b));
            prop_assert_eq!(Difference::of(a, b, Double), Difference::of(b, a, Double));
            prop_assert!(Difference::of(a, a, Double).is_none());
        }

        #[test]
        fn the_parts_of_a_text_are_the_text(text in r"[-+.0-9e ,=a(\n]{0,30}") {
            prop_assert_eq!(parts(&text).into_iter().map(|(part, _)| part).collect::<String>(), text);
        }
    }
}
