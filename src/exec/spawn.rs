//! Starting the processes of a job: an init in namespaces of its own that starts the command, or the command alone.
//!
//! Neither copies this process's memory first, which would cost more than many
//! a step: until the command is executed they run in it, on stacks of their
//! own. So from the moment they are made they allocate nothing, call no
//! library and touch only what was prepared for them in [`Plan`].
//!
//! The init is the first process of a new table of processes. It waits for the
//! command, takes in orphans, passes on a request to end, and when it ends, by
//! itself or killed, the kernel ends everything below it. It is killed when the
//! thread that started it ends, so nothing of a job outlives this process.
//! Sources: `clone(2)`, `pid_namespaces(7)`, `user_namespaces(7)`, `seccomp(2)`.

#![expect(
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "the kernel takes and gives small numbers and addresses in registers"
)]
#![expect(unsafe_code, reason = "calls of Linux that have no safe form; each block says why it is sound")]

use std::ffi::{CString, c_char, c_int, c_void};
use std::io::{self, Write};
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use super::filter::{self, Reports};
use super::mounts::{self, Op};
use super::raw;

/// How much room a process that has not been executed yet has for its stack, in bytes.
const STACK_BYTES: usize = 128 * 1024;
/// The socket's number in the processes of the job.
const SOCKET: usize = 3;
/// The gate's number in the init.
const GATE: usize = 4;
/// The kernel's signals are numbered up to here.
const LAST_SIGNAL: usize = 64;
/// Nothing is known yet.
const UNKNOWN: i32 = -1;

#[cfg(target_arch = "x86_64")]
const PR_SET_TSC: usize = 26;
#[cfg(target_arch = "x86_64")]
const PR_TSC_SIGSEGV: usize = 2;

const SECCOMP_SET_MODE_FILTER: usize = 1;
const NEW_LISTENER: usize = 1 << 3;
const WAIT_KILLABLE: usize = 1 << 5;

/// Where making a job stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub(super) enum Stage {
    /// No process could be made.
    Process = 1,
    /// The users could not be mapped.
    Users,
    /// The world could not be made.
    World,
    /// The overlay could not be laid.
    Overlay,
    /// The working directory could not be entered.
    Directory,
    /// The program could not be executed.
    Execute,
}

/// What a job is started with, all of it prepared.
pub(super) struct Order {
    /// The calls that make the world; `None` starts the command in this one.
    pub(super) world: Option<(Vec<Op>, bool)>,
    /// The numbers of user and group inside, if not those that they have here.
    pub(super) user: Option<(u32, u32)>,
    pub(super) directory: CString,
    pub(super) program: CString,
    pub(super) arguments: Vec<CString>,
    pub(super) environment: Vec<CString>,
    pub(super) input: OwnedFd,
    pub(super) output: OwnedFd,
    /// Where errors go if somebody sits before the job: then it stays in the session of the terminal. Else they go to the output.
    pub(super) attended: Option<OwnedFd>,
    /// Which calls are to be reported, if the kernel does that.
    pub(super) reports: Reports,
    pub(super) umask: u32,
    /// Whether programs lie at the same addresses each time.
    pub(super) fixed_layout: bool,
    /// Whether whoever asks the processor how many cycles there were faults, where the processor can do that. Whoever traces it has to answer then.
    pub(super) traps_cycles: bool,
}

/// A job that was started.
pub(super) struct Started {
    /// The init, or without a world the command itself.
    pub(super) process: OwnedFd,
    /// Its number here.
    pub(super) pid: i32,
    /// The command's number here; the same as `pid` without a world.
    pub(super) command: i32,
    /// Where its calls are reported, or why they are not.
    pub(super) listener: Result<OwnedFd, i32>,
    /// Until a byte comes through here a command without a listener does not begin.
    go: UnixStream,
    plan: Box<Plan>,
}

