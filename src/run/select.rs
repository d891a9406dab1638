//! Which steps of a pipeline a run is about.

use std::collections::BTreeSet;

use super::RunError;
use super::judge::{Judged, Verdict};
use crate::hash::Digest;
use crate::pipeline::{Graph, Pipeline};

/// A step that was asked for: `train`, `+train` (the same) or `train+` (and all that come after it).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wish {
    /// The step's name, or that of a step with a matrix, which means all its combinations.
    pub name: String,
    /// Whether the steps after it are asked for, too.
    pub after: bool,
}

/// What a run does with a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It is brought up to date.
    Selected,
    /// It is executed, also if its result is known.
    Again,
    /// Its known result is taken; it is never executed and not reported.
    Known,
    /// It is not looked at.
    Out,
}

/// What a run does with each step of a pipeline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Selection {
    roles: Vec<Role>,
}

/// A name that no step has.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no step is called `{name}`")]
pub struct UnknownStep {
    /// What was asked for.
    pub name: String,
}

impl Wish {
    /// Returns what a text asks for.
    pub fn parse(text: &str) -> Self {
        let text = text.strip_prefix('+').unwrap_or(text);
        match text.strip_suffix('+') {
            Some(name) => Self { name: name.to_owned(), after: true },
            None => Self { name: text.to_owned(), after: false },
        }
    }

    /// Returns the steps of this name, without those after them.
    pub fn named(&self, pipeline: &Pipeline) -> BTreeSet<usize> {
        let is_it = |step: &crate::pipeline::Step| step.name == self.name || step.family() == self.name;
        pipeline.steps.iter().enumerate().filter(|(_, step)| is_it(step)).map(|(index, _)| index).collect()
    }
}

impl Selection {
    /// Returns every step of a pipeline; they are executed `again` if that is said.
    pub fn everything(pipeline: &Pipeline, again: bool) -> Self {
        let role = if again { Role::Again } else { Role::Selected };
        Self { roles: vec![role; pipeline.steps.len()] }
    }

    /// Lets a share of the steps whose results would be taken, at least one, be executed all the same. Returns their number.
    ///
    /// Which ones is decided by `seed`.
    pub fn check(&mut self, plan: &[Judged], percent: f64, seed: u64) -> usize {
        let is_taken =
            |index: &usize| self.roles[*index] == Role::Selected && matches!(plan[*index].verdict, Verdict::Reuse(_));
        let mut taken: Vec<usize> = (0..self.roles.len()).filter(is_taken).collect();
        taken.sort_by_key(|index| Digest::of(format!("{seed} {index}").as_bytes()));
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count of steps"
        )]
        let wanted = (taken.len() as f64 * percent.clamp(0.0, 100.0) / 100.0).ceil() as usize;
        taken.truncate(wanted);
        taken.iter().for_each(|index| self.roles[*index] = Role::Again);
        taken.len()
    }

    /// Returns the steps that are wished for and, unless `only` they are wanted, those before them.
    ///
    /// With `only`, of the steps before them the known results are taken. With
    /// `again`, those wished for are executed also if their results are known.
    /// Costs one look at each step and edge for each wish.
    ///
    /// # Errors
    ///
    /// [`UnknownStep`] if no step has the name of a wish.
    pub fn of(
        pipeline: &Pipeline,
        graph: &Graph,
        wishes: &[Wish],
        only: bool,
        again: bool,
    ) -> Result<Self, UnknownStep> {
        let mut wished = BTreeSet::new();
        for wish in wishes {
            let named = wish.named(pipeline);
            if named.is_empty() {
                return Err(UnknownStep { name: wish.name.clone() });
            }
            wished.extend(if wish.after { with_those_after(graph, named) } else { named });
        }
        let mut roles = vec![Role::Out; pipeline.steps.len()];
        for step in with_those_before(graph, &wished) {
            roles[step] = match (wished.contains(&step), only) {
                (true, _) if again => Role::Again,
                (true, _) | (false, false) => Role::Selected,
                (false, true) => Role::Known,
            };
        }
        Ok(Self { roles })
    }

    /// Returns what is done with the step at `index`.
    pub fn role(&self, index: usize) -> Role {
        self.roles[index]
    }

    /// Returns whether results of steps must be known.
    pub(super) fn relies_on_known(&self) -> bool {
        self.roles.contains(&Role::Known)
    }

    /// Returns whether the run is about the step at `index`, so that it is told of.
    pub fn is_told(&self, index: usize) -> bool {
        matches!(self.roles[index], Role::Selected | Role::Again)
    }
}

