//! What a step left when it failed, and going back into it.
//!
//! A note beside its layer tells how its world was made. Going back makes that world again, of the same layers, so what
//! the step had written is there, and what is changed stays there: nothing of it reaches the store or the working
//! tree, and the step's next run begins without. The note is taken away when the step succeeds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::RunError;
use super::base::Base;
use super::image::{self, Layer, Ready};
use super::place::{KEPT, LOCK, MAKING, Room, layer_of, scratch_of};
use super::python;
use crate::disk::{self, DiskError, Durability, Lock};
use crate::environment;
use crate::exec::{self, Command, End, Job, Stop, WORKPLACE, World};
use crate::object::SnapshotId;
use crate::path::ProjectPath;
use crate::pipeline::{COMBINATION_MARK, Run, Step};
use crate::snapshot::{View, pins_of, read_snapshot};
use crate::store::Store;

/// What notes in a place end with, after the number of the step.
const NOTE: &str = ".kept.json";
/// What the locks of those who look around end with.
const IN_USE: &str = ".in-use";
const VERSION: u32 = 1;

/// What a step left when it failed.
#[derive(Clone, Debug)]
pub struct Kept {
    places: PathBuf,
    place: PathBuf,
    index: usize,
    note: Note,
}

/// How the world of a failed step is made again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    version: u32,
    pipeline: String,
    step: String,
    snapshot: SnapshotId,
    how: String,
    run: Run,
    workdir: Option<ProjectPath>,
    variables: BTreeMap<String, String>,
    ground: Ground,
}

/// What the step stood on. Names are paths in the place.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Ground {
    /// Its layer lay over these, and over the base checkout if it was shown everything.
    Layered {
        lower: Vec<String>,
        base: bool,
        room: String,
        offline: bool,
        /// The digest of the image that it saw in place of the machine.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        image: Option<String>,
    },
    /// A copy of the files was its own.
    Copied { tree: String },
}

/// A step that has failed.
pub(super) struct Failed<'a> {
    pub(super) pipeline: &'a str,
    pub(super) step: &'a Step,
    pub(super) snapshot: SnapshotId,
    pub(super) how: &'a str,
    pub(super) variables: BTreeMap<String, String>,
    pub(super) room: &'a Room,
}

/// Returns the file for the note on what the step at `index` leaves in a place.
pub(super) fn note_in(place: &Path, index: usize) -> PathBuf {
    place.join(format!("{index}{NOTE}"))
}

/// Notes how to come back to a step that has failed.
///
/// # Errors
///
/// [`RunError::Disk`] if the note cannot be written.
pub(super) fn note(failed: Failed<'_>) -> Result<(), RunError> {
    let Failed { pipeline, step, snapshot, how, variables, room } = failed;
    let place = disk::parent(&room.note);
    // All of them are names that places are made with, so they are text.
    let name = |path: &Path| path.strip_prefix(place).ok().map(|name| name.to_string_lossy().into_owned());
    let ground = match &room.world {
        None => Ground::Copied { tree: name(&room.tree).unwrap_or_default() },
        Some(world) => {
            let lower: Vec<_> = world.lower.iter().filter_map(|layer| name(&world.base.join(layer))).collect();
            let base = lower.len() < world.lower.len();
            let own = name(&world.base.join(&world.room)).unwrap_or_default();
            let image = room.image.as_ref().map(|image| image.digest.clone());
            Ground::Layered { lower, base, room: own, offline: world.offline, image }
        }
    };
    let note = Note {
        version: VERSION,
        pipeline: pipeline.to_owned(),
        step: step.name.clone(),
        snapshot,
        how: how.to_owned(),
        run: step.run.clone(),
        workdir: step.workdir.clone(),
        variables,
        ground,
    };
    let text = serde_json::to_vec(&note).expect("a note has text keys only");
    Ok(disk::write_whole(&room.note, &text, Durability::Deferred)?)
}

