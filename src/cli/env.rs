//! `pv env`: the environments that steps run in.

mod diff;
mod lock;

use super::Global;
use super::fail::CliError;
use super::ui::Ui;

/// Make and compare the environments that steps run in
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    Lock(lock::Args),
    Diff(diff::Args),
}

pub(super) fn run(ui: &mut Ui, global: &Global, args: &Args) -> Result<u8, CliError> {
    match &args.action {
        Action::Lock(args) => lock::run(ui, global, args),
        Action::Diff(args) => diff::run(ui, global, args),
    }
}
