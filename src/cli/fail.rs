//! What went wrong, for people: the facts, what to do about it, and the exit code.
//!
//! Rooms state facts. Advice and exit codes are given here, one `From` a room.

use std::error::Error;
use std::fmt::Write;

use serde_json::{Value, json};

use super::reach::OnRemote;
use super::ui::{BAD, GOOD, NOTE, paint};
use crate::compare::CompareError;
use crate::damage::DamageError;
use crate::disk::DiskError;
use crate::environment::image::{ImageError, Refusal, Trouble as ImageTrouble};
use crate::environment::{InstalledError, LockError, PinsError, PythonError};
use crate::exec::{Cause, ExecError, Obstacle, Unpinned};
use crate::git::GitError;
use crate::pipeline::DefinitionError;
use crate::project::ProjectError;
use crate::record::RecordError;
use crate::remote::{BucketError, RemoteError, ServeError, Trouble, WireError};
use crate::retention::RetentionError;
use crate::revision::RevisionError;
use crate::run::{RunError, Shortage};
use crate::snapshot::SnapshotError;
use crate::store::StoreError;
use crate::verify::VerifyError;

/// A difference was found.
pub(super) const DIFFERENCE: u8 = 1;
/// Bad usage or definition.
pub(super) const USAGE: u8 = 2;
/// A step failed.
pub(super) const STEP_FAILED: u8 = 3;
/// The store is damaged or an object is missing.
pub(super) const STORE: u8 = 4;
/// An environment cannot be provided.
pub(super) const ENVIRONMENT: u8 = 5;
/// The user interrupted.
pub(super) const INTERRUPTED: u8 = 130;

/// Why a command ends without an answer.
#[derive(Debug)]
pub(super) struct CliError {
    source: Option<Box<dyn Error + Send + Sync>>,
    hint: Option<String>,
    code: u8,
}

impl CliError {
    /// Something in how the command was called is wrong.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { source: Some(message.into().into()), hint: None, code: USAGE }
    }

    /// The answer could not be printed.
    pub(super) fn output(error: std::io::Error) -> Self {
        Self { source: Some(Box::new(error)), hint: None, code: USAGE }
    }

    /// The reader of the answer has gone; there is nobody to tell.
    pub(super) fn closed_pipe() -> Self {
        Self { source: None, hint: None, code: 0 }
    }

    /// Returns whether there is only nobody to tell.
    pub(super) fn is_closed_pipe(&self) -> bool {
        self.source.is_none()
    }

    /// The same, with another exit code.
    pub(super) fn exit(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// Adds advice.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Returns whether there is advice.
    pub(super) fn has_hint(&self) -> bool {
        self.hint.is_some()
    }

    /// Adds advice to what there is.
    pub(super) fn also_hint(mut self, hint: &str) -> Self {
        self.hint = Some(self.hint.map_or_else(|| hint.to_owned(), |first| format!("{first}; {hint}")));
        self
    }

    /// Returns the exit code.
    pub(super) fn code(&self) -> u8 {
        self.code
    }

    /// Returns the text for the terminal.
    pub(super) fn text(&self, colour: bool) -> Option<String> {
        let source = self.source.as_deref()?;
        let mut text = rendered(source, colour).unwrap_or_else(|| {
            let mut text = format!("{} {source}", paint(BAD, "error:"));
            for cause in causes(source) {
                let _ = write!(text, "\n  because: {cause}");
            }
            text
        });
        if let Some(hint) = &self.hint {
            let _ = write!(text, "\n{} {hint}", paint(GOOD, "hint:"));
        }
        Some(text)
    }

    /// Returns the text for the terminal, if it is no reason to end.
    pub(super) fn warning(&self) -> String {
        let Some(source) = self.source.as_deref() else { return String::new() };
        let told = [vec![source.to_string()], causes(source)].concat().join(": ");
        let hint = self.hint.as_ref().map(|hint| format!("\n{} {hint}", paint(GOOD, "hint:"))).unwrap_or_default();
        format!("{} {told}{hint}", paint(NOTE, "warning:"))
    }

    /// Returns the object for `--json`.
    pub(super) fn json(&self) -> Option<Value> {
        let source = self.source.as_deref()?;
        Some(json!({
            "error": source.to_string(),
            "because": causes(source),
            "hint": self.hint,
            "exit": self.code,
        }))
    }

    fn new(error: impl Error + Send + Sync + 'static, code: u8, hint: Option<&str>) -> Self {
        Self { source: Some(Box::new(error)), hint: hint.map(str::to_owned), code }
    }
}