/// What the new processes use. It must stay until the last of them is gone.
struct Plan {
    order: Order,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    filter: &'static [libc::sock_filter],
    quiet: &'static [libc::sock_filter],
    socket: RawFd,
    gate: RawFd,
    /// No descriptor has this number or a higher one, as far as limits tell.
    descriptors_end: usize,
    init_stack: Vec<u8>,
    command_stack: Vec<u8>,
    stage: AtomicI32,
    error: AtomicI32,
    /// What the kernel said of the command's end.
    status: AtomicI32,
    /// Whether the command was stopped since that was asked for last. Only noted where somebody sits before the job.
    stopped: AtomicBool,
}

/// Starts the processes of `order`, up to the point where the command waits to be executed.
///
/// # Errors
///
/// Where it stopped and the system's error; then no process is left.
pub(super) fn start(mut order: Order) -> Result<Started, (Stage, io::Error)> {
    // Whoever cannot take the listener must not make one: a command would wait for good.
    if !can_take_listeners() {
        order.reports = Reports::NOTHING;
    }
    let process = |error| (Stage::Process, error);
    let (mut ours, theirs) = UnixStream::pair().map_err(process)?;
    pass_credentials(&ours).map_err(process)?;
    let (gate, gate_end) = io::pipe().map_err(process)?;
    let (filter, quiet) = (filter::of(order.reports), filter::of(Reports::NOTHING));
    let pointers = |texts: &[CString]| -> Vec<*const c_char> {
        texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
    };
    let mut plan = Box::new(Plan {
        argv: pointers(&order.arguments),
        envp: pointers(&order.environment),
        filter,
        quiet,
        socket: theirs.as_raw_fd(),
        gate: gate.as_raw_fd(),
        descriptors_end: descriptors_end(),
        init_stack: Vec::with_capacity(STACK_BYTES),
        command_stack: Vec::with_capacity(STACK_BYTES),
        stage: AtomicI32::new(UNKNOWN),
        error: AtomicI32::new(UNKNOWN),
        status: AtomicI32::new(UNKNOWN),
        stopped: AtomicBool::new(false),
        order,
    });
    let (pid, pidfd, own_users) = clone(&mut plan).map_err(process)?;
    drop((theirs, gate));
    let mut child = Unfinished { pidfd: Some(pidfd) };
    if own_users {
        map_users(pid, plan.order.user).map_err(|error| (Stage::Users, error))?;
    }
    // If it is gone already, that shows in a moment.
    let _ = (&gate_end).write_all(&[1]);
    drop(gate_end);
    match receive(&mut ours) {
        Ok((command, listener)) => {
            let process = child.pidfd.take().expect("only taken here");
            Ok(Started { process, pid, command, listener, go: ours, plan })
        }
        Err(error) => {
            // It ended before it came so far, and has left word.
            drop(child);
            Err(plan.failure().unwrap_or((Stage::Process, error)))
        }
    }
}

fn descriptors_end() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    // Without a limit, or with one that nobody can use up, looking at each number would take too long.
    usize::try_from(limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX).min(1 << 16)
}

/// Returns whether the listener of another process could be taken over. Kernels before 5.6 and some containers refuse.
fn can_take_listeners() -> bool {
    let own = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty());
    let nowhere = RawFd::MAX;
    let taken = own.map(|own| rustix::process::pidfd_getfd(own, nowhere, rustix::process::PidfdGetfdFlags::empty()));
    matches!(taken, Ok(Err(rustix::io::Errno::BADF)))
}

impl Started {
    /// Lets a command that has no listener begin.
    pub(super) fn go(&mut self) {
        let _ = self.go.write_all(&[1]);
    }

    /// Returns why the command was not executed, if it was not. Known once the job is over.
    pub(super) fn failure(&self) -> Option<(Stage, io::Error)> {
        self.plan.failure()
    }

