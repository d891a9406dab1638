//! The search for causes: which of many dimensions make a result another, found by experiments.
//!
//! Group testing by halves. First everything is pinned, twice: if that differs, what is left is the schedule or something that
//! cannot be pinned. Then all dimensions are varied at once; if nothing ever differs, none of them counts. Else the set is
//! halved until one dimension is left that makes the difference alone, with all others pinned; it is taken out, and the search
//! goes on until nothing differs any more. A dimension is never named because others were excluded: it is
//! named when it was varied alone and the result was another, twice the same other one, and with nothing varied the same as ever.

use std::collections::BTreeSet;

use super::dimension::{ASKED_AGAIN, CUT_OFF, Dimension, VALUES};
use crate::hash::Digest;

/// How often an execution must come out the same in another mode for what differs otherwise to be what the mode takes away.
const STABLE_RUNS: usize = 3;
/// At least so often is a step executed, with everything pinned, before nothing is said of what differs.
const RESIDUAL_RUNS: usize = 8;
/// How often a delayed schedule alone is tried where something differed that no dimension explains.
const SCHEDULE_TRIES: u8 = 4;

/// What came of an experiment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Outcome {
    /// Which result it was: equal for results with the same bytes.
    pub(super) result: Digest,
    /// Whether the step failed.
    pub(super) failed: bool,
    /// Whether others were asked again who are not otherwise, because the step said something else to them than before.
    pub(super) anew: bool,
}

/// What all experiments have in common beside what is varied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Mode {
    /// No two threads of the step go on at once, as far as that can be.
    pub(super) serial: bool,
    /// The processor's random bits come from a seed.
    pub(super) seeded: bool,
    /// The processor's count of cycles goes by the clock.
    pub(super) counted: bool,
    /// Clocks hardly move. Where a result depends on them anyway, it does not depend on how often they are looked at then.
    pub(super) frozen: bool,
}

/// Whoever executes a step.
pub(super) trait Experiments {
    /// Why it cannot.
    type Error;

    /// Executes the step with everything pinned but `varied`, which have their value `number`. Returns `None` when no more
    /// experiments are allowed.
    ///
    /// # Errors
    ///
    /// Whatever keeps an experiment from being made. That the step fails is an outcome.
    fn run(&mut self, varied: &[Dimension], number: u8, mode: Mode) -> Result<Option<Outcome>, Self::Error>;

    /// Returns whether the step was seen to start processes or threads.
    fn is_concurrent(&self) -> bool;

    /// Returns whether the step asked the processor for what was given in its place the last time.
    fn asks_processor(&self) -> bool;
}

/// What a search found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Found {
    /// Dimensions that make the result another, each alone, in the order in which they were found.
    pub(super) named: Vec<Named>,
    /// Dimensions of which only several together make the result another.
    pub(super) together: Vec<Dimension>,
    /// Dimensions that make the step say something else to others, who answer otherwise each time: nothing can be said of them.
    pub(super) untold: Vec<Dimension>,
    /// Whether it is another result, or a failure, when others are asked again: then nothing that came of that counts.
    pub(super) answers_differ: bool,
    /// Whether it was tried what comes of asking others again, and of asking nobody.
    pub(super) asked: bool,
    /// Why there is something left that differs and has no name.
    pub(super) undetermined: Option<Undetermined>,
    /// Whether no more experiments were allowed, although there was more to find out.
    pub(super) exhausted: bool,
}

/// A dimension that makes the result another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Named {
    /// Which one.
    pub(super) dimension: Dimension,
    /// Its value in the experiment in which it was varied alone.
    pub(super) number: u8,
    /// The result then.
    pub(super) outcome: Outcome,
    /// With everything else pinned, how many executions had how many results, if it is the schedule that was found by that.
    pub(super) free: Option<(usize, usize)>,
}

/// Why something that differs has no name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Undetermined {
    /// Executions with everything pinned differ, and it has one thread alone.
    Pinned,
    /// Executions with everything pinned differ, also where no two threads go on at once.
    Concurrent,
    /// Executions with everything pinned differ, and what others answer could not be given again.
    Network,
    /// It differed when everything was varied, and not when anything was varied alone.
    Fleeting,
}

