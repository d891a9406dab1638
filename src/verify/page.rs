//! A report of a verification: one page that says everything and needs nothing, no network, no script, no `pv`.
//!
//! Pure: values go in, text comes out. Whatever a name or a value is, it is text in the page and never markup.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use super::cause::Cause;
use super::page_graph;
use super::verdict::{CauseNamed, OutputVerdict, Rung, StepVerdict};
use crate::compare::{Comparison, Finding, Level, Shape};
use crate::environment::BUILD;
use crate::host::Time;
use crate::object::SnapshotId;
use crate::record::{ABSENT, By, StepResult};

const STYLE: &str = include_str!("page.css");

/// Stands between a program and a package among the facts about the environment of a step.
const PACKAGE: &str = " package ";
/// Begins the name of a variable, and of a library, there.
const VARIABLE: &str = "variable ";
const LIBRARY: &str = "library ";
/// So much is told of what tells a program from others of its name.
const IDENTITY_CHARS: usize = 12;

/// What a report tells.
#[derive(Clone, Debug)]
pub struct Page<'a> {
    /// What came of it, in a few words: `repeats, bit for bit`.
    pub verdict: String,
    /// Whether every step came out as its definition asks for, and the user did not stop it.
    pub is_good: bool,
    /// What was verified.
    pub snapshot: SnapshotId,
    /// The version that it was asked for as.
    pub version: Option<&'a str>,
    /// The commit that it belongs to, if there is one.
    pub commit: Option<&'a str>,
    /// Whether the working tree differed from that commit.
    pub dirty: bool,
    /// The pipeline's name.
    pub pipeline: &'a str,
    /// When the verification ended.
    pub time: Time,
    /// By whom, and where.
    pub by: &'a By,
    /// Whether causes were searched for.
    pub explained: bool,
    /// Whether the user stopped it.
    pub interrupted: bool,
    /// All steps of the pipeline, in the order in which they run.
    pub graph: Vec<Node<'a>>,
    /// What came of each step that was verified.
    pub steps: &'a [StepVerdict],
    /// Facts about the machine, by name.
    pub machine: BTreeMap<String, String>,
    /// What each step that was verified used of it, by name of the step.
    pub used: BTreeMap<String, Used>,
    /// What to type to have all of this again, line by line.
    pub commands: Vec<String>,
}

/// A step in the picture of the pipeline.
#[derive(Clone, Debug)]
pub struct Node<'a> {
    /// Its name.
    pub name: &'a str,
    /// The places in the picture's list of the steps that it waits for; each stands before it.
    pub waits_for: Vec<usize>,
}

/// What of the machine a step used, as far as that was seen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Used {
    /// The programs that it executed, each with what tells it from others of its name.
    pub programs: BTreeMap<String, String>,
    /// The packages that it loaded, with their versions.
    pub packages: BTreeMap<String, String>,
    /// The libraries of linear algebra that it loaded.
    pub blas: Vec<String>,
}

impl Used {
    /// Returns what was seen when `result` was made.
    pub fn of(result: &StepResult) -> Self {
        let mut used = Self::default();
        for (fact, value) in result.recipe.environment.iter().filter(|(_, value)| *value != ABSENT) {
            let is_other = [VARIABLE, LIBRARY].iter().any(|kind| fact.starts_with(kind)) || fact.contains(BUILD);
            match fact.split_once(PACKAGE) {
                Some((_, package)) => drop(used.packages.insert(package.to_owned(), value.clone())),
                None if is_other => {}
                // Of a digest the beginning says enough; a whole line of it hides what stands beside it.
                None => drop(used.programs.insert(fact.clone(), value.chars().take(IDENTITY_CHARS).collect())),
            }
        }
        used.blas = result.observed.iter().flat_map(|observed| observed.blas.iter().cloned()).collect();
        used
    }
}

