//! Bytes of which nothing is known: where they differ, how many, and what that looks like.

use std::io::{self, Read};

use super::Precision::{Double, Single};
use super::number::Difference;
use super::report::{Finding, Report, hex, percent, share};
use super::shape::{Shape, is_moment};

/// Bytes that differ belong to one place if not more than so many equal ones are between them.
const GAP_BYTES: usize = 8;
/// So many bytes of a place are told.
const TOLD_BYTES: usize = 16;
/// How much of a stream is held at once.
const BUFFER_BYTES: usize = 256 * 1024;
/// If more of the bytes differ than this, it is as if they were random: two random bytes are equal once in 256 times.
const RANDOM_SHARE: f64 = 0.985;
/// So many bytes have to differ before they look random.
const RANDOM_MIN_BYTES: u64 = 64;

/// Compares bytes that are not the same.
pub(super) fn compare(report: &mut Report, old: &[u8], new: &[u8]) {
    lengths(report, old.len() as u64, new.len() as u64);
    let mut differing = old.len().abs_diff(new.len()) as u64;
    let shape = of_all(old, new);
    for (start, end) in runs(old, new) {
        differing += old[start..end].iter().zip(&new[start..end]).filter(|(old, new)| old != new).count() as u64;
        let told = |bytes: &[u8]| Some(hex(&bytes[start..end], TOLD_BYTES));
        let shape_here = || shape.or_else(|| of_run(old, new, start, end));
        report.differ(|| Finding {
            place: format!("byte {start}"),
            old: told(old),
            new: told(new),
            shape: shape_here(),
        });
    }
    say(report, differing, old.len().max(new.len()) as u64);
}

/// Which of two streams could not be read to its end, and why.
#[derive(Debug)]
pub(super) enum Broken {
    Old(io::Error),
    New(io::Error),
}

/// Compares what two readers yield, without holding it: where it differs first, and how many bytes do.
pub(super) fn compare_streams(report: &mut Report, old: &mut dyn Read, new: &mut dyn Read) -> Result<(), Broken> {
    let (mut old_buffer, mut new_buffer) = (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]);
    let (mut at, mut differing) = (0_u64, 0_u64);
    let [mut old_length, mut new_length] = [0_u64; 2];
    let mut first = None;
    loop {
        let old_count = fill(old, &mut old_buffer).map_err(Broken::Old)?;
        let new_count = fill(new, &mut new_buffer).map_err(Broken::New)?;
        if old_count.max(new_count) == 0 {
            break;
        }
        let (old, new) = (&old_buffer[..old_count], &new_buffer[..new_count]);
        if old != new {
            let pairs = old.iter().zip(new);
            let here = pairs.clone().position(|(old, new)| old != new);
            if let (None, Some(here)) = (&first, here) {
                let told = |bytes: &[u8]| Some(hex(&bytes[here..(here + TOLD_BYTES).min(bytes.len())], TOLD_BYTES));
                first = Some(Finding::of(format!("byte {}", at + here as u64), told(old), told(new)));
            }
            differing += pairs.filter(|(old, new)| old != new).count() as u64 + old_count.abs_diff(new_count) as u64;
        }
        old_length += old_count as u64;
        new_length += new_count as u64;
        at += BUFFER_BYTES as u64;
    }
    if differing > 0 {
        lengths(report, old_length, new_length);
        if let Some(first) = first {
            report.differ(|| first);
        }
        say(report, differing, old_length.max(new_length));
    }
    Ok(())
}

/// Fills the buffer unless the end comes before, and returns how many bytes are in it.
fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn lengths(report: &mut Report, old: u64, new: u64) {
    if old != new {
        report.differ(|| Finding::of("length", Some(format!("{old} bytes")), Some(format!("{new} bytes"))));
    }
}

fn say(report: &mut Report, differing: u64, all: u64) {
    report.note(format!("{differing} of {all} bytes differ ({})", percent(share(differing, all))));
}

/// Returns the places where the bytes differ, those near to each other as one.
fn runs<'a>(old: &'a [u8], new: &'a [u8]) -> impl Iterator<Item = (usize, usize)> + 'a {
    let common = old.len().min(new.len());
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + old[at..common].iter().zip(&new[at..common]).position(|(old, new)| old != new)?;
        let mut end = start + 1;
        let mut next = end;
        while next < common && next - end <= GAP_BYTES {
            if old[next] != new[next] {
                end = next + 1;
            }
            next += 1;
        }
        at = end;
        Some((start, end))
    })
}

