//! What a step runs in, as a definition says it.
//!
//! Only what stays what it is can be named: an image by the digest of its manifest, a Python by
//! a lock. Whether such an environment can be had here is for whoever provides it.

use serde::{Deserialize, Serialize};

use crate::object::is_image_digest;
use crate::path::ProjectPath;
use crate::yaml::{Node, Value};

use super::field::Reader;
use super::problem::{Finding, quoted};
use super::reader::unknown_key;

/// What the steps of a pipeline run in.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// This machine, as it is.
    #[default]
    Host,
    /// The files of an image.
    Image(Image),
    /// A Python of this version, with just the packages of a lock.
    Python(Python),
}

/// An OCI image.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Where it comes from, such as `docker.io/library/python`.
    pub name: String,
    /// The digest of its manifest: `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// What runs a step in it.
    #[serde(default, skip_serializing_if = "Runtime::is_pv")]
    pub runtime: Runtime,
}

/// What runs a step in an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// This program, which sees all that the step does.
    #[default]
    Pv,
    /// Podman.
    Podman,
    /// The Docker daemon.
    Docker,
    /// Apptainer.
    Apptainer,
}

/// A Python with the packages of a lock.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Python {
    /// Its version, of two or three numbers: `3.11`.
    pub version: String,
    /// The file with the packages, their versions and their hashes.
    pub lock: ProjectPath,
}

const RUNTIMES: [(&str, Runtime); 4] =
    [("pv", Runtime::Pv), ("podman", Runtime::Podman), ("docker", Runtime::Docker), ("apptainer", Runtime::Apptainer)];

const EXPECTED: &str = "`host`, or a map with `image` or `python`";

impl Environment {
    pub(super) fn is_host(&self) -> bool {
        *self == Self::Host
    }
}

impl Runtime {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_pv(&self) -> bool {
        *self == Self::Pv
    }
}

impl std::fmt::Display for Image {
    /// Writes it as a definition does: `name@sha256:...`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.name, self.digest)
    }
}

/// Returns the environment that a value stands for; notes what is wrong with it.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<Environment> {
    match &node.value {
        Value::Text(text) if text == "host" => return Some(Environment::Host),
        Value::Text(text) => {
            let finding = Finding::new(format_args!("{what} must be {EXPECTED}, found {}", quoted(text)));
            let hint = "for an image, write `{image: \"name@sha256:...\"}`; `pv env add <image>` does that";
            reader.note(finding.at(&node.span, "no environment has this name").hint(hint));
            return None;
        }
        Value::Map(_) => {}
        _ => {
            reader.wrong(node, what, EXPECTED);
            return None;
        }
    }
    let entries = reader.map(node, what, EXPECTED)?;
    let (mut image, mut runtime, mut python) = (None, None, None);
    for (key, node) in entries {
        let inner = format!("`{}` in {what}", key.text);
        match key.text.as_str() {
            "image" | "runtime" | "python" if !reader.is_given(key, node, &inner) => {}
            "image" => image = Some((node, image_of(reader, node, &inner))),
            "runtime" => runtime = Some((key, reader.choice(node, &inner, &RUNTIMES))),
            "python" => python = Some((key, python_of(reader, node, &inner))),
            _ => unknown_key(
                reader,
                key,
                what,
                "no environment has such a key",
                &["image", "runtime", "python"],
                &[("container", "image"), ("docker", "image"), ("engine", "runtime")],
            ),
        }
    }
    match (image, python) {
        (Some((_, image)), None) => {
            let runtime = runtime.map_or(Some(Runtime::Pv), |(_, runtime)| runtime);
            let (name, digest) = image?;
            Some(Environment::Image(Image { name, digest, runtime: runtime? }))
        }
        (None, Some((_, python))) => {
            if let Some((key, _)) = runtime {
                let finding = Finding::new(format_args!("{what} has a `runtime`, but no `image`"));
                reader.note(finding.at(&key.span, "only an image has a runtime").hint("remove it"));
                return None;
            }
            python.map(Environment::Python)
        }
        (Some(_), Some((key, _))) => {
            let finding = Finding::new(format_args!("{what} has both an `image` and a `python`"));
            let hint = "a step runs in one of them: an image brings its own Python";
            reader.note(finding.at(&key.span, "remove one of them").hint(hint));
            None
        }
        (None, None) => {
            let misnamed = entries.iter().any(|(key, _)| !matches!(key.text.as_str(), "runtime"));
            if !misnamed {
                reader.wrong(node, what, EXPECTED);
            }
            None
        }
    }
}

fn image_of(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<(String, String)> {
    let text = reader.text(node, what, "text such as `name@sha256:...`")?;
    let pinned = text.split_once('@').filter(|(name, digest)| {
        let is_name = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '@');
        is_name && is_image_digest(digest)
    });
    if let Some((name, digest)) = pinned {
        return Some((name.to_owned(), digest.to_owned()));
    }
    let finding = Finding::new(format_args!("{what} is not pinned: {}", quoted(&text)));
    let (label, hint) = if text.contains('@') {
        (
            "a digest is `sha256:` and 64 of the digits 0-9 and a-f",
            "copy it whole, as `pv env add` prints it".to_owned(),
        )
    } else {
        (
            "a tag can stand for another image tomorrow",
            format!("`pv env add {text}` fetches it and writes its digest here"),
        )
    };
    reader.note(finding.at(&node.span, label).hint(hint));
    None
}

fn python_of(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<Python> {
    const EXPECTED: &str = "a map with `version` and `lock`";
    let entries = reader.map(node, what, EXPECTED)?;
    let (mut version, mut lock) = (None, None);
    for (key, node) in entries {
        let inner = format!("`{}` in {what}", key.text);
        match key.text.as_str() {
            "version" | "lock" if !reader.is_given(key, node, &inner) => return None,
            "version" => version = Some(version_of(reader, node, &inner)?),
            "lock" => lock = Some(reader.path(node, &inner, "a path")?),
            _ => {
                let synonyms = [("requirements", "lock"), ("packages", "lock")];
                unknown_key(reader, key, what, "no Python has such a key", &["version", "lock"], &synonyms);
                return None;
            }
        }
    }
    match (version, lock) {
        (Some(version), Some(lock)) => Some(Python { version, lock }),
        (version, _) => {
            let (lacks, hint) = if version.is_none() {
                ("version", "write `version: \"3.11\"`")
            } else {
                ("lock", "write `lock: requirements.lock`; `pv env lock` makes such a file")
            };
            let finding = Finding::new(format_args!("{what} has no `{lacks}`"));
            reader.note(finding.at(&node.span, format_args!("expected {EXPECTED}")).hint(hint));
            None
        }
    }
}

fn version_of(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<String> {
    // Unquoted, 3.10 would be 3.1: `text` says so.
    let text = reader.text(node, what, "text such as \"3.11\"")?;
    let parts: Vec<_> = text.split('.').collect();
    let is_number = |part: &&str| matches!(part.len(), 1..=3) && part.bytes().all(|byte| byte.is_ascii_digit());
    if (2..=3).contains(&parts.len()) && parts.iter().all(is_number) {
        return Some(text);
    }
    let finding = Finding::new(format_args!("{what} is no version of Python: {}", quoted(&text)));
    reader.note(finding.at(&node.span, "expected two or three numbers, such as \"3.11\""));
    None
}
