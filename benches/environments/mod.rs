//! What an environment costs a step: the files of an image in place of the machine's, and entropy that follows from the seed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::child::{Cost, in_turns};
use crate::common::facts::first_line;
use crate::common::image::make_layout;
use crate::common::row::{Hold, Row, Series};
use crate::common::scratch::Scratch;
use crate::common::size::Size;
use crate::steps::Measured;

const STEPS: u8 = 20;
/// Each of them is a call of the system, in Python as everywhere.
const DRAW: &str = "import os\nfor n in range(100000):\n    os.getrandom(8)\n";
const IMPORT: &str = "import numpy, sklearn.linear_model, sklearn.ensemble\n";

pub(crate) fn measure(scratch: &Scratch, size: Size) -> Measured {
    let (mut rows, mut missing) = (Vec::new(), Vec::new());
    match busybox() {
        Some(busybox) => rows.push(start(scratch, size, &busybox)),
        None => missing.push("a step in an image: there is no static busybox to make one of".to_owned()),
    }
    rows.push(pinned(scratch, size, "a step that calls `getrandom` 100,000 times", DRAW, 10.0));
    if first_line(Command::new("python3").args(["-c", &format!("{IMPORT}print('there')")])).is_some() {
        rows.push(pinned(scratch, size, "a step that imports numpy and scikit-learn", IMPORT, 1.25));
    } else {
        missing.push("an import, pinned: numpy or scikit-learn is not installed for `python3`".to_owned());
    }
    Measured { rows, versions: Vec::new(), missing }
}

fn busybox() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|place| place.join("busybox")).find(|program| program.is_file())
}

/// The same steps in an image, whose files are laid out already, and on the machine itself.
fn start(scratch: &Scratch, size: Size, busybox: &Path) -> Row {
    let system = scratch.root.join("system");
    std::fs::create_dir_all(system.join("bin")).unwrap();
    std::fs::copy(busybox, system.join("bin/sh")).unwrap();
    make_layout(scratch, &system, &scratch.root.join("layout"));
    let mut definition = String::from("steps:\n");
    for number in 0..STEPS {
        writeln!(definition, "  s{number}: {{run: echo x > o{number}.txt, outputs: [o{number}.txt]}}").unwrap();
    }
    let (inside, outside) =
        (project(scratch, "in-image", &definition, &[]), project(scratch, "on-machine", &definition, &[]));
    scratch.pv(&inside, &["env", "add", "../layout"]);
    let run = |place: &Path| {
        let cost = scratch.pv(place, &["run", "--again", "--jobs", "1"]);
        Cost { ms: cost.ms / f64::from(STEPS), peak_mib: None }
    };
    let (subject, floor) = in_turns(size.rounds(10), |_| run(&inside), |_| run(&outside));
    Row {
        name: "environments".to_owned(),
        what: "`pv run`, a trivial step in an image, one of 20".to_owned(),
        measured: Series::times("pv", &subject),
        floor: Some(Series::times("the same on the machine itself", &floor)),
        hold: Hold::Amount(50.0),
        hold_peak_mib: None,
        peers: Vec::new(),
    }
}

/// The same step with entropy from its seed, and with that of the system.
fn pinned(scratch: &Scratch, size: Size, what: &str, program: &str, most: f64) -> Row {
    let make = |kind: &str, more: &str| {
        let definition = format!("seed: 1\n{more}steps:\n  draw: {{run: [python3, draw.py]}}\n");
        let name = format!("{kind}-{}", program.len());
        project(scratch, &name, &definition, &[("draw.py", program)])
    };
    let (own, plain) = (make("pinned", "determinism: pinned\n"), make("not-pinned", ""));
    let run = |place: &Path| scratch.pv(place, &["run", "--again"]);
    let (subject, floor) = in_turns(size.rounds(10), |_| run(&own), |_| run(&plain));
    Row {
        name: "environments".to_owned(),
        what: format!("`pv run`, {what}, `determinism: pinned`"),
        measured: Series::times("pv", &subject),
        floor: Some(Series::times("the same, not pinned", &floor)),
        hold: Hold::Ratio(most),
        hold_peak_mib: None,
        peers: Vec::new(),
    }
}

fn project(scratch: &Scratch, name: &str, definition: &str, files: &[(&str, &str)]) -> PathBuf {
    let place = scratch.root.join(name);
    std::fs::create_dir_all(place.join(".pipeline")).unwrap();
    std::fs::write(place.join(".pipeline/pipeline.yaml"), definition).unwrap();
    std::fs::write(place.join(".gitignore"), "/*.txt\n").unwrap();
    for (path, text) in files {
        std::fs::write(place.join(path), text).unwrap();
    }
    scratch.commit(&place);
    place
}
