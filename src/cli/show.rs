//! `pv show`: a snapshot, a run, a step's log, an object.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::Global;
use super::answer::{bytes, count, seconds, short};
use super::fail::{CliError, DIFFERENCE};
use super::open;
use super::ui::{BAD, FAINT, GOOD, NAME, NOTE, Ui, paint};
use crate::hash::Digest;
use crate::object::{Kind, Node, RecordId, SnapshotId};
use crate::project::Project;
use crate::record::{Layer, Link, Run, RunVerdict, StepVerdict, Verification};
use crate::revision::{Named, RevisionError};
use crate::run::Conflict;
use crate::store::Store;

/// Show a snapshot, a run, a step's log, or an object
///
/// Given a version, a Git revision or a snapshot: what is in it and what came of
/// it. Given a run: what each step did. Given the digest of a file: its content.
#[derive(clap::Args)]
#[command(override_usage = "pv show [OPTIONS] <REVISION>\n       pv show --conflicts")]
pub(super) struct Args {
    /// A version, a Git revision, or the first digits of a snapshot, run or object
    #[arg(required_unless_present = "conflicts")]
    revision: Option<String>,
    /// Print what this step printed in the run, or in the newest run of the snapshot
    #[arg(long, value_name = "STEP")]
    log: Option<String>,
    /// List the steps that wrote different outputs though they depended on the same; exit code 1 if there are any
    #[arg(long, conflicts_with_all = ["revision", "log"])]
    conflicts: bool,
}

pub(super) fn run(ui: &mut Ui, global: &Global, args: &Args) -> Result<u8, CliError> {
    let project = open::project(ui, global)?;
    let Some(revision) = &args.revision else { return show_conflicts(ui, &project) };
    let named = match crate::revision::resolve(&project.names(&project.commits()), revision) {
        Ok(named) => named,
        Err(RevisionError::Unknown { text, similar }) => {
            return match object(&project, revision)? {
                Some((kind, digest)) => show_object(ui, &project, kind, digest),
                None => Err(RevisionError::Unknown { text, similar }.into()),
            };
        }
        Err(error) => return Err(error.into()),
    };
    match (&args.log, &named.run) {
        (Some(step), _) => show_log(ui, &project, &named, step),
        (None, Some((id, run))) => {
            let verification = newest_verification(&project, named.snapshot)?;
            ui.show(&RunAnswer { run: *id, record: run, blas: blas(&project, run)?, verification })?;
            Ok(0)
        }
        (None, None) => show_snapshot(ui, &project, &named),
    }
}

fn show_conflicts(ui: &mut Ui, project: &Project) -> Result<u8, CliError> {
    let conflicts = crate::run::conflicts(&project.journal)?;
    let code = if conflicts.is_empty() { 0 } else { DIFFERENCE };
    ui.show(&ConflictsAnswer { conflicts })?;
    Ok(code)
}

#[derive(Serialize)]
struct ConflictsAnswer {
    conflicts: Vec<Conflict>,
}

impl fmt::Display for ConflictsAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.conflicts.is_empty() {
            return writeln!(f, "no step is known to have written different outputs under one key");
        }
        for conflict in &self.conflicts {
            writeln!(f, "step     {}  key {}", paint(NAME, &conflict.step), conflict.key.short())?;
            for side in &conflict.results {
                let runs: Vec<_> = side.runs.iter().map(RecordId::short).collect();
                let runs =
                    if runs.is_empty() { "no run on record".to_owned() } else { format!("run {}", runs.join(", ")) };
                for output in &side.outputs {
                    let size = bytes(output.size);
                    writeln!(
                        f,
                        "         {}  {}  {size}  {}",
                        output.digest.short(),
                        output.path,
                        paint(FAINT, &runs)
                    )?;
                }
            }
        }
        Ok(())
    }
}

/// Returns the one object whose digest begins so.
fn object(project: &Project, text: &str) -> Result<Option<(Kind, Digest)>, CliError> {
    let hex =
        text.len() >= 4 && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
    if !hex {
        return Ok(None);
    }
    let mut found = Vec::new();
    for kind in Kind::ALL {
        found.extend(project.store.find(kind, text)?.into_iter().map(|digest| (kind, digest)));
    }
    if found.len() > 1 {
        let candidates: Vec<_> = found.iter().map(|(kind, digest)| format!("{kind} {}", digest.short())).collect();
        return Err(RevisionError::Ambiguous { text: text.to_owned(), candidates }.into());
    }
    Ok(found.pop())
}