/// The causes below an error, each told once: a transparent wrapper repeats what it wraps.
fn causes(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut told = error.to_string();
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !told.contains(&text) {
            causes.push(text.clone());
        }
        told = text;
        next = cause.source();
    }
    causes
}

fn definition_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a DefinitionError> {
    match error.downcast_ref() {
        Some(ProjectError::Settings(error)) => Some(error),
        _ => error.downcast_ref(),
    }
}

/// Errors that point into a file have a picture of their own.
///
/// They come in transparent wrappers, which hide what they wrap from `source`.
fn rendered(error: &(dyn Error + 'static), colour: bool) -> Option<String> {
    if let Some(error) = definition_error(error) {
        return Some(error.render(colour).trim_end().to_owned());
    }
    let wrapped = match (error.downcast_ref(), error.downcast_ref()) {
        (Some(RunError::Snapshot(error)), _) | (_, Some(RevisionError::Snapshot(error))) => Some(error),
        _ => error.downcast_ref(),
    };
    match wrapped {
        Some(SnapshotError::Definition(error)) => Some(error.render(colour).trim_end().to_owned()),
        Some(SnapshotError::Params(error)) => Some(error.render(colour).trim_end().to_owned()),
        _ => None,
    }
}

impl From<DiskError> for CliError {
    fn from(error: DiskError) -> Self {
        let hint = disk_hint(&error);
        Self::new(error, USAGE, hint)
    }
}

fn disk_hint(error: &DiskError) -> Option<&'static str> {
    use std::io::ErrorKind;
    match error.source.kind() {
        ErrorKind::StorageFull => Some("free some space and try again; nothing half-written was kept"),
        ErrorKind::ReadOnlyFilesystem => Some("the file system is read-only; commands that only read still work"),
        ErrorKind::PermissionDenied => Some("look at who owns the directory, and with which rights"),
        _ => None,
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        let (code, hint) = store_advice(&error);
        Self::new(error, code, hint)
    }
}

fn store_advice(error: &StoreError) -> (u8, Option<&'static str>) {
    match error {
        StoreError::Missing { .. } => (
            STORE,
            Some("`pv pull` gets it from a remote; `pv fsck` looks for it here, and names everything that needs it"),
        ),
        StoreError::Corrupt { .. } => {
            (STORE, Some("`pv fsck` repairs it where its bytes are still found, and names everything that needs it"))
        }
        StoreError::Absent { .. } => (
            STORE,
            Some(
                "make it reachable again, for instance mount its disk, or correct `git config pv.storePath`; nothing was changed",
            ),
        ),
        StoreError::Occupied { .. } => (USAGE, Some("name a directory that is empty, a store, or not there yet")),
        StoreError::InUse { .. } => (USAGE, Some("wait until it has ended, then try again; nothing was changed")),
        StoreError::Differs { .. } => {
            (STORE, Some("nothing was removed; `pv fsck` on both stores tells which is right"))
        }
        StoreError::Moved { .. } => {
            (STORE, Some("run it again; if that does not help, say where it is: `git config pv.storePath DIR`"))
        }
        StoreError::Version { .. } => (STORE, Some("use a newer `pv`")),
        StoreError::Changed { .. } => (USAGE, Some("wait until nothing writes to it, then try again")),
        StoreError::Source { .. } | StoreError::Stream { .. } => (USAGE, None),
        StoreError::Disk(error) => (USAGE, disk_hint(error)),
        StoreError::BadPack { .. } => (STORE, Some("look at the store with `pv fsck`")),
    }
}

impl From<RetentionError> for CliError {
    fn from(error: RetentionError) -> Self {
        if let RetentionError::User { path, .. } = &error {
            let hint = format!(
                "nothing was taken away; make it readable, or, if it is gone for good, `pv store forget {}`",
                path.display()
            );
            return Self::new(error, STORE, Some(&hint));
        }
        let hint = match &error {
            RetentionError::Pointer { .. } => "nothing was taken away; put the pointer right, or use a newer `pv`",
            RetentionError::Git(_) => "nothing was taken away; `git fsck` tells what is wrong with the repository",
            RetentionError::Pins(_) => "nothing was taken away; `pv env add` writes a pin anew",
            RetentionError::Record(_) | RetentionError::Disk(_) => "nothing was taken away",
            _ => "nothing was taken away; look at the store with `pv fsck`",
        };
        Self::new(error, STORE, Some(hint))
    }
}

