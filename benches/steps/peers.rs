//! Other programs that run steps, where they are installed, with the same steps in the same job.
//!
//! Each is measured as it comes, with what it needs to be quiet, and has to leave the same files. make and ninja
//! compare times and keep nothing, Snakemake compares times and what was asked for, the others compare content.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use crate::common::child::{self, Cost};
use crate::common::facts::first_line;
use crate::common::row::Series;
use crate::common::scratch::Scratch;
use crate::common::size::Size;

/// A step: its command, the file that it reads, if it is not empty, and the file that it writes.
pub(crate) type Step = (String, String, String);

/// Rounds of what changes nothing.
const IDLE_ROUNDS: usize = 3;

/// One other program. A command is a program and its arguments.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    prepare: &'static [&'static [&'static str]],
    define: fn(&Site<'_>, &[Step]),
    run: &'static [&'static str],
}

/// A place in which a peer works.
struct Site<'a> {
    scratch: &'a Scratch,
    place: &'a Path,
}

const GIT: &[&str] = &["git", "init", "--quiet"];
const FIRST: &[&str] = &["git", "commit", "--quiet", "--allow-empty", "--message", "first"];

const PEERS: [Peer; 4] = [
    Peer { name: "ninja", prepare: &[], define: for_ninja, run: &["ninja", "--quiet", "-j2"] },
    Peer { name: "snakemake", prepare: &[], define: for_snakemake, run: &["snakemake", "-j2", "-q", "all"] },
    Peer { name: "xvc", prepare: &[GIT, FIRST, &["xvc", "init"]], define: for_xvc, run: &["xvc", "pipeline", "run"] },
    Peer { name: "dvc", prepare: &[GIT, &["dvc", "init", "-q"]], define: for_dvc, run: &["dvc", "repro", "-q"] },
];

/// What a peer needed for some steps: cold, and with nothing to do.
pub(crate) struct Needed {
    pub(crate) cold: Series,
    pub(crate) idle: Series,
}

/// Returns the peers that are installed, each with its version, and the names of those that are not.
pub(crate) fn installed() -> (Vec<(Peer, String)>, Vec<&'static str>) {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for peer in PEERS {
        match first_line(Command::new(peer.name).arg("--version").env("PATH", path())) {
            Some(version) => found.push((peer, version)),
            None => missing.push(peer.name),
        }
    }
    (found, missing)
}

impl Peer {
    /// Measures `steps` cold, once, and with nothing to do. Each step has to have left `content` where it writes.
    pub(crate) fn measure(&self, scratch: &Scratch, size: Size, steps: &[Step], content: &str) -> Needed {
        let place = scratch.root.join(format!("{}-{}", self.name, steps.len()));
        std::fs::create_dir(&place).unwrap();
        std::fs::write(place.join("f0.txt"), "start\n").unwrap();
        let site = Site { scratch, place: &place };
        self.prepare.iter().for_each(|words| _ = site.run(words));
        (self.define)(&site, steps);
        let cold = site.run(self.run);
        for (_, _, output) in steps {
            assert_eq!(std::fs::read_to_string(place.join(output)).unwrap(), content, "{} left `{output}`", self.name);
        }
        let idle: Vec<_> = (0..size.rounds(IDLE_ROUNDS)).map(|_| site.run(self.run)).collect();
        scratch.throw_away(&place);
        Needed { cold: Series::times(self.name, &[cold]), idle: Series::times(self.name, &idle) }
    }
}

impl Site<'_> {
    fn run(&self, words: &[&str]) -> Cost {
        let mut command = self.scratch.command(self.place, words[0]);
        command.args(&words[1..]).env("PATH", path()).env("LC_ALL", "C.UTF-8");
        command.env("DVC_NO_ANALYTICS", "1").env("DVC_SITE_CACHE_DIR", self.place.join("site"));
        child::run(&mut command).0
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.place.join(name), text).unwrap();
    }
}

fn for_ninja(site: &Site<'_>, steps: &[Step]) {
    let mut text = String::from("rule run\n  command = $do\n");
    for (command, input, output) in steps {
        write!(text, "build {output}: run {input}\n  do = {command}\n").unwrap();
    }
    site.write("build.ninja", &text);
}

fn for_snakemake(site: &Site<'_>, steps: &[Step]) {
    let all: Vec<_> = steps.iter().map(|(_, _, output)| format!("'{output}'")).collect();
    let mut text = format!("rule all:\n    input: {}\n", all.join(", "));
    for (number, (command, input, output)) in steps.iter().enumerate() {
        writeln!(text, "rule s{number}:").unwrap();
        if !input.is_empty() {
            writeln!(text, "    input: '{input}'").unwrap();
        }
        write!(text, "    output: '{output}'\n    shell: '{command}'\n").unwrap();
    }
    site.write("Snakefile", &text);
}

fn for_dvc(site: &Site<'_>, steps: &[Step]) {
    let mut text = String::from("stages:\n");
    for (number, (command, input, output)) in steps.iter().enumerate() {
        write!(text, "  s{number}:\n    cmd: {command}\n    outs: [{output}]\n").unwrap();
        if !input.is_empty() {
            writeln!(text, "    deps: [{input}]").unwrap();
        }
    }
    site.write("dvc.yaml", &text);
}

fn for_xvc(site: &Site<'_>, steps: &[Step]) {
    const STEP: [&str; 4] = ["xvc", "--skip-git", "pipeline", "step"];
    let step = |words: &[&str]| _ = site.run(&[&STEP, words].concat());
    for (number, (command, input, output)) in steps.iter().enumerate() {
        let name = format!("s{number}");
        step(&["new", "-s", &name, "-c", command]);
        if !input.is_empty() {
            step(&["dependency", "-s", &name, "--file", input]);
        }
        step(&["output", "-s", &name, "--output-file", output]);
    }
}

/// Where peers are looked for: first in the directories of `PV_BENCH_PEERS_PATH`, which only they see.
pub(crate) fn path() -> OsString {
    let own = std::env::var_os("PATH").unwrap();
    let Some(mut path) = std::env::var_os("PV_BENCH_PEERS_PATH") else { return own };
    path.push(":");
    path.push(own);
    path
}
