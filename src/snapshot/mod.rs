//! Snapshots of a pipeline: taken from a working tree or a commit, looked into, laid out again.
//!
//! Capturing never writes to the index, to HEAD or to the user's files. What it
//! reads becomes objects in a store; the id that comes out is a pure function
//! of content. Naming and linking snapshots is the matter of records.

mod capture;
mod data;
mod gather;
mod lay_out;
mod load;
mod pins;
mod roots;
mod survey;
mod tree;
mod walk;

#[doc(hidden)]
pub mod fuzz {
    //! What a fuzzer may throw bytes at. Panics if a law is broken.

    use super::Pointer;

    /// A text that is a pointer is the text of that pointer.
    pub fn pointer(bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        if let Ok(pointer) = text.parse::<Pointer>() {
            assert_eq!(pointer.to_string().trim_end_matches('\n'), text.strip_suffix('\n').unwrap_or(&text));
        }
    }
}

use std::path::PathBuf;

use crate::disk::DiskError;
use crate::git::GitError;
use crate::object::{DecodeError, Kind, NotCanonical};
use crate::path::ProjectPath;
use crate::pipeline::{Circle, DefinitionError, ParamsError};
use crate::store::StoreError;

pub use capture::{
    Captured, Progress, Site, capture_commit, capture_working, check_committed_definition, check_definition,
    definition_path, excluded,
};
pub use data::{NotAPointer, POINTERS, Pointer, differing_pointers, pointers_in, same_pointers, write_pointers};
pub use lay_out::{CheckoutMode, lay_out, place_entry, place_file};
pub use load::{load_definition, load_pipeline};
pub use pins::{PINS, images_of, pin_name, pin_place, pins_of};
pub use roots::{capture_data, capture_path, read_pointers};
pub use survey::{Gap, Survey};
pub use tree::{Change, View, changes, data_entry, for_each_file, read_snapshot};

/// Why a snapshot could not be taken, read or laid out.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is no definition where it should be.
    #[error("{place} has no pipeline `{path}`")]
    NoPipeline {
        /// The working tree, or a commit.
        place: String,
        /// Where the definition should lie.
        path: ProjectPath,
    },
    /// The definition is not a good one.
    // Not transparent: whoever shows it looks for the picture among the causes.
    #[error("{0}")]
    Definition(#[from] DefinitionError),
    /// Steps wait for each other.
    #[error(transparent)]
    Circle(#[from] Circle),
    /// The params are not good ones.
    // Not transparent: whoever shows it looks for the picture among the causes.
    #[error("{0}")]
    Params(#[from] ParamsError),
    /// A declared input is there, but Git ignores it and no data root has it.
    #[error("input `{path}` of step `{step}` is ignored by Git and lies in no data root")]
    IgnoredInput {
        /// The step that declares it.
        step: String,
        /// The input.
        path: ProjectPath,
    },
    /// A declared data root is not there, and nothing tells what was in it.
    #[error("data root `{path}` does not exist in {place}")]
    NoData {
        /// The working tree, or a commit.
        place: String,
        /// The root.
        path: ProjectPath,
    },
    /// A data pointer is not what `pv` writes.
    #[error("data pointer `{path}` cannot be understood")]
    Pointer {
        /// The pointer file.
        path: ProjectPath,
    },
    /// The definition names an image of which nothing tells what is in it.
    #[error("{place} has no pin of the image `{image}`")]
    NoPin {
        /// The working tree, or a commit.
        place: String,
        /// The image, as `name@digest`.
        image: String,
        /// Where the pin should lie.
        path: ProjectPath,
    },
    /// The pin of an image is not what `pv` writes.
    #[error("pin `{path}` cannot be understood")]
    BadPin {
        /// The pin file.
        path: ProjectPath,
    },
    /// Something that is no file, directory or link cannot be in a snapshot.
    #[error("`{}` is a socket, pipe or device", path.display())]
    Special {
        /// Where it lies.
        path: PathBuf,
    },
    /// Two things want to be at one path.
    #[error("`{path}` is both a file and a directory")]
    Conflict {
        /// The path.
        path: ProjectPath,
    },
    /// A path of a snapshot leads through a link, so it could leave the place.
    #[error("`{path}` lies behind a symbolic link")]
    BehindLink {
        /// The path.
        path: ProjectPath,
    },
    /// What a file of the snapshot held is not in the store.
    #[error("the content of `{path}` is not in the store")]
    NoContent {
        /// The file.
        path: ProjectPath,
        /// What the store misses.
        #[source]
        source: StoreError,
    },
    /// Data of the snapshot is known by its pointers only.
    #[error("data {} is not in the store", list(paths))]
    MissingData {
        /// All roots of which the content is missing.
        paths: Vec<ProjectPath>,
    },
    /// An object that hashes right has bytes that make no sense.
    #[error("{kind} cannot be understood")]
    NotUnderstood {
        /// What it should be.
        kind: Kind,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Whoever was told of the progress asked to stop.
    #[error("stopped on request")]
    Stopped,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Git failed.
    #[error(transparent)]
    Git(#[from] GitError),
    /// A file could not be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A value has no canonical form.
    #[error(transparent)]
    NotCanonical(#[from] NotCanonical),
}

fn list(paths: &[ProjectPath]) -> String {
    paths.iter().map(|path| format!("`{path}`")).collect::<Vec<_>>().join(", ")
}

impl SnapshotError {
    fn undecodable(kind: Kind) -> impl FnOnce(DecodeError) -> Self {
        move |source| Self::NotUnderstood { kind, source: Box::new(source) }
    }
}
