//! In which precision numbers are kept.

/// How many digits the numbers of a file have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Precision {
    /// Whole numbers.
    Whole,
    /// IEEE 754 with 64 bits, and numbers in texts.
    Double,
    /// With 32 bits.
    Single,
    /// With 16 bits.
    Half,
    /// The upper 16 bits of 32.
    Brain,
}

impl Precision {
    /// Returns how far numbers are from each other, as a share, that came about by another order of additions and the like.
    pub(super) const fn rtol(self) -> f64 {
        match self {
            Self::Whole => 0.0,
            Self::Double => 1e-9,
            Self::Single => 1e-5,
            Self::Half => 1e-2,
            Self::Brain => 5e-2,
        }
    }

    /// Returns how many numbers of this precision further the other is.
    #[expect(clippy::cast_possible_truncation, reason = "numbers of a precision fit into it")]
    pub(super) fn ulps(self, old: f64, new: f64) -> u64 {
        match self {
            Self::Whole => 0,
            Self::Double => ordered(old.to_bits(), 63).abs_diff(ordered(new.to_bits(), 63)),
            Self::Single | Self::Brain => {
                let place = |value: f64| ordered(u64::from((value as f32).to_bits()), 31);
                // A number with fewer digits is one with more that ends in zeros.
                place(old).abs_diff(place(new)) >> if self == Self::Brain { 16 } else { 0 }
            }
            Self::Half => half_place(old).abs_diff(half_place(new)),
        }
    }
}

/// Returns at which place a number with 16 bits stands among all of those.
#[expect(clippy::cast_possible_truncation, reason = "there are 65,536 of them")]
fn half_place(value: f64) -> i64 {
    let bits = (value.abs() as f32).to_bits();
    let exponent = i64::from(bits >> 23) - 127;
    let place = if exponent < -14 {
        // Below the smallest exponent they stand at equal distances.
        (value.abs() * 2_f64.powi(24)) as i64
    } else {
        (exponent + 15) << 10 | i64::from(bits >> 13 & 0x3ff)
    };
    if value < 0.0 { -place } else { place }
}

/// Returns the bits of a float, whose sign is at `sign`, as a number that grows as the float does.
#[expect(clippy::cast_possible_wrap, reason = "without its sign bit it is not negative")]
const fn ordered(bits: u64, sign: u32) -> i64 {
    let magnitude = (bits & !(1 << sign)) as i64;
    if bits >> sign == 0 { magnitude } else { -magnitude }
}
