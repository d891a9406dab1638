//! Taking a snapshot: from the working tree, or from a commit alone.
//!
//! Both ways end in the same list of paths and entries, so a clean tree and
//! its commit have the same id.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::data::{POINTERS, Pointer};
use super::{Change, SnapshotError, View};
use crate::disk::{self, DiskError, Found};
use crate::git::{
    CommitFiles, CommitId, CommitReader, FileKind, GitError, Repository, Tracked, WorkingFile, WorkingFiles,
    WorkingReader,
};
use crate::object::{
    DataRoot, DefinitionId, Entry, EnvironmentId, Kind, ParamsId, Sized, Snapshot, SnapshotId, TreeBuilder, TreeId,
    canonical,
};
use crate::path::ProjectPath;
use crate::pipeline::{self, Definition, Params, Pipeline};
use crate::store::{Source, Store, StoreError};

/// Told of files and bytes as they are done, and says whether to go on; called from several threads.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) -> bool + Sync);

/// Fewer files than this are hashed by one thread: starting more would cost more.
const PARALLEL_FROM_FILES: usize = 64;

/// Where a pipeline lives.
#[derive(Clone, Copy)]
pub struct Site<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// The project's directory, absolute.
    pub root: &'a Path,
    /// The project's directory inside the repository; `None` if it is the whole.
    pub prefix: Option<&'a ProjectPath>,
    /// The pipeline's name: `pipeline` for `.pipeline/pipeline.yaml`.
    pub pipeline: &'a str,
}

/// A snapshot that was taken, and what was learnt on the way.
pub struct Captured {
    /// Its id.
    pub id: SnapshotId,
    /// Its parts.
    pub snapshot: Snapshot,
    /// The definition, with the places of its parts in the file.
    pub definition: Definition,
    /// The values of all params.
    pub params: Params,
    /// Files and bytes of tree and data together.
    pub sized: Sized,
    /// Bytes that the store did not have before.
    pub new_bytes: u64,
    /// The data roots of which Git ignores some file: they need a pointer.
    pub pointed: Vec<(ProjectPath, DataRoot)>,
    /// Submodules, of which only the commit is in the snapshot.
    pub submodules: Vec<ProjectPath>,
}

impl Captured {
    /// Returns the pipeline.
    pub fn pipeline(&self) -> &Pipeline {
        &self.definition.pipeline
    }
}

/// Returns where the definition of the pipeline with this name lies.
pub fn definition_path(pipeline: &str) -> Option<ProjectPath> {
    let plain = !pipeline.is_empty() && !pipeline.starts_with('.') && !pipeline.contains('/');
    plain.then(|| ProjectPath::new(format!(".pipeline/{pipeline}.yaml")).ok()).flatten()
}

/// Returns whether `path` is left out of the tree: an output, a data root, or a data pointer.
pub fn excluded(pipeline: &Pipeline, path: &ProjectPath) -> bool {
    let outputs = pipeline.steps.iter().flat_map(|step| step.outputs.iter().chain(&step.metrics));
    path.as_bytes().strip_prefix(POINTERS.as_bytes()).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
        || outputs.chain(&pipeline.data).any(|other| path.is_within(other))
}

/// Takes a snapshot of the working tree as it is. Objects go to `store`; call its `sync` before relying on them.
///
/// Costs one read of every file.
///
/// # Errors
///
/// [`SnapshotError`]: no or a bad definition, a declared input that is missing
/// or ignored, data that is not there, a file that cannot be read or changes
/// while it is read.
pub fn capture_working(site: Site<'_>, store: &dyn Store, progress: Progress<'_>) -> Result<Captured, SnapshotError> {
    let listed = site.repository.working_files(site.prefix)?;
    let files = listed.files();
    // A file with line-ending attributes is read as a checkout elsewhere would write it.
    let read = |path: &ProjectPath| -> Result<Option<Vec<u8>>, SnapshotError> {
        if find(files, path).is_some_and(|file| file.normalised)
            && let Some(bytes) = listed.reader()?.converted(path)?
        {
            return Ok(Some(bytes));
        }
        Ok(disk::read_if_there(&path.under(site.root))?)
    };
    let (definition, params) = read_definition(site, "the working tree", &read)?;
    let pipeline = &definition.pipeline;
    let meter = Meter::new(store, progress);
    let entries = in_parallel(&in_tree(files, pipeline), &|| Ok(None), &|reader, path, file| {
        working_entry(site, &listed, reader, path, file, &meter)
    })?;
    let mut data = Vec::new();
    let mut pointed = Vec::new();
    for path in &pipeline.data {
        let (root, needs_pointer) = working_root(site, &listed, path, &meter)?;
        if needs_pointer {
            pointed.push((path.clone(), root));
        }
        data.push((path.clone(), root));
    }
    let captured = assemble(definition, params, entries, data, pointed, &meter)?;
    check_inputs(site, store, &captured)?;
    Ok(captured)
}

