//! The page: tables, a plot, and what a reader must know to repeat it.

use std::path::{Path, PathBuf};

use crate::common::report::Report;
use crate::common::row::{Row, peers_table, table};

mod plot;

/// The words around the tables. `{name}` stands for what was measured.
const FRAME: &str = include_str!("frame.md");

/// Where this project's documentation lies.
pub(crate) fn documentation() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

/// Reads the reports of one directory and writes the page and its plot into another. Returns both files.
pub(crate) fn draw(reports: &Path, directory: &Path) -> [PathBuf; 2] {
    let [numbers, store] = ["numbers", "store"].map(|name| read(&reports.join(format!("{name}.json"))));
    let is_documentation = directory.canonicalize().ok() == documentation().canonicalize().ok();
    let is_full = [&numbers, &store].iter().all(|report| report.size == "full");
    assert!(is_full || !is_documentation, "a quick run says nothing about speed: it is not drawn into `docs`");
    let rows: Vec<Row> = store.rows.iter().chain(&numbers.rows).cloned().collect();
    std::fs::create_dir_all(directory).unwrap();
    let files = ["benchmarks.md", "benchmarks.svg"].map(|name| directory.join(name));
    std::fs::write(&files[0], text(&numbers, &store)).unwrap();
    std::fs::write(&files[1], plot::bars(&rows)).unwrap();
    files
}

fn read(file: &Path) -> Report {
    let text = std::fs::read_to_string(file)
        .unwrap_or_else(|error| panic!("{}: {error}; run the benchmarks first: make bench", file.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Returns the page.
pub(crate) fn text(numbers: &Report, store: &Report) -> String {
    let all = || store.rows.iter().chain(&numbers.rows);
    let count = |held| all().filter(|row| row.is_held() == held).count();
    let mut verdict = format!("{} of {} hold", count(Some(true)), all().count());
    if count(None) > 0 {
        verdict += &format!("; of {} it could not be told", count(None));
    }
    let peers = |what: &str, rows: &[Row]| match peers_table(rows) {
        none if none.is_empty() => "None was measured this time.".to_owned(),
        table => format!("{what}; *1.0x* is what `pv` takes.\n\n{table}"),
    };
    let of_steps = "The same steps, in the same job: one round cold, three with nothing to do";
    let quick = "A quick run: everything is smaller, few rounds are taken, and no number says anything about speed.\n\
                 It only shows that the benchmark works.\n\n";
    let quick = if store.size == "full" { "" } else { quick };
    let values = [
        ("{verdict}", verdict),
        ("{day}", store.day.clone()),
        ("{took}", format!("{} minutes", (numbers.took_s + store.took_s).div_ceil(60))),
        ("{machine}", store.machine.join(", ")),
        ("{versions}", versions(numbers, store)),
        ("{store}", table(&store.rows)),
        ("{peers}", peers("The same data, in the same job, one round each", &store.rows)),
        ("{step peers}", peers(of_steps, &numbers.rows)),
        ("{numbers}", table(&numbers.rows)),
        ("{not measured}", list(store.not_measured.iter().chain(&numbers.not_measured))),
    ];
    values.iter().fold(FRAME.replace("{quick}\n\n", quick), |text, (name, value)| text.replace(name, value.trim_end()))
}

fn versions(numbers: &Report, store: &Report) -> String {
    let mut all = numbers.versions.clone();
    all.extend(store.versions.clone());
    // Most programs say their name themselves; a version alone needs it.
    let named = |(name, version): (String, String)| {
        if version.starts_with(|first: char| first.is_ascii_digit()) { format!("{name} {version}") } else { version }
    };
    list(all.into_iter().map(named).collect::<Vec<_>>().iter())
}

fn list<'a>(lines: impl Iterator<Item = &'a String>) -> String {
    let lines: Vec<_> = lines.map(|line| format!("- {line}")).collect();
    if lines.is_empty() { "- nothing".to_owned() } else { lines.join("\n") }
}
