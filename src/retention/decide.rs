//! Which records count. Pure.

use std::collections::BTreeSet;

use super::Roots;
use crate::host::Time;
use crate::object::{SnapshotId, StepKey};
use crate::record::{Link, Run, StepResult, Version};

/// Everything that is known in one repository.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The links.
    pub links: Vec<Link>,
    /// The versions that were not replaced.
    pub versions: Vec<Version>,
    /// The runs.
    pub runs: Vec<Run>,
    /// The results of steps.
    pub results: Vec<StepResult>,
    /// Commits and the snapshots that they determine.
    pub remembered: Vec<(String, SnapshotId)>,
}

impl Facts {
    /// Returns every commit that something depends on; one may come several times.
    pub fn commits(&self) -> impl Iterator<Item = &str> {
        let linked = self.links.iter().filter_map(|link| link.commit.as_deref());
        linked.chain(self.remembered.iter().map(|(commit, _)| commit.as_str()))
    }
}

/// Returns what must be kept.
///
/// Every version; what a commit determines that Git still has; what was taken or run `since` then, or is a run of
/// something that is kept anyway; the results that such a run used, and the recent ones.
pub fn keep(facts: &Facts, since: Time, has_commit: &dyn Fn(&str) -> bool) -> Roots {
    let mut roots = Roots::default();
    roots.snapshots.extend(facts.versions.iter().map(|version| version.snapshot));
    for link in &facts.links {
        let by_commit = !link.dirty && link.commit.as_deref().is_some_and(has_commit);
        if by_commit || link.time >= since {
            roots.snapshots.insert(link.snapshot);
        }
    }
    let determined = facts.remembered.iter().filter(|(commit, _)| has_commit(commit));
    roots.snapshots.extend(determined.map(|(_, snapshot)| *snapshot));
    let recent = facts.runs.iter().filter(|run| run.started >= since).map(|run| run.snapshot).collect::<Vec<_>>();
    roots.snapshots.extend(recent);
    add_results(&mut roots, facts, |result| result.started >= since);
    roots
}

/// Returns what belongs to these snapshots: they themselves, what runs of them left, and the results that those used.
pub fn around(facts: &Facts, snapshots: BTreeSet<SnapshotId>) -> Roots {
    let mut roots = Roots { snapshots, ..Roots::default() };
    add_results(&mut roots, facts, |_| false);
    roots
}

/// Adds what runs of the snapshots left, the results that they used, and those that are wanted beside.
fn add_results(roots: &mut Roots, facts: &Facts, is_wanted: impl Fn(&StepResult) -> bool) {
    let mut keys: BTreeSet<StepKey> = BTreeSet::new();
    for run in facts.runs.iter().filter(|run| roots.snapshots.contains(&run.snapshot)) {
        for step in &run.steps {
            keys.extend(step.key);
            roots.outputs.extend(step.outputs.iter().map(crate::record::Output::entry));
            roots.logs.extend(step.log);
        }
    }
    for result in facts.results.iter().filter(|result| is_wanted(result) || keys.contains(&result.key)) {
        roots.outputs.extend(result.outputs.iter().map(crate::record::Output::entry));
        roots.logs.extend(result.log);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{By, RunVerdict};

    fn by() -> By {
        By { who: String::new(), host: String::new(), platform: String::new(), pv: String::new() }
    }

    fn snapshot(number: u8) -> SnapshotId {
        SnapshotId::of(&[number])
    }

    fn link(number: u8, commit: Option<&str>, dirty: bool, epoch_ms: i64) -> Link {
        let (pipeline, commit, time) = (String::new(), commit.map(str::to_owned), Time { epoch_ms });
        Link { snapshot: snapshot(number), pipeline, commit, dirty, time, by: by(), message: None }
    }

    fn run(number: u8, epoch_ms: i64) -> Run {
        Run {
            snapshot: snapshot(number),
            pipeline: String::new(),
            version: None,
            commit: None,
            dirty: true,
            verdict: RunVerdict::Done,
            against: None,
            started: Time { epoch_ms },
            elapsed_ms: 0,
            by: by(),
            machine: std::collections::BTreeMap::new(),
            steps: Vec::new(),
        }
    }

    #[test]
    fn versions_commits_and_recent_work_are_kept_and_the_rest_is_not() {
        let version = Version {
            name: "v1".to_owned(),
            snapshot: snapshot(1),
            pipeline: String::new(),
            commit: None,
            dirty: true,
            time: Time { epoch_ms: 0 },
            by: by(),
            message: None,
            replaces: Vec::new(),
        };
        let facts = Facts {
            versions: vec![version],
            links: vec![
                link(2, Some("here"), false, 0),
                link(3, Some("here"), true, 0),
                link(4, Some("gone"), false, 0),
                link(5, None, true, 0),
                link(6, None, true, 100),
                link(7, Some("gone"), false, 100),
            ],
            runs: vec![run(8, 0), run(9, 100)],
            remembered: vec![("here".to_owned(), snapshot(10)), ("gone".to_owned(), snapshot(11))],
            results: Vec::new(),
        };
        let roots = keep(&facts, Time { epoch_ms: 50 }, &|commit| commit == "here");
        assert_eq!(roots.snapshots, [1, 2, 6, 7, 9, 10].map(snapshot).into());
    }
}
