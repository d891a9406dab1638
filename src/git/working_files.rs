//! The files of the working tree: tracked ones that are there, and untracked ones that are not ignored.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use gix::bstr::{BStr, BString, ByteSlice};
use gix::index::entry::{Flags, Mode, Stage};
use gix::worktree::stack::state::attributes::Source;
use rayon::prelude::*;

use super::commit_files::{is_attributes_file, join, project_path};
use super::conversion::{self, Conversion, Settings, Treatment};
use super::{CommitId, FileKind, GitError, Repository};
use crate::disk::{self, DiskError, Found};
use crate::path::{ProjectPath, escape};

/// Below this many files, threads cost more than they give.
const PARALLEL_FROM_FILES: usize = 2048;

/// The files of a working tree below one directory, as they were when they were listed.
pub struct WorkingFiles<'repo> {
    repository: &'repo Repository,
    prefix: Option<ProjectPath>,
    files: Vec<(ProjectPath, WorkingFile)>,
}

/// A file in the working tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkingFile {
    /// What it is now, on disk.
    pub kind: FileKind,
    /// Whether git may hold other bytes than the disk, so that [`WorkingReader::converted`] must be asked.
    pub normalised: bool,
}

impl Repository {
    /// Returns the files of the working tree below `prefix` (all, if there is none): tracked ones that are there, and untracked ones that are not ignored.
    ///
    /// Files that git was told of but that are not added yet are among them;
    /// deleted files, sockets, pipes, devices and anything behind a symbolic
    /// link are not. The kind is the one on disk, except that with
    /// `core.fileMode=false` the executable bit is git's. A submodule, or an
    /// untracked repository, stands with the commit that is checked out in it;
    /// a submodule that is not checked out, with the commit that the index has.
    ///
    /// Costs a look at every file, on all processors if there are many.
    ///
    /// # Errors
    ///
    /// [`GitError::Bare`] without a working tree, [`GitError::SparseIndex`],
    /// [`GitError::NestedWithoutCommit`] if an untracked repository has no commit, as for `git add`;
    /// [`GitError::Disk`] and [`GitError::Git`] if something cannot be read.
    pub fn working_files(&self, prefix: Option<&ProjectPath>) -> Result<WorkingFiles<'_>, GitError> {
        let local = self.local();
        let root = self.require_work_directory()?;
        let index = self.index(&local)?;
        let listing = Listing {
            repository: self,
            root,
            prefix: prefix.map(ProjectPath::as_bytes).unwrap_or_default(),
            trusts_mode: self.flag("core.fileMode").unwrap_or(true),
        };
        let entries = tracked_entries(&index, listing.prefix);
        let (tracked, untracked) = if entries.len() < PARALLEL_FROM_FILES {
            (listing.tracked(&entries), listing.untracked(&local, &index))
        } else {
            let chunks = entries.par_chunks(entries.len() / (4 * rayon::current_num_threads()) + 1);
            rayon::join(
                || chunks.map(|chunk| listing.tracked(chunk)).collect::<Result<Vec<_>, _>>().map(|all| all.concat()),
                || listing.untracked(&self.local(), &index),
            )
        };
        let mut files = tracked?;
        files.extend(untracked?);
        files.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        let mut files = WorkingFiles { repository: self, prefix: prefix.cloned(), files };
        files.mark_normalised(&local, &index)?;
        Ok(files)
    }
}