/// Returns what the step called `step` left when it failed last, and has not succeeded since.
///
/// The name of a step with a matrix stands for the one combination of which something is kept. Costs a
/// look at each place that is kept.
///
/// # Errors
///
/// [`RunError::NotKept`] or [`RunError::KeptSeveral`] if there is no such thing, [`RunError::KeptUnknown`] if there
/// may be, written by another version, [`RunError::Disk`] if the places cannot be read.
pub fn kept(places: &Path, pipeline: &str, step: &str) -> Result<Kept, RunError> {
    let mut unknown = None;
    let mut newest = BTreeMap::new();
    for (_, found) in notes(places, &|_| true)? {
        match found {
            Ok(kept) if kept.note.pipeline == pipeline => drop(newest.insert(kept.note.step.clone(), kept)),
            Ok(_) => {}
            Err(error) => unknown = Some(error),
        }
    }
    if let Some(kept) = newest.remove(step) {
        return Ok(kept);
    }
    let is_combination = |name: &str| name.split_once(COMBINATION_MARK).is_some_and(|(family, _)| family == step);
    let (mut combinations, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
        newest.into_iter().partition(|(name, _)| is_combination(name));
    let step = step.to_owned();
    match (combinations.pop_first(), unknown) {
        (Some((_, one)), _) if combinations.is_empty() => Ok(one),
        (Some((first, _)), _) => {
            let combinations = std::iter::once(first).chain(combinations.into_keys()).collect();
            Err(RunError::KeptSeveral { step, combinations })
        }
        (None, Some(unknown)) => Err(unknown),
        (None, None) => Err(RunError::NotKept { step, kept: others.into_keys().collect() }),
    }
}

/// Forgets how to come back to steps that have succeeded since. What cannot be forgotten does no harm.
pub(super) fn forget(places: &Path, pipeline: &str, steps: &BTreeSet<&str>) {
    // Others are in use, or removed by the next run.
    let is_kept = |place: &Path| place.join(KEPT).exists();
    for (_, found) in notes(places, &is_kept).unwrap_or_default() {
        if let Ok(kept) = found
            && kept.note.pipeline == pipeline
            && steps.contains(kept.note.step.as_str())
        {
            drop(disk::remove_tree(&note_in(&kept.place, kept.index)));
        }
    }
}

/// A note, or why it is not understood, and when it was written.
type Dated = (std::time::SystemTime, Result<Kept, RunError>);

/// Returns all notes in the places that are `wanted`, the oldest first.
fn notes(places: &Path, wanted: &dyn Fn(&Path) -> bool) -> Result<Vec<Dated>, RunError> {
    let mut notes = Vec::new();
    let is_wanted = |place: &PathBuf| name_of(place).starts_with("run-") && wanted(place);
    for place in list(places)?.into_iter().filter(is_wanted) {
        for path in list(&place)? {
            let Some(index) = name_of(&path).strip_suffix(NOTE).and_then(|index| index.parse().ok()) else { continue };
            // Whoever takes it away meanwhile has made it out of date.
            let Some(text) = disk::read_if_there(&path)? else { continue };
            let Ok(time) = fs::metadata(&path).and_then(|metadata| metadata.modified()) else { continue };
            let note = read(&text).map(|note| Kept { places: places.to_owned(), place: place.clone(), index, note });
            notes.push((time, note.map_err(|why| RunError::KeptUnknown { path, why })));
        }
    }
    notes.sort_by_key(|(time, _)| *time);
    Ok(notes)
}

fn list(directory: &Path) -> Result<Vec<PathBuf>, RunError> {
    match fs::read_dir(directory) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        Err(error) => Err(DiskError::on("list", directory)(error).into()),
    }
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(std::ffi::OsStr::to_str).unwrap_or_default()
}

