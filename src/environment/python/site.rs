//! Which distribution owns a file in a `site-packages` directory, and what a distribution would use if it were there.
//!
//! Source: the specification "Recording installed projects" (`RECORD`, `METADATA`), PEP 503 (names), PEP 508
//! (requirements), and setuptools' documentation of `.egg-info` and `top_level.txt`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// What is known of directories of packages; each is looked at once.
#[derive(Default)]
pub struct Packages {
    sites: Mutex<BTreeMap<PathBuf, Arc<Site>>>,
}

/// What files of a directory of packages belong to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Loaded {
    /// Name → version of the distributions that own some of them.
    pub distributions: BTreeMap<String, String>,
    /// Files that no distribution owns: their bytes decide. Byte code stands for its source.
    pub unowned: BTreeSet<PathBuf>,
}

impl Packages {
    /// Returns which distributions own `files`, which lie in the directory `site`, and which files nobody owns.
    ///
    /// Directories, and files that are not there, belong to whom the files below them belong to, or to nobody.
    /// Costs, the first time for a site, one read of what its distributions say that they installed.
    pub fn loaded(&self, site: &Path, files: &BTreeSet<PathBuf>) -> Loaded {
        let known = self.site(site);
        let mut loaded = Loaded::default();
        for file in files {
            let Some(relative) = file.strip_prefix(site).ok().and_then(Path::to_str).filter(|text| !text.is_empty())
            else {
                continue;
            };
            match known.owner(relative) {
                Some(owner) => {
                    let found = &known.distributions[owner];
                    loaded.distributions.insert(found.name.clone(), found.version.clone());
                }
                None => loaded.unowned.extend(unowned(site, relative)),
            }
        }
        loaded
    }

    /// Returns the distributions that `distribution` would use if they were there, and that are not, in order.
    ///
    /// Taken from the requirements of its extras; those for its developers (tests, documentation, and the like) and
    /// for other platforms are left out. Costs one read of its metadata.
    pub fn optional(&self, site: &Path, distribution: &str) -> BTreeSet<String> {
        let known = self.site(site);
        let wanted = normal(distribution);
        let Some(found) = known.distributions.iter().find(|found| found.name == wanted) else { return BTreeSet::new() };
        let is_there = |name: &String| known.distributions.iter().any(|other| other.name == *name);
        found.metadata().lines().filter_map(required).filter(|name| *name != wanted && !is_there(name)).collect()
    }

    /// Returns name → version of everything that is installed in `site`.
    pub fn installed(&self, site: &Path) -> BTreeMap<String, String> {
        let of = |found: &Distribution| (found.name.clone(), found.version.clone());
        self.site(site).distributions.iter().map(of).collect()
    }

    fn site(&self, path: &Path) -> Arc<Site> {
        let mut sites = self.sites.lock().expect("no holder panics");
        Arc::clone(sites.entry(path.to_owned()).or_insert_with(|| Arc::new(Site::read(path))))
    }
}

/// A distribution, as its metadata tells it.
struct Distribution {
    name: String,
    version: String,
    /// The directory, or the one file, of its metadata.
    place: PathBuf,
}

impl Distribution {
    fn metadata(&self) -> String {
        let in_it = ["METADATA", "PKG-INFO"].iter().find_map(|name| fs::read_to_string(self.place.join(name)).ok());
        in_it.or_else(|| fs::read_to_string(&self.place).ok()).unwrap_or_default()
    }
}

/// The distributions of one directory, and whose the names in it are.
struct Site {
    distributions: Vec<Distribution>,
    /// The names directly in the directory.
    top: BTreeMap<String, Owner>,
    /// The paths below the names that several distributions share.
    shared: BTreeMap<String, usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    One(usize),
    Several,
}

impl Site {
    fn read(path: &Path) -> Self {
        let mut distributions = distributions_in(path);
        distributions.sort_by(|a, b| (&a.name, &a.place).cmp(&(&b.name, &b.place)));
        let records: Vec<String> = distributions
            .iter()
            .map(|found| fs::read_to_string(found.place.join("RECORD")).unwrap_or_default())
            .collect();
        let mut top: BTreeMap<String, Owner> = BTreeMap::new();
        let mut own = |name: &str, index: usize| {
            let owner = top.entry(name.to_owned()).or_insert(Owner::One(index));
            if *owner != Owner::One(index) {
                *owner = Owner::Several;
            }
        };
        for (index, (found, record)) in distributions.iter().zip(&records).enumerate() {
            if let Some(name) = found.place.file_name().and_then(|name| name.to_str()) {
                own(name, index);
            }
            let mut last = "";
            for line in recorded(record) {
                let name = line.split('/').next().unwrap_or_default();
                if name != last {
                    own(name, index);
                    last = name;
                }
            }
            if record.is_empty() {
                let names = fs::read_to_string(found.place.join("top_level.txt")).unwrap_or_default();
                for name in names.lines().map(str::trim).filter(|name| !name.is_empty()) {
                    own(name, index);
                    own(&format!("{name}.py"), index);
                }
            }
        }
        let mut shared = BTreeMap::new();
        for (index, record) in records.iter().enumerate() {
            let is_shared = |line: &&str| {
                line.split('/').next().is_some_and(|name| top.get(name).is_some_and(|owner| *owner == Owner::Several))
            };
            shared.extend(recorded(record).filter(is_shared).map(|line| (line.to_owned(), index)));
        }
        Self { distributions, top, shared }
    }

