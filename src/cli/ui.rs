//! The terminal: where things are printed, in which colour, and how progress looks.

mod running;

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

pub(super) use running::Running;

use super::fail::CliError;
use crate::host::Stopwatch;

/// Nothing moves on the terminal before this.
const PROGRESS_AFTER: Duration = Duration::from_millis(300);

/// Red, for what is wrong.
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
/// Green, for what is right.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// Yellow, for what differs.
pub(super) const NOTE: Style = AnsiColor::Yellow.on_default();
/// Bold, for names.
pub(super) const NAME: Style = Style::new().bold();
/// Faint, for what may be skipped.
pub(super) const FAINT: Style = Style::new().dimmed();

/// Returns `text` in `style`; the streams take the colour out where there is no terminal.
pub(super) fn paint(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Where a command prints.
pub(super) struct Ui {
    /// Whether the answer is one JSON object.
    pub(super) json: bool,
    quiet: bool,
    /// Whether an answer was given: there is never more than one JSON object.
    answered: bool,
}

impl Ui {
    pub(super) fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet, answered: false }
    }

    /// Returns whether nothing is to be said on the way.
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Prints the answer: as text, or as one JSON object.
    pub(super) fn show(&mut self, answer: &(impl Display + Serialize)) -> Result<(), CliError> {
        let text = if self.json {
            serde_json::to_string_pretty(answer).expect("answers have text keys only") + "\n"
        } else {
            answer.to_string()
        };
        self.out(&text)
    }

    /// Prints a part of the answer. A reader who has seen enough and closed the pipe is no error.
    pub(super) fn out(&mut self, text: &str) -> Result<(), CliError> {
        self.answered = true;
        let mut stream = anstream::stdout().lock();
        match stream.write_all(text.as_bytes()).and_then(|()| stream.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(CliError::closed_pipe()),
            Err(error) => Err(CliError::output(error)),
            Ok(()) => Ok(()),
        }
    }

    /// Prints raw bytes as the answer: the content of a file.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        let mut stream = io::stdout().lock();
        match stream.write_all(bytes).and_then(|()| stream.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(CliError::closed_pipe()),
            Err(error) => Err(CliError::output(error)),
            Ok(()) => Ok(()),
        }
    }

    /// Says something on the way, on standard error.
    pub(super) fn say(&self, text: impl Display) {
        if !self.quiet {
            self.warn(text);
        }
    }

    /// Says something on the way that even the quiet want to know.
    pub(super) fn warn(&self, text: impl Display) {
        // A closed standard error is no reason to stop.
        let line = format!("{text}\n");
        let _ = anstream::stderr().lock().write_all(line.as_bytes());
    }

    /// Returns a progress bar for work counted in files and bytes.
    pub(super) fn progress(&self, what: &'static str) -> Progress {
        self.progress_of(what, "files")
    }

    /// Returns a progress bar for work counted in things of this name and bytes.
    pub(super) fn progress_of(&self, what: &'static str, things: &'static str) -> Progress {
        let visible = !self.quiet && io::stderr().is_terminal();
        Progress { what, things, visible, files: AtomicU64::new(0), since: Stopwatch::start(), bar: Mutex::new(None) }
    }

    /// Returns a progress bar for so many bytes on their way.
    pub(super) fn transfer(&self, what: &'static str, total_bytes: u64) -> Transfer {
        let visible = !self.quiet && io::stderr().is_terminal();
        Transfer {
            what,
            total_bytes,
            visible,
            moved: AtomicU64::new(0),
            since: Stopwatch::start(),
            bar: Mutex::new(None),
        }
    }

    /// Returns the view of the steps that run.
    pub(super) fn running(&self) -> Running {
        Running::new(!self.quiet && io::stderr().is_terminal())
    }

    /// Prints what went wrong, and returns the exit code.
    pub(super) fn fail(&mut self, error: &CliError) -> ExitCode {
        if let Some(text) = error.text(io::stderr().is_terminal()) {
            self.warn(text.trim_end());
        }
        if self.json
            && let Some(object) = error.json()
        {
            let _ = self.out(&(object.to_string() + "\n"));
        }
        ExitCode::from(error.code())
    }
}

/// Files, or other things, and bytes done so far, drawn on a terminal once the work takes a while.
pub(super) struct Progress {
    what: &'static str,
    things: &'static str,
    visible: bool,
    files: AtomicU64,
    since: Stopwatch,
    bar: Mutex<Option<ProgressBar>>,
}

impl Progress {
    /// Counts what was done, and always wants more. May be called from several threads.
    pub(super) fn count(&self, files: u64, bytes: u64) -> bool {
        let files = self.files.fetch_add(files, Ordering::Relaxed) + files;
        // A thread that finds the bar busy need not wait to draw.
        if self.visible
            && let Ok(mut bar) = self.bar.try_lock()
        {
            self.draw(&mut bar, files, bytes);
        }
        true
    }

    fn draw(&self, bar: &mut Option<ProgressBar>, files: u64, bytes: u64) {
        if bar.is_none() && self.since.elapsed() >= PROGRESS_AFTER {
            let style = ProgressStyle::with_template("{prefix} {msg} {bytes} {bytes_per_sec}")
                .expect("the template is a constant");
            let new = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style);
            *bar = Some(new.with_prefix(self.what));
        }
        if let Some(bar) = bar {
            bar.set_message(format!("{files} {}", self.things));
            bar.inc(bytes);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Ok(mut bar) = self.bar.lock()
            && let Some(bar) = bar.take()
        {
            bar.finish_and_clear();
        }
    }
}

/// Bytes on their way, with their rate and the time that is left, drawn on a terminal once it takes a while.
pub(super) struct Transfer {
    what: &'static str,
    total_bytes: u64,
    visible: bool,
    moved: AtomicU64,
    since: Stopwatch,
    bar: Mutex<Option<ProgressBar>>,
}

impl Transfer {
    /// Counts bytes that have gone, and always wants more. May be called from several threads.
    pub(super) fn add(&self, bytes: u64) -> bool {
        let moved = self.moved.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if self.visible
            && let Ok(mut bar) = self.bar.try_lock()
        {
            if bar.is_none() && self.since.elapsed() >= PROGRESS_AFTER {
                let template = "{prefix} {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left";
                let style = ProgressStyle::with_template(template).expect("the template is a constant");
                let target = ProgressDrawTarget::stderr();
                let new = ProgressBar::with_draw_target(Some(self.total_bytes), target).with_style(style);
                *bar = Some(new.with_prefix(self.what));
            }
            if let Some(bar) = &*bar {
                // What is sent a second time after a failure does not make it more than all.
                bar.set_position(moved.min(self.total_bytes));
            }
        }
        true
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if let Ok(mut bar) = self.bar.lock()
            && let Some(bar) = bar.take()
        {
            bar.finish_and_clear();
        }
    }
}
