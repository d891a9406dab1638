//! The addresses of a job's sockets, as they would be if nobody stood between.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SocketType, sockopt};

use super::filter::Socket;
use super::memory::Memory;

/// More than any datagram has is not received at once, in bytes.
const DATAGRAM_MAX: u64 = 1 << 16;

/// Whom a socket that is connected to us would be connected to.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) peer: SocketAddr,
    /// What the socket's own address would be, if that is known.
    pub(super) own: Option<IpAddr>,
}

/// Returns the addresses of a socket, the own one first, if it is connected.
pub(super) fn addresses(socket: &OwnedFd) -> Option<[SocketAddr; 2]> {
    // What kind of socket it is makes no difference for that.
    let socket = UdpSocket::from(socket.try_clone().ok()?);
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    Some([canonical(socket.local_addr().ok()?), canonical(socket.peer_addr().ok()?)])
}

/// Answers what a thread asks of a socket whose other side is really `end`; `None` if the system is to answer it.
pub(super) fn answer(
    asked: Socket,
    socket: &OwnedFd,
    end: End,
    arguments: &[u64; 6],
    memory: &Memory,
) -> Option<Result<i64, i32>> {
    match asked {
        Socket::PeerName => tell(socket, end.peer, [arguments[1], arguments[2]], memory).map(|()| Ok(0)),
        Socket::OwnName => {
            let own = SocketAddr::new(end.own?, addresses(socket)?[0].port());
            tell(socket, own, [arguments[1], arguments[2]], memory).map(|()| Ok(0))
        }
        Socket::Receive => receive(socket, end, arguments, memory),
    }
}

/// Answers `recvfrom(socket, buffer, length, flags, address, length of the address)`, where there is a datagram.
fn receive(socket: &OwnedFd, end: End, arguments: &[u64; 6], memory: &Memory) -> Option<Result<i64, i32>> {
    if !sockopt::socket_type(socket).is_ok_and(|kind| kind == SocketType::DGRAM) {
        return None;
    }
    let mut bytes = vec![0_u8; usize::try_from(arguments[2].min(DATAGRAM_MAX)).ok()?];
    let flags = RecvFlags::from_bits_retain(u32::try_from(arguments[3] & u64::from(u32::MAX)).ok()?);
    // Where there is none the system keeps it waiting, or not, as it wants.
    let (read, length, _) = rustix::net::recvfrom(socket, &mut bytes[..], flags | RecvFlags::DONTWAIT).ok()?;
    if read > 0 && memory.write(arguments[1], &bytes[..read]) != Some(read) {
        return Some(Err(libc::EFAULT));
    }
    if tell(socket, end.peer, [arguments[4], arguments[5]], memory).is_none() {
        return Some(Err(libc::EFAULT));
    }
    let told = if flags.contains(RecvFlags::TRUNC) { length } else { read };
    Some(Ok(i64::try_from(told).ok()?))
}

/// Writes an address to a place that has the length which lies at another.
fn tell(socket: &OwnedFd, address: SocketAddr, [place, length]: [u64; 2], memory: &Memory) -> Option<()> {
    let bytes = in_memory(address, sockopt::socket_domain(socket).ok()?);
    let room = u32::from_ne_bytes(memory.bytes(length)?);
    let told = &bytes[..bytes.len().min(usize::try_from(room).ok()?)];
    memory.write(place, told).filter(|written| *written == told.len())?;
    let length_told = u32::try_from(bytes.len()).ok()?.to_ne_bytes();
    memory.write(length, &length_told).filter(|written| *written == length_told.len()).map(drop)
}

/// Returns an address as a `struct sockaddr_in` or, for sockets of that family, a `sockaddr_in6`.
fn in_memory(address: SocketAddr, family: AddressFamily) -> Vec<u8> {
    let mut bytes = family.as_raw().to_ne_bytes().to_vec();
    bytes.extend(address.port().to_be_bytes());
    match (family == AddressFamily::INET6, address.ip()) {
        (false, IpAddr::V4(ip)) => {
            bytes.extend(ip.octets());
            bytes.extend([0; 8]);
        }
        (_, ip) => {
            let ip = match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            bytes.extend([0; 4]);
            bytes.extend(ip.octets());
            bytes.extend([0; 4]);
        }
    }
    bytes
}