/// Reads a note, or says what is wrong with it.
fn read(text: &[u8]) -> Result<Note, String> {
    #[derive(Deserialize)]
    struct Any {
        version: u32,
    }
    let failed = |error: serde_json::Error| error.to_string();
    let Any { version } = serde_json::from_slice(text).map_err(failed)?;
    if version != VERSION {
        return Err(format!("it has version {version}, and known is {VERSION}"));
    }
    let note: Note = serde_json::from_slice(text).map_err(failed)?;
    let names: Vec<&String> = match &note.ground {
        Ground::Layered { lower, room, .. } => lower.iter().chain([room]).collect(),
        Ground::Copied { tree } => vec![tree],
    };
    let is_inside = |name: &str| name.split('/').all(|part| !part.is_empty() && !part.starts_with('.'));
    match names.into_iter().find(|name| !is_inside(name)) {
        Some(name) => Err(format!("`{name}` is no path in a place")),
        None => Ok(note),
    }
}

impl Kept {
    /// Returns the step's whole name.
    pub fn step(&self) -> &str {
        &self.note.step
    }

    /// Returns the snapshot that was run.
    pub fn snapshot(&self) -> SnapshotId {
        self.note.snapshot
    }

    /// Returns how the step failed: `it exited with code 1`.
    pub fn how(&self) -> &str {
        &self.note.how
    }

    /// Returns its command.
    pub fn run(&self) -> &Run {
        &self.note.run
    }

    /// Returns its variables, with their values.
    pub fn variables(&self) -> &BTreeMap<String, String> {
        &self.note.variables
    }

    /// Returns where its command was started, as it sees it.
    pub fn directory(&self) -> PathBuf {
        let tree = match &self.note.ground {
            Ground::Layered { .. } => PathBuf::from(WORKPLACE),
            Ground::Copied { tree } => self.place.join(tree),
        };
        self.note.workdir.as_ref().map_or_else(|| tree.clone(), |workdir| workdir.under(&tree))
    }

    /// Returns where what it wrote lies on this machine.
    pub fn wrote(&self) -> PathBuf {
        match &self.note.ground {
            Ground::Layered { .. } => layer_of(&self.place, self.index),
            Ground::Copied { tree } => self.place.join(tree),
        }
    }

    /// Returns whether it had namespaces of its own.
    pub fn is_isolated(&self) -> bool {
        matches!(self.note.ground, Ground::Layered { .. })
    }
}

/// A place where a step was left, entered: nobody else is there meanwhile, and nothing removes it.
pub struct Entered<'a> {
    kept: &'a Kept,
    world: Option<World>,
    _base: Option<Base>,
    _image: Option<Ready>,
    _venv: Option<Lock>,
    _alone: Alone,
}

impl Kept {
    /// Makes the world of the step again. The snapshot that was run is taken from `store` if no base checkout holds it.
    ///
    /// A strict step's layers and network are as they were, but what lies outside of its place is visible. Costs
    /// as much as differs between the snapshot and the best base at hand.
    ///
    /// # Errors
    ///
    /// [`RunError::KeptInUse`] if somebody is there, [`RunError::NotKept`] if it is gone, [`RunError::NoPython`] if its Python
    /// environment is, another [`RunError`] if the
    /// world cannot be made.
    pub fn enter(&self, store: &dyn Store) -> Result<Entered<'_>, RunError> {
        let alone = Alone::with(self)?;
        let (mut ready, mut venv) = (None, None);
        let (world, base) = match &self.note.ground {
            Ground::Layered { lower, base, room, offline, image } => {
                venv = self.venv(room)?;
                let base = if *base { Some(self.base(store)?) } else { None };
                let mut world = self.world(lower, base.as_ref(), room, *offline)?;
                ready = image.as_ref().map(|digest| self.image(store, digest)).transpose()?;
                let seen = ready.as_ref().map(|ready| ready.seen(&self.place, self.index, &self.places, Layer::AsLeft));
                world.image = seen.transpose()?;
                (Some(world), base)
            }
            Ground::Copied { .. } => (None, None),
        };
        Ok(Entered { kept: self, world, _base: base, _image: ready, _venv: venv, _alone: alone })
    }
}

