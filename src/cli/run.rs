//! `pv run`: bring results up to date, or execute a snapshot again.

mod differs;
pub(super) mod provide;
pub(super) mod target;
mod tell;

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use super::Global;
use super::answer::{count, seconds};
use super::fail::{CliError, DIFFERENCE, INTERRUPTED, STEP_FAILED};
use super::open;
use super::reach::{Reach, Reaching};
use super::ui::{BAD, GOOD, NAME, NOTE, Ui, paint};
use crate::compare::Comparison;
use crate::diff::FactChange;
use crate::exec::Stop;
use crate::hash::Digest;
use crate::host::{self, Stopwatch, Time};
use crate::object::{RecordId, SnapshotId};
use crate::path::ProjectPath;
use crate::pipeline;
use crate::project::Project;
use crate::record::{RunVerdict, StepVerdict};
use crate::revision;
use crate::run::{
    Capacity, Judged, Mode, Origin, Performed, Placing, Report, Request, Restoring, Role, RunError, Selection, Verdict,
    Work, conclude, edited_outputs, perform, plan, refuse_unknown, restore,
};
use crate::snapshot::{CheckoutMode, View, capture_working};
use crate::store::{DryStore, Store};

use differs::Differences;
use target::Target;
use tell::Teller;

/// Bring the results of the working tree up to date, or execute a snapshot again
///
/// Without a revision: takes a snapshot of the working tree as it is, executes
/// the steps of which no result is known, takes the others from the store, and puts the outputs into
/// the working tree. With a revision: executes every step of exactly that snapshot in a
/// clean place and compares each output with what was recorded; the working tree is not touched.
///
/// With steps: these, and those before them where their results are not known. `STEP+` adds all
/// steps after it; `+STEP` is the same as `STEP`. The name of a step with a matrix means all its combinations.
///
/// A Python environment that steps run in is made first, once for each lock, by uv or pip.
///
/// Exit codes: 1 an output differs from the recorded one, 3 a step failed, 5 a step asks for more than the machine
/// has, or its environment cannot be made, 130 interrupted.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A revision (a version, a Git revision, or the first digits of a snapshot or run), then steps; each may be left out
    #[arg(value_name = "REVISION | STEP")]
    targets: Vec<String>,
    /// A step, also if a revision is called the same
    #[arg(long, value_name = "STEP")]
    step: Vec<String>,
    /// Only the named steps; of those before them the results must be known
    #[arg(long)]
    only: bool,
    /// Execute the named steps, or all, though their results are known
    #[arg(long)]
    again: bool,
    /// How many processors the steps may keep busy at once, mostly one each [default: the number of processors]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// When a step fails, still run those that do not need it
    #[arg(short, long)]
    keep_going: bool,
    /// Only tell what would be done, and why
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Take known results also when a revision is given
    #[arg(long)]
    reuse: bool,
    /// Put the outputs of the revision into the working tree
    #[arg(long)]
    restore: bool,
    /// Overwrite outputs in the working tree even if they were changed by hand
    #[arg(short, long)]
    force: bool,
    /// Execute so much of what would be taken from known results all the same, to see whether they repeat
    #[arg(long, value_name = "PERCENT", conflicts_with_all = ["dry_run", "again"])]
    check_hits: Option<Percent>,
    #[command(flatten)]
    reaching: Reaching,
}

/// A share, as `2%` or `2`.
#[derive(Clone, Copy)]
struct Percent(f64);

impl std::str::FromStr for Percent {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number: f64 = text.strip_suffix('%').unwrap_or(text).parse().map_err(|_| "a share is written as `2%`")?;
        if (0.0..=100.0).contains(&number) { Ok(Self(number)) } else { Err("a share is between 0% and 100%") }
    }
}

/// What is to be run.
pub(super) struct Subject {
    pub(super) opened: open::Opened,
    pub(super) snapshot: SnapshotId,
    pub(super) version: Option<String>,
    pub(super) commit: Option<String>,
    pub(super) dirty: bool,
}

impl Subject {
    /// Returns the snapshot of `revision` with everything that belongs to it, or if there is none, of the working tree.
    pub(super) fn of(
        ui: &Ui,
        project: &Project,
        reach: &Reach<'_>,
        store: &dyn Store,
        revision: Option<&str>,
    ) -> Result<Self, CliError> {
        match revision {
            Some(revision) => named(project, reach, revision),
            None => working(ui, project, store),
        }
    }
}

