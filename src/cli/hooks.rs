//! `pv hooks`: keep snapshots in step with commits.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read;

use clap::Subcommand;
use serde::Serialize;

use super::Global;
use super::answer::count;
use super::fail::CliError;
use super::open;
use super::push;
use super::reach::Remote;
use super::travel;
use super::ui::{FAINT, NAME, Ui, paint};
use crate::disk::DiskError;
use crate::git::{Asking, CommitId, HOOKS, HookState, hooks};
use crate::host::{self, Time};
use crate::object::{DataRoot, Kind};
use crate::path::ProjectPath;
use crate::project::Project;
use crate::record::{Link, Record, carries_records};
use crate::remote::JOBS;
use crate::retention;
use crate::revision::{RevisionError, snapshot_of_commit};
use crate::snapshot::{
    SnapshotError, capture_data, check_committed_definition, check_definition, differing_pointers, place_entry,
    read_pointers, same_pointers, write_pointers,
};
use crate::store::Store;

/// Of a push of more commits than this, data of the newest goes; `pv push --all` sends that of all.
const COMMITS_MAX: usize = 1000;
/// How many rewritten commits are linked at once; of a longer rebase only the last.
const REWRITTEN_MAX: usize = 50;
/// The Git setting that asks for a trailer in commit messages.
const TRAILER_SETTING: &str = "pv.trailer";
const TRAILER: &str = "Pipeline-Snapshot";
const NO_VERIFY: &str = "`git commit --no-verify` commits all the same";
const NO_VERIFY_PUSH: &str = "`git push --no-verify` pushes all the same";

/// Keep snapshots in step with commits, by Git hooks
///
/// Before a commit, the definition is checked and the data pointers are brought up to
/// date; after it, the commit is linked to its snapshot; after a checkout or merge,
/// data follows its pointers; before a push to a remote, records go there. With `git config pv.trailer true`,
/// commit messages name their snapshot.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install the hooks, beside those that are there
    Install {
        /// Let no push go ahead without its records; else that is only told
        #[arg(long)]
        strict: bool,
    },
    /// Take the hooks out, and put back what was there before
    Uninstall,
    /// Show which hooks are installed
    Status,
    /// Do what a hook does; called by the hooks themselves
    #[command(hide = true)]
    Run {
        /// Fail if what belongs to it cannot be done
        #[arg(long)]
        strict: bool,
        /// The hook
        hook: String,
        /// What Git gives it
        arguments: Vec<String>,
    },
}

#[derive(Serialize)]
struct Answer {
    directory: String,
    /// Whether no push goes ahead without its records.
    strict: bool,
    hooks: BTreeMap<&'static str, &'static str>,
}

pub(super) fn run(ui: &mut Ui, global: &Global, args: &Args) -> Result<u8, CliError> {
    let opened = || -> Result<Project, CliError> { Ok(Project::open(&open::directory(global)?, &global.pipeline)?) };
    if let Verb::Run { strict, hook, arguments } = &args.verb {
        let acted = opened().and_then(|project| act(ui, &project, hook, arguments, *strict));
        return if hook == "pre-commit" {
            acted.map(|()| 0).map_err(|error| error.hint(NO_VERIFY))
        } else if *strict {
            acted.map(|()| 0).map_err(|error| error.also_hint(NO_VERIFY_PUSH))
        } else {
            Ok(told(ui, acted))
        };
    }
    let project = opened()?;
    let directory = project.repository.hooks_directory()?;
    match &args.verb {
        Verb::Install { strict } => {
            let program = host::own_program().ok_or_else(|| CliError::usage("the path of pv itself is not known"))?;
            hooks::install(&directory, &program, project.prefix.as_ref(), *strict).map_err(in_the_way)?;
        }
        Verb::Uninstall => hooks::uninstall(&directory)?,
        Verb::Status | Verb::Run { .. } => {}
    }
    let hooks = hooks::states(&directory)?
        .into_iter()
        .map(|(name, state)| {
            let word = match state {
                HookState::Absent => "absent",
                HookState::Other => "other",
                HookState::Installed => "installed",
                HookState::Chained => "chained",
            };
            (name, word)
        })
        .collect();
    let strict = hooks::is_strict(&directory)?;
    ui.show(&Answer { directory: directory.display().to_string(), strict, hooks })?;
    Ok(0)
}

