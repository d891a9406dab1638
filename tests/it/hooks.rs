//! The hooks, called by the real `git`: snapshots keep step with commits, and a commit is never lost for it.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Output;

use crate::sandbox::Sandbox;

const PLAIN: &str = "\
steps:
  copy:
    run: cat a.txt > out.txt
    inputs: [a.txt]
    outputs: [out.txt]
";
const WITH_DATA: &str = "\
data: [data/raw]
steps:
  copy:
    run: cat data/raw/x.csv > out.txt
    inputs: [data/raw/x.csv]
    outputs: [out.txt]
";
const POINTER: &str = ".pipeline/data/data/raw";

fn plain() -> Sandbox {
    let project = Sandbox::new();
    project.write(".pipeline/pipeline.yaml", PLAIN);
    project.write("a.txt", "1\n");
    project.commit("first");
    project.pv_ok(&["hooks", "install"]);
    project
}

fn with_data() -> Sandbox {
    let project = Sandbox::new();
    project.write(".pipeline/pipeline.yaml", WITH_DATA);
    project.write(".gitignore", "/data/\n/out.txt\n");
    project.write("a.txt", "1\n");
    project.write("data/raw/x.csv", "x1\n");
    project.pv_ok(&["hooks", "install"]);
    project.commit("first");
    project
}

/// Runs git in the project: what it and the hooks said, and whether it went well.
fn git(project: &Sandbox, arguments: &[&str]) -> (bool, String) {
    git_in(project, &project.path(""), arguments)
}

fn git_in(project: &Sandbox, directory: &Path, arguments: &[&str]) -> (bool, String) {
    let output = project.command_in(directory, "git").args(arguments).output().unwrap();
    (output.status.success(), said(project, &output))
}

fn said(project: &Sandbox, output: &Output) -> String {
    project.tell(output)
}

fn hook(project: &Sandbox, path: &str, body: &str) {
    project.write(path, format!("#!/bin/sh\n{body}"));
    std::fs::set_permissions(project.path(path), PermissionsExt::from_mode(0o755)).unwrap();
}

/// The commits that are linked to a snapshot, newest commit first.
fn links(project: &Sandbox) -> Vec<(String, String)> {
    let mut links = Vec::new();
    for commit in project.git(&["rev-list", "HEAD"]).lines() {
        let (shown, code) = project.json(&["show", commit]);
        if code != 0 {
            continue;
        }
        for link in shown["links"].as_array().unwrap() {
            if link["commit"] == commit {
                assert_eq!(link["dirty"], false);
                assert_eq!(link["snapshot"], shown["snapshot"]);
                links.push((commit.to_owned(), link["snapshot"].as_str().unwrap().to_owned()));
            }
        }
    }
    links
}

fn linked(project: &Sandbox, revision: &str) -> bool {
    let commit = project.git(&["rev-parse", revision]);
    links(project).iter().any(|(linked, _)| *linked == commit)
}

/// The pointer in the commit says what a fresh look at the data says.
fn assert_pointer_is_committed(project: &Sandbox, directory: &Path) {
    assert_eq!(project.git_in(directory, &["status", "--porcelain"]), "", "nothing is left to commit");
    let committed = project.git_in(directory, &["show", &format!("HEAD:./{POINTER}")]);
    let (answer, _) = project.json_in(directory, &["snapshot"]);
    assert_eq!(answer["dirty"], false);
    let (shown, _) = project.json_in(directory, &["show", "HEAD"]);
    assert_eq!(shown["snapshot"], answer["snapshot"], "the commit determines what lies here");
    let digest = shown["data"]["data/raw"]["digest"].as_str().unwrap();
    assert!(committed.contains(digest), "{committed}");
}

