//! `pv status`: what would run, and why; which data changed.

use std::fmt;

use serde::Serialize;

use super::Global;
use super::answer::{bytes, count, short};
use super::fail::CliError;
use super::open;
use super::ui::{FAINT, GOOD, NAME, NOTE, Ui, paint};
use crate::disk;
use crate::object::{DataRoot, SnapshotId};
use crate::path::ProjectPath;
use crate::pipeline;
use crate::project::Project;
use crate::run::{Judged, Reason, Verdict, plan};
use crate::snapshot::{Captured, capture_working, read_snapshot};
use crate::store::DryStore;

/// Show which steps would run and why, and which data changed
///
/// Reads the working tree, writes nothing.
#[derive(clap::Args)]
pub(super) struct Args {}

#[derive(Serialize)]
struct Answer {
    snapshot: SnapshotId,
    version: Option<String>,
    commit: Option<String>,
    dirty: bool,
    steps: Vec<StepStatus>,
    data: Vec<DataStatus>,
}

#[derive(Serialize)]
struct StepStatus {
    step: String,
    verdict: &'static str,
    reason: String,
    /// Outputs of a current step that are not in the working tree.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<ProjectPath>,
}

#[derive(Serialize)]
struct DataStatus {
    path: ProjectPath,
    change: &'static str,
    files: u64,
    bytes: u64,
    old_files: Option<u64>,
    old_bytes: Option<u64>,
}

pub(super) fn run(ui: &mut Ui, global: &Global, _args: &Args) -> Result<u8, CliError> {
    let project = open::project(ui, global)?;
    // Whether the store still has every file that is known from before makes no difference, unless one has to be read.
    let answer = answer(ui, &project, &DryStore::of_names(&project.store))
        .or_else(|_| answer(ui, &project, &DryStore::over(&project.store)))?;
    ui.show(&answer)?;
    Ok(0)
}

fn answer(ui: &Ui, project: &Project, dry: &DryStore<'_>) -> Result<Answer, CliError> {
    let captured = {
        let progress = ui.progress("Hashing");
        capture_working(project.site(), dry, &|files, bytes| progress.count(files, bytes))?
    };
    let named = crate::revision::version_of(&project.names(&project.commits()), captured.id)?;
    // What a run would tell the steps that ask for it.
    let version = named.clone().or_else(|| captured.pipeline().version.clone());
    let mut steps = open::Steps::new(project, captured.pipeline(), &captured.params, version.as_deref())?;
    let judged = plan(&steps.work(&captured.snapshot, dry)?)?;
    let (commit, dirty) = open::base(project, &captured)?;
    let steps = captured.pipeline().steps.iter().zip(judged);
    Ok(Answer {
        snapshot: captured.id,
        version: named,
        commit,
        dirty,
        steps: steps.map(|(step, judged)| status(project, step, judged)).collect::<Result<_, CliError>>()?,
        data: data(project, &captured)?,
    })
}

fn status(project: &Project, step: &pipeline::Step, judged: Judged) -> Result<StepStatus, CliError> {
    let mut missing = Vec::new();
    let verdict = match (&judged.verdict, &judged.reason) {
        (Verdict::Reuse(result), _) => {
            for output in &result.outputs {
                if disk::look(&output.path.under(&project.root))?.is_none() {
                    missing.push(output.path.clone());
                }
            }
            "current"
        }
        (Verdict::Run, Reason::FirstTime) => "never-run",
        (Verdict::Run, _) => "stale",
    };
    Ok(StepStatus { step: step.name.clone(), verdict, reason: judged.reason.to_string(), missing })
}

/// Compares the data roots with those of the last snapshot that was taken here.
fn data(project: &Project, captured: &Captured) -> Result<Vec<DataStatus>, CliError> {
    let last = project.journal.links()?.into_iter().map(|(_, link)| link).find(|l| l.pipeline == project.pipeline);
    let old: Vec<(ProjectPath, DataRoot)> = match last {
        Some(link) => read_snapshot(&project.store, link.snapshot).map(|s| s.data).unwrap_or_default(),
        None => Vec::new(),
    };
    let before = |path: &ProjectPath| old.iter().find(|(other, _)| other == path).map(|(_, root)| *root);
    let mut statuses: Vec<DataStatus> = captured
        .snapshot
        .data
        .iter()
        .map(|(path, root)| {
            let old = before(path);
            let change = match old {
                None => "added",
                Some(old) if old.digest() == root.digest() => "unchanged",
                Some(_) => "changed",
            };
            DataStatus {
                path: path.clone(),
                change,
                files: root.sized().files,
                bytes: root.sized().bytes,
                old_files: old.map(|old| old.sized().files),
                old_bytes: old.map(|old| old.sized().bytes),
            }
        })
        .collect();
    for (path, root) in old.iter().filter(|(path, _)| !captured.snapshot.data.iter().any(|(p, _)| p == path)) {
        let sized = root.sized();
        statuses.push(DataStatus {
            path: path.clone(),
            change: "removed",
            files: 0,
            bytes: 0,
            old_files: Some(sized.files),
            old_bytes: Some(sized.bytes),
        });
    }
    Ok(statuses)
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot {}", paint(NAME, self.snapshot.short()))?;
        if let Some(version) = &self.version {
            write!(f, " {}", paint(NAME, version))?;
        }
        match (&self.commit, self.dirty) {
            (Some(commit), false) => writeln!(f, ", commit {}", short(commit))?,
            (Some(commit), true) => writeln!(f, ", commit {} {}", short(commit), paint(NOTE, "with changes"))?,
            (None, _) => writeln!(f, ", no commit yet")?,
        }
        let width = self.steps.iter().map(|step| step.step.chars().count()).max().unwrap_or_default();
        for step in &self.steps {
            let verdict = format!("{:9}", step.verdict);
            let verdict = paint(if step.verdict == "current" { GOOD } else { NOTE }, verdict);
            writeln!(f, "  {:width$}  {verdict}  {}", step.step, step.reason)?;
            for path in &step.missing {
                writeln!(f, "  {:width$}             {path} is not here; `pv run` puts it back", "")?;
            }
        }
        for data in &self.data {
            let now = format!("{}, {}", count(data.files, "file"), bytes(data.bytes));
            let text = match (data.old_files, data.old_bytes) {
                (Some(files), Some(old)) if data.change != "unchanged" => {
                    format!("{}, {} -> {now}", count(files, "file"), bytes(old))
                }
                _ => now,
            };
            let style = if data.change == "unchanged" { FAINT } else { NOTE };
            writeln!(f, "  data {}  {}  {text}", data.path, paint(style, data.change))?;
        }
        Ok(())
    }
}
