//! Taking garbage away beside others who read and write.
//!
//! In this order: mark what lives; write down what is condemned, and who was
//! alive then; wait for those; mark again; copy what lives of the packs that
//! go; move them to the trash; forget what was condemned. Whoever starts after
//! something was condemned takes it for absent and writes it anew. So nothing
//! goes that anybody relies on, whenever a collection or a writer dies. The
//! next collection goes on where one has stopped. `model` checks this protocol.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::condemned::Condemned;
use super::garbage::{Inventory, Live, kind_of, refers};
use super::pack::{Tag, file_name};
use super::recipe::Recipe;
use super::rewrite::copy_records;
use super::session;
use super::trash;
use super::{LocalStore, StoreError};
use crate::disk::{self, Change, Flush, Lock};
use crate::hash::Digest;
use crate::object::Kind;

/// So often it is looked whether those who are waited for are gone.
const WAIT: Duration = Duration::from_millis(100);

/// How garbage is collected.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Whether packs go of which only a little is garbage.
    pub all: bool,
    /// Whether to wait for processes that may rely on what goes.
    pub wait: bool,
    /// The time now, in seconds since 1970.
    pub now_seconds: i64,
    /// How long what went can be put back, in seconds.
    pub undo_seconds: i64,
}

/// What a collection did, or would do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Collected {
    /// The sessions that may rely on what goes, `process-number`; while there are any, nothing goes.
    pub waiting_for: BTreeSet<String>,
    /// The objects that went, with their lengths in bytes.
    pub objects: Vec<(Kind, Digest, u64)>,
    /// How many packs went.
    pub packs: u64,
    /// By how many bytes packs and files got smaller, the trash not counted.
    pub freed_bytes: u64,
    /// How many bytes of the trash were removed for good.
    pub removed_bytes: u64,
    /// How many packs and files came back out of the trash, because something lives again that only they have.
    pub put_back: u64,
}

/// Collects garbage. `mark` returns everything that lives, and everything that can be reached from the objects that
/// it is given; what is missing there is none of its concern. `gone` is told what went while it can still be read.
///
/// Waits for another collection. Costs marking twice, and a copy of what lives in packs that go.
///
/// # Errors
///
/// What `mark` says; [`StoreError::BadPack`] if a pack is damaged, so that it is not known what it holds; other
/// [`StoreError`]s if something cannot be read or written. Nothing that lives is lost then, and the next collection
/// goes on.
pub fn collect<E: From<StoreError>>(
    store: &LocalStore,
    terms: Terms,
    mark: &dyn Fn(&Live) -> Result<Live, E>,
    gone: &mut dyn FnMut(&[(Kind, Digest, u64)]),
) -> Result<Collected, E> {
    let mut collected = Collected::default();
    if disk::look(store.layout.root()).map_err(StoreError::from)?.is_none() {
        return Ok(collected);
    }
    let _collecting = Lock::exclusive(&store.layout.collecting()).map_err(StoreError::from)?;
    let mut known = None;
    if let Some(condemned) = pending(store)? {
        if !wait_for(store, &condemned, terms.wait, &mut collected)? {
            return Ok(collected);
        }
        known = Some(finish(store, &condemned, terms, mark, &mut collected)?);
        gone(&collected.objects);
    }
    let live = match known {
        Some(live) => live,
        None => mark(&Live::new())?,
    };
    let choice = inventory(store, &live)?.choose(&live, terms.all);
    let live = if choice.packs.is_empty() && choice.loose.is_empty() {
        live
    } else {
        let condemned =
            condemn(store, Condemned { sessions: BTreeSet::new(), packs: choice.packs, loose: choice.loose })?;
        if !wait_for(store, &condemned, terms.wait, &mut collected)? {
            return Ok(collected);
        }
        let told = collected.objects.len();
        let live = finish(store, &condemned, terms, mark, &mut collected)?;
        gone(&collected.objects[told..]);
        live
    };
    let emptied = trash::empty(store, &live, terms.now_seconds - terms.undo_seconds)?;
    collected.removed_bytes = emptied.removed_bytes;
    collected.put_back = emptied.put_back;
    Ok(collected)
}

