//! Data that Git ignores: carried by snapshots, pointed at by commits, and missed by name where it is not.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::sandbox::Sandbox;

const PIPELINE: &str = "\
data: [data/raw, model.bin]
steps:
  count:
    run: find -L data/raw -type f | sort | xargs cat model.bin > out.txt
    inputs: [data/raw, model.bin]
    outputs: [out.txt]
";

/// A project with a directory of data and a single file of data, both ignored by Git.
fn project() -> Sandbox {
    let project = Sandbox::new();
    project.write(".pipeline/pipeline.yaml", PIPELINE);
    project.write(".gitignore", "/data/\n/model.bin\n/out.txt\n");
    project.write("data/raw/x.csv", "x\n");
    project.write("data/raw/deep/y.csv", "y\n");
    project.write("model.bin", "m\n");
    project
}

fn pointed(project: &Sandbox) -> Pointed<'_> {
    project.pv_ok(&["snapshot"]);
    project.commit("with pointers");
    Pointed(project)
}

struct Pointed<'a>(&'a Sandbox);

impl Pointed<'_> {
    fn clone_to(&self, name: &str) -> PathBuf {
        let place = self.0.beside(name);
        self.0.git(&["clone", "--quiet", ".", place.to_str().unwrap()]);
        place
    }
}

fn snapshot(project: &Sandbox, directory: &Path) -> String {
    let (answer, code) = project.json_in(directory, &["snapshot"]);
    assert_eq!(code, 0, "{answer}");
    answer["snapshot"].as_str().unwrap().to_owned()
}

/// The clean tree and its commit have one id. Returns it.
fn one_id(project: &Sandbox) -> String {
    let (answer, _) = project.json(&["snapshot"]);
    assert_eq!(answer["dirty"], false, "{}", project.git(&["status", "--porcelain"]));
    let (shown, code) = project.json(&["show", "HEAD"]);
    assert_eq!(code, 0, "{shown}");
    assert_eq!(shown["snapshot"], answer["snapshot"]);
    answer["snapshot"].as_str().unwrap().to_owned()
}