/// Takes the snapshot that `commit` alone determines. Objects go to `store`.
///
/// The content of data roots that Git does not track is known by its pointer only; it may not be in the store.
///
/// # Errors
///
/// [`SnapshotError`], as [`capture_working`], except that missing inputs are no error here.
pub fn capture_commit(
    site: Site<'_>,
    commit: &CommitId,
    store: &dyn Store,
    progress: Progress<'_>,
) -> Result<Captured, SnapshotError> {
    let place = format!("commit {}", commit.short());
    let listed = site.repository.commit_files(commit, site.prefix)?;
    let files = listed.files();
    let read = |path: &ProjectPath| -> Result<Option<Vec<u8>>, SnapshotError> {
        find(files, path).map(|file| Ok(listed.reader()?.bytes(path, file)?)).transpose()
    };
    let (definition, params) = read_definition(site, &place, &read)?;
    let meter = Meter::new(store, progress);
    let entries = in_parallel(&in_tree(files, &definition.pipeline), &|| listed.reader(), &|reader, path, file| {
        committed_entry(reader, path, file, &meter)
    })?;
    let mut data = Vec::new();
    let mut pointed = Vec::new();
    for path in &definition.pipeline.data {
        let pointer = read_pointer(path, read(&Pointer::place(path))?)?;
        pointed.extend(pointer.map(|root| (path.clone(), root)));
        let root = match pointer {
            Some(root) => root,
            None => tracked_root(&listed, path, &meter)?
                .ok_or_else(|| SnapshotError::NoData { place: place.clone(), path: path.clone() })?,
        };
        data.push((path.clone(), root));
    }
    assemble(definition, params, entries, data, pointed, &meter)
}

/// Returns the definition in the working tree, checked as far as it can be without reading any data.
///
/// # Errors
///
/// [`SnapshotError`] if there is none, or it or its params are not good.
pub fn check_definition(site: Site<'_>) -> Result<Definition, SnapshotError> {
    let read = |path: &ProjectPath| Ok(disk::read_if_there(&path.under(site.root))?);
    let (definition, _) = read_definition(site, "the working tree", &read)?;
    pipeline::order(&definition.pipeline)?;
    Ok(definition)
}

/// Returns the definition in a commit, checked as [`check_definition`] does.
///
/// # Errors
///
/// [`SnapshotError`] if there is none, or it or its params are not good.
pub fn check_committed_definition(site: Site<'_>, commit: &CommitId) -> Result<Definition, SnapshotError> {
    let listed = site.repository.commit_files(commit, site.prefix)?;
    let files = listed.files();
    let read = |path: &ProjectPath| -> Result<Option<Vec<u8>>, SnapshotError> {
        find(files, path).map(|file| Ok(listed.reader()?.bytes(path, file)?)).transpose()
    };
    let (definition, _) = read_definition(site, &format!("commit {}", commit.short()), &read)?;
    pipeline::order(&definition.pipeline)?;
    Ok(definition)
}

/// Takes the data roots that need a pointer, and nothing else. Their content goes to `store`.
///
/// # Errors
///
/// [`SnapshotError`] if data is neither there nor pointed at, or cannot be read.
pub fn capture_data(site: Site<'_>, pipeline: &Pipeline, store: &dyn Store) -> Result<Listed<DataRoot>, SnapshotError> {
    let listed = site.repository.working_files(site.prefix)?;
    let meter = Meter::new(store, &|_, _| true);
    let mut pointed = Vec::new();
    for path in &pipeline.data {
        let (root, needs_pointer) = working_root(site, &listed, path, &meter)?;
        if needs_pointer {
            pointed.push((path.clone(), root));
        }
    }
    Ok(pointed)
}

