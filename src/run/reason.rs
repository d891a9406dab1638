//! Why a step runs: what differs between two recipes, in words that name it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Serialize, Serializer};

use super::image;
use super::machine::{LIBRARY, PACKAGE, is_told_by_version};
use super::recipe::WHOLE_TREE;
use crate::environment::{BUILD, ENVIRONMENT};
use crate::object::{TreeId, from_canonical};
use crate::path::ProjectPath;
use crate::record::{ABSENT, Reads, Recipe, Strict};
use crate::snapshot::changes;
use crate::store::Store;

/// How many changed files of one directory are named.
const FILES_NAMED: usize = 3;
/// How many changed packages are named; another interpreter changes all of them.
const PACKAGES_NAMED: usize = 3;

/// Of a directory, of which only the names in it were read.
const LISTS_OTHERS: &str = "lists other names";

/// Why a step has the verdict that it has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reason {
    /// Nothing that it depends on changed.
    Unchanged,
    /// Nothing that it depends on changed since another user, or this one on another machine, executed it.
    Shared {
        /// Who.
        who: String,
        /// On which machine.
        host: String,
    },
    /// No earlier result of it is known.
    FirstTime,
    /// Something that it depends on changed since its last result.
    Changed(Vec<Difference>),
    /// Steps before it run, so what it reads may change.
    After(Vec<String>),
    /// Its result is known, but outputs are no longer in the store.
    OutputsGone,
    /// Its result is known, but of somebody whose results do not count here.
    Untrusted {
        /// Who.
        who: String,
    },
    /// Its result is known, but it talked to these addresses, for which its definition does not vouch.
    Talked(Vec<String>),
    /// It read what these steps write, which it did not wait for.
    ReadTooEarly(Vec<String>),
    /// Every step is executed again.
    Replay,
    /// It was asked for once more.
    Again,
    /// Its definition says that no known result is taken.
    NotCached,
    /// Another run was executing it and has left its result.
    TakenFromOther,
    /// A step that it needs failed.
    Needs(String),
    /// The run was stopped before.
    Stopped,
    /// The run was stopped while it was executed.
    Interrupted,
}

/// One thing that differs between two recipes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Difference {
    /// The command, or where it runs.
    Command,
    /// A variable that the definition sets or passes through.
    Env {
        /// Its name.
        name: String,
        /// Its value before.
        old: Option<String>,
        /// Its value now.
        new: Option<String>,
    },
    /// A param.
    Param {
        /// The file it comes from, if it comes from one.
        source: Option<String>,
        /// Its dotted key.
        key: String,
        /// Its value before.
        old: Option<String>,
        /// Its value now.
        new: Option<String>,
    },
    /// The seed.
    Seed {
        /// The seed before.
        old: Option<u64>,
        /// The seed now.
        new: Option<u64>,
    },
    /// A program or a package.
    Environment {
        /// Which.
        name: String,
        /// What identified it before.
        old: Option<String>,
        /// What identifies it now.
        new: Option<String>,
        /// The step that was seen to load it.
        #[serde(skip_serializing_if = "Option::is_none")]
        loaded_by: Option<String>,
    },
    /// A file or directory that it reads.
    Read {
        /// Which.
        path: String,
        /// What happened to it: `changed`, `added`, `removed`, `lists other names`.
        how: &'static str,
    },
    /// Further files of a directory that it reads.
    MoreFiles {
        /// How many.
        count: usize,
    },
    /// Another key of the definition that says what it sees: `home`, `isolate` or `network`.
    Sight {
        /// The key.
        key: &'static str,
        /// What it said before.
        old: &'static str,
        /// What it says now.
        new: &'static str,
    },
    /// The inputs that it declares, which are all that it is shown.
    Inputs,
    /// The outputs that it must leave.
    Outputs,
    /// The rules by which a key is made.
    Rules,
}

/// Returns what differs between the recipe of the last result and the present one, the telling things first.
pub(super) fn differences(
    store: &dyn Store,
    old: &Recipe,
    new: &Recipe,
    loaded_by: Option<&str>,
    source_of: &dyn Fn(&str) -> Option<String>,
) -> Vec<Difference> {
    let mut found = Vec::new();
    if old.command != new.command || old.workdir != new.workdir {
        found.push(Difference::Command);
    }
    for (key, old, new) in differing(&old.params, &new.params) {
        let (old, new) = (old.map(readable), new.map(readable));
        found.push(Difference::Param { source: source_of(&key), key, old, new });
    }
    if old.seed != new.seed {
        found.push(Difference::Seed { old: old.seed, new: new.seed });
    }
    found.extend(differing(&old.env, &new.env).map(|(name, old, new)| Difference::Env { name, old, new }));
    reads(store, &old.reads, &new.reads, &mut found);
    // In another image everything is another one, which tells nothing further.
    let is_elsewhere = old.environment.get(image::FACT) != new.environment.get(image::FACT);
    let differs = |name: &str| old.environment.get(name) != new.environment.get(name);
    let facts = differing(&old.environment, &new.environment).filter(|(name, ..)| !is_elsewhere || name == image::FACT);
    let facts = facts.filter(|(name, ..)| !is_told_by_version(name, differs));
    found.extend(facts.map(|(name, old, new)| Difference::Environment {
        name,
        old: old.filter(|old| old != ABSENT),
        new: new.filter(|new| new != ABSENT),
        loaded_by: loaded_by.map(str::to_owned),
    }));
    if old.outputs != new.outputs {
        found.push(Difference::Outputs);
    }
    found.extend(sights(old, new).map(|(key, old, new)| Difference::Sight { key, old, new }));
    // An input that was not read before is told as what it is.
    if found.is_empty()
        && let (Some(old), Some(new)) = (&old.strict, &new.strict)
        && old.inputs != new.inputs
    {
        found.push(Difference::Inputs);
    }
    if found.is_empty() && old != new {
        found.push(Difference::Rules);
    }
    found
}

