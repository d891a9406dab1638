//! Steps that run in an image, by `pv` itself.

use std::process::Command;

use serde_json::Value;

use super::make::{Layer, Layout, Member, directory, file, program, symlink};
use super::{beside, told};
use crate::cloud::servers;
use crate::fault::needs;
use crate::sandbox::Sandbox;

const DEFINITION: &str = "\
steps:
  fit:
    run: cat /model factor in.txt > out.txt; id -u >> out.txt; echo \"$KIND $HOME\" >> out.txt
    outputs: [out.txt]
  report:
    run: wc -c < out.txt > report.txt; test ! -e /model
    outputs: [report.txt]
    environment: host
";

/// Returns a system with a static busybox and a model; `None` where there is no busybox.
fn system(model: &str, test: &str) -> Option<Vec<Member>> {
    let busybox = needs(test, "a static busybox", servers::program("busybox"))?;
    let mut members = vec![
        directory("usr/bin"),
        program("usr/bin/busybox", std::fs::read(busybox).unwrap()),
        symlink("bin", "usr/bin"),
        file("etc/passwd", "root:x:0:0::/:/bin/sh\nada:x:1000:1000::/:/bin/sh\n"),
        file("model", model),
    ];
    members.extend(["sh", "cat", "id", "wc", "sleep"].map(|name| symlink(&format!("usr/bin/{name}"), "/bin/busybox")));
    Some(members)
}

pub(super) fn project(definition: &str) -> Sandbox {
    let sandbox = Sandbox::with_pipeline(definition);
    sandbox.write("in.txt", "in\n");
    sandbox.write("factor", "3\n");
    sandbox.write(".gitignore", "/out.txt\n/report.txt\n");
    sandbox
}

/// Takes in an image with this model for the step that fits.
pub(super) fn add(sandbox: &Sandbox, model: &str, test: &str) -> Option<String> {
    let name = format!("tools-{}", model.trim());
    let (_, image) = Layout::with(sandbox.beside(&name), &[Layer::gzip(&system(model, test)?)]);
    told(sandbox, &["env", "add", &beside(sandbox, &name), "--step", "fit"]);
    Some(image)
}

/// Returns each step with its verdict.
pub(super) fn verdicts(run: &Value) -> Vec<(String, String)> {
    let text = |step: &Value, key: &str| step[key].as_str().unwrap_or_default().to_owned();
    run["steps"].as_array().unwrap().iter().map(|step| (text(step, "step"), text(step, "verdict"))).collect()
}

pub(super) fn of(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, verdict)| ((*name).to_owned(), (*verdict).to_owned())).collect()
}

#[test]
fn a_step_finds_the_files_of_its_image_and_depends_on_it_and_on_what_it_read_of_the_project() {
    let test = "a_step_finds_the_files_of_its_image_and_depends_on_it_and_on_what_it_read_of_the_project";
    let sandbox = project(DEFINITION);
    let Some(first) = add(&sandbox, "one\n", test) else { return };
    sandbox.commit("image");
    let run = told(&sandbox, &["run"]);
    assert_eq!(verdicts(&run), of(&[("fit", "ran"), ("report", "ran")]));
    assert_eq!(sandbox.read("out.txt"), "one\n3\nin\n1000\nimage /pv/home\n");
    assert_eq!(verdicts(&told(&sandbox, &["run"])), of(&[("fit", "reused"), ("report", "reused")]));
    // What is another on this machine is nothing to it.
    sandbox.write("unread", "x\n");
    assert_eq!(verdicts(&told(&sandbox, &["run"])), of(&[("fit", "reused"), ("report", "reused")]));
    sandbox.write("factor", "4\n");
    assert_eq!(verdicts(&told(&sandbox, &["run"])), of(&[("fit", "ran"), ("report", "ran")]));

    let second = add(&sandbox, "two\n", test).unwrap();
    let why = sandbox.pv(&["why", "fit"]);
    let (first, second) = (&first[..19], &second[..19]);
    assert!(why.contains(first) && why.contains(second), "{why}");
    let status = sandbox.pv(&["status"]);
    assert!(status.contains(&format!("the environment {first} -> {second}")), "{status}");
    let run = told(&sandbox, &["run"]);
    assert_eq!(verdicts(&run)[0], ("fit".to_owned(), "ran".to_owned()));
    assert!(sandbox.read("out.txt").starts_with("two\n"));
}

