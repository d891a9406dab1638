//! `pv checkout`: bring files or outputs of a version into the working tree.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::Global;
use super::answer::{bytes, count};
use super::fail::CliError;
use super::open;
use super::reach::{Reach, Reaching};
use super::run::{Committed, restoring};
use super::ui::{NAME, Ui, paint};
use crate::hash::Digest;
use crate::object::{Entry, Kind, SnapshotId};
use crate::path::ProjectPath;
use crate::pipeline::Pipeline;
use crate::project::Project;
use crate::record::{Output, RunVerdict};
use crate::run::{Placing, Restoring, RunError, restore};
use crate::snapshot::{CheckoutMode, View, for_each_file};
use crate::store::Store;

/// How many paths are named in the answer.
const LINES_MAX: usize = 100;
/// How many paths are named in one error.
const PATHS_NAMED: usize = 10;

/// Bring files, data or outputs of a version into the working tree
///
/// Without paths: everything that the version has, its outputs where it has been
/// run. What you changed since is never overwritten without `--force`; files that the
/// version does not have stay. HEAD and the index are not touched.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A version, a Git revision, or the first digits of a snapshot or run
    revision: String,
    /// Files or directories, relative to where you are
    paths: Vec<PathBuf>,
    /// Overwrite what was changed here
    #[arg(short, long)]
    force: bool,
    /// Let large files be read-only links into the store, which take no room here: to edit one, copy it first
    ///
    /// Only a file that the store keeps whole can be linked. One that it keeps in pieces is
    /// made whole first, beside its pieces, and takes its room in the store a second time; the
    /// answer says by how much the store grew.
    #[arg(long)]
    link: bool,
    #[command(flatten)]
    reaching: Reaching,
}

#[derive(Serialize)]
struct Answer {
    snapshot: SnapshotId,
    version: Option<String>,
    written: Vec<ProjectPath>,
    unchanged: usize,
    /// By how much `--link` made the store grow.
    store_grew_bytes: u64,
}

pub(super) fn run(ui: &mut Ui, global: &Global, args: &Args) -> Result<u8, CliError> {
    let project = open::project(ui, global)?;
    let fetched = ui.progress_of("Fetching", "objects");
    let reach = Reach::new(&project, args.reaching.offline, &fetched)?;
    let done = checkout(ui, global, &project, &reach, args);
    reach.tell(ui);
    done
}

fn checkout(ui: &mut Ui, global: &Global, project: &Project, reach: &Reach<'_>, args: &Args) -> Result<u8, CliError> {
    let named = open::resolve_in(project, reach.store(), &args.revision)?;
    reach.have(named.snapshot, false)?;
    let opened = open::open_in(reach.store(), &named)?;
    let view = View::new(reach.store(), &opened.snapshot);
    let outputs = outputs(project, named.snapshot, named.run.as_ref().map(|(_, run)| &**run))?;
    let from = open::directory(global)?;
    let is_root = |given: &PathBuf| std::fs::canonicalize(from.join(given)).is_ok_and(|real| real == project.root);
    let wanted = if args.paths.iter().any(is_root) || args.paths.is_empty() {
        everything(&view, &outputs)?
    } else {
        let mut wanted = Vec::new();
        for given in &args.paths {
            let path = project
                .locate(&from, given)
                .ok_or_else(|| CliError::usage(format!("`{}` is not in the project", given.display())))?;
            wanted.extend(find(&view, &outputs, &path, &named.text)?);
        }
        wanted
    };
    reach.have_outputs(&wanted)?;
    let memory = project.restored();
    let changed: BTreeSet<ProjectPath> =
        project.repository.changed_paths(project.prefix.as_ref())?.into_iter().collect();
    let head = Committed::new(project);
    // A tracked file that Git calls unchanged can be had back from Git.
    let known =
        |path: &ProjectPath| -> Option<Digest> { if changed.contains(path) { None } else { head.digest(path) } };
    let known = |path: &ProjectPath| known(path).or_else(|| kept(project, &opened.pipeline, path));
    let restored = {
        let progress = ui.progress("Writing");
        let told = |files, bytes| progress.count(files, bytes);
        let mode = if args.link { CheckoutMode::Link } else { CheckoutMode::Copy };
        let restoring = restoring(project, reach.store(), &memory, &known);
        let placing = Placing { mode, progress: &told, ..restoring.placing };
        restore(&Restoring { placing, ..restoring }, &wanted, args.force)
    };
    // Told also where the rest failed: what was made whole until then stays.
    let store_grew_bytes = project.store.unpacked_bytes();
    if store_grew_bytes > 0 {
        ui.warn(format!(
            "note: the store grew by {}: what it kept in pieces is there a second time, whole, to be linked",
            bytes(store_grew_bytes)
        ));
    }
    let restored = restored.map_err(refused)?;
    ui.show(&Answer {
        snapshot: named.snapshot,
        version: named.version,
        written: restored.written,
        unchanged: restored.unchanged,
        store_grew_bytes,
    })?;
    Ok(0)
}

