//! `pv fsck`: is everything in the store what was written; repair it, or name what is hit.

mod elsewhere;
mod records;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::Global;
use super::answer::{bytes, count, short};
use super::fail::{CliError, STORE};
use super::open;
use super::reach::Remote;
use super::ui::{BAD, FAINT, GOOD, NAME, NOTE, Ui, paint};
use crate::damage::{self, Hit, Origin, Report, Subject, Subjects};
use crate::disk;
use crate::hash::Digest;
use crate::host::Stopwatch;
use crate::object::{Entry, Kind, RecordId, SnapshotId, StepKey};
use crate::path::ProjectPath;
use crate::project::Project;
use crate::record::META_REF;
use crate::retention;
use crate::snapshot::{Gap, check_definition};
use crate::store::Live;
use records::Records;

/// For people, at most so many of one sort are listed.
const LISTED_MAX: usize = 10;

/// Check that everything in the store is what was written, and repair what is not
///
/// Reads and hashes every object, those first that were not checked for the
/// longest time. What is whole in a damaged file is saved; what is not is looked
/// for in other copies, in the files of the working tree and in commits. The
/// damaged file is moved to `quarantine` in the store and never deleted.
/// Records are checked, too: a damaged one is taken back from `refs/pv/meta`.
/// With `--repair` what is lost is taken from the usual remote, too, if that has it; with `--remote` not the store here is
/// checked but what lies there.
/// What cannot be found again is named: the versions, snapshots and runs that need it,
/// and the paths in them. Ends with 0 if all is well or was repaired, with 4 if something stays lost.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Stop after this time, such as `30s` or `10m`; the next time goes on with the rest
    #[arg(long, value_name = "TIME", value_parser = duration)]
    max_time: Option<Duration>,
    /// Say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Take what is lost here from the usual remote; with `--remote`, send again what is damaged there
    #[arg(long, conflicts_with = "dry_run")]
    repair: bool,
    #[command(flatten)]
    elsewhere: elsewhere::Elsewhere,
}

#[derive(Serialize)]
struct Answer {
    dry_run: bool,
    packs: u64,
    objects: u64,
    bytes: u64,
    left: u64,
    records: Records,
    damaged: Vec<DamagedFile>,
    found: Vec<FoundObject>,
    hit: Vec<HitRecord>,
    unneeded: Vec<LostObject>,
}

#[derive(Serialize)]
struct DamagedFile {
    path: PathBuf,
    problem: String,
    saved: u64,
    bad: u64,
    quarantined: Option<PathBuf>,
}

#[derive(Serialize)]
struct FoundObject {
    kind: &'static str,
    digest: Digest,
    origin: &'static str,
    /// The file or the commit.
    place: Option<String>,
}

/// One of `snapshot`, `run` and `step` is there.
#[derive(Serialize)]
struct HitRecord {
    snapshot: Option<SnapshotId>,
    version: Option<String>,
    commit: Option<String>,
    host: Option<String>,
    run: Option<RecordId>,
    step: Option<String>,
    key: Option<StepKey>,
    missing: Vec<Missing>,
    #[serde(skip)]
    title: String,
}

#[derive(Serialize)]
struct Missing {
    kind: &'static str,
    digest: Digest,
    bytes: Option<u64>,
    path: Option<ProjectPath>,
}

#[derive(Serialize)]
struct LostObject {
    kind: &'static str,
    digest: Digest,
    bytes: u64,
}