/// Text as a page shows it: no character of it is markup, or moves what stands beside it.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // Controls would break lines, and those for the direction of writing would turn what follows around.
                '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                    write!(f, "{}", character.escape_unicode())?;
                }
                _ if character.is_control() => write!(f, "{}", character.escape_default())?,
                _ => f.write_char(character)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Page<'_> {
    /// Writes the whole page, as HTML.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.version.map_or_else(|| self.snapshot.short(), str::to_owned);
        let (what, verdict) = (Escaped(&what), Escaped(&self.verdict));
        writeln!(f, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">")?;
        writeln!(f, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">")?;
        // Nothing that a name could smuggle in is ever loaded or executed.
        writeln!(
            f,
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        )?;
        writeln!(f, "<title>{what} {verdict}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>")?;
        let class = if self.is_good { "good" } else { "bad" };
        writeln!(f, "<header>\n<h1>{what} <span class=\"{class}\">{verdict}</span></h1>")?;
        self.write_about(f)?;
        writeln!(f, "</header>\n<main>")?;
        self.write_steps_at_a_glance(f)?;
        for (number, step) in self.steps.iter().enumerate() {
            write_step(f, number, step)?;
        }
        self.write_varied(f)?;
        self.write_environment(f)?;
        self.write_again(f)?;
        writeln!(f, "</main>")?;
        writeln!(f, "<footer>\n<p class=\"quiet\">Written by pv {}.</p>\n</footer>", Escaped(&self.by.pv))?;
        writeln!(f, "</body>\n</html>")
    }
}

impl Page<'_> {
    fn write_about(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut facts = vec![("snapshot", format!("<code>{}</code>", self.snapshot))];
        facts.extend(self.version.map(|version| ("version", Escaped(version).to_string())));
        if let Some(commit) = self.commit {
            let dirty = if self.dirty { ", with changes" } else { "" };
            facts.push(("commit", format!("<code>{}</code>{dirty}", Escaped(commit))));
        }
        facts.push(("pipeline", Escaped(self.pipeline).to_string()));
        let by = Escaped(&self.by.who);
        let host = Escaped(&self.by.host);
        facts.push(("verified", format!("{} by {by} on {host}", self.time)));
        let how = if self.explained {
            "executed again, and searched for what the results depend on besides what is declared"
        } else {
            "executed again, and compared with what is on record"
        };
        facts.push(("how", how.to_owned()));
        let runs: u64 = self.steps.iter().map(|step| u64::from(step.runs)).sum();
        facts.push(("executions", runs.to_string()));
        write_facts(f, facts)?;
        if self.interrupted {
            writeln!(f, "<p class=\"note\">It was stopped before the end: steps and causes may be missing.</p>")?;
        }
        Ok(())
    }

    fn write_steps_at_a_glance(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "<h2>Pipeline</h2>")?;
        page_graph::write(f, &self.graph, self.steps)?;
        writeln!(f, "<div class=\"wide\"><table>")?;
        writeln!(f, "<tr><th>step</th><th>result</th><th>executions</th><th>depends on, undeclared</th></tr>")?;
        for (number, step) in self.steps.iter().enumerate() {
            let causes: Vec<String> = step
                .causes
                .iter()
                .map(|named| {
                    let maybe = if named.confirmed { "" } else { " (not confirmed)" };
                    format!("<code>{}</code>{maybe}", Escaped(&named.cause.to_string()))
                })
                .collect();
            let causes = match (causes.is_empty(), self.explained) {
                (false, _) => causes.join(", "),
                (true, true) => "nothing was found".to_owned(),
                (true, false) => "not searched for".to_owned(),
            };
            writeln!(
                f,
                "<tr><td><a href=\"#step-{number}\">{}</a></td><td>{}</td><td>{}</td><td>{causes}</td></tr>",
                Escaped(&step.step),
                badge(step.level, step.is_allowed),
                step.runs
            )?;
        }
        writeln!(f, "</table></div>")
    }

    fn write_varied(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "<h2>What was varied</h2>")?;
        writeln!(f, "<p>A result that repeats does so under these conditions; of others nothing is said.</p>")?;
        writeln!(f, "<div class=\"wide\"><table>\n<tr><th>step</th><th>could be pinned</th><th>varied</th></tr>")?;
        for step in self.steps {
            let varied = varied(&step.varied);
            writeln!(f, "<tr><td>{}</td><td>{}</td><td>{varied}</td></tr>", Escaped(&step.step), pinned(step.rung))?;
        }
        writeln!(f, "</table></div>")
    }

    fn write_environment(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "<h2>Environment</h2>")?;
        let mut facts = vec![("platform", Escaped(&self.by.platform).to_string())];
        facts.extend(self.machine.iter().map(|(name, value)| (name.as_str(), Escaped(value).to_string())));
        write_facts(f, facts)?;
        for (step, used) in self.used.iter().filter(|(_, used)| **used != Used::default()) {
            writeln!(f, "<h3>{} used</h3>", Escaped(step))?;
            let code = |text: &str| format!("<code>{}</code>", Escaped(text));
            let pairs = |all: &BTreeMap<String, String>| {
                let each = all.iter().map(|(name, value)| format!("{} {}", Escaped(name), code(value)));
                each.collect::<Vec<_>>().join(", ")
            };
            let blas: Vec<String> = used.blas.iter().map(|name| code(name)).collect();
            let facts = [
                ("programs", pairs(&used.programs)),
                ("packages", pairs(&used.packages)),
                ("linear algebra", blas.join(", ")),
            ];
            write_facts(f, facts.into_iter().filter(|(_, text)| !text.is_empty()).collect())?;
        }
        Ok(())
    }

    fn write_again(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "<h2>How to make it again</h2>")?;
        writeln!(f, "<p>In a clone of the repository, with the data (<code>pv pull</code> fetches it):</p>")?;
        let commands: Vec<String> = self.commands.iter().map(|line| Escaped(line).to_string()).collect();
        writeln!(f, "<pre>{}</pre>", commands.join("\n"))
    }
}

