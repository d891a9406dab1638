//! `pv shell`: look around where a step has failed.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Global;
use super::fail::CliError;
use super::open;
use super::ui::{FAINT, NAME, Ui, paint};
use crate::exec::{Command, End, ExecError};
use crate::host;
use crate::object::SnapshotId;
use crate::pipeline::Run;
use crate::run::{Kept, RunError, kept};

/// The shell that every system has.
const SHELL: &str = "/bin/sh";
/// As shells say that a program is none, or is not there.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
/// As shells say that a signal has ended a program, plus its number.
const SIGNALLED: i32 = 128;

/// Open a shell where a step has failed, with all that it had and had written
///
/// The shell is in the step's directory and sees what the step saw: the files of the snapshot that was run, what the
/// steps before it wrote, what it had written itself. It has the same namespaces and exactly the step's
/// variables, and besides: `PV_SHELL` (the step's name), `TERM`, and in an interactive shell the prompt `PS1`. What you change
/// stays there: it reaches neither the working tree nor the store, and the next run of the step begins without it.
///
/// The shell is the one that `SHELL` names, else `/bin/sh`; it reads no startup files of yours, which would change the
/// variables. With `-- COMMAND` that is executed instead. With `--json` nothing is executed: the answer says what would be entered.
///
/// Exit codes: that of the shell or the command, 128 plus the number of the signal that ended it, 126 or 127 if the command
/// cannot be executed or is not found, 2 if nothing is kept of the step or another `pv shell` is in it.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The step that failed
    step: String,
    /// What to execute instead of a shell
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(super) fn run(ui: &mut Ui, global: &Global, args: &Args) -> Result<u8, CliError> {
    if ui.json && !args.command.is_empty() {
        return Err(CliError::usage("with `--json` nothing is executed").hint("leave out the command, or `--json`"));
    }
    let project = open::project(ui, global)?;
    let kept = kept(&project.places(), &project.pipeline, &args.step)?;
    if ui.json {
        ui.show(&Answer::of(&kept))?;
        return Ok(0);
    }
    let entered = kept.enter(&project.store)?;
    let mut additions = BTreeMap::from([("PV_SHELL".to_owned(), kept.step().to_owned())]);
    additions.extend(host::variable("TERM").map(|terminal| ("TERM".to_owned(), terminal)));
    let command = if args.command.is_empty() {
        ui.say(Answer::of(&kept));
        let (words, prompt) = shell(host::variable("SHELL"), kept.step());
        additions.insert("PS1".to_owned(), prompt);
        words
    } else {
        args.command.clone()
    };
    match entered.execute(&Command::Direct(command), &additions) {
        Ok(end) => Ok(code(end)),
        Err(error @ RunError::Exec(ExecError::NotFound { .. })) => Err(CliError::from(error).exit(NOT_FOUND)),
        Err(error @ RunError::Exec(ExecError::NotExecutable { .. })) => Err(CliError::from(error).exit(NOT_EXECUTABLE)),
        Err(error) => Err(error.into()),
    }
}

/// Returns the shell that is started, given what `SHELL` names, and its prompt.
fn shell(wanted: Option<String>, step: &str) -> (Vec<String>, String) {
    let path = wanted.filter(|path| path.starts_with('/') && Path::new(path).is_file());
    let path = path.unwrap_or_else(|| SHELL.to_owned());
    let name = Path::new(&path).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (options, place): (&[&str], _) = match name.as_str() {
        "bash" => (&["--noprofile", "--norc"], "\\w \\$ "),
        "zsh" => (&["-f"], "%~ %# "),
        "fish" => (&["--no-config"], ""),
        _ => (&[], "$ "),
    };
    // In a prompt of zsh this character begins something else.
    let step = if name == "zsh" { step.replace('%', "%%") } else { step.to_owned() };
    let words = std::iter::once(path.as_str()).chain(options.iter().copied()).map(str::to_owned).collect();
    (words, format!("(pv {step}) {place}"))
}

fn code(end: End) -> u8 {
    let code = match end {
        End::Exited(code) => code,
        End::Signalled(signal) => SIGNALLED + signal,
        End::TimedOut | End::Interrupted => SIGNALLED,
    };
    u8::try_from(code).unwrap_or(u8::MAX)
}

#[derive(Serialize)]
struct Answer<'a> {
    step: &'a str,
    snapshot: SnapshotId,
    how: &'a str,
    command: &'a Run,
    /// Where the shell begins, as it sees it.
    directory: PathBuf,
    /// Where what the step wrote lies on this machine.
    wrote: PathBuf,
    isolated: bool,
    variables: &'a BTreeMap<String, String>,
}

impl<'a> Answer<'a> {
    fn of(kept: &'a Kept) -> Self {
        Self {
            step: kept.step(),
            snapshot: kept.snapshot(),
            how: kept.how(),
            command: kept.run(),
            directory: kept.directory(),
            wrote: kept.wrote(),
            isolated: kept.is_isolated(),
            variables: kept.variables(),
        }
    }
}

impl fmt::Display for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = paint(NAME, self.step);
        writeln!(f, "`{step}` of snapshot {} failed: {}", self.snapshot.short(), self.how)?;
        let command = match self.command {
            Run::Shell(line) => line.clone(),
            Run::Program(words) => words.join(" "),
        };
        for line in command.lines() {
            writeln!(f, "  {line}")?;
        }
        let text = "what you change here reaches neither the working tree nor the store; `exit` leaves";
        write!(f, "{}", paint(FAINT, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shell_of_the_user_is_started_without_its_settings_and_else_the_one_that_is_everywhere() {
        let words = |wanted: Option<&str>| shell(wanted.map(str::to_owned), "fit").0.join(" ");
        assert_eq!(words(None), "/bin/sh");
        assert_eq!(words(Some("sh")), "/bin/sh", "it is no path");
        assert_eq!(words(Some("/no/such/bash")), "/bin/sh");
        assert_eq!(words(Some("/bin/bash")), "/bin/bash --noprofile --norc");
        assert_eq!(shell(None, "fit").1, "(pv fit) $ ");
    }

    #[test]
    fn an_end_has_the_code_that_shells_give_it() {
        assert_eq!([End::Exited(0), End::Exited(7), End::Signalled(9)].map(code), [0, 7, 137]);
    }
}
