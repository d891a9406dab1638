//! Laws that hold between this room and the real `git`: the same files, the same changes, the same bytes.

use std::collections::BTreeMap;

use super::fixture::{Scratch, odd_name, path, records};
use super::{CommitId, FileKind, GitError, Repository};
use crate::path::ProjectPath;

type Kinds = BTreeMap<ProjectPath, FileKind>;

/// Returns what git would commit if all there is were added, of which it need not commit anything.
fn added_by_git(scratch: &Scratch) -> Kinds {
    let index = scratch.beside("index-of-everything");
    let run = |arguments: &[&str]| {
        let mut command = scratch.command("git".as_ref(), &scratch.root);
        command.args(arguments).env("GIT_INDEX_FILE", &index).output().unwrap().stdout
    };
    let own = scratch.root.join(".git/index");
    if own.exists() {
        std::fs::copy(own, &index).unwrap();
    }
    run(&["add", "--all"]);
    // Git makes new entries of untracked files only; conflicts are settled by adding.
    kinds(&run(&["ls-files", "--stage", "-z"]), b'\t')
}

/// Reads records of `mode [type] id [stage]<tab>path`.
fn kinds(output: &[u8], separator: u8) -> Kinds {
    let mut out = BTreeMap::new();
    for record in records(output) {
        let tab = record.iter().position(|byte| *byte == separator).unwrap();
        let fields: Vec<&str> = std::str::from_utf8(&record[..tab]).unwrap().split_whitespace().collect();
        let id = fields.iter().find(|field| field.len() >= 40).unwrap();
        let kind = match fields[0] {
            "100644" => FileKind::File { executable: false },
            "100755" => FileKind::File { executable: true },
            "120000" => FileKind::Symlink,
            "160000" => FileKind::Submodule(id.parse().unwrap()),
            mode => panic!("{mode}"),
        };
        out.insert(path(&record[tab + 1..]), kind);
    }
    out
}

fn working(repository: &Repository, prefix: Option<&ProjectPath>) -> Kinds {
    let files = repository.working_files(prefix).unwrap();
    let listed = files.files();
    assert!(listed.is_sorted_by(|left, right| left.0 < right.0));
    listed.iter().map(|(path, file)| (path.clone(), file.kind)).collect()
}

fn committed(repository: &Repository, commit: &CommitId, prefix: Option<&ProjectPath>) -> Kinds {
    let files = repository.commit_files(commit, prefix).unwrap();
    let listed = files.files();
    assert!(listed.is_sorted_by(|left, right| left.0 < right.0));
    listed.iter().map(|(path, file)| (path.clone(), file.kind)).collect()
}

fn changed_by_git(scratch: &Scratch) -> Vec<ProjectPath> {
    let output = scratch.git(&["status", "--porcelain", "-uall", "--no-renames", "--ignore-submodules=none", "-z"]);
    let mut paths: Vec<_> = records(&output).iter().map(|record| path(&record[3..])).collect();
    paths.sort();
    // Removed from the index and untracked are two records of one path.
    paths.dedup();
    paths
}

/// What all laws of listing are about.
#[track_caller]
fn assert_as_git_says(scratch: &Scratch) {
    let repository = scratch.repository();
    assert_eq!(working(&repository, None), added_by_git(scratch));
    assert_eq!(repository.changed_paths(None).unwrap(), changed_by_git(scratch));
    if let Some(commit) = repository.head().unwrap().commit {
        let tree = scratch.git(&["ls-tree", "-r", "-z", "HEAD"]);
        assert_eq!(committed(&repository, &commit, None), kinds(&tree, b'\t'));
    }
    for name in ["a", "lib", "lib/deep", "sub", "none"] {
        let prefix = path(name);
        let below = |kinds: Kinds| -> Kinds {
            kinds.into_iter().filter_map(|(path, kind)| Some((path.strip(&prefix)?, kind))).collect()
        };
        assert_eq!(working(&repository, Some(&prefix)), below(added_by_git(scratch)), "below {name}");
        let changed: Vec<_> = changed_by_git(scratch).iter().filter_map(|path| path.strip(&prefix)).collect();
        assert_eq!(repository.changed_paths(Some(&prefix)).unwrap(), changed, "below {name}");
        if let Some(commit) = repository.head().unwrap().commit {
            let all = committed(&repository, &commit, None);
            assert_eq!(committed(&repository, &commit, Some(&prefix)), below(all), "below {name}");
        }
    }
}

