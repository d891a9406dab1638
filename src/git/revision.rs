//! Revisions: what people call commits.

use gix::bstr::ByteSlice;
use gix::objs::Kind;
use gix::revision::spec::parse::{Error as ParseError, ObjectKindHint, Options};

use super::commit::find;
use super::{CommitId, GitError, Repository};

impl Repository {
    /// Returns the commit that `revision` names: anything that `git rev-parse` takes and that leads to one commit.
    ///
    /// Tags, branches, abbreviations, `HEAD~2`, `main@{yesterday}`, `:/text`; annotated tags lead to their commit.
    /// `None` if nothing is called so, or if it cannot be a revision at all.
    ///
    /// # Errors
    ///
    /// [`GitError::Ambiguous`] if an abbreviation fits several commits,
    /// [`GitError::NotACommit`] if it names a file, a directory or a range,
    /// [`GitError::Git`] if what it names is damaged or missing.
    pub fn resolve(&self, revision: &str) -> Result<Option<CommitId>, GitError> {
        let local = self.local();
        let options = Options { object_kind_hint: Some(ObjectKindHint::Committish), ..Default::default() };
        let spec = match gix::revision::Spec::from_bstr(revision, &local, options) {
            Ok(spec) => spec.detach(),
            Err(error) => return unresolved(&local, revision, error),
        };
        let gix::revision::plumbing::Spec::Include(id) = spec else {
            return Err(GitError::NotACommit { revision: revision.to_owned() });
        };
        let failed = || GitError::on(format!("read revision `{revision}`"));
        let Some(object) = local.try_find_object(id).map_err(failed())? else {
            // Digits are taken for an id whether or not it is there; a name that leads nowhere is damage.
            let is_id = revision.parse::<CommitId>().is_ok();
            return if is_id { Ok(None) } else { find(&local, &CommitId(id)).map(|commit| Some(CommitId(commit.id))) };
        };
        let object = object.peel_tags_to_end().map_err(failed())?;
        match object.kind {
            Kind::Commit => Ok(Some(CommitId(object.id))),
            _ => Err(GitError::NotACommit { revision: revision.to_owned() }),
        }
    }
}

/// Tells apart why a text led to no object.
fn unresolved(local: &gix::Repository, revision: &str, error: gix::Error) -> Result<Option<CommitId>, GitError> {
    if let Some(ParseError::AmbiguousPrefix { candidates, .. }) = error.downcast_any_ref() {
        let candidates = candidates.iter().filter_map(|(prefix, _)| candidate(local, &prefix.to_string()));
        let mut candidates: Vec<_> = candidates.collect();
        candidates.sort();
        return Err(GitError::Ambiguous { revision: revision.to_owned(), candidates });
    }
    let is_damage =
        error.is_corrupted() || error.is_permission_denied() || error.downcast_any_ref::<std::io::Error>().is_some();
    if is_damage { Err(GitError::on(format!("read revision `{revision}`"))(error)) } else { Ok(None) }
}