/// Writes facts, whose values are markup already and whose names are text.
fn write_facts(f: &mut fmt::Formatter<'_>, facts: Vec<(&str, String)>) -> fmt::Result {
    writeln!(f, "<dl class=\"facts\">")?;
    for (name, value) in facts {
        writeln!(f, "<dt>{}</dt><dd>{value}</dd>", Escaped(name))?;
    }
    writeln!(f, "</dl>")
}

fn write_step(f: &mut fmt::Formatter<'_>, number: usize, step: &StepVerdict) -> fmt::Result {
    writeln!(
        f,
        "<section id=\"step-{number}\">\n<h2>{} {}</h2>",
        Escaped(&step.step),
        badge(step.level, step.is_allowed)
    )?;
    let runs = if step.runs == 1 { "1 execution".to_owned() } else { format!("{} executions", step.runs) };
    let stopped = if step.interrupted { ", stopped before the end" } else { "" };
    writeln!(f, "<p class=\"quiet\">{runs}, {:.1} s{stopped}</p>", step.elapsed.as_secs_f64())?;
    for note in &step.notes {
        writeln!(f, "<p>{}</p>", Escaped(note))?;
    }
    if !step.causes.is_empty() {
        writeln!(f, "<h3>Why</h3>")?;
    }
    step.causes.iter().try_for_each(|named| write_cause(f, named))?;
    writeln!(f, "<h3>Outputs</h3>")?;
    if step.outputs.is_empty() {
        writeln!(f, "<p>None could be compared.</p>")?;
    }
    step.outputs.iter().try_for_each(|output| write_output(f, output))?;
    writeln!(f, "</section>")
}

fn write_cause(f: &mut fmt::Formatter<'_>, named: &CauseNamed) -> fmt::Result {
    let (class, word) = if named.confirmed {
        ("cause", "<span class=\"badge bad\">confirmed</span>")
    } else {
        ("cause maybe", "<span class=\"badge note\">not confirmed</span>")
    };
    writeln!(f, "<div class=\"{class}\">\n<h4><code>{}</code> {word}</h4>", Escaped(&named.cause.to_string()))?;
    let places: Vec<String> = named.places.iter().map(|place| format!("<code>{}</code>", Escaped(place))).collect();
    let mut facts = vec![("evidence", Escaped(&named.evidence).to_string())];
    if !places.is_empty() {
        facts.push(("where", places.join("<br>")));
    }
    facts.push(("what to do", marked(&named.fix)));
    write_facts(f, facts)?;
    writeln!(f, "</div>")
}

/// Returns what was varied: conditions, then variables, then files, each kind on lines of its own.
fn varied(causes: &[Cause]) -> String {
    let (mut conditions, mut variables, mut files) = (Vec::new(), Vec::new(), Vec::new());
    for cause in causes {
        let (kind, name) = match cause {
            Cause::Env(name) => (&mut variables, name.clone()),
            Cause::UndeclaredFile(path) => (&mut files, path.clone()),
            other => (&mut conditions, other.to_string()),
        };
        kind.push(format!("<code>{}</code>", Escaped(&name)));
    }
    let kinds = [("", conditions), ("variables: ", variables), ("undeclared files: ", files)];
    let lines: Vec<String> = kinds
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(kind, names)| format!("{kind}{}", names.join(", ")))
        .collect();
    if lines.is_empty() { "nothing".to_owned() } else { lines.join("<br>") }
}

