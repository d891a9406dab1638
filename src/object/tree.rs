//! Directories: entries sorted by name, split into nodes where they are large.
//!
//! A directory is a B-tree whose nodes end after a name whose hash says so
//! ([`name_ends_node`]): about every 1,024th name ends a leaf, every 1,048,576th
//! also the node above, and so on. The boundaries depend on the set of names alone, so the
//! same directory has the same id whatever order it grew in, and an edit
//! touches one node a level. (The idea is that of prolly trees, as in Noms and
//! Dolt; cutting by names instead of by content keeps the shape when content changes.)
//! A directory without such a name is one leaf, whose id is the directory's.

use super::{BlobId, DecodeError, Reader, TreeId};
use crate::hash::Digest;

/// A name must have this many trailing zero bits a level in its hash to end a node there.
const BITS_A_LEVEL: u32 = 10;
/// A node never has more entries than this, however the names hash.
const NODE_ENTRIES_MAX: usize = 16_384;
/// Level and count at the start of a node.
const NODE_HEADER_BYTES: usize = 5;
/// More levels than any directory can fill; a decoder refuses what lies beyond.
const LEVEL_MAX: u8 = 6;
const COMMIT_BYTES: [usize; 2] = [20, 32];

/// What a name in a directory stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry {
    /// A regular file, with or without the executable bit.
    File {
        /// Whether its owner may execute it.
        executable: bool,
        /// Length in bytes.
        size: u64,
        /// Its bytes.
        id: BlobId,
    },
    /// A symbolic link and the bytes it points at.
    Symlink {
        /// The target, as it is written.
        target: Vec<u8>,
    },
    /// A directory.
    Directory {
        /// What lies below.
        sized: Sized,
        /// Its root node.
        id: TreeId,
    },
    /// Another repository, recorded by the commit that is checked out in it.
    Submodule {
        /// The commit id, 20 bytes (SHA-1) or 32 (SHA-256).
        commit: Vec<u8>,
    },
}

/// How much lies below a directory, all levels.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sized {
    /// Files and symbolic links.
    pub files: u64,
    /// The bytes of the files.
    pub bytes: u64,
}

impl Entry {
    /// Returns how much this entry adds to the directory that holds it.
    pub fn sized(&self) -> Sized {
        match self {
            Self::File { size, .. } => Sized { files: 1, bytes: *size },
            Self::Symlink { .. } => Sized { files: 1, bytes: 0 },
            Self::Directory { sized, .. } => *sized,
            Self::Submodule { .. } => Sized::default(),
        }
    }

    /// Returns the one digest that stands for content and kind: equal digests, equal things.
    ///
    /// Of a file it is the digest of its bytes, of a directory that of its
    /// tree; links and submodules hash their target under `pv link v1`.
    /// The executable bit is not in it.
    pub fn digest(&self) -> Digest {
        match self {
            Self::File { id, .. } => id.digest(),
            Self::Directory { id, .. } => id.digest(),
            Self::Symlink { target } => Digest::derived("pv link v1", target),
            Self::Submodule { commit } => Digest::derived("pv link v1", commit),
        }
    }

    const fn tag(&self) -> u8 {
        match self {
            Self::File { executable: false, .. } => 1,
            Self::File { executable: true, .. } => 2,
            Self::Symlink { .. } => 3,
            Self::Directory { .. } => 4,
            Self::Submodule { .. } => 5,
        }
    }
}

impl std::ops::AddAssign for Sized {
    fn add_assign(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
    }
}

/// One node of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Node {
    /// Entries, sorted by name.
    Leaf(Vec<(Vec<u8>, Entry)>),
    /// Nodes one level below, in the order of their names.
    Inner(Vec<Child>),
}

/// A node below an inner node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Child {
    /// The last name in it.
    pub last_name: Vec<u8>,
    /// How many entries are in it, all levels of this directory.
    pub entries: u64,
    /// What lies below it.
    pub sized: Sized,
    /// Its id.
    pub id: TreeId,
}

