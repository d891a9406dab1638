//! Starting a job: finding its program and giving it exactly its world.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, PipeReader};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::Scope;

use rustix::fs::Access;
use rustix::process::Pid;

use super::family::{Family, First, Identity};
use super::members::Members;
use super::observer::Observer;
use super::obstacle::{Obstacle, Stopped};
#[cfg(target_os = "linux")]
use super::pins::Pins;
use super::terminal::Terminal;
use super::world::{PLACE, World};
use super::{Command, ExecError, Job};

/// The shell that every system with a POSIX shell has at this place.
pub(super) const SHELL: &str = "/bin/sh";
/// The mask of file modes of a job that has no other.
#[cfg(target_os = "linux")]
const UMASK: u32 = 0o022;

/// Makes a world once and executes nothing in it.
///
/// # Errors
///
/// [`ExecError::World`] if it cannot be made.
pub(super) fn try_world(world: &World) -> Result<(), ExecError> {
    // No system has a program without a name.
    let nothing = Command::Direct(vec!["/".to_owned()]);
    let environment = BTreeMap::new();
    let job = Job {
        command: &nothing,
        directory: Path::new(PLACE),
        environment: &environment,
        time_limit: None,
        memory: None,
        log: Path::new(""),
        world: Some(world),
        observe: false,
        permission: None,
        pins: None,
    };
    std::thread::scope(|scope| match start(&job, scope)?.members.end() {
        Ok(_) => Ok(()),
        Err(error) => Err(ExecError::World(Obstacle::new(Stopped::Elsewhere, &error))),
    })
}

/// Returns what it means that the program could not be executed.
pub(super) fn not_executed(job: &Job<'_>, source: io::Error) -> ExecError {
    let program = job.command.program().to_owned();
    match source.kind() {
        io::ErrorKind::NotFound if job.world.is_some() => ExecError::NotFound { program },
        io::ErrorKind::PermissionDenied if job.world.is_some() => ExecError::NotExecutable { program },
        _ => ExecError::Start { program, source },
    }
}

/// A job that runs.
pub(super) struct Running<'scope> {
    pub(super) members: Members,
    /// What it prints.
    pub(super) printed: PipeReader,
    pub(super) observer: Observer<'scope>,
}

/// Starts `job`, observed by threads of `scope`: they end with it.
///
/// # Errors
///
/// [`ExecError`] if it cannot be started; then nothing of it runs.
pub(super) fn start<'scope>(job: &Job<'scope>, scope: &'scope Scope<'scope, '_>) -> Result<Running<'scope>, ExecError> {
    let program = job.command.program();
    let failed = |source| ExecError::Start { program: program.to_owned(), source };
    let (directory, path) = places(job)?;
    // One pipe for both, so that the order of arrival is the order of writing.
    let (printed, writer) = io::pipe().map_err(failed)?;
    let input = std::fs::File::open("/dev/null").map_err(failed)?.into();
    let streams = Streams { input, output: writer.into(), attended: None };
    let (members, observer) = processes(job, &directory, path, &printed, streams, scope)?;
    Ok(Running { members, printed, observer })
}

/// Starts `job` with the streams of this process, before the user, who sits at `terminal`. Nothing is observed.
///
/// # Errors
///
/// [`ExecError`] if it cannot be started; then nothing of it runs.
pub(super) fn start_attended<'scope>(
    job: &Job<'scope>,
    terminal: &Terminal,
    scope: &'scope Scope<'scope, '_>,
) -> Result<Members, ExecError> {
    let failed = |source| ExecError::Start { program: job.command.program().to_owned(), source };
    let (directory, path) = places(job)?;
    let own = |stream: io::Result<OwnedFd>| -> Result<OwnedFd, ExecError> {
        // One that is closed is as good as an empty one.
        let nothing = || std::fs::File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
        stream.or_else(|_| nothing()).map_err(failed)
    };
    let streams = Streams {
        input: own(io::stdin().as_fd().try_clone_to_owned())?,
        output: own(io::stdout().as_fd().try_clone_to_owned())?,
        attended: Some((own(io::stderr().as_fd().try_clone_to_owned())?, terminal)),
    };
    // Nobody writes to it, so nobody is known by it.
    let (unused, _) = io::pipe().map_err(failed)?;
    Ok(processes(job, &directory, path, &unused, streams, scope)?.0)
}

/// What a job reads from and prints to.
struct Streams<'t> {
    input: OwnedFd,
    output: OwnedFd,
    /// Where it prints errors if that is elsewhere, and the terminal that it gets.
    attended: Option<(OwnedFd, &'t Terminal)>,
}

