//! `pv serve`: the other side of a remote that `ssh` reaches.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use super::Global;
use super::fail::CliError;
use super::open;
use crate::remote;

/// Let another `pv` use a directory of this machine as its remote
///
/// You need not start this: `pv` does, by `ssh`, on the machine that a remote
/// `ssh://host/path` names. It reads requests from standard input, answers them on
/// standard output, touches nothing outside of the directory, and ends when standard
/// input does.
///
/// To let a key be used for nothing else, put this before it in `~/.ssh/authorized_keys`:
///
///   restrict,command="pv serve --stdio /srv/pv" ssh-ed25519 AAAA...
#[derive(clap::Args)]
#[command(hide = true, verbatim_doc_comment)]
pub(super) struct Args {
    /// Talk over standard input and output, the one way there is
    #[arg(long, required = true)]
    stdio: bool,
    /// The directory of the remote; made when something is written
    path: PathBuf,
}

pub(super) fn run(global: &Global, args: &Args) -> Result<u8, CliError> {
    let (stdin, stdout) = (io::stdin(), io::stdout());
    if stdin.is_terminal() {
        return Err(CliError::usage("standard input is a terminal, and no other `pv`")
            .hint("name `ssh://host/path` as a remote on the other machine, and its `pv` starts this one"));
    }
    let root = open::directory(global)?.join(&args.path);
    // Not the buffered ones, which hold back what another program waits for.
    remote::serve(root, raw(stdin.as_fd())?, raw(stdout.as_fd())?)?;
    Ok(0)
}

fn raw(stream: BorrowedFd<'_>) -> Result<File, CliError> {
    Ok(File::from(stream.try_clone_to_owned().map_err(CliError::output)?))
}
