//! How the memory of read sets lies in a file.
//!
//! Numbers are little-endian. `pv sets 1\n`; the number of names, each with its length; the number of sets, each as
//! a byte that is 1 if it is whole, its number of names and their places; the number of results, each as id, key,
//! start in milliseconds, place of its set (all bits set if it was not observed), sum; the BLAKE3 of all that.

use super::sets::{KnownResult, Name, ReadSet, ReadSets};
use crate::hash::Digest;
use crate::host::Time;

const MAGIC: &[u8] = b"pv sets 1\n";
const DIGEST_BYTES: usize = 32;
const UNOBSERVED: u32 = u32::MAX;

/// Returns the bytes of the memory.
pub(super) fn encode(sets: &ReadSets) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    let number = |out: &mut Vec<u8>, number: usize| {
        out.extend_from_slice(&u32::try_from(number).expect("fewer than memory holds").to_le_bytes());
    };
    number(&mut out, sets.names.len());
    for name in &sets.names {
        let text = name.text();
        number(&mut out, text.len());
        out.extend_from_slice(text.as_bytes());
    }
    number(&mut out, sets.sets.len());
    for set in &sets.sets {
        out.push(u8::from(set.is_whole));
        number(&mut out, set.names.len());
        set.names.iter().for_each(|place| out.extend_from_slice(&place.to_le_bytes()));
    }
    number(&mut out, sets.results().count());
    let observed = sets.sets.iter().zip(0_u32..).flat_map(|(set, place)| set.results.iter().map(move |r| (r, place)));
    for (known, place) in observed.chain(sets.unobserved.iter().map(|known| (known, UNOBSERVED))) {
        out.extend_from_slice(known.id.digest().as_bytes());
        out.extend_from_slice(known.key.digest().as_bytes());
        out.extend_from_slice(&known.started.epoch_ms.to_le_bytes());
        out.extend_from_slice(&place.to_le_bytes());
        out.extend_from_slice(&known.sum.to_le_bytes());
    }
    let digest = Digest::of(&out);
    out.extend_from_slice(digest.as_bytes());
    out
}

/// Returns what the memory tells; `None` if it is damaged or of another version.
pub(super) fn decode(bytes: &[u8]) -> Option<ReadSets> {
    let (body, digest) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST_BYTES)?)?;
    if Digest::of(body).as_bytes() != digest {
        return None;
    }
    let mut rest = Rest(body.strip_prefix(MAGIC)?);
    let mut sets = ReadSets::default();
    for _ in 0..rest.number()? {
        let length = rest.number()?;
        let text = std::str::from_utf8(rest.take(usize::try_from(length).ok()?)?).ok()?;
        sets.names.push(Name::parse(text)?);
    }
    for _ in 0..rest.number()? {
        let is_whole = rest.array::<1>()? == [1];
        let count = usize::try_from(rest.number()?).ok()?;
        let places = rest.take(count.checked_mul(4)?)?.chunks_exact(4);
        let names: Vec<u32> =
            places.map(|four| u32::from_le_bytes(four.try_into().expect("a chunk has four bytes"))).collect();
        if names.iter().any(|place| *place as usize >= sets.names.len()) {
            return None;
        }
        sets.sets.push(ReadSet { is_whole, names, results: Vec::new() });
    }
    for _ in 0..rest.number()? {
        let id = Digest::from_bytes(rest.array()?).into();
        let key = Digest::from_bytes(rest.array()?).into();
        let started = Time { epoch_ms: i64::from_le_bytes(rest.array()?) };
        let place = rest.number()?;
        let known = KnownResult { key, id, started, sum: u64::from_le_bytes(rest.array()?) };
        match place {
            UNOBSERVED => sets.unobserved.push(known),
            place => sets.sets.get_mut(place as usize)?.results.push(known),
        }
    }
    rest.0.is_empty().then_some(sets)
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.array()?))
    }
}
