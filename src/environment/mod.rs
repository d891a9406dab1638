//! What a step runs in: the host, made as equal as a plain process allows, a Python that a lock asks for, or the files of an image.
//!
//! Three things are told apart. What a step is *given*: a clean set of
//! variables ([`variables`]). What of the machine *decides* its result: the
//! programs that its command names, with the packages of a Python among them
//! ([`Tools`]); that goes into the step key. And what merely *explains* a
//! difference: system, kernel, processors ([`machine_facts`]); that goes into the record of a run.

mod classify;
pub mod image;
mod installed;
mod machine;
mod pins;
mod python;
mod rules;
mod tools;
mod user;

use std::collections::BTreeMap;
use std::path::Path;

use crate::host;

pub use classify::{Class, classify};
pub use installed::{InstalledError, Package, installed};
pub use machine::{is_only_a_way, machine_facts};
pub use pins::{PinsError, read_pins, remove_pin, write_pin};
pub use python::{
    Held, Loaded, LockError, Locked, Made, Making, Packages, PythonError, ToLock, Unneeded, Wanted, hold,
    made as pythons_made, reclaim as reclaim_pythons, remove as remove_python,
};
pub use rules::{Origin, Rule, Rules};
pub use tools::{BUILD, ENVIRONMENT, Foresight, Toolboxes, Tools, VENV};
pub use user::user_of;

/// Variables of the user's environment that steps get, where they are set.
pub const PASSED: [&str; 10] = [
    "PATH",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "CONDA_DEFAULT_ENV",
    "PYENV_VERSION",
    "LD_LIBRARY_PATH",
    "CUDA_HOME",
    "CUDA_VISIBLE_DEVICES",
    "SSL_CERT_FILE",
    "NIX_PATH",
];

/// Passed variables whose value itself decides, so that it is part of the step
/// key. The others only lead to programs, and those are looked at directly.
const DECIDING: [&str; 2] = ["LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"];

/// Variables that every step gets with these values, unless its `env` says otherwise.
///
/// One thread for the numeric libraries: with more, sums are made in an order
/// that differs between machines.
pub const FIXED: [(&str, &str); 10] = [
    ("TZ", "UTC"),
    ("LC_ALL", "C.UTF-8"),
    ("LANG", "C.UTF-8"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
    ("PYTHONUNBUFFERED", "1"),
    ("OMP_NUM_THREADS", "1"),
    ("OPENBLAS_NUM_THREADS", "1"),
    ("MKL_NUM_THREADS", "1"),
    ("NUMEXPR_NUM_THREADS", "1"),
    ("GIT_CEILING_DIRECTORIES", "/"),
];

/// Variables that every step with a seed gets besides, unless its `env` says otherwise: they let frameworks repeat on GPUs.
pub const SEEDED: [(&str, &str); 3] =
    [("CUBLAS_WORKSPACE_CONFIG", ":4096:8"), ("TF_DETERMINISTIC_OPS", "1"), ("TF_CUDNN_DETERMINISTIC", "1")];

/// The variable that carries options to XLA, the compiler below JAX and TensorFlow.
pub const XLA_FLAGS: &str = "XLA_FLAGS";
const XLA_DETERMINISTIC: &str = "--xla_gpu_deterministic_ops=true";

const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// What container runtimes take where an image says nothing.
const IMAGE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Returns the variables that a step is given before its own `env`: the passed
/// ones as they are here, the fixed ones, and `HOME` and `TMPDIR` of its own.
pub fn variables(home: &Path, temporary: &Path) -> BTreeMap<String, String> {
    let mut variables: BTreeMap<String, String> =
        FIXED.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    for name in PASSED {
        if let Some(value) = host::variable(name) {
            variables.insert(name.to_owned(), value);
        }
    }
    variables.entry("PATH".to_owned()).or_insert_with(|| DEFAULT_PATH.to_owned());
    variables.insert("HOME".to_owned(), home.display().to_string());
    variables.insert("TMPDIR".to_owned(), temporary.display().to_string());
    variables
}

/// Sets the variables so that they lead to the Python environment at `venv`, and to no other.
pub fn lead_into(venv: &Path, variables: &mut BTreeMap<String, String>) {
    for name in ["CONDA_PREFIX", "CONDA_DEFAULT_ENV", "PYENV_VERSION"] {
        variables.remove(name);
    }
    let path = variables.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    variables.insert("PATH".to_owned(), format!("{}:{path}", venv.join("bin").display()));
    variables.insert("VIRTUAL_ENV".to_owned(), venv.display().to_string());
}

/// Returns the [`XLA_FLAGS`] of a step with a seed: what its `env` says, and that operations repeat, if it says nothing of that.
pub fn seeded_xla_flags(given: Option<&str>) -> String {
    match given.map(str::trim).filter(|given| !given.is_empty()) {
        None => XLA_DETERMINISTIC.to_owned(),
        Some(given) if given.contains("deterministic_ops") => given.to_owned(),
        Some(given) => format!("{given} {XLA_DETERMINISTIC}"),
    }
}

/// Returns the variables that a step in an image is given before its own `env`: those of the image, the fixed ones, and
/// `HOME` and `TMPDIR` of its own. Of this machine it gets none.
pub fn image_variables(image: &BTreeMap<String, String>, home: &Path, temporary: &Path) -> BTreeMap<String, String> {
    let mut variables = image.clone();
    variables.entry("PATH".to_owned()).or_insert_with(|| IMAGE_PATH.to_owned());
    variables.extend(FIXED.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    variables.insert("HOME".to_owned(), home.display().to_string());
    variables.insert("TMPDIR".to_owned(), temporary.display().to_string());
    variables
}

/// Returns the name of the file at `path` if it is a library of linear algebra, by which results may differ in their last digits.
pub fn blas(path: &Path) -> Option<&str> {
    const NAMES: [&str; 9] =
        ["openblas", "libmkl_", "libblis", "libcblas", "libblas", "liblapack", "libatlas", "libcublas", "libarmpl"];
    let name = path.file_name()?.to_str()?;
    let is_library =
        name.contains(".so.") || path.extension().is_some_and(|ending| ending == "so" || ending == "dylib");
    (is_library && NAMES.iter().any(|known| name.contains(known))).then_some(name)
}

/// Returns the search path that steps get.
pub fn search_path() -> String {
    host::variable("PATH").unwrap_or_else(|| DEFAULT_PATH.to_owned())
}

/// Returns the passed variables that decide, as `variable <name>`, with their values.
pub fn deciding_variables() -> BTreeMap<String, String> {
    DECIDING.iter().filter_map(|name| Some((format!("variable {name}"), host::variable(name)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_step_tells_the_compiler_is_added_to_and_never_contradicted() {
        assert_eq!(seeded_xla_flags(None), "--xla_gpu_deterministic_ops=true");
        assert_eq!(seeded_xla_flags(Some(" ")), "--xla_gpu_deterministic_ops=true");
        assert_eq!(seeded_xla_flags(Some("--xla_a=1")), "--xla_a=1 --xla_gpu_deterministic_ops=true");
        for own in ["--xla_gpu_deterministic_ops=false", "--xla_gpu_exclude_nondeterministic_ops=true"] {
            assert_eq!(seeded_xla_flags(Some(own)), own);
        }
    }
}
