//! Which step starts next, as a decision from what waits and what is taken.
//!
//! Nothing here starts anything or knows what a step does. The rules: the first
//! step of the order that fits starts. If one before it does not fit, it may
//! overtake that one only if both, and all that overtook it before, fit
//! together: so whoever waits at the front waits only for what was running when
//! it came there, however many small steps there are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::perform::memory_text;
use crate::pipeline::Resources;

/// What there is for the steps of one run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Capacity {
    /// How many processors.
    pub cpus: u32,
    /// How much memory.
    pub memory_bytes: u64,
    /// The GPUs, as `CUDA_VISIBLE_DEVICES` names them.
    pub gpus: Vec<String>,
}

/// Something of which a step asks for more than there is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Shortage {
    /// Processors.
    Cpus {
        /// How many it asks for.
        wanted: u32,
        /// How many there are.
        there: u32,
    },
    /// Memory, in bytes.
    Memory {
        /// How much it asks for.
        wanted: u64,
        /// How much there is.
        there: u64,
    },
    /// GPUs.
    Gpus {
        /// How many it asks for.
        wanted: u32,
        /// How many there are.
        there: usize,
    },
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let many = |count: u64, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        match *self {
            Self::Cpus { wanted, there } => {
                write!(
                    f,
                    "{}, and there {} {there}",
                    many(wanted.into(), "processor"),
                    if there == 1 { "is" } else { "are" }
                )
            }
            Self::Memory { wanted, there } => {
                write!(f, "{} of memory, and there are {} MiB", memory_text(wanted), there >> 20)
            }
            Self::Gpus { wanted, there: 0 } => write!(f, "{}, and there is none", many(wanted.into(), "GPU")),
            Self::Gpus { wanted, there } => {
                write!(f, "{}, and there {} {there}", many(wanted.into(), "GPU"), if there == 1 { "is" } else { "are" })
            }
        }
    }
}

impl Capacity {
    /// Returns of what `wanted` asks for more than there is at all.
    pub(super) fn shortage(&self, wanted: &Resources) -> Option<Shortage> {
        let Resources { cpus, memory_bytes, gpus, .. } = *wanted;
        if cpus > self.cpus {
            Some(Shortage::Cpus { wanted: cpus, there: self.cpus })
        } else if memory_bytes.is_some_and(|wanted| wanted > self.memory_bytes) {
            Some(Shortage::Memory { wanted: memory_bytes.unwrap_or_default(), there: self.memory_bytes })
        } else if gpus as usize > self.gpus.len() {
            Some(Shortage::Gpus { wanted: gpus, there: self.gpus.len() })
        } else {
            None
        }
    }
}

/// What is taken, and by whom.
#[derive(Clone, Debug)]
pub(super) struct Schedule<'a> {
    capacity: &'a Capacity,
    running: BTreeMap<usize, Taken<'a>>,
    /// The first step that does not fit, and those that have overtaken it since.
    front: Option<(usize, BTreeSet<usize>)>,
}

#[derive(Clone, Debug)]
struct Taken<'a> {
    wanted: &'a Resources,
    /// Which GPUs, as places in the capacity.
    gpus: Vec<usize>,
}

/// What to do now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Decision {
    /// The step that starts; if none, one that runs must end first.
    pub(super) start: Option<usize>,
    /// The first step that waits although it is ready.
    pub(super) waiting: Option<usize>,
}

impl<'a> Schedule<'a> {
    pub(super) fn new(capacity: &'a Capacity) -> Self {
        Self { capacity, running: BTreeMap::new(), front: None }
    }

