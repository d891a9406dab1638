//! Which of the known results still hold, and what a result's key is made of.
//!
//! A decision from names and their present values; the values come from a function that is asked once for each name.

use std::collections::BTreeMap;

use super::RunError;
use super::reads::TOP;
use super::recipe::Base;
use crate::object::StepKey;
use crate::path::{ProjectPath, unescape};
use crate::record::{KnownResult, Name, ReadSet, ReadSets, Recipe, sum};

/// Tells the present value of a name.
pub(super) type ValueOf<'v> = dyn FnMut(&Name) -> Result<String, RunError> + 'v;

/// What a step is asked to do, and what counts for it whatever it is seen to do.
pub(super) struct Ground<'a> {
    /// Its recipe without reads and environment.
    pub(super) asked: &'a Recipe,
    /// What counts beside a set that is whole.
    pub(super) declared: &'a Base,
    /// What counts beside one that is not.
    pub(super) guessed: &'a Base,
    /// Its declared inputs: what lies within one is told by it.
    pub(super) inputs: &'a [ProjectPath],
}

/// Returns the keys of the results that hold now, those of the set with the newest result first.
///
/// Each name is asked for once, however many sets have it. Costs an addition for each name of each set, and an exact
/// key for each set that looks right.
///
/// # Errors
///
/// Whatever `value_of` returns.
pub(super) fn holding(
    ground: &Ground<'_>,
    sets: &ReadSets,
    value_of: &mut ValueOf<'_>,
) -> Result<Vec<KnownResult>, RunError> {
    let mut present: Vec<Option<(String, u64)>> = vec![None; sets.names.len()];
    let mut told = [true, false].map(|is_whole| Told::new(ground, is_whole, sets.names.len()));
    let mut holding = Vec::new();
    for set in &sets.sets {
        let told = &mut told[usize::from(!set.is_whole)];
        let mut total = told.sum;
        for place in &set.names {
            let place = *place as usize;
            let name = &sets.names[place];
            if told.tells(ground, place, name) {
                continue;
            }
            if present[place].is_none() {
                let value = value_of(name)?;
                let sum = sum(name, &value);
                present[place] = Some((value, sum));
            }
            total = total.wrapping_add(present[place].as_ref().map_or(0, |(_, sum)| *sum));
        }
        let candidates: Vec<&KnownResult> = set.results.iter().filter(|known| known.sum == total).collect();
        if !candidates.is_empty() {
            let key = exact(ground, sets, set, &present);
            holding.extend(candidates.into_iter().filter(|known| known.key == key));
        }
    }
    Ok(holding)
}

/// Returns the recipe of a step that depends on `names`, with their present values.
///
/// # Errors
///
/// Whatever `value_of` returns.
pub(super) fn compose<'n>(
    ground: &Ground<'_>,
    is_whole: bool,
    names: impl IntoIterator<Item = &'n Name>,
    value_of: &mut ValueOf<'_>,
) -> Result<Recipe, RunError> {
    let base = ground.base(is_whole);
    let mut recipe =
        Recipe { reads: base.reads.clone(), environment: base.environment.clone(), ..ground.asked.clone() };
    for name in names {
        if !ground.tells(is_whole, name) {
            put(&mut recipe, name, value_of(name)?);
        }
    }
    Ok(recipe)
}

/// Returns the names that a recipe depends on.
pub(super) fn names_of(recipe: &Recipe) -> Vec<Name> {
    let reads = recipe.reads.iter().map(|(path, value)| Name::of_read(path, value));
    reads.chain(recipe.environment.keys().cloned().map(Name::Fact)).collect()
}

impl Ground<'_> {
    const fn base(&self, is_whole: bool) -> &Base {
        if is_whole { self.declared } else { self.guessed }
    }

    /// Returns whether a name adds nothing to what counts anyway.
    fn tells(&self, is_whole: bool, name: &Name) -> bool {
        let base = self.base(is_whole);
        match name {
            Name::Fact(name) => base.environment.contains_key(name),
            Name::Read(_, path) if base.reads.contains_key(path) => true,
            Name::Read(_, path) if path.starts_with('/') => false,
            // A guess that nothing is declared takes the whole tree.
            Name::Read(..) if !is_whole && base.reads.contains_key(TOP) => true,
            Name::Read(_, path) => {
                ProjectPath::new(unescape(path)).is_ok_and(|path| self.inputs.iter().any(|input| path.is_within(input)))
            }
        }
    }
}

/// What one base tells of the names of all sets, found out once for each.
struct Told {
    is_whole: bool,
    sum: u64,
    names: Vec<Option<bool>>,
}