/// Returns the directory and the program as the job's processes see them.
fn places(job: &Job<'_>) -> Result<(PathBuf, PathBuf), ExecError> {
    let program = job.command.program();
    let search_path = job.environment.get("PATH").map(OsString::as_os_str);
    if job.world.is_some() {
        // Only inside is it known what lies there; what is wrong shows when it is executed.
        let directory = job.directory.to_owned();
        let path = match job.world.and_then(|world| Some(world.base.join(&world.image.as_ref()?.files))) {
            _ if program.contains('/') => directory.join(program),
            Some(image) => locate_in(&image, program, search_path)?,
            None => locate(program, &directory, search_path, job.world)?,
        };
        return Ok((directory, path));
    }
    if !job.directory.is_dir() {
        return Err(ExecError::NoDirectory { path: job.directory.to_owned() });
    }
    let directory = std::path::absolute(job.directory)
        .map_err(|source| ExecError::Start { program: program.to_owned(), source })?;
    let path = locate(program, &directory, search_path, None)?;
    Ok((directory, path))
}

#[cfg(target_os = "linux")]
fn processes<'scope>(
    job: &Job<'scope>,
    directory: &Path,
    path: PathBuf,
    printed: &PipeReader,
    streams: Streams<'_>,
    scope: &'scope Scope<'scope, '_>,
) -> Result<(Members, Observer<'scope>), ExecError> {
    use super::filter::Reports;
    use super::mounts;
    use super::network::Network;
    use super::spawn::{self, Order, Stage};

    let program = job.command.program();
    let pins = job.pins;
    let failed = |source| ExecError::Start { program: program.to_owned(), source };
    let text = |value: &OsStr| mounts::text(value).map_err(failed);
    let world = match job.world {
        None => None,
        Some(wanted) => {
            let failed = |error| ExecError::World(Obstacle::new(Stopped::Elsewhere, &error));
            let tops = if wanted.image.is_some() { Vec::new() } else { mounts::tops().map_err(failed)? };
            let ops = mounts::plan(wanted, &tops, job.pins).map_err(failed)?;
            Some((ops, wanted.offline))
        }
    };
    let is_isolated = world.is_some();
    let pair = |(name, value): (&String, &OsString)| {
        let mut pair = OsString::from(name);
        pair.push("=");
        pair.push(value);
        text(&pair)
    };
    let words = std::iter::once(program).chain(arguments(job.command));
    let (attended, terminal) = streams.attended.unzip();
    let order = Order {
        world,
        user: pins
            .and_then(|pins| pins.user)
            .or_else(|| job.world.and_then(|world| world.image.as_ref()).map(|image| image.user)),
        directory: text(directory.as_os_str())?,
        program: text(path.as_os_str())?,
        arguments: words.map(|word| text(OsStr::new(word))).collect::<Result<_, _>>()?,
        environment: job.environment.iter().map(pair).collect::<Result<_, _>>()?,
        input: streams.input,
        output: streams.output,
        attended,
        reports: Reports {
            deeds: job.observe,
            entropy: job.observe && pins.is_some_and(|pins| pins.entropy.is_some()),
            time: job.observe && pins.is_some_and(Pins::tells_time),
            processors: job.observe && pins.is_some_and(|pins| pins.processors.is_some()),
            network: job.observe && pins.is_some_and(|pins| pins.network != Network::Real),
            code: job.observe
                && pins.is_some_and(|pins| pins.processor_entropy.is_some())
                && cfg!(target_arch = "x86_64"),
        },
        traps_cycles: job.observe && pins.is_some_and(|pins| pins.cycles && pins.timer.is_some()),
        umask: pins.and_then(|pins| pins.umask).unwrap_or(UMASK),
        fixed_layout: pins.is_some_and(|pins| pins.fixed_layout),
    };
    let identity = Identity::new(job.environment, printed);
    let refused = |(stage, source): (Stage, io::Error)| match stage {
        Stage::Process | Stage::Users if is_isolated => ExecError::World(Obstacle::new(Stopped::Namespaces, &source)),
        Stage::World if is_isolated => ExecError::World(Obstacle::new(Stopped::Mounts, &source)),
        Stage::Overlay if is_isolated => ExecError::World(Obstacle::new(Stopped::Overlay, &source)),
        Stage::Directory => ExecError::NoDirectory { path: job.directory.to_owned() },
        _ => ExecError::Start { program: program.to_owned(), source },
    };
    let mut begun = None;
    let members = if is_isolated {
        begun = Some(spawn::start(order).map_err(refused)?);
        None
    } else {
        let mut refusal = None;
        let family = Family::start(identity, || {
            let started = spawn::start(order).map_err(|failure| {
                refusal = Some(failure);
                io::Error::from(io::ErrorKind::Other)
            })?;
            let first = First(Pid::from_raw(started.pid).expect("a process has a number"));
            begun = Some(started);
            Ok(first)
        });
        match (family, refusal) {
            (Ok(family), _) => Some(family),
            (Err(_), Some(failure)) => return Err(refused(failure)),
            (Err(error), None) => return Err(failed(error)),
        }
    };
    let mut started = begun.expect("both ways start it");
    if let Some(limit) = job.memory {
        // The command has not begun yet. A bound that cannot be kept says so itself.
        drop(limit.add(started.command));
    }
    let (command, listener) = (started.command, std::mem::replace(&mut started.listener, Err(0)));
    // From here on they are ended if something goes wrong.
    let mut members = Members::new(members, started);
    let observer = Observer::new(job, command, listener, scope)?;
    if let Some(terminal) = terminal {
        // Before it begins, or it could ask for the terminal too early.
        terminal.give(command);
    }
    members.go();
    Ok((members, observer))
}