#[test]
fn hooks_are_installed_shown_and_taken_out() {
    let project = Sandbox::new();
    project.write(".pipeline/pipeline.yaml", PLAIN);
    let before = listing(&project.path(".git/hooks"));
    hook(&project, ".git/hooks/post-merge", "echo theirs\n");
    insta::assert_snapshot!(project.pv(&["hooks", "status"]), @"
    Hooks in [ROOT]/project/.git/hooks
      pre-commit          not installed
      prepare-commit-msg  not installed
      post-commit         not installed
      post-rewrite        not installed
      post-checkout       not installed
      post-merge          another program's
      pre-push            not installed
    ");
    insta::assert_snapshot!(project.pv(&["hooks", "install"]), @"
    Hooks in [ROOT]/project/.git/hooks
      pre-commit          installed
      prepare-commit-msg  installed
      post-commit         installed
      post-rewrite        installed
      post-checkout       installed
      post-merge          installed, calls the one that was there first
      pre-push            installed
    ");
    assert_eq!(project.pv(&["hooks", "install"]), project.pv(&["hooks", "status"]), "again is the same");
    project.pv_ok(&["hooks", "uninstall"]);
    assert_eq!(project.read(".git/hooks/post-merge"), "#!/bin/sh\necho theirs\n");
    std::fs::remove_file(project.path(".git/hooks/post-merge")).unwrap();
    assert_eq!(listing(&project.path(".git/hooks")), before, "nothing is left behind");
    assert!(project.pv(&["hooks", "uninstall"]).contains("not installed"), "again is no error");
}

fn listing(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_hook_that_was_there_is_called_first_with_its_arguments_and_input_and_can_stop_the_commit() {
    let project = Sandbox::new();
    project.write(".pipeline/pipeline.yaml", PLAIN);
    project.write("a.txt", "1\n");
    project.commit("first");
    hook(&project, ".git/hooks/pre-commit", "echo pre >> seen\n[ ! -e stop ]\n");
    hook(&project, ".git/hooks/prepare-commit-msg", "echo \"prepare $# $2\" >> seen\n");
    hook(&project, ".git/hooks/post-rewrite", "echo \"rewrite $1 $(wc -w)\" >> seen\n");
    project.pv_ok(&["hooks", "install"]);
    project.write("stop", "");
    let (good, _) = git(&project, &["commit", "--quiet", "--allow-empty", "--message=x"]);
    assert!(!good, "their failure stops the commit");
    assert_eq!(project.read("seen"), "pre\n");
    std::fs::remove_file(project.path("stop")).unwrap();
    std::fs::remove_file(project.path("seen")).unwrap();
    project.git(&["commit", "--quiet", "--allow-empty", "--amend", "--message=y"]);
    assert_eq!(project.read("seen"), "pre\nprepare 2 message\nrewrite amend 2\n");
    assert!(linked(&project, "HEAD"), "and ours is called after it");
}

#[test]
fn a_hook_that_took_the_place_of_ours_is_not_lost_by_installing_again() {
    // Two tools that install hooks: the hook that was there first was renamed over and gone.
    let project = plain();
    project.pv_ok(&["hooks", "uninstall"]);
    hook(&project, ".git/hooks/pre-commit", "echo first\n");
    project.pv_ok(&["hooks", "install"]);
    hook(&project, ".git/hooks/pre-commit", "echo second\n");
    insta::assert_snapshot!(project.pv(&["hooks", "install"]), @"
    --- stderr
    error: cannot keep the hook that is there as `[ROOT]/project/.git/hooks/pre-commit.before-pv`
      because: entity already exists
    hint: another hook took the place of ours; remove the one of the two that is not wanted
    --- exit 2
    ");
    assert_eq!(project.read(".git/hooks/pre-commit.before-pv"), "#!/bin/sh\necho first\n");
    assert_eq!(project.read(".git/hooks/pre-commit"), "#!/bin/sh\necho second\n");
}

#[test]
fn a_hooks_path_is_honoured_relative_and_absolute() {
    for absolute in [false, true] {
        let project = Sandbox::new();
        project.write(".pipeline/pipeline.yaml", PLAIN);
        project.write("a.txt", "1\n");
        let place = if absolute { project.beside("hooks") } else { project.path("tools/hooks") };
        let setting = if absolute { place.to_str().unwrap() } else { "tools/hooks" };
        project.git(&["config", "core.hooksPath", setting]);
        project.pv_ok(&["hooks", "install"]);
        assert!(place.join("post-commit").is_file(), "{}", place.display());
        assert!(!project.exists(".git/hooks/post-commit"));
        project.commit("first");
        assert!(linked(&project, "HEAD"), "{setting}");
        project.pv_ok(&["hooks", "uninstall"]);
        assert_eq!(listing(&place), [""; 0]);
    }
}

#[test]
fn linked_worktrees_share_the_hooks() {
    let project = with_data();
    let place = project.beside("linked");
    let (good, said) = git(&project, &["worktree", "add", "--quiet", place.to_str().unwrap(), "-b", "side"]);
    assert!(good, "{said}");
    assert_eq!(std::fs::read_to_string(place.join("data/raw/x.csv")).unwrap(), "x1\n", "with its data: {said}");
    std::fs::write(place.join("data/raw/x.csv"), "x2\n").unwrap();
    std::fs::write(place.join("a.txt"), "2\n").unwrap();
    project.git_in(&place, &["commit", "--quiet", "--all", "--message=from the side"]);
    assert_pointer_is_committed(&project, &place);
    let (shown, _) = project.json_in(&place, &["show", "HEAD"]);
    assert_eq!(shown["links"][0]["commit"], project.git_in(&place, &["rev-parse", "HEAD"]).as_str());
    assert_eq!(project.read("data/raw/x.csv"), "x1\n", "the other worktree keeps its own");
}

#[test]
fn a_branch_without_a_pipeline_commits_and_nothing_is_recorded() {
    let project = plain();
    project.git(&["config", "pv.trailer", "true"]);
    project.git(&["checkout", "--quiet", "--orphan", "pages"]);
    project.git(&["rm", "--quiet", "-r", "--force", "."]);
    project.write("index.html", "x\n");
    project.git(&["add", "index.html"]);
    let records = project.git(&["for-each-ref", "refs/pv"]);
    let (good, said) = git(&project, &["commit", "--quiet", "--message=a page"]);
    assert!(good);
    assert_eq!(said, "", "and nothing is said");
    assert_eq!(project.git(&["for-each-ref", "refs/pv"]), records);
    assert_eq!(project.git(&["log", "-1", "--format=%B"]).trim(), "a page");
    // Also where there are pipelines, but not the one of the hooks.
    project.write(".pipeline/other.yaml", PLAIN);
    project.git(&["add", "."]);
    let (good, said) = git(&project, &["commit", "--quiet", "--message=another pipeline"]);
    assert!(good, "{said}");
    assert_eq!(said, "");
}

#[test]
fn a_bad_definition_stops_the_commit_with_a_picture_unless_told_otherwise() {
    let project = plain();
    project.git(&["config", "pv.trailer", "true"]);
    project.write(".pipeline/pipeline.yaml", PLAIN.replace("inputs", "inptus"));
    let head = project.git(&["rev-parse", "HEAD"]);
    let (good, said) = git(&project, &["commit", "--quiet", "--all", "--message=bad"]);
    assert!(!good);
    insta::assert_snapshot!(said, @"
    --- stderr
    error: unknown key `inptus` in step `copy`
     --> .pipeline/pipeline.yaml:4:5
      |
    4 |     inptus: [a.txt]
      |     ^^^^^^ no step has such a key
      |
    help: did you mean `inputs`?
    hint: `git commit --no-verify` commits all the same
    --- exit 1
    ");
    assert_eq!(project.git(&["rev-parse", "HEAD"]), head);
    let (good, said) = git(&project, &["commit", "--quiet", "--all", "--no-verify", "--message=bad all the same"]);
    assert!(good, "{said}");
    assert_ne!(project.git(&["rev-parse", "HEAD"]), head);
    assert!(said.contains("inptus"), "what is not linked is said: {said}");
}

#[test]
fn a_definition_that_is_bad_only_where_it_is_staged_stops_the_commit() {
    let project = plain();
    project.write(".pipeline/pipeline.yaml", PLAIN.replace("inputs", "inptus"));
    project.git(&["add", "--all"]);
    project.write(".pipeline/pipeline.yaml", PLAIN);
    let (good, said) = git(&project, &["commit", "--quiet", "--message=bad"]);
    assert!(!good && said.contains("inptus"), "what is committed counts, not what lies beside it: {said}");
    // And the other way round: what is committed is good.
    project.git(&["add", "--all"]);
    project.write(".pipeline/pipeline.yaml", PLAIN.replace("inputs", "inptus"));
    let (good, said) = git(&project, &["commit", "--quiet", "--allow-empty", "--message=good"]);
    assert!(good, "{said}");
    assert!(linked(&project, "HEAD"));
}

#[test]
fn changed_data_is_part_of_the_commit_that_is_made() {
    let project = with_data();
    assert_pointer_is_committed(&project, &project.path(""));
    for (number, arguments) in [
        &["commit", "--quiet", "--all", "--message=all"][..],
        &["commit", "--quiet", "--message=one file", "a.txt"],
        &["commit", "--quiet", "--message=one more", "--include", "a.txt"],
        &["commit", "--quiet", "--allow-empty", "--message=data alone"],
        &["commit", "--quiet", "--amend", "--no-edit"],
    ]
    .into_iter()
    .enumerate()
    {
        project.write("data/raw/x.csv", format!("changed {number}\n"));
        project.write("a.txt", format!("changed {number}\n"));
        if number == 3 || number == 4 {
            project.git(&["add", "a.txt"]);
        }
        let (good, said) = git(&project, arguments);
        assert!(good, "{arguments:?}: {said}");
        assert_eq!(said, format!("--- stderr\npv: {POINTER} is part of the commit\n"), "{arguments:?}");
        assert_pointer_is_committed(&project, &project.path(""));
        assert!(linked(&project, "HEAD"), "{arguments:?}");
    }
}

#[test]
fn a_pointer_that_was_written_before_is_part_of_the_next_commit_too() {
    // `pv snapshot` wrote the pointer, and the commit after it went without: the commit had the old data.
    let project = with_data();
    project.write("data/raw/x.csv", "x2\n");
    project.pv_ok(&["snapshot"]);
    project.write("a.txt", "2\n");
    project.git(&["commit", "--quiet", "--message=after a snapshot", "a.txt"]);
    assert_pointer_is_committed(&project, &project.path(""));
}

#[test]
fn a_data_root_that_comes_or_goes_takes_its_pointer_with_it() {
    let project = with_data();
    project.write("more/y.bin", "y\n");
    project.write(".gitignore", "/data/\n/out.txt\n/more/\n");
    project.write(".pipeline/pipeline.yaml", WITH_DATA.replace("data/raw]", "data/raw, more]"));
    project.git(&["commit", "--quiet", "--all", "--message=more"]);
    assert_eq!(project.git(&["status", "--porcelain"]), "");
    assert!(project.git(&["ls-files"]).contains(".pipeline/data/more"));
    project.write(".pipeline/pipeline.yaml", WITH_DATA);
    project.git(&["commit", "--quiet", "--all", "--message=less"]);
    assert_eq!(project.git(&["status", "--porcelain"]), "");
    assert!(!project.git(&["ls-files"]).contains(".pipeline/data/more"));
    // A pointer that was never committed goes without a word.
    project.write(".pipeline/pipeline.yaml", WITH_DATA.replace("data/raw]", "data/raw, more]"));
    project.pv_ok(&["snapshot"]);
    assert!(project.exists(".pipeline/data/more"));
    project.write(".pipeline/pipeline.yaml", WITH_DATA);
    project.write("a.txt", "2\n");
    let (good, said) = git(&project, &["commit", "--quiet", "--all", "--message=never"]);
    assert!(good, "{said}");
    assert_eq!(project.git(&["status", "--porcelain"]), "");
}

#[test]
fn pointers_of_another_pipeline_are_left_alone() {
    // Two pipelines in one project, each with data: a snapshot of one removed the pointers of the other.
    let project = with_data();
    project.write(".gitignore", "/data/\n/out.txt\n/other/\n");
    project.write("other/z.csv", "z\n");
    project.write(".pipeline/other.yaml", WITH_DATA.replace("data/raw]", "other]").replace("data/raw/x", "other/z"));
    project.pv_ok(&["snapshot", "--pipeline", "other"]);
    assert!(project.exists(".pipeline/data/other") && project.exists(POINTER));
    project.commit("other");
    project.pv_ok(&["snapshot"]);
    assert_eq!(project.git(&["status", "--porcelain"]), "");
    assert!(project.git(&["ls-files"]).contains(".pipeline/data/other"));
    let (shown, code) = project.json(&["show", "HEAD", "--pipeline", "other"]);
    assert_eq!((code, shown["data"]["other"]["files"].as_u64()), (0, Some(1)), "{shown}");
}

#[test]
fn commit_amend_and_rebase_link_what_they_make() {
    let project = plain();
    for content in ["2\n", "3\n", "4\n"] {
        project.write("a.txt", content);
        project.git(&["commit", "--quiet", "--all", "--message", content.trim()]);
    }
    assert_eq!(links(&project).len(), 3, "the first commit was made before the hooks");
    assert!(project.pv(&["log"]).contains(&project.git(&["rev-parse", "HEAD"])[..10]), "{}", project.pv(&["log"]));
    project.write("a.txt", "5\n");
    project.git(&["commit", "--quiet", "--all", "--amend", "--message=five"]);
    assert!(linked(&project, "HEAD"));
    // Three commits on another base, two of them not as they were.
    project.git(&["branch", "feature"]);
    project.git(&["reset", "--quiet", "--hard", "HEAD~3"]);
    project.write("b.txt", "b\n");
    project.git(&["add", "b.txt"]);
    project.git(&["commit", "--quiet", "--message=base"]);
    project.git(&["switch", "--quiet", "feature"]);
    let old = project.git(&["rev-list", "main..HEAD"]);
    let (good, said) = git(&project, &["rebase", "--quiet", "main"]);
    assert!(good, "{said}");
    let new = project.git(&["rev-list", "main..HEAD"]);
    assert_eq!(new.lines().count(), 3);
    assert!(new.lines().all(|commit| !old.contains(commit)));
    let links = links(&project);
    for commit in new.lines() {
        assert!(links.iter().any(|(linked, _)| linked == commit), "{commit} of the rebase is linked");
    }
}

#[test]
fn a_merge_is_linked_and_brings_the_data_of_the_other_side() {
    let project = with_data();
    project.git(&["switch", "--quiet", "--create", "side"]);
    project.write("data/raw/x.csv", "from the side\n");
    project.git(&["commit", "--quiet", "--allow-empty", "--message=data"]);
    project.git(&["switch", "--quiet", "main"]);
    assert_eq!(project.read("data/raw/x.csv"), "x1\n");
    let (good, said) = git(&project, &["merge", "--quiet", "side"]);
    assert!(good, "{said}");
    assert_eq!(project.read("data/raw/x.csv"), "from the side\n", "a fast-forward: {said}");
    project.git(&["switch", "--quiet", "--create", "other", "HEAD~1"]);
    project.write("b.txt", "b\n");
    project.git(&["add", "b.txt"]);
    project.git(&["commit", "--quiet", "--message=b"]);
    let (good, said) = git(&project, &["merge", "--quiet", "--no-edit", "main"]);
    assert!(good, "{said}");
    assert_eq!(project.read("data/raw/x.csv"), "from the side\n", "a real merge: {said}");
    assert!(linked(&project, "HEAD"), "{said}");
    assert_pointer_is_committed(&project, &project.path(""));
}

#[test]
fn a_rebase_leaves_the_data_of_the_commit_that_it_ends_on() {
    // After a rebase the data was that of the new base, and the next commit took the branch's own data back out.
    let project = with_data();
    project.git(&["switch", "--quiet", "--create", "side"]);
    project.write("data/raw/x.csv", "from the side\n");
    project.git(&["commit", "--quiet", "--allow-empty", "--message=data"]);
    project.git(&["switch", "--quiet", "main"]);
    project.write("b.txt", "b\n");
    project.git(&["add", "b.txt"]);
    project.git(&["commit", "--quiet", "--message=b"]);
    project.git(&["switch", "--quiet", "side"]);
    let (good, said) = git(&project, &["rebase", "--quiet", "main"]);
    assert!(good, "{said}");
    assert_eq!(project.read("data/raw/x.csv"), "from the side\n", "{said}");
    assert_pointer_is_committed(&project, &project.path(""));
}

#[test]
fn a_checkout_brings_the_data_of_its_commit_and_never_overwrites_what_is_in_no_snapshot() {
    let project = with_data();
    project.write("data/raw/x.csv", "x2\n");
    project.write("data/raw/deep/y.csv", "y\n");
    project.git(&["commit", "--quiet", "--allow-empty", "--message=second"]);
    let (_, said) = git(&project, &["checkout", "--quiet", "HEAD~1"]);
    insta::assert_snapshot!(said, @"
    --- stderr
    pv: data `data/raw` brought to 769cf77b8636
    ");
    assert_eq!(project.read("data/raw/x.csv"), "x1\n");
    assert!(!project.exists("data/raw/deep"), "what the commit does not have is gone");
    project.git(&["checkout", "--quiet", "main"]);
    assert_eq!(project.read("data/raw/deep/y.csv"), "y\n");
    project.write("data/raw/x.csv", "precious\n");
    let (good, said) = git(&project, &["checkout", "--quiet", "HEAD~1"]);
    assert!(good);
    insta::assert_snapshot!(said, @"
    --- stderr
    pv: data `data/raw` was changed here and is in no snapshot, so it stays as it is
    ");
    assert_eq!(project.read("data/raw/x.csv"), "precious\n");
    assert_eq!(project.read("data/raw/deep/y.csv"), "y\n");
}

#[test]
fn a_checkout_of_files_does_nothing() {
    let project = with_data();
    project.write("a.txt", "2\n");
    project.git(&["commit", "--quiet", "--all", "--message=second"]);
    std::fs::remove_dir_all(project.path("data")).unwrap();
    let (good, said) = git(&project, &["checkout", "HEAD~1", "--", "a.txt"]);
    assert!(good);
    assert_eq!(said, "");
    assert!(!project.exists("data"));
    // Of a branch, it puts the data back.
    project.git(&["checkout", "--quiet", "--force", "HEAD~1"]);
    assert_eq!(project.read("data/raw/x.csv"), "x1\n");
}

#[test]
fn data_behind_a_link_is_never_replaced_by_a_checkout() {
    let project = with_data();
    let elsewhere = project.beside("elsewhere");
    std::fs::rename(project.path("data/raw"), &elsewhere).unwrap();
    symlink(&elsewhere, project.path("data/raw")).unwrap();
    let (_, said) = git(&project, &["checkout", "--quiet", "--detach", "HEAD"]);
    assert_eq!(said, "", "it is what the pointer says");
    std::fs::write(elsewhere.join("x.csv"), "x2\n").unwrap();
    project.git(&["commit", "--quiet", "--allow-empty", "--message=second"]);
    let (_, said) = git(&project, &["checkout", "--quiet", "HEAD~1"]);
    insta::assert_snapshot!(said, @"
    --- stderr
    pv: data `data/raw` lies behind a link, so it stays as it is
    ");
    assert_eq!(std::fs::read_to_string(elsewhere.join("x.csv")).unwrap(), "x2\n");
    assert!(project.path("data/raw").symlink_metadata().unwrap().is_symlink());
}

#[test]
fn a_clone_has_no_hooks_and_can_commit_without_the_data() {
    let project = with_data();
    let place = project.beside("clone");
    project.git(&["clone", "--quiet", ".", place.to_str().unwrap()]);
    assert!(!place.join(".git/hooks/post-commit").exists());
    project.pv_in(&place, &["hooks", "install"]);
    std::fs::write(place.join("a.txt"), "2\n").unwrap();
    let (good, said) = git_in(&project, &place, &["commit", "--quiet", "--all", "--message=from a clone"]);
    assert!(good, "{said}");
    assert_eq!(said, "");
    let pointer =
        |directory: &Path, revision: &str| project.git_in(directory, &["rev-parse", &format!("{revision}:{POINTER}")]);
    assert_eq!(pointer(&place, "HEAD"), pointer(&project.path(""), "HEAD"), "the pointer stays");
    // A checkout cannot bring data that is nowhere here, and says so.
    let (good, said) = git_in(&project, &place, &["checkout", "--quiet", "HEAD~1"]);
    assert!(good);
    insta::assert_snapshot!(said, @"
    --- stderr
    pv: data `data/raw` (769cf77b8636) is not in this clone's store; `pv pull` gets it from a remote
    ");
}

#[test]
fn a_trailer_names_the_snapshot_of_the_commit_also_of_a_part_of_the_changes() {
    let project = with_data();
    project.git(&["config", "pv.trailer", "true"]);
    let trailer =
        || project.git(&["log", "-1", "--format=%(trailers:key=Pipeline-Snapshot,valueonly)"]).trim().to_owned();
    let snapshot = || project.json(&["show", "HEAD"]).0["snapshot"].as_str().unwrap().to_owned();
    project.write("a.txt", "staged\n");
    project.git(&["add", "a.txt"]);
    project.write("a.txt", "not staged\n");
    project.write("untracked.txt", "u\n");
    project.write("data/raw/x.csv", "x2\n");
    project.git(&["commit", "--quiet", "--message=part"]);
    assert_eq!(trailer(), snapshot());
    assert_eq!(project.read("a.txt"), "not staged\n");
    project.git(&["commit", "--quiet", "--message=one file", "a.txt"]);
    assert_eq!(trailer(), snapshot());
    project.write("data/raw/x.csv", "x3\n");
    project.git(&["commit", "--quiet", "--all", "--amend", "--no-edit"]);
    assert_eq!(trailer(), snapshot(), "one trailer, the new one");
    project.git(&["config", "pv.trailer", "false"]);
    project.git(&["commit", "--quiet", "--allow-empty", "--message=none"]);
    assert_eq!(trailer(), "");
}

#[test]
fn without_pv_a_commit_goes_on_with_a_note() {
    let project = plain();
    for name in ["pre-commit", "prepare-commit-msg", "post-commit", "post-checkout", "post-merge", "post-rewrite"] {
        let script = project.read(&format!(".git/hooks/{name}"));
        let line = script.lines().find(|line| line.starts_with("pv=")).unwrap().to_owned();
        project.write(&format!(".git/hooks/{name}"), script.replace(&line, "pv='/nowhere/bin/pv'"));
    }
    project.write("a.txt", "2\n");
    let (good, said) = git(&project, &["commit", "--quiet", "--all", "--message=without"]);
    assert!(good, "{said}");
    assert!(said.contains("pv: /nowhere/bin/pv is gone; run 'pv hooks install' again"), "{said}");
    assert_eq!(project.git(&["log", "-1", "--format=%s"]), "without");
}

#[test]
fn a_project_in_a_subdirectory_has_its_hooks_too() {
    let project = Sandbox::new();
    project.write("in here/it's/.pipeline/pipeline.yaml", WITH_DATA);
    project.write("in here/it's/data/raw/x.csv", "x1\n");
    project.write("around.txt", "1\n");
    project.write(".gitignore", "data/\n!.pipeline/data/\n");
    let inner = project.path("in here/it's");
    project.pv_in(&inner, &["hooks", "install"]);
    project.commit("first");
    assert_pointer_is_committed(&project, &inner);
    let (shown, _) = project.json_in(&inner, &["show", "HEAD"]);
    assert_eq!(shown["links"][0]["commit"], project.git(&["rev-parse", "HEAD"]).as_str());
    std::fs::write(inner.join("data/raw/x.csv"), "x2\n").unwrap();
    project.git_in(&inner, &["commit", "--quiet", "--allow-empty", "--message=from inside"]);
    assert_pointer_is_committed(&project, &inner);
    project.git(&["checkout", "--quiet", "HEAD~1"]);
    assert_eq!(std::fs::read_to_string(inner.join("data/raw/x.csv")).unwrap(), "x1\n");
}

#[test]
fn trouble_after_the_fact_is_a_warning() {
    let project = plain();
    project.git(&["config", "pv.trailer", "true"]);
    // Where the store should be there is a file.
    std::fs::remove_dir_all(project.path(".git/pv")).unwrap_or_default();
    project.write(".git/pv", "in the way\n");
    project.write("a.txt", "2\n");
    let (good, said) = git(&project, &["commit", "--quiet", "--all", "--message=all the same"]);
    assert!(!good && said.contains("--no-verify"), "a check that cannot be made stops the commit: {said}");
    let (good, said) = git(&project, &["commit", "--quiet", "--all", "--no-verify", "--message=all the same"]);
    assert!(good, "{said}");
    insta::assert_snapshot!(said, @"
    --- stderr
    error: cannot read `[ROOT]/project/.git/pv/FORMAT`
      because: Not a directory (os error 20)
    error: cannot read `[ROOT]/project/.git/pv/FORMAT`
      because: Not a directory (os error 20)
    ");
    assert_eq!(project.git(&["log", "-1", "--format=%s"]), "all the same");
    project.git(&["checkout", "--quiet", "HEAD~1"]);
    project.git(&["merge", "--quiet", "main"]);
    project.git(&["commit", "--quiet", "--no-verify", "--amend", "--message=again"]);
}
