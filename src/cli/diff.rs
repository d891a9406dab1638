//! `pv diff`: what changed between two versions, and what that did.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::Global;
use super::answer::{bytes, count, fact, short};
use super::fail::{CliError, DIFFERENCE};
use super::open;
use super::reach::{Reach, Reaching};
use super::ui::{BAD, FAINT, GOOD, NAME, NOTE, Ui, paint};
use crate::diff::{
    Diff, FactChange, FieldChange, FileChange, Head, How, Patch, Side, StepChange, StepHow, diff, patches,
};
use crate::object::{RecordId, SnapshotId};
use crate::project::Project;
use crate::record::{Recipe, Run, RunVerdict};
use crate::run::{pythons, wanted};
use crate::snapshot::{View, capture_working};
use crate::store::{DryStore, Store};

/// How many files are listed before they are only counted.
const FILES_LISTED: usize = 50;

/// Show what changed between two versions, and what that did to the results
///
/// Steps, params, files, data, environment and seed; and where both have been run, outputs and metrics.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The old side: a version, a Git revision, a snapshot or a run
    from: String,
    /// The new side [default: the working tree]
    to: Option<String>,
    /// Show the changed lines of files
    #[arg(short, long)]
    patch: bool,
    /// Show only how much changed
    #[arg(long, conflicts_with = "patch")]
    stat: bool,
    /// End with 1 if there is a difference
    #[arg(long)]
    exit_code: bool,
    #[command(flatten)]
    reaching: Reaching,
}

/// One side, read.
pub(super) struct Read {
    id: SnapshotId,
    version: Option<String>,
    commit: Option<String>,
    dirty: bool,
    opened: open::Opened,
    run: Option<(RecordId, Run)>,
    recipes: BTreeMap<String, Recipe>,
    locked: BTreeMap<String, String>,
}

pub(super) fn run(ui: &mut Ui, global: &Global, args: &Args) -> Result<u8, CliError> {
    let project = open::project(ui, global)?;
    let fetched = ui.progress_of("Fetching", "objects");
    let reach = Reach::new(&project, args.reaching.offline, &fetched)?;
    let done = diff_with(ui, &project, &reach, args);
    reach.tell(ui);
    done
}

fn diff_with(ui: &mut Ui, project: &Project, reach: &Reach<'_>, args: &Args) -> Result<u8, CliError> {
    let dry = DryStore::over(reach.store());
    let from = side(project, reach, &args.from)?;
    let to = match &args.to {
        Some(text) => side(project, reach, text)?,
        None => working_side(ui, project, &dry)?,
    };
    let diff = diff(&dry, &from.side(), &to.side())?;
    let patches = if args.patch { patches(&dry, &diff.files)? } else { Vec::new() };
    let differs = !diff.is_empty();
    ui.show(&Answer { diff, patches, stat: args.stat, to_working_tree: args.to.is_none() })?;
    Ok(if args.exit_code && differs { DIFFERENCE } else { 0 })
}

impl Read {
    /// Returns whether it has been run.
    pub(super) fn is_run(&self) -> bool {
        self.run.is_some()
    }

    /// Returns it as a side of a comparison.
    pub(super) fn side(&self) -> Side<'_> {
        Side {
            id: self.id,
            snapshot: &self.opened.snapshot,
            version: self.version.clone(),
            commit: self.commit.clone(),
            dirty: self.dirty,
            pipeline: &self.opened.pipeline,
            params: &self.opened.params,
            run: self.run.as_ref().map(|(id, run)| (*id, run)),
            recipes: &self.recipes,
            locked: &self.locked,
        }
    }
}

/// Reads the side that `text` names.
pub(super) fn side(project: &Project, reach: &Reach<'_>, text: &str) -> Result<Read, CliError> {
    let named = open::resolve_in(project, reach.store(), text)?;
    reach.have(named.snapshot, false)?;
    let opened = open::open_in(reach.store(), &named)?;
    let run = match named.run {
        Some((id, run)) => Some((id, *run)),
        None => newest_run(project, named.snapshot)?,
    };
    let recipes = recipes(project, run.as_ref())?;
    let locked = locked(reach.store(), &opened);
    Ok(Read {
        id: named.snapshot,
        version: named.version,
        commit: named.commit,
        dirty: named.dirty,
        opened,
        run,
        recipes,
        locked,
    })
}

