//! Images made for tests, byte by byte: what tools would never write can be in them.

use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Something in a layer.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) path: String,
    pub(super) kind: u8,
    pub(super) mode: u32,
    pub(super) target: String,
    pub(super) content: Vec<u8>,
    /// The length that the header claims, if not that of the content.
    pub(super) claims: Option<u64>,
}

fn member(path: &str, kind: u8, mode: u32) -> Member {
    let (path, target, content) = (path.to_owned(), String::new(), Vec::new());
    Member { path, kind, mode, target, content, claims: None }
}

pub(super) fn file(path: &str, content: impl AsRef<[u8]>) -> Member {
    Member { content: content.as_ref().to_vec(), ..member(path, b'0', 0o644) }
}

pub(super) fn program(path: &str, content: impl AsRef<[u8]>) -> Member {
    Member { mode: 0o755, ..file(path, content) }
}

pub(super) fn directory(path: &str) -> Member {
    member(path, b'5', 0o755)
}

pub(super) fn symlink(path: &str, target: &str) -> Member {
    Member { target: target.to_owned(), ..member(path, b'2', 0o777) }
}

pub(super) fn hard_link(path: &str, target: &str) -> Member {
    Member { target: target.to_owned(), ..member(path, b'1', 0o644) }
}

/// A device, a pipe, or whatever has this mark.
pub(super) fn special(path: &str, kind: u8) -> Member {
    member(path, kind, 0o600)
}

/// Returns a tar file with these members.
pub(super) fn tar(members: &[Member]) -> Vec<u8> {
    let mut out = Vec::new();
    for member in members {
        out.extend_from_slice(&header(member));
        out.extend_from_slice(&member.content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn header(member: &Member) -> [u8; 512] {
    let mut block = [0_u8; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, member.path.as_bytes());
    put(100, format!("{:07o}", member.mode).as_bytes());
    put(108, b"0000000");
    put(116, b"0000000");
    let size = member.claims.unwrap_or(member.content.len() as u64);
    put(124, format!("{size:011o}").as_bytes());
    put(136, b"00000000000");
    put(148, b"        ");
    put(156, &[member.kind]);
    put(157, member.target.as_bytes());
    put(257, b"ustar\x0000");
    sealed(block)
}

/// Returns the header with its sum.
fn sealed(mut block: [u8; 512]) -> [u8; 512] {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Returns a tar file with one sparse file of so many bytes, all of them a hole.
pub(super) fn sparse(path: &str, size: u64) -> Vec<u8> {
    let mut block = header(&Member { claims: Some(0), ..member(path, b'S', 0o644) });
    block[257..265].copy_from_slice(b"ustar  \0");
    // In twelve octal digits, or where those are too few, in eight bytes behind a mark.
    let mut field = [0; 12];
    match format!("{size:012o}").as_bytes() {
        digits if digits.len() == 12 => field.copy_from_slice(digits),
        _ => {
            field[0] = 0x80;
            field[4..].copy_from_slice(&size.to_be_bytes());
        }
    }
    block[386..398].copy_from_slice(&field);
    block[398..409].copy_from_slice(b"00000000000");
    block[483..495].copy_from_slice(&field);
    let mut out = sealed(block).to_vec();
    out.resize(out.len() + 1024, 0);
    out
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn digest(bytes: &[u8]) -> String {
    let mut text = "sha256:".to_owned();
    Sha256::digest(bytes).iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
    text
}

/// A layer as it is stored, and as it is unpacked.
pub(super) struct Layer {
    pub(super) stored: Vec<u8>,
    pub(super) unpacked: Vec<u8>,
}

impl Layer {
    pub(super) fn of(members: &[Member]) -> Self {
        Self::plain(tar(members))
    }

    pub(super) fn plain(unpacked: Vec<u8>) -> Self {
        Self { stored: unpacked.clone(), unpacked }
    }

    pub(super) fn gzip(members: &[Member]) -> Self {
        let unpacked = tar(members);
        Self { stored: gzip(&unpacked), unpacked }
    }

    pub(super) fn zstd(members: &[Member]) -> Self {
        let unpacked = tar(members);
        Self { stored: zstd::encode_all(unpacked.as_slice(), 3).unwrap(), unpacked }
    }
}

/// Returns the configuration of an image with these layers.
pub(super) fn config(layers: &[Layer]) -> Value {
    let diff_ids: Vec<_> = layers.iter().map(|layer| digest(&layer.unpacked)).collect();
    let runs = json!({"Env": ["PATH=/usr/bin:/bin", "KIND=image"], "User": "1000:1000", "WorkingDir": "/srv"});
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    json!({"architecture": machine, "os": "linux", "config": runs, "rootfs": {"type": "layers", "diff_ids": diff_ids}})
}

/// An OCI layout on disk.
pub(super) struct Layout(pub(super) PathBuf);

impl Layout {
    /// Makes a layout with one image, called `latest`; returns it with the digest of the image.
    pub(super) fn with(path: PathBuf, layers: &[Layer]) -> (Self, String) {
        let layout = Self::empty(path);
        let manifest = layout.manifest(layers, &config(layers));
        let image = layout.point(&[("latest", &manifest)]);
        (layout, image)
    }

    pub(super) fn empty(path: PathBuf) -> Self {
        fs::create_dir_all(path.join("blobs/sha256")).unwrap();
        fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
        Self(path)
    }

    /// Puts layers and configuration there, and returns the manifest.
    pub(super) fn manifest(&self, layers: &[Layer], config: &Value) -> Value {
        let config = config.to_string().into_bytes();
        let described: Vec<_> = layers
            .iter()
            .map(|layer| {
                self.put(&layer.stored);
                let kind = if layer.stored == layer.unpacked {
                    "tar"
                } else if layer.stored.starts_with(&[0x1f, 0x8b]) {
                    "tar+gzip"
                } else {
                    "tar+zstd"
                };
                let kind = format!("application/vnd.oci.image.layer.v1.{kind}");
                json!({"mediaType": kind, "digest": digest(&layer.stored), "size": layer.stored.len()})
            })
            .collect();
        self.put(&config);
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest(&config),
                "size": config.len(),
            },
            "layers": described,
        })
    }

    /// Lets the layout have these images; returns the digest of the first.
    pub(super) fn point(&self, images: &[(&str, &Value)]) -> String {
        let described: Vec<_> = images
            .iter()
            .map(|(name, manifest)| {
                let bytes = manifest.to_string().into_bytes();
                json!({
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "digest": self.put(&bytes),
                    "size": bytes.len(),
                    "annotations": {"org.opencontainers.image.ref.name": name},
                })
            })
            .collect();
        let first = described[0]["digest"].as_str().unwrap().to_owned();
        fs::write(self.0.join("index.json"), json!({"schemaVersion": 2, "manifests": described}).to_string()).unwrap();
        first
    }

    fn put(&self, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        fs::write(self.blob(&digest), bytes).unwrap();
        digest
    }

    /// Returns where the blob with this digest lies.
    pub(super) fn blob(&self, digest: &str) -> PathBuf {
        self.0.join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
    }
}

/// Returns the members of a tar file: type, mode, path and where links lead, sorted.
pub(super) fn listed(archive: &Path) -> Vec<String> {
    let done = std::process::Command::new("tar").arg("-tvf").arg(archive).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let line = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        format!("{} {}", words[0], words[5..].join(" "))
    };
    String::from_utf8(done.stdout).unwrap().lines().map(line).collect()
}
