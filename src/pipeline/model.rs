//! What a pipeline is, in its normalised form.
//!
//! The JSON of these types is what a snapshot keeps. A value that says the same
//! as its absence is left out, so a key that is added to the format later does
//! not change the id of a definition that does not use it. The derived JSON
//! schema describes the YAML file instead, which offers shorter forms.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::object::{self, DefinitionId};
use crate::path::ProjectPath;

use super::environment::Environment;
use super::schema;
use super::tolerance::Tolerance;

/// How many characters the name of a step or of a version has at most.
pub const NAME_MAX_CHARS: usize = 100;
/// The longest timeout, in seconds: 365 days.
pub const TIMEOUT_MAX_S: u64 = 365 * 24 * 60 * 60;
/// How often a failed step is tried again at most.
pub(super) const RETRIES_MAX: u64 = 100;
/// How many processors, or GPUs, a step asks for at most.
pub(super) const SLOTS_MAX: u64 = 1024;
/// The least memory that a step asks for: 1 MiB. Less is a forgotten unit.
pub(super) const MEMORY_MIN_BYTES: u64 = 1 << 20;
/// The most memory that a step asks for: 1 PiB.
pub(super) const MEMORY_MAX_BYTES: u64 = 1 << 50;
/// Stands between the name of a step with a matrix and what tells its combinations apart: `train@rate=0.1`.
pub const COMBINATION_MARK: char = '@';
/// The variable that carries the version's name, for steps that ask for it in `env`.
pub const VERSION_VARIABLE: &str = "PV_VERSION";

/// A pipeline: named steps, what they start from, and what they share.
///
/// All paths are relative to the root of the project, the directory that holds `.pipeline`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// A label for this version of the pipeline, such as `v1.0`. A number must be quoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::name")]
    pub version: Option<String>,
    /// The seed from which the seed of every step is derived: 0 to 9223372036854775807.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::seed")]
    pub seed: Option<u64>,
    /// What the steps run in: this machine (`host`), an image by its digest, or a Python with the packages of a lock.
    #[serde(default, skip_serializing_if = "Environment::is_host")]
    #[schemars(schema_with = "schema::environment")]
    pub environment: Environment,
    /// Where params come from: a `.yaml`, `.yml` or `.json` file, a map of values, or a list of those.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::params")]
    pub params: Vec<ParamsSource>,
    /// Files and directories that Git ignores but snapshots carry: one path or a list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::paths")]
    pub data: Vec<ProjectPath>,
    /// The steps by their names. The order of the file counts for steps that declare neither `inputs` nor `needs`.
    #[schemars(schema_with = "schema::steps")]
    pub steps: Vec<Step>,
}

/// One named command and what is known about it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The key under `steps`: ASCII letters, digits, `_`, `-` and `.`, not starting with `-` or `.`.
    #[schemars(skip)]
    pub name: String,
    /// What the step is for, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1))]
    pub description: Option<String>,
    /// The command: one text for the shell, or a list of a program and its arguments, run without a shell.
    #[schemars(schema_with = "schema::run")]
    pub run: Run,
    /// Files and directories that the step reads: one path or a list. Left out, they are not declared; `[]` says there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::paths")]
    pub inputs: Option<Vec<ProjectPath>>,
    /// Files and directories that the step writes: one path or a list; in place of a path, a map with `path` and
    /// `compare` says how far it may differ between two runs. No two steps may write one path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::outputs")]
    pub outputs: Vec<ProjectPath>,
    /// Further outputs that hold numbers to compare between runs, written like `outputs`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::outputs")]
    pub metrics: Vec<ProjectPath>,
    /// How far outputs and metrics may differ between two runs; what is not in it must be identical.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(skip)]
    pub compare: BTreeMap<ProjectPath, Tolerance>,
    /// Steps that must run before, without a file between them: one name or a list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::names")]
    pub needs: Vec<String>,
    /// Environment variables: a map of names to values, or a list of `NAME` (passed through) and `NAME=value`.
    #[serde(default, skip_serializing_if = "StepEnv::is_empty")]
    #[schemars(schema_with = "schema::env")]
    pub env: StepEnv,
    /// The params that the step uses, as dotted keys such as `train.rate`: one or a list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::keys")]
    pub params: Vec<String>,
    /// What the step runs in, instead of what the pipeline says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::environment")]
    pub environment: Option<Environment>,
    /// The seed of this step, instead of one derived from the pipeline's: 0 to 9223372036854775807.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::step_seed")]
    pub seed: Option<u64>,
    /// After how long the step is stopped: whole seconds, or a text such as `90s`, `5m`, `2h` or `1d`; at most 365 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(rename = "timeout", schema_with = "schema::timeout")]
    pub timeout_s: Option<u64>,
    /// The directory that the command starts in. All other paths stay relative to the root of the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::workdir")]
    pub workdir: Option<ProjectPath>,
    /// Whether the step may use the network: the author vouches that the result does not depend on it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub network: bool,
    /// Whose home directory the step gets: an empty one of its `own`, or the user's on this machine, `host`.
    #[serde(default, skip_serializing_if = "Home::is_own")]
    #[schemars(schema_with = "schema::home")]
    pub home: Home,
    /// What the step sees: everything in the snapshot (`observe`), or its declared inputs alone (`strict`).
    #[serde(default, skip_serializing_if = "Isolate::is_observe")]
    #[schemars(schema_with = "schema::isolate")]
    pub isolate: Isolate,
    /// What the step may get that is another each time: whatever the system gives (`free`), or entropy from its seed alone (`pinned`).
    #[serde(default, skip_serializing_if = "Determinism::is_free")]
    #[schemars(schema_with = "schema::determinism")]
    pub determinism: Determinism,
    /// Whether a known result of the step may be taken; `false` executes it in every run.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    #[schemars(extend("default" = true))]
    pub cache: bool,
    /// How often the step is tried again after it failed: 0 to 100.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(schema_with = "schema::retries")]
    pub retries: u32,
    /// What the step takes of the machine while it runs.
    #[serde(default, skip_serializing_if = "Resources::is_usual")]
    pub resources: Resources,
    /// Files and directories that the step finds again when it is tried again, such as checkpoints: one path or a list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::paths")]
    pub keep: Vec<ProjectPath>,
}

