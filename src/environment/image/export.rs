//! An image out of a tree: an archive of one layer that podman and docker load.
//!
//! The same tree and configuration make the same bytes: nothing in them is of a time, a user or a machine.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::digest::{HashingWriter, ImageDigest};
use super::manifest::{CONFIG_TYPE, Descriptor, LAYER_TYPE, MANIFEST_TYPE, Manifest, NAME_LABEL, Platform};
use super::{ImageError, unreadable};
use crate::disk;
use crate::object::{Entry, Kind, Node, Pin, TreeId, canonical, canonical_value};
use crate::store::{Store, StoreError};

const BLOCK_BYTES: u64 = 512;
const BLOCK: usize = 512;
const NAME_BYTES: usize = 100;
/// The largest size that eleven octal digits hold.
const OCTAL_MAX: u64 = 0o777_7777_7777;
const EPOCH: &str = "1970-01-01T00:00:00Z";

/// An archive that was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exported {
    /// The digest of the image in it, which is another than that of the image from which the tree came.
    pub image: ImageDigest,
    /// What it is called in the archive.
    pub name: String,
    /// The length of the archive in bytes.
    pub bytes: u64,
}

/// Writes the image that `pin` describes to `to`, under this name; `to` appears whole or not at all.
///
/// Costs a read of all its files, and one write.
///
/// # Errors
///
/// [`ImageError::Store`] if a file of it is missing or damaged, [`ImageError::Disk`] if `to` cannot be written.
pub fn export(store: &dyn Store, pin: &Pin, name: &str, to: &Path) -> Result<Exported, ImageError> {
    let tag = pin.image.trim_start_matches("sha256:").get(..12).unwrap_or("latest");
    let tagged = format!("{name}:{tag}");
    let mut exported = None;
    disk::write_out(to, false, |file| -> Result<(), ImageError> {
        let failed = |error| failed(to, error);
        let mut archive = BufWriter::with_capacity(1 << 20, &mut *file);
        // The layer comes first, before it is known what it is called.
        archive.write_all(&[0; BLOCK]).map_err(failed)?;
        let mut layer = HashingWriter::new(&mut archive);
        write_tree(store, pin.tree, b"", &mut layer).map_err(failed)?;
        layer.write_all(&[0; 2 * BLOCK]).map_err(failed)?;
        let (layer_digest, layer_bytes) = layer.finish();
        let config = config(pin, &layer_digest);
        let (config_digest, config_bytes) = (ImageDigest::of(&config), config.len() as u64);
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST_TYPE.to_owned(),
            config: Descriptor::of(CONFIG_TYPE, config_digest, config_bytes),
            layers: vec![Descriptor::of(LAYER_TYPE, layer_digest, layer_bytes)],
        };
        let manifest = canonical(&manifest).expect("a manifest has text keys only");
        let image = ImageDigest::of(&manifest);
        let mut listed = Descriptor::of(MANIFEST_TYPE, image, manifest.len() as u64);
        listed.annotations.insert(NAME_LABEL.to_owned(), tagged.clone());
        let index = json!({"schemaVersion": 2, "manifests": [listed]});
        let place = |digest: &ImageDigest| format!("blobs/sha256/{}", digest.hex());
        let docker =
            json!([{"Config": place(&config_digest), "Layers": [place(&layer_digest)], "RepoTags": [&tagged]}]);
        let files = [
            (place(&config_digest), config),
            (place(&image), manifest),
            ("index.json".to_owned(), canonical_value(&index)),
            ("manifest.json".to_owned(), canonical_value(&docker)),
            ("oci-layout".to_owned(), canonical_value(&json!({"imageLayoutVersion": "1.0.0"}))),
        ];
        for (name, content) in &files {
            let member =
                Member { path: name.as_bytes(), kind: b'0', mode: 0o644, target: b"", size: content.len() as u64 };
            member.write(&mut archive).map_err(failed)?;
            write_padded(&mut content.as_slice(), &mut archive).map_err(failed)?;
        }
        archive.write_all(&[0; 2 * BLOCK]).map_err(failed)?;
        archive.flush().map_err(failed)?;
        drop(archive);
        let name = place(&layer_digest);
        let first = Member { path: name.as_bytes(), kind: b'0', mode: 0o644, target: b"", size: layer_bytes };
        finish(file, &first, to)?;
        let bytes = file.metadata().map_err(unreadable(to))?.len();
        exported = Some(Exported { image, name: tagged.clone(), bytes });
        Ok(())
    })?;
    Ok(exported.expect("it was written"))
}

