//! Tables: rows of cells under the names of columns.

use std::borrow::Cow;

use super::Precision;
use super::number::{Difference, Spelled};
use super::report::{Finding, Report, hex};
use super::shape::Shape;

/// So many bytes of a cell are told.
const BYTES_TOLD: usize = 32;

/// One cell.
#[derive(Clone, Debug)]
pub(super) enum Cell<'a> {
    /// Nothing.
    Null,
    /// A whole number.
    Whole(i128),
    /// A number with this precision.
    Float(f64, Precision),
    /// A text, which in a file of text may spell a number.
    Text(Cow<'a, str>),
    /// A number as a text spells it.
    Spelled(Cow<'a, str>),
    /// Bytes.
    Bytes(Cow<'a, [u8]>),
}

/// A file with one table whose columns have types.
pub(super) struct File {
    /// One line for each column, and each group of such.
    pub(super) schema: Vec<String>,
    /// The names of the columns.
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<Vec<Cell<'static>>>,
}

/// Compares two files with one table each: what their columns are, then the rows in order.
pub(super) fn compare_files(report: &mut Report, old: &File, new: &File) {
    if old.schema != new.schema {
        let only = |lines: &[String], others: &[String]| {
            let lines: Vec<&str> = lines.iter().filter(|line| !others.contains(line)).map(String::as_str).collect();
            (!lines.is_empty()).then(|| lines.join("; "))
        };
        report.differ(|| Finding::of("schema", only(&old.schema, &new.schema), only(&new.schema, &old.schema)));
    }
    if old.columns == new.columns {
        compare(report, &old.columns, &old.rows, &new.rows, true);
    } else {
        let told = |columns: &[String]| Some(columns.join(", "));
        report.differ(|| Finding::of("columns", told(&old.columns), told(&new.columns)));
    }
}

/// A row of a table. Rows that are equal are the same; their order is any, but the same for both tables.
pub(super) trait Row: Ord {
    /// Returns the cells.
    fn cells(&self) -> Vec<Cell<'_>>;
}

impl PartialEq for Cell<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Cell<'_> {}

impl PartialOrd for Cell<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Cell<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) => a.cmp(b),
            (Self::Float(a, _), Self::Float(b, _)) => a.total_cmp(b),
            (Self::Text(a), Self::Text(b)) | (Self::Spelled(a), Self::Spelled(b)) => a.cmp(b),
            (Self::Bytes(a), Self::Bytes(b)) => a.cmp(b),
            (a, b) => a.rank().cmp(&b.rank()),
        }
    }
}

/// Compares the rows of two tables with the same columns.
///
/// If their order is a part of what they say, rows are compared one to one, and another order is a difference, which is told as
/// such. If not, rows that both have are left aside wherever they stand, and of the rest the first is compared with the first.
pub(super) fn compare<R: Row>(report: &mut Report, columns: &[String], old: &[R], new: &[R], is_ordered: bool) {
    let name = |index: usize| columns.get(index).cloned().unwrap_or_else(|| (index + 1).to_string());
    if old.len() != new.len() {
        let count = |rows: &[R]| Some(format!("{} rows", rows.len()));
        report.differ(|| Finding::of("length", count(old), count(new)));
        return one_sided(report, old, new);
    }
    if !is_ordered {
        return unordered(report, &name, old, new);
    }
    let differing: Vec<usize> = (0..old.len()).filter(|at| old[*at] != new[*at]).collect();
    let sorted = |rows: &[R]| {
        let mut order = differing.clone();
        order.sort_by(|a, b| rows[*a].cmp(&rows[*b]));
        order
    };
    let (old_order, new_order) = (sorted(old), sorted(new));
    let is_reordered =
        !differing.is_empty() && old_order.iter().zip(&new_order).all(|(from, to)| old[*from] == new[*to]);
    if is_reordered {
        report.note("rows are in another order");
        let told = || Some(format!("{} rows in one order", differing.len()));
        return report
            .differ(|| Finding::of("rows", told(), Some("another".to_owned())).shaped(Some(Shape::Reordering)));
    }
    let mut numbers = 0;
    for at in &differing {
        row(report, &name, *at, (&old[*at], &new[*at]), &mut numbers);
    }
    if numbers > 0 {
        let is_same = |at: &usize| differing.binary_search(at).is_err();
        let count = |at: usize| old[at].cells().iter().filter(|cell| cell.is_number()).count() as u64;
        report.same_numbers((0..old.len()).filter(is_same).map(count).sum());
    }
}