/// Searches for what makes the result of a step another.
///
/// Costs 5 experiments where nothing does, and about log₂ of the number of dimensions and 5 more for each cause.
///
/// # Errors
///
/// What [`Experiments::run`] says.
pub(super) fn search<E: Experiments>(experiments: &mut E, dimensions: &[Dimension]) -> Result<Found, E::Error> {
    let mut search = Search {
        experiments,
        found: Found::default(),
        pinned: None,
        moving: None,
        is_timed: dimensions.contains(&Dimension::Timer),
        mode: Mode::default(),
        seen: BTreeSet::new(),
    };
    match search.everything(dimensions) {
        Ok(()) => {}
        Err(Halt::Exhausted) => search.found.exhausted = true,
        Err(Halt::Failed(error)) => return Err(error),
    }
    Ok(search.found)
}

enum Halt<E> {
    Exhausted,
    Failed(E),
}

struct Search<'e, E: Experiments> {
    experiments: &'e mut E,
    found: Found,
    /// The result with everything pinned.
    pinned: Option<Digest>,
    /// The same with clocks that move, where they hardly do now.
    moving: Option<Digest>,
    /// Whether clocks can be pinned.
    is_timed: bool,
    /// How all further experiments are made.
    mode: Mode,
    /// The results with everything pinned.
    seen: BTreeSet<Digest>,
}

