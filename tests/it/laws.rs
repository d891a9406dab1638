//! Laws: what goes in comes out, and what has no meaning makes no difference.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use crate::sandbox::Sandbox;

const PIPELINE: &str = "steps: {all: {run: 'true', outputs: [out-of-the-step]}}\n";

#[derive(Clone, PartialEq, Eq, Debug)]
enum Item {
    File { content: Vec<u8>, executable: bool },
    Link(Vec<u8>),
}

type Files = BTreeMap<Vec<u8>, Item>;

fn item() -> impl Strategy<Value = Item> {
    let content = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (any::<u8>(), 60_000..90_000_usize).prop_map(|(byte, size)| vec![byte; size]),
    ];
    prop_oneof![
        4 => (content, any::<bool>()).prop_map(|(content, executable)| Item::File { content, executable }),
        1 => prop::collection::vec(1..=255_u8, 1..20).prop_map(Item::Link),
    ]
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![6 => b'a'..=b'd', 1 => 1..=46_u8, 1 => 58..=255_u8];
    prop::collection::vec(byte, 1..5)
        .prop_filter("Git keeps no such names", |name| !name.starts_with(b".") && !name.eq_ignore_ascii_case(b".git"))
}

/// Some files, of which none lies where another has a directory.
fn files() -> impl Strategy<Value = Files> {
    prop::collection::vec((prop::collection::vec(name(), 1..4), item()), 0..12).prop_map(|list| {
        let mut files = Files::new();
        let mut directories: BTreeSet<Vec<u8>> = BTreeSet::new();
        for (names, item) in list {
            let path = names.join(&b'/');
            let above: Vec<_> = (1..names.len()).map(|count| names[..count].join(&b'/')).collect();
            if directories.contains(&path) || above.iter().any(|directory| files.contains_key(directory)) {
                continue;
            }
            directories.extend(above);
            files.insert(path, item);
        }
        files
    })
}

fn write<'a>(root: &Path, files: impl Iterator<Item = (&'a Vec<u8>, &'a Item)>) {
    for (path, item) in files {
        let path = root.join(OsStr::from_bytes(path));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        match item {
            Item::File { content, executable } => {
                std::fs::write(&path, content).unwrap();
                let mode = if *executable { 0o755 } else { 0o644 };
                std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            }
            Item::Link(target) => symlink(OsStr::from_bytes(target), &path).unwrap(),
        }
    }
}

fn read(root: &Path) -> Files {
    let mut files = Files::new();
    // Git keeps no empty directory, so one without files may be gone.
    if !root.exists() {
        return files;
    }
    for entry in walkdir::WalkDir::new(root).min_depth(1) {
        let entry = entry.unwrap();
        let path = entry.path().strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        let data = entry.path().symlink_metadata().unwrap();
        if data.is_symlink() {
            files.insert(path, Item::Link(std::fs::read_link(entry.path()).unwrap().as_os_str().as_bytes().to_vec()));
        } else if data.is_file() {
            let content = std::fs::read(entry.path()).unwrap();
            files.insert(path, Item::File { content, executable: data.permissions().mode() & 0o100 != 0 });
        }
    }
    files
}

/// A project whose `tree` Git tracks and whose `data` it ignores; both with these files.
fn project(tree: &Files, data: &Files) -> Sandbox {
    let project = Sandbox::new();
    project.write(".pipeline/pipeline.yaml", format!("data: [data]\n{PIPELINE}"));
    project.write(".git/info/exclude", "/data/\n");
    std::fs::create_dir(project.path("data")).unwrap();
    write(&project.path("tree"), tree.iter());
    write(&project.path("data"), data.iter());
    project
}

fn id(project: &Sandbox) -> String {
    let (answer, code) = project.json(&["snapshot"]);
    assert_eq!(code, 0, "{answer}");
    answer["snapshot"].as_str().unwrap().to_owned()
}

