//! The tree of files that a process of a job sees, looked at from here.
//!
//! A path is followed below the process's own root, links and `..` included, as the kernel would follow it for the
//! process. Nothing is opened that could make us wait, or that does something when it is opened.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags, ResolveFlags, Timestamps};
use rustix::io::Errno;

/// What lies at a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lies {
    /// Nothing, but something can be made there.
    Nothing,
    /// Nothing, and nothing can be made there: the directory is missing that it would lie in.
    Nowhere,
    /// A directory.
    Directory,
    /// Something else.
    File {
        /// Whether its bytes may be changed by this user.
        writable: bool,
    },
    /// Nobody knows: it may not be looked at.
    Unknown,
}

/// A path that leads through more links that lead nowhere is given up.
const LINKS_MAX: usize = 40;

/// The tree that one process sees.
pub(super) struct View {
    root: Result<OwnedFd, Errno>,
}

impl View {
    /// Returns the view of the process with this number. Costs one call; whether there is a view shows in its answers.
    pub(super) fn of(pid: i32) -> Self {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Self { root: rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty()) }
    }

    /// Returns the view of a process whose root is this directory.
    pub(super) fn below(directory: &Path) -> Self {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Self { root: rustix::fs::open(directory, flags, Mode::empty()) }
    }

    /// Returns whether the file at `path`, links followed, may be executed.
    pub(super) fn may_execute(&self, path: &Path) -> bool {
        let found = self.open(path.as_os_str().as_bytes(), OFlags::PATH);
        let stat = found.and_then(rustix::fs::fstat);
        stat.is_ok_and(|stat| stat.st_mode & 0o111 != 0)
    }

    /// Returns what lies at `path`; a link at its end is followed if `follow`. Costs a few calls.
    pub(super) fn lies(&self, path: &[u8], follow: bool) -> Lies {
        let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
        let found = match self.open(path, flags) {
            Ok(found) => found,
            Err(Errno::NOENT | Errno::NOTDIR) => return self.absent(path, follow),
            Err(_) => return Lies::Unknown,
        };
        match rustix::fs::fstat(&found).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Ok(FileType::Directory) => Lies::Directory,
            Ok(FileType::Symlink) => Lies::File { writable: true },
            Ok(_) => {
                let writable = rustix::fs::access(format!("/proc/self/fd/{}", found.as_raw_fd()), Access::WRITE_OK);
                Lies::File { writable: writable.is_ok() }
            }
            Err(_) => Lies::Unknown,
        }
    }

    /// Returns what it means that nothing lies at `path`, which may be a link that leads nowhere.
    fn absent(&self, path: &[u8], follow: bool) -> Lies {
        let mut path = path.to_vec();
        for _ in 0..LINKS_MAX {
            let link = self.open(&path, OFlags::PATH | OFlags::NOFOLLOW);
            let target =
                link.ok().filter(|_| follow).and_then(|link| rustix::fs::readlinkat(&link, "", Vec::new()).ok());
            let end = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
            path.truncate(end);
            match target.map(std::ffi::CString::into_bytes) {
                Some(target) if target.first() == Some(&b'/') => path = target,
                Some(target) => path.extend_from_slice(&target),
                None => {
                    return match self.open(&path, OFlags::PATH | OFlags::DIRECTORY) {
                        Ok(_) => Lies::Nothing,
                        Err(Errno::NOENT | Errno::NOTDIR) => Lies::Nowhere,
                        Err(_) => Lies::Unknown,
                    };
                }
            }
        }
        Lies::Unknown
    }

    /// Returns where `path` leads once its last `..` is gone; `None` if there is none in it or nothing is there.
    pub(super) fn without_dots(&self, path: &[u8]) -> Option<Vec<u8>> {
        let end = path.windows(3).rposition(|part| part == b"/..").map(|start| start + 3)?;
        if path.get(end).is_some_and(|next| *next != b'/') {
            // A name that only begins with dots.
            return None;
        }
        let found = self.open(&path[..end], OFlags::PATH).ok()?;
        let mut base =
            std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).ok()?.into_os_string().into_vec();
        base.extend_from_slice(&path[end..]);
        Some(base)
    }

    /// Returns the first bytes of the regular file at `path`, at most as many as `into` takes.
    ///
    /// # Errors
    ///
    /// What the system says; of anything but a regular file that it is no program.
    pub(super) fn head(&self, path: &[u8], into: &mut [u8]) -> io::Result<usize> {
        let found = self.open(path, OFlags::PATH)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) != FileType::RegularFile {
            return Err(Errno::NOEXEC.into());
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = rustix::fs::open(format!("/proc/self/fd/{}", found.as_raw_fd()), flags, Mode::empty())?;
        File::from(opened).read(into)
    }

    /// Gives what lies at `path`, a link itself if it is one, the times that `to` returns for when it was changed last, in seconds
    /// since 1970 and nanoseconds. What cannot be changed stays as it is.
    pub(super) fn change_times(&self, path: &[u8], to: impl FnOnce((i64, i64)) -> Option<Timestamps>) {
        let Ok(found) = self.open(path, OFlags::PATH | OFlags::NOFOLLOW) else { return };
        let changed = rustix::fs::fstat(&found)
            .map(|stat| (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or_default()));
        if let Some(times) = changed.ok().and_then(to) {
            let _ = rustix::fs::utimensat(&found, "", &times, AtFlags::EMPTY_PATH);
        }
    }

    fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let root = self.root.as_ref().map_err(|error| *error)?;
        let flags = flags | OFlags::CLOEXEC;
        match rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
            // Kernels before 5.6, and containers that do not know the call; there a job sees the same root as we do.
            Err(Errno::NOSYS | Errno::PERM) => rustix::fs::open(path, flags, Mode::empty()),
            answer => answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Durability, make_directory, write_whole};
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn what_lies_at_a_path_is_told_with_and_without_following_links() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name).as_os_str().as_bytes().to_vec();
        make_directory(&root.path().join("directory")).unwrap();
        write_whole(&root.path().join("file"), b"text", Durability::Deferred).unwrap();
        std::os::unix::fs::symlink("directory", root.path().join("link")).unwrap();
        std::os::unix::fs::symlink("nowhere", root.path().join("dangling")).unwrap();
        let view = View::of(rustix::process::getpid().as_raw_nonzero().get());
        assert_eq!(view.lies(&path("directory"), true), Lies::Directory);
        assert_eq!(view.lies(&path("file"), true), Lies::File { writable: true });
        assert_eq!(view.lies(&path("link"), true), Lies::Directory);
        assert_eq!(view.lies(&path("link"), false), Lies::File { writable: true });
        assert_eq!(view.lies(&path("dangling"), true), Lies::Nothing);
        std::os::unix::fs::symlink("no/where", root.path().join("lost")).unwrap();
        assert_eq!(view.lies(&path("none"), true), Lies::Nothing);
        assert_eq!(view.lies(&path("lost"), true), Lies::Nowhere);
        assert_eq!(view.lies(&path("file/below"), true), Lies::Nowhere);
        assert_eq!(view.lies(&path("none/below"), false), Lies::Nowhere);
        assert_eq!(View::of(i32::MAX).lies(&path("file"), true), Lies::Nowhere);
        let canonical = root.path().canonicalize().unwrap().join("file").as_os_str().as_bytes().to_vec();
        assert_eq!(view.without_dots(&path("link/../file")), Some(canonical));
        assert_eq!(view.without_dots(&path("..file")), None);
        assert_eq!(view.without_dots(&path("none/../file")), None);
    }

    #[test]
    fn only_a_regular_file_has_a_head_and_a_pipe_is_not_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let pipe = root.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::XUSR, 0).unwrap();
        let view = View::of(rustix::process::getpid().as_raw_nonzero().get());
        let mut head = [0; 4];
        assert!(view.head(pipe.as_os_str().as_bytes(), &mut head).is_err());
        write_whole(&root.path().join("file"), b"text", Durability::Deferred).unwrap();
        assert_eq!(view.head(root.path().join("file").as_os_str().as_bytes(), &mut head).unwrap(), 4);
    }
}
