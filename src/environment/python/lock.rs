//! The lock file of a Python environment: what it pins, and whether it pins everything by hash.
//!
//! Sources: pip's documentation of the format of requirements files and of `--require-hashes`; uv's of `uv.lock`.

use std::collections::BTreeMap;

use super::site::normal;

/// Options of a lock file that say where packages come from, and nothing of which.
const OPTIONS: [&str; 12] = [
    "-i",
    "--index-url",
    "--extra-index-url",
    "--no-index",
    "-f",
    "--find-links",
    "--no-binary",
    "--only-binary",
    "--prefer-binary",
    "--pre",
    "--trusted-host",
    "--require-hashes",
];

/// What is wrong with a lock file.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LockError {
    /// It is no text.
    #[error("it is not UTF-8 text")]
    NotText,
    /// A package in it may be anything of that name and version.
    #[error("line {line}: `{requirement}` has no hash")]
    NoHash {
        /// The line, from 1.
        line: usize,
        /// What it asks for.
        requirement: String,
    },
    /// It is not all that decides.
    #[error("line {line}: `{text}` leads to another file")]
    Elsewhere {
        /// The line, from 1.
        line: usize,
        /// What leads there.
        text: String,
    },
    /// Nobody knows what it means.
    #[error("line {line}: the option `{option}` is not known here")]
    Option {
        /// The line, from 1.
        line: usize,
        /// The option.
        option: String,
    },
}

/// Returns name → version of what a lock in the format of requirements files pins, if it pins everything by hash.
///
/// Markers are not looked at: what is for other platforms only is among them. What is named by an address has no version here.
///
/// # Errors
///
/// [`LockError`] with the first line that is not as it should be.
pub(super) fn read_requirements(text: &[u8]) -> Result<BTreeMap<String, String>, LockError> {
    let text = std::str::from_utf8(text).map_err(|_| LockError::NotText)?;
    let mut pins = BTreeMap::new();
    for (line, text) in logical_lines(text) {
        let elsewhere = |text: &str| LockError::Elsewhere { line, text: text.to_owned() };
        let first = text.split(|c: char| c.is_whitespace() || c == '=').next().unwrap_or_default();
        if first.starts_with('-') {
            let value = text[first.len()..].trim_start_matches(|c: char| c.is_whitespace() || c == '=');
            if ["-r", "-c", "-e", "--requirement", "--constraint", "--editable"].contains(&first) {
                return Err(elsewhere(&text));
            }
            if !OPTIONS.contains(&first) {
                return Err(LockError::Option { line, option: first.to_owned() });
            }
            if matches!(first, "-f" | "--find-links") && !value.starts_with('/') && !value.contains("://") {
                return Err(elsewhere(&text));
            }
            continue;
        }
        let (what, hashes) = text.split_once("--hash").map_or((text.as_str(), None), |(what, rest)| (what, Some(rest)));
        let what = what.trim();
        if what.starts_with(['.', '/']) || what.starts_with("file:") {
            return Err(elsewhere(what));
        }
        if hashes.is_none_or(|hashes| !hashes.contains(':')) {
            return Err(LockError::NoHash { line, requirement: what.to_owned() });
        }
        let bare = what.split(';').next().unwrap_or_default();
        if let Some((name, version)) = bare.split_once("==") {
            let name = name.split('[').next().unwrap_or_default().trim();
            pins.insert(normal(name), version.trim_start_matches('=').trim().to_owned());
        }
    }
    Ok(pins)
}

/// Returns name → version of the packages in a `uv.lock`.
///
/// It is read line by line: uv writes it, and each package begins with its name and version.
pub(super) fn read_uv(text: &[u8]) -> BTreeMap<String, String> {
    let mut pins = BTreeMap::new();
    let mut name = None;
    for line in String::from_utf8_lossy(text).lines() {
        let value =
            |key: &str| line.strip_prefix(key)?.trim_start().strip_prefix('=').map(|v| v.trim().trim_matches('"'));
        if line == "[[package]]" {
            name = None;
        } else if let Some(value) = value("name ") {
            name = Some(normal(value));
        } else if let (Some(version), Some(name)) = (value("version "), name.take()) {
            pins.insert(name, version.to_owned());
        }
    }
    pins
}

