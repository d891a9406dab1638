//! How long everyday commands take, each beside a floor that is measured in the same job.
//!
//! Subject and floor take turns, so that whatever else the machine does falls on
//! both. What counts is the ratio; nothing passes or fails by a time. The table
//! goes to standard output, the numbers to `bench/full/numbers.json` below the target
//! directory. `PV_BENCH=quick` takes few rounds, which prove that it works and say nothing else.

#![expect(clippy::disallowed_methods, reason = "a benchmark starts programs, reads the clock and writes files")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on should stop where it stands")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use common::child::in_turns;
use common::facts;
use common::report::{Report, directory};
use common::row::{Hold, Row, Series, table};
use common::scratch::Scratch;
use common::size::Size;
use steps::Step;

#[expect(dead_code, reason = "some of it serves the store alone")]
mod common;
mod environments;
mod lookup;
mod observed;
mod steps;

const CHAIN_STEPS: usize = 100;
const WIDE_STEPS: usize = 200;

fn main() {
    let (size, scratch, start) = (Size::from_environment(), Scratch::new(), Instant::now());
    let chain = chain(&scratch);
    let mut rows = vec![
        version(&scratch, size),
        status_of_a_chain(&scratch, size, &chain),
        run_of_a_chain(&scratch, size, &chain),
        wide(&scratch, size),
        lookup::lookup(&scratch, size),
    ];
    let observed = observed::measure(&scratch, size);
    rows.extend(observed.rows);
    let of_environments = environments::measure(&scratch, size);
    rows.extend(of_environments.rows);
    let wide = rows.iter_mut().find(|row| row.name == "wide").expect("it is one of them");
    let steps = steps::measure(&scratch, size, &chain, wide);
    rows.extend(steps.rows);
    let mut out = std::io::stdout().lock();
    out.write_all(table(&rows).as_bytes()).unwrap();
    let mut report = Report::of(rows, size, start.elapsed().as_secs());
    let versions = ["git", "make"].map(|program| (program.to_owned(), version_of(program)));
    report.versions.extend(versions.into_iter().chain(steps.versions));
    report.not_measured.extend(observed.missing.into_iter().chain(of_environments.missing).chain(steps.missing));
    writeln!(out, "\nwritten to {}", report.keep(&directory(size), "numbers").display()).unwrap();
}

fn version_of(program: &str) -> String {
    facts::first_line(Command::new(program).arg("--version")).unwrap()
}

fn version(scratch: &Scratch, size: Size) -> Row {
    let (subject, floor) = in_turns(
        size.rounds(50),
        |_| scratch.pv(&scratch.root, &["--version"]),
        |_| scratch.run(&scratch.root, "git", &["--version"]),
    );
    Row {
        name: "version".to_owned(),
        what: "`pv --version`".to_owned(),
        measured: Series::times("pv", &subject),
        floor: Some(Series::times("`git --version`", &floor)),
        hold: Hold::Ratio(1.5),
        hold_peak_mib: None,
        peers: Vec::new(),
    }
}

fn status_of_a_chain(scratch: &Scratch, size: Size, chain: &Path) -> Row {
    let (subject, floor) =
        in_turns(size.rounds(20), |_| scratch.pv(chain, &["status"]), |_| scratch.run(chain, "git", &["status"]));
    Row {
        name: "chain".to_owned(),
        what: "`pv status`, 100 chained steps, nothing to do".to_owned(),
        measured: Series::times("pv", &subject),
        floor: Some(Series::times("`git status`", &floor)),
        hold: Hold::Amount(40.0),
        hold_peak_mib: None,
        peers: Vec::new(),
    }
}

fn run_of_a_chain(scratch: &Scratch, size: Size, chain: &Path) -> Row {
    let (subject, floor) =
        in_turns(size.rounds(20), |_| scratch.pv(chain, &["run"]), |_| scratch.run(chain, "make", &["-s", "-j2"]));
    Row {
        name: "chain".to_owned(),
        what: "`pv run`, 100 chained steps, nothing to do".to_owned(),
        measured: Series::times("pv", &subject),
        floor: Some(Series::times("`make`, nothing to do", &floor)),
        hold: Hold::Amount(60.0),
        hold_peak_mib: None,
        peers: Vec::new(),
    }
}

