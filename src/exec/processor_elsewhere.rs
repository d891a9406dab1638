//! Of processors other than x86-64 nothing is answered in their place.

use super::entropy::Streams;

pub(super) fn plant(_: i32) {}

pub(super) fn plant_new(_: i32) {}

pub(super) fn answer_bits(_: i32, _: &Streams) -> bool {
    false
}

pub(super) fn is_in_loader(_: i32) -> bool {
    false
}

pub(super) fn answer_cycles(_: i32, _: impl FnOnce() -> Option<u64>) -> bool {
    false
}