fn in_the_way(error: DiskError) -> CliError {
    let exists = error.source.kind() == std::io::ErrorKind::AlreadyExists;
    let error = CliError::from(error);
    if exists {
        error.hint("another hook took the place of ours; remove the one of the two that is not wanted")
    } else {
        error
    }
}

fn act(ui: &Ui, project: &Project, hook: &str, arguments: &[String], strict: bool) -> Result<(), CliError> {
    match hook {
        "pre-commit" => before_commit(ui, project),
        "prepare-commit-msg" => add_trailer(project, arguments),
        "post-commit" => {
            link_head(ui, project)?;
            keep_staged(project)
        }
        "post-rewrite" => {
            link_rewritten(ui, project)?;
            // The commits of a rebase bring pointers, and no checkout comes after the last.
            if arguments.first().is_some_and(|by| by == "rebase") { follow_pointers(ui, project) } else { Ok(()) }
        }
        // Git says so when only files are checked out, not a branch.
        "post-checkout" if arguments.get(2).is_some_and(|flag| flag == "0") => Ok(()),
        "post-checkout" => follow_pointers(ui, project),
        // A merge calls no post-commit.
        "post-merge" => {
            link_head(ui, project)?;
            follow_pointers(ui, project)
        }
        "pre-push" => before_push(ui, project, arguments, strict),
        _ => {
            Err(CliError::usage(format!("there is no hook `{hook}`"))
                .hint(format!("the hooks are {}", HOOKS.join(", "))))
        }
    }
}

/// What is no condition of the commit must not look like a failure of it.
fn told(ui: &Ui, result: Result<(), CliError>) -> u8 {
    if let Err(error) = result {
        ui.warn(error.text(false).unwrap_or_default().trim_end());
    }
    0
}

