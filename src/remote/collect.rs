//! Taking garbage away from a remote, beside others who push to it and pull from it.
//!
//! In two steps, days apart. First packs of which nothing is needed any more are
//! condemned: a file in `gc` names them, and whoever pushes from then on takes
//! what is in them for absent. After the grace period it is asked again what is needed; what
//! still is not goes, its index first. Whoever pushes for so long holds a lease, which
//! says what was condemned when it began; while there is one that does not know
//! of a condemnation, nothing that it names goes. A remote whose credentials cannot
//! remove anything is append-only: nothing but a collection ever removes a pack.

use std::collections::{BTreeMap, BTreeSet};

use super::bucket::{Bucket, BucketError, Trouble};
use super::catalog::{self, Catalog, name_of};
use super::send::{Sent, Shipment};
use super::{Progress, RemoteError};
use crate::hash::Digest;
use crate::host::Time;
use crate::object::Kind;
use crate::store::{Live, LocalStore, Part, Placed, Store, Taken, pieces_of};

/// The directory of what is condemned.
pub(super) const CONDEMNED: &str = "gc";
/// The directory of leases.
pub(super) const LEASES: &str = "leases";
/// Whoever has not renewed a lease for so long is dead.
pub const LEASE_MS: i64 = 60 * 60 * 1000;
const CONDEMNED_MAX_BYTES: u64 = 16 << 20;
const LEASE_MAX_BYTES: u64 = 1 << 20;
/// A pack is written anew if less than this share of its records, in percent, is needed.
const WORTH_PERCENT: u64 = 50;

/// How garbage is taken away.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    /// How long what is condemned stays, in milliseconds.
    pub grace_ms: i64,
    /// Change nothing.
    pub dry_run: bool,
}

/// What a collection did, or would do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Swept {
    /// Packs that are condemned now and were not before, and their bytes.
    pub condemned: BTreeMap<Digest, u64>,
    /// Packs that were condemned before and are needed again.
    pub spared: BTreeSet<Digest>,
    /// Packs that wait for the end of the grace period.
    pub waiting: BTreeSet<Digest>,
    /// Packs that are gone, and their bytes.
    pub removed: BTreeMap<Digest, u64>,
    /// Who pushes since before something was condemned; for them it waits.
    pub waiting_for: BTreeSet<String>,
    /// What was sent again because little of its pack was needed.
    pub sent: Sent,
}

/// Packs that are to go, in one file.
#[derive(Clone, Debug)]
struct Sentence {
    name: String,
    packs: BTreeSet<Digest>,
    written: Option<Time>,
}

