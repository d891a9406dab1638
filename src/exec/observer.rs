//! Observing a job while it runs, by the best means that there is.

use std::os::fd::BorrowedFd;

use super::Job;
#[cfg(target_os = "linux")]
use super::listener::Listener;
use super::observation::{Observation, Rung};
#[cfg(target_os = "linux")]
use super::spawn::Started;
#[cfg(target_os = "linux")]
use super::witness::Witness;

/// Whoever sees what a job does.
pub(super) struct Observer<'a> {
    isolated: bool,
    #[cfg(target_os = "linux")]
    listening: Option<(Listener, Witness<'a>)>,
    #[cfg(not(target_os = "linux"))]
    nobody: std::marker::PhantomData<&'a ()>,
}

impl<'a> Observer<'a> {
    /// Returns who observes the job that has just been started.
    #[cfg(target_os = "linux")]
    pub(super) fn new(job: &Job<'a>, isolated: bool, started: &mut Started) -> Self {
        let listener = std::mem::replace(&mut started.listener, Err(0));
        let witness = |descriptor| (Listener::new(descriptor), Witness::new(isolated, job.permission));
        Self { isolated, listening: listener.ok().map(witness) }
    }

    /// Returns what to poll for something to see.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        #[cfg(target_os = "linux")]
        return self.listening.as_ref().map(|(listener, _)| listener.descriptor());
        #[cfg(not(target_os = "linux"))]
        None
    }

    /// Sees what there is to see.
    pub(super) fn serve(&mut self) {
        #[cfg(target_os = "linux")]
        if let Some((listener, witness)) = &mut self.listening {
            listener.serve(witness);
        }
    }

    /// Returns what was seen.
    pub(super) fn finish(self) -> Observation {
        let isolated = self.isolated;
        let nothing = Observation { rung: Rung::None, isolated, ..Observation::default() };
        #[cfg(target_os = "linux")]
        return self.listening.map_or(nothing, |(_, witness)| witness.finish(Rung::Notify));
        #[cfg(not(target_os = "linux"))]
        nothing
    }
}
