//! What a comparison found: locations, numbers, a level.

use std::fmt;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::number::Difference;
use super::shape::Shape;
use crate::pipeline::{Level, Tolerance};

/// So many locations of a comparison are told; the rest are counted.
pub const FINDINGS_MAX: usize = 20;
/// Of an array among other things so many elements are told.
const ELEMENTS_TOLD: usize = 2;
/// Elements of arrays leave room for single values, but for so many of them.
const ELEMENTS_KEPT: usize = 6;
/// More than so many say nothing to people.
const ULPS_TOLD_MAX: u64 = 1_000_000;
/// So many characters of a place are told.
const PLACE_MAX_CHARS: usize = 200;
/// So many characters of a value are told.
const SHOWN_MAX_CHARS: usize = 72;

/// How two files, or two things in a place where a file is expected, differ.
#[derive(Clone, PartialEq, Debug)]
pub struct Comparison {
    /// What was compared: the path of the file.
    pub path: String,
    /// What the two have in common.
    pub level: Level,
    /// As what they were compared, such as `json` or `npy`; `bytes` if nothing is known of what is in them.
    pub format: &'static str,
    /// Where they differ, at most [`FINDINGS_MAX`] places, those first that are not close.
    pub findings: Vec<Finding>,
    /// How many places more there are.
    pub more: u64,
    /// How far the numbers are from each other, if any differ.
    pub errors: Option<Errors>,
    /// What is to be said of the whole, such as `rows are in another order`.
    pub note: Option<String>,
}

/// One place where two things differ.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// Where: `$.created_at`, `row 3, column price`, `line 17`, `byte 1024`, `member weights.npy, [3, 4]`.
    pub place: String,
    /// What was there, shortened; `None` if nothing was.
    pub old: Option<String>,
    /// What is there, shortened; `None` if nothing is.
    pub new: Option<String>,
    /// What kind of difference it looks like: a hint at the cause, never more.
    pub shape: Option<Shape>,
}

/// How far numbers are from each other.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Errors {
    /// The largest distance of two finite numbers.
    pub max_absolute: f64,
    /// The largest distance as a share of the larger of the two.
    pub max_relative: f64,
    /// The largest number of representable values that lie between two, in the precision of the file; 0 for whole numbers.
    pub max_ulps: u64,
    /// How many of the numbers differ, as a share of all.
    pub share: f64,
    /// How many numbers were compared.
    pub elements: u64,
}

impl Comparison {
    /// Returns the comparison of two things that are the same.
    pub fn identical(path: &str, format: &'static str) -> Self {
        Self {
            path: path.to_owned(),
            level: Level::Identical,
            format,
            findings: Vec::new(),
            more: 0,
            errors: None,
            note: None,
        }
    }

    /// Returns the comparison of two things that differ in one way.
    pub(super) fn different(path: &str, format: &'static str, finding: Finding) -> Self {
        Self { level: Level::Different, findings: vec![finding], ..Self::identical(path, format) }
    }
}

impl fmt::Display for Comparison {
    /// One line for each location, each with the path; one line alone if there is none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        let mut lines = Vec::new();
        lines.extend(self.note.as_ref().map(|note| format!("{path}: {note}")));
        lines.extend(self.errors.as_ref().map(|errors| format!("{path}: {errors}")));
        lines.extend(self.findings.iter().map(|finding| format!("{path}: {finding}")));
        if self.more > 0 {
            let places = if self.more == 1 { "place" } else { "places" };
            lines.push(format!("{path}: {} more {places}", self.more));
        }
        if lines.is_empty() {
            lines.push(format!("{path}: {}", self.level));
        }
        f.write_str(&lines.join("\n"))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => write!(f, "{} {old} -> {new}", self.place),
            (Some(old), None) => write!(f, "{} {old} -> nothing", self.place),
            (None, Some(new)) => write!(f, "{} nothing -> {new}", self.place),
            (None, None) => f.write_str(&self.place),
        }
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} numbers differ, at most by {}, {} of the number",
            percent(self.share),
            self.elements,
            short(self.max_absolute),
            short(self.max_relative),
        )?;
        match self.max_ulps {
            0 => Ok(()),
            1 => f.write_str(", 1 ulp"),
            ulps if ulps <= ULPS_TOLD_MAX => write!(f, ", {ulps} ulps"),
            _ => Ok(()),
        }
    }
}

