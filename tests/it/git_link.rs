//! Snapshots and commits: the same content has one id, whichever way it is reached, and nothing of the user's is touched.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::sandbox::Sandbox;

const PIPELINE: &str = "\
seed: 1
steps:
  copy:
    run: cat a.txt > out.txt
    inputs: [a.txt]
    outputs: [out.txt]
";

fn project() -> Sandbox {
    let project = Sandbox::new();
    project.write(".pipeline/pipeline.yaml", PIPELINE);
    project.write("a.txt", "a\n");
    project.write("sub/b.txt", "b\n");
    project.commit("first");
    project
}

fn taken(project: &Sandbox, directory: &Path) -> Value {
    let (answer, code) = project.json_in(directory, &["snapshot"]);
    assert_eq!(code, 0, "{answer}");
    answer
}

fn id(project: &Sandbox, directory: &Path, revision: &str) -> String {
    let (answer, code) = project.json_in(directory, &["show", revision]);
    assert_eq!(code, 0, "{answer}");
    answer["snapshot"].as_str().unwrap().to_owned()
}

fn id_of(project: &Sandbox, revision: &str) -> String {
    id(project, &project.path(""), revision)
}

/// The working tree, its commit, and a clone of it: one id. Returns it.
fn one_id(project: &Sandbox, directory: &Path) -> String {
    let answer = taken(project, directory);
    assert_eq!(answer["dirty"], false, "{}", project.git_in(directory, &["status", "--porcelain"]));
    assert_eq!(answer["commit"], project.git_in(directory, &["rev-parse", "HEAD"]).as_str());
    let taken = answer["snapshot"].as_str().unwrap().to_owned();
    assert_eq!(taken, id(project, directory, "HEAD"), "the working tree and its commit");
    taken
}

/// As [`one_id`], and a clone says the same in its working tree and of its commit.
fn one_id_everywhere(project: &Sandbox) -> String {
    let here = one_id(project, &project.path(""));
    let clone = clone(project, "clone-for-the-id", &[]);
    assert_eq!(here, one_id(project, &clone), "here and in a clone");
    here
}

fn clone(project: &Sandbox, name: &str, settings: &[&str]) -> PathBuf {
    let place = project.beside(name);
    let mut arguments = vec!["clone", "--quiet"];
    for setting in settings {
        arguments.extend(["--config", setting]);
    }
    let source = project.path("").to_str().unwrap().to_owned();
    arguments.extend([source.as_str(), place.to_str().unwrap()]);
    project.git(&arguments);
    place
}

/// Everything that a user could miss: index, refs, stash, and every file with its content, mode and times.
fn world(project: &Sandbox) -> String {
    let mut text = String::new();
    for arguments in [
        &["ls-files", "--stage", "--debug"][..],
        &["for-each-ref"],
        &["stash", "list"],
        &["symbolic-ref", "HEAD"],
        &["reflog", "--all"],
    ] {
        let _ = writeln!(text, "{arguments:?}\n{}", project.git(arguments));
    }
    let index = std::fs::metadata(project.path(".git/index")).unwrap();
    let _ = writeln!(text, "index {} {}.{}", index.ino(), index.mtime(), index.mtime_nsec());
    for entry in walkdir::WalkDir::new(project.path("")).sort_by_file_name() {
        let entry = entry.unwrap();
        if entry.path().starts_with(project.path(".git")) {
            continue;
        }
        let data = entry.path().symlink_metadata().unwrap();
        let content = if data.is_file() { std::fs::read(entry.path()).unwrap() } else { Vec::new() };
        let (path, mode, inode) = (entry.path().display(), data.mode(), data.ino());
        let _ = writeln!(text, "{path} {mode:o} {inode} {}.{} {content:?}", data.mtime(), data.mtime_nsec());
    }
    text
}

#[test]
fn a_clean_tree_its_commit_and_a_clone_have_one_exact_id() {
    let project = project();
    assert_eq!(one_id_everywhere(&project), "1e9ff2a54f653af74fcf3528341b72b41c2602082187cc66ebce895c07c017bf");
}

