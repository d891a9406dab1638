//! `pv log`: snapshots and runs, newest first.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::Global;
use super::answer::{seconds, short};
use super::fail::CliError;
use super::open;
use super::ui::{BAD, FAINT, GOOD, NAME, NOTE, Ui, paint};
use crate::host::Time;
use crate::object::{RecordId, SnapshotId};
use crate::pipeline::Level;
use crate::project::Project;
use crate::record::{RunVerdict, StepVerdict, Verification};

/// List snapshots and runs, newest first
#[derive(clap::Args)]
pub(super) struct Args {
    /// How many entries to show
    #[arg(short = 'n', long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Show everything
    #[arg(short, long, conflicts_with = "limit")]
    all: bool,
}

#[derive(Serialize)]
struct Answer {
    entries: Vec<Entry>,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Entry {
    Snapshot {
        snapshot: SnapshotId,
        versions: Vec<String>,
        commit: Option<String>,
        dirty: bool,
        time: Time,
        who: String,
        message: Option<String>,
        verdicts: BTreeMap<String, u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        verified: Option<Verified>,
    },
    Run {
        run: RecordId,
        snapshot: SnapshotId,
        version: Option<String>,
        commit: Option<String>,
        dirty: bool,
        verdict: RunVerdict,
        time: Time,
        seconds: f64,
        ran: usize,
        reused: usize,
        failed: Vec<String>,
        who: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        verified: Option<Verified>,
    },
}

/// What came of the newest verification of a snapshot.
#[derive(Clone, Serialize)]
struct Verified {
    verification: RecordId,
    time: Time,
    level: Level,
    allowed: bool,
    runs: u32,
    explained: bool,
    interrupted: bool,
    rung: String,
    causes: BTreeSet<String>,
    #[serde(skip)]
    badge: String,
}

impl Verified {
    fn of(id: RecordId, verification: &Verification) -> Self {
        let causes = verification.steps.iter().flat_map(|step| &step.causes);
        Self {
            verification: id,
            time: verification.time,
            level: verification.level(),
            allowed: verification.is_allowed(),
            runs: verification.runs(),
            explained: verification.explained,
            interrupted: verification.interrupted,
            rung: verification.rung.clone(),
            causes: causes.map(|named| named.cause.clone()).collect(),
            badge: verification.badge(),
        }
    }
}

impl Entry {
    fn time(&self) -> Time {
        match self {
            Self::Snapshot { time, .. } | Self::Run { time, .. } => *time,
        }
    }

    /// A run comes after the snapshot that it executes, also within one millisecond.
    fn rank(&self) -> u8 {
        u8::from(matches!(self, Self::Run { .. }))
    }
}

pub(super) fn run(ui: &mut Ui, global: &Global, args: &Args) -> Result<u8, CliError> {
    let project = open::project(ui, global)?;
    let limit = if args.all { usize::MAX } else { usize::try_from(args.limit).unwrap_or(usize::MAX) };
    let mut versions: BTreeMap<SnapshotId, Vec<String>> = BTreeMap::new();
    for (_, version) in project.journal.versions()? {
        versions.entry(version.snapshot).or_default().push(version.name);
    }
    let mut verdicts: BTreeMap<SnapshotId, BTreeMap<String, u64>> = BTreeMap::new();
    let verified = newest(&project)?;
    let mut entries = Vec::new();
    for run in project.journal.runs()? {
        let (id, run) = run?;
        if run.pipeline != project.pipeline {
            continue;
        }
        *verdicts.entry(run.snapshot).or_default().entry(run.verdict.to_string()).or_default() += 1;
        let number = |verdict| run.steps.iter().filter(|step| step.verdict == verdict).count();
        let failed = run.steps.iter().filter(|step| step.verdict == StepVerdict::Failed);
        entries.push(Entry::Run {
            run: id,
            snapshot: run.snapshot,
            version: versions.get(&run.snapshot).and_then(|names| names.first().cloned()),
            commit: run.commit.clone(),
            dirty: run.dirty,
            verdict: run.verdict,
            time: run.started,
            seconds: Duration::from_millis(run.elapsed_ms).as_secs_f64(),
            ran: number(StepVerdict::Ran),
            reused: number(StepVerdict::Reused),
            failed: failed.map(|step| step.step.clone()).collect(),
            who: run.by.who,
            verified: verified.get(&run.snapshot).cloned(),
        });
    }
    for (_, link) in project.journal.links()?.into_iter().filter(|(_, link)| link.pipeline == project.pipeline) {
        entries.push(Entry::Snapshot {
            snapshot: link.snapshot,
            versions: versions.get(&link.snapshot).cloned().unwrap_or_default(),
            commit: link.commit,
            dirty: link.dirty,
            time: link.time,
            who: link.by.who,
            message: link.message,
            verdicts: verdicts.get(&link.snapshot).cloned().unwrap_or_default(),
            verified: verified.get(&link.snapshot).cloned(),
        });
    }
    entries.sort_by_key(|entry| std::cmp::Reverse((entry.time(), entry.rank())));
    entries.truncate(limit);
    ui.show(&Answer { entries })?;
    Ok(0)
}

/// Returns what came of the newest verification of each snapshot.
fn newest(project: &Project) -> Result<BTreeMap<SnapshotId, Verified>, CliError> {
    let mut newest = BTreeMap::new();
    for verification in project.journal.verifications()? {
        let (id, verification) = verification?;
        if verification.pipeline == project.pipeline {
            newest.entry(verification.snapshot).or_insert_with(|| Verified::of(id, &verification));
        }
    }
    Ok(newest)
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.entries.is_empty() {
            return writeln!(f, "Nothing yet. `pv snapshot` takes a snapshot, `pv run` executes the pipeline.");
        }
        self.entries.iter().try_for_each(|entry| write_entry(f, entry))
    }
}

