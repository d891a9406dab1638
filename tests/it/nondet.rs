//! How well `pv verify --why` names causes: steps whose causes are known, each in a repository of its own.
//!
//! The steps are those of `fixtures/nondet`, which nobody who works on the engine tunes it to: every fourth of them, or all with
//! `PV_SCORE=write`, in eight parts that run at the same time. The part that ends last sees what all of them found, holds it to the bar, and writes the table: to cargo's
//! directory for what tests leave behind, and with `PV_SCORE=write` into `docs/verify.md`, between its two markers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::fault::needs;
use crate::sandbox::Sandbox;

/// In how many parts the steps are scored.
const PARTS: usize = 8;
/// Of so many steps one is asked about, unless the table is to be written: all of them take half an hour.
const SPREAD: usize = 4;

/// Where the table stands in the page.
const PAGE: &str = "docs/verify.md";
const MARKERS: [&str; 2] = ["<!-- score: written by `make score` -->\n", "<!-- end of the score -->"];

/// All causes that `pv verify --why` may name; the last two are followed by a name and a path.
const CAUSES: [&str; 26] = [
    "hash-seed",
    "entropy",
    "clock",
    "timer",
    "timezone",
    "locale",
    "hostname",
    "username",
    "home",
    "pid",
    "umask",
    "cpu-count",
    "thread-count",
    "aslr",
    "memory-address",
    "dir-order",
    "cwd-path",
    "tmp-path",
    "input-mtime",
    "schedule",
    "network",
    "previous-state",
    "hardware-entropy",
    "undetermined",
    "env:",
    "undeclared-file:",
];

/// A step and what is known of it: what the scorer reads of a `case.yaml`.
#[derive(Debug, Deserialize)]
struct Case {
    id: String,
    kind: Kind,
    cause: BTreeSet<String>,
    also_accept: BTreeSet<String>,
    /// Where there are several causes: which of them a name in `also_accept` takes the place of.
    #[serde(default)]
    stands_for: BTreeMap<String, String>,
    needs: Vec<String>,
    cmd: String,
    /// Variables that are set where `pv` is called.
    #[serde(default)]
    ambient: BTreeMap<String, String>,
    /// Declared as the inputs are.
    code: BTreeSet<String>,
    inputs: BTreeSet<String>,
    outputs: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Fault,
    Control,
}

/// What became of one step.
#[derive(Debug, Deserialize, Serialize)]
struct Row {
    case: String,
    kind: Kind,
    expected: BTreeSet<String>,
    named: BTreeSet<String>,
    runs: u64,
    exact: bool,
    /// Which rung of the engine ran, or why there is no answer.
    rung: String,
}

impl Case {
    /// Returns whether all causes are named, themselves or by a name that is as right, and nothing else is.
    fn is_exact(&self, named: &BTreeSet<String>) -> bool {
        let others: BTreeSet<&String> = named.difference(&self.cause).collect();
        let stands_for = |other: &String, cause: &String| {
            self.also_accept.contains(other) && (self.cause.len() == 1 || self.stands_for.get(other) == Some(cause))
        };
        others.iter().all(|other| self.also_accept.contains(*other))
            && self.cause.difference(named).all(|cause| others.iter().any(|other| stands_for(other, cause)))
    }
}

#[test]
fn the_causes_of_steps_are_named_part_1() {
    score_part(1);
}

#[test]
fn the_causes_of_steps_are_named_part_2() {
    score_part(2);
}

#[test]
fn the_causes_of_steps_are_named_part_3() {
    score_part(3);
}

#[test]
fn the_causes_of_steps_are_named_part_4() {
    score_part(4);
}

#[test]
fn the_causes_of_steps_are_named_part_5() {
    score_part(5);
}

#[test]
fn the_causes_of_steps_are_named_part_6() {
    score_part(6);
}

#[test]
fn the_causes_of_steps_are_named_part_7() {
    score_part(7);
}

#[test]
fn the_causes_of_steps_are_named_part_8() {
    score_part(8);
}

/// These ten come from outside, beside the project; the bar for them is all of them.
#[test]
fn the_ten_examples_are_all_named_exactly() {
    let test = "the_ten_examples_are_all_named_exactly";
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().skip(1).map(|up| up.join("shared/nondet-examples"));
    let found = beside.into_iter().find(|place| place.is_dir()).ok_or_else(|| "it is not there".to_owned());
    let Some(place) = needs(test, "`shared/nondet-examples` beside the project", found) else { return };
    let rows: Vec<Row> = cases(&place).iter().map(|(directory, case)| score(directory, case)).collect();
    assert_eq!(rows.len(), 10, "{}", table(&rows));
    assert!(rows.iter().all(|row| row.exact), "\n{}", table(&rows));
}

