//! What a path outside the project is to a step: a part of its environment, or an input that nobody declared.
//!
//! A decision from the text of the path alone; no file is looked at.

use std::path::{Path, PathBuf};

/// What a path outside the project is to a step that touches it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    /// It decides nothing that is not known from elsewhere: locale, devices, the files of an interpreter.
    Noise,
    /// A program, which decides by its bytes.
    Program,
    /// A shared library, which decides by its bytes.
    Library,
    /// A part of a Python package, which decides by the version of its distribution.
    Package {
        /// The `site-packages` directory that it lies in.
        site: PathBuf,
    },
    /// Anything else: data, settings, models.
    Input,
}

/// Directories of the system of which nothing decides a result that is not known from elsewhere.
const NOISE: [&str; 8] = ["/proc", "/sys", "/dev", "/run", "/etc", "/usr/share", "/usr/lib/locale", "/var/cache"];

/// Returns what the absolute `path`, which lies outside the project, is.
pub fn classify(path: &Path) -> Class {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_site = |above: &&Path| {
        let name = above.file_name().unwrap_or_default();
        name == "site-packages" || name == "dist-packages"
    };
    if let Some(site) = path.ancestors().filter(is_site).last() {
        return Class::Package { site: site.to_owned() };
    }
    let above = |wanted: &dyn Fn(&str) -> bool| {
        path.ancestors().skip(1).any(|above| above.file_name().is_some_and(|name| wanted(&name.to_string_lossy())))
    };
    if NOISE.iter().any(|noise| path.starts_with(noise)) || path.components().count() <= 2 {
        Class::Noise
    } else if name.contains(".so.") || name.ends_with(".so") {
        Class::Library
    } else if above(&|name| name.starts_with("python3")) || above(&|name| name == "__pycache__") {
        Class::Noise
    } else if path.parent().and_then(Path::file_name).is_some_and(|name| name == "bin" || name == "sbin") {
        Class::Program
    } else if ["/usr/lib", "/lib", "/usr/local/lib"].iter().any(|library| path.starts_with(library))
        || name == "pyvenv.cfg"
    {
        Class::Noise
    } else {
        Class::Input
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_is_told_from_data() {
        let class = |path: &str| classify(Path::new(path));
        assert_eq!(class("/usr/bin/sort"), Class::Program);
        assert_eq!(class("/usr/lib/x86_64-linux-gnu/libc.so.6"), Class::Library);
        assert_eq!(class("/usr/lib/python3.11/os.py"), Class::Noise);
        assert_eq!(class("/etc/passwd"), Class::Noise);
        assert_eq!(class("/home/ada/x.csv"), Class::Input);
        let site = PathBuf::from("/v/lib/python3.11/site-packages");
        assert_eq!(class("/v/lib/python3.11/site-packages/numpy/core.so"), Class::Package { site });
    }
}
