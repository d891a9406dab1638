//! Fetching, pushing and cloning, by the `git` program: it has the user's credentials, proxies and ssh settings.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use gix::bstr::ByteSlice;

use super::program::{program, said};
use super::reference::{Entry, Held, Patience, WAIT_AT_MOST};
use super::set::{signature, tip};
use super::{CommitId, GitError, Repository};

/// Whether git may ask the user, for a password for instance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asking {
    /// As the user has configured it.
    Allowed,
    /// Never: the user is not waiting for a question, as in a hook.
    Never,
}

/// What became of a push.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pushed {
    /// The reference is there now, or was before.
    Done,
    /// Others moved the reference there, or are about to.
    Behind {
        /// What git said.
        reason: String,
    },
    /// The server does not want it, whoever comes first.
    Refused {
        /// What the server said.
        reason: String,
    },
}

impl Repository {
    /// Returns the names of the remotes, sorted.
    pub fn remotes(&self) -> Vec<String> {
        self.local().remote_names().iter().filter_map(|name| Some(name.to_str().ok()?.to_owned())).collect()
    }

    /// Returns the commit that a reference is at; `None` if there is none, or it is none that can be read.
    pub fn commit_at(&self, reference: &str) -> Option<CommitId> {
        let local = self.local();
        tip(&local, reference).ok().flatten().filter(|id| is_commit(&local, id))
    }

    /// Returns the commits that lead to `tips` and not to `hidden`, the newest first, at most so many. What is not here is passed over.
    ///
    /// # Errors
    ///
    /// [`GitError::Git`] if the history cannot be walked.
    pub fn commits_since(
        &self,
        tips: &[CommitId],
        hidden: &[CommitId],
        most: usize,
    ) -> Result<Vec<CommitId>, GitError> {
        let local = self.local();
        let here =
            |ids: &[CommitId]| -> Vec<_> { ids.iter().filter(|id| is_commit(&local, id)).map(|id| id.0).collect() };
        let failed = || GitError::on("walk the history".to_owned());
        let walk = local.rev_walk(here(tips)).with_hidden(here(hidden)).all().map_err(failed())?;
        walk.take(most).map(|info| Ok(CommitId(info.map_err(failed())?.id))).collect()
    }

    /// Returns the references whose names begin with `prefix`, which ends with `/`, and that are at commits, sorted by name.
    ///
    /// # Errors
    ///
    /// [`GitError::Git`] if they cannot be listed.
    pub fn commits_below(&self, prefix: &str) -> Result<Vec<(String, CommitId)>, GitError> {
        let local = self.local();
        let failed = || GitError::on(format!("list the references in `{prefix}`"));
        let platform = local.references().map_err(failed())?;
        let mut found = Vec::new();
        for reference in platform.prefixed(prefix.as_bytes()).map_err(failed())?.flatten() {
            if let (Ok(name), Some(id)) = (reference.name().as_bstr().to_str(), reference.try_id()) {
                found.push((name.to_owned(), CommitId(id.detach())));
            }
        }
        found.retain(|(_, id)| is_commit(&local, id));
        found.sort();
        Ok(found)
    }

    /// Fetches references from a remote, each to where its pattern says: `from*` and `to*` for one there and one here.
    ///
    /// What is no longer there goes here, too. Nothing else is touched: no tag, no branch, no `FETCH_HEAD`.
    /// Costs one connection. Waits for others who fetch to the same references, for five seconds at most.
    ///
    /// # Errors
    ///
    /// [`GitError::Remote`] if the remote cannot be reached, [`GitError::Git`] if git cannot be started.
    pub fn fetch_refs(&self, remote: &str, patterns: &[(&str, String)], asking: Asking) -> Result<(), GitError> {
        const ACTION: &str = "fetch from";
        let mut command = self.program();
        command.args(["fetch", "--quiet", "--prune", "--no-prune-tags", "--no-tags", "--no-recurse-submodules"]);
        // Of a partial clone, too, the records have to be here.
        command.args(["--no-write-fetch-head", "--no-filter", "--refmap=", "--end-of-options", remote]);
        command.args(patterns.iter().map(|(from, to)| format!("+{from}*:{to}*")));
        let mut patience = Patience::of(WAIT_AT_MOST);
        loop {
            let output = run(&mut command, asking, ACTION, remote)?;
            if output.status.success() {
                return Ok(());
            }
            // Another fetch is at work in this very repository, an editor's in the background for instance.
            let is_held = String::from_utf8_lossy(&output.stderr).contains("cannot lock ref");
            if !is_held || !patience.wait() {
                return Err(turned_away(ACTION, remote, &output));
            }
        }
    }