impl From<GitError> for CliError {
    fn from(error: GitError) -> Self {
        let (code, hint) = git_advice(&error);
        Self::new(error, code, hint)
    }
}

/// What to do about a file by which git holds a reference.
const LOCKED: &str = "wait for the git command that is at work; if there is none, remove that file, \
                      or try again in a minute: then `pv` takes it for left by the dead and removes it";

fn git_advice(error: &GitError) -> (u8, Option<&'static str>) {
    match error {
        GitError::Ambiguous { .. } => (USAGE, Some("give more digits")),
        GitError::NotACommit { .. } => (USAGE, Some("name one commit, not a range, a file or a directory")),
        GitError::TagExists { .. } => {
            (USAGE, Some("choose another name, or delete the tag with `git tag -d` if it is not shared yet"))
        }
        GitError::NoIdentity => (USAGE, Some("set `git config user.name` and `git config user.email`")),
        GitError::Reftable { .. } => (USAGE, Some("this version reads repositories whose refs are files")),
        GitError::Busy { .. } => (USAGE, Some("another process holds the ref; try again")),
        GitError::Locked { .. } => (USAGE, Some(LOCKED)),
        GitError::ConfigLocked { .. } => {
            (USAGE, Some("try again; if no process of git is at work in this repository, remove that file first"))
        }
        GitError::Remote { .. } => (
            USAGE,
            Some("`git ls-remote` tells whether Git gets there; what was not sent stays here and goes the next time"),
        ),
        _ => (USAGE, None),
    }
}

impl From<RecordError> for CliError {
    fn from(error: RecordError) -> Self {
        let (code, hint) = record_advice(&error);
        Self::new(error, code, hint)
    }
}

/// Returns what to do if records cannot be exchanged, where there is something to be done.
pub(super) fn exchange_hint(error: &RecordError) -> Option<&'static str> {
    record_advice(error).1
}

fn record_advice(error: &RecordError) -> (u8, Option<&'static str>) {
    match error {
        RecordError::Corrupt { .. } => (STORE, Some("`pv fsck` takes it back from `refs/pv/meta`")),
        RecordError::NotUnderstood { .. } => (STORE, Some("a newer `pv` may understand it")),
        RecordError::Refused { .. } => {
            (USAGE, Some("ask who runs the server to allow `refs/pv/meta`, or the branch `pv-meta`, to be pushed"))
        }
        RecordError::Overtaken { .. } => (USAGE, Some("try again; what was not sent stays here")),
        RecordError::Disk(error) => (USAGE, disk_hint(error)),
        RecordError::Git(error) => git_advice(error),
    }
}

impl From<OnRemote> for CliError {
    fn from(error: OnRemote) -> Self {
        let (code, hint) = remote_advice(&error);
        Self { source: Some(Box::new(error)), hint, code }
    }
}

fn remote_advice(OnRemote { name, source }: &OnRemote) -> (u8, Option<String>) {
    let text = |text: &str| Some(text.to_owned());
    match source {
        RemoteError::Format { .. } | RemoteError::Feature { .. } => {
            (USAGE, text("use a newer `pv`; nothing was changed"))
        }
        RemoteError::Occupied => {
            (USAGE, text("name a place that is empty, a remote, or not there yet; nothing was written"))
        }
        RemoteError::Wrong { .. } => (
            STORE,
            Some(format!(
                "nothing of it was taken; `pv fsck --remote {name}` tells what is damaged, and repairs it from here"
            )),
        ),
        RemoteError::Changed => (STORE, text("try again: what was sent stays")),
        RemoteError::Interrupted => {
            (INTERRUPTED, text("what was transferred stays; the same command goes on from there"))
        }
        RemoteError::Bucket(error) => match error.trouble {
            Trouble::Refused => (
                STORE,
                Some(format!("look at your credentials and rights there: `pv remote check {name}` tries each of them")),
            ),
            Trouble::Unreachable => {
                (STORE, text("look at the network and the address, then try again: what was transferred stays"))
            }
            Trouble::Missing => {
                (STORE, Some(format!("something was removed there meanwhile; `pv fsck --remote {name}` tells what")))
            }
            Trouble::Unsupported => (USAGE, text("this kind of remote can only be read")),
            Trouble::Garbled => (STORE, text("nothing of it was taken; try again")),
            Trouble::Other if is_full(error) => {
                (STORE, text("free some space there and try again: what was sent stays"))
            }
            Trouble::Other => (STORE, None),
        },
        RemoteError::Store(error) => owned(store_advice(error)),
        RemoteError::Disk(error) => (USAGE, disk_hint(error).map(str::to_owned)),
    }
}