/// The working tree's files are hashed where they are: nothing is written.
pub(super) fn working_side(ui: &Ui, project: &Project, dry: &DryStore<'_>) -> Result<Read, CliError> {
    let captured = {
        let progress = ui.progress("Hashing");
        capture_working(project.site(), dry, &|files, bytes| progress.count(files, bytes))?
    };
    let (commit, dirty) = open::base(project, &captured)?;
    let run = newest_run(project, captured.id)?;
    let recipes = recipes(project, run.as_ref())?;
    let opened =
        open::Opened { snapshot: captured.snapshot, pipeline: captured.definition.pipeline, params: captured.params };
    let locked = locked(dry, &opened);
    Ok(Read { id: captured.id, version: None, commit, dirty, opened, run, recipes, locked })
}

/// Returns what the locks of a snapshot pin. A lock that cannot be read tells nothing here; a run says what is wrong with it.
fn locked(store: &dyn Store, opened: &open::Opened) -> BTreeMap<String, String> {
    let view = View::new(store, &opened.snapshot);
    let wanted = pythons(&opened.pipeline, &|_| true).into_iter().filter_map(|python| wanted(&view, python).ok()?);
    wanted.filter_map(|wanted| wanted.pins().ok()).flatten().collect()
}

fn newest_run(project: &Project, snapshot: SnapshotId) -> Result<Option<(RecordId, Run)>, CliError> {
    for run in project.journal.runs()? {
        let (id, run) = run?;
        if run.snapshot == snapshot && run.verdict != RunVerdict::Failed {
            return Ok(Some((id, run)));
        }
    }
    Ok(None)
}

fn recipes(project: &Project, run: Option<&(RecordId, Run)>) -> Result<BTreeMap<String, Recipe>, CliError> {
    let mut recipes = BTreeMap::new();
    for step in run.iter().flat_map(|(_, run)| &run.steps) {
        if let Some(key) = step.key
            && let Some((_, result)) = project.journal.results(step.task, key)?.pop()
        {
            recipes.insert(step.step.clone(), result.recipe);
        }
    }
    Ok(recipes)
}

#[derive(Serialize)]
struct Answer {
    #[serde(flatten)]
    diff: Diff,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "patch_texts")]
    patches: Vec<Patch>,
    #[serde(skip)]
    stat: bool,
    #[serde(skip)]
    to_working_tree: bool,
}

/// Returns which steps have to do with a fact, for people.
fn used_by(fact: &FactChange) -> Option<String> {
    let is_loaded = fact.name.starts_with("package ") || fact.name.starts_with("library ");
    let (how, steps) = match (fact.steps.as_slice(), fact.in_image_of.as_slice()) {
        ([], []) => return None,
        ([], steps) => ("in the image of", steps),
        (steps, _) => (if is_loaded { "loaded by" } else { "used by" }, steps),
    };
    let differs = if fact.may_explain { ", whose output differs" } else { "" };
    Some(format!("({how} {}{differs})", steps.join(", ")))
}

fn patch_texts<S: serde::Serializer>(patches: &[Patch], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(patches.iter().map(|patch| (patch.path.to_string(), &patch.text)))
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let diff = &self.diff;
        let [from, to] = self.names();
        writeln!(f, "from {}", head(&diff.from, &from))?;
        writeln!(f, "to   {}", head(&diff.to, &to))?;
        if diff.is_empty() {
            return writeln!(f, "No difference.");
        }
        if self.stat {
            return self.write_stat(f);
        }
        write_steps(f, &diff.steps)?;
        self.write_params(f)?;
        self.write_files(f)?;
        self.write_data(f)?;
        self.write_environment(f)?;
        self.write_results(f)
    }
}

impl Answer {
    /// What the sides are called.
    fn names(&self) -> [String; 2] {
        let name = |head: &Head| head.version.clone().unwrap_or_else(|| head.snapshot.short());
        let to = if self.to_working_tree { "the working tree".to_owned() } else { name(&self.diff.to) };
        [name(&self.diff.from), to]
    }

