//! Why a step that failed may have missed something that its author has.
//!
//! A decision from what the step was seen to look for, what it printed, and questions about the world of
//! its author. A clean place leaves out what Git ignores, the home directory and most variables; a step that fails
//! for that is told what it looked for.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use super::audit::declare;
use super::audit::is_noise;
use crate::environment::{Class, FIXED, PASSED, Rules, classify};
use crate::exec::{Observation, Touch};
use crate::path::ProjectPath;
use crate::pipeline::{Pipeline, Step};

/// What is known of a step that failed, and of the world of its author.
pub struct Scene<'a> {
    /// The definition.
    pub pipeline: &'a Pipeline,
    /// The step.
    pub step: &'a Step,
    /// Where its project was, as it saw it.
    pub workplace: &'a Path,
    /// Its own home directory, as it saw it.
    pub home: &'a Path,
    /// The last lines that it printed.
    pub tail: &'a [String],
    /// The rules that tell the environment from inputs.
    pub rules: &'a Rules,
    /// Whether a path of the project was there for the step.
    pub was_there: &'a dyn Fn(&ProjectPath) -> bool,
    /// Whether a path of the project is there but hidden, because the step does not declare it.
    pub is_hidden: &'a dyn Fn(&ProjectPath) -> bool,
    /// Which step wrote this path without declaring it as an output.
    pub stray_of: &'a dyn Fn(&ProjectPath) -> Option<String>,
    /// Whether a path of the project lies in the working tree.
    pub is_in_tree: &'a dyn Fn(&ProjectPath) -> bool,
    /// Whether a path, relative to it, lies in the author's home directory.
    pub is_at_home: &'a dyn Fn(&Path) -> bool,
    /// Whether a variable is set for the author.
    pub is_set: &'a dyn Fn(&str) -> bool,
}

/// Something that a step looked for in vain, and that its author has.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Hint {
    /// A path that lies in the working tree and not in the snapshot.
    Data {
        /// The path, or the directory of many such paths.
        path: String,
    },
    /// What another step writes, which did not run before.
    Output {
        /// The path.
        path: String,
        /// The step that writes it.
        writer: String,
        /// The step that looked for it.
        step: String,
    },
    /// What is hidden from the step because it does not declare it.
    Input {
        /// The path.
        path: String,
        /// The step that looked for it.
        step: String,
    },
    /// What another step wrote without declaring it.
    Stray {
        /// The path.
        path: String,
        /// The step that wrote it.
        writer: String,
    },
    /// A path in the author's home directory.
    Home {
        /// The path, relative to the home directory.
        path: PathBuf,
        /// The step that looked for it.
        step: String,
    },
    /// A variable of the author's environment.
    Variable {
        /// The name.
        name: String,
        /// The step that wanted it.
        step: String,
    },
}

/// Returns what the step looked for in vain and its author has, sorted, each with the line that would give it to the step.
///
/// Asks one question for each path that was touched, and for each name in the lines about variables.
pub fn missing(observation: &Observation, scene: &Scene<'_>) -> Vec<Hint> {
    let (mut data, mut hidden) = (BTreeSet::new(), BTreeSet::new());
    let mut hints = BTreeSet::new();
    for (path, _) in observation.touched.iter().filter(|(_, touch)| is_probe(touch)) {
        if let Some(path) = ProjectPath::below(scene.workplace, path) {
            if !is_noise(&path) && (scene.is_hidden)(&path) {
                hidden.insert(path.to_string());
            } else if !is_noise(&path) && !(scene.was_there)(&path) {
                if let Some(writer) = (scene.stray_of)(&path) {
                    hints.insert(Hint::Stray { path: path.to_string(), writer });
                    continue;
                }
                match writer(scene, &path) {
                    Some(writer) => drop(hints.insert(Hint::Output {
                        path: path.to_string(),
                        writer: writer.to_owned(),
                        step: scene.step.name.clone(),
                    })),
                    None if (scene.is_in_tree)(&path) => drop(data.insert(path.to_string())),
                    None => {}
                }
            }
        } else if let Ok(relative) = path.strip_prefix(scene.home)
            && relative.components().next().is_some()
            && is_of_interest(scene, relative)
            && (scene.is_at_home)(relative)
        {
            hints.insert(Hint::Home { path: relative.to_owned(), step: scene.step.name.clone() });
        }
    }
    hints.extend(declare(innermost(&data)).into_iter().map(|path| Hint::Data { path }));
    let step = &scene.step.name;
    hints.extend(declare(innermost(&hidden)).into_iter().map(|path| Hint::Input { path, step: step.clone() }));
    let variables = scene.tail.iter().flat_map(|line| variables_in(line)).filter(|name| is_kept_from(scene, name));
    hints.extend(variables.map(|name| Hint::Variable { name, step: scene.step.name.clone() }));
    hints.into_iter().collect()
}

