//! `pv fsck --remote`: is everything in a remote what was sent; and what is lost here, taken from there.

use std::fmt;

use serde::Serialize;

use super::super::answer::{bytes, count};
use super::super::fail::{CliError, STORE};
use super::super::reach::Remote;
use super::super::ui::{BAD, FAINT, GOOD, NAME, Ui, paint};
use super::Args;
use crate::host::Time;
use crate::project::Project;
use crate::remote::{self, Connection, Depth, JOBS, Lacking, RemoteError, Way, inspect};
use crate::store::{Live, Store};

/// Options for a check of a remote.
#[derive(clap::Args)]
pub(in crate::cli) struct Elsewhere {
    /// Check this remote instead of the store here; without a name the usual one
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "", conflicts_with_all = ["max_time", "dry_run"])]
    pub(super) remote: Option<String>,
    /// Of a remote, read and hash so much of the content, in percent; its structure is checked in any case
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0, requires = "remote")]
    sample: f64,
    /// Of a remote, read and hash everything
    #[arg(long, requires = "remote", conflicts_with = "sample")]
    whole: bool,
}

#[derive(Serialize)]
struct Answer {
    remote: String,
    packs: u64,
    records: u64,
    bytes: u64,
    whole: bool,
    damaged: Vec<Damaged>,
    repaired: Option<Repaired>,
}

#[derive(Serialize)]
struct Damaged {
    pack: String,
    problem: String,
    repaired: bool,
}

#[derive(Serialize)]
struct Repaired {
    packs: u64,
    sent: u64,
    lost: u64,
}

/// Checks a remote, and mends it from here if that is asked for.
pub(super) fn check(ui: &mut Ui, project: &Project, name: &str, args: &Args) -> Result<u8, CliError> {
    let remote = Remote::choose(project, Some(name).filter(|name| !name.is_empty()))?;
    let failed = |error| remote.failed(error);
    let bucket = remote::connect(&remote.address).map_err(failed)?;
    let memory = project.memory_of_remote(&remote.address.to_string());
    let seed = u64::try_from(Time::now().epoch_ms).unwrap_or_default();
    let depth =
        if args.elsewhere.whole { Depth::Whole } else { Depth::Sample { percent: args.elsewhere.sample, seed } };
    let (found, catalog) = {
        let progress = ui.progress_of("Checking", "spans");
        inspect(&*bucket, &memory, depth, &|bytes| progress.count(1, bytes)).map_err(failed)?
    };
    let mended = if args.repair && !found.damaged.is_empty() {
        project.store.hold()?;
        let progress = ui.progress_of("Sending", "spans");
        let go_on = |bytes| progress.count(1, bytes);
        Some(found.mend(&project.store, &*bucket, catalog, JOBS, &go_on).map_err(failed)?)
    } else {
        None
    };
    let is_mended = |pack| mended.as_ref().is_some_and(|mended| mended.mended.contains(pack));
    let damaged = found.damaged.iter().map(|(pack, flaw)| Damaged {
        pack: pack.to_string(),
        problem: flaw.to_string(),
        repaired: is_mended(pack),
    });
    let answer = Answer {
        remote: remote.name.clone(),
        packs: found.packs,
        records: found.records,
        bytes: found.bytes,
        whole: args.elsewhere.whole,
        damaged: damaged.collect(),
        repaired: mended.as_ref().map(|mended| Repaired {
            packs: mended.mended.len() as u64,
            sent: mended.sent.records,
            lost: mended.lost.len() as u64,
        }),
    };
    ui.show(&answer)?;
    let is_well =
        answer.damaged.iter().all(|damaged| damaged.repaired) && mended.is_none_or(|mended| mended.lost.is_empty());
    if !is_well && !args.repair {
        ui.say(format!(
            "{} `pv fsck --remote {} --repair` sends again what is whole here",
            paint(GOOD, "hint:"),
            remote.name
        ));
    }
    Ok(if is_well { 0 } else { STORE })
}

/// Takes objects that are lost here from a remote; returns those that are here now.
pub(super) fn take(project: &Project, remote: &Remote, lost: &Live) -> Result<Live, RemoteError> {
    let Connection { bucket, catalog } = remote.open(project)?;
    let way = Way { bucket: &bucket, catalog: &catalog, jobs: JOBS, progress: &|_| true };
    let lacking = Lacking { objects: lost.len() as u64, files: lost.clone(), ..Lacking::default() };
    way.fetch(&project.store, &lacking)?;
    let is_here = |(kind, digest): &&(_, _)| matches!(project.store.length(*kind, *digest), Ok(Some(_)));
    Ok(lost.iter().filter(is_here).copied().collect())
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = if self.whole { "all" } else { "of them a sample of" };
        let records = count(self.records, "record");
        writeln!(
            f,
            "remote {}: {}, {read} {records} ({}) read",
            paint(NAME, format!("`{}`", self.remote)),
            count(self.packs, "pack"),
            bytes(self.bytes)
        )?;
        for Damaged { pack, problem, repaired } in &self.damaged {
            let mark = if *repaired { paint(GOOD, "repaired") } else { paint(BAD, "damaged") };
            writeln!(f, "  {mark} packs/{}/{}: {problem}", &pack[..2], paint(FAINT, &pack[..12]))?;
        }
        match &self.repaired {
            Some(Repaired { lost: 0, sent, .. }) => writeln!(f, "sent again: {}", count(*sent, "record")),
            Some(Repaired { lost, sent, .. }) => {
                let (sent, lost) = (count(*sent, "record"), count(*lost, "record"));
                writeln!(f, "sent again: {sent}; {lost} neither here nor whole there")
            }
            None if self.damaged.is_empty() => writeln!(f, "all is well"),
            None => Ok(()),
        }
    }
}
