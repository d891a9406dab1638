//! `pv remote`: where else objects are.

use std::fmt;

use serde::Serialize;

use super::Global;
use super::answer::{bytes, count};
use super::fail::{CliError, STORE};
use super::open;
use super::reach::{OnRemote, Remote, read_address};
use super::ui::{BAD, FAINT, GOOD, NAME, Ui, paint};
use crate::host::Time;
use crate::project::{Edit, Project};
use crate::remote::{self, Bucket, BucketError, NotAnAddress};

const EXAMPLES: &str = "such as `/mnt/share/pv`, `s3://bucket/pv`, `gs://bucket/pv`, `az://container/pv`, `ssh://host/srv/pv` or `https://host/pv`";
const CREDENTIALS: &str =
    "leave it out; credentials are taken from where each service keeps them, see `pv remote --help`";

/// Say where else objects are: add, list, look at, try and remove remotes
///
/// An address is a directory (a path, also on a mounted share), `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`,
/// `az://CONTAINER/PREFIX`, `ssh://HOST/PATH`, or `https://HOST/PATH`, which can only be read. Credentials are
/// taken from where each service keeps them; they are never stored and never shown.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Add a remote, or give one another address
    ///
    /// It is written into `.pipeline/config.yaml`, so that everybody who has the project has it; commit that file.
    Add {
        /// What it is to be called
        name: String,
        /// Where it is
        address: String,
        /// Write it into the Git directory instead: for this clone alone
        #[arg(long)]
        private: bool,
        /// Replace the address of a remote that is there
        #[arg(short, long)]
        force: bool,
    },
    /// List the remotes
    List,
    /// Show what a remote holds
    Show {
        /// The remote, if not the usual one
        name: Option<String>,
    },
    /// Take a remote off the list; what it holds stays there
    Remove {
        /// Its name
        name: String,
    },
    /// Try whether a remote can be listed, written, read and cleaned up
    ///
    /// Writes a small file there and removes it. Ends with 4 if anything fails that the kind of remote should be able to do.
    Check {
        /// The remote, if not the usual one
        name: Option<String>,
    },
}

pub(super) fn run(ui: &mut Ui, global: &Global, args: &Args) -> Result<u8, CliError> {
    let project = open::project(ui, global)?;
    match args.action.as_ref().unwrap_or(&Action::List) {
        Action::Add { name, address, private, force } => add(ui, &project, name, address, *private, *force),
        Action::List => list(ui, &project),
        Action::Show { name } => show(ui, &project, name.as_deref()),
        Action::Remove { name } => remove(ui, &project, name),
        Action::Check { name } => check(ui, &project, name.as_deref()),
    }
}

#[derive(Serialize)]
struct Added {
    name: String,
    address: String,
    private: bool,
}

fn add(ui: &mut Ui, project: &Project, name: &str, address: &str, private: bool, force: bool) -> Result<u8, CliError> {
    let remotes = project.remotes()?;
    let fault = |error| match error {
        // It is not shown again.
        NotAnAddress::Password => CliError::usage(error.to_string()).hint(CREDENTIALS),
        error => CliError::usage(format!("`{address}` is no address of a remote: {error}")),
    };
    let read = read_address(project, address)
        .map_err(fault)
        .map_err(|error| if error.has_hint() { error } else { error.hint(EXAMPLES) })?;
    if let Some(there) = remotes.named.get(name)
        && there.address != address
        && !force
    {
        return Err(CliError::usage(format!("remote `{name}` is already at `{}`", there.address))
            .hint("choose another name, or give it the new address with `--force`"));
    }
    match project.set_remote(name, address, private)? {
        Edit::Done(_) => ui.show(&Added { name: name.to_owned(), address: read.to_string(), private })?,
        Edit::ByHand(path) => {
            return Err(CliError::usage(format!("`{}` could not be edited", path.display()))
                .hint(format!("write `{name}: {address}` under `remotes` there")));
        }
        Edit::Unknown => {}
    }
    Ok(0)
}

#[derive(Serialize)]
struct Listed {
    remotes: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    name: String,
    address: String,
    private: bool,
    default: bool,
}

fn list(ui: &mut Ui, project: &Project) -> Result<u8, CliError> {
    let remotes = project.remotes()?;
    let line = |(name, setting): (&String, &crate::project::RemoteSetting)| Line {
        name: name.clone(),
        address: setting.address.clone(),
        private: setting.private,
        default: remotes.default_name() == Some(name),
    };
    ui.show(&Listed { remotes: remotes.named.iter().map(line).collect() })?;
    Ok(0)
}

#[derive(Serialize)]
struct Shown {
    name: String,
    address: String,
    packs: u64,
    records: u64,
    bytes: u64,
}

fn show(ui: &mut Ui, project: &Project, name: Option<&str>) -> Result<u8, CliError> {
    let remote = Remote::choose(project, name)?;
    let connection = remote.open(project).map_err(|error| remote.failed(error))?;
    let (mut packs, mut records, mut bytes) = (0, 0, 0);
    for (_, index) in connection.catalog.packs() {
        packs += 1;
        records += index.count() as u64;
        bytes += index.pack_bytes();
    }
    ui.show(&Shown { name: remote.name, address: remote.address.to_string(), packs, records, bytes })?;
    Ok(0)
}

