//! Following the instructions of a pickle.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{Id, Made, Node, Picture, Storages, spelled};

/// So many things are made; one takes some 100 bytes.
const NODES_MAX: usize = 4_000_000;
/// How often a pickle stands between the instructions of another.
const NESTED_MAX: usize = 8;
/// So much is copied: a pickle may make the same list into sets any number of times.
const COPIED_MAX_BYTES: usize = 256 * 1024 * 1024;

/// Returns what the pickles in `bytes` would build, one behind the other.
pub(super) fn run(bytes: &[u8]) -> Option<Picture<'_>> {
    let mut machine = Machine { bytes, at: 0, nodes: Vec::new(), copied_bytes: 0 };
    let mut roots = Vec::new();
    while machine.at < bytes.len() {
        roots.push(machine.run(0)?);
    }
    Some(Picture { nodes: machine.nodes, roots, storages: Storages::new() })
}

/// Returns what the first `count` pickles in `bytes` would build, and what stands behind them.
pub(super) fn run_first(bytes: &[u8], count: usize) -> Option<(Picture<'_>, &[u8])> {
    let mut machine = Machine { bytes, at: 0, nodes: Vec::new(), copied_bytes: 0 };
    let mut roots = Vec::new();
    for _ in 0..count {
        roots.push(machine.run(0)?);
    }
    Some((Picture { nodes: machine.nodes, roots, storages: Storages::new() }, &bytes[machine.at..]))
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node<'a>>,
    /// How many bytes were copied to make something of what was there.
    copied_bytes: usize,
}

/// What one pickle works with.
#[derive(Default)]
struct Desk {
    stack: Vec<Id>,
    /// Where the stack was when each mark was set.
    marks: Vec<usize>,
    memo: BTreeMap<u64, Id>,
}

impl Desk {
    fn pop(&mut self) -> Option<Id> {
        // What lies below a mark belongs to whoever takes the mark away.
        (self.marks.last().copied().unwrap_or(0) < self.stack.len()).then(|| self.stack.pop())?
    }

    fn top(&self) -> Option<Id> {
        self.stack.last().copied()
    }

    fn since_mark(&mut self) -> Option<Vec<Id>> {
        let mark = self.marks.pop()?;
        (mark <= self.stack.len()).then(|| self.stack.split_off(mark))
    }
}

