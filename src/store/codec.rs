//! provisional
use std::borrow::Cow;
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Codec {
    Raw,
    Zstd,
}
impl Codec {
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Zstd => 1,
        }
    }
}
pub(super) fn plain(bytes: &[u8]) -> (Codec, Cow<'_, [u8]>) {
    (Codec::Raw, Cow::Borrowed(bytes))
}
pub(super) fn encode(bytes: &[u8]) -> (Codec, Cow<'_, [u8]>) {
    match zstd::bulk::compress(bytes, 1) {
        Ok(z) if z.len() < bytes.len() * 94 / 100 => (Codec::Zstd, Cow::Owned(z)),
        _ => plain(bytes),
    }
}
pub(super) fn decode(codec: u8, stored: &[u8], raw: usize) -> Result<Vec<u8>, std::io::Error> {
    match codec {
        0 => Ok(stored.to_vec()),
        _ => zstd::bulk::decompress(stored, raw),
    }
}
