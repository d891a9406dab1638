//! `pv store`: where the objects are, who uses them, and how to share them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Global;
use super::answer::{bytes, count};
use super::fail::CliError;
use super::open;
use super::ui::{NAME, Ui, paint};
use crate::object::Kind;
use crate::store::{OfKind, Room, Usage};

/// Show where the store is and who uses it; move it, or share it with other clones
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Move the store to a directory, or join the store that is there
    ///
    /// Everything is copied and compared before anything is removed; after a crash, run it again. Several clones
    /// and users can share one store: `pv gc` keeps what any of them needs. Records stay in each repository. If the
    /// group of the directory may write to it, all of the store is for that group.
    Move {
        /// The directory; it is empty, a store, or not there yet
        #[arg(value_name = "DIR")]
        to: PathBuf,
    },
    /// Take a clone off the list of those that use the store
    ///
    /// What only it needs goes with the next `pv gc`. It comes back to the list with the next write.
    Forget {
        /// The clone or its git directory, as `pv store` shows it
        #[arg(value_name = "PATH")]
        path: PathBuf,
    },
}

#[derive(Serialize)]
struct Answer {
    path: PathBuf,
    users: Vec<PathBuf>,
    packs: Room,
    loose: Room,
    trash: Room,
    quarantine: Room,
    kinds: BTreeMap<&'static str, OfKind>,
}

#[derive(Serialize)]
struct Moved {
    path: PathBuf,
    files: u64,
    bytes: u64,
    stays_at: Option<PathBuf>,
}

#[derive(Serialize)]
struct Forgotten {
    forgotten: PathBuf,
}

pub(super) fn run(ui: &mut Ui, global: &Global, args: &Args) -> Result<u8, CliError> {
    let project = open::project(ui, global)?;
    match &args.action {
        None => {
            let Usage { packs, loose, trash, quarantine, kinds } = project.store.usage()?;
            let mut users = project.other_users()?;
            users.push(project.repository.common_directory().to_owned());
            users.sort();
            let kinds = kinds.into_iter().map(|(kind, of_kind): (Kind, _)| (kind.name(), of_kind)).collect();
            let path = project.store.directory().to_owned();
            ui.show(&Answer { path, users, packs, loose, trash, quarantine, kinds })?;
        }
        Some(Action::Move { to }) => {
            let to = clean(&open::directory(global)?.join(to));
            let progress = ui.progress("moving");
            let moved = project.move_store(&to, &|files, bytes| {
                progress.count(files, bytes);
            })?;
            drop(progress);
            ui.show(&Moved { path: moved.path, files: moved.files, bytes: moved.bytes, stays_at: moved.stays_at })?;
        }
        Some(Action::Forget { path }) => {
            let given = clean(&open::directory(global)?.join(path));
            let users = project.store.users()?;
            let is_meant = |user: &&PathBuf| **user == given || **user == given.join(".git");
            let Some(user) = users.iter().find(is_meant) else {
                let message =
                    format!("`{}` is no user of the store `{}`", given.display(), project.store.directory().display());
                return Err(CliError::usage(message).hint("`pv store` lists them"));
            };
            project.store.forget(user)?;
            ui.show(&Forgotten { forgotten: user.clone() })?;
        }
    }
    Ok(0)
}

/// Returns the path without `.` and `..`: what is named need not be there.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(clean.pop()),
            std::path::Component::CurDir => {}
            part => clean.push(part),
        }
    }
    clean
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "store {}", paint(NAME, self.path.display()))?;
        for user in &self.users {
            writeln!(f, "  used by {}", user.display())?;
        }
        let rooms =
            [("packs", self.packs), ("loose", self.loose), ("trash", self.trash), ("quarantine", self.quarantine)];
        for (name, room) in rooms {
            if room.files > 0 || name == "packs" {
                writeln!(f, "{name}: {}, {} on disk", count(room.files, "file"), bytes(room.bytes))?;
            }
        }
        for (kind, of_kind) in &self.kinds {
            let (raw, stored) = (bytes(of_kind.raw_bytes), bytes(of_kind.stored_bytes));
            writeln!(f, "  {}: {raw}, {stored} stored", count(of_kind.objects, kind))?;
        }
        Ok(())
    }
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let copied = count(self.files, "file");
        writeln!(f, "the store is at {} ({copied} copied, {})", paint(NAME, self.path.display()), bytes(self.bytes))?;
        match &self.stays_at {
            Some(path) => writeln!(f, "others still use {}, which stays as it is", path.display()),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Forgotten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "forgotten: {}", self.forgotten.display())
    }
}