/// Writes the header of the layer into the place that was left for it.
fn finish(file: &mut File, first: &Member<'_>, to: &Path) -> Result<(), ImageError> {
    file.seek(SeekFrom::Start(0)).and_then(|_| first.write(file)).map_err(|error| failed(to, error))
}

fn config(pin: &Pin, layer: &ImageDigest) -> Vec<u8> {
    let env: Vec<String> = pin.config.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut runs = serde_json::Map::from_iter([("Env".to_owned(), Value::from(env))]);
    for (key, value) in [("User", &pin.config.user), ("WorkingDir", &pin.config.workdir)] {
        if !value.is_empty() {
            runs.insert(key.to_owned(), Value::from(value.as_str()));
        }
    }
    let (os, architecture) = Platform::of_this_machine().into_parts();
    canonical_value(&json!({
        "architecture": architecture,
        "config": runs,
        "created": EPOCH,
        "history": [{"created": EPOCH, "created_by": "pv env export"}],
        "os": os,
        "rootfs": {"diff_ids": [layer.to_string()], "type": "layers"},
    }))
}

/// Writes everything below a directory, which lies at `above` in the archive.
fn write_tree(store: &dyn Store, tree: TreeId, above: &[u8], out: &mut impl Write) -> io::Result<()> {
    let bytes = store.get(Kind::Tree, tree.digest()).map_err(io::Error::other)?;
    let node = Node::decode(&bytes).map_err(io::Error::other)?;
    let entries = match node {
        Node::Inner(children) => {
            return children.iter().try_for_each(|child| write_tree(store, child.id, above, out));
        }
        Node::Leaf(entries) => entries,
    };
    for (name, entry) in entries {
        let path = if above.is_empty() { name } else { [above, b"/", &name].concat() };
        let member = |kind, mode, target, size| Member { path: &path, kind, mode, target, size };
        match entry {
            Entry::File { executable, size, id } => {
                member(b'0', if executable { 0o755 } else { 0o644 }, b"", size).write(out)?;
                let mut content = store.open(Kind::Blob, id.digest()).map_err(io::Error::other)?;
                let written = write_padded(&mut content, out)?;
                if written != size {
                    return Err(io::Error::other(format!("`{id}` has {written} bytes, not {size}")));
                }
            }
            Entry::Symlink { target } => member(b'2', 0o777, &target, 0).write(out)?,
            Entry::Directory { id, .. } => {
                let path = [&path[..], b"/"].concat();
                Member { path: &path, kind: b'5', mode: 0o755, target: b"", size: 0 }.write(out)?;
                write_tree(store, id, &path[..path.len() - 1], out)?;
            }
            // No image has one.
            Entry::Submodule { .. } => {}
        }
    }
    Ok(())
}

fn write_padded(content: &mut impl Read, out: &mut impl Write) -> io::Result<u64> {
    let written = io::copy(content, out)?;
    let padding = written.next_multiple_of(BLOCK_BYTES) - written;
    out.write_all(&[0; BLOCK][..usize::try_from(padding).expect("less than a block")])?;
    Ok(written)
}

/// An entry of a tar file.
struct Member<'a> {
    path: &'a [u8],
    kind: u8,
    mode: u32,
    target: &'a [u8],
    size: u64,
}

