//! One way to another machine, which many threads use at once.
//!
//! One and not several, because each would ask the user for a password or a
//! touch of a key, and servers let in few who have not been recognised yet. Each
//! request has a number. One thread reads what comes and sorts it by that
//! number; it never waits for whoever asked, so the other side can always go on.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Write};
use std::process::ChildStdout;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::Programs;
use super::carrier::{Carrier, Destination};
use crate::remote::bucket::{Body, Trouble};
use crate::remote::wire::{self, AT_ONCE, FRAME_MAX_BYTES, Frame, Hello, KNOWN_FEATURE, Message, WireError};

/// How long the end of a connection is waited for before it is brought about.
const PARTING: Duration = Duration::from_secs(5);

/// A connection that stands, or stood.
pub(super) struct Connection {
    shared: Arc<Shared>,
    input: Mutex<Option<Box<dyn Write + Send>>>,
    at_once: usize,
    knows: bool,
}

/// Why a connection is of no use any more.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{said}")]
pub(super) struct Fate {
    pub(super) trouble: Trouble,
    pub(super) said: String,
}

/// What was answered.
#[derive(Debug)]
pub(super) enum Answer {
    /// It was done, with these bytes.
    Done(Vec<u8>),
    /// There is no such file.
    Absent,
    /// There is one already.
    Exists,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Trip {
    /// The connection ended. The other side may have done what was asked if that was `sent`.
    Lost { fate: Fate, sent: bool },
    /// The other side did not do it.
    Failed { trouble: Trouble, said: String },
    /// What was to be sent cannot be read.
    Body(io::Error),
}

struct Shared {
    carrier: Carrier,
    host: String,
    state: Mutex<State>,
    /// Told of the end of an answer, of a request, and of the connection.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    pending: BTreeMap<u32, Pending>,
    next_id: u32,
    fate: Option<Fate>,
}

/// A request that is under way.
struct Pending {
    /// More bytes were not asked for.
    most_bytes: u64,
    bytes: Vec<u8>,
    outcome: Option<Message>,
}

impl Connection {
    /// Goes there and exchanges the first words. Waits as long as the user takes to give a password.
    ///
    /// # Errors
    ///
    /// [`Fate`] if nobody answers there, or somebody else.
    pub(super) fn open(programs: &Programs, to: &Destination<'_>) -> Result<Self, Fate> {
        let start = |error: io::Error| {
            let program = programs.ssh.as_deref().map_or("ssh", |_| "sh");
            Fate { trouble: Trouble::Unsupported, said: format!("`{program}` cannot be started: {error}") }
        };
        let (carrier, mut input, output) = Carrier::start(programs, to).map_err(start)?;
        let shared = Shared { carrier, host: to.host.to_owned(), state: Mutex::default(), changed: Condvar::new() };
        // If nobody hears it, what the program says tells more than a broken pipe.
        let _ = wire::greet(&mut input, Hello::own());
        let mut output = BufReader::with_capacity(FRAME_MAX_BYTES, output);
        let hello = match wire::meet(&mut output) {
            Ok(Some(hello)) => hello,
            Ok(None) => return Err(shared.ended()),
            Err(error) => return Err(shared.garbled(&error)),
        };
        let shared = Arc::new(shared);
        let of_thread = Arc::clone(&shared);
        thread::spawn(move || of_thread.receive(output));
        Ok(Self {
            shared,
            input: Mutex::new(Some(Box::new(input))),
            at_once: usize::from(hello.at_once.clamp(1, AT_ONCE)),
            knows: hello.has(KNOWN_FEATURE),
        })
    }

    /// Returns whether it is of no use any more.
    pub(super) fn is_lost(&self) -> bool {
        self.shared.lock().fate.is_some()
    }

    /// Returns whether the other side tells which records it has.
    pub(super) fn knows(&self) -> bool {
        self.knows
    }

    /// Asks for something, and waits for the answer, of which no more than `most_bytes` are taken.
    ///
    /// Waits for its turn if many others have asked.
    ///
    /// # Errors
    ///
    /// [`Trip`] if it is not done, or nobody knows.
    pub(super) fn ask(&self, request: Message, body: Option<&dyn Body>, most_bytes: u64) -> Result<Answer, Trip> {
        let asked = Asked { connection: self, id: self.begin(most_bytes)? };
        asked.send(request)?;
        let sent = body.map_or(Ok(()), |body| asked.send_body(body));
        let answer = asked.outcome();
        // The other side has heard that it does not come, and this is the reason.
        if let Err(Trip::Body(error)) = sent {
            return Err(Trip::Body(error));
        }
        answer
    }

    /// Waits for its turn, and returns the number of a new request.
    fn begin(&self, most_bytes: u64) -> Result<u32, Trip> {
        let state = self.shared.lock();
        let is_full = |state: &mut State| state.fate.is_none() && state.pending.len() >= self.at_once;
        let mut state = self.shared.changed.wait_while(state, is_full).unwrap_or_else(PoisonError::into_inner);
        if let Some(fate) = &state.fate {
            return Err(Trip::Lost { fate: fate.clone(), sent: false });
        }
        let mut id = state.next_id;
        while state.pending.contains_key(&id) {
            id = id.wrapping_add(1);
        }
        state.next_id = id.wrapping_add(1);
        state.pending.insert(id, Pending { most_bytes, bytes: Vec::new(), outcome: None });
        Ok(id)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        input.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write_all(bytes)
    }

