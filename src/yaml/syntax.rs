//! Saying in plain words what the parser found wrong.

use std::ops::Range;

use serde_saphyr::granit_parser::{ErrorKind, ScanError};

use super::{DEPTH_MAX, YamlError};

/// Returns the parser's `error` about `text` as a fact, with a place and a way out.
///
/// `bracket` is where the innermost bracket was opened that is still open.
pub(super) fn explain(text: &str, error: &ScanError, bracket: Option<usize>) -> YamlError {
    let at = error.marker().byte_offset().filter(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    if let Some(tab) = tab_in_indentation(text, at) {
        return YamlError::new("a line is indented with a tab", tab)
            .hint("indent with spaces; YAML does not allow tabs");
    }
    let place = place(text, at);
    match error.kind() {
        ErrorKind::RecursionLimitExceeded => too_deep(place),
        ErrorKind::UnknownAnchor => {
            let name = &text[alias_at(text, at)];
            let error = YamlError::new(
                format_args!("`{name}` refers to an anchor that is not defined above"),
                alias_at(text, at),
            );
            let anchor = name.get(1..).unwrap_or_default();
            if anchor.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-')) {
                error.hint(format_args!("define `&{anchor}` first, or write text that starts with `*` in quotes"))
            } else {
                error.hint("write text that starts with `*` in quotes")
            }
        }
        ErrorKind::UnclosedQuotedScalar | ErrorKind::DocumentIndicatorInQuotedScalar => {
            YamlError::new("a quote is opened and never closed", place).hint("close it with the same kind of quote")
        }
        ErrorKind::UnclosedFlowCollection { open } => {
            YamlError::new(format_args!("the bracket `{open}` is never closed"), place)
        }
        ErrorKind::MismatchedFlowCollectionEnd { open, close } => {
            YamlError::new(format_args!("the bracket `{open}` is closed by `{close}`"), place)
        }
        ErrorKind::MisplacedFlowCollectionEnd => YamlError::new("a bracket is closed that was never opened", place),
        ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement => {
            let error = YamlError::new("a `:` is not allowed here", place);
            match bracket {
                Some(start) => error
                    .related(start..start + 1, "this bracket is still open")
                    .hint("close the bracket, or write text that contains `: ` in quotes"),
                None => error.hint("write text that contains `: ` in quotes"),
            }
        }
        ErrorKind::UnexpectedCharacter { character } => {
            YamlError::new(format_args!("text cannot start with `{}`", character.escape_default()), place)
                .hint("write it in quotes")
        }
        ErrorKind::UnknownQuotedScalarEscape => {
            let place = bad_escape(text, at).unwrap_or(place);
            YamlError::new("a `\\` is followed by a letter that it cannot escape", place)
                .hint("in double quotes write `\\\\` for a backslash, or use single quotes")
        }
        ErrorKind::BomInsideDocument => YamlError::new("a byte order mark stands inside the document", place)
            .hint("remove this invisible character; it belongs at the very start of a file, if anywhere"),
        ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => {
            YamlError::new("a `:` is missing after this key", place).hint("each line of a map is `key: value`")
        }
        ErrorKind::InvalidIndentation | ErrorKind::ExpectedBlockMappingKey | ErrorKind::ExpectedBlockSequenceEntry => {
            YamlError::new("this line does not fit into the lines above", place)
                .hint("indent all keys of a map, and all items of a list, by the same number of spaces")
        }
        kind => YamlError::new(format_args!("this is not YAML: {kind}"), place),
    }
}

/// Returns the error about a text that is nested too deep at `span`.
pub(super) fn too_deep(span: Range<usize>) -> YamlError {
    YamlError::new(format_args!("lists and maps are nested more than {DEPTH_MAX} deep"), span)
}

/// Returns the character at `at`, or the last one before it if the line ends there.
fn place(text: &str, at: usize) -> Range<usize> {
    match text[at..].chars().next() {
        Some(c) if c != '\n' && c != '\r' => at..at + c.len_utf8(),
        _ => match text[..at].trim_end_matches(['\n', '\r']) {
            "" => at..at,
            line if line.len() < at => {
                let last = line.chars().next_back().map_or(0, char::len_utf8);
                line.len() - last..line.len()
            }
            _ => at..at,
        },
    }
}

/// Returns the tab in front of the first thing on the line of `at`, if there is one.
fn tab_in_indentation(text: &str, at: usize) -> Option<Range<usize>> {
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[start..].split('\n').next().unwrap_or_default();
    let blank = line.len() - line.trim_start_matches([' ', '\t']).len();
    let tab = line[..blank].find('\t')?;
    Some(start + tab..start + tab + 1)
}

/// Returns the `*name` at or right before `at`.
fn alias_at(text: &str, at: usize) -> Range<usize> {
    let is_name = |c: char| !c.is_whitespace() && !matches!(c, ',' | '[' | ']' | '{' | '}');
    let start = if text[at..].starts_with('*') { at } else { text[..at].rfind('*').unwrap_or(at) };
    let length = text[start..].find(|c| !is_name(c)).unwrap_or(text.len() - start);
    start..start + length.max(usize::from(start < text.len()))
}

/// Returns the first escape from `at` on that no double-quoted text may have.
fn bad_escape(text: &str, at: usize) -> Option<Range<usize>> {
    const KNOWN: &str = "0abt\tnvfre \"/\\N_LPxuU\r\n";
    let mut chars = text[at..].char_indices();
    while let Some((index, c)) = chars.next() {
        if c == '\\' {
            let (_, escaped) = chars.next()?;
            if !KNOWN.contains(escaped) {
                return Some(at + index..at + index + 1 + escaped.len_utf8());
            }
        }
    }
    None
}
