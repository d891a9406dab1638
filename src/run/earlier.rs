//! What comes before a step: the steps that it waits for, and what they wrote, found by path.
//!
//! The last step of a chain of a thousand has 999 others before it. So nothing
//! here is listed or copied for each step: a look costs what it finds.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use super::world::above;
use crate::path::{ProjectPath, unescape};
use crate::pipeline::Pipeline;
use crate::record::{Aspect, Name, Output};

use super::reads::TOP;

/// A set of steps.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Steps(Vec<u64>);

impl Steps {
    /// Returns whether the step at `index` is one of them.
    pub(super) fn contains(&self, index: usize) -> bool {
        self.0.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// Adds the step at `index`.
    pub(super) fn insert(&mut self, index: usize) {
        self.grow(index / 64 + 1);
        self.0[index / 64] |= 1 << (index % 64);
    }

    /// Adds all of `others`.
    pub(super) fn extend(&mut self, others: &Self) {
        self.grow(others.0.len());
        self.0.iter_mut().zip(&others.0).for_each(|(word, other)| *word |= other);
    }

    /// Returns them, rising.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        (0..self.0.len() * 64).filter(|index| self.contains(*index))
    }

    fn grow(&mut self, words: usize) {
        self.0.resize(self.0.len().max(words), 0);
    }
}

/// The outputs of the steps that are finished.
#[derive(Debug)]
pub(super) struct Finished(Vec<OnceLock<Vec<Output>>>);

impl Finished {
    /// Returns that none of so many steps is finished.
    pub(super) fn none_of(steps: usize) -> Self {
        Self((0..steps).map(|_| OnceLock::new()).collect())
    }

    /// Notes that the step at `index` is finished and what it wrote. What was noted of it first stays.
    pub(super) fn note(&self, index: usize, outputs: Vec<Output>) {
        self.0[index].get_or_init(|| outputs);
    }

    /// Returns what the step at `index` wrote, if it is finished.
    pub(super) fn get(&self, index: usize) -> Option<&[Output]> {
        self.0.get(index)?.get().map(Vec::as_slice)
    }
}

/// Which step of a pipeline writes what.
#[derive(Debug)]
pub(super) struct Writers(BTreeMap<ProjectPath, usize>);

impl Writers {
    pub(super) fn of(pipeline: &Pipeline) -> Self {
        let steps = pipeline.steps.iter().enumerate();
        Self(steps.flat_map(|(index, step)| step.written().map(move |path| (path.clone(), index))).collect())
    }

    /// Returns the steps that write something which one that depends on `names` needs.
    pub(super) fn needed_by<'n>(&self, names: impl IntoIterator<Item = &'n Name>) -> Steps {
        let mut needed = Steps::default();
        for name in names {
            let Name::Read(aspect, path) = name else { continue };
            // Whoever only puts something there needs nothing of what another puts there.
            if path.starts_with('/') || path == TOP || *aspect == Aspect::Place {
                continue;
            }
            let Ok(path) = ProjectPath::new(unescape(path)) else { continue };
            self.at_or_above(&path).for_each(|(_, writer)| needed.insert(writer));
            // Names alone depend on what is directly in a directory.
            let counts = |output: &ProjectPath| *aspect != Aspect::Listing || output.parent().as_ref() == Some(&path);
            self.below(Some(&path)).filter(|(output, _)| counts(output)).for_each(|(_, writer)| needed.insert(writer));
        }
        needed
    }

    fn at_or_above(&self, path: &ProjectPath) -> impl Iterator<Item = (&ProjectPath, usize)> {
        let found = |path: ProjectPath| self.0.get_key_value(&path).map(|(path, writer)| (path, *writer));
        std::iter::once(path.clone()).chain(above(path)).filter_map(found)
    }

    fn below(&self, path: Option<&ProjectPath>) -> impl Iterator<Item = (&ProjectPath, usize)> {
        let start = path.map_or_else(Vec::new, |path| [path.as_bytes(), b"/"].concat());
        let range = self.0.range::<[u8], _>((Bound::Included(start.as_slice()), Bound::Unbounded));
        range.take_while(move |(path, _)| path.as_bytes().starts_with(&start)).map(|(path, writer)| (path, *writer))
    }
}

/// What the steps before one wrote, as far as they are finished.
#[derive(Clone)]
pub(super) struct Earlier<'w> {
    pub(super) writers: &'w Writers,
    pub(super) before: Arc<Steps>,
    pub(super) finished: &'w Finished,
}

impl<'w> Earlier<'w> {
    /// Returns what was written at `path` itself.
    pub(super) fn at(&self, path: &ProjectPath) -> Option<&'w Output> {
        self.written(path, *self.writers.0.get(path)?)
    }

    /// Returns the output that `path` lies below, the nearest if there are several.
    pub(super) fn above(&self, path: &ProjectPath) -> Option<&'w Output> {
        above(path).find_map(|above| self.at(&above))
    }

    /// Returns what was written below `path`; `None` means all.
    pub(super) fn below(&self, path: Option<&ProjectPath>) -> impl Iterator<Item = &'w Output> {
        self.writers.below(path).filter_map(|(path, writer)| self.written(path, writer))
    }

    /// Returns whether an output lies at, above or below `path`.
    pub(super) fn overlaps(&self, path: &ProjectPath) -> bool {
        self.at(path).is_some() || self.above(path).is_some() || self.below(Some(path)).next().is_some()
    }

    fn written(&self, path: &ProjectPath, writer: usize) -> Option<&'w Output> {
        let outputs = self.finished.get(writer).filter(|_| self.before.contains(writer))?;
        outputs.iter().find(|output| output.path == *path)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_set_of_steps_is_a_set(
            some in proptest::collection::btree_set(0..300_usize, 0..20),
            others in proptest::collection::btree_set(0..300_usize, 0..20),
        ) {
            let of = |all: &BTreeSet<usize>| {
                let mut steps = Steps::default();
                all.iter().for_each(|index| steps.insert(*index));
                steps
            };
            let mut both = of(&some);
            both.extend(&of(&others));
            prop_assert!(both.iter().eq(some.union(&others).copied()));
            prop_assert!((0..300).all(|index| of(&some).contains(index) == some.contains(&index)));
        }

        #[test]
        fn one_needs_whoever_writes_at_above_or_below_what_it_read(
            outputs in proptest::collection::vec("[ab]{1,2}(/[ab!]{1,2}){0,2}", 1..10),
            read in "[ab]{1,2}(/[ab!]{1,2}){0,2}",
        ) {
            let path = |text: &str| ProjectPath::new(text).unwrap();
            let writers = Writers(outputs.iter().map(|text| path(text)).zip(0..).collect());
            let read = path(&read);
            let needed = |aspect| writers.needed_by([&Name::Read(aspect, read.to_string())]);
            for (output, writer) in &writers.0 {
                prop_assert_eq!(needed(Aspect::Content).contains(*writer), read.overlaps(output));
                let is_listed = output.parent().as_ref() == Some(&read) || read.is_within(output);
                prop_assert_eq!(needed(Aspect::Listing).contains(*writer), is_listed);
                prop_assert!(!needed(Aspect::Place).contains(*writer));
            }
        }
    }
}
