//! The filter through which a job's system calls go: which of them are reported, and which are refused.
//!
//! A classic BPF program over `struct seccomp_data`, as seccomp(2) describes
//! it. Calls that take a path or an address are reported; `io_uring`, whose
//! requests no filter sees, is said not to exist, as kernels without it do.
//! Which calls there are depends on how a program was built: 64-bit programs and,
//! on x86-64, 32-bit ones have numbers of their own.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use libc::{c_long, sock_filter};

/// What a reported call does with the path or address that it names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Deed {
    /// `open(path, flags)`.
    Open { directory: Option<u8>, path: u8, flags: u8 },
    /// `openat2(directory, path, how)`: the flags lie in memory.
    OpenHow,
    /// Makes and empties a file: `creat(path)`.
    Create { path: u8 },
    /// Asks whether something is there, or what it is.
    Examine { directory: Option<u8>, path: u8 },
    /// Asks where a link points.
    ReadLink { directory: Option<u8>, path: u8 },
    /// Lists the directory that is open as the first argument.
    List,
    /// Becomes another program.
    Execute { directory: Option<u8>, path: u8 },
    /// Makes what must not be there yet.
    Make { directory: Option<u8>, path: u8 },
    /// Removes a file or an empty directory.
    Remove { directory: Option<u8>, path: u8 },
    /// Changes something, and leaves its content or a part of it.
    Change { directory: Option<u8>, path: u8 },
    /// Moves or links one path to another: directory and path of both.
    Move { from: (Option<u8>, u8), to: (Option<u8>, u8) },
    /// Gives a second name to a file.
    Link { from: (Option<u8>, u8), to: (Option<u8>, u8) },
    /// Makes a link that points anywhere.
    Symlink { target: u8, directory: Option<u8>, path: u8 },
    /// Works in another directory from now on, if that is named by a path.
    Enter { path: Option<u8> },
    /// Sees another tree of files from now on.
    ChangeView,
    /// Talks to an address: `connect(socket, address, length)`.
    Connect,
    /// Sends to an address: `sendto(socket, .., address, length)`.
    SendTo,
    /// Sends messages, which may name addresses.
    SendMessage,
    /// Sends several messages at once.
    SendMessages,
}

/// What a call does with the system's entropy, where that is pinned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Draw {
    /// Asks for it: `getrandom(buffer, length, flags)`.
    Ask,
    /// Reads into one buffer: `read(descriptor, buffer, length)`, or the same at an offset.
    Read,
    /// Reads into several buffers: `readv(descriptor, buffers, count)`, or the same at an offset.
    ReadInto,
    /// Lets the kernel carry bytes from one descriptor to another; which argument names the first.
    Carry { from: u8 },
}

/// What a call has to do with time, where that is not the system's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Time {
    /// `clock_gettime(clock, into)`.
    Clock,
    /// `gettimeofday(into, zone)`.
    Day,
    /// `time(into)`.
    Seconds,
    /// `times(into)`.
    Used,
    /// `getrusage(who, into)`.
    Usage,
    /// `nanosleep(length, rest)`.
    Sleep,
    /// `clock_nanosleep(clock, flags, time, rest)`.
    SleepOn,
    /// `futex(word, operation, value, time)`, waiting until a point in time.
    Wait,
    /// `timerfd_settime(timer, flags, time, former)`.
    Alarm,
    /// Waits for descriptors at most so many milliseconds.
    Poll { milliseconds: u8 },
    /// The same, as long as a `struct timeval` says.
    Select { timeval: u8 },
    /// The same, as long as a `struct timespec` says.
    PollFor { timespec: u8 },
}

/// What a call asks of a socket, where others do not answer for themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Socket {
    /// `getpeername(socket, address, length)`.
    PeerName,
    /// `getsockname(socket, address, length)`.
    OwnName,
    /// `recvfrom(socket, buffer, length, flags, address, length of the address)`.
    Receive,
}

/// What a call asks for that may be answered in place of the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asked {
    /// Entropy.
    Entropy(Draw),
    /// What time it is, or to wait for some.
    Time(Time),
    /// On which processors a thread may run.
    Processors,
    /// Whom a socket is connected to.
    Network(Socket),
}