/// A working tree with something of everything, all committed.
fn furnish(scratch: &Scratch) {
    for name in ["a/one", "a/two", "a.txt", "a-b", "lib/deep/x", "lib/deep/y", "lib/z", "top", "will-be/file", "old"] {
        scratch.write(name, name);
    }
    scratch.write(odd_name(), "odd");
    scratch.write("run.sh", "#!/bin/sh\n");
    scratch.make_executable("run.sh");
    scratch.link("nowhere", "dangling");
    scratch.link("a", "to-a");
    scratch.write(".gitignore", "*.tmp\nbuild/\n");
    scratch.write("kept.tmp", "tracked though ignored");
    scratch.git(&["add", "--force", "kept.tmp"]);
    scratch.commit("first");
}

/// Every kind of change that a working tree can have.
fn make_a_mess(scratch: &Scratch) {
    scratch.write("a/one", "modified");
    scratch.write("a/two", "staged");
    scratch.git(&["add", "a/two"]);
    scratch.write("a/new", "untracked");
    scratch.write("lib/deep/new", "untracked");
    scratch.write("lib/deep/no.tmp", "ignored");
    scratch.write("build/out", "ignored");
    scratch.write("fresh/deep/file", "untracked");
    scratch.write("meant", "to be added");
    scratch.git(&["add", "--intent-to-add", "meant"]);
    scratch.git(&["rm", "--quiet", "--cached", "a.txt"]);
    scratch.git(&["mv", "top", "moved"]);
    scratch.remove("lib/z");
    scratch.make_executable("a-b");
    scratch.remove("dangling");
    scratch.write("dangling", "now a file");
    scratch.remove("old");
    scratch.write("old/file", "now a directory");
    scratch.remove("will-be");
    scratch.link("a", "will-be");
    scratch.write("empty/gone", "");
    scratch.remove("empty/gone");
    rustix::fs::mkfifoat(rustix::fs::CWD, scratch.root.join("pipe"), rustix::fs::Mode::RUSR).unwrap();
}

#[test]
fn files_and_changes_are_those_of_git_in_clean_and_messy_trees_of_both_hashes() {
    for options in [&["--object-format=sha1"], &["--object-format=sha256"]] {
        let scratch = Scratch::with(options);
        scratch.write("a/one", "x");
        scratch.git(&["add", "a"]);
        scratch.write("a/two", "y");
        assert_as_git_says(&scratch);
        furnish(&scratch);
        assert_as_git_says(&scratch);
        assert_eq!(scratch.repository().changed_paths(None).unwrap(), []);
        make_a_mess(&scratch);
        assert_as_git_says(&scratch);
    }
}

#[test]
fn a_conflict_lists_each_file_once() {
    let scratch = Scratch::new();
    scratch.write("a/file", "base");
    scratch.commit("base");
    scratch.git(&["switch", "--quiet", "--create", "side"]);
    scratch.write("a/file", "side");
    scratch.commit("side");
    scratch.git(&["switch", "--quiet", "main"]);
    scratch.write("a/file", "main");
    scratch.commit("main");
    let merge = scratch.command("git".as_ref(), &scratch.root).args(["merge", "side"]).output().unwrap();
    assert!(!merge.status.success());
    assert_as_git_says(&scratch);
}

