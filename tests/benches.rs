//! The benchmark of the store works: all of it is executed, on very little data, and the page is drawn of it.
//!
//! What it measures here says nothing about speed, and nothing is asserted about it.

#![expect(clippy::disallowed_methods, reason = "tests start programs, read the clock and write files directly")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop where it stands")]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use common::report::Report;
use common::row::{Hold, Row, Series, Unit, table};
use common::size::Size;
use store::Choice;
use store::data::{FILE_BYTES, MIB, change_files, edit_blocks, insert_at_start, make_files, make_random, make_table};
use store::floors::{digests, occupied_mib, read_hash_and_write, walk};

#[expect(dead_code, reason = "some of it serves the everyday commands alone")]
#[path = "../benches/common/mod.rs"]
mod common;
#[path = "../benches/page/mod.rs"]
mod page;
#[path = "../benches/store/mod.rs"]
mod store;

fn choice(arguments: &[&str]) -> Choice {
    Choice::from_arguments(Size::divided_by(1000), arguments.iter().map(ToString::to_string))
}

fn row(what: &str, values: &[f64], floor: Option<&[f64]>, hold: Hold) -> Row {
    let series = |what: &str, values: &[f64]| Series {
        what: what.to_owned(),
        unit: Unit::Ms,
        values: values.to_vec(),
        peak_mib: None,
    };
    Row {
        name: "made".to_owned(),
        what: what.to_owned(),
        measured: series("pv", values),
        floor: floor.map(|values| series("floor", values)),
        hold,
        hold_peak_mib: None,
        peers: Vec::new(),
    }
}

fn report(size: &str, rows: Vec<Row>) -> Report {
    let mut report = Report::of(rows, Size::full(), 60);
    size.clone_into(&mut report.size);
    report
}

#[test]
fn every_row_of_the_store_can_be_measured_and_drawn() {
    let report = store::measure(&choice(&[]), &|_| {});
    let mut error = std::io::stderr();
    if cfg!(not(target_os = "linux")) {
        writeln!(error, "NOT TESTED: the memory of a program, which is seen on Linux alone").unwrap();
    }
    let has_zstd = report.versions.contains_key("zstd");
    if !has_zstd {
        writeln!(error, "NOT TESTED: the table beside its floor, because zstd is not installed").unwrap();
    }
    let names: BTreeSet<_> = report.rows.iter().map(|row| row.name.as_str()).collect();
    let all = ["again", "checkout", "csv", "diff", "files", "image", "million", "random", "remote", "status", "wire"];
    assert_eq!(names.into_iter().collect::<Vec<_>>(), all);
    for row in &report.rows {
        assert!(row.measured.telling() > 0.0, "{row:?}");
        assert!(row.floor.as_ref().is_none_or(|floor| floor.telling() > 0.0), "{row:?}");
        assert!(row.is_held().is_some() || !has_zstd && row.floor.is_none(), "{row:?}");
        if cfg!(target_os = "linux") && row.hold_peak_mib.is_some() {
            assert!(row.measured.peak_mib.is_some_and(|peak| peak > 1.0), "{row:?}");
        }
    }
    let of_git = |row: &&Row| row.peers.iter().any(|peer| peer.what == "git");
    assert_eq!(report.rows.iter().filter(of_git).count(), 10, "files and csv with both sizes, status, checkout");

    let place = tempfile::tempdir().unwrap();
    report.keep(place.path(), "store");
    self::report("quick", vec![row("`pv --version`", &[2.0], Some(&[1.0]), Hold::Ratio(1.5))])
        .keep(place.path(), "numbers");
    let page = place.path().join("page");
    page::draw(place.path(), &page);
    let (text, plot) =
        (std::fs::read_to_string(page.join("benchmarks.md")), std::fs::read_to_string(page.join("benchmarks.svg")));
    let (text, plot) = (text.unwrap(), plot.unwrap());
    for row in &report.rows {
        assert!(text.contains(&format!("\n| {} | ", row.what)), "{text}");
    }
    assert!(text.contains("A quick run"), "{text}");
    assert!(text.contains("- git version "), "{text}");
    assert!(!text.contains('{') && !text.contains('}'), "each name was replaced: {text}");
    assert_eq!(plot.matches("class=\"track\"").count(), report.rows.len() + 1);
    assert!(plot.starts_with("<svg ") && plot.ends_with("</svg>\n"), "{plot}");
}

#[test]
fn a_quick_run_is_not_drawn_into_the_documentation() {
    let place = tempfile::tempdir().unwrap();
    report("full", Vec::new()).keep(place.path(), "numbers");
    report("quick", Vec::new()).keep(place.path(), "store");
    let before = std::fs::read(page::documentation().join("benchmarks.md")).unwrap();
    let drawn = std::panic::catch_unwind(|| page::draw(place.path(), &page::documentation()));
    assert!(drawn.is_err());
    assert_eq!(std::fs::read(page::documentation().join("benchmarks.md")).unwrap(), before);
}

