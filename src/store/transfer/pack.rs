//! Making what is to be sent ready: packs of this store as they are, and new ones of what is left.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::Part;
use crate::hash::Digest;
use crate::object::Kind;
use crate::store::codec::{self, Codec};
use crate::store::pack::{Building, Entry, Pack, Record, Tag, read_record};
use crate::store::recipe::Recipe;
use crate::store::{LocalStore, Store, StoreError};

/// A pack that is made for the journey is full when it has so many bytes.
pub const PARCEL_BYTES: usize = 32 << 20;

/// A pack, ready to be sent. Every record in it was read and hashed.
pub struct Parcel {
    /// The digest that names it.
    pub name: Digest,
    /// Its length in bytes.
    pub bytes: u64,
    /// How many records it has.
    pub records: u64,
    /// Its index, which are also its last bytes.
    pub index: Vec<u8>,
    body: Body,
}

enum Body {
    /// A pack of the store.
    Whole(Arc<File>),
    Made(Vec<u8>),
}

impl Parcel {
    /// Returns a reader of the whole pack, from its begin.
    pub fn reader(&self) -> Box<dyn Read + Send + '_> {
        match &self.body {
            Body::Whole(file) => Box::new(FromStart { file, at: 0, end: self.bytes }),
            Body::Made(bytes) => Box::new(Cursor::new(bytes)),
        }
    }

    fn made(building: Building, taken: &BTreeSet<Digest>) -> Self {
        let records = building.count() as u64;
        let (bytes, index, name) = building.finish(&|name| taken.contains(&name));
        Self { name, bytes: bytes.len() as u64, records, index, body: Body::Made(bytes) }
    }

    fn whole(pack: &Pack) -> io::Result<Self> {
        let mut index = vec![0; usize::try_from(pack.bytes() - pack.records_end()).expect("it is mapped")];
        pack.file().read_exact_at(&mut index, pack.records_end())?;
        let (name, records) = (pack.name(), pack.count() as u64);
        Ok(Self { name, bytes: pack.bytes(), records, index, body: Body::Whole(Arc::clone(pack.file())) })
    }
}

/// Reads a file that others read elsewhere at the same time.
struct FromStart<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let count = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl LocalStore {
    /// Gives everything in `wanted` to `send`, in packs; of those in `files` what is wanted.
    ///
    /// A pack of this store of which all is wanted is given as it is; the rest is put into new ones of about
    /// [`PARCEL_BYTES`], none of them with a name that is `taken`, one in memory at a time beside those that `send` holds. Lists of pieces go last,
    /// after the pieces. Costs a read, a decoding and a hash of all of it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if something is damaged here, [`StoreError::Missing`] if it was taken away meanwhile,
    /// [`StoreError::Disk`] if it cannot be read, and the first error of `send`.
    pub fn pack_up<E: From<StoreError>>(
        &self,
        wanted: &BTreeSet<Part>,
        files: &BTreeSet<(Kind, Digest)>,
        taken: &BTreeSet<Digest>,
        send: &mut dyn FnMut(Parcel) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut left: BTreeSet<Part> = wanted.clone();
        let mut rest = Vec::new();
        let condemned = self.packs.condemned();
        let mut packs = self.packs.all().map_err(StoreError::from)?;
        // The largest first: what a large pack has whole need not be taken out of small ones.
        packs.sort_by_key(|pack| std::cmp::Reverse(pack.count()));
        for pack in packs {
            let is_wanted = |entry: &Entry| {
                left.contains(&Part::of(entry))
                    && pack.holds(entry)
                    && !condemned.has_record(pack.name(), entry.digest, entry.tag)
            };
            let entries: Vec<Entry> = if left.len() < pack.count() / 4 {
                left.iter().filter_map(|part| pack.find(part.digest, part.tag)).filter(is_wanted).collect()
            } else {
                pack.entries().filter(is_wanted).collect()
            };
            for entry in &entries {
                left.remove(&Part::of(entry));
            }
            let is_whole = entries.len() == pack.count() && pack.index_is_whole() && !taken.contains(&pack.name());
            let has_lists = entries.iter().any(|entry| entry.tag == Tag::Recipe);
            if is_whole {
                self.verify_all(&pack, entries)?;
                // Lists of pieces go once the pieces have gone, and those may be in any pack.
                if has_lists {
                    rest.push(Rest::Whole(pack));
                } else {
                    send(Parcel::whole(&pack).map_err(|error| self.unreadable(error))?)?;
                }
            } else if !entries.is_empty() {
                rest.push(Rest::Some(pack, entries));
            }
        }
        let mut packer = Packer { building: Building::default(), lists: Vec::new(), taken, send };
        let mut whole = Vec::new();
        for rest in rest {
            match rest {
                Rest::Whole(pack) => whole.push(pack),
                Rest::Some(pack, entries) => self.pack_entries(&pack, entries, &mut packer)?,
            }
        }
        for file in files {
            self.pack_file(*file, &mut left, &mut packer)?;
        }
        packer.finish(whole.is_empty(), |packer| {
            whole.iter().try_for_each(|pack| {
                let parcel = Parcel::whole(pack).map_err(|error| self.unreadable(error))?;
                (packer.send)(parcel)
            })
        })?;
        match left.into_iter().next() {
            Some(part) => {
                let (kind, digest) = part.as_object().unwrap_or((Kind::Blob, part.digest));
                Err(StoreError::Missing { kind, digest }.into())
            }
            None => Ok(()),
        }
    }