    /// Returns what became of the command, as wait(2) tells it, if its init has come so far.
    pub(super) fn status(&self) -> Option<i32> {
        Some(self.plan.status.load(Ordering::Acquire)).filter(|status| *status != UNKNOWN)
    }

    /// Returns whether the init has seen the command stop since this was asked last.
    pub(super) fn takes_a_stop(&self) -> bool {
        self.plan.stopped.swap(false, Ordering::AcqRel)
    }
}

impl Plan {
    fn failure(&self) -> Option<(Stage, io::Error)> {
        let stage = match self.stage.load(Ordering::Acquire) {
            1 => Stage::Process,
            2 => Stage::Users,
            3 => Stage::World,
            4 => Stage::Overlay,
            5 => Stage::Directory,
            6 => Stage::Execute,
            _ => return None,
        };
        Some((stage, io::Error::from_raw_os_error(self.error.load(Ordering::Acquire))))
    }

    fn fail(&self, stage: Stage, error: i32) -> c_int {
        self.error.store(error, Ordering::Release);
        self.stage.store(stage as i32, Ordering::Release);
        127
    }
}

/// A process that is killed unless it is taken over.
struct Unfinished {
    pidfd: Option<OwnedFd>,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(pidfd) = &self.pidfd {
            kill_and_wait(pidfd.as_fd());
        }
    }
}

/// Kills the process and takes note of its end; the kernel ends everything below an init before that.
pub(super) fn kill_and_wait(pidfd: BorrowedFd<'_>) {
    let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
    loop {
        let ended =
            rustix::process::waitid(rustix::process::WaitId::PidFd(pidfd), rustix::process::WaitIdOptions::EXITED);
        if !matches!(ended, Err(rustix::io::Errno::INTR)) {
            return;
        }
    }
}

/// Makes the first process; returns its number, its handle and whether it has users of its own.
fn clone(plan: &mut Plan) -> io::Result<(i32, OwnedFd, bool)> {
    let spaces = match &plan.order.world {
        None => 0,
        Some((_, offline)) => {
            let offline = if *offline { libc::CLONE_NEWNET } else { 0 };
            libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | offline
        }
    };
    let top = stack_top(&mut plan.init_stack);
    let entry = if plan.order.world.is_some() { init } else { command };
    // No signal may run a handler of ours over there.
    let before = block_signals();
    let (mut made, mut refusal) = (None, None);
    for users in [libc::CLONE_NEWUSER, 0] {
        if spaces == 0 && users != 0 {
            continue;
        }
        let mut pidfd: c_int = -1;
        let flags = libc::CLONE_VM | libc::CLONE_PIDFD | libc::SIGCHLD | spaces | users;
        // SAFETY: the stack and the plan outlive the process: `Started` and `Unfinished` wait for its end. What runs
        // there, `init` or `command`, uses the plan alone.
        let pid = unsafe { libc::clone(entry, top, flags, ptr::from_mut(plan).cast(), ptr::from_mut(&mut pidfd)) };
        if pid > 0 {
            // SAFETY: the kernel has just opened it for us.
            made = Some((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }, users != 0));
            break;
        }
        // Without users of its own it takes rights that few have, so the first error tells more.
        refusal.get_or_insert_with(io::Error::last_os_error);
    }
    restore_signals(before);
    made.ok_or_else(|| refusal.unwrap_or_else(|| io::ErrorKind::Unsupported.into()))
}

fn stack_top(stack: &mut Vec<u8>) -> *mut c_void {
    let end = stack.as_mut_ptr().wrapping_add(stack.capacity());
    end.wrapping_sub(end as usize % 16).cast()
}

/// Blocks all signals for this thread; returns what it let through before.
pub(super) fn block_signals() -> libc::sigset_t {
    // SAFETY: both sets are of this function, and a thread may always block signals.
    unsafe {
        let mut all = std::mem::zeroed();
        let mut before = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        before
    }
}

/// Lets through again what the thread let through before.
pub(super) fn restore_signals(before: libc::sigset_t) {
    // SAFETY: the set is what this thread had.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut()) };
}