/// Returns the digest of a file of data or inside an output, if the store has its bytes: Git does not, and never will.
fn kept(project: &Project, pipeline: &Pipeline, path: &ProjectPath) -> Option<Digest> {
    let outputs = pipeline.steps.iter().flat_map(|step| step.outputs.iter().chain(&step.metrics));
    if !outputs.chain(&pipeline.data).any(|root| path.is_within(root)) {
        return None;
    }
    let (digest, size) = Digest::of_file(&path.under(&project.root)).ok()?;
    (project.store.length(Kind::Blob, digest).ok()? == Some(size)).then_some(digest)
}

/// What is in the way may be a file of any kind, not only an output that `pv` wrote.
fn refused(error: RunError) -> CliError {
    let RunError::Edited { paths } = error else { return error.into() };
    let mut names: Vec<_> = paths.iter().take(PATHS_NAMED).map(|path| format!("`{path}`")).collect();
    let more = paths.len().saturating_sub(PATHS_NAMED);
    if more > 0 {
        names.push(format!("{more} more"));
    }
    let verb = if paths.len() == 1 { "has" } else { "have" };
    CliError::usage(format!("{} {verb} local changes; nothing was overwritten", names.join(", ")))
        .hint("keep your version elsewhere, or let it be overwritten with `--force`")
}

/// Returns the outputs that are on record for the snapshot: of the run that was named, or the newest good one.
pub(super) fn outputs(
    project: &Project,
    snapshot: SnapshotId,
    named: Option<&crate::record::Run>,
) -> Result<BTreeMap<ProjectPath, Output>, CliError> {
    let by_path = |run: &crate::record::Run| {
        run.steps.iter().flat_map(|step| &step.outputs).map(|o| (o.path.clone(), o.clone())).collect()
    };
    if let Some(run) = named {
        return Ok(by_path(run));
    }
    for run in project.journal.runs()? {
        let (_, run) = run?;
        if run.snapshot == snapshot && run.verdict != RunVerdict::Failed {
            return Ok(by_path(&run));
        }
    }
    Ok(BTreeMap::new())
}

/// Files are restored one by one, so that what lies beside them stays.
fn everything(view: &View<'_>, outputs: &BTreeMap<ProjectPath, Output>) -> Result<Vec<Output>, CliError> {
    let mut wanted = Vec::new();
    let snapshot = view.snapshot();
    below(view, None, &Entry::Directory { sized: crate::object::Sized::default(), id: snapshot.tree }, &mut wanted)?;
    for (path, _) in &snapshot.data {
        if let Some(entry) = view.entry(path)? {
            below(view, Some(path), &entry, &mut wanted)?;
        }
    }
    wanted.extend(outputs.values().cloned());
    Ok(wanted)
}

pub(super) fn find(
    view: &View<'_>,
    outputs: &BTreeMap<ProjectPath, Output>,
    path: &ProjectPath,
    revision: &str,
) -> Result<Vec<Output>, CliError> {
    let mut wanted = Vec::new();
    if let Some(entry) = view.entry(path)? {
        below(view, Some(path), &entry, &mut wanted)?;
    }
    for (root, _) in view.data_below(path) {
        if let Some(entry) = view.entry(root)? {
            below(view, Some(root), &entry, &mut wanted)?;
        }
    }
    for output in outputs.values() {
        if output.path.is_within(path) {
            wanted.push(output.clone());
        } else if let Some(rest) = path.strip(&output.path)
            && let Entry::Directory { id, .. } = output.entry()
            && let Some(entry) = view.below(id, &rest)?
        {
            below(view, Some(path), &entry, &mut wanted)?;
        }
    }
    if wanted.is_empty() {
        return Err(CliError::usage(format!("`{revision}` has no `{path}`"))
            .hint("outputs are there once the version has been run: `pv run` with the revision"));
    }
    Ok(wanted)
}

fn below(view: &View<'_>, path: Option<&ProjectPath>, entry: &Entry, wanted: &mut Vec<Output>) -> Result<(), CliError> {
    match (entry, path) {
        (Entry::Directory { id, .. }, _) => for_each_file(view.store(), *id, path, &mut |path, entry| {
            if !matches!(entry, Entry::Directory { .. }) {
                wanted.extend(Output::of(path.clone(), entry));
            }
            Ok(())
        })?,
        (entry, Some(path)) => wanted.extend(Output::of(path.clone(), entry)),
        (_, None) => {}
    }
    Ok(())
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.version.clone().unwrap_or_else(|| self.snapshot.short());
        for path in self.written.iter().take(LINES_MAX) {
            writeln!(f, "{path}")?;
        }
        let more = self.written.len().saturating_sub(LINES_MAX);
        if more > 0 {
            writeln!(f, "... and {more} more")?;
        }
        let written = count(self.written.len() as u64, "file");
        write!(f, "{written} from {}, {} unchanged", paint(NAME, name), self.unchanged)?;
        if self.store_grew_bytes > 0 {
            write!(f, "; the store grew by {}", bytes(self.store_grew_bytes))?;
        }
        writeln!(f)
    }
}