/// One way of calling the kernel, and what is done with its calls.
pub(super) struct Calls {
    /// As `AUDIT_ARCH_*` in `linux/audit.h`.
    architecture: u32,
    /// Calls that are reported.
    reported: Vec<(c_long, Deed)>,
    /// Calls that are reported besides where something is pinned.
    asked: Vec<(c_long, Asked)>,
    /// Calls that may make memory executable, as their third argument says.
    mapping: Vec<c_long>,
    /// Calls that are said not to exist.
    absent: Vec<c_long>,
    /// Calls that only count if one argument has none of these bits, or no descriptor is given: `(call, argument, bits)`.
    unless_bits: Vec<(c_long, u8, u32)>,
    /// Calls that only count if this argument is no null pointer.
    if_given: Vec<(c_long, u8)>,
    /// Numbers from here on belong to yet another way of calling, which is said not to exist.
    numbers_end: Option<u32>,
}

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
const AUDIT_ARCH_AARCH64: u32 = 0xc000_00b7;
/// From here on the numbers of x86-64 mean its rare variant with short pointers.
const X32_CALLS: u32 = 0x4000_0000;
const AT_EMPTY_PATH: u32 = 0x1000;
/// Stands for the working directory where a descriptor is asked for.
const AT_FDCWD: u32 = libc::AT_FDCWD.cast_unsigned();
/// `fchmodat2`, which has the same number everywhere.
const CHMOD_AT_2: c_long = 452;
/// `open_tree`, by which something is opened as if by `O_PATH`.
const OPEN_TREE: c_long = 428;
/// `setxattrat` and its like, of Linux 6.13.
const SET_ATTRIBUTE_AT: c_long = 463;
const GET_ATTRIBUTE_AT: c_long = 464;
const LIST_ATTRIBUTES_AT: c_long = 465;
const REMOVE_ATTRIBUTE_AT: c_long = 466;
/// `open_tree_attr`, of Linux 6.15.
const OPEN_TREE_WITH_ATTRIBUTES: c_long = 467;
/// `file_getattr` and `file_setattr`, of Linux 6.17.
const GET_FILE_ATTRIBUTES: c_long = 468;
const SET_FILE_ATTRIBUTES: c_long = 469;
/// `epoll_pwait2`, of Linux 5.11.
const EPOLL_WAIT_2: c_long = 441;
/// What a `futex` is asked to do is in these bits, and this is to wait until a point in time: `FUTEX_WAIT_BITSET`.
const OPERATION: u32 = 0x7f;
const WAIT_UNTIL: u32 = 9;

const ALLOW: u32 = 0x7fff_0000;
const TRACE: u32 = 0x7ff0_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const REFUSE: u32 = 0x0005_0000;

/// Returns every way of calling that is understood on this machine, its own first.
pub(super) fn ways() -> Vec<Calls> {
    let mut ways = vec![native()];
    if cfg!(target_arch = "x86_64") {
        ways.push(i386());
    }
    ways
}

const fn at(path: u8) -> (Option<u8>, u8) {
    (Some(path - 1), path)
}

