//! Steps in an image that another program runs: Podman, Docker or Apptainer.
//!
//! They get a copy of the project at the same path as everywhere, and the same variables, user and files of the image. What
//! they do in there nobody sees from here, so nothing is claimed of it: their results are known by all that they may
//! depend on. The image is taken from the store, whatever the runtime's own storage has or a registry would give.
//!
//! Sources: podman-run(1), podman-import(1), the references of `docker run` and `docker import`, and Apptainer's
//! user guide on `apptainer exec`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use super::RunError;
use super::image::Ready;
use super::place::LOCK;
use crate::disk::{self, Durability};
use crate::exec::{self, Command, End, Job, PLACE, Stop, WORKPLACE};
use crate::host;
use crate::pipeline::{Run, Runtime, Step};

/// Variables by which these programs find their settings, their storage and their servers.
const PASSED: [&str; 22] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "CONTAINERS_CONF",
    "CONTAINERS_STORAGE_CONF",
    "CONTAINER_HOST",
    "CONTAINER_CONNECTION",
    "STORAGE_DRIVER",
    "DOCKER_HOST",
    "DOCKER_CONFIG",
    "DOCKER_CONTEXT",
    "DOCKER_TLS_VERIFY",
    "DOCKER_CERT_PATH",
    "APPTAINER_CACHEDIR",
    "APPTAINER_TMPDIR",
    "APPTAINER_CONFIGDIR",
];

const PODMAN: &str = "podman";
const DOCKER: &str = "docker";
/// What the names of notes on containers end with.
const NOTE: &str = "container";
/// Asks for the time when a container began and the code with which it ended.
const STATE: &str = "{{.State.StartedAt}}|{{.State.ExitCode}}";
/// How the time begins when a container began that never did.
const NEVER: &str = "0001-01-01";

/// How many of the last words of a program that failed are told.
const SAID_CHARS: usize = 300;

/// One step in another runtime.
#[derive(Debug)]
pub(super) struct Elsewhere {
    runtime: Runtime,
    /// What the runtime calls the image, or where its files are.
    image: String,
    /// What the runtime calls the step, once in all places.
    name: String,
    user: (u32, u32),
    /// The project's files, and what is the step's own.
    tree: PathBuf,
    room: PathBuf,
}

impl Elsewhere {
    /// Returns a step in `runtime`, which knows the files of the image from now on.
    ///
    /// The project is in `tree`, what else is the step's own in `room`. Costs, the first time, a copy of the image into
    /// the storage of the runtime, else one question.
    ///
    /// # Errors
    ///
    /// [`RunError::NoRuntime`] with what the runtime said if it is not there or cannot take the image.
    pub(super) fn provide(
        runtime: Runtime,
        ready: &Ready,
        step: &str,
        (tree, room): (&Path, &Path),
        stop: &Stop,
    ) -> Result<Self, RunError> {
        let place = tree.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        let tree_name = tree.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let image = match runtime {
            Runtime::Apptainer => ready.files.display().to_string(),
            _ => format!("localhost/pv/image:{}", ready.name()),
        };
        let elsewhere = Self {
            runtime,
            image,
            name: format!("pv-{place}-{tree_name}"),
            user: ready.user,
            tree: tree.to_owned(),
            room: room.to_owned(),
        };
        if runtime != Runtime::Apptainer {
            elsewhere.import(ready, step, stop)?;
        }
        Ok(elsewhere)
    }

