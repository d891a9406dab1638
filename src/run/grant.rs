//! What a step that is executed holds of the machine, until it has ended.

use std::path::Path;
use std::time::Duration;

use super::RunError;
use super::event::Event;
use super::perform::memory_text;
use crate::disk::Lock;
use crate::exec::{Limit, Stop};
use crate::pipeline::Step;

/// How long a run waits before it looks again whether a lock of another one is free.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Set to the GPUs that a step has for itself.
const GPUS_VARIABLE: &str = "CUDA_VISIBLE_DEVICES";

/// What a step holds; given back when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Grant {
    gpus: Vec<String>,
    _locks: Vec<Lock>,
    /// With the bytes that it was made for.
    memory: Option<(Limit, u64)>,
}

impl Grant {
    /// Gets what `step` asks for, waiting for its locks; `None` if the run is to stop.
    ///
    /// Locks are taken in the order of their names, so that two runs never wait for each other.
    ///
    /// # Errors
    ///
    /// [`RunError::Disk`] if the file system has no locks.
    pub(super) fn get(
        step: &Step,
        gpus: Vec<String>,
        locks: &Path,
        stop: &Stop,
        observer: &(dyn Fn(Event<'_>) + Sync),
    ) -> Result<Option<Self>, RunError> {
        let mut held = Vec::new();
        for name in &step.resources.locks {
            // No digest begins so: these are the names of the other locks that lie here.
            let path = locks.join(format!("named-{name}"));
            let mut told = false;
            let lock = loop {
                if let Some(lock) = Lock::try_exclusive(&path)? {
                    break lock;
                }
                if !told {
                    observer(Event::WaitingForLock { step: &step.name, lock: name });
                    told = true;
                }
                if stop.wait(LOOK_AGAIN) {
                    return Ok(None);
                }
            };
            held.push(lock);
        }
        Ok(Some(Self { gpus, _locks: held, memory: None }))
    }

    /// Sets a new bound on memory for the next attempt, and tells if there can be none.
    pub(super) fn bound_memory(&mut self, step: &Step, observer: &(dyn Fn(Event<'_>) + Sync)) {
        let Some(bytes) = step.resources.memory_bytes else { return };
        self.memory = None;
        match Limit::new(bytes) {
            Ok(limit) => self.memory = Some((limit, bytes)),
            Err(error) => observer(Event::NotBounded { step: &step.name, why: &error }),
        }
    }

    /// Returns the variables that tell the step what it has.
    pub(super) fn variables(&self) -> Option<(String, String)> {
        (!self.gpus.is_empty()).then(|| (GPUS_VARIABLE.to_owned(), self.gpus.join(",")))
    }

    /// Returns the GPUs that it has for itself.
    pub(super) fn gpus(&self) -> &[String] {
        &self.gpus
    }

    /// Returns what is to be said if the step, or a part of it, was ended for its memory.
    pub(super) fn excess(&self) -> Option<String> {
        let (limit, bytes) = self.memory.as_ref()?;
        limit.was_exceeded().then(|| format!("it needed more than its memory of {}", memory_text(*bytes)))
    }

    /// Tells if the bound could not be kept for the step that was just executed.
    pub(super) fn tell_if_unbounded(&self, step: &Step, observer: &(dyn Fn(Event<'_>) + Sync)) {
        if self.memory.as_ref().is_some_and(|(limit, _)| !limit.holds()) {
            let why = std::io::Error::other("its processes may not be moved into a control group");
            observer(Event::NotBounded { step: &step.name, why: &why });
        }
    }

    /// Returns the bound on its memory, if there is one.
    pub(super) fn memory(&self) -> Option<&Limit> {
        self.memory.as_ref().map(|(limit, _)| limit)
    }
}
