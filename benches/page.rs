//! Draws the page of the benchmarks from what they last measured: `cargo bench --bench page`.
//!
//! Writes `benchmarks.md` and `benchmarks.svg` into `docs`; `-- REPORTS DIRECTORY` reads and writes elsewhere. What a
//! quick run measured says nothing about speed, and is never drawn into `docs`.

#![expect(clippy::disallowed_methods, reason = "the drawing of a page reads the environment and writes files")]
#![expect(clippy::unwrap_used, reason = "a page that cannot be drawn should stop where it stands")]

use std::io::Write as _;
use std::path::PathBuf;

use common::report;
use common::size::Size;

#[expect(dead_code, reason = "this reads what the others measure, and measures nothing")]
mod common;
#[path = "page/mod.rs"]
mod page;

fn main() {
    let places: Vec<PathBuf> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").map(PathBuf::from).collect();
    let written = match places.as_slice() {
        [] => page::draw(&report::directory(Size::from_environment()), &page::documentation()),
        [reports, directory] => page::draw(reports, directory),
        _ => panic!("it takes no arguments, or two: REPORTS DIRECTORY"),
    };
    for file in written {
        writeln!(std::io::stdout(), "written to {}", file.display()).unwrap();
    }
}