impl Member<'_> {
    /// Writes its header, and one before it for what does not fit.
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut records = Vec::new();
        if self.path.len() > NAME_BYTES {
            push_record(b"path", self.path, &mut records);
        }
        if self.target.len() > NAME_BYTES {
            push_record(b"linkpath", self.target, &mut records);
        }
        if !records.is_empty() {
            let size = records.len() as u64;
            out.write_all(&Member { path: b"pax", kind: b'x', mode: 0o644, target: b"", size }.block())?;
            write_padded(&mut records.as_slice(), out)?;
        }
        out.write_all(&self.block())
    }

    fn block(&self) -> [u8; BLOCK] {
        fn put(block: &mut [u8; BLOCK], at: usize, bytes: &[u8], most: usize) {
            let bytes = &bytes[..bytes.len().min(most)];
            block[at..at + bytes.len()].copy_from_slice(bytes);
        }
        let mut block = [0; BLOCK];
        put(&mut block, 0, self.path, NAME_BYTES);
        put(&mut block, 100, format!("{:07o}", self.mode).as_bytes(), 7);
        put(&mut block, 108, b"0000000", 7);
        put(&mut block, 116, b"0000000", 7);
        if self.size <= OCTAL_MAX {
            put(&mut block, 124, format!("{:011o}", self.size).as_bytes(), 11);
        } else {
            // In one block, whatever the size: that of the layer is filled in later.
            block[124] = 0x80;
            put(&mut block, 128, &self.size.to_be_bytes(), 8);
        }
        put(&mut block, 136, b"00000000000", 11);
        block[156] = self.kind;
        put(&mut block, 157, self.target, NAME_BYTES);
        put(&mut block, 257, b"ustar\x0000", 8);
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        put(&mut block, 148, format!("{sum:06o}\0 ").as_bytes(), 8);
        block
    }
}

/// Adds `length key=value` and a line end; the length counts itself.
fn push_record(key: &[u8], value: &[u8], out: &mut Vec<u8>) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.extend_from_slice(&[b" ", key, b"=", value, b"\n"].concat());
}

/// Returns what went wrong: an error of the store came through here as one of reading.
fn failed(to: &Path, error: io::Error) -> ImageError {
    match error.downcast::<StoreError>() {
        Ok(error) => error.into(),
        Err(error) => disk::DiskError::on("write", to)(error).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tar::{Stream, Tar};
    use super::*;

    #[test]
    fn what_is_written_is_read_again_however_long_the_names_are() {
        let (long, target) = ("n".repeat(300), "t".repeat(200));
        let mut out = Vec::new();
        let huge = OCTAL_MAX + 1;
        let members = [
            Member { path: long.as_bytes(), kind: b'2', mode: 0o777, target: target.as_bytes(), size: 0 },
            Member { path: b"short", kind: b'0', mode: 0o755, target: b"", size: huge },
        ];
        members.iter().for_each(|member| member.write(&mut out).unwrap());
        let mut tar = Tar::new(Stream(out.as_slice()));
        let link = tar.next().unwrap().unwrap();
        assert_eq!((link.path, link.target), (long.into_bytes(), target.into_bytes()));
        let file = tar.next().unwrap().unwrap();
        assert_eq!((file.path.as_slice(), file.size, file.mode), (&b"short"[..], huge, 0o755));
    }

    #[test]
    fn the_length_of_a_record_counts_itself() {
        for length in [1, 5, 85, 86, 87, 88, 89, 90, 91, 92, 93, 94, 985, 986, 987, 988, 989, 990, 991, 992] {
            let mut out = Vec::new();
            push_record(b"path", &vec![b'x'; length], &mut out);
            let told: usize = String::from_utf8_lossy(&out).split(' ').next().unwrap().parse().unwrap();
            assert_eq!(told, out.len());
        }
    }
}
