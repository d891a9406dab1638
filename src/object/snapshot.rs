//! The snapshot: what determines a pipeline's results, and nothing else.
//!
//! Time, host, user, message and Git commit are not in it; they are records
//! that point at it. So the same content has the same id everywhere.

use super::tree::Sized;
use super::{BlobId, DecodeError, DefinitionId, EnvironmentId, Id, ParamsId, Reader, SnapshotId, TreeId};
use crate::hash::Digest;
use crate::path::ProjectPath;

/// The largest seed: every consumer of seeds takes 63 bits.
pub const SEED_MAX: u64 = i64::MAX as u64;

/// Pipeline, files, data, params, seed and environment, each by its id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// The normalised definition.
    pub definition: DefinitionId,
    /// The files that Git tracks and the untracked ones that are not ignored,
    /// without step outputs, data roots and data pointers.
    pub tree: TreeId,
    /// The declared data roots, sorted by path.
    pub data: Vec<(ProjectPath, DataRoot)>,
    /// The values of all params.
    pub params: ParamsId,
    /// The pipeline's seed, at most [`SEED_MAX`].
    pub seed: Option<u64>,
    /// The pinned identity of the environment.
    pub environment: EnvironmentId,
}

/// A declared data root: one file, or a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataRoot {
    /// A single file.
    File {
        /// Whether its owner may execute it.
        executable: bool,
        /// Length in bytes.
        size: u64,
        /// Its bytes.
        id: BlobId,
    },
    /// A directory.
    Directory {
        /// What lies below.
        sized: Sized,
        /// Its root node.
        id: TreeId,
    },
}

impl DataRoot {
    /// Returns the digest of the file or directory.
    pub const fn digest(&self) -> Digest {
        match self {
            Self::File { id, .. } => id.digest(),
            Self::Directory { id, .. } => id.digest(),
        }
    }

    /// Returns how many files and bytes are in it.
    pub const fn sized(&self) -> Sized {
        match self {
            Self::File { size, .. } => Sized { files: 1, bytes: *size },
            Self::Directory { sized, .. } => *sized,
        }
    }
}

impl Snapshot {
    /// Returns the id and the canonical bytes.
    pub fn encode(&self) -> (SnapshotId, Vec<u8>) {
        let mut out = Vec::new();
        out.extend_from_slice(self.definition.digest().as_bytes());
        out.extend_from_slice(self.tree.digest().as_bytes());
        let count = u32::try_from(self.data.len()).expect("a definition of 4 MiB names fewer than 2^32 roots");
        out.extend_from_slice(&count.to_le_bytes());
        for (path, root) in &self.data {
            let (tag, sized, digest) = match root {
                DataRoot::File { executable: false, .. } => (1, root.sized(), root.digest()),
                DataRoot::File { executable: true, .. } => (2, root.sized(), root.digest()),
                DataRoot::Directory { .. } => (4, root.sized(), root.digest()),
            };
            out.push(tag);
            let length = u16::try_from(path.as_bytes().len()).expect("paths are shorter than 64 KiB on every system");
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(path.as_bytes());
            out.extend_from_slice(&sized.files.to_le_bytes());
            out.extend_from_slice(&sized.bytes.to_le_bytes());
            out.extend_from_slice(digest.as_bytes());
        }
        out.extend_from_slice(self.params.digest().as_bytes());
        out.push(u8::from(self.seed.is_some()));
        out.extend_from_slice(&self.seed.unwrap_or_default().to_le_bytes());
        out.extend_from_slice(self.environment.digest().as_bytes());
        (SnapshotId::of(&out), out)
    }

    /// Returns the snapshot with these bytes.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for anything that [`Snapshot::encode`] does not write.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader(bytes);
        let definition = reader.id()?;
        let tree = reader.id()?;
        let mut data: Vec<(ProjectPath, DataRoot)> = Vec::new();
        for _ in 0..reader.u32()? {
            let (path, root) = decode_root(&mut reader)?;
            if data.last().is_some_and(|(last, _)| *last >= path) {
                return Err(DecodeError::NotCanonical("data roots are not in order"));
            }
            data.push((path, root));
        }
        let params = reader.id()?;
        let seed = match (reader.u8()?, reader.u64()?) {
            (0, 0) => None,
            (1, seed) if seed <= SEED_MAX => Some(seed),
            _ => return Err(DecodeError::NotCanonical("a seed is out of range")),
        };
        let environment = reader.id()?;
        reader.end()?;
        Ok(Self { definition, tree, data, params, seed, environment })
    }
}

fn decode_root(reader: &mut Reader<'_>) -> Result<(ProjectPath, DataRoot), DecodeError> {
    let tag = reader.u8()?;
    let bytes = reader.text16()?;
    let path = ProjectPath::new(bytes)
        .ok()
        .filter(|path| path.as_bytes() == bytes)
        .ok_or(DecodeError::NotCanonical("a data root has no proper path"))?;
    let sized = Sized { files: reader.u64()?, bytes: reader.u64()? };
    let digest: Digest = reader.id::<()>()?.digest();
    let root = match tag {
        1 | 2 if sized.files == 1 => DataRoot::File { executable: tag == 2, size: sized.bytes, id: Id::from(digest) },
        4 => DataRoot::Directory { sized, id: Id::from(digest) },
        _ => return Err(DecodeError::NotCanonical("unknown kind of data root")),
    };
    Ok((path, root))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn example(seed: Option<u64>) -> Snapshot {
        let path = |text: &str| ProjectPath::new(text).unwrap();
        Snapshot {
            definition: DefinitionId::of(b"{}"),
            tree: super::super::empty_tree_id(),
            data: vec![
                (path("data/one.csv"), DataRoot::File { executable: false, size: 3, id: BlobId::of(b"1,2") }),
                (path("data/raw"), DataRoot::Directory { sized: Sized { files: 2, bytes: 9 }, id: TreeId::of(b"x") }),
            ],
            params: ParamsId::of(b"{}"),
            seed,
            environment: EnvironmentId::of(b"\"host\""),
        }
    }

    /// The encoding is a promise: these digests must never change.
    #[test]
    fn a_snapshot_has_its_golden_id() {
        let ids = [Some(42), None].map(|seed| example(seed).encode().0.to_string());
        assert_eq!(
            ids,
            [
                "890ec5d797845f264322f103b182aa1f50be031284bba54097c65c016f1ee48c",
                "789ae73af8f449619fd1e687e2ac14e4526fc26d11051fd4fed97ea44b19583e",
            ]
        );
    }

    proptest! {
        #[test]
        fn whatever_decodes_is_what_the_encoder_writes(
            seed in proptest::option::of(0..=SEED_MAX),
            flip in any::<(prop::sample::Index, u8)>(),
        ) {
            let (_, mut bytes) = example(seed).encode();
            prop_assert_eq!(Snapshot::decode(&bytes).unwrap(), example(seed));
            prop_assert!(Snapshot::decode(&bytes[..bytes.len() - 1]).is_err());
            let at = flip.0.index(bytes.len());
            bytes[at] ^= flip.1;
            if let Ok(snapshot) = Snapshot::decode(&bytes) {
                prop_assert_eq!(snapshot.encode().1, bytes);
            }
        }
    }
}