/// Returns a number with a few digits.
fn short(value: f64) -> String {
    if value == 0.0 || (1e-3..1e6).contains(&value) {
        let digits = format!("{value:.4}");
        return digits.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    format!("{value:.1e}")
}

/// Returns a share as a percentage that is 0 % for nothing and 100 % for everything alone.
pub(super) fn percent(share: f64) -> String {
    if share <= 0.0 || share >= 1.0 {
        return format!("{:.0} %", share * 100.0);
    }
    if share < 0.001 { "less than 0.1 %".to_owned() } else { format!("{:.1} %", (share * 100.0).min(99.9)) }
}

impl Serialize for Comparison {
    /// As `{"path", "level", "detail"}`; every key is always there.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Detail<'a> {
            format: &'static str,
            findings: &'a [Finding],
            more: u64,
            errors: &'a Option<Errors>,
            note: &'a Option<String>,
        }
        let detail = Detail {
            format: self.format,
            findings: &self.findings,
            more: self.more,
            errors: &self.errors,
            note: &self.note,
        };
        let mut out = serializer.serialize_struct("Comparison", 3)?;
        out.serialize_field("path", &self.path)?;
        out.serialize_field("level", &self.level)?;
        out.serialize_field("detail", &detail)?;
        out.end()
    }
}

/// A comparison in the making. Comparers tell it what they find; it keeps the worst level and the first places.
pub(super) struct Report {
    pub(super) tolerance: Tolerance,
    level: Level,
    /// Places that differ by more than the tolerance.
    beyond: Told,
    /// Places that differ by less.
    within: Told,
    count: u64,
    elements: u64,
    differing: u64,
    max_absolute: f64,
    max_relative: f64,
    max_ulps: u64,
    notes: Vec<String>,
    /// Where in the file this is, such as `member a.npy`; in front of every place.
    inside: Vec<String>,
    /// How many bytes may still be made of what is packed or compressed.
    budget_bytes: u64,
}

impl Report {
    pub(super) fn new(tolerance: Tolerance, budget_bytes: u64) -> Self {
        Self {
            tolerance,
            level: Level::Identical,
            beyond: Told::default(),
            within: Told::default(),
            count: 0,
            elements: 0,
            differing: 0,
            max_absolute: 0.0,
            max_relative: 0.0,
            max_ulps: 0,
            notes: Vec::new(),
            inside: Vec::new(),
            budget_bytes,
        }
    }

    /// Returns an empty one with the same bounds, for what is to be told to nobody.
    pub(super) fn apart(&self) -> Self {
        let mut apart = Self::new(self.tolerance, self.budget_bytes);
        apart.inside.clone_from(&self.inside);
        apart
    }

    /// Returns what was found in two files, compared as `format`.
    pub(super) fn finish(self, path: &str, format: &'static str) -> Comparison {
        let mut findings: Vec<Finding> = self.beyond.places.into_iter().map(|(finding, _)| finding).collect();
        findings.extend(self.within.places.into_iter().map(|(finding, _)| finding));
        findings.truncate(FINDINGS_MAX);
        Comparison {
            path: path.to_owned(),
            level: self.level,
            format,
            more: self.count.saturating_sub(findings.len() as u64),
            findings,
            errors: (self.differing > 0).then(|| Errors {
                max_absolute: self.max_absolute,
                max_relative: self.max_relative,
                max_ulps: self.max_ulps,
                share: share(self.differing, self.elements),
                elements: self.elements,
            }),
            note: (!self.notes.is_empty()).then(|| self.notes.join("; ")),
        }
    }

    /// Notes that the two are not the same bytes.
    pub(super) fn is_canonical(&mut self) {
        self.level = self.level.max(Level::Canonical);
    }

    /// Says something of the whole, once.
    pub(super) fn note(&mut self, note: impl Into<String>) {
        let note = self.placed(note.into());
        if !self.notes.contains(&note) && self.notes.len() < FINDINGS_MAX {
            self.notes.push(note);
        }
    }

    /// Notes a place where the two differ. What is there is only asked for while places are told.
    pub(super) fn differ(&mut self, finding: impl FnOnce() -> Finding) {
        self.level = Level::Different;
        self.count += 1;
        if self.beyond.has_room() {
            let finding = self.at(finding());
            self.beyond.push(finding);
        }
    }

    /// Notes a number that is the same on both sides.
    pub(super) fn same_numbers(&mut self, count: u64) {
        self.elements += count;
    }

    /// Notes two numbers that differ.
    pub(super) fn number(&mut self, difference: Difference, finding: impl FnOnce() -> Finding) {
        self.elements += 1;
        if difference.is_none() {
            return self.is_canonical();
        }
        self.differing += 1;
        if difference.absolute.is_finite() {
            self.max_absolute = self.max_absolute.max(difference.absolute);
            self.max_relative = self.max_relative.max(difference.relative);
            self.max_ulps = self.max_ulps.max(difference.ulps);
        }
        if !difference.is_within(&self.tolerance) {
            return self.differ(finding);
        }
        self.level = self.level.max(Level::Close);
        self.count += 1;
        if self.within.has_room() {
            let finding = self.at(finding());
            self.within.push(finding);
        }
    }

