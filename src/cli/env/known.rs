//! The environments that are known here, and the steps of the definition in the working tree that run in them.

use std::collections::BTreeMap;

use crate::cli::fail::CliError;
use crate::environment::{self, Made, Wanted, read_pins};
use crate::object::Pin;
use crate::pipeline::{Environment, Pipeline};
use crate::project::Project;
use crate::snapshot::PINS;

/// An image that was taken in here, or has a pin in the working tree.
pub(super) struct Image {
    pub(super) pin: Pin,
    /// As the definition calls it.
    pub(super) name: Option<String>,
    pub(super) steps: Vec<String>,
}

/// A Python environment that was made here.
pub(super) struct Python {
    pub(super) made: Made,
    pub(super) steps: Vec<String>,
}

/// Returns the images, sorted by their digests. Without a definition, nothing is known to run in any of them.
pub(super) fn images(project: &Project, pipeline: Option<&Pipeline>) -> Result<Vec<Image>, CliError> {
    let mut pins: BTreeMap<String, Pin> = BTreeMap::new();
    for directory in [project.pins(), project.root.join(PINS)] {
        pins.extend(read_pins(&directory)?.into_iter().map(|pin| (pin.image.clone(), pin)));
    }
    let mut images: Vec<Image> = pins.into_values().map(|pin| Image { pin, name: None, steps: Vec::new() }).collect();
    for (step, environment) in environments(pipeline) {
        if let Environment::Image(named) = environment
            && let Some(image) = images.iter_mut().find(|image| image.pin.image == named.digest)
        {
            image.name = Some(named.name.clone());
            image.steps.push(step.to_owned());
        }
    }
    Ok(images)
}

/// Returns the Python environments, sorted by their locks.
pub(super) fn pythons(project: &Project, pipeline: Option<&Pipeline>) -> Result<Vec<Python>, CliError> {
    let made = environment::pythons_made(&project.python_environments())?;
    let mut pythons: Vec<Python> = made.into_iter().map(|made| Python { made, steps: Vec::new() }).collect();
    for (step, environment) in environments(pipeline) {
        if let Environment::Python(python) = environment
            && let Some(wanted) = Wanted::in_directory(&project.root, &python.version, &python.lock)?
            && let Some(python) = pythons.iter_mut().find(|python| python.made.digest == wanted.digest())
        {
            python.steps.push(step.to_owned());
        }
    }
    Ok(pythons)
}

fn environments(pipeline: Option<&Pipeline>) -> impl Iterator<Item = (&str, &Environment)> {
    let steps = pipeline.into_iter().flat_map(|pipeline| pipeline.steps.iter().map(move |step| (pipeline, step)));
    steps.map(|(pipeline, step)| (step.name.as_str(), pipeline.environment_of(step)))
}
