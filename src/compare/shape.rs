//! What a difference looks like. A hint at where to look for its cause.

use serde::Serialize;

use super::number::{Spelled, parts};

/// Longer texts are not looked at.
const TEXT_MAX_BYTES: usize = 4096;
/// Numbers that differ by less, as a share, differ in their last bits.
const LAST_BITS: f64 = 1e-9;
/// A run of letters and digits of this length may be a random name.
const RANDOM_MIN_CHARS: usize = 8;

/// What a difference looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// A date or a time.
    Timestamp,
    /// How long something took.
    Duration,
    /// A UUID.
    Uuid,
    /// A path of a file.
    Path,
    /// An address in memory.
    Address,
    /// The last bits of numbers.
    LastBits,
    /// The same things in another order.
    Reordering,
    /// Letters, digits or bytes without any pattern.
    Random,
}

impl Shape {
    /// Returns the word for it, as JSON has it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Timestamp => "timestamp",
            Self::Duration => "duration",
            Self::Uuid => "uuid",
            Self::Path => "path",
            Self::Address => "address",
            Self::LastBits => "last-bits",
            Self::Reordering => "reordering",
            Self::Random => "random",
        }
    }

    /// Returns what the difference of two texts looks like that stand at `place`.
    pub(super) fn of_texts(place: &str, old: &str, new: &str) -> Option<Self> {
        if old.len().max(new.len()) > TEXT_MAX_BYTES || old == new {
            return None;
        }
        if let (Some(old), Some(new)) = (Spelled::read(old.trim()), Spelled::read(new.trim())) {
            return Self::of_numbers(place, old.value(), new.value());
        }
        let differs_by = |find: fn(&[u8]) -> usize| masked(old, find) == masked(new, find);
        if differs_by(uuid) {
            return Some(Self::Uuid);
        }
        if differs_by(time) || in_words(old).zip(in_words(new)).is_some_and(|(old, new)| old == new) {
            return Some(Self::Timestamp);
        }
        if differs_by(address) {
            return Some(Self::Address);
        }
        if differs_by(path) {
            return Some(Self::Path);
        }
        if differs_by(random) {
            return Some(Self::Random);
        }
        if is_reordered(old, new) {
            return Some(Self::Reordering);
        }
        are_last_bits(old, new).then_some(Self::LastBits)
    }

    /// Returns what the difference of two numbers looks like.
    pub(super) fn of_numbers(place: &str, old: f64, new: f64) -> Option<Self> {
        if is_moment(old) && is_moment(new) {
            return Some(Self::Timestamp);
        }
        if old.fract() != 0.0 && (old - new).abs() <= LAST_BITS * old.abs().max(new.abs()) {
            return Some(Self::LastBits);
        }
        let last = place.rsplit(['.', ' ', '[']).next().unwrap_or_default().to_ascii_lowercase();
        let words = ["time", "elapsed", "seconds", "duration", "took", "runtime"];
        let is_time = words.iter().any(|word| last.contains(word)) || last.ends_with("_ms") || last.ends_with("_s");
        (is_time && old >= 0.0 && new >= 0.0).then_some(Self::Duration)
    }
}

/// Returns whether a number could be a moment of the years 2001 to 2096: seconds since 1970, or thousandths and so on of those.
pub(super) fn is_moment(value: f64) -> bool {
    [1.0, 1e3, 1e6, 1e9].iter().any(|unit| (1e9 * unit..4e9 * unit).contains(&value))
}

/// Returns the text with everything that `find` finds replaced by one mark; `find` says how long it is at the start, 0 for none.
fn masked(text: &str, find: fn(&[u8]) -> usize) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        // Things begin where words begin.
        let is_inner = at > 0 && bytes[at].is_ascii_alphanumeric() && bytes[at - 1].is_ascii_alphanumeric();
        let length = if is_inner { 0 } else { find(&bytes[at..]) };
        out.push(if length > 0 { 0 } else { bytes[at] });
        at += length.max(1);
    }
    out
}