fn native() -> Calls {
    use Deed::{
        Change, ChangeView, Connect, Enter, Examine, Execute, Link, List, Make, Move, Open, ReadLink, Remove, SendTo,
        Symlink,
    };
    let examine_at = Examine { directory: Some(0), path: 1 };
    let change_at = Change { directory: Some(0), path: 1 };
    let mut reported = vec![
        (libc::SYS_openat, Open { directory: Some(0), path: 1, flags: 2 }),
        (libc::SYS_openat2, Deed::OpenHow),
        (libc::SYS_execve, Execute { directory: None, path: 0 }),
        (libc::SYS_execveat, Execute { directory: Some(0), path: 1 }),
        (libc::SYS_newfstatat, examine_at),
        (libc::SYS_statx, examine_at),
        (libc::SYS_faccessat, examine_at),
        (libc::SYS_faccessat2, examine_at),
        (libc::SYS_getxattr, Examine { directory: None, path: 0 }),
        (libc::SYS_lgetxattr, Examine { directory: None, path: 0 }),
        (libc::SYS_readlinkat, ReadLink { directory: Some(0), path: 1 }),
        (libc::SYS_getdents64, List),
        (libc::SYS_statfs, Examine { directory: None, path: 0 }),
        (libc::SYS_listxattr, Examine { directory: None, path: 0 }),
        (libc::SYS_llistxattr, Examine { directory: None, path: 0 }),
        (libc::SYS_name_to_handle_at, examine_at),
        (libc::SYS_inotify_add_watch, Examine { directory: None, path: 1 }),
        (libc::SYS_chdir, Enter { path: Some(0) }),
        (libc::SYS_fchdir, Enter { path: None }),
        (libc::SYS_renameat2, Move { from: at(1), to: at(3) }),
        (libc::SYS_renameat, Move { from: at(1), to: at(3) }),
        (libc::SYS_linkat, Link { from: at(1), to: at(3) }),
        (libc::SYS_symlinkat, Symlink { target: 0, directory: Some(1), path: 2 }),
        (libc::SYS_mkdirat, Make { directory: Some(0), path: 1 }),
        (libc::SYS_mknodat, Make { directory: Some(0), path: 1 }),
        (libc::SYS_unlinkat, Remove { directory: Some(0), path: 1 }),
        (libc::SYS_truncate, Change { directory: None, path: 0 }),
        (libc::SYS_fchmodat, change_at),
        (CHMOD_AT_2, change_at),
        (libc::SYS_fchownat, change_at),
        (libc::SYS_utimensat, change_at),
        (libc::SYS_setxattr, Change { directory: None, path: 0 }),
        (libc::SYS_lsetxattr, Change { directory: None, path: 0 }),
        (libc::SYS_removexattr, Change { directory: None, path: 0 }),
        (libc::SYS_lremovexattr, Change { directory: None, path: 0 }),
        (libc::SYS_connect, Connect),
        (libc::SYS_sendto, SendTo),
        (libc::SYS_sendmsg, Deed::SendMessage),
        (libc::SYS_sendmmsg, Deed::SendMessages),
        (libc::SYS_mount, ChangeView),
        (libc::SYS_umount2, ChangeView),
        (libc::SYS_pivot_root, ChangeView),
        (libc::SYS_chroot, ChangeView),
        (libc::SYS_setns, ChangeView),
        (libc::SYS_move_mount, ChangeView),
        (libc::SYS_open_by_handle_at, ChangeView),
    ];
    reported.extend(recent());
    #[cfg(target_arch = "x86_64")]
    reported.extend([
        (libc::SYS_open, Open { directory: None, path: 0, flags: 1 }),
        (libc::SYS_creat, Deed::Create { path: 0 }),
        (libc::SYS_stat, Examine { directory: None, path: 0 }),
        (libc::SYS_lstat, Examine { directory: None, path: 0 }),
        (libc::SYS_access, Examine { directory: None, path: 0 }),
        (libc::SYS_readlink, ReadLink { directory: None, path: 0 }),
        (libc::SYS_getdents, List),
        (libc::SYS_rename, Move { from: (None, 0), to: (None, 1) }),
        (libc::SYS_link, Link { from: (None, 0), to: (None, 1) }),
        (libc::SYS_symlink, Symlink { target: 0, directory: None, path: 1 }),
        (libc::SYS_mkdir, Make { directory: None, path: 0 }),
        (libc::SYS_mknod, Make { directory: None, path: 0 }),
        (libc::SYS_unlink, Remove { directory: None, path: 0 }),
        (libc::SYS_rmdir, Remove { directory: None, path: 0 }),
        (libc::SYS_chmod, Change { directory: None, path: 0 }),
        (libc::SYS_chown, Change { directory: None, path: 0 }),
        (libc::SYS_lchown, Change { directory: None, path: 0 }),
        (libc::SYS_utime, Change { directory: None, path: 0 }),
        (libc::SYS_utimes, Change { directory: None, path: 0 }),
        (libc::SYS_futimesat, change_at),
    ]);
    Calls {
        architecture: if cfg!(target_arch = "x86_64") { AUDIT_ARCH_X86_64 } else { AUDIT_ARCH_AARCH64 },
        reported,
        asked: native_asked(),
        mapping: vec![libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_pkey_mprotect],
        absent: vec![libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register],
        // Asking about what is open already tells nothing new. Whoever has nothing open asks about a path, whatever the bits say.
        unless_bits: vec![(libc::SYS_newfstatat, 3, AT_EMPTY_PATH), (libc::SYS_statx, 2, AT_EMPTY_PATH)],
        if_given: vec![(libc::SYS_sendto, 4), (libc::SYS_recvfrom, 4)],
        numbers_end: cfg!(target_arch = "x86_64").then_some(X32_CALLS),
    }
}

