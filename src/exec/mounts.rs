//! Making a world: the calls, listed first, then made one by one by a process that may not allocate.
//!
//! Sources: `mount_namespaces(7)`, `pivot_root(2)`, and the kernel's documentation of overlayfs.

#![expect(
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    reason = "the kernel takes small constants and addresses in registers"
)]
#![expect(unsafe_code, reason = "calls of Linux that have no safe form; each block says why it is sound")]

use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::slice;

use super::pins::Pins;
use super::raw;
use super::world::{Image, PLACE, World};

/// Where the machine's tree hangs while the new one is made.
const OLD: &str = "/.old";
const QUIET: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV;
/// The devices that every program may expect.
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
const DESCRIPTORS: [(&str, &str); 4] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];
/// By what the machine finds others.
const NAMES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];
/// What the machine calls itself inside: a name that is found without a network.
const HOSTNAME: &str = "localhost";

/// One step of making the world.
#[derive(Debug)]
pub(super) enum Op {
    /// Makes a directory; one that is there is as good.
    Directory(CString),
    /// Makes an empty file; one that is there is as good.
    File(CString),
    /// Makes a link: where it points, where it lies.
    Link(CString, CString),
    /// Mounts `source` of type `kind` at `target`.
    Mount { source: CString, target: CString, kind: CString, flags: libc::c_ulong, data: CString },
    /// As the one before if that failed.
    OrElse(Box<Op>),
    /// Works in this directory from now on.
    Enter(CString),
    /// Makes the present directory the root, and hangs the old root at the second path, relative to it.
    Pivot(CString),
    /// Takes a tree out of sight.
    Unmount(CString),
    /// Removes an empty directory.
    Remove(CString),
    /// Names the machine.
    Name(CString),
    /// Starts the loopback device.
    Loopback,
    /// Writes into a file of the system's.
    Write(CString, CString),
}

impl Op {
    /// Returns whether this lays the overlay.
    pub(super) fn is_overlay(&self) -> bool {
        match self {
            Self::Mount { kind, .. } => kind.as_c_str() == c"overlay",
            Self::OrElse(op) => op.is_overlay(),
            _ => false,
        }
    }
}

/// A top-level name of the machine's tree.
#[derive(Clone, Debug)]
pub(super) enum Top {
    Directory(CString),
    File(CString),
    Link(CString, CString),
}

/// Returns what lies at the top of the machine's tree, without what is made anew and without our own names.
///
/// # Errors
///
/// What the system says if it cannot be listed.
pub(super) fn tops() -> io::Result<Vec<Top>> {
    let mut tops = Vec::new();
    for entry in fs::read_dir("/")? {
        let entry = entry?;
        let name = entry.file_name();
        if [&PLACE[1..], &OLD[1..], "proc"].iter().any(|own| name == *own) {
            continue;
        }
        let (path, kind) = (text(entry.path().as_os_str())?, entry.file_type()?);
        if kind.is_symlink() {
            tops.push(Top::Link(text(fs::read_link(entry.path())?.as_os_str())?, path));
        } else if kind.is_dir() {
            tops.push(Top::Directory(path));
        } else if kind.is_file() {
            tops.push(Top::File(path));
        }
    }
    Ok(tops)
}

