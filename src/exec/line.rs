//! Between a job and those it talks to: connections that it makes end here, and go on to whom it meant or are given what was kept.
//!
//! When a job connects a socket, the call waits for our answer. Meanwhile a copy of that socket, which is as good as
//! the socket itself, is connected to us, on the loopback, and the call is answered as that went. Whether it
//! could have been connected to whom it meant is found out before; if not, the call fails for the same reason. Where
//! any of this is not possible the call goes on as if nobody had looked.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, PipeReader, PipeWriter};
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, ipproto, sockopt};

use super::datagrams::{self, Side};
use super::filter::Socket;
use super::memory::{Memory, descriptor, leader};
use super::names::{self, End};
use super::network::{Begun, Conversation, Kind, Network, Turn};
use super::peers::Contact;
use super::relay::{self, Choice, Gave};

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
    /// Whom connections would lead to, by the ports of the job's socket and of ours.
    ends: Mutex<BTreeMap<(u16, u16), End>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    stop: PipeReader,
    going: Mutex<Option<PipeWriter>>,
}

/// A connection that a job wants.
struct Wanted {
    /// A copy of the job's socket.
    socket: OwnedFd,
    family: AddressFamily,
    kind: Kind,
    peer: SocketAddr,
    /// By what it is kept, if it is.
    number: usize,
}

/// Has the line of a job. Dropping it ends that, and all of its threads.
pub(super) struct Owner(pub(super) Arc<Line>);

impl Owner {
    /// Returns one for a job to whom others answer in this way; `None` where they answer themselves.
    ///
    /// # Errors
    ///
    /// What the system says if there can be no pipe.
    pub(super) fn new(network: &Network) -> io::Result<Option<Self>> {
        if *network == Network::Real {
            return Ok(None);
        }
        let (stop, going) = io::pipe()?;
        Ok(Some(Self(Arc::new(Line {
            network: network.clone(),
            given: Mutex::default(),
            anew: Mutex::default(),
            ends: Mutex::default(),
            threads: Mutex::default(),
            stop,
            going: Mutex::new(Some(going)),
        }))))
    }

    /// Waits until all connections of a job that is over are closed; returns whom it talked to for real although there is a record.
    pub(super) fn finish(self) -> BTreeSet<String> {
        self.end();
        mem::take(&mut *lock(&self.0.anew))
    }