#[test]
fn a_step_is_verified_in_its_image() {
    let test = "a_step_is_verified_in_its_image";
    let definition = "steps:\n  fit:\n    run: cat /model > out.txt; busybox date -u +%F >> out.txt\n    outputs: [out.txt]\n    inputs: []\n";
    let sandbox = project(definition);
    if add(&sandbox, "one\n", test).is_none() {
        return;
    }
    told(&sandbox, &["run"]);
    let (answer, code) = sandbox.json(&["verify", "--why"]);
    let rung = &answer["engine"]["rung"];
    let is_full = if rung == "full" { Ok(()) } else { Err(answer.to_string()) };
    if needs(test, "an image in which everything can be pinned", is_full).is_none() {
        return;
    }
    let causes: Vec<_> = answer["steps"][0]["causes"].as_array().unwrap().iter().map(|cause| &cause["cause"]).collect();
    assert_eq!((code, causes), (1, vec![&Value::from("clock")]), "{answer}");
    let findings = &answer["steps"][0]["outputs"][0]["detail"]["findings"];
    assert_eq!(findings[0]["place"], "line 2", "the model is that of the image: {answer}");
}

#[test]
fn what_a_step_writes_in_its_image_is_gone_when_it_ends() {
    let test = "what_a_step_writes_in_its_image_is_gone_when_it_ends";
    let definition = "steps:\n  fit:\n    run: test ! -e /model.new && echo x > /model.new && cat /model /model.new > out.txt\n    \
                      outputs: [out.txt]\n    isolate: strict\n    inputs: []\n    cache: false\n";
    let sandbox = project(definition);
    if add(&sandbox, "one\n", test).is_none() {
        return;
    }
    for _ in 0..2 {
        let run = told(&sandbox, &["run"]);
        assert_eq!(verdicts(&run), of(&[("fit", "ran")]));
        assert_eq!(sandbox.read("out.txt"), "one\nx\n");
    }
}

#[test]
fn a_step_that_failed_in_an_image_can_be_entered_there() {
    let test = "a_step_that_failed_in_an_image_can_be_entered_there";
    let definition =
        "steps:\n  fit:\n    run: echo half > out.txt; echo note > /note; exit 3\n    outputs: [out.txt]\n";
    let sandbox = project(definition);
    if add(&sandbox, "one\n", test).is_none() {
        return;
    }
    assert_eq!(sandbox.json(&["run"]).1, 3);
    let told = sandbox.pv(&["shell", "fit", "--", "cat", "/model", "/note", "out.txt"]);
    assert!(told.contains("one\nnote\nhalf\n"), "{told}");
}

#[test]
fn the_same_files_come_out_on_another_machine_when_nothing_is_left_of_where_the_image_came_from() {
    let test = "the_same_files_come_out_on_another_machine_when_nothing_is_left_of_where_the_image_came_from";
    let sandbox = project(DEFINITION);
    if add(&sandbox, "one\n", test).is_none() {
        return;
    }
    told(&sandbox, &["remote", "add", "share", &beside(&sandbox, "share")]);
    sandbox.commit("image");
    let run = told(&sandbox, &["run"]);
    told(&sandbox, &["push"]);
    let snapshot = run["snapshot"].as_str().unwrap();
    std::fs::remove_dir_all(sandbox.beside("tools-one")).unwrap();
    sandbox.git(&["clone", "--quiet", sandbox.path("").to_str().unwrap(), &beside(&sandbox, "clone")]);
    std::fs::remove_dir_all(sandbox.path(".git/pv")).unwrap();
    let clone = beside(&sandbox, "clone");
    // Another user's cache: nothing is laid out yet.
    let mut command = sandbox.pv_command(&["-C", &clone, "--json", "run", snapshot, "--restore"]);
    let output = command.env("XDG_CACHE_HOME", sandbox.beside("other-cache")).output().unwrap();
    assert!(output.status.success(), "{}", sandbox.tell(&output));
    let again: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(verdicts(&again)[0], ("fit".to_owned(), "ran".to_owned()));
    assert_eq!(again["steps"][0]["outputs"], run["steps"][0]["outputs"]);
}

/// A user that nobody else is.
const USER: &str = "61010";

/// An ordinary user, to whom everything in a sandbox was given.
pub(super) struct User {
    pv: String,
    cache: std::path::PathBuf,
}

impl User {
    /// Gives everything in the sandbox to the user; only root can.
    pub(super) fn given(sandbox: &Sandbox, test: &str) -> Option<Self> {
        let all = beside(sandbox, "");
        let user = Self { pv: beside(sandbox, "pv"), cache: sandbox.beside("cache-of-user") };
        let give = format!("cp \"$0\" '{all}/pv' && chown -R {USER}:{USER} '{all}' && chmod 755 '{all}'");
        let given =
            sandbox.command_in(&sandbox.path("."), "sh").args(["-ec", &give, env!("CARGO_BIN_EXE_pv")]).output();
        let given = given.map_err(|error| error.to_string()).and_then(|done| {
            let tried = user.command(sandbox, &["git", "status"]).output().map_err(|error| error.to_string())?;
            let why = [sandbox.tell(&done), sandbox.tell(&tried)].concat();
            if done.status.success() && tried.status.success() { Ok(user) } else { Err(why) }
        });
        needs(test, "root, and another user", given)
    }