#[test]
fn pointers_are_written_followed_and_removed() {
    let project = project();
    insta::assert_snapshot!(project.pv(&["snapshot"]), @"
    Snapshot 88bf42b641d5: 5 files, 207 B, 1013 B new in the store
    No commit yet
    Wrote .pipeline/data/data/raw; commit it, so that the commit alone determines the data
    Wrote .pipeline/data/model.bin; commit it, so that the commit alone determines the data
    ");
    insta::assert_snapshot!(project.read(".pipeline/data/data/raw"), @"pv-data-1 directory b0c66e96a15cc63929c3af49212c0365b4248cfceed31c249552ea3a23d4269f 2 4");
    insta::assert_snapshot!(project.read(".pipeline/data/model.bin"), @"pv-data-1 file b6102f38f27ae3cc84574ba55fcff562722a64c48def731272ba4de45e212b0a 1 2");
    project.commit("with pointers");
    let before = one_id(&project);
    project.write("data/raw/x.csv", "changed\n");
    assert_ne!(snapshot(&project, &project.path("")), before);
    insta::assert_snapshot!(project.read(".pipeline/data/data/raw"), @"pv-data-1 directory 7fc02f0ff0086c64aaa744c6a17f76a63323dae14c0b993bc71241fae3611f99 2 10");
    assert_eq!(project.git(&["status", "--porcelain"]), " M .pipeline/data/data/raw", "the other one is not touched");
    project.write("data/raw/x.csv", "x\n");
    assert_eq!(snapshot(&project, &project.path("")), before, "and back");
    assert_eq!(project.git(&["status", "--porcelain"]), "");
    std::fs::set_permissions(project.path("model.bin"), PermissionsExt::from_mode(0o755)).unwrap();
    snapshot(&project, &project.path(""));
    assert!(project.read(".pipeline/data/model.bin").starts_with("pv-data-1 executable "));
    project.write(".pipeline/pipeline.yaml", PIPELINE.replace(", model.bin]", "]"));
    project.write(".gitignore", "/data/\n/out.txt\n");
    snapshot(&project, &project.path(""));
    assert!(!project.exists(".pipeline/data/model.bin"), "it is a file like any other now");
    assert!(project.exists(".pipeline/data/data/raw"));
}

#[test]
fn pointers_are_no_part_of_the_identity_and_stand_for_the_data_where_it_is_not() {
    let project = project();
    let before = snapshot(&project, &project.path(""));
    assert_eq!(snapshot(&project, &project.path("")), before, "with and without pointers");
    let place = pointed(&project).clone_to("clone");
    assert_eq!(one_id(&project), before);
    assert!(!place.join("data").exists());
    let (answer, _) = project.json_in(&place, &["snapshot"]);
    assert_eq!((answer["snapshot"].as_str(), answer["dirty"].as_bool()), (Some(before.as_str()), Some(false)));
    std::fs::remove_dir_all(project.path("data")).unwrap();
    assert_eq!(one_id(&project), before, "here too, when it is removed");
}

#[test]
fn a_root_carries_links_bits_and_empty_directories_and_they_come_back() {
    let project = project();
    let plain = snapshot(&project, &project.path(""));
    std::fs::create_dir_all(project.path("data/raw/empty/deeper")).unwrap();
    let with_empty = snapshot(&project, &project.path(""));
    assert_ne!(with_empty, plain, "an empty directory counts");
    symlink("x.csv", project.path("data/raw/live")).unwrap();
    symlink("/nowhere", project.path("data/raw/dangling")).unwrap();
    project.write("data/raw/tool", "#!/bin/sh\n");
    let without_bit = snapshot(&project, &project.path(""));
    std::fs::set_permissions(project.path("data/raw/tool"), PermissionsExt::from_mode(0o755)).unwrap();
    assert_ne!(snapshot(&project, &project.path("")), without_bit, "the executable bit counts");
    project.pv_ok(&["snapshot", "--tag", "v1"]);
    project.commit("all kinds");
    let here = one_id(&project);
    project.write(".pipeline/pipeline.yaml", PIPELINE.replace("find -L", "ls -R data/raw > out.txt; test -x data/raw/tool && test -L data/raw/dangling && test -d data/raw/empty/deeper && find -L"));
    project.pv_ok(&["run"]);
    project.git(&["checkout", "--quiet", "."]);
    assert_eq!(one_id(&project), here);
}

#[test]
fn a_root_that_is_a_link_to_elsewhere_is_what_lies_there() {
    let project = project();
    let before = snapshot(&project, &project.path(""));
    let elsewhere = project.beside("big-disk");
    std::fs::rename(project.path("data/raw"), &elsewhere).unwrap();
    symlink(&elsewhere, project.path("data/raw")).unwrap();
    std::fs::rename(project.path("model.bin"), project.beside("model")).unwrap();
    symlink("../model", project.path("model.bin")).unwrap();
    assert_eq!(snapshot(&project, &project.path("")), before);
    project.pv_ok(&["run"]);
    assert_eq!(project.read("out.txt"), "m\ny\nx\n");
    pointed(&project);
    assert_eq!(one_id(&project), before);
    std::fs::write(elsewhere.join("x.csv"), "changed\n").unwrap();
    assert_ne!(snapshot(&project, &project.path("")), before, "a change there is a change");
}

#[test]
fn a_link_that_git_tracks_needs_a_pointer_to_what_lies_behind_it() {
    // One link and one file behind it: the numbers were the same, so no pointer was written, and no clone knew the data.
    let project = Sandbox::new();
    project.write(
        ".pipeline/pipeline.yaml",
        "data: [one, many]\nsteps: {a: {run: cat one many/*, inputs: [one, many]}}\n",
    );
    std::fs::write(project.beside("one"), "1\n").unwrap();
    std::fs::create_dir(project.beside("many")).unwrap();
    std::fs::write(project.beside("many").join("only"), "2\n").unwrap();
    symlink(project.beside("one"), project.path("one")).unwrap();
    symlink(project.beside("many"), project.path("many")).unwrap();
    snapshot(&project, &project.path(""));
    project.commit("links");
    let here = one_id(&project);
    std::fs::write(project.beside("one"), "changed\n").unwrap();
    assert_ne!(snapshot(&project, &project.path("")), here);
}

#[test]
fn data_that_git_tracks_needs_no_pointer_and_has_one_id_in_tree_commit_and_clone() {
    let project = Sandbox::new();
    project.write(
        ".pipeline/pipeline.yaml",
        "data: [data, one.csv]\nsteps: {a: {run: cat data/*.txt, inputs: [data, one.csv]}}\n",
    );
    project.write(".gitattributes", "*.txt text\n");
    project.write("data/mixed.txt", "a\r\nb\n");
    project.write("data/raw.bin", "a\r\nb\n");
    project.write("one.csv", "1\n");
    symlink("raw.bin", project.path("data/link")).unwrap();
    // What Git cannot keep made the tree another snapshot than its commit.
    std::fs::create_dir_all(project.path("data/empty")).unwrap();
    project.commit("first");
    let here = one_id(&project);
    assert!(!project.exists(".pipeline/data"));
    let place = project.beside("clone");
    project.git(&["clone", "--quiet", ".", place.to_str().unwrap()]);
    assert_eq!(snapshot(&project, &place), here);
    // One ignored file in it, and it needs one.
    project.write(".git/info/exclude", "*.tmp\n");
    project.write("data/x.tmp", "x");
    assert_ne!(snapshot(&project, &project.path("")), here);
    assert!(project.exists(".pipeline/data/data") && !project.exists(".pipeline/data/one.csv"));
    std::fs::remove_file(project.path("data/x.tmp")).unwrap();
    assert_eq!(one_id(&project), here);
    assert!(!project.exists(".pipeline/data/data"));
}

#[test]
fn thousands_of_small_files_are_one_pointer_and_come_back_by_hash() {
    let project = project();
    for number in 0..3000 {
        project.write(&format!("data/raw/{}/{number}.txt", number % 7), format!("{number}\n"));
    }
    project.pv_ok(&["snapshot", "--tag", "v1"]);
    let text = project.read(".pipeline/data/data/raw");
    assert!(text.contains(" 3002 "), "{text}");
    assert_eq!(text.lines().count(), 1);
    std::fs::remove_dir_all(project.path("data")).unwrap();
    let (answer, code) = project.json(&["checkout", "v1", "data"]);
    assert_eq!((code, answer["written"].as_array().unwrap().len()), (0, 3002));
    assert_eq!(project.read("data/raw/3/2999.txt"), "2999\n");
}

#[test]
fn missing_data_without_a_pointer_is_an_error_with_advice() {
    let project = project();
    std::fs::remove_dir_all(project.path("data")).unwrap();
    insta::assert_snapshot!(project.pv(&["snapshot"]), @"
    --- stderr
    error: data root `data/raw` does not exist in the working tree
    hint: put it there, or take it out of `data`
    --- exit 2
    ");
    project.write("data/raw/x.csv", "x\n");
    project.commit("without pointers");
    insta::assert_snapshot!(project.pv(&["show", "HEAD"]), @"
    --- stderr
    error: data root `data/raw` does not exist in commit 37dcda4f9112
    hint: it was committed without a data pointer: `pv snapshot` writes them, `pv hooks install` keeps them
    --- exit 2
    ");
    project.write(".pipeline/data/data/raw", "<<<<<<< HEAD\n");
    std::fs::remove_dir_all(project.path("data")).unwrap();
    insta::assert_snapshot!(project.pv(&["snapshot"]), @"
    --- stderr
    error: data pointer `.pipeline/data/data/raw` cannot be understood
    hint: after a merge conflict, choose one side, or run `pv snapshot` where the data is, to write it anew
    --- exit 2
    ");
}

#[test]
fn a_clone_without_the_data_says_exactly_what_is_missing() {
    let project = project();
    project.write(".pipeline/pipeline.yaml", PIPELINE.replace("inputs: [data/raw, ", "inputs: [data/raw/x.csv, "));
    let place = pointed(&project).clone_to("clone");
    insta::assert_snapshot!(project.pv_in(&place, &["run"]), @"
    Running pipeline version: 9c8e00820ba9
    Step: count
    --- stderr
    error: data `data/raw`, `model.bin` is not in the store
    hint: `pv pull` gets it from a remote; or copy it here from where the snapshot was taken, `pv run` takes it in
    --- exit 4
    ");
    insta::assert_snapshot!(project.pv_in(&place, &["run", "HEAD"]), @"
    Running pipeline version: 9c8e00820ba9
    Step: count
    --- stderr
    error: data `data/raw`, `model.bin` is not in the store
    hint: `pv pull` gets it from a remote; or copy it here from where the snapshot was taken, `pv run` takes it in
    --- exit 4
    ");
    insta::assert_snapshot!(project.pv_in(&place, &["status"]), @"
    --- stderr
    error: data `data/raw`, `model.bin` is not in the store
    hint: `pv pull` gets it from a remote; or copy it here from where the snapshot was taken, `pv run` takes it in
    --- exit 4
    ");
    let (answer, code) = project.json_in(&place, &["run"]);
    assert_eq!((code, answer["exit"].as_u64()), (4, Some(4)));
    // Copied from where it is, all is well.
    std::fs::create_dir_all(place.join("data/raw/deep")).unwrap();
    for file in ["data/raw/x.csv", "data/raw/deep/y.csv", "model.bin"] {
        std::fs::copy(project.path(file), place.join(file)).unwrap();
    }
    assert!(project.pv_in(&place, &["run"]).contains("1 ran"));
}

#[test]
fn an_ignored_input_is_an_error_with_the_line_that_mends_it() {
    let project = project();
    project.write(".pipeline/pipeline.yaml", PIPELINE.replace("data: [data/raw, model.bin]", "data: [model.bin]"));
    insta::assert_snapshot!(project.pv(&["snapshot"]), @"
    --- stderr
    error: input `data/raw` of step `count` is ignored by Git and lies in no data root
    hint: let the snapshot carry it: add `data: [data/raw]`
    --- exit 2
    ");
    project.write(".pipeline/pipeline.yaml", PIPELINE.replace("data: [data/raw, model.bin]", "data: [data/raw]"));
    insta::assert_snapshot!(project.pv(&["run"]), @"
    --- stderr
    error: input `model.bin` of step `count` is ignored by Git and lies in no data root
    hint: let the snapshot carry it: add `data: [model.bin]`
    --- exit 2
    ");
}

#[test]
fn status_says_which_data_changed_and_by_how_much() {
    let project = project();
    pointed(&project);
    project.write("data/raw/x.csv", "more than before\n");
    project.write("data/raw/z.csv", "z\n");
    let said = project.pv(&["status"]);
    let data: Vec<_> = said.lines().filter(|line| line.starts_with("  data ")).collect();
    insta::assert_snapshot!(data.join("\n"), @"
    data data/raw  changed  2 files, 4 B -> 3 files, 21 B
    data model.bin  unchanged  1 file, 2 B
    ");
    let (status, _) = project.json(&["status"]);
    assert_eq!(status["data"][0]["path"], "data/raw");
    assert_eq!(status["data"][0]["change"], "changed");
    assert_eq!((&status["data"][0]["old_files"], &status["data"][0]["files"]), (&2.into(), &3.into()));
    assert_eq!(status["data"][1]["change"], "unchanged");
    assert_eq!(project.git(&["status", "--porcelain"]), "", "status writes no pointer");
}
