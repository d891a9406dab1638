//! A store that gets what it lacks from a remote when it is asked for it.

use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::RemoteError;
use super::bucket::Counted;
use super::catalog::Catalog;
use super::fetch::{Closure, Way, is_telling};
use crate::hash::Digest;
use crate::object::{BlobId, Kind, SnapshotId};
use crate::retention::{self, RetentionError, Roots};
use crate::store::{Live, LocalStore, Part, Put, Source, Store, StoreError};

/// What a remote is reached through, and what it holds.
pub struct Connection {
    /// Its files.
    pub bucket: Counted,
    /// What is in them.
    pub catalog: Catalog,
}

/// How a remote is reached, once somebody needs it.
pub type Connect<'a> = Box<dyn Fn() -> Result<Connection, RemoteError> + Send + Sync + 'a>;

/// Told of bytes as they come. Once it returns `false`, nothing further is fetched.
pub type Watch<'a> = Box<dyn Fn(u64) -> bool + Send + Sync + 'a>;

/// A store over that of this machine, which has everything that a remote has.
///
/// The remote is not asked before something is missing here. What it cannot give counts as missing: why, is told by
/// [`Fetching::trouble`].
pub struct Fetching<'a> {
    local: &'a LocalStore,
    connect: Option<Connect<'a>>,
    connection: OnceLock<Option<Connection>>,
    trouble: Mutex<Option<RemoteError>>,
    progress: Watch<'a>,
    received: AtomicU64,
}

impl<'a> Fetching<'a> {
    /// Returns a store over `local` that reaches its remote by `connect`, or has none.
    pub fn over(local: &'a LocalStore, connect: Option<Connect<'a>>, progress: Watch<'a>) -> Self {
        Self {
            local,
            connect,
            connection: OnceLock::new(),
            trouble: Mutex::default(),
            progress,
            received: AtomicU64::new(0),
        }
    }

    /// Returns how many objects came from the remote, and how many bytes went over the wire for that.
    pub fn received(&self) -> (u64, u64) {
        let moved =
            self.connection.get().and_then(Option::as_ref).map_or(0, |connection| connection.bucket.moved_bytes());
        (self.received.load(Ordering::Relaxed), moved)
    }

    /// Returns the first failure of the remote, once.
    pub fn trouble(&self) -> Option<RemoteError> {
        self.lock_trouble().take()
    }

    /// Fetches at once everything that `roots` lead to, if something of it is missing here.
    ///
    /// Without files a snapshot that is here has all that it leads to: what lacks all the same is fetched when it is asked
    /// for. With files costs a look at every object. Costs nothing where there is no remote.
    ///
    /// # Errors
    ///
    /// [`RetentionError`] if something that is here cannot be understood. What the remote cannot give is no error.
    pub fn fetch(&self, roots: &Roots, with_files: bool) -> Result<(), RetentionError> {
        if self.connect.is_none() {
            return Ok(());
        }
        let is_here = |id: &SnapshotId| matches!(self.local.length(Kind::Snapshot, id.digest()), Ok(Some(_)));
        if !with_files && roots.outputs.is_empty() && roots.snapshots.iter().all(is_here) {
            return Ok(());
        }
        let closure = |store: &LocalStore| retention::reachable(store, roots);
        let live = closure(self.local)?;
        let is_wanted = |kind: Kind| with_files || is_telling(kind);
        let lacks = |(kind, digest): &(Kind, Digest)| {
            is_wanted(*kind) && !matches!(self.local.length(*kind, *digest), Ok(Some(_)))
        };
        if !live.iter().any(lacks) {
            return Ok(());
        }
        let Some(connection) = self.connection() else { return Ok(()) };
        let way =
            Way { bucket: &connection.bucket, catalog: &connection.catalog, jobs: JOBS, progress: &*self.progress };
        match self.fetch_by(&way, &|store| closure(store).map_err(Unfetched::Local), with_files) {
            Ok(()) => Ok(()),
            Err(Unfetched::Local(error)) => Err(error),
            Err(Unfetched::Remote(error)) => {
                self.note(error);
                Ok(())
            }
        }
    }

