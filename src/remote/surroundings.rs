//! What the way to a remote depends on beside its address: variables, the home directory, and how long to wait.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::host;

/// A file of settings is not longer than this.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// Where credentials are looked for, and how much patience there is.
pub struct Surroundings<'a> {
    /// Returns an environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// The directory of the user, below which services keep their files.
    pub home: Option<PathBuf>,
    /// How long to wait.
    pub patience: Patience,
}

/// How long to wait for another machine, and how often to ask it again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// A connection has to be there after this time.
    pub connect: Duration,
    /// So long no byte may go either way before a connection counts as lost.
    pub stall: Duration,
    /// How often the same is tried in all.
    pub tries: u32,
    /// After this time nothing is tried again.
    pub retry: Duration,
    /// How long to wait at most before the next try, whatever the other side asks for.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            tries: 5,
            retry: Duration::from_secs(60),
            pause: Duration::from_secs(20),
        }
    }
}

impl Surroundings<'_> {
    /// Returns those of this process, and the usual patience.
    pub fn of_this_process() -> Self {
        Self {
            variable: &host::variable,
            home: host::variable_os("HOME").map(PathBuf::from),
            patience: Patience::default(),
        }
    }

    /// Returns the first of these variables that says something.
    pub(super) fn first(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| (self.variable)(name).filter(|value| !value.is_empty()))
    }

    /// Returns the path in a variable, else the one below the home directory.
    pub(super) fn file(&self, variable: &str, below_home: &str) -> Option<PathBuf> {
        let named = self.first(&[variable]).map(PathBuf::from);
        named.or_else(|| Some(self.home.as_ref()?.join(below_home)))
    }
}

/// Returns the text of a file of settings; `None` if it cannot be read or is no text.
pub(super) fn read_text(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(FILE_MAX_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}
