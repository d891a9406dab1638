//! The law of every reuse: after any edit, what an incremental run leaves equals what a run from nothing leaves.
//!
//! Small pipelines of shell steps are made up, of which many read what they do not declare, and their files are edited
//! in every way. Each time the same project is also run in a new repository with a store of its own, and its steps
//! are run by a plain shell in the order of the list, each seeing what lies there and the outputs above it.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::plain::confined;
use crate::sandbox::Sandbox;

const FILES: [&str; 8] = ["data/a", "data/b", "data/c", "data/d/x", "data/d/y", "cfg/mode", "flag", "link"];
const PLACES: [&str; 11] =
    ["data/a", "data/b", "data/c", "data/d/x", "data/d/y", "cfg/mode", "flag", "link", "data/d", "cfg", "data/b/x"];
const DIRECTORIES: [&str; 5] = ["data", "data/d", "cfg", "out", "."];

/// What lies at a path.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Item {
    File { content: String, executable: bool },
    Link(String),
}

/// What a step looks at.
#[derive(Clone, Debug)]
enum Source {
    /// A path of the project.
    Place(usize),
    /// The output of a step above, if there is one.
    Output(usize),
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Print,
    Count,
    Match,
    Test(char),
    List,
    ListBelow,
    PrintAll,
    ReadLink,
    /// Which of two is printed depends on the text of a third.
    Choose,
    /// One file if it is there, else another.
    FirstOf,
    /// A value of a file of params.
    Param,
    /// A file that it makes and nobody declared.
    Scratch,
    /// An addition to a file of the project that nobody declared.
    Meddle,
    /// Several processes, and a name with dots.
    Roundabout,
}

#[derive(Clone, Copy, Debug)]
enum Inputs {
    LeftOut,
    Empty,
    Declared,
    /// Only the first of what it looks at.
    Half,
}

#[derive(Clone, Debug)]
struct Step {
    act: Act,
    source: Source,
    other: Source,
    directory: usize,
    inputs: Inputs,
    needs: bool,
    is_directory: bool,
}

#[derive(Clone, Debug)]
enum Edit {
    Write(usize, u8),
    Remove(usize),
    Rename(usize, usize),
    Executable(usize),
    Link(usize, usize),
    Param(u8),
    Step(usize, Step),
    /// Back to how the files were at an earlier time.
    Back(usize),
}

/// A project as it should lie on disk.
#[derive(Clone, Debug)]
struct Model {
    files: BTreeMap<String, Item>,
    param: u8,
    steps: Vec<Step>,
}

fn source() -> impl Strategy<Value = Source> {
    prop_oneof![3 => (0..PLACES.len()).prop_map(Source::Place), 2 => (0..4_usize).prop_map(Source::Output)]
}

fn step() -> impl Strategy<Value = Step> {
    let act = prop_oneof![
        Just(Act::Print),
        Just(Act::Count),
        Just(Act::Match),
        prop::sample::select(vec!['f', 'd', 'x', 's', 'L', 'e']).prop_map(Act::Test),
        Just(Act::List),
        Just(Act::ListBelow),
        Just(Act::PrintAll),
        Just(Act::ReadLink),
        Just(Act::Choose),
        Just(Act::FirstOf),
        Just(Act::Param),
        Just(Act::Scratch),
        Just(Act::Meddle),
        Just(Act::Roundabout),
    ];
    let inputs = prop_oneof![
        2 => Just(Inputs::LeftOut), 2 => Just(Inputs::Empty), 1 => Just(Inputs::Declared), 1 => Just(Inputs::Half)
    ];
    (act, source(), source(), 0..DIRECTORIES.len(), inputs, any::<bool>(), prop::bool::weighted(0.3)).prop_map(
        |(act, source, other, directory, inputs, needs, is_directory)| Step {
            act,
            source,
            other,
            directory,
            inputs,
            needs,
            is_directory,
        },
    )
}

