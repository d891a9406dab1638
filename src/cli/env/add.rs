//! `pv env add`: take in an image, and let the definition name it by its digest.

use std::fmt;

use serde::Serialize;

use crate::cli::Global;
use crate::cli::answer::{bytes, count};
use crate::cli::fail::CliError;
use crate::cli::open;
use crate::cli::snapshot::ignored;
use crate::cli::ui::{FAINT, NAME, Ui, paint};
use crate::disk::{self, Durability};
use crate::environment;
use crate::environment::image::{self, Blobs, Limits, Reference};
use crate::object::TreeId;
use crate::pipeline::{Addition, edit};
use crate::project::Project;
use crate::remote::{Registry, Surroundings};
use crate::snapshot::{PINS, pin_place};
use crate::store::Store;

/// Take in an image, and write its digest into the definition
///
/// The image is fetched, checked and unpacked into the store; files that other images or your data have too are kept
/// once. What it holds is noted in a small file below `.pipeline/environments`: commit that file and the definition.
/// From then on the registry is not needed any more.
///
/// Credentials are those that `podman login` or `docker login` left. A registry on this machine is asked without
/// encryption, all others with it.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The image: `debian:12`, `registry.example.org/team/tools@sha256:...`, `oci:DIR[:TAG]`, a directory with an
    /// OCI layout, or a `.tar` file that is one or that `docker save` wrote
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Let this step alone run in it, instead of the whole pipeline
    #[arg(long, value_name = "NAME")]
    step: Option<String>,
    /// Leave the definition as it is
    #[arg(long, conflicts_with = "step")]
    no_edit: bool,
    /// Refuse an image whose files have more than so many GiB
    #[arg(long, value_name = "GIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    limit: u64,
}

#[derive(Serialize)]
struct Answer {
    environment: TreeId,
    image: String,
    layers: u64,
    files: u64,
    bytes: u64,
    new_bytes: u64,
    #[serde(skip)]
    edited: Option<String>,
}

pub(super) fn run(ui: &mut Ui, global: &Global, args: &Args) -> Result<u8, CliError> {
    let project = open::project(ui, global)?;
    let reference = Reference::read(&args.image, &open::directory(global)?)
        .map_err(|error| CliError::usage(format!("`{}` names no image: {error}", args.image)))?;
    let path = open::definition(global)?;
    let text = if args.no_edit { None } else { Some(definition(&project, args, &path.to_string())?) };
    let registry;
    let files = image::open_files(&reference)?;
    let blobs: &dyn Blobs = match (&files, &reference) {
        (Some(files), _) => &**files,
        (None, Reference::Registry(repository)) => {
            registry = Registry::open(repository, &Surroundings::of_this_process())?;
            &registry
        }
        (None, _) => unreachable!("what is in no registry is in files"),
    };
    let wanted = match &reference {
        Reference::Registry(repository) => repository.digest,
        _ => None,
    };
    project.store.hold()?;
    let limits = Limits { unpacked_bytes: args.limit << 30, ..Limits::default() };
    let taken = {
        let progress = ui.progress("Unpacking");
        image::take_in(blobs, wanted.as_ref(), &project.store, limits, &|files, bytes| {
            progress.count(files, bytes);
        })?
    };
    project.store.sync()?;
    environment::write_pin(&project.pins(), &taken.pin)?;
    environment::write_pin(&project.root.join(PINS), &taken.pin)?;
    let image = format!("{}@{}", blobs.name(), taken.pin.image);
    let edited = match text {
        Some(text) => write(ui, &project, &path.to_string(), &text, &addition(args, &image))?,
        None => None,
    };
    ui.show(&Answer {
        environment: taken.pin.tree,
        image,
        layers: taken.layers,
        files: taken.pin.files,
        bytes: taken.pin.bytes,
        new_bytes: taken.new_bytes,
        edited,
    })?;
    let pin = pin_place(&taken.pin.image);
    if !ignored(&project, std::slice::from_ref(&pin))?.is_empty() {
        ui.say(format!("note: Git ignores `{pin}`; `git add --force` commits it all the same"));
    }
    Ok(0)
}

fn addition(args: &Args, image: &str) -> Addition {
    Addition::Image { step: args.step.clone(), image: image.to_owned() }
}

/// Returns the text of the definition, which is there and has the step.
fn definition(project: &Project, args: &Args, path: &str) -> Result<String, CliError> {
    let bytes = disk::read_if_there(&project.root.join(path))?.ok_or_else(|| {
        CliError::usage(format!("there is no pipeline `{path}`"))
            .hint("`pv init` makes a first one; `--no-edit` takes the image in all the same")
    })?;
    let text = String::from_utf8(bytes).map_err(|_| CliError::usage(format!("`{path}` is no text")))?;
    // Before anything is fetched.
    let tried = edit(&text, &[addition(args, "image")])
        .map_err(|error| CliError::usage(format!("`{path}` cannot be read: {error}")))?;
    match (&args.step, tried.by_hand.is_empty()) {
        (Some(step), false) => Err(CliError::usage(format!("step `{step}` of `{path}` cannot be edited"))
            .hint("name a step as it is called there, or use `--no-edit` and write the environment by hand")),
        _ => Ok(text),
    }
}

/// Writes the image into the definition; returns where it was written.
fn write(ui: &Ui, project: &Project, path: &str, text: &str, addition: &Addition) -> Result<Option<String>, CliError> {
    let edited = edit(text, std::slice::from_ref(addition))
        .map_err(|error| CliError::usage(format!("`{path}` cannot be read: {error}")))?;
    if !edited.by_hand.is_empty() {
        ui.warn(format!("note: `{path}` could not be edited; write this into it: {addition}"));
        return Ok(None);
    }
    disk::write_whole(&project.root.join(path), edited.text.as_bytes(), Durability::Synced)?;
    Ok(Some(path.to_owned()))
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "image {}", paint(NAME, &self.image))?;
        let (layers, files) = (count(self.layers, "layer"), count(self.files, "file"));
        let new = paint(FAINT, format!("{} of it new", bytes(self.new_bytes)));
        writeln!(f, "environment {}  {layers}, {files}, {}, {new}", self.environment.short(), bytes(self.bytes))?;
        match &self.edited {
            Some(path) => writeln!(f, "written into {path}; commit it together with {PINS}"),
            None => writeln!(f, "noted in {PINS}, which is to be committed"),
        }
    }
}
