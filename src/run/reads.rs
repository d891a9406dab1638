//! From what a step was seen to do to what its result depends on.
//!
//! Each path is followed through the files that the step found. What its declared inputs cover is left out, and a
//! directory of which everything was listed and read counts as one. Only names are told apart here and what
//! of them was seen; their values come from [`World`] and [`Machine`], then and at every later look.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::RunError;
use super::machine::{LIBRARY, Machine, PACKAGE};
use super::resolve::{End, resolve};
use super::world::{Found, World, child, is_directory};
use crate::environment::{self, BUILD, Class};
use crate::exec::{Observation, Touch};
use crate::host;
use crate::object::Entry;
use crate::path::{ProjectPath, escape};
use crate::record::{ABSENT, Aspect, Name, Observed};

/// Stands for the top of the project among paths.
pub(super) const TOP: &str = ".";
/// If a step reads more files of one directory than this, and all of it, the directory counts as a whole even if it was not listed.
const FILES_NAMED_MAX: usize = 1000;

/// How a step stood in the world while it was observed.
pub(super) struct Standing<'a> {
    /// Where its project was.
    pub(super) workplace: &'a Path,
    /// Directories of its own: home, temporary files.
    pub(super) private: &'a [&'a Path],
    /// What it declares to read.
    pub(super) inputs: &'a [ProjectPath],
    /// What it writes or keeps for itself.
    pub(super) own: &'a [ProjectPath],
    /// Files that count by the keys that it names.
    pub(super) params: &'a [ProjectPath],
    /// Where programs are searched for.
    pub(super) search_path: &'a str,
    /// Whether its definition vouches for the network.
    pub(super) vouched: bool,
    /// Whether it saw the files of an image in place of the machine's: then what it found there is told by the image.
    pub(super) in_image: bool,
}

/// What a step was seen to depend on.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// All that it read beside its declared inputs, and facts about the environment.
    pub(super) names: BTreeSet<Name>,
    /// All that it looked for in the project, also what needs not be recorded because something else tells it.
    pub(super) looked: BTreeSet<Name>,
    /// The rest of what is recorded.
    pub(super) observed: Observed,
}

/// Returns what a step depended on that was observed in `world`.
///
/// Costs a look-up in the trees for each path, and a look at each file outside.
///
/// # Errors
///
/// [`RunError`] if a tree cannot be read.
pub(super) fn seen(
    world: &World<'_, '_>,
    machine: &Machine<'_>,
    standing: &Standing<'_>,
    observation: &Observation,
) -> Result<Seen, RunError> {
    let mut trace = Trace::default();
    for (path, touch) in &observation.touched {
        if !standing.private.iter().any(|private| path.starts_with(private)) {
            trace.follow(world, standing, path, touch)?;
        }
    }
    let unread = trace.unread(standing);
    let looked = trace.marks.iter().map(|(path, mark)| Name::Read(mark.aspect, path.to_string())).collect();
    trace.drop_covered(standing);
    trace.collapse(world)?;
    let mut names = BTreeSet::new();
    let mut readers = BTreeMap::new();
    let top = trace.top.into_iter().map(|mark| (TOP.to_owned(), mark));
    for (path, mark) in top.chain(trace.marks.into_iter().map(|(path, mark)| (path.to_string(), mark))) {
        names.insert(Name::Read(mark.aspect, path.clone()));
        // Where something is only put nobody reads.
        if mark.aspect != Aspect::Place {
            readers.insert(path, mark.by);
        }
    }
    let mut outside = Outside {
        machine,
        standing,
        names: &mut names,
        readers: &mut readers,
        writes: &mut trace.writes,
        packages: BTreeMap::new(),
    };
    let of_machine = trace.outside.iter().filter(|_| !standing.in_image);
    // One name for each, whether it was reached by the one path or by the other.
    of_machine.for_each(|(path, touch)| outside.add(&machine.tools().told(path), touch));
    outside.add_packages();
    let blas = trace.outside.iter().filter(|(_, touch)| touch.read).filter_map(|(path, _)| environment::blas(path));
    let blas = blas.map(str::to_owned).collect();
    let observed = Observed {
        rung: observation.rung,
        isolated: observation.isolated,
        resumed: false,
        seeding: None,
        gaps: observation.gaps.clone(),
        readers,
        unread,
        writes: trace.writes,
        network: observation.peers.clone(),
        blas,
        vouched: standing.vouched,
    };
    Ok(Seen { names, looked, observed })
}

/// What was seen of one path of the project.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    aspect: Aspect,
    is_directory: bool,
    is_there: bool,
    by: String,
}

#[derive(Default)]
struct Trace {
    top: Option<Mark>,
    marks: BTreeMap<ProjectPath, Mark>,
    outside: BTreeMap<PathBuf, Touch>,
    writes: BTreeSet<String>,
}

