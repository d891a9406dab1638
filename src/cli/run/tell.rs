//! Saying what happens in a run while it happens.

use crate::cli::DEFAULT_PIPELINE;
use crate::cli::answer::seconds;
use crate::cli::fail::{CliError, obstacle_hint};
use crate::cli::ui::{BAD, FAINT, GOOD, NAME, NOTE, Running, Ui, paint};
use crate::record::StepVerdict;
use crate::run::{Event, StepDone};

/// Tells of the events of one run. The lines of the steps are the answer; the rest goes to standard error.
///
/// On a terminal there is one line for each step that runs, with what it
/// printed last; elsewhere everything that a step prints is passed on.
pub(super) struct Teller<'a> {
    ui: &'a mut Ui,
    running: Running,
    /// What commands about a step of this pipeline begin with.
    about: String,
}

impl<'a> Teller<'a> {
    pub(super) fn new(ui: &'a mut Ui, pipeline: &str) -> Self {
        let running = ui.running();
        let about = if pipeline == DEFAULT_PIPELINE { "pv".to_owned() } else { format!("pv --pipeline {pipeline}") };
        Self { ui, running, about }
    }

    /// Tells of one event.
    ///
    /// # Errors
    ///
    /// [`CliError`] if the answer cannot be printed.
    pub(super) fn tell(&mut self, event: &Event<'_>) -> Result<(), CliError> {
        match event {
            Event::Reached { step, description } => {
                let description = description.map(|text| format!(" - {text}")).unwrap_or_default();
                let ui = &mut *self.ui;
                return self
                    .running
                    .beside(|| if ui.json { Ok(()) } else { ui.out(&format!("Step: {step}{description}\n")) });
            }
            Event::Started { step, reason } => {
                self.say(paint(FAINT, format!("{step}: runs, {reason}")));
                self.running.begin(step);
            }
            Event::TooEarly { step, others } => {
                self.running.end(step);
                let others: Vec<_> = others.iter().map(|other| format!("`{other}`")).collect();
                self.say(format!("{step}: looked for what {} writes, runs again after that", others.join(", ")));
            }
            Event::Contradiction { step, key, outputs } => {
                let outputs: Vec<_> = outputs.iter().map(|output| format!("`{}`", output.path)).collect();
                let text = format!(
                    "{} step `{step}` depended on the same as before (key {}), yet wrote another {}; both are kept",
                    paint(NOTE, "warning:"),
                    key.short(),
                    outputs.join(", ")
                );
                self.running.beside(|| self.ui.warn(text));
            }
            Event::NotIsolated { why } => {
                let text = format!("{} steps are not isolated here: {why}", paint(NOTE, "warning:"));
                let hint = obstacle_hint(why).map(|hint| format!("{} {hint}", paint(GOOD, "hint:")));
                self.running.beside(|| std::iter::once(text).chain(hint).for_each(|line| self.ui.warn(line)));
            }
            Event::Waiting { step } => self.say(format!("{step}: waits for another run that executes it")),
            Event::WaitingForLock { step, lock } => {
                self.say(format!("{step}: waits for the lock `{lock}`, which another run has"));
            }
            Event::NotBounded { step, why } => self.say(format!("{step}: its memory cannot be bounded here: {why}")),
            Event::Retrying { step, attempt, attempts_max, failure } => {
                self.running.end(step);
                let how = &failure.how;
                self.say(format!("{step}: attempt {attempt} of {attempts_max} failed: {how}; it is tried again"));
            }
            Event::Line { step, line } => {
                let line = String::from_utf8_lossy(line);
                if !self.running.printed(step, &line) {
                    self.say(format!("{} {line}", paint(FAINT, format!("{step} |"))));
                }
            }
            Event::Finished(done) => self.finished(done),
        }
        Ok(())
    }

    fn finished(&mut self, done: &StepDone) {
        self.running.end(&done.step);
        let attempts = if done.attempts > 1 { format!(" at attempt {}", done.attempts) } else { String::new() };
        let resumed = if done.resumed { ", resumed" } else { "" };
        match (done.verdict, &done.failure) {
            (StepVerdict::Reused, _) => self.say(paint(FAINT, format!("{}: reused, {}", done.step, done.reason))),
            (_, Some(failure)) => {
                let attempts =
                    if done.attempts > 1 { format!(" in {} attempts", done.attempts) } else { String::new() };
                let how = &failure.how;
                let (ui, about) = (&*self.ui, &self.about);
                self.running.beside(|| {
                    ui.warn(format!("{} step `{}` failed{attempts}: {how}", paint(BAD, "error:"), done.step));
                    ui.warn(format!("  what it wrote is kept: {}", failure.kept.display()));
                    ui.warn(format!("  look around in it: {about} shell {}", done.step));
                    for hint in &failure.hints {
                        let place = hint.step().map_or("at the top".to_owned(), |step| format!("to step `{step}`"));
                        ui.warn(format!("  it looked in vain: {hint}"));
                        ui.warn(format!("    add {place}: {}", paint(NAME, hint.line())));
                    }
                });
            }
            (StepVerdict::Skipped, _) => self.say(format!("{}: {}", done.step, done.reason)),
            _ => self.say(paint(FAINT, format!("{}: done in {}{attempts}{resumed}", done.step, seconds(done.elapsed)))),
        }
        if !done.talked.is_empty() {
            let (ui, peers) = (&*self.ui, done.talked.join(", "));
            self.running.beside(|| {
                ui.warn(format!(
                    "{} step `{}` talked to {peers}; its result is not reused",
                    paint(NOTE, "warning:"),
                    done.step
                ));
                ui.warn("  if that is meant, add to it: network: true".to_owned());
            });
        }
    }

    fn say(&self, text: impl std::fmt::Display) {
        self.running.beside(|| self.ui.say(text));
    }
}
