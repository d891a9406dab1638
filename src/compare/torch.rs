//! What `torch.save` writes: a zip archive with a pickle, and the bytes of each storage beside it. Archives of `TorchScript` are
//! such archives too, with code in them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::packed::{self, Member};
use super::pickle::{self, Storages};
use super::report::{Finding, Report};

/// The pickle that makes an archive one of tensors; what it keeps beside itself is in the directory `data`.
const DATA: &str = "data";
/// The pickles that have something beside them. That of constants is in archives of code alone.
const PICKLES: [&str; 2] = [DATA, "constants"];
/// A digest of the rest, in newer archives.
const DIGEST: &str = ".data/serialization_id";

/// Compares two archives of tensors; `None` if one of them is another kind of archive.
pub(super) fn compare(report: &mut Report, old: &[Member<'_>], new: &[Member<'_>]) -> Option<()> {
    let (old, new) = (Archive::of(report, old)?, Archive::of(report, new)?);
    let (mut old_pickles, mut new_pickles) = (old.pickles, new.pickles);
    for name in PICKLES {
        let place = if name == DATA { String::new() } else { name.to_owned() };
        match (old_pickles.remove(name), new_pickles.remove(name)) {
            (Some(old), Some(new)) => {
                let (old, new) = ((&*old.pickle, old.storages), (&*new.pickle, new.storages));
                report.inside(place, |report| pickle::compare_with(report, name, old, new))?;
            }
            (None, None) => {}
            (old, new) => {
                let told = |kept: Option<Kept<'_>>| kept.map(|kept| format!("{} bytes", kept.pickle.len()));
                report.differ(|| Finding::of(place, told(old), told(new)));
            }
        }
    }
    packed::compare_members(report, &old.others, &new.others);
    Some(())
}

struct Archive<'a> {
    pickles: BTreeMap<&'static str, Kept<'a>>,
    /// What else is in it, without the name of the archive in front.
    others: Vec<Member<'a>>,
}

/// A pickle, and what is kept beside it.
#[derive(Default)]
struct Kept<'a> {
    pickle: Cow<'a, [u8]>,
    storages: Storages<'a>,
}

impl<'a> Archive<'a> {
    fn of(report: &Report, members: &'a [Member<'a>]) -> Option<Self> {
        // Everything lies in a directory that is called like the file when it was written.
        let root = members.iter().find_map(|member| {
            let root = member.name.strip_suffix(".pkl")?.strip_suffix(DATA)?;
            (root.ends_with('/') && !root.trim_end_matches('/').contains('/')).then_some(root)
        })?;
        let mut archive = Self { pickles: BTreeMap::new(), others: Vec::new() };
        let mut unpacked = 0;
        for member in members {
            let name = member.name.strip_prefix(root).unwrap_or(&member.name);
            if name == DIGEST {
                continue;
            }
            let part = PICKLES.iter().find_map(|pickle| Some((*pickle, name.strip_prefix(pickle)?)));
            let (pickle, part) = match part {
                Some((pickle, part)) if part == ".pkl" || part.starts_with('/') => (pickle, part),
                _ => {
                    let about = member.about.clone();
                    let (content, method) = (member.content, member.method);
                    archive.others.push(Member { name: name.to_owned(), about, content, method });
                    continue;
                }
            };
            let content = packed::unpack(report, member.method, member.content).ok()?;
            if matches!(content, Cow::Owned(_)) {
                unpacked += content.len() as u64;
            }
            if unpacked > packed::MEMBER_MAX_BYTES {
                return None;
            }
            let kept = archive.pickles.entry(pickle).or_default();
            match part.strip_prefix('/') {
                Some(key) => drop(kept.storages.insert(key.to_owned(), content)),
                None => kept.pickle = content,
            }
        }
        Some(archive)
    }
}
