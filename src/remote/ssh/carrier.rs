//! The program that carries bytes to another machine and back, and what it says when it fails.

use std::ffi::OsString;
use std::io::{self, Read};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::Programs;
use crate::remote::wire;

/// How long the rest of what a program says is waited for once it says nothing else.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Of what a program says on its standard error, so much is kept.
const TAIL_BYTES: usize = 4096;
const MESSAGE_CHARS: usize = 600;
const MESSAGE_LINES: usize = 8;
/// What a shell returns for a program that is not there.
const NO_SUCH_PROGRAM: i32 = 127;

/// Where a carrier is to go, and what is to be started there.
pub(super) struct Destination<'a> {
    pub(super) host: &'a str,
    pub(super) port: Option<u16>,
    pub(super) path: &'a str,
}

/// A program that runs, `ssh` or what the user has instead.
pub(super) struct Carrier {
    child: Mutex<Child>,
    tail: Arc<Mutex<Vec<u8>>>,
    /// Ends with the standard error.
    silence: Mutex<Receiver<()>>,
}

/// How a carrier ended.
pub(super) struct End {
    /// What it said last, or how it ended if it said nothing.
    pub(super) said: String,
    /// Whether a program was not there: on the other side, most often.
    pub(super) is_without_program: bool,
}

/// Returns the program to start, and its arguments.
pub(super) fn words(programs: &Programs, to: &Destination<'_>) -> (OsString, Vec<OsString>) {
    let mut words: Vec<OsString> = Vec::new();
    let program = if let Some(own) = &programs.ssh {
        // The user's words are words of a shell, ours are not.
        words.extend(["-c".into(), format!("{own} \"$@\"").into(), "pv".into()]);
        "sh"
    } else {
        // A terminal would change bytes. A silent machine is given up before a minute has passed.
        words.extend(["-T", "-o", "ConnectTimeout=30", "-o", "ServerAliveInterval=15"].map(OsString::from));
        "ssh"
    };
    if let Some(port) = to.port {
        words.extend(["-p".into(), port.to_string().into()]);
    }
    // What replaces `ssh` seldom knows `--`.
    words.extend([to.host.into(), format!("{} serve --stdio -- {}", programs.pv, quoted(to.path)).into()]);
    (program.into(), words)
}

/// Returns the text as one word of a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

impl Carrier {
    /// Starts it, and returns it with its standard input and output.
    pub(super) fn start(programs: &Programs, to: &Destination<'_>) -> io::Result<(Self, ChildStdin, ChildStdout)> {
        let (program, words) = words(programs, to);
        // It asks for passwords on the terminal, so it stays in the group of processes that may. It needs what the user gave us: keys
        // lie where variables say.
        #[expect(clippy::disallowed_methods, reason = "the one place in this room that starts a program")]
        let mut command = Command::new(program);
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(io::Error::other("it has no pipes"));
        };
        let tail = Arc::<Mutex<Vec<u8>>>::default();
        let (sender, silence) = channel();
        let of_thread = Arc::clone(&tail);
        thread::spawn(move || keep_tail(stderr, &of_thread, sender));
        Ok((Self { child: Mutex::new(child), tail, silence: Mutex::new(silence) }, stdin, stdout))
    }

    /// Ends it, whatever it does. Somebody must still ask how it ended.
    pub(super) fn cut(&self) {
        // It has ended by itself, if that fails.
        let _ = self.lock().kill();
    }

    /// Ends it, whatever it does, and returns how it ended.
    pub(super) fn reap(&self) -> Option<ExitStatus> {
        let mut child = self.lock();
        let _ = child.kill();
        child.wait().ok()
    }

    /// Ends it if it does not end soon by itself, and returns what it said.
    pub(super) fn end(&self) -> End {
        // Also ends when everybody has closed it. A process in the background may keep it open for longer than it matters.
        let _ = self.silence.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(LAST_WORDS);
        let status = self.reap();
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is_without_program = status.is_some_and(|status| status.code() == Some(NO_SUCH_PROGRAM));
        End { said: last_words(&tail, status), is_without_program }
    }

    fn lock(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keep_tail(mut stderr: ChildStderr, tail: &Mutex<Vec<u8>>, end: Sender<()>) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = stderr.read(&mut buffer) {
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend_from_slice(&buffer[..count]);
        let surplus = tail.len().saturating_sub(TAIL_BYTES);
        tail.drain(..surplus);
    }
    drop(end);
}

fn last_words(tail: &[u8], status: Option<ExitStatus>) -> String {
    let text = String::from_utf8_lossy(tail);
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(MESSAGE_LINES)..];
    let said = wire::printable(&last.join("; "), MESSAGE_CHARS);
    match (said.is_empty(), status) {
        (false, _) => said,
        (true, Some(status)) => status.to_string(),
        (true, None) => "nobody knows how".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(ssh: Option<&str>, pv: &str, port: Option<u16>, path: &str) -> Vec<String> {
        let programs = Programs { ssh: ssh.map(str::to_owned), pv: pv.to_owned() };
        let (program, words) = words(&programs, &Destination { host: "ada@host", port, path });
        [program].into_iter().chain(words).map(|word| word.into_string().unwrap()).collect()
    }

    #[test]
    fn ssh_is_started_without_a_terminal_and_gives_up_a_silent_machine() {
        assert_eq!(
            told(None, "pv", Some(2222), "/srv/pv"),
            [
                "ssh",
                "-T",
                "-o",
                "ConnectTimeout=30",
                "-o",
                "ServerAliveInterval=15",
                "-p",
                "2222",
                "ada@host",
                "pv serve --stdio -- '/srv/pv'"
            ]
        );
        // The real one understands that.
        let options = &told(None, "pv", Some(2222), "/x")[1..];
        #[expect(clippy::disallowed_methods, reason = "a test of what is started")]
        let output = Command::new("ssh").args(["-F", "none", "-G"]).args(options).output().unwrap();
        let settings = String::from_utf8(output.stdout).unwrap();
        for setting in ["host host", "user ada", "port 2222", "serveraliveinterval 15", "connecttimeout 30"] {
            let is_set =
                settings.lines().any(|line| line == setting || (setting == "host host" && line == "hostname host"));
            assert!(is_set, "{setting}: {settings}");
        }
    }

    #[test]
    fn what_the_user_has_instead_of_ssh_gets_host_port_and_command() {
        assert_eq!(
            told(Some("ssh -i \"$HOME/my key\""), "~/bin/pv", None, "data"),
            ["sh", "-c", "ssh -i \"$HOME/my key\" \"$@\"", "pv", "ada@host", "~/bin/pv serve --stdio -- 'data'"]
        );
    }

    #[test]
    fn a_path_is_one_word_of_the_shell_there_whatever_is_in_it() {
        for path in ["/srv/my data", "it's", "$(touch x)", "a;b", "\\", "`id`", "a\nb", "*"] {
            let script = format!("printf %s {}", quoted(path));
            #[expect(clippy::disallowed_methods, reason = "a test of what a shell does")]
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(output.stdout, path.as_bytes());
        }
    }

    #[test]
    fn last_words_are_one_line_that_does_nothing_to_a_terminal() {
        assert_eq!(
            last_words(b"\n\x1b[2Jbanner\r\n\nada@host: Permission denied (publickey).\r\n", None),
            "[2Jbanner; ada@host: Permission denied (publickey)."
        );
        let long = vec![b'x'; TAIL_BYTES];
        assert_eq!(last_words(&long, None).len(), MESSAGE_CHARS);
        assert!(last_words(b" \n", Some(ExitStatus::default())).contains("exit status"));
    }
}
