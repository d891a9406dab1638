//! What names an image: something in a registry, a directory, or a file.

use std::fmt;
use std::path::{Path, PathBuf};

use super::digest::ImageDigest;

/// The registry that is meant if none is named.
const USUAL_HOST: &str = "docker.io";
/// What stands before names without a slash there.
const USUAL_GROUP: &str = "library";
const USUAL_TAG: &str = "latest";
const NAME_MAX_BYTES: usize = 255;
const TAG_MAX_BYTES: usize = 128;
/// The file that makes a directory an OCI layout.
pub(super) const LAYOUT_MARK: &str = "oci-layout";

/// Where an image is to be had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reference {
    /// In a registry.
    Registry(Repository),
    /// In a directory, as the image layout specification of OCI says.
    Layout {
        /// The directory.
        path: PathBuf,
        /// Which of its images.
        tag: Option<String>,
    },
    /// In a tar file: an OCI layout, or what `docker save` writes.
    Archive {
        /// The file.
        path: PathBuf,
    },
}

/// An image in a registry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Repository {
    /// What it is called in full, without tag and digest: what a definition says, which is to mean the same to everybody.
    pub name: String,
    /// The host, perhaps with a port.
    pub host: String,
    /// The path there.
    pub path: String,
    /// A tag, which may move.
    pub tag: Option<String>,
    /// A digest, which is that of one image for ever.
    pub digest: Option<ImageDigest>,
}

/// Why a text names no image.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub enum NotAReference {
    /// Its name has a part that no registry takes.
    #[error("a name is made of small letters, digits, `.`, `_`, `-` and `/`")]
    Name,
    /// It has a tag that is none.
    #[error("a tag is made of letters, digits, `.`, `_` and `-`")]
    Tag,
    /// It has a digest that is none.
    #[error("a digest is `sha256:` and 64 hexadecimal digits")]
    Digest,
    /// It looks like a path, and nothing is there.
    #[error("no such file or directory")]
    Nothing,
    /// It is a directory, but none with images.
    #[error("the directory is no OCI layout: it has no file `{LAYOUT_MARK}`")]
    NoLayout,
}

impl Reference {
    /// Returns what `text` names, relative to the directory `here`.
    ///
    /// What begins with `oci:`, `.` or `/`, what ends with `.tar`, and a directory that is an OCI layout, is on this
    /// disk; all else is in a registry.
    ///
    /// # Errors
    ///
    /// [`NotAReference`] if it names neither.
    pub fn read(text: &str, here: &Path) -> Result<Self, NotAReference> {
        if let Some(rest) = text.strip_prefix("oci:") {
            let (path, tag) = match rest.rsplit_once(':') {
                Some((path, tag)) if !tag.contains('/') && !here.join(rest).exists() => (path, Some(tag.to_owned())),
                _ => (rest, None),
            };
            return layout(here.join(path), tag);
        }
        let path = here.join(text);
        if path.is_dir() && path.join(LAYOUT_MARK).is_file() {
            return layout(path, None);
        }
        let is_file_name = Path::new(text).extension().is_some_and(|ending| ending.eq_ignore_ascii_case("tar"));
        if !text.starts_with(['.', '/']) && !is_file_name {
            return Repository::read(text).map(Self::Registry);
        }
        if path.is_file() {
            Ok(Self::Archive { path })
        } else if path.is_dir() {
            Err(NotAReference::NoLayout)
        } else {
            Err(NotAReference::Nothing)
        }
    }
}

fn layout(path: PathBuf, tag: Option<String>) -> Result<Reference, NotAReference> {
    if !path.is_dir() {
        Err(NotAReference::Nothing)
    } else if path.join(LAYOUT_MARK).is_file() {
        Ok(Reference::Layout { path, tag })
    } else {
        Err(NotAReference::NoLayout)
    }
}