    fn write_stat(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let diff = &self.diff;
        let parts = [
            (diff.steps.len(), "step"),
            (diff.params.len(), "param"),
            (diff.files.len(), "file"),
            (diff.data.len(), "data root"),
            (diff.environment.len(), "environment fact"),
            (usize::from(diff.seed.is_some()), "seed"),
            (diff.outputs.len(), "output"),
            (diff.metrics.len(), "metric"),
        ];
        let told: Vec<_> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, noun)| count(*n as u64, noun)).collect();
        writeln!(f, "{} changed", told.join(", "))
    }

    fn write_params(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.diff.params.is_empty() {
            return Ok(());
        }
        title(f, "Params")?;
        let width = self.diff.params.iter().map(|param| param.key.chars().count()).max().unwrap_or_default();
        for param in &self.diff.params {
            writeln!(f, "  {:width$}  {} -> {}", param.key, value(param.old.as_ref()), value(param.new.as_ref()))?;
        }
        Ok(())
    }

    fn write_files(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.diff.files.is_empty() {
            return Ok(());
        }
        title(f, "Files")?;
        for change in self.diff.files.iter().take(FILES_LISTED) {
            writeln!(f, "  {}", file_line(change))?;
        }
        let more = self.diff.files.len().saturating_sub(FILES_LISTED);
        if more > 0 {
            writeln!(f, "  and {}", count(more as u64, "more file"))?;
        }
        for patch in &self.patches {
            for line in patch.text.lines() {
                writeln!(f, "{}", patch_line(line))?;
            }
        }
        Ok(())
    }

    fn write_data(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.diff.data.is_empty() {
            return Ok(());
        }
        title(f, "Data")?;
        for change in &self.diff.data {
            let sides = format!(
                "{}, {} -> {}, {}",
                count(change.old_files, "file"),
                bytes(change.old_bytes),
                count(change.new_files, "file"),
                bytes(change.new_bytes)
            );
            write!(f, "  {}  {sides}", change.path)?;
            if let (Some(added), Some(removed), Some(modified)) = (change.added, change.removed, change.modified) {
                write!(f, "  ({added} added, {removed} removed, {modified} modified)")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }

    fn write_environment(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.diff.environment.is_empty() {
            title(f, "Environment")?;
        }
        for change in &self.diff.environment {
            let (old, new) = (fact(change.old.as_ref()), fact(change.new.as_ref()));
            write!(f, "  {}  {old} -> {new}", change.name)?;
            if let Some(text) = used_by(change) {
                write!(f, "  {}", paint(FAINT, text))?;
            }
            writeln!(f)?;
        }
        if let Some((old, new)) = self.diff.seed {
            title(f, "Seed")?;
            let text = |seed: Option<u64>| seed.map_or_else(|| "(none)".to_owned(), |seed| seed.to_string());
            writeln!(f, "  {} -> {}", text(old), text(new))?;
        }
        Ok(())
    }

    fn write_results(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let diff = &self.diff;
        let [from, to] = self.names();
        let not_run = match (diff.from.run, diff.to.run) {
            (Some(_), Some(_)) => None,
            (None, Some(_)) => Some(format!("{from} has not been run")),
            (Some(_), None) => Some(format!("{to} has not been run")),
            (None, None) => Some(format!("{from} and {to} have not been run")),
        };
        title(f, "Outputs")?;
        if let Some(not_run) = not_run {
            return writeln!(f, "  {}", paint(FAINT, format!("not compared: {not_run}")));
        }
        if diff.outputs.is_empty() {
            writeln!(f, "  {}", paint(GOOD, "all equal"))?;
        }
        for output in &diff.outputs {
            let side = |digest: Option<crate::hash::Digest>, size: Option<u64>| match (digest, size) {
                (Some(digest), Some(size)) => format!("{} ({})", digest.short(), bytes(size)),
                _ => "(none)".to_owned(),
            };
            let (old, new) = (side(output.old, output.old_size), side(output.new, output.new_size));
            writeln!(f, "  {}  {old} -> {new}", output.path)?;
        }
        if !diff.metrics.is_empty() {
            title(f, "Metrics")?;
        }
        for metric in &diff.metrics {
            let sides = format!("{} -> {}", value(metric.old.as_ref()), value(metric.new.as_ref()));
            write!(f, "  {}  {}  {sides}", metric.path, metric.key)?;
            if let Some(delta) = metric.delta {
                write!(f, "  ({})", signed(delta))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// A difference without the noise of binary fractions: ten significant digits.
fn signed(delta: f64) -> String {
    let rounded: f64 = format!("{delta:.9e}").parse().unwrap_or(delta);
    format!("{rounded:+}")
}

fn title(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    writeln!(f, "{}", paint(NAME, text))
}

fn head(head: &Head, name: &str) -> String {
    let mut text = paint(NAME, name);
    if name != head.snapshot.short() {
        text += &format!("  snapshot {}", head.snapshot.short());
    }
    if let Some(commit) = &head.commit {
        text += &format!("  commit {}", short(commit));
    }
    if head.dirty {
        text += &format!("  {}", paint(NOTE, "with changes"));
    }
    text
}

fn value(value: Option<&Value>) -> String {
    value.map_or_else(|| "(none)".to_owned(), ToString::to_string)
}

fn write_steps(f: &mut fmt::Formatter<'_>, steps: &[StepChange]) -> fmt::Result {
    if steps.is_empty() {
        return Ok(());
    }
    title(f, "Steps")?;
    for step in steps {
        let (mark, style) = match step.change {
            StepHow::Added => ("+", GOOD),
            StepHow::Removed => ("-", BAD),
            StepHow::Modified => ("~", NOTE),
        };
        writeln!(f, "  {} {}", paint(style, mark), paint(NAME, &step.step))?;
        for field in &step.fields {
            write_field(f, field)?;
        }
    }
    Ok(())
}

/// A field as a small text diff: the lines of the old value, then those of the new, without those around that are equal.
fn write_field(f: &mut fmt::Formatter<'_>, field: &FieldChange) -> fmt::Result {
    let (old, new) = (plain(&field.old), plain(&field.new));
    let before = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let (old, new) = (&old[before..], &new[before..]);
    let after = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new).count();
    let (old, new) = (&old[..old.len() - after], &new[..new.len() - after]);
    for (mark, style, side) in [("-", BAD, old), ("+", GOOD, new)] {
        for line in side {
            writeln!(f, "      {}", paint(style, format!("{mark} {}: {line}", field.field)))?;
        }
    }
    Ok(())
}

/// A value as people write it in the definition, one line or one a list item.
fn plain(value: &Value) -> Vec<String> {
    match value {
        Value::Null => Vec::new(),
        Value::String(text) => text.lines().map(str::to_owned).collect(),
        Value::Array(items) if items.is_empty() => vec!["[]".to_owned()],
        Value::Array(items) => {
            let words: Vec<_> =
                items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect();
            vec![format!("[{}]", words.join(", "))]
        }
        // The two forms of a command are told apart by how they look.
        Value::Object(map) if map.len() == 1 && (map.contains_key("shell") || map.contains_key("program")) => {
            map.values().flat_map(plain).collect()
        }
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, value)| plain(value).into_iter().map(move |line| format!("{key} {line}")))
            .collect(),
        other => vec![other.to_string()],
    }
}

fn file_line(change: &FileChange) -> String {
    let side = |target: &Option<String>, size: Option<u64>| {
        target.clone().unwrap_or_else(|| size.map(bytes).unwrap_or_default())
    };
    let (old, new) = (side(&change.old_target, change.old_size), side(&change.new_target, change.new_size));
    match change.change {
        How::Added => format!("{} {}  {new}", paint(GOOD, "+"), change.path),
        How::Removed => format!("{} {}", paint(BAD, "-"), change.path),
        How::Modified => format!("{} {}  {old} -> {new}", paint(NOTE, "~"), change.path),
        How::Renamed => {
            let from = change.from.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("{} {}  (renamed from {from})", paint(NOTE, "~"), change.path)
        }
        How::Mode => format!("{} {}  (mode only)", paint(NOTE, "~"), change.path),
    }
}

fn patch_line(line: &str) -> String {
    match line.as_bytes().first() {
        Some(b'+') => paint(GOOD, line),
        Some(b'-') => paint(BAD, line),
        Some(b'@') => paint(FAINT, line),
        _ => line.to_owned(),
    }
}
