//! Conversations of a job that go through us: passed on and kept, or given again.
//!
//! One thread for each. What one side says is kept before it is passed on, so it never seems to
//! be later than an answer to it.

use std::io::{self, ErrorKind, PipeReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::network::{Conversation, Turn};
use crate::host::Stopwatch;

/// So much is passed on at once, in bytes.
const CHUNK: usize = 64 * 1024;
/// More than this that is not asked for yet is not taken from a job, in bytes.
const AHEAD_MAX: usize = 1 << 20;
/// For as long as this, what a job said last is passed on after its end.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// For as long as this a job may be in the middle of what it said before; then it is taken to say something else.
const PAUSE_MAX: Duration = Duration::from_secs(20);

/// Connects to somebody, for at most `limit`, and as long as nobody wants to stop.
///
/// # Errors
///
/// What the system says, as the job would be told.
pub(super) fn connect(peer: SocketAddr, limit: Duration, stop: &PipeReader) -> Result<TcpStream, Errno> {
    let family = if peer.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &peer) {
        Ok(()) => {}
        Err(Errno::INPROGRESS) => {
            let ready = wait(&[(socket.as_fd(), PollFlags::OUT), (stop.as_fd(), PollFlags::IN)], Some(limit))?;
            if ready[0].is_empty() {
                return Err(Errno::TIMEDOUT);
            }
            sockopt::socket_error(&socket)??;
        }
        Err(error) => return Err(error),
    }
    Ok(prepared(socket))
}

/// Waits for the connection that comes `from` there; whoever else comes is sent away.
pub(super) fn accept(listener: &TcpListener, from: SocketAddr, stop: &PipeReader) -> Option<TcpStream> {
    loop {
        let ready = wait(&[(listener.as_fd(), PollFlags::IN), (stop.as_fd(), PollFlags::IN)], None).ok()?;
        if ready[0].is_empty() {
            return None;
        }
        let (stream, peer) = listener.accept().ok()?;
        if (peer.ip().to_canonical(), peer.port()) == (from.ip().to_canonical(), from.port()) {
            return Some(prepared(stream.into()));
        }
    }
}

/// Returns a stream that is never waited for and sends at once.
fn prepared(socket: OwnedFd) -> TcpStream {
    let stream = TcpStream::from(socket);
    // Neither can fail for a stream, and what is lost otherwise is time.
    let _ = stream.set_nonblocking(true);
    let _ = stream.set_nodelay(true);
    stream
}

