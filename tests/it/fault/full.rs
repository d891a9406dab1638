//! A disk that is full at any write: a clear error, nothing lost, and all is well when there is room again.

use super::content::{Kept, files_of, with_output};
use super::needs;
use super::place::{Place, end_of, snapshot_in, text_of};

const TMPFS: &str = "mount -t tmpfs -o size=64m none $ROOT";
const LARGE_BYTES: usize = 60_000;
const SMALL_COUNT: u64 = 9;
/// The disk has this much more room each time, so that another write is the one that fails.
const STEP_PAGES: u64 = 2;
const STEPS_MAX: u64 = 60;
/// Once it has worked so often there is room for all.
const ENOUGH: usize = 3;

/// Leaves `$PAGES` pages of room, or as much as there is if that is less.
const SHRINK: &str = "set -- $(stat -f -c '%b %f %S' \"$ROOT\")
mount -o remount,size=$((($1 - $2 + PAGES) * $3)) \"$ROOT\"";
const GROW: &str = "mount -o remount,size=64m \"$ROOT\"";

#[test]
fn wherever_a_snapshot_finds_the_disk_full_it_says_so_and_loses_nothing() {
    fill("wherever_a_snapshot_finds_the_disk_full_it_says_so_and_loses_nothing", "snapshot");
}

#[test]
fn wherever_a_run_finds_the_disk_full_it_says_so_and_loses_nothing() {
    fill("wherever_a_run_finds_the_disk_full_it_says_so_and_loses_nothing", "run");
}

fn fill(test: &str, verb: &str) {
    let Some(place) = needs(test, "root and private mounts", Place::mounted(TMPFS)) else { return };
    let mut kept: Vec<Kept> = Vec::new();
    let (mut failed, mut worked) = (0, 0);
    for step in 0..STEPS_MAX {
        let files = files_of(step, LARGE_BYTES, SMALL_COUNT);
        place.lay(&files);
        place.sh(&format!("PAGES={}; {SHRINK}", step * STEP_PAGES));
        let output = end_of(place.pv(&["--json", verb]).spawn().unwrap());
        if output.status.success() {
            worked += 1;
        } else {
            failed += 1;
            assert_tells_of_a_full_disk(step, &text_of(&output), output.status.code());
            // What is there can be looked at, full or not.
            place.assert_listed(&kept, 1);
        }
        place.sh(GROW);
        let snapshot = if output.status.success() { snapshot_in(&output) } else { place.keep(&[verb]) };
        let files = if verb == "run" { with_output(files) } else { files };
        kept.push(Kept { what: format!("step {step}"), snapshot, files });
        if worked == ENOUGH {
            break;
        }
    }
    assert!(failed > 5 && worked == ENOUGH, "{failed} failed and {worked} worked");
    place.assert_listed(&kept, usize::MAX);
    kept.iter().for_each(|kept| place.assert_comes_out(kept));
    place.sh("git fsck --strict");
}

fn assert_tells_of_a_full_disk(step: u64, told: &str, code: Option<i32>) {
    assert_eq!(code, Some(2), "step {step}: {told}");
    assert!(told.contains("No space left on device"), "step {step}: {told}");
    assert!(told.contains("free some space and try again"), "step {step}: {told}");
}
