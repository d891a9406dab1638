//! File systems that share blocks between files: a large file goes in and comes out, and takes no more room for it.

use super::needs;
use super::place::Place;

const LARGE_BYTES: u64 = 64 << 20;
/// What a file system needs for itself beside the blocks of one copy.
const SLACK_BYTES: u64 = 8 << 20;

#[test]
fn a_large_file_goes_through_a_store_on_xfs() {
    goes_through(
        "a_large_file_goes_through_a_store_on_xfs",
        "a loop-mounted XFS",
        "truncate -s 600M $IMAGE; mkfs.xfs -q -f -m reflink=1 $IMAGE; mount -o loop $IMAGE $ROOT",
    );
}

#[test]
fn a_large_file_goes_through_a_store_on_btrfs() {
    goes_through(
        "a_large_file_goes_through_a_store_on_btrfs",
        "a loop-mounted btrfs",
        "truncate -s 600M $IMAGE; mkfs.btrfs -q -f $IMAGE; mount -o loop $IMAGE $ROOT",
    );
}

/// Returns how many bytes of the whole file system are in use.
fn used_bytes(place: &Place) -> u64 {
    let told = place.sh("sync -f \"$ROOT\"; stat -f -c '%b %f %S' \"$ROOT\"");
    let numbers: Vec<u64> = told.split_whitespace().map(|word| word.parse().unwrap()).collect();
    (numbers[0] - numbers[1]) * numbers[2]
}

fn goes_through(test: &str, what: &str, script: &str) {
    let Some(place) = needs(test, what, Place::mounted(script)) else { return };
    place.sh(&format!("mkdir data; head -c {LARGE_BYTES} /dev/urandom > data/large"));
    let sum = || place.sh("sha256sum data/large");
    let before = (used_bytes(&place), sum());
    assert!(before.0 > LARGE_BYTES, "the room that is used is measured");
    let snapshot = place.keep(&["snapshot"]);
    let stored_bytes = used_bytes(&place).saturating_sub(before.0);
    place.sh("rm data/large");
    let removed = used_bytes(&place);
    place.sh(&format!("\"{}\" --quiet checkout {snapshot}", env!("CARGO_BIN_EXE_pv")));
    let laid_bytes = used_bytes(&place).saturating_sub(removed);
    assert_eq!(sum(), before.1);
    for (what, grown_bytes) in [("the snapshot", stored_bytes), ("the checkout", laid_bytes)] {
        assert!(grown_bytes < SLACK_BYTES, "{what} does not share its blocks: it took {grown_bytes} bytes more");
    }
}
