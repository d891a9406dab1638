//! How a seed reaches programs that know nothing of it: which sources of randomness repeat under which layer, and which do not.
//!
//! The programs are real, and so are numpy and scikit-learn. torch, tensorflow and jax are stand-ins of a few lines that
//! take note of how they are seeded: what is tested of them is that, and not what they make of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use crate::fault::needs;
use crate::sandbox::Sandbox;

/// The sources, in the order of the table in `docs/seeds.md`.
const SOURCES: [&str; 8] = [
    "random",
    "numpy.random",
    "default_rng()",
    "random.Random()",
    "uuid4()",
    "hash(str)",
    "os.urandom()",
    "scikit-learn",
];

/// Writes what each source gives: in the process itself, and in four workers, started in each way.
const PROGRAM: &str = r#"
import json, multiprocessing, os, random, sys, uuid
import numpy

def draw(way="fork"):
    told = {
        "random": random.random(),
        "numpy.random": numpy.random.rand(),
        "default_rng()": numpy.random.default_rng().random(),
        "random.Random()": random.Random().random(),
        "uuid4()": str(uuid.uuid4()),
        "hash(str)": hash("text"),
        "os.urandom()": os.urandom(8).hex(),
    }
    if way == "fork":
        # Four processes that import it anew take long, and draw from numpy like the others.
        from sklearn.utils import check_random_state
        told["scikit-learn"] = check_random_state(None).rand()
    return told

def work(pipe, way):
    pipe.send(draw(way))
    pipe.close()

def workers(way):
    context = multiprocessing.get_context(way)
    pipes, processes = [], []
    for number in range(4):
        ours, theirs = context.Pipe(duplex=False)
        processes.append(context.Process(target=work, args=(theirs, way)))
        processes[-1].start()
        theirs.close()
        pipes.append(ours)
    told = [pipe.recv() for pipe in pipes]
    for process in processes:
        process.join()
    return told

if __name__ == "__main__":
    told = {"one": [draw()], "fork": workers("fork"), "spawn": workers("spawn")}
    json.dump(told, open(sys.argv[1], "w"))
"#;

/// The steps, each with how it runs Python and what it says of seed and determinism.
const STEPS: [(&str, &str, &str); 6] = [
    ("none", "python3", ""),
    ("none_isolated", "python3 -I", ""),
    ("seeded", "python3", ", seed: 42"),
    ("seeded_isolated", "python3 -I", ", seed: 42"),
    ("pinned", "python3", ", seed: 42, determinism: pinned"),
    ("pinned_isolated", "python3 -I", ", seed: 42, determinism: pinned"),
];

fn probe(project: &Sandbox) -> Result<(), String> {
    let modules =
        project.command_in(&project.path(""), "python3").args(["-c", "import numpy, sklearn"]).output().unwrap();
    if !modules.status.success() {
        return Err(project.tell(&modules));
    }
    Ok(())
}

/// Whether steps can be pinned here: they are isolated, and the kernel reports their calls.
fn can_pin() -> Result<(), String> {
    let project = Sandbox::with_pipeline("steps: {a: {run: 'true', seed: 1, determinism: pinned}}\n");
    let output = project.pv_command(&["run"]).output().unwrap();
    if output.status.success() { Ok(()) } else { Err(project.tell(&output)) }
}

/// Runs the pipeline of all [`STEPS`]; returns what each wrote, and the run.
fn outputs(project: &Sandbox) -> (BTreeMap<String, Value>, String) {
    let run = run(project);
    let read = |(step, ..): &(&str, &str, &str)| {
        ((*step).to_owned(), serde_json::from_str(&project.read(&format!("out/{step}.json"))).unwrap())
    };
    (STEPS.iter().map(read).collect(), run)
}

/// Runs the pipeline, and returns the run.
fn run(project: &Sandbox) -> String {
    let (run, code) = project.json(&["run"]);
    assert_eq!(code, 0, "{run}");
    run["run"].as_str().unwrap().to_owned()
}

/// Returns the layers of each step of a run.
fn layers(project: &Sandbox, run: &str) -> BTreeMap<String, Value> {
    let (shown, _) = project.json(&["show", run]);
    let steps = shown["steps"].as_array().unwrap().iter();
    steps.map(|step| (step["step"].as_str().unwrap().to_owned(), step["seeding"].clone())).collect()
}

