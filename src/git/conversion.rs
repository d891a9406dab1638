//! Line endings and filters: what git does to a file between the repository and the working tree.
//!
//! A snapshot holds a file as `git checkout` writes it on a Linux machine
//! whose configuration says nothing about line endings, while attributes
//! (`text`, `eol`, `ident`, `working-tree-encoding`, `filter`) count. We call
//! this *neutral*. Where the user's configuration or an attribute converts
//! line endings, a working file is first cleaned with the real configuration
//! and then written out with the neutral one; a file that is as git checked it
//! out stands for what git has, even where cleaning would make something else of it.
//! Source: gitattributes(5), sections "End-of-line conversion" and "Checking-out and checking-in".

use std::io::{self, Read};

use gix::attrs::StateRef;
use gix::attrs::search::Outcome;
use gix::bstr::{BStr, BString, ByteSlice};
use gix::filter::plumbing::driver::{apply::Delay, shutdown};
use gix::filter::plumbing::pipeline::convert::to_worktree::{self, UnknownEncoding};
use gix::filter::plumbing::pipeline::convert::{ToGitOutcome, ToWorktreeOutcome};
use gix::filter::plumbing::pipeline::{CrlfRoundTripCheck, Options};
use gix::filter::plumbing::{Driver, Pipeline, eol};
use gix::worktree::stack::state::attributes::Source;

use super::encoding::Unicode;
use super::{GitError, ident};

/// The attributes that convert files, in the order of [`Attributes`].
const ATTRIBUTES: [&str; 6] = ["text", "crlf", "eol", "ident", "working-tree-encoding", "filter"];
const CHUNK_BYTES: usize = 64 * 1024;

/// What git does to a file on its way into the repository and out again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Treatment {
    /// Nothing that a snapshot would undo.
    None,
    /// Carriage returns go away.
    LineEndings {
        /// Only if the file looks like text.
        only_text: bool,
    },
    /// Anything else: any part of the file can change.
    Full,
}

/// What the attributes of a file say, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Attributes<'a> {
    text: StateRef<'a>,
    crlf: StateRef<'a>,
    eol: StateRef<'a>,
    ident: StateRef<'a>,
    encoding: StateRef<'a>,
    filter: StateRef<'a>,
}

/// Decides the treatment of a file.
///
/// A file that a configured program filters (`git-lfs` and such), or that has
/// an encoding of its own, is taken as it is on disk.
fn treatment(attributes: &Attributes<'_>, drivers: &[BString], auto_crlf: eol::AutoCrlf) -> Treatment {
    if is_filtered(attributes, drivers) || value(attributes.encoding).is_some() {
        return Treatment::None;
    }
    if attributes.ident == StateRef::Set {
        return Treatment::Full;
    }
    let text = [attributes.text, attributes.crlf].into_iter().find(|state| {
        matches!(state, StateRef::Set | StateRef::Unset) || value(*state).is_some_and(|v| v == "auto" || v == "input")
    });
    let is_auto = text.and_then(value).is_some_and(|value| value == "auto");
    match (text, value(attributes.eol).map(|value| value.as_bytes())) {
        (Some(StateRef::Unset), _) => Treatment::None,
        (_, Some(b"crlf")) => Treatment::Full,
        (Some(_), _) => Treatment::LineEndings { only_text: is_auto },
        (None, Some(b"lf")) => Treatment::LineEndings { only_text: false },
        (None, _) if auto_crlf == eol::AutoCrlf::Disabled => Treatment::None,
        (None, _) => Treatment::LineEndings { only_text: true },
    }
}

fn attributes(matches: &Outcome) -> Attributes<'_> {
    let mut states = matches.iter_selected().map(|found| found.assignment.state);
    let mut next = || states.next().unwrap_or(StateRef::Unspecified);
    Attributes { text: next(), crlf: next(), eol: next(), ident: next(), encoding: next(), filter: next() }
}

