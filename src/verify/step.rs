//! Verifying one step: executing it again, and again under other conditions, and telling what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use super::candidates;
use super::cause::Cause;
use super::dimension::{self, Base, CUT_OFF, Dimension, other_content};
use super::search::{self, Experiments, Found, Mode, Outcome, Undetermined};
use super::verdict::{CauseNamed, OutputVerdict, Rung, StepVerdict};
use super::{Budget, Progress, VerifyError};
use crate::compare::{self, Comparison, Level};
use crate::exec::{Network, Pins, Recorder, Schedule};
use crate::hash::Digest;
use crate::host::{self, Stopwatch};
use crate::object::{Entry, Kind};
use crate::path::ProjectPath;
use crate::pipeline::{Determinism, Home, Step};
use crate::record::Output;
use crate::run::{Conditions, Laboratory, RunError, Trial, Work};
use crate::snapshot::View;

/// A step may take at least so long in an experiment, whatever it took on record.
const TIME_LIMIT_MIN: Duration = Duration::from_secs(60);
/// And so many times as long as on record.
const TIME_LIMIT_FACTOR: u32 = 10;
/// A file larger than this is no settings and no code, in bytes.
const SMALL_FILE_BYTES: u64 = 1 << 20;
/// What the clock says at first in experiments, in seconds since 1970: some Sunday in 2030. What a step makes is of that time, and
/// has to be newer than what it makes it of.
const CLOCK: i64 = 1_900_000_000;
/// So many results are compared with the pinned one.
const COMPARED_MAX: usize = 8;
/// So many places are told with a cause.
const PLACES_MAX: usize = 3;
/// Locales that sort, spell or count in another way than the pinned one, as their directories are called.
const LOCALES: [&str; 6] = ["tr_TR.utf8", "de_DE.utf8", "sv_SE.utf8", "fr_FR.utf8", "en_US.utf8", "et_EE.utf8"];

/// One step and where it is executed.
pub(super) struct Subject<'a, 'w> {
    pub(super) work: &'a Work<'w>,
    pub(super) laboratory: &'a Laboratory<'a>,
    pub(super) index: usize,
    /// What is on record of it.
    pub(super) recorded: &'a [Output],
    /// How long it took on record.
    pub(super) elapsed: Duration,
    pub(super) budget: Budget,
    pub(super) progress: &'a dyn Fn(Progress<'_>),
}

/// Everything that was executed of a step.
struct Bench<'a, 'w, 's> {
    subject: &'s Subject<'a, 'w>,
    base: Base,
    rung: Rung,
    /// How often it was executed.
    runs: u32,
    clock: Stopwatch,
    /// By result, the first trial that had it.
    trials: BTreeMap<Digest, Trial>,
    /// The results in the order in which they came.
    order: Vec<Digest>,
    /// Whatever was varied in an experiment that came to its end.
    varied: BTreeSet<Cause>,
    /// The first trial, which the search asks for once more.
    first: Option<Outcome>,
    concurrent: bool,
    /// Whom it asks for real in every execution, for what they answer cannot be given again; known after the second one.
    always_anew: Option<BTreeSet<String>>,
    /// In how many executions it asked others anew besides, because it said something else to them.
    anew: u32,
    /// Results that came only of asking others anew.
    only_anew: BTreeSet<Digest>,
    /// How it failed when others were asked again, and when nobody was.
    without_record: [Option<String>; 2],
    /// Whether it asked the processor for what was given in its place the last time.
    asks_processor: bool,
    interrupted: bool,
}

