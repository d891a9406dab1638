//! `pv audit`: what the definition leaves out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Serialize, Serializer};

use super::Global;
use super::answer::count;
use super::fail::{CliError, DIFFERENCE};
use super::open;
use super::ui::{BAD, FAINT, GOOD, NAME, NOTE, Ui, paint};
use crate::disk::{self, Durability};
use crate::environment::{Class, Origin, Rules};
use crate::exec::Rung;
use crate::pipeline::{self, Addition, COMBINATION_MARK, Definition, Step};
use crate::project::Project;
use crate::run::{Audited, Fixed, Found, Seen, audit, fix, newest};

/// How many paths of one directory are written out.
const LISTED_MAX: usize = 20;

/// Compare what steps declare with what they were seen to do
///
/// Tells for each step what it read, wrote and talked to in its newest run without declaring it, and what it declares
/// without reading it. What belongs to the environment of a step is no input; `--rules` lists what that is.
///
/// Exit codes: 1 there is something to tell.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Only these steps
    #[arg(value_name = "STEP")]
    steps: Vec<String>,
    /// Add what is missing to the definition, keeping its comments and layout
    #[arg(long, conflicts_with = "rules")]
    fix: bool,
    /// List the rules by which paths outside the project are sorted
    #[arg(long, conflicts_with = "steps")]
    rules: bool,
}

pub(super) fn run(ui: &mut Ui, global: &Global, args: &Args) -> Result<u8, CliError> {
    let project = open::project(ui, global)?;
    let rules = project.rules()?;
    if args.rules {
        ui.show(&RulesAnswer { rules: &rules })?;
        return Ok(0);
    }
    let path = open::definition(global)?;
    let place = path.under(&project.root);
    let file = path.to_string();
    let text = disk::read_if_there(&place)?.ok_or_else(|| {
        CliError::usage(format!("`{file}` does not exist"))
            .hint("`pv init` makes a first pipeline; `--pipeline NAME` chooses another")
    })?;
    let mut definition = pipeline::read(&text, &file)?;
    let found = newest(&project.journal, &project.pipeline, &definition.pipeline.steps)?;
    let names = chosen(&definition, &args.steps)?;
    let mut steps = audited(&definition, &names, &found, &rules);
    let mut fixed = Fixed::default();
    if args.fix {
        // The definition was read, so it is UTF-8.
        fixed = fix(&String::from_utf8_lossy(&text), &file, &steps);
        if !fixed.added.is_empty() {
            write(&project, &fixed.text, &place)?;
            definition = pipeline::read(fixed.text.as_bytes(), &file)?;
            steps = audited(&definition, &names, &found, &rules);
        }
    }
    let is_clean = steps.iter().all(Audited::is_clean);
    let outdated = outdated(&definition, &found);
    ui.show(&Answer { steps, fix: args.fix.then_some(Fix { file, fixed }), found: &found, outdated })?;
    Ok(if is_clean { 0 } else { DIFFERENCE })
}

/// Returns the names of the steps that were asked for; the name of a step with a matrix stands for all its combinations.
fn chosen(definition: &Definition, wanted: &[String]) -> Result<BTreeSet<String>, CliError> {
    let steps = &definition.pipeline.steps;
    let is_meant =
        |step: &Step, name: &str| step.name == name || step.name.split(COMBINATION_MARK).next() == Some(name);
    if let Some(unknown) = wanted.iter().find(|name| !steps.iter().any(|step| is_meant(step, name))) {
        let names: Vec<_> = steps.iter().map(|step| format!("`{}`", step.name)).collect();
        return Err(CliError::usage(format!("there is no step `{unknown}`"))
            .hint(format!("its steps are {}", names.join(", "))));
    }
    let is_wanted = |step: &&Step| wanted.is_empty() || wanted.iter().any(|name| is_meant(step, name));
    Ok(steps.iter().filter(is_wanted).map(|step| step.name.clone()).collect())
}

