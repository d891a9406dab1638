//! The serving side of a remote that `ssh` reaches: answers the requests of one pipe out of one directory.
//!
//! Whoever asks is not trusted: a name leads to nothing outside of the
//! directory, and what is asked for takes a bounded amount of memory, however
//! much of it there is. What is written appears once all of it has come, so
//! this may end at any moment.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::RemoteError;
use super::bucket::{Body, Bucket, BucketError, Trouble};
use super::catalog::Catalog;
use super::directory::Directory;
use super::wire::{
    self, ASKED_MAX, AT_ONCE, CREATE_MAX_BYTES, FRAME_MAX_BYTES, Frame, Hello, Message, NAME_MAX_BYTES, WireError,
};
use crate::store::{PART_BYTES, Part};

/// So many frames of a file may wait until those before them are written.
const WAITING_FRAMES: usize = 2;
/// No part of a name is longer, on any file system that we know.
const PART_OF_NAME_MAX_BYTES: usize = 255;

/// Why serving ended before the other side wanted it to end.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The other side cannot be understood.
    #[error("the other side cannot be understood")]
    Wire(#[from] WireError),
    /// The other side does what the protocol does not allow.
    #[error("the other side {what}, which the protocol does not allow")]
    Unruly {
        /// What it does.
        what: &'static str,
    },
}

/// Answers the requests that come from `input` out of the directory `root`, until `input` ends.
///
/// The directory need not be there before something is written. Takes memory for the list of a directory that is listed, and at
/// most some MiB for each request that is under way, of which there are at most 16. If nobody takes the answers, it stops to hear requests.
///
/// # Errors
///
/// [`ServeError`] if the other side does not keep to the protocol. A failure of the directory is an answer, and no error.
pub fn serve(root: PathBuf, input: impl Read, mut output: impl Write + Send) -> Result<(), ServeError> {
    let mut input = io::BufReader::with_capacity(FRAME_MAX_BYTES, input);
    // Said before anything is heard, so that who speaks another version learns why this is the end.
    wire::greet(&mut output, Hello::own()).map_err(WireError::Pipe)?;
    if wire::meet(&mut input)?.is_none() {
        return Ok(());
    }
    let served = Served {
        directory: Directory::new(root.clone()),
        root,
        catalog: Mutex::new(None),
        output: Mutex::new(&mut output),
        turns: Mutex::default(),
        left: Condvar::new(),
        is_deaf: AtomicBool::new(false),
    };
    // Once the bodies are dropped, whoever waits for the rest of one finds out, so all threads end.
    thread::scope(|scope| {
        let mut bodies: BTreeMap<u32, Incoming> = BTreeMap::new();
        while let Some(Frame { id, message }) = Frame::read(&mut input)? {
            if served.is_deaf.load(Ordering::Relaxed) {
                break;
            }
            match message {
                Message::Data(chunk) => {
                    let body = bodies.get_mut(&id).ok_or(unruly("sends what belongs to no request"))?;
                    if body.take(chunk)? {
                        bodies.remove(&id);
                    }
                }
                Message::Abandon => {
                    bodies.remove(&id).ok_or(unruly("abandons no request"))?;
                }
                request => {
                    let bytes = bytes_to_follow(&request).ok_or(unruly("answers what nobody asked"))?;
                    if bodies.len() >= usize::from(AT_ONCE) {
                        return Err(unruly("makes more requests at once"));
                    }
                    if bodies.contains_key(&id) {
                        return Err(unruly("gives two requests one number"));
                    }
                    let (incoming, body) = body_of(bytes);
                    if bytes > 0 {
                        bodies.insert(id, incoming);
                    }
                    served.begin()?;
                    let served = &served;
                    scope.spawn(move || served.answer(id, &request, &body));
                }
            }
        }
        Ok(())
    })
}

/// Returns how many bytes follow a request; `None` if it is none.
fn bytes_to_follow(request: &Message) -> Option<u64> {
    match request {
        Message::List { .. } | Message::Read { .. } | Message::Span { .. } | Message::Remove { .. } => Some(0),
        Message::Write { bytes, .. } | Message::Create { bytes, .. } => Some(*bytes),
        Message::Known { count } => Some(u64::from(*count) * PART_BYTES as u64),
        _ => None,
    }
}

/// What all threads that answer share.
struct Served<'a> {
    root: PathBuf,
    directory: Directory,
    /// What the directory holds, once somebody has asked.
    catalog: Mutex<Option<Catalog>>,
    output: Mutex<&'a mut (dyn Write + Send)>,
    turns: Mutex<Turns>,
    /// Told when a thread has nothing more to say.
    left: Condvar,
    /// Nobody reads the answers any more.
    is_deaf: AtomicBool,
}

/// How many answer.
#[derive(Default)]
struct Turns {
    /// So many requests are under way.
    requests: usize,
    /// So many threads are there, some of which say their last word.
    threads: usize,
}