    /// Notes two numbers that differ, at the place of the last ones.
    pub(super) fn number_at_same_place(&mut self, difference: Difference) {
        let count = self.count;
        let elements_left = [&mut self.beyond, &mut self.within].map(|told| told.elements_left.replace(0));
        self.number(difference, || Finding::of("", None, None));
        [self.beyond.elements_left, self.within.elements_left] = elements_left;
        self.count = count;
    }

    /// Calls `compare` with every place that it tells of put behind `place`.
    pub(super) fn inside<T>(&mut self, place: String, compare: impl FnOnce(&mut Self) -> T) -> T {
        self.inside.push(place);
        let answer = compare(self);
        self.inside.pop();
        answer
    }

    /// Calls `compare`, which compares the elements of an array. Of one among other things only the first that differ are told, so
    /// that there is room for the others.
    pub(super) fn elements<T>(&mut self, compare: impl FnOnce(&mut Self) -> T) -> T {
        let most = if self.inside.is_empty() { FINDINGS_MAX } else { ELEMENTS_TOLD };
        let before = [&mut self.beyond, &mut self.within].map(|told| told.elements_left.replace(most));
        let answer = compare(self);
        [self.beyond.elements_left, self.within.elements_left] = before;
        answer
    }

    /// Returns how many levels of things within things this is inside of.
    pub(super) fn depth(&self) -> usize {
        self.inside.len()
    }

    /// Returns how many bytes may still be made of what is packed.
    pub(super) fn budget_bytes(&self) -> u64 {
        self.budget_bytes
    }

    /// Takes `bytes` from what may still be unpacked.
    pub(super) fn spend(&mut self, bytes: u64) {
        self.budget_bytes = self.budget_bytes.saturating_sub(bytes);
    }

    fn placed(&self, place: String) -> String {
        let parts = self.inside.iter().map(String::as_str).chain([place.as_str()]);
        // Names in files may be anything.
        fit(&parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", "), PLACE_MAX_CHARS)
    }

    fn at(&self, finding: Finding) -> Finding {
        Finding { place: self.placed(finding.place), ..finding }
    }
}

/// The places that are told.
#[derive(Default)]
struct Told {
    /// Each with whether it is an element of an array.
    places: Vec<(Finding, bool)>,
    /// How many elements of the array at hand may still be told; `None` outside arrays.
    elements_left: Option<usize>,
}

impl Told {
    /// Returns whether there is room for another place: free, or that of an element if a single value needs it.
    fn has_room(&self) -> bool {
        match self.elements_left {
            Some(left) => left > 0 && self.places.len() < FINDINGS_MAX,
            None => self.places.len() < FINDINGS_MAX || self.elements() > ELEMENTS_KEPT,
        }
    }

    fn elements(&self) -> usize {
        self.places.iter().filter(|(_, is_element)| *is_element).count()
    }

    fn push(&mut self, finding: Finding) {
        if self.places.len() == FINDINGS_MAX
            && let Some(last) = self.places.iter().rposition(|(_, is_element)| *is_element)
        {
            self.places.remove(last);
        }
        self.places.push((finding, self.elements_left.is_some()));
        if let Some(left) = &mut self.elements_left {
            *left -= 1;
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share needs few digits")]
pub(super) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl Finding {
    /// Returns the place at which two texts differ, with a guess at what they are.
    pub(super) fn of_texts(place: impl Into<String>, old: &str, new: &str) -> Self {
        let place = place.into();
        let shape = Shape::of_texts(&place, old, new);
        Self { place, old: Some(shown(old)), new: Some(shown(new)), shape }
    }

    /// Returns the place at which something is on one side alone, or differs in a way of no particular shape.
    pub(super) fn of(place: impl Into<String>, old: Option<String>, new: Option<String>) -> Self {
        Self { place: place.into(), old: old.as_deref().map(shown), new: new.as_deref().map(shown), shape: None }
    }

    /// Returns the finding with a guess at what it is.
    pub(super) fn shaped(self, shape: Option<Shape>) -> Self {
        Self { shape, ..self }
    }
}

/// Returns a value on one line, fit for a terminal, and not too long.
pub(super) fn shown(text: &str) -> String {
    if text.is_empty() { "\"\"".to_owned() } else { fit(text, SHOWN_MAX_CHARS) }
}

fn fit(text: &str, max: usize) -> String {
    let mut out = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == max {
            out.push('…');
            break;
        }
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// Returns the first bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8], max: usize) -> String {
    let mut out = String::new();
    for byte in bytes.iter().take(max) {
        out.push_str(&format!("{byte:02x}"));
    }
    if bytes.len() > max {
        out.push('…');
    }
    out
}
