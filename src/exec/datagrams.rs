//! Datagrams of a job that go through us: passed on and kept, or given again.
//!
//! A socket for datagrams has no end that anybody hears of, so it is looked at now and then whether the job still has it.

use std::io::{ErrorKind, PipeReader};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;

use super::network::{Conversation, Turn};
use super::relay::wait;

/// The longest datagram that there can be, in bytes.
const DATAGRAM_MAX: usize = 1 << 16;
/// The port of servers for names. Questions to them are numbered, and an answer has the number of its question.
const NAMES_PORT: u16 = 53;
/// How long that number is, at the beginning of questions and answers, in bytes.
const NUMBER: usize = 2;
/// So often it is looked whether a job still has a socket.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Returns a socket for datagrams to somebody.
///
/// # Errors
///
/// What the system says, as the job would be told.
pub(super) fn connect(peer: SocketAddr) -> Result<UdpSocket, Errno> {
    let any: SocketAddr =
        if peer.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let open = || {
        let socket = UdpSocket::bind(any)?;
        socket.set_nonblocking(true)?;
        socket.connect(peer)?;
        Ok(socket)
    };
    open().map_err(|error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::NETUNREACH))
}

/// A job's side of a conversation: our socket, to which that of the job is connected.
pub(super) struct Side<'l> {
    pub(super) socket: UdpSocket,
    /// The number of the job's socket in the kernel's tables.
    pub(super) inode: u64,
    pub(super) stop: &'l PipeReader,
}

/// What there is to do.
#[derive(Clone, Copy, Default)]
struct Ready {
    job: bool,
    other: bool,
    /// The job is over.
    stop: bool,
}

impl Side<'_> {
    /// Waits until somebody has said something; `None` if the job has closed its socket.
    fn ready(&self, other: Option<&UdpSocket>) -> Option<Ready> {
        loop {
            let mut asked = vec![(self.socket.as_fd(), PollFlags::IN), (self.stop.as_fd(), PollFlags::IN)];
            asked.extend(other.map(|other| (other.as_fd(), PollFlags::IN)));
            let ready = wait(&asked, Some(LOOK_EVERY)).ok()?;
            let is_ready = |at: usize| ready.get(at).is_some_and(|flags| !flags.is_empty());
            let ready = Ready { job: is_ready(0), other: is_ready(2), stop: is_ready(1) };
            if ready.job || ready.other || ready.stop {
                return Some(ready);
            }
            if !is_open(self.inode) {
                return None;
            }
        }
    }
}

/// Returns whether a socket for datagrams is still open anywhere.
fn is_open(inode: u64) -> bool {
    let inode = inode.to_string();
    ["udp", "udp6"].iter().any(|kind| {
        let table = std::fs::read_to_string(format!("/proc/self/net/{kind}")).unwrap_or_default();
        table.lines().any(|line| line.split_ascii_whitespace().nth(9) == Some(&inode))
    })
}

/// What came of taking a datagram.
enum Come {
    Nothing,
    Datagram(Vec<u8>),
    /// Nobody is there.
    Nobody,
}