pub(super) fn run(ui: &mut Ui, global: &Global, args: &Args) -> Result<u8, CliError> {
    let project = open::project(ui, global)?;
    if let Some(name) = &args.elsewhere.remote {
        return elsewhere::check(ui, &project, name, args);
    }
    let remote = if args.repair { Some(Remote::choose(&project, None)?) } else { None };
    let trouble = RefCell::new(None);
    let ask = |lost: &Live| {
        let remote = remote.as_ref().expect("it is asked only if there is one");
        elsewhere::take(&project, remote, lost).unwrap_or_else(|error| {
            trouble.replace(Some(remote.failed(error)));
            Live::new()
        })
    };
    let directories = directories(&project);
    let subjects = Subjects {
        store: &project.store,
        journal: &project.journal,
        site: project.site(),
        directories: &directories,
        elsewhere: if args.repair { Some(&ask) } else { None },
    };
    let report = {
        let (progress, since) = (ui.progress_of("Checking", "objects"), Stopwatch::start());
        damage::examine(subjects, args.dry_run, &|objects, bytes| {
            progress.count(objects, bytes) && args.max_time.is_none_or(|most| since.elapsed() < most)
        })?
    };
    if let Some(error) = trouble.take() {
        ui.warn(error.warning());
    }
    let mut report = report;
    forget_collected(&project, &mut report)?;
    if let Some(error) = report.records.unreadable.take() {
        ui.warn(format!("warning: `{META_REF}` cannot be asked for records: {error}"));
    }
    let answer = answer(&project, report, args.dry_run);
    ui.show(&answer)?;
    if !answer.hit.is_empty() {
        ui.say(format!(
            "{} put a lost file back where it was and check again; `pv run` makes lost outputs again",
            paint(GOOD, "hint:")
        ));
    }
    if !answer.hit.is_empty()
        && !args.repair
        && let Ok(Some(remote)) = Remote::usual(&project)
    {
        ui.say(format!("{} `pv fsck --repair` takes what remote `{}` has of it", paint(GOOD, "hint:"), remote.name));
    }
    if answer.records.are_lost() {
        ui.say(format!(
            "{} fetch `{META_REF}` from a clone that has the record and check again; delete the file in the quarantine \
             to do without it",
            paint(GOOD, "hint:")
        ));
    }
    let is_repairable = !answer.damaged.is_empty() || answer.records.are_damaged();
    let is_damaged = !answer.hit.is_empty() || answer.records.are_lost() || args.dry_run && is_repairable;
    Ok(if is_damaged { STORE } else { 0 })
}

/// Leaves out what a collection of garbage may have taken: that it is not there any more is no damage.
fn forget_collected(project: &Project, report: &mut Report) -> Result<(), CliError> {
    let Some(since) = project.kept_since().filter(|_| !report.hits.is_empty()) else { return Ok(()) };
    // Where it cannot be told what must be kept, everything counts.
    let journal = project.journal.as_if_repaired(&report.records);
    let Ok(roots) = retention::roots(project.user(&project.commits()), since) else { return Ok(()) };
    let outputs: BTreeSet<Digest> = roots.outputs.iter().map(Entry::digest).collect();
    let mut kept = Vec::new();
    for hit in std::mem::take(&mut report.hits) {
        let is_kept = match &hit.subject {
            Subject::Snapshot { id, .. } => roots.snapshots.contains(id),
            Subject::Run { id, .. } => journal.run(*id)?.is_some_and(|run| roots.snapshots.contains(&run.snapshot)),
            Subject::Result { key, task, .. } => {
                let results = journal.results(*task, *key)?;
                results.iter().flat_map(|(_, result)| &result.outputs).any(|output| outputs.contains(&output.digest))
            }
        };
        if is_kept {
            kept.push(hit);
        }
    }
    report.hits = kept;
    Ok(())
}

/// Returns where files with lost bytes may lie: the working tree, and data that is linked from elsewhere.
fn directories(project: &Project) -> Vec<PathBuf> {
    let mut directories: Vec<_> = project.repository.work_directory().map(PathBuf::from).into_iter().collect();
    // Without a definition that can be read there is only the working tree.
    let data = check_definition(project.site()).map(|definition| definition.pipeline.data).unwrap_or_default();
    let linked = data.iter().map(|path| path.under(&project.root));
    directories.extend(linked.filter(|path| matches!(disk::look(path), Ok(Some(disk::Found::Symlink)))));
    directories
}

fn answer(project: &Project, report: Report, dry_run: bool) -> Answer {
    let unneeded = report.needless();
    let checked = report.checked;
    let damaged = checked.damaged.into_iter().map(|damaged| DamagedFile {
        path: damaged.path,
        problem: damaged.flaw.to_string(),
        saved: damaged.saved,
        bad: damaged.bad,
        quarantined: damaged.quarantined,
    });
    let found = report.mended.into_iter().map(|mended| {
        let (origin, place) = match mended.origin {
            Origin::File(path) => {
                let path = path.strip_prefix(&project.root).map(PathBuf::from).unwrap_or(path);
                ("file", Some(path.display().to_string()))
            }
            Origin::WorkingTree => ("working-tree", None),
            Origin::Remote => ("remote", None),
            Origin::Commit(commit) => ("commit", Some(commit)),
        };
        FoundObject { kind: mended.kind.name(), digest: mended.digest, origin, place }
    });
    Answer {
        dry_run,
        records: Records::new(report.records),
        packs: checked.packs,
        objects: checked.objects,
        bytes: checked.bytes,
        left: checked.left,
        damaged: damaged.collect(),
        found: found.collect(),
        hit: report.hits.into_iter().map(hit_record).collect(),
        unneeded: unneeded
            .into_iter()
            .map(|((kind, digest), bytes)| LostObject { kind: kind.name(), digest, bytes })
            .collect(),
    }
}