#[test]
fn a_sha256_repository_gives_the_same_id_as_a_sha1_repository() {
    let sha1 = project();
    let project = Sandbox::new();
    std::fs::remove_dir_all(project.path(".git")).unwrap();
    project.git(&["init", "--quiet", "--initial-branch=main", "--object-format=sha256"]);
    project.write(".pipeline/pipeline.yaml", PIPELINE);
    project.write("a.txt", "a\n");
    project.write("sub/b.txt", "b\n");
    assert_eq!(project.commit("first").len(), 64);
    assert_eq!(one_id_everywhere(&project), id_of(&sha1, "HEAD"));
    assert_eq!(taken(&project, &project.path(""))["commit"].as_str().unwrap().len(), 64);
    project.pv_ok(&["snapshot", "--tag", "v1"]);
    assert_eq!(project.git(&["rev-parse", "v1^{commit}"]), project.git(&["rev-parse", "HEAD"]));
}

#[test]
fn linked_worktrees_have_the_same_id_and_share_names_and_objects() {
    let project = project();
    let here = one_id(&project, &project.path(""));
    let linked = project.beside("linked");
    project.git(&["worktree", "add", "--quiet", linked.to_str().unwrap(), "-b", "side"]);
    let answer = taken(&project, &linked);
    assert_eq!((answer["snapshot"].as_str(), answer["new_bytes"].as_u64()), (Some(here.as_str()), Some(0)));
    assert_eq!(one_id(&project, &linked), here);
    // Another state there is another snapshot there only; its name is known here.
    std::fs::write(linked.join("a.txt"), "other\n").unwrap();
    let other = taken(&project, &linked);
    assert_eq!(other["dirty"], true);
    assert_ne!(other["snapshot"], here.as_str());
    assert_eq!(one_id(&project, &project.path("")), here);
    project.json_in(&linked, &["snapshot", "--tag", "from-the-side"]);
    assert_eq!(id_of(&project, "from-the-side"), other["snapshot"]);
}