impl Repository {
    /// Returns the image in a registry that `text` names: `debian:12`, `localhost:5000/a/b@sha256:...`.
    ///
    /// # Errors
    ///
    /// [`NotAReference`] if it is no name, tag or digest.
    pub fn read(text: &str) -> Result<Self, NotAReference> {
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => (named, Some(digest.parse().map_err(|_| NotAReference::Digest)?)),
            None => (text, None),
        };
        // A colon before a slash is that of a port.
        let (name, tag) = match named.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (named, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(NotAReference::Tag);
        }
        let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost";
        let (host, path) = match name.split_once('/') {
            Some((host, path)) if is_host(host) => (host, path.to_owned()),
            Some(_) => (USUAL_HOST, name.to_owned()),
            None => (USUAL_HOST, format!("{USUAL_GROUP}/{name}")),
        };
        let is_part = |part: &str| {
            let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
            part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()) && part.bytes().all(is_inner)
        };
        if name.len() > NAME_MAX_BYTES || !is_host_name(host) || !path.split('/').all(is_part) {
            return Err(NotAReference::Name);
        }
        let (host, tag) = (host.to_owned(), tag.map(str::to_owned));
        Ok(Self { name: format!("{host}/{path}"), host, path, tag, digest })
    }

    /// Returns what the registry is asked for: the digest, else the tag.
    pub fn asked(&self) -> String {
        let tag = || self.tag.clone().unwrap_or_else(|| USUAL_TAG.to_owned());
        self.digest.as_ref().map_or_else(tag, ToString::to_string)
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.digest.is_some() { '@' } else { ':' };
        write!(f, "{}{mark}{}", self.name, self.asked())
    }
}

fn is_tag(tag: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=TAG_MAX_BYTES).contains(&tag.len())
        && tag.chars().all(is_inner)
        && tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
}

fn is_host_name(host: &str) -> bool {
    let (name, port) = host.rsplit_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-[]:".contains(&byte);
    !name.is_empty() && name.bytes().all(is_name) && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Result<(String, String, String), NotAReference> {
        Repository::read(text).map(|read| (read.host.clone(), read.path.clone(), read.asked()))
    }

    #[test]
    fn a_short_name_is_one_of_the_usual_registry() {
        let told = |text| parts(text).map(|(host, path, asked)| [host, path, asked].join(" "));
        assert_eq!(told("debian").unwrap(), "docker.io library/debian latest");
        assert_eq!(told("debian:12").unwrap(), "docker.io library/debian 12");
        assert_eq!(told("some/one:x").unwrap(), "docker.io some/one x");
        assert_eq!(told("localhost:5000/a/b").unwrap(), "localhost:5000 a/b latest");
        assert_eq!(told("localhost/a").unwrap(), "localhost a latest");
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(told(&format!("quay.io/a/b:1@{digest}")).unwrap(), format!("quay.io a/b {digest}"));
        let name = |text| Repository::read(text).unwrap().name;
        assert_eq!([name("quay.io/a/b:1"), name("debian")], ["quay.io/a/b", "docker.io/library/debian"]);
    }

    #[test]
    fn what_no_registry_takes_is_refused() {
        for text in ["", "Debian", "a//b", "a/../b", "-a", "host.x:999999/a", "a b", "a/b/", "ho st.x/a"] {
            assert_eq!(parts(text), Err(NotAReference::Name), "{text}");
        }
        for text in ["a:", "a:b c", "a:-x"] {
            assert_eq!(parts(text), Err(NotAReference::Tag), "{text}");
        }
        for text in ["a@sha256:12", "a@sha512:12", "a@"] {
            assert_eq!(parts(text), Err(NotAReference::Digest), "{text}");
        }
    }

    #[test]
    fn what_is_on_this_disk_is_told_from_a_name() {
        let root = tempfile::tempdir().unwrap();
        let here = root.path();
        crate::disk::make_directory(&here.join("layout")).unwrap();
        crate::disk::make_directory(&here.join("debian")).unwrap();
        for file in ["layout/oci-layout", "a.tar"] {
            crate::disk::write_whole(&here.join(file), b"", crate::disk::Durability::Deferred).unwrap();
        }
        let layout =
            |tag: Option<&str>| Ok(Reference::Layout { path: here.join("layout"), tag: tag.map(str::to_owned) });
        assert_eq!(Reference::read("layout", here), layout(None));
        assert_eq!(Reference::read("oci:layout", here), layout(None));
        assert_eq!(Reference::read("oci:layout:v1", here), layout(Some("v1")));
        assert_eq!(Reference::read("a.tar", here), Ok(Reference::Archive { path: here.join("a.tar") }));
        assert_eq!(Reference::read("./debian", here), Err(NotAReference::NoLayout));
        assert_eq!(Reference::read("b.tar", here), Err(NotAReference::Nothing));
        assert_eq!(Reference::read("oci:nowhere:x", here), Err(NotAReference::Nothing));
        assert!(matches!(Reference::read("debian", here), Ok(Reference::Registry(_))), "a directory is no image");
    }
}
