//! Why records cannot be read or added.

use std::path::PathBuf;

use crate::disk::DiskError;
use crate::git::GitError;

/// Why records could not be read or added.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A record's bytes do not match its name any more.
    #[error("record `{}` is corrupt", path.display())]
    Corrupt {
        /// Where it lies.
        path: PathBuf,
    },
    /// A record's bytes are those that were written, yet they make no sense.
    #[error("record `{}` cannot be understood", path.display())]
    NotUnderstood {
        /// Where it lies.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A server takes records under no name.
    #[error("`{remote}` refuses `{reference}`: `{reason}`")]
    Refused {
        /// The remote.
        remote: String,
        /// What was refused last.
        reference: &'static str,
        /// What the server said.
        reason: String,
    },
    /// Others were faster again and again.
    #[error("others kept changing the records on `{remote}`: `{reason}`")]
    Overtaken {
        /// The remote.
        remote: String,
        /// What git said the last time.
        reason: String,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The ref could not be read or written.
    #[error(transparent)]
    Git(#[from] GitError),
}
