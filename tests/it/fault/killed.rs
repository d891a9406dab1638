//! Processes that are killed or stopped at any moment, and what those beside them and after them see.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::content::{Files, Kept, Numbers, files_of};
use super::place::{Place, end_of, snapshot_in, text_of};

const ROUNDS: u64 = 200;
/// The newest of what was acknowledged is looked at after so many rounds.
const ROUNDS_PER_QUICK_CHECK: u64 = 5;
/// All of it is, after so many.
const ROUNDS_PER_FULL_CHECK: u64 = 50;
/// So many entries the dead may leave, all in all, before somebody sweeps.
const LEFT_MAX: usize = 60;

/// Returns how many files and directories lie in the store outside of what is kept for good.
fn left_over(place: &Place) -> usize {
    let below = |name: &str| walkdir::WalkDir::new(place.path(name)).min_depth(1).into_iter().flatten().count();
    let hidden = walkdir::WalkDir::new(place.path(".git/pv")).into_iter().flatten();
    below(".git/pv/tmp")
        + below(".git/pv/open")
        + below(".git/pv/leases")
        + hidden.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b".")).count()
}

#[test]
fn two_hundred_sudden_deaths_beside_others_at_work_lose_nothing_that_was_acknowledged() {
    let place = Place::in_memory();
    let mut numbers = Numbers::new(9);
    let mut kept: Vec<Kept> = Vec::new();
    let start = |verb: &str| place.pv(&["--json", verb]).spawn().unwrap();
    place.lay(&files_of(10_000, 20_000, 4));
    let clock = Instant::now();
    place.keep(&["snapshot"]);
    let whole = clock.elapsed();
    let mut killed = 0;
    for round in 0..ROUNDS {
        let files = files_of(round, 20_000, 4);
        place.lay(&files);
        let beside = if round % 4 == 3 { "run" } else { "snapshot" };
        let (mut first, second) = (start("snapshot"), start(beside));
        std::thread::sleep(numbers.part_of(whole));
        let _ = first.kill();
        // Every other round, the one beside it dies too.
        let mut second = second;
        if round % 2 == 0 {
            let _ = second.kill();
        }
        for (child, verb) in [(first, "snapshot"), (second, beside)] {
            let output = end_of(child);
            let was_killed = output.status.code().is_none();
            killed += u32::from(was_killed);
            assert!(was_killed || output.status.success(), "round {round}, {verb}: {}", text_of(&output));
            // Nobody waits for what the dead left in Git's places.
            assert!(!text_of(&output).contains("were not exchanged"), "round {round}, {verb}: {}", text_of(&output));
            if !was_killed {
                let what = format!("round {round}, {verb}");
                kept.push(Kept { what, snapshot: snapshot_in(&output), files: files.clone() });
            }
        }
        if let Some(kept) = kept.last().filter(|_| round % ROUNDS_PER_QUICK_CHECK == 0) {
            let output = end_of(place.pv(&["show", &kept.snapshot]).spawn().unwrap());
            assert!(output.status.success(), "round {round}: {}", text_of(&output));
        }
        if round % ROUNDS_PER_FULL_CHECK == ROUNDS_PER_FULL_CHECK - 1 {
            place.assert_listed(&kept, 10);
            check_some(&place, &kept, &mut numbers);
        }
        let left = left_over(&place);
        assert!(left < LEFT_MAX, "round {round}: {left} files are left by the dead");
    }
    assert!(killed > 50 && kept.len() > 50, "{killed} were killed, {} ended well", kept.len());
    let files = files_of(20_000, 20_000, 4);
    place.lay(&files);
    kept.push(Kept { what: "after all".to_owned(), snapshot: place.keep(&["snapshot"]), files });
    place.assert_listed(&kept, 20);
    place.assert_comes_out(kept.last().unwrap());
    place.sh("git fsck --strict");
}

/// Checks the newest and a few others.
fn check_some(place: &Place, kept: &[Kept], numbers: &mut Numbers) {
    let count = u64::try_from(kept.len()).unwrap();
    let others = (0..5).map(|_| usize::try_from(numbers.next() % count).unwrap());
    for index in others.chain([kept.len() - 1]) {
        place.assert_comes_out(&kept[index]);
    }
}

