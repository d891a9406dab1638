//! UTF-16 and UTF-32, which `working-tree-encoding` can ask for and `gix` cannot write.
//!
//! Names and byte order marks as git has them where its `iconv` is that of
//! glibc on a little-endian machine.
//! Source: gitattributes(5), section "working-tree-encoding".

use gix::bstr::BStr;

/// How to write UTF-8 text in wider units.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unicode {
    unit_bytes: usize,
    is_big_endian: bool,
    has_mark: bool,
}

impl Unicode {
    /// Returns the encoding of this name, such as `UTF-16LE-BOM`, in any case; `None` for all others.
    pub(super) fn named(name: &BStr) -> Option<Self> {
        let name = name.to_ascii_uppercase();
        let rest = name.strip_prefix(b"UTF")?;
        let rest = rest.strip_prefix(b"-").unwrap_or(rest);
        let unit_bytes = if rest.starts_with(b"16") { 2 } else { 4 };
        let order = rest.strip_prefix(b"16").or_else(|| rest.strip_prefix(b"32"))?;
        let (is_big_endian, has_mark) = match order {
            b"" | b"LE-BOM" => (false, true),
            b"LE" => (false, false),
            b"BE" => (true, false),
            b"BE-BOM" => (true, true),
            _ => return None,
        };
        Some(Self { unit_bytes, is_big_endian, has_mark })
    }

    /// Returns the text in this encoding; fails if it is not UTF-8.
    pub(super) fn encode(self, text: &[u8]) -> Result<Vec<u8>, std::str::Utf8Error> {
        let text = std::str::from_utf8(text)?;
        let mut out = Vec::with_capacity((text.len() + 1) * self.unit_bytes);
        let mark = self.has_mark.then_some('\u{feff}');
        for character in mark.into_iter().chain(text.chars()) {
            match self.unit_bytes {
                2 => character.encode_utf16(&mut [0; 2]).iter().for_each(|unit| self.push(u32::from(*unit), &mut out)),
                _ => self.push(u32::from(character), &mut out),
            }
        }
        Ok(out)
    }

    fn push(self, unit: u32, out: &mut Vec<u8>) {
        if self.is_big_endian {
            out.extend_from_slice(&unit.to_be_bytes()[4 - self.unit_bytes..]);
        } else {
            out.extend_from_slice(&unit.to_le_bytes()[..self.unit_bytes]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(name: &str, text: &str) -> Vec<u8> {
        Unicode::named(name.into()).unwrap().encode(text.as_bytes()).unwrap()
    }

    #[test]
    fn text_is_written_in_units_with_and_without_a_mark() {
        assert_eq!(encode("UTF-16LE", "a\u{1f600}"), b"a\0\x3d\xd8\x00\xde");
        assert_eq!(encode("utf-16be-bom", "a"), b"\xfe\xff\0a");
        assert_eq!(encode("UTF-16", "a"), b"\xff\xfea\0");
        assert_eq!(encode("UTF32BE", "a"), b"\0\0\0a");
    }

    #[test]
    fn other_encodings_and_other_bytes_are_refused() {
        for name in ["UTF-8", "UTF-7", "latin-1", "UTF-16XE", "UTF"] {
            assert_eq!(Unicode::named(name.into()), None, "{name}");
        }
        assert!(Unicode::named("UTF-16".into()).unwrap().encode(b"\xff").is_err());
    }
}
