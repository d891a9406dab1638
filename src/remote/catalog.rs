//! What a remote holds: the indexes of its packs, remembered here, because they never change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::bucket::{Bucket, BucketError, Trouble};
use super::collect::condemned;
use super::{REMOTE_FORMAT, RemoteError};
use crate::disk::{self, DiskError, Durability};
use crate::hash::Digest;
use crate::store::{INDEX_MAX_BYTES, PackIndex, Part, Placed};

/// The file that says what a remote is.
pub(super) const FORMAT_FILE: &str = "FORMAT";
/// The directory of the indexes.
pub(super) const INDEXES: &str = "index";
/// The list of the indexes, for those who cannot list.
pub(super) const LIST: &str = "list";
const FORMAT_MAX_BYTES: u64 = 4096;
/// A line of the format begins with this where it names something that a reader must know.
const REQUIRES: &str = "requires ";
/// So many indexes are fetched at once.
const AT_ONCE: usize = 4;

/// The packs of a remote.
pub struct Catalog {
    indexes: BTreeMap<Digest, PackIndex>,
    /// Packs that are to go: for whoever sends, what is in them is absent.
    condemned: BTreeSet<Digest>,
    /// The files that say so.
    condemnations: BTreeSet<String>,
    memory: PathBuf,
}

impl Catalog {
    /// Returns what is in the remote by now; nothing if there is none yet.
    ///
    /// `memory` is a directory of this machine in which indexes are kept from one time to the next. Costs a look at the
    /// format, two lists, and the reading of each index that is not remembered yet.
    ///
    /// # Errors
    ///
    /// [`RemoteError::Format`] if the remote is of another format, or needs something that this version does not know,
    /// [`RemoteError::Bucket`] if it cannot be read, [`RemoteError::Disk`] if the memory cannot be written.
    pub fn open(bucket: &dyn Bucket, memory: &Path) -> Result<Self, RemoteError> {
        let mut catalog = Self::empty(memory);
        if is_there(bucket)? {
            catalog.refresh(bucket)?;
        }
        Ok(catalog)
    }