#[test]
fn a_step_is_scored_exact_only_if_nothing_is_missing_and_nothing_wrong_is_named() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
    let case = |kind, cause, also, stands_for: &[(&str, &str)]| Case {
        id: String::new(),
        kind,
        cause: names(cause),
        also_accept: names(also),
        stands_for: stands_for.iter().map(|(other, cause)| ((*other).to_owned(), (*cause).to_owned())).collect(),
        needs: Vec::new(),
        cmd: String::new(),
        ambient: BTreeMap::new(),
        code: BTreeSet::new(),
        inputs: BTreeSet::new(),
        outputs: Vec::new(),
    };
    let one = case(Kind::Fault, &["timezone"], &["env:TZ"], &[]);
    assert!(one.is_exact(&names(&["timezone"])));
    assert!(one.is_exact(&names(&["env:TZ"])));
    assert!(one.is_exact(&names(&["timezone", "env:TZ"])));
    assert!(!one.is_exact(&names(&[])));
    assert!(!one.is_exact(&names(&["timezone", "clock"])));
    assert!(!one.is_exact(&names(&["clock"])));
    let two = case(Kind::Fault, &["clock", "timezone"], &["env:TZ"], &[("env:TZ", "timezone")]);
    assert!(two.is_exact(&names(&["clock", "timezone"])));
    assert!(two.is_exact(&names(&["clock", "env:TZ"])));
    assert!(!two.is_exact(&names(&["timezone", "env:TZ"])), "what stands for one cause hides no other");
    assert!(!two.is_exact(&names(&["clock"])));
    let control = case(Kind::Control, &[], &[], &[]);
    assert!(control.is_exact(&names(&[])));
    assert!(!control.is_exact(&names(&["undetermined"])));
}

#[test]
fn every_cause_is_covered_by_a_step_and_no_step_has_a_cause_that_there_is_not() {
    let cases = cases(&fixtures());
    let is_known = |name: &str| {
        CAUSES.iter().any(|cause| {
            name == *cause || (cause.ends_with(':') && name.len() > cause.len() && name.starts_with(cause))
        })
    };
    for (directory, case) in &cases {
        assert_eq!(directory.file_name().unwrap().to_str(), Some(&*case.id));
        assert_eq!(case.cause.is_empty(), case.kind == Kind::Control, "{}", case.id);
        assert!(case.cause.iter().chain(&case.also_accept).all(|name| is_known(name)), "{}: {case:?}", case.id);
        assert!(
            case.stands_for.iter().all(|(o, c)| case.also_accept.contains(o) && case.cause.contains(c)),
            "{case:?}"
        );
        for needed in &case.needs {
            assert!(
                !probe(needed).is_err_and(|why| why == UNKNOWN),
                "{}: `{needed}` is nothing that is known",
                case.id
            );
        }
    }
    let missing: Vec<_> = CAUSES
        .iter()
        .filter(|cause| !cases.iter().any(|(_, c)| c.cause.iter().any(|name| name.starts_with(**cause))))
        .collect();
    assert!(missing.is_empty(), "no step is caused by {missing:?}");
    let controls = cases.iter().filter(|(_, case)| case.kind == Kind::Control).count();
    assert!(controls >= 10 && cases.len() - controls >= 32, "{controls} controls of {} steps", cases.len());
}

/// Scores one part of the steps. What no part may do is asserted at once; the bar is for all of them together.
fn score_part(part: usize) {
    let test = format!("the_causes_of_steps_are_named_part_{part}");
    let mut rows = Vec::new();
    let spread = if is_to_be_written() { 1 } else { SPREAD };
    for (directory, case) in cases(&fixtures()).iter().step_by(spread).skip(part - 1).step_by(PARTS) {
        let able = case.needs.iter().try_for_each(|needed| probe(needed));
        let what = format!("{} for `{}`", case.needs.join(", "), case.id);
        if needs(&test, &what, able).is_some() {
            rows.push(score(directory, case));
        }
    }
    keep(part, &rows);
    if let Some(all) = all_parts() {
        // Another part may have seen the same, and be removing it, too.
        let _ = std::fs::remove_dir_all(found());
        let table = table(&all);
        std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("nondet-score.md"), &table).unwrap();
        if is_to_be_written() {
            write_page(&table);
        }
        hold_to_the_bar(&all, &table);
    }
    let blamed: Vec<_> = rows.iter().filter(|row| row.kind == Kind::Control && !row.exact).collect();
    assert!(blamed.is_empty(), "controls were blamed: {blamed:#?}");
    let wrong: Vec<_> = rows.iter().filter(|row| is_schedule(row) && !row.exact && !row.named.is_empty()).collect();
    assert!(wrong.is_empty(), "a race was called something else: {wrong:#?}");
    let unanswered: Vec<_> = rows.iter().filter(|row| row.runs == 0).collect();
    assert!(unanswered.is_empty(), "there is no answer for {unanswered:#?}");
}

