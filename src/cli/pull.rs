//! `pv pull`: get what is missing here from a remote.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::Global;
use super::answer::{bytes, count, seconds};
use super::checkout;
use super::fail::{CliError, STORE};
use super::open;
use super::push;
use super::reach::{Remote, in_words};
use super::travel;
use super::ui::{NAME, Ui, paint};
use crate::exec::Stop;
use crate::git::Asking;
use crate::host::{Stopwatch, Time};
use crate::object::{Entry, SnapshotId};
use crate::path::ProjectPath;
use crate::project::Project;
use crate::record::Output;
use crate::remote::{Connection, Fetching, Unfetched, Way};
use crate::retention::{self, Roots};
use crate::snapshot::{View, read_snapshot};
use crate::store::LocalStore;

/// Get code, data, results and logs of a version from a remote, as far as they are missing here
///
/// Without a revision: the current commit. Every byte is hashed as it arrives. The working tree is not touched: `pv
/// checkout` puts files into it. Other commands get by themselves what they miss; this gets all of it beforehand.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Versions, Git revisions, or the first digits of snapshots or runs [default: HEAD]
    #[arg(value_name = "REVISION")]
    revisions: Vec<String>,
    /// Everything that is on record: all versions, commits, runs and results
    #[arg(long, conflicts_with_all = ["revisions", "step", "path"])]
    all: bool,
    /// Only the outputs and the log of this step; can be given several times
    #[arg(long, value_name = "STEP")]
    step: Vec<String>,
    /// Only what lies at this path or below, outputs included; can be given several times
    #[arg(long, value_name = "PATH")]
    path: Vec<std::path::PathBuf>,
    /// The remote, if not the usual one
    #[arg(short, long, value_name = "NAME")]
    remote: Option<String>,
    /// Only tell what is missing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Take in no records of the Git remote
    #[arg(long)]
    no_records: bool,
    /// How many requests are on their way at once
    #[arg(short, long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
}

/// What came, or would.
#[derive(Serialize)]
struct Answer {
    remote: String,
    dry_run: bool,
    /// What it was about.
    objects: u64,
    /// Bytes on the wire; of a dry run those that would be.
    bytes: u64,
    received: u64,
    skipped: u64,
    /// Objects that are nowhere: neither here nor in the remote.
    missing: u64,
    requests: u64,
    /// Records that are new here.
    records: u64,
    seconds: f64,
    #[serde(skip)]
    of_head: bool,
}

pub(super) fn run(ui: &mut Ui, global: &Global, args: &Args) -> Result<u8, CliError> {
    let project = open::project(ui, global)?;
    let remote = Remote::choose(&project, args.remote.as_deref())?;
    let watch = Stopwatch::start();
    // First, because they tell what belongs to a revision.
    let records = match travel::usual(&project) {
        Some(place) if !args.dry_run && !args.no_records => travel::receive(&project, &place, Asking::Allowed),
        _ => Ok(0),
    };
    let records = records.unwrap_or_else(|error| {
        ui.warn(error.warning());
        0
    });
    let open = || remote.open(&project);
    let store = Fetching::over(&project.store, Some(Box::new(open)), Box::new(|_| true));
    let Some(Connection { bucket, catalog }) = store.connection() else {
        return Err(store
            .trouble()
            .map_or_else(|| CliError::usage("there is no remote"), |error| remote.failed(error)));
    };
    if !args.dry_run {
        project.store.hold()?;
    }
    let stop = Stop::on_signals().map_err(|error| CliError::usage(format!("signals cannot be caught: {error}")))?;
    let go_on = |_| !stop.is_requested();
    let way = Way { bucket, catalog, jobs: usize::from(args.jobs), progress: &go_on };
    let before = bucket.moved_bytes();
    let roots = roots(&project, &store, args, &open::directory(global)?)?;
    let closure = |local: &LocalStore| retention::reachable(local, &roots).map_err(Unfetched::Local);
    let lacking = way.survey(&project.store, &closure).map_err(|error| remote.unfetched(error))?;
    let mut answer = Answer {
        remote: remote.name.clone(),
        dry_run: args.dry_run,
        objects: lacking.objects,
        bytes: lacking.bytes,
        received: lacking.files.len() as u64,
        skipped: lacking.objects - lacking.files.len() as u64,
        missing: lacking.directories.missing.len() as u64,
        requests: 0,
        records: records as u64,
        seconds: 0.0,
        of_head: args.revisions.is_empty() && !args.all,
    };
    if !args.dry_run {
        let progress = ui.transfer("Receiving", lacking.bytes);
        let go_on = |moved| progress.add(moved) && !stop.is_requested();
        let fetched = Way { progress: &go_on, ..way }.fetch(&project.store, &lacking);
        let fetched = fetched.map_err(|error| remote.failed(error))?;
        drop(progress);
        if let Some(missing) = in_words(&fetched.missing) {
            ui.warn(format!("warning: {missing} neither here nor in the remote"));
            ui.warn("hint: whoever has them can send them: `pv push`");
        }
        if !fetched.missing.is_empty() && catalog.packs().next().is_none() {
            ui.warn(format!("note: nothing was ever pushed to {}", remote.address));
        }
        answer = Answer {
            bytes: bucket.moved_bytes() - before,
            received: fetched.received,
            skipped: fetched.skipped,
            missing: fetched.missing.len() as u64,
            ..answer
        };
    }
    answer.requests = bucket.requests();
    answer.seconds = watch.elapsed().as_secs_f64();
    let is_whole = answer.missing == 0;
    ui.show(&answer)?;
    Ok(if is_whole { 0 } else { STORE })
}

