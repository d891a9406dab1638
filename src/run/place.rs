//! The clean place of a run: directories of its own, outside the project.
//!
//! Outside, because tools look for their settings in the directories above: a
//! place inside the project would find the project's files again, as they are
//! now. It is made when the first step is executed; a run that reuses everything makes none.
//!
//! Where the system allows it, each step sees the files of the snapshot through
//! an overlay: below, the base checkout, which is shared and kept; above it what the steps
//! before it wrote, each a layer; on top its own layer. Elsewhere each
//! step has a copy of the files for itself, which the next one gets if nothing strange is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::RunError;
use super::base::{self, Base};
use super::earlier::Finished;
use super::image::{self, Layer, Ready};
use super::keep::{self, Keep};
use super::kept;
use super::layer;
use super::leftovers::Leftovers;
use super::python;
use super::recipe::outputs_of;
use super::runtime::{self, Elsewhere};
use crate::disk::{self, DiskError, Durability, Lock};
use crate::environment::VENV;
use crate::exec::{self, ExecError, Obstacle, PLACE, Stop, WORKPLACE, World};
use crate::host::Time;
use crate::object::Pin;
use crate::path::ProjectPath;
use crate::pipeline::{Runtime, Step};
use crate::record::Output;
use crate::snapshot::{View, lay_out, place_entry};

/// How many places of failed runs are kept.
const KEPT_MAX: usize = 3;
pub(super) const KEPT: &str = "kept";
/// What the name of a place begins with.
const PREFIX: &str = "run-";
pub(super) const LOCK: &str = "lock";
/// Held while a place gets its lock, so that one without is known to be left behind.
pub(super) const MAKING: &str = "making";
/// On so many directories the layers of a run are spread. To make an overlay is to make and remove some files, and some
/// file systems step over each file that was removed nearby whenever one is made.
const SHELVES: usize = 16;
/// So many layers become one where a step has more: an overlay takes only some hundreds, and each costs time at every lookup.
const BUNDLE: usize = 64;

/// Directories in which the steps of one run are executed.
pub(super) struct Place<'a> {
    view: &'a View<'a>,
    pipeline: &'a str,
    base: &'a Path,
    stop: &'a Stop,
    made: Mutex<Option<Made>>,
    spare: Mutex<Spare>,
}

/// The environment that is provided for a step, if it does not have the machine's.
#[derive(Clone, Copy, Default)]
pub(super) struct Provided<'a> {
    /// The image whose files it sees.
    pub(super) image: Option<(&'a String, &'a Pin)>,
    /// What runs it in the image.
    pub(super) runtime: Option<Runtime>,
    /// Where the Python environment lies that it finds.
    pub(super) venv: Option<&'a Path>,
}

/// What a step has for itself in the place of a run.
#[derive(Debug)]
pub(super) struct Room {
    /// Where the project's files are, as the step sees it.
    pub(super) tree: PathBuf,
    /// Where what it writes there is found.
    pub(super) written: PathBuf,
    /// Its home directory, empty, as the step sees it.
    pub(super) home: PathBuf,
    /// Its directory for temporary files, empty, as the step sees it.
    pub(super) temporary: PathBuf,
    /// The file that takes what it prints.
    pub(super) log: PathBuf,
    /// The view of the file system that it gets; `None` is the machine's own.
    pub(super) world: Option<World>,
    /// The image whose files it sees.
    pub(super) image: Option<image::Ready>,
    /// What runs it, if that is another program.
    pub(super) elsewhere: Option<Elsewhere>,
    /// The Python environment that it finds, as it sees it; `None` if it finds the machine's.
    pub(super) venv: Option<PathBuf>,
    /// What it finds again from an attempt before; `None` if it keeps nothing.
    pub(super) keep: Option<Keep>,
    /// The file that tells how to come back here after a failure.
    pub(super) note: PathBuf,
    /// The directories that are its own, to be given to another step.
    own: PathBuf,
    /// The steps whose outputs are in a copy of the files that is its own.
    holds: Option<BTreeSet<usize>>,
}

