//! What a step wrote: the layer of its overlay that took it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::RunError;
use crate::disk::{self, DiskError};
use crate::path::ProjectPath;

/// Removes from a layer everything but what lies at `outputs`, and returns it: files and directories made, changed or removed.
///
/// `is_there` says whether there was something at a path before. A directory that
/// was there and is in the layer only for what is below it is not told.
///
/// # Errors
///
/// [`RunError::Disk`] if the layer cannot be read or something not be removed.
pub(super) fn strip(
    layer: &Path,
    outputs: &BTreeSet<&ProjectPath>,
    is_there: &dyn Fn(&ProjectPath) -> Result<bool, RunError>,
) -> Result<BTreeSet<ProjectPath>, RunError> {
    let mut others = BTreeSet::new();
    visit(layer, None, outputs, is_there, &mut others)?;
    Ok(others)
}

/// Shows what lies at `from` also at `to`: the same files under another name, which nobody writes to.
///
/// # Errors
///
/// [`RunError::Disk`] if it cannot be read or linked.
pub(super) fn show(from: &Path, to: &Path) -> Result<(), RunError> {
    match disk::look(from)? {
        None => {}
        Some(disk::Found::Directory) => {
            disk::make_directory(to)?;
            for entry in fs::read_dir(from).map_err(DiskError::on("list", from))? {
                let entry = entry.map_err(DiskError::on("list", from))?;
                show(&entry.path(), &to.join(entry.file_name()))?;
            }
        }
        Some(disk::Found::Symlink) => {
            let target = fs::read_link(from).map_err(DiskError::on("read", from))?;
            std::os::unix::fs::symlink(target, to).map_err(DiskError::on("link", to))?;
        }
        Some(_) if fs::hard_link(from, to).is_ok() => {}
        Some(_) => {
            // It has as many names as a file can have.
            fs::copy(from, to).map_err(DiskError::on("copy", from))?;
        }
    }
    Ok(())
}

fn visit(
    directory: &Path,
    above: Option<&ProjectPath>,
    outputs: &BTreeSet<&ProjectPath>,
    is_there: &dyn Fn(&ProjectPath) -> Result<bool, RunError>,
    others: &mut BTreeSet<ProjectPath>,
) -> Result<(), RunError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        // A step may take away its own right to look at what it made.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            others.extend(above.cloned());
            return Ok(disk::remove_tree(directory)?);
        }
        Err(error) => return Err(DiskError::on("list", directory)(error).into()),
    };
    for entry in entries {
        let entry = entry.map_err(DiskError::on("list", directory))?;
        let name = entry.file_name();
        let Ok(path) = ProjectPath::new(name.as_encoded_bytes()).map(|name| match above {
            Some(above) => above.join(name.as_bytes()),
            None => name,
        }) else {
            continue;
        };
        let kind = entry.file_type().map_err(DiskError::on("look at", &entry.path()))?;
        let is_output = outputs.contains(&path);
        // A removed path is a device of number 0 in the layer. An output that was removed is just not there.
        let is_removed = kind.is_char_device() && entry.metadata().is_ok_and(|metadata| metadata.rdev() == 0);
        if is_output && !is_removed {
            continue;
        }
        let leads_to_output = outputs.iter().any(|output| output.is_within(&path));
        if kind.is_dir() {
            visit(&entry.path(), Some(&path), outputs, is_there, others)?;
            if leads_to_output {
                continue;
            }
            if !is_there(&path)? {
                others.insert(path);
            }
        } else if !is_output {
            others.insert(path);
        }
        disk::remove_tree(&entry.path())?;
    }
    Ok(())
}
