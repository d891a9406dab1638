//! `pv check`: could somebody else replay this commit?

use std::fmt;

use serde::Serialize;

use super::Global;
use super::answer::{bytes, count, short};
use super::fail::{CliError, DIFFERENCE, ENVIRONMENT, STORE, USAGE};
use super::open;
use super::reach::Remote;
use super::ui::{BAD, GOOD, NAME, Ui, paint};
use crate::git::CommitId;
use crate::object::{Entry, Kind, SnapshotId};
use crate::project::Project;
use crate::record::{Output, Run, RunVerdict};
use crate::remote::{Connection, Fetching};
use crate::retention::{self, Roots};
use crate::snapshot::{SnapshotError, capture_commit, data_entry, pins_of};
use crate::store::{DryStore, Live};

/// Check that a commit can be replayed by somebody who has nothing but a clone and the remote
///
/// Needs no data here, and reads none: the definition is valid, each root of data has a pointer, a good run of the
/// commit is on record, and its data, its results and the images that its steps run in are in the remote. Made for CI: fetch `refs/pv/meta` before.
///
/// Exit codes: 0 all is well, 1 no good run of the commit is on record, 2 the definition or a pointer is wrong, 4 data,
/// results or images are not in the remote, or it cannot be reached, 5 an image has no pin.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The commit
    #[arg(default_value = "HEAD")]
    commit: String,
    /// Print a summary in Markdown, as a pull request shows it
    #[arg(long)]
    ci: bool,
    /// The remote, if not the usual one
    #[arg(short, long, value_name = "NAME")]
    remote: Option<String>,
}

#[derive(Serialize)]
struct Answer {
    commit: String,
    snapshot: Option<SnapshotId>,
    remote: Option<String>,
    checks: Vec<Check>,
    #[serde(skip)]
    steps: Vec<Step>,
    #[serde(skip)]
    markdown: bool,
}

#[derive(Serialize)]
struct Check {
    #[serde(rename = "check")]
    what: &'static str,
    ok: bool,
    /// What was found.
    found: String,
    /// What to do about it.
    hint: Option<String>,
    #[serde(skip)]
    code: u8,
}

/// A step of the run that is on record.
struct Step {
    name: String,
    outputs: u64,
    bytes: u64,
    seconds: f64,
}

impl Check {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, ok: true, found: found.into(), hint: None, code: 0 }
    }

    fn bad(what: &'static str, code: u8, found: impl Into<String>, hint: impl Into<Option<String>>) -> Self {
        Self { what, ok: false, found: found.into(), hint: hint.into(), code }
    }
}

pub(super) fn run(ui: &mut Ui, global: &Global, args: &Args) -> Result<u8, CliError> {
    let project = open::project(ui, global)?;
    let commit = project.repository.resolve(&args.commit)?.ok_or_else(|| {
        CliError::usage(format!("nothing is called `{}`", args.commit)).hint("name a commit, a branch or a tag")
    })?;
    let mut answer = Answer {
        commit: commit.to_string(),
        snapshot: None,
        remote: None,
        checks: Vec::new(),
        steps: Vec::new(),
        markdown: args.ci,
    };
    check(&project, &commit, args, &mut answer)?;
    // The first that is wrong is the one to be mended first.
    let code = answer.checks.iter().map(|check| check.code).find(|code| *code != 0).unwrap_or_default();
    ui.show(&answer)?;
    Ok(code)
}

/// Makes one check after the other, as far as one can follow another.
fn check(project: &Project, commit: &CommitId, args: &Args, answer: &mut Answer) -> Result<(), CliError> {
    let dry = DryStore::over(&project.store);
    let captured = match capture_commit(project.site(), commit, &dry, &|_, _| true) {
        Ok(captured) => captured,
        Err(error) => {
            answer.checks.push(refused(error));
            return Ok(());
        }
    };
    answer.snapshot = Some(captured.id);
    let steps = captured.pipeline().steps.len() as u64;
    answer.checks.push(Check::good("definition", format!("valid, {}", count(steps, "step"))));
    let roots = captured.snapshot.data.len() as u64;
    answer.checks.push(Check::good("pointers", format!("{} of data", count(roots, "root"))));
    let run = newest_good(project, captured.id)?;
    match &run {
        Some(run) => {
            answer.steps = run.steps.iter().map(step).collect();
            answer
                .checks
                .push(Check::good("results", format!("by {} on {}, {}", run.by.who, run.by.host, run.started.local())));
        }
        None => {
            let hint =
                "run it (`pv run`), then `pv push`; records come with `git fetch origin refs/pv/meta:refs/pv/meta`";
            let found = "no good run of this commit is on record";
            answer.checks.push(Check::bad("results", DIFFERENCE, found, hint.to_owned()));
        }
    }
    let data: Vec<Entry> = captured.snapshot.data.iter().map(|(_, root)| data_entry(root)).collect();
    let outputs: Vec<Entry> =
        run.iter().flat_map(|run| &run.steps).flat_map(|step| step.outputs.iter().map(Output::entry)).collect();
    let pins = pins_of(&dry, &captured.snapshot)?;
    let images: Vec<Entry> = pins.values().map(|pin| Entry::Directory { sized: pin.sized(), id: pin.tree }).collect();
    let remote = match args.remote.as_deref() {
        None => Remote::usual(project)?,
        Some(name) => Some(Remote::choose(project, Some(name))?),
    };
    let Some(remote) = remote else {
        if data.is_empty() && outputs.is_empty() && images.is_empty() {
            return Ok(());
        }
        let hint = "`pv remote add NAME ADDRESS`, then commit `.pipeline/config.yaml`".to_owned();
        answer.checks.push(Check::bad(
            "remote",
            STORE,
            "there is none, so data, results and images are on one machine only",
            hint,
        ));
        return Ok(());
    };
    answer.remote = Some(remote.name.clone());
    let open = || remote.open(project);
    let store = Fetching::over(&project.store, Some(Box::new(open)), Box::new(|_| true));
    for (what, entries) in [("data", data), ("outputs", outputs)] {
        answer.checks.push(in_remote(what, entries, &store, &remote)?);
    }
    if !images.is_empty() {
        answer.checks.push(in_remote("images", images, &store, &remote)?);
    }
    Ok(())
}