/// What a step has before it is known what it stands on.
struct Begun<'a> {
    place: &'a Path,
    index: usize,
    step: &'a Step,
    own: Own,
    note: PathBuf,
}

/// What steps that have ended leave for others.
///
/// Making a directory and removing it costs a file system more than many a step takes.
#[derive(Default)]
struct Spare {
    made: usize,
    rooms: Vec<PathBuf>,
    logs: Vec<PathBuf>,
    /// Copies of the files that are as they should be, and the steps whose outputs are in them too.
    trees: Vec<(PathBuf, BTreeSet<usize>)>,
}

struct Made {
    directory: PathBuf,
    /// Tells others that this place is in use; the kernel takes it back if this process dies.
    lock: Lock,
    ground: Ground,
    /// Steps whose outputs are already there.
    placed: BTreeSet<usize>,
    /// Whether it has been told why steps are not isolated.
    is_told: bool,
}

/// What a step left in its files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Left {
    /// Its outputs, it being the step with this index, and nothing else.
    Outputs(usize),
    /// Something else, or nobody knows.
    Unknown,
}

/// What the steps of a run stand on.
enum Ground {
    /// A copy for each of them, and why nothing better can be had.
    Copied(Obstacle),
    /// A base below an overlay for each.
    Layered(Base),
}

impl<'a> Place<'a> {
    /// Returns a place below `base` that will hold the files of `view` for the pipeline of this name.
    pub(super) fn new(view: &'a View<'a>, pipeline: &'a str, base: &'a Path, stop: &'a Stop) -> Self {
        Self { view, pipeline, base, stop, made: Mutex::new(None), spare: Mutex::default() }
    }

    /// Returns what the step at `index` has for itself, with the snapshot's files and the outputs of the steps `before` in the tree.
    ///
    /// If there is a Python environment for it, `venv`, an isolated step finds it at its one place.
    /// If only some paths are to be `shown`, nothing else of the project is there, and no network unless the step declares that.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the place cannot be made or an object is missing.
    pub(super) fn prepare(
        &self,
        index: usize,
        step: &Step,
        before: &BTreeSet<usize>,
        finished: &Finished,
        shown: Option<&BTreeSet<ProjectPath>>,
        provided: Provided<'_>,
    ) -> Result<Room, RunError> {
        let Provided { image, runtime, venv } = provided;
        let mut slot = self.made.lock().expect("no holder panics");
        if slot.is_none() {
            *slot = Some(self.make()?);
        }
        let made = slot.as_mut().expect("it has just been made");
        if matches!(made.ground, Ground::Layered(_)) {
            self.fill(made, before, finished)?;
        }
        let place = made.directory.clone();
        let own = self.own_directories(&place, index)?;
        let note = kept::note_in(&place, index);
        // Of an attempt before this one nothing is left to come back to.
        disk::remove_tree(&note)?;
        if let (Some((digest, pinned)), Some(runtime)) = (image, runtime) {
            drop(slot);
            let tree = self.copy(&place, index, before, finished)?;
            clear_outputs(step, &tree)?;
            python::lay(&own.room)?;
            let ready = Ready::lay(self.view.store(), digest, pinned, &step.name, self.base, self.stop)?;
            let elsewhere = Elsewhere::provide(runtime, &ready, &step.name, (&tree, &own.room), self.stop)?;
            let keep = self.keep_of(step, &place, &tree)?;
            return Ok(Room {
                written: tree.clone(),
                tree,
                home: Path::new(PLACE).join("home"),
                temporary: Path::new(PLACE).join("tmp"),
                log: own.log,
                world: None,
                image: Some(ready),
                elsewhere: Some(elsewhere),
                venv: None,
                keep,
                note,
                own: own.room,
                holds: Some(before.clone()),
            });
        }
        match &made.ground {
            Ground::Copied(why) => {
                if image.is_some() {
                    let why = format!("steps cannot be isolated here: {why}");
                    return Err(RunError::NoEnvironment { step: step.name.clone(), why });
                }
                if shown.is_some() {
                    return Err(RunError::NotStrict { step: step.name.clone(), why: why.clone() });
                }
                drop(slot);
                let tree = self.copy(&place, index, before, finished)?;
                clear_outputs(step, &tree)?;
                let (home, temporary) = (own.room.join("home"), own.room.join("tmp"));
                let keep = self.keep_of(step, &place, &tree)?;
                let holds = Some(before.clone());
                let (written, log) = (tree.clone(), own.log);
                let venv = venv.map(Path::to_owned);
                Ok(Room {
                    written,
                    tree,
                    home,
                    temporary,
                    log,
                    world: None,
                    image: None,
                    elsewhere: None,
                    venv,
                    keep,
                    note,
                    own: own.room,
                    holds,
                })
            }
            Ground::Layered(ground) => {
                let mut lower = self.layers(&place, before, finished)?;
                lower.push(ground.tree());
                drop(slot);
                if let Some(shown) = shown {
                    let only = place.join(format!("{index}.shown"));
                    show_only(shown, &lower, &only)?;
                    lower = vec![only];
                }
                let begun = Begun { place: &place, index, step, own, note };
                self.layered(begun, &lower, shown.is_some() && !step.network, provided)
            }
        }
    }

