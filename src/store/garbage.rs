//! What of a store is garbage, and what of it is worth taking away now.
//!
//! Whoever knows what objects mean says which ones live. From that, and from
//! the indexes of the packs, this decides which packs and files go. Pure: a
//! collection does what is decided here.

use std::collections::{BTreeMap, BTreeSet};

use super::condemned::Condemned;
use super::pack::{Entry, HEADER_BYTES, Tag};
use crate::hash::Digest;
use crate::object::Kind;

/// Objects that must stay.
pub type Live = BTreeSet<(Kind, Digest)>;

/// What there is.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    /// Each pack, and what is in it.
    pub(super) packs: BTreeMap<Digest, Vec<Entry>>,
    /// Each object that is a file of its own, and its length in bytes.
    pub(super) loose: BTreeMap<(Kind, Digest), u64>,
    /// The pieces of large blobs that must stay.
    pub(super) pieces: BTreeSet<Digest>,
}

/// What is worth taking away.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// Of each pack, the records that go; what is left in it is copied.
    pub(super) packs: BTreeMap<Digest, BTreeSet<(Digest, Tag)>>,
    pub(super) loose: BTreeSet<(Kind, Digest)>,
}

impl Inventory {
    /// Returns whether the record must stay.
    pub(super) fn lives(&self, live: &Live, digest: Digest, tag: Tag) -> bool {
        match tag {
            Tag::Object(kind) => live.contains(&(kind, digest)),
            Tag::Recipe => live.contains(&(Kind::Blob, digest)),
            Tag::Chunk => self.pieces.contains(&digest),
        }
    }

    /// Returns what is worth taking away: packs of which at least half is garbage, or any of it if `all`.
    ///
    /// What refers to other objects never stays behind what it refers to: as soon as anything goes, every pack with
    /// a dead snapshot, tree or recipe goes too. Else one of those could be found and believed later, and lead nowhere.
    pub(super) fn choose(&self, live: &Live, all: bool) -> Choice {
        let mut garbage: BTreeMap<Digest, BTreeSet<(Digest, Tag)>> = BTreeMap::new();
        let (mut worth, mut referring) = (BTreeSet::new(), BTreeSet::new());
        for (name, entries) in &self.packs {
            let all_bytes: u64 = entries.iter().map(bytes_of).sum();
            let dead: Vec<_> = entries.iter().filter(|entry| !self.lives(live, entry.digest, entry.tag)).collect();
            let dead_bytes: u64 = dead.iter().map(|entry| bytes_of(entry)).sum();
            if dead.len() == entries.len() || (!dead.is_empty() && (all || dead_bytes * 2 >= all_bytes)) {
                worth.insert(*name);
            }
            if dead.iter().any(|entry| refers(entry.tag)) {
                referring.insert(*name);
            }
            garbage.insert(*name, dead.into_iter().map(|entry| (entry.digest, entry.tag)).collect());
        }
        let loose: BTreeSet<_> = self.loose.keys().filter(|name| !live.contains(name)).copied().collect();
        if !worth.is_empty() || !loose.is_empty() {
            worth.append(&mut referring);
        }
        garbage.retain(|name, _| worth.contains(name));
        Choice { packs: garbage, loose }
    }

    /// Returns the objects that refer to others, are not condemned, and of which nobody said that they live.
    ///
    /// They came since the last choice, so what they refer to must stay with them.
    pub(super) fn newcomers(&self, live: &Live, condemned: &Condemned) -> Live {
        let mut newcomers = Live::new();
        for (name, entries) in &self.packs {
            for entry in entries.iter().filter(|entry| refers(entry.tag)) {
                if !self.lives(live, entry.digest, entry.tag) && !condemned.has_record(*name, entry.digest, entry.tag) {
                    newcomers.insert((kind_of(entry.tag), entry.digest));
                }
            }
        }
        newcomers
    }
}

/// Returns whether a record of this sort names other objects.
pub(super) fn refers(tag: Tag) -> bool {
    matches!(tag, Tag::Recipe | Tag::Object(Kind::Tree | Kind::Snapshot))
}

/// Returns the kind of the object that a record is, or is a part of.
pub(super) fn kind_of(tag: Tag) -> Kind {
    match tag {
        Tag::Object(kind) => kind,
        Tag::Chunk | Tag::Recipe => Kind::Blob,
    }
}

/// Returns how many bytes of its pack a record takes, its place in the index not counted.
pub(super) fn bytes_of(entry: &Entry) -> u64 {
    HEADER_BYTES as u64 + u64::from(entry.stored)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u8) -> Digest {
        Digest::of(&[number])
    }

    fn entry(number: u8, tag: Tag, stored: u32) -> Entry {
        Entry { digest: digest(number), tag, codec: 0, offset: 16, stored, length: u64::from(stored) }
    }

    const BLOB: Tag = Tag::Object(Kind::Blob);
    const TREE: Tag = Tag::Object(Kind::Tree);

    fn chosen(inventory: &Inventory, live: &[u8], all: bool) -> Vec<Digest> {
        let live = live.iter().flat_map(|number| [(Kind::Blob, digest(*number)), (Kind::Tree, digest(*number))]);
        inventory.choose(&live.collect(), all).packs.into_keys().collect()
    }

    #[test]
    fn a_pack_goes_when_half_of_it_is_garbage_or_on_demand_any() {
        let half = vec![entry(1, BLOB, 1000), entry(2, BLOB, 1000)];
        let little = vec![entry(3, BLOB, 9000), entry(4, BLOB, 1000)];
        let inventory =
            Inventory { packs: [(digest(100), half), (digest(101), little)].into(), ..Inventory::default() };
        assert_eq!(chosen(&inventory, &[1, 3], false), [digest(100)]);
        assert_eq!(chosen(&inventory, &[1, 3], true).len(), 2);
        assert_eq!(chosen(&inventory, &[1, 2, 3], false), []);
        assert_eq!(chosen(&inventory, &[1, 2, 3, 4], true), []);
    }

    #[test]
    fn what_refers_to_others_goes_no_later_than_they_do() {
        let blobs = vec![entry(1, BLOB, 1000)];
        let trees = vec![entry(2, TREE, 100), entry(3, BLOB, 9000)];
        let inventory =
            Inventory { packs: [(digest(100), blobs), (digest(101), trees)].into(), ..Inventory::default() };
        assert_eq!(chosen(&inventory, &[3], false).len(), 2, "the tree goes because the blob does");
        assert_eq!(chosen(&inventory, &[1, 3], false), [], "nothing goes for the sake of a tree alone");
    }

    #[test]
    fn pieces_and_recipes_live_with_their_blob() {
        let entries = vec![entry(1, Tag::Recipe, 10), entry(2, Tag::Chunk, 1000), entry(3, Tag::Chunk, 1000)];
        let pieces = BTreeSet::from([digest(2)]);
        let inventory = Inventory { packs: [(digest(100), entries)].into(), pieces, ..Inventory::default() };
        let live = Live::from([(Kind::Blob, digest(1))]);
        let choice = inventory.choose(&live, true);
        assert_eq!(choice.packs[&digest(100)], BTreeSet::from([(digest(3), Tag::Chunk)]));
        let condemned = Condemned::default();
        assert_eq!(inventory.newcomers(&Live::new(), &condemned), live, "nobody said that it lives, so it is new");
        assert_eq!(inventory.newcomers(&live, &condemned), Live::new());
    }
}
