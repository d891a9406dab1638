//! Over a plain pipe: what the protocol promises, also to those who are killed.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use pv::object::Kind;
use pv::remote::{Bucket, Catalog, RemoteError, Shipment, Trouble, Way};
use pv::store::{LocalStore, Part, Source, Store};

use super::{Eventful, Long, Pipe, contract, long, peak_bytes, signal, wait_until};

const MIB: u64 = 1 << 20;
const PACK: &str = "packs/ab/pack";

#[test]
fn a_directory_over_a_pipe_is_a_bucket_and_its_server_ends_with_it() {
    let pipe = Pipe::new();
    let ssh = pipe.ssh();
    contract::holds(&ssh);
    assert_eq!(pipe.servers().len(), 1, "one connection is enough for all");
    drop(ssh);
    pipe.wait_for_the_end();
    assert!(pipe.begun().is_empty());
}

#[test]
fn nothing_is_connected_before_something_is_asked() {
    let pipe = Pipe::new();
    drop(pipe.ssh());
    assert!(pipe.servers().is_empty());
    assert!(!pipe.path("remote").exists());
}

#[test]
fn a_path_may_have_anything_in_it_that_a_shell_would_read() {
    let pipe = Pipe::new();
    for name in ["it's mine", "-dash", "$(touch x)", "a\"b;c"] {
        let path = pipe.path(name);
        let ssh = pipe.ssh_to(path.to_str().unwrap());
        ssh.write("index/one", &b"1".as_slice()).unwrap();
        assert_eq!(std::fs::read(path.join("index/one")).unwrap(), b"1");
    }
}

#[test]
fn a_long_file_lies_in_the_memory_of_neither_side() {
    let pipe = Pipe::new();
    let ssh = pipe.ssh();
    let bytes = 192 * MIB;
    ssh.write(PACK, &Long { bytes }).unwrap();
    let own = peak_bytes(std::process::id());
    for start in (0..bytes).step_by(8 << 20) {
        assert_eq!(ssh.read_span(PACK, start..start + 8 * MIB).unwrap().len(), 8 << 20);
    }
    // The client keeps what was asked for, the server never.
    ssh.read(PACK, u64::MAX).unwrap();
    let server = peak_bytes(*pipe.servers().last().unwrap());
    assert!(server < 48 * MIB, "the server took {server} bytes");
    // Where all tests share one process, its memory tells nothing.
    if std::env::var_os("NEXTEST").is_some() {
        assert!(own < 64 * MIB, "the client took {own} bytes");
    }
}

/// Returns whether the pack is there, having seen that it is whole if it is.
fn is_there(pipe: &Pipe, bytes: u64) -> bool {
    let read = pipe.directory().read(PACK, u64::MAX).unwrap();
    read.inspect(|read| assert!(*read == long(bytes), "{} bytes are there", read.len())).is_some()
}

#[test]
fn a_server_that_is_killed_once_is_started_again_and_the_file_is_whole() {
    let bytes = 5 * MIB;
    for at in [0, bytes / 2, bytes - 1] {
        let pipe = Pipe::new();
        let ssh = pipe.ssh();
        let kill = || signal("-KILL", &pipe.servers().last().unwrap().to_string());
        ssh.write(PACK, &Eventful::new(bytes, at, 1, kill)).unwrap();
        assert!(is_there(&pipe, bytes));
        assert_eq!(ssh.list("packs/ab").unwrap().len(), 1, "what the dead left is no file of the remote");
        assert_eq!(pipe.servers().len(), 2);
    }
}

#[test]
fn a_server_that_is_killed_again_and_again_is_an_error_and_a_later_try_succeeds() {
    let bytes = 5 * MIB;
    let pipe = Pipe::new();
    let ssh = pipe.ssh();
    let kill = || signal("-KILL", &pipe.servers().last().unwrap().to_string());
    let error = ssh.write(PACK, &Eventful::new(bytes, bytes / 2, 2, kill)).unwrap_err();
    assert_eq!(error.trouble, Trouble::Unreachable);
    let told = format!("{error}: {}", error.source);
    assert!(told.starts_with("cannot write `packs/ab/pack`: the connection to `ada@host` ended: "), "{told}");
    // Some shells tell it themselves.
    assert!(told.contains("signal: 9") || told.ends_with("Killed"), "{told}");
    assert!(!is_there(&pipe, bytes));
    // The same bucket goes on, over a new connection.
    ssh.write(PACK, &Long { bytes }).unwrap();
    assert!(is_there(&pipe, bytes));
}

#[test]
fn what_was_there_stays_until_all_of_the_new_has_come() {
    let pipe = Pipe::new();
    pipe.directory().write("list", &b"old".as_slice()).unwrap();
    let kill = || signal("-KILL", &pipe.servers().last().unwrap().to_string());
    pipe.ssh().write("list", &Eventful::new(MIB, MIB / 2, 2, kill)).unwrap_err();
    assert_eq!(pipe.directory().read("list", 100).unwrap().unwrap(), b"old");
}

