//! Steps in an image that another program runs: Podman, Docker or Apptainer.
//!
//! They get a copy of the project at the same path as everywhere, and the same variables, user and files of the image. What
//! they do in there nobody sees from here, so nothing is claimed of it: their results are known by all that they may
//! depend on. The image is taken from the store, whatever the runtime's own storage has or a registry would give.
//!
//! Sources: podman-run(1), podman-import(1), the references of `docker run` and `docker import`, and Apptainer's
//! user guide on `apptainer exec`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::RunError;
use super::image::Ready;
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
    /// [`RunError::NoEnvironment`] with what the runtime said if it is not there or cannot take the image.
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
        let inspect = words(&[program, "image", "inspect", "--format", "{{.Id}}", &self.image]);
        let (known, _) = self.ask(&Command::Direct(inspect), step, stop)?;
        if known {
            return Ok(());
        }
        // Owners are the runtime's own: who may write what is decided by the user that the step runs as.
        let script = "set -e; tar -C \"$PV_IMAGE_FILES\" --numeric-owner --owner=0 --group=0 -cf - . | \
                      \"$PV_IMAGE_RUNTIME\" import - \"$PV_IMAGE_NAME\" > /dev/null";
        let script = format!(
            "PV_IMAGE_FILES={} PV_IMAGE_RUNTIME={program} PV_IMAGE_NAME={}; {script}",
            quoted(&ready.files.display().to_string()),
            self.image
        );
        match self.ask(&Command::Shell(script), step, stop)? {
            (true, _) => Ok(()),
            (false, said) => Err(refusal(step, format!("`{program}` does not take the image: {said}"))),
        }
    }

    /// Runs a command of the runtime; returns whether it went well, and what it said last.
    fn ask(&self, command: &Command, step: &str, stop: &Stop) -> Result<(bool, String), RunError> {
        let log = self.room.with_extension("runtime-log");
        let mut said = String::new();
        let variables = variables();
        let job = Job {
            command,
            directory: &self.tree,
            environment: &variables,
            time_limit: None,
            memory: None,
            log: &log,
            world: None,
            observe: false,
            permission: None,
            pins: None,
        };
        let outcome =
            exec::run(&job, &mut |line| said = String::from_utf8_lossy(line).chars().take(SAID_CHARS).collect(), stop);
        let _ = fs::remove_file(&log);
        match outcome {
            Ok(outcome) => Ok((outcome.end == End::Exited(0), said)),
            Err(exec::ExecError::NotFound { program }) => {
                Err(refusal(step, format!("its runtime, the program `{program}`, is not found")))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the command that runs a step with these variables, and the variables that the runtime itself is given.
    pub(super) fn command(
        &self,
        step: &Step,
        given: &BTreeMap<String, OsString>,
        gpus: &[String],
    ) -> (Command, BTreeMap<String, OsString>) {
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
        } else {
            words.extend(["--entrypoint".to_owned(), program.to_owned(), self.image.clone()]);
        }
        words.extend(arguments);
        (Command::Direct(words), variables())
    }

    fn container(&self, step: &Step, gpus: &[String]) -> Vec<String> {
        let bind = |from: &Path, to: &str| format!("{}:{to}", from.display());
        let mut all = words(&[self.program(), "run", "--rm", "--name", &self.name, "--hostname", "localhost"]);
        all.extend(words(&["--volume", &bind(&self.room, PLACE), "--volume", &bind(&self.tree, WORKPLACE)]));
        all.extend(["--workdir".to_owned(), workdir(step)]);
        // What it would talk to could not be told.
        if !step.network {
            all.extend(words(&["--network", "none"]));
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
        let mut all = words(&[self.program(), "exec", "--containall", "--cleanenv", "--no-home", "--writable-tmpfs"]);
        all.extend(words(&["--bind", &bind, "--pwd", &workdir(step)]));
        if !step.network {
            all.extend(words(&["--net", "--network", "none"]));
        }
        if !gpus.is_empty() {
            all.push("--nv".to_owned());
        }
        all
    }

    /// Ends what may be left of a step that was ended from here: only the runtime knows its processes.
    pub(super) fn end(&self, step: &str) {
        if self.runtime != Runtime::Apptainer {
            let remove = words(&[self.program(), "rm", "--force", &self.name]);
            // There is nothing left, mostly, which is an error to it.
            let _ = self.ask(&Command::Direct(remove), step, &Stop::new());
        }
    }

    fn program(&self) -> &'static str {
        match self.runtime {
            Runtime::Podman | Runtime::Pv => "podman",
            Runtime::Docker => "docker",
            Runtime::Apptainer => "apptainer",
        }
    }
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

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Returns a text as one word of the shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn refusal(step: &str, why: String) -> RunError {
    RunError::NoEnvironment { step: step.to_owned(), why }
}
