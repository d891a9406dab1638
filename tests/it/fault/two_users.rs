//! Two users of one group, each with a repository of its own, and one store for both. Only root can be both.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::needs;
use super::place::{end_of, snapshot_in, text_of};
use crate::sandbox::Sandbox;

/// The group that both are in, besides one of their own.
const GROUP: u32 = 61_000;
const USERS: [u32; 2] = [61_001, 61_002];
/// A year after what the sandbox takes for now.
const LATER: &str = "2027-03-01T00:00:00Z";

const BEGIN: &str = "
mkdir -p project/.pipeline project/data && cd project
printf '%s' 'data: [data]
steps:
  wait: {inputs: [], outputs: [out], env: [GATE], run: \"while ! test -e $GATE; do sleep 0.01; done; echo > out\"}
' > .pipeline/pipeline.yaml
printf '/data/\\n/out\\n' > .gitignore
git init --quiet && git add . && git commit --quiet --message first
";

/// A directory that both can reach, in which each has one.
struct Group {
    sandbox: Sandbox,
}

/// One of the two.
struct Member<'a> {
    group: &'a Group,
    user: u32,
    umask: &'static str,
}

impl Group {
    /// Returns a group whose store is to be in a directory of this mode.
    fn new(mode: u32) -> Result<Self, String> {
        let group = Self { sandbox: Sandbox::new() };
        let set_mode = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode));
        let prepare = || -> std::io::Result<()> {
            set_mode(&group.path(""), 0o755)?;
            std::fs::copy(env!("CARGO_BIN_EXE_pv"), group.path("pv"))?;
            std::fs::create_dir(group.path("shared"))?;
            chown(group.path("shared"), None, Some(GROUP))?;
            set_mode(&group.path("shared"), mode)?;
            for user in USERS {
                let own = group.path(&user.to_string());
                std::fs::create_dir(&own)?;
                chown(&own, Some(user), Some(user))?;
            }
            Ok(())
        };
        prepare().map_err(|error| error.to_string())?;
        for member in group.members("022") {
            let output = member.command("pv", &["--version"]).output().map_err(|error| error.to_string())?;
            if !output.status.success() {
                return Err(text_of(&output));
            }
        }
        Ok(group)
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.sandbox.beside(relative)
    }

    fn members(&self, umask: &'static str) -> [Member<'_>; 2] {
        USERS.map(|user| Member { group: self, user, umask })
    }

    /// Returns the names of the sessions that have a place in the store.
    fn sessions(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path("shared/tmp")) else { return Vec::new() };
        let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        directories.map(|entry| entry.file_name().into_string().unwrap()).collect()
    }
}

