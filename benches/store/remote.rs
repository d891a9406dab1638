//! Rows of remotes: what goes there and comes from there, beside a plain copy of the same.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::data::{MIB, edit_blocks, make_mixed_files};
use super::floors::warm;
use super::ground::{DATA, Ground, text};
use super::large::EDITED_BLOCKS;
use crate::common::child::{Cost, in_turns};
use crate::common::row::{Hold, Row, Series};

/// As many small files as other programs were measured with.
const FILES: usize = 10_000;
/// A push of what is there already may ask so often.
const REQUESTS_MAX: u64 = 3;
/// A push of a million objects that are there already may ask so often.
const REQUESTS_OF_MANY_MAX: u64 = 5;

/// Small files to and from a directory, and the push of what is there already.
pub(crate) fn remote(ground: &Ground) -> Vec<Row> {
    let files = ground.fresh_directory("mixed");
    make_mixed_files(&files, ground.size.of(FILES));
    let (project, share) = shared_project(ground, &files);
    let clone = ground.fresh_directory("clones").join("clone");
    let rounds = ground.size.rounds(5);
    let mut again = Vec::new();
    let (pushes, copies) = in_turns(
        rounds,
        |_| {
            remove(ground, &share);
            warm(&project);
            let cost = ground.pv(&project, &["push"]);
            let (repeated, answer) = push(ground, &project);
            assert!(answer["requests"].as_u64().unwrap() <= REQUESTS_MAX, "{answer}");
            again.push(repeated);
            cost
        },
        |_| copied(ground, &files),
    );
    let mut with_checkout = Vec::new();
    let (pulls, pull_copies) = in_turns(
        rounds,
        |_| {
            remove(ground, &clone);
            ground.scratch.run(&project, "git", &["clone", "--quiet", text(&project), text(&clone)]);
            warm(&share);
            let pull = ground.pv(&clone, &["pull", "--no-records"]);
            let checkout = ground.pv(&clone, &["checkout", "HEAD", DATA]);
            with_checkout.push(pull.and(checkout));
            pull
        },
        |_| copied(ground, &files),
    );
    let what = format!("{} files of 1 to 8 KiB", super::small::thousands(ground.size.of(FILES)));
    let row = |what: String, measured: &[Cost], floor: &[Cost], hold: Hold| Row {
        name: "remote".to_owned(),
        what,
        measured: Series::times("pv", measured),
        floor: Some(Series::times("`cp -r` of them", floor)),
        hold,
        hold_peak_mib: None,
        peers: Vec::new(),
    };
    vec![
        row(format!("`pv push` to a directory, {what}"), &pushes, &copies, Hold::Ratio(1.0)),
        row(format!("`pv pull` from a directory, {what}"), &pulls, &pull_copies, Hold::Ratio(1.0)),
        row(format!("`pv pull` and `pv checkout`, {what}"), &with_checkout[1..], &pull_copies, Hold::Ratio(2.0)),
        row("`pv push`, all of it there already".to_owned(), &again[1..], &copies, Hold::Amount(30.0)),
    ]
}

/// What goes over the wire after one percent of a table was edited.
pub(crate) fn wire(ground: &Ground) -> Vec<Row> {
    let table = ground.make_table();
    let place = ground.fresh_directory("one-table");
    ground.copy(&table, &place.join("table.csv"));
    let (project, _) = shared_project(ground, &place);
    push(ground, &project);
    edit_blocks(&project.join(DATA).join("table.csv"), EDITED_BLOCKS, ground.size.of(MIB));
    ground.scratch.pv(&project, &["snapshot"]);
    ground.scratch.run(&project, "git", &["commit", "--quiet", "--all", "--message", "edited"]);
    let (_, answer) = push(ground, &project);
    #[expect(clippy::cast_precision_loss, reason = "some MiB")]
    let mib = answer["bytes"].as_u64().unwrap() as f64 / MIB as f64;
    std::fs::remove_file(table).unwrap();
    ground.scratch.throw_away(&project);
    vec![Row {
        name: "wire".to_owned(),
        what: "`pv push`, 1 % of the table edited: bytes on the wire".to_owned(),
        measured: Series::sizes("pv", vec![mib]),
        floor: None,
        hold: Hold::Amount(16.0),
        hold_peak_mib: None,
        peers: Vec::new(),
    }]
}

/// The push of a project whose objects are all there already, by the indexes of its own packs: there are no packs.
pub(crate) fn known(ground: &Ground, project: &Path, count: usize) -> Row {
    let share = ground.fresh_directory("simulated");
    std::fs::create_dir(share.join("index")).unwrap();
    std::fs::write(share.join("FORMAT"), format!("{}\n", pv::remote::REMOTE_FORMAT)).unwrap();
    for pack in std::fs::read_dir(project.join(".git/pv/packs")).unwrap() {
        let path = pack.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        // The trailer says where the records end; from there on it is the index.
        let trailer = &bytes[bytes.len() - 64..];
        let records_end = usize::try_from(u64::from_le_bytes(trailer[..8].try_into().unwrap())).unwrap();
        std::fs::write(share.join("index").join(path.file_stem().unwrap()), &bytes[records_end..]).unwrap();
    }
    ground.scratch.pv(project, &["remote", "add", "share", text(&share), "--private", "--force"]);
    let rounds = ground.size.rounds(3);
    let pushes = (0..=rounds)
        .map(|_| {
            ground.settle();
            let (cost, answer) = push(ground, project);
            let told = (answer["sent"].as_u64().unwrap(), answer["requests"].as_u64().unwrap());
            assert!(told.0 == 0 && told.1 <= REQUESTS_OF_MANY_MAX + many_indexes(&share), "{answer}");
            cost
        })
        .skip(1)
        .collect::<Vec<_>>();
    Row {
        name: "million".to_owned(),
        what: format!("`pv push`, {} files there already", super::small::thousands(count)),
        measured: Series::times("pv", &pushes),
        floor: None,
        hold: Hold::Amount(10_000.0),
        hold_peak_mib: Some(150.0),
        peers: Vec::new(),
    }
}

/// The first push reads every index once.
fn many_indexes(share: &Path) -> u64 {
    std::fs::read_dir(share.join("index")).unwrap().count() as u64
}

/// Returns a project with a copy of `files` as its data, committed, and the directory that is its remote.
fn shared_project(ground: &Ground, files: &Path) -> (PathBuf, PathBuf) {
    let project = ground.project();
    let share = ground.fresh_directory("share").join("remote");
    ground.copy(files, &project.join(DATA));
    ground.scratch.pv(&project, &["remote", "add", "share", text(&share)]);
    ground.scratch.pv(&project, &["snapshot"]);
    ground.scratch.run(&project, "git", &["add", "--all"]);
    ground.scratch.run(&project, "git", &["commit", "--quiet", "--message", "data"]);
    (project, share)
}

fn push(ground: &Ground, project: &Path) -> (Cost, Value) {
    let (cost, answer) = ground.scratch.pv_answer(project, &["--json", "push"]);
    (cost, serde_json::from_slice(&answer).unwrap())
}

fn copied(ground: &Ground, files: &Path) -> Cost {
    let copy = ground.fresh_directory("copy").join("all");
    warm(files);
    ground.settle();
    let cost = ground.scratch.run(&ground.scratch.root, "cp", &["-r", text(files), text(&copy)]);
    ground.scratch.throw_away(&copy);
    cost
}

fn remove(ground: &Ground, place: &Path) {
    if place.exists() {
        ground.scratch.throw_away(place);
    }
}