pub(super) fn run(ui: &mut Ui, global: &Global, args: &Args) -> Result<u8, CliError> {
    let project = open::project(ui, global)?;
    if !args.dry_run {
        project.store.hold()?;
        project.machine.learn();
    }
    let fetched = ui.progress_of("Fetching", "objects");
    let reach = Reach::new(&project, args.reaching.offline, &fetched)?;
    let done = run_with(ui, &project, &reach, args);
    reach.tell(ui);
    done
}

fn run_with(ui: &mut Ui, project: &Project, reach: &Reach<'_>, args: &Args) -> Result<u8, CliError> {
    let dry = DryStore::over(reach.store());
    let store: &dyn Store = if args.dry_run { &dry } else { reach.store() };
    let target = Target::of(project, args)?;
    if target.revision.is_none() && !args.dry_run {
        project.seen.learn();
    }
    let subject = Subject::of(ui, project, reach, store, target.revision.as_deref())?;
    let pipeline = &subject.opened.pipeline;
    let mut steps = open::Steps::new(project, pipeline, &subject.opened.params, subject.version.as_deref())?;
    let mut selection = target.selection(pipeline, steps.graph(), args)?;
    let replay = target.revision.is_some() && !args.reuse;
    if args.dry_run {
        let work = steps.work(&subject.opened.snapshot, store)?;
        open::note_unmade(ui, &work);
        let judged = plan(&work)?;
        refuse_unknown(pipeline, &selection, &judged)?;
        ui.show(&Plan::new(&subject, pipeline, judged, &selection, replay))?;
        return Ok(0);
    }
    let into_tree = target.revision.is_none() || args.restore;
    if into_tree && !args.force {
        refuse_edited(project, store, pipeline, &selection)?;
    }
    let view = View::new(store, &subject.opened.snapshot);
    let provided = provide::provide(ui, project, pipeline, &selection, &view, args.reaching.offline)?;
    let work = steps.work(&subject.opened.snapshot, store)?;
    if let Some(Percent(percent)) = args.check_hits {
        let seed = u64::try_from(Time::now().epoch_ms).unwrap_or_default() ^ u64::from(std::process::id());
        let checked = selection.check(&plan(&work)?, percent, seed);
        ui.say(format!("{} executed again though the result is known", count(checked as u64, "step")));
    }
    // Only from here on there is something to end in good order; before, a signal just ends the program.
    let stop = provided.stop.map_or_else(Stop::on_signals, Ok);
    let stop = stop.map_err(|error| CliError::usage(format!("signals cannot be caught: {error}")))?;
    let compared = target.revision.as_deref();
    perform_and_show(ui, project, reach, args, &subject, &work, &selection, &stop, replay, compared, into_tree)
}

fn named(project: &Project, reach: &Reach<'_>, revision: &str) -> Result<Subject, CliError> {
    let named = open::resolve_in(project, reach.store(), revision)?;
    // All of it is going to be laid out.
    reach.have(named.snapshot, true)?;
    let opened = open::open_in(reach.store(), &named)?;
    let version = named.version.or_else(|| opened.pipeline.version.clone());
    Ok(Subject { opened, snapshot: named.snapshot, version, commit: named.commit, dirty: named.dirty })
}

fn working(ui: &Ui, project: &Project, store: &dyn Store) -> Result<Subject, CliError> {
    let captured = {
        let progress = ui.progress("Hashing");
        capture_working(project.site(), store, &|files, bytes| progress.count(files, bytes))?
    };
    project.remember();
    let (commit, dirty) = open::base(project, &captured)?;
    open::note_submodules(ui, &captured.submodules);
    let version = match revision::version_of(&project.names(&project.commits()), captured.id)? {
        Some(version) => Some(version),
        None => free_label(project, captured.pipeline())?,
    };
    Ok(Subject {
        snapshot: captured.id,
        opened: open::Opened {
            snapshot: captured.snapshot,
            pipeline: captured.definition.pipeline,
            params: captured.params,
        },
        version,
        commit,
        dirty,
    })
}

/// Returns the definition's label, unless it has become the name of a snapshot: this one is another.
fn free_label(project: &Project, pipeline: &pipeline::Pipeline) -> Result<Option<String>, CliError> {
    let Some(label) = &pipeline.version else { return Ok(None) };
    let versions = project.journal.versions()?;
    let taken = versions.iter().any(|(_, version)| version.name == *label && version.pipeline == project.pipeline);
    Ok((!taken).then(|| label.clone()))
}

