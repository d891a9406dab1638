//! `pv verify`: whether results repeat, and if not, why.

mod report;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::Global;
use super::answer::{count, seconds};
use super::fail::{CliError, DIFFERENCE, INTERRUPTED, STEP_FAILED};
use super::open;
use super::reach::{Reach, Reaching};
use super::run::target::Target;
use super::run::{Subject, capacity, provide};
use super::ui::{BAD, FAINT, GOOD, NAME, NOTE, Ui, paint};
use crate::exec::Stop;
use crate::host::{Stopwatch, Time};
use crate::object::SnapshotId;
use crate::pipeline::Level;
use crate::project::Project;
use crate::record::{Record, StepVerdict as Done, Verification as Recorded, VerifiedCause, VerifiedStep};
use crate::run::{Laboratory, Mode, Origin, Request, StepDone, Work, conclude, perform};
use crate::verify::{Budget, Cause, CauseNamed, Progress, RUNS_MAX, Rung, StepVerdict, Verification};

/// A search that may take longer is announced.
const LONG: Duration = Duration::from_secs(60);
/// How many executions a search takes mostly, for a step with one cause.
const RUNS_USUAL: u32 = 12;
/// So many places of an output are told to people.
const PLACES_MAX: usize = 5;

/// Execute steps again and see whether they give the same result, and if not, why
///
/// Each step is executed alone, from what is on record of the steps before it, and compared with what is on record. First as
/// ever; then with another date, another order of listings, other times of inputs, another number of processors
/// and another schedule: what may be another on the next day or machine. Nothing of it is recorded but the verdict, which
/// `pv log` and `pv show` tell.
///
/// `--why` searches for everything that a result depends on without its being declared, by experiments: everything is
/// pinned, then varied, and what makes the result another when it alone is varied is a cause. That takes 5 executions of a step
/// that depends on nothing, and some 12 for each cause.
///
/// Exit codes: 1 a result is another than the definition allows, 3 a step fails, 130 interrupted.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A revision (a version, a Git revision, or the first digits of a snapshot or run), then steps; each may be left out
    #[arg(value_name = "REVISION | STEP")]
    targets: Vec<String>,
    /// A step, also if a revision is called the same
    #[arg(long, value_name = "STEP")]
    step: Vec<String>,
    /// How often each step is executed
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1000), conflicts_with = "why")]
    runs: u32,
    /// Search for the cause of what differs
    #[arg(long)]
    why: bool,
    /// How long to search for each step: a number of executions such as `30`, or a time such as `90s`, `10m` or `2h`
    #[arg(long, value_name = "RUNS | TIME", requires = "why")]
    budget: Option<Allowed>,
    /// Write all that was found into one page, which any browser shows, without a network and without `pv`
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    #[command(flatten)]
    reaching: Reaching,
}

/// A budget, as it is written.
#[derive(Clone, Copy)]
struct Allowed(Budget);

impl std::str::FromStr for Allowed {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "a budget is a number of executions, or a time such as `90s`, `10m` or `2h`";
        let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
        let number: u32 = text[..end].parse().map_err(|_| wrong)?;
        let seconds = |factor: u64| Budget::Time(Duration::from_secs(u64::from(number) * factor));
        match &text[end..] {
            "" if number < 2 => Err("a search takes at least 2 executions"),
            "" => Ok(Self(Budget::Runs(number))),
            "s" => Ok(Self(seconds(1))),
            "m" => Ok(Self(seconds(60))),
            "h" => Ok(Self(seconds(3600))),
            _ => Err(wrong),
        }
    }
}

pub(super) fn run(ui: &mut Ui, global: &Global, args: &Args) -> Result<u8, CliError> {
    let page = args.report.as_deref().map(|given| report::place(global, given)).transpose()?;
    let project = open::project(ui, global)?;
    project.store.hold()?;
    project.machine.learn();
    let fetched = ui.progress_of("Fetching", "objects");
    let reach = Reach::new(&project, args.reaching.offline, &fetched)?;
    let done = run_with(ui, &project, &reach, args, page.as_deref());
    reach.tell(ui);
    done
}

