//! Zip archives, as far as it takes to find their members.

use super::packed::{Member, Method, name_of};

/// The end of the directory of an archive has at most so many bytes: a comment of 64 KiB may follow.
const END_MAX_BYTES: usize = 22 + 65_535;
/// So many members are read.
const MEMBERS_MAX: u64 = 1_000_000;
/// Sizes and places that do not fit into 32 bits stand elsewhere.
const ELSEWHERE: u64 = 0xffff_ffff;

/// Returns whether bytes begin as an archive does.
pub(super) fn is_it(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06")
}

/// Returns the members, or `None` if it is no archive that can be read.
pub(super) fn members(bytes: &[u8]) -> Option<Vec<Member<'_>>> {
    let start = bytes.len().saturating_sub(END_MAX_BYTES);
    let end = start + bytes[start..].windows(4).rposition(|window| window == b"PK\x05\x06")?;
    let mut count = u64::from(u16_at(bytes, end + 10)?);
    let mut at = u64::from(u32_at(bytes, end + 16)?);
    // An archive of more than 4 GiB, or of 65,535 members, has a second directory end in front of the first.
    let locator = end.checked_sub(20).filter(|at| bytes[*at..].starts_with(b"PK\x06\x07"));
    if let Some(locator) = locator.filter(|_| at == ELSEWHERE || count == 0xffff) {
        let end = usize::try_from(u64_at(bytes, locator + 8)?).ok()?;
        if bytes.get(end..end.checked_add(4)?)? != b"PK\x06\x06" {
            return None;
        }
        count = u64_at(bytes, end + 32)?;
        at = u64_at(bytes, end + 48)?;
    }
    if count > MEMBERS_MAX {
        return None;
    }
    let mut at = usize::try_from(at).ok()?;
    let mut members = Vec::new();
    for _ in 0..count {
        let (member, next) = member(bytes, at)?;
        members.push(member);
        at = next;
    }
    Some(members)
}

/// Returns the member whose entry in the directory is at `at`, and where the next one is.
fn member(bytes: &[u8], at: usize) -> Option<(Member<'_>, usize)> {
    if bytes.get(at..at.checked_add(4)?)? != b"PK\x01\x02" {
        return None;
    }
    let flags = u16_at(bytes, at + 8)?;
    let method = u16_at(bytes, at + 10)?;
    let mut packed = u64::from(u32_at(bytes, at + 20)?);
    let mut size = u64::from(u32_at(bytes, at + 24)?);
    let [name_length, extra_length, comment_length] = [28, 30, 32].map(|offset| u16_at(bytes, at + offset));
    let (name_length, extra_length) = (usize::from(name_length?), usize::from(extra_length?));
    let attributes = u32_at(bytes, at + 38)?;
    let mut place = u64::from(u32_at(bytes, at + 42)?);
    let name = bytes.get(at + 46..at + 46 + name_length)?;
    let extra = bytes.get(at + 46 + name_length..at + 46 + name_length + extra_length)?;
    wide(extra, &mut [&mut size, &mut packed, &mut place])?;
    let local = usize::try_from(place).ok()?;
    if bytes.get(local..local.checked_add(4)?)? != b"PK\x03\x04" {
        return None;
    }
    // What stands in front of the content is as long as it says there.
    let front = 30 + usize::from(u16_at(bytes, local + 26)?) + usize::from(u16_at(bytes, local + 28)?);
    let start = local + front;
    let content = bytes.get(start..start.checked_add(usize::try_from(packed).ok()?)?)?;
    let is_encrypted = flags & 1 == 1;
    let method = match method {
        _ if is_encrypted => Method::Unknown,
        0 => Method::Stored,
        8 => Method::Deflate,
        12 => Method::Bzip2,
        93 => Method::Zstd,
        95 => Method::Xz,
        _ => Method::Unknown,
    };
    // Systems of the Unix family keep rights in the upper half; the lower says what is a directory.
    let mode = attributes >> 16;
    let rights = mode & 0o7777;
    let about = if rights == 0 { String::new() } else { format!("mode {rights:o}") };
    let next = at + 46 + name_length + extra_length + usize::from(comment_length?);
    Some((Member { name: name_of(name), about, content, method }, next))
}

/// Replaces the numbers that did not fit into their fields by those of the extra field for them.
fn wide(extra: &[u8], fields: &mut [&mut u64; 3]) -> Option<()> {
    let mut rest = extra;
    while rest.len() >= 4 {
        let (id, length) = (u16_at(rest, 0)?, usize::from(u16_at(rest, 2)?));
        let data = rest.get(4..4 + length)?;
        if id == 1 {
            let mut at = 0;
            for field in fields.iter_mut().filter(|field| ***field == ELSEWHERE) {
                **field = u64_at(data, at)?;
                at += 8;
            }
        }
        rest = &rest[4 + length..];
    }
    Some(())
}

fn word<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    word(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    word(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    word(bytes, at).map(u64::from_le_bytes)
}