/// Returns text with what stands in backticks as code.
fn marked(text: &str) -> String {
    let mut out = String::new();
    for (number, part) in text.split('`').enumerate() {
        let part = Escaped(part);
        let _ = if number % 2 == 1 { write!(out, "<code>{part}</code>") } else { write!(out, "{part}") };
    }
    out
}

fn write_output(f: &mut fmt::Formatter<'_>, output: &OutputVerdict) -> fmt::Result {
    let Comparison { path, level, format, findings, more, errors, note } = &output.comparison;
    writeln!(f, "<h4><code>{}</code> {}</h4>", Escaped(path), badge(*level, output.is_allowed))?;
    if *level == Level::Identical {
        return Ok(());
    }
    let mut about = vec![format!("compared as {format}")];
    if output.is_allowed {
        about.push("the definition allows this".to_owned());
    }
    about.extend(note.clone());
    about.extend(errors.as_ref().map(ToString::to_string));
    writeln!(f, "<p class=\"quiet\">{}</p>", Escaped(&about.join("; ")))?;
    if findings.is_empty() {
        return Ok(());
    }
    writeln!(f, "<div class=\"wide\"><table>")?;
    writeln!(f, "<tr><th>place</th><th>one execution</th><th>another</th><th>looks like</th></tr>")?;
    findings.iter().try_for_each(|finding| write_finding(f, finding))?;
    if *more > 0 {
        let places = if *more == 1 { "place" } else { "places" };
        writeln!(f, "<tr><td colspan=\"4\" class=\"quiet\">and {more} more {places}</td></tr>")?;
    }
    writeln!(f, "</table></div>")
}

fn write_finding(f: &mut fmt::Formatter<'_>, finding: &Finding) -> fmt::Result {
    let value = |text: &Option<String>| match text {
        Some(text) => format!("<td class=\"value\">{}</td>", Escaped(text)),
        None => "<td class=\"quiet\">nothing</td>".to_owned(),
    };
    let shape = finding.shape.map(Shape::word).unwrap_or_default();
    writeln!(
        f,
        "<tr><td class=\"value\">{}</td>{}{}<td>{shape}</td></tr>",
        Escaped(&finding.place),
        value(&finding.old),
        value(&finding.new)
    )
}

/// Returns the class of a level, by which it has its colour.
pub(super) fn class(is_allowed: bool) -> &'static str {
    if is_allowed { "good" } else { "bad" }
}

/// Returns a level with a sign, so that it is told without colour too.
pub(super) fn told(level: Level) -> String {
    let sign = match level {
        Level::Identical => "=",
        Level::Canonical => "≡",
        Level::Close => "≈",
        Level::Different => "≠",
    };
    format!("{sign} {level}")
}

fn badge(level: Level, is_allowed: bool) -> String {
    format!("<span class=\"badge {}\">{}</span>", class(is_allowed), told(level))
}

