//! What is stored: typed ids, canonical encodings, trees and snapshots.
//!
//! Everything here is a pure function of content. Each kind of object hashes
//! under its own frozen context string, and each has exactly one encoding: a
//! decoder accepts nothing that its encoder would not write. The bytes are
//! described in `docs/format.md`; they never change, new kinds are added.

mod canonical;
mod pin;
mod snapshot;
mod tree;

#[doc(hidden)]
pub mod fuzz {
    //! What a fuzzer may throw bytes at. Each panics if a law is broken.

    use super::{Node, Snapshot};

    /// Bytes that are a node are the bytes of that node.
    pub fn tree(bytes: &[u8]) {
        if let Ok(node) = Node::decode(bytes) {
            assert_eq!(node.encode(bytes[0]), bytes);
        }
    }

    /// Bytes that are a snapshot are the bytes of that snapshot.
    pub fn snapshot(bytes: &[u8]) {
        if let Ok(snapshot) = Snapshot::decode(bytes) {
            assert_eq!(snapshot.encode().1, bytes);
        }
    }
}

use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::hash::{Digest, Hasher, NotADigest};

pub use canonical::{NotCanonical, canonical, canonical_value, from_canonical};
pub use pin::{Pin, PinConfig, encode_environment, is_image_digest, pins_of_environment};
pub use snapshot::{DataRoot, SEED_MAX, Snapshot};
pub use tree::{Child, Entry, Node, Sized, TreeBuilder, empty_tree_id, name_ends_node};

/// The kinds of object that a store keeps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// The bytes of a file or of a log; named by their plain BLAKE3.
    Blob,
    /// One node of a directory.
    Tree,
    /// The normalised definition of a pipeline, canonical JSON.
    Definition,
    /// The values of all params, canonical JSON.
    Params,
    /// The pinned identity of an environment, canonical JSON.
    Environment,
    /// A snapshot.
    Snapshot,
}

impl Kind {
    /// Every kind, in the order of the enum.
    pub const ALL: [Self; 6] =
        [Self::Blob, Self::Tree, Self::Definition, Self::Params, Self::Environment, Self::Snapshot];

    /// Returns the frozen context string, or `None` for blobs, whose id is the plain hash.
    pub const fn context(self) -> Option<&'static str> {
        match self {
            Self::Blob => None,
            Self::Tree => Some("pv tree v1"),
            Self::Definition => Some("pv definition v1"),
            Self::Params => Some("pv params v1"),
            Self::Environment => Some("pv environment v1"),
            Self::Snapshot => Some("pv snapshot v1"),
        }
    }

    /// Returns the word for people, and the directory of the store.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Tree => "tree",
            Self::Definition => "definition",
            Self::Params => "params",
            Self::Environment => "environment",
            Self::Snapshot => "snapshot",
        }
    }

    /// Returns the digest that names an object of this kind with these bytes.
    pub fn digest(self, bytes: &[u8]) -> Digest {
        match self.context() {
            None => Digest::of(bytes),
            Some(context) => Digest::derived(context, bytes),
        }
    }

    /// Returns a hasher that ends in the same digest as [`Kind::digest`], for bytes that come in pieces.
    pub fn hasher(self) -> Hasher {
        self.context().map_or_else(Hasher::default, Hasher::derived)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an [`Id`] names: a type that stands for one context string.
pub trait Named {
    /// The frozen context string; `None` names by the plain hash.
    const CONTEXT: Option<&'static str>;
}

/// The digest of one kind of thing. Ids of two kinds cannot be mixed up.
pub struct Id<T>(Digest, PhantomData<fn() -> T>);

impl<T: Named> Id<T> {
    /// Returns the id of the thing whose canonical bytes these are.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from(match T::CONTEXT {
            None => Digest::of(bytes),
            Some(context) => Digest::derived(context, bytes),
        })
    }
}

impl<T> Id<T> {
    /// Returns the bare digest.
    pub const fn digest(&self) -> Digest {
        self.0
    }

    /// Returns the first 12 hex digits, for people.
    pub fn short(&self) -> String {
        self.0.short()
    }
}

impl<T> From<Digest> for Id<T> {
    fn from(digest: Digest) -> Self {
        Self(digest, PhantomData)
    }
}

impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Id<T> {}
impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<T> Eq for Id<T> {}
impl<T> PartialOrd for Id<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Id<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}
impl<T> Hash for Id<T> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
impl<T> fmt::Display for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl<T> fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
impl<T> FromStr for Id<T> {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        Ok(Self::from(text.parse::<Digest>()?))
    }
}
impl<T> Serialize for Id<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}
impl<'de, T> Deserialize<'de> for Id<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Digest::deserialize(deserializer).map(Self::from)
    }
}