    /// Returns the directory below which places are made.
    pub(super) fn base(&self) -> &Path {
        self.base
    }

    /// Returns the directory of this place, made if it is not there yet.
    ///
    /// # Errors
    ///
    /// [`RunError`] if it cannot be made.
    pub(super) fn directory(&self) -> Result<PathBuf, RunError> {
        let mut slot = self.made.lock().expect("no holder panics");
        if slot.is_none() {
            *slot = Some(self.make()?);
        }
        Ok(slot.as_ref().expect("it has just been made").directory.clone())
    }

    /// Returns what a step has that works over the layers `lower`.
    fn layered(
        &self,
        begun: Begun<'_>,
        lower: &[PathBuf],
        offline: bool,
        Provided { image, venv, .. }: Provided<'_>,
    ) -> Result<Room, RunError> {
        let Begun { place, index, step, own, note } = begun;
        python::lay(&own.room)?;
        python::link(&own.room, venv)?;
        let upper = layer_of(place, index);
        // A step that is tried again begins anew.
        disk::remove_tree(&upper)?;
        disk::make_directory(&upper)?;
        make_ways(step, lower, &upper)?;
        let keep = self.keep_of(step, place, &upper)?;
        let scratch = scratch_of(place, index);
        disk::remove_tree(&scratch)?;
        disk::make_directory(&scratch)?;
        let inside = |path: &Path| path.strip_prefix(self.base).unwrap_or(path).to_owned();
        let image = image
            .map(|(digest, pinned)| Ready::lay(self.view.store(), digest, pinned, &step.name, self.base, self.stop));
        let image = image.transpose()?;
        let seen = image.as_ref().map(|image| image.seen(place, index, self.base, Layer::Anew)).transpose()?;
        let world = World {
            base: self.base.to_owned(),
            lower: lower.iter().map(|path| inside(path)).collect(),
            upper: (inside(&upper), inside(&scratch)),
            room: inside(&own.room),
            root: inside(&place.join("root")),
            workplace: WORKPLACE.into(),
            read_only: python::only_read(venv)?,
            offline,
            image: seen,
        };
        Ok(Room {
            tree: PathBuf::from(WORKPLACE),
            written: upper,
            home: Path::new(PLACE).join("home"),
            temporary: Path::new(PLACE).join("tmp"),
            log: own.log,
            world: Some(world),
            image,
            elsewhere: None,
            venv: venv.map(|_| PathBuf::from(VENV)),
            keep,
            note,
            own: own.room,
            holds: None,
        })
    }