    fn verify_all(&self, pack: &Pack, mut entries: Vec<Entry>) -> Result<(), StoreError> {
        entries.sort_unstable_by_key(|entry| entry.offset);
        entries.iter().try_for_each(|entry| self.verified(pack, entry).map(drop))
    }

    /// Returns a record as it is stored, after what it stands for was hashed.
    fn verified(&self, pack: &Pack, entry: &Entry) -> Result<Kept, StoreError> {
        let stored = read_record(pack.file(), entry).map_err(|error| self.unreadable(error))?;
        let damaged = || StoreError::BadPack { path: pack.path().to_owned() };
        let stored = stored.ok_or_else(damaged)?;
        let kept = Kept { entry: *entry, raw: stored.raw, stored: stored.bytes };
        match kept.digest() {
            Some(actual) if actual == entry.digest => Ok(kept),
            Some(actual) => {
                let (kind, expected) = Part::of(entry).as_object().unwrap_or((Kind::Blob, entry.digest));
                Err(StoreError::Corrupt { kind, expected, actual })
            }
            None => Err(damaged()),
        }
    }

    fn pack_entries<E: From<StoreError>>(
        &self,
        pack: &Pack,
        mut entries: Vec<Entry>,
        packer: &mut Packer<'_, E>,
    ) -> Result<(), E> {
        entries.sort_unstable_by_key(|entry| entry.offset);
        for entry in &entries {
            packer.add(self.verified(pack, entry)?)?;
        }
        Ok(())
    }

    /// Packs what is wanted of an object that is a file of its own.
    fn pack_file<E: From<StoreError>>(
        &self,
        (kind, digest): (Kind, Digest),
        left: &mut BTreeSet<Part>,
        packer: &mut Packer<'_, E>,
    ) -> Result<(), E> {
        if left.remove(&Part::object(kind, digest)) {
            let bytes = self.get(kind, digest)?;
            return packer.add(Kept::encoded(Tag::Object(kind), digest, &bytes));
        }
        let recipe = self.cut_up(digest)?;
        let mut reader = self.open(kind, digest)?;
        for (piece, length) in &recipe.chunks {
            let mut bytes = vec![0; *length as usize];
            reader.read_exact(&mut bytes).map_err(|error| StoreError::from_read(error, kind, digest))?;
            if left.remove(&Part::piece(*piece)) {
                packer.add(Kept::encoded(Tag::Chunk, *piece, &bytes))?;
            }
        }
        if left.remove(&Part::list(digest)) {
            let mut list = Kept::encoded(Tag::Recipe, digest, &recipe.encode());
            list.entry.length = recipe.length;
            packer.add(list)?;
        }
        Ok(())
    }
}