#[test]
fn a_stopped_writer_stops_nobody_else_and_may_go_on_later() {
    let place = Place::in_memory();
    place.lay(&files_of(0, 2_000_000, 20));
    place.keep(&["snapshot"]);
    let mut numbers = Numbers::new(4);
    let clock = Instant::now();
    place.keep(&["snapshot"]);
    let whole = clock.elapsed();
    for round in 1..=8 {
        let files = files_of(round, 2_000_000, 20);
        place.lay(&files);
        let stopped = place.pv(&["--json", "snapshot"]).spawn().unwrap();
        std::thread::sleep(numbers.part_of(whole));
        signal("-STOP", &stopped);
        let beside = Kept { what: format!("beside {round}"), snapshot: place.keep(&["snapshot"]), files };
        place.keep(&["run"]);
        signal("-CONT", &stopped);
        let output = end_of(stopped);
        assert!(output.status.success(), "round {round}: {}", text_of(&output));
        assert_eq!(snapshot_in(&output), beside.snapshot);
        place.assert_comes_out(&beside);
    }
}

#[test]
fn a_writer_that_is_stopped_as_it_gets_a_lock_stops_nobody_else() {
    let place = Place::in_memory();
    place.lay(&files_of(0, 20_000, 3));
    place.keep(&["snapshot"]);
    let trace = place.path("../trace");
    let mut stopped_at = 0;
    for call in 1.. {
        let files = files_of(call, 20_000, 3);
        place.lay(&files);
        // Dead sessions are swept, which takes their locks.
        let mut dies = place.pv(&["snapshot"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(5));
        let _ = dies.kill();
        end_of(dies);
        let _ = std::fs::remove_file(&trace);
        let at = format!("inject=flock:signal=STOP:when={call}");
        let words =
            ["-fDqq", "-o", "../trace", "-e", "trace=flock", "-e", &at, env!("CARGO_BIN_EXE_pv"), "--json", "snapshot"];
        let mut writer = place.command("strace", &words);
        let mut writer = writer.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let is_stopped = || std::fs::read_to_string(&trace).is_ok_and(|text| text.contains("stopped by SIGSTOP"));
        while writer.try_wait().unwrap().is_none() && !is_stopped() {
            std::thread::sleep(Duration::from_millis(2));
        }
        let was_stopped = is_stopped();
        let beside = Kept { what: format!("beside lock {call}"), snapshot: place.keep(&["snapshot"]), files };
        signal("-CONT", &writer);
        let output = end_of(writer);
        assert!(output.status.success(), "lock {call}: {}", text_of(&output));
        assert_eq!(snapshot_in(&output), beside.snapshot);
        if !was_stopped {
            break;
        }
        stopped_at += 1;
        place.assert_comes_out(&beside);
    }
    assert!(stopped_at >= 4, "stopped at {stopped_at} calls only");
}

fn signal(name: &str, child: &Child) {
    // One that has ended already is as good as one that is stopped.
    let _ = Command::new("kill").args([name, &child.id().to_string()]).status();
}

#[test]
fn a_store_takes_snapshots_of_two_worktrees_at_once() {
    let place = Place::in_memory();
    place.sh("git worktree add --quiet -b other ../other");
    let other = place.path("../other");
    for round in 0..6 {
        let here: Files = files_of(round, 50_000, 6);
        let there: Files = files_of(round + 500, 50_000, 6);
        place.lay(&here);
        for (path, content) in &there {
            std::fs::create_dir_all(other.join(path).parent().unwrap()).unwrap();
            std::fs::write(other.join(path), content).unwrap();
        }
        let first = place.pv(&["--json", "snapshot"]).spawn().unwrap();
        let second = place.pv(&["-C", "../other", "--json", "snapshot"]).spawn().unwrap();
        for (child, files) in [(first, here), (second, there)] {
            let output = end_of(child);
            assert!(output.status.success(), "{}", text_of(&output));
            let snapshot = snapshot_in(&output);
            place.assert_comes_out(&Kept { what: format!("round {round}"), snapshot, files });
        }
    }
}