/// Returns where everything begins that is asked for. Looking for paths fetches the directories of the snapshot.
fn roots(project: &Project, store: &Fetching<'_>, args: &Args, from: &std::path::Path) -> Result<Roots, CliError> {
    if args.all {
        let memory = project.commits();
        return Ok(retention::roots(project.user(&memory), Time { epoch_ms: i64::MIN })?);
    }
    let whole = push::roots_in(project, store, &args.revisions)?;
    if args.step.is_empty() && args.path.is_empty() {
        return Ok(whole);
    }
    let mut wanted = Roots::default();
    for snapshot in &whole.snapshots {
        let outputs = step_outputs(project, *snapshot, &args.step, &mut wanted)?;
        let paths = paths(project, args, from)?;
        // What tells of the snapshot comes in any case, so that it can be named here.
        store.fetch(&Roots { snapshots: [*snapshot].into(), outputs, ..Roots::default() }, false)?;
        if !paths.is_empty() {
            let read = read_snapshot(store, *snapshot)?;
            let view = View::new(store, &read);
            let outputs = checkout::outputs(project, *snapshot, None)?;
            for path in &paths {
                let found = checkout::find(&view, &outputs, path, &snapshot.short())?;
                wanted.outputs.extend(found.iter().map(Output::entry));
            }
        }
    }
    Ok(wanted)
}

/// Adds the outputs and logs of these steps in the runs of a snapshot; returns all outputs of those runs.
fn step_outputs(
    project: &Project,
    snapshot: SnapshotId,
    steps: &[String],
    wanted: &mut Roots,
) -> Result<Vec<Entry>, CliError> {
    let mut all = Vec::new();
    let mut found: BTreeSet<&String> = BTreeSet::new();
    for run in project.journal.runs()? {
        let (_, run) = run?;
        if run.snapshot != snapshot {
            continue;
        }
        for done in &run.steps {
            let outputs: Vec<Entry> = done.outputs.iter().map(Output::entry).collect();
            // The combinations of a matrix are called `step[...]`.
            let is_meant = |step: &&String| {
                **step == done.step || done.step.strip_prefix(step.as_str()).is_some_and(|rest| rest.starts_with('['))
            };
            if let Some(step) = steps.iter().find(is_meant) {
                found.insert(step);
                wanted.outputs.extend(outputs.iter().cloned());
                wanted.logs.extend(done.log);
            }
            all.extend(outputs);
        }
    }
    match steps.iter().find(|step| !found.contains(step)) {
        Some(step) => Err(CliError::usage(format!(
            "no run of snapshot {} is on record that has a step `{step}`",
            snapshot.short()
        ))
        .hint("`pv show` tells which steps a run has")),
        None => Ok(all),
    }
}

fn paths(project: &Project, args: &Args, from: &std::path::Path) -> Result<Vec<ProjectPath>, CliError> {
    let locate = |given: &std::path::PathBuf| {
        let outside = || CliError::usage(format!("`{}` is not in the project", given.display()));
        project.locate(from, given).ok_or_else(outside)
    };
    args.path.iter().map(locate).collect()
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remote = paint(NAME, format!("`{}`", self.remote));
        if self.records > 0 {
            writeln!(f, "got {} from the Git remote", count(self.records, "record"))?;
        }
        if self.received == 0 {
            return writeln!(f, "nothing new in remote {remote}: {} here", count(self.skipped, "object"));
        }
        if self.dry_run {
            let (received, bytes) = (count(self.received, "object"), bytes(self.bytes));
            return writeln!(f, "would get {received} ({bytes}) from remote {remote}, {} here already", self.skipped);
        }
        let elapsed = seconds(std::time::Duration::from_secs_f64(self.seconds));
        let received = count(self.received, "object");
        writeln!(
            f,
            "got {received} ({}) from remote {remote} in {elapsed}, {} here already",
            bytes(self.bytes),
            self.skipped
        )?;
        if self.of_head {
            writeln!(f, "`pv checkout HEAD` puts data and results into the working tree")?;
        }
        Ok(())
    }
}
