//! How a text is written in YAML.

use crate::yaml::{self, Value};

/// The quotes around a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(in crate::pipeline) enum Quotes {
    /// None, where it can do without.
    #[default]
    Plain,
    Single,
    Double,
}

impl Quotes {
    /// Returns the quotes of a text that is written so.
    pub(in crate::pipeline) fn of(spelled: &str) -> Self {
        match spelled.bytes().next() {
            Some(b'\'') => Self::Single,
            Some(b'"') => Self::Double,
            _ => Self::Plain,
        }
    }
}

/// Returns `text` as it can be written anywhere, in these quotes if it can be.
pub(in crate::pipeline) fn spell(text: &str, quotes: Quotes) -> String {
    match quotes {
        Quotes::Plain if is_plain(text) => text.to_owned(),
        Quotes::Single if !text.chars().any(char::is_control) => format!("'{}'", text.replace('\'', "''")),
        _ => double(text),
    }
}

/// Returns a list on one line.
pub(super) fn flow(items: &[String]) -> String {
    let items: Vec<_> = items.iter().map(|item| spell(item, Quotes::Plain)).collect();
    format!("[{}]", items.join(", "))
}

/// Returns whether a text means itself without quotes, in a list on one line too.
fn is_plain(text: &str) -> bool {
    let is_inner = |c: char| c.is_alphanumeric() || "_-./@+=".contains(c);
    let starts = text.starts_with(|c: char| c.is_alphanumeric() || "_./".contains(c));
    starts
        && text.chars().all(is_inner)
        && yaml::read_spanned(text.as_bytes()).is_ok_and(|node| node.value == Value::Text(text.to_owned()))
}

fn double(text: &str) -> String {
    let mut out = "\"".to_owned();
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || ('\u{2028}'..='\u{2029}').contains(&c) || c == '\u{feff}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out + "\""
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_text_has_quotes_only_where_it_needs_them() {
        let plain = |text| spell(text, Quotes::Plain);
        assert_eq!(plain("data/raw-1.csv"), "data/raw-1.csv");
        assert_eq!(plain("データ/生.csv"), "データ/生.csv");
        for text in ["null", "12", "1e3", "a b", "a: b", "#x", "-x", "", "[x]", "a,b", "~"] {
            assert_eq!(plain(text), format!("\"{text}\""));
        }
        assert_eq!(spell("it's", Quotes::Single), "'it''s'");
        assert_eq!(flow(&["a".to_owned(), "b c".to_owned()]), "[a, \"b c\"]");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(text in any::<String>(), quotes in 0..3) {
            prop_assume!(!text.contains('\0'));
            let quotes = [Quotes::Plain, Quotes::Single, Quotes::Double][usize::try_from(quotes).unwrap()];
            let written = format!("[{}]", spell(&text, quotes));
            let node = yaml::read_spanned(written.as_bytes()).unwrap();
            let Value::List(items) = node.value else { panic!("a list") };
            prop_assert_eq!(&items[0].value, &Value::Text(text));
        }
    }
}