/// Outputs that `pv` wrote and somebody changed since are refused before anything runs.
fn refuse_edited(
    project: &Project,
    store: &dyn Store,
    pipeline: &pipeline::Pipeline,
    selection: &Selection,
) -> Result<(), CliError> {
    let memory = project.restored();
    let remembered = crate::run::remembered_paths(&memory)?;
    let steps = pipeline.steps.iter().enumerate().filter(|(index, _)| selection.is_told(*index));
    let outputs = steps.flat_map(|(_, step)| step.written());
    let paths: BTreeSet<ProjectPath> = outputs.filter(|path| remembered.contains(*path)).cloned().collect();
    let head = Committed::new(project);
    let committed = |path: &ProjectPath| head.digest(path);
    let edited = edited_outputs(&restoring(project, store, &memory, &committed), &paths)?;
    if edited.is_empty() { Ok(()) } else { Err(RunError::Edited { paths: edited }.into()) }
}

pub(super) fn restoring<'a>(
    project: &'a Project,
    store: &'a dyn Store,
    memory: &'a std::path::Path,
    committed: &'a dyn Fn(&ProjectPath) -> Option<Digest>,
) -> Restoring<'a> {
    let placing = Placing {
        root: &project.root,
        store,
        seen: Some(&project.seen),
        mode: CheckoutMode::Copy,
        left: None,
        progress: &|_, _| true,
    };
    Restoring { placing, journal: &project.journal, memory, committed }
}

/// What the current commit has, listed once when it is first asked for.
pub(super) struct Committed<'a> {
    project: &'a Project,
    files: std::cell::OnceCell<Option<crate::git::CommitFiles<'a>>>,
}

impl<'a> Committed<'a> {
    pub(super) fn new(project: &'a Project) -> Self {
        Self { project, files: std::cell::OnceCell::new() }
    }

    /// Returns the digest of what the current commit has at `path`, if it is a file there.
    pub(super) fn digest(&self, path: &ProjectPath) -> Option<Digest> {
        let listed = self.files.get_or_init(|| {
            let commit = self.project.repository.head().ok()?.commit?;
            self.project.repository.commit_files(&commit, self.project.prefix.as_ref()).ok()
        });
        let listed = listed.as_ref()?;
        let index = listed.files().binary_search_by(|(other, _)| other.cmp(path)).ok()?;
        let bytes = listed.reader().ok()?.bytes(path, &listed.files()[index].1).ok()?;
        Some(Digest::of(&bytes))
    }
}

#[expect(clippy::too_many_arguments, reason = "the parts of one command, used once")]
fn perform_and_show(
    ui: &mut Ui,
    project: &Project,
    reach: &Reach<'_>,
    args: &Args,
    subject: &Subject,
    work: &Work<'_>,
    selection: &Selection,
    stop: &Stop,
    replay: bool,
    compared: Option<&str>,
    into_tree: bool,
) -> Result<u8, CliError> {
    let compare = compared.is_some();
    let title = subject.version.clone().unwrap_or_else(|| subject.snapshot.short());
    // A reader who has gone stops the printing, not the run.
    let mut gone = if ui.json { None } else { ui.out(&format!("Running pipeline version: {title}\n")).err() };
    let (started, watch) = (Time::now(), Stopwatch::start());
    let (places, locks) = (project.places(), project.locks());
    let capacity = capacity(args.jobs);
    let request = Request {
        mode: if replay { Mode::Replay } else { Mode::Reuse },
        selection,
        capacity: &capacity,
        keep_going: args.keep_going,
        tree: (!compare).then_some(project.root.as_path()),
        places: &places,
        locks: &locks,
        by: open::by(&project.repository),
        stop,
    };
    let mut performed = {
        let screen = std::sync::Mutex::new((Teller::new(&mut *ui, &project.pipeline), &mut gone));
        perform(work, &request, &|event| {
            let mut screen = screen.lock().expect("no holder panics");
            let (teller, gone) = &mut *screen;
            if gone.is_none() {
                **gone = teller.tell(&event).err();
            }
        })?
    };
    let outputs: Vec<_> = succeeded(&performed);
    let leftovers = std::mem::take(&mut performed.leftovers);
    let origin = Origin {
        snapshot: subject.snapshot,
        version: subject.version.clone(),
        commit: subject.commit.clone(),
        dirty: subject.dirty,
        compare,
        started,
        elapsed: watch.elapsed(),
        by: request.by.clone(),
    };
    let report = conclude(work, origin, performed)?;
    project.remember_machine();
    let restored = if into_tree && !report.interrupted {
        let (memory, head) = (project.restored(), Committed::new(project));
        let committed = |path: &ProjectPath| head.digest(path);
        let restoring = restoring(project, work.store, &memory, &committed);
        let placing = Placing { left: Some(&leftovers), ..restoring.placing };
        restore(&Restoring { placing, ..restoring }, &outputs, args.force).map(drop)
    } else {
        Ok(())
    };
    std::thread::scope(|scope| {
        // One waits for the disk most of the time, the other hardly ever.
        scope.spawn(|| drop(leftovers));
        open::exchange(ui, project);
    });
    let elapsed = watch.elapsed();
    let shown = || {
        let revision = compared.unwrap_or_default();
        show(ui, subject, &report, &Differences::of(project, reach, work, &report)?, revision, elapsed)
    };
    match gone.map_or_else(shown, Err) {
        Err(error) if !error.is_closed_pipe() => return Err(error),
        _ => {}
    }
    restored?;
    // What outputs hash to need not be found out again by the next run.
    project.remember();
    Ok(match report.run.verdict {
        _ if report.interrupted => INTERRUPTED,
        RunVerdict::Failed => STEP_FAILED,
        RunVerdict::Differs => DIFFERENCE,
        RunVerdict::Done | RunVerdict::Reproduced => 0,
    })
}