fn unordered<R: Row>(report: &mut Report, name: &dyn Fn(usize) -> String, old: &[R], new: &[R]) {
    let mut numbers = 0;
    let (gone, come) = (missing(old, new), missing(new, old));
    for (from, to) in gone.iter().zip(&come) {
        row(report, name, *from, (&old[*from], &new[*to]), &mut numbers);
    }
    if numbers > 0 {
        let is_same = |at: &usize| gone.binary_search(at).is_err();
        let count = |at: usize| old[at].cells().iter().filter(|cell| cell.is_number()).count() as u64;
        report.same_numbers((0..old.len()).filter(is_same).map(count).sum());
    }
}

fn row<R: Row>(
    report: &mut Report,
    name: &dyn Fn(usize) -> String,
    at: usize,
    (old, new): (&R, &R),
    numbers: &mut u64,
) {
    let (old, new) = (old.cells(), new.cells());
    if old.len() != new.len() {
        let count = |cells: &[Cell<'_>]| Some(format!("{} cells", cells.len()));
        return report.differ(|| Finding::of(format!("row {}", at + 1), count(&old), count(&new)));
    }
    for (index, (old, new)) in old.iter().zip(&new).enumerate() {
        let place = || format!("row {}, column {}", at + 1, name(index));
        let finding = || Finding::of_texts(place(), &old.spelled(), &new.spelled());
        if old == new {
            report.same_numbers(u64::from(old.is_number()));
            continue;
        }
        match old.difference(new) {
            Some(difference) => {
                *numbers += 1;
                report.number(difference, finding);
            }
            None => report.differ(finding),
        }
    }
}

impl Cell<'_> {
    const fn rank(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Whole(_) => 1,
            Self::Float(..) => 2,
            Self::Text(_) => 3,
            Self::Spelled(_) => 4,
            Self::Bytes(_) => 5,
        }
    }

    fn is_number(&self) -> bool {
        match self {
            Self::Whole(_) | Self::Float(..) => true,
            Self::Spelled(text) => Spelled::read(text.trim()).is_some(),
            Self::Null | Self::Text(_) | Self::Bytes(_) => false,
        }
    }

    /// Returns how far two numbers are from each other; `None` if they are none.
    fn difference(&self, other: &Self) -> Option<Difference> {
        let value = |cell: &Self| match cell {
            Self::Whole(whole) => Some(Spelled::Whole(*whole)),
            Self::Float(float, _) => Some(Spelled::Float(*float)),
            Self::Spelled(text) => Spelled::read(text.trim()),
            Self::Null | Self::Text(_) | Self::Bytes(_) => None,
        };
        match (self, other) {
            (Self::Float(old, precision), Self::Float(new, other)) if precision == other => {
                Some(Difference::of(*old, *new, *precision))
            }
            _ => Some(value(self)?.difference(value(other)?)),
        }
    }

    pub(super) fn spelled(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Whole(whole) => whole.to_string(),
            Self::Float(float, Precision::Double) => format!("{float:?}"),
            #[expect(clippy::cast_possible_truncation, reason = "it has no more digits")]
            Self::Float(float, _) => format!("{:?}", *float as f32),
            Self::Text(text) | Self::Spelled(text) => text.clone().into_owned(),
            Self::Bytes(bytes) => hex(bytes, BYTES_TOLD),
        }
    }
}

/// Tells the rows that are on one side alone.
fn one_sided<R: Row>(report: &mut Report, old: &[R], new: &[R]) {
    let spelled = |row: &R| Some(row.cells().iter().map(Cell::spelled).collect::<Vec<_>>().join(", "));
    for at in missing(old, new) {
        report.differ(|| Finding::of(format!("row {}", at + 1), spelled(&old[at]), None));
    }
    for at in missing(new, old) {
        report.differ(|| Finding::of(format!("row {}", at + 1), None, spelled(&new[at])));
    }
}

/// Returns the places of the rows that `others` does not have, or has fewer times.
fn missing<R: Ord>(rows: &[R], others: &[R]) -> Vec<usize> {
    let mut sorted: Vec<usize> = (0..rows.len()).collect();
    sorted.sort_by_key(|at| &rows[*at]);
    let mut others: Vec<&R> = others.iter().collect();
    others.sort_unstable();
    let mut others = others.into_iter().peekable();
    let mut missing = Vec::new();
    for at in sorted {
        while others.next_if(|other| **other < rows[at]).is_some() {}
        if others.next_if(|other| **other == rows[at]).is_none() {
            missing.push(at);
        }
    }
    missing.sort_unstable();
    missing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Precision::{Half, Single};

    /// Which side's precision counted, decided about the answer: it was another if the sides were swapped.
    #[test]
    fn numbers_of_two_precisions_are_as_far_apart_both_ways() {
        let (old, new) = (Cell::Float(1.5, Half), Cell::Float(1.6, Single));
        assert_eq!(old.difference(&new), new.difference(&old));
    }
}
