//! The `ident` attribute: `$Id$` becomes `$Id: <blob id> $` in the working tree.
//!
//! `gix` expands it too, but without the blank before the second dollar sign,
//! and leaves keywords alone that were committed expanded. So we expand first,
//! and nothing is left for it to do.
//! Source: gitattributes(5), section "ident"; git's `convert.c`, `ident_to_worktree`.

use gix::ObjectId;
use gix::bstr::ByteSlice;

/// Returns the bytes of a blob with all keywords expanded to its id, which is only asked for if there are any.
pub(super) fn expand<E>(blob: Vec<u8>, id: impl FnOnce(&[u8]) -> Result<ObjectId, E>) -> Result<Vec<u8>, E> {
    let keywords = find_keywords(&blob);
    if keywords.is_empty() {
        return Ok(blob);
    }
    let expanded = format!("$Id: {} $", id(&blob)?);
    let mut out = Vec::with_capacity(blob.len() + keywords.len() * expanded.len());
    let mut end = 0;
    for (from, to) in keywords {
        out.extend_from_slice(&blob[end..from]);
        out.extend_from_slice(expanded.as_bytes());
        end = to;
    }
    out.extend_from_slice(&blob[end..]);
    Ok(out)
}

/// Returns where keywords begin and end: `$Id$`, or `$Id: one-word $` on one line.
/// Several words are taken for the keyword of another system, and stay.
fn find_keywords(blob: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = blob[at..].find(b"$Id").map(|offset| at + offset) {
        let rest = &blob[start + 3..];
        let length = match rest.first() {
            Some(b'$') => Some(1),
            Some(b':') => rest.find_byte(b'$').filter(|end| is_our_own(&rest[1..*end])).map(|end| end + 1),
            _ => None,
        };
        // What is no keyword can end with the dollar sign that begins one.
        at = start + 3 + length.unwrap_or(0);
        found.extend(length.map(|_| (start, at)));
    }
    found
}

fn is_our_own(value: &[u8]) -> bool {
    let after_blank = value.get(1..).unwrap_or_default();
    !value.contains(&b'\n') && after_blank.find_byte(b' ').is_none_or(|blank| blank + 1 == after_blank.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_expanded_but_not_those_of_other_systems() {
        let id = ObjectId::empty_blob(gix::hash::Kind::Sha1);
        let ours = format!("$Id: {id} $");
        let expanded = |text: &str| {
            let bytes = expand(text.as_bytes().to_vec(), |_| Ok::<_, ()>(id)).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        for keyword in ["$Id$", "$Id:$", "$Id: $", "$Id: abc $", "$Id:abc$"] {
            assert_eq!(expanded(&format!("a {keyword} $ b")), format!("a {ours} $ b"));
        }
        for text in ["", "$Id", "$Id: abc", "$Id: file.c 1.2 Ada $", "$Id: two\nlines $", "$Ids$", "Id$"] {
            assert_eq!(expanded(text), text);
        }
        assert_eq!(expanded("$Id: open\n$Id$$Id: x $"), format!("$Id: open\n{ours}{ours}"));
    }
}
