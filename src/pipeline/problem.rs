//! What is wrong with a file that people write, and showing it under its line.
//!
//! The one door to `annotate-snippets`. Rendering is a pure function; nothing
//! is printed here. Text from the file never reaches the terminal with its
//! control characters.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use crate::yaml::YamlError;

use super::model::COMBINATION_MARK;

const BOM: char = '\u{feff}';
/// How many problems are shown in full; the rest is counted, and nobody needs to guess a hint for it.
pub(super) const SHOWN_MAX: usize = 20;
/// How many places of one problem are shown.
const PLACES_SHOWN_MAX: usize = 12;
/// How many characters of a word from the file a message repeats.
const QUOTED_MAX_CHARS: usize = 60;
/// How far apart two places on one line may be to be shown together.
const WIDTH_MAX_CHARS: usize = 100;
/// How many characters are underlined at the most, so that a very long line is cut around its beginning.
const UNDERLINED_MAX_CHARS: usize = 60;

/// A file that cannot be used, and every reason why. `Display` is the first reason in one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DefinitionError {
    /// The name under which the file is shown.
    pub file: String,
    /// What is wrong, in the order of the file; never empty.
    pub problems: Vec<Problem>,
    /// The file's text, invalid bytes replaced; empty if it was too large to be read.
    text: String,
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The fact, in one line.
    pub message: String,
    /// Where it shows; the first is the place itself, the others belong to it. Empty if it is about the whole file.
    pub places: Vec<Place>,
    /// What can be done about it.
    pub hint: Option<String>,
}

/// A place in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The line, counted from 1.
    pub line: usize,
    /// The column in characters, counted from 1; a byte order mark does not count.
    pub column: usize,
    /// The bytes in the file.
    pub span: Range<usize>,
    /// What is there; may be empty.
    pub label: String,
}

/// A problem whose places are not yet lines and columns.
pub(super) struct Finding {
    message: String,
    marks: Vec<(Range<usize>, String)>,
    hint: Option<String>,
}

impl Finding {
    pub(super) fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), marks: Vec::new(), hint: None }
    }

    /// Adds a place. The first that is added is where the problem is.
    pub(super) fn at(mut self, span: &Range<usize>, label: impl fmt::Display) -> Self {
        self.marks.push((span.clone(), label.to_string()));
        self
    }

    pub(super) fn hint(self, hint: impl fmt::Display) -> Self {
        Self { hint: Some(hint.to_string()), ..self }
    }

    pub(super) fn maybe_hint(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }
}

impl From<YamlError> for Finding {
    fn from(error: YamlError) -> Self {
        let mark = error.span.map(|span| (span, String::new()));
        Self { message: error.message, marks: mark.into_iter().chain(error.related).collect(), hint: error.hint }
    }
}

impl DefinitionError {
    /// Returns the error about `file` with these findings, at least one, sorted by their places.
    pub(super) fn new(file: &str, text: &str, mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| finding.marks.first().map(|(span, _)| span.start));
        let lines = Lines::of(text);
        let problems = findings.into_iter().map(|finding| Problem {
            message: finding.message,
            places: finding.marks.into_iter().map(|(span, label)| lines.place(span, label)).collect(),
            hint: finding.hint,
        });
        Self { file: file.to_owned(), problems: problems.collect(), text: text.to_owned() }
    }

    /// Returns the error about a file that is not even YAML.
    pub(super) fn from_yaml(file: &str, bytes: &[u8], error: YamlError) -> Self {
        // A file that is too large is not shown.
        let text = if error.span.is_some() { String::from_utf8_lossy(bytes) } else { "".into() };
        Self::new(file, &text, vec![error.into()])
    }

    /// Returns all problems with their lines, for a terminal that understands colours or for plain text.
    ///
    /// Has no line end at its end. At most 20 problems are shown.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let shown = self.problems.iter().take(SHOWN_MAX);
        let mut out: Vec<_> = shown.map(|problem| self.render_one(problem, &renderer)).collect();
        match self.problems.len().saturating_sub(SHOWN_MAX) {
            0 => {}
            1 => out.push("... and 1 more problem".to_owned()),
            more => out.push(format!("... and {more} more problems")),
        }
        out.join("\n\n")
    }

    /// Returns what shows the places, the first of them as the main one.
    fn snippets(&self, places: &[Place]) -> Vec<Snippet<'_, Annotation<'_>>> {
        // The mark has no width, but would be counted in the columns.
        let skipped = if self.text.starts_with(BOM) { BOM.len_utf8() } else { 0 };
        let text = &self.text[skipped..];
        let shown = &places[..places.len().min(PLACES_SHOWN_MAX)];
        let snippet = |group: Vec<&Place>| {
            let annotations = group.into_iter().map(|place| {
                let kind = if Some(place) == shown.first() { AnnotationKind::Primary } else { AnnotationKind::Context };
                let label = (!place.label.is_empty()).then(|| place.label.clone());
                kind.span(underlined(text, &place.span, skipped)).label(label)
            });
            Snippet::source(text).path(&self.file).annotations(annotations)
        };
        groups(shown).into_iter().map(snippet).collect()
    }

    fn render_one(&self, problem: &Problem, renderer: &Renderer) -> String {
        let title = Level::ERROR.primary_title(&problem.message);
        let shown = if problem.places.is_empty() {
            title.element(Origin::path(&self.file))
        } else {
            title.elements(self.snippets(&problem.places))
        };
        let mut report = vec![shown];
        if let Some(hint) = &problem.hint {
            report.push(Group::with_title(Level::HELP.secondary_title(hint)));
        }
        renderer.render(&report)
    }
}

