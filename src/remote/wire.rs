//! What two `pv` say to each other over a pipe: frames, bounded in length, each for one request.
//!
//! Pure but for reading and writing. Whatever bytes come, what comes out is a
//! frame or an error, and never takes more memory than one frame may have.
//! `docs/format.md` describes every byte.

use std::io::{self, Read, Write};

use super::bucket::{Listed, Trouble};
use crate::host::Time;

/// Both sides say this before anything else.
pub(super) const GREETING: [u8; 8] = *b"pvSERVE\n";
/// No frame carries more bytes, which is also how much of a file goes in one frame.
pub(super) const FRAME_MAX_BYTES: usize = 128 << 10;
/// So many requests may be under way at once.
pub(super) const AT_ONCE: u16 = 16;
/// No name is longer.
pub(super) const NAME_MAX_BYTES: usize = 1024;
/// So many records may be asked for in one request.
pub(super) const ASKED_MAX: usize = 65_536;
/// No file that is written only if there is none is longer.
pub(super) const CREATE_MAX_BYTES: u64 = 1 << 20;
/// The other side tells by itself which records it has.
pub(super) const KNOWN_FEATURE: &str = "known";

/// The versions of the protocol that this program speaks.
const VERSIONS: (u16, u16) = (1, 1);
const HEADER_BYTES: usize = 9;
const SAID_MAX_BYTES: usize = 1000;

/// What each side says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Hello {
    /// The oldest version of the protocol that it speaks.
    pub(super) oldest: u16,
    /// The newest.
    pub(super) newest: u16,
    /// How many requests may be under way at once.
    pub(super) at_once: u16,
    /// What it can do beyond the version; unknown names mean nothing.
    pub(super) features: Vec<String>,
}

/// One frame: what is said, and for which request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Frame {
    /// The request, by the number that its asker gave it.
    pub(super) id: u32,
    /// What is said.
    pub(super) message: Message,
}

/// What is said in a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Message {
    /// The first frame of each side.
    Hello(Hello),
    /// Asks for the files in a directory.
    List {
        /// The directory; empty for the topmost.
        directory: String,
    },
    /// Asks for a whole file.
    Read {
        /// Its name.
        name: String,
        /// A longer one is not wanted.
        most_bytes: u64,
    },
    /// Asks for some bytes of a file.
    Span {
        /// Its name.
        name: String,
        /// The first byte.
        start: u64,
        /// The one behind the last.
        end: u64,
    },
    /// Wants a file to be written; its bytes follow.
    Write {
        /// Its name.
        name: String,
        /// How many bytes follow.
        bytes: u64,
    },
    /// Wants a file to be written if there is none of this name; its bytes follow.
    Create {
        /// Its name.
        name: String,
        /// How many bytes follow.
        bytes: u64,
    },
    /// Wants a file to be removed.
    Remove {
        /// Its name.
        name: String,
    },
    /// Asks which records are there; they follow.
    Known {
        /// How many follow.
        count: u32,
    },
    /// Bytes that belong to a request or to its answer.
    Data(Vec<u8>),
    /// The rest of what was to follow does not come, and nothing is to be done.
    Abandon,
    /// The answer ends here: it was done.
    Done,
    /// The answer: there is no such file.
    Absent,
    /// The answer: there is a file of this name already.
    Exists,
    /// The answer: it was not done, or not to its end.
    Failed {
        /// What sort of failure it is.
        trouble: Trouble,
        /// What the system said.
        said: String,
    },
}

/// Why there is no frame.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The pipe cannot be read or written.
    #[error("the pipe broke")]
    Pipe(#[from] io::Error),
    /// The pipe ended where a frame had begun.
    #[error("it ends in the middle of a frame")]
    Cut,
    /// A frame is longer than any may be.
    #[error("a frame has {bytes} bytes, and may have {FRAME_MAX_BYTES}")]
    TooLong {
        /// How long it says that it is.
        bytes: u32,
    },
    /// A frame cannot be understood.
    #[error("a frame of kind {kind} makes no sense")]
    Senseless {
        /// The number of its kind.
        kind: u8,
    },
    /// What comes first is no greeting.
    #[error("something else answers, which begins with `{begin}`")]
    NoGreeting {
        /// What it begins with.
        begin: String,
    },
    /// There is no version of the protocol that both speak.
    #[error("it speaks versions {oldest} to {newest} of the protocol, and this program {} to {}", VERSIONS.0, VERSIONS.1)]
    Version {
        /// The oldest that the other side speaks.
        oldest: u16,
        /// The newest.
        newest: u16,
    },
}

