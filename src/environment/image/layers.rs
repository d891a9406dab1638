//! Layers: each checked, unpacked and laid over those below, straight into the store.

use std::io::{self, Read};

use super::ahead::{self, Passed};
use super::digest::{Hashing, ImageDigest};
use super::manifest::{Descriptor, shortened};
use super::root::{Refusal, Root};
use super::tar::{Entry, EntryKind, Stream, Tar};
use super::{Blobs, ImageError, Progress, check, fetch_failed, put_tree};
use crate::object::{Kind, Sized, TreeId};
use crate::path::escape;
use crate::store::{Source, Store, StoreError};

/// Files up to this size are read as a whole.
const WHOLE_MAX_BYTES: u64 = 1 << 20;
/// What is behind the last entry of a layer is padding, of which there is little.
const BEHIND_MAX_BYTES: u64 = 1 << 30;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Notes of a file system of the past, which belong to nobody.
const NOTES: &[u8] = b".wh..wh.";

/// How large an image may become.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Its files together have no more bytes than this, all layers counted.
    pub unpacked_bytes: u64,
    /// Up to this many bytes a layer may unpack to whatever its size.
    pub free_bytes: u64,
    /// Beyond that, it unpacks to no more than so many times its size.
    pub ratio: u64,
}

impl Default for Limits {
    fn default() -> Self {
        // No compression makes real programs and data a thousand times smaller.
        Self { unpacked_bytes: 64 << 30, free_bytes: 1 << 30, ratio: 1000 }
    }
}

/// What all layers together are.
pub(super) struct Unpacked {
    pub(super) tree: TreeId,
    pub(super) sized: Sized,
    pub(super) new_bytes: u64,
}

/// Unpacks layers, the lowest first. `diff_ids` are their digests without compression.
pub(super) fn unpack(
    blobs: &dyn Blobs,
    layers: &[Descriptor],
    diff_ids: &[String],
    store: &dyn Store,
    limits: Limits,
    progress: Progress<'_>,
) -> Result<Unpacked, ImageError> {
    if layers.len() != diff_ids.len() {
        let why = format!("it has {} digests of layers, the manifest {}", diff_ids.len(), layers.len());
        return Err(ImageError::NotUnderstood { what: "the configuration".to_owned(), why });
    }
    let mut unpacking = Unpacking { store, limits, progress, root: Root::default(), total_bytes: 0, new_bytes: 0 };
    for (descriptor, diff_id) in layers.iter().zip(diff_ids) {
        unpacking.root.next_layer();
        unpacking.layer(blobs, descriptor, diff_id)?;
    }
    let mut new_bytes = unpacking.new_bytes;
    let (tree, sized) = unpacking.root.build(&mut |bytes| put_tree(store, bytes, &mut new_bytes))?;
    Ok(Unpacked { tree, sized, new_bytes })
}

struct Unpacking<'a> {
    store: &'a dyn Store,
    limits: Limits,
    progress: Progress<'a>,
    root: Root,
    /// The bytes of all files so far, also of those that were replaced.
    total_bytes: u64,
    new_bytes: u64,
}

/// What was learnt of a layer on the way, beside its files.
struct Layer<'a> {
    name: String,
    descriptor: &'a Descriptor,
    /// How many bytes it takes, as far as that is no mere claim.
    stored_bytes: u64,
    /// The bytes of its files so far.
    bytes: u64,
}

