//! A way to a server on which things go wrong, on purpose and always alike.
//!
//! It passes on what comes over TCP; for some faults it reads just enough HTTP to tell one answer from the next.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// The connection is cut once so many bytes of requests have passed.
    CutUp(u64),
    /// The connection is cut once so many bytes of answers have passed.
    CutDown(u64),
    /// Nothing passes any more after so many bytes of answers, but the connection stays.
    StallDown(u64),
    /// Nothing passes any more after so many bytes of requests, but the connection stays.
    StallUp(u64),
    /// After so many bytes of answers, the rest comes byte by byte.
    TrickleDown(u64),
    /// The byte at this place of the answers has a bit flipped. Heads of answers are spared.
    FlipDown(u64),
    /// The byte at this place of the requests has a bit flipped. Heads of requests are spared.
    FlipUp(u64),
    /// Answers to what is fetched say that they are half as long, and are.
    Halve,
    /// A request is answered with this status, and with how many seconds to wait.
    Status(u16, Option<u32>),
    /// What is listed is what was listed first.
    StaleList,
}

/// A server that stands before another. Ends when it is dropped.
pub(super) struct Proxy {
    pub(super) port: u16,
    state: Arc<State>,
    accepting: Option<JoinHandle<()>>,
}

struct State {
    upstream: SocketAddr,
    fault: Mutex<Fault>,
    /// It goes wrong so many times more.
    left: AtomicU32,
    /// How many were.
    happened: AtomicU32,
    /// By what was asked.
    first_lists: Mutex<BTreeMap<String, Vec<u8>>>,
    ends: AtomicBool,
}

impl Proxy {
    /// Stands before the server at this port of the loopback.
    pub(super) fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            upstream: SocketAddr::from(([127, 0, 0, 1], port)),
            fault: Mutex::new(Fault::None),
            left: AtomicU32::new(0),
            happened: AtomicU32::new(0),
            first_lists: Mutex::default(),
            ends: AtomicBool::new(false),
        });
        let shared = Arc::clone(&state);
        let accepting = thread::spawn(move || {
            for client in listener.incoming() {
                if shared.ends.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(client), shared) = (client, Arc::clone(&shared)) else { continue };
                // What goes wrong here goes wrong for the client, which is the point.
                thread::spawn(move || drop(shared.pass_on(client)));
            }
        });
        Self { port: own, state, accepting: Some(accepting) }
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Lets this go wrong from now on, so many times.
    pub(super) fn set(&self, fault: Fault, times: u32) {
        *self.state.fault.lock().unwrap() = fault;
        self.state.left.store(times, Ordering::Relaxed);
        self.state.happened.store(0, Ordering::Relaxed);
    }

    /// Returns how often it went wrong.
    pub(super) fn happened(&self) -> u32 {
        self.state.happened.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.ends.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        drop(self.accepting.take().map(JoinHandle::join));
    }
}

impl State {
    /// Returns whether it goes wrong once more.
    fn strikes(&self) -> bool {
        let take = |left: u32| left.checked_sub(1);
        let strikes = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok();
        self.happened.fetch_add(strikes.into(), Ordering::Relaxed);
        strikes
    }

    /// Passes on one connection, request by request, until either side ends it.
    fn pass_on(&self, client: TcpStream) -> io::Result<()> {
        let server = TcpStream::connect(self.upstream)?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        }
        let mut trouble = Trouble { fault: *self.fault.lock().unwrap(), up: 0, down: 0, state: self };
        let passed = self.requests(&client, &server, &mut trouble);
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
        passed
    }

    fn requests(&self, mut client: &TcpStream, mut server: &TcpStream, trouble: &mut Trouble<'_>) -> io::Result<()> {
        loop {
            let Some(head) = Head::read(&mut client)? else { return Ok(()) };
            let fault = *self.fault.lock().unwrap();
            if let Fault::Status(status, retry_after) = fault
                && self.strikes()
            {
                let mut rest = Vec::new();
                head.body(&mut client).read_to_end(&mut rest)?;
                let wait = retry_after.map(|seconds| format!("Retry-After: {seconds}\r\n")).unwrap_or_default();
                write!(client, "HTTP/1.1 {status} Trouble\r\n{wait}Content-Length: 0\r\n\r\n")?;
                continue;
            }
            trouble.pass_up(&head.bytes, server, false)?;
            // A server may answer before it has read all.
            pieces(head.body(&mut client), |piece| trouble.pass_up(piece, server, true))?;
            let Some(mut answer) = Head::read(&mut server)? else { return Ok(()) };
            if head.is_for_none() {
                answer.length = Some(0);
            }
            let is_list = head.line().contains("list-type=2");
            if fault == Fault::StaleList && is_list {
                let mut body = Vec::new();
                answer.body(&mut server).read_to_end(&mut body)?;
                let asked = head.line().clone();
                let first = self.first_lists.lock().unwrap().entry(asked).or_insert(body).clone();
                let length = first.len();
                write!(client, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n")?;
                return client.write_all(&first);
            }
            if fault == Fault::Halve
                && head.line().starts_with("GET ")
                && answer.length.unwrap_or(0) > 1
                && self.strikes()
            {
                let mut body = Vec::new();
                answer.body(&mut server).read_to_end(&mut body)?;
                let half = body.len() / 2;
                client.write_all(&answer.with_length(half))?;
                client.write_all(&body[..half])?;
                continue;
            }
            trouble.pass_down(&answer.bytes, client, false)?;
            pieces(answer.body(&mut server), |piece| trouble.pass_down(piece, client, true))?;
            if answer.length.is_none() && !answer.is_chunked {
                return Ok(());
            }
        }
    }
}

