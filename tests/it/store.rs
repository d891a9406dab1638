//! `pv store`: one store for several clones, and how it gets there.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::sandbox::Sandbox;
use crate::stored::{self, damage, files, later_in};

fn project() -> Sandbox {
    let project = stored::project();
    project.commit("first");
    project.write("data/x", "ours\n".repeat(100));
    project.write("data/large", "0123456789abcdef".repeat(20_000));
    project
}

/// Runs `pv` in a directory a year later: the answer, and what else was said.
fn pv(project: &Sandbox, directory: &Path, arguments: &[&str]) -> (Value, i32, String) {
    let output = later_in(project, directory, &[arguments, &["--json"]].concat()).output().unwrap();
    let answer = serde_json::from_slice(&output.stdout).unwrap();
    (answer, output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn snapshot(project: &Sandbox, directory: &Path, tag: &str) -> String {
    stored::snapshot_in(project, directory, &["--tag", tag])
}

/// Returns in how many files a store keeps objects.
fn packs(store: &Path) -> usize {
    files(&store.join("packs")).len() + files(&store.join("objects")).len()
}

/// A project, a clone of it, and the store that both share. Each has a version of its own that the other does not know.
fn two_that_share() -> (Sandbox, PathBuf, PathBuf, [String; 2]) {
    let project = project();
    let ours = snapshot(&project, &project.path(""), "ours");
    let (clone, shared) = (project.beside("clone"), project.beside("shared"));
    project.git(&["clone", "--quiet", ".", clone.to_str().unwrap()]);
    std::fs::create_dir(clone.join("data")).unwrap();
    std::fs::write(clone.join("data/x"), "theirs\n".repeat(100)).unwrap();
    let theirs = snapshot(&project, &clone, "theirs");
    for directory in [&project.path(""), &clone] {
        let (answer, code, said) = pv(&project, directory, &["store", "move", "../shared"]);
        assert_eq!(code, 0, "{answer} {said}");
        assert_eq!(answer["path"], shared.canonicalize().unwrap().to_str().unwrap());
    }
    (project, clone, shared, [ours, theirs])
}

#[test]
fn two_clones_share_a_store_and_neither_collects_what_the_other_needs() {
    let (project, clone, shared, [ours, theirs]) = two_that_share();
    let here = project.path("");
    assert_eq!((packs(&here.join(".git/pv")), packs(&clone.join(".git/pv"))), (0, 0), "nothing is kept twice");
    for directory in [&here, &clone] {
        let (answer, code, said) = pv(&project, directory, &["gc", "--all", "--undo-days", "0"]);
        assert_eq!(code, 0, "{answer} {said}");
    }
    assert_eq!(pv(&project, &here, &["show", &ours]).1, 0);
    assert_eq!(pv(&project, &clone, &["show", &theirs]).1, 0);
    for directory in [&here, &clone] {
        let (answer, code, _) = pv(&project, directory, &["fsck"]);
        assert_eq!(code, 0, "{answer}");
    }
    let (answer, _, _) = pv(&project, &here, &["store"]);
    assert_eq!(answer["users"].as_array().unwrap().len(), 2, "{answer}");
    assert_eq!(answer["kinds"]["snapshot"]["objects"], 2, "{answer}");
    assert_eq!(answer["packs"]["files"], files(&shared.join("packs")).len());
}

#[test]
fn a_user_that_cannot_be_read_blocks_deletion_until_it_is_forgotten() {
    let (project, clone, _, [ours, theirs]) = two_that_share();
    let here = project.path("");
    let gone = project.beside("gone");
    std::fs::rename(&clone, &gone).unwrap();
    for arguments in [&["gc"][..], &["gc", "--dry-run"]] {
        let (_, code, said) = pv(&project, &here, arguments);
        assert_eq!(code, 4, "{said}");
        assert!(said.contains("clone/.git` of the store cannot be read"), "{said}");
        assert!(said.contains("pv store forget"), "{said}");
    }
    assert_eq!(pv(&project, &here, &["show", &theirs]).1, 0, "nothing was taken away");
    let (_, code, said) = pv(&project, &here, &["store", "forget", "../nobody"]);
    assert_eq!(code, 2, "{said}");
    let (answer, code, said) = pv(&project, &here, &["store", "forget", clone.to_str().unwrap()]);
    assert_eq!(code, 0, "{answer} {said}");
    let (answer, code, said) = pv(&project, &here, &["gc", "--all"]);
    assert_eq!(code, 0, "{answer} {said}");
    assert_eq!(pv(&project, &here, &["show", &ours]).1, 0);
    assert_ne!(pv(&project, &here, &["show", &theirs]).1, 0, "what only the forgotten one needed is gone");
}

#[test]
fn a_user_with_damaged_records_blocks_deletion() {
    let (project, clone, _, _) = two_that_share();
    for path in files(&clone.join(".git/pv/records")) {
        damage(&path, |bytes| *bytes = b"not a record".to_vec());
    }
    let (_, code, said) = pv(&project, &project.path(""), &["gc"]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("clone/.git` of the store cannot be read"), "{said}");
}

#[test]
fn a_store_that_is_not_there_is_an_error_and_no_new_one() {
    let (project, _, shared, [ours, _]) = two_that_share();
    let here = project.path("");
    std::fs::rename(&shared, project.beside("unmounted")).unwrap();
    for arguments in [&["snapshot"][..], &["store"], &["show", &ours]] {
        let (_, code, said) = pv(&project, &here, arguments);
        assert_eq!(code, 4, "{said}");
        assert!(said.contains("there is no store in") && said.contains("pv.storePath"), "{said}");
    }
    assert!(!shared.exists());
    // Who loses the setting is not given an empty store either.
    project.git(&["config", "--unset", "pv.storePath"]);
    let (_, code, said) = pv(&project, &here, &["snapshot"]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("was moved away"), "{said}");
    let unmounted = project.beside("unmounted");
    project.git(&["config", "pv.storePath", unmounted.to_str().unwrap()]);
    assert_eq!(pv(&project, &here, &["show", &ours]).1, 0);
}

#[test]
fn a_move_that_died_goes_on_and_what_differs_is_never_removed() {
    let project = project();
    let here = project.path("");
    let ours = snapshot(&project, &here, "ours");
    let (store, shared) = (here.join(".git/pv"), project.beside("shared"));
    std::fs::create_dir_all(project.beside("full/of/something")).unwrap();
    assert_eq!(pv(&project, &here, &["store", "move", "../full"]).1, 2, "what is no store stays what it is");
    // A file that was copied with an error on the way.
    let pack = files(&store.join("packs")).remove(0);
    let copy = shared.join("packs").join(pack.file_name().unwrap());
    std::fs::create_dir_all(shared.join("packs")).unwrap();
    std::fs::copy(store.join("FORMAT"), shared.join("FORMAT")).unwrap();
    std::fs::copy(&pack, &copy).unwrap();
    damage(&copy, |bytes| bytes[20] ^= 1);
    let (_, code, said) = pv(&project, &here, &["store", "move", "../shared"]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("differs from"), "{said}");
    assert_eq!(pv(&project, &here, &["show", &ours]).1, 0);
    // Half of it was copied, half of a file is left.
    std::fs::copy(&pack, &copy).unwrap();
    #[expect(clippy::disallowed_methods, reason = "it is half of a file")]
    std::fs::write(shared.join("packs/.copy-x.pack.half"), "half").unwrap();
    let (answer, code, said) = pv(&project, &here, &["store", "move", "../shared"]);
    assert_eq!(code, 0, "{answer} {said}");
    assert_eq!((packs(&store), pv(&project, &here, &["show", &ours]).1), (0, 0));
    // It was copied and configured, and died before anything was removed.
    std::fs::create_dir_all(store.join("packs")).unwrap();
    std::fs::copy(&copy, &pack).unwrap();
    std::fs::copy(shared.join("FORMAT"), store.join("FORMAT")).unwrap();
    assert_eq!(pv(&project, &here, &["store", "move", "../shared"]).1, 0);
    assert_eq!((packs(&store), pv(&project, &here, &["show", &ours]).1), (0, 0));
    // And back home.
    let (answer, code, said) = pv(&project, &here, &["store", "move", ".git/pv"]);
    assert_eq!(code, 0, "{answer} {said}");
    assert_eq!((packs(&shared), pv(&project, &here, &["show", &ours]).1), (0, 0));
    assert_eq!(pv(&project, &here, &["fsck"]).1, 0);
}

#[test]
fn a_store_that_another_process_writes_to_is_not_moved() {
    let project = Sandbox::with_pipeline(
        "steps:\n  wait: {inputs: [], outputs: [out], env: [GATE], run: \"while ! test -e $GATE; do sleep 0.01; done; echo > out\"}\n",
    );
    let here = project.path("");
    let gate = project.beside("gate");
    let mut command = project.pv_command(&["run"]);
    let running = command.env("GATE", &gate).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let has_session = || {
        let Ok(mut entries) = std::fs::read_dir(here.join(".git/pv/tmp")) else { return false };
        entries.any(|entry| entry.unwrap().path().is_dir())
    };
    while !has_session() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let (answer, code, _) = pv(&project, &here, &["store", "move", "../shared"]);
    assert_eq!(code, 2, "{answer}");
    let process = format!("is in use by process {}", running.id());
    assert!(answer["error"].as_str().unwrap().ends_with(&process), "{answer}");
    assert!(!project.beside("shared").exists());
    assert_eq!(project.git(&["config", "--default", "none", "pv.storePath"]), "none");
    std::fs::write(gate, "").unwrap();
    let output = running.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", project.tell(&output));
    assert_eq!(pv(&project, &here, &["store", "move", "../shared"]).1, 0);
}

#[test]
fn the_path_of_the_store_is_understood_as_git_understands_paths() {
    let (project, _, shared, [ours, _]) = two_that_share();
    let here = project.path("");
    let home = project.beside("home");
    std::os::unix::fs::symlink(&shared, home.join("store")).unwrap();
    for path in ["~/store", "../../shared", shared.to_str().unwrap()] {
        project.git(&["config", "pv.storePath", path]);
        let (answer, code, said) = pv(&project, &here, &["show", &ours]);
        assert_eq!(code, 0, "{path}: {answer} {said}");
    }
    // Relative to the git directory, not to where one happens to be.
    project.git(&["config", "pv.storePath", "../shared"]);
    let (_, code, said) = pv(&project, &here, &["store"]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("project/.git/../shared`"), "{said}");
    project.git(&["config", "pv.storePath", "~/store"]);
    let mut command = project.pv_command(&["store"]);
    let output = command.env_remove("HOME").env("XDG_CACHE_HOME", project.beside("cache")).output().unwrap();
    insta::assert_snapshot!(project.tell(&output), @"
    --- stderr
    error: cannot understand the path `~/store` of `pv.storePath` in git's configuration
      because: the variable `HOME` is not set
    --- exit 2
    ");
}

#[test]
fn a_store_comes_home_also_where_git_says_another_place_for_all_repositories() {
    let (project, _, shared, [ours, _]) = two_that_share();
    let everywhere = project.beside("everywhere");
    std::fs::write(&everywhere, format!("[pv]\n\tstorePath = {}\n", shared.display())).unwrap();
    let with_it = |arguments: &[&str]| {
        let output = project.pv_command(arguments).env("GIT_CONFIG_GLOBAL", &everywhere).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", project.tell(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    with_it(&["store", "move", ".git/pv"]);
    assert_eq!(project.git(&["config", "pv.storePath"]), "pv");
    assert!(with_it(&["store"]).contains("project/.git/pv\n"));
    with_it(&["show", &ours]);
    with_it(&["store", "move", "../shared"]);
    assert!(with_it(&["store"]).contains("/shared\n"));
}