/// Returns the calls that make `world`, in order; `tops` is what lies at the top of the machine's tree, and of `pins` those
/// are followed that are the world's.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidInput`] if a path has a zero byte.
pub(super) fn plan(world: &World, tops: &[Top], pins: Option<&Pins>) -> io::Result<Vec<Op>> {
    let base = &world.base;
    // Nothing that is mounted here shows outside.
    let mut ops = vec![mount("", "/", "", libc::MS_REC | libc::MS_SLAVE, "")?];
    match &world.image {
        Some(image) => ops.extend(image_root(world, image)?),
        None => ops.extend(machine_root(world, tops)?),
    }
    ops.push(Op::Directory(literal("/proc")));
    ops.push(mount("proc", "/proc", "proc", QUIET | libc::MS_NOEXEC, "")?);
    // Where parts of it are hidden, as in a container, no new one may be mounted; then the old one must do.
    let old_proc = bind(old(Path::new("/proc"))?, literal("/proc"), libc::MS_BIND | libc::MS_REC);
    ops.push(Op::OrElse(Box::new(old_proc)));
    if world.image.is_some() || Path::new("/dev/shm").is_dir() {
        ops.push(mount("shm", "/dev/shm", "tmpfs", QUIET, "mode=1777")?);
    }
    ops.push(Op::Directory(literal(PLACE)));
    ops.push(bind(old(&base.join(&world.room))?, literal(PLACE), libc::MS_BIND));
    // From inside, so that names relative to it need no escaping and stay short.
    ops.push(Op::Enter(old(base)?));
    let workplace = text(world.workplace.as_os_str())?;
    ops.extend(overlay(&world.lower, &world.upper, workplace, libc::MS_NODEV)?);
    ops.extend([Op::Enter(literal("/"))]);
    for tree in &world.read_only {
        ops.extend(only_read(tree)?);
    }
    let hostname = pins.and_then(|pins| pins.hostname.as_deref()).unwrap_or(HOSTNAME);
    ops.extend([Op::Unmount(literal(OLD)), Op::Remove(literal(OLD)), Op::Name(text(OsStr::new(hostname))?)]);
    if world.offline {
        ops.push(Op::Loopback);
    }
    if let Some(first) = pins.and_then(|pins| pins.first_pid) {
        let last = text(OsStr::new(&first.saturating_sub(1).to_string()))?;
        ops.push(Op::Write(literal("/proc/sys/kernel/ns_last_pid"), last));
    }
    Ok(ops)
}

/// A root with the files of the machine where they are.
fn machine_root(world: &World, tops: &[Top]) -> io::Result<Vec<Op>> {
    let root = text(world.base.join(&world.root).as_os_str())?;
    let mut ops = vec![Op::Mount {
        source: literal("pv"),
        target: root.clone(),
        kind: literal("tmpfs"),
        flags: QUIET,
        data: literal("mode=755,size=64m"),
    }];
    ops.extend(enter_root(root));
    for top in tops {
        match top {
            Top::Directory(path) => {
                ops.push(Op::Directory(path.clone()));
                ops.push(bind(old(as_path(path))?, path.clone(), libc::MS_BIND | libc::MS_REC));
            }
            Top::File(path) => {
                ops.push(Op::File(path.clone()));
                ops.push(bind(old(as_path(path))?, path.clone(), libc::MS_BIND));
            }
            Top::Link(target, path) => ops.push(Op::Link(target.clone(), path.clone())),
        }
    }
    Ok(ops)
}

/// A root with the files of an image, and of the machine only its devices, what it says of itself, and how names are looked up.
fn image_root(world: &World, image: &Image) -> io::Result<Vec<Op>> {
    let mut ops = vec![Op::Enter(text(world.base.as_os_str())?)];
    let root = text(world.root.as_os_str())?;
    ops.extend(overlay(slice::from_ref(&image.files), &image.upper, root, QUIET)?);
    ops.extend(enter_root(text(world.base.join(&world.root).as_os_str())?));
    ops.push(Op::Directory(literal("/dev")));
    ops.push(mount("dev", "/dev", "tmpfs", libc::MS_NOSUID, "mode=755,size=64k")?);
    ops.push(Op::Directory(literal("/dev/shm")));
    for device in DEVICES.into_iter().filter(|device| Path::new(device).exists()) {
        ops.push(Op::File(literal(device)));
        ops.push(bind(old(Path::new(device))?, literal(device), libc::MS_BIND));
    }
    for (path, target) in DESCRIPTORS {
        ops.push(Op::Link(literal(target), literal(path)));
    }
    ops.push(Op::Directory(literal("/sys")));
    ops.push(bind(old(Path::new("/sys"))?, literal("/sys"), libc::MS_BIND | libc::MS_REC));
    if !world.offline {
        ops.push(Op::Directory(literal("/etc")));
        for path in NAMES.into_iter().filter(|path| Path::new(path).is_file()) {
            ops.push(Op::File(literal(path)));
            ops.push(bind(old(&fs::canonicalize(path)?)?, literal(path), libc::MS_BIND));
        }
    }
    Ok(ops)
}