/// Marks of what an [`Id`] can name.
pub mod mark {
    use super::{Kind, Named};

    /// The bytes of a file.
    pub enum Blob {}
    /// A directory.
    pub enum Tree {}
    /// A normalised definition.
    pub enum Definition {}
    /// The values of all params.
    pub enum Params {}
    /// A pinned environment.
    pub enum Environment {}
    /// A snapshot.
    pub enum Snapshot {}
    /// An immutable fact about the world.
    pub enum Record {}
    /// Everything that may influence a step.
    pub enum StepKey {}
    /// What a step is asked to do.
    pub enum TaskKey {}

    impl Named for Blob {
        const CONTEXT: Option<&'static str> = Kind::Blob.context();
    }
    impl Named for Tree {
        const CONTEXT: Option<&'static str> = Kind::Tree.context();
    }
    impl Named for Definition {
        const CONTEXT: Option<&'static str> = Kind::Definition.context();
    }
    impl Named for Params {
        const CONTEXT: Option<&'static str> = Kind::Params.context();
    }
    impl Named for Environment {
        const CONTEXT: Option<&'static str> = Kind::Environment.context();
    }
    impl Named for Snapshot {
        const CONTEXT: Option<&'static str> = Kind::Snapshot.context();
    }
    impl Named for Record {
        const CONTEXT: Option<&'static str> = Some("pv record v1");
    }
    impl Named for StepKey {
        const CONTEXT: Option<&'static str> = Some("pv step-key v1");
    }
    impl Named for TaskKey {
        const CONTEXT: Option<&'static str> = Some("pv task v1");
    }
}

/// The id of a file's bytes; the same as `b3sum` prints.
pub type BlobId = Id<mark::Blob>;
/// The id of a directory.
pub type TreeId = Id<mark::Tree>;
/// The id of a normalised definition.
pub type DefinitionId = Id<mark::Definition>;
/// The id of the values of all params.
pub type ParamsId = Id<mark::Params>;
/// The id of a pinned environment.
pub type EnvironmentId = Id<mark::Environment>;
/// The id of a snapshot.
pub type SnapshotId = Id<mark::Snapshot>;
/// The id of a record. A run is named by the id of its record.
pub type RecordId = Id<mark::Record>;
/// The digest of everything that may influence a step.
pub type StepKey = Id<mark::StepKey>;
/// The digest of what a step is asked to do, whatever it finds when it does it.
pub type TaskKey = Id<mark::TaskKey>;

/// Bytes that are no object of the kind that they should be.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes end inside a value.
    #[error("the object ends too early")]
    Short,
    /// Bytes follow after the last value.
    #[error("the object has bytes after its end")]
    Long,
    /// A value that no encoder writes.
    #[error("the object is not canonical: {0}")]
    NotCanonical(&'static str),
}

/// Reads fixed-width little-endian values and length-prefixed bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        Ok(self.take(N)?.try_into().expect("`take` returned N bytes"))
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn id<T>(&mut self) -> Result<Id<T>, DecodeError> {
        Ok(Id::from(Digest::from_bytes(self.array()?)))
    }

    /// Bytes after a 16-bit length.
    fn text16(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    fn end(&self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Long) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_kinds_share_a_name_for_the_same_bytes() {
        let ids: std::collections::BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.digest(b"same")).collect();
        assert_eq!(ids.len(), Kind::ALL.len());
    }

    #[test]
    fn the_hasher_of_a_kind_ends_in_the_digest_of_the_kind() {
        for kind in Kind::ALL {
            let mut hasher = kind.hasher();
            hasher.update(b"same");
            assert_eq!(hasher.finish().0, kind.digest(b"same"), "{kind}");
        }
    }

    #[test]
    fn an_id_and_the_digest_of_its_kind_agree() {
        assert_eq!(BlobId::of(b"x").digest(), Kind::Blob.digest(b"x"));
        assert_eq!(TreeId::of(b"x").digest(), Kind::Tree.digest(b"x"));
        assert_eq!(SnapshotId::of(b"x").digest(), Kind::Snapshot.digest(b"x"));
    }

    /// The context strings are a promise: these digests must never change.
    #[test]
    fn the_contexts_are_frozen() {
        let shorts = Kind::ALL.map(|kind| kind.digest(b"pv").short());
        assert_eq!(
            shorts,
            ["ab27d17e542d", "9ddd67633953", "937ff10ff904", "fbca0a606e89", "aa8f03340dda", "b7909ce7b1e8"]
        );
        assert_eq!(RecordId::of(b"pv").short(), "bba3a4782367");
        assert_eq!(StepKey::of(b"pv").short(), "448cb582014a");
        assert_eq!(TaskKey::of(b"pv").short(), "9f357d75f2a6");
    }
}
