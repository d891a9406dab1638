//! What may count for a step: variables that its code names, files that it reads or looks for without declaring them.
//!
//! A guess only decides what is tried. Nothing is named before an experiment has shown it.

use std::collections::{BTreeMap, BTreeSet};

use crate::path::ProjectPath;
use crate::pipeline::{Run, Step};

/// Endings of files that are code, which a snapshot has without anybody declaring it.
const CODE: [&str; 36] = [
    "py", "pyc", "pyi", "pyx", "so", "sh", "bash", "zsh", "r", "rmd", "js", "mjs", "cjs", "ts", "pl", "pm", "pmc",
    "rb", "c", "cc", "cpp", "cxx", "h", "hh", "hpp", "hxx", "mk", "cmake", "rs", "go", "jl", "java", "class", "jar",
    "lua", "ipynb",
];
/// Names of files that say how something is built.
const BUILD: [&str; 8] =
    ["makefile", "gnumakefile", "cmakelists.txt", "rakefile", "sconstruct", "meson.build", "justfile", "snakefile"];
/// Endings of files with settings, in which variables may be named as in a shell.
const SETTINGS_ENDINGS: [&str; 10] = ["ini", "cfg", "conf", "toml", "yaml", "yml", "json", "properties", "env", "xml"];
/// Names that interpreters and tools look for wherever they are, for settings of their own.
const PROBED: [&str; 14] = [
    "__pycache__",
    "node_modules",
    "package.json",
    "pyvenv.cfg",
    "pyproject.toml",
    "setup.cfg",
    "setup.py",
    "tox.ini",
    "pybuilddir.txt",
    "tsconfig.json",
    "npm-shrinkwrap.json",
    "conftest.py",
    "core",
    "Makefile",
];
/// Programs that look for parts of programs and settings of their own.
const TOOLS: [&str; 16] = [
    "ld", "ld.bfd", "ld.gold", "ld.lld", "collect2", "cc1", "cc1plus", "as", "gcc", "g++", "cc", "clang", "rustc",
    "go", "java", "javac",
];
/// The one hidden name that programs read their own settings from.
const SETTINGS: &[u8] = b".env";
/// So much of the words of the data is put into a file that is not there, in bytes.
const WORDS_MAX_BYTES: usize = 64 * 1024;
/// So many of a kind are tried.
const CANDIDATES_MAX: usize = 40;
/// Parts of names of variables whose values are nobody's business.
const SECRET: [&str; 7] = ["SECRET", "TOKEN", "PASSW", "CREDENTIAL", "API_KEY", "PRIVATE", "ACCESS_KEY"];
/// Variables that say where somebody is or what the shell does, and that no program of a pipeline is run by.
const SHELL: [&str; 10] = ["PWD", "OLDPWD", "SHLVL", "_", "TERM", "COLORTERM", "PS1", "SHELL", "LS_COLORS", "MAIL"];
/// Variables that have a dimension of their own, or lead to programs, which are looked at by themselves.
const ELSEWHERE: [&str; 24] = [
    "TZ",
    "LANG",
    "LANGUAGE",
    "HOME",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "PYTHONHASHSEED",
    "PATH",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "CONDA_DEFAULT_ENV",
    "PYENV_VERSION",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "CUDA_HOME",
    "CUDA_VISIBLE_DEVICES",
    "SSL_CERT_FILE",
    "NIX_PATH",
    "PERL_HASH_SEED",
    "PERL_PERTURB_KEYS",
    "PYTHONPATH",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONUNBUFFERED",
];

/// Variables by which `make` knows its programs. Where nobody has set them it has its own.
const PROGRAMS: [&str; 11] = ["AR", "AS", "CC", "CPP", "CXX", "FC", "LD", "LEX", "MAKE", "RM", "YACC"];

/// Returns whether a file is code by its name.
pub(super) fn is_code(path: &ProjectPath) -> bool {
    let name = String::from_utf8_lossy(path.name()).to_ascii_lowercase();
    has_ending(&name, &CODE) || BUILD.contains(&name.as_str())
}