    /// Decides which of the steps that are `ready`, in their order and with what they want, starts.
    ///
    /// A step that wants more than there is at all is decided upon as if it wanted all there is.
    pub(super) fn next(&self, ready: impl IntoIterator<Item = (usize, &'a Resources)>) -> Decision {
        let mut waiting: Option<(usize, &Resources)> = None;
        if self.sum(self.running.values().map(|taken| taken.wanted)).cpus >= self.capacity.cpus {
            return Decision { start: None, waiting: ready.into_iter().next().map(|(step, _)| step) };
        }
        for (step, wanted) in ready {
            if !self.fits(self.running.values().map(|taken| taken.wanted), wanted) {
                waiting.get_or_insert((step, wanted));
                continue;
            }
            let may_start = waiting.is_none_or(|(front, of_front)| {
                let overtakers = self.front.iter().filter(|(step, _)| *step == front).flat_map(|(_, others)| others);
                let beside = overtakers.filter_map(|other| Some(self.running.get(other)?.wanted));
                self.fits(beside.chain([of_front]), wanted)
            });
            if may_start {
                return Decision { start: Some(step), waiting: waiting.map(|(step, _)| step) };
            }
        }
        Decision { start: None, waiting: waiting.map(|(step, _)| step) }
    }

    /// Notes what was decided, and returns the GPUs of the step that starts.
    pub(super) fn follow(&mut self, decision: Decision, wanted: &'a Resources) -> Vec<String> {
        if self.front.as_ref().map(|(step, _)| *step) != decision.waiting {
            self.front = decision.waiting.map(|step| (step, BTreeSet::new()));
        }
        let Some(step) = decision.start else { return Vec::new() };
        if let Some((_, overtakers)) = &mut self.front {
            overtakers.insert(step);
        }
        let taken: BTreeSet<_> = self.running.values().flat_map(|taken| taken.gpus.iter().copied()).collect();
        let free = (0..self.capacity.gpus.len()).filter(|slot| !taken.contains(slot));
        let gpus: Vec<_> = free.take(wanted.gpus as usize).collect();
        let names = gpus.iter().map(|slot| self.capacity.gpus[*slot].clone()).collect();
        self.running.insert(step, Taken { wanted, gpus });
        names
    }

    /// Notes that a step has ended: what it took is free.
    pub(super) fn ended(&mut self, step: usize) {
        self.running.remove(&step);
    }

    /// Returns whether `wanted` fits beside `others`.
    fn fits<'b>(&self, others: impl Iterator<Item = &'b Resources> + Clone, wanted: &'b Resources) -> bool {
        let all = self.sum(others.clone().chain([wanted]));
        let locks_are_free =
            wanted.locks.is_empty() || others.flat_map(|other| &other.locks).all(|lock| !wanted.locks.contains(lock));
        all.cpus <= self.capacity.cpus
            && all.memory_bytes <= self.capacity.memory_bytes
            && all.gpus <= self.capacity.gpus.len()
            && locks_are_free
    }

    fn sum<'b>(&self, all: impl Iterator<Item = &'b Resources>) -> Sum {
        let mut sum = Sum::default();
        for wanted in all {
            sum.cpus += wanted.cpus.min(self.capacity.cpus);
            sum.memory_bytes += wanted.memory_bytes.unwrap_or_default().min(self.capacity.memory_bytes);
            sum.gpus += (wanted.gpus as usize).min(self.capacity.gpus.len());
        }
        sum
    }
}

#[derive(Default)]
struct Sum {
    cpus: u32,
    memory_bytes: u64,
    gpus: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wants(cpus: u32, gpus: u32, locks: &[&str]) -> Resources {
        let locks = locks.iter().map(|lock| (*lock).to_owned()).collect();
        Resources { cpus, memory_bytes: None, gpus, locks }
    }

    fn capacity(cpus: u32, gpus: usize) -> Capacity {
        Capacity { cpus, memory_bytes: 100, gpus: (0..gpus).map(|gpu| gpu.to_string()).collect() }
    }

    #[test]
    fn small_steps_do_not_keep_a_large_one_waiting() {
        let capacity = capacity(4, 0);
        let (small, large) = (wants(1, 0, &[]), wants(4, 0, &[]));
        let mut schedule = Schedule::new(&capacity);
        schedule.follow(Decision { start: Some(0), waiting: None }, &small);
        let next = schedule.next([(1, &large), (2, &small), (3, &small)]);
        assert_eq!(next, Decision { start: None, waiting: Some(1) }, "there is room for 2, but 1 came first");
        schedule.ended(0);
        assert_eq!(schedule.next([(1, &large), (2, &small)]).start, Some(1));
    }

    #[test]
    fn what_fits_beside_the_one_that_waits_may_overtake_it() {
        let capacity = capacity(3, 1);
        let (gpu, plain) = (wants(1, 1, &[]), wants(1, 0, &[]));
        let mut schedule = Schedule::new(&capacity);
        assert_eq!(schedule.follow(Decision { start: Some(0), waiting: None }, &gpu), ["0"]);
        let first = schedule.next([(1, &gpu), (2, &plain), (3, &plain)]);
        assert_eq!(first, Decision { start: Some(2), waiting: Some(1) });
        schedule.follow(first, &plain);
        let second = schedule.next([(1, &gpu), (3, &plain)]);
        assert_eq!(second.start, Some(3), "1, 2 and 3 fit together");
        schedule.follow(second, &plain);
        schedule.ended(0);
        assert_eq!(schedule.next([(1, &gpu), (4, &plain)]).start, Some(1));
    }