/// Returns the data roots that have a pointer in the working tree, with what it says.
///
/// # Errors
///
/// [`SnapshotError`] if a pointer cannot be read or understood.
pub fn read_pointers(site: Site<'_>, pipeline: &Pipeline) -> Result<Listed<DataRoot>, SnapshotError> {
    let mut pointers = Vec::new();
    for path in &pipeline.data {
        let bytes = disk::read_if_there(&Pointer::place(path).under(site.root))?;
        pointers.extend(read_pointer(path, bytes)?.map(|root| (path.clone(), root)));
    }
    Ok(pointers)
}

/// Takes what lies at `path` on disk: a file, a link, or a directory with all below it. `None` if nothing is there.
///
/// # Errors
///
/// [`SnapshotError`] if something cannot be read, or is no file, link or directory.
pub fn capture_path(path: &Path, store: &dyn Store) -> Result<Option<Entry>, SnapshotError> {
    let meter = Meter::new(store, &|_, _| true);
    Ok(match disk::look(path)? {
        None => None,
        Some(Found::Symlink) => Some(link_entry(path)?),
        Some(_) => Some(super::tree::data_entry(&capture_root(path, &meter)?)),
    })
}

type Listed<T> = Vec<(ProjectPath, T)>;

/// Takes one data root of the working tree, and tells whether it needs a pointer: Git does not see all of it.
///
/// A root that Git sees the whole of is taken as a commit has it: without empty directories, and with
/// the line endings of a checkout. A root that is not on this disk is what its pointer says.
fn working_root(
    site: Site<'_>,
    listed: &WorkingFiles<'_>,
    path: &ProjectPath,
    meter: &Meter<'_>,
) -> Result<(DataRoot, bool), SnapshotError> {
    let on_disk = path.under(site.root);
    if !on_disk.exists() {
        let bytes = disk::read_if_there(&Pointer::place(path).under(site.root))?;
        let root = read_pointer(path, bytes)?
            .ok_or_else(|| SnapshotError::NoData { place: "the working tree".to_owned(), path: path.clone() })?;
        return Ok((root, true));
    }
    let seen: Vec<_> = listed.files().iter().filter(|(file, _)| file.is_within(path)).collect();
    // Of a root that is a link, Git sees the link and not what lies behind it.
    if seen.is_empty() || on_disk.is_symlink() || seen.len() != count_files(&on_disk)? {
        return Ok((capture_root(&on_disk, meter)?, true));
    }
    let entries =
        in_parallel(&seen, &|| Ok(None), &|reader, path, file| working_entry(site, listed, reader, path, file, meter))?;
    match root_of_entries(path, entries, meter)? {
        Some(root) => Ok((root, false)),
        None => Ok((capture_root(&on_disk, meter)?, true)),
    }
}

fn count_files(root: &Path) -> Result<usize, SnapshotError> {
    if disk::look(root)? != Some(Found::Directory) {
        return Ok(1);
    }
    let mut files = 0;
    for entry in disk::walk(root) {
        files += usize::from(entry?.1 != Found::Directory);
    }
    Ok(files)
}

fn find<'a, T>(files: &'a [(ProjectPath, T)], path: &ProjectPath) -> Option<&'a T> {
    let index = files.binary_search_by(|(other, _)| other.cmp(path)).ok()?;
    Some(&files[index].1)
}

fn read_definition(
    site: Site<'_>,
    place: &str,
    read: &dyn Fn(&ProjectPath) -> Result<Option<Vec<u8>>, SnapshotError>,
) -> Result<(Definition, Params), SnapshotError> {
    let path = definition_path(site.pipeline).ok_or_else(|| SnapshotError::NoPipeline {
        place: place.to_owned(),
        path: ProjectPath::new(site.pipeline).unwrap_or_else(|_| ProjectPath::new(".pipeline").expect("a constant")),
    })?;
    let text = read(&path)?.ok_or_else(|| SnapshotError::NoPipeline { place: place.to_owned(), path: path.clone() })?;
    let definition = pipeline::read(&text, &path.display())?;
    let failed = std::cell::RefCell::new(None);
    let params = Params::load(&definition.pipeline, &|path| {
        read(path).unwrap_or_else(|error| {
            failed.replace(Some(error));
            None
        })
    });
    if let Some(error) = failed.into_inner() {
        return Err(error);
    }
    let params = params.map_err(|error| definition.locate(&error))?;
    definition.check_params(&params)?;
    Ok((definition, params))
}