    fn command(&self, sandbox: &Sandbox, words: &[&str]) -> Command {
        let mut command = sandbox.command_in(&sandbox.path("."), "setpriv");
        command.args([&format!("--reuid={USER}"), &format!("--regid={USER}"), "--clear-groups"]).args(words);
        command.env("XDG_CACHE_HOME", &self.cache);
        command
    }

    /// Returns the answer of a command of the user that must succeed.
    pub(super) fn told(&self, sandbox: &Sandbox, arguments: &[&str]) -> Value {
        let output = self.command(sandbox, &[&[self.pv.as_str(), "--json"], arguments].concat()).output().unwrap();
        assert!(output.status.success(), "{}", sandbox.tell(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

#[test]
fn an_ordinary_user_is_in_the_image_who_it_asks_for_and_makes_the_same() {
    let test = "an_ordinary_user_is_in_the_image_who_it_asks_for_and_makes_the_same";
    let sandbox = project(DEFINITION);
    if add(&sandbox, "one\n", test).is_none() {
        return;
    }
    sandbox.commit("image");
    let own = told(&sandbox, &["run"]);
    let Some(user) = User::given(&sandbox, test) else { return };
    let run = user.told(&sandbox, &["run", "--again"]);
    assert_eq!(verdicts(&run), of(&[("fit", "ran"), ("report", "ran")]));
    assert_eq!(sandbox.read("out.txt"), "one\n3\nin\n1000\nimage /pv/home\n");
    assert_eq!(run["steps"][0]["outputs"][0]["digest"], own["steps"][0]["outputs"][0]["digest"]);
}

#[test]
fn an_image_that_is_not_pinned_is_told_with_the_way_to_pin_it() {
    let definition =
        format!("environment: {{image: \"tools@sha256:{}\"}}\nsteps: {{fit: {{run: 'true'}}}}\n", "0".repeat(64));
    let sandbox = project(&definition);
    let (answer, code) = sandbox.json(&["run"]);
    assert_ne!(code, 0, "{answer}");
    assert!(answer["hint"].as_str().unwrap().contains("pv env add"), "{answer}");
}

/// Podman needs to be told that it may not do here what it does elsewhere.
pub(super) const PODMAN: &str = "\
[containers]
default_ulimits = [\"nofile=4096:4096\", \"nproc=4096:4096\"]
[engine]
runtime = \"runc\"
cgroup_manager = \"cgroupfs\"
events_logger = \"file\"
";

/// Podman, where it can run anything at all.
pub(super) struct Podman;

impl Podman {
    /// Tries it. Where it cannot run anything, as in some containers, nothing can be said of what it would make.
    #[expect(clippy::print_stderr, reason = "what a machine cannot show must be said aloud")]
    pub(super) fn find(sandbox: &Sandbox, test: &str) -> Option<Self> {
        std::fs::write(sandbox.beside("containers.conf"), PODMAN).unwrap();
        let script = "tar -cf - -C / etc/hostname | podman import - localhost/pv/probe; podman run --rm --network none localhost/pv/probe /nothing";
        let probe = Self::here(sandbox, sandbox.command_in(&sandbox.path("."), "sh").args(["-ec", script])).output();
        let said = sandbox.tell(&probe.unwrap());
        // That nothing of this name is in it is what a runtime says that works.
        let works = said.contains("/nothing");
        if !works {
            eprintln!("NOT TESTED: {test}: podman cannot run anything here: {said}");
        }
        works.then_some(Self)
    }

    fn here<'c>(sandbox: &Sandbox, command: &'c mut Command) -> &'c mut Command {
        command.env("CONTAINERS_CONF", sandbox.beside("containers.conf")).env("STORAGE_DRIVER", "overlay")
    }

    /// Lets the definition's images be run by podman.
    pub(super) fn switch_to(&self, sandbox: &Sandbox) {
        let pipeline = sandbox.read(".pipeline/pipeline.yaml");
        assert!(pipeline.contains("\"}"), "{pipeline}");
        sandbox.write(".pipeline/pipeline.yaml", pipeline.replacen("\"}", "\", runtime: podman}", 1));
    }

    /// Returns the answer of a command that must succeed, and whatever it leads podman to.
    pub(super) fn told(&self, sandbox: &Sandbox, arguments: &[&str]) -> Value {
        let mut command = sandbox.pv_command(&[&["--json"], arguments].concat());
        let output = Self::here(sandbox, &mut command).output().unwrap();
        assert!(output.status.success(), "{}", sandbox.tell(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}
