//! Patterns for absolute paths, as people write them in settings.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Names a place in the file system, and everything below it.
///
/// Begins with `/`, with `~/` for a home directory, or with `**/` for any directory. `*` stands for any part
/// of one name, `**` for any number of names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Pattern {
    text: String,
    is_at_home: bool,
    parts: Vec<Part>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Part {
    /// This name.
    Name(Vec<u8>),
    /// A name that is made of these pieces in this order, with anything between them.
    Pieces(Vec<Vec<u8>>),
    /// Any number of names.
    Any,
}

/// A path as patterns look at it.
pub struct Located<'p> {
    /// The names from the root down; `None` of a relative path.
    names: Option<Vec<&'p [u8]>>,
    /// The names from each home directory down that it lies in.
    at_home: Vec<Vec<&'p [u8]>>,
}

/// Why a text is no pattern.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PatternError {
    /// Nothing says where it begins.
    #[error("a pattern begins with `/`, `~/` or `**/`")]
    Unrooted,
    /// It is the root, or could be anything.
    #[error("a pattern names more than the root")]
    Everything,
    /// It has a `..` part.
    #[error("a pattern must not contain `..`")]
    Parent,
    /// `**` is a part of a name, or stands there too often.
    #[error("`**` stands for whole names, at most {ANY_MAX} times")]
    Any,
}

/// How often `**` may stand in a pattern: matching takes time in its power.
const ANY_MAX: usize = 3;

impl Pattern {
    /// Returns the pattern that is written as `text`.
    ///
    /// # Errors
    ///
    /// [`PatternError`] if it does not begin as one, names nothing, or has a `..` or a misplaced `**` in it.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        let (is_at_home, rest) = match (text.strip_prefix("~/"), text.strip_prefix('/')) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) if text.starts_with("**/") => (false, text),
            (None, None) => return Err(PatternError::Unrooted),
        };
        let mut parts = Vec::new();
        for name in rest.split('/').filter(|name| !matches!(*name, "" | ".")) {
            parts.push(match name {
                ".." => return Err(PatternError::Parent),
                "**" => Part::Any,
                name if name.contains("**") => return Err(PatternError::Any),
                name if name.contains('*') => {
                    Part::Pieces(name.split('*').map(|piece| piece.as_bytes().to_vec()).collect())
                }
                name => Part::Name(name.as_bytes().to_vec()),
            });
        }
        if parts.iter().filter(|part| **part == Part::Any).count() > ANY_MAX {
            return Err(PatternError::Any);
        }
        if parts.iter().all(|part| *part == Part::Any) {
            return Err(PatternError::Everything);
        }
        Ok(Self { text: text.to_owned(), is_at_home, parts })
    }

    /// Returns whether it names `path` or a directory that `path` lies in. `homes` are what `~` stands for.
    pub fn covers(&self, path: &Path, homes: &[impl AsRef<Path>]) -> bool {
        self.covers_located(&Located::new(path, homes))
    }

    /// Returns what [`Pattern::covers`] does, of a path that is looked at for many patterns.
    pub fn covers_located(&self, located: &Located<'_>) -> bool {
        if self.is_at_home {
            return located.at_home.iter().any(|names| covers(&self.parts, names));
        }
        located.names.as_ref().is_some_and(|names| covers(&self.parts, names))
    }

    /// Returns how exactly it names what it names: of two that name a path, the larger one is meant.
    pub fn exactness(&self) -> usize {
        let length = |part: &Part| match part {
            Part::Name(name) => name.len() + 1,
            Part::Pieces(pieces) => pieces.iter().map(Vec::len).sum(),
            Part::Any => 0,
        };
        self.parts.iter().map(length).sum()
    }
}

impl<'p> Located<'p> {
    /// Returns `path`, with its place in each of `homes` that it lies in.
    pub fn new(path: &'p Path, homes: &[impl AsRef<Path>]) -> Self {
        let names = |path: &'p Path| path.components().map(|part| part.as_os_str().as_bytes()).collect::<Vec<_>>();
        Self {
            names: path.strip_prefix("/").ok().map(names),
            at_home: homes.iter().filter_map(|home| path.strip_prefix(home).ok()).map(names).collect(),
        }
    }
}

fn covers(parts: &[Part], names: &[&[u8]]) -> bool {
    let Some((part, parts)) = parts.split_first() else { return true };
    if *part == Part::Any {
        return (0..=names.len()).any(|skipped| covers(parts, &names[skipped..]));
    }
    names.split_first().is_some_and(|(name, names)| fits(part, name) && covers(parts, names))
}

fn fits(part: &Part, name: &[u8]) -> bool {
    let pieces = match part {
        Part::Name(wanted) => return wanted == name,
        Part::Pieces(pieces) => pieces,
        Part::Any => return true,
    };
    let [first, middle @ .., last] = pieces.as_slice() else { return false };
    let Some(mut rest) = name.strip_prefix(first.as_slice()).and_then(|rest| rest.strip_suffix(last.as_slice())) else {
        return false;
    };
    for piece in middle.iter().filter(|piece| !piece.is_empty()) {
        let Some(at) = rest.windows(piece.len()).position(|window| window == piece.as_slice()) else { return false };
        rest = &rest[at + piece.len()..];
    }
    true
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(pattern: &str, path: &str) -> bool {
        Pattern::new(pattern).unwrap().covers(Path::new(path), &["/home/ada", "/pv/home"])
    }

    #[test]
    fn a_pattern_names_a_place_and_what_lies_below_it() {
        assert!(covers("/etc/ssl", "/etc/ssl") && covers("/etc/ssl/", "/etc/ssl/certs/a.pem"));
        assert!(!covers("/etc/ssl", "/etc/ssl.conf") && !covers("/etc/ssl", "/etc") && !covers("/etc/ssl", "etc/ssl"));
        assert!(covers("~/.cache", "/home/ada/.cache/x") && covers("~/.cache", "/pv/home/.cache"));
        assert!(!covers("~/.cache", "/home/bob/.cache"));
        assert!(covers("/usr/lib/python3.*", "/usr/lib/python3.11/os.py"));
        assert!(!covers("/usr/lib/python3.*", "/usr/lib/python3/os.py"));
        assert!(covers("**/*.so.*", "/opt/x/libm.so.6") && covers("**/*.so.*", "/libm.so.6"));
        assert!(!covers("**/*.so.*", "/opt/x/libm.so"));
        assert!(covers("/a/**/b/*c*d", "/a/b/xcyd") && covers("/a/**/b/*c*d", "/a/1/2/b/cd/e"));
        assert!(!covers("/a/**/b/*c*d", "/a/b/dc") && !covers("/a*a", "/a"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, error) in [
            ("", PatternError::Unrooted),
            ("etc/ssl", PatternError::Unrooted),
            ("*.so", PatternError::Unrooted),
            ("/", PatternError::Everything),
            ("~/.", PatternError::Everything),
            ("**/**", PatternError::Everything),
            ("/a/../b", PatternError::Parent),
            ("/a/x**", PatternError::Any),
            ("/**/a/**/b/**/c/**/d", PatternError::Any),
        ] {
            assert_eq!(Pattern::new(text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn the_longer_of_two_names_is_more_exact() {
        let exactness = |text: &str| Pattern::new(text).unwrap().exactness();
        assert!(exactness("/data/raw") > exactness("/data") && exactness("/data/*.csv") > exactness("/data"));
        assert!(exactness("/data") > exactness("**/*"));
    }
}