fn candidate(local: &gix::Repository, prefix: &str) -> Option<(CommitId, String)> {
    let object = local.rev_parse_single(prefix).ok()?.object().ok()?;
    let commit = object.peel_tags_to_end().ok()?.try_into_commit().ok()?;
    let subject = commit.message().ok()?.summary().to_str_lossy().into_owned();
    Some((CommitId(commit.id), subject))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::super::fixture::Scratch;
    use super::*;

    #[test]
    fn whatever_leads_to_one_commit_is_found_as_git_finds_it() {
        let scratch = Scratch::new();
        scratch.write("file", "1");
        scratch.commit("first");
        scratch.git(&["tag", "--annotate", "--message=x", "v1.0"]);
        scratch.git(&["tag", "--annotate", "--message=x", "of-a-tag", "v1.0"]);
        scratch.git(&["switch", "--quiet", "--create", "side"]);
        scratch.commit("on the side");
        scratch.git(&["switch", "--quiet", "main"]);
        scratch.commit("second");
        scratch.git(&["merge", "--quiet", "--no-ff", "--message=merge", "side"]);
        let repository = scratch.repository();
        let full = scratch.line(&["rev-parse", "HEAD~1"]);
        let revisions = [
            "HEAD",
            "@",
            "main",
            "heads/main",
            "refs/heads/main",
            "side",
            "v1.0",
            "of-a-tag",
            "v1.0^{}",
            "v1.0^{commit}",
            "HEAD~2",
            "HEAD^2",
            "HEAD^^",
            "main@{1}",
            "HEAD@{2}",
            "main@{yesterday}",
            "@{-1}",
            ":/second",
            ":/side",
            "HEAD^{/first}",
            &full,
            &full[..7],
        ];
        for revision in revisions {
            assert_eq!(repository.resolve(revision).unwrap(), Some(scratch.id(revision)), "{revision}");
        }
    }

    #[test]
    fn what_is_called_nothing_or_is_no_revision_at_all_is_not_found() {
        let scratch = Scratch::new();
        assert_eq!(scratch.repository().resolve("HEAD").unwrap(), None);
        assert_eq!(scratch.repository().resolve("main").unwrap(), None);
        scratch.commit("first");
        let missing = "ce013625030ba8dba906f756967f9e9ca394464a";
        let revisions = [
            "nothing",
            "v1.0",
            "",
            "deadbeef",
            missing,
            "HEAD~5",
            "HEAD^2",
            "HEAD@{7}",
            ":/nothing",
            "HEAD:nothing",
            "two words",
            "a..",
            "~",
            "HEAD^{",
            "@{u}",
            "-x",
            "*",
        ];
        for revision in revisions {
            // Git itself takes `a..` for a range of which one end is called nothing.
            assert_eq!(scratch.repository().resolve(revision).unwrap(), None, "{revision}");
        }
    }

    #[test]
    fn what_is_no_commit_is_refused_by_name() {
        let scratch = Scratch::new();
        scratch.write("file", "1");
        scratch.commit("first");
        scratch.git(&["tag", "tree", "HEAD^{tree}"]);
        let blob = scratch.line(&["rev-parse", "HEAD:file"]);
        for revision in
            ["HEAD:file", "HEAD:", "HEAD^{tree}", "tree", &blob, "HEAD..main", "HEAD...main", "^HEAD", "HEAD^!"]
        {
            let error = scratch.repository().resolve(revision).unwrap_err();
            assert!(matches!(error, GitError::NotACommit { revision: named } if named == revision), "{revision}");
        }
    }

    #[test]
    fn an_ambiguous_abbreviation_lists_the_commits_that_it_fits() {
        let scratch = Scratch::new();
        let mut stream = String::from("feature done\n");
        for number in 0..900 {
            let (subject, seconds) = (format!("number {number}"), 1_700_000_000 + number);
            writeln!(
                stream,
                "commit refs/heads/c{number}\ncommitter A <a@b> {seconds} +0000\ndata {}\n{subject}",
                subject.len()
            )
            .unwrap();
        }
        scratch.write("stream", format!("{stream}done\n"));
        let import = "git fast-import --quiet < stream";
        let status = scratch.command("sh".as_ref(), &scratch.root).args(["-c", import]).status().unwrap();
        assert!(status.success());
        let all = scratch.line(&["rev-list", "--all", "--format=%s", "--no-commit-header", "--pretty=%H %s"]);
        let mut commits: Vec<(CommitId, String)> = all
            .lines()
            .map(|line| line.split_once(' ').map(|(id, subject)| (id.parse().unwrap(), subject.to_owned())).unwrap())
            .collect();
        commits.sort();
        let prefix = |index: usize| commits[index].0.to_string()[..4].to_owned();
        let first = (1..commits.len()).find(|index| prefix(*index) == prefix(index - 1)).unwrap() - 1;
        let expected: Vec<_> = (first..commits.len()).take_while(|index| prefix(*index) == prefix(first)).collect();
        let error = scratch.repository().resolve(&prefix(first)).unwrap_err();
        let GitError::Ambiguous { revision, candidates } = error else { panic!("{error}") };
        assert_eq!(revision, prefix(first));
        assert_eq!(candidates, expected.iter().map(|index| commits[*index].clone()).collect::<Vec<_>>());
    }

    #[test]
    fn a_name_whose_commit_is_lost_is_damage_not_absence() {
        let scratch = Scratch::new();
        let lost = scratch.commit("first");
        let digits = lost.to_string();
        scratch.remove(&format!(".git/objects/{}/{}", &digits[..2], &digits[2..]));
        assert!(
            matches!(scratch.repository().resolve("main"), Err(GitError::MissingCommit { commit }) if commit == lost)
        );
    }
}
