//! The power fails: what was acknowledged is there afterwards, and nothing is half there.
//!
//! The file system is told to stop at once, without writing anything more, and
//! is mounted anew. That what is not flushed is lost then is shown each time.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::time::Instant;

use super::content::{Kept, Numbers, files_of, with_output};
use super::needs;
use super::place::{Place, end_of, snapshot_in, text_of};

const ROUNDS: u64 = 12;
const LARGE_BYTES: usize = 200_000;
const SMALL_COUNT: u64 = 6;
/// So many of the newest snapshots are looked at in each round, all of them at the end.
const SHOWN: usize = 1;

/// Waits for a line, then stops the file system: the shutdown call of XFS, which ext4 has too, without flushing the log.
const CUT: &str = "import fcntl, os, struct, sys
place = os.open(os.environ['ROOT'], os.O_RDONLY)
print('armed', flush=True)
sys.stdin.readline()
fcntl.ioctl(place, 0x8004587d, struct.pack('I', 2))";

const REMOUNT: &str = "cd /
for try in $(seq 100); do umount \"$ROOT\" 2> /dev/null && break; sleep 0.05; done
mount -o loop \"$IMAGE\" \"$ROOT\"";

#[test]
fn a_power_cut_on_ext4_loses_nothing_that_was_acknowledged() {
    cuts(
        "a_power_cut_on_ext4_loses_nothing_that_was_acknowledged",
        "a loop-mounted ext4",
        "truncate -s 128M $IMAGE; mkfs.ext4 -q -F $IMAGE; mount -o loop $IMAGE $ROOT",
    );
}

#[test]
fn a_power_cut_on_xfs_loses_nothing_that_was_acknowledged() {
    cuts(
        "a_power_cut_on_xfs_loses_nothing_that_was_acknowledged",
        "a loop-mounted XFS",
        "truncate -s 400M $IMAGE; mkfs.xfs -q -f $IMAGE; mount -o loop $IMAGE $ROOT",
    );
}

/// A program that is ready to cut the power.
pub(super) fn armed(place: &Place) -> Child {
    let mut command = place.command("python3", &["-c", CUT]);
    let mut armed = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It takes longer to start than `pv` takes for all of its work.
    let mut line = String::new();
    BufReader::new(armed.stdout.take().unwrap()).read_line(&mut line).unwrap();
    if line.is_empty() {
        panic!("the power cannot be cut: {}", text_of(&armed.wait_with_output().unwrap()));
    }
    armed
}

/// Cuts the power now.
pub(super) fn fire(mut armed: Child) {
    armed.stdin.take().unwrap().write_all(b"\n").unwrap();
    let output = end_of(armed);
    assert!(output.status.success(), "the power was not cut: {}", text_of(&output));
}

fn cuts(test: &str, what: &str, script: &str) {
    let Some(place) = needs(test, what, Place::mounted(script)) else { return };
    let mut numbers = Numbers::new(20);
    let mut kept: Vec<Kept> = Vec::new();
    let (mut cut_short, mut lost) = (0, 0);
    // How long each takes on this machine, so that cuts fall on all of its work.
    let mut whole = [("snapshot", 1_000), ("run", 1_001)].map(|(verb, round)| {
        place.lay(&files_of(round, LARGE_BYTES, SMALL_COUNT));
        let clock = Instant::now();
        place.keep(&[verb]);
        clock.elapsed()
    });
    for round in 0..ROUNDS {
        let files = files_of(round, LARGE_BYTES, SMALL_COUNT);
        place.lay(&files);
        let is_run = round % 2 == 1;
        let verb = if is_run { "run" } else { "snapshot" };
        let cutter = armed(&place);
        let child = place.pv(&["--json", verb]).spawn().unwrap();
        let output = if round % 3 == 2 {
            let output = end_of(child);
            assert!(output.status.success(), "round {round}: {}", text_of(&output));
            place.write(&format!("unsynced-{round}"), b"never flushed");
            fire(cutter);
            output
        } else {
            let pause = numbers.part_of(whole[usize::from(is_run)]);
            std::thread::sleep(pause);
            fire(cutter);
            // Reads and writes fail from here on: an error, no panic, and an end.
            let output = end_of(child);
            if output.status.success() {
                // It took no longer than that: the first one was slow, and the next cut is to fall on work.
                whole[usize::from(is_run)] = pause;
            }
            output
        };
        place.sh(REMOUNT);
        if round % 3 == 2 {
            lost += u32::from(std::fs::read(place.path(&format!("unsynced-{round}"))).unwrap_or_default().is_empty());
        }
        if output.status.success() {
            let files = if is_run { with_output(files) } else { files };
            kept.push(Kept { what: format!("round {round}, {verb}"), snapshot: snapshot_in(&output), files });
        } else {
            cut_short += 1;
        }
        let output = end_of(place.pv(&["log"]).spawn().unwrap());
        // Nobody waits for what was at work when the power failed.
        assert!(!text_of(&output).contains("were not exchanged"), "round {round}: {}", text_of(&output));
        place.assert_listed(&kept, SHOWN);
        if let Some(newest) = kept.last() {
            place.assert_comes_out(newest);
        }
    }
    assert!(lost > 0, "a cut here loses what is not flushed, else this test shows nothing");
    assert!(cut_short > 0, "no cut fell on work");
    assert!(kept.len() >= 4, "nothing was acknowledged");
    let files = files_of(2_000, LARGE_BYTES, SMALL_COUNT);
    place.lay(&files);
    kept.push(Kept { what: "after all".to_owned(), snapshot: place.keep(&["snapshot"]), files });
    place.assert_listed(&kept, usize::MAX);
    kept.iter().for_each(|kept| place.assert_comes_out(kept));
    // Nor is Git's own part damaged by what was written for it.
    place.sh("git fsck --strict");
}