impl Hello {
    /// Returns what this program says of itself.
    pub(super) fn own() -> Self {
        let (oldest, newest) = VERSIONS;
        Self { oldest, newest, at_once: AT_ONCE, features: vec![KNOWN_FEATURE.to_owned()] }
    }

    /// Returns whether it can do something beyond the version.
    pub(super) fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|known| known == feature)
    }

    /// Sees whether there is a version that both speak.
    fn check(self) -> Result<Self, WireError> {
        let is_common = self.oldest <= VERSIONS.1 && self.newest >= VERSIONS.0 && self.oldest <= self.newest;
        if is_common { Ok(self) } else { Err(WireError::Version { oldest: self.oldest, newest: self.newest }) }
    }
}

/// Says the first words.
pub(super) fn greet(output: &mut dyn Write, hello: Hello) -> io::Result<()> {
    let mut bytes = GREETING.to_vec();
    bytes.extend(Frame { id: 0, message: Message::Hello(hello) }.encode());
    output.write_all(&bytes)?;
    output.flush()
}

/// Reads the first words of the other side; `None` if it says nothing at all.
pub(super) fn meet(input: &mut io::BufReader<impl Read>) -> Result<Option<Hello>, WireError> {
    let mut greeting = [0; GREETING.len()];
    let count = read_up_to(input, &mut greeting)?;
    if count == 0 {
        return Ok(None);
    }
    if greeting != GREETING {
        // What a shell of the other side prints at its begin, most often. What has come of it tells enough.
        let mut begin = greeting[..count].to_vec();
        begin.extend(input.buffer().iter().take(80));
        return Err(WireError::NoGreeting { begin: printable(&String::from_utf8_lossy(&begin), 80) });
    }
    match Frame::read(input)? {
        Some(Frame { id: 0, message: Message::Hello(hello) }) => Ok(Some(hello.check()?)),
        Some(frame) => Err(WireError::Senseless { kind: frame.message.kind() }),
        None => Err(WireError::Cut),
    }
}

/// Returns at most the last `most_chars` of a text from elsewhere, in one line that does nothing to a terminal.
pub(super) fn printable(text: &str, most_chars: usize) -> String {
    let words = text.split(|sign: char| sign.is_whitespace() || sign.is_control()).filter(|word| !word.is_empty());
    let line = words.collect::<Vec<_>>().join(" ");
    let skip = line.chars().count().saturating_sub(most_chars);
    line.chars().skip(skip).collect()
}

impl Frame {
    /// Reads the next frame; `None` if the pipe ends before it.
    ///
    /// # Errors
    ///
    /// [`WireError`] if there is none; what follows cannot be read either then.
    pub(super) fn read(input: &mut dyn Read) -> Result<Option<Self>, WireError> {
        let mut header = [0; HEADER_BYTES];
        match read_up_to(input, &mut header)? {
            0 => return Ok(None),
            HEADER_BYTES => {}
            _ => return Err(WireError::Cut),
        }
        let mut fields = Fields(&header);
        let (bytes, kind, id) = (fields.u32(), fields.u8(), fields.u32());
        let (Some(bytes), Some(kind), Some(id)) = (bytes, kind, id) else { return Err(WireError::Cut) };
        let length = usize::try_from(bytes).ok().filter(|length| *length <= FRAME_MAX_BYTES);
        let mut payload = vec![0; length.ok_or(WireError::TooLong { bytes })?];
        if read_up_to(input, &mut payload)? < payload.len() {
            return Err(WireError::Cut);
        }
        match Message::decode(kind, payload) {
            Some(message) => Ok(Some(Self { id, message })),
            None => Err(WireError::Senseless { kind }),
        }
    }