/// Gives the new process's users the numbers that they have here: all of them if we may, else ours alone. With an `inner`
/// user and group, that is who we are inside, and nobody else has a number.
fn map_users(pid: i32, inner: Option<(u32, u32)>) -> io::Result<()> {
    let write = |name: &str, text: &str| {
        std::fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/{name}"))?.write_all(text.as_bytes())
    };
    let all = |name: &str| -> io::Result<String> {
        let own = std::fs::read_to_string(format!("/proc/self/{name}"))?;
        let line = |line: &str| {
            let mut words = line.split_ascii_whitespace();
            let (first, count) = (words.next()?, words.nth(1)?);
            Some(format!("{first} {first} {count}\n"))
        };
        Ok(own.lines().filter_map(line).collect())
    };
    if inner.is_none() && write("uid_map", &all("uid_map")?).is_ok() {
        return write("gid_map", &all("gid_map")?);
    }
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let (inner_user, inner_group) = inner.unwrap_or((user, group));
    write("setgroups", "deny")?;
    write("uid_map", &format!("{inner_user} {user} 1\n"))?;
    write("gid_map", &format!("{inner_group} {group} 1\n"))
}

/// Lets messages through `socket` say who sent them.
fn pass_credentials(socket: &UnixStream) -> io::Result<()> {
    let on: c_int = 1;
    let length = u32::try_from(size_of::<c_int>()).expect("a few bytes");
    // SAFETY: the option is read from `on`, which is as long as is said.
    let done = unsafe {
        let value = ptr::from_ref(&on).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PASSCRED, value, length)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits for the command's word: its number here, and the listener or why there is none.
fn receive(socket: &mut UnixStream) -> io::Result<(i32, Result<OwnedFd, i32>)> {
    let mut word = [0_u8; 4];
    let mut control = [0_u64; 16];
    let mut part = libc::iovec { iov_base: word.as_mut_ptr().cast(), iov_len: word.len() };
    // SAFETY: a message header of zeroes is a valid empty one.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    let received = loop {
        // SAFETY: all that the header points at lives until the call returns.
        let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        if received >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            break received;
        }
    };
    match received {
        4 => {}
        0 => return Err(io::ErrorKind::UnexpectedEof.into()),
        _ => return Err(io::Error::last_os_error()),
    }
    let mut pid = 0;
    // SAFETY: the kernel has filled the header and the control messages that it leads to; each is read as what it says to be.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(&raw const message);
        while !next.is_null() {
            if ((*next).cmsg_level, (*next).cmsg_type) == (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) {
                pid = ptr::read_unaligned(libc::CMSG_DATA(next).cast::<libc::ucred>()).pid;
            }
            next = libc::CMSG_NXTHDR(&raw const message, next);
        }
    }
    let word = i32::from_ne_bytes(word);
    if word < 0 {
        return Ok((pid, Err(-word)));
    }
    // Taken, not sent: a message with it would itself be reported to nobody yet.
    let process = rustix::process::Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
    let process = rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty())?;
    let listener = rustix::process::pidfd_getfd(process, word, rustix::process::PidfdGetfdFlags::empty())?;
    Ok((pid, Ok(listener)))
}

// From here on: what the new processes do. No allocation, no library, no panic.

