//! The files that a step finds: the snapshot, its data, and what the steps before it wrote.
//!
//! Nothing here follows a link: a link is a fact of its own. Directories that hold outputs or data roots are put
//! together only when somebody asks for them.

use std::collections::{BTreeMap, BTreeSet};

use super::RunError;
use super::earlier::Earlier;
use crate::hash::Digest;
use crate::object::{Entry, Kind, Sized, TreeBuilder, TreeId};
use crate::path::ProjectPath;
use crate::record::{ABSENT, Aspect, Output};
use crate::snapshot::{View, data_entry};
use crate::store::StoreError;

use super::recipe::describe;

/// The files of one step before it starts. Paths are those of the project; `None` is its top.
pub(super) struct World<'v, 's> {
    view: &'v View<'s>,
    /// Data roots, which lie over the snapshot's tree.
    data: BTreeMap<ProjectPath, Entry>,
    /// Outputs of the steps before, which lie over that.
    earlier: Earlier<'v>,
    /// Directories that are made for the step's own outputs.
    made: BTreeSet<ProjectPath>,
}

/// What lies at a path, as far as it can be told without putting a directory together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Found {
    Absent,
    /// A directory that has to be put together.
    Mixed,
    Entry(Entry),
}

impl<'v, 's> World<'v, 's> {
    /// Returns the files of `view` with the outputs of the steps before, and with the directories of a step's `own` outputs.
    pub(super) fn new<'o>(
        view: &'v View<'s>,
        earlier: Earlier<'v>,
        own: impl IntoIterator<Item = &'o ProjectPath>,
    ) -> Self {
        let data = view.snapshot().data.iter().map(|(path, data)| (path.clone(), data_entry(data))).collect();
        let made = own.into_iter().flat_map(above).collect();
        Self { view, data, earlier, made }
    }

    /// Returns what lies at `path`.
    ///
    /// # Errors
    ///
    /// [`RunError`] if a tree cannot be read.
    pub(super) fn find(&self, path: Option<&ProjectPath>) -> Result<Found, RunError> {
        let Some(path) = path else { return Ok(Found::Mixed) };
        if let Some(found) = self.within(path)? {
            return Ok(found);
        }
        if self.is_above(path) {
            return Ok(Found::Mixed);
        }
        Ok(self.view.below(self.view.snapshot().tree, path)?.map_or(Found::Absent, Found::Entry))
    }

    /// Returns the value of an aspect of `path`, as recipes have it.
    ///
    /// # Errors
    ///
    /// [`RunError`] if a tree cannot be read.
    pub(super) fn value(&self, aspect: Aspect, path: Option<&ProjectPath>) -> Result<String, RunError> {
        let found = self.find(path)?;
        Ok(match aspect {
            Aspect::Content => describe(self.whole(path, found)?.as_ref()),
            Aspect::Data => match path.and_then(|path| self.view.snapshot().data.iter().find(|(root, _)| root == path))
            {
                Some((_, data)) => format!("data {}", data.digest()),
                None => ABSENT.to_owned(),
            },
            Aspect::Status => status(&found),
            Aspect::Place => if is_directory(&found) { "place taken" } else { "place free" }.to_owned(),
            Aspect::Listing => match &found {
                Found::Mixed | Found::Entry(Entry::Directory { .. }) => {
                    let names = self.children(path)?;
                    let kinds = names.iter().map(|(name, found)| (name.as_slice(), letter(found)));
                    listing(kinds)
                }
                other => status(other),
            },
        })
    }

    /// Returns what is directly in the directory at `path`, by name; nothing if it is none.
    ///
    /// # Errors
    ///
    /// [`RunError`] if a tree cannot be read.
    pub(super) fn children(&self, path: Option<&ProjectPath>) -> Result<BTreeMap<Vec<u8>, Found>, RunError> {
        let mut children = BTreeMap::new();
        let tree = match path {
            None => Some(self.view.snapshot().tree),
            Some(path) => match self.within(path)? {
                Some(Found::Entry(entry)) => tree_of(&entry),
                Some(Found::Absent | Found::Mixed) => None,
                None => self.view.below(self.view.snapshot().tree, path)?.as_ref().and_then(tree_of),
            },
        };
        if let Some(tree) = tree {
            for (name, entry) in self.view.entries(tree)? {
                children.insert(name, Found::Entry(entry));
            }
        }
        let written = self.earlier.below(path).map(|output| &output.path);
        for below in written.chain(self.data.keys()).chain(&self.made) {
            let rest = match path {
                None => Some(below.clone()),
                Some(path) => below.strip(path),
            };
            let Some(name) = rest.and_then(|rest| rest.names().next().map(<[u8]>::to_vec)) else { continue };
            let child = child(path, &name);
            let found = self.find(Some(&child))?;
            children.insert(name, found);
        }
        Ok(children)
    }

    /// Returns what a data root or an output has at `path`, if one lies there or above.
    fn within(&self, path: &ProjectPath) -> Result<Option<Found>, RunError> {
        if let Some(entry) = self.over(path) {
            return Ok(Some(Found::Entry(entry)));
        }
        for above in above(path) {
            if let Some(entry) = self.over(&above) {
                let rest = path.strip(&above).expect("it lies above");
                let entry = match entry {
                    // The view knows what to say of data that is not there.
                    Entry::Directory { .. } if self.is_data(&above) => self.view.entry(path)?,
                    Entry::Directory { id, .. } => self.view.below(id, &rest)?,
                    _ => None,
                };
                return Ok(Some(entry.map_or(Found::Absent, Found::Entry)));
            }
        }
        Ok(None)
    }

    fn is_data(&self, path: &ProjectPath) -> bool {
        self.view.snapshot().data.iter().any(|(root, _)| root == path)
    }

    fn is_above(&self, path: &ProjectPath) -> bool {
        let start = [path.as_bytes(), b"/"].concat();
        let first = |mut range: std::collections::btree_map::Range<'_, ProjectPath, Entry>| {
            range.next().is_some_and(|(other, _)| other.as_bytes().starts_with(&start))
        };
        let from = (std::ops::Bound::Included(start.as_slice()), std::ops::Bound::Unbounded);
        self.made.contains(path)
            || first(self.data.range::<[u8], _>(from))
            || self.earlier.below(Some(path)).next().is_some()
    }

    /// Returns what lies at `path` itself over the snapshot's tree.
    fn over(&self, path: &ProjectPath) -> Option<Entry> {
        self.earlier.at(path).map(Output::entry).or_else(|| self.data.get(path).cloned())
    }

    /// Returns the entry at `path`, a directory with all that lies over it.
    fn whole(&self, path: Option<&ProjectPath>, found: Found) -> Result<Option<Entry>, RunError> {
        match found {
            Found::Absent => Ok(None),
            Found::Entry(entry) => Ok(Some(entry)),
            Found::Mixed => {
                let keep = |bytes: &[u8]| Ok::<_, StoreError>(Kind::Tree.digest(bytes).into());
                let mut builder = TreeBuilder::new(keep);
                for (name, found) in self.children(path)? {
                    if let Some(entry) = self.whole(Some(&child(path, &name)), found)? {
                        builder.push(&name, &entry)?;
                    }
                }
                let (id, sized): (TreeId, Sized) = builder.finish()?;
                Ok(Some(Entry::Directory { id, sized }))
            }
        }
    }
}

