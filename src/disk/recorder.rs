//! A disk that remembers what was done to it, stops on demand, and can be cut from power.
//!
//! The model of a power cut is that of the literature on crash-consistency
//! (Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014): bytes
//! of a file are safe once that file was flushed, a name once the directory that
//! holds it was; all else may be there, be lost, or be torn, in any combination.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::{Change, Disk, DiskError, Flush, RealDisk};

/// One effect, as it was done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Done {
    Create(PathBuf),
    Write { path: PathBuf, at: u64, bytes: Vec<u8> },
    FlushFile(PathBuf),
    FlushDirectory(PathBuf),
    FlushFileSystem,
    MakeDirectory(PathBuf),
    Rename { from: PathBuf, to: PathBuf },
    Link { from: PathBuf, to: PathBuf },
    Remove(PathBuf),
    Mode,
}

impl Done {
    /// Returns whether this makes something durable.
    pub(crate) fn is_flush(&self) -> bool {
        matches!(self, Self::FlushFile(_) | Self::FlushDirectory(_) | Self::FlushFileSystem)
    }
}

/// What a power cut does to what was not flushed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cut {
    /// No power cut: the process was killed, everything that was done stays.
    Kill,
    /// Bytes and names that were not flushed are gone.
    AllLost,
    /// Names stay, the bytes behind them are gone.
    BytesLost,
    /// Names stay, the bytes behind them are zeros.
    BytesZeroed,
    /// Names stay, of each write only the first half is there.
    BytesTorn,
    /// Bytes stay, names are gone.
    NamesLost,
    /// Of the names, those that came later stay, those that came first are gone.
    LateNamesOnly,
}

impl Cut {
    pub(crate) const ALL: [Self; 7] = [
        Self::Kill,
        Self::AllLost,
        Self::BytesLost,
        Self::BytesZeroed,
        Self::BytesTorn,
        Self::NamesLost,
        Self::LateNamesOnly,
    ];
}

/// Called with each effect before it is done; an error is returned in its place.
pub(crate) type Guard = Box<dyn Fn(usize, &Done) -> io::Result<()> + Send + Sync>;

/// The real disk, with a log of everything that was done to it.
pub(crate) struct Recorder {
    log: Mutex<Vec<Done>>,
    guard: Guard,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recorder({} effects)", self.log.lock().unwrap().len())
    }
}

impl Recorder {
    /// Returns a disk that does everything.
    pub(crate) fn new() -> Self {
        Self::guarded(Box::new(|_, _| Ok(())))
    }

    /// Returns a disk that does the first `count` effects and refuses all later ones.
    pub(crate) fn stopping_after(count: usize) -> Self {
        Self::guarded(Box::new(move |number, _| if number < count { Ok(()) } else { Err(io::Error::other("stopped")) }))
    }

    /// Returns a disk that asks `guard` before each effect, with its number from 0.
    pub(crate) fn guarded(guard: Guard) -> Self {
        Self { log: Mutex::default(), guard }
    }

    /// Returns what was done so far.
    pub(crate) fn log(&self) -> Vec<Done> {
        self.log.lock().unwrap().clone()
    }

    fn perform<T>(&self, path: &Path, done: Done, act: impl FnOnce() -> Result<T, DiskError>) -> Result<T, DiskError> {
        // Held while it acts, so that the log has the order of what happened.
        let mut log = self.log.lock().unwrap();
        (self.guard)(log.len(), &done).map_err(DiskError::on("write", path))?;
        let result = act()?;
        log.push(done);
        Ok(result)
    }
}

impl Disk for Recorder {
    fn create(&self, path: &Path) -> Result<File, DiskError> {
        self.perform(path, Done::Create(path.to_owned()), || RealDisk.create(path))
    }

    fn write(&self, file: &File, path: &Path, at: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let done = Done::Write { path: path.to_owned(), at, bytes: bytes.to_vec() };
        self.perform(path, done, || RealDisk.write(file, path, at, bytes))
    }