/// Takes garbage away: everything that `live` does not name. `live` must name everything that is needed, whoever needs it.
///
/// Costs a look at each record of each pack, the reading of lists of pieces that are not here, and a few requests.
///
/// # Errors
///
/// [`RemoteError::Bucket`] if the remote cannot be read or written; if its credentials cannot remove anything, that is told
/// by [`Trouble::Refused`]. What was done by then is sound.
pub fn sweep(
    store: &LocalStore,
    bucket: &dyn Bucket,
    catalog: &mut Catalog,
    live: &Live,
    terms: Sweep,
    jobs: usize,
    progress: Progress<'_>,
) -> Result<Swept, RemoteError> {
    let needed = needed(store, bucket, catalog, live)?;
    let mut swept = Swept::default();
    let now = clock(bucket, terms.dry_run)?;
    let sentences = sentences(bucket)?;
    let condemned: BTreeSet<Digest> = sentences.iter().flat_map(|sentence| sentence.packs.iter().copied()).collect();
    let goes = |name: Digest, beside: &BTreeSet<Digest>| -> bool {
        let Some(index) = catalog.index(name) else { return true };
        let others: Vec<Digest> = beside.iter().copied().chain([name]).collect();
        index.records().all(|placed| !needed.contains(&placed.part()) || catalog.has_beside(placed.part(), &others))
    };
    // What is condemned and needed again is spared first: then others may rely on it.
    let mut spared = BTreeSet::new();
    for name in &condemned {
        let still: BTreeSet<Digest> = condemned.difference(&spared).copied().collect();
        if !goes(*name, &still) {
            spared.insert(*name);
        }
    }
    let still: BTreeSet<Digest> = condemned.difference(&spared).copied().collect();
    let mut new = BTreeSet::new();
    let mut rewritten: BTreeSet<Part> = BTreeSet::new();
    for (name, index) in catalog.packs().filter(|(name, _)| !condemned.contains(name)) {
        let mut beside = still.clone();
        beside.extend(&new);
        if goes(name, &beside) {
            new.insert(name);
            continue;
        }
        let (mut kept, mut all) = (Vec::new(), 0);
        for placed in index.records() {
            let bytes = placed.span().end - placed.span().start;
            all += bytes;
            if needed.contains(&placed.part()) {
                kept.push((placed, bytes));
            }
        }
        let worth: u64 = kept.iter().map(|(_, bytes)| bytes).sum();
        let can_be_sent = kept.iter().map(|(placed, _)| is_to_be_had(store, bucket, name, placed, terms.dry_run));
        if worth * 100 < all * WORTH_PERCENT && can_be_sent.collect::<Result<Vec<_>, _>>()?.iter().all(|can| *can) {
            rewritten.extend(kept.iter().map(|(placed, _)| placed.part()));
            new.insert(name);
        }
    }
    let bytes_of = |names: &BTreeSet<Digest>| -> BTreeMap<Digest, u64> {
        names.iter().map(|name| (*name, catalog.index(*name).map_or(0, crate::store::PackIndex::pack_bytes))).collect()
    };
    swept.condemned = bytes_of(&new);
    swept.spared.clone_from(&spared);
    let leases = leases(bucket, now)?;
    let mut ripe = BTreeSet::new();
    for sentence in &sentences {
        let packs: BTreeSet<Digest> = sentence.packs.difference(&spared).copied().collect();
        let age = sentence.written.map_or(0, |written| now.epoch_ms - written.epoch_ms);
        let unaware = leases.iter().filter(|(_, known)| !known.contains(&sentence.name)).map(|(name, _)| name.clone());
        let unaware: BTreeSet<String> = unaware.collect();
        if age >= terms.grace_ms && unaware.is_empty() {
            ripe.extend(packs);
        } else {
            swept.waiting.extend(packs);
            if age >= terms.grace_ms {
                swept.waiting_for.extend(unaware);
            }
        }
    }
    swept.removed = bytes_of(&ripe);
    if terms.dry_run {
        return Ok(swept);
    }
    if !rewritten.is_empty() {
        store.sync()?;
        swept.sent = Shipment::of(rewritten).send(store, bucket, catalog, jobs, progress)?;
    }
    condemn(bucket, &new)?;
    for name in &ripe {
        bucket.remove(&catalog::index_file(*name))?;
        bucket.remove(&catalog::pack_file(*name))?;
        catalog.forget(*name);
    }
    for sentence in sentences {
        let left: BTreeSet<Digest> =
            sentence.packs.iter().filter(|name| !ripe.contains(name) && !spared.contains(name)).copied().collect();
        if left.is_empty() {
            bucket.remove(&format!("{CONDEMNED}/{}", sentence.name))?;
        } else if left != sentence.packs {
            // In place: it stays as old as it is only if nothing of it changed, so what is left begins its grace anew.
            bucket.write(&format!("{CONDEMNED}/{}", sentence.name), &text(&left).as_bytes())?;
        }
    }
    if !ripe.is_empty() {
        catalog::write_list(bucket)?;
    }
    Ok(swept)
}

/// Returns every record that is needed: the objects, and the pieces of those that are in pieces.
fn needed(
    store: &LocalStore,
    bucket: &dyn Bucket,
    catalog: &Catalog,
    live: &Live,
) -> Result<BTreeSet<Part>, RemoteError> {
    let mut needed = BTreeSet::new();
    for (kind, digest) in live {
        needed.insert(Part::object(*kind, *digest));
        let list = Part::list(*digest);
        let Some((pack, placed)) = catalog.find(list).filter(|_| *kind == Kind::Blob) else { continue };
        needed.insert(list);
        match store.parts_of(*kind, *digest)? {
            crate::store::Parts::Records(parts) | crate::store::Parts::File(parts) => needed.extend(parts),
            crate::store::Parts::Absent => {}
        }
        // Another machine may have cut it another way.
        let bytes = bucket.read_span(&catalog::pack_file(pack), placed.span())?;
        let pieces = pieces_of(&placed, &bytes).ok_or_else(|| RemoteError::Wrong { file: catalog::pack_file(pack) })?;
        needed.extend(pieces);
    }
    Ok(needed)
}

