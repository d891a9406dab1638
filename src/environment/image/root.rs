//! The files of an image while its layers are laid over each other: names and ids, in memory alone.
//!
//! What a layer takes away, it takes from the layers below it, never from
//! itself; so everything knows by which layer it came. Paths are followed as a
//! program in the image would follow them, links included, and never lead out of it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use crate::object::{self, BlobId, Sized, TreeBuilder, TreeId};

/// A path has no more names than this, however links lengthen it: whoever walks the tree must come to an end.
const DEPTH_MAX: usize = 1024;
const PATH_MAX_BYTES: usize = 4096;
const NAME_MAX_BYTES: usize = 255;
/// So many links are followed on the way to one entry.
const LINKS_MAX: u32 = 40;
/// An image has no more entries than this; each takes memory until all layers are known.
const ENTRIES_MAX: u64 = 8_000_000;

/// Why an entry of a layer has no place in an image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Its path begins with `/`.
    Absolute,
    /// Its path has a part `..`, or leads above the root of the image through a link.
    Outside,
    /// A name in its path is none that a tree can hold.
    Name,
    /// Its path has too many names, or too long ones.
    TooDeep,
    /// It leads through too many links.
    Links,
    /// It lies below a file.
    BelowFile,
    /// It is a hard link to something with such a path.
    Target(Box<Refusal>),
    /// It is a hard link to something that is not there.
    NoTarget,
    /// It is a device.
    Device,
    /// It is a pipe.
    Pipe,
    /// There are too many entries.
    TooMany,
    /// It makes the image larger than allowed.
    TooLarge {
        /// What is allowed, in bytes.
        limit_bytes: u64,
    },
    /// It is far larger than what the layer takes can hold.
    Bomb {
        /// How many bytes the layer takes.
        layer_bytes: u64,
        /// How many it would unpack to, up to this entry.
        unpacked_bytes: u64,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absolute => f.write_str("its path is absolute"),
            Self::Outside => f.write_str("its path leads out of the image"),
            Self::Name => f.write_str("it has a name that no file can have"),
            Self::TooDeep => write!(f, "its path has more than {PATH_MAX_BYTES} bytes or {DEPTH_MAX} names"),
            Self::Links => f.write_str("it lies behind too many symbolic links"),
            Self::BelowFile => f.write_str("it lies below a file"),
            Self::Target(refusal) => {
                let why = refusal.to_string();
                let why = why.strip_prefix("its path ").map_or(why.clone(), |rest| format!("the path of which {rest}"));
                write!(f, "it is a hard link to something {why}")
            }
            Self::NoTarget => f.write_str("it is a hard link to a file that is not there"),
            Self::Device => f.write_str("it is a device"),
            Self::Pipe => f.write_str("it is a pipe"),
            Self::TooMany => write!(f, "the image has more than {ENTRIES_MAX} entries"),
            Self::TooLarge { limit_bytes } => write!(f, "the image unpacks to more than {limit_bytes} bytes"),
            Self::Bomb { layer_bytes, unpacked_bytes } => {
                write!(f, "a layer of {layer_bytes} bytes would unpack to {unpacked_bytes}")
            }
        }
    }
}

/// Something at a name.
enum Item {
    Entry(object::Entry, u32),
    Directory(Directory),
}

#[derive(Default)]
struct Directory {
    items: BTreeMap<Vec<u8>, Item>,
    /// The layer that named it last.
    layer: u32,
}

/// The files of an image so far.
#[derive(Default)]
pub(super) struct Root {
    top: Directory,
    layer: u32,
    entries: u64,
}

impl Root {
    /// Begins the next layer.
    pub(super) fn next_layer(&mut self) {
        self.layer += 1;
    }

    /// Puts a directory at `path`; one that is there keeps what is in it.
    pub(super) fn directory(&mut self, path: &[u8]) -> Result<(), Refusal> {
        self.count()?;
        let layer = self.layer;
        let Some((directory, name)) = self.place(path)? else { return Ok(()) };
        match directory.items.get_mut(&name) {
            Some(Item::Directory(there)) => there.layer = layer,
            _ => drop(directory.items.insert(name, Item::Directory(Directory { layer, ..Directory::default() }))),
        }
        Ok(())
    }