/// Returns whether a file has settings by its name.
pub(super) fn is_settings(path: &ProjectPath) -> bool {
    has_ending(&String::from_utf8_lossy(path.name()).to_ascii_lowercase(), &SETTINGS_ENDINGS)
}

fn has_ending(name: &str, endings: &[&str]) -> bool {
    name.rsplit_once('.').is_some_and(|(_, ending)| endings.contains(&ending))
}

/// Returns the variables that may count, with the value that each has outside, if it has one.
///
/// Those of the user's environment, without what is secret, and those that the `code` of a step names; without `declared` ones.
pub(super) fn variables<'c>(
    step: &Step,
    code: impl IntoIterator<Item = &'c str>,
    ambient: &BTreeMap<String, String>,
    declared: &BTreeSet<String>,
) -> Vec<(String, Option<String>)> {
    let is_open = |name: &str| {
        let is_threads =
            name.ends_with("_NUM_THREADS") || name.ends_with("_MAXIMUM_THREADS") || name.ends_with("_MAX_THREADS");
        let is_locale = name.starts_with("LC_");
        let is_ours = name.starts_with("PV_") || name.starts_with("CARGO") || name.starts_with("RUST");
        !(is_threads
            || is_locale
            || is_ours
            || ELSEWHERE.contains(&name)
            || SHELL.contains(&name)
            || declared.contains(name))
    };
    let is_secret = |name: &str| SECRET.iter().any(|part| name.to_ascii_uppercase().contains(part));
    let mut named = BTreeSet::new();
    if let Run::Shell(text) = &step.run {
        named.extend(in_shell(text));
    }
    for text in code {
        named.extend(in_code(text));
    }
    let is_default = |name: &str| PROGRAMS.contains(&name) && !ambient.contains_key(name);
    let counts = |name: &String| is_open(name) && !is_default(name);
    let of_code: Vec<String> = named.into_iter().filter(counts).take(CANDIDATES_MAX).collect();
    let of_user = ambient.keys().filter(|name| is_open(name) && !is_secret(name) && !of_code.contains(name));
    let of_user: Vec<String> = of_user.take(CANDIDATES_MAX).cloned().collect();
    let own = |name: String| {
        let value = ambient.get(&name).filter(|_| !is_secret(&name)).cloned();
        (name, value)
    };
    of_code.into_iter().chain(of_user).map(own).collect()
}

/// Returns those of the paths that a step looked for in vain which may be there elsewhere and count; with each comes the program
/// that looked first. `read` is what it did read.
pub(super) fn missing(
    missed: &BTreeMap<ProjectPath, String>,
    read: &BTreeSet<ProjectPath>,
    step: &Step,
) -> Vec<ProjectPath> {
    let own: Vec<&ProjectPath> = step.written().chain(&step.keep).collect();
    let is_open = |(path, by): &(&ProjectPath, &String)| {
        let parts: Vec<&[u8]> = path.as_bytes().split(|byte| *byte == b'/').collect();
        let is_hidden = parts.iter().any(|part| part.starts_with(b".") && *part != SETTINGS);
        let is_probed = parts.iter().any(|part| PROBED.iter().any(|name| name.as_bytes() == *part));
        let is_own = own.iter().any(|own| own.overlaps(path));
        // A module is looked for without an ending first, as `require("./helper")` names it.
        let is_module = read.iter().any(|other| {
            let rest = other.as_bytes().strip_prefix(path.as_bytes());
            is_code(other) && rest.is_some_and(|rest| rest.starts_with(b".") || rest.starts_with(b"/index."))
        });
        let is_built = TOOLS.contains(&by.as_str()) || parts.last().is_some_and(|name| is_part_of_a_program(name));
        // What lies below something that is not there is not there either.
        let is_below = missed.keys().any(|other| other != *path && path.is_within(other));
        !(is_hidden || is_probed || is_own || is_module || is_built || is_below || is_code(path))
    };
    missed.iter().filter(is_open).take(CANDIDATES_MAX).map(|(path, _)| path.clone()).collect()
}