/// Waits until something is ready; returns what, in the order given. Nothing is when time is over.
pub(super) fn wait(what: &[(BorrowedFd<'_>, PollFlags)], limit: Option<Duration>) -> Result<Vec<PollFlags>, Errno> {
    let mut polled: Vec<_> = what.iter().map(|(one, flags)| PollFd::from_borrowed_fd(*one, *flags)).collect();
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    loop {
        match rustix::event::poll(&mut polled, limit.as_ref()) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok(polled.iter().map(PollFd::revents).collect()),
        }
    }
}

/// What came of looking what somebody says.
enum Come {
    Nothing,
    Bytes(Vec<u8>),
    /// He will say no more.
    End,
    /// He broke it off.
    Break,
}

fn read(mut stream: &TcpStream) -> Come {
    let mut chunk = vec![0; CHUNK];
    match stream.read(&mut chunk) {
        Ok(0) => Come::End,
        Ok(length) => {
            chunk.truncate(length);
            Come::Bytes(chunk)
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Come::Nothing,
        Err(_) => Come::Break,
    }
}

/// Writes as much as can be and takes that out of `bytes`.
///
/// # Errors
///
/// What the system says if nobody will read it.
fn write(mut stream: &TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    match stream.write(bytes) {
        Ok(length) => drop(bytes.drain(..length)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Lets the job see that the other side broke it off.
pub(super) fn break_off(job: &TcpStream) {
    let _ = sockopt::set_socket_linger(job, Some(Duration::ZERO));
}

/// Passes on what two sides say, beginning with what the job `said` already, and lets `note` see it, until both have ended.
pub(super) fn pass_on(
    job: &TcpStream,
    other: &TcpStream,
    said: Vec<u8>,
    note: &mut dyn FnMut(Turn),
    stop: &PipeReader,
) {
    let (mut up, mut down) = (said, Vec::new());
    let (mut has_left, mut has_ended) = (false, false);
    let (mut told_left, mut told_end) = (false, false);
    let mut stopping = false;
    loop {
        if has_left && up.is_empty() && !told_left {
            let _ = other.shutdown(Shutdown::Write);
            told_left = true;
        }
        if has_ended && down.is_empty() && !told_end {
            let _ = job.shutdown(Shutdown::Write);
            told_end = true;
        }
        if told_left && (told_end || stopping) {
            return;
        }
        let flags = |reads: bool, writes: bool| {
            let reads = if reads { PollFlags::IN } else { PollFlags::empty() };
            if writes { reads | PollFlags::OUT } else { reads }
        };
        let of_job = flags(!has_left && up.is_empty(), !down.is_empty() && !stopping);
        let of_other = flags(!has_ended && down.is_empty() && !stopping, !up.is_empty());
        // Who is asked for nothing would be told of all the same if he is gone.
        let mut asked = vec![(job.as_fd(), of_job), (other.as_fd(), of_other), (stop.as_fd(), flags(!stopping, false))];
        asked.retain(|(_, flags)| !flags.is_empty());
        match wait(&asked, stopping.then_some(LAST_WORDS)) {
            Ok(ready) if stopping && ready.iter().all(PollFlags::is_empty) => return,
            Ok(ready) => stopping |= ready.last().is_some_and(|stop| !stopping && !stop.is_empty()),
            Err(_) => return,
        }
        if of_job.contains(PollFlags::IN) {
            match read(job) {
                Come::Nothing => {}
                Come::Bytes(bytes) => {
                    note(Turn::Said(bytes.clone()));
                    up = bytes;
                }
                Come::End | Come::Break => {
                    note(Turn::Left);
                    has_left = true;
                }
            }
        }
        if of_other.contains(PollFlags::IN) {
            match read(other) {
                Come::Nothing => {}
                Come::Bytes(bytes) => {
                    note(Turn::Heard(bytes.clone()));
                    down = bytes;
                }
                Come::End => {
                    note(Turn::Ended);
                    has_ended = true;
                }
                Come::Break => {
                    note(Turn::Broken);
                    break_off(job);
                    return;
                }
            }
        }
        if !up.is_empty() && write(other, &mut up).is_err() {
            // What it said last may tell why; nothing more reaches it.
            up.clear();
            (has_left, told_left) = (true, true);
        }
        if !down.is_empty() && write(job, &mut down).is_err() {
            return;
        }
    }
}

/// How a conversation that was given again came to its end.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Gave {
    /// It is over.
    All,
    /// The job says something else than before: this is what it said that was not answered.
    Else(Vec<u8>),
}

/// Which conversation on record it is in which a job says something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Choice {
    /// The one with this number.
    This(usize),
    /// None.
    Nothing,
    /// That depends on what it says next.
    Unknown,
}

/// Waits for what the job says first; returns which conversation that is, after `choose`, what it said so far, and whether it
/// will say no more. `None` is that it says nothing.
///
/// `choose` gets what was said and whether there will be no more.
pub(super) fn first_words(
    job: &TcpStream,
    choose: &dyn Fn(&[u8], bool) -> Choice,
    stop: &PipeReader,
) -> Option<(Option<usize>, Vec<u8>, bool)> {
    let mut said = Vec::new();
    loop {
        let ready = wait(&[(job.as_fd(), PollFlags::IN), (stop.as_fd(), PollFlags::IN)], None).ok()?;
        let has_left = match read(job) {
            Come::Nothing if !ready[1].is_empty() => return None,
            Come::Nothing => continue,
            Come::Bytes(bytes) => {
                said.extend(bytes);
                false
            }
            Come::End | Come::Break => true,
        };
        match choose(&said, has_left) {
            Choice::This(number) => return Some((Some(number), said, has_left)),
            Choice::Nothing => return Some((None, said, has_left)),
            Choice::Unknown if has_left => return None,
            Choice::Unknown => {}
        }
    }
}

/// Gives a job what it heard in a conversation, each part after it said what it said then.
pub(super) fn give(
    job: &TcpStream,
    conversation: &Conversation,
    mut said: Vec<u8>,
    mut has_left: bool,
    stop: &PipeReader,
) -> Gave {
    let (mut at, mut done) = (0, 0);
    let mut pause = Stopwatch::start();
    loop {
        let mut writes = false;
        let mut is_amid = false;
        match conversation.turns.get(at) {
            Some(Turn::Said(then)) => {
                let length = said.len().min(then.len() - done);
                if said[..length] != then[done..done + length] {
                    return Gave::Else([&then[..done], &said].concat());
                }
                said.drain(..length);
                done += length;
                if done == then.len() {
                    (at, done) = (at + 1, 0);
                    continue;
                }
                if has_left {
                    return Gave::All;
                }
                is_amid = done > 0;
                if is_amid && pause.elapsed() >= PAUSE_MAX {
                    return Gave::Else(then[..done].to_vec());
                }
            }
            Some(Turn::Heard(then)) => {
                let mut rest = then[done..then.len().min(done + CHUNK)].to_vec();
                let before = rest.len();
                if write(job, &mut rest).is_err() {
                    return Gave::All;
                }
                done += before - rest.len();
                if done == then.len() {
                    (at, done) = (at + 1, 0);
                    continue;
                }
                writes = true;
            }
            Some(Turn::Ended) => {
                let _ = job.shutdown(Shutdown::Write);
                at += 1;
                continue;
            }
            Some(Turn::Broken) => {
                break_off(job);
                return Gave::All;
            }
            Some(Turn::Left) | None if has_left && said.is_empty() => {
                if at >= conversation.turns.len() {
                    return Gave::All;
                }
                at += 1;
                continue;
            }
            // To who has ended somebody may say what he likes.
            None if conversation.turns.contains(&Turn::Ended) => said.clear(),
            Some(Turn::Left) | None if !said.is_empty() => return Gave::Else(said),
            Some(Turn::Left) | None => {}
        }
        let reads = if !has_left && said.len() < AHEAD_MAX { PollFlags::IN } else { PollFlags::empty() };
        let of_job = if writes { reads | PollFlags::OUT } else { reads };
        if of_job.is_empty() {
            return Gave::All;
        }
        match wait(&[(job.as_fd(), of_job), (stop.as_fd(), PollFlags::IN)], is_amid.then_some(PAUSE_MAX)) {
            // It is gone, with all that it could say.
            Ok(ready) if ready[0].is_empty() && !ready[1].is_empty() => return Gave::All,
            Ok(_) => {}
            Err(_) => return Gave::All,
        }
        if !reads.is_empty() {
            match read(job) {
                Come::Nothing => {}
                Come::Bytes(bytes) => {
                    said.extend(bytes);
                    pause = Stopwatch::start();
                }
                Come::End | Come::Break => has_left = true,
            }
        }
    }
}