    fn end(&self) {
        drop(lock(&self.0.going).take());
        loop {
            let threads = mem::take(&mut *lock(&self.0.threads));
            if threads.is_empty() {
                return;
            }
            for thread in threads {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.end();
    }
}

impl Line {
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
                _ if self.open(&lock(&self.given), peer.socket(), Kind::Stream).next().is_some() => peer.socket(),
                _ => return false,
            },
        };
        let copy = leader(thread)
            .filter(|process| sees_our_network(*process))
            .and_then(|process| descriptor(process, socket))
            .filter(|_| is_waiting());
        let Some((socket, (family, kind))) = copy.and_then(|copy| kind_of(&copy).map(|kind| (copy, kind))) else {
            self.passes_by(contact);
            return false;
        };
        if kind == Kind::Stream && names::addresses(&socket).is_some() {
            // It asks what became of a connection that it has.
            return false;
        }
        // A number for it now, so that conversations are in the order of the calls.
        let number = match &self.network {
            Network::Kept(recorder) => recorder.begin(peer, kind, Begun::Unknown),
            _ => 0,
        };
        let wanted = Wanted { socket, family, kind, peer, number };
        let line = Arc::clone(self);
        self.spawn(move || line.serve(wanted, answer))
    }

    /// Takes over a call that asks for the addresses of a socket, or with a datagram for that of whoever sent it, and has it answered now or
    /// later. Returns whether it was taken over.
    pub(super) fn asks(
        self: &Arc<Self>,
        asked: Socket,
        thread: i32,
        arguments: [u64; 6],
        memory: Memory,
        answer: impl FnOnce(Answer) + Send + 'static,
    ) -> bool {
        let Some(socket) = leader(thread).and_then(|process| descriptor(process, arguments[0])) else { return false };
        let Some(end) = self.end(&socket) else { return false };
        if let Some(answered) = names::answer(asked, &socket, end, &arguments, &memory) {
            answer(Some(answered));
            return true;
        }
        let is_hurried = is_hurried(&socket) || arguments[3] & u64::from(libc::MSG_DONTWAIT.unsigned_abs()) != 0;
        if asked != Socket::Receive || is_hurried || kind_of(&socket).is_none_or(|(_, kind)| kind != Kind::Datagrams) {
            return false;
        }
        let line = Arc::clone(self);
        self.spawn(move || {
            let limit = sockopt::socket_timeout(&socket, sockopt::Timeout::Recv).unwrap_or_default();
            let both = [(socket.as_fd(), PollFlags::IN), (line.stop.as_fd(), PollFlags::IN)];
            let _ = relay::wait(&both, limit);
            let answered = names::answer(asked, &socket, end, &arguments, &memory);
            answer(Some(answered.unwrap_or(Err(libc::EAGAIN))));
        })
    }

    /// Returns whom a socket would be connected to that is connected to us.
    fn end(&self, socket: &OwnedFd) -> Option<End> {
        let [own, ours] = names::addresses(socket)?;
        lock(&self.ends).get(&(own.port(), ours.port())).copied().filter(|_| ours.ip().is_loopback())
    }

    fn spawn(&self, work: impl FnOnce() + Send + 'static) -> bool {
        let thread = Builder::new().name("line".to_owned()).spawn(work);
        thread.map(|thread| lock(&self.threads).push(thread)).is_ok()
    }

    /// Connects a job's socket, or says why not, and carries the conversation to its end.
    fn serve(&self, wanted: Wanted, answer: impl FnOnce(Answer)) {
        let peer = wanted.peer;
        match (self.on_record(peer, wanted.kind), wanted.kind) {
            (Some(Err(error)), _) => answer(Some(Err(error))),
            (Some(Ok(own)), Kind::Stream) => {
                if let Some(job) = self.attach(wanted, own, answer) {
                    self.give(&job, peer);
                }
            }
            (None, Kind::Stream) => self.pass_on(wanted, answer),
            (Some(Ok(own)), Kind::Datagrams) => self.post(wanted, Ok(own), answer),
            (None, Kind::Datagrams) => match datagrams::connect(peer) {
                Ok(other) => self.post(wanted, Err(other), answer),
                Err(error) => {
                    self.begun(&wanted, Begun::Refused(error.raw_os_error()));
                    answer(Some(Err(error.raw_os_error())));
                }
            },
        }
    }

    /// Returns how the next connection to somebody begins, if there is one on record: with which address of the job's, or how it
    /// fails, which has been given with that.
    fn on_record(&self, peer: SocketAddr, kind: Kind) -> Option<Result<Option<IpAddr>, i32>> {
        let mut given = lock(&self.given);
        let (number, next) = self.open(&given, peer, kind).next()?;
        Some(match next.begun {
            Begun::Refused(error) => {
                // Whether there is a way to somebody is no turn of his.
                if kind == Kind::Stream {
                    given.insert(number);
                }
                Err(error)
            }
            Begun::At(own) => Ok(Some(own.ip())),
            Begun::Unknown => Ok(None),
        })
    }

    /// Returns the conversations with somebody that are on record and have not been given.
    fn open<'l>(
        &'l self,
        given: &'l BTreeSet<usize>,
        peer: SocketAddr,
        kind: Kind,
    ) -> impl Iterator<Item = (usize, &'l Conversation)> + use<'l> {
        let record = if let Network::Given(record) = &self.network { record.conversations() } else { &[] };
        let is_open = move |(number, conversation): &(usize, &Conversation)| {
            conversation.peer == peer && conversation.kind == kind && !given.contains(number)
        };
        record.iter().enumerate().filter(is_open)
    }

    fn begun(&self, wanted: &Wanted, begun: Begun) {
        if let Network::Kept(recorder) = &self.network {
            recorder.begun(wanted.number, begun);
        }
    }

    fn note(&self, number: usize, turn: Turn) {
        if let Network::Kept(recorder) = &self.network {
            recorder.note(number, turn);
        }
    }

    /// Connects a job's socket to us as it would have been to somebody, who then hears what it says.
    fn pass_on(&self, wanted: Wanted, answer: impl FnOnce(Answer)) {
        let Wanted { peer, number, .. } = wanted;
        let is_hurried = is_hurried(&wanted.socket);
        if matches!(self.network, Network::Given(_)) {
            self.asks_anew(peer);
        }
        let other = match relay::connect(peer, if is_hurried { CONNECT_SOON } else { CONNECT_MAX }, &self.stop) {
            Ok(other) => other,
            Err(Errno::TIMEDOUT) if is_hurried => {
                // It goes on trying by itself.
                self.asks_anew(peer);
                answer(None);
                return;
            }
            Err(error) => {
                self.begun(&wanted, Begun::Refused(error.raw_os_error()));
                answer(Some(Err(error.raw_os_error())));
                return;
            }
        };
        let own = other.local_addr().ok();
        self.begun(&wanted, own.map_or(Begun::Unknown, Begun::At));
        if let Some(job) = self.attach(wanted, own.map(|own| own.ip()), answer) {
            relay::pass_on(&job, &other, Vec::new(), &mut |turn| self.note(number, turn), &self.stop);
        }
    }

    /// Connects a job's socket to us and says so; returns our end. Where that cannot be, lets the job connect it by itself.
    fn attach(&self, wanted: Wanted, own: Option<IpAddr>, answer: impl FnOnce(Answer)) -> Option<TcpStream> {
        let connected = listen(wanted.family).and_then(|listener| {
            let address = seen_by(wanted.family, listener.local_addr()?);
            let said = match rustix::net::connect(&wanted.socket, &address) {
                Ok(()) => Ok(0),
                // It finds out at once that it is connected.
                Err(Errno::INPROGRESS) => Err(libc::EINPROGRESS),
                Err(error) => return Err(error.into()),
            };
            let from = TcpStream::from(wanted.socket.try_clone()?).local_addr()?;
            lock(&self.ends).insert((from.port(), address.port()), End { peer: wanted.peer, own });
            Ok((listener, said, from))
        });
        let connected = connected.map_err(|_| self.begun(&wanted, Begun::Unknown));
        // Nobody but the job has it from here on, so that it is closed when the job closes it.
        drop(wanted.socket);
        if let Ok((listener, said, from)) = connected {
            answer(Some(said));
            return relay::accept(&listener, from, &self.stop);
        }
        self.asks_anew(wanted.peer);
        answer(None);
        None
    }

    /// Connects a job's socket for datagrams to us, and gives it what is on record for it, at this address of its own, or what
    /// somebody says who hears it.
    fn post(&self, wanted: Wanted, other: Result<Option<IpAddr>, UdpSocket>, answer: impl FnOnce(Answer)) {
        let Wanted { peer, number, .. } = wanted;
        let own = match &other {
            Ok(own) => *own,
            Err(other) => other.local_addr().ok().map(|own| own.ip()),
        };
        self.begun(&wanted, own.map_or(Begun::Unknown, |own| Begun::At((own, 0).into())));
        let connected = (|| {
            let socket = match wanted.family {
                AddressFamily::INET6 => UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)),
                _ => Err(io::ErrorKind::Unsupported.into()),
            };
            let socket = socket.or_else(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)))?;
            socket.set_nonblocking(true)?;
            let address = seen_by(wanted.family, socket.local_addr()?);
            rustix::net::connect(&wanted.socket, &address)?;
            let from = UdpSocket::from(wanted.socket.try_clone()?).local_addr()?;
            socket.connect((from.ip().to_canonical(), from.port()))?;
            lock(&self.ends).insert((from.port(), address.port()), End { peer, own });
            Ok::<_, io::Error>(Side { socket, inode: rustix::fs::fstat(&wanted.socket)?.st_ino, stop: &self.stop })
        })();
        let connected = connected.map_err(|_| self.begun(&wanted, Begun::Unknown));
        drop(wanted.socket);
        let Ok(side) = connected else {
            self.asks_anew(peer);
            answer(None);
            return;
        };
        answer(Some(Ok(0)));
        let (other, said) = match other {
            Err(other) => (other, None),
            Ok(_) => {
                let choose = |said: &[u8]| self.posted_first(peer, said);
                let Some(said) = datagrams::give(&side, peer, &choose) else { return };
                self.asks_anew(peer);
                let Ok(other) = datagrams::connect(peer) else { return };
                (other, Some(said))
            }
        };
        let mut note = |turn| {
            if matches!((&self.network, &turn), (Network::Given(_), Turn::Said(_))) {
                self.asks_anew(peer);
            }
            self.note(number, turn);
        };
        datagrams::pass_on(&side, &other, said, &mut note);
    }

    /// Takes the first conversation in datagrams on record with somebody in which a job says this first.
    fn posted_first(&self, peer: SocketAddr, said: &[u8]) -> Option<&Conversation> {
        let mut given = lock(&self.given);
        let is_it = |(_, conversation): &(usize, &Conversation)| matches!(conversation.turns.first(), Some(Turn::Said(then)) if datagrams::is_same(peer, then, said));
        let number = self.open(&given, peer, Kind::Datagrams).find(is_it)?.0;
        given.insert(number);
        let Network::Given(record) = &self.network else { return None };
        record.conversations().get(number)
    }

    /// Gives a job a conversation that is on record.
    fn give(&self, job: &TcpStream, peer: SocketAddr) {
        let Network::Given(record) = &self.network else { return };
        let (chosen, said, has_left) = match self.spoken_first(peer) {
            Some(number) => (Some(number), Vec::new(), false),
            None => {
                let choose = |said: &[u8], has_left: bool| self.choose(peer, said, has_left);
                match relay::first_words(job, &choose, &self.stop) {
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
        let (number, next) = self.open(&given, peer, Kind::Stream).next()?;
        let is_his = !matches!(next.turns.first(), Some(Turn::Said(_) | Turn::Left));
        is_his.then(|| {
            given.insert(number);
            number
        })
    }

    /// Takes the first conversation on record with somebody in which a job says at first what it `said` now.
    fn choose(&self, peer: SocketAddr, said: &[u8], has_left: bool) -> Choice {
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
        let found = self.open(&given, peer, Kind::Stream).find(is_it).map(|(number, _)| number);
        match found {
            Some(number) => {
                given.insert(number);
                Choice::This(number)
            }
            None if may_be => Choice::Unknown,
            None => Choice::Nothing,
        }
    }

    fn asks_anew(&self, peer: SocketAddr) {
        lock(&self.anew).insert(peer.to_string());
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

/// Returns the family of a socket and what it is for, if that is TCP or UDP.
fn kind_of(socket: &OwnedFd) -> Option<(AddressFamily, Kind)> {
    let family = sockopt::socket_domain(socket).ok()?;
    let protocol = sockopt::socket_protocol(socket).ok()??;
    let kind = match sockopt::socket_type(socket).ok()? {
        SocketType::STREAM if protocol == ipproto::TCP => Kind::Stream,
        SocketType::DGRAM if protocol == ipproto::UDP => Kind::Datagrams,
        _ => return None,
    };
    [AddressFamily::INET, AddressFamily::INET6].contains(&family).then_some((family, kind))
}

/// Returns whether nobody may be kept waiting by a socket.
fn is_hurried(socket: &OwnedFd) -> bool {
    rustix::fs::fcntl_getfl(socket).is_ok_and(|flags| flags.contains(OFlags::NONBLOCK))
}

/// Listens on the loopback where a socket of this family reaches it.
///
/// # Errors
///
/// What the system says if there can be no such socket.
fn listen(family: AddressFamily) -> io::Result<TcpListener> {
    if family == AddressFamily::INET6
        && let Ok(listener) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0))
    {
        return Ok(listener);
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
}

/// Returns an address as a socket of this family means it.
fn seen_by(family: AddressFamily, address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if family == AddressFamily::INET6 => (ip.to_ipv6_mapped(), address.port()).into(),
        _ => address,
    }
}
