//! provisional
use super::StoreError;
use crate::hash::{Digest, Hasher};
use std::io::{self, Read};
pub(super) struct Ingested {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) chunks: Vec<(Digest, u32)>,
}
pub(super) fn ingest(
    source: &mut (dyn Read + Send),
    failed: &(dyn Fn(io::Error) -> StoreError + Sync),
    keep: &(dyn Fn(Digest, &[u8]) -> Result<(), StoreError> + Sync),
) -> Result<Ingested, StoreError> {
    let mut hasher = Hasher::default();
    let mut chunks = Vec::new();
    loop {
        let mut bytes = Vec::new();
        Read::take(&mut *source, 256 * 1024).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.is_empty() {
            break;
        }
        hasher.update(&bytes);
        let digest = Digest::of(&bytes);
        keep(digest, &bytes)?;
        chunks.push((digest, bytes.len() as u32));
    }
    let (digest, size) = hasher.finish();
    Ok(Ingested { digest, size, chunks })
}