/// Refuses a run that would have to execute a step whose result must be known, as far as `plan` can tell.
///
/// A result that depends on steps which have yet to run is looked for when they are done.
///
/// # Errors
///
/// [`RunError::NotKnown`] with the first such step.
pub fn refuse_unknown(pipeline: &Pipeline, selection: &Selection, plan: &[Judged]) -> Result<(), RunError> {
    for (index, judged) in plan.iter().enumerate().filter(|(index, _)| selection.role(*index) == Role::Known) {
        let step = &pipeline.steps[index];
        if judged.verdict == Verdict::Run && judged.recipe.is_some() && step.cache {
            return Err(RunError::NotKnown { step: step.name.clone() });
        }
    }
    Ok(())
}

fn with_those_after(graph: &Graph, steps: BTreeSet<usize>) -> BTreeSet<usize> {
    let mut found = steps;
    // In this order every step comes after those that it waits for.
    for step in &graph.order {
        if graph.dependencies[*step].iter().any(|other| found.contains(other)) {
            found.insert(*step);
        }
    }
    found
}

fn with_those_before(graph: &Graph, steps: &BTreeSet<usize>) -> BTreeSet<usize> {
    let mut found = steps.clone();
    for step in graph.order.iter().rev() {
        if found.contains(step) {
            found.extend(&graph.dependencies[*step]);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline;

    fn roles(wishes: &[&str], only: bool, again: bool) -> String {
        let text = b"steps:
  get: {run: x, inputs: [], outputs: [raw]}
  train: {run: x, inputs: [raw], outputs: ['m/${matrix.n}'], matrix: {n: [1, 2]}}
  report: {run: x, inputs: ['m/${matrix.*}'], outputs: [r]}
  other: {run: x, inputs: [], outputs: [o]}
  both: {run: x, inputs: [o, r]}
";
        let definition = pipeline::read(text, "p.yaml").unwrap();
        let wishes: Vec<_> = wishes.iter().map(|text| Wish::parse(text)).collect();
        let selection = Selection::of(&definition.pipeline, &definition.graph, &wishes, only, again).unwrap();
        let letter = |role: &Role| match role {
            Role::Selected => 's',
            Role::Again => 'a',
            Role::Known => 'k',
            Role::Out => '-',
        };
        selection.roles.iter().map(letter).collect()
    }

    #[test]
    fn a_step_comes_with_those_before_it_and_with_a_plus_those_after_it() {
        assert_eq!(roles(&["report"], false, false), "ssss--");
        assert_eq!(roles(&["+report"], false, false), "ssss--");
        assert_eq!(roles(&["train@n=2"], false, false), "s-s---");
        assert_eq!(roles(&["train+"], false, false), "ssssss");
        assert_eq!(roles(&["train"], true, false), "kss---");
        assert_eq!(roles(&["report", "get"], true, false), "skks--");
        assert_eq!(roles(&["train"], false, true), "saa---");
        assert_eq!(roles(&["other+"], false, true), "ssssaa");
    }

    #[test]
    fn a_name_that_no_step_has_is_no_selection() {
        let definition = pipeline::read(b"steps: {a: {run: x}}", "p.yaml").unwrap();
        let wish = [Wish::parse("b+")];
        let error = Selection::of(&definition.pipeline, &definition.graph, &wish, false, false).unwrap_err();
        assert_eq!(error.to_string(), "no step is called `b`");
    }
}