impl Entered<'_> {
    /// Runs `command` there with the streams and the terminal of this process, and returns how it ended.
    ///
    /// `additions` are variables besides those of the step, which keep their values.
    ///
    /// # Errors
    ///
    /// [`RunError::Exec`] if it cannot be started. That it fails is no error.
    pub fn execute(&self, command: &Command, additions: &BTreeMap<String, String>) -> Result<End, RunError> {
        let variables = additions.iter().chain(&self.kept.note.variables);
        Ok(exec::enter(&Job {
            command,
            directory: &self.kept.directory(),
            environment: &variables.map(|(name, value)| (name.clone(), value.into())).collect(),
            time_limit: None,
            memory: None,
            log: Path::new(""),
            world: self.world.as_ref(),
            observe: false,
            permission: None,
            pins: None,
        })?)
    }
}

impl Kept {
    /// Returns a base with the files that the step saw below all else.
    fn base(&self, store: &dyn Store) -> Result<Base, RunError> {
        let _making = Lock::exclusive(&self.places.join(MAKING))?;
        if let Some(base) = Base::of(self.note.snapshot, &self.places)? {
            return Ok(base);
        }
        let snapshot = read_snapshot(store, self.note.snapshot)?;
        Base::take(&View::new(store, &snapshot), &self.places, &Stop::new())
    }

    /// Returns the image that the step saw.
    fn image(&self, store: &dyn Store, digest: &str) -> Result<Ready, RunError> {
        let images = pins_of(store, &read_snapshot(store, self.note.snapshot)?)?;
        let pinned = images.get(digest).ok_or_else(|| image::unknown(&self.note.step, digest))?;
        Ready::lay(store, digest, pinned, &self.note.step, &self.places, &Stop::new())
    }

    /// Holds the Python environment that the step found, if it found one.
    fn venv(&self, room: &str) -> Result<Option<Lock>, RunError> {
        let Some(venv) = python::linked(&self.place.join(room)) else { return Ok(None) };
        let held = environment::hold(&venv)?;
        if disk::look(&venv)?.is_none() {
            return Err(RunError::NoPython { step: self.note.step.clone() });
        }
        Ok(held)
    }

    /// Makes the step's world ready once more.
    fn world(&self, lower: &[String], base: Option<&Base>, room: &str, offline: bool) -> Result<World, RunError> {
        let (upper, scratch) = (layer_of(&self.place, self.index), scratch_of(&self.place, self.index));
        // An overlay that did not wait for the disk leaves word in it, and is not made again over that.
        disk::remove_tree(&scratch)?;
        disk::make_directory(&scratch)?;
        let inside = |path: PathBuf| path.strip_prefix(&self.places).map(Path::to_owned).unwrap_or(path);
        let layers = lower.iter().map(|name| self.place.join(name)).chain(base.map(Base::tree));
        Ok(World {
            base: self.places.clone(),
            lower: layers.map(inside).collect(),
            upper: (inside(upper), inside(scratch)),
            room: inside(self.place.join(room)),
            root: inside(self.place.join("root")),
            workplace: WORKPLACE.into(),
            read_only: python::only_read(python::linked(&self.place.join(room)).as_deref())?,
            offline,
            image: None,
        })
    }
}

/// The right to be where a step was left, alone.
struct Alone {
    _place: Lock,
    _step: Lock,
}

impl Alone {
    fn with(kept: &Kept) -> Result<Self, RunError> {
        let in_use = |by_run| RunError::KeptInUse { step: kept.note.step.clone(), by_run };
        // Under this lock places are removed.
        let _making = Lock::exclusive(&kept.places.join(MAKING))?;
        if disk::look(&note_in(&kept.place, kept.index))?.is_none() {
            return Err(RunError::NotKept { step: kept.note.step.clone(), kept: Vec::new() });
        }
        let place = Lock::try_shared(&kept.place.join(LOCK))?.ok_or_else(|| in_use(true))?;
        let own = kept.place.join(format!("{}{IN_USE}", kept.index));
        let step = Lock::try_exclusive(&own)?.ok_or_else(|| in_use(false))?;
        Ok(Self { _place: place, _step: step })
    }
}
