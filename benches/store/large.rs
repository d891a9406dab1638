//! Rows of one large file: bytes that cannot be compressed, and a table that is edited.

use std::path::{Path, PathBuf};

use super::data::{MIB, edit_blocks, insert_at_start};
use super::floors::{occupied_mib, warm};
use super::ground::{DATA, Ground, text};
use super::peers::OnTable;
use crate::common::child::{Cost, in_turns};
use crate::common::row::{Hold, Row, Series};

/// One percent of the table, in blocks of a MiB.
pub(super) const EDITED_BLOCKS: usize = 10;
const INSERTED_BYTES: usize = 1024;
const FIRST: &str = "the first snapshot of it";

/// The first snapshot of one large file that cannot be compressed. The program must do with little memory.
pub(crate) fn random(ground: &Ground) -> Vec<Row> {
    let file = ground.make_random();
    let (snapshots, floors) = in_turns(
        ground.size.rounds(5),
        |_| {
            let project = ground.project();
            let place = project.join(DATA);
            std::fs::create_dir(&place).unwrap();
            std::fs::rename(&file, place.join("random.bin")).unwrap();
            warm(&place);
            let cost = ground.pv(&project, &["snapshot"]);
            std::fs::rename(place.join("random.bin"), &file).unwrap();
            ground.scratch.throw_away(&project);
            cost
        },
        |_| {
            let copy = file.with_extension("copy");
            warm(&file);
            ground.settle();
            let copied = ground.scratch.run(&ground.scratch.root, "cp", &[text(&file), text(&copy)]);
            let synced = Cost::of(|| std::fs::File::open(&copy).unwrap().sync_all().unwrap());
            std::fs::remove_file(copy).unwrap();
            copied.and(synced)
        },
    );
    let length = std::fs::metadata(&file).unwrap().len() >> 20;
    std::fs::remove_file(&file).unwrap();
    vec![Row {
        name: "random".to_owned(),
        what: format!("first snapshot, one random file of {length} MiB"),
        measured: Series::times("pv", &snapshots),
        floor: Some(Series::times("`cp`, synced", &floors)),
        hold: Hold::Ratio(1.25),
        hold_peak_mib: Some(64.0),
        peers: Vec::new(),
    }]
}

/// Three snapshots of a table: at first, after one percent was edited, after 1 KiB was inserted at the start.
pub(crate) fn csv(ground: &Ground) -> Vec<Row> {
    let table = ground.make_table();
    let rounds = ground.size.rounds(3);
    let mut all: Vec<[(Cost, f64); 3]> = Vec::new();
    let (_, floors) = in_turns(
        rounds,
        |_| {
            let found = three_snapshots(ground, &table);
            all.push(found);
            found[0].0
        },
        |_| if ground.has_zstd { compressed(ground, &table) } else { Cost::of(|| {}) },
    );
    all.remove(0);
    let of_peers: Vec<OnTable> = ground
        .peers
        .iter()
        .map(|(peer, _)| peer.on_table(ground, &table, [&|path| edit(ground, path), &insert]))
        .collect();
    let times = |at: usize| all.iter().map(|round| round[at].0).collect::<Vec<_>>();
    let growth = |at: usize| all.iter().map(|round| round[at].1).collect::<Vec<_>>();
    let table_mib = std::fs::metadata(&table).unwrap().len() >> 20;
    let whats = [
        format!("first snapshot, a table of {table_mib} MiB"),
        "snapshot, 1 % of the table edited".to_owned(),
        "snapshot, 1 KiB inserted at its start".to_owned(),
    ];
    let holds = [(1.5, 240.0), (0.5, 16.0), (0.5, 0.5)];
    let mut rows = Vec::new();
    for (at, (what, (ratio, most_mib))) in whats.into_iter().zip(holds).enumerate() {
        let floor = match at {
            0 => ground.has_zstd.then(|| Series::times("`zstd -1 -T2`", &floors)),
            _ => Some(Series::times(FIRST, &times(0))),
        };
        rows.push(Row {
            name: "csv".to_owned(),
            what: what.clone(),
            measured: Series::times("pv", &times(at)),
            floor,
            hold: Hold::Ratio(ratio),
            hold_peak_mib: None,
            peers: of_peers.iter().map(|peer| Series::times(peer.name, &[peer.snapshots[at].0])).collect(),
        });
        rows.push(Row {
            name: "csv".to_owned(),
            what: format!("{what}: growth of the store"),
            measured: Series::sizes("pv", growth(at)),
            floor: None,
            hold: Hold::Amount(most_mib),
            hold_peak_mib: None,
            peers: of_peers.iter().map(|peer| Series::sizes(peer.name, vec![peer.snapshots[at].1])).collect(),
        });
    }
    rows
}

fn three_snapshots(ground: &Ground, table: &Path) -> [(Cost, f64); 3] {
    let project = ground.project();
    let own: PathBuf = project.join(DATA).join("table.csv");
    std::fs::create_dir(project.join(DATA)).unwrap();
    ground.copy(table, &own);
    let measure = || {
        let before = occupied_mib(&project, &[DATA]);
        warm(&own);
        let cost = ground.pv(&project, &["snapshot"]);
        ground.settle();
        (cost, occupied_mib(&project, &[DATA]) - before)
    };
    let first = measure();
    edit(ground, &own);
    let edited = measure();
    insert(&own);
    let inserted = measure();
    ground.scratch.throw_away(&project);
    [first, edited, inserted]
}

fn compressed(ground: &Ground, table: &Path) -> Cost {
    let out = table.with_extension("zst");
    warm(table);
    ground.settle();
    let arguments = ["-1", "-T2", "-q", "-f", text(table), "-o", text(&out)];
    let cost = ground.scratch.run(&ground.scratch.root, "zstd", &arguments);
    std::fs::remove_file(out).unwrap();
    cost
}

fn edit(ground: &Ground, table: &Path) {
    edit_blocks(table, EDITED_BLOCKS, ground.size.of(MIB));
}

fn insert(table: &Path) {
    insert_at_start(table, INSERTED_BYTES);
}
