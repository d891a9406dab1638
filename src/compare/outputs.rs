//! What a step left, from the store: files, directories, links.

use std::collections::{BTreeMap, BTreeSet};

use super::bytes::{self, Broken};
use super::report::{Comparison, FINDINGS_MAX, Finding, Report};
use super::shape::Shape;
use super::{FILE_MAX_BYTES, compare_within};
use crate::object::{BlobId, DecodeError, Entry, Kind, Node, TreeId};
use crate::path::{ProjectPath, escape};
use crate::pipeline::{Level, Tolerance};
use crate::store::{Store, StoreError};

/// Of so many files of a directory it is told in full how they differ, of further ones in one place.
const TOLD_MAX: usize = 1000;

/// Why two outputs cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// Something of them cannot be read from the store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the store has of a directory is none.
    #[error("a directory in the store cannot be understood")]
    Directory(#[from] DecodeError),
}

/// Compares what lies at `path` on two sides: a file, a directory, a link, or nothing.
///
/// Returns one comparison if neither side is a directory or nothing differs; else one for each path in them that differs,
/// in the order of paths. So it is never empty, and the worst level is the level of the output.
///
/// Of directories only what differs is read. Each file up to [`FILE_MAX_BYTES`] is held in memory as a whole, with what is
/// made of it; larger ones are compared byte by byte, without being held.
///
/// # Errors
///
/// [`CompareError`] if something of them is missing or damaged.
pub fn compare_outputs(
    store: &dyn Store,
    path: &ProjectPath,
    old: Option<&Entry>,
    new: Option<&Entry>,
    tolerance: &Tolerance,
) -> Result<Vec<Comparison>, CompareError> {
    let mut found = Vec::new();
    let mut outputs = Outputs { store, tolerance, found: &mut found };
    outputs.entries(path, old, new)?;
    if found.is_empty() {
        let format = if matches!(new, Some(Entry::Directory { .. })) { "directory" } else { "file" };
        found.push(Comparison::identical(&path.display(), format));
    }
    Ok(found)
}

/// Returns the worst level of the comparisons of one output.
pub fn worst(comparisons: &[Comparison]) -> Level {
    comparisons.iter().map(|comparison| comparison.level).max().unwrap_or_default()
}

struct Outputs<'a> {
    store: &'a dyn Store,
    tolerance: &'a Tolerance,
    found: &'a mut Vec<Comparison>,
}

impl Outputs<'_> {
    fn entries(&mut self, path: &ProjectPath, old: Option<&Entry>, new: Option<&Entry>) -> Result<(), CompareError> {
        match (old, new) {
            (old, new) if old == new => {}
            (Some(Entry::Directory { id: old, .. }), Some(Entry::Directory { id: new, .. })) => {
                self.directories(path, *old, *new)?;
            }
            (Some(Entry::File { .. }), Some(Entry::File { .. })) => {
                let comparison = self.files(path, old, new)?;
                self.push(comparison);
            }
            (old, new) => {
                let finding = Finding::of("", old.map(describe), new.map(describe));
                let (place, shape) = match (old, new) {
                    (Some(Entry::Symlink { target: old }), Some(Entry::Symlink { target: new })) => {
                        ("target", Shape::of_texts("target", &escape(old), &escape(new)))
                    }
                    (Some(_), Some(_)) => ("kind", None),
                    (Some(_), None) => ("missing", None),
                    (None, _) => ("added", None),
                };
                let finding = Finding { place: place.to_owned(), ..finding }.shaped(shape);
                self.push(Comparison::different(&path.display(), "entry", finding));
            }
        }
        Ok(())
    }

    fn push(&mut self, mut comparison: Comparison) {
        if self.found.len() >= TOLD_MAX && comparison.findings.len() > 1 {
            comparison.more += comparison.findings.len() as u64 - 1;
            comparison.findings.truncate(1);
            comparison.findings.shrink_to_fit();
        }
        self.found.push(comparison);
    }

    fn directories(&mut self, path: &ProjectPath, old: TreeId, new: TreeId) -> Result<(), CompareError> {
        let (old, new) = differing_entries(self.store, old, new)?;
        let names: BTreeSet<&Vec<u8>> = old.keys().chain(new.keys()).collect();
        for name in names {
            self.entries(&path.join(name), old.get(name), new.get(name))?;
        }
        Ok(())
    }

    fn files(
        &mut self,
        path: &ProjectPath,
        old: Option<&Entry>,
        new: Option<&Entry>,
    ) -> Result<Comparison, CompareError> {
        let (
            Some(Entry::File { executable: was, size: old_size, id: old }),
            Some(Entry::File { executable: is, size: new_size, id: new }),
        ) = (old, new)
        else {
            unreachable!("both are files");
        };
        let mut comparison = if old == new {
            Comparison::identical(&path.display(), "file")
        } else {
            self.contents(path, (*old, *old_size), (*new, *new_size))?
        };
        if was != is {
            let word = |is: &bool| Some(if *is { "executable" } else { "not executable" }.to_owned());
            comparison.level = Level::Different;
            comparison.findings.insert(0, Finding::of("mode", word(was), word(is)));
            if comparison.findings.len() > FINDINGS_MAX {
                comparison.findings.truncate(FINDINGS_MAX);
                comparison.more += 1;
            }
        }
        Ok(comparison)
    }

    fn contents(
        &self,
        path: &ProjectPath,
        (old, old_size): (BlobId, u64),
        (new, new_size): (BlobId, u64),
    ) -> Result<Comparison, CompareError> {
        let name = path.display();
        if old_size.max(new_size) <= FILE_MAX_BYTES {
            let read = |id: BlobId| self.store.get(Kind::Blob, id.digest());
            return Ok(compare_within(&name, &read(old)?, &read(new)?, self.tolerance));
        }
        let mut report = Report::new(*self.tolerance, 0);
        report.note("too large to look into");
        let open = |id: BlobId| self.store.open(Kind::Blob, id.digest());
        let (mut old_reader, mut new_reader) = (open(old)?, open(new)?);
        bytes::compare_streams(&mut report, &mut old_reader, &mut new_reader).map_err(|broken| match broken {
            Broken::Old(error) => StoreError::from_read(error, Kind::Blob, old.digest()),
            Broken::New(error) => StoreError::from_read(error, Kind::Blob, new.digest()),
        })?;
        Ok(report.finish(&name, "bytes"))
    }
}

