//! Claims: locks of which there are ever more, each a number, in one file.
//!
//! A file for each would be made and removed again, which costs some file systems more than what is done
//! under the lock. So a claim is the lock of one byte of a file in which nothing is ever written, held by an open
//! file of its own: the kernel gives it back when that is closed, or the process dies.
//! Source: `fcntl(2)`, open file description locks.

use std::path::Path;

use super::{DiskError, Lock};

/// A number that nobody else has now. Given back when this is dropped or the process dies.
#[derive(Debug)]
pub struct Claim {
    #[cfg(target_os = "linux")]
    _file: std::fs::File,
    #[cfg(not(target_os = "linux"))]
    lock: Option<Lock>,
}

impl Claim {
    /// Takes `number` in the file at `path` if it is free; `None` if another has it, in this process or elsewhere.
    ///
    /// The file is made if it is missing, and stays. The highest bit of the number does not count.
    ///
    /// # Errors
    ///
    /// [`DiskError`] if the file cannot be made or the file system has no locks.
    #[cfg(target_os = "linux")]
    pub fn try_take(path: &Path, number: u64) -> Result<Option<Self>, DiskError> {
        let file = Lock::open(path)?;
        match lock_byte(&file, number >> 1) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(DiskError::on("lock", path)(error)),
        }
    }

    /// As on Linux, with a file for each number beside the one at `path`.
    ///
    /// # Errors
    ///
    /// [`DiskError`] if a file cannot be made or the file system has no locks.
    #[cfg(not(target_os = "linux"))]
    pub fn try_take(path: &Path, number: u64) -> Result<Option<Self>, DiskError> {
        let lock = Lock::try_exclusive(&path.with_extension(format!("{:016x}", number >> 1)))?;
        Ok(lock.map(|lock| Self { lock: Some(lock) }))
    }
}

#[cfg(not(target_os = "linux"))]
impl Drop for Claim {
    fn drop(&mut self) {
        self.lock.take().into_iter().for_each(Lock::remove);
    }
}

/// Locks one byte for this open file, or says that it would have to wait.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no library at hand has this lock in a safe form")]
#[expect(clippy::cast_possible_truncation, reason = "small constants")]
fn lock_byte(file: &std::fs::File, place: u64) -> std::io::Result<()> {
    use std::os::fd::AsRawFd;

    let request = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: libc::off_t::try_from(place & (u64::MAX >> 2)).expect("62 bits"),
        l_len: 1,
        // As it must be for these locks.
        l_pid: 0,
    };
    // SAFETY: the kernel only reads the request, which lives until the call returns.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const request) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_had_by_one_at_a_time_and_its_neighbours_are_free() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("new/claims");
        for number in [0, 8, u64::MAX] {
            let held = Claim::try_take(&path, number).unwrap();
            assert!(held.is_some());
            assert!(Claim::try_take(&path, number).unwrap().is_none());
            assert!(Claim::try_take(&path, number ^ 2).unwrap().is_some());
            drop(held);
            assert!(Claim::try_take(&path, number).unwrap().is_some());
        }
    }

    #[test]
    fn who_is_started_meanwhile_does_not_keep_it() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("claims");
        let held = Claim::try_take(&path, 77).unwrap();
        #[expect(clippy::disallowed_methods, reason = "a process of its own is what this is about")]
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        drop(held);
        assert!(Claim::try_take(&path, 77).unwrap().is_some());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
