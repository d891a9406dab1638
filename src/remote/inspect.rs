//! Looking whether a remote holds what it says, and mending it from here.
//!
//! The structure is always looked at: every index, and the end of every pack,
//! which tells that all of it is there. Of the content as much is read and hashed
//! as is asked for. What is damaged is sent again, as far as it is here or
//! still whole there; only then the index that names the damage goes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::bucket::{Bucket, BucketError, Trouble};
use super::catalog::{self, Catalog};
use super::fetch::{SPAN_BYTES, Stretch, stretches};
use super::send::{Sent, Shipment};
use super::{Progress, RemoteError};
use crate::hash::Digest;
use crate::store::{INDEX_MAX_BYTES, LocalStore, PackIndex, Part, Placed, Store, Taken, is_whole};

/// How much of the content is read.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Depth {
    /// About this share of it, in percent, chosen by `seed`.
    Sample {
        /// Of a hundred.
        percent: f64,
        /// Another one chooses other parts.
        seed: u64,
    },
    /// All of it.
    Whole,
}

/// What is wrong with a pack of a remote.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PackFlaw {
    /// Its index is not what it was.
    Index,
    /// It is not there, or not all of it.
    Gone,
    /// So many of its records that were read are not what they should be.
    Records(u64),
}

impl fmt::Display for PackFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index => f.write_str("its index is damaged"),
            Self::Gone => f.write_str("it is not there, or not all of it"),
            Self::Records(1) => f.write_str("1 record is damaged"),
            Self::Records(count) => write!(f, "{count} records are damaged"),
        }
    }
}

/// What was found in a remote.
#[derive(Debug, Default)]
pub struct Inspected {
    /// How many packs there are.
    pub packs: u64,
    /// How many records were read and hashed.
    pub records: u64,
    /// How many bytes they take.
    pub bytes: u64,
    /// What is damaged, by the name of the pack.
    pub damaged: BTreeMap<Digest, PackFlaw>,
    /// The records of damaged packs that are not whole, with the pack; of a pack that is gone, all.
    bad: BTreeMap<Digest, BTreeSet<Part>>,
}

/// What became of damage.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Mended {
    /// Packs of which everything is whole in the remote again.
    pub mended: BTreeSet<Digest>,
    /// Records that are nowhere: neither here nor whole in the remote.
    pub lost: BTreeSet<Part>,
    /// What was sent for it.
    pub sent: Sent,
}

impl Catalog {
    /// Returns what is in the remote as far as its indexes are whole, and the names of those that are not.
    ///
    /// Each index is read anew; what is remembered of one that is damaged is used instead.
    ///
    /// # Errors
    ///
    /// As [`Catalog::open`], except that a damaged index is none.
    pub fn reread(bucket: &dyn Bucket, memory: &std::path::Path) -> Result<(Self, BTreeSet<Digest>), RemoteError> {
        let mut catalog = Self::empty(memory);
        let mut damaged = BTreeSet::new();
        if !catalog::is_there(bucket)? {
            return Ok((catalog, damaged));
        }
        for name in catalog::names(bucket)?.into_keys() {
            let read = match bucket.read(&catalog::index_file(name), INDEX_MAX_BYTES) {
                Err(BucketError { trouble: Trouble::Garbled, .. }) => None,
                read => read?,
            };
            match read.and_then(PackIndex::read).filter(|index| index.name() == name) {
                Some(index) => catalog.remember(name, index.bytes())?,
                None => {
                    damaged.insert(name);
                    catalog.recall(name)?;
                }
            }
        }
        Ok((catalog, damaged))
    }
}

