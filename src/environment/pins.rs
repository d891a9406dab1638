//! The pins of images that were taken in: one file each, in the project and in the Git directory.
//!
//! The one in the project is committed, and so says to everybody what the image holds. The one in
//! the Git directory keeps the files of the image in the store, whatever is checked out.

use std::fs;
use std::path::{Path, PathBuf};

use crate::disk::{self, DiskError, Durability};
use crate::object::Pin;

const ENDING: &str = "json";
const PREFIX: &str = "sha256:";

/// Why pins could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// A pin is not what `pv` writes.
    #[error("pin `{}` cannot be understood", path.display())]
    NotUnderstood {
        /// The file.
        path: PathBuf,
    },
    /// A file or directory cannot be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Returns the pins in a directory, sorted by their images; none if there is no such directory.
///
/// # Errors
///
/// [`PinsError`] if one of them cannot be read or understood.
pub fn read_pins(directory: &Path) -> Result<Vec<Pin>, PinsError> {
    let listed = match fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.map_err(DiskError::on("list", directory))?,
    };
    let mut pins = Vec::new();
    for entry in listed {
        let path = entry.map_err(DiskError::on("list", directory))?.path();
        let Some(hex) = path.file_stem().and_then(|stem| stem.to_str()).filter(|_| has_ending(&path)) else { continue };
        let image = format!("{PREFIX}{hex}");
        let Some(text) = disk::read_if_there(&path)? else { continue };
        pins.push(Pin::of_text(&text, &image).ok_or_else(|| PinsError::NotUnderstood { path: path.clone() })?);
    }
    pins.sort_by(|a, b| a.image.cmp(&b.image));
    Ok(pins)
}

/// Writes a pin into a directory, which is made if it is not there.
///
/// # Errors
///
/// [`DiskError`] if it cannot be written.
pub fn write_pin(directory: &Path, pin: &Pin) -> Result<(), DiskError> {
    let hex = pin.image.strip_prefix(PREFIX).unwrap_or(&pin.image);
    disk::write_whole(&directory.join(hex).with_extension(ENDING), &pin.to_text(), Durability::Synced)
}

/// Removes the pin of an image from a directory; one that is not there is as good.
///
/// # Errors
///
/// [`DiskError`] if it cannot be removed.
pub fn remove_pin(directory: &Path, image: &str) -> Result<(), DiskError> {
    let hex = image.strip_prefix(PREFIX).unwrap_or(image);
    disk::remove_tree(&directory.join(hex).with_extension(ENDING))
}

fn has_ending(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == ENDING)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{PinConfig, TreeId};

    #[test]
    fn pins_are_read_as_they_were_written_and_one_that_is_none_is_named() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("environments");
        assert_eq!(read_pins(&directory).unwrap(), []);
        let pin = |digit: &str| Pin {
            image: format!("sha256:{}", digit.repeat(64)),
            tree: TreeId::of(digit.as_bytes()),
            config: PinConfig::default(),
            files: 1,
            bytes: 2,
        };
        for digit in ["b", "a"] {
            write_pin(&directory, &pin(digit)).unwrap();
        }
        assert_eq!(read_pins(&directory).unwrap(), [pin("a"), pin("b")]);
        let bad = directory.join("c".repeat(64)).with_extension("json");
        disk::write_whole(&bad, &pin("a").to_text(), Durability::Deferred).unwrap();
        assert!(matches!(read_pins(&directory), Err(PinsError::NotUnderstood { path }) if path == bad));
    }
}
