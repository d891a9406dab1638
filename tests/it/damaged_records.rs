//! `pv fsck` and records: a damaged one is named, comes back where it is whole, and is told as lost where it is not.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::sandbox::Sandbox;
use crate::stored::{self, damage, files};

const META: &str = "refs/pv/meta";
const RECORDS: &str = ".git/pv/records";

/// A named snapshot and its run: records of all four kinds.
fn project() -> Sandbox {
    let project = stored::project();
    project.commit("first");
    project.write("data/x", "one\n");
    project.pv_ok(&["snapshot", "--tag", "v1"]);
    project.pv_ok(&["run", "v1"]);
    project
}

/// Returns the files of one kind of record.
fn records(project: &Sandbox, kind: &str) -> Vec<PathBuf> {
    files(&project.path(RECORDS).join(kind))
}

/// What can happen to the bytes of a file, and what is told of it.
const DAMAGE: [(&str, fn(&mut Vec<u8>)); 3] = [
    ("its bytes do not match its name", |bytes| bytes[10] ^= 1),
    ("its bytes do not match its name", |bytes| bytes.truncate(bytes.len() / 2)),
    ("it is empty", Vec::clear),
];

/// Replaces ids of records and the times that their names begin with.
fn stable(told: &str) -> String {
    let words = told.split_inclusive(['/', '-', ' ', ':', ';', '\n']).map(|word| {
        let end = word.trim_end_matches(['/', '-', ' ', ':', ';', '\n']).len();
        let (name, rest) = word.split_at(end);
        let is_hex = name.bytes().all(|byte| byte.is_ascii_hexdigit());
        match name.len() {
            64 | 62 | 40 if is_hex => format!("<id>{rest}"),
            15 if is_hex => format!("<time>{rest}"),
            _ => word.to_owned(),
        }
    });
    words.collect()
}

#[test]
fn a_damaged_record_of_any_kind_comes_back_from_the_ref() {
    let project = project();
    let log = project.pv_ok(&["log"]);
    for kind in ["link", "run", "step", "version"] {
        for (problem, change) in DAMAGE {
            let path = records(&project, kind).remove(0);
            let before = damage(&path, change);
            let damaged = fs::read(&path).unwrap();
            let (answer, code) = project.json(&["fsck", "--dry-run"]);
            assert_eq!((code, &answer["records"]["damaged"][0]["quarantined"]), (4, &Value::Null), "{answer}");
            assert!(fs::read(&path).unwrap() == damaged, "a dry run changes nothing");
            let (answer, code) = project.json(&["fsck"]);
            assert_eq!(code, 0, "{kind}: {answer}");
            assert_eq!(answer["records"]["damaged"].as_array().unwrap().len(), 1);
            let told = &answer["records"]["damaged"][0];
            assert_eq!(
                (&told["kind"], &told["problem"], &told["origin"]),
                (&json!(kind), &json!(problem), &json!(META))
            );
            assert_eq!(project.path(".git/pv").join(told["path"].as_str().unwrap()), path);
            let aside = project.path(".git/pv").join(told["quarantined"].as_str().unwrap());
            assert!(fs::read(aside).unwrap() == damaged, "nothing is deleted");
            assert!(fs::read(&path).unwrap() == before, "{kind}");
            assert_eq!(project.json(&["fsck"]).1, 0);
        }
    }
    assert_eq!(project.pv_ok(&["log"]), log);
}