    /// Makes a reference of the remote be at `commit`, unless it would lose anything that it is at there.
    ///
    /// The remote compares and swaps: of those who push at once, one is first, and the others are [`Pushed::Behind`].
    /// Runs no hook of this repository. Costs one connection.
    ///
    /// # Errors
    ///
    /// [`GitError::Remote`] if the remote cannot be reached, [`GitError::Git`] if git cannot be started.
    pub fn push_commit(
        &self,
        remote: &str,
        commit: &CommitId,
        reference: &str,
        asking: Asking,
    ) -> Result<Pushed, GitError> {
        const ACTION: &str = "push to";
        let mut command = self.program();
        command.args(["push", "--porcelain", "--no-verify", "--no-follow-tags", "--no-recurse-submodules"]);
        command.args(["--end-of-options", remote]).arg(format!("{commit}:{reference}"));
        let output = run(&mut command, asking, ACTION, remote)?;
        if output.status.success() {
            return Ok(Pushed::Done);
        }
        outcome(&output).ok_or_else(|| turned_away(ACTION, remote, &output))
    }

    /// Moves a reference to a commit, wherever it was. It is durable afterwards.
    ///
    /// # Errors
    ///
    /// As [`Repository::add_to_set`].
    pub fn move_reference(&self, reference: &str, to: &CommitId, why: &str) -> Result<(), GitError> {
        let local = self.local();
        let mut patience = Patience::of(WAIT_AT_MOST);
        let held = Held::take(&local, reference, &mut patience)?;
        held.remove_blank(&mut patience)?;
        let signature = signature(self.identity().as_ref());
        loop {
            let from = tip(&local, reference)?;
            let entry = Entry { signature: &signature, message: why };
            if from == Some(*to) || held.move_it(from.map(|from| from.0), to.0, &entry, &mut patience)? {
                return Ok(());
            }
            if !patience.wait() {
                return Err(GitError::Busy { reference: reference.to_owned() });
            }
        }
    }
}

/// Clones a repository to `directory`, as the user would in the directory `from`; git talks on standard error.
///
/// # Errors
///
/// [`GitError::NotCloned`] if that failed, which git has explained, [`GitError::Git`] if git cannot be started.
pub fn clone_repository(from: &Path, url: &str, directory: &str, is_quiet: bool) -> Result<(), GitError> {
    let mut command = program();
    command.arg("clone").args(is_quiet.then_some("--quiet")).arg("--end-of-options").arg(url).arg(directory);
    let status = command.current_dir(from).stdout(Stdio::null()).status().map_err(GitError::on("start `git clone`"))?;
    if status.success() { Ok(()) } else { Err(GitError::NotCloned { status }) }
}

fn is_commit(local: &gix::Repository, id: &CommitId) -> bool {
    let header = local.try_find_header(id.0).ok().flatten();
    header.is_some_and(|header| header.kind() == gix::objs::Kind::Commit)
}

fn run(command: &mut Command, asking: Asking, action: &'static str, remote: &str) -> Result<Output, GitError> {
    if asking == Asking::Never {
        command.env("GIT_TERMINAL_PROMPT", "0");
    }
    command.output().map_err(GitError::on(format!("{action} `{remote}`")))
}

fn turned_away(action: &'static str, remote: &str, output: &Output) -> GitError {
    GitError::Remote { action, remote: remote.to_owned(), message: said(&output.stderr) }
}

/// What a server says when another was faster, in the words of all versions of git.
const FASTER: [&str; 6] = [
    "failed to update ref",
    "cannot lock ref",
    "failed to lock",
    "reference already exists",
    "incorrect old value",
    "fetch first",
];