/// Returns the keys of the definition by which the two steps see more or less than each other, with what each says.
///
/// Whether there is a network is told of steps that are both strict: elsewhere it only says whether a result is taken.
pub(super) fn sights(old: &Recipe, new: &Recipe) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let home = |recipe: &Recipe| if recipe.home.is_some() { "host" } else { "own" };
    let isolate = |recipe: &Recipe| if recipe.strict.is_some() { "strict" } else { "observe" };
    let network = |recipe: &Recipe, other: &Recipe| match (&recipe.strict, &other.strict) {
        (Some(Strict { network: true, .. }), Some(_)) => "true",
        _ => "false",
    };
    let determinism = |recipe: &Recipe| {
        if recipe.seeding.is_some_and(|rules| rules.entropy.is_some()) { "pinned" } else { "free" }
    };
    let all = [
        ("determinism", determinism(old), determinism(new)),
        ("home", home(old), home(new)),
        ("isolate", isolate(old), isolate(new)),
        ("network", network(old, new), network(new, old)),
    ];
    all.into_iter().filter(|(_, old, new)| old != new)
}

/// Returns the value of a param as JSON has it, from the canonical form that a recipe has.
pub(super) fn readable(canonical: String) -> String {
    from_canonical(canonical.as_bytes()).map_or(canonical, |value| value.to_string())
}

fn reads(store: &dyn Store, old: &Reads, new: &Reads, found: &mut Vec<Difference>) {
    for (path, old, new) in differing(old, new) {
        let tree = |text: &Option<String>| -> Option<TreeId> {
            text.as_deref()?.split_once(' ').filter(|(kind, _)| matches!(*kind, "directory" | "data"))?.1.parse().ok()
        };
        if let (Some(old), Some(new)) = (tree(&old), tree(&new)) {
            let above = if path == WHOLE_TREE { None } else { ProjectPath::new(&path).ok() };
            let mut files = Vec::new();
            let told = changes(store, Some(old), Some(new), above.as_ref(), &mut |change| {
                let how = how(change.old.is_some(), change.new.is_some());
                files.push(Difference::Read { path: change.path.to_string(), how });
            });
            // The older tree may be gone from the store; then the directory itself is named.
            if told.is_ok() && !files.is_empty() {
                let more = files.len().saturating_sub(FILES_NAMED);
                files.truncate(FILES_NAMED);
                found.extend(files);
                if more > 0 {
                    found.push(Difference::MoreFiles { count: more });
                }
                continue;
            }
        }
        let is_listing = |text: &Option<String>| text.as_deref().is_some_and(|text| text.starts_with("listing "));
        if is_listing(&old) && is_listing(&new) {
            found.push(Difference::Read { path, how: LISTS_OTHERS });
            continue;
        }
        let there = |text: &Option<String>| text.as_deref().is_some_and(|text| text != "absent");
        found.push(Difference::Read { how: how(there(&old), there(&new)), path });
    }
}

const fn how(before: bool, now: bool) -> &'static str {
    match (before, now) {
        (false, true) => "added",
        (true, false) => "removed",
        _ => "changed",
    }
}

type Both = (String, Option<String>, Option<String>);

