//! Records: on their ref, in a clone, lost and found again.

use std::path::{Path, PathBuf};

use crate::sandbox::Sandbox;

const META: &str = "refs/pv/meta";

/// Returns the lesson with a version that was run.
fn versioned() -> Sandbox {
    let project = Sandbox::with_fixture("lesson");
    project.pv_ok(&["snapshot", "--tag", "v1.0"]);
    project.pv_ok(&["run", "v1.0"]);
    project
}

/// Clones a repository; `with_records` fetches those too.
fn clone(project: &Sandbox, from: &Path, name: &str, with_records: bool) -> PathBuf {
    let to = project.beside(name);
    project.git(&["clone", "--quiet", &from.to_string_lossy(), &to.to_string_lossy()]);
    if with_records {
        project.git_in(&to, &["fetch", "--quiet", "origin", "refs/pv/meta:refs/pv/meta"]);
    }
    to
}

/// Returns the text of all records on the ref of a repository.
fn on_ref(project: &Sandbox, directory: &Path) -> String {
    let names = project.git_in(directory, &["ls-tree", "-r", "--name-only", META]);
    let show = |name: &str| project.git_in(directory, &["cat-file", "blob", &format!("{META}:{name}")]);
    names.lines().map(show).collect::<Vec<_>>().join("\n")
}

#[test]
fn snapshots_and_runs_are_records_on_a_ref_that_git_finds_sound() {
    let project = Sandbox::with_fixture("lesson");
    project.pv_ok(&["snapshot", "--tag", "v1.0"]);
    let first = project.git(&["rev-parse", META]);
    project.pv_ok(&["run", "v1.0"]);
    assert_eq!(project.git(&["rev-parse", &format!("{META}~1")]), first, "the ref only grows");
    project.git(&["fsck", "--strict", "--full"]);
    let text = on_ref(&project, &project.path("."));
    for kind in ["link", "version", "run", "step"] {
        assert!(text.contains(&format!("\"kind\":\"{kind}\"")), "{kind}");
    }
    assert_eq!(project.git(&["status", "--short"]), "", "nothing of it shows in the working tree");
    assert_eq!(project.git(&["for-each-ref", "refs/heads", "--format=%(refname)"]), "refs/heads/main");
}

#[test]
fn a_clone_that_fetches_the_ref_knows_versions_and_runs_and_compares_with_them() {
    let project = versioned();
    let clone = clone(&project, &project.path("."), "clone", true);
    let here = project.pv_ok(&["log"]);
    assert_eq!(String::from_utf8(project.pv_command_in(&clone, &["log"]).output().unwrap().stdout).unwrap(), here);
    let (answer, code) = project.json_in(&clone, &["run", "v1.0"]);
    assert_eq!((answer["verdict"].as_str(), code), (Some("reproduced"), 0));
    let outputs = answer["steps"].as_array().unwrap().iter().flat_map(|step| step["outputs"].as_array().unwrap());
    for output in outputs {
        assert_eq!(output["digest"], output["recorded"]);
    }
    assert_eq!(project.git_in(&clone, &["fsck", "--strict"]), "");
}

#[test]
fn a_clone_without_the_ref_still_resolves_the_tag_and_compares_with_nothing() {
    let project = versioned();
    let clone = clone(&project, &project.path("."), "clone", false);
    let (answer, code) = project.json_in(&clone, &["run", "v1.0"]);
    assert_eq!((answer["verdict"].as_str(), code), (Some("done"), 0));
    assert_eq!(answer["snapshot"], project.json(&["show", "v1.0"]).0["snapshot"]);
}

#[test]
fn records_of_two_clones_become_one_set_whoever_fetches_over_whom() {
    // A forced fetch moved the ref to where the own records were not, and nothing put them back.
    let project = versioned();
    let (ada, bob) =
        (clone(&project, &project.path("."), "ada", true), clone(&project, &project.path("."), "bob", true));
    for (place, name) in [(&ada, "by-ada"), (&bob, "by-bob")] {
        std::fs::write(place.join("note.txt"), name).unwrap();
        assert_eq!(project.json_in(place, &["snapshot", "--tag", name]).1, 0);
    }
    project.git_in(&ada, &["fetch", "--quiet", &bob.to_string_lossy(), "+refs/pv/meta:refs/pv/meta"]);
    assert!(!on_ref(&project, &ada).contains("by-ada"), "this test is about a ref that lost them");
    let log = project.pv_in(&ada, &["log"]);
    assert!(log.contains("by-ada") && log.contains("by-bob") && log.contains("v1.0"), "{log}");
    let text = on_ref(&project, &ada);
    assert!(text.contains("by-ada") && text.contains("by-bob"), "the next command adds them back");
    // Now it is a step forward for the other side.
    project.git_in(&bob, &["fetch", "--quiet", &ada.to_string_lossy(), "refs/pv/meta:refs/pv/meta"]);
    let log = project.pv_in(&bob, &["log"]);
    assert!(log.contains("by-ada") && log.contains("by-bob"), "{log}");
    let settled = project.git_in(&bob, &["rev-parse", META]);
    project.pv_in(&bob, &["log"]);
    assert_eq!(project.git_in(&bob, &["rev-parse", META]), settled, "and there it stays");
}