/// Returns what became of the one reference that was pushed; `None` if it did not come to that.
fn outcome(output: &Output) -> Option<Pushed> {
    let text = String::from_utf8_lossy(&output.stdout);
    let summary = text.lines().find_map(|line| line.strip_prefix("!\t")?.split('\t').nth(1))?;
    let why = summary.split_once('(').map_or(summary, |(_, why)| why.trim_end().trim_end_matches(')'));
    let heard = String::from_utf8_lossy(&output.stderr);
    let remarks: Vec<_> = heard.lines().filter_map(|line| line.strip_prefix("remote:")).map(str::trim).collect();
    let told = remarks.into_iter().filter(|line| !line.is_empty() && !line.contains(why)).collect::<Vec<_>>().join(" ");
    let reason = if told.is_empty() { said(why.as_bytes()) } else { said(format!("{why}: {told}").as_bytes()) };
    if summary.starts_with("[rejected]") || FASTER.iter().any(|words| why.contains(words)) {
        Some(Pushed::Behind { reason })
    } else if summary.starts_with("[remote rejected]") {
        Some(Pushed::Refused { reason })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{META, Scratch, file};
    use super::*;

    const FETCHED: &str = "refs/pv/fetched/there/meta";

    /// A repository with a set, and a bare one that is its remote `there`.
    fn with_remote() -> Scratch {
        let scratch = Scratch::new();
        let bare = scratch.beside("bare.git");
        scratch.git(&["init", "--quiet", "--bare", bare.to_str().unwrap()]);
        scratch.git(&["remote", "add", "there", bare.to_str().unwrap()]);
        scratch.repository().add_to_set(META, &[file("a", "1")], "first").unwrap();
        scratch
    }

    fn fetch(repository: &Repository) -> Option<CommitId> {
        repository.fetch_refs("there", &[(META, FETCHED.to_owned())], Asking::Never).unwrap();
        repository.commit_at(FETCHED)
    }

    #[test]
    fn what_is_pushed_is_fetched_and_what_is_gone_there_goes() {
        let scratch = with_remote();
        let repository = scratch.repository();
        assert_eq!(repository.remotes(), ["there"]);
        assert_eq!(fetch(&repository), None, "a remote without the ref is no error");
        let tip = repository.set_tip(META).unwrap().unwrap();
        let push = || repository.push_commit("there", &tip, META, Asking::Never).unwrap();
        assert_eq!((push(), push()), (Pushed::Done, Pushed::Done));
        assert_eq!(fetch(&repository), Some(tip));
        assert_eq!(repository.commits_below("refs/pv/fetched/").unwrap(), [(FETCHED.to_owned(), tip)]);
        scratch.git_in(&scratch.beside("bare.git"), &["update-ref", "-d", META]);
        assert_eq!(fetch(&repository), None);
        assert!(!scratch.root.join(".git/FETCH_HEAD").exists());
    }

    #[test]
    fn a_push_that_would_lose_something_is_behind_and_loses_nothing() {
        let scratch = with_remote();
        let repository = scratch.repository();
        let ours = repository.set_tip(META).unwrap().unwrap();
        let theirs = repository.add_to_set("refs/pv/other", &[file("b", "2")], "other").unwrap();
        assert_eq!(repository.push_commit("there", &theirs, META, Asking::Never).unwrap(), Pushed::Done);
        let pushed = repository.push_commit("there", &ours, META, Asking::Never).unwrap();
        assert_eq!(pushed, Pushed::Behind { reason: "non-fast-forward".to_owned() });
        assert_eq!(fetch(&repository), Some(theirs));
    }

    #[test]
    fn a_refusal_says_what_the_server_said() {
        let scratch = with_remote();
        let repository = scratch.repository();
        let hook = "../bare.git/hooks/pre-receive";
        scratch.write(hook, "#!/bin/sh\necho 'no such thing here' >&2\nexit 1\n");
        scratch.make_executable(hook);
        let tip = repository.set_tip(META).unwrap().unwrap();
        let pushed = repository.push_commit("there", &tip, META, Asking::Never).unwrap();
        assert_eq!(pushed, Pushed::Refused { reason: "pre-receive hook declined: no such thing here".to_owned() });
        let error = repository.push_commit("-nowhere", &tip, META, Asking::Never).unwrap_err();
        assert!(matches!(&error, GitError::Remote { remote, .. } if remote == "-nowhere"), "{error}");
    }

    #[test]
    fn a_reference_is_moved_wherever_it_was() {
        let scratch = Scratch::new();
        let (first, second) = (scratch.commit("first"), scratch.commit("second"));
        let repository = scratch.repository();
        for to in [second, first, first] {
            repository.move_reference(FETCHED, &to, "test").unwrap();
            assert_eq!(repository.commit_at(FETCHED), Some(to));
        }
        scratch.git(&["update-ref", "refs/pv/fetched/tree/meta", "HEAD^{tree}"]);
        assert_eq!(repository.commit_at("refs/pv/fetched/tree/meta"), None);
        assert_eq!(repository.commits_below("refs/pv/fetched/").unwrap().len(), 1);
        assert_eq!(repository.commit_at("no name"), None);
    }
}
