//! What the documentation shows is what happens.
//!
//! Every ```` ```console ```` block of `README.md` and `docs/*.md` is executed, page by
//! page and in order, in a copy of `fixtures/lesson`; the output must be the one
//! shown. In a block, `$ ` begins a command, `> ` continues it, `? 2` right below
//! is its exit code (0 if there is none), and the rest is what it prints.
//! `[..]` stands for a part of a line, a line `...` for any number of lines.
//! The copy is a committed Git repository, unless the page makes it one itself.
//!
//! A block is left out only with a reason in the line above: `<!-- not executed: why -->`.

#![expect(clippy::disallowed_methods, reason = "tests start programs and write files directly")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop where it stands")]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use snapbox::IntoData;

/// Fences that show commands, but are not looked into: a page must use `console`.
const OTHER_SHELLS: [&str; 7] = ["sh", "bash", "shell", "zsh", "fish", "terminal", "shell-session"];
const MARKER: &str = "<!-- not executed:";
/// A reason is a few words at least.
const REASON_MIN_CHARS: usize = 12;

#[test]
fn every_command_that_the_documentation_shows_does_what_is_shown() {
    let mut wrong = String::new();
    let mut executed = 0;
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        let name = page.strip_prefix(root()).unwrap().display().to_string();
        match sessions(&text) {
            Ok(commands) if commands.is_empty() => {}
            Ok(commands) => {
                let place = Place::new(!text.contains("$ git init"));
                executed += commands.len();
                for command in commands {
                    if let Some(difference) = place.check(&command) {
                        write!(wrong, "\n{name}:{}: $ {}\n{difference}", command.line, command.text).unwrap();
                    }
                }
            }
            Err(problem) => write!(wrong, "\n{name}:{problem}\n").unwrap(),
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(executed > 20, "only {executed} commands were found");
}

#[test]
fn a_command_that_is_shown_cannot_escape_execution_without_a_reason() {
    let refused = |page: &str| sessions(page).unwrap_err();
    assert_eq!(refused("a\n```sh\nls\n```\n"), "2: show commands in a ```console block");
    assert_eq!(refused("```\n$ ls\n```\n"), "2: show commands in a ```console block");
    assert_eq!(refused("    $ ls\n"), "1: show commands in a ```console block");
    assert_eq!(refused("```console\nls\n```\n"), "2: output without a command");
    assert_eq!(refused("```console\n```\n"), "1: this block shows no command");
    assert_eq!(refused("```console\n$ ls\n"), "1: this block has no end");
    assert_eq!(refused("<!-- not executed: -->\n```console\n$ ls\n```\n"), "2: no reason is given");
    assert_eq!(refused("<!-- not executed: because -->\n```console\n$ ls\n```\n"), "2: no reason is given");
    assert_eq!(sessions("<!-- not executed: it takes an hour -->\n```console\n$ ls\n```\n"), Ok(vec![]));
    let shown = sessions("x\n```console\n$ a \\\n> b\n? 2\nout\n$ c\n```\n").unwrap();
    let first = Shown { line: 3, text: "a \\\nb".to_owned(), code: 2, output: "out\n".to_owned() };
    assert_eq!(shown, [first, Shown { line: 7, text: "c".to_owned(), code: 0, output: String::new() }]);
}

#[test]
fn a_wrong_output_and_a_wrong_exit_code_are_found() {
    let place = Place::new(true);
    let check = |text: &str, code, output: &str| {
        place.check(&Shown { line: 1, text: text.to_owned(), code, output: output.to_owned() })
    };
    assert_eq!(check("printf 'one\\ntwo\\n'; exit 3", 3, "o[..]\ntwo\n"), None);
    assert_eq!(check("seq 9", 0, "1\n...\n9\n"), None);
    assert!(check("seq 9", 0, "1\n...\n8\n").is_some());
    assert!(check("echo one", 0, "two\n").is_some());
    assert!(check("echo one >&2", 0, "").is_some(), "standard error is shown too");
    assert!(check("false", 0, "").is_some());
    assert!(check("true", 1, "").is_some());
}

#[test]
fn this_projects_own_pipeline_is_good_and_lists_its_steps() {
    let place = Place::empty();
    for name in [
        "Cargo.toml",
        "Cargo.lock",
        "clippy.toml",
        "README.md",
        "src",
        "benches",
        "docs",
        "fixtures",
        "scripts",
        ".pipeline",
    ] {
        copy(&root().join(name), &place.directory().join(name));
    }
    place.commit();
    let plan = place.run("pv run --dry-run");
    let shown =
        ["build  ", "test   ", "measure", "page   "].map(|step| format!("run    {step}  it has not run before\n"));
    assert_eq!(plan, (0, shown.concat()));
    let (code, json) = place.run("pv --json status");
    assert_eq!(code, 0, "{json}");
    let ignored = std::fs::read_to_string(root().join(".gitignore")).unwrap();
    assert!(ignored.lines().any(|line| line == "/work/"), "its outputs are not for git");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The pages whose commands are executed.
fn pages() -> Vec<PathBuf> {
    let docs = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<_> = docs.filter(|path| path.extension().is_some_and(|ending| ending == "md")).collect();
    pages.push(root().join("README.md"));
    pages.sort();
    pages
}

/// A command as a page shows it.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    line: usize,
    text: String,
    code: i32,
    output: String,
}

/// Returns the commands of a page, or `line: what is wrong`.
fn sessions(page: &str) -> Result<Vec<Shown>, String> {
    let mut shown = Vec::new();
    let mut above = "";
    let mut lines = page.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let fence: String = line.trim_start().chars().take_while(|c| *c == '`' || *c == '~').collect();
        if fence.len() < 3 {
            if line.starts_with("    $ ") || line.starts_with("\t$ ") {
                return Err(format!("{}: show commands in a ```console block", at + 1));
            }
            above = line;
            continue;
        }
        let language = line.trim_start()[fence.len()..].trim();
        let mut block = Vec::new();
        loop {
            match lines.next() {
                Some((_, line)) if line.trim() == fence => break,
                Some((at, line)) => block.push((at + 1, line)),
                None => return Err(format!("{}: this block has no end", at + 1)),
            }
        }
        let first = block.iter().find(|(_, line)| line.trim_start().starts_with("$ "));
        if language != "console" {
            let of_a_shell = OTHER_SHELLS.contains(&language.split_whitespace().next().unwrap_or_default());
            if let Some(line) = if of_a_shell { Some(at + 1) } else { first.map(|(line, _)| *line) } {
                return Err(format!("{line}: show commands in a ```console block"));
            }
        } else if let Some(reason) = above.strip_prefix(MARKER) {
            if reason.trim_end_matches("-->").trim().len() < REASON_MIN_CHARS {
                return Err(format!("{}: no reason is given", at + 1));
            }
        } else if first.is_none() && block.is_empty() {
            return Err(format!("{}: this block shows no command", at + 1));
        } else {
            read_block(&block, &mut shown)?;
        }
        above = "";
    }
    Ok(shown)
}