/// Why the answer is that it was not done.
struct Refusal {
    trouble: Trouble,
    said: String,
}

impl Served<'_> {
    /// Counts a new request, once there is room for one more thread.
    fn begin(&self) -> Result<(), ServeError> {
        let most = usize::from(AT_ONCE);
        // Who has said the last word goes without any request, so this waits only for who takes no answers.
        let is_crowded = |turns: &mut Turns| turns.threads >= 2 * most;
        let mut turns = self.left.wait_while(lock(&self.turns), is_crowded).unwrap_or_else(PoisonError::into_inner);
        if turns.requests >= most {
            return Err(unruly("makes more requests at once"));
        }
        (turns.requests, turns.threads) = (turns.requests + 1, turns.threads + 1);
        Ok(())
    }

    fn answer(&self, id: u32, request: &Message, body: &Followed) {
        let answer = match request {
            Message::List { directory } => self.list(id, directory),
            Message::Read { name, most_bytes } => self.read(id, name, *most_bytes),
            Message::Span { name, start, end } => self.read_span(id, name, *start..*end),
            Message::Write { name, .. } => self.write(name, body),
            Message::Create { name, .. } => self.create(name, body),
            Message::Remove { name } => self.remove(name),
            _ => self.known(id, body),
        };
        let answer = answer.unwrap_or_else(|refusal| Message::failed(refusal.trouble, &refusal.said));
        // Whoever gets the answer may make the next request at once.
        lock(&self.turns).requests -= 1;
        self.say(id, answer);
        lock(&self.turns).threads -= 1;
        self.left.notify_one();
    }

    fn list(&self, id: u32, directory: &str) -> Result<Message, Refusal> {
        if !directory.is_empty() {
            check_name(directory)?;
        }
        let mut listed = self.directory.list(directory)?;
        // What has another name was put there by another program, and cannot be asked for.
        listed.retain(|file| check_name(&file.name).is_ok());
        self.say_bytes(id, &wire::encode_listed(&listed));
        Ok(Message::Done)
    }

    fn read(&self, id: u32, name: &str, most_bytes: u64) -> Result<Message, Refusal> {
        check_name(name)?;
        let Some((file, bytes)) = self.directory.open(name)? else { return Ok(Message::Absent) };
        if bytes > most_bytes {
            let said = format!("it is longer than {most_bytes} bytes");
            return Err(Refusal { trouble: Trouble::Garbled, said });
        }
        self.say_file(id, &file, 0..bytes)
    }

    fn read_span(&self, id: u32, name: &str, span: Range<u64>) -> Result<Message, Refusal> {
        check_name(name)?;
        let opened = self.directory.open(name)?;
        let missing = || Refusal { trouble: Trouble::Missing, said: "there is no such file".to_owned() };
        let (file, bytes) = opened.ok_or_else(missing)?;
        if span.start > span.end || span.end > bytes {
            return Err(Refusal { trouble: Trouble::Garbled, said: format!("it has {bytes} bytes") });
        }
        self.say_file(id, &file, span)
    }

    fn write(&self, name: &str, body: &Followed) -> Result<Message, Refusal> {
        check_name(name)?;
        self.directory.write(name, body)?;
        Ok(Message::Done)
    }

    fn create(&self, name: &str, body: &Followed) -> Result<Message, Refusal> {
        check_name(name)?;
        let is_new = self.directory.create(name, &body.whole(CREATE_MAX_BYTES)?)?;
        Ok(if is_new { Message::Done } else { Message::Exists })
    }

    fn remove(&self, name: &str) -> Result<Message, Refusal> {
        check_name(name)?;
        self.directory.remove(name)?;
        Ok(Message::Done)
    }

    /// Answers one byte for each record: whether it is there.
    fn known(&self, id: u32, body: &Followed) -> Result<Message, Refusal> {
        let asked = body.whole((ASKED_MAX * PART_BYTES) as u64)?;
        let mut catalog = self.catalog.lock().unwrap_or_else(PoisonError::into_inner);
        // The indexes lie in the directory itself, so nothing is copied to be remembered.
        let catalog = match catalog.take() {
            Some(mut known) => {
                known.refresh(&self.directory)?;
                catalog.insert(known)
            }
            None => catalog.insert(Catalog::open(&self.directory, &self.root)?),
        };
        let is_known = |bytes: &[u8; PART_BYTES]| Part::from_bytes(bytes).is_some_and(|part| catalog.keeps(part));
        let (parts, _) = asked.as_chunks();
        let answer: Vec<u8> = parts.iter().map(|part| u8::from(is_known(part))).collect();
        self.say_bytes(id, &answer);
        Ok(Message::Done)
    }

    fn say_bytes(&self, id: u32, bytes: &[u8]) {
        for chunk in bytes.chunks(FRAME_MAX_BYTES) {
            self.say(id, Message::Data(chunk.to_vec()));
        }
    }

    fn say_file(&self, id: u32, file: &File, span: Range<u64>) -> Result<Message, Refusal> {
        let mut at = span.start;
        while at < span.end && !self.is_deaf.load(Ordering::Relaxed) {
            let length = usize::try_from(span.end - at).unwrap_or(FRAME_MAX_BYTES).min(FRAME_MAX_BYTES);
            let mut chunk = vec![0; length];
            let failed = |error: io::Error| Refusal { trouble: Trouble::Other, said: error.to_string() };
            file.read_exact_at(&mut chunk, at).map_err(failed)?;
            at += length as u64;
            self.say(id, Message::Data(chunk));
        }
        Ok(Message::Done)
    }

    fn say(&self, id: u32, message: Message) {
        let bytes = Frame { id, message }.encode();
        let mut output = lock(&self.output);
        if output.write_all(&bytes).and_then(|()| output.flush()).is_err() {
            self.is_deaf.store(true, Ordering::Relaxed);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sees that a name leads to a file below the directory that is served, and to none that is still being written.
fn check_name(name: &str) -> Result<(), Refusal> {
    let is_sign = |sign: u8| sign.is_ascii_alphanumeric() || matches!(sign, b'-' | b'.');
    let is_part = |part: &str| {
        // Names of files that are being written begin with a dot, and so do `.` and `..`.
        !part.is_empty() && part.len() <= PART_OF_NAME_MAX_BYTES && !part.starts_with('.') && part.bytes().all(is_sign)
    };
    if name.len() <= NAME_MAX_BYTES && name.split('/').all(is_part) {
        return Ok(());
    }
    Err(Refusal { trouble: Trouble::Refused, said: "that is no name of a file in a remote".to_owned() })
}

/// What follows a request, seen by who reads the pipe.
struct Incoming {
    left: u64,
    /// Gone if nobody waits for it: the request has failed already.
    chunks: Option<SyncSender<Vec<u8>>>,
}

impl Incoming {
    /// Passes on what has come, and waits until there is room for it. Returns whether that was all.
    fn take(&mut self, chunk: Vec<u8>) -> Result<bool, ServeError> {
        self.left = self.left.checked_sub(chunk.len() as u64).ok_or(unruly("sends more than it said"))?;
        if self.chunks.as_ref().is_some_and(|chunks| chunks.send(chunk).is_err()) {
            self.chunks = None;
        }
        Ok(self.left == 0)
    }
}

/// What follows a request, seen by who answers it.
struct Followed {
    bytes: u64,
    chunks: Mutex<Option<Receiver<Vec<u8>>>>,
}

fn body_of(bytes: u64) -> (Incoming, Followed) {
    let (sender, receiver) = sync_channel(WAITING_FRAMES);
    (Incoming { left: bytes, chunks: Some(sender) }, Followed { bytes, chunks: Mutex::new(Some(receiver)) })
}

impl Followed {
    /// Returns all of it, if it is not longer than `most_bytes`.
    fn whole(&self, most_bytes: u64) -> Result<Vec<u8>, Refusal> {
        if self.bytes > most_bytes {
            let said = format!("it is longer than {most_bytes} bytes");
            return Err(Refusal { trouble: Trouble::Unsupported, said });
        }
        let mut bytes = Vec::new();
        let failed = |error: io::Error| Refusal { trouble: Trouble::Garbled, said: error.to_string() };
        self.reader().read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }
}

impl Body for Followed {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    /// It comes only once, so only the first reader gets it.
    fn reader(&self) -> Box<dyn Read + Send + '_> {
        Box::new(FollowedReader { chunks: lock(&self.chunks).take(), left: self.bytes, chunk: Vec::new(), at: 0 })
    }
}

struct FollowedReader {
    chunks: Option<Receiver<Vec<u8>>>,
    /// How many bytes have not been received yet.
    left: u64,
    chunk: Vec<u8>,
    at: usize,
}

impl Read for FollowedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() && self.left > 0 {
            let next = self.chunks.as_ref().and_then(|chunks| chunks.recv().ok());
            // Without this, a part would pass for the whole.
            let gone = || io::Error::new(io::ErrorKind::UnexpectedEof, "the rest of it did not come");
            (self.chunk, self.at) = (next.ok_or_else(gone)?, 0);
            self.left -= self.chunk.len() as u64;
        }
        let count = buffer.len().min(self.chunk.len() - self.at);
        buffer[..count].copy_from_slice(&self.chunk[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

fn unruly(what: &'static str) -> ServeError {
    ServeError::Unruly { what }
}

impl From<BucketError> for Refusal {
    fn from(error: BucketError) -> Self {
        // What was tried with what is known to who asked.
        Self { trouble: error.trouble, said: error.source.to_string() }
    }
}

impl From<RemoteError> for Refusal {
    fn from(error: RemoteError) -> Self {
        match error {
            RemoteError::Bucket(error) => error.into(),
            error => Self { trouble: Trouble::Other, said: error.to_string() },
        }
    }
}

#[cfg(test)]
mod tests;