/// Returns what there is for steps, with so many processors if that is given.
pub(super) fn capacity(jobs: Option<u16>) -> Capacity {
    Capacity {
        cpus: jobs.map_or_else(|| u32::try_from(host::processors()).unwrap_or(u32::MAX), u32::from),
        memory_bytes: host::memory_bytes(),
        gpus: host::gpus(),
    }
}

fn succeeded(performed: &Performed) -> Vec<crate::record::Output> {
    let good = |verdict| matches!(verdict, StepVerdict::Ran | StepVerdict::Reused);
    performed.steps.iter().filter(|done| good(done.verdict)).flat_map(|done| done.outputs.clone()).collect()
}

#[derive(Serialize)]
struct Answer<'a> {
    run: RecordId,
    snapshot: SnapshotId,
    version: Option<String>,
    verdict: RunVerdict,
    steps: Vec<AnswerStep>,
    /// What of the environment is another than in the run that outputs differ from, the likeliest first.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    consistent_with: &'a [FactChange],
}

#[derive(Serialize)]
struct AnswerStep {
    step: String,
    verdict: StepVerdict,
    reason: String,
    seconds: f64,
    #[serde(skip_serializing_if = "is_usual")]
    attempts: u32,
    outputs: Vec<AnswerOutput>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<AnswerFailure>,
}

/// A step that was tried once, or not at all, has nothing to tell of its attempts.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_usual(attempts: &u32) -> bool {
    *attempts < 2
}

#[derive(Serialize)]
struct AnswerOutput {
    path: ProjectPath,
    digest: Digest,
    size: u64,
    recorded: Option<Digest>,
    /// How it differs from what was recorded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    differences: Vec<Comparison>,
}

#[derive(Serialize)]
struct AnswerFailure {
    how: String,
    log: Vec<String>,
    directory: String,
    /// What it looked for in vain and the user has, each with the line to add and where.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hints: Vec<AnswerHint>,
}

#[derive(Serialize)]
struct AnswerHint {
    hint: String,
    /// The step to add it to; the top of the definition if there is none.
    step: Option<String>,
    add: String,
}

fn show(
    ui: &mut Ui,
    subject: &Subject,
    report: &Report,
    differences: &Differences,
    revision: &str,
    elapsed: Duration,
) -> Result<(), CliError> {
    for done in &report.steps {
        if let Some(failure) = done.failure.as_ref().filter(|failure| !failure.tail.is_empty()) {
            ui.warn(format!("the last lines of `{}`:", done.step));
            failure.tail.iter().for_each(|line| ui.warn(format!("  {line}")));
        }
    }
    if ui.json {
        let answer = Answer {
            run: report.id,
            snapshot: subject.snapshot,
            version: subject.version.clone(),
            verdict: report.run.verdict,
            steps: report.steps.iter().map(|done| answer_step(report, differences, done)).collect(),
            consistent_with: &differences.environment,
        };
        return ui.out(&(serde_json::to_string_pretty(&answer).expect("answers have text keys only") + "\n"));
    }
    for output in report.compared.iter().filter(|output| output.differs()) {
        let recorded = output.recorded.map(|digest| digest.short()).unwrap_or_default();
        ui.say(format!(
            "`{}` of step `{}`: recorded {recorded}, now {}",
            output.path,
            output.step,
            output.digest.short()
        ));
        differences.tell_output(ui, &output.path);
    }
    differences.tell_rest(ui, report, revision);
    ui.out(&format!("Run {}: {}\n", paint(NAME, report.id.short()), verdict(report, elapsed)))
}