impl Told {
    fn new(ground: &Ground<'_>, is_whole: bool, names: usize) -> Self {
        let Base { reads, environment } = ground.base(is_whole);
        let reads = reads.iter().map(|(path, value)| sum(&Name::of_read(path, value), value));
        let facts = environment.iter().map(|(name, value)| sum(&Name::Fact(name.clone()), value));
        Self { is_whole, sum: reads.chain(facts).fold(0, u64::wrapping_add), names: vec![None; names] }
    }

    fn tells(&mut self, ground: &Ground<'_>, place: usize, name: &Name) -> bool {
        let is_whole = self.is_whole;
        *self.names[place].get_or_insert_with(|| ground.tells(is_whole, name))
    }
}

fn exact(ground: &Ground<'_>, sets: &ReadSets, set: &ReadSet, present: &[Option<(String, u64)>]) -> StepKey {
    let base = ground.base(set.is_whole);
    let mut recipe =
        Recipe { reads: base.reads.clone(), environment: base.environment.clone(), ..ground.asked.clone() };
    for place in &set.names {
        let name = &sets.names[*place as usize];
        if let Some((value, _)) = &present[*place as usize]
            && !ground.tells(set.is_whole, name)
        {
            put(&mut recipe, name, value.clone());
        }
    }
    recipe.key()
}

fn put(recipe: &mut Recipe, name: &Name, value: String) {
    let (map, name): (&mut BTreeMap<String, String>, &String) = match name {
        Name::Read(_, path) => (&mut recipe.reads, path),
        Name::Fact(name) => (&mut recipe.environment, name),
    };
    map.insert(name.clone(), value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Time;
    use crate::object::RecordId;
    use crate::record::{Aspect, Reads};
    use proptest::prelude::*;

    fn asked() -> Recipe {
        Recipe {
            recipe: Recipe::VERSION,
            step: "a".to_owned(),
            command: crate::pipeline::Run::Shell("true".to_owned()),
            workdir: None,
            env: BTreeMap::new(),
            params: BTreeMap::new(),
            seed: None,
            environment: BTreeMap::new(),
            reads: Reads::new(),
            outputs: Vec::new(),
            home: None,
            strict: None,
            seeding: None,
        }
    }

    fn value(name: &Name, content: u8) -> String {
        match name {
            Name::Fact(_) => format!("version {content}"),
            Name::Read(Aspect::Listing, _) => format!("listing {content}"),
            Name::Read(Aspect::Status, _) => format!("status file {content}"),
            Name::Read(..) => format!("file {content}"),
        }
    }

    fn names() -> impl Strategy<Value = Vec<Name>> {
        let aspects = vec![Aspect::Content, Aspect::Listing, Aspect::Status];
        let read = (prop::sample::select(aspects), "[ab]{1,2}(/[ab]){0,1}")
            .prop_map(|(a, path)| (path.clone(), Name::Read(a, path)));
        let fact = "[xy]{1,3}".prop_map(|name| (format!("f{name}"), Name::Fact(name)));
        // A recipe has one value for a path.
        proptest::collection::btree_map(0..20_u8, prop_oneof![read, fact], 1..8)
            .prop_map(|all| all.into_values().collect::<BTreeMap<_, _>>().into_values().collect())
    }

    proptest! {
        #[test]
        fn a_set_holds_as_it_was_recorded_and_not_if_any_value_is_another(
            names in names(), contents in proptest::collection::vec(0..3_u8, 8), other in 0..8_usize,
        ) {
            let (asked, base) = (asked(), Base::default());
            let ground = Ground { asked: &asked, declared: &base, guessed: &base, inputs: &[] };
            let now = |changed: Option<usize>| {
                let values: BTreeMap<Name, String> = names.iter().enumerate().map(|(place, name)| {
                    (name.clone(), value(name, contents[place] + u8::from(changed == Some(place)) * 100))
                }).collect();
                move |name: &Name| Ok(values[name].clone())
            };
            let recipe = compose(&ground, true, &names, &mut now(None)).unwrap();
            let total = names.iter().enumerate().fold(0_u64, |total, (place, name)| {
                total.wrapping_add(sum(name, &value(name, contents[place])))
            });
            let known = KnownResult { key: recipe.key(), id: RecordId::of(b""), started: Time { epoch_ms: 1 }, sum: total };
            let places = (0..u32::try_from(names.len()).unwrap()).collect();
            let mut sets = ReadSets::default();
            sets.names.clone_from(&names);
            sets.sets.push(ReadSet { is_whole: true, names: places, results: vec![known] });
            prop_assert_eq!(holding(&ground, &sets, &mut now(None)).unwrap(), vec![known]);
            let changed = other % names.len();
            prop_assert_eq!(holding(&ground, &sets, &mut now(Some(changed))).unwrap(), vec![]);
            // That the sum is right proves nothing.
            let key = StepKey::of(b"another");
            sets.sets[0].results[0].key = key;
            prop_assert_eq!(holding(&ground, &sets, &mut now(None)).unwrap(), vec![]);
        }
    }
}
