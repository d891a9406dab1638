//! The pins of images: which a pipeline needs, and where they lie.

use std::collections::BTreeMap;

use super::SnapshotError;
use crate::object::{Kind, Pin, Snapshot, pins_of_environment};
use crate::path::ProjectPath;
use crate::pipeline::{Environment, Image, Pipeline};
use crate::store::Store;

/// Where the pins of images lie in the project, and so in every commit of it.
pub const PINS: &str = ".pipeline/environments";

/// Returns where the pin of the image with this digest lies in the project.
pub fn pin_place(image: &str) -> ProjectPath {
    ProjectPath::new(format!("{PINS}/{}", pin_name(image))).expect("a digest makes a proper name")
}

/// Returns what the file with the pin of this image is called.
pub fn pin_name(image: &str) -> String {
    format!("{}.json", image.strip_prefix("sha256:").unwrap_or(image))
}

/// Returns the images that the pipeline and its steps name, each once, by digest.
pub fn images_of(pipeline: &Pipeline) -> BTreeMap<&str, &Image> {
    let of_steps = pipeline.steps.iter().filter_map(|step| step.environment.as_ref());
    let images = std::iter::once(&pipeline.environment).chain(of_steps).filter_map(|environment| match environment {
        Environment::Image(image) => Some((image.digest.as_str(), image)),
        _ => None,
    });
    images.collect()
}

/// Returns the pins that a snapshot has, by the digests of their images.
///
/// # Errors
///
/// [`SnapshotError::Store`] if its environment cannot be read, [`SnapshotError::NotUnderstood`] if it makes no sense.
pub fn pins_of(store: &dyn Store, snapshot: &Snapshot) -> Result<BTreeMap<String, Pin>, SnapshotError> {
    let bytes = store.get(Kind::Environment, snapshot.environment.digest())?;
    pins_of_environment(&bytes)
        .map_err(|source| SnapshotError::NotUnderstood { kind: Kind::Environment, source: Box::new(source) })
}

/// Returns the pins of all images that the pipeline needs, which `read` finds by their places.
///
/// # Errors
///
/// [`SnapshotError::NoPin`] if one is not there, [`SnapshotError::BadPin`] if it is none, and what `read` says.
pub(super) fn read_pins(
    pipeline: &Pipeline,
    place: &str,
    read: &dyn Fn(&ProjectPath) -> Result<Option<Vec<u8>>, SnapshotError>,
) -> Result<Vec<Pin>, SnapshotError> {
    let one = |(digest, image): (&str, &Image)| {
        let path = pin_place(digest);
        let text = read(&path)?.ok_or_else(|| SnapshotError::NoPin {
            place: place.to_owned(),
            image: format!("{}@{digest}", image.name),
            path: path.clone(),
        })?;
        Pin::of_text(&text, digest).ok_or(SnapshotError::BadPin { path })
    };
    images_of(pipeline).into_iter().map(one).collect()
}
