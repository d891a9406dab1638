//! Finding the paths that lie at, above or below a path.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::path::ProjectPath;

/// Values by path. Every look-up costs the depth of the path and what it finds, not the number of paths.
pub(super) struct PathMap<T>(BTreeMap<ProjectPath, Vec<T>>);

impl<T> Default for PathMap<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> PathMap<T> {
    pub(super) fn insert(&mut self, path: ProjectPath, value: T) {
        self.0.entry(path).or_default().push(value);
    }

    /// Returns what overlaps `path`: first what lies above it, from the top, then at it, then below it.
    pub(super) fn overlapping<'map>(
        &'map self,
        path: &ProjectPath,
    ) -> impl Iterator<Item = (&'map ProjectPath, &'map T)> {
        let bytes = path.as_bytes();
        let cuts = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(index, _)| index);
        let above: Vec<_> =
            cuts.chain([bytes.len()]).filter_map(|cut| self.0.get_key_value::<[u8]>(&bytes[..cut])).collect();
        let start = [bytes, b"/"].concat();
        let below: Vec<_> = self
            .0
            .range::<[u8], _>((Bound::Included(start.as_slice()), Bound::Unbounded))
            .take_while(|(path, _)| path.as_bytes().starts_with(&start))
            .collect();
        above.into_iter().chain(below).flat_map(|(path, values)| values.iter().map(move |value| (path, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn exactly_the_overlapping_paths_are_found(
            texts in proptest::collection::vec("[ab!]{1,2}(/[ab!]{1,2}){0,2}", 1..20),
            wanted in "[ab!]{1,2}(/[ab!]{1,2}){0,2}",
        ) {
            let wanted = ProjectPath::new(wanted).unwrap();
            let paths: Vec<_> = texts.iter().map(|text| ProjectPath::new(text).unwrap()).collect();
            let mut map = PathMap::default();
            paths.iter().enumerate().for_each(|(index, path)| map.insert(path.clone(), index));
            let mut found: Vec<_> = map.overlapping(&wanted).map(|(_, index)| *index).collect();
            found.sort_unstable();
            let expected: Vec<_> = (0..paths.len()).filter(|index| paths[*index].overlaps(&wanted)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