/// Lets a tree of the machine be read where it lies, and not changed.
fn only_read(tree: &Path) -> io::Result<[Op; 2]> {
    use rustix::fs::StatVfsMountFlags as Of;
    let path = text(tree.as_os_str())?;
    // What holds for it already may not be taken away by a user who has not mounted it.
    let held = rustix::fs::statvfs(tree)?.f_flag;
    let flags = [(Of::NOSUID, libc::MS_NOSUID), (Of::NODEV, libc::MS_NODEV), (Of::NOEXEC, libc::MS_NOEXEC)];
    let times =
        [(Of::NOATIME, libc::MS_NOATIME), (Of::NODIRATIME, libc::MS_NODIRATIME), (Of::RELATIME, libc::MS_RELATIME)];
    let held = flags.into_iter().chain(times).filter(|(is, _)| held.contains(*is)).fold(0, |all, (_, flag)| all | flag);
    let again = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | held;
    Ok([bind(path.clone(), path.clone(), libc::MS_BIND), bind(CString::default(), path, again)])
}

/// Makes what is mounted at `root` the root; what was it before hangs at [`OLD`].
fn enter_root(root: CString) -> [Op; 4] {
    let aside = || literal(&OLD[1..]);
    [Op::Enter(root), Op::Directory(aside()), Op::Pivot(aside()), Op::Enter(literal("/"))]
}

fn old(path: &Path) -> io::Result<CString> {
    let mut bytes = OLD.as_bytes().to_vec();
    bytes.extend_from_slice(path.as_os_str().as_bytes());
    text(OsStr::from_bytes(&bytes))
}

/// An overlay, without waiting for the disk when the job flushes if the kernel can do that: what counts of it is hashed and stored afterwards.
fn overlay(
    lower: &[PathBuf],
    upper: &(PathBuf, PathBuf),
    target: CString,
    flags: libc::c_ulong,
) -> io::Result<[Op; 2]> {
    let mut options = b"userxattr,lowerdir=".to_vec();
    for (index, layer) in lower.iter().enumerate() {
        if index > 0 {
            options.push(b':');
        }
        options.extend_from_slice(layer.as_os_str().as_bytes());
    }
    for (name, path) in [(",upperdir=", &upper.0), (",workdir=", &upper.1)] {
        options.extend_from_slice(name.as_bytes());
        options.extend_from_slice(path.as_os_str().as_bytes());
    }
    let mut without_waiting = options.clone();
    without_waiting.extend_from_slice(b",volatile");
    let op = |options: Vec<u8>| -> io::Result<Op> {
        let data = text(OsStr::from_bytes(&options))?;
        Ok(Op::Mount { source: literal("pv"), target: target.clone(), kind: literal("overlay"), flags, data })
    };
    Ok([op(without_waiting)?, Op::OrElse(Box::new(op(options)?))])
}

/// Makes the calls one after the other; returns the place in the list and the error of the first that fails.
///
/// Allocates nothing and calls no library.
///
/// # Safety
///
/// Only in a process with mounts of its own.
pub(super) unsafe fn make(ops: &[Op]) -> Result<(), (usize, i32)> {
    let mut last = Ok(());
    for (index, op) in ops.iter().enumerate() {
        match (op, last) {
            (Op::OrElse(_), Ok(())) => {}
            (_, Err(error)) if !matches!(op, Op::OrElse(_)) => return Err(error),
            // SAFETY: the caller has mounts of its own.
            (Op::OrElse(op), Err(_)) => last = unsafe { one(op) }.map_err(|error| (index, error)),
            // SAFETY: as above.
            (op, _) => last = unsafe { one(op) }.map_err(|error| (index, error)),
        }
    }
    last
}