fn run_with(
    ui: &mut Ui,
    project: &Project,
    reach: &Reach<'_>,
    args: &Args,
    page: Option<&Path>,
) -> Result<u8, CliError> {
    let store = reach.store();
    let target = Target::parse(project, &args.targets, &args.step)?;
    let subject = Subject::of(ui, project, reach, store, target.revision.as_deref())?;
    let pipeline = &subject.opened.pipeline;
    let mut steps = open::Steps::new(project, pipeline, &subject.opened.params, subject.version.as_deref())?;
    let chosen = target.named(pipeline, steps.graph())?;
    let selection = target.up_to(pipeline, steps.graph())?;
    let graph = steps.graph().clone();
    let view = crate::snapshot::View::new(store, &subject.opened.snapshot);
    let provided = provide::provide(ui, project, pipeline, &selection, &view, args.reaching.offline)?;
    let work = steps.work(&subject.opened.snapshot, store)?;
    let stop = provided.stop.map_or_else(provide::stop_on_signals, Ok)?;
    let performed = bring_up_to_date(ui, project, &subject, &work, &selection, &stop)?;
    if performed.interrupted {
        return Ok(INTERRUPTED);
    }
    if let Some(failed) = performed.steps.iter().find(|done| done.verdict == Done::Failed) {
        for line in failed.failure.iter().flat_map(|failure| &failure.tail) {
            ui.warn(format!("  {line}"));
        }
        let how = failed.failure.as_ref().map(|failure| failure.how.clone()).unwrap_or_default();
        return Err(CliError::usage(format!("step `{}` failed: {how}", failed.step)).exit(STEP_FAILED));
    }
    let (places, locks) = (project.places(), project.locks());
    let laboratory = Laboratory::new(&work, &performed.steps, &places, &locks, &stop);
    let budget = args.budget.map_or(Budget::Runs(RUNS_MAX), |allowed| allowed.0);
    let mut verdicts = Vec::new();
    for index in &chosen {
        let name = &pipeline.steps[*index].name;
        announce(ui, args, name, laboratory.elapsed_on_record(*index)?, budget);
        let running = std::cell::RefCell::new(ui.running());
        running.borrow_mut().begin(name);
        let progress = |progress: Progress<'_>| {
            running.borrow_mut().printed(progress.step, &told(progress));
        };
        let verification =
            Verification { work: &work, laboratory: &laboratory, done: &performed.steps, budget, progress: &progress };
        let verdict = if args.why { verification.explain(*index) } else { verification.repeat(*index, args.runs) };
        running.borrow_mut().end(name);
        let verdict = verdict?;
        let is_interrupted = verdict.interrupted;
        // Of what was interrupted before it ended once, nothing is known.
        verdicts.extend(Some(verdict).filter(|verdict| verdict.runs > 0));
        if is_interrupted || stop.is_requested() {
            break;
        }
    }
    laboratory.close()?;
    project.remember_machine();
    let answer = Answer::new(&subject, args.why, stop.is_requested(), verdicts);
    let recorded = answer.recorded(project);
    if !answer.steps.is_empty() {
        project.journal.add(&[Record::Verification(recorded.clone())])?;
        open::exchange(ui, project);
    }
    ui.show(&answer)?;
    if let Some(page) = page {
        let done = &performed.steps;
        let around = report::Around { project, subject: &subject, graph: &graph, done, recorded: &recorded, args };
        report::write(page, &answer, &around)?;
        ui.say(format!("Report {}", page.display()));
    }
    Ok(match () {
        () if stop.is_requested() => INTERRUPTED,
        () if answer.steps.iter().any(|step| !step.is_allowed) => DIFFERENCE,
        () => 0,
    })
}

