//! Python pipelines that declare no inputs: each change runs exactly the steps that it concerns, and any other none.
//!
//! Every example is changed in what it depends on, one thing at a time, and then in what lies beside that: a new file
//! beside a script, a module that nobody imports, a note.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::sandbox::Sandbox;

/// One change, and the steps that have to run after it.
enum Change {
    Write(&'static str, &'static str, &'static [&'static str]),
    Remove(&'static str, &'static [&'static str]),
    Variable(&'static str, &'static str, &'static [&'static str]),
}
use Change::{Remove, Variable, Write};

/// A pipeline: what it is about, its steps, its files, what is changed in it.
struct Example {
    about: &'static str,
    steps: &'static str,
    files: &'static [(&'static str, &'static str)],
    changes: &'static [Change],
}

/// What concerns no step of any example.
const UNRELATED: [Change; 6] = [
    Write("steps/unrelated.py", "import nothing_at_all\n", &[]),
    Write("steps/notes.txt", "To do: everything.\n", &[]),
    Write("src/unrelated.py", "NAME = 0\n", &[]),
    Write("src/pkg/unrelated.py", "NAME = 0\n", &[]),
    Write("README.md", "# Something else\n", &[]),
    Write("other/json.py", "raise SystemExit\n", &[]),
];

const EXAMPLES: [Example; 13] = [
    Example {
        about: "a step that sees only what it declares",
        steps: "  only:\n    run: python3 steps/only.py > out.txt\n    outputs: [out.txt]\n    \
                  inputs: [src/lone.py]\n    isolate: strict\n    env: {PYTHONPATH: src}\n",
        files: &[("steps/only.py", "import lone\nprint(lone.NAME)\n"), ("src/lone.py", "NAME = 1\n")],
        changes: &[Write("src/lone.py", "NAME = 2\n", &["only"])],
    },
    Example {
        about: "a module beside the script, whose change goes through to the next step",
        steps: "  clean: {run: python3 steps/clean.py, outputs: [out/clean.txt]}\n  \
                  train: {run: python3 steps/train.py, outputs: [out/model.txt]}\n",
        files: &[
            ("steps/helper.py", "def clean(line):\n    return line.strip()\n"),
            ("steps/clean.py", "import helper\nopen('out/clean.txt', 'w').write(helper.clean(' a b '))\n"),
            ("steps/train.py", "open('out/model.txt', 'w').write(open('out/clean.txt').read() * 2)\n"),
        ],
        changes: &[
            Write("steps/helper.py", "def clean(line):\n    return line.strip().upper()\n", &["clean", "train"]),
            // Written otherwise, to the same effect.
            Write("steps/helper.py", "def clean(line):\n    return line.upper().strip()\n", &["clean"]),
        ],
    },
    Example {
        about: "a package on the path that the definition gives, with an import from beside",
        steps: "  features: {run: python3 steps/features.py > out.txt, outputs: [out.txt], env: {PYTHONPATH: src}}\n  \
                  other: {run: python3 steps/other.py > other.txt, outputs: [other.txt], env: {PYTHONPATH: src}}\n",
        files: &[
            ("src/pkg/__init__.py", "from .scale import FACTOR\n"),
            ("src/pkg/scale.py", "FACTOR = 2\n"),
            ("src/pkg/late.py", "FACTOR = 3\n"),
            ("src/lone.py", "NAME = 1\n"),
            ("steps/features.py", "import pkg\nprint(pkg.FACTOR)\n"),
            ("steps/other.py", "import lone\nprint(lone.NAME)\n"),
        ],
        changes: &[
            Write("src/pkg/scale.py", "FACTOR = 4\n", &["features"]),
            Write("src/pkg/late.py", "FACTOR = 5\n", &[]),
            Write("src/lone.py", "NAME = 2\n", &["other"]),
            Write("src/lone/__init__.py", "NAME = 3\n", &["other"]),
            Write("src/pkg/__init__.py", "FACTOR = 6\n", &["features"]),
            Write("src/pkg/scale.py", "FACTOR = 7\n", &[]),
        ],
    },
    Example {
        about: "a table that is looked up by a path made of the script's own",
        steps: "  map: {run: python3 steps/map.py > out.txt, outputs: [out.txt]}\n",
        files: &[
            (
                "steps/map.py",
                "import csv, os\nhere = os.path.dirname(os.path.abspath(__file__))\n\
                 with open(os.path.join(here, '..', 'data', 'lookup.csv')) as table:\n    print(list(csv.reader(table)))\n",
            ),
            ("data/lookup.csv", "a,1\n"),
            ("data/other.csv", "b,1\n"),
        ],
        changes: &[Write("data/lookup.csv", "a,2\n", &["map"]), Write("data/other.csv", "b,2\n", &[])],
    },
    Example {
        about: "settings that are not there",
        steps: "  read: {run: python3 steps/read.py > out.txt, outputs: [out.txt]}\n",
        files: &[
            (
                "steps/read.py",
                "import configparser\nsettings = configparser.ConfigParser()\n\
             print(settings.read(['settings.ini', 'conf/settings.ini']), settings.sections())\n",
            ),
            ("conf/other.ini", "[c]\n"),
        ],
        changes: &[
            Write("conf/settings.ini", "[a]\n", &["read"]),
            Write("settings.ini", "[b]\n", &["read"]),
            Remove("conf/settings.ini", &["read"]),
            Write("conf/other.ini", "[d]\n", &[]),
            Write("conf/more.ini", "[d]\n", &[]),
        ],
    },
    Example {
        about: "all files of a kind",
        steps: "  join: {run: python3 steps/join.py > out.txt, outputs: [out.txt]}\n",
        files: &[
            (
                "steps/join.py",
                "import glob\nfor path in sorted(glob.glob('parts/*.csv')):\n    print(open(path).read(), end='')\n",
            ),
            ("parts/a.csv", "1\n"),
        ],
        changes: &[
            Write("parts/b.csv", "2\n", &["join"]),
            Write("parts/a.csv", "3\n", &["join"]),
            Remove("parts/b.csv", &["join"]),
        ],
    },
    Example {
        about: "a variable that is passed through",
        steps: "  filter: {run: python3 steps/filter.py > out.txt, outputs: [out.txt], env: [THRESHOLD]}\n  \
                  fixed: {run: python3 steps/filter.py > fixed.txt, outputs: [fixed.txt]}\n",
        files: &[("steps/filter.py", "import os\nprint(os.environ.get('THRESHOLD', 'none'))\n")],
        changes: &[
            Variable("THRESHOLD", "3", &["filter"]),
            Variable("THRESHOLD", "4", &["filter"]),
            Variable("PYTHONPATH", "/somewhere/else", &[]),
            Variable("OTHER", "1", &[]),
        ],
    },
    Example {
        about: "a module that was tried, and is used where it is there",
        steps: "  fit: {run: python3 steps/fit.py > out.txt, outputs: [out.txt]}\n  \
                  plain: {run: python3 plain/plain.py > plain.txt, outputs: [plain.txt]}\n",
        files: &[
            ("steps/fit.py", "try:\n    import fast\nexcept ImportError:\n    fast = None\nprint(fast)\n"),
            ("plain/plain.py", "import json\nprint(json.dumps([1]))\n"),
        ],
        changes: &[
            Write("plain/fast.py", "", &[]),
            Write("steps/faster.py", "", &[]),
            Write("steps/fast.py", "", &["fit"]),
            // As it was once: that result is known.
            Remove("steps/fast.py", &[]),
            // A directory is a module as well, but not if there is one in a file.
            Write("steps/fast/any.txt", "", &["fit"]),
            Write("steps/fast/more.txt", "", &[]),
            Write("steps/fast.pyc", "not byte code", &["fit"]),
        ],
    },
    Example {
        about: "modules that hide others: of the library, and of a later directory",
        steps: "  hide: {run: python3 steps/hide.py > out.txt, outputs: [out.txt]}\n  \
                  apart: {run: python3 apart/apart.py > apart.txt, outputs: [apart.txt]}\n",
        files: &[
            (
                "steps/hide.py",
                "import sys\nsys.path[1:1] = ['lib/first', 'lib/second']\nimport colorsys, common\n\
                 print(common.NAME, colorsys.__file__.endswith('steps/colorsys.py'))\n",
            ),
            ("lib/first/some.py", ""),
            ("lib/second/common.py", "NAME = 'second'\n"),
            ("apart/apart.py", "import colorsys\nprint(colorsys.rgb_to_hsv(1, 1, 1))\n"),
        ],
        changes: &[
            Write("lib/second/more.py", "", &[]),
            Write("lib/first/common.py", "NAME = 'first'\n", &["hide"]),
            Write("lib/second/common.py", "NAME = 'never seen'\n", &[]),
            Write("steps/colorsys.py", "", &["hide"]),
            Write("steps/common/__init__.py", "NAME = 'beside'\n", &["hide"]),
        ],
    },
    Example {
        about: "a package without a file of its own",
        steps: "  parts: {run: python3 -m steps.parts > out.txt, outputs: [out.txt]}\n",
        files: &[
            ("steps/parts.py", "from lib.parts import one\nprint(one.NAME, list(__import__('lib').__path__))\n"),
            ("lib/parts/one.py", "NAME = 1\n"),
            ("lib/parts/two.py", "NAME = 2\n"),
        ],
        changes: &[
            Write("lib/parts/two.py", "NAME = 3\n", &[]),
            Write("lib/parts/three.py", "NAME = 3\n", &[]),
            Write("lib/other.py", "NAME = 3\n", &[]),
            Write("lib/parts/one.py", "NAME = 4\n", &["parts"]),
            Write("lib/__init__.py", "", &["parts"]),
            Write("lib/parts/__init__.py", "", &["parts"]),
        ],
    },
    Example {
        about: "processes that a script starts",
        steps: "  score: {run: python3 steps/score.py > out.txt, outputs: [out.txt]}\n  \
                  pool: {run: python3 steps/pool.py > pool.txt, outputs: [pool.txt]}\n",
        files: &[
            (
                "steps/score.py",
                "import subprocess, sys\nprint(subprocess.check_output([sys.executable, '-m', 'tools.weigh'], text=True))\n",
            ),
            ("tools/__init__.py", ""),
            ("tools/weigh.py", "from . import weights\nprint(weights.ALL)\n"),
            ("tools/weights.py", "ALL = [1]\n"),
            (
                "steps/pool.py",
                "import multiprocessing\ndef work(n):\n    import factor\n    return n * factor.FACTOR\n\
                 if __name__ == '__main__':\n    with multiprocessing.get_context('spawn').Pool(1) as pool:\n        \
                 print(pool.map(work, [1, 2]))\n",
            ),
            ("steps/factor.py", "FACTOR = 2\n"),
        ],
        changes: &[
            Write("tools/weights.py", "ALL = [2]\n", &["score"]),
            Write("tools/unused.py", "ALL = [2]\n", &[]),
            Write("steps/factor.py", "FACTOR = 3\n", &["pool"]),
        ],
    },
    Example {
        about: "a plug-in that a setting chooses",
        steps: "  plug: {run: python3 steps/plug.py > out.txt, outputs: [out.txt]}\n",
        files: &[
            (
                "steps/plug.py",
                "import importlib, json\nname = json.load(open('choice.json'))\n\
                 print(importlib.import_module('plugins.' + name).NAME)\n",
            ),
            ("steps/plugins/__init__.py", ""),
            ("steps/plugins/tree.py", "NAME = 'tree'\n"),
            ("steps/plugins/line.py", "NAME = 'line'\n"),
            ("choice.json", "\"tree\"\n"),
        ],
        changes: &[
            Write("steps/plugins/line.py", "NAME = 'straight line'\n", &[]),
            Write("steps/plugins/forest.py", "NAME = 'forest'\n", &[]),
            Write("steps/plugins/tree.py", "NAME = 'oak'\n", &["plug"]),
            Write("choice.json", "\"line\"\n", &["plug"]),
            Write("steps/plugins/tree.py", "NAME = 'elm'\n", &[]),
        ],
    },
    Example {
        about: "all plug-ins that there are, which is a listing",
        steps: "  every: {run: python3 steps/every.py > out.txt, outputs: [out.txt]}\n",
        files: &[
            (
                "steps/every.py",
                "import pkgutil, plugins\nprint([found.name for found in pkgutil.iter_modules(plugins.__path__)])\n",
            ),
            ("steps/plugins/__init__.py", ""),
            ("steps/plugins/tree.py", "NAME = 'tree'\n"),
        ],
        changes: &[
            Write("steps/plugins/line.py", "NAME = 'line'\n", &["every"]),
            Write("steps/plugins/line.py", "NAME = 'straight line'\n", &[]),
            Remove("steps/plugins/tree.py", &["every"]),
        ],
    },
];

