//! Building the tree from the parser's events.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_saphyr::granit_parser::{self, Event, Parser, ScalarStyle, StructureStyle, Tag};

use super::scalar::{TooLarge, resolve};
use super::{DEPTH_MAX, Key, Node, REPEATED_MAX_BYTES, VALUE_COST_BYTES, VALUES_MAX, Value, YamlError, syntax};

/// What may be a key.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Keys {
    /// Text alone.
    #[default]
    Text,
    /// Also whole numbers and booleans, which become the text that they print as.
    Scalars,
}

/// Returns the one document in `text`.
pub(super) fn read(text: &str, keys: Keys) -> Result<Node, YamlError> {
    let options = granit_parser::options! {
        emit_comments: false,
        block_scalar_eof_without_line_feed: true,
        flow_nesting_limit: DEPTH_MAX,
        block_nesting_limit: DEPTH_MAX,
    };
    let mut builder = Builder { text, keys, ..Builder::default() };
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| syntax::explain(text, &error, builder.open_bracket()))?;
        let range = span.byte_range().unwrap_or_default();
        builder.event(event, range, span.tag_span().and_then(|span| span.byte_range()))?;
    }
    let end = text.len();
    Ok(builder.root.unwrap_or(Node { value: Value::Null, span: end..end }))
}

#[derive(Default)]
struct Builder<'text> {
    text: &'text str,
    keys: Keys,
    documents: usize,
    values: usize,
    repeated_bytes: usize,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Anchored>,
    root: Option<Node>,
}

/// What an alias stands for.
struct Anchored {
    node: Node,
    cost_bytes: usize,
    depth: usize,
}

/// A list or map that has not ended yet.
struct Open {
    start: usize,
    style: StructureStyle,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map(OpenMap),
}

#[derive(Default)]
struct OpenMap {
    entries: Vec<(Key, Node)>,
    /// Where each key was given.
    seen: BTreeMap<String, Range<usize>>,
    key: Option<PendingKey>,
    merge: Option<Range<usize>>,
    merged: Vec<(Key, Node)>,
}

enum PendingKey {
    Plain(Key),
    Merge(Range<usize>),
}

impl Builder<'_> {
    /// Returns where the innermost bracket was opened that is still open.
    fn open_bracket(&self) -> Option<usize> {
        self.open.iter().rev().find(|open| open.style == StructureStyle::Flow).map(|open| open.start)
    }

    fn event(&mut self, event: Event<'_>, span: Range<usize>, tag_span: Option<Range<usize>>) -> Result<(), YamlError> {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(YamlError::new("a second document starts here", span)
                        .hint("a file holds one document; remove the `---`"));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let is_merge = style == ScalarStyle::Plain && tag.is_none() && text == "<<";
                if is_merge
                    && let Some(Open { content: Content::Map(map), .. }) = self.open.last_mut()
                    && map.key.is_none()
                {
                    return map.start_merge(span);
                }
                let value = scalar(&text, style, tag.as_deref(), &span, tag_span)?;
                self.close(Node { value, span }, anchor)?;
            }
            Event::SequenceStart(style, anchor, tag) => {
                check_tag(tag.as_deref(), "seq", tag_span.unwrap_or(span.clone()))?;
                self.open(span, style, anchor, Content::List(Vec::new()))?;
            }
            Event::MappingStart(style, anchor, tag) => {
                check_tag(tag.as_deref(), "map", tag_span.unwrap_or(span.clone()))?;
                self.open(span, style, anchor, Content::Map(OpenMap::default()))?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let open = self.open.pop().expect("the parser closes only what it opened");
                let anchor = open.anchor;
                self.close(open.into_node(span.end), anchor)?;
            }
            Event::Alias(anchor) => self.alias(anchor, span)?,
            _ => {}
        }
        Ok(())
    }

    fn open(
        &mut self,
        span: Range<usize>,
        style: StructureStyle,
        anchor: usize,
        content: Content,
    ) -> Result<(), YamlError> {
        if self.open.len() == DEPTH_MAX {
            return Err(syntax::too_deep(span));
        }
        self.open.push(Open { start: span.start, style, anchor, content });
        Ok(())
    }

    /// Puts a finished value where it belongs.
    fn close(&mut self, node: Node, anchor: usize) -> Result<(), YamlError> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(YamlError::new(format_args!("the file holds more than {VALUES_MAX} values"), node.span));
        }
        if anchor != 0 {
            let anchored = Anchored { node: node.clone(), cost_bytes: cost_bytes(&node), depth: depth(&node) };
            self.anchors.insert(anchor, anchored);
        }
        self.put(node)
    }

    fn put(&mut self, node: Node) -> Result<(), YamlError> {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open { content: Content::List(items), .. }) => items.push(node),
            Some(Open { content: Content::Map(map), .. }) => match map.key.take() {
                None => map.start_entry(key(node, self.keys, self.text)?)?,
                Some(PendingKey::Plain(key)) => map.entries.push((key, node)),
                Some(PendingKey::Merge(span)) => map.merge(node, &span)?,
            },
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, span: Range<usize>) -> Result<(), YamlError> {
        let name = &self.text[span.clone()];
        let Some(anchored) = self.anchors.get(&anchor) else {
            return Err(YamlError::new(format_args!("`{name}` refers to a value that it is part of"), span));
        };
        self.repeated_bytes += anchored.cost_bytes;
        if self.repeated_bytes > REPEATED_MAX_BYTES {
            return Err(YamlError::new("aliases repeat too much: the file would grow without bound", span)
                .hint("write the values out, or repeat less"));
        }
        if self.open.len() + anchored.depth > DEPTH_MAX {
            return Err(syntax::too_deep(span));
        }
        let node = Node { value: anchored.node.value.clone(), span };
        self.put(node)
    }
}

