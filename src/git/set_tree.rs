//! The trees of a set: what they hold, and what one has that another has not.

use std::collections::BTreeMap;

use gix::ObjectId;

use super::GitError;

/// The files of a set: path, with `/` between the names, and content.
pub(super) type SetFiles = Vec<(Vec<u8>, Vec<u8>)>;

/// What a tree has under a path.
pub(super) enum Place {
    /// Nothing.
    Free,
    /// A file, a directory, or a file where a directory should be.
    Taken(ObjectId),
}

/// Returns what the tree has under `path`. Costs the reading of one tree a level.
pub(super) fn look_up(local: &gix::Repository, root: ObjectId, path: &[u8]) -> Result<Place, GitError> {
    let mut tree = root;
    let mut names = path.split(|byte| *byte == b'/').peekable();
    while let Some(name) = names.next() {
        let failed = || GitError::on(format!("read git tree {tree}"));
        let object = local.find_object(tree).map_err(failed())?;
        let mut below = None;
        for entry in gix::objs::TreeRefIter::from_bytes(&object.data, tree.kind()) {
            let entry = entry.map_err(failed())?;
            if entry.filename == name {
                below = Some((entry.mode, entry.oid.to_owned()));
            }
        }
        match below {
            None => return Ok(Place::Free),
            Some((mode, id)) if mode.is_tree() && names.peek().is_some() => tree = id,
            Some((_, id)) => return Ok(Place::Taken(id)),
        }
    }
    Ok(Place::Taken(tree))
}

/// Collects the files of `tree` that `known` does not have, under `path`. Equal directories are not opened.
pub(super) fn collect_new(
    local: &gix::Repository,
    tree: ObjectId,
    known: Option<ObjectId>,
    path: &mut Vec<u8>,
    files: &mut SetFiles,
) -> Result<(), GitError> {
    let failed = || GitError::on(format!("read git tree {tree}"));
    let known = known.and_then(|known| local.find_object(known).ok());
    let mut known_ids = BTreeMap::new();
    if let Some(known) = &known {
        let entries = gix::objs::TreeRefIter::from_bytes(&known.data, tree.kind()).flatten();
        known_ids.extend(entries.map(|entry| (entry.filename, entry.oid)));
    }
    let object = local.find_object(tree).map_err(failed())?;
    for entry in gix::objs::TreeRefIter::from_bytes(&object.data, tree.kind()) {
        let entry = entry.map_err(failed())?;
        let known = known_ids.get(entry.filename).copied();
        if known == Some(entry.oid) {
            continue;
        }
        let parent_bytes = path.len();
        path.extend_from_slice(entry.filename);
        if entry.mode.is_tree() {
            path.push(b'/');
            collect_new(local, entry.oid.to_owned(), known.map(ToOwned::to_owned), path, files)?;
        } else if entry.mode.is_blob() {
            let content = local.find_object(entry.oid).map_err(failed())?.detach().data;
            files.push((path.clone(), content));
        }
        path.truncate(parent_bytes);
    }
    Ok(())
}