/// Returns the path of `name` in the directory at `path`.
pub(super) fn child(path: Option<&ProjectPath>, name: &[u8]) -> ProjectPath {
    match path {
        Some(path) => path.join(name),
        None => ProjectPath::new(name).expect("names in trees are valid names"),
    }
}

/// Returns the directories that `path` lies in, the nearest first, without the top.
pub(super) fn above(path: &ProjectPath) -> impl Iterator<Item = ProjectPath> {
    std::iter::successors(path.parent(), ProjectPath::parent)
}

/// Returns the value of [`Aspect::Listing`] for names, sorted, with the letters of their kinds.
pub(super) fn listing<'n>(names: impl Iterator<Item = (&'n [u8], u8)>) -> String {
    let mut bytes = Vec::new();
    for (name, letter) in names {
        bytes.push(letter);
        bytes.extend_from_slice(name);
        bytes.push(0);
    }
    format!("listing {}", Digest::derived("pv listing v1", &bytes))
}

fn status(found: &Found) -> String {
    match found {
        Found::Absent => ABSENT.to_owned(),
        Found::Entry(Entry::File { executable: false, size, .. }) => format!("status file {size}"),
        Found::Entry(Entry::File { executable: true, size, .. }) => format!("status executable {size}"),
        Found::Entry(link @ Entry::Symlink { .. }) => format!("status link {}", link.digest()),
        Found::Mixed | Found::Entry(Entry::Directory { .. } | Entry::Submodule { .. }) => "status directory".to_owned(),
    }
}

/// Returns whether there is a directory.
pub(super) const fn is_directory(found: &Found) -> bool {
    matches!(found, Found::Mixed | Found::Entry(Entry::Directory { .. } | Entry::Submodule { .. }))
}

const fn letter(found: &Found) -> u8 {
    match found {
        Found::Absent => b'-',
        Found::Entry(Entry::File { .. }) => b'f',
        Found::Entry(Entry::Symlink { .. }) => b'l',
        Found::Mixed | Found::Entry(Entry::Directory { .. } | Entry::Submodule { .. }) => b'd',
    }
}

fn tree_of(entry: &Entry) -> Option<TreeId> {
    match entry {
        Entry::Directory { id, .. } => Some(*id),
        _ => None,
    }
}