impl<'a> Machine<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn word<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// Returns a number of `count` bytes, the least significant first.
    fn number(&mut self, count: usize) -> Option<u64> {
        let mut word = [0; 8];
        word[..count].copy_from_slice(self.take(count)?);
        Some(u64::from_le_bytes(word))
    }

    /// Returns as many bytes as the next `count` bytes say.
    fn counted(&mut self, count: usize) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number(count)?).ok()?;
        self.take(length)
    }

    fn line(&mut self) -> Option<&'a str> {
        let line = std::str::from_utf8(self.line_of_bytes()?).ok()?;
        Some(line.trim_end_matches('\r'))
    }

    fn line_of_bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.bytes[self.at..].iter().position(|byte| *byte == b'\n')?;
        let line = self.take(length)?;
        self.at += 1;
        Some(line)
    }

    fn add(&mut self, node: Node<'a>) -> Option<Id> {
        (self.nodes.len() < NODES_MAX).then(|| {
            self.nodes.push(node);
            self.nodes.len() - 1
        })
    }

    /// Follows instructions to the end of one pickle, and returns what it builds.
    fn run(&mut self, depth: usize) -> Option<Id> {
        let mut desk = Desk::default();
        loop {
            let code = self.take(1)?[0];
            if code == b'.' {
                return desk.pop();
            }
            self.step(code, &mut desk, depth)?;
        }
    }

    fn step(&mut self, code: u8, desk: &mut Desk, depth: usize) -> Option<()> {
        match code {
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'(' => desk.marks.push(desk.stack.len()),
            b'0' => drop(desk.pop().or_else(|| desk.marks.pop())?),
            b'1' => drop(desk.since_mark()?),
            b'2' => desk.stack.push(desk.top()?),
            b'g' => {
                let at = self.line()?.parse().ok()?;
                desk.stack.push(*desk.memo.get(&at)?);
            }
            b'h' | b'j' => {
                let at = self.number(if code == b'h' { 1 } else { 4 })?;
                desk.stack.push(*desk.memo.get(&at)?);
            }
            b'p' => drop(desk.memo.insert(self.line()?.parse().ok()?, desk.top()?)),
            b'q' | b'r' => {
                let at = self.number(if code == b'q' { 1 } else { 4 })?;
                desk.memo.insert(at, desk.top()?);
            }
            0x94 => drop(desk.memo.insert(desk.memo.len() as u64, desk.top()?)),
            b'a' | b'e' | 0x90 => {
                let items = if code == b'a' { vec![desk.pop()?] } else { desk.since_mark()? };
                self.append(desk.top()?, items)?;
            }
            b's' | b'u' => {
                let items = if code == b's' {
                    let value = desk.pop()?;
                    vec![desk.pop()?, value]
                } else {
                    desk.since_mark()?
                };
                self.set(desk.top()?, &items)?;
            }
            b'b' => {
                let state = desk.pop()?;
                self.build(desk.top()?, state, depth)?;
            }
            _ => {
                let node = match self.value(code)? {
                    Some(node) => node,
                    None => self.made(code, desk)?,
                };
                let id = self.add(node)?;
                desk.stack.push(id);
            }
        }
        Some(())
    }

    /// Returns what an instruction makes of the bytes behind it alone; inside `None` if it is none of those.
    #[expect(clippy::option_option, reason = "broken off is not the same as something else")]
    fn value(&mut self, code: u8) -> Option<Option<Node<'a>>> {
        let text = |bytes: &'a [u8]| std::str::from_utf8(bytes).ok().map(|text| Node::Text(Cow::Borrowed(text)));
        let bytes = |bytes: &'a [u8]| Node::Bytes(Cow::Borrowed(bytes));
        Some(Some(match code {
            b'N' => Node::None,
            0x88 | 0x89 => Node::Bool(code == 0x88),
            b'I' => match self.line()? {
                "00" => Node::Bool(false),
                "01" => Node::Bool(true),
                line => spelled::whole(line)?,
            },
            b'L' => spelled::whole(self.line()?.trim_end_matches('L'))?,
            b'J' => Node::Whole(i32::from_le_bytes(self.word()?).into()),
            b'K' => Node::Whole(self.number(1)?.into()),
            b'M' => Node::Whole(self.number(2)?.into()),
            0x8a | 0x8b => large(self.counted(if code == 0x8a { 1 } else { 4 })?),
            b'F' => Node::Float(self.line()?.parse().ok()?),
            b'G' => Node::Float(f64::from_be_bytes(self.word()?)),
            b'S' => Node::Bytes(spelled::bytes(self.line_of_bytes()?)?.into()),
            b'V' => Node::Text(spelled::text(self.line_of_bytes()?)?.into()),
            b'X' => text(self.counted(4)?)?,
            0x8c => text(self.counted(1)?)?,
            0x8d => text(self.counted(8)?)?,
            b'T' | b'B' => bytes(self.counted(4)?),
            b'U' | b'C' => bytes(self.counted(1)?),
            0x8e | 0x96 => bytes(self.counted(8)?),
            b'c' => global(self.line()?, self.line()?),
            b'P' => {
                let name = Node::Text(Cow::Borrowed(self.line()?));
                Node::Elsewhere(self.add(name)?)
            }
            0x82..=0x84 => {
                let count = [1, 2, 4][usize::from(code - 0x82)];
                Node::Global(format!("extension {}", self.number(count)?))
            }
            b')' => Node::Tuple(Vec::new()),
            b']' => Node::List(Vec::new()),
            b'}' => Node::Map(Vec::new()),
            0x8f => Node::Set(Vec::new()),
            _ => return Some(None),
        }))
    }

    /// Returns what an instruction makes of what lies on the stack.
    fn made(&mut self, code: u8, desk: &mut Desk) -> Option<Node<'a>> {
        Some(match code {
            b't' => Node::Tuple(desk.since_mark()?),
            b'l' => Node::List(desk.since_mark()?),
            0x91 => Node::Set(desk.since_mark()?),
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0..=code - 0x85 {
                    items.push(desk.pop()?);
                }
                items.reverse();
                Node::Tuple(items)
            }
            b'd' => {
                let items = desk.since_mark()?;
                Node::Map(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
            }
            b'Q' => Node::Elsewhere(desk.pop()?),
            0x93 => {
                let (name, module) = (desk.pop()?, desk.pop()?);
                match (&self.nodes[module], &self.nodes[name]) {
                    (Node::Text(module), Node::Text(name)) => global(module, name),
                    _ => return None,
                }
            }
            b'R' | 0x81 => {
                let (arguments, function) = (desk.pop()?, desk.pop()?);
                self.called(function, arguments)?
            }
            0x92 => {
                let (named, arguments, class) = (desk.pop()?, desk.pop()?, desk.pop()?);
                Node::Made(Made { parts: vec![class, arguments, named], ..Made::default() })
            }
            b'o' => {
                let items = desk.since_mark()?;
                let (class, arguments) = items.split_first()?;
                let arguments = self.add(Node::Tuple(arguments.to_vec()))?;
                Node::Made(Made { parts: vec![*class, arguments], ..Made::default() })
            }
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                let class = self.add(global(module, name))?;
                let arguments = desk.since_mark()?;
                let arguments = self.add(Node::Tuple(arguments))?;
                Node::Made(Made { parts: vec![class, arguments], ..Made::default() })
            }
            _ => return None,
        })
    }

    /// Returns what a call makes. What has an instruction of its own in later protocols is the same as by that.
    fn called(&mut self, function: Id, arguments: Id) -> Option<Node<'a>> {
        if let Some(class) = self.is_class_alone(function, arguments) {
            let nothing = self.add(Node::Tuple(Vec::new()))?;
            return Some(Node::Made(Made { parts: vec![class, nothing], ..Made::default() }));
        }
        let Some(simple) = self.simple(function, arguments) else {
            return Some(Node::Made(Made { parts: vec![function, arguments], ..Made::default() }));
        };
        self.copied_bytes += match &simple {
            Node::Set(items) => size_of_val(items.as_slice()),
            Node::Bytes(bytes) => bytes.len(),
            _ => 0,
        };
        (self.copied_bytes <= COPIED_MAX_BYTES).then_some(simple)
    }

    /// Returns the class, if a call makes a thing of it as older protocols do: with no arguments, and from no other.
    fn is_class_alone(&self, function: Id, arguments: Id) -> Option<Id> {
        let (Node::Global(name), Node::Tuple(items)) = (&self.nodes[function], &self.nodes[arguments]) else {
            return None;
        };
        let [class, base, state] = items[..] else { return None };
        let is_it = name == "copyreg._reconstructor"
            && matches!(&self.nodes[base], Node::Global(base) if base == "builtins.object")
            && matches!(self.nodes[state], Node::None);
        is_it.then_some(class)
    }

    /// Returns the set or the bytes that a call makes, as older protocols have no instruction for these.
    fn simple(&self, function: Id, arguments: Id) -> Option<Node<'a>> {
        let (Node::Global(name), Node::Tuple(items)) = (&self.nodes[function], &self.nodes[arguments]) else {
            return None;
        };
        match (name.as_str(), items.as_slice()) {
            ("builtins.set" | "builtins.frozenset", [list]) => match &self.nodes[*list] {
                Node::List(items) => Some(Node::Set(items.clone())),
                _ => None,
            },
            ("builtins.bytes", []) => Some(Node::Bytes(Cow::Borrowed(b""))),
            ("_codecs.encode", [text, code]) => match (&self.nodes[*text], &self.nodes[*code]) {
                (Node::Text(text), Node::Text(code)) if code == "latin1" => spelled::latin(text).map(Node::Bytes),
                _ => None,
            },
            _ => None,
        }
    }

    fn append(&mut self, to: Id, mut items: Vec<Id>) -> Option<()> {
        match &mut self.nodes[to] {
            Node::List(list) | Node::Set(list) => list.append(&mut items),
            Node::Made(made) => made.items.append(&mut items),
            _ => return None,
        }
        Some(())
    }

    fn set(&mut self, to: Id, items: &[Id]) -> Option<()> {
        let pairs = items.chunks_exact(2).map(|pair| (pair[0], pair[1]));
        match &mut self.nodes[to] {
            Node::Map(map) => map.extend(pairs),
            Node::Made(made) => made.pairs.extend(pairs),
            _ => return None,
        }
        Some(())
    }

    fn build(&mut self, thing: Id, state: Id, depth: usize) -> Option<()> {
        if let Node::Made(made) = &mut self.nodes[thing] {
            made.states.push(state);
        } else {
            let inner = self.nodes[thing].clone();
            let inner = self.add(inner)?;
            self.nodes[thing] = Node::Made(Made { parts: vec![inner], states: vec![state], ..Made::default() });
        }
        let nodes = std::mem::take(&mut self.nodes);
        let picture = Picture { nodes, roots: Vec::new(), storages: Storages::new() };
        let wrapped = picture.wrapped(thing, state);
        self.nodes = picture.nodes;
        match wrapped {
            None => Some(()),
            Some(raw) => self.raw(thing, raw, depth),
        }
    }

    /// Takes the elements of an array, which stand behind the instruction that tells of them.
    fn raw(&mut self, thing: Id, raw: super::numpy::Wrapped, depth: usize) -> Option<()> {
        if raw.is_aligned {
            let gap = self.number(1)?;
            self.take(usize::try_from(gap).ok()?)?;
        }
        match raw.bytes {
            Some(bytes) => {
                let data = self.take(bytes)?;
                let Node::Made(wrapper) = self.nodes[thing].clone() else { return None };
                self.nodes[thing] = Node::Raw { wrapper, data };
            }
            // An array of objects is a pickle of its own.
            None if depth < NESTED_MAX => {
                let inner = self.run(depth + 1)?;
                let Node::Made(made) = &mut self.nodes[thing] else { return None };
                made.items.push(inner);
            }
            None => return None,
        }
        Some(())
    }
}

/// Returns a class or function, under the name that it has today.
fn global<'a>(module: &str, name: &str) -> Node<'a> {
    let module = match module {
        "__builtin__" => "builtins",
        "copy_reg" => "copyreg",
        module => module,
    };
    match module.strip_prefix("numpy.core.") {
        Some(rest) => Node::Global(format!("numpy._core.{rest}.{name}")),
        None => Node::Global(format!("{module}.{name}")),
    }
}

/// Returns the whole number with these bytes, the least significant first and the sign in the last bit.
fn large(bytes: &[u8]) -> Node<'_> {
    if bytes.len() > 16 {
        return Node::Large(Cow::Borrowed(bytes));
    }
    let is_negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
    let mut word = [if is_negative { 0xff } else { 0 }; 16];
    word[..bytes.len()].copy_from_slice(bytes);
    Node::Whole(i128::from_le_bytes(word))
}