/// Returns the lines with those that are continued made one, without comments, each with the number of its first line.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let is_comment = line.starts_with('#');
        let (line, goes_on) = match line.strip_suffix('\\') {
            Some(line) if !is_comment => (line, true),
            _ => (line, false),
        };
        let (_, joined) = open.get_or_insert_with(|| (index + 1, String::new()));
        joined.push(' ');
        joined.push_str(line);
        if !goes_on {
            lines.extend(open.take());
        }
    }
    lines.extend(open);
    let without_comment = |text: String| {
        let end = text.match_indices('#').find(|(at, _)| *at == 0 || text.as_bytes()[at - 1].is_ascii_whitespace());
        text[..end.map_or(text.len(), |(at, _)| at)].trim().to_owned()
    };
    let lines = lines.into_iter().map(|(line, text)| (line, without_comment(text)));
    lines.filter(|(_, text)| !text.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<BTreeMap<String, String>, LockError> {
        read_requirements(text.as_bytes())
    }

    #[test]
    fn a_lock_with_hashes_tells_what_it_pins() {
        let lock = "# made by a tool\n--index-url https://example.org/simple\n\
                    Scikit_Learn[extra]==1.5.2 ; python_version >= \"3.9\" \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n    # via x\n\
                    numpy==2.0.1 --hash=sha256:cc # the last\n\
                    tool @ https://example.org/tool.whl --hash=sha256:dd\n";
        let pins = read(lock).unwrap();
        let pins: Vec<_> = pins.iter().map(|(name, version)| format!("{name} {version}")).collect();
        assert_eq!(pins, ["numpy 2.0.1", "scikit-learn 1.5.2"]);
        assert_eq!(read(""), Ok(BTreeMap::new()));
    }

    #[test]
    fn what_is_not_pinned_by_the_lock_alone_is_refused_with_its_line() {
        let no_hash = LockError::NoHash { line: 3, requirement: "numpy==2.0.1".into() };
        assert_eq!(read("# x\na==1 --hash=sha256:aa\nnumpy==2.0.1\n"), Err(no_hash));
        let elsewhere = |text: &str| LockError::Elsewhere { line: 1, text: text.into() };
        assert_eq!(read("-r other.txt"), Err(elsewhere("-r other.txt")));
        assert_eq!(read("--find-links=wheels"), Err(elsewhere("--find-links=wheels")));
        assert_eq!(read("./a.whl --hash=sha256:aa"), Err(elsewhere("./a.whl")));
        assert_eq!(read("--find-links /srv/wheels\n"), Ok(BTreeMap::new()));
        assert_eq!(read("--target /x"), Err(LockError::Option { line: 1, option: "--target".into() }));
        assert_eq!(read_requirements(b"\xff"), Err(LockError::NotText));
    }

    #[test]
    fn the_lock_of_uv_tells_what_it_pins() {
        let lock = "version = 1\nrequires-python = \">=3.11\"\n\n[[package]]\nname = \"Foo\"\nversion = \"1.2\"\n\
                    source = { registry = \"x\" }\ndependencies = [\n    { name = \"bar\" },\n]\n\n\
                    [[package]]\nname = \"own\"\nsource = { virtual = \".\" }\n\n[[package]]\nname = \"bar\"\nversion = \"3\"\n";
        let pins: Vec<_> = read_uv(lock.as_bytes()).into_iter().collect();
        assert_eq!(pins, [("bar".to_owned(), "3".to_owned()), ("foo".to_owned(), "1.2".to_owned())]);
    }
}
