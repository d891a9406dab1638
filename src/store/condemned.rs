//! What a collection of garbage is going to take away, written down before it does.
//!
//! The file `gc/condemned` names records by pack, large files by name, and the
//! sessions that were alive when it was written. A session that starts while it
//! is there takes all of it for absent; the collection waits for those that
//! started before. So nobody relies on what goes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::io;

use super::layout::Layout;
use super::pack::Tag;
use crate::disk::{self, Disk, DiskError, Durability};
use crate::hash::Digest;
use crate::object::Kind;

const MAGIC: &str = "pv-condemned 1";
const CONTEXT: &str = "pv condemned v1";

/// What is going to be taken away.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Condemned {
    /// The sessions that may rely on it.
    pub(super) sessions: BTreeSet<String>,
    /// Of each pack that goes, the records that go with it. The others are copied first.
    pub(super) packs: BTreeMap<Digest, BTreeSet<(Digest, Tag)>>,
    /// The objects that are files of their own.
    pub(super) loose: BTreeSet<(Kind, Digest)>,
}

impl Condemned {
    /// Returns what is written down in the store; nothing if no collection is under way.
    ///
    /// # Errors
    ///
    /// [`DiskError`] if it cannot be read, or is not what a collection writes.
    pub(super) fn read(layout: &Layout) -> Result<Option<Self>, DiskError> {
        let path = layout.condemned();
        let Some(bytes) = disk::read_if_there(&path)? else { return Ok(None) };
        let understood = std::str::from_utf8(&bytes).ok().and_then(Self::decode);
        let bad = || DiskError::on("understand", &path)(io::Error::from(io::ErrorKind::InvalidData));
        understood.map(Some).ok_or_else(bad)
    }

    /// Writes it down, durably.
    pub(super) fn write(&self, disk: &dyn Disk, layout: &Layout) -> Result<(), DiskError> {
        disk::write_whole_on(disk, &layout.condemned(), self.encode().as_bytes(), Durability::Synced)
    }

    /// Returns whether this record of this pack counts as absent.
    pub(super) fn has_record(&self, pack: Digest, digest: Digest, tag: Tag) -> bool {
        self.packs.get(&pack).is_some_and(|records| records.contains(&(digest, tag)))
    }

    fn encode(&self) -> String {
        let mut text = format!("{MAGIC}\n");
        let written = "writing into a string does not fail";
        for session in &self.sessions {
            writeln!(text, "session {session}").expect(written);
        }
        for (pack, records) in &self.packs {
            writeln!(text, "pack {pack}").expect(written);
            for (digest, tag) in records {
                writeln!(text, "record {} {digest}", tag.number()).expect(written);
            }
        }
        for (kind, digest) in &self.loose {
            writeln!(text, "file {kind} {digest}").expect(written);
        }
        let end = Digest::derived(CONTEXT, text.as_bytes());
        writeln!(text, "end {end}").expect(written);
        text
    }

    fn decode(text: &str) -> Option<Self> {
        let body = text.strip_suffix('\n')?;
        let at = body.rfind("\nend ")? + 1;
        let (body, end) = body.split_at(at);
        (end.strip_prefix("end ")?.parse::<Digest>().ok()? == Digest::derived(CONTEXT, body.as_bytes()))
            .then_some(())?;
        let mut lines = body.lines();
        (lines.next()? == MAGIC).then_some(())?;
        let (mut condemned, mut pack) = (Self::default(), None);
        for line in lines {
            let mut words = line.split(' ');
            match (words.next()?, words.next()?, words.next(), words.next()) {
                ("session", name, None, None) => drop(condemned.sessions.insert(name.to_owned())),
                ("pack", name, None, None) => {
                    let name = name.parse().ok()?;
                    condemned.packs.entry(name).or_default();
                    pack = Some(name);
                }
                ("record", tag, Some(digest), None) => {
                    let record = (digest.parse().ok()?, Tag::from_number(tag.parse().ok()?)?);
                    condemned.packs.get_mut(&pack?)?.insert(record);
                }
                ("file", kind, Some(digest), None) => {
                    let kind = Kind::ALL.into_iter().find(|known| known.name() == kind)?;
                    condemned.loose.insert((kind, digest.parse().ok()?));
                }
                _ => return None,
            }
        }
        Some(condemned)
    }
}

/// Returns whether a collection is under way in the store at `layout`.
pub(super) fn is_under_way(layout: &Layout) -> Result<bool, DiskError> {
    Ok(disk::look(&layout.condemned())?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn condemned() -> impl Strategy<Value = Condemned> {
        let digest = || any::<[u8; 32]>().prop_map(Digest::from_bytes);
        let tag = prop::sample::select(vec![Tag::Object(Kind::Blob), Tag::Object(Kind::Tree), Tag::Chunk, Tag::Recipe]);
        let records = prop::collection::btree_set((digest(), tag), 0..5);
        let packs = prop::collection::btree_map(digest(), records, 0..4);
        let kind = prop::sample::select(Kind::ALL.to_vec());
        let loose = prop::collection::btree_set((kind, digest()), 0..4);
        let sessions = prop::collection::btree_set("[0-9]{1,5}-[0-9]", 0..3);
        (sessions, packs, loose).prop_map(|(sessions, packs, loose)| Condemned { sessions, packs, loose })
    }

    proptest! {
        #[test]
        fn it_reads_as_it_was_written_and_any_change_is_noticed(condemned in condemned(), at in any::<prop::sample::Index>()) {
            let text = condemned.encode();
            prop_assert_eq!(Condemned::decode(&text), Some(condemned));
            let mut bytes = text.into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1;
            prop_assert_eq!(std::str::from_utf8(&bytes).ok().and_then(Condemned::decode), None);
            prop_assert_eq!(std::str::from_utf8(&bytes[..at]).ok().and_then(Condemned::decode), None);
        }
    }
}