/// What goes wrong on one connection.
struct Trouble<'a> {
    fault: Fault,
    up: u64,
    down: u64,
    state: &'a State,
}

impl Trouble<'_> {
    fn pass_up(&mut self, piece: &[u8], to: &TcpStream, is_body: bool) -> io::Result<()> {
        let before = self.up;
        self.up += piece.len() as u64;
        let at = match self.fault {
            Fault::CutUp(at) | Fault::StallUp(at) => at,
            Fault::FlipUp(at) if is_body => at,
            _ => u64::MAX,
        };
        self.pass(piece, to, before, at)
    }

    fn pass_down(&mut self, piece: &[u8], to: &TcpStream, is_body: bool) -> io::Result<()> {
        let before = self.down;
        self.down += piece.len() as u64;
        let at = match self.fault {
            Fault::CutDown(at) | Fault::StallDown(at) | Fault::TrickleDown(at) => at,
            Fault::FlipDown(at) if is_body => at,
            _ => u64::MAX,
        };
        self.pass(piece, to, before, at)
    }

    /// Passes on a piece that begins at `before`; at the place `at`, it goes wrong.
    fn pass(&mut self, piece: &[u8], mut to: &TcpStream, before: u64, at: u64) -> io::Result<()> {
        if before + piece.len() as u64 <= at {
            return to.write_all(piece);
        }
        let fault = std::mem::replace(&mut self.fault, Fault::None);
        if !self.state.strikes() {
            return to.write_all(piece);
        }
        let at = within(at, before);
        to.write_all(&piece[..at])?;
        match fault {
            Fault::CutUp(_) | Fault::CutDown(_) => Err(io::ErrorKind::ConnectionAborted.into()),
            Fault::StallUp(_) | Fault::StallDown(_) => {
                while !self.state.ends.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(20));
                }
                Err(io::ErrorKind::TimedOut.into())
            }
            Fault::TrickleDown(_) => {
                for byte in &piece[at..] {
                    to.write_all(&[*byte])?;
                    thread::sleep(Duration::from_millis(5));
                }
                // All that follows goes the same way.
                self.fault = Fault::TrickleDown(0);
                self.state.left.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            _ => {
                to.write_all(&[piece[at] ^ 1])?;
                to.write_all(&piece[at + 1..])
            }
        }
    }
}

/// Returns a place of the whole as one of a piece that begins at `before`.
fn within(at: u64, before: u64) -> usize {
    usize::try_from(at.saturating_sub(before)).unwrap()
}

/// The head of a request or an answer, as it came.
struct Head {
    bytes: Vec<u8>,
    /// How long the body is, if that is said.
    length: Option<u64>,
    is_chunked: bool,
}

impl Head {
    /// Reads up to the empty line; `None` if the other side ended the connection before.
    fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        let mut byte = [0];
        while !bytes.ends_with(b"\r\n\r\n") {
            match from.read(&mut byte)? {
                0 => return Ok(None),
                _ => bytes.push(byte[0]),
            }
        }
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let is_chunked = value("transfer-encoding:") == Some("chunked");
        let length = value("content-length:").and_then(|length| length.parse().ok());
        // A request says how long its body is, or has none; some answers never have one.
        let has_none = !text.starts_with("http/") && !is_chunked;
        let has_none = has_none || ["204", "304"].iter().any(|status| text.starts_with(&format!("http/1.1 {status}")));
        Ok(Some(Self { bytes, length: length.or(has_none.then_some(0)), is_chunked }))
    }

    fn line(&self) -> String {
        String::from_utf8_lossy(&self.bytes).lines().next().unwrap_or_default().to_owned()
    }

    /// Returns whether the answer to this request has no body, whatever it says.
    fn is_for_none(&self) -> bool {
        self.line().starts_with("HEAD ")
    }

    fn body<'a>(&self, from: &'a mut impl Read) -> Box<dyn Read + 'a> {
        if self.is_chunked {
            Box::new(Chunks { from, ends: false, left: 0 })
        } else {
            Box::new(from.take(self.length.unwrap_or(u64::MAX)))
        }
    }

    fn with_length(&self, length: usize) -> Vec<u8> {
        let text = String::from_utf8_lossy(&self.bytes);
        let kept = text.trim_end().lines().filter(|line| !line.to_ascii_lowercase().starts_with("content-length:"));
        let kept: Vec<_> = kept.collect();
        format!("{}\r\nContent-Length: {length}\r\n\r\n", kept.join("\r\n")).into_bytes()
    }
}

/// Reads chunks as they are, their lengths included.
struct Chunks<'a, R: Read> {
    from: &'a mut R,
    left: u64,
    ends: bool,
}

impl<R: Read> Read for Chunks<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            if self.ends {
                return Ok(0);
            }
            let mut line = Vec::new();
            let mut byte = [0];
            while !line.ends_with(b"\r\n") {
                if self.from.read(&mut byte)? == 0 {
                    return Ok(0);
                }
                line.push(byte[0]);
            }
            let text = String::from_utf8_lossy(&line);
            let length = u64::from_str_radix(text.trim().split(';').next().unwrap_or_default(), 16);
            let length = length.map_err(|_| io::ErrorKind::InvalidData)?;
            self.ends = length == 0;
            // The chunk, and the end of its line.
            self.left = length + 2;
            buffer[..line.len()].copy_from_slice(&line);
            return Ok(line.len());
        }
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.from.read(&mut buffer[..most])?;
        self.left -= count as u64;
        Ok(count)
    }
}

/// Gives each piece away as it comes.
fn pieces(mut from: impl Read, mut give: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            count => give(&buffer[..count])?,
        }
    }
}
