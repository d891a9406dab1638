use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::bucket::Counted;
use super::*;
use crate::hash::Digest;
use crate::object::Kind;
use crate::store::{Live, LocalStore, Store};

/// Files in memory, for trouble: requests fail, bits flip, and everything is counted.
#[derive(Default)]
struct MemoryBucket {
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    asked: AtomicUsize,
    /// The request with this number fails, and all after it.
    breaks_at: Option<usize>,
    /// No file can be removed.
    append_only: bool,
    /// Somebody else makes it a remote just before it is listed.
    raced: bool,
}

impl MemoryBucket {
    fn files(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.files.lock().unwrap()
    }

    fn breaking(files: BTreeMap<String, Vec<u8>>, at: usize) -> Self {
        Self { files: Mutex::new(files), breaks_at: Some(at), ..Self::default() }
    }

    fn ask(&self, name: &str) -> Result<(), BucketError> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst);
        if self.breaks_at.is_some_and(|at| number >= at) {
            return Err(BucketError::on("reach", name, Trouble::Unreachable)("the line is cut"));
        }
        Ok(())
    }

    fn flip(&self, name: &str, bit: usize) {
        self.files().get_mut(name).unwrap()[bit / 8] ^= 1 << (bit % 8);
    }
}

impl Bucket for MemoryBucket {
    fn list(&self, directory: &str) -> Result<Vec<Listed>, BucketError> {
        self.ask(directory)?;
        if self.raced {
            self.create("FORMAT", format!("{REMOTE_FORMAT}\n").as_bytes())?;
        }
        let files = self.files();
        let below = |name: &str| {
            let rest = if directory.is_empty() { name } else { name.strip_prefix(directory)?.strip_prefix('/')? };
            (!rest.contains('/')).then(|| rest.to_owned())
        };
        let listed = files
            .iter()
            .filter_map(|(name, bytes)| Some(Listed { name: below(name)?, bytes: bytes.len() as u64, written: None }));
        Ok(listed.collect())
    }

    fn read(&self, name: &str, most_bytes: u64) -> Result<Option<Vec<u8>>, BucketError> {
        self.ask(name)?;
        let found = self.files().get(name).cloned();
        assert!(found.as_ref().is_none_or(|bytes| bytes.len() as u64 <= most_bytes));
        Ok(found)
    }

    fn read_span(&self, name: &str, span: Range<u64>) -> Result<Vec<u8>, BucketError> {
        self.ask(name)?;
        let span = usize::try_from(span.start).unwrap()..usize::try_from(span.end).unwrap();
        let files = self.files();
        let found = files.get(name).and_then(|bytes| bytes.get(span));
        found.map(<[u8]>::to_vec).ok_or_else(|| BucketError::on("read", name, Trouble::Garbled)("it is too short"))
    }

    /// In pieces that begin and end anywhere.
    fn stream_span(
        &self,
        name: &str,
        span: Range<u64>,
        take: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<(), BucketError> {
        let bytes = self.read_span(name, span)?;
        let _ = bytes.chunks(997).all(take);
        Ok(())
    }

    fn write(&self, name: &str, body: &dyn Body) -> Result<(), BucketError> {
        self.ask(name)?;
        let mut bytes = Vec::new();
        body.reader().read_to_end(&mut bytes).map_err(BucketError::on("write", name, Trouble::Other))?;
        assert_eq!(bytes.len() as u64, body.bytes());
        self.files().insert(name.to_owned(), bytes);
        Ok(())
    }

    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, BucketError> {
        self.ask(name)?;
        let mut files = self.files();
        let is_new = !files.contains_key(name);
        files.entry(name.to_owned()).or_insert_with(|| bytes.to_vec());
        Ok(is_new)
    }

    fn remove(&self, name: &str) -> Result<(), BucketError> {
        self.ask(name)?;
        if self.append_only {
            return Err(BucketError::on("remove", name, Trouble::Refused)("this key may not"));
        }
        self.files().remove(name);
        Ok(())
    }
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let block = |number: u64| *Digest::of(&[seed.to_le_bytes(), number.to_le_bytes()].concat()).as_bytes();
    (0..).flat_map(block).take(length).collect()
}

/// A store of its own, in a directory of its own.
struct Machine {
    directory: tempfile::TempDir,
    store: LocalStore,
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = LocalStore::open(&directory.path().join("store")).unwrap();
        Self { directory, store }
    }