/// The machine's own calls that are answered in place of the kernel where something is pinned.
fn native_asked() -> Vec<(c_long, Asked)> {
    let mut asked = vec![
        (libc::SYS_getrandom, Asked::Entropy(Draw::Ask)),
        (libc::SYS_read, Asked::Entropy(Draw::Read)),
        (libc::SYS_pread64, Asked::Entropy(Draw::Read)),
        (libc::SYS_readv, Asked::Entropy(Draw::ReadInto)),
        (libc::SYS_preadv, Asked::Entropy(Draw::ReadInto)),
        (libc::SYS_preadv2, Asked::Entropy(Draw::ReadInto)),
        (libc::SYS_sendfile, Asked::Entropy(Draw::Carry { from: 1 })),
        (libc::SYS_splice, Asked::Entropy(Draw::Carry { from: 0 })),
        (libc::SYS_clock_gettime, Asked::Time(Time::Clock)),
        (libc::SYS_gettimeofday, Asked::Time(Time::Day)),
        (libc::SYS_times, Asked::Time(Time::Used)),
        (libc::SYS_getrusage, Asked::Time(Time::Usage)),
        (libc::SYS_nanosleep, Asked::Time(Time::Sleep)),
        (libc::SYS_clock_nanosleep, Asked::Time(Time::SleepOn)),
        (libc::SYS_futex, Asked::Time(Time::Wait)),
        (libc::SYS_timerfd_settime, Asked::Time(Time::Alarm)),
        (libc::SYS_ppoll, Asked::Time(Time::PollFor { timespec: 2 })),
        (libc::SYS_pselect6, Asked::Time(Time::PollFor { timespec: 4 })),
        (libc::SYS_epoll_pwait, Asked::Time(Time::Poll { milliseconds: 3 })),
        (EPOLL_WAIT_2, Asked::Time(Time::PollFor { timespec: 3 })),
        (libc::SYS_sched_getaffinity, Asked::Processors),
        (libc::SYS_getpeername, Asked::Network(Socket::PeerName)),
        (libc::SYS_getsockname, Asked::Network(Socket::OwnName)),
        (libc::SYS_recvfrom, Asked::Network(Socket::Receive)),
    ];
    #[cfg(target_arch = "x86_64")]
    asked.extend([
        (libc::SYS_time, Asked::Time(Time::Seconds)),
        (libc::SYS_poll, Asked::Time(Time::Poll { milliseconds: 2 })),
        (libc::SYS_select, Asked::Time(Time::Select { timeval: 4 })),
        (libc::SYS_epoll_wait, Asked::Time(Time::Poll { milliseconds: 3 })),
    ]);
    asked
}

/// Calls that came since every way of calling gives a call the same number; kernels that lack one are asked in vain.
fn recent() -> [(c_long, Deed); 8] {
    let examine_at = Deed::Examine { directory: Some(0), path: 1 };
    let change_at = Deed::Change { directory: Some(0), path: 1 };
    [
        (OPEN_TREE, examine_at),
        (SET_ATTRIBUTE_AT, change_at),
        (GET_ATTRIBUTE_AT, examine_at),
        (LIST_ATTRIBUTES_AT, examine_at),
        (REMOVE_ATTRIBUTE_AT, change_at),
        (OPEN_TREE_WITH_ATTRIBUTES, examine_at),
        (GET_FILE_ATTRIBUTES, examine_at),
        (SET_FILE_ATTRIBUTES, change_at),
    ]
}

