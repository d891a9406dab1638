//! What `torch.save` wrote before it wrote archives: pickles one behind the other, and then the storages.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::super::report::Report;
use super::tensors::Kept;
use super::{Node, Picture, Storages, differ, machine};

/// The number that the first pickle is, least significant byte first.
const MAGIC: &[u8] = &[0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// The first pickle is not longer than this.
const FIRST_MAX_BYTES: usize = 32;
/// The version of all that there is.
const VERSION: i128 = 1001;

/// Returns whether bytes begin as such a file does.
pub(in crate::compare) fn is_it(bytes: &[u8]) -> bool {
    let first = &bytes[..bytes.len().min(FIRST_MAX_BYTES)];
    first.starts_with(&[0x80]) && first.windows(MAGIC.len()).any(|window| window == MAGIC)
}

/// Compares two files by what was saved; `None` if one of them cannot be understood. On what machine does not count.
pub(in crate::compare) fn compare(report: &mut Report, old: &[u8], new: &[u8]) -> Option<()> {
    differ::compare(report, &read(old)?, &read(new)?)
}

/// Returns what was saved, with what is kept behind it.
fn read(bytes: &[u8]) -> Option<Picture<'_>> {
    let (mut picture, mut rest) = machine::run_first(bytes, 5)?;
    let [magic, version, about, saved, keys] = picture.roots[..] else { return None };
    let Node::Whole(_) = picture.nodes[magic] else { return None };
    if picture.whole(version)? != VERSION || !is_little(&picture, about) {
        return None;
    }
    let kept: BTreeMap<&str, Kept<'_>> = picture.all_kept().map(|kept| (kept.key, kept)).collect();
    let mut storages = Storages::new();
    for key in picture.items(keys)? {
        let key = picture.text(*key)?;
        let (count, behind) = rest.split_first_chunk()?;
        let bytes = usize::try_from(u64::from_le_bytes(*count)).ok()?.checked_mul(kept.get(key)?.kind.bytes()?)?;
        storages.insert(key.to_owned(), Cow::Borrowed(behind.get(..bytes)?));
        rest = &behind[bytes..];
    }
    if !rest.is_empty() {
        return None;
    }
    picture.storages = storages;
    picture.roots = vec![saved];
    Some(picture)
}

/// Returns whether the machine that saved it has the least significant byte first.
fn is_little(picture: &Picture<'_>, about: usize) -> bool {
    picture.get(about, "little_endian").is_some_and(|id| picture.whole(id) == Some(1))
}