/// Returns what all differences together look like.
fn of_all(old: &[u8], new: &[u8]) -> Option<Shape> {
    let counts = |bytes: &[u8]| {
        let mut counts = [0_u64; 256];
        bytes.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        counts
    };
    if old.len() == new.len() {
        if are_last_bits(old, new) {
            return Some(Shape::LastBits);
        }
        let differing = old.iter().zip(new).filter(|(old, new)| old != new).count();
        if differing > GAP_BYTES && counts(old) == counts(new) {
            return Some(Shape::Reordering);
        }
    }
    let first = old.iter().zip(new).position(|(old, new)| old != new)?;
    let (old, new) = (&old[first..], &new[first..]);
    let differing = old.iter().zip(new).filter(|(old, new)| old != new).count() as u64;
    let all = old.len().min(new.len()) as u64;
    (differing >= RANDOM_MIN_BYTES && share(differing, all) > RANDOM_SHARE).then_some(Shape::Random)
}

/// Returns whether all that differs are floats, eight or four bytes long, that are near to each other.
fn are_last_bits(old: &[u8], new: &[u8]) -> bool {
    let near = |old: f64, new: f64, precision| {
        let difference = Difference::of(old, new, precision);
        // What is as small as this is no result of a computation, but something else.
        difference.absolute.is_finite() && difference.ulps < 1 << 20 && old.abs() > 1e-30 && old.abs() < 1e30
    };
    let words = |size: usize, near: &dyn Fn(&[u8], &[u8]) -> bool| {
        let pairs = old.chunks(size).zip(new.chunks(size));
        pairs.filter(|(old, new)| old != new).all(|(old, new)| old.len() == size && near(old, new))
    };
    words(8, &|old, new| match (old.try_into(), new.try_into()) {
        (Ok(old), Ok(new)) => near(f64::from_le_bytes(old), f64::from_le_bytes(new), Double),
        _ => false,
    }) || words(4, &|old, new| match (old.try_into(), new.try_into()) {
        (Ok(old), Ok(new)) => {
            let (old, new) = (f32::from_le_bytes(old), f32::from_le_bytes(new));
            near(old.into(), new.into(), Single) && Difference::of(old.into(), new.into(), Single).ulps < 1 << 8
        }
        _ => false,
    })
}

/// Returns what the difference at `start..end` looks like.
fn of_run(old: &[u8], new: &[u8], start: usize, end: usize) -> Option<Shape> {
    if let (Some(old), Some(new)) = (printable(old, start, end), printable(new, start, end))
        && let Some(shape) = Shape::of_texts("", old, new)
    {
        return Some(shape);
    }
    let is_both = |is: &dyn Fn(&[u8]) -> bool| is(old) && is(new);
    let length = end - start;
    if length <= 16 {
        // The bytes that differ may be fewer than the UUID has.
        let first = end.saturating_sub(16);
        if length > 8 && (first..=start).any(|at| is_both(&|bytes| is_uuid(bytes, at))) {
            return Some(Shape::Uuid);
        }
    }
    if length <= 4 && (end.saturating_sub(4)..=start).any(|at| is_both(&|bytes| is_seconds(bytes, at))) {
        return Some(Shape::Timestamp);
    }
    let word = start / 8 * 8;
    let is_aligned = end <= word + 8;
    if is_aligned && is_both(&|bytes| is_address(bytes, word)) {
        return Some(Shape::Address);
    }
    if is_aligned && is_both(&|bytes| is_long_moment(bytes, word)) {
        return Some(Shape::Timestamp);
    }
    None
}

/// Returns the readable text around `start..end`, if the bytes there are a part of one.
fn printable(bytes: &[u8], start: usize, end: usize) -> Option<&str> {
    const AROUND_BYTES: usize = 64;
    let is_readable = |byte: &u8| (b' '..=b'~').contains(byte);
    if !bytes[start..end].iter().all(is_readable) {
        return None;
    }
    let before = bytes[..start].iter().rev().take(AROUND_BYTES).take_while(|byte| is_readable(byte)).count();
    let behind = bytes[end..].iter().take(AROUND_BYTES).take_while(|byte| is_readable(byte)).count();
    let text = &bytes[start - before..end + behind];
    if text.len() < 4 { None } else { std::str::from_utf8(text).ok() }
}

