//! Remotes: what is pushed from one clone is pulled, run and compared in another, with nothing of the first in reach.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::sandbox::Sandbox;

const PIPELINE: &str = "\
data: [data/raw.csv]
steps:
  clean:
    run: grep -v bad data/raw.csv > clean.csv
    inputs: [data/raw.csv]
    outputs: [clean.csv]
  count:
    run: wc -l < clean.csv > count.txt; echo counted
    inputs: [clean.csv]
    outputs: [count.txt]
";

/// Returns how a command ended, by what is told of it.
fn exit(told: &str) -> i32 {
    told.rsplit_once("--- exit ").map_or(0, |(_, code)| code.trim().parse().unwrap())
}

/// A project that was run and committed, with a remote in a directory beside it.
fn project() -> (Sandbox, PathBuf) {
    let project = Sandbox::new();
    project.write(".pipeline/pipeline.yaml", PIPELINE);
    project.write(".gitignore", "/data/\n/clean.csv\n/count.txt\n");
    project.write("data/raw.csv", "one\nbad\ntwo\n");
    let share = project.beside("share");
    project.pv_ok(&["remote", "add", "share", share.to_str().unwrap()]);
    project.pv_ok(&["run"]);
    project.pv_ok(&["snapshot"]);
    project.commit("first");
    project.pv_ok(&["snapshot", "--tag", "v1.0"]);
    (project, share)
}

/// A clone with the records of the other, and a store of its own.
fn clone_of(project: &Sandbox, name: &str) -> PathBuf {
    let place = project.beside(name);
    project.git(&["clone", "--quiet", ".", place.to_str().unwrap()]);
    project.git_in(&place, &["fetch", "--quiet", "origin", "refs/pv/meta:refs/pv/meta"]);
    place
}

fn json(project: &Sandbox, place: &Path, args: &[&str]) -> Value {
    let (answer, code) = project.json_in(place, args);
    assert_eq!(code, 0, "{args:?}: {answer}");
    answer
}

/// Takes the store of the project away: what is not in the remote is nowhere.
fn lose_store(project: &Sandbox) {
    std::fs::rename(project.path(".git/pv"), project.beside("lost")).unwrap();
}

#[test]
fn a_clone_replays_bit_for_bit_what_was_pushed_when_the_first_machine_is_gone() {
    let (project, _) = project();
    let sent = project.json(&["push"]).0;
    assert_eq!((sent["remote"].as_str(), sent["missing"].as_u64()), (Some("share"), Some(0)), "{sent}");
    assert!(sent["sent"].as_u64() > Some(5), "{sent}");
    let place = clone_of(&project, "clone");
    lose_store(&project);
    let got = json(&project, &place, &["pull"]);
    // What Git has need not come: the clone takes it from its own commit.
    assert!(got["received"].as_u64() > Some(3) && got["received"].as_u64() < sent["sent"].as_u64(), "{got}");
    assert_eq!(got["missing"], 0, "{got}");
    let run = json(&project, &place, &["run", "v1.0", "--offline"]);
    assert_eq!(run["verdict"], "reproduced", "{run}");
    json(&project, &place, &["checkout", "v1.0", "--offline"]);
    assert_eq!(std::fs::read_to_string(place.join("count.txt")).unwrap().trim(), "2");
    assert_eq!(std::fs::read_to_string(place.join("data/raw.csv")).unwrap(), "one\nbad\ntwo\n");
    let again = json(&project, &place, &["pull"]);
    assert_eq!((again["received"].as_u64(), again["bytes"].as_u64()), (Some(0), Some(0)), "{again}");
}

#[test]
fn a_second_push_sends_nothing_with_two_requests_at_the_most_of_three() {
    let (project, _) = project();
    project.pv_ok(&["push"]);
    let again = project.json(&["push"]).0;
    assert_eq!((again["sent"].as_u64(), again["bytes"].as_u64()), (Some(0), Some(0)), "{again}");
    assert!(again["requests"].as_u64() <= Some(3), "{again}");
}

