//! Records on their way over the remotes of Git: real `git`, real bare repositories, a real daemon.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::fault::needs;
use crate::sandbox::Sandbox;

const META: &str = "refs/pv/meta";
const BRANCH: &str = "refs/heads/pv-meta";
const PLAIN: &str = "\
steps:
  copy:
    run: cat a.txt > out.txt
    inputs: [a.txt]
    outputs: [out.txt]
";

/// A project with one pipeline, and a bare remote `origin` that has its commit.
struct Shared {
    project: Sandbox,
    bare: PathBuf,
}

impl Shared {
    fn new() -> Self {
        Self::with(&[], &[])
    }

    /// `local` and `remote` are more options to `git init`, here and there.
    fn with(local: &[&str], remote: &[&str]) -> Self {
        let project = Sandbox::new();
        if !local.is_empty() {
            std::fs::remove_dir_all(project.path(".git")).unwrap();
            project.git(&[&["init", "--quiet", "--initial-branch=main"], local].concat());
        }
        let bare = project.beside("bare.git");
        let bare_text = bare.to_str().unwrap();
        project.git(&[&["init", "--quiet", "--bare", "--initial-branch=main"], remote, &[bare_text]].concat());
        project.write(".pipeline/pipeline.yaml", PLAIN);
        project.write(".gitignore", "/out.txt\n");
        project.write("a.txt", "1\n");
        project.commit("first");
        let shared = Self { project, bare };
        shared.project.git(&["remote", "add", "origin", &shared.url()]);
        shared.project.git(&["push", "--quiet", "origin", "main"]);
        shared
    }

    fn url(&self) -> String {
        format!("file://{}", self.bare.display())
    }

    /// Clones the remote with `git` alone.
    fn clone(&self, name: &str) -> PathBuf {
        let to = self.project.beside(name);
        self.project.git(&["clone", "--quiet", &self.url(), to.to_str().unwrap()]);
        to
    }

    /// Names a version, which is a record or two.
    fn tag(&self, directory: &Path, name: &str) {
        std::fs::write(directory.join("a.txt"), name).unwrap();
        let (answer, code) = self.project.json_in(directory, &["snapshot", "--tag", name]);
        assert_eq!(code, 0, "{answer}");
    }

    /// Does what `git push` does with records, and fails if that fails.
    fn send_command(&self, directory: &Path, remote: &str) -> Command {
        self.project.pv_command_in(directory, &["hooks", "run", "--strict", "pre-push", "--", remote, "anywhere"])
    }

    fn send(&self, directory: &Path, remote: &str) -> Output {
        self.send_command(directory, remote).output().unwrap()
    }

    /// Sends records; that has to succeed, and returns what was said.
    fn send_ok(&self, directory: &Path) -> String {
        let output = self.send(directory, "origin");
        let told = self.project.tell(&output);
        assert!(output.status.success(), "{told}");
        told
    }

    /// Fetches with `git` alone, and lets a command of `pv` take in what came.
    fn fetch(&self, directory: &Path) {
        self.project.pv_in(directory, &["init"]);
        self.project.git_in(directory, &["fetch", "--quiet"]);
        self.versions_in(directory);
    }

    /// Returns the names of versions in the records on a ref of the remote.
    fn versions_on(&self, reference: &str) -> Vec<String> {
        let names = self.project.git_in(&self.bare, &["ls-tree", "-r", "--name-only", reference]);
        let show = |name: &str| self.project.git_in(&self.bare, &["cat-file", "blob", &format!("{reference}:{name}")]);
        let text = names.lines().map(show).collect::<Vec<_>>().join("\n");
        let parsed = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut found: Vec<_> = parsed
            .filter(|record| record["kind"] == "version")
            .map(|record| record["name"].as_str().unwrap().to_owned())
            .collect();
        found.sort();
        found
    }

    /// Returns the versions that are known in a clone.
    fn versions_in(&self, directory: &Path) -> String {
        self.project.pv_in(directory, &["log"])
    }