fn answer_step(report: &Report, differences: &Differences, done: &crate::run::StepDone) -> AnswerStep {
    let recorded = |path: &ProjectPath| report.compared.iter().find(|o| o.path == *path).and_then(|o| o.recorded);
    AnswerStep {
        step: done.step.clone(),
        verdict: done.verdict,
        reason: done.reason.to_string(),
        seconds: done.elapsed.as_secs_f64(),
        attempts: done.attempts,
        outputs: done
            .outputs
            .iter()
            .map(|output| AnswerOutput {
                path: output.path.clone(),
                digest: output.digest,
                size: output.size,
                recorded: recorded(&output.path),
                differences: differences.at(&output.path).to_vec(),
            })
            .collect(),
        failure: done.failure.as_ref().map(|failure| AnswerFailure {
            how: failure.how.clone(),
            log: failure.tail.clone(),
            directory: failure.kept.display().to_string(),
            hints: failure.hints.iter().map(answer_hint).collect(),
        }),
    }
}

fn answer_hint(hint: &crate::run::Hint) -> AnswerHint {
    AnswerHint { hint: hint.to_string(), step: hint.step().map(str::to_owned), add: hint.line() }
}

/// The one line that says how it ended.
fn verdict(report: &Report, elapsed: Duration) -> String {
    let number = |verdict| report.steps.iter().filter(|done| done.verdict == verdict).count() as u64;
    let elapsed = seconds(elapsed);
    match report.run.verdict {
        _ if report.interrupted => paint(BAD, "interrupted"),
        RunVerdict::Reproduced => {
            let outputs = count(report.compared.len() as u64, "output");
            format!("{}, {outputs}, {elapsed}", paint(GOOD, "reproduced, bit for bit"))
        }
        RunVerdict::Differs => {
            let differ = report.compared.iter().filter(|output| output.differs());
            let names: Vec<_> = differ.map(|output| format!("`{}`", output.path)).collect();
            format!("{} from the recorded run in {}, {elapsed}", paint(NOTE, "differs"), names.join(", "))
        }
        RunVerdict::Failed => {
            let failed = report.steps.iter().filter(|done| done.verdict == StepVerdict::Failed);
            let names: Vec<_> = failed.map(|done| format!("`{}`", done.step)).collect();
            format!("{} in {}, {elapsed}", paint(BAD, "failed"), names.join(", "))
        }
        RunVerdict::Done => {
            let parts = [(number(StepVerdict::Ran), "ran"), (number(StepVerdict::Reused), "reused")];
            let parts: Vec<_> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
            let steps = count(report.steps.len() as u64, "step");
            let alone = report.compared.iter().any(|output| output.recorded.is_none());
            let alone = if alone { ", no earlier run is on record to compare with" } else { "" };
            format!("{}, {steps}: {}, {elapsed}{alone}", paint(GOOD, "done"), parts.join(", "))
        }
    }
}

/// What a run would do.
#[derive(Serialize)]
struct Plan {
    snapshot: SnapshotId,
    version: Option<String>,
    steps: Vec<PlanStep>,
}

#[derive(Serialize)]
struct PlanStep {
    step: String,
    verdict: &'static str,
    reason: String,
}

impl Plan {
    fn new(
        subject: &Subject,
        pipeline: &pipeline::Pipeline,
        judged: Vec<Judged>,
        selection: &Selection,
        replay: bool,
    ) -> Self {
        let steps = pipeline.steps.iter().zip(judged).enumerate().filter(|(index, _)| selection.is_told(*index));
        let steps = steps.map(|(index, (step, judged))| {
            let (verdict, reason) = match judged.verdict {
                _ if replay => ("run", crate::run::Reason::Replay),
                Verdict::Reuse(_) if selection.role(index) == Role::Again => ("run", crate::run::Reason::Again),
                Verdict::Reuse(_) => ("reuse", judged.reason),
                Verdict::Run => ("run", judged.reason),
            };
            PlanStep { step: step.name.clone(), verdict, reason: reason.to_string() }
        });
        Self { snapshot: subject.snapshot, version: subject.version.clone(), steps: steps.collect() }
    }
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = self.steps.iter().map(|step| step.step.chars().count()).max().unwrap_or_default();
        for step in &self.steps {
            let verdict = if step.verdict == "run" { paint(NOTE, "run  ") } else { paint(GOOD, "reuse") };
            writeln!(f, "{verdict}  {:width$}  {}", step.step, step.reason)?;
        }
        Ok(())
    }
}