/// Returns the places in groups that can be shown together: no two far apart on one line.
fn groups(places: &[Place]) -> Vec<Vec<&Place>> {
    let mut groups: Vec<Vec<&Place>> = Vec::new();
    for place in places {
        let fits = |group: &&mut Vec<&Place>| {
            let near =
                |other: &&Place| other.line != place.line || other.column.abs_diff(place.column) <= WIDTH_MAX_CHARS;
            group.iter().all(near)
        };
        match groups.iter_mut().find(fits) {
            Some(group) => group.push(place),
            None => groups.push(vec![place]),
        }
    }
    groups
}

/// Returns the part of `span` on its first line, `skipped` bytes further to the left, not longer than can be shown.
fn underlined(text: &str, span: &Range<usize>, skipped: usize) -> Range<usize> {
    let start = boundary(text, span.start.saturating_sub(skipped));
    let end = boundary(text, span.end.saturating_sub(skipped)).max(start);
    let line = text[start..end].split(['\n', '\r']).next().unwrap_or_default();
    let length = line.char_indices().nth(UNDERLINED_MAX_CHARS).map_or(line.len(), |(index, _)| index);
    start..start + length
}

/// Returns `at`, or the next smaller offset where a character of `text` begins.
fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

impl fmt::Display for DefinitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        let Some(first) = self.problems.first() else { return Ok(()) };
        if let Some(place) = first.places.first() {
            write!(f, "{}:{}:", place.line, place.column)?;
        }
        write!(f, " {}", first.message)?;
        match self.problems.len() {
            0 | 1 => Ok(()),
            count => write!(f, " (and {} more)", count - 1),
        }
    }
}

impl std::error::Error for DefinitionError {}

/// Where the lines of a text start.
struct Lines<'text> {
    text: &'text str,
    starts: Vec<usize>,
}

impl<'text> Lines<'text> {
    fn of(text: &'text str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(index, _)| index + 1)).collect();
        Self { text, starts }
    }

    fn place(&self, span: Range<usize>, label: String) -> Place {
        let at = boundary(self.text, span.start);
        let line = self.starts.partition_point(|start| *start <= at);
        let before = &self.text[self.starts[line - 1]..at];
        let column = before.trim_start_matches(BOM).chars().count() + 1;
        Place { line, column, span, label }
    }
}

/// Returns the findings without those that say of another combination of a matrix what was said of one already.
pub(super) fn told_once(findings: Vec<Finding>) -> Vec<Finding> {
    let mut told = BTreeSet::new();
    let subject = |finding: &Finding| {
        // A name ends with its backtick; what tells combinations apart stands before that.
        let mut pieces = finding.message.split(COMBINATION_MARK);
        let first = pieces.next().unwrap_or_default().to_owned();
        let rest = pieces.map(|piece| piece.find('`').map_or("", |end| &piece[end..]));
        (finding.marks.first().map(|(span, _)| span.start), first + &rest.collect::<String>())
    };
    findings.into_iter().filter(|finding| told.insert(subject(finding))).collect()
}

/// Returns `text` in backticks for a message: one line, control characters escaped, cut if it is long.
pub(super) fn quoted(text: &str) -> String {
    let mut out = "`".to_owned();
    for (count, c) in text.chars().enumerate() {
        if count == QUOTED_MAX_CHARS {
            out.push('…');
            break;
        }
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out.push('`');
    out
}
