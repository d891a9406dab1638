//! Whose results count beside one's own.

use crate::pipeline::Trust;
use crate::record::By;

/// This user, and whose results of steps are taken instead of executing them.
#[derive(Clone, Debug)]
pub struct Peers {
    /// This user on this machine.
    pub me: By,
    /// Whom to trust.
    pub trust: Trust,
}

impl Peers {
    /// Returns whether a result of `by` is taken. One's own always are, from whatever machine.
    pub(super) fn count(&self, by: &By) -> bool {
        by.who == self.me.who || self.trust.counts(&by.who)
    }

    /// Returns whether a result of `by` was made by another user, or elsewhere.
    pub(super) fn is_shared(&self, by: &By) -> bool {
        (&by.who, &by.host) != (&self.me.who, &self.me.host)
    }
}