impl WorkingFiles<'_> {
    /// Returns the files, paths relative to the prefix, sorted by the bytes of their paths.
    pub fn files(&self) -> &[(ProjectPath, WorkingFile)] {
        &self.files
    }

    /// Returns a reader for the files that are [`WorkingFile::normalised`]. Each thread needs one of its own.
    ///
    /// # Errors
    ///
    /// [`GitError::Git`] if index or attributes cannot be read.
    pub fn reader(&self) -> Result<WorkingReader, GitError> {
        let local = self.repository.local();
        let index = self.repository.index(&local)?;
        let conversion = Conversion::new(&local, &index, Source::WorktreeThenIdMapping)?;
        Ok(WorkingReader { conversion, index, local, prefix: self.prefix_bytes().to_vec() })
    }

    fn prefix_bytes(&self) -> &[u8] {
        self.prefix.as_ref().map(ProjectPath::as_bytes).unwrap_or_default()
    }

    fn mark_normalised(&mut self, local: &gix::Repository, index: &gix::index::State) -> Result<(), GitError> {
        let can_convert = conversion::has_auto_crlf(local)?
            || conversion::has_global_attributes(local)?
            || index.entries().iter().any(|entry| is_attributes_file(entry.path(index)))
            || self.has_attributes_on_disk()?;
        if !can_convert {
            return Ok(());
        }
        let mut conversion = Conversion::new(local, index, Source::WorktreeThenIdMapping)?;
        let prefix = self.prefix_bytes().to_vec();
        for (path, file) in &mut self.files {
            if matches!(file.kind, FileKind::File { .. }) {
                let path = join(&prefix, path.as_bytes());
                file.normalised = conversion.treatment(local, path.as_bstr())? != Treatment::None;
            }
        }
        Ok(())
    }

    /// Returns whether a directory that holds files has attributes too. They count even where git ignores the file that has them.
    fn has_attributes_on_disk(&self) -> Result<bool, GitError> {
        let root = self.repository.require_work_directory()?;
        let mut directories = BTreeSet::from([Vec::new()]);
        let mut last = None;
        for (path, _) in &self.files {
            let path = join(self.prefix_bytes(), path.as_bytes());
            let mut directory = parent(&path);
            if last.as_deref() == directory {
                continue;
            }
            last = directory.map(<[u8]>::to_vec);
            while let Some(path) = directory.filter(|path| !directories.contains(*path)) {
                directories.insert(path.to_vec());
                directory = parent(path);
            }
        }
        for directory in &directories {
            if disk::look(&on_disk(root, directory).join(".gitattributes"))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Reads working files that git converts.
pub struct WorkingReader {
    local: gix::Repository,
    index: gix::worktree::Index,
    conversion: Conversion,
    prefix: Vec<u8>,
}

impl WorkingReader {
    /// Returns the bytes that a snapshot holds for the file at `path`, or `None` if they are the ones on disk.
    ///
    /// They are what git has, or would commit if the file was changed, written
    /// out as [`super::CommitReader::bytes`] would.
    /// Only files that do change are held in memory; others are read in chunks,
    /// binary ones rarely further than the first.
    ///
    /// # Errors
    ///
    /// [`GitError::Disk`] if the file cannot be read, [`GitError::Git`] if it
    /// cannot be converted, as when it is not in the encoding that it should be.
    pub fn converted(&mut self, path: &ProjectPath) -> Result<Option<Vec<u8>>, GitError> {
        let full = join(&self.prefix, path.as_bytes());
        let full = full.as_bstr();
        let file = on_disk(self.local.workdir().unwrap_or(Path::new("")), full);
        match self.conversion.treatment(&self.local, full)? {
            Treatment::None => return Ok(None),
            Treatment::LineEndings { only_text } => {
                let reader = File::open(&file).map_err(DiskError::on("open", &file))?;
                let found = conversion::has_line_endings_to_convert(reader, only_text);
                if !found.map_err(DiskError::on("read", &file))? {
                    return Ok(None);
                }
            }
            Treatment::Full => {}
        }
        let bytes = std::fs::read(&file).map_err(DiskError::on("read", &file))?;
        let blob = match self.unchanged_blob(full, &bytes)? {
            Some(blob) => blob,
            None => self.conversion.clean(&self.local, &self.index, full, bytes)?,
        };
        self.conversion.check_out(&self.local, Settings::Neutral, full, blob).map(Some)
    }

    /// Returns the blob in the index if a checkout of it has these bytes.
    fn unchanged_blob(&mut self, path: &BStr, bytes: &[u8]) -> Result<Option<Vec<u8>>, GitError> {
        let is_file = |entry: &&gix::index::Entry| matches!(entry.mode, Mode::FILE | Mode::FILE_EXECUTABLE);
        let Some(entry) = self.index.entry_by_path(path).filter(is_file) else { return Ok(None) };
        if entry.flags.contains(Flags::INTENT_TO_ADD) {
            return Ok(None);
        }
        let failed = GitError::on(format!("read `{}` from the git repository", escape(path)));
        let blob = self.local.find_object(entry.id).map_err(failed)?.detach().data;
        let checked_out = self.conversion.check_out(&self.local, Settings::Real, path, blob.clone())?;
        Ok((checked_out == bytes).then_some(blob))
    }
}

/// A path of the index and what git has there.
type IndexEntry<'a> = (&'a BStr, Mode, gix::ObjectId);

/// Returns the entries below `prefix`, one for each path: in a conflict, our side if there is one.
pub(super) fn tracked_entries<'a>(index: &'a gix::index::State, prefix: &[u8]) -> Vec<IndexEntry<'a>> {
    let mut out: Vec<IndexEntry<'a>> = Vec::new();
    let range = match prefix {
        b"" => Some(0..index.entries().len()),
        prefix => index.prefixed_entries_range([prefix, b"/"].concat().as_bstr()),
    };
    for entry in &index.entries()[range.unwrap_or_default()] {
        let found = (entry.path(index), entry.mode, entry.id);
        match out.last_mut() {
            Some(last) if last.0 == found.0 && entry.stage() == Stage::Ours => *last = found,
            Some(last) if last.0 == found.0 => {}
            _ => out.push(found),
        }
    }
    out
}

