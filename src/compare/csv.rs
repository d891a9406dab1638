//! Tables in text: cells between commas, semicolons or tabs, quoted where they have to be.

use std::borrow::Cow;

use super::number::Spelled;
use super::report::{Finding, Report};
use super::table::{self, Cell, Row};

/// What may stand between cells.
const SEPARATORS: [u8; 4] = *b",;\t|";

/// Compares two tables, or returns `None` if one of them is none: a quote that nothing closes.
pub(super) fn compare(report: &mut Report, separator: Option<u8>, old: &str, new: &str) -> Option<()> {
    let separator = separator.unwrap_or_else(|| guess(old, new));
    let (old, new) = (records(old, separator)?, records(new, separator)?);
    let (Some(old_first), Some(new_first)) = (old.first(), new.first()) else {
        let count = |rows: &[Record<'_>]| Some(format!("{} rows", rows.len()));
        if old.len() != new.len() {
            report.differ(|| Finding::of("length", count(&old), count(&new)));
        }
        return Some(());
    };
    let (old_names, new_names) = (names(old_first), names(new_first));
    if let (Some(old_names), Some(new_names)) = (&old_names, &new_names) {
        if old_names != new_names {
            let told = |names: &[String]| Some(names.join(", "));
            report.differ(|| Finding::of("columns", told(old_names), told(new_names)));
            if old_names.len() != new_names.len() {
                return Some(());
            }
            let sorted = |names: &[String]| {
                let mut names = names.to_vec();
                names.sort_unstable();
                names
            };
            if sorted(old_names) == sorted(new_names) {
                report.note("columns are in another order");
                return Some(());
            }
        }
        table::compare(report, old_names, &old[1..], &new[1..], true);
    } else {
        table::compare(report, &[], &old, &new, true);
    }
    Some(())
}

/// Returns the separator that the first lines have most of.
fn guess(old: &str, new: &str) -> u8 {
    let first = |text: &str| text.split('\n').next().unwrap_or_default().to_owned();
    let line = first(old) + &first(new);
    let count = |separator: u8| line.bytes().filter(|byte| *byte == separator).count();
    SEPARATORS.into_iter().rev().max_by_key(|separator| count(*separator)).unwrap_or(b',')
}

/// One row as it stands in the text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Record<'a> {
    text: &'a str,
    separator: u8,
}

impl Row for Record<'_> {
    fn cells(&self) -> Vec<Cell<'_>> {
        split(self.text, self.separator).into_iter().map(Cell::Spelled).collect()
    }
}

/// Returns the names of the columns, if the first row looks like them: no cell is empty, a number, or there twice.
fn names(first: &Record<'_>) -> Option<Vec<String>> {
    let cells = split(first.text, first.separator);
    let is_name = |cell: &Cow<'_, str>| !cell.trim().is_empty() && Spelled::read(cell.trim()).is_none();
    // Tables that pandas writes have no name for the first column.
    let named = if cells.len() > 1 && cells[0].is_empty() { &cells[1..] } else { &cells[..] };
    let mut sorted: Vec<&Cow<'_, str>> = named.iter().collect();
    sorted.sort_unstable();
    let is_header = named.iter().all(is_name) && sorted.windows(2).all(|pair| pair[0] != pair[1]);
    let shown = |(index, cell): (usize, Cow<'_, str>)| {
        if cell.is_empty() { (index + 1).to_string() } else { cell.trim().to_owned() }
    };
    is_header.then(|| cells.into_iter().enumerate().map(shown).collect())
}

/// Where in a row a byte is.
enum State {
    CellStart,
    Plain,
    Quoted,
    /// Behind a quote in quotes: the end of them, or the first of two that stand for one.
    Closed,
}

/// Returns the rows of a text, without blank ones; a row goes on behind a line end in quotes.
fn records(text: &str, separator: u8) -> Option<Vec<Record<'_>>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut records = Vec::new();
    let mut start = 0;
    let mut state = State::CellStart;
    for (at, byte) in text.bytes().enumerate() {
        state = match (state, byte) {
            (State::Quoted, b'"') => State::Closed,
            (State::Quoted, _) | (State::CellStart | State::Closed, b'"') => State::Quoted,
            (_, b'\n') => {
                push(&mut records, &text[start..at], separator);
                start = at + 1;
                State::CellStart
            }
            (_, byte) if byte == separator => State::CellStart,
            _ => State::Plain,
        };
    }
    if matches!(state, State::Quoted) {
        return None;
    }
    push(&mut records, &text[start..], separator);
    Some(records)
}

fn push<'a>(records: &mut Vec<Record<'a>>, text: &'a str, separator: u8) {
    let text = text.strip_suffix('\r').unwrap_or(text);
    if !text.is_empty() {
        records.push(Record { text, separator });
    }
}

/// Returns the cells of a row, without their quotes.
fn split(text: &str, separator: u8) -> Vec<Cow<'_, str>> {
    let bytes = text.as_bytes();
    let mut cells = Vec::new();
    let mut start = 0;
    loop {
        let end = if bytes.get(start) == Some(&b'"') {
            let mut at = start + 1;
            loop {
                match (bytes.get(at), bytes.get(at + 1)) {
                    (Some(b'"'), Some(b'"')) => at += 2,
                    (Some(b'"') | None, _) => break at,
                    _ => at += 1,
                }
            }
        } else {
            start
        };
        let next = bytes[end.min(bytes.len())..].iter().position(|byte| *byte == separator);
        let behind = next.map_or(bytes.len(), |next| end + next);
        let cell = &text[start..behind];
        let inner = cell.strip_prefix('"').and_then(|cell| cell.strip_suffix('"'));
        cells.push(match inner {
            Some(inner) if inner.contains('"') => Cow::Owned(inner.replace("\"\"", "\"")),
            Some(inner) => Cow::Borrowed(inner),
            None => Cow::Borrowed(cell),
        });
        if behind == bytes.len() {
            return cells;
        }
        start = behind + 1;
    }
}
