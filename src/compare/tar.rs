//! Tar archives, as far as it takes to find their members.

use super::packed::{Member, Method, name_of};

const BLOCK_BYTES: usize = 512;
/// So many members are read.
const MEMBERS_MAX: usize = 1_000_000;

/// Returns whether bytes begin as an archive does: with a header whose sum is right.
pub(super) fn is_it(bytes: &[u8]) -> bool {
    bytes.get(..BLOCK_BYTES).is_some_and(|header| &header[257..262] == b"ustar" && is_header(header))
}

/// Returns the members, or `None` if it is no archive that can be read.
///
/// Times and owners are left aside; kind, rights and the targets of links are not.
pub(super) fn members(bytes: &[u8]) -> Option<Vec<Member<'_>>> {
    let mut members = Vec::new();
    let mut at = 0;
    let mut long = Long::default();
    while let Some(header) = bytes.get(at..at + BLOCK_BYTES) {
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        if !is_header(header) || members.len() >= MEMBERS_MAX {
            return None;
        }
        let size = long.size.take().or_else(|| number(&header[124..136]))?;
        let size = usize::try_from(size).ok()?;
        let start = at + BLOCK_BYTES;
        let kind = header[156];
        // Links and directories have no content, whatever their size says.
        let has_content = !matches!(kind, b'1'..=b'6');
        let content = bytes.get(start..start.checked_add(if has_content { size } else { 0 })?)?;
        at = start + content.len().div_ceil(BLOCK_BYTES) * BLOCK_BYTES;
        match kind {
            b'L' => long.name = Some(name_of(until_zero(content))),
            b'K' => long.target = Some(name_of(until_zero(content))),
            b'x' => long.take(content)?,
            b'g' => {}
            _ => members.push(member(header, kind, content, std::mem::take(&mut long))?),
        }
    }
    Some(members)
}

/// What stands in front of a member because it does not fit into its header.
#[derive(Default)]
struct Long {
    name: Option<String>,
    target: Option<String>,
    size: Option<u64>,
}

impl Long {
    /// Takes the records of a header of the `pax` kind: `<length> <key>=<value>\n`.
    fn take(&mut self, mut records: &[u8]) -> Option<()> {
        while !records.is_empty() {
            let space = records.iter().position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
            let record = records.get(space + 1..length)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            let value = &record[equals + 1..];
            match &record[..equals] {
                b"path" => self.name = Some(name_of(value)),
                b"linkpath" => self.target = Some(name_of(value)),
                b"size" => self.size = Some(std::str::from_utf8(value).ok()?.parse().ok()?),
                _ => {}
            }
            records = records.get(length..)?;
        }
        Some(())
    }
}

fn member<'a>(header: &[u8], kind: u8, content: &'a [u8], long: Long) -> Option<Member<'a>> {
    let prefix = until_zero(&header[345..500]);
    let short = until_zero(&header[..100]);
    let is_posix = &header[257..263] == b"ustar\0";
    let name = long.name.unwrap_or_else(|| {
        if is_posix && !prefix.is_empty() { format!("{}/{}", name_of(prefix), name_of(short)) } else { name_of(short) }
    });
    let target = long.target.unwrap_or_else(|| name_of(until_zero(&header[157..257])));
    let mode = number(&header[100..108])? & 0o7777;
    let word = match kind {
        0 | b'0' | b'7' => "file".to_owned(),
        b'1' => format!("hard link to {target}"),
        b'2' => format!("link to {target}"),
        b'5' => "directory".to_owned(),
        other => format!("kind {}", char::from(other).escape_default()),
    };
    Some(Member { name, about: format!("{word}, mode {mode:o}"), content, method: Method::Stored })
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number in octal digits, or if it does not fit in base 256.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        // Base 256 behind the mark, the least significant byte last. No file has more than 2^64 bytes.
        let (first, rest) = field.split_first()?;
        let is_small = *first == 0x80 && rest.iter().rev().skip(8).all(|byte| *byte == 0);
        return is_small.then(|| rest.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)));
    }
    let digits = std::str::from_utf8(until_zero(field)).ok()?.trim();
    if digits.is_empty() { Some(0) } else { u64::from_str_radix(digits, 8).ok() }
}

fn is_header(header: &[u8]) -> bool {
    let sum: u64 =
        header.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) }).sum();
    number(&header[148..156]) == Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field of eight bytes with a number in base 256 used to stop the program, whoever had written it.
    #[test]
    fn numbers_are_octal_digits_or_bytes_behind_a_mark() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"        "), Some(0));
        assert_eq!(number(b"12345678"), None);
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 5]), Some(261));
        assert_eq!(number(&[0x80, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]), Some(2 << 56));
        assert_eq!(number(&[0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(number(&[0xff; 8]), None);
    }
}
