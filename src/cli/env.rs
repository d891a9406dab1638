//! `pv env`: what steps run in.

mod add;
mod diff;
mod export;
mod known;
mod list;
mod lock;
mod remove;
mod show;

use super::Global;
use super::fail::CliError;
use super::ui::Ui;

/// Add, lock, list, show, compare, export and remove what steps run in
///
/// An image is a part of a snapshot like its files: it is in the store, goes to remotes with `pv push`, and is
/// there when the registry that it came from is not.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    Add(add::Args),
    List(list::Args),
    Show(show::Args),
    Export(export::Args),
    Lock(lock::Args),
    Diff(diff::Args),
    Remove(remove::Args),
}

pub(super) fn run(ui: &mut Ui, global: &Global, args: &Args) -> Result<u8, CliError> {
    match &args.action {
        Action::Add(args) => add::run(ui, global, args),
        Action::List(args) => list::run(ui, global, args),
        Action::Show(args) => show::run(ui, global, args),
        Action::Export(args) => export::run(ui, global, args),
        Action::Lock(args) => lock::run(ui, global, args),
        Action::Diff(args) => diff::run(ui, global, args),
        Action::Remove(args) => remove::run(ui, global, args),
    }
}
