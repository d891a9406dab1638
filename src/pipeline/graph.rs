//! In which order steps run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use crate::path::ProjectPath;

use super::model::{COMBINATION_MARK, Pipeline};
use super::overlap::PathMap;

/// Which step waits for which. Steps are counted as in [`Pipeline::steps`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Graph {
    /// Every step after all that it waits for; those that could be swapped stand as in the file.
    pub order: Vec<usize>,
    /// For each step, the steps that it waits for directly.
    pub dependencies: Vec<BTreeSet<usize>>,
}

/// Steps that wait for each other.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("steps wait for each other in a circle: {}", Names(.names))]
pub struct Circle {
    /// The steps of the circle; each waits for the next, the last for the first.
    pub steps: Vec<usize>,
    /// Why each of them waits for the next.
    pub reasons: Vec<Reason>,
    names: Vec<String>,
}

/// Why a step waits for another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reason {
    /// It reads what the other writes.
    Reads {
        /// What it reads.
        input: ProjectPath,
        /// What the other writes: the same, or a path above or below.
        output: ProjectPath,
    },
    /// It says so.
    Needs,
    /// It says neither what it reads nor what it needs, and the other stands above it.
    Follows,
}

struct Names<'a>(&'a [String]);

/// How many names of a circle are written out; of a longer one the middle is left out.
const NAMED_MAX: usize = 12;

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left_out = if self.0.len() > NAMED_MAX { NAMED_MAX / 2..self.0.len() - NAMED_MAX / 2 } else { 0..0 };
        for (index, name) in self.0.iter().enumerate() {
            if !left_out.contains(&index) {
                write!(f, "`{name}` → ")?;
            } else if index == left_out.start {
                write!(f, "({} more) → ", left_out.len())?;
            }
        }
        write!(f, "`{}`", self.0.first().map_or("", |name| name))
    }
}

/// Returns the order in which the steps run.
///
/// A step waits for the steps whose outputs or metrics overlap its inputs (equal,
/// above or below) and for those that it needs; one that declares neither
/// inputs nor needs waits for the step above it: for all its combinations, if it has a matrix. A step never waits for itself, and
/// a name under `needs` that no step has is passed over; [`read`](super::read)
/// reports both. Costs time proportional to steps, paths and what they depend on.
///
/// # Errors
///
/// [`Circle`] if steps wait for each other.
pub fn order(pipeline: &Pipeline) -> Result<Graph, Circle> {
    let dependencies: Vec<_> = reasons(pipeline).iter().map(|reasons| reasons.keys().copied().collect()).collect();
    let order = sort(&dependencies);
    if order.len() == dependencies.len() {
        Ok(Graph { order, dependencies })
    } else {
        Err(circle(pipeline, &dependencies, &order))
    }
}

impl Graph {
    /// Returns this graph with steps waiting for others as well, except where they would wait for each other.
    ///
    /// Of those that would, the ones of earlier steps are kept. Costs a walk through the graph for each that changes the order.
    #[must_use]
    pub fn with(&self, more: &BTreeMap<usize, BTreeSet<usize>>) -> Self {
        let mut graph = self.clone();
        let mut positions = positions(&graph.order);
        for (index, others) in more {
            for other in others {
                if positions[*other] < positions[*index] {
                    graph.dependencies[*index].insert(*other);
                } else if index != other && !waits(&graph.dependencies, *other, *index) {
                    graph.dependencies[*index].insert(*other);
                    graph.order = sort(&graph.dependencies);
                    positions = self::positions(&graph.order);
                }
            }
        }
        // The order so far is one that is possible; this is the one nearest to the file.
        graph.order = sort(&graph.dependencies);
        graph
    }
}

fn positions(order: &[usize]) -> Vec<usize> {
    let mut positions = vec![0; order.len()];
    order.iter().enumerate().for_each(|(position, index)| positions[*index] = position);
    positions
}

/// Returns whether the step `from` waits for `other`, directly or not.
fn waits(dependencies: &[BTreeSet<usize>], from: usize, other: usize) -> bool {
    let (mut open, mut seen) = (vec![from], BTreeSet::new());
    while let Some(step) = open.pop() {
        if step == other {
            return true;
        }
        if seen.insert(step) {
            open.extend(&dependencies[step]);
        }
    }
    false
}

