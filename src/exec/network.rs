//! What others answer a job over the network: as it comes, kept as it comes, or given again as it was kept.
//!
//! What was kept stays in memory: it may hold secrets, and belongs to nobody but those who are given it again.

use std::fmt;
use std::mem;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// More than this is not kept of what a job says and hears, in bytes.
const RECORD_BYTES_MAX: usize = 256 << 20;
/// Nor of more conversations than this.
const CONVERSATIONS_MAX: usize = 100_000;

/// What others answer a job over the network.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Network {
    /// What they answer now.
    #[default]
    Real,
    /// What they answer now, which is kept.
    Kept(Recorder),
    /// What they answered before, for as long as the job says what it said then.
    Given(Record),
}

/// Keeps conversations. Clones keep the same ones.
#[derive(Clone, Default)]
pub struct Recorder(Arc<Mutex<Keeping>>);

#[derive(Default)]
struct Keeping {
    conversations: Vec<Conversation>,
    bytes: usize,
    is_too_much: bool,
}

/// Conversations that were kept. Clones are the same ones.
#[derive(Clone)]
pub struct Record(Arc<Vec<Conversation>>);

/// What was said on one connection.
#[derive(Clone, Debug)]
pub(super) struct Conversation {
    /// Whom the job meant.
    pub(super) peer: SocketAddr,
    pub(super) kind: Kind,
    pub(super) begun: Begun,
    /// What happened, in the order in which it came by: what somebody says after he has heard something comes after that.
    pub(super) turns: Vec<Turn>,
}

/// In what a conversation is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Bytes, in whatever pieces.
    Stream,
    /// Datagrams, each of them whole.
    Datagrams,
}

/// How a conversation began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Begun {
    /// It is not known.
    Unknown,
    /// The other side took part; the job's side of it had this address.
    At(SocketAddr),
    /// It failed with this error.
    Refused(i32),
}

/// Something that happened in a conversation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// The job said this.
    Said(Vec<u8>),
    /// The job will say no more.
    Left,
    /// The other side said this.
    Heard(Vec<u8>),
    /// The other side will say no more.
    Ended,
    /// The other side broke it off.
    Broken,
}

impl Recorder {
    /// Returns one that has kept nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns what was kept, and keeps no more; `None` if there was more than can be kept.
    pub fn record(&self) -> Option<Record> {
        let mut keeping = self.keeping();
        let conversations = mem::take(&mut keeping.conversations);
        if mem::replace(&mut keeping.is_too_much, true) {
            return None;
        }
        let is_known = |conversation: &Conversation| conversation.begun != Begun::Unknown;
        Some(Record(Arc::new(conversations.into_iter().filter(is_known).collect())))
    }

    /// Begins a conversation; returns by what it is called.
    pub(super) fn begin(&self, peer: SocketAddr, kind: Kind, begun: Begun) -> usize {
        let mut keeping = self.keeping();
        keeping.is_too_much |= keeping.conversations.len() >= CONVERSATIONS_MAX;
        if !keeping.is_too_much {
            keeping.conversations.push(Conversation { peer, kind, begun, turns: Vec::new() });
        }
        keeping.conversations.len().wrapping_sub(1)
    }

    /// Keeps how a conversation began.
    pub(super) fn begun(&self, conversation: usize, begun: Begun) {
        if let Some(conversation) = self.keeping().conversations.get_mut(conversation) {
            conversation.begun = begun;
        }
    }

    /// Keeps what happened in a conversation.
    pub(super) fn note(&self, conversation: usize, turn: Turn) {
        let mut keeping = self.keeping();
        let length = match &turn {
            Turn::Said(bytes) | Turn::Heard(bytes) => bytes.len(),
            _ => 0,
        };
        keeping.bytes += length;
        if keeping.bytes > RECORD_BYTES_MAX {
            keeping.is_too_much = true;
            // Nobody will be given any of it.
            keeping.conversations.clear();
        }
        let Some(Conversation { kind, turns, .. }) = keeping.conversations.get_mut(conversation) else { return };
        match (turns.last_mut(), turn) {
            (Some(Turn::Said(before)), Turn::Said(more)) if *kind == Kind::Stream => before.extend(more),
            (Some(Turn::Heard(before)), Turn::Heard(more)) if *kind == Kind::Stream => before.extend(more),
            (_, turn) => turns.push(turn),
        }
    }

    fn keeping(&self) -> MutexGuard<'_, Keeping> {
        // What is in it is whole after every change, so a panic elsewhere does not make it wrong.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    /// Returns whether nothing was said to anybody.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn conversations(&self) -> &[Conversation] {
        &self.0
    }
}

impl PartialEq for Recorder {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Recorder {}

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Record {}

// What was said may hold secrets, so it is not shown.

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recorder")
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: ([u8; 4], u16) = ([192, 0, 2, 1], 80);

    #[test]
    fn bytes_of_a_stream_are_one_turn_until_the_other_side_speaks_and_datagrams_stay_apart() {
        let recorder = Recorder::new();
        let turns = |kind| {
            let recorder = Recorder::new();
            let one = recorder.begin(PEER.into(), kind, Begun::At(PEER.into()));
            for turn in [Turn::Said(b"a".into()), Turn::Said(b"b".into()), Turn::Heard(b"c".into()), Turn::Left] {
                recorder.note(one, turn);
            }
            recorder.record().unwrap().conversations()[0].turns.len()
        };
        assert_eq!((turns(Kind::Stream), turns(Kind::Datagrams)), (3, 4));
        recorder.begin(PEER.into(), Kind::Stream, Begun::Unknown);
        assert!(recorder.record().unwrap().is_empty(), "of which nobody knows how it began");
    }

    #[test]
    fn of_too_much_nothing_is_kept() {
        let recorder = Recorder::new();
        let one = recorder.begin(PEER.into(), Kind::Stream, Begun::At(PEER.into()));
        for _ in 0..=RECORD_BYTES_MAX >> 26 {
            recorder.note(one, Turn::Heard(vec![0; 1 << 26]));
        }
        assert!(recorder.keeping().conversations.is_empty());
        recorder.note(one, Turn::Heard(vec![0]));
        assert_eq!(recorder.record(), None);
    }
}