fn wide(scratch: &Scratch, size: Size) -> Row {
    let rounds = size.rounds(5);
    // Made before, because files that are made while others are removed cost more on some file systems.
    let places: Vec<_> = (0..=rounds).map(|round| wide_places(scratch, round)).collect();
    let (subject, floor) = in_turns(
        rounds,
        |round| scratch.pv(&places[round].0, &["run", "--jobs", "2"]),
        |round| scratch.run(&places[round].1, "make", &["-s", "-j2"]),
    );
    for (project, made) in &places {
        for number in 1..=WIDE_STEPS {
            let name = format!("o{number}.txt");
            assert_eq!(std::fs::read(project.join(&name)).unwrap(), std::fs::read(made.join(&name)).unwrap());
        }
    }
    Row {
        name: "wide".to_owned(),
        what: "`pv run`, 200 independent trivial steps, cold".to_owned(),
        measured: Series::times("pv", &subject),
        floor: Some(Series::times("`make -j2`", &floor)),
        hold: Hold::Ratio(3.0),
        hold_peak_mib: None,
        peers: Vec::new(),
    }
}

/// Each step copies the file of the one before. Run once, by `pv` and by `make`.
fn chain(scratch: &Scratch) -> PathBuf {
    let place = chain_of(scratch, "chain", CHAIN_STEPS);
    scratch.pv(&place, &["run"]);
    scratch.run(&place, "make", &["-s", "-j2"]);
    scratch.pv(&place, &["run", "--force"]);
    place
}

/// Each step copies the file of the one before. Nothing has run yet.
fn chain_of(scratch: &Scratch, name: &str, count: usize) -> PathBuf {
    project(scratch, name, &chain_steps(count))
}

fn chain_steps(count: usize) -> Vec<Step> {
    let step = |n| (format!("cp f{}.txt f{n}.txt", n - 1), format!("f{}.txt", n - 1), format!("f{n}.txt"));
    (1..=count).map(step).collect()
}

fn wide_steps() -> Vec<Step> {
    (1..=WIDE_STEPS).map(|n| (format!("echo x > o{n}.txt"), String::new(), format!("o{n}.txt"))).collect()
}

/// Each step writes one file and reads none. A place for `pv` and one for `make`.
fn wide_places(scratch: &Scratch, round: usize) -> (PathBuf, PathBuf) {
    let place = |name: &str| project(scratch, &format!("{name}-{round}"), &wide_steps());
    (place("wide"), place("make"))
}

/// Makes a repository with the same steps for `pv` and for `make`: (command, input, output).
fn project(scratch: &Scratch, name: &str, steps: &[Step]) -> PathBuf {
    let place = scratch.root.join(name);
    let mut pipeline = String::from("steps:\n");
    let (mut all, mut rules, mut ignored) = (String::from("all:"), String::new(), String::from("/.ninja_*\n"));
    let mut edges = String::from("rule run\n  command = $do\n");
    for (number, (command, input, output)) in steps.iter().enumerate() {
        write!(pipeline, "  s{number}:\n    run: {command}\n    inputs: [{input}]\n    outputs: [{output}]\n").unwrap();
        write!(all, " {output}").unwrap();
        write!(rules, "{output}: {input}\n\t@sh -c '{command}'\n").unwrap();
        write!(edges, "build {output}: run {input}\n  do = {command}\n").unwrap();
        writeln!(ignored, "/{output}").unwrap();
    }
    std::fs::create_dir_all(place.join(".pipeline")).unwrap();
    std::fs::write(place.join(".pipeline/pipeline.yaml"), pipeline).unwrap();
    std::fs::write(place.join("Makefile"), format!("{all}\n{rules}")).unwrap();
    std::fs::write(place.join("build.ninja"), edges).unwrap();
    std::fs::write(place.join(".gitignore"), ignored).unwrap();
    std::fs::write(place.join("f0.txt"), "start\n").unwrap();
    scratch.commit(&place);
    place
}