#[test]
fn the_table_of_the_page_about_seeds_is_what_happens() {
    let test = "the_table_of_the_page_about_seeds_is_what_happens";
    let mut definition = "steps:\n".to_owned();
    for (step, python, more) in STEPS {
        definition += &format!(
            "  {step}: {{run: '{python} table.py out/{step}.json', inputs: [table.py], outputs: [out/{step}.json], cache: false{more}}}\n"
        );
    }
    let project = Sandbox::with_pipeline(&definition);
    project.write("table.py", PROGRAM);
    let able = probe(&project).and_then(|()| can_pin());
    let Some(()) = needs(test, "numpy, scikit-learn and pinned entropy", able) else { return };
    let (first, (second, newest)) = (outputs(&project).0, outputs(&project));
    let mut found = BTreeMap::new();
    for (step, ..) in STEPS {
        for source in SOURCES {
            let drawn = |told: &Value, way: &str| -> Vec<Value> {
                told[way].as_array().unwrap().iter().map(|worker| worker[source].clone()).collect()
            };
            let cells = ["one", "fork", "spawn"].map(|way| {
                // It is not drawn from in spawned workers: see the program.
                let way = if source == "scikit-learn" && way == "spawn" { "fork" } else { way };
                let (one, two) = (drawn(&first[step], way), drawn(&second[step], way));
                let repeats = one.iter().zip(&two).filter(|(one, two)| one == two).count();
                assert!([0, one.len()].contains(&repeats), "{step}, {source}, {way}: {one:?}, {two:?}");
                let different: BTreeSet<String> = one.iter().map(Value::to_string).collect();
                let is_isolated = step.ends_with("isolated");
                let is_shared = match source {
                    // A forked worker has its parent's secret, and the variable is the same for all.
                    "hash(str)" => way == "fork" || !is_isolated,
                    // It goes on with its parent's generator, unless the hook seeds it.
                    "numpy.random" | "scikit-learn" => way == "fork" && (step == "none" || is_isolated),
                    _ => false,
                };
                let expected = if is_shared { 1 } else { one.len() };
                assert_eq!(different.len(), expected, "{step}, {source}, {way}: {one:?}");
                if repeats > 0 { "same" } else { "differs" }
            });
            found.insert((step.to_owned(), source.to_owned()), cells.map(str::to_owned));
        }
    }
    assert_eq!(found, table(), "`docs/seeds.md` says otherwise");
    let layers = layers(&project, &newest);
    let hook = json!(["numpy.random", "random"]);
    assert_eq!(layers["none"], Value::Null);
    assert_eq!(layers["seeded"], json!({"layers": ["variables", "import-hook"], "seeded": hook}));
    assert_eq!(layers["seeded_isolated"], json!({"layers": ["variables"]}));
    assert_eq!(layers["pinned"], json!({"layers": ["variables", "import-hook", "entropy"], "seeded": hook}));
    assert_eq!(layers["pinned_isolated"], json!({"layers": ["variables", "entropy"]}));
}

/// Returns what the page says: for each step and source, what comes of it in one process, in forked workers and in spawned ones.
fn table() -> BTreeMap<(String, String), [String; 3]> {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/seeds.md")).unwrap();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let head = rows.iter().position(|row| row.contains(&"`uuid4()`")).expect("the page has the table");
    let mut found = BTreeMap::new();
    for (row, (step, ..)) in rows[head + 2..].iter().zip(STEPS) {
        for (cell, name) in row[1..].iter().zip(&rows[head][1..]) {
            // One word for all three, or one for each.
            let words: Vec<&str> = cell.split(", ").collect();
            let words = if words.len() == 1 { [words[0]; 3] } else { [words[0], words[1], words[2]] };
            found.insert((step.to_owned(), name.trim_matches('`').to_owned()), words.map(str::to_owned));
        }
    }
    found
}

