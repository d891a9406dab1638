//! What records say. Their canonical JSON is stored; the fields are a promise:
//! new ones are optional, old ones keep their meaning.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::verification::Verification;
use crate::exec::{Gap, Rung};
use crate::hash::Digest;
use crate::host::{self, Time};
use crate::object::{BlobId, Entry, RecordId, Sized, SnapshotId, StepKey, TaskKey, canonical, from_canonical};
use crate::path::ProjectPath;
use crate::pipeline::Run as Command;

/// One immutable fact.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[expect(clippy::large_enum_variant, reason = "a record is read or written, and not kept in numbers")]
pub enum Record {
    /// A snapshot was taken of a working tree or of a commit.
    Link(Link),
    /// A snapshot was given a name.
    Version(Version),
    /// A snapshot was executed.
    Run(Run),
    /// A step had a result.
    Step(StepResult),
    /// A snapshot was verified.
    Verification(Verification),
}

impl Record {
    /// Returns the id and the canonical bytes.
    pub fn encode(&self) -> (RecordId, Vec<u8>) {
        let bytes = canonical(self).expect("records have text keys only");
        (RecordId::of(&bytes), bytes)
    }

    /// Returns the record with these bytes, or `None` if a newer `pv` wrote a kind that this one does not know.
    ///
    /// # Errors
    ///
    /// What is wrong with the JSON.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, serde_json::Error> {
        #[derive(Deserialize)]
        struct Tag {
            kind: String,
        }
        let tag: Tag = serde_json::from_slice(bytes)?;
        Ok(Some(match tag.kind.as_str() {
            "link" => Self::Link(read(bytes)?),
            "version" => Self::Version(read(bytes)?),
            "run" => Self::Run(read(bytes)?),
            "step" => Self::Step(read(bytes)?),
            "verification" => Self::Verification(read(bytes)?),
            _ => return Ok(None),
        }))
    }
}

/// Reads canonical JSON. Without the mark of what JSON itself cannot say it is read as it stands, in half the time.
fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    if bytes.contains(&b'$') { serde_json::from_value(from_canonical(bytes)?) } else { serde_json::from_slice(bytes) }
}

/// Who and which machine stands behind a record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct By {
    /// `Name <email>` as Git knows the user, or the login name.
    pub who: String,
    /// The machine's name.
    pub host: String,
    /// Operating system and architecture.
    pub platform: String,
    /// The version of `pv`.
    pub pv: String,
}

impl By {
    /// Returns this user on this machine; `who` as Git knows the user.
    pub fn here(who: Option<String>) -> Self {
        Self {
            who: who.unwrap_or_else(host::user),
            host: host::hostname(),
            platform: host::platform(),
            pv: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// A snapshot was taken of a working tree or of a commit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Link {
    /// What was taken.
    pub snapshot: SnapshotId,
    /// The pipeline's name; `pipeline` unless there are several.
    pub pipeline: String,
    /// The commit that was checked out, if there was one.
    pub commit: Option<String>,
    /// Whether the working tree differed from the commit.
    pub dirty: bool,
    /// When.
    pub time: Time,
    /// By whom, and where.
    pub by: By,
    /// What the user wrote about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A snapshot was given a name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Version {
    /// The name.
    pub name: String,
    /// What it names.
    pub snapshot: SnapshotId,
    /// The pipeline's name.
    pub pipeline: String,
    /// The commit that was checked out, if there was one.
    pub commit: Option<String>,
    /// Whether the working tree differed from the commit.
    pub dirty: bool,
    /// When.
    pub time: Time,
    /// By whom, and where.
    pub by: By,
    /// What the user wrote about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The records of the same name that this one takes the place of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<RecordId>,
}

/// A snapshot was executed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Run {
    /// What was executed.
    pub snapshot: SnapshotId,
    /// The pipeline's name.
    pub pipeline: String,
    /// The version that was asked for, or the definition's label.
    pub version: Option<String>,
    /// The commit that was checked out or asked for, if there was one.
    pub commit: Option<String>,
    /// Whether the working tree differed from that commit.
    pub dirty: bool,
    /// How it ended.
    pub verdict: RunVerdict,
    /// The run whose outputs these were compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<RecordId>,
    /// When it began.
    pub started: Time,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
    /// By whom, and where.
    pub by: By,
    /// Facts about the machine that explain but do not decide: system, kernel, processors.
    pub machine: BTreeMap<String, String>,
    /// What happened to each step, in the order of the definition.
    pub steps: Vec<RunStep>,
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunVerdict {
    /// Every step has its outputs; there was nothing to compare with.
    Done,
    /// Every output equals the recorded one, bit for bit.
    Reproduced,
    /// Some output differs from the recorded one.
    Differs,
    /// A step failed, or the run was interrupted.
    Failed,
}

/// What happened to a step in a run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RunStep {
    /// The step's name.
    pub step: String,
    /// What happened.
    pub verdict: StepVerdict,
    /// Why.
    pub reason: String,
    /// Its key, where it was reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<StepKey>,
    /// What it was asked to do; absent where it was not reached, and in runs of before steps were observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskKey>,
    /// How it was observed when it was executed; absent if it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rung: Option<Rung>,
    /// Whether it was executed in namespaces of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub isolated: bool,
    /// Whether it went on from what an attempt before had left in the paths that it keeps.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resumed: bool,
    /// How its seed reached it; absent if it has none, was not reached, or ran before that was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seeding: Option<Seeding>,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
    /// What it wrote.
    pub outputs: Vec<Output>,
    /// What it printed, in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<BlobId>,
}

/// How the seed of a step reached what it executed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Seeding {
    /// The ways that were open. What is not named here may have been random.
    pub layers: BTreeSet<Layer>,
    /// The modules of Python that the import hook has seeded, in any process.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub seeded: BTreeSet<String>,
    /// Those that it could not seed in some process.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unseeded: BTreeSet<String>,
}