#[test]
fn a_deleted_ref_comes_back_from_the_records() {
    let project = versioned();
    let before = on_ref(&project, &project.path("."));
    project.git(&["update-ref", "-d", META]);
    project.pv_ok(&["log"]);
    let after = on_ref(&project, &project.path("."));
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&after), sorted(&before));
}

#[test]
fn deleted_records_come_back_from_the_ref() {
    let project = versioned();
    let log = project.pv_ok(&["log"]);
    let tip = project.git(&["rev-parse", META]);
    std::fs::remove_file(project.path(".git/pv/records/known-tip")).unwrap();
    assert_eq!(project.pv_ok(&["log"]), log);
    std::fs::remove_dir_all(project.path(".git/pv/records")).unwrap();
    assert_eq!(project.pv_ok(&["log"]), log);
    assert_eq!(project.git(&["rev-parse", META]), tip, "nothing new was added for it");
    let (answer, _) = project.json(&["run"]);
    assert_eq!(answer["steps"][2]["verdict"], "reused", "results are known again");
}

#[test]
fn a_damaged_record_is_reported_and_the_remedy_that_is_named_works() {
    let project = versioned();
    let log = project.pv_ok(&["log"]);
    let records = project.path(".git/pv/records/run");
    let damaged = std::fs::read_dir(&records).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&damaged).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    let told = project.pv(&["log"]);
    assert!(told.ends_with("--- exit 4\n"), "{told}");
    assert!(told.contains("is corrupt") && told.contains(&*damaged.file_name().unwrap().to_string_lossy()), "{told}");
    assert!(told.contains("hint: `pv fsck` takes it back"), "{told}");
    project.pv_ok(&["fsck"]);
    assert_eq!(project.pv_ok(&["log"]), log);
}

#[test]
fn what_strangers_put_on_the_ref_is_not_believed_and_does_no_harm() {
    let project = versioned();
    let log = project.pv_ok(&["log"]);
    project.write("junk", "{\"kind\":\"run\"}\n");
    let blob = project.git(&["hash-object", "-w", "junk"]);
    std::fs::remove_file(project.path("junk")).unwrap();
    let tree = project.git(&["rev-parse", &format!("{META}^{{tree}}")]);
    let index = project.beside("index").display().to_string();
    let git = |arguments: &[&str]| {
        let output = project
            .command_in(&project.path("."), "git")
            .env("GIT_INDEX_FILE", &index)
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", project.tell(&output));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    git(&["read-tree", &tree]);
    git(&["update-index", "--add", "--cacheinfo", &format!("100644,{blob},README")]);
    let tree = git(&["write-tree"]);
    let commit = git(&["commit-tree", &tree, "-p", META, "-m", "junk"]);
    project.git(&["update-ref", META, &commit]);
    assert_eq!(project.pv_ok(&["log"]), log);
}

#[test]
fn a_file_by_which_git_holds_the_ref_is_named_and_an_old_one_is_removed() {
    let project = versioned();
    let tip = project.git(&["rev-parse", META]);
    let file = project.path(".git/refs/pv/meta.lock");
    std::fs::write(&file, "").unwrap();
    project.write("in.txt", "another");
    let output = project.pv_command(&["snapshot"]).output().unwrap();
    assert!(output.status.success(), "the snapshot is kept all the same");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("meta.lock") && said.contains("remove that file"), "{said}");
    assert_eq!(project.git(&["rev-parse", META]), tip);
    assert!(file.exists(), "it may be that of a git command at work");

    let written = std::fs::metadata(&file).unwrap().modified().unwrap();
    let opened = std::fs::File::options().write(true).open(&file).unwrap();
    opened.set_modified(written - std::time::Duration::from_secs(61)).unwrap();
    let output = project.pv_command(&["log"]).output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(0), String::new()));
    assert_eq!(project.git(&["rev-parse", &format!("{META}~1")]), tip, "the record has come to the ref");
    assert!(!file.exists());
}
