//! Remotes: places outside of this machine that hold the same objects.
//!
//! A remote is a set of named files ([`Bucket`]): packs that never change, and
//! their indexes. What it holds is told by the indexes alone, which are
//! remembered here ([`Catalog`]), so that nobody asks for one object after the
//! other. Nothing is believed: whatever comes is hashed before it counts.
//! Data goes first, its index last; so what an index names is there.

mod address;
mod bucket;
mod catalog;
mod cloud;
mod collect;
mod connect;
#[cfg(test)]
mod contract;
mod directory;
mod fetch;
mod fetching;
mod inspect;
mod lease;
mod registry;
mod send;
mod serve;
mod ssh;
mod surroundings;
#[cfg(test)]
mod tests;
mod wire;

use crate::disk::DiskError;
use crate::store::StoreError;

pub use address::{Address, NotAnAddress};
pub use bucket::{Body, Bucket, BucketError, Counted, Listed, Trouble};
pub use catalog::{Catalog, is_there};
pub use cloud::Cloud;
pub use collect::{LEASE_MS, Sweep, Swept, sweep};
pub use connect::connect;
pub use directory::Directory;
pub use fetch::{Closure, Fetched, Lacking, Way, leads_on};
pub use fetching::{Connect, Connection, Fetching, JOBS, Unfetched, Watch, holds};
pub use inspect::{Depth, Inspected, Mended, PackFlaw, inspect};
pub use registry::Registry;
pub use send::{Sent, Shipment};
pub use serve::{ServeError, serve};
pub use ssh::{Programs, Ssh};
pub use surroundings::{Patience, Surroundings};
pub use wire::WireError;

/// What the file `FORMAT` of a remote begins with.
pub const REMOTE_FORMAT: &str = "pv-remote 1";

/// Told of bytes as they have gone either way. Once it returns `false`, nothing further is begun.
pub type Progress<'a> = &'a (dyn Fn(u64) -> bool + Sync);

/// Why something did not get to a remote, or from it.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The remote has a format that this version does not know.
    #[error("the remote has the format `{found}`")]
    Format {
        /// What its `FORMAT` file begins with.
        found: String,
    },
    /// The remote needs something that this version does not know.
    #[error("the remote requires `{feature}`")]
    Feature {
        /// Its name.
        feature: String,
    },
    /// Something else lies where the remote should be.
    #[error("other files lie there, and no remote")]
    Occupied,
    /// A file of the remote is not what its name says.
    #[error("`{file}` is not what its name says")]
    Wrong {
        /// Its name.
        file: String,
    },
    /// Packs were condemned since it was looked what is there.
    #[error("others are taking garbage away from the remote")]
    Changed,
    /// The user wants no more.
    #[error("the transfer was interrupted")]
    Interrupted,
    /// The remote cannot be asked.
    #[error(transparent)]
    Bucket(BucketError),
    /// The store of this machine failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file of this machine cannot be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
}