fn is_full(error: &BucketError) -> bool {
    error.source.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::StorageFull)
}

impl From<DamageError> for CliError {
    fn from(error: DamageError) -> Self {
        let (code, hint) = match &error {
            DamageError::Store(error) => owned(store_advice(error)),
            DamageError::Record(error) => owned(record_advice(error)),
            DamageError::Snapshot(error) => snapshot_advice(error),
        };
        Self { source: Some(Box::new(error)), hint, code }
    }
}

impl From<ImageError> for CliError {
    fn from(error: ImageError) -> Self {
        let text = |text: &str| Some(text.to_owned());
        let (code, hint) = match &error {
            ImageError::Fetch { trouble: ImageTrouble::Missing, .. } => {
                (ENVIRONMENT, text("look at its name and tag; some registries also say so if you may not see it"))
            }
            ImageError::Fetch { trouble: ImageTrouble::Refused, .. } => {
                (ENVIRONMENT, text("`podman login` or `docker login` tells the registry who you are"))
            }
            ImageError::Fetch { trouble: ImageTrouble::Unreachable, .. } => {
                (ENVIRONMENT, text("look at the network and the name of the registry, then try again"))
            }
            ImageError::Several { .. } => (USAGE, text("name one: `oci:DIR:TAG`, or save a single one")),
            ImageError::NoPlatform { .. } => (ENVIRONMENT, text("choose an image that is made for this machine")),
            ImageError::Mismatch { .. } | ImageError::Size { .. } => (
                ENVIRONMENT,
                text("nothing of it was taken; fetch it again, and if that does not help, from elsewhere"),
            ),
            ImageError::Refused { refusal: Refusal::TooLarge { .. }, .. } => {
                (ENVIRONMENT, text("nothing of it was taken; `--limit` allows more"))
            }
            ImageError::Refused { .. } | ImageError::Layer { .. } => {
                (ENVIRONMENT, text("nothing of it was taken; such an image is damaged, or meant to do harm"))
            }
            ImageError::NoImage { .. } => (USAGE, text("`podman save`, `docker save` and `skopeo copy` write images")),
            ImageError::Fetch { .. } | ImageError::NotUnderstood { .. } => (ENVIRONMENT, None),
            ImageError::Disk(error) => (USAGE, disk_hint(error).map(str::to_owned)),
            ImageError::Store(error) => owned(store_advice(error)),
        };
        Self { source: Some(Box::new(error)), hint, code }
    }
}

impl From<PinsError> for CliError {
    fn from(error: PinsError) -> Self {
        let hint = match &error {
            PinsError::NotUnderstood { .. } => Some("`pv env add` writes it anew; a newer `pv` may understand it"),
            PinsError::Disk(error) => disk_hint(error),
        };
        Self::new(error, USAGE, hint)
    }
}

impl From<InstalledError> for CliError {
    fn from(error: InstalledError) -> Self {
        let (code, hint) = match &error {
            InstalledError::NotUnderstood(_) => (STORE, Some("`pv fsck` tells whether it is damaged")),
            InstalledError::Store(error) => store_advice(error),
        };
        Self::new(error, code, hint)
    }
}

impl From<ProjectError> for CliError {
    fn from(error: ProjectError) -> Self {
        let (code, hint) = match &error {
            ProjectError::NoRepository { .. } => (USAGE, Some("`git init` makes one")),
            ProjectError::Bare { .. } => (USAGE, Some("work in a checkout: `git worktree add`")),
            ProjectError::NoDirectory { .. } | ProjectError::Settings(_) => (USAGE, None),
            ProjectError::Git(error) => git_advice(error),
            ProjectError::Store(error) => store_advice(error),
            ProjectError::Disk(error) => (USAGE, disk_hint(error)),
        };
        Self::new(error, code, hint)
    }
}