fn write_entry(f: &mut fmt::Formatter<'_>, entry: &Entry) -> fmt::Result {
    let commit_text = |commit: &Option<String>, dirty: bool| match (commit, dirty) {
        (Some(commit), false) => format!("commit {}", short(commit)),
        (Some(commit), true) => format!("commit {} {}", short(commit), paint(NOTE, "with changes")),
        (None, _) => "no commit".to_owned(),
    };
    match entry {
        Entry::Snapshot { snapshot, versions, commit, dirty, time, message, verdicts, verified, .. } => {
            write!(f, "{}  snapshot {}", paint(FAINT, time.local()), paint(NAME, snapshot.short()))?;
            for version in versions {
                write!(f, "  {}", paint(NAME, version))?;
            }
            write!(f, "  {}", commit_text(commit, *dirty))?;
            for (verdict, number) in verdicts {
                write!(f, "  {}", paint(verdict_style(verdict), format!("{number} {verdict}")))?;
            }
            write_badge(f, verified.as_ref())?;
            if let Some(message) = message {
                write!(f, "  {}", message.lines().next().unwrap_or_default())?;
            }
        }
        Entry::Run {
            run,
            snapshot,
            version,
            commit,
            dirty,
            verdict,
            time,
            seconds: s,
            ran,
            reused,
            failed,
            verified,
            ..
        } => {
            write!(f, "{}  run      {}", paint(FAINT, time.local()), paint(NAME, run.short()))?;
            write!(f, "  of {}", version.clone().unwrap_or_else(|| snapshot.short()))?;
            write!(f, "  {}", commit_text(commit, *dirty))?;
            write!(f, "  {}", paint(verdict_style(&verdict.to_string()), verdict))?;
            if !failed.is_empty() {
                write!(f, " in {}", failed.join(", "))?;
            }
            write!(f, "  {ran} ran, {reused} reused, {}", seconds(Duration::from_secs_f64(*s)))?;
            write_badge(f, verified.as_ref())?;
        }
    }
    writeln!(f)
}

fn write_badge(f: &mut fmt::Formatter<'_>, verified: Option<&Verified>) -> fmt::Result {
    let Some(verified) = verified else { return Ok(()) };
    let style = if verified.allowed { GOOD } else { BAD };
    write!(f, "  verified {}", paint(style, &verified.badge))
}

fn verdict_style(verdict: &str) -> anstyle::Style {
    match verdict {
        "failed" => BAD,
        "differs" => NOTE,
        _ => GOOD,
    }
}
