//! How long everyday commands take, each beside a floor that is measured in the same job.
//!
//! Subject and floor take turns, so that whatever else the machine does falls on
//! both. What counts is the ratio; nothing passes or fails by a time. The table
//! goes to standard output, the numbers to `bench/numbers.json` below the target directory.

#![expect(clippy::disallowed_methods, reason = "a benchmark starts programs, reads the clock and writes files")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on should stop where it stands")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

const CHAIN_STEPS: usize = 100;
const WIDE_STEPS: usize = 200;

fn main() {
    let scratch = Scratch::new();
    let chain = scratch.chain();
    let rows = [
        version(&scratch),
        nothing_to_do(
            &scratch,
            &chain,
            "`pv status`, 100 chained steps, nothing to do",
            &["status"],
            ("git", &["status"]),
            "<= 40 ms",
        ),
        nothing_to_do(
            &scratch,
            &chain,
            "`pv run`, 100 chained steps, nothing to do",
            &["run"],
            ("make", &["-s", "-j2"]),
            "<= 60 ms",
        ),
        wide(&scratch),
    ];
    let mut out = std::io::stdout().lock();
    out.write_all(table(&rows).as_bytes()).unwrap();
    let file = scratch.target.join("bench/numbers.json");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, serde_json::to_string_pretty(&report(&rows)).unwrap() + "\n").unwrap();
    writeln!(out, "\nwritten to {}", file.display()).unwrap();
}

/// What was measured of one thing.
struct Row {
    what: &'static str,
    floor: &'static str,
    hold: &'static str,
    subject_ms: Vec<f64>,
    floor_ms: Vec<f64>,
}

/// Measures two things in turns, after one round that does not count.
fn in_turns(rounds: usize, mut subject: impl FnMut(usize), mut floor: impl FnMut(usize)) -> (Vec<f64>, Vec<f64>) {
    let timed = |act: &mut dyn FnMut(usize), round| {
        let start = Instant::now();
        act(round);
        start.elapsed().as_secs_f64() * 1000.0
    };
    let (mut subjects, mut floors) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        floors.push(timed(&mut floor, round));
        subjects.push(timed(&mut subject, round));
    }
    (subjects.split_off(1), floors.split_off(1))
}

fn version(scratch: &Scratch) -> Row {
    let (subject_ms, floor_ms) = in_turns(
        50,
        |_| scratch.run(&scratch.root, PV, &["--version"]),
        |_| scratch.run(&scratch.root, "git", &["--version"]),
    );
    Row { what: "`pv --version`", floor: "`git --version`", hold: "<= 1.5x", subject_ms, floor_ms }
}