impl Trace {
    fn follow(
        &mut self,
        world: &World<'_, '_>,
        standing: &Standing<'_>,
        path: &Path,
        touch: &Touch,
    ) -> Result<(), RunError> {
        let resolved = resolve(world, standing.workplace, path)?;
        let is_reading = touch.read || touch.listed || touch.examined || touch.executed;
        for link in resolved.links {
            self.mark(
                Some(link),
                Mark { aspect: Aspect::Content, is_directory: false, is_there: true, by: touch.by.clone() },
            );
        }
        for directory in resolved.left {
            let by = touch.by.clone();
            self.mark(Some(directory), Mark { aspect: Aspect::Status, is_directory: true, is_there: true, by });
        }
        match resolved.end {
            End::Inside { place, found, full } => {
                if touch.written
                    && let Some(full) = ProjectPath::below(standing.workplace, &full)
                    && !standing.own.iter().any(|own| own.overlaps(&full))
                {
                    // It could be made because it had a place to be in, unless that is made for the step's outputs anyway.
                    let above = full.parent().filter(|above| !standing.own.iter().any(|own| own.is_within(above)));
                    if let Some(above) = above {
                        let found = world.find(Some(&above))?;
                        self.mark(Some(above), mark_of(&found, &Touch { by: touch.by.clone(), ..Touch::default() }));
                    }
                    // Where there is a directory nothing can be put in its place; what else is there may go.
                    if place.as_ref() == Some(&full) {
                        let (by, is_directory) = (touch.by.clone(), is_directory(&found));
                        let is_there = found != Found::Absent;
                        self.mark(place.clone(), Mark { aspect: Aspect::Place, is_directory, is_there, by });
                    }
                    self.writes.insert(full.to_string());
                }
                if is_reading {
                    self.mark(place, mark_of(&found, touch));
                }
            }
            End::Above => {}
            End::Outside(path) => {
                let before = self.outside.entry(path).or_default();
                before.read |= touch.read;
                before.listed |= touch.listed;
                before.examined |= touch.examined;
                before.executed |= touch.executed;
                before.written |= touch.written;
                if before.by.is_empty() {
                    before.by.clone_from(&touch.by);
                }
            }
        }
        Ok(())
    }

    /// Notes that a path was seen; content says more than a listing, and that more than what is told without opening it.
    fn mark(&mut self, place: Option<ProjectPath>, mark: Mark) {
        let merge = |before: &mut Mark, mark: &Mark| {
            if mark.aspect < before.aspect {
                before.aspect = mark.aspect;
            }
        };
        match place {
            None => merge(self.top.get_or_insert_with(|| mark.clone()), &mark),
            Some(place) => merge(self.marks.entry(place).or_insert_with(|| mark.clone()), &mark),
        }
    }

    /// Returns the declared inputs of which nothing was seen.
    fn unread(&self, standing: &Standing<'_>) -> BTreeSet<ProjectPath> {
        let is_seen =
            |input: &&ProjectPath| self.marks.contains_key(*input) || below(&self.marks, input).next().is_some();
        standing.inputs.iter().filter(|input| !is_seen(input)).cloned().collect()
    }

    /// Drops what is known from elsewhere: from declared inputs, from the definition, from other marks.
    fn drop_covered(&mut self, standing: &Standing<'_>) {
        let is_covered = |path: &ProjectPath| {
            standing.inputs.iter().chain(standing.own).any(|known| path.is_within(known))
                || standing.params.contains(path)
        };
        self.marks.retain(|path, _| !is_covered(path));
        let is_listed = |path: Option<&ProjectPath>| match path {
            None => self.top.as_ref().is_some_and(|mark| mark.aspect == Aspect::Listing),
            Some(path) => self.marks.get(path).is_some_and(|mark| mark.aspect == Aspect::Listing),
        };
        let is_implied = |(path, mark): (&ProjectPath, &Mark)| {
            if !matches!(mark.aspect, Aspect::Status | Aspect::Place) {
                return false;
            }
            // A listing tells what is there, what is not, and which are directories.
            let is_told = mark.is_directory || !mark.is_there || mark.aspect == Aspect::Place;
            let told_by_listing = is_told && is_listed(path.parent().as_ref());
            // Where something lies, there is a directory; a declared input is something, or shows that it is not.
            let told_by_content = mark.is_directory && below(&self.marks, path).any(|(_, mark)| mark.is_there);
            told_by_listing || told_by_content
        };
        let implied: Vec<ProjectPath> =
            self.marks.iter().filter(|entry| is_implied(*entry)).map(|(path, _)| path.clone()).collect();
        for path in implied {
            self.marks.remove(&path);
        }
        // The top is always there.
        self.top = self.top.take().filter(|mark| mark.aspect != Aspect::Status);
    }

