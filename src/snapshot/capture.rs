//! Taking a snapshot: from the working tree, or from a commit alone.
//!
//! Both ways end in the same list of paths and entries, so a clean tree and
//! its commit have the same id.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering;

use super::data::{POINTERS, Pointer};
use super::gather::{Directory, Listed, Meter, committed_entry, in_parallel, working_entry};
use super::pins::read_pins;
use super::roots::{read_pointer, tracked_root, working_root};
use super::{Change, SnapshotError, View};
use crate::disk;
use crate::git::{CommitId, Repository};
use crate::object::{
    DataRoot, DefinitionId, Entry, EnvironmentId, Kind, NotCanonical, ParamsId, Pin, Sized, Snapshot, SnapshotId,
    canonical, encode_environment,
};
use crate::path::ProjectPath;
use crate::pipeline::{self, Definition, Params, Pipeline, SETTINGS_NAME};
use crate::stat_cache::StatCache;
use crate::store::Store;

/// Told of files and bytes as they are done, and says whether to go on; called from several threads.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) -> bool + Sync);

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
    /// What files of the working tree hashed to before, if that is to be used.
    pub seen: Option<&'a StatCache>,
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

/// Returns where the definition of the pipeline with this name lies; `None` if no pipeline can have it.
pub fn definition_path(pipeline: &str) -> Option<ProjectPath> {
    let is_taken = pipeline == SETTINGS_NAME;
    let plain = !pipeline.is_empty() && !pipeline.starts_with('.') && !pipeline.contains('/') && !is_taken;
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
    let meter = Meter::new(store, site.seen, progress);
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
    let pins = read_pins(pipeline, "the working tree", &read)?;
    let captured = assemble(definition, params, &pins, entries, (data, pointed), &meter)?;
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
    let meter = Meter::new(store, None, progress);
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
    let pins = read_pins(&definition.pipeline, &place, &read)?;
    assemble(definition, params, &pins, entries, (data, pointed), &meter)
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

fn in_tree<'a, T>(files: &'a [(ProjectPath, T)], pipeline: &Pipeline) -> Vec<&'a (ProjectPath, T)> {
    files.iter().filter(|(path, _)| !excluded(pipeline, path)).collect()
}

fn assemble(
    definition: Definition,
    params: Params,
    pins: &[Pin],
    entries: Listed<Entry>,
    (mut data, pointed): (Listed<DataRoot>, Listed<DataRoot>),
    meter: &Meter<'_>,
) -> Result<Captured, SnapshotError> {
    let submodules = entries
        .iter()
        .filter(|(_, entry)| matches!(entry, Entry::Submodule { .. }))
        .map(|(path, _)| path.clone())
        .collect();
    let entries = entries.into_iter().map(|(path, entry)| (path, Some(entry))).collect();
    let (tree, mut sized) = Directory::from_entries(entries)?.build(meter)?;
    data.sort_by(|(a, _), (b, _)| a.cmp(b));
    data.iter().for_each(|(_, root)| sized += root.sized());
    let pipeline = &definition.pipeline;
    let environment = serde_json::to_value(&pipeline.environment).map_err(NotCanonical::from)?;
    let snapshot = Snapshot {
        definition: DefinitionId::from(meter.object(Kind::Definition, &canonical(pipeline)?)?),
        tree,
        data,
        params: ParamsId::from(meter.object(Kind::Params, &canonical(&params.to_value())?)?),
        seed: pipeline.seed,
        environment: EnvironmentId::from(meter.object(Kind::Environment, &encode_environment(environment, pins))?),
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
    let produced: BTreeSet<&ProjectPath> = captured.pipeline().steps.iter().flat_map(pipeline::Step::written).collect();
    for step in &captured.pipeline().steps {
        for path in step.inputs.iter().flatten() {
            if !produced.contains(path)
                && !is_there(path)
                && !produced.iter().any(|output| output.overlaps(path))
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