fn show_object(ui: &mut Ui, project: &Project, kind: Kind, digest: Digest) -> Result<u8, CliError> {
    let content = project.store.get(kind, digest)?;
    let text = match kind {
        Kind::Blob if ui.json => json!({"kind": "blob", "digest": digest, "bytes": content.len()}).to_string() + "\n",
        Kind::Blob => {
            ui.bytes(&content)?;
            return Ok(0);
        }
        Kind::Tree => tree_text(&content)?,
        Kind::Snapshot => unreachable!("a snapshot is found as a revision"),
        Kind::Definition | Kind::Params | Kind::Environment => {
            let value: Value = serde_json::from_slice(&content).unwrap_or_default();
            serde_json::to_string_pretty(&value).expect("JSON that was read can be written") + "\n"
        }
    };
    ui.out(&text)?;
    Ok(0)
}

fn tree_text(content: &[u8]) -> Result<String, CliError> {
    let node = Node::decode(content).map_err(|error| CliError::usage(error.to_string()))?;
    let mut text = String::new();
    match node {
        Node::Leaf(entries) => {
            for (name, entry) in entries {
                let size = bytes(entry.sized().bytes);
                let described = crate::run::describe(Some(&entry));
                let (kind, digest) = described.split_once(' ').unwrap_or((&described, ""));
                let _ = writeln!(text, "{kind:10}  {digest}  {size:>10}  {}", crate::path::escape(&name));
            }
        }
        Node::Inner(children) => {
            for child in children {
                let last = crate::path::escape(&child.last_name);
                let _ = writeln!(text, "node {}  {} up to {last}", child.id, count(child.entries, "entry"));
            }
        }
    }
    Ok(text)
}

fn show_log(ui: &mut Ui, project: &Project, named: &Named, step: &str) -> Result<u8, CliError> {
    let run = match &named.run {
        Some((_, run)) => Some((**run).clone()),
        None => runs_of(project, named)?
            .into_iter()
            .map(|(_, run)| run)
            .find(|run| run.steps.iter().any(|s| s.step == step && s.log.is_some())),
    };
    let Some(run) = run else {
        return Err(CliError::usage(format!("no run of `{}` has a log of step `{step}`", named.text))
            .hint("`pv run` with the revision makes one"));
    };
    let log = run.steps.iter().find(|other| other.step == step).map(|step| step.log);
    match log {
        None => {
            let names: Vec<_> = run.steps.iter().map(|step| format!("`{}`", step.step)).collect();
            Err(CliError::usage(format!("there is no step `{step}`"))
                .hint(format!("its steps are {}", names.join(", "))))
        }
        Some(None) => Err(CliError::usage(format!("step `{step}` was not executed in this run"))),
        Some(Some(log)) => {
            let content = project.store.get(Kind::Blob, log.digest())?;
            ui.bytes(&content)?;
            Ok(0)
        }
    }
}

fn runs_of(project: &Project, named: &Named) -> Result<Vec<(RecordId, Run)>, CliError> {
    let mut runs = Vec::new();
    for run in project.journal.runs()? {
        let (id, run) = run?;
        if run.snapshot == named.snapshot {
            runs.push((id, run));
        }
    }
    Ok(runs)
}

/// Returns the newest verification of a snapshot.
fn newest_verification(project: &Project, snapshot: SnapshotId) -> Result<Option<Verified>, CliError> {
    for verification in project.journal.verifications()? {
        let (id, record) = verification?;
        if record.snapshot == snapshot && record.pipeline == project.pipeline {
            return Ok(Some(Verified { verification: id, record }));
        }
    }
    Ok(None)
}

/// A verification and its id.
#[derive(Serialize)]
struct Verified {
    verification: RecordId,
    #[serde(flatten)]
    record: Verification,
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = &self.record;
        let how = if record.explained { "causes searched for" } else { "compared" };
        let badge = paint(if record.is_allowed() { GOOD } else { BAD }, record.badge());
        writeln!(f, "verified {}  {badge}, {how}, pinned: {}", record.time.local(), record.rung)?;
        for step in &record.steps {
            let style = if step.allowed { GOOD } else { BAD };
            let runs = count(u64::from(step.runs), "run");
            writeln!(f, "         {}  {}  {runs}", paint(NAME, &step.step), paint(style, step.level))?;
            for named in &step.causes {
                let maybe = if named.confirmed { "" } else { ", not confirmed" };
                writeln!(f, "           depends on {}{maybe}", paint(NOTE, &named.cause))?;
            }
        }
        if !record.varied.is_empty() {
            let is_single = |name: &&String| name.contains(':');
            let (single, conditions): (Vec<_>, Vec<_>) = record.varied.iter().partition(is_single);
            let conditions: Vec<&str> = conditions.into_iter().map(String::as_str).collect();
            let more =
                if single.is_empty() { String::new() } else { format!(" and {} variables and files", single.len()) };
            writeln!(f, "         {}", paint(FAINT, format!("varied: {}{more}", conditions.join(", "))))?;
        }
        Ok(())
    }
}

