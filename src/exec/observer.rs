//! Observing a job while it runs, by the best means that there is.

#[cfg(target_os = "linux")]
use std::os::fd::OwnedFd;
#[cfg(target_os = "linux")]
use std::sync::Arc;
#[cfg(target_os = "linux")]
use std::thread::Scope;

#[cfg(target_os = "linux")]
use super::answers::Answers;
#[cfg(target_os = "linux")]
use super::kin::Kin;
#[cfg(target_os = "linux")]
use super::line;
#[cfg(target_os = "linux")]
use super::listener::Reporter;
use super::observation::{Observation, Rung};
#[cfg(target_os = "linux")]
use super::threads::Threads;
#[cfg(target_os = "linux")]
use super::tracer::Tracer;
#[cfg(target_os = "linux")]
use super::witness::Witness;
#[cfg(target_os = "linux")]
use super::{ExecError, Job, Unpinned};

/// Whoever sees what a job does. Its job must be over, or be ended, before this is dropped.
pub(super) struct Observer<'scope> {
    isolated: bool,
    means: Means<'scope>,
    /// Who follows who starts whom, if that is needed.
    #[cfg(target_os = "linux")]
    kin: Option<Kin<'scope>>,
    /// Where its connections lead, if not to whom it means.
    #[cfg(target_os = "linux")]
    line: Option<line::Owner>,
    /// Whether its entropy is pinned.
    #[cfg(target_os = "linux")]
    pinned: bool,
}

enum Means<'scope> {
    #[cfg(target_os = "linux")]
    Notify(Reporter<'scope>),
    #[cfg(target_os = "linux")]
    Ptrace(Tracer<'scope>),
    None(std::marker::PhantomData<&'scope ()>),
}

/// Returns how a job is observed, given whether the kernel would report to us.
///
/// Tracing is for isolated jobs alone: elsewhere we are the parent of the processes, and would take note of their ends twice.
#[cfg(target_os = "linux")]
fn choose(is_wanted: bool, is_reported: bool, isolated: bool) -> Rung {
    match (is_wanted, is_reported, isolated) {
        (true, true, _) => Rung::Notify,
        (true, false, true) => Rung::Ptrace,
        _ => Rung::None,
    }
}

impl<'scope> Observer<'scope> {
    /// Returns who observes the job that has just been started as process `command`, by threads of `scope`.
    ///
    /// # Errors
    ///
    /// [`ExecError::Start`] if the job's reports cannot be taken, [`ExecError::NotPinned`] if something was to be
    /// pinned and cannot be. It must not go on then.
    #[cfg(target_os = "linux")]
    pub(super) fn new(
        job: &Job<'scope>,
        command: i32,
        listener: Result<OwnedFd, i32>,
        scope: &'scope Scope<'scope, '_>,
    ) -> Result<Self, ExecError> {
        let isolated = job.world.is_some();
        let mut kin = None;
        let mut answers = None;
        let mut line = None;
        let failed = |source| ExecError::Start { program: job.command.program().to_owned(), source };
        if let Some(pins) = job.pins {
            if !isolated {
                return Err(ExecError::NotPinned(Unpinned::InTheOpen));
            }
            if pins.needs_reports() && listener.is_err() {
                return Err(ExecError::NotPinned(Unpinned::Unreported));
            }
            let threads = Arc::new(Threads::new(command));
            if pins.needs_kin() {
                let untraced = |error| ExecError::NotPinned(Unpinned::Untraced(error));
                kin = Some(Kin::attach(command, pins, &threads, scope).map_err(untraced)?);
            }
            if job.world.is_some_and(|world| !world.offline) {
                line = line::Owner::new(&pins.network).map_err(failed)?;
            }
            answers = Some(Answers::new(pins, &threads)).filter(|_| pins.needs_reports());
        }
        let witness = || Witness::new(isolated, job.permission);
        let means = match (choose(job.observe, listener.is_ok(), isolated), listener) {
            (Rung::Notify, Ok(descriptor)) => {
                // A world ends with its init; elsewhere somebody may get away, and does not end.
                let line = line.as_ref().map(|line: &line::Owner| Arc::clone(&line.0));
                Means::Notify(Reporter::start(descriptor, witness(), isolated, answers, line, scope).map_err(failed)?)
            }
            // Whoever is traced already, or may not be, is not observed.
            (Rung::Ptrace, _) => {
                Tracer::attach(command, witness(), scope).map_or(Means::None(std::marker::PhantomData), Means::Ptrace)
            }
            _ => Means::None(std::marker::PhantomData),
        };
        Ok(Self { isolated, means, kin, line, pinned: job.pins.is_some_and(|pins| pins.entropy.is_some()) })
    }

    /// Returns one that sees nothing.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn nobody() -> Self {
        Self { isolated: false, means: Means::None(std::marker::PhantomData) }
    }

    /// Returns what was seen of the job, which is over.
    pub(super) fn finish(self) -> Observation {
        let seen = match self.means {
            #[cfg(target_os = "linux")]
            Means::Notify(reporter) => reporter.finish(),
            #[cfg(target_os = "linux")]
            Means::Ptrace(tracer) => tracer.finish(),
            Means::None(_) => None,
        };
        let seen = seen.unwrap_or_else(|| Observation { isolated: self.isolated, ..Observation::default() });
        #[cfg(target_os = "linux")]
        let seen = match self.line {
            None => seen,
            Some(line) => Observation { anew: line.finish(), ..seen },
        };
        #[cfg(target_os = "linux")]
        let seen = match self.kin.map(Kin::finish) {
            None => seen,
            Some(followed) => Observation {
                pinned: self.pinned && followed.is_whole,
                started: Some(followed.started),
                processor_draws: followed.processor_draws,
                counts_cycles: followed.counts_cycles,
                ..seen
            },
        };
        seen
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_best_means_that_there_is_is_taken_and_none_where_nobody_asked() {
        assert_eq!(choose(true, true, true), Rung::Notify);
        assert_eq!(choose(true, true, false), Rung::Notify);
        assert_eq!(choose(true, false, true), Rung::Ptrace);
        assert_eq!(choose(true, false, false), Rung::None);
        assert_eq!(choose(false, false, true), Rung::None);
    }
}