/// What a listing needs to know.
struct Listing<'a> {
    repository: &'a Repository,
    root: &'a Path,
    prefix: &'a [u8],
    trusts_mode: bool,
}

impl Listing<'_> {
    fn tracked(&self, entries: &[IndexEntry<'_>]) -> Result<Vec<(ProjectPath, WorkingFile)>, GitError> {
        let mut directories = RealDirectories { root: self.root, known: BTreeMap::new() };
        let mut out = Vec::with_capacity(entries.len());
        for &(path, mode, id) in entries {
            if !directories.hold(path)? {
                continue;
            }
            let kind = match disk::look(&on_disk(self.root, path))? {
                Some(Found::File { executable, .. }) => {
                    let executable = if self.trusts_mode { executable } else { mode == Mode::FILE_EXECUTABLE };
                    FileKind::File { executable }
                }
                Some(Found::Symlink) => FileKind::Symlink,
                Some(Found::Directory) if mode == Mode::COMMIT => {
                    FileKind::Submodule(self.checked_out(path)?.unwrap_or(CommitId(id)))
                }
                Some(Found::Directory | Found::Other) | None => continue,
            };
            out.push((self.below_prefix(path)?, WorkingFile { kind, normalised: false }));
        }
        Ok(out)
    }

    fn untracked(
        &self,
        local: &gix::Repository,
        index: &gix::index::State,
    ) -> Result<Vec<(ProjectPath, WorkingFile)>, GitError> {
        let failed = || GitError::on("list the untracked files");
        let options = local.dirwalk_options().map_err(failed())?;
        let mut found = Untracked { prefix: self.prefix, paths: Vec::new() };
        let (never, no_patterns) = (AtomicBool::new(false), None::<&BStr>);
        local.dirwalk(index, no_patterns, &never, options, &mut found).map_err(failed())?;
        let mut out = Vec::with_capacity(found.paths.len());
        for (path, is_repository) in found.paths {
            let project_path = self.below_prefix(path.as_bstr())?;
            let kind = match disk::look(&on_disk(self.root, &path))? {
                Some(Found::File { executable, .. }) => FileKind::File { executable: executable && self.trusts_mode },
                Some(Found::Symlink) => FileKind::Symlink,
                Some(Found::Directory) if is_repository => match self.checked_out(path.as_bstr())? {
                    Some(commit) => FileKind::Submodule(commit),
                    None => return Err(GitError::NestedWithoutCommit { path: project_path }),
                },
                // Gone since the walk, or nothing that git can keep.
                Some(Found::Directory | Found::Other) | None => continue,
            };
            out.push((project_path, WorkingFile { kind, normalised: false }));
        }
        Ok(out)
    }

    fn checked_out(&self, path: &BStr) -> Result<Option<CommitId>, GitError> {
        match self.repository.nested(&project_path(path)?)? {
            Some(nested) => Ok(nested.head()?.commit),
            None => Ok(None),
        }
    }

    fn below_prefix(&self, path: &BStr) -> Result<ProjectPath, GitError> {
        let skip = if self.prefix.is_empty() { 0 } else { self.prefix.len() + 1 };
        project_path(path.get(skip..).unwrap_or_default())
    }
}

