//! YAML: one strict reader with places, and one for foreign files.
//!
//! The one door to `serde_yaml` and `serde-saphyr`. [`read_spanned`] builds a
//! tree in which every value knows its bytes in the file; definitions are read
//! with it. [`read_plain`] reads params files through `serde_yaml`, and gives
//! an answer only if the strict reader has the same one: what a file means
//! never depends on which parser ran. Size, depth and the growth by aliases
//! are bounded, so no text can take long or exhaust the stack.

mod plain;
mod scalar;
mod syntax;
mod tree;

use std::fmt;
use std::ops::Range;

pub use plain::read_plain;

/// How long a text may be, in bytes.
pub const TEXT_MAX_BYTES: usize = 4 * 1024 * 1024;
/// How deep lists and maps may be nested, aliases followed.
pub const DEPTH_MAX: usize = 64;
/// How many values a text may hold.
pub const VALUES_MAX: usize = 250_000;
/// How much aliases may repeat, in bytes of text plus [`VALUE_COST_BYTES`] a value.
pub const REPEATED_MAX_BYTES: usize = 4 * 1024 * 1024;
/// What one repeated value counts for, next to its text.
pub const VALUE_COST_BYTES: usize = 32;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// A value and where it stands in the text.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    /// What it is.
    pub value: Value,
    /// Its bytes in the text. A value that came through an alias has those of the alias.
    pub span: Range<usize>,
}

/// What can be written in YAML.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// `null`, `~`, or nothing at all.
    Null,
    /// `true` or `false`; `yes`, `no`, `on` and `off` are text.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// A number with a fraction or an exponent, `.inf` or `.nan`.
    Float(f64),
    /// Anything quoted, and anything plain that is none of the above.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map in the order of the text, merge keys already applied, no key twice.
    Map(Vec<(Key, Node)>),
}

/// A key of a map.
#[derive(Clone, PartialEq, Debug)]
pub struct Key {
    /// The key itself.
    pub text: String,
    /// Its bytes in the text.
    pub span: Range<usize>,
}

/// Why a text is no YAML that can be relied on.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct YamlError {
    /// The fact, in one line.
    pub message: String,
    /// Where in the text, in bytes; `None` if it is about the text as a whole.
    pub span: Option<Range<usize>>,
    /// What can be done about it.
    pub hint: Option<String>,
    /// A second place that has to do with it, and what is there.
    pub related: Option<(Range<usize>, String)>,
}

impl YamlError {
    fn new(message: impl fmt::Display, span: Range<usize>) -> Self {
        Self { message: message.to_string(), span: Some(span), hint: None, related: None }
    }

    fn whole(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), span: None, hint: None, related: None }
    }

    fn hint(self, hint: impl fmt::Display) -> Self {
        Self { hint: Some(hint.to_string()), ..self }
    }

    fn related(self, span: Range<usize>, label: &str) -> Self {
        Self { related: Some((span, label.to_owned())), ..self }
    }

    /// Moves every place `bytes` further into the text.
    fn moved(mut self, bytes: usize) -> Self {
        let places = self.span.iter_mut().chain(self.related.iter_mut().map(|(span, _)| span));
        places.for_each(|span| *span = span.start + bytes..span.end + bytes);
        self
    }
}

impl Value {
    /// Returns the word for people: `a list`, `the number 3`, `nothing`.
    pub fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => format!("the boolean `{value}`"),
            Self::Int(value) => format!("the number `{value}`"),
            Self::Float(value) => format!("the number `{value}`"),
            Self::Text(_) => "text".to_owned(),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a map".to_owned(),
        }
    }
}

impl Node {
    /// Returns the value as JSON, which has fewer numbers than YAML.
    ///
    /// # Errors
    ///
    /// [`YamlError`] at a number that is not finite, or whole but beyond 64 bits.
    pub fn to_json(&self) -> Result<serde_json::Value, YamlError> {
        Ok(match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => match (u64::try_from(*value), i64::try_from(*value)) {
                (Ok(value), _) => value.into(),
                (_, Ok(value)) => value.into(),
                _ => {
                    return Err(YamlError::new(format_args!("`{value}` does not fit into 64 bits"), self.span.clone())
                        .hint("write it in quotes to keep it as text"));
                }
            },
            Value::Float(value) => serde_json::Number::from_f64(*value)
                .ok_or_else(|| {
                    let fact = if value.is_nan() { "`.nan` is not a number" } else { "`.inf` is not a finite number" };
                    YamlError::new(fact, self.span.clone()).hint("write it in quotes to keep it as text")
                })?
                .into(),
            Value::Text(value) => value.as_str().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect::<Result<Vec<_>, _>>()?.into(),
            Value::Map(entries) => {
                let entries = entries.iter().map(|(key, node)| Ok((key.text.clone(), node.to_json()?)));
                serde_json::Value::Object(entries.collect::<Result<_, YamlError>>()?)
            }
        })
    }
}

/// Returns the one document in `text`, every value with its place.
///
/// A byte order mark is skipped, and counted in the places. A text without
/// any value is [`Value::Null`]. Costs one pass over the text.
///
/// # Errors
///
/// [`YamlError`] for what is not UTF-8 or not YAML, for a key given twice, a
/// key that is not text, an unknown tag, a second document, and for anything
/// beyond [`TEXT_MAX_BYTES`], [`DEPTH_MAX`], [`VALUES_MAX`] and [`REPEATED_MAX_BYTES`].
pub fn read_spanned(text: &[u8]) -> Result<Node, YamlError> {
    let (text, skipped) = decode(text)?;
    let node = tree::read(text, tree::Keys::Text).map_err(|error| error.moved(skipped))?;
    Ok(moved(node, skipped))
}

/// Returns the text without its byte order mark, and how many bytes that has.
fn decode(bytes: &[u8]) -> Result<(&str, usize), YamlError> {
    if bytes.len() > TEXT_MAX_BYTES {
        return Err(YamlError::whole(format_args!(
            "the file has {} bytes, more than the {TEXT_MAX_BYTES} that are read",
            bytes.len()
        )));
    }
    let (rest, skipped) = match bytes.strip_prefix(BOM) {
        Some(rest) => (rest, BOM.len()),
        None => (bytes, 0),
    };
    let text = std::str::from_utf8(rest).map_err(|error| {
        let at = error.valid_up_to() + skipped;
        let end = at + error.error_len().unwrap_or(bytes.len() - at);
        YamlError::new(format_args!("the file is not UTF-8 at byte {at}"), at..end).hint(
            if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
                "it looks like UTF-16; save it as UTF-8"
            } else {
                "save it as UTF-8"
            },
        )
    })?;
    Ok((text, skipped))
}

fn moved(mut node: Node, bytes: usize) -> Node {
    if bytes > 0 {
        move_places(&mut node, bytes);
    }
    node
}

fn move_places(node: &mut Node, bytes: usize) {
    let shift = |span: &mut Range<usize>| *span = span.start + bytes..span.end + bytes;
    shift(&mut node.span);
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| move_places(item, bytes)),
        Value::Map(entries) => {
            for (key, node) in entries {
                shift(&mut key.span);
                move_places(node, bytes);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
