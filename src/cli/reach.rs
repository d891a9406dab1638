//! Which remote is meant, the way to it, and a store that gets from it what is missing here.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use super::answer::{bytes, count};
use super::fail::CliError;
use super::ui::{Progress, Ui};
use crate::hash::Digest;
use crate::host;
use crate::object::{DataRoot, Kind, SnapshotId};
use crate::project::{Project, Remotes};
use crate::record::Output;
use crate::remote::{self, Address, Catalog, Connection, Counted, Fetching, RemoteError, Unfetched};
use crate::retention::Roots;
use crate::store::Store;

/// A remote, by its name and address.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    pub(super) name: String,
    pub(super) address: Address,
}

/// What went wrong with a remote, and which.
#[derive(Debug)]
pub(super) struct OnRemote {
    pub(super) name: String,
    pub(super) source: RemoteError,
}

impl fmt::Display for OnRemote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "remote `{}`: {}", self.name, self.source)
    }
}

impl Error for OnRemote {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.source()
    }
}

impl Remote {
    /// Returns the remote with this name, or the one that is meant if none is named.
    pub(super) fn choose(project: &Project, name: Option<&str>) -> Result<Self, CliError> {
        let remotes = project.remotes()?;
        let Some(name) = name.or_else(|| remotes.default_name()) else { return Err(none_is_meant(&remotes)) };
        Self::of(project, &remotes, name)
    }

    /// Returns the remote that is meant if none is named; `None` if there is none, or none is meant.
    pub(super) fn usual(project: &Project) -> Result<Option<Self>, CliError> {
        let remotes = project.remotes()?;
        remotes.default_name().map(|name| Self::of(project, &remotes, name)).transpose()
    }

    pub(super) fn of(project: &Project, remotes: &Remotes, name: &str) -> Result<Self, CliError> {
        let Some(setting) = remotes.named.get(name) else {
            let known: Vec<_> = remotes.named.keys().map(|name| format!("`{name}`")).collect();
            let hint = match known.as_slice() {
                [] => "`pv remote add NAME ADDRESS` adds one".to_owned(),
                known => format!("the remotes are {}", known.join(", ")),
            };
            return Err(CliError::usage(format!("there is no remote `{name}`")).hint(hint));
        };
        let address = read_address(project, &setting.address)
            .map_err(|error| CliError::usage(format!("the address of remote `{name}` cannot be used: {error}")))?;
        Ok(Self { name: name.to_owned(), address })
    }

    /// Returns the way there, and what is there.
    pub(super) fn open(&self, project: &Project) -> Result<Connection, RemoteError> {
        let bucket = Counted::new(remote::connect(&self.address)?);
        let catalog = Catalog::open(&bucket, &project.memory_of_remote(&self.address.to_string()))?;
        Ok(Connection { bucket, catalog })
    }

    /// Says why something was not fetched, and of the remote that it was this one.
    pub(super) fn unfetched(&self, error: Unfetched) -> CliError {
        match error {
            Unfetched::Local(error) => error.into(),
            Unfetched::Remote(error) => self.failed(error),
        }
    }

    /// Says that it was this remote.
    pub(super) fn failed(&self, source: RemoteError) -> CliError {
        OnRemote { name: self.name.clone(), source }.into()
    }
}

/// Returns in words how many objects are missing: `2 files and 1 other object`; `None` if none are.
pub(super) fn in_words(missing: &BTreeSet<(Kind, Digest)>) -> Option<String> {
    let files = missing.iter().filter(|(kind, _)| *kind == Kind::Blob).count() as u64;
    let others = missing.len() as u64 - files;
    let counts = [(files, "file"), (others, "other object")].into_iter().filter(|(number, _)| *number > 0);
    let words: Vec<_> = counts.map(|(number, noun)| count(number, noun)).collect();
    (!words.is_empty()).then(|| words.join(" and "))
}

/// Reads an address as it was written in the settings.
pub(super) fn read_address(project: &Project, text: &str) -> Result<Address, remote::NotAnAddress> {
    Address::read(text, &project.root, host::variable_os("HOME").map(PathBuf::from).as_deref())
}

fn none_is_meant(remotes: &Remotes) -> CliError {
    if remotes.named.is_empty() {
        return CliError::usage("there is no remote").hint(
            "`pv remote add NAME ADDRESS` adds one; an address is a directory, s3://, gs://, az://, ssh:// or https://",
        );
    }
    let names: Vec<_> = remotes.named.keys().map(|name| format!("`{name}`")).collect();
    CliError::usage(format!("it is not said which remote is meant: {}", names.join(", ")))
        .hint("name one with `--remote`, or set `default` under `remote` in `.pipeline/config.yaml`")
}

/// Where objects may come from, beside the store of this machine.
#[derive(clap::Args)]
pub(super) struct Reaching {
    /// Ask no remote for what is missing here
    #[arg(long)]
    pub(super) offline: bool,
}

/// A store that gets from the usual remote what is missing here.
pub(super) struct Reach<'a> {
    pub(super) store: Fetching<'a>,
    name: Option<String>,
}

impl<'a> Reach<'a> {
    /// Returns the store of the project, with its usual remote behind it unless `offline`.
    pub(super) fn new(project: &'a Project, offline: bool, progress: &'a Progress) -> Result<Self, CliError> {
        let remote = if offline { None } else { Remote::usual(project)? };
        let name = remote.as_ref().map(|remote| remote.name.clone());
        let connect = remote.map(|remote| -> remote::Connect<'a> { Box::new(move || remote.open(project)) });
        Ok(Self { store: Fetching::over(&project.store, connect, Box::new(|bytes| progress.count(0, bytes))), name })
    }

    /// Fetches a snapshot, if something of it is missing here: all of it, or only what tells of its files.
    pub(super) fn have(&self, snapshot: SnapshotId, with_files: bool) -> Result<(), CliError> {
        let roots = Roots { snapshots: [snapshot].into(), ..Roots::default() };
        Ok(self.store.fetch(&roots, with_files)?)
    }

    /// Fetches these outputs, as far as they are missing here.
    pub(super) fn have_outputs(&self, outputs: &[Output]) -> Result<(), CliError> {
        let roots = Roots { outputs: outputs.iter().map(Output::entry).collect(), ..Roots::default() };
        Ok(self.store.fetch(&roots, true)?)
    }

    /// Fetches a directory, as far as it is missing here.
    pub(super) fn have_directory(&self, directory: DataRoot) -> Result<(), CliError> {
        Ok(self.store.fetch(&Roots { data: vec![directory], ..Roots::default() }, true)?)
    }

    /// Returns the store.
    pub(super) fn store(&self) -> &dyn Store {
        &self.store
    }

    /// Says what came from the remote, and why what did not come did not.
    pub(super) fn tell(&self, ui: &Ui) {
        let Some(name) = &self.name else { return };
        let (objects, moved) = self.store.received();
        if objects > 0 {
            ui.say(format!("fetched {} ({}) from remote `{name}`", count(objects, "object"), bytes(moved)));
        }
        if let Some(source) = self.store.trouble() {
            let error = CliError::from(OnRemote { name: name.clone(), source });
            ui.warn(error.warning());
        }
    }
}