/// Collects what git does not track and does not ignore.
struct Untracked<'a> {
    prefix: &'a [u8],
    /// From the root of the repository; whether it is a repository.
    paths: Vec<(BString, bool)>,
}

impl Untracked<'_> {
    fn is_below_prefix(&self, path: &[u8]) -> bool {
        self.prefix.is_empty() || path.strip_prefix(self.prefix).is_some_and(|rest| rest.starts_with(b"/"))
    }

    fn leads_to_prefix(&self, directory: &[u8]) -> bool {
        let rest = self.prefix.strip_prefix(directory);
        directory.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    }
}

impl gix::dir::walk::Delegate for Untracked<'_> {
    fn emit(&mut self, entry: gix::dir::EntryRef<'_>, _: Option<gix::dir::entry::Status>) -> gix::dir::walk::Action {
        use gix::dir::entry::{Kind, Status};
        let is_repository = entry.disk_kind == Some(Kind::Repository);
        let is_file = matches!(entry.disk_kind, Some(Kind::File | Kind::Symlink));
        if entry.status == Status::Untracked && (is_file || is_repository) && self.is_below_prefix(&entry.rela_path) {
            self.paths.push((entry.rela_path.into_owned(), is_repository));
        }
        ControlFlow::Continue(())
    }

    fn can_recurse(
        &mut self,
        entry: gix::dir::EntryRef<'_>,
        for_deletion: Option<gix::dir::walk::ForDeletionMode>,
        worktree_root_is_repository: bool,
    ) -> bool {
        let path = &entry.rela_path;
        (self.leads_to_prefix(path) || self.is_below_prefix(path))
            && entry.status.can_recurse(
                entry.disk_kind,
                entry.pathspec_match,
                for_deletion,
                worktree_root_is_repository,
            )
    }
}

/// Remembers which directories are real ones, so that nothing behind a symbolic link counts as there.
struct RealDirectories<'a> {
    root: &'a Path,
    known: BTreeMap<Vec<u8>, bool>,
}

impl RealDirectories<'_> {
    /// Returns whether all directories above `path` are real.
    fn hold(&mut self, path: &[u8]) -> Result<bool, GitError> {
        let Some(directory) = parent(path) else { return Ok(true) };
        if let Some(known) = self.known.get(directory) {
            return Ok(*known);
        }
        let is_real = self.hold(directory)? && disk::look(&on_disk(self.root, directory))? == Some(Found::Directory);
        self.known.insert(directory.to_vec(), is_real);
        Ok(is_real)
    }
}

fn parent(path: &[u8]) -> Option<&[u8]> {
    path.iter().rposition(|byte| *byte == b'/').map(|cut| &path[..cut])
}

pub(super) fn on_disk(root: &Path, path: &[u8]) -> std::path::PathBuf {
    root.join(path.to_path_lossy())
}