    /// Returns the bytes of the frame.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        bytes.push(self.message.kind());
        bytes.extend_from_slice(&self.id.to_le_bytes());
        self.message.encode(&mut bytes);
        let length = u32::try_from(bytes.len() - HEADER_BYTES).expect("whoever makes a message keeps to the limits");
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes
    }
}

impl Message {
    /// Returns the answer that something was not done.
    pub(super) fn failed(trouble: Trouble, said: &str) -> Self {
        let end = (0..=said.len().min(SAID_MAX_BYTES)).rev().find(|end| said.is_char_boundary(*end));
        Self::Failed { trouble, said: said[..end.unwrap_or(0)].to_owned() }
    }

    /// Returns the number of its kind.
    fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => 0,
            Self::List { .. } => 1,
            Self::Read { .. } => 2,
            Self::Span { .. } => 3,
            Self::Write { .. } => 4,
            Self::Create { .. } => 5,
            Self::Remove { .. } => 6,
            Self::Known { .. } => 7,
            Self::Data(_) => 16,
            Self::Abandon => 17,
            Self::Done => 32,
            Self::Absent => 33,
            Self::Exists => 34,
            Self::Failed { .. } => 35,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(hello) => {
                for number in [hello.oldest, hello.newest, hello.at_once] {
                    out.extend_from_slice(&number.to_le_bytes());
                }
                let count = u16::try_from(hello.features.len()).expect("there are few");
                out.extend_from_slice(&count.to_le_bytes());
                hello.features.iter().for_each(|feature| put_text(out, feature));
            }
            Self::List { directory: name } | Self::Remove { name } => put_text(out, name),
            Self::Read { name, most_bytes: bytes } | Self::Write { name, bytes } | Self::Create { name, bytes } => {
                put_text(out, name);
                out.extend_from_slice(&bytes.to_le_bytes());
            }
            Self::Span { name, start, end } => {
                put_text(out, name);
                out.extend_from_slice(&start.to_le_bytes());
                out.extend_from_slice(&end.to_le_bytes());
            }
            Self::Known { count } => out.extend_from_slice(&count.to_le_bytes()),
            Self::Data(bytes) => out.extend_from_slice(bytes),
            Self::Abandon | Self::Done | Self::Absent | Self::Exists => {}
            Self::Failed { trouble, said } => {
                out.push(trouble_number(*trouble));
                put_text(out, said);
            }
        }
    }

    fn decode(kind: u8, payload: Vec<u8>) -> Option<Self> {
        if kind == 16 {
            // Bytes that are none would keep the other side busy for nothing.
            return (!payload.is_empty()).then_some(Self::Data(payload));
        }
        let mut fields = Fields(&payload);
        let message = match kind {
            0 => {
                let (oldest, newest, at_once, count) = (fields.u16()?, fields.u16()?, fields.u16()?, fields.u16()?);
                let features = (0..count).map(|_| fields.text()).collect::<Option<_>>()?;
                // What a later version adds here is none of our business.
                fields.0 = &[];
                Self::Hello(Hello { oldest, newest, at_once, features })
            }
            1 => Self::List { directory: fields.text()? },
            2 => Self::Read { name: fields.text()?, most_bytes: fields.u64()? },
            3 => Self::Span { name: fields.text()?, start: fields.u64()?, end: fields.u64()? },
            4 => Self::Write { name: fields.text()?, bytes: fields.u64()? },
            5 => Self::Create { name: fields.text()?, bytes: fields.u64()? },
            6 => Self::Remove { name: fields.text()? },
            7 => Self::Known { count: fields.u32()? },
            17 => Self::Abandon,
            32 => Self::Done,
            33 => Self::Absent,
            34 => Self::Exists,
            35 => Self::Failed { trouble: trouble_of(fields.u8()?), said: fields.text()? },
            _ => return None,
        };
        fields.0.is_empty().then_some(message)
    }
}

/// Returns the bytes that stand for files that are there.
pub(super) fn encode_listed(listed: &[Listed]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for file in listed {
        put_text(&mut bytes, &file.name);
        bytes.extend_from_slice(&file.bytes.to_le_bytes());
        let written = file.written.map_or(i64::MIN, |time| time.epoch_ms);
        bytes.extend_from_slice(&written.to_le_bytes());
    }
    bytes
}