    /// Returns what the step wrote besides its outputs, and takes it away, so that no other step sees it.
    ///
    /// Nothing where it has a copy of the files for itself: there only an observer can tell, and the copy is given to no other.
    ///
    /// # Errors
    ///
    /// [`RunError::Disk`] if it cannot be read or removed.
    pub(super) fn strip(
        &self,
        room: &Room,
        step: &Step,
        before: &BTreeSet<usize>,
    ) -> Result<BTreeSet<ProjectPath>, RunError> {
        if room.world.is_none() {
            return Ok(BTreeSet::new());
        }
        let below = {
            let made = self.made.lock().expect("no holder panics");
            let Some(Made { directory, ground: Ground::Layered(base), .. }) = made.as_ref() else {
                return Ok(BTreeSet::new());
            };
            let mut below: Vec<PathBuf> = before.iter().map(|index| layer_of(directory, *index)).collect();
            below.push(base.tree());
            below
        };
        let is_there = |path: &ProjectPath| -> Result<bool, RunError> {
            Ok(below.iter().any(|layer| fs::symlink_metadata(path.under(layer)).is_ok()))
        };
        layer::strip(&room.written, &outputs_of(step).collect(), &is_there)
    }

    /// Takes back what a step had that succeeded: its temporary files are removed, and what is empty is for another step.
    ///
    /// # Errors
    ///
    /// [`RunError::Disk`] if something cannot be removed.
    pub(super) fn take_back(&self, room: Room, left: Left) -> Result<(), RunError> {
        let temporary = room.own.join("tmp");
        if !is_as_made(&temporary) {
            disk::remove_tree(&temporary)?;
            disk::make_directory(&temporary)?;
        }
        python::link(&room.own, None)?;
        let is_clean = ["home", "tmp", "work"].iter().all(|name| is_as_made(&room.own.join(name)));
        let (is_clean, names) = match room.world {
            Some(_) => (is_clean && python::is_as_laid(&room.own), 4),
            None => (is_clean, 3),
        };
        if let (Some(_), Left::Unknown) = (&room.holds, left) {
            disk::remove_tree(&room.tree)?;
        }
        let mut spare = self.spare.lock().expect("no holder panics");
        if let (Some(mut holds), Left::Outputs(index)) = (room.holds, left) {
            holds.insert(index);
            spare.trees.push((room.tree, holds));
        }
        if is_clean && fs::read_dir(&room.own).is_ok_and(|entries| entries.count() == names) {
            spare.rooms.push(room.own);
        }
        spare.logs.push(room.log);
        Ok(())
    }

    fn keep_of(&self, step: &Step, place: &Path, tree: &Path) -> Result<Option<Keep>, RunError> {
        if step.keep.is_empty() {
            return Ok(None);
        }
        Keep::move_in(self.base, place, tree, self.pipeline, &step.name, &step.keep).map(Some)
    }

    /// Returns a copy of the snapshot's files with the outputs of the steps `before`, which no other step uses.
    ///
    /// Costs a checkout, unless a step has left a copy with nothing in it that this one should not find.
    fn copy(
        &self,
        place: &Path,
        index: usize,
        before: &BTreeSet<usize>,
        finished: &Finished,
    ) -> Result<PathBuf, RunError> {
        let fitting = {
            let mut spare = self.spare.lock().expect("no holder panics");
            let found = spare.trees.iter().rposition(|(_, holds)| holds.is_subset(before));
            found.map(|at| spare.trees.swap_remove(at))
        };
        let (tree, holds) = match fitting {
            Some(fitting) => fitting,
            None => {
                let tree = place.join(format!("tree-{index}"));
                // A step that is tried again begins anew.
                disk::remove_tree(&tree)?;
                disk::make_directory(&tree)?;
                lay_out(self.view.store(), self.view.snapshot(), &tree, &|_, _| !self.stop.is_requested())?;
                (tree, BTreeSet::new())
            }
        };
        for output in before.difference(&holds).filter_map(|index| finished.get(*index)).flatten() {
            place_entry(self.view.store(), &tree, &output.path, &output.entry(), &|_, _| true)?;
        }
        Ok(tree)
    }

    /// Returns why the steps of this run cannot be isolated, if so, the first time that it is asked for.
    pub(super) fn untold_reason(&self) -> Option<Obstacle> {
        match &mut self.made.lock().expect("no holder panics").as_mut()? {
            Made { ground: Ground::Copied(why), is_told, .. } if !*is_told => {
                *is_told = true;
                Some(why.clone())
            }
            _ => None,
        }
    }