/// Puts what it is given into the store, and counts.
struct Meter<'a> {
    store: &'a dyn Store,
    progress: Progress<'a>,
    new_bytes: AtomicU64,
}

impl<'a> Meter<'a> {
    fn new(store: &'a dyn Store, progress: Progress<'a>) -> Self {
        Self { store, progress, new_bytes: AtomicU64::new(0) }
    }

    fn put(&self, kind: Kind, source: Source<'_>) -> Result<crate::store::Put, StoreError> {
        let put = self.store.put(kind, source)?;
        if put.new {
            self.new_bytes.fetch_add(put.size, Ordering::Relaxed);
        }
        Ok(put)
    }

    fn file(&self, source: Source<'_>, executable: bool) -> Result<Entry, SnapshotError> {
        let put = self.put(Kind::Blob, source)?;
        if !(self.progress)(1, put.size) {
            return Err(SnapshotError::Stopped);
        }
        Ok(Entry::File { executable, size: put.size, id: put.digest.into() })
    }

    fn object(&self, kind: Kind, bytes: &[u8]) -> Result<crate::hash::Digest, SnapshotError> {
        Ok(self.put(kind, Source::Bytes(bytes))?.digest)
    }
}

fn in_tree<'a, T>(files: &'a [(ProjectPath, T)], pipeline: &Pipeline) -> Vec<&'a (ProjectPath, T)> {
    files.iter().filter(|(path, _)| !excluded(pipeline, path)).collect()
}

/// Makes an entry of every file. Each thread gets a reader of its own from `start`.
fn in_parallel<T: Sync, R>(
    files: &[&(ProjectPath, T)],
    start: &(dyn Fn() -> Result<R, GitError> + Sync),
    to_entry: &(dyn Fn(&mut R, &ProjectPath, &T) -> Result<Entry, SnapshotError> + Sync),
) -> Result<Listed<Entry>, SnapshotError> {
    let one = |slot: &mut Option<R>, (path, file): &(ProjectPath, T)| {
        let reader = match slot {
            Some(reader) => reader,
            None => slot.insert(start()?),
        };
        Ok((path.clone(), to_entry(reader, path, file)?))
    };
    if files.len() < PARALLEL_FROM_FILES {
        let mut slot = None;
        files.iter().map(|file| one(&mut slot, file)).collect()
    } else {
        files.par_iter().map_init(|| None, |slot, file| one(slot, file)).collect()
    }
}

fn working_entry(
    site: Site<'_>,
    listed: &WorkingFiles<'_>,
    reader: &mut Option<WorkingReader>,
    path: &ProjectPath,
    file: &WorkingFile,
    meter: &Meter<'_>,
) -> Result<Entry, SnapshotError> {
    let on_disk = path.under(site.root);
    match file.kind {
        FileKind::File { executable } => {
            if file.normalised {
                // Most files are not converted, so a reader is made when the first one is.
                let reader = match reader {
                    Some(reader) => reader,
                    None => reader.insert(listed.reader()?),
                };
                if let Some(bytes) = reader.converted(path)? {
                    return meter.file(Source::Bytes(&bytes), executable);
                }
            }
            meter.file(Source::File(&on_disk), executable)
        }
        FileKind::Symlink => link_entry(&on_disk),
        FileKind::Submodule(commit) => Ok(Entry::Submodule { commit: commit.as_bytes().to_vec() }),
    }
}

fn committed_entry(
    reader: &mut CommitReader,
    path: &ProjectPath,
    file: &Tracked,
    meter: &Meter<'_>,
) -> Result<Entry, SnapshotError> {
    match file.kind {
        FileKind::File { executable } => meter.file(Source::Bytes(&reader.bytes(path, file)?), executable),
        FileKind::Symlink => Ok(Entry::Symlink { target: reader.bytes(path, file)? }),
        FileKind::Submodule(commit) => Ok(Entry::Submodule { commit: commit.as_bytes().to_vec() }),
    }
}

