//! Tests of isolated and observed jobs, on this machine's kernel.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::disk::{Durability, make_directory, write_whole};
use crate::host;

/// A directory with what a world needs.
struct Bench {
    root: tempfile::TempDir,
    environment: BTreeMap<String, OsString>,
    offline: bool,
}

struct Ran {
    outcome: Outcome,
    printed: String,
}

impl Bench {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for name in ["base", "upper", "scratch", "room/work", "room/home", "room/tmp", "root"] {
            make_directory(&root.path().join(name)).unwrap();
        }
        let environment = BTreeMap::from([
            ("PATH".to_owned(), host::variable_os("PATH").unwrap()),
            ("HOME".to_owned(), "/pv/home".into()),
            ("TMPDIR".to_owned(), "/pv/tmp".into()),
            ("LC_ALL".to_owned(), "C.UTF-8".into()),
        ]);
        Self { root, environment, offline: false }
    }

    fn file(&self, path: &str, text: &str) {
        write_whole(&self.root.path().join("base").join(path), text.as_bytes(), Durability::Deferred).unwrap();
    }

    fn world(&self) -> World {
        World {
            base: self.root.path().to_owned(),
            lower: vec!["base".into()],
            upper: ("upper".into(), "scratch".into()),
            room: "room".into(),
            root: "root".into(),
            bound: Vec::new(),
            offline: self.offline,
        }
    }

    fn run(&self, text: &str) -> Ran {
        self.run_for(text, None, &Stop::new())
    }

    fn run_for(&self, text: &str, time_limit: Option<Duration>, stop: &Stop) -> Ran {
        let command = Command::Shell(text.to_owned());
        let world = self.world();
        let job = Job {
            command: &command,
            directory: Path::new(WORKPLACE),
            environment: &self.environment,
            time_limit,
            memory: None,
            log: &self.root.path().join("log"),
            world: Some(&world),
            observe: true,
            permission: None,
        };
        let mut printed = String::new();
        let outcome = run(&job, &mut |line| printed += &(String::from_utf8_lossy(line) + "\n"), stop).unwrap();
        Ran { outcome, printed }
    }

    fn upper(&self, path: &str) -> PathBuf {
        self.root.path().join("upper").join(path)
    }
}

impl Ran {
    /// Returns what was read below the working place, each with what was done.
    fn inside(&self) -> Vec<String> {
        let word = |yes: bool, word: &'static str| if yes { word } else { "" };
        let touched = self.outcome.observation.touched.iter();
        touched
            .filter_map(|(path, touch)| {
                let path = path.strip_prefix(WORKPLACE).ok()?.display().to_string();
                let words = [
                    word(touch.read, "read"),
                    word(touch.listed, "listed"),
                    word(touch.examined, "examined"),
                    word(touch.executed, "executed"),
                    word(touch.written, "written"),
                ];
                let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
                Some(format!("{path}: {}", words.join(" ")))
            })
            .collect()
    }
}

#[test]
fn an_isolated_job_works_at_a_fixed_place_over_layers_that_it_cannot_change() {
    let bench = Bench::new();
    bench.file("in.txt", "one\n");
    let ran = bench.run("pwd; cat in.txt; echo two >> in.txt; echo three > out.txt; hostname; echo $HOME $$; ls /pv");
    assert_eq!(ran.outcome.end, End::Exited(0), "{}", ran.printed);
    assert_eq!(ran.printed, "/pv/work\none\nlocalhost\n/pv/home 2\nhome\ntmp\nwork\n");
    let read = |path: PathBuf| String::from_utf8(crate::disk::read_if_there(&path).unwrap().unwrap()).unwrap();
    assert_eq!(read(bench.root.path().join("base/in.txt")), "one\n");
    assert_eq!(read(bench.upper("in.txt")), "one\ntwo\n");
    assert_eq!(read(bench.upper("out.txt")), "three\n");
    let observation = &ran.outcome.observation;
    assert!(observation.isolated);
    assert_eq!((observation.rung, &observation.gaps), (Rung::Notify, &std::collections::BTreeSet::new()));
    assert_eq!(ran.inside(), ["in.txt: read written", "out.txt: written"]);
    assert_eq!(observation.touched[Path::new("/pv/work/in.txt")].by, "cat");
}