#[test]
fn without_trust_in_file_modes_the_executable_bit_is_that_of_git() {
    let scratch = Scratch::new();
    furnish(&scratch);
    scratch.git(&["config", "core.fileMode", "false"]);
    scratch.make_executable("a/one");
    scratch.write("a/new", "untracked");
    scratch.make_executable("a/new");
    std::fs::set_permissions(scratch.root.join("run.sh"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let files = working(&scratch.repository(), None);
    assert_eq!(files[&path("run.sh")], FileKind::File { executable: true });
    assert_eq!(files[&path("a/one")], FileKind::File { executable: false });
    assert_as_git_says(&scratch);
}

#[test]
fn submodules_stand_with_the_commit_that_is_checked_out_in_them() {
    let inner = Scratch::new();
    inner.write("file", "1");
    let old = inner.commit("inner first");
    inner.write("file", "2");
    let new = inner.commit("inner second");
    let scratch = Scratch::new();
    scratch.git(&["submodule", "--quiet", "add", inner.root.to_str().unwrap(), "lib/sub"]);
    scratch.commit("with a submodule");
    assert_as_git_says(&scratch);
    assert_eq!(working(&scratch.repository(), None)[&path("lib/sub")], FileKind::Submodule(new));

    let checkout = scratch.root.join("lib/sub");
    scratch.git_in(&checkout, &["checkout", "--quiet", &old.to_string()]);
    assert_eq!(working(&scratch.repository(), None)[&path("lib/sub")], FileKind::Submodule(old));
    assert_as_git_says(&scratch);

    scratch.git_in(&checkout, &["checkout", "--quiet", &new.to_string()]);
    scratch.write("lib/sub/untracked", "x");
    scratch.git(&["config", "submodule.lib/sub.ignore", "all"]);
    assert_eq!(scratch.repository().changed_paths(None).unwrap(), [path("lib/sub")]);
    assert_as_git_says(&scratch);

    scratch.git(&["submodule", "--quiet", "deinit", "--force", "lib/sub"]);
    assert_eq!(working(&scratch.repository(), None)[&path("lib/sub")], FileKind::Submodule(new));
    assert_as_git_says(&scratch);

    scratch.remove("lib/sub");
    assert_as_git_says(&scratch);
}

#[test]
fn an_untracked_repository_stands_with_its_commit_and_needs_one() {
    let scratch = Scratch::new();
    scratch.commit("first");
    scratch.git(&["init", "--quiet", "lib/nested"]);
    scratch.write("lib/nested/file", "x");
    let error = scratch.repository().working_files(None).err().unwrap();
    assert!(matches!(error, GitError::NestedWithoutCommit { path: nested } if nested == path("lib/nested")));
    let nested = scratch.root.join("lib/nested");
    scratch.git_in(&nested, &["-c", "user.name=x", "-c", "user.email=x", "commit", "--quiet", "--allow-empty", "-mx"]);
    assert_as_git_says(&scratch);
}

/// Files whose bytes depend on line endings, attributes and filters.
const TEXTS: [(&str, &[u8]); 9] = [
    ("lf.txt", b"one\ntwo\n"),
    ("crlf.txt", b"one\r\ntwo\r\n"),
    ("mixed.txt", b"one\r\ntwo\n"),
    ("lone.txt", b"one\rtwo\r\n"),
    ("binary.dat", b"one\r\n\0two\n"),
    ("run.bat", b"echo one\necho two\n"),
    ("source.c", b"/* $Id$ $Id: old $ $Id: a.c 1.2 Ada $ */\nint x;\n"),
    ("note.up", b"quiet\n"),
    ("wide.u16", "na\u{ef}ve \u{1f600}\nline\n".as_bytes()),
];

/// Commits [`TEXTS`] under `attributes` (as git cleans them), applies `settings`, and checks everything out anew.
fn checked_out(attributes: &str, settings: &[(&str, &str)]) -> Scratch {
    let scratch = Scratch::new();
    for (name, bytes) in TEXTS {
        scratch.write(name, bytes);
        scratch.write(format!("sub/{name}"), bytes);
    }
    // Committed before there are attributes: `crlf.txt` has its carriage returns in the repository too.
    scratch.commit("bytes as they are");
    scratch.write(".gitattributes", attributes);
    scratch.write("sub/.gitattributes", "lf.txt eol=crlf\n");
    // The files are not cleaned anew: some are in the repository as git would not put them there.
    scratch.git(&["add", ".gitattributes", "sub/.gitattributes"]);
    scratch.git(&["commit", "--quiet", "--message=attributes"]);
    for (key, value) in settings {
        scratch.git(&["config", key, value]);
    }
    for (name, _) in TEXTS {
        scratch.remove(name);
        scratch.remove(&format!("sub/{name}"));
    }
    scratch.git(&["checkout", "--quiet", "--force", "--", "."]);
    scratch
}

/// The bytes that a snapshot holds of each file, from the commit and from the working tree.
fn both_ways(repository: &Repository) -> [BTreeMap<ProjectPath, Vec<u8>>; 2] {
    let commit = repository.head().unwrap().commit.unwrap();
    let files = repository.commit_files(&commit, None).unwrap();
    let mut reader = files.reader().unwrap();
    let committed =
        files.files().iter().map(|(path, file)| (path.clone(), reader.bytes(path, file).unwrap())).collect();
    let files = repository.working_files(None).unwrap();
    let mut reader = files.reader().unwrap();
    let root = repository.work_directory().unwrap();
    let working = files.files().iter().map(|(path, file)| {
        let converted = if file.normalised { reader.converted(path).unwrap() } else { None };
        (path.clone(), converted.unwrap_or_else(|| std::fs::read(path.under(root)).unwrap()))
    });
    [committed, working.collect()]
}

#[test]
fn a_clean_checkout_has_the_bytes_of_its_commit_whatever_converts_line_endings() {
    let attributes = [
        "",
        "* text=auto\n",
        "* text=auto eol=crlf\n",
        "* text\n*.dat -text\n*.u16 -text\n",
        "*.bat eol=crlf\n*.c ident\n",
        "* text=auto\n*.bat text eol=crlf\n*.c ident\n*.txt -text\n*.dat binary\n",
        "[attr]windows text eol=crlf\n*.bat windows\n*.txt crlf=input\n",
        "*.u16 text working-tree-encoding=UTF-16LE-BOM\n",
        "*.u16 text working-tree-encoding=utf-16\n*.c working-tree-encoding=ISO-8859-1\n",
    ];
    let settings: [&[(&str, &str)]; 5] = [
        &[],
        &[("core.autocrlf", "true")],
        &[("core.autocrlf", "input")],
        &[("core.eol", "crlf")],
        &[("core.autocrlf", "true"), ("core.safecrlf", "true")],
    ];
    for attributes in attributes {
        for settings in settings {
            // A file in an encoding of its own is taken as it is on disk, where settings may have changed its line endings.
            if attributes.contains("encoding") && !settings.is_empty() {
                continue;
            }
            let scratch = checked_out(attributes, settings);
            let [committed, working] = both_ways(&scratch.repository());
            let by_git = neutral_checkout(&scratch);
            for (path, bytes) in &committed {
                let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
                let found = (text(bytes), text(&working[path]));
                assert_eq!(found, (text(&by_git[path]), text(&by_git[path])), "{path} {attributes:?} {settings:?}");
            }
            assert_eq!((committed.len(), working.len()), (by_git.len(), by_git.len()));
        }
    }
}

/// What git itself checks out without any setting of line endings, and with the filters of the fixture.
fn neutral_checkout(scratch: &Scratch) -> BTreeMap<ProjectPath, Vec<u8>> {
    let clone = scratch.beside("neutral");
    let filters = ["-c", "filter.loud.smudge=tr a-z A-Z", "-c", "filter.loud.clean=tr A-Z a-z"];
    scratch.git(&[&filters[..], &["clone", "--quiet", ".", clone.to_str().unwrap()]].concat());
    let listed = scratch.git_in(&clone, &["ls-files", "-z"]);
    records(&listed).iter().map(|name| (path(name), std::fs::read(path(name).under(&clone)).unwrap())).collect()
}

#[test]
fn filter_programs_count_on_both_ways() {
    let filter = [("filter.loud.smudge", "tr a-z A-Z"), ("filter.loud.clean", "tr A-Z a-z")];
    let scratch = checked_out("* text=auto\n*.up filter=loud\n", &filter);
    let [committed, working] = both_ways(&scratch.repository());
    assert_eq!(committed[&path("note.up")], b"QUIET\n");
    assert_eq!(committed, working);
    assert_eq!(committed, neutral_checkout(&scratch));
}

#[test]
fn attributes_count_that_are_kept_outside_of_the_tree_or_ignored() {
    let scratch = checked_out("", &[]);
    scratch.write(".git/info/attributes", "*.bat eol=crlf\n");
    scratch.write("new/.gitattributes", "*.txt text\n");
    scratch.write("new/.gitignore", ".gitattributes\n");
    scratch.write("new/file.txt", "one\r\n");
    let repository = scratch.repository();
    let [committed, working] = both_ways(&repository);
    assert_eq!(committed[&path("run.bat")], b"echo one\r\necho two\r\n");
    assert_eq!(working[&path("run.bat")], b"echo one\r\necho two\r\n");
    assert_eq!(working[&path("new/file.txt")], b"one\n");
}

#[test]
fn without_anything_that_converts_no_file_is_to_be_normalised() {
    let scratch = Scratch::new();
    furnish(&scratch);
    scratch.write("crlf.txt", "one\r\n");
    let files = scratch.repository();
    let files = files.working_files(None).unwrap();
    assert!(files.files().iter().all(|(_, file)| !file.normalised));
}

#[test]
fn what_a_reader_cannot_give_is_refused() {
    let inner = Scratch::new();
    inner.commit("inner");
    let scratch = Scratch::new();
    scratch.git(&["submodule", "--quiet", "add", inner.root.to_str().unwrap(), "sub"]);
    scratch.link("nowhere", "link");
    let commit = scratch.commit("first");
    let repository = scratch.repository();
    let files = repository.commit_files(&commit, None).unwrap();
    let mut reader = files.reader().unwrap();
    let mut read = |name: &str| {
        let (path, file) = files.files().iter().find(|(found, _)| *found == path(name)).unwrap();
        reader.bytes(path, file)
    };
    assert_eq!(read("link").unwrap(), b"nowhere");
    assert!(matches!(read("sub"), Err(GitError::NotAFile { path: named }) if named == path("sub")));
}

#[test]
fn a_commit_with_a_path_that_leaves_the_tree_is_refused() {
    let scratch = Scratch::new();
    scratch.write("evil", "x");
    scratch.commit("first");
    let blob = scratch.line(&["rev-parse", "HEAD:evil"]);
    scratch.write("tree", format!("100644 blob {blob}\t..\n"));
    let make = "git commit-tree -m evil $(git mktree < tree)";
    let output = scratch.command("sh".as_ref(), &scratch.root).args(["-c", make]).output().unwrap();
    let commit: CommitId = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    let error = scratch.repository().commit_files(&commit, None).err().unwrap();
    assert!(matches!(error, GitError::UnsupportedPath { path } if path == ".."));
}