    #[test]
    fn a_lock_is_one_steps_and_gpus_are_told_apart() {
        let capacity = capacity(4, 2);
        let (first, second) = (wants(1, 1, &["db"]), wants(1, 1, &["db", "net"]));
        let other = wants(1, 1, &[]);
        let mut schedule = Schedule::new(&capacity);
        assert_eq!(schedule.follow(Decision { start: Some(0), waiting: None }, &first), ["0"]);
        let next = schedule.next([(1, &second), (2, &other)]);
        assert_eq!(next, Decision { start: Some(2), waiting: Some(1) });
        assert_eq!(schedule.follow(next, &other), ["1"]);
    }

    #[test]
    fn what_is_too_much_is_named() {
        let capacity = capacity(4, 0);
        assert_eq!(capacity.shortage(&wants(4, 0, &[])), None);
        assert_eq!(capacity.shortage(&wants(5, 0, &[])), Some(Shortage::Cpus { wanted: 5, there: 4 }));
        assert_eq!(capacity.shortage(&wants(1, 1, &[])), Some(Shortage::Gpus { wanted: 1, there: 0 }));
        let memory = Resources { memory_bytes: Some(101), ..Resources::default() };
        assert_eq!(capacity.shortage(&memory), Some(Shortage::Memory { wanted: 101, there: 100 }));
    }

    fn any_step() -> impl Strategy<Value = (Resources, BTreeSet<usize>)> {
        let locks = proptest::collection::btree_set("[ab]", 0..2);
        let needs = proptest::collection::btree_set(0..20_usize, 0..3);
        (1..6_u32, proptest::option::of(0..120_u64), 0..4_u32, locks, needs)
            .prop_map(|(cpus, memory_bytes, gpus, locks, needs)| (Resources { cpus, memory_bytes, gpus, locks }, needs))
    }

    proptest! {
        /// Steps start and end in any order that the schedule and their needs allow.
        #[test]
        fn every_step_runs_once_within_the_capacity_and_the_front_waits_only_for_what_ran_before(
            steps in proptest::collection::vec(any_step(), 1..20),
            cpus in 1..6_u32,
            gpus in 0..4_usize,
            picks in proptest::collection::vec(any::<prop::sample::Index>(), 40),
        ) {
            let capacity = capacity(cpus, gpus);
            let mut schedule = Schedule::new(&capacity);
            let (mut running, mut done) = (BTreeSet::<usize>::new(), BTreeSet::<usize>::new());
            let mut picks = picks.iter().cycle();
            // The step at the front, and what ran when it came there.
            let mut front: Option<(usize, BTreeSet<usize>)> = None;
            while done.len() < steps.len() {
                let ready: Vec<_> = (0..steps.len())
                    .filter(|step| !running.contains(step) && !done.contains(step))
                    .filter(|step| steps[*step].1.iter().all(|need| need >= step || done.contains(need)))
                    .map(|step| (step, &steps[step].0))
                    .collect();
                let decision = schedule.next(ready);
                if front.as_ref().map(|(step, _)| *step) != decision.waiting {
                    front = decision.waiting.map(|step| (step, running.clone()));
                }
                if let Some((step, before)) = &front {
                    prop_assert!(before.iter().any(|other| running.contains(other)), "{step} waits for late ones only");
                }
                if let Some(start) = decision.start {
                    let given = schedule.follow(decision, &steps[start].0);
                    prop_assert_eq!(given.len(), (steps[start].0.gpus as usize).min(gpus));
                    prop_assert!(running.insert(start) && !done.contains(&start), "{} runs twice", start);
                } else {
                    schedule.follow(decision, &steps[0].0);
                    prop_assert!(!running.is_empty(), "nothing runs and nothing starts");
                    let ends = *picks.next().unwrap().get(&running.iter().copied().collect::<Vec<_>>());
                    schedule.ended(ends);
                    running.remove(&ends);
                    done.insert(ends);
                }
                let of = |value: &dyn Fn(&Resources) -> u64| running.iter().map(|step| value(&steps[*step].0)).sum::<u64>();
                prop_assert!(of(&|wanted| u64::from(wanted.cpus.min(cpus))) <= u64::from(cpus));
                prop_assert!(of(&|wanted| wanted.memory_bytes.unwrap_or_default().min(100)) <= 100);
                let slots: Vec<_> = schedule.running.values().flat_map(|taken| taken.gpus.clone()).collect();
                prop_assert_eq!(slots.len(), slots.iter().collect::<BTreeSet<_>>().len(), "a GPU is given twice");
                let locks: Vec<_> = running.iter().flat_map(|step| &steps[*step].0.locks).collect();
                prop_assert_eq!(locks.len(), locks.iter().collect::<BTreeSet<_>>().len(), "a lock is held twice");
            }
        }
    }
}