fn hit_record(hit: Hit) -> HitRecord {
    let mut record = HitRecord {
        title: title(&hit),
        snapshot: None,
        version: None,
        commit: None,
        host: None,
        run: None,
        step: None,
        key: None,
        missing: hit.gaps.into_iter().map(missing).collect(),
    };
    match hit.subject {
        Subject::Snapshot { id, version, commit, host, .. } => {
            (record.snapshot, record.version, record.commit, record.host) = (Some(id), version, commit, Some(host));
        }
        Subject::Run { id, .. } => record.run = Some(id),
        Subject::Result { step, key, .. } => (record.step, record.key) = (Some(step), Some(key)),
    }
    record
}

fn missing(Gap { kind, digest, size, path }: Gap) -> Missing {
    Missing { kind: kind.name(), digest, bytes: size, path }
}

/// Returns what is hit, as people call it.
fn title(hit: &Hit) -> String {
    let name = match &hit.subject {
        Subject::Snapshot { id, version: Some(version), .. } => format!("{version} (snapshot {})", id.short()),
        Subject::Snapshot { id, commit: Some(commit), .. } => {
            format!("commit {} (snapshot {})", short(commit), id.short())
        }
        Subject::Snapshot { id, .. } => format!("snapshot {}", id.short()),
        Subject::Run { id, started } => format!("run {} of {}", id.short(), started.local()),
        Subject::Result { step, key, .. } => format!("the result of step {step} (key {})", key.short()),
    };
    match (&hit.subject, hit.gaps.as_slice()) {
        (Subject::Snapshot { host, .. }, [Gap { kind: Kind::Snapshot, .. }]) => {
            format!("{}: nothing of it is here; it was taken on {host}", paint(NAME, name))
        }
        (_, gaps) => format!("{}: {} missing", paint(NAME, name), count(gaps.len() as u64, "object")),
    }
}

/// Returns how a missing object is called: by its path, or by what it is.
fn called(missing: &Missing) -> String {
    match (&missing.path, missing.kind) {
        (Some(path), "tree") => format!("{path}/"),
        (Some(path), _) => path.to_string(),
        (None, "tree") => "the project's directory".to_owned(),
        (None, "blob") => "a log".to_owned(),
        (None, kind) => format!("the {kind}"),
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.records.tell(f, self.dry_run)?;
        list(f, &self.damaged, |file| self.told_damage(file))?;
        let verb = if self.dry_run { "would be put back" } else { "is put back" };
        list(f, &self.found, |found| {
            let from = match (found.origin, &found.place) {
                ("commit", Some(commit)) => format!("commit {}", short(commit)),
                (_, Some(file)) => file.clone(),
                (_, None) => "the working tree".to_owned(),
            };
            format!("{} {verb} from {from}", name(found.kind, &found.digest))
        })?;
        list(f, &self.unneeded, |lost| {
            format!("{} is lost; nothing on record needs it", name(lost.kind, &lost.digest))
        })?;
        list(f, &self.hit, |hit| {
            let mut text = format!("{} {}", paint(BAD, "hit:"), hit.title);
            for missing in hit.missing.iter().filter(|missing| missing.kind != "snapshot").take(LISTED_MAX) {
                text += &format!("\n  {}", called(missing));
            }
            if hit.missing.len() > LISTED_MAX {
                text += &paint(FAINT, format!("\n  ... and {} more", hit.missing.len() - LISTED_MAX));
            }
            text
        })?;
        let (objects, size) = (count(self.objects, "object"), bytes(self.bytes));
        let all = format!("{}, {objects}, {size}, {}", count(self.packs, "pack"), self.records.counted());
        let is_whole = self.damaged.is_empty() && self.found.is_empty() && !self.records.are_damaged();
        let verdict = match (self.hit.is_empty(), is_whole, self.dry_run) {
            (false, ..) => paint(BAD, "what is hit above stays lost"),
            _ if self.records.are_lost() => paint(BAD, "the records above stay lost"),
            (true, true, _) => paint(GOOD, "all is what was written"),
            (true, false, true) => paint(NOTE, "damaged; without `--dry-run` it is repaired"),
            (true, false, false) => paint(GOOD, "repaired"),
        };
        writeln!(f, "Checked {all}: {verdict}")?;
        if self.left > 0 {
            let left = format!("{} of the store left for the next time", count(self.left, "part"));
            writeln!(f, "{}", paint(NOTE, left))?;
        }
        Ok(())
    }
}