/// Returns the files that the bytes stand for; `None` if they stand for none.
pub(super) fn decode_listed(bytes: &[u8]) -> Option<Vec<Listed>> {
    let mut fields = Fields(bytes);
    let mut listed = Vec::new();
    while !fields.0.is_empty() {
        let (name, bytes, epoch_ms) = (fields.text()?, fields.u64()?, fields.u64()?.cast_signed());
        listed.push(Listed { name, bytes, written: (epoch_ms != i64::MIN).then_some(Time { epoch_ms }) });
    }
    Some(listed)
}

fn trouble_number(trouble: Trouble) -> u8 {
    match trouble {
        Trouble::Other => 0,
        Trouble::Missing => 1,
        Trouble::Refused => 2,
        Trouble::Unsupported => 3,
        Trouble::Unreachable => 4,
        Trouble::Garbled => 5,
    }
}

/// A sort of failure that a later version tells apart is one of the others to this one.
fn trouble_of(number: u8) -> Trouble {
    match number {
        1 => Trouble::Missing,
        2 => Trouble::Refused,
        3 => Trouble::Unsupported,
        4 => Trouble::Unreachable,
        5 => Trouble::Garbled,
        _ => Trouble::Other,
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("names and messages are bounded");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Bytes that are taken apart from their begin.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::from(self.u16()?);
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }
}