fn link_entry(path: &Path) -> Result<Entry, SnapshotError> {
    let target = fs::read_link(path).map_err(DiskError::on("read the link", path))?;
    Ok(Entry::Symlink { target: target.as_os_str().as_bytes().to_vec() })
}

/// Takes a data root or an output: one file, or a directory with everything in it, also empty directories.
fn capture_root(path: &Path, meter: &Meter<'_>) -> Result<DataRoot, SnapshotError> {
    let metadata = fs::metadata(path).map_err(DiskError::on("look at", path))?;
    match Found::from_metadata(&metadata) {
        Found::File { executable, .. } => match meter.file(Source::File(path), executable)? {
            Entry::File { executable, size, id } => Ok(DataRoot::File { executable, size, id }),
            _ => unreachable!("`Meter::file` returns files"),
        },
        Found::Directory => {
            let found = disk::walk(path).collect::<Result<Vec<_>, _>>()?;
            let one = |(file, found): &(std::path::PathBuf, Found)| -> Result<_, SnapshotError> {
                let relative = ProjectPath::below(path, file).expect("a walk stays below its root");
                let entry = match found {
                    Found::File { executable, .. } => Some(meter.file(Source::File(file), *executable)?),
                    Found::Symlink => Some(link_entry(file)?),
                    Found::Directory => None,
                    Found::Other => return Err(SnapshotError::Special { path: file.clone() }),
                };
                Ok((relative, entry))
            };
            let entries: Vec<_> = if found.len() < PARALLEL_FROM_FILES {
                found.iter().map(one).collect::<Result<_, _>>()?
            } else {
                found.par_iter().map(one).collect::<Result<_, _>>()?
            };
            let (id, sized) = Directory::from_entries(entries)?.build(meter)?;
            Ok(DataRoot::Directory { sized, id })
        }
        Found::Symlink | Found::Other => Err(SnapshotError::Special { path: path.to_owned() }),
    }
}

/// The content of a data root that Git tracks, from the files of a commit.
fn tracked_root(
    listed: &CommitFiles<'_>,
    root: &ProjectPath,
    meter: &Meter<'_>,
) -> Result<Option<DataRoot>, SnapshotError> {
    let files: Vec<_> = listed.files().iter().filter(|(path, _)| path.is_within(root)).collect();
    let entries =
        in_parallel(&files, &|| listed.reader(), &|reader, path, file| committed_entry(reader, path, file, meter))?;
    root_of_entries(root, entries, meter)
}

/// Returns the data root with these files; `None` if there are none, or if it is no file or directory.
fn root_of_entries(
    root: &ProjectPath,
    entries: Listed<Entry>,
    meter: &Meter<'_>,
) -> Result<Option<DataRoot>, SnapshotError> {
    let mut below = Vec::new();
    for (path, entry) in entries {
        match (path.strip(root), entry) {
            (Some(relative), entry) => below.push((relative, Some(entry))),
            (None, Entry::File { executable, size, id }) => {
                return Ok(Some(DataRoot::File { executable, size, id }));
            }
            (None, _) => return Ok(None),
        }
    }
    if below.is_empty() {
        return Ok(None);
    }
    let (id, sized) = Directory::from_entries(below)?.build(meter)?;
    Ok(Some(DataRoot::Directory { sized, id }))
}

fn read_pointer(root: &ProjectPath, bytes: Option<Vec<u8>>) -> Result<Option<DataRoot>, SnapshotError> {
    let Some(bytes) = bytes else { return Ok(None) };
    let pointer: Option<Pointer> = std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok());
    pointer.map(|pointer| Some(pointer.0)).ok_or_else(|| SnapshotError::Pointer { path: Pointer::place(root) })
}

/// A directory on its way to becoming a tree.
#[derive(Default)]
struct Directory(BTreeMap<Vec<u8>, Item>);

enum Item {
    Entry(Entry),
    Directory(Directory),
}

