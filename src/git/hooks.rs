//! Hook scripts in the repository: put there beside what is there already, and taken out again.
//!
//! A hook that exists is renamed and called first, with the same arguments and
//! input; if it fails, so does ours. Taking ours out puts it back under its name.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::disk::{self, DiskError, Durability};
use crate::path::ProjectPath;

/// The hooks that are installed, in the order in which Git calls them.
pub const HOOKS: [&str; 7] =
    ["pre-commit", "prepare-commit-msg", "post-commit", "post-rewrite", "post-checkout", "post-merge", "pre-push"];
/// Those that Git gives something on standard input.
const WITH_INPUT: [&str; 2] = ["post-rewrite", "pre-push"];
const PRE_PUSH: &str = "pre-push";
/// What the script of a strict hook says.
const STRICT: &str = "--strict ";

const MARK: &str = "# Installed by pv";
const BEFORE: &str = ".before-pv";

/// What is there under a hook's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HookState {
    /// Nothing.
    Absent,
    /// A hook that is not ours.
    Other,
    /// Ours.
    Installed,
    /// Ours, and it calls the one that was there before.
    Chained,
}

/// Returns what is there under each hook's name.
///
/// # Errors
///
/// [`DiskError`] if a hook cannot be read.
pub fn states(directory: &Path) -> Result<Vec<(&'static str, HookState)>, DiskError> {
    HOOKS.iter().map(|name| Ok((*name, state(directory, name)?))).collect()
}

/// Returns whether a push waits for what belongs to it.
///
/// # Errors
///
/// [`DiskError`] if the hook cannot be read.
pub fn is_strict(directory: &Path) -> Result<bool, DiskError> {
    let content = disk::read_if_there(&directory.join(PRE_PUSH))?.unwrap_or_default();
    let content = String::from_utf8_lossy(&content);
    Ok(content.contains(MARK) && content.contains(STRICT))
}

/// Installs every hook in `directory`, which is made if it is missing. Installing again renews our part only.
///
/// `program` is what the hooks call, `project` the project's place in the working tree. If `is_strict`, a push does
/// not go ahead without what belongs to it.
///
/// # Errors
///
/// [`DiskError`] if a hook cannot be moved or written; nothing is changed if another took the place
/// of ours while the one before ours is still kept.
pub fn install(
    directory: &Path,
    program: &Path,
    project: Option<&ProjectPath>,
    is_strict: bool,
) -> Result<(), DiskError> {
    // Before anything is changed: a hook that was kept once must not be lost to another that came since.
    for name in HOOKS {
        let before = before(directory, name);
        if state(directory, name)? == HookState::Other && disk::look(&before)?.is_some() {
            let exists = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
            return Err(DiskError::on("keep the hook that is there as", &before)(exists));
        }
    }
    for name in HOOKS {
        let path = directory.join(name);
        if state(directory, name)? == HookState::Other {
            let before = before(directory, name);
            fs::rename(&path, &before).map_err(DiskError::on("rename", &path))?;
        }
        disk::write_whole(&path, script(name, program, project, is_strict).as_bytes(), Durability::Synced)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .map_err(DiskError::on("set the mode of", &path))?;
    }
    Ok(())
}

/// Takes our hooks out of `directory` and puts back what was there before. Hooks that are not ours stay.
///
/// # Errors
///
/// [`DiskError`] if a hook cannot be removed or moved.
pub fn uninstall(directory: &Path) -> Result<(), DiskError> {
    for name in HOOKS {
        let path = directory.join(name);
        match state(directory, name)? {
            HookState::Installed => disk::remove_tree(&path)?,
            HookState::Chained => {
                let before = before(directory, name);
                fs::rename(&before, &path).map_err(DiskError::on("rename", &before))?;
            }
            HookState::Absent | HookState::Other => {}
        }
    }
    Ok(())
}

fn before(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}{BEFORE}"))
}

fn state(directory: &Path, name: &str) -> Result<HookState, DiskError> {
    let path = directory.join(name);
    if disk::look(&path)?.is_none() {
        return Ok(HookState::Absent);
    }
    // A link to nowhere is somebody's hook all the same.
    let content = disk::read_if_there(&path)?.unwrap_or_default();
    if !String::from_utf8_lossy(&content).contains(MARK) {
        return Ok(HookState::Other);
    }
    let chained = disk::look(&before(directory, name))?.is_some();
    Ok(if chained { HookState::Chained } else { HookState::Installed })
}

/// The script is plain `sh`, so that a branch without a pipeline costs no process.
fn script(name: &str, program: &Path, project: Option<&ProjectPath>, is_strict: bool) -> String {
    let program = quote(program.as_os_str().as_encoded_bytes());
    let project = project.map_or_else(|| ".".to_owned(), |path| quote(path.as_bytes()));
    // Two readers want what Git gives on standard input: commits or refs, or nothing.
    let (keep, give) =
        if WITH_INPUT.contains(&name) { ("input=$(cat)\n", "printf '%s' \"${input:+$input\n}\" | ") } else { ("", "") };
    let strict = if is_strict && name == PRE_PUSH { STRICT } else { "" };
    format!(
        "#!/bin/sh\n\
         {MARK}; `pv hooks uninstall` puts back what was here before.\n\
         {keep}before=\"$(dirname \"$0\")/{name}{BEFORE}\"\n\
         if [ -x \"$before\" ]; then {give}\"$before\" \"$@\" || exit $?; fi\n\
         project={project}\n\
         [ -d \"$project/.pipeline\" ] || exit 0\n\
         pv={program}\n\
         if [ ! -x \"$pv\" ]; then\n\
         \x20   echo \"pv: $pv is gone; run 'pv hooks install' again\" >&2\n\
         \x20   exit 0\n\
         fi\n\
         {give}\"$pv\" -C \"$project\" hooks run {strict}{name} -- \"$@\"\n"
    )
}

/// Returns `bytes` as one word of a shell. Bytes that are no text cannot be written in a script and are left out.
fn quote(bytes: &[u8]) -> String {
    format!("'{}'", String::from_utf8_lossy(bytes).replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_is_called_first_and_comes_back_untouched() {
        let root = tempfile::tempdir().unwrap();
        let hooks = root.path().join("hooks");
        let theirs = "#!/bin/sh\necho theirs\n";
        disk::write_whole(&hooks.join("pre-commit"), theirs.as_bytes(), Durability::Deferred).unwrap();
        fs::set_permissions(hooks.join("pre-commit"), fs::Permissions::from_mode(0o700)).unwrap();
        let program = Path::new("/opt/it's/pv");
        install(&hooks, program, None, false).unwrap();
        install(&hooks, program, None, false).unwrap();
        assert_eq!(state(&hooks, "pre-commit").unwrap(), HookState::Chained);
        assert_eq!(state(&hooks, "post-commit").unwrap(), HookState::Installed);
        uninstall(&hooks).unwrap();
        uninstall(&hooks).unwrap();
        assert_eq!(fs::read_to_string(hooks.join("pre-commit")).unwrap(), theirs);
        assert_eq!(fs::metadata(hooks.join("pre-commit")).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&hooks).unwrap().count(), 1);
    }
}
