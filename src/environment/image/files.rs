//! Images in files: an OCI layout in a directory or a tar file, and what `docker save` writes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::digest::{Hashing, ImageDigest};
use super::manifest::{
    CONFIG_MAX_BYTES, CONFIG_TYPE, Descriptor, LAYER_TYPE, MANIFEST_MAX_BYTES, MANIFEST_TYPE, Manifest, NAME_LABEL,
};
use super::reference::{LAYOUT_MARK, Reference, Repository};
use super::tar::{EntryKind, Seekable, Tar};
use super::{Blob, Blobs, ImageError, Trouble, fetch_failed, unreadable};
use crate::disk::DiskError;
use crate::object::canonical;

const INDEX: &str = "index.json";
/// What `docker save` writes beside, or instead of, a layout.
const DOCKER_INDEX: &str = "manifest.json";
/// What an image is called of which nothing is known.
const NAMELESS: &str = "image";
/// A link in a tar file leads to a file after so many links.
const LINKS_MAX: u32 = 8;

/// Opens the image in a layout or an archive; `None` if the reference is to a registry.
///
/// Costs a look at the headers of an archive. What `docker save` wrote in older versions has no manifest, so one is
/// made from the configuration and the layers, which costs a read of all of them.
///
/// # Errors
///
/// [`ImageError`] if there is no image, or several of which none was named.
pub fn open_files(reference: &Reference) -> Result<Option<Box<dyn Blobs>>, ImageError> {
    let (files, path, tag) = match reference {
        Reference::Registry(_) => return Ok(None),
        Reference::Layout { path, tag } => (Files::Directory(path.clone()), path, tag.as_deref()),
        Reference::Archive { path } => (Files::of_archive(path)?, path, None),
    };
    let image = if files.has(INDEX) && files.has(LAYOUT_MARK) {
        Image::of_layout(files, path, tag)?
    } else if files.has(DOCKER_INDEX) {
        Image::of_docker(files, path)?
    } else {
        let why = "it has neither an `index.json` nor a `manifest.json`";
        return Err(ImageError::NoImage { path: path.clone(), why });
    };
    Ok(Some(Box::new(image)))
}

/// Files below a directory, or in a tar file.
enum Files {
    Directory(PathBuf),
    Archive { path: PathBuf, members: BTreeMap<Vec<u8>, Member> },
}

enum Member {
    File {
        offset: u64,
        size: u64,
    },
    /// Another name of a member.
    Link(Vec<u8>),
}

impl Files {
    fn of_archive(path: &Path) -> Result<Self, ImageError> {
        let not = |why| ImageError::NoImage { path: path.to_owned(), why };
        let mut file = File::open(path).map_err(unreadable(path))?;
        let mut begin = [0; 4];
        let is_short = file.read_exact(&mut begin).is_err();
        if begin.starts_with(&[0x1f, 0x8b]) || begin == [0x28, 0xb5, 0x2f, 0xfd] {
            return Err(not("it is compressed; unpack it first"));
        }
        if is_short {
            return Err(not("it is no tar file"));
        }
        file.rewind().map_err(unreadable(path))?;
        let mut members = BTreeMap::new();
        let mut tar = Tar::new(Seekable(file));
        while let Some(entry) = tar.next().map_err(unreadable(path))? {
            let name = clean(&entry.path);
            let above = name.iter().rposition(|byte| *byte == b'/').map_or(&b""[..], |slash| &name[..slash]);
            let member = match entry.kind {
                EntryKind::File => Member::File { offset: entry.offset, size: entry.size },
                EntryKind::HardLink => Member::Link(clean(&entry.target)),
                EntryKind::Symlink => Member::Link(clean(&[above, b"/", &entry.target].concat())),
                _ => continue,
            };
            members.insert(name, member);
        }
        drop(tar.into_inner());
        Ok(Self::Archive { path: path.to_owned(), members })
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Self::Directory(path) => path.join(name).is_file(),
            Self::Archive { .. } => self.member(name).is_some(),
        }
    }

    /// Returns where a file of an archive begins, and its length.
    fn member(&self, name: &str) -> Option<(u64, u64)> {
        let Self::Archive { members, .. } = self else { return None };
        let mut name = clean(name.as_bytes());
        for _ in 0..LINKS_MAX {
            match members.get(&name)? {
                Member::File { offset, size } => return Some((*offset, *size)),
                Member::Link(target) => name.clone_from(target),
            }
        }
        None
    }

    /// Opens a file, which is below the directory or in the archive whatever its name.
    fn open(&self, name: &str) -> Result<Blob<'static>, ImageError> {
        let missing = || ImageError::Fetch {
            what: format!("`{name}`"),
            trouble: Trouble::Missing,
            source: "there is no such file in it".into(),
        };
        match self {
            Self::Directory(path) => {
                // Names of blobs are made here; the others are constants.
                let path = path.join(name);
                match File::open(&path) {
                    Ok(file) => {
                        let bytes = file.metadata().map_err(unreadable(&path))?.len();
                        Ok(Blob { reader: Box::new(file), bytes: Some(bytes) })
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(missing()),
                    Err(error) => Err(DiskError::on("read", &path)(error).into()),
                }
            }
            Self::Archive { path, .. } => {
                let (offset, size) = self.member(name).ok_or_else(missing)?;
                let mut file = File::open(path).map_err(unreadable(path))?;
                file.seek(SeekFrom::Start(offset)).map_err(unreadable(path))?;
                Ok(Blob { reader: Box::new(file.take(size)), bytes: Some(size) })
            }
        }
    }

    fn read(&self, name: &str, most: u64) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        let what = format!("`{name}`");
        self.open(name)?.reader.take(most + 1).read_to_end(&mut bytes).map_err(|source| fetch_failed(&what, source))?;
        if bytes.len() as u64 > most {
            return Err(ImageError::NotUnderstood { what, why: format!("it has more than {most} bytes") });
        }
        Ok(bytes)
    }
}

