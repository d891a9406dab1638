//! Images: from a reference to a tree in the store, and back to a file that others can load.
//!
//! Everything that comes from elsewhere is checked against the digest by which
//! it was named, and nothing is written but objects of the store: the files of
//! the layers go there as they stream by. What an image can do wrong is a [`Refusal`].

mod ahead;
mod digest;
mod export;
mod files;
mod layers;
mod manifest;
mod reference;
mod root;
mod tar;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::disk::DiskError;
use crate::object::{Pin, TreeId};
use crate::store::{Store, StoreError};

pub use digest::{ImageDigest, NotAnImageDigest};
pub use export::{Exported, export};
pub use files::open_files;
pub use layers::Limits;
pub use manifest::{Descriptor, MANIFEST_TYPES};
pub use reference::{NotAReference, Reference, Repository};
pub use root::Refusal;

use manifest::{CONFIG_MAX_BYTES, Config, Told};

/// Indexes in indexes are not followed deeper than this.
const INDEXES_MAX: u32 = 4;

/// Where the parts of one image come from.
pub trait Blobs {
    /// Returns what the image is called in a definition, without tag and digest.
    fn name(&self) -> String;

    /// Returns the manifest or index with this digest, or the one that the reference means.
    ///
    /// It is not checked yet, and no longer than 4 MiB.
    ///
    /// # Errors
    ///
    /// [`ImageError`] if it is not there or cannot be read.
    fn manifest(&self, digest: Option<&ImageDigest>) -> Result<Vec<u8>, ImageError>;

    /// Returns the bytes of a configuration or layer, not checked yet.
    ///
    /// # Errors
    ///
    /// As [`Blobs::manifest`].
    fn blob(&self, descriptor: &Descriptor) -> Result<Blob<'_>, ImageError>;
}

/// The bytes of a configuration or layer.
pub struct Blob<'a> {
    /// Yields them.
    pub reader: Box<dyn Read + Send + 'a>,
    /// How many there are by what whoever has them says, not by what the manifest says.
    pub bytes: Option<u64>,
}

/// Why an image could not be fetched: what whoever asks for it can do about it depends on that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// It is not there.
    Missing,
    /// The other side wants to know who asks, or does not like the answer.
    Refused,
    /// The other side cannot be reached.
    Unreachable,
    /// Anything else.
    Other,
}

