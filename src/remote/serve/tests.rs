//! What a client can do to the serving side, honest or not.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A directory to serve, with something beside it that nobody may touch.
struct Ground {
    scratch: tempfile::TempDir,
}

const BESIDE: &[u8] = b"not for strangers";

impl Ground {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let ground = Self { scratch };
        crate::disk::write_new(&ground.beside(), BESIDE).unwrap();
        ground.directory().create("index/one", b"1").unwrap();
        ground
    }

    fn root(&self) -> PathBuf {
        self.scratch.path().join("served")
    }

    fn beside(&self) -> PathBuf {
        self.scratch.path().join("beside")
    }

    fn directory(&self) -> Directory {
        Directory::new(self.root())
    }

    /// Returns how serving ended, and the answer to each request: its bytes, and its last frame.
    fn converse(&self, input: &[u8]) -> (Result<(), ServeError>, BTreeMap<u32, (Vec<u8>, Option<Message>)>) {
        let mut output = Vec::new();
        let ended = serve(self.root(), input, &mut output);
        let mut output = io::BufReader::new(output.as_slice());
        assert_eq!(wire::meet(&mut output).unwrap(), Some(Hello::own()));
        let mut answers: BTreeMap<u32, (Vec<u8>, Option<Message>)> = BTreeMap::new();
        while let Some(Frame { id, message }) = Frame::read(&mut output).unwrap() {
            let (bytes, last) = answers.entry(id).or_default();
            assert!(last.is_none(), "an answer has one end");
            match message {
                Message::Data(more) => bytes.extend(more),
                message => *last = Some(message),
            }
        }
        (ended, answers)
    }

    /// Returns the end of the answer to one request.
    fn ask(&self, request: Message) -> Message {
        let (ended, mut answers) = self.converse(&said(vec![(1, request)]));
        ended.unwrap();
        answers.remove(&1).unwrap().1.unwrap()
    }

    /// Returns every file and directory, below and beside what is served.
    fn everything(&self) -> Vec<PathBuf> {
        fn below(path: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(path).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    below(&path, found);
                }
                found.push(path);
            }
        }
        let mut found = Vec::new();
        below(self.scratch.path(), &mut found);
        found.sort();
        found
    }
}

/// Returns what a client says.
fn said(frames: Vec<(u32, Message)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    wire::greet(&mut bytes, Hello::own()).unwrap();
    frames.into_iter().for_each(|(id, message)| bytes.extend(Frame { id, message }.encode()));
    bytes
}

fn write_of(id: u32, name: &str, content: &[u8]) -> Vec<(u32, Message)> {
    let request = Message::Write { name: name.to_owned(), bytes: content.len() as u64 };
    let chunks = content.chunks(FRAME_MAX_BYTES).map(|chunk| Message::Data(chunk.to_vec()));
    std::iter::once(request).chain(chunks).map(|message| (id, message)).collect()
}

fn odd_names() -> Vec<String> {
    let odd = [
        "..",
        ".",
        "",
        "../beside",
        "a/../../beside",
        "index/../../beside",
        "./beside",
        "/etc/hostname",
        "index//one",
        "index/",
        "/",
        ".hidden",
        "index/.pv-1-1.tmp",
        "a\0b",
        "a b",
        "a\\b",
        "~",
        "a\nb",
        "ü",
        "a:b",
        "*",
    ];
    let long = ["x".repeat(PART_OF_NAME_MAX_BYTES + 1), "x/".repeat(NAME_MAX_BYTES) + "x"];
    odd.iter().map(|name| (*name).to_owned()).chain(long).collect()
}

#[test]
fn a_name_that_leads_elsewhere_is_refused_whatever_is_asked_of_it() {
    let ground = Ground::new();
    let before = ground.everything();
    for name in odd_names() {
        let own = || name.clone();
        let mut requests = vec![
            Message::Read { name: own(), most_bytes: 100 },
            Message::Span { name: own(), start: 0, end: 3 },
            Message::Write { name: own(), bytes: 0 },
            Message::Create { name: own(), bytes: 0 },
            Message::Remove { name: own() },
        ];
        if !name.is_empty() {
            requests.push(Message::List { directory: own() });
        }
        for request in requests {
            let answer = ground.ask(request.clone());
            let is_refused = matches!(answer, Message::Failed { trouble: Trouble::Refused, .. });
            assert!(is_refused, "{request:?}: {answer:?}");
        }
        // What follows a request that was refused is passed over.
        let mut frames = write_of(1, &name, &vec![7; FRAME_MAX_BYTES * 4]);
        frames.push((2, Message::Read { name: "index/one".to_owned(), most_bytes: 1 }));
        let (ended, answers) = ground.converse(&said(frames));
        ended.unwrap();
        assert_eq!(answers[&2], (b"1".to_vec(), Some(Message::Done)));
    }
    assert_eq!(ground.everything(), before);
    assert_eq!(std::fs::read(ground.beside()).unwrap(), BESIDE);
}

