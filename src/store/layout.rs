//! Where things lie in the directory of a store, and what its format is called.
//!
//! The one place that knows the names; `docs/format.md` describes them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{StoreError, has_prefix};
use crate::disk::{self, Disk, DiskError, Durability, Flush};
use crate::hash::Digest;
use crate::object::Kind;

/// What the file `FORMAT` says.
const FORMAT: &str = "pv-store 2\n";
/// What it said when every object was a file of its own. Such a store is read as it is, and becomes one of
/// today's with the first write; the older `pv` then refuses it, because it would not find what is in packs.
const FORMAT_OF_LOOSE: &str = "pv-store 1\n";
/// What it says once the store lies elsewhere, so that nobody begins a new one here.
const FORMAT_OF_MOVED: &str = "pv-store moved\n";
/// An unknown format is quoted up to this length.
const QUOTED_CHARS: usize = 40;
/// Objects are spread over directories named by this many digits.
const SHARD_DIGITS: usize = 2;

/// The directory of a store.
pub(super) struct Layout(PathBuf);

impl Layout {
    pub(super) fn new(root: &Path) -> Self {
        Self(root.to_owned())
    }

    /// Returns the directory of the store.
    pub(super) fn root(&self) -> &Path {
        &self.0
    }

    /// Returns where an object lies once it is published.
    pub(super) fn object(&self, kind: Kind, digest: Digest) -> PathBuf {
        let hex = digest.to_string();
        let (shard, rest) = hex.split_at(SHARD_DIGITS);
        self.kind(kind).join(shard).join(rest)
    }

    /// Returns the directory of the packs.
    pub(super) fn packs(&self) -> PathBuf {
        self.0.join("packs")
    }

    /// Returns the directory of what a collection of garbage has to remember.
    pub(super) fn collection(&self) -> PathBuf {
        self.0.join("gc")
    }

    /// Returns the lock of whoever takes packs away: a collection of garbage, or a merge.
    pub(super) fn collecting(&self) -> PathBuf {
        self.collection().join("lock")
    }

    /// Returns the file that says what is going to be taken away.
    pub(super) fn condemned(&self) -> PathBuf {
        self.collection().join("condemned")
    }

    /// Returns the directory of what was taken away and can still be put back.
    pub(super) fn trash(&self) -> PathBuf {
        self.0.join("trash")
    }

    /// Returns the directory of the list of users.
    pub(super) fn users(&self) -> PathBuf {
        self.0.join("users")
    }

    /// Returns where damaged files are kept.
    pub(super) fn quarantine(&self) -> PathBuf {
        self.0.join("quarantine")
    }

    /// Returns the file that remembers what was found whole, and when.
    pub(super) fn verified(&self) -> PathBuf {
        self.0.join("verified")
    }

    /// Returns the directories of the objects of this kind that are files of their own.
    pub(super) fn shards(&self, kind: Kind) -> Result<Vec<PathBuf>, DiskError> {
        let directory = self.kind(kind);
        let shards = names(&directory)?;
        Ok(shards.iter().filter(|name| is_shard(name)).map(|name| directory.join(name)).collect())
    }

    /// Returns the directory of the sessions.
    pub(super) fn sessions(&self) -> PathBuf {
        self.0.join("tmp")
    }

    /// Fails if the directory says that it is a store of another format. One that says nothing is a new store.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match disk::read_if_there(&self.format())? {
            Some(bytes) if bytes == FORMAT_OF_MOVED.as_bytes() => Err(StoreError::Moved { path: self.0.clone() }),
            Some(bytes) if bytes != FORMAT.as_bytes() && bytes != FORMAT_OF_LOOSE.as_bytes() => {
                let text = String::from_utf8_lossy(&bytes);
                let found = text.lines().next().unwrap_or_default().chars().take(QUOTED_CHARS).collect();
                Err(StoreError::Version { path: self.0.clone(), found })
            }
            _ => Ok(()),
        }
    }

    /// Returns whether the directory says that it is a store.
    pub(super) fn is_there(&self) -> Result<bool, DiskError> {
        Ok(disk::read_if_there(&self.format())?.is_some())
    }

    /// Returns whether the directory says that its store lies elsewhere now.
    pub(super) fn is_moved(&self) -> Result<bool, DiskError> {
        Ok(disk::read_if_there(&self.format())?.is_some_and(|bytes| bytes == FORMAT_OF_MOVED.as_bytes()))
    }

    /// Says, durably, that the store lies elsewhere now.
    pub(super) fn mark_moved(&self, disk: &dyn Disk) -> Result<(), DiskError> {
        disk::write_whole_on(disk, &self.format(), FORMAT_OF_MOVED.as_bytes(), Durability::Synced)
    }

    /// Makes the directory a store of this format, durably, if it is none yet.
    pub(super) fn establish(&self, disk: &dyn Disk) -> Result<(), StoreError> {
        self.check()?;
        self.make(disk)
    }

    /// Does what [`Layout::establish`] does, also where a store was moved away from.
    pub(super) fn establish_again(&self, disk: &dyn Disk) -> Result<(), StoreError> {
        if !self.is_moved()? {
            self.check()?;
        }
        self.make(disk)
    }

    fn make(&self, disk: &dyn Disk) -> Result<(), StoreError> {
        if disk::read_if_there(&self.format())?.is_some_and(|bytes| bytes == FORMAT.as_bytes()) {
            return Ok(());
        }
        let new: Vec<_> = self.0.ancestors().skip(1).take_while(|above| !above.exists()).collect();
        disk::make_directories(disk, &self.packs())?;
        // Every directory above that has a new entry; `FORMAT` is last, so that where it is, all this was done.
        for path in std::iter::once(self.root()).chain(new) {
            disk.flush(Flush::Directory(disk::parent(path)))?;
        }
        Ok(disk::write_whole_on(disk, &self.format(), FORMAT.as_bytes(), Durability::Synced)?)
    }

    /// Returns the names of the published objects of this kind that start with `hex_prefix`.
    pub(super) fn find(&self, kind: Kind, hex_prefix: &str) -> Result<BTreeSet<Digest>, DiskError> {
        let directory = self.kind(kind);
        let shards = match hex_prefix.get(..SHARD_DIGITS) {
            Some(shard) => vec![shard.to_ascii_lowercase()],
            None => names(&directory)?,
        };
        let mut found = BTreeSet::new();
        for shard in shards.iter().filter(|name| is_shard(name)) {
            for rest in names(&directory.join(shard))? {
                let hex = format!("{shard}{rest}");
                // What else lies there is not of this room's making, and no object.
                if has_prefix(&hex, hex_prefix)
                    && let Ok(digest) = hex.parse::<Digest>()
                    && digest.to_string() == hex
                {
                    found.insert(digest);
                }
            }
        }
        Ok(found)
    }

    fn format(&self) -> PathBuf {
        self.0.join("FORMAT")
    }

    /// Returns the directory of the objects that are files of their own.
    pub(super) fn objects(&self) -> PathBuf {
        self.0.join("objects")
    }

    fn kind(&self, kind: Kind) -> PathBuf {
        self.objects().join(kind.name())
    }
}

fn is_shard(name: &str) -> bool {
    name.len() == SHARD_DIGITS && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Returns the names in `directory` that are text, none if it is missing.
fn names(directory: &Path) -> Result<Vec<String>, DiskError> {
    let listed = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.map_err(DiskError::on("read", directory))?,
    };
    let names = listed.map(|entry| Ok(entry?.file_name().into_string().ok()));
    names.filter_map(Result::transpose).collect::<io::Result<_>>().map_err(DiskError::on("read", directory))
}