impl Experiments for Bench<'_, '_, '_> {
    type Error = VerifyError;

    fn run(&mut self, varied: &[Dimension], number: u8, mode: Mode) -> Result<Option<Outcome>, VerifyError> {
        if varied.is_empty()
            && mode == Mode::default()
            && let Some(first) = self.first.take()
        {
            return Ok(Some(first));
        }
        if self.subject.budget.is_used_up(self.runs, self.clock.elapsed()) {
            return Ok(None);
        }
        let mut conditions = self.conditions();
        varied.iter().for_each(|dimension| dimension.apply(&self.base, number, &mut conditions));
        if let Some(pins) = &mut conditions.pins {
            pins.processor_entropy = mode.seeded.then_some(self.base.entropy);
            pins.cycles = mode.counted;
            if mode.serial {
                pins.schedule = Schedule::Serial;
            }
        }
        if mode.frozen {
            dimension::freeze(&mut conditions);
        }
        let members: Vec<Dimension> = varied.iter().flat_map(Dimension::members).collect();
        self.try_with(&conditions, members)
    }

    fn is_concurrent(&self) -> bool {
        self.concurrent
    }

    fn asks_processor(&self) -> bool {
        self.asks_processor
    }
}

impl Bench<'_, '_, '_> {
    fn step(&self) -> &Step {
        &self.subject.work.pipeline.steps[self.subject.index]
    }

    /// Returns the conditions with everything pinned that can be.
    fn conditions(&self) -> Conditions {
        let mut conditions = self.base.conditions();
        match self.rung {
            Rung::Full => {}
            Rung::Untimed => {
                if let Some(pins) = &mut conditions.pins {
                    (pins.clock, pins.timer) = (None, None);
                }
            }
            Rung::Variables => conditions.pins = None,
        }
        conditions
    }

    fn try_with(&mut self, conditions: &Conditions, varied: Vec<Dimension>) -> Result<Option<Outcome>, VerifyError> {
        let limit = TIME_LIMIT_MIN.max(self.subject.elapsed * TIME_LIMIT_FACTOR);
        let declared = self.step().timeout_s.map(Duration::from_secs).unwrap_or_default();
        let conditions = Conditions { time_limit: Some(limit.max(declared)), ..conditions.clone() };
        let causes: Vec<Cause> = varied.iter().filter_map(Dimension::cause).collect();
        self.runs += 1;
        (self.subject.progress)(Progress { step: &self.step().name, run: self.runs, varied: &causes });
        let trial = match self.subject.laboratory.run(self.subject.index, &conditions) {
            Err(error @ RunError::NotPinned { .. }) => {
                // It was not begun.
                self.runs -= 1;
                return Err(error.into());
            }
            trial => trial?,
        };
        if trial.interrupted {
            self.runs -= 1;
            self.interrupted = true;
            return Ok(None);
        }
        self.varied.extend(causes);
        self.asks_processor = trial.observation.processor_draws > 0 || trial.observation.counts_cycles;
        self.concurrent |= trial.observation.started.is_none_or(|started| started > 0);
        let anew = self.asks_anew(&trial);
        let outcome = Outcome { result: result_of(&trial), failed: trial.failure.is_some(), anew };
        if let (Some(how), [Dimension::Network]) = (&trial.failure, varied.as_slice()) {
            // Not what is to be explained: nobody said that it can do without others.
            self.without_record[usize::from(conditions.offline)] = Some(how.clone());
            return Ok(Some(outcome));
        }
        if !anew {
            self.only_anew.remove(&outcome.result);
        } else if !self.trials.contains_key(&outcome.result) {
            self.only_anew.insert(outcome.result);
        }
        self.order.push(outcome.result);
        self.trials.entry(outcome.result).or_insert(trial);
        Ok(Some(outcome))
    }

    /// Returns whether a trial asked others anew whom it need not have asked.
    fn asks_anew(&mut self, trial: &Trial) -> bool {
        let anew = &trial.observation.anew;
        if !matches!(self.base.network, Network::Given(_)) {
            return false;
        }
        let Some(always) = &self.always_anew else {
            self.always_anew = Some(anew.clone());
            return !anew.is_empty();
        };
        let is_anew = !anew.is_subset(always);
        self.anew += u32::from(is_anew);
        is_anew
    }

    /// Gives what others answered in the first trial to all further ones, if all of it is known. Else returns why not.
    fn give_again(&mut self, recorder: &Recorder) -> Option<&'static str> {
        let Some(record) = recorder.record() else {
            return Some("it heard more from others than is kept, so they were asked again in every execution");
        };
        let talked = self.trials.values().any(|trial| !trial.observation.peers.is_empty());
        if !record.is_empty() {
            self.base.network = Network::Given(record);
        } else if talked {
            return Some("what others answered could not be kept, so they were asked again in every execution");
        }
        None
    }

    fn trial(&self, result: Digest) -> &Trial {
        &self.trials[&result]
    }
}