fn nothing_to_do(
    scratch: &Scratch,
    chain: &Path,
    what: &'static str,
    arguments: &[&str],
    (floor, floor_arguments): (&'static str, &[&str]),
    hold: &'static str,
) -> Row {
    let (subject_ms, floor_ms) =
        in_turns(20, |_| scratch.run(chain, PV, arguments), |_| scratch.run(chain, floor, floor_arguments));
    let floor = if floor == "git" { "`git status`" } else { "`make`, nothing to do" };
    Row { what, floor, hold, subject_ms, floor_ms }
}

fn wide(scratch: &Scratch) -> Row {
    const ROUNDS: usize = 5;
    // Made before, because files that are made while others are removed cost more on some file systems.
    let places: Vec<_> = (0..=ROUNDS).map(|round| scratch.wide(round)).collect();
    let (subject_ms, floor_ms) = in_turns(
        ROUNDS,
        |round| scratch.run(&places[round].0, PV, &["run", "--jobs", "2"]),
        |round| scratch.run(&places[round].1, "make", &["-s", "-j2"]),
    );
    for (project, made) in &places {
        for number in 1..=WIDE_STEPS {
            let name = format!("o{number}.txt");
            assert_eq!(std::fs::read(project.join(&name)).unwrap(), std::fs::read(made.join(&name)).unwrap());
        }
    }
    Row {
        what: "`pv run`, 200 independent trivial steps, cold",
        floor: "`make -j2`",
        hold: "<= 3x",
        subject_ms,
        floor_ms,
    }
}

const PV: &str = env!("CARGO_BIN_EXE_pv");

/// A directory with a home of its own, removed at the end.
struct Scratch {
    target: PathBuf,
    root: PathBuf,
    _directory: tempfile::TempDir,
}

impl Scratch {
    fn new() -> Self {
        let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let directory = tempfile::tempdir_in(temporary).unwrap();
        Self {
            target: temporary.parent().unwrap().to_owned(),
            root: directory.path().to_owned(),
            _directory: directory,
        }
    }

    /// Runs a program, which must succeed.
    fn run(&self, directory: &Path, program: &str, arguments: &[&str]) {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(directory)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.root.join("home"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .envs([("GIT_AUTHOR_NAME", "Ada"), ("GIT_AUTHOR_EMAIL", "ada@example.org")])
            .envs([("GIT_COMMITTER_NAME", "Ada"), ("GIT_COMMITTER_EMAIL", "ada@example.org")])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Each step copies the file of the one before. Run once, by `pv` and by `make`.
    fn chain(&self) -> PathBuf {
        let steps = (1..=CHAIN_STEPS)
            .map(|n| (format!("cp f{}.txt f{n}.txt", n - 1), format!("f{}.txt", n - 1), format!("f{n}.txt")));
        let place = self.project("chain", steps);
        self.run(&place, PV, &["run"]);
        self.run(&place, "make", &["-s", "-j2"]);
        self.run(&place, PV, &["run", "--force"]);
        place
    }

    /// Each step writes one file and reads none. A place for `pv` and one for `make`.
    fn wide(&self, round: usize) -> (PathBuf, PathBuf) {
        let steps = || (1..=WIDE_STEPS).map(|n| (format!("echo x > o{n}.txt"), String::new(), format!("o{n}.txt")));
        (self.project(&format!("wide-{round}"), steps()), self.project(&format!("make-{round}"), steps()))
    }

    /// Makes a repository with the same steps for `pv` and for `make`: (command, input, output).
    fn project(&self, name: &str, steps: impl Iterator<Item = (String, String, String)>) -> PathBuf {
        let place = self.root.join(name);
        let mut pipeline = String::from("steps:\n");
        let (mut all, mut rules, mut ignored) = (String::from("all:"), String::new(), String::new());
        for (number, (command, input, output)) in steps.enumerate() {
            write!(pipeline, "  s{number}:\n    run: {command}\n    inputs: [{input}]\n    outputs: [{output}]\n")
                .unwrap();
            write!(all, " {output}").unwrap();
            write!(rules, "{output}: {input}\n\t@sh -c '{command}'\n").unwrap();
            writeln!(ignored, "/{output}").unwrap();
        }
        std::fs::create_dir_all(place.join(".pipeline")).unwrap();
        std::fs::write(place.join(".pipeline/pipeline.yaml"), pipeline).unwrap();
        std::fs::write(place.join("Makefile"), format!("{all}\n{rules}")).unwrap();
        std::fs::write(place.join(".gitignore"), ignored).unwrap();
        std::fs::write(place.join("f0.txt"), "start\n").unwrap();
        std::fs::create_dir_all(self.root.join("home")).unwrap();
        self.run(&place, "git", &["init", "--quiet"]);
        self.run(&place, "git", &["add", "--all"]);
        self.run(&place, "git", &["commit", "--quiet", "--message", "steps"]);
        place
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

fn minimum(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| what | median ms | minimum ms | floor | its median ms | its minimum ms | ratio | hold | rounds |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let (subject, floor) = (median(&row.subject_ms), median(&row.floor_ms));
        writeln!(
            text,
            "| {} | {subject:.1} | {:.1} | {} | {floor:.1} | {:.1} | {:.1}x | {} | {} |",
            row.what,
            minimum(&row.subject_ms),
            row.floor,
            minimum(&row.floor_ms),
            subject / floor,
            row.hold,
            row.subject_ms.len(),
        )
        .unwrap();
    }
    text
}

fn report(rows: &[Row]) -> Value {
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "what": row.what,
                "hold": row.hold,
                "ratio": median(&row.subject_ms) / median(&row.floor_ms),
                "median_ms": median(&row.subject_ms),
                "minimum_ms": minimum(&row.subject_ms),
                "all_ms": row.subject_ms,
                "floor": row.floor,
                "floor_median_ms": median(&row.floor_ms),
                "floor_minimum_ms": minimum(&row.floor_ms),
                "floor_all_ms": row.floor_ms,
            })
        })
        .collect();
    json!({ "processors": std::thread::available_parallelism().map_or(1, usize::from), "measured": rows })
}
