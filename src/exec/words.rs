//! The plain words of a shell command line.
//!
//! Best effort, for seeing which programs and project files a command names;
//! never for running it. Pure, and linear in the length of the text.

use std::iter::Peekable;
use std::mem;
use std::str::Chars;

/// A word of a command line, with quotes and backslashes taken off.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Word {
    /// What the program or the shell gets to see.
    pub text: String,
    /// Whether it stands where the shell looks for the name of a command.
    pub is_command: bool,
}

/// Words after which a command follows.
const BEFORE_A_COMMAND: [&str; 14] =
    ["!", "{", "}", "if", "then", "else", "elif", "fi", "do", "done", "while", "until", "esac", "time"];

/// Words after which no command follows.
const BEFORE_A_NAME: [&str; 4] = ["for", "case", "select", "function"];

/// Returns the words of `shell` in their order.
///
/// Left out is what only the shell can know (words with `$`, a backtick, an
/// unquoted `*`, `?` or `[`, or a leading `~`), and what is none (operators,
/// keywords, comments, here-documents, numbers of descriptors).
pub fn words(shell: &str) -> Vec<Word> {
    let mut reader = Reader::new(shell);
    reader.read();
    reader.words
}

/// A word that is being read.
#[derive(Default)]
struct Part {
    text: String,
    /// Whether the shell would put something else in its place.
    expands: bool,
    /// Where the first quoted byte stands.
    quoted_from: Option<usize>,
}

/// What the next word is for.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Role {
    #[default]
    Plain,
    /// It names a file to read or write.
    File,
    /// It is a descriptor or a text.
    Skipped,
    /// It ends a here-document, whose lines may be indented.
    HereDocument { indented: bool },
}

/// What is interrupted by a `(` or a backtick, to be resumed after it.
#[derive(Default)]
struct Frame {
    part: Option<Part>,
    role: Role,
    command: bool,
    backtick: bool,
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    part: Option<Part>,
    role: Role,
    /// Whether the next word is a command.
    command: bool,
    frames: Vec<Frame>,
    here_documents: Vec<(String, bool)>,
    words: Vec<Word>,
}

impl<'a> Reader<'a> {
    fn new(shell: &'a str) -> Self {
        Self {
            rest: shell.chars().peekable(),
            part: None,
            role: Role::Plain,
            command: true,
            frames: Vec::new(),
            here_documents: Vec::new(),
            words: Vec::new(),
        }
    }

    fn read(&mut self) {
        while let Some(next) = self.rest.next() {
            match next {
                ' ' | '\t' | '\r' => self.finish(),
                '\n' => {
                    self.separate();
                    self.skip_here_documents();
                }
                ';' | '&' | '|' => self.separate(),
                '#' if self.part.is_none() => while self.rest.next_if(|next| *next != '\n').is_some() {},
                '(' => self.open(),
                ')' => self.close(),
                '`' => self.backtick(),
                '<' | '>' => self.redirect(next),
                '\\' => self.escape(),
                '\'' => self.single_quotes(),
                '"' => self.double_quotes(),
                '$' => self.dollar(),
                '*' | '?' | '[' => self.expanding(next),
                '~' if self.part.is_none() => self.expanding(next),
                _ => self.part().text.push(next),
            }
        }
        self.finish();
    }

    fn part(&mut self) -> &mut Part {
        self.part.get_or_insert_default()
    }

    fn quoted(&mut self) -> &mut Part {
        let part = self.part();
        part.quoted_from.get_or_insert(part.text.len());
        part
    }

    fn expanding(&mut self, next: char) {
        let part = self.part();
        part.text.push(next);
        part.expands = true;
    }

    /// Ends the word, if there is one.
    fn finish(&mut self) {
        let Some(part) = self.part.take() else { return };
        match mem::take(&mut self.role) {
            Role::Plain => {}
            Role::File => return self.keep(part, false),
            Role::Skipped => return,
            Role::HereDocument { indented } => return self.here_documents.push((part.text, indented)),
        }
        if self.command {
            if part.is_assignment() {
                return self.keep(part, false);
            }
            if part.quoted_from.is_none() && BEFORE_A_COMMAND.contains(&part.text.as_str()) {
                return;
            }
            if part.quoted_from.is_none() && BEFORE_A_NAME.contains(&part.text.as_str()) {
                self.command = false;
                return;
            }
        }
        let is_command = mem::take(&mut self.command);
        self.keep(part, is_command);
    }