fn read_block(block: &[(usize, &str)], shown: &mut Vec<Shown>) -> Result<(), String> {
    let before = shown.len();
    for (line, text) in block {
        if let Some(command) = text.strip_prefix("$ ") {
            shown.push(Shown { line: *line, text: command.to_owned(), code: 0, output: String::new() });
            continue;
        }
        let begun = shown.len() > before;
        let Some(last) = shown.last_mut().filter(|_| begun) else {
            return Err(format!("{line}: output without a command"));
        };
        if let Some(more) = text.strip_prefix("> ").filter(|_| last.output.is_empty()) {
            last.text.push('\n');
            last.text.push_str(more);
        } else if let Some(code) = text.strip_prefix("? ").filter(|_| last.output.is_empty()) {
            last.code = code.trim().parse().map_err(|_| format!("{line}: this is no exit code"))?;
        } else {
            last.output += text;
            last.output.push('\n');
        }
    }
    Ok(())
}

/// A directory in which clock, home, locale and git identity are pinned.
struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn empty() -> Self {
        let place = Self { root: tempfile::tempdir().unwrap() };
        for name in ["project", "home", "bin"] {
            std::fs::create_dir(place.root.path().join(name)).unwrap();
        }
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_pv"), place.root.path().join("bin/pv")).unwrap();
        std::fs::write(place.cwd(), place.directory().as_os_str().as_encoded_bytes()).unwrap();
        place
    }

    /// A copy of the lesson, as a git repository with one commit if `committed`.
    fn new(committed: bool) -> Self {
        let place = Self::empty();
        copy(&root().join("fixtures/lesson"), &place.directory());
        if committed {
            place.commit();
        }
        place
    }

    fn directory(&self) -> PathBuf {
        self.root.path().join("project")
    }

    fn commit(&self) {
        let done = self.run("git init --quiet && git add . && git commit --quiet --message orders");
        assert_eq!(done, (0, String::new()));
    }

    /// Remembers the directory that the last command left the shell in.
    fn cwd(&self) -> PathBuf {
        self.root.path().join("cwd")
    }

    /// Runs a command in a shell; returns its exit code, and what it printed on both streams as it came.
    fn run(&self, text: &str) -> (i32, String) {
        let path = std::env::join_paths(
            std::iter::once(self.root.path().join("bin"))
                .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
        );
        let script = format!("exec 2>&1\ntrap 'pwd >\"$DOCS_CWD\"' EXIT\n{text}\n");
        let output = Command::new("sh")
            .args(["-c", &script])
            .current_dir(std::fs::read_to_string(self.cwd()).unwrap().trim_end_matches('\n'))
            .env_clear()
            .env("PATH", path.unwrap())
            .env("DOCS_CWD", self.cwd())
            .env("HOME", self.root.path().join("home"))
            .env("TZ", "UTC")
            .env("LC_ALL", "C.UTF-8")
            .env("PV_NOW", "2026-01-31T09:30:00Z")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "init.defaultBranch")
            .env("GIT_CONFIG_VALUE_0", "main")
            .envs([("GIT_AUTHOR_NAME", "Ada"), ("GIT_AUTHOR_EMAIL", "ada@example.org")])
            .envs([("GIT_COMMITTER_NAME", "Ada"), ("GIT_COMMITTER_EMAIL", "ada@example.org")])
            .envs([("GIT_AUTHOR_DATE", "2026-01-30T08:00:00Z"), ("GIT_COMMITTER_DATE", "2026-01-30T08:00:00Z")])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs what a page shows and returns how it differs from what is shown.
    fn check(&self, shown: &Shown) -> Option<String> {
        let (code, output) = self.run(&shown.text);
        let compared = snapbox::Assert::new().palette(snapbox::report::Palette::plain()).try_eq(
            None,
            output.clone().into_data(),
            shown.output.clone().into_data(),
        );
        match compared {
            Err(difference) => Some(format!("{difference}\nexit code {code}\n")),
            Ok(()) if code != shown.code => Some(format!("exit code {code}, shown is {}\n{output}", shown.code)),
            Ok(()) => None,
        }
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry.unwrap();
        let target = match entry.path().strip_prefix(from).unwrap() {
            inner if inner.as_os_str().is_empty() => to.to_owned(),
            inner => to.join(inner),
        };
        if entry.file_type().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}
