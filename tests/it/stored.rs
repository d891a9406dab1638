//! Projects whose data the store alone keeps, and ways to look at what is kept, later and after damage.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::sandbox::Sandbox;

/// A year after what the sandbox takes for now.
pub(crate) const LATER: &str = "2027-03-01T00:00:00Z";

const PIPELINE: &str = "\
data: [data]
steps:
  count:
    run: cat data/x > out.txt
    inputs: [data]
    outputs: [out.txt]
";

/// Returns a project with ignored `data` and a step that reads it, nothing of it committed and no data there yet.
pub(crate) fn project() -> Sandbox {
    project_with(PIPELINE, "/out.txt\n")
}

/// Returns a project with this definition that ignores `data` and what else is told, nothing of it committed.
pub(crate) fn project_with(definition: &str, ignored: &str) -> Sandbox {
    let project = Sandbox::new();
    project.write(".pipeline/pipeline.yaml", definition);
    project.write(".gitignore", format!("/data/\n{ignored}"));
    project
}

/// Takes a snapshot of what is in a directory and returns its id.
pub(crate) fn snapshot_in(project: &Sandbox, directory: &Path, arguments: &[&str]) -> String {
    let (answer, code) = project.json_in(directory, &[&["snapshot"], arguments].concat());
    assert_eq!(code, 0, "{answer}");
    answer["snapshot"].as_str().unwrap().to_owned()
}

/// Returns a `pv` command in a directory, a year later.
pub(crate) fn later_in(project: &Sandbox, directory: &Path, arguments: &[&str]) -> Command {
    let mut command = project.pv_command_in(directory, arguments);
    command.env("PV_NOW", LATER);
    command
}

/// Returns all files below a directory, sorted; none if it is not there.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    files.sort();
    files
}

/// Returns the packs of a project's own store, sorted.
pub(crate) fn packs(project: &Sandbox) -> Vec<PathBuf> {
    files(&project.path(".git/pv/packs"))
}

/// Lets a file have other bytes, which no writer of `pv` could; its name stays. Returns its bytes from before.
pub(crate) fn damage(path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let before = fs::read(path).unwrap();
    let mut bytes = before.clone();
    change(&mut bytes);
    // Packs may not be written, but anew.
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
    before
}