/// Returns the one of `others` whose name is most like that of `path`: it has the same ending, and begins with as much as can be.
pub(super) fn alike<'o>(
    path: &ProjectPath,
    others: impl IntoIterator<Item = &'o ProjectPath>,
) -> Option<&'o ProjectPath> {
    let ending = |path: &ProjectPath| path.name().rsplit(|byte| *byte == b'.').next().map(<[u8]>::to_vec);
    let shared = |other: &&ProjectPath| {
        path.as_bytes().iter().zip(other.as_bytes()).take_while(|(one, other)| one == other).count()
    };
    let has_ending = path.name().contains(&b'.');
    others.into_iter().filter(|other| has_ending && ending(other) == ending(path)).max_by_key(shared)
}

/// Returns whether a file is a library or an object by its name.
fn is_part_of_a_program(name: &[u8]) -> bool {
    let name = String::from_utf8_lossy(name);
    name.contains(".so.")
        || name.starts_with("lib") && name.contains(".so")
        || name.ends_with(".a")
        || name.ends_with(".o")
}

/// Returns the words in texts, each once and in a line of its own, in the order in which they come.
pub(super) fn words<'t>(texts: impl IntoIterator<Item = &'t str>) -> String {
    let is_between = |character: char| !(character.is_alphanumeric() || "_-.".contains(character));
    let mut seen = BTreeSet::new();
    let mut words = String::new();
    for word in texts.into_iter().flat_map(|text| text.split(is_between)) {
        if words.len() < WORDS_MAX_BYTES && !word.is_empty() && seen.insert(word) {
            words.push_str(word);
            words.push('\n');
        }
    }
    words
}

/// Returns the variables that a text of code names.
fn in_code(text: &str) -> BTreeSet<String> {
    let first = text.lines().next().unwrap_or_default();
    let is_shell = first.starts_with("#!") && first.contains("sh");
    let mut named = BTreeSet::new();
    for (place, _) in ["environ", "getenv", "process.env", "ENV", "env::var", "secure_getenv"]
        .iter()
        .flat_map(|word| text.match_indices(word).map(|(at, word)| (at + word.len(), word)))
    {
        let rest: String = text[place..].chars().take(80).collect();
        named.extend(after(&rest));
    }
    // Whoever has given the environment a shorter name.
    if text.contains("environ") || text.contains("process") {
        for (place, word) in text.match_indices("env") {
            if !text[..place].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
                let rest: String = text[place + word.len()..].chars().take(80).collect();
                named.extend(after(&rest));
            }
        }
    }
    let looks_like_shell = is_shell || text.contains("\nfi") || text.contains("${") || text.contains("$(");
    if looks_like_shell || !(text.contains("import ") || text.contains("def ") || text.contains("function")) {
        named.extend(in_shell(text));
    }
    named
}

/// Returns the name that follows a word by which the environment is asked: `["X"]`, `.get('X'`, `.X`, `{X}`, `("X"`.
fn after(rest: &str) -> Option<String> {
    let rest = rest.strip_prefix("_os").unwrap_or(rest).trim_start();
    let rest = [".get", ".pop", ".setdefault", "b"].iter().find_map(|word| rest.strip_prefix(word)).unwrap_or(rest);
    let rest = rest.trim_start();
    let quoted = rest.strip_prefix(['[', '(', '{', '.'])?.trim_start();
    let quoted = quoted.strip_prefix(['"', '\'', '`']).unwrap_or(quoted);
    let name: String =
        quoted.chars().take_while(|character| character.is_ascii_alphanumeric() || *character == '_').collect();
    Some(name).filter(|name| is_name(name) && name.chars().any(|character| character.is_ascii_uppercase()))
}

