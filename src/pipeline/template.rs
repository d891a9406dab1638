//! Texts with places for the values of a matrix: `models/${matrix.rate}.bin`.
//!
//! Nothing here knows of YAML or of steps. `$${matrix.` stands for the
//! characters `${matrix.` themselves.

use super::matrix::{Combination, is_name};
use super::problem::quoted;
use super::suggest::did_you_mean;

const OPENING: &str = "${matrix.";
/// How other tools write it, which no shell understands either.
const FOREIGN: &str = "${{";
const ESCAPED: &str = "$${matrix.";
const EVERY: &str = "*";

/// A piece of a text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Part<'text> {
    /// Characters that stay as they are.
    Text(&'text str),
    /// The value of this name.
    Value(&'text str),
    /// The values of every combination of another step: `${matrix.*}`.
    Every,
}

/// Why a text cannot be filled in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fault {
    /// The fact, as the end of a sentence about the text.
    pub(super) message: String,
    /// What can be done about it.
    pub(super) hint: Option<String>,
}

impl Fault {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()) }
    }
}

/// Returns whether a text may have places to fill in. Costs one look at the text.
pub(super) fn is_template(text: &str) -> bool {
    text.contains(OPENING) || foreign(text)
}

/// Returns the pieces of a text.
///
/// # Errors
///
/// [`Fault`] if a place is not closed or names nothing that can be a name.
pub(super) fn parts(text: &str) -> Result<Vec<Part<'_>>, Fault> {
    if foreign(text) {
        return Err(Fault::new(
            "uses `${{ matrix... }}`",
            "write it with single braces, without spaces: `${matrix.NAME}`",
        ));
    }
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(OPENING) {
        let before = &rest[..at];
        let after = &rest[at + OPENING.len()..];
        if rest[..at + OPENING.len()].ends_with(ESCAPED) {
            parts.push(Part::Text(&before[..before.len() - 1]));
            parts.push(Part::Text(OPENING));
            rest = after;
            continue;
        }
        parts.push(Part::Text(before));
        let Some((name, behind)) = after.split_once('}') else {
            return Err(Fault::new("has a `${matrix.` that is not closed", "close it with `}`"));
        };
        if name == EVERY {
            parts.push(Part::Every);
        } else if is_name(name) {
            parts.push(Part::Value(name));
        } else {
            let message = format!("uses {}, which is no name in a matrix", quoted(&format!("{OPENING}{name}}}")));
            return Err(Fault::new(
                message,
                "a name has letters, digits, `_` and `-`, and does not start with a digit",
            ));
        }
        rest = behind;
    }
    parts.push(Part::Text(rest));
    parts.retain(|part| *part != Part::Text(""));
    Ok(parts)
}

fn foreign(text: &str) -> bool {
    text.match_indices(FOREIGN).any(|(at, _)| text[at + FOREIGN.len()..].trim_start().starts_with("matrix."))
}

