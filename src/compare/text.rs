//! Text, line by line.

use super::number::{Spelled, parts};
use super::report::{Finding, Report};
use super::shape::Shape;

/// Returns whether the bytes are text: UTF-8 without control characters other than those of a terminal.
pub(super) fn read(bytes: &[u8]) -> Option<&str> {
    let is_odd = |byte: &u8| *byte < 0x20 && !b"\t\n\r\x0b\x0c\x1b\x08\x07".contains(byte);
    if bytes.iter().any(is_odd) {
        return None;
    }
    std::str::from_utf8(bytes).ok()
}

/// Compares two texts that are not the same bytes.
///
/// Lines are compared one to one if there are as many. If not, those at the start and at the end that are the same are
/// left aside, and of the rest it is told which lines are on one side alone.
pub(super) fn compare(report: &mut Report, old: &str, new: &str) {
    if let (Some(stripped), _) | (_, Some(stripped)) = (old.strip_suffix('\n'), new.strip_suffix('\n'))
        && (stripped == new || stripped == old)
    {
        let end = |text: &str| text.ends_with('\n').then(|| "a line end".to_owned());
        return report.differ(|| Finding::of("end", end(old), end(new)));
    }
    let (mut old_lines, mut new_lines) = (lines(old), lines(new));
    if old_lines.len() == new_lines.len() {
        if is_permutation(&old_lines, &new_lines) {
            report.note("lines are in another order");
            let changed = old_lines.iter().zip(&new_lines).filter(|(old, new)| old != new).count();
            let told =
                || Finding::of("lines", Some(format!("{changed} lines in one order")), Some("another".to_owned()));
            return report.differ(|| told().shaped(Some(Shape::Reordering)));
        }
        return one_to_one(report, &old_lines, &new_lines);
    }
    let before = report_lengths(report, &mut old_lines, &mut new_lines);
    one_sided(report, before, &old_lines, &new_lines);
}

fn lines(text: &str) -> Vec<&str> {
    text.strip_suffix('\n').unwrap_or(text).split('\n').collect()
}

fn is_permutation(old: &[&str], new: &[&str]) -> bool {
    // Lines that came elsewhere leave lines at their places that differ; two texts with one difference are none.
    let differing = old.iter().zip(new).filter(|(old, new)| old != new);
    let (mut old, mut new): (Vec<&str>, Vec<&str>) = differing.unzip();
    old.sort_unstable();
    new.sort_unstable();
    !old.is_empty() && old == new
}

fn one_to_one(report: &mut Report, old: &[&str], new: &[&str]) {
    let mut numbers_differ = false;
    for (index, (old, new)) in old.iter().zip(new).enumerate() {
        if old != new {
            numbers_differ |= line(report, index, old, new);
        }
    }
    if numbers_differ {
        let count = |line: &str| parts(line).iter().filter(|(_, number)| number.is_some()).count() as u64;
        let same = old.iter().zip(new).filter(|(old, new)| old == new).map(|(line, _)| count(line)).sum();
        report.same_numbers(same);
    }
}

/// Compares two lines, and returns whether only numbers differ.
fn line(report: &mut Report, index: usize, old: &str, new: &str) -> bool {
    let finding = || Finding::of_texts(format!("line {}", index + 1), old, new);
    let (old_parts, new_parts) = (parts(old), parts(new));
    let is_same = |(old, new): (&(&str, Option<f64>), &(&str, Option<f64>))| match (old.1, new.1) {
        (Some(_), Some(_)) => true,
        (None, None) => old.0 == new.0,
        _ => false,
    };
    if old_parts.len() != new_parts.len() || !old_parts.iter().zip(&new_parts).all(is_same) {
        report.differ(finding);
        return false;
    }
    for (old, new) in old_parts.iter().zip(&new_parts) {
        if let (Some(a), Some(b)) = (old.1, new.1) {
            if old.0 == new.0 {
                report.same_numbers(1);
            } else {
                report.number(Spelled::Float(a).difference(Spelled::Float(b)), finding);
            }
        }
    }
    true
}

/// Tells how many lines there are, takes away those at both ends that are the same, and returns how many those are at the start.
fn report_lengths(report: &mut Report, old: &mut Vec<&str>, new: &mut Vec<&str>) -> usize {
    let count = |lines: &[&str]| Some(format!("{} lines", lines.len()));
    report.differ(|| Finding::of("length", count(old), count(new)));
    let same = |(old, new): &(&&str, &&str)| old == new;
    let behind = old.iter().rev().zip(new.iter().rev()).take_while(same).count();
    old.truncate(old.len() - behind);
    new.truncate(new.len() - behind);
    let before = old.iter().zip(new.iter()).take_while(same).count();
    old.drain(..before);
    new.drain(..before);
    before
}

/// Tells the lines that are on one side alone; `before` lines are the same in front of them.
fn one_sided(report: &mut Report, before: usize, old: &[&str], new: &[&str]) {
    let gone = missing(old, new);
    let come = missing(new, old);
    if gone.len() == come.len() {
        for (from, to) in gone.iter().zip(&come) {
            report.differ(|| Finding::of_texts(format!("line {}", before + to + 1), old[*from], new[*to]));
        }
        return;
    }
    let whole = |line: &str| Some(line.to_owned());
    for at in gone {
        report.differ(|| Finding::of(format!("line {}", before + at + 1), whole(old[at]), None));
    }
    for at in come {
        report.differ(|| Finding::of(format!("line {}", before + at + 1), None, whole(new[at])));
    }
}

/// Returns the places of the lines of `lines` that `others` does not have, or has fewer times.
fn missing(lines: &[&str], others: &[&str]) -> Vec<usize> {
    let mut sorted: Vec<usize> = (0..lines.len()).collect();
    sorted.sort_by_key(|at| lines[*at]);
    let mut others = others.to_vec();
    others.sort_unstable();
    let mut others = others.into_iter().peekable();
    let mut missing = Vec::new();
    for at in sorted {
        while others.next_if(|other| *other < lines[at]).is_some() {}
        if others.next_if(|other| *other == lines[at]).is_none() {
            missing.push(at);
        }
    }
    missing.sort_unstable();
    missing
}