/// The first process of an isolated job.
extern "C" fn init(plan: *mut c_void) -> c_int {
    // SAFETY: `clone` was given a plan, which outlives this process.
    let plan = unsafe { &*plan.cast::<Plan>() };
    // SAFETY: every pointer leads into the plan or to this function's own values.
    unsafe {
        let _ = raw::call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as usize, libc::SIGKILL as usize, 0, 0, 0, 0]);
        // The descriptors stay ours under low numbers; the rest, which others may wait to see closed, goes before we
        // wait ourselves: two that held the ends of each other's gates would wait for good if this process died.
        let aside = raw::call(libc::SYS_fcntl, [plan.gate as usize, libc::F_DUPFD as usize, GATE, 0, 0, 0]);
        arrange_descriptors(plan);
        if let Ok(aside) = aside {
            let _ = raw::call(libc::SYS_dup3, [aside, GATE, 0, 0, 0, 0]);
        }
        close_all(plan, GATE + 1, 0);
        let mut byte = 0_u8;
        let read = raw::call(libc::SYS_read, [GATE, &raw mut byte as usize, 1, 0, 0, 0]);
        if read != Ok(1) {
            return 127;
        }
        let _ = raw::call(libc::SYS_close, [GATE, 0, 0, 0, 0, 0]);
        let Some((ops, _)) = &plan.order.world else { return 127 };
        if let Err((index, error)) = mounts::make(ops) {
            return plan.fail(if ops[index].is_overlay() { Stage::Overlay } else { Stage::World }, error);
        }
        let top = stack_top_of(&plan.command_stack);
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let child = libc::clone(command, top, flags, ptr::from_ref(plan).cast_mut().cast());
        close_all(plan, 0, 0);
        if child < 0 {
            return plan.fail(Stage::Process, libc::EAGAIN);
        }
        attend(plan, child)
    }
}

fn stack_top_of(stack: &Vec<u8>) -> *mut c_void {
    let end = stack.as_ptr().wrapping_add(stack.capacity());
    end.wrapping_sub(end as usize % 16).cast_mut().cast()
}