    /// Fetches one object, and what is below it if that is a directory. Returns whether there is hope that it is here now.
    fn fetch_one(&self, kind: Kind, digest: Digest) -> bool {
        let Some(connection) = self.connection() else { return false };
        if !holds(&connection.catalog, kind, digest) {
            return false;
        }
        let also = Live::from([(kind, digest)]);
        let way = Way { bucket: &connection.bucket, catalog: &connection.catalog, jobs: 1, progress: &*self.progress };
        let directories = is_telling(kind);
        let closure = |store: &LocalStore| {
            let live = if directories {
                retention::mark(store, &Roots::default(), &also).map_err(Unfetched::Local)?
            } else {
                also.clone()
            };
            Ok(live)
        };
        match self.fetch_by(&way, &closure, !directories) {
            Ok(()) => true,
            Err(Unfetched::Local(_)) => false,
            Err(Unfetched::Remote(error)) => {
                self.note(error);
                false
            }
        }
    }

    fn fetch_by(&self, way: &Way<'_>, closure: Closure<'_, Unfetched>, with_files: bool) -> Result<(), Unfetched> {
        let mut lacking = way.survey(self.local, closure)?;
        if !with_files {
            lacking.files.clear();
        }
        let fetched = way.fetch(self.local, &lacking)?;
        self.received.fetch_add(fetched.received, Ordering::Relaxed);
        Ok(())
    }

    /// Returns the way to the remote, and what it holds; `None` if there is none, or [`Fetching::trouble`] with it.
    pub fn connection(&self) -> Option<&Connection> {
        let connected = self
            .connection
            .get_or_init(|| self.connect.as_ref().and_then(|connect| connect().map_err(|error| self.note(error)).ok()));
        connected.as_ref()
    }

    fn note(&self, error: RemoteError) {
        self.lock_trouble().get_or_insert(error);
    }

    fn lock_trouble(&self) -> MutexGuard<'_, Option<RemoteError>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `act` on the store of this machine, and once more if what was missing could be fetched.
    fn or_fetched<T>(
        &self,
        kind: Kind,
        digest: Digest,
        act: impl Fn(&LocalStore) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match act(self.local) {
            Err(StoreError::Missing { .. }) if self.fetch_one(kind, digest) => act(self.local),
            done => done,
        }
    }
}

/// So many ways are used at once where much is fetched.
pub const JOBS: usize = 4;

/// Why something was not fetched: what is needed is not known here, or the remote did not give it.
#[derive(Debug, thiserror::Error)]
pub enum Unfetched {
    /// Something that is here cannot be read or understood.
    #[error(transparent)]
    Local(RetentionError),
    /// The remote failed.
    #[error(transparent)]
    Remote(RemoteError),
}

impl From<RemoteError> for Unfetched {
    fn from(error: RemoteError) -> Self {
        Self::Remote(error)
    }
}

/// Returns whether a remote holds an object, as far as it is not in pieces; of one in pieces, whether it has their list.
pub fn holds(catalog: &Catalog, kind: Kind, digest: Digest) -> bool {
    catalog.has(Part::object(kind, digest)) || (kind == Kind::Blob && catalog.has(Part::list(digest)))
}

impl Store for Fetching<'_> {
    fn put(&self, kind: Kind, source: Source<'_>) -> Result<Put, StoreError> {
        self.local.put(kind, source)
    }

    fn open(&self, kind: Kind, digest: Digest) -> Result<Box<dyn Read + Send>, StoreError> {
        self.or_fetched(kind, digest, |local| local.open(kind, digest))
    }

    /// Says of what the remote has that it is here: it will be once it is asked for.
    fn length(&self, kind: Kind, digest: Digest) -> Result<Option<u64>, StoreError> {
        if let Some(length) = self.local.length(kind, digest)? {
            return Ok(Some(length));
        }
        let Some(Connection { catalog, .. }) = self.connection() else { return Ok(None) };
        let found = catalog.find(Part::object(kind, digest));
        let found = found.or_else(|| (kind == Kind::Blob).then(|| catalog.find(Part::list(digest)))?);
        Ok(found.map(|(_, placed)| placed.length()))
    }

    /// Only this machine is asked: a name that is given in part is looked for among what is here.
    fn find(&self, kind: Kind, hex_prefix: &str) -> Result<Vec<Digest>, StoreError> {
        self.local.find(kind, hex_prefix)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.local.sync()
    }

    fn export(&self, id: BlobId, to: &Path, executable: bool) -> Result<(), StoreError> {
        self.or_fetched(Kind::Blob, id.digest(), |local| local.export(id, to, executable))
    }

    fn link(&self, id: BlobId, to: &Path) -> Result<bool, StoreError> {
        self.or_fetched(Kind::Blob, id.digest(), |local| local.link(id, to))
    }
}
