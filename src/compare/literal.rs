//! Values as Python writes them, such as `{'descr': '<f8', 'shape': (3, 4)}`.

/// How deep they may be nested.
const DEPTH_MAX: usize = 32;

/// A value of Python.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Literal {
    Text(String),
    Whole(u64),
    Bool(bool),
    /// A list or a tuple.
    Items(Vec<Literal>),
    Map(Vec<(Literal, Literal)>),
}

impl Literal {
    /// Returns the value that `text` is, all of it.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut rest = text;
        let value = value(&mut rest, 0)?;
        rest.trim().is_empty().then_some(value)
    }

    /// Returns what a map has under a text.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        entries.iter().find(|(key, _)| matches!(key, Self::Text(text) if text == name)).map(|(_, value)| value)
    }

    /// Returns the lengths that a tuple has, or a single number is.
    pub(super) fn lengths(&self) -> Option<Vec<u64>> {
        let whole = |item: &Self| if let Self::Whole(whole) = item { Some(*whole) } else { None };
        match self {
            Self::Items(items) => items.iter().map(whole).collect(),
            other => whole(other).map(|whole| vec![whole]),
        }
    }
}

fn value(rest: &mut &str, depth: usize) -> Option<Literal> {
    *rest = rest.trim_start();
    let first = rest.chars().next()?;
    if depth > DEPTH_MAX {
        return None;
    }
    match first {
        '\'' | '"' => {
            let (text, behind) = rest[1..].split_once(first)?;
            *rest = behind;
            // Names with escapes are left to whoever compares bytes.
            (!text.contains('\\')).then(|| Literal::Text(text.to_owned()))
        }
        '(' => items(rest, ')', depth).map(Literal::Items),
        '[' => items(rest, ']', depth).map(Literal::Items),
        '{' => {
            let mut entries = Vec::new();
            *rest = &rest[1..];
            loop {
                if took(rest, '}') {
                    return Some(Literal::Map(entries));
                }
                let key = value(rest, depth + 1)?;
                if !took(rest, ':') {
                    return None;
                }
                entries.push((key, value(rest, depth + 1)?));
                if !took(rest, ',') {
                    return took(rest, '}').then_some(Literal::Map(entries));
                }
            }
        }
        _ => {
            let length = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
            let (word, behind) = rest.split_at(length);
            *rest = behind;
            match word {
                "True" => Some(Literal::Bool(true)),
                "False" => Some(Literal::Bool(false)),
                // Python 2 marks long numbers.
                word => word.trim_end_matches('L').parse().ok().map(Literal::Whole),
            }
        }
    }
}

fn items(rest: &mut &str, end: char, depth: usize) -> Option<Vec<Literal>> {
    let mut items = Vec::new();
    *rest = &rest[1..];
    loop {
        if took(rest, end) {
            return Some(items);
        }
        items.push(value(rest, depth + 1)?);
        if !took(rest, ',') {
            return took(rest, end).then_some(items);
        }
    }
}

/// Takes `wanted` if it comes next.
fn took(rest: &mut &str, wanted: char) -> bool {
    *rest = rest.trim_start();
    match rest.strip_prefix(wanted) {
        Some(behind) => {
            *rest = behind;
            true
        }
        None => false,
    }
}
