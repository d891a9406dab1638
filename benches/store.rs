//! How fast the store is, and how large, each beside a floor that is measured in the same job, and other programs.
//!
//! `cargo bench --bench store` measures all; `-- csv` only the rows of that name, `-- --skip million --skip peers`
//! all but those. A whole run keeps its numbers in `bench/full/store.json` below the target directory, from where
//! the page is drawn; a part of one only prints them. `PV_BENCH=quick` is small, proves that all of it works,
//! and says nothing about speed.

#![expect(clippy::disallowed_methods, reason = "a benchmark starts programs, reads the clock and writes files")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on should stop where it stands")]

use std::io::Write as _;

use common::report::directory;
use common::row::{peers_table, table};
use common::size::Size;
use store::Choice;

mod common;
#[path = "store/mod.rs"]
mod store;

fn main() {
    let choice = Choice::from_arguments(Size::from_environment(), std::env::args().skip(1));
    let say = |line: &str| {
        let mut error = std::io::stderr().lock();
        writeln!(error, "{line}").unwrap();
    };
    let report = store::measure(&choice, &say);
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}\n{}", table(&report.rows), peers_table(&report.rows)).unwrap();
    for what in &report.not_measured {
        writeln!(out, "NOT MEASURED: {what}").unwrap();
    }
    if choice.is_whole() {
        writeln!(out, "\nwritten to {}", report.keep(&directory(choice.size), "store").display()).unwrap();
    }
}