fn describe(entry: &Entry) -> String {
    match entry {
        Entry::File { size, .. } => format!("file of {size} bytes"),
        Entry::Symlink { target } => format!("link to {}", escape(target)),
        Entry::Directory { sized, .. } => format!("directory of {} files", sized.files),
        Entry::Submodule { .. } => "repository".to_owned(),
    }
}

type Entries = BTreeMap<Vec<u8>, Entry>;

/// Returns the entries of both directories, without those in nodes that both have.
fn differing_entries(store: &dyn Store, old: TreeId, new: TreeId) -> Result<(Entries, Entries), CompareError> {
    let mut sides = [old, new].map(|id| BTreeSet::from([id]));
    let mut entries = [Entries::new(), Entries::new()];
    while sides.iter().any(|side| !side.is_empty()) {
        let common: BTreeSet<TreeId> = sides[0].intersection(&sides[1]).copied().collect();
        for (side, entries) in sides.iter_mut().zip(&mut entries) {
            let mut next = BTreeSet::new();
            for id in std::mem::take(side).difference(&common) {
                match Node::decode(&store.get(Kind::Tree, id.digest())?)? {
                    Node::Leaf(found) => entries.extend(found),
                    Node::Inner(children) => next.extend(children.iter().map(|child| child.id)),
                }
            }
            *side = next;
        }
    }
    let [old, new] = entries;
    Ok((old, new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Sized, TreeBuilder};
    use crate::store::{MemoryStore, Source};

    fn file(store: &MemoryStore, content: &str, executable: bool) -> Entry {
        let put = store.put_bytes(Kind::Blob, content.as_bytes()).unwrap();
        Entry::File { executable, size: put.size, id: put.digest.into() }
    }

    fn directory(store: &MemoryStore, entries: &[(&str, Entry)]) -> Entry {
        let put = |bytes: &[u8]| store.put(Kind::Tree, Source::Bytes(bytes)).map(|put| TreeId::from(put.digest));
        let mut builder = TreeBuilder::new(put);
        entries.iter().for_each(|(name, entry)| builder.push(name.as_bytes(), entry).unwrap());
        let (id, sized) = builder.finish().unwrap();
        Entry::Directory { sized, id }
    }

    fn link(target: &str) -> Entry {
        Entry::Symlink { target: target.into() }
    }

    fn compared(store: &MemoryStore, old: Option<&Entry>, new: Option<&Entry>) -> (Level, String) {
        let path = ProjectPath::new("out").unwrap();
        let found = compare_outputs(store, &path, old, new, &Tolerance::default()).unwrap();
        let told: Vec<String> = found.iter().map(Comparison::to_string).collect();
        (worst(&found), told.join("\n") + "\n")
    }

    #[test]
    fn a_directory_is_told_by_the_paths_that_differ() {
        let store = MemoryStore::default();
        let file = |content: &str, executable| file(&store, content, executable);
        let same = directory(&store, &[("same.txt", file("x", false))]);
        let old = directory(
            &store,
            &[
                ("a.json", file("{\"x\": 1, \"y\": 2}", false)),
                ("b.csv", file("k,v\na,1\n", false)),
                ("gone", link("x")),
                ("kind", file("x", false)),
                ("link", link("/tmp/tmpab12/x")),
                ("run.sh", file("go", false)),
                ("sub", directory(&store, &[("deep.txt", file("one\n", false)), ("same", same.clone())])),
            ],
        );
        let new = directory(
            &store,
            &[
                ("a.json", file("{\"y\": 2, \"x\": 1}", false)),
                ("b.csv", file("k,v\na,2\n", true)),
                ("come", same.clone()),
                ("kind", link("x")),
                ("link", link("/tmp/tmpzz99/x")),
                ("run.sh", file("go", true)),
                ("sub", directory(&store, &[("deep.txt", file("two\n", false)), ("same", same)])),
            ],
        );
        insta::assert_snapshot!(compared(&store, Some(&old), Some(&new)).1, @"
        out/a.json: canonical
        out/b.csv: 100 % of 1 numbers differ, at most by 1, 0.5 of the number
        out/b.csv: mode not executable -> executable
        out/b.csv: row 1, column v 1 -> 2
        out/come: added nothing -> directory of 1 files
        out/gone: missing link to x -> nothing
        out/kind: kind file of 1 bytes -> link to x
        out/link: target link to /tmp/tmpab12/x -> link to /tmp/tmpzz99/x
        out/run.sh: mode not executable -> executable
        out/sub/deep.txt: line 1 one -> two
        ");
        assert_eq!(compared(&store, Some(&old), Some(&new)).0, Level::Different);
        assert_eq!(compared(&store, Some(&new), Some(&old)).0, Level::Different);
    }

    #[test]
    fn an_output_is_one_comparison_whatever_it_is() {
        let store = MemoryStore::default();
        let (one, two) = (file(&store, "[1, 2]", false), file(&store, "[1,2]", false));
        let whole = directory(&store, &[("a", one.clone())]);
        assert_eq!(compared(&store, Some(&one), Some(&two)), (Level::Canonical, "out: canonical\n".to_owned()));
        assert_eq!(compared(&store, Some(&whole), Some(&whole)), (Level::Identical, "out: identical\n".to_owned()));
        assert_eq!(compared(&store, None, None).0, Level::Identical);
        let (level, told) = compared(&store, Some(&whole), Some(&one));
        assert_eq!((level, told.as_str()), (Level::Different, "out: kind directory of 1 files -> file of 6 bytes\n"));
        let (level, told) = compared(&store, None, Some(&one));
        assert_eq!((level, told.as_str()), (Level::Different, "out: added nothing -> file of 6 bytes\n"));
    }

    #[test]
    fn what_is_too_large_to_be_held_is_compared_all_the_same() {
        let store = MemoryStore::default();
        let id = |content: &str| {
            let Entry::File { id, .. } = file(&store, content, false) else { panic!("it is a file") };
            // The length decides how it is read, and the store does not ask for it.
            Entry::File { executable: false, size: FILE_MAX_BYTES + 1, id }
        };
        let (level, told) = compared(&store, Some(&id("[1, 2]")), Some(&id("[1, 3]")));
        assert_eq!(level, Level::Different);
        let expected = "out: too large to look into; 1 of 6 bytes differ (16.7 %)\nout: byte 4 325d -> 335d\n";
        assert_eq!(told, expected);
    }

    #[test]
    fn what_the_store_lost_is_an_error_and_no_difference() {
        let store = MemoryStore::default();
        let (here, there) = (file(&store, "a", false), file(&store, "b", false));
        let directory = directory(&store, &[("a", here.clone())]);
        store.remove(Kind::Blob, there.digest());
        let compared =
            |old, new| compare_outputs(&store, &ProjectPath::new("out").unwrap(), old, new, &Tolerance::default());
        assert!(matches!(compared(Some(&here), Some(&there)), Err(CompareError::Store(StoreError::Missing { .. }))));
        let lost = Entry::Directory { sized: Sized::default(), id: TreeId::of(b"lost") };
        assert!(compared(Some(&lost), Some(&directory)).is_err());
    }
}