fn edit() -> impl Strategy<Value = Edit> {
    let place = || 0..PLACES.len();
    prop_oneof![
        4 => (place(), 0..4_u8).prop_map(|(place, content)| Edit::Write(place, content)),
        2 => place().prop_map(Edit::Remove),
        1 => (place(), place()).prop_map(|(from, to)| Edit::Rename(from, to)),
        1 => place().prop_map(Edit::Executable),
        1 => (place(), place()).prop_map(|(at, to)| Edit::Link(at, to)),
        1 => (0..3_u8).prop_map(Edit::Param),
        1 => (0..4_usize, step()).prop_map(|(index, step)| Edit::Step(index, step)),
        2 => (0..6_usize).prop_map(Edit::Back),
    ]
}

fn model() -> impl Strategy<Value = Model> {
    let files = prop::collection::vec(prop::option::weighted(0.8, 0..4_u8), FILES.len());
    (files, prop::collection::vec(step(), 2..5)).prop_map(|(contents, steps)| {
        let mut model = Model { files: BTreeMap::new(), param: 0, steps };
        for (place, content) in contents.into_iter().enumerate() {
            if let Some(content) = content {
                let item = if FILES[place] == "link" { Item::Link("data/a".to_owned()) } else { file(content) };
                model.put(FILES[place], item);
            }
        }
        model
    })
}

fn file(content: u8) -> Item {
    Item::File { content: format!("{content}\n").repeat(1 + usize::from(content)), executable: false }
}

fn output(index: usize) -> String {
    format!("out/s{index}")
}

impl Model {
    fn put(&mut self, path: &str, item: Item) {
        self.remove(path);
        let above: Vec<String> = path
            .match_indices('/')
            .map(|(at, _)| path[..at].to_owned())
            .filter(|at| self.files.contains_key(at))
            .collect();
        for above in above {
            self.files.remove(&above);
        }
        self.files.insert(path.to_owned(), item);
    }

    fn remove(&mut self, path: &str) {
        let below = format!("{path}/");
        self.files.retain(|other, _| other != path && !other.starts_with(&below));
    }

    fn edit(&mut self, edit: &Edit, earlier: &[Self]) {
        match edit {
            Edit::Write(place, content) => self.put(PLACES[*place], file(*content)),
            Edit::Remove(place) => self.remove(PLACES[*place]),
            Edit::Rename(from, to) => {
                if let Some(item) = self.files.remove(PLACES[*from]) {
                    self.put(PLACES[*to], item);
                }
            }
            Edit::Executable(place) => {
                if let Some(Item::File { executable, .. }) = self.files.get_mut(PLACES[*place]) {
                    *executable = !*executable;
                }
            }
            Edit::Link(at, to) => {
                let up = "../".repeat(PLACES[*at].matches('/').count());
                self.put(PLACES[*at], Item::Link(format!("{up}{}", PLACES[*to])));
            }
            Edit::Param(value) => self.param = *value,
            Edit::Step(index, step) => {
                let index = index % self.steps.len();
                self.steps[index] = step.clone();
            }
            Edit::Back(index) => self.files = earlier[index % earlier.len()].files.clone(),
        }
    }

    /// Returns the path that a step looks at.
    fn path(&self, index: usize, source: &Source) -> String {
        match source {
            Source::Output(other) if index > 0 => {
                let other = other % index;
                if self.steps[other].is_directory { format!("{}/x", output(other)) } else { output(other) }
            }
            Source::Output(place) | Source::Place(place) => PLACES[*place].to_owned(),
        }
    }