/// Returns what [`collect`] would take away, by what lives now. Writes nothing.
///
/// # Errors
///
/// As [`collect`].
pub fn preview(store: &LocalStore, live: &Live, all: bool) -> Result<Collected, StoreError> {
    let inventory = inventory(store, live)?;
    let choice = inventory.choose(live, all);
    let condemned = Condemned { sessions: BTreeSet::new(), packs: choice.packs, loose: choice.loose };
    Ok(account(&inventory, live, &condemned))
}

/// Returns what is condemned since an earlier collection.
fn pending(store: &LocalStore) -> Result<Option<Condemned>, StoreError> {
    match Condemned::read(&store.layout) {
        // Written by nobody here. That others take something for absent does no harm; nothing went.
        Err(error) if error.source.kind() == io::ErrorKind::InvalidData => {
            store.disk.change(Change::Remove(&store.layout.condemned()))?;
            Ok(None)
        }
        read => Ok(read?),
    }
}

/// Writes down what is condemned, in order with the start of every session.
fn condemn(store: &LocalStore, condemned: Condemned) -> Result<Condemned, StoreError> {
    let sessions = store.layout.sessions();
    disk::make_directories(&*store.disk, &sessions)?;
    let _starting = session::starting(&sessions)?;
    let condemned = Condemned { sessions: session::living(&sessions)?, ..condemned };
    condemned.write(&*store.disk, &store.layout)?;
    Ok(condemned)
}

/// Returns whether nobody who may rely on what is condemned is alive; with `wait`, comes back when that is so.
fn wait_for(
    store: &LocalStore,
    condemned: &Condemned,
    wait: bool,
    collected: &mut Collected,
) -> Result<bool, StoreError> {
    let sessions = store.layout.sessions();
    loop {
        let living = {
            let _starting = session::starting(&sessions)?;
            session::living(&sessions)?
        };
        collected.waiting_for = condemned.sessions.intersection(&living).cloned().collect();
        if collected.waiting_for.is_empty() || !wait {
            return Ok(collected.waiting_for.is_empty());
        }
        std::thread::sleep(WAIT);
    }
}

/// Takes away what is condemned and does not live again. Returns what lives.
fn finish<E: From<StoreError>>(
    store: &LocalStore,
    condemned: &Condemned,
    terms: Terms,
    mark: &dyn Fn(&Live) -> Result<Live, E>,
    collected: &mut Collected,
) -> Result<Live, E> {
    let mut live = mark(&Live::new())?;
    let mut inventory = self::inventory(store, &live)?;
    let newcomers = inventory.newcomers(&live, condemned);
    if !newcomers.is_empty() {
        live = mark(&newcomers)?;
        live.extend(newcomers);
        inventory = self::inventory(store, &live)?;
    }
    let going = still_dead(&inventory, &live, condemned);
    copy_living(store, &inventory, &going)?;
    move_out(store, &going, terms.now_seconds)?;
    store.disk.change(Change::Remove(&store.layout.condemned())).map_err(StoreError::from)?;
    store.disk.flush(Flush::Directory(&store.layout.collection())).map_err(StoreError::from)?;
    store.packs.forget_gone().map_err(StoreError::from)?;
    let account = account(&inventory, &live, &going);
    collected.objects.extend(account.objects);
    collected.packs += account.packs;
    collected.freed_bytes += account.freed_bytes;
    Ok(live)
}

/// Returns what there is. Fails if it cannot be told of all of it.
fn inventory(store: &LocalStore, live: &Live) -> Result<Inventory, StoreError> {
    store.packs.forget_gone()?;
    if let Some(name) = store.packs.bad().first() {
        return Err(StoreError::BadPack { path: store.layout.packs().join(name) });
    }
    let mut inventory = Inventory::default();
    for pack in store.packs.all()? {
        if !pack.index_is_whole() || pack.entries().any(|entry| !pack.holds(&entry)) {
            return Err(StoreError::BadPack { path: store.layout.packs().join(file_name(pack.name())) });
        }
        for entry in pack.entries() {
            if entry.tag == Tag::Recipe && live.contains(&(Kind::Blob, entry.digest)) {
                let stored = super::pack::read_stored(pack.file(), &entry).map_err(|error| store.unreadable(error))?;
                let recipe = stored.ok().and_then(|bytes| Recipe::decode(&bytes));
                let recipe = recipe.ok_or_else(|| StoreError::BadPack { path: pack_path(store, pack.name()) })?;
                inventory.pieces.extend(recipe.chunks.into_iter().map(|(digest, _)| digest));
            }
        }
        inventory.packs.insert(pack.name(), pack.entries().collect());
    }
    for kind in Kind::ALL {
        for digest in store.layout.find(kind, "")? {
            if let Some(disk::Found::File { size, .. }) = disk::look(&store.layout.object(kind, digest))? {
                inventory.loose.insert((kind, digest), size);
            }
        }
    }
    Ok(inventory)
}

