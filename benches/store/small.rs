//! Rows of many small files: the first snapshot, what changed since, status, checkout, diff.

use super::data::change_files;
use super::floors::{digests, mib, occupied_mib, read_hash_and_write, walk, warm};
use super::ground::{CHANGED_FILES, DATA, FILES, Ground, text};
use super::peers::OnFiles;
use crate::common::child::in_turns;
use crate::common::row::{Hold, Row, Series};

/// Changes other files than any round does.
const ROUND_OF_NO_OTHER: usize = 100;

/// The first snapshot, and the store after it.
pub(crate) fn files(ground: &Ground) -> Vec<Row> {
    let rounds = ground.size.rounds(3);
    let (count, bytes) = walk(ground.files());
    assert_eq!(count, u64::try_from(ground.size.of(FILES)).unwrap());
    let mut grown = Vec::new();
    let (snapshots, floors) = in_turns(
        rounds,
        |_| {
            let project = ground.project();
            let before = occupied_mib(&project, &[DATA]);
            // Moved and not copied: nothing new is written that would have to reach the disk meanwhile.
            std::fs::rename(ground.files(), project.join(DATA)).unwrap();
            warm(&project.join(DATA));
            let cost = ground.pv(&project, &["snapshot"]);
            std::fs::rename(project.join(DATA), ground.files()).unwrap();
            ground.settle();
            grown.push(occupied_mib(&project, &[DATA]) - before);
            ground.scratch.throw_away(&project);
            cost
        },
        |_| {
            let copy = ground.fresh_directory("floor").join("all");
            warm(ground.files());
            let cost = ground.act(|| assert_eq!(read_hash_and_write(ground.files(), &copy), bytes));
            std::fs::remove_file(copy).unwrap();
            cost
        },
    );
    let of_peers = |series: &dyn Fn(&OnFiles) -> Series| ground.peers_on_files().iter().map(series).collect();
    let what = format!("first snapshot, {} files of 4 KiB", thousands(ground.size.of(FILES)));
    vec![
        Row {
            name: "files".to_owned(),
            what: what.clone(),
            measured: Series::times("pv", &snapshots),
            floor: Some(Series::times("read, hash, one synced write", &floors)),
            hold: Hold::Ratio(1.6),
            hold_peak_mib: None,
            peers: of_peers(&|peer| Series::times(peer.name, &[peer.snapshot])),
        },
        Row {
            name: "files".to_owned(),
            what: format!("{what}: size of the store"),
            measured: Series::sizes("pv", grown.split_off(1)),
            floor: Some(Series::sizes("bytes of the files", vec![mib(bytes)])),
            hold: Hold::Ratio(1.0),
            hold_peak_mib: None,
            peers: of_peers(&|peer| Series::sizes(peer.name, vec![peer.growth_mib])),
        },
    ]
}

/// A snapshot after few of the files changed.
pub(crate) fn again(ground: &Ground) -> Vec<Row> {
    let project = ground.settled();
    let changes = ground.size.of(CHANGED_FILES);
    let round_number = std::cell::Cell::new(0);
    let (snapshots, floors) = in_turns(
        ground.size.rounds(5),
        |_| ground.pv(project, &["snapshot"]),
        |round| {
            round_number.set(round);
            change_files(&project.join(DATA), ground.size.of(FILES), changes, round);
            ground.pv(project, &["status"])
        },
    );
    vec![Row {
        name: "again".to_owned(),
        what: format!("snapshot, {changes} of {} files changed", thousands(ground.size.of(FILES))),
        measured: Series::times("pv", &snapshots),
        floor: Some(Series::times("`pv status` of the same", &floors)),
        hold: Hold::Ratio(1.5),
        hold_peak_mib: None,
        peers: Vec::new(),
    }]
}

/// Status where nothing changed.
pub(crate) fn status(ground: &Ground) -> Vec<Row> {
    let (project, count) = (ground.settled(), ground.size.of(FILES));
    let (statuses, floors) = in_turns(
        ground.size.rounds(10),
        |_| ground.pv(project, &["status"]),
        |_| ground.act(|| assert_eq!(walk(&project.join(DATA)).0, u64::try_from(count).unwrap())),
    );
    let peers = ground.peers_on_files().iter().filter(|peer| !peer.status.is_empty());
    vec![Row {
        name: "status".to_owned(),
        what: format!("`pv status`, {} files unchanged", thousands(count)),
        measured: Series::times("pv", &statuses),
        floor: Some(Series::times("`lstat` of each, all processors", &floors)),
        hold: Hold::Ratio(1.3),
        hold_peak_mib: None,
        peers: peers.map(|peer| Series::times(peer.name, &peer.status)).collect(),
    }]
}

/// Checkout of data that is not there; what comes back is compared with what was kept.
pub(crate) fn checkout(ground: &Ground) -> Vec<Row> {
    let project = ground.settled();
    let data = project.join(DATA);
    ground.scratch.pv(project, &["snapshot", "--tag", "last", "--force"]);
    let kept = digests(&data);
    let (checkouts, floors) = in_turns(
        ground.size.rounds(3),
        |_| {
            ground.scratch.throw_away(&data);
            let cost = ground.pv(project, &["checkout", "last"]);
            assert!(digests(&data) == kept, "`pv checkout` did not bring back what was kept");
            cost
        },
        |_| {
            let copy = ground.fresh_directory("floor").join("copy");
            warm(ground.files());
            ground.settle();
            ground.scratch.run(&ground.scratch.root, "cp", &["-r", text(ground.files()), text(&copy)])
        },
    );
    let peers = ground.peers_on_files().iter();
    vec![Row {
        name: "checkout".to_owned(),
        what: format!("checkout of {} files, each verified", thousands(kept.len())),
        measured: Series::times("pv", &checkouts),
        floor: Some(Series::times("`cp -r`", &floors)),
        hold: Hold::Ratio(1.0),
        hold_peak_mib: None,
        peers: peers.map(|peer| Series::times(peer.name, &[peer.restore])).collect(),
    }]
}

/// What changed between two snapshots.
pub(crate) fn diff(ground: &Ground) -> Vec<Row> {
    let (project, count, changes) = (ground.settled(), ground.size.of(FILES), ground.size.of(CHANGED_FILES));
    ground.scratch.pv(project, &["snapshot", "--tag", "before", "--force"]);
    change_files(&project.join(DATA), count, changes, ROUND_OF_NO_OTHER);
    ground.scratch.pv(project, &["snapshot", "--tag", "after", "--force"]);
    ground.assert_diff(project, ["before", "after"], changes);
    let mut diffs: Vec<_> =
        (0..=ground.size.rounds(10)).map(|_| ground.pv(project, &["diff", "before", "after"])).collect();
    vec![Row {
        name: "diff".to_owned(),
        what: format!("`pv diff` of two snapshots of {} files, {changes} changed", thousands(count)),
        measured: Series::times("pv", &diffs.split_off(1)),
        floor: None,
        hold: Hold::Amount(50.0),
        hold_peak_mib: None,
        peers: Vec::new(),
    }]
}

/// A number with its thousands set apart.
pub(crate) fn thousands(number: usize) -> String {
    if number < 1000 { number.to_string() } else { format!("{},{:03}", thousands(number / 1000), number % 1000) }
}