/// The calls of 32-bit programs on x86-64; numbers from `arch/x86/entry/syscalls/syscall_32.tbl`.
fn i386() -> Calls {
    use Deed::{
        Change, ChangeView, Connect, Enter, Examine, Execute, Link, List, Make, Move, Open, ReadLink, Remove, SendTo,
        Symlink,
    };
    let examine = Examine { directory: None, path: 0 };
    let examine_at = Examine { directory: Some(0), path: 1 };
    let make = Make { directory: None, path: 0 };
    let make_at = Make { directory: Some(0), path: 1 };
    let remove = Remove { directory: None, path: 0 };
    let change = Change { directory: None, path: 0 };
    let change_at = Change { directory: Some(0), path: 1 };
    let mut reported = vec![
        (5, Open { directory: None, path: 0, flags: 1 }),
        (8, Deed::Create { path: 0 }),
        (295, Open { directory: Some(0), path: 1, flags: 2 }),
        (437, Deed::OpenHow),
        (11, Execute { directory: None, path: 0 }),
        (358, Execute { directory: Some(0), path: 1 }),
        (18, examine),
        (84, examine),
        (106, examine),
        (107, examine),
        (195, examine),
        (196, examine),
        (33, examine),
        (229, examine),
        (230, examine),
        (300, examine_at),
        (307, examine_at),
        (383, examine_at),
        (439, examine_at),
        (85, ReadLink { directory: None, path: 0 }),
        (305, ReadLink { directory: Some(0), path: 1 }),
        (141, List),
        (220, List),
        (12, Enter { path: Some(0) }),
        (133, Enter { path: None }),
        (38, Move { from: (None, 0), to: (None, 1) }),
        (302, Move { from: at(1), to: at(3) }),
        (353, Move { from: at(1), to: at(3) }),
        (9, Link { from: (None, 0), to: (None, 1) }),
        (303, Link { from: at(1), to: at(3) }),
        (83, Symlink { target: 0, directory: None, path: 1 }),
        (304, Symlink { target: 0, directory: Some(1), path: 2 }),
        // mkdir, mknod, mkdirat, mknodat
        (39, make),
        (14, make),
        (296, make_at),
        (297, make_at),
        // unlink, rmdir, unlinkat
        (10, remove),
        (40, remove),
        (301, Remove { directory: Some(0), path: 1 }),
        // truncate, truncate64, chmod, lchown, chown, lchown32, chown32, utime, utimes, four of extended attributes
        (92, change),
        (193, change),
        (15, change),
        (16, change),
        (182, change),
        (198, change),
        (212, change),
        (30, change),
        (271, change),
        (226, change),
        (227, change),
        (235, change),
        (236, change),
        // fchownat, futimesat, fchmodat, utimensat, utimensat_time64, fchmodat2
        (298, change_at),
        (299, change_at),
        (306, change_at),
        (320, change_at),
        (412, change_at),
        (452, change_at),
        // statfs, statfs64, listxattr, llistxattr, name_to_handle_at, inotify_add_watch
        (99, examine),
        (268, examine),
        (232, examine),
        (233, examine),
        (341, examine_at),
        (292, Examine { directory: None, path: 1 }),
        (362, Connect),
        (369, SendTo),
        (370, Deed::SendMessage),
        (345, Deed::SendMessages),
        (21, ChangeView),
        (22, ChangeView),
        (52, ChangeView),
        (217, ChangeView),
        (61, ChangeView),
        (346, ChangeView),
        (429, ChangeView),
        (342, ChangeView),
    ];
    reported.extend(recent());
    // 102 is `socketcall`, which hides the address behind one more pointer; libraries have had calls of their own since 2015.
    let absent = vec![102, 425, 426, 427];
    let (unless_bits, if_given) = (vec![(300, 3, AT_EMPTY_PATH), (383, 2, AT_EMPTY_PATH)], vec![(369, 4)]);
    let asked = i386_draws().into_iter().map(|(number, draw)| (number, Asked::Entropy(draw))).collect();
    // Nothing is planted in 32-bit programs.
    let mapping = Vec::new();
    Calls { architecture: AUDIT_ARCH_I386, reported, asked, mapping, absent, unless_bits, if_given, numbers_end: None }
}

/// The calls of 32-bit programs on x86-64 by which entropy may come.
fn i386_draws() -> Vec<(c_long, Draw)> {
    vec![
        (355, Draw::Ask),
        (3, Draw::Read),
        (180, Draw::Read),
        (145, Draw::ReadInto),
        (333, Draw::ReadInto),
        (378, Draw::ReadInto),
        // sendfile, sendfile64, splice
        (187, Draw::Carry { from: 1 }),
        (239, Draw::Carry { from: 1 }),
        (313, Draw::Carry { from: 0 }),
    ]
}

impl Calls {
    /// Returns whether a call was made in this way.
    pub(super) fn is(&self, architecture: u32) -> bool {
        self.architecture == architecture
    }

    /// Returns what the call with this number does.
    pub(super) fn deed(&self, number: c_long) -> Option<Deed> {
        self.reported.iter().find(|(other, _)| *other == number).map(|(_, deed)| *deed)
    }

    /// Returns what the call with this number asks for that may be pinned.
    pub(super) fn asked(&self, number: c_long) -> Option<Asked> {
        self.asked.iter().find(|(other, _)| *other == number).map(|(_, asked)| *asked)
    }

    /// Returns what a call does, with the same exceptions as the filter makes.
    pub(super) fn deed_of(&self, number: c_long, arguments: &[u64; 6]) -> Option<Deed> {
        let argument = |index: u8| arguments[usize::from(index)];
        let excepted = self
            .unless_bits
            .iter()
            .any(|(other, index, bits)| *other == number && argument(*index) & u64::from(*bits) != 0)
            && argument(0) & u64::from(u32::MAX) != u64::from(AT_FDCWD);
        let lacking = self.if_given.iter().any(|(other, index)| *other == number && argument(*index) == 0);
        self.deed(number).filter(|_| !excepted && !lacking)
    }