    /// Makes one of each directory of which everything was read, from the bottom up.
    fn collapse(&mut self, world: &World<'_, '_>) -> Result<(), RunError> {
        let mut counts: BTreeMap<Option<ProjectPath>, usize> = BTreeMap::new();
        for (path, mark) in &self.marks {
            if mark.aspect == Aspect::Content {
                *counts.entry(path.parent()).or_default() += 1;
            }
        }
        let many = counts.into_iter().filter(|(_, count)| *count > FILES_NAMED_MAX).map(|(path, _)| path);
        let listed =
            self.marks.iter().filter(|(_, mark)| mark.aspect == Aspect::Listing).map(|(path, _)| Some(path.clone()));
        let listed_top = self.top.iter().filter(|mark| mark.aspect == Aspect::Listing).map(|_| None);
        let mut candidates: BTreeSet<Option<ProjectPath>> = many.chain(listed).chain(listed_top).collect();
        // A directory comes after all that are in it.
        while let Some(directory) = candidates.pop_last() {
            if self.is_read_whole(world, directory.as_ref())? {
                self.make_one(directory);
            }
        }
        Ok(())
    }

    fn is_read_whole(&self, world: &World<'_, '_>, directory: Option<&ProjectPath>) -> Result<bool, RunError> {
        for (name, found) in world.children(directory)? {
            let is_submodule = matches!(found, Found::Entry(Entry::Submodule { .. }));
            let mark = self.marks.get(&child(directory, &name));
            if is_submodule || mark.is_none_or(|mark| mark.aspect != Aspect::Content) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn make_one(&mut self, directory: Option<ProjectPath>) {
        let gone: Vec<ProjectPath> = match &directory {
            None => self.marks.keys().cloned().collect(),
            Some(directory) => below(&self.marks, directory).map(|(path, _)| path.clone()).collect(),
        };
        let first = gone.first().and_then(|path| self.marks.get(path)).map(|mark| mark.by.clone());
        for path in gone {
            self.marks.remove(&path);
        }
        let whole = |by: String| Mark { aspect: Aspect::Content, is_directory: true, is_there: true, by };
        match directory {
            None => {
                let by = self.top.take().map(|mark| mark.by).or(first).unwrap_or_default();
                self.top = Some(whole(by));
            }
            Some(directory) => {
                let by = self.marks.get(&directory).map(|mark| mark.by.clone()).or(first).unwrap_or_default();
                self.marks.insert(directory, whole(by));
            }
        }
    }
}

/// Returns what is strictly below `directory`, in the order of paths.
fn below<'m>(
    marks: &'m BTreeMap<ProjectPath, Mark>,
    directory: &ProjectPath,
) -> impl Iterator<Item = (&'m ProjectPath, &'m Mark)> {
    let start = [directory.as_bytes(), b"/"].concat();
    marks
        .range::<[u8], _>((Bound::Included(start.as_slice()), Bound::Unbounded))
        .take_while(move |(path, _)| path.as_bytes().starts_with(&start))
}

fn mark_of(found: &Found, touch: &Touch) -> Mark {
    let is_directory = is_directory(found);
    let is_there = *found != Found::Absent;
    let aspect = match (is_there, is_directory) {
        (true, true) if touch.listed => Aspect::Listing,
        (true, false) if touch.read || touch.executed => Aspect::Content,
        _ => Aspect::Status,
    };
    Mark { aspect, is_directory, is_there, by: touch.by.clone() }
}

/// Sorts what was touched outside of the project.
struct Outside<'a> {
    machine: &'a Machine<'a>,
    standing: &'a Standing<'a>,
    names: &'a mut BTreeSet<Name>,
    readers: &'a mut BTreeMap<String, String>,
    writes: &'a mut BTreeSet<String>,
    /// By directory of packages: the files that were read, and the programs that read them.
    packages: BTreeMap<PathBuf, (BTreeSet<PathBuf>, BTreeSet<String>)>,
}

