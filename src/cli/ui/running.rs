//! One line on the terminal for each step that runs, redrawn in place.

use std::collections::BTreeMap;
use std::io;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::PROGRESS_AFTER;
use crate::host::Stopwatch;

/// How many lines of the terminal are left to what is said meanwhile.
const ROWS_LEFT: usize = 2;
/// As many lines as there are if the terminal does not tell how many it has.
const ROWS_USUAL: usize = 24;

/// The steps that run, drawn on standard error if that is a terminal.
pub(in crate::cli) struct Running {
    /// `None` where nothing is drawn.
    screen: Option<Screen>,
}

struct Screen {
    lines: MultiProgress,
    style: ProgressStyle,
    /// The steps in the order in which they began, each with its line if it has one.
    steps: BTreeMap<u64, Step>,
    begun: u64,
}

struct Step {
    name: String,
    since: Stopwatch,
    /// What it printed last, as it is shown.
    last: String,
    line: Option<ProgressBar>,
}

impl Running {
    /// Returns an empty view that draws something only if it is `visible`.
    pub(super) fn new(visible: bool) -> Self {
        let screen = || Screen {
            lines: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
            style: ProgressStyle::with_template("  {prefix:.bold}  {elapsed:.dim}  {wide_msg:.dim}")
                .expect("the template is a constant"),
            steps: BTreeMap::new(),
            begun: 0,
        };
        Self { screen: visible.then(screen) }
    }

    /// Notes that a step has begun.
    pub(in crate::cli) fn begin(&mut self, name: &str) {
        let Some(screen) = &mut self.screen else { return };
        let step = Step { name: name.to_owned(), since: Stopwatch::start(), last: String::new(), line: None };
        screen.steps.insert(screen.begun, step);
        screen.begun += 1;
        screen.fill();
    }

    /// Notes what a step printed last. Returns whether it is shown here, so that nobody else need do so.
    pub(in crate::cli) fn printed(&mut self, name: &str, line: &str) -> bool {
        let Some(screen) = &mut self.screen else { return false };
        if let Some(step) = screen.steps.values_mut().find(|step| step.name == name) {
            step.last = shown(line);
            if let Some(line) = &step.line {
                line.set_message(step.last.clone());
            }
        }
        true
    }

    /// Notes that a step has ended; its line goes to one that has none.
    pub(in crate::cli) fn end(&mut self, name: &str) {
        let Some(screen) = &mut self.screen else { return };
        let Some(begun) = screen.steps.iter().find(|(_, step)| step.name == name).map(|(begun, _)| *begun) else {
            return;
        };
        if let Some(line) = screen.steps.remove(&begun).and_then(|step| step.line) {
            line.finish_and_clear();
            screen.lines.remove(&line);
        }
        screen.fill();
    }

    /// Prints something else without mixing it with the lines.
    pub(in crate::cli) fn beside<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.screen {
            Some(screen) => screen.lines.suspend(print),
            None => print(),
        }
    }
}

impl Screen {
    /// Gives lines to the first steps, as many as there is room for.
    fn fill(&mut self) {
        let rows_max = rows().saturating_sub(ROWS_LEFT).max(1);
        for step in self.steps.values_mut().take(rows_max).filter(|step| step.line.is_none()) {
            let line = ProgressBar::new_spinner().with_style(self.style.clone()).with_elapsed(step.since.elapsed());
            let line = line.with_prefix(step.name.clone()).with_message(step.last.clone());
            let line = self.lines.add(line);
            // Draws it, and again so that the time goes on; the first time after this interval.
            line.enable_steady_tick(PROGRESS_AFTER);
            step.line = Some(line);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(screen) = &self.screen {
            // What cannot be cleared stays on a terminal that is no longer looked at.
            let _ = screen.lines.clear();
        }
    }
}

/// Returns how many lines the terminal has now.
fn rows() -> usize {
    match rustix::termios::tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_row > 0 => usize::from(size.ws_row),
        _ => ROWS_USUAL,
    }
}

/// Returns a line of a step as a terminal may be shown it: what stands behind the last carriage return, without control characters.
fn shown(line: &str) -> String {
    let line = line.trim_end_matches('\r');
    let last = line.rsplit('\r').next().unwrap_or_default();
    let mut text = String::new();
    let mut letters = last.chars();
    while let Some(letter) = letters.next() {
        if letter == '\u{1b}' {
            // A sequence for the terminal: it ends with a letter, after `[`.
            if letters.next() == Some('[') {
                letters.by_ref().find(|letter| ('@'..='~').contains(letter));
            }
        } else if letter == '\t' {
            text.push(' ');
        } else if !letter.is_control() {
            text.push(letter);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_step_prints_cannot_move_the_cursor() {
        assert_eq!(shown("epoch 1\repoch 2\r"), "epoch 2");
        assert_eq!(shown("\u{1b}[31mred\u{1b}[0m\ta\u{7}\u{1b}"), "red a");
        assert_eq!(shown("plain é"), "plain é");
    }
}
