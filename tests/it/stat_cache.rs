//! What is remembered of files saves reading them, and never decides wrongly.

use std::io::{Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::sandbox::Sandbox;

const DEFINITION: &str = "data: [data]\nsteps: {a: {run: 'true'}}\n";

fn project() -> Sandbox {
    let project = Sandbox::with_pipeline(DEFINITION);
    project.write(".gitignore", "/data\n");
    project.write("data/one", "one\n");
    project.write("data/deep/two", "two\n");
    project.commit("first");
    project
}

fn snapshot(project: &Sandbox) -> String {
    project.json(&["snapshot"]).0["snapshot"].as_str().unwrap().to_owned()
}

/// Takes a snapshot of a tree with the same content that nobody ever remembered anything of.
fn anew(project: &Sandbox) -> String {
    std::fs::remove_dir_all(project.path(".git/pv-worktree")).unwrap();
    snapshot(project)
}

fn age(project: &Sandbox, path: &str) {
    let file = std::fs::File::options().write(true).open(project.path(path)).unwrap();
    file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(3600)).unwrap();
}

#[test]
fn an_edit_of_the_same_size_with_its_time_set_back_is_seen() {
    let project = project();
    age(&project, "data/one");
    let first = snapshot(&project);
    assert_eq!(snapshot(&project), first);
    let before = std::fs::metadata(project.path("data/one")).unwrap().modified().unwrap();
    project.write("data/one", "eno\n");
    let file = std::fs::File::options().write(true).open(project.path("data/one")).unwrap();
    file.set_modified(before).unwrap();
    assert!(project.pv(&["status"]).contains("data"), "{}", project.pv(&["status"]));
    let second = snapshot(&project);
    assert_ne!(second, first);
    assert_eq!(anew(&project), second);
}

#[test]
fn a_store_through_a_memory_map_is_seen() {
    let project = project();
    let script = "import mmap, sys
file = open(sys.argv[1], 'r+b')
map = mmap.mmap(file.fileno(), 0)
for letter in b'abcdefgh':
    map[0] = letter
    print(chr(letter), flush=True)
    sys.stdin.readline()
";
    let mut child = Command::new("python3")
        .args(["-c", script])
        .arg(project.path("data/one"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut go, mut said) = (child.stdin.take().unwrap(), std::io::BufReader::new(child.stdout.take().unwrap()));
    let mut seen = std::collections::BTreeSet::new();
    for letter in "abcdefgh".chars() {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut said, &mut line).unwrap();
        assert_eq!(line.trim(), letter.to_string());
        assert!(seen.insert(snapshot(&project)), "the store of `{letter}` was not seen");
        go.write_all(b"\n").unwrap();
    }
    child.wait().unwrap();
}

#[test]
fn another_file_in_its_place_and_another_mode_are_seen() {
    let project = project();
    let first = snapshot(&project);
    project.write("other", "eno\n");
    std::fs::rename(project.path("other"), project.path("data/one")).unwrap();
    let second = snapshot(&project);
    assert_ne!(second, first);
    std::fs::set_permissions(project.path("data/one"), PermissionsExt::from_mode(0o755)).unwrap();
    let third = snapshot(&project);
    assert!(third != second && third != first);
    // Two names of one file change places with another.
    std::fs::hard_link(project.path("data/deep/two"), project.path("data/three")).unwrap();
    let fourth = snapshot(&project);
    std::fs::remove_file(project.path("data/three")).unwrap();
    std::fs::hard_link(project.path("data/one"), project.path("data/three")).unwrap();
    let fifth = snapshot(&project);
    assert_ne!(fifth, fourth);
    assert_eq!(anew(&project), fifth);
}

#[test]
fn writes_in_a_tight_loop_are_all_seen() {
    let project = project();
    let mut file = std::fs::File::options().write(true).open(project.path("data/one")).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..20 {
        file.rewind().unwrap();
        write!(file, "{number:03}").unwrap();
        assert!(seen.insert(snapshot(&project)), "write {number} was not seen");
    }
}

#[test]
fn a_lost_or_damaged_memory_changes_no_answer() {
    let project = project();
    age(&project, "data/one");
    age(&project, "data/deep/two");
    // The change time cannot be set back, so what was just made is remembered a moment later.
    std::thread::sleep(std::time::Duration::from_millis(60));
    let id = snapshot(&project);
    let memory = || {
        let listed = std::fs::read_dir(project.path(".git/pv-worktree")).unwrap().map(|entry| entry.unwrap().path());
        listed.into_iter().find(|path| path.to_string_lossy().contains("seen-")).expect("something was remembered")
    };
    let bytes = std::fs::read(memory()).unwrap();
    assert!(bytes.len() > 200, "both files are remembered");
    for damaged in [&b""[..], b"nonsense", &bytes[..bytes.len() / 2], &[&bytes[..], b"x"].concat()] {
        std::fs::write(memory(), damaged).unwrap();
        assert_eq!(snapshot(&project), id);
    }
    let mut flipped = bytes.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    std::fs::write(memory(), flipped).unwrap();
    assert_eq!(snapshot(&project), id);
    assert_eq!(anew(&project), id);
}

#[test]
fn a_file_that_is_remembered_is_not_read_but_is_put_again_into_an_emptied_store() {
    let project = project();
    age(&project, "data/one");
    std::thread::sleep(std::time::Duration::from_millis(60));
    let id = snapshot(&project);
    // A file that nobody may read is taken all the same, because it need not be read: for others than root.
    std::fs::remove_dir_all(project.path(".git/pv/packs")).unwrap();
    std::fs::create_dir(project.path(".git/pv/packs")).unwrap();
    assert_eq!(snapshot(&project), id);
    std::fs::remove_dir_all(project.path("data")).unwrap();
    project.pv_ok(&["checkout", &id]);
    assert_eq!(project.read("data/one"), "one\n");
    assert_eq!(project.read("data/deep/two"), "two\n");
}

#[test]
fn status_says_the_same_when_the_store_was_emptied() {
    let project = Sandbox::with_pipeline("data: [data]\nsteps: {a: {run: python main.py, inputs: [data]}}\n");
    project.write(".gitignore", "/data\n");
    project.write("data/one", "one\n");
    // What a program imports is read out of the store.
    project.write("main.py", "import helper\n");
    project.write("helper.py", "");
    project.commit("first");
    for path in ["data/one", "main.py", "helper.py"] {
        age(&project, path);
    }
    snapshot(&project);
    // The id and the step; what the commit had of the data was lost, and counts as added.
    let told = || project.pv(&["status"]).lines().take(2).map(str::to_owned).collect::<Vec<_>>();
    let before = told();
    std::fs::remove_dir_all(project.path(".git/pv/packs")).unwrap();
    assert_eq!(told(), before);
}

#[test]
fn what_vanished_is_forgotten_and_what_comes_is_taken() {
    let project = project();
    let first = snapshot(&project);
    std::fs::rename(project.path("data/deep"), project.path("data/other")).unwrap();
    let second = snapshot(&project);
    assert_ne!(second, first);
    std::fs::rename(project.path("data/other"), project.path("data/deep")).unwrap();
    assert_eq!(snapshot(&project), first);
    std::fs::create_dir(project.path("data/empty")).unwrap();
    assert_ne!(snapshot(&project), first);
    std::fs::remove_dir(project.path("data/empty")).unwrap();
    assert_eq!(snapshot(&project), first);
}
