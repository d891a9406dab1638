//! Whatever goes wrong on the way: no wrong byte is taken in, nothing that was acknowledged is lost, and it ends.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use pv::remote::{Bucket, Cloud, Patience, RemoteError, Trouble};

use super::machine::Machine;
use super::proxy::{Fault, Proxy};
use super::servers::{self, Server};
use super::{in_words, noise, s3_at};

/// Enough for a busy machine, but without long pauses between two tries.
const PATIENT: Patience = Patience {
    connect: Duration::from_secs(30),
    stall: Duration::from_secs(60),
    tries: 5,
    retry: Duration::from_secs(60),
    pause: Duration::from_millis(50),
};
/// Fewer tries, so that a fault that stays is soon taken for what it is.
const HASTY: Patience = Patience { tries: 2, ..PATIENT };
/// A connection on which nothing moves is soon taken for one. A machine that is busy enough makes one out of any other, so
/// nothing may be expected to succeed.
const NERVOUS: Patience = Patience { stall: Duration::from_secs(1), ..HASTY };
/// What takes longer will not end.
const END: Duration = Duration::from_secs(400);
/// Large enough for parts.
const LARGE: usize = 17 << 20;
const SMALL: usize = 300_000;

/// Ends the process, and with it the test, if that does not end by itself.
struct EndsSometime(#[expect(dead_code, reason = "it is dropped")] Sender<()>);

impl EndsSometime {
    fn new() -> Self {
        let (sender, receiver): (_, Receiver<()>) = channel();
        thread::spawn(move || {
            if receiver.recv_timeout(END) == Err(RecvTimeoutError::Timeout) {
                // A panic here would end nothing.
                std::process::abort();
            }
        });
        Self(sender)
    }
}

/// A server, and a way to it on which things go wrong.
struct Scene {
    proxy: Proxy,
    server: Server,
    _ends: EndsSometime,
}

impl Scene {
    fn new(test: &str) -> Option<Self> {
        let server = servers::s3(test, &["data"])?;
        Some(Self { proxy: Proxy::before(server.port), server, _ends: EndsSometime::new() })
    }

    /// Returns the remote of this name, over the way on which things go wrong.
    fn faulty(&self, name: &str, patience: Patience) -> Cloud {
        s3_at(&self.proxy.url(), &format!("s3://data/{name}"), patience)
    }

    /// Returns the same remote, over the straight way.
    fn straight(&self, name: &str) -> Cloud {
        s3_at(&self.server.url(), &format!("s3://data/{name}"), PATIENT)
    }
}

/// Returns how much patience to have for a fault.
fn patience_for(fault: Fault) -> Patience {
    match fault {
        Fault::StallUp(_) | Fault::StallDown(_) | Fault::TrickleDown(_) => NERVOUS,
        _ => HASTY,
    }
}

/// Either it succeeded, or it says what failed.
fn says_what_failed(error: &RemoteError, fault: Fault) {
    let words = match error {
        RemoteError::Bucket(error) => in_words(error),
        RemoteError::Wrong { .. } | RemoteError::Format { .. } => error.to_string(),
        other => panic!("{fault:?}: {other:?}"),
    };
    assert!(words.contains('`') || words.contains("its files"), "{fault:?}: {words}");
}

/// Pushes with a fault. Where that is acknowledged, all of it is there; where it is not, it is after another try.
fn push_survives(scene: &Scene, number: usize, fault: Fault, times: u32, large_bytes: usize) {
    let name = format!("push-{number}");
    let here = Machine::with_objects(number as u64, large_bytes);
    scene.proxy.set(fault, times);
    let pushed = here.push(&scene.faulty(&name, patience_for(fault)));
    let straight = scene.straight(&name);
    if let Err(error) = pushed {
        says_what_failed(&error, fault);
        here.push(&straight).unwrap_or_else(|error| panic!("{fault:?}: {error:?}"));
    }
    let there = Machine::new();
    let fetched = there.pull(&straight, &here.objects).unwrap_or_else(|error| panic!("{fault:?}: {error:?}"));
    assert!(fetched.missing.is_empty(), "{fault:?}: {:?}", fetched.missing);
    there.assert_has_all_of(&here);
}

/// Pulls with a fault. What came is right, and after another try everything is there.
fn pull_survives(scene: &Scene, here: &Machine, name: &str, fault: Fault, times: u32) {
    let there = Machine::new();
    scene.proxy.set(fault, times);
    let pulled = there.pull(&scene.faulty(name, patience_for(fault)), &here.objects);
    there.assert_is_sound();
    match pulled {
        Ok(fetched) if fetched.missing.is_empty() => {}
        Ok(_) => drop(there.pull(&scene.straight(name), &here.objects).unwrap()),
        Err(error) => {
            says_what_failed(&error, fault);
            there.pull(&scene.straight(name), &here.objects).unwrap_or_else(|error| panic!("{fault:?}: {error:?}"));
        }
    }
    there.assert_has_all_of(here);
}

#[test]
fn a_push_survives_a_connection_that_is_cut_anywhere() {
    let Some(scene) = Scene::new("a_push_survives_a_connection_that_is_cut_anywhere") else { return };
    let mut number = 0;
    for (up, down) in [(0, 0), (1, 20), (100, 200), (700, 300), (2_000, 400), (100_000, 0), (400_000, 0)] {
        for times in [1, u32::MAX] {
            for fault in [Fault::CutUp(up), Fault::CutDown(down)] {
                number += 1;
                push_survives(&scene, number, fault, times, SMALL);
                assert!(scene.proxy.happened() > 0, "{fault:?}");
            }
        }
    }
}

#[test]
fn a_push_of_a_large_file_survives_a_cut_between_and_within_its_parts() {
    let Some(scene) = Scene::new("a_push_of_a_large_file_survives_a_cut_between_and_within_its_parts") else { return };
    // Each part goes over a connection of its own.
    for (number, (at, times)) in [(1 << 20, 1), (8 << 20, 1), (1 << 20, 3), (5 << 20, u32::MAX)].into_iter().enumerate()
    {
        push_survives(&scene, number, Fault::CutUp(at), times, LARGE);
        assert!(scene.proxy.happened() > 0, "{at}");
    }
    push_survives(&scene, 10, Fault::CutDown(300), 6, LARGE);
}

#[test]
fn a_push_survives_a_connection_on_which_nothing_moves() {
    let Some(scene) = Scene::new("a_push_survives_a_connection_on_which_nothing_moves") else { return };
    let faults =
        [Fault::StallUp(0), Fault::StallUp(50_000), Fault::StallDown(0), Fault::StallDown(100), Fault::TrickleDown(0)];
    let mut happened = 0;
    for (number, fault) in faults.into_iter().enumerate() {
        for (more, times) in [1, u32::MAX].into_iter().enumerate() {
            push_survives(&scene, number * 10 + more, fault, times, SMALL);
            happened += scene.proxy.happened();
        }
    }
    assert!(happened > 0);
}

#[test]
fn a_push_survives_a_server_that_has_enough() {
    let Some(scene) = Scene::new("a_push_survives_a_server_that_has_enough") else { return };
    let faults = [(500, None), (503, Some(0)), (503, Some(1)), (429, Some(1)), (429, None), (504, None)];
    for (number, (status, retry_after)) in faults.into_iter().enumerate() {
        for (more, times) in [1, 3, u32::MAX].into_iter().enumerate() {
            push_survives(&scene, number * 10 + more, Fault::Status(status, retry_after), times, SMALL);
        }
    }
}

#[test]
fn a_bit_that_flips_on_the_way_there_is_never_acknowledged() {
    let Some(scene) = Scene::new("a_bit_that_flips_on_the_way_there_is_never_acknowledged") else { return };
    let mut number = 0;
    for at in [0, 700, 2_000, 50_000, 300_000] {
        for times in [1, 3] {
            number += 1;
            push_survives(&scene, number, Fault::FlipUp(at), times, SMALL);
            assert!(scene.proxy.happened() > 0, "{at}");
        }
    }
    push_survives(&scene, 20, Fault::FlipUp(6 << 20), 1, LARGE);
    assert_eq!(scene.proxy.happened(), 1);
}

#[test]
fn a_push_survives_wrong_answers_and_an_old_list() {
    let Some(scene) = Scene::new("a_push_survives_wrong_answers_and_an_old_list") else { return };
    for (number, at) in [0, 10, 100, 300].into_iter().enumerate() {
        push_survives(&scene, number, Fault::FlipDown(at), u32::MAX, SMALL);
    }
    push_survives(&scene, 10, Fault::Halve, 2, SMALL);
}

#[test]
fn a_pull_survives_whatever_goes_wrong() {
    let Some(scene) = Scene::new("a_pull_survives_whatever_goes_wrong") else { return };
    let here = Machine::with_objects(1, 9 << 20);
    here.push(&scene.straight("pull")).unwrap();
    let mut faults = Vec::new();
    for at in [0, 200, 600, 3_000, 200_000, 2 << 20] {
        faults.extend([Fault::CutDown(at), Fault::FlipDown(at)]);
    }
    faults.extend([Fault::CutUp(0), Fault::CutUp(300), Fault::Halve]);
    faults.extend([Fault::Status(500, None), Fault::Status(503, Some(1)), Fault::Status(429, Some(0))]);
    for fault in faults {
        for times in [1, 4, u32::MAX] {
            pull_survives(&scene, &here, "pull", fault, times);
            assert!(scene.proxy.happened() > 0, "{fault:?} did not happen");
        }
    }
}

#[test]
fn a_pull_survives_a_connection_on_which_nothing_moves() {
    let Some(scene) = Scene::new("a_pull_survives_a_connection_on_which_nothing_moves") else { return };
    let here = Machine::with_objects(1, 9 << 20);
    here.push(&scene.straight("pull")).unwrap();
    let mut happened = 0;
    for fault in [Fault::StallUp(10), Fault::StallDown(0), Fault::StallDown(600), Fault::StallDown(200_000)] {
        for times in [1, u32::MAX] {
            pull_survives(&scene, &here, "pull", fault, times);
            happened += scene.proxy.happened();
        }
    }
    assert!(happened > 0);
}

/// Bytes that drip in would hold a span for hours: there is an end to that, though something moves all the time.
#[test]
fn bytes_that_drip_are_not_waited_for_forever() {
    let Some(scene) = Scene::new("bytes_that_drip_are_not_waited_for_forever") else { return };
    let bytes = noise(20_000, 1);
    scene.straight("drip").write("file", &bytes.as_slice()).unwrap();
    scene.proxy.set(Fault::TrickleDown(1_000), u32::MAX);
    let patience = Patience { tries: 1, stall: Duration::from_secs(2), ..PATIENT };
    let error = scene.faulty("drip", patience).read("file", 20_000).unwrap_err();
    assert_eq!(in_words(&error), "cannot read `file`: too little came within 8 seconds");
    assert_eq!(error.trouble, Trouble::Unreachable);
}

/// A disk may be slower than the way there; then the other side waits, and nothing is wrong with it.
#[test]
fn whoever_takes_long_over_what_came_gets_the_rest_all_the_same() {
    let Some(scene) = Scene::new("whoever_takes_long_over_what_came_gets_the_rest_all_the_same") else { return };
    let bytes = noise(4 << 20, 1);
    scene.straight("slow").write("file", &bytes.as_slice()).unwrap();
    let patience = Patience { tries: 1, stall: Duration::from_millis(300), ..PATIENT };
    let mut streamed = Vec::new();
    let mut take = |piece: &[u8]| {
        if streamed.is_empty() {
            std::thread::sleep(Duration::from_secs(2));
        }
        streamed.extend_from_slice(piece);
        true
    };
    scene.faulty("slow", patience).stream_span("file", 5..4 << 20, &mut take).unwrap();
    assert!(streamed == bytes[5..]);
}

/// A connection that is cut costs no more than what was on its way, however often that happens.
#[test]
fn what_has_come_of_a_long_answer_does_not_come_again() {
    let Some(scene) = Scene::new("what_has_come_of_a_long_answer_does_not_come_again") else { return };
    let bytes = noise(4 << 20, 1);
    scene.straight("cut").write("file", &bytes.as_slice()).unwrap();
    scene.proxy.set(Fault::CutDown(900_000), 4);
    let mut streamed = Vec::new();
    let mut take = |piece: &[u8]| {
        streamed.extend_from_slice(piece);
        true
    };
    scene.faulty("cut", PATIENT).stream_span("file", 0..4 << 20, &mut take).unwrap();
    assert!(streamed == bytes);
    assert_eq!(scene.proxy.happened(), 4);
}

/// A list may lag behind. What is not listed yet is missing, and said to be; later it is there.
#[test]
fn what_an_old_list_lacks_is_missing_and_comes_later() {
    let Some(scene) = Scene::new("what_an_old_list_lacks_is_missing_and_comes_later") else { return };
    let (first, second, there) = (Machine::with_objects(1, SMALL), Machine::with_objects(2, SMALL), Machine::new());
    first.push(&scene.straight("old")).unwrap();
    scene.proxy.set(Fault::StaleList, u32::MAX);
    let faulty = scene.faulty("old", PATIENT);
    there.pull(&faulty, &first.objects).unwrap();
    second.push(&scene.straight("old")).unwrap();
    let fetched = there.pull(&faulty, &second.objects).unwrap();
    assert_eq!(fetched.missing, second.objects);
    assert!(there.pull(&scene.straight("old"), &second.objects).unwrap().missing.is_empty());
    there.assert_has_all_of(&first);
    there.assert_has_all_of(&second);
}

/// A server says how long to wait before the next try; fewer tries than refusals are no success.
#[test]
fn a_server_that_has_enough_is_asked_again_as_often_as_there_is_patience_for() {
    let test = "a_server_that_has_enough_is_asked_again_as_often_as_there_is_patience_for";
    let Some(scene) = Scene::new(test) else { return };
    let faulty = scene.faulty("again", PATIENT);
    for status in [429, 500, 503] {
        scene.proxy.set(Fault::Status(status, Some(0)), PATIENT.tries - 1);
        faulty.write("file", &b"bytes".as_slice()).unwrap();
        assert_eq!(scene.proxy.happened(), PATIENT.tries - 1);
        scene.proxy.set(Fault::Status(status, None), PATIENT.tries - 1);
        assert_eq!(faulty.read("file", 10).unwrap().unwrap(), b"bytes");
        scene.proxy.set(Fault::Status(status, None), u32::MAX);
        let error = faulty.read("file", 10).unwrap_err();
        assert_eq!(scene.proxy.happened(), PATIENT.tries);
        assert_eq!(error.trouble, Trouble::Unreachable);
        assert!(in_words(&error).starts_with(&format!("cannot read `file`: the server answered {status}")));
    }
}

/// Who created something, but never heard of it, is still the one who did.
#[test]
fn who_creates_over_a_connection_that_breaks_knows_whether_it_was_first() {
    let test = "who_creates_over_a_connection_that_breaks_knows_whether_it_was_first";
    let Some(scene) = Scene::new(test) else { return };
    let faulty = scene.faulty("create", PATIENT);
    // The answer is lost on its way: the file is there.
    scene.proxy.set(Fault::CutDown(20), 1);
    assert!(faulty.create("ours", b"ours").unwrap());
    assert_eq!(scene.proxy.happened(), 1);
    scene.straight("create").write("theirs", &b"theirs".as_slice()).unwrap();
    let faulty = scene.faulty("create", PATIENT);
    scene.proxy.set(Fault::CutDown(20), 1);
    assert!(!faulty.create("theirs", b"ours").unwrap());
    assert_eq!(scene.straight("create").read("theirs", 10).unwrap().unwrap(), b"theirs");
}