#[test]
fn modules_are_seeded_when_they_are_imported_and_none_is_imported_for_it() {
    let project = Sandbox::with_pipeline(
        "steps:\n  a: {run: python3 main.py, seed: 7, outputs: [out.json], env: {PYTHONPATH: stand_ins}}\n  \
         b: {run: python3 fails.py, seed: 7, env: {PYTHONPATH: stand_ins}}\n",
    );
    project.write("stand_ins/torch.py", "SEEDS = []\ndef manual_seed(seed): SEEDS.append(seed)\n");
    project.write("stand_ins/tensorflow/__init__.py", "from . import random\n");
    project.write("stand_ins/tensorflow/random.py", "SEEDS = []\ndef set_seed(seed): SEEDS.append(seed)\n");
    // Its keys are given by the program, so there is nothing that could be seeded.
    project.write("stand_ins/jax/__init__.py", "from . import random\n");
    project.write(
        "stand_ins/jax/random.py",
        "def seed(seed): raise AssertionError('nobody seeds it')\nset_seed = manual_seed = seed\n",
    );
    project.write(
        "main.py",
        "import sys\nbefore = sorted({'random', 'numpy', 'torch', 'tensorflow'} & set(sys.modules))\n\
         import json, torch, tensorflow, jax, random\n\
         told = {'before': before, 'torch': torch.SEEDS, 'tensorflow': tensorflow.random.SEEDS,\n\
         'random': random.random() == random.Random(7).random()}\njson.dump(told, open('out.json', 'w'))\n",
    );
    project.write(
        "fails.py",
        "import tensorflow.random\ndel tensorflow.random.set_seed\nimport importlib; importlib.reload(tensorflow)\n",
    );
    let run = run(&project);
    let told: Value = serde_json::from_str(&project.read("out.json")).unwrap();
    assert_eq!(told, json!({"before": [], "torch": [7], "tensorflow": [7], "random": true}));
    let layers = layers(&project, &run);
    assert_eq!(layers["a"]["seeded"], json!(["random", "tensorflow", "torch"]));
    assert_eq!(layers["b"]["unseeded"], json!(["tensorflow"]), "what cannot be seeded fails nothing, and is told");
    let shown = project.pv(&["show", &run]);
    assert!(shown.contains("seeded by: variables, import hook (random, tensorflow, torch)\n"), "{shown}");
    assert!(shown.contains("could not be seeded: tensorflow\n"), "{shown}");
}

#[test]
fn a_step_with_a_seed_gets_the_variables_of_the_frameworks_and_its_own_win() {
    let project = Sandbox::with_pipeline(
        "steps:\n  with: {run: env > with.txt, seed: 7, outputs: [with.txt]}\n  \
         own: {run: env > own.txt, seed: 7, outputs: [own.txt], env: {TF_DETERMINISTIC_OPS: '0', XLA_FLAGS: '--xla_dump_to=x'}}\n  \
         without: {run: env > without.txt, outputs: [without.txt]}\n",
    );
    project.pv_ok(&["run"]);
    let names = ["CUBLAS_WORKSPACE_CONFIG", "TF_CUDNN_DETERMINISTIC", "TF_DETERMINISTIC_OPS", "XLA_FLAGS"];
    let given = |path: &str| {
        let text = project.read(path);
        let mut lines: Vec<String> = text
            .lines()
            .filter(|line| names.iter().any(|name| line.starts_with(&format!("{name}="))))
            .map(|line| line.split_once('=').unwrap().1.to_owned())
            .collect();
        lines.sort();
        lines
    };
    assert_eq!(given("with.txt"), ["--xla_gpu_deterministic_ops=true", "1", "1", ":4096:8"]);
    assert_eq!(given("own.txt"), ["--xla_dump_to=x --xla_gpu_deterministic_ops=true", "0", "1", ":4096:8"]);
    assert_eq!(given("without.txt"), Vec::<String>::new());
}

