//! What a job prints: kept in its log as it comes, and handed on line by line.

use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::disk::DiskError;

/// The longest piece of a line that is handed on at once, in bytes.
pub const MAX_LINE_BYTES: usize = 64 * 1024;

/// How much is read at once, in bytes: what a pipe holds unless it was made larger.
const CHUNK_BYTES: usize = 64 * 1024;

/// How much of the output can have been waiting when its writers ended, in bytes: the largest pipe a user may make.
const MAX_PIPE_BYTES: usize = 1024 * 1024;

/// The reading end of a job's output, and where it goes.
pub(super) struct Output<'a> {
    /// `None` once all its writers are gone.
    pipe: Option<PipeReader>,
    log: File,
    log_path: &'a Path,
    lines: Lines,
    on_line: &'a mut (dyn FnMut(&[u8]) + Send),
    buffer: Vec<u8>,
}

impl<'a> Output<'a> {
    /// Joins `pipe` to `log` (which lies at `log_path`) and `on_line`.
    pub(super) fn new(
        pipe: PipeReader,
        log: File,
        log_path: &'a Path,
        on_line: &'a mut (dyn FnMut(&[u8]) + Send),
    ) -> Self {
        Self { pipe: Some(pipe), log, log_path, lines: Lines::default(), on_line, buffer: vec![0; CHUNK_BYTES] }
    }

    /// Returns what to poll for more, or `None` if there will be no more.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Takes what is there, at most one buffer full; returns its length in bytes. Waits if nothing is there yet.
    ///
    /// # Errors
    ///
    /// [`DiskError`] if the log cannot be written.
    pub(super) fn take(&mut self) -> Result<usize, DiskError> {
        let Some(pipe) = &mut self.pipe else { return Ok(0) };
        let length = match pipe.read(&mut self.buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(0),
            Err(error) => return Err(DiskError::on("read what goes into", self.log_path)(error)),
        };
        if length == 0 {
            self.pipe = None;
        }
        let bytes = &self.buffer[..length];
        self.log.write_all(bytes).map_err(DiskError::on("write", self.log_path))?;
        self.lines.push(bytes, self.on_line);
        Ok(length)
    }

    /// Takes what the ended job has left in the pipe, and hands on a last line without a newline.
    ///
    /// Does not wait for anyone who still holds the pipe, and takes no more
    /// than what a pipe holds: later words are not the job's.
    ///
    /// # Errors
    ///
    /// [`DiskError`] if the log cannot be written.
    pub(super) fn finish(mut self) -> Result<(), DiskError> {
        let mut taken = 0;
        while taken < MAX_PIPE_BYTES && self.descriptor().is_some_and(is_ready) {
            taken += self.take()?;
        }
        self.lines.finish(self.on_line);
        Ok(())
    }
}

fn is_ready(descriptor: BorrowedFd<'_>) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut polled = [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)];
    loop {
        match rustix::event::poll(&mut polled, Some(&now)) {
            Err(rustix::io::Errno::INTR) => {}
            result => return result.is_ok_and(|ready| ready > 0),
        }
    }
}

/// Cuts a stream of bytes into lines, and lines that are too long into pieces.
#[derive(Default)]
struct Lines {
    /// The line that has begun; at most [`MAX_LINE_BYTES`].
    begun: Vec<u8>,
}

impl Lines {
    fn push(&mut self, mut bytes: &[u8], on_line: &mut dyn FnMut(&[u8])) {
        while let Some(newline) = bytes.iter().position(|byte| *byte == b'\n') {
            self.extend(&bytes[..newline], on_line);
            on_line(&self.begun);
            self.begun.clear();
            bytes = &bytes[newline + 1..];
        }
        self.extend(bytes, on_line);
    }

    fn extend(&mut self, mut bytes: &[u8], on_line: &mut dyn FnMut(&[u8])) {
        while self.begun.len() + bytes.len() > MAX_LINE_BYTES {
            let (fits, rest) = bytes.split_at(MAX_LINE_BYTES - self.begun.len());
            self.begun.extend_from_slice(fits);
            on_line(&self.begun);
            self.begun.clear();
            bytes = rest;
        }
        self.begun.extend_from_slice(bytes);
    }

    fn finish(&mut self, on_line: &mut dyn FnMut(&[u8])) {
        if !self.begun.is_empty() {
            on_line(&self.begun);
            self.begun.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk;
    use proptest::prelude::*;

    fn lines(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        let mut on_line = |line: &[u8]| seen.push(line.to_vec());
        for chunk in chunks {
            lines.push(chunk, &mut on_line);
        }
        lines.finish(&mut on_line);
        seen
    }

    #[test]
    fn lines_do_not_depend_on_how_they_arrive() {
        assert_eq!(lines(&[b"one\ntw", b"o", b"\n\nlast"]), [&b"one"[..], b"two", b"", b"last"]);
        assert_eq!(lines(&[b"one\n"]), [b"one"]);
        assert!(lines(&[b""]).is_empty());
    }

    #[test]
    fn a_line_without_an_end_is_handed_on_in_pieces_and_never_kept_whole() {
        let mut lines = Lines::default();
        let (mut total, mut pieces) = (0, 0);
        let mut on_line = |piece: &[u8]| {
            assert!(piece.len() <= MAX_LINE_BYTES);
            (total, pieces) = (total + piece.len(), pieces + 1);
        };
        let chunk = [b'x'; 10_000];
        for _ in 0..1_000 {
            lines.push(&chunk, &mut on_line);
            assert!(lines.begun.capacity() <= 2 * MAX_LINE_BYTES);
        }
        lines.finish(&mut on_line);
        assert_eq!((total, pieces), (10_000_000, 10_000_000_usize.div_ceil(MAX_LINE_BYTES)));
    }

    #[test]
    fn a_line_of_exactly_the_longest_length_is_one_piece() {
        let longest = vec![b'x'; MAX_LINE_BYTES];
        assert_eq!(lines(&[&longest, b"\n", b"y\n"]), [longest.clone(), b"y".to_vec()]);
    }

    #[test]
    fn finishing_does_not_wait_for_somebody_who_keeps_writing() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("log");
        let (reader, writer) = io::pipe().unwrap();
        let mut endless = writer.try_clone().unwrap();
        let writing = std::thread::spawn(move || while endless.write_all(&[b'x'; 4096]).is_ok() {});

        let mut seen = 0;
        let mut on_line = |piece: &[u8]| seen += piece.len();
        Output::new(reader, disk::create(&path).unwrap(), &path, &mut on_line).finish().unwrap();
        assert!(seen <= MAX_PIPE_BYTES + CHUNK_BYTES);
        // The reading end is gone with the output, so the writer is refused.
        writing.join().unwrap();

        let (silent, _writer) = io::pipe().unwrap();
        Output::new(silent, disk::create(&path).unwrap(), &path, &mut |_| {}).finish().unwrap();
    }

    proptest! {
        #[test]
        fn joined_lines_are_the_output(chunks in proptest::collection::vec(proptest::collection::vec(0_u8..12, 0..30), 0..8)) {
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            let all = chunks.concat();
            let mut joined = lines(&chunks).join(&b'\n');
            if all.ends_with(b"\n") {
                joined.push(b'\n');
            }
            prop_assert_eq!(joined, all);
        }
    }
}