impl Member<'_> {
    fn own(&self, relative: &str) -> PathBuf {
        self.group.path(&self.user.to_string()).join(relative)
    }

    /// Returns a command in this one's directory, done by this user and under this umask.
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let (user, group) = (self.user, format!("--groups={GROUP}"));
        let mut command = self.group.sandbox.command_in(&self.own(""), "setpriv");
        command.args([format!("--reuid={user}"), format!("--regid={user}"), group]);
        command.args(["sh", "-ec", "umask \"$0\"; test ! -d project || cd project; exec \"$@\"", self.umask]);
        let program = if program == "pv" { self.group.path("pv") } else { program.into() };
        command.arg(program).args(arguments);
        command.env("HOME", self.own("")).env("XDG_CACHE_HOME", self.own("cache")).env("GATE", self.own("gate"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn pv(&self, arguments: &[&str]) -> Output {
        end_of(self.command("pv", arguments).spawn().unwrap())
    }

    #[track_caller]
    fn succeeds(&self, arguments: &[&str]) -> Output {
        let output = self.pv(arguments);
        assert!(output.status.success(), "user {}: pv {arguments:?}: {}", self.user, text_of(&output));
        output
    }

    /// Makes a repository and lets it use the shared store.
    fn begins(&self) {
        let output = self.command("sh", &["-ec", BEGIN]).output().unwrap();
        assert!(output.status.success(), "{}", text_of(&output));
        self.succeeds(&["store", "move", "../../shared"]);
    }

    /// Takes a snapshot of some content, small and large.
    fn takes(&self, text: &str, arguments: &[&str]) -> String {
        let large = text.repeat(100_000 / text.len());
        for (name, content) in [("small", text), ("large", &large)] {
            let path = self.own("project/data").join(name);
            std::fs::write(&path, content).unwrap();
            chown(&path, Some(self.user), Some(self.user)).unwrap();
        }
        snapshot_in(&self.succeeds(&[&["--json", "snapshot"], arguments].concat()))
    }

    /// Checks that a snapshot comes out whole.
    #[track_caller]
    fn has(&self, snapshot: &str, text: &str) {
        self.succeeds(&["checkout", "--force", snapshot]);
        let large = std::fs::read_to_string(self.own("project/data/large")).unwrap();
        assert!(large.starts_with(text) && large.len() > 90_000);
        assert_eq!(std::fs::read_to_string(self.own("project/data/small")).unwrap(), text);
    }

    /// Collects all garbage, a year later.
    fn collects(&self) -> Output {
        let mut command = self.command("pv", &["gc", "--all", "--undo-days", "0"]);
        end_of(command.env("PV_NOW", LATER).spawn().unwrap())
    }
}

#[test]
fn two_users_of_one_group_share_a_store() {
    let test = "two_users_of_one_group_share_a_store";
    // Where new files belong to the group of the directory by themselves, and where `pv` must see to it.
    for mode in [0o2770, 0o770] {
        let Some(group) = needs(test, "root and `setpriv`", Group::new(mode)) else { return };
        let [one, two] = group.members("022");
        one.begins();
        two.begins();
        let ones = one.takes("of one", &["--tag", "one"]);
        let garbage = one.takes("of one, for a while", &[]);
        let twos = two.takes("of two", &["--tag", "two"]);
        one.has(&twos, "of two");
        two.has(&ones, "of one");
        for member in [&two, &one] {
            let output = member.collects();
            assert!(output.status.success(), "{}", text_of(&output));
        }
        assert!(!two.pv(&["checkout", "--force", &garbage]).status.success(), "what nobody needs went");
        one.has(&twos, "of two");
        two.has(&ones, "of one");
        one.succeeds(&["fsck"]);
        for entry in walkdir::WalkDir::new(group.path("shared")) {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            let is_for_all = metadata.is_file() && metadata.mode() & 0o004 != 0;
            let wanted = if metadata.is_dir() { 0o070 } else { 0o040 };
            let is_for_group = metadata.gid() == GROUP && metadata.mode() & wanted == wanted;
            assert!(is_for_all || is_for_group, "{:o} {}", metadata.mode(), entry.path().display());
        }
    }
}

#[test]
fn a_user_whose_repository_others_may_not_read_blocks_deletion_and_nothing_else() {
    let test = "a_user_whose_repository_others_may_not_read_blocks_deletion_and_nothing_else";
    let Some(group) = needs(test, "root and `setpriv`", Group::new(0o2770)) else { return };
    let [one, two] = group.members("077");
    one.begins();
    two.begins();
    let (ones, twos) = (one.takes("of one", &[]), two.takes("of two", &[]));
    one.has(&twos, "of two");
    two.has(&ones, "of one");
    let output = two.collects();
    let told = text_of(&output);
    assert_eq!(output.status.code(), Some(4), "{told}");
    let user = one.own("project/.git").canonicalize().unwrap();
    assert!(told.contains(&format!("user `{}` of the store cannot be read", user.display())), "{told}");
    assert!(told.contains("Permission denied") && told.contains("hint: "), "{told}");
    one.has(&ones, "of one");
    let output = one.command("chmod", &["-R", "go+rX", "."]).output().unwrap();
    assert!(output.status.success(), "{}", text_of(&output));
    let output = two.collects();
    assert!(output.status.success(), "{}", text_of(&output));
    assert!(!one.pv(&["checkout", "--force", &ones]).status.success(), "it was on record for less than a year");
}

#[test]
fn what_a_user_is_writing_is_respected_by_the_other_and_what_one_left_is_no_obstacle() {
    let test = "what_a_user_is_writing_is_respected_by_the_other_and_what_one_left_is_no_obstacle";
    let Some(group) = needs(test, "root and `setpriv`", Group::new(0o2770)) else { return };
    let [one, two] = group.members("077");
    one.begins();
    two.begins();
    two.takes("of two", &["--tag", "two"]);
    let mut running = one.command("pv", &["run"]).spawn().unwrap();
    while group.sessions().is_empty() {
        assert!(running.try_wait().unwrap().is_none(), "{}", text_of(&running.wait_with_output().unwrap()));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let output = two.pv(&["store", "move", "../store"]);
    let told = text_of(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("is in use by process"), "{told}");
    assert!(!two.own("store").exists());
    running.kill().unwrap();
    running.wait().unwrap();
    std::fs::write(one.own("gate"), "").unwrap();
    two.takes("of two, later", &[]);
    assert_eq!(group.sessions(), [] as [String; 0], "what the other user left is gone");
    two.succeeds(&["store", "move", "../store"]);
}

#[test]
fn a_store_that_comes_to_be_for_a_group_later_needs_no_more_than_directories_that_say_so() {
    let test = "a_store_that_comes_to_be_for_a_group_later_needs_no_more_than_directories_that_say_so";
    let Some(group) = needs(test, "root and `setpriv`", Group::new(0o2755)) else { return };
    let [one, two] = group.members("022");
    chown(group.path("shared"), Some(one.user), None).unwrap();
    one.begins();
    let ones = one.takes("of one", &["--tag", "one"]);
    let output = two.command("sh", &["-ec", BEGIN]).output().unwrap();
    assert!(output.status.success(), "{}", text_of(&output));
    let output = two.pv(&["store", "move", "../../shared"]);
    let told = text_of(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("Permission denied") && told.contains("hint: "), "{told}");
    for entry in walkdir::WalkDir::new(group.path("shared")) {
        let entry = entry.unwrap();
        if entry.file_type().is_dir() {
            std::fs::set_permissions(entry.path(), PermissionsExt::from_mode(0o2775)).unwrap();
        }
    }
    two.succeeds(&["store", "move", "../../shared"]);
    let twos = two.takes("of two", &["--tag", "two"]);
    one.has(&twos, "of two");
    two.has(&ones, "of one");
    let output = two.collects();
    assert!(output.status.success(), "{}", text_of(&output));
}

#[test]
fn a_user_without_any_privilege_runs_steps_isolated_and_observed_and_leaves_nothing_behind() {
    let test = "a_user_without_any_privilege_runs_steps_isolated_and_observed_and_leaves_nothing_behind";
    let Some(group) = needs(test, "root, and other users", Group::new(0o2770)) else { return };
    let [user, _] = group.members("022");
    let definition = "mkdir -p project/.pipeline && cd project && git init --quiet
printf '%s' 'steps:
  count: {outputs: [n], run: \"pwd; id -u; wc -l < in > n; mkdir -p x/y; chmod 0 x\"}
' > .pipeline/pipeline.yaml; echo 1 > in; git add .; git commit --quiet --message first";
    let output = user.command("sh", &["-ec", definition]).output().unwrap();
    assert!(output.status.success(), "{}", text_of(&output));
    let told = text_of(&user.succeeds(&["run"]));
    assert!(told.contains("count | /pv/work") && told.contains(&format!("count | {}", user.user)), "{told}");
    let answer: serde_json::Value = serde_json::from_slice(&user.succeeds(&["--json", "run"]).stdout).unwrap();
    assert_eq!(answer["steps"][0]["verdict"], "reused");
    let told = text_of(&user.succeeds(&["show", answer["run"].as_str().unwrap()]));
    assert!(told.contains("observed: notify, isolated"), "{told}");
    // What the kernel makes for an overlay, and a directory that its maker may not look into, go as well.
    let left: Vec<String> = walkdir::WalkDir::new(user.own(""))
        .into_iter()
        .flatten()
        .map(|entry| entry.path().display().to_string())
        .filter(|path| path.contains("/run-"))
        .collect();
    assert_eq!(left, Vec::<String>::new());
}
