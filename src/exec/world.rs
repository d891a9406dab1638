//! The world of an isolated job: its own view of the file system, made of the machine's and an overlay.
//!
//! The job sees the machine's files where they are, and besides a directory of
//! its own, [`PLACE`], always at this path: `work` is an overlay of layers that nobody writes to and
//! one that takes what the job writes; the rest is its own. The table of
//! processes, shared memory and the machine's name are its own too.

use std::path::PathBuf;

/// Where an isolated job finds its own directory.
pub const PLACE: &str = "/pv";
/// Where an isolated job works.
pub const WORKPLACE: &str = "/pv/work";

/// The view of the file system that a job gets.
#[derive(Clone, Debug)]
pub struct World {
    /// The directory that everything below is given relative to, absolute. It must be on a file system that can carry an overlay.
    pub base: PathBuf,
    /// The layers of the working place that are only read, the topmost first, relative to `base`.
    pub lower: Vec<PathBuf>,
    /// The layer that takes what the job writes, relative to `base`, and a directory beside it that the overlay needs, empty.
    pub upper: (PathBuf, PathBuf),
    /// What becomes [`PLACE`], relative to `base`: a directory with `work`, empty, and whatever else the job has for itself.
    pub room: PathBuf,
    /// A directory, empty, in which the new tree is begun, relative to `base`.
    pub root: PathBuf,
    /// Where the overlay lies, as the job sees it: a directory that is in `room`, most often [`WORKPLACE`].
    pub workplace: PathBuf,
    /// Whether the network is cut off but for the job's own loopback.
    pub offline: bool,
    /// The files that lie where the machine's would be otherwise.
    pub image: Option<Image>,
    /// Trees of the machine that the job may read and not change, absolute and without links; none where it has an image's files.
    pub read_only: Vec<PathBuf>,
}

/// The files of an image, under an overlay that takes what the job writes among them.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its files, only read, relative to [`World::base`].
    pub files: PathBuf,
    /// The layer over them, and a directory beside it that the overlay needs, both empty, relative to [`World::base`].
    pub upper: (PathBuf, PathBuf),
    /// The numbers of the user and the group that the job runs as inside: to everybody else it is who this process is.
    pub user: (u32, u32),
}