impl Node {
    /// Returns the node with these bytes.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for anything that [`TreeBuilder`] does not write: bad
    /// lengths, names out of order, `.` or `..`, a wrong place of a cut.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader(bytes);
        let level = reader.u8()?;
        let count = reader.u32()? as usize;
        if level > LEVEL_MAX {
            return Err(DecodeError::NotCanonical("too many levels"));
        }
        if count > NODE_ENTRIES_MAX {
            return Err(DecodeError::NotCanonical("a node is too large"));
        }
        let mut last: Option<Vec<u8>> = None;
        let mut next_name = |reader: &mut Reader<'_>, is_last_entry: bool| {
            let name = reader.text16()?.to_vec();
            if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0) {
                return Err(DecodeError::NotCanonical("a name is not a name"));
            }
            if last.as_ref().is_some_and(|last| *last >= name) {
                return Err(DecodeError::NotCanonical("names are not in order"));
            }
            if !is_last_entry && name_ends_node(&name, level) {
                return Err(DecodeError::NotCanonical("a node should have ended earlier"));
            }
            last = Some(name.clone());
            Ok(name)
        };
        let node = if level == 0 {
            let mut entries = Vec::new();
            for index in 0..count {
                let tag = reader.u8()?;
                let name = next_name(&mut reader, index + 1 == count)?;
                entries.push((name, decode_entry(tag, &mut reader)?));
            }
            Self::Leaf(entries)
        } else {
            if count < 1 {
                return Err(DecodeError::NotCanonical("an inner node is empty"));
            }
            let mut children = Vec::new();
            for index in 0..count {
                let last_name = next_name(&mut reader, index + 1 == count)?;
                let entries = reader.u64()?;
                let sized = Sized { files: reader.u64()?, bytes: reader.u64()? };
                children.push(Child { last_name, entries, sized, id: reader.id()? });
            }
            Self::Inner(children)
        };
        reader.end()?;
        Ok(node)
    }

    /// Returns the bytes of the node, which is of `level`.
    pub(super) fn encode(&self, level: u8) -> Vec<u8> {
        let mut node = OpenNode::default();
        match self {
            Self::Leaf(entries) => {
                for (name, entry) in entries {
                    node.add(name, 1, entry.sized(), |out| encode_entry(name, entry, out));
                }
            }
            Self::Inner(children) => children.iter().for_each(|child| node.add_child(child)),
        }
        node.finish(level).to_vec()
    }
}

/// Returns whether a node of `level` ends after `name`.
///
/// True if the first 8 bytes of the BLAKE3 of the name, read little-endian,
/// end in 10 zero bits a level (10 for leaves, 20 for the level above, ...).
pub fn name_ends_node(name: &[u8], level: u8) -> bool {
    let first: [u8; 8] = Digest::of(name).as_bytes()[..8].try_into().expect("a digest has 32 bytes");
    u64::from_le_bytes(first).trailing_zeros() >= BITS_A_LEVEL * (u32::from(level) + 1)
}

/// Returns the id of the directory that has nothing in it.
pub fn empty_tree_id() -> TreeId {
    TreeId::of(&[0; NODE_HEADER_BYTES])
}

/// Builds one directory from entries that come in the order of their names.
///
/// Holds one open node a level, encoded, so its memory does not grow with the directory.
pub struct TreeBuilder<Keep> {
    keep: Keep,
    /// The open node of each level.
    open: Vec<OpenNode>,
    /// How many nodes each level has so far, and the last of them.
    closed: Vec<(u64, TreeId)>,
    sized: Sized,
}

/// A node to which entries or nodes are still added.
#[derive(Default)]
struct OpenNode {
    /// Its bytes; the first [`NODE_HEADER_BYTES`] are filled in when it is closed.
    bytes: Vec<u8>,
    /// How many entries or nodes are in it.
    count: u32,
    /// How many entries are in it, all levels of this directory.
    entries: u64,
    sized: Sized,
    last_name: Vec<u8>,
}