    /// Lets the runtime know the image, unless it does.
    fn import(&self, ready: &Ready, step: &str, stop: &Stop) -> Result<(), RunError> {
        let program = self.program();
        let inspect = words_of(&[program, "image", "inspect", "--format", "{{.Id}}", &self.image]);
        let (known, _) = self.ask(&Command::Direct(inspect), step, stop)?;
        if known {
            return Ok(());
        }
        // Owners are the runtime's own: who may write what is decided by the user that the step runs as.
        // An archive may end early where it looks like its end, so the image gets its name only when all of it was written.
        let script = "set -e
            { tar -C \"$files\" --numeric-owner --owner=0 --group=0 -cf - . && : >\"$whole\"; } | \
                \"$runtime\" import - \"$name-$place\" >/dev/null
            if [ -e \"$whole\" ]; then \"$runtime\" tag \"$name-$place\" \"$name\"; end=0
            else echo 'not all of its files could be read'; end=1; fi
            \"$runtime\" rmi \"$name-$place\" >/dev/null
            exit $end";
        let whole = self.room.with_extension("image-is-whole");
        let script = format!(
            "files={} whole={} runtime={program} name={} place={}\n{script}",
            quoted(&ready.files.display().to_string()),
            quoted(&whole.display().to_string()),
            self.image,
            self.name
        );
        let asked = self.ask(&Command::Shell(script), step, stop);
        drop(disk::remove_tree(&whole));
        match asked? {
            (true, _) => Ok(()),
            _ if stop.is_requested() => Ok(()),
            (false, said) => Err(refusal(step, format!("`{program}` does not take the image: {said}"))),
        }
    }

    /// Runs a command of the runtime; returns whether it went well, and what it said last.
    fn ask(&self, command: &Command, step: &str, stop: &Stop) -> Result<(bool, String), RunError> {
        match execute(command, &self.tree, &self.room.with_extension("runtime-log"), stop) {
            Ok((end, said)) => Ok((end == End::Exited(0), said)),
            Err(exec::ExecError::NotFound { program }) => {
                Err(refusal(step, format!("its runtime, the program `{program}`, is not found")))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes all ready to run a step with these variables, up to the one command that starts it.
    ///
    /// A container is made and does not run yet. It is gone when what is returned is dropped, and also if this process is
    /// killed before. Costs two calls of the runtime, and one more when it is dropped.
    ///
    /// # Errors
    ///
    /// [`RunError::NoRuntime`] with what the runtime said if it makes no container.
    pub(super) fn begin(
        &self,
        step: &Step,
        given: &BTreeMap<String, OsString>,
        gpus: &[String],
        stop: &Stop,
    ) -> Result<Begun<'_>, RunError> {
        let mut words = match self.runtime {
            Runtime::Apptainer => self.apptainer(step, gpus),
            _ => self.container(step, gpus),
        };
        for (name, value) in given {
            words.extend(["--env".to_owned(), format!("{name}={}", value.to_string_lossy())]);
        }
        let (program, arguments): (&str, Vec<String>) = match &step.run {
            Run::Shell(line) => ("/bin/sh", vec!["-c".to_owned(), line.clone()]),
            Run::Program(words) => (words.first().map_or("", String::as_str), words.iter().skip(1).cloned().collect()),
        };
        if self.runtime == Runtime::Apptainer {
            words.extend([self.image.clone(), program.to_owned()]);
            words.extend(arguments);
            return Ok(Begun { command: Command::Direct(words), variables: variables(), container: None });
        }
        words.extend(["--entrypoint".to_owned(), program.to_owned(), self.image.clone()]);
        words.extend(arguments);
        let container = Container::guarded(self, &step.name)?;
        // If the run is to stop, the step is not started anyway.
        if let (false, said) = self.ask(&Command::Direct(words), &step.name, stop)?
            && !stop.is_requested()
        {
            return Err(refusal(&step.name, format!("`{}` makes no container: {said}", self.program())));
        }
        let start = words_of(&[self.program(), "start", "--attach", &self.name]);
        Ok(Begun { command: Command::Direct(start), variables: variables(), container: Some(container) })
    }

    fn container(&self, step: &Step, gpus: &[String]) -> Vec<String> {
        let bind = |from: &Path, to: &str| format!("{}:{to}", from.display());
        let mut all = words_of(&[self.program(), "create", "--name", &self.name, "--hostname", "localhost"]);
        // What is not in its storage now is not ours. When it has to go it has had its time.
        all.extend(words_of(&["--pull", "never", "--stop-timeout", "0"]));
        all.extend(words_of(&["--volume", &bind(&self.room, PLACE), "--volume", &bind(&self.tree, WORKPLACE)]));
        all.extend(["--workdir".to_owned(), workdir(step)]);
        // What it would talk to could not be told.
        if !step.network {
            all.extend(words_of(&["--network", "none"]));
        }
        let (user, group) = self.user;
        let own = rustix::process::geteuid();
        if self.runtime == Runtime::Podman && !own.is_root() {
            all.extend(["--userns".to_owned(), format!("keep-id:uid={user},gid={group}")]);
        }
        // A daemon has no users of its own for each container: the files would be another's.
        let (user, group) = match self.runtime {
            Runtime::Docker => (own.as_raw(), rustix::process::getegid().as_raw()),
            _ if own.is_root() => (0, 0),
            _ => (user, group),
        };
        all.extend(["--user".to_owned(), format!("{user}:{group}")]);
        match self.runtime {
            _ if gpus.is_empty() => {}
            Runtime::Docker => all.extend(["--gpus".to_owned(), format!("\"device={}\"", gpus.join(","))]),
            _ => all.extend(gpus.iter().flat_map(|gpu| ["--device".to_owned(), format!("nvidia.com/gpu={gpu}")])),
        }
        all
    }

    fn apptainer(&self, step: &Step, gpus: &[String]) -> Vec<String> {
        let bind = format!("{}:{PLACE},{}:{WORKPLACE}", self.room.display(), self.tree.display());
        let mut all =
            words_of(&[self.program(), "exec", "--containall", "--cleanenv", "--no-home", "--writable-tmpfs"]);
        all.extend(words_of(&["--bind", &bind, "--pwd", &workdir(step)]));
        if !step.network {
            all.extend(words_of(&["--net", "--network", "none"]));
        }
        if !gpus.is_empty() {
            all.push("--nv".to_owned());
        }
        all
    }

    fn program(&self) -> &'static str {
        match self.runtime {
            Runtime::Podman | Runtime::Pv => PODMAN,
            Runtime::Docker => DOCKER,
            Runtime::Apptainer => "apptainer",
        }
    }
}

/// A step that is ready to be started.
#[derive(Debug)]
pub(super) struct Begun<'a> {
    /// What starts it, and ends when it does.
    pub(super) command: Command,
    /// The variables of the runtime itself.
    pub(super) variables: BTreeMap<String, OsString>,
    container: Option<Container<'a>>,
}

impl Begun<'_> {
    /// Returns how the runtime failed, if it was not the step that ended with this `code`. `log` is what was printed.
    ///
    /// The runtimes use 125, 126 and 127, and 1, for failures of their own, which are as good for a step. So the code decides
    /// nothing: what counts is whether the container has ever run, and how that ended. Costs one question if there is a doubt.
    pub(super) fn failure(&self, code: i32, log: &Path) -> Option<String> {
        let container = self.container.as_ref().filter(|_| code != 0)?;
        let Container { elsewhere, step, .. } = container;
        let program = elsewhere.program();
        let inspect = words_of(&[program, "container", "inspect", "--format", STATE, &elsewhere.name]);
        let (is_known, state) = elsewhere.ask(&Command::Direct(inspect), step, &Stop::new()).ok()?;
        match state.rsplit_once('|').filter(|_| is_known) {
            Some((started, _)) if started.starts_with(NEVER) => {
                Some(format!("`{program}` could not start it: {}", last_line(log)))
            }
            Some((_, own)) if own.parse() == Ok(code) => None,
            _ => Some(format!("`{program}` lost it: {}", last_line(log))),
        }
    }
}

/// A container that is to be gone when this is dropped, and as well if this process is killed before.
#[derive(Debug)]
struct Container<'a> {
    elsewhere: &'a Elsewhere,
    step: String,
    /// Names the container and its runtime for whoever finds the place of a run that died together with its guard.
    note: PathBuf,
    guard_is_needless: Stop,
    guard: Option<JoinHandle<()>>,
}

