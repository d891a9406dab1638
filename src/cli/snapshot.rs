//! `pv snapshot`: keep what determines the results, and name it.

use std::fmt;

use serde::Serialize;

use super::Global;
use super::answer::{bytes, count, short};
use super::fail::CliError;
use super::open;
use super::ui::{FAINT, NAME, NOTE, Ui, paint};
use crate::git::{CommitId, GitError};
use crate::host::Time;
use crate::object::SnapshotId;
use crate::path::ProjectPath;
use crate::project::Project;
use crate::record::{Link, Record, RecordError, Version};
use crate::revision;
use crate::snapshot::{Captured, capture_working, write_pointers};
use crate::store::Store;

/// Keep what determines the results (code, configuration, data, seed), and name it
///
/// The snapshot's id depends on content alone: the same content has the same
/// id on every machine. Neither the index nor HEAD nor your files are touched; for
/// data that Git ignores, one-line pointers are written below `.pipeline/data`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Name the version; in a clean tree this also makes an annotated Git tag
    #[arg(long, value_name = "NAME")]
    tag: Option<String>,
    /// Say something about it
    #[arg(short, long)]
    message: Option<String>,
    /// Let the name point here even if it pointed elsewhere before (a Git tag is never moved)
    #[arg(long, requires = "tag")]
    force: bool,
}

#[derive(Serialize)]
struct Answer {
    snapshot: SnapshotId,
    version: Option<String>,
    commit: Option<String>,
    dirty: bool,
    files: u64,
    bytes: u64,
    new_bytes: u64,
    #[serde(skip)]
    tagged: bool,
    #[serde(skip)]
    pointers: Vec<ProjectPath>,
}

pub(super) fn run(ui: &mut Ui, global: &Global, args: &Args) -> Result<u8, CliError> {
    let project = open::project(ui, global)?;
    project.store.hold()?;
    if let Some(name) = &args.tag {
        check_name(name)?;
    }
    project.seen.learn();
    let captured = {
        let progress = ui.progress("Hashing");
        capture_working(project.site(), &project.store, &|files, bytes| progress.count(files, bytes))?
    };
    let pointers = write_pointers(project.site(), &captured.pointed)?;
    let (commit, dirty) = open::base(&project, &captured)?;
    let replaces = match &args.tag {
        Some(name) => replaced(&project, name, &captured, commit.as_deref(), dirty, args.force)?,
        None => Vec::new(),
    };
    project.store.sync()?;
    project.remember();
    let link = Link {
        snapshot: captured.id,
        pipeline: project.pipeline.clone(),
        commit: commit.clone(),
        dirty,
        time: Time::now(),
        by: open::by(&project.repository),
        message: args.message.clone(),
    };
    let records = records(&project, link, args.tag.as_deref(), replaces)?;
    // Git may refuse the tag, so it comes before the records: they cannot be taken back.
    let tagged = match (&args.tag, &commit) {
        (Some(name), Some(commit)) if !dirty => tag(ui, &project, name, commit, args)?,
        _ => false,
    };
    if !records.is_empty() {
        project.journal.add(&records)?;
        open::exchange(ui, &project);
    }
    open::note_submodules(ui, &captured.submodules);
    for path in ignored(&project, &pointers)? {
        ui.say(format!("note: Git ignores `{path}`; `git add --force` commits it all the same"));
    }
    let version = match &args.tag {
        Some(name) => Some(name.clone()),
        None => revision::version_of(&project.names(&project.commits()), captured.id)?,
    };
    ui.show(&Answer {
        snapshot: captured.id,
        version,
        commit,
        dirty,
        files: captured.sized.files,
        bytes: captured.sized.bytes,
        new_bytes: captured.new_bytes,
        tagged,
        pointers,
    })?;
    Ok(0)
}

/// Returns the pointers that were written and that Git leaves out: `data/` in `.gitignore` means them too.
pub(super) fn ignored(project: &Project, pointers: &[ProjectPath]) -> Result<Vec<ProjectPath>, CliError> {
    if pointers.is_empty() {
        return Ok(Vec::new());
    }
    let listed = project.repository.working_files(project.prefix.as_ref())?;
    let is_listed = |path: &ProjectPath| listed.files().binary_search_by(|(other, _)| other.cmp(path)).is_ok();
    let is_there = |path: &ProjectPath| path.under(&project.root).exists();
    Ok(pointers.iter().filter(|path| is_there(path) && !is_listed(path)).cloned().collect())
}

