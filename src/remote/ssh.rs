//! A remote on another machine: the user's own `ssh` goes there and starts `pv serve`.
//!
//! How the user is recognised, which proxies are on the way and where keys lie
//! is the matter of `ssh` and its settings. What it says is passed on where
//! it fails.

mod carrier;
mod connection;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::bucket::{Body, Bucket, BucketError, Listed, Trouble};
use super::wire::{self, ASKED_MAX, CREATE_MAX_BYTES, Message, NAME_MAX_BYTES};
use crate::host;
use crate::store::Part;
use carrier::Destination;
use connection::{Answer, Connection, Fate, Trip};

/// The list of a directory takes no more memory: some half a million of files.
const LIST_MAX_BYTES: u64 = 64 << 20;
/// A request that was lost with its connection is made again once.
const ATTEMPTS: usize = 2;

/// The programs that make a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Programs {
    /// What is started instead of `ssh`, in words of a shell.
    pub ssh: Option<String>,
    /// What is started on the other side, in words of the shell there.
    pub pv: String,
}

impl Programs {
    /// Returns what the variables `PV_SSH` and `PV_REMOTE_PV` say, else `ssh` and `pv`.
    pub fn of_user() -> Self {
        let set = |name| host::variable(name).filter(|text| !text.trim().is_empty());
        Self { ssh: set("PV_SSH"), pv: set("PV_REMOTE_PV").unwrap_or_else(|| "pv".to_owned()) }
    }
}

/// A directory of another machine.
pub struct Ssh {
    programs: Programs,
    host: String,
    port: Option<u16>,
    path: String,
    link: Mutex<Link>,
    /// How often a connection was tried.
    tries: AtomicU64,
}

#[derive(Default)]
struct Link {
    connection: Option<Arc<Connection>>,
    failed: Option<Fate>,
}

impl Ssh {
    /// Returns the directory `path` of a machine; nothing is connected before something is asked.
    pub fn connect(host: String, port: Option<u16>, path: String) -> Self {
        Self::connect_by(Programs::of_user(), host, port, path)
    }

    /// The same, by other programs.
    pub fn connect_by(programs: Programs, host: String, port: Option<u16>, path: String) -> Self {
        Self { programs, host, port, path, link: Mutex::default(), tries: AtomicU64::new(0) }
    }

    fn connection(&self) -> Result<Arc<Connection>, Fate> {
        let seen = self.tries.load(Ordering::Relaxed);
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = link.connection.as_ref().filter(|connection| !connection.is_lost()) {
            return Ok(Arc::clone(connection));
        }
        if let Some(fate) = link.failed.as_ref().filter(|_| self.tries.load(Ordering::Relaxed) != seen) {
            // Somebody tried while this one waited. A user need not be asked for a password once for each thread.
            return Err(fate.clone());
        }
        link.connection = None;
        let to = Destination { host: &self.host, port: self.port, path: &self.path };
        // `ssh` would take it for an option.
        let opened = if self.host.starts_with('-') {
            Err(Fate { trouble: Trouble::Refused, said: format!("`{}` is no name of a host", self.host) })
        } else {
            Connection::open(&self.programs, &to)
        };
        self.tries.fetch_add(1, Ordering::Relaxed);
        match opened {
            Ok(connection) => Ok(Arc::clone(link.connection.insert(Arc::new(connection)))),
            Err(fate) => Err(link.failed.insert(fate).clone()),
        }
    }

    /// Asks once, and again if that was lost with its connection. What would not be the same twice is asked once.
    fn ask(&self, action: &'static str, name: &str, asking: &Asking<'_>) -> Result<Answer, BucketError> {
        let failed = |trouble, source| BucketError { action, name: name.to_owned(), trouble, source };
        if name.len() > NAME_MAX_BYTES {
            return Err(failed(Trouble::Refused, "the name is too long".into()));
        }
        let mut attempt = 1;
        loop {
            let asked = match self.connection() {
                Ok(connection) => connection.ask(asking.request.clone(), asking.body, asking.most_bytes),
                Err(fate) => return Err(failed(fate.trouble, fate.into())),
            };
            match asked {
                Ok(answer) => return Ok(answer),
                Err(Trip::Lost { fate, sent }) => {
                    let is_passing = fate.trouble == Trouble::Unreachable && (asking.is_repeatable || !sent);
                    if attempt == ATTEMPTS || !is_passing {
                        return Err(failed(fate.trouble, fate.into()));
                    }
                    attempt += 1;
                }
                Err(Trip::Failed { trouble, said }) => {
                    return Err(failed(trouble, wire::printable(&said, usize::MAX).into()));
                }
                Err(Trip::Body(error)) => return Err(failed(Trouble::Other, error.into())),
            }
        }
    }
}

