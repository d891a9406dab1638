//! The files of images, laid out once and kept, that steps find where the machine's would be otherwise.
//!
//! No step can write to them: what it writes there goes into a layer of its own and is thrown away with it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::RunError;
use super::base;
use crate::disk::{self, DiskError, Durability, Lock};
use crate::environment;
use crate::exec::{self, Stop};
use crate::host::Time;
use crate::object::{Entry, Pin, PinConfig, Snapshot};
use crate::path::ProjectPath;
use crate::pipeline::{Environment, Isolate, Pipeline, Runtime, Step};
use crate::snapshot::{images_of, pins_of, place_entry};
use crate::store::Store;

const PREFIX: &str = "image-";
/// The directory with the files.
const FILES: &str = "files";
/// Written once all files are there.
const WHOLE: &str = "whole";
/// Held by everybody who uses the files, alone by who lays them out.
const LOCK: &str = "lock";
/// Stands for the image among the facts about a step's environment.
pub(super) const FACT: &str = "image";

/// Returns the begin of an image's digest, for people.
pub(super) fn short(digest: &str) -> &str {
    digest.get(..7 + 12).unwrap_or(digest)
}

/// What a snapshot knows of the images that its pipeline names, by the digests of their manifests.
pub type Images = BTreeMap<String, Pin>;

/// Returns what a snapshot knows of the images that its pipeline names. Where it names none, nothing is read.
///
/// # Errors
///
/// [`RunError::Snapshot`] if its environment cannot be read or is not understood.
pub fn images(store: &dyn Store, snapshot: &Snapshot, pipeline: &Pipeline) -> Result<Images, RunError> {
    if images_of(pipeline).is_empty() { Ok(Images::new()) } else { Ok(pins_of(store, snapshot)?) }
}

/// Returns the digest of the image whose files a step finds in place of the machine's; `None` for one that runs elsewhere.
pub(super) fn image_of<'p>(pipeline: &'p Pipeline, step: &'p Step) -> Option<&'p str> {
    match pipeline.environment_of(step) {
        Environment::Image(image) => Some(&image.digest),
        Environment::Host | Environment::Python(_) => None,
    }
}

/// Returns what runs a step in its image, if that is another program.
pub(super) fn runtime_of(pipeline: &Pipeline, step: &Step) -> Option<Runtime> {
    match pipeline.environment_of(step) {
        Environment::Image(image) => Some(image.runtime).filter(|runtime| *runtime != Runtime::Pv),
        Environment::Host | Environment::Python(_) => None,
    }
}

/// Returns what identifies the environment of a step that is no part of this machine, as facts.
pub(super) fn facts(digest: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(FACT.to_owned(), digest.to_owned())])
}

/// The files of an image, there for as long as this is alive.
#[derive(Debug)]
pub(super) struct Ready {
    /// The digest of its manifest.
    pub(super) digest: String,
    /// Where they are.
    pub(super) files: PathBuf,
    /// What the image says of how programs are run in it.
    pub(super) config: PinConfig,
    /// The numbers of the user and the group that it wants.
    pub(super) user: (u32, u32),
    name: String,
    _lock: Lock,
}

/// Refuses a step whose environment cannot be provided here; `venv` is its Python environment, if that is there.
///
/// # Errors
///
/// [`RunError::NoEnvironment`] with the reason.
pub(super) fn refuse_unprovided(
    pipeline: &Pipeline,
    step: &Step,
    images: &Images,
    venv: Option<&Path>,
) -> Result<(), RunError> {
    let refuse = |why: &str| Err(RunError::NoEnvironment { step: step.name.clone(), why: why.to_owned() });
    match pipeline.environment_of(step) {
        Environment::Python(_) if venv.is_none() => refuse("nobody has made it"),
        Environment::Image(image) if image.runtime != Runtime::Pv && step.isolate == Isolate::Strict => {
            refuse("it is strict, which only `runtime: pv` can see to")
        }
        Environment::Image(image) if !images.contains_key(&image.digest) => {
            Err(unknown(&step.name, &image.to_string()))
        }
        Environment::Host | Environment::Python(_) | Environment::Image(_) => Ok(()),
    }
}

/// Returns the error of an image of which a snapshot knows nothing.
pub(super) fn unknown(step: &str, image: &str) -> RunError {
    RunError::NoEnvironment {
        step: step.to_owned(),
        why: format!("the files of image `{image}` are not in the snapshot"),
    }
}

/// What becomes of what a step wrote among the files of an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Layer {
    /// The step begins anew.
    Anew,
    /// It is as the step left it.
    AsLeft,
}