/// What is left of a pack after those that can go at once.
enum Rest {
    /// All of it is wanted.
    Whole(Arc<Pack>),
    /// These records are.
    Some(Arc<Pack>, Vec<Entry>),
}

/// A record on its way.
struct Kept {
    /// Where it lies does not matter.
    entry: Entry,
    raw: u32,
    stored: Vec<u8>,
}

impl Kept {
    fn encoded(tag: Tag, digest: Digest, bytes: &[u8]) -> Self {
        let (codec, stored) = if tag == Tag::Recipe { (Codec::Raw, bytes.to_vec()) } else { encoded(bytes) };
        let raw = u32::try_from(bytes.len()).expect("what is cut up is at most 16 MiB long");
        let stored_bytes = u32::try_from(stored.len()).expect("it is no longer than that");
        let length = bytes.len() as u64;
        Self { entry: Entry { digest, tag, codec: codec as u8, offset: 0, stored: stored_bytes, length }, raw, stored }
    }

    fn record(&self) -> Record<'_> {
        let Entry { tag, digest, codec, length, .. } = self.entry;
        Record { tag, digest, codec, stored: &self.stored, raw: self.raw, length }
    }

    fn digest(&self) -> Option<Digest> {
        digest_of(self.entry.tag, self.entry.digest, self.entry.codec, &self.stored, self.raw)
    }
}

fn encoded(bytes: &[u8]) -> (Codec, Vec<u8>) {
    let (codec, stored) = codec::encode(bytes);
    (codec, stored.into_owned())
}

/// Returns the name of what stored bytes stand for; `None` if they stand for nothing.
///
/// A list of pieces is named by what the pieces make, so it is only seen that it adds up: `name` is returned then.
pub(super) fn digest_of(tag: Tag, name: Digest, codec: u8, stored: &[u8], raw: u32) -> Option<Digest> {
    let bytes = codec::decode(Codec::try_from(codec).ok()?, stored, raw as usize).ok()?;
    match tag {
        Tag::Object(kind) => Some(kind.digest(&bytes)),
        Tag::Chunk => Some(Digest::of(&bytes)),
        Tag::Recipe => Recipe::decode(&bytes).map(|_| name),
    }
}

/// Puts records into packs and sends those that are full.
struct Packer<'a, E> {
    building: Building,
    /// What goes after everything else.
    lists: Vec<Kept>,
    taken: &'a BTreeSet<Digest>,
    send: &'a mut dyn FnMut(Parcel) -> Result<(), E>,
}

impl<E: From<StoreError>> Packer<'_, E> {
    fn add(&mut self, kept: Kept) -> Result<(), E> {
        if kept.entry.tag == Tag::Recipe {
            self.lists.push(kept);
            return Ok(());
        }
        self.add_now(&kept)
    }

    fn add_now(&mut self, kept: &Kept) -> Result<(), E> {
        self.building.append(&kept.record());
        if self.building.bytes() >= PARCEL_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), E> {
        let building = std::mem::take(&mut self.building);
        if building.count() == 0 { Ok(()) } else { (self.send)(Parcel::made(building, self.taken)) }
    }

    /// Sends what is left, then what `before_lists` sends, then the lists. They may share a pack with the last pieces
    /// if nothing comes between.
    fn finish(mut self, share: bool, between: impl FnOnce(&mut Self) -> Result<(), E>) -> Result<(), E> {
        if !share {
            self.flush()?;
        }
        between(&mut self)?;
        let lists = std::mem::take(&mut self.lists);
        lists.iter().try_for_each(|list| self.add_now(list))?;
        self.flush()
    }
}