#[test]
fn a_client_that_is_killed_leaves_nothing_and_its_server_ends() {
    let variable = "PV_TEST_CLIENT_DIES";
    if let Some(root) = std::env::var_os(variable) {
        // This process is the client.
        let pipe = Pipe::below(root.as_ref());
        let die = || signal("-KILL", &std::process::id().to_string());
        let _ = pipe.ssh().write(PACK, &Eventful::new(5 * MIB, 3 * MIB, 1, die));
        return;
    }
    let pipe = Pipe::new();
    let test = "ssh::pipe::a_client_that_is_killed_leaves_nothing_and_its_server_ends";
    let mut client = Command::new(std::env::current_exe().unwrap());
    client.args(["--exact", test, "--nocapture"]).env(variable, &pipe.root);
    let ended = client.output().unwrap();
    assert_eq!(ended.status.signal(), Some(9), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(pipe.servers().len(), 1);
    pipe.wait_for_the_end();
    assert!(!is_there(&pipe, 5 * MIB));
    assert!(pipe.begun().is_empty(), "{:?}", pipe.begun());
}

#[test]
fn two_machines_meet_and_nothing_is_sent_twice() {
    let pipe = Pipe::new();
    let store = |name: &str| LocalStore::open(&pipe.path(name)).unwrap();
    let (one, two) = (store("one"), store("two"));
    let contents: Vec<Vec<u8>> = (0..40).map(|at| long(at * 9973)).collect();
    let live: BTreeSet<_> = contents
        .iter()
        .map(|content| (Kind::Blob, one.put(Kind::Blob, Source::Bytes(content)).unwrap().digest))
        .collect();
    one.sync().unwrap();
    let ssh = pipe.ssh();
    let always = &|_: u64| true;
    let mut catalog = Catalog::open(&ssh, &pipe.path("memory")).unwrap();
    let shipment = Shipment::plan(&one, &ssh, &catalog, &live).unwrap();
    let sent = shipment.send(&one, &ssh, &mut catalog, 4, always).unwrap();
    assert_eq!(sent.objects, live.len() as u64);
    // Another machine that knows no index at all is told by the other side that nothing is lacking.
    let other = pipe.ssh();
    let ignorant = Catalog::open(&Pipe::new().directory(), &pipe.path("ignorant")).unwrap();
    assert!(Shipment::plan(&one, &other, &ignorant, &live).unwrap().is_empty());
    let known = Catalog::open(&other, &pipe.path("memory of two")).unwrap();
    let way = Way { bucket: &other, catalog: &known, jobs: 4, progress: always };
    let lacking = way.survey::<RemoteError>(&two, &|_| Ok(live.clone())).unwrap();
    let fetched = way.fetch(&two, &lacking).unwrap();
    assert_eq!((fetched.received, fetched.missing.len()), (live.len() as u64, 0));
    for ((kind, digest), _) in live.iter().zip(&contents) {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        std::io::copy(&mut one.open(*kind, *digest).unwrap(), &mut ours).unwrap();
        std::io::copy(&mut two.open(*kind, *digest).unwrap(), &mut theirs).unwrap();
        assert!(ours == theirs);
    }
}

#[test]
fn the_other_side_tells_which_records_it_has_also_of_packs_that_came_since() {
    let pipe = Pipe::new();
    let ssh = pipe.ssh();
    let store = LocalStore::open(&pipe.path("store")).unwrap();
    let put = |content: &[u8]| (Kind::Blob, store.put(Kind::Blob, Source::Bytes(content)).unwrap().digest);
    let objects = [put(b"one"), put(b"two"), put(b"three")];
    store.sync().unwrap();
    let parts = objects.map(|(kind, digest)| Part::object(kind, digest));
    let known = || ssh.known(&parts).unwrap().unwrap();
    assert_eq!(known(), [false; 3], "there is no remote yet");
    let mut catalog = Catalog::open(&ssh, &pipe.path("memory")).unwrap();
    for (count, object) in objects.into_iter().take(2).enumerate() {
        let shipment = Shipment::plan(&store, &ssh, &catalog, &BTreeSet::from([object])).unwrap();
        shipment.send(&store, &ssh, &mut catalog, 1, &|_| true).unwrap();
        assert_eq!(known(), [true, count == 1, false]);
    }
    let many: Vec<Part> = std::iter::repeat_n(parts, 50_000).flatten().collect();
    let answers = ssh.known(&many).unwrap().unwrap();
    assert!(answers.chunks(3).all(|answer| answer == [true, true, false]) && answers.len() == many.len());
}

#[test]
fn a_server_whose_disk_refuses_says_so_and_the_connection_stays() {
    let pipe = Pipe::new();
    let ssh = pipe.ssh();
    // A file lies where a directory should be, which is forbidden even to root.
    ssh.write("packs", &b"in the way".as_slice()).unwrap();
    let error = ssh.write(PACK, &Long { bytes: 3 * MIB }).unwrap_err();
    let told = format!("{error}: {}", error.source);
    assert!(told.starts_with("cannot write `packs/ab/pack`: ") && told.contains("os error"), "{told}");
    assert_eq!(ssh.read("packs", 100).unwrap().unwrap(), b"in the way");
    assert_eq!(pipe.servers().len(), 1);
}

#[test]
fn more_threads_than_the_protocol_allows_take_turns() {
    let pipe = Pipe::new();
    let ssh = pipe.ssh();
    let arrived = std::sync::Barrier::new(64);
    std::thread::scope(|scope| {
        for own in 0..64 {
            let (ssh, arrived) = (&ssh, &arrived);
            scope.spawn(move || {
                arrived.wait();
                ssh.write(&format!("index/{own}"), &Long { bytes: 200_000 }).unwrap();
            });
        }
    });
    assert_eq!(ssh.list("index").unwrap().len(), 64);
    assert_eq!(pipe.servers().len(), 1);
    wait_until("nothing is left to write", || pipe.begun().is_empty());
}
