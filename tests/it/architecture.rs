//! The house: rooms import only from lower floors, and each heavy dependency has one door.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Each room and its floor; rooms on one floor do not know each other.
const FLOORS: [(&str, u8); 25] = [
    ("hash", 0),
    ("path", 0),
    ("disk", 0),
    ("host", 0),
    ("yaml", 0),
    ("object", 1),
    ("store", 2),
    ("git", 2),
    ("pipeline", 2),
    ("exec", 2),
    ("stat_cache", 2),
    ("snapshot", 3),
    ("record", 3),
    ("environment", 3),
    ("compare", 3),
    ("run", 4),
    ("damage", 4),
    ("diff", 4),
    ("revision", 4),
    ("retention", 4),
    ("project", 5),
    ("remote", 5),
    ("verify", 5),
    ("cli", 6),
    ("main", 7),
];

/// Each dependency that only one room may use, and that room. Two have the system's bare calls: what is locked on a disk
/// is no matter of who executes commands. What is compressed is read in three: what is stored here, what comes as an image and what a
/// step has written have nothing else in common.
const DOORS: [(&str, &str); 38] = [
    ("libc", "exec|disk"),
    ("blake3", "hash"),
    ("walkdir", "disk"),
    ("memmap2", "disk"),
    ("zstd", "store|environment|compare"),
    ("flate2", "environment|compare"),
    ("sha2", "environment"),
    ("bzip2", "compare"),
    ("lzma_rust2", "compare"),
    ("rusqlite", "compare"),
    ("toml", "compare"),
    ("parquet", "compare"),
    ("arrow_array", "compare"),
    ("arrow_ipc", "compare"),
    ("arrow_schema", "compare"),
    ("iced_x86", "exec"),
    ("png", "compare"),
    ("zune_jpeg", "compare"),
    ("jiff", "host"),
    ("serde_yaml", "yaml"),
    ("serde_saphyr", "yaml"),
    ("gix", "git"),
    ("signal_hook", "exec"),
    ("annotate_snippets", "pipeline"),
    ("schemars", "pipeline"),
    ("similar", "diff"),
    ("object_store", "remote"),
    ("tokio", "remote"),
    ("reqwest", "remote"),
    ("rustls", "remote"),
    ("http", "remote"),
    ("http_body_util", "remote"),
    ("futures_util", "remote"),
    ("clap", "cli"),
    ("clap_complete", "cli"),
    ("indicatif", "cli"),
    ("anstream", "cli"),
    ("anstyle", "cli"),
];

struct Source {
    room: String,
    path: PathBuf,
    /// The code, without comments and without the tests at its end.
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    walkdir::WalkDir::new(&root)
        .into_iter()
        .map(Result::unwrap)
        .filter(|entry| entry.path().extension().is_some_and(|ending| ending == "rs"))
        .map(|entry| {
            let relative = entry.path().strip_prefix(&root).unwrap().to_owned();
            let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
            let text = std::fs::read_to_string(entry.path()).unwrap();
            let is_test_file = relative.file_stem().is_some_and(|stem| {
                ["tests", "contract", "crash", "disturbance", "frozen", "recorder"].iter().any(|name| stem == *name)
            });
            let code = if is_test_file { "" } else { text.split("\nmod tests {").next().unwrap() };
            let code = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
            Source { room: first.trim_end_matches(".rs").to_owned(), path: relative, code }
        })
        .filter(|source| source.room != "lib")
        .collect()
}

/// Returns the rooms that a text imports, also from a group: `use crate::{a, b::c}`.
fn imports(code: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let name = |text: &str| text.trim().chars().take_while(|c| is_name(*c)).collect::<String>();
    let mut rooms = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(group) => rooms.extend(group.split('}').next().unwrap().split(',').map(name)),
            None => {
                rooms.insert(name(rest));
            }
        }
    }
    rooms
}

#[test]
fn a_room_imports_only_from_lower_floors() {
    let floors: BTreeMap<_, _> = FLOORS.into_iter().collect();
    let mut breaches = Vec::new();
    for source in sources() {
        let Some(floor) = floors.get(source.room.as_str()) else {
            breaches.push(format!("{}: room `{}` is on no floor", source.path.display(), source.room));
            continue;
        };
        for import in imports(&source.code).iter().filter(|import| **import != source.room) {
            match floors.get(import.as_str()) {
                Some(below) if below < floor => {}
                Some(_) => breaches.push(format!("{} imports from `{import}`", source.path.display())),
                None => breaches.push(format!("{} imports `{import}`, which is on no floor", source.path.display())),
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn every_room_of_the_library_is_on_a_floor() {
    let floors: BTreeMap<_, _> = FLOORS.into_iter().collect();
    let library = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let rooms = library.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let lost: Vec<_> = rooms.filter(|room| !floors.contains_key(room)).collect();
    assert!(lost.is_empty(), "on no floor: {lost:?}");
}

#[test]
fn each_heavy_dependency_has_one_door() {
    let mut breaches = Vec::new();
    for source in sources() {
        for (dependency, door) in DOORS {
            let used =
                source.code.contains(&format!("{dependency}::")) || source.code.contains(&format!("use {dependency};"));
            if used && !door.split('|').any(|room| source.room == room) {
                breaches.push(format!("{} uses `{dependency}`, whose door is `{door}`", source.path.display()));
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn the_five_packages_of_the_card_are_really_used() {
    let all: String = sources().into_iter().map(|source| source.code).collect();
    for package in ["gix", "blake3", "serde_yaml", "clap", "walkdir"] {
        assert!(all.contains(&format!("{package}::")), "`{package}` is not used");
    }
}

#[test]
fn the_checks_themselves_see_a_breach() {
    let code = "use crate::{hash::Digest, run};\nlet x = crate::cli::main();";
    let found: Vec<_> = imports(code).into_iter().collect();
    assert_eq!(found, ["cli", "hash", "run"]);
}