fn is_probe(touch: &Touch) -> bool {
    (touch.read || touch.examined || touch.listed || touch.executed) && !touch.written
}

/// Returns the other step that writes `path`.
fn writer<'a>(scene: &Scene<'a>, path: &ProjectPath) -> Option<&'a str> {
    let others = scene.pipeline.steps.iter().filter(|other| other.name != scene.step.name);
    let mut writers = others.filter(|other| other.written().any(|output| path.is_within(output)));
    writers.next().map(|other| other.name.as_str())
}

/// Returns whether a path of the home directory is more than what tools look for as a matter of course.
fn is_of_interest(scene: &Scene<'_>, relative: &Path) -> bool {
    // The home of a step is its own, so its rules are asked about the author's.
    classify(&scene.rules.home().join(relative), scene.rules) == Class::Input
}

/// Leaves out the directories that were only looked at on the way to others.
fn innermost(paths: &BTreeSet<String>) -> impl Iterator<Item = &String> {
    paths.iter().filter(|path| {
        let start = format!("{path}/");
        !paths.range(start.clone()..).next().is_some_and(|next| next.starts_with(&start))
    })
}

/// Returns whether a variable is set for the author and was not given to the step.
fn is_kept_from(scene: &Scene<'_>, name: &str) -> bool {
    let is_given = PASSED.contains(&name)
        || FIXED.iter().any(|(fixed, _)| *fixed == name)
        || ["HOME", "TMPDIR", "PYTHONHASHSEED"].contains(&name)
        || name.starts_with("PV_")
        || scene.step.env.fixed.contains_key(name)
        || scene.step.env.passed.contains(name);
    !is_given && (scene.is_set)(name)
}

/// What a line says that complains of a variable, in the words of shells, Python, R, Node and others.
const COMPLAINTS: [&str; 11] = [
    "KeyError",
    "unbound variable",
    "parameter not set",
    "parameter null or not set",
    "environ",
    "Environ",
    "getenv",
    "not set",
    "undefined",
    "is required",
    "missing",
];

/// Returns the names in a line that complains of a variable.
fn variables_in(line: &str) -> Vec<String> {
    if !COMPLAINTS.iter().any(|complaint| line.contains(complaint)) {
        return Vec::new();
    }
    let words = line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let is_name = |word: &&str| word.len() > 1 && !word.starts_with(|c: char| c.is_ascii_digit());
    words.filter(is_name).map(str::to_owned).collect()
}

impl Hint {
    /// Returns the line that would give the step what it looked for.
    pub fn line(&self) -> String {
        match self {
            Self::Data { path } => format!("data: [{path}]"),
            Self::Output { path, .. } | Self::Input { path, .. } => format!("inputs: [{path}]"),
            Self::Stray { path, .. } => format!("outputs: [{path}]"),
            Self::Home { .. } => "home: host".to_owned(),
            Self::Variable { name, .. } => format!("env: [{name}]"),
        }
    }

