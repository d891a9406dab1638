//! Providing the Python environments that steps run in, before they do.

use crate::cli::fail::CliError;
use crate::cli::ui::{FAINT, Running, Ui, paint};
use crate::environment::{Held, Making, PythonError};
use crate::exec::Stop;
use crate::pipeline::Pipeline;
use crate::project::Project;
use crate::run::{Selection, pythons, wanted};
use crate::snapshot::View;

/// The environments of steps, there for as long as this is alive.
pub(in crate::cli) struct Provided {
    /// What tells that the user asked to stop, if it had to be asked: from then on a signal does not end this program.
    pub(in crate::cli) stop: Option<Stop>,
    _pythons: Vec<Held>,
}

/// Makes the environments of the steps that are told of that are not there yet, and holds all of them.
///
/// # Errors
///
/// [`CliError`] if one cannot be made, and then nothing runs.
pub(in crate::cli) fn provide(
    ui: &Ui,
    project: &Project,
    pipeline: &Pipeline,
    selection: &Selection,
    view: &View<'_>,
    offline: bool,
) -> Result<Provided, CliError> {
    let base = project.python_environments();
    let (mut stop, mut held) = (None, Vec::new());
    for python in pythons(pipeline, &|index| selection.is_told(index)) {
        let wanted = wanted(view, python)?.ok_or_else(|| PythonError::NoLock { lock: python.lock.clone() })?;
        if let Some(there) = wanted.hold(&base)? {
            held.push(there);
            continue;
        }
        let stop = match &mut stop {
            Some(stop) => stop,
            none => none.insert(stop_on_signals()?),
        };
        let name = format!("Python {}", python.version);
        let mut telling = Telling::new(ui, &name, format!("makes the environment of `{}`, once", python.lock));
        let made = wanted.provide(&base, offline, &mut |making| telling.tell(making), stop);
        held.push(telling.end(made)?);
    }
    Ok(Provided { stop, _pythons: held })
}

/// Returns what tells that the user asked to stop.
///
/// # Errors
///
/// [`CliError`] if signals cannot be caught.
pub(in crate::cli) fn stop_on_signals() -> Result<Stop, CliError> {
    Stop::on_signals().map_err(|error| CliError::usage(format!("signals cannot be caught: {error}")))
}

/// Says what tools do that make environments and locks: on a terminal line by line, elsewhere only that they do.
pub(in crate::cli) struct Telling<'a> {
    ui: &'a Ui,
    running: Running,
    name: &'a str,
    /// What is done: `makes the environment of ...`.
    what: String,
}

impl<'a> Telling<'a> {
    pub(in crate::cli) fn new(ui: &'a Ui, name: &'a str, what: String) -> Self {
        Self { ui, running: ui.running(), name, what }
    }

    /// Tells of one thing that happens.
    pub(in crate::cli) fn tell(&mut self, making: Making<'_>) {
        let Self { ui, running, name, what } = self;
        match making {
            Making::Waiting => {
                running.beside(|| ui.say(format!("{name}: waits for another run that makes its environment")));
            }
            Making::Begun(tool) => {
                running.beside(|| ui.say(paint(FAINT, format!("{name}: {tool} {what}"))));
                running.begin(name);
            }
            // Where nobody watches, only what goes wrong is told.
            Making::Line(line) => {
                running.printed(name, line);
            }
        }
    }

    /// Says how it ended, if not well.
    ///
    /// # Errors
    ///
    /// That it did not.
    pub(in crate::cli) fn end<T>(mut self, made: Result<T, PythonError>) -> Result<T, CliError> {
        self.running.end(self.name);
        if let Err(PythonError::Tool { tool, tail, .. }) = &made
            && !tail.is_empty()
        {
            self.ui.warn(format!("the last lines of `{tool}`:"));
            tail.iter().for_each(|line| self.ui.warn(format!("  {line}")));
        }
        Ok(made?)
    }
}