/// Takes note of every end until the command's comes; passes a request to end on to everybody.
unsafe fn attend(plan: &Plan, command: c_int) -> c_int {
    let awaited: u64 = 1 << (libc::SIGCHLD - 1) | 1 << (libc::SIGTERM - 1);
    let stops = if plan.order.attended.is_some() { libc::WUNTRACED } else { 0 };
    // SAFETY: pointers lead to this function's own values.
    unsafe {
        loop {
            loop {
                let mut status: c_int = 0;
                let options = (libc::WNOHANG | libc::__WALL | stops) as usize;
                let ended = raw::call(libc::SYS_wait4, [usize::MAX, &raw mut status as usize, options, 0, 0, 0]);
                match ended {
                    Ok(pid) if pid == command as usize && libc::WIFSTOPPED(status) => {
                        plan.stopped.store(true, Ordering::Release);
                    }
                    Ok(pid) if pid == command as usize => {
                        plan.status.store(status, Ordering::Release);
                        return 0;
                    }
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
            }
            let signal =
                raw::call(libc::SYS_rt_sigtimedwait, [&raw const awaited as usize, 0, 0, size_of::<u64>(), 0, 0]);
            if signal == Ok(libc::SIGTERM as usize) {
                // A stopped process hears of it only when it goes on.
                let _ = raw::call(libc::SYS_kill, [usize::MAX, libc::SIGTERM as usize, 0, 0, 0, 0]);
                let _ = raw::call(libc::SYS_kill, [usize::MAX, libc::SIGCONT as usize, 0, 0, 0, 0]);
            }
        }
    }
}

unsafe fn arrange_descriptors(plan: &Plan) {
    let order = &plan.order;
    let mut pairs = [
        (order.input.as_raw_fd(), 0, 0),
        (order.output.as_raw_fd(), 1, 0),
        (order.attended.as_ref().unwrap_or(&order.output).as_raw_fd(), 2, 0),
        (plan.socket, SOCKET, libc::O_CLOEXEC as usize),
    ];
    for (from, to, flags) in &mut pairs {
        // SAFETY: numbers only. The socket comes last, when what lay at its number has been taken. If it lies there
        // already the call is refused, and it has the flag from the start.
        let _ = unsafe { raw::call(libc::SYS_dup3, [*from as usize, *to, *flags, 0, 0, 0]) };
    }
}

/// The command, up to the moment when its program takes over.
extern "C" fn command(plan: *mut c_void) -> c_int {
    // SAFETY: `clone` was given a plan, which outlives this process.
    let plan = unsafe { &*plan.cast::<Plan>() };
    // SAFETY: every pointer leads into the plan or to values of the functions called, and the kernel only reads what it is to read.
    unsafe {
        if plan.order.world.is_some() && plan.order.attended.is_none() {
            let _ = raw::call(libc::SYS_setsid, [0; 6]);
        } else {
            let _ = raw::call(libc::SYS_setpgid, [0; 6]);
        }
        if plan.order.world.is_none() {
            arrange_descriptors(plan);
            if plan.order.attended.is_some() {
                // Nobody looks after it in place of an init.
                let _ =
                    raw::call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as usize, libc::SIGKILL as usize, 0, 0, 0, 0]);
            }
        }
        close_all(plan, SOCKET + 1, libc::CLOSE_RANGE_CLOEXEC as usize);
        let _ = raw::call(libc::SYS_umask, [plan.order.umask as usize, 0, 0, 0, 0, 0]);
        if plan.order.fixed_layout {
            let _ = raw::call(libc::SYS_personality, [libc::ADDR_NO_RANDOMIZE as usize, 0, 0, 0, 0, 0]);
        }
        #[cfg(target_arch = "x86_64")]
        if plan.order.traps_cycles {
            let _ = raw::call(libc::SYS_prctl, [PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0, 0]);
        }
        forget_handlers();
        let none = 0_u64;
        let set = libc::SIG_SETMASK as usize;
        let _ = raw::call(libc::SYS_rt_sigprocmask, [set, &raw const none as usize, 0, size_of::<u64>(), 0, 0]);
        if let Err(error) = raw::call(libc::SYS_chdir, [plan.order.directory.as_ptr() as usize, 0, 0, 0, 0, 0]) {
            return plan.fail(Stage::Directory, error);
        }
        if plan.order.world.is_some() {
            lose_sight_of_the_init();
        }
        let _ = raw::call(libc::SYS_prctl, [libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0, 0]);
        let listener = listen(plan);
        if report(listener).is_err() {
            return 127;
        }
        // With a listener the next reported call waits by itself, until somebody has taken that from here.
        if listener.is_err() {
            let mut byte = 0_u8;
            let _ = raw::call(libc::SYS_read, [SOCKET, &raw mut byte as usize, 1, 0, 0, 0]);
        }
        let order = &plan.order;
        let (argv, envp) = (plan.argv.as_ptr() as usize, plan.envp.as_ptr() as usize);
        let error = raw::call(libc::SYS_execve, [order.program.as_ptr() as usize, argv, envp, 0, 0, 0]);
        plan.fail(Stage::Execute, error.err().unwrap_or(libc::EIO))
    }
}

/// Closes all descriptors from `first` on, or with the flag has them closed when a program takes over.
unsafe fn close_all(plan: &Plan, first: usize, flags: usize) {
    // SAFETY: numbers only.
    unsafe {
        if raw::call(libc::SYS_close_range, [first, u32::MAX as usize, flags, 0, 0, 0]).is_ok() {
            return;
        }
        // Kernels before 5.9. What this process has open is marked already where nobody forgot it.
        for number in first..plan.descriptors_end {
            let _ = if flags == 0 {
                raw::call(libc::SYS_close, [number, 0, 0, 0, 0, 0])
            } else {
                let close_on_exec = libc::FD_CLOEXEC as usize;
                raw::call(libc::SYS_fcntl, [number, libc::F_SETFD as usize, close_on_exec, 0, 0, 0])
            };
        }
    }
}