impl From<ServeError> for CliError {
    fn from(error: ServeError) -> Self {
        let hint = match &error {
            ServeError::Wire(WireError::NoGreeting { .. }) => Some("`pv` itself starts this for a remote `ssh://...`"),
            ServeError::Wire(WireError::Version { .. }) => {
                Some("use versions of `pv` on both sides that are not far apart")
            }
            _ => None,
        };
        Self::new(error, USAGE, hint)
    }
}

impl From<DefinitionError> for CliError {
    fn from(error: DefinitionError) -> Self {
        Self::new(error, USAGE, None)
    }
}

impl From<SnapshotError> for CliError {
    fn from(error: SnapshotError) -> Self {
        let (code, hint) = snapshot_advice(&error);
        Self { source: Some(Box::new(error)), hint, code }
    }
}

fn snapshot_advice(error: &SnapshotError) -> (u8, Option<String>) {
    let text = |text: &str| Some(text.to_owned());
    match error {
        SnapshotError::NoPipeline { place, .. } if place == "the working tree" => {
            (USAGE, text("`pv init` makes a first pipeline; `--pipeline NAME` chooses another"))
        }
        SnapshotError::IgnoredInput { path, .. } => {
            (USAGE, Some(format!("let the snapshot carry it: add `data: [{path}]`")))
        }
        SnapshotError::NoData { place, .. } if place == "the working tree" => {
            (USAGE, text("put it there, or take it out of `data`"))
        }
        SnapshotError::NoData { .. } => (
            USAGE,
            text("it was committed without a data pointer: `pv snapshot` writes them, `pv hooks install` keeps them"),
        ),
        SnapshotError::NoPin { image, place, .. } if place == "the working tree" => {
            (ENVIRONMENT, Some(format!("`pv env add {image} --no-edit` takes it in and writes the pin")))
        }
        SnapshotError::NoPin { .. } => (
            ENVIRONMENT,
            text("it was committed without its pin: `git add .pipeline/environments` where the image was taken in"),
        ),
        SnapshotError::BadPin { .. } => {
            (USAGE, text("after a merge conflict, choose one side; or let `pv env add` write it anew"))
        }
        SnapshotError::Pointer { .. } => (
            USAGE,
            text("after a merge conflict, choose one side, or run `pv snapshot` where the data is, to write it anew"),
        ),
        SnapshotError::NoContent { .. } => (
            STORE,
            text(
                "`pv pull` gets it from a remote; or copy the file from where the snapshot was taken, then run `pv snapshot` here",
            ),
        ),
        SnapshotError::MissingData { .. } => (
            STORE,
            text(
                "`pv pull` gets it from a remote; or copy it here from where the snapshot was taken, `pv run` takes it in",
            ),
        ),
        SnapshotError::NotUnderstood { .. } => {
            (STORE, text("a newer `pv` may understand it; `pv fsck` tells whether it is damaged"))
        }
        SnapshotError::Stopped => (INTERRUPTED, None),
        SnapshotError::Store(error) => owned(store_advice(error)),
        SnapshotError::Git(error) => owned(git_advice(error)),
        SnapshotError::Disk(error) => (USAGE, disk_hint(error).map(str::to_owned)),
        _ => (USAGE, None),
    }
}

fn owned((code, hint): (u8, Option<&str>)) -> (u8, Option<String>) {
    (code, hint.map(str::to_owned))
}

impl From<RevisionError> for CliError {
    fn from(error: RevisionError) -> Self {
        let (code, hint) = match &error {
            RevisionError::Unknown { similar, .. } if !similar.is_empty() => {
                (USAGE, Some(format!("did you mean {}?", similar.iter().map(|s| format!("`{s}`")).collect::<Vec<_>>().join(" or "))))
            }
            RevisionError::Unknown { .. } => (
                USAGE,
                Some("a revision is a version, a Git revision, or the first digits of a snapshot or run; `pv log` lists them".to_owned()),
            ),
            RevisionError::Ambiguous { .. } => (USAGE, Some("name one of them, by more of its digits".to_owned())),
            RevisionError::NotHere { .. } => {
                (STORE, Some("it was taken in another clone: `pv push` there shares it, `pv pull` gets it".to_owned()))
            }
            RevisionError::Mismatch { .. } => {
                (STORE, Some("line-ending settings or filters of the two clones may differ".to_owned()))
            }
            RevisionError::Snapshot(error) => snapshot_advice(error),
            RevisionError::Git(error) => owned(git_advice(error)),
            RevisionError::Record(error) => owned(record_advice(error)),
            RevisionError::Store(error) => owned(store_advice(error)),
            RevisionError::Disk(error) => (USAGE, disk_hint(error).map(str::to_owned)),
        };
        Self { source: Some(Box::new(error)), hint, code }
    }
}

