//! What many steps cost together: with nothing to do, cold, and after one edit among many files.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::child::{self, Cost, in_turns};
use crate::common::facts::first_line;
use crate::common::row::{Hold, Row, Series};
use crate::common::scratch::Scratch;
use crate::common::size::Size;

mod peers;

pub(crate) use peers::Step;

const MANY_STEPS: usize = 1000;
const IDLE: &str = "`pv run`, 100 chained steps, nothing to do";
const FILES: usize = 100_000;
const FILES_PER_DIRECTORY: usize = 250;

/// The other program that runs steps, and how it is told to bring everything up to date.
const NINJA: &[&str] = &["ninja", "--quiet"];

/// The rows, what was not measured, and the versions of other programs.
pub(crate) struct Measured {
    pub(crate) rows: Vec<Row>,
    pub(crate) versions: Vec<(String, String)>,
    pub(crate) missing: Vec<String>,
}

/// Measures all of it. `chain` is a place whose 100 chained steps are done; `wide` is the row of the 200 independent ones.
pub(crate) fn measure(scratch: &Scratch, size: Size, chain: &Path, wide: &mut Row) -> Measured {
    let (mut rows, mut missing) = (Vec::new(), Vec::new());
    if is_there(NINJA[0]) {
        rows.push(nothing_to_do(scratch, size, chain));
    } else {
        missing.push("`pv run` of 100 steps with nothing to do: its floor, ninja, is not installed".to_owned());
    }
    rows.push(ten_times_as_many(scratch, size, chain));
    let mut of_cold = cold(scratch, size);
    rows.push(one_edit(scratch, size));
    let (peers, absent) = peers::installed();
    missing.extend(absent.iter().map(|name| format!("{name}, running the same steps: it is not installed")));
    let mut versions = Vec::new();
    for (peer, version) in peers {
        let needed = peer.measure(scratch, size, &super::chain_steps(super::CHAIN_STEPS), "start\n");
        of_cold.peers.push(needed.cold);
        rows.iter_mut().filter(|row| row.what == IDLE).for_each(|row| row.peers.push(needed.idle.clone()));
        wide.peers.push(peer.measure(scratch, size, &super::wide_steps(), "x\n").cold);
        versions.push((peer.name.to_owned(), version));
    }
    rows.push(of_cold);
    Measured { rows, versions, missing }
}

fn nothing_to_do(scratch: &Scratch, size: Size, chain: &Path) -> Row {
    peer(scratch, chain, NINJA);
    let (subject, floor) = in_turns(size.rounds(20), |_| scratch.pv(chain, &["run"]), |_| peer(scratch, chain, NINJA));
    let floor = Series::times("`ninja`, nothing to do", &floor);
    row(IDLE, Series::times("pv", &subject), floor, 5.0)
}

fn ten_times_as_many(scratch: &Scratch, size: Size, chain: &Path) -> Row {
    let place = super::chain_of(scratch, "chain-of-many", MANY_STEPS);
    scratch.pv(&place, &["run"]);
    scratch.pv(&place, &["run"]);
    let (subject, floor) = in_turns(size.rounds(10), |_| scratch.pv(&place, &["run"]), |_| scratch.pv(chain, &["run"]));
    let floor = Series::times("the same with 100 steps", &floor);
    row("`pv run`, 1,000 chained steps, nothing to do", Series::times("pv", &subject), floor, 10.0)
}

fn cold(scratch: &Scratch, size: Size) -> Row {
    let rounds = size.rounds(5);
    let places = |name: &str| -> Vec<PathBuf> {
        (0..=rounds).map(|round| super::chain_of(scratch, &format!("{name}-{round}"), super::CHAIN_STEPS)).collect()
    };
    let (own, made) = (places("cold"), places("cold-make"));
    let (subject, floor) = in_turns(
        rounds,
        |round| scratch.pv(&own[round], &["run"]),
        |round| scratch.run(&made[round], "make", &["-s", "-j2"]),
    );
    let floor = Series::times("`make -j2`", &floor);
    row("`pv run`, 100 chained steps, cold", Series::times("pv", &subject), floor, 2.0)
}

fn one_edit(scratch: &Scratch, size: Size) -> Row {
    let place = scratch.root.join("one-edit");
    for number in 0..size.of(FILES) {
        let directory = place.join(format!("files/{}", number / FILES_PER_DIRECTORY));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(number.to_string()), format!("{number}\n")).unwrap();
    }
    std::fs::create_dir_all(place.join(".pipeline")).unwrap();
    let definition = "steps:\n  copy: {run: cp files/0/0 out.txt, inputs: [files/0/0], outputs: [out.txt]}\n";
    std::fs::write(place.join(".pipeline/pipeline.yaml"), definition).unwrap();
    std::fs::write(place.join(".gitignore"), "/out.txt\n").unwrap();
    scratch.commit(&place);
    scratch.pv(&place, &["run"]);
    let edits = Cell::new(0);
    let (subject, floor) = in_turns(
        size.rounds(5),
        |_| {
            edits.set(edits.get() + 1);
            std::fs::write(place.join("files/0/0"), format!("edit {}\n", edits.get())).unwrap();
            scratch.pv(&place, &["run"])
        },
        |_| scratch.pv(&place, &["status"]),
    );
    let out = std::fs::read_to_string(place.join("out.txt")).unwrap();
    assert_eq!(out, format!("edit {}\n", edits.get()), "the step ran after the last edit");
    let floor = Series::times("`pv status`", &floor);
    row("`pv run` of one step after one edit, 100,000 files", Series::times("pv", &subject), floor, 2.0)
}

fn row(what: &str, measured: Series, floor: Series, most: f64) -> Row {
    Row {
        name: "steps".to_owned(),
        what: what.to_owned(),
        measured,
        floor: Some(floor),
        hold: Hold::Ratio(most),
        hold_peak_mib: None,
        peers: Vec::new(),
    }
}

fn peer(scratch: &Scratch, place: &Path, words: &[&str]) -> Cost {
    child::run(scratch.command(place, words[0]).args(&words[1..]).env("PATH", peers::path())).0
}

fn is_there(program: &str) -> bool {
    first_line(Command::new(program).arg("--version").env("PATH", peers::path())).is_some()
}