impl OpenNode {
    /// Adds what `encode` writes, which goes up to `name`.
    fn add(&mut self, name: &[u8], entries: u64, sized: Sized, encode: impl FnOnce(&mut Vec<u8>)) {
        if self.count == 0 {
            self.bytes.resize(NODE_HEADER_BYTES, 0);
        }
        encode(&mut self.bytes);
        self.count += 1;
        self.entries += entries;
        self.sized += sized;
        self.last_name.clear();
        self.last_name.extend_from_slice(name);
    }

    fn add_child(&mut self, child: &Child) {
        self.add(&child.last_name, child.entries, child.sized, |out| {
            push_text16(&child.last_name, out);
            out.extend_from_slice(&child.entries.to_le_bytes());
            push_sized(child.sized, out);
            out.extend_from_slice(child.id.digest().as_bytes());
        });
    }

    /// Returns the bytes of the node, which is of `level`.
    fn finish(&mut self, level: u8) -> &[u8] {
        self.bytes.resize(self.bytes.len().max(NODE_HEADER_BYTES), 0);
        self.bytes[0] = level;
        self.bytes[1..NODE_HEADER_BYTES].copy_from_slice(&self.count.to_le_bytes());
        &self.bytes
    }

    /// Makes it an empty node that needs no new memory.
    fn clear(&mut self) {
        self.bytes.clear();
        (self.count, self.entries, self.sized) = (0, 0, Sized::default());
    }
}

impl<Keep, Error> TreeBuilder<Keep>
where
    Keep: FnMut(&[u8]) -> Result<TreeId, Error>,
{
    /// Returns a builder that hands the bytes of each finished node to `keep`, which returns its id.
    pub const fn new(keep: Keep) -> Self {
        Self { keep, open: Vec::new(), closed: Vec::new(), sized: Sized { files: 0, bytes: 0 } }
    }

    /// Adds an entry. Names must be valid and strictly ascending.
    ///
    /// # Errors
    ///
    /// Whatever `keep` returns.
    pub fn push(&mut self, name: &[u8], entry: &Entry) -> Result<(), Error> {
        self.sized += entry.sized();
        let leaf = self.open(0);
        debug_assert!(leaf.count == 0 || *leaf.last_name < *name, "names must ascend");
        leaf.add(name, 1, entry.sized(), |out| encode_entry(name, entry, out));
        self.close_if_ended(0)
    }

    /// Ends the directory and returns its id and how much lies below it.
    ///
    /// # Errors
    ///
    /// Whatever `keep` returns.
    pub fn finish(mut self) -> Result<(TreeId, Sized), Error> {
        if self.closed.is_empty() || self.open(0).count > 0 {
            self.close(0)?;
        }
        // The root is on the lowest level that has a single node.
        let mut level = 0;
        while self.closed[usize::from(level)].0 > 1 {
            level += 1;
            if self.open(level).count > 0 {
                self.close(level)?;
            }
        }
        Ok((self.closed[usize::from(level)].1, self.sized))
    }

    fn open(&mut self, level: u8) -> &mut OpenNode {
        let index = usize::from(level);
        if self.open.len() == index {
            self.open.push(OpenNode::default());
        }
        &mut self.open[index]
    }

    /// Ends the open node of `level` if its last name says so, or if it is full.
    fn close_if_ended(&mut self, level: u8) -> Result<(), Error> {
        let node = self.open(level);
        let ends = name_ends_node(&node.last_name, level) || node.count as usize == NODE_ENTRIES_MAX;
        if ends { self.close(level) } else { Ok(()) }
    }

    /// Keeps the open node of `level` and hands it to the level above.
    fn close(&mut self, level: u8) -> Result<(), Error> {
        let mut node = std::mem::take(self.open(level));
        let id = (self.keep)(node.finish(level))?;
        match self.closed.get_mut(usize::from(level)) {
            Some((count, last)) => {
                *count += 1;
                *last = id;
            }
            None => self.closed.push((1, id)),
        }
        let last_name = std::mem::take(&mut node.last_name);
        self.open(level + 1).add_child(&Child { last_name, entries: node.entries, sized: node.sized, id });
        node.clear();
        *self.open(level) = node;
        self.close_if_ended(level + 1)
    }
}