    /// Returns why the connection is lost, after a pipe was found broken.
    fn lost(&self) -> Trip {
        let state = self.shared.wait_for_fate();
        let fate = state.fate.clone();
        drop(state);
        let fate = fate.unwrap_or_else(|| {
            // It takes nothing and yet does not end.
            self.shared.carrier.cut();
            self.shared.lost("it takes nothing any more")
        });
        Trip::Lost { fate, sent: true }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The other side ends with its standard input, and `ssh` ends with the other side.
        drop(self.input.lock().unwrap_or_else(PoisonError::into_inner).take());
        if self.shared.wait_for_fate().fate.is_none() {
            self.shared.carrier.cut();
        }
    }
}

/// A request that has a number, until it is answered or given up.
struct Asked<'a> {
    connection: &'a Connection,
    id: u32,
}

impl Asked<'_> {
    fn send(&self, message: Message) -> Result<(), Trip> {
        let bytes = Frame { id: self.id, message }.encode();
        self.connection.write(&bytes).map_err(|_| self.connection.lost())
    }

    /// Sends what follows a request, in frames; stops if the answer is there before.
    fn send_body(&self, body: &dyn Body) -> Result<(), Trip> {
        let mut reader = body.reader();
        let mut left = body.bytes();
        while left > 0 {
            if self.has_outcome() {
                return self.send(Message::Abandon);
            }
            let length = usize::try_from(left).unwrap_or(FRAME_MAX_BYTES).min(FRAME_MAX_BYTES);
            let mut chunk = vec![0; length];
            let read = match wire::read_up_to(&mut *reader, &mut chunk) {
                Ok(count) if count < length => {
                    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has become shorter"))
                }
                read => read,
            };
            if let Err(error) = read {
                self.send(Message::Abandon)?;
                return Err(Trip::Body(error));
            }
            left -= length as u64;
            self.send(Message::Data(chunk))?;
        }
        Ok(())
    }

    fn has_outcome(&self) -> bool {
        let state = self.connection.shared.lock();
        state.fate.is_some() || state.pending.get(&self.id).is_none_or(|pending| pending.outcome.is_some())
    }

    fn outcome(&self) -> Result<Answer, Trip> {
        let shared = &self.connection.shared;
        let is_open = |state: &mut State| {
            state.fate.is_none() && state.pending.get(&self.id).is_some_and(|pending| pending.outcome.is_none())
        };
        let mut state = shared.changed.wait_while(shared.lock(), is_open).unwrap_or_else(PoisonError::into_inner);
        let pending = state.pending.remove(&self.id);
        match pending.and_then(|pending| Some((pending.outcome?, pending.bytes))) {
            Some((Message::Done, bytes)) => Ok(Answer::Done(bytes)),
            Some((Message::Absent, _)) => Ok(Answer::Absent),
            Some((Message::Exists, _)) => Ok(Answer::Exists),
            Some((Message::Failed { trouble, said }, _)) => Err(Trip::Failed { trouble, said }),
            _ => {
                let fate = state.fate.clone().unwrap_or_else(|| shared.lost("nobody knows why"));
                Err(Trip::Lost { fate, sent: true })
            }
        }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        // Only now the other side has heard all of the request, so only now another may take its turn.
        self.connection.shared.lock().pending.remove(&self.id);
        self.connection.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for_fate(&self) -> MutexGuard<'_, State> {
        let waited = self.changed.wait_timeout_while(self.lock(), PARTING, |state| state.fate.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Sorts what comes until nothing comes any more.
    fn receive(&self, mut output: BufReader<ChildStdout>) {
        let fate = loop {
            match Frame::read(&mut output) {
                Ok(Some(frame)) => {
                    if let Err(what) = self.sort(frame) {
                        break self.garbled(&what);
                    }
                }
                Ok(None) | Err(WireError::Cut | WireError::Pipe(_)) => break self.ended(),
                Err(error) => break self.garbled(&error),
            }
        };
        self.lock().fate = Some(fate);
        self.changed.notify_all();
    }

    fn sort(&self, Frame { id, message }: Frame) -> Result<(), Unasked> {
        let mut state = self.lock();
        let pending = state.pending.get_mut(&id).filter(|pending| pending.outcome.is_none()).ok_or(Unasked)?;
        match message {
            Message::Data(bytes) => {
                if (pending.bytes.len() + bytes.len()) as u64 > pending.most_bytes {
                    return Err(Unasked);
                }
                pending.bytes.extend_from_slice(&bytes);
            }
            Message::Done | Message::Absent | Message::Exists | Message::Failed { .. } => {
                pending.outcome = Some(message);
                drop(state);
                self.changed.notify_all();
            }
            _ => return Err(Unasked),
        }
        Ok(())
    }

    fn ended(&self) -> Fate {
        let end = self.carrier.end();
        let trouble = if end.is_without_program { Trouble::Unsupported } else { Trouble::Unreachable };
        Fate { trouble, ..self.lost(&end.said) }
    }

    fn lost(&self, said: &str) -> Fate {
        let host = &self.host;
        Fate { trouble: Trouble::Unreachable, said: format!("the connection to `{host}` ended: {said}") }
    }

    fn garbled(&self, what: &(dyn std::error::Error + 'static)) -> Fate {
        self.carrier.reap();
        let trouble = match what.downcast_ref() {
            Some(WireError::Version { .. }) => Trouble::Unsupported,
            _ => Trouble::Garbled,
        };
        Fate { trouble, said: format!("the `pv` of `{}` cannot be understood: {what}", self.host) }
    }
}

/// The other side says what nobody has asked it for.
#[derive(Debug, thiserror::Error)]
#[error("it says what it was not asked")]
struct Unasked;
