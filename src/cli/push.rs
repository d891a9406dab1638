//! `pv push`: send what a remote lacks.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::Global;
use super::answer::{bytes, count, seconds};
use super::fail::CliError;
use super::open;
use super::reach::{Remote, in_words};
use super::travel;
use super::ui::{NAME, Ui, paint};
use crate::exec::Stop;
use crate::git::Asking;
use crate::host::{Stopwatch, Time};
use crate::object::SnapshotId;
use crate::project::Project;
use crate::remote::{Connection, RemoteError, Shipment};
use crate::retention::{self, Roots};
use crate::store::{Store, StoreError};

/// Send code, data, results and logs of a version to a remote, as far as it lacks them
///
/// Without a revision: the current commit. What is there already is not sent again, not even parts of a
/// large file; after an interruption the same command goes on where it stopped. Who has a clone
/// gets all of it with `pv pull`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Versions, Git revisions, or the first digits of snapshots or runs [default: HEAD]
    #[arg(value_name = "REVISION")]
    revisions: Vec<String>,
    /// Everything that is on record: all versions, commits, runs and results
    #[arg(long, conflicts_with = "revisions")]
    all: bool,
    /// The remote, if not the usual one
    #[arg(short, long, value_name = "NAME")]
    remote: Option<String>,
    /// Only tell what would be sent
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Send no records to the Git remote
    #[arg(long)]
    no_records: bool,
    /// How many packs are on their way at once
    #[arg(short, long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
}

/// What was sent, or would be.
#[derive(Serialize)]
pub(super) struct Answer {
    remote: String,
    dry_run: bool,
    /// What it was about.
    objects: u64,
    /// Bytes on the wire; of a dry run those that would be.
    bytes: u64,
    pub(super) sent: u64,
    skipped: u64,
    /// Objects that are nowhere: neither here nor in the remote.
    missing: u64,
    requests: u64,
    /// Records that the Git remote has now and had not.
    records: u64,
    seconds: f64,
}

pub(super) fn run(ui: &mut Ui, global: &Global, args: &Args) -> Result<u8, CliError> {
    let project = open::project(ui, global)?;
    let remote = Remote::choose(&project, args.remote.as_deref())?;
    let roots = if args.all {
        retention::roots(project.user(&project.commits()), Time { epoch_ms: i64::MIN })?
    } else {
        roots_of(&project, &args.revisions)?
    };
    let mut answer = push(ui, &project, &remote, &roots, usize::from(args.jobs), args.dry_run)?;
    // After the data, so that no record names what nobody can get.
    let records = match travel::usual(&project) {
        Some(place) if !args.dry_run && !args.no_records => {
            travel::send(ui, &project, &place, Asking::Allowed).map(Some)
        }
        _ => Ok(None),
    };
    if let Ok(Some(sent)) = &records {
        answer.records = sent.new_there as u64;
    }
    ui.show(&answer)?;
    records.map(|_| 0)
}

/// Returns where everything begins that belongs to the revisions, or to the current commit if there are none.
pub(super) fn roots_of(project: &Project, revisions: &[String]) -> Result<Roots, CliError> {
    roots_in(project, &project.store, revisions)
}

/// Does what [`roots_of`] does, looking for snapshots in `store`.
pub(super) fn roots_in(project: &Project, store: &dyn Store, revisions: &[String]) -> Result<Roots, CliError> {
    let head = ["HEAD".to_owned()];
    let mut snapshots: BTreeSet<SnapshotId> = BTreeSet::new();
    for text in if revisions.is_empty() { &head } else { revisions } {
        snapshots.insert(open::resolve_in(project, store, text)?.snapshot);
    }
    let memory = project.commits();
    Ok(retention::around(&retention::facts(project.user(&memory))?, snapshots))
}

/// Sends everything that `roots` lead to and the remote lacks.
pub(super) fn push(
    ui: &Ui,
    project: &Project,
    remote: &Remote,
    roots: &Roots,
    jobs: usize,
    dry_run: bool,
) -> Result<Answer, CliError> {
    let watch = Stopwatch::start();
    // Nothing that is sent may be taken away meanwhile; where nobody can write, nobody can take away either.
    match project.store.hold() {
        Err(StoreError::Disk(error)) if error.is_refused() => {}
        held => held?,
    }
    let live = retention::reachable(&project.store, roots)?;
    let Connection { bucket, mut catalog } = remote.open(project).map_err(|error| remote.failed(error))?;
    // What was read to find out what is there is no part of what was sent.
    let before = bucket.moved_bytes();
    let planned = Shipment::plan(&project.store, &bucket, &catalog, &live).map_err(|error| remote.failed(error))?;
    if let Some(missing) = in_words(&planned.missing) {
        ui.warn(format!("warning: {missing} neither here nor in the remote: `pv fsck` tells which"));
    }
    let mut answer = Answer {
        remote: remote.name.clone(),
        dry_run,
        objects: planned.objects,
        bytes: 0,
        sent: planned.objects - planned.skipped - planned.missing.len() as u64,
        skipped: planned.skipped,
        missing: planned.missing.len() as u64,
        requests: 0,
        records: 0,
        seconds: 0.0,
    };
    if dry_run {
        answer.bytes = planned.bytes(&project.store).map_err(|error| remote.failed(error))?;
    } else {
        let stop = Stop::on_signals().map_err(|error| CliError::usage(format!("signals cannot be caught: {error}")))?;
        let progress = ui.transfer("Sending", planned.bytes(&project.store).map_err(|error| remote.failed(error))?);
        let go_on = |moved| progress.add(moved) && !stop.is_requested();
        let mut sent = planned.send(&project.store, &bucket, &mut catalog, jobs, &go_on);
        if matches!(sent, Err(RemoteError::Changed)) {
            // Some of what was there is going to go.
            let again =
                catalog.refresh(&bucket).and_then(|()| Shipment::plan(&project.store, &bucket, &catalog, &live));
            sent = again.and_then(|again| again.send(&project.store, &bucket, &mut catalog, jobs, &go_on));
        }
        let sent = sent.map_err(|error| remote.failed(error))?;
        if answer.missing == 0 {
            project.remember_sent(&remote.address.to_string(), &roots.snapshots);
        }
        answer.sent = sent.objects;
    }
    if !dry_run {
        answer.bytes = bucket.moved_bytes() - before;
    }
    answer.requests = bucket.requests();
    answer.seconds = watch.elapsed().as_secs_f64();
    Ok(answer)
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remote = paint(NAME, format!("`{}`", self.remote));
        if self.sent == 0 {
            writeln!(f, "remote {remote} has all {}", count(self.objects, "object"))?;
            return self.write_records(f);
        }
        if self.dry_run {
            let (sent, bytes) = (count(self.sent, "object"), bytes(self.bytes));
            return writeln!(f, "would send {sent} ({bytes}) to remote {remote}, {} there already", self.skipped);
        }
        let elapsed = seconds(std::time::Duration::from_secs_f64(self.seconds));
        let sent = count(self.sent, "object");
        let moved = bytes(self.bytes);
        writeln!(f, "sent {sent} ({moved}) to remote {remote} in {elapsed}, {} there already", self.skipped)?;
        self.write_records(f)
    }
}

impl Answer {
    fn write_records(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.records > 0 { writeln!(f, "sent {} to the Git remote", count(self.records, "record")) } else { Ok(()) }
    }
}
