//! `pv env export`: an image of a snapshot as a file that other programs load.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::cli::Global;
use crate::cli::answer::bytes;
use crate::cli::fail::{CliError, ENVIRONMENT};
use crate::cli::open;
use crate::cli::reach::{Reach, Reaching};
use crate::cli::ui::{NAME, Ui, paint};
use crate::environment::image;
use crate::object::{DataRoot, Pin};
use crate::pipeline::{Environment, Image, Pipeline};
use crate::project::Project;
use crate::snapshot::{images_of, pins_of};

/// Write the image of a snapshot to a file that `podman load` and `docker load` read
///
/// The file is an OCI archive with one layer. The same snapshot makes the same bytes everywhere. The digest of the
/// image in it is its own: that of the original belongs to other bytes with the same files.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A version, commit, snapshot or run
    revision: String,
    /// The file to write
    #[arg(value_name = "FILE.tar")]
    file: PathBuf,
    /// The image of this step, where steps have different ones
    #[arg(long, value_name = "NAME")]
    step: Option<String>,
    #[command(flatten)]
    reaching: Reaching,
}

#[derive(Serialize)]
struct Answer {
    /// What was exported, as the definition names it.
    from: String,
    /// The image in the file.
    image: String,
    name: String,
    path: PathBuf,
    bytes: u64,
}

pub(super) fn run(ui: &mut Ui, global: &Global, args: &Args) -> Result<u8, CliError> {
    let project = open::project(ui, global)?;
    let (chosen, pin) = fetched(ui, &project, args)?;
    let path = open::directory(global)?.join(&args.file);
    // Of what a registry is part of the name, podman would ask it; a bare name is one of this machine.
    let name = chosen.name.rsplit('/').next().unwrap_or(&chosen.name);
    let exported = image::export(&project.store, &pin, name, &path)?;
    let (from, image) = (chosen.to_string(), exported.image.to_string());
    ui.show(&Answer { from, image, name: exported.name, path, bytes: exported.bytes })?;
    Ok(0)
}

/// Returns the image that is meant and its pin, after fetching of it what is missing here.
fn fetched(ui: &Ui, project: &Project, args: &Args) -> Result<(Image, Pin), CliError> {
    let progress = ui.progress("Fetching");
    let reach = Reach::new(project, args.reaching.offline, &progress)?;
    let named = open::resolve_in(project, reach.store(), &args.revision)?;
    let opened = open::open_in(reach.store(), &named)?;
    let chosen = choose(&opened.pipeline, args.step.as_deref())?;
    let mut pins = pins_of(reach.store(), &opened.snapshot)?;
    let pin = pins.remove(&chosen.digest).ok_or_else(|| {
        CliError::usage(format!("the snapshot does not tell what is in `{chosen}`")).exit(ENVIRONMENT)
    })?;
    reach.have_directory(DataRoot::Directory { sized: pin.sized(), id: pin.tree })?;
    reach.tell(ui);
    Ok((chosen.clone(), pin))
}

/// Returns the image that is meant: that of the step, or the only one.
fn choose<'a>(pipeline: &'a Pipeline, step: Option<&str>) -> Result<&'a Image, CliError> {
    let images = images_of(pipeline);
    if let Some(name) = step {
        let step = pipeline.steps.iter().find(|step| step.name == name);
        let step = step.ok_or_else(|| CliError::usage(format!("the snapshot has no step `{name}`")))?;
        return match pipeline.environment_of(step) {
            Environment::Image(image) => Ok(image),
            _ => Err(CliError::usage(format!("step `{name}` runs in no image"))),
        };
    }
    let mut all = images.into_values();
    match (all.next(), all.next()) {
        (Some(image), None) => Ok(image),
        (None, _) => Err(CliError::usage("no step of the snapshot runs in an image")
            .hint("`pv env show` with the same revision tells what they run in")),
        (Some(_), Some(_)) => Err(CliError::usage("steps of the snapshot run in different images")
            .hint("choose one with `--step`; `pv env show` with the same revision lists them")),
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} has the files of {}", paint(NAME, self.path.display()), self.from)?;
        writeln!(f, "as image {}, {}, {}", paint(NAME, &self.name), self.image, bytes(self.bytes))
    }
}