fn take(socket: &UdpSocket) -> Come {
    let mut bytes = vec![0; DATAGRAM_MAX];
    match socket.recv(&mut bytes) {
        Ok(length) => {
            bytes.truncate(length);
            Come::Datagram(bytes)
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Come::Nothing,
        Err(_) => Come::Nobody,
    }
}

/// Passes on what two sides say, beginning with what the job `said` already, and lets `note` see it, until the job has closed
/// its socket or nobody is there.
pub(super) fn pass_on(side: &Side<'_>, other: &UdpSocket, said: Option<Vec<u8>>, note: &mut dyn FnMut(Turn)) {
    // What is lost is lost, as with any datagram.
    said.iter().for_each(|said| drop(other.send(said)));
    while let Some(ready) = side.ready(Some(other)) {
        if ready.job {
            match take(&side.socket) {
                Come::Nothing => {}
                Come::Datagram(bytes) => {
                    note(Turn::Said(bytes.clone()));
                    let _ = other.send(&bytes);
                    continue;
                }
                Come::Nobody => return,
            }
        }
        if ready.stop {
            return;
        }
        if ready.other {
            match take(other) {
                Come::Nothing => {}
                Come::Datagram(bytes) => {
                    note(Turn::Heard(bytes.clone()));
                    let _ = side.socket.send(&bytes);
                }
                Come::Nobody => {
                    note(Turn::Broken);
                    return;
                }
            }
        }
    }
}

/// Returns whether a datagram to `peer` says what another said.
pub(super) fn is_same(peer: SocketAddr, one: &[u8], other: &[u8]) -> bool {
    let without_number = |datagram: &[u8]| datagram.get(NUMBER..).map(<[u8]>::to_vec);
    one == other || peer.port() == NAMES_PORT && one.len() > NUMBER && without_number(one) == without_number(other)
}

/// Gives a job what it heard in the conversation that `choose` finds by what it says first. Returns what it said that is not on
/// record, if that comes.
pub(super) fn give<'c>(
    side: &Side<'_>,
    peer: SocketAddr,
    choose: &dyn Fn(&[u8]) -> Option<&'c Conversation>,
) -> Option<Vec<u8>> {
    let mut turns: Option<std::slice::Iter<'c, Turn>> = None;
    // The numbers of questions: then, and now.
    let mut numbers: Vec<[Vec<u8>; 2]> = Vec::new();
    loop {
        while let Some(Turn::Heard(then)) = turns.as_ref().and_then(|turns| turns.as_slice().first()) {
            let number = numbers.iter().find(|[before, _]| peer.port() == NAMES_PORT && then.starts_with(before));
            let now = number.map_or_else(|| then.clone(), |[_, now]| [now.as_slice(), &then[NUMBER..]].concat());
            let _ = side.socket.send(&now);
            turns.as_mut()?.next();
        }
        if turns.as_ref().is_some_and(|turns| turns.as_slice().first() == Some(&Turn::Broken)) {
            return None;
        }
        let ready = side.ready(None)?;
        let said = match take(&side.socket) {
            Come::Datagram(said) => said,
            Come::Nobody => return None,
            Come::Nothing if ready.stop => return None,
            Come::Nothing => continue,
        };
        if turns.is_none() {
            turns = choose(&said).map(|conversation| conversation.turns.iter());
        }
        match turns.as_mut().and_then(Iterator::next) {
            Some(Turn::Said(then)) if is_same(peer, then, &said) => {
                if then.len() > NUMBER && said.len() > NUMBER {
                    numbers.push([then[..NUMBER].to_vec(), said[..NUMBER].to_vec()]);
                }
            }
            _ => return Some(said),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::network::{Begun, Kind};

    #[test]
    fn answers_of_servers_for_names_have_the_numbers_of_what_is_asked_now() {
        let names: SocketAddr = ([192, 0, 2, 1], NAMES_PORT).into();
        let said = |text: &str| Turn::Said(text.into());
        let turns = vec![said("11first"), said("12second"), Turn::Heard("12two".into()), Turn::Heard("11one".into())];
        let conversation = Conversation { peer: names, kind: Kind::Datagrams, begun: Begun::At(names), turns };
        let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let (job, socket) = (bind(), bind());
        job.connect(socket.local_addr().unwrap()).unwrap();
        socket.connect(job.local_addr().unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let (stop, going) = std::io::pipe().unwrap();
        let side = Side { socket, inode: rustix::fs::fstat(&job).unwrap().st_ino, stop: &stop };
        for question in ["71first", "72second", "73third"] {
            job.send(question.as_bytes()).unwrap();
        }
        let choose = |said: &[u8]| (said == b"71first").then_some(&conversation);
        assert_eq!(give(&side, names, &choose).as_deref(), Some(&b"73third"[..]));
        let hear = || {
            let mut heard = [0; 99];
            let length = job.recv(&mut heard).unwrap();
            String::from_utf8(heard[..length].to_vec()).unwrap()
        };
        assert_eq!([hear(), hear()], ["72two", "71one"]);
        // It is over, and so is whoever waits for it.
        drop(going);
        assert_eq!(give(&side, names, &choose), None);
        drop(job);
        assert!(!is_open(side.inode));
        assert!(!is_same(([192, 0, 2, 1], 80).into(), b"71first", b"11first"), "others do not number questions");
    }
}