fn differing(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> impl Iterator<Item = Both> {
    let keys: BTreeSet<String> = old.keys().chain(new.keys()).cloned().collect();
    let both: Vec<Both> = keys
        .into_iter()
        .map(|key| (key.clone(), old.get(&key).cloned(), new.get(&key).cloned()))
        .filter(|(_, old, new)| old != new)
        .collect();
    both.into_iter()
}

impl Difference {
    /// Returns whether it is a package of a program's environment.
    fn is_package(&self) -> bool {
        matches!(self, Self::Environment { name, .. } if name.contains(PACKAGE) || name.contains(BUILD))
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none = |value: &Option<String>| value.clone().unwrap_or_else(|| "(none)".to_owned());
        match self {
            Self::Command => f.write_str("the command changed"),
            Self::Env { name, old, new } => write!(f, "`{name}` {} -> {}", or_none(old), or_none(new)),
            Self::Param { source, key, old, new } => {
                if let Some(source) = source {
                    write!(f, "`{source}` ")?;
                }
                write!(f, "`{key}` {} -> {}", or_none(old), or_none(new))
            }
            Self::Seed { old, new } => {
                let text = |seed: &Option<u64>| seed.map_or_else(|| "(none)".to_owned(), |seed| seed.to_string());
                write!(f, "the seed {} -> {}", text(old), text(new))
            }
            Self::Environment { name, old, new, loaded_by } => match (name.split_once(PACKAGE), old, new) {
                (Some((_, package)), old, new) => {
                    write!(f, "`{package}` {} -> {}", or_none(old), or_none(new))?;
                    loaded_by.iter().try_for_each(|step| write!(f, ", loaded by `{step}`"))
                }
                _ if name == ENVIRONMENT => f.write_str("the lock of its Python environment changed"),
                _ if name.contains(BUILD) => {
                    let (_, package) = name.split_once(BUILD).unwrap_or_default();
                    write!(f, "`{package}` has other files in the same version")?;
                    loaded_by.iter().try_for_each(|step| write!(f, ", loaded by `{step}`"))
                }
                _ if name.starts_with(LIBRARY) => {
                    write!(f, "library `{}` {}", &name[LIBRARY.len()..], how(old.is_some(), new.is_some()))
                }
                _ if name.starts_with("variable ") => {
                    write!(f, "`{}` {} -> {}", &name["variable ".len()..], or_none(old), or_none(new))
                }
                _ if name == image::FACT => {
                    let text =
                        |digest: &Option<String>| digest.as_deref().map_or("this machine", image::short).to_owned();
                    write!(f, "the environment {} -> {}", text(old), text(new))
                }
                (None, Some(_), Some(_)) => write!(f, "program `{name}` changed"),
                (None, None, _) => write!(f, "program `{name}` was not there before"),
                (None, _, None) => write!(f, "program `{name}` is gone"),
            },
            Self::Read { path, how } => write!(f, "`{path}` {how}"),
            Self::MoreFiles { count: 1 } => f.write_str("1 more file"),
            Self::MoreFiles { count } => write!(f, "{count} more files"),
            Self::Sight { key, old, new } => write!(f, "`{key}` {old} -> {new}"),
            Self::Inputs => f.write_str("its list of inputs changed"),
            Self::Outputs => f.write_str("its list of outputs changed"),
            Self::Rules => f.write_str("this version of pv makes keys by other rules"),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unchanged => f.write_str("nothing it depends on changed"),
            Self::Shared { who, host } => write!(f, "nothing it depends on changed since {who} ran it on {host}"),
            Self::Untrusted { who } => write!(f, "its result is of {who}, whose results do not count here"),
            Self::FirstTime => f.write_str("it has not run before"),
            Self::Changed(differences) => {
                let (packages, others): (Vec<_>, Vec<_>) = differences.iter().partition(|other| other.is_package());
                let (told, more) = packages.split_at(packages.len().min(PACKAGES_NAMED));
                let mut texts: Vec<_> =
                    others.into_iter().chain(told.iter().copied()).map(ToString::to_string).collect();
                match more.len() {
                    0 => {}
                    1 => texts.push("1 more package".to_owned()),
                    count => texts.push(format!("{count} more packages")),
                }
                f.write_str(&texts.join(", "))
            }
            Self::After(steps) => {
                let names: Vec<_> = steps.iter().map(|step| format!("`{step}`")).collect();
                write!(f, "it runs after {}", names.join(", "))
            }
            Self::OutputsGone => f.write_str("its recorded outputs are no longer in the store"),
            Self::Talked(peers) => {
                let peers: Vec<_> = peers.iter().map(|peer| format!("`{peer}`")).collect();
                write!(f, "it talked to {} without `network: true`", peers.join(", "))
            }
            Self::ReadTooEarly(steps) => {
                let names: Vec<_> = steps.iter().map(|step| format!("`{step}`")).collect();
                write!(f, "it was seen to look for what {} writes", names.join(", "))
            }
            Self::Replay => f.write_str("every step is executed again"),
            Self::Again => f.write_str("it is executed again, as asked for"),
            Self::NotCached => f.write_str("its result is never reused, as `cache: false` says"),
            Self::TakenFromOther => f.write_str("another run has just executed it"),
            Self::Needs(step) => write!(f, "`{step}` did not succeed"),
            Self::Stopped => f.write_str("the run was stopped before it"),
            Self::Interrupted => f.write_str("it was interrupted"),
        }
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_interpreter_is_not_a_wall_of_packages() {
        let package = |number: u32| Difference::Environment {
            name: format!("python package p{number}"),
            old: Some("1".to_owned()),
            new: None,
            loaded_by: None,
        };
        let told =
            |count: u32| Reason::Changed((0..count).map(package).chain([Difference::Command]).collect()).to_string();
        assert_eq!(told(2), "the command changed, `p0` 1 -> (none), `p1` 1 -> (none)");
        assert!(told(4).ends_with("`p2` 1 -> (none), 1 more package"), "{}", told(4));
        assert!(told(90).ends_with("`p2` 1 -> (none), 87 more packages"), "{}", told(90));
    }
}