    fn keep(&mut self, part: Part, is_command: bool) {
        if !part.expands && !part.text.is_empty() {
            self.words.push(Word { text: part.text, is_command });
        }
    }

    fn separate(&mut self) {
        self.finish();
        self.role = Role::Plain;
        self.command = true;
    }

    fn open(&mut self) {
        let is_substitution = self.part.as_ref().is_some_and(|part| part.expands && part.text.ends_with('$'));
        if !is_substitution {
            self.finish();
        }
        // `<(…)` and `>(…)` stand for a file, but name none.
        let command = if self.role == Role::File { self.command } else { !is_substitution || self.command };
        let role = mem::take(&mut self.role);
        let role = if is_substitution { role } else { Role::Plain };
        self.frames.push(Frame { part: self.part.take(), role, command, backtick: false });
        self.command = true;
    }

    fn close(&mut self) {
        self.finish();
        // Without its `(` it ends a pattern of a `case`.
        self.resume(Frame { command: true, ..Frame::default() });
    }

    fn backtick(&mut self) {
        if self.frames.last().is_some_and(|frame| frame.backtick) {
            self.finish();
            return self.resume(Frame::default());
        }
        self.part().expands = true;
        self.frames.push(Frame {
            part: self.part.take(),
            role: mem::take(&mut self.role),
            command: self.command,
            backtick: true,
        });
        self.command = true;
    }

    fn resume(&mut self, without: Frame) {
        let frame = self.frames.pop().unwrap_or(without);
        (self.part, self.role, self.command) = (frame.part, frame.role, frame.command);
    }

    fn redirect(&mut self, first: char) {
        let is_number = |part: &Part| part.quoted_from.is_none() && part.text.bytes().all(|byte| byte.is_ascii_digit());
        if self.part.as_ref().is_some_and(is_number) {
            self.part = None;
        }
        self.finish();
        let second = self.rest.next_if(|next| matches!((first, next), (_, '&') | ('>', '>' | '|') | ('<', '<' | '>')));
        self.role = match (first, second) {
            (_, Some('&')) => Role::Skipped,
            ('<', Some('<')) if self.rest.next_if_eq(&'<').is_some() => Role::Skipped,
            ('<', Some('<')) => Role::HereDocument { indented: self.rest.next_if_eq(&'-').is_some() },
            _ => Role::File,
        };
    }

    fn skip_here_documents(&mut self) {
        for (end, indented) in mem::take(&mut self.here_documents) {
            while self.rest.peek().is_some() {
                let line: String = self.rest.by_ref().take_while(|next| *next != '\n').collect();
                let line = if indented { line.trim_start_matches('\t') } else { &line };
                if line == end {
                    break;
                }
            }
        }
    }

    fn escape(&mut self) {
        match self.rest.next() {
            None | Some('\n') => {}
            Some(next) => self.quoted().text.push(next),
        }
    }

    fn single_quotes(&mut self) {
        self.quoted();
        while let Some(next) = self.rest.next_if(|next| *next != '\'') {
            self.part().text.push(next);
        }
        self.rest.next();
    }

    fn double_quotes(&mut self) {
        self.quoted();
        while let Some(next) = self.rest.next() {
            match next {
                '"' => return,
                '\\' => match self.rest.next_if(|next| matches!(next, '$' | '`' | '"' | '\\' | '\n')) {
                    Some('\n') => {}
                    escaped => self.part().text.push(escaped.unwrap_or('\\')),
                },
                '$' | '`' => self.expanding(next),
                _ => self.part().text.push(next),
            }
        }
    }

    fn dollar(&mut self) {
        self.expanding('$');
        if self.rest.peek() != Some(&'{') {
            return;
        }
        // `${NAME:-two words}` is one word.
        let mut depth = 0_usize;
        for next in self.rest.by_ref() {
            match next {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return;
            }
        }
    }
}