/// Returns the text with the values of one combination.
///
/// # Errors
///
/// [`Fault`] if the combination has no value of a name, or if the text asks for the values of every combination.
pub(super) fn fill(parts: &[Part<'_>], values: &Combination) -> Result<String, Fault> {
    let mut filled = String::new();
    for part in parts {
        match part {
            Part::Text(text) => filled.push_str(text),
            Part::Value(name) => match values.get(*name) {
                Some(value) => filled.push_str(value),
                None => return Err(unknown(name, values)),
            },
            Part::Every => {
                return Err(Fault::new(
                    "uses `${matrix.*}` where it cannot stand",
                    "it stands in `inputs` of a step without a matrix, for what every combination of another step writes",
                ));
            }
        }
    }
    Ok(filled)
}

fn unknown(name: &str, values: &Combination) -> Fault {
    let hint = did_you_mean(name, values.keys().map(String::as_str)).unwrap_or_else(|| {
        let known: Vec<_> = values.keys().map(|name| format!("`{name}`")).collect();
        match known.as_slice() {
            [] => "add a `matrix` to this step, or name what every combination of another step writes by \
                   `${matrix.*}` in `inputs`"
                .to_owned(),
            known => format!("it has {}", known.join(", ")),
        }
    });
    let message = if values.is_empty() {
        format!("uses `${{matrix.{name}}}`, but the step has no matrix")
    } else {
        format!("uses `${{matrix.{name}}}`, of which this combination has no value")
    };
    Fault::new(message, hint)
}

/// Returns whether `pattern`, a path with `${matrix.*}` in it, means what the path `template` of a step with a matrix becomes.
///
/// Each `${matrix.*}` stands for one `${matrix.NAME}`, or for several with
/// text, but no `/`, between them; all other characters are equal.
pub(super) fn fits(pattern: &[Part<'_>], template: &[Part<'_>]) -> bool {
    let (pattern, template) = (letters(pattern), letters(template));
    let mut at = vec![false; template.len() + 1];
    at[0] = true;
    for letter in pattern {
        let mut next = vec![false; template.len() + 1];
        for start in (0..template.len()).filter(|start| at[*start]) {
            match letter {
                Letter::Value if template[start] == Letter::Value => {
                    for end in start..template.len() {
                        match template[end] {
                            Letter::Char('/') => break,
                            Letter::Char(_) => {}
                            Letter::Value => next[end + 1] = true,
                        }
                    }
                }
                Letter::Value => {}
                char @ Letter::Char(_) => next[start + 1] |= char == template[start],
            }
        }
        at = next;
    }
    at[template.len()]
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Letter {
    Char(char),
    /// A place to fill in, whatever is named in it.
    Value,
}

/// Returns the characters and places of a path, one spelling for every path: without empty parts and `.`.
fn letters(parts: &[Part<'_>]) -> Vec<Letter> {
    let all: Vec<_> = parts
        .iter()
        .flat_map(|part| match part {
            Part::Text(text) => text.chars().map(Letter::Char).collect(),
            Part::Value(_) | Part::Every => vec![Letter::Value],
        })
        .collect();
    let names = all.split(|letter| *letter == Letter::Char('/'));
    let names: Vec<_> = names.filter(|name| !name.is_empty() && *name != [Letter::Char('.')]).collect();
    names.join(&Letter::Char('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(pairs: &[(&str, &str)]) -> Combination {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn filled(text: &str, pairs: &[(&str, &str)]) -> Result<String, String> {
        parts(text).and_then(|parts| fill(&parts, &values(pairs))).map_err(|fault| fault.message)
    }

    #[test]
    fn places_are_filled_in_and_everything_else_stays() {
        let pairs = [("rate", "0.10"), ("model", "a/b")];
        assert_eq!(filled("${matrix.rate}", &pairs).unwrap(), "0.10");
        assert_eq!(filled("x ${matrix.model}${matrix.rate} y", &pairs).unwrap(), "x a/b0.10 y");
        assert_eq!(
            filled("$${matrix.rate} ${HOME} $matrix.rate", &pairs).unwrap(),
            "${matrix.rate} ${HOME} $matrix.rate"
        );
        assert_eq!(filled("${{x}}", &pairs).unwrap(), "${{x}}");
    }

    #[test]
    fn what_cannot_be_filled_in_says_why() {
        let fault = |text: &str| filled(text, &[("rate", "1")]).unwrap_err();
        assert_eq!(fault("${matrix.rte}"), "uses `${matrix.rte}`, of which this combination has no value");
        assert_eq!(fault("${matrix.rate"), "has a `${matrix.` that is not closed");
        assert_eq!(fault("${matrix.}"), "uses `${matrix.}`, which is no name in a matrix");
        assert_eq!(fault("${{ matrix.rate }}"), "uses `${{ matrix... }}`");
        assert_eq!(fault("${matrix.*}"), "uses `${matrix.*}` where it cannot stand");
        assert_eq!(filled("${matrix.x}", &[]).unwrap_err(), "uses `${matrix.x}`, but the step has no matrix");
    }

    #[test]
    fn a_pattern_means_templates_of_its_shape() {
        let fits = |pattern: &str, template: &str| fits(&parts(pattern).unwrap(), &parts(template).unwrap());
        assert!(fits("out/${matrix.*}/m.json", "out/${matrix.a}/m.json"));
        assert!(fits("./out//${matrix.*}/m.json", "out/${matrix.a}/m.json/"));
        assert!(fits("out/${matrix.*}/m.json", "out/${matrix.a}-${matrix.b}/m.json"));
        assert!(fits("out/${matrix.*}-${matrix.*}/m.json", "out/${matrix.a}-${matrix.b}/m.json"));
        assert!(fits("${matrix.*}/${matrix.*}", "${matrix.a}/${matrix.b}"));
        assert!(!fits("${matrix.*}", "${matrix.a}/${matrix.b}"), "a place does not span directories");
        assert!(!fits("out/${matrix.*}/m.json", "out/x${matrix.a}/m.json"));
        assert!(!fits("out/${matrix.*}/m.json", "out/${matrix.a}/n.json"));
        assert!(!fits("out/${matrix.*}", "out/fixed"));
        assert!(!fits("out/${matrix.*}", "out/${matrix.a}/m.json"));
    }

    proptest! {
        #[test]
        fn a_text_without_places_stays_as_it_is(text in "[ -~]{0,40}") {
            prop_assume!(!is_template(&text));
            prop_assert_eq!(filled(&text, &[]).unwrap(), text);
        }

        #[test]
        fn no_text_makes_it_panic(text in r"(\$|\{|\}|matrix\.|\*|[a/. -]){0,12}") {
            if let Ok(parts) = parts(&text) {
                let _ = fill(&parts, &values(&[("a", "1")]));
                prop_assert!(fits(&parts, &parts));
            }
        }
    }
}