proptest! {
    // Each case starts git and pv several times.
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_snapshot_took_a_checkout_puts_back(tree in files(), data in files()) {
        let project = project(&tree, &data);
        let id = id(&project);
        for place in ["tree", "data"] {
            let _ = std::fs::remove_dir_all(project.path(place));
        }
        let said = project.pv(&["checkout", &id]);
        prop_assert!(!said.contains("--- exit"), "{}", said);
        prop_assert_eq!(read(&project.path("tree")), tree);
        prop_assert_eq!(read(&project.path("data")), data);
    }

    #[test]
    fn the_id_knows_nothing_of_order_times_masks_and_threads(tree in files(), data in files(), seconds in 0..2_000_000_000_u64) {
        let one = project(&tree, &data);
        let other = Sandbox::new();
        other.write(".pipeline/pipeline.yaml", format!("data: [data]\n{PIPELINE}"));
        other.write(".git/info/exclude", "/data/\n");
        std::fs::create_dir(other.path("data")).unwrap();
        write(&other.path("data"), data.iter().rev());
        write(&other.path("tree"), tree.iter().rev());
        let files: Vec<PathBuf> = walkdir::WalkDir::new(other.path("tree")).into_iter().flatten()
            .filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path).collect();
        for (number, file) in files.iter().enumerate() {
            let mode = std::fs::metadata(file).unwrap().permissions().mode();
            // What others may do is no part of it; what the owner may execute is.
            std::fs::set_permissions(file, PermissionsExt::from_mode(mode & 0o700)).unwrap();
            let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds + number as u64);
            std::fs::File::open(file).unwrap().set_modified(time).unwrap();
        }
        let mut command = other.command_in(&other.path(""), "sh");
        command.args(["-c", "umask 077; exec \"$0\" --json snapshot", env!("CARGO_BIN_EXE_pv")]);
        let output = command.env("RAYON_NUM_THREADS", "1").output().unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        prop_assert_eq!(answer["snapshot"].as_str().unwrap(), id(&one));
    }

    #[test]
    fn nothing_differs_between_equals_and_something_between_others(tree in files(), data in files(), more in item()) {
        let project = project(&tree, &data);
        let before = id(&project);
        project.commit("first");
        let (diff, code) = project.json(&["diff", &before, "HEAD", "--exit-code"]);
        prop_assert_eq!(code, 0, "{}", diff);
        for part in ["steps", "params", "files", "outputs", "metrics", "environment"] {
            prop_assert_eq!(diff[part].as_array().map(Vec::len), Some(0), "{}", diff);
        }
        let path = b"one-more-name".to_vec();
        write(&project.path("tree"), std::iter::once((&path, &more)));
        let after = id(&project);
        prop_assert_ne!(&after, &before);
        let (diff, code) = project.json(&["diff", &before, &after, "--exit-code"]);
        prop_assert_eq!(code, 1);
        prop_assert_eq!(diff["files"][0]["path"].as_str(), Some("tree/one-more-name"), "{}", diff);
        prop_assert_eq!(diff["files"].as_array().map(Vec::len), Some(1));
    }
}

#[test]
fn many_files_have_one_id_on_one_thread_and_on_many() {
    let project = Sandbox::new();
    project.write(".pipeline/pipeline.yaml", PIPELINE);
    for number in (0..400).rev() {
        project.write(&format!("many/{}/{number}", number % 5), number.to_string());
    }
    let ids: BTreeSet<String> = ["1", "2", "7"]
        .into_iter()
        .map(|threads| {
            let output = project.pv_command(&["--json", "status"]).env("RAYON_NUM_THREADS", threads).output().unwrap();
            let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            answer["snapshot"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_keys_in_a_definition_changes_no_step(
        keys in Just(vec![
            "    run: cat a.txt > one.txt\n",
            "    inputs: [a.txt, b.txt]\n",
            "    outputs: [one.txt]\n",
            "    env: {A: x, B: y}\n",
            "    params: [p, q]\n",
            "    seed: 3\n",
            "    timeout: 60s\n",
        ]).prop_shuffle(),
        top in Just(vec!["params: {p: 1, q: {r: 2, s: 3}}\n", "seed: 1\n", "environment: host\n", "steps:\n"]).prop_shuffle(),
        first in any::<bool>(),
    ) {
        let definition = |keys: &[&str], top: &[&str], first: bool| {
            let two = "  two:\n    run: cat one.txt > two.txt\n    inputs: [one.txt]\n    outputs: [two.txt]\n";
            let one = format!("  one:\n{}", keys.concat());
            let steps = if first { format!("steps:\n{one}{two}") } else { format!("steps:\n{two}{one}") };
            top.iter().map(|part| if *part == "steps:\n" { steps.clone() } else { (*part).to_owned() }).collect::<String>()
        };
        let project = Sandbox::new();
        project.write("a.txt", "a\n");
        project.write("b.txt", "b\n");
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        project.write(".pipeline/pipeline.yaml", definition(&sorted, &["seed: 1\n", "params: {q: {s: 3, r: 2}, p: 1}\n", "environment: host\n", "steps:\n"], true));
        let (run, code) = project.json(&["run"]);
        prop_assert_eq!(code, 0, "{}", run);
        project.write(".pipeline/pipeline.yaml", definition(&keys, &top, first).replace("{A: x, B: y}", "{B: y, A: x}").replace("[p, q]", "[q, p]"));
        let (run, code) = project.json(&["run"]);
        prop_assert_eq!(code, 0, "{}", run);
        for step in run["steps"].as_array().unwrap() {
            prop_assert_eq!(step["verdict"].as_str(), Some("reused"), "{}", step);
        }
        project.write("a.txt", "changed\n");
        let (run, _) = project.json(&["run"]);
        prop_assert_eq!(run["steps"][0]["verdict"].as_str(), Some("ran"), "{}", run);
    }
}