struct Project {
    sandbox: Sandbox,
    variables: BTreeMap<&'static str, &'static str>,
}

impl Project {
    /// Runs the pipeline and returns the steps that were executed, with the reasons.
    fn run(&self) -> Vec<(String, String)> {
        let output = self.sandbox.pv_command(&["--json", "run"]).envs(&self.variables).output().unwrap();
        assert!(output.status.success(), "{}", self.sandbox.tell(&output));
        let run: Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let ran = run["steps"].as_array().unwrap().iter().filter(|step| step["verdict"] == "ran");
        ran.map(|step| (text(&step["step"]), text(&step["reason"]))).collect()
    }

    fn change(&mut self, change: &Change) -> (String, &'static [&'static str]) {
        match *change {
            Write(path, content, runs) => {
                self.sandbox.write(path, content);
                (format!("`{path}` is written"), runs)
            }
            Remove(path, runs) => {
                std::fs::remove_file(self.sandbox.path(path)).unwrap();
                (format!("`{path}` is removed"), runs)
            }
            Variable(name, value, runs) => {
                self.variables.insert(name, value);
                (format!("`{name}` is `{value}`"), runs)
            }
        }
    }

    /// Returns whether all that was executed was isolated and seen by notification or trace.
    fn is_seen(&self) -> bool {
        let records = below(&self.sandbox.path(".git/pv/records/step"));
        let records: Vec<Value> =
            records.iter().map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()).collect();
        assert!(!records.is_empty());
        records.iter().all(|record| record["observed"]["isolated"] == true && record["observed"]["rung"] != "none")
    }
}