/// Whose home directory a step gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Home {
    /// An empty one, gone afterwards.
    #[default]
    Own,
    /// The user's on this machine.
    Host,
}

/// What a step sees of the snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolate {
    /// Everything; what it reads is observed.
    #[default]
    Observe,
    /// Its declared inputs alone, and no network unless it declares that.
    Strict,
}

/// Whether a step gets what is another each time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Determinism {
    /// Whatever the system gives.
    #[default]
    Free,
    /// Entropy that follows from its seed, in place of the system's.
    Pinned,
}

/// What a step takes of the machine while it runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// How many processors it keeps busy: 1 to 1024.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[schemars(schema_with = "schema::cpus")]
    pub cpus: u32,
    /// How much memory it needs: a whole number of bytes, or a text such as `512MiB` or `4GiB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(rename = "memory", schema_with = "schema::memory")]
    pub memory_bytes: Option<u64>,
    /// How many GPUs it has for itself: 0 to 1024.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(schema_with = "schema::gpus")]
    pub gpus: u32,
    /// Names of things that only one step at a time may use: one or a list.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(schema_with = "schema::locks")]
    pub locks: BTreeSet<String>,
}

impl Default for Resources {
    fn default() -> Self {
        Self { cpus: 1, memory_bytes: None, gpus: 0, locks: BTreeSet::new() }
    }
}

/// Where params come from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ParamsSource {
    /// A `.yaml`, `.yml` or `.json` file that holds a map.
    File(ProjectPath),
    /// Values in the definition itself.
    Inline(serde_json::Map<String, serde_json::Value>),
}

/// The command of a step.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Run {
    /// A text for the shell, not blank, without line ends behind it.
    Shell(String),
    /// A program and its arguments, at least the program.
    Program(Vec<String>),
}

/// The environment variables of a step. No name is in both.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepEnv {
    /// Variables with a value of their own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fixed: BTreeMap<String, String>,
    /// Variables that are passed through from outside.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub passed: BTreeSet<String>,
}

impl Pipeline {
    /// Returns the step of this name and its place in the file.
    pub fn step(&self, name: &str) -> Option<(usize, &Step)> {
        self.steps.iter().enumerate().find(|(_, step)| step.name == name)
    }

    /// Returns the canonical JSON, the same for every spelling of the same pipeline.
    #[expect(clippy::missing_panics_doc, reason = "it cannot: every key of a pipeline is text")]
    pub fn canonical(&self) -> Vec<u8> {
        object::canonical(self).expect("all keys of a pipeline are text")
    }

    /// Returns the id of the normalised definition.
    pub fn id(&self) -> DefinitionId {
        DefinitionId::of(&self.canonical())
    }
}

impl Step {
    /// Returns everything that the step writes, metrics included.
    pub fn written(&self) -> impl Iterator<Item = &ProjectPath> {
        self.outputs.iter().chain(&self.metrics)
    }

    /// Returns how far what it writes at `path` may differ between two runs.
    ///
    /// For a file in an output that is a directory this is what is said of the output.
    pub fn tolerance(&self, path: &ProjectPath) -> Tolerance {
        let of_it = self.compare.iter().find(|(output, _)| path.is_within(output));
        of_it.map(|(_, tolerance)| *tolerance).unwrap_or_default()
    }

    /// Returns the name under which the step stands in the file: without what tells the combinations of a matrix apart.
    pub fn family(&self) -> &str {
        family(&self.name)
    }

    /// Returns whether the step runs after the one above it, because it says nothing about its order.
    pub fn follows_the_one_above(&self) -> bool {
        self.inputs.is_none() && self.needs.is_empty()
    }
}

/// Returns the name in the file of a step with this name.
pub(super) fn family(name: &str) -> &str {
    name.split_once(COMBINATION_MARK).map_or(name, |(family, _)| family)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_true(value: &bool) -> bool {
    *value
}

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(value: &u32) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_one(value: &u32) -> bool {
    *value == 1
}

const fn one() -> u32 {
    1
}

impl Home {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_own(&self) -> bool {
        *self == Self::Own
    }
}

impl Isolate {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_observe(&self) -> bool {
        *self == Self::Observe
    }
}

impl Determinism {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_free(&self) -> bool {
        *self == Self::Free
    }
}

impl Resources {
    /// Returns whether it takes what a step takes that says nothing: one processor.
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

impl Pipeline {
    /// Returns what a step of it runs in.
    pub fn environment_of<'a>(&'a self, step: &'a Step) -> &'a Environment {
        step.environment.as_ref().unwrap_or(&self.environment)
    }
}

impl StepEnv {
    /// Returns whether there are no variables.
    pub fn is_empty(&self) -> bool {
        self.fixed.is_empty() && self.passed.is_empty()
    }
}
