//! What a server can do to the asking side. What answers here are scripts in the place of `ssh`.

use std::io::Read;
use std::path::PathBuf;

use super::*;
use crate::disk::{self, Durability};
use crate::hash::Digest;
use crate::object::Kind;
use crate::remote::wire::{Frame, Hello, greet};

/// Something in the place of `ssh`, which answers what was laid down before.
struct Fake {
    scratch: tempfile::TempDir,
}

impl Fake {
    /// Returns one that says `hello`, waits for a request, says `frames`, and does `script`.
    fn saying(hello: Hello, frames: &[(u32, Message)], script: &str) -> Self {
        let mut ours = Vec::new();
        greet(&mut ours, Hello::own()).unwrap();
        let fake = Self::doing(&format!("cat hello; head -c {} > heard; cat said; {script}", ours.len() + 1));
        let mut theirs = Vec::new();
        greet(&mut theirs, hello).unwrap();
        fake.lay("hello", &theirs);
        let said = frames.iter().map(|(id, message)| Frame { id: *id, message: message.clone() }.encode());
        fake.lay("said", &said.collect::<Vec<_>>().concat());
        fake
    }

    /// Returns one that answers one request, then waits until nobody asks any more.
    fn answering(frames: &[(u32, Message)]) -> Self {
        Self::saying(Hello::own(), frames, "cat > rest")
    }

    /// Returns one that does `script`, and notes that it was started.
    fn doing(script: &str) -> Self {
        let fake = Self { scratch: tempfile::tempdir().unwrap() };
        fake.lay("script", format!("echo >> started\n{script}\n").as_bytes());
        fake
    }

