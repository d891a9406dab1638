//! Files read in place.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

use super::DiskError;

/// The bytes of a file, in place.
#[derive(Debug)]
pub struct Mapped(memmap2::Mmap);

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Returns the bytes of the file at `path` as it is now, without reading them; `None` if there is no file.
///
/// For files that `pv` alone writes and then never changes: it makes them
/// under another name, and replaces or removes them as a whole, of which a
/// mapping takes no notice.
///
/// # Errors
///
/// [`DiskError`] for any failure but absence.
pub fn map_file(path: &Path) -> Result<Option<Mapped>, DiskError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(DiskError::on("read", path))?,
    };
    #[expect(unsafe_code, reason = "no safe call maps a file; see below")]
    // SAFETY: bytes behind a `&[u8]` must not change. These files are complete before they get their name and are
    // never written again, so only somebody who bypasses `pv` could change them; such bytes are wrong, and are
    // checked like all others. One who shortens the file ends this process by a signal, but lets it do nothing wrong.
    let mapped = unsafe { memmap2::Mmap::map(&file) };
    Ok(Some(Mapped(mapped.map_err(DiskError::on("read", path))?)))
}
