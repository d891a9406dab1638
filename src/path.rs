//! Paths inside a project.
//!
//! A [`ProjectPath`] is relative, uses `/`, has no `.` or `..` part and can
//! therefore never leave the project. Names are raw bytes, as Unix has them;
//! what is not UTF-8 is kept and printed escaped. Nothing here touches a disk.

use std::borrow::{Borrow, Cow};
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

mod pattern;

pub use pattern::{Located, Pattern, PatternError};

/// A path below the project's root, never empty, never leaving it.
///
/// Ordered by its bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProjectPath(Vec<u8>);

/// Why a text is no path inside a project.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub enum PathError {
    /// There is nothing in it.
    #[error("a path must not be empty")]
    Empty,
    /// It starts at the root of the file system.
    #[error("a path must be relative to the project")]
    Absolute,
    /// It has a `..` part.
    #[error("a path must not contain `..`")]
    Parent,
    /// It has a NUL byte.
    #[error("a path must not contain a NUL byte")]
    Nul,
}

impl ProjectPath {
    /// Returns the path written as `text`, with `./`, `//` and a trailing `/` taken out.
    ///
    /// # Errors
    ///
    /// [`PathError`] if the text is empty (or only `.`), absolute, or has a
    /// `..` part or a NUL byte.
    pub fn new(text: impl AsRef<[u8]>) -> Result<Self, PathError> {
        let text = text.as_ref();
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        if text.starts_with(b"/") {
            return Err(PathError::Absolute);
        }
        if text.contains(&0) {
            return Err(PathError::Nul);
        }
        let mut bytes = Vec::with_capacity(text.len());
        for part in text.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err(PathError::Parent),
                name => {
                    if !bytes.is_empty() {
                        bytes.push(b'/');
                    }
                    bytes.extend_from_slice(name);
                }
            }
        }
        if bytes.is_empty() { Err(PathError::Empty) } else { Ok(Self(bytes)) }
    }

    /// Returns the path of `path` relative to `root`, or `None` if it is not below it.
    pub fn below(root: &Path, path: &Path) -> Option<Self> {
        Self::new(path.strip_prefix(root).ok()?.as_os_str().as_bytes()).ok()
    }

    /// Returns the bytes, with `/` between the names.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the path as the system spells it, still relative.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// Returns where this path lies below `root`.
    pub fn under(&self, root: &Path) -> PathBuf {
        root.join(self.as_path())
    }

    /// Returns the names from the top down.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/')
    }

    /// Returns the last name.
    pub fn name(&self) -> &[u8] {
        self.names().next_back().unwrap_or_default()
    }

    /// Returns the directory that holds this path, or `None` at the top.
    pub fn parent(&self) -> Option<Self> {
        let cut = self.0.iter().rposition(|byte| *byte == b'/')?;
        Some(Self(self.0[..cut].to_vec()))
    }

    /// Returns this path with `name` below it. `name` must be a single name.
    pub fn join(&self, name: &[u8]) -> Self {
        let mut bytes = self.0.clone();
        bytes.push(b'/');
        bytes.extend_from_slice(name);
        Self(bytes)
    }

    /// Returns whether this is `other` or lies below it.
    pub fn is_within(&self, other: &Self) -> bool {
        self.strip(other).is_some() || self == other
    }

    /// Returns whether one of the two lies within the other.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.is_within(other) || other.is_within(self)
    }

    /// Returns the rest of this path below `directory`, or `None`.
    pub fn strip(&self, directory: &Self) -> Option<Self> {
        let rest = self.0.strip_prefix(directory.0.as_slice())?.strip_prefix(b"/")?;
        Some(Self(rest.to_vec()))
    }

    /// Returns the text for people and for JSON: UTF-8 as it is, other bytes,
    /// control characters and backslashes as `\xNN`.
    pub fn display(&self) -> Cow<'_, str> {
        escape(&self.0)
    }
}

/// Returns `bytes` as text: UTF-8 as it is, other bytes, control characters
/// and backslashes as `\xNN`, so that two names never print alike.
pub fn escape(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes)
        && !text.chars().any(|c| c.is_control() || c == '\\')
    {
        return Cow::Borrowed(text);
    }
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\\' {
                c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| push_escaped(&mut out, byte));
            } else {
                out.push(c);
            }
        }
        chunk.invalid().iter().for_each(|byte| push_escaped(&mut out, *byte));
    }
    Cow::Owned(out)
}

/// Returns the bytes that [`escape`] turned into `text`.
///
/// Anything that is no escape stands for itself.
pub fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let escaped = bytes[index..]
            .strip_prefix(b"\\x")
            .and_then(|rest| std::str::from_utf8(rest.get(..2)?).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(escaped.unwrap_or(bytes[index]));
        index += if escaped.is_some() { 4 } else { 1 };
    }
    out
}

fn push_escaped(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.push_str("\\x");
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

impl fmt::Display for ProjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.display())
    }
}

impl fmt::Debug for ProjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.display())
    }
}

impl Borrow<[u8]> for ProjectPath {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for ProjectPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.display())
    }
}

impl<'de> Deserialize<'de> for ProjectPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(unescape(&text)).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_is_normalised_or_refused() {
        assert_eq!(ProjectPath::new("./a//b/").unwrap().as_bytes(), b"a/b");
        assert_eq!(ProjectPath::new("/a"), Err(PathError::Absolute));
        assert_eq!(ProjectPath::new("a/../b"), Err(PathError::Parent));
        assert_eq!(ProjectPath::new("."), Err(PathError::Empty));
        assert_eq!(ProjectPath::new(b"a\0b"), Err(PathError::Nul));
    }

    #[test]
    fn lying_within_is_by_whole_names() {
        let path = |text: &str| ProjectPath::new(text).unwrap();
        assert!(path("data/raw/x").is_within(&path("data/raw")));
        assert!(path("data").is_within(&path("data")));
        assert!(!path("data/rawer").is_within(&path("data/raw")));
        assert!(path("data").overlaps(&path("data/raw")));
        assert_eq!(path("a/b/c").strip(&path("a")), Some(path("b/c")));
        assert_eq!(path("a/b").parent(), Some(path("a")));
        assert_eq!(path("a").parent(), None);
    }

    proptest! {
        #[test]
        fn escaping_is_reversible(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(unescape(&escape(&bytes)), bytes);
        }

        #[test]
        fn any_accepted_path_survives_json(bytes in proptest::collection::vec(any::<u8>(), 1..40)) {
            if let Ok(path) = ProjectPath::new(&bytes) {
                let text = serde_json::to_string(&path).unwrap();
                prop_assert_eq!(serde_json::from_str::<ProjectPath>(&text).unwrap(), path);
            }
        }
    }
}