#[test]
fn what_other_programs_put_there_is_not_listed() {
    let ground = Ground::new();
    for name in ["two", "a b", ".pv-1-1.tmp"] {
        crate::disk::write_new(&ground.root().join("index").join(name), b"").unwrap();
    }
    let (_, answers) = ground.converse(&said(vec![(9, Message::List { directory: "index".to_owned() })]));
    let mut names: Vec<_> = wire::decode_listed(&answers[&9].0).unwrap().into_iter().map(|file| file.name).collect();
    names.sort();
    assert_eq!(names, ["one", "two"]);
}

#[test]
fn whoever_does_not_keep_to_the_protocol_is_heard_no_longer() {
    let ground = Ground::new();
    let before = ground.everything();
    let data = || Message::Data(vec![1]);
    let writes = |id| (id, Message::Write { name: format!("w{id}"), bytes: 2 });
    let complaint = |frames: Vec<(u32, Message)>| ground.converse(&said(frames)).0.unwrap_err().to_string();
    let told = |what: &str| format!("the other side {what}, which the protocol does not allow");
    assert_eq!(complaint(vec![(1, data())]), told("sends what belongs to no request"));
    assert_eq!(complaint(vec![writes(1), (2, data())]), told("sends what belongs to no request"));
    assert_eq!(complaint(vec![writes(1), (1, Message::Data(vec![1; 3]))]), told("sends more than it said"));
    assert_eq!(complaint(vec![(1, Message::Abandon)]), told("abandons no request"));
    assert_eq!(complaint(vec![(1, Message::Done)]), told("answers what nobody asked"));
    assert_eq!(complaint(vec![writes(1), writes(1)]), told("gives two requests one number"));
    assert_eq!(complaint((0..=u32::from(AT_ONCE)).map(writes).collect()), told("makes more requests at once"));
    let misunderstood = |bytes: &[u8]| match ground.converse(bytes).0 {
        Err(ServeError::Wire(error)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(misunderstood(b"GET / HTTP/1.1\r\n\r\n"), "something else answers, which begins with `GET / HTTP/1.1`");
    let senseless = [said(vec![]), vec![0, 0, 0, 0, 99, 0, 0, 0, 0]].concat();
    assert_eq!(misunderstood(&senseless), "a frame of kind 99 makes no sense");
    let huge = [said(vec![]), vec![255; 40]].concat();
    assert_eq!(misunderstood(&huge), "a frame has 4294967295 bytes, and may have 131072");
    // Nobody there is no misunderstanding.
    ground.converse(b"").0.unwrap();
    assert_eq!(ground.everything(), before, "of what was begun nothing is left");
}

#[test]
fn who_asks_for_too_much_gets_an_answer_and_no_memory() {
    let ground = Ground::new();
    let before = ground.everything();
    let one = || "index/one".to_owned();
    let failed = |request: Message, wanted: Trouble| {
        let answer = ground.ask(request.clone());
        assert!(matches!(&answer, Message::Failed { trouble, .. } if *trouble == wanted), "{request:?}: {answer:?}");
    };
    failed(Message::Span { name: one(), start: 0, end: u64::MAX }, Trouble::Garbled);
    failed(Message::Span { name: one(), start: 1, end: 0 }, Trouble::Garbled);
    failed(Message::Span { name: "index/none".to_owned(), start: 0, end: 1 }, Trouble::Missing);
    failed(Message::Read { name: one(), most_bytes: 0 }, Trouble::Garbled);
    failed(Message::Read { name: "index".to_owned(), most_bytes: 9 }, Trouble::Other);
    failed(Message::Create { name: "new".to_owned(), bytes: CREATE_MAX_BYTES + 1 }, Trouble::Unsupported);
    failed(Message::Known { count: u32::MAX }, Trouble::Unsupported);
    // What was to come does not.
    failed(Message::Write { name: "new".to_owned(), bytes: u64::MAX }, Trouble::Garbled);
    failed(Message::Create { name: "new".to_owned(), bytes: 5 }, Trouble::Garbled);
    failed(Message::Known { count: 1 }, Trouble::Garbled);
    assert_eq!(ground.ask(Message::Read { name: one(), most_bytes: u64::MAX }), Message::Done);
    assert_eq!(ground.everything(), before);
}

#[test]
fn a_file_is_there_whole_or_not_at_all_wherever_the_pipe_is_cut() {
    let content: Vec<u8> = (0..3 * FRAME_MAX_BYTES + 5).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let bytes = said(write_of(3, "packs/aa/pack", &content));
    let ends = (0..60).chain((60..bytes.len()).step_by(9973)).chain(bytes.len() - 3..=bytes.len());
    let mut whole = 0;
    for end in ends {
        let ground = Ground::new();
        let _ = ground.converse(&bytes[..end]);
        match ground.directory().read("packs/aa/pack", u64::MAX).unwrap() {
            Some(read) => {
                assert!(read == content, "cut at {end}");
                whole += 1;
            }
            None => assert!(end < bytes.len(), "all of it came"),
        }
        let is_left = |path: &PathBuf| crate::disk::is_temporary(path.file_name().unwrap());
        assert!(!ground.everything().iter().any(is_left), "cut at {end}");
    }
    assert_eq!(whole, 1);
    // Nor is it there if the client thinks better of it.
    let ground = Ground::new();
    let mut frames = write_of(3, "pack", &content);
    frames.pop();
    frames.push((3, Message::Abandon));
    let (ended, answers) = ground.converse(&said(frames));
    ended.unwrap();
    assert!(matches!(answers[&3].1, Some(Message::Failed { trouble: Trouble::Garbled, .. })));
    assert_eq!(ground.directory().read("pack", u64::MAX).unwrap(), None);
}

/// A client that asks and asks, and counts how often.
struct Insatiable<'a> {
    asked: &'a Mutex<u32>,
    told: &'a Condvar,
    greeting: Option<Vec<u8>>,
}

const ASKS: u32 = 300;

impl Read for Insatiable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.greeting.take().or_else(|| {
            let mut asked = lock(self.asked);
            *asked += 1;
            self.told.notify_all();
            let message = Message::Remove { name: "none".to_owned() };
            (*asked <= ASKS).then(|| Frame { id: *asked, message }.encode())
        });
        let bytes = bytes.unwrap_or_default();
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }
}