impl Answer {
    fn told_damage(&self, file: &DamagedFile) -> String {
        let (saved, moved) = if self.dry_run { ("can be saved", "it stays where it is") } else { ("saved", "moved") };
        let to = file.quarantined.as_ref().map_or(String::new(), |to| format!(" to {}", to.display()));
        format!(
            "{} {}: {}\n  {} {saved}, {} damaged; {moved}{to}",
            paint(BAD, "damaged:"),
            file.path.display(),
            file.problem,
            count(file.saved, "object"),
            file.bad,
        )
    }
}

fn name(kind: &str, digest: &Digest) -> String {
    format!("{kind} {}", digest.short())
}

/// Writes a line for each of the first items, and how many more there are.
fn list<T>(f: &mut fmt::Formatter<'_>, items: &[T], line: impl Fn(&T) -> String) -> fmt::Result {
    items.iter().take(LISTED_MAX).try_for_each(|item| writeln!(f, "{}", line(item)))?;
    match items.len().saturating_sub(LISTED_MAX) {
        0 => Ok(()),
        more => writeln!(f, "{}", paint(FAINT, format!("... and {more} more"))),
    }
}

/// Reads a length of time: a number of seconds, or one with `s`, `m`, `h` or `d` behind it.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit_s) = match text.strip_suffix(['s', 'm', 'h', 'd']) {
        Some(number) if text.ends_with('m') => (number, 60),
        Some(number) if text.ends_with('h') => (number, 60 * 60),
        Some(number) if text.ends_with('d') => (number, 24 * 60 * 60),
        Some(number) => (number, 1),
        None => (text, 1),
    };
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = number.parse::<u64>().ok().filter(|_| is_number).and_then(|number| number.checked_mul(unit_s));
    seconds.map(Duration::from_secs).ok_or_else(|| "a time is a number with `s`, `m`, `h` or `d`: `30s`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::CheckedRecords;

    /// An answer in which so many files of one version are lost.
    fn lost(count: usize) -> Answer {
        let path = |number| ProjectPath::new(format!("data/{number}.csv")).unwrap();
        let gap = |number| Gap { kind: Kind::Blob, digest: Digest::of(b"x"), size: Some(1), path: Some(path(number)) };
        let (id, pipeline, host) = (SnapshotId::of(b"s"), "pipeline".to_owned(), "host".to_owned());
        let subject = Subject::Snapshot { id, version: Some("v1".to_owned()), commit: None, pipeline, host };
        let hit = hit_record(Hit { subject, gaps: (0..count).map(gap).collect() });
        let (damaged, found, unneeded) = Default::default();
        let records = Records::new(CheckedRecords::default());
        Answer {
            dry_run: false,
            records,
            packs: 1,
            objects: 0,
            bytes: 0,
            left: 2,
            damaged,
            found,
            hit: vec![hit],
            unneeded,
        }
    }

    #[test]
    fn people_see_some_of_many_paths_and_programs_all_of_them() {
        let answer = lost(51);
        let text = anstream::adapter::strip_str(&answer.to_string()).to_string();
        assert_eq!(text.matches("data/").count(), LISTED_MAX);
        insta::assert_snapshot!(text.split_once("data/9.csv").unwrap().1, @"

          ... and 41 more
        Checked 1 pack, 0 objects, 0 B, 0 records: what is hit above stays lost
        2 parts of the store left for the next time
        ");
        let object = serde_json::to_value(&answer).unwrap();
        assert_eq!(object["hit"][0]["missing"].as_array().unwrap().len(), 51);
        assert!(!lost(LISTED_MAX).to_string().contains("more"));
    }

    #[test]
    fn a_time_has_a_number_and_a_unit() {
        let seconds = |text| duration(text).map(|duration| duration.as_secs()).ok();
        assert_eq!(["0s", "30s", "90", "5m", "2h", "1d"].map(seconds), [0, 30, 90, 300, 7200, 86400].map(Some));
        for bad in ["", "s", "-1s", "1.5h", "+3s", "3 s", "10w", "99999999999999999999d"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
