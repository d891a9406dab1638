//! Which rows there are, which of them are asked for, and the report of them.

use std::process::Command;
use std::time::Instant;

use ground::Ground;

use crate::common::facts::{first_line, load};
use crate::common::report::Report;
use crate::common::row::{Row, table};
use crate::common::size::Size;

pub(crate) mod data;
pub(crate) mod floors;
pub(crate) mod ground;
mod image;
mod large;
mod million;
mod peers;
mod remote;
mod small;

/// Rows that are measured together.
struct Group {
    name: &'static str,
    /// The free space without which it is not begun, so that no disk is filled. In full size, other programs included.
    needs_mib: usize,
    measure: fn(&Ground) -> Vec<Row>,
}

/// All groups, in the order in which they are measured.
const GROUPS: [Group; 11] = [
    Group { name: "files", needs_mib: 10_000, measure: small::files },
    Group { name: "status", needs_mib: 6000, measure: small::status },
    Group { name: "again", needs_mib: 3000, measure: small::again },
    Group { name: "diff", needs_mib: 3000, measure: small::diff },
    Group { name: "checkout", needs_mib: 9000, measure: small::checkout },
    Group { name: "csv", needs_mib: 8000, measure: large::csv },
    Group { name: "random", needs_mib: 14_000, measure: large::random },
    Group { name: "remote", needs_mib: 4000, measure: remote::remote },
    Group { name: "wire", needs_mib: 8000, measure: remote::wire },
    Group { name: "image", needs_mib: 8000, measure: image::image },
    Group { name: "million", needs_mib: 16_000, measure: million::million },
];

/// The name by which the other programs are left out.
const PEERS: &str = "peers";

/// Above this, the file system is still busy with what was removed before, and all rows of many files suffer from it.
const SLOW_CREATION_US: f64 = 100.0;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) size: Size,
    /// Groups whose name contains one of these; all, if there are none.
    pub(crate) only: Vec<String>,
    /// Groups that are left out, or `peers`.
    pub(crate) skip: Vec<String>,
}

impl Choice {
    /// Reads arguments: names of groups, and `--skip NAME`.
    pub(crate) fn from_arguments(size: Size, arguments: impl Iterator<Item = String>) -> Self {
        let mut choice = Self { size, only: Vec::new(), skip: Vec::new() };
        // `cargo bench` adds an argument of its own.
        let mut arguments = arguments.filter(|argument| argument != "--bench");
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--skip" => choice.skip.push(arguments.next().expect("`--skip` is followed by a name")),
                option if option.starts_with('-') => panic!("`{option}` is not known; there is `--skip NAME`"),
                _ => choice.only.push(argument),
            }
        }
        let groups = GROUPS.map(|group| group.name);
        for name in choice.only.iter().chain(choice.skip.iter().filter(|name| *name != PEERS)) {
            let is_known = groups.iter().any(|known| known.contains(name.as_str()));
            assert!(is_known, "`{name}` is none of: {}", groups.join(", "));
        }
        choice
    }

    /// Whether all is measured that is not left out on purpose.
    pub(crate) fn is_whole(&self) -> bool {
        self.only.is_empty()
    }

    fn has(&self, name: &str) -> bool {
        let is_among = |list: &[String]| list.iter().any(|part| name.contains(part.as_str()));
        (self.only.is_empty() || is_among(&self.only)) && !is_among(&self.skip)
    }
}

/// Measures what is chosen. Says on the way what it is at, by the function given.
pub(crate) fn measure(choice: &Choice, say: &dyn Fn(&str)) -> Report {
    let (start, load) = (Instant::now(), load());
    let (found, missing) = peers::installed();
    let with_peers = !choice.skip.iter().any(|name| name == PEERS);
    let versions: Vec<_> = found.iter().map(|(peer, version)| (peer.name.to_owned(), version.clone())).collect();
    let programs = ["cp", "zstd"].map(|program| (program, first_line(Command::new(program).arg("--version"))));
    let has_zstd = programs.iter().any(|(program, version)| *program == "zstd" && version.is_some());
    let ground = Ground::new(choice.size, if with_peers { found } else { Vec::new() }, has_zstd);
    let creation = ground.creation_us();
    if creation > SLOW_CREATION_US {
        say(&format!(
            "creating one file takes {creation:.0} µs: wait for minutes after many were removed, or others work"
        ));
    }
    let mut rows = Vec::new();
    let mut not_measured = Vec::new();
    for group in &GROUPS {
        match refusal(group, choice, &ground) {
            Some(reason) => not_measured.push(format!("rows `{}`: {reason}", group.name)),
            None => {
                say(&format!("{:4} s: {}", start.elapsed().as_secs(), group.name));
                let found = (group.measure)(&ground);
                // Said at once: what was measured is not lost if the rest cannot be.
                say(&table(&found));
                rows.extend(found);
            }
        }
    }
    say(&format!("{:4} s: done; what was made is removed", start.elapsed().as_secs()));
    let mut report = Report::of(rows, choice.size, start.elapsed().as_secs());
    report.machine.push(format!("{creation:.0} µs to create a file of 4 KiB"));
    report.machine.extend(load.map(|load| format!("load {load} when it began")));
    if with_peers {
        report.versions.extend(versions);
        not_measured.extend(missing.iter().map(|name| format!("{name}: not installed")));
    } else {
        not_measured.push("other programs: left out by an argument".to_owned());
    }
    if !has_zstd {
        not_measured.push("the floor of the table: zstd is not installed".to_owned());
    }
    let known = |(program, version): (&str, Option<String>)| Some((program.to_owned(), version?));
    report.versions.extend(programs.into_iter().filter_map(known));
    report.not_measured = not_measured;
    report
}

/// Returns why a group is not measured; none if it is.
fn refusal(group: &Group, choice: &Choice, ground: &Ground) -> Option<String> {
    if !choice.has(group.name) {
        return Some("left out by an argument".to_owned());
    }
    let (free, needed) = (ground.free_mib(), choice.size.of(group.needs_mib));
    (free < needed).then(|| format!("{free} MiB are free on the disk, and {needed} needed"))
}
