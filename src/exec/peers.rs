//! Whom a job talks to: addresses on the internet, without the servers that it runs itself.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::MetadataExt;

use super::memory::{Memory, is_stream};
use super::table::Process;

/// An address that a job talked to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Peer {
    address: IpAddr,
    port: u16,
}

impl Peer {
    pub(super) const fn socket(self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(address) => write!(f, "{address}:{}", self.port),
            IpAddr::V6(address) => write!(f, "[{address}]:{}", self.port),
        }
    }
}

/// A process of a job.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    pub(super) pid: i32,
    /// Whether the job has a table of processes of its own.
    pub(super) isolated: bool,
}

/// Who hears what a job says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Contact {
    /// Somebody else.
    Other(Peer),
    /// A server of the job's own.
    Own(Peer),
    /// Nobody, on this machine: a server that is not there yet, or not at all.
    Nobody(Peer),
}

impl Contact {
    /// Returns the port that was meant.
    pub(super) const fn port(self) -> u16 {
        let (Self::Other(peer) | Self::Own(peer) | Self::Nobody(peer)) = self;
        peer.port
    }
}

/// Returns whom a call with an address talks to: `None` if that is not the internet.
///
/// A datagram that nobody hears is nothing: that way a library asks the kernel for its own address, and sends none.
pub(super) fn connected(job: Job, socket: u64, memory: &Memory, address: u64, length: u64) -> Option<Contact> {
    let peer = read(&memory.some(address, length)?)?;
    let contact = whom(job, peer);
    (!matches!(contact, Contact::Nobody(_)) || is_stream(job.pid, socket)).then_some(contact)
}

/// Returns the first whom any of `count` messages talks to.
///
/// The list is one of `struct mmsghdr`, each of which begins with a `struct msghdr`.
pub(super) fn sent(job: Job, socket: u64, memory: &Memory, list: u64, count: u64) -> Option<Contact> {
    let stride = if memory.is_short() { 32 } else { 64 };
    (0..count.min(1024)).find_map(|index| {
        let header = list + index * stride;
        let name = memory.word(header, 0).filter(|name| *name != 0)?;
        // The length is an int also where pointers are longer.
        let length = memory.word(header, 1)? & 0xffff_ffff;
        connected(job, socket, memory, name, length)
    })
}

/// Reads a `struct sockaddr_in` or `sockaddr_in6`.
fn read(bytes: &[u8]) -> Option<Peer> {
    let family = i32::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    let address = match family {
        libc::AF_INET => {
            let octets: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
            IpAddr::V4(Ipv4Addr::from(octets))
        }
        libc::AF_INET6 => {
            let octets: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
            let address = Ipv6Addr::from(octets);
            address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4)
        }
        _ => return None,
    };
    Some(Peer { address, port })
}

/// Returns who listens there: the kernel's tables tell which socket that is, and the job's own table of processes who has it open.
fn whom(job: Job, peer: Peer) -> Contact {
    if !(peer.address.is_loopback() || peer.address.is_unspecified() || is_of_this_machine(peer.address)) {
        return Contact::Other(peer);
    }
    let listening: Vec<String> =
        ["tcp", "tcp6", "udp", "udp6"].iter().flat_map(|kind| listeners(job.pid, kind, peer.port)).collect();
    if listening.is_empty() {
        Contact::Nobody(peer)
    } else if listening.iter().all(|inode| is_open_in(job, inode)) {
        Contact::Own(peer)
    } else {
        Contact::Other(peer)
    }
}

/// Returns whether this machine has an address: only then can a socket have it.
fn is_of_this_machine(address: IpAddr) -> bool {
    let is_of_many = match address {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_multicast(),
    };
    !is_of_many && UdpSocket::bind((address, 0)).is_ok()
}

/// Returns the inodes of the sockets that take what comes to `port`.
///
/// Source: `proc_pid_net(5)`, and `include/net/tcp_states.h` for the states: 10 listens; a datagram's socket is in 7 while unconnected.
fn listeners(pid: i32, kind: &str, port: u16) -> Vec<String> {
    let table = fs::read_to_string(format!("/proc/{pid}/net/{kind}")).unwrap_or_default();
    let port = format!(":{port:04X}");
    let line = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let takes = words.get(1)?.ends_with(&port) && matches!(*words.get(3)?, "0A" | "07");
        takes.then(|| format!("socket:[{}]", words.get(9).copied().unwrap_or_default()))
    };
    table.lines().skip(1).filter_map(line).collect()
}

/// Returns whether a process of the job has this open: one in its own table of processes, or of its process group.
fn is_open_in(job: Job, inode: &str) -> bool {
    let table = format!("/proc/{}/root/proc", job.pid);
    // Where the job could not be shown a table of its own, it sees the machine's, and is told from others by its space.
    let device = |path: &str| fs::metadata(path).map(|table| table.dev()).ok();
    let has_own_table = job.isolated && device(&table) != device("/proc");
    let Ok(processes) = fs::read_dir(&table) else { return false };
    let group = |pid: i32| Process::read(pid).map(|process| process.group);
    let space = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let is_member = |pid: i32| match (has_own_table, job.isolated) {
        (true, _) => true,
        (false, true) => space(pid) == space(job.pid),
        (false, false) => group(pid) == group(job.pid),
    };
    let members =
        processes.flatten().filter(|entry| entry.file_name().to_string_lossy().parse::<i32>().is_ok_and(is_member));
    members.filter_map(|process| fs::read_dir(process.path().join("fd")).ok()).any(|descriptors| {
        descriptors.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == inode))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(family: i32, rest: &[u8]) -> Option<String> {
        let mut bytes = u16::try_from(family).unwrap().to_ne_bytes().to_vec();
        bytes.extend_from_slice(rest);
        read(&bytes).map(|peer| peer.to_string())
    }

    #[test]
    fn addresses_of_the_internet_are_read_and_others_are_nobody() {
        assert_eq!(told(libc::AF_INET, &[0, 80, 192, 0, 2, 1]).as_deref(), Some("192.0.2.1:80"));
        let mut six = vec![1, 187, 0, 0, 0, 0];
        six.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets());
        assert_eq!(told(libc::AF_INET6, &six).as_deref(), Some("[2001:db8::1]:443"));
        assert_eq!(told(libc::AF_UNIX, b"/run/x"), None);
        assert_eq!(told(libc::AF_INET, &[0, 80]), None);
    }
}
