//! The row of images: one is taken in, beside its layer being unpacked by the programs for that.

use super::data::{MIB, make_mixed_files, make_random, make_table};
use super::floors::warm;
use super::ground::{Ground, text};
use crate::common::child::in_turns;
use crate::common::image::make_layout;
use crate::common::row::{Hold, Row, Series};

const SMALL_FILES: usize = 8_000;
/// As the libraries of an image, in files of 16 MiB: some compress well, others not at all.
const LARGE_BYTES: usize = 128 * MIB;

pub(crate) fn image(ground: &Ground) -> Vec<Row> {
    let files = ground.fresh_directory("system");
    make_mixed_files(&files.join("lib"), ground.size.of(SMALL_FILES));
    make_random(&files.join("random"), ground.size.of(LARGE_BYTES));
    make_table(&files.join("table"), ground.size.of(LARGE_BYTES));
    for name in ["random", "table"] {
        ground.scratch.run(&files, "split", &["-b", "16M", name, &format!("{name}-")]);
        std::fs::remove_file(files.join(name)).unwrap();
    }
    let layout = ground.fresh_directory("layout");
    let layer = make_layout(&ground.scratch, &files, &layout);
    ground.scratch.throw_away(&files);
    let (added, unpacked) = in_turns(
        ground.size.rounds(5),
        |_| {
            let project = ground.project();
            warm(&layer);
            let cost = ground.pv(&project, &["env", "add", text(&layout)]);
            ground.scratch.throw_away(&project);
            cost
        },
        |_| {
            let root = ground.fresh_directory("unpacked");
            warm(&layer);
            ground.settle();
            let script = "gzip -dc \"$0\" | tar -x && sync -f .";
            let cost = ground.scratch.run(&root, "sh", &["-ec", script, text(&layer)]);
            ground.scratch.throw_away(&root);
            cost
        },
    );
    vec![Row {
        name: "image".to_owned(),
        what: "`pv env add`, an image of 300 MiB in a layout".to_owned(),
        measured: Series::times("pv", &added),
        floor: Some(Series::times("`gzip -dc`, `tar -x` and `sync`", &unpacked)),
        hold: Hold::Ratio(1.5),
        hold_peak_mib: Some(150.0),
        peers: Vec::new(),
    }]
}