#[test]
fn commands_get_from_the_remote_what_they_miss_and_say_so_unless_they_are_told_not_to() {
    let (project, _) = project();
    project.pv_ok(&["push"]);
    let place = clone_of(&project, "clone");
    let offline = project.pv_in(&place, &["checkout", "v1.0", "--offline"]);
    assert_eq!(exit(&offline), 4, "{offline}");
    let checkout = project.pv_in(&place, &["checkout", "v1.0", "data"]);
    assert_eq!(exit(&checkout), 0, "{checkout}");
    assert!(checkout.contains("fetched ") && checkout.contains("from remote `share`"), "{checkout}");
    assert_eq!(std::fs::read_to_string(place.join("data/raw.csv")).unwrap(), "one\nbad\ntwo\n");
    // Nothing runs: the results of the other clone are taken, and come from the remote.
    let run = json(&project, &place, &["run"]);
    let verdicts: Vec<_> = run["steps"].as_array().unwrap().iter().map(|step| step["verdict"].clone()).collect();
    assert_eq!(verdicts, ["reused", "reused"], "{run}");
    assert_eq!(std::fs::read_to_string(place.join("count.txt")).unwrap().trim(), "2");
}

#[test]
fn a_diff_fetches_what_tells_of_the_files_and_not_the_files() {
    let (project, _) = project();
    project.write("data/raw.csv", "three\n".repeat(100_000));
    project.pv_ok(&["snapshot"]);
    project.commit("second");
    project.pv_ok(&["push", "HEAD", "v1.0"]);
    let place = clone_of(&project, "clone");
    lose_store(&project);
    let diff = project.pv_in(&place, &["diff", "v1.0", "HEAD"]);
    assert_eq!(exit(&diff), 0, "{diff}");
    assert!(diff.contains("data/raw.csv"), "{diff}");
    let missing = project.pv_in(&place, &["checkout", "HEAD", "data", "--offline"]);
    assert_eq!(exit(&missing), 4, "the data was fetched: {missing}");
}

#[test]
fn a_part_can_be_pulled_the_outputs_of_a_step_or_a_path() {
    let (project, _) = project();
    project.pv_ok(&["push"]);
    let place = clone_of(&project, "clone");
    let step = json(&project, &place, &["pull", "v1.0", "--step", "count"]);
    assert_eq!(step["objects"], 2, "the output and the log: {step}");
    let path = json(&project, &place, &["pull", "v1.0", "--path", "data"]);
    assert!(path["received"].as_u64() < Some(4), "{path}");
    json(&project, &place, &["checkout", "v1.0", "data", "count.txt", "--offline"]);
    assert_eq!(exit(&project.pv_in(&place, &["checkout", "v1.0", "clean.csv", "--offline"])), 4);
    let unknown = project.pv_in(&place, &["pull", "v1.0", "--step", "cuont"]);
    assert_eq!(exit(&unknown), 2, "{unknown}");
}

#[test]
fn a_dry_run_tells_what_would_go_and_moves_nothing() {
    let (project, share) = project();
    let would = project.json(&["push", "--dry-run"]).0;
    assert!(would["sent"].as_u64() > Some(5) && would["bytes"].as_u64() > Some(0), "{would}");
    assert!(!share.exists());
    project.pv_ok(&["push"]);
    let place = clone_of(&project, "clone");
    let would = json(&project, &place, &["pull", "--dry-run"]);
    assert!(would["received"].as_u64() > Some(1), "{would}");
    assert_eq!(exit(&project.pv_in(&place, &["checkout", "v1.0", "data", "--offline"])), 4);
}

#[test]
fn whose_results_count_is_set_and_who_made_one_is_told() {
    let (project, _) = project();
    project.pv_ok(&["push"]);
    let place = clone_of(&project, "clone");
    json(&project, &place, &["checkout", "v1.0", "data"]);
    let reasons = |trust: &str| -> Vec<String> {
        let settings = std::fs::read_to_string(project.path(".pipeline/config.yaml")).unwrap();
        std::fs::write(place.join(".pipeline/config.yaml"), format!("{settings}remote: {{trust: {trust}}}\n")).unwrap();
        let mut grace = project.pv_command_in(&place, &["--json", "run", "--dry-run"]);
        let told =
            grace.env("GIT_COMMITTER_NAME", "Grace").env("GIT_COMMITTER_EMAIL", "grace@example.org").output().unwrap();
        let plan: Value = serde_json::from_slice(&told.stdout).unwrap();
        plan["steps"].as_array().unwrap().iter().map(|step| step["reason"].as_str().unwrap().to_owned()).collect()
    };
    let all = reasons("all");
    assert!(all[0].starts_with("nothing it depends on changed since ") && all[0].contains(" ran it on "), "{all:?}");
    let none = reasons("none");
    assert!(none[0].ends_with(", whose results do not count here"), "{none:?}");
    assert!(reasons("[somebody@example.org]")[0].ends_with(", whose results do not count here"));
    assert_eq!(reasons("[ada@example.org]"), all);
}