fn is_filtered(attributes: &Attributes<'_>, drivers: &[BString]) -> bool {
    value(attributes.filter).is_some_and(|name| drivers.iter().any(|driver| driver == name))
}

fn value(state: StateRef<'_>) -> Option<&BStr> {
    match state {
        StateRef::Value(value) => Some(value.as_bstr()),
        _ => None,
    }
}

/// Returns whether cleaning can change a file whose treatment is [`Treatment::LineEndings`].
///
/// Reads up to the first NUL byte of a file that must look like text, else to
/// the end; never holds more than a chunk, so it is safe to ask about large data.
pub(super) fn has_line_endings_to_convert(mut reader: impl Read, only_text: bool) -> io::Result<bool> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut found = false;
    loop {
        match reader.read(&mut chunk) {
            Ok(0) => return Ok(found),
            // Git takes any file with a NUL byte for a binary one.
            Ok(count) if only_text && chunk[..count].contains(&0) => return Ok(false),
            Ok(count) => found |= chunk[..count].contains(&b'\r'),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Looks up the attributes of files, and converts files by them. One for each thread.
pub(super) struct Conversion {
    stack: gix::worktree::Stack,
    matches: Outcome,
    drivers: Vec<BString>,
    auto_crlf: eol::AutoCrlf,
    clean: Pipeline,
    checkout: Pipeline,
    neutral_checkout: Pipeline,
}

/// By whose settings a file is checked out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Settings {
    /// The user's, but without filter programs.
    Real,
    /// Those of a snapshot.
    Neutral,
}

/// Returns whether attribute files outside the tree may say something: `info/attributes`, `core.attributesFile`, the system's.
pub(super) fn has_global_attributes(local: &gix::Repository) -> Result<bool, GitError> {
    let mut paths = local.attribute_global_paths().map_err(GitError::on("find the attribute files"))?;
    paths.push(local.common_dir().join("info/attributes"));
    Ok(paths.iter().any(|path| path.metadata().is_ok_and(|metadata| metadata.len() > 0)))
}

/// Returns whether the configuration converts line endings of files that no attribute speaks of.
pub(super) fn has_auto_crlf(local: &gix::Repository) -> Result<bool, GitError> {
    Ok(pipeline_options(local)?.eol_config.auto_crlf != eol::AutoCrlf::Disabled)
}

fn pipeline_options(local: &gix::Repository) -> Result<Options, GitError> {
    gix::filter::Pipeline::options(local).map_err(GitError::on("read the configuration of line endings"))
}

impl Conversion {
    /// Returns a conversion whose `.gitattributes` come from `source`: the working tree and `index`, or `index` alone.
    pub(super) fn new(local: &gix::Repository, index: &gix::index::State, source: Source) -> Result<Self, GitError> {
        let failed = || GitError::on("read the attributes of files");
        let stack = local.attributes_only(index, source).map_err(failed())?.detach();
        let matches = stack.selected_attribute_matches(ATTRIBUTES);
        let real = pipeline_options(local)?;
        let is_program =
            |driver: &&Driver| driver.clean.is_some() || driver.smudge.is_some() || driver.process.is_some();
        let drivers = real.drivers.iter().filter(is_program).map(|driver| driver.name.clone()).collect();
        let auto_crlf = real.eol_config.auto_crlf;
        let neutral = Options {
            drivers: real.drivers.clone(),
            eol_config: eol::Configuration { auto_crlf: eol::AutoCrlf::Disabled, eol: Some(eol::Mode::Lf) },
            ..Options::default()
        };
        // A snapshot changes nothing in the repository, so there is nothing to be safe about.
        let real = Options { drivers: Vec::new(), crlf_roundtrip_check: CrlfRoundTripCheck::Skip, ..real };
        let context = local.command_context().map_err(failed())?;
        let pipeline = |options| Pipeline::new(context.clone(), local.object_hash(), options);
        let (clean, checkout, neutral_checkout) = (pipeline(real.clone()), pipeline(real), pipeline(neutral));
        Ok(Self { stack, matches, drivers, auto_crlf, clean, checkout, neutral_checkout })
    }

    /// Returns what git does to the file at `path`, from the root of the repository.
    ///
    /// Cheap if the paths come in order: each directory is looked at once.
    pub(super) fn treatment(&mut self, local: &gix::Repository, path: &BStr) -> Result<Treatment, GitError> {
        self.match_attributes(local, path)?;
        Ok(treatment(&attributes(&self.matches), &self.drivers, self.auto_crlf))
    }

    fn match_attributes(&mut self, local: &gix::Repository, path: &BStr) -> Result<(), GitError> {
        let failed = GitError::on("read the attributes of files");
        let platform = self.stack.at_entry(path, None, &local.objects).map_err(failed)?;
        platform.matching_attributes(&mut self.matches);
        Ok(())
    }

    /// Returns the blob as a checkout writes it to `path`.
    pub(super) fn check_out(
        &mut self,
        local: &gix::Repository,
        settings: Settings,
        path: &BStr,
        blob: Vec<u8>,
    ) -> Result<Vec<u8>, GitError> {
        let action = || format!("convert `{}` for the working tree", crate::path::escape(path));
        self.match_attributes(local, path)?;
        let found = attributes(&self.matches);
        let unicode = value(found.encoding).and_then(Unicode::named);
        if unicode.is_some() && is_filtered(&found, &self.drivers) {
            let source = "a filter program after an encoding is not supported";
            return Err(GitError::on(action())(source));
        }
        let has_ident = found.ident == StateRef::Set;
        // The library does not know how to write these encodings and leaves the bytes as they are.
        let unknown_encoding = if unicode.is_some() { UnknownEncoding::Ignore } else { UnknownEncoding::Fail };
        let options = to_worktree::Options { can_delay: Delay::Forbid, unknown_encoding };
        let platform = self.stack.at_entry(path, None, &local.objects).map_err(GitError::on(action()))?;
        let mut attributes = |_: &BStr, matches: &mut Outcome| {
            platform.matching_attributes(matches);
        };
        let blob_id = |blob: &[u8]| gix::objs::compute_hash(local.object_hash(), gix::objs::Kind::Blob, blob);
        let blob = if has_ident { ident::expand(blob, blob_id).map_err(GitError::on(action()))? } else { blob };
        let pipeline = match settings {
            Settings::Real => &mut self.checkout,
            Settings::Neutral => &mut self.neutral_checkout,
        };
        let outcome = pipeline.convert_to_worktree(&blob, path, &mut attributes, options);
        let bytes = match outcome.map_err(GitError::on(action()))? {
            ToWorktreeOutcome::Unchanged(_) => blob,
            ToWorktreeOutcome::Buffer(bytes) => bytes.to_vec(),
            mut process @ ToWorktreeOutcome::Process(_) => {
                let mut bytes = Vec::with_capacity(blob.len());
                process.read_to_end(&mut bytes).map_err(GitError::on(action()))?;
                bytes
            }
        };
        match unicode {
            Some(unicode) => unicode.encode(&bytes).map_err(GitError::on(action())),
            None => Ok(bytes),
        }
    }

    /// Returns the blob that git would make of `bytes` at `path`, by the real configuration and without filter programs.
    ///
    /// `index` holds the blob that git has now, which matters for mixed line endings.
    pub(super) fn clean(
        &mut self,
        local: &gix::Repository,
        index: &gix::index::State,
        path: &BStr,
        bytes: Vec<u8>,
    ) -> Result<Vec<u8>, GitError> {
        let action = || format!("convert `{}` for the repository", crate::path::escape(path));
        let platform = self.stack.at_entry(path, None, &local.objects).map_err(GitError::on(action()))?;
        let mut attributes = |_: &BStr, matches: &mut Outcome| {
            platform.matching_attributes(matches);
        };
        let mut blob_in_index = |buffer: &mut Vec<u8>| {
            let Some(entry) = index.entry_by_path(path) else { return Ok(None) };
            let object = gix::objs::Find::try_find(&local.objects, &entry.id, buffer)?;
            Ok(object.filter(|object| object.kind == gix::objs::Kind::Blob).map(|_| ()))
        };
        let native = gix::path::from_bstr(path).map_err(GitError::on(action()))?;
        let outcome = self.clean.convert_to_git(bytes.as_slice(), &native, &mut attributes, &mut blob_in_index);
        match outcome.map_err(GitError::on(action()))? {
            ToGitOutcome::Unchanged(_) => Ok(bytes),
            ToGitOutcome::Buffer(converted) => Ok(converted.to_vec()),
            ToGitOutcome::Process(_) => unreachable!("the cleaning pipeline has no programs"),
        }
    }
}

impl Drop for Conversion {
    fn drop(&mut self) {
        // A long-running filter ends when its input closes; waiting for it leaves no zombie. Its verdict came with each file.
        let _ = self.neutral_checkout.driver_state_mut().shutdown(shutdown::Mode::WaitForProcesses);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes<'a>(assignments: &[(&str, StateRef<'a>)]) -> Attributes<'a> {
        let get =
            |name| assignments.iter().find(|(n, _)| *n == name).map_or(StateRef::Unspecified, |(_, state)| *state);
        Attributes {
            text: get("text"),
            crlf: get("crlf"),
            eol: get("eol"),
            ident: get("ident"),
            encoding: get("encoding"),
            filter: get("filter"),
        }
    }

    fn of(text: &str) -> StateRef<'_> {
        StateRef::from_bytes(text.as_bytes())
    }

    #[test]
    fn a_file_is_left_alone_unless_something_speaks_of_it() {
        let lfs = [BString::from("lfs")];
        let decide = |list: &[(&str, StateRef<'_>)], auto| treatment(&attributes(list), &lfs, auto);
        let text_only = Treatment::LineEndings { only_text: true };
        let always = Treatment::LineEndings { only_text: false };
        let off = eol::AutoCrlf::Disabled;
        assert_eq!(decide(&[], off), Treatment::None);
        assert_eq!(decide(&[], eol::AutoCrlf::Enabled), text_only);
        assert_eq!(decide(&[], eol::AutoCrlf::Input), text_only);
        assert_eq!(decide(&[("text", StateRef::Unset)], eol::AutoCrlf::Enabled), Treatment::None);
        assert_eq!(decide(&[("text", StateRef::Unset), ("eol", of("crlf"))], off), Treatment::None);
        assert_eq!(decide(&[("text", of("auto"))], off), text_only);
        assert_eq!(decide(&[("text", StateRef::Set)], off), always);
        assert_eq!(decide(&[("crlf", of("input"))], off), always);
        assert_eq!(decide(&[("eol", of("lf"))], off), always);
        assert_eq!(decide(&[("eol", of("crlf"))], off), Treatment::Full);
        assert_eq!(decide(&[("ident", StateRef::Set)], off), Treatment::Full);
        assert_eq!(decide(&[("encoding", of("UTF-16LE")), ("text", StateRef::Set)], off), Treatment::None);
        assert_eq!(decide(&[("filter", of("lfs")), ("text", StateRef::Set)], off), Treatment::None);
        assert_eq!(decide(&[("filter", of("unknown"))], off), Treatment::None);
        assert_eq!(decide(&[("filter", of("unknown")), ("text", StateRef::Set)], off), always);
    }

    #[test]
    fn only_files_with_carriage_returns_are_converted_and_binary_ones_never() {
        let asks = |bytes: &[u8], only_text| has_line_endings_to_convert(bytes, only_text).unwrap();
        assert!(!asks(b"a\nb\n", true));
        assert!(asks(b"a\r\nb\n", true));
        assert!(!asks(b"a\r\n\0", true));
        assert!(asks(b"a\r\n\0", false));
        let mut late = vec![b'x'; CHUNK_BYTES + 5];
        late.push(b'\r');
        assert!(asks(&late, true));
        late.push(0);
        assert!(!asks(&late, true));
    }
}