    fn own_directories(&self, place: &Path, index: usize) -> Result<Own, RunError> {
        let mut spare = self.spare.lock().expect("no holder panics");
        let room = match spare.rooms.pop() {
            Some(room) => room,
            None => {
                spare.made += 1;
                let room = place.join(format!("room-{}", spare.made));
                for name in ["home", "tmp", "work"] {
                    disk::make_directory(&room.join(name))?;
                }
                room
            }
        };
        let log = place.join(format!("{index}.log"));
        if let Some(other) = spare.logs.pop() {
            disk::rename(&other, &log)?;
        }
        Ok(Own { room, log })
    }

    /// Puts the outputs of the steps `before` where the next step finds them.
    fn fill(&self, made: &mut Made, before: &BTreeSet<usize>, finished: &Finished) -> Result<(), RunError> {
        for index in before {
            if made.placed.insert(*index) {
                let outputs = finished.get(*index).into_iter().flatten();
                let target = layer_of(&made.directory, *index);
                for output in outputs {
                    disk::make_directory(&target)?;
                    place_entry(self.view.store(), &target, &output.path, &output.entry(), &|_, _| true)?;
                }
            }
        }
        Ok(())
    }

    /// Returns the layers with what the steps `before` wrote. Which lies above which does not matter: no two write one path.
    fn layers(&self, place: &Path, before: &BTreeSet<usize>, finished: &Finished) -> Result<Vec<PathBuf>, RunError> {
        let wrote = |index: &&usize| finished.get(**index).is_some_and(|outputs| !outputs.is_empty());
        let steps: Vec<usize> = before.iter().filter(wrote).copied().collect();
        let mut layers = Vec::new();
        for steps in steps.chunks(BUNDLE) {
            if steps.len() < BUNDLE {
                layers.extend(steps.iter().map(|index| layer_of(place, *index)));
                continue;
            }
            // The same steps are before many others, mostly, so this is made once.
            let name = crate::hash::Digest::of(format!("{steps:?}").as_bytes()).short();
            let bundle = place.join(format!("bundle-{name}"));
            if !bundle.is_dir() {
                disk::make_directory(&bundle)?;
                for output in steps.iter().filter_map(|index| finished.get(*index)).flatten() {
                    place_entry(self.view.store(), &bundle, &output.path, &output.entry(), &|_, _| true)?;
                }
            }
            layers.push(bundle);
        }
        Ok(layers)
    }

    /// Notes that a step has been executed here, so its outputs are in place.
    pub(super) fn executed(&self, index: usize) {
        if let Some(made) = self.made.lock().expect("no holder panics").as_mut() {
            made.placed.insert(index);
        }
    }

    /// Marks the place as kept for the user to look at, or returns what is left of it, with the outputs of the steps `ran`.
    ///
    /// # Errors
    ///
    /// [`RunError::Disk`] if it cannot be marked.
    pub(super) fn close(self, keep: bool, ran: &[(usize, &[Output])]) -> Result<Leftovers, RunError> {
        let made = self.made.into_inner().expect("no holder panics");
        let Some(made) = made else { return Ok(Leftovers::default()) };
        if keep {
            disk::write_whole(&made.directory.join(KEPT), base::now().as_bytes(), Durability::Deferred)?;
            return Ok(Leftovers::default());
        }
        let mut files = BTreeMap::new();
        // Copies of the files are given from one step to the next: what a step wrote is in one that others had after it.
        for (index, outputs) in ran.iter().filter(|_| matches!(made.ground, Ground::Layered(_))) {
            let layer = layer_of(&made.directory, *index);
            files.extend(outputs.iter().map(|output| (output.path.clone(), output.path.under(&layer))));
        }
        Ok(Leftovers::new(made.directory, made.lock, files))
    }