/// A way by which a seed reaches a program.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// The variables that carry it, and those that let frameworks repeat.
    Variables,
    /// A module that some Python has loaded, which seeds others when they are imported.
    ImportHook,
    /// All entropy that the system was asked for follows from it.
    Entropy,
}

/// What happened to a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepVerdict {
    /// It was executed and has its outputs.
    Ran,
    /// Its recorded outputs were taken.
    Reused,
    /// It was executed and failed.
    Failed,
    /// It was not reached.
    Skipped,
}

/// One output of a step.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Output {
    /// Where it lies in the project.
    pub path: ProjectPath,
    /// What it is.
    pub kind: OutputKind,
    /// The digest of its content.
    pub digest: Digest,
    /// Its bytes, or the sum of those below it.
    pub size: u64,
    /// How many files it consists of.
    pub files: u64,
    /// Where a symbolic link points, escaped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// What an output is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputKind {
    /// A regular file.
    File,
    /// A file that may be executed.
    Executable,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

impl Output {
    /// Returns the output at `path` that `entry` describes; `None` for a submodule, which no step can write.
    pub fn of(path: ProjectPath, entry: &Entry) -> Option<Self> {
        let Sized { files, bytes: size } = entry.sized();
        let (kind, target) = match entry {
            Entry::File { executable: false, .. } => (OutputKind::File, None),
            Entry::File { executable: true, .. } => (OutputKind::Executable, None),
            Entry::Directory { .. } => (OutputKind::Directory, None),
            Entry::Symlink { target } => (OutputKind::Symlink, Some(crate::path::escape(target).into_owned())),
            Entry::Submodule { .. } => return None,
        };
        Some(Self { path, kind, digest: entry.digest(), size, files, target })
    }

    /// Returns the entry that this output was made from.
    pub fn entry(&self) -> Entry {
        match self.kind {
            OutputKind::File | OutputKind::Executable => {
                Entry::File { executable: self.kind == OutputKind::Executable, size: self.size, id: self.digest.into() }
            }
            OutputKind::Directory => {
                Entry::Directory { sized: Sized { files: self.files, bytes: self.size }, id: self.digest.into() }
            }
            OutputKind::Symlink => {
                Entry::Symlink { target: crate::path::unescape(self.target.as_deref().unwrap_or_default()) }
            }
        }
    }
}

/// A step had a result under a key.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StepResult {
    /// Digest of everything that may influence the step.
    pub key: StepKey,
    /// What the key was made of, to explain later what changed.
    pub recipe: Recipe,
    /// What it wrote.
    pub outputs: Vec<Output>,
    /// What it printed, in the store.
    pub log: Option<BlobId>,
    /// When it began.
    pub started: Time,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
    /// By whom, and where.
    pub by: By,
    /// What it was seen to do; absent if it was not observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Observed>,
}

