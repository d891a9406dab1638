//! The remotes of a project: those that all share, in its settings, and those of this clone alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::{Project, ProjectError};
use crate::disk::{self, Durability};
use crate::hash::Digest;
use crate::object::SnapshotId;
use crate::pipeline::{RemoteUse, SETTINGS, Settings, read_settings, with_remote, without_remote};

/// The file of this clone alone, in the common git directory.
const PRIVATE: &str = "remotes.yaml";
/// Where it is remembered which snapshots were sent to a remote, and of how many.
const SENT: &str = "sent";
const SENT_MAX: usize = 10_000;

/// A remote by what the settings say of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoteSetting {
    /// Where it is, as it was written.
    pub address: String,
    /// Whether only this clone has it.
    pub private: bool,
}

/// The remotes of a project, and how they are used.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Remotes {
    /// Each by its name. What is private hides what is shared.
    pub named: BTreeMap<String, RemoteSetting>,
    /// How they are used.
    pub used: RemoteUse,
}

impl Remotes {
    /// Returns the name of the one that is meant if none is named: the default, or the only one.
    pub fn default_name(&self) -> Option<&str> {
        let only = || if self.named.len() == 1 { self.named.keys().next().map(String::as_str) } else { None };
        self.used.default.as_deref().or_else(only)
    }
}

/// What became of settings that were to be edited.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Edit {
    /// They are written.
    Done(PathBuf),
    /// They are written in a style that is not understood: it has to be done by hand in this file.
    ByHand(PathBuf),
    /// There is no such remote.
    Unknown,
}

impl Project {
    /// Returns the remotes.
    ///
    /// # Errors
    ///
    /// [`ProjectError`] if the settings, shared or private, cannot be read, or something in them is wrong.
    pub fn remotes(&self) -> Result<Remotes, ProjectError> {
        let (shared, private) = (self.settings()?, self.private_settings()?);
        let mut remotes = Remotes::default();
        for (settings, private) in [(shared, false), (private, true)] {
            let named = settings.remotes.into_iter();
            remotes.named.extend(named.map(|(name, address)| (name, RemoteSetting { address, private })));
            let RemoteUse { default, trust } = settings.remote;
            remotes.used.default = default.or(remotes.used.default);
            remotes.used.trust = trust.or(remotes.used.trust);
        }
        Ok(remotes)
    }

    /// Gives a remote this address, in the settings that all share or in those of this clone.
    ///
    /// # Errors
    ///
    /// [`ProjectError`] if the settings cannot be read or written, or something in them is wrong.
    pub fn set_remote(&self, name: &str, address: &str, private: bool) -> Result<Edit, ProjectError> {
        self.edit_settings(private, &|text| with_remote(text, name, address))
    }

    /// Takes a remote out of the settings: those of this clone if they have it, else those that all share.
    ///
    /// # Errors
    ///
    /// As [`Project::set_remote`].
    pub fn remove_remote(&self, name: &str) -> Result<Edit, ProjectError> {
        match self.remotes()?.named.get(name) {
            Some(remote) => self.edit_settings(remote.private, &|text| without_remote(text, name)),
            None => Ok(Edit::Unknown),
        }
    }

    /// Returns the directory in which is remembered what a remote holds. `address` tells one from the other.
    pub fn memory_of_remote(&self, address: &str) -> PathBuf {
        self.directory.join("remotes").join(Digest::of(address.as_bytes()).short())
    }

    /// Returns the snapshots of which everything was sent to a remote before, as far as that is remembered.
    pub fn sent_to(&self, address: &str) -> BTreeSet<SnapshotId> {
        let bytes = disk::read_if_there(&self.memory_of_remote(address).join(SENT)).ok().flatten().unwrap_or_default();
        String::from_utf8_lossy(&bytes).lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Remembers that everything of these snapshots was sent to a remote. A memory that cannot be written only costs time.
    pub fn remember_sent(&self, address: &str, snapshots: &BTreeSet<SnapshotId>) {
        let mut all = self.sent_to(address);
        if all.len() > SENT_MAX {
            all.clear();
        }
        all.extend(snapshots);
        let lines: Vec<_> = all.iter().map(ToString::to_string).chain([String::new()]).collect();
        let path = self.memory_of_remote(address).join(SENT);
        let _ = disk::write_whole(&path, lines.join("\n").as_bytes(), Durability::Deferred);
    }

    fn settings_file(&self, private: bool) -> PathBuf {
        if private { self.directory.join(PRIVATE) } else { self.root.join(SETTINGS) }
    }

    fn private_settings(&self) -> Result<Settings, ProjectError> {
        let path = self.settings_file(true);
        match disk::read_if_there(&path)? {
            Some(text) => Ok(read_settings(&text, &path.display().to_string())?),
            None => Ok(Settings::default()),
        }
    }

    fn edit_settings(&self, private: bool, edit: &dyn Fn(&str) -> Option<String>) -> Result<Edit, ProjectError> {
        // What is wrong with them is told first.
        self.remotes()?;
        let path = self.settings_file(private);
        let bytes = disk::read_if_there(&path)?.unwrap_or_default();
        let Some(edited) = std::str::from_utf8(&bytes).ok().and_then(edit) else { return Ok(Edit::ByHand(path)) };
        disk::write_whole(&path, edited.as_bytes(), Durability::Synced)?;
        Ok(Edit::Done(path))
    }
}