    fn make(&self) -> Result<Made, RunError> {
        let failed = |source: DiskError| RunError::Place { path: self.base.to_owned(), source };
        disk::make_directory(self.base).map_err(failed)?;
        disk::spread(self.base);
        let making = Lock::exclusive(&self.base.join(MAKING)).map_err(failed)?;
        sweep(self.base);
        let directory = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(self.base)
            .map_err(DiskError::on("make a directory in", self.base))
            .map_err(failed)?
            .keep();
        // Nothing but a lock tells a place in use from one left behind.
        let lock = Lock::exclusive(&directory.join(LOCK)).map_err(failed)?;
        disk::spread(&directory);
        disk::make_directory(&directory.join("root"))?;
        let ground = match self.why_not_layered(&directory)? {
            None => Base::take(self.view, self.base, self.stop).map(Ground::Layered),
            Some(why) => {
                drop(making);
                Ok(Ground::Copied(why))
            }
        };
        match ground {
            Ok(ground) => Ok(Made { directory, lock, ground, placed: BTreeSet::new(), is_told: false }),
            Err(error) => {
                // The error that matters is the first one.
                drop(disk::remove_tree(&directory));
                Err(error)
            }
        }
    }

    /// Returns why steps can have no overlays here, if they cannot, found out by making one.
    fn why_not_layered(&self, directory: &Path) -> Result<Option<Obstacle>, RunError> {
        let trial = directory.join("trial");
        for name in ["below", "upper", "overlay", "room/work"] {
            disk::make_directory(&trial.join(name))?;
        }
        let inside = |path: PathBuf| path.strip_prefix(self.base).map(Path::to_owned).unwrap_or(path);
        let world = World {
            base: self.base.to_owned(),
            lower: vec![inside(trial.join("below"))],
            upper: (inside(trial.join("upper")), inside(trial.join("overlay"))),
            room: inside(trial.join("room")),
            root: inside(directory.join("root")),
            workplace: WORKPLACE.into(),
            offline: false,
            image: None,
            read_only: Vec::new(),
        };
        let tried = exec::try_world(&world);
        disk::remove_tree(&trial)?;
        Ok(match tried {
            Err(ExecError::World(obstacle)) => Some(obstacle),
            _ => None,
        })
    }
}

/// Returns the places that no run is at work in, each with the lock that keeps it so and the time when it was kept;
/// `None` if it was not kept but left behind.
///
/// The caller holds the lock under which places are made.
///
/// # Errors
///
/// [`RunError::Disk`] if they cannot be listed, locked or read.
pub(super) fn idle(base: &Path) -> Result<Vec<(PathBuf, Lock, Option<Time>)>, RunError> {
    let mut idle = Vec::new();
    for entry in fs::read_dir(base).map_err(DiskError::on("list", base))? {
        let entry = entry.map_err(DiskError::on("list", base))?;
        let directory = entry.path();
        let is_place = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if is_place
            && matches!(disk::look(&directory)?, Some(disk::Found::Directory))
            && let Some(lock) = Lock::try_exclusive(&directory.join(LOCK))?
        {
            let kept = disk::read_if_there(&directory.join(KEPT))?;
            idle.push((directory, lock, kept.map(|noted| base::time_in(&noted))));
        }
    }
    Ok(idle)
}

impl Room {
    /// Returns where a directory of its own lies.
    pub(super) fn own_directory(&self, name: &str) -> PathBuf {
        self.own.join(name)
    }

    /// Gives the step a workplace, a home and a place for temporary files of other names, where they are given. Only an
    /// isolated one can work in a directory of another name.
    ///
    /// # Errors
    ///
    /// [`RunError::Disk`] if they cannot be made.
    pub(super) fn rename(
        &mut self,
        workplace: Option<&str>,
        home: Option<&str>,
        temporary: Option<&str>,
    ) -> Result<(), RunError> {
        let inside = if self.world.is_some() { PathBuf::from(PLACE) } else { self.own.clone() };
        if let (Some(name), Some(world)) = (workplace, &mut self.world) {
            disk::make_directory(&self.own.join(name))?;
            self.tree = inside.join(name);
            world.workplace.clone_from(&self.tree);
        }
        for (name, path) in [(home, &mut self.home), (temporary, &mut self.temporary)] {
            if let Some(name) = name {
                disk::make_directory(&self.own.join(name))?;
                *path = inside.join(name);
            }
        }
        Ok(())
    }
}

