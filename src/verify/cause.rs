//! Why a result does not repeat: causes and what to do about them.

use std::fmt;

use serde::{Serialize, Serializer};

/// Why a result does not repeat.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cause {
    /// The seed of Python's hashes, by which sets are ordered.
    HashSeed,
    /// Random bytes of the system.
    Entropy,
    /// The time of day, or the date.
    Clock,
    /// How long something took.
    Timer,
    /// `TZ`.
    Timezone,
    /// `LC_ALL` and `LANG`.
    Locale,
    /// The name of the machine.
    Hostname,
    /// Who the user is.
    Username,
    /// Where the home directory is.
    Home,
    /// The number of a process.
    Pid,
    /// The mask of file modes.
    Umask,
    /// How many processors there are.
    CpuCount,
    /// With how many threads numeric libraries work.
    ThreadCount,
    /// At which addresses programs lie.
    Aslr,
    /// The addresses of objects, which follow from much else besides where programs lie.
    MemoryAddress,
    /// The order in which directories are listed.
    DirOrder,
    /// The directory that the project is in.
    CwdPath,
    /// The directory for temporary files.
    TmpPath,
    /// When files were changed last.
    InputMtime,
    /// Which thread or process is first.
    Schedule,
    /// What comes over the network, or that nothing comes.
    Network,
    /// A variable of the environment.
    Env(String),
    /// A file that it reads, or looks for, and does not declare.
    UndeclaredFile(String),
    /// What an earlier execution left behind.
    PreviousState,
    /// Random bits of the processor itself.
    HardwareEntropy,
    /// Nobody knows.
    Undetermined,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HashSeed => "hash-seed",
            Self::Entropy => "entropy",
            Self::Clock => "clock",
            Self::Timer => "timer",
            Self::Timezone => "timezone",
            Self::Locale => "locale",
            Self::Hostname => "hostname",
            Self::Username => "username",
            Self::Home => "home",
            Self::Pid => "pid",
            Self::Umask => "umask",
            Self::CpuCount => "cpu-count",
            Self::ThreadCount => "thread-count",
            Self::Aslr => "aslr",
            Self::MemoryAddress => "memory-address",
            Self::DirOrder => "dir-order",
            Self::CwdPath => "cwd-path",
            Self::TmpPath => "tmp-path",
            Self::InputMtime => "input-mtime",
            Self::Schedule => "schedule",
            Self::Network => "network",
            Self::Env(name) => return write!(f, "env:{name}"),
            Self::UndeclaredFile(path) => return write!(f, "undeclared-file:{path}"),
            Self::PreviousState => "previous-state",
            Self::HardwareEntropy => "hardware-entropy",
            Self::Undetermined => "undetermined",
        })
    }
}

impl Serialize for Cause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Cause {
    /// Returns what a person can do so that the result repeats.
    pub fn fix(&self) -> String {
        match self {
            Self::HashSeed => "sort what comes out of sets before it is written; `seed: 42` in the definition fixes the hash seed with all other seeds".into(),
            Self::Entropy => "pass a seed to what is random (`PV_SEED` is the step's), or add `seed: 42` and `determinism: pinned` to the step".into(),
            Self::Clock => "leave the date out of the output, or pass it in as a param".into(),
            Self::Timer => "leave durations out of the output; what they are for belongs into the log or a metric".into(),
            Self::Timezone => "use UTC in the code, or add `env: {TZ: UTC}` to the step".into(),
            Self::Locale => "set the locale in the code, or add `env: {LC_ALL: C.UTF-8}` to the step".into(),
            Self::Hostname => "leave the machine's name out of the output".into(),
            Self::Username => "leave the user's name and number out of the output".into(),
            Self::Home => "do not write the home directory into the output, and declare what is read there".into(),
            Self::Pid => "leave process numbers out of the output; a file name wants `mktemp` or the step's name".into(),
            Self::Umask => "set the modes of files in the code (`chmod`)".into(),
            Self::CpuCount => "do not divide the work by the number of processors: fix it (`n_jobs=1`, a constant number of parts), or make the result independent of the parts".into(),
            Self::ThreadCount => "fix the number of threads: `env: {OMP_NUM_THREADS: \"1\", OPENBLAS_NUM_THREADS: \"1\"}` in the step".into(),
            Self::Aslr | Self::MemoryAddress => "do not write or sort by addresses (`id()`, the default `repr` of objects, pointers)".into(),
            Self::DirOrder => "sort the listing: `sorted(os.listdir(...))`, `ls | sort`, `find ... | sort`".into(),
            Self::CwdPath => "write paths relative to the project into the output".into(),
            Self::TmpPath => "leave the names of temporary files out of the output".into(),
            Self::InputMtime => "do not use the modification times of inputs; sort by name or content".into(),
            Self::Schedule => "collect results in a fixed order (join in order, `pool.map` in place of `imap_unordered`), or use one worker (`n_jobs=1`)".into(),
            Self::Network => "download once in a step of its own, keep the file as data, and read that".into(),
            Self::Env(name) => format!("declare the variable: `env: {{{name}: ...}}` in the step, or read a param"),
            Self::UndeclaredFile(path) if path.starts_with('/') => format!("copy `{path}` into the project and declare it in `inputs`"),
            Self::UndeclaredFile(path) => format!("declare the file: `inputs: [{path}]` in the step"),
            Self::PreviousState => "write outputs anew (`>` in place of `>>`, no cache beside them); steps of `pv` begin with none of them".into(),
            Self::HardwareEntropy => "seed the generator; `std::random_device` and the like ask the processor, which nothing can pin".into(),
            Self::Undetermined => "compare the outputs below; `--budget` lets it look longer".into(),
        }
    }
}