    /// Returns whether its pointers have 32 bits, and numbers in memory too.
    pub(super) fn is_short(&self) -> bool {
        self.architecture == AUDIT_ARCH_I386
    }
}

/// What a filter reports; nothing of it refuses alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Reports {
    /// What names a path or an address.
    pub(super) deeds: bool,
    /// What may ask for entropy.
    pub(super) entropy: bool,
    /// What has to do with time.
    pub(super) time: bool,
    /// What asks for processors.
    pub(super) processors: bool,
    /// What asks whom a socket is connected to.
    pub(super) network: bool,
    /// What makes memory executable: whoever traces the job is told, who has to be there.
    pub(super) code: bool,
}

impl Reports {
    /// Nothing: it only refuses.
    pub(super) const NOTHING: Self =
        Self { deeds: false, entropy: false, time: false, processors: false, network: false, code: false };

    fn has(self, asked: Asked) -> bool {
        match asked {
            Asked::Entropy(_) => self.entropy,
            Asked::Time(_) => self.time,
            Asked::Processors => self.processors,
            Asked::Network(_) => self.network,
        }
    }
}

/// Returns the filter that reports so much, made once.
pub(super) fn of(reports: Reports) -> &'static [sock_filter] {
    static PROGRAMS: [OnceLock<Vec<sock_filter>>; 64] = [const { OnceLock::new() }; 64];
    let bits = [reports.deeds, reports.entropy, reports.time, reports.processors, reports.network, reports.code];
    let index = bits.iter().fold(0, |index, bit| 2 * index + usize::from(*bit));
    PROGRAMS[index].get_or_init(|| program(&ways(), reports))
}

/// Returns the filter that reports so much.
///
/// At most a few hundred instructions. A way of calling that is not understood is refused altogether.
fn program(ways: &[Calls], reports: Reports) -> Vec<sock_filter> {
    let mut code = vec![load(4)];
    for way in ways {
        let body = body(way, reports);
        let length = u32::try_from(body.len()).expect("a filter has a few hundred instructions");
        // Jumps on a comparison reach 255 instructions only, so a long one stands behind it.
        code.extend([compare(way.architecture, 1, 0), jump(length)]);
        code.extend(body);
    }
    code.push(answer(refuse(libc::ENOSYS)));
    code
}

/// What the filter says to a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Say {
    Allow,
    Refuse,
    Report,
    /// Reported if the argument has none of these bits, or the first one is no descriptor.
    Unless(u8, u32),
    /// Reported if the argument is no null pointer.
    IfGiven(u8),
    /// Reported if it waits until a point in time.
    IfWaits,
    /// Told to whoever traces it, if it makes memory executable.
    IfExecutable,
}

/// Asks for the number by halves: the kernel goes through the whole for each number that there is whenever a filter is put on.
fn body(way: &Calls, reports: Reports) -> Vec<sock_filter> {
    let mut say = BTreeMap::new();
    for (number, asked) in way.asked.iter().filter(|(_, asked)| reports.has(*asked)) {
        let given = way.if_given.iter().find(|(other, _)| other == number);
        let told = match (asked, given) {
            (Asked::Time(Time::Wait), _) => Say::IfWaits,
            (_, Some((_, argument))) => Say::IfGiven(*argument),
            _ => Say::Report,
        };
        say.insert(low(*number), told);
    }
    for (number, _) in way.reported.iter().filter(|_| reports.deeds) {
        let unless = way.unless_bits.iter().find(|(other, ..)| other == number);
        let given = way.if_given.iter().find(|(other, _)| other == number);
        let told = match (unless, given) {
            (Some((_, argument, bits)), _) => Say::Unless(*argument, *bits),
            (None, Some((_, argument))) => Say::IfGiven(*argument),
            (None, None) => Say::Report,
        };
        say.insert(low(*number), told);
    }
    if reports.code {
        say.extend(way.mapping.iter().map(|number| (low(*number), Say::IfExecutable)));
    }
    say.extend(way.absent.iter().map(|number| (low(*number), Say::Refuse)));
    // From each of these numbers on, up to the next.
    let mut from = vec![(0, Say::Allow)];
    let mut mark = |number: u32, say: Say| match from.last_mut() {
        Some((last, before)) if *last == number => *before = say,
        Some((_, before)) if *before == say => {}
        _ => from.push((number, say)),
    };
    for (number, told) in say {
        mark(number, told);
        mark(number + 1, Say::Allow);
    }
    if let Some(end) = way.numbers_end {
        mark(end, Say::Refuse);
    }
    let mut code = vec![load(0)];
    code.extend(halves(&from));
    code
}

