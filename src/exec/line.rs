//! Between a job and those it talks to: connections that it makes end here, and go on to whom it meant or are given what was kept.
//!
//! When a job connects a socket, the call waits for our answer. Meanwhile a copy of that socket, which is as good as
//! the socket itself, is connected to us, on the loopback, and the call is answered as that went. Whether it
//! could have been connected to whom it meant is found out before; if not, the call fails for the same reason. Where
//! any of this is not possible the call goes on as if nobody had looked.

use std::collections::BTreeSet;
use std::io::{self, PipeReader, PipeWriter};
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, ipproto, sockopt};

use super::memory::{descriptor, leader};
use super::network::{Begun, Conversation, Kind, Network, Turn};
use super::peers::Contact;
use super::relay::{self, Gave};

/// Whoever waits for a connection waits no longer than for the kernel's own, which takes some two minutes.
const CONNECT_MAX: Duration = Duration::from_secs(130);
/// Whoever does not want to wait is not kept waiting for longer.
const CONNECT_SOON: Duration = Duration::from_secs(3);

/// How a call that waits is answered: `None` lets it go on.
pub(super) type Answer = Option<Result<i64, i32>>;

/// All connections of a job.
pub(super) struct Line {
    network: Network,
    /// Which of the conversations on record have been given.
    given: Mutex<BTreeSet<usize>>,
    /// Whom it talked to for real although there is a record.
    anew: Mutex<BTreeSet<String>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    stop: PipeReader,
    going: Mutex<Option<PipeWriter>>,
}

impl Line {
    /// Returns what answers for others in this way; `None` where they answer themselves.
    ///
    /// # Errors
    ///
    /// What the system says if there can be no pipe.
    pub(super) fn new(network: &Network) -> io::Result<Option<Arc<Self>>> {
        if *network == Network::Real {
            return Ok(None);
        }
        let (stop, going) = io::pipe()?;
        Ok(Some(Arc::new(Self {
            network: network.clone(),
            given: Mutex::default(),
            anew: Mutex::default(),
            threads: Mutex::default(),
            stop,
            going: Mutex::new(Some(going)),
        })))
    }

    /// Waits until all connections of a job that is over are closed; returns whom it talked to for real although there is a record.
    pub(super) fn finish(&self) -> BTreeSet<String> {
        drop(lock(&self.going).take());
        loop {
            let threads = mem::take(&mut *lock(&self.threads));
            if threads.is_empty() {
                return lock(&self.anew).clone();
            }
            for thread in threads {
                let _ = thread.join();
            }
        }
    }

    /// Takes note that a job talks to somebody in a way that does not lead through here.
    pub(super) fn passes_by(&self, contact: Contact) {
        if let Contact::Other(peer) = contact {
            self.asks_anew(peer.socket());
        }
    }

    /// Takes over a call that connects a socket, and has it answered later. Returns whether it was taken over.
    ///
    /// `is_waiting` tells whether whoever made the call still waits, so that what was read of it is its own.
    pub(super) fn connects(
        self: &Arc<Self>,
        thread: i32,
        socket: u64,
        contact: Contact,
        is_waiting: impl FnOnce() -> bool,
        answer: impl FnOnce(Answer) + Send + 'static,
    ) -> bool {
        let peer = match contact {
            Contact::Own(_) => return false,
            Contact::Other(peer) => peer.socket(),
            Contact::Nobody(peer) => match &self.network {
                Network::Kept(recorder) => {
                    recorder.begin(peer.socket(), Kind::Stream, Begun::Refused(libc::ECONNREFUSED));
                    return false;
                }
                // Whoever is not there any more may have been there before.
                _ if self.open(&lock(&self.given), peer.socket()).next().is_some() => peer.socket(),
                _ => return false,
            },
        };
        let copy = leader(thread)
            .filter(|process| sees_our_network(*process))
            .and_then(|process| descriptor(process, socket))
            .filter(|_| is_waiting());
        let Some(copy) = copy else {
            self.passes_by(contact);
            return false;
        };
        let copy = TcpStream::from(copy);
        if copy.peer_addr().is_ok() {
            // It asks what became of a connection that it has.
            return false;
        }
        let Some(family) = stream_of(&copy) else {
            self.passes_by(contact);
            return false;
        };
        // A number for it now, so that conversations are in the order of the calls.
        let number = match &self.network {
            Network::Kept(recorder) => recorder.begin(peer, Kind::Stream, Begun::Unknown),
            _ => 0,
        };
        let line = Arc::clone(self);
        let work = move || line.serve(copy, family, peer, number, answer);
        match Builder::new().name("line".to_owned()).spawn(work) {
            Ok(thread) => lock(&self.threads).push(thread),
            Err(_) => self.passes_by(contact),
        }
        true
    }