/// Returns whether the table in the page is to be written.
fn is_to_be_written() -> bool {
    std::env::var_os("PV_SCORE").is_some_and(|value| value == "write")
}

fn hold_to_the_bar(rows: &[Row], table: &str) {
    let exact = rows.iter().filter(|row| row.exact).count();
    assert!(exact * 10 >= rows.len() * 9, "{exact} of {} are named exactly\n{table}", rows.len());
    assert!(rows.iter().all(|row| row.kind == Kind::Fault || row.exact), "controls were blamed\n{table}");
    let runs = median_runs(rows);
    assert!(runs <= 15, "the median is {runs} runs\n{table}");
}

fn is_schedule(row: &Row) -> bool {
    row.expected.iter().eq(["schedule"])
}

/// Returns the cases below a directory, in the order of their names.
fn cases(place: &Path) -> Vec<(PathBuf, Case)> {
    let entries =
        walkdir::WalkDir::new(place).min_depth(1).max_depth(1).sort_by_file_name().into_iter().map(Result::unwrap);
    let read = |directory: PathBuf| {
        let text = std::fs::read_to_string(directory.join("case.yaml")).unwrap();
        let case = serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        (directory, case)
    };
    entries.filter(|entry| entry.file_type().is_dir()).map(|entry| read(entry.into_path())).collect()
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/nondet")
}

/// Asks `pv` about one step: a new repository with its files and a pipeline of that step alone, which has run once.
fn score(directory: &Path, case: &Case) -> Row {
    let project = Sandbox::new();
    for entry in walkdir::WalkDir::new(directory).min_depth(1) {
        let entry = entry.unwrap();
        let path = entry.path().strip_prefix(directory).unwrap().to_str().unwrap();
        if entry.file_type().is_file() && path != "case.yaml" {
            project.write(path, std::fs::read(entry.path()).unwrap());
        }
    }
    let inputs: BTreeSet<&String> = case.code.union(&case.inputs).collect();
    let step = json!({"run": case.cmd, "inputs": inputs, "outputs": case.outputs});
    project.write(".pipeline/pipeline.yaml", json!({"steps": {"step": step}}).to_string());
    project.commit("first");
    let ran = project.pv_command(&["run"]).output().unwrap();
    assert!(ran.status.success(), "{}: {}", case.id, project.tell(&ran));
    let verified = project.pv_command(&["--json", "verify", "--why"]).envs(&case.ambient).output().unwrap();
    let answer = serde_json::from_slice(&verified.stdout).map_err(|_| project.tell(&verified));
    row(case, answer)
}

/// Returns what an answer says of a step.
fn row(case: &Case, answer: Result<Value, String>) -> Row {
    let step = answer.as_ref().map_or(&Value::Null, |answer| &answer["steps"][0]);
    let causes = step["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let named =
        causes.iter().map(|cause| cause["cause"].as_str().unwrap_or("a cause without a name").to_owned()).collect();
    let runs = step["runs"].as_u64().unwrap_or(0);
    let rung = match &answer {
        Ok(answer) => answer["engine"]["rung"].to_string().trim_matches('"').to_owned(),
        Err(told) => told.clone(),
    };
    Row {
        case: case.id.clone(),
        kind: case.kind,
        expected: case.cause.clone(),
        exact: runs > 0 && case.is_exact(&named),
        named,
        runs,
        rung,
    }
}

/// Returns the directory for what the parts of this run of the tests found: nextest gives each test a process of its own.
fn found() -> PathBuf {
    let run = std::env::var("NEXTEST_RUN_ID").unwrap_or_else(|_| std::process::id().to_string());
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("nondet").join(run)
}

/// Writes what a part found, whole or not at all, so that whoever is last sees all parts.
fn keep(part: usize, rows: &[Row]) {
    std::fs::create_dir_all(found()).unwrap();
    let path = found().join(format!("{part}.json"));
    std::fs::write(path.with_extension("new"), serde_json::to_vec(rows).unwrap()).unwrap();
    std::fs::rename(path.with_extension("new"), path).unwrap();
}

/// Returns the rows of all parts in the order of their numbers, if all have ended.
fn all_parts() -> Option<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    for part in 1..=PARTS {
        let bytes = std::fs::read(found().join(format!("{part}.json"))).ok()?;
        rows.extend(serde_json::from_slice::<Vec<Row>>(&bytes).unwrap());
    }
    rows.sort_by(|one, other| one.case.cmp(&other.case));
    Some(rows)
}

