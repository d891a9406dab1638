//! What nobody declared: changed one at a time, it runs exactly the steps that read it, and is named.
//!
//! One pipeline in which each step reads something else without saying so: a file, a listing, a file that is not
//! there, something outside of the project, a variable, a program, an interpreter, a library, a module.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use serde_json::Value;

use crate::sandbox::Sandbox;

/// A project, and the variables that `pv` is started with.
struct Machine {
    project: Sandbox,
    variables: BTreeMap<&'static str, String>,
}

/// A step, what of it is changed, and what `pv why` has to name.
struct Case {
    step: &'static str,
    kind: &'static str,
    name: String,
    change: fn(&mut Machine),
}

impl Machine {
    fn new(definition: &str) -> Self {
        let project = Sandbox::with_pipeline(definition);
        std::fs::create_dir_all(project.beside("bin")).unwrap();
        let path = format!("{}:{}", project.beside("bin").display(), std::env::var("PATH").unwrap());
        Self { project, variables: BTreeMap::from([("PATH", path)]) }
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let arguments = [&["--json"], arguments].concat();
        let output = self.project.pv_command(&arguments).envs(&self.variables).output().unwrap();
        assert!(output.status.success(), "pv {arguments:?}: {}", self.project.tell(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Runs the pipeline and returns the steps that were executed.
    fn ran(&self) -> Vec<String> {
        let run = self.json(&["run"]);
        let ran = run["steps"].as_array().unwrap().iter().filter(|step| step["verdict"] == "ran");
        ran.map(|step| step["step"].as_str().unwrap().to_owned()).collect()
    }

    /// Returns what made the key of a step differ, as `kind name`.
    fn why(&self, step: &str) -> Vec<String> {
        let why = self.json(&["why", step]);
        let changes = why["changes"].as_array().unwrap().iter();
        changes.map(|one| format!("{} {}", one["kind"].as_str().unwrap(), one["name"].as_str().unwrap())).collect()
    }

    /// Applies each change in turn: it runs its step again and no other, and is named.
    fn prove(mut self, cases: &[Case], unrelated: fn(&mut Self)) {
        assert_eq!(self.ran().len(), self.json(&["status"])["steps"].as_array().unwrap().len());
        assert_eq!(self.ran(), Vec::<String>::new(), "nothing has changed");
        for Case { step, kind, name, change } in cases {
            change(&mut self);
            let why = self.why(step);
            assert_eq!(why, [format!("{kind} {name}")], "step {step}");
            assert_eq!(self.ran(), [*step], "after {why:?}");
            assert_eq!(self.ran(), Vec::<String>::new(), "after {step} ran again");
        }
        unrelated(&mut self);
        assert_eq!(self.ran(), Vec::<String>::new(), "what changed has nothing to do with any step");
    }

    /// Writes a file beside the project; one that begins like a script is one.
    fn outside(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.project.beside(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &content).unwrap();
        if content.as_ref().starts_with(b"#!") || content.as_ref().starts_with(b"\x7fELF") {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
    }
}

/// Returns a definition of steps that declare nothing but an output each, where `[TOP]` is the directory `top`.
fn definition(top: &Path, steps: &[(&str, &str, &str)]) -> String {
    let mut text = "steps:\n".to_owned();
    for (name, more, run) in steps {
        let run = serde_json::to_string(&format!("{{ {run}; }} > {name}.txt 2> /dev/null || true")).unwrap();
        text += &format!("  {name}:\n    run: {run}\n    inputs: []\n    outputs: [{name}.txt]\n{more}");
    }
    text.replace("[TOP]", &top.display().to_string())
}

fn sandbox_of(steps: &[(&str, &str, &str)]) -> Machine {
    let machine = Machine::new("steps: {none: {run: 'true'}}\n");
    let top = machine.project.beside("").canonicalize().unwrap();
    let top = Path::new(top.to_str().unwrap().trim_end_matches('/')).to_owned();
    machine.project.write(".pipeline/pipeline.yaml", definition(&top, steps));
    machine.project.write(".gitignore", "*.txt\n");
    machine
}

fn case(step: &'static str, kind: &'static str, name: impl Into<String>, change: fn(&mut Machine)) -> Case {
    Case { step, kind, name: name.into(), change }
}

#[test]
fn files_of_the_project_that_nobody_declared_run_exactly_who_read_them() {
    let machine = sandbox_of(&[
        ("config", "", "k=$(cat settings.ini || echo 1); echo $k"),
        ("absent", "", "if test -e more/flags.ini; then cat more/flags.ini; fi"),
        ("list", "", "ls parts"),
        ("size", "", "test -s notes.md && echo something"),
        ("link", "", "cat current"),
        ("rights", "", "test -x tool.sh && echo may"),
        ("each", "", "for part in pieces/*; do wc -l < $part; done"),
        ("chosen", "", "cat models/$(cat choice)"),
        ("source", "", ". ./functions.sh; hello"),
    ]);
    let project = &machine.project;
    for path in ["settings.ini", "parts/a", "notes.md", "v1", "v2", "tool.sh", "pieces/a", "models/a", "models/b"] {
        project.write(path, "2\n");
    }
    project.write("more/usual.ini", "on\n");
    project.write("choice", "a\n");
    project.write("functions.sh", "hello() { echo hello; }\n");
    symlink("v1", project.path("current")).unwrap();
    project.commit("all");
    let cases = [
        case("config", "file", "settings.ini", |machine| machine.project.write("settings.ini", "3\n")),
        case("config", "file", "settings.ini", |machine| {
            std::fs::remove_file(machine.project.path("settings.ini")).unwrap();
        }),
        case("config", "file", "settings.ini", |machine| machine.project.write("settings.ini", "4\n")),
        case("absent", "file", "more/flags.ini", |machine| machine.project.write("more/flags.ini", "on\n")),
        case("list", "file", "parts", |machine| machine.project.write("parts/b", "2\n")),
        case("size", "file", "notes.md", |machine| machine.project.write("notes.md", "")),
        case("link", "file", "v1", |machine| machine.project.write("v1", "another\n")),
        case("rights", "file", "tool.sh", |machine| {
            std::fs::set_permissions(machine.project.path("tool.sh"), PermissionsExt::from_mode(0o755)).unwrap();
        }),
        case("each", "file", "pieces/b", |machine| machine.project.write("pieces/b", "1\n2\n")),
        case("chosen", "file", "models/a", |machine| machine.project.write("models/a", "retrained\n")),
        case("source", "file", "functions.sh", |machine| {
            machine.project.write("functions.sh", "hello() { echo good day; }\n");
        }),
    ];
    machine.prove(&cases, |machine| {
        // A listing does not tell what is in a file, a test for content not which, and what was not chosen was not read.
        machine.project.write("parts/a", "other\n");
        machine.project.write("README.md", "# Parts\n");
        machine.project.write("more/other.ini", "on\n");
        machine.project.write("models/b", "other\n");
        machine.project.write("models/c", "other\n");
        machine.project.write("v2", "other\n");
        // Nor does it count that a file was written again.
        machine.project.write("settings.ini", "4\n");
    });
}

#[test]
fn what_lies_outside_of_the_project_runs_exactly_who_read_it() {
    let machine = sandbox_of(&[
        ("limits", "", "cat [TOP]/srv/limits.conf"),
        ("later", "", "cat [TOP]/srv/later.conf || echo none"),
        ("shelf", "", "ls [TOP]/srv/shelf"),
        ("home", "    home: host\n", "cat ~/.toolrc"),
        ("clean", "", "cat ~/.toolrc || echo none"),
        ("variable", "    env: [THRESHOLD]\n", "awk -v t=${THRESHOLD:-50} '$1 > t' numbers"),
        ("fixed", "", "echo ${THRESHOLD:-50}; date -d @1700000000 +%Y-%m-%dT%H"),
        ("program", "", "mytool"),
        ("script", "", "./run.my"),
    ]);
    let top = machine.project.beside("").canonicalize().unwrap().display().to_string();
    let at = |path: &str| format!("{}/{path}", top.trim_end_matches('/'));
    machine.project.write("numbers", "40\n60\n");
    machine.project.write("run.my", format!("#!{}\necho mine\n", at("bin/mysh")));
    std::fs::set_permissions(machine.project.path("run.my"), PermissionsExt::from_mode(0o755)).unwrap();
    machine.outside("srv/limits.conf", "1\n");
    machine.outside("srv/shelf/a", "1\n");
    machine.outside("home/.toolrc", "1\n");
    machine.outside("bin/mytool", "#!/bin/sh\necho 1\n");
    machine.outside("bin/mysh", std::fs::read("/bin/sh").unwrap());
    machine.project.commit("all");
    let cases = [
        case("limits", "file", at("srv/limits.conf"), |machine| machine.outside("srv/limits.conf", "2\n")),
        case("later", "file", at("srv/later.conf"), |machine| machine.outside("srv/later.conf", "2\n")),
        case("shelf", "file", at("srv/shelf"), |machine| machine.outside("srv/shelf/b", "2\n")),
        case("home", "file", at("home/.toolrc"), |machine| machine.outside("home/.toolrc", "2\n")),
        case("variable", "env", "THRESHOLD", |machine| drop(machine.variables.insert("THRESHOLD", "10".to_owned()))),
        case("program", "environment", "mytool", |machine| machine.outside("bin/mytool", "#!/bin/sh\necho 2\n")),
        case("script", "environment", "mysh", |machine| {
            // A program is its bytes, whatever it does with them.
            machine.outside("bin/mysh", [std::fs::read("/bin/sh").unwrap(), b"another build".to_vec()].concat());
        }),
    ];
    machine.prove(&cases, |machine| {
        machine.outside("srv/other.conf", "2\n");
        machine.outside("srv/shelf/a", "other\n");
        machine.outside("home/.otherrc", "2\n");
        machine.outside("bin/othertool", "#!/bin/sh\n");
        machine.variables.insert("TZ", "Asia/Tokyo".to_owned());
        machine.variables.insert("LC_ALL", "POSIX".to_owned());
        machine.variables.insert("SOMETHING", "else".to_owned());
    });
}

/// Builds a library, another one each time, and once a program that loads it.
fn build(machine: &mut Machine) {
    let answer = if machine.project.beside("lib/libanswer.so").exists() { 2 } else { 1 };
    let top = machine.project.beside("").canonicalize().unwrap();
    machine.outside("lib/answer.c", format!("int answer(void) {{ return {answer}; }}\n"));
    machine.outside(
        "lib/user.c",
        "#include <stdio.h>\nint answer(void);\nint main(void) { printf(\"%d\\n\", answer()); }\n",
    );
    let mut compile = machine.project.command_in(&top.join("lib"), "sh");
    let line = "cc -shared -fPIC -o libanswer.so answer.c && \
                (test -e ../bin/user || cc -o ../bin/user user.c -L. -lanswer -Wl,-rpath,\"$PWD\")";
    assert!(compile.args(["-c", line]).status().unwrap().success());
}

#[test]
fn a_shared_library_that_is_swapped_runs_exactly_who_loaded_it() {
    let machine = sandbox_of(&[("uses", "", "[TOP]/bin/user"), ("other", "", "echo nothing")]);
    let top = machine.project.beside("").canonicalize().unwrap();
    let can = machine.project.command_in(&top, "cc").arg("--version").output().is_ok_and(|end| end.status.success());
    if !can {
        eprintln!("NOT TESTED: this machine has no `cc` to build a shared library with");
        return;
    }
    let mut machine = machine;
    build(&mut machine);
    machine.project.commit("all");
    let name = format!("{}/lib/libanswer.so", top.display().to_string().trim_end_matches('/'));
    machine.prove(&[case("uses", "library", name, build)], |machine| {
        machine.outside("lib/libother.so", "other\n");
    });
}

#[test]
fn a_module_that_is_imported_by_a_computed_name_runs_exactly_who_imported_it() {
    let mut machine = sandbox_of(&[
        ("chosen", "", "python3 steps/chosen.py"),
        ("tried", "", "python3 steps/tried.py"),
        ("plain", "", "python3 plain/plain.py"),
    ]);
    let project = &machine.project;
    project.write(
        "steps/chosen.py",
        "import importlib\nwith open('which') as which:\n    print(importlib.import_module(which.read().strip()).NAME)\n",
    );
    project.write("steps/tried.py", "try:\n    import fast\nexcept ImportError:\n    fast = None\nprint(fast)\n");
    project.write("plain/plain.py", "import json\nprint(json.dumps([1]))\n");
    project.write("steps/one.py", "NAME = 1\n");
    project.write("which", "one\n");
    project.commit("all");
    assert_eq!(machine.ran(), ["chosen", "tried", "plain"]);
    machine.project.write("steps/one.py", "NAME = 'changed'\n");
    assert_eq!(machine.why("chosen"), ["file steps/one.py"]);
    assert_eq!(machine.ran(), ["chosen"]);
    assert!(machine.project.read("chosen.txt").contains("changed"));
    machine.project.write("steps/fast.py", "");
    assert!(machine.ran().contains(&"tried".to_owned()), "a module that was looked for in vain is there now");
    // One that hides a module of the standard library.
    machine.project.write("plain/json.py", "def dumps(value):\n    return 'mine'\n");
    assert_eq!(machine.ran(), ["plain"]);
    assert_eq!(machine.project.read("plain.txt"), "mine\n");
    machine.variables.insert("PYTHONSTARTUP", "else".to_owned());
    machine.project.write("README.md", "# Modules\n");
    machine.project.write("other/json.py", "\n");
    assert_eq!(machine.ran(), Vec::<String>::new());
}

#[test]
fn a_link_that_leads_elsewhere_runs_who_went_through_it() {
    let machine = sandbox_of(&[("link", "", "cat current"), ("directly", "", "cat v1")]);
    let project = &machine.project;
    project.write("v1", "1\n");
    project.write("v2", "2\n");
    symlink("v1", project.path("current")).unwrap();
    assert_eq!(machine.ran().len(), 2);
    std::fs::remove_file(project.path("current")).unwrap();
    symlink("v2", project.path("current")).unwrap();
    assert!(machine.why("link").contains(&"file current".to_owned()));
    assert_eq!(machine.ran(), ["link"]);
    assert_eq!(project.read("link.txt"), "2\n");
}

#[test]
fn what_a_step_only_wanted_to_make_or_adds_to_is_not_its_own() {
    // It was taken for written, so that what was read there afterwards counted as the step's own, and a file that
    // came to be there later ran nothing again.
    let machine = sandbox_of(&[
        ("adds", "", "echo more >> adds/a; cat adds/a"),
        ("moves", "", "echo x > x; mv x moves/a; cat moves/a"),
        ("links", "", "ln -s links/a to-a; echo more >> to-a; cat links/a"),
        ("makes", "", "mkdir makes/a; ls makes"),
        ("begins", "", "echo more >> begun; cat begun"),
    ]);
    assert_eq!(machine.ran().len(), 5);
    let files =
        [("adds", "adds/a"), ("moves", "moves/a"), ("links", "links/a"), ("makes", "makes/a"), ("begins", "begun")];
    for (step, file) in files {
        machine.project.write(file, "0\n");
        assert_eq!(machine.ran(), [step]);
        assert_ne!(machine.project.read(&format!("{step}.txt")), "", "{step}");
    }
    assert_eq!(machine.project.read("begins.txt"), "0\nmore\n");
}

#[test]
fn who_makes_a_file_depends_on_there_being_a_place_for_it() {
    let machine = sandbox_of(&[
        ("adds", "", "echo more >> data/a; cat data/a"),
        ("begins", "", "echo new > data/b; cat data/b"),
        ("elsewhere", "", "mkdir own; echo new > own/a; cat own/a"),
    ]);
    let project = &machine.project;
    project.write("data/other", "\n");
    assert_eq!(machine.ran().len(), 3);
    assert_eq!(project.read("adds.txt"), "more\n");
    project.write("data/another", "\n");
    assert_eq!(machine.ran(), Vec::<String>::new(), "the place is the same");
    std::fs::remove_dir_all(project.path("data")).unwrap();
    assert_eq!(machine.ran(), ["adds", "begins"]);
    assert_eq!((project.read("adds.txt"), project.read("begins.txt")), (String::new(), String::new()));
    project.write("data/other", "\n");
    assert_eq!(machine.ran(), Vec::<String>::new(), "it is known what comes of that");
    assert_eq!(project.read("adds.txt"), "more\n");
}

#[test]
fn where_a_file_is_put_there_must_be_no_directory_and_what_else_is_there_is_of_no_account() {
    // Only that a file could be put there made the result; a directory that came to be there later ran nothing again.
    let machine = sandbox_of(&[
        ("begins", "", "echo new > begun && cat begun || echo cannot"),
        ("adds", "", "echo new >> added && echo could || echo cannot"),
        ("empties", "", "echo new > emptied && cat emptied || echo cannot"),
        (
            "moves",
            "",
            "echo new > own; python3 -c 'import os; os.rename(\"own\", \"moved\")' && cat moved || echo cannot",
        ),
        ("deeper", "", "echo new > place/begun && cat place/begun || echo cannot"),
    ]);
    machine.project.write("emptied", "before\n");
    machine.project.write("place/other", "\n");
    assert_eq!(machine.ran().len(), 5);
    let (audit, _) = machine.project.json(&["audit"]);
    assert_eq!(audit["steps"][0]["writes"], serde_json::json!(["begun"]));
    assert!(
        audit["steps"].as_array().unwrap().iter().all(|step| step["undeclared"] == serde_json::json!([])),
        "{audit}"
    );
    machine.project.write("emptied", "something else\n");
    machine.project.write("begun", "there\n");
    machine.project.write("moved", "there\n");
    assert_eq!(machine.ran(), Vec::<String>::new(), "it is overwritten anyway");
    let directories =
        [("begins", "begun"), ("adds", "added"), ("empties", "emptied"), ("moves", "moved"), ("deeper", "place/begun")];
    for (step, path) in directories {
        assert!(machine.project.read(&format!("{step}.txt")) != "cannot\n", "{step}");
        drop(std::fs::remove_file(machine.project.path(path)));
        machine.project.write(&format!("{path}/inside"), "\n");
        assert_eq!(machine.why(step), [format!("file {path}")]);
        assert_eq!(machine.ran(), [step]);
        assert_eq!(machine.project.read(&format!("{step}.txt")), "cannot\n", "{step}");
    }
    machine.project.write("begun/inside", "another\n");
    machine.project.write("begun/more", "\n");
    assert_eq!(machine.ran(), Vec::<String>::new());
}

#[test]
fn a_step_that_looks_below_what_is_missing_runs_again_once_something_is_there() {
    // That a path leads through a directory and back by `..` was not counted, so its going ran nothing again.
    let machine = sandbox_of(&[
        ("file", "", "cat gone/deep/file || echo none"),
        ("directory", "", "test -d gone/deep && echo there || echo none"),
        ("through", "", "cat gone/../in || echo none"),
        ("below", "", "test -e in/file; echo $?; cat in/file || echo none"),
    ]);
    let read = |step: &str| machine.project.read(&format!("{step}.txt"));
    machine.project.write("in", "in\n");
    assert_eq!(machine.ran().len(), 4);
    assert_eq!(["file", "directory", "through"].map(read), ["none\n"; 3]);
    machine.project.write("gone/other", "\n");
    assert_eq!(machine.ran(), ["file", "directory", "through"]);
    assert_eq!(["file", "directory", "through"].map(read), ["none\n", "none\n", "in\n"]);
    machine.project.write("gone/deep/other", "\n");
    assert_eq!(machine.ran(), ["file", "directory"]);
    assert_eq!(["file", "directory"].map(read), ["none\n", "there\n"]);
    machine.project.write("gone/deep/file", "file\n");
    assert_eq!(machine.ran(), ["file"]);
    assert_eq!(read("file"), "file\n");
    std::fs::remove_dir_all(machine.project.path("gone")).unwrap();
    assert_eq!(machine.ran(), Vec::<String>::new(), "it is known what comes of that");
    assert_eq!(["file", "directory", "through"].map(read), ["none\n"; 3]);
    machine.project.write("gone/deep/file", "file\n");
    std::fs::remove_file(machine.project.path("in")).unwrap();
    machine.project.write("in/file", "inside\n");
    assert_eq!(machine.ran(), ["through", "below"]);
    assert_eq!(["through", "below"].map(read), ["none\n", "0\ninside\n"]);
}

/// Opens a file by `openat2`, which has one number everywhere, with the flags in memory.
const OPENAT2: &str = "
import ctypes, os
how = (ctypes.c_uint64 * 3)(os.O_RDONLY, 0, 0)
file = ctypes.CDLL(None, use_errno=True).syscall(437, -100, b'opened/by', ctypes.byref(how), ctypes.sizeof(how))
print(os.read(file, 100) if file >= 0 else ctypes.get_errno())
";

/// Reads a file relative to where the process works, after going there in one way or another.
const GOES: &str = "
import os, sys, threading
way = sys.argv[1]
place = os.open(way, os.O_RDONLY)
def go():
    os.fchdir(place) if way == 'by-descriptor' else os.chdir(way)
if way == 'in-a-child':
    read, write = os.pipe()
    if os.fork() == 0:
        go()
        os.write(write, open('file', 'rb').read())
        os._exit(0)
    os.wait()
    print(os.read(read, 100))
elif way == 'in-a-thread':
    thread = threading.Thread(target=go)
    thread.start()
    thread.join()
    print(open('file').read())
elif way == 'before-a-child':
    go()
    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, open('file', 'rb').read())
        os._exit(0)
    os.wait()
    print(os.read(read, 100))
elif way == 'there-and-back':
    go()
    os.chdir('..')
    print(open(way + '/../file').read())
elif way == 'by-directory':
    print(os.read(os.open('file', os.O_RDONLY, dir_fd=place), 100))
else:
    go()
    print(open('file').read())
";

#[test]
fn what_is_read_relative_to_another_directory_runs_exactly_who_read_it() {
    let ways = ["by-path", "by-descriptor", "by-directory", "in-a-child", "before-a-child", "in-a-thread"];
    let runs: Vec<_> = ways.iter().map(|way| (*way, format!("python3 goes.py {way}"))).collect();
    let mut steps: Vec<(&str, &str, &str)> = runs.iter().map(|(way, run)| (*way, "", run.as_str())).collect();
    steps.extend([
        ("in-a-shell", "", "cd in-a-shell && cat file"),
        ("in-a-subshell", "", "(cd in-a-subshell; sh -c \"cat file\")"),
        ("there-and-back", "", "python3 goes.py there-and-back"),
    ]);
    let machine = sandbox_of(&steps);
    machine.project.write("goes.py", GOES);
    // One of the same name, where nobody means it but one.
    machine.project.write("file", "top\n");
    for (step, ..) in &steps {
        machine.project.write(&format!("{step}/file"), "1\n");
    }
    assert_eq!(machine.ran().len(), steps.len());
    let (mut found, mut expected) = (Vec::new(), Vec::new());
    for (step, ..) in &steps[..steps.len() - 1] {
        machine.project.write(&format!("{step}/file"), "2\n");
        let (why, ran) = (machine.why(step), machine.ran());
        found.push((why, ran, machine.project.read(&format!("{step}.txt")).contains('2')));
        expected.push((vec![format!("file {step}/file")], vec![(*step).to_owned()], true));
    }
    assert_eq!(found, expected);
    machine.project.write("there-and-back/file", "2\n");
    assert_eq!(machine.ran(), Vec::<String>::new());
    machine.project.write("file", "another\n");
    assert_eq!(machine.ran(), ["there-and-back"]);
    assert!(machine.project.read("there-and-back.txt").contains("another"));
}

#[test]
fn however_a_file_is_asked_about_linked_or_opened_whoever_did_runs_again() {
    // What runs, the file that it depends on, that file before and after, and what comes of the one and the other.
    let cases = [
        ("empty", "test -s sizes/empty && echo more || echo nothing", "sizes/empty", "1\n", "", "more\n", "nothing\n"),
        ("size", "stat -c %s sizes/size", "sizes/size", "1\n", "12\n", "2\n", "3\n"),
        ("length", LENGTH, "sizes/length", "1\n", "12\n", "2\n", "3\n"),
        ("found", "find sizes/found -size +3c", "sizes/found", "1\n", "1234\n", "", "sizes/found\n"),
        ("linked", "ln -f links/raw linked.txt", "links/raw", "1\n", "2\n", "1\n", "2\n"),
        ("named", "python3 link.py && cat own", "links/more", "1\n", "2\n", "1\n", "2\n"),
        ("opened", "python3 open.py", "opened/by", "1\n", "2\n", "b'1\\n'\n", "b'2\\n'\n"),
    ];
    let mut steps: Vec<_> = cases.iter().map(|(step, run, ..)| (*step, "", *run)).collect();
    steps.push(("there", "", "[ -e sizes/there ] && echo there || echo none"));
    let machine = sandbox_of(&steps);
    let (project, read) = (&machine.project, |step: &str| machine.project.read(&format!("{step}.txt")));
    project.write("open.py", OPENAT2);
    project.write("link.py", "import os\nos.link('links/more', 'own')\n");
    cases.iter().for_each(|(_, _, path, before, ..)| project.write(path, before));
    assert_eq!(machine.ran().len(), steps.len());
    let (mut found, mut expected) = (Vec::new(), Vec::new());
    for (step, _, path, _, after, old, new) in cases {
        let before = read(step);
        project.write(path, after);
        found.push((before, machine.why(step), machine.ran(), read(step)));
        expected.push((old.to_owned(), vec![format!("file {path}")], vec![step.to_owned()], new.to_owned()));
    }
    assert_eq!(found, expected);
    assert_eq!(read("there"), "none\n");
    project.write("sizes/there", "");
    assert_eq!(machine.ran(), ["there"]);
    assert_eq!(read("there"), "there\n");
    // What was only asked for its size was not asked for its content.
    project.write("sizes/size", "34\n");
    project.write("sizes/there-too", "\n");
    assert_eq!(machine.ran(), Vec::<String>::new());
}

const LENGTH: &str = "python3 -c 'import os; print(os.path.getsize(\"sizes/length\"))'";
