//! Many paths in few words.

use std::collections::{BTreeMap, BTreeSet};

/// More paths than this in one directory are declared as the directory.
const LISTED_MAX: usize = 10;

/// Returns what to declare for `paths` of the project: each of them, or the directory for many in one directory.
///
/// Sorted; nothing lies within another.
pub fn declare<'p>(paths: impl IntoIterator<Item = &'p String>) -> Vec<String> {
    let mut declared: BTreeSet<String> = paths.into_iter().cloned().collect();
    let depth = |path: &str| path.matches('/').count();
    let deepest = declared.iter().map(|path| depth(path)).max().unwrap_or_default();
    for level in (1..=deepest).rev() {
        let mut by_directory: BTreeMap<String, usize> = BTreeMap::new();
        for path in declared.iter().filter(|path| depth(path) == level) {
            if let Some((directory, _)) = path.rsplit_once('/') {
                *by_directory.entry(directory.to_owned()).or_default() += 1;
            }
        }
        declared
            .extend(by_directory.into_iter().filter(|(_, count)| *count > LISTED_MAX).map(|(directory, _)| directory));
    }
    let is_within_other = |path: &String| path.match_indices('/').any(|(at, _)| declared.contains(&path[..at]));
    declared.iter().filter(|path| !is_within_other(path)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_paths_in_a_directory_become_the_directory() {
        let many = |directory: &str, count: usize| (0..count).map(|n| format!("{directory}/{n}")).collect::<Vec<_>>();
        let paths = [many("data/raw/a", 11), many("data/raw/b", 3), many("x", 12), vec!["y".to_owned()]].concat();
        assert_eq!(declare(&paths), ["data/raw/a", "data/raw/b/0", "data/raw/b/1", "data/raw/b/2", "x", "y"]);
        assert_eq!(declare(&many("a", 10)).len(), 10);
        assert_eq!(
            declare(&(0..40).map(|n| n.to_string()).collect::<Vec<_>>()).len(),
            40,
            "the top is no directory to declare"
        );
        let parts: Vec<_> = (0..11).flat_map(|n| many(&format!("parts/{n}"), 11)).collect();
        assert_eq!(declare(&parts), ["parts"]);
    }
}