impl Open {
    /// Returns the finished value. A block ends with its last value, not where the next line starts.
    fn into_node(self, event_end: usize) -> Node {
        let (value, last) = match self.content {
            Content::List(items) => {
                let last = items.last().map(|node| node.span.end);
                (Value::List(items), last)
            }
            Content::Map(map) => {
                let value = map.finish();
                let last = match &value {
                    Value::Map(entries) => entries.iter().map(|(key, node)| key.span.end.max(node.span.end)).max(),
                    _ => None,
                };
                (value, last)
            }
        };
        let end = match self.style {
            StructureStyle::Flow => event_end,
            StructureStyle::Block => last.unwrap_or(self.start),
        };
        Node { value, span: self.start..end.max(self.start) }
    }
}

impl OpenMap {
    fn start_merge(&mut self, span: Range<usize>) -> Result<(), YamlError> {
        if let Some(first) = &self.merge {
            return Err(twice("<<", first, span).hint("merge several maps with a list: `<<: [*a, *b]`"));
        }
        self.merge = Some(span.clone());
        self.key = Some(PendingKey::Merge(span));
        Ok(())
    }

    fn start_entry(&mut self, key: Key) -> Result<(), YamlError> {
        if let Some(first) = self.seen.get(&key.text) {
            return Err(twice(&key.text, first, key.span));
        }
        self.seen.insert(key.text.clone(), key.span.clone());
        self.key = Some(PendingKey::Plain(key));
        Ok(())
    }

    /// Takes in the maps of a merge key. An earlier map wins over a later one.
    fn merge(&mut self, node: Node, key: &Range<usize>) -> Result<(), YamlError> {
        let wrong = |node: &Node| {
            YamlError::new(format_args!("`<<` merges maps, found {}", node.value.describe()), node.span.clone())
                .related(key.clone(), "merged here")
        };
        let maps = match node.value {
            Value::List(items) => items,
            _ => vec![node],
        };
        for map in maps {
            match map.value {
                Value::Map(entries) => self.merged.extend(entries),
                _ => return Err(wrong(&map)),
            }
        }
        Ok(())
    }

    /// Returns the map: what it says itself wins over what is merged in.
    fn finish(mut self) -> Value {
        for (key, node) in self.merged {
            if !self.seen.contains_key(&key.text) {
                self.seen.insert(key.text.clone(), key.span.clone());
                self.entries.push((key, node));
            }
        }
        Value::Map(self.entries)
    }
}

fn twice(key: &str, first: &Range<usize>, second: Range<usize>) -> YamlError {
    YamlError::new(format_args!("the key `{}` is given twice", key.escape_debug()), second)
        .related(first.clone(), "first given here")
}

fn scalar(
    text: &str,
    style: ScalarStyle,
    tag: Option<&Tag>,
    span: &Range<usize>,
    tag_span: Option<Range<usize>>,
) -> Result<Value, YamlError> {
    let plain = || match resolve(text) {
        Ok(value) => Ok(value),
        Err(TooLarge) => Err(YamlError::new(format_args!("the number `{text}` is too large"), span.clone())
            .hint("whole numbers have at most 38 digits; write it in quotes to keep it as text")),
    };
    let Some(tag) = tag else {
        return if style == ScalarStyle::Plain { plain() } else { Ok(Value::Text(text.to_owned())) };
    };
    let value = match tag.core_suffix() {
        Some("str") => Some(Value::Text(text.to_owned())),
        Some(name) if style == ScalarStyle::Plain => Some(plain()?).filter(|value| match value {
            Value::Null => name == "null",
            Value::Bool(_) => name == "bool",
            Value::Int(_) => name == "int",
            Value::Float(_) => name == "float",
            _ => false,
        }),
        _ => None,
    };
    value.ok_or_else(|| wrong_tag(tag, tag_span.unwrap_or(span.clone())))
}

fn check_tag(tag: Option<&Tag>, expected: &str, span: Range<usize>) -> Result<(), YamlError> {
    match tag {
        Some(tag) if tag.core_suffix() != Some(expected) => Err(wrong_tag(tag, span)),
        _ => Ok(()),
    }
}

fn wrong_tag(tag: &Tag, span: Range<usize>) -> YamlError {
    YamlError::new(format_args!("the tag `{}` is not understood here", tag.original()), span)
        .hint("remove it, or write text that starts with `!` in quotes")
}

fn key(node: Node, keys: Keys, text: &str) -> Result<Key, YamlError> {
    let span = node.span;
    let text = match node.value {
        Value::Text(text) => text,
        Value::Int(value) if keys == Keys::Scalars => value.to_string(),
        Value::Bool(value) if keys == Keys::Scalars => value.to_string(),
        value => {
            let error = YamlError::new(format_args!("a key must be text, found {}", value.describe()), span.clone());
            let written = text[span].trim_end();
            return Err(match value {
                Value::Int(_) | Value::Float(_) | Value::Bool(_) | Value::Null if !written.is_empty() => {
                    error.hint(format_args!("write it in quotes: `\"{written}\"`"))
                }
                _ => error,
            });
        }
    };
    Ok(Key { text, span })
}

fn cost_bytes(node: &Node) -> usize {
    VALUE_COST_BYTES
        + match &node.value {
            Value::Text(text) => text.len(),
            Value::List(items) => items.iter().map(cost_bytes).sum(),
            Value::Map(entries) => entries.iter().map(|(key, node)| key.text.len() + cost_bytes(node)).sum(),
            _ => 0,
        }
}

fn depth(node: &Node) -> usize {
    match &node.value {
        Value::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Map(entries) => 1 + entries.iter().map(|(_, node)| depth(node)).max().unwrap_or(0),
        _ => 0,
    }
}