fn halves(from: &[(u32, Say)]) -> Vec<sock_filter> {
    if let [(_, say)] = from {
        return leaf(*say);
    }
    let (lower, upper) = from.split_at(from.len() / 2);
    let (lower, middle, upper) = (halves(lower), upper[0].0, halves(upper));
    let over = u8::try_from(lower.len()).expect("half of the calls take fewer instructions than a jump reaches");
    [vec![at_least(middle, over, 0)], lower, upper].concat()
}

fn leaf(say: Say) -> Vec<sock_filter> {
    match say {
        Say::Allow => vec![answer(ALLOW)],
        Say::Refuse => vec![answer(refuse(libc::ENOSYS))],
        Say::Report => vec![answer(NOTIFY)],
        Say::Unless(argument, bits) => {
            let (bits, first) = ([load(argument_at(argument)), any_bit(bits, 0, 3)], load(argument_at(0)));
            [&bits[..], &[first, compare(AT_FDCWD, 1, 0), answer(ALLOW), answer(NOTIFY)]].concat()
        }
        Say::IfExecutable => {
            let executable = libc::PROT_EXEC.unsigned_abs();
            vec![load(argument_at(2)), any_bit(executable, 0, 1), answer(TRACE), answer(ALLOW)]
        }
        Say::IfWaits => {
            let operation = [load(argument_at(1)), and(OPERATION), compare(WAIT_UNTIL, 1, 0), answer(ALLOW)];
            [&operation[..], &leaf(Say::IfGiven(3))].concat()
        }
        Say::IfGiven(argument) => {
            let (half, other) = (load(argument_at(argument)), load(argument_at(argument) + 4));
            vec![half, compare(0, 0, 2), other, compare(0, 1, 0), answer(NOTIFY), answer(ALLOW)]
        }
    }
}

#[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "numbers of calls are small")]
const fn low(number: c_long) -> u32 {
    number as u32
}

#[expect(clippy::cast_sign_loss, reason = "numbers of errors are small")]
const fn refuse(error: i32) -> u32 {
    REFUSE | error as u32
}

/// Where the lower half of an argument lies in `struct seccomp_data`.
const fn argument_at(argument: u8) -> u32 {
    16 + 8 * argument as u32
}

// One instruction each, as `linux/filter.h` defines them.

const fn load(offset: u32) -> sock_filter {
    sock_filter { code: 0x20, jt: 0, jf: 0, k: offset }
}

const fn compare(value: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: 0x15, jt, jf, k: value }
}

const fn at_least(value: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: 0x35, jt, jf, k: value }
}

const fn any_bit(bits: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: 0x45, jt, jf, k: bits }
}

const fn and(bits: u32) -> sock_filter {
    sock_filter { code: 0x54, jt: 0, jf: 0, k: bits }
}

const fn jump(over: u32) -> sock_filter {
    sock_filter { code: 0x05, jt: 0, jf: 0, k: over }
}

