//! A remote in a directory: on this disk, or on a share that is mounted here.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::bucket::{Body, Bucket, BucketError, Listed, Trouble};
use crate::disk::{self, DiskError};
use crate::host::Time;

/// Bytes are passed on in pieces of this size.
const BUFFER_BYTES: usize = 1 << 20;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Files below a directory, which need not be there before something is written.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
}

impl Directory {
    /// Returns the files below `root`.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Returns a file, open to be read, and its length in bytes; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`BucketError`] if it cannot be opened, or is no file.
    pub(super) fn open(&self, name: &str) -> Result<Option<(File, u64)>, BucketError> {
        let file = match File::open(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(on_io("read", name))?,
        };
        let metadata = file.metadata().map_err(on_io("read", name))?;
        if metadata.is_file() {
            return Ok(Some((file, metadata.len())));
        }
        Err(BucketError::on("read", name, Trouble::Other)("it is no file"))
    }

    /// Removes what was being written when its writer died, if that is older than a day; returns how many files that were.
    ///
    /// # Errors
    ///
    /// [`BucketError`] if one cannot be removed.
    pub fn sweep(&self, now: Time) -> Result<u64, BucketError> {
        let mut removed = 0;
        if disk::look(&self.root)?.is_none() {
            return Ok(removed);
        }
        for entry in disk::walk(&self.root) {
            let Ok((path, disk::Found::File { .. })) = entry else { continue };
            let is_left = path.file_name().is_some_and(disk::is_temporary);
            let age_ms = |written: Time| now.epoch_ms - written.epoch_ms;
            let is_old =
                fs::metadata(&path).ok().and_then(|metadata| written(&metadata)).is_some_and(|at| age_ms(at) > DAY_MS);
            if is_left && is_old {
                disk::remove_tree(&path)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn flush_names(&self, path: &Path) -> Result<(), DiskError> {
        // A new directory has a name of its own above.
        for above in path.ancestors().skip(1).take_while(|above| above.starts_with(&self.root)) {
            disk::sync_directory(above)?;
        }
        Ok(())
    }
}

impl Bucket for Directory {
    fn list(&self, directory: &str) -> Result<Vec<Listed>, BucketError> {
        let failed = || on_io("list", directory);
        let entries = match fs::read_dir(self.path(directory)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed())?,
        };
        let mut listed = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed())?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let metadata = match entry.metadata() {
                // It was removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata.map_err(failed())?,
            };
            if metadata.is_file() && !name.starts_with('.') {
                listed.push(Listed { name, bytes: metadata.len(), written: written(&metadata) });
            }
        }
        Ok(listed)
    }

    fn read(&self, name: &str, most_bytes: u64) -> Result<Option<Vec<u8>>, BucketError> {
        let Some((file, _)) = self.open(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(most_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(on_io("read", name))?;
        if bytes.len() as u64 > most_bytes {
            return Err(BucketError::on("read", name, Trouble::Garbled)(format!(
                "it is longer than {most_bytes} bytes"
            )));
        }
        Ok(Some(bytes))
    }

    fn read_span(&self, name: &str, span: Range<u64>) -> Result<Vec<u8>, BucketError> {
        let length = usize::try_from(span.end.saturating_sub(span.start)).unwrap_or_default();
        let mut bytes = vec![0; length];
        let file = File::open(self.path(name)).map_err(on_io("read", name))?;
        file.read_exact_at(&mut bytes, span.start).map_err(on_io("read", name))?;
        Ok(bytes)
    }

    fn stream_span(
        &self,
        name: &str,
        span: Range<u64>,
        take: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<(), BucketError> {
        let file = File::open(self.path(name)).map_err(on_io("read", name))?;
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut at = span.start;
        while at < span.end {
            let count = usize::try_from(span.end - at).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
            file.read_exact_at(&mut buffer[..count], at).map_err(on_io("read", name))?;
            if !take(&buffer[..count]) {
                break;
            }
            at += count as u64;
        }
        Ok(())
    }

    fn write(&self, name: &str, body: &dyn Body) -> Result<(), BucketError> {
        let path = self.path(name);
        let mut reader = body.reader();
        let fill = |file: &mut File| -> Result<(), BucketError> {
            let mut buffer = vec![0; BUFFER_BYTES.min(usize::try_from(body.bytes()).unwrap_or(BUFFER_BYTES)).max(1)];
            loop {
                match reader.read(&mut buffer).map_err(on_io("write", name))? {
                    0 => break,
                    count => file.write_all(&buffer[..count]).map_err(on_io("write", name))?,
                }
            }
            file.sync_data().map_err(on_io("write", name))
        };
        disk::write_out(&path, false, fill)?;
        Ok(self.flush_names(&path)?)
    }

    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, BucketError> {
        let path = self.path(name);
        let is_new = disk::write_new(&path, bytes)?;
        self.flush_names(&path)?;
        Ok(is_new)
    }

    fn remove(&self, name: &str) -> Result<(), BucketError> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(on_io("remove", name)),
        }
    }
}

impl From<DiskError> for BucketError {
    fn from(error: DiskError) -> Self {
        let name = error.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let trouble = trouble(error.source.kind());
        Self { action: error.action, name, trouble, source: error.source.into() }
    }
}

fn on_io(action: &'static str, name: &str) -> impl FnOnce(io::Error) -> BucketError {
    let name = name.to_owned();
    move |error| BucketError { action, name, trouble: trouble(error.kind()), source: error.into() }
}

fn trouble(kind: io::ErrorKind) -> Trouble {
    match kind {
        io::ErrorKind::NotFound => Trouble::Missing,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Trouble::Refused,
        io::ErrorKind::UnexpectedEof => Trouble::Garbled,
        _ => Trouble::Other,
    }
}

fn written(metadata: &fs::Metadata) -> Option<Time> {
    let since = metadata.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Time { epoch_ms: i64::try_from(since.as_millis()).ok()? })
}

#[cfg(test)]
mod tests {
    use super::super::contract;
    use super::*;

    #[test]
    fn a_directory_holds_what_every_bucket_promises() {
        let place = tempfile::tempdir().unwrap();
        contract::holds(&Directory::new(place.path().join("not/yet/there")));
    }
}