#[test]
fn a_share_of_the_results_that_would_be_taken_is_executed_again_and_a_contradiction_is_told() {
    let project = Sandbox::new();
    project.write(".pipeline/pipeline.yaml", "steps:\n  a: {run: date +%s%N > a.txt, inputs: [], outputs: [a.txt]}\n  b: {run: echo b > b.txt, inputs: [], outputs: [b.txt]}\n");
    project.pv_ok(&["run"]);
    let run = project.pv(&["run", "--check-hits", "100%", "--force"]);
    assert!(run.contains("2 steps executed again though the result is known"), "{run}");
    let conflicts = project.json(&["show", "--conflicts"]).0;
    assert!(conflicts.to_string().contains("a.txt") && !conflicts.to_string().contains("b.txt"), "{conflicts}");
    let run = project.pv(&["run", "--check-hits", "1%", "--force"]);
    assert!(run.contains("1 step executed again"), "{run}");
    assert_eq!(exit(&project.pv(&["run", "--check-hits", "300%"])), 2);
}

#[test]
fn remotes_are_added_listed_shown_tried_and_removed() {
    let project = Sandbox::new();
    project.write(".pipeline/pipeline.yaml", "steps: {a: {run: echo a > a, outputs: [a]}}\n");
    let none = project.pv(&["push"]);
    insta::assert_snapshot!(none, @r"
    --- stderr
    error: there is no remote
    hint: `pv remote add NAME ADDRESS` adds one; an address is a directory, s3://, gs://, az://, ssh:// or https://
    --- exit 2
    ");
    project.write(".pipeline/config.yaml", "# ours\nobserve: {inputs: [/data]}\n");
    project.pv_ok(&["remote", "add", "share", "../share"]);
    project.pv_ok(&["remote", "add", "mine", "s3://bucket/pv", "--private"]);
    assert_eq!(
        project.read(".pipeline/config.yaml"),
        "# ours\nobserve: {inputs: [/data]}\nremotes:\n  share: ../share\n"
    );
    insta::assert_snapshot!(project.pv(&["remote"]), @r"
    mine   s3://bucket/pv  private
    share  ../share
    ");
    insta::assert_snapshot!(project.pv(&["push"]), @r"
    --- stderr
    error: it is not said which remote is meant: `mine`, `share`
    hint: name one with `--remote`, or set `default` under `remote` in `.pipeline/config.yaml`
    --- exit 2
    ");
    insta::assert_snapshot!(project.pv(&["remote", "add", "share", "/elsewhere"]), @r"
    --- stderr
    error: remote `share` is already at `../share`
    hint: choose another name, or give it the new address with `--force`
    --- exit 2
    ");
    insta::assert_snapshot!(project.pv(&["remote", "add", "web", "https://ada:secret@host/pv"]), @r"
    --- stderr
    error: the address has a password in it
    hint: leave it out; credentials are taken from where each service keeps them, see `pv remote --help`
    --- exit 2
    ");
    project.pv_ok(&["remote", "remove", "mine"]);
    let check = project.pv(&["remote", "check"]);
    assert_eq!(exit(&check), 0, "{check}");
    for what in ["write", "list", "read", "write only if new", "delete"] {
        assert!(check.contains(&format!("ok {what}\n")), "{check}");
    }
    insta::assert_snapshot!(project.pv(&["remote", "remove", "other"]), @r"
    --- stderr
    error: there is no remote `other`
    hint: the remotes are `share`
    --- exit 2
    ");
    project.pv_ok(&["remote", "remove", "share"]);
    assert_eq!(project.read(".pipeline/config.yaml"), "# ours\nobserve: {inputs: [/data]}\n");
}

#[test]
fn a_damaged_remote_gives_nothing_wrong_and_is_named() {
    let (project, share) = project();
    project.pv_ok(&["push"]);
    let place = clone_of(&project, "clone");
    for entry in
        walkdir::WalkDir::new(share.join("packs")).into_iter().map(Result::unwrap).filter(|e| e.file_type().is_file())
    {
        let mut bytes = std::fs::read(entry.path()).unwrap();
        // Past the headers of the first records, where the bytes of files are.
        for at in (16..bytes.len() - 2000).step_by(40) {
            bytes[at] ^= 0x10;
        }
        std::fs::write(entry.path(), bytes).unwrap();
    }
    let pull = project.pv_in(&place, &["pull"]);
    assert_eq!(exit(&pull), 4, "{pull}");
    assert!(pull.contains("remote `share`: `packs/") && pull.contains("is not what its name says"), "{pull}");
    let fsck = project.pv_in(&place, &["fsck"]);
    assert!(!fsck.contains("corrupt"), "{fsck}");
}

#[test]
fn a_remote_that_a_newer_version_wrote_is_refused() {
    let (project, share) = project();
    project.pv_ok(&["push"]);
    std::fs::write(share.join("FORMAT"), "pv-remote 1\nrequires encryption\n").unwrap();
    let push = project.pv(&["push"]);
    assert_eq!(exit(&push), 2, "{push}");
    assert!(push.contains("remote `share`: the remote requires `encryption`"), "{push}");
    assert!(push.contains("use a newer `pv`"), "{push}");
}

#[test]
fn a_check_without_data_tells_whether_others_can_replay_a_commit() {
    let (project, share) = project();
    let place = clone_of(&project, "clone");
    let check = |args: &[&str]| project.json_in(&place, &[&["check"], args].concat());
    let (before, code) = check(&[]);
    assert_eq!(code, 4, "{before}");
    project.pv_ok(&["push"]);
    let (after, code) = check(&[]);
    assert_eq!(code, 0, "{after}");
    assert!(!place.join(".git/pv/packs").exists(), "something was taken into the store");
    let markdown = project.pv_in(&place, &["check", "--ci"]);
    assert!(markdown.contains("can be replayed") && markdown.contains("| `clean` | 1 |"), "{markdown}");

    std::fs::rename(&share, project.beside("gone")).unwrap();
    assert_eq!(check(&[]).1, 4, "without a remote");
    std::fs::rename(project.beside("gone"), &share).unwrap();

    std::fs::write(place.join("note.md"), "new\n").unwrap();
    project.git_in(&place, &["add", "note.md"]);
    project.git_in(&place, &["commit", "--quiet", "-m", "another"]);
    let (no_run, code) = check(&[]);
    assert_eq!(code, 1, "{no_run}");

    project.git_in(&place, &["rm", "--quiet", "-r", ".pipeline/data"]);
    project.git_in(&place, &["commit", "--quiet", "-m", "no pointer"]);
    let (no_pointer, code) = check(&[]);
    assert_eq!(code, 2, "{no_pointer}");
    assert_eq!(no_pointer["checks"][0]["check"], "pointers", "{no_pointer}");
}

#[test]
fn what_is_lost_here_is_taken_from_the_remote_and_what_is_damaged_there_is_sent_again() {
    let (project, share) = project();
    project.pv_ok(&["push"]);
    let packs = |directory: &Path| -> Vec<PathBuf> {
        let files = walkdir::WalkDir::new(directory).into_iter().map(Result::unwrap);
        files.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path).collect()
    };
    let spoil = |path: &Path| {
        let mut permissions = std::fs::metadata(path).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
        std::fs::set_permissions(path, permissions).unwrap();
        let mut bytes = std::fs::read(path).unwrap();
        // The trailer tells where the records end.
        let end = u64::from_le_bytes(bytes[bytes.len() - 64..bytes.len() - 56].try_into().unwrap());
        (20..usize::try_from(end).unwrap()).step_by(7).for_each(|at| bytes[at] ^= 0x40);
        std::fs::write(path, bytes).unwrap();
    };
    packs(&project.path(".git/pv/packs")).iter().for_each(|path| spoil(path));
    std::fs::remove_file(project.path("data/raw.csv")).unwrap();
    std::fs::remove_file(project.path("clean.csv")).unwrap();
    let (fsck, code) = project.json(&["fsck", "--repair"]);
    assert_eq!(code, 0, "{fsck}");
    assert!(fsck["found"].as_array().unwrap().iter().any(|found| found["origin"] == "remote"), "{fsck}");
    assert_eq!(project.json(&["run", "v1.0", "--offline"]).0["verdict"], "reproduced");

    let (well, code) = project.json(&["fsck", "--remote", "--whole"]);
    assert_eq!((code, well["damaged"].as_array().unwrap().len()), (0, 0), "{well}");
    packs(&share.join("packs")).iter().for_each(|path| spoil(path));
    let (damaged, code) = project.json(&["fsck", "--remote", "share", "--whole"]);
    assert_eq!(code, 4, "{damaged}");
    let (mended, code) = project.json(&["fsck", "--remote", "--whole", "--repair"]);
    assert_eq!((code, mended["repaired"]["lost"].as_u64()), (0, Some(0)), "{mended}");
    assert_eq!(project.json(&["fsck", "--remote", "--whole"]).1, 0);
    let place = clone_of(&project, "clone");
    lose_store(&project);
    json(&project, &place, &["pull"]);
    assert_eq!(json(&project, &place, &["run", "v1.0", "--offline"])["verdict"], "reproduced");
}

#[test]
fn a_remote_gives_back_what_nothing_leads_to_after_the_grace_period() {
    let (project, share) = project();
    project.pv_ok(&["push"]);
    project.write("data/raw.csv", "other\n".repeat(50_000));
    project.pv_ok(&["run"]);
    let dirty = project.json(&["snapshot"]).0["snapshot"].as_str().unwrap().to_owned();
    project.pv_ok(&["push", &dirty[..16]]);
    let gc = |args: &[&str]| project.json(&[&["gc", "--remote", "--keep-days", "0"], args].concat()).0;
    assert_eq!(gc(&["--dry-run"])["condemned"]["packs"], 0, "it is recent, and named by a pointer");
    project.git(&["checkout", "--quiet", "."]);
    let future = |args: &[&str]| {
        let mut pv = project.pv_command(&[&["--json", "gc", "--remote", "--keep-days", "0"], args].concat());
        let told = pv.env("PV_NOW", "2026-06-30T08:00:00Z").output().unwrap();
        serde_json::from_slice::<Value>(&told.stdout).unwrap_or_else(|_| panic!("{}", project.tell(&told)))
    };
    let first = future(&[]);
    assert!(first["condemned"]["packs"].as_u64() > Some(0), "{first}");
    assert_eq!(future(&[])["removed"]["packs"], 0, "the grace period has not ended");
    let second = future(&["--grace-hours", "0"]);
    assert_eq!(second["removed"]["packs"], first["condemned"]["packs"], "{second}");
    assert_eq!(project.json(&["fsck", "--remote", "--whole"]).1, 0);
    let place = clone_of(&project, "clone");
    lose_store(&project);
    json(&project, &place, &["pull"]);
    assert_eq!(json(&project, &place, &["run", "v1.0", "--offline"])["verdict"], "reproduced");
    assert!(share.join("FORMAT").exists());
}

/// A bare repository that the project pushes to as `origin`, with the hooks installed.
fn with_origin(project: &Sandbox, install: &[&str]) -> PathBuf {
    let origin = project.beside("origin.git");
    project.git(&["clone", "--quiet", "--bare", ".", origin.to_str().unwrap()]);
    project.git(&["remote", "add", "origin", origin.to_str().unwrap()]);
    project.pv_ok(&[&["hooks", "install"], install].concat());
    origin
}

#[test]
fn a_git_push_sends_data_and_records_first_and_a_clone_has_all_of_it() {
    let (project, share) = project();
    let origin = with_origin(&project, &[]);
    project.git(&["push", "--quiet", "origin", "HEAD:refs/heads/shared"]);
    assert!(share.join("index").exists(), "data went with the push");
    lose_store(&project);
    let place = project.beside("clone");
    let told = project.pv_in(&project.path("."), &["clone", origin.to_str().unwrap(), place.to_str().unwrap()]);
    assert!(told.contains("with ") && told.contains(" records"), "{told}");
    json(&project, &place, &["pull", "v1.0"]);
    assert_eq!(json(&project, &place, &["run", "v1.0", "--offline"])["verdict"], "reproduced");
    // And back: what is found out there comes here with a pull.
    json(&project, &place, &["checkout", "v1.0", "--offline"]);
    std::fs::write(place.join("data/raw.csv"), "three\n").unwrap();
    json(&project, &place, &["run"]);
    let sent = json(&project, &place, &["push"]);
    assert!(sent["records"].as_u64() > Some(0), "{sent}");
    let got = project.json(&["pull"]).0;
    assert!(got["records"].as_u64() > Some(0), "{got}");
}

#[test]
fn a_push_that_brings_nothing_new_of_the_pipeline_asks_no_remote() {
    let (project, share) = project();
    with_origin(&project, &[]);
    project.git(&["push", "--quiet", "origin", "HEAD:refs/heads/shared"]);
    std::fs::rename(&share, project.beside("gone")).unwrap();
    // It would be made anew if it were asked.
    project.git(&["push", "--quiet", "origin", "HEAD:refs/heads/other"]);
    assert!(!share.exists());
}

#[test]
fn a_remote_that_fails_blocks_a_push_only_where_that_is_asked_for() {
    let (project, share) = project();
    let origin = with_origin(&project, &[]);
    std::fs::write(&share, "a file is in the way").unwrap();
    project.git(&["push", "--quiet", "origin", "HEAD:refs/heads/shared"]);
    assert!(project.git_in(&origin, &["branch", "--list", "shared"]).contains("shared"));
    assert!(
        project.git_in(&origin, &["for-each-ref", "refs/pv"]).contains("refs/pv/meta"),
        "records went all the same"
    );
    project.pv_ok(&["hooks", "install", "--strict"]);
    let push = |branch: &str| {
        let mut git = project.command_in(&project.path("."), "git");
        git.args(["push", "--quiet", "origin", &format!("HEAD:refs/heads/{branch}")]).output().unwrap()
    };
    let told = project.tell(&push("second"));
    assert!(told.contains("--- exit 1") && told.contains("remote `share`"), "{told}");
    assert!(!project.git_in(&origin, &["branch", "--list", "second"]).contains("second"));
    // Without any remote for data, too.
    project.pv_ok(&["remote", "remove", "share"]);
    assert!(!push("third").status.success());
    std::fs::remove_file(&share).unwrap();
    project.pv_ok(&["remote", "add", "share", share.to_str().unwrap()]);
    assert!(push("fourth").status.success());
}

/// Starts `pv` and kills it as soon as there are so many files and directories below `watched`. Returns whether it had ended before.
fn killed_at(project: &Sandbox, place: &Path, arguments: &[&str], watched: &Path, entries: usize) -> bool {
    let mut child = project.pv_command_in(place, arguments);
    child.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut child = child.spawn().unwrap();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            return true;
        }
        if walkdir::WalkDir::new(watched).into_iter().count() >= entries {
            child.kill().unwrap();
            child.wait().unwrap();
            return false;
        }
    }
}

#[test]
fn a_push_and_a_pull_that_are_killed_anywhere_go_on_the_next_time_and_leave_nothing_wrong() {
    let (project, share) = project();
    let bytes: Vec<u8> =
        (0..40_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
    project.write("data/raw.csv", bytes);
    project.pv_ok(&["run"]);
    project.pv_ok(&["snapshot"]);
    project.commit("large");
    let mut killed = 0;
    for entries in 1..30 {
        let done = killed_at(&project, &project.path("."), &["push", "--jobs", "2"], &share, entries);
        killed += usize::from(!done);
        if share.join("FORMAT").exists() {
            assert_eq!(project.json(&["fsck", "--remote", "--whole"]).1, 0, "after a push that stopped at {entries}");
        }
    }
    assert!(killed > 5, "only {killed} were killed");
    project.pv_ok(&["push"]);
    let place = clone_of(&project, "clone");
    lose_store(&project);
    let mut killed = 0;
    for entries in 1..30 {
        let done = killed_at(&project, &place, &["pull", "--no-records"], &place.join(".git/pv"), entries);
        killed += usize::from(!done);
        assert_eq!(project.json_in(&place, &["fsck"]).0["damaged"], Value::Array(Vec::new()));
    }
    assert!(killed > 3, "only {killed} were killed");
    json(&project, &place, &["pull"]);
    assert_eq!(json(&project, &place, &["run", "HEAD", "--offline"])["verdict"], "reproduced");
}