#[test]
fn what_does_not_hold_is_shown_as_such() {
    let held = row("held", &[12.0, 10.0, 30.0], Some(&[10.0, 8.0, 9.0]), Hold::Ratio(1.25));
    let too_slow = row("too slow", &[12.0, 10.1, 30.0], Some(&[10.0, 8.0, 9.0]), Hold::Ratio(1.25));
    let amount = row("amount", &[51.0], None, Hold::Amount(50.0));
    let unknown = row("unknown", &[1.0], None, Hold::Ratio(1.5));
    let mut hungry = held.clone();
    (hungry.what, hungry.hold_peak_mib, hungry.measured.peak_mib) = ("hungry".to_owned(), Some(64.0), Some(65.0));
    let rows = vec![held, too_slow, amount, unknown, hungry];
    let lines = "\
        | held | 10.0 ms | 12.0 ms | floor | 8.0 ms | 9.0 ms | 1.25x | <= 1.25x | yes | 3 |\n\
        | too slow | 10.1 ms | 12.0 ms | floor | 8.0 ms | 9.0 ms | 1.26x | <= 1.25x | **no** | 3 |\n\
        | amount | 51.0 ms | 51.0 ms | - | - | - | 51.0 ms | <= 50 ms | **no** | 1 |\n\
        | unknown | 1.0 ms | 1.0 ms | - | - | - | no floor | <= 1.5x | unknown | 1 |\n\
        | hungry | 10.0 ms | 12.0 ms | floor | 8.0 ms | 9.0 ms | 1.25x, RSS 65 MiB | <= 1.25x, RSS <= 64 MiB | **no** | 3 |\n";
    assert!(table(&rows).ends_with(lines), "{}", table(&rows));
    let page = page::text(&report("full", Vec::new()), &report("full", rows));
    assert!(page.contains("\n1 of 5 hold; of 1 it could not be told."), "{page}");
    assert!(!page.contains("A quick run"), "{page}");
}

#[test]
fn a_size_is_full_unless_it_is_named_and_never_nothing() {
    assert_eq!((Size::named(""), Size::named("full")), (Size::full(), Size::full()));
    assert_eq!(Size::named("1/10"), Size::divided_by(10));
    assert!(!Size::named("quick").is_full());
    assert_eq!((Size::named("1/10").of(100), Size::named("1/10").of(3)), (10, 1));
    for mistake in ["fast", "1/0", "1/1", "1/", "2/3", "10"] {
        assert!(std::panic::catch_unwind(|| Size::named(mistake)).is_err(), "{mistake}");
    }
}

#[test]
fn rows_are_chosen_by_name_and_a_name_that_is_none_is_refused() {
    let only = choice(&["--bench", "csv", "--skip", "peers"]);
    assert!(!only.is_whole());
    let report = store::measure(&only, &|_| {});
    assert!(report.rows.iter().all(|row| row.name == "csv" && row.peers.is_empty()), "{report:?}");
    assert_eq!(report.rows.len(), 6);
    assert!(report.not_measured.contains(&"other programs: left out by an argument".to_owned()), "{report:?}");
    assert!(choice(&["--skip", "million"]).is_whole());
    for mistake in [&["cvs"][..], &["--skip", "milion"], &["--skip"], &["--quick"]] {
        assert!(std::panic::catch_unwind(|| choice(mistake)).is_err(), "{mistake:?}");
    }
}

#[test]
fn the_data_is_the_same_each_time_and_what_the_page_says_it_is() {
    const COUNT: usize = 1000;
    let place = tempfile::tempdir().unwrap();
    let files = |name: &str| place.path().join(name);
    make_files(&files("one"), COUNT);
    make_files(&files("other"), COUNT);
    let kept = digests(&files("one"));
    assert_eq!(kept, digests(&files("other")));
    let bytes = u64::try_from(COUNT * FILE_BYTES).unwrap();
    assert_eq!(walk(&files("one")), (u64::try_from(COUNT).unwrap(), bytes));
    let different: BTreeSet<_> = kept.values().map(|digest| *digest.as_bytes()).collect();
    assert_eq!(different.len(), COUNT - COUNT / 20, "one of twenty repeats another");
    let is_text = |path: &Path| std::fs::read(files("one").join(path)).unwrap().is_ascii();
    let texts = kept.keys().filter(|path| is_text(path)).count();
    assert!((COUNT * 45 / 100..=COUNT * 55 / 100).contains(&texts), "{texts} of {COUNT} are text");

    change_files(&files("other"), COUNT, 10, 0);
    let changed = digests(&files("other"));
    assert_eq!(kept.iter().filter(|(path, digest)| changed[*path] != **digest).count(), 10);
    assert_eq!(walk(&files("other")).1, bytes, "lengths stay");

    assert_eq!(read_hash_and_write(&files("one"), &files("all")), bytes);
    assert_eq!(std::fs::metadata(files("all")).unwrap().len(), bytes);
    assert!(occupied_mib(place.path(), &["one", "other"]) < occupied_mib(place.path(), &["one"]));
}

#[test]
fn one_percent_of_the_table_is_edited_and_what_is_inserted_moves_the_rest() {
    let place = tempfile::tempdir().unwrap();
    let table: PathBuf = place.path().join("table.csv");
    make_table(&table, 3 * MIB);
    let first = std::fs::read(&table).unwrap();
    assert_eq!(first.len(), 3 * MIB);
    assert!(first.starts_with(b"id,time,device,") && first.is_ascii());
    edit_blocks(&table, 10, 3 * MIB / 1000);
    let edited = std::fs::read(&table).unwrap();
    let differs = first.iter().zip(&edited).filter(|(one, other)| one != other).count();
    assert!((3 * MIB / 110..=3 * MIB / 100).contains(&differs), "{differs} bytes differ");
    assert_eq!(edited.len(), first.len());
    insert_at_start(&table, 1024);
    let moved = std::fs::read(&table).unwrap();
    assert!(moved.len() == edited.len() + 1024 && moved.ends_with(&edited));

    let random = place.path().join("random.bin");
    make_random(&random, 2 * MIB + 7);
    let bytes = std::fs::read(&random).unwrap();
    assert_eq!(bytes.len(), 2 * MIB + 7);
    assert_ne!(bytes[..MIB], bytes[MIB..2 * MIB], "no block repeats another");
}