/// What a step was seen to do, beside what its recipe tells it to depend on.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Observed {
    /// How it was observed.
    pub rung: Rung,
    /// Whether it ran in namespaces of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub isolated: bool,
    /// Whether it went on from what an attempt before had left in the paths that it keeps.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resumed: bool,
    /// How its seed reached it; absent if it has none, and in results of before that was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seeding: Option<Seeding>,
    /// What could not be seen. If there is anything, the step may depend on more than its recipe tells.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub gaps: BTreeSet<Gap>,
    /// What it read without declaring it, as in [`Reads`], with the program that did so first.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub readers: BTreeMap<String, String>,
    /// What it declares to read and did not.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unread: BTreeSet<ProjectPath>,
    /// What it wrote beside its outputs: paths of the project, and absolute ones outside.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub writes: BTreeSet<String>,
    /// Whom it talked to, as `host:port`, with the program that did so first.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub network: BTreeMap<String, String>,
    /// The libraries of linear algebra that it loaded, by the names of their files.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub blas: BTreeSet<String>,
    /// Whether its definition vouches for what comes over the network.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub vouched: bool,
}

impl Observed {
    /// Returns whether everything that the step depended on is known.
    pub fn is_complete(&self) -> bool {
        self.rung != Rung::None && self.gaps.is_empty()
    }
}

impl StepResult {
    /// Returns what the step was asked to do; `None` for a result of before tasks had keys.
    pub fn task(&self) -> Option<TaskKey> {
        (self.recipe.recipe >= Recipe::TASKS_SINCE).then(|| self.recipe.task())
    }

    /// Returns whether its recipe names everything that it depended on.
    pub fn is_seen_whole(&self) -> bool {
        self.observed.as_ref().is_some_and(Observed::is_complete)
    }
}

/// Everything that may influence a step. Its canonical JSON hashes to the step key.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Recipe {
    /// The meaning of this structure; another number is another key.
    pub recipe: u32,
    /// The step's name, which it sees as `PV_STEP`.
    pub step: String,
    /// What is executed.
    pub command: Command,
    /// Where it is executed, relative to the project.
    pub workdir: Option<ProjectPath>,
    /// The variables that the definition sets or passes through, with their values.
    pub env: BTreeMap<String, String>,
    /// The params it uses: canonical JSON of each value.
    pub params: BTreeMap<String, String>,
    /// The seed it gets.
    pub seed: Option<u64>,
    /// What of the environment it uses, each with what identifies it.
    pub environment: BTreeMap<String, String>,
    /// What it reads.
    pub reads: Reads,
    /// The outputs it must leave.
    pub outputs: Vec<ProjectPath>,
    /// `host` if it sees the user's home directory; absent if it has one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
    /// What a strict step is shown; absent if the step sees everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<Strict>,
    /// By which rules its seed reaches it; absent without a seed, and in results of before there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seeding: Option<SeedRules>,
}

/// By which rules a seed reaches a step. Another number is another result, and so another key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SeedRules {
    /// What its variables are, and what the import hook does.
    pub hook: u32,
    /// How entropy follows from it; absent if the step gets the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entropy: Option<u32>,
}

impl SeedRules {
    /// Returns the present rules.
    pub const fn present(is_pinned: bool) -> Self {
        Self { hook: 1, entropy: if is_pinned { Some(1) } else { None } }
    }
}

/// All that a strict step is shown beside what its command names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Strict {
    /// Its declared inputs, sorted.
    pub inputs: Vec<ProjectPath>,
    /// Whether it has the network of the machine.
    pub network: bool,
}

/// What a step reads: each path with what it found there.
///
/// Paths are those of the project, `.` its top, or absolute ones outside. A text tells its aspect: the
/// content (`file <hex>`, `directory <hex>`, `absent`), the names in a directory (`listing <hex>`), or what is
/// seen without opening it (`status file 123`).
pub type Reads = BTreeMap<String, String>;

impl Recipe {
    /// The number of the present meaning of a recipe.
    pub const VERSION: u32 = 2;
    /// From this meaning on, a recipe has a task.
    const TASKS_SINCE: u32 = 2;

    /// Returns the step key.
    pub fn key(&self) -> StepKey {
        StepKey::of(&canonical(self).expect("a recipe has text keys only"))
    }

    /// Returns the key of what is asked for: the recipe without what the step finds when it runs.
    pub fn task(&self) -> TaskKey {
        let asked = Self { environment: BTreeMap::new(), reads: Reads::new(), ..self.clone() };
        TaskKey::of(&canonical(&asked).expect("a recipe has text keys only"))
    }
}

impl fmt::Display for RunVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Done => "done",
            Self::Reproduced => "reproduced",
            Self::Differs => "differs",
            Self::Failed => "failed",
        })
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Variables => "variables",
            Self::ImportHook => "import hook",
            Self::Entropy => "entropy",
        })
    }
}

impl fmt::Display for StepVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ran => "ran",
            Self::Reused => "reused",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        })
    }
}