    /// Puts small objects of several kinds and a large blob; returns what they are.
    fn filled() -> (Self, Live) {
        let machine = Self::new();
        let mut live = Live::new();
        for number in 0..200_u32 {
            let kind = Kind::ALL[number as usize % Kind::ALL.len()];
            // Directories, environments and snapshots that mean nothing would be looked into.
            let kind = if matches!(kind, Kind::Tree | Kind::Environment | Kind::Snapshot) { Kind::Blob } else { kind };
            let put = machine.store.put_bytes(kind, &number.to_le_bytes().repeat(number as usize)).unwrap();
            live.insert((kind, put.digest));
        }
        live.insert((Kind::Blob, machine.store.put_bytes(Kind::Blob, &noise(7, 3 << 20)).unwrap().digest));
        machine.store.sync().unwrap();
        (machine, live)
    }

    fn memory(&self) -> std::path::PathBuf {
        self.directory.path().join("memory")
    }

    fn push(&self, bucket: &dyn Bucket, live: &Live) -> Result<Sent, RemoteError> {
        let mut catalog = Catalog::open(bucket, &self.memory())?;
        let shipment = Shipment::plan(&self.store, bucket, &catalog, live)?;
        shipment.send(&self.store, bucket, &mut catalog, 3, &|_| true)
    }

    fn pull(&self, bucket: &dyn Bucket, live: &Live) -> Result<Fetched, RemoteError> {
        let catalog = Catalog::open(bucket, &self.memory())?;
        let way = Way { bucket, catalog: &catalog, jobs: 3, progress: &|_| true };
        let lacking = way.survey(&self.store, &|_| Ok::<_, RemoteError>(live.clone()))?;
        way.fetch(&self.store, &lacking)
    }

    /// Opens the store anew, as the next process would.
    fn reopened(&self) -> LocalStore {
        LocalStore::open(&self.directory.path().join("store")).unwrap()
    }
}

fn assert_same(from: &LocalStore, to: &LocalStore, live: &Live) {
    for (kind, digest) in live {
        assert_eq!(to.get(*kind, *digest).unwrap(), from.get(*kind, *digest).unwrap());
    }
}

#[test]
fn what_is_pushed_from_one_machine_is_pulled_on_another() {
    let (here, live) = Machine::filled();
    let there = Machine::new();
    let share = tempfile::tempdir().unwrap();
    let directory = Directory::new(share.path().join("deep/remote"));
    for bucket in [&MemoryBucket::default() as &dyn Bucket, &directory] {
        let there = Machine::new();
        let sent = here.push(bucket, &live).unwrap();
        assert_eq!(sent.objects, live.len() as u64);
        let fetched = there.pull(bucket, &live).unwrap();
        assert_eq!((fetched.received, fetched.missing.len()), (live.len() as u64, 0));
        assert_same(&here.store, &there.reopened(), &live);
        let again = there.pull(bucket, &live).unwrap();
        assert_eq!((again.received, again.skipped), (0, live.len() as u64));
    }
    drop(there);
}

#[test]
fn a_second_push_makes_three_requests_and_sends_nothing() {
    let (here, live) = Machine::filled();
    let bucket = MemoryBucket::default();
    here.push(&bucket, &live).unwrap();
    let counted = Counted::new(Box::new(bucket));
    assert_eq!(here.push(&counted, &live).unwrap().objects, 0);
    assert_eq!(counted.requests(), 3, "the format, what is condemned, what is there");
}

#[test]
fn of_an_edited_large_file_only_the_new_pieces_are_sent() {
    let here = Machine::new();
    let bucket = MemoryBucket::default();
    let mut bytes = noise(1, 8 << 20);
    let first = here.store.put_bytes(Kind::Blob, &bytes).unwrap().digest;
    here.store.sync().unwrap();
    here.push(&bucket, &Live::from([(Kind::Blob, first)])).unwrap();
    bytes.splice(4_000_000..4_000_000, *b"an insertion");
    let second = here.store.put_bytes(Kind::Blob, &bytes).unwrap().digest;
    here.store.sync().unwrap();
    let size = |bucket: &MemoryBucket| bucket.files().values().map(Vec::len).sum::<usize>();
    let before = size(&bucket);
    here.push(&bucket, &Live::from([(Kind::Blob, second)])).unwrap();
    let grown = size(&bucket) - before;
    assert!(grown < 2 << 20, "{grown} bytes for twelve");
    let there = Machine::new();
    there.pull(&bucket, &Live::from([(Kind::Blob, second)])).unwrap();
    assert_eq!(there.reopened().get(Kind::Blob, second).unwrap(), bytes);
}