    fn has(&self, reference: &str) -> bool {
        let output = self
            .project
            .command_in(&self.bare, "git")
            .args(["rev-parse", "--verify", "--quiet", reference])
            .output()
            .unwrap();
        output.status.success()
    }

    /// Makes a hook of the remote.
    fn server_hook(&self, name: &str, body: &str) {
        let path = self.bare.join("hooks").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("#!/bin/sh\n{body}")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }
}

/// The whole way: init, hooks, push, clone.
fn there_and_back(shared: &Shared) -> (String, String, String) {
    let project = &shared.project;
    let told = project.pv(&["init"]);
    project.pv_ok(&["hooks", "install", "--strict"]);
    shared.tag(&project.path(""), "v1.0");
    let pushed =
        project.command_in(&project.path(""), "git").args(["push", "--quiet", "origin", "main"]).output().unwrap();
    let pushed = project.tell(&pushed);
    let cloned = project.pv_in(&project.beside(""), &["--quiet", "clone", &shared.url(), "clone"]);
    assert_eq!(shared.versions_in(&project.beside("clone")), shared.versions_in(&project.path("")));
    for place in [&project.path(""), &project.beside("clone"), &shared.bare] {
        project.git_in(place, &["fsck", "--strict", "--full"]);
    }
    (told, pushed, cloned)
}

