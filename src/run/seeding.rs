//! How a step's seed reached what it executed: told of what was seen, not of what was meant.

use std::collections::BTreeSet;
use std::path::Path;

use super::python;
use crate::exec::Observation;
use crate::record::{Layer, Recipe, Seeding};

/// Returns how the seed of a step reached it that was asked for by `recipe` and was seen to do this; `None` if it has none.
pub(super) fn seeding(recipe: &Recipe, observation: &Observation) -> Option<Seeding> {
    recipe.seed?;
    let is_seen = |path: &Path| observation.touched.get(path).is_some_and(|touch| touch.examined);
    let hook = python::seeded();
    // What it was given is known; what it made of that was seen.
    let layers = [(Layer::Variables, true), (Layer::ImportHook, is_seen(&hook)), (Layer::Entropy, observation.pinned)];
    Some(Seeding {
        layers: layers.into_iter().filter(|(_, is_active)| *is_active).map(|(layer, _)| layer).collect(),
        seeded: names_in(&hook, observation),
        unseeded: names_in(&python::unseeded(), observation),
    })
}

/// Returns the names that were looked for in a directory.
fn names_in(directory: &Path, observation: &Observation) -> BTreeSet<String> {
    let touched = observation.touched.iter().filter(|(_, touch)| touch.examined);
    let below = touched.filter_map(|(path, _)| path.strip_prefix(directory).ok()?.to_str());
    below.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::Touch;

    #[test]
    fn the_hook_counts_only_if_a_python_was_seen_to_load_it() {
        let recipe = |seed| -> Recipe {
            let text = serde_json::json!({"recipe": 2, "step": "a", "command": {"shell": "x"}, "workdir": null, "env": {},
                "params": {}, "seed": seed, "environment": {}, "reads": {}, "outputs": []});
            serde_json::from_value(text).unwrap()
        };
        let mut observation = Observation::default();
        let told = |observation: &Observation| {
            let seeding = seeding(&recipe(Some(1)), observation).unwrap();
            (
                seeding.layers.into_iter().map(|layer| layer.to_string()).collect::<Vec<_>>(),
                seeding.seeded,
                seeding.unseeded,
            )
        };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(told(&observation), (vec!["variables".to_owned()], names(&[]), names(&[])));
        let mut look = |path: &str| {
            let touch = Touch { examined: true, ..Touch::default() };
            observation.touched.insert(path.into(), touch);
        };
        look("/pv/python/seeded");
        look("/pv/python/seeded/random");
        look("/pv/python/unseeded/torch");
        look("/pv/work/seeded/none");
        observation.pinned = true;
        let layers = ["variables", "import hook", "entropy"].map(str::to_owned).to_vec();
        assert_eq!(told(&observation), (layers, names(&["random"]), names(&["torch"])));
        assert_eq!(seeding(&recipe(None), &observation), None);
    }
}
