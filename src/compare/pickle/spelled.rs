//! What the oldest protocols write in readable characters: numbers in digits, texts with escapes.

use std::borrow::Cow;

use super::Node;

/// A whole number of more digits is not read: each takes longer than the one before.
const DIGITS_MAX: usize = 4300;

/// Returns a whole number by its digits.
pub(super) fn whole<'a>(digits: &str) -> Option<Node<'a>> {
    if let Ok(whole) = digits.parse() {
        return Some(Node::Whole(whole));
    }
    let (is_negative, digits) = digits.strip_prefix('-').map_or((false, digits), |digits| (true, digits));
    if digits.is_empty() || digits.len() > DIGITS_MAX {
        return None;
    }
    let mut bytes: Vec<u8> = Vec::new();
    for digit in digits.bytes() {
        let mut carry = u32::from(digit.is_ascii_digit().then(|| digit - b'0')?);
        for byte in &mut bytes {
            carry += u32::from(*byte) * 10;
            [*byte, ..] = carry.to_le_bytes();
            carry >>= 8;
        }
        bytes.extend((carry > 0).then(|| carry.to_le_bytes()[0]));
    }
    // As later protocols have it: room for the sign, and no byte more than that takes.
    bytes.push(0);
    if is_negative {
        let mut carry = true;
        for byte in &mut bytes {
            (*byte, carry) = (!*byte).overflowing_add(carry.into());
        }
    }
    while let [.., before, last] = bytes[..]
        && (last == 0 && before < 0x80 || last == 0xff && before >= 0x80)
    {
        bytes.pop();
    }
    Some(Node::Large(bytes.into()))
}

/// Returns the bytes that a literal of Python 2 spells: in quotes, with escapes.
pub(super) fn bytes(line: &[u8]) -> Option<Vec<u8>> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let ([b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"']) = line else { return None };
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let [first, behind @ ..] = rest {
        rest = behind;
        if *first != b'\\' {
            out.push(*first);
            continue;
        }
        let [code, behind @ ..] = rest else { return None };
        rest = behind;
        match code {
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'\\' | b'\'' | b'"' => out.push(*code),
            b'x' => {
                out.push(u8::try_from(hex(rest.get(..2)?)?).ok()?);
                rest = &rest[2..];
            }
            // No program writes any other.
            _ => return None,
        }
    }
    Some(out)
}

/// Returns the text of a line of bytes that are characters, but for escapes of those beyond; `None` if one is none.
pub(super) fn text(line: &[u8]) -> Option<String> {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let [first, behind @ ..] = rest {
        rest = behind;
        let length = match behind {
            [b'u', ..] => 4,
            [b'U', ..] => 8,
            _ => 0,
        };
        let escaped = behind.get(1..=length).filter(|_| *first == b'\\' && length > 0).and_then(hex);
        match escaped {
            Some(code) => {
                out.push(char::from_u32(code)?);
                rest = &behind[1 + length..];
            }
            None => out.push(char::from(*first)),
        }
    }
    Some(out)
}

/// Returns the bytes that a text stands for of which each character is one byte.
pub(super) fn latin<'a>(text: &str) -> Option<Cow<'a, [u8]>> {
    text.chars().map(|character| u8::try_from(u32::from(character)).ok()).collect::<Option<Vec<u8>>>().map(Cow::Owned)
}

fn hex(digits: &[u8]) -> Option<u32> {
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_length_are_the_same_as_in_later_protocols() {
        let large = |digits: &str| match whole(digits) {
            Some(Node::Large(bytes)) => bytes.into_owned(),
            other => panic!("{digits} is {other:?}"),
        };
        // 2**200, -2**200, 2**135 - 1 and -2**135
        let power = [vec![0; 25], vec![1]].concat();
        assert_eq!(large("1606938044258990275541962092341162602522202993782792835301376"), power);
        let negative = [vec![0; 25], vec![0xff]].concat();
        assert_eq!(large("-1606938044258990275541962092341162602522202993782792835301376"), negative);
        assert_eq!(large("43556142965880123323311949751266331066367"), [vec![0xff; 16], vec![0x7f]].concat());
        assert_eq!(large("-43556142965880123323311949751266331066368"), [vec![0; 16], vec![0x80]].concat());
        assert!(matches!(whole("-17"), Some(Node::Whole(-17))));
        assert!(["", "-", "1x", "170141183460469231731687303715884105728x"].iter().all(|bad| whole(bad).is_none()));
        assert!(whole(&"9".repeat(DIGITS_MAX + 1)).is_none());
    }

    #[test]
    fn texts_are_read_with_their_escapes() {
        assert_eq!(bytes(br"'a\'b\\\n\x00\xff'"), Some(b"a'b\\\n\0\xff".to_vec()));
        assert_eq!(bytes(br#""it's""#), Some(b"it's".to_vec()));
        assert!([&b"'a"[..], b"a", b"'", b"'\\'", br"'\q'", br"'\x0'"].iter().all(|bad| bytes(bad).is_none()));
        assert_eq!(text(b"a\\u005cn\\u20ac \xe9\\U0001f600\\u12").unwrap(), "a\\n\u{20ac} \u{e9}\u{1f600}\\u12");
        // Half of a pair.
        assert_eq!(text(b"\\ud83d"), None);
    }
}