/// Returns how long the start of `bytes` is that has the form of `pattern`: `9` a digit, `x` a hex digit, anything else itself.
fn form(bytes: &[u8], pattern: &[u8]) -> usize {
    let fits = |(byte, pattern): (&u8, &u8)| match pattern {
        b'9' => byte.is_ascii_digit(),
        b'x' => byte.is_ascii_hexdigit(),
        other => byte == other,
    };
    let is_it = bytes.len() >= pattern.len() && bytes.iter().zip(pattern).all(fits);
    if is_it { pattern.len() } else { 0 }
}

fn run(bytes: &[u8], is_in: impl Fn(u8) -> bool) -> usize {
    bytes.iter().take_while(|byte| is_in(**byte)).count()
}

fn uuid(bytes: &[u8]) -> usize {
    form(bytes, b"xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx")
}

fn address(bytes: &[u8]) -> usize {
    let digits = if bytes.starts_with(b"0x") { run(&bytes[2..], |byte| byte.is_ascii_hexdigit()) } else { 0 };
    if (5..=16).contains(&digits) { digits + 2 } else { 0 }
}

fn path(bytes: &[u8]) -> usize {
    let length = run(bytes, |byte| byte.is_ascii_alphanumeric() || b"/._-+@~".contains(&byte) || byte >= 0x80);
    let slashes = bytes[..length].split(|byte| *byte == b'/').count() - 1;
    let is_path = bytes.starts_with(b"/") || bytes.starts_with(b"~/") || bytes.starts_with(b"./") || slashes > 1;
    if is_path && slashes > 0 && length > 2 { length } else { 0 }
}

/// A time of day, a date with or without it, or a moment as a number.
fn time(bytes: &[u8]) -> usize {
    let of_day = |bytes: &[u8]| {
        let minutes = form(bytes, b"99:99");
        let seconds = if minutes > 0 { form(&bytes[minutes..], b":99") } else { 0 };
        let mut length = minutes + seconds;
        if seconds > 0 && bytes.get(length).is_some_and(|byte| b".,".contains(byte)) {
            length += 1 + run(&bytes[length + 1..], |byte| byte.is_ascii_digit());
        }
        let zone = [&b"+99:99"[..], b"-99:99", b"+9999", b"-9999", b"Z", b" UTC"];
        length + if minutes > 0 { zone.iter().map(|zone| form(&bytes[length..], zone)).max().unwrap_or(0) } else { 0 }
    };
    let dates = [&b"9999-99-99"[..], b"9999/99/99", b"99/99/9999", b"99.99.9999", b"9999.99.99"];
    let date = dates.iter().map(|date| form(bytes, date)).max().unwrap_or(0);
    if date > 0 {
        let gap = usize::from(bytes.get(date).is_some_and(|byte| b"T _".contains(byte)));
        let rest = of_day(&bytes[date + gap..]);
        return if rest > 0 { date + gap + rest } else { date };
    }
    let digits = run(bytes, |byte| byte.is_ascii_digit());
    if digits == 8 && bytes.starts_with(b"20") {
        // 20231114-221320
        let gap = usize::from(bytes.get(8).is_some_and(|byte| b"T_-".contains(byte)));
        return 8 + if form(&bytes[8 + gap..], b"999999") > 0 { gap + 6 } else { 0 };
    }
    let is_moment = matches!(digits, 10 | 13 | 16 | 19) && (b'1'..=b'3').contains(&bytes[0]);
    let is_compact = digits == 14 && bytes.starts_with(b"20");
    if is_moment || is_compact { digits } else { of_day(bytes) }
}

/// Returns the words of a text in which a month is named, without names of months and days and without numbers.
fn in_words(text: &str) -> Option<Vec<&str>> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let words: Vec<&str> = words.collect();
    let is_named = |word: &&str, names: &[&str]| names.iter().any(|name| word.starts_with(name));
    let is_month = |word: &&&str| is_named(word, &MONTHS);
    words.iter().find(is_month)?;
    let is_kept = |word: &&str| {
        !is_named(word, &MONTHS) && !is_named(word, &DAYS) && !word.bytes().all(|byte| byte.is_ascii_digit())
    };
    Some(words.into_iter().filter(is_kept).collect())
}

