//! Being asked to stop: by a signal, or by another part of the program.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

/// Whether the user has asked to stop. Clones share one answer; a request is never taken back.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<Owner>);

#[derive(Debug, Default)]
struct Owner {
    shared: Arc<Shared>,
    /// Ends the thread that listens to signals.
    listener: Option<Handle>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    requested: bool,
    urgent: bool,
    signal: Option<i32>,
}

impl Stop {
    /// Returns one that only [`Stop::request`] sets off.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns one that `SIGINT`, `SIGTERM` and `SIGHUP` set off; a second signal makes it urgent.
    ///
    /// A signal that this process was started to ignore (by `nohup`, or in the
    /// background of a script) stays ignored. From here on the others do not
    /// end this process any more, even after the last clone is gone. Costs one thread.
    ///
    /// # Errors
    ///
    /// What the system says if a signal cannot be caught or the thread not be started.
    pub fn on_signals() -> io::Result<Self> {
        let ignored = ignored_signals();
        let heeded = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
        let mut signals = Signals::new(heeded)?;
        let listener = Some(signals.handle());
        let shared = Arc::new(Shared::default());
        let heard = Arc::clone(&shared);
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in &mut signals {
                heard.change(|state| {
                    state.urgent |= state.signal.is_some();
                    state.signal.get_or_insert(signal);
                    state.requested = true;
                });
            }
        })?;
        Ok(Self(Arc::new(Owner { shared, listener })))
    }

    /// Asks everybody who holds a clone to stop.
    pub fn request(&self) {
        self.0.shared.change(|state| state.requested = true);
    }

    /// Asks everybody who holds a clone to stop at once, without time to tidy up.
    pub fn request_urgently(&self) {
        self.0.shared.change(|state| (state.requested, state.urgent) = (true, true));
    }

    /// Returns whether a stop was asked for.
    pub fn is_requested(&self) -> bool {
        self.0.shared.lock().requested
    }

    /// Returns whether there is no time to tidy up: a second signal came.
    pub fn is_urgent(&self) -> bool {
        self.0.shared.lock().urgent
    }

    /// Returns the first signal that asked, if one did.
    pub fn signal(&self) -> Option<i32> {
        self.0.shared.lock().signal
    }

    /// Waits for `time`, or until a stop is requested; returns whether it is.
    pub fn wait(&self, time: Duration) -> bool {
        let shared = &self.0.shared;
        let waited = shared.changed.wait_timeout_while(shared.lock(), time, |state| !state.requested);
        waited.unwrap_or_else(PoisonError::into_inner).0.requested
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            listener.close();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole after every change, so a panic elsewhere does not make it wrong.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

/// Returns the signals that this process ignores, one bit each, the lowest for signal 1; none where the system does not tell.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Stopwatch;
    use rustix::process::{Signal, getpid, kill_process};

    #[test]
    fn a_request_reaches_every_clone_and_is_not_urgent() {
        let stop = Stop::new();
        let clone = stop.clone();
        assert!(!clone.is_requested());
        stop.request();
        assert!(clone.is_requested());
        assert!(!clone.is_urgent());
        clone.request_urgently();
        assert!(stop.is_urgent());
        assert_eq!(stop.signal(), None);
    }

    #[test]
    fn waiting_lasts_its_time_or_until_the_request() {
        let stop = Stop::new();
        let clock = Stopwatch::start();
        assert!(!stop.wait(Duration::from_millis(30)));
        assert!(clock.elapsed() >= Duration::from_millis(30));

        let other = stop.clone();
        let waiting = std::thread::spawn(move || other.wait(Duration::from_secs(60)));
        stop.request();
        assert!(waiting.join().unwrap());
        assert!(clock.elapsed() < Duration::from_secs(50));
    }

    #[test]
    fn a_signal_requests_and_a_second_one_makes_it_urgent() {
        let stop = Stop::on_signals().unwrap();
        // Nobody starts programs with this one ignored, as `nohup` does with the hang-up.
        kill_process(getpid(), Signal::TERM).unwrap();
        assert!(stop.wait(Duration::from_secs(60)));
        assert!(!stop.is_urgent());
        assert_eq!(stop.signal(), Some(SIGTERM));

        kill_process(getpid(), Signal::TERM).unwrap();
        while !stop.is_urgent() {
            std::thread::yield_now();
        }
        assert_eq!(stop.signal(), Some(SIGTERM), "the first one is the one to report");
    }
}