fn push_text16(text: &[u8], out: &mut Vec<u8>) {
    let length = u16::try_from(text.len()).expect("names and paths are shorter than 64 KiB on every system");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text);
}

fn push_sized(sized: Sized, out: &mut Vec<u8>) {
    out.extend_from_slice(&sized.files.to_le_bytes());
    out.extend_from_slice(&sized.bytes.to_le_bytes());
}

fn encode_entry(name: &[u8], entry: &Entry, out: &mut Vec<u8>) {
    out.push(entry.tag());
    push_text16(name, out);
    match entry {
        Entry::File { size, id, .. } => {
            out.extend_from_slice(&size.to_le_bytes());
            out.extend_from_slice(id.digest().as_bytes());
        }
        Entry::Symlink { target } => push_text16(target, out),
        Entry::Directory { sized, id } => {
            push_sized(*sized, out);
            out.extend_from_slice(id.digest().as_bytes());
        }
        Entry::Submodule { commit } => push_text16(commit, out),
    }
}

fn decode_entry(tag: u8, reader: &mut Reader<'_>) -> Result<Entry, DecodeError> {
    Ok(match tag {
        1 | 2 => Entry::File { executable: tag == 2, size: reader.u64()?, id: reader.id()? },
        3 => Entry::Symlink { target: reader.text16()?.to_vec() },
        4 => Entry::Directory { sized: Sized { files: reader.u64()?, bytes: reader.u64()? }, id: reader.id()? },
        5 => {
            let commit = reader.text16()?.to_vec();
            if !COMMIT_BYTES.contains(&commit.len()) {
                return Err(DecodeError::NotCanonical("a commit id has 20 or 32 bytes"));
            }
            Entry::Submodule { commit }
        }
        _ => return Err(DecodeError::NotCanonical("unknown kind of entry")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    type Nodes = BTreeMap<TreeId, Vec<u8>>;

    fn build(entries: &BTreeMap<Vec<u8>, Entry>) -> (TreeId, Sized, Nodes) {
        let mut nodes = Nodes::new();
        let mut builder = TreeBuilder::new(|bytes: &[u8]| {
            let id = TreeId::of(bytes);
            nodes.insert(id, bytes.to_vec());
            Ok::<_, Infallible>(id)
        });
        for (name, entry) in entries {
            builder.push(name, entry).unwrap();
        }
        let (id, sized) = builder.finish().unwrap();
        (id, sized, nodes)
    }

    fn read(id: TreeId, nodes: &Nodes, out: &mut BTreeMap<Vec<u8>, Entry>) {
        match Node::decode(&nodes[&id]).unwrap() {
            Node::Leaf(entries) => out.extend(entries),
            Node::Inner(children) => children.iter().for_each(|child| read(child.id, nodes, out)),
        }
    }

    fn file(text: &str) -> Entry {
        Entry::File { executable: false, size: text.len() as u64, id: BlobId::of(text.as_bytes()) }
    }

    /// The encoding is a promise: these digests must never change.
    #[test]
    fn a_small_directory_has_its_golden_id() {
        let (inner, sized, _) = build(&[(b"x.csv".to_vec(), file("1,2\n"))].into());
        let entries = BTreeMap::from([
            (b"a.txt".to_vec(), file("hello\n")),
            (b"data".to_vec(), Entry::Directory { sized, id: inner }),
            (b"link".to_vec(), Entry::Symlink { target: b"a.txt".to_vec() }),
            (b"run.sh".to_vec(), Entry::File { executable: true, size: 3, id: BlobId::of(b"ls\n") }),
            (b"vendor".to_vec(), Entry::Submodule { commit: vec![7; 20] }),
            (vec![0xff, 0xfe], file("")),
        ]);
        let (id, sized, _) = build(&entries);
        assert_eq!(sized, Sized { files: 5, bytes: 13 });
        assert_eq!(id.to_string(), "c07dcabad038f6f54068accab6e871b822aa3ba812a3b92e8dc87a1d11c52f2b");
        assert_eq!(empty_tree_id().to_string(), "11c46ed7d369f33a4442da710a39756785f948e15f475fba4244e443c31a5265");
    }

    #[test]
    fn a_large_directory_is_split_and_one_edit_touches_one_node_a_level() {
        let mut entries: BTreeMap<Vec<u8>, Entry> =
            (0..20_000).map(|n| (format!("image-{n:06}.png").into_bytes(), file(&n.to_string()))).collect();
        let (before, _, old) = build(&entries);
        assert!((10..40).contains(&old.len()), "{} nodes", old.len());
        assert_eq!(before.to_string(), "abffec05be7d4d7132deb05fff2ebdb55eecc3778b6ed23a0412beca67e074f2");
        entries.insert(b"image-010000.png".to_vec(), file("edited"));
        let (after, _, new) = build(&entries);
        assert_ne!(before, after);
        assert_eq!(new.keys().filter(|id| !old.contains_key(id)).count(), 2);
    }

    #[test]
    fn an_adversary_cannot_make_a_node_grow_without_bound() {
        let entries: BTreeMap<Vec<u8>, Entry> = (0..60_000_u32)
            .map(|n| format!("{n}").into_bytes())
            .filter(|name| !name_ends_node(name, 0))
            .map(|name| (name, Entry::Symlink { target: vec![] }))
            .collect();
        let (id, sized, nodes) = build(&entries);
        assert_eq!(sized.files, entries.len() as u64);
        let mut back = BTreeMap::new();
        read(id, &nodes, &mut back);
        assert_eq!(back, entries);
    }

    fn any_entry() -> impl Strategy<Value = Entry> {
        prop_oneof![
            (any::<bool>(), any::<u32>(), any::<u8>()).prop_map(|(executable, size, seed)| Entry::File {
                executable,
                size: u64::from(size),
                id: BlobId::of(&[seed])
            }),
            proptest::collection::vec(any::<u8>(), 0..30).prop_map(|target| Entry::Symlink { target }),
            (any::<u32>(), any::<u8>()).prop_map(|(n, seed)| Entry::Directory {
                sized: Sized { files: u64::from(n), bytes: u64::from(n) },
                id: TreeId::of(&[seed])
            }),
            any::<bool>().prop_map(|long| Entry::Submodule { commit: vec![1; if long { 32 } else { 20 }] }),
        ]
    }

    fn any_name() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 1..12)
            .prop_filter("a name", |n| n != b"." && n != b".." && !n.contains(&b'/') && !n.contains(&0))
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(entries in proptest::collection::btree_map(any_name(), any_entry(), 0..60)) {
            let (id, _, nodes) = build(&entries);
            let mut back = BTreeMap::new();
            read(id, &nodes, &mut back);
            prop_assert_eq!(back, entries);
        }

        #[test]
        fn whatever_decodes_is_what_the_encoder_writes(
            entries in proptest::collection::btree_map(any_name(), any_entry(), 0..6),
            cut in any::<prop::sample::Index>(),
            flip in any::<(prop::sample::Index, u8)>(),
        ) {
            let (id, _, nodes) = build(&entries);
            let mut bytes = nodes[&id].clone();
            let at = flip.0.index(bytes.len());
            bytes[at] ^= flip.1;
            if let Ok(node) = Node::decode(&bytes) {
                prop_assert_eq!(node.encode(bytes[0]), bytes.clone());
            }
            bytes.truncate(cut.index(bytes.len()));
            prop_assert!(Node::decode(&bytes).is_err());
        }
    }
}