    fn lay(&self, name: &str, bytes: &[u8]) {
        disk::write_whole(&self.path(name), bytes, Durability::Deferred).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn started(&self) -> usize {
        std::fs::read_to_string(self.path("started")).unwrap_or_default().lines().count()
    }

    fn ssh(&self) -> Ssh {
        let ssh = format!("cd '{}' && sh ./script", self.scratch.path().display());
        Ssh::connect_by(Programs { ssh: Some(ssh), pv: "pv".to_owned() }, "host".to_owned(), None, "/srv".to_owned())
    }
}

fn data(bytes: &[u8]) -> (u32, Message) {
    (0, Message::Data(bytes.to_vec()))
}

const DONE: (u32, Message) = (0, Message::Done);

/// Returns what sort of failure it is, and what is told of it.
fn told<T: std::fmt::Debug>(result: Result<T, BucketError>) -> (Trouble, String) {
    let error = result.unwrap_err();
    (error.trouble, format!("{error}: {}", error.source))
}

#[test]
fn one_request_is_answered_and_its_parts_are_put_together() {
    let read = |frames: &[(u32, Message)]| Fake::answering(frames).ssh().read("a", 6).unwrap();
    assert_eq!(read(&[data(b"con"), data(b"ten"), DONE]), Some(b"conten".to_vec()));
    assert_eq!(read(&[DONE]), Some(Vec::new()));
    assert_eq!(read(&[(0, Message::Absent)]), None);
}

#[test]
fn an_answer_that_was_not_asked_for_is_not_believed() {
    let not_asked = "the `pv` of `host` cannot be understood: it says what it was not asked";
    let something_else = "the other side answers something else";
    let cases: [(&[(u32, Message)], &str); 5] = [
        (&[data(b"1234567"), DONE], not_asked),
        (&[data(b"1234"), data(b"5678")], not_asked),
        (&[(1, Message::Done)], not_asked),
        (&[(0, Message::Remove { name: "x".to_owned() })], not_asked),
        (&[(0, Message::Exists)], something_else),
    ];
    for (frames, complaint) in cases {
        let read = Fake::answering(frames).ssh().read("a", 6);
        assert_eq!(told(read), (Trouble::Garbled, format!("cannot read `a`: {complaint}")), "{frames:?}");
    }
    let spans: [&[(u32, Message)]; 3] = [&[data(b"123"), DONE], &[DONE], &[(0, Message::Absent)]];
    for frames in spans {
        let read = Fake::answering(frames).ssh().read_span("a", 2..6);
        assert_eq!(told(read), (Trouble::Garbled, format!("cannot read `a`: {something_else}")), "{frames:?}");
    }
    let listed = Fake::answering(&[data(b"no list"), DONE]).ssh().list("index");
    assert_eq!(told(listed), (Trouble::Garbled, format!("cannot list `index`: {something_else}")));
    let part = Part::object(Kind::Blob, Digest::of(b"x"));
    let known = Fake::answering(&[data(&[1]), DONE]).ssh().known(&[part, part]);
    assert_eq!(told(known), (Trouble::Garbled, format!("cannot list its files: {something_else}")));
    let created = Fake::answering(&[(0, Message::Absent)]).ssh().create("a", b"x");
    assert_eq!(told(created), (Trouble::Garbled, format!("cannot write `a`: {something_else}")));
}

#[test]
fn noise_without_end_is_noticed_at_once() {
    let fake = Fake::saying(Hello::own(), &[], "while echo noise 2> /dev/null; do :; done");
    let complaint =
        "cannot read `a`: the `pv` of `host` cannot be understood: a frame has 1936289646 bytes, and may have 131072";
    assert_eq!(told(fake.ssh().read("a", 6)), (Trouble::Garbled, complaint.to_owned()));
}

#[test]
fn what_a_shell_prints_before_the_answer_is_shown() {
    let fake = Fake::doing("echo 'Welcome to node 7'; cat > rest");
    let complaint = "cannot read `a`: the `pv` of `host` cannot be understood: something else answers, \
                     which begins with `Welcome to node 7`";
    assert_eq!(told(fake.ssh().read("a", 6)), (Trouble::Garbled, complaint.to_owned()));
}

#[test]
fn a_version_that_is_too_new_is_named() {
    let fake = Fake::saying(Hello { oldest: 2, newest: 3, ..Hello::own() }, &[], "cat > rest");
    let (trouble, complaint) = told(fake.ssh().list(""));
    assert_eq!(trouble, Trouble::Unsupported);
    assert!(complaint.ends_with("it speaks versions 2 to 3 of the protocol, and this program 1 to 1"), "{complaint}");
    assert_eq!(fake.started(), 1, "asking again would not help");
}

#[test]
fn a_refusal_is_passed_on_and_does_nothing_to_a_terminal() {
    let said = "disk \u{1b}[31mfull\n".to_owned();
    let fake = Fake::answering(&[(0, Message::Failed { trouble: Trouble::Other, said })]);
    assert_eq!(told(fake.ssh().remove("a")), (Trouble::Other, "cannot remove `a`: disk [31mfull".to_owned()));
}

#[test]
fn a_server_that_cannot_tell_what_it_has_is_not_asked() {
    let fake =
        Fake::saying(Hello { features: vec!["other".to_owned()], at_once: 0, ..Hello::own() }, &[DONE], "cat > rest");
    let ssh = fake.ssh();
    assert_eq!(ssh.known(&[Part::object(Kind::Blob, Digest::of(b"x"))]).unwrap(), None);
    // That it takes none at once is taken for one.
    ssh.remove("a").unwrap();
}

#[test]
fn what_ssh_says_when_it_fails_reaches_the_user() {
    let fake = Fake::doing("echo 'ada@host: Permission denied (publickey).' >&2; exit 255");
    let complaint = "cannot read `a`: the connection to `host` ended: ada@host: Permission denied (publickey).";
    assert_eq!(told(fake.ssh().read("a", 6)), (Trouble::Unreachable, complaint.to_owned()));
    assert_eq!(fake.started(), 1, "whoever was not let in is not asked for a password again");
    let fake = Fake::doing("echo 'sh: 1: pv: not found' >&2; exit 127");
    let complaint = "cannot read `a`: the connection to `host` ended: sh: 1: pv: not found";
    assert_eq!(told(fake.ssh().read("a", 6)), (Trouble::Unsupported, complaint.to_owned()));
    let fake = Fake::doing("exit 3");
    let complaint = "cannot read `a`: the connection to `host` ended: exit status: 3";
    assert_eq!(told(fake.ssh().read("a", 6)), (Trouble::Unreachable, complaint.to_owned()));
}

#[test]
fn a_request_that_is_lost_is_made_once_more_if_that_comes_to_the_same() {
    let dying = || Fake::saying(Hello::own(), &[], "echo 'Killed' >&2; exit 1");
    let complaint =
        |verb: &str| (Trouble::Unreachable, format!("cannot {verb} `a`: the connection to `host` ended: Killed"));
    let fake = dying();
    assert_eq!(told(fake.ssh().read("a", 6)), complaint("read"));
    assert_eq!(fake.started(), 2);
    let fake = dying();
    assert_eq!(told(fake.ssh().write("a", &vec![1; 1 << 20].as_slice())), complaint("write"));
    assert_eq!(fake.started(), 2);
    let fake = dying();
    assert_eq!(told(fake.ssh().create("a", b"x")), complaint("write"));
    assert_eq!(fake.started(), 1, "asked again, it would find its own file");
    // The second time, somebody answers.
    let fake = Fake::saying(Hello::own(), &[data(b"x"), DONE], "test $(wc -l < started) -gt 1 && cat > rest");
    let script = std::fs::read_to_string(fake.path("script")).unwrap();
    fake.lay("script", script.replace("; cat said", "; test $(wc -l < started) -gt 1 && cat said").as_bytes());
    assert_eq!(fake.ssh().read("a", 6).unwrap(), Some(b"x".to_vec()));
    assert_eq!(fake.started(), 2);
}

#[test]
fn a_host_that_looks_like_an_option_starts_nothing() {
    let mut ssh = Fake::doing("true").ssh();
    ssh.host = "-oProxyCommand=touch x".to_owned();
    let (trouble, complaint) = told(ssh.read("a", 6));
    assert_eq!(trouble, Trouble::Refused);
    assert!(complaint.contains("is no name of a host"), "{complaint}");
}

/// A body that ends before it should, or fails.
struct Broken {
    bytes: u64,
    error: bool,
}

impl Body for Broken {
    fn bytes(&self) -> u64 {
        self.bytes + 1
    }