/// What is to be asked.
struct Asking<'a> {
    request: Message,
    body: Option<&'a dyn Body>,
    /// The answer has no more bytes.
    most_bytes: u64,
    /// Whether it comes to the same if it is done twice.
    is_repeatable: bool,
}

impl Asking<'_> {
    fn of(request: Message, most_bytes: u64) -> Self {
        Self { request, body: None, most_bytes, is_repeatable: true }
    }
}

impl Bucket for Ssh {
    fn list(&self, directory: &str) -> Result<Vec<Listed>, BucketError> {
        let asking = Asking::of(Message::List { directory: directory.to_owned() }, LIST_MAX_BYTES);
        match self.ask("list", directory, &asking)? {
            Answer::Done(bytes) => wire::decode_listed(&bytes).ok_or_else(|| garbled("list", directory)),
            _ => Err(garbled("list", directory)),
        }
    }

    fn read(&self, name: &str, most_bytes: u64) -> Result<Option<Vec<u8>>, BucketError> {
        let asking = Asking::of(Message::Read { name: name.to_owned(), most_bytes }, most_bytes);
        match self.ask("read", name, &asking)? {
            Answer::Done(bytes) => Ok(Some(bytes)),
            Answer::Absent => Ok(None),
            Answer::Exists => Err(garbled("read", name)),
        }
    }

    fn read_span(&self, name: &str, span: Range<u64>) -> Result<Vec<u8>, BucketError> {
        let length = span.end.saturating_sub(span.start);
        let request = Message::Span { name: name.to_owned(), start: span.start, end: span.end };
        match self.ask("read", name, &Asking::of(request, length))? {
            Answer::Done(bytes) if bytes.len() as u64 == length => Ok(bytes),
            _ => Err(garbled("read", name)),
        }
    }

    fn write(&self, name: &str, body: &dyn Body) -> Result<(), BucketError> {
        let request = Message::Write { name: name.to_owned(), bytes: body.bytes() };
        let asking = Asking { body: Some(body), ..Asking::of(request, 0) };
        match self.ask("write", name, &asking)? {
            Answer::Done(_) => Ok(()),
            _ => Err(garbled("write", name)),
        }
    }

    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, BucketError> {
        if bytes.len() as u64 > CREATE_MAX_BYTES {
            let said = format!("it is longer than {CREATE_MAX_BYTES} bytes");
            return Err(BucketError::on("write", name, Trouble::Unsupported)(said));
        }
        let request = Message::Create { name: name.to_owned(), bytes: bytes.len() as u64 };
        // Asked again, it would be told of its own file that somebody else was first.
        let asking = Asking { body: Some(&bytes), is_repeatable: false, ..Asking::of(request, 0) };
        match self.ask("write", name, &asking)? {
            Answer::Done(_) => Ok(true),
            Answer::Exists => Ok(false),
            Answer::Absent => Err(garbled("write", name)),
        }
    }

    fn remove(&self, name: &str) -> Result<(), BucketError> {
        match self.ask("remove", name, &Asking::of(Message::Remove { name: name.to_owned() }, 0))? {
            Answer::Done(_) => Ok(()),
            _ => Err(garbled("remove", name)),
        }
    }

    fn known(&self, parts: &[Part]) -> Result<Option<Vec<bool>>, BucketError> {
        let failed = |fate: Fate| BucketError::on("list", "", fate.trouble)(fate);
        if !self.connection().map_err(failed)?.knows() {
            return Ok(None);
        }
        let mut known = Vec::with_capacity(parts.len());
        for parts in parts.chunks(ASKED_MAX) {
            let asked: Vec<u8> = parts.iter().flat_map(|part| part.to_bytes()).collect();
            let count = u32::try_from(parts.len()).expect("they are few enough");
            let body = asked.as_slice();
            let asking = Asking { body: Some(&body), ..Asking::of(Message::Known { count }, parts.len() as u64) };
            match self.ask("list", "", &asking)? {
                Answer::Done(bytes) if bytes.len() == parts.len() => known.extend(bytes.iter().map(|byte| *byte == 1)),
                _ => return Err(garbled("list", "")),
            }
        }
        Ok(Some(known))
    }
}

fn garbled(action: &'static str, name: &str) -> BucketError {
    BucketError::on(action, name, Trouble::Garbled)("the other side answers something else")
}