fn listed(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Returns how steps could be isolated although something is in the way, where that is known.
pub(super) fn obstacle_hint(obstacle: &Obstacle) -> Option<String> {
    match obstacle.cause {
        Cause::Setting(name, value) => {
            let wanted = match name {
                "user.max_user_namespaces" => 10_000,
                _ => 1 - value,
            };
            Some(format!("`sudo sysctl -w {name}={wanted}` switches them on, until the next start of the machine"))
        }
        Cause::UsedUp => Some("`sudo sysctl -w user.max_user_namespaces=` with a higher number allows more".to_owned()),
        Cause::Filter => Some(
            "start the container with `--security-opt seccomp=unconfined --security-opt apparmor=unconfined`, \
             or with a profile that permits `clone` and `mount` in user namespaces"
                .to_owned(),
        ),
        Cause::Overlay => {
            Some("set `XDG_CACHE_HOME` to a directory on a disk of this machine: ext4, xfs, btrfs or tmpfs".to_owned())
        }
        Cause::Forbidden => Some(
            "look for what restricts it: SELinux or AppArmor, a `chroot`, or the settings of a container".to_owned(),
        ),
        Cause::System | Cause::Kernel | Cause::Other => None,
    }
}

impl From<PythonError> for CliError {
    fn from(error: PythonError) -> Self {
        let (code, hint) = match &error {
            PythonError::NoLock { .. } => {
                (ENVIRONMENT, Some("`pv env lock` makes it; commit it, and see that Git does not ignore it".to_owned()))
            }
            PythonError::Lock { lock, .. } if lock.name() == b"uv.lock" => (
                ENVIRONMENT,
                Some("uv notes hashes of what comes from an index, and none of what lies in a directory".to_owned()),
            ),
            PythonError::Lock { lock, source: LockError::NoHash { .. } } => (
                ENVIRONMENT,
                Some(format!(
                    "`pv env lock` makes a lock with hashes, and so does \
                     `uv pip compile --generate-hashes requirements.txt -o {lock}`"
                )),
            ),
            PythonError::Lock { .. } => {
                (ENVIRONMENT, Some("a lock names everything itself; `pv env lock` makes such a one".to_owned()))
            }
            PythonError::Offline { .. } => (ENVIRONMENT, Some("without `--offline` it is made".to_owned())),
            PythonError::NoPython { .. } => (
                ENVIRONMENT,
                Some(
                    "put it on the `PATH`, or install uv, which gets a Python itself; or name another version"
                        .to_owned(),
                ),
            ),
            PythonError::Bare { .. } => {
                (ENVIRONMENT, Some("on Debian and Ubuntu: `apt-get install python3-venv`; or install uv".to_owned()))
            }
            PythonError::NoUv { .. } => {
                (ENVIRONMENT, Some("install uv, or name a lock in the format of requirements files".to_owned()))
            }
            PythonError::NoLocker { .. } => (
                ENVIRONMENT,
                Some("install one of them: `pip install uv`, or `pip install pip-tools` for that Python".to_owned()),
            ),
            PythonError::Tool { .. } | PythonError::Exec(_) => (ENVIRONMENT, None),
            PythonError::Interrupted => (INTERRUPTED, None),
            PythonError::Disk(error) => (ENVIRONMENT, disk_hint(error).map(str::to_owned)),
        };
        Self { source: Some(Box::new(error)), hint, code }
    }
}

impl From<VerifyError> for CliError {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Run(error) => error.into(),
            VerifyError::Compare(CompareError::Store(error)) => error.into(),
            error @ VerifyError::Compare(_) => Self {
                source: Some(Box::new(error)),
                hint: Some("`pv fsck` tells what is damaged".to_owned()),
                code: STORE,
            },
        }
    }
}