    /// Puts a file at `path`, in place of whatever is there.
    pub(super) fn file(&mut self, path: &[u8], executable: bool, size: u64, id: BlobId) -> Result<(), Refusal> {
        self.put(path, object::Entry::File { executable, size, id })
    }

    /// Puts a symbolic link at `path`, in place of whatever is there.
    pub(super) fn symlink(&mut self, path: &[u8], target: &[u8]) -> Result<(), Refusal> {
        if target.is_empty() || target.len() > PATH_MAX_BYTES || target.contains(&0) {
            return Err(Refusal::Name);
        }
        self.put(path, object::Entry::Symlink { target: target.to_vec() })
    }

    /// Puts what is at `target` at `path` as well.
    pub(super) fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), Refusal> {
        let of_target = |refusal| Refusal::Target(Box::new(refusal));
        let place = self.place(target).map_err(of_target)?;
        let there = place.and_then(|(directory, name)| match directory.items.get(&name) {
            Some(Item::Entry(entry, _)) => Some(entry.clone()),
            _ => None,
        });
        self.put(path, there.ok_or(Refusal::NoTarget)?)
    }

    /// Takes away what layers below have at `path`.
    pub(super) fn remove(&mut self, path: &[u8]) -> Result<(), Refusal> {
        let layer = self.layer;
        let Some((directory, name)) = self.place(path)? else { return Ok(()) };
        let is_gone = match directory.items.get_mut(&name) {
            None => false,
            Some(Item::Entry(_, since)) => *since < layer,
            Some(Item::Directory(below)) => {
                below.empty(layer);
                below.layer < layer && below.items.is_empty()
            }
        };
        if is_gone {
            directory.items.remove(&name);
        }
        Ok(())
    }

    /// Takes away everything that layers below have in the directory at `path`; the top is the empty path.
    pub(super) fn empty(&mut self, path: &[u8]) -> Result<(), Refusal> {
        self.directory(path)?;
        let layer = self.layer;
        match self.place(path)? {
            None => self.top.empty(layer),
            Some((directory, name)) => {
                if let Some(Item::Directory(below)) = directory.items.get_mut(&name) {
                    below.empty(layer);
                }
            }
        }
        Ok(())
    }

    /// Returns the tree of all that is there, after giving each node to `keep`.
    pub(super) fn build<E>(self, keep: &mut dyn FnMut(&[u8]) -> Result<TreeId, E>) -> Result<(TreeId, Sized), E> {
        self.top.build(keep)
    }

    fn put(&mut self, path: &[u8], entry: object::Entry) -> Result<(), Refusal> {
        self.count()?;
        let layer = self.layer;
        let (directory, name) = self.place(path)?.ok_or(Refusal::Name)?;
        directory.items.insert(name, Item::Entry(entry, layer));
        Ok(())
    }

    fn count(&mut self) -> Result<(), Refusal> {
        self.entries += 1;
        if self.entries > ENTRIES_MAX { Err(Refusal::TooMany) } else { Ok(()) }
    }

    /// Returns the directory in which the last name of `path` is, and that name; `None` for the top itself.
    ///
    /// Directories on the way that nobody named are made.
    fn place(&mut self, path: &[u8]) -> Result<Option<(&mut Directory, Vec<u8>)>, Refusal> {
        let mut names = names_of(path)?;
        let Some(last) = names.pop() else { return Ok(None) };
        let way = self.resolve(names)?;
        let layer = self.layer;
        let mut directory = &mut self.top;
        for name in way {
            let made = || Item::Directory(Directory { layer, ..Directory::default() });
            match directory.items.entry(name).or_insert_with(made) {
                Item::Directory(below) => directory = below,
                Item::Entry(..) => return Err(Refusal::BelowFile),
            }
        }
        Ok(Some((directory, last)))
    }

    /// Returns the way to a directory without the links on it.
    fn resolve(&self, names: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, Refusal> {
        let mut left: VecDeque<Vec<u8>> = names.into();
        let (mut way, mut links): (Vec<Vec<u8>>, u32) = (Vec::new(), 0);
        while let Some(name) = left.pop_front() {
            if name == b".." {
                way.pop().ok_or(Refusal::Outside)?;
                continue;
            }
            let target = self.link_at(&way, &name);
            let Some(target) = target else {
                way.push(name);
                if way.len() >= DEPTH_MAX {
                    return Err(Refusal::TooDeep);
                }
                continue;
            };
            links += 1;
            if links > LINKS_MAX {
                return Err(Refusal::Links);
            }
            if target.starts_with(b"/") {
                way.clear();
            }
            let parts = target.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
            parts.rev().for_each(|part| left.push_front(part.to_vec()));
            if left.len() > DEPTH_MAX {
                return Err(Refusal::TooDeep);
            }
        }
        Ok(way)
    }

    /// Returns where the link `name` in the directory at `way` leads; `None` if it is no link.
    fn link_at(&self, way: &[Vec<u8>], name: &[u8]) -> Option<&[u8]> {
        let mut directory = &self.top;
        for name in way {
            match directory.items.get(name)? {
                Item::Directory(below) => directory = below,
                Item::Entry(..) => return None,
            }
        }
        match directory.items.get(name)? {
            Item::Entry(object::Entry::Symlink { target }, _) => Some(target),
            _ => None,
        }
    }
}