/// A name must be good for a Git tag too, and must not look like an option.
fn check_name(name: &str) -> Result<(), CliError> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || "~^:?*[\\{}@".contains(c);
    let parts_good = name.split('/').all(|part| {
        !part.is_empty() && !part.starts_with('.') && !part.ends_with('.') && part.strip_suffix(".lock").is_none()
    });
    if name.contains(bad) || name.contains("..") || name.starts_with('-') || name == "HEAD" || !parts_good {
        return Err(CliError::usage(format!("`{name}` is no name for a version"))
            .hint("letters, digits, `.`, `-`, `_` and `/` make good names: `v1.0`"));
    }
    Ok(())
}

/// Returns the records that the new name takes the place of; an error if it must not.
fn replaced(
    project: &Project,
    name: &str,
    captured: &Captured,
    commit: Option<&str>,
    dirty: bool,
    force: bool,
) -> Result<Vec<crate::object::RecordId>, CliError> {
    let versions = project.journal.versions()?;
    let same_name = versions.into_iter().filter(|(_, v)| v.name == name && v.pipeline == project.pipeline);
    let (same, other): (Vec<_>, Vec<_>) = same_name.partition(|(_, version)| version.snapshot == captured.id);
    if !force && let Some((_, version)) = other.first() {
        return Err(CliError::usage(format!("version `{name}` already names snapshot {}", version.snapshot.short()))
            .hint("choose another name, or move this one with `--force`"));
    }
    if let (Some(commit), false, false) = (commit, dirty, force)
        && let Some(target) = project.repository.tag_target(name)?
        && target.to_string() != commit
    {
        return Err(CliError::usage(format!("git tag `{name}` already names commit {}", short(&target.to_string())))
            .hint("choose another name, or use it for the version only, with `--force`: the tag stays where it is"));
    }
    Ok(other.into_iter().chain(same).map(|(id, _)| id).collect())
}

/// What there is to record: nothing that is on record already.
fn records(
    project: &Project,
    link: Link,
    tag: Option<&str>,
    replaces: Vec<crate::object::RecordId>,
) -> Result<Vec<Record>, RecordError> {
    let mut records = Vec::new();
    let named = project.journal.versions()?;
    if let Some(name) = tag {
        let known = named.iter().any(|(id, v)| {
            v.name == name
                && v.snapshot == link.snapshot
                && v.commit == link.commit
                && v.dirty == link.dirty
                && replaces == [*id]
        });
        if !known {
            records.push(Record::Version(Version {
                name: name.to_owned(),
                snapshot: link.snapshot,
                pipeline: link.pipeline.clone(),
                commit: link.commit.clone(),
                dirty: link.dirty,
                time: link.time,
                by: link.by.clone(),
                message: link.message.clone(),
                replaces,
            }));
        }
    }
    let known = project.journal.links_of(link.commit.as_deref())?.into_iter().any(|(_, other)| {
        other.snapshot == link.snapshot && other.dirty == link.dirty && other.pipeline == link.pipeline
    });
    if !known || link.message.is_some() {
        records.push(Record::Link(link));
    }
    Ok(records)
}

/// Makes the Git tag, unless there is one. Returns whether it was made.
fn tag(ui: &Ui, project: &Project, name: &str, commit: &str, args: &Args) -> Result<bool, CliError> {
    let id: CommitId = commit.parse().map_err(|_| CliError::usage(format!("`{commit}` is no commit id")))?;
    match project.repository.tag(name, &id, args.message.as_deref().unwrap_or(name)) {
        Ok(()) => Ok(true),
        Err(GitError::TagExists { commit: Some(target), .. }) if target == id => Ok(false),
        Err(GitError::TagExists { .. }) if args.force => {
            ui.say(format!("note: git tag `{name}` stays where it is; the version `{name}` goes before it"));
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot {}", paint(NAME, self.snapshot.short()))?;
        if let Some(version) = &self.version {
            write!(f, " {}", paint(NAME, version))?;
        }
        writeln!(
            f,
            ": {}, {}, {} new in the store",
            count(self.files, "file"),
            bytes(self.bytes),
            bytes(self.new_bytes)
        )?;
        match (&self.commit, self.dirty) {
            (Some(commit), false) => {
                writeln!(f, "Commit {}{}", short(commit), if self.tagged { ", tagged" } else { "" })?;
            }
            (Some(commit), true) => {
                writeln!(f, "Commit {} {}", short(commit), paint(NOTE, "with changes that are not committed"))?;
            }
            (None, _) => writeln!(f, "{}", paint(NOTE, "No commit yet"))?,
        }
        for path in &self.pointers {
            writeln!(
                f,
                "{}",
                paint(FAINT, format!("Wrote {path}; commit it, so that the commit alone determines the data"))
            )?;
        }
        Ok(())
    }
}