#[test]
fn people_are_told_what_a_damaged_record_was_and_where_it_went() {
    let project = project();
    damage(&records(&project, "version")[0], Vec::clear);
    fs::write(project.path(RECORDS).join("run/notes.txt"), "a stranger's\n").unwrap();
    insta::assert_snapshot!(stable(&project.pv(&["fsck", "--dry-run"])), @"
    damaged: records/run/notes.txt: it is no record
      nothing is lost with it; it stays where it is
    damaged: records/version/<time>-<id>: it is empty
      the version would be put back from refs/pv/meta; it stays where it is
    Checked 2 packs, 11 objects, 1.2 KiB, 5 records: damaged; without `--dry-run` it is repaired
    --- exit 4
    ");
    insta::assert_snapshot!(stable(&project.pv(&["fsck"])), @"
    damaged: records/run/notes.txt: it is no record
      nothing is lost with it; moved to records/[PLACE]
    damaged: records/version/<time>-<id>: it is empty
      the version is put back from refs/pv/meta; moved to records/quarantine/version-<time>-<id>-1
    Checked 2 packs, 11 objects, 1.2 KiB, 5 records: repaired
    ");
    insta::assert_snapshot!(stable(&project.pv(&["fsck"])), @"
    Checked 2 packs, 11 objects, 1.2 KiB, 4 records: all is what was written
    ");
}

#[test]
fn a_record_that_is_whole_nowhere_is_told_until_it_is_fetched() {
    let project = project();
    let clone = project.beside("clone");
    project.git(&["clone", "--quiet", ".", clone.to_str().unwrap()]);
    project.git_in(&clone, &["fetch", "--quiet", "origin", &format!("{META}:{META}")]);
    let log = project.pv_ok(&["log"]);
    damage(&records(&project, "version")[0], DAMAGE[0].1);
    // What is whole comes back to the ref with the next command, what is damaged does not.
    project.git(&["update-ref", "-d", META]);
    insta::assert_snapshot!(stable(&project.pv(&["fsck"])), @"
    damaged: records/version/<time>-<id>: its bytes do not match its name
      the version is whole nowhere; moved to records/quarantine/version-<time>-<id>-1
    Checked 2 packs, 11 objects, 1.2 KiB, 4 records: the records above stay lost
    --- stderr
    hint: fetch `refs/pv/meta` from a clone that has the record and check again; delete the file in the quarantine to do without it
    --- exit 4
    ");
    insta::assert_snapshot!(stable(&project.pv(&["fsck"])), @"
    lost: a record of kind version: all that is left is records/quarantine/version-<time>-<id>-1
    Checked 2 packs, 11 objects, 1.2 KiB, 3 records: the records above stay lost
    --- stderr
    hint: fetch `refs/pv/meta` from a clone that has the record and check again; delete the file in the quarantine to do without it
    --- exit 4
    ");
    assert!(!project.pv_ok(&["log"]).contains("v1"), "other commands work without it");
    project.git(&["fetch", "--quiet", clone.to_str().unwrap(), &format!("+{META}:{META}")]);
    assert_eq!(project.json(&["fsck"]).1, 0);
    assert_eq!(project.pv_ok(&["log"]), log);
}

#[test]
fn a_record_that_is_on_one_side_alone_comes_to_the_other() {
    let project = project();
    let path = records(&project, "run").remove(0);
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let (answer, code) = project.json(&["fsck", "--dry-run"]);
    assert_eq!((code, &answer["records"]["returned"]), (4, &json!(1)));
    let (answer, code) = project.json(&["fsck"]);
    assert_eq!((code, &answer["records"]["returned"]), (0, &json!(1)));
    assert!(fs::read(&path).unwrap() == bytes);
    // What was to be put on the ref was damaged before it got there.
    let tip = project.git(&["rev-parse", META]);
    let before = project.git(&["rev-parse", &format!("{META}~1")]);
    project.git(&["update-ref", META, &before]);
    project.write(&format!("{RECORDS}/known-tip"), format!("{before}\n"));
    assert_eq!(project.json(&["log"]).1, 0);
    assert_eq!(project.git(&["rev-parse", META]), before, "this test is about a ref that nobody misses anything on");
    assert_eq!(project.json(&["fsck"]).1, 0);
    let tree = |commit: &str| project.git(&["cat-file", "blob", &format!("{commit}:{}", newest(&project, commit))]);
    assert!(tree(META).contains("\"kind\":\"run\""), "{}", tree(&tip));
}

/// Returns the path of the bundle that a commit of the ref has added.
fn newest(project: &Sandbox, commit: &str) -> String {
    project.git(&["diff", "--name-only", &format!("{commit}~1"), commit])
}
