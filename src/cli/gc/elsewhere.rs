//! `pv gc --remote`: give back the space of a remote.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::super::answer::{bytes, count};
use super::super::fail::{CliError, STORE};
use super::super::reach::Remote;
use super::super::ui::{NAME, Ui, paint};
use super::{Args, DAY_SECONDS};
use crate::host::Time;
use crate::project::Project;
use crate::remote::{self, Address, Connection, Directory, JOBS, Swept, Unfetched, Way};
use crate::retention;
use crate::store::LocalStore;

const HOUR_MS: i64 = 60 * 60 * 1000;

/// Options for collecting garbage in a remote.
#[derive(clap::Args)]
pub(in crate::cli) struct Elsewhere {
    /// Give back the space of this remote instead; without a name of the usual one
    ///
    /// What nothing on record leads to is condemned first, and goes with a collection after the grace period, if nothing leads to it
    /// then. Fetch records before: what others have on record and this clone does not know of would go.
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "", conflicts_with_all = ["undo", "wait", "all"])]
    pub(super) remote: Option<String>,
    /// Of a remote, let what is condemned stay for so many hours
    #[arg(long, value_name = "HOURS", default_value_t = 48, requires = "remote")]
    grace_hours: u32,
}

#[derive(Serialize)]
struct Answer {
    remote: String,
    dry_run: bool,
    condemned: Packs,
    removed: Packs,
    waiting: u64,
    spared: u64,
    sent: u64,
    waiting_for: BTreeSet<String>,
    #[serde(skip)]
    grace_hours: u32,
}

#[derive(Serialize)]
struct Packs {
    packs: u64,
    bytes: u64,
}

/// Collects the garbage of a remote.
pub(super) fn sweep(ui: &mut Ui, project: &Project, name: &str, args: &Args) -> Result<u8, CliError> {
    let remote = Remote::choose(project, Some(name).filter(|name| !name.is_empty()))?;
    let failed = |error| remote.failed(error);
    let since = Time { epoch_ms: Time::now().epoch_ms - i64::from(args.keep_days) * DAY_SECONDS * 1000 };
    let roots = project.roots(since)?;
    let Connection { bucket, mut catalog } = remote.open(project).map_err(failed)?;
    if !args.dry_run {
        project.store.hold()?;
    }
    // What a directory leads to is only known from the directory, which may be there alone.
    let way = Way { bucket: &bucket, catalog: &catalog, jobs: JOBS, progress: &|_| true };
    let closure = |local: &LocalStore| retention::reachable(local, &roots).map_err(Unfetched::Local);
    let lacking = way.survey(&project.store, &closure).map_err(|error| remote.unfetched(error))?;
    if let Some((kind, digest)) = lacking.directories.missing.iter().find(|(kind, _)| remote::leads_on(*kind)) {
        return Err(CliError::usage(format!("{kind} `{digest}` is neither here nor in remote `{}`", remote.name))
            .hint("so it is not known what else is needed, and nothing was taken away; whoever has it can send it: `pv push`")
            .exit(STORE));
    }
    let live = retention::reachable(&project.store, &roots)?;
    let terms = remote::Sweep { grace_ms: i64::from(args.elsewhere.grace_hours) * HOUR_MS, dry_run: args.dry_run };
    let progress = ui.progress_of("Sending", "spans");
    let go_on = |bytes| progress.count(1, bytes);
    let swept = remote::sweep(&project.store, &bucket, &mut catalog, &live, terms, JOBS, &go_on).map_err(failed)?;
    drop(progress);
    if let (Address::Directory(path), false) = (&remote.address, args.dry_run) {
        // What a writer left that was killed is named by nothing.
        Directory::new(path.clone()).sweep(Time::now()).map_err(|error| remote.failed(error.into()))?;
    }
    ui.show(&answer(remote.name, swept, args))?;
    Ok(0)
}

fn answer(remote: String, swept: Swept, args: &Args) -> Answer {
    let packs = |packs: std::collections::BTreeMap<_, u64>| Packs {
        packs: packs.len() as u64,
        bytes: packs.into_values().sum(),
    };
    Answer {
        remote,
        dry_run: args.dry_run,
        condemned: packs(swept.condemned),
        removed: packs(swept.removed),
        waiting: swept.waiting.len() as u64,
        spared: swept.spared.len() as u64,
        sent: swept.sent.records,
        waiting_for: swept.waiting_for,
        grace_hours: args.elsewhere.grace_hours,
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remote = paint(NAME, format!("`{}`", self.remote));
        let (condemned, removed) =
            if self.dry_run { ("would be condemned", "would go") } else { ("condemned", "gone") };
        if self.condemned.packs == 0 && self.removed.packs == 0 && self.waiting == 0 {
            return writeln!(f, "nothing to give back in remote {remote}");
        }
        writeln!(f, "remote {remote}")?;
        if self.removed.packs > 0 {
            writeln!(f, "  {removed}: {} ({})", count(self.removed.packs, "pack"), bytes(self.removed.bytes))?;
        }
        if self.condemned.packs > 0 {
            let hours = count(self.grace_hours.into(), "hour");
            let packs = count(self.condemned.packs, "pack");
            writeln!(
                f,
                "  {condemned}: {packs} ({}); it goes with a collection after {hours}",
                bytes(self.condemned.bytes)
            )?;
        }
        if self.waiting > 0 {
            writeln!(f, "  waiting for the end of the grace period: {}", count(self.waiting, "pack"))?;
        }
        if self.spared > 0 {
            writeln!(f, "  needed again and spared: {}", count(self.spared, "pack"))?;
        }
        if !self.waiting_for.is_empty() {
            writeln!(f, "  waiting for {} that began before", count(self.waiting_for.len() as u64, "push"))?;
        }
        Ok(())
    }
}