fn show_snapshot(ui: &mut Ui, project: &Project, named: &Named) -> Result<u8, CliError> {
    let opened = open::open(project, named)?;
    let versions: Vec<String> = project
        .journal
        .versions()?
        .into_iter()
        .filter(|(_, version)| version.snapshot == named.snapshot)
        .map(|(_, version)| version.name)
        .collect();
    let links: Vec<Link> = project
        .journal
        .links()?
        .into_iter()
        .map(|(_, link)| link)
        .filter(|link| link.snapshot == named.snapshot)
        .collect();
    let view = crate::snapshot::View::new(&project.store, &opened.snapshot);
    let mut sized = crate::object::Sized::default();
    crate::snapshot::for_each_file(view.store(), opened.snapshot.tree, None, &mut |_, entry| {
        if !matches!(entry, crate::object::Entry::Directory { .. }) {
            sized += entry.sized();
        }
        Ok(())
    })?;
    ui.show(&SnapshotAnswer {
        named,
        opened: &opened,
        versions,
        links,
        runs: runs_of(project, named)?,
        verification: newest_verification(project, named.snapshot)?,
        files: sized.files,
        bytes: sized.bytes,
    })?;
    Ok(0)
}

struct SnapshotAnswer<'a> {
    named: &'a Named,
    opened: &'a open::Opened,
    versions: Vec<String>,
    links: Vec<Link>,
    runs: Vec<(RecordId, Run)>,
    verification: Option<Verified>,
    files: u64,
    bytes: u64,
}

impl Serialize for SnapshotAnswer<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let snapshot = &self.opened.snapshot;
        let data: BTreeMap<String, Value> = snapshot
            .data
            .iter()
            .map(|(path, root)| {
                let sized = root.sized();
                (path.to_string(), json!({"digest": root.digest(), "files": sized.files, "bytes": sized.bytes}))
            })
            .collect();
        let runs: Vec<Value> = self
            .runs
            .iter()
            .map(|(id, run)| json!({"run": id, "verdict": run.verdict, "started": run.started, "elapsed_ms": run.elapsed_ms}))
            .collect();
        let mut answer = json!({
            "snapshot": self.named.snapshot,
            "versions": self.versions,
            "commit": self.named.commit,
            "dirty": self.named.dirty,
            "tree": snapshot.tree,
            "files": self.files,
            "bytes": self.bytes,
            "data": data,
            "definition": self.opened.pipeline,
            "params": self.opened.params.to_value(),
            "seed": snapshot.seed,
            "environment": self.opened.pipeline.environment,
            "links": self.links,
            "runs": runs,
        });
        if let (Some(answer), Some(verification)) = (answer.as_object_mut(), &self.verification) {
            answer.insert("verification".to_owned(), json!(verification));
        }
        answer.serialize(serializer)
    }
}

impl fmt::Display for SnapshotAnswer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let snapshot = &self.opened.snapshot;
        write!(f, "snapshot {}", paint(NAME, self.named.snapshot))?;
        self.versions.iter().try_for_each(|version| write!(f, "  {}", paint(NAME, version)))?;
        writeln!(f)?;
        for link in &self.links {
            let commit =
                link.commit.as_deref().map_or_else(|| "no commit".to_owned(), |c| format!("commit {}", short(c)));
            let dirty = if link.dirty && link.commit.is_some() {
                format!(" {}", paint(NOTE, "with changes"))
            } else {
                String::new()
            };
            writeln!(f, "taken    {} by {} at {commit}{dirty}", link.time.local(), link.by.who)?;
            if let Some(message) = &link.message {
                message.lines().try_for_each(|line| writeln!(f, "         {line}"))?;
            }
        }
        writeln!(f, "tree     {}, {}", count(self.files, "file"), bytes(self.bytes))?;
        for (path, root) in &snapshot.data {
            let sized = root.sized();
            writeln!(f, "data     {path}  {}, {}", count(sized.files, "file"), bytes(sized.bytes))?;
        }
        if let Some(seed) = snapshot.seed {
            writeln!(f, "seed     {seed}")?;
        }
        for key in self.opened.params.keys() {
            if let Some(value) = self.opened.params.get(&key) {
                writeln!(f, "param    {key} = {value}")?;
            }
        }
        for step in &self.opened.pipeline.steps {
            let description = step.description.as_deref().map(|text| format!(" - {text}")).unwrap_or_default();
            writeln!(f, "step     {}{}", paint(NAME, &step.name), paint(FAINT, description))?;
        }
        for (id, run) in &self.runs {
            let elapsed = seconds(Duration::from_millis(run.elapsed_ms));
            writeln!(
                f,
                "run      {}  {}  {}  {elapsed}",
                id.short(),
                run.started.local(),
                paint(style(run.verdict), run.verdict)
            )?;
        }
        self.verification.iter().try_for_each(|verification| write!(f, "{verification}"))
    }
}

