//! Observing a job while it runs, by the best means that there is.

use std::os::fd::BorrowedFd;

#[cfg(target_os = "linux")]
use super::Job;
#[cfg(target_os = "linux")]
use super::listener::Listener;
use super::observation::{Observation, Rung};
#[cfg(target_os = "linux")]
use super::spawn::Started;
#[cfg(target_os = "linux")]
use super::tracer::Tracer;
#[cfg(target_os = "linux")]
use super::witness::Witness;

/// Whoever sees what a job does. Its job must be over, or be ended, before this is dropped.
pub(super) struct Observer<'a> {
    isolated: bool,
    means: Means<'a>,
    /// Nobody is left to be seen.
    is_closed: bool,
}

enum Means<'a> {
    #[cfg(target_os = "linux")]
    Notify(Listener, Box<Witness<'a>>),
    #[cfg(target_os = "linux")]
    Ptrace(Tracer<'a>),
    None(std::marker::PhantomData<&'a ()>),
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

impl<'a> Observer<'a> {
    /// Returns who observes the job that has just been started.
    #[cfg(target_os = "linux")]
    pub(super) fn new(job: &Job<'a>, isolated: bool, started: &mut Started) -> Self {
        let listener = std::mem::replace(&mut started.listener, Err(0));
        let witness = || Witness::new(isolated, job.permission);
        let means = match (choose(job.observe, listener.is_ok(), isolated), listener) {
            (Rung::Notify, Ok(descriptor)) => Means::Notify(Listener::new(descriptor), Box::new(witness())),
            // Whoever is traced already, or may not be, is not observed.
            (Rung::Ptrace, _) => Tracer::attach(started.command, isolated, witness())
                .map_or(Means::None(std::marker::PhantomData), Means::Ptrace),
            _ => Means::None(std::marker::PhantomData),
        };
        Self { isolated, means, is_closed: false }
    }

    /// Returns one that sees nothing.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn nobody() -> Self {
        Self { isolated: false, means: Means::None(std::marker::PhantomData), is_closed: false }
    }

    /// Returns what to poll for something to see.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.means {
            #[cfg(target_os = "linux")]
            Means::Notify(listener, _) => (!self.is_closed).then(|| listener.descriptor()),
            #[cfg(target_os = "linux")]
            Means::Ptrace(_) => None,
            Means::None(_) => None,
        }
    }

    /// Sees what there is to see.
    pub(super) fn serve(&mut self) {
        #[cfg(target_os = "linux")]
        if let Means::Notify(listener, witness) = &mut self.means {
            listener.serve(witness);
        }
    }

    /// Takes note that nobody is left to be seen, so that nothing is waited for any more.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }

    /// Returns what was seen of the job, which is over.
    pub(super) fn finish(self) -> Observation {
        match self.means {
            #[cfg(target_os = "linux")]
            Means::Notify(_, witness) => witness.finish(Rung::Notify),
            #[cfg(target_os = "linux")]
            Means::Ptrace(tracer) => tracer.finish(),
            Means::None(_) => Observation { isolated: self.isolated, ..Observation::default() },
        }
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