    /// Looks for packs that have come since, and forgets those that are gone.
    ///
    /// # Errors
    ///
    /// As [`Catalog::open`].
    pub fn refresh(&mut self, bucket: &dyn Bucket) -> Result<(), RemoteError> {
        // In this order: what goes is condemned first.
        (self.condemned, self.condemnations) = condemned(bucket)?;
        let names = names(bucket)?;
        self.indexes.retain(|name, _| names.contains_key(name));
        let mut unknown = Vec::new();
        for name in names.keys().filter(|name| !self.indexes.contains_key(name)).copied().collect::<Vec<_>>() {
            match PackIndex::open(&self.file(name))? {
                Some(index) if index.name() == name => drop(self.indexes.insert(name, index)),
                _ => unknown.push(name),
            }
        }
        for names in unknown.chunks(AT_ONCE) {
            let fetched: Vec<_> = std::thread::scope(|scope| {
                let fetch = |name: &Digest| {
                    let name = *name;
                    scope.spawn(move || fetch_index(bucket, name))
                };
                let fetching: Vec<_> = names.iter().map(fetch).collect();
                fetching
                    .into_iter()
                    .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                    .collect()
            });
            for (name, index) in names.iter().zip(fetched) {
                // One that went meanwhile went with its pack.
                if let Some(index) = index? {
                    self.remember(*name, index.bytes())?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn empty(memory: &Path) -> Self {
        Self {
            indexes: BTreeMap::new(),
            condemned: BTreeSet::new(),
            condemnations: BTreeSet::new(),
            memory: memory.to_owned(),
        }
    }

    /// Adds an index by what is remembered of it, if anything is.
    pub(super) fn recall(&mut self, name: Digest) -> Result<(), DiskError> {
        let remembered = PackIndex::open(&self.file(name))?.filter(|index| index.name() == name);
        self.indexes.extend(remembered.map(|index| (name, index)));
        Ok(())
    }

    /// Takes a pack for one that is not there.
    pub(super) fn forget(&mut self, name: Digest) {
        self.indexes.remove(&name);
    }

    /// Returns the index of a pack.
    pub(super) fn index(&self, name: Digest) -> Option<&PackIndex> {
        self.indexes.get(&name)
    }

    /// Returns whether a record is in a pack that is none of these.
    pub(super) fn has_beside(&self, part: Part, packs: &[Digest]) -> bool {
        self.indexes.iter().any(|(name, index)| !packs.contains(name) && index.find(part).is_some())
    }

    /// Adds the index of a pack that is there now.
    pub(super) fn remember(&mut self, name: Digest, index: &[u8]) -> Result<(), DiskError> {
        let path = self.file(name);
        disk::write_whole(&path, index, Durability::Deferred)?;
        if let Some(index) = PackIndex::open(&path)?.filter(|index| index.name() == name) {
            self.indexes.insert(name, index);
        }
        Ok(())
    }

    /// Returns where a record is: the pack, and the place in it.
    pub fn find(&self, part: Part) -> Option<(Digest, Placed)> {
        self.indexes.iter().find_map(|(name, index)| Some((*name, index.find(part)?)))
    }

    /// Returns whether a record is there to stay, so that it need not be sent.
    pub fn keeps(&self, part: Part) -> bool {
        self.indexes.iter().any(|(name, index)| !self.condemned.contains(name) && index.find(part).is_some())
    }

    /// Returns the names of the packs that are there to stay.
    pub(super) fn kept_packs(&self) -> impl Iterator<Item = Digest> {
        self.indexes.keys().filter(|name| !self.condemned.contains(name)).copied()
    }

    /// Returns the packs that are to go.
    pub(super) fn condemned(&self) -> &BTreeSet<Digest> {
        &self.condemned
    }

    /// Returns the names of the files that say what is to go.
    pub(super) fn condemnations(&self) -> &BTreeSet<String> {
        &self.condemnations
    }

    /// Returns whether a record is there, be it for the moment.
    pub fn has(&self, part: Part) -> bool {
        self.indexes.values().any(|index| index.find(part).is_some())
    }

    /// Returns the indexes of all packs, by their names.
    pub fn packs(&self) -> impl Iterator<Item = (Digest, &PackIndex)> {
        self.indexes.iter().map(|(name, index)| (*name, index))
    }

    fn file(&self, name: Digest) -> PathBuf {
        self.memory.join(INDEXES).join(name.to_string())
    }
}

/// Returns the names of the packs whose indexes are there, with the length of each index.
///
/// Where the other side cannot list, its own list is read.
pub(super) fn names(bucket: &dyn Bucket) -> Result<BTreeMap<Digest, u64>, RemoteError> {
    let listed = match bucket.list(INDEXES) {
        Err(error) if error.trouble == Trouble::Unsupported => {
            let text = bucket.read(LIST, INDEX_MAX_BYTES)?.unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            return Ok(text.lines().filter_map(|line| Some((name_of(line)?, 0))).collect());
        }
        listed => listed?,
    };
    Ok(listed.into_iter().filter_map(|file| Some((name_of(&file.name)?, file.bytes))).collect())
}

/// Returns the digest that a file is named by. What else lies there is not of this room's making.
pub(super) fn name_of(text: &str) -> Option<Digest> {
    text.parse::<Digest>().ok().filter(|digest| digest.to_string() == text)
}

/// Writes the list of what is there, for those who cannot list. Two who do it at once do not lose what the other added:
/// whoever writes looks again afterwards.
pub(super) fn write_list(bucket: &dyn Bucket) -> Result<(), RemoteError> {
    loop {
        let before = names(bucket)?;
        let lines: Vec<_> = before.keys().map(ToString::to_string).chain([String::new()]).collect();
        let text = lines.join("\n");
        bucket.write(LIST, &text.as_bytes())?;
        if names(bucket)?.keys().eq(before.keys()) {
            return Ok(());
        }
    }
}

/// Returns the name of the file that is a pack.
pub(super) fn pack_file(name: Digest) -> String {
    let name = name.to_string();
    format!("packs/{}/{name}", &name[..2])
}

/// Returns the name of the file that is the index of a pack.
pub(super) fn index_file(name: Digest) -> String {
    format!("{INDEXES}/{name}")
}

fn fetch_index(bucket: &dyn Bucket, name: Digest) -> Result<Option<PackIndex>, RemoteError> {
    let file = index_file(name);
    let Some(bytes) = bucket.read(&file, INDEX_MAX_BYTES)? else { return Ok(None) };
    match PackIndex::read(bytes) {
        Some(index) if index.name() == name => Ok(Some(index)),
        _ => Err(RemoteError::Wrong { file }),
    }
}

/// Returns whether there is a remote, and sees that this version understands it.
///
/// # Errors
///
/// [`RemoteError::Format`] or [`RemoteError::Feature`] if it does not, [`RemoteError::Bucket`] if it cannot be asked.
pub fn is_there(bucket: &dyn Bucket) -> Result<bool, RemoteError> {
    let Some(bytes) = bucket.read(FORMAT_FILE, FORMAT_MAX_BYTES)? else { return Ok(false) };
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines();
    let format = lines.next().unwrap_or_default();
    if format != REMOTE_FORMAT {
        return Err(RemoteError::Format { found: format.chars().take(80).collect() });
    }
    match lines.find_map(|line| line.strip_prefix(REQUIRES)) {
        Some(feature) => Err(RemoteError::Feature { feature: feature.chars().take(80).collect() }),
        None => Ok(true),
    }
}

/// Makes the bucket a remote, if it is none yet.
pub(super) fn establish(bucket: &dyn Bucket) -> Result<(), RemoteError> {
    if is_there(bucket)? {
        return Ok(());
    }
    // A typo in an address must not spread packs over somebody's photographs.
    if !bucket.list("")?.is_empty() {
        // Unless somebody else has made it a remote since.
        return if is_there(bucket)? { Ok(()) } else { Err(RemoteError::Occupied) };
    }
    let text = format!("{REMOTE_FORMAT}\n");
    if bucket.create(FORMAT_FILE, text.as_bytes())? {
        return Ok(());
    }
    is_there(bucket).map(drop)
}

impl From<BucketError> for RemoteError {
    fn from(error: BucketError) -> Self {
        Self::Bucket(error)
    }
}