impl Directory {
    /// Takes away what came before `layer`, at every depth.
    fn empty(&mut self, layer: u32) {
        self.items.retain(|_, item| match item {
            Item::Entry(_, since) => *since >= layer,
            Item::Directory(below) => {
                below.empty(layer);
                below.layer >= layer || !below.items.is_empty()
            }
        });
    }

    fn build<E>(self, keep: &mut dyn FnMut(&[u8]) -> Result<TreeId, E>) -> Result<(TreeId, Sized), E> {
        let mut entries = Vec::with_capacity(self.items.len());
        for (name, item) in self.items {
            let entry = match item {
                Item::Entry(entry, _) => entry,
                Item::Directory(below) => {
                    let (id, sized) = below.build(keep)?;
                    object::Entry::Directory { sized, id }
                }
            };
            entries.push((name, entry));
        }
        let mut builder = TreeBuilder::new(|bytes: &[u8]| keep(bytes));
        for (name, entry) in &entries {
            builder.push(name, entry)?;
        }
        builder.finish()
    }
}

/// Returns the names of a path in a layer: none for the top.
fn names_of(path: &[u8]) -> Result<Vec<Vec<u8>>, Refusal> {
    if path.starts_with(b"/") {
        return Err(Refusal::Absolute);
    }
    if path.len() > PATH_MAX_BYTES {
        return Err(Refusal::TooDeep);
    }
    let mut names = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => return Err(Refusal::Outside),
            name if name.contains(&0) || name.len() > NAME_MAX_BYTES => return Err(Refusal::Name),
            name => names.push(name.to_vec()),
        }
    }
    if names.len() > DEPTH_MAX { Err(Refusal::TooDeep) } else { Ok(names) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn file(root: &mut Root, path: &str) -> Result<(), Refusal> {
        root.file(path.as_bytes(), false, 1, BlobId::of(path.as_bytes()))
    }

    fn layer(paths: &[&str]) -> Root {
        let mut root = Root::default();
        root.next_layer();
        paths.iter().for_each(|path| file(&mut root, path).unwrap());
        root.next_layer();
        root
    }

    fn paths(root: &Root) -> Vec<String> {
        fn below(directory: &Directory, above: &str, out: &mut Vec<String>) {
            for (name, item) in &directory.items {
                let path = format!("{above}{}", String::from_utf8_lossy(name));
                match item {
                    Item::Entry(..) => out.push(path),
                    Item::Directory(inner) if inner.items.is_empty() => out.push(format!("{path}/")),
                    Item::Directory(inner) => below(inner, &format!("{path}/"), out),
                }
            }
        }
        let mut out = Vec::new();
        below(&root.top, "", &mut out);
        out
    }

    #[test]
    fn a_layer_takes_away_from_those_below_and_never_from_itself() {
        let mut root = layer(&["a/x", "a/y", "b/x", "c"]);
        file(&mut root, "b/new").unwrap();
        for path in ["a", "b", "c", "nothing"] {
            root.remove(path.as_bytes()).unwrap();
        }
        assert_eq!(paths(&root), ["b/new"]);
        let mut root = layer(&["a/x", "c"]);
        root.remove(b"c").unwrap();
        file(&mut root, "c").unwrap();
        assert_eq!(paths(&root), ["a/x", "c"]);
    }

    #[test]
    fn an_emptied_directory_keeps_what_came_with_it_in_any_order() {
        for is_first in [true, false] {
            let mut root = layer(&["a/old", "a/in/old", "b"]);
            if is_first {
                root.empty(b"a").unwrap();
            }
            file(&mut root, "a/new").unwrap();
            if !is_first {
                root.empty(b"a").unwrap();
            }
            assert_eq!(paths(&root), ["a/new", "b"]);
        }
        let mut root = layer(&["a/old", "b"]);
        root.empty(b"").unwrap();
        assert_eq!(paths(&root), Vec::<String>::new());
    }

    #[test]
    fn what_is_of_another_kind_is_replaced() {
        let mut root = layer(&["a/x", "b"]);
        file(&mut root, "a").unwrap();
        root.directory(b"b").unwrap();
        root.symlink(b"c", b"a").unwrap();
        root.directory(b"c/").unwrap();
        assert_eq!(paths(&root), ["a", "b/", "c/"]);
    }

    #[test]
    fn links_are_followed_as_inside_of_the_image_and_never_out_of_it() {
        let mut root = Root::default();
        root.symlink(b"lib", b"usr/lib").unwrap();
        root.symlink(b"var/run", b"/run").unwrap();
        root.symlink(b"usr/lib/up", b"../../etc").unwrap();
        root.symlink(b"out", b"../../etc").unwrap();
        root.symlink(b"loop", b"loop").unwrap();
        for path in ["lib/a", "var/run/b", "usr/lib/up/c"] {
            file(&mut root, path).unwrap();
        }
        let all = paths(&root);
        for path in ["usr/lib/a", "run/b", "etc/c"] {
            assert!(all.contains(&path.to_owned()), "{path} in {all:?}");
        }
        assert_eq!(file(&mut root, "out/passwd"), Err(Refusal::Outside));
        assert_eq!(file(&mut root, "loop/x"), Err(Refusal::Links));
        assert_eq!(file(&mut root, "etc/c/d"), Err(Refusal::BelowFile));
    }

    #[test]
    fn a_hard_link_is_what_it_leads_to() {
        let mut root = layer(&["a"]);
        root.hard_link(b"b/c", b"./a").unwrap();
        root.remove(b"a").unwrap();
        assert_eq!(paths(&root), ["b/c"]);
        let of = |refusal| Err(Refusal::Target(Box::new(refusal)));
        assert_eq!(root.hard_link(b"d", b"/etc/passwd"), of(Refusal::Absolute));
        assert_eq!(root.hard_link(b"d", b"../etc/passwd"), of(Refusal::Outside));
        assert_eq!(root.hard_link(b"d", b"a"), Err(Refusal::NoTarget));
        assert_eq!(root.hard_link(b"d", b"b"), Err(Refusal::NoTarget), "directories have one name");
    }

    #[test]
    fn paths_that_lead_out_or_are_too_deep_are_refused() {
        let mut root = Root::default();
        assert_eq!(file(&mut root, "/etc/passwd"), Err(Refusal::Absolute));
        assert_eq!(file(&mut root, "a/../../b"), Err(Refusal::Outside));
        assert_eq!(file(&mut root, "."), Err(Refusal::Name));
        assert_eq!(file(&mut root, &"a/".repeat(2000)), Err(Refusal::TooDeep));
        assert_eq!(file(&mut root, &"a".repeat(5000)), Err(Refusal::TooDeep));
        assert_eq!(file(&mut root, &"a".repeat(256)), Err(Refusal::Name));
        // A link to a deep directory in a deep directory, and so on: each path is short enough.
        let deep = "d/".repeat(500);
        root.symlink(b"s", deep.as_bytes()).unwrap();
        root.symlink(format!("s/{deep}t").as_bytes(), b"d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d")
            .unwrap();
        assert_eq!(file(&mut root, &format!("s/{deep}t/x")), Err(Refusal::TooDeep));
        root.build(&mut |bytes| Ok::<_, Infallible>(TreeId::of(bytes))).unwrap();
    }

    #[test]
    fn the_same_files_are_the_same_tree_in_whatever_layers_they_came() {
        let build = |root: Root| root.build(&mut |bytes| Ok::<_, Infallible>(TreeId::of(bytes))).unwrap();
        let one = layer(&["a/x", "b"]);
        let mut two = layer(&["b", "c"]);
        two.remove(b"c").unwrap();
        file(&mut two, "a/x").unwrap();
        assert_eq!(build(one), build(two));
    }
}