#[derive(Serialize)]
struct RunAnswer<'a> {
    run: RecordId,
    #[serde(flatten)]
    record: &'a Run,
    /// The libraries of linear algebra that steps loaded, by step.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    blas: BTreeMap<&'a str, BTreeSet<String>>,
    /// The newest verification of its snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    verification: Option<Verified>,
}

/// Returns which libraries of linear algebra the steps of a run loaded, as far as they were seen.
fn blas<'r>(project: &Project, run: &'r Run) -> Result<BTreeMap<&'r str, BTreeSet<String>>, CliError> {
    let mut blas = BTreeMap::new();
    for step in &run.steps {
        let results = step.key.map(|key| project.journal.results(step.task, key)).transpose()?;
        let observed = results.and_then(|mut results| results.pop()).and_then(|(_, result)| result.observed);
        if let Some(observed) = observed.filter(|observed| !observed.blas.is_empty()) {
            blas.insert(step.step.as_str(), observed.blas);
        }
    }
    Ok(blas)
}

impl fmt::Display for RunAnswer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let run = self.record;
        writeln!(f, "run {}  {}", paint(NAME, self.run), paint(style(run.verdict), run.verdict))?;
        let version = run.version.as_deref().map(|version| format!("  {version}")).unwrap_or_default();
        writeln!(f, "snapshot {}{version}", run.snapshot.short())?;
        if let Some(commit) = &run.commit {
            let dirty = if run.dirty { format!(" {}", paint(NOTE, "with changes")) } else { String::new() };
            writeln!(f, "commit   {}{dirty}", short(commit))?;
        }
        if let Some(against) = &run.against {
            writeln!(f, "compared with run {}", against.short())?;
        }
        let elapsed = seconds(Duration::from_millis(run.elapsed_ms));
        writeln!(
            f,
            "started  {} by {} on {} ({}), {elapsed}",
            run.started.local(),
            run.by.who,
            run.by.host,
            run.by.platform
        )?;
        for (name, value) in &run.machine {
            writeln!(f, "{name:8} {value}")?;
        }
        for step in &run.steps {
            let style = match step.verdict {
                StepVerdict::Failed => BAD,
                StepVerdict::Skipped => NOTE,
                StepVerdict::Ran | StepVerdict::Reused => GOOD,
            };
            let elapsed = seconds(Duration::from_millis(step.elapsed_ms));
            writeln!(
                f,
                "step     {}  {}  {elapsed}  {}",
                paint(NAME, &step.step),
                paint(style, step.verdict),
                paint(FAINT, &step.reason)
            )?;
            if let Some(rung) = step.rung {
                let isolated = if step.isolated { ", isolated" } else { "" };
                writeln!(f, "         observed: {rung}{isolated}")?;
            }
            if let Some(blas) = self.blas.get(step.step.as_str()) {
                let names: Vec<&str> = blas.iter().map(String::as_str).collect();
                writeln!(f, "         linear algebra by {}", names.join(", "))?;
            }
            if let Some(seeding) = &step.seeding {
                let listed = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
                let layers: Vec<_> = seeding
                    .layers
                    .iter()
                    .map(|layer| match (layer, seeding.seeded.is_empty()) {
                        (Layer::ImportHook, false) => format!("{layer} ({})", listed(&seeding.seeded)),
                        _ => layer.to_string(),
                    })
                    .collect();
                writeln!(f, "         seeded by: {}", layers.join(", "))?;
                if !seeding.unseeded.is_empty() {
                    writeln!(f, "         {}: {}", paint(NOTE, "could not be seeded"), listed(&seeding.unseeded))?;
                }
            }
            if step.resumed {
                writeln!(f, "         resumed from what an attempt before kept")?;
            }
            for output in &step.outputs {
                writeln!(f, "         {}  {}  {}", output.digest.short(), output.path, bytes(output.size))?;
            }
        }
        self.verification.iter().try_for_each(|verification| write!(f, "{verification}"))
    }
}

fn style(verdict: RunVerdict) -> anstyle::Style {
    match verdict {
        RunVerdict::Done | RunVerdict::Reproduced => GOOD,
        RunVerdict::Differs => NOTE,
        RunVerdict::Failed => BAD,
    }
}