    /// Connects a job's socket, or says why not, and carries the conversation to its end.
    fn serve(
        &self,
        copy: TcpStream,
        family: AddressFamily,
        peer: SocketAddr,
        number: usize,
        answer: impl FnOnce(Answer),
    ) {
        match self.on_record(peer) {
            Some(Err(error)) => answer(Some(Err(error))),
            Some(Ok(())) => {
                if let Some(job) = self.attach(copy, family, peer, answer) {
                    self.give(&job, peer);
                }
            }
            None => self.pass_on(copy, family, peer, number, answer),
        }
    }

    /// Returns how the next connection to somebody begins, if there is one on record; what failed has been given with that.
    fn on_record(&self, peer: SocketAddr) -> Option<Result<(), i32>> {
        let mut given = lock(&self.given);
        let (number, next) = self.open(&given, peer).next()?;
        Some(match next.begun {
            Begun::Refused(error) => {
                given.insert(number);
                Err(error)
            }
            _ => Ok(()),
        })
    }

    /// Returns the conversations with somebody that are on record and have not been given.
    fn open<'l>(
        &'l self,
        given: &'l BTreeSet<usize>,
        peer: SocketAddr,
    ) -> impl Iterator<Item = (usize, &'l Conversation)> + use<'l> {
        let record = if let Network::Given(record) = &self.network { record.conversations() } else { &[] };
        let is_open = move |(number, conversation): &(usize, &Conversation)| {
            conversation.peer == peer && conversation.kind == Kind::Stream && !given.contains(number)
        };
        record.iter().enumerate().filter(is_open)
    }

    /// Connects a job's socket to us as it would have been to somebody, who then hears what it says.
    fn pass_on(
        &self,
        copy: TcpStream,
        family: AddressFamily,
        peer: SocketAddr,
        number: usize,
        answer: impl FnOnce(Answer),
    ) {
        let is_hurried = rustix::fs::fcntl_getfl(&copy).is_ok_and(|flags| flags.contains(OFlags::NONBLOCK));
        let limit = if is_hurried { CONNECT_SOON } else { CONNECT_MAX };
        let recorder = if let Network::Kept(recorder) = &self.network { Some(recorder) } else { None };
        if recorder.is_none() {
            self.asks_anew(peer);
        }
        let begun = |begun| {
            if let Some(recorder) = recorder {
                recorder.begun(number, begun);
            }
        };
        let other = match relay::connect(peer, limit, &self.stop) {
            Ok(other) => other,
            Err(Errno::TIMEDOUT) if is_hurried => {
                // It goes on trying by itself.
                self.asks_anew(peer);
                answer(None);
                return;
            }
            Err(error) => {
                begun(Begun::Refused(error.raw_os_error()));
                answer(Some(Err(error.raw_os_error())));
                return;
            }
        };
        begun(other.local_addr().map_or(Begun::Unknown, Begun::At));
        let Some(job) = self.attach(copy, family, peer, answer) else {
            begun(Begun::Unknown);
            return;
        };
        let mut note = |turn| {
            if let Some(recorder) = recorder {
                recorder.note(number, turn);
            }
        };
        relay::pass_on(&job, &other, Vec::new(), &mut note, &self.stop);
    }

    /// Connects a job's socket to us and says so; returns our end. Where that cannot be, lets the job connect it by itself.
    fn attach(
        &self,
        copy: TcpStream,
        family: AddressFamily,
        peer: SocketAddr,
        answer: impl FnOnce(Answer),
    ) -> Option<TcpStream> {
        let connected = listen(family).and_then(|(listener, address)| {
            let said = match rustix::net::connect(&copy, &address) {
                Ok(()) => Ok(0),
                // It finds out at once that it is connected.
                Err(Errno::INPROGRESS) => Err(libc::EINPROGRESS),
                Err(error) => return Err(error.into()),
            };
            Ok((listener, said, copy.local_addr()?))
        });
        // Nobody but the job has it from here on, so that it is closed when the job closes it.
        drop(copy);
        match connected {
            Ok((listener, said, from)) => {
                answer(Some(said));
                relay::accept(&listener, from, &self.stop)
            }
            Err(_) => {
                self.asks_anew(peer);
                answer(None);
                None
            }
        }
    }

    /// Gives a job a conversation that is on record.
    fn give(&self, job: &TcpStream, peer: SocketAddr) {
        let Network::Given(record) = &self.network else { return };
        let (chosen, said, has_left) = match self.spoken_first(peer) {
            Some(number) => (Some(number), Vec::new(), false),
            None => {
                let mut choose = |said: &[u8], has_left: bool| self.choose(peer, said, has_left);
                match relay::first_words(job, &mut choose, &self.stop) {
                    Some(chosen) => chosen,
                    None => return,
                }
            }
        };
        let unanswered = match chosen {
            Some(number) => relay::give(job, &record.conversations()[number], said, has_left, &self.stop),
            None => Gave::Else(said),
        };
        if let Gave::Else(said) = unanswered
            && !said.is_empty()
        {
            // Whatever is not on record is said for real.
            self.asks_anew(peer);
            match relay::connect(peer, CONNECT_MAX, &self.stop) {
                Ok(other) => relay::pass_on(job, &other, said, &mut |_| {}, &self.stop),
                Err(_) => relay::break_off(job),
            }
        }
    }

    /// Takes the next conversation on record with somebody, if he is the one who begins it.
    fn spoken_first(&self, peer: SocketAddr) -> Option<usize> {
        let mut given = lock(&self.given);
        let (number, next) = self.open(&given, peer).next()?;
        let is_his = !matches!(next.turns.first(), Some(Turn::Said(_) | Turn::Left));
        is_his.then(|| {
            given.insert(number);
            number
        })
    }

    /// Takes the first conversation on record with somebody in which a job says at first what it `said` now; `Some(None)` if
    /// there is none, `None` if that is not known yet.
    fn choose(&self, peer: SocketAddr, said: &[u8], has_left: bool) -> Option<Option<usize>> {
        let mut given = lock(&self.given);
        let mut may_be = false;
        let is_it = |(_, conversation): &(usize, &Conversation)| match conversation.turns.first() {
            Some(Turn::Said(then)) => {
                may_be |= !has_left && then.starts_with(said);
                said.starts_with(then)
            }
            Some(Turn::Left) => has_left && said.is_empty(),
            _ => false,
        };
        let found = self.open(&given, peer).find(is_it).map(|(number, _)| number);
        if let Some(number) = found {
            given.insert(number);
            return Some(Some(number));
        }
        if may_be { None } else { Some(None) }
    }

    fn asks_anew(&self, peer: SocketAddr) {
        lock(&self.anew).insert(peer.to_string());
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.finish();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is in it is whole after every change, so a panic elsewhere does not make it wrong.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns whether a process has the same loopback as this one.
fn sees_our_network(process: i32) -> bool {
    let space = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
    space(&process.to_string()) == space("self")
}

/// Returns the family of a socket if it is one for TCP.
fn stream_of(socket: &TcpStream) -> Option<AddressFamily> {
    let family = sockopt::socket_domain(socket).ok()?;
    let is_stream = sockopt::socket_type(socket).is_ok_and(|kind| kind == SocketType::STREAM);
    let is_tcp = sockopt::socket_protocol(socket).is_ok_and(|protocol| protocol == Some(ipproto::TCP));
    (is_stream && is_tcp && [AddressFamily::INET, AddressFamily::INET6].contains(&family)).then_some(family)
}

/// Listens on the loopback; returns where a socket of this family finds that.
///
/// # Errors
///
/// What the system says if there can be no such socket.
fn listen(family: AddressFamily) -> io::Result<(TcpListener, SocketAddr)> {
    if family == AddressFamily::INET6
        && let Ok(listener) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0))
    {
        let address = listener.local_addr()?;
        return Ok((listener, address));
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let mapped = SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), address.port()));
    Ok((listener, if family == AddressFamily::INET6 { mapped } else { address }))
}
