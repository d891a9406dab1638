//! One Python environment in place of another: it runs exactly the steps that loaded what differs, and says so.
//!
//! The environments are real ones, with scikit-learn in two versions from the package index. They are made once and
//! kept below Cargo's directory.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::sandbox::Sandbox;

const OLD: &str = "1.3.2";
const NEW: &str = "1.5.2";

/// What a program said, if it did not do what it was asked.
fn told(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Returns a virtual environment with scikit-learn in this version, and of the rest what `constraints` say.
///
/// Made in half a minute the first time; later ones find it.
fn environment(version: &str, constraints: &[String]) -> Result<PathBuf, String> {
    let python = told(Command::new("python3").args(["-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"]))?;
    let directory =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("python-{}-scikit-learn-{version}", python.trim()));
    if directory.is_dir() {
        return Ok(directory);
    }
    // Whole or not at all: what is here was made to the end.
    let part = directory.with_extension(format!("part-{}", std::process::id()));
    told(Command::new("python3").args(["-m", "venv"]).arg(&part))?;
    let mut install = Command::new(part.join("bin/python3"));
    install.args(["-m", "pip", "install", "--quiet", "--only-binary", ":all:"]);
    let installed = told(install.arg(format!("scikit-learn=={version}")).args(constraints));
    if let Err(why) = installed {
        std::fs::remove_dir_all(&part).unwrap();
        return Err(why);
    }
    if std::fs::rename(&part, &directory).is_err() {
        // Another test run was faster.
        std::fs::remove_dir_all(&part).unwrap();
    }
    Ok(directory)
}

/// Returns two environments that differ in scikit-learn alone.
fn environments() -> Result<[PathBuf; 2], String> {
    let old = environment(OLD, &[])?;
    let others = told(Command::new(old.join("bin/python3")).args(["-m", "pip", "freeze"]))?;
    let others = others.lines().filter(|line| line.contains("==") && !line.starts_with("scikit-learn"));
    let new = environment(NEW, &others.map(str::to_owned).collect::<Vec<_>>())?;
    Ok([old, new])
}

const DEFINITION: &str = "\
steps:
  prepare: {run: python3 steps/prepare.py, outputs: [out/points.csv]}
  scale: {run: python3 steps/scale.py, outputs: [out/scaled.csv]}
  train: {run: python3 steps/train.py, outputs: [out/metrics.json]}
  report: {run: python3 steps/report.py, outputs: [out/report.txt]}
";

const SCRIPTS: [(&str, &str); 4] = [
    (
        "steps/prepare.py",
        "with open('out/points.csv', 'w') as out:\n    for n in range(40):\n        out.write(f'{n % 7},{n % 5},{int(n % 7 > 3)}\\n')\n",
    ),
    (
        "steps/scale.py",
        "import numpy\npoints = numpy.loadtxt('out/points.csv', delimiter=',')\n\
         numpy.savetxt('out/scaled.csv', points / points.max(axis=0), delimiter=',')\n",
    ),
    (
        "steps/train.py",
        "import json\nimport numpy\nfrom sklearn.tree import DecisionTreeClassifier\n\
         points = numpy.loadtxt('out/scaled.csv', delimiter=',')\n\
         model = DecisionTreeClassifier(random_state=0).fit(points[:, :2], points[:, 2])\n\
         json.dump({'accuracy': model.score(points[:, :2], points[:, 2])}, open('out/metrics.json', 'w'))\n",
    ),
    ("steps/report.py", "open('out/report.txt', 'w').write(open('out/metrics.json').read() + '\\n')\n"),
];

#[test]
fn another_scikit_learn_runs_the_step_that_loads_it_and_no_other() {
    let [old, new] = match environments() {
        Ok(environments) => environments,
        Err(why) => {
            eprintln!("NOT TESTED: a Python environment that is swapped: scikit-learn cannot be installed here: {why}");
            return;
        }
    };
    let project = Sandbox::with_pipeline(DEFINITION);
    for (path, text) in SCRIPTS {
        project.write(path, text);
    }
    project.write(".gitignore", "/out/\n");
    project.commit("all");
    let pv = |environment: &Path, arguments: &[&str]| {
        let path = format!("{}/bin:{}", environment.display(), std::env::var("PATH").unwrap());
        let mut command = project.pv_command(arguments);
        let output = command.env("PATH", path).env("VIRTUAL_ENV", environment).output().unwrap();
        assert!(output.status.success(), "{}", project.tell(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let run = |environment: &Path| -> Vec<(String, String)> {
        let run: Value = serde_json::from_str(&pv(environment, &["--json", "run"])).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        run["steps"].as_array().unwrap().iter().map(|step| (text(&step["step"]), text(&step["verdict"]))).collect()
    };
    let verdicts = |train: &str, others: &str| {
        [("prepare", others), ("scale", others), ("train", train), ("report", others)]
            .map(|(step, verdict)| (step.to_owned(), verdict.to_owned()))
    };
    assert_eq!(run(&old), verdicts("ran", "ran"));
    assert_eq!(run(&old), verdicts("reused", "reused"));
    let why: Value = serde_json::from_str(&pv(&new, &["--json", "why", "train"])).unwrap();
    assert_eq!(
        why["changes"],
        json!([{"kind": "package", "name": "scikit-learn", "old": OLD, "new": NEW}]),
        "the environments differ in nothing else that `train` loads"
    );
    let status = pv(&new, &["status"]);
    assert!(status.contains(&format!("`scikit-learn` {OLD} -> {NEW}, loaded by `train`")), "{status}");
    // What it writes is the same, so the step after it has nothing new to read.
    assert_eq!(run(&new), verdicts("ran", "reused"));
    assert_eq!(run(&old), verdicts("reused", "reused"), "both results are known now");
    assert_eq!(run(&new), verdicts("reused", "reused"));
}
