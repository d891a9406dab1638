//! The command line: verbs, terminal, hints, exit codes, JSON.
//!
//! A command parses one verb, calls the rooms below, and shows one value. The
//! answer goes to standard output, everything else to standard error.

mod answer;
mod audit;
mod check;
mod checkout;
mod clone;
mod completions;
mod diff;
mod env;
mod fail;
mod fsck;
mod gc;
mod hooks;
mod init;
mod log;
mod open;
mod pull;
mod push;
mod reach;
mod remote;
mod run;
mod schema;
mod serve;
mod shell;
mod show;
mod snapshot;
mod status;
mod store;
mod travel;
mod ui;
mod verify;
mod why;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use ui::Ui;

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 a difference was found, 2 bad usage or definition, 3 a step failed, 4 the
store is damaged or an object is missing, 5 an environment cannot be provided, 130 interrupted.

A first round:
  pv init                     make a first pipeline in this repository
  pv run                      bring the results up to date
  pv snapshot --tag v1.0      keep code, configuration, data and environment, and name it
  pv diff v1.0                what changed since
  pv run v1.0                 execute exactly that again, and compare";

/// The pipeline that commands work on unless they are told another.
const DEFAULT_PIPELINE: &str = "pipeline";

/// Git-backed, content-addressed versioning of data and machine-learning pipelines
#[derive(Parser)]
#[command(name = "pv", version, after_help = AFTER_HELP, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// Options that every command takes.
#[derive(clap::Args)]
#[command(next_help_heading = "Options of every command")]
struct Global {
    /// Work as if started in this directory
    #[arg(short = 'C', value_name = "DIR", global = true)]
    directory: Option<PathBuf>,
    /// Work on `.pipeline/NAME.yaml`
    #[arg(long, value_name = "NAME", default_value = DEFAULT_PIPELINE, global = true)]
    pipeline: String,
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    json: bool,
    /// Print the answer only, nothing on the way
    #[arg(short, long, global = true)]
    quiet: bool,
}

#[derive(Subcommand)]
enum Verb {
    Init(init::Args),
    Clone(clone::Args),
    Snapshot(snapshot::Args),
    Run(run::Args),
    Status(status::Args),
    Audit(audit::Args),
    Why(why::Args),
    Verify(verify::Args),
    Shell(shell::Args),
    Diff(diff::Args),
    Log(log::Args),
    Show(show::Args),
    Env(env::Args),
    Checkout(checkout::Args),
    Push(push::Args),
    Pull(pull::Args),
    Remote(remote::Args),
    Check(check::Args),
    Fsck(fsck::Args),
    Gc(gc::Args),
    Store(store::Args),
    Hooks(hooks::Args),
    Schema(schema::Args),
    Serve(serve::Args),
    Completions(completions::Args),
}

/// Runs the command that the arguments of the process name, and returns its exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers; they end with 0. A closed pipe is nobody's fault.
            let code = error.exit_code();
            let _ = error.print();
            return ExitCode::from(u8::try_from(code).unwrap_or(2));
        }
    };
    let mut ui = Ui::new(cli.global.json, cli.global.quiet);
    let result = match &cli.verb {
        Verb::Init(args) => init::run(&mut ui, &cli.global, args),
        Verb::Clone(args) => clone::run(&mut ui, &cli.global, args),
        Verb::Snapshot(args) => snapshot::run(&mut ui, &cli.global, args),
        Verb::Run(args) => run::run(&mut ui, &cli.global, args),
        Verb::Status(args) => status::run(&mut ui, &cli.global, args),
        Verb::Audit(args) => audit::run(&mut ui, &cli.global, args),
        Verb::Verify(args) => verify::run(&mut ui, &cli.global, args),
        Verb::Why(args) => why::run(&mut ui, &cli.global, args),
        Verb::Shell(args) => shell::run(&mut ui, &cli.global, args),
        Verb::Diff(args) => diff::run(&mut ui, &cli.global, args),
        Verb::Log(args) => log::run(&mut ui, &cli.global, args),
        Verb::Show(args) => show::run(&mut ui, &cli.global, args),
        Verb::Env(args) => env::run(&mut ui, &cli.global, args),
        Verb::Checkout(args) => checkout::run(&mut ui, &cli.global, args),
        Verb::Push(args) => push::run(&mut ui, &cli.global, args),
        Verb::Pull(args) => pull::run(&mut ui, &cli.global, args),
        Verb::Remote(args) => remote::run(&mut ui, &cli.global, args),
        Verb::Check(args) => check::run(&mut ui, &cli.global, args),
        Verb::Fsck(args) => fsck::run(&mut ui, &cli.global, args),
        Verb::Gc(args) => gc::run(&mut ui, &cli.global, args),
        Verb::Store(args) => store::run(&mut ui, &cli.global, args),
        Verb::Hooks(args) => hooks::run(&mut ui, &cli.global, args),
        Verb::Schema(args) => schema::run(&mut ui, &cli.global, args),
        Verb::Serve(args) => serve::run(&cli.global, args),
        Verb::Completions(args) => completions::run(&mut ui, &cli.global, args),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => ui.fail(&error),
    }
}
