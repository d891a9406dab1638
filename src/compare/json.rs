//! Reading JSON as programs write it: with `NaN`, and with numbers of any length.
//!
//! Numbers stay texts, so that none loses digits. A name that stands twice in a map makes the text one that cannot be
//! compared as JSON, because readers disagree on what it says.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::tree::{DEPTH_MAX, VALUES_MAX, Value};

/// Returns the value that the text is, or `None` if it is no JSON, too deep or too large.
pub(super) fn read(text: &str) -> Option<Value<'_>> {
    let mut reader = Reader { text: text.strip_prefix('\u{feff}').unwrap_or(text), at: 0, values: 0 };
    let value = reader.value(0)?;
    reader.space();
    (reader.at == reader.text.len()).then_some(value)
}

/// Returns the values of a text with one on each line; blank lines are passed over.
pub(super) fn read_lines(text: &str) -> Option<Value<'_>> {
    let mut values = 0;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let read = |line| {
        let mut reader = Reader { text: line, at: 0, values };
        let value = reader.value(0)?;
        reader.space();
        values = reader.values;
        (reader.at == line.len()).then_some(value)
    };
    lines.map(read).collect::<Option<_>>().map(Value::List)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    values: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while self.peek().is_some_and(|byte| b" \t\r\n".contains(&byte)) {
            self.at += 1;
        }
    }

    /// Takes `token` if it comes next.
    fn take(&mut self, token: &str) -> bool {
        let is_next = self.text.as_bytes()[self.at..].starts_with(token.as_bytes());
        self.at += if is_next { token.len() } else { 0 };
        is_next
    }

    fn value(&mut self, depth: usize) -> Option<Value<'a>> {
        self.values += 1;
        if depth > DEPTH_MAX || self.values > VALUES_MAX {
            return None;
        }
        self.space();
        match self.peek()? {
            b'{' => self.map(depth),
            b'[' => self.list(depth),
            b'"' => self.string().map(Value::Text),
            _ => self.word(),
        }
    }

    fn word(&mut self) -> Option<Value<'a>> {
        for (word, value) in [("null", Value::Null), ("true", Value::Bool(true)), ("false", Value::Bool(false))] {
            if self.take(word) {
                return Some(value);
            }
        }
        let start = self.at;
        for word in ["NaN", "-Infinity", "Infinity"] {
            if self.take(word) {
                return Some(Value::Number(Cow::Borrowed(word)));
            }
        }
        let is_number = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
        while self.peek().is_some_and(is_number) {
            self.at += 1;
        }
        let number = &self.text[start..self.at];
        let is_it = number.bytes().any(|byte| byte.is_ascii_digit()) && number.parse::<f64>().is_ok();
        is_it.then_some(Value::Number(Cow::Borrowed(number)))
    }

    fn list(&mut self, depth: usize) -> Option<Value<'a>> {
        self.at += 1;
        let mut items = Vec::new();
        self.space();
        if self.take("]") {
            return Some(Value::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.space();
            if self.take("]") {
                return Some(Value::List(items));
            }
            if !self.take(",") {
                return None;
            }
        }
    }

    fn map(&mut self, depth: usize) -> Option<Value<'a>> {
        self.at += 1;
        let mut entries = BTreeMap::new();
        self.space();
        if self.take("}") {
            return Some(Value::Map(entries));
        }
        loop {
            self.space();
            let name = self.string()?;
            self.space();
            if !self.take(":") {
                return None;
            }
            if entries.insert(name, self.value(depth + 1)?).is_some() {
                return None;
            }
            self.space();
            if self.take("}") {
                return Some(Value::Map(entries));
            }
            if !self.take(",") {
                return None;
            }
        }
    }

    fn string(&mut self) -> Option<Cow<'a, str>> {
        if !self.take("\"") {
            return None;
        }
        let start = self.at;
        let length = self.text.as_bytes()[start..].iter().position(|byte| b"\"\\".contains(byte))?;
        self.at += length;
        let plain = &self.text[start..self.at];
        if self.take("\"") {
            return Some(Cow::Borrowed(plain));
        }
        let mut out = plain.to_owned();
        loop {
            let c = self.text[self.at..].chars().next()?;
            self.at += c.len_utf8();
            match c {
                '"' => return Some(Cow::Owned(out)),
                '\\' => out.push(self.escape()?),
                c => out.push(c),
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let byte = self.peek()?;
        self.at += 1;
        Some(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.unit()?;
                let low = if (0xd800..0xdc00).contains(&unit) && self.take("\\u") { self.unit()? } else { 0 };
                let code = if (0xdc00..0xe000).contains(&low) {
                    0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00)
                } else {
                    unit
                };
                // Half of a pair is no character. Which half it was is lost; the bytes differ all the same.
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            _ => return None,
        })
    }

    fn unit(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        self.at += 4;
        u32::from_str_radix(digits, 16).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_programs_write_is_read() {
        let text =
            r#" {"a": [1, -2.5e-7, NaN, -Infinity], "b\u00e9\ud83d\ude00\n": null, "c": {}, "d": [true, false]} "#;
        let Some(Value::Map(map)) = read(text) else { panic!("it is JSON") };
        assert_eq!(map.keys().collect::<Vec<_>>(), ["a", "bé😀\n", "c", "d"]);
        let Value::List(items) = &map["a"] else { panic!("it is a list") };
        assert_eq!(items[1], Value::Number("-2.5e-7".into()));
    }

    #[test]
    fn what_is_no_json_or_means_two_things_is_refused() {
        let deep = "[".repeat(100_000);
        for text in ["", "{", "[1,]", "{\"a\":1,\"a\":2}", "1 2", "nul", "\"", "\"\\x\"", "{a: 1}", "--1", "1e", &deep]
        {
            assert_eq!(read(text), None, "{}", &text[..text.len().min(20)]);
        }
    }

    proptest! {
        #[test]
        fn it_takes_what_another_reader_takes(text in r#"([\[\]{}",:0-9.eE+-]|true|null|\\u[0-9d]{4}|\\n| |"a"){0,20}"#) {
            let is_json = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            // Names that stand twice, and halves of pairs, are what the two disagree on.
            let doubtful = text.contains("\"a\"") || text.contains("\\u") || text.contains("\"\"");
            prop_assert!(!is_json || doubtful || read(&text).is_some(), "{}", text);
        }
    }
}
