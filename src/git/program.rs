//! Starting the `git` program, for what the library cannot do.

use std::process::{Command, Stdio};

use super::Repository;

/// How much of what git said goes into an error.
const MESSAGE_CHARS: usize = 400;

impl Repository {
    /// Returns a `git` command that works on this repository, says nothing on the terminal and speaks English.
    pub(super) fn program(&self) -> Command {
        let mut command = program();
        // What git handed to its hook may be relative to another directory.
        command.current_dir(self.work_directory().unwrap_or(self.git_directory())).env("GIT_DIR", self.git_directory());
        match self.work_directory() {
            Some(root) => command.env("GIT_WORK_TREE", root),
            None => command.env_remove("GIT_WORK_TREE"),
        };
        command.env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// Returns a `git` command as the user would start it.
pub(super) fn program() -> Command {
    #[expect(clippy::disallowed_methods, reason = "the one place in this room that starts a program")]
    Command::new("git")
}

/// Returns the end of what a program said, fit for a terminal: others may have had their say in it.
pub(super) fn said(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let fit: Vec<char> = text.trim_end().chars().filter(|sign| *sign == '\n' || !sign.is_control()).collect();
    fit[fit.len().saturating_sub(MESSAGE_CHARS)..].iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_cannot_command_the_terminal() {
        assert_eq!(said(b"remote: \x1b[31mred\x07\nfatal: no\n\n"), "remote: [31mred\nfatal: no");
        assert_eq!(said("é".repeat(500).as_bytes()).chars().count(), MESSAGE_CHARS);
    }
}