/// Takes no answer before everything was asked, or that was waited for long enough.
struct Unwilling<'a> {
    asked: &'a Mutex<u32>,
    told: &'a Condvar,
    greeted: bool,
    /// How much had been asked when the first answer was taken.
    seen: Option<u32>,
}

impl Write for Unwilling<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.greeted && self.seen.is_none() {
            let patience = std::time::Duration::from_secs(1);
            let waited = self.told.wait_timeout_while(lock(self.asked), patience, |asked| *asked <= ASKS);
            self.seen = Some(*waited.unwrap().0);
        }
        self.greeted = true;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn who_takes_no_answers_is_heard_no_longer_until_it_does() {
    let ground = Ground::new();
    let (asked, told) = (Mutex::new(0), Condvar::new());
    let mut output = Unwilling { asked: &asked, told: &told, greeted: false, seen: None };
    let input = Insatiable { asked: &asked, told: &told, greeting: Some(said(vec![])) };
    let ended = serve(ground.root(), input, &mut output);
    // Once answers are taken, it goes on; whether that is soon enough for who never waits is chance.
    assert!(ended.is_ok() || ended.unwrap_err().to_string().contains("makes more requests at once"));
    let seen = output.seen.unwrap();
    assert!(seen <= 2 * u32::from(AT_ONCE) + 2, "{seen} requests were heard");
}

fn names() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(odd_names()),
        prop::sample::select(vec![
            "index/one".to_owned(),
            "index".to_owned(),
            "a/b".to_owned(),
            "../beside".to_owned()
        ]),
        "[a-z./]{0,8}",
    ]
}

fn requests() -> impl Strategy<Value = Message> {
    let length = || prop_oneof![0..20_u64, any::<u64>()];
    prop_oneof![
        names().prop_map(|directory| Message::List { directory }),
        (names(), length()).prop_map(|(name, most_bytes)| Message::Read { name, most_bytes }),
        (names(), length(), length()).prop_map(|(name, start, end)| Message::Span { name, start, end }),
        (names(), length()).prop_map(|(name, bytes)| Message::Write { name, bytes }),
        (names(), length()).prop_map(|(name, bytes)| Message::Create { name, bytes }),
        names().prop_map(|name| Message::Remove { name }),
        (0..40_u32).prop_map(|count| Message::Known { count }),
        vec(any::<u8>(), 1..40).prop_map(Message::Data),
        Just(Message::Abandon),
        Just(Message::Done),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_is_said_changes_nothing_beside_the_directory(
        frames in vec((0..3_u32, requests()), 0..12),
        noise in vec(any::<u8>(), 0..30),
    ) {
        let ground = Ground::new();
        let _ = serve(ground.root(), [said(frames), noise].concat().as_slice(), io::sink());
        let beside: Vec<_> = std::fs::read_dir(ground.scratch.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        prop_assert!(beside.iter().all(|name| name == "beside" || name == "served"), "{beside:?}");
        prop_assert_eq!(std::fs::read(ground.beside()).unwrap(), BESIDE);
    }
}
