//! Reading records in runs, and telling whether they are what was written.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rayon::prelude::*;

use super::Progress;
use crate::hash::Digest;
use crate::store::codec::{self, Codec};
use crate::store::pack::{Entry, HEADER_BYTES, Tag, is_record};
use crate::store::recipe::Recipe;

/// Records that lie together are read at once, up to this many bytes.
const RUN_BYTES: u64 = 4 << 20;

/// What a record turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// It is what was written.
    Whole,
    /// What it holds is what was written, its header is not. Of a recipe, that may be so.
    HeaderDamaged,
    /// What it holds is not what was written, or cannot be read.
    Bad,
}

/// Returns what each record is. `entries` are sorted by offset.
///
/// A recipe is whole if it is what was written; whether its pieces make the blob is not looked at here.
pub(super) fn states(file: &File, entries: &[Entry], progress: Progress<'_>) -> Vec<State> {
    let of_run = |range: Range<usize>| {
        let run = &entries[range];
        let states = run_states(file, run);
        progress(run.len() as u64, run.iter().map(record_bytes).sum());
        states
    };
    runs(entries).into_par_iter().map(of_run).flatten().collect()
}

/// Returns how many bytes the record at `entry` has.
pub(super) fn record_bytes(entry: &Entry) -> u64 {
    HEADER_BYTES as u64 + u64::from(entry.stored)
}

/// Returns which entries to read at once: neighbours that span at most [`RUN_BYTES`], or one that is longer.
fn runs(entries: &[Entry]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (place, entry) in entries.iter().enumerate() {
        let end = entry.offset.saturating_add(record_bytes(entry));
        match runs.last_mut() {
            Some(run) if end.saturating_sub(entries[run.start].offset) <= RUN_BYTES => run.end = place + 1,
            _ => runs.push(place..place + 1),
        }
    }
    runs
}

fn run_states(file: &File, run: &[Entry]) -> Vec<State> {
    let start = run[0].offset;
    let end = run.iter().map(|entry| entry.offset.saturating_add(record_bytes(entry))).max().unwrap_or(start);
    match read(file, start, end - start) {
        Ok(bytes) => run
            .iter()
            .map(|entry| {
                let from = usize::try_from(entry.offset - start).unwrap_or(usize::MAX);
                let record = bytes.get(from..).and_then(|rest| rest.get(..HEADER_BYTES + entry.stored as usize));
                record.map_or(State::Bad, |record| state(record, entry))
            })
            .collect(),
        // One that lies where nothing can be read does not make its neighbours bad.
        Err(_) if run.len() > 1 => run.iter().flat_map(|entry| run_states(file, std::slice::from_ref(entry))).collect(),
        Err(_) => vec![State::Bad],
    }
}

fn read(file: &File, at: u64, count: u64) -> io::Result<Vec<u8>> {
    let count = usize::try_from(count).map_err(io::Error::other)?;
    let mut bytes = vec![0; count];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

/// Returns what `record`, header and stored bytes, is, if it should be the one at `entry`.
fn state(record: &[u8], entry: &Entry) -> State {
    let is_header_whole = is_record(record, entry);
    let stored = &record[HEADER_BYTES..];
    let is_content_whole = match entry.tag {
        // The check in its header also tells of these bytes; without it they are to be tried.
        Tag::Recipe => Recipe::decode(stored).is_some_and(|recipe| recipe.length == entry.length),
        tag => content(entry, stored).is_some_and(|bytes| name(tag, &bytes) == entry.digest),
    };
    match (is_content_whole, is_header_whole) {
        (true, true) => State::Whole,
        (true, false) => State::HeaderDamaged,
        (false, _) => State::Bad,
    }
}

/// Returns what the stored bytes stand for, if they can be decoded.
fn content(entry: &Entry, stored: &[u8]) -> Option<Vec<u8>> {
    let codec = Codec::try_from(entry.codec).ok()?;
    codec::decode(codec, stored, usize::try_from(entry.length).ok()?).ok()
}

/// Returns what the record of an object or a piece with these bytes is named.
fn name(tag: Tag, bytes: &[u8]) -> Digest {
    match tag {
        Tag::Object(kind) => kind.digest(bytes),
        Tag::Chunk | Tag::Recipe => Digest::of(bytes),
    }
}
