//! The hardest users: closed pipes, missing variables, full and read-only disks, odd names, large files.

#![expect(clippy::print_stderr, reason = "what a machine cannot show must be said aloud")]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::run::everything_below;
use crate::sandbox::Sandbox;

const COPY: &str = "steps:\n  copy:\n    inputs: [in]\n    outputs: [out]\n    run: cp in out\n";

fn copying() -> Sandbox {
    let project = Sandbox::with_pipeline(COPY);
    project.write("in", "content\n");
    project.commit("in");
    project
}

fn told(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// Runs `script` by a shell in mount namespace of its own, with the program's path in `$PV`; `None`, said aloud, where that is not allowed.
fn in_private_mounts(project: &Sandbox, test: &str, script: &str) -> Option<Output> {
    let unshare = |script: &str| {
        project
            .command_in(&project.path("."), "unshare")
            .args(["--mount", "--propagation", "private", "sh", "-ec", script])
            .env("PV", env!("CARGO_BIN_EXE_pv"))
            .env("CACHE", project.beside("cache"))
            .output()
    };
    let allowed = unshare("mkdir -p $CACHE; mount -t tmpfs -o size=64k none $CACHE");
    if allowed.as_ref().is_ok_and(|output| output.status.success()) {
        return Some(unshare(script).unwrap());
    }
    eprintln!("{test}: NOT TESTED HERE: this machine allows no private mounts (needs root and `unshare`): {allowed:?}");
    None
}

#[test]
fn a_reader_who_leaves_early_is_no_error_and_no_reason_to_panic() {
    let project = copying();
    project.pv_ok(&["snapshot", "--tag", "v1"]);
    project.pv_ok(&["run"]);
    for arguments in [
        &["log"][..],
        &["status"],
        &["show", "v1"],
        &["diff", "v1", "HEAD"],
        &["schema"],
        &["--json", "log"],
        &["--help"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = project.pv_command(arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!((told(&output).as_str(), output.status.code()), ("", Some(0)), "{arguments:?}");
    }
    let closed = project
        .command_in(&project.path("."), "sh")
        .args(["-c", "exec \"$0\" log >&- 2>&-", env!("CARGO_BIN_EXE_pv")])
        .output()
        .unwrap();
    assert!(closed.status.code().is_some_and(|code| code <= 2), "{closed:?}");
}

#[test]
fn a_run_whose_reader_has_left_goes_on_and_tells_by_its_exit_code_how_it_ended() {
    // It ended at once with 0, having done nothing; and a failure at the end was 0 as well.
    let project = copying();
    let run = |project: &Sandbox| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        project.pv_command(&["run"]).stdout(writer).stderr(Stdio::piped()).output().unwrap()
    };
    let output = run(&project);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!(project.read("out"), "content\n");
    project.write(".pipeline/pipeline.yaml", COPY.replace("cp in out", "exit 9"));
    let output = run(&project);
    assert_eq!(output.status.code(), Some(3), "{}", told(&output));
}

#[test]
fn an_answer_that_cannot_be_written_is_an_error() {
    if !Path::new("/dev/full").exists() {
        eprintln!("an_answer_that_cannot_be_written_is_an_error: NOT TESTED HERE: there is no /dev/full");
        return;
    }
    let project = copying();
    project.pv_ok(&["snapshot"]);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = project.pv_command(&["log"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(told(&output).contains("No space left"), "{}", told(&output));
}

#[test]
fn without_a_home_and_without_a_path_everything_works() {
    let project = copying();
    for missing in [&["HOME", "XDG_CACHE_HOME"][..], &["PATH"], &["HOME", "XDG_CACHE_HOME", "PATH", "TZ", "USER"]] {
        for arguments in [&["snapshot"][..], &["run"], &["run", "HEAD"], &["status"], &["log"]] {
            let mut command = project.pv_command(arguments);
            for name in missing {
                command.env_remove(name);
            }
            let output = command.env("TMPDIR", project.beside("tmp")).output().unwrap();
            assert!(output.status.success(), "{arguments:?} without {missing:?}: {}", project.tell(&output));
            told(&output);
        }
    }
    assert_eq!(project.read("out"), "content\n");
}

#[test]
fn on_a_read_only_store_what_reads_works_and_what_writes_fails_clearly() {
    let project = copying();
    project.pv_ok(&["snapshot", "--tag", "v1"]);
    project.pv_ok(&["run"]);
    project.write("in", "changed\n");
    project.commit("changed");
    project.pv_ok(&["snapshot", "--tag", "v2"]);
    project.write("in", "and changed again\n");
    let before = everything_below(&project.path(".git"));
    let script = "mount --bind .git/pv .git/pv; mount -o remount,ro,bind .git/pv
        for verb in status log 'diff v1 v2' 'diff v1' 'show v1' 'run --dry-run'; do
            echo \"== $verb\"; $PV $verb > /dev/null || echo \"exit $?\"
        done
        for verb in snapshot 'snapshot --tag v3' run; do echo \"== $verb\"; $PV $verb 2>&1 || echo \"exit $?\"; done";
    let name = "on_a_read_only_store_what_reads_works_and_what_writes_fails_clearly";
    let Some(output) = in_private_mounts(&project, name, script) else { return };
    told(&output);
    insta::assert_snapshot!(project.tell(&output), @"
    == status
    == log
    == diff v1 v2
    == diff v1
    == show v1
    == run --dry-run
    == snapshot
    error: cannot open the lock `[ROOT]/project/.git/pv/tmp/lock`
      because: Read-only file system (os error 30)
    hint: the file system is read-only; commands that only read still work
    exit 2
    == snapshot --tag v3
    error: cannot open the lock `[ROOT]/project/.git/pv/tmp/lock`
      because: Read-only file system (os error 30)
    hint: the file system is read-only; commands that only read still work
    exit 2
    == run
    error: cannot open the lock `[ROOT]/project/.git/pv/tmp/lock`
      because: Read-only file system (os error 30)
    hint: the file system is read-only; commands that only read still work
    exit 2
    ");
    assert!(everything_below(&project.path(".git")) == before, "nothing is left behind");
}

#[test]
fn a_full_disk_below_the_store_is_told_and_leaves_nothing_half_written() {
    let project = copying();
    project.write("large", noise(3 << 20));
    std::fs::create_dir_all(project.path(".git/pv")).unwrap();
    let script = "mount -t tmpfs -o size=1m none .git/pv
        $PV snapshot > /dev/null 2> ../told || echo \"exit $?\"
        grep -v because ../told | sed 's/tmp.[0-9-]*.[0-9]*.segment`/(a temporary file)`/'
        echo left: $(find .git/pv/packs .git/pv/objects .git/pv/tmp .git/pv/records -type f 2> /dev/null)
        rm large
        $PV --quiet --json snapshot | grep -c '\"snapshot\"'
        $PV --quiet run > /dev/null; cat out";
    let name = "a_full_disk_below_the_store_is_told_and_leaves_nothing_half_written";
    let Some(output) = in_private_mounts(&project, name, script) else { return };
    told(&output);
    insta::assert_snapshot!(project.tell(&output), @"
    exit 2
    error: cannot write `[ROOT]/project/.git/pv/(a temporary file)`
    hint: free some space and try again; nothing half-written was kept
    left: .git/pv/tmp/lock
    1
    content
    ");
}

#[test]
fn a_full_disk_below_the_place_of_a_run_is_told_and_the_next_run_works() {
    let project = copying();
    project.write("large", noise(3 << 20));
    let script = "mount -t tmpfs -o size=1m none $CACHE
        $PV --quiet run > /dev/null 2> ../told || echo \"exit $?\"
        grep -v because ../told
        echo left: $(find $CACHE -name 'run-*')
        test ! -e out
        rm large
        $PV --quiet run > /dev/null; cat out";
    let name = "a_full_disk_below_the_place_of_a_run_is_told_and_the_next_run_works";
    let Some(output) = in_private_mounts(&project, name, script) else { return };
    told(&output);
    insta::assert_snapshot!(project.tell(&output), @"
    exit 2
    error: cannot write `[ROOT]/cache/pv/work/[PLACE]/tree/large`
    hint: free some space and try again; nothing half-written was kept
    left:
    content
    ");
}

/// Returns bytes that no file system makes smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn names_with_line_breaks_and_bytes_that_are_no_text_go_through_everything() {
    let project = copying();
    project.pv_ok(&["snapshot", "--tag", "v1"]);
    let odd = project.path("new\nline").join(OsStr::from_bytes(b"caf\xe9 \"quoted\".txt"));
    std::fs::create_dir_all(odd.parent().unwrap()).unwrap();
    if std::fs::write(&odd, "odd\n").is_err() {
        eprintln!("names_with_line_breaks...: NOT TESTED HERE: the file system takes text only as names");
        return;
    }
    project.write(
        ".pipeline/pipeline.yaml",
        "steps:\n  odd:\n    outputs: [out]\n    run: |\n      mkdir out; cp -r new* out/; cp \"$(ls -d new*)\"/* out/\n",
    );
    project.commit("odd");
    let clean = project.json(&["snapshot", "--tag", "v2"]).0;
    assert_eq!(clean["dirty"], false);
    let ran = project.json(&["run"]);
    assert_eq!(ran.1, 0, "{}", ran.0);
    let copied = project.path("out").join(OsStr::from_bytes(b"caf\xe9 \"quoted\".txt"));
    assert_eq!(std::fs::read(&copied).unwrap(), b"odd\n");
    assert_eq!(project.json(&["run", "v2"]).0["verdict"], "reproduced");
    let diff = project.pv_command(&["diff", "v1", "v2"]).output().unwrap();
    let text = String::from_utf8(diff.stdout.clone()).unwrap();
    assert!(text.contains(r#"new\x0aline/caf\xe9 "quoted".txt"#), "escaped, so that a line stays a line: {text}");
    for arguments in [&["diff", "v1", "v2"][..], &["status"], &["show", "v2"], &["log"]] {
        project.json(arguments);
        let output = project.pv_command(arguments).output().unwrap();
        assert!(output.status.success(), "{}", project.tell(&output));
    }
    std::fs::remove_file(&odd).unwrap();
    let output = project.pv_command(&["checkout", "v2"]).arg("new\nline").output().unwrap();
    assert!(output.status.success(), "{}", project.tell(&output));
    assert_eq!(std::fs::read(&odd).unwrap(), b"odd\n");
    assert_eq!(project.json(&["snapshot"]).0["snapshot"], clean["snapshot"]);
}

#[test]
fn a_large_file_goes_through_in_bounded_memory() {
    let project = Sandbox::with_pipeline(
        "data: [big]\nsteps:\n  size:\n    inputs: [big]\n    outputs: [size]\n    run: wc -c < big/file > size\n",
    );
    project.write(".gitignore", "/big\n");
    project.write("big/file", "start");
    let file = std::fs::OpenOptions::new().write(true).open(project.path("big/file")).unwrap();
    file.set_len(300 << 20).unwrap();
    let measure = "import resource, subprocess, sys\n\
                   code = subprocess.run(sys.argv[1:], stdout=2).returncode\n\
                   print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)\n";
    for verb in ["snapshot", "run"] {
        let output = project
            .command_in(&project.path("."), "python3")
            .args(["-c", measure, env!("CARGO_BIN_EXE_pv"), verb])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let (code, mebibytes) = text.trim().split_once(' ').unwrap();
        assert_eq!(code, "0", "{}", told(&output));
        let mebibytes: u32 = mebibytes.parse().unwrap();
        assert!((1..100).contains(&mebibytes), "pv {verb} took {mebibytes} MiB");
    }
    assert_eq!(project.read("size").trim(), (300 << 20).to_string());
}

#[test]
fn pipelines_of_other_names_live_side_by_side() {
    let project = copying();
    project.write(
        ".pipeline/train.yaml",
        "version: t1\nsteps:\n  fit:\n    inputs: [in]\n    outputs: [model]\n    run: wc -c < in > model\n",
    );
    project.commit("train");
    assert_eq!(project.json(&["run", "--pipeline", "train"]).0["steps"][0]["step"], "fit");
    assert!(project.exists("model") && !project.exists("out"));
    project.pv_ok(&["--pipeline", "train", "snapshot", "--tag", "t1"]);
    assert_eq!(project.json(&["run", "t1", "--pipeline", "train"]).0["verdict"], "reproduced");
    assert_eq!(project.json(&["run", "--pipeline", "pipeline"]).0["steps"][0]["step"], "copy");
    assert_eq!(project.json(&["status", "--pipeline", "train"]).0["steps"][0]["verdict"], "current");
    insta::assert_snapshot!(project.pv(&["run", "--pipeline", "trian"]), @"
    --- stderr
    error: the working tree has no pipeline `.pipeline/trian.yaml`
    hint: `pv init` makes a first pipeline; `--pipeline NAME` chooses another
    --- exit 2
    ");
}

#[test]
fn it_makes_no_difference_where_in_the_project_one_stands() {
    let project = copying();
    project.write("deep/er/file", "x");
    let at_top = project.json(&["snapshot"]).0;
    for directory in [project.path("deep/er"), project.path(".pipeline"), project.path("deep")] {
        assert_eq!(project.json_in(&directory, &["snapshot"]).0["snapshot"], at_top["snapshot"]);
        assert_eq!(project.json_in(&directory, &["run"]).1, 0);
        assert!(project.exists("out"));
        std::fs::remove_file(project.path("out")).unwrap();
    }
    let outside = project.beside("home");
    let (answer, code) = project.json_in(&outside, &["-C", "../project/deep", "run"]);
    assert_eq!((answer["snapshot"] == at_top["snapshot"], code), (true, 0));
    assert_eq!(project.read("out"), "content\n");
    insta::assert_snapshot!(project.pv_in(&outside, &["run"]), @"
    --- stderr
    error: `[ROOT]/home` is in no git repository
    hint: `git init` makes one
    --- exit 2
    ");
    insta::assert_snapshot!(project.pv(&["-C", "nowhere", "run"]), @"
    --- stderr
    error: directory `[ROOT]/project/nowhere` does not exist
      because: No such file or directory (os error 2)
    --- exit 2
    ");
}

#[test]
fn a_project_may_be_a_part_of_a_repository() {
    let project = Sandbox::new();
    project.write("other/thing", "x");
    project.write("parts/one/.pipeline/pipeline.yaml", COPY);
    project.write("parts/one/in", "one\n");
    project.commit("first");
    let part = project.path("parts/one");
    let (snapshot, _) = project.json_in(&part, &["snapshot", "--tag", "p1"]);
    assert_eq!((&snapshot["dirty"], &snapshot["files"]), (&Value::Bool(false), &Value::from(2)));
    assert_eq!(project.json_in(&part, &["run"]).1, 0);
    assert_eq!(std::fs::read_to_string(part.join("out")).unwrap(), "one\n");
    assert!(!project.exists("out"));
    // What happens elsewhere in the repository is no matter of this project.
    project.write("other/thing", "changed");
    let (again, _) = project.json_in(&part, &["snapshot"]);
    assert_eq!((&again["snapshot"], &again["dirty"]), (&snapshot["snapshot"], &Value::Bool(false)));
    for revision in ["p1", "HEAD"] {
        assert_eq!(project.json_in(&part, &["run", revision]).0["verdict"], "reproduced");
    }
}