/// A run of letters and digits that is no word: it has digits, or changes between small and large letters.
fn random(bytes: &[u8]) -> usize {
    let length = run(bytes, |byte| byte.is_ascii_alphanumeric() || b"_+=".contains(&byte));
    let word = &bytes[..length];
    let digits = word.iter().filter(|byte| byte.is_ascii_digit()).count();
    let is_number = digits == length;
    let is_hex = word.iter().all(u8::is_ascii_hexdigit);
    let turns = word.windows(2).filter(|pair| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase()).count();
    let is_mixed = digits * 8 >= length || is_hex || turns * 4 >= length;
    if length >= RANDOM_MIN_CHARS && is_mixed && !is_number { length } else { 0 }
}

fn is_reordered(old: &str, new: &str) -> bool {
    let sorted = |text: &str| {
        let is_edge = |c: char| c.is_whitespace() || ",;[](){}".contains(c);
        let mut words: Vec<String> = text.split(is_edge).filter(|word| !word.is_empty()).map(str::to_owned).collect();
        words.sort_unstable();
        words
    };
    let (old, new) = (sorted(old), sorted(new));
    old.len() > 1 && old == new
}

fn are_last_bits(old: &str, new: &str) -> bool {
    let (old, new) = (parts(old), parts(new));
    old.len() > 1
        && old.len() == new.len()
        && old.iter().zip(&new).all(|(old, new)| match (old.1, new.1) {
            (Some(a), Some(b)) => (a - b).abs() <= LAST_BITS * a.abs().max(b.abs()),
            _ => old.0 == new.0,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Shape::{Address, Duration, LastBits, Path, Random, Reordering, Timestamp, Uuid};

    #[test]
    fn well_known_shapes_are_told() {
        let cases = [
            ("2023-11-14T22:13:20", "2025-01-20T09:00:00", Some(Timestamp)),
            ("made at 2023-11-14 22:13:20.123456+00:00 by x", "made at 2025-01-20 09:00:00.5Z by x", Some(Timestamp)),
            ("Tue Nov 14 22:13:20 2023", "Mon Jan 20 09:00:00 2025", Some(Timestamp)),
            ("1700000000", "1737363600.25", Some(Timestamp)),
            ("run-20231114_221320.log", "run-20250120_090000.log", Some(Timestamp)),
            ("123e4567-e89b-12d3-a456-426614174000", "00000000-e89b-42d3-a456-426614174001", Some(Uuid)),
            ("<object at 0x7f2a5c0d1e80>", "<object at 0x55d0c0ffee10>", Some(Address)),
            ("/tmp/tmpab12/x", "/tmp/tmpzz99/x", Some(Path)),
            ("wrote /home/a/out.csv", "wrote /root/out.csv", Some(Path)),
            ("9f86d081884c7d659a2feaa0c55ad015", "60303ae22b998861bce3b28f33eec1be", Some(Random)),
            ("token x8Kq2Lm0Pz", "token Qw93bbT1aa", Some(Random)),
            ("{'b', 'a', 'c'}", "{'a', 'c', 'b'}", Some(Reordering)),
            ("0.30000000000000004", "0.3", Some(LastBits)),
            ("loss 0.30000000000000004 at 7", "loss 0.3 at 7", Some(LastBits)),
            ("red", "green", None),
            ("12", "17", None),
            ("7 rows", "8 rows", None),
        ];
        for (old, new, shape) in cases {
            assert_eq!(Shape::of_texts("$.x", old, new), shape, "{old} {new}");
            assert_eq!(Shape::of_texts("$.x", new, old), shape, "{new} {old}");
        }
        assert_eq!(Shape::of_texts("$.fit.elapsed", "0.25", "0.5"), Some(Duration));
        assert_eq!(Shape::of_texts("$.accuracy", "0.25", "0.5"), None);
    }
}
