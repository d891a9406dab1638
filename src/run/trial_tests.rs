//! Trials of real commands, each under conditions that somebody chose.

use std::collections::BTreeMap;
use std::time::Duration;

use super::tests::Bed;
use super::{Conditions, Laboratory, RunError, Trial};
use crate::exec::{Pins, Stop, WallClock};
use crate::hash::Digest;
use crate::host;
use crate::path::ProjectPath;

/// Executes `command`, which writes `out` and may read `in` and `side/data`, once under each of these conditions.
fn trials(command: &str, conditions: &[Conditions]) -> Vec<Result<Trial, RunError>> {
    let step = serde_json::json!({"run": command, "inputs": ["in"], "outputs": ["out"]});
    let definition = serde_json::json!({"steps": {"step": step}}).to_string();
    let mut bed = Bed::new(&definition, &[("in", "1\n"), ("side/data", "2\n")]);
    bed.search_path = host::variables()["PATH"].clone().into_string().unwrap();
    let (places, locks, stop) = (bed.root.path().join("places"), bed.root.path().join("locks"), Stop::new());
    let trials = bed.work(|work| {
        let laboratory = Laboratory::new(work, &[], &places, &locks, &stop);
        let trials = conditions.iter().map(|conditions| laboratory.run(0, conditions)).collect();
        laboratory.close().unwrap();
        trials
    });
    let left: Vec<_> = std::fs::read_dir(&places).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    assert!(left.iter().all(|path| !path.to_string_lossy().contains("/run-")), "{left:?}");
    assert_eq!(bed.journal.runs().unwrap().count(), 0);
    assert!(!bed.root.path().join("records/step").exists(), "no run ever takes the result of a trial");
    trials
}

/// Returns what a trial wrote, as the digest of its bytes.
fn wrote(trial: &Result<Trial, RunError>) -> Digest {
    let trial = trial.as_ref().unwrap();
    assert_eq!(trial.failure, None, "{:?}", trial.tail);
    trial.outputs[0].digest
}

fn path(text: &str) -> ProjectPath {
    ProjectPath::new(text).unwrap()
}

/// Says what is not tested here, which is a failure where `CI` is set, unless `PV_ALLOW_UNTESTED` is set too.
fn not_tested(what: &str, why: &str) {
    let is_set = |name| host::variable_os(name).is_some_and(|value| !value.is_empty());
    assert!(
        !is_set("CI") || is_set("PV_ALLOW_UNTESTED"),
        "NOT TESTED (PV_ALLOW_UNTESTED=1 lets it pass): {what}: {why}"
    );
    println!("NOT TESTED: {what}: {why}");
}

#[test]
fn a_step_that_waits_for_a_clock_that_stands_still_ends_by_its_limit() {
    let clock = WallClock { start: 1_700_000_000, tick: 1 };
    let pins = Pins { clock: Some(clock), ..Pins::default() };
    let limit = Some(Duration::from_secs(1));
    let all = trials(
        "s=$(date +%s); while test $(date +%s) -lt $((s + 1)); do :; done; echo > out",
        &[
            Conditions { pins: Some(pins), time_limit: limit, ..Conditions::default() },
            Conditions { time_limit: Some(Duration::from_secs(60)), ..Conditions::default() },
        ],
    );
    match &all[0] {
        Err(RunError::NotPinned { .. }) => not_tested("a trial with a pinned clock", "nothing can be pinned"),
        trial => assert_eq!(trial.as_ref().unwrap().failure.as_deref(), Some("it took longer than 1 s")),
    }
    assert_eq!(wrote(&all[1]), Digest::of(b"\n"), "with the clock of the system it comes to its end");
}

#[test]
fn what_is_chosen_for_a_trial_is_what_the_step_finds_and_nothing_of_it_is_there_the_next_time() {
    let changed = Conditions {
        variables: BTreeMap::from([("TZ".to_owned(), Some("Asia/Kathmandu".to_owned())), ("LANG".to_owned(), None)]),
        files: BTreeMap::from([(path("in"), b"other\n".to_vec()), (path("new/file"), b"new\n".to_vec())]),
        times: BTreeMap::from([(path("side/data"), 86_400)]),
        ..Conditions::default()
    };
    let command = "cat in new/file > out 2> /dev/null; stat -c %Y side/data >> out; echo $TZ ${LANG-none} >> out";
    let all = trials(command, &[changed.clone(), Conditions::default(), changed]);
    assert_eq!(wrote(&all[0]), Digest::of(b"other\nnew\n86400\nAsia/Kathmandu none\n"));
    assert_ne!(wrote(&all[1]), wrote(&all[0]));
    assert_eq!(wrote(&all[2]), wrote(&all[0]));
    let plain = all[1].as_ref().unwrap();
    assert!(plain.missed.contains_key(&path("new/file")), "{:?}", plain.missed);
    assert!(plain.read.contains(&path("in")) && !plain.read.contains(&path("new/file")), "{:?}", plain.read);
}

#[test]
fn the_places_of_a_step_can_be_called_otherwise() {
    let name = |text: &str| Some(text.to_owned());
    let elsewhere = Conditions {
        workplace: name("elsewhere"),
        home: name("my-home"),
        temporary: name("my-tmp"),
        ..Conditions::default()
    };
    let command =
        "for d in \"$PWD\" ~ \"$TMPDIR\"; do test -d \"$d\"; echo ${d##*/}; done > out; touch ~/x \"$TMPDIR/y\"";
    let all = trials(command, &[elsewhere.clone(), Conditions::default(), elsewhere]);
    assert_eq!(wrote(&all[0]), Digest::of(b"elsewhere\nmy-home\nmy-tmp\n"));
    assert_ne!(wrote(&all[1]), wrote(&all[0]));
    assert_eq!(wrote(&all[2]), wrote(&all[0]));
}

#[test]
fn what_a_trial_left_behind_is_there_for_the_one_that_is_to_find_it() {
    let leaves = Conditions { leaves_state: true, ..Conditions::default() };
    let finds = Conditions { finds_state: true, ..Conditions::default() };
    let command = "cat side/cache > out 2> /dev/null || echo none > out; echo kept > side/cache";
    let all = trials(command, &[leaves, Conditions::default(), finds.clone(), finds]);
    if !all[0].as_ref().unwrap().observation.isolated {
        return not_tested("what a trial left behind", "steps are not isolated here");
    }
    let (none, kept) = (Digest::of(b"none\n"), Digest::of(b"kept\n"));
    assert_eq!([0, 1, 2, 3].map(|index| wrote(&all[index])), [none, none, kept, kept]);
}

#[test]
fn a_file_can_look_as_if_it_were_not_there() {
    let hidden = Conditions { hidden: ["side/data".into()].into(), ..Conditions::default() };
    let all = trials("cat side/data > out 2> /dev/null || echo none > out", &[hidden, Conditions::default()]);
    assert_eq!([0, 1].map(|index| wrote(&all[index])), [Digest::of(b"none\n"), Digest::of(b"2\n")]);
}
