//! Steps that Podman and Docker run: the same files come out, nothing of them stays, and whose failure it was is told.

use std::ffi::OsString;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::run::{PODMAN, add, of, project, verdicts};
use super::{beside, told};
use crate::cloud::servers;
use crate::fault::needs;
use crate::python::wait_for;
use crate::sandbox::Sandbox;

/// Starts a daemon in mounts and processes of its own. All of them end when nobody holds the other end of the standard input: the
/// kernel ends everybody with the first. Not every version gets along with the second kind of control groups beside the first.
const LEASHED: &str = "umount /sys/fs/cgroup/unified 2>/dev/null; \"$@\" </dev/null & cat >/dev/null";

/// A daemon of Docker with a storage of its own.
struct Daemon {
    process: Child,
    directory: TempDir,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

impl Daemon {
    /// Starts one, or says why that cannot be done here.
    fn start() -> Result<Self, String> {
        let program = servers::program("dockerd")?;
        servers::program("docker")?;
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().display();
        fs::write(directory.path().join("settings"), "{}").unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", LEASHED, "sh"])
            .arg(program);
        for (name, file) in
            [("data-root", "data"), ("exec-root", "exec"), ("pidfile", "pid"), ("config-file", "settings")]
        {
            command.arg(format!("--{name}={place}/{file}"));
        }
        command.args(["--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs"]);
        command.arg(format!("--host=unix://{place}/socket")).stdin(Stdio::piped());
        let process =
            command.stdout(log.try_clone().unwrap()).stderr(log).spawn().map_err(|error| error.to_string())?;
        let mut daemon = Self { process, directory };
        let begun = Instant::now();
        loop {
            let asked = Command::new("docker").arg("version").env("DOCKER_HOST", daemon.host()).output().unwrap();
            if asked.status.success() {
                return Ok(daemon);
            }
            if daemon.process.try_wait().unwrap().is_some() || begun.elapsed() > Duration::from_secs(60) {
                let log = fs::read_to_string(daemon.directory.path().join("log")).unwrap();
                return Err(log.lines().rev().take(5).collect::<Vec<_>>().join("; "));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn host(&self) -> String {
        format!("unix://{}/socket", self.directory.path().display())
    }
}

/// A project with an image for the step `fit`, or for all, and a runtime that has nothing else in its storage.
struct Theirs {
    sandbox: Sandbox,
    program: &'static str,
    variables: Vec<(&'static str, String)>,
    _daemon: Option<Daemon>,
}

impl Theirs {
    /// Returns a project with this definition whose image is run by podman; `None` where podman cannot run anything.
    #[expect(clippy::print_stderr, reason = "what a machine cannot show must be said aloud")]
    fn podman(test: &str, definition: &str) -> Option<Self> {
        let sandbox = project(definition);
        add(&sandbox, "one\n", test)?;
        let at = |name: &str| beside(&sandbox, name);
        fs::write(sandbox.beside("containers.conf"), format!("{PODMAN}tmp_dir = \"{}\"\n", at("podman-tmp"))).unwrap();
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
            at("podman-graph"),
            at("podman-run")
        );
        fs::write(sandbox.beside("storage.conf"), storage).unwrap();
        let variables =
            vec![("CONTAINERS_CONF", at("containers.conf")), ("CONTAINERS_STORAGE_CONF", at("storage.conf"))];
        let theirs = Self { sandbox, program: "podman", variables, _daemon: None };
        // Where it cannot run anything at all, as in some containers, nothing can be said of what it would make.
        let probe = "tar -cf - -C / etc/hostname | podman import - localhost/pv/probe; \
                     podman run --rm --network none localhost/pv/probe /nothing; podman rmi localhost/pv/probe";
        let said = theirs.sandbox.tell(&theirs.command("sh").args(["-ec", probe]).output().unwrap());
        // That nothing of this name is in it is what a runtime says that works.
        if !said.contains("/nothing") {
            eprintln!("NOT TESTED: {test}: podman cannot run anything here: {said}");
            return None;
        }
        Some(theirs.used())
    }

    /// Returns a project with this definition whose image is run by Docker; `None` where there can be no daemon.
    fn docker(test: &str, definition: &str) -> Option<Self> {
        let sandbox = project(definition);
        add(&sandbox, "one\n", test)?;
        let daemon = needs(test, "a daemon of Docker (the package docker.io, and root)", Daemon::start())?;
        let variables = vec![("DOCKER_HOST", daemon.host())];
        Some(Self { sandbox, program: "docker", variables, _daemon: Some(daemon) }.used())
    }

    /// Lets the definition name the runtime.
    fn used(self) -> Self {
        let pipeline = self.sandbox.read(".pipeline/pipeline.yaml");
        assert!(pipeline.contains("\"}"), "{pipeline}");
        let named = format!("\", runtime: {}}}", self.program);
        self.sandbox.write(".pipeline/pipeline.yaml", pipeline.replace("\"}", &named));
        self.sandbox.commit("runtime");
        self
    }

    fn command(&self, program: &str) -> Command {
        let mut command = self.sandbox.command_in(&self.sandbox.path("."), program);
        command.envs(self.variables.iter().cloned());
        command
    }

    fn pv(&self, arguments: &[&str]) -> Command {
        let mut command = self.sandbox.pv_command(arguments);
        command.envs(self.variables.iter().cloned());
        command
    }

    fn told(&self, arguments: &[&str], code: i32) -> String {
        let output = self.pv(arguments).output().unwrap();
        let told = self.sandbox.tell(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
        told
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.pv(&[&["--json"], arguments].concat()).output().unwrap();
        assert!(output.status.success(), "{}", self.sandbox.tell(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Returns the containers that the runtime has, in whatever state, or those that run.
    fn containers(&self, which: &[&str]) -> Vec<String> {
        let output = self.command(self.program).args(["ps", "--format", "{{.Names}}"]).args(which).output().unwrap();
        assert!(output.status.success(), "{}", self.sandbox.tell(&output));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// Returns a search path on which this program comes before all others.
    fn before_others(&self, name: &str, text: &str) -> OsString {
        let directory = self.sandbox.beside(&format!("before-{name}"));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join(name), text).unwrap();
        fs::set_permissions(directory.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let path = std::env::var_os("PATH").unwrap();
        std::env::join_paths([directory].into_iter().chain(std::env::split_paths(&path))).unwrap()
    }

    /// Begins a run and waits until its container runs.
    fn begin(&self) -> Child {
        let run = self.pv(&["run", "--again"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for("the container runs", || !self.containers(&[]).is_empty());
        run
    }
}

const SAME: &str = "steps:\n  fit:\n    run: cat /model in.txt > out.txt; echo \"$KIND $HOME $PWD\" >> out.txt\n    \
                    inputs: [in.txt]\n    outputs: [out.txt]\n  next: {run: cat out.txt > report.txt, outputs: [report.txt]}\n";

/// The image run by `pv` and by them gives the same; what is given out is an image to them.
fn makes_the_same(theirs: &Theirs, loaded: &str) {
    let sandbox = &theirs.sandbox;
    let named = sandbox.read(".pipeline/pipeline.yaml");
    sandbox.write(".pipeline/pipeline.yaml", named.replace(&format!(", runtime: {}", theirs.program), ""));
    let own = told(sandbox, &["run"]);
    sandbox.write(".pipeline/pipeline.yaml", named);
    let run = theirs.json(&["run", "--again"]);
    assert_eq!(verdicts(&run), of(&[("fit", "ran"), ("next", "ran")]), "{run}");
    for step in 0..2 {
        assert_eq!(run["steps"][step]["outputs"], own["steps"][step]["outputs"], "{run}");
    }
    assert_eq!(theirs.containers(&["--all"]), [""; 0]);
    let archive = beside(sandbox, "out.tar");
    told(sandbox, &["env", "export", "HEAD", &archive]);
    let load = format!("name=$({loaded}); {} run --rm --network none \"$name\" cat /model", theirs.program);
    let loaded = theirs.command("sh").args(["-ec", &load, &archive]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&loaded.stdout), "one\n", "{}", sandbox.tell(&loaded));
    // Nothing is claimed of what was done in there.
    let shown = sandbox.pv(&["show", run["run"].as_str().unwrap()]);
    assert!(shown.contains("observed: none"), "{shown}");
}

#[test]
fn podman_makes_the_same_of_the_same_image() {
    let Some(theirs) = Theirs::podman("podman_makes_the_same_of_the_same_image", SAME) else { return };
    makes_the_same(&theirs, "podman load --quiet --input \"$0\" | sed 's/.*: //'");
}

#[test]
fn docker_makes_the_same_of_the_same_image() {
    let Some(theirs) = Theirs::docker("docker_makes_the_same_of_the_same_image", SAME) else { return };
    makes_the_same(&theirs, "docker load --quiet --input \"$0\" | sed 's/.*: //; s/^sha256://'");
}

const CODES: &str = "steps:\n  fit: {run: exit 0}\n  a125: {run: exit 125, inputs: []}\n  a126: {run: exit 126, inputs: []}\n  \
                     a127: {run: exit 127, inputs: []}\n  a1: {run: exit 1, inputs: []}\n  nothing: {run: [/nothing], inputs: []}\n  \
                     directory: {run: [/usr], inputs: []}\n";

/// Every step of the definition gets the image of the first.
fn in_all_steps(theirs: &Theirs) {
    let pipeline = theirs.sandbox.read(".pipeline/pipeline.yaml");
    let at = pipeline.find("{image:").or_else(|| pipeline.find("image:")).unwrap();
    let end = at + pipeline[at..].find('}').unwrap() + 1;
    let image = pipeline[at..end].to_owned();
    theirs.sandbox.write(".pipeline/pipeline.yaml", format!("environment: {image}\n{pipeline}"));
    theirs.sandbox.commit("all");
}

fn tells_whose_failure_it_was(theirs: &Theirs) {
    in_all_steps(theirs);
    let (told, program) = (theirs.told(&["run", "--keep-going"], 3), theirs.program);
    for code in [1, 125, 126, 127] {
        assert!(told.contains(&format!("error: step `a{code}` failed: it exited with code {code}\n")), "{told}");
    }
    for (step, named) in [("nothing", "/nothing"), ("directory", "/usr")] {
        let start = format!("error: step `{step}` failed: `{program}` could not start it: ");
        let line = told.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("{told}"));
        assert!(line.contains(&format!("exec: \"{named}\"")), "{line}");
    }
    assert_eq!(theirs.containers(&["--all"]), [""; 0]);
}

#[test]
fn what_podman_cannot_start_is_told_as_that_and_what_a_step_ends_with_as_the_steps() {
    let test = "what_podman_cannot_start_is_told_as_that_and_what_a_step_ends_with_as_the_steps";
    let Some(theirs) = Theirs::podman(test, CODES) else { return };
    tells_whose_failure_it_was(&theirs);
}

#[test]
fn what_docker_cannot_start_is_told_as_that_and_what_a_step_ends_with_as_the_steps() {
    let test = "what_docker_cannot_start_is_told_as_that_and_what_a_step_ends_with_as_the_steps";
    let Some(theirs) = Theirs::docker(test, CODES) else { return };
    tells_whose_failure_it_was(&theirs);
}

const GPU: &str = "steps: {fit: {run: exit 0, resources: {gpus: 1}}}\n";

/// What they need themselves is not there: a GPU that is none, and then the image, which somebody takes away at the last moment.
fn tells_its_own_failures(theirs: &Theirs, words: [&str; 2]) {
    let program = theirs.program;
    let told = |command: &mut Command, code: i32| {
        let output = command.env("CUDA_VISIBLE_DEVICES", "no-such").output().unwrap();
        let told = theirs.sandbox.tell(&output);
        assert_eq!(output.status.code(), Some(code), "{told}");
        told
    };
    let is_told = |told: &str, start: &str, word: &str| {
        assert!(told.lines().any(|line| line.starts_with(start) && line.contains(word)), "{told}");
        assert_eq!(theirs.containers(&["--all"]), [""; 0]);
    };
    let start = format!("error: step `fit` failed: `{program}` could not start it: ");
    is_told(&told(&mut theirs.pv(&["run"]), 3), &start, words[0]);

    let real = servers::program(program).unwrap();
    let between = format!(
        "#!/bin/sh\n[ \"$1\" = create ] && {real} rmi --force $({real} images --quiet localhost/pv/image) >/dev/null\nexec {real} \"$@\"\n",
        real = real.display()
    );
    let path = theirs.before_others(program, &between);
    let start = format!("error: step `fit` cannot have its environment: `{program}` makes no container: ");
    let told = told(theirs.pv(&["run"]).env("PATH", path), 5);
    is_told(&told, &start, words[1]);
    assert!(told.contains("\nhint: without `runtime` in its environment, `pv` runs the image itself\n"), "{told}");
}

#[test]
fn what_podman_lacks_itself_is_no_failure_of_the_step() {
    let Some(theirs) = Theirs::podman("what_podman_lacks_itself_is_no_failure_of_the_step", GPU) else { return };
    tells_its_own_failures(&theirs, ["nvidia.com/gpu=no-such", "image not known"]);
}

#[test]
fn what_docker_lacks_itself_is_no_failure_of_the_step() {
    let Some(theirs) = Theirs::docker("what_docker_lacks_itself_is_no_failure_of_the_step", GPU) else { return };
    tells_its_own_failures(&theirs, ["device driver", "No such image"]);
}

/// Whoever kills `pv` may kill `tar` first, and what that wrote looks like an archive.
fn takes_an_image_whole_or_not_at_all(theirs: &Theirs) {
    let real = servers::program("tar").unwrap();
    let cut = format!("#!/bin/sh\n{} --exclude=./model \"$@\"\nexit 1\n", real.display());
    let path = theirs.before_others("tar", &cut);
    let output = theirs.pv(&["run"]).env("PATH", path).output().unwrap();
    let told = theirs.sandbox.tell(&output);
    let words = format!("`{}` does not take the image: not all of its files could be read\n", theirs.program);
    assert!(output.status.code() == Some(5) && told.contains(&words), "{told}");
    let images = || {
        let output = theirs.command(theirs.program).args(["images", "--quiet", "localhost/pv/image"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().lines().count()
    };
    assert_eq!(images(), 0);
    theirs.told(&["run"], 0);
    assert_eq!(theirs.sandbox.read("out.txt").lines().next(), Some("one"));
    assert_eq!(images(), 1);
}

#[test]
fn podman_takes_an_image_whole_or_not_at_all() {
    let Some(theirs) = Theirs::podman("podman_takes_an_image_whole_or_not_at_all", SAME) else { return };
    takes_an_image_whole_or_not_at_all(&theirs);
}

#[test]
fn docker_takes_an_image_whole_or_not_at_all() {
    let Some(theirs) = Theirs::docker("docker_takes_an_image_whole_or_not_at_all", SAME) else { return };
    takes_an_image_whole_or_not_at_all(&theirs);
}

/// As `docs/seeds.md` says. No container is left of it either.
#[test]
fn a_step_in_another_runtime_cannot_be_pinned_and_is_told_why() {
    let test = "a_step_in_another_runtime_cannot_be_pinned_and_is_told_why";
    let definition = "seed: 42\nsteps: {fit: {run: exit 0, determinism: pinned}}\n";
    let Some(theirs) = Theirs::podman(test, definition) else { return };
    let output = theirs.pv(&["run"]).output().unwrap();
    let told = theirs.sandbox.tell(&output);
    assert!(
        !output.status.success() && told.contains("error: step `fit` is pinned, but entropy cannot be pinned here\n"),
        "{told}"
    );
    assert_eq!(theirs.containers(&["--all"]), [""; 0]);
}

/// Heeds no request to end: the first process of a container has to ask for that.
const ENDLESS: &str = "steps: {fit: {run: 'while :; do sleep 1; done'}}\n";

fn leaves_no_container(theirs: &Theirs) {
    let none_stays = || theirs.containers(&["--all"]).is_empty();
    let mut killed = theirs.begin();
    killed.kill().unwrap();
    killed.wait().unwrap();
    wait_for("nobody is left of a run that was killed", none_stays);

    let mut interrupted = theirs.begin();
    let kill = Command::new("kill").args(["-INT", &interrupted.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert_eq!(interrupted.wait().unwrap().code(), Some(130));
    assert!(none_stays(), "when it has ended, nobody is left of a run that was interrupted");

    // Whoever kills `pv` may kill its guards with it; here there are none.
    let path = theirs.before_others("flock", "#!/bin/sh\nexit 1\n");
    let mut killed = theirs.pv(&["run", "--again"]);
    let mut killed = killed.env("PATH", path).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the container runs", || !theirs.containers(&[]).is_empty());
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(!none_stays(), "nobody was there to remove it");

    let definition = theirs.sandbox.read(".pipeline/pipeline.yaml");
    theirs.sandbox.write(".pipeline/pipeline.yaml", definition.replace("{fit: {", "{fit: {timeout: 1s, "));
    let told = theirs.told(&["run"], 3);
    assert!(told.contains("error: step `fit` failed: it took longer than [TIME]\n"), "{told}");
    assert!(none_stays(), "neither of a step that took too long, nor of the run that was killed before");
}

#[test]
fn no_container_of_podman_stays_when_a_run_is_killed_or_interrupted_or_takes_too_long() {
    let test = "no_container_of_podman_stays_when_a_run_is_killed_or_interrupted_or_takes_too_long";
    let Some(theirs) = Theirs::podman(test, ENDLESS) else { return };
    leaves_no_container(&theirs);
}

#[test]
fn no_container_of_docker_stays_when_a_run_is_killed_or_interrupted_or_takes_too_long() {
    let test = "no_container_of_docker_stays_when_a_run_is_killed_or_interrupted_or_takes_too_long";
    let Some(theirs) = Theirs::docker(test, ENDLESS) else { return };
    leaves_no_container(&theirs);
}