fn below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(below(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn each_change_of_a_python_pipeline_runs_exactly_what_it_concerns() {
    for example in EXAMPLES {
        let sandbox = Sandbox::with_pipeline(&format!("steps:\n{}", example.steps));
        sandbox.write(".gitignore", "/out.txt\n/out/\n");
        sandbox.write("README.md", "# Something\n");
        for (path, content) in example.files {
            sandbox.write(path, content);
        }
        sandbox.commit("all");
        let mut project = Project { sandbox, variables: BTreeMap::new() };
        assert!(!project.run().is_empty());
        if !project.is_seen() {
            eprintln!("NOT TESTED: what imports depend on: steps are not isolated or not observed here");
            return;
        }
        assert_eq!(project.run(), [], "{}: nothing has changed", example.about);
        for change in example.changes {
            let (what, runs) = project.change(change);
            let ran = project.run();
            let names: Vec<&str> = ran.iter().map(|(step, _)| step.as_str()).collect();
            assert_eq!(names, runs, "{}: {what}: {ran:?}", example.about);
        }
        for change in &UNRELATED {
            project.change(change);
        }
        assert_eq!(project.run(), [], "{}: what changed concerns no step", example.about);
    }
}

/// Returns where the collection of examples of results that are not reproducible lies, if it is at hand.
fn collection() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/nondet-examples");
    let found = std::env::var_os("PV_EXAMPLES").map_or_else(beside, PathBuf::from);
    found.is_dir().then_some(found)
}

/// Returns the value, in JSON, that a line of a case gives to `name`.
fn field(case: &str, name: &str) -> Value {
    let line = case.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map_or(Value::Null, |value| serde_json::from_str(value.trim()).unwrap())
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
}

#[test]
fn each_change_of_a_collected_example_runs_it_and_nothing_else_does() {
    let Some(collection) = collection() else {
        eprintln!("NOT TESTED: the collection of examples: it is neither at `PV_EXAMPLES` nor beside the project");
        return;
    };
    let mut examples: Vec<PathBuf> =
        std::fs::read_dir(collection).unwrap().map(|entry| entry.unwrap().path()).collect();
    examples.sort();
    assert!(examples.len() >= 10);
    for example in examples {
        let case = std::fs::read_to_string(example.join("case.yaml")).unwrap();
        let definition =
            serde_json::json!({"steps": {"step": {"run": field(&case, "cmd"), "outputs": field(&case, "outputs")}}});
        let sandbox = Sandbox::with_pipeline(&definition.to_string());
        for path in below(&example).iter().filter(|path| !path.ends_with("case.yaml")) {
            sandbox.write(path.strip_prefix(&example).unwrap().to_str().unwrap(), std::fs::read(path).unwrap());
        }
        sandbox.commit("all");
        let code = texts(&field(&case, "code"));
        let text: String = code.iter().map(|path| std::fs::read_to_string(example.join(path)).unwrap()).collect();
        let changed = field(&case, "vary");
        let changed = changed.as_array().unwrap().iter().filter_map(|one| one["file"].as_object());
        let files = [texts(&field(&case, "inputs")), code, changed.flat_map(|files| files.keys().cloned()).collect()];
        let files: BTreeSet<String> = files.concat().into_iter().collect();
        let project = Project { sandbox, variables: BTreeMap::new() };
        assert_eq!(project.run().len(), 1);
        if !project.is_seen() {
            eprintln!("NOT TESTED: the collection of examples: steps are not isolated or not observed here");
            return;
        }
        assert_eq!(project.run(), [], "{example:?}: nothing has changed");
        for unrelated in ["unrelated.py", "README.md", "notes/step.py"] {
            project.sandbox.write(unrelated, "nothing\n");
        }
        assert_eq!(project.run(), [], "{example:?}: what is new concerns no step");
        let listed: BTreeSet<&str> = files.iter().filter_map(|path| Some(path.rsplit_once('/')?.0)).collect();
        for directory in listed.into_iter().filter(|directory| text.contains(&format!("'{directory}'"))) {
            project.sandbox.write(&format!("{directory}/another"), "");
            assert_eq!(project.run().len(), 1, "{example:?}: `{directory}` has another name in it");
        }
        for path in files {
            let at = project.sandbox.path(&path);
            let before = std::fs::read_to_string(&at).unwrap_or_default();
            let is_code = path.starts_with("step.");
            project.sandbox.write(&path, before + if is_code { "# more\n" } else { "\n" });
            let ran = project.run();
            // Some declare more than they read; that, and what is only listed, does not count.
            let counts = is_code || text.contains(&path);
            assert_eq!(ran.len(), usize::from(counts), "{example:?}: `{path}` has changed");
            assert!(ran.iter().all(|(_, reason)| reason.contains(&path)), "{example:?}: `{path}` has changed: {ran:?}");
            assert_eq!(project.run(), [], "{example:?}: `{path}` has not changed again");
        }
    }
}