const fn answer(value: u32) -> sock_filter {
    sock_filter { code: 0x06, jt: 0, jf: 0, k: value }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter as the kernel would: over the number, the architecture and the arguments of one call.
    fn run(code: &[sock_filter], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let mut data = [0_u8; 64];
        data[0..4].copy_from_slice(&number.to_ne_bytes());
        data[4..8].copy_from_slice(&architecture.to_ne_bytes());
        for (index, argument) in arguments.iter().enumerate() {
            data[16 + 8 * index..24 + 8 * index].copy_from_slice(&argument.to_ne_bytes());
        }
        let (mut at, mut accumulator) = (0, 0_u32);
        loop {
            let line = code[at];
            at += 1;
            let jump = |yes: bool| usize::from(if yes { line.jt } else { line.jf });
            match line.code {
                0x20 => {
                    let offset = line.k as usize;
                    accumulator = u32::from_ne_bytes(data[offset..offset + 4].try_into().unwrap());
                }
                0x15 => at += jump(accumulator == line.k),
                0x35 => at += jump(accumulator >= line.k),
                0x45 => at += jump(accumulator & line.k != 0),
                0x54 => accumulator &= line.k,
                0x05 => at += line.k as usize,
                0x06 => return line.k,
                code => panic!("{code:#x} is no instruction of this filter"),
            }
        }
    }

    #[test]
    fn every_call_with_a_path_is_reported_in_each_way_of_calling_and_the_rest_goes_through() {
        let ways = ways();
        let deeds = Reports { deeds: true, ..Reports::NOTHING };
        let all = Reports { deeds: true, entropy: true, time: true, processors: true, network: true, code: false };
        let [quiet, reporting, pinning] = [Reports::NOTHING, deeds, all].map(|reports| program(&ways, reports));
        for way in &ways {
            for number in 0..600 {
                let told = way.deed(number).is_some();
                // A wait until a point in time, if it is a call that may be one.
                let arguments = [1, u64::from(WAIT_UNTIL | 128), 1, 1, 1, 1];
                let refused = way.absent.contains(&number);
                let expected = if refused {
                    refuse(libc::ENOSYS)
                } else if told {
                    NOTIFY
                } else {
                    ALLOW
                };
                assert_eq!(run(&reporting, way.architecture, low(number), arguments), expected, "call {number}");
                let expected = if way.asked(number).is_some() { NOTIFY } else { expected };
                assert_eq!(run(&pinning, way.architecture, low(number), arguments), expected, "call {number}");
                assert!(!(told && way.asked(number).is_some()), "call {number} does one thing");
                let expected = if refused { refuse(libc::ENOSYS) } else { ALLOW };
                assert_eq!(run(&quiet, way.architecture, low(number), arguments), expected, "call {number}");
            }
        }
        assert!(pinning.len() < 4096, "the kernel takes no longer ones");
    }

    #[test]
    fn only_what_is_pinned_is_reported_besides() {
        let time = program(&ways(), Reports { time: true, ..Reports::NOTHING });
        let architecture = native().architecture;
        let say = |number, arguments| run(&time, architecture, low(number), arguments);
        assert_eq!(say(libc::SYS_clock_gettime, [0; 6]), NOTIFY);
        assert_eq!((say(libc::SYS_getrandom, [0; 6]), say(libc::SYS_openat, [0; 6])), (ALLOW, ALLOW));
        // Waking, waiting for a length of time, for good, and until a point in time.
        let futex = |operation, time| say(libc::SYS_futex, [1, operation, 1, time, 0, 0]);
        assert_eq!(
            [futex(129, 9), futex(128, 9), futex(137, 0), futex(137, 9), futex(393, 9)].map(|said| said == NOTIFY),
            [false, false, false, true, true]
        );
    }

    #[test]
    fn what_makes_memory_executable_is_told_to_the_tracer() {
        let code = program(&ways(), Reports { code: true, ..Reports::NOTHING });
        let architecture = native().architecture;
        let say = |number, protection| run(&code, architecture, low(number), [0, 9, protection, 0, 0, 0]);
        for call in [libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
            assert_eq!([say(call, 3), say(call, 5), say(call, 7)], [ALLOW, TRACE, TRACE]);
        }
    }

    #[test]
    fn asking_about_an_open_file_and_sending_without_an_address_are_not_reported() {
        let code = program(&ways(), Reports { deeds: true, ..Reports::NOTHING });
        let architecture = native().architecture;
        let stat = |flags: u64| run(&code, architecture, low(libc::SYS_newfstatat), [3, 9, 9, flags, 0, 0]);
        assert_eq!((stat(0), stat(0x100), stat(0x1000)), (NOTIFY, NOTIFY, ALLOW));
        let here = [u64::from(AT_FDCWD), 9, 9, 0x1000, 0, 0];
        assert_eq!(run(&code, architecture, low(libc::SYS_newfstatat), here), NOTIFY);
        let send = |address: u64| run(&code, architecture, low(libc::SYS_sendto), [3, 9, 9, 0, address, 16]);
        assert_eq!((send(0), send(9), send(9 << 32)), (ALLOW, NOTIFY, NOTIFY));
    }

    #[test]
    fn a_way_of_calling_that_is_not_understood_is_refused() {
        let code = program(&ways(), Reports { deeds: true, ..Reports::NOTHING });
        assert_eq!(run(&code, 0xc000_0016, 5, [0; 6]), refuse(libc::ENOSYS));
        if cfg!(target_arch = "x86_64") {
            assert_eq!(run(&code, AUDIT_ARCH_X86_64, X32_CALLS | 2, [0; 6]), refuse(libc::ENOSYS));
        }
    }
}