/// Returns whether a record can be sent again: it is here, or whole in the remote, from where it then is taken.
fn is_to_be_had(
    store: &LocalStore,
    bucket: &dyn Bucket,
    pack: Digest,
    placed: &Placed,
    dry_run: bool,
) -> Result<bool, RemoteError> {
    if store.has_part(placed.part())? || dry_run {
        return Ok(true);
    }
    let bytes = bucket.read_span(&catalog::pack_file(pack), placed.span())?;
    Ok(store.take_record(placed, &bytes)? != Taken::Wrong)
}

/// Returns what the clock of the other side says, by which the age of its files is told.
fn clock(bucket: &dyn Bucket, dry_run: bool) -> Result<Time, RemoteError> {
    let here = Time::now();
    if dry_run {
        return Ok(here);
    }
    let name = Digest::of(format!("{} {}", here.epoch_ms, std::process::id()).as_bytes()).short();
    let file = format!("check/{name}");
    bucket.write(&file, &b"clock".as_slice())?;
    let listed = bucket.list("check")?;
    bucket.remove(&file)?;
    Ok(listed.into_iter().find(|listed| listed.name == name).and_then(|listed| listed.written).unwrap_or(here))
}

fn sentences(bucket: &dyn Bucket) -> Result<Vec<Sentence>, RemoteError> {
    let mut sentences = Vec::new();
    for file in bucket.list(CONDEMNED)? {
        let Some(bytes) = bucket.read(&format!("{CONDEMNED}/{}", file.name), CONDEMNED_MAX_BYTES)? else { continue };
        let packs = String::from_utf8_lossy(&bytes).lines().filter_map(name_of).collect();
        sentences.push(Sentence { name: file.name, packs, written: file.written });
    }
    Ok(sentences)
}

/// Returns what is condemned, and the names of the files that say so.
pub(super) fn condemned(bucket: &dyn Bucket) -> Result<(BTreeSet<Digest>, BTreeSet<String>), RemoteError> {
    let sentences = match sentences(bucket) {
        // Whoever cannot list cannot write either.
        Err(RemoteError::Bucket(BucketError { trouble: Trouble::Unsupported, .. })) => Vec::new(),
        sentences => sentences?,
    };
    let packs = sentences.iter().flat_map(|sentence| sentence.packs.iter().copied()).collect();
    Ok((packs, sentences.into_iter().map(|sentence| sentence.name).collect()))
}

fn condemn(bucket: &dyn Bucket, packs: &BTreeSet<Digest>) -> Result<(), RemoteError> {
    if packs.is_empty() {
        return Ok(());
    }
    let text = text(packs);
    let name = Digest::of(format!("{} {text}", Time::now().epoch_ms).as_bytes()).short();
    Ok(bucket.write(&format!("{CONDEMNED}/{name}"), &text.as_bytes())?)
}

fn text(packs: &BTreeSet<Digest>) -> String {
    let lines: Vec<_> = packs.iter().map(ToString::to_string).chain([String::new()]).collect();
    lines.join("\n")
}

/// Returns who pushes just now, and which condemnations each knows of.
fn leases(bucket: &dyn Bucket, now: Time) -> Result<BTreeMap<String, BTreeSet<String>>, RemoteError> {
    let mut leases = BTreeMap::new();
    for file in bucket.list(LEASES)? {
        let is_alive = file.written.is_none_or(|written| now.epoch_ms - written.epoch_ms < LEASE_MS);
        if is_alive && let Some(bytes) = bucket.read(&format!("{LEASES}/{}", file.name), LEASE_MAX_BYTES)? {
            let known = String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect();
            leases.insert(file.name, known);
        }
    }
    Ok(leases)
}