#[test]
fn records_go_with_a_push_and_come_with_a_clone() {
    let shared = Shared::new();
    let (told, pushed, cloned) = there_and_back(&shared);
    insta::assert_snapshot!(told, @"
    .pipeline/pipeline.yaml is there already; it was not changed.
    `git fetch` from origin brings records from now on.
    ");
    insta::assert_snapshot!(pushed, @"
    --- stderr
    pv: 2 records sent to `origin`
    ");
    insta::assert_snapshot!(cloned, @"
    Cloned to clone, with 2 records.
    Next: `pv pull` there brings data and results, `pv hooks install` keeps it all in step with commits.
    ");
    assert!(shared.project.pv(&["init"]).ends_with("nothing was changed.\n"));
}

#[test]
fn records_travel_with_ids_of_sha256_and_to_refs_in_tables() {
    there_and_back(&Shared::with(&["--object-format=sha256"], &["--object-format=sha256"]));
    there_and_back(&Shared::with(&[], &["--ref-format=reftable"]));
}

#[test]
fn a_clone_says_what_to_do_next_whatever_it_is_a_clone_of() {
    let project = Sandbox::new();
    let bare = project.beside("empty.git");
    project.git(&["init", "--quiet", "--bare", bare.to_str().unwrap()]);
    insta::assert_snapshot!(project.pv(&["--quiet", "clone", bare.to_str().unwrap()]), @"
    Cloned to empty; nobody has sent records there yet.
    There is no pipeline in it: `pv init` there makes a first one.
    --- stderr
    warning: You appear to have cloned an empty repository.
    ");
    assert!(project.exists("empty/.git"));
    let shared = Shared::new();
    let beside = shared.project.beside("");
    insta::assert_snapshot!(shared.project.pv_in(&beside, &["--quiet", "clone", &shared.url()]), @"
    Cloned to bare; nobody has sent records there yet.
    Next: `pv pull` there brings data and results, `pv hooks install` keeps it all in step with commits.
    ");
    let (answer, code) = shared.project.json_in(&beside, &["--quiet", "clone", &shared.url(), "other"]);
    insta::assert_snapshot!(shared.project.redact(&format!("{answer:#}")), @r#"
    {
      "directory": "[ROOT]/other",
      "has_pipeline": true,
      "records": 0
    }
    "#);
    assert_eq!(code, 0);
    let (answer, code) = shared.project.json_in(&beside, &["--quiet", "clone", &shared.url(), "other"]);
    assert_eq!((answer["error"].as_str(), code), (Some("`git clone` ended with exit status: 128"), 2));
}

#[test]
fn a_plain_fetch_brings_records_and_takes_none_away() {
    // `git fetch origin +refs/pv/meta:refs/pv/meta` was the way, which threw away what was here alone.
    let shared = Shared::new();
    let (ada, bob) = (shared.clone("ada"), shared.clone("bob"));
    shared.fetch(&bob);
    shared.tag(&ada, "by-ada");
    shared.tag(&bob, "by-bob");
    shared.send_ok(&ada);
    let before = shared.project.git_in(&bob, &["rev-parse", META]);
    shared.project.git_in(&bob, &["fetch", "--quiet", "--prune"]);
    assert_eq!(shared.project.git_in(&bob, &["rev-parse", META]), before, "git moves nothing of ours");
    let log = shared.versions_in(&bob);
    assert!(log.contains("by-ada") && log.contains("by-bob"), "{log}");
    let parents = shared.project.git_in(&bob, &["log", "-1", "--format=%P", META]);
    let (mine, theirs) = parents.split_once(' ').unwrap();
    assert_eq!((mine, theirs), (&*before, &*shared.project.git_in(&shared.bare, &["rev-parse", META])));
    let settled = shared.project.git_in(&bob, &["rev-parse", META]);
    shared.versions_in(&bob);
    assert_eq!(shared.project.git_in(&bob, &["rev-parse", META]), settled, "and there it stays");
    // The union is a step forward for the remote, and then one for Ada.
    shared.send_ok(&bob);
    shared.fetch(&ada);
    assert_eq!(shared.project.git_in(&shared.bare, &["rev-parse", META]), settled);
    assert_eq!(shared.project.git_in(&ada, &["rev-parse", META]), settled);
    assert_eq!(shared.versions_on(META), ["by-ada", "by-bob"]);
}

/// So many people send at once, each from a clone of their own. Nobody fails, and nothing is lost.
fn all_at_once(people: usize) {
    let shared = Shared::new();
    let names: Vec<String> = (0..people).map(|number| format!("by-{number:02}")).collect();
    let places: Vec<PathBuf> = names.iter().map(|name| shared.clone(name)).collect();
    for (place, name) in places.iter().zip(&names) {
        shared.tag(place, name);
    }
    let start = |place: &PathBuf| {
        shared.send_command(place, "origin").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let running: Vec<_> = places.iter().map(start).collect();
    for child in running {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", shared.project.tell(&output));
    }
    assert_eq!(shared.versions_on(META), names);
    shared.project.git_in(&shared.bare, &["fsck", "--strict", "--full"]);
    for place in &places {
        shared.send_ok(place);
    }
    let mut tips = places.iter().map(|place| shared.project.git_in(place, &["rev-parse", META]));
    let there = shared.project.git_in(&shared.bare, &["rev-parse", META]);
    let held = |tip: String| shared.project.git_in(&shared.bare, &["merge-base", &tip, &there]) == tip;
    assert!(tips.all(held), "the remote has what each has");
}

#[test]
fn several_at_once_in_one_clone_are_not_in_each_others_way() {
    let shared = Shared::new();
    let (ada, bob) = (shared.clone("ada"), shared.clone("bob"));
    shared.tag(&bob, "by-bob");
    shared.send_ok(&bob);
    shared.tag(&ada, "by-ada");
    let start = |_| shared.send_command(&ada, "origin").stderr(Stdio::piped()).spawn().unwrap();
    let running: Vec<_> = (0..6).map(start).collect();
    for child in running {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", shared.project.tell(&output));
    }
    assert_eq!(shared.versions_on(META), ["by-ada", "by-bob"]);
}

#[test]
fn two_who_push_at_once_both_succeed() {
    all_at_once(2);
}

#[test]
fn ten_who_push_at_once_all_succeed() {
    all_at_once(10);
}

#[test]
fn who_loses_a_race_takes_in_what_won_it_and_goes_on() {
    let shared = Shared::new();
    let (ada, bob) = (shared.clone("ada"), shared.clone("bob"));
    shared.tag(&ada, "by-ada");
    shared.send_ok(&ada);
    shared.project.git_in(&shared.bare, &["update-ref", "refs/faster/one", META]);
    shared.project.git_in(&shared.bare, &["update-ref", "-d", META]);
    shared.tag(&bob, "by-bob");
    // Between Bob's look at the ref and its move, Ada's records come.
    shared.server_hook(
        "update",
        "[ \"$1\" = refs/pv/meta ] && [ ! -e raced ] || exit 0\n: > raced\n\
         env -u GIT_QUARANTINE_PATH git update-ref refs/pv/meta refs/faster/one\n",
    );
    shared.send_ok(&bob);
    assert!(shared.bare.join("raced").exists());
    assert_eq!(shared.versions_on(META), ["by-ada", "by-bob"]);
    assert!(!shared.has(BRANCH), "a lost race is no refusal");
}

/// Ada sends to a server that refuses the ref, Bob clones and sends back, and Ada sees it.
fn goes_by_branch(shared: &Shared) -> String {
    let (project, ada) = (&shared.project, shared.clone("ada"));
    shared.tag(&ada, "by-ada");
    let told = shared.send_ok(&ada);
    assert_eq!(shared.versions_on(BRANCH), ["by-ada"]);
    assert_eq!(project.git_in(&ada, &["config", "remote.origin.pvMetaRef"]), BRANCH);
    shared.tag(&ada, "by-ada-2");
    assert!(!shared.send_ok(&ada).contains("refuses"), "it is remembered");
    let bob = project.beside("bob");
    project.pv_in(&project.beside(""), &["--quiet", "clone", &shared.url(), "bob"]);
    let log = shared.versions_in(&bob);
    assert!(log.contains("by-ada") && log.contains("by-ada-2"), "{log}");
    shared.tag(&bob, "by-bob");
    assert!(!shared.send_ok(&bob).contains("refuses"), "Bob sees what Ada found out");
    assert_eq!(shared.versions_on(BRANCH), ["by-ada", "by-ada-2", "by-bob"]);
    project.git_in(&ada, &["fetch", "--quiet"]);
    let log = shared.versions_in(&ada);
    assert!(log.contains("by-bob"), "a plain fetch brings the branch: {log}");
    told
}

#[test]
fn a_server_that_refuses_the_ref_is_explained_and_a_branch_carries_the_records() {
    let shared = Shared::new();
    shared.server_hook(
        "pre-receive",
        "while read -r old new ref; do\n  case $ref in refs/heads/*|refs/tags/*) ;; *) echo 'branches and tags only'; exit 1;; esac\ndone\n",
    );
    insta::assert_snapshot!(goes_by_branch(&shared), @"
    --- stderr
    note: `origin` refuses `refs/pv/meta` (pre-receive hook declined: branches and tags only); its branch `pv-meta` carries the records from now on
    pv: 2 records sent to `origin`
    ");
    assert!(!shared.has(META));
}

#[test]
fn a_server_that_hides_the_ref_gets_the_records_on_a_branch() {
    let shared = Shared::new();
    shared.project.git_in(&shared.bare, &["config", "transfer.hideRefs", "refs/pv"]);
    insta::assert_snapshot!(goes_by_branch(&shared), @"
    --- stderr
    note: `origin` refuses `refs/pv/meta` (deny updating a hidden ref); its branch `pv-meta` carries the records from now on
    pv: 2 records sent to `origin`
    ");
    // One that lets it be pushed, and not be fetched, looks like a race that never ends.
    let shared = Shared::new();
    let first = shared.clone("first");
    shared.tag(&first, "first");
    shared.send_ok(&first);
    shared.project.git_in(&shared.bare, &["config", "uploadpack.hideRefs", "refs/pv"]);
    insta::assert_snapshot!(goes_by_branch(&shared), @"
    --- stderr
    note: `origin` refuses `refs/pv/meta` (it hides it from those who fetch); its branch `pv-meta` carries the records from now on
    pv: 2 records sent to `origin`
    ");
}

#[test]
fn who_has_records_on_both_the_ref_and_the_branch_is_read_whole() {
    let shared = Shared::new();
    let (ada, bob) = (shared.clone("ada"), shared.clone("bob"));
    shared.tag(&ada, "by-ada");
    shared.send_ok(&ada);
    shared.tag(&bob, "by-bob");
    shared.project.git_in(&bob, &["push", "--quiet", "origin", "refs/pv/meta:refs/heads/pv-meta"]);
    shared.project.pv_in(&shared.project.beside(""), &["--quiet", "clone", &shared.url(), "carol"]);
    let log = shared.versions_in(&shared.project.beside("carol"));
    assert!(log.contains("by-ada") && log.contains("by-bob"), "{log}");
}

#[test]
fn a_server_that_refuses_ref_and_branch_is_told_and_nothing_is_lost() {
    let shared = Shared::new();
    shared.server_hook("update", "case $1 in *meta) exit 1;; esac\n");
    let ada = shared.clone("ada");
    shared.tag(&ada, "by-ada");
    let output = shared.send(&ada, "origin");
    insta::assert_snapshot!(shared.project.tell(&output), @"
    --- stderr
    error: `origin` refuses `refs/heads/pv-meta`: `hook declined`
    hint: ask who runs the server to allow `refs/pv/meta`, or the branch `pv-meta`, to be pushed; `git push --no-verify` pushes all the same
    --- exit 2
    ");
    std::fs::remove_file(shared.bare.join("hooks/update")).unwrap();
    shared.send_ok(&ada);
    assert_eq!(shared.versions_on(META), ["by-ada"], "what did not work is not remembered");
}

#[test]
fn without_a_network_a_push_is_told_and_only_a_strict_hook_stops_it() {
    let shared = Shared::new();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ada = shared.clone("ada");
    shared.tag(&ada, "by-ada");
    shared.project.git_in(&ada, &["remote", "set-url", "origin", &format!("git://{closed}/x")]);
    let output = shared.send(&ada, "origin");
    let told = shared.project.tell(&output).replace(&closed.port().to_string(), "[PORT]");
    assert!(told.starts_with("--- stderr\nerror: cannot fetch from `origin`: git said `"), "{told}");
    assert!(told.ends_with("; `git push --no-verify` pushes all the same\n--- exit 2\n"), "{told}");
    let mut lenient = shared.project.pv_command_in(&ada, &["hooks", "run", "pre-push", "--", "origin", "anywhere"]);
    let output = lenient.output().unwrap();
    assert!(output.status.success());
    assert!(shared.project.tell(&output).contains("cannot fetch from `origin`"));
    shared.project.git_in(&ada, &["remote", "set-url", "origin", &shared.url()]);
    shared.send_ok(&ada);
    assert_eq!(shared.versions_on(META), ["by-ada"]);
}

#[test]
fn remotes_of_any_name_are_sent_to() {
    let shared = Shared::new();
    let ada = shared.clone("ada");
    for (number, name) in ["my-remote", "-odd", "team/one", "a.b"].into_iter().enumerate() {
        shared.project.git_in(&ada, &["config", &format!("remote.{name}.url"), &shared.url()]);
        let tag = format!("to-{number}");
        shared.tag(&ada, &tag);
        let output = shared.send(&ada, name);
        assert!(output.status.success(), "{name}: {}", shared.project.tell(&output));
        assert!(shared.versions_on(META).contains(&tag), "{name}");
    }
}

#[test]
fn the_hook_never_asks_for_a_password() {
    let test = "the_hook_never_asks_for_a_password";
    let shared = Shared::new();
    let helper = Path::new(&shared.project.git(&["--exec-path"])).join("git-remote-http");
    let there = helper.exists().then_some(()).ok_or_else(|| format!("{} is not there", helper.display()));
    let Some(()) = needs(test, "git over HTTP", there) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x.git", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut line = String::new();
            while stream.read_line(&mut line).is_ok_and(|bytes| bytes > 2) {
                line.clear();
            }
            let answer = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\n\
                          Content-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = stream.get_mut().write_all(answer.as_bytes());
        }
    });
    let ada = shared.clone("ada");
    shared.tag(&ada, "by-ada");
    shared.project.git_in(&ada, &["remote", "set-url", "origin", &url]);
    let output = shared.send(&ada, "origin");
    let told = shared.project.tell(&output);
    assert!(!output.status.success() && told.contains("terminal prompts disabled"), "{told}");
}

#[test]
fn records_travel_over_a_real_daemon() {
    let test = "records_travel_over_a_real_daemon";
    let shared = Shared::new();
    let probe = shared.project.command_in(&shared.bare, "git").args(["daemon", "--help-all"]).output().unwrap();
    let there = String::from_utf8_lossy(&probe.stderr).contains("usage");
    let Some(()) = needs(test, "git daemon", there.then_some(()).ok_or_else(|| shared.project.tell(&probe))) else {
        return;
    };
    // Each connection gets a daemon of its own, which ends with it: the port is one that is free.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let base = shared.bare.parent().unwrap().to_owned();
    let mut daemon = shared.project.command_in(&base, "git");
    daemon.args(["daemon", "--inetd", "--export-all", "--enable=receive-pack", "--log-destination=none"]);
    daemon.arg(format!("--base-path={}", base.display()));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream: OwnedFd = stream.unwrap().into();
            let _ = daemon.stdin(stream.try_clone().unwrap()).stdout(stream).stderr(Stdio::null()).spawn();
        }
    });
    let url = format!("git://{address}/bare.git");
    let ada = shared.clone("ada");
    shared.project.git_in(&ada, &["remote", "set-url", "origin", &url]);
    shared.tag(&ada, "by-ada");
    shared.send_ok(&ada);
    let told = shared.project.pv_in(&shared.project.beside(""), &["--quiet", "clone", &url, "bob"]);
    assert!(told.contains("records"), "{told}");
    assert_eq!(shared.versions_in(&shared.project.beside("bob")), shared.versions_in(&ada));
}

/// So many are killed, each a little later on its way.
const ROUNDS: u32 = 12;

#[test]
fn whoever_is_killed_on_the_way_leaves_both_sides_sound() {
    let shared = Shared::new();
    let places = [shared.clone("ada"), shared.clone("bob")];
    let mut names = vec!["first".to_owned()];
    shared.tag(&places[0], "first");
    let clock = std::time::Instant::now();
    shared.send_ok(&places[0]);
    let whole = clock.elapsed();
    for round in 0..ROUNDS {
        let place = &places[(round % 2) as usize];
        let name = format!("v-{round:02}");
        shared.tag(place, &name);
        names.push(name);
        let mut child = shared.send_command(place, "origin").stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(whole * round / ROUNDS);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // What git itself was doing for the dead comes to its end on its own.
    for place in [&places[0], &places[1], &places[0]] {
        let ended = (0..600).any(|_| {
            let is_done = shared.send(place, "origin").status.success();
            if !is_done {
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            is_done
        });
        assert!(ended, "{}", shared.project.tell(&shared.send(place, "origin")));
    }
    assert_eq!(shared.versions_on(META), names);
    for place in [&places[0], &places[1], &shared.bare] {
        shared.project.git_in(place, &["fsck", "--strict", "--full"]);
    }
}

#[test]
fn what_strangers_and_newer_versions_put_on_a_remote_is_kept_or_dropped_by_the_same_rules() {
    let shared = Shared::new();
    let (ada, bob, project) = (shared.clone("ada"), shared.clone("bob"), &shared.project);
    shared.tag(&ada, "by-ada");
    shared.send_ok(&ada);
    // Of a kind that is not known yet: named well, so it is kept and passed on.
    let newer = b"{\"kind\":\"verdict\",\"level\":\"identical\"}\n";
    let name = blake3::hash(newer).to_hex().to_string();
    let write = |bytes: &[u8]| {
        std::fs::write(project.beside("bytes"), bytes).unwrap();
        project.git_in(&shared.bare, &["hash-object", "-w", project.beside("bytes").to_str().unwrap()])
    };
    let (newer, junk) = (write(newer), write(b"{\"kind\":\"run\"}\n"));
    let index = project.beside("index");
    let git = |arguments: &[&str]| {
        let output =
            project.command_in(&shared.bare, "git").env("GIT_INDEX_FILE", &index).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", project.tell(&output));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    git(&["read-tree", META]);
    let taken = git(&["ls-tree", "-r", "--name-only", META]).lines().next().unwrap()[..2].to_owned();
    let free = ["00", "01"].into_iter().find(|shard| **shard != taken && !name.starts_with(*shard)).unwrap();
    for (mode, blob, path) in [
        ("100644", &newer, format!("{}/{}", &name[..2], &name[2..])),
        ("100644", &junk, format!("{}/{}", &name[..2], "f".repeat(62))),
        ("100755", &junk, "README/deep/er".to_owned()),
        ("120000", &junk, free.to_owned()),
    ] {
        git(&["update-index", "--add", "--cacheinfo", &format!("{mode},{blob},{path}")]);
    }
    let tree = git(&["write-tree"]);
    let commit = git(&["commit-tree", &tree, "-p", META, "-m", "junk"]);
    git(&["update-ref", META, &commit]);
    shared.tag(&bob, "by-bob");
    shared.send_ok(&bob);
    let log = shared.versions_in(&bob);
    assert!(log.contains("by-ada") && log.contains("by-bob"), "{log}");
    let names = project.git_in(&bob, &["ls-tree", "-r", "--name-only", META]);
    assert!(names.contains(&name[2..]), "{names}");
    assert!(!names.contains(&"f".repeat(62)) && !names.contains("README"), "{names}");
    assert_eq!(project.git_in(&shared.bare, &["ls-tree", "-r", "--name-only", META]), names, "nor is it passed on");
    // Nobody adds commits for it, back and forth.
    let settled = project.git_in(&shared.bare, &["rev-parse", META]);
    for place in [&ada, &bob, &ada] {
        shared.fetch(place);
        shared.send_ok(place);
        assert_eq!(project.git_in(place, &["rev-parse", META]), settled);
    }
    assert_eq!(project.git_in(&shared.bare, &["rev-parse", META]), settled);
}

#[test]
fn the_hook_asks_nobody_when_there_is_nothing_to_send() {
    let shared = Shared::new();
    let project = &shared.project;
    project.pv_ok(&["hooks", "install"]);
    project.pv_ok(&["snapshot", "--tag", "v1.0"]);
    // Git writes down each of its commands, also those that `pv` starts.
    let trace = project.beside("trace");
    let push = |arguments: &[&str]| {
        let _ = std::fs::remove_file(&trace);
        let mut command = project.command_in(&project.path(""), "git");
        let output = command.env("GIT_TRACE", &trace).arg("push").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", project.tell(&output));
        let trace = std::fs::read_to_string(&trace).unwrap();
        assert!(trace.contains("hooks/pre-push"), "{trace}");
        ["git fetch --quiet", "git push --porcelain"].map(|ours| trace.contains(ours))
    };
    let (nothing, all) = ([false, false], [true, true]);
    assert_eq!(push(&["origin", ":refs/heads/none-such"]), nothing, "a deletion shares nothing");
    assert_eq!(push(&["origin", "v1.0"]), all, "a tag does");
    assert_eq!(shared.versions_on(META), ["v1.0"]);
    project.commit("second");
    assert_eq!(push(&["origin", "main"]), all, "the commit was linked to its snapshot");
    assert_eq!(push(&["origin", "main"]), nothing, "all is there");
    assert_eq!(push(&["origin", "main:side"]), nothing);
    assert_eq!(push(&[&shared.url(), "main:other"]), nothing, "an address is no remote");
}

#[test]
fn the_hook_calls_the_one_before_it_once_with_what_git_gives() {
    let shared = Shared::new();
    let project = &shared.project;
    project.write(
        ".git/hooks/pre-push",
        "#!/bin/sh\necho \"$1\" >> called\nsed 's/ [0-9a-f]* / /;s/ [0-9a-f]*$//' >> called\n",
    );
    std::fs::set_permissions(project.path(".git/hooks/pre-push"), PermissionsExt::from_mode(0o755)).unwrap();
    let before = project.read(".git/hooks/pre-push");
    let told = project.pv(&["hooks", "install", "--strict"]);
    assert!(told.contains("pre-push            installed, calls the one that was there first, strict"), "{told}");
    project.pv_ok(&["snapshot", "--tag", "v1.0"]);
    project.git(&["push", "--quiet", "origin", "main", "v1.0"]);
    assert_eq!(project.read("called"), "origin\nrefs/tags/v1.0 refs/tags/v1.0\n", "not again for the records");
    assert_eq!(shared.versions_on(META), ["v1.0"]);
    // Nothing to push is no line, not an empty one.
    std::fs::remove_file(project.path("called")).unwrap();
    project.git(&["push", "--quiet", "origin", "main"]);
    assert_eq!(project.read("called"), "origin\n");
    assert!(!project.pv(&["hooks", "install"]).contains("strict"), "again, without it");
    project.pv_ok(&["hooks", "uninstall"]);
    assert_eq!(project.read(".git/hooks/pre-push"), before);
}

#[test]
fn without_pv_a_push_goes_on_with_a_note() {
    let shared = Shared::new();
    let project = &shared.project;
    project.pv_ok(&["hooks", "install", "--strict"]);
    let script = project.read(".git/hooks/pre-push");
    let line = script.lines().find(|line| line.starts_with("pv=")).unwrap().to_owned();
    project.write(".git/hooks/pre-push", script.replace(&line, "pv='/nowhere/bin/pv'"));
    let output = project.command_in(&project.path(""), "git").args(["push", "origin", "main:new"]).output().unwrap();
    let told = project.tell(&output);
    assert!(output.status.success() && told.contains("/nowhere/bin/pv is gone"), "{told}");
}

#[test]
fn records_that_are_pushed_by_hand_are_not_moved_under_the_hand() {
    let shared = Shared::new();
    let project = &shared.project;
    project.pv_ok(&["hooks", "install", "--strict"]);
    shared.tag(&project.path(""), "v1.0");
    project.git(&["push", "--quiet", "origin", META]);
    assert_eq!(shared.versions_on(META), ["v1.0"]);
}

#[test]
fn a_strict_hook_stops_a_push_whose_records_are_refused() {
    let shared = Shared::new();
    let project = &shared.project;
    shared.server_hook("update", "case $1 in *meta) exit 1;; esac\n");
    shared.tag(&project.path(""), "v1.0");
    let push = || {
        let output =
            project.command_in(&project.path(""), "git").args(["push", "origin", "main:new"]).output().unwrap();
        (output.status.success(), project.tell(&output))
    };
    project.pv_ok(&["hooks", "install", "--strict"]);
    let (is_done, told) = push();
    assert!(!is_done && told.contains("git push --no-verify"), "{told}");
    assert!(!shared.has("refs/heads/new"));
    project.pv_ok(&["hooks", "install"]);
    let (is_done, told) = push();
    assert!(is_done && told.contains("refuses"), "{told}");
    assert!(shared.has("refs/heads/new"));
}

#[test]
fn a_partial_clone_gets_its_records_whole() {
    let shared = Shared::new();
    let project = &shared.project;
    shared.tag(&project.path(""), "v1.0");
    shared.send_ok(&project.path(""));
    project.git_in(&shared.bare, &["config", "uploadpack.allowFilter", "true"]);
    let partial = project.beside("partial");
    project.git(&["clone", "--quiet", "--filter=blob:none", &shared.url(), partial.to_str().unwrap()]);
    project.pv_in(&partial, &["init"]);
    project.git_in(&partial, &["fetch", "--quiet"]);
    shared.tag(&partial, "v2.0");
    shared.send_ok(&partial);
    assert_eq!(shared.versions_on(META), ["v1.0", "v2.0"]);
    let log = shared.versions_in(&partial);
    assert!(log.contains("v1.0") && log.contains("v2.0"), "{log}");
}
