//! Limits of the system: open files, file systems that cannot be written or not even read.

use super::content::{Kept, files_of};
use super::needs;
use super::place::{Place, end_of, snapshot_in, text_of};

#[test]
fn with_few_open_files_allowed_it_works_or_says_so_and_loses_nothing() {
    let place = Place::in_memory();
    let mut kept = Vec::new();
    for (round, limit) in [8, 12, 16, 20, 24, 32, 48, 64, 256].into_iter().enumerate() {
        let files = files_of(u64::try_from(round).unwrap(), 10_000, 60);
        place.lay(&files);
        for verb in ["snapshot", "run"] {
            let script = format!("ulimit -n {limit}; exec \"$0\" --json {verb}");
            let mut command = place.command("sh", &["-c", &script, env!("CARGO_BIN_EXE_pv")]);
            let output = command.output().unwrap();
            let told = text_of(&output);
            assert!(!told.contains("panicked"), "{limit}, {verb}: {told}");
            assert!(output.status.success() || limit < 256, "{limit}, {verb}: {told}");
            if !output.status.success() {
                assert!(output.status.code().is_some(), "{limit}, {verb}: {told}");
                assert!(told.contains("Too many open files"), "{limit}, {verb}: {told}");
            }
            let snapshot = if output.status.success() { snapshot_in(&output) } else { place.keep(&[verb]) };
            kept.push(Kept { what: format!("{verb} with {limit} files"), snapshot, files: files.clone() });
        }
    }
    place.assert_listed(&kept, usize::MAX);
    kept.iter().step_by(2).for_each(|kept| place.assert_comes_out(kept));
}

#[test]
fn on_a_read_only_file_system_what_was_kept_can_be_seen_and_nothing_else_is_done() {
    let test = "on_a_read_only_file_system_what_was_kept_can_be_seen_and_nothing_else_is_done";
    let mounted = Place::mounted("mount -t tmpfs -o size=64m none $ROOT");
    let Some(place) = needs(test, "root and private mounts", mounted) else { return };
    let files = files_of(1, 10_000, 4);
    place.lay(&files);
    let kept = [Kept { what: "before".to_owned(), snapshot: place.keep(&["snapshot"]), files }];
    place.write("in", b"changed");
    place.sh("mount -o remount,ro \"$ROOT\"");
    place.assert_listed(&kept, usize::MAX);
    for arguments in [&["status"][..], &["diff", &kept[0].snapshot]] {
        let output = end_of(place.pv(arguments).spawn().unwrap());
        assert!(output.status.success(), "{}", text_of(&output));
    }
    for arguments in [&["snapshot"][..], &["run"], &["checkout", "--force", &kept[0].snapshot]] {
        let output = end_of(place.pv(arguments).spawn().unwrap());
        let told = text_of(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {told}");
        assert!(told.contains("Read-only file system") && told.contains("hint: "), "{arguments:?}: {told}");
    }
    place.sh("mount -o remount,rw \"$ROOT\"");
    assert_eq!(std::fs::read(place.path("in")).unwrap(), b"changed");
    place.assert_comes_out(&kept[0]);
}

#[test]
fn where_nothing_can_be_read_any_more_every_command_ends_with_an_error() {
    let test = "where_nothing_can_be_read_any_more_every_command_ends_with_an_error";
    let script = "truncate -s 400M $IMAGE; mkfs.xfs -q -f $IMAGE; mount -o loop $IMAGE $ROOT";
    let Some(place) = needs(test, "a loop-mounted XFS", Place::mounted(script)) else { return };
    let files = files_of(1, 10_000, 4);
    place.lay(&files);
    let snapshot = place.keep(&["snapshot"]);
    let cutter = super::power::armed(&place);
    super::power::fire(cutter);
    let project = place.sh("printf %s \"$ROOT\"") + "/project";
    for arguments in
        [&["log"][..], &["show", &snapshot], &["status"], &["snapshot"], &["run"], &["checkout", &snapshot]]
    {
        let output = end_of(place.pv(&[&["-C", &project], arguments].concat()).spawn().unwrap());
        let told = text_of(&output);
        assert!(output.status.code().is_some_and(|code| code != 0), "{arguments:?}: {told}");
        assert!(told.contains("error: "), "{arguments:?}: {told}");
    }
}
