//! Steps in a Python environment that a lock asks for: real ones, made by pip and by uv of wheels that the tests make.
//!
//! No package index is asked, but for the swap of scikit-learn.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cloud::servers;
use crate::fault::needs;
use crate::plain::confined;
use crate::sandbox::Sandbox;

/// Writes a wheel of one module, and prints the SHA-256 of it: name, version, text of the module, directory.
const WHEEL: &str = r"
import base64, hashlib, sys, zipfile
name, version, text, directory = sys.argv[1:]
info = f'{name}-{version}.dist-info'
files = {
    f'{name}.py': text,
    f'{info}/METADATA': f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n',
    f'{info}/WHEEL': 'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
    f'{info}/entry_points.txt': f'[console_scripts]\n{name}-tool = {name}:main\n',
}
digest = lambda text: base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip('=')
record = ''.join(f'{path},sha256={digest(text)},{len(text)}\n' for path, text in files.items())
files[f'{info}/RECORD'] = record + f'{info}/RECORD,,\n'
path = f'{directory}/{name}-{version}-py3-none-any.whl'
with zipfile.ZipFile(path, 'w') as wheel:
    for entry, text in files.items():
        wheel.writestr(zipfile.ZipInfo(entry, (2020, 1, 1, 0, 0, 0)), text)
print(hashlib.sha256(open(path, 'rb').read()).hexdigest())
";

/// Says what a module is, and where it is looked for.
const SCRIPT: &str = "import sys, NAME\nopen(sys.argv[1], 'w').write(f'{NAME.value} {sys.prefix}\\n')\n";

/// Returns the search path of the tests without the directories that have one of these programs.
fn path_without(programs: &[&str]) -> String {
    let path = std::env::var_os("PATH").unwrap();
    let directories = std::env::split_paths(&path)
        .filter(|directory| !programs.iter().any(|program| directory.join(program).exists()));
    std::env::join_paths(directories).unwrap().into_string().unwrap()
}