    /// Returns the command of a step, and what it looks at in the order in which it would be declared.
    fn command(&self, index: usize) -> (String, Vec<String>) {
        let step = &self.steps[index];
        let (a, b) = (self.path(index, &step.source), self.path(index, &step.other));
        let directory = DIRECTORIES[step.directory].to_owned();
        let one = |command: String| (command, vec![a.clone()]);
        let (command, looked) = match step.act {
            Act::Print => one(format!("cat {a}")),
            Act::Count => one(format!("cat {a} | wc -c")),
            Act::Match => one(format!("grep -c 1 {a}")),
            Act::Test(kind) => one(format!("test -{kind} {a} && echo yes || echo no")),
            Act::ReadLink => one(format!("readlink {a} || echo no link")),
            Act::List => (format!("ls {directory}"), vec![directory]),
            Act::ListBelow => (format!("find {directory} -type f | sort"), vec![directory]),
            Act::PrintAll => (format!("cat {directory}/*"), vec![directory]),
            Act::Choose => (
                format!("read m < cfg/mode; if [ \"$m\" = 1 ]; then cat {a}; else cat {b}; fi"),
                vec!["cfg/mode".to_owned(), a, b],
            ),
            Act::FirstOf => (format!("if test -e {a}; then cat {a}; else cat {b}; fi"), vec![a, b]),
            Act::Param => ("grep ^p: params.yaml".to_owned(), vec![]),
            Act::Scratch => {
                let command = format!("cat scratch.txt {a}; echo {index} > scratch.txt; cat scratch.txt");
                (command, vec![a])
            }
            Act::Meddle => one(format!("echo more >> {a}; cat {a}; rm -f {b}; cat {b}")),
            Act::Roundabout => (format!("cd cfg && (cat ../{a} | sort) && sh -c 'cat ../cfg/../{b}'"), vec![a, b]),
        };
        let own = output(index);
        let command = if step.is_directory {
            format!("mkdir {own}; ({command}) > {own}/x 2> /dev/null; echo fixed > {own}/y")
        } else {
            format!("({command}) > {own} 2> /dev/null || true")
        };
        (command, looked)
    }

    fn definition(&self) -> String {
        let mut text = "params: params.yaml\nsteps:\n".to_owned();
        for (index, step) in self.steps.iter().enumerate() {
            let (command, mut looked) = self.command(index);
            text += &format!("  s{index}:\n    run: {}\n", serde_json::to_string(&command).unwrap());
            text += &format!("    outputs: [{}]\n", output(index));
            looked.retain(|path| is_declarable(path));
            looked.dedup();
            match step.inputs {
                Inputs::LeftOut => {}
                Inputs::Empty => text += "    inputs: []\n",
                Inputs::Declared => text += &format!("    inputs: {looked:?}\n"),
                Inputs::Half => text += &format!("    inputs: {:?}\n", &looked[..looked.len().min(1)]),
            }
            if step.needs && index > 0 {
                text += &format!("    needs: [s{}]\n", index - 1);
            }
            if matches!(step.act, Act::Param) && step.needs {
                text += "    params: [p]\n";
            }
        }
        text
    }

    /// Makes what lies below `root` what it should be, whatever was there.
    fn lay_out(&self, root: &Path) {
        for name in ["data", "cfg", "flag", "link"] {
            let path = root.join(name);
            if path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
                std::fs::remove_dir_all(path).unwrap();
            } else {
                let _ = std::fs::remove_file(path);
            }
        }
        for (path, item) in &self.files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            match item {
                Item::File { content, executable } => {
                    std::fs::write(&path, content).unwrap();
                    let mode = if *executable { 0o755 } else { 0o644 };
                    std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
                }
                Item::Link(target) => symlink(target, &path).unwrap(),
            }
        }
        std::fs::create_dir_all(root.join(".pipeline")).unwrap();
        std::fs::write(root.join(".pipeline/pipeline.yaml"), self.definition()).unwrap();
        std::fs::write(root.join("params.yaml"), format!("p: {}\nq: 7\n", self.param)).unwrap();
        std::fs::write(root.join(".gitignore"), "/out/\n").unwrap();
    }

    /// Returns what the steps leave if a plain shell runs them one after the other.
    fn by_hand(&self, sandbox: &Sandbox) -> BTreeMap<String, String> {
        let mut outputs = BTreeMap::new();
        for index in 0..self.steps.len() {
            // What a step writes beside its output reaches no other.
            let place = sandbox.beside(&format!("by-hand-{index}"));
            let _ = std::fs::remove_dir_all(&place);
            std::fs::create_dir_all(place.join("out")).unwrap();
            self.lay_out(&place);
            for (path, content) in &outputs {
                let path = place.join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, content).unwrap();
            }
            let mut shell = sandbox.command_in(&place, "sh");
            shell.env("LC_ALL", "C.UTF-8").args(["-c", &self.command(index).0]).stdout(Stdio::null());
            assert!(shell.status().unwrap().success());
            let own = output(index);
            outputs.extend(left(&place).into_iter().filter(|(path, _)| Path::new(path).starts_with(&own)));
        }
        outputs
    }
}

