//! Where a path that a step touched leads, through links and `..`, in the files that it found.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::RunError;
use super::world::{Found, World};
use crate::object::Entry;
use crate::path::ProjectPath;

/// The system gives up a path that leads through more links.
const LINKS_MAX: usize = 40;

/// Where a path leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    /// The project's links on the way, in the order of the way.
    pub(super) links: Vec<ProjectPath>,
    /// The project's directories that it comes back from by `..`: it leads nowhere without them.
    pub(super) left: Vec<ProjectPath>,
    /// Where it ends.
    pub(super) end: End,
}

/// Where a path ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// In the project; `None` is its top.
    Inside {
        /// The last thing on the way that decides: what is there, or the first that is not.
        place: Option<ProjectPath>,
        /// What is there.
        found: Found,
        /// Where it would have led, had all been there.
        full: PathBuf,
    },
    /// At a directory that the place of the project lies in.
    Above,
    /// Outside.
    Outside(PathBuf),
}

/// Returns where the absolute `path` leads for a step whose project is at `workplace`.
///
/// Links outside the project are not followed here: what lies behind one is told by the path that leads through it.
///
/// # Errors
///
/// [`RunError`] if a tree cannot be read.
pub(super) fn resolve(world: &World<'_, '_>, workplace: &Path, path: &Path) -> Result<Resolved, RunError> {
    let (mut links, mut left) = (Vec::new(), Vec::new());
    let mut open: VecDeque<Vec<u8>> = parts(path.as_os_str().as_bytes()).collect();
    let mut at = PathBuf::from("/");
    let mut here = None;
    while let Some(name) = open.pop_front() {
        if name == b".." {
            left.extend(ProjectPath::below(workplace, &at));
            at.pop();
            here = None;
            continue;
        }
        let next = at.join(OsStr::from_bytes(&name));
        let Some(place) = ProjectPath::below(workplace, &next) else {
            at = next;
            continue;
        };
        let found = world.find(Some(&place))?;
        match &found {
            Found::Entry(Entry::Symlink { target }) if links.len() < LINKS_MAX => {
                parts(target).collect::<Vec<_>>().into_iter().rev().for_each(|part| open.push_front(part));
                if target.starts_with(b"/") {
                    at = PathBuf::from("/");
                }
                here = None;
                links.push(place);
            }
            Found::Mixed | Found::Entry(Entry::Directory { .. }) => {
                at = next;
                here = Some(found);
            }
            // Nothing is behind a file, or behind what is not there.
            _ => {
                let full = open.iter().fold(next, |full, part| full.join(OsStr::from_bytes(part)));
                return Ok(Resolved { links, left, end: End::Inside { place: Some(place), found, full } });
            }
        }
    }
    let end = if at.starts_with(workplace) {
        let place = ProjectPath::below(workplace, &at);
        let found = match here {
            Some(found) => found,
            None => world.find(place.as_ref())?,
        };
        End::Inside { place, found, full: at }
    } else if workplace.starts_with(&at) {
        End::Above
    } else {
        End::Outside(at)
    };
    Ok(Resolved { links, left, end })
}

fn parts(path: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec)
}
