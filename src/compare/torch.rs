//! What `torch.save` writes: a zip archive with a pickle, and the bytes of each tensor beside it.

use std::borrow::Cow;

use super::packed::{self, Member};
use super::pickle::{self, Storages};
use super::report::Report;

const PICKLE: &str = "data.pkl";
const STORAGES: &str = "data/";
/// A digest of the rest, in newer archives.
const DIGEST: &str = ".data/serialization_id";

/// Compares two archives of tensors; `None` if one of them is another kind of archive.
pub(super) fn compare(report: &mut Report, old: &[Member<'_>], new: &[Member<'_>]) -> Option<()> {
    let (old, new) = (Archive::of(report, old)?, Archive::of(report, new)?);
    pickle::compare_with(report, (&old.pickle, &old.storages), (&new.pickle, &new.storages))?;
    packed::compare_members(report, &old.others, &new.others);
    Some(())
}

struct Archive<'a> {
    pickle: Cow<'a, [u8]>,
    storages: Storages<'a>,
    /// What else is in it, without the name of the archive in front.
    others: Vec<Member<'a>>,
}

impl<'a> Archive<'a> {
    fn of(report: &Report, members: &'a [Member<'a>]) -> Option<Self> {
        // Everything lies in a directory that is called like the file when it was written.
        let root = members.iter().find_map(|member| {
            member
                .name
                .strip_suffix(PICKLE)
                .filter(|root| root.ends_with('/') && !root.trim_end_matches('/').contains('/'))
        })?;
        let mut pickle = None;
        let mut storages = Storages::new();
        let mut others = Vec::new();
        let mut unpacked = 0;
        for member in members {
            let name = member.name.strip_prefix(root).unwrap_or(&member.name);
            let storage = name.strip_prefix(STORAGES);
            if name == DIGEST {
                continue;
            }
            if name == PICKLE || storage.is_some() {
                let content = packed::unpack(report, member.method, member.content).ok()?;
                if matches!(content, Cow::Owned(_)) {
                    unpacked += content.len() as u64;
                }
                if unpacked > packed::MEMBER_MAX_BYTES {
                    return None;
                }
                match storage {
                    Some(key) => drop(storages.insert(key.to_owned(), content)),
                    None => pickle = Some(content),
                }
            } else {
                let about = member.about.clone();
                others.push(Member { name: name.to_owned(), about, content: member.content, method: member.method });
            }
        }
        Some(Self { pickle: pickle?, storages, others })
    }
}