impl Outside<'_> {
    fn add(&mut self, path: &Path, touch: &Touch) {
        let is_opened = touch.read || touch.executed;
        match environment::classify(path, self.machine.rules()) {
            Class::Program if is_opened && self.is_there(path) => {
                let name = self.name_of(path);
                self.names.insert(Name::Fact(name));
            }
            Class::Library if is_opened && self.is_there(path) => {
                self.names.insert(Name::Fact(format!("{LIBRARY}{}", text(path))));
            }
            Class::Package { site } if touch.read => {
                let (files, programs) = self.packages.entry(site).or_default();
                files.insert(path.to_owned());
                programs.insert(touch.by.clone());
            }
            // A program, library or module that was only searched for here was found elsewhere, and counts there.
            Class::Noise | Class::Program | Class::Library | Class::Package { .. } => {}
            Class::Input => {
                if touch.written {
                    self.writes.insert(text(path));
                }
                self.add_input(path, touch, is_opened);
            }
        }
    }

    fn is_there(&self, path: &Path) -> bool {
        self.machine.value(Aspect::Status, &text(path)) != ABSENT
    }

    fn add_input(&mut self, path: &Path, touch: &Touch, is_opened: bool) {
        if !(is_opened || touch.listed || touch.examined) {
            return;
        }
        let status = |path: &Path| self.machine.value(Aspect::Status, &text(path));
        let now = status(path);
        let (path, aspect) = if now == ABSENT {
            // The highest directory that is missing tells all that is below.
            let missing = path.ancestors().take_while(|above| status(above) == ABSENT).last().unwrap_or(path);
            (missing, Aspect::Status)
        } else if now == "status directory" {
            // A directory is looked at on the way to what is in it.
            if !touch.listed {
                return;
            }
            (path, Aspect::Listing)
        } else {
            (path, if is_opened { Aspect::Content } else { Aspect::Status })
        };
        self.names.insert(Name::Read(aspect, text(path)));
        self.readers.entry(text(path)).or_insert_with(|| touch.by.clone());
    }

    /// Returns the name of a program: as it is searched for if that finds it, else its path.
    fn name_of(&self, path: &Path) -> String {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let found = host::find_program(&name, self.standing.search_path);
        let found = found.map(|found| self.machine.tools().told(&found).into_owned());
        let real = |path: &Path| std::fs::canonicalize(self.machine.tools().real(path)).ok();
        match found {
            Some(found) if found == path || real(&found).is_some_and(|found| Some(found) == real(path)) => {
                name.into_owned()
            }
            _ => text(path),
        }
    }

    fn add_packages(&mut self) {
        // Under the name by which it was started an interpreter is found again; what it runs as may lie behind a link.
        let started: Vec<String> = self.names.iter().filter_map(program_of).map(str::to_owned).collect();
        for (site, (files, programs)) in std::mem::take(&mut self.packages) {
            let programs: Vec<String> = started.iter().cloned().chain(programs).collect();
            let mut by_module: BTreeMap<Option<PathBuf>, BTreeSet<PathBuf>> = BTreeMap::new();
            for file in files {
                let module = file.strip_prefix(&site).ok().and_then(|rest| rest.iter().next()).map(PathBuf::from);
                by_module.entry(module).or_default().insert(file);
            }
            for files in by_module.into_values() {
                let tools = self.machine.tools();
                let real = |path: &PathBuf| tools.real(path).into_owned();
                let loaded = self.machine.packages().loaded(&real(&site), &files.iter().map(real).collect());
                let facts: Option<Vec<(String, String)>> = loaded
                    .distributions
                    .into_iter()
                    .map(|(distribution, version)| {
                        let fact = |program: &String| format!("{program}{PACKAGE}{distribution}");
                        let owner = programs.iter().find(|program| self.machine.fact(&fact(program)) == version)?;
                        Some((owner.clone(), distribution))
                    })
                    .collect();
                match facts.filter(|facts| !facts.is_empty()) {
                    Some(facts) => {
                        let is_cache = |file: &&PathBuf| file.extension().is_some_and(|extension| extension == "pyc");
                        let unowned = loaded
                            .unowned
                            .iter()
                            .filter(|file| !is_cache(file))
                            .map(|file| format!("{LIBRARY}{}", text(&tools.told(file))));
                        self.names.extend(unowned.map(Name::Fact));
                        for (program, distribution) in facts {
                            // What is used where it is there decides by its absence, too.
                            let optional = self.machine.packages().optional(&real(&site), &distribution);
                            let fact = |package: &String| Name::Fact(format!("{program}{PACKAGE}{package}"));
                            self.names.extend(optional.iter().chain([&distribution]).map(fact));
                            let build = format!("{program}{BUILD}{distribution}");
                            if self.machine.fact(&build) != ABSENT {
                                self.names.insert(Name::Fact(build));
                            }
                        }
                    }
                    // What no distribution owns, or one of an interpreter that cannot be asked again, decides by its bytes.
                    None => {
                        self.names.extend(files.iter().map(|file| Name::Fact(format!("{LIBRARY}{}", text(file)))));
                    }
                }
            }
        }
    }
}

/// Returns the program that a fact is about, if it is about the program itself.
fn program_of(name: &Name) -> Option<&str> {
    match name {
        Name::Fact(fact) if !fact.contains(' ') && !fact.starts_with('/') => Some(fact),
        _ => None,
    }
}

fn text(path: &Path) -> String {
    escape(path.as_os_str().as_bytes()).into_owned()
}