/// Fills `buffer` as far as there is something, and returns how far that is.
pub(super) fn read_up_to(input: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match input.read(&mut buffer[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn messages() -> impl Strategy<Value = Message> {
        let name = "[a-z0-9./-]{0,40}";
        let trouble = prop::sample::select(vec![
            Trouble::Missing,
            Trouble::Refused,
            Trouble::Unsupported,
            Trouble::Unreachable,
            Trouble::Garbled,
            Trouble::Other,
        ]);
        let hello = (any::<[u16; 3]>(), vec("[a-z]{0,9}", 0..4)).prop_map(|([oldest, newest, at_once], features)| {
            Message::Hello(Hello { oldest, newest, at_once, features })
        });
        prop_oneof![
            hello,
            name.prop_map(|directory| Message::List { directory }),
            (name, any::<u64>()).prop_map(|(name, most_bytes)| Message::Read { name, most_bytes }),
            (name, any::<u64>(), any::<u64>()).prop_map(|(name, start, end)| Message::Span { name, start, end }),
            (name, any::<u64>()).prop_map(|(name, bytes)| Message::Write { name, bytes }),
            (name, any::<u64>()).prop_map(|(name, bytes)| Message::Create { name, bytes }),
            name.prop_map(|name| Message::Remove { name }),
            any::<u32>().prop_map(|count| Message::Known { count }),
            vec(any::<u8>(), 1..300).prop_map(Message::Data),
            Just(Message::Abandon),
            Just(Message::Done),
            Just(Message::Absent),
            Just(Message::Exists),
            (trouble, ".{0,40}").prop_map(|(trouble, said)| Message::Failed { trouble, said }),
        ]
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in(said in vec((any::<u32>(), messages()), 0..8)) {
            let frames: Vec<_> = said.into_iter().map(|(id, message)| Frame { id, message }).collect();
            let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
            let mut input = bytes.as_slice();
            for frame in frames {
                prop_assert_eq!(Frame::read(&mut input).unwrap(), Some(frame));
            }
            prop_assert!(Frame::read(&mut input).unwrap().is_none());
        }

        #[test]
        fn a_frame_that_is_cut_short_is_no_frame(message in messages(), part in 0.0..1.0) {
            let bytes = Frame { id: 7, message }.encode();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a part of a short length")]
            let end = 1 + ((bytes.len() - 1) as f64 * part) as usize;
            let cut = Frame::read(&mut &bytes[..end.min(bytes.len() - 1)]);
            prop_assert!(matches!(cut, Err(WireError::Cut)), "{cut:?}");
        }

        #[test]
        fn any_bytes_are_frames_or_an_error(bytes in vec(any::<u8>(), 0..400)) {
            let mut input = bytes.as_slice();
            while let Ok(Some(frame)) = Frame::read(&mut input) {
                // What is understood is one thing and has one encoding, but for what later versions add.
                let again = Frame::read(&mut frame.encode().as_slice()).unwrap();
                prop_assert_eq!(again, Some(frame));
            }
            let _ = meet(&mut io::BufReader::new(bytes.as_slice()));
            let _ = decode_listed(&bytes);
        }

        #[test]
        fn any_payload_of_any_kind_is_a_frame_or_an_error(kind in any::<u8>(), payload in vec(any::<u8>(), 0..80)) {
            let mut bytes = u32::try_from(payload.len()).unwrap().to_le_bytes().to_vec();
            bytes.push(kind);
            bytes.extend([1, 0, 0, 0]);
            bytes.extend(&payload);
            match Frame::read(&mut bytes.as_slice()) {
                Ok(Some(frame)) => prop_assert_eq!(frame.id, 1),
                Err(WireError::Senseless { kind: told }) => prop_assert_eq!(told, kind),
                other => prop_assert!(false, "{other:?}"),
            }
        }

        #[test]
        fn listed_files_come_out_as_they_went_in(
            files in vec(("[a-z0-9.-]{1,80}", any::<u64>(), proptest::option::of(0..i64::MAX)), 0..9),
        ) {
            let listed: Vec<_> = files
                .into_iter()
                .map(|(name, bytes, ms)| Listed { name, bytes, written: ms.map(|epoch_ms| Time { epoch_ms }) })
                .collect();
            prop_assert_eq!(decode_listed(&encode_listed(&listed)), Some(listed));
        }
    }

    /// A pipe that goes on for ever and counts what is taken from it.
    struct Endless {
        head: Vec<u8>,
        taken: usize,
    }

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            for byte in &mut *buffer {
                *byte = self.head.get(self.taken).copied().unwrap_or(b'x');
                self.taken += 1;
            }
            Ok(buffer.len())
        }
    }

    #[test]
    fn a_frame_that_says_it_is_huge_is_refused_before_any_of_it_is_read() {
        for bytes in [u32::try_from(FRAME_MAX_BYTES).unwrap() + 1, u32::MAX] {
            let mut input = Endless { head: bytes.to_le_bytes().to_vec(), taken: 0 };
            let refused = Frame::read(&mut input);
            assert!(matches!(refused, Err(WireError::TooLong { bytes: told }) if told == bytes), "{refused:?}");
            assert_eq!(input.taken, HEADER_BYTES);
        }
        let whole = u32::try_from(FRAME_MAX_BYTES).unwrap().to_le_bytes();
        let mut input = Endless { head: [&whole[..], &[16]].concat(), taken: 0 };
        assert!(matches!(Frame::read(&mut input), Ok(Some(Frame { message: Message::Data(_), .. }))));
    }

    #[test]
    fn first_words_are_understood_and_those_of_others_are_shown() {
        let meet = |bytes: &[u8]| meet(&mut io::BufReader::new(bytes));
        let mut bytes = Vec::new();
        greet(&mut bytes, Hello::own()).unwrap();
        assert_eq!(meet(&bytes).unwrap(), Some(Hello::own()));
        assert!(meet(b"").unwrap().is_none());
        let complaint = |bytes: &[u8]| meet(bytes).unwrap_err().to_string();
        assert_eq!(
            complaint(b"Welcome to\x1b[31m  node 7\r\n"),
            "something else answers, which begins with `Welcome to [31m node 7`"
        );
        assert_eq!(complaint(&bytes[..bytes.len() - 1]), "it ends in the middle of a frame");
        let mut later = Vec::new();
        greet(&mut later, Hello { oldest: 2, newest: 3, ..Hello::own() }).unwrap();
        assert_eq!(complaint(&later), "it speaks versions 2 to 3 of the protocol, and this program 1 to 1");
        let mut both = Vec::new();
        greet(&mut both, Hello { newest: 9, ..Hello::own() }).unwrap();
        assert_eq!(meet(&both).unwrap().unwrap().newest, 9);
        // What a later version says of itself besides.
        let mut longer = Frame { id: 0, message: Message::Hello(Hello::own()) }.encode();
        longer.extend(b"more");
        longer[0] += 4;
        assert_eq!(meet(&[&GREETING[..], &longer].concat()).unwrap(), Some(Hello::own()));
    }
}