impl Directory {
    /// Returns the directory with these entries; `None` stands for an empty directory.
    fn from_entries(entries: Vec<(ProjectPath, Option<Entry>)>) -> Result<Self, SnapshotError> {
        let mut root = Self::default();
        for (path, entry) in entries {
            let conflict = || SnapshotError::Conflict { path: path.clone() };
            let mut directory = &mut root;
            let mut names = path.names();
            let last = names.next_back().unwrap_or_default().to_vec();
            for name in names {
                let item = directory.0.entry(name.to_vec()).or_insert_with(|| Item::Directory(Self::default()));
                match item {
                    Item::Directory(below) => directory = below,
                    Item::Entry(_) => return Err(conflict()),
                }
            }
            match entry {
                Some(entry) => {
                    if directory.0.insert(last, Item::Entry(entry)).is_some() {
                        return Err(conflict());
                    }
                }
                None => {
                    directory.0.entry(last).or_insert_with(|| Item::Directory(Self::default()));
                }
            }
        }
        Ok(root)
    }

    fn build(self, meter: &Meter<'_>) -> Result<(TreeId, Sized), SnapshotError> {
        let mut builder = TreeBuilder::new(|_, bytes: &[u8]| meter.object(Kind::Tree, bytes).map(drop));
        for (name, item) in self.0 {
            let entry = match item {
                Item::Entry(entry) => entry,
                Item::Directory(directory) => {
                    let (id, sized) = directory.build(meter)?;
                    Entry::Directory { sized, id }
                }
            };
            builder.push(name, entry)?;
        }
        builder.finish()
    }
}

fn assemble(
    definition: Definition,
    params: Params,
    entries: Listed<Entry>,
    data: Vec<(ProjectPath, DataRoot)>,
    pointed: Vec<(ProjectPath, DataRoot)>,
    meter: &Meter<'_>,
) -> Result<Captured, SnapshotError> {
    let submodules = entries
        .iter()
        .filter(|(_, entry)| matches!(entry, Entry::Submodule { .. }))
        .map(|(path, _)| path.clone())
        .collect();
    let entries = entries.into_iter().map(|(path, entry)| (path, Some(entry))).collect();
    let (tree, mut sized) = Directory::from_entries(entries)?.build(meter)?;
    let mut data = data;
    data.sort_by(|(a, _), (b, _)| a.cmp(b));
    data.iter().for_each(|(_, root)| sized += root.sized());
    let pipeline = &definition.pipeline;
    let snapshot = Snapshot {
        definition: DefinitionId::from(meter.object(Kind::Definition, &canonical(pipeline)?)?),
        tree,
        data,
        params: ParamsId::from(meter.object(Kind::Params, &canonical(&params.to_value())?)?),
        seed: pipeline.seed,
        environment: EnvironmentId::from(meter.object(Kind::Environment, &canonical(&pipeline.environment)?)?),
    };
    let (id, bytes) = snapshot.encode();
    meter.object(Kind::Snapshot, &bytes)?;
    let new_bytes = meter.new_bytes.load(Ordering::Relaxed);
    Ok(Captured { id, snapshot, definition, params, sized, new_bytes, pointed, submodules })
}

/// Every declared input must be in the snapshot, not merely on this disk.
fn check_inputs(site: Site<'_>, store: &dyn Store, captured: &Captured) -> Result<(), SnapshotError> {
    let view = View::new(store, &captured.snapshot);
    // Data that is not in this clone's store can only be found missing when a step needs it.
    let is_there = |path: &ProjectPath| !matches!(view.entry(path), Ok(None)) || view.data_below(path).next().is_some();
    for step in &captured.pipeline().steps {
        for path in step.inputs.iter().flatten() {
            let produced = captured.pipeline().steps.iter().flat_map(|step| step.outputs.iter().chain(&step.metrics));
            if !is_there(path)
                && !produced.into_iter().any(|output| output.overlaps(path))
                && disk::look(&path.under(site.root))?.is_some()
            {
                return Err(SnapshotError::IgnoredInput { step: step.name.clone(), path: path.clone() });
            }
        }
    }
    Ok(captured.definition.check_inputs(&is_there)?)
}

impl Change {
    /// Returns whether only the executable bit differs.
    pub fn is_mode_only(&self) -> bool {
        matches!((&self.old, &self.new), (Some(Entry::File { id: old, .. }), Some(Entry::File { id: new, .. })) if old == new)
    }
}
