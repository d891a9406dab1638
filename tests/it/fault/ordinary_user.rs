//! What an ordinary user may not read or write. To root nothing is forbidden, so these run as `nobody`.

use std::process::{Command, Output};

use serde_json::Value;

use super::content::{Kept, files_of};
use super::needs;
use super::place::{Place, end_of, text_of};
use crate::verify_network::Api;

/// A place that belongs to `nobody`, with a program that `nobody` can reach.
struct Theirs {
    place: Place,
}

impl Theirs {
    fn new() -> Result<Self, String> {
        let place = Place::plain();
        let theirs = Self { place };
        let copied = std::fs::copy(env!("CARGO_BIN_EXE_pv"), theirs.place.path("../pv"));
        copied.map_err(|error| error.to_string())?;
        theirs.give();
        let output = theirs.pv(&["--version"]).output().map_err(|error| error.to_string())?;
        if output.status.success() { Ok(theirs) } else { Err(text_of(&output)) }
    }

    /// Makes all of it belong to them.
    fn give(&self) {
        // Fails where we are nobody special, which `new` finds out.
        let _ = self.place.command("sh", &["-c", "chown -R 65534:65534 \"$ROOT\" 2> /dev/null"]).status();
    }

    fn pv(&self, arguments: &[&str]) -> Command {
        let program = self.place.sh("printf %s \"$ROOT\"") + "/pv";
        let who = ["--reuid=65534", "--regid=65534", "--clear-groups", &program];
        let mut command = self.place.command("setpriv", &[&who, arguments].concat());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command
    }

    fn told(&self, arguments: &[&str]) -> Output {
        end_of(self.pv(arguments).spawn().unwrap())
    }
}

#[test]
fn a_stored_file_that_may_not_be_read_is_an_error_and_no_other_bytes_come_out() {
    let test = "a_stored_file_that_may_not_be_read_is_an_error_and_no_other_bytes_come_out";
    let Some(theirs) = needs(test, "root and `setpriv`", Theirs::new()) else { return };
    let place = &theirs.place;
    let files = files_of(1, 10_000, 4);
    place.lay(&files);
    let kept = Kept { what: "before".to_owned(), snapshot: place.keep(&["snapshot"]), files };
    theirs.give();
    place.sh("find .git/pv/objects .git/pv/packs -type f -exec chmod 000 {} + 2> /dev/null || true");
    place.clear();
    let output = theirs.told(&["checkout", "--force", &kept.snapshot]);
    let told = text_of(&output);
    assert!([2, 4].contains(&output.status.code().unwrap()), "{told}");
    assert!(told.contains("Permission denied") && told.contains("hint: "), "{told}");
    assert!(!place.path("in").exists() && !place.path("data/large").exists());
    place.sh("find .git/pv/objects .git/pv/packs -type f -exec chmod 444 {} + 2> /dev/null || true");
    let output = theirs.told(&["checkout", "--force", &kept.snapshot]);
    assert!(output.status.success(), "{}", text_of(&output));
    place.assert_comes_out(&kept);
}

#[test]
fn a_store_that_may_not_be_written_can_be_read() {
    let test = "a_store_that_may_not_be_written_can_be_read";
    let Some(theirs) = needs(test, "root and `setpriv`", Theirs::new()) else { return };
    let place = &theirs.place;
    let files = files_of(2, 10_000, 4);
    place.lay(&files);
    let kept = Kept { what: "before".to_owned(), snapshot: place.keep(&["snapshot"]), files };
    theirs.give();
    place.sh("chmod -R a-w .git/pv");
    for arguments in [&["log"][..], &["show", &kept.snapshot], &["status"]] {
        let output = theirs.told(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text_of(&output));
    }
    place.write("in", b"changed");
    for arguments in [&["snapshot"][..], &["run"], &["verify"]] {
        let output = theirs.told(arguments);
        let told = text_of(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {told}");
        assert!(told.contains("Permission denied") && told.contains("hint: "), "{arguments:?}: {told}");
    }
    place.sh("chmod -R u+w .git/pv");
    assert!(theirs.told(&["snapshot"]).status.success());
    place.assert_comes_out(&kept);
}

#[test]
fn an_ordinary_user_finds_out_what_a_result_depends_on() {
    let test = "an_ordinary_user_finds_out_what_a_result_depends_on";
    let Some(theirs) = needs(test, "root and `setpriv`", Theirs::new()) else { return };
    let place = &theirs.place;
    let files = files_of(3, 1_000, 1);
    place.lay(&files);
    let api = Api::counting();
    let definition = format!(
        "steps:\n  name:\n    inputs: [in]\n    outputs: [out]\n    run: (cat in; hostname; id -u; {}) > out\n",
        api.ask("")
    );
    place.write(".pipeline/pipeline.yaml", definition.as_bytes());
    theirs.give();
    let output = theirs.told(&["run"]);
    assert!(output.status.success(), "{}", text_of(&output));
    let output = theirs.told(&["--json", "verify", "--why"]);
    let told = text_of(&output);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{told}"));
    let rung = &answer["engine"]["rung"];
    let is_full = if rung == "full" { Ok(()) } else { Err(told.clone()) };
    if needs(test, "an ordinary user who may pin everything", is_full).is_none() {
        return;
    }
    let causes: Vec<_> = answer["steps"][0]["causes"].as_array().unwrap().iter().map(|cause| &cause["cause"]).collect();
    assert_eq!(causes, ["network", "hostname", "username"], "{told}");
    assert_eq!(output.status.code(), Some(1), "{told}");
    let left = place.sh("find \"$ROOT\" -name 'run-*' -path '*/work/*'");
    assert_eq!(left, "");
}
