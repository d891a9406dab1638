//! Rows of ten times as many files: what must not grow faster than their number.

use super::data::{change_files, make_files};
use super::floors::warm;
use super::ground::{CHANGED_FILES, DATA, FILES, Ground, MANY_FILES};
use super::small::thousands;
use crate::common::child::Cost;
use crate::common::row::{Hold, Row, Series};

const HOLD_RATIO: f64 = 1.2;
const HOLD_PEAK_MIB: f64 = 256.0;

/// What the operations cost in one project.
struct Found {
    snapshots: Vec<Cost>,
    statuses: Vec<Cost>,
    diffs: Vec<Cost>,
    /// The push of all of it to where all of it is.
    push: Row,
}

/// Snapshot, status and diff of many files, beside what is linear from a tenth of them.
pub(crate) fn million(ground: &Ground) -> Vec<Row> {
    let (count, tenth) = (ground.size.of(MANY_FILES), ground.size.of(FILES));
    let few = measure(ground, tenth, ground.size.rounds(3));
    let many = measure(ground, count, 1);
    #[expect(clippy::cast_precision_loss, reason = "a few millions at most")]
    let scale = count as f64 / tenth as f64;
    let linear = |costs: &[Cost]| -> Vec<Cost> {
        costs.iter().map(|cost| Cost { ms: cost.ms * scale, peak_mib: cost.peak_mib }).collect()
    };
    let row = |what: String, many: &[Cost], few: &[Cost]| Row {
        name: "million".to_owned(),
        what,
        measured: Series::times("pv", many),
        floor: Some(Series::times(&format!("linear from {}", thousands(tenth)), &linear(few))),
        hold: Hold::Ratio(HOLD_RATIO),
        hold_peak_mib: Some(HOLD_PEAK_MIB),
        peers: Vec::new(),
    };
    let files = thousands(count);
    vec![
        row(format!("first snapshot, {files} files"), &many.snapshots, &few.snapshots),
        row(format!("`pv status`, {files} files unchanged"), &many.statuses, &few.statuses),
        row(format!("`pv diff`, {files} files"), &many.diffs, &few.diffs),
        many.push.clone(),
    ]
}

fn measure(ground: &Ground, count: usize, snapshot_rounds: usize) -> Found {
    let data = ground.fresh_directory("many");
    make_files(&data, count);
    let mut snapshots = Vec::new();
    let mut last = None;
    for _ in 0..snapshot_rounds {
        let project = ground.project();
        let previous = last.replace(project.clone()).map_or_else(|| data.clone(), |project| project.join(DATA));
        std::fs::rename(previous, project.join(DATA)).unwrap();
        warm(&project.join(DATA));
        snapshots.push(ground.pv(&project, &["snapshot", "--tag", "before"]));
    }
    let project = last.expect("there is at least one round");
    let rounds = ground.size.rounds(5);
    let statuses = (0..=rounds).map(|_| ground.pv(&project, &["status"])).skip(1).collect();
    let changes = ground.size.of(CHANGED_FILES);
    change_files(&project.join(DATA), count, changes, 0);
    ground.scratch.pv(&project, &["snapshot", "--tag", "after"]);
    ground.assert_diff(&project, ["before", "after"], changes);
    let diffs = (0..=rounds).map(|_| ground.pv(&project, &["diff", "before", "after"])).skip(1).collect();
    ground.scratch.run(&project, "git", &["add", "--all"]);
    ground.scratch.run(&project, "git", &["commit", "--quiet", "--message", "data"]);
    let push = super::remote::known(ground, &project, count);
    ground.scratch.throw_away(&project);
    Found { snapshots, statuses, diffs, push }
}