fn audited(
    definition: &Definition,
    names: &BTreeSet<String>,
    found: &BTreeMap<String, Found>,
    rules: &Rules,
) -> Vec<Audited> {
    let unseen = Seen::default();
    let seen = |step: &Step| found.get(&step.name).map_or(&unseen, |found| &found.seen);
    let steps = definition.pipeline.steps.iter().filter(|step| names.contains(&step.name));
    steps.map(|step| audit(&definition.pipeline, step, seen(step), rules)).collect()
}

/// Returns the steps whose command is another than the one that was observed.
fn outdated(definition: &Definition, found: &BTreeMap<String, Found>) -> BTreeSet<String> {
    let is_other = |step: &&Step| found.get(&step.name).is_some_and(|found| found.command != step.run);
    definition.pipeline.steps.iter().filter(is_other).map(|step| step.name.clone()).collect()
}

/// Replaces the definition, which may be a link.
fn write(project: &Project, text: &str, place: &std::path::Path) -> Result<(), CliError> {
    let real = std::fs::canonicalize(place).ok().filter(|real| real.starts_with(&project.root));
    Ok(disk::write_whole(real.as_deref().unwrap_or(place), text.as_bytes(), Durability::Deferred)?)
}

struct Answer<'a> {
    steps: Vec<Audited>,
    fix: Option<Fix>,
    found: &'a BTreeMap<String, Found>,
    outdated: BTreeSet<String>,
}

struct Fix {
    file: String,
    fixed: Fixed,
}

#[derive(Serialize)]
struct Line<'a> {
    step: Option<&'a str>,
    line: String,
}

#[derive(Serialize)]
struct Shape<'a> {
    steps: &'a [Audited],
    #[serde(skip_serializing_if = "Option::is_none")]
    added: Option<Vec<Line<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by_hand: Option<Vec<Line<'a>>>,
}

impl Serialize for Answer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fixed = self.fix.as_ref().map(|fix| &fix.fixed);
        let added = fixed.map(|fixed| lines(&fixed.added));
        Shape { steps: &self.steps, added, by_hand: fixed.map(|fixed| lines(&fixed.by_hand)) }.serialize(serializer)
    }
}

fn lines(additions: &[Addition]) -> Vec<Line<'_>> {
    additions.iter().map(|addition| Line { step: addition.step(), line: addition.to_string() }).collect()
}

impl fmt::Display for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Fix { file, fixed }) = &self.fix {
            for addition in &fixed.added {
                writeln!(f, "{} to {}: {addition}", paint(GOOD, "added"), of_step(file, addition))?;
            }
            for addition in &fixed.by_hand {
                writeln!(f, "{} to {}: {addition}", paint(NOTE, "add by hand"), of_step(file, addition))?;
            }
        }
        let width = self.steps.iter().map(|audited| audited.step.chars().count()).max().unwrap_or_default();
        for audited in &self.steps {
            let name = paint(NAME, format!("{:width$}", audited.step));
            let verdict = if audited.rung == Rung::None {
                let how = if self.found.contains_key(&audited.step) { "was not observed" } else { "not observed yet" };
                paint(NOTE, format!("{how}: run it with `pv run`"))
            } else if audited.is_clean() {
                paint(GOOD, "declares what it does")
            } else {
                paint(BAD, summary(audited))
            };
            writeln!(f, "{name}  {verdict}")?;
            if self.outdated.contains(&audited.step) && audited.rung != Rung::None {
                writeln!(f, "  {}", paint(FAINT, "its command was another when it was observed"))?;
            }
            show(f, audited)?;
        }
        Ok(())
    }
}

fn of_step(file: &str, addition: &Addition) -> String {
    addition.step().map_or_else(|| file.to_owned(), |step| format!("`{step}` in {file}"))
}