    /// Returns the distribution that owns the file at `relative`, or that owns everything in the directory there.
    fn owner(&self, relative: &str) -> Option<usize> {
        let source = source_of(relative);
        let mut names = relative.split('/');
        let first = names.next()?;
        let is_directly_in_it = names.next().is_none();
        match self.top.get(first) {
            Some(Owner::One(index)) if first != "__pycache__" => Some(*index),
            _ if first == "__pycache__" && !is_directly_in_it => self.owner(source.as_deref()?),
            Some(_) => {
                let by_name = |path: &str| self.shared.get(path).copied();
                by_name(relative).or_else(|| by_name(source.as_deref()?)).or_else(|| self.of_directory(relative))
            }
            // A compiled module is listed by its full name, a top-level one only by its first part.
            None if is_directly_in_it => match self.top.get(first.split('.').next()?) {
                Some(Owner::One(index)) => Some(*index),
                _ => None,
            },
            None => None,
        }
    }

    /// Returns whose everything is that is listed below a shared directory, if it is one distribution's.
    fn of_directory(&self, relative: &str) -> Option<usize> {
        let start = format!("{relative}/");
        let mut below = self.shared.range(start.clone()..).take_while(|(path, _)| path.starts_with(&start));
        let (_, first) = below.next()?;
        below.all(|(_, other)| other == first).then_some(*first)
    }
}

/// Returns the distributions whose metadata lies directly in `site`.
fn distributions_in(site: &Path) -> Vec<Distribution> {
    let Ok(entries) = fs::read_dir(site) else { return Vec::new() };
    let read = |entry: fs::DirEntry| {
        let (name, version) = named(entry.file_name().to_str()?)?;
        Some(Distribution { name, version, place: entry.path() })
    };
    entries.flatten().filter_map(read).collect()
}

/// Returns the name and version in the name of a metadata directory: `{name}-{version}.dist-info`, or
/// `{name}-{version}[-py{version}].egg-info`.
pub(super) fn named(file_name: &str) -> Option<(String, String)> {
    let stem = match file_name.strip_suffix(".dist-info") {
        Some(stem) => stem,
        None => {
            let stem = file_name.strip_suffix(".egg-info")?;
            stem.rsplit_once("-py").map_or(stem, |(stem, _)| stem)
        }
    };
    let (name, version) = stem.rsplit_once('-')?;
    Some((normal(name), version.to_owned()))
}

/// Returns the one spelling of a distribution's name.
pub(super) fn normal(name: &str) -> String {
    let mut normal = String::with_capacity(name.len());
    for c in name.chars() {
        let c = if matches!(c, '_' | '.') { '-' } else { c.to_ascii_lowercase() };
        if c != '-' || !normal.ends_with('-') {
            normal.push(c);
        }
    }
    normal
}

/// Returns the paths in a `RECORD` that lie in the directory of packages itself.
fn recorded(record: &str) -> impl Iterator<Item = &str> {
    record.lines().filter_map(recorded_path)
}

fn recorded_path(line: &str) -> Option<&str> {
    // A path with a comma in it is quoted; none that is loaded has quotes in it.
    let path = match line.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"')?.0,
        None => line.split_once(',')?.0,
    };
    (!path.starts_with("../") && !path.starts_with('/') && !path.is_empty()).then_some(path)
}

/// Returns the source of byte code: `a/__pycache__/b.cpython-311.pyc` → `a/b.py`.
fn source_of(relative: &str) -> Option<String> {
    let (directory, name) = relative.rsplit_once('/')?;
    let above = directory.strip_suffix("__pycache__")?;
    let stem = name.strip_suffix(".pyc")?.split('.').next()?;
    Some(format!("{above}{stem}.py"))
}

fn unowned(site: &Path, relative: &str) -> Option<PathBuf> {
    let file = site.join(source_of(relative).as_deref().unwrap_or(relative));
    file.is_file().then_some(file)
}

/// Extras that only the developers of a distribution use, by the beginning of their names; `all` names them as well.
const DEVELOPERS: [&str; 13] =
    ["all", "benchmark", "build", "ci", "complete", "dev", "doc", "install", "lint", "maint", "release", "test", "typ"];

/// Returns the name in a line of metadata that requires a distribution which may decide something here.
fn required(line: &str) -> Option<String> {
    let requirement = line.strip_prefix("Requires-Dist:")?.trim();
    let (what, marker) = requirement.split_once(';').unwrap_or((requirement, ""));
    let marker = marker.replace('\'', "\"");
    let is_elsewhere = ["win32", "Windows", "\"nt\"", "darwin", "Darwin", "emscripten", "cygwin"]
        .iter()
        .any(|platform| marker.contains(platform) && !marker.contains("!="));
    let extra = marker.split_once("extra").and_then(|(_, rest)| rest.split('"').nth(1)).map(normal);
    let is_for_developers = extra.is_some_and(|extra| DEVELOPERS.iter().any(|start| extra.starts_with(start)));
    if is_elsewhere || is_for_developers {
        return None;
    }
    let name = what.trim().split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))).next()?;
    (!name.is_empty()).then(|| normal(name))
}

#[cfg(test)]
mod tests;