fn pinned(rung: Rung) -> &'static str {
    match rung {
        Rung::Full => "everything that the engine knows",
        Rung::Untimed => "everything but clocks: the step does not bear them pinned",
        Rung::Variables => "variables, directories and files alone",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::compare::Errors;

    fn verdicts() -> Vec<StepVerdict> {
        let finding = |place: &str, old: Option<&str>, new: Option<&str>, shape| Finding {
            place: place.to_owned(),
            old: old.map(str::to_owned),
            new: new.map(str::to_owned),
            shape,
        };
        let output = |path: &str, level, is_allowed| OutputVerdict {
            comparison: Comparison { level, ..Comparison::identical(path, "json") },
            is_allowed,
        };
        let mut stamped = output("<out>/a\nb.json", Level::Different, false);
        stamped.comparison.findings = vec![
            finding("$.at", Some("2023-11-14"), Some("2025-01-20"), Some(Shape::Timestamp)),
            finding("$.\"<b>\"", None, Some("<script>alert('x')</script>"), None),
        ];
        stamped.comparison.more = 1;
        let mut close = output("loss.json", Level::Close, true);
        close.comparison.errors =
            Some(Errors { max_absolute: 1e-16, max_relative: 1.1e-16, max_ulps: 1, share: 0.5, elements: 2 });
        close.comparison.note = Some("keys are in another order".to_owned());
        let step = |name: &str, level, is_allowed, outputs| StepVerdict {
            step: name.to_owned(),
            level,
            is_allowed,
            runs: 12,
            elapsed: Duration::from_millis(3_450),
            outputs,
            causes: Vec::new(),
            notes: Vec::new(),
            rung: Rung::Full,
            varied: vec![Cause::Clock, Cause::Env("A&B".into()), Cause::UndeclaredFile("a\u{202e}b".into())],
            interrupted: false,
        };
        let mut first =
            step("stamp", Level::Different, false, vec![stamped, output("same.json", Level::Identical, true)]);
        first.notes = vec!["a note with <i>".to_owned()];
        let cause = |cause: Cause, confirmed, evidence: &str| CauseNamed {
            fix: cause.fix(),
            cause,
            confirmed,
            evidence: evidence.to_owned(),
            places: vec!["a.json: $.at 2023-11-14 -> 2025-01-20".to_owned()],
        };
        first.causes = vec![
            cause(Cause::Clock, true, "it alone was varied"),
            cause(Cause::UndeclaredFile("<x>".into()), false, "it was varied together with others"),
        ];
        let second =
            StepVerdict { rung: Rung::Untimed, runs: 1, ..step("fit@model=<b>", Level::Close, true, vec![close]) };
        vec![first, second]
    }

    fn page() -> String {
        let by = By {
            who: "Ada <ada@example.org>".to_owned(),
            host: "here".to_owned(),
            platform: "linux-x86_64".to_owned(),
            pv: "0.1.0".to_owned(),
        };
        let fact = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let used = Used {
            programs: [fact("python3", "1a639e4d7e9e")].into(),
            packages: [fact("numpy", "2.2.1")].into(),
            blas: vec!["libopenblas.so".to_owned()],
        };
        let page = Page {
            verdict: "depends on clock".to_owned(),
            is_good: false,
            snapshot: crate::hash::Digest::of(b"any").into(),
            version: Some("v1.0"),
            commit: Some("0d1d3815b05d"),
            dirty: true,
            pipeline: "pipeline",
            time: "2026-01-31T09:30:00Z".parse().unwrap(),
            by: &by,
            explained: true,
            interrupted: true,
            graph: vec![
                Node { name: "load", waits_for: vec![] },
                Node { name: "stamp", waits_for: vec![0] },
                Node { name: "fit@model=<b>", waits_for: vec![0, 1] },
            ],
            steps: &verdicts(),
            machine: [fact("cpu", "Some \"fast\" one"), fact("kernel", "6.1")].into(),
            used: [("stamp".to_owned(), used)].into(),
            commands: vec!["pv verify --why v1.0 --step 'fit@model=<b>'".to_owned()],
        };
        page.to_string()
    }

    #[test]
    fn a_page_tells_everything_and_each_text_is_text() {
        let page = page();
        insta::assert_snapshot!(page.replace(STYLE, "[STYLE]\n"));
    }

    #[test]
    fn no_name_and_no_value_is_markup_and_nothing_is_loaded() {
        let page = page().replace(STYLE, "");
        let tags: std::collections::BTreeSet<&str> = page
            .split('<')
            .skip(1)
            .map(|rest| {
                rest.trim_start_matches('/').split(|c: char| !(c.is_ascii_alphanumeric() || c == '!')).next().unwrap()
            })
            .collect();
        let known = "!DOCTYPE a badge body br code dd div dl dt footer g h1 h2 h3 h4 head header html main meta p path pre rect \
                     section span style svg table td text th title tr";
        assert!(tags.iter().all(|tag| known.split(' ').any(|one| one == *tag)), "{tags:?}");
        assert!(!page.contains("http:") && !page.contains("https:") && !page.contains("src="), "{page}");
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
        assert!(page.contains("a\\nb.json") && page.contains("a\\u{202e}b"), "{page}");
        for tag in ["div", "section", "table", "tr", "td", "dl", "svg", "g", "a", "span", "code", "main", "header"] {
            let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }
}