/// Returns what is wrong in a remote, with what is in it.
///
/// Costs a read of every index, one request for each pack, and the reading of as much content as `depth` says.
///
/// # Errors
///
/// [`RemoteError`] if the remote cannot be asked; what is damaged is no error.
pub fn inspect(
    bucket: &dyn Bucket,
    memory: &std::path::Path,
    depth: Depth,
    progress: Progress<'_>,
) -> Result<(Inspected, Catalog), RemoteError> {
    let (catalog, bad_indexes) = Catalog::reread(bucket, memory)?;
    let mut found = Inspected { packs: catalog.packs().count() as u64, ..Inspected::default() };
    for name in &bad_indexes {
        found.damaged.insert(*name, PackFlaw::Index);
    }
    found.packs += bad_indexes.iter().filter(|name| catalog.index(**name).is_none()).count() as u64;
    for (name, index) in catalog.packs() {
        let all = index.bytes();
        let tail = 64.min(all.len() as u64);
        let end = index.pack_bytes();
        match bucket.read_span(&catalog::pack_file(name), end - tail..end) {
            Ok(read) if all.ends_with(&read) => {}
            Ok(_) => found.note(name, PackFlaw::Gone, index.records().map(|placed| placed.part())),
            Err(error) if matches!(error.trouble, Trouble::Missing | Trouble::Garbled) => {
                found.note(name, PackFlaw::Gone, index.records().map(|placed| placed.part()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    for (name, index) in
        catalog.packs().filter(|(name, _)| found.damaged.get(name) != Some(&PackFlaw::Gone)).collect::<Vec<_>>()
    {
        let mut bad = BTreeSet::new();
        for stretch in stretches(name, index.records().collect(), SPAN_BYTES) {
            if depth.skips(&stretch) {
                continue;
            }
            let file = catalog::pack_file(name);
            let bytes = match bucket.read_span(&file, stretch.span.clone()) {
                Err(error) if matches!(error.trouble, Trouble::Missing | Trouble::Garbled) => Vec::new(),
                bytes => bytes?,
            };
            for placed in &stretch.records {
                let record = stretch.record(placed, &bytes).unwrap_or_default();
                if !is_whole(placed, record) {
                    bad.insert(placed.part());
                }
            }
            found.records += stretch.records.len() as u64;
            found.bytes += stretch.span.end - stretch.span.start;
            if !progress(stretch.span.end - stretch.span.start) {
                return Err(RemoteError::Interrupted);
            }
        }
        if !bad.is_empty() {
            found.note(name, PackFlaw::Records(bad.len() as u64), bad);
        }
    }
    Ok((found, catalog))
}

impl Depth {
    fn skips(self, stretch: &Stretch) -> bool {
        match self {
            Self::Whole => false,
            Self::Sample { percent, seed } => {
                let lot = Digest::of(format!("{seed} {} {}", stretch.pack, stretch.span.start).as_bytes()).number();
                #[expect(clippy::cast_precision_loss, reason = "a lot is drawn")]
                let lot = (lot % 10_000) as f64;
                lot >= percent * 100.0
            }
        }
    }
}

impl Inspected {
    fn note(&mut self, name: Digest, flaw: PackFlaw, bad: impl IntoIterator<Item = Part>) {
        self.damaged.insert(name, flaw);
        self.bad.entry(name).or_default().extend(bad);
    }

    /// Sends again what is damaged, as far as it is here or whole in the remote, and lets no index name the damage any more.
    ///
    /// A damaged pack without index counts as nothing; it stays until a collection takes it away.
    ///
    /// # Errors
    ///
    /// [`RemoteError`] if something cannot be read, written or removed; what was mended by then stays.
    pub fn mend(
        &self,
        store: &LocalStore,
        bucket: &dyn Bucket,
        mut catalog: Catalog,
        jobs: usize,
        progress: Progress<'_>,
    ) -> Result<Mended, RemoteError> {
        let mut mended = Mended::default();
        for (name, _) in self.damaged.iter().filter(|(_, flaw)| **flaw == PackFlaw::Index) {
            match catalog.index(*name).map(|index| index.bytes().to_vec()) {
                Some(index) => {
                    bucket.write(&catalog::index_file(*name), &index.as_slice())?;
                    mended.mended.insert(*name);
                }
                // Nobody knows what is in the pack; whoever has it sends it again.
                None => bucket.remove(&catalog::index_file(*name))?,
            }
        }
        let packs: Vec<Digest> = self.bad.keys().copied().collect();
        let unreliable: Vec<Digest> = packs.iter().chain(catalog.condemned()).copied().collect();
        let mut wanted: BTreeSet<Part> = BTreeSet::new();
        for name in &packs {
            let Some(index) = catalog.index(*name) else { continue };
            let bad = &self.bad[name];
            let records: Vec<Placed> = index.records().collect();
            for placed in &records {
                let part = placed.part();
                if catalog.has_beside(part, &unreliable) {
                    continue;
                }
                if store.has_part(part)? || (!bad.contains(&part) && rescue(store, bucket, *name, placed)?) {
                    wanted.insert(part);
                } else {
                    mended.lost.insert(part);
                }
            }
        }
        store.sync()?;
        packs.iter().for_each(|name| catalog.forget(*name));
        let before: BTreeSet<Digest> = catalog.packs().map(|(name, _)| name).collect();
        mended.sent = Shipment::of(wanted).send(store, bucket, &mut catalog, jobs, progress)?;
        for name in packs {
            let is_sent_again = catalog.index(name).is_some() && !before.contains(&name);
            if !is_sent_again {
                bucket.remove(&catalog::index_file(name))?;
            }
            mended.mended.insert(name);
        }
        catalog::write_list(bucket)?;
        Ok(mended)
    }
}

/// Takes a record that is still whole in a damaged pack into the store, so that it can be sent again. Returns whether it could.
fn rescue(store: &LocalStore, bucket: &dyn Bucket, pack: Digest, placed: &Placed) -> Result<bool, RemoteError> {
    match bucket.read_span(&catalog::pack_file(pack), placed.span()) {
        // A list of pieces is only taken together with them, which may come later.
        Ok(bytes) => Ok(store.take_record(placed, &bytes)? != Taken::Wrong),
        Err(error) if matches!(error.trouble, Trouble::Missing | Trouble::Garbled) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