#[test]
fn a_pack_of_which_all_is_wanted_is_sent_as_it_is() {
    let (here, live) = Machine::filled();
    let bucket = MemoryBucket::default();
    here.push(&bucket, &live).unwrap();
    let own: Vec<_> =
        std::fs::read_dir(here.directory.path().join("store/packs")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(own.len(), 1);
    let sent: Vec<_> =
        bucket.files().iter().filter(|(name, _)| name.starts_with("packs/")).map(|(_, bytes)| bytes.clone()).collect();
    assert_eq!(sent, [std::fs::read(&own[0]).unwrap()]);
}

#[test]
fn wherever_the_line_is_cut_the_next_push_goes_on_and_nothing_is_lost() {
    let (here, live) = Machine::filled();
    let mut files = BTreeMap::new();
    for at in 0.. {
        let bucket = MemoryBucket::breaking(std::mem::take(&mut files), at);
        let pushed = here.push(&bucket, &live);
        let is_done = pushed.is_ok();
        if let Err(error) = pushed {
            assert!(matches!(error, RemoteError::Bucket(BucketError { trouble: Trouble::Unreachable, .. })), "{error}");
        }
        let there = Machine::new();
        let whole = MemoryBucket { files: Mutex::new(bucket.files().clone()), ..MemoryBucket::default() };
        // What the indexes name is there, however far it got.
        there.pull(&whole, &live).unwrap();
        if is_done {
            assert_same(&here.store, &there.reopened(), &live);
            assert!(at >= 6, "it took {at} requests only");
            break;
        }
        // Every other attempt begins with what the one before left.
        files = if at % 2 == 0 { bucket.files().clone() } else { BTreeMap::new() };
    }
}

#[test]
fn wherever_the_line_is_cut_a_pull_goes_on_and_takes_nothing_in_half() {
    let (here, live) = Machine::filled();
    let bucket = MemoryBucket::default();
    here.push(&bucket, &live).unwrap();
    let files = bucket.files().clone();
    for at in 0.. {
        let there = Machine::new();
        let is_done = there.pull(&MemoryBucket::breaking(files.clone(), at), &live).is_ok();
        let reopened = there.reopened();
        for (kind, digest) in &live {
            if let Ok(bytes) = reopened.get(*kind, *digest) {
                assert_eq!(kind.digest(&bytes), *digest);
            }
        }
        there.pull(&MemoryBucket::breaking(files.clone(), usize::MAX), &live).unwrap();
        assert_same(&here.store, &there.reopened(), &live);
        if is_done {
            break;
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_in_a_remote_is_told_and_never_taken() {
    let (here, live) = Machine::filled();
    let bucket = MemoryBucket::default();
    here.push(&bucket, &live).unwrap();
    let names: Vec<_> = bucket.files().keys().filter(|name| name.contains('/')).cloned().collect();
    let mut noticed = 0;
    for name in names {
        let bits = bucket.files()[&name].len() * 8;
        for number in 0..60 {
            let bit =
                usize::try_from(Digest::of(format!("{name} {number}").as_bytes()).number() % bits as u64).unwrap();
            bucket.flip(&name, bit);
            let there = Machine::new();
            if there.pull(&bucket, &live).is_err() {
                noticed += 1;
            }
            let reopened = there.reopened();
            for (kind, digest) in &live {
                match reopened.get(*kind, *digest) {
                    Ok(bytes) => assert_eq!(bytes, here.store.get(*kind, *digest).unwrap()),
                    Err(error) => assert!(matches!(error, crate::store::StoreError::Missing { .. }), "{error}"),
                }
            }
            bucket.flip(&name, bit);
        }
    }
    assert!(noticed > 60, "{noticed} of 120");
}

#[test]
fn a_remote_that_lies_about_lengths_or_names_harms_nobody() {
    let (here, live) = Machine::filled();
    let bucket = MemoryBucket::default();
    here.push(&bucket, &live).unwrap();
    for name in ["index/../../../etc/passwd", "index/..", "index/ABC", "index/x y"] {
        bucket.files().insert(name.to_owned(), vec![0; 100]);
    }
    let there = Machine::new();
    there.pull(&bucket, &live).unwrap();
    let remembered: Vec<_> =
        std::fs::read_dir(there.memory().join("index")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(remembered.len(), 1, "{remembered:?}");

    // An index that is one, and leads out of its pack, or to another length.
    let index =
        bucket.files().iter().find(|(name, _)| name.starts_with("index/") && name.len() == 70).unwrap().1.clone();
    let entry = 1024;
    for (at, value) in
        [(entry + 32, u64::MAX), (entry + 32, 1 << 40), (entry + 40, u64::MAX), (entry + 48, 0xffff_ffff_ffff_ffff)]
    {
        let mut forged = index.clone();
        forged[at..at + 8].copy_from_slice(&value.to_le_bytes());
        let body = forged.len() - 64;
        let name = Digest::derived("pv pack v1", &forged[..body]);
        forged[body + 16..body + 48].copy_from_slice(name.as_bytes());
        let lying = MemoryBucket::default();
        lying.files().insert("FORMAT".to_owned(), format!("{REMOTE_FORMAT}\n").into_bytes());
        lying.files().insert(format!("index/{name}"), forged);
        lying.files().insert(
            catalog::pack_file(name),
            bucket.files().iter().find(|(name, _)| name.starts_with("packs/")).unwrap().1.clone(),
        );
        let victim = Machine::new();
        let _ = victim.pull(&lying, &live);
        for (kind, digest) in &live {
            if let Ok(bytes) = victim.reopened().get(*kind, *digest) {
                assert_eq!(kind.digest(&bytes), *digest);
            }
        }
    }
}

#[test]
fn a_list_of_pieces_that_make_something_else_is_not_taken() {
    // Whoever writes to a remote could name two pieces that exist by the name of another file.
    let (here, other) = (Machine::new(), Machine::new());
    let wanted = here.store.put_bytes(Kind::Blob, &noise(1, 400_000)).unwrap().digest;
    other.store.put_bytes(Kind::Blob, &noise(2, 400_000)).unwrap();
    here.store.sync().unwrap();
    other.store.sync().unwrap();
    let bucket = MemoryBucket::default();
    other.push(&bucket, &Live::from([(Kind::Blob, Digest::of(&noise(2, 400_000)))])).unwrap();
    let live = Live::from([(Kind::Blob, wanted)]);
    crate::store::forge_list(&bucket_pack(&bucket), wanted, &mut |name, pack, index| {
        let mut files = bucket.files();
        files.insert(catalog::pack_file(name), pack);
        files.insert(catalog::index_file(name), index);
    });
    let victim = Machine::new();
    let error = victim.pull(&bucket, &live).unwrap_err();
    assert!(matches!(error, RemoteError::Wrong { .. }), "{error}");
    assert_eq!(victim.reopened().length(Kind::Blob, wanted).unwrap(), None);
    // And the true one still has its place.
    victim.store.put_bytes(Kind::Blob, &noise(1, 400_000)).unwrap();
    victim.store.sync().unwrap();
    assert_eq!(victim.reopened().get(Kind::Blob, wanted).unwrap(), noise(1, 400_000));
}

fn bucket_pack(bucket: &MemoryBucket) -> Vec<u8> {
    bucket.files().iter().find(|(name, _)| name.starts_with("packs/")).unwrap().1.clone()
}

#[test]
fn a_remote_of_the_future_is_refused_with_what_it_asks_for() {
    let (here, live) = Machine::filled();
    let bucket = MemoryBucket::default();
    let with = |text: &str| {
        bucket.files().insert("FORMAT".to_owned(), text.as_bytes().to_vec());
        let before = bucket.files().clone();
        let error = here.push(&bucket, &live).unwrap_err();
        assert!(*bucket.files() == before, "something was written");
        error.to_string()
    };
    assert_eq!(with("pv-remote 2\n"), "the remote has the format `pv-remote 2`");
    assert_eq!(with("pv-remote 1\nrequires encryption\n"), "the remote requires `encryption`");
    bucket.files().insert("FORMAT".to_owned(), b"pv-remote 1\nnotes something harmless\n".to_vec());
    here.push(&bucket, &live).unwrap();
}

#[test]
fn nothing_is_written_where_other_files_lie() {
    let (here, live) = Machine::filled();
    let share = tempfile::tempdir().unwrap();
    crate::disk::create(&share.path().join("holiday.jpg")).unwrap();
    let error = here.push(&Directory::new(share.path().to_owned()), &live).unwrap_err();
    assert!(matches!(error, RemoteError::Occupied));
    assert_eq!(std::fs::read_dir(share.path()).unwrap().count(), 1);
}

#[test]
fn two_who_push_at_once_both_succeed_and_the_list_names_all() {
    let share = tempfile::tempdir().unwrap();
    let machines: Vec<_> = (0..4_u64)
        .map(|number| {
            let machine = Machine::new();
            let digest = machine.store.put_bytes(Kind::Blob, &noise(number, 100_000)).unwrap().digest;
            machine.store.sync().unwrap();
            (machine, Live::from([(Kind::Blob, digest)]))
        })
        .collect();
    let root = share.path().join("remote");
    std::thread::scope(|scope| {
        for (machine, live) in &machines {
            let root = root.clone();
            scope.spawn(move || machine.push(&Directory::new(root), live).unwrap());
        }
    });
    let there = Machine::new();
    let all: Live = machines.iter().flat_map(|(_, live)| live.clone()).collect();
    assert_eq!(there.pull(&Directory::new(root.clone()), &all).unwrap().received, 4);
    let list = std::fs::read_to_string(root.join("list")).unwrap();
    assert_eq!(list.lines().count(), 4);
}

#[test]
fn what_is_nowhere_is_named() {
    let (here, mut live) = Machine::filled();
    let bucket = MemoryBucket::default();
    let lost = (Kind::Blob, Digest::of(b"lost"));
    live.insert(lost);
    let catalog = Catalog::open(&bucket, &here.memory()).unwrap();
    let shipment = Shipment::plan(&here.store, &bucket, &catalog, &live).unwrap();
    assert_eq!(shipment.missing, [lost].into());
    here.push(&bucket, &live).unwrap();
    assert_eq!(Machine::new().pull(&bucket, &live).unwrap().missing, [lost].into());
}

#[test]
fn a_store_behind_which_a_remote_lies_has_what_the_remote_has() {
    let (here, live) = Machine::filled();
    let bucket = MemoryBucket::default();
    here.push(&bucket, &live).unwrap();
    let files = bucket.files().clone();
    let there = Machine::new();
    let asked = AtomicUsize::new(0);
    let connect: Connect<'_> = Box::new(|| {
        asked.fetch_add(1, Ordering::Relaxed);
        let bucket = MemoryBucket { files: Mutex::new(files.clone()), ..MemoryBucket::default() };
        let catalog = Catalog::open(&bucket, &there.memory())?;
        Ok(Connection { bucket: Counted::new(Box::new(bucket)), catalog })
    });
    let store = Fetching::over(&there.store, Some(connect), Box::new(|_| true));
    store.put_bytes(Kind::Blob, b"here").unwrap();
    store.get(Kind::Blob, Digest::of(b"here")).unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 0, "nothing was missing");
    for (kind, digest) in &live {
        let bytes = here.store.get(*kind, *digest).unwrap();
        assert_eq!(store.length(*kind, *digest).unwrap(), Some(bytes.len() as u64));
        assert_eq!(store.get(*kind, *digest).unwrap(), bytes);
    }
    assert_eq!((store.received().0, asked.load(Ordering::Relaxed)), (live.len() as u64, 1));
    assert!(store.get(Kind::Blob, Digest::of(b"nowhere")).is_err());
    assert!(store.trouble().is_none());

    // One that cannot be reached is as if it had nothing, and says so once.
    let broken: Connect<'_> = Box::new(|| Err(RemoteError::Occupied));
    let store = Fetching::over(&there.store, Some(broken), Box::new(|_| true));
    assert_eq!(store.length(Kind::Blob, Digest::of(b"nowhere")).unwrap(), None);
    assert!(matches!(store.trouble(), Some(RemoteError::Occupied)));
    assert!(store.trouble().is_none());
}

/// What can go wrong with the files of a remote, by what is done to a pack or its index.
const DAMAGES: [(&str, fn(&MemoryBucket, &str)); 5] = [
    ("a flipped bit", |bucket, pack| bucket.flip(pack, 8 * 5000)),
    ("a pack that is gone", |bucket, pack| drop(bucket.files().remove(pack))),
    ("a pack that is cut off", |bucket, pack| bucket.files().get_mut(pack).unwrap().truncate(5000)),
    ("an index that is damaged", |bucket, pack| bucket.flip(&format!("index/{}", &pack[9..]), 8 * 2000)),
    ("an index that is empty", |bucket, pack| {
        bucket.files().get_mut(&format!("index/{}", &pack[9..])).unwrap().clear();
    }),
];

fn pack_of(bucket: &MemoryBucket) -> String {
    bucket.files().keys().find(|name| name.starts_with("packs/")).unwrap().clone()
}

#[test]
fn damage_of_a_remote_is_found_and_mended_by_whoever_has_it_whole() {
    let (here, live) = Machine::filled();
    for (damage, act) in DAMAGES {
        let bucket = MemoryBucket::default();
        here.push(&bucket, &live).unwrap();
        let (found, _) = inspect(&bucket, &here.memory(), Depth::Whole, &|_| true).unwrap();
        assert!(found.damaged.is_empty() && found.records > 200, "before {damage}: {found:?}");
        act(&bucket, &pack_of(&bucket));
        let (found, catalog) = inspect(&bucket, &here.memory(), Depth::Whole, &|_| true).unwrap();
        assert_eq!(found.damaged.len(), 1, "{damage}");
        let mended = found.mend(&here.store, &bucket, catalog, 2, &|_| true).unwrap();
        assert_eq!((mended.mended.len(), mended.lost.len()), (1, 0), "{damage}");
        let (again, _) = inspect(&bucket, &Machine::new().memory(), Depth::Whole, &|_| true).unwrap();
        assert!(again.damaged.is_empty(), "after {damage}: {again:?}");
        let there = Machine::new();
        assert!(there.pull(&bucket, &live).unwrap().missing.is_empty(), "{damage}");
        assert_same(&here.store, &there.reopened(), &live);
    }
}

#[test]
fn who_has_nothing_saves_what_is_whole_and_tells_what_is_lost() {
    let (here, live) = Machine::filled();
    let bucket = MemoryBucket::default();
    here.push(&bucket, &live).unwrap();
    bucket.flip(&pack_of(&bucket), 8 * 5000);
    let other = Machine::new();
    let (found, catalog) = inspect(&bucket, &other.memory(), Depth::Whole, &|_| true).unwrap();
    let mended = found.mend(&other.store, &bucket, catalog, 2, &|_| true).unwrap();
    assert!(!mended.lost.is_empty() && mended.lost.len() < 5, "{:?}", mended.lost);
    let there = Machine::new();
    let fetched = there.pull(&bucket, &live).unwrap();
    assert!(!fetched.missing.is_empty() && fetched.missing.len() <= mended.lost.len(), "{:?}", fetched.missing);
    // And whoever has it sends just that.
    here.push(&bucket, &live).unwrap();
    assert!(there.pull(&bucket, &live).unwrap().missing.is_empty());
    assert_same(&here.store, &there.reopened(), &live);
}

#[test]
fn a_sample_looks_at_every_pack_and_reads_a_part() {
    let (here, live) = Machine::filled();
    let bucket = MemoryBucket::default();
    here.push(&bucket, &live).unwrap();
    let none = Depth::Sample { percent: 0.0, seed: 1 };
    let (found, _) = inspect(&bucket, &here.memory(), none, &|_| true).unwrap();
    assert_eq!((found.packs, found.records, found.damaged.len()), (1, 0, 0));
    let pack = pack_of(&bucket);
    bucket.files().remove(&pack);
    let (found, _) = inspect(&bucket, &here.memory(), none, &|_| true).unwrap();
    assert_eq!(found.damaged.into_values().collect::<Vec<_>>(), [PackFlaw::Gone]);
}

const AT_ONCE: Sweep = Sweep { grace_ms: 0, dry_run: false };

impl Machine {
    fn sweep(&self, bucket: &dyn Bucket, live: &Live, terms: Sweep) -> Result<Swept, RemoteError> {
        let mut catalog = Catalog::open(bucket, &self.memory())?;
        sweep(&self.store, bucket, &mut catalog, live, terms, 2, &|_| true)
    }

    /// Puts one small object and returns it.
    fn put(&self, text: &str) -> Live {
        let digest = self.store.put_bytes(Kind::Blob, text.as_bytes()).unwrap().digest;
        self.store.sync().unwrap();
        Live::from([(Kind::Blob, digest)])
    }
}

#[test]
fn what_nobody_needs_goes_with_the_second_collection_and_all_else_stays() {
    let (here, live) = Machine::filled();
    let bucket = MemoryBucket::default();
    here.push(&bucket, &live).unwrap();
    let garbage = here.put("garbage");
    here.push(&bucket, &garbage).unwrap();
    let first = here.sweep(&bucket, &live, AT_ONCE).unwrap();
    assert_eq!((first.condemned.len(), first.removed.len()), (1, 0));
    let patient = Sweep { grace_ms: 1000, dry_run: false };
    assert_eq!(here.sweep(&bucket, &live, patient).unwrap().waiting.len(), 1);
    let dry = here.sweep(&bucket, &live, Sweep { dry_run: true, ..AT_ONCE }).unwrap();
    assert_eq!(dry.removed.len(), 1);
    let second = here.sweep(&bucket, &live, AT_ONCE).unwrap();
    assert_eq!((second.condemned.len(), second.removed.len()), (0, 1));
    let there = Machine::new();
    assert_eq!(there.pull(&bucket, &live).unwrap().missing.len(), 0);
    assert_eq!(there.pull(&bucket, &garbage).unwrap().missing.len(), 1);
    let files: Vec<String> = bucket.files().keys().cloned().collect();
    assert_eq!(files.len(), 4, "format, list, a pack and its index: {files:?}");
}

#[test]
fn whoever_pushes_after_a_condemnation_sends_anew_what_is_going_to_go() {
    let (here, live) = Machine::filled();
    let bucket = MemoryBucket::default();
    here.push(&bucket, &live).unwrap();
    let again = here.put("needed again");
    here.push(&bucket, &again).unwrap();
    here.sweep(&bucket, &live, AT_ONCE).unwrap();
    // Another machine that has the same comes now; nobody else knows of what it has on record.
    let other = Machine::new();
    other.put("needed again");
    assert_eq!(other.push(&bucket, &again).unwrap().objects, 1);
    here.sweep(&bucket, &live, AT_ONCE).unwrap();
    let all: Live = live.union(&again).copied().collect();
    let there = Machine::new();
    assert_eq!(there.pull(&bucket, &again).unwrap().missing.len(), 0);
    // What is on record at last is spared.
    let last = here.sweep(&bucket, &all, AT_ONCE).unwrap();
    assert_eq!(last.removed.len(), 0);
    assert_eq!(Machine::new().pull(&bucket, &all).unwrap().missing.len(), 0);
}

#[test]
fn what_is_on_record_by_the_second_collection_is_spared() {
    let (here, live) = Machine::filled();
    let bucket = MemoryBucket::default();
    here.push(&bucket, &live).unwrap();
    here.sweep(&bucket, &Live::new(), AT_ONCE).unwrap();
    let second = here.sweep(&bucket, &live, AT_ONCE).unwrap();
    assert_eq!((second.removed.len(), second.spared.len()), (0, 1));
    assert_eq!(Machine::new().pull(&bucket, &live).unwrap().missing.len(), 0);
    assert!(!bucket.files().keys().any(|name| name.starts_with("gc/")));
}

#[test]
fn nothing_goes_as_long_as_somebody_pushes_who_began_before() {
    let (here, live) = Machine::filled();
    let bucket = MemoryBucket::default();
    here.push(&bucket, &live).unwrap();
    bucket.files().insert("leases/somebody".to_owned(), Vec::new());
    here.sweep(&bucket, &Live::new(), AT_ONCE).unwrap();
    let second = here.sweep(&bucket, &Live::new(), AT_ONCE).unwrap();
    assert_eq!((second.removed.len(), second.waiting_for.len()), (0, 1));
    // One who knows what is condemned relies on nothing of it.
    let sentence = bucket.files().keys().find(|name| name.starts_with("gc/")).unwrap()[3..].to_owned();
    bucket.files().insert("leases/somebody".to_owned(), sentence.into_bytes());
    assert_eq!(here.sweep(&bucket, &Live::new(), AT_ONCE).unwrap().removed.len(), 1);
}

#[test]
fn a_push_during_which_something_was_condemned_says_so_and_the_next_one_is_whole() {
    let (here, live) = Machine::filled();
    let bucket = MemoryBucket::default();
    here.push(&bucket, &live).unwrap();
    let more = here.put("more");
    let all: Live = live.union(&more).copied().collect();
    let mut catalog = Catalog::open(&bucket, &here.memory()).unwrap();
    let shipment = Shipment::plan(&here.store, &bucket, &catalog, &all).unwrap();
    Machine::new().sweep(&bucket, &Live::new(), AT_ONCE).unwrap();
    let sent = shipment.send(&here.store, &bucket, &mut catalog, 2, &|_| true);
    assert!(matches!(sent, Err(RemoteError::Changed)), "{sent:?}");
    here.push(&bucket, &all).unwrap();
    Machine::new().sweep(&bucket, &Live::new(), Sweep { grace_ms: i64::MAX, dry_run: false }).unwrap();
    assert_eq!(Machine::new().pull(&bucket, &all).unwrap().missing.len(), 0);
}

#[test]
fn of_a_pack_of_which_little_is_needed_that_is_sent_anew() {
    let here = Machine::new();
    let mut live = Live::new();
    for number in 0..100_u64 {
        live.insert((Kind::Blob, here.store.put_bytes(Kind::Blob, &noise(number, 2000)).unwrap().digest));
    }
    here.store.sync().unwrap();
    let bucket = MemoryBucket::default();
    here.push(&bucket, &live).unwrap();
    let needed: Live = live.iter().take(10).copied().collect();
    // Also by one who has nothing of it.
    let other = Machine::new();
    let first = other.sweep(&bucket, &needed, AT_ONCE).unwrap();
    assert_eq!((first.condemned.len(), first.sent.records), (1, 10));
    assert_eq!(other.sweep(&bucket, &needed, AT_ONCE).unwrap().removed.len(), 1);
    let size: usize = bucket.files().values().map(Vec::len).sum();
    assert!(size < 40_000, "{size} bytes");
    assert_eq!(Machine::new().pull(&bucket, &needed).unwrap().missing.len(), 0);
}

#[test]
fn wherever_a_collection_stops_what_is_needed_stays() {
    let (here, live) = Machine::filled();
    let bucket = MemoryBucket::default();
    here.push(&bucket, &live).unwrap();
    let garbage = here.put("garbage");
    here.push(&bucket, &garbage).unwrap();
    let mut files = bucket.files().clone();
    for round in 0..2 {
        for at in 0.. {
            let breaking = MemoryBucket::breaking(files.clone(), at);
            let is_done = here.sweep(&breaking, &live, AT_ONCE).is_ok();
            let left = MemoryBucket { files: Mutex::new(breaking.files().clone()), ..MemoryBucket::default() };
            assert_eq!(Machine::new().pull(&left, &live).unwrap().missing.len(), 0, "round {round}, {at}");
            let catalog = Catalog::open(&left, &Machine::new().memory()).unwrap();
            // Whatever an index names is there.
            for (name, _) in catalog.packs() {
                assert!(left.files().contains_key(&catalog::pack_file(name)), "round {round}, {at}");
            }
            if is_done {
                files = left.files().clone();
                break;
            }
        }
    }
}

#[test]
fn who_may_not_remove_anything_pushes_and_pulls_and_collects_nothing() {
    let (here, live) = Machine::filled();
    let bucket = MemoryBucket { append_only: true, ..MemoryBucket::default() };
    here.push(&bucket, &live).unwrap();
    let more = here.put("more");
    here.push(&bucket, &more).unwrap();
    let error = here.sweep(&bucket, &live, AT_ONCE).unwrap_err();
    assert!(matches!(error, RemoteError::Bucket(BucketError { trouble: Trouble::Refused, .. })), "{error}");
    assert_eq!(Machine::new().pull(&bucket, &more).unwrap().missing.len(), 0);
}

#[test]
fn what_a_killed_writer_left_in_a_directory_goes_after_a_day() {
    let (here, live) = Machine::filled();
    let share = tempfile::tempdir().unwrap();
    let bucket = Directory::new(share.path().join("remote"));
    assert_eq!(bucket.sweep(crate::host::Time::now()).unwrap(), 0);
    here.push(&bucket, &live).unwrap();
    let left = share.path().join("remote/packs/.pv-1-1.tmp");
    drop(crate::disk::create(&left).unwrap());
    let now = crate::host::Time::now();
    let later = |hours: i64| crate::host::Time { epoch_ms: now.epoch_ms + hours * 3_600_000 };
    assert_eq!(bucket.sweep(later(1)).unwrap(), 0);
    assert_eq!(bucket.sweep(later(25)).unwrap(), 1);
    assert!(!left.exists());
    assert_eq!(Machine::new().pull(&bucket, &live).unwrap().missing.len(), 0);
}

#[test]
fn a_place_that_becomes_a_remote_meanwhile_is_no_place_of_others() {
    // Of two first pushes at once, one was told that other files lie there.
    let (here, live) = Machine::filled();
    let bucket = MemoryBucket { raced: true, ..MemoryBucket::default() };
    here.push(&bucket, &live).unwrap();
    assert_eq!(Machine::new().pull(&bucket, &live).unwrap().missing.len(), 0);
}

/// Some servers read a whole file for any part of it: a short rest of a pack is no request of its own.
#[test]
fn a_pack_is_read_in_parts_that_are_alike() {
    let (here, live) = Machine::filled();
    let bucket = MemoryBucket::default();
    here.push(&bucket, &live).unwrap();
    let catalog = Catalog::open(&bucket, &here.memory()).unwrap();
    let (name, index) = catalog.packs().max_by_key(|(_, index)| index.pack_bytes()).unwrap();
    let records: Vec<_> = index.records().collect();
    let all = records.iter().map(|placed| placed.span().end - placed.span().start).sum::<u64>();
    let lengths = |most_bytes| {
        let stretches = fetch::stretches(name, records.clone(), most_bytes);
        assert_eq!(stretches.iter().map(|stretch| stretch.records.len()).sum::<usize>(), records.len());
        stretches.iter().map(|stretch| stretch.span.end - stretch.span.start).collect::<Vec<_>>()
    };
    assert_eq!(lengths(all).len(), 1);
    assert_eq!(lengths(all - 1).len(), 1, "a rest of one byte goes along");
    // Records of a MiB lie in it, so that halves are alike but for one of them.
    let halves = lengths(all / 2);
    assert!(halves.len() == 2 && halves.iter().all(|length| *length < all * 3 / 4), "{halves:?} of {all}");
}