fn refused(error: SnapshotError) -> Check {
    let (check, code) = match error {
        SnapshotError::NoData { .. } => ("pointers", USAGE),
        SnapshotError::NoPin { .. } | SnapshotError::BadPin { .. } => ("pins", ENVIRONMENT),
        _ => ("definition", USAGE),
    };
    let error = CliError::from(error);
    let text = error.text(false).unwrap_or_default();
    Check::bad(check, code, text.trim_start_matches("error: ").to_owned(), None)
}

fn newest_good(project: &Project, snapshot: SnapshotId) -> Result<Option<Run>, CliError> {
    for run in project.journal.runs()? {
        let (_, run) = run?;
        if run.snapshot == snapshot && matches!(run.verdict, RunVerdict::Done | RunVerdict::Reproduced) {
            return Ok(Some(run));
        }
    }
    Ok(None)
}

fn step(done: &crate::record::RunStep) -> Step {
    #[expect(clippy::cast_precision_loss, reason = "a duration is shown")]
    let seconds = done.elapsed_ms as f64 / 1000.0;
    let bytes = done.outputs.iter().map(|output| output.size).sum();
    Step { name: done.step.clone(), outputs: done.outputs.len() as u64, bytes, seconds }
}

/// Looks for everything below the entries in the remote. Fetches directories only.
fn in_remote(
    what: &'static str,
    entries: Vec<Entry>,
    store: &Fetching<'_>,
    remote: &Remote,
) -> Result<Check, CliError> {
    if entries.is_empty() {
        return Ok(Check::good(what, "none"));
    }
    let roots = Roots { outputs: entries, ..Roots::default() };
    store.fetch(&roots, false)?;
    let live = retention::reachable(store, &roots)?;
    let Some(Connection { catalog, .. }) = store.connection() else {
        let error = store.trouble().map(|error| remote.failed(error));
        let text = error.and_then(|error| error.text(false)).unwrap_or_default();
        return Ok(Check::bad(what, STORE, text.trim_start_matches("error: ").to_owned(), None));
    };
    let lacking: Live =
        live.iter().filter(|(kind, digest)| !crate::remote::holds(catalog, *kind, *digest)).copied().collect();
    let files = |live: &Live| live.iter().filter(|(kind, _)| *kind == Kind::Blob).count() as u64;
    Ok(match lacking.len() {
        0 => Check::good(what, format!("all {} in remote `{}`", count(files(&live), "file"), remote.name)),
        _ => {
            let found =
                format!("{} of {} not in remote `{}`", files(&lacking), count(files(&live), "file"), remote.name);
            Check::bad(what, STORE, found, "`pv push` on a machine that has them".to_owned())
        }
    })
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.markdown {
            return self.write_markdown(f);
        }
        writeln!(f, "commit {}", paint(NAME, short(&self.commit)))?;
        for check in &self.checks {
            let mark = if check.ok { paint(GOOD, "ok") } else { paint(BAD, "no") };
            writeln!(f, "  {mark} {}: {}", check.what, check.found)?;
            if let Some(hint) = &check.hint {
                writeln!(f, "     {} {hint}", paint(GOOD, "hint:"))?;
            }
        }
        Ok(())
    }
}

impl Answer {
    fn write_markdown(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_good = self.checks.iter().all(|check| check.ok);
        let title = if is_good { "can be replayed" } else { "cannot be replayed by others" };
        writeln!(f, "### Pipeline: `{}` {title}\n", short(&self.commit))?;
        writeln!(f, "| | check | |\n|---|---|---|")?;
        for check in &self.checks {
            let mark = if check.ok { "✅" } else { "❌" };
            let hint = check.hint.as_ref().map(|hint| format!("<br>{}", cell(hint))).unwrap_or_default();
            writeln!(f, "| {mark} | {} | {}{hint} |", check.what, cell(&check.found))?;
        }
        if !self.steps.is_empty() {
            writeln!(f, "\n| step | outputs | size | time |\n|---|---|---|---|")?;
            for step in &self.steps {
                writeln!(
                    f,
                    "| `{}` | {} | {} | {:.1} s |",
                    cell(&step.name),
                    step.outputs,
                    bytes(step.bytes),
                    step.seconds
                )?;
            }
        }
        if let Some(snapshot) = self.snapshot {
            writeln!(f, "\nSnapshot `{}`", snapshot.short())?;
        }
        Ok(())
    }
}

/// Returns a text that stays within its cell.
fn cell(text: &str) -> String {
    text.trim().replace('|', "\\|").replace('\n', "<br>")
}