    fn share(&self, source: &File, file: &File, path: &Path) -> Result<bool, DiskError> {
        let shared = RealDisk.share(source, file, path)?;
        if shared {
            let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
            file.read_exact_at(&mut bytes, 0).unwrap();
            let done = Done::Write { path: path.to_owned(), at: 0, bytes };
            self.perform(path, done, || Ok(()))?;
        }
        Ok(shared)
    }

    fn flush(&self, what: Flush<'_>) -> Result<(), DiskError> {
        let (path, done) = match what {
            Flush::File(path) => (path, Done::FlushFile(path.to_owned())),
            Flush::Directory(path) => (path, Done::FlushDirectory(path.to_owned())),
            Flush::FileSystem(path) => (path, Done::FlushFileSystem),
        };
        // What a flush does is played by `play`; a real one would only cost time.
        self.perform(path, done, || Ok(()))
    }

    fn change(&self, change: Change<'_>) -> Result<(), DiskError> {
        let (path, done) = match change {
            Change::MakeDirectory(path) => (path, Done::MakeDirectory(path.to_owned())),
            Change::Rename { from, to } => (to, Done::Rename { from: from.to_owned(), to: to.to_owned() }),
            Change::Link { from, to } => (to, Done::Link { from: from.to_owned(), to: to.to_owned() }),
            Change::Remove(path) | Change::RemoveDirectory(path) => (path, Done::Remove(path.to_owned())),
            Change::Protect(path) | Change::Open(path) => (path, Done::Mode),
        };
        self.perform(path, done, || RealDisk.change(change))
    }
}

/// A file of the model: what it holds, and which of its writes are safe.
#[derive(Clone, Default)]
struct Model {
    writes: Vec<(u64, Vec<u8>, bool)>,
}

impl Model {
    fn content(&self, cut: Cut) -> Vec<u8> {
        let mut content = Vec::new();
        for (at, bytes, safe) in &self.writes {
            let kept = match cut {
                _ if *safe => bytes.clone(),
                Cut::Kill | Cut::NamesLost | Cut::LateNamesOnly => bytes.clone(),
                Cut::AllLost | Cut::BytesLost => continue,
                Cut::BytesZeroed => vec![0; bytes.len()],
                Cut::BytesTorn => bytes[..bytes.len() / 2].to_vec(),
            };
            let at = usize::try_from(*at).unwrap();
            content.resize(content.len().max(at + kept.len()), 0);
            content[at..at + kept.len()].copy_from_slice(&kept);
        }
        content
    }
}

/// One change of a name, and whether it is safe. `None` stands for a name that goes.
struct Naming {
    name: PathBuf,
    node: Option<Node>,
    safe: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    Directory,
    File(usize),
}

/// What is left after a cut: files with their bytes, and directories.
pub(crate) type Left = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// Writes into `to` what is left of `from` after the effects in `log` and this cut.
///
/// Before the first of them `from` must have held nothing but what is in `to` already; locks and
/// other files that did not go through the disk are left out, as empty ones would be.
pub(crate) fn play(log: &[Done], cut: Cut, from: &Path, to: &Path) {
    lay_out(&left(log, cut), from, to);
}