/// Executes what has no result on record yet, so that there is something to verify.
fn bring_up_to_date(
    ui: &Ui,
    project: &Project,
    subject: &Subject,
    work: &Work<'_>,
    selection: &crate::run::Selection,
    stop: &Stop,
) -> Result<Standing, CliError> {
    let (started, watch) = (Time::now(), Stopwatch::start());
    let (places, locks, capacity) = (project.places(), project.locks(), capacity(None));
    let request = Request {
        mode: Mode::Reuse,
        selection,
        capacity: &capacity,
        keep_going: false,
        tree: None,
        places: &places,
        locks: &locks,
        by: open::by(&project.repository),
        stop,
    };
    let running = std::sync::Mutex::new(ui.running());
    let performed = perform(work, &request, &|event| {
        let mut running = running.lock().expect("no holder panics");
        match event {
            crate::run::Event::Started { step, reason } => {
                running.beside(|| ui.say(format!("step `{step}` is executed first: {reason}")));
                running.begin(step);
            }
            crate::run::Event::Line { step, line } => {
                running.printed(step, &String::from_utf8_lossy(line));
            }
            crate::run::Event::Finished(done) => running.end(&done.step),
            _ => {}
        }
    })?;
    let has_run = performed.steps.iter().any(|done| matches!(done.verdict, Done::Ran | Done::Failed));
    let interrupted = performed.interrupted;
    let origin = Origin {
        snapshot: subject.snapshot,
        version: subject.version.clone(),
        commit: subject.commit.clone(),
        dirty: subject.dirty,
        compare: false,
        started,
        elapsed: watch.elapsed(),
        by: request.by.clone(),
    };
    let steps = if has_run { conclude(work, origin, performed)?.steps } else { performed.steps };
    Ok(Standing { steps, interrupted })
}

/// What there is to verify.
struct Standing {
    steps: Vec<StepDone>,
    interrupted: bool,
}

/// Says beforehand what a long search will cost.
fn announce(ui: &Ui, args: &Args, step: &str, elapsed: Duration, budget: Budget) {
    if args.why && elapsed * RUNS_USUAL > LONG {
        let all = seconds(elapsed * RUNS_USUAL);
        let each = seconds(elapsed);
        ui.say(format!("step `{step}` took {each} on record: the search takes 5 executions of it if nothing is found, some {RUNS_USUAL} for a cause ({all}), and at most {budget}; `--budget` sets another limit"));
    }
}