/// Puts every signal that this process handles back to what the system does with it; what is ignored stays so.
///
/// A handler must not run here: it would work on the memory of this process. Rust ignores `SIGPIPE` for itself; a
/// program expects the default.
unsafe fn forget_handlers() {
    /// As the kernel's `struct sigaction`: the handler comes first.
    type Action = [usize; 4];
    let default: Action = [libc::SIG_DFL; 4];
    for signal in 1..=LAST_SIGNAL {
        let mut now: Action = [libc::SIG_DFL; 4];
        let length = size_of::<u64>();
        // SAFETY: both are as long as the kernel's structure and live until the calls return.
        unsafe {
            let _ = raw::call(libc::SYS_rt_sigaction, [signal, 0, &raw mut now as usize, length, 0, 0]);
            if now[0] != libc::SIG_DFL && (now[0] != libc::SIG_IGN || signal == libc::SIGPIPE as usize) {
                let _ = raw::call(libc::SYS_rt_sigaction, [signal, &raw const default as usize, 0, length, 0, 0]);
            }
        }
    }
}

/// Gives up, for good, the right to look into processes that have more rights than the own.
///
/// The init has all of them, and lives in the memory of the process that started the job, where the variables of its
/// caller lie. A process may look into one of its own users with as many rights as itself or fewer, so what the
/// command starts stays open to it. Sources: ptrace(2), "Ptrace access mode checking"; capabilities(7).
unsafe fn lose_sight_of_the_init() {
    const CAP_SYS_PTRACE: usize = 19;
    /// The kernel's `_LINUX_CAPABILITY_VERSION_3`.
    const VERSION: u32 = 0x2008_0522;
    let head: [u32; 2] = [VERSION, 0];
    // Effective, permitted and inheritable rights, the low halves first.
    let mut rights = [0_u32; 6];
    // SAFETY: both are as long as the kernel's structures and live until the calls return.
    unsafe {
        let _ = raw::call(libc::SYS_prctl, [libc::PR_CAPBSET_DROP as usize, CAP_SYS_PTRACE, 0, 0, 0, 0]);
        let (head, own) = ((&raw const head) as usize, (&raw mut rights) as usize);
        if raw::call(libc::SYS_capget, [head, own, 0, 0, 0, 0]).is_ok() {
            for low in &mut rights[..3] {
                *low &= !(1 << CAP_SYS_PTRACE);
            }
            let _ = raw::call(libc::SYS_capset, [head, (&raw const rights) as usize, 0, 0, 0, 0]);
        }
    }
}

/// Puts the filter on; returns the listener's number, or why there is none. Then only the filter that refuses is on.
unsafe fn listen(plan: &Plan) -> Result<usize, i32> {
    let program =
        |code: &[libc::sock_filter]| libc::sock_fprog { len: code.len() as u16, filter: code.as_ptr().cast_mut() };
    let (reporting, quiet) = (program(plan.filter), program(plan.quiet));
    // SAFETY: the programs lie in the plan, and the kernel only reads them.
    unsafe {
        let set = |program: &libc::sock_fprog, flags: usize| {
            raw::call(libc::SYS_seccomp, [SECCOMP_SET_MODE_FILTER, flags, ptr::from_ref(program) as usize, 0, 0, 0])
        };
        let mut listener = Err(libc::ENOSYS);
        if plan.order.reports != Reports::NOTHING {
            // Without the second flag a signal makes a call start anew; kernels before 5.19 do not know it.
            listener = set(&reporting, NEW_LISTENER | WAIT_KILLABLE);
            if listener == Err(libc::EINVAL) {
                listener = set(&reporting, NEW_LISTENER);
            }
        }
        if listener.is_err() {
            let _ = set(&quiet, 0);
        }
        listener
    }
}

/// Sends the listener's number, or the negated error why there is none, to the process that started all this.
unsafe fn report(listener: Result<usize, i32>) -> Result<(), i32> {
    let word = listener.map_or_else(|error| -error, |number| number as i32).to_ne_bytes();
    // SAFETY: the word lives until the call returns.
    unsafe { raw::call(libc::SYS_write, [SOCKET, word.as_ptr() as usize, word.len(), 0, 0, 0]).map(drop) }
}