/// Returns the version of the Python that is there: `3.11`.
fn version() -> String {
    let say = "import sys; print('%d.%d' % sys.version_info[:2])";
    let output = Command::new("python3").args(["-c", say]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A project whose steps run in a Python environment, and wheels for it.
pub(crate) struct Bench {
    pub(crate) project: Sandbox,
    pub(crate) wheels: PathBuf,
    path: String,
}

impl Bench {
    /// Returns a project with these steps, and no lock yet. There is no uv.
    pub(crate) fn new(steps: &str) -> Self {
        let environment = format!("{{python: {{version: \"{}\", lock: requirements.lock}}}}", version());
        let project = Sandbox::with_pipeline(&format!("environment: {environment}\nsteps:\n{steps}"));
        for name in ["foo", "bar", "baz"] {
            project.write(&format!("{name}.step.py"), SCRIPT.replace("NAME", name));
        }
        project.write(".gitignore", "/out\n");
        let wheels = project.beside("wheels");
        std::fs::create_dir(&wheels).unwrap();
        Self { project, wheels, path: path_without(&["uv"]) }
    }

    /// Makes a wheel of a module with this value, and returns the line of a lock that asks for it.
    pub(crate) fn wheel(&self, name: &str, version: &str, value: &str) -> String {
        let text = format!("value = {value:?}\n\n\ndef main():\n    import sys\n    print(value, sys.prefix)\n");
        let output =
            Command::new("python3").args(["-c", WHEEL, name, version, &text]).arg(&self.wheels).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let digest = String::from_utf8(output.stdout).unwrap();
        let digests = self.wheels.with_file_name("digests");
        std::fs::create_dir_all(&digests).unwrap();
        std::fs::write(digests.join(format!("{name}-{version}-py3-none-any.whl")), digest.trim()).unwrap();
        format!("{name}=={version} --hash=sha256:{}\n", digest.trim())
    }

    /// Writes the lock with these lines, and commits it.
    pub(crate) fn lock(&self, lines: &[&str]) {
        self.lock_as_it_is(&format!("--no-index\n--find-links {}\n{}", self.wheels.display(), lines.concat()));
    }

    fn lock_as_it_is(&self, text: &str) {
        self.project.write("requirements.lock", text);
        self.project.commit("lock");
    }

    /// Returns the search path that `pv` is given.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn pv(&self, arguments: &[&str]) -> Command {
        let mut command = self.project.pv_command(arguments);
        command.env("PATH", &self.path);
        command
    }

    /// Runs `pv`, which must end so, and returns what it printed.
    pub(crate) fn told(&self, arguments: &[&str], code: i32) -> String {
        let output = self.pv(arguments).output().unwrap();
        let told = self.project.tell(&output);
        assert_eq!(output.status.code(), Some(code), "pv {arguments:?}: {told}");
        told
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let output = self.pv(&[&["--json"], arguments].concat()).output().unwrap();
        assert!(output.status.success(), "pv {arguments:?}: {}", self.project.tell(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Runs the pipeline and returns its steps with their verdicts: `a ran, b reused`.
    pub(crate) fn run(&self) -> String {
        verdicts(&self.json(&["run"]))
    }

    /// Returns where environments lie.
    pub(crate) fn environments(&self) -> PathBuf {
        self.project.path(".git/pv/environments/python")
    }

    /// Returns the environments that are whole.
    pub(crate) fn made(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.environments()).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.join("complete").is_file()).collect()
    }
}

fn verdicts(run: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let steps = run["steps"].as_array().unwrap().iter();
    steps.map(|step| format!("{} {}", text(&step["step"]), text(&step["verdict"]))).collect::<Vec<_>>().join(", ")
}

const STEPS: &str = "  \
  foo: {run: python foo.step.py out/foo, outputs: [out/foo]}
  bar: {run: [python3, bar.step.py, out/bar], outputs: [out/bar]}
  baz: {run: baz-tool > out/baz, outputs: [out/baz]}
  plain: {run: echo plain > out/plain, outputs: [out/plain]}
";

#[test]
fn another_lock_runs_just_the_steps_that_loaded_what_is_another_in_it() {
    let bench = Bench::new(STEPS);
    let [foo, bar, baz] = ["foo", "bar", "baz"].map(|name| bench.wheel(name, "1.0", "one"));
    let unused = bench.wheel("unused", "1.0", "one");
    bench.lock(&[&foo, &bar, &baz, &unused]);
    let told = bench.told(&["run"], 0);
    let making = format!("Python {}: pip makes the environment of `requirements.lock`, once", version());
    assert!(told.contains(&making) && !told.contains("Successfully installed"), "{told}");
    assert!(bench.project.read("out/foo").starts_with("one "), "{}", bench.project.read("out/foo"));
    assert_eq!(bench.project.git(&["status", "--porcelain"]), "", "nothing of it is in the project");
    assert_eq!(bench.run(), "foo reused, bar reused, baz reused, plain reused");
    let site = format!("1/lib/python{}/site-packages", version());
    let names: Vec<String> = std::fs::read_dir(bench.made()[0].join(site))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".dist-info"))
        .collect();
    assert_eq!(names.len(), 4, "only what the lock asks for: {names:?}");
    let first = bench.project.git(&["rev-parse", "HEAD"]);

    let (foo, unused) = (bench.wheel("foo", "2.0", "two"), bench.wheel("unused", "2.0", "two"));
    // The same value: what loads it runs, and writes the same.
    let bar = bench.wheel("bar", "2.0", "one");
    bench.lock(&[&foo, &bar, &baz, &unused]);
    let second = bench.project.git(&["rev-parse", "HEAD"]);
    assert_eq!(bench.run(), "foo ran, bar ran, baz reused, plain reused");
    assert!(bench.project.read("out/foo").starts_with("two "));
    assert_eq!(bench.made().len(), 2);

    let diff = bench.json(&["env", "diff", &first, &second]);
    let package =
        |name: &str, loaded_by: &[&str]| json!({"name": name, "old": "1.0", "new": "2.0", "loaded_by": loaded_by});
    assert_eq!(
        diff,
        json!({
            "packages": [package("foo", &["foo"]), package("bar", &["bar"]), package("unused", &[])],
            "libraries": [],
            "facts": [],
        }),
        "first what may explain the output that differs"
    );
    let told = bench.told(&["diff", &first, &second], 0);
    assert!(told.contains("  package foo  1.0 -> 2.0  (loaded by foo, whose output differs)\n"), "{told}");
    assert!(told.contains("  package bar  1.0 -> 2.0  (loaded by bar)\n"), "{told}");
    let told = bench.told(&["env", "diff", &first, &second], 0);
    assert!(told.contains("  unused  1.0 -> 2.0  (loaded by no step)\n"), "{told}");

    // A replay gets the environment of the snapshot that it replays, not that of the working tree.
    let replay = bench.json(&["run", &first]);
    assert_eq!(replay["verdict"], "reproduced", "{replay}");
    bench.project.git(&["checkout", "--quiet", &first]);
    assert_eq!(bench.run(), "foo reused, bar reused, baz reused, plain reused");
}