impl<'a> Container<'a> {
    /// Returns the container of a step before it is made.
    ///
    /// The guard is a process that outlives this one. It waits for the lock on the place of the run, which the kernel gives
    /// it only when this process is dead.
    fn guarded(elsewhere: &'a Elsewhere, step: &str) -> Result<Self, RunError> {
        let place = disk::parent(&elsewhere.tree);
        let note = place.join(&elsewhere.name).with_extension(NOTE);
        disk::write_whole(&note, elsewhere.program().as_bytes(), Durability::Deferred)?;
        let mut words = words_of(&["flock", "--shared", &place.join(LOCK).display().to_string()]);
        words.extend(removal(elsewhere.program(), &elsewhere.name));
        let (directory, log) = (place.to_owned(), elsewhere.room.with_extension("guard-log"));
        let guard_is_needless = Stop::new();
        let stop = guard_is_needless.clone();
        let guard = std::thread::spawn(move || {
            // Without it, the next run removes what is left.
            drop(execute(&Command::Direct(words), &directory, &log, &stop));
        });
        Ok(Self { elsewhere, step: step.to_owned(), note, guard_is_needless, guard: Some(guard) })
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let remove = Command::Direct(removal(self.elsewhere.program(), &self.elsewhere.name));
        // Also if the run is to stop. That there is nothing to remove may be an error to it.
        drop(self.elsewhere.ask(&remove, &self.step, &Stop::new()));
        self.guard_is_needless.request_urgently();
        drop(self.guard.take().map(JoinHandle::join));
        drop(disk::remove_tree(&self.note));
    }
}