impl Ready {
    /// Returns the files of an image below `places`, laid out now if they are not there yet.
    ///
    /// Costs one write of all files the first time, and two looks afterwards.
    ///
    /// # Errors
    ///
    /// [`RunError`] if they cannot be laid out, an object is missing, `stop` is requested, or the image wants a user that it does not list.
    pub(super) fn lay(
        store: &dyn Store,
        digest: &str,
        pinned: &Pin,
        step: &str,
        places: &Path,
        stop: &Stop,
    ) -> Result<Self, RunError> {
        let hex = pinned.tree.digest().to_string();
        let directory = places.join(format!("{PREFIX}{}", &hex[..24]));
        disk::make_directory(&directory)?;
        let lock = loop {
            let lock = Lock::shared(&directory.join(LOCK))?;
            if directory.join(WHOLE).is_file() {
                break lock;
            }
            drop(lock);
            let alone = Lock::exclusive(&directory.join(LOCK))?;
            if !directory.join(WHOLE).is_file() {
                let files = directory.join(FILES);
                disk::remove_tree(&files)?;
                let entry = Entry::Directory { id: pinned.tree, sized: pinned.sized() };
                let path = ProjectPath::new(FILES).expect("a name");
                place_entry(store, &directory, &path, &entry, &|_, _| !stop.is_requested())?;
                disk::write_whole(&directory.join(WHOLE), hex.as_bytes(), Durability::Deferred)?;
            }
            drop(alone);
        };
        lock.note(base::now().as_bytes())?;
        let files = directory.join(FILES);
        let list = |name: &str| list_in(&files, name);
        let user = environment::user_of(&pinned.config.user, &list("passwd"), &list("group"));
        let user = user.map_err(|name| RunError::NoEnvironment {
            step: step.to_owned(),
            why: format!("image `{digest}` wants the user `{name}`, which it does not list"),
        })?;
        Ok(Self {
            digest: digest.to_owned(),
            files,
            config: pinned.config.clone(),
            user,
            name: hex[..24].to_owned(),
            _lock: lock,
        })
    }
}

impl Ready {
    /// Returns a name for the files, the same wherever they are the same.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the image as the step at `index` of a `place` sees it: under a layer that takes what it writes there.
    ///
    /// # Errors
    ///
    /// [`RunError::Disk`] if the layer cannot be made.
    pub(super) fn seen(
        &self,
        place: &Path,
        index: usize,
        places: &Path,
        layer: Layer,
    ) -> Result<exec::Image, RunError> {
        let inside = |path: &Path| path.strip_prefix(places).unwrap_or(path).to_owned();
        let (upper, scratch) = (place.join(format!("{index}.image")), place.join(format!("{index}.image-overlay")));
        if layer == Layer::Anew {
            disk::remove_tree(&upper)?;
        }
        // An overlay that did not wait for the disk leaves word in it, and is not made again over that.
        disk::remove_tree(&scratch)?;
        for directory in [&upper, &scratch] {
            disk::make_directory(directory)?;
        }
        Ok(exec::Image { files: inside(&self.files), upper: (inside(&upper), inside(&scratch)), user: self.user })
    }
}

/// Returns a list of an image in `etc`; empty if there is none. A link may lead out of the image and is not followed.
fn list_in(files: &Path, name: &str) -> String {
    let etc = files.join("etc");
    let list = etc.join(name);
    let is_there =
        |path: &Path, is: fn(&fs::Metadata) -> bool| fs::symlink_metadata(path).is_ok_and(|found| is(&found));
    if is_there(&etc, fs::Metadata::is_dir) && is_there(&list, fs::Metadata::is_file) {
        return fs::read_to_string(list).unwrap_or_default();
    }
    String::new()
}

/// Returns the laid out images that nobody uses, each with the lock that keeps it so and the time when somebody last began to.
///
/// The caller holds the lock under which places are made.
///
/// # Errors
///
/// [`RunError::Disk`] if they cannot be listed or locked.
pub(super) fn idle(places: &Path) -> Result<Vec<(PathBuf, Lock, Time)>, RunError> {
    let mut idle = Vec::new();
    for entry in fs::read_dir(places).map_err(DiskError::on("list", places))? {
        let entry = entry.map_err(DiskError::on("list", places))?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX)
            && let Some(lock) = Lock::try_exclusive(&entry.path().join(LOCK))?
        {
            let since = base::time_in(&lock.noted()?);
            idle.push((entry.path(), lock, since));
        }
    }
    Ok(idle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;
    use crate::{object, pipeline};

    /// What every `status` costs.
    #[test]
    fn an_environment_is_read_only_where_the_pipeline_names_an_image() {
        let store = MemoryStore::default();
        let read = |environment: &str| {
            let text = format!("environment: {environment}\nsteps: {{a: {{run: 'true'}}}}\n");
            let pipeline = pipeline::read(text.as_bytes(), "pipeline.yaml").unwrap().pipeline;
            let snapshot = Snapshot {
                definition: pipeline.id(),
                tree: object::TreeId::of(b""),
                data: Vec::new(),
                params: object::ParamsId::of(b""),
                seed: None,
                environment: object::EnvironmentId::of(b"not there"),
            };
            images(&store, &snapshot, &pipeline)
        };
        assert_eq!(read("host").unwrap(), Images::new());
        assert!(read(&format!("{{image: \"x@sha256:{}\"}}", "0".repeat(64))).is_err());
    }

    #[test]
    fn the_lists_of_an_image_are_its_own_and_never_those_of_the_machine() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(list_in(root.path(), "passwd"), "");
        std::os::unix::fs::symlink("/etc", root.path().join("etc")).unwrap();
        assert_eq!(list_in(root.path(), "passwd"), "");
        disk::remove_tree(&root.path().join("etc")).unwrap();
        disk::make_directory(&root.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.path().join("etc/passwd")).unwrap();
        assert_eq!(list_in(root.path(), "passwd"), "");
        disk::write_whole(&root.path().join("etc/group"), b"own:x:1:\n", Durability::Deferred).unwrap();
        assert_eq!(list_in(root.path(), "group"), "own:x:1:\n");
    }
}