#[test]
fn what_a_run_will_do_is_told_from_the_lock_before_its_environment_is_made() {
    let bench = Bench::new(
        "  foo: {run: python foo.step.py out/foo, outputs: [out/foo], inputs: []}\n  \
         bar: {run: [python3, bar.step.py, out/bar], outputs: [out/bar], inputs: []}\n  \
         baz: {run: baz-tool > out/baz, outputs: [out/baz], inputs: []}\n  \
         plain: {run: echo plain > out/plain, outputs: [out/plain], inputs: []}\n",
    );
    let [foo, bar, baz] = ["foo", "bar", "baz"].map(|name| bench.wheel(name, "1.0", "one"));
    bench.lock(&[&foo, &bar, &baz]);
    bench.run();
    let next = bench.wheel("foo", "2.0", "two");
    bench.lock(&[&next, &bar, &baz]);
    let status = |bench: &Bench| {
        let steps = bench.json(&["status"])["steps"].clone();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let line = |step: &Value| format!("{} {}", text(&step["step"]), text(&step["verdict"]));
        steps.as_array().unwrap().iter().map(line).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(status(&bench), "foo stale, bar current, baz current, plain current");
    let told = bench.told(&["status"], 0);
    assert!(told.contains("  foo    stale      `foo` 1.0 -> 2.0, loaded by `foo`\n"), "{told}");
    let note = "note: the Python environment of `requirements.lock` is not made here yet: this is told from the lock";
    assert!(told.contains(note), "{told}");
    let why = bench.json(&["why", "foo"]);
    assert_eq!(why["changes"], json!([{"kind": "package", "name": "foo", "old": "1.0", "new": "2.0"}]));
    assert_eq!(bench.json(&["why", "bar"])["verdict"], "reuse");
    let told = bench.told(&["run", "--dry-run"], 0);
    assert!(told.contains("run    foo ") && told.contains("reuse  bar ") && told.contains("reuse  baz "), "{told}");
    assert_eq!(bench.run(), "foo ran, bar reused, baz reused, plain reused", "as it was told");

    let forget = || std::fs::remove_dir_all(bench.environments()).unwrap();
    forget();
    assert_eq!(status(&bench), "foo current, bar current, baz current, plain current");
    bench.lock(&[&foo, &bar, &baz]);
    assert_eq!(status(&bench), "foo current, bar current, baz current, plain current", "an older result is known");
    bench.lock(&[&next, &baz]);
    let told = bench.told(&["status"], 0);
    assert!(told.contains("  bar    stale      `bar` 1.0 -> (none), loaded by `bar`\n"), "{told}");
    bench.lock(&[&next, &bar, &baz]);
    let definition = bench.project.read(".pipeline/pipeline.yaml");
    bench.project.write(".pipeline/pipeline.yaml", definition.replace(&version(), "3.99"));
    let told = bench.told(&["status"], 0);
    assert!(told.contains(&format!("  foo    stale      program `python{}` is gone", version())), "{told}");
    assert!(told.contains("  plain  current "), "{told}");
}

#[test]
fn a_distribution_with_other_files_in_the_same_version_is_another() {
    let bench = Bench::new("  foo: {run: python foo.step.py out/foo, outputs: [out/foo]}\n");
    bench.lock(&[&bench.wheel("foo", "1.0", "one")]);
    bench.run();
    let first = bench.project.git(&["rev-parse", "HEAD"]);
    bench.lock(&[&bench.wheel("foo", "1.0", "another")]);
    let run = bench.json(&["run"]);
    assert_eq!(verdicts(&run), "foo ran");
    assert_eq!(run["steps"][0]["reason"], "`foo` has other files in the same version, loaded by `foo`");
    let diff = bench.json(&["env", "diff", &first, "HEAD"]);
    let side = |side: &str| diff["packages"][0][side].as_str().unwrap().to_owned();
    assert!(side("old").starts_with("1.0 build ") && side("old") != side("new"), "{diff}");
}

#[test]
fn a_step_may_have_another_environment_than_the_pipeline() {
    let bench = Bench::new("");
    let steps = "  foo: {run: python foo.step.py out/foo, outputs: [out/foo]}\n  \
                 own: {run: python foo.step.py out/own, outputs: [out/own], environment: OWN}\n  \
                 host: {run: 'python3 -c \"import foo\" || echo none > out/host', outputs: [out/host], environment: host}\n";
    let definition = bench.project.read(".pipeline/pipeline.yaml");
    let own = format!("{{python: {{version: \"{}\", lock: own/other.lock}}}}", version());
    bench.project.write(".pipeline/pipeline.yaml", definition + &steps.replace("OWN", &own));
    let [one, two] = [("1.0", "one"), ("2.0", "two")].map(|(version, value)| bench.wheel("foo", version, value));
    bench.project.write("own/other.lock", format!("--no-index\n--find-links {}\n{two}", bench.wheels.display()));
    bench.lock(&[&one]);
    assert_eq!(bench.run(), "foo ran, own ran, host ran");
    let said = |name: &str| bench.project.read(name).split(' ').next().unwrap().trim().to_owned();
    assert_eq!([said("out/foo"), said("out/own"), said("out/host")], ["one", "two", "none"]);
    assert_eq!(bench.run(), "foo reused, own reused, host reused");
}

#[test]
fn an_isolated_step_finds_its_environment_always_at_one_place() {
    let bench = Bench::new(STEPS);
    bench.lock(&["foo", "bar", "baz"].map(|name| bench.wheel(name, "1.0", "one")).each_ref().map(String::as_str));
    bench.run();
    let record = bench.json(&["show", bench.json(&["run"])["run"].as_str().unwrap()]);
    if record["steps"][0]["isolated"] != true {
        eprintln!("NOT TESTED: the one place of a Python environment: steps are not isolated here");
        assert!(std::env::var_os("CI").is_none(), "CI can isolate");
        return;
    }
    assert_eq!(bench.project.read("out/foo"), "one /pv/venv\n");
    assert_eq!(bench.project.read("out/bar"), "one /pv/venv\n");
}

#[test]
fn results_hold_whether_steps_are_isolated_or_find_the_environment_where_it_lies() {
    let bench = Bench::new(STEPS);
    bench.lock(&["foo", "bar", "baz"].map(|name| bench.wheel(name, "1.0", "one")).each_ref().map(String::as_str));
    let test = "results_hold_whether_steps_are_isolated_or_find_the_environment_where_it_lies";
    let Some(mut run) = confined(test, &bench.project, &["--json", "run"]) else { return };
    let output = run.env("PATH", &bench.path).output().unwrap();
    assert!(output.status.success(), "{}", bench.project.tell(&output));
    assert_eq!(verdicts(&serde_json::from_slice(&output.stdout).unwrap()), "foo ran, bar ran, baz ran, plain ran");
    let place = bench.made()[0].join("1").canonicalize().unwrap();
    assert_eq!(bench.project.read("out/foo"), format!("one {}\n", place.display()));
    assert_eq!(bench.run(), "foo reused, bar reused, baz reused, plain reused");
    // What they loaded of it counts as well.
    let [bar, baz] = ["bar", "baz"].map(|name| bench.wheel(name, "1.0", "one"));
    bench.lock(&[&bench.wheel("foo", "2.0", "two"), &bar, &baz]);
    assert_eq!(bench.run(), "foo ran, bar reused, baz reused, plain reused");
}

#[test]
fn a_shell_in_a_failed_step_has_its_environment() {
    let bench = Bench::new("  foo: {run: python foo.step.py /nowhere/foo, outputs: [out/foo]}\n");
    bench.lock(&[&bench.wheel("foo", "1.0", "one")]);
    bench.told(&["run"], 3);
    let told = bench.told(&["shell", "foo", "--", "python", "-c", "import foo; print(foo.value)"], 0);
    assert!(told.starts_with("one\n"), "{told}");
}

#[test]
fn two_runs_at_once_make_an_environment_once() {
    let bench = Bench::new("  foo: {run: python foo.step.py out/foo, outputs: [out/foo]}\n");
    bench.lock(&[&bench.wheel("foo", "1.0", "one")]);
    let runs: Vec<_> =
        (0..2).map(|_| bench.pv(&["run"]).stderr(std::process::Stdio::piped()).spawn().unwrap()).collect();
    let told: Vec<String> = runs
        .into_iter()
        .map(|run| {
            let output = run.wait_with_output().unwrap();
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{told}");
            told
        })
        .collect();
    assert_eq!(told.iter().filter(|told| told.contains(": pip makes the environment")).count(), 1, "{told:?}");
    assert_eq!(bench.made().len(), 1);
    assert!(bench.made()[0].join("1/bin/python").exists() && !bench.made()[0].join("2").exists());
}

/// A package index on loopback that answers nothing until it is let.
struct Index {
    address: String,
    asked: Arc<AtomicUsize>,
    answers: Arc<AtomicUsize>,
}

impl Index {
    fn of(wheels: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        let (asked, answers) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let index = Self { address, asked: Arc::clone(&asked), answers: Arc::clone(&answers) };
        let wheels = wheels.to_owned();
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                asked.fetch_add(1, Ordering::SeqCst);
                if answers.load(Ordering::SeqCst) == 0 {
                    // Who asks waits for as long as this test goes on.
                    held.push(stream);
                    continue;
                }
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let first = lines.next().unwrap().unwrap();
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                let name = first.split(' ').nth(1).unwrap().trim_start_matches('/').to_owned();
                let (kind, body) = match std::fs::read(wheels.join(&name)) {
                    Ok(bytes) if !name.is_empty() => ("application/octet-stream", bytes),
                    _ => {
                        let link = |entry: std::fs::DirEntry| {
                            let name = entry.file_name().into_string().unwrap();
                            let digest = std::fs::read_to_string(wheels.with_file_name("digests").join(&name)).unwrap();
                            format!("<a href=\"{name}#sha256={digest}\">{name}</a>")
                        };
                        let links = std::fs::read_dir(&wheels).unwrap().map(|entry| link(entry.unwrap()));
                        ("text/html", links.collect::<Vec<_>>().join("\n").into())
                    }
                };
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                );
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
            }
        });
        index
    }
}