#[derive(Serialize)]
struct Removed {
    removed: String,
}

fn remove(ui: &mut Ui, project: &Project, name: &str) -> Result<u8, CliError> {
    match project.remove_remote(name)? {
        Edit::Done(_) => ui.show(&Removed { removed: name.to_owned() })?,
        Edit::ByHand(path) => {
            return Err(CliError::usage(format!("`{}` could not be edited", path.display()))
                .hint(format!("take `{name}` out of `remotes` there")));
        }
        Edit::Unknown => {
            Remote::of(project, &project.remotes()?, name)?;
        }
    }
    Ok(0)
}

#[derive(Serialize)]
struct Checked {
    name: String,
    address: String,
    checks: Vec<Check>,
}

#[derive(Serialize)]
struct Check {
    what: &'static str,
    ok: bool,
    /// Why not.
    problem: Option<String>,
}

fn check(ui: &mut Ui, project: &Project, name: Option<&str>) -> Result<u8, CliError> {
    let remote = Remote::choose(project, name)?;
    let bucket = remote::connect(&remote.address).map_err(|error| remote.failed(error))?;
    let mut checks = vec![Check::of("format", remote::is_there(&*bucket).map(drop))];
    if remote.address.is_read_only() {
        checks.push(Check::of("packs", remote.open(project).map(drop)));
    } else {
        checks.extend(try_out(&*bucket));
    }
    let all_well = checks.iter().all(|check| check.ok);
    let hint = checks.iter().find_map(|check| check.problem.as_ref()).is_some().then(|| {
        let first = remote::is_there(&*bucket).err();
        first.map(|source| CliError::from(OnRemote { name: remote.name.clone(), source }))
    });
    ui.show(&Checked { name: remote.name, address: remote.address.to_string(), checks })?;
    if let Some(Some(error)) = hint {
        ui.warn(error.warning());
    }
    Ok(if all_well { 0 } else { STORE })
}

/// Writes a small file, looks for it, reads it and removes it.
fn try_out(bucket: &dyn Bucket) -> Vec<Check> {
    // Two who try at once do not take each other's file for their own.
    let text = format!("{} {}", Time::now().epoch_ms, std::process::id());
    let name = format!("check/{}", crate::hash::Digest::of(text.as_bytes()).short());
    let (directory, file) = name.split_once('/').expect("it has two parts");
    let wrong = |what: &str| BucketError::on("read", &name, remote::Trouble::Garbled)(what.to_owned());
    let write = bucket.write(&name, &text.as_bytes());
    let is_written = write.is_ok();
    let mut checks = vec![Check::of("write", write)];
    if is_written {
        let must = |is_so: bool, what: &str| if is_so { Ok(()) } else { Err(wrong(what)) };
        let listed = bucket
            .list(directory)
            .and_then(|listed| must(listed.iter().any(|other| other.name == file), "what was written is not listed"));
        let read = bucket.read(&name, 1024);
        let read = read.and_then(|read| must(read.as_deref() == Some(text.as_bytes()), "it is not what was written"));
        let again = bucket.create(&name, text.as_bytes());
        let again = again.and_then(|is_new| must(!is_new, "a file was replaced that should not be"));
        checks.push(Check::of("list", listed));
        checks.push(Check::of("read", read));
        checks.push(Check::of("write only if new", again));
        checks.push(Check::of("delete", bucket.remove(&name)));
    }
    checks
}

impl Check {
    fn of<E: std::error::Error>(what: &'static str, result: Result<(), E>) -> Self {
        let problem = result.err().map(|error| {
            let mut text = error.to_string();
            let mut next = error.source();
            while let Some(cause) = next {
                text = format!("{text}: {cause}");
                next = cause.source();
            }
            text
        });
        Self { what, ok: problem.is_none(), problem }
    }
}

impl fmt::Display for Added {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.private { "for this clone" } else { "in .pipeline/config.yaml" };
        writeln!(f, "remote {} is {}, {place}", paint(NAME, format!("`{}`", self.name)), self.address)
    }
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.remotes.iter().map(|line| line.name.chars().count()).max().unwrap_or_default();
        for line in &self.remotes {
            let marks = [(line.default, "usual"), (line.private, "private")];
            let marks: Vec<_> = marks.iter().filter(|(is, _)| *is).map(|(_, mark)| *mark).collect();
            let marks = if marks.is_empty() { String::new() } else { format!("  {}", paint(FAINT, marks.join(", "))) };
            let name = format!("{:width$}", line.name);
            writeln!(f, "{}  {}{marks}", paint(NAME, name), line.address)?;
        }
        Ok(())
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "remote {}  {}", paint(NAME, &self.name), self.address)?;
        writeln!(f, "{} with {} ({})", count(self.packs, "pack"), count(self.records, "record"), bytes(self.bytes))
    }
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "remote `{}` is off the list; what it holds stays there", self.removed)
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "remote {}  {}", paint(NAME, &self.name), self.address)?;
        for check in &self.checks {
            match &check.problem {
                None => writeln!(f, "  {} {}", paint(GOOD, "ok"), check.what)?,
                Some(problem) => writeln!(f, "  {} {}: {problem}", paint(BAD, "no"), check.what)?,
            }
        }
        Ok(())
    }
}
