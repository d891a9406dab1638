//! Results on their way to becoming durable facts.
//!
//! Flushing after each step would cost more than many a step; flushing at the
//! end would lose everything when a long run is killed. So results are
//! committed twice a second, beside the steps, and at the end. The claim to a
//! step is held until its result is committed: whoever waits for it then finds it.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use super::RunError;
use crate::disk::Claim;
use crate::record::{Journal, Record, StepResult};
use crate::store::Store;

const COMMIT_EVERY: Duration = Duration::from_millis(500);

/// Collects results and commits them in batches.
pub(super) struct Committer<'a> {
    store: &'a dyn Store,
    journal: &'a Journal,
    state: Mutex<State>,
    closing: Condvar,
}

#[derive(Default)]
struct State {
    results: Vec<StepResult>,
    claims: Vec<Claim>,
    closed: bool,
}

impl<'a> Committer<'a> {
    pub(super) fn new(store: &'a dyn Store, journal: &'a Journal) -> Self {
        Self { store, journal, state: Mutex::default(), closing: Condvar::new() }
    }

    /// Hands over a result, and the claim that keeps others waiting for it.
    pub(super) fn push(&self, result: StepResult, claim: Option<Claim>) {
        let mut state = self.state.lock().expect("no holder panics");
        state.results.push(result);
        state.claims.extend(claim);
    }

    /// Commits what comes in until [`Committer::close`] is called, then the rest.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the store or the journal cannot be written.
    pub(super) fn serve(&self) -> Result<(), RunError> {
        loop {
            let state = self.state.lock().expect("no holder panics");
            let (mut state, _) =
                self.closing.wait_timeout_while(state, COMMIT_EVERY, |state| !state.closed).expect("no holder panics");
            let closed = state.closed;
            let results = std::mem::take(&mut state.results);
            let claims = std::mem::take(&mut state.claims);
            drop(state);
            let committed = self.commit(results);
            drop(claims);
            committed?;
            if closed {
                return Ok(());
            }
        }
    }

    /// Lets [`Committer::serve`] finish.
    pub(super) fn close(&self) {
        self.state.lock().expect("no holder panics").closed = true;
        self.closing.notify_all();
    }

    fn commit(&self, results: Vec<StepResult>) -> Result<(), RunError> {
        if results.is_empty() {
            return Ok(());
        }
        self.store.sync()?;
        let records: Vec<Record> = results.into_iter().map(Record::Step).collect();
        self.journal.add(&records)?;
        Ok(())
    }
}
