//! The rules that tell the environment of a step from its inputs.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::classify::Class;
use crate::host;
use crate::path::Pattern;

/// The home directory of an isolated step, as it sees it.
const HOME: &str = "/pv/home";
/// The directory of an isolated step for temporary files, as it sees it.
const TEMPORARY: &str = "/pv/tmp";
/// What an isolated step finds there is given to its Python by us.
const PYTHON: &str = "/pv/python";

/// One rule: what a path is that its pattern covers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Which paths.
    pub pattern: Pattern,
    /// What they are; the site of a package is empty here.
    pub class: Class,
    /// Why, in a few words.
    pub why: String,
    /// Who says so.
    pub origin: Origin,
}

/// Who made a rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// It is part of this program.
    BuiltIn,
    /// It stands in this file.
    File(String),
}

/// The rules of a project.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    homes: Vec<PathBuf>,
    private: Vec<PathBuf>,
    own: Vec<Rule>,
}

impl Rules {
    /// Returns the built-in rules, with `~` for any of `homes`.
    pub fn new(homes: Vec<PathBuf>) -> Self {
        Self { homes, ..Self::default() }
    }

    /// Returns the built-in rules, with `~` for the home directory of this user and for that of an isolated step.
    pub fn of_this_user() -> Self {
        let homes = host::variable("HOME").map(PathBuf::from).into_iter().chain([PathBuf::from(HOME)]);
        Self::new(homes.collect()).with_private([HOME, TEMPORARY, PYTHON].map(PathBuf::from).to_vec())
    }

    /// Adds directories that a step has for itself, empty when it starts: its home, its temporary files.
    #[must_use]
    pub fn with_private(mut self, directories: Vec<PathBuf>) -> Self {
        self.private.extend(directories);
        self
    }

    /// Adds what the user says in `file`: what belongs to the environment, and what is input.
    #[must_use]
    pub fn with_own(mut self, environment: &[Pattern], inputs: &[Pattern], file: &str) -> Self {
        let rule = |pattern: &Pattern, class, why: &str| Rule {
            pattern: pattern.clone(),
            class,
            why: why.to_owned(),
            origin: Origin::File(file.to_owned()),
        };
        self.own.extend(environment.iter().map(|pattern| rule(pattern, Class::Noise, "put into the environment")));
        self.own.extend(inputs.iter().map(|pattern| rule(pattern, Class::Input, "made an input")));
        self
    }

    /// Returns all rules in the order in which they count: the user's by exactness, then the built-in ones.
    pub fn all(&self) -> Vec<&Rule> {
        let mut own: Vec<&Rule> = self.own.iter().collect();
        own.sort_by_key(|rule| std::cmp::Reverse((rule.pattern.exactness(), rule.class == Class::Input)));
        own.into_iter().chain(built_in()).collect()
    }

    /// Returns the first of the directories that `~` stands for; a place where nothing is if there is none.
    pub fn home(&self) -> &Path {
        self.homes.first().map_or(Path::new("/nonexistent"), PathBuf::as_path)
    }

    pub(super) fn own(&self) -> &[Rule] {
        &self.own
    }

    pub(super) fn homes(&self) -> &[PathBuf] {
        &self.homes
    }

    pub(super) fn private(&self) -> &[PathBuf] {
        &self.private
    }
}

