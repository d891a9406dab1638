//! `pv gc`: give back the space of what nothing leads to any more.

mod elsewhere;

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::Global;
use super::answer::{bytes, count};
use super::fail::CliError;
use super::open;
use super::ui::{FAINT, NAME, Ui, paint};
use crate::environment::{self, Unneeded};
use crate::hash::Digest;
use crate::host::Time;
use crate::object::{Kind, SnapshotId};
use crate::retention::{self, Lost, RetentionError};
use crate::run::{self, Idle};
use crate::store::{self, Collected, Live, Terms};

pub(super) const DAY_SECONDS: i64 = 24 * 60 * 60;
/// For so many days what was taken or run is kept, unless the user says otherwise.
pub(super) const KEEP_DAYS: u32 = 90;
/// So many files of a snapshot are shown to people.
const SHOWN: usize = 10;

/// Give back the space of what nothing leads to any more
///
/// Kept is: every version; what a commit determines that Git still has; data pointers in any branch, tag, reflog,
/// index or working tree; and what was taken or run within the last days. To keep a snapshot for good, name it:
/// `pv snapshot --tag NAME`. What goes lies in the trash for some days and comes back with `--undo`.
/// Beside the store go, for good: checkouts and places of failed runs that nobody has used for as many days, and
/// what steps kept between attempts that no branch, tag or working tree names any more, and Python environments that
/// no snapshot that is kept runs in and nobody has used for as long; they can be made again.
/// Others may work meanwhile; what one of them may rely on stays for the next time.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Show what would go, and remove nothing
    #[arg(short = 'n', long, conflicts_with_all = ["undo", "wait"])]
    dry_run: bool,
    /// Rewrite also packs of which only a little is garbage
    #[arg(long)]
    all: bool,
    /// Keep what was taken or run within so many days
    #[arg(long, value_name = "DAYS", default_value_t = KEEP_DAYS)]
    keep_days: u32,
    /// Keep what goes in the trash, and what runs left, for so many days; 0 removes it at once
    #[arg(long, value_name = "DAYS", default_value_t = 7)]
    undo_days: u32,
    /// Put back what is in the trash
    #[arg(long, conflicts_with_all = ["all", "wait"])]
    undo: bool,
    /// Wait for processes that may rely on what goes
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    elsewhere: elsewhere::Elsewhere,
}

#[derive(Serialize)]
struct Answer {
    dry_run: bool,
    snapshots: Vec<Gone>,
    files: u64,
    bytes: u64,
    freed_bytes: u64,
    removed_bytes: u64,
    put_back: u64,
    waiting_for: BTreeSet<String>,
    places: Places,
    #[serde(skip)]
    undo_days: u32,
}

#[derive(Serialize)]
struct Gone {
    id: SnapshotId,
    bytes: u64,
    files: Vec<GoneFile>,
}

#[derive(Serialize)]
struct GoneFile {
    path: String,
    bytes: u64,
}

/// What lies beside the store: what runs left, and Python environments.
#[derive(Serialize)]
struct Places {
    checkouts: u64,
    failed_runs: u64,
    kept: Vec<Kept>,
    python_environments: u64,
    bytes: u64,
}

/// What a step kept.
#[derive(Serialize)]
struct Kept {
    pipeline: Option<String>,
    step: Option<String>,
    bytes: u64,
}

#[derive(Serialize)]
struct Undone {
    put_back: u64,
}

pub(super) fn run(ui: &mut Ui, global: &Global, args: &Args) -> Result<u8, CliError> {
    let project = open::project(ui, global)?;
    if let Some(name) = &args.elsewhere.remote {
        return elsewhere::sweep(ui, &project, name, args);
    }
    if args.undo {
        ui.show(&Undone { put_back: store::put_back(&project.store)? })?;
        return Ok(0);
    }
    let now = Time::now();
    let day_ms = 1000 * DAY_SECONDS;
    let since = Time { epoch_ms: now.epoch_ms - i64::from(args.keep_days) * day_ms };
    let mut lost = Vec::new();
    let mut gone = |objects: &[(Kind, Digest, u64)]| lost.extend(retention::name(&project.store, objects));
    let collected = if args.dry_run {
        let live = retention::mark(&project.store, &project.roots(since)?, &Live::new())?;
        let collected = store::preview(&project.store, &live, args.all)?;
        gone(&collected.objects);
        collected
    } else {
        let terms = Terms {
            all: args.all,
            wait: args.wait,
            now_seconds: now.epoch_ms / 1000,
            undo_seconds: i64::from(args.undo_days) * DAY_SECONDS,
        };
        project.store.register()?;
        project.keep_since(since)?;
        // The roots are looked up each time: what others recorded since counts.
        let mark = |also: &Live| retention::mark(&project.store, &project.roots(since)?, also);
        store::collect::<RetentionError>(&project.store, terms, &mark, &mut gone)?
    };
    let until = Time { epoch_ms: now.epoch_ms - i64::from(args.undo_days) * day_ms };
    let idle = run::reclaim::<CliError>(&project.places(), until, args.dry_run, &|| Ok(project.named_steps()?))?;
    let needed =
        || -> Result<_, CliError> { Ok(run::needed_pythons(&project.store, &project.roots(since)?.snapshots)?) };
    let pythons = environment::reclaim_pythons(&project.python_environments(), until, args.dry_run, &needed)?;
    ui.show(&answer(args, lost, collected, idle, pythons))?;
    Ok(0)
}

