//! What `pv fsck` tells of records.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::super::answer::count;
use super::super::ui::{BAD, paint};
use super::list;
use crate::record::{CheckedRecords, DamagedRecord, META_REF, RecordCopy};

#[derive(Serialize)]
pub(super) struct Records {
    checked: u64,
    damaged: Vec<Damaged>,
    /// How many were gone, and were on the ref alone.
    returned: u64,
    lost_before: Vec<Lost>,
}

#[derive(Serialize)]
struct Damaged {
    path: PathBuf,
    kind: &'static str,
    problem: String,
    /// Where the same record is whole.
    origin: Option<&'static str>,
    lost: bool,
    quarantined: Option<PathBuf>,
}

#[derive(Serialize)]
struct Lost {
    kind: &'static str,
    path: PathBuf,
}

impl Records {
    pub(super) fn new(checked: CheckedRecords) -> Self {
        let lost = checked.lost_before.into_iter().map(|lost| Lost { kind: lost.kind, path: lost.path });
        Self {
            checked: checked.count,
            returned: checked.returned,
            lost_before: lost.collect(),
            damaged: checked.damaged.into_iter().map(Damaged::new).collect(),
        }
    }

    /// Returns how many were checked, in words.
    pub(super) fn counted(&self) -> String {
        count(self.checked, "record")
    }

    /// Returns whether a check that changes nothing leaves something to repair.
    pub(super) fn are_damaged(&self) -> bool {
        !self.damaged.is_empty() || self.returned > 0
    }

    /// Returns whether any record is nowhere whole.
    pub(super) fn are_lost(&self) -> bool {
        !self.lost_before.is_empty() || self.damaged.iter().any(|damaged| damaged.lost)
    }

    pub(super) fn tell(&self, f: &mut fmt::Formatter<'_>, dry_run: bool) -> fmt::Result {
        list(f, &self.damaged, |damaged| damaged.told(dry_run))?;
        list(f, &self.lost_before, |lost| {
            format!(
                "{} a record of kind {}: all that is left is {}",
                paint(BAD, "lost:"),
                lost.kind,
                lost.path.display()
            )
        })?;
        if self.returned > 0 {
            let verb = if dry_run { "would be put back" } else { "put back" };
            writeln!(f, "{} {verb} from {META_REF}: no longer here", count(self.returned, "record"))?;
        }
        Ok(())
    }
}

impl Damaged {
    fn new(damaged: DamagedRecord) -> Self {
        Self {
            lost: damaged.is_lost(),
            path: damaged.path,
            kind: damaged.kind,
            problem: damaged.flaw.to_string(),
            origin: damaged.copy.map(|copy| match copy {
                RecordCopy::Ref => META_REF,
                RecordCopy::Pending => "records/pending",
            }),
            quarantined: damaged.quarantined,
        }
    }

    fn told(&self, dry_run: bool) -> String {
        let fate = match (self.origin, self.lost) {
            (Some(origin), _) if dry_run => format!("the {} would be put back from {origin}", self.kind),
            (Some(origin), _) => format!("the {} is put back from {origin}", self.kind),
            (None, true) => format!("the {} is whole nowhere", self.kind),
            (None, false) => "nothing is lost with it".to_owned(),
        };
        let moved = match &self.quarantined {
            Some(to) => format!("; moved to {}", to.display()),
            None if dry_run => "; it stays where it is".to_owned(),
            None => String::new(),
        };
        format!("{} {}: {}\n  {fate}{moved}", paint(BAD, "damaged:"), self.path.display(), self.problem)
    }
}