    /// Returns the step that the line belongs to; `None` is the top of the definition.
    pub fn step(&self) -> Option<&str> {
        match self {
            Self::Data { .. } => None,
            Self::Output { step, .. }
            | Self::Input { step, .. }
            | Self::Home { step, .. }
            | Self::Variable { step, .. } => Some(step),
            Self::Stray { writer, .. } => Some(writer),
        }
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data { path } => {
                write!(f, "`{path}` lies in the working tree, but git ignores it, so the snapshot is without it")
            }
            Self::Output { path, writer, .. } => {
                write!(f, "`{path}` is written by step `{writer}`, which did not run before")
            }
            Self::Input { path, .. } => {
                write!(f, "`{path}` is hidden from the step, which is strict and does not declare it")
            }
            Self::Stray { path, writer } => {
                write!(f, "`{path}` was written by step `{writer}`, which does not declare it, so nobody else gets it")
            }
            Self::Home { path, .. } => {
                write!(
                    f,
                    "`~/{}` lies in your home directory, but the step has an empty one of its own",
                    path.display()
                )
            }
            Self::Variable { name, .. } => write!(f, "`{name}` is set here, but not passed on to the step"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline;

    const DEFINITION: &[u8] =
        b"steps:\n  extract: {run: x, outputs: [work]}\n  train: {run: y, inputs: [], env: [GIVEN]}\n";

    fn hints(touched: &[(&str, Touch)], tail: &[&str]) -> Vec<String> {
        let definition = pipeline::read(DEFINITION, "x").unwrap();
        let touched = touched.iter().map(|(path, touch)| (PathBuf::from(path), touch.clone())).collect();
        let observation = Observation { touched, ..Observation::default() };
        let tree = ["data/raw.csv", "data", "src/x.py", "venv/x", ".git/HEAD"];
        let tail: Vec<String> = tail.iter().map(|line| (*line).to_owned()).collect();
        let scene = Scene {
            pipeline: &definition.pipeline,
            step: &definition.pipeline.steps[1],
            workplace: Path::new("/pv/work"),
            home: Path::new("/pv/home"),
            tail: &tail,
            rules: &Rules::new(vec!["/home/ada".into()]),
            was_there: &|path| path.as_bytes().starts_with(b"src"),
            is_hidden: &|path| path.as_bytes().starts_with(b"hidden"),
            stray_of: &|path| path.as_bytes().starts_with(b"stray").then(|| "extract".to_owned()),
            is_in_tree: &|path| tree.contains(&path.to_string().as_str()) || path.as_bytes().starts_with(b"many"),
            is_at_home: &|path| path.starts_with(".aws") || path.starts_with(".gitconfig"),
            is_set: &|name| ["API_TOKEN", "PATH", "GIVEN", "USER"].contains(&name),
        };
        missing(&observation, &scene).iter().map(|hint| format!("{} | {}", hint.line(), hint)).collect()
    }

    fn probe() -> Touch {
        Touch { examined: true, by: "python3".to_owned(), ..Touch::default() }
    }

    #[test]
    fn what_the_author_has_and_the_step_looked_for_is_told_with_the_line_to_add() {
        let touched =
            ["data", "data/raw.csv", "src/x.py", "nowhere", ".git/HEAD", "work/clean.csv", "hidden/a.csv", "stray.txt"]
                .map(|path| format!("/pv/work/{path}"));
        let mut touched: Vec<_> = touched.iter().map(|path| (path.as_str(), probe())).collect();
        touched.extend([
            ("/pv/home/.aws/credentials", probe()),
            ("/pv/home/.gitconfig", probe()),
            ("/pv/home", probe()),
        ]);
        assert_eq!(
            hints(&touched, &[]),
            [
                "data: [data/raw.csv] | `data/raw.csv` lies in the working tree, but git ignores it, so the snapshot is without it",
                "inputs: [work/clean.csv] | `work/clean.csv` is written by step `extract`, which did not run before",
                "inputs: [hidden/a.csv] | `hidden/a.csv` is hidden from the step, which is strict and does not declare it",
                "outputs: [stray.txt] | `stray.txt` was written by step `extract`, which does not declare it, so nobody else gets it",
                "home: host | `~/.aws/credentials` lies in your home directory, but the step has an empty one of its own",
            ]
        );
    }

    #[test]
    fn what_the_step_wrote_itself_was_not_looked_for() {
        assert_eq!(hints(&[("/pv/work/data/raw.csv", Touch { written: true, ..probe() })], &[]), Vec::<String>::new());
    }

    #[test]
    fn many_paths_of_a_directory_are_one_line() {
        let touched: Vec<String> = (0..12).map(|n| format!("/pv/work/many/{n}")).collect();
        let touched: Vec<_> = touched.iter().map(|path| (path.as_str(), probe())).collect();
        let hints = hints(&touched, &[]);
        assert_eq!(hints.len(), 1);
        assert!(hints[0].starts_with("data: [many]"), "{hints:?}");
    }

    #[test]
    fn a_variable_is_told_if_the_log_complains_of_it_and_the_author_has_it() {
        for line in [
            "KeyError: 'API_TOKEN'",
            "sh: 1: API_TOKEN: parameter not set",
            "bash: API_TOKEN: unbound variable",
            "Error: environment variable API_TOKEN is required",
            "Error in f(): Sys.getenv(\"API_TOKEN\") is empty",
        ] {
            let expected = "env: [API_TOKEN] | `API_TOKEN` is set here, but not passed on to the step";
            assert_eq!(hints(&[], &[line]), [expected], "{line}");
        }
        for line in ["API_TOKEN ok", "KeyError: 'OTHER'", "PATH: unbound variable", "KeyError: 'GIVEN'"] {
            assert_eq!(hints(&[], &[line]), Vec::<String>::new(), "{line}");
        }
    }
}