fn pack_path(store: &LocalStore, name: Digest) -> PathBuf {
    store.layout.packs().join(file_name(name))
}

/// Returns what of the condemned is still there and does not live again. A pack of which all lives again stays.
fn still_dead(inventory: &Inventory, live: &Live, condemned: &Condemned) -> Condemned {
    let mut going = Condemned::default();
    for (name, records) in condemned.packs.iter().filter(|(name, _)| inventory.packs.contains_key(name)) {
        let dead: BTreeSet<_> =
            records.iter().filter(|(digest, tag)| !inventory.lives(live, *digest, *tag)).copied().collect();
        if !dead.is_empty() {
            going.packs.insert(*name, dead);
        }
    }
    let is_there = |name: &&(Kind, Digest)| inventory.loose.contains_key(name) && !live.contains(name);
    going.loose = condemned.loose.iter().filter(is_there).copied().collect();
    going
}

/// Copies what lives of the packs that go, and no other pack has.
///
/// What refers to others comes into packs of its own, so that packs full of data need not be copied for its sake again.
fn copy_living(store: &LocalStore, inventory: &Inventory, going: &Condemned) -> Result<(), StoreError> {
    let staying = inventory.packs.iter().filter(|(name, _)| !going.packs.contains_key(name));
    let elsewhere: BTreeSet<_> =
        staying.flat_map(|(_, entries)| entries.iter().map(|entry| (entry.digest, entry.tag))).collect();
    let copying = LocalStore::open_on(Arc::clone(&store.disk), store.layout.root())?;
    let packs = store.packs.all()?;
    for is_referring in [true, false] {
        let mut any = false;
        for pack in packs.iter().filter(|pack| going.packs.contains_key(&pack.name())) {
            let copied = copy_records(&copying, pack, |entry| {
                refers(entry.tag) == is_referring
                    && !going.has_record(pack.name(), entry.digest, entry.tag)
                    && !elsewhere.contains(&(entry.digest, entry.tag))
            })?;
            if !copied.damaged.is_empty() {
                return Err(StoreError::BadPack { path: pack_path(store, pack.name()) });
            }
            any |= copied.records > 0;
        }
        if any {
            copying.publish()?;
        }
    }
    // Also what an earlier collection published before it died is durable before anything moves.
    store.disk.flush(Flush::Directory(&store.layout.packs()))?;
    Ok(())
}

/// Moves packs and files to the trash, durably.
fn move_out(store: &LocalStore, going: &Condemned, now_seconds: i64) -> Result<(), StoreError> {
    let bin = store.layout.trash().join(now_seconds.to_string());
    let mut moves: Vec<_> =
        going.packs.keys().map(|name| (pack_path(store, *name), bin.join(file_name(*name)))).collect();
    for (kind, digest) in &going.loose {
        let from = store.layout.object(*kind, *digest);
        let to = bin.join(from.strip_prefix(store.layout.root()).unwrap_or(&from));
        moves.push((from, to));
    }
    trash::move_all(store, &moves)
}

/// Returns what goes with what is condemned.
fn account(inventory: &Inventory, live: &Live, going: &Condemned) -> Collected {
    let mut collected = Collected { packs: going.packs.len() as u64, ..Collected::default() };
    let mut objects = BTreeSet::new();
    for (name, records) in &going.packs {
        for entry in inventory.packs[name].iter().filter(|entry| records.contains(&(entry.digest, entry.tag))) {
            collected.freed_bytes += super::garbage::bytes_of(entry);
            if entry.tag != Tag::Chunk {
                objects.insert((kind_of(entry.tag), entry.digest, entry.length));
            }
        }
    }
    for (kind, digest) in &going.loose {
        let size = inventory.loose[&(*kind, *digest)];
        collected.freed_bytes += size;
        objects.insert((*kind, *digest, size));
    }
    collected.objects = objects.into_iter().filter(|(kind, digest, _)| !live.contains(&(*kind, *digest))).collect();
    collected
}

#[cfg(test)]
mod tests;