/// The built-in rules: what a path is, why, and the patterns. Of the rules that cover a path the first one counts.
static BUILT_IN: [(Kind, &str, &[&str]); 20] = [
    (Kind::Noise, "the kernel's own files", &["/proc", "/sys", "/dev", "/run", "/var/run"]),
    (Kind::Noise, "git's own files", &["**/.git"]),
    (Kind::Noise, "byte code of what is known by its source", &["**/_distutils_hack/__pycache__"]),
    (
        Kind::Library,
        "read by Python whenever it starts",
        &[
            "**/site-packages/*.pth",
            "**/dist-packages/*.pth",
            "**/site-packages/__editable__*",
            "**/site-packages/_distutils_hack",
            "**/dist-packages/_distutils_hack",
        ],
    ),
    (Kind::Package, "installed Python packages", &["**/site-packages", "**/dist-packages"]),
    (
        Kind::Library,
        "installed packages of other languages",
        &[
            "**/R/library",
            "**/R/site-library",
            "**/R/*-library",
            "/usr/lib/node_modules",
            "/usr/local/lib/node_modules",
            "/var/lib/gems",
            "~/.julia/packages",
        ],
    ),
    (
        Kind::Noise,
        "the interpreter's own modules, known by the interpreter",
        &["**/lib/python3*", "**/lib/python2*", "**/lib64/python3*", "**/lib/pypy3*", "**/pyvenv.cfg"],
    ),
    (Kind::Noise, "byte code of what is known by its source", &["**/__pycache__", "**/*.pyc"]),
    (
        Kind::Noise,
        "locale, terminal, time zone, character sets",
        &[
            "/usr/lib/locale",
            "/lib/terminfo",
            "/usr/lib/terminfo",
            "/etc/terminfo",
            "/usr/lib/*/gconv",
            "/usr/lib64/gconv",
            "/etc/locale.alias",
            "/etc/locale.conf",
            "/etc/localtime",
            "/etc/timezone",
        ],
    ),
    (
        Kind::Noise,
        "certificates and fonts",
        &[
            "/etc/ssl",
            "/etc/pki",
            "/etc/ca-certificates",
            "/etc/ca-certificates.conf",
            "/etc/crypto-policies",
            "/usr/lib/ssl",
            "/usr/local/ssl",
            "**/ssl/cert.pem",
            "**/ssl/openssl.cnf",
            "/etc/fonts",
            "/var/cache/fontconfig",
        ],
    ),
    (
        Kind::Noise,
        "shared by all programs",
        &["/usr/share", "/usr/local/share", "**/share/locale", "/usr/X11*", "/var/lib/dbus", "/var/cache/ldconfig"],
    ),
    (Kind::Noise, "where libraries are looked for", &["/etc/ld.so.*", "**/glibc-hwcaps", "/etc/OpenCL", "/etc/vulkan"]),
    (
        Kind::Noise,
        "users, hosts and settings of the system",
        &[
            "/etc/passwd",
            "/etc/group",
            "/etc/shadow",
            "/etc/subuid",
            "/etc/subgid",
            "/etc/nsswitch.conf",
            "/etc/hosts",
            "/etc/host.conf",
            "/etc/hostname",
            "/etc/resolv.conf",
            "/etc/gai.conf",
            "/etc/services",
            "/etc/protocols",
            "/etc/networks",
            "/etc/machine-id",
            "/etc/os-release",
            "/usr/lib/os-release",
            "/etc/debian_version",
            "/etc/redhat-release",
            "/etc/lsb-release",
            "/etc/login.defs",
            "/etc/environment",
            "/etc/profile",
            "/etc/profile.d",
            "/etc/bash.bashrc",
            "/etc/bashrc",
            "/etc/inputrc",
            "/etc/shells",
            "/etc/magic",
            "/etc/mime.types",
            "/etc/mailcap",
            "/etc/papersize",
            "/etc/alternatives",
            "/etc/gitconfig",
            "/etc/gitattributes",
            "**/pip.conf",
            "/etc/perl",
            "/etc/gnutls",
            "/usr/etc",
            "/usr/local/etc",
            "/etc/python3*",
            "/etc/R",
            "/etc/selinux",
            "/etc/security",
            "/etc/pam.d",
            "/etc/xdg",
            "/etc/X11",
            "/etc/nvidia-container-runtime",
        ],
    ),
    (
        Kind::Noise,
        "caches that tools keep",
        &[
            "~/.cache/pip",
            "~/.cache/uv",
            "~/.cache/conda",
            "~/.cache/matplotlib",
            "~/.cache/fontconfig",
            "~/.cache/huggingface",
            "~/.cache/mesa_shader_cache",
            "~/.cache/numba",
            "~/.matplotlib",
            "~/.conda",
            "~/.mamba",
            "~/.nv",
            "~/.triton",
            "**/conda-meta",
        ],
    ),
    (
        Kind::Noise,
        "settings that tools look for as a matter of course",
        &[
            "~/.config/git",
            "~/.config/matplotlib",
            "~/.config/pip",
            "~/.config/fontconfig",
            "~/.config/uv",
            "~/.config/dask",
            "~/.config/python",
            "~/.gitconfig",
            "~/.condarc",
            "~/.pip",
            "~/.bashrc",
            "~/.bash_login",
            "~/.bash_profile",
            "~/.curlrc",
            "~/.config/curlrc",
            "~/.wgetrc",
            "~/.netrc",
            "~/.ssh",
            "~/.npmrc",
            "~/.sqliterc",
            "~/.hgrc",
            "~/.fontconfig",
            "~/.fonts.conf.d",
            "~/.local/share/fonts",
            "**/.python-version",
            "~/.profile",
            "~/.zshenv",
            "~/.zshrc",
            "~/.inputrc",
            "~/.terminfo",
            "~/.fonts",
            "~/.fonts.conf",
            "~/.pythonrc",
            "~/.python_history",
            "~/.pydistutils.cfg",
            "~/.ipython",
            "~/.jupyter",
        ],
    ),
    (
        Kind::Program,
        "directories of programs",
        &[
            "/bin",
            "/sbin",
            "/usr/bin",
            "/usr/sbin",
            "/usr/local/bin",
            "/usr/local/sbin",
            "/snap/bin",
            "/pv/venv/bin",
            "**/.pyenv/shims",
        ],
    ),
    (Kind::Library, "shared libraries", &["**/*.so", "**/*.so.*", "**/*.dylib"]),
    (
        Kind::Library,
        "what programs and compilers are made of",
        &[
            "/lib",
            "/lib32",
            "/lib64",
            "/usr/lib",
            "/usr/lib32",
            "/usr/lib64",
            "/usr/libexec",
            "/usr/local/lib",
            "/usr/local/lib64",
            "/usr/local/libexec",
            "/usr/include",
            "/usr/local/include",
            "/usr/gnu",
            "/usr/*-linux-*",
            "/nix/store",
            "**/.pyenv/libexec",
        ],
    ),
    (Kind::Program, "directories of programs", &["**/bin/*"]),
    (Kind::Noise, "choosing an interpreter, which is known itself", &["**/.pyenv", "**/pyenv.d"]),
];

