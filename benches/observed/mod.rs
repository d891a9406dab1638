//! What it costs a command to be isolated and observed, beside the same command alone, and isolated only.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use pv::exec::{Command, End, Job, Listing, Pins, Rung, Stop, WORKPLACE, WallClock, World, run};

use crate::common::child::{Cost, in_turns};
use crate::common::facts::first_line;
use crate::common::row::{Hold, Row, Series};
use crate::common::scratch::Scratch;
use crate::common::size::Size;
use crate::steps::Measured;

const FILES: usize = 20_000;
const IMPORT: &str = "import numpy, pandas, sklearn.linear_model, sklearn.ensemble";
const WRITE: &str = "import os\nos.makedirs('made', exist_ok=True)\nfor n in range(20000):\n with open(f'made/{n}', 'w') as file: file.write('text')";
const OPEN: &str = "for n in range(20000):\n with open(f'files/{n}') as file: file.read()";

/// What is done to a command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Alone,
    Isolated,
    Observed,
    /// Observed, and everything pinned that can be.
    Pinned,
}

/// A place with what a world needs.
struct Place {
    root: PathBuf,
    jobs: usize,
}

impl Place {
    fn new(scratch: &Scratch) -> Self {
        let root = scratch.root.join("observed");
        for name in ["base/files", "room/work", "room/home", "room/tmp", "root"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        for number in 0..FILES {
            std::fs::write(root.join("base/files").join(number.to_string()), b"text").unwrap();
        }
        Self { root, jobs: 0 }
    }

    /// Runs a command. What is observed is isolated too.
    fn run(&mut self, words: &[&str], way: Way) -> Cost {
        let (is_isolated, is_observed) = (way != Way::Alone, matches!(way, Way::Observed | Way::Pinned));
        let pins = (way == Way::Pinned).then(everything);
        self.jobs += 1;
        let [upper, scratch] = ["upper", "scratch"].map(|name| PathBuf::from(format!("{name}-{}", self.jobs)));
        for made in [&upper, &scratch] {
            std::fs::create_dir(self.root.join(made)).unwrap();
        }
        let world = World {
            base: self.root.clone(),
            lower: vec!["base".into()],
            upper: (upper, scratch),
            room: "room".into(),
            root: "root".into(),
            workplace: WORKPLACE.into(),
            offline: false,
            image: None,
            read_only: Vec::new(),
        };
        let command = Command::Direct(words.iter().map(|word| (*word).to_owned()).collect());
        let variable = |name: &str| std::env::var_os(name).map(|value| (name.to_owned(), value));
        let environment: BTreeMap<String, OsString> =
            ["PATH", "HOME", "TMPDIR"].into_iter().filter_map(variable).collect();
        let (base, log) = (self.root.join("base"), self.root.join("log"));
        let job = Job {
            command: &command,
            directory: if is_isolated { Path::new(WORKPLACE) } else { &base },
            environment: &environment,
            time_limit: None,
            log: &log,
            memory: None,
            world: is_isolated.then_some(&world),
            observe: is_observed,
            permission: None,
            pins: pins.as_ref(),
        };
        let mut outcome = None;
        let cost = Cost::of(|| outcome = Some(run(&job, &mut |_| {}, &Stop::new()).unwrap()));
        let outcome = outcome.unwrap();
        assert_eq!(outcome.end, End::Exited(0), "{words:?}: {}", std::fs::read_to_string(&log).unwrap());
        let rung = if is_observed { Rung::Notify } else { Rung::None };
        assert_eq!((outcome.observation.rung, outcome.observation.isolated), (rung, is_isolated));
        cost
    }
}

/// Returns what a step is given in an experiment in which nothing is varied.
fn everything() -> Pins {
    Pins {
        entropy: Some(1),
        clock: Some(WallClock { start: 1_700_000_000, tick: 1_000_000 }),
        timer: Some(1_000_000),
        listing: Some(Listing::Sorted),
        processors: Some(2),
        hostname: Some("pinned".to_owned()),
        first_pid: Some(100),
        fixed_layout: true,
        ..Pins::default()
    }
}

/// Measures starting, importing packages, and opening many files.
pub(crate) fn measure(scratch: &Scratch, size: Size) -> Measured {
    let place = std::cell::RefCell::new(Place::new(scratch));
    let row = |what: &str, rounds: usize, words: &[&str], beside: Way, hold: Hold| {
        let run = |way| place.borrow_mut().run(words, way);
        let (subject, floor) = in_turns(size.rounds(rounds), |_| run(Way::Observed), |_| run(beside));
        let floor_is = if beside == Way::Alone { "the command alone" } else { "the same, isolated but not observed" };
        Row {
            name: "observed".to_owned(),
            what: what.to_owned(),
            measured: Series::times("pv", &subject),
            floor: Some(Series::times(floor_is, &floor)),
            hold,
            hold_peak_mib: None,
            peers: Vec::new(),
        }
    };
    let mut rows =
        vec![row("an isolated and observed `sh -c :`", 100, &["sh", "-c", ":"], Way::Alone, Hold::Amount(5.0))];
    let mut missing = Vec::new();
    let mut both = |what: &str, words: &[&str], most: f64| {
        for beside in [Way::Alone, Way::Isolated] {
            let done = if beside == Way::Alone { "isolated and observed" } else { "observed" };
            rows.push(row(&format!("{what}, {done}"), 10, words, beside, Hold::Ratio(most)));
        }
    };
    let import = ["python3", "-c", IMPORT];
    if first_line(std::process::Command::new("python3").args(["-c", &format!("{IMPORT}; print('there')")])).is_some() {
        both("an import of numpy, pandas and scikit-learn", &import, 1.1);
    } else {
        missing.push("an import, observed: numpy, pandas or scikit-learn is not installed for `python3`".to_owned());
    }
    both("20,000 files being opened", &["python3", "-c", OPEN], 1.5);
    let mut pinned = |what: &str, words: &[&str]| {
        let run = |way| place.borrow_mut().run(words, way);
        for (beside, floor_is, done, most) in [
            (Way::Alone, "the command alone", "isolated, observed and everything pinned", 2.4),
            (Way::Observed, "the same, isolated and observed", "everything pinned", 1.6),
        ] {
            let (subject, floor) = in_turns(size.rounds(10), |_| run(Way::Pinned), |_| run(beside));
            rows.push(Row {
                name: "pinned".to_owned(),
                what: format!("{what}, {done}"),
                measured: Series::times("pv", &subject),
                floor: Some(Series::times(floor_is, &floor)),
                hold: Hold::Ratio(most),
                hold_peak_mib: None,
                peers: Vec::new(),
            });
        }
    };
    if missing.is_empty() {
        pinned("an import of numpy, pandas and scikit-learn", &import);
    }
    pinned("20,000 files being written", &["python3", "-c", WRITE]);
    pinned("3 million random numbers", &["python3", "-c", "import random\nfor n in range(3000000): random.random()"]);
    pinned("150 short programs", &["sh", "-c", "for n in $(seq 150); do /bin/true; done"]);
    Measured { rows, versions: Vec::new(), missing }
}