    fn reader(&self) -> Box<dyn Read + Send + '_> {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::Error::other("the transfer was interrupted"))
            }
        }
        let whole = std::io::repeat(7).take(self.bytes);
        if self.error { Box::new(whole.chain(Failing)) } else { Box::new(whole) }
    }
}

#[test]
fn a_body_that_breaks_off_is_the_reason_and_the_connection_stays() {
    let frames = [(0, Message::Failed { trouble: Trouble::Garbled, said: "the rest of it did not come".to_owned() })];
    for (error, complaint) in [(true, "the transfer was interrupted"), (false, "it has become shorter")] {
        let fake = Fake::answering(&frames);
        // Waits for all that comes, up to the word that no more comes, so that the answer is not there first.
        let (header, request) = (9, 2 + 1 + 8);
        let bytes = 2 * wire::FRAME_MAX_BYTES as u64;
        let all = (header + request) + (bytes + 2 * header) + header;
        let script = std::fs::read_to_string(fake.path("script")).unwrap();
        let waiting = script.replace("; cat said", &format!("; head -c {} > sent; cat said", all - 1));
        fake.lay("script", waiting.as_bytes());
        let ssh = fake.ssh();
        let (trouble, told) = told(ssh.write("a", &Broken { bytes, error }));
        assert_eq!((trouble, told), (Trouble::Other, format!("cannot write `a`: {complaint}")));
        assert_eq!(fake.started(), 1);
    }
}