fn word<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// A random UUID, by the bits that say so.
fn is_uuid(bytes: &[u8], at: usize) -> bool {
    word::<16>(bytes, at).is_some_and(|uuid| uuid[6] >> 4 == 4 && uuid[8] >> 6 == 2)
}

fn is_seconds(bytes: &[u8], at: usize) -> bool {
    let is_moment = |seconds: u32| is_moment(seconds.into());
    word::<4>(bytes, at).is_some_and(|word| is_moment(u32::from_le_bytes(word)) || is_moment(u32::from_be_bytes(word)))
}

#[expect(clippy::cast_precision_loss, reason = "a moment is told by its first digits")]
fn is_long_moment(bytes: &[u8], at: usize) -> bool {
    let is_it = |word: [u8; 8]| is_moment(u64::from_le_bytes(word) as f64) || is_moment(f64::from_le_bytes(word));
    word(bytes, at).is_some_and(is_it)
}

/// An address of the heap, a library or the stack on 64-bit Linux.
fn is_address(bytes: &[u8], at: usize) -> bool {
    let is_it = |word| matches!(u64::from_le_bytes(word) >> 40, 0x55 | 0x56 | 0x7e | 0x7f);
    word(bytes, at).is_some_and(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Tolerance;

    fn shape(old: &[u8], new: &[u8]) -> Option<Shape> {
        let mut report = Report::new(Tolerance::default(), 0);
        compare(&mut report, old, new);
        report.finish("x", "bytes").findings.iter().find(|finding| finding.place != "length")?.shape
    }

    #[test]
    fn shapes_are_told_from_the_bytes_alone() {
        let with = |middle: &[u8]| [&[7_u8; 32], middle, &[9; 32]].concat();
        let pair = |old: &[u8], new: &[u8]| shape(&with(old), &with(new));
        assert_eq!(pair(&1_700_000_000_u32.to_le_bytes(), &1_737_363_600_u32.to_le_bytes()), Some(Shape::Timestamp));
        assert_eq!(
            pair(&1_700_000_000.25_f64.to_le_bytes(), &1_737_363_600.5_f64.to_le_bytes()),
            Some(Shape::Timestamp)
        );
        assert_eq!(
            pair(&0x7f12_3456_7890_u64.to_le_bytes(), &0x7fab_cdef_0120_u64.to_le_bytes()),
            Some(Shape::Address)
        );
        let uuids = [0x9f86_d081_884c_4d65_9a2f_eaa0_c55a_d015_u128, 0x6030_3ae2_2b99_4861_bce3_b28f_33ee_c1be];
        assert_eq!(pair(&uuids[0].to_be_bytes(), &uuids[1].to_be_bytes()), Some(Shape::Uuid));
        assert_eq!(pair(b"at 2023-11-14 22:13", b"at 2025-01-20 09:00"), Some(Shape::Timestamp));
        let floats = |last: f64| [0.1_f64, 0.2, last].map(f64::to_le_bytes).concat();
        assert_eq!(shape(&floats(0.3), &floats(0.1 + 0.2)), Some(Shape::LastBits));
        let ramp: Vec<u8> = (0..=255).collect();
        let turned: Vec<u8> = ramp.iter().rev().copied().collect();
        assert_eq!(shape(&ramp, &turned), Some(Shape::Reordering));
        assert_eq!(pair(b"\x01", b"\x02"), None);
    }

    #[test]
    fn a_stream_is_told_as_the_bytes_are() {
        let mut old = vec![1_u8; 600_000];
        let new = old.clone();
        old[500_000] = 2;
        old.push(3);
        let mut report = Report::new(Tolerance::default(), 0);
        compare_streams(&mut report, &mut &old[..], &mut &new[..]).unwrap();
        let comparison = report.finish("x", "bytes");
        assert_eq!(comparison.note.as_deref(), Some("2 of 600001 bytes differ (less than 0.1 %)"));
        assert_eq!(comparison.findings[1].place, "byte 500000");
        let mut report = Report::new(Tolerance::default(), 0);
        compare_streams(&mut report, &mut &new[..], &mut &new[..]).unwrap();
        assert_eq!(report.finish("x", "bytes"), crate::compare::Comparison::identical("x", "bytes"));
    }
}