/// A [`Class`] without what is known only of a path.
#[derive(Clone, Copy)]
enum Kind {
    Noise,
    Program,
    Library,
    Package,
}

impl Kind {
    fn class(self) -> Class {
        match self {
            Self::Noise => Class::Noise,
            Self::Program => Class::Program,
            Self::Library => Class::Library,
            Self::Package => Class::Package { site: PathBuf::new() },
        }
    }
}

/// Returns the built-in rules in the order in which they count.
pub(super) fn built_in() -> &'static [Rule] {
    static RULES: OnceLock<Vec<Rule>> = OnceLock::new();
    RULES.get_or_init(|| {
        let rule = |kind: Kind, why: &str, pattern: &str| Rule {
            pattern: Pattern::new(pattern).expect("the built-in patterns are good, which a test checks"),
            class: kind.class(),
            why: why.to_owned(),
            origin: Origin::BuiltIn,
        };
        let rules = BUILT_IN.iter().flat_map(|(kind, why, patterns)| patterns.iter().map(move |p| rule(*kind, why, p)));
        rules.collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_built_in_rule_can_be_read_and_stands_there_once() {
        let patterns: BTreeSet<String> = built_in().iter().map(|rule| rule.pattern.to_string()).collect();
        assert_eq!(patterns.len(), built_in().len());
    }
}