/// Returns what tells a result from others: every byte of the outputs, or how the step failed.
fn result_of(trial: &Trial) -> Digest {
    let text = match &trial.failure {
        Some(how) => format!("failed: {how}"),
        None => {
            let mut outputs: Vec<String> =
                trial.outputs.iter().map(|output| format!("{} {:?}", output.path, output.entry())).collect();
            outputs.sort();
            outputs.join("\n")
        }
    };
    Digest::of(text.as_bytes())
}

impl<'a, 'w> Subject<'a, 'w> {
    fn bench(&self) -> Bench<'a, 'w, '_> {
        let base = Base {
            clock: CLOCK,
            processors: u32::try_from(host::processors()).unwrap_or(1).max(2),
            locales: locales(),
            entropy: 1,
            network: Network::Real,
        };
        Bench {
            subject: self,
            base,
            rung: Rung::Full,
            runs: 0,
            clock: Stopwatch::start(),
            trials: BTreeMap::new(),
            order: Vec::new(),
            varied: BTreeSet::new(),
            first: None,
            concurrent: false,
            always_anew: None,
            anew: 0,
            only_anew: BTreeSet::new(),
            without_record: [None, None],
            asks_processor: false,
            interrupted: false,
        }
    }

    fn step(&self) -> &'w Step {
        &self.work.pipeline.steps[self.index]
    }

    /// Executes the step `runs` times: first as ever, then with everything varied that an ordinary execution does not fix.
    ///
    /// # Errors
    ///
    /// [`VerifyError`] if it cannot be executed.
    pub(super) fn repeat(&self, runs: u32) -> Result<StepVerdict, VerifyError> {
        let mut bench = self.bench();
        let own = self.own_pins()?;
        let plain = Conditions { pins: own.clone(), ..Conditions::default() };
        for run in 0..runs {
            let number = u8::try_from((run + 2) % 3).unwrap_or_default();
            let outcome = if run == 0 {
                bench.try_with(&plain, Vec::new())?
            } else {
                let varied = self.unfixed(&bench);
                let mut conditions = plain.clone();
                conditions.pins.get_or_insert_with(Pins::default);
                varied.iter().for_each(|dimension| dimension.apply(&bench.base, number, &mut conditions));
                match bench.try_with(&conditions, varied) {
                    Err(VerifyError::Run(RunError::NotPinned { .. })) => {
                        bench.rung = Rung::Variables;
                        bench.try_with(&plain, Vec::new())?
                    }
                    outcome => outcome?,
                }
            };
            if outcome.is_none() {
                break;
            }
        }
        let outputs = self.outputs(&bench, None)?;
        Ok(self.verdict(bench, outputs, Vec::new(), Vec::new()))
    }

    /// Returns what an ordinary execution pins.
    fn own_pins(&self) -> Result<Option<Pins>, VerifyError> {
        let is_pinned = self.step().determinism == Determinism::Pinned;
        let seed = self.laboratory.seed(self.index)?.filter(|_| is_pinned);
        Ok(seed.map(|seed| Pins { entropy: Some(seed), ..Pins::default() }))
    }

    /// Returns what may be another in the next ordinary execution, on another day or machine.
    fn unfixed(&self, bench: &Bench<'_, '_, '_>) -> Vec<Dimension> {
        let mut unfixed = vec![Dimension::Clock, Dimension::Listing, Dimension::Processors, Dimension::Schedule];
        let first = bench.order.first().map(|result| bench.trial(*result));
        if first.is_some_and(|trial| !trial.observation.peers.is_empty()) {
            // Who answers over the network checks what time it is.
            unfixed.retain(|dimension| *dimension != Dimension::Clock);
        }
        if let Some(paths) =
            first.map(|trial| trial.read.iter().cloned().collect::<Vec<_>>()).filter(|paths| !paths.is_empty())
        {
            unfixed.push(Dimension::Times(paths));
        }
        unfixed
    }

    /// Searches for what the result depends on besides what is declared.
    ///
    /// # Errors
    ///
    /// [`VerifyError`] if it cannot be executed.
    pub(super) fn explain(&self) -> Result<StepVerdict, VerifyError> {
        let mut bench = self.bench();
        let mut notes = Vec::new();
        let Some(first) = self.first(&mut bench, &mut notes)? else {
            return Ok(self.verdict(bench, Vec::new(), Vec::new(), Vec::new()));
        };
        if first.failed {
            let trial = bench.trial(first.result);
            let how = trial.failure.clone().unwrap_or_default();
            notes.push(format!("it cannot be executed any more: {how}"));
            notes.extend(trial.tail.last().cloned());
            let causes = vec![CauseNamed::undetermined("the step fails, also with nothing varied")];
            let outputs = self.outputs(&bench, Some(first.result))?;
            return Ok(self.verdict(bench, outputs, causes, notes));
        }
        let dimensions = self.dimensions(&bench, first.result)?;
        bench.first = Some(first);
        let found = search::search(&mut bench, &dimensions)?;
        if found.answers_differ {
            let only_anew = std::mem::take(&mut bench.only_anew);
            bench.trials.retain(|result, _| !only_anew.contains(result));
        }
        let mut causes = self.causes(&bench, first.result, &found)?;
        if found.exhausted && !bench.interrupted {
            notes.push(format!("the budget of {} was used up before everything was tried", self.budget));
        }
        notes.extend(Self::told_of_others(&bench, &found));
        let is_as_recorded = bench.trial(first.result).outputs == self.recorded;
        let is_odd = causes.is_empty() && !is_as_recorded && !found.exhausted && !bench.interrupted;
        let outputs = self.outputs(&bench, Some(first.result).filter(|_| !is_odd))?;
        if is_odd {
            causes.push(CauseNamed::undetermined(
                "it repeats here whatever is varied, yet what is on record is another: made by another machine, other programs or a chance that did not come again",
            ));
        }
        Ok(self.verdict(bench, outputs, causes, notes))
    }

    /// Returns what is to be known of how others were asked.
    fn told_of_others(bench: &Bench<'_, '_, '_>, found: &Found) -> Vec<String> {
        let mut notes = Vec::new();
        let always: Vec<&str> = bench.always_anew.iter().flatten().map(String::as_str).collect();
        if !always.is_empty() {
            let all = always.join(", ");
            notes.push(format!("what {all} answers could not be given again, and was asked for in every execution"));
        }
        if bench.anew > 0 {
            let executions = if bench.anew == 1 { "1 execution".into() } else { format!("{} executions", bench.anew) };
            notes.push(format!(
                "in {executions} it said something else to others than at first, and they were asked again"
            ));
        }
        let untold: Vec<String> =
            found.untold.iter().filter_map(Dimension::cause).map(|cause| cause.to_string()).collect();
        if !untold.is_empty() {
            let all = untold.join(", ");
            notes.push(format!("what it says to others follows from {all}, and they answer otherwise when they are asked again, or not at all: nothing can be said of it"));
        }
        notes
    }

    /// Executes the step with everything pinned, and with less where it cannot bear that. What others answer is kept and
    /// given to all further executions.
    fn first(&self, bench: &mut Bench<'a, 'w, '_>, notes: &mut Vec<String>) -> Result<Option<Outcome>, VerifyError> {
        for rung in [Rung::Full, Rung::Untimed, Rung::Variables] {
            bench.rung = rung;
            let mut conditions = Conditions { leaves_state: true, ..bench.conditions() };
            let recorder = Recorder::new();
            if let Some(pins) = &mut conditions.pins {
                pins.network = Network::Kept(recorder.clone());
            }
            match bench.try_with(&conditions, Vec::new()) {
                Err(VerifyError::Run(RunError::NotPinned { .. })) => {}
                Ok(Some(outcome)) if outcome.failed && rung != Rung::Variables => {
                    bench.order.pop();
                    bench.trials.remove(&outcome.result);
                }
                outcome => {
                    if outcome.is_ok() {
                        notes.extend(bench.give_again(&recorder).map(str::to_owned));
                    }
                    return outcome;
                }
            }
        }
        Ok(None)
    }

    /// Returns everything that may count for the step, what counts most often first.
    fn dimensions(&self, bench: &Bench<'_, '_, '_>, first: Digest) -> Result<Vec<Dimension>, VerifyError> {
        let step = self.step();
        let trial = bench.trial(first);
        let declared = self.laboratory.declared_variables(self.index)?;
        let is_declared = |name: &str| declared.contains(name);
        let has_seed = self.laboratory.seed(self.index)?.is_some();
        let talks = !trial.observation.peers.is_empty();
        let (is_pinned, is_timed) = (bench.rung != Rung::Variables, bench.rung == Rung::Full);
        let is_isolated = trial.observation.isolated;
        let inputs: Vec<ProjectPath> = trial.read.iter().cloned().collect();
        let all = [
            (Dimension::Layout, is_pinned),
            (Dimension::HashSeed, !has_seed && !is_declared("PYTHONHASHSEED")),
            (Dimension::Entropy, is_pinned && step.determinism != Determinism::Pinned),
            (Dimension::Clock, is_timed && !talks),
            (Dimension::Timer, is_timed),
            (Dimension::Listing, is_pinned),
            (Dimension::Schedule, is_pinned),
            (Dimension::Processors, is_pinned),
            (Dimension::Threads, !is_declared("OMP_NUM_THREADS")),
            (Dimension::Times(inputs.clone()), !inputs.is_empty()),
            (Dimension::State, is_isolated),
            (Dimension::Network, talks && is_isolated),
            (Dimension::Zone, !is_declared("TZ")),
            (Dimension::Locale, !is_declared("LC_ALL") && !is_declared("LANG")),
            (Dimension::Hostname, is_pinned),
            (Dimension::Pid, is_pinned),
            (Dimension::User, !is_declared("USER")),
            (Dimension::Workplace, is_isolated),
            (Dimension::Home, step.home == Home::Own && !is_declared("HOME")),
            (Dimension::Temporary, !is_declared("TMPDIR")),
            (Dimension::Umask, is_pinned),
        ];
        let mut dimensions: Vec<Dimension> =
            all.into_iter().filter(|(_, counts)| *counts).map(|(one, _)| one).collect();
        let code = self.code(trial)?;
        let ambient = host::variables().into_iter().filter_map(|(name, value)| Some((name, value.into_string().ok()?)));
        let variables = candidates::variables(step, code.iter().map(String::as_str), &ambient.collect(), &declared);
        let variables: Vec<_> = variables.into_iter().map(|(name, own)| Dimension::Variable(name, own)).collect();
        let mut files = Vec::new();
        // A snapshot has code without anybody declaring it; but who declares some of it is taken to declare all.
        let declares_code = trial.read.iter().any(|path| candidates::is_code(path) && self.is_declared(path));
        for undeclared in &trial.audited.undeclared {
            if undeclared.path.starts_with('/') {
                files.push(Dimension::Outside(PathBuf::from(&undeclared.path)));
            } else if let Ok(path) = ProjectPath::new(crate::path::unescape(&undeclared.path))
                && (declares_code || !candidates::is_code(&path))
                && let Some(content) = self.content(&path)?
            {
                files.push(Dimension::File(path, content));
            }
        }
        let words = self.words(trial)?;
        for path in candidates::missing(&trial.missed, &trial.read, step) {
            // A number is a setting in many formats, a list names what is in the data, and what is to override another file
            // looks like that.
            let like = match candidates::alike(&path, trial.read.iter()) {
                Some(other) => self.content(other)?.map(|content| other_content(&content, 0)),
                None => None,
            };
            let contents = [like.unwrap_or_else(|| b"7\n".to_vec()), words.clone(), b"{}\n".to_vec()];
            files.push(Dimension::Missing(path, contents));
        }
        dimensions.extend([variables, files].into_iter().filter(|group| !group.is_empty()).map(Dimension::Group));
        Ok(dimensions)
    }

    fn is_declared(&self, path: &ProjectPath) -> bool {
        self.step().inputs.iter().flatten().any(|input| path.is_within(input))
    }

    /// Returns the texts of the code and of the settings that a step read.
    fn code(&self, trial: &Trial) -> Result<Vec<String>, VerifyError> {
        let mut texts = Vec::new();
        let may_name =
            |path: &ProjectPath| candidates::is_code(path) || candidates::is_settings(path) || !self.is_declared(path);
        for path in trial.read.iter().filter(|path| may_name(path)) {
            if let Some(text) = self.content(path)?.and_then(|content| String::from_utf8(content).ok()) {
                texts.push(text);
            }
        }
        Ok(texts)
    }

    /// Returns the words of the data that a step read, a line each.
    fn words(&self, trial: &Trial) -> Result<Vec<u8>, VerifyError> {
        let mut texts = Vec::new();
        for path in trial.read.iter().filter(|path| !candidates::is_code(path)) {
            texts.extend(self.content(path)?.and_then(|content| String::from_utf8(content).ok()));
        }
        Ok(candidates::words(texts.iter().map(String::as_str)).into_bytes())
    }

    /// Returns what is in a file of the snapshot, if it is one and not a large one.
    fn content(&self, path: &ProjectPath) -> Result<Option<Vec<u8>>, VerifyError> {
        let view: &View<'_> = &self.work.view;
        match view.entry(path).map_err(RunError::from)? {
            Some(Entry::File { size, id, .. }) if size <= SMALL_FILE_BYTES => {
                Ok(Some(view.store().get(Kind::Blob, id.digest()).map_err(RunError::from)?.clone()))
            }
            _ => Ok(None),
        }
    }

    fn causes(&self, bench: &Bench<'_, '_, '_>, pinned: Digest, found: &Found) -> Result<Vec<CauseNamed>, VerifyError> {
        let mut causes = Vec::new();
        let is_random = found.named.iter().any(|named| named.dimension == Dimension::Entropy);
        for named in &found.named {
            let Some(cause) = named.dimension.cause() else { continue };
            // Generators of random numbers stir in where they lie.
            if is_random && matches!(named.dimension, Dimension::Layout | Dimension::Padding) {
                continue;
            }
            let evidence = match (named.free, named.outcome.failed) {
                (Some((runs, results)), _) => {
                    let how = match named.dimension {
                        Dimension::Hardware => "where random bits of the processor come from a seed it repeats",
                        Dimension::Cycles => "where the processor's count of cycles goes by the clock it repeats",
                        Dimension::Timer => "where clocks hardly move it repeats, however its threads are delayed",
                        _ => "with one thread at a time it repeats",
                    };
                    format!("with everything pinned, {runs} executions gave {results} results; {how}")
                }
                (None, true) => {
                    let how = bench.trial(named.outcome.result).failure.clone().unwrap_or_default();
                    format!("it alone was varied, everything else pinned, and the step failed both times: {how}")
                }
                (None, false) if named.dimension == Dimension::Network && named.number == CUT_OFF => {
                    "without the network, everything else pinned, the result was another both times, and with it the same as ever".to_owned()
                }
                (None, false) if named.dimension == Dimension::Network => {
                    let peers: Vec<&str> =
                        bench.trial(pinned).observation.peers.keys().map(String::as_str).collect();
                    format!(
                        "{} answered again, everything else pinned, and the result was another both times; given what was answered at first it was the same as ever",
                        peers.join(", ")
                    )
                }
                (None, false) if named.dimension == Dimension::Schedule => {
                    "it alone was varied, everything else pinned, and the result was another".to_owned()
                }
                (None, false) => "it alone was varied, everything else pinned, and the result was another both times, and with nothing varied the same as ever".to_owned(),
            };
            let mut places = Vec::new();
            if !named.outcome.failed && named.outcome.result != pinned {
                let comparisons =
                    self.compare(&bench.trial(pinned).outputs, &bench.trial(named.outcome.result).outputs)?;
                places = comparisons
                    .iter()
                    .filter(|one| one.level != Level::Identical)
                    .flat_map(places_of)
                    .take(PLACES_MAX)
                    .collect();
            }
            causes.push(CauseNamed { fix: cause.fix(), cause, confirmed: true, evidence, places });
        }
        if !found.together.is_empty() {
            let names: Vec<String> =
                found.together.iter().filter_map(Dimension::cause).map(|cause| cause.to_string()).collect();
            for cause in found.together.iter().filter_map(Dimension::cause) {
                let evidence = format!(
                    "the result is another when these are varied together, and not when each is alone: {}",
                    names.join(", ")
                );
                causes.push(CauseNamed { fix: cause.fix(), cause, confirmed: false, evidence, places: Vec::new() });
            }
        }
        self.add_network(bench, pinned, found, &mut causes);
        if let Some(why) = found.undetermined {
            causes.push(CauseNamed::undetermined(match why {
                Undetermined::Pinned => "executions with everything pinned differ, though it has a single thread: something that cannot be pinned",
                Undetermined::Concurrent => "executions with everything pinned differ, also with one thread at a time",
                Undetermined::Network => "executions with everything pinned differ, and what others answer cannot be given again, for what it says to them is another each time",
                Undetermined::Fleeting => "it differed once and did not again when single things were varied",
            }));
        }
        Ok(causes)
    }

    /// Adds that a step talks to others without its author's vouching for that, if so: what they say is nobody's here to vary.
    fn add_network(&self, bench: &Bench<'_, '_, '_>, pinned: Digest, found: &Found, causes: &mut Vec<CauseNamed>) {
        let peers = &bench.trial(pinned).audited.network;
        if peers.is_empty() || causes.iter().any(|named| named.cause == Cause::Network) {
            return;
        }
        let mut evidence = format!("it talked to {}", peers.join(", "));
        if found.asked {
            let came = |failure: &Option<String>| match failure {
                Some(how) => format!("it failed: {how}"),
                None => "the result was the same here".to_owned(),
            };
            let [again, cut_off] = &bench.without_record;
            let (again, cut_off) = (came(again), came(cut_off));
            evidence += &format!("; when they were asked again {again}; without the network {cut_off}");
        }
        let cause = Cause::Network;
        causes.push(CauseNamed { fix: cause.fix(), cause, confirmed: false, evidence, places: peers.clone() });
    }

    /// Returns how the outputs differ, the worst of all executions: from the result with everything pinned, or else from the record.
    fn outputs(&self, bench: &Bench<'_, '_, '_>, pinned: Option<Digest>) -> Result<Vec<OutputVerdict>, VerifyError> {
        let base: &[Output] = match pinned {
            Some(result) => &bench.trial(result).outputs,
            None => self.recorded,
        };
        let mut worst: BTreeMap<String, Comparison> = BTreeMap::new();
        for trial in bench.trials.values().filter(|trial| trial.failure.is_none()).take(COMPARED_MAX) {
            for comparison in self.compare(base, &trial.outputs)? {
                let known = worst.get(&comparison.path);
                if known.is_none_or(|known| known.level < comparison.level) {
                    worst.insert(comparison.path.clone(), comparison);
                }
            }
        }
        // Whatever is in a directory tells of it.
        let paths: Vec<String> = worst.keys().cloned().collect();
        let is_above = |path: &String| {
            paths.iter().any(|other| other.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with('/')))
        };
        worst.retain(|path, comparison| comparison.level != Level::Identical || !is_above(path));
        Ok(worst.into_values().map(|comparison| self.judged(comparison)).collect())
    }

    fn judged(&self, comparison: Comparison) -> OutputVerdict {
        let step = self.step();
        let tolerance = step.written().find(|path| {
            comparison.path == path.display()
                || comparison.path.strip_prefix(path.display().as_ref()).is_some_and(|rest| rest.starts_with('/'))
        });
        let tolerance = tolerance.and_then(|path| step.compare.get(path)).copied().unwrap_or_default();
        OutputVerdict { is_allowed: tolerance.allows(comparison.level), comparison }
    }

    fn compare(&self, old: &[Output], new: &[Output]) -> Result<Vec<Comparison>, VerifyError> {
        let paths: BTreeSet<&ProjectPath> = old.iter().chain(new).map(|output| &output.path).collect();
        let entry = |outputs: &[Output], path: &ProjectPath| {
            outputs.iter().find(|output| output.path == *path).map(Output::entry)
        };
        let mut all = Vec::new();
        for path in paths {
            let tolerance = self.step().compare.get(path).copied().unwrap_or_default();
            let (old, new) = (entry(old, path), entry(new, path));
            all.extend(compare::compare_outputs(self.work.store, path, old.as_ref(), new.as_ref(), &tolerance)?);
        }
        Ok(all)
    }

    fn verdict(
        &self,
        bench: Bench<'_, '_, '_>,
        outputs: Vec<OutputVerdict>,
        causes: Vec<CauseNamed>,
        mut notes: Vec<String>,
    ) -> StepVerdict {
        let failures: Vec<&Trial> = bench.trials.values().filter(|trial| trial.failure.is_some()).collect();
        let failed = failures.len();
        if failed > 0 && causes.is_empty() {
            let how = failures[0].failure.clone().unwrap_or_default();
            notes.push(format!("it failed in an execution: {how}"));
        }
        let worst = outputs.iter().map(|output| output.comparison.level).max().unwrap_or_default();
        let is_allowed = failed == 0 && outputs.iter().all(|output| output.is_allowed);
        StepVerdict {
            step: self.step().name.clone(),
            level: if failed > 0 { Level::Different } else { worst },
            is_allowed,
            runs: bench.runs,
            elapsed: bench.clock.elapsed(),
            outputs,
            causes,
            notes,
            rung: bench.rung,
            varied: bench.varied.into_iter().collect(),
            interrupted: bench.interrupted,
        }
    }
}

/// Returns the places in which two things differ, a line each.
fn places_of(comparison: &Comparison) -> Vec<String> {
    comparison.to_string().lines().map(str::to_owned).collect()
}

/// Returns locales that this machine has, other than the one that steps get, and `C` if there are few.
fn locales() -> Vec<String> {
    let archive = std::fs::read("/usr/lib/locale/locale-archive").unwrap_or_default();
    let is_in_archive = |name: &str| {
        let name = name.as_bytes();
        archive.len() < (512 << 20) && archive.windows(name.len()).any(|window| window == name)
    };
    let is_here = |name: &&&str| std::path::Path::new("/usr/lib/locale").join(name).is_dir() || is_in_archive(name);
    LOCALES.iter().filter(is_here).take(2).map(|name| (*name).to_owned()).chain(["C".to_owned()]).collect()
}