struct Own {
    room: PathBuf,
    log: PathBuf,
}

/// Returns where what the step at `index` leaves lies.
pub(super) fn layer_of(place: &Path, index: usize) -> PathBuf {
    shelf_of(place, index).join(index.to_string())
}

fn shelf_of(place: &Path, index: usize) -> PathBuf {
    place.join(format!("shelf-{}", index % SHELVES))
}

/// Returns the directory that the overlay of the step at `index` needs beside its layer.
pub(super) fn scratch_of(place: &Path, index: usize) -> PathBuf {
    shelf_of(place, index).join(format!("{index}.overlay"))
}

/// Makes a layer at `only` in which nothing of the layers `lower` is there but what lies at the paths `shown`.
fn show_only(shown: &BTreeSet<ProjectPath>, lower: &[PathBuf], only: &Path) -> Result<(), RunError> {
    disk::remove_tree(only)?;
    disk::make_directory(only)?;
    for path in shown {
        // What lies below a path that is shown is there already.
        if shown.iter().any(|other| other != path && path.is_within(other)) {
            continue;
        }
        for layer in lower.iter().filter(|layer| fs::symlink_metadata(path.under(layer)).is_ok()) {
            if let Some(parent) = path.parent() {
                disk::make_directory(&parent.under(only))?;
            }
            layer::show(&path.under(layer), &path.under(only))?;
        }
    }
    Ok(())
}

/// Removes what lies at the outputs of a step and makes the directories that they lie in.
fn clear_outputs(step: &Step, tree: &Path) -> Result<(), RunError> {
    for path in outputs_of(step) {
        disk::remove_tree(&path.under(tree))?;
        if let Some(parent) = path.parent() {
            disk::make_directory(&parent.under(tree))?;
        }
    }
    Ok(())
}

/// Makes the directories that the outputs of a step lie in, where no layer below has them.
fn make_ways(step: &Step, lower: &[PathBuf], upper: &Path) -> Result<(), RunError> {
    let parents: BTreeSet<ProjectPath> = outputs_of(step).filter_map(ProjectPath::parent).collect();
    for parent in parents {
        if !lower.iter().any(|layer| parent.under(layer).is_dir()) {
            disk::make_directory(&parent.under(upper))?;
        }
    }
    Ok(())
}

/// Returns whether this is an empty directory with the rights of the one that it was made in.
fn is_as_made(path: &Path) -> bool {
    let mode = |path: &Path| fs::symlink_metadata(path).ok().filter(Metadata::is_dir).map(|found| found.mode());
    let own = mode(path);
    own.is_some()
        && own == mode(disk::parent(path))
        && fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// Removes the places of runs that died, and all but the newest that were kept.
///
/// What cannot be removed now is left for the next time. The caller holds the lock [`MAKING`].
fn sweep(base: &Path) {
    base::sweep(base);
    let Ok(entries) = fs::read_dir(base) else { return };
    let mut kept = Vec::new();
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        let directory = entry.path();
        if !matches!(disk::look(&directory), Ok(Some(disk::Found::Directory))) {
            continue;
        }
        let Ok(Some(_free)) = Lock::try_exclusive(&directory.join(LOCK)) else { continue };
        match fs::metadata(directory.join(KEPT)).and_then(|metadata| metadata.modified()) {
            Ok(time) => kept.push((time, directory)),
            // What cannot be saved is not thrown away: the next run tries again.
            Err(_) if keep::save(&directory).is_err() => {}
            Err(_) => {
                runtime::remove_left(&directory);
                drop(disk::remove_tree(&directory));
            }
        }
    }
    kept.sort();
    let surplus = kept.len().saturating_sub(KEPT_MAX);
    for (_, directory) in kept.drain(..surplus) {
        drop(disk::remove_tree(&directory));
    }
}