/// Returns a path in an archive without what leads nowhere; `..` leads up, and not above the top.
fn clean(path: &[u8]) -> Vec<u8> {
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names.join(&b"/"[..])
}

/// An image in files.
struct Image {
    files: Files,
    name: String,
    /// The manifest that is meant.
    manifest: Vec<u8>,
    /// Where blobs lie that have no place by their digest.
    places: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct LayoutIndex {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Image {
    fn of_layout(files: Files, path: &Path, tag: Option<&str>) -> Result<Self, ImageError> {
        let bytes = files.read(INDEX, MANIFEST_MAX_BYTES)?;
        let not = |error: serde_json::Error| not_understood(INDEX, &error.to_string());
        let index: LayoutIndex = serde_json::from_slice(&bytes).map_err(not)?;
        let label = |descriptor: &Descriptor| descriptor.annotations.get(NAME_LABEL).cloned();
        let is_meant = |descriptor: &&Descriptor| {
            tag.is_none_or(|tag| {
                label(descriptor)
                    .is_some_and(|name| name == tag || name.rsplit_once(':').is_some_and(|(_, own)| own == tag))
            })
        };
        let meant: Vec<_> = index.manifests.iter().filter(is_meant).collect();
        let names = || {
            let names = index.manifests.iter().map(|each| label(each).unwrap_or_else(|| each.digest.clone()));
            names.map(|name| format!("`{name}`")).collect::<Vec<_>>()
        };
        let [only] = meant.as_slice() else {
            if meant.is_empty() && (tag.is_none() || index.manifests.is_empty()) {
                return Err(ImageError::NoImage { path: path.to_owned(), why: "its index is empty" });
            }
            return Err(ImageError::Several { path: path.to_owned(), names: names() });
        };
        let mut name = label(only).map(|label| without_tag(&label).to_owned());
        // A label that is a bare tag names no image.
        name = name.filter(|name| Repository::read(name).is_ok() && Some(name.as_str()) != label(only).as_deref());
        let name = name.unwrap_or_else(|| name_of_file(path));
        let digest = only.digest()?;
        let manifest = files.read(&place_of(&digest), MANIFEST_MAX_BYTES)?;
        let actual = ImageDigest::of(&manifest);
        if actual != digest {
            let what = "the manifest".to_owned();
            return Err(ImageError::Mismatch { what, expected: digest.to_string(), actual });
        }
        Ok(Self { files, name, manifest, places: BTreeMap::new() })
    }

    /// What it says has no digests, so they are those of what is there.
    fn of_docker(files: Files, path: &Path) -> Result<Self, ImageError> {
        let bytes = files.read(DOCKER_INDEX, MANIFEST_MAX_BYTES)?;
        let not = |error: serde_json::Error| not_understood(DOCKER_INDEX, &error.to_string());
        let images: Vec<DockerImage> = serde_json::from_slice(&bytes).map_err(not)?;
        let [image] = images.as_slice() else {
            let tags = images.iter().map(|image| image.repo_tags.iter().flatten().next());
            let names: Vec<_> =
                tags.map(|tag| tag.map_or("an unnamed one".to_owned(), |tag| format!("`{tag}`"))).collect();
            return Err(if names.is_empty() {
                ImageError::NoImage { path: path.to_owned(), why: "its index is empty" }
            } else {
                ImageError::Several { path: path.to_owned(), names }
            });
        };
        let config = files.read(&image.config, CONFIG_MAX_BYTES)?;
        let mut places = BTreeMap::new();
        let mut place = |digest: ImageDigest, name: &str| places.insert(digest.to_string(), name.to_owned());
        let config_digest = ImageDigest::of(&config);
        place(config_digest, &image.config);
        let mut layers = Vec::new();
        for name in &image.layers {
            let what = format!("`{name}`");
            let whole = Hashing::new(files.open(name)?.reader)
                .finish(u64::MAX)
                .map_err(|source| fetch_failed(&what, source))?;
            let (digest, size) = whole.expect("there is no limit");
            place(digest, name);
            layers.push(Descriptor::of(LAYER_TYPE, digest, size));
        }
        let config = Descriptor::of(CONFIG_TYPE, config_digest, config.len() as u64);
        let media_type = MANIFEST_TYPE.to_owned();
        let manifest = canonical(&Manifest { schema_version: 2, media_type, config, layers });
        let manifest = manifest.map_err(|error| not_understood(DOCKER_INDEX, &error.to_string()))?;
        let name = image.repo_tags.iter().flatten().next().map(|tag| without_tag(tag).to_owned());
        let name = name.filter(|name| Repository::read(name).is_ok()).unwrap_or_else(|| name_of_file(path));
        Ok(Self { files, name, manifest, places })
    }
}

impl Blobs for Image {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn manifest(&self, digest: Option<&ImageDigest>) -> Result<Vec<u8>, ImageError> {
        match digest {
            None => Ok(self.manifest.clone()),
            Some(digest) if *digest == ImageDigest::of(&self.manifest) => Ok(self.manifest.clone()),
            Some(digest) => self.files.read(&place_of(digest), MANIFEST_MAX_BYTES),
        }
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Blob<'_>, ImageError> {
        let digest = descriptor.digest()?;
        match self.places.get(&descriptor.digest) {
            Some(name) => self.files.open(name),
            None => self.files.open(&place_of(&digest)),
        }
    }
}

fn place_of(digest: &ImageDigest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn not_understood(what: &str, why: &str) -> ImageError {
    ImageError::NotUnderstood { what: format!("`{what}`"), why: why.to_owned() }
}

fn without_tag(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => before,
        _ => name,
    }
}

/// Returns a name for an image that lies at this path.
fn name_of_file(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().to_lowercase()).unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    let name: String = stem.chars().map(|c| if is_plain(c) { c } else { '-' }).collect();
    let name = name.trim_start_matches(['-', '.', '_']);
    if name.is_empty() { NAMELESS.to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_in_an_archive_stay_in_it() {
        assert_eq!(clean(b"./a//b/../c/"), b"a/c");
        assert_eq!(clean(b"../../etc/passwd"), b"etc/passwd");
        assert_eq!(clean(b"id/../other/layer.tar"), b"other/layer.tar");
    }

    #[test]
    fn a_file_makes_a_name_that_a_definition_takes() {
        let name = |path: &str| name_of_file(Path::new(path));
        assert_eq!(name("/x/My Image.tar"), "my-image");
        assert_eq!(name("layout"), "layout");
        assert_eq!(name("/x/-é.tar"), NAMELESS);
        assert_eq!([without_tag("localhost:5000/a"), without_tag("a/b:1")], ["localhost:5000/a", "a/b"]);
        for path in ["/x/My Image.tar", "é", "."] {
            assert!(Repository::read(&name(path)).is_ok(), "{path}");
        }
    }
}