/// Returns the variables that a text for a shell uses and does not set.
fn in_shell(text: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (at, _) in text.match_indices('$') {
        // In the files of `make` names stand in parentheses.
        let rest = text[at + 1..].trim_start_matches(['{', '(']);
        let is_command = text[at + 1..].starts_with('(');
        let name: String =
            rest.chars().take_while(|character| character.is_ascii_alphanumeric() || *character == '_').collect();
        if is_name(&name) {
            let after = &rest[name.len()..];
            let has_default = !is_command && after.starts_with([':', '-', '=']);
            let is_name_alone = !is_command || after.starts_with(')') && name.chars().all(|one| !one.is_lowercase());
            if is_name_alone && (has_default || !is_set(text, &name)) {
                used.insert(name);
            }
        }
    }
    used
}

fn is_set(text: &str, name: &str) -> bool {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    text.split(['\n', ';', '&', '|', '(']).any(|line| {
        let words = words(line);
        words.iter().any(|word| word.strip_prefix(name).is_some_and(|rest| rest.starts_with(['=', '+'])))
            || words
                .windows(2)
                .any(|pair| matches!(pair[0].as_str(), "for" | "read" | "local" | "declare" | "-r") && pair[1] == name)
    })
}

fn is_name(name: &str) -> bool {
    name.len() > 1 && name.chars().next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_found_in_every_language_by_how_each_asks_for_them() {
        let of = |text: &str| in_code(text).into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(
            of("import os\nx = os.environ['DATA_DIR']\ny = os.environ.get(\"MODE\", 'a')\nz = os.getenv('LEVEL')\n"),
            "DATA_DIR LEVEL MODE"
        );
        assert_eq!(of("const a = process.env.RATE; const b = process.env['MODE'];function f() {}"), "MODE RATE");
        assert_eq!(of("const { env } = process; const k = env.TOP_K ?? 5; function f() {}"), "TOP_K");
        assert_eq!(of("import os\nenv = os.environ\nx = env.get('SIDE', 1)\n"), "SIDE");
        assert_eq!(of("x <- Sys.getenv(\"DEPTH\", \"3\")\nfunction(x) x"), "DEPTH");
        assert_eq!(of("print $ENV{'WIDTH'}, $ENV{HEIGHT}; function"), "HEIGHT WIDTH");
        assert_eq!(of("int main() { char *x = getenv(\"LIMIT\"); } // function"), "LIMIT");
        assert_eq!(
            of(
                "#!/bin/sh\nk=$(cat x)\nawk -v t=${THRESHOLD:-50} -v k=$k '$2>t' in\nfor name in a; do echo $name $OTHER; done"
            ),
            "OTHER THRESHOLD"
        );
    }

    #[test]
    fn what_overrides_another_file_is_like_that_one() {
        let path = |text: &str| ProjectPath::new(text).unwrap();
        let read = [path("data/a.csv"), path("conf.json"), path("config.json"), path("step.py")];
        assert_eq!(alike(&path("config.local.json"), &read), Some(&read[2]));
        assert_eq!(alike(&path("flag"), &read), None);
    }

    #[test]
    fn only_what_may_be_there_elsewhere_is_looked_for() {
        let path = |text: &str| ProjectPath::new(text).unwrap();
        let step = crate::pipeline::read(b"steps:\n  s:\n    run: x\n    inputs: []\n    outputs: [out/a.txt]\n", "p")
            .unwrap()
            .pipeline
            .steps
            .remove(0);
        let all = [
            "settings.ini",
            ".env",
            ".Rprofile",
            "helper.py",
            "out/a.txt",
            "out",
            "node_modules/x",
            "cfg",
            "cfg/a.json",
            "lib/csv",
            "lib/Exporter.pmc",
        ];
        let read = BTreeSet::from([path("lib/csv.js")]);
        let missed = all
            .iter()
            .map(|text| (path(text), "python3".to_owned()))
            .chain([(path("physics.h"), "cc1".to_owned())])
            .collect();
        assert_eq!(missing(&missed, &read, &step), [path(".env"), path("cfg"), path("settings.ini")]);
    }
}
