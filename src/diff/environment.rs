//! What changed in the environment: what decides, told by the recipes of the steps and by locks, then what only explains.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::images::Package;
use super::{OutputChange, Side};
use crate::environment::{BUILD, is_only_a_way};
use crate::record::{ABSENT, Recipe, Run};

/// Stands between a program and a package in the name of a fact.
const PACKAGE: &str = " package ";

/// A fact about the environment that differs.
#[derive(Debug, Serialize, PartialEq)]
pub struct FactChange {
    /// What: `program python3`, `package numpy`, `kernel`.
    pub name: String,
    /// What it was.
    pub old: Option<String>,
    /// What it is.
    pub new: Option<String>,
    /// The steps that use it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<String>,
    /// The steps that run in an image in which it is installed, whether they use it or not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub in_image_of: Vec<String>,
    /// Whether one of these steps wrote something else than before.
    #[serde(skip)]
    pub may_explain: bool,
}

impl FactChange {
    /// Returns one of which is not known what it has to do with the steps.
    fn of(name: String, old: Option<String>, new: Option<String>) -> Self {
        Self { name, old, new, steps: Vec::new(), in_image_of: Vec::new(), may_explain: false }
    }
}

type Key = (String, Option<String>, Option<String>);

/// Returns the facts that differ: first those that a step with another output uses, then those that some step uses, then the rest.
///
/// What locks pin differently and no step used is there as well, without steps, also where nothing has been run; and so is what is
/// installed differently in images, with the steps that run in them.
pub(super) fn changes(
    from: &Side<'_>,
    to: &Side<'_>,
    runs: Option<(&Run, &Run)>,
    outputs: &[OutputChange],
    in_images: BTreeMap<Package, BTreeSet<String>>,
) -> Vec<FactChange> {
    let mut found = BTreeMap::new();
    if runs.is_some() {
        used(from.recipes, to.recipes, &mut found);
    }
    let told: BTreeSet<String> = found.keys().map(|(name, ..): &Key| name.clone()).collect();
    for name in from.locked.keys().chain(to.locked.keys()).collect::<BTreeSet<_>>() {
        let (old, new, fact) = (from.locked.get(name), to.locked.get(name), format!("package {name}"));
        if old != new && !told.contains(&fact) {
            found.entry((fact, old.cloned(), new.cloned())).or_default();
        }
    }
    let is_in_both = |output: &&OutputChange| output.old.is_some() && output.new.is_some();
    let differs: BTreeSet<&String> = outputs.iter().filter(is_in_both).map(|output| &output.step).collect();
    let may_explain = |steps: &BTreeSet<String>| steps.iter().any(|step| differs.contains(step));
    let used = found.into_iter().map(|((name, old, new), steps)| FactChange {
        may_explain: may_explain(&steps),
        steps: steps.into_iter().collect(),
        ..FactChange::of(name, old, new)
    });
    let mut changes: Vec<FactChange> = used.collect();
    changes.extend(in_images.into_iter().map(|((name, old, new), steps)| FactChange {
        may_explain: may_explain(&steps),
        in_image_of: steps.into_iter().collect(),
        ..FactChange::of(format!("package {name}"), old, new)
    }));
    changes.sort_by_key(|change| (!change.may_explain, change.steps.is_empty(), change.in_image_of.is_empty()));
    if let Some((old, new)) = runs {
        changes.extend(of_machines(old, new));
    }
    changes
}

/// Adds what differs in the recipes of the steps. What only one side has of a step is compared with what others have there.
fn used(old: &BTreeMap<String, Recipe>, new: &BTreeMap<String, Recipe>, found: &mut BTreeMap<Key, BTreeSet<String>>) {
    let of = |recipes: &BTreeMap<String, Recipe>, step: &str, fact: &str| -> Option<String> {
        let own = recipes.get(step).and_then(|recipe| recipe.environment.get(fact));
        let any = || recipes.values().find_map(|recipe| recipe.environment.get(fact));
        own.or_else(any).filter(|value| *value != ABSENT).cloned()
    };
    for step in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
        let facts =
            [old, new].into_iter().filter_map(|side| side.get(step)).flat_map(|recipe| recipe.environment.keys());
        for fact in facts.collect::<BTreeSet<_>>() {
            let (before, after) = (of(old, step, fact), of(new, step, fact));
            if before == after {
                continue;
            }
            let key = match (fact.split_once(PACKAGE), fact.split_once(BUILD)) {
                (Some((_, package)), _) => (format!("package {package}"), before, after),
                (None, Some((program, package))) => {
                    let version = format!("{program}{PACKAGE}{package}");
                    let (old, new) = (of(old, step, &version), of(new, step, &version));
                    if old != new || before.is_none() || after.is_none() {
                        // Other files come with another version, and before there were none on record.
                        continue;
                    }
                    let told = |version: Option<String>, build: Option<String>| {
                        Some(format!("{} build {}", version?, build?.get(..12)?))
                    };
                    (format!("package {package}"), told(old, before), told(new, after))
                }
                _ if fact == "image" => (fact.clone(), before, after),
                _ if ["variable ", "library ", "environment "].iter().any(|kind| fact.starts_with(kind)) => {
                    (fact.clone(), before, after)
                }
                _ => (format!("program {fact}"), before, after),
            };
            found.entry(key).or_default().insert(step.clone());
        }
    }
}

fn of_machines(old: &Run, new: &Run) -> Vec<FactChange> {
    let facts = |run: &Run| {
        let mut facts = run.machine.clone();
        facts.insert("platform".to_owned(), run.by.platform.clone());
        facts.retain(|name, _| !is_only_a_way(name));
        facts
    };
    // What one of them was not asked for is no difference: an older `pv` told less.
    let (old, new) = (facts(old), facts(new));
    let both = old.into_iter().filter_map(|(name, before)| {
        let after = new.get(&name)?.clone();
        (before != after).then(|| FactChange::of(name, Some(before), Some(after)))
    });
    both.collect()
}