fn answer(args: &Args, lost: Vec<Lost>, collected: Collected, idle: Idle, pythons: Unneeded) -> Answer {
    let of_blobs: Vec<&(Kind, Digest, u64)> =
        collected.objects.iter().filter(|(kind, ..)| *kind == Kind::Blob).collect();
    Answer {
        dry_run: args.dry_run,
        snapshots: lost.into_iter().map(gone).collect(),
        files: of_blobs.len() as u64,
        bytes: of_blobs.iter().map(|(_, _, length)| length).sum(),
        freed_bytes: collected.freed_bytes,
        removed_bytes: collected.removed_bytes,
        put_back: collected.put_back,
        waiting_for: collected.waiting_for,
        places: Places {
            checkouts: idle.checkouts,
            failed_runs: idle.places,
            kept: idle.kept.into_iter().map(kept).collect(),
            python_environments: pythons.environments,
            bytes: idle.bytes + pythons.bytes,
        },
        undo_days: args.undo_days,
    }
}

fn kept(kept: run::Orphan) -> Kept {
    let (pipeline, step) = kept.owner.unzip();
    Kept { pipeline, step, bytes: kept.bytes }
}

fn gone(lost: Lost) -> Gone {
    let mut files: Vec<_> =
        lost.files.into_iter().map(|(path, bytes)| GoneFile { path: path.to_string(), bytes }).collect();
    files.sort_by(|a, b| (b.bytes, &a.path).cmp(&(a.bytes, &b.path)));
    Gone { id: lost.snapshot, bytes: files.iter().map(|file| file.bytes).sum(), files }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let goes = if self.dry_run { "would go" } else { "gone" };
        if self.files == 0 && self.snapshots.is_empty() && self.freed_bytes == 0 {
            if self.waiting_for.is_empty() && self.places.is_empty() {
                writeln!(f, "nothing to give back")?;
            }
        } else {
            let (snapshots, files) = (self.snapshots.len() as u64, self.files);
            let (snapshots, files) = (count(snapshots, "snapshot"), count(files, "file"));
            writeln!(f, "{goes}: {snapshots}, {files} ({}), {} on disk", bytes(self.bytes), bytes(self.freed_bytes))?;
        }
        for snapshot in &self.snapshots {
            let files = count(snapshot.files.len() as u64, "file");
            writeln!(f, "  snapshot {}  {files}, {}", paint(NAME, snapshot.id.short()), bytes(snapshot.bytes))?;
            for file in snapshot.files.iter().take(SHOWN) {
                writeln!(f, "    {}  {}", file.path, bytes(file.bytes))?;
            }
            if snapshot.files.len() > SHOWN {
                writeln!(f, "    {}", paint(FAINT, format!("and {} more", snapshot.files.len() - SHOWN)))?;
            }
        }
        if !self.dry_run && self.freed_bytes > 0 && self.undo_days > 0 {
            writeln!(f, "`pv gc --undo` brings it back for {}", count(self.undo_days.into(), "day"))?;
        }
        if !self.places.is_empty() {
            writeln!(f, "{goes} for good beside the store: {}", self.places)?;
        }
        if self.removed_bytes > 0 {
            writeln!(f, "removed for good: {} of the trash", bytes(self.removed_bytes))?;
        }
        if !self.waiting_for.is_empty() {
            let processes: Vec<_> =
                self.waiting_for.iter().map(|name| name.split('-').next().unwrap_or(name)).collect();
            writeln!(f, "waiting for process {}: run `pv gc` again when it has ended", processes.join(", "))?;
        }
        Ok(())
    }
}

impl Places {
    fn is_empty(&self) -> bool {
        self.checkouts == 0 && self.failed_runs == 0 && self.kept.is_empty() && self.python_environments == 0
    }
}

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.checkouts > 0 {
            parts.push(count(self.checkouts, "idle checkout"));
        }
        if self.failed_runs > 0 {
            parts.push(format!("what {} left", count(self.failed_runs, "failed run")));
        }
        for kept in &self.kept {
            parts.push(match &kept.step {
                Some(step) => format!("what step {} kept", paint(NAME, format!("`{step}`"))),
                None => "what some step kept".to_owned(),
            });
        }
        if self.python_environments > 0 {
            parts.push(count(self.python_environments, "Python environment"));
        }
        write!(f, "{} ({})", parts.join(", "), bytes(self.bytes))
    }
}

impl fmt::Display for Undone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.put_back {
            0 => writeln!(f, "nothing is in the trash"),
            packs => writeln!(f, "{} back from the trash", count(packs, "file")),
        }
    }
}