impl From<RunError> for CliError {
    fn from(error: RunError) -> Self {
        let (code, hint) = match &error {
            RunError::Edited { .. } => {
                (USAGE, Some("keep your version elsewhere, or let it be overwritten with `--force`".to_owned()))
            }
            RunError::NoWorkdir { .. } => {
                (USAGE, Some("Git keeps no empty directories; put a file into it".to_owned()))
            }
            RunError::Kept { found, .. } => (
                USAGE,
                Some(format!(
                    "what is kept begins with nothing: keep another path, or, if that is no part of the project, \
                     add it to `.gitignore`, and `git rm -r --cached {found}` if Git has it"
                )),
            ),
            RunError::Shortage { shortage: Shortage::Cpus { wanted, .. }, .. } => (
                ENVIRONMENT,
                Some(format!("`--jobs {wanted}` lets it run all the same; to ask for less, change its `resources`")),
            ),
            RunError::Shortage { shortage: Shortage::Memory { .. }, .. } => {
                (ENVIRONMENT, Some("run it on a larger machine, or ask for less in its `resources`".to_owned()))
            }
            RunError::Shortage { shortage: Shortage::Gpus { .. }, .. } => (
                ENVIRONMENT,
                Some("GPUs are those in `CUDA_VISIBLE_DEVICES`, else `/dev/nvidia0` and so on".to_owned()),
            ),
            RunError::NoEnvironment { .. } => {
                (ENVIRONMENT, Some("`pv env add <image>` fetches an image and pins it in the definition".to_owned()))
            }
            RunError::NoRuntime { .. } => {
                (ENVIRONMENT, Some("without `runtime` in its environment, `pv` runs the image itself".to_owned()))
            }
            RunError::NoPython { step } => (ENVIRONMENT, Some(format!("`pv run {step}` makes it again"))),
            RunError::NotKept { step, kept } if kept.is_empty() => {
                (USAGE, Some(format!("a step is kept when it fails, until it succeeds; `pv run {step}` executes it")))
            }
            RunError::NotKept { kept: names, .. } => {
                (USAGE, Some(format!("a step is kept when it fails, until it succeeds; kept are {}", listed(names))))
            }
            RunError::KeptSeveral { combinations, .. } => (USAGE, Some(format!("name one: {}", listed(combinations)))),
            RunError::KeptInUse { by_run: true, .. } => {
                (USAGE, Some("the run in which it failed still goes on; wait for its end".to_owned()))
            }
            RunError::KeptInUse { by_run: false, .. } => {
                (USAGE, Some("another `pv shell` is in it; leave that one first".to_owned()))
            }
            RunError::KeptUnknown { .. } => (
                USAGE,
                Some(
                    "another version of `pv` has written it; `pv run` makes it anew if the step still fails".to_owned(),
                ),
            ),
            RunError::NotKnown { step } => {
                (USAGE, Some(format!("without `--only`, `{step}` and what it needs are executed as well")))
            }
            RunError::Place { source, .. } => (
                USAGE,
                disk_hint(source).map_or_else(
                    || Some("set `XDG_CACHE_HOME` to a directory with room".to_owned()),
                    |h| Some(h.to_owned()),
                ),
            ),
            RunError::Exec(ExecError::NotFound { .. }) => (
                STEP_FAILED,
                Some("steps get `PATH` as it is here; without a shell, `~` and `$` mean nothing".to_owned()),
            ),
            RunError::Snapshot(error) => snapshot_advice(error),
            RunError::Store(error) => owned(store_advice(error)),
            RunError::Record(error) => owned(record_advice(error)),
            RunError::Disk(error) | RunError::Exec(ExecError::Log(error)) => {
                (USAGE, disk_hint(error).map(str::to_owned))
            }
            RunError::Exec(_) => (STEP_FAILED, None),
            RunError::NotStrict { why, .. } => {
                let otherwise = "`isolate: observe` runs it without, and tells what it read";
                let hint = obstacle_hint(why).map(|hint| format!("{hint}; or else, {otherwise}"));
                (ENVIRONMENT, hint.or_else(|| Some(otherwise.to_owned())))
            }
            RunError::NotPinned { why, .. } => {
                let how = match why {
                    Unpinned::InTheOpen => "it needs Linux, and steps that `pv` itself isolates",
                    Unpinned::Unreported => {
                        "something above reports or traces this process already, such as a step of `pv`"
                    }
                    Unpinned::Untraced(_) => "look for what forbids tracing: Yama, or the settings of a container",
                };
                (ENVIRONMENT, Some(format!("{how}; or else, `determinism: free` gives it the system's entropy")))
            }
            RunError::Variable { .. } | RunError::UnknownStep(_) => (USAGE, None),
        };
        Self { source: Some(Box::new(error)), hint, code }
    }
}