fn median_runs(rows: &[Row]) -> u64 {
    let mut runs: Vec<u64> = rows.iter().map(|row| row.runs).collect();
    runs.sort_unstable();
    runs.get(runs.len() / 2).copied().unwrap_or(0)
}

/// Returns the score in Markdown: a summary, and a line for each step.
fn table(rows: &[Row]) -> String {
    let exact = |kind| rows.iter().filter(|row| row.kind == kind && row.exact).count();
    let all = |kind| rows.iter().filter(|row| row.kind == kind).count();
    let list = |names: &BTreeSet<String>| match names.len() {
        0 => "none".to_owned(),
        _ => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
    };
    let rungs: BTreeSet<&str> = rows.iter().filter(|row| row.runs > 0).map(|row| &*row.rung).collect();
    let mut text = format!(
        "{} of {} steps with causes were named exactly, {} of {} controls were left alone; the median was {} runs and the most {}. \
         Engine: {}.\n\n| step | causes | named | runs | exact |\n|---|---|---|---:|---|\n",
        exact(Kind::Fault),
        all(Kind::Fault),
        exact(Kind::Control),
        all(Kind::Control),
        median_runs(rows),
        rows.iter().map(|row| row.runs).max().unwrap_or(0),
        if rungs.is_empty() { "none".to_owned() } else { rungs.into_iter().collect::<Vec<_>>().join(", ") },
    );
    for row in rows {
        let verdict = if row.exact { "yes" } else { "**no**" };
        text +=
            &format!("| {} | {} | {} | {} | {verdict} |\n", row.case, list(&row.expected), list(&row.named), row.runs);
    }
    text
}

fn write_page(table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{PAGE}: {error}"));
    let (before, rest) = page.split_once(MARKERS[0]).unwrap_or_else(|| panic!("{PAGE} has no line {}", MARKERS[0]));
    let (_, after) = rest.split_once(MARKERS[1]).unwrap_or_else(|| panic!("{PAGE} has no line {}", MARKERS[1]));
    std::fs::write(path, format!("{before}{}\n{table}\n{}{after}", MARKERS[0], MARKERS[1])).unwrap();
}

const UNKNOWN: &str = "it is nothing that is known";

/// Returns whether this machine has what a case needs, or what is missing.
fn probe(needed: &str) -> Result<(), String> {
    let succeeds = |program: &str, arguments: &[&str]| {
        let status = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if status.is_ok_and(|status| status.success()) { Ok(()) } else { Err(format!("`{program}` is not there")) }
    };
    let imports = |module: &str| {
        succeeds("python3", &["-c", &format!("import {module}")])
            .map_err(|_| format!("`python3` cannot import `{module}`"))
    };
    match needed {
        "cc" | "c++" | "curl" | "git" | "make" | "node" | "perl" | "sqlite3" | "zstd" => {
            succeeds(needed, &["--version"])
        }
        "java" => succeeds(needed, &["-version"]),
        "openssl" => succeeds(needed, &["version"]),
        "r" => succeeds("Rscript", &["--version"]),
        "zip" => succeeds(needed, &["-v"]),
        "joblib" | "numpy" | "pandas" | "pyarrow" | "scipy" | "sklearn" => imports(needed),
        "rdrand" | "rdseed" => {
            let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            if flags.split_whitespace().any(|flag| flag == needed) {
                Ok(())
            } else {
                Err("the processor has no such thing".to_owned())
            }
        }
        _ => {
            let locale = needed.strip_prefix("locale:").ok_or(UNKNOWN)?;
            let listed = Command::new("locale").arg("-a").output().map(|output| output.stdout).unwrap_or_default();
            let plain = |name: &str| name.to_lowercase().replace('-', "");
            let is_there = String::from_utf8_lossy(&listed).lines().any(|name| plain(name) == plain(locale));
            if is_there { Ok(()) } else { Err(format!("there is no locale `{locale}`")) }
        }
    }
}