/// Returns what the effects in `log` leave after this cut.
pub(crate) fn left(log: &[Done], cut: Cut) -> Left {
    let mut files: Vec<Model> = Vec::new();
    let mut names: Vec<Naming> = Vec::new();
    for done in log {
        match done {
            Done::Create(path) => {
                files.push(Model::default());
                names.push(Naming { name: path.clone(), node: Some(Node::File(files.len() - 1)), safe: false });
            }
            Done::Write { path, at, bytes } => {
                if let Some(Node::File(index)) = current(&names, path) {
                    files[index].writes.push((*at, bytes.clone(), false));
                }
            }
            Done::FlushFile(path) => {
                if let Some(Node::File(index)) = current(&names, path) {
                    files[index].writes.iter_mut().for_each(|(_, _, safe)| *safe = true);
                }
            }
            Done::FlushDirectory(path) => {
                names
                    .iter_mut()
                    .filter(|naming| naming.name.parent() == Some(path))
                    .for_each(|naming| naming.safe = true);
            }
            Done::FlushFileSystem => {
                names.iter_mut().for_each(|naming| naming.safe = true);
                files.iter_mut().flat_map(|file| &mut file.writes).for_each(|(_, _, safe)| *safe = true);
            }
            Done::MakeDirectory(path) => {
                if current(&names, path).is_none() {
                    names.push(Naming { name: path.clone(), node: Some(Node::Directory), safe: false });
                }
            }
            Done::Rename { from, to } => {
                let node = current(&names, from);
                names.push(Naming { name: to.clone(), node, safe: false });
                names.push(Naming { name: from.clone(), node: None, safe: false });
            }
            Done::Link { from, to } => {
                names.push(Naming { name: to.clone(), node: current(&names, from), safe: false });
            }
            Done::Remove(path) => names.push(Naming { name: path.clone(), node: None, safe: false }),
            Done::Mode => {}
        }
    }
    let content = |node| match node {
        Node::Directory => None,
        Node::File(index) => Some(Model::content(&files[index], cut)),
    };
    surviving(&names, cut).into_iter().map(|(path, node)| (path, content(node))).collect()
}

fn current(names: &[Naming], path: &Path) -> Option<Node> {
    names.iter().rev().find(|naming| naming.name == path).and_then(|naming| naming.node)
}

fn surviving(names: &[Naming], cut: Cut) -> BTreeMap<PathBuf, Node> {
    let unsafe_ones = names.iter().filter(|naming| !naming.safe).count();
    let (mut left, mut passed) = (BTreeMap::new(), 0);
    for naming in names {
        let stays = naming.safe
            || match cut {
                Cut::Kill | Cut::BytesLost | Cut::BytesZeroed | Cut::BytesTorn => true,
                Cut::AllLost | Cut::NamesLost => false,
                Cut::LateNamesOnly => {
                    passed += 1;
                    passed * 2 > unsafe_ones
                }
            };
        match naming.node {
            _ if !stays => {}
            Some(node) => drop(left.insert(naming.name.clone(), node)),
            None => drop(left.remove(&naming.name)),
        }
    }
    left
}

/// Writes what is `left` of `from` into `to`.
pub(crate) fn lay_out(left: &Left, from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for (path, content) in left {
        let Ok(relative) = path.strip_prefix(from) else { continue };
        // A name below a directory whose own name is gone leads nowhere. Those above come first.
        if relative.parent().is_some_and(|above| !to.join(above).is_dir()) {
            continue;
        }
        match content {
            None => fs::create_dir_all(to.join(relative)).unwrap(),
            Some(bytes) => {
                use std::io::Write;
                File::create(to.join(relative)).unwrap().write_all(bytes).unwrap();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Durability, read_if_there, write_whole_on};

    #[test]
    fn a_durable_write_survives_every_cut_and_a_deferred_one_does_not() {
        for durability in [Durability::Synced, Durability::Deferred] {
            let root = tempfile::tempdir().unwrap();
            let from = root.path().join("from");
            let disk = Recorder::new();
            disk.change(Change::MakeDirectory(&from)).unwrap();
            write_whole_on(&disk, &from.join("file"), b"bytes", durability).unwrap();
            for cut in Cut::ALL {
                let to = root.path().join(format!("{cut:?}"));
                play(&disk.log(), cut, &from, &to);
                let there = read_if_there(&to.join("file")).unwrap();
                // Of a deferred write, a late name with its bytes may be there by chance.
                let survives = durability == Durability::Synced || matches!(cut, Cut::Kill | Cut::LateNamesOnly);
                assert_eq!(there.as_deref() == Some(b"bytes"), survives, "{durability:?} {cut:?} {there:?}");
            }
        }
    }
}