/// Why an image cannot be taken in or given out.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It could not be fetched.
    #[error("cannot fetch {what}")]
    Fetch {
        /// What was asked for.
        what: String,
        /// What kind of trouble it is.
        trouble: Trouble,
        /// What the other side or the system said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What is there is no image.
    #[error("`{}` holds no image: {why}", path.display())]
    NoImage {
        /// The file or directory.
        path: PathBuf,
        /// What it lacks.
        why: &'static str,
    },
    /// There are several images, and none was named.
    #[error("`{}` holds several images: {}", path.display(), names.join(", "))]
    Several {
        /// The file or directory.
        path: PathBuf,
        /// What they are called.
        names: Vec<String>,
    },
    /// A part of an image is not what it should be.
    #[error("{what} cannot be understood: {why}")]
    NotUnderstood {
        /// The part.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// It is for other machines.
    #[error("there is no image for {wanted}{}", of_platforms(found))]
    NoPlatform {
        /// What this machine is.
        wanted: String,
        /// For which it is.
        found: Vec<String>,
    },
    /// The bytes of a part are not those that its digest names.
    #[error("{what} has the digest `{actual}`, not `{expected}`")]
    Mismatch {
        /// The part.
        what: String,
        /// The digest by which it was named.
        expected: String,
        /// That of its bytes.
        actual: ImageDigest,
    },
    /// A part has another length than it should have.
    #[error("{what} is {} than the {expected} bytes that were declared", if *is_longer { "longer" } else { "shorter" })]
    Size {
        /// The part.
        what: String,
        /// Its declared length in bytes.
        expected: u64,
        /// Whether there is more of it.
        is_longer: bool,
    },
    /// A layer holds what no image may hold.
    #[error("entry `{entry}` of layer `{layer}` is refused: {refusal}")]
    Refused {
        /// The layer, by the first digits of its digest.
        layer: String,
        /// The entry, as it is called there.
        entry: String,
        /// Why.
        refusal: Refusal,
    },
    /// A layer is no tar file, or a damaged one.
    #[error("layer `{layer}` cannot be unpacked{}", behind(entry))]
    Layer {
        /// The layer, by the first digits of its digest.
        layer: String,
        /// The last entry that was understood; empty if there was none.
        entry: String,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
    /// A file of the image cannot be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn of_platforms(found: &[String]) -> String {
    if found.is_empty() { String::new() } else { format!(", only for {}", found.join(", ")) }
}

fn behind(entry: &str) -> String {
    if entry.is_empty() { String::new() } else { format!(", at or behind entry `{entry}`") }
}

/// An image that was taken in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TakenIn {
    /// What it is now.
    pub pin: Pin,
    /// How many layers it has.
    pub layers: u64,
    /// Bytes that the store did not have before.
    pub new_bytes: u64,
}

/// Told of files and bytes as they are done.
pub type Progress<'a> = &'a dyn Fn(u64, u64);

/// Unpacks an image into `store`; call its `sync` before relying on it. `wanted` is the digest that is asked for, if any is.
///
/// Of an index, the image for this machine is taken; the pin has the digest of that. Every part is checked against
/// its digest and size before anything is returned. The same image leads to the same tree everywhere.
///
/// Costs a read of all layers, and memory for the names in them and for one file of up to a MiB.
///
/// # Errors
///
/// [`ImageError`] if something of it cannot be read, is not what it should be, or is refused. What was put into the store is then
/// not synced.
pub fn take_in(
    blobs: &dyn Blobs,
    wanted: Option<&ImageDigest>,
    store: &dyn Store,
    limits: Limits,
    progress: Progress<'_>,
) -> Result<TakenIn, ImageError> {
    let (digest, manifest) = find_manifest(blobs, wanted)?;
    let config = Config::read(&read_small(blobs, &manifest.config, "the configuration", CONFIG_MAX_BYTES)?)?;
    let unpacked = layers::unpack(blobs, &manifest.layers, &config.rootfs.diff_ids, store, limits, progress)?;
    let pin = Pin {
        image: digest.to_string(),
        tree: unpacked.tree,
        config: config.to_pin(),
        files: unpacked.sized.files,
        bytes: unpacked.sized.bytes,
    };
    Ok(TakenIn { pin, layers: manifest.layers.len() as u64, new_bytes: unpacked.new_bytes })
}

fn find_manifest(
    blobs: &dyn Blobs,
    wanted: Option<&ImageDigest>,
) -> Result<(ImageDigest, manifest::Manifest), ImageError> {
    let mut wanted = wanted.copied();
    let mut size = None;
    for _ in 0..=INDEXES_MAX {
        let bytes = blobs.manifest(wanted.as_ref())?;
        let actual = ImageDigest::of(&bytes);
        let what = || "the manifest".to_owned();
        if let Some(expected) = wanted.filter(|expected| *expected != actual) {
            return Err(ImageError::Mismatch { what: what(), expected: expected.to_string(), actual });
        }
        if let Some(expected) = size.filter(|size| *size != bytes.len() as u64) {
            let is_longer = bytes.len() as u64 > expected;
            return Err(ImageError::Size { what: what(), expected, is_longer });
        }
        match manifest::read(&bytes)? {
            Told::Manifest(manifest) => return Ok((actual, manifest)),
            Told::Index(manifests) => {
                let chosen = manifest::choose(&manifests)?;
                (wanted, size) = (Some(chosen.digest()?), Some(chosen.size));
            }
        }
    }
    Err(ImageError::NotUnderstood { what: "the manifest".to_owned(), why: "its indexes lead nowhere".to_owned() })
}

/// Returns all bytes of a small part, checked.
fn read_small(blobs: &dyn Blobs, descriptor: &Descriptor, what: &str, most: u64) -> Result<Vec<u8>, ImageError> {
    let expected = descriptor.size;
    if expected > most {
        let why = format!("it has {expected} bytes, more than {most}");
        return Err(ImageError::NotUnderstood { what: what.to_owned(), why });
    }
    let mut bytes = Vec::new();
    let mut reader = blobs.blob(descriptor)?.reader.take(expected + 1);
    reader.read_to_end(&mut bytes).map_err(|source| fetch_failed(what, source))?;
    check(what, descriptor, ImageDigest::of(&bytes), bytes.len() as u64)?;
    Ok(bytes)
}

/// Checks what was read of a part against what was declared.
fn check(what: &str, descriptor: &Descriptor, actual: ImageDigest, bytes: u64) -> Result<(), ImageError> {
    let (what, expected) = (what.to_owned(), descriptor.digest()?);
    if bytes != descriptor.size {
        return Err(ImageError::Size { what, expected: descriptor.size, is_longer: bytes > descriptor.size });
    }
    if actual != expected {
        return Err(ImageError::Mismatch { what, expected: expected.to_string(), actual });
    }
    Ok(())
}

/// Returns the error of a part that broke off while it was read.
fn fetch_failed(what: &str, source: io::Error) -> ImageError {
    match source.downcast::<ImageError>() {
        Ok(error) => error,
        Err(source) => {
            ImageError::Fetch { what: what.to_owned(), trouble: Trouble::Unreachable, source: Box::new(source) }
        }
    }
}

/// Returns the error of a file that cannot be read.
fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> ImageError + '_ {
    move |source| DiskError::on("read", path)(source).into()
}

fn put_tree(store: &dyn Store, bytes: &[u8], new_bytes: &mut u64) -> Result<TreeId, StoreError> {
    let put = store.put_bytes(crate::object::Kind::Tree, bytes)?;
    *new_bytes += if put.new { put.size } else { 0 };
    Ok(put.digest.into())
}