unsafe fn one(op: &Op) -> Result<(), i32> {
    let at = |text: &CStr| text.as_ptr() as usize;
    let here = libc::AT_FDCWD as usize;
    // SAFETY: all pointers lead to texts that live as long as the list, and the kernel only reads them.
    unsafe {
        match op {
            Op::Directory(path) => match raw::call(libc::SYS_mkdirat, [here, at(path), 0o755, 0, 0, 0]) {
                Err(libc::EEXIST) => Ok(()),
                answer => answer.map(drop),
            },
            Op::File(path) => match raw::call(libc::SYS_mknodat, [here, at(path), 0o100_644, 0, 0, 0]) {
                Err(libc::EEXIST) => Ok(()),
                answer => answer.map(drop),
            },
            Op::Link(target, path) => raw::call(libc::SYS_symlinkat, [at(target), here, at(path), 0, 0, 0]).map(drop),
            #[expect(clippy::cast_possible_truncation, reason = "as wide as a register")]
            Op::Mount { source, target, kind, flags, data } => {
                let flags = *flags as usize;
                raw::call(libc::SYS_mount, [at(source), at(target), at(kind), flags, at(data), 0]).map(drop)
            }
            Op::OrElse(op) => one(op),
            Op::Enter(path) => raw::call(libc::SYS_chdir, [at(path), 0, 0, 0, 0, 0]).map(drop),
            Op::Pivot(old) => raw::call(libc::SYS_pivot_root, [at(c"."), at(old), 0, 0, 0, 0]).map(drop),
            Op::Unmount(path) => {
                raw::call(libc::SYS_umount2, [at(path), libc::MNT_DETACH as usize, 0, 0, 0, 0]).map(drop)
            }
            Op::Remove(path) => {
                raw::call(libc::SYS_unlinkat, [here, at(path), libc::AT_REMOVEDIR as usize, 0, 0, 0]).map(drop)
            }
            Op::Name(name) => raw::call(libc::SYS_sethostname, [at(name), name.to_bytes().len(), 0, 0, 0, 0]).map(drop),
            Op::Loopback => loopback(),
            Op::Write(path, text) => {
                let flags = (libc::O_WRONLY | libc::O_CLOEXEC) as usize;
                let file = raw::call(libc::SYS_openat, [here, at(path), flags, 0, 0, 0])?;
                let written = raw::call(libc::SYS_write, [file, at(text), text.to_bytes().len(), 0, 0, 0]);
                let _ = raw::call(libc::SYS_close, [file, 0, 0, 0, 0, 0]);
                written.map(drop)
            }
        }
    }
}

/// Starts the device `lo` of a new network. Source: netdevice(7).
unsafe fn loopback() -> Result<(), i32> {
    let mut request = [0_u8; 40];
    request[..2].copy_from_slice(b"lo");
    let flags = (libc::IFF_UP | libc::IFF_RUNNING) as u16;
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: the request is as long as the kernel's structure and lives until the call returns.
    unsafe {
        let socket = raw::call(libc::SYS_socket, [libc::AF_INET as usize, libc::SOCK_DGRAM as usize, 0, 0, 0, 0])?;
        let answer =
            raw::call(libc::SYS_ioctl, [socket, libc::SIOCSIFFLAGS as usize, request.as_mut_ptr() as usize, 0, 0, 0]);
        let _ = raw::call(libc::SYS_close, [socket, 0, 0, 0, 0, 0]);
        answer.map(drop)
    }
}

fn mount(source: &str, target: &str, kind: &str, flags: libc::c_ulong, data: &str) -> io::Result<Op> {
    let text = |value: &str| text(OsStr::new(value));
    Ok(Op::Mount { source: text(source)?, target: text(target)?, kind: text(kind)?, flags, data: text(data)? })
}

fn bind(source: CString, target: CString, flags: libc::c_ulong) -> Op {
    Op::Mount { source, target, kind: CString::default(), flags, data: CString::default() }
}

fn as_path(text: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(text.to_bytes()))
}

pub(super) fn text(value: &OsStr) -> io::Result<CString> {
    CString::new(value.as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn literal(value: &str) -> CString {
    CString::new(value).expect("a constant without a zero byte")
}
