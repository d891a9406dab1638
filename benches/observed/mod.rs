//! What it costs a command to be isolated and observed, beside the same command alone.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use pv::exec::{Command, End, Job, Rung, Stop, WORKPLACE, World, run};

use crate::common::child::{Cost, in_turns};
use crate::common::row::{Hold, Row, Series};
use crate::common::scratch::Scratch;
use crate::common::size::Size;

const FILES: usize = 20_000;
const IMPORT: &str =
    "import numpy, sklearn.linear_model, sklearn.ensemble\ntry: import pandas\nexcept ImportError: pass";
const OPEN: &str = "for n in range(20000):\n with open(f'files/{n}') as file: file.read()";

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

    /// Runs a command, alone or isolated and observed.
    fn run(&mut self, words: &[&str], is_observed: bool) -> Cost {
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
            offline: false,
        };
        let command = Command::Direct(words.iter().map(|word| (*word).to_owned()).collect());
        let variable = |name: &str| std::env::var_os(name).map(|value| (name.to_owned(), value));
        let environment: BTreeMap<String, OsString> =
            ["PATH", "HOME", "TMPDIR"].into_iter().filter_map(variable).collect();
        let (base, log) = (self.root.join("base"), self.root.join("log"));
        let job = Job {
            command: &command,
            directory: if is_observed { Path::new(WORKPLACE) } else { &base },
            environment: &environment,
            time_limit: None,
            log: &log,
            memory: None,
            world: is_observed.then_some(&world),
            observe: is_observed,
            permission: None,
        };
        let mut outcome = None;
        let cost = Cost::of(|| outcome = Some(run(&job, &mut |_| {}, &Stop::new()).unwrap()));
        let outcome = outcome.unwrap();
        assert_eq!(outcome.end, End::Exited(0), "{words:?}: {}", std::fs::read_to_string(&log).unwrap());
        let rung = if is_observed { Rung::Notify } else { Rung::None };
        assert_eq!((outcome.observation.rung, outcome.observation.isolated), (rung, is_observed));
        cost
    }
}

/// Returns the rows: starting, importing packages, and opening many files.
pub(crate) fn rows(scratch: &Scratch, size: Size) -> Vec<Row> {
    let place = std::cell::RefCell::new(Place::new(scratch));
    let row = |what: &str, rounds: usize, words: &[&str], hold: Hold| {
        let run = |is_observed| place.borrow_mut().run(words, is_observed);
        let (subject, floor) = in_turns(size.rounds(rounds), |_| run(true), |_| run(false));
        Row {
            name: "observed".to_owned(),
            what: what.to_owned(),
            measured: Series::times("pv", &subject),
            floor: Some(Series::times("the command alone", &floor)),
            hold,
            hold_peak_mib: None,
            peers: Vec::new(),
        }
    };
    vec![
        row("an isolated and observed `sh -c :`", 100, &["sh", "-c", ":"], Hold::Amount(5.0)),
        row("observing an import of scikit-learn", 10, &["python3", "-c", IMPORT], Hold::Ratio(1.1)),
        row("observing 20,000 files being opened", 10, &["python3", "-c", OPEN], Hold::Ratio(1.5)),
    ]
}