#[cfg(not(target_os = "linux"))]
fn processes<'scope>(
    job: &Job<'scope>,
    directory: &Path,
    path: PathBuf,
    printed: &PipeReader,
    streams: Streams<'_>,
    _scope: &'scope Scope<'scope, '_>,
) -> Result<(Members, Observer<'scope>), ExecError> {
    use std::os::unix::process::CommandExt;

    let program = job.command.program();
    let failed = |source| ExecError::Start { program: program.to_owned(), source };
    if job.world.is_some() {
        return Err(ExecError::World(Obstacle::new(Stopped::Namespaces, &io::ErrorKind::Unsupported.into())));
    }
    if job.pins.is_some() {
        return Err(ExecError::NotPinned(super::Unpinned::InTheOpen));
    }
    #[expect(clippy::disallowed_methods, reason = "the one place that starts the commands of users")]
    let mut command = std::process::Command::new(path);
    command
        .arg0(program)
        .args(arguments(job.command))
        .current_dir(directory)
        .env_clear()
        .envs(job.environment)
        .stdin(streams.input);
    let errors = match streams.attended {
        // It stays in our group, and has the terminal as we have it.
        Some((errors, _)) => errors,
        None => {
            command.process_group(0);
            streams.output.try_clone().map_err(failed)?
        }
    };
    command.stdout(streams.output).stderr(errors);
    let identity = Identity::new(job.environment, printed);
    let spawn = || Ok(First(Pid::from_child(&with_mask(&mut command)?)));
    // `command` holds our ends of the pipe; it goes here, so that the pipe ends with the job.
    Ok((Members::new(Family::start(identity, spawn).map_err(failed)?), Observer::nobody()))
}

/// Spawns with the job's umask; a mask belongs to the whole process, so callers take turns.
///
/// For this moment files that other threads make get that mask too. What must
/// be private does not depend on it: temporary files are made private.
#[cfg(not(target_os = "linux"))]
fn with_mask(command: &mut std::process::Command) -> io::Result<std::process::Child> {
    // Known from here on, whoever asks while it is another.
    crate::disk::umask();
    let own = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let child = command.spawn();
    rustix::process::umask(own);
    child
}

fn arguments(command: &Command) -> Vec<&str> {
    match command {
        Command::Shell(text) => vec!["-c", text],
        Command::Direct(words) => words.iter().skip(1).map(String::as_str).collect(),
    }
}

/// Returns the file that `program` stands for, as the system itself would find it.
///
/// What lies in the place of a `world` is looked at where that is made of.
fn locate(
    program: &str,
    directory: &Path,
    search_path: Option<&OsStr>,
    world: Option<&World>,
) -> Result<PathBuf, ExecError> {
    if program.is_empty() {
        return Err(ExecError::Empty);
    }
    let mut exists = false;
    for candidate in candidates(program, directory, search_path) {
        let inside = world.and_then(|world| Some((world, candidate.strip_prefix(PLACE).ok()?)));
        let here = inside.map_or_else(|| candidate.clone(), |(world, rest)| world.base.join(&world.room).join(rest));
        if !here.is_file() {
            // A directory of this name is there, but on a search path it is passed over.
            exists |= program.contains('/') && here.exists();
        } else if rustix::fs::access(&here, Access::EXEC_OK).is_ok() {
            return Ok(candidate);
        } else {
            exists = true;
        }
    }
    let program = program.to_owned();
    Err(if exists { ExecError::NotExecutable { program } } else { ExecError::NotFound { program } })
}

/// Returns the file that `program` stands for in an image, as it is found from inside.
#[cfg(target_os = "linux")]
fn locate_in(image: &Path, program: &str, search_path: Option<&OsStr>) -> Result<PathBuf, ExecError> {
    use super::view::{Lies, View};

    if program.is_empty() {
        return Err(ExecError::Empty);
    }
    let view = View::below(image);
    let mut exists = false;
    for candidate in candidates(program, Path::new("/"), search_path) {
        match view.lies(candidate.as_os_str().as_encoded_bytes(), true) {
            Lies::File { .. } if view.may_execute(&candidate) => return Ok(candidate),
            Lies::File { .. } => exists = true,
            _ => {}
        }
    }
    let program = program.to_owned();
    Err(if exists { ExecError::NotExecutable { program } } else { ExecError::NotFound { program } })
}

#[cfg(not(target_os = "linux"))]
fn locate_in(_: &Path, program: &str, _: Option<&OsStr>) -> Result<PathBuf, ExecError> {
    Err(ExecError::NotFound { program: program.to_owned() })
}

/// Returns where `program` may lie, in the order of the search.
fn candidates(program: &str, directory: &Path, search_path: Option<&OsStr>) -> Vec<PathBuf> {
    if program.contains('/') {
        return vec![directory.join(program)];
    }
    // An empty part of the path means the directory itself, as joining gives it.
    let parts = search_path.into_iter().flat_map(std::env::split_paths);
    parts.map(|part| directory.join(part).join(program)).collect()
}