/// The definition that is committed must be good, and the pointers must say what the data is now.
fn before_commit(ui: &Ui, project: &Project) -> Result<(), CliError> {
    let commit = project.repository.commit_of_index()?;
    let pipeline = match check_committed_definition(project.site(), &commit) {
        Ok(definition) => definition.pipeline,
        Err(SnapshotError::NoPipeline { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    project.seen.learn();
    // The pointers rely on what is in the store already.
    project.store.hold()?;
    let pointed = capture_data(project.site(), &pipeline, &project.store)?;
    project.remember();
    if !pointed.is_empty() {
        project.store.sync()?;
    }
    write_pointers(project.site(), &pointed)?;
    let differing = differing_pointers(project.site(), &commit)?;
    project.repository.stage(&in_repository(project, &differing))?;
    for path in &differing {
        ui.say(format!("pv: {path} is part of the commit"));
    }
    Ok(())
}

/// After `git commit FILE`, the index still has the pointers of before: it was written before the hook that changed them.
fn keep_staged(project: &Project) -> Result<(), CliError> {
    let Some(head) = project.repository.head()?.commit else { return Ok(()) };
    let pointers = same_pointers(project.site(), &head)?;
    Ok(project.repository.stage(&in_repository(project, &pointers))?)
}

fn in_repository(project: &Project, paths: &[ProjectPath]) -> Vec<ProjectPath> {
    let whole = |path: &ProjectPath| match &project.prefix {
        Some(prefix) => prefix.join(path.as_bytes()),
        None => path.clone(),
    };
    paths.iter().map(whole).collect()
}

fn add_trailer(project: &Project, arguments: &[String]) -> Result<(), CliError> {
    let Some(file) = arguments.first().filter(|_| project.repository.flag(TRAILER_SETTING) == Some(true)) else {
        return Ok(());
    };
    let commit = project.repository.commit_of_index()?;
    let commits = project.commits();
    match snapshot_of_commit(&project.names(&commits), &commit) {
        Ok(snapshot) => Ok(project.repository.add_trailer(file, TRAILER, &snapshot.to_string())?),
        // A commit without a pipeline has no snapshot.
        Err(RevisionError::Snapshot(SnapshotError::NoPipeline { .. })) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn link_head(ui: &Ui, project: &Project) -> Result<(), CliError> {
    match project.repository.head()?.commit {
        Some(commit) => link(ui, project, &[commit]),
        None => Ok(()),
    }
}

/// Git gives old and new commit, one pair a line.
fn link_rewritten(ui: &Ui, project: &Project) -> Result<(), CliError> {
    let text = given("the rewritten commits")?;
    let new = text.lines().filter_map(|line| line.split_whitespace().nth(1)?.parse().ok());
    let commits: Vec<CommitId> = new.collect();
    if commits.len() > REWRITTEN_MAX { link_head(ui, project) } else { link(ui, project, &commits) }
}

/// Returns what Git gives a hook on standard input.
fn given(what: &str) -> Result<String, CliError> {
    let mut text = String::new();
    let read = std::io::stdin().read_to_string(&mut text);
    read.map_err(|error| CliError::usage(format!("{what} cannot be read: {error}")))?;
    Ok(text)
}

/// Git gives the name of the remote, or else its address.
fn before_push(ui: &Ui, project: &Project, arguments: &[String], strict: bool) -> Result<(), CliError> {
    let refs = given("the refs that are pushed")?;
    // An address is no place that anybody has chosen to share with.
    let named = |remote: &&String| project.repository.remotes().contains(remote);
    match arguments.first().filter(named) {
        Some(remote) if shares(&refs) => {
            // What goes wrong with data is no reason to keep records back, unless nothing is to go without all of it.
            let data = send_data(ui, project, remote, &refs, strict);
            if strict {
                data?;
                return send_records(ui, project, remote);
            }
            let records = send_records(ui, project, remote);
            data.and(records)
        }
        _ => Ok(()),
    }
}

/// Sends the data and results of the commits that are pushed to the usual remote of the project, if there is one.
fn send_data(ui: &Ui, project: &Project, remote: &str, refs: &str, strict: bool) -> Result<(), CliError> {
    let lines: Vec<Vec<&str>> = refs.lines().map(|line| line.split(' ').collect()).collect();
    let commits =
        |at: usize| lines.iter().filter_map(|line| line.get(at)?.parse::<CommitId>().ok()).collect::<Vec<_>>();
    let (tips, mut known) = (commits(1), commits(3));
    known.extend(
        project.repository.commits_below(&format!("refs/remotes/{remote}/"))?.into_iter().map(|(_, commit)| commit),
    );
    let memory = project.commits();
    let snapshot = |commit: &CommitId| match snapshot_of_commit(&project.names(&memory), commit) {
        Ok(snapshot) => Ok(Some(snapshot)),
        // A commit without a pipeline has no snapshot, and one with a mistake in it is told of when it is used.
        Err(RevisionError::Snapshot(_) | RevisionError::Git(_)) => Ok(None),
        Err(error) => Err(error),
    };
    let mut snapshots = BTreeSet::new();
    for commit in project.repository.commits_since(&tips, &known, COMMITS_MAX)? {
        let links = project.journal.links_of(Some(&commit.to_string()))?;
        snapshots.extend(links.iter().filter(|(_, link)| !link.dirty).map(|(_, link)| link.snapshot));
    }
    for tip in &tips {
        snapshots.extend(snapshot(tip)?);
    }
    let Some(place) = Remote::usual(project)? else {
        return if strict && !snapshots.is_empty() { Remote::choose(project, None).map(drop) } else { Ok(()) };
    };
    // What an earlier push has sent need not be asked for again.
    let sent = project.sent_to(&place.address.to_string());
    snapshots.retain(|snapshot| !sent.contains(snapshot));
    if snapshots.is_empty() {
        return Ok(());
    }
    if place.address.is_read_only() {
        return Ok(());
    }
    let roots = retention::around(&retention::facts(project.user(&memory))?, snapshots);
    let sent = push::push(ui, project, &place, &roots, JOBS, false)?;
    if sent.sent > 0 {
        ui.say(format!("pv: {} sent to remote `{}`", count(sent.sent, "object"), place.name));
    }
    Ok(())
}

/// Returns whether a push shares anything. Git tells of each ref: its name and commit here, its name and commit there.
fn shares(refs: &str) -> bool {
    let pushed: Vec<Vec<&str>> = refs.lines().map(|line| line.split(' ').collect()).collect();
    let deletes = |line: &Vec<&str>| line.get(1).is_some_and(|commit| commit.bytes().all(|byte| byte == b'0'));
    // Who pushes records by hand would find them moved meanwhile.
    let is_by_hand = |line: &Vec<&str>| line.get(2).is_some_and(|reference| carries_records(reference));
    !pushed.iter().any(is_by_hand) && (pushed.is_empty() || !pushed.iter().all(deletes))
}

/// Sends records, after data, so that no record names what nobody can get.
fn send_records(ui: &Ui, project: &Project, remote: &str) -> Result<(), CliError> {
    if project.journal.is_sent(&project.repository, remote)? {
        return Ok(());
    }
    let sent = travel::send(ui, project, remote, Asking::Never)?;
    if sent.new_there > 0 {
        ui.say(format!("pv: {} sent to `{remote}`", count(sent.new_there as u64, "record")));
    }
    Ok(())
}

fn link(ui: &Ui, project: &Project, commits: &[CommitId]) -> Result<(), CliError> {
    project.store.hold()?;
    let memory = project.commits();
    let mut records = Vec::new();
    for commit in commits {
        let snapshot = match snapshot_of_commit(&project.names(&memory), commit) {
            Ok(snapshot) => snapshot,
            // A commit without a pipeline has no snapshot.
            Err(RevisionError::Snapshot(SnapshotError::NoPipeline { .. })) => continue,
            Err(error) => return Err(error.into()),
        };
        let commit = commit.to_string();
        let known = project.journal.links_of(Some(&commit))?;
        if known.iter().any(|(_, link)| link.snapshot == snapshot && !link.dirty && link.pipeline == project.pipeline) {
            continue;
        }
        records.push(Record::Link(Link {
            snapshot,
            pipeline: project.pipeline.clone(),
            commit: Some(commit),
            dirty: false,
            time: Time::now(),
            by: open::by(&project.repository),
            message: None,
        }));
    }
    if !records.is_empty() {
        project.journal.add(&records)?;
        open::exchange(ui, project);
    }
    Ok(())
}

/// Puts the data that the pointers name into the working tree, unless that would lose something.
fn follow_pointers(ui: &Ui, project: &Project) -> Result<(), CliError> {
    let pipeline = match check_definition(project.site()) {
        Ok(definition) => definition.pipeline,
        Err(SnapshotError::NoPipeline { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for (path, wanted) in read_pointers(project.site(), &pipeline)? {
        let place = path.under(&project.root);
        let dry = crate::store::DryStore::over(&project.store);
        // A root may itself be a link to where there is room for it.
        let behind_link = place.is_symlink();
        let real = if behind_link { std::fs::canonicalize(&place).unwrap_or(place) } else { place };
        let seen = (!behind_link).then_some((&project.seen, &path));
        let here = crate::snapshot::capture_path(&real, seen, &dry)?;
        if here.as_ref().map(crate::object::Entry::digest) == Some(wanted.digest()) {
            continue;
        }
        if behind_link {
            ui.warn(format!("pv: data `{path}` lies behind a link, so it stays as it is"));
            continue;
        }
        let kept = match &here {
            None => true,
            Some(entry) => {
                let kind =
                    if matches!(entry, crate::object::Entry::Directory { .. }) { Kind::Tree } else { Kind::Blob };
                project.store.length(kind, entry.digest())?.is_some()
            }
        };
        if !kept {
            ui.warn(format!("pv: data `{path}` was changed here and is in no snapshot, so it stays as it is"));
            continue;
        }
        let entry = match wanted {
            DataRoot::File { executable, size, id } => crate::object::Entry::File { executable, size, id },
            DataRoot::Directory { sized, id } => crate::object::Entry::Directory { sized, id },
        };
        let kind = if matches!(wanted, DataRoot::Directory { .. }) { Kind::Tree } else { Kind::Blob };
        if project.store.length(kind, wanted.digest())?.is_none() {
            ui.warn(format!(
                "pv: data `{path}` ({}) is not in this clone's store; `pv pull` gets it from a remote",
                wanted.digest().short()
            ));
            continue;
        }
        place_entry(&project.store, &project.root, &path, &entry, &|_, _| true)?;
        ui.say(format!("pv: data `{path}` brought to {}", wanted.digest().short()));
    }
    Ok(())
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Hooks in {}", paint(NAME, &self.directory))?;
        for name in HOOKS {
            let strict = if self.strict && name == "pre-push" { ", strict" } else { "" };
            let text = match self.hooks.get(name).copied() {
                Some("installed") => "installed".to_owned(),
                Some("chained") => "installed, calls the one that was there first".to_owned(),
                Some("other") => paint(FAINT, "another program's"),
                _ => paint(FAINT, "not installed"),
            };
            writeln!(f, "  {name:18}  {text}{strict}")?;
        }
        Ok(())
    }
}