impl Unpacking<'_> {
    fn layer(&mut self, blobs: &dyn Blobs, descriptor: &Descriptor, diff_id: &str) -> Result<(), ImageError> {
        let name = shortened(&descriptor.digest);
        let what = format!("layer `{name}`");
        let blob = blobs.blob(descriptor)?;
        // A claim that it is huge would allow it to become huge.
        if let Some(bytes) = blob.bytes.filter(|bytes| *bytes != descriptor.size) {
            return Err(ImageError::Size { what, expected: descriptor.size, is_longer: bytes > descriptor.size });
        }
        let mut layer = Layer { name, descriptor, stored_bytes: blob.bytes.unwrap_or_default(), bytes: 0 };
        // One byte more than there should be, to see that there are more.
        let stored = Hashing::new(blob.reader.take(descriptor.size.saturating_add(1)));
        let (taken, Passed { stored, failure, unpacked }) =
            ahead::unpacked(stored, |bytes| self.entries(&mut layer, bytes));
        let is_told = matches!(taken, Err(ref error) if !matches!(error, ImageError::Layer { .. }));
        if let Some(source) = failure.filter(|_| !is_told) {
            return Err(fetch_failed(&what, source));
        }
        if is_told {
            return taken;
        }
        // What is not what it should be is the reason why it cannot be unpacked, if it is so.
        let stored = self.check_stored(&what, descriptor, stored)?;
        taken?;
        let actual = unpacked.unwrap_or(stored);
        if actual.to_string() != diff_id {
            let what = format!("{what}, unpacked,");
            return Err(ImageError::Mismatch { what, expected: diff_id.to_owned(), actual });
        }
        Ok(())
    }

    /// Checks the bytes of a layer as they came, of which not all need have been read; returns their digest.
    fn check_stored<R: Read>(
        &self,
        what: &str,
        descriptor: &Descriptor,
        stored: Hashing<R>,
    ) -> Result<ImageDigest, ImageError> {
        let finished = stored.finish(descriptor.size).map_err(|source| fetch_failed(what, source))?;
        match finished {
            Some((digest, bytes)) => check(what, descriptor, digest, bytes).map(|()| digest),
            None => Err(ImageError::Size { what: what.to_owned(), expected: descriptor.size, is_longer: true }),
        }
    }

    /// Takes in all entries of a layer, and reads its bytes to the end.
    fn entries(&mut self, layer: &mut Layer<'_>, unpacked: &mut (dyn Read + Send)) -> Result<(), ImageError> {
        let mut tar = Tar::new(Stream(&mut *unpacked));
        loop {
            let next = tar.next();
            let entry = next.map_err(|source| damaged(&layer.name, tar.last_name(), source))?;
            let Some(entry) = entry else { break };
            self.entry(layer, &entry, &mut tar)?;
        }
        let last = tar.last_name().to_vec();
        drop(tar);
        let behind = io::copy(&mut Read::take(&mut *unpacked, BEHIND_MAX_BYTES), &mut io::sink());
        let behind = behind.map_err(|source| damaged(&layer.name, &last, source))?;
        if behind == BEHIND_MAX_BYTES {
            return Err(refused(layer, &last, self.bomb(layer, behind)));
        }
        Ok(())
    }

    fn entry(&mut self, layer: &mut Layer<'_>, entry: &Entry, tar: &mut (impl Read + Send)) -> Result<(), ImageError> {
        let result = match entry.kind {
            EntryKind::Device => Err(Refusal::Device),
            EntryKind::Pipe => Err(Refusal::Pipe),
            _ => Ok(()),
        };
        result.map_err(|refusal| refused(layer, &entry.path, refusal))?;
        let path = entry.path.strip_suffix(b"/").unwrap_or(&entry.path);
        let cut = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let (above, name) = path.split_at(cut);
        let placed = if name == OPAQUE {
            self.root.empty(above)
        } else if name.starts_with(NOTES) {
            Ok(())
        } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            match hidden {
                b"" | b"." | b".." => Err(Refusal::Name),
                _ => self.root.remove(&[above, hidden].concat()),
            }
        } else {
            match entry.kind {
                EntryKind::Directory => self.root.directory(path),
                EntryKind::Symlink => self.root.symlink(path, &entry.target),
                EntryKind::HardLink => self.root.hard_link(path, &entry.target),
                _ => return self.file(layer, entry, tar),
            }
        };
        placed.map_err(|refusal| refused(layer, &entry.path, refusal))
    }

    fn file(&mut self, layer: &mut Layer<'_>, entry: &Entry, tar: &mut (impl Read + Send)) -> Result<(), ImageError> {
        // Before a byte of it is read: a hole costs nothing there and as much as any file here.
        self.total_bytes = self.total_bytes.saturating_add(entry.size);
        layer.bytes = layer.bytes.saturating_add(entry.size);
        let limit_bytes = self.limits.unpacked_bytes;
        let allowed = layer.stored_bytes.saturating_mul(self.limits.ratio).max(self.limits.free_bytes);
        if layer.bytes > allowed {
            return Err(refused(layer, &entry.path, self.bomb(layer, layer.bytes)));
        }
        if self.total_bytes > limit_bytes {
            return Err(refused(layer, &entry.path, Refusal::TooLarge { limit_bytes }));
        }
        let put = if entry.size <= WHOLE_MAX_BYTES {
            let mut bytes = Vec::with_capacity(usize::try_from(entry.size).unwrap_or_default());
            tar.read_to_end(&mut bytes).map_err(|source| damaged(&layer.name, &entry.path, source))?;
            self.store.put(Kind::Blob, Source::Bytes(&bytes))?
        } else {
            self.store.put_stream(tar).map_err(|error| match error {
                StoreError::Stream { source } => damaged(&layer.name, &entry.path, source),
                error => error.into(),
            })?
        };
        self.new_bytes += if put.new { put.size } else { 0 };
        // Who may execute it is told by the owner's bit; all others lose theirs, and setuid with them.
        let placed = self.root.file(&entry.path, entry.mode & 0o100 != 0, put.size, put.digest.into());
        placed.map_err(|refusal| refused(layer, &entry.path, refusal))?;
        (self.progress)(1, put.size);
        Ok(())
    }

    fn bomb(&self, layer: &Layer<'_>, unpacked_bytes: u64) -> Refusal {
        Refusal::Bomb { layer_bytes: layer.descriptor.size, unpacked_bytes }
    }
}

fn refused(layer: &Layer<'_>, entry: &[u8], refusal: Refusal) -> ImageError {
    ImageError::Refused { layer: layer.name.clone(), entry: told(entry), refusal }
}

fn damaged(layer: &str, entry: &[u8], source: io::Error) -> ImageError {
    ImageError::Layer { layer: layer.to_owned(), entry: told(entry), source }
}

/// Returns a name for people, which may be as long as a whole header.
fn told(entry: &[u8]) -> String {
    const TOLD_MAX_CHARS: usize = 200;
    let text = escape(entry);
    if text.chars().count() <= TOLD_MAX_CHARS {
        return text.into_owned();
    }
    text.chars().take(TOLD_MAX_CHARS).chain(['…']).collect()
}