/// Removes the containers of a run that died in this place, if its guards died with it. What cannot be removed now is left.
pub(super) fn remove_left(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let note = entry.path();
        let name = note.file_stem().and_then(OsStr::to_str).filter(|_| note.extension() == Some(OsStr::new(NOTE)));
        let program = disk::read_if_there(&note).ok().flatten().and_then(|bytes| String::from_utf8(bytes).ok());
        let program = program.filter(|program| [PODMAN, DOCKER].contains(&program.as_str()));
        if let (Some(name), Some(program)) = (name, program) {
            let command = Command::Direct(removal(&program, name));
            drop(execute(&command, place, &note.with_extension("runtime-log"), &Stop::new()));
        }
    }
}

fn removal(program: &str, name: &str) -> Vec<String> {
    words_of(&[program, "rm", "--force", name])
}

/// Runs a command of a runtime, with its variables; returns how it ended, and what it said last.
fn execute(command: &Command, directory: &Path, log: &Path, stop: &Stop) -> Result<(End, String), exec::ExecError> {
    let mut said = String::new();
    let variables = variables();
    let job = Job {
        command,
        directory,
        environment: &variables,
        time_limit: None,
        memory: None,
        log,
        world: None,
        observe: false,
        permission: None,
        pins: None,
    };
    let mut on_line = |line: &[u8]| said = shortened(&String::from_utf8_lossy(line));
    let outcome = exec::run(&job, &mut on_line, stop);
    drop(disk::remove_tree(log));
    Ok((outcome?.end, said))
}

fn shortened(line: &str) -> String {
    line.chars().take(SAID_CHARS).collect()
}

/// Returns the last line of a log that says something.
fn last_line(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    shortened(text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing"))
}

/// Returns where the command of a step starts, as it sees it.
fn workdir(step: &Step) -> String {
    let directory =
        step.workdir.as_ref().map_or_else(|| PathBuf::from(WORKPLACE), |path| path.under(Path::new(WORKPLACE)));
    directory.display().to_string()
}

fn variables() -> BTreeMap<String, OsString> {
    PASSED.into_iter().filter_map(|name| Some((name.to_owned(), host::variable_os(name)?))).collect()
}

fn words_of(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Returns a text as one word of the shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn refusal(step: &str, why: String) -> RunError {
    RunError::NoRuntime { step: step.to_owned(), why }
}
