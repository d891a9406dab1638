//! `pv completions`: what a shell needs to complete commands and options.

use clap::CommandFactory;
use clap_complete::Shell;

use super::fail::CliError;
use super::ui::Ui;
use super::{Cli, Global};

/// Print the completion script of a shell
///
/// For bash, for example: `pv completions bash > ~/.local/share/bash-completion/completions/pv`
#[derive(clap::Args)]
pub(super) struct Args {
    /// Which shell
    shell: Shell,
}

pub(super) fn run(ui: &mut Ui, _global: &Global, args: &Args) -> Result<u8, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pv", &mut script);
    ui.bytes(&script)?;
    Ok(0)
}