fn summary(audited: &Audited) -> String {
    let parts = [
        (audited.undeclared.len(), "reads", "undeclared path"),
        (audited.unused.len(), "does not read", "declared path"),
        (audited.writes.len(), "writes", "undeclared path"),
        (audited.network.len(), "talks to", "undeclared address"),
        (audited.env.len(), "gets", "undeclared variable"),
    ];
    let told = parts.iter().filter(|(number, ..)| *number > 0);
    told.map(|(number, verb, what)| {
        let what = count(*number as u64, what).replace("addresss", "addresses");
        format!("{verb} {what}")
    })
    .collect::<Vec<_>>()
    .join(", ")
}

fn show(f: &mut fmt::Formatter<'_>, audited: &Audited) -> fmt::Result {
    let alone = |texts: &[String]| texts.iter().map(|text| (text.clone(), String::new())).collect::<Vec<_>>();
    let reads = audited.undeclared.iter().map(|read| (read.path.clone(), format!("by {}", read.by))).collect();
    for (title, lines) in [
        ("read, not declared", reads),
        ("declared, not read", alone(&audited.unused)),
        ("written, not declared", alone(&audited.writes)),
        ("talked to without `network: true`", alone(&audited.network)),
        ("passed on from outside, not in `env`", alone(&audited.env)),
    ] {
        if lines.is_empty() {
            continue;
        }
        writeln!(f, "  {}", paint(FAINT, title))?;
        let lines = summed_up(lines);
        let width = lines
            .iter()
            .filter(|(_, by)| !by.is_empty())
            .map(|(path, _)| path.chars().count())
            .max()
            .unwrap_or_default();
        for (path, by) in lines {
            if by.is_empty() {
                writeln!(f, "    {path}")?;
            } else {
                writeln!(f, "    {path:width$}  {}", paint(FAINT, by))?;
            }
        }
    }
    Ok(())
}

/// Returns the lines with the surplus of each directory in one of them.
fn summed_up(lines: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut left_out: BTreeMap<String, usize> = BTreeMap::new();
    let mut shown: BTreeMap<String, usize> = BTreeMap::new();
    let mut kept = Vec::new();
    for (path, by) in lines {
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory).to_owned();
        let number = shown.entry(directory.clone()).or_default();
        *number += 1;
        if *number > LISTED_MAX {
            *left_out.entry(directory).or_default() += 1;
        } else {
            kept.push((path, by));
        }
    }
    kept.extend(left_out.into_iter().map(|(directory, number)| {
        let place = if directory.is_empty() { "at the top".to_owned() } else { format!("below {directory}") };
        (format!("and {number} more {place}"), String::new())
    }));
    kept
}

struct RulesAnswer<'a> {
    rules: &'a Rules,
}

#[derive(Serialize)]
struct RuleLine {
    pattern: String,
    class: &'static str,
    why: String,
    origin: String,
}

impl RulesAnswer<'_> {
    fn lines(&self) -> Vec<RuleLine> {
        let line = |rule: &&crate::environment::Rule| RuleLine {
            pattern: rule.pattern.to_string(),
            class: match rule.class {
                Class::Noise => "noise",
                Class::Program => "program",
                Class::Library => "library",
                Class::Package { .. } => "package",
                Class::Input => "input",
            },
            why: rule.why.clone(),
            origin: match &rule.origin {
                Origin::BuiltIn => "built in".to_owned(),
                Origin::File(file) => file.clone(),
            },
        };
        self.rules.all().iter().map(line).collect()
    }
}

impl Serialize for RulesAnswer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        BTreeMap::from([("rules", self.lines())]).serialize(serializer)
    }
}

impl fmt::Display for RulesAnswer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.lines();
        let width = lines.iter().map(|line| line.pattern.chars().count()).max().unwrap_or_default();
        for line in lines {
            let origin = paint(FAINT, format!("{} ({})", line.why, line.origin));
            writeln!(f, "{:7}  {:width$}  {origin}", line.class, line.pattern)?;
        }
        writeln!(f, "input    everything else")
    }
}
