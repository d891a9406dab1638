//! `pv fsck`: damage is found, repaired where the bytes are still found, and named where they are not.

use std::fs;

use serde_json::json;

use crate::sandbox::Sandbox;
use crate::stored::{self, packs};

const PIPELINE: &str = "\
data: [data]
steps:
  count:
    run: echo sum is $(cat data/*.csv src/extra.txt | wc -c) > all.txt
    inputs: [data, src/extra.txt]
    outputs: [all.txt]
";

/// A committed and named snapshot `v1` with ignored data, and its run.
fn project() -> Sandbox {
    let project = stored::project_with(PIPELINE, "/all.txt\n");
    project.write("src/extra.txt", "the extra line\n");
    project.write("data/a.csv", "first of the data\n");
    project.write("data/b.csv", "second of the data\n");
    project.pv_ok(&["snapshot"]);
    project.commit("first");
    project.pv_ok(&["snapshot", "--tag", "v1"]);
    project.pv_ok(&["run"]);
    project
}

/// Changes a byte of the one object in the packs that is stored as `text`.
fn damage(project: &Sandbox, text: &str) {
    let mut hits = 0;
    for pack in packs(project) {
        let bytes = fs::read(&pack).unwrap();
        let Some(at) = bytes.windows(text.len()).position(|window| window == text.as_bytes()) else { continue };
        stored::damage(&pack, |bytes| bytes[at] = b'?');
        hits += 1;
    }
    assert_eq!(hits, 1, "packs that hold {text:?}");
}

/// Runs `pv fsck` and replaces the names of packs, which depend on the order in which threads came to write.
fn fsck(project: &Sandbox, arguments: &[&str]) -> String {
    let told = project.pv(&[&["fsck"], arguments].concat());
    let words = told.split_inclusive([' ', '\n', '/']).map(|word| {
        let (name, rest) = word.split_at(word.find(".pack").unwrap_or(0));
        if name.len() == 64 { format!("<name>{rest}") } else { word.to_owned() }
    });
    words.collect()
}

#[test]
fn a_whole_store_is_said_to_be_whole() {
    let project = project();
    insta::assert_snapshot!(fsck(&project, &[]), @"
    Checked 2 packs, 15 objects, 1.7 KiB, 5 records: all is what was written
    ");
    assert!(!project.exists(".git/pv/quarantine"));
}

#[test]
fn damage_is_repaired_from_a_file_whose_bytes_still_match() {
    let project = project();
    damage(&project, "first of the data\n");
    insta::assert_snapshot!(project.pv(&["checkout", "v1", "data/a.csv", "--force"]), @"
    0 files from v1, 1 unchanged
    ");
    insta::assert_snapshot!(fsck(&project, &["--dry-run"]), @"
    damaged: packs/<name>.pack: it holds damaged objects
      12 objects can be saved, 1 damaged; it stays where it is
    blob 9af8d8f6cd6d would be put back from data/a.csv
    Checked 2 packs, 15 objects, 1.7 KiB, 5 records: damaged; without `--dry-run` it is repaired
    --- exit 4
    ");
    assert!(!project.exists(".git/pv/quarantine"));
    insta::assert_snapshot!(fsck(&project, &[]), @"
    damaged: packs/<name>.pack: it holds damaged objects
      12 objects saved, 1 damaged; moved to quarantine/<name>.pack-1
    blob 9af8d8f6cd6d is put back from data/a.csv
    Checked 2 packs, 15 objects, 1.7 KiB, 5 records: repaired
    ");
    insta::assert_snapshot!(fsck(&project, &[]), @"
    Checked 2 packs, 15 objects, 1.7 KiB, 5 records: all is what was written
    ");
    project.write("data/a.csv", "edited\n");
    project.pv_ok(&["checkout", "v1", "data/a.csv", "--force"]);
    assert_eq!(project.read("data/a.csv"), "first of the data\n");
}

#[test]
fn damage_is_repaired_from_a_commit_when_the_file_was_edited() {
    let project = project();
    project.write("src/extra.txt", "edited since\n");
    damage(&project, "the extra line\n");
    insta::assert_snapshot!(fsck(&project, &[]), @"
    damaged: packs/<name>.pack: it holds damaged objects
      12 objects saved, 1 damaged; moved to quarantine/<name>.pack-1
    blob 6b048e37664e is put back from commit cf38023adc
    Checked 2 packs, 15 objects, 1.7 KiB, 5 records: repaired
    ");
    insta::assert_snapshot!(fsck(&project, &[]), @"
    Checked 2 packs, 15 objects, 1.7 KiB, 5 records: all is what was written
    ");
}

#[test]
fn a_lost_output_is_named_and_made_again_by_a_run() {
    let project = project();
    fs::remove_file(project.path("all.txt")).unwrap();
    damage(&project, "sum is");
    insta::assert_snapshot!(fsck(&project, &[]), @"
    damaged: packs/<name>.pack: it holds damaged objects
      1 object saved, 1 damaged; moved to quarantine/<name>.pack-1
    hit: run [RUN] of 2026-01-31 09:30: 1 object missing
      all.txt
    Checked 2 packs, 15 objects, 1.7 KiB, 5 records: what is hit above stays lost
    --- stderr
    hint: put a lost file back where it was and check again; `pv run` makes lost outputs again
    --- exit 4
    ");
    project.pv_ok(&["run"]);
    // How many records there are depends on whether both runs took equally long.
    let after = fsck(&project, &[]);
    assert!(after.starts_with("Checked 3 packs, 15 objects, 1.7 KiB, "), "{after}");
    assert!(after.ends_with(" records: all is what was written\n"), "{after}");
}

#[test]
fn what_stays_lost_is_told_again_until_it_is_back() {
    let project = project();
    project.write("data/b.csv", "edited since\n");
    damage(&project, "second of the data\n");
    insta::assert_snapshot!(fsck(&project, &[]), @"
    damaged: packs/<name>.pack: it holds damaged objects
      12 objects saved, 1 damaged; moved to quarantine/<name>.pack-1
    hit: v1 (snapshot 0c50fbcd00df): 1 object missing
      data/b.csv
    Checked 2 packs, 15 objects, 1.7 KiB, 5 records: what is hit above stays lost
    --- stderr
    hint: put a lost file back where it was and check again; `pv run` makes lost outputs again
    --- exit 4
    ");
    insta::assert_snapshot!(fsck(&project, &[]), @"
    hit: v1 (snapshot 0c50fbcd00df): 1 object missing
      data/b.csv
    Checked 2 packs, 14 objects, 1.7 KiB, 5 records: what is hit above stays lost
    --- stderr
    hint: put a lost file back where it was and check again; `pv run` makes lost outputs again
    --- exit 4
    ");
    project.write("elsewhere/found.csv", "second of the data\n");
    insta::assert_snapshot!(fsck(&project, &[]), @"
    blob 328f74c9989e is put back from elsewhere/found.csv
    Checked 2 packs, 14 objects, 1.7 KiB, 5 records: repaired
    ");
    insta::assert_snapshot!(fsck(&project, &[]), @"
    Checked 3 packs, 15 objects, 1.7 KiB, 5 records: all is what was written
    ");
}

#[test]
fn a_lost_store_is_made_again_from_working_tree_and_outputs() {
    let project = project();
    for pack in packs(&project) {
        fs::remove_file(pack).unwrap();
    }
    insta::assert_snapshot!(fsck(&project, &[]), @"
    blob cbd8c3752454 is put back from all.txt
    snapshot 0c50fbcd00df is put back from the working tree
    tree 246b736f992d is put back from the working tree
    tree fc08d67d42f8 is put back from the working tree
    definition 52f4142ca48d is put back from the working tree
    params 0bab7a32e847 is put back from the working tree
    environment df3595e8c0a4 is put back from the working tree
    blob 2adf4c2f2ed4 is put back from .gitignore
    blob 9af8d8f6cd6d is put back from data/a.csv
    blob 328f74c9989e is put back from data/b.csv
    ... and 4 more
    hit: run [RUN] of 2026-01-31 09:30: 1 object missing
      a log
    Checked 0 packs, 0 objects, 0 B, 5 records: what is hit above stays lost
    --- stderr
    hint: put a lost file back where it was and check again; `pv run` makes lost outputs again
    --- exit 4
    ");
    insta::assert_snapshot!(project.pv(&["status"]), @"
    Snapshot 0c50fbcd00df v1, commit cf38023adc
      count  current    nothing it depends on changed
      data data  unchanged  2 files, 37 B
    ");
}

#[test]
fn the_object_for_programs_has_everything() {
    let project = project();
    project.write("data/b.csv", "edited since\n");
    damage(&project, "second of the data\n");
    let (mut answer, code) = project.json(&["fsck"]);
    assert_eq!(code, 4);
    for damaged in answer["damaged"].as_array_mut().unwrap() {
        assert!(damaged["quarantined"].as_str().unwrap().starts_with("quarantine/"));
        assert!(damaged["path"].as_str().unwrap().starts_with("packs/"));
        (damaged["quarantined"], damaged["path"]) = (json!("<place>"), json!("<place>"));
    }
    answer["hit"][0]["host"] = json!("<host>");
    insta::assert_snapshot!(serde_json::to_string_pretty(&answer).unwrap(), @r#"
    {
      "bytes": 1769,
      "damaged": [
        {
          "bad": 1,
          "path": "<place>",
          "problem": "it holds damaged objects",
          "quarantined": "<place>",
          "saved": 12
        }
      ],
      "dry_run": false,
      "found": [],
      "hit": [
        {
          "commit": "cf38023adcaa27040fb147ffb505147900433de6",
          "host": "<host>",
          "key": null,
          "missing": [
            {
              "bytes": 19,
              "digest": "328f74c9989ea0c998d9cc93eea52212ceabd36450343d5095636d24de547a82",
              "kind": "blob",
              "path": "data/b.csv"
            }
          ],
          "run": null,
          "snapshot": "0c50fbcd00dfa031459e1b026835d42f4e899df6e457dc665195f198c6a3cbd2",
          "step": null,
          "version": "v1"
        }
      ],
      "left": 0,
      "objects": 15,
      "packs": 2,
      "records": {
        "checked": 5,
        "damaged": [],
        "lost_before": [],
        "returned": 0
      },
      "unneeded": []
    }
    "#);
}

#[test]
fn a_check_with_no_time_covers_a_part_and_goes_on_with_the_rest() {
    let project = project();
    let all = packs(&project).len() as u64;
    assert!(all > 1, "the project has one pack only");
    for round in 1..=all {
        let (answer, code) = project.json(&["fsck", "--max-time", "0s"]);
        assert_eq!((code, &answer["packs"], &answer["left"]), (0, &json!(1), &json!(all - 1)), "round {round}");
        assert_eq!(fs::read_to_string(project.path(".git/pv/verified")).unwrap().lines().count() as u64, round);
    }
    insta::assert_snapshot!(fsck(&project, &["--max-time", "soon"]), @"
    --- stderr
    error: invalid value 'soon' for '--max-time <TIME>': a time is a number with `s`, `m`, `h` or `d`: `30s`

    For more information, try '--help'.
    --- exit 2
    ");
}

#[test]
fn a_clone_with_the_records_alone_gets_back_what_git_has_and_names_the_rest() {
    let project = project();
    let clone = project.beside("clone");
    project.git_in(&project.path("."), &["clone", "--quiet", ".", clone.to_str().unwrap()]);
    project.git_in(&clone, &["fetch", "--quiet", "origin", "refs/pv/meta:refs/pv/meta"]);
    insta::assert_snapshot!(project.pv_in(&clone, &["fsck"]), @"
    snapshot 0c50fbcd00df is put back from the working tree
    tree 246b736f992d is put back from the working tree
    definition 52f4142ca48d is put back from the working tree
    params 0bab7a32e847 is put back from the working tree
    environment df3595e8c0a4 is put back from the working tree
    blob 2adf4c2f2ed4 is put back from .gitignore
    tree 34b547e9e107 is put back from the working tree
    tree 85fffabfdf28 is put back from the working tree
    blob 2621893ca87c is put back from .pipeline/pipeline.yaml
    blob 6b048e37664e is put back from src/extra.txt
    hit: v1 (snapshot 0c50fbcd00df): 1 object missing
      data/
    hit: run [RUN] of 2026-01-31 09:30: 2 objects missing
      all.txt
      a log
    Checked 0 packs, 0 objects, 0 B, 5 records: what is hit above stays lost
    --- stderr
    hint: put a lost file back where it was and check again; `pv run` makes lost outputs again
    --- exit 4
    ");
}

#[test]
fn a_snapshot_of_which_nothing_is_left_is_told_with_the_machine_that_has_it() {
    let project = project();
    project.write("src/extra.txt", "not committed\n");
    project.pv_ok(&["snapshot", "--tag", "draft"]);
    project.write("src/extra.txt", "edited since\n");
    for pack in packs(&project) {
        fs::remove_file(pack).unwrap();
    }
    let (answer, code) = project.json(&["fsck"]);
    let host = answer["hit"][0]["host"].as_str().unwrap().to_owned();
    assert_eq!((code, &answer["hit"][0]["version"]), (4, &json!("draft")));
    let told = fsck(&project, &[]).replace(&format!("taken on {host}"), "taken on <host>");
    insta::assert_snapshot!(told, @"
    hit: draft (snapshot baed8e7c99a7): nothing of it is here; it was taken on <host>
    hit: run [RUN] of 2026-01-31 09:30: 1 object missing
      a log
    Checked 1 pack, 14 objects, 1.7 KiB, 7 records: what is hit above stays lost
    --- stderr
    hint: put a lost file back where it was and check again; `pv run` makes lost outputs again
    --- exit 4
    ");
}

#[test]
fn a_command_that_meets_damage_points_here() {
    let project = project();
    damage(&project, "first of the data\n");
    fs::remove_file(project.path("data/a.csv")).unwrap();
    insta::assert_snapshot!(project.pv(&["checkout", "v1", "data/a.csv"]), @"
    --- stderr
    error: blob `9af8d8f6cd6de2e6ba5474044c1ba72d1e367c7ca80b6c2864547a1bdfa9cb99` is corrupt: its bytes now hash to `53fd714b12db9ab1b00135ed7278ee4cd67bfac4076e76422318ecc0947f1f3b`
    hint: `pv fsck` repairs it where its bytes are still found, and names everything that needs it
    --- exit 4
    ");
    for pack in packs(&project) {
        fs::remove_file(pack).unwrap();
    }
    insta::assert_snapshot!(project.pv(&["checkout", "v1", "data/a.csv"]), @"
    --- stderr
    error: data `data` is not in the store
    hint: `pv pull` gets it from a remote; or copy it here from where the snapshot was taken, `pv run` takes it in
    --- exit 4
    ");
}

#[test]
fn the_help_says_what_happens_to_damage() {
    insta::assert_snapshot!(Sandbox::new().pv(&["fsck", "--help"]), @"
    Check that everything in the store is what was written, and repair what is not

    Reads and hashes every object, those first that were not checked for the longest time. What is whole
    in a damaged file is saved; what is not is looked for in other copies, in the files of the working
    tree and in commits. The damaged file is moved to `quarantine` in the store and never deleted.
    Records are checked, too: a damaged one is taken back from `refs/pv/meta`. With `--repair` what is
    lost is taken from the usual remote, too, if that has it; with `--remote` not the store here is
    checked but what lies there. What cannot be found again is named: the versions, snapshots and runs
    that need it, and the paths in them. Ends with 0 if all is well or was repaired, with 4 if something
    stays lost.

    Usage: pv fsck [OPTIONS]

    Options:
          --max-time <TIME>
              Stop after this time, such as `30s` or `10m`; the next time goes on with the rest

          --dry-run
              Say what would be done, and change nothing

          --repair
              Take what is lost here from the usual remote; with `--remote`, send again what is damaged
              there

          --remote [<NAME>]
              Check this remote instead of the store here; without a name the usual one

          --sample <PERCENT>
              Of a remote, read and hash so much of the content, in percent; its structure is checked in
              any case
              
              [default: 5]

          --whole
              Of a remote, read and hash everything

      -h, --help
              Print help (see a summary with '-h')

    Options of every command:
      -C <DIR>
              Work as if started in this directory

          --pipeline <NAME>
              Work on `.pipeline/NAME.yaml`
              
              [default: pipeline]

          --json
              Print one JSON object instead of text

      -q, --quiet
              Print the answer only, nothing on the way
    ");
}
