//! Draws the page of the benchmarks from what they last measured: `cargo bench --bench page -- DIRECTORY`.
//!
//! Writes `benchmarks.md` and `benchmarks.svg` into the directory, `docs` without an argument. What a quick run
//! measured says nothing about speed, and is never drawn into `docs`.

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
    let size = Size::from_environment();
    let chosen = std::env::args().skip(1).find(|argument| argument != "--bench");
    let directory = chosen.map_or_else(page::documentation, PathBuf::from);
    let written = page::draw(&report::directory(size), &directory);
    for file in written {
        writeln!(std::io::stdout(), "written to {}", file.display()).unwrap();
    }
}