/// Returns, for each step, what it waits for and the first reason why.
fn reasons(pipeline: &Pipeline) -> Vec<BTreeMap<usize, Reason>> {
    let mut writers = PathMap::default();
    let mut by_name = BTreeMap::new();
    for (index, step) in pipeline.steps.iter().enumerate() {
        step.written().for_each(|path| writers.insert(path.clone(), index));
        by_name.insert(step.name.as_str(), index);
    }
    let groups = groups(pipeline);
    let reasons_of = |(index, step): (usize, &super::Step)| {
        let mut reasons = BTreeMap::new();
        for input in step.inputs.iter().flatten() {
            for (output, writer) in writers.overlapping(input) {
                reasons
                    .entry(*writer)
                    .or_insert_with(|| Reason::Reads { input: input.clone(), output: output.clone() });
            }
        }
        for needed in step.needs.iter().filter_map(|name| by_name.get(name.as_str())) {
            reasons.entry(*needed).or_insert(Reason::Needs);
        }
        if step.follows_the_one_above() && groups[index].start > 0 {
            let above = groups[groups[index].start - 1].clone();
            reasons.extend(above.map(|above| (above, Reason::Follows)));
        }
        reasons.remove(&index);
        reasons
    };
    pipeline.steps.iter().enumerate().map(reasons_of).collect()
}

/// Returns, for each step, the steps that stand as one in the file: the combinations of its matrix, or itself alone.
fn groups(pipeline: &Pipeline) -> Vec<Range<usize>> {
    let mut groups = Vec::with_capacity(pipeline.steps.len());
    let is_one = |a: &super::Step, b: &super::Step| a.name.contains(COMBINATION_MARK) && a.family() == b.family();
    for group in pipeline.steps.chunk_by(is_one) {
        let start = groups.len();
        groups.extend(std::iter::repeat_n(start..start + group.len(), group.len()));
    }
    groups
}

/// Returns as many steps as can be put in order: all but those in a circle and those that wait for them.
fn sort(dependencies: &[BTreeSet<usize>]) -> Vec<usize> {
    let mut waiting: Vec<_> = dependencies.iter().map(BTreeSet::len).collect();
    let mut dependents = vec![Vec::new(); dependencies.len()];
    for (index, needed) in dependencies.iter().enumerate() {
        for needed in needed {
            dependents[*needed].push(index);
        }
    }
    let mut ready: BTreeSet<_> = (0..waiting.len()).filter(|index| waiting[*index] == 0).collect();
    let mut order = Vec::with_capacity(waiting.len());
    while let Some(next) = ready.pop_first() {
        order.push(next);
        for dependent in &dependents[next] {
            waiting[*dependent] -= 1;
            if waiting[*dependent] == 0 {
                ready.insert(*dependent);
            }
        }
    }
    order
}

/// Follows waiting steps until one comes again, and starts the circle at the one that is first in the file.
fn circle(pipeline: &Pipeline, dependencies: &[BTreeSet<usize>], ordered: &[usize]) -> Circle {
    let ordered: BTreeSet<_> = ordered.iter().copied().collect();
    let mut path = Vec::new();
    let mut seen = BTreeMap::new();
    let mut step = (0..dependencies.len()).find(|step| !ordered.contains(step)).expect("some step is not in order");
    let start = loop {
        if let Some(start) = seen.insert(step, path.len()) {
            break start;
        }
        path.push(step);
        let unordered = dependencies[step].iter().find(|needed| !ordered.contains(needed));
        step = *unordered.expect("a step that is not in order waits for another such step");
    };
    let mut steps = path.split_off(start);
    let first = steps.iter().enumerate().min_by_key(|(_, step)| **step).map_or(0, |(place, _)| place);
    steps.rotate_left(first);
    let all = reasons(pipeline);
    let next = steps.iter().cycle().skip(1);
    let reasons = steps.iter().zip(next).map(|(step, next)| all[*step][next].clone()).collect();
    let names = steps.iter().map(|step| pipeline.steps[*step].name.clone()).collect();
    Circle { steps, reasons, names }
}