/// Returns what is being tried, in a line.
fn told(progress: Progress<'_>) -> String {
    const TOLD_MAX: usize = 4;
    let names: Vec<String> = progress.varied.iter().take(TOLD_MAX).map(Cause::to_string).collect();
    let more = progress.varied.len().saturating_sub(TOLD_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    if names.is_empty() {
        format!("run {}: nothing is varied", progress.run)
    } else {
        format!("run {}: {}{more} varied", progress.run, names.join(", "))
    }
}

/// The answer of the command.
#[derive(Serialize)]
pub(super) struct Answer {
    snapshot: SnapshotId,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    level: Level,
    allowed: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    interrupted: bool,
    steps: Vec<StepVerdict>,
    engine: Engine,
    #[serde(skip)]
    explained: bool,
}

#[derive(Serialize)]
struct Engine {
    rung: Rung,
    varied: Vec<Cause>,
}

impl Answer {
    fn new(subject: &Subject, explained: bool, interrupted: bool, steps: Vec<StepVerdict>) -> Self {
        let mut varied: Vec<Cause> = steps.iter().flat_map(|step| step.varied.clone()).collect();
        varied.sort();
        varied.dedup();
        Self {
            snapshot: subject.snapshot,
            version: subject.version.clone(),
            level: steps.iter().map(|step| step.level).max().unwrap_or_default(),
            allowed: steps.iter().all(|step| step.is_allowed),
            interrupted,
            engine: Engine { rung: steps.iter().map(|step| step.rung).max().unwrap_or(Rung::Full), varied },
            steps,
            explained,
        }
    }

    /// Says what came of it, in a few words.
    fn verdict(&self) -> String {
        match (self.interrupted, self.allowed) {
            (true, _) => "interrupted".to_owned(),
            (false, false) if self.explained => self.depends(),
            (false, false) => "does not repeat".to_owned(),
            (false, true) if self.level == Level::Identical => "repeats, bit for bit".to_owned(),
            (false, true) => "repeats".to_owned(),
        }
    }

    /// Says on what results depend that is not declared.
    fn depends(&self) -> String {
        let mut names: Vec<String> = Vec::new();
        for named in self.steps.iter().flat_map(|step| &step.causes).filter(|named| named.cause != Cause::Undetermined)
        {
            if !names.contains(&named.cause.to_string()) {
                names.push(named.cause.to_string());
            }
        }
        if names.is_empty() { "does not repeat".to_owned() } else { format!("depends on {}", names.join(", ")) }
    }

    /// Returns the record of it.
    fn recorded(&self, project: &Project) -> Recorded {
        let cause = |named: &CauseNamed| VerifiedCause { cause: named.cause.to_string(), confirmed: named.confirmed };
        let step = |step: &StepVerdict| VerifiedStep {
            step: step.step.clone(),
            level: step.level,
            allowed: step.is_allowed,
            runs: step.runs,
            causes: step.causes.iter().map(cause).collect(),
        };
        Recorded {
            snapshot: self.snapshot,
            pipeline: project.pipeline.clone(),
            time: Time::now(),
            by: open::by(&project.repository),
            explained: self.explained,
            interrupted: self.interrupted,
            rung: self.engine.rung.word().to_owned(),
            varied: self.engine.varied.iter().map(Cause::to_string).collect(),
            steps: self.steps.iter().map(step).collect(),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            write_step(f, step)?;
        }
        let what = self.version.clone().unwrap_or_else(|| self.snapshot.short());
        let runs = count(self.steps.iter().map(|step| u64::from(step.runs)).sum(), "run");
        let style = if self.allowed && !self.interrupted { GOOD } else { BAD };
        let verdict = paint(style, self.verdict());
        write!(f, "{} {verdict}, {runs}", paint(NAME, what))?;
        if self.engine.rung != Rung::Full {
            let less = match self.engine.rung {
                Rung::Untimed => "clocks could not be pinned",
                _ => "only variables, directories and files could be varied",
            };
            write!(f, "; {}", paint(NOTE, less))?;
        }
        if !self.engine.varied.is_empty() {
            let names: Vec<String> = self
                .engine
                .varied
                .iter()
                .filter(|cause| !matches!(cause, Cause::Env(_) | Cause::UndeclaredFile(_)))
                .map(Cause::to_string)
                .collect();
            let others = self.engine.varied.len() - names.len();
            let others = if others > 0 { format!(" and {others} variables and files") } else { String::new() };
            write!(f, "\n{}", paint(FAINT, format!("varied: {}{others}", names.join(", "))))?;
        }
        if !self.allowed && !self.explained && !self.interrupted {
            write!(f, "\n`pv verify --why` searches for the cause")?;
        }
        writeln!(f)
    }
}

fn write_step(f: &mut fmt::Formatter<'_>, step: &StepVerdict) -> fmt::Result {
    let style = if step.is_allowed { GOOD } else { BAD };
    let level = paint(style, format!("{:9}", step.level));
    writeln!(
        f,
        "{level}  {}  {}, {}",
        paint(NAME, &step.step),
        count(u64::from(step.runs), "run"),
        seconds(step.elapsed)
    )?;
    for note in &step.notes {
        writeln!(f, "           {}", paint(NOTE, note))?;
    }
    // A cause tells where it bites.
    let is_told = step.causes.iter().any(|named| !named.places.is_empty());
    let untold = step.outputs.iter().filter(|output| !is_told && output.comparison.level != Level::Identical);
    for output in untold {
        let text = output.comparison.to_string();
        let lines: Vec<&str> = text.lines().collect();
        for line in lines.iter().take(PLACES_MAX) {
            writeln!(f, "           {line}")?;
        }
        if lines.len() > PLACES_MAX {
            writeln!(f, "           {}", paint(FAINT, format!("and {} more places", lines.len() - PLACES_MAX)))?;
        }
    }
    for named in &step.causes {
        let word = if named.confirmed { "cause" } else { "maybe" };
        writeln!(f, "    {}  {}: {}", paint(NOTE, word), paint(NAME, &named.cause), named.evidence)?;
        for place in &named.places {
            writeln!(f, "    where  {place}")?;
        }
        writeln!(f, "    mend   {}", named.fix)?;
    }
    Ok(())
}