pub(crate) fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_step_is_verified_in_the_environment_of_its_lock() {
    let code = "import foo, os; open('out/x', 'w').write(foo.value + os.urandom(2).hex())";
    let bench = Bench::new(&format!("  x: {{run: [python, -c, \"{code}\"], inputs: [], outputs: [out/x]}}\n"));
    bench.lock(&[&bench.wheel("foo", "1.0", "one")]);
    bench.told(&["run"], 0);
    let output = bench.pv(&["--json", "verify"]).output().unwrap();
    let told = bench.project.tell(&output);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{told}"));
    assert_eq!((output.status.code(), &answer["level"]), (Some(1), &json!("different")), "{told}");
    let found = &answer["steps"][0]["outputs"][0]["detail"]["findings"][0];
    assert!(["old", "new"].iter().all(|side| found[side].as_str().unwrap().starts_with("one")), "{told}");
    assert_eq!(bench.made().len(), 1);
}

#[test]
fn an_environment_whose_making_was_killed_is_not_used_and_made_anew() {
    let bench = Bench::new("  foo: {run: python foo.step.py out/foo, outputs: [out/foo]}\n");
    let line = bench.wheel("foo", "1.0", "one");
    let index = Index::of(&bench.wheels);
    bench.lock_as_it_is(&format!("--no-index\n--find-links {}\n{line}", index.address));
    let mut killed = bench.pv(&["run"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    wait_for("pip asks the index", || index.asked.load(Ordering::SeqCst) > 0);
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(bench.made(), Vec::<PathBuf>::new());
    index.answers.store(1, Ordering::SeqCst);
    assert_eq!(bench.run(), "foo ran");
    let made = bench.made();
    // What the killed one had begun is not what is used: a child of it may still write there.
    assert!(made[0].join("2/bin/python").exists(), "{made:?}");
    let noted: Value = serde_json::from_slice(&std::fs::read(made[0].join("complete")).unwrap()).unwrap();
    assert_eq!((noted["directory"].as_str(), noted["made_by"].as_str()), (Some("2"), Some("pip")));
}

#[test]
fn a_lock_without_hashes_is_refused_with_the_command_that_makes_one() {
    let bench = Bench::new("  foo: {run: python foo.step.py out/foo, outputs: [out/foo]}\n");
    bench.lock_as_it_is("# by hand\nfoo==1.0\n");
    insta::assert_snapshot!(bench.told(&["run"], 5), @"
--- stderr
error: the lock `requirements.lock` cannot be used
  because: line 2: `foo==1.0` has no hash
hint: `pv env lock` makes a lock with hashes, and so does `uv pip compile --generate-hashes requirements.txt -o requirements.lock`
--- exit 5
");
    assert!(!bench.environments().exists(), "nothing was begun");
}

#[test]
fn a_package_that_is_not_what_the_lock_says_fails_with_what_the_tool_says_of_it() {
    let bench = Bench::new("  foo: {run: python foo.step.py out/foo, outputs: [out/foo]}\n");
    let line = bench.wheel("foo", "1.0", "one");
    bench.wheel("foo", "1.0", "tampered with");
    bench.lock(&[&line]);
    let told = bench.told(&["run"], 5);
    assert!(told.contains("error: `pip install` exited with code 1\n"), "{told}");
    assert!(told.contains("the last lines of `pip install`:\n") && told.contains("Expected sha256"), "{told}");
    assert_eq!(bench.made(), Vec::<PathBuf>::new());
    bench.lock(&[&bench.wheel("foo", "1.0", "right again")]);
    assert_eq!(bench.run(), "foo ran");
}

#[test]
fn what_cannot_be_had_is_told_with_exit_code_5() {
    let bench = Bench::new("  foo: {run: python foo.step.py out/foo, outputs: [out/foo]}\n");
    bench.project.commit("no lock");
    let told = bench.told(&["run"], 5);
    assert!(told.contains("error: the lock `requirements.lock` is not in the snapshot\n"), "{told}");
    bench.lock(&[&bench.wheel("foo", "1.0", "one")]);
    let told = bench.told(&["run", "--offline"], 5);
    assert!(told.contains("error: the Python environment of `requirements.lock` is not on this machine\n"), "{told}");
    let definition = bench.project.read(".pipeline/pipeline.yaml");
    bench.project.write(".pipeline/pipeline.yaml", definition.replace(&version(), "3.99"));
    let told = bench.told(&["run"], 5);
    assert!(
        told.contains("error: Python 3.99 is not found\n") && told.contains("hint: put it on the `PATH`"),
        "{told}"
    );
    bench.project.write(".pipeline/pipeline.yaml", definition);
    bench.run();
    bench.told(&["run", "--offline", "--again"], 0);
}

/// Returns a directory with `uv` alone in it.
fn uv(bench: &Bench) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap();
    let found = std::env::split_paths(&path).map(|directory| directory.join("uv-of-tests")).find(|path| path.exists());
    let bin = bench.project.beside("bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::os::unix::fs::symlink(found.ok_or("there is none")?, bin.join("uv")).map_err(|error| error.to_string())?;
    Ok(bin)
}

#[test]
fn uv_makes_the_environment_where_it_is_there_and_the_results_of_pip_hold_in_it() {
    let test = "uv_makes_the_environment_where_it_is_there_and_the_results_of_pip_hold_in_it";
    let mut bench = Bench::new(STEPS);
    let Some(bin) = needs(test, "uv", uv(&bench)) else { return };
    bench.lock(&["foo", "bar", "baz"].map(|name| bench.wheel(name, "1.0", "one")).each_ref().map(String::as_str));
    assert_eq!(bench.run(), "foo ran, bar ran, baz ran, plain ran");
    std::fs::remove_dir_all(bench.environments()).unwrap();
    bench.path = format!("{}:{}", bin.display(), bench.path);
    let told = bench.told(&["run"], 0);
    assert!(told.contains(": uv makes the environment of `requirements.lock`, once"), "{told}");
    // The two write scripts differently, and a script is known by its text.
    let reason = "baz: runs, program `baz-tool` changed\n";
    assert!(told.contains("foo: reused") && told.contains("bar: reused") && told.contains(reason), "{told}");
    assert_eq!(verdicts(&bench.json(&["run", "--again"])), "foo ran, bar ran, baz ran, plain ran");
}

#[test]
fn a_lock_of_uv_is_one_with_the_project_beside_it() {
    let test = "a_lock_of_uv_is_one_with_the_project_beside_it";
    let mut bench = Bench::new("  foo: {run: python foo.step.py out/foo, outputs: [out/foo]}\n");
    let Some(bin) = needs(test, "uv", uv(&bench)) else { return };
    bench.wheel("foo", "1.0", "one");
    let about = "[project]\nname = \"own\"\nversion = \"1\"\nrequires-python = \">=3.10\"\ndependencies = [\"foo\"]\n";
    let index = Index::of(&bench.wheels);
    index.answers.store(1, Ordering::SeqCst);
    let from = format!("[tool.uv]\nno-index = true\nfind-links = [{:?}]\n", index.address);
    bench.project.write("pyproject.toml", format!("{about}{from}"));
    let mut lock = bench.project.command_in(&bench.project.path(""), bin.join("uv").to_str().unwrap());
    let output = lock.args(["lock", "--python", &version()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let definition = bench.project.read(".pipeline/pipeline.yaml").replace("requirements.lock", "uv.lock");
    bench.project.write(".pipeline/pipeline.yaml", definition);
    bench.project.commit("all");
    let told = bench.told(&["run"], 5);
    assert!(told.contains("error: the lock `uv.lock` is one of uv, which is not found\n"), "{told}");
    bench.path = format!("{}:{}", bin.display(), bench.path);
    assert_eq!(bench.run(), "foo ran");
    assert!(bench.project.read("out/foo").starts_with("one "));
    let told = bench.told(&["env", "lock"], 2);
    assert!(told.contains("error: `uv.lock` is the lock of uv itself\nhint: `uv lock` makes it\n"), "{told}");
}

#[test]
fn a_lock_is_made_with_hashes_and_written_whole_or_not_at_all() {
    let test = "a_lock_is_made_with_hashes_and_written_whole_or_not_at_all";
    let mut bench = Bench::new("  foo: {run: python foo.step.py out/foo, outputs: [out/foo]}\n");
    let Some(bin) = needs(test, "uv", uv(&bench)) else { return };
    bench.wheel("foo", "1.0", "one");
    let from = format!("--no-index\n--find-links {}\n", bench.wheels.display());
    bench.project.write("requirements.in", format!("{from}foo\n"));
    let lock = |bench: &Bench, arguments: &[&str]| bench.pv(&[&["env", "lock"], arguments].concat()).output().unwrap();
    let output = lock(&bench, &[]);
    let told = bench.project.tell(&output);
    assert_eq!(output.status.code(), Some(5), "{told}");
    assert!(told.contains("neither uv nor pip-tools") && told.contains("pip install uv"), "{told}");
    assert!(!bench.project.exists("requirements.lock"));
    bench.path = format!("{}:{}", bin.display(), bench.path);
    let output = lock(&bench, &["--json"]);
    assert!(output.status.success(), "{}", bench.project.tell(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let python = version();
    assert_eq!(
        answer,
        json!({"lock": "requirements.lock", "source": "requirements.in", "python": python, "packages": 1, "changed": true, "by": "uv"})
    );
    let made = bench.project.read("requirements.lock");
    assert!(made.contains("foo==1.0") && made.contains("--hash=sha256:") && made.contains("pv env lock"), "{made}");
    // It holds what it pins until it is told otherwise.
    bench.wheel("foo", "2.0", "two");
    assert!(lock(&bench, &[]).status.success());
    assert_eq!(bench.project.read("requirements.lock"), made);
    assert!(lock(&bench, &["--upgrade"]).status.success());
    let upgraded = bench.project.read("requirements.lock");
    assert!(upgraded.contains("foo==2.0"), "{upgraded}");
    bench.project.write("requirements.in", format!("{from}no-such-thing\n"));
    let output = lock(&bench, &[]);
    assert_eq!(output.status.code(), Some(5), "{}", bench.project.tell(&output));
    assert_eq!(bench.project.read("requirements.lock"), upgraded);
}

#[test]
fn a_lock_is_made_by_pip_tools_where_there_is_no_uv() {
    let test = "a_lock_is_made_by_pip_tools_where_there_is_no_uv";
    let mut bench = Bench::new("  foo: {run: python foo.step.py out/foo, outputs: [out/foo]}\n");
    let Some(python) = needs(test, "pip-tools", servers::program("python-of-pip-tools")) else { return };
    let bin = bench.project.beside("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(python, bin.join(format!("python{}", version()))).unwrap();
    bench.path = format!("{}:{}", bin.display(), bench.path);
    let one = bench.wheel("foo", "1.0", "one");
    let from = format!("--no-index\n--find-links {}\n", bench.wheels.display());
    bench.project.write("requirements.in", format!("{from}foo\n"));
    let answer = bench.json(&["env", "lock"]);
    assert_eq!(
        (&answer["by"], &answer["packages"], &answer["changed"]),
        (&json!("pip-tools"), &json!(1), &json!(true))
    );
    let made = bench.project.read("requirements.lock");
    let digest = one.rsplit(':').next().unwrap().trim();
    assert!(made.contains("foo==1.0") && made.contains(digest) && made.contains("pv env lock"), "{made}");
    assert!(!made.contains("requirements.txt"), "nothing of how it was made is in it: {made}");
    // It is one that an environment is made of.
    bench.project.commit("lock");
    assert_eq!(bench.run(), "foo ran");
    // It holds what it pins until it is told otherwise.
    bench.wheel("foo", "2.0", "two");
    assert_eq!(bench.json(&["env", "lock"])["changed"], false);
    assert_eq!(bench.json(&["env", "lock", "--upgrade"])["changed"], true);
    let upgraded = bench.project.read("requirements.lock");
    assert!(upgraded.contains("foo==2.0"), "{upgraded}");
    bench.project.write("requirements.in", format!("{from}no-such-thing\n"));
    let told = bench.told(&["env", "lock"], 5);
    assert!(told.contains("error: `pip-compile` exited with code "), "{told}");
    assert_eq!(bench.project.read("requirements.lock"), upgraded);
}

#[test]
fn another_scikit_learn_in_the_lock_is_named_with_the_step_that_loads_it() {
    let test = "another_scikit_learn_in_the_lock_is_named_with_the_step_that_loads_it";
    let mut bench = Bench::new(
        "  plain: {run: echo plain > out/plain, outputs: [out/plain]}\n  \
         points: {run: python points.py, outputs: [out/points]}\n  \
         train: {run: python train.py, outputs: [out/model]}\n",
    );
    let Some(bin) = needs(test, "uv", uv(&bench)) else { return };
    bench.path = format!("{}:{}", bin.display(), bench.path);
    bench.project.write("points.py", "import numpy\nnumpy.savetxt('out/points', numpy.arange(40.0) % 7)\n");
    bench.project.write(
        "train.py",
        "import numpy, sklearn\nfrom sklearn.tree import DecisionTreeClassifier\n\
         points = numpy.arange(40.0).reshape(-1, 1)\nmodel = DecisionTreeClassifier(random_state=0).fit(points, points[:, 0] % 3)\n\
         open('out/model', 'w').write(f'{sklearn.__version__} {model.get_depth()}\\n')\n",
    );
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("uv-cache");
    let with_cache = |mut command: Command| {
        // As a user has it who has to have certificates of his own.
        let certificates = std::env::var_os("SSL_CERT_FILE").map(|file| ("SSL_CERT_FILE", file));
        command.env("UV_CACHE_DIR", &cache).env("UV_SYSTEM_CERTS", "1").envs(certificates).output().unwrap()
    };
    let lock = |version: &str| -> Result<String, String> {
        bench.project.write("requirements.in", format!("scikit-learn=={version}\nnumpy<2\n"));
        let output = with_cache(bench.pv(&["env", "lock"]));
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        bench.project.commit(version);
        Ok(bench.project.git(&["rev-parse", "HEAD"]))
    };
    let run = || {
        let output = with_cache(bench.pv(&["--json", "run"]));
        assert!(output.status.success(), "{}", bench.project.tell(&output));
        verdicts(&serde_json::from_slice(&output.stdout).unwrap())
    };
    let first = match lock("1.3.2") {
        Ok(first) => first,
        Err(why) => {
            // The same is tested with packages that the tests make themselves.
            eprintln!("NOT TESTED: {test} needs a package index: {why}");
            return;
        }
    };
    assert_eq!(run(), "plain ran, points ran, train ran");
    let second = lock("1.5.2").unwrap();
    assert_eq!(run(), "plain reused, points reused, train ran");
    let diff = bench.json(&["env", "diff", &first, &second]);
    assert_eq!(
        diff["packages"],
        json!([{"name": "scikit-learn", "old": "1.3.2", "new": "1.5.2", "loaded_by": ["train"]}])
    );
    let shown = bench.told(&["show", bench.json(&["run"])["run"].as_str().unwrap()], 0);
    assert!(shown.contains("linear algebra by lib") && shown.contains("openblas"), "{shown}");
}
