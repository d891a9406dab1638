//! What is installed in the images of one side and not of the other, told for the steps that run in them.

use std::collections::{BTreeMap, BTreeSet};

use super::Side;
use crate::environment::{InstalledError, installed};
use crate::object::{Kind, Pin};
use crate::pipeline::{Environment, Pipeline, Step};
use crate::snapshot::{SnapshotError, pins_of};
use crate::store::{Store, StoreError};

/// A package with its old and its new version.
pub(super) type Package = (String, Option<String>, Option<String>);

/// Returns which packages differ between the image of a step on one side and that on the other, with these steps.
///
/// Costs, for each image of such a step, a read of every distinct directory in it. An image whose directories are not all here
/// tells nothing.
pub(super) fn changes(
    store: &dyn Store,
    from: &Side<'_>,
    to: &Side<'_>,
) -> Result<BTreeMap<Package, BTreeSet<String>>, SnapshotError> {
    let mut pairs: BTreeMap<(&str, &str), BTreeSet<String>> = BTreeMap::new();
    for step in &to.pipeline.steps {
        let before = from.pipeline.steps.iter().find(|old| old.name == step.name);
        let images = before.and_then(|before| image_of(from.pipeline, before)).zip(image_of(to.pipeline, step));
        if let Some(pair) = images.filter(|(before, after)| before != after) {
            pairs.entry(pair).or_default().insert(step.name.clone());
        }
    }
    let mut found: BTreeMap<Package, BTreeSet<String>> = BTreeMap::new();
    if pairs.is_empty() {
        return Ok(found);
    }
    let (old, new) = (pins_of(store, from.snapshot)?, pins_of(store, to.snapshot)?);
    for ((before, after), steps) in pairs {
        let of = |pins: &BTreeMap<String, Pin>, image| pins.get(image).map_or(Ok(None), |pin| packages(store, pin));
        let (Some(before), Some(after)) = (of(&old, before)?, of(&new, after)?) else { continue };
        for key in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
            let (old, new) = (before.get(key), after.get(key));
            if old != new {
                found.entry((key.1.clone(), old.cloned(), new.cloned())).or_default().extend(steps.iter().cloned());
            }
        }
    }
    Ok(found)
}

fn image_of<'p>(pipeline: &'p Pipeline, step: &'p Step) -> Option<&'p str> {
    match pipeline.environment_of(step) {
        Environment::Image(image) => Some(&image.digest),
        Environment::Host | Environment::Python(_) => None,
    }
}

/// Returns the versions of what is installed in an image, by manager and name.
fn packages(store: &dyn Store, pin: &Pin) -> Result<Option<BTreeMap<(&'static str, String), String>>, SnapshotError> {
    let list = match installed(store, pin.tree) {
        Ok(list) => list,
        Err(InstalledError::Store(StoreError::Missing { .. })) => return Ok(None),
        Err(InstalledError::Store(error)) => return Err(error.into()),
        Err(InstalledError::NotUnderstood(source)) => {
            return Err(SnapshotError::NotUnderstood { kind: Kind::Tree, source: Box::new(source) });
        }
    };
    let mut packages: BTreeMap<_, String> = BTreeMap::new();
    for package in list {
        // One of Python can be there twice, in two places; which of them is loaded is up to the program.
        let version = packages.entry((package.manager, package.name)).or_default();
        *version = if version.is_empty() { package.version } else { format!("{version} and {}", package.version) };
    }
    Ok(Some(packages))
}