impl<E: Experiments> Search<'_, E> {
    fn everything(&mut self, dimensions: &[Dimension]) -> Result<(), Halt<E::Error>> {
        let mut open = dimensions.to_vec();
        let first = self.run(&[], 0)?;
        let again = self.run(&[], 0)?;
        self.pinned = Some(first.result);
        if first.result != again.result && again.anew {
            self.found.undetermined = Some(Undetermined::Network);
            return Ok(());
        }
        if first.result != again.result {
            self.seen.extend([first.result, again.result]);
            if !self.residual(2)? {
                return Ok(());
            }
        }
        if !self.experiments.is_concurrent() || self.mode.serial {
            open.retain(|dimension| *dimension != Dimension::Schedule);
        }
        if open.contains(&Dimension::Network) {
            take(&mut open, &Dimension::Network);
            if !self.ask()? {
                return Ok(());
            }
        }
        if self.mode.frozen || self.mode.counted {
            open.retain(|dimension| *dimension != Dimension::Timer);
        }
        let mut numbers: Vec<u8> = (0..VALUES).collect();
        while !open.is_empty() {
            let Some(number) = self.first_that_differs(&mut open, &numbers)? else { return Ok(()) };
            if !self.name_one(&mut open, number)? {
                return Ok(());
            }
            numbers = vec![number, (number + 1) % VALUES];
        }
        Ok(())
    }

    /// Finds out about a step that differs with everything pinned. Returns whether the search can go on.
    fn residual(&mut self, mut runs: usize) -> Result<bool, Halt<E::Error>> {
        let is_concurrent = self.experiments.is_concurrent();
        let free = Some((runs, self.seen.len()));
        let outcome = self.seen.first().map(|result| Outcome { result: *result, failed: false, anew: false });
        let serial = Mode { serial: true, ..Mode::default() };
        let frozen = Mode { frozen: true, ..Mode::default() };
        let modes = [
            // Threads that wait for each other look at clocks as often as they happen to wait.
            (is_concurrent && self.is_timed, frozen, Dimension::Timer),
            (is_concurrent, serial, Dimension::Schedule),
            // Where threads go on one after the other, it cannot be the schedule that looks like the processor.
            (true, Mode { serial: is_concurrent, seeded: true, ..Mode::default() }, Dimension::Hardware),
            (self.is_timed, Mode { serial: is_concurrent, counted: true, ..Mode::default() }, Dimension::Cycles),
        ];
        for (_, mode, dimension) in modes.into_iter().filter(|(counts, ..)| *counts) {
            self.mode = mode;
            let is_processor = mode.seeded || mode.counted;
            let mut results = BTreeSet::new();
            for _ in 0..STABLE_RUNS {
                results.insert(self.run(&[], 0)?.result);
                runs += 1;
                if results.len() > 1 || is_processor && !self.experiments.asks_processor() {
                    break;
                }
            }
            for number in 0..if mode.frozen { SCHEDULE_TRIES } else { 0 } {
                // A race that was not lost yet would look as if clocks made it.
                if results.len() > 1 {
                    break;
                }
                results.insert(self.run(&[Dimension::Schedule], number)?.result);
                runs += 1;
            }
            if let (1, Some(result), Some(outcome)) = (results.len(), results.first(), outcome)
                && (!is_processor || self.experiments.asks_processor())
            {
                self.pinned = Some(*result);
                self.found.named.push(Named { dimension, number: 0, outcome, free });
                return Ok(true);
            }
        }
        self.mode = Mode::default();
        while runs < RESIDUAL_RUNS {
            let outcome = self.run(&[], 0)?;
            self.seen.insert(outcome.result);
            runs += 1;
        }
        let why = if is_concurrent { Undetermined::Concurrent } else { Undetermined::Pinned };
        self.found.undetermined = Some(why);
        Ok(false)
    }

    /// Finds out whether it counts what others answer: they are asked again, and then nobody is. Returns whether the search can go on.
    ///
    /// That the step fails where nobody answers is no other result: it tells nothing of what it does with answers.
    fn ask(&mut self) -> Result<bool, Halt<E::Error>> {
        let network = [Dimension::Network];
        for number in [ASKED_AGAIN, CUT_OFF] {
            let outcome = self.run(&network, number)?;
            self.found.answers_differ |= number == ASKED_AGAIN && self.differs(outcome);
            if !self.differs(outcome) || outcome.failed {
                continue;
            }
            let again = self.run(&network, number)?;
            let pinned = self.run(&[], 0)?;
            if self.differs(pinned) {
                self.seen.extend(self.pinned.into_iter().chain([pinned.result]));
                return if self.mode == Mode::default() { self.residual(3) } else { Ok(false) };
            }
            // What others answer may be another each time.
            if self.differs(again) && !again.failed {
                self.found.named.push(Named { dimension: Dimension::Network, number, outcome, free: None });
                return Ok(true);
            }
        }
        self.found.asked = true;
        Ok(true)
    }

    /// Finds one dimension of those that differ together at `number`, and takes it out. Returns whether the search can go on.
    fn name_one(&mut self, open: &mut Vec<Dimension>, number: u8) -> Result<bool, Halt<E::Error>> {
        let Some((dimension, outcome)) = self.narrow(open, number, Self::differs)? else {
            return self.explain_fleeting(open, number);
        };
        if dimension != Dimension::Schedule {
            let again = self.run(std::slice::from_ref(&dimension), number)?;
            let pinned = self.run(&[], 0)?;
            if self.differs(pinned) && (self.mode.serial || self.mode.seeded || self.mode.counted) {
                // It repeated by chance, so nothing can be said of the rest.
                return Ok(false);
            }
            if self.differs(pinned) {
                // Whatever was varied, it was something else that made the difference.
                self.seen.extend(self.pinned.into_iter().chain([pinned.result]));
                return self.residual(3);
            }
            // Where programs lie is another each time.
            let is_another = dimension == Dimension::Layout && self.differs(again);
            if again.result != outcome.result && !is_another {
                return self.explain_fleeting(open, number);
            }
        }
        let mut named = dimension.clone();
        take(open, &dimension);
        if self.is_only_a_moment(&dimension, number)? {
            return Ok(true);
        }
        // What moves with where programs lie and with the environment too is an address.
        let has_moved = self.found.named.iter().any(|named| named.dimension == Dimension::Layout);
        if has_moved && dimension.moves_memory() || self.is_memory(&dimension)? {
            self.found.named.retain(|named| named.dimension != Dimension::Layout);
            // Whatever is in the environment moves it, so of what moves memory nothing can be told apart.
            named = Dimension::Padding;
            let moves = |one: &Dimension| *one == Dimension::Layout || one.moves_memory();
            open.retain(|other| !other.members().iter().all(moves));
        }
        if matches!(dimension, Dimension::Timer | Dimension::Clock) && !self.mode.frozen {
            self.freeze()?;
        }
        self.found.named.push(Named { dimension: named, number, outcome, free: None });
        Ok(true)
    }

    /// Returns whether it is not this dimension that counts, but that it moves what lies in memory.
    fn is_memory(&mut self, dimension: &Dimension) -> Result<bool, Halt<E::Error>> {
        let tries = match dimension {
            // A few addresses may well come in the same order.
            Dimension::Layout => VALUES,
            other if other.moves_memory() => 1,
            _ => 0,
        };
        for number in 0..tries {
            let padded = self.run(&[Dimension::Padding], number)?;
            if self.differs(padded) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Lets clocks hardly move in all further experiments, if the step bears that: it is known that they count, and how often they
    /// are looked at may depend on everything else.
    fn freeze(&mut self) -> Result<(), Halt<E::Error>> {
        self.mode.frozen = true;
        let frozen = self.run(&[], 0)?;
        if frozen.failed {
            self.mode.frozen = false;
        } else {
            self.moving = self.pinned.replace(frozen.result);
        }
        Ok(())
    }

    /// Returns whether a dimension counts where clocks hardly move, and not where they do: then it counts by when something was
    /// looked at, which is no cause of its own.
    fn is_only_a_moment(&mut self, dimension: &Dimension, number: u8) -> Result<bool, Halt<E::Error>> {
        let Some(moving) = self.moving else { return Ok(false) };
        let frozen = std::mem::replace(&mut self.mode.frozen, false);
        let outcome = self.run(std::slice::from_ref(dimension), number);
        self.mode.frozen = frozen;
        Ok(outcome?.result == moving)
    }

    /// Halves the set until one dimension is left that makes `it` happen alone; `None` if none does.
    fn narrow(
        &mut self,
        open: &[Dimension],
        number: u8,
        it: impl Fn(&Self, Outcome) -> bool,
    ) -> Result<Option<(Dimension, Outcome)>, Halt<E::Error>> {
        let mut set = open.to_vec();
        let mut known = None;
        loop {
            if let [single] = set.as_slice() {
                if let Dimension::Group(members) = single {
                    // A group of one is as good as that one.
                    if members.len() != 1 {
                        known = None;
                    }
                    set.clone_from(&members.clone());
                    continue;
                }
                let outcome = match known {
                    Some(outcome) => outcome,
                    None => self.run(&set, number)?,
                };
                return Ok(it(self, outcome).then(|| (single.clone(), outcome)));
            }
            let (left, right) = set.split_at(set.len().div_ceil(2));
            let outcome = self.run(left, number)?;
            if it(self, outcome) {
                set = left.to_vec();
                known = Some(outcome);
            } else {
                set = right.to_vec();
                known = None;
            }
        }
    }

    /// Explains a difference that no dimension makes alone: a race that is lost now and then, or several dimensions together.
    fn explain_fleeting(&mut self, open: &mut Vec<Dimension>, number: u8) -> Result<bool, Halt<E::Error>> {
        if self.experiments.is_concurrent() && !self.mode.serial {
            for try_number in 0..SCHEDULE_TRIES {
                let outcome = self.run(&[Dimension::Schedule], try_number)?;
                if self.differs(outcome) {
                    let named = Named { dimension: Dimension::Schedule, number: try_number, outcome, free: None };
                    self.found.named.push(named);
                    take(open, &Dimension::Schedule);
                    // From here on a race would look like whatever else is varied.
                    self.mode.serial = true;
                    let first = self.run(&[], 0)?;
                    let again = self.run(&[], 0)?;
                    self.pinned = Some(first.result);
                    return Ok(first.result == again.result);
                }
            }
        }
        let mut set: Vec<Dimension> = open.iter().flat_map(Dimension::members).collect();
        let all = self.run(&set, number)?;
        if !self.differs(all) {
            self.found.undetermined = Some(Undetermined::Fleeting);
            return Ok(false);
        }
        let mut part = set.len().div_ceil(2);
        while part > 0 {
            let mut start = 0;
            while start < set.len() && set.len() > 1 {
                let rest: Vec<_> = set
                    .iter()
                    .enumerate()
                    .filter(|(at, _)| !(start..start + part).contains(at))
                    .map(|(_, d)| d.clone())
                    .collect();
                let outcome = self.run(&rest, number)?;
                if self.differs(outcome) && !rest.is_empty() {
                    set = rest;
                } else {
                    start += part;
                }
            }
            part /= 2;
        }
        for dimension in &set {
            take(open, dimension);
        }
        self.found.together.extend(set);
        Ok(true)
    }

    fn first_that_differs(&mut self, open: &mut Vec<Dimension>, numbers: &[u8]) -> Result<Option<u8>, Halt<E::Error>> {
        for number in numbers {
            let mut outcome = self.run(open, *number)?;
            while self.is_void(outcome) {
                let Some((dimension, _)) = self.narrow(open, *number, Self::is_void)? else { break };
                take(open, &dimension);
                if self.found.untold.contains(&Dimension::Layout) && dimension.moves_memory() {
                    // It says something that follows from where something lies, and whatever is in the environment moves that.
                    open.retain(|other| !other.members().iter().all(Dimension::moves_memory));
                    self.found.untold.push(Dimension::Padding);
                } else {
                    self.found.untold.push(dimension);
                }
                if open.is_empty() {
                    return Ok(None);
                }
                outcome = self.run(open, *number)?;
            }
            if self.differs(outcome) {
                return Ok(Some(*number));
            }
        }
        Ok(None)
    }

    /// Returns whether others were asked again who answer otherwise each time, so that nothing can be said of what was varied.
    fn is_void(&self, outcome: Outcome) -> bool {
        outcome.anew && self.found.answers_differ
    }

    fn differs(&self, outcome: Outcome) -> bool {
        self.pinned != Some(outcome.result) && !self.is_void(outcome)
    }

    fn run(&mut self, varied: &[Dimension], number: u8) -> Result<Outcome, Halt<E::Error>> {
        match self.experiments.run(varied, number, self.mode) {
            Ok(Some(outcome)) => Ok(outcome),
            Ok(None) => Err(Halt::Exhausted),
            Err(error) => Err(Halt::Failed(error)),
        }
    }
}

/// Takes a dimension out of a set, also out of a group in it.
fn take(open: &mut Vec<Dimension>, dimension: &Dimension) {
    for member in open.iter_mut() {
        if let Dimension::Group(members) = member {
            members.retain(|other| other != dimension);
        }
    }
    open.retain(|other| other != dimension && *other != Dimension::Group(Vec::new()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A step that some dimensions make another.
    struct Simulated {
        /// Each set makes the result another if all of it is varied.
        causes: Vec<Vec<Dimension>>,
        concurrent: bool,
        /// Every so many executions that are not serial a race is lost; 0 is never.
        races: u32,
        /// Whether it takes random bits of the processor.
        hardware: bool,
        /// Whether it asks how many cycles there were.
        cycles: bool,
        /// Whether it asked for what was given in the processor's place.
        asked: bool,
        /// How it talks to others, if it does.
        talks: Option<Talks>,
        /// Whether it tells how long something took that takes another time each time.
        jitter: bool,
        /// What moves the moment at which it looks at clocks, which counts only if these hardly move.
        moment: Option<Dimension>,
        runs: u32,
        budget: u32,
    }

    #[derive(Clone, Default)]
    struct Talks {
        /// Whether others answer otherwise each time.
        is_another: bool,
        /// Whether it fails without them; else it has another result then.
        fails: bool,
        /// What makes it say something else to them.
        says: Vec<Dimension>,
        /// Whether it says something else each time.
        is_new: bool,
    }

    impl Talks {
        /// Returns whether it fails, and whether others were asked anew, after writing to `text` what they answered.
        fn answer(&self, varied: &[Dimension], number: u8, runs: u32, text: &mut String) -> (bool, bool) {
            let asked = varied.contains(&Dimension::Network);
            if asked && number == CUT_OFF {
                text.push_str("nobody");
                return (self.fails, false);
            }
            let anew = !asked && runs > 1 && (self.is_new || self.says.iter().any(|one| varied.contains(one)));
            if self.is_another && (asked || anew) {
                text.push_str(&format!("answer {runs}"));
            }
            (false, anew)
        }
    }

    impl Experiments for Simulated {
        type Error = ();

        fn run(&mut self, varied: &[Dimension], number: u8, mode: Mode) -> Result<Option<Outcome>, ()> {
            if self.runs == self.budget {
                return Ok(None);
            }
            self.runs += 1;
            let varied: Vec<Dimension> = varied.iter().flat_map(Dimension::members).collect();
            let mut text = String::new();
            for cause in self.causes.iter().filter(|cause| cause.iter().all(|one| varied.contains(one))) {
                text += &format!("{cause:?} {number}");
            }
            let moved = varied.contains(&Dimension::Schedule) && !mode.serial;
            if self.races > 0 && !mode.serial && (moved || self.runs.is_multiple_of(self.races)) {
                text += "race";
            }
            if mode.frozen && self.moment.as_ref().is_some_and(|moment| varied.contains(moment)) {
                text += "another moment";
            }
            if self.jitter && !mode.frozen {
                text += &format!("some time {}", self.runs);
            }
            if self.cycles && !mode.counted {
                text += &format!("cycles {}", self.runs);
            }
            self.asked = self.hardware && mode.seeded || self.cycles && mode.counted;
            if self.hardware && !mode.seeded {
                text += &format!("hardware {}", self.runs);
            }
            let talks = self.talks.as_ref();
            let (failed, anew) =
                talks.map(|talks| talks.answer(&varied, number, self.runs, &mut text)).unwrap_or_default();
            Ok(Some(Outcome { result: Digest::of(text.as_bytes()), failed, anew }))
        }

        fn is_concurrent(&self) -> bool {
            self.concurrent
        }

        fn asks_processor(&self) -> bool {
            self.asked
        }
    }

    fn dimensions() -> Vec<Dimension> {
        use Dimension::*;
        let variables = (0..20).map(|number| Variable(format!("V{number}"), None)).collect();
        vec![
            Layout,
            HashSeed,
            Entropy,
            Clock,
            Timer,
            Listing,
            Schedule,
            Processors,
            Threads,
            Zone,
            Locale,
            Hostname,
            Pid,
            User,
            Workplace,
            Home,
            Temporary,
            Umask,
            State,
            Group(variables),
        ]
    }

    fn simulated(causes: Vec<Vec<Dimension>>) -> Simulated {
        Simulated {
            causes,
            concurrent: false,
            races: 0,
            hardware: false,
            cycles: false,
            asked: false,
            jitter: false,
            moment: None,
            talks: None,
            runs: 0,
            budget: 1000,
        }
    }

    fn named(found: &Found) -> BTreeSet<Dimension> {
        found.named.iter().map(|named| named.dimension.clone()).collect()
    }

    #[test]
    fn nothing_is_named_after_five_runs_where_nothing_counts() {
        let mut step = simulated(Vec::new());
        assert_eq!(search(&mut step, &dimensions()).unwrap(), Found::default());
        assert_eq!(step.runs, 5);
    }

    #[test]
    fn a_single_cause_is_named_within_some_fifteen_runs_whichever_it_is() {
        let all: Vec<Dimension> = dimensions().iter().flat_map(Dimension::members).collect();
        for cause in all.into_iter().filter(|cause| *cause != Dimension::Schedule) {
            let mut step = simulated(vec![vec![cause.clone()]]);
            let found = search(&mut step, &dimensions()).unwrap();
            assert_eq!(named(&found), BTreeSet::from([cause.clone()]));
            let limit = if matches!(cause, Dimension::Variable(..)) { 18 } else { 15 };
            assert!(step.runs <= limit, "{cause:?}: {}", step.runs);
        }
    }

    #[test]
    fn addresses_are_told_as_one_cause_where_the_environment_moves_them() {
        let moved = [Dimension::Layout, Dimension::Padding, Dimension::Home, Dimension::Variable("V3".into(), None)];
        let mut step = simulated(moved.into_iter().map(|one| vec![one]).chain([vec![Dimension::Clock]]).collect());
        let found = search(&mut step, &dimensions()).unwrap();
        assert_eq!(named(&found), BTreeSet::from([Dimension::Padding, Dimension::Clock]));
        let mut step = simulated(vec![vec![Dimension::Layout]]);
        assert_eq!(named(&search(&mut step, &dimensions()).unwrap()), BTreeSet::from([Dimension::Layout]));
    }

    #[test]
    fn what_differs_with_everything_pinned_is_the_schedule_if_it_repeats_serially_and_else_has_no_name() {
        let step = |concurrent, races| Simulated { concurrent, races, ..simulated(vec![vec![Dimension::Clock]]) };
        let found = search(&mut step(true, 2), &dimensions()).unwrap();
        assert_eq!(named(&found), BTreeSet::from([Dimension::Schedule, Dimension::Clock]));
        // A race that nobody knows to be one.
        let found = search(&mut Simulated { races: 3, ..step(false, 3) }, &dimensions()).unwrap();
        assert!(named(&found).is_subset(&BTreeSet::from([Dimension::Clock, Dimension::Hardware])), "{found:?}");
    }

    #[test]
    fn random_bits_of_the_processor_are_named_if_it_repeats_once_they_come_from_a_seed() {
        for concurrent in [false, true] {
            let mut step = Simulated { concurrent, hardware: true, ..simulated(vec![vec![Dimension::Umask]]) };
            let found = search(&mut step, &dimensions()).unwrap();
            assert_eq!(named(&found), BTreeSet::from([Dimension::Hardware, Dimension::Umask]));
        }
    }

    #[test]
    fn durations_of_threads_that_wait_for_each_other_are_the_timer() {
        let step = |concurrent, races| Simulated {
            concurrent,
            jitter: true,
            races,
            ..simulated(vec![vec![Dimension::Umask]])
        };
        let found = search(&mut step(true, 0), &dimensions()).unwrap();
        assert_eq!(named(&found), BTreeSet::from([Dimension::Timer, Dimension::Umask]));
        for races in 2..9 {
            let found = search(&mut step(true, races), &dimensions()).unwrap();
            assert!(!named(&found).contains(&Dimension::Timer), "with a race nothing is known of clocks: {found:?}");
        }
    }

    #[test]
    fn the_count_of_cycles_is_named_if_it_repeats_once_that_goes_by_the_clock() {
        for concurrent in [false, true] {
            let mut step = Simulated { concurrent, cycles: true, ..simulated(vec![vec![Dimension::Umask]]) };
            let found = search(&mut step, &dimensions()).unwrap();
            assert_eq!(named(&found), BTreeSet::from([Dimension::Cycles, Dimension::Umask]));
        }
    }

    #[test]
    fn what_counts_only_while_clocks_hardly_move_is_no_cause() {
        let causes = vec![vec![Dimension::Timer], vec![Dimension::Umask]];
        let mut step = Simulated { moment: Some(Dimension::Locale), ..simulated(causes) };
        let found = search(&mut step, &dimensions()).unwrap();
        assert_eq!(named(&found), BTreeSet::from([Dimension::Timer, Dimension::Umask]));
    }

    #[test]
    fn a_race_that_is_lost_now_and_then_is_never_called_anything_else() {
        for races in 2..9 {
            let mut step = Simulated { concurrent: true, races, ..simulated(Vec::new()) };
            let found = search(&mut step, &dimensions()).unwrap();
            assert!(named(&found).is_subset(&BTreeSet::from([Dimension::Schedule])), "{races}: {found:?}");
            assert!(found.together.is_empty(), "{races}: {found:?}");
        }
    }

    #[test]
    fn what_counts_only_together_is_told_together() {
        let pair = vec![Dimension::Clock, Dimension::Variable("V7".into(), None)];
        let mut step = simulated(vec![pair.clone()]);
        let found = search(&mut step, &dimensions()).unwrap();
        assert_eq!((found.together, found.named), (pair, Vec::new()));
    }

    #[test]
    fn a_budget_that_is_used_up_leaves_what_was_found() {
        let mut step = Simulated { budget: 11, ..simulated(vec![vec![Dimension::Entropy], vec![Dimension::Umask]]) };
        let found = search(&mut step, &dimensions()).unwrap();
        assert_eq!((named(&found), found.exhausted), (BTreeSet::from([Dimension::Entropy]), true));
    }

    fn talking(causes: &[Dimension], talks: Talks) -> (Found, u32) {
        let causes = causes.iter().map(|one| vec![one.clone()]).collect();
        let mut step = Simulated { talks: Some(talks), ..simulated(causes) };
        let dimensions = [dimensions(), vec![Dimension::Network]].concat();
        (search(&mut step, &dimensions).unwrap(), step.runs)
    }

    #[test]
    fn others_are_named_if_they_answer_otherwise_or_if_something_else_comes_of_their_silence() {
        let another = Talks { is_another: true, fails: true, ..Talks::default() };
        let (found, _) = talking(&[Dimension::HashSeed], another);
        assert_eq!(named(&found), BTreeSet::from([Dimension::Network, Dimension::HashSeed]));
        let (found, _) = talking(&[], Talks::default());
        assert_eq!((named(&found), found.named[0].number), (BTreeSet::from([Dimension::Network]), CUT_OFF));
    }

    #[test]
    fn who_answers_the_same_and_is_needed_is_no_cause() {
        let (found, runs) = talking(&[], Talks { fails: true, ..Talks::default() });
        assert_eq!((found, runs), (Found { asked: true, ..Found::default() }, 7));
        let says = vec![Dimension::Entropy];
        let (found, _) = talking(&[Dimension::Entropy], Talks { fails: true, says, ..Talks::default() });
        assert_eq!(named(&found), BTreeSet::from([Dimension::Entropy]), "what is said anew is answered as ever");
    }

    #[test]
    fn nothing_is_said_of_what_makes_a_step_ask_others_who_answer_otherwise_each_time() {
        let says = vec![Dimension::Entropy, Dimension::Locale];
        let talks = Talks { is_another: true, fails: true, says: says.clone(), ..Talks::default() };
        let (found, _) = talking(&[Dimension::Entropy, Dimension::Umask], talks);
        assert_eq!(named(&found), BTreeSet::from([Dimension::Network, Dimension::Umask]));
        assert_eq!((found.untold, found.undetermined), (says, None));
        let says = vec![Dimension::Layout, Dimension::Entropy, Dimension::Zone, Dimension::Locale, Dimension::Home];
        let talks = Talks { is_another: true, fails: true, says, ..Talks::default() };
        let (found, runs) = talking(&[Dimension::Umask], talks);
        assert_eq!(named(&found), BTreeSet::from([Dimension::Network, Dimension::Umask]));
        assert_eq!(found.untold, [Dimension::Layout, Dimension::Entropy, Dimension::Padding]);
        assert!(runs < 40, "{runs}");
        let talks = Talks { is_another: true, is_new: true, ..Talks::default() };
        let (found, runs) = talking(&[Dimension::Umask], talks);
        assert_eq!((found.undetermined, found.named, runs), (Some(Undetermined::Network), Vec::new(), 2));
    }

    proptest! {
        #[test]
        fn any_causes_are_all_found_and_nothing_else(
            picked in proptest::collection::btree_set(0_usize..38, 0..5),
        ) {
            let all: Vec<Dimension> = dimensions().iter().flat_map(Dimension::members)
                .filter(|one| !matches!(one, Dimension::Schedule | Dimension::Layout)).collect();
            let causes: BTreeSet<Dimension> = picked.iter().filter_map(|at| all.get(*at).cloned()).collect();
            let mut step = simulated(causes.iter().map(|one| vec![one.clone()]).collect());
            let found = search(&mut step, &dimensions()).unwrap();
            prop_assert_eq!(named(&found), causes);
            prop_assert!(found.together.is_empty() && found.undetermined.is_none() && !found.exhausted);
        }
    }
}