#[test]
fn a_worktree_of_a_bare_repository_works_and_the_bare_one_is_explained() {
    let project = project();
    let here = one_id(&project, &project.path(""));
    let (bare, linked) = (project.beside("bare.git"), project.beside("linked"));
    project.git(&["clone", "--quiet", "--bare", ".", bare.to_str().unwrap()]);
    project.git_in(&bare, &["worktree", "add", "--quiet", linked.to_str().unwrap(), "main"]);
    assert_eq!(one_id(&project, &linked), here);
    assert!(bare.join("pv").is_dir(), "the store lies where all worktrees share it");
    assert_eq!(project.git_in(&linked, &["status", "--porcelain"]), "");
    insta::assert_snapshot!(project.pv_in(&bare, &["snapshot"]), @"
    --- stderr
    error: git repository `[ROOT]/bare.git` has no working tree
    hint: work in a checkout: `git worktree add`
    --- exit 2
    ");
}

#[test]
fn a_detached_head_is_a_commit_like_any_other() {
    let project = project();
    let first = one_id(&project, &project.path(""));
    project.write("a.txt", "two\n");
    project.commit("second");
    project.git(&["checkout", "--quiet", "--detach", "HEAD~1"]);
    assert_eq!(one_id(&project, &project.path("")), first);
    project.pv_ok(&["snapshot", "--tag", "v1"]);
    assert_eq!(project.git(&["rev-parse", "v1^{commit}"]), project.git(&["rev-parse", "main~1"]));
    assert_eq!(project.git(&["rev-parse", "--abbrev-ref", "HEAD"]), "HEAD");
}

#[test]
fn a_project_in_a_subdirectory_has_the_id_of_the_same_project_on_its_own() {
    let alone = project();
    let project = Sandbox::new();
    project.write("inner/pipe/.pipeline/pipeline.yaml", PIPELINE);
    project.write("inner/pipe/a.txt", "a\n");
    project.write("inner/pipe/sub/b.txt", "b\n");
    project.write("around.txt", "1\n");
    project.commit("first");
    let inner = project.path("inner/pipe");
    let here = one_id(&project, &inner);
    assert_eq!(here, id_of(&alone, "HEAD"));
    assert_eq!(one_id(&project, &project.path("inner/pipe/sub")), here, "from deeper inside");
    // What lies around the project is not part of it, not even for being dirty.
    project.write("around.txt", "2\n");
    assert_eq!(one_id(&project, &inner), here);
    project.git(&["mv", "inner/pipe", "moved"]);
    project.commit("moved");
    assert_eq!(one_id(&project, &project.path("moved")), here);
}

#[test]
fn links_bits_and_odd_names_are_the_same_from_tree_and_commit() {
    let project = project();
    let plain = one_id(&project, &project.path(""));
    symlink("a.txt", project.path("live")).unwrap();
    symlink("nowhere/at/all", project.path("dangling")).unwrap();
    symlink("/etc/hostname", project.path("absolute")).unwrap();
    symlink("sub", project.path("to-a-directory")).unwrap();
    project.write("tool.sh", "#!/bin/sh\n");
    std::fs::set_permissions(project.path("tool.sh"), PermissionsExt::from_mode(0o755)).unwrap();
    for name in [&b"latin-\xe9.txt"[..], b"two\nlines", b"tab\there", b" blank ", b"-dash", b"a\\b", b"\xff\xfe"] {
        std::fs::write(project.path("sub").join(OsStr::from_bytes(name)), name).unwrap();
    }
    project.commit("odd");
    let odd = one_id_everywhere(&project);
    assert_ne!(odd, plain);
    let with_bit = odd;
    project.git(&["update-index", "--chmod=-x", "tool.sh"]);
    std::fs::set_permissions(project.path("tool.sh"), PermissionsExt::from_mode(0o644)).unwrap();
    project.git(&["commit", "--quiet", "--message=no bit"]);
    assert_ne!(one_id_everywhere_again(&project), with_bit, "the executable bit counts");
}

fn one_id_everywhere_again(project: &Sandbox) -> String {
    std::fs::remove_dir_all(project.beside("clone-for-the-id")).unwrap();
    one_id_everywhere(project)
}

#[test]
fn bits_that_git_was_told_to_ignore_do_not_count() {
    let project = project();
    let plain = one_id(&project, &project.path(""));
    project.git(&["config", "core.fileMode", "false"]);
    std::fs::set_permissions(project.path("a.txt"), PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(one_id(&project, &project.path("")), plain);
    project.git(&["update-index", "--chmod=+x", "a.txt"]);
    std::fs::set_permissions(project.path("a.txt"), PermissionsExt::from_mode(0o644)).unwrap();
    project.git(&["commit", "--quiet", "--message=a bit"]);
    assert_ne!(one_id(&project, &project.path("")), plain, "Git's own bit does");
}

#[test]
fn line_endings_by_attributes_give_one_id_in_every_clone() {
    let project = project();
    project.write(".gitattributes", "*.txt text\n*.bat text eol=crlf\n*.bin -text\n");
    project.write("run.bat", "echo\r\nexit\r\n");
    project.write("raw.bin", "a\r\nb\n");
    project.write("mixed.txt", "one\r\ntwo\n");
    project.commit("attributes");
    // What lies on disk is not what a checkout would write; the id is that of the checkout.
    assert_eq!(project.read("mixed.txt"), "one\r\ntwo\n");
    one_id_everywhere(&project);
}

#[test]
fn line_endings_by_settings_give_tree_and_commit_one_id() {
    for setting in ["core.autocrlf=true", "core.autocrlf=input", "core.eol=crlf"] {
        let project = project();
        project.write(".gitattributes", "c.txt text=auto\n");
        project.write("c.txt", "one\ntwo\n");
        project.commit("text");
        let place = clone(&project, "clone", &[setting]);
        let here = one_id(&project, &place);
        assert_eq!(one_id(&project, &place), here, "{setting}");
        // A file written with the other line endings is clean for Git, so it has the commit's id.
        std::fs::write(place.join("a.txt"), "a\r\n").unwrap();
        std::fs::write(place.join("c.txt"), "one\r\ntwo\r\n").unwrap();
        let answer = taken(&project, &place);
        if setting == "core.eol=crlf" {
            assert_ne!(answer["snapshot"], here.as_str(), "`a.txt` has no attribute: it is another file");
        } else {
            assert_eq!(answer["snapshot"], here.as_str(), "{setting}");
        }
    }
}

#[test]
fn ident_and_an_external_filter_are_applied_as_in_a_checkout() {
    let project = project();
    project.write(".gitattributes", "i.txt ident\nf.txt filter=rot\n");
    project.git(&["config", "filter.rot.clean", "tr a-z b-za"]);
    project.git(&["config", "filter.rot.smudge", "tr b-za a-z"]);
    project.git(&["config", "filter.rot.required", "true"]);
    project.write("i.txt", "$Id$\n");
    project.write("f.txt", "hello\n");
    project.commit("filters");
    assert_eq!(project.git(&["show", "HEAD:f.txt"]), "ifmmp");
    let here = one_id(&project, &project.path(""));
    // In the checkout of another clone, the keyword is filled in and the filter is the same.
    let filters = ["filter.rot.clean=tr a-z b-za", "filter.rot.smudge=tr b-za a-z"];
    let place = clone(&project, "clone", &filters);
    assert_eq!(std::fs::read_to_string(place.join("f.txt")).unwrap(), "hello\n");
    assert!(std::fs::read_to_string(place.join("i.txt")).unwrap().starts_with("$Id: "));
    assert_eq!(one_id(&project, &place), here);
}

#[test]
fn a_submodule_counts_by_its_commit_and_the_snapshot_says_so() {
    let project = project();
    let library = project.beside("library");
    std::fs::create_dir(&library).unwrap();
    project.git_in(&library, &["init", "--quiet", "--initial-branch=main"]);
    std::fs::write(library.join("lib.py"), "1\n").unwrap();
    project.git_in(&library, &["add", "lib.py"]);
    project.git_in(&library, &["commit", "--quiet", "--message=one"]);
    let plain = one_id(&project, &project.path(""));
    let allow = ["-c", "protocol.file.allow=always"];
    project.git(&[&allow[..], &["submodule", "--quiet", "add", "../library", "lib"]].concat());
    project.commit("with a submodule");
    let with = one_id_everywhere(&project);
    assert_ne!(with, plain);
    insta::assert_snapshot!(project.pv(&["snapshot"]), @"
    Snapshot 193145702e6a: 4 files, 147 B, 0 B new in the store
    Commit 06b7a2ba68
    --- stderr
    note: of submodule `lib` the snapshot has the commit only, not its files
    ");
    std::fs::write(project.path("lib/lib.py"), "2\n").unwrap();
    project.git_in(&project.path("lib"), &["commit", "--quiet", "--all", "--message=two"]);
    let moved = taken(&project, &project.path(""));
    assert_eq!(moved["dirty"], true, "another commit is checked out");
    assert_ne!(moved["snapshot"], with.as_str());
    project.commit("moved");
    assert_eq!(one_id(&project, &project.path("")), moved["snapshot"]);
    let run = project.pv(&["run"]);
    assert!(run.contains("submodule `lib`"), "a run says that the files of a submodule are not there: {run}");
}

#[test]
fn a_repository_without_commits_can_be_snapshotted_and_run() {
    let project = Sandbox::new();
    project.write(".pipeline/pipeline.yaml", PIPELINE);
    project.write("a.txt", "a\n");
    project.write("sub/b.txt", "b\n");
    let answer = taken(&project, &project.path(""));
    assert_eq!((&answer["commit"], &answer["dirty"]), (&Value::Null, &json!(true)));
    insta::assert_snapshot!(project.pv(&["snapshot", "--tag", "v0"]), @"
    Snapshot 1e9ff2a54f65 v0: 3 files, 99 B, 0 B new in the store
    No commit yet
    ");
    assert_eq!(project.git(&["tag"]), "", "there is nothing that Git could tag");
    assert!(project.pv_ok(&["run"]).contains("copy"));
    project.pv_ok(&["run", "v0"]);
    project.commit("first");
    assert_eq!(one_id(&project, &project.path("")), answer["snapshot"], "the first commit changes nothing");
}

#[test]
fn snapshots_of_a_dirty_tree_touch_nothing_only_recordss() {
    let project = project();
    project.write("stashed.txt", "s\n");
    project.git(&["stash", "--quiet", "--include-untracked"]);
    project.write("a.txt", "changed\n");
    project.write("staged.txt", "staged\n");
    project.git(&["add", "staged.txt"]);
    project.write("staged.txt", "staged, then changed\n");
    project.write("intended.txt", "i\n");
    project.git(&["add", "--intent-to-add", "intended.txt"]);
    project.write("untracked.txt", "u\n");
    project.write(".git/info/exclude", "*.ignored\n");
    project.write("x.ignored", "x\n");
    std::fs::remove_file(project.path("sub/b.txt")).unwrap();
    let past = project.path("a.txt");
    let touched = std::fs::File::options().write(true).open(past).unwrap();
    touched.set_modified(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000)).unwrap();
    let porcelain = project.git(&["status", "--porcelain"]);
    let before = world(&project);
    let first = taken(&project, &project.path(""));
    assert_eq!(first["dirty"], true);
    assert_eq!(first["commit"], project.git(&["rev-parse", "HEAD"]).as_str());
    project.pv_ok(&["status"]);
    project.pv_ok(&["diff", "HEAD"]);
    let after = world(&project);
    let only_records =
        |text: &str| text.lines().filter(|line| !line.contains("refs/pv/meta")).collect::<Vec<_>>().join("\n");
    pretty(&only_records(&before), &only_records(&after));
    assert_eq!(project.git(&["status", "--porcelain"]), porcelain);
    // All of it is in the snapshot, as it is on disk.
    let place = project.beside("look");
    std::fs::create_dir(&place).unwrap();
    assert_eq!(first["files"], 5, "definition, a, staged, intended, untracked");
    project.git(&["add", "--all"]);
    project.git(&["commit", "--quiet", "--message=all of it"]);
    assert_eq!(id_of(&project, "HEAD"), first["snapshot"]);
}

fn pretty(before: &str, after: &str) {
    let different: Vec<_> = before.lines().zip(after.lines()).filter(|(left, right)| left != right).collect();
    assert!(before == after, "what was touched: {different:#?}");
}

#[test]
fn untracked_files_count_ignored_ones_do_not_and_outputs_never() {
    let project = project();
    project.write(".gitignore", "*.tmp\n");
    project.commit("ignore");
    let plain = one_id(&project, &project.path(""));
    project.write("x.tmp", "x");
    project.write("out.txt", "an output\n");
    assert_eq!(one_id(&project, &project.path("")), plain, "an output that is not tracked makes no tree dirty");
    project.write("new.txt", "n");
    let with = taken(&project, &project.path(""));
    assert_eq!(with["dirty"], true);
    assert_ne!(with["snapshot"], plain.as_str());
    std::fs::remove_file(project.path("new.txt")).unwrap();
    project.commit("the output is tracked");
    assert_eq!(one_id(&project, &project.path("")), plain);
    project.write("out.txt", "another output\n");
    assert_eq!(one_id(&project, &project.path("")), plain);
}

#[test]
fn a_tag_in_a_clean_tree_is_an_annotated_git_tag_and_in_a_dirty_one_only_a_record() {
    let project = project();
    insta::assert_snapshot!(project.pv(&["snapshot", "--tag", "v1.0", "--message", "the first"]), @"
    Snapshot 1e9ff2a54f65 v1.0: 3 files, 99 B, 644 B new in the store
    Commit 72622c3974, tagged
    ");
    insta::assert_snapshot!(project.git(&["cat-file", "-p", "v1.0"]), @"
    object 72622c3974d2824d7f295e3a68630f1133e3f1d1
    type commit
    tag v1.0
    tagger Ada <ada@example.org> 1769760000 +0000

    the first
    ");
    project.write("a.txt", "changed\n");
    insta::assert_snapshot!(project.pv(&["snapshot", "--tag", "v1.1"]), @"
    Snapshot 1aefaa3b9a4f v1.1: 3 files, 105 B, 316 B new in the store
    Commit 72622c3974 with changes that are not committed
    ");
    assert_eq!(project.git(&["tag"]), "v1.0");
    assert_ne!(id_of(&project, "v1.1"), id_of(&project, "v1.0"));
    // The dirty content is what runs.
    project.write("a.txt", "changed again\n");
    project.pv_ok(&["run", "v1.1", "--restore"]);
    assert_eq!(project.read("out.txt"), "changed\n");
    let (log, _) = project.json(&["show", "v1.1"]);
    assert_eq!(log["dirty"], true);
    assert_eq!(log["commit"], project.git(&["rev-parse", "HEAD"]).as_str());
}

#[test]
fn a_tag_of_another_commit_is_an_error_before_anything_is_recorded() {
    let project = project();
    project.git(&["tag", "v1"]);
    project.write("a.txt", "two\n");
    project.commit("second");
    let recorded = |project: &Sandbox| {
        walkdir::WalkDir::new(project.path(".git/pv/records"))
            .into_iter()
            .flatten()
            .filter(|e| e.path().is_file())
            .count()
    };
    insta::assert_snapshot!(project.pv(&["snapshot", "--tag", "v1"]), @"
    --- stderr
    error: git tag `v1` already names commit 72622c3974
    hint: choose another name, or use it for the version only, with `--force`: the tag stays where it is
    --- exit 2
    ");
    assert_eq!(recorded(&project), 0);
    // Names that Git refuses only when it makes the tag: a directory in the way of a file, something that is no commit.
    project.git(&["tag", "group/one"]);
    let blob = project.git(&["rev-parse", "HEAD:a.txt"]);
    project.git(&["tag", "blob", &blob]);
    for name in ["group", "group/one/more", "blob"] {
        let said = project.pv(&["snapshot", "--tag", name]);
        assert!(said.contains("--- exit 2"), "{name}: {said}");
        assert_eq!(recorded(&project), 0, "{name}: {said}");
    }
    assert!(project.pv(&["show", "group"]).contains("--- exit 2"));
}

#[test]
fn a_name_is_given_again_only_to_the_same_content() {
    let project = project();
    project.pv_ok(&["snapshot", "--tag", "v1"]);
    let (first, tag) = (id_of(&project, "v1"), project.git(&["rev-parse", "v1"]));
    let records = project.git(&["ls-tree", "-r", "refs/pv/meta"]);
    project.pv_ok(&["snapshot", "--tag", "v1"]);
    assert_eq!(project.git(&["ls-tree", "-r", "refs/pv/meta"]), records, "nothing new, nothing recorded");
    project.write("a.txt", "two\n");
    insta::assert_snapshot!(project.pv(&["snapshot", "--tag", "v1"]), @"
    --- stderr
    error: version `v1` already names snapshot 1e9ff2a54f65
    hint: choose another name, or move this one with `--force`
    --- exit 2
    ");
    assert_eq!(id_of(&project, "v1"), first);
    project.commit("second");
    insta::assert_snapshot!(project.pv(&["snapshot", "--tag", "v1", "--force"]), @"
    Snapshot 712e2e965ba6 v1: 3 files, 101 B, 312 B new in the store
    Commit 50199f3d4f
    --- stderr
    note: git tag `v1` stays where it is; the version `v1` goes before it
    ");
    project.write("a.txt", "three\n");
    project.pv_ok(&["snapshot", "--tag", "v1", "--force"]);
    let third = id_of(&project, "v1");
    assert_ne!(third, first, "the name has moved");
    assert_eq!(project.git(&["rev-parse", "v1"]), tag, "Git's tag never moves");
    assert_eq!(id_of(&project, "refs/tags/v1"), first);
    project.write("a.txt", "a\n");
    project.pv_ok(&["snapshot", "--tag", "v1", "--force"]);
    assert_eq!(id_of(&project, "v1"), first, "and back");
}

#[test]
fn bad_names_are_refused_before_anything_is_hashed() {
    let project = project();
    let names = [
        "", " ", "a b", "a..b", ".a", "a.", "a.lock", "a/", "/a", "a//b", "a~1", "a^", "a:b", "a?", "a*", "a[b",
        "a\\b", "a@{1}", "@", "a\tb", "a\u{7f}", "x/.y", "HEAD",
    ];
    for name in names {
        let said = project.pv(&["snapshot", &format!("--tag={name}")]);
        assert!(said.contains("is no name for a version"), "{name:?}: {said}");
        assert!(said.ends_with("--- exit 2\n"), "{name:?}: {said}");
    }
    assert!(project.pv(&["snapshot", "--tag=-a"]).contains("`-a` is no name"));
    assert!(!project.exists(".git/pv/objects"), "nothing was hashed");
    for name in ["v1.0", "releases/2026-01", "größer", "v1+build.3", "a_b"] {
        project.pv_ok(&["snapshot", "--tag", name]);
        assert_eq!(project.git(&["rev-parse", &format!("{name}^{{commit}}")]), project.git(&["rev-parse", "HEAD"]));
    }
}

#[test]
fn rewriting_history_without_changing_content_changes_no_id() {
    let project = project();
    project.write("a.txt", "two\n");
    project.commit("second");
    let before = id_of(&project, "HEAD");
    project.git(&["commit", "--quiet", "--amend", "--message=another message", "--author=B <b@c>"]);
    assert_eq!(id_of(&project, "HEAD"), before);
    project.git(&["commit", "--quiet", "--allow-empty", "--message=empty"]);
    assert_eq!(id_of(&project, "HEAD"), before);
    // A rebase onto a root of the same content.
    let root = project.git(&["commit-tree", "HEAD~2^{tree}", "-m", "new root"]);
    project.git(&["rebase", "--quiet", "--onto", &root, "HEAD~2"]);
    assert_eq!(id_of(&project, "HEAD"), before);
    assert_eq!(one_id(&project, &project.path("")), before);
}

#[test]
fn revisions_are_what_git_takes_them_for() {
    let project = project();
    let mut ids = vec![id_of(&project, "HEAD")];
    for (content, message) in [("two\n", "second step"), ("three\n", "third step")] {
        project.write("a.txt", content);
        project.commit(message);
        ids.push(id_of(&project, "HEAD"));
    }
    project.git(&["tag", "plain", "HEAD~1"]);
    project.git(&["branch", "old", "HEAD~2"]);
    let second = project.git(&["rev-parse", "HEAD~1"]);
    let expected = BTreeMap::from([
        ("HEAD", 2),
        ("@", 2),
        ("main", 2),
        ("HEAD~1", 1),
        ("HEAD~2", 0),
        ("HEAD^", 1),
        ("HEAD@{1}", 1),
        ("main@{2}", 0),
        ("plain", 1),
        ("old", 0),
        (":/second", 1),
        (":/third", 2),
        ("HEAD^{/first}", 0),
        (&second, 1),
        (&second[..8], 1),
        (&ids[0], 0),
        (&ids[1][..12], 1),
    ]);
    for (revision, index) in expected {
        assert_eq!(id_of(&project, revision), ids[index], "{revision}");
    }
    let (run, _) = project.json(&["run", "plain"]);
    let run = run["run"].as_str().unwrap();
    let (shown, _) = project.json(&["show", &run[..12]]);
    assert_eq!((shown["run"].as_str(), shown["snapshot"].as_str()), (Some(run), Some(ids[1].as_str())));
    let (again, code) = project.json(&["run", &run[..16]]);
    assert_eq!((again["verdict"].as_str(), code), (Some("reproduced"), 0));
}

#[test]
fn a_version_hides_a_branch_and_a_commit_hides_a_snapshot() {
    let project = project();
    let first = id_of(&project, "HEAD");
    project.pv_ok(&["snapshot", "--tag", "v1"]);
    project.write("a.txt", "two\n");
    project.commit("second");
    let second = id_of(&project, "HEAD");
    project.git(&["tag", "--delete", "v1"]);
    project.git(&["branch", "v1"]);
    assert_eq!(id_of(&project, "v1"), first, "the version, not the branch");
    assert_eq!(id_of(&project, "heads/v1"), second);
    // A branch that is called like a snapshot's first digits.
    project.git(&["branch", &first[..12]]);
    assert_eq!(id_of(&project, &first[..12]), second, "the branch, not the snapshot");
    assert_eq!(id_of(&project, &first[..13]), first);
}

#[test]
fn digits_that_git_has_for_a_file_still_name_a_snapshot() {
    // Four digits of a snapshot that some blob begins with too were "not one commit", and the snapshot out of reach.
    let project = project();
    let here = id_of(&project, "HEAD");
    let digits = &here[..4];
    let content = "10630\n";
    project.write("blob", content);
    let found = project.git(&["hash-object", "-w", "blob"]);
    std::fs::remove_file(project.path("blob")).unwrap();
    assert!(found.starts_with(digits), "{found}");
    assert_eq!(id_of(&project, digits), here);
    insta::assert_snapshot!(project.pv(&["show", &found]).replace(&found, "[BLOB]"), @"
    --- stderr
    error: revision `[BLOB]` does not name one commit
    hint: name one commit, not a range, a file or a directory
    --- exit 2
    ");
}

#[test]
fn what_is_called_nothing_is_said_with_what_was_perhaps_meant() {
    let project = project();
    project.pv_ok(&["snapshot", "--tag", "v1.0"]);
    insta::assert_snapshot!(project.pv(&["show", "v1.O"]), @"
    --- stderr
    error: nothing is called `v1.O`
    hint: did you mean `v1.0`?
    --- exit 2
    ");
    insta::assert_snapshot!(project.pv(&["run", "something-else"]), @"
    --- stderr
    error: nothing is called `something-else`
    hint: a revision is a version, a Git revision, or the first digits of a snapshot or run; `pv log` lists them
    --- exit 2
    ");
    assert!(project.pv(&["diff", "v10", "HEAD"]).contains("did you mean `v1.0`?"));
}

#[test]
fn a_name_that_two_clones_gave_to_different_content_is_ambiguous_and_lists_both() {
    let project = project();
    let place = clone(&project, "clone", &[]);
    project.write("a.txt", "mine\n");
    project.pv_ok(&["snapshot", "--tag", "v1"]);
    std::fs::write(place.join("a.txt"), "theirs\n").unwrap();
    project.pv_in(&place, &["snapshot", "--tag", "v1"]);
    project.git_in(&place, &["fetch", "--quiet", "origin", "refs/pv/meta:refs/pv/theirs"]);
    let both = project.git_in(&place, &["rev-parse", "refs/pv/theirs", "refs/pv/meta"]);
    let parents: Vec<&str> = both.lines().collect();
    // Records only accumulate: the union of both trees is what a push or pull makes.
    let union = union(&project, &place, &parents);
    project.git_in(&place, &["update-ref", "refs/pv/meta", &union]);
    insta::assert_snapshot!(project.pv_in(&place, &["show", "v1"]), @"
    --- stderr
    error: `v1` names several things: snapshot e123acc6d9c2 (named by Ada <ada@example.org> on 2026-01-31T09:30:00.000Z), snapshot 2001fb2a628b (named by Ada <ada@example.org> on 2026-01-31T09:30:00.000Z)
    hint: name one of them, by more of its digits
    --- exit 2
    ");
    // Naming it anew settles it.
    project.pv_in(&place, &["snapshot", "--tag", "v1", "--force"]);
    assert!(project.pv_in(&place, &["show", "v1"]).starts_with("snapshot "));
}

fn union(project: &Sandbox, place: &Path, parents: &[&str]) -> String {
    let index = project.beside("union-index");
    let run = |arguments: &[&str]| {
        let mut command = project.command_in(place, "git");
        let output = command.args(arguments).env("GIT_INDEX_FILE", &index).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    };
    run(&["read-tree", parents[0]]);
    let theirs = run(&["ls-tree", "-r", parents[1]]);
    for line in theirs.lines() {
        let (entry, path) = line.split_once('\t').unwrap();
        let words: Vec<&str> = entry.split(' ').collect();
        run(&["update-index", "--add", "--cacheinfo", &format!("{},{},{path}", words[0], words[2])]);
    }
    let tree = run(&["write-tree"]);
    run(&["commit-tree", &tree, "-p", parents[0], "-p", parents[1], "-m", "union"])
}

#[test]
fn an_abbreviation_that_fits_several_commits_lists_them() {
    let project = project();
    let tree = project.git(&["rev-parse", "HEAD^{tree}"]);
    let mut stream = String::new();
    for number in 0..900 {
        let subject = format!("number {number}");
        let seconds = 1_700_000_000 + number;
        let _ = writeln!(
            stream,
            "commit refs/heads/c{number}\ncommitter A <a@b> {seconds} +0000\ndata {}\n{subject}\nM 040000 {tree} \"\"\n",
            subject.len()
        );
    }
    project.write(".git/stream", &stream);
    let mut import = project.command_in(&project.path(""), "git");
    let input = std::fs::File::open(project.path(".git/stream")).unwrap();
    assert!(import.args(["fast-import", "--quiet"]).stdin(input).status().unwrap().success());
    let all = project.git(&["rev-list", "--all", "--no-commit-header", "--pretty=%H %s"]);
    let mut commits: Vec<&str> = all.lines().collect();
    commits.sort_unstable();
    let at = (1..commits.len()).find(|index| commits[*index][..4] == commits[index - 1][..4]).unwrap();
    let said = project.pv(&["show", &commits[at][..4]]);
    for commit in &commits[at - 1..=at] {
        let (id, subject) = commit.split_once(' ').unwrap();
        assert!(said.contains(&id[..7]) && said.contains(subject), "{commit} is listed: {said}");
    }
    assert!(said.contains("names several things"), "{said}");
    assert!(said.contains("hint: name one of them, by more of its digits") && said.ends_with("--- exit 2\n"), "{said}");
}

#[test]
fn snapshot_digits_that_fit_several_list_them() {
    let project = project();
    // Ids are pure functions of content, so these two begin alike everywhere.
    let (left, right) = ("16", "375");
    let mut ids = Vec::new();
    for content in [left, right] {
        project.write("a.txt", format!("{content}\n"));
        ids.push(taken(&project, &project.path(""))["snapshot"].as_str().unwrap().to_owned());
    }
    let said = project.pv(&["show", &ids[0][..4]]);
    assert!(ids.iter().all(|id| said.contains(&id[..12])), "{said}");
}