impl Part {
    fn is_assignment(&self) -> bool {
        let Some(name) = self.text.split_once('=').map(|(name, _)| name) else { return false };
        let is_unquoted = self.quoted_from.is_none_or(|from| from > name.len());
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        is_unquoted && name.bytes().all(is_name) && name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Commands are marked with a `!` in front.
    fn marked(shell: &str) -> Vec<String> {
        let mark = |word: Word| if word.is_command { format!("!{}", word.text) } else { word.text };
        words(shell).into_iter().map(mark).collect()
    }

    #[test]
    fn words_are_split_unquoted_and_marked() {
        let table: &[(&str, &[&str])] = &[
            ("", &[]),
            ("python steps/a.py data/x.csv", &["!python", "steps/a.py", "data/x.csv"]),
            ("a b;c d&&e f||g h|i & j\nk", &["!a", "b", "!c", "d", "!e", "f", "!g", "h", "!i", "!j", "!k"]),
            ("FOO=1 BAR='x y' python a.py FOO=2", &["FOO=1", "BAR=x y", "!python", "a.py", "FOO=2"]),
            ("'FOO'=1 a", &["!FOO=1", "a"]),
            (r#"cat 'a b' "c d" e\ f g"h"'i'"#, &["!cat", "a b", "c d", "e f", "ghi"]),
            (r#"echo "a\"b\\c\n" 'x\y'"#, &["!echo", r#"a"b\c\n"#, r"x\y"]),
            ("cat $FILE \"$x/y\" '$z' *.csv a? [ab] \"*\" ~/f", &["!cat", "$z", "*"]),
            ("$PYTHON a.py", &["a.py"]),
            ("a ${X:-b c} d", &["!a", "d"]),
            ("sort <in >out 2>err >>log 2>&1 <&- x", &["!sort", "in", "out", "err", "log", "x"]),
            (">out cmd x2>y", &["out", "!cmd", "x2", "y"]),
            ("a $(b c)/d.csv e", &["!a", "!b", "c", "e"]),
            ("a `b c` d", &["!a", "!b", "c", "d"]),
            ("(cd x; make y) && z", &["!cd", "x", "!make", "y", "!z"]),
            ("diff <(sort a) <(sort b) c", &["!diff", "!sort", "a", "!sort", "b", "c"]),
            ("if test -f x; then a; else b; fi", &["!test", "-f", "x", "!a", "!b"]),
            ("for f in x y; do cat z; done", &["f", "in", "x", "y", "!cat", "z"]),
            ("! { time a b; }", &["!a", "b"]),
            ("a # b c\nd#e f", &["!a", "!d#e", "f"]),
            ("a \\\n  b", &["!a", "b"]),
            ("python - <<EOF x\nimport y\nEOF\nz", &["!python", "-", "x", "!z"]),
            ("cat <<-'E' <<F\n1\n\tE\n2\nF\nb", &["!cat", "!b"]),
            ("cat <<<text b", &["!cat", "b"]),
            ("a ''", &["!a"]),
            ("a 'open", &["!a", "open"]),
            ("a )b", &["!a", "!b"]),
            ("größe ü.csv", &["!größe", "ü.csv"]),
        ];
        for (shell, expected) in table {
            assert_eq!(&marked(shell), expected, "{shell}");
        }
    }

    proptest! {
        #[test]
        fn any_text_has_words(text in any::<String>(), shell in r#"[ab$'"`\\(){}<>&|;#=*~!\n -]{0,60}"#) {
            for text in [text, shell] {
                for word in words(&text) {
                    prop_assert!(!word.text.is_empty());
                    prop_assert!(word.text.len() <= text.len());
                }
            }
        }

        #[test]
        fn quoted_words_come_back_as_they_were(texts in proptest::collection::vec("[^']{1,20}", 1..6)) {
            let shell: Vec<String> = texts.iter().map(|text| format!("'{text}'")).collect();
            let read: Vec<String> = words(&shell.join(" ")).into_iter().map(|word| word.text).collect();
            prop_assert_eq!(read, texts);
        }
    }
}