#[test]
fn a_pinned_step_without_a_seed_is_an_error_that_says_how_to_give_it_one() {
    let project =
        Sandbox::with_pipeline("determinism: pinned\nsteps:\n  a: {run: x, seed: 1}\n  b: {run: x}\n  c: {run: x}\n");
    insta::assert_snapshot!(project.pv(&["run"]), @r"
    --- stderr
    error: step `b` is pinned and has no seed
     --> .pipeline/pipeline.yaml:1:14
      |
    1 | determinism: pinned
      |              ^^^^^^ its entropy cannot follow from a seed
      |
    help: give the pipeline a seed, such as `seed: 42`, or the step its own
    --- exit 2
    ");
    project.write(
        ".pipeline/pipeline.yaml",
        "seed: 1\ndeterminism: pinned\nsteps:\n  a: {run: 'true', determinism: free}\n  b: {run: 'true'}\n",
    );
    let (shown, code) = project.json(&["run", "--dry-run"]);
    assert_eq!(code, 0, "{shown}");
}

#[test]
fn whether_a_step_is_pinned_is_part_of_what_its_result_is_known_by() {
    let test = "whether_a_step_is_pinned_is_part_of_what_its_result_is_known_by";
    let Some(()) = needs(test, "pinned entropy", can_pin()) else { return };
    let definition =
        |more: &str| format!("steps:\n  a: {{run: head -c 8 /dev/urandom > out, outputs: [out], seed: 1{more}}}\n");
    let project = Sandbox::with_pipeline(&definition(""));
    let verdict = || project.json(&["run"]).0["steps"][0]["verdict"].as_str().unwrap().to_owned();
    assert_eq!((verdict(), verdict()), ("ran".to_owned(), "reused".to_owned()));
    project.write(".pipeline/pipeline.yaml", definition(", determinism: pinned"));
    let (why, _) = project.json(&["why", "a"]);
    assert_eq!(why["changes"], json!([{"kind": "environment", "name": "determinism", "old": "free", "new": "pinned"}]));
    assert_eq!((verdict(), verdict()), ("ran".to_owned(), "reused".to_owned()));
    assert_eq!(layers(&project, &run(&project))["a"]["layers"], json!(["variables", "entropy"]));
    project.write(".pipeline/pipeline.yaml", definition(""));
    assert_eq!(verdict(), "reused");
}

#[test]
fn an_ordinary_user_pins_like_root() {
    let test = "an_ordinary_user_pins_like_root";
    let draw =
        "{ head -c 8 /dev/urandom | od -An -tx1; mktemp -u XXXXXXXXXX; cat /proc/sys/kernel/random/uuid; } > out";
    let project = Sandbox::with_pipeline(&format!(
        "steps:\n  a: {{run: '{draw}', outputs: [out], seed: 1, determinism: pinned, cache: false}}\n"
    ));
    let theirs = || -> Result<Value, String> {
        std::fs::copy(env!("CARGO_BIN_EXE_pv"), project.path("../pv")).map_err(|error| error.to_string())?;
        let top = project.path("..");
        // Fails where we are nobody special, which shows in a moment.
        let _ = project.command_in(&top, "chown").args(["-R", "65534:65534", "."]).output();
        let mut command = project.command_in(&project.path(""), "setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(project.path("../pv"));
        let output = command.args(["--json", "run"]).output().map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(serde_json::from_slice(&output.stdout).unwrap())
        } else {
            Err(project.tell(&output))
        }
    };
    let Some(first) = needs(test, "root, `setpriv` and pinned entropy", theirs()) else { return };
    let digest = |run: &Value| run["steps"][0]["outputs"][0]["digest"].as_str().unwrap().to_owned();
    let second = theirs().unwrap();
    assert_eq!(digest(&first), digest(&second));
    // Root's program draws the same, for nothing of it is asked of the user.
    let (ours, code) = project.json(&["run"]);
    assert_eq!(code, 0, "{ours}");
    assert_eq!(digest(&first), digest(&ours));
}

#[test]
fn a_step_that_runs_pv_itself_cannot_pin_there_and_is_told() {
    let test = "a_step_that_runs_pv_itself_cannot_pin_there_and_is_told";
    let Some(()) = needs(test, "pinned entropy", can_pin()) else { return };
    let project = Sandbox::with_pipeline(&format!(
        "steps:\n  outer: {{run: 'git init -q inner && mkdir -p inner/.pipeline && cp inner.yaml inner/.pipeline/pipeline.yaml && \
         cd inner && {pv} run > ../out 2>&1; echo $? >> ../out', outputs: [out]}}\n",
        pv = env!("CARGO_BIN_EXE_pv")
    ));
    project.write("inner.yaml", "steps: {a: {run: 'true', seed: 1, determinism: pinned}}\n");
    project.pv_ok(&["run"]);
    let told = project.read("out");
    let told = &told[told.find("error: ").unwrap()..];
    insta::assert_snapshot!(told, @r"
    error: step `a` is pinned, but entropy cannot be pinned here
      because: its calls are not reported to us
    hint: something above reports or traces this process already, such as a step of `pv`; or else, `determinism: free` gives it the system's entropy
    5
    ");
}