/// The whole project, and its outputs, cannot be declared as one.
fn is_declarable(path: &str) -> bool {
    path != "." && path != "out"
}

/// Returns what lies in `out`.
fn left(root: &Path) -> BTreeMap<String, String> {
    let files = walkdir::WalkDir::new(root.join("out")).into_iter().filter_map(Result::ok);
    let files = files.filter(|entry| !entry.file_type().is_dir()).map(|entry| {
        let path = entry.path().strip_prefix(root).unwrap().to_string_lossy().into_owned();
        (path, String::from_utf8(std::fs::read(entry.path()).unwrap()).unwrap())
    });
    files.collect()
}

/// Returns a command that runs the project.
type Way = fn(&Sandbox) -> Command;

/// Runs the project as it lies there, and returns what it left; `None` if `pv` refuses it.
fn run(sandbox: &Sandbox, model: &Model, way: Way) -> (Option<BTreeMap<String, String>>, String) {
    model.lay_out(&sandbox.path(""));
    let output = way(sandbox).output().unwrap();
    let told = sandbox.tell(&output);
    match output.status.code() {
        Some(0) => (Some(left(&sandbox.path(""))), told),
        // A declared input that is not there.
        Some(2) => (None, told),
        _ => panic!("{told}\n{}", model.definition()),
    }
}

/// Checks the law after each edit.
fn holds(mut model: Model, edits: &[Edit], way: Way) -> Result<(), TestCaseError> {
    let project = Sandbox::new();
    let mut earlier = vec![model.clone()];
    run(&project, &model, way);
    for edit in edits {
        model.edit(edit, &earlier);
        earlier.push(model.clone());
        let anew = Sandbox::new();
        let ((incremental, told), (expected, told_anew)) = (run(&project, &model, way), run(&anew, &model, way));
        let tell = || format!("{edit:?}\n{}\n{told}\n{told_anew}", model.definition());
        prop_assert_eq!(&incremental, &expected, "{}", tell());
        if let Some(expected) = expected {
            prop_assert_eq!(&expected, &model.by_hand(&anew), "by hand: {}", tell());
        }
    }
    Ok(())
}

fn isolated(sandbox: &Sandbox) -> Command {
    sandbox.pv_command(&["run"])
}

fn plain(sandbox: &Sandbox) -> Command {
    confined("the law", sandbox, &["run"]).expect("it has just been tried")
}

/// Each case starts `pv` several times. `PV_LAW_CASES` asks for more of them.
fn cases(few: u32) -> ProptestConfig {
    let many = std::env::var("PV_LAW_CASES").ok().and_then(|text| text.parse().ok());
    let cases = many.unwrap_or(few);
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 200, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(12))]

    #[test]
    fn after_any_edit_a_run_leaves_what_a_run_from_nothing_leaves(
        model in model(), edits in prop::collection::vec(edit(), 1..6),
    ) {
        holds(model, &edits, isolated)?;
    }
}

#[test]
fn after_any_edit_it_is_the_same_where_steps_cannot_be_isolated() {
    if confined("the law where steps cannot be isolated", &Sandbox::new(), &["run"]).is_none() {
        return;
    }
    let cases = (model(), prop::collection::vec(edit(), 1..6));
    let told = TestRunner::new(self::cases(4)).run(&cases, |(model, edits)| holds(model, &edits, plain));
    told.unwrap_or_else(|failure| panic!("{failure}"));
}
